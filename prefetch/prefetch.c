/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread: takes observations, keeps sets and streams, asks the cache.
 *
 *   prefetch_observe -> queue -> accesses_take -> on_open / on_read
 *                                     |
 *   main loop:  issue_all: streams (read-ahead), sets (their orders, the unread) -> cache_want
 *                                     ^                                                 |
 *                                     +------------------ fetch_done <------------------+
 *
 * The lock guards sets, streams and the governor, as the cache's advisor and
 * the fetches' ends come from other threads. It is never held while calling
 * cache_want, which may evict and so ask the advisor.
 */
#include "prefetch/engine.h"
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "lib/log.h"
#include "lib/stats.h"
#include "prefetch/plan.h"
#include "prefetch/whereto.h"

enum { RANK_PREFETCH = 10 };

#define REMEMBER_NS (5 * NSEC_PER_SEC)      /* after a crash so much of an epoch is fetched once more at worst */
#define CHECK_JOBS_NS NSEC_PER_SEC

/* While accesses come, they are collected for so long: to be woken for each would cost their readers more than the access did. */
enum { NAP_MS = 1 };

static void wake(struct prefetch *p)
{
	uint64_t one = 1;

	if (write(p->wake_fd, &one, sizeof(one)) < 0)
		return;   /* full: it is awake */
}

void prefetch_wake(struct prefetch *p)
{
	if (atomic_exchange(&p->rest, AWAKE) != AWAKE)
		wake(p);
}

static void listed(void *arg)
{
	prefetch_wake(arg);
}

void prefetch_observe(struct prefetch *p, const struct observation *o)
{
	if (!observe_push(&p->queue, o)) {
		stats_inc(p->stats, STAT_PREFETCH_DROPPED_OBSERVATIONS);
		return;
	}
	/* a reader that waited wants more ahead of it now */
	if (o->stalled || atomic_load(&p->rest) == ASLEEP)
		prefetch_wake(p);
}

/* What reading user.hopper.plan says. Lock not held. */
__attribute__((format(printf, 2, 3))) void prefetch_set_plan_text(struct prefetch *p, const char *format, ...)
{
	va_list args;
	char *text;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	lock_acquire(&p->lock);
	free(p->plan_text);
	p->plan_text = text;
	lock_release(&p->lock);
}

/* ---- into the page cache ---- */

/* Where it will be read, as far as that is known: pages stay where they are put. Lock held. */
static int push_place(struct prefetch *p, const struct ahead_item *i)
{
	const struct set *s = i->unit->set;
	int place = -1;

	if (!p->has_places)
		return -1;
	if (i->at != UINT32_MAX)
		place = whereto_position(&s->whereto, i->at, s->follow.order->stride);
	return place >= 0 ? place : whereto_last(&s->whereto, i->unit->place ? i->unit->place[i->index] : 0);
}

/* The next file to be put there, 0 for none. */
static uint64_t next_to_push(struct prefetch *p, int *ret_place)
{
	uint64_t now = clock_ns();
	struct ahead_item item;
	bool has = false;
	struct set *s;
	size_t pos = 0;

	lock_scope(&p->lock);
	if (!p->sink.push)
		return 0;
	while (!has && (s = map64_next(&p->sets.by_key, &pos, NULL))) {
		struct order *o = p->cfg.recognise ? follow_order(&s->follow) : NULL;

		/* of several jobs the first is served: what it reads is there for the others too */
		if (is_live(s, now) && !(s->parent & JOB_KEY))
			has = ahead_next(&p->ahead, s, o, &item);
	}
	if (has)
		*ret_place = push_place(p, &item);
	return has ? item.unit->first + item.index : 0;
}

static void push_ahead(struct prefetch *p)
{
	struct cache_flow flow;
	uint64_t ino, auto_bytes;
	bool is_due;
	int place;

	lock_acquire(&p->lock);
	is_due = ahead_is_due(&p->ahead, clock_ns());
	lock_release(&p->lock);
	if (is_due) {
		/* at most an eighth of the memory that is available, and half of what ram= gives ours */
		auto_bytes = cache_memory_spare() / 2;
		cache_flow(p->cache, &flow);
		lock_acquire(&p->lock);
		ahead_set_max(&p->ahead, auto_bytes < flow.ram_limit_bytes / 2 ? auto_bytes : flow.ram_limit_bytes / 2);
		lock_release(&p->lock);
	}
	while (!atomic_load(&p->is_stopping) && (ino = next_to_push(p, &place)))
		p->sink.push(p->sink.arg, ino, place);
}

void prefetch_set_sink(struct prefetch *p, const struct prefetch_sink *sink)
{
	lock_scope(&p->lock);
	p->sink = *sink;
	if (p->cfg.mode == PREFETCH_AUTO)
		ahead_begin(&p->ahead, p->ns, p->stats);
}

void prefetch_pushed(struct prefetch *p, uint64_t ino, int err)
{
	struct ns_attr attr;
	struct unit *u;
	uint32_t index;
	int rc = ns_getattr(p->ns, ino, NS_NOCHECK | NS_NOWAIT, &attr);
	bool is_low;

	lock_acquire(&p->lock);
	u = sets_unit(&p->sets, ino, &index);
	if (u)
		ahead_done(&p->ahead, u, index, rc ? 0 : attr.version.size, err);
	is_low = p->ahead.in_flight <= AHEAD_IN_FLIGHT / 2;
	lock_release(&p->lock);
	if (is_low)
		prefetch_wake(p);
}

static void nap(struct prefetch *p)
{
	struct pollfd pfd = { .fd = p->wake_fd, .events = POLLIN };
	int rest = ASLEEP;
	uint64_t count;

	atomic_compare_exchange_strong(&p->rest, &rest, NAPPING);
	poll(&pfd, 1, NAP_MS);
	if (pfd.revents && read(p->wake_fd, &count, sizeof(count)) < 0)
		return;
}

static void sleep_until_woken(struct prefetch *p)
{
	struct pollfd pfd = { .fd = p->wake_fd, .events = POLLIN };
	uint64_t count, now = clock_ns();
	int timeout_ms = -1;

	lock_acquire(&p->lock);
	if (p->wake_ns)
		timeout_ms = p->wake_ns > now ? (int)((p->wake_ns - now) / NSEC_PER_MSEC) + 1 : 0;
	lock_release(&p->lock);
	poll(&pfd, 1, timeout_ms);
	if (pfd.revents && read(p->wake_fd, &count, sizeof(count)) < 0)
		return;
}

/* Jobs that have ended want nothing any more. Lock not held. */
static void check_jobs(struct prefetch *p)
{
	struct set *s;
	size_t pos = 0;

	p->checked_ns = clock_ns();
	lock_scope(&p->lock);
	while ((s = map64_next(&p->sets.by_key, &pos, NULL))) {
		if (!(s->parent & JOB_KEY))
			jobs_check(s);
	}
}

static void *prefetch_thread(void *arg)
{
	struct prefetch *p = arg;
	enum rest next = ASLEEP;
	struct observation o;
	struct losses losses;

	pthread_setname_np(pthread_self(), "prefetch");
	while (!atomic_load(&p->is_stopping)) {
		bool had = false;

		/* announce it first: what comes after this line wakes us */
		atomic_store(&p->rest, next);
		losses = advice_take_losses(p);
		while (observe_pop(&p->queue, &o)) {
			accesses_take(p, &o);
			had = true;
		}
		had |= losses.count;
		advice_lost(p, &losses);
		if (p->cfg.mode != PREFETCH_OFF) {
			issue_all(p);
			move_ahead(p);
		}
		push_ahead(p);
		remember_profile(p);
		if (had && clock_ns() - p->remembered_ns > REMEMBER_NS)
			remember_epochs(p);
		if (had && clock_ns() - p->checked_ns > CHECK_JOBS_NS)
			check_jobs(p);
		if (had)
			nap(p);
		else if (next == ASLEEP)
			sleep_until_woken(p);
		next = had ? NAPPING : ASLEEP;
	}
	return NULL;
}

/* ---- plans ---- */

static void planned(void *arg, struct set *s)
{
	accesses_ask(arg, s, s->last_ns);
}

int prefetch_plan(struct prefetch *p, uint64_t dir, const char *text, char *msg, size_t msg_size)
{
	const struct plan_target target = { p->cache, p->ns, &p->sets, &p->lock, planned, p };
	int rc;

	*msg = 0;
	if (!p->recogniser) {
		snprintf(msg, msg_size, "plans need prefetch=auto and recognise=on");
		rc = -EOPNOTSUPP;
	} else {
		rc = plan_take(&target, dir, text, msg, msg_size);
	}
	if (!rc && !prefetch_had_plans(p) && cache_note_put(p->cache, NOTE_PLANS, "1", 1))
		log_debug("that there was a plan is not remembered");
	prefetch_set_plan_text(p, "%.200s: %s\n", strncmp(text, "list\n", 5) ? text : "list", rc ? *msg ? msg : strerror(-rc) : "taken");
	prefetch_wake(p);
	return rc;
}

bool prefetch_had_plans(struct prefetch *p)
{
	_cleanup_free_ void *note = NULL;
	size_t len;

	return !cache_note_get(p->cache, NOTE_PLANS, &note, &len);
}

char *prefetch_plan_text(struct prefetch *p)
{
	lock_scope(&p->lock);
	return strdup(p->plan_text ? p->plan_text : "none\n");
}

/* ---- life ---- */

int prefetch_start(const struct prefetch_config *cfg, struct cache *cache, struct stats *stats,
		   struct prefetch **ret_prefetch)
{
	struct prefetch *p = aligned_alloc(128, (sizeof(*p) + 127) / 128 * 128);
	int rc = 0;

	if (!p)
		return -ENOMEM;
	memset(p, 0, sizeof(*p));
	p->cfg = *cfg;
	p->cache = cache;
	p->ns = cache_ns(cache);
	p->stats = stats;
	p->consumed_count = 1;
	lock_init(&p->lock, "prefetch", RANK_PREFETCH);
	lock_cond_init(&p->idle);
	observe_init(&p->queue);
	governor_init(&p->governor, cfg->origin_parallel, cfg->origin_bw, clock_ns());
	if (cfg->mode != PREFETCH_OFF)
		cache_set_parallel(cache, p->governor.limit);
	p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->wake_fd < 0)
		rc = -errno;
	advice_init(p);
	if (!rc)
		rc = sets_open(&p->sets, &(struct sets_config){ p->ns, &p->lock, remember_set, listed, p });
	if (!rc && cfg->recognise && cfg->mode == PREFETCH_AUTO)
		rc = recogniser_new(p->ns, p->cache, accesses_recognised, p, &p->recogniser);
	if (!rc)
		rc = -pthread_create(&p->thread, NULL, prefetch_thread, p);
	if (rc) {
		prefetch_free(p);
		return rc;
	}
	cache_set_advisor(cache, &p->advisor);
	*ret_prefetch = p;
	return 0;
}

void prefetch_stop(struct prefetch *p)
{
	atomic_store(&p->is_stopping, true);
	wake(p);
	pthread_join(p->thread, NULL);
	remember_profile(p);
	remember_epochs(p);
	recogniser_free(p->recogniser);
	p->recogniser = NULL;
	sets_stop(&p->sets);
	lock_acquire(&p->lock);
	while (p->in_flight)
		lock_wait(&p->lock, &p->idle);
	lock_release(&p->lock);
}

void prefetch_free(struct prefetch *p)
{
	if (!p)
		return;
	recogniser_free(p->recogniser);
	sets_close(&p->sets);
	streams_clear(&p->streams);
	free(p->losses.of);
	free(p->plan_text);
	free(p->profile);
	free(p->profile_name);
	if (p->wake_fd >= 0)
		close(p->wake_fd);
	pthread_cond_destroy(&p->idle);
	lock_destroy(&p->lock);
	free(p);
}

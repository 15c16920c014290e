/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Makes another origin slow or unreliable, the same way each time.
 *
 * A data request is handed to the inner origin at once; its result is held
 * back until the moment the model says. The model is a round trip followed by
 * one link that all requests share, first come, first served:
 *
 *   start = max(arrival + read [+ meta for the open] + jitter, link is free)
 *   end   = start + len / bw
 *
 * A request that slow= picks is held back longer still, after its turn on the link:
 * it is the answer that is late, and nobody queues behind it.
 *
 * One thread sleeps until the next moment; no thread waits per request. A
 * metadata call sleeps in its caller.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "cache/origin/kinds.h"
#include "cache/origin/origin.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/list.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "lib/parse.h"
#include "lib/stats.h"

enum {
	RANK_FAULT = 60,
	META_PARALLEL = 64,            /* attributes a listing asks for at a time */
	PROGRESS_BYTES = 128 * 1024,   /* what a reader may see arrive */
};

struct settings {
	uint64_t read_ns, meta_ns, jitter_ns, bytes_per_s;
	uint64_t error_nth, short_nth, hang_nth, stale_nth, slow_nth, slow_by_ns;
	uint64_t meta_error_nth, meta_hang_nth, meta_lost_nth, lost_nth, busy_nth;
	uint64_t lie_more, lie_less;   /* bytes that files seem to be larger, or smaller */
};

/* One request between its arrival and its report. */
struct held {
	struct list link;             /* in fault->waiting */
	struct origin_read inner;     /* what the inner origin works on */
	struct origin_read *outer;
	struct fault *fault;
	uint64_t start_ns, end_ns, next_ns;   /* transfer on the link; next thing to tell */
	int forced_err;               /* 0 or what to report in any case */
	bool hangs;                   /* until hang= is taken back, or for ever if it is lost */
	bool is_lost;

	/* protected by fault->lock */
	bool inner_is_done;
	int inner_err;
};

struct fault {
	struct origin origin;
	struct origin *inner;
	char *control;                /* owned, or NULL */
	pthread_t timer;

	struct lock lock;
	pthread_cond_t changed;
	/* protected by lock */
	struct settings set;
	struct timespec control_mtime;
	struct list waiting;          /* of struct held, unordered */
	uint64_t arrivals, meta_arrivals, link_free_ns, random;
	unsigned in_meta;             /* metadata calls that have not returned */
	unsigned in_inner;            /* requests the inner origin has */
	bool is_closing;
};

static int settings_parse_one(struct settings *s, const char *key, const char *value)
{
	const struct { const char *key; uint64_t *ret; int (*parse)(const char *, uint64_t *); } table[] = {
		{ "read", &s->read_ns, parse_duration },   { "meta", &s->meta_ns, parse_duration },
		{ "jitter", &s->jitter_ns, parse_duration }, { "bw", &s->bytes_per_s, parse_size },
		{ "error", &s->error_nth, parse_u64 },     { "short", &s->short_nth, parse_u64 },
		{ "hang", &s->hang_nth, parse_u64 },       { "stale", &s->stale_nth, parse_u64 },
		{ "slow", &s->slow_nth, parse_u64 },       { "slow_by", &s->slow_by_ns, parse_duration },
		{ "meta_error", &s->meta_error_nth, parse_u64 }, { "meta_hang", &s->meta_hang_nth, parse_u64 },
		{ "meta_lost", &s->meta_lost_nth, parse_u64 },
		{ "lost", &s->lost_nth, parse_u64 },       { "busy", &s->busy_nth, parse_u64 },
		{ "lie_more", &s->lie_more, parse_size },  { "lie_less", &s->lie_less, parse_size },
	};

	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++) {
		if (!strcmp(table[i].key, key))
			return table[i].parse(value, table[i].ret);
	}
	return -EINVAL;
}

/* KEY=VALUE,...; "control" is returned apart. On error *ret_bad names the culprit (in @text). */
static int settings_parse(char *text, struct settings *s, const char **ret_control, const char **ret_bad)
{
	char *save = NULL;

	for (char *item = strtok_r(text, ",\n", &save); item; item = strtok_r(NULL, ",\n", &save)) {
		char *equals = strchr(item, '=');

		*ret_bad = item;
		if (!equals)
			return -EINVAL;
		*equals = 0;
		if (!strcmp(item, "control") && ret_control) {
			*ret_control = equals + 1;
			continue;
		}
		if (settings_parse_one(s, item, equals + 1)) {
			*equals = '=';
			return -EINVAL;
		}
	}
	return 0;
}

/* Read the control file again if it changed. Called with the lock held; the file is local and tiny. */
static void control_refresh(struct fault *f)
{
	struct settings s = { 0 };
	const char *bad = NULL;
	char text[512];
	struct stat st;
	FILE *file;
	size_t n;

	if (!f->control || stat(f->control, &st) ||
	    (st.st_mtim.tv_sec == f->control_mtime.tv_sec && st.st_mtim.tv_nsec == f->control_mtime.tv_nsec))
		return;
	file = fopen(f->control, "re");
	if (!file)
		return;
	n = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[n] = 0;
	if (settings_parse(text, &s, NULL, &bad)) {
		log_error("fault origin: %s: bad setting %s", f->control, bad);
		return;
	}
	f->control_mtime = st.st_mtim;
	f->set = s;
	list_for_each(at, &f->waiting) {
		struct held *h = container_of(at, struct held, link);

		h->hangs = h->is_lost || (h->hangs && s.hang_nth);
	}
	pthread_cond_broadcast(&f->changed);
}

/* xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators". */
static uint64_t jitter(struct fault *f)
{
	f->random ^= f->random >> 12;
	f->random ^= f->random << 25;
	f->random ^= f->random >> 27;
	return f->set.jitter_ns ? f->random * 0x2545f4914f6cdd1dULL % f->set.jitter_ns : 0;
}

static bool is_nth(uint64_t arrival, uint64_t nth)
{
	return nth && arrival % nth == 0;
}

/* ---- data ---- */

/* What is next for @h: the moment, or 0 when it waits for the inner origin. Called with the lock held. */
static bool is_due(const struct held *h, uint64_t now)
{
	return !h->hangs && h->next_ns <= now && (h->next_ns < h->end_ns || h->inner_is_done);
}

/* Bytes that have crossed the link by @now. */
static size_t arrived(const struct held *h, uint64_t now)
{
	if (now <= h->start_ns || h->end_ns <= h->start_ns)
		return 0;
	return (size_t)((unsigned __int128)h->outer->len * (now - h->start_ns) / (h->end_ns - h->start_ns));
}

static void report(struct held *h)
{
	struct fault *f = h->fault;
	int err = h->forced_err ? h->forced_err : h->inner_err;

	if (f->origin.stats && err)
		stats_inc(f->origin.stats, STAT_ORIGIN_ERRORS);
	if (f->origin.stats && !err)
		stats_add(f->origin.stats, STAT_ORIGIN_BYTES, h->outer->len);
	h->outer->done(h->outer, err);
	free(h);
}

/* Tell the reader of a part, if the inner origin has delivered all and nothing is to go wrong. */
static void tell_progress(struct held *h, bool inner_is_fine, uint64_t now)
{
	size_t valid = arrived(h, now);

	if (inner_is_fine && !h->forced_err && h->outer->progress && valid && valid < h->outer->len)
		h->outer->progress(h->outer, valid);
}

/* Handle one due request; called with the lock held, which is dropped meanwhile. */
static void handle_due(struct fault *f, struct held *h, uint64_t now)
{
	bool inner_is_fine = h->inner_is_done && !h->inner_err;

	list_remove(&h->link);
	if (now >= h->end_ns && !h->inner_is_done) {
		h->next_ns = h->end_ns;   /* a late look at its progress: all that is left is its end */
		list_push_back(&f->waiting, &h->link);
		return;
	}
	if (now >= h->end_ns) {
		lock_release(&f->lock);
		report(h);
		lock_acquire(&f->lock);
		return;
	}
	h->next_ns = f->set.bytes_per_s ? now + PROGRESS_BYTES * NSEC_PER_SEC / f->set.bytes_per_s : h->end_ns;
	if (h->next_ns > h->end_ns)
		h->next_ns = h->end_ns;
	lock_release(&f->lock);
	tell_progress(h, inner_is_fine, now);
	lock_acquire(&f->lock);
	list_push_back(&f->waiting, &h->link);
}

/* The first due request, or NULL and when to look again (0: when something changes). */
static struct held *find_due(struct fault *f, uint64_t now, uint64_t *ret_wake_ns)
{
	*ret_wake_ns = 0;
	list_for_each(n, &f->waiting) {
		struct held *h = container_of(n, struct held, link);

		if (is_due(h, now))
			return h;
		if (h->hangs || h->next_ns <= now)
			continue;
		if (!*ret_wake_ns || h->next_ns < *ret_wake_ns)
			*ret_wake_ns = h->next_ns;
	}
	return NULL;
}

static void *timer_thread(void *arg)
{
	struct fault *f = arg;

	pthread_setname_np(pthread_self(), "fault-timer");
	lock_acquire(&f->lock);
	while (!f->is_closing) {
		uint64_t wake_ns, now = clock_ns();
		struct held *h = find_due(f, now, &wake_ns);

		if (h)
			handle_due(f, h, now);
		else if (wake_ns)
			lock_wait_until(&f->lock, &f->changed, wake_ns);
		else
			lock_wait(&f->lock, &f->changed);
	}
	lock_release(&f->lock);
	return NULL;
}

static void inner_done(struct origin_read *r, int err)
{
	struct held *h = r->arg;
	struct fault *f = h->fault;

	lock_acquire(&f->lock);
	h->inner_is_done = true;
	h->inner_err = err;
	f->in_inner--;
	pthread_cond_broadcast(&f->changed);
	lock_release(&f->lock);
}

/* ---- sizes that are not true ---- */

static uint64_t lie(const struct settings *s, uint64_t size)
{
	return size > s->lie_less ? size - s->lie_less + s->lie_more : 0;
}

static void lie_about(const struct settings *s, struct origin_attr *attr)
{
	if (S_ISREG(attr->mode))
		attr->version.size = lie(s, attr->version.size);
}

/* Ask the inner origin for what is there. What is not there the reader finds missing, as one of a directory would. */
static void tell_the_truth(const struct settings *s, struct held *h)
{
	struct origin_read *r = &h->inner;
	uint64_t size = r->expect.size + s->lie_less;

	size = size > s->lie_more ? size - s->lie_more : 0;
	r->expect.size = size;
	if (r->offset + r->len <= size)
		return;
	h->forced_err = -ESTALE;
	r->len = r->offset < size ? size - r->offset : 0;
}

/* Place @h on the link and decide what goes wrong with it. Called with the lock held. */
static void schedule(struct fault *f, struct held *h)
{
	const struct settings *s = &f->set;
	uint64_t arrival = ++f->arrivals;

	h->start_ns = clock_ns() + s->read_ns + jitter(f) + (h->outer->is_first ? s->meta_ns : 0);
	if (s->bytes_per_s) {
		if (h->start_ns < f->link_free_ns)
			h->start_ns = f->link_free_ns;
		f->link_free_ns = h->start_ns + h->outer->len * NSEC_PER_SEC / s->bytes_per_s;
		h->end_ns = f->link_free_ns;
	} else {
		h->end_ns = h->start_ns;
	}
	if (is_nth(arrival, s->slow_nth)) {
		h->start_ns += s->slow_by_ns;
		h->end_ns += s->slow_by_ns;
	}
	h->next_ns = s->bytes_per_s && h->outer->len > 2 * PROGRESS_BYTES && h->outer->progress ?
		h->start_ns + PROGRESS_BYTES * NSEC_PER_SEC / s->bytes_per_s : h->end_ns;
	h->is_lost = is_nth(arrival, s->lost_nth);
	h->hangs = h->is_lost || (s->hang_nth && arrival >= s->hang_nth);
	if (is_nth(arrival, s->busy_nth))
		h->forced_err = -EBUSY;
	if (is_nth(arrival, s->error_nth) || is_nth(arrival, s->short_nth))
		h->forced_err = -EIO;
	if (is_nth(arrival, s->stale_nth))
		h->forced_err = -ESTALE;
	tell_the_truth(s, h);
}

static void fault_read(struct origin *o, struct origin_read *r)
{
	struct fault *f = container_of(o, struct fault, origin);
	struct held *h;

	if (o->stats)
		stats_inc(o->stats, STAT_ORIGIN_REQUESTS);
	while (!(h = calloc(1, sizeof(*h))))
		usleep(1000);
	h->fault = f;
	h->outer = r;
	h->inner = (struct origin_read){ .path = r->path, .expect = r->expect, .offset = r->offset,
					 .len = r->len, .buf = r->buf, .is_first = r->is_first,
					 .done = inner_done, .arg = h };
	lock_acquire(&f->lock);
	control_refresh(f);
	schedule(f, h);
	list_push_back(&f->waiting, &h->link);
	f->in_inner++;
	pthread_cond_broadcast(&f->changed);
	lock_release(&f->lock);
	f->inner->ops->read(f->inner, &h->inner);
}

/* ---- metadata ---- */

/* Until meta_hang= is taken back (the control file is looked at) or the origin is freed. Lock held. */
static void meta_hang(struct fault *f)
{
	while (f->set.meta_hang_nth && !f->is_closing) {
		lock_wait_until(&f->lock, &f->changed, clock_ns() + 50 * NSEC_PER_MSEC);
		control_refresh(f);
	}
}

/* One metadata call that costs @calls round trips. Returns 0, or what it is to fail with; *ret_set: what was in force. */
static int meta_delay(struct fault *f, uint64_t calls, struct settings *ret_set)
{
	struct timespec ts;
	uint64_t ns, arrival;
	bool is_lost;
	int rc;

	lock_acquire(&f->lock);
	f->in_meta++;
	control_refresh(f);
	arrival = ++f->meta_arrivals;
	rc = is_nth(arrival, f->set.meta_error_nth) ? -EIO : 0;
	if (f->set.meta_hang_nth && arrival >= f->set.meta_hang_nth)
		meta_hang(f);
	is_lost = is_nth(arrival, f->set.meta_lost_nth);
	while (is_lost && !f->is_closing)
		lock_wait(&f->lock, &f->changed);
	ns = calls * (f->set.meta_ns + jitter(f));
	*ret_set = f->set;
	if (f->is_closing)
		rc = -EIO;
	lock_release(&f->lock);
	ts = (struct timespec){ (time_t)(ns / NSEC_PER_SEC), (long)(ns % NSEC_PER_SEC) };
	while (ns && clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, &ts) == EINTR)
		;
	return rc;
}

static void meta_end(struct fault *f)
{
	lock_acquire(&f->lock);
	f->in_meta--;
	pthread_cond_broadcast(&f->changed);
	lock_release(&f->lock);
}

static void count_meta(struct origin *o, uint64_t n)
{
	if (o->stats)
		stats_add(o->stats, STAT_ORIGIN_META_REQUESTS, n);
}

static int fault_list(struct origin *o, const char *path, struct origin_listing *ret_listing)
{
	struct fault *f = container_of(o, struct fault, origin);
	struct origin_listing l = { 0 };
	int rc = f->inner->ops->list(f->inner, path, &l), failed;
	struct settings set;

	count_meta(o, 1 + l.count);
	failed = meta_delay(f, 1 + (l.count + META_PARALLEL - 1) / META_PARALLEL, &set);
	for (size_t i = 0; i < l.count; i++)
		lie_about(&set, &l.entry[i].attr);
	if (!rc && failed)
		origin_listing_free(&l);
	else if (!rc)
		*ret_listing = l;
	meta_end(f);
	return rc ? rc : failed;
}

static int fault_stat(struct origin *o, const char *path, struct origin_attr *ret_attr)
{
	struct fault *f = container_of(o, struct fault, origin);
	struct settings set;
	int rc = meta_delay(f, 1, &set);

	count_meta(o, 1);
	if (!rc)
		rc = f->inner->ops->stat(f->inner, path, ret_attr);
	if (!rc)
		lie_about(&set, ret_attr);
	meta_end(f);
	return rc;
}

static int fault_readlink(struct origin *o, const char *path, char *buf, size_t size)
{
	struct fault *f = container_of(o, struct fault, origin);
	struct settings set;
	int rc = meta_delay(f, 1, &set);

	count_meta(o, 1);
	if (!rc)
		rc = f->inner->ops->readlink(f->inner, path, buf, size);
	meta_end(f);
	return rc;
}

static int fault_statfs(struct origin *o, struct statvfs *ret_st)
{
	struct fault *f = container_of(o, struct fault, origin);
	struct settings set;
	int rc = meta_delay(f, 1, &set);

	if (!rc)
		rc = f->inner->ops->statfs(f->inner, ret_st);
	meta_end(f);
	return rc;
}

/* What still waits, or hangs, fails: its reader must not wait for ever. */
static void fault_free(struct origin *o)
{
	struct fault *f = container_of(o, struct fault, origin);
	struct list *n;

	lock_acquire(&f->lock);
	f->is_closing = true;
	pthread_cond_broadcast(&f->changed);
	lock_release(&f->lock);
	pthread_join(f->timer, NULL);
	lock_acquire(&f->lock);
	while (f->in_inner || f->in_meta)
		lock_wait(&f->lock, &f->changed);
	while ((n = list_pop_front(&f->waiting))) {
		struct held *h = container_of(n, struct held, link);

		h->forced_err = -EIO;
		lock_release(&f->lock);
		report(h);
		lock_acquire(&f->lock);
	}
	lock_release(&f->lock);
	origin_close(f->inner);
	pthread_cond_destroy(&f->changed);
	lock_destroy(&f->lock);
	free(f->control);
	free(f);
}

static const struct origin_ops fault_ops = {
	.kind = "fault",
	.free = fault_free,
	.list = fault_list,
	.stat = fault_stat,
	.readlink = fault_readlink,
	.statfs = fault_statfs,
	.read = fault_read,
};

static int fault_new(struct origin *inner, const struct settings *set, const char *control,
		     struct stats *stats, struct origin **ret_origin)
{
	struct fault *f = calloc(1, sizeof(*f));
	int rc;

	if (!f)
		return -ENOMEM;
	f->origin.ops = &fault_ops;
	f->origin.stats = stats;
	f->origin.has_acls = inner->has_acls;
	f->inner = inner;
	f->set = *set;
	f->random = 0x9e3779b97f4a7c15ULL;
	f->control = control ? strdup(control) : NULL;
	lock_init(&f->lock, "fault origin", RANK_FAULT);
	lock_cond_init(&f->changed);
	list_init(&f->waiting);
	rc = pthread_create(&f->timer, NULL, timer_thread, f);
	if (rc || (control && !f->control)) {
		free(f->control);
		free(f);
		return rc ? -rc : -ENOMEM;
	}
	*ret_origin = &f->origin;
	return 0;
}

int origin_fault_open(const char *rest, struct stats *stats, struct origin **ret_origin,
		      char *msg, size_t msg_size)
{
	const char *colon = strchr(rest, ':'), *control = NULL, *bad = rest;
	_cleanup_free_ char *text = colon ? strndup(rest, (size_t)(colon - rest)) : NULL;
	struct settings set = { 0 };
	struct origin *inner;
	int rc;

	if (!text || settings_parse(text, &set, &control, &bad)) {
		snprintf(msg, msg_size, "fault origin: bad setting %s; give fault:KEY=VALUE,...:PATH, as in fault:read=10ms,bw=200M:/data", bad);
		return -EINVAL;
	}
	rc = origin_open(colon + 1, NULL, &inner, msg, msg_size);
	if (rc)
		return rc;
	rc = fault_new(inner, &set, control, stats, ret_origin);
	if (rc) {
		snprintf(msg, msg_size, "fault origin: %s", strerror(-rc));
		origin_close(inner);
	}
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread: takes observations, keeps sets and streams, asks the cache.
 *
 *   prefetch_observe -> queue -> take_observation -> on_open / on_read / on_list
 *                                     |
 *   main loop:  issue_streams (read-ahead), issue_sets (unread) -> cache_want
 *                                     ^                               |
 *                                     +------- fetch_done <-----------+
 *
 * The lock guards sets, streams and the governor, as the cache's advisor and
 * the fetches' ends come from other threads. It is never held while calling
 * cache_want, which may evict and so ask the advisor.
 */
#include "prefetch/prefetch.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cache/cache.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "lib/map64.h"
#include "lib/pool.h"
#include "lib/stats.h"
#include "lib/strbuf.h"
#include "prefetch/governor.h"
#include "prefetch/observe.h"
#include "prefetch/predictor.h"
#include "prefetch/recognise.h"
#include "prefetch/set.h"
#include "prefetch/stream.h"

enum {
	RANK_PREFETCH = 10,
	JOIN_OPENS = 4, JOIN_UNITS = 3,     /* when siblings are taken to belong together */
	LISTERS = 8,
	NOTE_NAME = 32, NOTE_BYTES = 16384,
	RANGES_MAX = 64,
	RECENT = 64,                        /* an item opened again at once is one access */
	JSON_MAX = 56 * 1024,               /* an attribute holds 64 KiB */
};

#define SET_LIVE_NS (600 * NSEC_PER_SEC)    /* a set not read for so long is no pattern */

#define SOON_NS (250 * NSEC_PER_MSEC)       /* between two opens of one sample */

struct recent {
	uint64_t ino, time_ns;
	uint32_t pid;
};

/* One want in flight. */
struct fetch {
	struct cache_want want;
	struct prefetch *p;
	enum predictor_id by;
	struct unit *unit;                  /* of a set's item, or NULL */
	uint32_t index;
	uint32_t at;                        /* its position in the order, UINT32_MAX without */
	bool is_last_extent;
	uint64_t bytes, started_ns;
};

/* Ranges of all units, sorted, for finding a unit by id. */
struct range {
	uint64_t first, count;
	struct unit *unit;
};

struct prefetch {
	struct prefetch_config cfg;         /* immutable */
	struct cache *cache;
	struct ns *ns;
	struct stats *stats;
	struct cache_advisor advisor;
	pthread_t thread;
	int wake_fd;
	_Atomic bool is_asleep, is_stopping;
	struct observe_queue queue;

	struct lock lock;
	pthread_cond_t idle;
	/* protected by lock */
	struct governor governor;
	struct map64 sets;                  /* parent id -> struct set */
	struct range *range;
	size_t range_count;
	struct streams streams;
	struct pool *listers;               /* owned: directories listed ahead */
	char *plan_text;                    /* owned, or NULL */
	struct recogniser *recogniser;      /* owned; NULL with recognise=off */
	struct recent recent[RECENT];
	unsigned recent_at, in_flight;
	uint64_t in_flight_bytes;
	bool is_short_of_memory;
	uint64_t wake_ns;                   /* of the token bucket, 0 for none */
	uint64_t first_ns, read_bytes;
};

static void wake(struct prefetch *p)
{
	uint64_t one = 1;

	if (write(p->wake_fd, &one, sizeof(one)) < 0)
		return;   /* full: it is awake */
}

void prefetch_observe(struct prefetch *p, const struct observation *o)
{
	if (!observe_push(&p->queue, o)) {
		stats_inc(p->stats, STAT_PREFETCH_DROPPED_OBSERVATIONS);
		return;
	}
	if (atomic_exchange(&p->is_asleep, false))
		wake(p);
}

/* ---- finding items ---- */

/* Called with the lock held. */
static struct unit *unit_of(struct prefetch *p, uint64_t ino, uint32_t *ret_index)
{
	size_t low = 0, high = p->range_count;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (p->range[mid].first + p->range[mid].count <= ino)
			low = mid + 1;
		else
			high = mid;
	}
	if (low == p->range_count || ino < p->range[low].first)
		return NULL;
	*ret_index = (uint32_t)(ino - p->range[low].first);
	return p->range[low].unit;
}

static int by_first(const void *a, const void *b)
{
	uint64_t x = ((const struct range *)a)->first, y = ((const struct range *)b)->first;

	return x < y ? -1 : x > y;
}

/* A directory's entries become units of the set. Called with the lock held. */
static void add_directory(struct prefetch *p, struct set *s, uint64_t dir)
{
	struct ns_range r[RANGES_MAX];
	long n = ns_ranges(p->ns, dir, r, RANGES_MAX);
	uint32_t index;

	for (long i = 0; i < n && i < RANGES_MAX; i++) {
		struct range *bigger;
		struct unit *u;

		if (unit_of(p, r[i].first, &index) || r[i].count > UINT32_MAX)
			continue;
		bigger = realloc(p->range, (p->range_count + 1) * sizeof(*bigger));
		if (bigger)
			p->range = bigger;
		u = bigger ? set_add_unit(s, dir, r[i].first, (uint32_t)r[i].count) : NULL;
		if (!u)
			return;
		p->range[p->range_count++] = (struct range){ r[i].first, r[i].count, u };
		qsort(p->range, p->range_count, sizeof(*p->range), by_first);
	}
}

static void note_name(uint64_t set, char *name, size_t size)
{
	snprintf(name, size, "orders-%llu", (unsigned long long)set);
}

/* What an earlier run's epochs were. */
static void recall(struct prefetch *p, struct set *s)
{
	_cleanup_free_ char *note = malloc(NOTE_BYTES);
	char name[NOTE_NAME];
	size_t len;

	note_name(s->parent, name, sizeof(name));
	if (note && p->recogniser && !cache_note_get(p->cache, name, note, NOTE_BYTES, &len))
		follow_load(&s->follow, note, len);
}

static struct set *set_get(struct prefetch *p, uint64_t parent)
{
	struct set *s = map64_get(&p->sets, parent);

	if (s)
		return s;
	s = calloc(1, sizeof(*s));
	if (!s || map64_put(&p->sets, parent, s)) {
		free(s);
		return NULL;
	}
	s->parent = parent;
	s->epoch_started_ns = clock_ns();
	recall(p, s);
	return s;
}

struct siblings {
	uint64_t dir[4096];
	size_t count;
};

static int sibling_add(void *arg, const char *name, const struct ns_attr *attr)
{
	struct siblings *s = arg;

	(void)name;
	if (S_ISDIR(attr->mode))
		s->dir[s->count++] = attr->ino;
	return s->count == sizeof(s->dir) / sizeof(s->dir[0]);
}

/* A directory that will be read and was not listed yet. */
struct listing {
	struct work work;
	struct prefetch *p;
	uint64_t set, dir;
};

static void list_now(struct work *w)
{
	struct listing *l = container_of(w, struct listing, work);
	struct prefetch *p = l->p;
	struct set *s;

	if (!atomic_load(&p->is_stopping) && !ns_list(p->ns, l->dir, 0)) {
		lock_acquire(&p->lock);
		s = map64_get(&p->sets, l->set);
		if (s)
			add_directory(p, s, l->dir);
		lock_release(&p->lock);
		if (atomic_exchange(&p->is_asleep, false))
			wake(p);
	}
	free(l);
}

static void list_ahead(struct prefetch *p, uint64_t set, uint64_t dir)
{
	struct listing *l = calloc(1, sizeof(*l));

	if (!l)
		return;
	*l = (struct listing){ { .run = list_now }, p, set, dir };
	pool_submit(p->listers, &l->work);
}

/* Several sibling directories are read at once: all that are listed belong to the set. Lock held. */
static void join_siblings(struct prefetch *p, struct set *s)
{
	struct siblings *found = calloc(1, sizeof(*found));

	if (!found)
		return;
	ns_readdir(p->ns, s->parent, NS_ROOT, sibling_add, found);
	for (size_t i = 0; i < found->count; i++) {
		if (ns_list(p->ns, found->dir[i], NS_NOWAIT) == -EAGAIN)
			list_ahead(p, s->parent, found->dir[i]);
		else
			add_directory(p, s, found->dir[i]);
	}
	free(found);
	s->is_joined = true;
}

static size_t directories_of(const struct set *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->unit_count; i++)
		n += i == 0 || s->unit[i]->dir != s->unit[i - 1]->dir;
	return n;
}

/* ---- observations ---- */

/* Have the order recognised, if now is a moment for it. Lock held. */
static void ask(struct prefetch *p, struct set *s, uint64_t now_ns)
{
	struct recognise_job *job = p->recogniser ? follow_ask(&s->follow, s, now_ns) : NULL;

	if (job)
		recogniser_submit(p->recogniser, job);
}

static void turn(struct prefetch *p, struct set *s, uint64_t now_ns)
{
	uint64_t left[PREDICTOR_COUNT] = { 0 };

	set_turn(s, now_ns, left);
	for (int by = 0; by < PREDICTOR_COUNT; by++) {
		stats_add(p->stats, STAT_PREFETCH_WASTED_BYTES, left[by] * set_item_bytes(s));
		stats_add(p->stats, predictor_table[by].wrong, left[by]);
	}
	ask(p, s, now_ns);
}

/* The recogniser's answer. */
static void recognised(void *arg, struct recognise_job *job)
{
	struct prefetch *p = arg;
	void *note = NULL;
	struct set *s;
	char name[NOTE_NAME];
	size_t len;

	lock_acquire(&p->lock);
	s = map64_get(&p->sets, job->set);
	if (s && s->epoch == job->epoch && follow_install(&s->follow, job)) {
		s->is_blocked = false;
		s->order_extent = 0;
		note = follow_save(&s->follow, &len);
	}
	lock_release(&p->lock);
	note_name(job->set, name, sizeof(name));
	if (note && cache_note_put(p->cache, name, note, len))
		log_warn("what was recognised is not remembered for the next run");
	free(note);
	recognise_job_free(job);
	if (atomic_exchange(&p->is_asleep, false))
		wake(p);
}

/*
 * Was it opened by the same reader a moment ago? Such a second open is the
 * same access; one that comes soon is even when an epoch ended in between.
 */
static bool is_same_access(struct prefetch *p, const struct observation *o, bool is_consumed)
{
	for (unsigned i = 0; i < RECENT; i++) {
		if (p->recent[i].ino == o->ino && p->recent[i].pid == o->pid)
			return is_consumed || o->time_ns - p->recent[i].time_ns < SOON_NS;
	}
	p->recent[p->recent_at++ % RECENT] = (struct recent){ o->ino, o->time_ns, o->pid };
	return false;
}

/* An item was read for the first time in this epoch. Lock held. */
static void consumed(struct prefetch *p, struct unit *u, uint32_t index, const struct ns_attr *attr)
{
	uint8_t *item = &u->item[index];
	struct set *s = u->set;

	s->bytes_seen += attr->version.size;
	s->sizes_seen++;
	if (*item & ITEM_STAGED) {
		*item &= (uint8_t)~ITEM_STAGED;
		if (s->staged)
			s->staged--;
		stats_inc(p->stats, *item & ITEM_IN_FLIGHT ? STAT_PREFETCH_LATE : STAT_PREFETCH_USED);
		if (!(*item & ITEM_IN_FLIGHT)) {
			stats_add(p->stats, STAT_PREFETCH_USED_BYTES, attr->version.size);
			stats_inc(p->stats, predictor_table[*item >> ITEM_BY_SHIFT].used);
		}
	}
}

static void on_open(struct prefetch *p, const struct observation *o)
{
	struct ns_attr attr, dir;
	struct unit *u;
	uint32_t index, extents;
	enum set_event event;
	struct set *s;

	if (ns_getattr(p->ns, o->ino, NS_NOCHECK | NS_NOWAIT, &attr) || !S_ISREG(attr.mode) ||
	    ns_getattr(p->ns, attr.parent, NS_NOCHECK | NS_NOWAIT, &dir))
		return;
	lock_acquire(&p->lock);
	u = unit_of(p, o->ino, &index);
	if (!u && (s = set_get(p, dir.ino == NS_ROOT ? 0 : dir.parent))) {
		add_directory(p, s, attr.parent);
		u = unit_of(p, o->ino, &index);
	}
	if (!u || is_same_access(p, o, u->item[index] & ITEM_CONSUMED)) {
		lock_release(&p->lock);
		return;
	}
	s = u->set;
	event = set_consume(s, u, index, o->time_ns);
	if (event == SET_TURNED) {
		turn(p, s, o->time_ns);
		event = set_consume(s, u, index, o->time_ns);
	}
	if (event == SET_READ) {
		consumed(p, u, index, &attr);
		follow_saw(&s->follow, u->base + index, (uint32_t)s->items, o->pid);
		ask(p, s, o->time_ns);
	}
	if (!s->is_joined && s->parent && s->opens >= JOIN_OPENS && directories_of(s) >= JOIN_UNITS)
		join_siblings(p, s);
	extents = (uint32_t)((attr.version.size + EXTENT_BYTES - 1) / EXTENT_BYTES);
	if (event == SET_READ)
		cache_consumed(p->cache, o->ino, extents);
	if (s->consumed >= s->items - s->unfit || (s->follow.order && order_is_done(s->follow.order)))
		turn(p, s, o->time_ns);
	lock_release(&p->lock);
}

static void on_read(struct prefetch *p, const struct observation *o)
{
	struct ns_attr attr;
	unsigned used;

	lock_acquire(&p->lock);
	p->read_bytes += o->len;
	lock_release(&p->lock);
	if (ns_getattr(p->ns, o->ino, NS_NOCHECK | NS_NOWAIT, &attr) || attr.version.size <= EXTENT_BYTES)
		return;
	lock_acquire(&p->lock);
	used = streams_read(&p->streams, o, attr.version.size);
	lock_release(&p->lock);
	stats_add(p->stats, STAT_PREFETCH_READAHEAD_USED, used);
	stats_add(p->stats, STAT_PREFETCH_USED, used);
	stats_add(p->stats, STAT_PREFETCH_USED_BYTES, (uint64_t)used * EXTENT_BYTES);
}

static void take_observation(struct prefetch *p, const struct observation *o)
{
	lock_acquire(&p->lock);
	if (!p->first_ns)
		p->first_ns = o->time_ns;
	p->is_short_of_memory = false;
	lock_release(&p->lock);
	if (o->kind == OBSERVE_OPEN && p->cfg.mode == PREFETCH_AUTO)
		on_open(p, o);
	else if (o->kind == OBSERVE_READ && p->cfg.mode != PREFETCH_OFF)
		on_read(p, o);
}

/* ---- asking ---- */

static void item_fetched(struct prefetch *p, struct fetch *f, int err, uint64_t bytes)
{
	uint8_t *item = &f->unit->item[f->index];
	struct set *s = f->unit->set;

	if (f->is_last_extent || err)
		*item &= (uint8_t)~ITEM_IN_FLIGHT;
	if (!err && f->is_last_extent)
		*item |= ITEM_RESIDENT;
	if (err == -ENOSPC || err == -EAGAIN) {
		f->unit->is_exhausted = false;
		s->is_blocked |= err == -ENOSPC;
		if (s->follow.order && f->at < s->follow.order->cursor) {
			s->follow.order->cursor = f->at;
			s->order_extent = 0;
		}
	} else if (err) {
		if (!(*item & (ITEM_UNFIT | ITEM_CONSUMED)) && err != -EIO)
			s->unfit++, *item |= ITEM_UNFIT;
	}
	/* nothing was fetched: it was there already, or was refused */
	if ((err || !bytes) && *item & ITEM_STAGED) {
		*item &= (uint8_t)~ITEM_STAGED;
		if (s->staged)
			s->staged--;
	}
}

static void fetch_done(struct cache_want *w, int err, uint64_t bytes)
{
	struct fetch *f = w->arg;
	struct prefetch *p = f->p;
	uint64_t now = clock_ns();
	struct cache_flow flow;

	cache_flow(p->cache, &flow);
	if (!err && bytes) {
		stats_inc(p->stats, STAT_PREFETCH_ISSUED);
		stats_add(p->stats, STAT_PREFETCH_ISSUED_BYTES, bytes);
		stats_inc(p->stats, predictor_table[f->by].issued);
	} else if (err && err != -ENOSPC && err != -EAGAIN) {
		stats_inc(p->stats, STAT_PREFETCH_FAILED);
	}
	lock_acquire(&p->lock);
	if (!err && bytes)
		governor_sample(&p->governor, now, now - f->started_ns, bytes, flow.bytes);
	p->is_short_of_memory = err == -EAGAIN;
	if (f->unit)
		item_fetched(p, f, err, bytes);
	p->in_flight--;
	p->in_flight_bytes -= f->bytes;
	if (!p->in_flight)
		pthread_cond_broadcast(&p->idle);
	/* with the lock: once it is released, prefetch_stop() may return and all this be gone */
	if (atomic_exchange(&p->is_asleep, false))
		wake(p);
	lock_release(&p->lock);
	free(f);
}

/* Hand one fetch to the cache. Lock not held. */
static void fetch_issue(struct prefetch *p, struct fetch *f, uint64_t key)
{
	f->p = p;
	f->want.key = key;
	f->want.done = fetch_done;
	f->want.arg = f;
	f->started_ns = clock_ns();
	cache_want(p->cache, &f->want);
}

/* May one more of @bytes be asked for? Lock held. */
static bool may_issue(struct prefetch *p, const struct cache_flow *flow, uint64_t bytes)
{
	unsigned in_flight = p->in_flight + flow->demand_in_flight;

	return !p->is_short_of_memory &&
	       governor_admits(&p->governor, clock_ns(), in_flight, bytes, &p->wake_ns);
}

static void account_issue(struct prefetch *p, struct fetch *f, uint64_t bytes)
{
	f->bytes = bytes;
	p->in_flight++;
	p->in_flight_bytes += bytes;
}

static uint32_t extents_of(uint64_t size)
{
	return (uint32_t)((size + EXTENT_BYTES - 1) / EXTENT_BYTES);
}

static uint64_t extent_bytes(uint64_t size, uint32_t extent)
{
	uint64_t start = (uint64_t)extent * EXTENT_BYTES;

	return size - start < EXTENT_BYTES ? size - start : EXTENT_BYTES;
}

/* Item @k of @u is about to be fetched. Lock held. */
static void stage(struct prefetch *p, struct set *s, struct unit *u, uint32_t k, enum predictor_id by, uint64_t bytes,
		  struct fetch *f)
{
	f->by = by;
	f->unit = u;
	f->index = k;
	f->at = UINT32_MAX;
	if (!(u->item[k] & ITEM_STAGED))
		s->staged++;
	u->item[k] = (uint8_t)((u->item[k] & ((1 << ITEM_BY_SHIFT) - 1)) | ITEM_IN_FLIGHT | ITEM_STAGED | by << ITEM_BY_SHIFT);
	account_issue(p, f, bytes);
}

/* Prepare the fetch of the next unread item (or its next extent). Lock held. Returns false when there is none. */
static bool prepare_unread(struct prefetch *p, struct set *s, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	struct ns_attr attr;
	struct unit *u;
	uint32_t k;

	while ((u = set_next_missing(s, &k))) {
		uint64_t bytes;

		if (ns_getattr(p->ns, u->first + k, NS_NOCHECK | NS_NOWAIT, &attr) || !S_ISREG(attr.mode) ||
		    !attr.version.size) {
			u->item[k] |= ITEM_UNFIT;
			s->unfit++;
			continue;
		}
		bytes = extent_bytes(attr.version.size, u->extent);
		if (!may_issue(p, flow, bytes))
			return false;
		*ret_key = extent_key(attr.ino, u->extent);
		f->is_last_extent = ++u->extent >= extents_of(attr.version.size);
		if (f->is_last_extent) {
			u->extent = 0;
			u->cursor = k + 1 < u->count ? k + 1 : 0;
			s->next_unit++;
		}
		stage(p, s, u, k, PREDICTOR_UNREAD, bytes, f);
		return true;
	}
	return false;
}

/* The same in the order that is followed. */
static bool prepare_ordered(struct prefetch *p, struct set *s, struct order *o, const struct cache_flow *flow,
			    struct fetch *f, uint64_t *ret_key)
{
	while ((o->cursor = order_next(o, o->cursor)) < o->count) {
		struct ns_attr attr;
		uint64_t bytes;
		uint32_t k;
		struct unit *u = set_item(s, o->item[o->cursor], &k);

		if (!u || (!s->order_extent && !item_is_missing(u->item[k]))) {
			o->cursor++;
			continue;
		}
		if (ns_getattr(p->ns, u->first + k, NS_NOCHECK | NS_NOWAIT, &attr) || !S_ISREG(attr.mode) || !attr.version.size) {
			u->item[k] |= ITEM_UNFIT;
			s->unfit++;
			continue;
		}
		bytes = extent_bytes(attr.version.size, s->order_extent);
		if (!may_issue(p, flow, bytes))
			return false;
		*ret_key = extent_key(attr.ino, s->order_extent);
		f->is_last_extent = ++s->order_extent >= extents_of(attr.version.size);
		stage(p, s, u, k, o->by, bytes, f);
		f->at = o->cursor;
		if (f->is_last_extent) {
			s->order_extent = 0;
			o->cursor++;
		}
		return true;
	}
	return false;
}

static bool prepare_from_sets(struct prefetch *p, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	uint64_t now = clock_ns();
	struct set *s;
	size_t pos = 0;

	while ((s = map64_next(&p->sets, &pos, NULL))) {
		struct order *o = p->cfg.recognise ? follow_order(&s->follow) : NULL;

		if (s->is_blocked || now - s->last_ns > SET_LIVE_NS)
			continue;
		if (o && prepare_ordered(p, s, o, flow, f, ret_key))
			return true;
		/* of other ranks' items, those that are not ours are not wanted */
		if (o && (o->cursor < o->count || o->stride > 1))
			continue;
		if (s->staged < set_confidence(s) && prepare_unread(p, s, flow, f, ret_key))
			return true;
	}
	return false;
}

static bool prepare_from_streams(struct prefetch *p, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	uint64_t size;

	if (p->in_flight + flow->demand_in_flight >= STREAM_WINDOW_MAX * 2 || p->is_short_of_memory)
		return false;
	if (!streams_next(&p->streams, ret_key, &size))
		return false;
	f->by = PREDICTOR_READAHEAD;
	f->is_last_extent = true;
	account_issue(p, f, extent_bytes(size, extent_key_no(*ret_key)));
	return true;
}

/* Ask for as much as may be. Returns when nothing more may. */
static void issue(struct prefetch *p)
{
	for (;;) {
		struct fetch *f = calloc(1, sizeof(*f));
		struct cache_flow flow;
		uint64_t key;
		bool has;

		if (!f || atomic_load(&p->is_stopping)) {
			free(f);
			return;
		}
		cache_flow(p->cache, &flow);
		lock_acquire(&p->lock);
		p->wake_ns = 0;
		has = prepare_from_streams(p, &flow, f, &key) ||
		      (p->cfg.mode == PREFETCH_AUTO && prepare_from_sets(p, &flow, f, &key));
		lock_release(&p->lock);
		if (!has) {
			free(f);
			return;
		}
		fetch_issue(p, f, key);
	}
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

static void *prefetch_thread(void *arg)
{
	struct prefetch *p = arg;
	struct observation o;

	pthread_setname_np(pthread_self(), "prefetch");
	while (!atomic_load(&p->is_stopping)) {
		bool had = false;

		/* announce sleep first: what comes after this line wakes us */
		atomic_store(&p->is_asleep, true);
		while (observe_pop(&p->queue, &o)) {
			take_observation(p, &o);
			had = true;
		}
		if (p->cfg.mode != PREFETCH_OFF)
			issue(p);
		if (had)
			continue;
		sleep_until_woken(p);
	}
	return NULL;
}

/* ---- plans ---- */

/* The set that files below @dir belong to: its class directories', or its own. Lock held. */
static struct set *set_below(struct prefetch *p, const struct ns_attr *dir, const struct siblings *classes)
{
	struct set *s;

	if (!classes->count) {
		s = set_get(p, dir->ino == NS_ROOT ? 0 : dir->parent);
		if (s)
			add_directory(p, s, dir->ino);
		return s;
	}
	s = set_get(p, dir->ino);
	for (size_t i = 0; s && i < classes->count; i++)
		add_directory(p, s, classes->dir[i]);
	if (s)
		s->is_joined = true;
	return s;
}

/* The id behind a path below @dir. Blocks. */
static int resolve(struct prefetch *p, uint64_t dir, char *path, uint64_t *ret_ino)
{
	char *save = NULL;
	struct ns_attr attr = { .ino = dir };
	int rc = 0;

	for (char *name = strtok_r(path, "/", &save); name && !rc; name = strtok_r(NULL, "/", &save))
		rc = ns_lookup(p->ns, attr.ino, name, 0, &attr);
	*ret_ino = attr.ino;
	return rc;
}

/* "list": the items of the lines, in their order. */
static int plan_list(struct prefetch *p, struct set *s, uint64_t dir, const char *lines, char *msg, size_t msg_size)
{
	_cleanup_free_ char *copy = strdup(lines);
	uint32_t *item = malloc((strlen(lines) / 2 + 1) * sizeof(*item)), count = 0, index;
	char *save = NULL;
	int rc = copy && item ? 0 : -ENOMEM;

	for (char *line = copy ? strtok_r(copy, "\n", &save) : NULL; line && !rc; line = strtok_r(NULL, "\n", &save)) {
		_cleanup_free_ char *path = strdup(line);
		const struct unit *u = NULL;
		uint64_t ino;

		if (path && !resolve(p, dir, path, &ino)) {
			lock_acquire(&p->lock);
			u = unit_of(p, ino, &index);
			lock_release(&p->lock);
		}
		if (!u || u->set != s) {
			snprintf(msg, msg_size, "list: '%.100s' is not a file below the directory", line);
			rc = -EINVAL;
		} else {
			item[count++] = u->base + index;
		}
	}
	if (!rc && !count) {
		snprintf(msg, msg_size, "list: give a path below the directory on each line");
		rc = -EINVAL;
	}
	if (rc) {
		free(item);
		return rc;
	}
	lock_acquire(&p->lock);
	follow_plan(&s->follow, NULL, item, count);
	s->last_ns = clock_ns();
	lock_release(&p->lock);
	return 0;
}

static int plan_apply(struct prefetch *p, uint64_t dir, const char *text, char *msg, size_t msg_size)
{
	_cleanup_free_ struct siblings *classes = calloc(1, sizeof(*classes));
	struct family family = { .kind = FAMILY_NONE };
	bool is_list = !strncmp(text, "list\n", 5);
	struct ns_attr attr;
	struct set *s;
	int rc = is_list || !strcmp(text, "none") ? 0 : recognise_parse_plan(text, &family, msg, msg_size);

	if (rc)
		return rc;
	if (!classes)
		return -ENOMEM;
	rc = ns_getattr(p->ns, dir, 0, &attr);
	if (!rc)
		rc = ns_list(p->ns, dir, 0);
	if (!rc)
		ns_readdir(p->ns, dir, NS_ROOT, sibling_add, classes);
	for (size_t i = 0; i < classes->count && !rc; i++)
		rc = ns_list(p->ns, classes->dir[i], 0);
	if (rc) {
		snprintf(msg, msg_size, "the directory cannot be listed: %s", strerror(-rc));
		return rc;
	}
	lock_acquire(&p->lock);
	s = set_below(p, &attr, classes);
	if (s && !is_list) {
		family.epoch = s->epoch;
		follow_plan(&s->follow, &family, NULL, 0);
		s->last_ns = clock_ns();
		ask(p, s, s->last_ns);
	}
	lock_release(&p->lock);
	if (!s)
		return -ENOMEM;
	return is_list ? plan_list(p, s, dir, text + 5, msg, msg_size) : 0;
}

int prefetch_plan(struct prefetch *p, uint64_t dir, const char *text, char *msg, size_t msg_size)
{
	int rc;

	*msg = 0;
	if (!p->recogniser) {
		snprintf(msg, msg_size, "plans need prefetch=auto and recognise=on");
		rc = -EOPNOTSUPP;
	} else {
		rc = plan_apply(p, dir, text, msg, msg_size);
	}
	lock_acquire(&p->lock);
	free(p->plan_text);
	p->plan_text = NULL;
	if (asprintf(&p->plan_text, "%.200s: %s\n", strncmp(text, "list\n", 5) ? text : "list",
		     rc ? *msg ? msg : strerror(-rc) : "taken") < 0)
		p->plan_text = NULL;
	lock_release(&p->lock);
	if (atomic_exchange(&p->is_asleep, false))
		wake(p);
	return rc;
}

char *prefetch_plan_text(struct prefetch *p)
{
	lock_scope(&p->lock);
	return strdup(p->plan_text ? p->plan_text : "none\n");
}

/* ---- the cache's questions ---- */

static enum cache_class class_of(void *arg, uint64_t key)
{
	struct prefetch *p = arg;
	struct unit *u;
	uint32_t index;

	lock_scope(&p->lock);
	u = unit_of(p, extent_key_ino(key), &index);
	if (!u || (!u->set->is_confirmed && !follow_order(&u->set->follow)) || clock_ns() - u->set->last_ns > SET_LIVE_NS)
		return CACHE_OTHER;
	if (u->item[index] & ITEM_CONSUMED)
		return CACHE_CONSUMED;
	/* what was fetched ahead stays until it is read, or it would be fetched again */
	return set_is_partial(u->set) && !(u->item[index] & ITEM_STAGED) ? CACHE_OTHER : CACHE_UNREAD;
}

static void evicted(void *arg, uint64_t key, bool was_unread)
{
	struct prefetch *p = arg;
	struct unit *u;
	uint32_t index;

	lock_scope(&p->lock);
	u = unit_of(p, extent_key_ino(key), &index);
	if (!u)
		return;
	u->item[index] &= (uint8_t)~ITEM_RESIDENT;
	u->is_exhausted = false;
	if (u->set->follow.order && !(u->item[index] & ITEM_CONSUMED))
		u->set->follow.order->cursor = u->set->follow.order->front;
	if (!was_unread || (u->item[index] & (ITEM_STAGED | ITEM_IN_FLIGHT | ITEM_CONSUMED)) != ITEM_STAGED)
		return;
	u->item[index] &= (uint8_t)~ITEM_STAGED;
	if (u->set->staged)
		u->set->staged--;
	stats_add(p->stats, STAT_PREFETCH_WASTED_BYTES, set_item_bytes(u->set));
	stats_inc(p->stats, predictor_table[u->item[index] >> ITEM_BY_SHIFT].wrong);
}

static void stored(void *arg, uint64_t key, bool is_whole)
{
	struct prefetch *p = arg;
	struct unit *u;
	uint32_t index;

	lock_scope(&p->lock);
	u = unit_of(p, extent_key_ino(key), &index);
	if (u && is_whole)
		u->item[index] |= ITEM_RESIDENT;
}

/* ---- statistics ---- */

static uint64_t resident_items(const struct set *s)
{
	uint64_t n = 0;

	for (size_t i = 0; i < s->unit_count; i++) {
		for (uint32_t k = 0; k < s->unit[i]->count; k++)
			n += !!(s->unit[i]->item[k] & ITEM_RESIDENT);
	}
	return n;
}

static void add_set(struct prefetch *p, struct strbuf *b, const struct set *s)
{
	const struct order *o = follow_order(&s->follow);
	char path[4096] = "";

	if (s->parent > NS_ROOT)
		ns_path(p->ns, s->parent, path, sizeof(path));
	strbuf_add(b, b->len > 1 ? ",\n" : "");
	strbuf_add(b, "{\"path\": ");
	strbuf_add_json(b, path);
	strbuf_addf(b, ", \"items\": %llu, \"bytes\": %llu, \"epoch\": %u, \"consumed\": %llu, \"resident\": %llu, "
		    "\"predictor\": \"%s\", \"recognised\": \"%s\"}",
		    (unsigned long long)(s->items - s->unfit),
		    (unsigned long long)((s->items - s->unfit) * set_item_bytes(s)), s->epoch,
		    (unsigned long long)s->consumed, (unsigned long long)resident_items(s),
		    o ? predictor_table[o->by].name : set_confidence(s) ? predictor_table[PREDICTOR_UNREAD].name : "none",
		    o ? o->text : "");
}

static void publish_forecast(struct prefetch *p, const struct set *s, const struct cache_flow *flow)
{
	double bytes = (double)((s->items - s->unfit) * set_item_bytes(s));
	double c = bytes > 0 ? (double)flow->limit_bytes / bytes : 0;
	double bw = p->governor.rate, rate = s->consumed_bytes_per_s;
	double missing = c < 1 ? (1 - c) * bytes : 0;
	double stall = bw > 0 && rate > 0 ? missing / bw - bytes / rate : 0;

	stats_set_real(p->stats, STAT_FORECAST_C, c > 1 ? 1 : c);
	stats_set_real(p->stats, STAT_FORECAST_R, rate > 0 ? bw / rate : 0);
	stats_set_real(p->stats, STAT_FORECAST_STALL, stall > 0 ? stall : 0);
}

void prefetch_publish(struct prefetch *p)
{
	struct strbuf b = STRBUF_INIT;
	struct cache_flow flow;
	const struct set *s, *last = NULL;
	size_t pos = 0;
	char *text;

	cache_flow(p->cache, &flow);
	strbuf_add(&b, "[");
	lock_acquire(&p->lock);
	while ((s = map64_next(&p->sets, &pos, NULL))) {
		if (s->items && b.len < JSON_MAX - 5000)
			add_set(p, &b, s);
		if (s->items && (!last || s->last_ns > last->last_ns))
			last = s;
	}
	if (last)
		publish_forecast(p, last, &flow);
	stats_set(p->stats, STAT_ORIGIN_PARALLEL, p->governor.limit);
	stats_set(p->stats, STAT_ORIGIN_BYTES_PER_S, (uint64_t)p->governor.rate);
	lock_release(&p->lock);
	strbuf_add(&b, "]");
	text = strbuf_steal(&b);
	if (text)
		stats_set_text(p->stats, STAT_SETS, text);
	free(text);
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
	lock_init(&p->lock, "prefetch", RANK_PREFETCH);
	lock_cond_init(&p->idle);
	observe_init(&p->queue);
	governor_init(&p->governor, cfg->origin_parallel, cfg->origin_bw, clock_ns());
	p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->wake_fd < 0)
		rc = -errno;
	p->advisor = (struct cache_advisor){ class_of, evicted, stored, p };
	if (!rc)
		rc = pool_new("list", LISTERS, &p->listers);
	if (!rc && cfg->recognise && cfg->mode == PREFETCH_AUTO)
		rc = recogniser_new(p->ns, recognised, p, &p->recogniser);
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
	recogniser_free(p->recogniser);
	p->recogniser = NULL;
	pool_free(p->listers);
	p->listers = NULL;
	lock_acquire(&p->lock);
	while (p->in_flight)
		lock_wait(&p->lock, &p->idle);
	lock_release(&p->lock);
}

void prefetch_free(struct prefetch *p)
{
	struct set *s;
	size_t pos = 0;

	if (!p)
		return;
	recogniser_free(p->recogniser);
	pool_free(p->listers);
	while ((s = map64_next(&p->sets, &pos, NULL))) {
		for (size_t i = 0; i < s->unit_count; i++)
			unit_free(s->unit[i]);
		follow_clear(&s->follow);
		free(s->unit);
		free(s);
	}
	map64_clear(&p->sets);
	streams_clear(&p->streams);
	free(p->range);
	free(p->plan_text);
	if (p->wake_fd >= 0)
		close(p->wake_fd);
	pthread_cond_destroy(&p->idle);
	lock_destroy(&p->lock);
	free(p);
}

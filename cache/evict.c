/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queues hold keys, eight bytes each; they may name extents that are gone, or
 * one twice. An entry is checked when it is popped, and the queues are
 * purged when stale entries outnumber the live.
 */
#include "cache/evict.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "cache/cache.h"
#include "lib/lock.h"
#include "lib/map64.h"
#include "lib/stats.h"

enum {
	RANK_EVICT = 45,
	FREQ_SLOTS = 1 << 20,      /* two-bit counters in bytes, by hash of the key */
	FREQ_MAX = 3,
	GHOSTS = 1 << 16,
	TRIES = 256,               /* entries one call looks at without success */
};

/* A ring of keys that grows. */
struct ring {
	uint64_t *key;
	size_t size, head, count;  /* size is a power of two */
};

/* Of one cache directory. */
struct queues {
	struct ring consumed, small, main;
};

struct evict {
	struct evict_config cfg;
	unsigned dirs;             /* immutable */
	struct lock lock;
	/* protected by lock */
	const struct cache_advisor *advisor;
	struct queues *of;         /* each directory; owned */
	uint32_t *ghost;           /* fingerprints of what left the small queue */
	_Atomic uint8_t *freq;     /* atomic */
};

static bool ring_push(struct ring *r, uint64_t key)
{
	if (r->count == r->size) {
		size_t size = r->size ? r->size * 2 : 1024;
		uint64_t *bigger = malloc(size * sizeof(*bigger));

		if (!bigger)
			return false;
		for (size_t i = 0; i < r->count; i++)
			bigger[i] = r->key[(r->head + i) & (r->size - 1)];
		free(r->key);
		*r = (struct ring){ bigger, size, 0, r->count };
	}
	r->key[(r->head + r->count++) & (r->size - 1)] = key;
	return true;
}

static bool ring_pop(struct ring *r, uint64_t *ret_key)
{
	if (!r->count)
		return false;
	*ret_key = r->key[r->head];
	r->head = (r->head + 1) & (r->size - 1);
	r->count--;
	return true;
}

static _Atomic uint8_t *freq_of(struct evict *e, uint64_t key)
{
	return &e->freq[map64_mix(key) & (FREQ_SLOTS - 1)];
}

static enum cache_class class_of(const struct cache_advisor *a, uint64_t key)
{
	return a ? a->class_of(a->arg, key) : CACHE_OTHER;
}

/* Where a new or returning extent is queued: those seen lately go to the main queue. Lock held. */
static void enqueue(struct evict *e, struct queues *q, uint64_t key)
{
	uint64_t mix = map64_mix(key);
	uint32_t print = (uint32_t)(mix >> 32) | 1, *ghost = &e->ghost[mix & (GHOSTS - 1)];

	ring_push(*ghost == print ? &q->main : &q->small, key);
}

static int adopt(void *arg, uint64_t key, uint64_t version, uint32_t bytes)
{
	struct queues *q = arg;

	(void)version;
	(void)bytes;
	return ring_push(&q->main, key) ? 0 : -ENOMEM;
}

int evict_new(const struct evict_config *cfg, struct evict **ret_evict)
{
	struct evict *e = calloc(1, sizeof(*e));
	int rc = 0;

	if (!e)
		return -ENOMEM;
	e->cfg = *cfg;
	e->dirs = disk_dirs(cfg->disk);
	lock_init(&e->lock, "evict", RANK_EVICT);
	e->ghost = calloc(GHOSTS, sizeof(*e->ghost));
	e->freq = calloc(FREQ_SLOTS, 1);
	e->of = calloc(e->dirs, sizeof(*e->of));
	if (!e->ghost || !e->freq || !e->of)
		rc = -ENOMEM;
	for (unsigned i = 0; i < e->dirs && !rc; i++)
		rc = disk_walk(cfg->disk, i, 0, adopt, &e->of[i]);
	if (rc) {
		evict_free(e);
		return rc;
	}
	*ret_evict = e;
	return 0;
}

void evict_free(struct evict *e)
{
	if (!e)
		return;
	for (unsigned i = 0; i < e->dirs && e->of; i++) {
		free(e->of[i].consumed.key);
		free(e->of[i].small.key);
		free(e->of[i].main.key);
	}
	free(e->of);
	free(e->ghost);
	free((void *)e->freq);
	lock_destroy(&e->lock);
	free(e);
}

void evict_set_advisor(struct evict *e, const struct cache_advisor *advisor)
{
	lock_scope(&e->lock);
	e->advisor = advisor;
}

/* Drop entries of extents that are gone, and duplicates next to none. Lock held. */
static void purge(struct evict *e, unsigned dir, struct ring *r)
{
	uint64_t key, last = UINT64_MAX;

	for (size_t n = r->count; n-- && ring_pop(r, &key);) {
		if (key != last && disk_dir_holds(e->cfg.disk, dir, key))
			ring_push(r, key);
		last = key;
	}
}

bool evict_admits(struct evict *e, uint64_t key)
{
	const struct cache_advisor *advisor;
	enum cache_class class;

	lock_acquire(&e->lock);
	advisor = e->advisor;
	lock_release(&e->lock);
	class = class_of(advisor, key);
	return class != CACHE_CONSUMED && class != CACHE_BEING_READ;
}

/* Lock not held. */
static void push(struct evict *e, struct ring *r, uint64_t key)
{
	lock_scope(&e->lock);
	ring_push(r, key);
}

void evict_stored(struct evict *e, unsigned dir, uint64_t key, bool is_whole)
{
	const struct cache_advisor *advisor;
	struct queues *q = &e->of[dir];

	lock_acquire(&e->lock);
	advisor = e->advisor;
	lock_release(&e->lock);
	if (advisor)
		advisor->stored(advisor->arg, key, is_whole);
	/* a reader was faster than the store: what it consumed was not there to be queued then */
	if (class_of(advisor, key) == CACHE_CONSUMED)
		push(e, &q->consumed, key);
	lock_scope(&e->lock);
	enqueue(e, q, key);
	/* sizes double between purges, so their cost is spread thin */
	if (q->small.count == q->small.size && q->small.count >= 65536)
		purge(e, dir, &q->small);
}

void evict_hit(struct evict *e, uint64_t key)
{
	_Atomic uint8_t *f = freq_of(e, key);
	uint8_t old = atomic_load_explicit(f, memory_order_relaxed);

	if (old < FREQ_MAX)
		atomic_store_explicit(f, old + 1, memory_order_relaxed);
}

void evict_consumed(struct evict *e, uint64_t key)
{
	/* what is not stored yet is queued by evict_stored() */
	int dir = e->dirs > 1 ? disk_dir_of(e->cfg.disk, key) : 0;

	if (dir >= 0)
		push(e, &e->of[dir].consumed, key);
}

uint64_t evict_consumed_count(struct evict *e)
{
	uint64_t count = 0;

	lock_scope(&e->lock);
	for (unsigned i = 0; i < e->dirs; i++)
		count += e->of[i].consumed.count;
	return count;
}

static bool pop(struct evict *e, struct ring *r, uint64_t *ret_key, const struct cache_advisor **ret_advisor)
{
	lock_scope(&e->lock);
	*ret_advisor = e->advisor;
	return ring_pop(r, ret_key);
}

/* Returns the bytes freed; 0 if the extent was gone already. */
static uint64_t drop(struct evict *e, unsigned dir, uint64_t key, enum cache_class class)
{
	static const enum stat_id counter[] = {
		[CACHE_OTHER] = STAT_EVICT_OTHER,
		[CACHE_CONSUMED] = STAT_EVICT_CONSUMED,
		[CACHE_UNREAD] = STAT_EVICT_UNREAD,
		[CACHE_BEING_READ] = STAT_EVICT_OTHER,
	};
	uint64_t bytes = disk_drop(e->cfg.disk, dir, key);

	if (!bytes) {
		if (disk_dir_holds(e->cfg.disk, dir, key))   /* it was lent a moment ago */
			push(e, &e->of[dir].main, key);
		return 0;
	}
	if (e->dirs > 1 && disk_holds(e->cfg.disk, key))
		return bytes;   /* a second copy, from before a directory was away */
	stats_inc(e->cfg.stats, counter[class]);
	e->cfg.has_left(e->cfg.arg, key, class == CACHE_UNREAD);
	return bytes;
}

static uint64_t evict_from_consumed(struct evict *e, unsigned dir, uint64_t bytes)
{
	struct ring *consumed = &e->of[dir].consumed;
	const struct cache_advisor *advisor;
	uint64_t freed = 0, key;

	for (unsigned tries = 0; freed < bytes && tries < TRIES && pop(e, consumed, &key, &advisor);) {
		/* an entry of an earlier epoch is unread again by now: it is simply forgotten */
		if (class_of(advisor, key) != CACHE_CONSUMED)
			continue;
		if (e->cfg.is_pinned(e->cfg.arg, key)) {
			push(e, consumed, key);
			tries++;
			continue;
		}
		freed += drop(e, dir, key, CACHE_CONSUMED);
	}
	return freed;
}

/* One entry of S3-FIFO's queues. Returns the bytes freed. */
static uint64_t evict_one(struct evict *e, unsigned dir, struct ring *r, bool even_unread)
{
	struct queues *q = &e->of[dir];
	const struct cache_advisor *advisor;
	enum cache_class class;
	uint64_t key;

	if (!pop(e, r, &key, &advisor) || !disk_dir_holds(e->cfg.disk, dir, key))
		return 0;
	class = class_of(advisor, key);
	if (((class == CACHE_UNREAD || class == CACHE_BEING_READ) && !even_unread) || e->cfg.is_pinned(e->cfg.arg, key)) {
		push(e, &q->main, key);
		return 0;
	}
	if (class == CACHE_OTHER && atomic_load_explicit(freq_of(e, key), memory_order_relaxed)) {
		/* read since it came, or since its last turn: another round in the main queue */
		atomic_fetch_sub_explicit(freq_of(e, key), 1, memory_order_relaxed);
		push(e, &q->main, key);
		return 0;
	}
	if (r == &q->small) {
		uint64_t mix = map64_mix(key);

		lock_acquire(&e->lock);
		e->ghost[mix & (GHOSTS - 1)] = (uint32_t)(mix >> 32) | 1;
		lock_release(&e->lock);
	}
	return drop(e, dir, key, class);
}

/* The small queue holds a tenth; beyond that it is where room is made. */
static struct ring *queue_to_evict(struct evict *e, unsigned dir)
{
	struct queues *q = &e->of[dir];

	lock_scope(&e->lock);
	if (!q->main.count && !q->small.count)
		return NULL;
	return q->small.count * 9 > q->main.count || !q->main.count ? &q->small : &q->main;
}

uint64_t evict_some(struct evict *e, unsigned dir, uint64_t bytes, bool even_unread)
{
	uint64_t freed = evict_from_consumed(e, dir, bytes);
	struct ring *r;

	for (unsigned tries = 0; freed < bytes && tries < TRIES && (r = queue_to_evict(e, dir)); tries++)
		freed += evict_one(e, dir, r, false);
	for (unsigned tries = 0; even_unread && freed < bytes && tries < TRIES && (r = queue_to_evict(e, dir)); tries++)
		freed += evict_one(e, dir, r, true);
	return freed;
}

/* Room on @dir, made if need be. */
static struct disk_room room_made(struct evict *e, unsigned dir, size_t len, unsigned tries)
{
	struct disk_room room = disk_reserve(e->cfg.disk, dir, len);

	while (!room.bytes && tries-- && evict_some(e, dir, len, false))
		room = disk_reserve(e->cfg.disk, dir, len);
	return room;
}

struct disk_room evict_room(struct evict *e, uint64_t key, uint64_t object_bytes, size_t len, int place, unsigned tries)
{
	struct disk_room room = { .bytes = 0 };
	struct disk_choice c;

	disk_choose(e->cfg.disk, key, object_bytes, place, &c);
	if (c.is_tied)
		room = room_made(e, c.dir[0], len, tries);
	/* better far away than in another's place */
	for (unsigned i = c.is_tied; i < c.count && !room.bytes; i++)
		room = disk_reserve(e->cfg.disk, c.dir[i], len);
	for (unsigned i = c.is_tied; i < c.count && !room.bytes && tries; i++)
		room = room_made(e, c.dir[i], len, tries);
	return room;
}

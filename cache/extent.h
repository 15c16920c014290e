/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An extent in memory: exists while it is in RAM, on its way, or referred to.
 *
 *              extent_get                    fill_start           fill_end(0)
 *   (absent) ------------> WAITING_MEMORY ------------> FILLING ------------> READY
 *                               |  fill_fail               | fill_end(err)      | ram_reclaim,
 *                               v                          v                    v cache_drop
 *                            (absent)                DEAD or (absent)     DEAD or (absent)
 *
 *   WAITING_MEMORY  no buffer yet; queued in cache->starved
 *   FILLING         buffer; one transfer from disk or origin in flight (from the
 *                   origin perhaps two: request.c), or one waiting to be tried
 *                   again; bytes [0, valid) are there. One that the origin does not
 *                   answer is given up (fill_give_up): absent, or WAITING_MEMORY
 *                   again while a reader waits
 *   READY           all bytes are there
 *   DEAD            out of the table, kept alive by those who still read it
 *
 *   (A) one fill in flight per extent: an extent is in the table from its creation on;
 *   (B) bytes below valid never change;
 *   (C) a buffer is freed only with refs == 0 and no write in flight;
 *   (D) whoever ends a fill answers every waiter exactly once, success or not;
 *   (E) a buffer comes from an arena, within the limit in force (ram=, or less if our cgroup may have less), so memory
 *       never exceeds it. When it falls, what is in use beyond the new one at that moment stays until it is not; what is
 *       idle there leaves at once, within the steps of memory_settle;
 *   (F) once the fill has ended nobody writes to buf: a request that is still in
 *       flight then has a buffer of its own, until it ends;
 *   (G) one hedge per fill;
 *   (H) requests to the origin never have all of the memory: a share is left for
 *       what is on disk, however long the origin hangs;
 *   (I) a READY extent changes its buffer only while nobody but who moves it has a
 *       reference, and for the same bytes in another arena (move.c).
 *
 * Everything here is protected by cache->lock but what says otherwise.
 */
#ifndef HOPPER_CACHE_EXTENT_H
#define HOPPER_CACHE_EXTENT_H

#include "cache/cache.h"
#include "cache/cachedir.h"
#include "cache/evict.h"
#include "cache/hedge.h"
#include "cache/piece.h"
#include "cache/ram.h"
#include "cache/store.h"
#include "lib/hist.h"
#include "lib/list.h"
#include "lib/lock.h"
#include "lib/map64.h"
#include "lib/pool.h"

enum extent_state { EXTENT_WAITING_MEMORY, EXTENT_FILLING, EXTENT_READY, EXTENT_DEAD };

struct extent {
	struct cache *cache;         /* immutable */
	uint64_t key;                /* immutable */
	struct ns_attr attr;         /* immutable: which file and version */
	uint64_t start;              /* immutable: offset in the file */
	uint32_t len;                /* immutable: bytes */
	bool is_piece;               /* immutable: in ->pieces, not in ->extents, and never on disk */
	enum extent_state state;
	char *buf;
	uint8_t home;                /* the arena of buf, or where one is to be sought */
	uint32_t valid;              /* bytes there already */
	unsigned refs;               /* readers whose iov points here, and the fill itself */
	struct list waiters;         /* of struct part */
	struct list wants;           /* of struct want_state */
	struct list lru;             /* in one of cache->cold, ->warm or ->moving while READY and idle */
	struct list queue;           /* in ->starved, ->filling or ->retrying */
	struct disk_room room;       /* on disk, for the write behind the fill */
	int8_t place;                /* of the reader it was made for, -1 if unknown */
	uint64_t started_ns, deadline_ns, retry_ns;
	unsigned tries;
	struct request *request;     /* in flight at the origin, filling buf; frees itself */
	struct request *hedge;       /* a second one for the same bytes; frees itself */
	bool was_hedged;
	bool is_staged;              /* fetched ahead and not read yet */
	bool is_served;              /* read to its end: the page cache has it */
	bool is_handed_over;         /* the page cache was given all of it: given up once it is on disk and idle */
	bool is_on_disk;
	bool is_ram_only;            /* staged without room on disk: counted in cache->ram_only_bytes */
	bool is_writing;
	bool is_from_origin;         /* not from disk: to be written behind the reply, but for a piece */
	bool is_counted;             /* in cache->origin_bytes */

	/* the fill's alone while FILLING; the write's afterwards */
	struct disk_io io;
	struct work work;
};

/* What one cache_read needs of one extent; in cache_read.priv. */
struct part {
	struct list link;            /* in extent->waiters */
	struct extent *extent;
	struct cache_read *read;
	uint32_t offset, len;        /* within the extent */
};

struct read_state {
	struct part part[2];
	int part_count, pending, err;
};

/* In cache_want.priv. */
struct want_state {
	struct list link;            /* in extent->wants */
	bool has_joined;             /* somebody else's fill: it fetched nothing, and its time says nothing of the origin */
	struct cache_want *want;
};

struct lost {
	uint64_t key;
	uint64_t start;              /* of a piece */
	bool is_piece;
	bool was_unread;
};

/* Extents served from an arena, to readers at its place and to others. */
struct ram_hits {
	uint64_t local, remote;
};

struct pin {
	unsigned count;
};

struct cache {
	struct origin *origin;       /* not owned */
	struct stats *stats;         /* not owned */
	struct dirs *dirs;
	struct store *store;         /* with the namespace; dirs' */
	struct ns *ns;
	struct disk *disk;
	struct evict *evict;
	uint64_t timeout_ns;
	struct pool *pool;           /* storing behind the reply, and deferred starts */
	pthread_t timer, evictor;
	struct hist latency;         /* of origin fills, us */

	struct lock lock;
	pthread_cond_t timer_wake, evictor_wake, idle;
	/* protected by lock */
	const struct cache_advisor *advisor;
	struct ram ram;              /* its arenas' number and addresses are immutable after open */
	struct map64 extents;        /* key -> struct extent */
	struct pieces pieces;
	struct map64 patterns;       /* file id -> struct cache_pattern, owned; none: read through */
	struct map64 pins;           /* ino -> struct pin */
	/* READY, idle, by the arena of their buffer: served ones; the others. Oldest first */
	struct list cold[TOPOLOGY_PLACES_MAX], warm[TOPOLOGY_PLACES_MAX];
	struct ram_hits hits[TOPOLOGY_PLACES_MAX];
	struct list moving;          /* READY, idle, but beyond the limit in force: nobody's sacrifice, soon settled */
	const char *cgroup_root;     /* immutable; as in struct cache_config */
	uint64_t look_ns;            /* who uses memory from then on asks for a look at what the cgroup allows */
	uint64_t period_ns;          /* ram_trim() is told of another period from then on */
	bool must_look;
	bool is_collapsing;          /* pages are being made huge */
	struct work collapse;
	struct list starved;         /* WAITING_MEMORY */
	struct list filling;         /* FILLING from the origin, oldest first */
	struct list retrying;        /* FILLING, waiting to be tried again */
	uint64_t requests_done, request_bytes;   /* answered well by the origin */
	uint64_t ram_only_bytes;     /* at most half of the arena, so that demand never starves */
	unsigned origin_in_flight, demand_in_flight;
	unsigned busy;               /* extents that are not idle, and requests that lost and have not ended */
	unsigned hung;               /* requests written off: not in flight, not ended */
	struct list losers;          /* of struct request (link): lost, in flight, not written off */
	struct work probe;           /* of an origin that is down: one at a time */
	struct hedge hedge;
	unsigned hedges;             /* in flight, and not lost yet */
	unsigned hedges_waiting;     /* due, but as many requests are in flight as may be */
	unsigned parallel;           /* requests in flight beyond which none is hedged, 0 for no such limit */
	uint64_t hedged_bytes;       /* ever asked for by hedges */
	uint64_t spare_bytes;        /* buffers of hedges, losers and requests given up; hedges stop at an eighth of the arena */
	uint64_t origin_bytes;       /* buffers of fills from the origin, or from where is not known yet */
	uint64_t timer_ns;           /* when the timer looks next; UINT64_MAX: when told */
	bool is_closing, wants_eviction;
	struct lost *lost;           /* what left memory and is not on disk: the advisor is to be told; owned */
	size_t lost_count, lost_size;
};

/* Answers collected under the lock and given without it. */
struct answers {
	struct list reads;           /* of struct part: the last of a read */
	struct list wants;           /* of struct want_state */
	struct list start;           /* of struct extent (queue): fills to start */
	int want_err;
	uint64_t want_bytes;
	bool has_lost;
};

void answers_init(struct answers *a);
void answers_give(struct cache *c, struct answers *a);

/* fill.c: with the lock held, unless said otherwise. */
void fill_try_memory(struct cache *c, struct extent *x, bool for_demand, struct answers *a);
void fill_feed_starved(struct cache *c, struct answers *a);
void fill_start(struct extent *x);                       /* lock NOT held */
void fill_part_done(struct part *p, int err, struct answers *a);
void extent_unref(struct cache *c, struct extent *x);    /* may make it idle, or free a dead one */
void extent_idle(struct cache *c, struct extent *x);
void extent_remove(struct cache *c, struct extent *x);       /* out of the tables: DEAD */
void extent_free(struct cache *c, struct extent *x);
void extent_lost(struct cache *c, const struct extent *x);   /* told by the next answers_give() */
void extent_clear_ram_only(struct cache *c, struct extent *x);
struct extent *extent_new(struct cache *c, uint64_t key, const struct ns_attr *attr);
struct extent *extent_new_piece(struct cache *c, const struct ns_attr *attr, uint64_t start, uint32_t len);
void extent_forget(struct cache *c, struct extent *x);       /* a new one that came to nothing: out of the tables, freed */
void *fill_timer_thread(void *arg);
/*
 * Every fill ends here, once; @fetched bytes came from the origin. Returns false if it does not end yet, as a reader waits who has
 * time for another try. Lock NOT held.
 */
bool fill_end(struct extent *x, int err, uint64_t fetched);
uint32_t extent_len(const struct ns_attr *attr, uint32_t extent_no);

/* memory.c: with the lock held, unless said otherwise. */
/*
 * Memory from an arena, given up by who is idle; a prefetch leaves demand a share. From arena *@home unless that would
 * cost what is still needed there; sets *@home. NULL without.
 */
void *extent_alloc(struct cache *c, uint8_t *home, size_t len, bool for_demand, struct answers *a);
/* The same from arena @at alone, and of nothing but what is free or was read. */
void *extent_alloc_at(struct cache *c, unsigned at, size_t len, struct answers *a);
int memory_open(struct cache *c, uint64_t bytes, const struct topology *t);   /* @bytes 0: as much as seems right. Lock NOT held */
void memory_used(struct cache *c);                       /* by a reader, or for one: perhaps it is time to look */
void memory_look(struct cache *c);                       /* what does the cgroup allow, and what is not needed? Lets go of the lock meanwhile */
void memory_leave(struct cache *c, struct extent *x);    /* idle, in no list, and beyond the limit in force */
bool memory_settle(struct cache *c, struct answers *a);  /* a step with those; returns whether there are more */

/* request.c: with the lock held, unless said otherwise. */
void request_start(struct extent *x);                    /* lock NOT held */
const char *request_path(const struct extent *x);        /* of one in cache->filling */
/* Has it failed so that it is worth another try, for a reader who waits and has time? Then the timer tries. */
bool request_retry(struct extent *x, int err);
/* Losers that do not end are no longer in flight; *wake_ns is lowered to when to look again. */
void request_write_off(struct cache *c, uint64_t now, uint64_t *wake_ns);
void request_watch(struct cache *c, const struct extent *x);   /* in flight, or a reader waits: the timer must look in time */

/* When the requests of @x, which is in cache->filling, are to be given up unless something comes of them. */
uint64_t request_give_up_ns(const struct extent *x);

/* They are nobody's from now on, and neither is the buffer they write to. */
void request_give_up(struct extent *x);

/*
 * A hedge that is due, to be handed to the origin without the lock; NULL when there is none, and
 * *wake_ns lowered to when there may be.
 */
struct origin_read *request_hedge(struct cache *c, uint64_t now, uint64_t *wake_ns, struct answers *a);

#endif

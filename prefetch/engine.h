/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the prefetcher's own files share:
 *
 *   prefetch.c   the thread, the page cache's supply, plans, life
 *   accesses.c   what was read: sets, epochs, orders, streams
 *   issue.c      what to ask the cache for next
 *   move.c       what is in memory at another place than where it will be read
 *   advice.c     what the cache asks of us, and tells
 *   remember.c   what the next run is to know
 *   report.c     the statistics
 */
#ifndef HOPPER_PREFETCH_ENGINE_H
#define HOPPER_PREFETCH_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "cache/cache.h"
#include "lib/clock.h"
#include "lib/lock.h"
#include "prefetch/ahead.h"
#include "prefetch/governor.h"
#include "prefetch/jobs.h"
#include "prefetch/observe.h"
#include "prefetch/predictor.h"
#include "prefetch/prefetch.h"
#include "prefetch/recognise.h"
#include "prefetch/set.h"
#include "prefetch/sets.h"
#include "prefetch/stream.h"

enum {
	NOTE_NAME = 32,
	RECENT = 64,                        /* an item opened again at once is one access */
};

#define NOTE_PLANS "plans"
#define SET_LIVE_NS (600 * NSEC_PER_SEC)    /* a set not read for so long is no pattern */

struct recent {
	uint64_t ino, time_ns;
	uint32_t pid;
};

/* Whom the thread is to be woken for: nobody, what cannot wait, all. */
enum rest { AWAKE, NAPPING, ASLEEP };

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

/* Left the cache: an extent by its key, or a piece. */
struct loss {
	uint64_t key, piece_start;          /* of a piece: key is that of its file's first extent */
	bool is_piece, was_unread;
};

struct losses {
	struct loss *of;                    /* owned */
	size_t count, size;
};

struct prefetch {
	struct prefetch_config cfg;         /* immutable */
	struct cache *cache;
	struct ns *ns;
	struct stats *stats;
	struct cache_advisor advisor;
	pthread_t thread;
	int wake_fd;
	_Atomic int rest;                   /* enum rest of its thread */
	_Atomic bool is_stopping;
	struct observe_queue queue;

	struct lock lock;
	pthread_cond_t idle;
	/* protected by lock */
	struct governor governor;
	struct sets sets;
	struct streams streams;
	struct ahead ahead;
	struct prefetch_sink sink;          /* push is NULL without */
	char *plan_text;                    /* owned, or NULL */
	void *profile;                      /* recorded, to be written; owned, or NULL, as is its name */
	size_t profile_len;
	char *profile_name;
	struct losses losses;               /* not in the books yet */
	struct recogniser *recogniser;      /* owned; NULL with recognise=off */
	struct recent recent[RECENT];
	unsigned recent_at, in_flight;
	uint64_t in_flight_bytes;
	bool is_short_of_memory;
	bool has_places;                    /* readers were seen at more than the first */
	uint64_t consumed_count;            /* items: each makes room; from 1 on */
	uint64_t wake_ns;                   /* of the token bucket, or of an origin that is down; 0 for none */
	uint64_t first_ns, read_bytes;
	size_t served_pos;                  /* in the table of sets: who was served last */
	/* the thread's own */
	uint64_t remembered_ns, checked_ns; /* when epochs were last remembered, jobs last looked for */
	struct leaders leaders;
};

static inline uint32_t extents_of(uint64_t size)
{
	return (uint32_t)((size + EXTENT_BYTES - 1) / EXTENT_BYTES);
}

static inline uint64_t extent_bytes(uint64_t size, uint32_t extent)
{
	uint64_t start = (uint64_t)extent * EXTENT_BYTES;

	return size - start < EXTENT_BYTES ? size - start : EXTENT_BYTES;
}

static inline bool is_live(const struct set *s, uint64_t now_ns)
{
	return !s->is_over && now_ns - s->last_ns <= SET_LIVE_NS;
}

/* The thread is to look again. With or without the lock. */
void prefetch_wake(struct prefetch *p);

/* What reading user.hopper.plan says. Lock not held. */
__attribute__((format(printf, 2, 3))) void prefetch_set_plan_text(struct prefetch *p, const char *format, ...);

/* ---- accesses.c ---- */

/* One observation, on the thread; lock not held. */
void accesses_take(struct prefetch *p, const struct observation *o);

/* Have the order recognised, if now is a moment for it. Lock held. */
void accesses_ask(struct prefetch *p, struct set *s, uint64_t now_ns);

/* The recogniser's answer; lock not held. @arg: struct prefetch. */
void accesses_recognised(void *arg, struct recognise_job *job);

/* ---- issue.c ---- */

/* Ask for as much as may be. Returns when nothing more may. Lock not held. */
void issue_all(struct prefetch *p);

/* ---- move.c ---- */

/* Have moved what is about to be read elsewhere. Lock not held. */
void move_ahead(struct prefetch *p);

/* ---- advice.c ---- */

/* What an extent is to all jobs: kept for any that has not read it. Lock held. */
enum cache_class advice_class(struct prefetch *p, uint64_t key);

/* What was lost until now, taken out of @p; released by advice_lost(). Lock not held. */
struct losses advice_take_losses(struct prefetch *p);

/* Enter it: what was read before it was lost was observed by now. Lock not held. */
void advice_lost(struct prefetch *p, struct losses *l);

/* Fill in p->advisor. */
void advice_init(struct prefetch *p);

/* ---- remember.c ---- */

/* The name of the note on set @set. */
void remember_name(const char *what, uint64_t set, char *name, size_t size);

/* A set is new: what an earlier run's epochs were, and where the last one stood. Lock held. @arg: struct prefetch. */
void remember_set(void *arg, struct set *s);

/* Write the profile that was recorded, if there is one. Lock not held. */
void remember_profile(struct prefetch *p);

/* Write where the epochs of the sets stand that were read since the last time. Lock not held. */
void remember_epochs(struct prefetch *p);

#endif

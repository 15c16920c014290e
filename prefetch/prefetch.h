/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Beside the path: watches accesses, predicts, asks the cache to fill.
 *
 * One thread owns all state. Accesses reach it through a bounded lock-free
 * queue; a full queue drops and counts. Prefetch is advice: it never blocks a
 * reader, never returns an error to one, never evicts what this epoch has
 * yet to read, and lives inside the cache's limits.
 */
#ifndef HOPPER_PREFETCH_PREFETCH_H
#define HOPPER_PREFETCH_PREFETCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cache;
struct prefetch;
struct stats;

enum prefetch_mode {
	PREFETCH_OFF,      /* nothing is fetched ahead */
	PREFETCH_SEQ,      /* read-ahead inside files only */
	PREFETCH_AUTO,     /* sets and epochs too */
};

struct prefetch_config {
	enum prefetch_mode mode;
	bool recognise;               /* seed- and order-based predictors allowed */
	uint64_t origin_bw;           /* bytes/s prefetch may use; 0 for no limit */
	unsigned origin_parallel;     /* 0: found by measuring */
};

enum observation_kind {
	OBSERVE_OPEN,
	OBSERVE_READ,
	OBSERVE_RELEASE,
	OBSERVE_ASKED,                /* the kernel's page cache lacks a small file's first bytes; comes before OBSERVE_READ */
	OBSERVE_LIST,                 /* a directory was listed; ino is the directory */
};

/* One access; 40 bytes. */
struct observation {
	uint64_t ino;
	uint64_t offset;              /* reads: bytes */
	uint64_t time_ns;             /* clock_ns() */
	uint32_t len;                 /* reads: bytes asked for; opens: 1 if the kernel reads the file by itself */
	uint32_t pid;                 /* of the reader; 0 if unknown */
	uint16_t cpu;                 /* UINT16_MAX if unknown */
	uint8_t kind;                 /* enum observation_kind */
	uint8_t stalled;              /* the read waited, for origin or disk */
	int32_t place;                /* of the reader (lib/topology.h), -1 if unknown */
};

/* Starts the thread and becomes the cache's advisor. Returns 0 or negative errno. */
int prefetch_start(const struct prefetch_config *cfg, struct cache *cache, struct stats *stats,
		   struct prefetch **ret_prefetch);

/* Stops issuing and waits for what is in flight. The cache must still be open, and may go on asking its advisor. */
void prefetch_stop(struct prefetch *p);

/* After prefetch_stop() and cache_close(): nobody asks any more. */
void prefetch_free(struct prefetch *p);

/* Who can put files where their readers find them without asking. */
struct prefetch_sink {
	/*
	 * Do so with the whole file, for a reader at @place (-1 if unknown). No lock is held; never blocks; ends with one
	 * prefetch_pushed(), possibly before it returns.
	 */
	void (*push)(void *arg, uint64_t ino, int place);
	/* The origin has another version than @ino by now. */
	void (*stale)(void *arg, uint64_t ino);
	void *arg;
};

/* From now on until prefetch_stop(); once. */
void prefetch_set_sink(struct prefetch *p, const struct prefetch_sink *sink);

/* The push ended: 0; -EAGAIN: it may be tried again; else it is not in this epoch. Any thread. */
void prefetch_pushed(struct prefetch *p, uint64_t ino, int err);

/* Any thread; never blocks, never fails. */
void prefetch_observe(struct prefetch *p, const struct observation *o);

/*
 * The order in which the files below directory @dir will be read, as the job
 * tells it: a sampler and its seed (family_parse), "list" and one path
 * below @dir per line, or "none". May block: directories not listed yet are.
 * 0; -EINVAL with one line in @msg; -EOPNOTSUPP with prefetch= or recognise= off.
 */
int prefetch_plan(struct prefetch *p, uint64_t dir, const char *text, char *msg, size_t msg_size);

/* Was a plan ever set on this cache? */
bool prefetch_had_plans(struct prefetch *p);

/* What was planned last and what came of it; owned by the caller, NULL without memory. */
char *prefetch_plan_text(struct prefetch *p);

/* Publish gauges, the sets and the forecast to the statistics. */
void prefetch_publish(struct prefetch *p);

#endif

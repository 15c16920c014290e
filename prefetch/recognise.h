/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which loader, which seed: works on a thread of its own, at idle priority,
 * from a job that the prefetcher fills in and to a result that it takes back.
 *
 *   job: the set's directories, the first items each reader opened in this epoch, and
 *        what was known of the epoch before
 *   1. index maps: which item the loader's index i is (maps.h)
 *   2. the epochs that follow from what is known (seed + 1, the generator's next word, ...)
 *   3. small seeds and the usual defaults of every loader, in order of likelihood
 *   4. all 2^32 seeds of torch's generator, on all processors, if the set is worth it
 *
 * A candidate counts as recognised when chance explains it with less than
 * one in a million; the prefetcher then confirms it by what is read next.
 */
#ifndef HOPPER_PREFETCH_RECOGNISE_H
#define HOPPER_PREFETCH_RECOGNISE_H

#include <stdbool.h>
#include <stdint.h>
#include "prefetch/family.h"
#include "prefetch/order.h"
#include "prefetch/search.h"

struct cache;
struct ns;
struct recogniser;

enum { HEADS_MAX = 24 };

struct recognise_stream {
	uint32_t pid, count;
	uint32_t item[SEARCH_HEAD_MAX];
};

/* Milliseconds for what most jobs do; about a second for step 3; minutes of otherwise idle processors for step 4. */
enum recognise_depth { RECOGNISE_USUAL, RECOGNISE_SMALL, RECOGNISE_ALL };

struct recognise_job {
	struct family past;          /* what an earlier job read in this epoch, kind FAMILY_NONE if unknown */
	uint64_t set;                /* the set's key */
	uint32_t epoch;
	struct recognise_unit *unit; /* owned */
	uint32_t unit_count;
	struct recognise_stream stream[HEADS_MAX];
	uint32_t stream_count;
	struct family known;
	enum recognise_depth depth;

	/* the result */
	bool is_found;
	struct family family;
	struct order *order;         /* owned; taken by who takes the job back */
};

/* @cache: where the set's own lists are read, or NULL. @done is called on the recogniser's thread with a job that is the callee's to free; it must not block for long. */
int recogniser_new(struct ns *ns, struct cache *cache, void (*done)(void *arg, struct recognise_job *job), void *arg, struct recogniser **ret);

/* Calls off what runs, waits, frees. */
void recogniser_free(struct recogniser *r);

/* Takes @job; a job of the same set that waits is replaced, one that runs a step 4 is called off. Never blocks. */
void recogniser_submit(struct recogniser *r, struct recognise_job *job);
void recognise_job_free(struct recognise_job *job);

/* Processor seconds used so far. */
double recogniser_cpu_s(struct recogniser *r);

#endif

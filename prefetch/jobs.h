/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Jobs that read the same items at different places (a search for hyper-parameters): told apart, so that each has
 * its own epochs and order, and an item is kept until the last of them has read it.
 *
 *   a set read by one job, or by several that share an epoch (ranks)
 *      | jobs_saw: a reader takes again and again what another, who reads on, has taken, and nothing twice itself
 *      v
 *   jobs_split: the one that read less leaves, with what it has read, for a set of its own over the same items
 *
 * A job is named by its leader: the topmost process above a reader that runs the same program, so the trainer of
 * its workers and the launcher of its ranks. What an unknown reader takes counts for the first set.
 *
 * Locked by the owner, but jobs_leader.
 */
#ifndef HOPPER_PREFETCH_JOBS_H
#define HOPPER_PREFETCH_JOBS_H

#include <stdbool.h>
#include <stdint.h>

struct set;
struct sets;
struct unit;

enum { LEADERS = 1024 };

/* Leaders of readers seen lately. One thread's own. */
struct leaders {
	struct { uint32_t pid, leader; uint64_t checked_ns; } entry[LEADERS];
};

/* The leader of thread @pid; 0 if it cannot be told. Reads /proc for a thread not seen in the last seconds. */
uint32_t jobs_leader(struct leaders *l, uint32_t pid, uint64_t now_ns);

/* The set over the items of @s that the reads of @leader belong to. */
struct set *jobs_set(struct set *s, uint32_t leader);

/*
 * @leader reads item @item of @s, which was or was not read in this epoch. Returns the leader whose job should be
 * split off, or 0.
 */
uint32_t jobs_saw(struct set *s, uint32_t item, bool was_consumed, uint32_t leader, uint64_t now_ns);

/*
 * @leader, which jobs_saw returned, reads a set of its own from now on, made of @s. Returns it, or NULL without
 * memory.
 */
struct set *jobs_split(struct sets *t, struct set *s, uint32_t leader, struct leaders *l, uint64_t now_ns);

/* The epoch of @s ended: who read what is forgotten. */
void jobs_turned(struct set *s);

/* Which of the jobs of @s have ended. Asks the kernel once a job. */
void jobs_check(struct set *s);

/* Is there more than one job on the items of @s that goes on? */
bool jobs_are_several(const struct set *s);

/* All jobs of @s end: its items were regrouped. */
void jobs_dissolve(struct set *s);
void jobs_free(struct set *s);

#endif

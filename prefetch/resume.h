/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where an epoch stood, over a remount or a crash: which items were consumed,
 * as bytes for a note beside the cache.
 *
 *   resume_save --note--> resume_load: kept with the set --resume_unit, as units join it--> consumed
 *
 * It is a guess that the job goes on: the first item that is read again
 * before RESUME_TRUST others shows that another one began, and the epoch turns.
 *
 * Locked by the owner of the set.
 */
#ifndef HOPPER_PREFETCH_RESUME_H
#define HOPPER_PREFETCH_RESUME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct order;
struct set;
struct unit;

enum { RESUME_TRUST = 64, RESUME_SECONDS = 600 };   /* a set not read for so long is no pattern (SET_LIVE_NS) */

/* Owned by the caller; NULL without memory or without anything worth it. @wall_s: seconds of the real-time clock. */
void *resume_save(const struct set *s, int64_t wall_s, size_t *ret_len);

/* Takes @data (from malloc), whatever it is. Returns whether the epoch of @s is resumed. */
bool resume_load(struct set *s, void *data, size_t len, int64_t wall_s);

/* @u joined the set: what of it was consumed. */
void resume_unit(struct set *s, struct unit *u);

/* @o is the epoch's order, and this much of it was read. */
void resume_order(const struct set *s, struct order *o);

#endif

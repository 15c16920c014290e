/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers that go through a set in the order of its listing, each by a step of its own: worker w of W takes
 * shards w, w + W, w + 2W ... What comes next is known without a shuffle to recognise, and long before the
 * readers have read enough for one.
 *
 *   new --NEIGHBOUR_CONFIRM equal steps--> followed --another step--> new
 *
 * Of a reader that is followed as many items are expected as it was right about, NEIGHBOUR_AHEAD at most:
 * what a reader that turns off leaves unread is no more than what was gained.
 *
 * Locked by the owner.
 */
#ifndef HOPPER_PREFETCH_NEIGHBOUR_H
#define HOPPER_PREFETCH_NEIGHBOUR_H

#include <stdbool.h>
#include <stdint.h>

enum {
	NEIGHBOUR_READERS = 64,      /* told apart on a set */
	NEIGHBOUR_CONFIRM = 2,       /* steps in a row, one of them another reader's */
	NEIGHBOUR_AHEAD = 4,
	NEIGHBOUR_STEP_MAX = 1024,   /* workers and ranks together */
};

struct neighbour_reader {
	uint32_t pid;
	uint32_t last;               /* item */
	int32_t step;
	uint32_t run;                /* equal steps in a row */
	uint32_t ahead;              /* items behind the last that were handed out */
};

struct neighbours {
	struct neighbour_reader reader[NEIGHBOUR_READERS];
	uint32_t count, turn;        /* readers; who is asked next */
	int32_t step;                /* that a reader was followed by last; 0 for none */
};

/* Item number @item was begun by @pid. */
void neighbours_saw(struct neighbours *n, uint32_t item, uint32_t pid);

/* An item, below @items, that a reader will begin soon; who, NULL when there is none. It is the same until it is taken. */
struct neighbour_reader *neighbours_next(struct neighbours *n, uint32_t items, uint32_t *ret_item);

/* The item for @r was asked for, or needs not be. */
void neighbours_take(struct neighbours *n, struct neighbour_reader *r);

/* What was taken may be gone: look at all of it again. */
void neighbours_again(struct neighbours *n);

/* The epoch ended: readers begin anew, likely by the same step. */
void neighbours_turn(struct neighbours *n);

#endif

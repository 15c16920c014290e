/* SPDX-License-Identifier: Apache-2.0 */
/*
 * At which place (lib/topology.h) an item of a set will be read, by what was seen of its readers:
 *
 *   in an order that is followed   by its lane: batch b of a loader belongs to worker b % workers, so the positions
 *                                  that one worker reads come back every batch * workers; its place is that lane's
 *   else                           where the item was read last, if readers keep to their items
 *   else                           at each place in turn, as much as is read there
 *
 * A guess that fails costs a read from the other node. With one place nothing is kept.
 *
 * Locked by the owner.
 */
#ifndef HOPPER_PREFETCH_WHERETO_H
#define HOPPER_PREFETCH_WHERETO_H

#include <stdbool.h>
#include <stdint.h>

enum { WHERETO_LANES = 1024, WHERETO_PLACES = 64, WHERETO_READERS = 64 };

/* One reader's progress through the order: how long its runs are, and how far apart. */
struct whereto_reader {
	uint32_t pid, start, last;      /* positions: where its run began, the last */
	bool has_run;
};

struct whereto {
	/* of the order */
	uint32_t run, period;           /* batch and batch * workers, in positions; 0: not known */
	int8_t lane[WHERETO_LANES];     /* place + 1 of whoever read it last; 0: nobody yet */
	struct whereto_reader reader[WHERETO_READERS];
	uint32_t reader_count;
	/* of items */
	uint32_t kept, strayed;         /* read again where they were read last, and elsewhere; halved now and then */
	uint32_t reads[WHERETO_PLACES]; /* the same, by place */
	uint32_t turn[WHERETO_PLACES];  /* handed out of these */
};

/* Position @at of an order was read by @pid at @place. @stride: of the order's ranks, at least 1. */
void whereto_saw_position(struct whereto *w, uint32_t at, uint32_t stride, uint32_t pid, int place);

/* An item was read at @place; @last: where it was before (place + 1, 0 for never), updated. */
void whereto_saw_item(struct whereto *w, uint8_t *last, int place);

/* The place for position @at, or -1. */
int whereto_position(const struct whereto *w, uint32_t at, uint32_t stride);

/* The place for an item that was read at @last (place + 1, or 0), if readers keep to their items; else -1. */
int whereto_last(const struct whereto *w, uint8_t last);

/* The place for an item that was read at *@last (place + 1, or 0), never -1 once something was read. */
int whereto_item(struct whereto *w, uint8_t last);

/* The epoch ended: other workers may come. What was learnt of the loader is kept as a first guess. */
void whereto_turn(struct whereto *w);

#endif

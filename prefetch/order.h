/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An order in which a set's items are expected, and how well it holds.
 *
 *   order_new --order_saw: where expected--> followed --too often elsewhere--> order_is_wrong
 *
 * Workers and ranks read ahead of each other, so an access is where expected
 * if its item stands within a window behind the first that was not read yet
 * (torch: workers x prefetch_factor x batch; a quarter of the set is allowed,
 * so a wrong order is noticed after a few accesses).
 *
 * A rank of a distributed job reads every stride-th position; only the
 * residues that readers of this mount were seen at are asked for.
 *
 * Locked by the owner.
 */
#ifndef HOPPER_PREFETCH_ORDER_H
#define HOPPER_PREFETCH_ORDER_H

#include <stdbool.h>
#include <stdint.h>
#include "prefetch/predictor.h"

enum {
	ORDER_STRIDE_MAX = 1024, ORDER_TEXT = 96, ORDER_FAR = 4,
	/*
	 * One access in so many may be elsewhere. In a wrong order three in four are. The kernel reads on from a record
	 * into those behind it where it has those before it: 11 % of a file's in its page cache.
	 */
	ORDER_TOLERANCE = 8, ORDER_TOLERANCE_RECORDS = 2,
};

struct order {
	uint32_t *item;          /* item numbers; owned */
	uint32_t count;
	uint32_t front;          /* everything before it was read, or given up */
	uint32_t furthest;       /* behind the furthest that was read */
	uint32_t far[ORDER_FAR]; /* behind the furthest few, ascending */
	uint32_t cursor;         /* where the next item to fetch is sought */
	uint32_t mover;          /* where the next item to be moved in memory is sought */
	enum predictor_id by;
	uint32_t tolerance;      /* one access in so many may be elsewhere */
	uint32_t stride;         /* 1, or the number of ranks */
	uint64_t residues[ORDER_STRIDE_MAX / 64];   /* seen, a bit each */
	uint32_t seen_at;        /* the position of the last access; UINT32_MAX: it was elsewhere */
	uint64_t right, wrong;   /* accesses where expected, and elsewhere */
	uint32_t wrong_in_row;   /* of the last accesses */
	uint8_t *is_read;        /* a bit per position; owned */
	char text[ORDER_TEXT];   /* what it is, for the statistics */
};

/* Takes ownership of @item, in any case. @stride > 1: @start is the residue that was seen. NULL without memory. */
struct order *order_new(uint32_t *item, uint32_t count, enum predictor_id by, uint32_t stride, uint32_t start, const char *text);
void order_free(struct order *o);

/* An item was read. Returns whether it was expected about now. */
bool order_saw(struct order *o, uint32_t item);

/* The position was read before this order was known. */
void order_mark_read(struct order *o, uint32_t at);

/* Contradicted: not to be followed any more. */
bool order_is_wrong(const struct order *o);

/* Enough accesses confirmed it. */
bool order_is_confirmed(const struct order *o);

/* All that this mount's readers will read of it was read. */
bool order_is_done(const struct order *o);

/* Its last items were reached: what is read again belongs to the next epoch, though some were not seen to be read. */
bool order_is_at_end(const struct order *o);

/*
 * Its last items were reached, and the last accesses were to none of those that are left: the next epoch's. @is_sparse: those
 * that are seen are seen exactly, but so few that none may be of the last items.
 */
bool order_is_left(const struct order *o, bool is_sparse);

/* The position at or behind @from that is still to be read, or count. */
uint32_t order_next(const struct order *o, uint32_t from);

#endif

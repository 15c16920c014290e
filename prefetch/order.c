/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/order.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	WINDOW_MAX = 8192, WINDOW_MIN = 64, WINDOW_SHARE = 4,
	GRACE = 16,               /* so many at first weigh nothing: a wrong order goes after three */
	CONFIRM = 4,              /* accesses where expected that make it trusted */
	END_SHARE = 50,           /* the last fiftieth is its end */
};

struct order *order_new(uint32_t *item, uint32_t count, enum predictor_id by, uint32_t stride, uint32_t start, const char *text)
{
	struct order *o = calloc(1, sizeof(*o));

	if (o)
		o->is_read = calloc((count + 7) / 8 + 1, 1);
	if (!o || !o->is_read) {
		free(o);
		free(item);
		return NULL;
	}
	o->item = item;
	o->count = count;
	o->by = by;
	o->tolerance = ORDER_TOLERANCE;
	o->stride = stride > 1 && stride <= ORDER_STRIDE_MAX ? stride : 1;
	o->residues[start % o->stride / 64] |= 1ULL << start % o->stride % 64;
	snprintf(o->text, sizeof(o->text), "%s", text);
	return o;
}

void order_free(struct order *o)
{
	if (!o)
		return;
	free(o->item);
	free(o->is_read);
	free(o);
}

static bool is_read(const struct order *o, uint32_t at)
{
	return o->is_read[at / 8] >> at % 8 & 1;
}

static bool is_ours(const struct order *o, uint32_t at)
{
	uint32_t residue = at % o->stride;

	return o->residues[residue / 64] >> residue % 64 & 1;
}

static uint32_t window_of(const struct order *o)
{
	uint32_t w = o->count / WINDOW_SHARE;

	return w < WINDOW_MIN ? WINDOW_MIN : w > WINDOW_MAX ? WINDOW_MAX : w;
}

uint32_t order_next(const struct order *o, uint32_t from)
{
	while (from < o->count && (is_read(o, from) || !is_ours(o, from)))
		from++;
	return from;
}

/* Keep the furthest few positions, the nearest of them first. */
static void note_far(struct order *o, uint32_t behind)
{
	if (behind <= o->far[0])
		return;
	o->far[0] = behind;
	for (unsigned i = 1; i < ORDER_FAR && o->far[i - 1] > o->far[i]; i++) {
		uint32_t swap = o->far[i];

		o->far[i] = o->far[i - 1];
		o->far[i - 1] = swap;
	}
}

bool order_saw(struct order *o, uint32_t item)
{
	uint32_t window = window_of(o), end = o->count - o->front < window ? o->count : o->front + window, at;

	for (at = o->front; at < end && (o->item[at] != item || is_read(o, at)); at++)
		;
	o->seen_at = at == end ? UINT32_MAX : at;
	if (at == end) {
		o->wrong++;
		o->wrong_in_row++;
		return false;
	}
	o->right++;
	o->wrong_in_row = 0;
	o->is_read[at / 8] |= (uint8_t)(1 << at % 8);
	o->residues[at % o->stride / 64] |= 1ULL << at % o->stride % 64;
	if (at + 1 > o->furthest)
		o->furthest = at + 1;
	note_far(o, at + 1);
	/*
	 * what was left out (a dropped batch, an access that was not seen) must not hold the front back;
	 * a few accesses that are none of the order's must not push it
	 */
	if (o->far[0] > o->front + window / 2)
		o->front = o->far[0] - window / 2;
	/* not over other ranks' positions: one of them may be on this mount and late */
	while (o->front < o->count && is_read(o, o->front))
		o->front++;
	return true;
}

void order_mark_read(struct order *o, uint32_t at)
{
	o->is_read[at / 8] |= (uint8_t)(1 << at % 8);
	if (at + 1 > o->furthest)
		o->furthest = at + 1;
	while (o->front < o->count && is_read(o, o->front))
		o->front++;
}

bool order_is_wrong(const struct order *o)
{
	return o->wrong * o->tolerance > o->right + GRACE;
}

bool order_is_confirmed(const struct order *o)
{
	return o->right >= CONFIRM && !order_is_wrong(o);
}

bool order_is_at_end(const struct order *o)
{
	return order_is_confirmed(o) && o->count - o->furthest <= o->count / END_SHARE;
}

bool order_is_left(const struct order *o, bool is_sparse)
{
	return is_sparse ? o->wrong_in_row >= 2 * CONFIRM && order_is_confirmed(o) : o->wrong_in_row >= CONFIRM && order_is_at_end(o);
}

bool order_is_done(const struct order *o)
{
	return o->right && order_next(o, o->front) >= o->count;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/set.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "lib/clock.h"
#include "prefetch/jobs.h"

enum {
	FIRST_ITEMS = 64,          /* fetched on the evidence of the first opens alone */
	FACTOR = 8,                /* then so many for each item consumed */
	TRUST_ITEMS = 256,
	TRUST_SHARE = 20,          /* one in so many of the set */
};

void set_unturn(struct set *s)
{
	for (size_t i = 0; i < s->unit_count; i++) {
		struct unit *u = s->unit[i];

		for (uint32_t k = 0; k < u->count; k++) {
			if (!(u->item[k] & (ITEM_UNFIT | ITEM_CONSUMED)))
				s->consumed++;
			if (!(u->item[k] & ITEM_UNFIT))
				u->item[k] |= ITEM_CONSUMED;
		}
	}
	s->follow.is_partial = true;
}

int set_absorb(struct set *s, struct set *from)
{
	struct unit **bigger = s->items + from->items > UINT32_MAX ? NULL :
		realloc(s->unit, (s->unit_count + from->unit_count + 1) * sizeof(*bigger));

	if (!bigger)
		return -ENOMEM;
	s->unit = bigger;
	for (size_t i = 0; i < from->unit_count; i++) {
		struct unit *u = from->unit[i];

		u->set = s;
		u->base = (uint32_t)s->items;
		s->items += u->count;
		s->unit[s->unit_count++] = u;
	}
	s->unfit += from->unfit;
	s->consumed += from->consumed;
	s->staged += from->staged;
	s->pushed += from->pushed;
	s->bytes_seen += from->bytes_seen;
	s->sizes_seen += from->sizes_seen;
	s->has_grown = true;
	from->unit_count = 0;
	return 0;
}

void set_restart(struct set *s)
{
	follow_clear(&s->follow);
	s->epoch = 0;
	s->consumed = s->staged = s->opens = s->rereads_in_row = s->partial_items = s->blocked_at = 0;
	s->consumed_bytes_per_s = 0;
	s->is_over = s->was_read_through = false;
}

void unit_free(struct unit *u)
{
	if (!u)
		return;
	free(u->item);
	free(u->place);
	free(u->page);
	sampled_free_unit(u);
	free(u);
}

void set_free(struct set *s)
{
	for (size_t i = 0; i < s->unit_count; i++)
		unit_free(s->unit[i]);
	follow_clear(&s->follow);
	jobs_free(s);
	sampled_free(s);
	free(s->resumed);
	free(s->record);
	free(s->unit);
	free(s);
}

struct unit *set_add_unit(struct set *s, uint64_t dir, uint64_t first, uint32_t count)
{
	struct unit *u = calloc(1, sizeof(*u));
	struct unit **bigger = realloc(s->unit, (s->unit_count + 1) * sizeof(*bigger));

	if (bigger)
		s->unit = bigger;
	if (u)
		u->item = calloc(count ? count : 1, 1);
	if (!u || !bigger || !u->item || s->items + count > UINT32_MAX) {
		unit_free(u);
		return NULL;
	}
	u->set = s;
	u->dir = dir;
	u->first = first;
	u->count = count;
	u->base = (uint32_t)s->items;
	s->unit[s->unit_count++] = u;
	s->items += count;
	s->has_grown = true;
	return u;
}

uint64_t set_item_bytes(const struct set *s)
{
	return s->sizes_seen ? s->bytes_seen / s->sizes_seen : 0;
}

void set_turn(struct set *s, uint64_t now_ns, uint64_t left[PREDICTOR_COUNT])
{
	uint64_t ns = now_ns - s->epoch_started_ns;

	if (ns && s->consumed)
		s->consumed_bytes_per_s = (double)(s->consumed * set_item_bytes(s)) * 1e9 / (double)ns;
	sampled_turn(s);
	for (size_t i = 0; i < s->unit_count; i++) {
		struct unit *u = s->unit[i];

		for (uint32_t k = 0; k < u->count; k++) {
			if ((u->item[k] & (ITEM_STAGED | ITEM_CONSUMED | ITEM_IN_FLIGHT)) == ITEM_STAGED)
				left[u->item[k] >> ITEM_BY_SHIFT]++;
			/* what is on its way is joined when it is asked for again; what was given up half way would never come */
			u->item[k] &= (uint8_t)~(ITEM_CONSUMED | ITEM_STAGED | ITEM_IN_FLIGHT);
		}
		u->is_exhausted = false;
		u->cursor = u->extent = 0;
	}
	s->partial_items = !s->has_grown && s->consumed * 10 < (s->items - s->unfit) * 9 ? s->consumed : 0;
	s->has_grown = false;
	jobs_turned(s);
	s->has_split = false;
	s->was_read_through = !s->resumed && s->consumed * 10 >= (s->items - s->unfit) * 9;
	s->epoch = s->trust_after ? 0 : s->epoch + 1;   /* another job than the one that was to be resumed */
	s->consumed = s->rereads_in_row = s->staged = 0;
	s->epoch_started_ns = now_ns;
	s->blocked_at = 0;
	s->order_extent = 0;
	free(s->resumed);
	s->resumed = NULL;
	s->trust_after = 0;
	neighbours_turn(&s->neighbours);
	whereto_turn(&s->whereto);
	follow_turn(&s->follow);
}

void set_order_back(struct set *s, uint32_t at)
{
	struct order *o = s->follow.order;
	uint32_t k;
	struct unit *u = s->order_extent && o->cursor < o->count ? set_item(s, o->item[o->cursor], &k) : NULL;

	if (u)
		u->item[k] &= (uint8_t)~ITEM_IN_FLIGHT;   /* its last extent was not asked for */
	s->order_extent = 0;
	o->cursor = at;
}

struct unit *set_item(const struct set *s, uint32_t item, uint32_t *ret_index)
{
	size_t low = 0, high = s->unit_count;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (s->unit[mid]->base + s->unit[mid]->count <= item)
			low = mid + 1;
		else
			high = mid;
	}
	if (low == s->unit_count || item < s->unit[low]->base)
		return NULL;
	*ret_index = item - s->unit[low]->base;
	return s->unit[low];
}

/* Of which the next does not end the epoch: records may be asked for twice by the kernel's read-ahead. */
static uint64_t rereads_allowed(const struct set *s)
{
	if (s->trust_after)
		return 0;
	/* how much of a sampled item was read is an estimate */
	if (s->sampled.is_on || s->consumed * 10 < (s->items - s->unfit) * 9)
		return REREADS_MAX;
	return s->records ? REREADS_RECORDS : 0;
}

enum set_event set_consume(struct set *s, struct unit *u, uint32_t index, uint64_t now_ns)
{
	uint8_t *item = &u->item[index];

	s->opens++;
	s->last_ns = now_ns;
	s->alone_below = 0;
	if (*item & ITEM_CONSUMED) {
		/* the owner turns it, then tells of this item again */
		return s->rereads_in_row++ < rereads_allowed(s) ? SET_REREAD : SET_TURNED;
	}
	s->rereads_in_row = 0;
	s->trust_after -= s->trust_after > 0;
	*item |= ITEM_CONSUMED;
	s->consumed++;
	if (s->consumed >= TRUST_ITEMS || s->consumed * TRUST_SHARE >= s->items)
		s->is_confirmed = true;
	return SET_READ;
}

bool set_is_partial(const struct set *s)
{
	return s->partial_items && !s->sampled.is_on && s->consumed <= s->partial_items + s->partial_items / 10;
}

uint64_t set_confidence(const struct set *s)
{
	if (set_is_partial(s))
		return 0;
	if (s->is_confirmed)
		return UINT64_MAX;
	return s->opens < SET_START_OPENS ? 0 : FIRST_ITEMS + FACTOR * s->consumed;
}

static bool unit_next_missing(struct unit *u, uint32_t *ret_index)
{
	if (u->is_exhausted)
		return false;
	for (uint32_t n = 0; n < u->count; n++) {
		uint32_t k = u->cursor;

		if (!(u->item[k] & (ITEM_CONSUMED | ITEM_RESIDENT | ITEM_UNFIT)) &&
		    !unit_is_pushed(u, k) && (u->extent || !(u->item[k] & ITEM_IN_FLIGHT))) {
			*ret_index = k;
			return true;
		}
		u->cursor = k + 1 < u->count ? k + 1 : 0;
		u->extent = 0;
	}
	u->is_exhausted = true;
	return false;
}

struct unit *set_next_missing(struct set *s, uint32_t *ret_index)
{
	for (size_t n = 0; n < s->unit_count; n++) {
		struct unit *u = s->unit[s->next_unit % s->unit_count];

		if (unit_next_missing(u, ret_index))
			return u;
		s->next_unit++;
	}
	return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/ahead.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "cache/cache.h"
#include "lib/clock.h"
#include "lib/stats.h"

enum page_state { NONE = PAGE_NONE, WAITING = PAGE_WAITING, PUSHED = PAGE_PUSHED, KEPT, LOST, GIVEN_UP, OVERTAKEN };

enum {
	LEAST_BYTES = 2 << 20,
	SAMPLE = 32,               /* one in so many is believed to be kept even so, to see whether it is */
	LOOK_MAX = 4096,           /* positions looked at in one go */
};

void ahead_begin(struct ahead *a, struct ns *ns, struct stats *stats)
{
	a->ns = ns;
	a->stats = stats;
	a->limit_bytes = a->max_bytes = LEAST_BYTES;
}

bool ahead_is_due(struct ahead *a, uint64_t now_ns)
{
	if (!a->ns || (a->measured_ns && now_ns - a->measured_ns < NSEC_PER_SEC))
		return false;
	a->measured_ns = now_ns;
	return true;
}

void ahead_set_max(struct ahead *a, uint64_t max_bytes)
{
	bool was_full = a->limit_bytes == a->max_bytes;

	a->max_bytes = max_bytes > LEAST_BYTES ? max_bytes : LEAST_BYTES;
	if (was_full || a->limit_bytes > a->max_bytes)
		a->limit_bytes = a->max_bytes;
}

static void unread_less(struct ahead *a, struct unit *u, uint64_t bytes)
{
	a->unread_bytes -= bytes < a->unread_bytes ? bytes : a->unread_bytes;
	if (u->set->pushed)
		u->set->pushed--;
}

static bool is_pushable(const struct unit *u, uint32_t k)
{
	return (u->item[k] & (ITEM_RESIDENT | ITEM_CONSUMED | ITEM_UNFIT | ITEM_IN_FLIGHT)) == ITEM_RESIDENT &&
	       (!u->page || u->page[k] == NONE);
}

/* Take item @k, if it may be pushed at all and there is room. 1: taken; 0: another; -1: no room. */
static int take(struct ahead *a, struct unit *u, uint32_t k)
{
	struct ns_attr attr;

	if (!u->page)
		u->page = calloc(u->count, 1);
	if (!u->page)
		return -1;
	if (ns_getattr(a->ns, u->first + k, NS_NOCHECK | NS_NOWAIT, &attr) || !S_ISREG(attr.mode) ||
	    !attr.version.size || attr.version.size > EXTENT_BYTES) {
		u->page[k] = GIVEN_UP;
		return 0;
	}
	if (a->unread_bytes + attr.version.size > a->limit_bytes)
		return -1;
	u->page[k] = WAITING;
	u->set->pushed++;
	a->in_flight++;
	a->unread_bytes += attr.version.size;
	if (a->unread_bytes > a->peak_bytes)
		a->peak_bytes = a->unread_bytes;
	return 1;
}

static bool next_ordered(struct ahead *a, struct set *s, struct ahead_item *ret)
{
	struct order *o = s->follow.order;
	uint32_t at = s->push_at > o->front ? s->push_at : o->front;

	for (unsigned n = 0; n < LOOK_MAX && (at = order_next(o, at)) < o->count; n++, at++) {
		uint32_t k;
		struct unit *u = set_item(s, o->item[at], &k);
		int rc = u && is_pushable(u, k) ? take(a, u, k) : 0;

		s->push_at = at;
		if (rc < 0)
			return false;
		s->push_at = at + 1;
		if (rc > 0) {
			*ret = (struct ahead_item){ u, k, at };
			return true;
		}
	}
	return false;
}

static bool next_unread(struct ahead *a, struct set *s, struct ahead_item *ret)
{
	for (size_t i = 0; i < s->unit_count; i++) {
		struct unit *u = s->unit[(s->push_unit + i) % s->unit_count];

		for (uint32_t n = 0; !u->is_pushed_out && n < u->count; n++) {
			uint32_t k = u->push_cursor < u->count ? u->push_cursor : 0;
			int rc = is_pushable(u, k) ? take(a, u, k) : 0;

			if (rc < 0)
				return false;
			u->push_cursor = k + 1;
			if (rc > 0) {
				s->push_unit = (s->push_unit + i + 1) % s->unit_count;
				*ret = (struct ahead_item){ u, k, UINT32_MAX };
				return true;
			}
		}
		u->is_pushed_out = true;
	}
	return false;
}

bool ahead_next(struct ahead *a, struct set *s, bool follows_order, struct ahead_item *ret)
{
	if (a->in_flight >= AHEAD_IN_FLIGHT || a->is_blocked || s->records)
		return false;
	if (follows_order)
		return next_ordered(a, s, ret);
	return s->pushed < set_confidence(s) && next_unread(a, s, ret);
}

void ahead_done(struct ahead *a, struct unit *u, uint32_t index, uint64_t bytes, int err)
{
	uint8_t *page = u->page ? &u->page[index] : NULL;

	if (a->in_flight)
		a->in_flight--;
	if (!page || (*page != WAITING && *page != OVERTAKEN))
		return;
	if (*page == OVERTAKEN) {
		*page = KEPT;
		return;
	}
	if (!err) {
		*page = PUSHED;
		return;
	}
	*page = err == -EAGAIN ? NONE : GIVEN_UP;
	a->is_blocked |= err == -EAGAIN;
	u->is_pushed_out = u->is_exhausted = false;   /* it may have left the cache meanwhile */
	u->set->push_at = 0;
	if (u->set->follow.order)
		u->set->follow.order->cursor = u->set->follow.order->front;
	unread_less(a, u, bytes);
}

void ahead_opened(struct ahead *a, struct unit *u, uint32_t index, uint64_t bytes, uint64_t now_ns)
{
	uint8_t *page;

	(void)now_ns;
	if (!a->ns)
		return;
	if (!u->page)
		u->page = calloc(u->count, 1);
	if (!u->page)
		return;
	page = &u->page[index];
	a->is_blocked = false;
	if (*page == PUSHED) {
		stats_inc(a->stats, STAT_PAGECACHE_USED);
		unread_less(a, u, bytes);
		a->limit_bytes = a->limit_bytes + bytes / 8 < a->max_bytes ? a->limit_bytes + bytes / 8 : a->max_bytes;
	} else if (*page == WAITING) {
		stats_inc(a->stats, STAT_PAGECACHE_OVERTAKEN);
		unread_less(a, u, bytes);
	} else if (*page == KEPT) {
		a->kept++;
	}
	if (*page != OVERTAKEN)
		*page = *page == WAITING ? OVERTAKEN : KEPT;
}

void ahead_asked(struct ahead *a, struct unit *u, uint32_t index, uint64_t bytes, uint64_t now_ns)
{
	uint8_t *page = u->page ? &u->page[index] : NULL;

	/* its open was seen before the request for its bytes: nothing was lost */
	if (!page || u->item[index] & ITEM_CONSUMED)
		return;
	if (*page == PUSHED) {
		stats_inc(a->stats, STAT_PAGECACHE_LOST);
		unread_less(a, u, bytes);
		if (now_ns - a->halved_ns > NSEC_PER_SEC) {
			a->limit_bytes = a->limit_bytes / 2 > LEAST_BYTES ? a->limit_bytes / 2 : LEAST_BYTES;
			a->halved_ns = now_ns;
		}
		*page = LOST;
	} else if (*page == KEPT) {
		a->lost++;
		*page = LOST;
	}
}

void ahead_arrived(struct ahead *a, struct unit *u, uint32_t at)
{
	if (!a->ns)
		return;
	u->is_pushed_out = false;
	if (at < u->set->push_at)
		u->set->push_at = at;
}

void ahead_turn(struct ahead *a, struct set *s)
{
	if (!a->ns)
		return;
	if (a->kept + a->lost)
		a->is_forgetful = a->lost * 4 > a->kept + a->lost;
	a->kept = a->lost = 0;
	a->is_blocked = false;
	s->push_at = 0;
	for (size_t i = 0; i < s->unit_count; i++) {
		struct unit *u = s->unit[i];

		u->is_pushed_out = false;
		for (uint32_t k = 0; u->page && k < u->count; k++) {
			if (u->page[k] == GIVEN_UP || u->page[k] == LOST ||
			    (u->page[k] == KEPT && a->is_forgetful && (u->first + k) % SAMPLE))
				u->page[k] = NONE;
		}
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What to ask the cache for next: within streams, then of the sets that are read now, then of those that wait for their turn. */
#include "prefetch/engine.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include "prefetch/records.h"
#include "prefetch/whereto.h"

#define ACTIVE_NS NSEC_PER_SEC              /* a set read so lately is being read */
#define DOWN_NS NSEC_PER_SEC                /* how often it is looked whether an origin that was down is back */

static void item_fetched(struct prefetch *p, struct fetch *f, int err, uint64_t bytes)
{
	uint8_t *item = &f->unit->item[f->index];
	struct set *s = f->unit->set;

	if (f->is_last_extent || err)
		*item &= (uint8_t)~ITEM_IN_FLIGHT;
	if (!err && f->is_last_extent && !s->records)   /* a piece goes when it was read */
		*item |= ITEM_RESIDENT, ahead_arrived(&p->ahead, f->unit, f->at);
	if (err == -ENOSPC || err == -EAGAIN) {
		f->unit->is_exhausted = false;
		if (err == -ENOSPC)
			s->blocked_at = p->consumed_count;
		if (s->follow.order && f->at <= s->follow.order->cursor)
			set_order_back(s, f->at);
		neighbours_again(&s->neighbours);
		sampled_again(s);
	} else if (err) {
		if (!(*item & (ITEM_UNFIT | ITEM_CONSUMED)) && err != -EIO)
			s->unfit++, *item |= ITEM_UNFIT;
	}
	/* nothing was fetched: it was there already, or was refused */
	if ((err || !bytes) && *item & ITEM_STAGED) {
		*item &= (uint8_t)~ITEM_STAGED;
		if (s->staged)
			s->staged--;
	}
}

/* Lock not held. */
static void tell_stale(struct prefetch *p, uint64_t ino)
{
	struct prefetch_sink sink;

	lock_acquire(&p->lock);
	sink = p->sink;
	lock_release(&p->lock);
	if (sink.stale)
		sink.stale(sink.arg, ino);
}

/* The governor learns of a request, the cache of the governor's limit. Lock held. */
static void governed(struct prefetch *p, uint64_t now_ns, uint64_t took_ns, uint64_t bytes, uint64_t total_bytes)
{
	unsigned before = p->governor.limit;

	governor_sample(&p->governor, now_ns, took_ns, bytes, total_bytes);
	if (p->governor.limit != before)
		cache_set_parallel(p->cache, p->governor.limit);
}

static void fetch_done(struct cache_want *w, int err, uint64_t bytes)
{
	struct fetch *f = w->arg;
	struct prefetch *p = f->p;
	uint64_t now = clock_ns();
	struct cache_flow flow;

	cache_flow(p->cache, &flow);
	if (err == -ESTALE)
		tell_stale(p, extent_key_ino(w->key));
	if (!err && bytes) {
		stats_inc(p->stats, STAT_PREFETCH_ISSUED);
		stats_add(p->stats, STAT_PREFETCH_ISSUED_BYTES, bytes);
		stats_inc(p->stats, predictor_table[f->by].issued);
	} else if (err && err != -ENOSPC && err != -EAGAIN) {
		stats_inc(p->stats, STAT_PREFETCH_FAILED);
	}
	lock_acquire(&p->lock);
	if (!err && bytes)
		governed(p, now, now - f->started_ns, bytes, flow.bytes);
	p->is_short_of_memory = err == -EAGAIN;
	if (f->unit)
		item_fetched(p, f, err, bytes);
	p->in_flight--;
	p->in_flight_bytes -= f->bytes;
	if (!p->in_flight)
		pthread_cond_broadcast(&p->idle);
	/* with the lock: once it is released, prefetch_stop() may return and all this be gone */
	prefetch_wake(p);
	lock_release(&p->lock);
	free(f);
}

/* Hand one fetch to the cache. Lock not held. */
static void fetch_issue(struct prefetch *p, struct fetch *f, uint64_t key)
{
	f->p = p;
	f->want.key = key;
	f->want.done = fetch_done;
	f->want.arg = f;
	f->started_ns = clock_ns();
	cache_want(p->cache, &f->want);
}

/* May one more of @bytes be asked for? Lock held. */
static bool may_issue(struct prefetch *p, const struct cache_flow *flow, uint64_t bytes)
{
	unsigned in_flight = p->in_flight + flow->demand_in_flight;

	if (flow->origin_is_down) {
		p->wake_ns = clock_ns() + DOWN_NS;
		return false;
	}
	return !p->is_short_of_memory &&
	       governor_admits(&p->governor, clock_ns(), in_flight, bytes, &p->wake_ns);
}

static void account_issue(struct prefetch *p, struct fetch *f, uint64_t bytes)
{
	f->bytes = bytes;
	p->in_flight++;
	p->in_flight_bytes += bytes;
}

/* Item @k of @u is about to be fetched. Lock held. */
static void stage(struct prefetch *p, struct set *s, struct unit *u, uint32_t k, enum predictor_id by, uint64_t bytes,
		  struct fetch *f)
{
	f->by = by;
	f->unit = u;
	f->index = k;
	f->at = UINT32_MAX;
	if (!(u->item[k] & ITEM_STAGED))
		s->staged++;
	u->item[k] = (uint8_t)((u->item[k] & ((1 << ITEM_BY_SHIFT) - 1)) | ITEM_IN_FLIGHT | ITEM_STAGED | by << ITEM_BY_SHIFT);
	account_issue(p, f, bytes);
}

/*
 * Extent *@extent of item @k, and the next one into *@extent, 0 when that was the last. Lock held.
 * Returns 1 with the fetch, 0 for an item that is unfit, -1 when no more may be asked for.
 */
static int prepare_item(struct prefetch *p, struct unit *u, uint32_t k, uint32_t *extent, enum predictor_id by,
			const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	struct ns_attr attr;
	uint64_t bytes;

	if (ns_getattr(p->ns, u->first + k, NS_NOCHECK | NS_NOWAIT, &attr) || !S_ISREG(attr.mode) || !attr.version.size) {
		u->item[k] = (uint8_t)((u->item[k] & ~ITEM_IN_FLIGHT) | ITEM_UNFIT);
		u->set->unfit++;
		*extent = 0;
		return 0;
	}
	bytes = extent_bytes(attr.version.size, *extent);
	if (!may_issue(p, flow, bytes))
		return -1;
	*ret_key = extent_key(attr.ino, *extent);
	f->is_last_extent = *extent + 1 >= extents_of(attr.version.size);
	*extent = f->is_last_extent ? 0 : *extent + 1;
	stage(p, u->set, u, k, by, bytes, f);
	return 1;
}

/* Prepare the fetch of the next unread item (or its next extent). Lock held. Returns false when there is none. */
static bool prepare_unread(struct prefetch *p, struct set *s, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	struct unit *u;
	uint32_t k;
	int rc = 0;

	while (!rc && (u = set_next_missing(s, &k))) {
		rc = prepare_item(p, u, k, &u->extent, PREDICTOR_UNREAD, flow, f, ret_key);
		if (rc > 0 && f->is_last_extent) {
			u->cursor = k + 1 < u->count ? k + 1 : 0;
			s->next_unit++;
		}
	}
	return rc > 0;
}

/*
 * The next part of record @k, which is in an extent of its own, unless that extent is there. Lock held.
 * Returns 1 with the fetch, 0 to go on with the order, -1 when no more may be asked for.
 */
static int prepare_record(struct prefetch *p, struct set *s, struct order *o, uint32_t k, const struct cache_flow *flow,
			  struct fetch *f, uint64_t *ret_key)
{
	uint64_t start, end, from, to;
	struct ns_attr attr;
	uint32_t no;

	records_range(s->records, k, &start, &end);
	no = (uint32_t)(start / EXTENT_BYTES) + s->order_extent;
	from = start > (uint64_t)no * EXTENT_BYTES ? start : (uint64_t)no * EXTENT_BYTES;
	to = end < (no + 1ULL) * EXTENT_BYTES ? end : (no + 1ULL) * EXTENT_BYTES;
	f->is_last_extent = to >= end;
	if (!ns_getattr(p->ns, s->records->ino, NS_NOCHECK | NS_NOWAIT, &attr) && from < to && to <= attr.version.size &&
	    !(cache_where(p->cache, &attr, no) & CACHE_TIER_DISK)) {
		if (!may_issue(p, flow, to - from))
			return -1;
		*ret_key = extent_key(attr.ino, no);
		f->want.piece_start = from;
		f->want.piece_len = (uint32_t)(to - from);
		stage(p, s, s->unit[0], k, o->by, to - from, f);
		f->at = o->cursor;
	}
	s->order_extent = f->is_last_extent ? 0 : s->order_extent + 1;
	o->cursor += f->is_last_extent;
	return f->want.piece_len ? 1 : 0;
}

/* The next extent of a file of records, while the disk has room: what is there is no matter of order. Lock held. */
static bool prepare_bulk(struct prefetch *p, struct set *s, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	struct records *r = s->records;
	struct ns_attr attr;

	if (flow->disk_room_bytes < 2 * EXTENT_BYTES || ns_getattr(p->ns, r->ino, NS_NOCHECK | NS_NOWAIT, &attr))
		return false;
	for (; r->next_extent < extents_of(attr.version.size); r->next_extent++) {
		if (cache_where(p->cache, &attr, r->next_extent) & CACHE_TIER_DISK)
			continue;
		if (!may_issue(p, flow, extent_bytes(attr.version.size, r->next_extent)))
			return false;
		f->by = PREDICTOR_UNREAD;
		f->is_last_extent = true;
		account_issue(p, f, extent_bytes(attr.version.size, r->next_extent));
		*ret_key = extent_key(attr.ino, r->next_extent++);
		return true;
	}
	return false;
}

/* A record that was fetched waits in memory and is nowhere else: it was not lost as long as it is staged. */
static bool is_to_be_fetched(const struct set *s, uint8_t flags)
{
	return item_is_missing(flags) && !(s->records && flags & ITEM_STAGED);
}

static int prepare_ordered_item(struct prefetch *p, struct set *s, struct order *o, struct unit *u, uint32_t k, const struct cache_flow *flow,
				struct fetch *f, uint64_t *ret_key)
{
	int rc = prepare_item(p, u, k, &s->order_extent, o->by, flow, f, ret_key);

	if (rc > 0) {
		f->at = o->cursor;
		o->cursor += f->is_last_extent;
	}
	return rc;
}

/* The same in the order that is followed. */
static bool prepare_ordered(struct prefetch *p, struct set *s, struct order *o, const struct cache_flow *flow,
			    struct fetch *f, uint64_t *ret_key)
{
	int rc = 0;

	while (!rc && (o->cursor = order_next(o, o->cursor)) < o->count) {
		uint32_t k;
		struct unit *u = set_item(s, o->item[o->cursor], &k);

		if (!u || (!s->order_extent && (!is_to_be_fetched(s, u->item[k]) || unit_is_pushed(u, k))))
			o->cursor++;
		else if (s->records)
			rc = prepare_record(p, s, o, k, flow, f, ret_key);
		else
			rc = prepare_ordered_item(p, s, o, u, k, flow, f, ret_key);
	}
	return rc > 0;
}

/* What was begun for a reader who goes by the listing, if it is still worth it. Lock held. */
static struct unit *neighbour_begun(struct set *s, uint32_t *ret_index)
{
	struct unit *u = s->neighbour_extent ? set_item(s, s->neighbour, ret_index) : NULL;

	if (u && u->item[*ret_index] & ITEM_IN_FLIGHT && !(u->item[*ret_index] & ITEM_CONSUMED))
		return u;
	/* its reader is there and asks for the rest himself, or an extent of it was refused */
	if (u)
		u->item[*ret_index] &= (uint8_t)~ITEM_IN_FLIGHT;
	s->neighbour_extent = 0;
	return NULL;
}

/* The item that such a reader will begin soon. Lock held. */
static struct unit *neighbour(struct set *s, uint32_t *ret_index, struct neighbour_reader **ret_reader)
{
	struct unit *u = neighbour_begun(s, ret_index);

	*ret_reader = NULL;
	while (!u && (*ret_reader = neighbours_next(&s->neighbours, (uint32_t)s->items, &s->neighbour))) {
		u = set_item(s, s->neighbour, ret_index);
		if (u && item_is_missing(u->item[*ret_index]) && !unit_is_pushed(u, *ret_index))
			break;
		u = NULL;
		neighbours_take(&s->neighbours, *ret_reader);
	}
	return u;
}

/* The next extent of what a reader who goes by the listing will need. Lock held. */
static bool prepare_neighbour(struct prefetch *p, struct set *s, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	struct neighbour_reader *reader;
	struct unit *u;
	uint32_t k;
	int rc = 0;

	while (!rc && (u = neighbour(s, &k, &reader))) {
		rc = prepare_item(p, u, k, &s->neighbour_extent, PREDICTOR_NEIGHBOUR, flow, f, ret_key);
		if (rc >= 0 && reader)
			neighbours_take(&s->neighbours, reader);
	}
	return rc > 0;
}

/* The rest of files that readers take samples of by now, the first begun first. Lock held. */
static bool prepare_begun(struct prefetch *p, struct set *s, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	struct sampled *m = &s->sampled;
	int rc = 0;

	while (!rc && m->cursor < m->begun_count) {
		uint32_t k;
		struct unit *u = set_item(s, m->begun[m->cursor], &k);

		if (!(u->item[k] & ITEM_IN_FLIGHT))
			m->extent = 0;   /* or an extent of it was refused */
		if (m->extent && u->item[k] & ITEM_CONSUMED) {
			u->item[k] &= (uint8_t)~ITEM_IN_FLIGHT;
			m->extent = 0;
		}
		if (m->extent || item_is_missing(u->item[k]))
			rc = prepare_item(p, u, k, &m->extent, PREDICTOR_UNREAD, flow, f, ret_key);
		m->cursor += rc >= 0 && !m->extent;
	}
	return rc > 0;
}

static bool prepare_from_set(struct prefetch *p, struct set *s, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	struct order *o = p->cfg.recognise ? follow_order(&s->follow) : NULL;

	if (s->sampled.is_on && prepare_begun(p, s, flow, f, ret_key))
		return true;
	if (o && prepare_ordered(p, s, o, flow, f, ret_key))
		return true;
	if (s->records)
		return prepare_bulk(p, s, flow, f, ret_key);
	/* of other ranks' items, those that are not ours are not wanted */
	if (o && (o->cursor < o->count || o->stride > 1))
		return false;
	if (prepare_neighbour(p, s, flow, f, ret_key))
		return true;
	return s->staged < set_confidence(s) && prepare_unread(p, s, flow, f, ret_key);
}

/* From the sets that are read now, or those that wait for their turn (validation between epochs). Lock held. */
static bool prepare_from_sets(struct prefetch *p, bool is_active, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	uint64_t now = clock_ns();

	/* one after the other, beginning behind the one that was served last */
	for (size_t n = 0; n <= p->sets.by_key.count; n++) {
		struct set *s = map64_next(&p->sets.by_key, &p->served_pos, NULL);

		if (!s) {
			p->served_pos = 0;
			continue;
		}
		if (s->blocked_at != p->consumed_count && is_live(s, now) && (now - s->last_ns < ACTIVE_NS) == is_active &&
		    prepare_from_set(p, s, flow, f, ret_key))
			return true;
	}
	return false;
}

static bool prepare_from_streams(struct prefetch *p, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	uint64_t size;

	if (p->in_flight + flow->demand_in_flight >= STREAM_WINDOW_MAX * 2 || p->is_short_of_memory || flow->origin_is_down)
		return false;
	if (!streams_next(&p->streams, ret_key, &size))
		return false;
	f->by = PREDICTOR_READAHEAD;
	f->is_last_extent = true;
	account_issue(p, f, extent_bytes(size, extent_key_no(*ret_key)));
	return true;
}

/* Where the reader of what @f fetches is expected. Lock held. */
static int expected_place(struct prefetch *p, const struct fetch *f, uint64_t key)
{
	struct unit *u = f->unit;
	const struct order *o = u ? follow_order(&u->set->follow) : NULL;
	int place = -1;

	if (!p->has_places)
		return 0;
	if (!u)
		return streams_place(&p->streams, extent_key_ino(key));
	if (o && f->at != UINT32_MAX)
		place = whereto_position(&u->set->whereto, f->at, o->stride);
	return place >= 0 ? place : whereto_item(&u->set->whereto, u->place ? u->place[f->index] : 0);
}

/* Ask for as much as may be. Returns when nothing more may. */
void issue_all(struct prefetch *p)
{
	for (;;) {
		struct fetch *f = calloc(1, sizeof(*f));
		struct cache_flow flow;
		uint64_t key;
		bool has;

		if (!f || atomic_load(&p->is_stopping)) {
			free(f);
			return;
		}
		cache_flow(p->cache, &flow);
		lock_acquire(&p->lock);
		governor_charge(&p->governor, flow.hedged_bytes);
		p->wake_ns = 0;
		has = prepare_from_streams(p, &flow, f, &key) ||
		      (p->cfg.mode == PREFETCH_AUTO && (prepare_from_sets(p, true, &flow, f, &key) ||
						       prepare_from_sets(p, false, &flow, f, &key)));
		if (has)
			f->want.place = expected_place(p, f, key);
		lock_release(&p->lock);
		if (!has) {
			free(f);
			return;
		}
		fetch_issue(p, f, key);
	}
}

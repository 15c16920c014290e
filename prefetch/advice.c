/* SPDX-License-Identifier: Apache-2.0 */
/* What the cache asks of the prefetcher, and tells it; from the cache's threads. */
#include "prefetch/engine.h"
#include <stdlib.h>
#include "prefetch/records.h"

/* What an item is to one job. Lock held. */
static enum cache_class class_for_job(const struct set *s, uint8_t flags)
{
	if (!s->is_confirmed && !follow_order(&s->follow))
		return CACHE_OTHER;
	if (flags & ITEM_CONSUMED)
		return CACHE_CONSUMED;
	/* what was fetched ahead stays until it is read, or it would be fetched again */
	return set_is_partial(s) && !(flags & ITEM_STAGED) ? CACHE_OTHER : CACHE_UNREAD;
}

/* What an extent is to all jobs: kept for any that has not read it. Lock held. */
enum cache_class advice_class(struct prefetch *p, uint64_t key)
{
	enum cache_class class = CACHE_OTHER;
	uint64_t ino = extent_key_ino(key);
	bool is_consumed = true, is_any = false;
	uint64_t now = clock_ns();
	uint32_t index, k;
	struct unit *u = sets_unit(&p->sets, ino, &index);

	for (const struct set *s = u ? u->set : NULL; s && class != CACHE_UNREAD; s = s->next_job) {
		const struct unit *v = set_item(s, u->base + index, &k);

		if (!v || !is_live(s, now))
			continue;
		class = class_for_job(s, v->item[k]);
		is_consumed &= class == CACHE_CONSUMED;
		is_any = true;
	}
	if (class == CACHE_UNREAD)
		return class;
	if (!is_any || !is_consumed)
		return CACHE_OTHER;
	if (u->set->sampled.is_on)
		return CACHE_CONSUMED;
	/* opened, but not all of it was read */
	return extent_key_no(key) >= streams_at(&p->streams, ino, now) ? CACHE_BEING_READ : CACHE_CONSUMED;
}

static enum cache_class class_of(void *arg, uint64_t key)
{
	struct prefetch *p = arg;
	const struct records *r;

	lock_scope(&p->lock);
	r = map64_get(&p->sets.records, extent_key_ino(key));
	if (!r || !r->set)
		return advice_class(p, key);
	for (const struct set *s = r->set; s; s = s->next_job) {
		if (is_live(s, clock_ns()))
			return CACHE_UNREAD;
	}
	return CACHE_OTHER;
}

/* An item fetched ahead is gone again; @was_unread: in vain. Lock held. */
static void item_lost(struct prefetch *p, struct unit *u, uint32_t index, bool was_unread)
{
	struct order *o = u->set->follow.order;

	u->item[index] &= (uint8_t)~ITEM_RESIDENT;
	if (unit_is_pushed(u, index))
		return;   /* its reader finds it all the same */
	u->is_exhausted = false;
	neighbours_again(&u->set->neighbours);
	sampled_again(u->set);
	if (o && !(u->item[index] & ITEM_CONSUMED))
		set_order_back(u->set, o->front);
	if ((!was_unread && !u->set->records) || (u->item[index] & (ITEM_STAGED | ITEM_IN_FLIGHT | ITEM_CONSUMED)) != ITEM_STAGED)
		return;
	u->item[index] &= (uint8_t)~ITEM_STAGED;
	if (u->set->staged)
		u->set->staged--;
	if (!was_unread)
		return;
	stats_add(p->stats, STAT_PREFETCH_WASTED_BYTES, set_item_bytes(u->set));
	stats_inc(p->stats, predictor_table[u->item[index] >> ITEM_BY_SHIFT].wrong);
}

static void item_lost_to_jobs(struct prefetch *p, const struct unit *u, uint32_t index, bool was_unread)
{
	for (const struct set *s = u->set; s; s = s->next_job) {
		uint32_t k;
		struct unit *v = set_item(s, u->base + index, &k);

		if (v)
			item_lost(p, v, k, was_unread);
	}
}

/* Lock held. */
static void extent_lost(struct prefetch *p, const struct loss *l)
{
	uint32_t index;
	struct unit *u = sets_unit(&p->sets, extent_key_ino(l->key), &index);

	if (u)
		item_lost_to_jobs(p, u, index, l->was_unread);
}

/* Lock held. */
static void record_lost(struct prefetch *p, const struct loss *l)
{
	const struct records *r = map64_get(&p->sets.records, extent_key_ino(l->key));
	uint64_t i = r && r->set ? records_index(&r->geometry, l->piece_start + 2 * 4096) : 0;   /* it begins up to two pages before its record */

	if (r && r->set && i < r->geometry.count)
		item_lost_to_jobs(p, r->set->unit[0], (uint32_t)i, l->was_unread);
}

/*
 * Memory may go the moment it was read, while the observation of that still waits for the thread. So what was lost
 * waits behind it: entered at once, it would be taken for unread, and fetched again.
 */
static void lost(struct prefetch *p, struct loss loss)
{
	struct losses *l = &p->losses;

	lock_acquire(&p->lock);
	if (l->count == l->size) {
		size_t size = l->size ? l->size * 2 : 64;
		struct loss *bigger = atomic_load(&p->is_stopping) ? NULL : realloc(l->of, size * sizeof(*bigger));

		if (bigger) {
			l->of = bigger;
			l->size = size;
		}
	}
	if (l->count < l->size)
		l->of[l->count++] = loss;   /* without memory: a reader will miss it and fetch it */
	lock_release(&p->lock);
	if (atomic_load(&p->rest) == ASLEEP)
		prefetch_wake(p);
}

struct losses advice_take_losses(struct prefetch *p)
{
	struct losses taken;

	lock_scope(&p->lock);
	taken = p->losses;
	p->losses = (struct losses){ 0 };
	return taken;
}

void advice_lost(struct prefetch *p, struct losses *l)
{
	if (!l->count)
		return;
	lock_acquire(&p->lock);
	for (size_t i = 0; i < l->count; i++)
		l->of[i].is_piece ? record_lost(p, &l->of[i]) : extent_lost(p, &l->of[i]);
	lock_release(&p->lock);
	free(l->of);
}

static void evicted(void *arg, uint64_t key, bool was_unread)
{
	lost(arg, (struct loss){ .key = key, .was_unread = was_unread });
}

static void piece_lost(void *arg, uint64_t ino, uint64_t start, bool was_unread)
{
	lost(arg, (struct loss){ .key = extent_key(ino, 0), .piece_start = start, .is_piece = true, .was_unread = was_unread });
}

static void stored(void *arg, uint64_t key, bool is_whole)
{
	struct prefetch *p = arg;
	struct unit *u;
	uint32_t index, k;

	lock_scope(&p->lock);
	u = sets_unit(&p->sets, extent_key_ino(key), &index);
	for (const struct set *s = u && is_whole ? u->set : NULL; s; s = s->next_job) {
		struct unit *v = set_item(s, u->base + index, &k);

		if (v)
			v->item[k] |= ITEM_RESIDENT;
	}
	if (u && is_whole)
		ahead_arrived(&p->ahead, u, UINT32_MAX);
}

void advice_init(struct prefetch *p)
{
	p->advisor = (struct cache_advisor){ class_of, evicted, piece_lost, stored, p };
}

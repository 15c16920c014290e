/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What memory has left of an earlier epoch, or was fetched before the order was known, lies where its last reader was, or
 * anywhere: as the order reaches it, it is moved to where the next one is expected. What is fetched in the order comes to the right place at once.
 */
#include "prefetch/engine.h"
#include "prefetch/whereto.h"

enum {
	SHARE = 4,                   /* of memory: moved too early, it would be given up again before it is read */
	ITEMS_MAX = 1024,
};

static uint32_t end_of_window(const struct set *s, uint64_t ram_bytes)
{
	const struct order *o = s->follow.order;
	uint64_t bytes = set_item_bytes(s), items = bytes ? ram_bytes / SHARE / bytes : 0;

	if (items > ITEMS_MAX)
		items = ITEMS_MAX;
	return items < o->count - o->front ? o->front + (uint32_t)items : o->count;
}

/* The next item of the order whose place is known. Lock held. */
static bool next_in_order(struct set *s, uint32_t end, uint64_t *ret_ino, int *ret_place)
{
	struct order *o = s->follow.order;

	if (o->mover < o->front)
		o->mover = o->front;
	while ((o->mover = order_next(o, o->mover)) < end) {
		uint32_t k;
		struct unit *u = set_item(s, o->item[o->mover], &k);

		*ret_place = whereto_position(&s->whereto, o->mover, o->stride);
		if (*ret_place < 0)
			return false;   /* not yet */
		o->mover++;
		if (u && !(u->item[k] & (ITEM_CONSUMED | ITEM_UNFIT | ITEM_IN_FLIGHT))) {
			*ret_ino = u->first + k;
			return true;
		}
	}
	return false;
}

static bool next_to_move(struct prefetch *p, uint64_t ram_bytes, uint64_t *ret_ino, int *ret_place)
{
	uint64_t now = clock_ns();
	bool has = false;
	struct set *s;
	size_t pos = 0;

	lock_scope(&p->lock);
	while (!has && (s = map64_next(&p->sets.by_key, &pos, NULL))) {
		/* pieces are of this epoch */
		if (is_live(s, now) && !s->records && follow_order(&s->follow))
			has = next_in_order(s, end_of_window(s, ram_bytes), ret_ino, ret_place);
	}
	return has;
}

static bool is_worth_while(struct prefetch *p)
{
	lock_scope(&p->lock);
	/* what goes into the page cache is copied there to the right place, wherever it was */
	return p->has_places && p->cfg.recognise && !p->sink.push;
}

void move_ahead(struct prefetch *p)
{
	struct cache_flow flow;
	uint64_t ino;
	int place;

	if (!is_worth_while(p))
		return;
	cache_flow(p->cache, &flow);
	while (!atomic_load(&p->is_stopping) && next_to_move(p, flow.ram_limit_bytes, &ino, &place))
		cache_move(p->cache, ino, place);
}

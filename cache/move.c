/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is in memory moves to where it will be read: a copy in the other arena takes the extent's place there.
 *
 *   cache_move -> move_begin: held, a buffer -> the copy, without the lock -> move_end: exchanged, unless somebody came
 *
 * The bytes cross between the nodes once, as they would for a reader, but nobody waits for them. Only memory that is
 * free, or holds what was read, is used: what is still needed elsewhere is worth more than being near.
 */
#include <string.h>
#include "cache/extent.h"
#include "lib/stats.h"

enum { EXTENTS_MAX = 16 };           /* 4 ms: it is copied by who asks */

struct move {
	struct extent *extent;       /* one reference */
	char *from, *to;
	uint8_t home;                /* the arena of to */
};

/* Lock held. Returns whether there is something to copy. */
static bool move_begin(struct cache *c, struct extent *x, uint8_t home, struct move *ret, struct answers *a)
{
	if (x->state != EXTENT_READY || x->refs || x->home == home)
		return false;
	c->busy++;
	x->refs++;   /* and it is not the one that is given up for its own copy */
	list_remove(&x->lru);
	*ret = (struct move){ x, x->buf, extent_alloc_at(c, home, x->len, a), home };
	if (!ret->to)
		extent_unref(c, x);
	return ret->to != NULL;
}

/* Lock held. Who has come meanwhile, with a reference, reads where it was: then it stays. */
static void move_end(struct cache *c, const struct move *m, struct answers *a)
{
	struct extent *x = m->extent;

	if (x->refs == 1) {
		ram_free(&c->ram, x->home, m->from, x->len);
		x->buf = m->to;
		x->home = m->home;
		stats_inc(c->stats, STAT_RAM_MOVED);
	} else {
		ram_free(&c->ram, m->home, m->to, x->len);
	}
	extent_unref(c, x);
	fill_feed_starved(c, a);
}

/* Returns whether the extent is in memory. */
static bool move_one(struct cache *c, uint64_t key, int place)
{
	struct move m;
	struct extent *x;
	struct answers a;
	bool moves;

	answers_init(&a);
	lock_acquire(&c->lock);
	x = map64_get(&c->extents, key);
	moves = x && move_begin(c, x, (uint8_t)ram_home(&c->ram, place), &m, &a);
	lock_release(&c->lock);
	if (moves) {
		memcpy(m.to, m.from, m.extent->len);
		lock_acquire(&c->lock);
		move_end(c, &m, &a);
		lock_release(&c->lock);
	}
	answers_give(c, &a);
	return x != NULL;
}

void cache_move(struct cache *c, uint64_t ino, int place)
{
	if (c->ram.count == 1 || place < 0)
		return;
	for (uint32_t no = 0; no < EXTENTS_MAX && move_one(c, extent_key(ino, no), place); no++)
		;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for extents, and less of it: who gives up his for another, and what happens when the limit in force falls.
 *
 *   memory_used --now and then--> memory_look: what does the cgroup allow? --less--> moving <--idle, beyond it-- extent_idle
 *                                                                                       |
 *                                  given up, or moved to where it may stay <-- memory_settle
 *
 * Nobody looks while nothing is read or allocated: a mount at rest uses no processor. The timer's thread does both, in small steps,
 * so that nobody waits long for the lock.
 */
#include <string.h>
#include "cache/cgroup.h"
#include "cache/extent.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/stats.h"

#define LOOK_NS (2 * NSEC_PER_SEC)
#define PERIOD_NS (60 * NSEC_PER_SEC)   /* memory free for longer need not be ours */

enum {
	STEP_EXTENTS = 32,           /* moved or given up without letting go of the lock */
	STEP_BYTES = 4 << 20,        /* ... copied: a millisecond */
};

static void give_up(struct cache *c, struct extent *x)
{
	if (!x->is_on_disk && x->is_staged)
		stats_inc(c->stats, STAT_EVICT_UNREAD);
	if (!x->is_on_disk)
		extent_lost(c, x);
	extent_remove(c, x);
	extent_free(c, x);
}

/*
 * Give up one idle extent's memory. Demand may take whatever is idle; a
 * prefetch neither takes what another prefetch has staged in memory alone, nor what is not on disk.
 */
static bool reclaim_one(struct cache *c, struct list *from, bool only_on_disk)
{
	list_for_each(n, from) {
		struct extent *x = container_of(n, struct extent, lru);

		if (only_on_disk && !x->is_on_disk)
			continue;
		give_up(c, x);
		return true;
	}
	return false;
}

/* What may be given up for memory, the cheapest first. */
enum sacrifice { COLD, WARM_ON_DISK, WARM };

static bool reclaim(struct cache *c, unsigned at, enum sacrifice what)
{
	return reclaim_one(c, what == COLD ? &c->cold[at] : &c->warm[at], what == WARM_ON_DISK);
}

/* The @i-th arena to try, of all: home is the first. */
static unsigned arena_at(const struct cache *c, unsigned home, unsigned i)
{
	return (home + i) % c->ram.count;
}

static bool reclaim_anywhere(struct cache *c, unsigned home, enum sacrifice what)
{
	for (unsigned i = 0; i < c->ram.count; i++) {
		if (reclaim(c, arena_at(c, home, i), what))
			return true;
	}
	return false;
}

/* ---- the limit in force ---- */

/* Half of what the cgroup may have: the rest is for the program, messages, and what the kernel keeps on our behalf. */
static uint64_t allowed_bytes(const struct cache *c)
{
	uint64_t bytes = cgroup_memory_bytes(c->cgroup_root);

	return bytes == UINT64_MAX ? bytes : bytes / 2;
}

void memory_used(struct cache *c)
{
	uint64_t now = clock_ns();

	if (now < c->look_ns)
		return;
	c->look_ns = now + LOOK_NS;
	c->must_look = true;
	pthread_cond_signal(&c->timer_wake);
}

void memory_leave(struct cache *c, struct extent *x)
{
	list_push_back(&c->moving, &x->lru);
	pthread_cond_signal(&c->timer_wake);
}

static void leave_all(struct cache *c, struct list *from)
{
	list_for_each_safe(n, from) {
		struct extent *x = container_of(n, struct extent, lru);

		if (!ram_is_beyond(&c->ram, x->home, x->buf, x->len))
			continue;
		list_remove(&x->lru);
		memory_leave(c, x);
	}
}

static void set_limit(struct cache *c, uint64_t bytes)
{
	if (!ram_set_limit(&c->ram, bytes))
		return;
	log_info("memory: the limit in force is %llu MiB", (unsigned long long)ram_limit_bytes(&c->ram) >> 20);
	for (unsigned i = 0; i < c->ram.count; i++) {
		leave_all(c, &c->cold[i]);
		leave_all(c, &c->warm[i]);
	}
}

int memory_open(struct cache *c, uint64_t bytes, const struct topology *t)
{
	uint64_t allowed = allowed_bytes(c);
	int rc;

	if (!bytes) {
		bytes = ram_auto_bytes();
		bytes = bytes < allowed ? bytes : allowed < ARENA_LEAST ? ARENA_LEAST : allowed;
	}
	rc = ram_open(&c->ram, bytes, t);
	if (!rc)
		set_limit(c, allowed);
	return rc;
}

/* Beside everything else: a gigabyte takes half a second. */
static void collapse(struct work *w)
{
	struct cache *c = container_of(w, struct cache, collapse);
	size_t len;
	void *p;

	lock_scope(&c->lock);
	while (!c->is_closing && (p = ram_small(&c->ram, &len))) {
		lock_release(&c->lock);
		ram_collapse(p, len);
		lock_acquire(&c->lock);
	}
	c->is_collapsing = false;
}

void memory_look(struct cache *c)
{
	uint64_t allowed;
	bool is_new;

	lock_assert_held(&c->lock);
	c->must_look = false;
	lock_release(&c->lock);
	allowed = allowed_bytes(c);
	lock_acquire(&c->lock);
	set_limit(c, allowed);
	is_new = clock_ns() >= c->period_ns;
	if (is_new)
		c->period_ns = clock_ns() + PERIOD_NS;
	ram_trim(&c->ram, is_new);
	if (c->is_collapsing || c->is_closing || !ram_has_small(&c->ram))
		return;
	c->is_collapsing = true;
	c->collapse.run = collapse;
	lock_release(&c->lock);
	pool_submit(c->pool, &c->collapse);
	lock_acquire(&c->lock);
}

/* To where it may stay, in others' place if need be. Returns whether it could. */
static bool move(struct cache *c, struct extent *x, struct answers *a)
{
	uint8_t home = x->home;
	void *p = extent_alloc(c, &home, x->len, true, a);

	if (!p)
		return false;
	memcpy(p, x->buf, x->len);
	ram_free(&c->ram, x->home, x->buf, x->len);
	x->buf = p;
	x->home = home;
	stats_inc(c->stats, STAT_RAM_MOVED);
	return true;
}

bool memory_settle(struct cache *c, struct answers *a)
{
	uint32_t bytes = 0;
	struct list *n;

	for (unsigned i = 0; i < STEP_EXTENTS && bytes < STEP_BYTES && (n = list_pop_front(&c->moving)); i++) {
		struct extent *x = container_of(n, struct extent, lru);
		bool is_wanted = !x->is_served && !x->is_on_disk;

		if (!ram_is_beyond(&c->ram, x->home, x->buf, x->len) || (is_wanted && move(c, x, a))) {
			bytes += x->len;
			extent_idle(c, x);
		} else {
			give_up(c, x);
			a->has_lost = true;
		}
	}
	return !list_is_empty(&c->moving);
}

/* ---- memory for one ---- */

static void *alloc_at(struct cache *c, unsigned at, size_t len, enum sacrifice what)
{
	void *p;

	do
		p = ram_alloc(&c->ram, at, len);
	while (!p && reclaim(c, at, what));
	return p;
}

void *extent_alloc_at(struct cache *c, unsigned at, size_t len, struct answers *a)
{
	a->has_lost = true;
	return alloc_at(c, at, len, COLD);
}

void *extent_alloc(struct cache *c, uint8_t *home, size_t len, bool for_demand, struct answers *a)
{
	enum sacrifice most = for_demand ? WARM : WARM_ON_DISK;

	memory_used(c);
	a->has_lost = true;   /* perhaps: answers_give() looks */
	/* a share is demand's alone, or a burst of writes would leave it nothing but what was staged */
	while (!for_demand && ram_free_bytes(&c->ram) < len + ram_limit_bytes(&c->ram) / 8) {
		if (!reclaim_anywhere(c, *home, COLD) && !reclaim_anywhere(c, *home, WARM_ON_DISK))
			return NULL;
	}
	for (enum sacrifice what = COLD; what <= most; what++) {
		for (unsigned i = 0; i < c->ram.count; i++) {
			unsigned at = arena_at(c, *home, i);
			void *p = alloc_at(c, at, len, what);

			if (p) {
				*home = (uint8_t)at;
				return p;
			}
		}
	}
	return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How an extent gets its bytes. The diagram and the guarantees are in extent.h.
 *
 *   fill_try_memory -> fill_start -> disk_read     -> disk_filled -+
 *                          |            | damaged                  |
 *                          +----------> request_start (request.c) -+-> fill_end -> store_behind
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "cache/extent.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/stats.h"

#define LOOK_AGAIN_NS (50 * NSEC_PER_MSEC)

/* ---- answers ---- */

void answers_init(struct answers *a)
{
	list_init(&a->reads);
	list_init(&a->wants);
	list_init(&a->start);
	a->want_err = 0;
	a->want_bytes = 0;
	a->has_lost = false;
}

static void read_answer(struct cache_read *r)
{
	struct read_state *s = (struct read_state *)r->priv;

	r->done(r, s->err);
}

/* Tell the advisor what was lost since; the lock is not held. */
static void tell_lost(struct cache *c)
{
	const struct cache_advisor *advisor;
	struct lost *lost;
	size_t count;

	lock_acquire(&c->lock);
	lost = c->lost;
	count = c->lost_count;
	advisor = c->advisor;
	c->lost = NULL;
	c->lost_count = c->lost_size = 0;
	lock_release(&c->lock);
	for (size_t i = 0; advisor && i < count; i++) {
		if (lost[i].is_piece)
			advisor->piece_lost(advisor->arg, extent_key_ino(lost[i].key), lost[i].start, lost[i].was_unread);
		else
			advisor->evicted(advisor->arg, lost[i].key, lost[i].was_unread);
	}
	free(lost);
}

void answers_give(struct cache *c, struct answers *a)
{
	struct list *n;

	while ((n = list_pop_front(&a->start)))
		fill_start(container_of(n, struct extent, queue));
	while ((n = list_pop_front(&a->reads)))
		read_answer(container_of(n, struct part, link)->read);
	while ((n = list_pop_front(&a->wants))) {
		struct want_state *w = container_of(n, struct want_state, link);

		w->want->done(w->want, a->want_err, w->has_joined ? 0 : a->want_bytes);
	}
	if (a->has_lost)
		tell_lost(c);
}

/* One part of a read is there, or failed. The read is answered when its last part is. */
void fill_part_done(struct part *p, int err, struct answers *a)
{
	struct cache_read *r = p->read;
	struct read_state *s = (struct read_state *)r->priv;

	if (err) {
		if (!s->err)
			s->err = err;
		p->extent = NULL;
	} else {
		p->extent->refs++;
		p->extent->is_staged = false;
		extent_clear_ram_only(p->extent->cache, p->extent);
		r->iov[p - s->part] = (struct iovec){ p->extent->buf + p->offset, p->len };
		if (p->offset + p->len == p->extent->len)
			p->extent->is_served = true;
	}
	if (--s->pending)
		return;
	if (s->err) {
		/* a read that failed holds nothing */
		for (int i = 0; i < s->part_count; i++) {
			if (s->part[i].extent)
				extent_unref(s->part[i].extent->cache, s->part[i].extent);
		}
	} else {
		r->iov_count = s->part_count;
		for (int i = 0; i < s->part_count; i++)
			r->bytes += s->part[i].len;
	}
	list_push_back(&a->reads, &p->link);
}

/* ---- extents and memory ---- */

uint32_t extent_len(const struct ns_attr *attr, uint32_t extent_no)
{
	uint64_t start = (uint64_t)extent_no * EXTENT_BYTES;

	if (start >= attr->version.size)
		return 0;
	return attr->version.size - start < EXTENT_BYTES ? (uint32_t)(attr->version.size - start) : EXTENT_BYTES;
}

static struct extent *extent_make(struct cache *c, const struct ns_attr *attr, uint64_t start, uint32_t len)
{
	struct extent *x = calloc(1, sizeof(*x));

	if (!x)
		return NULL;
	x->cache = c;
	x->key = extent_key(attr->ino, (uint32_t)(start / EXTENT_BYTES));
	x->attr = *attr;
	x->start = start;
	x->len = len;
	x->state = EXTENT_WAITING_MEMORY;
	x->refs = 1;                         /* the fill's */
	list_init(&x->waiters);
	list_init(&x->wants);
	list_init(&x->lru);
	list_init(&x->queue);
	return x;
}

struct extent *extent_new(struct cache *c, uint64_t key, const struct ns_attr *attr)
{
	uint32_t no = extent_key_no(key);
	struct extent *x = extent_make(c, attr, (uint64_t)no * EXTENT_BYTES, extent_len(attr, no));

	if (!x || map64_put(&c->extents, key, x)) {
		free(x);
		return NULL;
	}
	c->busy++;
	return x;
}

struct extent *extent_new_piece(struct cache *c, const struct ns_attr *attr, uint64_t start, uint32_t len)
{
	struct extent *x = extent_make(c, attr, start, len);

	if (x)
		x->is_piece = true;
	if (!x || piece_add(&c->pieces, x)) {
		free(x);
		return NULL;
	}
	c->busy++;
	return x;
}

static void extent_leave_tables(struct cache *c, struct extent *x)
{
	if (x->is_piece)
		piece_remove(&c->pieces, x);
	else
		map64_remove(&c->extents, x->key);
}

void extent_forget(struct cache *c, struct extent *x)
{
	list_remove(&x->queue);
	extent_leave_tables(c, x);
	c->busy--;
	free(x);
}

void extent_remove(struct cache *c, struct extent *x)
{
	extent_leave_tables(c, x);
	x->state = EXTENT_DEAD;
}

/* It was read, stored or given up: no longer counted as staged in memory alone. */
void extent_clear_ram_only(struct cache *c, struct extent *x)
{
	if (x->is_ram_only)
		c->ram_only_bytes -= x->len;
	x->is_ram_only = false;
}

void extent_free(struct cache *c, struct extent *x)
{
	extent_clear_ram_only(c, x);
	list_remove(&x->lru);
	if (x->buf)
		ram_free(&c->ram, x->home, x->buf, x->len);
	free(x);
}

/* READY and nobody uses it: it may be reclaimed. Frees it when two others have it, the disk and the page cache. */
void extent_idle(struct cache *c, struct extent *x)
{
	list_remove(&x->lru);
	if (x->is_handed_over && x->is_on_disk) {
		stats_inc(c->stats, STAT_RAM_HANDED_OVER);
		extent_remove(c, x);
		extent_free(c, x);
		return;
	}
	if (ram_is_beyond(&c->ram, x->home, x->buf, x->len)) {
		memory_leave(c, x);
		return;
	}
	/* read to its end: the reader's page cache has it now */
	list_push_back(x->is_served ? &c->cold[x->home] : &c->warm[x->home], &x->lru);
}

void extent_unref(struct cache *c, struct extent *x)
{
	lock_assert_held(&c->lock);
	if (--x->refs)
		return;
	c->busy--;
	if (!c->busy)
		pthread_cond_broadcast(&c->idle);
	if (x->state == EXTENT_DEAD)
		extent_free(c, x);
	else
		extent_idle(c, x);
}

void extent_lost(struct cache *c, const struct extent *x)
{
	if (c->lost_count == c->lost_size) {
		size_t size = c->lost_size ? c->lost_size * 2 : 64;
		struct lost *bigger = realloc(c->lost, size * sizeof(*bigger));

		if (!bigger)
			return;   /* the prefetcher finds out when it asks */
		c->lost = bigger;
		c->lost_size = size;
	}
	c->lost[c->lost_count++] = (struct lost){ x->key, x->start, x->is_piece, x->is_staged };
}

/* The share that is left for what is on disk: (H). */
static uint64_t disk_share(const struct cache *c)
{
	uint64_t share = ram_limit_bytes(&c->ram) / 16;

	return share > EXTENT_BYTES ? share : EXTENT_BYTES;
}

/* Would another request to the origin take of that share? With none there, whatever the memory, one may be sent. */
static bool is_beyond_share(const struct cache *c, const struct extent *x)
{
	uint64_t held = c->origin_bytes + c->spare_bytes;

	return held && held + x->len + disk_share(c) > ram_limit_bytes(&c->ram);
}

static bool is_on_disk(struct cache *c, const struct extent *x)
{
	return !x->is_piece && disk_has(c->disk, x->key, version_hash(&x->attr.version));
}

static void uncount(struct cache *c, struct extent *x)
{
	if (x->is_counted)
		c->origin_bytes -= x->len;
	x->is_counted = false;
}

/* A buffer for @x, and its start queued in @a; or -EBUSY: only for one that is on disk, or -ENOMEM. */
static int get_memory(struct cache *c, struct extent *x, bool for_demand, struct answers *a)
{
	bool is_beyond = is_beyond_share(c, x);

	if (is_beyond && !is_on_disk(c, x))
		return -EBUSY;
	x->buf = extent_alloc(c, &x->home, x->len, for_demand, a);
	if (!x->buf)
		return -ENOMEM;
	x->is_counted = !is_beyond;
	c->origin_bytes += x->is_counted ? x->len : 0;
	x->state = EXTENT_FILLING;
	list_remove(&x->queue);
	list_push_back(&a->start, &x->queue);
	return 0;
}

/* Find memory for @x and queue its start in @a, or let it wait among the starved. */
void fill_try_memory(struct cache *c, struct extent *x, bool for_demand, struct answers *a)
{
	if (!get_memory(c, x, for_demand, a))
		return;
	stats_inc(c->stats, STAT_RAM_WAITS);
	list_push_back(&c->starved, &x->queue);
}

/* Memory may have come free: serve those that wait, first come, first served; those on disk before who waits for their share. */
void fill_feed_starved(struct cache *c, struct answers *a)
{
	list_for_each_safe(n, &c->starved) {
		if (get_memory(c, container_of(n, struct extent, queue), true, a) == -ENOMEM)
			return;
	}
}

/* ---- the end of a fill ---- */

static void waiters_end(struct extent *x, int err, struct answers *a)
{
	struct list *n;

	while ((n = list_pop_front(&x->waiters)))
		fill_part_done(container_of(n, struct part, link), err, a);
}

static void store_behind(struct work *w);

bool fill_end(struct extent *x, int err, uint64_t fetched)
{
	struct cache *c = x->cache;
	bool stores = !err && x->is_from_origin && !x->is_piece;
	struct answers a;

	answers_init(&a);
	lock_acquire(&c->lock);
	list_remove(&x->queue);
	if (err && request_retry(x, err)) {
		/* also for who came to a prefetch that failed in this moment: nobody is given another's error */
		lock_release(&c->lock);
		return false;
	}
	uncount(c, x);
	if (!list_is_empty(&x->waiters))
		c->demand_in_flight -= fetched || x->is_from_origin;
	if (err) {
		extent_remove(c, x);
	} else {
		x->valid = x->len;
		x->state = EXTENT_READY;
	}
	if (stores) {
		x->is_writing = true;
		x->refs++;
	}
	waiters_end(x, err, &a);
	list_splice_back(&a.wants, &x->wants);
	a.want_err = err;
	a.want_bytes = fetched;
	if (err && x->room.bytes) {
		struct disk_room room = x->room;

		x->room.bytes = 0;
		lock_release(&c->lock);
		disk_unreserve(c->disk, room);
		lock_acquire(&c->lock);
	}
	extent_unref(c, x);
	fill_feed_starved(c, &a);
	lock_release(&c->lock);
	answers_give(c, &a);
	if (stores) {   /* which has a reference; without the lock, as the pool may have to run it here */
		x->work.run = store_behind;
		pool_submit(c->pool, &x->work);
	}
	return true;
}

/* ---- storing behind the reply ---- */

static void store_end(struct extent *x, bool is_stored)
{
	struct cache *c = x->cache;
	struct answers a;

	answers_init(&a);
	if (is_stored)
		evict_stored(c->evict, x->io.room.dir, x->key, x->len == x->attr.version.size);
	lock_acquire(&c->lock);
	x->is_writing = false;
	x->is_on_disk = is_stored;
	if (is_stored)
		extent_clear_ram_only(c, x);
	if (is_stored && disk_excess(c->disk, x->io.room.dir)) {
		c->wants_eviction = true;
		pthread_cond_signal(&c->evictor_wake);
	}
	extent_unref(c, x);
	fill_feed_starved(c, &a);
	lock_release(&c->lock);
	answers_give(c, &a);
}

static void stored(struct disk_io *io, int err)
{
	store_end(io->arg, err == 0);
}

static void store_behind(struct work *w)
{
	struct extent *x = container_of(w, struct extent, work);
	struct cache *c = x->cache;
	struct disk_room room = x->room;
	uint64_t size = x->attr.version.size;

	x->room.bytes = 0;
	if (!room.bytes)
		room = evict_room(c->evict, x->key, size, x->len, x->place, 0);
	if (!room.bytes && evict_admits(c->evict, x->key))
		room = evict_room(c->evict, x->key, size, x->len, x->place, 1);
	if (!room.bytes) {
		stats_inc(c->stats, STAT_DISK_REFUSED);
		store_end(x, false);
		return;
	}
	x->io = (struct disk_io){ .key = x->key, .version = version_hash(&x->attr.version),
				  .object_bytes = x->attr.version.size, .buf = x->buf, .len = x->len,
				  .done = stored, .arg = x, .room = room };
	disk_write(c->disk, &x->io);
}

/* ---- from disk ---- */

static void disk_filled(struct disk_io *io, int err)
{
	struct extent *x = io->arg;
	struct cache *c = x->cache;
	bool is_demand;

	if (!err) {
		lock_acquire(&c->lock);
		x->is_on_disk = true;
		lock_release(&c->lock);
		evict_hit(c->evict, x->key);
		fill_end(x, 0, 0);
		return;
	}
	/* damaged or evicted a moment ago: the origin has it */
	lock_acquire(&c->lock);
	x->is_from_origin = true;
	x->is_counted = true;
	c->origin_bytes += x->len;
	is_demand = !list_is_empty(&x->waiters);
	if (is_demand)
		c->demand_in_flight++;
	lock_release(&c->lock);
	if (is_demand)
		stats_inc(c->stats, STAT_READS_MISSED);
	request_start(x);
}

/* The lock is not held. */
void fill_start(struct extent *x)
{
	struct cache *c = x->cache;
	uint64_t version = version_hash(&x->attr.version);
	bool is_demand, on_disk = !x->room.bytes && is_on_disk(c, x);

	lock_acquire(&c->lock);
	x->started_ns = clock_ns();
	x->is_from_origin = !on_disk;
	if (on_disk)
		uncount(c, x);
	is_demand = !list_is_empty(&x->waiters);
	if (is_demand && !on_disk)
		c->demand_in_flight++;
	lock_release(&c->lock);
	if (is_demand)
		stats_inc(c->stats, on_disk ? STAT_READS_HIT_DISK : STAT_READS_MISSED);
	if (!on_disk) {
		request_start(x);
		return;
	}
	x->io = (struct disk_io){ .key = x->key, .version = version, .object_bytes = x->attr.version.size,
				  .buf = x->buf, .len = x->len, .place = x->place, .done = disk_filled, .arg = x };
	disk_read(c->disk, &x->io);
}

/* ---- time ---- */

/* Readers that waited longer than timeout= get EIO; the fill goes on for those to come. */
static void expire_waiters(struct cache *c, uint64_t now, uint64_t *wake_ns, struct answers *a)
{
	list_for_each_safe(n, &c->filling) {
		struct extent *x = container_of(n, struct extent, queue);

		if (list_is_empty(&x->waiters))
			continue;
		if (x->deadline_ns > now) {
			if (x->deadline_ns < *wake_ns)
				*wake_ns = x->deadline_ns;
			continue;
		}
		log_warn("origin: no answer for %s in time", request_path(x));
		c->demand_in_flight--;
		waiters_end(x, -EIO, a);
	}
}

/* It ends here, with nobody to be told but @a. Lock held. */
static void fill_abandon(struct cache *c, struct extent *x, struct answers *a)
{
	list_remove(&x->queue);
	uncount(c, x);
	extent_remove(c, x);
	waiters_end(x, -EIO, a);
	list_splice_back(&a->wants, &x->wants);
	a->want_err = -EIO;
	if (x->room.bytes)
		disk_unreserve(c->disk, x->room);
	x->room.bytes = 0;
	extent_unref(c, x);
}

/* Those that got no memory in all their time. */
static void expire_starved(struct cache *c, uint64_t now, uint64_t *wake_ns, struct answers *a)
{
	list_for_each_safe(n, &c->starved) {
		struct extent *x = container_of(n, struct extent, queue);

		if (x->deadline_ns <= now)
			fill_abandon(c, x, a);
		else if (x->deadline_ns < *wake_ns)
			*wake_ns = x->deadline_ns;
	}
}

/*
 * Fills of which nothing is heard any more. Memory that the origin may still write to stays with the request; who
 * has come meanwhile and has time left is served by another.
 */
static void fill_give_up(struct cache *c, uint64_t now, uint64_t *wake_ns, struct answers *a)
{
	list_for_each_safe(n, &c->filling) {
		struct extent *x = container_of(n, struct extent, queue);
		uint64_t due_ns = request_give_up_ns(x);

		if (due_ns <= now && x->refs > 1)
			due_ns = now + LOOK_AGAIN_NS;   /* somebody reads what has arrived, at this moment */
		if (due_ns > now) {
			*wake_ns = due_ns < *wake_ns ? due_ns : *wake_ns;
			continue;
		}
		request_give_up(x);
		if (list_is_empty(&x->waiters) || c->is_closing) {
			c->demand_in_flight -= !list_is_empty(&x->waiters);
			fill_abandon(c, x, a);
			continue;
		}
		c->demand_in_flight--;
		uncount(c, x);
		if (x->buf)
			ram_free(&c->ram, x->home, x->buf, x->len);   /* only its hedge was left, which had its own */
		x->buf = NULL;
		x->valid = 0;
		x->deadline_ns = now + c->timeout_ns;   /* of this request; who waits longer than timeout= is not our guest any more (fs/wait.h) */
		x->is_from_origin = false;
		x->state = EXTENT_WAITING_MEMORY;
		list_remove(&x->queue);
		fill_try_memory(c, x, true, a);
	}
}

static struct extent *due_retry(struct cache *c, uint64_t now, uint64_t *wake_ns)
{
	list_for_each(n, &c->retrying) {
		struct extent *x = container_of(n, struct extent, queue);

		if (x->retry_ns <= now || c->is_closing)
			return x;
		if (x->retry_ns < *wake_ns)
			*wake_ns = x->retry_ns;
	}
	return NULL;
}

void *fill_timer_thread(void *arg)
{
	struct cache *c = arg;
	struct answers a;

	pthread_setname_np(pthread_self(), "fill-timer");
	lock_acquire(&c->lock);
	while (!c->is_closing || c->busy) {
		uint64_t now = clock_ns(), wake_ns = UINT64_MAX;
		struct extent *x = due_retry(c, now, &wake_ns);
		struct origin_read *hedge;
		bool has_more;

		if (c->must_look) {
			memory_look(c);
			continue;
		}
		answers_init(&a);
		fill_give_up(c, now, &wake_ns, &a);   /* first: who waits may still be served by another request */
		expire_waiters(c, now, &wake_ns, &a);
		expire_starved(c, now, &wake_ns, &a);
		request_write_off(c, now, &wake_ns);
		hedge = request_hedge(c, now, &wake_ns, &a);
		has_more = memory_settle(c, &a);
		if (x)
			list_remove(&x->queue);
		if (x || has_more || hedge || a.has_lost || !list_is_empty(&a.reads) || !list_is_empty(&a.wants) || !list_is_empty(&a.start)) {
			bool fails = x && c->is_closing;

			lock_release(&c->lock);
			if (hedge)
				origin_submit(c->origin, hedge);
			if (x && fails)
				fill_end(x, -EIO, 0);
			else if (x)
				request_start(x);
			answers_give(c, &a);
			lock_acquire(&c->lock);
			continue;
		}
		c->timer_ns = wake_ns;
		if (wake_ns != UINT64_MAX)
			lock_wait_until(&c->lock, &c->timer_wake, wake_ns);
		else
			lock_wait(&c->lock, &c->timer_wake);
	}
	lock_release(&c->lock);
	return NULL;
}

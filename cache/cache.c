/* SPDX-License-Identifier: Apache-2.0 */
/* The cache's public face: reads and wants find or make their extents here; fill.c does the rest. */
#include "cache/cache.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cache/cgroup.h"
#include "cache/dirs.h"
#include "cache/extent.h"
#include "cache/origin/health.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/stats.h"
#include "lib/strbuf.h"

enum {
	RANK_CACHE = 30,
	STORE_THREADS = 4,
	WANT_TRIES = 4,          /* evictions for the room that a prefetch needs */
};

_Static_assert(sizeof(struct read_state) <= sizeof(((struct cache_read *)0)->priv), "read state fits");
_Static_assert(sizeof(struct want_state) <= sizeof(((struct cache_want *)0)->priv), "want state fits");

/* ---- reading ---- */

/* Should what is missing here be fetched as a piece? Lock held. */
static bool wants_piece(struct cache *c, uint64_t ino, uint64_t key, const struct ns_attr *attr)
{
	return map64_get(&c->patterns, ino) && disk_room_most(c->disk) < EXTENT_BYTES &&
	       !disk_has(c->disk, key, version_hash(&attr->version));
}

/* A new piece for the part: what its reader will ask for next is fetched at once. Lock held. NULL without memory. */
static struct extent *part_piece(struct cache *c, struct part *p, uint64_t start)
{
	enum { PAGE = 4096 };
	const struct ns_attr *attr = &p->read->attr;
	const struct cache_pattern *r = map64_get(&c->patterns, attr->ino);
	uint64_t extent = start / EXTENT_BYTES * EXTENT_BYTES, from = start, to = start + p->len;

	if (r->record_len && (int64_t)start >= r->base) {
		int64_t at = r->base + (int64_t)((uint64_t)((int64_t)start - r->base) / r->stride * r->stride);
		uint64_t begin = at < 0 ? 0 : (uint64_t)at / PAGE * PAGE;

		from = begin < from ? begin : from;
		to = begin + r->record_len > to ? begin + r->record_len : to;
	}
	from = from < extent ? extent : from;
	to = to > extent + EXTENT_BYTES ? extent + EXTENT_BYTES : to;
	to = to > attr->version.size ? attr->version.size : to;
	p->offset = (uint32_t)(start - from);
	return extent_new_piece(c, attr, from, (uint32_t)(to - from));
}

/*
 * The extent or piece with all of the part's bytes, made if need be. Sets the part's
 * offset within it. Lock held. NULL without memory.
 */
static struct extent *part_extent(struct cache *c, struct part *p, uint64_t start, bool *ret_is_new)
{
	const struct ns_attr *attr = &p->read->attr;
	uint64_t key = extent_key(attr->ino, (uint32_t)(start / EXTENT_BYTES));
	struct extent *x = map64_get(&c->extents, key);

	*ret_is_new = false;
	p->offset = (uint32_t)(start % EXTENT_BYTES);
	if (x)
		return x;
	x = piece_find(&c->pieces, attr->ino, start, p->len);
	if (x && version_hash(&x->attr.version) == version_hash(&attr->version)) {
		p->offset = (uint32_t)(start - x->start);
		return x;
	}
	*ret_is_new = true;
	x = wants_piece(c, attr->ino, key, attr) ? part_piece(c, p, start) : extent_new(c, key, attr);
	if (x) {
		x->place = (int8_t)p->read->place;
		x->home = (uint8_t)ram_home(&c->ram, p->read->place);
	}
	return x;
}

static void count_hit(struct cache *c, const struct extent *x, int place)
{
	stats_inc(c->stats, STAT_READS_HIT_RAM);
	if (c->ram.arena[x->home].node < 0)
		return;
	if (place == x->home)
		c->hits[x->home].local++;
	else
		c->hits[x->home].remote++;
}

/* Attach one part to its extent. Called with the lock held. */
static void part_attach(struct cache *c, struct part *p, uint64_t start, struct answers *a)
{
	struct cache_read *r = p->read;
	bool is_new;
	struct extent *x = part_extent(c, p, start, &is_new);

	if (!x) {
		fill_part_done(p, -ENOMEM, a);
		return;
	}
	p->extent = x;
	if (x->state == EXTENT_READY || p->offset + p->len <= x->valid) {
		count_hit(c, x, r->place);
		if (x->state == EXTENT_READY && !x->refs) {
			c->busy++;
			list_remove(&x->lru);
		}
		fill_part_done(p, 0, a);
		return;
	}
	r->has_waited = true;
	x->deadline_ns = clock_ns() + c->timeout_ns;
	if (!is_new) {
		stats_inc(c->stats, STAT_READS_JOINED);
		if (list_is_empty(&x->waiters) && x->is_from_origin)
			c->demand_in_flight++;
		list_for_each(n, &x->wants)
			container_of(n, struct want_state, link)->want->was_demanded = true;
	}
	list_push_back(&x->waiters, &p->link);
	if (is_new)
		fill_try_memory(c, x, true, a);
	if (x->request || x->state == EXTENT_WAITING_MEMORY)   /* a disk is not timed */
		request_watch(c, x);
}

void cache_read(struct cache *c, struct cache_read *r)
{
	struct read_state *s = (struct read_state *)r->priv;
	uint64_t size = r->attr.version.size, offset = r->offset;
	struct answers a;

	assert(r->len <= EXTENT_BYTES);
	if (offset >= size || !r->len) {
		r->done(r, 0);
		return;
	}
	if (r->len > size - offset)
		r->len = size - offset;
	for (size_t left = r->len; left; s->part_count++) {
		struct part *p = &s->part[s->part_count];

		size_t in_extent = EXTENT_BYTES - offset % EXTENT_BYTES;

		p->read = r;
		p->len = (uint32_t)(left < in_extent ? left : in_extent);
		offset += p->len;
		left -= p->len;
	}
	s->pending = s->part_count;
	answers_init(&a);
	lock_acquire(&c->lock);
	memory_used(c);
	offset = r->offset;
	for (int i = 0; i < s->part_count; offset += s->part[i++].len)
		part_attach(c, &s->part[i], offset, &a);
	lock_release(&c->lock);
	answers_give(c, &a);
}

void cache_read_end(struct cache *c, struct cache_read *r)
{
	struct read_state *s = (struct read_state *)r->priv;
	struct answers a;

	if (!s->part_count)
		return;
	answers_init(&a);
	lock_acquire(&c->lock);
	for (int i = 0; i < s->part_count; i++)
		extent_unref(c, s->part[i].extent);
	fill_feed_starved(c, &a);
	lock_release(&c->lock);
	answers_give(c, &a);
}

/* ---- wanting ---- */

static void want_done(struct cache_want *w, int err)
{
	w->done(w, err, 0);
}

/* Join or find it there. Called with the lock held. Returns whether the want is settled; *ret_ready if done. */
static bool want_join(struct cache *c, struct cache_want *w, bool *ret_ready)
{
	struct extent *x = map64_get(&c->extents, w->key);
	struct want_state *s = (struct want_state *)w->priv;

	if (!x && w->piece_len)
		x = piece_find(&c->pieces, extent_key_ino(w->key), w->piece_start, w->piece_len);
	*ret_ready = x && x->state == EXTENT_READY;
	if (!x || *ret_ready)
		return x != NULL;
	if (!list_is_empty(&x->waiters))
		w->was_demanded = true;
	s->has_joined = true;
	list_push_back(&x->wants, &s->link);
	return true;
}

/* The extent or piece that is wanted, with memory and its fill queued in @a; NULL without. Lock held. */
static struct extent *want_extent(struct cache *c, const struct cache_want *w, const struct ns_attr *attr, struct answers *a)
{
	struct extent *x;

	if (c->is_closing)
		return NULL;
	x = w->piece_len ? extent_new_piece(c, attr, w->piece_start, w->piece_len) : extent_new(c, w->key, attr);
	if (!x)
		return NULL;
	x->is_staged = true;
	x->place = (int8_t)w->place;
	x->home = (uint8_t)ram_home(&c->ram, w->place);
	fill_try_memory(c, x, false, a);
	if (x->state != EXTENT_WAITING_MEMORY)
		return x;
	extent_forget(c, x);   /* a prefetch does not queue for memory */
	return NULL;
}

/* A new fill for @w, with @room on disk or in memory alone. Lock held. Returns 0, -ENOSPC or -EAGAIN. */
static int want_start(struct cache *c, struct cache_want *w, const struct ns_attr *attr, struct disk_room room, struct answers *a)
{
	struct want_state *s = (struct want_state *)w->priv;
	struct extent *x;

	if (!room.bytes && c->ram_only_bytes >= ram_limit_bytes(&c->ram) / 2)
		return -ENOSPC;
	x = want_extent(c, w, attr, a);
	if (!x)
		return room.bytes ? -EAGAIN : -ENOSPC;
	x->room = room;
	x->is_ram_only = !room.bytes;
	c->ram_only_bytes += room.bytes ? 0 : x->len;
	list_push_back(&x->wants, &s->link);
	return 0;
}

/* What is on disk is read into memory for @w. Lock held. Returns 0 or -EAGAIN. */
static int want_lift(struct cache *c, struct cache_want *w, const struct ns_attr *attr, struct answers *a)
{
	struct want_state *s = (struct want_state *)w->priv;
	struct extent *x = want_extent(c, w, attr, a);

	if (!x)
		return -EAGAIN;
	list_push_back(&x->wants, &s->link);
	return 0;
}

void cache_want(struct cache *c, struct cache_want *w)
{
	struct want_state *s = (struct want_state *)w->priv;
	struct ns_attr attr;
	struct disk_room room = { .bytes = 0 };
	struct answers a;
	bool is_ready, is_settled, is_on_disk;
	int rc = ns_getattr(c->ns, extent_key_ino(w->key), NS_NOCHECK | NS_NOWAIT, &attr);

	*s = (struct want_state){ .want = w };
	answers_init(&a);
	if (!rc && (!extent_len(&attr, extent_key_no(w->key)) || w->piece_start + w->piece_len > attr.version.size))
		rc = -ENOENT;
	is_on_disk = !rc && disk_has(c->disk, w->key, version_hash(&attr.version));
	if (rc || (is_on_disk && !w->is_for_memory)) {
		want_done(w, rc);
		return;
	}
	if (!w->piece_len && !w->is_for_memory)
		room = evict_room(c->evict, w->key, attr.version.size, extent_len(&attr, extent_key_no(w->key)), w->place, WANT_TRIES);
	lock_acquire(&c->lock);
	is_settled = want_join(c, w, &is_ready);
	if (!is_settled && w->is_for_memory)
		rc = is_on_disk ? want_lift(c, w, &attr, &a) : -ENOENT;
	else if (!is_settled)
		rc = want_start(c, w, &attr, room, &a);
	lock_release(&c->lock);
	if (is_settled || rc)
		disk_unreserve(c->disk, room);
	if (rc || (is_settled && is_ready))
		want_done(w, rc);
	answers_give(c, &a);
}

/* ---- lending to the page cache ---- */

int cache_lend(struct cache *c, const struct ns_attr *attr, uint32_t extent, struct cache_loan *ret_loan)
{
	struct extent *x;

	lock_scope(&c->lock);
	x = map64_get(&c->extents, extent_key(attr->ino, extent));
	if (!x || x->state != EXTENT_READY || c->is_closing)
		return -ENOENT;
	if (!x->refs++) {
		c->busy++;
		list_remove(&x->lru);
	}
	*ret_loan = (struct cache_loan){ x->buf, x->len, x };
	return 0;
}

void cache_lend_end(struct cache *c, const struct cache_loan *loan, bool page_cache_has_it)
{
	struct extent *x = loan->priv;
	struct answers a;

	answers_init(&a);
	lock_acquire(&c->lock);
	if (page_cache_has_it) {
		x->is_handed_over = x->is_served = true;
		x->is_staged = false;
		extent_clear_ram_only(c, x);
	}
	extent_unref(c, x);
	fill_feed_starved(c, &a);
	lock_release(&c->lock);
	answers_give(c, &a);
}

void cache_set_pattern(struct cache *c, uint64_t ino, const struct cache_pattern *pattern)
{
	struct cache_pattern *copy = NULL;

	lock_scope(&c->lock);
	free(map64_remove(&c->patterns, ino));
	if (pattern->how != PATTERN_SEQUENTIAL)
		copy = malloc(sizeof(*copy));
	if (copy)
		*copy = *pattern;
	if (copy && map64_put(&c->patterns, ino, copy))
		free(copy);   /* without memory: misses stay whole */
}

enum access_pattern cache_pattern(struct cache *c, uint64_t ino)
{
	const struct cache_pattern *pattern;

	lock_scope(&c->lock);
	pattern = map64_get(&c->patterns, ino);
	return pattern ? pattern->how : PATTERN_SEQUENTIAL;
}

struct release {
	struct cache *c;
	uint64_t start, end;
};

static void release_piece(void *arg, struct extent *x)
{
	const struct release *r = arg;
	struct cache *c = r->c;

	if (x->start < r->start || x->start + x->len > r->end)
		return;   /* a neighbour's, whose range overlaps */
	x->is_staged = false;
	x->is_served = true;
	extent_clear_ram_only(c, x);
	if (!x->refs)
		extent_idle(c, x);
}

void cache_release_pieces(struct cache *c, uint64_t ino, uint64_t start, uint64_t end)
{
	struct release r = { c, start, end };

	lock_scope(&c->lock);
	piece_each(&c->pieces, ino, start, end, release_piece, &r);
}

/* ---- pins ---- */

void cache_pin(struct cache *c, const struct ns_attr *attr)
{
	struct pin *p;

	lock_scope(&c->lock);
	p = map64_get(&c->pins, attr->ino);
	if (!p) {
		p = calloc(1, sizeof(*p));
		if (!p || map64_put(&c->pins, attr->ino, p)) {
			free(p);   /* unpinned is slower, not wrong */
			return;
		}
	}
	p->count++;
}

void cache_unpin(struct cache *c, uint64_t ino)
{
	struct pin *p;

	lock_scope(&c->lock);
	p = map64_get(&c->pins, ino);
	if (!p || --p->count)
		return;
	map64_remove(&c->pins, ino);
	free(p);
}

int cache_whole_fd(struct cache *c, const struct ns_attr *attr, bool may_block, int *ret_fd)
{
	int rc;

	if (attr->version.size <= DISK_WHOLE_MIN)
		return -ENOENT;
	rc = disk_whole_open(c->disk, attr->ino, version_hash(&attr->version), attr->version.size, may_block, ret_fd);
	/* its reads will not be seen: this is the one use eviction can know of */
	for (uint32_t no = 0; !rc && extent_len(attr, no); no++)
		evict_hit(c->evict, extent_key(attr->ino, no));
	return rc;
}

void cache_whole_end(struct cache *c, uint64_t ino)
{
	disk_whole_close(c->disk, ino);
}

void cache_prefer_whole(struct cache *c)
{
	disk_prefer_whole(c->disk);
}

static bool is_pinned(void *arg, uint64_t key)
{
	struct cache *c = arg;
	struct extent *x;

	lock_scope(&c->lock);
	x = map64_get(&c->extents, key);
	return (x && x->refs) || map64_get(&c->pins, extent_key_ino(key));
}

/* Evicted from disk: also from memory, if it idles there, or it would only look resident. */
static void has_left(void *arg, uint64_t key, bool was_unread)
{
	struct cache *c = arg;
	const struct cache_advisor *advisor;
	struct extent *x;

	lock_acquire(&c->lock);
	x = map64_get(&c->extents, key);
	if (x && x->state == EXTENT_READY) {
		x->is_on_disk = false;
		if (!x->refs) {
			map64_remove(&c->extents, key);
			extent_free(c, x);
		}
	}
	advisor = c->advisor;
	lock_release(&c->lock);
	if (advisor)
		advisor->evicted(advisor->arg, key, was_unread);
}

static void evict_excess(struct cache *c, unsigned dir)
{
	uint64_t excess;

	while ((excess = disk_excess(c->disk, dir)) && evict_some(c->evict, dir, excess, disk_is_over(c->disk, dir)))
		;
}

static void *evictor_thread(void *arg)
{
	struct cache *c = arg;

	pthread_setname_np(pthread_self(), "evictor");
	lock_acquire(&c->lock);
	while (!c->is_closing) {
		if (!c->wants_eviction) {
			lock_wait(&c->lock, &c->evictor_wake);
			continue;
		}
		c->wants_eviction = false;
		lock_release(&c->lock);
		for (unsigned dir = 0; dir < disk_dirs(c->disk); dir++)
			evict_excess(c, dir);
		lock_acquire(&c->lock);
	}
	lock_release(&c->lock);
	return NULL;
}

/* ---- questions and advice ---- */

struct ns *cache_ns(struct cache *c)
{
	return c->ns;
}

struct origin *cache_origin(struct cache *c)
{
	return c->origin;
}

unsigned cache_where(struct cache *c, const struct ns_attr *attr, uint32_t extent)
{
	uint64_t key = extent_key(attr->ino, extent);
	unsigned where = disk_has(c->disk, key, version_hash(&attr->version)) ? CACHE_TIER_DISK : 0;
	struct extent *x;

	lock_scope(&c->lock);
	x = map64_get(&c->extents, key);
	if (x && x->state == EXTENT_READY)
		where |= CACHE_TIER_RAM;
	return where;
}

void cache_residency(struct cache *c, const struct ns_attr *attr, uint64_t *ret_ram, uint64_t *ret_disk)
{
	*ret_ram = *ret_disk = 0;
	for (uint32_t no = 0; extent_len(attr, no); no++) {
		unsigned where = cache_where(c, attr, no);

		*ret_ram += where & CACHE_TIER_RAM ? extent_len(attr, no) : 0;
		*ret_disk += where & CACHE_TIER_DISK ? extent_len(attr, no) : 0;
	}
}

int cache_node(struct cache *c, const struct ns_attr *attr)
{
	uint64_t bytes[TOPOLOGY_NODES_MAX] = { 0 }, most = 0;
	int node, best = -1;

	for (uint32_t no = 0; extent_len(attr, no); no++) {
		struct extent *x;
		unsigned home = 0;
		char *buf = NULL;

		lock_acquire(&c->lock);
		x = map64_get(&c->extents, extent_key(attr->ino, no));
		if (x && x->state == EXTENT_READY) {
			buf = x->buf;
			home = x->home;
		}
		lock_release(&c->lock);
		/* it may be given up meanwhile, but an arena's pages can always be asked about */
		node = buf ? ram_node_of(&c->ram, home, buf) : -1;
		if (node < 0 || node >= TOPOLOGY_NODES_MAX)
			continue;
		bytes[node] += extent_len(attr, no);
		if (bytes[node] > most) {
			most = bytes[node];
			best = node;
		}
	}
	return best;
}

void cache_drop(struct cache *c, uint64_t ino)
{
	struct ns_attr attr;

	if (ns_getattr(c->ns, ino, NS_NOCHECK | NS_NOWAIT, &attr))
		return;
	for (uint32_t no = 0; extent_len(&attr, no); no++) {
		uint64_t key = extent_key(ino, no);

		if (!is_pinned(c, key) && disk_drop_all(c->disk, key))
			has_left(c, key, false);
	}
}

void cache_set_advisor(struct cache *c, const struct cache_advisor *advisor)
{
	lock_acquire(&c->lock);
	c->advisor = advisor;
	lock_release(&c->lock);
	evict_set_advisor(c->evict, advisor);
}

void cache_consumed(struct cache *c, uint64_t ino, uint32_t from, uint32_t to)
{
	for (uint32_t no = from; no < to; no++)
		evict_consumed(c->evict, extent_key(ino, no));
}

int cache_note_get(struct cache *c, const char *name, void **ret_data, size_t *ret_len)
{
	return store_meta_dup(c->store, name, ret_data, ret_len);
}

int cache_note_put(struct cache *c, const char *name, const void *data, size_t len)
{
	return store_meta_put(c->store, name, data, len);
}

void cache_flow(struct cache *c, struct cache_flow *ret_flow)
{
	uint64_t consumed = evict_consumed_count(c->evict), room = disk_room(c->disk), limit = disk_limit(c->disk);
	bool is_down = health_state(c->origin->health, clock_ns()) == HEALTH_DOWN;

	lock_scope(&c->lock);
	*ret_flow = (struct cache_flow){
		.in_flight = c->origin_in_flight,
		.demand_in_flight = c->demand_in_flight + c->hedges + c->hedges_waiting,
		.done = c->requests_done, .bytes = c->request_bytes, .hedged_bytes = c->hedged_bytes,
		.ram_free_bytes = ram_free_bytes(&c->ram),
		.ram_limit_bytes = ram_limit_bytes(&c->ram),
		.disk_room_bytes = room + consumed * 4096,
		.limit_bytes = limit,
		.origin_is_down = is_down,
	};
}

void cache_set_parallel(struct cache *c, unsigned parallel)
{
	lock_scope(&c->lock);
	c->parallel = parallel;
	if (c->hedges_waiting)
		pthread_cond_signal(&c->timer_wake);
}

uint64_t cache_memory_spare(void)
{
	uint64_t bytes = ram_auto_bytes(), allowed = cgroup_memory_bytes(NULL) / 2;

	return bytes < allowed ? bytes : allowed;
}

static void publish_nodes(struct cache *c)
{
	struct strbuf b = STRBUF_INIT;
	char *text;

	lock_acquire(&c->lock);
	for (unsigned i = 0; i < c->ram.count; i++) {
		const struct arena *a = &c->ram.arena[i];

		strbuf_addf(&b, "%s{\"node\": %d, \"bytes\": %llu, \"limit_bytes\": %llu, \"local_hits\": %llu, \"remote_hits\": %llu}",
			    i ? ", " : "[", a->node, (unsigned long long)arena_used_bytes(a), (unsigned long long)arena_limit_bytes(a),
			    (unsigned long long)c->hits[i].local, (unsigned long long)c->hits[i].remote);
	}
	lock_release(&c->lock);
	strbuf_add(&b, "]");
	text = strbuf_steal(&b);
	if (text)
		stats_set_text(c->stats, STAT_RAM_NODES, text);
	free(text);
}

void cache_publish(struct cache *c)
{
	uint64_t used, limit, hedge_ns;
	unsigned in_flight, hung;
	uint64_t spare;

	lock_acquire(&c->lock);
	used = ram_used_bytes(&c->ram);
	limit = ram_limit_bytes(&c->ram);
	in_flight = c->origin_in_flight;
	hedge_ns = hedge_after_ns(&c->hedge);
	hung = c->hung;
	spare = c->spare_bytes;
	lock_release(&c->lock);
	stats_set(c->stats, STAT_RAM_BYTES, used);
	stats_set(c->stats, STAT_RAM_LIMIT_BYTES, limit);
	stats_set(c->stats, STAT_ORIGIN_IN_FLIGHT, in_flight);
	stats_set(c->stats, STAT_ORIGIN_HEDGE_AFTER_US, hedge_ns == UINT64_MAX ? 0 : hedge_ns / NSEC_PER_USEC);
	stats_set_text(c->stats, STAT_ORIGIN_KIND, c->origin->ops->kind);
	stats_set(c->stats, STAT_ORIGIN_HUNG, hung);
	stats_set(c->stats, STAT_ORIGIN_SPARE_BYTES, spare);
	stats_set_text(c->stats, STAT_ORIGIN_STATE, health_name(health_state(c->origin->health, clock_ns())));
	stats_set(c->stats, STAT_ORIGIN_LATENCY_P50_US, hist_percentile(&c->latency, 50));
	stats_set(c->stats, STAT_ORIGIN_LATENCY_P99_US, hist_percentile(&c->latency, 99));
	stats_set(c->stats, STAT_NAMESPACE_INODES, ns_inodes(c->ns));
	publish_nodes(c);
	disk_publish(c->disk);
}

/* ---- life ---- */

static int left_with_dir(void *arg, uint64_t key, uint64_t version, uint32_t bytes)
{
	struct cache *c = arg;

	(void)version;
	(void)bytes;
	if (!disk_holds(c->disk, key))
		has_left(c, key, false);
	return 0;
}

/* The namespace leaves it, and the books are told of what was there. */
static void dir_lost(void *arg, unsigned dir)
{
	struct cache *c = arg;

	dirs_lost(c->dirs, dir);
	disk_walk(c->disk, dir, 0, left_with_dir, c);
}

static int open_disk(struct cache *c, const struct cache_config *cfg, char *msg, size_t msg_size)
{
	struct disk_config disk = { .codec = cfg->codec, .verify_all = cfg->verify_all, .lost = dir_lost, .arg = c };

	disk.dir_count = dirs_list(c->dirs, &disk.dirs);
	return disk_open(&disk, c->stats, &c->disk, msg, msg_size);
}

/* Is an origin that was down there again? Its health takes the answer; nobody else waits for it. */
static void probe_run(struct work *w)
{
	struct cache *c = container_of(w, struct cache, probe);
	struct origin_attr attr;

	if (!origin_stat(c->origin, "", &attr))
		origin_attr_clear(&attr);
	health_probed(c->origin->health, clock_ns());
}

static void probe_submit(void *arg)
{
	struct cache *c = arg;

	c->probe.run = probe_run;
	pool_submit(c->pool, &c->probe);
}

static int start_threads(struct cache *c)
{
	int rc = pool_new("store", STORE_THREADS, &c->pool);

	c->wants_eviction = true;   /* size= may be less than it was last time */
	if (!rc)
		rc = -pthread_create(&c->timer, NULL, fill_timer_thread, c);
	if (!rc)
		rc = -pthread_create(&c->evictor, NULL, evictor_thread, c);
	if (!rc)
		health_set_probe(c->origin->health, probe_submit, c);
	return rc;
}

static int cache_start(struct cache *c, const struct cache_config *cfg, char *msg, size_t msg_size)
{
	struct evict_config evict = { .stats = c->stats, .is_pinned = is_pinned, .has_left = has_left, .arg = c };
	struct ns_config ns = cfg->ns;
	int rc = dirs_open(cfg, &c->dirs, msg, msg_size);

	if (!rc) {
		c->store = dirs_home(c->dirs);
		ns.ids_from = dirs_ids_from(c->dirs);
		rc = ns_open(c->store, c->origin, &ns, c->stats, &c->ns);
	}
	if (!rc)
		rc = open_disk(c, cfg, msg, msg_size);
	evict.disk = c->disk;
	if (!rc)
		rc = evict_new(&evict, &c->evict);
	if (!rc)
		rc = memory_open(c, cfg->ram_bytes, cfg->topology);
	if (!rc)
		rc = start_threads(c);
	return rc;
}

static void cache_release(struct cache *c)
{
	struct extent *x;
	size_t pos = 0;

	pool_free(c->pool);
	while ((x = map64_next(&c->extents, &pos, NULL))) {
		free(x);
	}
	while ((x = piece_any(&c->pieces))) {
		piece_remove(&c->pieces, x);
		free(x);
	}
	pieces_clear(&c->pieces);
	pos = 0;
	for (struct cache_pattern *r; (r = map64_next(&c->patterns, &pos, NULL));)
		free(r);
	map64_clear(&c->patterns);
	pos = 0;
	for (struct pin *p; (p = map64_next(&c->pins, &pos, NULL));)
		free(p);
	map64_clear(&c->extents);
	map64_clear(&c->pins);
	disk_close(c->disk);
	evict_free(c->evict);
	ns_close(c->ns);
	dirs_close(c->dirs);
	ram_close(&c->ram);
	free(c->lost);
	lock_destroy(&c->lock);
	free(c);
}

int cache_open(const struct cache_config *cfg, struct origin *origin, struct stats *stats,
	       struct cache **ret_cache, char *msg, size_t msg_size)
{
	struct cache *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	*msg = 0;
	c->origin = origin;
	c->stats = stats;
	c->timeout_ns = cfg->timeout_ns;
	c->cgroup_root = cfg->cgroup_root;
	hedge_init(&c->hedge, cfg->hedge);
	lock_init(&c->lock, "cache", RANK_CACHE);
	lock_cond_init(&c->timer_wake);
	lock_cond_init(&c->evictor_wake);
	lock_cond_init(&c->idle);
	for (unsigned i = 0; i < TOPOLOGY_PLACES_MAX; i++) {
		list_init(&c->cold[i]);
		list_init(&c->warm[i]);
	}
	list_init(&c->losers);
	list_init(&c->moving);
	list_init(&c->starved);
	list_init(&c->filling);
	list_init(&c->retrying);
	rc = cache_start(c, cfg, msg, msg_size);
	if (rc) {
		if (!*msg)
			snprintf(msg, msg_size, "cache %s: %s", cfg->dirs[0], strerror(-rc));
		cache_release(c);
		return rc;
	}
	*ret_cache = c;
	return 0;
}

void cache_close(struct cache *c)
{
	lock_acquire(&c->lock);
	c->is_closing = true;
	pthread_cond_broadcast(&c->timer_wake);
	pthread_cond_broadcast(&c->evictor_wake);
	while (c->busy)
		lock_wait(&c->lock, &c->idle);
	pthread_cond_broadcast(&c->timer_wake);
	lock_release(&c->lock);
	pthread_join(c->timer, NULL);
	pthread_join(c->evictor, NULL);
	cache_release(c);
}

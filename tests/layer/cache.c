/* SPDX-License-Identifier: Apache-2.0 */
/* The whole cache over the fault origin; the letters are extent.h's guarantees. */
#include "cache/cache.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lib/clock.h"
#include "lib/stats.h"
#include "lib/topology.h"
#include "tests/layer/layer.h"
#include "tests/layer/one.h"
#include "tests/unit/test.h"

enum { BIG = 3 * EXTENT_BYTES + 12345, FILES = 40, SMALL = 100000 };

struct fixture {
	struct stats *stats;
	struct origin *origin;
	struct cache *cache;
};

/* What the next start() takes the machine for. */
static const struct topology *machine;

static void start(struct fixture *f, const char *prefix, uint64_t size, uint64_t ram, uint64_t timeout_ns)
{
	const char *dir = scratch_path("c");
	struct cache_config cfg = { .dirs = &dir, .dir_count = 1, .identity = "test", .size_bytes = size, .ram_bytes = ram,
				    .timeout_ns = timeout_ns, .topology = machine, .codec = DISK_CODEC_OFF,
				    .ns = { .meta_ttl_ns = 3600 * NSEC_PER_SEC, .check_data_on_open = true } };
	char spec[8192], msg[256] = "";

	snprintf(spec, sizeof(spec), "%s%s", prefix, scratch_path("o"));
	assert_int_equal(stats_new(&f->stats), 0);
	assert_int_equal(origin_open(spec, f->stats, &f->origin, msg, sizeof(msg)), 0);
	if (cache_open(&cfg, f->origin, f->stats, &f->cache, msg, sizeof(msg)))
		fail_msg("%s", msg);
}

static void stop(struct fixture *f)
{
	cache_close(f->cache);
	origin_close(f->origin);
	stats_free(f->stats);
}

static int set_up(void **state)
{
	char name[64];

	scratch_make();
	file_make("o/big", BIG, 1);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "o/f%02u", i);
		file_make(name, SMALL, i);
	}
	*state = calloc(1, sizeof(struct fixture));
	return 0;
}

static int tear_down(void **state)
{
	free(*state);
	scratch_remove();
	return 0;
}

/* (A): a hundred readers of one extent cost one request; all get the bytes. */
static void one_fill_for_all_readers(void **state)
{
	static struct one o[100];
	struct fixture *f = *state;
	struct waiter w = WAITER_INIT;

	start(f, "fault:read=20ms:", 0, 64 << 20, 60 * NSEC_PER_SEC);
	for (unsigned i = 0; i < 100; i++)
		one_submit(f->cache, &o[i], "f07", 7, i * 1000, 1000, &w);
	assert_int_equal(waiter_wait(&w, 100), 0);
	for (unsigned i = 0; i < 100; i++)
		assert_true(o[i].is_right);
	assert_int_equal(stats_read(f->stats, STAT_ORIGIN_REQUESTS), 1);
	assert_int_equal(stats_read(f->stats, STAT_READS_MISSED), 1);
	assert_int_equal(stats_read(f->stats, STAT_READS_JOINED), 99);
	assert_int_equal(one_read(f->cache, "f07", 7, 0, SMALL), 0);
	assert_int_equal(stats_read(f->stats, STAT_READS_HIT_RAM), 1);
	stop(f);
}

/* Any range, over extent borders and past the end; from the origin, from memory, from disk after a restart. */
static void ranges_are_right_from_every_tier(void **state)
{
	struct fixture *f = *state;
	uint64_t random = 11;

	for (int round = 0; round < 2; round++) {
		start(f, "", 0, 8 << 20, 60 * NSEC_PER_SEC);
		for (int i = 0; i < 300; i++) {
			uint64_t offset = test_random(&random) % (BIG + 1000);
			size_t len = 1 + test_random(&random) % EXTENT_BYTES;

			assert_int_equal(one_read(f->cache, "big", 1, offset, len), 0);
		}
		if (round) {
			assert_int_equal(stats_read(f->stats, STAT_ORIGIN_REQUESTS), 0);
			assert_true(stats_read(f->stats, STAT_READS_HIT_DISK) > 0);
		}
		stop(f);
	}
}

/* (D): an origin that fails is asked again while the reader has time; then the reader gets the error, once. */
static void errors_are_retried_then_told(void **state)
{
	struct fixture *f = *state;

	start(f, "fault:error=2:", 0, 8 << 20, 60 * NSEC_PER_SEC);
	for (unsigned i = 0; i < 6; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%02u", i);
		assert_int_equal(one_read(f->cache, name, i, 0, SMALL), 0);
	}
	assert_true(stats_read(f->stats, STAT_ORIGIN_RETRIES) >= 2);
	stop(f);
	start(f, "fault:error=1:", 0, 8 << 20, 200 * NSEC_PER_MSEC);
	assert_int_equal(one_read(f->cache, "f30", 30, 0, SMALL), -EIO);
	stop(f);
}

static void a_hanging_origin_costs_the_timeout(void **state)
{
	struct fixture *f = *state;
	uint64_t began;

	start(f, "fault:hang=2:", 0, 8 << 20, 300 * NSEC_PER_MSEC);
	assert_int_equal(one_read(f->cache, "f01", 1, 0, SMALL), 0);
	began = clock_ns();
	assert_int_equal(one_read(f->cache, "f02", 2, 0, SMALL), -EIO);
	assert_in_range(clock_ns() - began, 200 * NSEC_PER_MSEC, 10 * NSEC_PER_SEC);
	assert_int_equal(one_read(f->cache, "f01", 1, 0, SMALL), 0);   /* what is cached keeps serving */
	origin_close(f->origin);   /* ends what hangs, as the mount's end does */
	cache_close(f->cache);
	stats_free(f->stats);
}

static void a_changed_file_is_stale_not_mixed(void **state)
{
	struct fixture *f = *state;
	struct waiter w = WAITER_INIT;
	struct one o;

	start(f, "", 0, 8 << 20, NSEC_PER_SEC);
	one_submit(f->cache, &o, "big", 1, 0, 1000, &w);
	assert_int_equal(waiter_wait(&w, 1), 0);
	while (!(cache_where(f->cache, &o.read.attr, 0) & CACHE_TIER_RAM))
		usleep(1000);   /* the fill goes on behind the answer */
	file_make("o/big", BIG, 2);
	/* whoever has it open keeps the version that was opened: bytes of it, or an error */
	o.read = (struct cache_read){ .attr = o.read.attr, .offset = 2 * EXTENT_BYTES, .len = 1000, .done = one_done, .arg = &o };
	cache_read(f->cache, &o.read);
	assert_int_equal(waiter_wait(&w, 2), -ESTALE);
	o.read = (struct cache_read){ .attr = o.read.attr, .offset = 5, .len = 1000, .done = one_done, .arg = &o };
	cache_read(f->cache, &o.read);
	assert_int_equal(waiter_wait(&w, 3), 0);
	assert_true(o.is_right);
	assert_int_equal(one_read(f->cache, "big", 2, 2 * EXTENT_BYTES, 1000), 0);
	stop(f);
}

/* (E): readers of more than the arena holds wait for each other, and all end. */
static void memory_is_a_hard_limit(void **state)
{
	static struct one o[FILES * 4];
	struct fixture *f = *state;
	struct waiter w = WAITER_INIT;
	char name[16];

	start(f, "fault:read=2ms:", 0, 1 << 20, 60 * NSEC_PER_SEC);
	for (unsigned i = 0; i < FILES * 4; i++) {
		snprintf(name, sizeof(name), "f%02u", i % FILES);
		one_submit(f->cache, &o[i], name, i % FILES, 0, SMALL, &w);
	}
	assert_int_equal(waiter_wait(&w, FILES * 4), 0);
	for (unsigned i = 0; i < FILES * 4; i++)
		assert_true(o[i].is_right);
	cache_publish(f->cache);
	assert_true(stats_read(f->stats, STAT_RAM_BYTES) <= 1 << 20);
	stop(f);
}

struct wanted {
	struct cache_want want;
	struct waiter *waiter;
	uint64_t bytes;
	int err;
};

static void want_done(struct cache_want *w, int err, uint64_t bytes)
{
	struct wanted *x = w->arg;

	x->bytes = bytes;
	x->err = err;
	waiter_done(x->waiter, err);
}

static void want(struct fixture *f, struct wanted *x, const char *name, struct waiter *w)
{
	struct ns_attr a;

	assert_int_equal(ns_lookup(cache_ns(f->cache), NS_ROOT, name, 0, &a), 0);
	*x = (struct wanted){ .waiter = w };
	x->want = (struct cache_want){ .key = extent_key(a.ino, 0), .done = want_done, .arg = x };
	cache_want(f->cache, &x->want);
}

/* The same, waited for; again while memory is short for the moment. */
static int want_one(struct fixture *f, unsigned i)
{
	struct waiter w = WAITER_INIT;
	struct wanted x;
	char name[16];
	unsigned tries = 0;

	snprintf(name, sizeof(name), "f%02u", i);
	do {
		if (tries)
			usleep(1000);
		want(f, &x, name, &w);
		waiter_wait(&w, ++tries);
	} while (x.err == -EAGAIN && tries < 5000);
	return x.err;
}

/* A want and a reader share one fill; who joined fetched nothing. */
static void wants_join_and_are_joined(void **state)
{
	struct fixture *f = *state;
	struct waiter w = WAITER_INIT, r = WAITER_INIT;
	struct wanted first, second;
	struct one o;

	start(f, "fault:read=20ms:", 0, 8 << 20, 60 * NSEC_PER_SEC);
	want(f, &first, "f03", &w);
	want(f, &second, "f03", &w);
	one_submit(f->cache, &o, "f03", 3, 0, SMALL, &r);
	assert_int_equal(waiter_wait(&w, 2), 0);
	assert_int_equal(waiter_wait(&r, 1), 0);
	assert_true(o.is_right);
	assert_int_equal(first.bytes, SMALL);
	assert_int_equal(second.bytes, 0);
	assert_true(first.want.was_demanded);
	assert_int_equal(stats_read(f->stats, STAT_ORIGIN_REQUESTS), 1);
	want(f, &first, "f03", &w);
	assert_int_equal(waiter_wait(&w, 3), 0);
	assert_int_equal(first.bytes, 0);
	stop(f);
}

/* A prefetch that fails is nobody's error, not even of a reader who comes to it in the moment when it does. */
static void a_failed_prefetch_is_no_readers_error(void **state)
{
	struct fixture *f = *state;

	start(f, "fault:read=1ms,error=2:", 0, 8 << 20, 60 * NSEC_PER_SEC);
	for (unsigned i = 0; i < 400; i++) {
		struct waiter w = WAITER_INIT;
		struct wanted x;
		struct ns_attr a;
		char name[16];

		snprintf(name, sizeof(name), "f%02u", i % FILES);
		assert_int_equal(ns_lookup(cache_ns(f->cache), NS_ROOT, name, 0, &a), 0);
		want(f, &x, name, &w);
		usleep(900 + i);   /* the answer comes in between */
		assert_int_equal(one_read(f->cache, name, i % FILES, 0, SMALL), 0);
		waiter_wait(&w, 1);
		cache_drop(f->cache, a.ino);
	}
	assert_true(stats_read(f->stats, STAT_ORIGIN_ERRORS) > 100);
	stop(f);
}

/* ---- advice ---- */

static _Atomic uint64_t evicted_count;
static _Atomic enum cache_class class_now;

static enum cache_class class_of(void *arg, uint64_t key)
{
	(void)arg;
	(void)key;
	return class_now;
}

static void evicted(void *arg, uint64_t key, bool was_unread)
{
	(void)arg;
	(void)key;
	(void)was_unread;
	atomic_fetch_add(&evicted_count, 1);
}

static void piece_lost(void *arg, uint64_t ino, uint64_t start, bool was_unread)
{
	(void)arg;
	(void)ino;
	(void)start;
	atomic_fetch_add(&evicted_count, was_unread);
}

static void stored(void *arg, uint64_t key, bool is_whole)
{
	(void)arg;
	(void)key;
	assert_true(is_whole);
}

/* What is unread makes no room for a prefetch; what was consumed does. */
static void unread_stays_consumed_goes(void **state)
{
	static const struct cache_advisor advisor = { class_of, evicted, piece_lost, stored, NULL };
	struct fixture *f = *state;
	unsigned held = 0;

	start(f, "", 3 << 20, 1 << 20, 60 * NSEC_PER_SEC);
	class_now = CACHE_UNREAD;
	cache_set_advisor(f->cache, &advisor);
	while (held < FILES && !want_one(f, held))
		held++;
	assert_in_range(held, 20, FILES - 1);
	assert_int_equal(want_one(f, FILES - 1), -ENOSPC);
	assert_int_equal(stats_read(f->stats, STAT_EVICT_UNREAD), 0);
	class_now = CACHE_CONSUMED;
	for (unsigned i = 0; i < held; i++) {
		struct ns_attr a;
		char name[16];

		snprintf(name, sizeof(name), "f%02u", i);
		assert_int_equal(ns_lookup(cache_ns(f->cache), NS_ROOT, name, 0, &a), 0);
		cache_consumed(f->cache, a.ino, 0, 1);
	}
	assert_int_equal(want_one(f, FILES - 1), 0);
	assert_true(stats_read(f->stats, STAT_EVICT_CONSUMED) > 0);
	assert_true(atomic_load(&evicted_count) > 0);
	stop(f);
}

static void want_piece(struct fixture *f, struct wanted *o, uint64_t start, uint32_t len, struct waiter *w)
{
	struct ns_attr attr;

	assert_int_equal(ns_lookup(cache_ns(f->cache), NS_ROOT, "big", 0, &attr), 0);
	*o = (struct wanted){ .waiter = w };
	o->want = (struct cache_want){ .key = extent_key(attr.ino, (uint32_t)(start / EXTENT_BYTES)), .piece_start = start,
				       .piece_len = len, .done = want_done, .arg = o };
	cache_want(f->cache, &o->want);
}

/* The origin delivers what is asked for of a file that is read by records, and no more, once the disk is full. */
static void records_cost_their_own_bytes(void **state)
{
	static const struct cache_advisor advisor = { class_of, evicted, piece_lost, stored, NULL };
	struct fixture *f = *state;
	struct waiter w = WAITER_INIT;
	struct wanted o;
	struct ns_attr attr;
	uint64_t before, ino;

	class_now = CACHE_UNREAD;
	start(f, "", 3 << 20, 16 << 20, 60 * NSEC_PER_SEC);
	cache_set_advisor(f->cache, &advisor);
	for (unsigned i = 0; i < FILES; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%02u", i);
		assert_int_equal(one_read(f->cache, name, i, 0, SMALL), 0);
	}
	assert_int_equal(ns_lookup(cache_ns(f->cache), NS_ROOT, "big", 0, &attr), 0);
	ino = attr.ino;
	cache_set_pattern(f->cache, ino, &(struct cache_pattern){ .how = PATTERN_SHORT });
	before = stats_read(f->stats, STAT_ORIGIN_BYTES);
	assert_int_equal(one_read(f->cache, "big", 1, EXTENT_BYTES + 8192, 5000), 0);
	assert_int_equal(stats_read(f->stats, STAT_ORIGIN_BYTES) - before, 5000);
	assert_int_equal(one_read(f->cache, "big", 1, EXTENT_BYTES + 8192 + 100, 4000), 0);
	assert_int_equal(stats_read(f->stats, STAT_ORIGIN_BYTES) - before, 5000);
	/* a piece that was wanted serves every read within it */
	want_piece(f, &o, 2 * EXTENT_BYTES + 40960, 81920, &w);
	assert_int_equal(waiter_wait(&w, 1), 0);
	assert_int_equal(o.bytes, 81920);
	for (unsigned at = 0; at + 7000 <= 81920; at += 7000)
		assert_int_equal(one_read(f->cache, "big", 1, 2 * EXTENT_BYTES + 40960 + at, 7000), 0);
	assert_int_equal(stats_read(f->stats, STAT_ORIGIN_BYTES) - before, 5000 + 81920);
	/* over a border: each side from where it is */
	want_piece(f, &o, 2 * EXTENT_BYTES - 8192, 8192, &w);
	assert_int_equal(waiter_wait(&w, 2), 0);
	assert_int_equal(one_read(f->cache, "big", 1, 2 * EXTENT_BYTES - 8192, 12288), 0);
	assert_int_equal(stats_read(f->stats, STAT_ORIGIN_BYTES) - before, 5000 + 81920 + 8192 + 4096);
	want_piece(f, &o, BIG - 10, 11, &w);
	assert_int_equal(waiter_wait(&w, 3), -ENOENT);
	cache_release_pieces(f->cache, ino, 0, BIG);
	/* of a mapped file's record the first page that misses brings all */
	cache_set_pattern(f->cache, ino, &(struct cache_pattern){ PATTERN_MAPPED, 102400, 102400, 0 });
	before = stats_read(f->stats, STAT_ORIGIN_BYTES);
	for (unsigned page = 0; page < 25; page++)
		assert_int_equal(one_read(f->cache, "big", 1, 15 * 102400 + page * 4096, 4096), 0);
	assert_int_equal(stats_read(f->stats, STAT_ORIGIN_BYTES) - before, 102400);
	cache_release_pieces(f->cache, ino, 0, BIG);
	before = stats_read(f->stats, STAT_ORIGIN_BYTES);
	/* any more it is not read by records */
	cache_set_pattern(f->cache, ino, &(struct cache_pattern){ .how = PATTERN_SEQUENTIAL });
	assert_int_equal(one_read(f->cache, "big", 1, 100, 100), 0);
	while (stats_read(f->stats, STAT_ORIGIN_BYTES) - before < EXTENT_BYTES)
		usleep(1000);
	cache_set_advisor(f->cache, NULL);
	stop(f);
}

static void read_at(struct fixture *f, unsigned i, int place)
{
	struct waiter w = WAITER_INIT;
	struct one o = { .cache = f->cache, .waiter = &w, .seed = i };
	char name[16];

	snprintf(name, sizeof(name), "f%02u", i);
	assert_int_equal(ns_lookup(cache_ns(f->cache), NS_ROOT, name, 0, &o.read.attr), 0);
	o.read.len = SMALL;
	o.read.place = place;
	o.read.done = one_done;
	o.read.arg = &o;
	cache_read(f->cache, &o.read);
	assert_int_equal(waiter_wait(&w, 1), 0);
	assert_true(o.is_right);
}

/* What the statistics say of arena @i. */
static void arena_is(struct fixture *f, unsigned i, unsigned local, unsigned remote, bool has_bytes)
{
	unsigned long long bytes, limit, l, r;
	char *text;
	const char *at;
	int node;

	cache_publish(f->cache);
	text = stats_text(f->stats, STAT_RAM_NODES);
	at = text;
	for (unsigned n = 0; at && n <= i; n++)
		at = strstr(at + 1, "{\"node\"");
	assert_non_null(at);
	assert_int_equal(sscanf(at, "{\"node\": %d, \"bytes\": %llu, \"limit_bytes\": %llu, \"local_hits\": %llu, \"remote_hits\": %llu",
				&node, &bytes, &limit, &l, &r), 5);
	assert_int_equal(l, local);
	assert_int_equal(r, remote);
	assert_int_equal(bytes > 0, has_bytes);
	assert_true(bytes <= limit);
	free(text);
}

/* Two places, both on the node that every machine has; to be freed after stop(). */
static struct topology *start_at_two_places(struct fixture *f, uint64_t ram)
{
	struct topology *t = topology_new(&(struct topology_source){ 0 }, false);

	t->count = 2;
	for (unsigned i = 0; i < 2; i++)
		t->place[i] = (struct place){ .node = 0, .memory_bytes = 1 << 30 };
	machine = t;
	start(f, "", 0, ram, 60 * NSEC_PER_SEC);
	machine = NULL;
	return t;
}

/* What is read, or wanted for a place, is in its arena. */
static void bytes_are_next_to_their_reader(void **state)
{
	struct fixture *f = *state;
	struct topology *t = start_at_two_places(f, 16 << 20);
	struct waiter w = WAITER_INIT;
	struct wanted x = { .waiter = &w };
	struct ns_attr a;

	read_at(f, 1, 1);
	arena_is(f, 0, 0, 0, false);
	arena_is(f, 1, 0, 0, true);
	read_at(f, 1, 1);
	read_at(f, 1, 1);
	read_at(f, 1, 0);
	read_at(f, 1, -1);   /* from nobody knows where: not local */
	arena_is(f, 0, 0, 0, false);
	arena_is(f, 1, 2, 2, true);
	assert_int_equal(ns_lookup(cache_ns(f->cache), NS_ROOT, "f02", 0, &a), 0);
	x.want = (struct cache_want){ .key = extent_key(a.ino, 0), .place = 0, .done = want_done, .arg = &x };
	cache_want(f->cache, &x.want);
	assert_int_equal(waiter_wait(&w, 1), 0);
	arena_is(f, 0, 0, 0, true);
	read_at(f, 2, 0);
	arena_is(f, 0, 1, 0, true);
	assert_int_equal(cache_node(f->cache, &a), 0);
	stop(f);
	topology_free(t);
}

/* Readers at one place only: the other's memory is theirs too before what they still need is given up. */
static void a_full_arena_uses_the_others(void **state)
{
	struct fixture *f = *state;
	struct topology *t = start_at_two_places(f, 8 << 20);

	/* read in part, so still needed: 3 MiB and 4 MB do not fit into the 4 MiB of place 0 */
	for (unsigned at = 0; at < 3; at++)
		assert_int_equal(one_read(f->cache, "big", 1, at * EXTENT_BYTES, 1000), 0);
	for (unsigned i = 0; i < FILES; i++) {
		struct waiter w = WAITER_INIT;
		struct one o;
		char name[16];

		snprintf(name, sizeof(name), "f%02u", i);
		one_submit(f->cache, &o, name, i, 0, 1000, &w);
		assert_int_equal(waiter_wait(&w, 1), 0);
		assert_true(o.is_right);
	}
	arena_is(f, 1, 0, 0, true);
	assert_int_equal(stats_read(f->stats, STAT_RAM_WAITS), 0);
	stop(f);
	topology_free(t);
}

/* What was fetched moves once it is stored: then there is no write that uses it. */
static void move_once_stored(struct fixture *f, const struct ns_attr *a, int place)
{
	uint64_t before = stats_read(f->stats, STAT_RAM_MOVED), until = clock_ns() + 10 * NSEC_PER_SEC;

	while (stats_read(f->stats, STAT_RAM_MOVED) == before && clock_ns() < until) {
		cache_move(f->cache, a->ino, place);
		usleep(1000);
	}
	assert_int_equal(stats_read(f->stats, STAT_RAM_MOVED), before + 1);
}

/* A reader of its beginning is answered before all of it is there. */
static void wait_filled(struct fixture *f, const struct ns_attr *a, uint32_t extent)
{
	uint64_t until = clock_ns() + 10 * NSEC_PER_SEC;

	while (!(cache_where(f->cache, a, extent) & CACHE_TIER_RAM) && clock_ns() < until)
		usleep(1000);
	assert_true(cache_where(f->cache, a, extent) & CACHE_TIER_RAM);
}

/* (I): what is in memory moves to where it will be read, but not under a reader's hands. */
static void bytes_move_to_their_next_reader(void **state)
{
	struct fixture *f = *state;
	struct topology *t = start_at_two_places(f, 16 << 20);
	struct cache_loan loan;
	struct ns_attr a;

	read_at(f, 1, 1);
	assert_int_equal(ns_lookup(cache_ns(f->cache), NS_ROOT, "f01", 0, &a), 0);
	arena_is(f, 1, 0, 0, true);
	move_once_stored(f, &a, 0);
	arena_is(f, 0, 0, 0, true);
	arena_is(f, 1, 0, 0, false);
	read_at(f, 1, 0);
	arena_is(f, 0, 1, 0, true);
	cache_move(f->cache, a.ino, 0);    /* it is there */
	cache_move(f->cache, a.ino, -1);   /* nobody knows where */
	cache_move(f->cache, a.ino + 1000, 1);
	assert_int_equal(cache_lend(f->cache, &a, 0, &loan), 0);
	cache_move(f->cache, a.ino, 1);
	assert_int_equal(stats_read(f->stats, STAT_RAM_MOVED), 1);
	arena_is(f, 1, 0, 0, false);
	cache_lend_end(f->cache, &loan, false);
	cache_move(f->cache, a.ino, 1);
	assert_int_equal(stats_read(f->stats, STAT_RAM_MOVED), 2);
	arena_is(f, 0, 1, 0, false);
	arena_is(f, 1, 0, 0, true);
	stop(f);
	topology_free(t);
}

/* Being near is not worth what is still needed: a place that is full of that takes nothing in. */
static void nothing_needed_goes_for_a_move(void **state)
{
	struct fixture *f = *state;
	struct topology *t = start_at_two_places(f, 8 << 20);
	struct ns_attr a, big;

	read_at(f, 1, 1);
	assert_int_equal(ns_lookup(cache_ns(f->cache), NS_ROOT, "f01", 0, &a), 0);
	assert_int_equal(ns_lookup(cache_ns(f->cache), NS_ROOT, "big", 0, &big), 0);
	move_once_stored(f, &a, 0);
	move_once_stored(f, &a, 1);
	/* read in part: 3 MiB and ten times 25 pages of the 4 MiB at place 0 */
	for (unsigned at = 0; at < 3; at++) {
		assert_int_equal(one_read(f->cache, "big", 1, at * EXTENT_BYTES, 1000), 0);
		wait_filled(f, &big, at);
	}
	for (unsigned i = 2; i < 12; i++) {
		char name[16];

		snprintf(name, sizeof(name), "f%02u", i);
		assert_int_equal(one_read(f->cache, name, i, 0, 1000), 0);
	}
	cache_move(f->cache, a.ino, 0);
	assert_int_equal(stats_read(f->stats, STAT_RAM_MOVED), 2);
	for (unsigned no = 0; no < 3; no++)
		assert_true(cache_where(f->cache, &big, no) & CACHE_TIER_RAM);
	/* once one of them was read to its end, there is room */
	read_at(f, 5, 0);
	move_once_stored(f, &a, 0);
	assert_true(cache_where(f->cache, &a, 0) & CACHE_TIER_RAM);
	stop(f);
	topology_free(t);
}

struct mover {
	struct cache *cache;
	uint64_t first_ino;
	_Atomic bool is_over;
};

static void *move_about(void *arg)
{
	struct mover *m = arg;

	for (unsigned i = 0; !atomic_load(&m->is_over); i++)
		cache_move(m->cache, m->first_ino + i % 4, (int)(i / 4 % 2));
	return NULL;
}

/* (B), (C) and (I): readers find the right bytes while these move under them. */
static void readers_do_not_notice_moves(void **state)
{
	struct fixture *f = *state;
	struct topology *t = start_at_two_places(f, 8 << 20);
	struct mover m = { 0 };
	pthread_t thread;
	struct ns_attr a;
	uint64_t random = 5, until;

	for (unsigned i = 0; i < 4; i++)
		read_at(f, i, 0);
	assert_int_equal(ns_lookup(cache_ns(f->cache), NS_ROOT, "f00", 0, &a), 0);
	m.cache = f->cache;
	m.first_ino = a.ino;
	assert_int_equal(pthread_create(&thread, NULL, move_about, &m), 0);
	until = clock_ns() + 10 * NSEC_PER_SEC;
	for (unsigned n = 0; clock_ns() < until && (n < 2000 || stats_read(f->stats, STAT_RAM_MOVED) < 200); n++)
		read_at(f, (unsigned)(test_random(&random) % 4), (int)(test_random(&random) % 2));
	atomic_store(&m.is_over, true);
	pthread_join(thread, NULL);
	assert_true(stats_read(f->stats, STAT_RAM_MOVED) >= 200);
	stop(f);
	topology_free(t);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(one_fill_for_all_readers),
		CASE(ranges_are_right_from_every_tier),
		CASE(errors_are_retried_then_told),
		CASE(a_hanging_origin_costs_the_timeout),
		CASE(a_changed_file_is_stale_not_mixed),
		CASE(memory_is_a_hard_limit),
		CASE(wants_join_and_are_joined),
		CASE(a_failed_prefetch_is_no_readers_error),
		CASE(unread_stays_consumed_goes),
		CASE(records_cost_their_own_bytes),
		CASE(bytes_are_next_to_their_reader),
		CASE(a_full_arena_uses_the_others),
		CASE(bytes_move_to_their_next_reader),
		CASE(nothing_needed_goes_for_a_move),
		CASE(readers_do_not_notice_moves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

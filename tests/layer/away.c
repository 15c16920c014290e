/* SPDX-License-Identifier: Apache-2.0 */
/* An origin that does not answer: what becomes of fills, of their memory, and of who asks meanwhile. */
#include "cache/cache.h"
#include <errno.h>
#include <unistd.h>
#include "lib/clock.h"
#include "lib/stats.h"
#include "tests/layer/layer.h"
#include "tests/layer/one.h"
#include "tests/unit/test.h"

enum { EXTENTS = 12, BIG = EXTENTS * EXTENT_BYTES, BIG_SEED = 5, KEPT = 2 * EXTENT_BYTES, KEPT_SEED = 6, SMALL = 5000 };

struct fixture {
	struct stats *stats;
	struct origin *origin;
	struct cache *cache;
};

static void start(struct fixture *f, const char *faults, uint64_t timeout_ns)
{
	const char *dir = scratch_path("c");
	struct cache_config cfg = { .dirs = &dir, .dir_count = 1, .identity = "test", .ram_bytes = 8 << 20, .hedge = true,
				    .timeout_ns = timeout_ns, .codec = DISK_CODEC_OFF,
				    .ns = { .meta_ttl_ns = 3600 * NSEC_PER_SEC, .check_data_on_open = true } };
	char spec[8192], msg[256] = "";

	unlink(scratch_path("control"));
	snprintf(spec, sizeof(spec), "fault:%s,control=%s:%s", faults, scratch_path("control"), scratch_path("o"));
	assert_int_equal(stats_new(&f->stats), 0);
	assert_int_equal(origin_open(spec, f->stats, &f->origin, msg, sizeof(msg)), 0);
	if (cache_open(&cfg, f->origin, f->stats, &f->cache, msg, sizeof(msg)))
		fail_msg("%s", msg);
}

/* With the origin answering again, or it would have to be closed first. */
static void stop(struct fixture *f)
{
	cache_close(f->cache);
	origin_close(f->origin);
	stats_free(f->stats);
}

/* What was lost ends with the origin. */
static void stop_lost(struct fixture *f)
{
	origin_close(f->origin);
	cache_close(f->cache);
	stats_free(f->stats);
}

static uint64_t count(struct fixture *f, enum stat_id id)
{
	cache_publish(f->cache);
	return stats_read(f->stats, id);
}

static void faults(const char *text)
{
	FILE *c = fopen(scratch_path("control.new"), "w");

	assert_non_null(c);
	fputs(text, c);
	assert_int_equal(fclose(c), 0);
	assert_int_equal(rename(scratch_path("control.new"), scratch_path("control")), 0);
}

static void wait_for_count(struct fixture *f, enum stat_id id, uint64_t least)
{
	uint64_t until = clock_ns() + 30 * NSEC_PER_SEC;

	while (count(f, id) < least) {
		if (clock_ns() > until)
			fail_msg("a counter is still %llu", (unsigned long long)count(f, id));
		usleep(1000);
	}
}

static int set_up(void **state)
{
	scratch_make();
	file_make("o/big", BIG, BIG_SEED);
	file_make("o/kept", KEPT, KEPT_SEED);
	file_make("o/small", SMALL, 1);
	file_make("o/other", SMALL, 2);
	*state = calloc(1, sizeof(struct fixture));
	return 0;
}

static int tear_down(void **state)
{
	free(*state);
	scratch_remove();
	return 0;
}

/* A request without an answer ends with an error, and does not stand in the way of those to come for ever. */
static void a_lost_request_is_given_up(void **state)
{
	struct fixture *f = *state;

	start(f, "lost=1", 300 * NSEC_PER_MSEC);
	assert_int_equal(one_read(f->cache, "small", 1, 0, SMALL), -EIO);
	faults("");
	wait_for_count(f, STAT_ORIGIN_GIVEN_UP, 1);
	assert_int_equal(one_read(f->cache, "small", 1, 0, SMALL), 0);
	assert_int_equal(count(f, STAT_ORIGIN_GIVEN_UP), 1);
	assert_int_equal(count(f, STAT_ORIGIN_SPARE_BYTES), SMALL);   /* the origin may still write there */
	assert_int_equal(count(f, STAT_ORIGIN_REQUESTS), 2);
	stop_lost(f);
}

/* Who has come while it hung has all of timeout=, and sees no error if another request can be answered. */
static void who_came_meanwhile_is_served(void **state)
{
	struct fixture *f = *state;

	start(f, "lost=1", 300 * NSEC_PER_MSEC);
	assert_int_equal(one_read(f->cache, "small", 1, 0, SMALL), -EIO);
	faults("");
	assert_int_equal(one_read(f->cache, "small", 1, 100, 2000), 0);
	assert_int_equal(count(f, STAT_ORIGIN_GIVEN_UP), 1);
	assert_int_equal(count(f, STAT_ORIGIN_REQUESTS), 2);
	stop_lost(f);
}

struct wanted {
	struct cache_want want;
	struct waiter waiter;
};

static void want_done(struct cache_want *w, int err, uint64_t bytes)
{
	(void)bytes;
	waiter_done(&((struct wanted *)w->arg)->waiter, err);
}

/* A prefetch that nobody waits for, too: its room in memory and on disk is given back. */
static void a_lost_prefetch_ends(void **state)
{
	struct fixture *f = *state;
	struct wanted o = { .waiter = WAITER_INIT };
	struct cache_flow before, after;
	struct ns_attr a;

	start(f, "lost=1", 200 * NSEC_PER_MSEC);
	assert_int_equal(ns_lookup(cache_ns(f->cache), NS_ROOT, "small", 0, &a), 0);
	cache_flow(f->cache, &before);
	o.want = (struct cache_want){ .key = extent_key(a.ino, 0), .done = want_done, .arg = &o };
	cache_want(f->cache, &o.want);
	assert_int_equal(waiter_wait(&o.waiter, 1), -EIO);
	cache_flow(f->cache, &after);
	assert_int_equal(after.demand_in_flight, 0);
	assert_in_range(before.disk_room_bytes - after.disk_room_bytes + (1 << 30), 1 << 29, 3 << 29);
	faults("");
	assert_int_equal(one_read(f->cache, "small", 1, 0, SMALL), 0);
	stop_lost(f);
}

/* (H): with the origin hanging, as many reads as there are: what is on disk can be read, and is right. */
static void the_disk_keeps_its_share(void **state)
{
	struct fixture *f = *state;
	struct origin_attr attr;
	struct one o[EXTENTS];
	struct waiter w[EXTENTS];

	start(f, "", 25 * NSEC_PER_SEC);
	for (unsigned no = 0; no < 2; no++)
		assert_int_equal(one_read(f->cache, "kept", KEPT_SEED, no * EXTENT_BYTES, EXTENT_BYTES), 0);
	stop(f);
	start(f, "hang=1", 2 * NSEC_PER_SEC);
	for (unsigned no = 0; no < EXTENTS; no++) {
		w[no] = (struct waiter)WAITER_INIT;
		one_submit(f->cache, &o[no], "big", BIG_SEED, (uint64_t)no * EXTENT_BYTES, EXTENT_BYTES, &w[no]);
	}
	assert_true(count(f, STAT_RAM_WAITS) >= 1);
	for (unsigned no = 0; no < 2; no++)
		assert_int_equal(one_read(f->cache, "kept", KEPT_SEED, no * EXTENT_BYTES, EXTENT_BYTES), 0);
	assert_int_equal(count(f, STAT_READS_HIT_DISK), 2);
	for (unsigned no = 0; no < EXTENTS; no++)
		assert_int_equal(waiter_wait(&w[no], 1), -EIO);
	wait_for_count(f, STAT_ORIGIN_GIVEN_UP, 1);
	assert_in_range(count(f, STAT_RAM_BYTES), 1, 8 << 20);
	assert_int_equal(one_read(f->cache, "kept", KEPT_SEED, 1, 1000), 0);
	/* it comes back: so does the memory */
	faults("read=1ms");
	assert_int_equal(origin_stat(f->origin, "other", &attr), 0);   /* it looks at its settings when it is asked */
	assert_int_equal(one_read(f->cache, "other", 2, 0, SMALL), 0);
	for (unsigned no = 0; no < EXTENTS; no++)
		assert_int_equal(one_read(f->cache, "big", BIG_SEED, (uint64_t)no * EXTENT_BYTES, EXTENT_BYTES), 0);
	wait_for_count(f, STAT_ORIGIN_REQUESTS, EXTENTS + 1);
	assert_int_equal(count(f, STAT_ORIGIN_SPARE_BYTES), 0);
	stop(f);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(a_lost_request_is_given_up),
		CASE(who_came_meanwhile_is_served),
		CASE(a_lost_prefetch_ends),
		CASE(the_disk_keeps_its_share),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

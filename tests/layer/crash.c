/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache's writes are recorded, cut at every sync and at many places between, and what may be left is mounted
 * again: at once, and every byte right. All files of one size look alike, so that an index that names another file's
 * bytes cannot hide behind their version.
 *
 * HOPPER_CUTS: how many random cuts; HOPPER_SEED: where they begin. Printed, to be given again.
 */
#include "cache/cache.h"
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/stats.h"
#include "tests/layer/layer.h"
#include "tests/layer/one.h"
#include "tests/layer/record.h"
#include "tests/unit/test.h"

enum { FILES = 48, SIZES = 3, BIG = 2 * EXTENT_BYTES + 4321, BIG_SEED = 1000, DEAD_CUTS = 60 };

struct mounted {
	struct stats *stats;
	struct origin *origin;
	struct cache *cache;
};

static size_t size_of(unsigned i)
{
	static const size_t size[SIZES] = { 3000, 9000, 30000 };

	return size[i % SIZES];
}

static void name_of(unsigned i, char *buf, size_t size)
{
	if (i == FILES)
		snprintf(buf, size, "big");
	else
		snprintf(buf, size, "f%03u", i);
}

static int mount_at(struct mounted *m, const char *dir, uint64_t size, char *msg, size_t msg_size)
{
	struct cache_config cfg = { .dirs = &dir, .dir_count = 1, .identity = "test", .ram_bytes = 8 << 20, .size_bytes = size,
				    .timeout_ns = 25 * NSEC_PER_SEC, .codec = DISK_CODEC_OFF,
				    .ns = { .meta_ttl_ns = 3600 * NSEC_PER_SEC, .check_data_on_open = true } };
	int rc;

	*msg = 0;
	assert_int_equal(stats_new(&m->stats), 0);
	assert_int_equal(origin_open(scratch_path("o"), m->stats, &m->origin, msg, msg_size), 0);
	rc = cache_open(&cfg, m->origin, m->stats, &m->cache, msg, msg_size);
	if (rc) {
		origin_close(m->origin);
		stats_free(m->stats);
	}
	return rc;
}

static void unmount(struct mounted *m)
{
	cache_close(m->cache);
	origin_close(m->origin);
	stats_free(m->stats);
}

/* All of file @i. Returns whether every byte was right. */
static bool read_whole(struct mounted *m, unsigned i)
{
	size_t size = i == FILES ? BIG : size_of(i);
	char name[16];

	name_of(i, name, sizeof(name));
	for (uint64_t at = 0; at < size; at += EXTENT_BYTES) {
		struct waiter w = WAITER_INIT;
		struct one o;

		one_submit(m->cache, &o, name, i == FILES ? BIG_SEED : i, at, EXTENT_BYTES, &w);
		if (waiter_wait(&w, 1) || !o.is_right)
			return false;
	}
	return true;
}

static void drop(struct mounted *m, unsigned i)
{
	struct ns_attr a;
	char name[16];

	name_of(i, name, sizeof(name));
	assert_int_equal(ns_lookup(cache_ns(m->cache), NS_ROOT, name, 0, &a), 0);
	cache_drop(m->cache, a.ino);
}

/* Four lives of a cache: filled in part, in another order, files added to the directory, dropped and fetched again, evicted. */
static void live(const char *dir)
{
	struct mounted m;
	char msg[256];

	for (unsigned life = 0; life < 4; life++) {
		if (mount_at(&m, dir, life == 3 ? 700 << 10 : 0, msg, sizeof(msg)))
			fail_msg("%s", msg);
		for (unsigned n = 0; n < FILES; n++) {
			unsigned i = (n * (2 * life + 5) + life) % FILES;

			if (n % 16 == 15)
				usleep(25000);   /* the committer makes another group */
			if (i % 4 <= life)
				assert_true(read_whole(&m, i));
			if (life == 2 && n % 5 == 0)
				drop(&m, i);
		}
		if (life == 1)
			assert_true(read_whole(&m, FILES));
		if (life == 2)
			drop(&m, FILES);
		unmount(&m);
		/* a new name between the others: ids are given anew after it is listed */
		file_make("o/new", 100 + life, 5000 + life);
	}
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static struct {
	size_t cuts, hits, lost;
} sum;

/* What is left after @cut is mounted, and everything read. */
static void check_cut(size_t cut, enum record_end end, unsigned percent, uint64_t seed)
{
	char *dir = strdup(scratch_path("replay"));   /* its buffer is one of a few */
	uint64_t random = seed;
	struct mounted m;
	char msg[256];
	int rc = record_replay(dir, cut, end, percent, &random);

	if (rc)
		fail_msg("replay: %s", strerror(-rc));
	record_boot(end == RECORD_KILLED ? 1 : 2);
	rc = mount_at(&m, dir, 0, msg, sizeof(msg));
	if (rc)
		fail_msg("cut %zu, kind %d, %u %%, seed %llu: cannot be mounted: %s", cut, end, percent, (unsigned long long)seed, msg);
	for (unsigned i = 0; i <= FILES; i++) {
		if (!read_whole(&m, i))
			fail_msg("cut %zu, kind %d, %u %%, seed %llu: file %u is WRONG", cut, end, percent, (unsigned long long)seed, i);
	}
	sum.cuts++;
	sum.hits += stats_read(m.stats, STAT_READS_HIT_DISK);
	sum.lost += stats_read(m.stats, STAT_DISK_CORRUPT);
	unmount(&m);
	nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	free(dir);
}

static unsigned number(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);

	return text ? (unsigned)strtoul(text, NULL, 0) : otherwise;
}

static void every_cut_is_mountable_and_right(void **state)
{
	static const unsigned percent[] = { 0, 10, 50, 90, 99, 100 };
	unsigned cuts = number("HOPPER_CUTS", 100);
	uint64_t seed = number("HOPPER_SEED", 1), random = seed ? seed : 1;
	size_t syncs = 0;
	char *dir;

	(void)state;
	record_boot(1);
	record_same_times(true);
	dir = strdup(scratch_path("c"));
	record_begin(dir);
	live(dir);
	record_end();
	free(dir);
	for (size_t i = 0; i < record_count(); i++) {
		if (!record_is_sync(i))
			continue;
		syncs++;
		check_cut(i, RECORD_POWER, percent[syncs % 6], test_random(&random));
		check_cut(i + 1, RECORD_POWER, percent[(syncs + 3) % 6], test_random(&random));
	}
	for (unsigned i = 0; i < cuts; i++)
		check_cut(test_random(&random) % (record_count() + 1), RECORD_POWER, percent[i % 6], test_random(&random));
	for (unsigned i = 0; i < DEAD_CUTS; i++)
		check_cut(test_random(&random) % (record_count() + 1), RECORD_KILLED, 100, test_random(&random));
	printf("%zu steps, %zu syncs, %zu cuts: %zu extents read from what was left, %zu damaged and fetched again; seed %llu\n",
	       record_count(), syncs, sum.cuts, sum.hits, sum.lost, (unsigned long long)seed);
	assert_true(sum.hits > sum.cuts);
}

static int set_up(void **state)
{
	char name[32];

	(void)state;
	scratch_make();
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "o/f%03u", i);
		file_make(name, size_of(i), i);
	}
	file_make("o/big", BIG, BIG_SEED);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	record_same_times(false);
	scratch_remove();
	return 0;
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(every_cut_is_mountable_and_right),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

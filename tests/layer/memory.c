/* SPDX-License-Identifier: Apache-2.0 */
/* The limit in force while the cgroup's changes: (E) of extent.h, at both ends and on the way. */
#include "cache/cache.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "lib/clock.h"
#include "lib/stats.h"
#include "lib/topology.h"
#include "tests/layer/layer.h"
#include "tests/layer/one.h"
#include "tests/unit/test.h"

#define MIB (1ULL << 20)

enum { LONG = 96, SEED = 3 };   /* MiB of the file, which are its extents */

struct fixture {
	struct stats *stats;
	struct origin *origin;
	struct cache *cache;
	struct ns_attr attr;      /* of the file */
};

static void write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

/* 0: none. */
static void cgroup_allows(uint64_t bytes)
{
	char text[32] = "max\n";

	if (bytes)
		snprintf(text, sizeof(text), "%llu\n", (unsigned long long)bytes);
	write_text(scratch_path("g/sys/fs/cgroup/memory.max"), text);
}

static void start(struct fixture *f, uint64_t ram, const struct topology *machine)
{
	const char *dir = scratch_path("c");
	struct cache_config cfg = { .dirs = &dir, .dir_count = 1, .identity = "test", .ram_bytes = ram, .topology = machine,
				    .cgroup_root = scratch_path("g"), .timeout_ns = 60 * NSEC_PER_SEC, .codec = DISK_CODEC_OFF,
				    .ns = { .meta_ttl_ns = 3600 * NSEC_PER_SEC, .check_data_on_open = true } };
	char msg[256] = "";

	assert_int_equal(stats_new(&f->stats), 0);
	assert_int_equal(origin_open(scratch_path("o"), f->stats, &f->origin, msg, sizeof(msg)), 0);
	if (cache_open(&cfg, f->origin, f->stats, &f->cache, msg, sizeof(msg)))
		fail_msg("%s", msg);
	assert_int_equal(ns_lookup(cache_ns(f->cache), NS_ROOT, "long", 0, &f->attr), 0);
}

static void stop(struct fixture *f)
{
	cache_close(f->cache);
	origin_close(f->origin);
	stats_free(f->stats);
}

static int set_up(void **state)
{
	scratch_make();
	file_make("o/long", LONG * MIB, SEED);
	file_make("g/proc/self/cgroup", 0, 0);
	file_make("g/sys/fs/cgroup/memory.max", 0, 0);
	write_text(scratch_path("g/proc/self/cgroup"), "0::/\n");
	cgroup_allows(0);
	*state = calloc(1, sizeof(struct fixture));
	return 0;
}

static int tear_down(void **state)
{
	free(*state);
	scratch_remove();
	return 0;
}

static uint64_t gauge(struct fixture *f, enum stat_id id)
{
	cache_publish(f->cache);
	return stats_read(f->stats, id);
}

/* Extents [@from, @to): all of each, or so little that the rest is still needed. */
static void read_extents(struct fixture *f, unsigned from, unsigned to, bool whole)
{
	for (unsigned i = from; i < to; i++)
		assert_int_equal(one_read(f->cache, "long", SEED, i * MIB, whole ? MIB : 1000), 0);
}

static void within_30_s(uint64_t began)
{
	assert_true(clock_ns() - began < 30 * NSEC_PER_SEC);
	usleep(1000);
}

/* Something is read, until the limit in force is @limit. */
static void limit_becomes(struct fixture *f, uint64_t limit)
{
	uint64_t began = clock_ns();

	while (gauge(f, STAT_RAM_LIMIT_BYTES) != limit) {
		read_extents(f, 0, 1, true);
		within_30_s(began);
	}
}

static void memory_is_at_most(struct fixture *f, uint64_t bytes)
{
	uint64_t began = clock_ns();

	while (gauge(f, STAT_RAM_BYTES) > bytes)
		within_30_s(began);
}

static uint64_t resident_bytes(void)
{
	unsigned long long size, resident = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%llu %llu", &size, &resident), 2);
	fclose(f);
	return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* It falls while some is in use, which stays right; the rest is the kernel's; it rises, and all of ram= is to be had again. */
static void the_limit_falls_and_rises(void **state)
{
	enum { LENT = 4, FIRST = 40 };
	struct fixture *f = *state;
	struct cache_loan loan[LENT];
	uint64_t before;

	start(f, 64 * MIB, NULL);
	read_extents(f, 0, 64, false);
	assert_int_equal(gauge(f, STAT_RAM_BYTES), 64 * MIB);
	for (unsigned i = 0; i < LENT; i++)
		assert_int_equal(cache_lend(f->cache, &f->attr, FIRST + i, &loan[i]), 0);
	before = resident_bytes();
	cgroup_allows(32 * MIB);
	limit_becomes(f, 16 * MIB);
	memory_is_at_most(f, (16 + LENT) * MIB);
	assert_in_range(before - resident_bytes(), 32 * MIB, 64 * MIB);
	for (unsigned i = 0; i < LENT; i++) {
		assert_true(content_is(loan[i].buf, SEED, (FIRST + i) * MIB, loan[i].len));
		cache_lend_end(f->cache, &loan[i], false);
	}
	memory_is_at_most(f, 16 * MIB);
	read_extents(f, 0, LONG, true);
	assert_true(gauge(f, STAT_RAM_BYTES) <= 16 * MIB);
#ifndef __SANITIZE_THREAD__   /* it keeps a shadow of all that was read meanwhile */
	assert_true(before - resident_bytes() > 32 * MIB);
#endif
	cgroup_allows(0);
	limit_becomes(f, 64 * MIB);
	read_extents(f, 0, LONG, false);
	assert_true(gauge(f, STAT_RAM_BYTES) > 60 * MIB);
	read_extents(f, 0, LONG, true);
	stop(f);
}

/* However little the cgroup may have, readers are served. */
static void the_least_is_enough(void **state)
{
	struct fixture *f = *state;

	start(f, 64 * MIB, NULL);
	read_extents(f, 0, 64, false);
	cgroup_allows(4096);
	limit_becomes(f, 4 * MIB);
	read_extents(f, 0, LONG, true);
	memory_is_at_most(f, 4 * MIB);
	stop(f);
	start(f, 64 * MIB, NULL);
	assert_int_equal(gauge(f, STAT_RAM_LIMIT_BYTES), 4 * MIB);
	read_extents(f, 0, 8, true);
	stop(f);
}

static void want_done(struct cache_want *w, int err, uint64_t bytes)
{
	(void)bytes;
	waiter_done(w->arg, err);
}

/* What nobody else has and somebody will read is not lost, as long as there is something else to give up. */
static void unread_is_moved(void **state)
{
	enum { READ = 22, UNREAD = 6 };
	struct fixture *f = *state;
	struct waiter w = WAITER_INIT;
	struct cache_want want[UNREAD];
	uint64_t requests;

	start(f, 32 * MIB, NULL);
	read_extents(f, 0, READ, true);
	/* pieces, which never come to the disk: beyond the first 16 MiB */
	for (unsigned i = 0; i < UNREAD; i++) {
		want[i] = (struct cache_want){ .key = extent_key(f->attr.ino, 40 + i), .piece_start = (40 + i) * MIB,
					       .piece_len = EXTENT_BYTES, .done = want_done, .arg = &w };
		cache_want(f->cache, &want[i]);
		assert_int_equal(waiter_wait(&w, i + 1), 0);
	}
	cgroup_allows(32 * MIB);
	limit_becomes(f, 16 * MIB);
	memory_is_at_most(f, 16 * MIB);
	requests = stats_read(f->stats, STAT_ORIGIN_REQUESTS);
	read_extents(f, 40, 40 + UNREAD, true);
	assert_int_equal(stats_read(f->stats, STAT_ORIGIN_REQUESTS), requests);
	assert_int_equal(stats_read(f->stats, STAT_EVICT_UNREAD), 0);
	assert_int_equal(stats_read(f->stats, STAT_RAM_MOVED), UNREAD);
	stop(f);
}

static uint64_t arena_limit(struct fixture *f, unsigned i)
{
	unsigned long long limit = 0;
	char *text, *at;

	cache_publish(f->cache);
	text = stats_text(f->stats, STAT_RAM_NODES);
	at = text;
	for (unsigned n = 0; at && n <= i; n++)
		at = strstr(at + 1, "\"limit_bytes\": ");
	assert_non_null(at);
	assert_int_equal(sscanf(at, "\"limit_bytes\": %llu", &limit), 1);
	free(text);
	return limit;
}

/* Nodes give in proportion to what they have. */
static void each_node_has_its_share(void **state)
{
	struct fixture *f = *state;
	struct topology *t = topology_new(&(struct topology_source){ 0 }, false);

	t->count = 2;
	for (unsigned i = 0; i < 2; i++)
		t->place[i] = (struct place){ .node = 0, .memory_bytes = (1 + 2 * i) * (1ULL << 30) };
	start(f, 64 * MIB, t);
	read_extents(f, 0, 64, false);
	assert_int_equal(arena_limit(f, 0), 16 * MIB);
	cgroup_allows(64 * MIB);
	limit_becomes(f, 32 * MIB);
	assert_int_equal(arena_limit(f, 0), 8 * MIB);
	assert_int_equal(arena_limit(f, 1), 24 * MIB);
	memory_is_at_most(f, 32 * MIB);
	read_extents(f, 0, LONG, true);
	stop(f);
	topology_free(t);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(the_limit_falls_and_rises),
		CASE(the_least_is_enough),
		CASE(unread_is_moved),
		CASE(each_node_has_its_share),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

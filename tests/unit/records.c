/* SPDX-License-Identifier: Apache-2.0 */
/* What is read back from disk: namespace records, compressed extents, memory runs. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "cache/cgroup.h"
#include "cache/codec.h"
#include "cache/ns_record.h"
#include "cache/ram.h"
#include "lib/stats.h"
#include "tests/unit/test.h"

static struct ns_node random_node(uint64_t *random, char *name)
{
	size_t len = 1 + (test_random(random) >> 32) % NS_NAME_MAX;
	unsigned bits = (unsigned)(test_random(random) >> 58);
	struct ns_node n = {
		.ino = 5, .st_ino = test_random(random) >> bits, .parent = test_random(random) >> bits,
		.class_id = (uint32_t)(test_random(random) >> 40), .is_superseded = bits & 1,
		.version = { .size = test_random(random) >> bits, .mtime_ns = (int64_t)test_random(random),
			     .ctime_ns = (int64_t)test_random(random) >> bits, .tag = bits & 2 ? test_random(random) : 0 },
		.name = name, .name_len = len,
	};

	for (size_t i = 0; i < len; i++)
		name[i] = (char)('a' + test_random(random) % 26);
	return n;
}

static void nodes_survive_the_round_trip(void **state)
{
	char name[NS_NAME_MAX + 1];
	uint8_t buf[NS_NODE_MAX];
	uint64_t random = 3;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct ns_node n = random_node(&random, name), back;
		size_t len = ns_node_encode(&n, buf);

		assert_in_range(len, 1, sizeof(buf));
		assert_int_equal(ns_node_decode(5, buf, len, &back), 0);
		assert_int_equal(back.ino, 5);
		assert_int_equal(back.st_ino, n.st_ino);
		assert_int_equal(back.parent, n.parent);
		assert_int_equal(back.class_id, n.class_id);
		assert_int_equal(back.is_superseded, n.is_superseded);
		assert_true(version_equal(&back.version, &n.version));
		assert_int_equal(back.name_len, n.name_len);
		assert_memory_equal(back.name, n.name, n.name_len);
	}
}

/* Cut, lengthened and flipped records decode to an error or to a name within the record. */
static void damaged_nodes_stay_in_bounds(void **state)
{
	char name[NS_NAME_MAX + 1];
	uint8_t buf[NS_NODE_MAX];
	uint64_t random = 4;

	(void)state;
	for (int i = 0; i < 50000; i++) {
		struct ns_node n = random_node(&random, name), back;
		size_t len = ns_node_encode(&n, buf);
		size_t cut = test_random(&random) % (len + 1);
		uint8_t *copy;

		buf[test_random(&random) % len] ^= (uint8_t)test_random(&random);
		copy = malloc(cut ? cut : 1);   /* so that the address sanitizer sees the end */
		memcpy(copy, buf, cut);
		if (!ns_node_decode(5, copy, cut, &back)) {
			assert_true((const uint8_t *)back.name >= copy);
			assert_true((const uint8_t *)back.name + back.name_len <= copy + cut);
		}
		free(copy);
	}
}

static void codec_compresses_what_pays(void **state)
{
	enum { LEN = 200000 };
	struct codec codec = { .mode = DISK_CODEC_AUTO };
	char *text = calloc(1, LEN), *back = malloc(LEN), *noise = malloc(LEN);
	uint64_t random = 9;
	size_t stored = 0;
	void *packed;

	(void)state;
	assert_int_equal(stats_new(&codec.stats), 0);
	for (int i = 0; i < LEN; i++) {
		text[i] = (char)('a' + i / 100 % 7);
		noise[i] = (char)test_random(&random);
	}
	packed = codec_compress(&codec, text, LEN, &stored);
	assert_non_null(packed);
	assert_in_range(stored, 1, LEN / 2);
	assert_int_equal(codec_expand(CODEC_LZ4, packed, stored, back, LEN), 0);
	assert_memory_equal(back, text, LEN);
	assert_int_equal(codec_expand(CODEC_LZ4, packed, stored, back, LEN - 1), -EBADMSG);
	for (int i = 0; i < 2000; i++) {   /* damage is an error or other bytes, never an overrun */
		char *bad = malloc(stored);

		memcpy(bad, packed, stored);
		bad[test_random(&random) % 64] ^= (char)(1 + test_random(&random) % 255);
		codec_expand(CODEC_LZ4, bad, stored, back, LEN);
		free(bad);
	}
	free(packed);
	assert_null(codec_compress(&codec, noise, LEN, &stored));
	codec.mode = DISK_CODEC_OFF;
	assert_null(codec_compress(&codec, text, LEN, &stored));
	stats_free(codec.stats);
	free(text);
	free(back);
	free(noise);
}

/* Runs never overlap, never leave the arena, and all of it can be used. */
static void ram_runs_do_not_overlap(void **state)
{
	enum { RUNS = 64 };
	struct { unsigned char *p; size_t len; } run[RUNS] = { 0 };
	uint64_t random = 5;
	struct ram r;

	(void)state;
	assert_int_equal(ram_open(&r, 1 << 20, NULL), 0);
	for (int i = 0; i < 20000; i++) {
		unsigned k = (unsigned)(test_random(&random) % RUNS);

		if (run[k].p) {
			for (size_t b = 0; b < run[k].len; b += 997)
				assert_int_equal(run[k].p[b], k);
			ram_free(&r, 0, run[k].p, run[k].len);
			run[k].p = NULL;
			continue;
		}
		run[k].len = 1 + test_random(&random) % 60000;
		run[k].p = ram_alloc(&r, 0, run[k].len);
		if (run[k].p)
			memset(run[k].p, (int)k, run[k].len);
		assert_true(ram_used_bytes(&r) <= ram_limit_bytes(&r));
	}
	for (unsigned k = 0; k < RUNS; k++) {
		if (run[k].p)
			ram_free(&r, 0, run[k].p, run[k].len);
	}
	assert_int_equal(ram_used_bytes(&r), 0);
	run[0].p = ram_alloc(&r, 0, 1 << 20);
	assert_non_null(run[0].p);
	assert_null(ram_alloc(&r, 0, 1));
	ram_close(&r);
}

/* Beyond a lower limit nothing is handed out, what is freed there is the kernel's, and a higher one gives it back. */
static void ram_follows_its_limit(void **state)
{
	enum { RUNS = 64, LEN = 1 << 18 };
	unsigned char resident[RUNS * LEN / 4096];
	unsigned char *run[RUNS], *begin;
	unsigned within = 0, count = 0;
	struct ram r;

	(void)state;
	assert_int_equal(ram_open(&r, RUNS * LEN, NULL), 0);
	for (unsigned k = 0; k < RUNS; k++) {
		run[k] = ram_alloc(&r, 0, LEN);
		assert_non_null(run[k]);
		memset(run[k], (int)k, LEN);
	}
	begin = run[0];
	assert_false(ram_set_limit(&r, RUNS * LEN + 1));
	assert_true(ram_set_limit(&r, RUNS * LEN / 2 - 4096));
	assert_int_equal(ram_limit_bytes(&r), RUNS * LEN / 2 - 4096);
	assert_int_equal(ram_free_bytes(&r), 0);
	assert_null(ram_alloc(&r, 0, 1));
	for (unsigned k = 0; k < RUNS; k++)
		within += !ram_is_beyond(&r, 0, run[k], LEN);
	assert_int_equal(within, RUNS / 2 - 1);
	for (unsigned k = RUNS / 4; k < RUNS; k++) {
		assert_int_equal(run[k][LEN - 1], k);
		ram_free(&r, 0, run[k], LEN);
	}
	assert_int_equal(ram_used_bytes(&r), RUNS / 4 * LEN);
	assert_int_equal(mincore(begin, RUNS * LEN, resident), 0);
	for (unsigned p = 0; p < sizeof(resident); p++)
		count += resident[p] & 1;
	assert_true(count <= ram_limit_bytes(&r) / 4096);
	while (ram_alloc(&r, 0, LEN))
		within--;
	assert_int_equal(within, RUNS / 4);   /* as many as fit below */
	assert_true(ram_set_limit(&r, 1));
	assert_int_equal(ram_limit_bytes(&r), ARENA_LEAST);
	assert_true(ram_set_limit(&r, UINT64_MAX));
	assert_int_equal(ram_limit_bytes(&r), RUNS * LEN);
	for (unsigned k = 0; k < RUNS / 4; k++)
		assert_int_equal(run[k][0], k);
	for (count = 0; ram_alloc(&r, 0, LEN); count++)
		;
	assert_int_equal(count, RUNS / 2 + 1);
	ram_close(&r);
}

/* What was needed once, and not for two periods, is the kernel's; what is in use stays as it is. */
static void ram_not_needed_is_given_back(void **state)
{
	enum { RUNS = 128, LEN = 1 << 20, KEPT = RUNS - 3 };
	static unsigned char resident[RUNS * LEN / 4096];
	unsigned char *run[RUNS];
	unsigned count = 0;
	struct ram r;

	(void)state;
	assert_int_equal(ram_open(&r, RUNS * LEN, NULL), 0);
	for (unsigned k = 0; k < RUNS; k++) {
		run[k] = ram_alloc(&r, 0, LEN);
		memset(run[k], (int)k, LEN);
	}
	for (unsigned k = 8; k < RUNS; k++) {
		if (k != KEPT)
			ram_free(&r, 0, run[k], LEN);
	}
	for (unsigned i = 0; i < 8; i++)
		ram_trim(&r, i == 4);
	assert_int_equal(mincore(run[0], sizeof(resident) * 4096, resident), 0);
	for (unsigned p = 0; p < sizeof(resident); p++)
		count += resident[p] & 1;
	assert_int_equal(count, sizeof(resident));   /* one period is not long */
	ram_trim(&r, true);
	for (unsigned i = 0; i < 2; i++)
		ram_trim(&r, false);
	assert_int_equal(mincore(run[0], sizeof(resident) * 4096, resident), 0);
	for (unsigned p = count = 0; p < sizeof(resident); p++)
		count += resident[p] & 1;
	assert_in_range(count, 9 * LEN / 4096, 40 * LEN / 4096);
	for (unsigned k = 0; k < 8; k++)
		assert_int_equal(run[k][LEN - 1], k);
	assert_int_equal(run[KEPT][LEN / 2], KEPT);
	ram_free(&r, 0, run[KEPT], LEN);
	assert_int_equal(mincore(run[KEPT], LEN, resident), 0);
	assert_int_equal(resident[0] & 1, 0);
	for (count = 0; ram_alloc(&r, 0, LEN); count++)
		;
	assert_int_equal(count, RUNS - 8);
	ram_close(&r);
}

/* Files as the kernel's, below the scratch directory. */
static void cgroup_is(const char *root, const char *path, const char *text)
{
	char name[512];
	FILE *f;

	snprintf(name, sizeof(name), "%s/%s", root, path);
	for (char *slash = strchr(name + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(name, 0700);
		*slash = '/';
	}
	f = fopen(name, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* The smallest of those that hold for us, of either version, ours or above. */
static void cgroup_limits_are_found(void **state)
{
	char root[] = "/tmp/hopper-cgroup.XXXXXX", command[64];

	(void)state;
	assert_non_null(mkdtemp(root));
	assert_true(cgroup_memory_bytes(root) == UINT64_MAX);
	cgroup_is(root, "proc/self/cgroup", "0::/job/worker\n");
	assert_true(cgroup_memory_bytes(root) == UINT64_MAX);
	cgroup_is(root, "sys/fs/cgroup/job/worker/memory.max", "max\n");
	cgroup_is(root, "sys/fs/cgroup/job/memory.max", "1000000\n");
	assert_int_equal(cgroup_memory_bytes(root), 1000000);
	cgroup_is(root, "sys/fs/cgroup/job/worker/memory.high", "900000\n");
	assert_int_equal(cgroup_memory_bytes(root), 900000);
	cgroup_is(root, "proc/self/cgroup", "0::/job/other\n");
	assert_int_equal(cgroup_memory_bytes(root), 1000000);
	cgroup_is(root, "proc/self/cgroup", "0::/../elsewhere\n");
	assert_true(cgroup_memory_bytes(root) == UINT64_MAX);
	cgroup_is(root, "sys/fs/cgroup/memory.max", "700000\n");
	assert_int_equal(cgroup_memory_bytes(root), 700000);
	cgroup_is(root, "sys/fs/cgroup/memory.max", "nonsense\n");
	cgroup_is(root, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", "9223372036854771712\n");
	cgroup_is(root, "sys/fs/cgroup/memory/job/memory.soft_limit_in_bytes", "600000\n");
	cgroup_is(root, "sys/fs/cgroup/unified/memory.high", "800000\n");
	cgroup_is(root, "proc/self/cgroup", "5:cpu,memory:/job\n4:pids:/\nbroken\n0::/\n");
	assert_int_equal(cgroup_memory_bytes(root), 600000);
	cgroup_is(root, "proc/self/cgroup", "5:cpu:/job\n0::/");
	assert_int_equal(cgroup_memory_bytes(root), 800000);
	snprintf(command, sizeof(command), "rm -r %s", root);
	assert_int_equal(system(command), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nodes_survive_the_round_trip),
		cmocka_unit_test(damaged_nodes_stay_in_bounds),
		cmocka_unit_test(codec_compresses_what_pays),
		cmocka_unit_test(ram_runs_do_not_overlap),
		cmocka_unit_test(ram_follows_its_limit),
		cmocka_unit_test(ram_not_needed_is_given_back),
		cmocka_unit_test(cgroup_limits_are_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

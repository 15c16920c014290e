/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every nth allocation of ours fails, while a cache is opened, read, prefetched into, emptied and closed: an error for
 * who asked, perhaps; no wrong byte, no crash, no leak (with the address sanitizer), and all is well when memory is back.
 */
#include "cache/cache.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/stats.h"
#include "tests/layer/layer.h"
#include "tests/unit/test.h"

enum { FILES = 60, SMALL = 30000, BIG = 2 * EXTENT_BYTES + 777, BIG_SEED = 500 };

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t size);
char *__wrap_strdup(const char *s);

static _Atomic unsigned nth;          /* 0: none fails */
static _Atomic uint64_t asked, failed;
static bool is_scattered;             /* one of nth, in no rhythm that what is tried again could fall into */

static bool fails(void)
{
	unsigned n = atomic_load(&nth);
	uint64_t at = n ? atomic_fetch_add(&asked, 1) + 1 : 0;

	if (is_scattered)
		at = at * 0x9e3779b97f4a7c15ULL >> 33;
	if (!n || at % n)
		return false;
	atomic_fetch_add(&failed, 1);
	errno = ENOMEM;
	return true;
}

void *__wrap_malloc(size_t size)
{
	return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *p, size_t size)
{
	return fails() ? NULL : __real_realloc(p, size);
}

char *__wrap_strdup(const char *s)
{
	return fails() ? NULL : __real_strdup(s);
}

struct mounted {
	struct stats *stats;
	struct origin *origin;
	struct cache *cache;
};

/* Negative errno: nothing is left behind. */
static int mount(struct mounted *m)
{
	const char *dir = scratch_path("c");
	struct cache_config cfg = { .dirs = &dir, .dir_count = 1, .identity = "test", .ram_bytes = 8 << 20,
				    .timeout_ns = 300 * NSEC_PER_MSEC, .codec = DISK_CODEC_AUTO, .hedge = true,
				    .ns = { .meta_ttl_ns = 3600 * NSEC_PER_SEC, .check_data_on_open = true } };
	char msg[256] = "";
	int rc = stats_new(&m->stats);

	if (rc)
		return rc;
	rc = origin_open(scratch_path("o"), m->stats, &m->origin, msg, sizeof(msg));
	if (!rc) {
		rc = cache_open(&cfg, m->origin, m->stats, &m->cache, msg, sizeof(msg));
		if (rc)
			origin_close(m->origin);
	}
	if (rc)
		stats_free(m->stats);
	return rc;
}

static void unmount(struct mounted *m)
{
	cache_close(m->cache);
	origin_close(m->origin);
	stats_free(m->stats);
}

struct reading {
	struct cache_read read;
	struct cache *cache;
	struct waiter waiter;
	unsigned seed;
	bool is_right;
};

static void read_done(struct cache_read *r, int err)
{
	struct reading *o = r->arg;
	uint64_t at = r->offset;

	o->is_right = !err;
	for (int i = 0; !err && i < r->iov_count; at += r->iov[i++].iov_len)
		o->is_right &= content_is(r->iov[i].iov_base, o->seed, at, r->iov[i].iov_len);
	if (!err)
		cache_read_end(o->cache, r);
	waiter_done(&o->waiter, err);
}

/* 0 and right, or an error; a wrong byte fails the test. */
static int read_some(struct mounted *m, unsigned file, uint64_t offset)
{
	struct reading o = { .cache = m->cache, .waiter = WAITER_INIT, .seed = file == FILES ? BIG_SEED : file };
	char name[16];
	int err;

	snprintf(name, sizeof(name), file == FILES ? "big" : "f%02u", file);
	err = ns_lookup(cache_ns(m->cache), NS_ROOT, name, 0, &o.read.attr);
	if (err)
		return err;
	o.read.offset = offset;
	o.read.len = SMALL;
	o.read.done = read_done;
	o.read.arg = &o;
	cache_read(m->cache, &o.read);
	err = waiter_wait(&o.waiter, 1);
	assert_true(err || o.is_right);
	return err;
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

static void want(struct mounted *m, unsigned file)
{
	struct wanted o = { .waiter = WAITER_INIT };
	struct ns_attr a;
	char name[16];

	snprintf(name, sizeof(name), "f%02u", file);
	if (ns_lookup(cache_ns(m->cache), NS_ROOT, name, 0, &a))
		return;
	o.want = (struct cache_want){ .key = extent_key(a.ino, 0), .done = want_done, .arg = &o };
	cache_want(m->cache, &o.want);
	waiter_wait(&o.waiter, 1);
	if (file % 3 == 0)
		cache_drop(m->cache, a.ino);
}

/* Returns how many reads failed. */
static unsigned use(struct mounted *m, uint64_t *random)
{
	unsigned errors = 0;

	for (unsigned i = 0; i < FILES; i++) {
		struct ns_attr a;

		if (i % 4 == 3)
			want(m, i);
		errors += read_some(m, i, 0) != 0;
		errors += read_some(m, FILES, test_random(random) % (BIG - SMALL)) != 0;
		if (!ns_lookup(cache_ns(m->cache), NS_ROOT, "f00", 0, &a)) {
			cache_pin(m->cache, &a);
			cache_unpin(m->cache, a.ino);
		}
		cache_publish(m->cache);
	}
	return errors;
}

static void every_nth_allocation_fails(void **state)
{
	static const unsigned every[] = { 2, 3, 5, 7, 11, 13, 23, 37, 61, 101, 211, 503 };
	uint64_t random = 5;

	(void)state;
	is_scattered = true;
	for (size_t i = 0; i < sizeof(every) / sizeof(every[0]); i++) {
		struct mounted m;
		unsigned errors = 0;
		int rc;

		atomic_store(&failed, 0);
		atomic_store(&nth, every[i]);
		rc = mount(&m);
		if (rc) {
			atomic_store(&nth, 0);
			assert_int_equal(mount(&m), 0);
			atomic_store(&nth, every[i]);
		}
		errors = use(&m, &random);
		atomic_store(&nth, 0);
		for (unsigned tries = 0; use(&m, &random); tries++)   /* memory is back; a request that failed may be under way still */
			assert_true(tries < 20);
		atomic_store(&nth, every[i]);
		unmount(&m);
		atomic_store(&nth, 0);
		printf("every %u: %llu failed, opened: %s, %u of %u reads failed\n", every[i],
		       (unsigned long long)atomic_load(&failed), rc ? strerror(-rc) : "yes", errors, 2 * FILES);
		assert_true(atomic_load(&failed) > 0 || every[i] > 200);
	}
}

/* The mount fails at its nth allocation, for each: an error, no crash, nothing left behind. */
static void opening_fails_anywhere(void **state)
{
	unsigned opened = 0;

	(void)state;
	is_scattered = false;
	for (unsigned n = 1; n < 400 && opened < 3; n++) {
		struct mounted m;
		int rc;

		atomic_store(&asked, 0);
		atomic_store(&nth, n);
		rc = mount(&m);
		/* only the first that fails is meant, but a second may */
		atomic_store(&nth, 0);
		if (rc)
			assert_true(rc == -ENOMEM || rc == -EAGAIN);
		else
			unmount(&m);
		opened = rc ? 0 : opened + 1;
	}
	assert_int_equal(opened, 3);
}

static int set_up(void **state)
{
	char name[32];

	(void)state;
	scratch_make();
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "o/f%02u", i);
		file_make(name, SMALL, i);
	}
	file_make("o/big", BIG, BIG_SEED);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	atomic_store(&nth, 0);
	scratch_remove();
	return 0;
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(every_nth_allocation_fails),
		CASE(opening_fails_anywhere),
	};

	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

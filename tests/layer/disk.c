/* SPDX-License-Identifier: Apache-2.0 */
/* The disk tier with its index; the letters are disk.h's guarantees. */
#include "cache/disk.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "cache/diskio.h"
#include "cache/segment.h"
#include "cache/store.h"
#include "lib/stats.h"
#include "tests/layer/layer.h"
#include "tests/unit/test.h"

struct fixture {
	struct stats *stats;
	struct store *store;
	struct disk *disk;
	int dir_fd;
	void *buf;
	bool verify_all;
	bool is_over;             /* the other thread is done */
};

static void start(struct fixture *f, uint64_t limit, enum disk_codec codec)
{
	struct disk_dir dir = { .path = scratch_path("c"), .limit_bytes = limit, .weight = 1, .place = -1, .node = -1 };
	struct disk_config cfg = { .dirs = &dir, .dir_count = 1, .codec = codec, .verify_all = f->verify_all };
	char msg[256] = "";

	mkdir(dir.path, 0700);
	dir.fd = f->dir_fd = open(dir.path, O_RDONLY | O_DIRECTORY);
	assert_int_equal(stats_new(&f->stats), 0);
	assert_int_equal(store_open(f->dir_fd, dir.path, "index", &f->store, &dir.was_clean, msg, sizeof(msg)), 0);
	dir.store = f->store;
	assert_int_equal(disk_open(&cfg, f->stats, &f->disk, msg, sizeof(msg)), 0);
}

static void stop(struct fixture *f)
{
	disk_close(f->disk);
	store_close(f->store);
	stats_free(f->stats);
	close(f->dir_fd);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	scratch_make();
	*state = f;
	if (posix_memalign(&f->buf, 4096, 1 << 20))
		return -1;
	memset(f->buf, 0, 1 << 20);   /* all of it is written to disk, not only what a test sets */
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	free(f->buf);
	free(f);
	scratch_remove();
	return 0;
}

static void done(struct disk_io *io, int err)
{
	waiter_done(io->arg, err);
}

/* Extent 0 of file @ino, @len bytes of content @seed; the file has @object_bytes. */
static int put(struct fixture *f, uint64_t ino, uint64_t version, size_t len, uint64_t object_bytes, unsigned seed)
{
	struct waiter w = WAITER_INIT;
	struct disk_io io = { .key = extent_key(ino, 0), .version = version, .object_bytes = object_bytes,
			      .buf = f->buf, .len = len, .done = done, .arg = &w,
			      .room = disk_reserve(f->disk, 0, len) };

	if (!io.room.bytes)
		return -ENOSPC;
	for (size_t i = 0; i < len; i++)
		((uint8_t *)f->buf)[i] = content_at(seed, i);
	disk_write(f->disk, &io);
	return waiter_wait(&w, 1);
}

static int get(struct fixture *f, uint64_t ino, uint64_t version, size_t len, uint64_t object_bytes, unsigned seed)
{
	struct waiter w = WAITER_INIT;
	struct disk_io io = { .key = extent_key(ino, 0), .version = version, .object_bytes = object_bytes,
			      .buf = f->buf, .len = len, .done = done, .arg = &w };
	int err;

	memset(f->buf, 0xee, len);
	disk_read(f->disk, &io);
	err = waiter_wait(&w, 1);
	if (!err)
		assert_true(content_is(f->buf, seed, 0, len));
	return err;
}

static void what_is_written_is_read_back(void **state)
{
	static const size_t len[] = { 1, 511, 4096, 4097, 110000, 1 << 20 };
	struct fixture *f = *state;

	for (int codec = DISK_CODEC_AUTO; codec <= DISK_CODEC_OFF; codec++) {
		start(f, 0, (enum disk_codec)codec);
		for (unsigned i = 0; i < 6; i++) {
			uint64_t ino = 100 + i + 10 * (unsigned)codec, object = i == 5 ? 5 << 20 : len[i];

			assert_false(disk_has(f->disk, extent_key(ino, 0), 1));
			assert_int_equal(get(f, ino, 1, len[i], object, i), -ENOENT);
			assert_int_equal(put(f, ino, 1, len[i], object, i), 0);
			assert_true(disk_has(f->disk, extent_key(ino, 0), 1));
			assert_false(disk_has(f->disk, extent_key(ino, 0), 2));
			assert_int_equal(get(f, ino, 1, len[i], object, i), 0);
			assert_int_equal(get(f, ino, 2, len[i], object, i), -ENOENT);
		}
		stop(f);
		start(f, 0, (enum disk_codec)codec);   /* (B) */
		for (unsigned i = 0; i < 6; i++)
			assert_int_equal(get(f, 100 + i + 10 * (unsigned)codec, 1, len[i], i == 5 ? 5 << 20 : len[i], i), 0);
		stop(f);
	}
}

static bool takes_direct(void)
{
	int fd = open(scratch_path("direct"), O_RDWR | O_CREAT | O_DIRECT, 0600);

	close(fd);
	return fd >= 0;
}

static uint64_t direct(const struct fixture *f)
{
	return stats_read(f->stats, STAT_DISK_DIRECT);
}

/* Of a segment, how much is in the page cache? */
static size_t resident_pages(const char *name)
{
	int fd = open(scratch_path(name), O_RDONLY);
	size_t size = SEGMENT_BYTES, pages = size / 4096, count = 0;
	unsigned char *is_in = malloc(pages);
	void *p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);

	assert_true(is_in && p != MAP_FAILED && !mincore(p, size, is_in));
	for (size_t i = 0; i < pages; i++)
		count += is_in[i] & 1;
	munmap(p, size);
	free(is_in);
	close(fd);
	return count;
}

/* What is still to be written back comes from the page cache, what is on the disk past it, also where a file ends within a block. */
static void what_is_on_disk_is_read_past_the_page_cache(void **state)
{
	static const size_t len[] = { 4096, 511, 110001, 2000000 % (1 << 20) };
	struct fixture *f = *state;
	void *aligned = f->buf;

	if (!takes_direct()) {
		print_message("no O_DIRECT on this file system\n");
		skip();
	}
	start(f, 0, DISK_CODEC_AUTO);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(put(f, 20 + i, 1, len[i], len[i], i), 0);
		assert_int_equal(get(f, 20 + i, 1, len[i], len[i], i), 0);
	}
	assert_int_equal(direct(f), 0);
	stop(f);
	start(f, 0, DISK_CODEC_AUTO);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(get(f, 20 + i, 1, len[i], len[i], i), 0);
	assert_int_equal(direct(f), 4);
	/* a memory that the disk does not take, as one may that wants more than 4 KiB: the page cache does, from now on */
	f->buf = (char *)aligned + 1;
	assert_int_equal(get(f, 20, 1, len[0], len[0], 0), 0);
	f->buf = aligned;
	assert_int_equal(get(f, 21, 1, len[1], len[1], 1), 0);
	assert_int_equal(direct(f), 4);
	stop(f);
}

static void what_is_cut_short_is_damaged_past_the_page_cache_too(void **state)
{
	struct fixture *f = *state;

	start(f, 0, DISK_CODEC_OFF);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(put(f, 20 + i, 1, 110001, 110001, i), 0);
	stop(f);
	assert_int_equal(truncate(scratch_path("c/segments/00000001.seg"), 2 * 110592 - 5000), 0);
	start(f, 0, DISK_CODEC_OFF);
	assert_int_equal(get(f, 21, 1, 110001, 110001, 1), -EBADMSG);
	assert_int_equal(get(f, 22, 1, 110001, 110001, 2), -EBADMSG);
	assert_int_equal(get(f, 20, 1, 110001, 110001, 0), 0);
	assert_int_equal(direct(f), takes_direct());
	assert_int_equal(stats_read(f->stats, STAT_DISK_CORRUPT), 2);
	stop(f);
}

/* A segment that is full and synced leaves the page cache. */
static void a_settled_segment_is_not_kept_twice(void **state)
{
	struct fixture *f = *state;
	uint64_t ino = 100;

	if (!takes_direct())
		skip();
	start(f, 0, DISK_CODEC_OFF);
	assert_int_equal(put(f, 1, 1, 1 << 20, 1 << 20, 7), 0);
	for (; ino < 100 + SEGMENT_BYTES / (1 << 20); ino++) {
		struct waiter w = WAITER_INIT;
		struct disk_io io = { .key = extent_key(ino, 0), .version = 1, .object_bytes = 1 << 20, .buf = f->buf,
				      .len = 1 << 20, .done = done, .arg = &w, .room = disk_reserve(f->disk, 0, 1 << 20) };

		disk_write(f->disk, &io);
		assert_int_equal(waiter_wait(&w, 1), 0);
	}
	for (unsigned tries = 0; !direct(f); tries++) {
		assert_true(tries < 300);   /* it is synced within seconds */
		usleep(100000);
		assert_int_equal(get(f, 1, 1, 1 << 20, 1 << 20, 7), 0);
	}
	for (unsigned tries = 0; resident_pages("c/segments/00000001.seg") > SEGMENT_BYTES / 4096 / 4; tries++) {
		assert_true(tries < 300);   /* it is told to leave right after, which takes a while */
		usleep(100000);
	}
	memset(f->buf, 0, 1 << 20);
	stop(f);
}

/* A new version replaces the old; a drop frees; what is freed is free on the file system too. */
static void space_is_given_back(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	uint64_t room;

	start(f, 64 << 20, DISK_CODEC_OFF);
	room = disk_room(f->disk);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(put(f, 5, i + 1, 200000, 200000, i), 0);
	assert_in_range(room - disk_room(f->disk), 200000, 1200000);   /* the index may have grown */
	assert_int_equal(get(f, 5, 100, 200000, 200000, 99), 0);
	assert_true(disk_drop(f->disk, 0, extent_key(5, 0)) >= 200000);
	assert_int_equal(disk_drop(f->disk, 0, extent_key(5, 0)), 0);
	assert_int_equal(get(f, 5, 100, 200000, 200000, 99), -ENOENT);
	stop(f);
	if (!stat(scratch_path("c/segments/00000001"), &st))
		assert_true(st.st_blocks * 512 < 4 << 20);
}

/* (C): reservations are refused at the limit, and what was written never exceeds it. */
static void the_limit_is_hard(void **state)
{
	struct fixture *f = *state;
	unsigned stored = 0;
	struct disk_room room;

	start(f, 16 << 20, DISK_CODEC_OFF);
	while (!put(f, 10 + stored, 1, 500000, 500000, stored))
		stored++;
	assert_in_range(stored, 25, 33);
	assert_true(disk_room(f->disk) < 500000 + 4096);
	disk_publish(f->disk);
	assert_true(stats_read(f->stats, STAT_DISK_BYTES) <= 16 << 20);
	room = disk_reserve(f->disk, 0, 4096);
	disk_unreserve(f->disk, room);
	assert_int_equal(disk_drop(f->disk, 0, extent_key(10, 0)), 503808);
	assert_int_equal(put(f, 9, 1, 500000, 500000, 1), 0);
	stop(f);
}

/* One extent of @ino's 3-MiB file, from a buffer of its own. */
static int put_extent(struct fixture *f, uint64_t ino, uint32_t no, void *buf)
{
	struct waiter w = WAITER_INIT;
	struct disk_io io = { .key = extent_key(ino, no), .version = 1, .object_bytes = 3 << 20, .buf = buf, .len = 1 << 20,
			      .done = done, .arg = &w, .room = disk_reserve(f->disk, 0, 1 << 20) };

	disk_write(f->disk, &io);
	return waiter_wait(&w, 1);
}

static void *churn(void *arg)
{
	struct fixture *f = arg;
	void *buf = aligned_alloc(4096, 1 << 20);

	memset(buf, 7, 1 << 20);
	for (int i = 0; i < 300; i++) {
		put_extent(f, 50, 1, buf);
		disk_drop(f->disk, 0, extent_key(50, 1));
	}
	free(buf);
	return NULL;
}

/* Beside other threads nothing is asserted: a failure would leave them a fixture that is gone. */
static unsigned put_and_get(struct fixture *f, uint8_t byte)
{
	struct waiter w = WAITER_INIT;
	struct disk_io io = { .key = extent_key(50, 0), .version = 1, .object_bytes = 3 << 20, .buf = f->buf, .len = 1 << 20,
			      .done = done, .arg = &w };
	unsigned failures;

	memset(f->buf, byte, 1 << 20);
	failures = put_extent(f, 50, 0, f->buf) != 0;
	memset(f->buf, 0xee, 1 << 20);
	disk_read(f->disk, &io);
	failures += waiter_wait(&w, 1) != 0;
	disk_drop(f->disk, 0, extent_key(50, 0));
	return failures;
}

/* The last extent of a whole object leaves while another comes: that one is not lost with the emptied file. */
static void an_extent_survives_its_neighbours_end(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;
	unsigned failures = 0;

	start(f, 0, DISK_CODEC_OFF);
	assert_int_equal(pthread_create(&thread, NULL, churn, f), 0);
	for (unsigned i = 0; i < 300; i++)
		failures += put_and_get(f, (uint8_t)i);
	pthread_join(thread, NULL);
	assert_int_equal(failures, 0);
	assert_int_equal(stats_read(f->stats, STAT_DISK_CORRUPT), 0);
	stop(f);
}

/* 1: the next punch is to wait before it returns; 2: it waits; 0: it may go on. */
static int punch_waits;

/* In place of the C library's. */
int fallocate(int fd, int mode, off_t offset, off_t len)
{
	int rc = (int)syscall(SYS_fallocate, fd, mode, offset, len), one = 1;

	if (__atomic_compare_exchange_n(&punch_waits, &one, 2, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
		while (__atomic_load_n(&punch_waits, __ATOMIC_SEQ_CST))
			usleep(1000);
	}
	return rc;
}

static void *drop_one(void *arg)
{
	struct fixture *f = arg;

	disk_drop(f->disk, 0, extent_key(50, 1));
	return NULL;
}

/* The same, one step after the other: whoever freed the last bytes of a file finds it empty when another has its name. */
static void an_extent_survives_the_end_of_an_earlier_file(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;
	int err;

	start(f, 0, DISK_CODEC_OFF);
	memset(f->buf, 7, 1 << 20);
	for (uint32_t no = 0; no < 2; no++)
		assert_int_equal(put_extent(f, 50, no, f->buf), 0);
	punch_waits = 1;
	assert_int_equal(pthread_create(&thread, NULL, drop_one, f), 0);
	while (__atomic_load_n(&punch_waits, __ATOMIC_SEQ_CST) != 2)
		usleep(1000);
	disk_drop(f->disk, 0, extent_key(50, 0));   /* nothing is left: the file goes */
	err = put(f, 50, 1, 1 << 20, 3 << 20, 5);   /* ... and comes back */
	__atomic_store_n(&punch_waits, 0, __ATOMIC_SEQ_CST);
	pthread_join(thread, NULL);
	assert_int_equal(err, 0);
	assert_int_equal(get(f, 50, 1, 1 << 20, 3 << 20, 5), 0);
	stop(f);
}

static void put_all(struct fixture *f, uint64_t ino)
{
	memset(f->buf, 7, 1 << 20);
	for (uint32_t no = 0; no < 3; no++)
		assert_int_equal(put_extent(f, ino, no, f->buf), 0);
}

/* (E): only what is complete is lent, and what is lent is not dropped. */
static void a_lent_object_stays(void **state)
{
	struct fixture *f = *state;
	uint8_t byte[2];
	int fd, again;

	start(f, 0, DISK_CODEC_OFF);
	memset(f->buf, 7, 1 << 20);
	assert_int_equal(disk_whole_open(f->disk, 50, 1, 3 << 20, true, &fd), -ENOENT);
	for (uint32_t no = 0; no < 3; no++) {
		assert_int_equal(disk_whole_open(f->disk, 50, 1, 3 << 20, true, &fd), -ENOENT);
		assert_int_equal(put_extent(f, 50, no, f->buf), 0);
	}
	assert_int_equal(disk_whole_open(f->disk, 50, 2, 3 << 20, true, &fd), -ENOENT);
	assert_int_equal(disk_whole_open(f->disk, 50, 1, 4 << 20, true, &fd), -ENOENT);
	assert_int_equal(disk_whole_open(f->disk, 50, 1, 3 << 20, false, &fd), 0);
	assert_int_equal(disk_whole_open(f->disk, 50, 1, 3 << 20, false, &again), 0);
	assert_int_equal(disk_drop(f->disk, 0, extent_key(50, 1)), 0);
	disk_whole_close(f->disk, 50);
	close(again);
	assert_int_equal(disk_drop(f->disk, 0, extent_key(50, 1)), 0);
	assert_int_equal(pread(fd, byte, 2, (2 << 20) - 1), 2);
	assert_int_equal(byte[0] + byte[1], 14);
	disk_whole_close(f->disk, 50);
	/* given back, but somebody has the descriptor: an earlier daemon's kernel, for one */
	assert_int_equal(disk_drop(f->disk, 0, extent_key(50, 1)), 1 << 20);
	assert_int_equal(pread(fd, byte, 2, (2 << 20) - 1), 2);
	assert_int_equal(byte[0] + byte[1], 14);
	assert_int_equal(disk_whole_open(f->disk, 50, 1, 3 << 20, true, &again), -ENOENT);
	close(fd);
	assert_int_equal(stats_read(f->stats, STAT_DISK_CORRUPT), 0);
	stop(f);
}

static void *churn_and_read(void *arg)
{
	struct fixture *f = arg;
	void *buf = aligned_alloc(4096, 1 << 20), *other = aligned_alloc(4096, 1 << 20);

	memset(buf, 7, 1 << 20);
	for (int i = 0; i < 400; i++) {
		struct waiter w = WAITER_INIT;
		struct disk_io io = { .key = extent_key(50, 1), .version = 1, .object_bytes = 3 << 20, .buf = other, .len = 1 << 20,
				      .done = done, .arg = &w };

		/* dropped while it is read, and back before the reader has left */
		disk_read(f->disk, &io);
		disk_drop(f->disk, 0, extent_key(50, 1));
		put_extent(f, 50, 1, buf);
		waiter_wait(&w, 1);
	}
	free(buf);
	free(other);
	__atomic_store_n(&f->is_over, true, __ATOMIC_SEQ_CST);
	return NULL;
}

/* (E) while an extent leaves and comes back all the time: whenever the object is lent its bytes are all there. */
static void what_is_lent_is_all_there(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;
	unsigned lent = 0, wrong = 0;
	bool is_over;

	start(f, 0, DISK_CODEC_OFF);
	put_all(f, 50);
	assert_int_equal(pthread_create(&thread, NULL, churn_and_read, f), 0);
	do {
		int fd;

		is_over = __atomic_load_n(&f->is_over, __ATOMIC_SEQ_CST);
		if (disk_whole_open(f->disk, 50, 1, 3 << 20, true, &fd))
			continue;
		lent++;
		wrong += pread(fd, f->buf, 1 << 20, 1 << 20) != 1 << 20;
		for (size_t k = 0; k < 1 << 20; k += 4096)
			wrong += ((uint8_t *)f->buf)[k] != 7;
		close(fd);
		disk_whole_close(f->disk, 50);
	} while (!is_over);
	pthread_join(thread, NULL);
	assert_true(lent > 0);
	assert_int_equal(wrong, 0);
	assert_int_equal(stats_read(f->stats, STAT_DISK_CORRUPT), 0);
	stop(f);
}

/* Two directories, at places 0 and 1. */
struct pair {
	struct disk_dir dir[2];
	struct stats *stats;
	struct disk *disk;
	unsigned lost;             /* a bit for each */
};

static void note_lost(void *arg, unsigned dir)
{
	__atomic_fetch_or(&((struct pair *)arg)->lost, 1u << dir, __ATOMIC_SEQ_CST);
}

static void pair_start(struct pair *p)
{
	struct disk_config cfg = { .dirs = p->dir, .dir_count = 2, .codec = DISK_CODEC_OFF, .lost = note_lost, .arg = p };
	char msg[256] = "";

	assert_int_equal(stats_new(&p->stats), 0);
	for (int i = 0; i < 2; i++) {
		struct disk_dir *d = &p->dir[i];

		*d = (struct disk_dir){ .path = scratch_path(i ? "d1" : "d0"), .weight = 1, .place = i, .node = i };
		mkdir(d->path, 0700);
		d->fd = open(d->path, O_RDONLY | O_DIRECTORY);
		assert_int_equal(store_open(d->fd, d->path, "index", &d->store, &d->was_clean, msg, sizeof(msg)), 0);
	}
	assert_int_equal(disk_open(&cfg, p->stats, &p->disk, msg, sizeof(msg)), 0);
}

static void pair_stop(struct pair *p)
{
	disk_close(p->disk);
	for (int i = 0; i < 2; i++) {
		store_close(p->dir[i].store);
		close(p->dir[i].fd);
	}
	stats_free(p->stats);
}

static int pair_put(struct pair *p, uint64_t key, uint64_t object_bytes, unsigned dir, void *buf)
{
	struct waiter w = WAITER_INIT;
	struct disk_io io = { .key = key, .version = 1, .object_bytes = object_bytes, .buf = buf, .len = 4096, .done = done,
			      .arg = &w, .room = disk_reserve(p->disk, dir, 4096) };

	assert_true(io.room.bytes);
	disk_write(p->disk, &io);
	return waiter_wait(&w, 1);
}

static void the_readers_place_comes_first(void **state)
{
	struct fixture *f = *state;
	struct disk_choice c;
	struct pair p = { .lost = 0 };
	unsigned first[2] = { 0, 0 };

	pair_start(&p);
	for (unsigned ino = 10; ino < 210; ino++) {
		for (int place = 0; place < 2; place++) {
			disk_choose(p.disk, extent_key(ino, 0), 4096, place, &c);
			assert_int_equal(c.count, 2);
			assert_int_equal(c.dir[0], place);
			assert_int_equal(c.dir[1], 1 - place);
			assert_false(c.is_tied);
		}
		disk_choose(p.disk, extent_key(ino, 0), 4096, -1, &c);
		first[c.dir[0]]++;
	}
	assert_in_range(first[0], 60, 140);   /* by hash */
	/* the extents of a large object stay together, whoever reads them */
	memset(f->buf, 7, 4096);
	assert_int_equal(pair_put(&p, extent_key(7, 1), 3 << 20, 1, f->buf), 0);
	disk_choose(p.disk, extent_key(7, 0), 3 << 20, 0, &c);
	assert_true(c.is_tied);
	assert_int_equal(c.dir[0], 1);
	assert_int_equal(disk_dir_of(p.disk, extent_key(7, 1)), 1);
	pair_stop(&p);
	pair_start(&p);   /* also when all that is known is the index */
	disk_choose(p.disk, extent_key(7, 0), 3 << 20, 0, &c);
	assert_true(c.is_tied);
	assert_int_equal(c.dir[0], 1);
	pair_stop(&p);
}

/* (F) */
static void a_deleted_directory_is_left_out(void **state)
{
	struct fixture *f = *state;
	struct disk_choice c;
	struct pair p = { .lost = 0 };
	char command[300];

	pair_start(&p);
	memset(f->buf, 7, 4096);
	for (unsigned dir = 0; dir < 2; dir++)
		assert_int_equal(pair_put(&p, extent_key(20 + dir, 0), 4096, dir, f->buf), 0);
	snprintf(command, sizeof(command), "rm -rf %s", scratch_path("d1"));
	assert_int_equal(system(command), 0);
	while (!__atomic_load_n(&p.lost, __ATOMIC_SEQ_CST)) {   /* looked for once a second */
		disk_publish(p.disk);
		usleep(1000);
	}
	assert_int_equal(p.lost, 2);
	assert_int_equal(stats_read(p.stats, STAT_DISK_WENT_DOWN), 1);
	assert_true(disk_has(p.disk, extent_key(20, 0), 1));
	assert_false(disk_has(p.disk, extent_key(21, 0), 1));
	assert_int_equal(disk_reserve(p.disk, 1, 4096).bytes, 0);
	disk_choose(p.disk, extent_key(21, 0), 4096, 1, &c);
	assert_int_equal(c.count, 1);
	assert_int_equal(c.dir[0], 0);
	assert_int_equal(pair_put(&p, extent_key(21, 0), 4096, 0, f->buf), 0);
	assert_true(disk_has(p.disk, extent_key(21, 0), 1));
	pair_stop(&p);
}

static int damage_mode;

static int damage(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)ftw;
	if (type != FTW_F || !st->st_size || (!strstr(path, "/segments/") && !strstr(path, "/objects/")))
		return 0;
	if (damage_mode == 0) {   /* a flipped bit in each page */
		int fd = open(path, O_RDWR);
		uint8_t byte;

		for (off_t at = 100; at < st->st_size; at += 4096) {
			if (pread(fd, &byte, 1, at) == 1) {
				byte ^= 0x10;
				if (pwrite(fd, &byte, 1, at) != 1)
					return 1;
			}
		}
		close(fd);
		return 0;
	}
	return damage_mode == 1 ? truncate(path, st->st_size / 2 - 5000) : unlink(path);
}

/* (A): flipped, cut and deleted files are noticed, counted and forgotten. */
static void damage_is_never_served(void **state)
{
	struct fixture *f = *state;

	for (damage_mode = 0; damage_mode < 3; damage_mode++) {
		unsigned lost = 0;

		start(f, 0, DISK_CODEC_AUTO);
		for (unsigned i = 0; i < 10; i++)
			assert_int_equal(put(f, 100 + i, 1, 150000, i % 2 ? 150000 : 3 << 20, i), 0);
		stop(f);
		assert_int_equal(nftw(scratch_path("c"), damage, 16, FTW_PHYS), 0);
		start(f, 0, DISK_CODEC_AUTO);
		for (unsigned i = 0; i < 10; i++) {
			int err = get(f, 100 + i, 1, 150000, i % 2 ? 150000 : 3 << 20, i);

			assert_true(!err || err == -EBADMSG || err == -ENOENT);
			if (err) {
				lost++;
				assert_false(disk_has(f->disk, extent_key(100 + i, 0), 1));
				assert_int_equal(put(f, 100 + i, 1, 150000, i % 2 ? 150000 : 3 << 20, i), 0);
				assert_int_equal(get(f, 100 + i, 1, 150000, i % 2 ? 150000 : 3 << 20, i), 0);
			}
		}
		assert_true(lost >= (damage_mode == 1 ? 5 : 10));
		assert_true(stats_read(f->stats, STAT_DISK_CORRUPT) > 0);
		stop(f);
	}
}

/* In doubt an object is verified before it is lent; damage is forgotten, and what replaces it lent. */
static void damage_is_never_lent(void **state)
{
	struct fixture *f = *state;
	int fd;

	for (damage_mode = 0; damage_mode < 3; damage_mode++) {
		f->verify_all = false;
		start(f, 0, DISK_CODEC_OFF);
		put_all(f, 60);
		put_all(f, 61);
		stop(f);
		f->verify_all = true;
		start(f, 0, DISK_CODEC_OFF);
		assert_int_equal(disk_whole_open(f->disk, 61, 1, 3 << 20, false, &fd), -EAGAIN);
		assert_int_equal(disk_whole_open(f->disk, 61, 1, 3 << 20, true, &fd), 0);
		assert_int_equal(stats_read(f->stats, STAT_DISK_VERIFIED), 3);
		close(fd);
		disk_whole_close(f->disk, 61);
		assert_int_equal(disk_whole_open(f->disk, 61, 1, 3 << 20, false, &fd), 0);   /* once is enough */
		close(fd);
		disk_whole_close(f->disk, 61);
		assert_int_equal(nftw(scratch_path("c"), damage, 16, FTW_PHYS), 0);
		if (damage_mode == 2) {   /* the file is gone: the daemon's reads find out, extent by extent */
			assert_int_equal(disk_whole_open(f->disk, 60, 1, 3 << 20, true, &fd), -ENOENT);
		} else {
			assert_int_equal(disk_whole_open(f->disk, 60, 1, 3 << 20, true, &fd), -EBADMSG);
			assert_int_equal(disk_whole_open(f->disk, 60, 1, 3 << 20, true, &fd), -ENOENT);
			assert_int_equal(stats_read(f->stats, STAT_DISK_CORRUPT), 1);
		}
		put_all(f, 60);
		assert_int_equal(disk_whole_open(f->disk, 60, 1, 3 << 20, true, &fd), 0);
		close(fd);
		disk_whole_close(f->disk, 60);
		stop(f);
		/* after a clean stop a file of the wrong length still raises doubt */
		f->verify_all = false;
		start(f, 0, DISK_CODEC_OFF);
		if (damage_mode == 1) {
			assert_int_equal(nftw(scratch_path("c"), damage, 16, FTW_PHYS), 0);
			assert_int_equal(disk_whole_open(f->disk, 60, 1, 3 << 20, false, &fd), -EAGAIN);
			assert_int_equal(disk_whole_open(f->disk, 60, 1, 3 << 20, true, &fd), -EBADMSG);
		}
		stop(f);
	}
}

struct op {
	struct diskio_op op;
	struct waiter *waiter;
};

static void op_done(struct diskio_op *op, int err)
{
	waiter_done(((struct op *)op)->waiter, err);
}

/* The ring and the threads do the same. */
static void transfers_are_whole(void **state)
{
	enum { OPS = 200, LEN = 50000 };
	struct fixture *f = *state;
	static struct op op[OPS];
	static uint8_t data[OPS][LEN];

	(void)f;
	for (int threads = 0; threads < 2; threads++) {
		int fd = open(scratch_path("io"), O_RDWR | O_CREAT | O_TRUNC, 0600);
		struct waiter w = WAITER_INIT;
		struct diskio *io;

		assert_int_equal(diskio_new(threads, "test", NULL, &io), 0);
		for (unsigned i = 0; i < OPS; i++) {
			for (unsigned k = 0; k < LEN; k++)
				data[i][k] = content_at(i, k);
			op[i] = (struct op){ { .fd = fd, .is_write = true, .buf = data[i], .len = LEN, .offset = (uint64_t)i * LEN,
					       .done = op_done }, &w };
			diskio_submit(io, &op[i].op);
		}
		assert_int_equal(waiter_wait(&w, OPS), 0);
		memset(data, 0, sizeof(data));
		for (unsigned i = 0; i < OPS; i++) {
			op[i].op = (struct diskio_op){ .fd = fd, .buf = data[i], .len = LEN, .offset = (uint64_t)i * LEN, .done = op_done };
			diskio_submit(io, &op[i].op);
		}
		assert_int_equal(waiter_wait(&w, 2 * OPS), 0);
		for (unsigned i = 0; i < OPS; i++)
			assert_true(content_is(data[i], i, 0, LEN));
		op[0].op = (struct diskio_op){ .fd = fd, .buf = data[0], .len = LEN, .offset = (uint64_t)OPS * LEN - 10, .done = op_done };
		diskio_submit(io, &op[0].op);
		assert_int_equal(waiter_wait(&w, 2 * OPS + 1), -ENODATA);
		diskio_free(io);
		close(fd);
	}
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(what_is_written_is_read_back),
		CASE(what_is_on_disk_is_read_past_the_page_cache),
		CASE(what_is_cut_short_is_damaged_past_the_page_cache_too),
		CASE(a_settled_segment_is_not_kept_twice),
		CASE(space_is_given_back),
		CASE(the_limit_is_hard),
		CASE(an_extent_survives_its_neighbours_end),
		CASE(an_extent_survives_the_end_of_an_earlier_file),
		CASE(a_lent_object_stays),
		CASE(what_is_lent_is_all_there),
		CASE(damage_is_never_served),
		CASE(damage_is_never_lent),
		CASE(the_readers_place_comes_first),
		CASE(a_deleted_directory_is_left_out),
		CASE(transfers_are_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

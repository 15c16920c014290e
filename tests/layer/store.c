/* SPDX-License-Identifier: Apache-2.0 */
/* Cache directories and the index in them: whose they are, and what happens when they are damaged. */
#include "cache/store.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cache/cachedir.h"
#include "tests/layer/layer.h"
#include "tests/unit/test.h"

static int set_up(void **state)
{
	(void)state;
	scratch_make();
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	scratch_remove();
	return 0;
}

static void a_directory_has_one_owner_and_one_origin(void **state)
{
	struct cachedir d, other;
	char msg[256] = "";
	struct stat st;

	(void)state;
	assert_int_equal(cachedir_open(scratch_path("c"), "one", &d, msg, sizeof(msg)), 0);
	assert_int_equal(stat(scratch_path("c"), &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(cachedir_open(scratch_path("c"), "one", &other, msg, sizeof(msg)), -EBUSY);
	assert_non_null(strstr(msg, "c"));
	cachedir_close(&d);
	assert_int_equal(cachedir_open(scratch_path("c"), "two", &other, msg, sizeof(msg)), -EEXIST);
	assert_int_equal(cachedir_open(scratch_path("c"), "one", &d, msg, sizeof(msg)), 0);
	cachedir_close(&d);
	assert_int_equal(chmod(scratch_path("c"), 0755), 0);
	assert_int_equal(cachedir_open(scratch_path("c"), "one", &d, msg, sizeof(msg)), -EPERM);
	/* somebody's files are not ours to evict */
	assert_int_equal(mkdir(scratch_path("home"), 0700), 0);
	file_make("home/thesis", 10, 1);
	assert_int_equal(cachedir_open(scratch_path("home"), "one", &d, msg, sizeof(msg)), -EEXIST);
	file_make("file", 1, 1);
	assert_true(cachedir_open(scratch_path("file"), "one", &d, msg, sizeof(msg)) < 0);
}

static void copy(const char *from, const char *to)
{
	char command[512];

	snprintf(command, sizeof(command), "cp -a %s %s", from, to);
	assert_int_equal(system(command), 0);
}

/* Twice, within one another, copied: neither knows what the other does with the same bytes. */
static void directories_are_apart(void **state)
{
	char msg[256] = "";
	struct cachedir d, other;
	struct statx stx;

	(void)state;
	assert_int_equal(cachedir_open(scratch_path("c"), "one", &d, msg, sizeof(msg)), 0);
	assert_int_equal(cachedir_open(scratch_path("c/a/b"), "one", &other, msg, sizeof(msg)), -EEXIST);
	assert_non_null(strstr(msg, "inside another"));
	assert_int_equal(cachedir_open(scratch_path(""), "one", &other, msg, sizeof(msg)), -EEXIST);
	assert_non_null(strstr(msg, "not empty"));
	cachedir_close(&d);
	if (statx(AT_FDCWD, scratch_path("c"), 0, STATX_BTIME, &stx) || !(stx.stx_mask & STATX_BTIME))
		return;
	copy(scratch_path("c"), scratch_path("copy"));
	assert_int_equal(cachedir_open(scratch_path("copy"), "one", &other, msg, sizeof(msg)), 0);
	assert_true(other.is_copy);
	assert_int_equal(cachedir_adopt(&other, "one"), 0);
	cachedir_close(&other);
	assert_int_equal(cachedir_open(scratch_path("copy"), "one", &other, msg, sizeof(msg)), 0);
	assert_false(other.is_copy);
	cachedir_close(&other);
	assert_int_equal(rename(scratch_path("c"), scratch_path("moved")), 0);
	assert_int_equal(cachedir_open(scratch_path("moved"), "one", &d, msg, sizeof(msg)), 0);
	cachedir_close(&d);
	/* a tag from before it said where it is */
	file_make("old/x", 1, 1);
	assert_int_equal(chmod(scratch_path("old"), 0700), 0);
	{
		int fd = open(scratch_path("old/" CACHEDIR_TAG), O_CREAT | O_WRONLY, 0600);

		assert_int_equal(dprintf(fd, "hopperfs cache, format 1\none\n"), 29);
		close(fd);
	}
	assert_int_equal(cachedir_open(scratch_path("old"), "one", &d, msg, sizeof(msg)), 0);
	cachedir_close(&d);
}

static struct store *open_store(bool *ret_was_clean)
{
	char msg[256] = "";
	struct store *s;
	int fd, rc;

	mkdir(scratch_path("c"), 0700);
	fd = open(scratch_path("c"), O_RDONLY | O_DIRECTORY);
	rc = store_open(fd, scratch_path("c"), "index", &s, ret_was_clean, msg, sizeof(msg));
	if (rc)
		fail_msg("%d %s", rc, msg);
	close(fd);
	return s;
}

static void values_outlive_the_store(void **state)
{
	struct store *s;
	bool was_clean;
	char buf[16];
	size_t len;

	(void)state;
	s = open_store(&was_clean);
	assert_int_equal(store_meta_get(s, "k", buf, sizeof(buf), &len), -ENOENT);
	assert_int_equal(store_meta_put(s, "k", "value", 5), 0);
	store_close(s);
	s = open_store(&was_clean);
	assert_true(was_clean);
	assert_int_equal(store_meta_get(s, "k", buf, sizeof(buf), &len), 0);
	assert_int_equal(len, 5);
	assert_memory_equal(buf, "value", 5);
	store_close(s);
}

/* A damaged index is set aside, and the cache begins anew. */
static void damage_is_set_aside(void **state)
{
	struct store *s;
	bool was_clean;
	char zeros[4096] = { 0 };
	int fd;

	(void)state;
	s = open_store(&was_clean);
	assert_int_equal(store_meta_put(s, "k", "value", 5), 0);
	store_close(s);
	fd = open(scratch_path("c/index/data.mdb"), O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 0), sizeof(zeros));
	assert_int_equal(pwrite(fd, zeros, sizeof(zeros), 4096), sizeof(zeros));
	close(fd);
	s = open_store(&was_clean);
	assert_false(was_clean);
	assert_int_equal(store_meta_put(s, "k", "value", 5), 0);
	store_close(s);
}

static int moved_to = -1;

static int moving(void *arg, struct store *fresh, unsigned at)
{
	assert_null(arg);
	moved_to = (int)at;
	if (at == 0)
		return -ENOSPC;   /* the first spare is no better */
	return store_meta_put(fresh, "session", "new", 3);
}

/* What was committed is there after a move, and only the handle that moved writes there. */
static void a_store_moves_with_all_it_has(void **state)
{
	struct store_spare spare[2];
	struct store *s, *names;
	bool was_clean;
	char buf[16];
	size_t len;

	(void)state;
	s = open_store(&was_clean);
	assert_int_equal(store_share(s, &names), 0);
	assert_int_equal(store_meta_put(names, "k", "value", 5), 0);
	assert_int_equal(store_move(names, 0, -EROFS), -EROFS);   /* nowhere to go */
	for (unsigned i = 0; i < 2; i++) {
		spare[i].dir_path = scratch_path(i ? "second" : "first");
		assert_int_equal(mkdir(spare[i].dir_path, 0700), 0);
		spare[i].dir_fd = open(spare[i].dir_path, O_RDONLY | O_DIRECTORY);
	}
	store_set_spares(names, spare, 2, moving, NULL);
	assert_int_equal(store_move(names, 0, -ESTALE), -ESTALE);   /* says nothing of the disk */
	assert_int_equal(store_moves(names), 0);
	assert_int_equal(store_move(names, 0, -EROFS), 0);
	assert_int_equal(moved_to, 1);
	assert_int_equal(store_moves(names), 1);
	assert_int_equal(store_move(names, 0, -EROFS), 0);        /* somebody else's failure, from before */
	assert_int_equal(store_move(names, 1, -EROFS), -EROFS);   /* once is enough */
	assert_int_equal(store_meta_get(names, "k", buf, sizeof(buf), &len), 0);
	assert_memory_equal(buf, "value", 5);
	assert_int_equal(store_meta_put(names, "k", "other", 5), 0);
	assert_int_equal(store_meta_get(s, "k", buf, sizeof(buf), &len), 0);
	assert_memory_equal(buf, "value", 5);
	assert_int_equal(faccessat(spare[0].dir_fd, STORE_MOVED, F_OK, 0), -1);
	store_close(names);
	store_close(s);
	{
		char msg[256] = "";

		assert_int_equal(store_open(spare[1].dir_fd, spare[1].dir_path, STORE_MOVED, &s, &was_clean, msg, sizeof(msg)), 0);
	}
	assert_true(was_clean);
	assert_int_equal(store_meta_get(s, "k", buf, sizeof(buf), &len), 0);
	assert_memory_equal(buf, "other", 5);
	assert_int_equal(store_meta_get(s, "session", buf, sizeof(buf), &len), 0);
	store_close(s);
	for (unsigned i = 0; i < 2; i++)
		close(spare[i].dir_fd);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(a_directory_has_one_owner_and_one_origin),
		CASE(directories_are_apart),
		CASE(values_outlive_the_store),
		CASE(damage_is_set_aside),
		CASE(a_store_moves_with_all_it_has),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

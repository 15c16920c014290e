/* SPDX-License-Identifier: Apache-2.0 */
/* Cache directories and the index in them: whose they are, and what happens when they are damaged. */
#include "cache/store.h"
#include <errno.h>
#include <fcntl.h>
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

static struct store *open_store(bool *ret_was_clean)
{
	char msg[256] = "";
	struct store *s;
	int fd, rc;

	mkdir(scratch_path("c"), 0700);
	fd = open(scratch_path("c"), O_RDONLY | O_DIRECTORY);
	rc = store_open(fd, scratch_path("c"), &s, ret_was_clean, msg, sizeof(msg));
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

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(a_directory_has_one_owner_and_one_origin),
		CASE(values_outlive_the_store),
		CASE(damage_is_set_aside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

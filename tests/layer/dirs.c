/* SPDX-License-Identifier: Apache-2.0 */
/* Cache directories between mounts: which belong together, and that no id is given out under which one of them has bytes. */
#include "cache/dirs.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "cache/cache.h"
#include "cache/store.h"
#include "tests/layer/layer.h"
#include "tests/unit/test.h"

static int set_up(void **state)
{
	(void)state;
	scratch_make();
	return 0;
}

static char *paths[64];        /* borrowed by the directories that are open */
static unsigned path_count;

static int tear_down(void **state)
{
	(void)state;
	while (path_count)
		free(paths[--path_count]);
	scratch_remove();
	return 0;
}

/* Of these letters, in this order; each has a directory. */
static struct dirs *open_dirs(const char *letters)
{
	struct cache_config cfg = { .identity = "one", .size_bytes = 30 << 20 };
	const char *path[8];
	char msg[256] = "", name[2] = "";
	struct dirs *d;
	int rc;

	for (; letters[cfg.dir_count]; cfg.dir_count++) {
		name[0] = letters[cfg.dir_count];
		path[cfg.dir_count] = paths[path_count++] = strdup(scratch_path(name));
	}
	cfg.dirs = path;
	rc = dirs_open(&cfg, &d, msg, sizeof(msg));
	if (rc)
		fail_msg("%d %s", rc, msg);
	return d;
}

static void put(struct store *s, const char *table, uint64_t key)
{
	MDB_val k = { sizeof(key), &key }, v = { 1, "x" };
	MDB_txn *txn;
	MDB_dbi dbi;

	assert_int_equal(store_table(s, table, MDB_INTEGERKEY, &dbi), 0);
	assert_int_equal(store_write_begin(s, &txn), 0);
	assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
	assert_int_equal(store_write_commit(s, txn), 0);
}

static uint64_t count(struct store *s, const char *table)
{
	MDB_stat st;
	MDB_txn *txn;
	MDB_dbi dbi;

	assert_int_equal(store_table(s, table, MDB_INTEGERKEY, &dbi), 0);
	assert_int_equal(store_read_begin(s, &txn), 0);
	assert_int_equal(mdb_stat(txn, dbi, &st), 0);
	store_read_end(s, txn);
	return st.ms_entries;
}

static struct store *index_of(struct dirs *d, unsigned at)
{
	const struct disk_dir *list;

	assert_true(at < dirs_list(d, &list));
	return list[at].store;
}

/* A mount of @letters that gives out id @ino and stores an extent under it in the directory @at. */
static void live(const char *letters, uint64_t ino, unsigned at)
{
	struct dirs *d = open_dirs(letters);

	put(dirs_home(d), "node", ino);
	put(index_of(d, at), "extent", extent_key(ino, 0));
	dirs_close(d);
}

static void copy(const char *from, const char *to)
{
	char command[600];

	snprintf(command, sizeof(command), "rm -rf %s/index && cp -a %s/index %s/index", scratch_path(to), scratch_path(from),
		 scratch_path(to));
	assert_int_equal(system(command), 0);
}

/* A mount that ended well left the names in another directory. */
static void home_may_be_away(void **state)
{
	struct dirs *d;

	(void)state;
	live("ab", 100, 1);
	live("ba", 101, 0);          /* another order: b's */
	live("a", 102, 0);           /* b is away */
	live("abc", 103, 2);         /* b is back, c is new */
	d = open_dirs("cb");
	assert_int_equal(count(dirs_home(d), "node"), 4);
	assert_int_equal(count(index_of(d, 0), "extent"), 1);
	assert_int_equal(count(index_of(d, 1), "extent"), 2);
	put(dirs_home(d), "node", 104);
	put(index_of(d, 0), "extent", extent_key(104, 0));
	dirs_close(d);
	d = open_dirs("abc");        /* the first is not up to date: b's names are */
	assert_int_equal(count(dirs_home(d), "node"), 5);
	assert_int_equal(count(index_of(d, 0), "extent"), 1);
	assert_int_equal(count(index_of(d, 1), "extent"), 2);
	assert_int_equal(count(index_of(d, 2), "extent"), 2);
	dirs_close(d);
}

static void without_names_nothing_is_known(void **state)
{
	struct dirs *d;

	(void)state;
	live("abc", 100, 2);
	d = open_dirs("c");          /* home and its copy are away */
	assert_int_equal(count(index_of(d, 0), "extent"), 0);
	dirs_close(d);
}

static void directories_come_and_go(void **state)
{
	struct dirs *d;

	(void)state;
	live("ab", 100, 1);
	live("ba", 101, 0);
	live("a", 102, 0);
	d = open_dirs("bca");
	assert_int_equal(count(index_of(d, 0), "extent"), 2);
	assert_int_equal(count(index_of(d, 2), "extent"), 1);
	assert_int_equal(count(dirs_home(d), "node"), 3);
	assert_int_equal(dirs_ids_from(d), 103);
	dirs_close(d);
}

/* New ids start above what any directory names, known to the namespace or not. */
static void no_id_is_used_again(void **state)
{
	struct dirs *d;

	(void)state;
	d = open_dirs("ab");
	put(dirs_home(d), "node", 1);
	put(index_of(d, 1), "extent", extent_key(5000, 7));
	dirs_close(d);
	d = open_dirs("ab");
	assert_int_equal(dirs_ids_from(d), 5001);
	dirs_close(d);
}

/* A namespace that went back in time gives out the same ids again: what others hold from its lost future is dropped. */
static void a_restored_namespace_is_another(void **state)
{
	struct dirs *d;

	(void)state;
	live("ab", 100, 1);
	mkdir(scratch_path("backup"), 0700);
	copy("a", "backup");
	live("ab", 101, 1);
	copy("backup", "a");
	d = open_dirs("ab");         /* b's copy of the names is younger: that one counts */
	assert_int_equal(count(dirs_home(d), "node"), 2);
	assert_int_equal(count(index_of(d, 1), "extent"), 2);
	dirs_close(d);
	copy("backup", "a");
	for (const char *const *name = (const char *const []){ "a", "b", NULL }; *name; name++) {
		char command[300];

		snprintf(command, sizeof(command), "rm -rf %s/names", scratch_path(*name));
		assert_int_equal(system(command), 0);
	}
	d = open_dirs("ab");
	assert_int_equal(count(index_of(d, 1), "extent"), 0);
	dirs_close(d);
}

/* Two caches that grew apart have the same ids for different files: one of them is kept. */
static void strangers_are_not_mixed(void **state)
{
	struct dirs *d;

	(void)state;
	live("a", 100, 0);
	live("b", 100, 0);
	d = open_dirs("ab");
	assert_int_equal(count(index_of(d, 0), "extent"), 1);
	assert_int_equal(count(index_of(d, 1), "extent"), 0);
	assert_int_equal(count(index_of(d, 1), "node"), 0);
	dirs_close(d);
}

/* A namespace that moved is the one; the one it left, going on alone, becomes a stranger. */
static void the_one_that_moved_counts(void **state)
{
	struct dirs *d;

	(void)state;
	live("abc", 100, 0);
	d = open_dirs("abc");
	assert_int_equal(store_move(dirs_home(d), 0, -ENOSPC), 0);
	put(dirs_home(d), "node", 101);
	put(index_of(d, 2), "extent", extent_key(101, 0));
	dirs_close(d);
	d = open_dirs("abc");
	assert_int_equal(count(dirs_home(d), "node"), 2);
	assert_int_equal(count(index_of(d, 0), "extent"), 1);
	assert_int_equal(count(index_of(d, 2), "extent"), 1);
	dirs_close(d);
}

static void the_one_that_was_left_is_a_stranger(void **state)
{
	struct dirs *d;

	(void)state;
	live("ab", 100, 0);
	d = open_dirs("ab");
	assert_int_equal(store_move(dirs_home(d), 0, -EIO), 0);
	put(dirs_home(d), "node", 101);
	put(index_of(d, 1), "extent", extent_key(101, 0));
	dirs_close(d);
	live("a", 101, 0);   /* its own 101 */
	d = open_dirs("ba");
	assert_int_equal(count(index_of(d, 0), "extent"), 1);
	assert_int_equal(count(index_of(d, 1), "extent"), 0);
	dirs_close(d);
}

static void size_is_shared(void **state)
{
	const struct disk_dir *list;
	struct dirs *d;

	(void)state;
	d = open_dirs("abc");
	assert_int_equal(dirs_list(d, &list), 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(list[i].limit_bytes, 10 << 20);
	dirs_close(d);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(home_may_be_away),
		CASE(without_names_nothing_is_known),
		CASE(directories_come_and_go),
		CASE(no_id_is_used_again),
		CASE(a_restored_namespace_is_another),
		CASE(strangers_are_not_mixed),
		CASE(the_one_that_moved_counts),
		CASE(the_one_that_was_left_is_a_stranger),
		CASE(size_is_shared),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

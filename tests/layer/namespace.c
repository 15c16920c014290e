/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/namespace.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "cache/store.h"
#include "lib/clock.h"
#include "lib/stats.h"
#include "tests/layer/layer.h"
#include "tests/unit/test.h"

enum { FILES = 1500 };

struct fixture {
	struct stats *stats;
	struct origin *origin;
	struct store *store;
	struct ns *ns;
	int dir_fd;
};

/* A stand-in for a file system without. */
static bool has_no_acls;

static void start(struct fixture *f, uint64_t ttl_ns)
{
	struct ns_config cfg = { .meta_ttl_ns = ttl_ns, .check_data_on_open = true };
	char msg[256] = "";
	bool was_clean;

	mkdir(scratch_path("c"), 0700);
	f->dir_fd = open(scratch_path("c"), O_RDONLY | O_DIRECTORY);
	assert_int_equal(stats_new(&f->stats), 0);
	assert_int_equal(origin_open(scratch_path("o"), f->stats, &f->origin, msg, sizeof(msg)), 0);
	f->origin->has_acls &= !has_no_acls;
	assert_int_equal(store_open(f->dir_fd, scratch_path("c"), "index", &f->store, &was_clean, msg, sizeof(msg)), 0);
	assert_int_equal(ns_open(f->store, f->origin, &cfg, f->stats, &f->ns), 0);
}

static void stop(struct fixture *f)
{
	ns_close(f->ns);
	store_close(f->store);
	origin_close(f->origin);
	stats_free(f->stats);
	close(f->dir_fd);
}

static int set_up(void **state)
{
	char name[64];

	scratch_make();
	for (int i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "o/d/f%05d", i);
		file_make(name, (size_t)i % 7, 1);
	}
	file_make("o/e/x", 3, 1);
	if (symlink("d/f00001", scratch_path("o/link")))
		return 1;
	*state = calloc(1, sizeof(struct fixture));
	return 0;
}

static int tear_down(void **state)
{
	free(*state);
	scratch_remove();
	return 0;
}

static uint64_t origin_calls(struct fixture *f)
{
	return stats_read(f->stats, STAT_ORIGIN_META_REQUESTS);
}

struct listing {
	uint64_t ino[FILES + 10];
	char last[256];
	size_t count;
	bool is_out_of_order;
};

static int emit(void *arg, const char *name, const struct ns_attr *attr)
{
	struct listing *l = arg;

	l->is_out_of_order |= l->count && (attr->ino <= l->ino[l->count - 1] || strcmp(name, l->last) <= 0);
	l->ino[l->count++] = attr->ino;
	snprintf(l->last, sizeof(l->last), "%s", name);
	return 0;
}

/* (B): after one listing every lookup is local, of absent names too; ids are one ascending range. */
static void one_listing_answers_everything(void **state)
{
	static struct listing l;
	struct fixture *f = *state;
	struct ns_attr dir, a;
	struct ns_range range[4];
	uint64_t calls;
	char name[64];

	start(f, 3600 * NSEC_PER_SEC);
	assert_int_equal(ns_lookup(f->ns, NS_ROOT, "d", NS_NOWAIT, &dir), -EAGAIN);
	assert_int_equal(ns_lookup(f->ns, NS_ROOT, "d", 0, &dir), 0);
	assert_int_equal(ns_list(f->ns, dir.ino, NS_NOWAIT), -EAGAIN);
	assert_int_equal(ns_list(f->ns, dir.ino, 0), 0);
	calls = origin_calls(f);
	memset(&l, 0, sizeof(l));
	assert_int_equal(ns_readdir(f->ns, dir.ino, NS_ROOT, emit, &l), 0);
	assert_int_equal(l.count, FILES);
	assert_false(l.is_out_of_order);
	assert_int_equal(ns_ranges(f->ns, dir.ino, range, 4), 1);
	assert_int_equal(range[0].first, l.ino[0]);
	assert_int_equal(range[0].count, FILES);
	for (int i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "f%05d", i);
		assert_int_equal(ns_lookup(f->ns, dir.ino, name, NS_NOWAIT, &a), 0);
		assert_int_equal(a.ino, l.ino[i]);
		assert_int_equal(a.version.size, i % 7);
		assert_true(S_ISREG(a.mode));
	}
	assert_int_equal(ns_lookup(f->ns, dir.ino, "absent", NS_NOWAIT, &a), -ENOENT);
	assert_int_equal(origin_calls(f), calls);
	assert_int_equal(ns_lookup(f->ns, l.ino[0], "x", 0, &a), -ENOTDIR);
	/* a cookie goes on where it stopped */
	memset(&l, 0, sizeof(l));
	ns_readdir(f->ns, dir.ino, range[0].first + 9, emit, &l);
	assert_int_equal(l.count, FILES - 10);
	stop(f);
}

/* (A), (C): ids are the same after a restart. */
static void ids_survive_a_restart(void **state)
{
	struct fixture *f = *state;
	struct ns_attr dir, a, again;
	char path[64], target[64];

	start(f, 3600 * NSEC_PER_SEC);
	assert_int_equal(ns_lookup(f->ns, NS_ROOT, "d", 0, &dir), 0);
	assert_int_equal(ns_lookup(f->ns, dir.ino, "f00077", 0, &a), 0);
	stop(f);
	start(f, 3600 * NSEC_PER_SEC);
	assert_int_equal(ns_getattr(f->ns, a.ino, NS_NOWAIT, &again), 0);
	assert_int_equal(again.version.size, a.version.size);
	assert_int_equal(ns_path(f->ns, a.ino, path, sizeof(path)), 0);
	assert_string_equal(path, "d/f00077");
	assert_int_equal(ns_path(f->ns, a.ino, path, 5), -ENAMETOOLONG);
	assert_int_equal(ns_path(f->ns, NS_ROOT, path, sizeof(path)), 0);
	assert_string_equal(path, "");
	assert_int_equal(ns_lookup(f->ns, dir.ino, "f00077", NS_NOWAIT, &again), 0);
	assert_int_equal(again.ino, a.ino);
	assert_int_equal(ns_lookup(f->ns, NS_ROOT, "link", 0, &a), 0);
	assert_int_equal(ns_readlink(f->ns, a.ino, 0, target, sizeof(target)), 0);
	assert_string_equal(target, "d/f00001");
	assert_int_equal(ns_getattr(f->ns, 1ULL << 40, 0, &a), -ESTALE);
	stop(f);
}

/* (C): a changed file has a new id under its name; the old id keeps its version, st_ino stays. */
static void a_changed_file_gets_a_new_id(void **state)
{
	struct fixture *f = *state;
	struct ns_attr dir, old, new;

	start(f, NSEC_PER_MSEC);
	assert_int_equal(ns_lookup(f->ns, NS_ROOT, "e", 0, &dir), 0);
	assert_int_equal(ns_lookup(f->ns, dir.ino, "x", 0, &old), 0);
	usleep(20000);
	assert_int_equal(ns_check(f->ns, old.ino, 0, &new), 0);
	file_make("o/e/x", 30, 2);
	usleep(20000);
	assert_int_equal(ns_check(f->ns, old.ino, NS_NOWAIT, &new), -EAGAIN);
	assert_int_equal(ns_check(f->ns, old.ino, 0, &new), -ESTALE);
	assert_int_equal(ns_lookup(f->ns, dir.ino, "x", 0, &new), 0);
	assert_int_not_equal(new.ino, old.ino);
	assert_int_equal(new.st_ino, old.st_ino);
	assert_int_equal(new.version.size, 30);
	assert_int_equal(ns_getattr(f->ns, old.ino, NS_NOCHECK, &new), 0);
	assert_int_equal(new.version.size, 3);
	/* gone, come, and gone again */
	assert_int_equal(unlink(scratch_path("o/e/x")), 0);
	file_make("o/e/y", 1, 1);
	usleep(20000);
	assert_int_equal(ns_lookup(f->ns, dir.ino, "x", 0, &new), -ENOENT);
	assert_int_equal(ns_lookup(f->ns, dir.ino, "y", 0, &new), 0);
	stop(f);
}

static void bad_names_are_refused(void **state)
{
	struct fixture *f = *state;
	char longest[300];
	struct ns_attr a;

	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = 0;
	start(f, 3600 * NSEC_PER_SEC);
	assert_int_equal(ns_lookup(f->ns, NS_ROOT, longest, 0, &a), -ENAMETOOLONG);
	longest[255] = 0;
	assert_int_equal(ns_lookup(f->ns, NS_ROOT, longest, 0, &a), -ENOENT);
	assert_true(ns_lookup(f->ns, NS_ROOT, "../c", 0, &a) < 0);
	assert_true(ns_lookup(f->ns, NS_ROOT, "d/f00001", 0, &a) < 0);
	stop(f);
}

/* An origin that cannot say what f00007 is. */
static const struct origin_ops *real_ops;
static bool is_failing;

static int failing_list(struct origin *o, const char *path, struct origin_listing *ret_listing)
{
	int rc = real_ops->list(o, path, ret_listing);

	for (size_t i = 0; is_failing && !rc && i < ret_listing->count; i++) {
		if (strcmp(ret_listing->entry[i].name, "f00007"))
			continue;
		origin_attr_clear(&ret_listing->entry[i].attr);
		ret_listing->entry[i].err = -EIO;
	}
	return rc;
}

static int failing_stat(struct origin *o, const char *path, struct origin_attr *ret_attr)
{
	return is_failing && strstr(path, "f00007") ? -EIO : real_ops->stat(o, path, ret_attr);
}

/* What could not be asked about is neither absent, nor gone if it was there before. */
static void an_error_is_not_an_absence(void **state)
{
	struct fixture *f = *state;
	struct ns_attr dir, a, before, other;
	struct origin_ops ops;

	start(f, 3600 * NSEC_PER_SEC);
	real_ops = f->origin->ops;
	ops = *real_ops;
	ops.list = failing_list;
	ops.stat = failing_stat;
	f->origin->ops = &ops;
	is_failing = true;
	assert_int_equal(ns_lookup(f->ns, NS_ROOT, "d", 0, &dir), 0);
	assert_int_equal(ns_lookup(f->ns, dir.ino, "f00007", 0, &a), -EIO);
	assert_int_equal(ns_lookup(f->ns, dir.ino, "f00007", 0, &a), -EIO);
	assert_int_equal(ns_lookup(f->ns, dir.ino, "f00008", NS_NOWAIT, &other), 0);
	assert_int_equal(ns_lookup(f->ns, dir.ino, "none", 0, &a), -ENOENT);
	is_failing = false;
	assert_int_equal(ns_lookup(f->ns, dir.ino, "f00007", 0, &before), 0);
	is_failing = true;
	assert_int_equal(ns_list(f->ns, dir.ino, 0), 0);
	assert_int_equal(ns_lookup(f->ns, dir.ino, "f00007", 0, &a), 0);
	assert_int_equal(a.ino, before.ino);
	assert_int_equal(ns_lookup(f->ns, dir.ino, "f00008", NS_NOWAIT, &a), 0);
	assert_int_equal(a.ino, other.ino);
	is_failing = false;
	assert_int_equal(ns_list(f->ns, dir.ino, 0), 0);
	assert_int_equal(ns_lookup(f->ns, dir.ino, "none", NS_NOWAIT, &a), -ENOENT);
	f->origin->ops = real_ops;
	stop(f);
}

/* user::rw- user:@uid:r-- group::--- mask::r-- other::---, as linux/posix_acl_xattr.h has it. */
static int set_acl(const char *name, uint32_t uid)
{
	struct { uint32_t version; struct { uint16_t tag, perm; uint32_t id; } entry[5]; } acl = {
		2, { { 1, 6, UINT32_MAX }, { 2, 4, uid }, { 4, 0, UINT32_MAX }, { 16, 4, UINT32_MAX }, { 32, 0, UINT32_MAX } },
	};

	return setxattr(scratch_path(name), "system.posix_acl_access", &acl, sizeof(acl), 0);
}

static const struct ns_acl *acl_of(struct fixture *f, const char *name, unsigned flags)
{
	struct ns_attr dir, a;

	assert_int_equal(ns_lookup(f->ns, NS_ROOT, "d", flags, &dir), 0);
	assert_int_equal(ns_lookup(f->ns, dir.ino, name, flags, &a), 0);
	return a.acl;
}

/* An ACL comes with the attributes, once for all files that have it, and from the index. */
static void acls_are_kept(void **state)
{
	struct fixture *f = *state;
	const struct ns_acl *acl;

	if (set_acl("o/d/f00001", 1234) || set_acl("o/d/f00003", 1234) || set_acl("o/d/f00002", 99)) {
		print_message("no ACLs on this file system\n");
		skip();
	}
	start(f, 3600 * NSEC_PER_SEC);
	acl = acl_of(f, "f00001", 0);
	assert_non_null(acl);
	assert_int_equal(acl->len, 44);
	assert_ptr_equal(acl_of(f, "f00003", 0), acl);
	assert_memory_not_equal(acl_of(f, "f00002", 0)->bytes, acl->bytes, 44);
	assert_null(acl_of(f, "f00004", 0));
	stop(f);
	start(f, 3600 * NSEC_PER_SEC);
	assert_non_null(acl_of(f, "f00001", NS_NOWAIT));
	assert_ptr_equal(acl_of(f, "f00003", NS_NOWAIT), acl_of(f, "f00001", NS_NOWAIT));
	assert_null(acl_of(f, "f00004", NS_NOWAIT));
	/* another is another version, as a new mode is */
	stop(f);
	assert_int_equal(set_acl("o/d/f00003", 99), 0);
	start(f, 0);
	assert_ptr_equal(acl_of(f, "f00003", 0), acl_of(f, "f00002", 0));
	stop(f);
}

/* Without knowing them once, and then with: what was listed meanwhile is asked about again. */
static void acls_unknown_are_asked_for(void **state)
{
	struct fixture *f = *state;
	struct ns_attr dir, a;

	if (set_acl("o/d/f00001", 1234))
		skip();
	has_no_acls = true;
	start(f, 3600 * NSEC_PER_SEC);
	assert_null(acl_of(f, "f00001", 0));
	stop(f);
	start(f, 3600 * NSEC_PER_SEC);
	assert_null(acl_of(f, "f00001", NS_NOWAIT));
	stop(f);
	has_no_acls = false;
	start(f, 3600 * NSEC_PER_SEC);
	assert_int_equal(ns_lookup(f->ns, NS_ROOT, "d", 0, &dir), 0);
	assert_int_equal(ns_lookup(f->ns, dir.ino, "f00001", NS_NOWAIT, &a), -EAGAIN);
	assert_non_null(acl_of(f, "f00001", 0));
	assert_int_equal(ns_list(f->ns, NS_ROOT, 0), 0);
	assert_int_equal(ns_list(f->ns, dir.ino, 0), 0);
	stop(f);
	start(f, 3600 * NSEC_PER_SEC);
	assert_non_null(acl_of(f, "f00001", NS_NOWAIT));
	stop(f);
	/* a mount that cannot tell keeps what is known, and is not believed later of what it saw */
	has_no_acls = true;
	start(f, 0);
	assert_non_null(acl_of(f, "f00001", 0));
	stop(f);
	has_no_acls = false;
	start(f, 3600 * NSEC_PER_SEC);
	assert_int_equal(ns_lookup(f->ns, NS_ROOT, "d", 0, &dir), 0);
	assert_int_equal(ns_lookup(f->ns, dir.ino, "f00002", NS_NOWAIT, &a), -EAGAIN);
	stop(f);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(one_listing_answers_everything),
		CASE(ids_survive_a_restart),
		CASE(a_changed_file_gets_a_new_id),
		CASE(bad_names_are_refused),
		CASE(an_error_is_not_an_absence),
		CASE(acls_are_kept),
		CASE(acls_unknown_are_asked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

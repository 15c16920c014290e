/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/origin/origin.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lib/stats.h"
#include "tests/layer/layer.h"
#include "tests/unit/test.h"

struct fixture {
	struct stats *stats;
	struct origin *origin;
};

static int open_spec(struct fixture *f, const char *prefix)
{
	char spec[8192], msg[256] = "";
	int rc;

	snprintf(spec, sizeof(spec), "%s%s", prefix, scratch_path("o"));
	rc = origin_open(spec, f->stats, &f->origin, msg, sizeof(msg));
	if (rc)
		fail_msg("%s: %s", spec, msg);
	return rc;
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	scratch_make();
	file_make("o/a/one", 300000, 1);
	file_make("o/a/two", 5, 2);
	file_make("o/empty", 0, 0);
	file_make("secret", 100, 9);
	if (symlink("../secret", scratch_path("o/out")) || symlink("..", scratch_path("o/up")) ||
	    symlink("a", scratch_path("o/in")))
		return 1;
	*state = f;
	return stats_new(&f->stats);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	if (f->origin)
		origin_close(f->origin);
	stats_free(f->stats);
	free(f);
	scratch_remove();
	return 0;
}

static void done(struct origin_read *r, int err)
{
	waiter_done(r->arg, err);
}

/* Reads all of @path as version @v. */
static int read_all(struct origin *o, const char *path, const struct version *v, uint8_t *buf)
{
	struct waiter w = WAITER_INIT;
	struct origin_read r = { .path = path, .expect = *v, .len = v->size, .buf = buf, .is_first = true,
				 .done = done, .arg = &w };

	o->ops->read(o, &r);
	return waiter_wait(&w, 1);
}

static void lists_and_reads(void **state)
{
	struct fixture *f = *state;
	struct origin_listing l;
	struct origin_attr a;
	uint8_t *buf = malloc(300000);
	char target[64];

	open_spec(f, "");
	assert_int_equal(f->origin->ops->list(f->origin, "a", &l), 0);
	assert_int_equal(l.count, 2);
	for (size_t i = 0; i < l.count; i++) {
		assert_int_equal(l.entry[i].err, 0);
		assert_int_equal(l.entry[i].attr.version.size, strcmp(l.entry[i].name, "one") ? 5 : 300000);
	}
	origin_listing_free(&l);
	assert_int_equal(f->origin->ops->stat(f->origin, "a/one", &a), 0);
	assert_int_equal(read_all(f->origin, "a/one", &a.version, buf), 0);
	assert_true(content_is(buf, 1, 0, 300000));
	assert_int_equal(f->origin->ops->readlink(f->origin, "in", target, sizeof(target)), 0);
	assert_string_equal(target, "a");
	assert_int_equal(f->origin->ops->readlink(f->origin, "in", target, 1), -ENAMETOOLONG);
	assert_int_equal(f->origin->ops->stat(f->origin, "none", &a), -ENOENT);
	assert_int_equal(f->origin->ops->list(f->origin, "a/one", &l), -ENOTDIR);
	free(buf);
}

/* No name and no link leads out of the root. */
static void nothing_escapes(void **state)
{
	static const char *const out[] = {
		"../secret", "a/../../secret", "up/secret", "in/../../secret", "/etc/passwd", "..", "a/../..", "up/o/empty",
	};
	struct fixture *f = *state;
	struct origin_listing l;
	struct origin_attr a;
	struct version v = { .size = 100 };
	uint8_t buf[100];

	open_spec(f, "");
	for (size_t i = 0; i < sizeof(out) / sizeof(out[0]); i++) {
		if (!f->origin->ops->stat(f->origin, out[i], &a))
			fail_msg("stat of %s", out[i]);
		if (!f->origin->ops->list(f->origin, out[i], &l))
			fail_msg("listing of %s", out[i]);
		if (!read_all(f->origin, out[i], &v, buf))
			fail_msg("read of %s", out[i]);
	}
	/* a final link is stat'ed itself, and never read through */
	assert_int_equal(f->origin->ops->stat(f->origin, "out", &a), 0);
	assert_true(S_ISLNK(a.mode));
	assert_true(read_all(f->origin, "out", &v, buf) < 0);
}

static void another_version_is_stale(void **state)
{
	struct fixture *f = *state;
	struct origin_attr a;
	uint8_t buf[16];

	open_spec(f, "");
	assert_int_equal(f->origin->ops->stat(f->origin, "a/two", &a), 0);
	a.version.mtime_ns++;
	assert_int_equal(read_all(f->origin, "a/two", &a.version, buf), -ESTALE);
	assert_int_equal(f->origin->ops->stat(f->origin, "a/two", &a), 0);
	assert_int_equal(read_all(f->origin, "a/two", &a.version, buf), 0);
	file_make("o/new", 5, 7);   /* replaced by a rename while its descriptor may be kept */
	assert_int_equal(rename(scratch_path("o/new"), scratch_path("o/a/two")), 0);
	assert_int_equal(read_all(f->origin, "a/two", &a.version, buf), -ESTALE);
	assert_int_equal(unlink(scratch_path("o/a/two")), 0);
	assert_int_equal(read_all(f->origin, "a/two", &a.version, buf), -ESTALE);
}

static void faults_come_when_told(void **state)
{
	struct fixture *f = *state;
	struct origin_attr a;
	uint8_t *buf = malloc(300000);
	int failed = 0;

	open_spec(f, "fault:error=3:");
	assert_int_equal(f->origin->ops->stat(f->origin, "a/one", &a), 0);
	for (int i = 1; i <= 9; i++) {
		int err = read_all(f->origin, "a/one", &a.version, buf);

		assert_int_equal(err, i % 3 ? 0 : -EIO);
		failed += err != 0;
	}
	assert_int_equal(failed, 3);
	assert_int_equal(stats_read(f->stats, STAT_ORIGIN_REQUESTS), 9);
	assert_int_equal(stats_read(f->stats, STAT_ORIGIN_ERRORS), 3);
	assert_int_equal(stats_read(f->stats, STAT_ORIGIN_BYTES), 6 * 300000);
	origin_close(f->origin);
	open_spec(f, "fault:stale=2,short=3:");
	assert_int_equal(read_all(f->origin, "a/one", &a.version, buf), 0);
	assert_int_equal(read_all(f->origin, "a/one", &a.version, buf), -ESTALE);
	assert_int_equal(read_all(f->origin, "a/one", &a.version, buf), -EIO);
	free(buf);
}

/* Sizes that are not true: what is not there is never made up, and what is there is right. */
static void lies_are_found_out(void **state)
{
	struct fixture *f = *state;
	uint8_t *buf = calloc(1, 400000);
	struct waiter w = WAITER_INIT;
	struct origin_listing l;
	struct origin_attr a;
	struct origin_read r = { .path = "a/one", .buf = buf, .len = 200000, .done = done, .arg = &w };

	open_spec(f, "fault:lie_more=1000:");
	assert_int_equal(f->origin->ops->stat(f->origin, "a/one", &a), 0);
	assert_int_equal(a.version.size, 301000);
	r.expect = a.version;
	f->origin->ops->read(f->origin, &r);
	assert_int_equal(waiter_wait(&w, 1), 0);
	assert_true(content_is(buf, 1, 0, 200000));
	assert_int_equal(read_all(f->origin, "a/one", &a.version, buf), -ESTALE);
	assert_int_equal(f->origin->ops->list(f->origin, "a", &l), 0);
	for (size_t i = 0; i < l.count; i++)
		assert_true(strcmp(l.entry[i].name, "one") || l.entry[i].attr.version.size == 301000);
	origin_listing_free(&l);
	origin_close(f->origin);
	open_spec(f, "fault:lie_less=1000:");
	assert_int_equal(f->origin->ops->stat(f->origin, "a/one", &a), 0);
	assert_int_equal(a.version.size, 299000);
	assert_int_equal(read_all(f->origin, "a/one", &a.version, buf), 0);
	assert_true(content_is(buf, 1, 0, 299000));
	free(buf);
}

/* Only what is picked is late: a request sent behind it on the same link is answered first. */
static void a_slow_answer_holds_up_no_other(void **state)
{
	struct fixture *f = *state;
	struct waiter late = WAITER_INIT;
	struct origin_attr a;
	uint8_t slow_buf[5], *buf = malloc(300000);
	struct origin_read slow = { .path = "a/two", .len = 5, .buf = slow_buf, .done = done, .arg = &late };

	open_spec(f, "fault:bw=100M,slow=2,slow_by=1d:");
	assert_int_equal(f->origin->ops->stat(f->origin, "a/one", &a), 0);
	assert_int_equal(read_all(f->origin, "a/one", &a.version, buf), 0);
	assert_int_equal(f->origin->ops->stat(f->origin, "a/two", &a), 0);
	slow.expect = a.version;
	f->origin->ops->read(f->origin, &slow);
	assert_int_equal(f->origin->ops->stat(f->origin, "a/one", &a), 0);
	assert_int_equal(read_all(f->origin, "a/one", &a.version, buf), 0);
	assert_true(content_is(buf, 1, 0, 300000));
	assert_int_equal(late.done, 0);
	origin_close(f->origin);
	f->origin = NULL;
	assert_int_equal(waiter_wait(&late, 1), -EIO);
	free(buf);
}

struct watched {
	struct waiter waiter;
	size_t last;
	const uint8_t *buf;
	bool was_wrong;
};

static void progressed(struct origin_read *r, size_t valid)
{
	struct watched *w = r->arg;

	w->was_wrong |= valid <= w->last || valid > r->len || !content_is(w->buf, 1, 0, valid);
	w->last = valid;
}

static void watched_done(struct origin_read *r, int err)
{
	waiter_done(&((struct watched *)r->arg)->waiter, err);
}

/* What progress tells has arrived and is right. */
static void progress_only_tells_what_is_there(void **state)
{
	struct fixture *f = *state;
	struct watched w = { WAITER_INIT, 0, NULL, false };
	struct origin_read r = { .path = "big", .done = watched_done, .progress = progressed, .arg = &w };
	struct origin_attr a;

	file_make("o/big", 1 << 20, 1);
	open_spec(f, "fault:bw=2M:");
	assert_int_equal(f->origin->ops->stat(f->origin, "big", &a), 0);
	r.expect = a.version;
	r.len = a.version.size;
	r.buf = malloc(r.len);
	w.buf = r.buf;
	f->origin->ops->read(f->origin, &r);
	assert_int_equal(waiter_wait(&w.waiter, 1), 0);
	assert_true(w.last > 0);
	assert_false(w.was_wrong);
	assert_true(content_is(r.buf, 1, 0, r.len));
	free(r.buf);
}

/* A request that hangs ends when the origin is closed, with an error. */
static void closing_ends_what_hangs(void **state)
{
	struct fixture *f = *state;
	struct waiter w = WAITER_INIT;
	uint8_t buf[5];
	struct origin_read r = { .path = "a/two", .len = 5, .buf = buf, .done = done, .arg = &w };
	struct origin_attr a;

	open_spec(f, "fault:hang=1:");
	assert_int_equal(f->origin->ops->stat(f->origin, "a/two", &a), 0);
	r.expect = a.version;
	f->origin->ops->read(f->origin, &r);
	usleep(20000);
	assert_int_equal(w.done, 0);
	origin_close(f->origin);
	f->origin = NULL;
	assert_int_equal(waiter_wait(&w, 1), -EIO);
}

static void settings_change_through_the_control_file(void **state)
{
	struct fixture *f = *state;
	char prefix[4500];
	struct origin_attr a;
	uint8_t buf[5];
	FILE *c;

	snprintf(prefix, sizeof(prefix), "fault:control=%s:", scratch_path("control"));
	open_spec(f, prefix);
	assert_int_equal(f->origin->ops->stat(f->origin, "a/two", &a), 0);
	assert_int_equal(read_all(f->origin, "a/two", &a.version, buf), 0);
	c = fopen(scratch_path("control"), "w");
	fputs("error=1", c);
	fclose(c);
	assert_int_equal(read_all(f->origin, "a/two", &a.version, buf), -EIO);
	usleep(10000);
	c = fopen(scratch_path("control"), "w");
	fputs("", c);
	fclose(c);
	assert_int_equal(read_all(f->origin, "a/two", &a.version, buf), 0);
}

static void bad_specifications_are_explained(void **state)
{
	static const char *const bad[] = {
		"/does/not/exist", "posix:", "fault:", "fault:/tmp", "fault:read=x:/tmp", "fault:nonsense=1:/tmp",
		"fault:error=0x:/tmp", "fault:bw=:/tmp", "fault:read=1ms:/does/not/exist",
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char msg[256] = "";

		if (origin_open(bad[i], f->stats, &f->origin, msg, sizeof(msg)) >= 0)
			fail_msg("%s was taken", bad[i]);
		f->origin = NULL;
		if (!*msg || strchr(msg, '\n'))
			fail_msg("%s: not one line: '%s'", bad[i], msg);
	}
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(lists_and_reads),
		CASE(nothing_escapes),
		CASE(another_version_is_stale),
		CASE(faults_come_when_told),
		CASE(lies_are_found_out),
		CASE(a_slow_answer_holds_up_no_other),
		CASE(progress_only_tells_what_is_there),
		CASE(closing_ends_what_hangs),
		CASE(settings_change_through_the_control_file),
		CASE(bad_specifications_are_explained),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

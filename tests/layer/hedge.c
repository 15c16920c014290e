/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A second request where the first takes much longer than its peers. Whoever
 * is slow here is so for a day, or until another event, so that no test depends on
 * how fast the machine is: a stall of the machine adds hedges, which the bounds allow.
 */
#include "cache/cache.h"
#include <errno.h>
#include <unistd.h>
#include "lib/clock.h"
#include "lib/stats.h"
#include "tests/layer/layer.h"
#include "tests/layer/one.h"
#include "tests/unit/test.h"

enum {
	FILES = 200, SMALL = 5000, BIG = 5 * EXTENT_BYTES + 12345, BIG_SEED = 777,
	PEERS = 40,                  /* read first: more than a guess needs */
	BURST = 8, SHARE = 50,       /* cache/hedge.c */
};

struct fixture {
	struct stats *stats;
	struct origin *origin;
	struct cache *cache;
};

static void start_sized(struct fixture *f, const char *faults, bool hedge, uint64_t timeout_ns, uint64_t ram, uint64_t size)
{
	const char *dir = scratch_path("c");
	struct cache_config cfg = { .dirs = &dir, .dir_count = 1, .identity = "test", .ram_bytes = ram, .size_bytes = size, .hedge = hedge,
				    .timeout_ns = timeout_ns, .codec = DISK_CODEC_OFF,
				    .ns = { .meta_ttl_ns = 3600 * NSEC_PER_SEC, .check_data_on_open = true } };
	char spec[8192], msg[256] = "";

	snprintf(spec, sizeof(spec), "fault:%s,control=%s:%s", faults, scratch_path("control"), scratch_path("o"));
	assert_int_equal(stats_new(&f->stats), 0);
	assert_int_equal(origin_open(spec, f->stats, &f->origin, msg, sizeof(msg)), 0);
	if (cache_open(&cfg, f->origin, f->stats, &f->cache, msg, sizeof(msg)))
		fail_msg("%s", msg);
}

static void start(struct fixture *f, const char *faults, bool hedge, uint64_t timeout_ns)
{
	start_sized(f, faults, hedge, timeout_ns, 16 << 20, 0);
}

/* The origin first: it ends what hangs, as the mount's end does. */
static void stop(struct fixture *f)
{
	origin_close(f->origin);
	cache_close(f->cache);
	stats_free(f->stats);
}

static uint64_t count(struct fixture *f, enum stat_id id)
{
	return stats_read(f->stats, id);
}

/* From now on the origin is like this. */
static void faults(const char *text)
{
	FILE *c = fopen(scratch_path("control.new"), "w");

	assert_non_null(c);
	fputs(text, c);
	assert_int_equal(fclose(c), 0);
	assert_int_equal(rename(scratch_path("control.new"), scratch_path("control")), 0);
}

static int set_up(void **state)
{
	char name[64];

	scratch_make();
	file_make("o/big", BIG, BIG_SEED);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "o/f%03u", i);
		file_make(name, SMALL, i);
	}
	*state = calloc(1, sizeof(struct fixture));
	return 0;
}

static int tear_down(void **state)
{
	free(*state);
	scratch_remove();
	return 0;
}

static void submit(struct fixture *f, struct one *o, unsigned file, struct waiter *w)
{
	char name[16];

	snprintf(name, sizeof(name), "f%03u", file);
	one_submit(f->cache, o, name, file, 0, SMALL, w);
}

/* Files [@from, @to), together; all are right. */
static void read_together(struct fixture *f, unsigned from, unsigned to)
{
	static struct one o[FILES];
	struct waiter w = WAITER_INIT;

	for (unsigned i = from; i < to; i++)
		submit(f, &o[i], i, &w);
	waiter_wait(&w, to - from);
	for (unsigned i = from; i < to; i++)
		assert_true(o[i].is_right);
}

static int read_one(struct fixture *f, unsigned file)
{
	struct waiter w = WAITER_INIT;
	struct one o;
	int err;

	submit(f, &o, file, &w);
	err = waiter_wait(&w, 1);
	assert_true(err || o.is_right);
	return err;
}

static void assert_bounded(struct fixture *f)
{
	uint64_t hedged = count(f, STAT_ORIGIN_HEDGED);

	assert_in_range(hedged, 0, BURST + (count(f, STAT_ORIGIN_REQUESTS) - hedged) / SHARE);
	assert_in_range(count(f, STAT_ORIGIN_HEDGES_WON), 0, hedged);
}

/* Each fiftieth request is never answered; each reader is. */
static void readers_do_not_wait_for_stragglers(void **state)
{
	struct fixture *f = *state;

	start(f, "read=10ms,slow=50,slow_by=1d", true, 25 * NSEC_PER_SEC);
	for (unsigned i = 0; i < FILES; i += 40)
		read_together(f, i, i + 40);
	assert_int_equal(count(f, STAT_READS_MISSED), FILES);
	assert_int_equal(count(f, STAT_ORIGIN_REQUESTS), FILES + count(f, STAT_ORIGIN_HEDGED));
	assert_int_equal(count(f, STAT_ORIGIN_ERRORS), 0);
	assert_int_equal(count(f, STAT_ORIGIN_RETRIES), 0);
	assert_true(count(f, STAT_ORIGIN_HEDGES_WON) >= 2);
	assert_bounded(f);
	stop(f);
}

static void off_asks_once(void **state)
{
	struct fixture *f = *state;

	start(f, "read=1ms,slow=50,slow_by=100ms", false, 25 * NSEC_PER_SEC);
	for (unsigned i = 0; i < FILES; i += 40)
		read_together(f, i, i + 40);
	assert_int_equal(count(f, STAT_ORIGIN_REQUESTS), FILES);
	assert_int_equal(count(f, STAT_ORIGIN_HEDGED), 0);
	stop(f);
}

/* An origin where every request is slow is asked no more than the bound allows, and each fill once more at most. */
static void a_slow_origin_is_not_doubled(void **state)
{
	struct fixture *f = *state;

	start(f, "read=1ms", true, 25 * NSEC_PER_SEC);
	read_together(f, 0, PEERS);
	faults("read=1s");
	read_together(f, PEERS, PEERS + 100);
	assert_in_range(count(f, STAT_ORIGIN_HEDGED), 1, BURST + (PEERS + 100) / SHARE);
	assert_int_equal(count(f, STAT_ORIGIN_REQUESTS), PEERS + 100 + count(f, STAT_ORIGIN_HEDGED));
	assert_bounded(f);
	stop(f);
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

static void want(struct fixture *f, struct wanted *o, unsigned file)
{
	struct ns_attr a;
	char name[16];

	snprintf(name, sizeof(name), "f%03u", file);
	assert_int_equal(ns_lookup(cache_ns(f->cache), NS_ROOT, name, 0, &a), 0);
	*o = (struct wanted){ .waiter = WAITER_INIT };
	o->want = (struct cache_want){ .key = extent_key(a.ino, 0), .done = want_done, .arg = o };
	cache_want(f->cache, &o->want);
}

/* Nobody is impatient for a prefetch, until a reader joins it. */
static void prefetch_is_hedged_for_who_joined(void **state)
{
	struct fixture *f = *state;
	struct wanted lone, joined;
	uint64_t before;

	start(f, "read=1ms", true, 25 * NSEC_PER_SEC);
	read_together(f, 0, PEERS);
	before = count(f, STAT_ORIGIN_HEDGED);
	faults("read=1ms,slow=1,slow_by=300ms");
	want(f, &lone, PEERS);
	assert_int_equal(waiter_wait(&lone.waiter, 1), 0);
	assert_int_equal(count(f, STAT_ORIGIN_HEDGED), before);
	faults("slow=1,slow_by=1d");
	want(f, &joined, PEERS + 1);
	while (count(f, STAT_ORIGIN_REQUESTS) < PEERS + before + 2)
		usleep(1000);
	faults("read=1ms");
	assert_int_equal(read_one(f, PEERS + 1), 0);
	assert_int_equal(waiter_wait(&joined.waiter, 1), 0);
	assert_int_equal(count(f, STAT_ORIGIN_HEDGED), before + 1);
	assert_int_equal(count(f, STAT_ORIGIN_HEDGES_WON), before ? count(f, STAT_ORIGIN_HEDGES_WON) : 1);
	stop(f);
}

/* With as many requests in flight as may be, a hedge waits for a place. */
static void the_ceiling_holds(void **state)
{
	struct fixture *f = *state;
	struct waiter w = WAITER_INIT;
	struct cache_flow flow;
	uint64_t before;
	struct one o;

	start(f, "read=1ms", true, 25 * NSEC_PER_SEC);
	read_together(f, 0, PEERS);
	before = count(f, STAT_ORIGIN_HEDGED);
	faults("slow=1,slow_by=1d");
	cache_set_parallel(f->cache, 1);
	submit(f, &o, PEERS, &w);
	do {
		usleep(1000);
		cache_flow(f->cache, &flow);
	} while (flow.demand_in_flight < 2);   /* the prefetcher leaves the place to it */
	assert_int_equal(flow.in_flight, 1);
	assert_int_equal(count(f, STAT_ORIGIN_HEDGED), before);
	faults("");
	cache_set_parallel(f->cache, 2);
	assert_int_equal(waiter_wait(&w, 1), 0);
	assert_true(o.is_right);
	assert_int_equal(count(f, STAT_ORIGIN_HEDGED), before + 1);
	cache_flow(f->cache, &flow);
	assert_int_equal(flow.hedged_bytes, (before + 1) * SMALL);
	assert_int_equal(flow.in_flight, 1);   /* the loser, which nobody waits for */
	assert_int_equal(flow.demand_in_flight, 0);
	stop(f);
}

/* The first fails while the hedge is on its way: no retry, no error. */
static void a_failure_is_left_to_the_hedge(void **state)
{
	struct fixture *f = *state;
	uint64_t arrivals;
	char text[100];

	start(f, "read=1ms", true, 25 * NSEC_PER_SEC);
	read_together(f, 0, PEERS);
	arrivals = count(f, STAT_ORIGIN_REQUESTS);
	snprintf(text, sizeof(text), "slow=1,slow_by=2s,error=%u", (unsigned)arrivals + 1);
	faults(text);
	assert_int_equal(read_one(f, PEERS), 0);
	assert_int_equal(count(f, STAT_ORIGIN_REQUESTS), arrivals + 2);
	assert_int_equal(count(f, STAT_ORIGIN_ERRORS), 1);
	assert_int_equal(count(f, STAT_ORIGIN_RETRIES), 0);
	stop(f);
}

/* A hedge that fails, or finds another version, decides nothing: the first's bytes are served. */
static void a_bad_hedge_is_dropped(void **state)
{
	static const char *const bad[] = { "error", "stale" };
	struct fixture *f = *state;

	for (unsigned i = 0; i < 2; i++) {
		uint64_t arrivals, won;
		char text[100];

		start(f, "read=1ms", true, 25 * NSEC_PER_SEC);
		read_together(f, i * PEERS, (i + 1) * PEERS);
		arrivals = count(f, STAT_ORIGIN_REQUESTS);
		won = count(f, STAT_ORIGIN_HEDGES_WON);
		/* the next request is slow; the one after it, its hedge, is bad */
		snprintf(text, sizeof(text), "slow=%u,slow_by=2s,%s=%u", (unsigned)arrivals + 1, bad[i], (unsigned)arrivals + 2);
		faults(text);
		assert_int_equal(read_one(f, 2 * PEERS + i), 0);
		assert_int_equal(count(f, STAT_ORIGIN_REQUESTS), arrivals + 2);
		assert_int_equal(count(f, STAT_ORIGIN_ERRORS), 1);
		assert_int_equal(count(f, STAT_ORIGIN_RETRIES), 0);
		assert_int_equal(count(f, STAT_ORIGIN_HEDGES_WON), won);
		stop(f);
	}
}

/* (G): both fail: it is tried again as ever, but not doubled again. */
static void both_may_fail(void **state)
{
	struct fixture *f = *state;
	uint64_t before;

	start(f, "read=1ms", true, 3 * NSEC_PER_SEC);
	read_together(f, 0, PEERS);
	before = count(f, STAT_ORIGIN_HEDGED);
	faults("error=1,slow=1,slow_by=500ms");
	assert_int_equal(read_one(f, PEERS), -EIO);
	assert_int_equal(count(f, STAT_ORIGIN_HEDGED), before + 1);
	assert_true(count(f, STAT_ORIGIN_RETRIES) >= 1);
	stop(f);
}

/* The file changes between the two: the reader gets bytes of one version, or ESTALE, never both. */
static void versions_are_not_mixed(void **state)
{
	struct fixture *f = *state;
	struct waiter w = WAITER_INIT;
	struct one o;
	int err;

	start(f, "read=1ms", true, 25 * NSEC_PER_SEC);
	read_together(f, 0, PEERS);
	faults("slow=1,slow_by=2s");
	one_submit(f->cache, &o, "big", BIG_SEED, 0, EXTENT_BYTES, &w);
	file_make("o/big", BIG, BIG_SEED + 1);
	err = waiter_wait(&w, 1);
	assert_true(err == -ESTALE || (!err && o.is_right));
	faults("");
	assert_true(count(f, STAT_ORIGIN_REQUESTS) >= PEERS + 2);
	/* who asks for what has changed is told so once at most */
	for (unsigned i = 2; i == 2 || (i == 3 && err == -ESTALE); i++) {
		one_submit(f->cache, &o, "big", BIG_SEED + 1, EXTENT_BYTES, 1000, &w);
		err = waiter_wait(&w, i);
	}
	assert_int_equal(err, 0);
	assert_true(o.is_right);
	stop(f);
}

/* ---- who writes where: an origin that answers when the test says ---- */

struct held {
	struct origin origin;
	struct origin *inner;
	bool holds;
	struct origin_read *read[2];
	struct waiter asked;
};

static int held_list(struct origin *o, const char *path, struct origin_listing *l)
{
	struct origin *inner = ((struct held *)o)->inner;

	return inner->ops->list(inner, path, l);
}

static int held_stat(struct origin *o, const char *path, struct origin_attr *a)
{
	struct origin *inner = ((struct held *)o)->inner;

	return inner->ops->stat(inner, path, a);
}

static void held_read(struct origin *o, struct origin_read *r)
{
	struct held *h = (struct held *)o;

	if (!h->holds) {
		h->inner->ops->read(h->inner, r);
		return;
	}
	assert_in_range(h->asked.done, 0, 1);   /* (G): the hedge comes after the first, and no third */
	h->read[h->asked.done] = r;
	waiter_done(&h->asked, 0);
}

static const struct origin_ops held_ops = { .kind = "held", .list = held_list, .stat = held_stat, .read = held_read };

/* A cache over such an origin, with one request and its hedge held for a read of @len at @offset; for the @round-th time in this cache. */
static void hold_two(struct fixture *f, struct held *h, struct one *o, unsigned round, uint64_t offset, size_t len, struct waiter *w)
{
	const char *dir = scratch_path("c");
	struct cache_config cfg = { .dirs = &dir, .dir_count = 1, .identity = "test", .ram_bytes = 16 << 20, .hedge = true,
				    .timeout_ns = 25 * NSEC_PER_SEC, .codec = DISK_CODEC_OFF,
				    .ns = { .meta_ttl_ns = 3600 * NSEC_PER_SEC } };
	char msg[256] = "";

	*h = (struct held){ .origin.ops = &held_ops, .asked = WAITER_INIT };
	assert_int_equal(stats_new(&f->stats), 0);
	assert_int_equal(origin_open(scratch_path("o"), f->stats, &h->inner, msg, sizeof(msg)), 0);
	if (cache_open(&cfg, &h->origin, f->stats, &f->cache, msg, sizeof(msg)))
		fail_msg("%s", msg);
	read_together(f, round * PEERS, (round + 1) * PEERS);
	h->holds = true;
	one_submit(f->cache, o, "big", BIG_SEED, offset, len, w);
	assert_int_equal(waiter_wait(&h->asked, 2), 0);
	assert_ptr_not_equal(h->read[0]->buf, h->read[1]->buf);
}

static void fill(struct origin_read *r, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		((uint8_t *)r->buf)[i] = content_at(BIG_SEED, r->offset + i);
}

static void answer(struct origin_read *r)
{
	fill(r, 0, r->len);
	r->done(r, 0);
}

/* The loser writes what it likes, tells what it likes, and ends. */
static void loser_ends(struct origin_read *r, int err)
{
	memset(r->buf, 0xee, r->len);
	if (r->progress)
		r->progress(r, 1000);
	r->done(r, err);
}

static void read_right(struct fixture *f, uint64_t offset, size_t len)
{
	struct waiter w = WAITER_INIT;
	struct one o;

	one_submit(f->cache, &o, "big", BIG_SEED, offset, len, &w);
	assert_int_equal(waiter_wait(&w, 1), 0);
	assert_true(o.is_right);
}

static void stop_held(struct fixture *f, struct held *h)
{
	cache_close(f->cache);
	origin_close(h->inner);
	stats_free(f->stats);
}

/* (F): whichever loses, what it writes afterwards reaches neither readers nor the disk. */
static void the_loser_may_write_on(void **state)
{
	struct fixture *f = *state;

	for (unsigned winner = 0; winner < 2; winner++) {
		struct waiter w = WAITER_INIT;
		struct held h;
		struct one o;

		hold_two(f, &h, &o, winner, winner * EXTENT_BYTES, EXTENT_BYTES, &w);
		answer(h.read[winner]);
		assert_int_equal(waiter_wait(&w, 1), 0);
		assert_true(o.is_right);
		memset(h.read[!winner]->buf, 0xee, EXTENT_BYTES);
		read_right(f, winner * EXTENT_BYTES, EXTENT_BYTES);
		loser_ends(h.read[!winner], winner ? 0 : -EIO);
		read_right(f, winner * EXTENT_BYTES, EXTENT_BYTES);
		assert_int_equal(count(f, STAT_ORIGIN_HEDGES_WON), winner);
		stop_held(f, &h);
		start(f, "read=1ms", true, 25 * NSEC_PER_SEC);
		read_right(f, winner * EXTENT_BYTES, EXTENT_BYTES);
		assert_int_equal(count(f, STAT_READS_HIT_DISK), 1);
		assert_int_equal(count(f, STAT_ORIGIN_REQUESTS), 0);
		stop(f);
	}
}

static void read_done_holding(struct cache_read *r, int err)
{
	waiter_done(((struct one *)r->arg)->waiter, err);
}

/* (B): the hedge does not take the buffer that a reader of the first's first bytes looks at; once nobody does, it may. */
static void bytes_in_use_stay(void **state)
{
	struct fixture *f = *state;

	for (unsigned in_use = 0; in_use < 2; in_use++) {
		struct waiter w = WAITER_INIT, early = WAITER_INIT;
		uint64_t at = in_use * EXTENT_BYTES;
		struct held h;
		struct one o, first;

		hold_two(f, &h, &o, in_use, at + 900000, 1000, &w);
		first = (struct one){ .read.attr = o.read.attr, .cache = f->cache, .waiter = &early, .seed = BIG_SEED };
		first.read.offset = at;
		first.read.len = 1000;
		first.read.arg = &first;
		first.read.done = in_use ? read_done_holding : one_done;
		cache_read(f->cache, &first.read);
		fill(h.read[0], 0, 1000);
		h.read[0]->progress(h.read[0], 1000);
		assert_int_equal(waiter_wait(&early, 1), 0);
		answer(h.read[1]);
		assert_int_equal(count(f, STAT_ORIGIN_HEDGES_WON), !in_use);
		if (!in_use)
			loser_ends(h.read[0], 0);
		else
			answer(h.read[0]);
		assert_int_equal(waiter_wait(&w, 1), 0);
		assert_true(o.is_right);
		if (in_use) {
			assert_true(content_is(first.read.iov[0].iov_base, BIG_SEED, at, 1000));
			cache_read_end(f->cache, &first.read);
		}
		read_right(f, at, EXTENT_BYTES);
		stop_held(f, &h);
	}
}

/* The first fails with a reader still looking at what it had brought: the hedge's bytes go where they belong. */
static void a_failure_in_use_is_completed(void **state)
{
	struct waiter w = WAITER_INIT, early = WAITER_INIT;
	struct fixture *f = *state;
	struct held h;
	struct one o, first;

	hold_two(f, &h, &o, 0, 900000, 1000, &w);
	first = (struct one){ .read.attr = o.read.attr, .cache = f->cache, .waiter = &early };
	first.read.len = 1000;
	first.read.arg = &first;
	first.read.done = read_done_holding;
	cache_read(f->cache, &first.read);
	fill(h.read[0], 0, 1000);
	h.read[0]->progress(h.read[0], 1000);
	assert_int_equal(waiter_wait(&early, 1), 0);
	h.read[0]->done(h.read[0], -EIO);
	answer(h.read[1]);
	assert_int_equal(waiter_wait(&w, 1), 0);
	assert_true(o.is_right);
	assert_true(content_is(first.read.iov[0].iov_base, BIG_SEED, 0, 1000));
	cache_read_end(f->cache, &first.read);
	read_right(f, 0, EXTENT_BYTES);
	assert_int_equal(count(f, STAT_ORIGIN_RETRIES), 0);
	stop_held(f, &h);
}

struct reader {
	struct fixture *f;
	pthread_t thread;
	uint64_t random;
	unsigned wrong;
};

static void *reader_thread(void *arg)
{
	struct reader *r = arg;
	struct waiter w = WAITER_INIT;
	struct one o;

	for (unsigned i = 1; i <= 200; i++) {
		if (i % 2)
			one_submit(r->f->cache, &o, "big", BIG_SEED, test_random(&r->random) % (BIG - 200000),
				  1 + test_random(&r->random) % 200000, &w);
		else
			submit(r->f, &o, (unsigned)(test_random(&r->random) % FILES), &w);
		if (waiter_wait(&w, i) || !o.is_right)
			r->wrong++;
	}
	return NULL;
}

/*
 * (B), (C), (F): readers of everything, by several threads, in little memory, while first requests and
 * hedges of both lengths overtake each other, and some fail.
 */
static void storm(void **state)
{
	struct fixture *f = *state;
	struct reader r[4];

	start_sized(f, "read=1ms,jitter=3ms,bw=500M,slow=40,slow_by=700ms,error=90", true, 25 * NSEC_PER_SEC, 8 << 20, 2 << 20);
	read_together(f, 0, PEERS);
	for (unsigned i = 0; i < 4; i++) {
		r[i] = (struct reader){ .f = f, .random = i + 1 };
		assert_int_equal(pthread_create(&r[i].thread, NULL, reader_thread, &r[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++)
		pthread_join(r[i].thread, NULL);
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(r[i].wrong, 0);
	assert_true(count(f, STAT_ORIGIN_HEDGES_WON) >= 1);
	assert_bounded(f);
	stop(f);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(readers_do_not_wait_for_stragglers),
		CASE(off_asks_once),
		CASE(a_slow_origin_is_not_doubled),
		CASE(prefetch_is_hedged_for_who_joined),
		CASE(the_ceiling_holds),
		CASE(a_failure_is_left_to_the_hedge),
		CASE(a_bad_hedge_is_dropped),
		CASE(both_may_fail),
		CASE(versions_are_not_mixed),
		CASE(the_loser_may_write_on),
		CASE(bytes_in_use_stay),
		CASE(a_failure_in_use_is_completed),
		CASE(storm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

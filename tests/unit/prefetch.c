/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include "cache/cache.h"
#include "lib/clock.h"
#include "prefetch/governor.h"
#include "prefetch/jobs.h"
#include "prefetch/observe.h"
#include "prefetch/resume.h"
#include "prefetch/set.h"
#include "prefetch/shuffle.h"
#include "prefetch/stream.h"
#include "tests/unit/test.h"

/* ---- the queue ---- */

enum { PRODUCERS = 4, EACH = 20000 };

static struct observe_queue queue;
static _Atomic uint64_t pushed, refused;

static void *produce(void *arg)
{
	struct observation o = { .pid = (uint32_t)(uintptr_t)arg };

	for (uint64_t i = 1; i <= EACH; i++) {
		o.ino = i;
		atomic_fetch_add(observe_push(&queue, &o) ? &pushed : &refused, 1);
	}
	return NULL;
}

/* What was accepted arrives once, each producer's in its order; what was not is told. */
static void queue_keeps_each_producers_order(void **state)
{
	uint64_t last[PRODUCERS] = { 0 }, got = 0;
	pthread_t thread[PRODUCERS];
	struct observation o;

	(void)state;
	observe_init(&queue);
	assert_false(observe_pop(&queue, &o));
	for (uintptr_t i = 0; i < PRODUCERS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, produce, (void *)i), 0);
	while (got < atomic_load(&pushed) || atomic_load(&pushed) + atomic_load(&refused) < PRODUCERS * EACH) {
		if (!observe_pop(&queue, &o))
			continue;
		assert_true(o.ino > last[o.pid]);
		last[o.pid] = o.ino;
		got++;
	}
	for (int i = 0; i < PRODUCERS; i++)
		pthread_join(thread[i], NULL);
	for (; observe_pop(&queue, &o); got++) {
		assert_true(o.ino > last[o.pid]);
		last[o.pid] = o.ino;
	}
	assert_int_equal(got, atomic_load(&pushed));
	assert_int_equal(got + atomic_load(&refused), PRODUCERS * EACH);
	for (int i = 0; i < OBSERVE_SLOTS; i++)
		assert_true(observe_push(&queue, &o));
	assert_false(observe_push(&queue, &o));
}

/* ---- the governor, in virtual time ---- */

/* A link of @bw bytes/s and @latency: keeps the governor's limit in flight for @requests; returns the limit found. */
static unsigned simulate(struct governor *g, double bw, uint64_t latency_ns, uint64_t bytes, unsigned requests)
{
	uint64_t end[512], start[512], total = 0, now = 1, link = 0;
	unsigned in_flight = 0, issued = 0;
	uint64_t wait;

	for (unsigned done = 0; done < requests; done++) {
		unsigned first = 0;

		while (issued < requests && in_flight < 512 && governor_admits(g, now, in_flight, bytes, &wait)) {
			uint64_t from = now + latency_ns > link ? now + latency_ns : link;

			link = from + (uint64_t)((double)bytes * 1e9 / bw);
			start[in_flight] = now;
			end[in_flight++] = link;
			issued++;
		}
		assert_true(in_flight > 0);
		for (unsigned i = 1; i < in_flight; i++)
			first = end[i] < end[first] ? i : first;
		now = end[first];
		total += bytes;
		governor_sample(g, now, now - start[first], bytes, total);
		in_flight--;
		start[first] = start[in_flight];
		end[first] = end[in_flight];
	}
	return g->limit;
}

static void governor_finds_what_the_link_holds(void **state)
{
	struct governor g;

	(void)state;
	/* 200 MB/s x 10 ms = 2 MB: 18 requests of 110 KB, and a few */
	governor_init(&g, 0, 0, 1);
	assert_in_range(simulate(&g, 200e6, 10 * NSEC_PER_MSEC, 110000, 3000), 18, 26);
	/* 1 GB/s x 1 ms, 1 MB: one or two */
	governor_init(&g, 0, 0, 1);
	assert_in_range(simulate(&g, 1e9, NSEC_PER_MSEC, 1 << 20, 3000), 2, 8);
	/* latency alone, tiny requests: as many as may be */
	governor_init(&g, 0, 0, 1);
	assert_true(simulate(&g, 1e12, 10 * NSEC_PER_MSEC, 500, 20000) >= 60);
	/* fixed stays fixed */
	governor_init(&g, 5, 0, 1);
	assert_int_equal(simulate(&g, 200e6, 10 * NSEC_PER_MSEC, 110000, 3000), 5);
}

static void token_bucket_holds_origin_bw(void **state)
{
	uint64_t now = 1, wait, sent = 0;
	struct governor g;

	(void)state;
	governor_init(&g, 64, 10 << 20, now);
	while (now < 10 * NSEC_PER_SEC) {
		if (governor_admits(&g, now, 0, 100000, &wait)) {
			sent += 100000;
			continue;
		}
		assert_true(wait > now);
		now = wait;
	}
	assert_in_range(sent, (uint64_t)(9.8 * (10 << 20)), (uint64_t)(10.2 * (10 << 20)));
}

/* What others took out of the bucket is made up for: the sum keeps to origin_bw=. */
static void token_bucket_pays_for_others(void **state)
{
	uint64_t now = 1, wait, sent = 0, others = 0;
	struct governor g;

	(void)state;
	governor_init(&g, 64, 10 << 20, now);
	while (now < 10 * NSEC_PER_SEC) {
		/* a tenth of what there is, in lumps larger than the bucket */
		if (now / NSEC_PER_SEC > others / (1 << 20))
			others += 1 << 20;
		governor_charge(&g, others);
		if (governor_admits(&g, now, 0, 100000, &wait)) {
			sent += 100000;
			continue;
		}
		assert_true(wait > now);
		now = wait;
	}
	assert_int_equal(others, 9 << 20);
	assert_in_range(sent + others, (uint64_t)(9.8 * (10 << 20)), (uint64_t)(10.2 * (10 << 20)));
}

/* ---- sets ---- */

struct fixture {
	struct set set;
	struct unit *a, *b;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->a = set_add_unit(&f->set, 2, 100, 400);
	f->b = set_add_unit(&f->set, 3, 500, 600);
	*state = f;
	return !f->a || !f->b;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	unit_free(f->a);
	unit_free(f->b);
	free(f->set.unit);
	free(f);
	return 0;
}

static void set_consumes_each_item_once(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(f->set.items, 1000);
	assert_int_equal(set_consume(&f->set, f->a, 3, 1), SET_READ);
	assert_int_equal(set_consume(&f->set, f->a, 3, 2), SET_REREAD);
	assert_int_equal(f->set.consumed, 1);
	assert_false(f->set.is_confirmed);
	for (uint32_t i = 0; i < 300; i++)
		set_consume(&f->set, f->b, i, 3);
	assert_true(f->set.is_confirmed);
	assert_int_equal(f->set.consumed, 301);
}

/* A loader that drops its last batch begins the next epoch at nine tenths. */
static void set_turns_near_the_end(void **state)
{
	struct fixture *f = *state;
	uint64_t left[PREDICTOR_COUNT] = { 0 };

	for (uint32_t i = 0; i < 400; i++)
		assert_int_equal(set_consume(&f->set, f->a, i, 1), SET_READ);
	for (uint32_t i = 0; i < 520; i++)
		assert_int_equal(set_consume(&f->set, f->b, i, 1), SET_READ);
	assert_int_equal(set_consume(&f->set, f->a, 7, 1), SET_TURNED);
	set_turn(&f->set, 2, left);
	assert_int_equal(f->set.epoch, 1);
	assert_int_equal(f->set.consumed, 0);
	assert_int_equal(set_consume(&f->set, f->a, 7, 1), SET_READ);
}

/* An aborted epoch: only a run of rereads ends it, and an item in between starts the count anew. */
static void set_turns_after_a_run_of_rereads(void **state)
{
	struct fixture *f = *state;
	uint64_t left[PREDICTOR_COUNT] = { 0 };

	/* a set that grew in an epoch was not all there to be read */
	set_consume(&f->set, f->a, 0, 1);
	set_turn(&f->set, 1, left);
	assert_false(set_is_partial(&f->set));
	for (uint32_t i = 0; i < 100; i++)
		set_consume(&f->set, f->a, i, 1);
	for (uint32_t i = 0; i < REREADS_MAX; i++)
		assert_int_equal(set_consume(&f->set, f->a, i, 1), SET_REREAD);
	assert_int_equal(set_consume(&f->set, f->a, 200, 1), SET_READ);
	for (uint32_t i = 0; i < REREADS_MAX; i++)
		assert_int_equal(set_consume(&f->set, f->a, i, 1), SET_REREAD);
	assert_int_equal(set_consume(&f->set, f->a, 0, 1), SET_TURNED);
	/* a subset was read: no more is fetched ahead until this epoch goes beyond it */
	set_turn(&f->set, 2, left);
	for (uint32_t i = 0; i < 101; i++) {
		set_consume(&f->set, f->a, i, 3);
		assert_true(set_is_partial(&f->set));
		assert_int_equal(set_confidence(&f->set), 0);
	}
	for (uint32_t i = 0; i < 20; i++)
		set_consume(&f->set, f->b, i, 3);
	assert_false(set_is_partial(&f->set));
	assert_true(set_confidence(&f->set) > 0);
}

/* What is saved comes back, to a set whose units come in another order; what is cut off or garbage does no harm. */
static void an_epoch_is_resumed(void **state)
{
	struct fixture *f = *state;
	uint64_t random = 3;
	size_t len;
	uint8_t *note;

	for (uint32_t i = 0; i < 77; i++)
		set_consume(&f->set, i % 2 ? f->a : f->b, i, 1);
	f->set.epoch = 5;
	note = resume_save(&f->set, 1000, &len);
	assert_non_null(note);
	for (size_t cut = 0; cut <= len + 50; cut++) {
		struct set s = { .parent = 1 };
		size_t size = cut <= len ? cut : len;
		void *copy = malloc(size + 1);
		struct unit *b, *a;

		memcpy(copy, note, size);
		for (int k = 0; cut > len && k < 8; k++)
			((uint8_t *)copy)[test_random(&random) % len] = (uint8_t)test_random(&random);
		resume_load(&s, copy, size, 1000 + RESUME_SECONDS);
		b = set_add_unit(&s, f->b->dir, f->b->first, f->b->count);
		a = set_add_unit(&s, f->a->dir, f->a->first, f->a->count);
		resume_unit(&s, b);
		resume_unit(&s, a);
		if (cut == len) {
			assert_int_equal(s.epoch, 5);
			assert_int_equal(s.consumed, 77);
			for (uint32_t i = 0; i < 77; i++)
				assert_true((i % 2 ? a : b)->item[i] & ITEM_CONSUMED);
			/* the first that is read again: another job */
			assert_int_equal(set_consume(&s, a, 1, 2), SET_TURNED);
		}
		unit_free(a);
		unit_free(b);
		free(s.unit);
		free(s.resumed);
	}
	assert_false(resume_load(&f->set, note, len, 1001 + RESUME_SECONDS));
}

/* ---- jobs ---- */

/* Readers @leader take item @k of the fixture's numbering; returns whom to split off. */
static uint32_t job_reads(struct fixture *f, uint32_t k, uint32_t leader)
{
	uint32_t index;
	struct unit *u = set_item(&f->set, k, &index);
	uint32_t leaver = jobs_saw(&f->set, k, u->item[index] & ITEM_CONSUMED, leader, 1);

	set_consume(&f->set, u, index, 1);
	return leaver;
}

static void shuffle_items(uint32_t *item, uint32_t n, uint32_t seed)
{
	const struct shuffle s = { SHUFFLE_TORCH, seed, 0 };

	for (uint32_t i = 0; i < n; i++)
		item[i] = i;
	shuffle_apply(&s, item, n);
}

static void two_jobs_are_told_apart(void **state)
{
	struct fixture *f = *state;
	uint32_t one[1000], other[1000], leaver = 0, n;

	shuffle_items(one, 1000, 1);
	shuffle_items(other, 1000, 2);
	for (n = 0; n < 200; n++)
		assert_int_equal(job_reads(f, one[n], 7), 0);
	/* the second began later, and has read less when it is noticed */
	for (n = 0; n < 500 && !leaver; n++) {
		assert_int_equal(job_reads(f, one[200 + n], 7), 0);
		leaver = job_reads(f, other[n], 8);
	}
	assert_int_equal(leaver, 8);
	assert_in_range(n, 32, 300);
	jobs_free(&f->set);
}

/* Ranks share an epoch: none reads what another has, until the next one; one that is broken off proves nothing either. */
static void ranks_are_one_job(void **state)
{
	struct fixture *f = *state;
	uint32_t item[1000];
	uint64_t left[PREDICTOR_COUNT] = { 0 };

	for (uint32_t epoch = 0; epoch < 20; epoch++) {
		uint32_t length = epoch % 2 ? 1000 : 500;

		shuffle_items(item, 1000, epoch);
		for (uint32_t n = 0; n < length; n++) {
			uint32_t index;
			struct unit *u = set_item(&f->set, item[n], &index);

			assert_int_equal(jobs_saw(&f->set, item[n], u->item[index] & ITEM_CONSUMED, 7 + n % 2, 1), 0);
			if (set_consume(&f->set, u, index, 1) == SET_TURNED) {
				set_turn(&f->set, 2, left);
				assert_int_equal(set_consume(&f->set, u, index, 1), SET_READ);
			}
		}
	}
	jobs_free(&f->set);
}

static void set_names_every_missing_item_once(void **state)
{
	struct fixture *f = *state;
	unsigned char seen[1000] = { 0 };
	struct unit *u;
	uint32_t k;
	int found = 0;

	f->a->item[5] = ITEM_CONSUMED;
	f->a->item[6] = ITEM_RESIDENT;
	f->b->item[7] = ITEM_UNFIT;
	while ((u = set_next_missing(&f->set, &k))) {
		assert_false(seen[u->first - 100 + k]);
		seen[u->first - 100 + k] = 1;
		u->item[k] |= ITEM_IN_FLIGHT;
		f->set.next_unit++;
		found++;
	}
	assert_int_equal(found, 997);
	/* an eviction makes the unit worth searching again */
	f->b->item[9] &= (uint8_t)~ITEM_IN_FLIGHT;
	f->b->is_exhausted = false;
	assert_ptr_equal(set_next_missing(&f->set, &k), f->b);
	assert_int_equal(k, 9);
}

static void set_confidence_grows_with_evidence(void **state)
{
	struct fixture *f = *state;
	uint64_t before = 0;

	assert_int_equal(set_confidence(&f->set), 0);
	for (uint32_t i = 0; i < 300; i++) {
		set_consume(&f->set, f->b, i, 1);
		assert_true(set_confidence(&f->set) >= before);
		before = set_confidence(&f->set);
	}
	assert_true(before == UINT64_MAX);
}

/* ---- streams ---- */

static void window_grows_on_stalls_and_goes_on_a_jump(void **state)
{
	struct streams s = { .by_ino = MAP64_INIT };
	struct observation o = { .ino = 9, .len = 131072, .kind = OBSERVE_READ };
	uint64_t size = 1ULL << 30, key, key_size, first_window = 0, ahead = 0;

	(void)state;
	for (int i = 0; i < 8; i++, o.offset += o.len)
		streams_read(&s, &o, size);
	while (streams_next(&s, &key, &key_size)) {
		assert_int_equal(extent_key_ino(key), 9);
		assert_int_equal(key_size, size);
		first_window++;
	}
	assert_in_range(first_window, 1, STREAM_WINDOW_FIRST + 1);
	o.stalled = 1;
	for (int i = 0; i < 200; i++, o.offset += o.len) {
		streams_read(&s, &o, size);
		while (streams_next(&s, &key, &key_size))
			ahead = extent_key_no(key) - o.offset / EXTENT_BYTES;
	}
	assert_in_range(ahead, STREAM_WINDOW_FIRST + 1, STREAM_WINDOW_MAX + 1);
	/* random reads ask for nothing ahead */
	o.stalled = 0;
	for (uint64_t i = 1; i < 50; i++) {
		o.offset = i * 7919 % 1000 * EXTENT_BYTES;
		streams_read(&s, &o, size);
	}
	while (streams_next(&s, &key, &key_size))
		;
	o.offset = 500 * (uint64_t)EXTENT_BYTES;
	streams_read(&s, &o, size);
	assert_false(streams_next(&s, &key, &key_size));
	streams_clear(&s);
}

static void readahead_ends_with_the_file(void **state)
{
	struct streams s = { .by_ino = MAP64_INIT };
	struct observation o = { .ino = 9, .len = 131072, .kind = OBSERVE_READ, .stalled = 1 };
	uint64_t size = 5 * EXTENT_BYTES + 1, key, key_size;

	(void)state;
	for (; o.offset < size; o.offset += o.len) {
		streams_read(&s, &o, size);
		while (streams_next(&s, &key, &key_size))
			assert_in_range(extent_key_no(key), 0, 5);
	}
	streams_clear(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(queue_keeps_each_producers_order),
		cmocka_unit_test(governor_finds_what_the_link_holds),
		cmocka_unit_test(token_bucket_holds_origin_bw),
		cmocka_unit_test(token_bucket_pays_for_others),
		cmocka_unit_test_setup_teardown(set_consumes_each_item_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(set_turns_near_the_end, set_up, tear_down),
		cmocka_unit_test_setup_teardown(set_turns_after_a_run_of_rereads, set_up, tear_down),
		cmocka_unit_test_setup_teardown(an_epoch_is_resumed, set_up, tear_down),
		cmocka_unit_test_setup_teardown(two_jobs_are_told_apart, set_up, tear_down),
		cmocka_unit_test_setup_teardown(ranks_are_one_job, set_up, tear_down),
		cmocka_unit_test_setup_teardown(set_names_every_missing_item_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(set_confidence_grows_with_evidence, set_up, tear_down),
		cmocka_unit_test(window_grows_on_stalls_and_goes_on_a_jump),
		cmocka_unit_test(readahead_ends_with_the_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

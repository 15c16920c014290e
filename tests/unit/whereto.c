/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/whereto.h"
#include "tests/unit/test.h"

enum { ITEMS = 6000, BATCH = 20 };

/* Workers of a loader, worker w at place w % 2, each at its own pace: which positions are guessed right. */
static unsigned guessed(struct whereto *w, unsigned workers, unsigned ranks, uint32_t pid0, unsigned from)
{
	uint32_t next[16] = { 0 };
	uint64_t random = 5;
	unsigned right = 0;

	for (uint32_t read = 0; read < ITEMS;) {
		uint32_t k = (uint32_t)(test_random(&random) >> 33) % (workers * ranks), rank = k % ranks, worker = k / ranks;
		uint32_t own = next[k] / BATCH * BATCH * workers + worker * BATCH + next[k] % BATCH, at = own * ranks + rank;
		int place = (int)((ranks > 1 ? rank : worker) % 2);

		if (at >= ITEMS) {
			read++;   /* this one is through */
			continue;
		}
		right += read >= from && whereto_position(w, at, ranks) == place;
		whereto_saw_position(w, at, ranks, pid0 + k, place);
		next[k]++;
		read++;
	}
	return right;
}

static void a_workers_place_is_its_lane(void **state)
{
	static struct whereto w;

	(void)state;
	memset(&w, 0, sizeof(w));
	guessed(&w, 4, 1, 100, 0);
	assert_int_equal(w.run, BATCH);
	assert_int_equal(w.period, 4 * BATCH);
	/* the next epoch has other processes, but the loader is the same: right from the first on */
	whereto_turn(&w);
	assert_true(guessed(&w, 4, 1, 200, 0) >= ITEMS * 95 / 100);
	/* another loader: learnt anew */
	whereto_turn(&w);
	guessed(&w, 2, 1, 300, 0);
	assert_int_equal(w.period, 2 * BATCH);
}

static void a_ranks_place_is_its_residue(void **state)
{
	static struct whereto w;

	(void)state;
	memset(&w, 0, sizeof(w));
	/* without workers a rank reads its own order from end to end: no batches to be seen */
	for (uint32_t at = 0; at < 100; at++)
		whereto_saw_position(&w, at, 2, 100 + at % 2, (int)(at % 2));
	assert_int_equal(w.period, 0);
	for (uint32_t at = 100; at < 200; at++)
		assert_int_equal(whereto_position(&w, at, 2), at % 2);
	memset(&w, 0, sizeof(w));
	guessed(&w, 2, 2, 100, 0);
	whereto_turn(&w);
	assert_true(guessed(&w, 2, 2, 200, 0) >= ITEMS * 9 / 10);
}

static void items_stay_with_their_readers(void **state)
{
	static struct whereto w;
	static uint8_t last[ITEMS];

	(void)state;
	memset(&w, 0, sizeof(w));
	assert_int_equal(whereto_item(&w, 0), -1);
	for (int epoch = 0; epoch < 2; epoch++) {
		for (unsigned i = 0; i < ITEMS; i++)
			whereto_saw_item(&w, &last[i], i % 3 == 0);
	}
	for (unsigned i = 0; i < ITEMS; i++) {
		assert_int_equal(whereto_item(&w, last[i]), i % 3 == 0);
		assert_int_equal(whereto_last(&w, last[i]), i % 3 == 0);
	}
	assert_int_equal(whereto_last(&w, 0), -1);
}

/* Readers take what comes: nothing to know but how much each place reads. */
static void strangers_get_their_share(void **state)
{
	static struct whereto w;
	static uint8_t last[ITEMS];
	uint64_t random = 3;
	unsigned given[2] = { 0 };

	(void)state;
	memset(&w, 0, sizeof(w));
	memset(last, 0, sizeof(last));
	for (int epoch = 0; epoch < 2; epoch++) {
		for (unsigned i = 0; i < ITEMS; i++)
			whereto_saw_item(&w, &last[i], test_random(&random) >> 62 == 0);
	}
	for (unsigned i = 0; i < 1000; i++)
		given[whereto_item(&w, last[i])]++;
	assert_int_equal(whereto_last(&w, last[0]), -1);
	assert_in_range(given[1], 200, 300);
	assert_int_equal(whereto_position(&w, 5, 1), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_workers_place_is_its_lane),
		cmocka_unit_test(a_ranks_place_is_its_residue),
		cmocka_unit_test(items_stay_with_their_readers),
		cmocka_unit_test(strangers_get_their_share),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

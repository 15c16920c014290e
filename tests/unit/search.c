/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/search.h"
#include "tests/unit/test.h"

static struct head head_of(enum shuffle_kind kind, uint64_t seed, uint64_t skip, uint32_t n, uint32_t start, uint32_t stride, uint32_t count)
{
	struct shuffle s = { kind, seed, skip };
	uint32_t *order = malloc(n * sizeof(*order));
	struct head h = { .n = n, .count = count };

	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	shuffle_apply(&s, order, n);
	for (uint32_t i = 0; i < count; i++)
		h.index[i] = order[start + stride * i];
	free(order);
	return h;
}

/* The filter in lanes agrees with the whole generator, for lists of every kind of length. */
static void every_seed_is_found(void **state)
{
	static const uint32_t lengths[] = { 13, 64, 100, 1000, 4096, 50000, 1281167, 100000007 };
	uint64_t random = 1;

	(void)state;
	for (size_t k = 0; k < sizeof(lengths) / sizeof(lengths[0]) - 1; k++) {
		uint32_t n = lengths[k], needed = search_entries_needed(n, 20), got;

		assert_true(needed || n < 20);
		for (int i = 0; i < 20; i++) {
			uint64_t seed = test_random(&random) >> 32, from = seed > 5000 ? seed - 5000 : 0;
			struct head h = head_of(SHUFFLE_TORCH, seed, 0, n, 0, 1, needed ? needed : 12);

			assert_true(search_torch(&h, from, 10000, NULL, &got));
			if (needed)
				assert_int_equal(got, seed);
			assert_true(search_matches(&h, (uint32_t)seed, 0));
			if (i > 2 && n > 100000)
				break;
		}
	}
}

static void what_is_no_permutation_is_refused(void **state)
{
	struct head twice = { .n = 1000, .count = 4, .index = { 5, 6, 5, 7 } }, beyond = { .n = 10, .count = 2, .index = { 3, 12 } };
	uint32_t seed;

	(void)state;
	assert_false(search_torch(&twice, 0, 100000, NULL, &seed));
	assert_false(search_torch(&beyond, 0, 100000, NULL, &seed));
	assert_false(search_matches(&twice, 0, 0));
}

/* Random heads match none of a million seeds. */
static void noise_is_not_recognised(void **state)
{
	uint64_t random = 2;

	(void)state;
	for (int i = 0; i < 10; i++) {
		uint32_t n = 3000, needed = search_entries_needed(n, 20), seed;
		struct head h = { .n = n, .count = needed };

		for (uint32_t k = 0; k < needed; k++)
			h.index[k] = (uint32_t)(test_random(&random) % n);
		assert_false(search_torch(&h, 0, 1000000, NULL, &seed));
	}
}

static void ranks_are_found(void **state)
{
	uint32_t seed, start, stride;
	struct head h = head_of(SHUFFLE_TORCH, 2, 0, 1281167, 3, 8, 4);

	(void)state;
	assert_true(search_strided(&h, 100, 64, NULL, &seed, &start, &stride));
	assert_int_equal(seed, 2);
	assert_int_equal(start, 3);
	assert_int_equal(stride, 8);
	h = head_of(SHUFFLE_TORCH, 17, 0, 3000, 0, 2, 5);
	assert_true(search_strided(&h, 100, 64, NULL, &seed, &start, &stride));
	assert_int_equal(seed, 17);
	assert_int_equal(stride, 2);
}

static void other_shuffles_are_found(void **state)
{
	static const enum shuffle_kind kinds[] = { SHUFFLE_NUMPY_STATE, SHUFFLE_NUMPY_RNG, SHUFFLE_PYTHON, SHUFFLE_STD, SHUFFLE_STD_OLD };
	uint64_t seed;

	(void)state;
	for (size_t k = 0; k < 5; k++) {
		struct head h = head_of(kinds[k], 123, 0, 500, 0, 1, 8);

		assert_true(search_small(&h, kinds[k], 0, 1000, NULL, &seed));
		assert_int_equal(seed, 123);
		assert_false(search_small(&h, kinds[k], 200, 100, NULL, &seed));
	}
}

/* manual_seed(42), any number of draws before: word 3 at first, and found in the stream of a later word. */
static void the_default_generator_is_found(void **state)
{
	struct head h = head_of(SHUFFLE_TORCH, 787846414, 0, 3000, 0, 1, 5);
	uint32_t main_seed;
	uint64_t word, at;

	(void)state;
	assert_true(search_default_generator(&h, 100, 8, NULL, &main_seed, &word));
	assert_int_equal(main_seed, 42);
	assert_int_equal(word, 3);
	/* every word of every seed, on both sides of what is tried at once */
	for (uint32_t s = 120; s < 140; s++) {
		for (word = 3; word < SEARCH_WORDS_MAX; word += 2) {
			struct mt19937 g;
			uint32_t seed = 0;
			uint64_t found = 0;

			mt19937_seed(&g, s);
			for (uint32_t i = 0; i <= word; i++)
				seed = mt19937_next(&g);
			h = head_of(SHUFFLE_TORCH, seed, 0, 3000, 0, 1, 5);
			assert_true(search_default_generator(&h, s + 1, SEARCH_WORDS_MAX, NULL, &main_seed, &found));
			assert_int_equal(main_seed, s);
			assert_int_equal(found, word);
			assert_false(search_default_generator(&h, s, SEARCH_WORDS_MAX, NULL, &main_seed, &found));
		}
	}
	assert_true(search_stream(42, 429389014u, 100, NULL, &at));
	assert_int_equal(at, 11);
	assert_false(search_stream(42, 429389014u, 11, NULL, &at));
}

static void a_search_can_be_called_off(void **state)
{
	struct head h = { .n = 3000, .count = 5, .index = { 1, 2, 3, 4, 5 } };
	_Atomic bool cancel = true;
	uint32_t seed;
	uint64_t at;

	(void)state;
	assert_false(search_torch(&h, 0, 1ULL << 32, &cancel, &seed));
	assert_false(search_stream(1, 1, 1ULL << 40, &cancel, &at));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_seed_is_found),
		cmocka_unit_test(what_is_no_permutation_is_refused),
		cmocka_unit_test(noise_is_not_recognised),
		cmocka_unit_test(ranks_are_found),
		cmocka_unit_test(other_shuffles_are_found),
		cmocka_unit_test(the_default_generator_is_found),
		cmocka_unit_test(a_search_can_be_called_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

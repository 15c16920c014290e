/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/neighbour.h"
#include "tests/unit/test.h"

enum { ITEMS = 1000 };

/* All that is expected now, taken; how many. */
static uint32_t expected(struct neighbours *n, uint32_t item[ITEMS])
{
	struct neighbour_reader *r;
	uint32_t count = 0;

	while ((r = neighbours_next(n, ITEMS, &item[count])) && count < ITEMS - 1) {
		neighbours_take(n, r);
		count++;
	}
	return count;
}

static void workers_are_followed_by_their_step(void **state)
{
	struct neighbours n = { 0 };
	uint32_t item[ITEMS];

	(void)state;
	/* worker w of 4 takes w, w + 4, w + 8 ... */
	for (uint32_t k = 0; k < 2; k++) {
		for (uint32_t w = 0; w < 4; w++)
			neighbours_saw(&n, w + 4 * k, 100 + w);
		assert_int_equal(expected(&n, item), 0);
	}
	/* the first that confirms it is followed alone: as far as it was right */
	neighbours_saw(&n, 8, 100);
	assert_int_equal(expected(&n, item), 2);
	assert_int_equal(item[0], 12);
	assert_int_equal(item[1], 16);
	/* who has less ahead comes first */
	neighbours_saw(&n, 9, 101);
	assert_int_equal(expected(&n, item), 2);
	assert_int_equal(item[0], 13);
	/* once more: one item moved up, and one more is trusted */
	neighbours_saw(&n, 12, 100);
	assert_int_equal(expected(&n, item), 2);
	assert_int_equal(item[0], 20);
	assert_int_equal(item[1], 24);
}

static void a_step_that_fails_is_dropped(void **state)
{
	struct neighbours n = { 0 };
	uint32_t item[ITEMS];

	(void)state;
	for (uint32_t k = 0; k < 20; k++)
		neighbours_saw(&n, k, 1);
	assert_int_equal(expected(&n, item), NEIGHBOUR_AHEAD);
	neighbours_saw(&n, 500, 1);
	assert_int_equal(expected(&n, item), 0);
	neighbours_saw(&n, 501, 1);
	assert_int_equal(expected(&n, item), 0);
	neighbours_saw(&n, 502, 1);
	assert_int_equal(expected(&n, item), 2);
	/* what was taken may be lost */
	neighbours_again(&n);
	assert_int_equal(expected(&n, item), 2);
	assert_int_equal(item[0], 503);
}

static void the_next_epochs_workers_need_one_step(void **state)
{
	struct neighbours n = { 0 };
	uint32_t item[ITEMS];

	(void)state;
	for (uint32_t k = 0; k < 5; k++)
		neighbours_saw(&n, 3 * k, 7);
	neighbours_turn(&n);
	neighbours_saw(&n, 1, 8);
	assert_int_equal(expected(&n, item), 0);
	neighbours_saw(&n, 4, 8);
	assert_int_equal(expected(&n, item), 2);
	assert_int_equal(item[0], 7);
	/* one of another step has to show it twice */
	neighbours_saw(&n, 2, 9);
	neighbours_saw(&n, 7, 9);
	assert_int_equal(expected(&n, item), 0);
	neighbours_saw(&n, 12, 9);
	assert_int_equal(expected(&n, item), 2);
	assert_int_equal(item[0], 17);
}

static void ends_and_directions(void **state)
{
	struct neighbours n = { 0 };
	uint32_t item[ITEMS];

	(void)state;
	for (uint32_t k = 0; k < 9; k++)
		neighbours_saw(&n, ITEMS - 10 + k, 1);
	assert_int_equal(expected(&n, item), 1);
	assert_int_equal(item[0], ITEMS - 1);
	for (uint32_t k = 0; k < 9; k++)
		neighbours_saw(&n, 18 - 2 * k, 2);
	assert_int_equal(expected(&n, item), 1);
	assert_int_equal(item[0], 0);
	/* the same again is no step, nor is a jump */
	for (uint32_t k = 0; k < 9; k++)
		neighbours_saw(&n, 100, 3);
	assert_int_equal(expected(&n, item), 0);
}

/* A shuffled list: nothing is expected but by chance, and more readers than are told apart do no harm. */
static void shuffles_have_no_neighbours(void **state)
{
	struct neighbours n = { 0 };
	uint64_t random = 5;
	uint32_t item[ITEMS], sum = 0;

	(void)state;
	for (uint32_t k = 0; k < 20000; k++) {
		neighbours_saw(&n, (uint32_t)(test_random(&random) % ITEMS), (uint32_t)(test_random(&random) % (2 * NEIGHBOUR_READERS)));
		sum += expected(&n, item);
	}
	assert_true(sum <= 20000 / 100);
	assert_int_equal(n.count, NEIGHBOUR_READERS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(workers_are_followed_by_their_step),
		cmocka_unit_test(a_step_that_fails_is_dropped),
		cmocka_unit_test(the_next_epochs_workers_need_one_step),
		cmocka_unit_test(ends_and_directions),
		cmocka_unit_test(shuffles_have_no_neighbours),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

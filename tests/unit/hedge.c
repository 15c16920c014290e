/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/hedge.h"
#include "lib/clock.h"
#include "tests/unit/test.h"

static void samples(struct hedge *h, unsigned count, uint64_t took_ns)
{
	while (count--)
		hedge_sample(h, took_ns);
}

/* No guess without peers; then twice the 90th percentile, whatever a few stragglers took. */
static void after_comes_from_the_peers(void **state)
{
	struct hedge h;

	(void)state;
	hedge_init(&h, true);
	samples(&h, 31, 30 * NSEC_PER_MSEC);
	assert_true(hedge_after_ns(&h) == UINT64_MAX);
	hedge_sample(&h, 10 * NSEC_PER_MSEC);
	assert_int_equal(hedge_after_ns(&h), 60 * NSEC_PER_MSEC);
	samples(&h, 116, 30 * NSEC_PER_MSEC);
	samples(&h, 12, 500 * NSEC_PER_MSEC);   /* of 128: a tenth and no more */
	assert_int_equal(hedge_after_ns(&h), 60 * NSEC_PER_MSEC);
	samples(&h, 1, 90 * NSEC_PER_MSEC);
	assert_int_equal(hedge_after_ns(&h), 180 * NSEC_PER_MSEC);
	/* what it was before is forgotten */
	samples(&h, HEDGE_PEERS, NSEC_PER_MSEC);
	assert_int_equal(hedge_after_ns(&h), 20 * NSEC_PER_MSEC);
}

/* The percentile of a shuffled ring is the one of the sorted ring. */
static void order_does_not_matter(void **state)
{
	uint64_t random = 5;

	(void)state;
	for (unsigned n = 32; n <= HEDGE_PEERS; n++) {
		unsigned value[HEDGE_PEERS];
		struct hedge h;

		hedge_init(&h, true);
		for (unsigned i = 0; i < n; i++)
			value[i] = i + 1;
		for (unsigned i = n - 1; i; i--) {
			unsigned j = (unsigned)(test_random(&random) % (i + 1)), kept = value[i];

			value[i] = value[j];
			value[j] = kept;
		}
		for (unsigned i = 0; i < n; i++)
			hedge_sample(&h, value[i] * NSEC_PER_SEC);
		assert_int_equal(hedge_after_ns(&h), 2 * (n - n / 10) * NSEC_PER_SEC);
	}
}

/* A burst, then one for fifty requests, however they are asked for. */
static void hedges_are_a_share(void **state)
{
	unsigned sent = 0;
	struct hedge h;

	(void)state;
	hedge_init(&h, true);
	while (hedge_spend(&h))
		sent++;
	assert_int_equal(sent, 8);
	for (unsigned i = 0; i < 1000; i++) {
		hedge_earn(&h);
		sent += hedge_spend(&h);
	}
	assert_int_equal(sent, 8 + 1000 / 50);
	for (unsigned i = 0; i < 100000; i++)
		hedge_earn(&h);
	for (sent = 0; hedge_spend(&h);)
		sent++;
	assert_int_equal(sent, 8);   /* what is not used is not saved for ever */
}

static void off_is_never(void **state)
{
	struct hedge h;

	(void)state;
	hedge_init(&h, false);
	samples(&h, 1000, NSEC_PER_MSEC);
	assert_true(hedge_after_ns(&h) == UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(after_comes_from_the_peers),
		cmocka_unit_test(order_does_not_matter),
		cmocka_unit_test(hedges_are_a_share),
		cmocka_unit_test(off_is_never),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The states of an origin, in a time of our own. */
#include "cache/origin/health.h"
#include <errno.h>
#include "lib/clock.h"
#include "lib/stats.h"
#include "tests/unit/test.h"

#define S(seconds) ((uint64_t)(seconds) * NSEC_PER_SEC)

struct fixture {
	struct stats *stats;
	struct health *health;
	unsigned probes;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	*state = f;
	return !f || stats_new(&f->stats) || health_new(&health_of_origin, f->stats, &f->health);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	health_free(f->health);
	stats_free(f->stats);
	free(f);
	return 0;
}

static void answers(struct fixture *f, unsigned n, int err)
{
	while (n--) {
		health_asked(f->health, S(1));
		health_answered(f->health, err, S(1));
	}
}

static void assert_counts(struct fixture *f, unsigned shaky, unsigned down, unsigned back)
{
	assert_int_equal(stats_read(f->stats, STAT_ORIGIN_WENT_SHAKY), shaky);
	assert_int_equal(stats_read(f->stats, STAT_ORIGIN_WENT_DOWN), down);
	assert_int_equal(stats_read(f->stats, STAT_ORIGIN_CAME_BACK), back);
}

static void errors_bring_it_down_and_answers_back(void **state)
{
	struct fixture *f = *state;

	answers(f, 1, -EIO);
	assert_int_equal(health_state(f->health, S(1)), HEALTH_SHAKY);
	answers(f, 6, -EIO);
	assert_int_equal(health_state(f->health, S(1)), HEALTH_SHAKY);
	answers(f, 1, -EIO);
	assert_int_equal(health_state(f->health, S(1)), HEALTH_DOWN);
	answers(f, 1, 0);
	assert_int_equal(health_state(f->health, S(1)), HEALTH_SHAKY);
	answers(f, 7, 0);
	assert_int_equal(health_state(f->health, S(1)), HEALTH_OK);
	assert_counts(f, 1, 1, 1);
}

static void what_is_absent_or_refused_is_an_answer(void **state)
{
	struct fixture *f = *state;

	answers(f, 20, -ENOENT);
	answers(f, 20, -EACCES);
	answers(f, 20, -ESTALE);
	assert_int_equal(health_state(f->health, S(1)), HEALTH_OK);
	assert_counts(f, 0, 0, 0);
}

static void silence_counts_from_the_first_unanswered(void **state)
{
	struct fixture *f = *state;

	health_asked(f->health, S(10));
	assert_int_equal(health_state(f->health, S(11)), HEALTH_OK);
	health_asked(f->health, S(11));
	assert_int_equal(health_state(f->health, S(12)), HEALTH_SHAKY);
	assert_int_equal(health_state(f->health, S(15)), HEALTH_DOWN);
	health_answered(f->health, 0, S(16));
	/* the other one was lost, but the origin speaks */
	assert_int_equal(health_state(f->health, S(100)), HEALTH_SHAKY);
	assert_counts(f, 1, 1, 0);
}

static void probe(void *arg)
{
	++*(unsigned *)arg;
}

static void one_probe_at_a_time_and_one_a_second(void **state)
{
	struct fixture *f = *state;

	health_set_probe(f->health, probe, &f->probes);
	answers(f, 7, -EIO);
	health_state(f->health, S(2));
	assert_int_equal(f->probes, 0);
	answers(f, 1, -EIO);
	health_state(f->health, S(2));
	health_state(f->health, S(60));
	assert_int_equal(f->probes, 1);
	health_probed(f->health, S(60));
	health_state(f->health, S(60));
	assert_int_equal(f->probes, 1);
	health_state(f->health, S(61));
	assert_int_equal(f->probes, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(errors_bring_it_down_and_answers_back, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_is_absent_or_refused_is_an_answer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(silence_counts_from_the_first_unanswered, set_up, tear_down),
		cmocka_unit_test_setup_teardown(one_probe_at_a_time_and_one_a_second, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

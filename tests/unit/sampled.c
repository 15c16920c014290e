/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/sampled.h"
#include <stdlib.h>
#include "prefetch/prefetch.h"
#include "prefetch/set.h"
#include "tests/unit/test.h"

enum { FILES = 8, SAMPLES = 40, BYTES = 60000, HEAD = 4096, SIZE = HEAD + SAMPLES * BYTES, SHARE_LEFT = 8 };

struct fixture {
	struct set *s;
	struct unit *u;
	uint64_t random;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->s = calloc(1, sizeof(*f->s));
	f->u = set_add_unit(f->s, 1, 100, FILES);
	f->random = 3;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	set_free(f->s);
	free(f);
	return 0;
}

/* As the owner does: reader @pid opens file @k for its sample @i; whether the kernel hides the read. */
static enum sampled_event take(struct fixture *f, uint32_t k, uint32_t i, uint32_t pid, bool is_hidden)
{
	enum sampled_event event = sampled_open(f->s, f->u, k, is_hidden);
	struct observation o = { .pid = pid, .offset = HEAD + (uint64_t)i * BYTES, .len = BYTES };

	if (event == SAMPLED_WHOLE)
		set_consume(f->s, f->u, k, 1);
	if (!is_hidden)
		sampled_read(f->s, f->u, k, SIZE, &o);
	if (f->s->sampled.is_on && !(f->u->item[k] & ITEM_CONSUMED) && sampled_is_read(f->s, f->u, k, SIZE)) {
		set_consume(f->s, f->u, k, 1);
		sampled_consumed(f->u, k);
	}
	return event;
}

/* All samples of all files in one shuffle, by two readers. Returns the samples that were left when the last file counted as read. */
static uint32_t epoch(struct fixture *f, bool is_hidden)
{
	uint32_t order[FILES * SAMPLES], left = 0;

	for (uint32_t i = 0; i < FILES * SAMPLES; i++)
		order[i] = i;
	for (uint32_t i = FILES * SAMPLES; i > 1; i--) {
		uint32_t j = (uint32_t)(test_random(&f->random) % i), t = order[j];

		order[j] = order[i - 1];
		order[i - 1] = t;
	}
	for (uint32_t i = 0; i < FILES * SAMPLES; i++) {
		assert_int_not_equal(take(f, order[i] % FILES, order[i] / FILES, 1 + i % 2, is_hidden && i > FILES * SAMPLES / 4), SAMPLED_REREAD);
		left += f->s->consumed == FILES;
	}
	return left;
}

static void turn(struct fixture *f)
{
	uint64_t left[PREDICTOR_COUNT];

	set_turn(f->s, 2, left);
}

static void samples_are_told_from_files(void **state)
{
	struct fixture *f = *state;
	uint32_t left = epoch(f, false);

	assert_true(f->s->sampled.is_on);
	/* read when nearly all of it was, not with its first open */
	assert_int_equal(f->s->consumed, FILES);
	assert_in_range(left, 1, FILES * SAMPLES / SHARE_LEFT);
	for (uint32_t e = 0; e < 3; e++) {
		turn(f);
		assert_int_equal(f->s->consumed, 0);
		/* from now on by the number of opens: nothing of it need be seen */
		left = epoch(f, true);
		assert_int_equal(f->s->consumed, FILES);
		assert_in_range(left, 1, FILES * SAMPLES / SHARE_LEFT);
	}
}

static void what_is_hidden_is_estimated(void **state)
{
	struct fixture *f = *state;

	epoch(f, true);
	assert_true(f->s->sampled.is_on);
	assert_true(f->s->consumed >= FILES - 2);
}

static void an_epoch_that_is_noticed_late(void **state)
{
	struct fixture *f = *state;

	epoch(f, false);
	/* fifteen samples of file 0 are the next epoch's */
	for (uint32_t i = 0; i < 15; i++)
		take(f, 0, i, 1, true);
	assert_int_equal(take(f, 0, 15, 1, true), SAMPLED_REREAD);
	assert_true(sampled_may_turn(f->s));
	turn(f);
	assert_false(sampled_may_turn(f->s));
	/* they are not asked of it again */
	assert_in_range(f->u->progress[0].opens, 12, 20);
	assert_int_equal(f->u->progress[1].opens, 0);
	assert_int_equal(f->s->sampled.begun_count, 1);
}

/* Read from the beginning to the end, by four readers each for itself, and opened more than once. */
static void whole_files_are_not_sampled(void **state)
{
	struct fixture *f = *state;

	for (uint32_t k = 0; k < FILES; k++) {
		for (uint32_t pid = 1; pid <= 4; pid++) {
			assert_int_equal(sampled_open(f->s, f->u, k, false), SAMPLED_WHOLE);
			assert_int_equal(sampled_open(f->s, f->u, k, false), SAMPLED_WHOLE);
		}
		for (uint64_t at = 0; at < SIZE; at += 131072) {
			for (uint32_t pid = 1; pid <= 4; pid++) {
				struct observation o = { .pid = pid, .offset = at, .len = 131072 };

				sampled_read(f->s, f->u, k, SIZE, &o);
			}
		}
	}
	assert_false(f->s->sampled.is_on);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		CASE(samples_are_told_from_files),
		CASE(what_is_hidden_is_estimated),
		CASE(an_epoch_that_is_noticed_late),
		CASE(whole_files_are_not_sampled),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What every cmocka test includes, in the order cmocka wants. */
#ifndef HOPPER_TESTS_UNIT_TEST_H
#define HOPPER_TESTS_UNIT_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* xorshift64*: a test's own numbers, the same in every run. */
static inline uint64_t test_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dULL;
}

#endif

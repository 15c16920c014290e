/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/parse.h"
#include "tests/unit/test.h"

static void sizes(void **state)
{
	static const struct { const char *text; uint64_t bytes; } good[] = {
		{ "0", 0 }, { "1", 1 }, { "4K", 4096 }, { "1.5G", 1610612736 }, { "2T", 2ULL << 40 },
		{ "64m", 64 << 20 }, { "16383P", 16383ULL << 50 },
	};
	static const char *const bad[] = {
		"", "K", "-1", "+1", " 1", "1 ", "1KK", "1Q", "0x10", "1e3", "nan", "inf", "99999999999999999999",
		"18446744073709551616", "1..5G", "1.5.5G", "20000P",
	};
	uint64_t bytes = 77;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(parse_size(good[i].text, &bytes), 0);
		assert_int_equal(bytes, good[i].bytes);
	}
	bytes = 77;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (!parse_size(bad[i], &bytes))
			fail_msg("'%s' was taken for %llu", bad[i], (unsigned long long)bytes);
		assert_int_equal(bytes, 77);
	}
	assert_int_equal(parse_size_or_percent("50%", 1000, &bytes), 0);
	assert_int_equal(bytes, 500);
	assert_int_equal(parse_size_or_percent("4K", 1000, &bytes), 0);
	assert_int_equal(bytes, 4096);
	assert_true(parse_size_or_percent("101%", 1000, &bytes) < 0);
	assert_true(parse_size_or_percent("%", 1000, &bytes) < 0);
}

static void durations(void **state)
{
	static const struct { const char *text; uint64_t ns; } good[] = {
		{ "10ms", 10000000 }, { "1", 1000000000 }, { "0.5", 500000000 }, { "2us", 2000 }, { "7ns", 7 },
		{ "1m", 60000000000 }, { "1h", 3600000000000 }, { "1d", 86400000000000 }, { "0", 0 },
	};
	static const char *const bad[] = { "", "ms", "-1s", "1y", "1 s", "1s1", "1e999", "999999999999d" };
	uint64_t ns;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(parse_duration(good[i].text, &ns), 0);
		assert_int_equal(ns, good[i].ns);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (!parse_duration(bad[i], &ns))
			fail_msg("'%s' was taken", bad[i]);
	}
}

static void numbers_and_switches(void **state)
{
	uint64_t value;
	bool on;

	(void)state;
	assert_int_equal(parse_u64("18446744073709551615", &value), 0);
	assert_int_equal(value, UINT64_MAX);
	assert_true(parse_u64("18446744073709551616", &value) < 0);
	assert_true(parse_u64("-1", &value) < 0);
	assert_true(parse_u64("", &value) < 0);
	assert_int_equal(parse_bool("on", &on), 0);
	assert_true(on);
	assert_int_equal(parse_bool("no", &on), 0);
	assert_false(on);
	assert_true(parse_bool("maybe", &on) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),
		cmocka_unit_test(durations),
		cmocka_unit_test(numbers_and_switches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include "lib/hist.h"
#include "lib/stats.h"
#include "tests/unit/test.h"

static void *count(void *arg)
{
	for (int i = 0; i < 100000; i++)
		stats_inc(arg, STAT_READS_OPENS);
	return NULL;
}

static void counters_sum_over_threads(void **state)
{
	struct stats *s;
	pthread_t thread[4];

	(void)state;
	assert_int_equal(stats_new(&s), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, count, s), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(stats_read(s, STAT_READS_OPENS), 400000);
	stats_free(s);
}

/* Every section and key of the table stands in both documents. */
static void documents_are_complete(void **state)
{
	struct stats *s;
	char *json, *metrics, quoted[128];

	(void)state;
	assert_int_equal(stats_new(&s), 0);
	stats_set_text(s, STAT_ORIGIN_KIND, "a\"b");
	stats_set_real(s, STAT_FORECAST_C, 0.25);
	json = stats_json(s);
	metrics = stats_openmetrics(s);
	assert_non_null(json);
	assert_non_null(metrics);
	for (int i = 0; i < STAT_COUNT; i++) {
		const char *key = stat_table[i].key;

		assert_non_null(stat_table[i].help);
		if (strchr(key, '.'))
			key = strrchr(key, '.') + 1;
		snprintf(quoted, sizeof(quoted), "\"%s\":", key);
		if (!strstr(json, quoted))
			fail_msg("%s is missing", quoted);
	}
	assert_non_null(strstr(json, "\"kind\": \"a\\\"b\""));
	assert_non_null(strstr(json, "\"c\": 0.25"));
	assert_string_equal(metrics + strlen(metrics) - 6, "# EOF\n");
	assert_non_null(strstr(metrics, "hopper_reads_opens_total 0"));
	free(json);
	free(metrics);
	stats_free(s);
}

static void percentiles_are_within_an_eighth(void **state)
{
	static struct hist h;

	(void)state;
	assert_int_equal(hist_percentile(&h, 50), 0);
	for (uint64_t v = 1; v <= 100000; v++)
		hist_record(&h, v);
	for (int p = 10; p <= 100; p += 10) {
		double got = (double)hist_percentile(&h, p), want = p * 1000.0;

		assert_true(got >= want * 0.87 && got <= want * 1.13);
	}
	hist_record(&h, UINT64_MAX);
	assert_true(hist_percentile(&h, 100) > UINT64_MAX / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counters_sum_over_threads),
		cmocka_unit_test(documents_are_complete),
		cmocka_unit_test(percentiles_are_within_an_eighth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/list.h"
#include "lib/map64.h"
#include "lib/strbuf.h"
#include "tests/unit/test.h"

struct node {
	int value;
	struct list link;
};

static void list_keeps_order_and_forgives_double_removal(void **state)
{
	struct node n[3] = { { 1, { 0 } }, { 2, { 0 } }, { 3, { 0 } } };
	struct list a, b;
	int sum = 0;

	(void)state;
	list_init(&a);
	list_init(&b);
	list_push_back(&a, &n[1].link);
	list_push_front(&a, &n[0].link);
	list_push_back(&b, &n[2].link);
	list_splice_back(&a, &b);
	assert_true(list_is_empty(&b));
	list_for_each(p, &a)
		sum = sum * 10 + container_of(p, struct node, link)->value;
	assert_int_equal(sum, 123);
	list_remove(&n[1].link);
	list_remove(&n[1].link);
	assert_ptr_equal(list_pop_front(&a), &n[0].link);
	assert_ptr_equal(list_pop_front(&a), &n[2].link);
	assert_null(list_pop_front(&a));
	list_splice_back(&a, &b);
	assert_true(list_is_empty(&a));
}

/* Against an array: a hundred thousand random puts, removals and lookups. */
static void map64_agrees_with_an_array(void **state)
{
	static char value[1 << 10];
	static char *model[1 << 10];
	struct map64 m = MAP64_INIT;
	uint64_t random = 7, key;
	size_t pos = 0, count = 0;

	(void)state;
	for (int i = 0; i < 100000; i++) {
		/* keys that collide: multiples of a large power of two, and 0 and the highest */
		unsigned k = (unsigned)(test_random(&random) >> 54);
		uint64_t full = k == 1023 ? UINT64_MAX : (uint64_t)k << 40;

		if (test_random(&random) >> 63) {
			model[k] = &value[test_random(&random) >> 54];
			assert_int_equal(map64_put(&m, full, model[k]), 0);
		} else {
			assert_ptr_equal(map64_remove(&m, full), model[k]);
			model[k] = NULL;
		}
		k = (unsigned)(test_random(&random) >> 54);
		assert_ptr_equal(map64_get(&m, k == 1023 ? UINT64_MAX : (uint64_t)k << 40), model[k]);
	}
	for (unsigned k = 0; k < 1024; k++)
		count += model[k] != NULL;
	assert_int_equal(m.count, count);
	for (char *v; (v = map64_next(&m, &pos, &key)); count--)
		assert_ptr_equal(v, model[key == UINT64_MAX ? 1023 : key >> 40]);
	assert_int_equal(count, 0);
	map64_clear(&m);
	assert_null(map64_get(&m, 1));
}

static void strbuf_quotes_json(void **state)
{
	struct strbuf b = STRBUF_INIT;
	char *s;

	(void)state;
	strbuf_add_json(&b, "a\"b\\c\n\x01\xff\xc3\xa9");
	s = strbuf_steal(&b);
	assert_string_equal(s, "\"a\\\"b\\\\c\\u000a\\u0001\\ufffd\xc3\xa9\"");
	free(s);
	s = strbuf_steal(&b);
	assert_string_equal(s, "");
	free(s);
	for (int i = 0; i < 1000; i++)
		strbuf_addf(&b, "%d,", i);
	assert_int_equal(b.len, 3890);
	strbuf_free(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(list_keeps_order_and_forgives_double_removal),
		cmocka_unit_test(map64_agrees_with_an_array),
		cmocka_unit_test(strbuf_quotes_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

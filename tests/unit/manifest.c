/* SPDX-License-Identifier: Apache-2.0 */
/* A data set's own list of files, in the forms that people write. */
#include "prefetch/manifest.h"
#include <string.h>
#include "tests/unit/test.h"

static const char *const files[] = { "train/a/0.jpg", "train/a/1.jpg", "train/b/2.jpg", "train/b/3.jpg" };

static uint32_t resolve(void *arg, const char *path, size_t len)
{
	(void)arg;
	for (uint32_t i = 0; i < 4; i++) {
		if (strlen(files[i]) == len && !memcmp(files[i], path, len))
			return i;
	}
	return UINT32_MAX;
}

struct form {
	const char *text;
	uint32_t count, item[4];
};

static const struct form forms[] = {
	{ "train/b/3.jpg\ntrain/a/0.jpg\n", 2, { 3, 0 } },
	{ "path,label\ntrain/b/2.jpg,7\ntrain/a/1.jpg,3\ntrain/a/0.jpg,1", 3, { 2, 1, 0 } },
	{ "1\t/data/imagenet/train/a/1.jpg\r\n0\t/data/imagenet/train/a/0.jpg\r\n", 2, { 1, 0 } },
	{ "{\"label\": 1, \"image\": \"train/b/3.jpg\"}\n{\"label\": 0, \"image\": \"train/b/2.jpg\"}\n", 2, { 3, 2 } },
	/* captions: a file on several lines is there once */
	{ "train/a/0.jpg one\ntrain/a/0.jpg two\ntrain/b/3.jpg three\n", 2, { 0, 3 } },
	/* what names no file, or nothing of ours, is no list */
	{ "", 0, { 0 } }, { "no\nlist\n", 0, { 0 } }, { "train/a/0.jpg\n", 0, { 0 } }, { "\n\n\n", 0, { 0 } },
};

static void lines_become_items(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		uint32_t count = 0, *item = manifest_read(forms[i].text, strlen(forms[i].text), 4, resolve, NULL, &count);

		if (!forms[i].count) {
			assert_null(item);
			continue;
		}
		assert_non_null(item);
		assert_int_equal(count, forms[i].count);
		assert_memory_equal(item, forms[i].item, count * sizeof(*item));
		free(item);
	}
}

static void bytes_that_are_no_text_are_no_list(void **state)
{
	uint32_t count;

	(void)state;
	assert_null(manifest_read("train/a/0.jpg\n\0train/b/3.jpg\n", 29, 4, resolve, NULL, &count));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lines_become_items),
		cmocka_unit_test(bytes_that_are_no_text_are_no_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A data set's own list: whatever the text, each item at most once, and none that is no item. */
#include "prefetch/manifest.h"
#include <string.h>
#include "tests/fuzz/fuzz.h"

enum { ITEMS = 26 };

/* "a.jpg" is item 0, "b.jpg" item 1, ... and "x/a" too, by its last letter. */
static uint32_t resolve(void *arg, const char *path, size_t len)
{
	uint64_t *calls = arg;

	++*calls;
	MUST(len && !memchr(path, '\n', len) && !memchr(path, 0, len));
	if (len == 5 && !memcmp(path + 1, ".jpg", 4) && path[0] >= 'a' && path[0] <= 'z')
		return (uint32_t)(path[0] - 'a');
	if (len == 3 && path[0] == 'x' && path[1] == '/' && path[2] >= 'a')
		return (uint32_t)(path[2] - 'a');   /* beyond the items, too */
	return UINT32_MAX;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t count = 0, seen = 0;
	uint64_t calls = 0;
	uint32_t *item = manifest_read((const char *)data, size, ITEMS, resolve, &calls, &count);

	MUST(calls <= size * 18 + 64);
	if (!item)
		return 0;
	MUST(count >= 2 && count <= ITEMS);
	for (uint32_t i = 0; i < count; i++) {
		MUST(item[i] < ITEMS && !(seen >> item[i] & 1));
		seen |= 1u << item[i];
	}
	free(item);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Where a file is read: any accesses lead to no geometry, or to one whose records lie within the file. */
#include "prefetch/records.h"
#include <string.h>
#include "prefetch/prefetch.h"
#include "tests/fuzz/fuzz.h"

static void check_geometry(const struct records *r, struct input *in)
{
	const struct geometry *g = &r->geometry;

	MUST(g->bytes && g->count);
	for (int i = 0; i < 8; i++) {
		uint64_t index = i ? take_number(in) % g->count : g->count - 1, start, end;

		records_range(r, index, &start, &end);
		MUST(end <= r->size);
		MUST(start <= end || start >= r->size);
		MUST(records_index(g, take_number(in)) <= g->count);
		MUST(records_beginning(g, take_number(in)) <= g->count);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = input_of(data, size);
	uint64_t file = (take_uint(&in, 8) & ((1ULL << 44) - 1)) | 1, step = take_uint(&in, 3), base = take_uint(&in, 2);
	struct records *r = records_new(5, file);

	MUST(r);
	while (input_left(&in)) {
		/* mostly records of one length, else anywhere */
		uint8_t how = take_u8(&in);
		uint64_t at = how & 128 ? take_number(&in) : base + step * (how & 127);
		struct observation o = { .ino = 5, .offset = at % file, .len = (uint32_t)(how & 64 ? take_uint(&in, 3) : step), .pid = how % 3 };

		if (records_saw(r, &o) == RECORDS_FOUND)
			check_geometry(r, &in);
	}
	records_free(r);
	return 0;
}

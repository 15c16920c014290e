/* SPDX-License-Identifier: Apache-2.0 */
/* Records found from where a file is read. */
#include "prefetch/prefetch.h"
#include "prefetch/records.h"
#include "tests/unit/test.h"

enum { PAGE = 4096, ACCESSES = 64 };

/* What the kernel makes of an access to record @i: whole pages, at times read on, at times with its head cached. */
static struct access access_to(uint64_t base, uint64_t bytes, uint64_t i, uint64_t *random)
{
	uint64_t start = (base + i * bytes) / PAGE * PAGE, end = (base + (i + 1) * bytes + PAGE - 1) / PAGE * PAGE;

	if (test_random(random) % 3 == 0)
		end += test_random(random) % 20 * PAGE;
	if (test_random(random) % 40 == 0)
		start += 2 * PAGE;
	return (struct access){ start, end, 1, (uint32_t)(end - start) };
}

static void every_record_is_found_and_covered(void **state)
{
	static const uint64_t lengths[] = { 110592, 112640, 100000, 65536, 16384, 32768, 20001, 150528, 200000, 786432 };
	uint64_t random = 5;

	(void)state;
	for (unsigned t = 0; t < sizeof(lengths) / sizeof(*lengths); t++) {
		uint64_t bytes = lengths[t], base = 2048 * (t % 3), count = 1500 + t * 100;
		struct records r = { .size = base + count * bytes };
		struct access seen[ACCESSES];

		for (unsigned i = 0; i < ACCESSES; i++)
			seen[i] = access_to(base, bytes, test_random(&random) % count, &random);
		assert_int_equal(records_geometry(seen, ACCESSES, r.size, &r.geometry), 0);
		assert_int_equal(r.geometry.count, count);
		for (uint64_t i = 0; i < count; i++) {
			uint64_t first = (base + i * bytes) / PAGE * PAGE, start, end;

			assert_int_equal(records_beginning(&r.geometry, first), i);
			assert_int_equal(records_beginning(&r.geometry, first + 2 * PAGE), count);
			records_range(&r, i, &start, &end);
			assert_true(start <= first && end >= base + (i + 1) * bytes && end <= r.size);
		}
	}
}

/* Pages at random are not records, nor are a few lengths at random places. */
static void what_has_none_gets_none(void **state)
{
	struct access seen[RECORDS_MAX];
	struct geometry g;
	uint64_t random = 9;

	(void)state;
	for (unsigned run = 0; run < 200; run++) {
		uint32_t n = run % 2 ? ACCESSES : RECORDS_MAX, pages = 2 + run % 30;

		for (uint32_t i = 0; i < n; i++) {
			seen[i].start = test_random(&random) % 100000 * PAGE;
			seen[i].end = seen[i].start + (pages + test_random(&random) % 3) * PAGE;
		}
		assert_true(records_geometry(seen, n, 100000ULL * PAGE, &g) != 0);
	}
	assert_true(records_geometry(seen, 0, 1 << 30, &g) != 0);
}

/* Requests of an access are joined, whatever their order; readers are told apart; a long run is no record. */
static void requests_become_accesses(void **state)
{
	struct records *r = records_new(1, 1 << 30);
	struct observation o = { .ino = 1, .len = 65536, .pid = 7 };

	(void)state;
	o.offset = 10 << 20;
	assert_int_equal(records_saw(r, &o), RECORDS_BEGUN);
	o.offset += 131072;
	assert_int_equal(records_saw(r, &o), RECORDS_CONTINUED);
	o.offset -= 65536;
	assert_int_equal(records_saw(r, &o), RECORDS_CONTINUED);
	o.pid = 8;
	assert_int_equal(records_saw(r, &o), RECORDS_BEGUN);
	assert_int_equal(r->last.end, 0);
	o.pid = 7;
	o.offset = 500 << 20;
	assert_int_equal(records_saw(r, &o), RECORDS_BEGUN);
	assert_int_equal(r->last.start, 10 << 20);
	assert_int_equal(r->last.end, (10 << 20) + 3 * 65536);
	r->is_random = true;
	for (unsigned i = 0; i < 100; i++, o.offset += o.len)
		records_saw(r, &o);
	assert_false(r->is_random);
	records_free(r);
}

static void the_geometry_is_found_on_the_way(void **state)
{
	struct records *r = records_new(1, 1000 * 100000ULL);
	struct observation o = { .ino = 1, .len = 100000, .pid = 7 };
	unsigned found = 0;

	(void)state;
	for (unsigned i = 0; i < 300; i++) {
		uint64_t k = i * 367 % 1000;

		o.offset = k * 100000 / PAGE * PAGE;
		found += records_saw(r, &o) == RECORDS_FOUND;
		if (found)
			assert_int_equal(records_beginning(&r->geometry, o.offset), k);
	}
	assert_int_equal(found, 1);
	assert_int_equal(r->geometry.bytes, 100000);
	assert_true(r->is_random);
	records_free(r);
}

/*
 * Of a mapped file a mebibyte around each fault is asked for: where records begin is known, whatever of the first page the page
 * cache has. Mebibytes that are read as such are not mapped.
 */
static void faults_tell_the_records_of_a_mapped_file(void **state)
{
	enum { COUNT = 3000, AROUND = 1 << 20 };
	static const uint64_t lengths[] = { 112640, 64000, 20001 };
	struct access seen[ACCESSES];
	struct geometry g;
	uint64_t random = 13;

	(void)state;
	for (unsigned t = 0; t < sizeof(lengths) / sizeof(*lengths); t++) {
		uint64_t bytes = lengths[t];
		struct records r = { .size = COUNT * bytes };

		for (unsigned i = 0; i < ACCESSES; i++) {
			uint64_t k = AROUND / bytes + 1 + test_random(&random) % (COUNT - AROUND / bytes - 1);
			uint64_t start = k * bytes / PAGE * PAGE - AROUND / 2;

			seen[i] = (struct access){ start, start + AROUND, 1, AROUND };
		}
		assert_int_equal(records_geometry(seen, ACCESSES, r.size, &r.geometry), 0);
		assert_true(r.geometry.is_mapped);
		assert_int_equal(r.geometry.count, COUNT);
		for (uint64_t i = 0; i < COUNT; i++) {
			uint64_t first = i * bytes / PAGE * PAGE, start, end;

			assert_int_equal(records_wanted(&r.geometry, first, PAGE), first);
			if (first > AROUND)
				assert_int_equal(records_beginning(&r.geometry, records_wanted(&r.geometry, first - AROUND / 2, AROUND)), i);
			assert_int_equal(records_beginning(&r.geometry, first), i);
			records_range(&r, i, &start, &end);
			assert_true(start <= first && end >= (i + 1) * bytes && end <= r.size);
			assert_true(end - start <= bytes + 3 * PAGE);
		}
	}
	for (unsigned i = 0; i < ACCESSES; i++) {
		uint64_t start = (test_random(&random) % COUNT + 1) * AROUND;

		seen[i] = (struct access){ start, start + AROUND, 1, AROUND };
	}
	assert_int_equal(records_geometry(seen, ACCESSES, (COUNT + 1ULL) * AROUND, &g), 0);
	assert_false(g.is_mapped);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_record_is_found_and_covered),
		cmocka_unit_test(what_has_none_gets_none),
		cmocka_unit_test(requests_become_accesses),
		cmocka_unit_test(the_geometry_is_found_on_the_way),
		cmocka_unit_test(faults_tell_the_records_of_a_mapped_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

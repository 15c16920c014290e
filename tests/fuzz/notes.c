/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the prefetcher reads back from the cache's notes: where an epoch stood, profiles, families and orders; and
 * how a user names a family. The first byte says which.
 */
#include <string.h>
#include "prefetch/family.h"
#include "prefetch/follow.h"
#include "prefetch/profile.h"
#include "prefetch/resume.h"
#include "prefetch/set.h"
#include "tests/fuzz/fuzz.h"

enum { ITEMS = 300, WORDS = 1 << 10 };

static void resume(const uint8_t *data, size_t size)
{
	struct set s = { .parent = 1 };
	void *copy = malloc(size + 1);
	struct unit *a, *b;

	MUST(copy);
	memcpy(copy, data, size);
	resume_load(&s, copy, size, 1000);
	a = set_add_unit(&s, 2, 100, 40);
	b = set_add_unit(&s, 3, 500, 60);
	MUST(a && b);
	resume_unit(&s, a);
	resume_unit(&s, b);
	MUST(s.consumed <= 100);
	unit_free(a);
	unit_free(b);
	free(s.unit);
	free(s.resumed);
}

/* A permutation, or for a share of one at least no item twice. */
static void check_order(const struct family *f)
{
	uint32_t order[ITEMS];
	uint8_t seen[ITEMS] = { 0 };

	if (family_indices(f, order, ITEMS))
		return;
	for (uint32_t i = 0; i < ITEMS; i++) {
		MUST(order[i] < ITEMS);
		MUST(!seen[order[i]]++);
	}
}

static void family(const struct family *f)
{
	char text[FAMILY_TEXT];
	struct family next;

	family_describe(f, text);
	MUST(strlen(text) < sizeof(text));
	/* family_is_sane() allows what takes a second: too long to try often */
	if (f->word > WORDS || f->shuffle.skip > WORDS || f->shuffle.seed - f->main_seed > WORDS)
		return;
	check_order(f);
	for (unsigned which = 0; which < 4 && family_next(f, 1, ITEMS, which, &next); which++)
		check_order(&next);
}

static void family_from_disk(const uint8_t *data, size_t size)
{
	struct family f;

	if (size < sizeof(f))
		return;
	memcpy(&f, data, sizeof(f));
	if (family_is_sane(&f))
		family(&f);
}

static void family_from_user(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size), msg[256] = "";
	struct family f;

	MUST(text);
	if (family_parse(text, &f, msg, sizeof(msg)))
		MUST(*msg);
	else if (family_is_sane(&f))
		family(&f);
	free(text);
}

static void orders(const uint8_t *data, size_t size)
{
	struct follow f = { 0 };

	follow_load(&f, data, size);
	for (uint32_t i = 0; i < f.past_count && i < 8; i++) {
		if (f.past[i].kind != FAMILY_NONE)
			family(&f.past[i]);
	}
	follow_clear(&f);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const reader[])(const uint8_t *data, size_t size) = { resume, family_from_disk, family_from_user, orders };
	char *name;

	if (!size)
		return 0;
	reader[data[0] % 4](data + 1, size - 1);
	name = strndup((const char *)data, size);
	MUST(name);
	if (profile_name_is_sane(name))
		MUST(strlen(name) <= PROFILE_NAME && !strpbrk(name, "/ \n"));
	free(name);
	return 0;
}

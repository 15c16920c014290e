/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A slot is free when its value is NULL. Load stays under 3/4. Deletion moves
 * later members of the probe sequence back, so there are no tombstones.
 */
#include "lib/map64.h"
#include <errno.h>
#include <stdlib.h>

enum { CAPACITY_MIN = 16 };

struct map64_slot {
	uint64_t key;
	void *value;
};

static size_t home(const struct map64 *m, uint64_t key)
{
	return (size_t)map64_mix(key) & (m->capacity - 1);
}

/* The slot that holds @key, or the free one where it would go. */
static size_t probe(const struct map64 *m, uint64_t key)
{
	size_t i = home(m, key);

	while (m->slots[i].value && m->slots[i].key != key)
		i = (i + 1) & (m->capacity - 1);
	return i;
}

static int resize(struct map64 *m, size_t capacity)
{
	struct map64 bigger = { calloc(capacity, sizeof(struct map64_slot)), capacity, m->count };

	if (!bigger.slots)
		return -ENOMEM;
	for (size_t i = 0; i < m->capacity; i++) {
		if (m->slots[i].value)
			bigger.slots[probe(&bigger, m->slots[i].key)] = m->slots[i];
	}
	free(m->slots);
	*m = bigger;
	return 0;
}

void map64_clear(struct map64 *m)
{
	free(m->slots);
	*m = (struct map64)MAP64_INIT;
}

void *map64_get(const struct map64 *m, uint64_t key)
{
	return m->capacity ? m->slots[probe(m, key)].value : NULL;
}

int map64_put(struct map64 *m, uint64_t key, void *value)
{
	size_t i;

	if ((m->count + 1) * 4 > m->capacity * 3) {
		int rc = resize(m, m->capacity ? m->capacity * 2 : CAPACITY_MIN);

		if (rc)
			return rc;
	}
	i = probe(m, key);
	if (!m->slots[i].value)
		m->count++;
	m->slots[i] = (struct map64_slot){ key, value };
	return 0;
}

void *map64_remove(struct map64 *m, uint64_t key)
{
	size_t mask = m->capacity - 1, hole, i;
	void *value;

	if (!m->capacity)
		return NULL;
	hole = i = probe(m, key);
	value = m->slots[hole].value;
	if (!value)
		return NULL;
	for (;;) {
		i = (i + 1) & mask;
		if (!m->slots[i].value)
			break;
		/* may move back only if its home is not between the hole and itself */
		if (((i - home(m, m->slots[i].key)) & mask) >= ((i - hole) & mask)) {
			m->slots[hole] = m->slots[i];
			hole = i;
		}
	}
	m->slots[hole].value = NULL;
	m->count--;
	return value;
}

void *map64_next(const struct map64 *m, size_t *pos, uint64_t *ret_key)
{
	while (*pos < m->capacity) {
		const struct map64_slot *slot = &m->slots[(*pos)++];

		if (!slot->value)
			continue;
		if (ret_key)
			*ret_key = slot->key;
		return slot->value;
	}
	return NULL;
}

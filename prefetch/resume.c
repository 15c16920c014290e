/* SPDX-License-Identifier: Apache-2.0 */
/* The note: a head, then for each unit a head and a bit per item. In the machine's own byte order, as the cache is. */
#include "prefetch/resume.h"
#include <stdlib.h>
#include <string.h>
#include "prefetch/order.h"
#include "prefetch/set.h"

#define MAGIC "hopperR1"

struct note_head {
	char magic[8];
	int64_t wall_s;
	uint64_t consumed;         /* none: the last epoch was over, and who reads next begins his own */
	uint32_t epoch, units;
};

struct note_unit {
	uint64_t dir, first;
	uint32_t count, pad;
};

static size_t bits_bytes(uint32_t count)
{
	return ((size_t)count + 7) / 8;
}

void *resume_save(const struct set *s, int64_t wall_s, size_t *ret_len)
{
	struct note_head head = { MAGIC, wall_s, s->consumed, s->epoch, (uint32_t)s->unit_count };
	size_t len = sizeof(head);
	uint8_t *data, *at;

	for (size_t i = 0; i < s->unit_count; i++)
		len += sizeof(struct note_unit) + bits_bytes(s->unit[i]->count);
	data = calloc(1, len);
	if (!data)
		return NULL;
	memcpy(data, &head, sizeof(head));
	at = data + sizeof(head);
	for (size_t i = 0; i < s->unit_count; i++) {
		const struct unit *u = s->unit[i];
		struct note_unit unit = { u->dir, u->first, u->count, 0 };

		memcpy(at, &unit, sizeof(unit));
		at += sizeof(unit);
		for (uint32_t k = 0; k < u->count; k++)
			at[k / 8] |= (uint8_t)(!!(u->item[k] & ITEM_CONSUMED) << k % 8);
		at += bits_bytes(u->count);
	}
	*ret_len = len;
	return data;
}

/* The bits of a unit in the note, or NULL. */
static const uint8_t *bits_of(const struct set *s, const struct unit *u)
{
	const uint8_t *at = s->resumed, *end = at + s->resumed_len;

	for (at += sizeof(struct note_head); (size_t)(end - at) >= sizeof(struct note_unit);) {
		struct note_unit unit;

		memcpy(&unit, at, sizeof(unit));
		at += sizeof(unit);
		if ((size_t)(end - at) < bits_bytes(unit.count))
			return NULL;
		if (unit.dir == u->dir && unit.first == u->first && unit.count == u->count)
			return at;
		at += bits_bytes(unit.count);
	}
	return NULL;
}

bool resume_load(struct set *s, void *data, size_t len, int64_t wall_s)
{
	struct note_head head;

	if (len >= sizeof(head))
		memcpy(&head, data, sizeof(head));
	/* a clock that was set back is as good as one that stood still */
	if (len < sizeof(head) || memcmp(head.magic, MAGIC, sizeof(head.magic)) || head.wall_s < wall_s - RESUME_SECONDS ||
	    !head.consumed) {
		free(data);
		return false;
	}
	s->resumed = data;
	s->resumed_len = len;
	s->epoch = head.epoch;
	s->trust_after = RESUME_TRUST;
	return true;
}

void resume_unit(struct set *s, struct unit *u)
{
	const uint8_t *bits = s->resumed ? bits_of(s, u) : NULL;

	for (uint32_t k = 0; bits && k < u->count; k++) {
		if (!(bits[k / 8] >> k % 8 & 1) || u->item[k] & (ITEM_CONSUMED | ITEM_UNFIT))
			continue;
		u->item[k] |= ITEM_CONSUMED;
		s->consumed++;
	}
}

void resume_order(const struct set *s, struct order *o)
{
	for (uint32_t at = 0; at < o->count; at++) {
		uint32_t k;
		const struct unit *u = set_item(s, o->item[at], &k);

		if (u && u->item[k] & ITEM_CONSUMED)
			order_mark_read(o, at);
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/neighbour.h"
#include <stddef.h>

static struct neighbour_reader *reader_of(struct neighbours *n, uint32_t pid)
{
	for (uint32_t i = 0; i < n->count; i++) {
		if (n->reader[i].pid == pid)
			return &n->reader[i];
	}
	return NULL;
}

/* A first item: the step is what others go by, until the second tells. Of too many readers the first are told apart. */
static void add_reader(struct neighbours *n, uint32_t item, uint32_t pid)
{
	if (n->count < NEIGHBOUR_READERS)
		n->reader[n->count++] = (struct neighbour_reader){ .pid = pid, .last = item, .step = n->step, .run = n->step != 0 };
}

static bool is_followed(const struct neighbour_reader *r)
{
	return r->run >= NEIGHBOUR_CONFIRM;
}

void neighbours_saw(struct neighbours *n, uint32_t item, uint32_t pid)
{
	struct neighbour_reader *r = reader_of(n, pid);
	int64_t step;

	if (!r) {
		add_reader(n, item, pid);
		return;
	}
	step = (int64_t)item - r->last;
	r->last = item;
	if (step && step == r->step) {
		r->run++;
		r->ahead -= r->ahead > 0;
		if (is_followed(r))
			n->step = r->step;
		return;
	}
	r->ahead = 0;
	r->run = step && step <= NEIGHBOUR_STEP_MAX && step >= -NEIGHBOUR_STEP_MAX;
	r->step = r->run ? (int32_t)step : 0;
}

/* The item after those of @r that were handed out, -1 for none. */
static int64_t next_of(const struct neighbour_reader *r, uint32_t items)
{
	int64_t item = r->last + (int64_t)r->step * (r->ahead + 1);

	if (!is_followed(r) || r->ahead >= NEIGHBOUR_AHEAD || r->ahead >= r->run)
		return -1;
	return item >= 0 && item < items ? item : -1;
}

struct neighbour_reader *neighbours_next(struct neighbours *n, uint32_t items, uint32_t *ret_item)
{
	struct neighbour_reader *nearest = NULL;

	/* who has the least ahead comes first, each in turn */
	for (uint32_t i = 0; i < n->count; i++) {
		struct neighbour_reader *r = &n->reader[(n->turn + i) % n->count];

		if (next_of(r, items) >= 0 && (!nearest || r->ahead < nearest->ahead))
			nearest = r;
	}
	if (nearest)
		*ret_item = (uint32_t)next_of(nearest, items);
	return nearest;
}

void neighbours_take(struct neighbours *n, struct neighbour_reader *r)
{
	r->ahead++;
	n->turn = (uint32_t)(r - n->reader) + 1;
}

void neighbours_again(struct neighbours *n)
{
	for (uint32_t i = 0; i < n->count; i++)
		n->reader[i].ahead = 0;
}

void neighbours_turn(struct neighbours *n)
{
	n->count = n->turn = 0;
}

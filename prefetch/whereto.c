/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/whereto.h"
#include <string.h>

enum {
	MANY = 1024,            /* reads after which the past weighs half */
	TRUST = 4,              /* kept so many times as often as strayed: readers keep to their items */
};

/* A worker of a rank; as long as workers are not told apart, a rank. */
static uint32_t lane_of(const struct whereto *w, uint32_t at, uint32_t stride)
{
	uint32_t worker = w->period ? at / stride % w->period / w->run : 0;

	return (worker * stride + at % stride) % WHERETO_LANES;
}

static bool has_lanes(const struct whereto *w, uint32_t stride)
{
	return w->period || stride > 1;
}

static struct whereto_reader *reader_get(struct whereto *w, uint32_t pid, uint32_t at)
{
	uint32_t i;

	for (i = 0; i < w->reader_count && w->reader[i].pid != pid; i++)
		;
	if (i == WHERETO_READERS)
		return NULL;
	if (i == w->reader_count) {
		w->reader[i] = (struct whereto_reader){ pid, at, at, false };
		w->reader_count++;
		return NULL;
	}
	return &w->reader[i];
}

/*
 * A loader's worker reads run positions on end, then jumps over what the others read. The first run
 * of a reader may have been joined in its midst, so that the second and third beginnings tell the period.
 */
static void learn_shape(struct whereto *w, uint32_t own, uint32_t pid)
{
	struct whereto_reader *r = reader_get(w, pid, own);
	uint32_t last;

	if (!r)
		return;
	last = r->last;
	r->last = own;
	if (own == last + 1)
		return;
	if (own > last && r->has_run) {
		uint32_t run = last + 1 - r->start, period = own - r->start;

		if (run != w->run || period != w->period)
			memset(w->lane, 0, sizeof(w->lane));
		w->run = run;
		w->period = period;
	}
	r->has_run = own > last;
	r->start = own;
}

void whereto_saw_position(struct whereto *w, uint32_t at, uint32_t stride, uint32_t pid, int place)
{
	learn_shape(w, at / stride, pid);
	if (has_lanes(w, stride) && place >= 0)
		w->lane[lane_of(w, at, stride)] = (int8_t)(place + 1);
}

int whereto_position(const struct whereto *w, uint32_t at, uint32_t stride)
{
	return has_lanes(w, stride) ? w->lane[lane_of(w, at, stride)] - 1 : -1;
}

void whereto_saw_item(struct whereto *w, uint8_t *last, int place)
{
	if (place < 0 || place >= WHERETO_PLACES)
		return;
	if (*last == place + 1)
		w->kept++;
	else if (*last)
		w->strayed++;
	*last = (uint8_t)(place + 1);
	w->reads[place]++;
	if (w->kept + w->strayed > MANY) {
		w->kept /= 2;
		w->strayed /= 2;
	}
	for (int i = 0, is_much = w->reads[place] > MANY; is_much && i < WHERETO_PLACES; i++) {
		w->reads[i] = (w->reads[i] + 1) / 2;
		w->turn[i] /= 2;
	}
}

int whereto_last(const struct whereto *w, uint8_t last)
{
	return last && w->kept >= w->strayed * TRUST ? last - 1 : -1;
}

int whereto_item(struct whereto *w, uint8_t last)
{
	int best = whereto_last(w, last);

	if (best >= 0)
		return best;
	/* the place that was given least of what it reads */
	for (int i = 0; i < WHERETO_PLACES; i++) {
		if (w->reads[i] && (best < 0 || (uint64_t)w->turn[i] * w->reads[best] < (uint64_t)w->turn[best] * w->reads[i]))
			best = i;
	}
	if (best >= 0)
		w->turn[best]++;
	return best;
}

void whereto_turn(struct whereto *w)
{
	w->reader_count = 0;
}

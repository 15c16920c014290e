/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a very large set costs: bytes of epoch state an item, and processor time an observation.
 *
 *   observations ITEMS
 *
 * One epoch in torch's order is read by readers that are a little out of step,
 * first while it is recorded only, then while it is followed.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/clock.h"
#include "prefetch/set.h"

static uint64_t anonymous_kib(void)
{
	FILE *f = fopen("/proc/self/status", "re");
	unsigned long long kib = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "RssAnon: %llu", &kib);
	if (f)
		fclose(f);
	return kib;
}

/* ns an observation: consuming, recording, following. */
static double read_epoch(struct set *s, const uint32_t *order, uint32_t n)
{
	uint64_t began = clock_ns();

	for (uint32_t i = 0; i < n; i++) {
		/* four readers, each with its own batch of 32 */
		uint32_t block = i / 128 * 128, at = block + 128 <= n ? block + i % 4 * 32 + i % 128 / 4 : i, k;
		struct unit *u = set_item(s, order[at], &k);

		if (set_consume(s, u, k, began) == SET_READ)
			follow_saw(&s->follow, order[at], n, 1000 + i % 4);
	}
	return (double)(clock_ns() - began) / n;
}

int main(int argc, char **argv)
{
	uint32_t n = argc == 2 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0, *order, *copy;
	struct shuffle shuffle = { SHUFFLE_TORCH, 42, 0 };
	struct set s = { .parent = 1 };
	uint64_t left[PREDICTOR_COUNT] = { 0 }, before, state;
	double recorded, followed;

	if (n < 1000) {
		fprintf(stderr, "usage: observations ITEMS (at least 1000)\n");
		return 2;
	}
	order = malloc((size_t)n * sizeof(*order));
	copy = malloc((size_t)n * sizeof(*copy));
	if (!order || !copy)
		return 1;
	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	shuffle_apply(&shuffle, order, n);
	memcpy(copy, order, (size_t)n * sizeof(*copy));
	before = anonymous_kib();
	for (uint32_t first = 0; first < n; first += 10000)
		set_add_unit(&s, first, first, n - first < 10000 ? n - first : 10000);
	recorded = read_epoch(&s, order, n);
	set_turn(&s, clock_ns(), left);
	order_free(s.follow.order);
	s.follow.order = order_new(copy, n, PREDICTOR_SAMPLER, 1, 0, "torch");
	if (!s.follow.order)
		return 1;
	followed = read_epoch(&s, order, n);
	state = anonymous_kib() - before + (uint64_t)n * sizeof(*copy) / 1024;
	printf("{\"items\": %u, \"recorded_ns\": %.0f, \"followed_ns\": %.0f, \"where_expected\": %.4f, \"bytes_per_item\": %.1f}\n", n, recorded,
	       followed, (double)s.follow.order->right / n, (double)state * 1024 / n);
	return 0;
}

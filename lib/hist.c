/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values below 8 have a bucket each; above, a power of two is split into
 * eight equal steps, so that a bucket's width is at most 1/8 of its value.
 */
#include "lib/hist.h"

enum { STEP_BITS = 3, STEPS = 1 << STEP_BITS };

static unsigned bucket_of(uint64_t value)
{
	unsigned shift;

	if (value < STEPS)
		return (unsigned)value;
	shift = 63 - (unsigned)__builtin_clzll(value) - STEP_BITS;
	return (shift + 1) * STEPS + (unsigned)((value >> shift) - STEPS);
}

static uint64_t bucket_low(unsigned b)
{
	if (b < STEPS)
		return b;
	return (uint64_t)(STEPS + b % STEPS) << (b / STEPS - 1);
}

void hist_record(struct hist *h, uint64_t value)
{
	atomic_fetch_add_explicit(&h->bucket[bucket_of(value)], 1, memory_order_relaxed);
}

uint64_t hist_percentile(struct hist *h, double percent)
{
	uint64_t total = 0, seen = 0, wanted;

	for (unsigned b = 0; b < HIST_BUCKETS; b++)
		total += atomic_load_explicit(&h->bucket[b], memory_order_relaxed);
	if (!total)
		return 0;
	wanted = (uint64_t)((double)total * percent / 100.0 + 0.5);
	if (wanted < 1)
		wanted = 1;
	for (unsigned b = 0; b < HIST_BUCKETS; b++) {
		seen += atomic_load_explicit(&h->bucket[b], memory_order_relaxed);
		if (seen >= wanted)
			return bucket_low(b);
	}
	return bucket_low(HIST_BUCKETS - 1);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Latency histogram: logarithmic buckets with 8 linear steps per power of two
 * (relative error <= 1/8), lock-free to record.
 */
#ifndef HOPPER_LIB_HIST_H
#define HOPPER_LIB_HIST_H

#include <stdatomic.h>
#include <stdint.h>

#define HIST_BUCKETS 496

struct hist {
	_Atomic uint64_t bucket[HIST_BUCKETS];   /* all zero is a valid empty histogram */
};

void hist_record(struct hist *h, uint64_t value);

/* Value at @percent (0..100) of what was recorded; 0 if nothing was. */
uint64_t hist_percentile(struct hist *h, double percent);

#endif

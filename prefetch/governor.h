/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many requests to keep at the origin. A demand read queues behind what is
 * in flight, so the aim is the smallest number that fills the link:
 * Brakmo and Peterson, "TCP Vegas" (1995). With the shortest time of a
 * request seen lately as the time without a queue, number x (1 - shortest/mean) requests
 * are queueing; two to four is right.
 *
 * Not locked: one thread's, or under its owner's lock.
 */
#ifndef HOPPER_PREFETCH_GOVERNOR_H
#define HOPPER_PREFETCH_GOVERNOR_H

#include <stdbool.h>
#include <stdint.h>

struct governor {
	unsigned limit;              /* requests in flight */
	unsigned fixed;              /* origin_parallel=, 0 when measured */
	bool is_starting;            /* doubling */
	uint64_t shortest_ns, next_shortest_ns, epoch_ns;   /* renewed every GOVERNOR_MEMORY_NS */
	uint64_t sum_ns, bytes, round_ns;
	unsigned samples;
	double best_bytes_per_s;
	/* token bucket of origin_bw= */
	uint64_t bw, tokens, token_ns;
};

void governor_init(struct governor *g, unsigned fixed, uint64_t bw_bytes_per_s, uint64_t now_ns);

/* A request completed. @was_full: as many as allowed were in flight, so it says something of the limit. */
void governor_sample(struct governor *g, uint64_t now_ns, uint64_t took_ns, uint64_t bytes, bool was_full);

/* May @bytes more be asked for now? If not, *ret_wait_ns is when the bucket allows it (0: it is not the bucket). */
bool governor_admits(struct governor *g, uint64_t now_ns, unsigned in_flight, uint64_t bytes, uint64_t *ret_wait_ns);

#endif

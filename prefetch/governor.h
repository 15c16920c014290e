/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many requests to keep at the origin. A demand read queues behind what is
 * in flight, so the aim is the smallest number that fills the link, found as
 * BBR does (Cardwell et al., ACM Queue 14(5), 2016): double while the measured
 * throughput grows, then hold throughput x shortest time of a request, and a
 * little more.
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
	unsigned flat_rounds;        /* while starting: rounds without growth */
	uint64_t shortest_ns, next_shortest_ns, epoch_ns;   /* renewed every GOVERNOR_MEMORY_NS */
	double rate, next_rate;      /* bytes/s: the best round lately */
	uint64_t sum_ns, bytes, round_ns, round_total;
	unsigned samples;
	bool was_full, has_been_full;   /* as many in flight as allowed: in this round; since the last renewal */
	/* token bucket of origin_bw= */
	uint64_t bw, tokens, token_ns;
	uint64_t charged, debt;      /* bytes that others took out of it: all of them, and what is not paid yet */
};

void governor_init(struct governor *g, unsigned fixed, uint64_t bw_bytes_per_s, uint64_t now_ns);

/* A request of @bytes completed. @total_bytes: all that ever came from the origin, demand included. */
void governor_sample(struct governor *g, uint64_t now_ns, uint64_t took_ns, uint64_t bytes, uint64_t total_bytes);

/* Bytes asked for elsewhere that origin_bw= is to cover: @total_bytes of them since the start. */
void governor_charge(struct governor *g, uint64_t total_bytes);

/* May @bytes more be asked for now? If not, *ret_wait_ns is when the bucket allows it (0: it is not the bucket). */
bool governor_admits(struct governor *g, uint64_t now_ns, unsigned in_flight, uint64_t bytes, uint64_t *ret_wait_ns);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/governor.h"
#include <string.h>
#include "lib/clock.h"

enum {
	LIMIT_FIRST = 8, LIMIT_MIN = 2, LIMIT_MAX = 256,
	QUEUE_LOW = 2, QUEUE_HIGH = 4,      /* Vegas' alpha and beta */
};

#define GOVERNOR_MEMORY_NS (10 * NSEC_PER_SEC)
#define BURST_NS (100 * NSEC_PER_MSEC)      /* of the token bucket */

void governor_init(struct governor *g, unsigned fixed, uint64_t bw_bytes_per_s, uint64_t now_ns)
{
	memset(g, 0, sizeof(*g));
	g->fixed = fixed;
	g->limit = fixed ? fixed : LIMIT_FIRST;
	g->is_starting = !fixed;
	g->shortest_ns = g->next_shortest_ns = UINT64_MAX;
	g->epoch_ns = g->round_ns = g->token_ns = now_ns;
	g->bw = bw_bytes_per_s;
}

/* An origin can become slower for good: the shortest time is forgotten after a while. */
static void note_shortest(struct governor *g, uint64_t now_ns, uint64_t took_ns)
{
	if (took_ns < g->shortest_ns)
		g->shortest_ns = took_ns;
	if (took_ns < g->next_shortest_ns)
		g->next_shortest_ns = took_ns;
	if (now_ns - g->epoch_ns < GOVERNOR_MEMORY_NS)
		return;
	g->shortest_ns = g->next_shortest_ns;
	g->next_shortest_ns = UINT64_MAX;
	g->epoch_ns = now_ns;
}

static void adjust(struct governor *g)
{
	double mean = (double)g->sum_ns / g->samples;
	double queue = g->limit * (1 - (double)g->shortest_ns / mean);

	if (g->fixed)
		return;
	if (queue > QUEUE_HIGH) {
		/* straight to what the link holds, not one by one: demand is waiting behind it */
		g->limit = (unsigned)(g->limit * (double)g->shortest_ns / mean) + QUEUE_HIGH - 1;
		g->is_starting = false;
	} else if (g->is_starting) {
		g->limit *= 2;
	} else if (queue < QUEUE_LOW) {
		g->limit++;
	}
	if (g->limit < LIMIT_MIN)
		g->limit = LIMIT_MIN;
	if (g->limit > LIMIT_MAX)
		g->limit = LIMIT_MAX;
}

void governor_sample(struct governor *g, uint64_t now_ns, uint64_t took_ns, uint64_t bytes, bool was_full)
{
	note_shortest(g, now_ns, took_ns);
	if (!was_full && !g->samples) {
		g->round_ns = now_ns;
		return;
	}
	g->samples++;
	g->sum_ns += took_ns;
	g->bytes += bytes;
	if (g->samples < g->limit)
		return;
	if (now_ns > g->round_ns) {
		double rate = (double)g->bytes * 1e9 / (double)(now_ns - g->round_ns);

		if (rate > g->best_bytes_per_s)
			g->best_bytes_per_s = rate;
	}
	adjust(g);
	g->samples = 0;
	g->sum_ns = g->bytes = 0;
	g->round_ns = now_ns;
}

bool governor_admits(struct governor *g, uint64_t now_ns, unsigned in_flight, uint64_t bytes, uint64_t *ret_wait_ns)
{
	uint64_t burst;

	*ret_wait_ns = 0;
	if (in_flight >= g->limit)
		return false;
	if (!g->bw)
		return true;
	burst = g->bw * BURST_NS / NSEC_PER_SEC;
	if (burst < bytes)
		burst = bytes;
	g->tokens += (uint64_t)((unsigned __int128)g->bw * (now_ns - g->token_ns) / NSEC_PER_SEC);
	g->token_ns = now_ns;
	if (g->tokens > burst)
		g->tokens = burst;
	if (g->tokens < bytes) {
		*ret_wait_ns = now_ns + (bytes - g->tokens) * NSEC_PER_SEC / g->bw + 1;
		return false;
	}
	g->tokens -= bytes;
	return true;
}

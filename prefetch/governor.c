/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/governor.h"
#include <string.h>
#include "lib/clock.h"

enum {
	LIMIT_FIRST = 16, LIMIT_MIN = 2, LIMIT_MAX = 256,
	FLAT_ROUNDS = 2,            /* without growth, and the start is over */
	ROUND_TIMES = 3,            /* shortest times a round lasts at least */
	EXTRA = 2,                  /* requests beyond what the link holds, so that it never idles */
};

#define QUEUEING 1.25                       /* times the shortest: requests are waiting for each other */
#define UNQUEUED 1.05
#define GROWTH 1.1                          /* of throughput that counts as such */
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

/* An origin can become slower for good: the best is forgotten after a while. */
static void renew(struct governor *g, uint64_t now_ns)
{
	if (now_ns - g->epoch_ns < GOVERNOR_MEMORY_NS)
		return;
	g->epoch_ns = now_ns;
	/* nothing was learnt about the link while less was asked of it than it holds */
	if (!g->has_been_full)
		return;
	g->has_been_full = false;
	g->shortest_ns = g->next_shortest_ns;
	g->next_shortest_ns = UINT64_MAX;
	g->rate = g->next_rate;
	g->next_rate = 0;
}

static void adjust(struct governor *g, double rate)
{
	bool has_grown = rate > g->rate * GROWTH;
	double holds;

	g->has_been_full |= g->was_full;
	if (!g->was_full && !has_grown)
		return;
	g->was_full = false;
	if (rate > g->rate)
		g->rate = rate;
	if (rate > g->next_rate)
		g->next_rate = rate;
	if (g->fixed)
		return;
	if (g->is_starting) {
		g->flat_rounds = has_grown ? 0 : g->flat_rounds + 1;
		g->is_starting = g->flat_rounds < FLAT_ROUNDS && g->limit < LIMIT_MAX &&
				 (double)g->sum_ns / g->samples < QUEUEING * (double)g->shortest_ns;
		if (g->is_starting && has_grown)
			g->limit *= 2;
	}
	if (!g->is_starting) {
		/* what the link holds: throughput x time without a queue, in requests of this size */
		holds = g->rate * (double)g->shortest_ns / 1e9 / ((double)g->bytes / g->samples);
		/* nobody waited for another: there may be more to be had */
		if ((double)g->sum_ns / g->samples < UNQUEUED * (double)g->shortest_ns && holds < g->limit)
			holds = g->limit;
		g->limit = holds < LIMIT_MAX ? (unsigned)holds + EXTRA : LIMIT_MAX;
	}
	if (g->limit < LIMIT_MIN)
		g->limit = LIMIT_MIN;
	if (g->limit > LIMIT_MAX)
		g->limit = LIMIT_MAX;
}

void governor_sample(struct governor *g, uint64_t now_ns, uint64_t took_ns, uint64_t bytes, uint64_t total_bytes)
{
	if (took_ns < g->shortest_ns)
		g->shortest_ns = took_ns;
	if (took_ns < g->next_shortest_ns)
		g->next_shortest_ns = took_ns;
	if (!g->samples++) {
		g->round_ns = now_ns;
		g->round_total = total_bytes;
		g->bytes = bytes;
		g->sum_ns = took_ns;
		return;
	}
	g->bytes += bytes;
	g->sum_ns += took_ns;
	/* long enough for a burst of completions not to look like a fast link */
	if (g->samples < g->limit || now_ns - g->round_ns < ROUND_TIMES * g->shortest_ns)
		return;
	adjust(g, (double)(total_bytes - g->round_total) * 1e9 / (double)(now_ns - g->round_ns));
	renew(g, now_ns);
	g->samples = 0;
}

void governor_charge(struct governor *g, uint64_t total_bytes)
{
	g->debt += g->bw ? total_bytes - g->charged : 0;
	g->charged = total_bytes;
}

static void pay_debt(struct governor *g)
{
	uint64_t paid = g->debt < g->tokens ? g->debt : g->tokens;

	g->debt -= paid;
	g->tokens -= paid;
}

bool governor_admits(struct governor *g, uint64_t now_ns, unsigned in_flight, uint64_t bytes, uint64_t *ret_wait_ns)
{
	uint64_t burst;

	*ret_wait_ns = 0;
	if (in_flight >= g->limit) {
		g->was_full = true;
		return false;
	}
	if (!g->bw)
		return true;
	burst = g->bw * BURST_NS / NSEC_PER_SEC;
	if (burst < bytes)
		burst = bytes;
	g->tokens += (uint64_t)((unsigned __int128)g->bw * (now_ns - g->token_ns) / NSEC_PER_SEC);
	g->token_ns = now_ns;
	pay_debt(g);
	if (g->tokens > burst)
		g->tokens = burst;
	if (g->tokens < bytes) {
		*ret_wait_ns = now_ns + (g->debt + bytes - g->tokens) * NSEC_PER_SEC / g->bw + 1;
		return false;
	}
	g->tokens -= bytes;
	return true;
}

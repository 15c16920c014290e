/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/hedge.h"
#include <string.h>
#include "lib/clock.h"

enum {
	PEERS_LEAST = 32,   /* known before a request is called slow */
	/*
	 * One in so many is slower than the 90th percentile. Not the 95th: slow answers come late, so when the rate
	 * of requests falls they are a greater share of the last ones than they are of all.
	 */
	BEYOND = 10,
	TIMES = 2,          /* that percentile; queueing on a shared link alone spreads times by about as much */
	HEDGE_SHARE = 50,   /* requests that earn one hedge: 2 %, so an origin that is slow as a whole gets no more */
	BURST = 8,          /* hedges that may be saved up */
};

/* Below this a scheduler's or a disk's hiccup looks like a slow request. */
#define AFTER_LEAST_NS (20 * NSEC_PER_MSEC)

void hedge_init(struct hedge *h, bool is_on)
{
	memset(h, 0, sizeof(*h));
	h->is_on = is_on;
	h->after_ns = UINT64_MAX;
	h->credit = BURST * HEDGE_SHARE;
}

/* The 90th percentile of the ring, by keeping the few that are greater. */
static uint64_t percentile_us(const struct hedge *h)
{
	uint32_t top[HEDGE_PEERS / BEYOND + 1] = { 0 };   /* rising */
	unsigned keep = h->count / BEYOND + 1;

	for (unsigned i = 0; i < h->count; i++) {
		unsigned at = 0;

		if (h->took_us[i] <= top[0])
			continue;
		for (; at + 1 < keep && top[at + 1] < h->took_us[i]; at++)
			top[at] = top[at + 1];
		top[at] = h->took_us[i];
	}
	return top[0];
}

void hedge_sample(struct hedge *h, uint64_t took_ns)
{
	uint64_t us = took_ns / NSEC_PER_USEC, after_ns;

	if (!h->is_on)
		return;
	h->took_us[h->at] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
	h->at = (h->at + 1) % HEDGE_PEERS;
	if (h->count < HEDGE_PEERS)
		h->count++;
	if (h->count < PEERS_LEAST)
		return;
	after_ns = TIMES * percentile_us(h) * NSEC_PER_USEC;
	h->after_ns = after_ns > AFTER_LEAST_NS ? after_ns : AFTER_LEAST_NS;
}

uint64_t hedge_after_ns(const struct hedge *h)
{
	return h->after_ns;
}

void hedge_earn(struct hedge *h)
{
	if (h->credit < BURST * HEDGE_SHARE)
		h->credit++;
}

bool hedge_spend(struct hedge *h)
{
	if (h->credit < HEDGE_SHARE)
		return false;
	h->credit -= HEDGE_SHARE;
	return true;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When a second request for the same bytes is worth sending, and how many of
 * them: the "hedged requests" of Dean & Barroso, "The Tail at Scale" (CACM
 * 56(2), 2013), who defer them until the first has been outstanding for
 * longer than the 95th percentile of its kind.
 *
 * Not locked: under its owner's lock.
 */
#ifndef HOPPER_CACHE_HEDGE_H
#define HOPPER_CACHE_HEDGE_H

#include <stdbool.h>
#include <stdint.h>

enum { HEDGE_PEERS = 128 };

struct hedge {
	bool is_on;
	uint32_t took_us[HEDGE_PEERS];   /* of the last requests that succeeded, a ring */
	unsigned at, count;
	uint64_t after_ns;
	unsigned credit;                 /* saved up by the requests sent; a hedge costs HEDGE_SHARE of it */
};

void hedge_init(struct hedge *h, bool is_on);

/* A request took so long and was answered well; a hedge and the one it overtook included. */
void hedge_sample(struct hedge *h, uint64_t took_ns);

/* How long a request may take before it is hedged; UINT64_MAX: never, or too few peers are known yet. */
uint64_t hedge_after_ns(const struct hedge *h);

/* A request was sent that is no hedge: each earns a share of one. */
void hedge_earn(struct hedge *h);

/* May a hedge be sent? If so it is paid for. */
bool hedge_spend(struct hedge *h);

#endif

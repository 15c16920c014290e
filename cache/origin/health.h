/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether the origin, or a cache directory, can be relied on: from what became of each request.
 *
 *              an error, or silence            8 errors in a row, or long silence
 *        OK ---------------------------> SHAKY ----------------------------> DOWN
 *         ^                              |   ^                                |
 *         +---- 8 good answers in a row -+   +------------ one answer --------+
 *
 * Silence: a request was sent and nothing at all was answered since. A single
 * request that is lost among others that are answered is none.
 *
 * While it is down, whoever asks for the state has a probe sent, one at a time
 * and at most one a second, so that the way back does not depend on readers.
 *
 * Locks: its own, held for a few instructions and never across a callback.
 * Times are clock_ns()'s. NULL as a health is always OK.
 */
#ifndef HOPPER_CACHE_ORIGIN_HEALTH_H
#define HOPPER_CACHE_ORIGIN_HEALTH_H

#include <stdint.h>
#include "lib/stats.h"

enum health_state { HEALTH_OK, HEALTH_SHAKY, HEALTH_DOWN };

struct health;

/* Whose it is, for the log, and what counts its transitions. */
struct health_terms {
	const char *name;        /* borrowed */
	enum stat_id went_shaky, went_down, came_back;
};

extern const struct health_terms health_of_origin;

/* @stats (borrowed, may be NULL) counts the transitions. Returns 0 or -ENOMEM. */
int health_new(const struct health_terms *terms, struct stats *stats, struct health **ret_health);
void health_free(struct health *h);

/* A request of any kind was sent. */
void health_asked(struct health *h, uint64_t now_ns);

/* One was answered; @err is 0 or a negative errno. A missing file or a refused right is an answer like any other. */
void health_answered(struct health *h, int err, uint64_t now_ns);

/* The state now; while it is HEALTH_DOWN this may call the probe. */
enum health_state health_state(struct health *h, uint64_t now_ns);

/* "ok", "shaky" or "down". */
const char *health_name(enum health_state state);

/*
 * @probe must not block: it has somebody ask the origin something, who then calls health_probed(). NULL: no more of
 * them; one that was begun goes on.
 */
void health_set_probe(struct health *h, void (*probe)(void *arg), void *arg);
void health_probed(struct health *h, uint64_t now_ns);

#endif

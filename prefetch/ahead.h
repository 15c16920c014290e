/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which items are put into the kernel's page cache ahead of their reader, and what is believed to be there. A byte
 * for each item of the sets that are pushed:
 *
 *   NONE --ahead_next--> WAITING --ahead_done(0)--> PUSHED --ahead_opened--> KEPT
 *     ^                     |  error                  |  ahead_asked           ^
 *     |                     v                         v                        |
 *     +---- ahead_turn -- GIVEN_UP                   LOST ------ahead_opened---+
 *
 * KEPT items are not pushed again in later epochs while the kernel is seen to keep them: an item that it asks for all
 * the same was not. If it keeps less than three quarters, all but a sample are pushed again in each epoch.
 *
 * Bytes WAITING or PUSHED never exceed a limit, which falls when the kernel drops what it was given and grows back as it is used.
 *
 * Locked by the owner.
 */
#ifndef HOPPER_PREFETCH_AHEAD_H
#define HOPPER_PREFETCH_AHEAD_H

#include <stdbool.h>
#include <stdint.h>
#include "prefetch/sets.h"

struct stats;

struct ahead {
	struct ns *ns;               /* not owned; NULL: nothing is pushed */
	struct stats *stats;         /* not owned */
	uint64_t limit_bytes, max_bytes, unread_bytes, peak_bytes;
	uint64_t halved_ns, measured_ns;
	uint64_t kept, lost;         /* believed from earlier epochs: opened without a request, or not; since the last turn */
	bool is_forgetful;           /* the kernel does not keep what was read */
	bool is_blocked;             /* no memory lately */
	unsigned in_flight;
};

enum { AHEAD_IN_FLIGHT = 32 };

/* Begin: @max_bytes may be there unread. */
void ahead_begin(struct ahead *a, struct ns *ns, struct stats *stats);

/* What memory allows now; asked for at most once a second. Returns whether it is time. */
bool ahead_is_due(struct ahead *a, uint64_t now_ns);
void ahead_set_max(struct ahead *a, uint64_t max_bytes);

struct ahead_item {
	struct unit *unit;
	uint32_t index;
	uint32_t at;                 /* its position in the order; UINT32_MAX without */
};

/* The next item of the set to push; false if there is none. @follows_order: in its order, else any that is unread. */
bool ahead_next(struct ahead *a, struct set *s, bool follows_order, struct ahead_item *ret);

/* The push of an item of @bytes ended: 0, -EAGAIN (another time), or it is given up for this epoch. */
void ahead_done(struct ahead *a, struct unit *u, uint32_t index, uint64_t bytes, int err);

/* It was opened. */
void ahead_opened(struct ahead *a, struct unit *u, uint32_t index, uint64_t bytes, uint64_t now_ns);

/* The kernel asked for its first bytes: it does not have them. */
void ahead_asked(struct ahead *a, struct unit *u, uint32_t index, uint64_t bytes, uint64_t now_ns);

/* It became resident in the cache, at position @at of the order (UINT32_MAX: unknown). */
void ahead_arrived(struct ahead *a, struct unit *u, uint32_t at);

/* The epoch ended. */
void ahead_turn(struct ahead *a, struct set *s);

#endif

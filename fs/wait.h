/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests that wait for the origin, so that nobody waits for ever: each has
 * timeout= to be answered, and who asked may be killed meanwhile. The kernel
 * lets a killed process go only when its request is answered, so that is
 * done, while the work behind it goes on.
 *
 *             wait_begin             wait_claim: the caller answers
 *   (inline) -----------> WAITING ---------------------------------------> ENDED
 *                            |  its time is over, or the asker was killed:
 *                            +--------------------------------------------> ENDED
 *                               the thread here claims it and calls give_up()
 *
 *   (A) a request is answered by who claimed it, and by nobody else;
 *   (B) a request that is answered on the thread that read it takes no lock here;
 *   (C) a signal that does not kill leaves its request alone: a reader who is
 *       only told something must see no error for it.
 *
 * The kernel says once that a signal came (FUSE_INTERRUPT), whatever signal it
 * was, and nothing when another follows; from then on the asker is looked at
 * in /proc until it is answered.
 */
#ifndef HOPPER_FS_WAIT_H
#define HOPPER_FS_WAIT_H

#include <fuse_lowlevel.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "lib/list.h"

struct stats;
struct waits;

enum wait_state { WAIT_INLINE, WAIT_WAITING, WAIT_ENDED };

/* Embedded in what waits, zeroed before use. */
struct wait {
	_Atomic int state;           /* enum wait_state */
	/*
	 * Answers the request with @err: -EINTR, or -EIO as its time is over; immutable. Called at most once, by the
	 * thread of the waits, which must not be kept long. The other owner is still there and finds WAIT_ENDED.
	 */
	void (*give_up)(struct wait *w, int err);
	uint64_t patience_ns;        /* less than timeout= if not 0; UINT64_MAX: only the asker's death ends it. Immutable */

	/* protected by waits->lock */
	fuse_req_t req;
	struct list link;
	uint64_t deadline_ns;
	bool is_interrupted;
};

/* Requests wait @timeout_ns at most. Returns 0 or negative errno. */
int waits_new(uint64_t timeout_ns, struct stats *stats, struct waits **ret_waits);

/* Nothing is given up any more: what waits is left to its other owner. */
void waits_free(struct waits *s);

/*
 * From now on @w may be given up. False: it was claimed already, and the caller answers. Until it returns, nobody else
 * may answer @req.
 */
bool wait_begin(struct waits *s, struct wait *w, fuse_req_t req);

/*
 * The work is done: claim the right to answer. Returns what it was: WAIT_WAITING, the caller answers; WAIT_ENDED, it was
 * given up and answered; WAIT_INLINE, who is about to call wait_begin() answers.
 */
enum wait_state wait_claim(struct waits *s, struct wait *w);

/* Whether it was claimed, before wait_begin(). */
static inline bool wait_is_over(struct wait *w)
{
	return atomic_load(&w->state) == WAIT_ENDED;
}

#endif

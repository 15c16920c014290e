/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a process runs. A request from /dev/fuse says who asks but not where, so this is looked up and kept for a
 * while: a process whose affinity lies within one place is there (asked again after seconds); another is where it ran
 * last, by /proc/PID/stat (asked again sooner). A question costs some ten nanoseconds, and ten microseconds
 * when the answer is old; on a machine of one place, nothing.
 *
 * Any thread; no lock: a slot of the table is one word.
 */
#ifndef HOPPER_LIB_LOCATOR_H
#define HOPPER_LIB_LOCATOR_H

#include <stdint.h>
#include "lib/topology.h"

struct locator;

/* @t is borrowed. NULL without memory. */
struct locator *locator_new(const struct topology *t);
void locator_free(struct locator *l);

/* The place of thread or process @pid; -1 if it is not known. @now_ns: clock_ns(). */
int locator_place(struct locator *l, uint32_t pid, uint64_t now_ns);

#endif

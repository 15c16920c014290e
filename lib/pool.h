/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An elastic pool of threads for work that blocks. Threads are started when
 * work is queued and none is idle, up to the limit, and leave after idling
 * for some seconds, so an idle mount keeps none. Work items are embedded in
 * the caller's structure; nothing is allocated on submit.
 */
#ifndef HOPPER_LIB_POOL_H
#define HOPPER_LIB_POOL_H

#include <stdbool.h>
#include "lib/list.h"

struct cpus;
struct pool;

struct work {
	struct list link;               /* owned by the pool while queued */
	void (*run)(struct work *w);    /* called once, on a pool thread; may free w */
};

/* @name (not owned, <= 15 characters) names the threads. Returns 0 or -ENOMEM. */
int pool_new(const char *name, unsigned max_threads, struct pool **ret_pool);

/* Its threads run on @cpus (borrowed until pool_free(); NULL: anywhere). Before the first submit. */
void pool_pin(struct pool *p, const struct cpus *cpus);

/* Runs what is queued, waits for every thread, frees. No submit may race with it. */
void pool_free(struct pool *p);

/*
 * Queue @w; first in, first out. Never blocks on the work. If no thread can
 * be started and none exists, @w runs on the calling thread.
 */
void pool_submit(struct pool *p, struct work *w);

/*
 * Work that is being run has become nobody's and may never end (@is_hung), or such work has ended after all: for as long
 * as it hangs its thread does not count against the limit, so that other work goes on. At most EXCUSED_MAX times the limit.
 */
void pool_excuse(struct pool *p, bool is_hung);

#endif

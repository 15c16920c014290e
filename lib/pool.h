/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An elastic pool of threads for work that blocks. Threads are started when
 * work is queued and none is idle, up to the limit, and leave after idling
 * for some seconds, so an idle mount keeps none. Work items are embedded in
 * the caller's structure; nothing is allocated on submit.
 */
#ifndef HOPPER_LIB_POOL_H
#define HOPPER_LIB_POOL_H

#include "lib/list.h"

struct pool;

struct work {
	struct list link;               /* owned by the pool while queued */
	void (*run)(struct work *w);    /* called once, on a pool thread; may free w */
};

/* @name (not owned, <= 15 characters) names the threads. Returns 0 or -ENOMEM. */
int pool_new(const char *name, unsigned max_threads, struct pool **ret_pool);

/* Runs what is queued, waits for every thread, frees. No submit may race with it. */
void pool_free(struct pool *p);

/*
 * Queue @w; first in, first out. Never blocks on the work. If no thread can
 * be started and none exists, @w runs on the calling thread.
 */
void pool_submit(struct pool *p, struct work *w);

#endif

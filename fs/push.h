/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts files into the kernel's page cache ahead of their reader, one whole small file at a time.
 *
 *   push_file -> cache_want (from disk into memory) -> push thread: cache_lend -> store -> prefetch_pushed
 *   push_expire ------------------------------------> push thread: the kernel forgets a name
 *
 * There is a push thread for each place of the machine (lib/topology.h), pinned to it: a page is on the node of who stores it,
 * and stays there, so a file goes to the thread of the place where it will be read.
 *
 * A store waits for pages that a read holds, and a read is answered by a thread that serves: so only the push
 * threads store, and they serve nothing. A node id is one version of a file, so what is stored under it is never of another.
 */
#ifndef HOPPER_FS_PUSH_H
#define HOPPER_FS_PUSH_H

#include <stdint.h>

struct cache;
struct prefetch;
struct session;
struct stats;
struct topology;
struct watch;

struct push_config {
	struct cache *cache;         /* none of these is owned */
	struct prefetch *prefetch;
	struct session *session;
	struct stats *stats;
	struct watch *watch;
	const struct topology *topology;   /* NULL: one place */
};

struct push;

int push_new(const struct push_config *cfg, struct push **ret_push);
void push_free(struct push *p);         /* waits for what is under way; the prefetcher was stopped */

/* For a reader at @place (-1: anywhere). Any thread, never blocks; ends with prefetch_pushed(), possibly before it returns. */
void push_file(struct push *p, uint64_t ino, int place);

/* The file changed: its name is to be looked up again, whatever its time. Any thread, never blocks. */
void push_expire(struct push *p, uint64_t ino);

#endif

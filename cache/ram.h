/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for extents: one arena of the configured size, handed out in runs of
 * 4-KiB pages. The arena is the hard limit; its pages become resident from
 * the low end, as they are needed: runs are first sought among those that are.
 * On several NUMA nodes it is interleaved.
 *
 * Fresh pages are small ones, as at a fault compaction for a huge page holds a
 * fill up for milliseconds (first epoch 3.95 s instead of 3.74 s); once used,
 * khugepaged is asked to make them huge in its own time.
 *
 * Not locked: the cache's lock protects it.
 */
#ifndef HOPPER_CACHE_RAM_H
#define HOPPER_CACHE_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ram {
	char *arena;              /* owned mapping */
	uint64_t *used;           /* a bit per page; owned */
	size_t pages, used_pages;
	size_t hint;              /* where the last run ended */
	size_t top;               /* pages at and above it were never handed out */
	size_t huge;              /* pages below it were given to khugepaged */
};

/* Bytes to use when the user did not say: a quarter of what is available, within the cgroup's limit. */
uint64_t ram_auto_bytes(void);

int ram_open(struct ram *r, uint64_t bytes, bool numa);
void ram_close(struct ram *r);

/* A page-aligned run of at least @len bytes, or NULL when no run is free (not when memory is). */
void *ram_alloc(struct ram *r, size_t len);
void ram_free(struct ram *r, void *p, size_t len);

static inline uint64_t ram_used_bytes(const struct ram *r)
{
	return (uint64_t)r->used_pages * 4096;
}

static inline uint64_t ram_limit_bytes(const struct ram *r)
{
	return (uint64_t)r->pages * 4096;
}

#endif

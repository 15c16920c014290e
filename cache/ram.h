/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for extents: an arena for each place of the machine (lib/topology.h), bound to its node, each handed out in
 * runs of 4-KiB pages. The arenas together are the hard limit, shared in proportion to the nodes' memory; an arena's pages become resident from
 * the low end, as they are needed: runs are first sought among those that are.
 *
 * A lower limit may come into force, and go again: then an arena is its low end. Runs beyond, from before, are used until
 * they are freed, and are the kernel's from then on; who owns them is to see to that (memory.c).
 *
 * Bound means preferred: a node without free memory sends pages elsewhere rather than somebody to the OOM killer. Where
 * an arena would be less than ARENA_LEAST, there is one for all places, interleaved.
 *
 * Fresh pages are small ones, as at a fault compaction for a huge page holds a
 * fill up for milliseconds (first epoch 3.95 s instead of 3.74 s); once used, they are made huge beside everything else
 * (ram_small, ram_collapse): what is read from the disk past the page cache then comes in one piece, in 0.83 of the time.
 *
 * Not locked: the cache's lock protects it.
 */
#ifndef HOPPER_CACHE_RAM_H
#define HOPPER_CACHE_RAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "lib/topology.h"

#define ARENA_LEAST (4ULL << 20)

struct arena {
	char *memory;             /* owned mapping */
	uint64_t *used;           /* a bit per page; owned */
	size_t pages, used_pages;
	size_t bound;             /* pages at and above it are beyond the limit in force */
	size_t beyond;            /* of the used ones */
	size_t hint;              /* where the last run ended */
	size_t reached;           /* pages at and above it were never handed out */
	size_t top;               /* nor those at and above this one, since they were given back to the kernel: none is resident but in use */
	size_t peak, last_peak;   /* used pages at most, in this period and the one before */
	size_t huge;              /* pages below it are to be huge: by us, or by khugepaged where the kernel cannot at once */
	size_t collapsed;         /* pages below it are, as far as they could be */
	int node;                 /* the kernel's number; -1: nodes are not told apart */
};

struct ram {
	unsigned count;           /* arenas: one for each place, or one */
	struct arena arena[TOPOLOGY_PLACES_MAX];
	size_t used_pages, bound, beyond;   /* of all */
};

/* A quarter of the machine's memory that is available now, but not too little. */
uint64_t ram_auto_bytes(void);

/* @t NULL: one place. Returns 0 or -ENOMEM. */
int ram_open(struct ram *r, uint64_t bytes, const struct topology *t);
void ram_close(struct ram *r);

/*
 * The limit in force is the arenas', @bytes if that is less, but ARENA_LEAST for each at least. What is free beyond is given
 * back to the kernel. Returns whether the limit is another one now.
 */
bool ram_set_limit(struct ram *r, uint64_t bytes);

/* A step of giving back what was not needed in this period, nor in the one before; @is_new: another period begins. */
void ram_trim(struct ram *r, bool is_new);

/* Pages in use that are small: are there any, and the next of them, which are taken out of the list. NULL: none. */
bool ram_has_small(const struct ram *r);
void *ram_small(struct ram *r, size_t *ret_len);

/* Make these huge. Some milliseconds; of what is in use meanwhile nothing is seen of it. Not locked. */
void ram_collapse(void *p, size_t len);

/* Is any of the run @p beyond the limit in force? */
bool ram_is_beyond(const struct ram *r, unsigned at, const void *p, size_t len);

/* The arena for a reader at @place; for one who is nowhere (-1), the emptiest. */
unsigned ram_home(const struct ram *r, int place);

/* A page-aligned run of at least @len bytes of arena @at, or NULL when no run is free there (not when memory is). */
void *ram_alloc(struct ram *r, unsigned at, size_t len);
void ram_free(struct ram *r, unsigned at, void *p, size_t len);

/* The node on which the kernel has the page at @p of arena @at; the arena's own if it does not say. Not locked. */
int ram_node_of(const struct ram *r, unsigned at, void *p);

static inline uint64_t arena_used_bytes(const struct arena *a)
{
	return (uint64_t)a->used_pages * 4096;
}

static inline uint64_t ram_used_bytes(const struct ram *r)
{
	return (uint64_t)r->used_pages * 4096;
}

/* In force. */
static inline uint64_t ram_limit_bytes(const struct ram *r)
{
	return (uint64_t)r->bound * 4096;
}

/* Within the limit in force. */
static inline uint64_t ram_free_bytes(const struct ram *r)
{
	return (uint64_t)(r->bound - (r->used_pages - r->beyond)) * 4096;
}

static inline uint64_t arena_limit_bytes(const struct arena *a)
{
	return (uint64_t)a->bound * 4096;
}

#endif

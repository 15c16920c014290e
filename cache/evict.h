/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What leaves the disk tier, of each directory in this order:
 *   1. extents consumed in this epoch, oldest first (the prefetcher tells);
 *   2. extents in no epoch pattern, by S3-FIFO (Yang, Zhang, Qiu, Yue,
 *      Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023);
 *   3. extents this epoch has yet to read: only when the hard limit is exceeded.
 *
 * Any thread. Calls the advisor and the disk tier with no lock held.
 */
#ifndef HOPPER_CACHE_EVICT_H
#define HOPPER_CACHE_EVICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "cache/disk.h"

struct cache_advisor;
struct evict;
struct stats;

struct evict_config {
	struct disk *disk;
	struct stats *stats;
	/* Is the object pinned or in use? Then it stays. Takes the cache's lock. */
	bool (*is_pinned)(void *arg, uint64_t key);
	/* The extent left the disk; tell whoever keeps books. */
	void (*has_left)(void *arg, uint64_t key, bool was_unread);
	void *arg;
};

/* Fills the queues from what the disk holds. */
int evict_new(const struct evict_config *cfg, struct evict **ret_evict);
void evict_free(struct evict *e);
void evict_set_advisor(struct evict *e, const struct cache_advisor *advisor);

void evict_stored(struct evict *e, unsigned dir, uint64_t key, bool is_whole);   /* was written; is it all of its object? */
void evict_hit(struct evict *e, uint64_t key);         /* an extent on disk was read */
/* Is it worth making room for? Not what this epoch has read already: that would take the place of what it has not. */
bool evict_admits(struct evict *e, uint64_t key);

void evict_consumed(struct evict *e, uint64_t key);    /* its item was consumed in this epoch */

/* Free at least @bytes on a directory by 1 and 2 (and 3 if @even_unread). Returns the bytes freed. */
uint64_t evict_some(struct evict *e, unsigned dir, uint64_t bytes, bool even_unread);

/*
 * Room for an extent of @len bytes of @key's object, for a reader at @place (disk_choose()): where there is some, or else by
 * up to @tries evictions of what may go. None if there is none.
 */
struct disk_room evict_room(struct evict *e, uint64_t key, uint64_t object_bytes, size_t len, int place, unsigned tries);

/* Consumed extents that could go at once: an estimate, for the governor. */
uint64_t evict_consumed_count(struct evict *e);

#endif

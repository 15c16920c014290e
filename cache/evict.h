/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What leaves the disk tier, in this order:
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
#include <stdint.h>

struct cache_advisor;
struct disk;
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

void evict_stored(struct evict *e, uint64_t key, bool is_whole);   /* an extent was written; is it all of its object? */
void evict_hit(struct evict *e, uint64_t key);         /* an extent on disk was read */
/* Is it worth making room for? Not what this epoch has read already: that would take the place of what it has not. */
bool evict_admits(struct evict *e, uint64_t key);

void evict_consumed(struct evict *e, uint64_t key);    /* its item was consumed in this epoch */

/* Free at least @bytes by 1 and 2 (and 3 if @even_unread). Returns the bytes freed. */
uint64_t evict_some(struct evict *e, uint64_t bytes, bool even_unread);

/* Consumed extents that could go at once: an estimate, for the governor. */
uint64_t evict_consumed_count(struct evict *e);

#endif

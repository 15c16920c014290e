/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One cache directory: extents on its file system, the index of what it holds, its limit, its health. It knows nothing
 * of others; disk.c chooses among several.
 *
 *   DIR/index      LMDB (cache/store.h): table "extent", key -> struct record
 *   DIR/segments   packed extents (cache/segment.h)
 *   DIR/objects    a sparse file for each whole object
 *
 * The guarantees (A) to (E) of disk.h are kept here. Besides:
 *   (F) a directory that fails or was deleted is asked for nothing (volume_has() is false) and takes nothing (no room is
 *       reserved), until a probe of its own finds it well; a deleted one for good.
 *
 *   reads and writes have a health each (cache/origin/health.h): a disk that became read-only goes on serving.
 *
 * Transfers go through one io_uring (or threads, where the kernel refuses one); it, its completion thread and the
 * workers can be bound to processors.
 */
#ifndef HOPPER_CACHE_VOLUME_H
#define HOPPER_CACHE_VOLUME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "cache/disk.h"
#include "cache/origin/health.h"

struct cpus;
struct volume;

struct volume_config {
	const char *path;             /* of a checked cache directory; borrowed */
	int dir_fd;                   /* the same, opened; not owned */
	struct store *store;          /* its index; not owned */
	unsigned number;              /* for the names of its threads */
	uint64_t limit_bytes;         /* its share of size=, 0 for none of its own */
	uint64_t min_free_bytes;      /* to be left free on the file system */
	enum disk_codec codec;
	bool verify_all;              /* verify=always */
	bool was_clean;               /* the last stop was clean */
	const struct cpus *cpus;      /* its threads run there; NULL: anywhere. Borrowed */
	void (*lost)(void *arg, unsigned number);   /* it was deleted: once, on a thread of its own, which may block. May be NULL */
	void *arg;
};

/* Returns 0 or negative errno. */
int volume_open(const struct volume_config *cfg, struct stats *stats, struct volume **ret_volume);

/* Waits for I/O in flight, commits, syncs, frees. */
void volume_close(struct volume *v);

/* As disk.h has them, of this directory. */
bool volume_has(struct volume *v, uint64_t key, uint64_t version);
bool volume_holds(struct volume *v, uint64_t key);
void volume_read(struct volume *v, struct disk_io *io);
uint64_t volume_reserve(struct volume *v, size_t len);
void volume_unreserve(struct volume *v, uint64_t reserved);
void volume_write(struct volume *v, struct disk_io *io);
uint64_t volume_drop(struct volume *v, uint64_t key);
int volume_whole_open(struct volume *v, uint64_t ino, uint64_t version, uint64_t size, bool may_block, int *ret_fd);
void volume_whole_close(struct volume *v, uint64_t ino);
void volume_prefer_whole(struct volume *v);
uint64_t volume_excess(struct volume *v);
uint64_t volume_room(struct volume *v);
bool volume_is_over(struct volume *v);
uint64_t volume_limit(struct volume *v);
int volume_walk(struct volume *v, uint64_t from,
		int (*fn)(void *arg, uint64_t key, uint64_t version, uint32_t disk_bytes), void *arg);

/* Does the index (as far as it was committed) name an extent of this object? */
bool volume_has_some(struct volume *v, uint64_t ino);

/* Is it to be asked at all, and does it take anything? Any thread. volume_tends() has a directory that failed looked at. */
bool volume_serves(const struct volume *v);
bool volume_stores(const struct volume *v);
void volume_tend(struct volume *v);

struct volume_status {
	enum health_state state;
	uint64_t bytes, limit_bytes, extents, errors;
};
void volume_status(struct volume *v, struct volume_status *ret);

#endif

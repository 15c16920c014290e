/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decides where bytes are. One way in for data: demand, read-ahead and
 * prefetch all ask for extents here; one fill in flight per extent, everybody
 * else joins it.
 *
 *        cache_read ----> extent in RAM ------------------> done, inline
 *            |            extent on disk -> disk_read ----> done
 *            +--missing-> fill: origin read -> done as soon as the bytes are
 *                               there -> disk_write behind it
 *        cache_want ----> the same fill, nobody waiting
 *
 * The extent's state machine, its lettered guarantees and the lock order are
 * in extent.h. Callbacks run on threads of the origin, the disk tier or the
 * caller; they must not block.
 */
#ifndef HOPPER_CACHE_CACHE_H
#define HOPPER_CACHE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "cache/disk.h"
#include "cache/namespace.h"

#define EXTENT_BYTES (1u << 20)

struct cache;
struct strbuf;
struct topology;

struct cache_config {
	const char *const *dirs;      /* cache directories; created 0700 if missing */
	unsigned dir_count;
	const char *identity;         /* of the origin: a cache belongs to one */
	uint64_t size_bytes;          /* size=; 0 for no limit of its own */
	unsigned size_percent;        /* or this share of the file system, if not 0 */
	uint64_t min_free_bytes;
	unsigned min_free_percent;
	uint64_t ram_bytes;           /* ram=; 0 for auto */
	const char *cgroup_root;      /* borrowed; where the cgroup's limits are found (cgroup.h); NULL: this machine's */
	enum disk_codec codec;
	bool verify_all;
	const struct topology *topology;   /* borrowed; NULL: nothing is known of nodes */
	uint64_t timeout_ns;          /* how long a read waits for an origin that is away */
	bool hedge;                   /* ask a second time where a request takes much longer than its peers */
	struct ns_config ns;
};

/*
 * Opens and locks the cache directories, the index, the namespace and the
 * tiers, and starts the background threads. @origin and @stats are borrowed.
 * On error: negative errno and one line for the user in @msg; -EINVAL,
 * -EBUSY, -EPERM and -EEXIST are the user's to mend (exit status 2).
 */
int cache_open(const struct cache_config *cfg, struct origin *origin, struct stats *stats,
	       struct cache **ret_cache, char *msg, size_t msg_size);

/* No read or want may be submitted any more; waits for those in flight. */
void cache_close(struct cache *c);

struct ns *cache_ns(struct cache *c);
struct origin *cache_origin(struct cache *c);

/*
 * An open handle: while pinned, the object's extents are not evicted from
 * RAM or disk by anyone but a hard limit. Counted; cache_unpin() of an object that is
 * not pinned does nothing (a RELEASE may come twice).
 */
void cache_pin(struct cache *c, const struct ns_attr *attr);
void cache_unpin(struct cache *c, uint64_t ino);

/*
 * A read-only descriptor of the cache's own file of an object that is wholly there, for the kernel to read instead of us.
 * The object stays as it is until cache_whole_end(), called once for each success. Errors
 * are disk_whole_open()'s, none of them the reader's business: -EAGAIN asks for another call with @may_block, the others for cache_read().
 */
int cache_whole_fd(struct cache *c, const struct ns_attr *attr, bool may_block, int *ret_fd);
void cache_whole_end(struct cache *c, uint64_t ino);

/* Somebody is going to call cache_whole_fd(): see disk_prefer_whole(). */
void cache_prefer_whole(struct cache *c);

/* One read; owned by the caller, zeroed before use. */
struct cache_read {
	struct ns_attr attr;     /* which file, which version */
	uint64_t offset;
	size_t len;              /* at most EXTENT_BYTES; clipped at the end of file */
	int place;               /* of the reader (lib/topology.h), -1 if unknown */

	/*
	 * Called exactly once, possibly before cache_read() returns. With err 0,
	 * iov[0..iov_count) are the bytes (none at or past the end of file),
	 * valid until cache_read_end(), which must be called then and only then.
	 * Errors: -ESTALE (the file changed), -EIO, -ETIMEDOUT is given as -EIO.
	 */
	void (*done)(struct cache_read *r, int err);
	void *arg;

	struct iovec iov[2];
	int iov_count;
	size_t bytes;            /* sum of iov */
	bool has_waited;         /* it had to wait for origin or disk */

	void *priv[16];          /* the cache's */
};

void cache_read(struct cache *c, struct cache_read *r);
void cache_read_end(struct cache *c, struct cache_read *r);

/* How a large file is read. */
enum access_pattern {
	PATTERN_SEQUENTIAL,      /* in sequence, or unknown */
	PATTERN_RANDOM,          /* at random */
	PATTERN_SHORT,           /* ... little at a time: what the kernel would read ahead is another's */
	PATTERN_MAPPED,          /* ... page by page through a mapping: the same of what it would read around a fault */
};

struct cache_pattern {
	enum access_pattern how;
	uint32_t record_len;     /* bytes that are read together from base + i * stride on, the page of that included; 0: not by records */
	uint64_t stride;
	int64_t base;
};

/*
 * When the disk tier is full, of a file that is not read through what misses is fetched as it was asked for, with the
 * rest of its record, and takes no other's place. Copied; without memory misses stay whole.
 */
void cache_set_pattern(struct cache *c, uint64_t ino, const struct cache_pattern *pattern);

/* What was said last of how it is read. */
enum access_pattern cache_pattern(struct cache *c, uint64_t ino);

/* The pieces within [start, end) are not needed any more, read or not: their memory may go first. */
void cache_release_pieces(struct cache *c, uint64_t ino, uint64_t start, uint64_t end);

/* Prefetch of one extent, or of a piece; owned by the caller until done. */
struct cache_want {
	uint64_t key;            /* extent_key(ino, extent) */
	uint64_t piece_start;    /* of a piece, with piece_len > 0: it stays in memory until it was read */
	uint32_t piece_len;      /* at most EXTENT_BYTES */
	int place;               /* of the reader who is expected, -1 if unknown: the bytes go there if there is room */
	bool is_for_memory;      /* from the cache's disk into memory, for cache_lend(); nothing is fetched: -ENOENT if it is not there */
	/*
	 * Called exactly once, possibly before cache_want() returns. err 0: the
	 * extent is resident (bytes: what had to be fetched, 0 if it was there or a
	 * fill was joined). -ENOSPC: no room that may be used for a prefetch.
	 * -EAGAIN: no memory now. -ESTALE, -ENOENT, -EIO: benign here.
	 */
	void (*done)(struct cache_want *w, int err, uint64_t bytes);
	void *arg;
	bool was_demanded;       /* a reader joined while it was in flight: it came late */
	void *priv[8];           /* the cache's */
};

void cache_want(struct cache *c, struct cache_want *w);

/*
 * The bytes of an extent that is in memory, for as long as they are lent: to put them into the page cache. No
 * reader is served by it, so it counts as no read. -ENOENT if it is not in memory.
 */
struct cache_loan {
	const void *buf;
	uint32_t len;
	void *priv;              /* the cache's */
};

int cache_lend(struct cache *c, const struct ns_attr *attr, uint32_t extent, struct cache_loan *ret_loan);

/* Called once for each success. @page_cache_has_it: then our memory for it is given up, at once if it is on disk. */
void cache_lend_end(struct cache *c, const struct cache_loan *loan, bool page_cache_has_it);

enum cache_tier { CACHE_TIER_NONE = 0, CACHE_TIER_RAM = 1, CACHE_TIER_DISK = 2 };

/* Where an extent is (a mask). From memory and the index; no I/O. */
unsigned cache_where(struct cache *c, const struct ns_attr *attr, uint32_t extent);

/*
 * The reader of file @ino is expected at @place: what memory has of it without a gap, of its first 16 MiB, moves there, as
 * far as nobody uses it and there is memory that is free or was read. Copies the bytes before it returns; no lock may be held.
 */
void cache_move(struct cache *c, uint64_t ino, int place);

/* The NUMA node that has most of a file's bytes in memory, as the kernel sees it; -1 for none. */
int cache_node(struct cache *c, const struct ns_attr *attr);

/* Forget everything about an object that is not pinned or in use. */
void cache_drop(struct cache *c, uint64_t ino);

/* Resident bytes of a file and its size, for user.hopper.cached. */
void cache_residency(struct cache *c, const struct ns_attr *attr, uint64_t *ret_ram, uint64_t *ret_disk);

/*
 * What the prefetcher knows that the cache does not. Called by the evictor
 * from its own thread or a submitter's, with no lock of the cache held
 * but possibly often: must be short and must not call the cache.
 */
enum cache_class {
	CACHE_OTHER,       /* in no epoch pattern: the general policy decides */
	CACHE_CONSUMED,    /* read in this epoch: first out */
	CACHE_UNREAD,      /* will be read in this epoch: stays */
	CACHE_BEING_READ,  /* its object was opened and is read up to it: stays, but does not come to the disk for that */
};

struct cache_advisor {
	enum cache_class (*class_of)(void *arg, uint64_t key);
	/* An extent left the cache (both tiers); @was_unread: fetched ahead in vain. For the prefetcher's books, as is stored. */
	void (*evicted)(void *arg, uint64_t key, bool was_unread);
	/* A piece left memory. */
	void (*piece_lost)(void *arg, uint64_t ino, uint64_t start, bool was_unread);
	/* An extent came to the disk; @is_whole: it is all of its object. */
	void (*stored)(void *arg, uint64_t key, bool is_whole);
	void *arg;
};

/* Set once, before the first read; the advisor outlives its last use (cache_close). NULL removes it. */
void cache_set_advisor(struct cache *c, const struct cache_advisor *advisor);

/* The prefetcher says that extents [@from, @to) of an object were consumed: they go first. Never blocks; may be forgotten under pressure. */
void cache_consumed(struct cache *c, uint64_t ino, uint32_t from, uint32_t to);

/*
 * Named values kept in the index beside the cache, for the prefetcher's memory. Get: 0 (owned by
 * the caller), -ENOENT. Put blocks for a commit.
 */
int cache_note_get(struct cache *c, const char *name, void **ret_data, size_t *ret_len);
int cache_note_put(struct cache *c, const char *name, const void *data, size_t len);

/* A measure of origin traffic for the governor. */
struct cache_flow {
	unsigned in_flight;          /* requests the origin has not answered */
	unsigned demand_in_flight;   /* fills that a reader waits for, and hedges in flight or about to be sent */
	uint64_t done;               /* requests answered well since start */
	uint64_t bytes;              /* bytes of these */
	uint64_t hedged_bytes;       /* asked for by hedges since start */
	uint64_t ram_free_bytes;     /* that a prefetch may use now */
	uint64_t ram_limit_bytes;    /* in force: ram=, or less where the cgroup may have less */
	uint64_t disk_room_bytes;    /* ... counting what is consumed and could go */
	uint64_t limit_bytes;        /* of the disk tier: the cache's capacity */
	bool origin_is_down;         /* a prefetch would only fail; asking this has it probed */
};
void cache_flow(struct cache *c, struct cache_flow *ret_flow);

/* Bytes of the machine's memory, or our cgroup's, that one use may take: a quarter of what is available. */
uint64_t cache_memory_spare(void);

/* No hedge is sent while @parallel requests or more are in flight; 0: there is no such limit. */
void cache_set_parallel(struct cache *c, unsigned parallel);

/* Publish gauges to the statistics. */
void cache_publish(struct cache *c);

#endif

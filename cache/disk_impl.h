/* SPDX-License-Identifier: Apache-2.0 */
/* What the disk tier's own files share: disk.c (records, transfers, space, commits) and whole.c (objects lent to the kernel). */
#ifndef HOPPER_CACHE_DISK_IMPL_H
#define HOPPER_CACHE_DISK_IMPL_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "cache/codec.h"
#include "cache/disk.h"
#include "cache/segment.h"
#include "lib/lock.h"
#include "lib/map64.h"

enum { EXTENT_SHIFT = 20 };

enum kind { KIND_PACKED = 1, KIND_WHOLE = 2 };

/* One extent in the index. */
struct record {
	uint64_t version, checksum;    /* XXH3 of the uncompressed bytes */
	uint32_t stored_len, raw_len;
	uint32_t segment, slot;        /* packed: segment and 4-KiB slot in it */
	uint8_t dir, codec, kind, unused[5];
};

/* What the index does not say yet about a key. */
struct pending {
	struct record record;
	bool is_deletion;
	uint64_t change;               /* tells a newer entry from the one committed */
};

/* Reads in flight of one key's record. */
struct busy {
	struct record record;
	unsigned readers;
	bool is_dropped;               /* free the space when the last reader leaves */
};

/* A range of a whole object's file that is being written or punched: never both. */
struct range {
	unsigned writers, punchers;
};

/* A whole object that was asked for by disk_whole_open(). Kept until the end: what is known of it stays known. */
struct object {
	unsigned holds;                /* none of its records is dropped meanwhile */
	uint32_t missing;              /* the extent that was missing last */
	uint32_t checked;              /* extents below were verified for doubt number `checking` */
	uint64_t checking, settled;    /* settled: all were, for this one */
	bool is_complete;              /* every record is there: no need to look again */
	bool is_checking;              /* somebody verifies it now */
	bool is_verified;              /* it was once, whatever its file looks like */
};

struct disk_dir {
	int fd;                        /* not owned */
	int objects_fd;                /* DIR/objects; owned */
	struct segments segments;
};

struct disk {
	struct store *store;
	struct stats *stats;
	MDB_dbi table;
	struct diskio *io;
	struct pool *workers;
	struct codec codec;
	struct disk_dir *dirs;
	unsigned dir_count;
	uint64_t limit_bytes, min_free_bytes;
	pthread_t committer;
	_Atomic uint64_t index_bytes;
	_Atomic bool prefers_whole;    /* somebody can make use of whole objects */

	struct lock lock;
	pthread_cond_t changed;
	/* protected by lock */
	struct map64 pending, busy;
	struct map64 ranges;           /* key -> struct range */
	struct map64 objects;          /* ino -> struct object */
	uint64_t used_bytes, reserved_bytes, extents, changes;
	uint64_t doubts;               /* times since the start that what is on disk became doubtful: see whole.c */
	uint64_t fs_free_bytes, fs_checked_ns;
	unsigned in_flight;            /* io between submit and done */
	unsigned whole_writes;         /* of these, writes into files of whole objects, from before the file is opened */
	unsigned errors_in_row;
	uint64_t probe_ns;             /* when down: next write allowed */
	bool is_closing, is_stopping;
};

/* disk.c, with the lock held: what is known of a key, pending or committed. 0 or -ENOENT. */
int record_find(struct disk *d, uint64_t key, struct record *ret);

/* disk.c, without the lock: an extent is wrong, short or gone; forget it unless it was replaced meanwhile. Counted. */
void record_damaged(struct disk *d, uint64_t key, const struct record *r);

/* disk.c: the file of a whole object, with open(2)'s @flags. A descriptor or negative errno. */
int object_open(struct disk_dir *dir, uint64_t key, uint64_t version, int flags);

/* whole.c, with the lock held. */
bool whole_is_held(struct disk *d, uint64_t key);
void whole_lost(struct disk *d, uint64_t key);      /* one of its records is no longer there */
void whole_doubt(struct disk *d, uint64_t key);     /* one of its extents was wrong: verify it before it is lent again */

/* whole.c, no lock: does a kernel still read the file, lent by an earlier daemon? */
bool whole_is_lent(int fd);

#endif

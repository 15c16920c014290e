/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of a volume share: record.c (what the index says, and does not say yet), space.c (room, and how it is
 * given back), transfer.c (reads and writes), whole.c (objects lent to the kernel), volume.c (start, health, end).
 */
#ifndef HOPPER_CACHE_VOLUME_IMPL_H
#define HOPPER_CACHE_VOLUME_IMPL_H

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "cache/codec.h"
#include "cache/segment.h"
#include "cache/volume.h"
#include "lib/lock.h"
#include "lib/map64.h"
#include "lib/pool.h"

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

/* A whole object that was asked for by volume_whole_open(). Kept until the end: what is known of it stays known. */
struct object {
	unsigned holds;                /* none of its records is dropped meanwhile */
	uint32_t missing;              /* the extent that was missing last */
	uint32_t checked;              /* extents below were verified for doubt number `checking` */
	uint64_t checking, settled;    /* settled: all were, for this one */
	bool is_complete;              /* every record is there: no need to look again */
	bool is_checking;              /* somebody verifies it now */
	bool is_verified;              /* it was once, whatever its file looks like */
};

struct volume {
	struct store *store;           /* not owned */
	struct stats *stats;           /* not owned */
	char *path, *reads_name, *writes_name;   /* owned */
	MDB_dbi table;
	struct diskio *io;
	struct pool *workers;
	char pool_name[16], io_name[16];
	struct codec codec;
	int fd;                        /* the directory; not owned */
	int objects_fd;                /* DIR/objects; owned */
	uint64_t limit_bytes, min_free_bytes;
	struct health *reads, *writes;
	void (*lost)(void *arg, unsigned number);
	void *arg;
	unsigned number;
	pthread_t committer;
	_Atomic uint64_t index_bytes, errors;
	_Atomic bool prefers_whole;    /* somebody can make use of whole objects */
	_Atomic bool reads_direct;     /* settled segments with O_DIRECT, until it is refused */
	_Atomic bool serves, stores;   /* it is not down; as its health was last seen */
	_Atomic bool is_lost;          /* the directory was deleted: neither, for good */

	struct lock lock;
	pthread_cond_t changed;        /* a range is free; while stopping: in_flight */
	pthread_cond_t work;           /* for the committer: the first that is pending; the end */
	/* protected by lock */
	struct segments segments;
	struct map64 pending, busy;
	struct map64 ranges;           /* key -> struct range */
	struct map64 objects;          /* ino -> struct object */
	uint64_t used_bytes, reserved_bytes, extents, changes;
	uint64_t doubts;               /* times since the start that what is on disk became doubtful: see whole.c */
	uint64_t fs_room_bytes, fs_checked_ns;   /* what min_free leaves us, and when that was so */
	uint64_t full_until_ns;        /* the file system said ENOSPC, whatever it says to be free */
	unsigned in_flight;            /* io between submit and done, probes, verifications */
	unsigned whole_writes;         /* of these, writes into files of whole objects, from before the file is opened */
	struct work read_probe, write_probe;   /* one at a time: the health sees to that */
	struct work loss;
	bool is_closing, is_stopping;
};

static inline uint64_t record_bytes(const struct record *r)
{
	return slot_round(r->stored_len);
}

static inline uint64_t record_offset(uint64_t key, const struct record *r)
{
	return r->kind == KIND_WHOLE ? (uint64_t)extent_key_no(key) << EXTENT_SHIFT : (uint64_t)r->slot * SLOT_BYTES;
}

/* record.c, with the lock held: what is known of a key, pending or committed. 0 or -ENOENT. */
int record_find(struct volume *v, uint64_t key, struct record *ret);

/* record.c, with the lock held: are there records of bytes in the file of this object? True also if that cannot be told. */
bool record_names_object(struct volume *v, uint64_t ino, uint64_t version);

/* record.c, with the lock held: note a change for the committer; @r NULL: a deletion. 0 or -ENOMEM. */
int pending_put(struct volume *v, uint64_t key, const struct record *r);

/* record.c, while starting: rebuilds the accounts from the index. */
int record_adopt_all(struct volume *v);

/* record.c: the thread that writes out what is pending; and both, bytes first, to the disk. No lock held. */
void *record_committer(void *arg);
void record_sync(struct volume *v);

/* space.c, with the lock held: take a record out of reach; its space follows when its readers are gone. */
void record_forget(struct volume *v, uint64_t key, const struct record *r);

/* space.c, with the lock held, which is dropped for the punch: free the space of a record that nobody can find any more. */
void space_free(struct volume *v, uint64_t key, const struct record *r);

/* space.c, with the lock held: bytes the extents may occupy now. */
uint64_t space_limit(struct volume *v);

/*
 * space.c, with the lock held: before and after a write to a whole object's file. A punch on its way would take the new
 * bytes with it, so the first may drop the lock and wait. 0 or -ENOMEM.
 */
int range_write_begin(struct volume *v, uint64_t key);
void range_write_end(struct volume *v, uint64_t key);

/* transfer.c, without the lock: an extent is wrong, short or gone; forget it unless it was replaced meanwhile. Counted. */
void record_damaged(struct volume *v, uint64_t key, const struct record *r);

/* space.c: the file of a whole object, with open(2)'s @flags. A descriptor or negative errno. */
int object_open(struct volume *v, uint64_t key, uint64_t version, int flags);

/* volume.c, without the lock: a transfer begins, and what became of it; *what* for the log. */
void volume_asked(struct volume *v, bool is_write);
void volume_answered(struct volume *v, bool is_write, int err, const char *what);

/* volume.c, with the lock held: what counted in in_flight is over. */
void volume_leave(struct volume *v);

/* volume.c, with the lock held: was the directory, or what it is made of, deleted? */
void volume_look(struct volume *v);

/* whole.c, with the lock held. */
bool whole_is_held(struct volume *v, uint64_t key);
void whole_lost(struct volume *v, uint64_t key);      /* one of its records is no longer there */
void whole_doubt(struct volume *v, uint64_t key);     /* one of its extents was wrong: verify it before it is lent again */

/* whole.c, no lock: does a kernel still read the file, lent by an earlier daemon? */
bool whole_is_lent(int fd);

#endif

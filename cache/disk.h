/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disk tier: extents on one or several cache directories, each a store of its own (cache/volume.h), of which this
 * chooses one.
 *
 *   written to   the directory at the place (lib/topology.h) of the reader who is expected, of several by hash; else one
 *                of all by hash, in proportion to their sizes; what has no room there goes where there is some. All
 *                extents of a whole object go where its first went
 *   read from    wherever it is
 *
 * An extent is named by its key (inode number and extent number) and belongs
 * to one version of its file. Extents of files of at least DISK_WHOLE_MIN bytes are
 * kept in place in one sparse file per object (whole), so that the kernel
 * can read it; the others, and compressed ones, are appended to segment
 * files (packed), 4-KiB aligned, and freed by punching holes.
 *
 * Guarantees
 *   (A) bytes handed out by disk_read() carried the right checksum, or it failed;
 *   (B) the index names an extent only after its bytes were written;
 *   (C) bytes on a directory never exceed its limit: space is reserved before it is
 *       written, and min_free is watched;
 *   (D) every submitted io is completed exactly once, never from within the call;
 *   (E) the file of a whole object that was lent keeps its bytes until it is given back.
 */
#ifndef HOPPER_CACHE_DISK_H
#define HOPPER_CACHE_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXTENT_BITS 24            /* extent number bits in a key: 16 TiB files */
#define DISK_WHOLE_MIN (1u << 20) /* bytes; larger than one extent is a whole object */

struct disk;
struct store;
struct stats;

enum { DISK_DIRS_MAX = 64 };

enum disk_codec { DISK_CODEC_AUTO, DISK_CODEC_LZ4, DISK_CODEC_OFF };

struct cpus;

/* A checked cache directory; all borrowed. */
struct disk_dir {
	const char *path;
	int fd;
	struct store *store;          /* its index */
	uint64_t limit_bytes;         /* its share of size=, 0 for none of its own */
	uint64_t min_free_bytes;      /* to be left free on the file system */
	uint64_t weight;              /* its part of what is spread over all; not 0 */
	bool was_clean;               /* the last stop was clean */
	int place, node;              /* next to which it is, and the kernel's number of that; -1: not known */
	const struct cpus *cpus;      /* its threads run there; NULL: anywhere */
};

struct disk_config {
	const struct disk_dir *dirs;  /* at least one, at most DISK_DIRS_MAX */
	unsigned dir_count;
	enum disk_codec codec;
	bool verify_all;              /* verify=always */
	/* Directory @dir was deleted: once, on a thread that may block. May be NULL. */
	void (*lost)(void *arg, unsigned dir);
	void *arg;
};

/* Room on one directory for bytes about to be written; none when bytes is 0. */
struct disk_room {
	uint64_t bytes;
	unsigned dir;
};

static inline uint64_t extent_key(uint64_t ino, uint32_t extent)
{
	return ino << EXTENT_BITS | extent;
}

static inline uint64_t extent_key_ino(uint64_t key)
{
	return key >> EXTENT_BITS;
}

static inline uint32_t extent_key_no(uint64_t key)
{
	return (uint32_t)(key & ((1u << EXTENT_BITS) - 1));
}

/* One extent read or written. Owned by the caller until done. */
struct disk_io {
	uint64_t key;
	uint64_t version;        /* version_hash() of the file */
	uint64_t object_bytes;   /* size of the whole file: packed or whole */
	void *buf;               /* page aligned, with room for whole pages: a read may write to all of the last one */
	size_t len;              /* bytes of the extent, uncompressed */
	int place;               /* reads: of the reader, -1 if unknown */
	/*
	 * On a thread of the disk tier. Reads: 0; -ENOENT not there;
	 * -EBADMSG wrong bytes, short or gone (counted as corrupt and forgotten);
	 * or an I/O error. Writes: 0 when the bytes are written (the index
	 * follows within a second); -ENOSPC; or an I/O error. Must not block.
	 */
	void (*done)(struct disk_io *io, int err);
	void *arg;               /* the caller's */
	struct disk_room room;   /* writes: from disk_reserve(), consumed */
	void *priv[8];           /* the disk tier's while in flight */
};

int disk_open(const struct disk_config *cfg, struct stats *stats, struct disk **ret_disk, char *msg, size_t msg_size);

/* Waits for I/O in flight, commits, syncs, frees. */
void disk_close(struct disk *d);

/* Is the extent there under this version? From the index: no I/O, any thread. */
bool disk_has(struct disk *d, uint64_t key, uint64_t version);

void disk_read(struct disk *d, struct disk_io *io);

/*
 * Where an extent of @key's object may be stored, best first, for a reader at @place (-1: unknown). Directories that are down are
 * left out. With is_tied other extents of the object are on the first: it is lent only if all are.
 */
struct disk_choice {
	uint8_t dir[DISK_DIRS_MAX];
	unsigned count;
	bool is_tied;
};
void disk_choose(struct disk *d, uint64_t key, uint64_t object_bytes, int place, struct disk_choice *ret);

/*
 * Reserve room for an extent of @len bytes on a directory. None if there is
 * none: evict, or do not store.
 */
struct disk_room disk_reserve(struct disk *d, unsigned dir, size_t len);
void disk_unreserve(struct disk *d, struct disk_room room);

void disk_write(struct disk *d, struct disk_io *io);

/*
 * Forget an extent on one directory and free its space. Returns the bytes freed (0 if not there, or its object is
 * lent). Short; may punch holes in the background.
 */
uint64_t disk_drop(struct disk *d, unsigned dir, uint64_t key);

/* ... wherever it is. */
uint64_t disk_drop_all(struct disk *d, uint64_t key);

/*
 * Lend a whole object to the kernel: a read-only descriptor of its file, if all
 * extents of exactly this version are there, in place and uncompressed. Nothing of it
 * is dropped, moved or punched until disk_whole_close(), whatever becomes of the descriptor;
 * a daemon that comes after a crash sees that the file is still lent, too.
 * Where the bytes may not be what was written (an unclean stop, a failed sync, a damaged
 * extent, verify=always), every checksum is verified first. -ENOENT: not (wholly) there;
 * -EBADMSG: damage was found, counted and forgotten; -EINPROGRESS: being verified in
 * the background, as it takes long; -EAGAIN: it has to be verified or looked for and @may_block is false.
 */
int disk_whole_open(struct disk *d, uint64_t ino, uint64_t version, uint64_t size, bool may_block, int *ret_fd);
void disk_whole_close(struct disk *d, uint64_t ino);

/*
 * From now on the codec leaves whole objects alone while less than half of a directory's limit is used, unless it is
 * DISK_CODEC_LZ4: what is compressed cannot be lent.
 */
void disk_prefer_whole(struct disk *d);

unsigned disk_dirs(const struct disk *d);

/* A directory that has the extent under any version, or -1. */
int disk_dir_of(struct disk *d, uint64_t key);

static inline bool disk_holds(struct disk *d, uint64_t key)
{
	return disk_dir_of(d, key) >= 0;
}

/* Has this one it? */
bool disk_dir_holds(struct disk *d, unsigned dir, uint64_t key);

/* Bytes that should be freed on a directory now to be back under the low watermark; 0 while under the high one. */
uint64_t disk_excess(struct disk *d, unsigned dir);

/* Is more in use on it than the limit allows now (min_free= can shrink it)? */
bool disk_is_over(struct disk *d, unsigned dir);

/* Room left under the limits, reservations counted as used: of all directories, and of the one that has most. */
uint64_t disk_room(struct disk *d);
uint64_t disk_room_most(struct disk *d);

/* The hard limits now in force (size= and what min_free= leaves), summed. */
uint64_t disk_limit(struct disk *d);

/*
 * Walk what a directory's index holds: calls @fn for each extent, in key order from
 * @from on, until it returns non-zero. For start-up and the evictor.
 */
int disk_walk(struct disk *d, unsigned dir, uint64_t from,
	      int (*fn)(void *arg, uint64_t key, uint64_t version, uint32_t disk_bytes), void *arg);

/* Publish gauges to the statistics. */
void disk_publish(struct disk *d);

#endif

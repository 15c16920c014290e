/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the truth is. One ops table per kind of origin:
 *
 *   posix   any directory of the machine, NFS, Lustre and sshfs mounts included
 *   fault   wraps another origin and makes it slow or unreliable; for tests,
 *           benchmarks and the demo
 *
 * An origin is named by a specification: a path, or KIND:... (origin_open).
 * Paths given to the operations are relative to the origin's root, without a
 * leading slash; "" is the root. No path can leave the root: neither through
 * "..", nor through a symbolic link, nor through a race.
 *
 * The metadata calls block and may be called from any number of threads. Data
 * is read asynchronously: read() queues and returns; the result arrives on a
 * thread of the origin.
 */
#ifndef HOPPER_CACHE_ORIGIN_ORIGIN_H
#define HOPPER_CACHE_ORIGIN_ORIGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/statvfs.h>
#include <sys/types.h>

struct health;
struct stats;

/* What a file's bytes belong to. Two versions that differ never share a byte. */
struct version {
	uint64_t size;        /* bytes */
	int64_t mtime_ns;     /* since the epoch */
	int64_t ctime_ns;     /* 0 where the origin has none */
	uint64_t tag;         /* hash of an object store's ETag, else 0 */
};

static inline bool version_equal(const struct version *a, const struct version *b)
{
	return a->size == b->size && a->mtime_ns == b->mtime_ns &&
	       a->ctime_ns == b->ctime_ns && a->tag == b->tag;
}

enum { ORIGIN_ACL_MAX = 4096 };   /* bytes: FUSE takes a page */

struct origin_attr {
	uint32_t mode;        /* st_mode: type and permission bits */
	uint32_t uid, gid;
	uint32_t nlink;
	uint64_t origin_ino;  /* the origin's own inode number, 0 if it has none */
	uint64_t rdev;
	struct version version;
	void *acl;            /* an access ACL, as system.posix_acl_access has it; NULL for none; owned (origin_attr_clear) */
	uint32_t acl_len;     /* bytes, at most ORIGIN_ACL_MAX */
};

/* Frees what it owns. */
void origin_attr_clear(struct origin_attr *a);

/* A directory's entries, "." and ".." left out, in the origin's order. */
struct origin_entry {
	const char *name;          /* points into the listing */
	struct origin_attr attr;
	int err;                   /* 0, or why attr could not be had (negative errno) */
};

struct origin_listing {
	struct origin_entry *entry;   /* owned */
	size_t count;
	char *names;                  /* owned */
	size_t names_size;
};

void origin_listing_free(struct origin_listing *l);

/* One read in flight. The caller owns it and buf until done is called. */
struct origin_read {
	const char *path;             /* not owned, valid until done */
	struct version expect;        /* the bytes must belong to this version */
	uint64_t offset;              /* bytes */
	size_t len;                   /* bytes; offset + len <= expect.size */
	void *buf;
	bool is_first;                /* no earlier read of this file is recent: an open is needed */

	/*
	 * Optional: the first @valid bytes of buf are there and will not change
	 * unless done reports an error. Called with rising values.
	 */
	void (*progress)(struct origin_read *r, size_t valid);

	/*
	 * Called exactly once, on a thread of the origin, never from within
	 * read(). @err is 0 when all of len was read and the file still had
	 * the expected version afterwards; -ESTALE when it has another version or
	 * is gone or was replaced; otherwise a negative errno. Must not block for long.
	 */
	void (*done)(struct origin_read *r, int err);
	void *arg;                    /* the caller's */
	void *priv[4];                /* the origin's while in flight */
};

struct origin;

struct origin_ops {
	const char *kind;
	void (*free)(struct origin *o);
	/* Names and attributes of a directory. -ENOENT, -ENOTDIR, -EIO, ... */
	int (*list)(struct origin *o, const char *path, struct origin_listing *ret_listing);
	/* Never follows a final symbolic link. */
	int (*stat)(struct origin *o, const char *path, struct origin_attr *ret_attr);
	/* NUL-terminated target, -ENAMETOOLONG if it does not fit. */
	int (*readlink)(struct origin *o, const char *path, char *buf, size_t size);
	int (*statfs)(struct origin *o, struct statvfs *ret_st);
	void (*read)(struct origin *o, struct origin_read *r);
};

/* Every origin begins with this. */
struct origin {
	const struct origin_ops *ops;   /* immutable */
	struct stats *stats;            /* not owned; the outermost origin counts requests and bytes */
	struct health *health;          /* owned; what became of the requests of who asks this origin; may be NULL */
	bool has_acls;                  /* immutable: its file system has POSIX ACLs, and attributes come with them */
};

/*
 * Ask through these: they call the operation of the same name and tell the origin's health. Who submits a read says
 * what came of it by origin_answered(), once for each; not for one given up before its answer.
 */
int origin_stat(struct origin *o, const char *path, struct origin_attr *ret_attr);
int origin_list(struct origin *o, const char *path, struct origin_listing *ret_listing);
int origin_readlink(struct origin *o, const char *path, char *buf, size_t size);
int origin_statfs(struct origin *o, struct statvfs *ret_st);
void origin_submit(struct origin *o, struct origin_read *r);
void origin_answered(struct origin *o, int err);

/*
 * Open the origin named @spec:
 *
 *   PATH or posix:PATH              a directory
 *   fault:KEY=VALUE[,...]:SPEC      another origin made slow or unreliable:
 *       read=TIME      added to every data request (10ms)
 *       meta=TIME      added to every metadata call; a listing is one call
 *                      and one more for each entry whose attributes it needs,
 *                      up to 64 of them at a time; the first read of a file one more (its open)
 *       jitter=TIME    uniform 0..TIME on top of both, from a fixed seed
 *       bw=BYTES       one link of so many bytes per second, first come, first served
 *       error=N        every Nth data request fails with EIO
 *       short=N        every Nth data request returns too few bytes (seen as EIO)
 *       hang=N         the Nth data request and all later ones never complete
 *                      until the origin is freed (-EIO then)
 *       stale=N        every Nth data request finds the file changed
 *       slow=N         every Nth data request is answered slow_by later than it would be;
 *       slow_by=TIME   the others do not wait for it
 *       lost=N         every Nth data request is never answered; busy=N: every Nth fails with EBUSY
 *       lie_more=BYTES stat says that each file is so much larger, or with lie_less=BYTES smaller,
 *                      than what can be read of it
 *       meta_error=N   every Nth metadata call fails with EIO; meta_lost=N: is never answered
 *       meta_hang=N    the Nth metadata call and all later ones hang. What hangs goes on when
 *                      the control file no longer says so, but for what was lost
 *       control=FILE   a file whose text (KEY=VALUE,...) replaces these settings
 *                      whenever its mtime changes; looked at before each request
 *
 * On error returns a negative errno and writes one line for the user into
 * @msg (at most @msg_size bytes).
 */
int origin_open(const char *spec, struct stats *stats, struct origin **ret_origin,
		char *msg, size_t msg_size);

/* Waits for or fails the reads in flight; every done has been called on return. */
void origin_close(struct origin *o);

/* The path behind @spec as the user would recognise it, for messages and identity; owned by the caller. */
char *origin_identity(const char *spec);

/* Fills *ret_version from st-like attributes; 64-bit hash of a version, never 0. */
uint64_t version_hash(const struct version *v);

#endif

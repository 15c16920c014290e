/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The origin's tree as the mount shows it, kept in the index so that it is
 * local, persistent and not in memory: a hundred million files need a
 * hundred million records of some 90 bytes on disk and nothing else.
 *
 * Node ids
 *   The root is 1. A directory's entries get consecutive ids in byte order of
 *   their names when it is first listed, so that a directory is a range of
 *   ids (ns_ranges) and readdir a sequential scan. An id stands for one file
 *   under one version: when the origin's file is found changed, its name gets
 *   a new id and the old id stays valid for whoever has it open until the
 *   mount ends. Ids are never used again. st_ino (ns_attr.st_ino) is the first
 *   id a name had and does not change with the version.
 *
 * Guarantees
 *   (A) an id returned by any call was committed before the call returned;
 *   (B) within meta_ttl of a listing every lookup in that directory, of
 *       absent names too, is answered without the origin, unless attributes of
 *       an entry could not be had: then no name is known to be absent;
 *   (C) an id's size and version never change.
 *
 * Every call may be made from any thread. With NS_NOWAIT a call that would
 * have to ask the origin returns -EAGAIN instead and never blocks for long;
 * without it, it may block on the origin (no lock is held while it does, and
 * concurrent askers for the same directory or file wait for one request).
 */
#ifndef HOPPER_CACHE_NAMESPACE_H
#define HOPPER_CACHE_NAMESPACE_H

#include <stddef.h>
#include <stdint.h>
#include "cache/origin/origin.h"

#define NS_ROOT 1ULL

enum ns_flags {
	NS_NOWAIT = 1,     /* -EAGAIN rather than ask the origin */
	NS_NOCHECK = 2,    /* what is known is good enough, however old; for the prefetcher */
};

/* An access ACL, as system.posix_acl_access has it. */
struct ns_acl {
	uint32_t len;          /* bytes */
	uint8_t bytes[];
};

struct ns_attr {
	uint64_t ino;          /* node id */
	uint64_t st_ino;       /* what stat(2) shows */
	uint64_t parent;
	uint32_t mode, uid, gid, nlink;
	uint64_t rdev;
	const struct ns_acl *acl;    /* NULL: what mode says is all; kept until ns_close() */
	struct version version;      /* of a directory: its own times, size as stat(2) shows it */
	uint64_t fresh_ns;           /* how long it may still be believed without asking */
};

struct ns_config {
	uint64_t meta_ttl_ns;
	bool check_data_on_open;     /* data_check=open; else versions are believed for ever */
	uint64_t ids_from;           /* no id below is given out anew: there may be bytes under it */
};

struct ns;
struct store;

int ns_open(struct store *store, struct origin *origin, const struct ns_config *cfg,
	    struct stats *stats, struct ns **ret_ns);
void ns_close(struct ns *ns);

/* A number drawn when the first id was given out: ids of another generation are other files'. */
uint64_t ns_generation(const struct ns *ns);

/*
 * While the origin is down (cache/origin/health.h) nothing is asked that is
 * known: names, attributes and listings past meta_ttl are shown as they were.
 */

/* -ENOENT (known absent), -EAGAIN, -ENOTDIR, -ENAMETOOLONG, or the origin's error. */
int ns_lookup(struct ns *ns, uint64_t parent, const char *name, unsigned flags,
	      struct ns_attr *ret_attr);

/* Attributes of an id; past meta_ttl revalidated. An id that was superseded keeps its own. */
int ns_getattr(struct ns *ns, uint64_t ino, unsigned flags, struct ns_attr *ret_attr);

/*
 * For open(2) of a regular file: past meta_ttl the origin is asked whether
 * the file is still this version. -ESTALE if it is not (the caller passes
 * that on: the kernel looks the name up again and finds the new id).
 */
int ns_check(struct ns *ns, uint64_t ino, unsigned flags, struct ns_attr *ret_attr);

/* Make sure the directory's listing is there and not older than meta_ttl. */
int ns_list(struct ns *ns, uint64_t dir, unsigned flags);

/*
 * Entries in order of their ids, those with id > @after. Stops when @emit
 * returns non-zero (that value is returned) or at the end (0). The id is the
 * stable readdir cookie. @emit runs inside a read transaction and must not call ns_*.
 */
int ns_readdir(struct ns *ns, uint64_t dir, uint64_t after,
	       int (*emit)(void *arg, const char *name, const struct ns_attr *attr), void *arg);

/* The target of a symbolic link. -EAGAIN with NS_NOWAIT and not read yet, -ENAMETOOLONG, or the origin's error. */
int ns_readlink(struct ns *ns, uint64_t ino, unsigned flags, char *buf, size_t size);

/* Path of an id relative to the origin's root ("" is the root). -ENOENT, -ENAMETOOLONG. */
int ns_path(struct ns *ns, uint64_t ino, char *buf, size_t size);

/*
 * A reader found that the file behind @ino is no longer this version: forget
 * that it was fresh, so that the next lookup or check asks the origin.
 */
void ns_distrust(struct ns *ns, uint64_t ino);

/* Ids of a listed directory's entries as ranges [first, first+count), ascending. Returns how many (may exceed max), or negative errno. */
struct ns_range {
	uint64_t first, count;
};
long ns_ranges(struct ns *ns, uint64_t dir, struct ns_range *ret_range, size_t max);

/* Does anything that is known, or was, have an ACL? */
bool ns_has_acls(struct ns *ns);

/* Records known and bytes of memory held, for the statistics. */
uint64_t ns_inodes(struct ns *ns);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which open files the kernel reads from the cache's own files, without us.
 *
 * The kernel has a mode for each inode as long as some handle of it is open,
 * and fails an open that does not fit it. So a table of the open files larger than
 * an extent says how each was opened first, and the later ones follow:
 *
 *   (absent) --open--> DECIDING --+--> KERNEL  one backing id, all opens get it
 *       ^                         +--> DAEMON  the object was not complete, or not allowed
 *       +------ last release ---------+
 *
 *   (A) while a handle is open, every open of the inode is answered in the same mode;
 *   (B) one backing id for an inode, closed after its last release;
 *   (C) a KERNEL object stays in the cache as it is: cache_whole_fd() .. cache_whole_end();
 *   (D) a handle that the kernel has is counted in the passthrough_table, which outlives this process: counted before
 *       the open is answered, and until the release is. Who takes over from a process that was killed
 *       keeps to its modes, so (A) and (B) hold over its death. An open whose answer the death prevented is replayed
 *       and counted twice: that file stays open in the kernel until the mount ends.
 *
 * Any thread.
 */
#ifndef HOPPER_FS_PASSTHROUGH_H
#define HOPPER_FS_PASSTHROUGH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "cache/cache.h"

struct passthrough;

enum { PASSTHROUGH_OPENS = 1 << 16 };   /* files open at once; 16 bytes each, touched as they are used */

struct passthrough_entry {
	uint64_t ino;
	int32_t id;                  /* the backing id; 0: the daemon serves it */
	_Atomic uint32_t count;      /* handles; 0: the entry is free. Set after the others, cleared first */
};

struct passthrough_table {
	_Atomic bool is_closed;      /* what is open is not all here, so no file may change its mode any more */
	_Atomic uint32_t used;       /* no entry from here on was ever in use */
	struct passthrough_entry entry[PASSTHROUGH_OPENS];
};

/* @table, borrowed: zeroed, or what an earlier process left. -ENOMEM. */
int passthrough_new(struct cache *cache, struct passthrough_table *table, struct passthrough **ret_passthrough);
void passthrough_free(struct passthrough *p);

/*
 * The kernel agreed: try on @device_fd (borrowed) whether we may. 0, or why not: -EPERM without CAP_SYS_ADMIN.
 * Before the first open, or never.
 */
int passthrough_enable(struct passthrough *p, int device_fd);
bool passthrough_is_on(struct passthrough *p);

/*
 * How to answer an open: *ret_id is a backing id, or 0 if the daemon serves this one. Each success is undone by
 * passthrough_release(). -EAGAIN: call again with @may_block. -ENOMEM.
 */
int passthrough_open(struct passthrough *p, const struct ns_attr *attr, bool may_block, int32_t *ret_id);

/* After the kernel was answered. Of a file that is not in the table: does nothing. */
void passthrough_release(struct passthrough *p, uint64_t ino);

#endif

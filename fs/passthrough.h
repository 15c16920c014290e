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
 *   (C) a KERNEL object stays in the cache as it is: cache_whole_fd() .. cache_whole_end().
 *
 * Any thread.
 */
#ifndef HOPPER_FS_PASSTHROUGH_H
#define HOPPER_FS_PASSTHROUGH_H

#include <stdbool.h>
#include <stdint.h>
#include "cache/cache.h"

struct passthrough;

int passthrough_new(struct cache *cache, struct passthrough **ret_passthrough);
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

/* Of a file that is not in the table: does nothing. */
void passthrough_release(struct passthrough *p, uint64_t ino);

#endif

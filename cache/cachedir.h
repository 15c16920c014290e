/* SPDX-License-Identifier: Apache-2.0 */
/* A cache directory is ours alone: 0700, tagged with the origin it belongs to, locked while in use. */
#ifndef HOPPER_CACHE_CACHEDIR_H
#define HOPPER_CACHE_CACHEDIR_H

#include <stdbool.h>
#include <stddef.h>

#define CACHEDIR_TAG "hopperfs-cache"      /* the file that says whose the directory is */

struct cachedir {
	int fd;           /* of the directory; owned */
	int lock_fd;      /* owned; the lock lasts as long as it is open */
	bool is_copy;     /* it was made elsewhere, and what it is a copy of may be in use */
};

/* Create @path and what is missing above it, with the privileges that takes. 0 if it is there, or negative errno. */
int cachedir_make(const char *path);

/*
 * Create or check @path for the origin named @identity, and lock it. On error
 * negative errno and one line for the user in @msg: -EEXIST it is somebody
 * else's, another origin's, or within a cache, -EPERM its owner or mode is wrong, -EBUSY it is
 * in use, -EINVAL it is of another format.
 */
int cachedir_open(const char *path, const char *identity, struct cachedir *ret, char *msg, size_t msg_size);

/* A copy is from now on a cache directory like any other. 0 or negative errno. */
int cachedir_adopt(struct cachedir *d, const char *identity);

void cachedir_close(struct cachedir *d);

#endif

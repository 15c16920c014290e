/* SPDX-License-Identifier: Apache-2.0 */
/* A cache directory is ours alone: 0700, tagged with the origin it belongs to, locked while in use. */
#ifndef HOPPER_CACHE_CACHEDIR_H
#define HOPPER_CACHE_CACHEDIR_H

#include <stddef.h>

struct cachedir {
	int fd;           /* of the directory; owned */
	int lock_fd;      /* owned; the lock lasts as long as it is open */
};

/*
 * Create or check @path for the origin named @identity, and lock it. On error
 * negative errno and one line for the user in @msg: -EEXIST it is somebody
 * else's or another origin's, -EPERM its owner or mode is wrong, -EBUSY it is
 * in use, -EINVAL it is of another format.
 */
int cachedir_open(const char *path, const char *identity, struct cachedir *ret, char *msg, size_t msg_size);
void cachedir_close(struct cachedir *d);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The FUSE device, opened and mounted by us: with privileges by mount(2), else
 * through fusermount3. A descriptor of our own is what lets another process take the mount over.
 */
#ifndef HOPPER_FS_DEVICE_H
#define HOPPER_FS_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

struct device_config {
	const char *source;          /* shown as the mounted device */
	const char *mountpoint;      /* absolute */
	bool allow_other;
	bool is_read_only;           /* for the kernel: control attributes cannot be set then */
};

/* Returns a descriptor, or negative errno with one line in @msg. A dead mount of ours there is removed first. */
int device_mount(const struct device_config *cfg, char *msg, size_t msg_size);

/* Lazily if it is busy. Harmless if it is not mounted any more. */
void device_unmount(const char *mountpoint);

/* What says, in KiB, how far the kernel reads ahead on the mount: a descriptor, or negative errno; for root alone. */
int device_open_read_ahead(const char *mountpoint);

/*
 * How deep a file system stands that reads from @dir: 1, or 2 where @dir itself is in one that reads from another (an
 * overlay, FUSE), as in containers. The kernel allows 2.
 */
unsigned device_stack_depth(const char *dir);

#endif

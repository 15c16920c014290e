/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POSIX ACLs of the origin, which the kernel follows for us or which the mode has to stand for.
 *
 * To follow them (FUSE_CAP_POSIX_ACL) the kernel asks for the ACL of each file that another than its owner opens, once; but
 * for the root's each time, as it is made before the kernel knows that there are any. So it is told to only where there are: the
 * root has one, or the index knows of some, or acl=on. Else, until the next mount, a file with an ACL shows a mode that gives
 * nobody more than the ACL does.
 */
#ifndef HOPPER_FS_ACL_H
#define HOPPER_FS_ACL_H

#include <stdbool.h>
#include <stdint.h>

struct fs;
struct ns_attr;

/* Is the kernel to follow them? Once for each mount, when it asks (INIT); a daemon that takes over finds it decided. */
bool acl_follow(struct fs *fs);

/* The mode to show. */
uint32_t acl_mode(struct fs *fs, const struct ns_attr *attr);

#endif

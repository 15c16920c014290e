/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far the kernel reads ahead in a file.
 *
 * An open file takes the distance over from its mount's device (read_ahead_kb in sysfs, root's) at the end of its open,
 * after the file system's own answer. It is set before that answer, so a file that is read by records at random is
 * opened with a short one and its neighbour with a long one. Of two opens at once, one may get the other's: slower, not wrong.
 */
#ifndef HOPPER_FS_READAHEAD_H
#define HOPPER_FS_READAHEAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "cache/cache.h"

struct read_ahead {
	int fd;                      /* -1 where it cannot be set: not root, no sysfs */
	bool is_fixed;               /* the user gave it */
	uint32_t usual_kib;
	_Atomic uint32_t kib;        /* of the device now */
};

/* @bytes: as the user gave it, UINT64_MAX to choose per file. Blocks shortly; never fails: without the right to, nothing is set. */
void read_ahead_begin(struct read_ahead *r, const char *mountpoint, uint64_t bytes);
void read_ahead_end(struct read_ahead *r);

/* A file that is read so is about to be opened. Any thread; a system call where the last one was read otherwise. Returns whether it gets a short one. */
bool read_ahead_choose(struct read_ahead *r, enum access_pattern pattern);

/* What INIT is to answer at most, which is as far as an ordinary user's mount gets. Bytes. */
uint32_t read_ahead_most(uint64_t bytes);

#endif

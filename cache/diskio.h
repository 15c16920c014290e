/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The only room that knows io_uring: whole reads and writes at an offset,
 * completed on one thread. Where the kernel refuses a ring (old, or a
 * sandbox), a pool of threads does the same.
 */
#ifndef HOPPER_CACHE_DISKIO_H
#define HOPPER_CACHE_DISKIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "lib/pool.h"

struct cpus;
struct diskio;

/* One transfer; owned by the caller until done. */
struct diskio_op {
	int fd;                     /* not owned, open until done */
	bool is_write;
	void *buf;
	size_t len;
	size_t asked;               /* reads: >= len, for a file that is read in whole blocks and may end before one does; 0: len */
	uint64_t offset;
	/* 0 when all of len was transferred; -ENODATA at the end of the file; else negative errno. */
	void (*done)(struct diskio_op *op, int err);

	/* private */
	size_t moved;
	struct diskio *io;
	struct work work;
};

/*
 * @use_threads skips the ring (tests). @name is its threads' (not owned, at most 15 characters). They, and the kernel's for
 * the ring, run on @cpus (borrowed; NULL: anywhere). Returns 0 or negative errno.
 */
int diskio_new(bool use_threads, const char *name, const struct cpus *cpus, struct diskio **ret_io);

/* Waits for what is in flight. */
void diskio_free(struct diskio *io);

/* Never blocks for the transfer; done is never called from within. */
void diskio_submit(struct diskio *io, struct diskio_op *op);

bool diskio_is_uring(const struct diskio *io);

#endif

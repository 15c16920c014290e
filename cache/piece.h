/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pieces: extents of any place and length, for files that are read by records
 * (HDF5 data sets, token files). A record that is missing from a full cache is
 * fetched as it is asked for, not with the 1 MiB around it, and kept in
 * memory alone until it was read. This finds the piece that holds a range.
 *
 * Locked by the owner (cache->lock).
 */
#ifndef HOPPER_CACHE_PIECE_H
#define HOPPER_CACHE_PIECE_H

#include <stdint.h>
#include "lib/map64.h"

struct extent;

struct pieces {
	struct map64 files;          /* ino -> struct file_pieces, owned */
};

/* The piece of @ino with all of [offset, offset + len), or NULL. */
struct extent *piece_find(const struct pieces *p, uint64_t ino, uint64_t offset, uint32_t len);

/* Returns 0 or -ENOMEM. The piece is borrowed until piece_remove(). */
int piece_add(struct pieces *p, struct extent *x);
void piece_remove(struct pieces *p, struct extent *x);

/* Calls @each for the pieces of @ino that touch [start, end), for some more than once; it must not add or remove any. */
void piece_each(const struct pieces *p, uint64_t ino, uint64_t start, uint64_t end,
		void (*each)(void *arg, struct extent *x), void *arg);

/* Some piece, or NULL when there is none left. */
struct extent *piece_any(const struct pieces *p);

/* Releases the table; every piece was removed. */
void pieces_clear(struct pieces *p);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers inside large files. A stream that moves forward gets a window of
 * extents ahead of it, doubled when the reader stalls; one that jumps loses
 * it. Locked by the owner.
 */
#ifndef HOPPER_PREFETCH_STREAM_H
#define HOPPER_PREFETCH_STREAM_H

#include <stdbool.h>
#include <stdint.h>
#include "lib/map64.h"

struct observation;

enum {
	STREAM_WINDOW_FIRST = 4,     /* extents: two round trips of 10 ms at 200 MB/s */
	STREAM_WINDOW_MAX = 32,
	STREAMS_MAX = 4096,          /* the table starts anew beyond that */
};

struct streams {
	struct map64 by_ino;         /* of struct stream, owned */
	uint64_t *ready;             /* inos with something to fetch; owned */
	unsigned ready_count, ready_max;
};

/* The file was opened: it is about to be read from its beginning. */
void streams_open(struct streams *s, uint64_t ino, uint64_t size, uint64_t now_ns);

/* A read was seen. Returns how many extents fetched ahead it was the first to touch. */
unsigned streams_read(struct streams *s, const struct observation *o, uint64_t size);

/* The first extent of the file that its reader has not left behind; UINT32_MAX if nobody reads it in sequence now. */
uint32_t streams_at(const struct streams *s, uint64_t ino, uint64_t now_ns);

/* The next extent to fetch, if there is one. */
bool streams_next(struct streams *s, uint64_t *ret_key, uint64_t *ret_size);

/* The place of the reader of file @ino, -1 if unknown. */
int streams_place(const struct streams *s, uint64_t ino);

void streams_clear(struct streams *s);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packed extents: large files to which slots are appended, and from which
 * they are freed by punching holes. A segment is never appended to again
 * after a restart, and is unlinked when its last slot is freed.
 *
 * No lock of its own: the disk tier's lock protects the tables; punching and
 * unlinking happen outside it.
 */
#ifndef HOPPER_CACHE_SEGMENT_H
#define HOPPER_CACHE_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "lib/map64.h"

#define SEGMENT_BYTES (256u << 20)
#define SLOT_BYTES 4096u

static inline uint64_t slot_round(uint64_t len)
{
	return (len + SLOT_BYTES - 1) & ~(uint64_t)(SLOT_BYTES - 1);
}

struct segment {
	uint32_t id;
	int fd;                   /* owned */
	int direct_fd;            /* the same without the page cache, or -1; owned */
	uint64_t live_bytes;      /* slots in use */
	bool is_settled;          /* written and synced, or of an earlier start: the page cache need not have it */
	unsigned busy;            /* transfers in flight and the open segment itself */
};

struct segments {
	int dir_fd;               /* DIR/segments; owned */
	struct map64 by_id;       /* of struct segment, owned */
	struct segment *open;     /* appended to, or NULL */
	uint64_t open_offset;
	uint32_t next_id;
};

int segments_open(struct segments *s, int cache_fd);
void segments_close(struct segments *s);

/* The segment, opened if it is not yet; NULL with errno-like *ret_err if it is not there. */
struct segment *segment_get(struct segments *s, uint32_t id, int *ret_err);

/* Its descriptor for O_DIRECT, opened if it is not yet; negative errno where there can be none. */
int segment_direct(struct segments *s, struct segment *g);

/* The segment that is appended to, or the next: lower numbers are not written to any more but by what is in flight. */
uint32_t segment_present(const struct segments *s);

/* A segment numbered lower than @before that was written to and is not settled yet, or NULL. */
struct segment *segment_unsettled(const struct segments *s, uint32_t before);

/* A slot of @len bytes; live and busy are counted. Negative errno on failure. */
int segment_alloc(struct segments *s, uint64_t len, struct segment **ret_segment, uint64_t *ret_offset);

/* Account a slot found in the index at start. */
int segment_adopt(struct segments *s, uint32_t id, uint64_t len);

/* Unlink the segment if nothing lives in it and nobody uses it. */
void segment_retire(struct segments *s, struct segment *g);

/* Remove files that no slot of the index names. Only while starting. */
void segments_sweep(struct segments *s);

#endif

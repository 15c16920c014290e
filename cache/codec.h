/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lz4 where it pays. In automatic mode a sample of the extent decides, and a
 * run of samples that did not pay makes samples rare, so that JPEG data costs
 * next to nothing.
 */
#ifndef HOPPER_CACHE_CODEC_H
#define HOPPER_CACHE_CODEC_H

#include <stdatomic.h>
#include <stddef.h>
#include "cache/disk.h"

enum codec_id { CODEC_RAW = 0, CODEC_LZ4 = 1 };

struct codec {
	enum disk_codec mode;         /* immutable */
	struct stats *stats;          /* not owned */
	_Atomic unsigned unpaid;      /* samples in a row that did not pay */
	_Atomic unsigned skipped;
};

/*
 * Compress @len bytes into a new buffer of 4-KiB multiple length (zero
 * padded), owned by the caller. Returns NULL if they are better kept raw.
 */
void *codec_compress(struct codec *c, const void *buf, size_t len, size_t *ret_stored);

/* Exactly @len bytes must come out. 0 or -EBADMSG. */
int codec_expand(enum codec_id id, const void *stored, size_t stored_len, void *buf, size_t len);

#endif

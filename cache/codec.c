/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/codec.h"
#include <errno.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "lib/clock.h"
#include "lib/stats.h"

enum {
	SAMPLE_BYTES = 16 * 1024,
	UNPAID_MAX = 16,          /* samples that may disappoint before they become rare */
	SAMPLE_EVERY = 32,        /* then one extent in so many is sampled */
	BLOCK = 4096,
};

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec;
}

/* Does the middle of the extent shrink by a fifth? Its head is often a header. */
static bool sample_pays(struct codec *c, const char *buf, size_t len)
{
	size_t n = len < SAMPLE_BYTES ? len : SAMPLE_BYTES;
	char out[LZ4_COMPRESSBOUND(SAMPLE_BYTES)];
	int got;

	if (atomic_load_explicit(&c->unpaid, memory_order_relaxed) >= UNPAID_MAX &&
	    atomic_fetch_add_explicit(&c->skipped, 1, memory_order_relaxed) % SAMPLE_EVERY)
		return false;
	got = LZ4_compress_default(buf + (len - n) / 2, out, (int)n, (int)sizeof(out));
	if (got > 0 && (size_t)got <= n - n / 5) {
		atomic_store_explicit(&c->unpaid, 0, memory_order_relaxed);
		return true;
	}
	atomic_fetch_add_explicit(&c->unpaid, 1, memory_order_relaxed);
	return false;
}

static void *compress_all(const void *buf, size_t len, size_t *ret_stored)
{
	size_t blocks = (len + BLOCK - 1) / BLOCK, max = (blocks - 1) * BLOCK, stored;
	char *out = max ? malloc(max) : NULL;
	int got;

	if (!out)
		return NULL;
	got = LZ4_compress_default(buf, out, (int)len, (int)max);
	if (got <= 0) {
		free(out);   /* does not save a block */
		return NULL;
	}
	stored = (size_t)got;
	memset(out + stored, 0, (BLOCK - stored % BLOCK) % BLOCK);
	*ret_stored = stored;
	return out;
}

void *codec_compress(struct codec *c, const void *buf, size_t len, size_t *ret_stored)
{
	uint64_t start;
	void *out = NULL;

	if (c->mode == DISK_CODEC_OFF || len <= BLOCK)
		return NULL;
	start = cpu_ns();
	if (c->mode == DISK_CODEC_LZ4 || sample_pays(c, buf, len)) {
		stats_add(c->stats, STAT_DISK_CODEC_IN_BYTES, len);
		out = compress_all(buf, len, ret_stored);
		stats_add(c->stats, STAT_DISK_CODEC_OUT_BYTES, out ? *ret_stored : len);
	}
	stats_add(c->stats, STAT_DISK_CODEC_NS, cpu_ns() - start);
	return out;
}

int codec_expand(enum codec_id id, const void *stored, size_t stored_len, void *buf, size_t len)
{
	if (id != CODEC_LZ4)
		return -EBADMSG;
	return LZ4_decompress_safe(stored, buf, (int)stored_len, (int)len) == (int)len ? 0 : -EBADMSG;
}

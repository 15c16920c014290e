/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/readahead.h"
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
#include "fs/device.h"

enum {
	USUAL_KIB = EXTENT_BYTES >> 10,   /* few requests for large files */
	SHORTLY_KIB = 16,                 /* of what others will read as little as may be, and not a request for each page */
	MOST_BYTES = 1 << 30,
};

uint32_t read_ahead_most(uint64_t bytes)
{
	return bytes == UINT64_MAX ? EXTENT_BYTES : bytes < MOST_BYTES ? (uint32_t)bytes : MOST_BYTES;
}

static void set(struct read_ahead *r, uint32_t kib)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u\n", kib);

	atomic_store(&r->kib, kib);
	if (r->fd >= 0 && pwrite(r->fd, text, (size_t)len, 0) != len)
		atomic_store(&r->kib, UINT32_MAX);   /* tried again at the next open */
}

void read_ahead_begin(struct read_ahead *r, const char *mountpoint, uint64_t bytes)
{
	r->is_fixed = bytes != UINT64_MAX;
	r->usual_kib = read_ahead_most(bytes) >> 10;
	r->fd = device_open_read_ahead(mountpoint);
	set(r, r->usual_kib);
}

bool read_ahead_choose(struct read_ahead *r, enum access_pattern pattern)
{
	uint32_t kib = pattern == PATTERN_MAPPED ? 0 : pattern == PATTERN_SHORT ? SHORTLY_KIB : r->usual_kib;

	if (r->fd < 0 || r->is_fixed)
		return false;
	if (atomic_load(&r->kib) != kib)
		set(r, kib);
	return kib < r->usual_kib;
}

void read_ahead_end(struct read_ahead *r)
{
	if (r->fd >= 0)
		close(r->fd);
	r->fd = -1;
}

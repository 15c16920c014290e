/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Next-fit over a bitmap of the pages handed out before, then above them:
 * extents are few sizes and short-lived, so runs are found near the hint.
 */
#include "cache/ram.h"
#include <errno.h>
#include <numa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "lib/parse.h"

enum { PAGE = 4096 };
#define RAM_LEAST (64ULL << 20)
#define HUGE_STEP ((64u << 20) / PAGE)   /* pages */

static uint64_t mem_available(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kib = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	}
	if (f)
		fclose(f);
	return (uint64_t)kib * 1024;
}

/* memory.max of our cgroup (version 2), UINT64_MAX without one. */
static uint64_t cgroup_limit(void)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[4096], path[4200], text[64] = "";
	uint64_t limit = UINT64_MAX;

	*path = 0;
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "0::", 3))
			snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", line + 3);
	}
	if (f)
		fclose(f);
	f = *path ? fopen(path, "re") : NULL;
	if (f && fgets(text, sizeof(text), f)) {
		text[strcspn(text, "\n")] = 0;
		if (parse_u64(text, &limit))
			limit = UINT64_MAX;
	}
	if (f)
		fclose(f);
	return limit;
}

uint64_t ram_auto_bytes(void)
{
	uint64_t bytes = mem_available() / 4, limit = cgroup_limit() / 2;

	if (bytes > limit)
		bytes = limit;
	return bytes > RAM_LEAST ? bytes : RAM_LEAST;
}

int ram_open(struct ram *r, uint64_t bytes, bool numa)
{
	memset(r, 0, sizeof(*r));
	r->pages = bytes / PAGE;
	r->used = calloc((r->pages + 63) / 64 + 1, sizeof(uint64_t));
	r->arena = mmap(NULL, r->pages * PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!r->used || r->arena == MAP_FAILED) {
		r->arena = r->arena == MAP_FAILED ? NULL : r->arena;
		ram_close(r);
		return -ENOMEM;
	}
	madvise(r->arena, r->pages * PAGE, MADV_DONTDUMP);
	if (numa && numa_available() >= 0 && numa_num_configured_nodes() > 1)
		numa_interleave_memory(r->arena, r->pages * PAGE, numa_all_nodes_ptr);
	return 0;
}

void ram_close(struct ram *r)
{
	if (r->arena)
		munmap(r->arena, r->pages * PAGE);
	free(r->used);
	memset(r, 0, sizeof(*r));
}

static bool is_used(const struct ram *r, size_t page)
{
	return r->used[page / 64] >> page % 64 & 1;
}

static void mark(struct ram *r, size_t first, size_t count, bool used)
{
	for (size_t p = first; p < first + count; p++) {
		if (used)
			r->used[p / 64] |= 1ULL << p % 64;
		else
			r->used[p / 64] &= ~(1ULL << p % 64);
	}
}

/* First page of a free run of @count within [from, to), or SIZE_MAX. */
static size_t find_run(const struct ram *r, size_t from, size_t to, size_t count)
{
	size_t run = 0;

	for (size_t p = from; p < to; p++) {
		if (p % 64 == 0 && r->used[p / 64] == UINT64_MAX) {
			run = 0;
			p += 63;
			continue;
		}
		run = is_used(r, p) ? 0 : run + 1;
		if (run == count)
			return p + 1 - count;
	}
	return SIZE_MAX;
}

/* Runs now reach page @end. What is well below has been written to. */
static void raise_top(struct ram *r, size_t end)
{
	r->top = end;
	while (r->top - r->huge >= 2 * HUGE_STEP) {
		madvise(r->arena + r->huge * PAGE, (size_t)HUGE_STEP * PAGE, MADV_HUGEPAGE);
		r->huge += HUGE_STEP;
	}
}

void *ram_alloc(struct ram *r, size_t len)
{
	size_t count = (len + PAGE - 1) / PAGE, at;

	if (r->used_pages + count > r->pages)
		return NULL;
	at = find_run(r, r->hint, r->top, count);
	if (at == SIZE_MAX && r->used_pages + count <= r->top)
		at = find_run(r, 0, r->top, count);
	if (at == SIZE_MAX)
		at = find_run(r, r->top > count ? r->top - count : 0, r->pages, count);
	if (at == SIZE_MAX)
		return NULL;
	mark(r, at, count, true);
	r->used_pages += count;
	r->hint = at + count;
	if (r->hint > r->top)
		raise_top(r, r->hint);
	return r->arena + at * PAGE;
}

void ram_free(struct ram *r, void *p, size_t len)
{
	size_t count = (len + PAGE - 1) / PAGE, at = (size_t)((char *)p - r->arena) / PAGE;

	mark(r, at, count, false);
	r->used_pages -= count;
}

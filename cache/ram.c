/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Next-fit over a bitmap of the pages handed out before, then above them:
 * extents are few sizes and short-lived, so runs are found near the hint.
 */
#include "cache/ram.h"
#include <errno.h>
#include <numaif.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "lib/log.h"

enum { PAGE = 4096 };
#define RAM_LEAST (64ULL << 20)
#define HUGE_STEP ((8u << 20) / PAGE)    /* pages */
#define TRIM_SLACK ((16u << 20) / PAGE)
#define TRIM_STEP ((64u << 20) / PAGE)   /* under the cache's lock: some milliseconds */

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

uint64_t ram_auto_bytes(void)
{
	uint64_t bytes = mem_available() / 4;

	return bytes > RAM_LEAST ? bytes : RAM_LEAST;
}

/* Have the kernel take the arena's pages from @nodes (bits), as @mode says. Without the right to (a container's seccomp): from where they are first touched. */
static void bind_pages(const struct arena *a, int mode, const struct cpus *nodes)
{
	if (mbind(a->memory, a->pages * PAGE, mode, nodes->bits, TOPOLOGY_NODES_MAX + 1, 0))
		log_info("memory cannot be bound to NUMA nodes: %m");
}

static int arena_open(struct arena *a, uint64_t bytes, int node)
{
	a->node = node;
	a->pages = a->bound = bytes / PAGE;
	a->used = calloc((a->pages + 63) / 64 + 1, sizeof(uint64_t));
	a->memory = mmap(NULL, a->pages * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (a->memory == MAP_FAILED)
		a->memory = NULL;
	if (!a->used || !a->memory)
		return -ENOMEM;
	madvise(a->memory, a->pages * PAGE, MADV_DONTDUMP);
	return 0;
}

static void node_add(struct cpus *nodes, int node)
{
	nodes->bits[(size_t)node / (8 * sizeof(nodes->bits[0]))] |= 1UL << (size_t)node % (8 * sizeof(nodes->bits[0]));
}

/* The share of @place in @bytes. */
static uint64_t share_of(const struct topology *t, unsigned place, uint64_t bytes)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < t->count; i++)
		all += t->place[i].memory_bytes;
	return all ? (uint64_t)((double)bytes * (double)t->place[place].memory_bytes / (double)all) : bytes / t->count;
}

static bool is_worth_dividing(const struct topology *t, uint64_t bytes)
{
	for (unsigned i = 0; i < t->count; i++) {
		if (share_of(t, i, bytes) < ARENA_LEAST)
			return false;
	}
	return t->count > 1;
}

static int open_one(struct ram *r, uint64_t bytes, const struct topology *t)
{
	struct cpus nodes = { { 0 } };
	int rc;

	r->count = 1;
	rc = arena_open(&r->arena[0], bytes, !t ? 0 : t->count == 1 ? t->place[0].node : -1);
	if (rc || !t || t->count == 1)
		return rc;
	for (unsigned i = 0; i < t->count; i++)
		node_add(&nodes, t->place[i].node);
	bind_pages(&r->arena[0], MPOL_INTERLEAVE, &nodes);
	return 0;
}

static int open_each(struct ram *r, uint64_t bytes, const struct topology *t)
{
	for (unsigned i = 0; i < t->count; i++) {
		struct cpus nodes = { { 0 } };
		int rc;

		r->count = i + 1;
		rc = arena_open(&r->arena[i], share_of(t, i, bytes), t->place[i].node);
		if (rc)
			return rc;
		node_add(&nodes, t->place[i].node);
		bind_pages(&r->arena[i], MPOL_PREFERRED, &nodes);
	}
	return 0;
}

int ram_open(struct ram *r, uint64_t bytes, const struct topology *t)
{
	int rc;

	memset(r, 0, sizeof(*r));
	rc = t && is_worth_dividing(t, bytes) ? open_each(r, bytes, t) : open_one(r, bytes, t);
	if (rc) {
		ram_close(r);
		return rc;
	}
	for (unsigned i = 0; i < r->count; i++)
		r->bound += r->arena[i].bound;
	return 0;
}

void ram_close(struct ram *r)
{
	for (unsigned i = 0; i < r->count; i++) {
		if (r->arena[i].memory)
			munmap(r->arena[i].memory, r->arena[i].pages * PAGE);
		free(r->arena[i].used);
	}
	memset(r, 0, sizeof(*r));
}

/* Pages within the limit in force. */
static size_t arena_free(const struct arena *a)
{
	return a->bound - (a->used_pages - a->beyond);
}

unsigned ram_home(const struct ram *r, int place)
{
	unsigned emptiest = 0;

	if (r->count == 1 || place >= (int)r->count)
		return 0;
	if (place >= 0)
		return (unsigned)place;
	for (unsigned i = 1; i < r->count; i++) {
		if (arena_free(&r->arena[i]) > arena_free(&r->arena[emptiest]))
			emptiest = i;
	}
	return emptiest;
}

int ram_node_of(const struct ram *r, unsigned at, void *p)
{
	int node;

	return get_mempolicy(&node, NULL, 0, p, MPOL_F_NODE | MPOL_F_ADDR) ? r->arena[at].node : node;
}

static bool is_used(const struct arena *a, size_t page)
{
	return a->used[page / 64] >> page % 64 & 1;
}

static void mark(struct arena *a, size_t first, size_t count, bool used)
{
	for (size_t p = first; p < first + count; p++) {
		if (used)
			a->used[p / 64] |= 1ULL << p % 64;
		else
			a->used[p / 64] &= ~(1ULL << p % 64);
	}
}

/* First page of a free run of @count within [from, to), or SIZE_MAX. */
static size_t find_run(const struct arena *a, size_t from, size_t to, size_t count)
{
	size_t run = 0;

	for (size_t p = from; p < to; p++) {
		if (p % 64 == 0 && a->used[p / 64] == UINT64_MAX) {
			run = 0;
			p += 63;
			continue;
		}
		run = is_used(a, p) ? 0 : run + 1;
		if (run == count)
			return p + 1 - count;
	}
	return SIZE_MAX;
}

/* Runs now reach page @end. What is well below has been written to. */
static void raise_top(struct arena *a, size_t end)
{
	a->top = end;
	while (a->top - a->huge >= 2 * HUGE_STEP) {
		madvise(a->memory + a->huge * PAGE, (size_t)HUGE_STEP * PAGE, MADV_HUGEPAGE);
		a->huge += HUGE_STEP;
	}
}

/* Of a run's pages, how many are beyond the limit in force. */
static size_t beyond_of(const struct arena *a, size_t first, size_t count)
{
	size_t end = first + count;

	return end <= a->bound ? 0 : end - a->bound < count ? end - a->bound : count;
}

/* Pages [@from, @to) are free: they need not be resident. */
static void give_back(struct arena *a, size_t from, size_t to)
{
	madvise(a->memory + from * PAGE, (to - from) * PAGE, MADV_DONTNEED);
}

void *ram_alloc(struct ram *r, unsigned at, size_t len)
{
	struct arena *a = &r->arena[at];
	size_t count = (len + PAGE - 1) / PAGE, run;

	if (count > arena_free(a))
		return NULL;
	run = find_run(a, a->hint, a->top, count);
	if (run == SIZE_MAX && a->used_pages - a->beyond + count <= a->top)
		run = find_run(a, 0, a->top, count);
	if (run == SIZE_MAX)
		run = find_run(a, a->top > count ? a->top - count : 0, a->bound, count);
	if (run == SIZE_MAX)
		return NULL;
	mark(a, run, count, true);
	a->used_pages += count;
	r->used_pages += count;
	a->peak = a->used_pages > a->peak ? a->used_pages : a->peak;
	a->hint = run + count;
	a->reached = a->hint > a->reached ? a->hint : a->reached;
	if (a->hint > a->top)
		raise_top(a, a->hint);
	return a->memory + run * PAGE;
}

void ram_free(struct ram *r, unsigned at, void *p, size_t len)
{
	struct arena *a = &r->arena[at];
	size_t count = (len + PAGE - 1) / PAGE, first = (size_t)((char *)p - a->memory) / PAGE;
	size_t beyond = beyond_of(a, first, count);

	mark(a, first, count, false);
	a->used_pages -= count;
	r->used_pages -= count;
	a->beyond -= beyond;
	r->beyond -= beyond;
	if (first + count > a->top)
		give_back(a, first > a->top ? first : a->top, first + count);
}

/* ---- huge pages ---- */

bool ram_has_small(const struct ram *r)
{
	for (unsigned i = 0; i < r->count; i++) {
		if (r->arena[i].collapsed < r->arena[i].huge)
			return true;
	}
	return false;
}

void *ram_small(struct ram *r, size_t *ret_len)
{
	for (unsigned i = 0; i < r->count; i++) {
		struct arena *a = &r->arena[i];
		size_t first = a->collapsed;

		if (first == a->huge)
			continue;
		a->collapsed = a->huge - first < HUGE_STEP ? a->huge : first + HUGE_STEP;
		*ret_len = (a->collapsed - first) * PAGE;
		return a->memory + first * PAGE;
	}
	return NULL;
}

void ram_collapse(void *p, size_t len)
{
#ifdef MADV_COLLAPSE
	/* Linux 6.1; what it cannot take now (the disk writes to it) is left to khugepaged */
	madvise(p, len, MADV_COLLAPSE);
#else
	(void)p;
	(void)len;
#endif
}

/* ---- given back to the kernel ---- */

static void give_back_free(struct arena *a, size_t from, size_t to)
{
	size_t first = from;

	for (size_t p = from; p < to; p++) {
		if (!is_used(a, p))
			continue;
		if (first < p)
			give_back(a, first, p);
		first = p + 1;
	}
	if (first < to)
		give_back(a, first, to);
}

static void lower_top(struct arena *a, size_t top)
{
	give_back_free(a, top, a->top);
	a->top = top;
	a->huge = a->huge < top ? a->huge : top;
	a->collapsed = a->collapsed < top ? a->collapsed : top;
	a->hint = a->hint < top ? a->hint : 0;
}

static void arena_trim(struct arena *a, bool is_new)
{
	size_t peak = a->peak > a->last_peak ? a->peak : a->last_peak, keep = peak + peak / 8 + TRIM_SLACK;

	if (keep < a->top)
		lower_top(a, a->top - keep < TRIM_STEP ? keep : a->top - TRIM_STEP);
	if (!is_new)
		return;
	a->last_peak = a->peak;
	a->peak = a->used_pages;
}

void ram_trim(struct ram *r, bool is_new)
{
	for (unsigned i = 0; i < r->count; i++)
		arena_trim(&r->arena[i], is_new);
}

static void arena_set_bound(struct arena *a, size_t bound)
{
	if (bound == a->bound)
		return;
	a->bound = bound;
	a->beyond = 0;
	for (size_t p = bound; p < a->reached; p++)
		a->beyond += is_used(a, p);
	if (a->top <= bound)
		return;
	lower_top(a, bound);
}

bool ram_set_limit(struct ram *r, uint64_t bytes)
{
	size_t was = r->bound, all = 0, limit, before = 0, given = 0;

	for (unsigned i = 0; i < r->count; i++)
		all += r->arena[i].pages;
	limit = bytes / PAGE < all ? bytes / PAGE : all;
	r->bound = r->beyond = 0;
	for (unsigned i = 0; i < r->count; i++) {
		struct arena *a = &r->arena[i];
		size_t bound;

		before += a->pages;
		bound = (size_t)((double)before * (double)limit / (double)all) - given;
		given += bound;
		if (bound < ARENA_LEAST / PAGE)
			bound = ARENA_LEAST / PAGE < a->pages ? ARENA_LEAST / PAGE : a->pages;
		arena_set_bound(a, bound);
		r->bound += a->bound;
		r->beyond += a->beyond;
	}
	return r->bound != was;
}

bool ram_is_beyond(const struct ram *r, unsigned at, const void *p, size_t len)
{
	const struct arena *a = &r->arena[at];

	return beyond_of(a, (size_t)((const char *)p - a->memory) / PAGE, (len + PAGE - 1) / PAGE) > 0;
}

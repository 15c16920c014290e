/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/records.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "prefetch/prefetch.h"

enum {
	PAGE = 4096,
	SLACK = 128 * 1024,          /* requests of one access arrive out of order by as much: the kernel's read-ahead */
	LEAST_BYTES = 4 * PAGE,      /* of shorter ones it is not seen where they begin */
	MOST_BYTES = 1 << 20,
	SEQUENTIAL_BYTES = 4 << 20,  /* read in one run: not by records */
	INEXACT = 128,               /* bytes by which a record may lie off what few accesses tell */
	SHORT_BYTES = 256 * 1024,    /* of an access for which the kernel need not read ahead far */
	FIT_OF = 16,                 /* one access in so many may begin elsewhere (its head was in the page cache) */
};

struct records *records_new(uint64_t ino, uint64_t size)
{
	struct records *r = calloc(1, sizeof(*r));

	if (r)
		r->seen = calloc(RECORDS_MAX, sizeof(*r->seen));
	if (!r || !r->seen) {
		free(r);
		return NULL;
	}
	r->ino = ino;
	r->size = size;
	return r;
}

void records_free(struct records *r)
{
	if (r)
		free(r->seen);
	free(r);
}

/* ---- the geometry ---- */

/*
 * With records of @bytes, where within them do the accesses begin? Counts those within one page from the
 * best place on, *ret_phase, by counters of half a page.
 */
static uint32_t fit(const struct access *seen, uint32_t n, uint64_t bytes, uint64_t *ret_phase)
{
	enum { BIN = PAGE / 4, BINS_MAX = MOST_BYTES / BIN + 2 };
	static const uint32_t span = PAGE / BIN;
	uint8_t bin[BINS_MAX] = { 0 };
	uint32_t bins = (uint32_t)((bytes + BIN - 1) / BIN), best = 0, sum = 0, at = 0;

	for (uint32_t i = 0; i < n; i++)
		bin[seen[i].start % bytes / BIN] += bin[seen[i].start % bytes / BIN] < UINT8_MAX;
	for (uint32_t k = 0; k < bins + span; k++) {
		sum += bin[k % bins];
		sum -= k > span ? bin[(k - span - 1) % bins] : 0;
		if (k >= span && sum > best) {
			best = sum;
			at = (k - span) % bins;
		}
	}
	*ret_phase = (uint64_t)at * BIN;
	return best;
}

/*
 * Can it be records of @bytes? Of the very many lengths that it cannot be, some accesses tell so at once: seen from one
 * that is not off itself (of three, one is), too many lie off. fit() takes a hundred times as long.
 */
static bool may_fit(const struct access *seen, uint32_t n, uint64_t bytes)
{
	enum { LOOKS = 64, NEAR = 2 * PAGE };
	uint32_t looks = n < LOOKS ? n : LOOKS, allowed = 2 * looks / FIT_OF;

	for (uint32_t from = 0; from < 3; from++) {
		uint64_t start = seen[from * (n - 1) / 2].start;
		uint32_t off = 0;

		for (uint32_t i = 0; i < looks && off <= allowed; i++) {
			uint64_t at = seen[(uint64_t)i * n / looks].start;
			uint64_t apart = (at > start ? at - start : start - at) % bytes;

			off += apart > NEAR && apart < bytes - NEAR;
		}
		if (off <= allowed)
			return true;
	}
	return false;
}

static bool fits(const struct access *seen, uint32_t n, uint64_t bytes)
{
	uint64_t phase;

	return may_fit(seen, n, bytes) && fit(seen, n, bytes, &phase) >= n - n / FIT_OF;
}

/* How well a straight line of slope @bytes goes through the accesses' beginnings. */
struct line {
	uint64_t bytes;
	int64_t base;                /* below all that are on it */
	uint64_t spread;             /* by which they are above that */
	uint32_t on;                 /* accesses that are on it, by the numbers that @g gives them */
};

static struct line line_through(const struct access *seen, uint32_t n, const struct geometry *g, uint64_t bytes, uint64_t within)
{
	int64_t low = INT64_MAX, high = INT64_MIN;
	struct line l = { .bytes = bytes };

	for (uint32_t i = 0; i < n; i++) {
		int64_t from = (int64_t)seen[i].start - g->base + INEXACT;
		int64_t begin = (int64_t)seen[i].start - from / (int64_t)g->bytes * (int64_t)bytes;

		if (from < 0 || (uint64_t)from % g->bytes >= within)
			continue;
		l.on++;
		low = begin < low ? begin : low;
		high = begin > high ? begin : high;
	}
	l.base = low;
	l.spread = (uint64_t)(high - low);
	return l;
}

/* Few accesses are explained by neighbouring lengths as well: the one with which they lie closest together. */
static void refine(const struct access *seen, uint32_t n, uint64_t low, uint64_t high, uint64_t within, struct geometry *g)
{
	const struct geometry first = *g;
	struct line best = { .spread = UINT64_MAX };

	for (uint64_t bytes = low; bytes <= high; bytes++) {
		struct line l = line_through(seen, n, &first, bytes, within);

		if (l.on && l.spread < best.spread)
			best = l;
	}
	if (best.on) {
		g->bytes = best.bytes;
		g->base = best.base;
		g->spread = (uint32_t)best.spread;
	}
}

static int by_length(const void *a, const void *b)
{
	const struct access *x = a, *y = b;
	uint64_t m = x->end - x->start, n = y->end - y->start;

	return m < n ? -1 : m > n;
}

/* A length that most accesses do not exceed. */
static uint64_t usual_length(const struct access *seen, uint32_t n)
{
	struct access copy[RECORDS_MAX];

	memcpy(copy, seen, n * sizeof(*copy));
	qsort(copy, n, sizeof(*copy), by_length);
	return copy[n - 1 - n / FIT_OF].end - copy[n - 1 - n / FIT_OF].start;
}

static int geometry_of(const struct access *seen, uint32_t n, uint64_t size, uint64_t most, struct geometry *ret)
{
	uint64_t phase, high, low;

	if (most > MOST_BYTES || most < LEAST_BYTES)
		return -ENOENT;
	for (high = most; high >= LEAST_BYTES && !fits(seen, n, high); high--)
		;
	if (high < LEAST_BYTES)
		return -ENOENT;
	/* few accesses are explained by neighbouring lengths as well: the middle of them is within all of them */
	for (low = high; low > LEAST_BYTES && fits(seen, n, low - 1); low--)
		;
	ret->bytes = (high + low) / 2;
	fit(seen, n, ret->bytes, &phase);
	ret->base = (int64_t)phase - (phase + 2 * PAGE > ret->bytes ? (int64_t)ret->bytes : 0);
	/* first roughly, with what is likely to be on it; then with all that are */
	refine(seen, n, low, high, PAGE + PAGE / 2, ret);
	refine(seen, n, ret->bytes - 4, ret->bytes + 4, PAGE + 2 * INEXACT, ret);
	ret->count = ((uint64_t)((int64_t)size - ret->base)) / ret->bytes;
	ret->fetch_bytes = (uint32_t)most;
	return ret->count >= n && ret->count <= UINT32_MAX ? 0 : -ENOENT;
}

static bool is_around(uint64_t start, uint64_t bytes)
{
	return bytes == RECORDS_AROUND && start;   /* at the beginning of the file there is less before the fault */
}

/* The accesses that may have been read around faults, from where the faults were; returns how many. */
static uint32_t faults_among(const struct access *seen, uint32_t n, struct access *ret)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (!is_around(seen[i].start, seen[i].first_bytes))
			continue;
		ret[count] = seen[i];
		ret[count++].start += RECORDS_AROUND / 2;
	}
	return count;
}

int records_geometry(const struct access *seen, uint32_t n, uint64_t size, struct geometry *ret)
{
	struct access fault[RECORDS_MAX];
	uint32_t faults;

	*ret = (struct geometry){ 0 };
	if (n > RECORDS_MAX || n < 4)
		return -ENOENT;
	faults = faults_among(seen, n, fault);
	/* records that are as long are asked for so when they are read, too: where they begin is told by the requests */
	if (faults > n / 2 && !geometry_of(fault, faults, size, RECORDS_AROUND, ret) && ret->bytes < RECORDS_AROUND / 4 * 3) {
		ret->fetch_bytes = (uint32_t)((ret->bytes + PAGE - 1) / PAGE * PAGE);
		ret->is_mapped = true;
		return 0;
	}
	*ret = (struct geometry){ 0 };
	return geometry_of(seen, n, size, usual_length(seen, n), ret);
}

uint64_t records_wanted(const struct geometry *g, uint64_t start, uint64_t bytes)
{
	return g->is_mapped && is_around(start, bytes) ? start + RECORDS_AROUND / 2 : start;
}

uint64_t records_index(const struct geometry *g, uint64_t offset)
{
	int64_t from = (int64_t)offset - g->base + INEXACT;
	uint64_t i = from < 0 ? 0 : (uint64_t)from / g->bytes;

	return i < g->count ? i : g->count;
}

/* Less than a page apart, the highest of the beginnings tells the page of each; else they are known about so. */
static bool is_exact(const struct geometry *g)
{
	return g->spread < PAGE;
}

static int64_t first_page(const struct geometry *g, uint64_t i)
{
	return (g->base + (int64_t)g->spread + (int64_t)(i * g->bytes)) / PAGE * PAGE;
}

uint64_t records_beginning(const struct geometry *g, uint64_t offset)
{
	int64_t from = (int64_t)offset - g->base + INEXACT;
	uint64_t i = records_index(g, offset);

	if (from < 0)
		return g->count;
	/* the page that it has in common with the record before may be in the kernel's page cache */
	if (is_exact(g))
		return (int64_t)offset <= first_page(g, i) + PAGE ? i : g->count;
	return (uint64_t)from % g->bytes < PAGE + 2 * INEXACT ? i : g->count;
}

void records_range(const struct records *r, uint64_t i, uint64_t *ret_start, uint64_t *ret_end)
{
	const struct geometry *g = &r->geometry;
	int64_t low = g->base + (int64_t)(i * g->bytes), from = is_exact(g) ? first_page(g, i) : low - INEXACT;
	uint64_t begin = from < 0 ? 0 : (uint64_t)from / PAGE * PAGE;
	uint64_t end = begin + g->fetch_bytes + (is_exact(g) ? 0 : 2 * PAGE);

	if (is_exact(g) && (g->is_mapped || end > (uint64_t)low + g->bytes + 2 * PAGE - 1))
		end = ((uint64_t)low + g->bytes + 2 * PAGE - 1) / PAGE * PAGE;
	*ret_start = begin;
	*ret_end = end < r->size ? end : r->size;
}

void records_layout(const struct geometry *g, struct cache_pattern *ret)
{
	ret->base = g->base - INEXACT;
	ret->stride = g->bytes;
	ret->record_len = g->fetch_bytes + 2 * PAGE;
}

/* ---- accesses ---- */

static struct access *reader_of(struct records *r, uint32_t pid)
{
	for (uint32_t i = 0; i < r->readers; i++) {
		if (r->reader[i].pid == pid)
			return &r->reader[i];
	}
	/* one of many: the place of another */
	if (r->readers < RECORDS_READERS)
		r->readers++;
	r->reader[r->readers - 1] = (struct access){ .pid = pid };
	return &r->reader[r->readers - 1];
}

static bool continues(const struct access *a, const struct observation *o)
{
	return a->end && o->offset <= a->end + SLACK && o->offset + o->len + SLACK >= a->start;
}

/* An access is over. Returns whether it led to the geometry. */
static bool over(struct records *r, const struct access *a)
{
	if (!a->end || r->geometry.bytes || !r->seen || r->seen_count == RECORDS_MAX)
		return false;
	r->seen[r->seen_count++] = *a;
	if (r->seen_count < RECORDS_MIN || r->seen_count < 2 * r->tried_at)
		return false;
	r->tried_at = r->seen_count;
	r->is_random = true;
	r->is_short = usual_length(r->seen, r->seen_count) <= SHORT_BYTES;
	return !records_geometry(r->seen, r->seen_count, r->size, &r->geometry);
}

enum records_event records_saw(struct records *r, const struct observation *o)
{
	struct access *a = reader_of(r, o->pid);

	r->pages_in_row = o->len <= PAGE ? r->pages_in_row + 1 : 0;
	if (continues(a, o)) {
		if (o->offset < a->start)
			a->start = o->offset;
		if (o->offset + o->len > a->end)
			a->end = o->offset + o->len;
		if (a->end - a->start >= SEQUENTIAL_BYTES)
			r->is_random = false;
		return RECORDS_CONTINUED;
	}
	r->last = *a;
	*a = (struct access){ o->offset, o->offset + o->len, o->pid, o->len };
	if (over(r, &r->last))
		return RECORDS_FOUND;
	r->is_random |= r->geometry.bytes != 0;
	return RECORDS_BEGUN;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records inside a large file (samples of an HDF5 data set, of a token file):
 * found from where a file is read, not from its format.
 *
 *   records_saw: requests --joined--> accesses --RECORDS_MIN of them at random--> geometry
 *
 * An access is a run of requests of one reader that follow each other. The
 * kernel rounds its ends to pages and may read on behind it, so what is known of
 * record i is that it begins within a page of base + i * bytes; the record
 * length is the largest for which that holds of what was seen.
 *
 * Of a mapped file the kernel reads around a fault: RECORDS_AROUND bytes, with the page that was
 * wanted in their middle.
 *
 * Locked by the owner.
 */
#ifndef HOPPER_PREFETCH_RECORDS_H
#define HOPPER_PREFETCH_RECORDS_H

#include <stdbool.h>
#include <stdint.h>
#include "cache/cache.h"

struct observation;
struct set;

enum {
	RECORDS_MIN = 64,            /* accesses before records are looked for; again at 2 and 4 times as many */
	RECORDS_MAX = 4 * RECORDS_MIN,
	RECORDS_READERS = 32,        /* that are told apart on one file */
};

#define RECORDS_FILE_BYTES (4u << 20)    /* of a file for which it is worth it */
#define RECORDS_AROUND (1u << 20)        /* as far as the kernel reads ahead where nobody set it otherwise */

struct geometry {
	int64_t base;                /* where the first record begins, or up to a page before */
	uint64_t bytes;              /* of a record; 0 while unknown */
	uint64_t count;
	uint32_t spread;             /* by which the pages of the beginnings were above base + i * bytes */
	uint32_t fetch_bytes;        /* that a reader asks for with one record, from the page of its beginning on */
	bool is_mapped;              /* seen by what was read around faults */
};

struct access {
	uint64_t start, end;         /* bytes */
	uint32_t pid;
	uint32_t first_bytes;        /* of its first request */
};

struct records {
	uint64_t ino, size;
	struct access reader[RECORDS_READERS];   /* what each reads now */
	uint32_t readers;
	struct access last;          /* that a reader ended by beginning another */
	struct access *seen;         /* the first RECORDS_MAX accesses that are over; owned, NULL once not needed */
	uint32_t seen_count, tried_at;
	bool is_random;              /* read by jumps; a long run in sequence ends it */
	bool is_short;               /* ... of which each reads so little that the kernel should not read ahead far */
	enum access_pattern told;    /* the owner's: what the cache knows of that */
	struct geometry geometry;
	struct set *set;             /* borrowed: of the records, once there are any */
	uint32_t pages_in_row;       /* requests for a page alone */
	bool is_by_page;             /* the owner's: mapped, and opened again since it is known: each of its records is seen */
	uint32_t next_extent;        /* the owner's: of the whole file, to be fetched while there is room */
};

enum records_event {
	RECORDS_CONTINUED,           /* the request belongs to the reader's last access */
	RECORDS_BEGUN,               /* a new access */
	RECORDS_FOUND,               /* ... and the geometry is known now; seen[] was what led to it */
};

/* A file of @size bytes. NULL without memory. */
struct records *records_new(uint64_t ino, uint64_t size);
void records_free(struct records *r);

enum records_event records_saw(struct records *r, const struct observation *o);

/* Where the reader wanted to begin, whose first request was for @bytes from @start on. */
uint64_t records_wanted(const struct geometry *g, uint64_t start, uint64_t bytes);

/* The record that @offset lies in; geometry.count if there is none. */
uint64_t records_index(const struct geometry *g, uint64_t offset);

/*
 * The record that begins at @offset, up to a page; geometry.count if it is within one: the kernel
 * reads on behind a reader, or had the beginning already, and whose that is cannot be told.
 */
uint64_t records_beginning(const struct geometry *g, uint64_t offset);

/* What is fetched for record @i: [*ret_start, *ret_end), whole pages but for the end of the file. */
void records_range(const struct records *r, uint64_t i, uint64_t *ret_start, uint64_t *ret_end);

/* The same of all records, for the cache. */
void records_layout(const struct geometry *g, struct cache_pattern *ret);

/* The geometry that explains @n accesses of a file of @size bytes: 0, or -ENOENT. */
int records_geometry(const struct access *seen, uint32_t n, uint64_t size, struct geometry *ret);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the first items of a permutation back to its seed.
 *
 * A torch permutation's i-th entry fixes word i of MT19937 modulo n - i,
 * whatever came before being known. Word i < 227 depends on states 0, i, i + 1
 * and i + 397 of the seeding chain only, so a candidate costs some 400 steps,
 * which run for many seeds in the lanes of a vector; two entries leave 2^32 / n^2
 * candidates for the rest. Nobody knows a shorter way.
 *
 * Blocking and slow: to be called from a thread that has the time.
 */
#ifndef HOPPER_PREFETCH_SEARCH_H
#define HOPPER_PREFETCH_SEARCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "prefetch/shuffle.h"

enum { SEARCH_HEAD_MAX = 12, SEARCH_WORDS_MAX = 16 };

/* What is known of an order: its first entries, or every @stride-th from @start on. */
struct head {
	uint32_t n;                        /* length of the permutation */
	uint32_t count;
	uint32_t index[SEARCH_HEAD_MAX];
};

/* Entries needed so that a chance match among 2^@bits candidates has probability below 2^-20; 0 when n is too small for any. */
uint32_t search_entries_needed(uint32_t n, unsigned bits);

/* Does the permutation of @seed (after @skip words) begin with all of @h? */
bool search_matches(const struct head *h, uint32_t seed, uint64_t skip);

/*
 * Seeds [first, first + count) of SHUFFLE_TORCH with @skip 0. Returns whether one
 * matches all of @h (of at least two entries); the lowest. Stops with false when *@cancel is set.
 */
bool search_torch(const struct head *h, uint64_t first, uint64_t count, const _Atomic bool *cancel, uint32_t *ret_seed);

/* A rank of DistributedSampler: entry j is p[start + stride * j], stride <= @max_stride, seeds [0, seeds). */
bool search_strided(const struct head *h, uint32_t seeds, uint32_t max_stride, const _Atomic bool *cancel,
		    uint32_t *ret_seed, uint32_t *ret_start, uint32_t *ret_stride);

/* Small seeds of any other kind, by whole shuffles of 0..n-1 (its cost). */
bool search_small(const struct head *h, enum shuffle_kind kind, uint64_t first, uint32_t count, const _Atomic bool *cancel,
		  uint64_t *ret_seed);

/*
 * The default generator of torch.manual_seed(S) for S < @seeds: is one of its words 3, 5, 7 ... below
 * @words (at most SEARCH_WORDS_MAX) the seed of @h? The lowest S; *ret_word is its position.
 */
bool search_default_generator(const struct head *h, uint32_t seeds, uint32_t words, const _Atomic bool *cancel,
			      uint32_t *ret_main_seed, uint64_t *ret_word);

/* Where in the stream of @main_seed the 32-bit @word stands, looking at @words of them. */
bool search_stream(uint32_t main_seed, uint32_t word, uint64_t words, const _Atomic bool *cancel, uint64_t *ret_at);

#endif

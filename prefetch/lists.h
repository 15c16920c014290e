/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists that a program shuffled whole, or each reader its share of, from
 * several readers' first items together: four workers that opened two shards
 * each say as much as one that opened eight.
 *
 * Reader k of R takes entries k, k + R, ... of one shuffled list, or shuffles
 * entries k, k + R, ... of the sorted list by itself (WebDataset).
 *
 * Blocking and slow: a whole shuffle for every seed that is tried.
 */
#ifndef HOPPER_PREFETCH_LISTS_H
#define HOPPER_PREFETCH_LISTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "prefetch/search.h"
#include "prefetch/shuffle.h"

enum { LISTS_SHARES_MAX = 64 };

struct lists_space {
	enum shuffle_kind kind;
	uint64_t first;                /* seeds [first, first + count) */
	uint32_t count;
	bool is_split;                 /* each reader shuffles its share */
};

/* What was found: reader 0 of @head begins at @start of the list and goes on by @stride. */
struct lists_found {
	uint64_t seed;
	uint32_t stride, start;
};

/*
 * @head: @heads readers' first indices into one list. True if a seed explains them all, and chance would with
 * less than one in a million. False when *@cancel is set, or without memory.
 */
bool lists_search(const struct head *head, uint32_t heads, const struct lists_space *space, const _Atomic bool *cancel,
		  struct lists_found *ret);

#endif

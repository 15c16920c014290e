/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/lists.h"
#include <stdlib.h>

enum { CERTAIN_BITS = 20 };   /* one in a million */

static unsigned log2_floor(uint32_t n)
{
	return 31 - (unsigned)__builtin_clz(n);
}

static unsigned log2_ceil(uint32_t n)
{
	return n > 1 ? log2_floor(n - 1) + 1 : 0;
}

/* How unlikely it is that chance puts the heads where a list read by @stride has them, in bits, rather too few. */
static unsigned evidence(const struct head *head, uint32_t heads, uint32_t stride)
{
	unsigned each = log2_floor(head->n), bits = 0;

	/* the entries of a short list are not independent: a bit less for each */
	for (uint32_t h = 0; h < heads; h++) {
		if (head[h].count)
			bits += (each > log2_ceil(stride) ? each - log2_ceil(stride) : 0) + (head[h].count - 1) * (each - (head->n <= 64));
	}
	return bits;
}

/* Does every head stand at start, start + stride, ..., start < stride, each at another? @at: an index's position. */
static bool explains(const struct head *head, uint32_t heads, const uint32_t *at, uint32_t stride)
{
	uint64_t starts = 0;

	for (uint32_t h = 0; h < heads; h++) {
		uint32_t start = at[head[h].index[0]];

		if (start >= stride || starts >> start & 1)
			return false;
		starts |= 1ULL << start;
		for (uint32_t k = 1; k < head[h].count; k++) {
			if (at[head[h].index[k]] != start + k * stride)
				return false;
		}
	}
	return true;
}

static void shuffle_whole(const struct lists_space *space, uint64_t seed, uint32_t n, uint32_t *order, uint32_t *ret_at)
{
	const struct shuffle s = { space->kind, seed, 0 };

	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	shuffle_apply(&s, order, n);
	for (uint32_t i = 0; i < n; i++)
		ret_at[order[i]] = i;
}

/* The same of share 0, which is the longest; a shorter one is shuffled anew. */
static void shuffle_shares(const struct lists_space *space, uint64_t seed, uint32_t n, uint32_t shares, uint32_t *order, uint32_t *ret_at)
{
	const struct shuffle s = { space->kind, seed, 0 };

	for (uint32_t l = 0; l < shares && l < n; l++) {
		uint32_t count = (n - l + shares - 1) / shares;

		if (!l || count != (n - l + shares) / shares) {
			for (uint32_t i = 0; i < count; i++)
				order[i] = i;
			shuffle_apply(&s, order, count);
		}
		for (uint32_t i = 0; i < count; i++)
			ret_at[l + order[i] * shares] = l + i * shares;
	}
}

/* Shares as the heads have them: all of a head's indices are the same modulo their number. */
static bool is_shared_by(const struct head *head, uint32_t heads, uint32_t shares)
{
	for (uint32_t h = 0; h < heads; h++) {
		for (uint32_t k = 1; k < head[h].count; k++) {
			if (head[h].index[k] % shares != head[h].index[0] % shares)
				return false;
		}
	}
	return true;
}

/* The strides that the evidence is enough for, among all seeds and strides that are tried. */
static uint64_t strides_of(const struct head *head, uint32_t heads, const struct lists_space *space)
{
	unsigned needed = CERTAIN_BITS + log2_ceil(space->count + 1) + log2_ceil(LISTS_SHARES_MAX);
	uint64_t strides = 0;

	for (uint32_t stride = 1; stride <= LISTS_SHARES_MAX && stride < head->n; stride++) {
		if (stride >= heads && evidence(head, heads, stride) >= needed &&
		    (!space->is_split || (stride > 1 && is_shared_by(head, heads, stride))))
			strides |= 1ULL << (stride - 1);
	}
	return strides;
}

static bool try_seed(const struct head *head, uint32_t heads, const struct lists_space *space, uint64_t seed, uint64_t strides,
		     uint32_t *order, uint32_t *at, struct lists_found *ret)
{
	if (!space->is_split)
		shuffle_whole(space, seed, head->n, order, at);
	for (uint32_t stride = 1; strides >> (stride - 1); stride++) {
		if (!(strides >> (stride - 1) & 1))
			continue;
		if (space->is_split)
			shuffle_shares(space, seed, head->n, stride, order, at);
		if (explains(head, heads, at, stride)) {
			*ret = (struct lists_found){ seed, stride, at[head[0].index[0]] };
			return true;
		}
		if (stride == LISTS_SHARES_MAX)
			break;
	}
	return false;
}

bool lists_search(const struct head *head, uint32_t heads, const struct lists_space *space, const _Atomic bool *cancel,
		  struct lists_found *ret)
{
	uint64_t strides = heads ? strides_of(head, heads, space) : 0;
	uint32_t *order = malloc((size_t)(heads ? head->n : 0) * sizeof(*order) + 1), *at = malloc((size_t)(heads ? head->n : 0) * sizeof(*at) + 1);
	bool found = false;

	for (uint64_t seed = space->first; strides && order && at && seed < space->first + space->count && !found; seed++) {
		if (cancel && atomic_load_explicit(cancel, memory_order_relaxed))
			break;
		found = try_seed(head, heads, space, seed, strides, order, at, ret);
	}
	free(order);
	free(at);
	return found;
}

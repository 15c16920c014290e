/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shuffles of the usual loaders, bit for bit, so that an order can be
 * computed from a seed. Each is checked against vectors made with the real
 * programs (tests/unit/shuffle.c), and against torch and numpy where installed.
 *
 *   SHUFFLE_TORCH        torch.randperm(n) of a CPU generator (any version for
 *                        n < 214748364): forward Fisher-Yates, z = word mod (n - i)
 *   SHUFFLE_NUMPY_STATE  numpy.random.RandomState(seed).shuffle and .permutation
 *   SHUFFLE_NUMPY_RNG    numpy.random.default_rng(seed).shuffle and .permutation (PCG64)
 *   SHUFFLE_PYTHON       random.Random(seed).shuffle
 *   SHUFFLE_STD          std::shuffle with std::mt19937 as libstdc++ of GCC >= 11 has it (DALI)
 *   SHUFFLE_STD_OLD      the same as of GCC <= 10
 *   SHUFFLE_BUFFER       WebDataset's shuffle of a shard list: a buffer of 100, drawn from by random.Random(seed)
 *
 * Pure functions; no locks, nothing blocks but by its length.
 */
#ifndef HOPPER_PREFETCH_SHUFFLE_H
#define HOPPER_PREFETCH_SHUFFLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum shuffle_kind {
	SHUFFLE_NONE,            /* in order */
	SHUFFLE_TORCH,
	SHUFFLE_NUMPY_STATE,
	SHUFFLE_NUMPY_RNG,
	SHUFFLE_PYTHON,
	SHUFFLE_STD,
	SHUFFLE_STD_OLD,
	SHUFFLE_BUFFER,
	SHUFFLE_KINDS
};

struct shuffle {
	enum shuffle_kind kind;
	uint64_t seed;           /* the kinds on MT19937 but PYTHON use its low 32 bits */
	uint64_t skip;           /* words of the generator used before */
};

enum { SHUFFLE_TORCH_MAX = 214748363 };   /* beyond that torch >= 2.6 shuffles another way */

/* "torch", "numpy", ... as in user.hopper.plan and the statistics. */
const char *shuffle_name(enum shuffle_kind kind);

/* Shuffle @order[0..n) in place as the loader shuffles a list of n. */
void shuffle_apply(const struct shuffle *s, uint32_t *order, uint32_t n);

/* A generator that goes on from one shuffle to the next, as a program's own does. */
struct shuffle_rng;

/* Owned by the caller, to be freed with free(); NULL without memory. */
struct shuffle_rng *shuffle_rng_new(const struct shuffle *s);
void shuffle_rng_apply(struct shuffle_rng *g, uint32_t *order, uint32_t n);

/* The first @count entries of SHUFFLE_TORCH's permutation of 0..n-1, in O(count). Returns 0 or -ENOMEM. */
int shuffle_torch_head(uint32_t seed, uint64_t skip, uint32_t n, uint32_t *ret_head, uint32_t count);

/* MT19937 (Matsumoto and Nishimura 1998). */
struct mt19937 {
	uint32_t s[624];
	unsigned at;
};

void mt19937_seed(struct mt19937 *g, uint32_t seed);
uint32_t mt19937_next(struct mt19937 *g);

#endif

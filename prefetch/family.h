/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A family of orders: how one epoch is shuffled, and how the epochs follow each
 * other. Computes an epoch's order from it, and what may come next.
 *
 * Pure functions; they take as long as shuffling the list does.
 */
#ifndef HOPPER_PREFETCH_FAMILY_H
#define HOPPER_PREFETCH_FAMILY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "prefetch/maps.h"
#include "prefetch/shuffle.h"

enum family_kind {
	FAMILY_NONE,
	FAMILY_SEQUENTIAL,
	FAMILY_SEED_PLUS_EPOCH,      /* seed, seed + 1, ...: DistributedSampler, accelerate, Megatron; numpy and python lists */
	FAMILY_CUMULATIVE,           /* the same list shuffled again and again with seed + epoch (DALI, DLIO) */
	FAMILY_DEFAULT_GENERATOR,    /* words of torch.manual_seed(seed): DataLoader(shuffle=True) */
	FAMILY_GENERATOR,            /* DataLoader(generator=g): permutations from one stream */
	FAMILY_LONE_SEED,            /* one epoch's seed, found by search; the next is unknown */
	FAMILY_STREAM,               /* seeded once, a permutation an epoch: rng.permutation(n) */
	FAMILY_STREAM_IN_PLACE,      /* seeded once, the list shuffled again each epoch: random.shuffle(files) */
	FAMILY_STREAMING,            /* MosaicML Streaming's shards: default_rng(seed), of that default_rng(seed + epoch) */
	FAMILY_KINDS
};

struct family {
	enum family_kind kind;
	struct shuffle shuffle;      /* of the epoch it was recognised in */
	uint64_t main_seed, word;    /* of generators; FAMILY_STREAM*: word is the number of shuffles before */
	uint32_t distance;           /* words from one epoch to the next, 0 unknown */
	uint32_t stride, start;      /* ranks or workers that take every stride-th; 1 without */
	bool is_split;               /* each of them shuffles its own share, not all together */
	bool is_constant;            /* FAMILY_SEED_PLUS_EPOCH: seen to stay as it is: set_epoch() is forgotten, a list shuffled anew from its seed */
	unsigned map;                /* which index map */
	uint32_t epoch;              /* of the set, when it was recognised */
	bool is_told;                /* by user.hopper.plan */
};

enum { FAMILY_TEXT = 96 };

/* Is @f, read from disk, within what this code computes in bounded time? */
bool family_is_sane(const struct family *f);

/* "torch seed 787846414 (manual_seed 42, word 3)" */
void family_describe(const struct family *f, char text[FAMILY_TEXT]);

/* The indices 0..n-1 in the order of @f, into @order. 0 or -ENOMEM. */
int family_indices(const struct family *f, uint32_t *order, uint32_t n);

/* The items of @map in that order, map->n * map->columns of them; owned by the caller, NULL without memory. */
uint32_t *family_items(const struct family *f, const struct index_map *map);

/* The @which-th guess of what follows @f after @steps epochs, for lists of @n. False when there is no more. */
bool family_next(const struct family *f, uint32_t steps, uint32_t n, unsigned which, struct family *ret);

/* Word number @word of torch.manual_seed(@main_seed). */
uint32_t family_default_word(uint64_t main_seed, uint64_t word);

/*
 * "torch-random seed=S [epoch=E]", "torch-distributed seed=S [epoch=E] [world=R] [rank=K]",
 * "torch-generator seed=S", "numpy seed=S", "numpy-rng seed=S", "python seed=S", "dali [seed=S]",
 * "webdataset seed=S [workers=W]", "streaming [seed=S]", "sequential": 0, or -EINVAL with a line in @msg.
 */
int family_parse(const char *text, struct family *ret_family, char *msg, size_t msg_size);

#define FAMILY_DALI_SEED 524287
#define FAMILY_STREAMING_SEED 9176

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hash map from uint64_t to a pointer: open addressing, linear probing,
 * backward-shift deletion. Any key is valid; values must not be NULL. No
 * locking: the owner provides it.
 */
#ifndef HOPPER_LIB_MAP64_H
#define HOPPER_LIB_MAP64_H

#include <stddef.h>
#include <stdint.h>

struct map64_slot;

struct map64 {
	struct map64_slot *slots;   /* owned; NULL while empty */
	size_t capacity;            /* a power of two, or 0 */
	size_t count;
};

#define MAP64_INIT { NULL, 0, 0 }

/* Releases the table, not the values. */
void map64_clear(struct map64 *m);

void *map64_get(const struct map64 *m, uint64_t key);

/* Inserts or replaces. Returns 0 or -ENOMEM (nothing changed). */
int map64_put(struct map64 *m, uint64_t key, void *value);

/* Returns the value removed, or NULL. */
void *map64_remove(struct map64 *m, uint64_t key);

/*
 * Iteration in table order; *@pos starts at 0. Returns the next value or NULL.
 * The map must not change while iterating.
 */
void *map64_next(const struct map64 *m, size_t *pos, uint64_t *ret_key);

/* The finalizer of MurmurHash3: a cheap bijective mix for integer keys. */
static inline uint64_t map64_mix(uint64_t x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	x ^= x >> 33;
	return x;
}

#endif

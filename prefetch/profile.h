/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A recorded profile: the order in which an epoch was read, by a name, kept as
 * a note beside the cache so that a later job can be told to read the same.
 * As it names files by id, it is this cache's.
 */
#ifndef HOPPER_PREFETCH_PROFILE_H
#define HOPPER_PREFETCH_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct set;
struct sets;

enum { PROFILE_NAME = 64, PROFILE_ITEMS = 1 << 22 };   /* most of a name's bytes, and of items: 32 MiB in the index */

/* Letters, digits, dot, dash and underscore. */
bool profile_name_is_sane(const char *name);

/* The order of the epoch that is over; owned by the caller, NULL if it was not seen whole. */
void *profile_make(const struct set *s, size_t *ret_len);

/* The items of @s in the profile's order, but those that are no more. 0, -ENOENT for none, -ENOMEM. *ret_item is the caller's. */
int profile_read(const struct sets *t, const struct set *s, const void *data, size_t len, uint32_t **ret_item, uint32_t *ret_count);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which file a loader means by its index i: the lists that loaders make of a
 * data set, as they are found in its directories.
 *
 *   MAP_IMAGES    torchvision's ImageFolder: class directories by name, then files by name, images only
 *   MAP_NAMES     the same of all files (os.listdir and os.walk too, where the mount lists in order of names)
 *   MAP_USUAL     the same of those files whose extension most have: shards without their index.json
 *   MAP_PATHS     sorted by the whole path: "a-b/x" before "a/x"
 *   MAP_LISTED    as the mount lists them, where files came later
 *   MAP_SAMPLES   several files a sample (image and mask): item i of each directory or extension
 *   MAP_MANIFEST  the lines of a list, in the data set or above it, that the job has read (CSV, JSON lines, plain)
 *
 * A map that equals one before it is left out. Used by one thread; blocks on the index, never on the origin.
 */
#ifndef HOPPER_PREFETCH_MAPS_H
#define HOPPER_PREFETCH_MAPS_H

#include <stdbool.h>
#include <stdint.h>

struct cache;
struct maps;
struct ns;

enum map_kind { MAP_IMAGES, MAP_NAMES, MAP_USUAL, MAP_PATHS, MAP_LISTED, MAP_SAMPLES, MAP_MANIFEST, MAPS };

enum { MAP_COLUMNS_MAX = 4 };

/* Index i of the loader is item[i * columns], and the items behind it up to the next index's. */
struct index_map {
	uint32_t n;            /* indices; 0: there is no such map */
	uint32_t columns;
	uint32_t *item;        /* owned */
};

/* A directory of the set: its items are ids [first, first + count), numbered from base on. dir 0: records of one file. */
struct recognise_unit {
	uint64_t dir, first;
	uint32_t count, base;
};

/* @cache: where manifests are read, NULL for none. 0 or -ENOMEM. */
int maps_new(struct ns *ns, struct cache *cache, struct maps **ret_maps);
void maps_free(struct maps *m);

/*
 * Make the maps of set @set, unless they are there. Sorts @unit. @thorough: large manifests too. False without memory.
 */
bool maps_make(struct maps *m, uint64_t set, struct recognise_unit *unit, uint32_t unit_count, bool thorough);

/* Borrowed until the next maps_make(); NULL if there is no such map. */
const struct index_map *maps_get(const struct maps *m, unsigned kind);

/* ret_index[k] is the index whose column ret_column[k] is item[k]; UINT32_MAX: none. */
void maps_indices(const struct index_map *map, const uint32_t *item, uint32_t count, uint32_t *ret_index, uint8_t *ret_column);

#endif

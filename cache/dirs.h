/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache directories of a mount: opened, locked, their indices open, and told which of them belong together.
 *
 * One of them, home, has the namespace; the extents of all are named by its ids, and an id must never name another file
 * while some directory, mounted now or not, has bytes under it. Two things see to that:
 *
 *   - a session is a random number drawn for each mount of several directories. Every directory keeps the last one it
 *     was part of, home all that its namespace has lived through. A directory belongs to a namespace exactly if that
 *     knows its session: not after the namespace was lost, restored from a backup, or went on in a copy elsewhere.
 *     After the machine stopped uncleanly the last session is forgotten for whoever is absent: home may have lost the
 *     ids that were given out at its end;
 *   - new ids start above the highest that any directory here names.
 *
 * What a directory holds that does not belong is dropped. So directories may come, go and change places between mounts.
 *
 * The namespace is in home's index. When home fails under the mount it moves, as a copy, to DIR/names of another directory, in a
 * session of its own. A mount that ends well leaves such a copy, too, which holds until home is mounted again.
 */
#ifndef HOPPER_CACHE_DIRS_H
#define HOPPER_CACHE_DIRS_H

#include <stddef.h>
#include <stdint.h>
#include "cache/disk.h"

struct cache_config;
struct dirs;

/* Errors are cache_open()'s. */
int dirs_open(const struct cache_config *cfg, struct dirs **ret_dirs, char *msg, size_t msg_size);

/* Marks the indices clean. Nobody uses them any more. */
void dirs_close(struct dirs *d);

/* Directory @at was deleted under the mount: if the namespace is there it moves. Blocks. */
void dirs_lost(struct dirs *d, unsigned at);

/* The store of the namespace; borrowed. */
struct store *dirs_home(struct dirs *d);

/* No id below this one may be given out anew. */
uint64_t dirs_ids_from(const struct dirs *d);

/* For disk_open(): *ret_dirs borrowed, DISK_DIRS_MAX at most; the number of them. */
unsigned dirs_list(const struct dirs *d, const struct disk_dir **ret_dirs);

#endif

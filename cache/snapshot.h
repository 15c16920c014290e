/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index as it was at its last sync, whole on the disk until the next one.
 *
 * LMDB writes to pages that its newest state does not use, and names that state in one of two meta pages. Without a sync at
 * each commit the kernel brings pages and meta pages to the disk in any order, so after the machine stopped neither meta page need
 * name a whole tree. Therefore at a sync
 *
 *   - a read transaction pins the newest state, so that none of its pages is written to as long as it lasts;
 *   - the pages are synced;
 *   - its meta page is kept in a file beside the index, and synced;
 *   - only then the state pinned before is let go.
 *
 * After the machine stopped the meta page that was kept is put into the index's place: what is lost is what was committed since.
 */
#ifndef HOPPER_CACHE_SNAPSHOT_H
#define HOPPER_CACHE_SNAPSHOT_H

#include <lmdb.h>
#include <stdbool.h>
#include <stdint.h>

#define SNAPSHOT_NAME "synced"   /* the file beside the index */

struct snapshot {
	int fd;
	uint64_t seq;
	MDB_txn *pin;            /* owned, or NULL */
	char boot_id[40];
};

/*
 * Before the index in directory @dir is opened: put back what was kept of it, if another boot left it uncleanly.
 * Returns 0, 1 if it did so, or negative errno.
 */
int snapshot_open(struct snapshot *s, const char *dir, const char *boot_id);

/* Sync, and keep the newest state. @is_clean: nothing will be written after it. Nobody else may be here; blocks. LMDB's error. */
int snapshot_take(struct snapshot *s, MDB_env *env, bool is_clean);

/* Before the index is closed. */
void snapshot_close(struct snapshot *s);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An index on disk: an LMDB environment in each cache directory, with a table
 * of its extents, and in one of them those of the namespace.
 *
 * Commits are not synced: a commit survives SIGKILL, and a background sync
 * bounds what a power failure loses. After an unclean stop of the machine
 * (another boot id) the environment is walked in a child process first and
 * set aside if it is damaged; the cache then starts anew, never blindly.
 *
 * LMDB allows one writer at a time; writers hold store_write_begin() ..
 * store_write_commit() for short batches and never across I/O of origin or cache.
 */
#ifndef HOPPER_CACHE_STORE_H
#define HOPPER_CACHE_STORE_H

#include <lmdb.h>
#include <stdbool.h>
#include <stdint.h>

struct store;

/*
 * Open or create DIR/@name (a directory). @dir_fd is the cache directory.
 * *ret_was_clean: the last user closed it with store_close(). Returns 0 or
 * a negative errno with one line for the user in @msg.
 */
int store_open(int dir_fd, const char *dir_path, const char *name, struct store **ret_store, bool *ret_was_clean,
	       char *msg, size_t msg_size);

/*
 * The same index under a second handle, which alone can move: to begin with it shares what @s has open. To be closed
 * before @s.
 */
int store_share(struct store *s, struct store **ret_store);

/* Where a store can go when its disk fails. */
struct store_spare {
	int dir_fd;
	const char *dir_path;       /* borrowed, as is dir_fd */
};

/*
 * Where @s may move; all borrowed. @moving is called with a handle of the copy in spare[at], before anybody uses it; an
 * error of its own (negative errno) has the next one tried.
 */
void store_set_spares(struct store *s, const struct store_spare *spare, unsigned count,
		      int (*moving)(void *arg, struct store *fresh, unsigned at), void *arg);

/*
 * A write of @s failed with @err: has the disk failed, or is it full? Then @s is copied to a spare directory (DIR/names), and
 * lives there from now on; what was written before is all there. @moves: store_moves() before the write, as others may have failed
 * likewise and moved it already. 0: try again; else @err, or why it could not be moved. Blocks; no lock may be held.
 */
#define STORE_MOVED "names"
unsigned store_moves(const struct store *s);
int store_move(struct store *s, unsigned moves, int err);

/* A copy of @s in DIR/names of @to, marked clean: for the day when this one is not there. Nobody writes to @s meanwhile. */
int store_copy(struct store *s, const struct store_spare *to);

/* Unlinks DIR/@name, which nobody has open. */
void store_remove(int dir_fd, const char *name);

/* Syncs, marks clean, frees. */
void store_close(struct store *s);

/* Opens (creates) a named table. Only while starting, before other threads use the store. */
int store_table(struct store *s, const char *name, unsigned mdb_flags, MDB_dbi *ret_dbi);

/* Read transactions: cheap, any thread, several at a time. Never block. */
int store_read_begin(struct store *s, MDB_txn **ret_txn);
void store_read_end(struct store *s, MDB_txn *txn);

/* The write transaction: blocks while another thread has it. */
int store_write_begin(struct store *s, MDB_txn **ret_txn);
int store_write_commit(struct store *s, MDB_txn *txn);    /* consumes txn in any case */
void store_write_abort(struct store *s, MDB_txn *txn);

/* Blocks for I/O. Called by a background thread; does nothing when nothing was committed since. */
int store_sync(struct store *s);

/* Bytes the index occupies on disk. */
uint64_t store_bytes(struct store *s);

/* LMDB's error as negative errno: -ENOENT for MDB_NOTFOUND, -ENOSPC, -EUCLEAN for damage. */
int store_errno(int mdb_rc);

/* Small named values (identity of the cache, next inode number): 0 or -ENOENT. */
int store_meta_get(struct store *s, const char *key, void *buf, size_t size, size_t *ret_len);
int store_meta_dup(struct store *s, const char *key, void **ret_data, size_t *ret_len);   /* owned by the caller */
int store_meta_put(struct store *s, const char *key, const void *data, size_t len);
int store_meta_drop(struct store *s, const char *key);   /* 0 also when it is not there */

/* Removes all records of a named table; 0 also when there is none. Only while starting. */
int store_empty(struct store *s, const char *name);

/* Did the machine stop, before this start, with what had been committed perhaps not on the disk? */
bool store_is_torn(const struct store *s);

#endif

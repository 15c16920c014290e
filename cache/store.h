/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index on disk: one LMDB environment per cache, with the tables of the
 * namespace and of the disk tier.
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
 * Open or create DIR/index (a directory). @dir_fd is the cache directory.
 * *ret_was_clean: the last user closed it with store_close(). Returns 0 or
 * a negative errno with one line for the user in @msg.
 */
int store_open(int dir_fd, const char *dir_path, struct store **ret_store, bool *ret_was_clean,
	       char *msg, size_t msg_size);

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

#endif

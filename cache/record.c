/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a volume's index says of its extents, and what it does not say yet: `pending` holds new records and deletions,
 * and is looked at first. One committer writes it out in groups; a record is pending only after its bytes were written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cache/store.h"
#include "cache/volume_impl.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/log.h"

enum { WALK_BATCH = 1024 };                  /* records a walk visits per transaction */

#define COMMIT_GAP_NS (20 * NSEC_PER_MSEC)   /* between commits, so that they are groups */
#define SYNC_GAP_NS (5 * NSEC_PER_SEC)
#define WRITEBACK_GAP_NS (250 * NSEC_PER_MSEC)
#define WRITEBACK_BYTES (16u << 20)   /* ... or sooner: in a cgroup of version 1 a writer is killed, not slowed, once dirty pages fill it */

/* ---- index records ---- */

static int record_from_index(struct volume *v, uint64_t key, struct record *ret)
{
	MDB_val k = { sizeof(key), &key }, data;
	MDB_txn *txn;
	int rc = store_read_begin(v->store, &txn);

	if (rc)
		return rc;
	rc = store_errno(mdb_get(txn, v->table, &k, &data));
	if (!rc && data.mv_size != sizeof(*ret))
		rc = -ENOENT;
	if (!rc)
		memcpy(ret, data.mv_data, sizeof(*ret));
	store_read_end(v->store, txn);
	return rc;
}

/* Called with the lock held (the index is memory-mapped: a look-up does no system call). */
int record_find(struct volume *v, uint64_t key, struct record *ret)
{
	struct pending *p = map64_get(&v->pending, key);

	if (!p)
		return record_from_index(v, key, ret);
	if (p->is_deletion)
		return -ENOENT;
	*ret = p->record;
	return 0;
}

static bool is_in_object(const struct record *r, uint64_t version)
{
	return r->kind == KIND_WHOLE && r->version == version;
}

/* Does a committed record, not changed since, name the object's file? Usually its first one does. */
static bool index_names_object(struct volume *v, MDB_cursor *cursor, uint64_t ino, uint64_t version)
{
	uint64_t key = extent_key(ino, 0);
	MDB_val k = { sizeof(key), &key }, data;
	MDB_cursor_op op = MDB_SET_RANGE;
	struct record r;

	for (; !mdb_cursor_get(cursor, &k, &data, op); op = MDB_NEXT) {
		memcpy(&key, k.mv_data, sizeof(key));
		if (extent_key_ino(key) != ino)
			break;
		if (data.mv_size != sizeof(r) || map64_get(&v->pending, key))
			continue;
		memcpy(&r, data.mv_data, sizeof(r));
		if (is_in_object(&r, version))
			return true;
	}
	return false;
}

bool record_names_object(struct volume *v, uint64_t ino, uint64_t version)
{
	const struct pending *p;
	MDB_cursor *cursor;
	bool is_named = true;
	size_t pos = 0;
	uint64_t key;
	MDB_txn *txn;

	while ((p = map64_next(&v->pending, &pos, &key))) {
		if (extent_key_ino(key) == ino && !p->is_deletion && is_in_object(&p->record, version))
			return true;
	}
	if (store_read_begin(v->store, &txn))
		return true;
	if (!mdb_cursor_open(txn, v->table, &cursor)) {
		is_named = index_names_object(v, cursor, ino, version);
		mdb_cursor_close(cursor);
	}
	store_read_end(v->store, txn);
	return is_named;
}

int pending_put(struct volume *v, uint64_t key, const struct record *r)
{
	struct pending *p = map64_get(&v->pending, key);

	if (!p) {
		p = calloc(1, sizeof(*p));
		if (!p || map64_put(&v->pending, key, p)) {
			free(p);
			return -ENOMEM;
		}
	}
	p->is_deletion = !r;
	if (r)
		p->record = *r;
	p->change = ++v->changes;
	if (v->pending.count == 1)
		pthread_cond_signal(&v->work);
	return 0;
}

/* ---- committing ---- */

struct change {
	uint64_t key;
	struct pending value;
};

/* Copy what is pending. Called with the lock held. */
static struct change *pending_copy(struct volume *v, size_t *ret_count)
{
	struct change *list = malloc(v->pending.count * sizeof(*list));
	struct pending *p;
	size_t pos = 0, n = 0;
	uint64_t key;

	while (list && (p = map64_next(&v->pending, &pos, &key)))
		list[n++] = (struct change){ key, *p };
	*ret_count = n;
	return list;
}

static int by_key(const void *a, const void *b)
{
	uint64_t x = ((const struct change *)a)->key, y = ((const struct change *)b)->key;

	return x < y ? -1 : x > y;
}

static int commit_changes(struct volume *v, struct change *list, size_t n)
{
	MDB_txn *txn;
	int rc = store_write_begin(v->store, &txn);

	if (rc)
		return rc;
	qsort(list, n, sizeof(*list), by_key);
	for (size_t i = 0; i < n && !rc; i++) {
		MDB_val k = { sizeof(list[i].key), &list[i].key };
		MDB_val data = { sizeof(list[i].value.record), &list[i].value.record };

		rc = store_errno(list[i].value.is_deletion ? mdb_del(txn, v->table, &k, NULL) :
							     mdb_put(txn, v->table, &k, &data, 0));
		if (rc == -ENOENT)
			rc = 0;
	}
	if (rc) {
		store_write_abort(v->store, txn);
		return rc;
	}
	return store_write_commit(v->store, txn);
}

/* Remove from pending what was committed and not changed since. Called with the lock held. */
static void pending_clear(struct volume *v, const struct change *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct pending *p = map64_get(&v->pending, list[i].key);

		if (p && p->change == list[i].value.change) {
			map64_remove(&v->pending, list[i].key);
			free(p);
		}
	}
}

/* Write out everything pending once. Called with the lock held, which is dropped meanwhile. */
static int commit_once(struct volume *v)
{
	struct change *list;
	size_t n;
	int rc;

	list = pending_copy(v, &n);
	lock_release(&v->lock);
	rc = list ? commit_changes(v, list, n) : -ENOMEM;
	atomic_store(&v->index_bytes, store_bytes(v->store));
	lock_acquire(&v->lock);
	if (!rc)
		pending_clear(v, list, n);
	free(list);
	if (rc && !atomic_load(&v->is_lost))
		log_error("cache %s: index: commit failed: %s; it is not remembered after a restart", v->path, strerror(-rc));
	return rc;
}

/* Of the segments numbered lower than @before everything is on the disk. It is read past the page cache from now on. No lock held. */
static void settle_segments(struct volume *v, uint32_t before)
{
	struct segment *g;

	lock_scope(&v->lock);
	while (atomic_load(&v->reads_direct) && (g = segment_unsettled(&v->segments, before))) {
		g->is_settled = true;
		g->busy++;
		lock_release(&v->lock);
		posix_fadvise(g->fd, 0, 0, POSIX_FADV_DONTNEED);
		lock_acquire(&v->lock);
		g->busy--;
		segment_retire(&v->segments, g);
	}
}

/* Bytes first, then the index that names them. No lock held. */
void record_sync(struct volume *v)
{
	uint32_t present;
	int rc;

	lock_acquire(&v->lock);
	present = segment_present(&v->segments);
	lock_release(&v->lock);
	rc = syncfs(v->fd) ? -errno : 0;
	if (rc) {
		volume_answered(v, true, rc, "syncing");
		lock_acquire(&v->lock);
		v->doubts++;   /* what was written may not be what is there */
		lock_release(&v->lock);
	}
	store_sync(v->store);
	if (!rc)
		settle_segments(v, present);
}

/* Where the next bytes go, counted through all segments. Called with the lock held. */
static uint64_t write_position(const struct volume *v)
{
	return v->segments.open ? (uint64_t)v->segments.open->id * SEGMENT_BYTES + v->segments.open_offset : 0;
}

/* Have the kernel begin to write what is new, so that the sync every SYNC_GAP_NS finds little and stalls nobody. */
static void start_writeback(struct volume *v)
{
	int fd = -1;

	lock_acquire(&v->lock);
	if (v->segments.open)
		fd = fcntl(v->segments.open->fd, F_DUPFD_CLOEXEC, 3);
	lock_release(&v->lock);
	if (fd < 0)
		return;
	sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	close(fd);
}

void *record_committer(void *arg)
{
	struct volume *v = arg;
	uint64_t synced_ns = clock_ns(), written_ns = synced_ns, written = 0;
	bool is_dirty = false;

	pthread_setname_np(pthread_self(), "committer");
	lock_acquire(&v->lock);
	while (!v->is_closing) {
		if (v->pending.count) {
			int rc = commit_once(v);
			uint64_t until = clock_ns() + (rc ? NSEC_PER_SEC : COMMIT_GAP_NS);

			is_dirty = true;
			while (!v->is_closing && clock_ns() < until)
				lock_wait_until(&v->lock, &v->work, until);
		} else if (is_dirty) {
			uint64_t sync_ns = synced_ns + SYNC_GAP_NS, write_ns = written_ns + WRITEBACK_GAP_NS;

			lock_wait_until(&v->lock, &v->work, write_position(v) != written && write_ns < sync_ns ? write_ns : sync_ns);
		} else {
			lock_wait(&v->lock, &v->work);
		}
		if (is_dirty && (clock_ns() >= written_ns + WRITEBACK_GAP_NS || write_position(v) - written >= WRITEBACK_BYTES)) {
			written = write_position(v);
			lock_release(&v->lock);
			start_writeback(v);
			lock_acquire(&v->lock);
			written_ns = clock_ns();
		}
		if (is_dirty && clock_ns() >= synced_ns + SYNC_GAP_NS) {
			is_dirty = false;
			lock_release(&v->lock);
			record_sync(v);
			lock_acquire(&v->lock);
			synced_ns = clock_ns();
		}
	}
	if (v->pending.count)
		commit_once(v);
	lock_release(&v->lock);
	return NULL;
}

/* ---- walking ---- */

struct walk_item {
	uint64_t key, version;
	uint32_t bytes;
	struct record record;
};

/* Up to WALK_BATCH records from @from on. */
static int walk_batch(struct volume *v, uint64_t from, struct walk_item *item, size_t *ret_count)
{
	MDB_val k = { sizeof(from), &from }, data;
	MDB_cursor_op op = MDB_SET_RANGE;
	MDB_cursor *cursor;
	MDB_txn *txn;
	size_t n = 0;
	int rc = store_read_begin(v->store, &txn);

	if (rc)
		return rc;
	rc = store_errno(mdb_cursor_open(txn, v->table, &cursor));
	while (!rc && n < WALK_BATCH && !mdb_cursor_get(cursor, &k, &data, op)) {
		op = MDB_NEXT;
		if (data.mv_size != sizeof(item[n].record))
			continue;
		memcpy(&item[n].key, k.mv_data, sizeof(item[n].key));
		memcpy(&item[n].record, data.mv_data, sizeof(item[n].record));
		item[n].version = item[n].record.version;
		item[n].bytes = (uint32_t)record_bytes(&item[n].record);
		n++;
	}
	if (!rc)
		mdb_cursor_close(cursor);
	store_read_end(v->store, txn);
	*ret_count = n;
	return rc;
}

int volume_walk(struct volume *v, uint64_t from,
	      int (*fn)(void *arg, uint64_t key, uint64_t version, uint32_t disk_bytes), void *arg)
{
	_cleanup_free_ struct walk_item *item = malloc(WALK_BATCH * sizeof(*item));
	size_t n;

	if (!item)
		return -ENOMEM;
	for (;;) {
		int rc = walk_batch(v, from, item, &n);

		for (size_t i = 0; i < n && !rc; i++) {
			rc = fn(arg, item[i].key, item[i].version, item[i].bytes);
			from = item[i].key + 1;
		}
		if (rc || n < WALK_BATCH)
			return rc;
	}
}

bool volume_has_some(struct volume *v, uint64_t ino)
{
	uint64_t key = extent_key(ino, 0);
	MDB_val k = { sizeof(key), &key }, data;
	MDB_cursor *cursor;
	MDB_txn *txn;
	bool has_some = false;

	if (!volume_serves(v) || store_read_begin(v->store, &txn))
		return false;
	if (!mdb_cursor_open(txn, v->table, &cursor)) {
		if (!mdb_cursor_get(cursor, &k, &data, MDB_SET_RANGE)) {
			memcpy(&key, k.mv_data, sizeof(key));
			has_some = extent_key_ino(key) == ino;
		}
		mdb_cursor_close(cursor);
	}
	store_read_end(v->store, txn);
	return has_some;
}

/* ---- starting ---- */

/* Format 1 had one index for several directories: what it says of others is not ours. */
static bool is_record_sane(const struct record *r)
{
	return !r->dir && (r->kind == KIND_PACKED || r->kind == KIND_WHOLE) &&
	       r->raw_len && r->raw_len <= (1u << EXTENT_SHIFT) && r->stored_len && r->stored_len <= r->raw_len &&
	       r->codec <= CODEC_LZ4 &&
	       (r->kind == KIND_WHOLE || ((uint64_t)r->slot * SLOT_BYTES + r->stored_len <= SEGMENT_BYTES));
}

int record_adopt_all(struct volume *v)
{
	_cleanup_free_ struct walk_item *item = malloc(WALK_BATCH * sizeof(*item));
	uint64_t from = 0;
	size_t n;

	if (!item)
		return -ENOMEM;
	do {
		int rc = walk_batch(v, from, item, &n);

		for (size_t i = 0; i < n && !rc; i++) {
			const struct record *r = &item[i].record;

			from = item[i].key + 1;
			if (!is_record_sane(r)) {
				rc = pending_put(v, item[i].key, NULL);
				continue;
			}
			v->used_bytes += record_bytes(r);
			v->extents++;
			if (r->kind == KIND_PACKED)
				rc = segment_adopt(&v->segments, r->segment, r->stored_len);
		}
		if (rc)
			return rc;
	} while (n == WALK_BATCH);
	return 0;
}

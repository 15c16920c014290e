/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A write:  disk_write -> [worker] checksum, codec, place -> diskio -> written:
 *           the record goes to `pending` and is readable -> done -> committer.
 * A read:   disk_read -> find (pending, then index) -> diskio -> [worker if
 *           large] checksum, codec -> done.
 * A drop:   record out of reach at once; the space is freed when no read of it is in
 *           flight any more, so that no reader meets another extent's bytes. In the
 *           file of a whole object an extent comes back to the same place: a write
 *           waits for a punch on its way there, and a punch is left out once a write began.
 *
 * `pending` holds what the index does not say yet: new records and deletions.
 * One committer writes it out in groups. The lock protects all tables; it is
 * not held across transfers, commits or punches.
 */
#include "cache/disk.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>
#include "cache/disk_impl.h"
#include "cache/diskio.h"
#include "cache/store.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "lib/map64.h"
#include "lib/pool.h"
#include "lib/stats.h"

enum {
	RANK_DISK = 50,
	WORKERS = 4,                   /* checksum and codec threads at most */
	INLINE_BYTES = 256 * 1024,     /* checksums up to this run on the completion thread */
	DOWN_AFTER = 8,                /* errors in a row */
	WALK_BATCH = 1024,             /* records a walk visits per transaction */
	INDEX_STEP = 512 * 1024,
};

#define COMMIT_GAP_NS (20 * NSEC_PER_MSEC)   /* between commits, so that they are groups */
#define SYNC_GAP_NS (5 * NSEC_PER_SEC)
#define WRITEBACK_GAP_NS (250 * NSEC_PER_MSEC)
#define FS_CHECK_NS NSEC_PER_SEC
#define PROBE_NS (10 * NSEC_PER_SEC)

/* disk_io.priv */
struct transfer {
	struct diskio_op op;
	struct work work;
	struct disk *disk;
	struct disk_io *io;
	struct record record;
	struct segment *segment;       /* busy while in flight, or NULL */
	int fd;                        /* of a whole object: owned */
	bool in_range;                 /* a write that has its range */
	void *stored;                  /* compressed bytes: owned, or NULL */
	int err;
};

/* ---- index records ---- */

static int record_from_index(struct disk *d, uint64_t key, struct record *ret)
{
	MDB_val k = { sizeof(key), &key }, v;
	MDB_txn *txn;
	int rc = store_read_begin(d->store, &txn);

	if (rc)
		return rc;
	rc = store_errno(mdb_get(txn, d->table, &k, &v));
	if (!rc && v.mv_size != sizeof(*ret))
		rc = -ENOENT;
	if (!rc)
		memcpy(ret, v.mv_data, sizeof(*ret));
	store_read_end(d->store, txn);
	if (!rc && ret->dir >= d->dir_count)
		rc = -ENOENT;   /* a directory that is not mounted this time */
	return rc;
}

/* Called with the lock held (the index is memory-mapped: a look-up does no system call). */
int record_find(struct disk *d, uint64_t key, struct record *ret)
{
	struct pending *p = map64_get(&d->pending, key);

	if (!p)
		return record_from_index(d, key, ret);
	if (p->is_deletion)
		return -ENOENT;
	*ret = p->record;
	return 0;
}

/* Note a change for the committer. Called with the lock held. */
static int pending_put(struct disk *d, uint64_t key, const struct record *r)
{
	struct pending *p = map64_get(&d->pending, key);

	if (!p) {
		p = calloc(1, sizeof(*p));
		if (!p || map64_put(&d->pending, key, p)) {
			free(p);
			return -ENOMEM;
		}
	}
	p->is_deletion = !r;
	if (r)
		p->record = *r;
	p->change = ++d->changes;
	pthread_cond_broadcast(&d->changed);
	return 0;
}

/* ---- space ---- */

static uint64_t record_bytes(const struct record *r)
{
	return slot_round(r->stored_len);
}

/*
 * The index grows while extents are there already: room is kept for at least
 * half a step more, so that a step makes room by what may go and forces nothing out.
 */
static uint64_t index_room(struct disk *d)
{
	return ((atomic_load(&d->index_bytes) + INDEX_STEP / 2) | (INDEX_STEP - 1)) + 1;
}

/* Bytes the extents may occupy beside @index of index. Called with the lock held. */
static uint64_t limit_beside(struct disk *d, uint64_t index)
{
	uint64_t limit = d->limit_bytes ? d->limit_bytes : UINT64_MAX;
	uint64_t now = clock_ns(), fs_room;
	struct statvfs fs;

	if (now - d->fs_checked_ns > FS_CHECK_NS && !fstatvfs(d->dirs[0].fd, &fs)) {
		d->fs_free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
		d->fs_checked_ns = now;
	}
	limit = limit > index ? limit - index : 0;
	fs_room = d->used_bytes + (d->fs_free_bytes > d->min_free_bytes ? d->fs_free_bytes - d->min_free_bytes : 0);
	return limit < fs_room ? limit : fs_room;
}

static uint64_t limit_now(struct disk *d)
{
	return limit_beside(d, index_room(d));
}

uint64_t disk_reserve(struct disk *d, size_t len)
{
	uint64_t need = slot_round(len);

	lock_scope(&d->lock);
	if (d->used_bytes + d->reserved_bytes + need > limit_now(d))
		return 0;
	if (d->errors_in_row >= DOWN_AFTER) {
		if (clock_ns() < d->probe_ns)
			return 0;
		d->probe_ns = clock_ns() + PROBE_NS;   /* one write tries whether it is back */
	}
	d->reserved_bytes += need;
	return need;
}

void disk_unreserve(struct disk *d, uint64_t reserved)
{
	lock_scope(&d->lock);
	d->reserved_bytes -= reserved;
}

uint64_t disk_excess(struct disk *d)
{
	uint64_t limit, margin, used;

	lock_scope(&d->lock);
	limit = limit_now(d);
	margin = limit / 256 < (16 << 20) ? limit / 256 : 16 << 20;
	used = d->used_bytes + d->reserved_bytes;
	return used > limit - margin ? used - (limit - margin - margin / 2) : 0;
}

uint64_t disk_room(struct disk *d)
{
	uint64_t limit, used;

	lock_scope(&d->lock);
	limit = limit_now(d);
	used = d->used_bytes + d->reserved_bytes;
	return limit > used ? limit - used : 0;
}

bool disk_is_over(struct disk *d)
{
	lock_scope(&d->lock);
	return d->used_bytes + d->reserved_bytes > limit_beside(d, atomic_load(&d->index_bytes));
}

bool disk_holds(struct disk *d, uint64_t key)
{
	struct record r;

	lock_scope(&d->lock);
	return !record_find(d, key, &r);
}

uint64_t disk_limit(struct disk *d)
{
	lock_scope(&d->lock);
	return limit_now(d);
}

/* ---- whole objects ---- */

static void object_name(uint64_t key, uint64_t version, char *buf, size_t size)
{
	uint64_t ino = extent_key_ino(key);

	snprintf(buf, size, "%02x/%llx-%016llx", (unsigned)(map64_mix(ino) & 0xff),
		 (unsigned long long)ino, (unsigned long long)version);
}

int object_open(struct disk_dir *dir, uint64_t key, uint64_t version, int flags)
{
	char name[64];
	int fd;

	object_name(key, version, name, sizeof(name));
	fd = openat(dir->objects_fd, name, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 && errno == ENOENT && flags & O_CREAT) {
		name[2] = 0;
		mkdirat(dir->objects_fd, name, 0700);
		name[2] = '/';
		fd = openat(dir->objects_fd, name, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
	}
	return fd < 0 ? -errno : fd;
}

static uint64_t record_offset(uint64_t key, const struct record *r)
{
	return r->kind == KIND_WHOLE ? (uint64_t)extent_key_no(key) << EXTENT_SHIFT :
				       (uint64_t)r->slot * SLOT_BYTES;
}

static void unlink_object(struct disk_dir *dir, uint64_t key, uint64_t version)
{
	char name[64];

	object_name(key, version, name, sizeof(name));
	unlinkat(dir->objects_fd, name, 0);
}

/* Give the bytes of a record back to the file system. No lock held. */
static void punch(struct disk *d, uint64_t key, const struct record *r, int segment_fd)
{
	struct disk_dir *dir = &d->dirs[r->dir];
	int fd = r->kind == KIND_WHOLE ? object_open(dir, key, r->version, O_RDWR) : segment_fd;
	struct stat st;

	if (fd < 0)
		return;
	if (r->kind == KIND_WHOLE && whole_is_lent(fd)) {
		/* zeros must not appear under that reader: the file goes out of reach instead, whole, and lives as long as it is read */
		unlink_object(dir, key, r->version);
		close(fd);
		return;
	}
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)record_offset(key, r),
		      (off_t)record_bytes(r)) && errno != EOPNOTSUPP)
		log_warn("cache disk: cannot free space: %s", strerror(errno));
	if (r->kind == KIND_PACKED)
		return;
	/* an extent on its way into this file has no blocks yet: then the empty file stays, until the next start sweeps it */
	lock_acquire(&d->lock);
	if (!d->whole_writes && !fstat(fd, &st) && st.st_blocks == 0)
		unlink_object(dir, key, r->version);
	lock_release(&d->lock);
	close(fd);
}

/* ---- ranges of whole objects ---- */

static struct range *range_get(struct disk *d, uint64_t key)
{
	struct range *g = map64_get(&d->ranges, key);

	if (g)
		return g;
	g = calloc(1, sizeof(*g));
	if (g && map64_put(&d->ranges, key, g)) {
		free(g);
		return NULL;
	}
	return g;
}

static void range_put(struct disk *d, uint64_t key, struct range *g)
{
	if (g->writers || g->punchers)
		return;
	map64_remove(&d->ranges, key);
	free(g);
	pthread_cond_broadcast(&d->changed);
}

/* Before a write: a punch on its way would take the new bytes with it. Called with the lock held, which it may drop to wait. */
static int range_write_begin(struct disk *d, uint64_t key)
{
	struct range *g;

	while ((g = map64_get(&d->ranges, key)) && g->punchers)
		lock_wait(&d->lock, &d->changed);
	g = range_get(d, key);
	if (!g)
		return -ENOMEM;
	g->writers++;
	return 0;
}

static void range_write_end(struct disk *d, uint64_t key)
{
	struct range *g = map64_get(&d->ranges, key);

	g->writers--;
	range_put(d, key, g);
}

/* Before a punch: NULL if the range holds, or is about to hold, bytes that came after @r. */
static struct range *range_punch_begin(struct disk *d, uint64_t key, const struct record *r)
{
	struct range *g = map64_get(&d->ranges, key);
	struct record now;

	if (g && g->writers)
		return NULL;
	if (!record_find(d, key, &now) && now.kind == KIND_WHOLE && now.version == r->version && now.dir == r->dir)
		return NULL;
	g = range_get(d, key);
	if (g)
		g->punchers++;
	return g;
}

/*
 * Free the space of a record that nobody can find any more. Called with the
 * lock held, which is dropped for the punch.
 */
static void space_free(struct disk *d, uint64_t key, const struct record *r)
{
	struct segments *s = &d->dirs[r->dir].segments;
	struct segment *g = NULL;
	struct range *range = NULL;
	int err;

	if (r->kind == KIND_PACKED) {
		g = segment_get(s, r->segment, &err);
		if (g)
			g->busy++;
	} else {
		range = range_punch_begin(d, key, r);
	}
	lock_release(&d->lock);
	if (g || range)
		punch(d, key, r, g ? g->fd : -1);
	lock_acquire(&d->lock);
	if (range) {
		range->punchers--;
		range_put(d, key, range);
	}
	d->used_bytes -= record_bytes(r);
	d->extents--;
	if (!g)
		return;
	g->busy--;
	g->live_bytes -= record_bytes(r);
	segment_retire(s, g);
}

/* Take a record out of reach; its space follows when its readers are gone. Called with the lock held. */
static void record_forget(struct disk *d, uint64_t key, const struct record *r)
{
	struct busy *b = map64_get(&d->busy, key);

	if (r->kind == KIND_WHOLE)
		whole_lost(d, key);
	if (b && !b->is_dropped && !memcmp(&b->record, r, sizeof(*r)))
		b->is_dropped = true;
	else
		space_free(d, key, r);
}

uint64_t disk_drop(struct disk *d, uint64_t key)
{
	struct record r;

	lock_scope(&d->lock);
	if (whole_is_held(d, key) || record_find(d, key, &r) || pending_put(d, key, NULL))
		return 0;
	record_forget(d, key, &r);
	return record_bytes(&r);
}

/* ---- errors ---- */

static void note_error(struct disk *d, int err, const char *what)
{
	lock_acquire(&d->lock);
	if (++d->errors_in_row == DOWN_AFTER)
		d->probe_ns = clock_ns() + PROBE_NS;
	lock_release(&d->lock);
	stats_inc(d->stats, STAT_DISK_ERRORS);
	log_warn("cache disk: %s: %s", what, strerror(-err));
}

static void note_success(struct disk *d)
{
	lock_scope(&d->lock);
	d->errors_in_row = 0;
}

/* ---- transfers ---- */

static struct transfer *transfer_new(struct disk *d, struct disk_io *io)
{
	struct transfer *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->disk = d;
	t->io = io;
	t->fd = -1;
	return t;
}

/* The last step of every transfer: no field of it is used after done. */
static void transfer_end(struct transfer *t, int err)
{
	struct disk *d = t->disk;
	struct disk_io *io = t->io;

	if (t->fd >= 0)
		close(t->fd);
	free(t->stored);
	free(t);
	io->done(io, err);
	lock_acquire(&d->lock);
	d->in_flight--;
	pthread_cond_broadcast(&d->changed);
	lock_release(&d->lock);
}

/* For outcomes known at once: done is never called from within the submitting call. */
static void end_later(struct work *w)
{
	struct transfer *t = container_of(w, struct transfer, work);

	transfer_end(t, t->err);
}

static void transfer_end_later(struct transfer *t, int err)
{
	t->err = err;
	t->work.run = end_later;
	pool_submit(t->disk->workers, &t->work);
}

static void segment_unbusy(struct transfer *t)
{
	if (!t->segment)
		return;
	t->segment->busy--;
	segment_retire(&t->disk->dirs[t->record.dir].segments, t->segment);
	t->segment = NULL;
}

/* ---- reading ---- */

static void reader_leaves(struct transfer *t)
{
	struct disk *d = t->disk;
	uint64_t key = t->io->key;
	struct busy *b;

	lock_scope(&d->lock);
	segment_unbusy(t);
	b = map64_get(&d->busy, key);
	if (!b || --b->readers)
		return;
	map64_remove(&d->busy, key);
	if (b->is_dropped)
		space_free(d, key, &b->record);
	free(b);
}

void record_damaged(struct disk *d, uint64_t key, const struct record *r)
{
	struct record now;

	stats_inc(d->stats, STAT_DISK_CORRUPT);
	log_warn("cache disk: extent %u of node %llu is damaged; it is fetched again",
		 extent_key_no(key), (unsigned long long)extent_key_ino(key));
	lock_scope(&d->lock);
	if (r->kind == KIND_WHOLE)
		whole_doubt(d, key);
	/* of an object lent to the kernel nothing is taken away: what is fetched again replaces it in place */
	if (!whole_is_held(d, key) && !record_find(d, key, &now) && !memcmp(&now, r, sizeof(now)) &&
	    !pending_put(d, key, NULL))
		record_forget(d, key, &now);
}

static void read_verify(struct transfer *t)
{
	int err = 0;

	if (t->stored)
		err = codec_expand(t->record.codec, t->stored, t->record.stored_len, t->io->buf, t->io->len);
	if (!err && XXH3_64bits(t->io->buf, t->io->len) != t->record.checksum)
		err = -EBADMSG;
	if (err)
		record_damaged(t->disk, t->io->key, &t->record);
	else
		stats_inc(t->disk->stats, STAT_DISK_VERIFIED);
	reader_leaves(t);
	transfer_end(t, err);
}

static void read_verify_work(struct work *w)
{
	read_verify(container_of(w, struct transfer, work));
}

static void read_transferred(struct diskio_op *op, int err)
{
	struct transfer *t = container_of(op, struct transfer, op);

	if (err) {
		if (err != -ENODATA)
			note_error(t->disk, err, "reading");
		record_damaged(t->disk, t->io->key, &t->record);
		reader_leaves(t);
		transfer_end(t, -EBADMSG);
		return;
	}
	if (t->io->len <= INLINE_BYTES) {
		read_verify(t);
		return;
	}
	t->work.run = read_verify_work;
	pool_submit(t->disk->workers, &t->work);
}

/* Register as a reader of the record, so that its space stays. Called with the lock held. */
static int reader_enters(struct disk *d, uint64_t key, const struct record *r)
{
	struct busy *b = map64_get(&d->busy, key);

	if (b && (b->is_dropped || memcmp(&b->record, r, sizeof(*r))))
		return -ENOENT;   /* an older record of this key is still being read: the origin has it */
	if (!b) {
		b = calloc(1, sizeof(*b));
		if (!b || map64_put(&d->busy, key, b)) {
			free(b);
			return -ENOMEM;
		}
		b->record = *r;
	}
	b->readers++;
	return 0;
}

/* Find the record and its file. Called with the lock held. */
static int read_prepare(struct transfer *t)
{
	struct disk *d = t->disk;
	struct record *r = &t->record;
	int rc = record_find(d, t->io->key, r);

	if (rc)
		return -ENOENT;
	if (r->version != t->io->version || r->raw_len != t->io->len)
		return -ENOENT;
	rc = reader_enters(d, t->io->key, r);
	if (rc)
		return rc;
	if (r->kind == KIND_WHOLE) {
		t->fd = object_open(&d->dirs[r->dir], t->io->key, r->version, O_RDONLY);
		return t->fd < 0 ? -EBADMSG : 0;
	}
	t->segment = segment_get(&d->dirs[r->dir].segments, r->segment, &rc);
	if (!t->segment)
		return -EBADMSG;
	t->segment->busy++;
	return 0;
}

void disk_read(struct disk *d, struct disk_io *io)
{
	struct transfer *t;
	int rc;

	while (!(t = transfer_new(d, io)))
		usleep(1000);
	lock_acquire(&d->lock);
	d->in_flight++;
	rc = read_prepare(t);
	lock_release(&d->lock);
	if (!rc && t->record.codec != CODEC_RAW) {
		t->stored = malloc(t->record.stored_len);
		if (!t->stored)
			rc = -ENOMEM;
	}
	if (rc == -EBADMSG)
		record_damaged(d, io->key, &t->record);
	if (rc == -EBADMSG || (rc == -ENOMEM && t->segment))
		reader_leaves(t);
	if (rc) {
		transfer_end_later(t, rc == -EBADMSG ? rc : -ENOENT);
		return;
	}
	t->op = (struct diskio_op){
		.fd = t->segment ? t->segment->fd : t->fd,
		.buf = t->stored ? t->stored : io->buf, .len = t->record.stored_len,
		.offset = record_offset(io->key, &t->record), .done = read_transferred,
	};
	diskio_submit(d->io, &t->op);
}

bool disk_has(struct disk *d, uint64_t key, uint64_t version)
{
	struct record r;

	lock_scope(&d->lock);
	return !record_find(d, key, &r) && r.version == version;
}

/* ---- writing ---- */

/* The write no longer touches its place. Called with the lock held. */
static void write_leaves(struct transfer *t)
{
	struct disk *d = t->disk;

	if (t->in_range) {
		d->whole_writes--;
		range_write_end(d, t->io->key);
	}
	d->reserved_bytes -= t->io->reserved;
}

/* The bytes are there: make the extent readable and what it replaces unreachable. */
static int write_publish(struct transfer *t)
{
	struct disk *d = t->disk;
	uint64_t key = t->io->key;
	struct record old;
	bool has_old;
	int rc = 0;

	lock_scope(&d->lock);
	write_leaves(t);
	d->used_bytes += record_bytes(&t->record);
	d->extents++;
	has_old = !record_find(d, key, &old);
	if (has_old && old.kind == KIND_WHOLE && t->record.kind == KIND_PACKED && whole_is_held(d, key))
		rc = -EBUSY;   /* the kernel reads the old one */
	else
		rc = pending_put(d, key, &t->record);
	if (rc) {
		space_free(d, key, &t->record);
	} else if (has_old && (!memcmp(&old, &t->record, sizeof(old)) ||
			       (old.kind == KIND_WHOLE && t->record.kind == KIND_WHOLE && old.version == t->record.version))) {
		d->used_bytes -= record_bytes(&old);   /* the same bytes of the same file */
		d->extents--;
	} else if (has_old) {
		record_forget(d, key, &old);
	}
	segment_unbusy(t);
	return rc;
}

static void write_abandon(struct transfer *t)
{
	struct disk *d = t->disk;

	lock_scope(&d->lock);
	write_leaves(t);
	if (t->segment)
		t->segment->live_bytes -= record_bytes(&t->record);
	segment_unbusy(t);
}

static void write_transferred(struct diskio_op *op, int err)
{
	struct transfer *t = container_of(op, struct transfer, op);

	if (err) {
		note_error(t->disk, err, "writing");
		write_abandon(t);
		transfer_end(t, err);
		return;
	}
	note_success(t->disk);
	stats_add(t->disk->stats, STAT_DISK_WRITTEN_BYTES, t->record.stored_len);
	transfer_end(t, write_publish(t));
}

/* Choose the place. Called without the lock. */
static int write_place(struct transfer *t)
{
	struct disk *d = t->disk;
	struct record *r = &t->record;
	uint64_t offset;
	int rc;

	r->dir = (uint8_t)(map64_mix(extent_key_ino(t->io->key)) % d->dir_count);
	if (r->kind == KIND_WHOLE) {
		lock_acquire(&d->lock);
		rc = range_write_begin(d, t->io->key);
		t->in_range = !rc;
		d->whole_writes += !rc;
		lock_release(&d->lock);
		if (rc)
			return rc;
		t->fd = object_open(&d->dirs[r->dir], t->io->key, r->version, O_RDWR | O_CREAT);
		return t->fd < 0 ? t->fd : 0;
	}
	lock_scope(&d->lock);
	rc = segment_alloc(&d->dirs[r->dir].segments, r->stored_len, &t->segment, &offset);
	if (rc)
		return rc;
	r->segment = t->segment->id;
	r->slot = (uint32_t)(offset / SLOT_BYTES);
	return 0;
}

void disk_prefer_whole(struct disk *d)
{
	atomic_store(&d->prefers_whole, true);
}

static bool stays_raw(struct disk *d, const struct disk_io *io)
{
	if (io->object_bytes <= DISK_WHOLE_MIN || d->codec.mode == DISK_CODEC_LZ4 || !atomic_load(&d->prefers_whole))
		return false;
	lock_scope(&d->lock);
	return d->used_bytes + d->reserved_bytes < limit_now(d) / 2;
}

static void write_work(struct work *w)
{
	struct transfer *t = container_of(w, struct transfer, work);
	struct disk_io *io = t->io;
	size_t stored = io->len;
	int rc;

	t->stored = stays_raw(t->disk, io) ? NULL : codec_compress(&t->disk->codec, io->buf, io->len, &stored);
	t->record = (struct record){
		.version = io->version, .checksum = XXH3_64bits(io->buf, io->len),
		.stored_len = (uint32_t)stored, .raw_len = (uint32_t)io->len,
		.codec = t->stored ? CODEC_LZ4 : CODEC_RAW,
		.kind = t->stored || io->object_bytes <= DISK_WHOLE_MIN ? KIND_PACKED : KIND_WHOLE,
	};
	rc = write_place(t);
	if (rc) {
		note_error(t->disk, rc, "making room");
		write_abandon(t);
		transfer_end(t, rc);
		return;
	}
	t->op = (struct diskio_op){
		.fd = t->segment ? t->segment->fd : t->fd, .is_write = true,
		.buf = t->stored ? t->stored : io->buf, .len = stored,
		.offset = record_offset(io->key, &t->record), .done = write_transferred,
	};
	diskio_submit(t->disk->io, &t->op);
}

void disk_write(struct disk *d, struct disk_io *io)
{
	struct transfer *t;

	while (!(t = transfer_new(d, io)))
		usleep(1000);
	lock_acquire(&d->lock);
	d->in_flight++;
	lock_release(&d->lock);
	t->work.run = write_work;
	pool_submit(d->workers, &t->work);
}

/* ---- committing ---- */

struct change {
	uint64_t key;
	struct pending value;
};

/* Copy what is pending. Called with the lock held. */
static struct change *pending_copy(struct disk *d, size_t *ret_count)
{
	struct change *list = malloc(d->pending.count * sizeof(*list));
	struct pending *p;
	size_t pos = 0, n = 0;
	uint64_t key;

	while (list && (p = map64_next(&d->pending, &pos, &key)))
		list[n++] = (struct change){ key, *p };
	*ret_count = n;
	return list;
}

static int by_key(const void *a, const void *b)
{
	uint64_t x = ((const struct change *)a)->key, y = ((const struct change *)b)->key;

	return x < y ? -1 : x > y;
}

static int commit_changes(struct disk *d, struct change *list, size_t n)
{
	MDB_txn *txn;
	int rc = store_write_begin(d->store, &txn);

	if (rc)
		return rc;
	qsort(list, n, sizeof(*list), by_key);
	for (size_t i = 0; i < n && !rc; i++) {
		MDB_val k = { sizeof(list[i].key), &list[i].key };
		MDB_val v = { sizeof(list[i].value.record), &list[i].value.record };

		rc = store_errno(list[i].value.is_deletion ? mdb_del(txn, d->table, &k, NULL) :
							     mdb_put(txn, d->table, &k, &v, 0));
		if (rc == -ENOENT)
			rc = 0;
	}
	if (rc) {
		store_write_abort(d->store, txn);
		return rc;
	}
	return store_write_commit(d->store, txn);
}

/* Remove from pending what was committed and not changed since. Called with the lock held. */
static void pending_clear(struct disk *d, const struct change *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct pending *p = map64_get(&d->pending, list[i].key);

		if (p && p->change == list[i].value.change) {
			map64_remove(&d->pending, list[i].key);
			free(p);
		}
	}
}

/* Write out everything pending once. Called with the lock held, which is dropped meanwhile. */
static int commit_once(struct disk *d)
{
	struct change *list;
	size_t n;
	int rc;

	list = pending_copy(d, &n);
	lock_release(&d->lock);
	rc = list ? commit_changes(d, list, n) : -ENOMEM;
	atomic_store(&d->index_bytes, store_bytes(d->store));
	lock_acquire(&d->lock);
	if (!rc)
		pending_clear(d, list, n);
	free(list);
	if (rc)
		log_error("cache index: commit failed: %s; the cache is not remembered after a restart", strerror(-rc));
	return rc;
}

/* Bytes first, then the index that names them. No lock held. */
static void sync_all(struct disk *d)
{
	for (unsigned i = 0; i < d->dir_count; i++) {
		if (!syncfs(d->dirs[i].fd))
			continue;
		note_error(d, -errno, "syncing");
		lock_acquire(&d->lock);
		d->doubts++;   /* what was written may not be what is there */
		lock_release(&d->lock);
	}
	store_sync(d->store);
}

/* Have the kernel begin to write what is new, so that the sync every SYNC_GAP_NS finds little and stalls nobody. */
static void start_writeback(struct disk *d)
{
	for (unsigned i = 0; i < d->dir_count; i++) {
		int fd = -1;

		lock_acquire(&d->lock);
		if (d->dirs[i].segments.open)
			fd = fcntl(d->dirs[i].segments.open->fd, F_DUPFD_CLOEXEC, 3);
		lock_release(&d->lock);
		if (fd < 0)
			continue;
		sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE);
		close(fd);
	}
}

static void *committer_thread(void *arg)
{
	struct disk *d = arg;
	uint64_t synced_ns = clock_ns(), written_ns = synced_ns;
	bool is_dirty = false;

	pthread_setname_np(pthread_self(), "committer");
	lock_acquire(&d->lock);
	while (!d->is_closing) {
		if (d->pending.count) {
			int rc = commit_once(d);
			uint64_t until = clock_ns() + (rc ? NSEC_PER_SEC : COMMIT_GAP_NS);

			is_dirty = true;
			while (!d->is_closing && clock_ns() < until)
				lock_wait_until(&d->lock, &d->changed, until);
		} else if (is_dirty) {
			lock_wait_until(&d->lock, &d->changed, synced_ns + SYNC_GAP_NS);
		} else {
			lock_wait(&d->lock, &d->changed);
		}
		if (is_dirty && clock_ns() >= written_ns + WRITEBACK_GAP_NS) {
			lock_release(&d->lock);
			start_writeback(d);
			lock_acquire(&d->lock);
			written_ns = clock_ns();
		}
		if (is_dirty && clock_ns() >= synced_ns + SYNC_GAP_NS) {
			is_dirty = false;
			lock_release(&d->lock);
			sync_all(d);
			lock_acquire(&d->lock);
			synced_ns = clock_ns();
		}
	}
	if (d->pending.count)
		commit_once(d);
	lock_release(&d->lock);
	return NULL;
}

/* ---- walking ---- */

struct walk_item {
	uint64_t key, version;
	uint32_t bytes;
	struct record record;
};

/* Up to WALK_BATCH records from @from on. */
static int walk_batch(struct disk *d, uint64_t from, struct walk_item *item, size_t *ret_count)
{
	MDB_val k = { sizeof(from), &from }, v;
	MDB_cursor_op op = MDB_SET_RANGE;
	MDB_cursor *cursor;
	MDB_txn *txn;
	size_t n = 0;
	int rc = store_read_begin(d->store, &txn);

	if (rc)
		return rc;
	rc = store_errno(mdb_cursor_open(txn, d->table, &cursor));
	while (!rc && n < WALK_BATCH && !mdb_cursor_get(cursor, &k, &v, op)) {
		op = MDB_NEXT;
		if (v.mv_size != sizeof(item[n].record))
			continue;
		memcpy(&item[n].key, k.mv_data, sizeof(item[n].key));
		memcpy(&item[n].record, v.mv_data, sizeof(item[n].record));
		item[n].version = item[n].record.version;
		item[n].bytes = (uint32_t)record_bytes(&item[n].record);
		n++;
	}
	if (!rc)
		mdb_cursor_close(cursor);
	store_read_end(d->store, txn);
	*ret_count = n;
	return rc;
}

int disk_walk(struct disk *d, uint64_t from,
	      int (*fn)(void *arg, uint64_t key, uint64_t version, uint32_t disk_bytes), void *arg)
{
	_cleanup_free_ struct walk_item *item = malloc(WALK_BATCH * sizeof(*item));
	size_t n;

	if (!item)
		return -ENOMEM;
	for (;;) {
		int rc = walk_batch(d, from, item, &n);

		for (size_t i = 0; i < n && !rc; i++) {
			rc = fn(arg, item[i].key, item[i].version, item[i].bytes);
			from = item[i].key + 1;
		}
		if (rc || n < WALK_BATCH)
			return rc;
	}
}

/* ---- start and end ---- */

static bool is_record_sane(const struct disk *d, const struct record *r)
{
	return r->dir < d->dir_count && (r->kind == KIND_PACKED || r->kind == KIND_WHOLE) &&
	       r->raw_len && r->raw_len <= (1u << EXTENT_SHIFT) && r->stored_len && r->stored_len <= r->raw_len &&
	       r->codec <= CODEC_LZ4 &&
	       (r->kind == KIND_WHOLE || ((uint64_t)r->slot * SLOT_BYTES + r->stored_len <= SEGMENT_BYTES));
}

/* Rebuild the accounts from the index. */
static int adopt_all(struct disk *d)
{
	_cleanup_free_ struct walk_item *item = malloc(WALK_BATCH * sizeof(*item));
	uint64_t from = 0;
	size_t n;

	if (!item)
		return -ENOMEM;
	do {
		int rc = walk_batch(d, from, item, &n);

		for (size_t i = 0; i < n && !rc; i++) {
			const struct record *r = &item[i].record;

			from = item[i].key + 1;
			if (!is_record_sane(d, r)) {
				rc = pending_put(d, item[i].key, NULL);
				continue;
			}
			d->used_bytes += record_bytes(r);
			d->extents++;
			if (r->kind == KIND_PACKED)
				rc = segment_adopt(&d->dirs[r->dir].segments, r->segment, r->stored_len);
		}
		if (rc)
			return rc;
	} while (n == WALK_BATCH);
	return 0;
}

/* Does the index still know an extent of the object with this file name? */
static bool object_is_known(struct disk *d, const char *name)
{
	unsigned long long ino, version;
	MDB_cursor *cursor;
	struct record r;
	uint64_t key;
	MDB_val k, v;
	MDB_txn *txn;
	bool is_known = false;

	if (sscanf(name, "%llx-%llx", &ino, &version) != 2 || store_read_begin(d->store, &txn))
		return false;
	key = extent_key(ino, 0);
	k = (MDB_val){ sizeof(key), &key };
	if (!mdb_cursor_open(txn, d->table, &cursor)) {
		if (!mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE) && v.mv_size == sizeof(r)) {
			memcpy(&key, k.mv_data, sizeof(key));
			memcpy(&r, v.mv_data, sizeof(r));
			is_known = extent_key_ino(key) == ino && r.version == version;
		}
		mdb_cursor_close(cursor);
	}
	store_read_end(d->store, txn);
	return is_known;
}

static void sweep_objects(struct disk *d, int objects_fd)
{
	for (unsigned i = 0; i < 256; i++) {
		char name[8];
		struct dirent *de;
		DIR *dir;
		int fd;

		snprintf(name, sizeof(name), "%02x", i);
		fd = openat(objects_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		dir = fd < 0 ? NULL : fdopendir(fd);
		while (dir && (de = readdir(dir))) {
			if (de->d_name[0] != '.' && !object_is_known(d, de->d_name))
				unlinkat(fd, de->d_name, 0);
		}
		if (dir)
			closedir(dir);
	}
}

static int open_dirs(struct disk *d, const struct disk_config *cfg)
{
	d->dirs = calloc(cfg->dir_count, sizeof(*d->dirs));
	if (!d->dirs)
		return -ENOMEM;
	for (unsigned i = 0; i < cfg->dir_count; i++) {
		struct disk_dir *dir = &d->dirs[d->dir_count++];
		int rc;

		dir->fd = cfg->dir_fds[i];
		dir->objects_fd = -1;
		rc = segments_open(&dir->segments, dir->fd);
		if (rc)
			return rc;
		if (mkdirat(dir->fd, "objects", 0700) && errno != EEXIST)
			return -errno;
		dir->objects_fd = openat(dir->fd, "objects", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (dir->objects_fd < 0)
			return -errno;
	}
	return 0;
}

static void disk_free(struct disk *d)
{
	struct pending *p;
	size_t pos = 0;

	pool_free(d->workers);
	diskio_free(d->io);
	for (unsigned i = 0; i < d->dir_count; i++) {
		segments_close(&d->dirs[i].segments);
		if (d->dirs[i].objects_fd >= 0)
			close(d->dirs[i].objects_fd);
	}
	while ((p = map64_next(&d->pending, &pos, NULL)))
		free(p);
	map64_clear(&d->pending);
	pos = 0;
	for (struct object *o; (o = map64_next(&d->objects, &pos, NULL));)
		free(o);
	map64_clear(&d->busy);
	map64_clear(&d->ranges);
	map64_clear(&d->objects);
	free(d->dirs);
	pthread_cond_destroy(&d->changed);
	lock_destroy(&d->lock);
	free(d);
}

/* Segments are kept open: 256 MiB each, so a terabyte needs four thousand descriptors. */
static void raise_file_limit(void)
{
	struct rlimit rl;

	if (!getrlimit(RLIMIT_NOFILE, &rl) && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

static int disk_start(struct disk *d, const struct disk_config *cfg)
{
	int rc = open_dirs(d, cfg);

	if (!rc)
		rc = store_table(d->store, "extent", MDB_INTEGERKEY, &d->table);
	if (!rc)
		rc = adopt_all(d);
	if (rc)
		return rc;
	d->doubts = cfg->verify_all || (!cfg->was_clean && d->extents);
	for (unsigned i = 0; i < d->dir_count; i++) {
		segments_sweep(&d->dirs[i].segments);
		sweep_objects(d, d->dirs[i].objects_fd);
	}
	rc = pool_new("disk-worker", WORKERS, &d->workers);
	if (!rc)
		rc = diskio_new(false, &d->io);
	if (!rc)
		rc = -pthread_create(&d->committer, NULL, committer_thread, d);
	return rc;
}

int disk_open(const struct disk_config *cfg, struct store *store, struct stats *stats,
	      struct disk **ret_disk, char *msg, size_t msg_size)
{
	struct disk *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return -ENOMEM;
	d->store = store;
	d->stats = stats;
	d->limit_bytes = cfg->limit_bytes;
	d->min_free_bytes = cfg->min_free_bytes;
	d->codec.mode = cfg->codec;
	d->codec.stats = stats;
	atomic_store(&d->index_bytes, store_bytes(store));
	lock_init(&d->lock, "disk", RANK_DISK);
	lock_cond_init(&d->changed);
	raise_file_limit();
	rc = disk_start(d, cfg);
	if (rc) {
		snprintf(msg, msg_size, "cache %s: %s", cfg->dirs[0], strerror(-rc));
		disk_free(d);
		return rc;
	}
	*ret_disk = d;
	return 0;
}

void disk_close(struct disk *d)
{
	if (!d)
		return;
	lock_acquire(&d->lock);
	d->is_stopping = true;
	while (d->in_flight)
		lock_wait(&d->lock, &d->changed);
	d->is_closing = true;
	pthread_cond_broadcast(&d->changed);
	lock_release(&d->lock);
	pthread_join(d->committer, NULL);
	sync_all(d);
	disk_free(d);
}

void disk_publish(struct disk *d)
{
	const char *state;

	lock_acquire(&d->lock);
	stats_set(d->stats, STAT_DISK_BYTES, d->used_bytes + atomic_load(&d->index_bytes));
	stats_set(d->stats, STAT_DISK_LIMIT_BYTES, limit_now(d) + atomic_load(&d->index_bytes));
	stats_set(d->stats, STAT_DISK_OBJECTS, d->extents);
	state = d->errors_in_row >= DOWN_AFTER ? "down" : d->errors_in_row ? "shaky" : "ok";
	lock_release(&d->lock);
	stats_set_text(d->stats, STAT_DISK_STATE, state);
}

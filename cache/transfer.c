/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A write:  volume_write -> [worker] checksum, codec, place -> diskio -> written:
 *           the record goes to `pending` and is readable -> done -> committer.
 * A read:   volume_read -> find (pending, then index) -> diskio -> [worker if
 *           large] checksum, codec -> done.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "cache/diskio.h"
#include "cache/volume_impl.h"
#include "lib/log.h"
#include "lib/stats.h"

enum { INLINE_BYTES = 256 * 1024 };    /* checksums up to this run on the completion thread */

/* disk_io.priv */
struct transfer {
	struct diskio_op op;
	struct work work;
	struct volume *volume;
	struct disk_io *io;
	struct record record;
	struct segment *segment;       /* busy while in flight, or NULL */
	int fd;                        /* of a whole object: owned */
	bool is_direct;                /* a read past the page cache */
	bool was_refused;              /* ... which the kernel did not take */
	bool in_range;                 /* a write that has its range */
	void *stored;                  /* compressed bytes: owned, or NULL */
	int err;
};

/* ---- transfers ---- */

static struct transfer *transfer_new(struct volume *v, struct disk_io *io)
{
	struct transfer *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->volume = v;
	t->io = io;
	t->fd = -1;
	return t;
}

/* The last step of every transfer: no field of it is used after done. */
static void transfer_end(struct transfer *t, int err)
{
	struct volume *v = t->volume;
	struct disk_io *io = t->io;

	if (t->fd >= 0)
		close(t->fd);
	free(t->stored);
	free(t);
	io->done(io, err);
	lock_scope(&v->lock);
	volume_leave(v);
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
	pool_submit(t->volume->workers, &t->work);
}

static void segment_unbusy(struct transfer *t)
{
	if (!t->segment)
		return;
	t->segment->busy--;
	segment_retire(&t->volume->segments, t->segment);
	t->segment = NULL;
}

/* ---- reading ---- */

static void reader_leaves(struct transfer *t)
{
	struct volume *v = t->volume;
	uint64_t key = t->io->key;
	struct busy *b;

	lock_scope(&v->lock);
	segment_unbusy(t);
	b = map64_get(&v->busy, key);
	if (!b || --b->readers)
		return;
	map64_remove(&v->busy, key);
	if (b->is_dropped)
		space_free(v, key, &b->record);
	free(b);
}

void record_damaged(struct volume *v, uint64_t key, const struct record *r)
{
	struct record now;

	stats_inc(v->stats, STAT_DISK_CORRUPT);
	log_warn("cache %s: extent %u of node %llu is damaged; it is fetched again", v->path,
		 extent_key_no(key), (unsigned long long)extent_key_ino(key));
	lock_scope(&v->lock);
	if (r->kind == KIND_WHOLE)
		whole_doubt(v, key);
	/* of an object lent to the kernel nothing is taken away: what is fetched again replaces it in place */
	if (!whole_is_held(v, key) && !record_find(v, key, &now) && !memcmp(&now, r, sizeof(now)) &&
	    !pending_put(v, key, NULL))
		record_forget(v, key, &now);
}

static void read_verify(struct transfer *t)
{
	int err = 0;

	if (t->stored)
		err = codec_expand(t->record.codec, t->stored, t->record.stored_len, t->io->buf, t->io->len);
	if (!err && XXH3_64bits(t->io->buf, t->io->len) != t->record.checksum)
		err = -EBADMSG;
	if (err)
		record_damaged(t->volume, t->io->key, &t->record);
	else
		stats_inc(t->volume->stats, STAT_DISK_VERIFIED);
	reader_leaves(t);
	transfer_end(t, err);
}

static void read_verify_work(struct work *w)
{
	read_verify(container_of(w, struct transfer, work));
}

/* Alignment this disk does not take, or a file that ends where none of ours does: the page cache can tell. */
static void read_buffered(struct transfer *t)
{
	t->is_direct = false;
	t->was_refused = true;
	t->op.fd = t->segment->fd;
	t->op.asked = 0;
	diskio_submit(t->volume->io, &t->op);
}

static void direct_refused(struct volume *v)
{
	if (atomic_exchange(&v->reads_direct, false))
		log_info("cache %s: cannot be read past the page cache", v->path);
}

static void read_transferred(struct diskio_op *op, int err)
{
	struct transfer *t = container_of(op, struct transfer, op);

	if (err == -EINVAL && t->is_direct) {
		read_buffered(t);
		return;
	}
	if (!err && t->was_refused)
		direct_refused(t->volume);
	if (!err && t->is_direct)
		stats_inc(t->volume->stats, STAT_DISK_DIRECT);
	if (err) {
		volume_answered(t->volume, false, err == -ENODATA ? 0 : err, "reading");
		record_damaged(t->volume, t->io->key, &t->record);
		reader_leaves(t);
		transfer_end(t, -EBADMSG);
		return;
	}
	volume_answered(t->volume, false, 0, NULL);
	if (t->io->len <= INLINE_BYTES) {
		read_verify(t);
		return;
	}
	t->work.run = read_verify_work;
	pool_submit(t->volume->workers, &t->work);
}

/* Register as a reader of the record, so that its space stays. Called with the lock held. */
static int reader_enters(struct volume *v, uint64_t key, const struct record *r)
{
	struct busy *b = map64_get(&v->busy, key);

	if (b && (b->is_dropped || memcmp(&b->record, r, sizeof(*r))))
		return -ENOENT;   /* an older record of this key is still being read: the origin has it */
	if (!b) {
		b = calloc(1, sizeof(*b));
		if (!b || map64_put(&v->busy, key, b)) {
			free(b);
			return -ENOMEM;
		}
		b->record = *r;
	}
	b->readers++;
	return 0;
}

/*
 * The descriptor to read the record by, past the page cache what needs not be in it; or negative errno. Whole objects are read
 * from one end to the other, for which the page cache's read-ahead is good. Called with the lock held.
 */
static int read_open(struct transfer *t)
{
	struct volume *v = t->volume;
	int fd;

	if (t->record.kind == KIND_WHOLE)
		return t->fd = object_open(v, t->io->key, t->record.version, O_RDONLY);
	if (!t->segment->is_settled || !atomic_load(&v->reads_direct))
		return t->segment->fd;
	fd = segment_direct(&v->segments, t->segment);
	if (fd == -EINVAL)
		direct_refused(v);
	t->is_direct = fd >= 0;
	return t->is_direct ? fd : t->segment->fd;
}

/* Find the record and its file. Called with the lock held. */
static int read_prepare(struct transfer *t)
{
	struct volume *v = t->volume;
	struct record *r = &t->record;
	int rc = record_find(v, t->io->key, r);

	if (rc)
		return -ENOENT;
	if (r->version != t->io->version || r->raw_len != t->io->len)
		return -ENOENT;
	rc = reader_enters(v, t->io->key, r);
	if (rc)
		return rc;
	if (r->kind == KIND_PACKED) {
		t->segment = segment_get(&v->segments, r->segment, &rc);
		if (!t->segment)
			return -EBADMSG;
		t->segment->busy++;
	}
	t->op.fd = read_open(t);
	return t->op.fd < 0 ? -EBADMSG : 0;
}

void volume_read(struct volume *v, struct disk_io *io)
{
	struct transfer *t;
	int rc;

	while (!(t = transfer_new(v, io)))
		usleep(1000);
	lock_acquire(&v->lock);
	v->in_flight++;
	rc = read_prepare(t);
	lock_release(&v->lock);
	if (!rc && t->record.codec != CODEC_RAW) {
		t->stored = aligned_alloc(SLOT_BYTES, slot_round(t->record.stored_len));
		if (!t->stored)
			rc = -ENOMEM;
	}
	if (rc == -EBADMSG)
		record_damaged(v, io->key, &t->record);
	if (rc == -EBADMSG || (rc == -ENOMEM && t->segment))
		reader_leaves(t);
	if (rc) {
		transfer_end_later(t, rc == -EBADMSG ? rc : -ENOENT);
		return;
	}
	t->op.buf = t->stored ? t->stored : io->buf;
	t->op.len = t->record.stored_len;
	t->op.asked = t->is_direct ? slot_round(t->op.len) : 0;
	t->op.offset = record_offset(io->key, &t->record);
	t->op.done = read_transferred;
	volume_asked(v, false);
	diskio_submit(v->io, &t->op);
}

bool volume_has(struct volume *v, uint64_t key, uint64_t version)
{
	struct record r;

	if (!volume_serves(v))
		return false;
	lock_scope(&v->lock);
	return !record_find(v, key, &r) && r.version == version;
}

/* ---- writing ---- */

/* The write no longer touches its place. Called with the lock held. */
static void write_leaves(struct transfer *t)
{
	struct volume *v = t->volume;

	if (t->in_range) {
		v->whole_writes--;
		range_write_end(v, t->io->key);
	}
	v->reserved_bytes -= t->io->room.bytes;
}

/* The bytes are there: make the extent readable and what it replaces unreachable. */
static int write_publish(struct transfer *t)
{
	struct volume *v = t->volume;
	uint64_t key = t->io->key;
	struct record old;
	bool has_old;
	int rc = 0;

	lock_scope(&v->lock);
	write_leaves(t);
	v->used_bytes += record_bytes(&t->record);
	v->extents++;
	has_old = !record_find(v, key, &old);
	if (has_old && old.kind == KIND_WHOLE && t->record.kind == KIND_PACKED && whole_is_held(v, key))
		rc = -EBUSY;   /* the kernel reads the old one */
	else
		rc = pending_put(v, key, &t->record);
	if (rc) {
		space_free(v, key, &t->record);
	} else if (has_old && (!memcmp(&old, &t->record, sizeof(old)) ||
			       (old.kind == KIND_WHOLE && t->record.kind == KIND_WHOLE && old.version == t->record.version))) {
		v->used_bytes -= record_bytes(&old);   /* the same bytes of the same file */
		v->extents--;
	} else if (has_old) {
		record_forget(v, key, &old);
	}
	segment_unbusy(t);
	return rc;
}

static void write_abandon(struct transfer *t)
{
	struct volume *v = t->volume;

	lock_scope(&v->lock);
	write_leaves(t);
	if (t->segment)
		t->segment->live_bytes -= record_bytes(&t->record);
	segment_unbusy(t);
}

static void write_transferred(struct diskio_op *op, int err)
{
	struct transfer *t = container_of(op, struct transfer, op);

	if (err) {
		volume_answered(t->volume, true, err, "writing");
		write_abandon(t);
		transfer_end(t, err);
		return;
	}
	volume_answered(t->volume, true, 0, NULL);
	stats_add(t->volume->stats, STAT_DISK_WRITTEN_BYTES, t->record.stored_len);
	transfer_end(t, write_publish(t));
}

/* Choose the place. Called without the lock. */
static int write_place(struct transfer *t)
{
	struct volume *v = t->volume;
	struct record *r = &t->record;
	uint64_t offset;
	int rc;

	if (r->kind == KIND_WHOLE) {
		lock_acquire(&v->lock);
		rc = range_write_begin(v, t->io->key);
		t->in_range = !rc;
		v->whole_writes += !rc;
		lock_release(&v->lock);
		if (rc)
			return rc;
		t->fd = object_open(v, t->io->key, r->version, O_RDWR | O_CREAT);
		return t->fd < 0 ? t->fd : 0;
	}
	lock_scope(&v->lock);
	rc = segment_alloc(&v->segments, r->stored_len, &t->segment, &offset);
	if (rc)
		return rc;
	r->segment = t->segment->id;
	r->slot = (uint32_t)(offset / SLOT_BYTES);
	return 0;
}

void volume_prefer_whole(struct volume *v)
{
	atomic_store(&v->prefers_whole, true);
}

static bool stays_raw(struct volume *v, const struct disk_io *io)
{
	if (io->object_bytes <= DISK_WHOLE_MIN || v->codec.mode == DISK_CODEC_LZ4 || !atomic_load(&v->prefers_whole))
		return false;
	lock_scope(&v->lock);
	return v->used_bytes + v->reserved_bytes < space_limit(v) / 2;
}

static void write_work(struct work *w)
{
	struct transfer *t = container_of(w, struct transfer, work);
	struct disk_io *io = t->io;
	size_t stored = io->len;
	int rc;

	t->stored = stays_raw(t->volume, io) ? NULL : codec_compress(&t->volume->codec, io->buf, io->len, &stored);
	t->record = (struct record){
		.version = io->version, .checksum = XXH3_64bits(io->buf, io->len),
		.stored_len = (uint32_t)stored, .raw_len = (uint32_t)io->len,
		.codec = t->stored ? CODEC_LZ4 : CODEC_RAW,
		.kind = t->stored || io->object_bytes <= DISK_WHOLE_MIN ? KIND_PACKED : KIND_WHOLE,
	};
	rc = write_place(t);
	if (rc) {
		volume_answered(t->volume, true, rc, "making a file");
		write_abandon(t);
		transfer_end(t, rc);
		return;
	}
	t->op = (struct diskio_op){
		.fd = t->segment ? t->segment->fd : t->fd, .is_write = true,
		.buf = t->stored ? t->stored : io->buf, .len = stored,
		.offset = record_offset(io->key, &t->record), .done = write_transferred,
	};
	volume_asked(t->volume, true);
	diskio_submit(t->volume->io, &t->op);
}

void volume_write(struct volume *v, struct disk_io *io)
{
	struct transfer *t;

	while (!(t = transfer_new(v, io)))
		usleep(1000);
	lock_acquire(&v->lock);
	v->in_flight++;
	lock_release(&v->lock);
	t->work.run = write_work;
	pool_submit(v->workers, &t->work);
}

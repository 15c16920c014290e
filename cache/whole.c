/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole objects lent to the kernel, which then reads their files without us.
 *
 *   disk_whole_open: hold -> scan (is every record there?) -> open
 *                      -> verify, if in doubt (in the background if it takes long) -> lock the file
 *
 *   (E) rests on three things:
 *   - a hold: while it lasts no record of the object is dropped, so no range of
 *     its file is punched (disk_drop, record_damaged, write_publish look at it);
 *   - a punch never meets bytes that came after the record it frees (ranges in
 *     disk.c), so where a record is, its bytes are;
 *   - the descriptor carries a read lock, which the kernel keeps as long as it
 *     keeps the file: a daemon that comes after a crash sees it (whole_is_lent) and
 *     does not punch under a reader it knows nothing of.
 *
 * Doubt is a number: d->doubts rises when what is on disk may not be what was
 * written; an object is believed when all of it was verified at the present number.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "cache/disk_impl.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/list.h"
#include "lib/log.h"
#include "lib/pool.h"
#include "lib/stats.h"

enum {
	SCAN_INLINE = 4096,      /* records looked up on a thread that must not block: some milliseconds */
	SCAN_BATCH = 256,        /* ... with the lock held */
	VERIFY_BATCH = 64,       /* extents a turn in the background takes */
};

#define EXTENT_MAX (1u << EXTENT_SHIFT)
#define VERIFY_WAIT_NS (2 * NSEC_PER_SEC)   /* an opener waits so long; then the daemon serves it meanwhile */

/* A verification, with a hold of its own. */
struct check {
	struct work work;
	struct disk *disk;
	struct object *object;
	uint64_t ino, version, size;
	int fd;                  /* owned */
	char *buf;               /* EXTENT_MAX bytes; owned */
	uint64_t bad_key;        /* after -EBADMSG: what was damaged */
	struct record bad;
};

static uint32_t extents_of(uint64_t size)
{
	return (uint32_t)((size + EXTENT_MAX - 1) >> EXTENT_SHIFT);
}

static uint32_t len_of(uint64_t size, uint32_t no)
{
	uint64_t left = size - ((uint64_t)no << EXTENT_SHIFT);

	return left < EXTENT_MAX ? (uint32_t)left : EXTENT_MAX;
}

/* ---- what disk.c asks and tells, with the lock held ---- */

static struct object *object_get(struct disk *d, uint64_t ino)
{
	struct object *o = map64_get(&d->objects, ino);

	if (o)
		return o;
	o = calloc(1, sizeof(*o));
	if (o && map64_put(&d->objects, ino, o)) {
		free(o);
		return NULL;
	}
	return o;
}

bool whole_is_held(struct disk *d, uint64_t key)
{
	const struct object *o = map64_get(&d->objects, extent_key_ino(key));

	return o && o->holds;
}

void whole_lost(struct disk *d, uint64_t key)
{
	struct object *o = map64_get(&d->objects, extent_key_ino(key));

	if (o)
		o->is_complete = false;
}

void whole_doubt(struct disk *d, uint64_t key)
{
	struct object *o = object_get(d, extent_key_ino(key));

	if (!o)
		return;
	o->checked = 0;
	o->settled = UINT64_MAX;
	o->is_verified = false;
}

bool whole_is_lent(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	return !fcntl(fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
}

/* ---- is it all there? ---- */

/* Called with the lock held, which it drops now and then; the caller holds the object. *ret_dir: where its file is. */
static int scan(struct disk *d, struct object *o, const struct check *k, bool may_block, uint8_t *ret_dir)
{
	uint32_t count = extents_of(k->size), first = o->missing < count ? o->missing : 0;
	struct record r;

	if (record_find(d, extent_key(k->ino, 0), &r) || r.version != k->version)
		return -ENOENT;
	*ret_dir = r.dir;
	if (o->is_complete)
		return 0;
	if (count > SCAN_INLINE && !may_block)
		return -EAGAIN;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t no = first + i < count ? first + i : first + i - count;

		if (record_find(d, extent_key(k->ino, no), &r) || r.kind != KIND_WHOLE || r.version != k->version ||
		    r.dir != *ret_dir || r.raw_len != len_of(k->size, no)) {
			o->missing = no;
			return -ENOENT;
		}
		if (i % SCAN_BATCH == SCAN_BATCH - 1) {
			lock_release(&d->lock);
			lock_acquire(&d->lock);
		}
	}
	o->is_complete = true;
	return 0;
}

/* ---- is it right? ---- */

static int read_all(int fd, char *buf, size_t len, off_t offset)
{
	while (len) {
		ssize_t n = pread(fd, buf, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		buf += n;
		offset += n;
		len -= (size_t)n;
	}
	return 0;
}

static int check_extent(struct check *k, uint32_t no)
{
	struct disk *d = k->disk;
	uint64_t key = extent_key(k->ino, no);
	struct record r;
	int rc;

	lock_acquire(&d->lock);
	rc = record_find(d, key, &r);
	lock_release(&d->lock);
	if (rc)
		return rc;
	rc = read_all(k->fd, k->buf, r.raw_len, (off_t)no << EXTENT_SHIFT);
	if (rc || XXH3_64bits(k->buf, r.raw_len) != r.checksum) {
		k->bad_key = key;
		k->bad = r;
		return -EBADMSG;
	}
	stats_inc(d->stats, STAT_DISK_VERIFIED);
	return 0;
}

/* Up to @until_ns or @max extents. 0 when all are right, -EINPROGRESS, -EBADMSG, -ESHUTDOWN. */
static int check_some(struct check *k, uint32_t max, uint64_t until_ns)
{
	struct disk *d = k->disk;
	struct object *o = k->object;
	uint32_t count = extents_of(k->size);

	for (uint32_t done = 0;; done++) {
		uint32_t no;
		bool stops;
		int rc;

		lock_acquire(&d->lock);
		if (o->checking != d->doubts) {
			o->checking = d->doubts;
			o->checked = 0;
		}
		no = o->checked;
		stops = d->is_stopping;
		if (no == count) {
			o->settled = o->checking;
			o->is_verified = true;
		}
		lock_release(&d->lock);
		if (no == count || stops)
			return stops ? -ESHUTDOWN : 0;
		if (done == max || clock_ns() >= until_ns)
			return -EINPROGRESS;
		rc = check_extent(k, no);
		if (rc)
			return rc;
		lock_acquire(&d->lock);
		if (o->checked == no)   /* else something of it was found damaged meanwhile */
			o->checked++;
		lock_release(&d->lock);
	}
}

/* The object is not checked any more; gives up the hold. */
static void check_end(struct check *k, int rc)
{
	struct disk *d = k->disk;

	close(k->fd);
	free(k->buf);
	lock_scope(&d->lock);
	k->object->is_checking = false;
	k->object->holds--;
	d->in_flight--;
	pthread_cond_broadcast(&d->changed);
	if (!rc)
		log_info("cache disk: node %llu was verified", (unsigned long long)k->ino);
}

static void check_run(struct work *w)
{
	struct check *k = container_of(w, struct check, work);
	int rc = check_some(k, VERIFY_BATCH, UINT64_MAX);

	if (rc == -EINPROGRESS) {
		pool_submit(k->disk->workers, &k->work);   /* behind what waits there: reads and writes */
		return;
	}
	if (rc == -EBADMSG) {
		disk_whole_close(k->disk, k->ino);   /* what is held cannot be forgotten */
		record_damaged(k->disk, k->bad_key, &k->bad);
		lock_acquire(&k->disk->lock);
		k->object->holds++;
		lock_release(&k->disk->lock);
	}
	check_end(k, rc);
	free(k);
}

static int check_begin(struct check *k, uint8_t dir)
{
	struct disk *d = k->disk;

	k->fd = object_open(&d->dirs[dir], extent_key(k->ino, 0), k->version, O_RDONLY);
	if (k->fd < 0)
		return k->fd;
	k->buf = malloc(EXTENT_MAX);
	lock_acquire(&d->lock);
	if (k->buf && !k->object->is_checking && !d->is_stopping) {
		k->object->is_checking = true;
		k->object->holds++;
		d->in_flight++;
		lock_release(&d->lock);
		return 0;
	}
	lock_release(&d->lock);
	close(k->fd);
	free(k->buf);
	return -EINPROGRESS;
}

/* Verify, on this thread for a while and then in the background. */
static int verify(struct check *k, uint8_t dir)
{
	struct check *later;
	int rc = check_begin(k, dir);

	if (rc)
		return rc;
	rc = check_some(k, UINT32_MAX, clock_ns() + VERIFY_WAIT_NS);
	later = rc == -EINPROGRESS ? malloc(sizeof(*later)) : NULL;
	if (later) {
		*later = *k;
		later->work.run = check_run;
		pool_submit(k->disk->workers, &later->work);
	} else {
		check_end(k, rc);
	}
	return rc;
}

/* ---- lending ---- */

/* Does the file look as it was written? Costs no reading. */
static bool has_its_shape(int fd, uint64_t size)
{
	struct stat st;
	off_t hole;

	if (fstat(fd, &st) || (uint64_t)st.st_size != size)
		return false;
	hole = lseek(fd, 0, SEEK_HOLE);
	return hole < 0 || (uint64_t)hole >= size;
}

static int lend(struct check *k, uint8_t dir, bool may_block, int *ret_fd)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
	struct disk *d = k->disk;
	_cleanup_close_ int fd = object_open(&d->dirs[dir], extent_key(k->ino, 0), k->version, O_RDONLY);
	bool is_whole = fd >= 0 && has_its_shape(fd, k->size), is_doubtful;
	struct stat st;
	int rc;

	lock_acquire(&d->lock);
	is_doubtful = k->object->settled != d->doubts || (!is_whole && !k->object->is_verified);
	rc = k->object->is_checking ? -EINPROGRESS : 0;
	lock_release(&d->lock);
	if (!rc && is_doubtful)
		rc = may_block ? verify(k, dir) : -EAGAIN;
	if (rc)
		return rc;
	/* the kernel reads to the end of this file: it must be the end of the other */
	if (fd < 0 || fstat(fd, &st) || (uint64_t)st.st_size != k->size)
		return -ENOENT;
	if (fcntl(fd, F_OFD_SETLK, &lock))
		return -errno;
	*ret_fd = steal_fd(&fd);
	return 0;
}

int disk_whole_open(struct disk *d, uint64_t ino, uint64_t version, uint64_t size, bool may_block, int *ret_fd)
{
	struct check k = { .disk = d, .ino = ino, .version = version, .size = size, .fd = -1 };
	uint8_t dir = 0;
	int rc;

	lock_acquire(&d->lock);
	k.object = object_get(d, ino);
	if (!k.object) {
		lock_release(&d->lock);
		return -ENOMEM;
	}
	k.object->holds++;
	rc = scan(d, k.object, &k, may_block, &dir);
	lock_release(&d->lock);
	if (!rc)
		rc = lend(&k, dir, may_block, ret_fd);
	if (rc)
		disk_whole_close(d, ino);
	if (rc == -EBADMSG)
		record_damaged(d, k.bad_key, &k.bad);
	return rc;
}

void disk_whole_close(struct disk *d, uint64_t ino)
{
	struct object *o;

	lock_scope(&d->lock);
	o = map64_get(&d->objects, ino);
	if (o && o->holds)
		o->holds--;
}

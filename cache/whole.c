/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whole objects lent to the kernel, which then reads their files without us.
 *
 *   volume_whole_open: hold -> scan (is every record there?) -> open
 *                      -> verify, if in doubt (in the background if it takes long) -> lock the file
 *
 *   (E) rests on three things:
 *   - a hold: while it lasts no record of the object is dropped, so no range of
 *     its file is punched (volume_drop, record_damaged, write_publish look at it);
 *   - a punch never meets bytes that came after the record it frees (ranges in
 *     space.c), so where a record is, its bytes are;
 *   - the descriptor carries a read lock, which the kernel keeps as long as it
 *     keeps the file: a daemon that comes after a crash sees it (whole_is_lent) and
 *     does not punch under a reader it knows nothing of.
 *
 * Doubt is a number: v->doubts rises when what is on disk may not be what was
 * written; an object is believed when all of it was verified at the present number.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "cache/volume_impl.h"
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
	struct volume *volume;
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

/* ---- what the others ask and tell, with the lock held ---- */

static struct object *object_get(struct volume *v, uint64_t ino)
{
	struct object *o = map64_get(&v->objects, ino);

	if (o)
		return o;
	o = calloc(1, sizeof(*o));
	if (o && map64_put(&v->objects, ino, o)) {
		free(o);
		return NULL;
	}
	return o;
}

bool whole_is_held(struct volume *v, uint64_t key)
{
	const struct object *o = map64_get(&v->objects, extent_key_ino(key));

	return o && o->holds;
}

void whole_lost(struct volume *v, uint64_t key)
{
	struct object *o = map64_get(&v->objects, extent_key_ino(key));

	if (o)
		o->is_complete = false;
}

void whole_doubt(struct volume *v, uint64_t key)
{
	struct object *o = object_get(v, extent_key_ino(key));

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

/* Called with the lock held, which it drops now and then; the caller holds the object. */
static int scan(struct volume *v, struct object *o, const struct check *k, bool may_block)
{
	uint32_t count = extents_of(k->size), first = o->missing < count ? o->missing : 0;
	struct record r;

	if (record_find(v, extent_key(k->ino, 0), &r) || r.version != k->version)
		return -ENOENT;
	if (o->is_complete)
		return 0;
	if (count > SCAN_INLINE && !may_block)
		return -EAGAIN;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t no = first + i < count ? first + i : first + i - count;

		if (record_find(v, extent_key(k->ino, no), &r) || r.kind != KIND_WHOLE || r.version != k->version ||
		    r.raw_len != len_of(k->size, no)) {
			o->missing = no;
			return -ENOENT;
		}
		if (i % SCAN_BATCH == SCAN_BATCH - 1) {
			lock_release(&v->lock);
			lock_acquire(&v->lock);
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
	struct volume *v = k->volume;
	uint64_t key = extent_key(k->ino, no);
	struct record r;
	int rc;

	lock_acquire(&v->lock);
	rc = record_find(v, key, &r);
	lock_release(&v->lock);
	if (rc)
		return rc;
	rc = read_all(k->fd, k->buf, r.raw_len, (off_t)no << EXTENT_SHIFT);
	if (rc || XXH3_64bits(k->buf, r.raw_len) != r.checksum) {
		k->bad_key = key;
		k->bad = r;
		return -EBADMSG;
	}
	stats_inc(v->stats, STAT_DISK_VERIFIED);
	return 0;
}

/* Up to @until_ns or @max extents. 0 when all are right, -EINPROGRESS, -EBADMSG, -ESHUTDOWN. */
static int check_some(struct check *k, uint32_t max, uint64_t until_ns)
{
	struct volume *v = k->volume;
	struct object *o = k->object;
	uint32_t count = extents_of(k->size);

	for (uint32_t done = 0;; done++) {
		uint32_t no;
		bool stops;
		int rc;

		lock_acquire(&v->lock);
		if (o->checking != v->doubts) {
			o->checking = v->doubts;
			o->checked = 0;
		}
		no = o->checked;
		stops = v->is_stopping;
		if (no == count) {
			o->settled = o->checking;
			o->is_verified = true;
		}
		lock_release(&v->lock);
		if (no == count || stops)
			return stops ? -ESHUTDOWN : 0;
		if (done == max || clock_ns() >= until_ns)
			return -EINPROGRESS;
		rc = check_extent(k, no);
		if (rc)
			return rc;
		lock_acquire(&v->lock);
		if (o->checked == no)   /* else something of it was found damaged meanwhile */
			o->checked++;
		lock_release(&v->lock);
	}
}

/* The object is not checked any more; gives up the hold. */
static void check_end(struct check *k, int rc)
{
	struct volume *v = k->volume;

	close(k->fd);
	free(k->buf);
	lock_scope(&v->lock);
	k->object->is_checking = false;
	k->object->holds--;
	volume_leave(v);
	if (!rc)
		log_info("cache %s: node %llu was verified", v->path, (unsigned long long)k->ino);
}

static void check_run(struct work *w)
{
	struct check *k = container_of(w, struct check, work);
	int rc = check_some(k, VERIFY_BATCH, UINT64_MAX);

	if (rc == -EINPROGRESS) {
		pool_submit(k->volume->workers, &k->work);   /* behind what waits there: reads and writes */
		return;
	}
	if (rc == -EBADMSG) {
		volume_whole_close(k->volume, k->ino);   /* what is held cannot be forgotten */
		record_damaged(k->volume, k->bad_key, &k->bad);
		lock_acquire(&k->volume->lock);
		k->object->holds++;
		lock_release(&k->volume->lock);
	}
	check_end(k, rc);
	free(k);
}

static int check_begin(struct check *k)
{
	struct volume *v = k->volume;

	k->fd = object_open(v, extent_key(k->ino, 0), k->version, O_RDONLY);
	if (k->fd < 0)
		return k->fd;
	k->buf = malloc(EXTENT_MAX);
	lock_acquire(&v->lock);
	if (k->buf && !k->object->is_checking && !v->is_stopping) {
		k->object->is_checking = true;
		k->object->holds++;
		v->in_flight++;
		lock_release(&v->lock);
		return 0;
	}
	lock_release(&v->lock);
	close(k->fd);
	free(k->buf);
	return -EINPROGRESS;
}

/* Verify, on this thread for a while and then in the background. */
static int verify(struct check *k)
{
	struct check *later;
	int rc = check_begin(k);

	if (rc)
		return rc;
	rc = check_some(k, UINT32_MAX, clock_ns() + VERIFY_WAIT_NS);
	later = rc == -EINPROGRESS ? malloc(sizeof(*later)) : NULL;
	if (later) {
		*later = *k;
		later->work.run = check_run;
		pool_submit(k->volume->workers, &later->work);
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

static int lend(struct check *k, bool may_block, int *ret_fd)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };
	struct volume *v = k->volume;
	_cleanup_close_ int fd = object_open(v, extent_key(k->ino, 0), k->version, O_RDONLY);
	bool is_whole = fd >= 0 && has_its_shape(fd, k->size), is_doubtful;
	struct stat st;
	int rc;

	lock_acquire(&v->lock);
	is_doubtful = k->object->settled != v->doubts || (!is_whole && !k->object->is_verified);
	rc = k->object->is_checking ? -EINPROGRESS : 0;
	lock_release(&v->lock);
	if (!rc && is_doubtful)
		rc = may_block ? verify(k) : -EAGAIN;
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

int volume_whole_open(struct volume *v, uint64_t ino, uint64_t version, uint64_t size, bool may_block, int *ret_fd)
{
	struct check k = { .volume = v, .ino = ino, .version = version, .size = size, .fd = -1 };
	int rc;

	if (!volume_serves(v))
		return -ENOENT;
	lock_acquire(&v->lock);
	k.object = object_get(v, ino);
	if (!k.object) {
		lock_release(&v->lock);
		return -ENOMEM;
	}
	k.object->holds++;
	rc = scan(v, k.object, &k, may_block);
	lock_release(&v->lock);
	if (!rc)
		rc = lend(&k, may_block, ret_fd);
	if (rc)
		volume_whole_close(v, ino);
	if (rc == -EBADMSG)
		record_damaged(v, k.bad_key, &k.bad);
	return rc;
}

void volume_whole_close(struct volume *v, uint64_t ino)
{
	struct object *o;

	lock_scope(&v->lock);
	o = map64_get(&v->objects, ino);
	if (o && o->holds)
		o->holds--;
}

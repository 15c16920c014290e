/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room on a volume, and how it is given back.
 *
 * A drop takes a record out of reach at once; its space is freed when no read of it is in flight any more, so that no
 * reader meets another extent's bytes. In the file of a whole object an extent comes back to the same place: a write
 * waits for a punch on its way there, and a punch is left out once a write began (ranges).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "cache/own.h"
#include "cache/store.h"
#include "cache/volume_impl.h"
#include "lib/clock.h"
#include "lib/log.h"

enum { INDEX_STEP = 512 * 1024 };

#define FS_CHECK_NS NSEC_PER_SEC

/* ---- space ---- */

/*
 * The index grows while extents are there already: room is kept for at least
 * half a step more, so that a step makes room by what may go and forces nothing out.
 */
static uint64_t index_room(struct volume *v)
{
	return ((atomic_load(&v->index_bytes) + INDEX_STEP / 2) | (INDEX_STEP - 1)) + 1;
}

/* Bytes the extents may occupy beside @index of index. Called with the lock held. */
static uint64_t limit_beside(struct volume *v, uint64_t index)
{
	uint64_t limit = v->limit_bytes ? v->limit_bytes : UINT64_MAX, now = clock_ns();
	struct statvfs fs;

	if (now - v->fs_checked_ns > FS_CHECK_NS && !fstatvfs(v->fd, &fs)) {
		uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;

		volume_look(v);
		/* what is written until the next look comes out of this */
		v->fs_room_bytes = v->used_bytes + atomic_load(&v->index_bytes) +
				   (free_bytes > v->min_free_bytes ? free_bytes - v->min_free_bytes : 0);
		v->fs_checked_ns = now;
	}
	limit = limit < v->fs_room_bytes ? limit : v->fs_room_bytes;
	return limit > index ? limit - index : 0;
}

uint64_t space_limit(struct volume *v)
{
	return limit_beside(v, index_room(v));
}

uint64_t volume_reserve(struct volume *v, size_t len)
{
	uint64_t need = slot_round(len);

	if (!volume_stores(v))
		return 0;
	lock_scope(&v->lock);
	if (v->full_until_ns && clock_ns() < v->full_until_ns)
		return 0;
	if (v->used_bytes + v->reserved_bytes + need > space_limit(v))
		return 0;
	v->reserved_bytes += need;
	return need;
}

void volume_unreserve(struct volume *v, uint64_t reserved)
{
	lock_scope(&v->lock);
	v->reserved_bytes -= reserved;
}

uint64_t volume_excess(struct volume *v)
{
	uint64_t limit, margin, used;

	if (!volume_stores(v))
		return 0;   /* nothing can be freed there, or need be */
	lock_scope(&v->lock);
	limit = space_limit(v);
	margin = limit / 256 < (16 << 20) ? limit / 256 : 16 << 20;
	used = v->used_bytes + v->reserved_bytes;
	return used > limit - margin ? used - (limit - margin - margin / 2) : 0;
}

uint64_t volume_room(struct volume *v)
{
	uint64_t limit, used;

	if (!volume_stores(v))
		return 0;
	lock_scope(&v->lock);
	limit = space_limit(v);
	used = v->used_bytes + v->reserved_bytes;
	return limit > used ? limit - used : 0;
}

bool volume_is_over(struct volume *v)
{
	if (!volume_stores(v))
		return false;
	lock_scope(&v->lock);
	return v->used_bytes + v->reserved_bytes > limit_beside(v, atomic_load(&v->index_bytes));
}

bool volume_holds(struct volume *v, uint64_t key)
{
	struct record r;

	if (atomic_load(&v->is_lost))
		return false;
	lock_scope(&v->lock);
	return !record_find(v, key, &r);
}

uint64_t volume_limit(struct volume *v)
{
	if (!volume_serves(v))
		return 0;
	lock_scope(&v->lock);
	return space_limit(v);
}

/* ---- whole objects ---- */

static void object_name(uint64_t key, uint64_t version, char *buf, size_t size)
{
	uint64_t ino = extent_key_ino(key);

	snprintf(buf, size, "%02x/%llx-%016llx", (unsigned)(map64_mix(ino) & 0xff),
		 (unsigned long long)ino, (unsigned long long)version);
}

int object_open(struct volume *v, uint64_t key, uint64_t version, int flags)
{
	char name[64];
	int fd;

	object_name(key, version, name, sizeof(name));
	fd = own_open(v->objects_fd, name, flags);
	if (fd == -ENOENT && flags & O_CREAT) {
		name[2] = 0;
		mkdirat(v->objects_fd, name, 0700);
		name[2] = '/';
		fd = own_open(v->objects_fd, name, flags);
	}
	return fd;
}

static void unlink_object(struct volume *v, uint64_t key, uint64_t version)
{
	char name[64];

	object_name(key, version, name, sizeof(name));
	unlinkat(v->objects_fd, name, 0);
}

/* Give the bytes of a record back to the file system. No lock held. */
static void punch(struct volume *v, uint64_t key, const struct record *r, int segment_fd)
{
	int fd = r->kind == KIND_WHOLE ? object_open(v, key, r->version, O_RDWR) : segment_fd;
	struct stat st;

	if (fd < 0)
		return;
	if (r->kind == KIND_WHOLE && whole_is_lent(fd)) {
		/* zeros must not appear under that reader: the file goes out of reach instead, whole, and lives as long as it is read */
		unlink_object(v, key, r->version);
		close(fd);
		return;
	}
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)record_offset(key, r),
		      (off_t)record_bytes(r)) && errno != EOPNOTSUPP)
		log_warn("cache %s: cannot free space: %s", v->path, strerror(errno));
	if (r->kind == KIND_PACKED)
		return;
	/*
	 * That it has no blocks is a hint only: the name may be another file's by now, and ext4 says so for an instant while it
	 * allocates those of delayed writes. An extent on its way there has neither blocks nor a record: then an empty file stays,
	 * until the next start sweeps it.
	 */
	lock_acquire(&v->lock);
	if (!v->whole_writes && !fstat(fd, &st) && st.st_blocks == 0 && !record_names_object(v, extent_key_ino(key), r->version))
		unlink_object(v, key, r->version);
	lock_release(&v->lock);
	close(fd);
}

/* ---- ranges of whole objects ---- */

static struct range *range_get(struct volume *v, uint64_t key)
{
	struct range *g = map64_get(&v->ranges, key);

	if (g)
		return g;
	g = calloc(1, sizeof(*g));
	if (g && map64_put(&v->ranges, key, g)) {
		free(g);
		return NULL;
	}
	return g;
}

static void range_put(struct volume *v, uint64_t key, struct range *g)
{
	if (g->writers || g->punchers)
		return;
	map64_remove(&v->ranges, key);
	free(g);
	pthread_cond_broadcast(&v->changed);
}

int range_write_begin(struct volume *v, uint64_t key)
{
	struct range *g;

	while ((g = map64_get(&v->ranges, key)) && g->punchers)
		lock_wait(&v->lock, &v->changed);
	g = range_get(v, key);
	if (!g)
		return -ENOMEM;
	g->writers++;
	return 0;
}

void range_write_end(struct volume *v, uint64_t key)
{
	struct range *g = map64_get(&v->ranges, key);

	g->writers--;
	range_put(v, key, g);
}

/* Before a punch: NULL if the range holds, or is about to hold, bytes that came after @r. */
static struct range *range_punch_begin(struct volume *v, uint64_t key, const struct record *r)
{
	struct range *g = map64_get(&v->ranges, key);
	struct record now;

	if (g && g->writers)
		return NULL;
	if (!record_find(v, key, &now) && now.kind == KIND_WHOLE && now.version == r->version)
		return NULL;
	g = range_get(v, key);
	if (g)
		g->punchers++;
	return g;
}

void space_free(struct volume *v, uint64_t key, const struct record *r)
{
	struct segments *s = &v->segments;
	struct segment *g = NULL;
	struct range *range = NULL;
	int err;

	if (r->kind == KIND_PACKED) {
		g = segment_get(s, r->segment, &err);
		if (g)
			g->busy++;
	} else {
		range = range_punch_begin(v, key, r);
	}
	lock_release(&v->lock);
	if (g || range)
		punch(v, key, r, g ? g->fd : -1);
	lock_acquire(&v->lock);
	if (range) {
		range->punchers--;
		range_put(v, key, range);
	}
	v->used_bytes -= record_bytes(r);
	v->extents--;
	if (!g)
		return;
	g->busy--;
	g->live_bytes -= record_bytes(r);
	segment_retire(s, g);
}

void record_forget(struct volume *v, uint64_t key, const struct record *r)
{
	struct busy *b = map64_get(&v->busy, key);

	if (r->kind == KIND_WHOLE)
		whole_lost(v, key);
	if (b && !b->is_dropped && !memcmp(&b->record, r, sizeof(*r)))
		b->is_dropped = true;
	else
		space_free(v, key, r);
}

uint64_t volume_drop(struct volume *v, uint64_t key)
{
	struct record r;

	if (atomic_load(&v->is_lost))
		return 0;
	lock_scope(&v->lock);
	if (whole_is_held(v, key) || record_find(v, key, &r) || pending_put(v, key, NULL))
		return 0;
	record_forget(v, key, &r);
	return record_bytes(&r);
}

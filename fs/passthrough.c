/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/passthrough.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "lib/map64.h"

enum { RANK_PASSTHROUGH = 5 };

/* The kernel's interface (linux/fuse.h); the headers at hand may be older than the kernel. */
struct backing_map {
	int32_t fd;
	uint32_t flags;
	uint64_t padding;
};

#define BACKING_OPEN _IOW(229, 1, struct backing_map)
#define BACKING_CLOSE _IOW(229, 2, uint32_t)

/* Of a file that is open, or being opened. KERNEL and DAEMON are entry->id, other than 0 and 0. */
struct open_file {
	struct passthrough_entry *entry;   /* NULL: DECIDING, or DAEMON when the table had no room */
	unsigned unlisted;                 /* handles of the latter */
	bool is_inherited;                 /* no cache_whole_fd() of this process holds it */
};

struct passthrough {
	struct cache *cache;      /* not owned */
	int device_fd;            /* not owned; set by passthrough_enable */
	_Atomic bool is_on;       /* rises once, before the first open; may fall */
	struct passthrough_table *table;   /* not owned */
	struct lock lock;
	pthread_cond_t decided;
	/* protected by lock */
	struct map64 files;       /* ino -> struct open_file */
	uint32_t free_count;      /* entries of the table's used part that are free */
	uint32_t free_hint;       /* ... where to look for one */
};

/* The id, or negative errno. */
static int32_t backing_open(int device_fd, int fd)
{
	struct backing_map map = { .fd = fd };
	int id = ioctl(device_fd, BACKING_OPEN, &map);

	return id < 0 ? -errno : id ? id : -EINVAL;
}

static void backing_close(int device_fd, int32_t id)
{
	uint32_t arg = (uint32_t)id;

	if (ioctl(device_fd, BACKING_CLOSE, &arg) && errno != ENOTCONN && errno != EPERM)
		log_warn("passthrough: backing file %d cannot be given back: %m", id);
}

/* Is this failure one that every other file would meet, too? */
static bool is_final(int rc)
{
	return rc == -EPERM || rc == -ENOTTY || rc == -EOPNOTSUPP || rc == -ELOOP || rc == -EINVAL;
}

/* With no lock held. The backing id, 0 for the daemon, or -EAGAIN. */
static int32_t decide(struct passthrough *p, const struct ns_attr *attr, bool may_block)
{
	int fd, rc = cache_whole_fd(p->cache, attr, may_block, &fd);
	int32_t id;

	if (rc)
		return rc == -EAGAIN && !may_block ? -EAGAIN : 0;
	id = backing_open(p->device_fd, fd);
	close(fd);   /* the kernel has its own reference */
	if (id > 0)
		return id;
	cache_whole_end(p->cache, attr->ino);
	if (is_final(id) && atomic_exchange(&p->is_on, false)) {
		atomic_store(&p->table->is_closed, true);
		log_warn("passthrough: the kernel does not take the cache's files (%s); the daemon serves them", strerror(-id));
	}
	return 0;
}

/* ---- the table ---- */

static struct passthrough_entry *entry_free(struct passthrough *p)
{
	struct passthrough_table *t = p->table;
	uint32_t used = atomic_load(&t->used), i = p->free_hint;

	if (!p->free_count) {
		if (used == PASSTHROUGH_OPENS)
			return NULL;
		atomic_store(&t->used, used + 1);
		return &t->entry[used];
	}
	while (atomic_load(&t->entry[i % used].count))
		i++;
	p->free_count--;
	p->free_hint = i % used;
	return &t->entry[p->free_hint];
}

/* Called with the lock held: @f was decided, and has its first handle. */
static void entry_take(struct passthrough *p, struct open_file *f, uint64_t ino, int32_t id)
{
	struct passthrough_entry *e = entry_free(p);

	if (!e) {
		f->unlisted = 1;
		return;
	}
	e->ino = ino;
	e->id = id;
	atomic_store(&e->count, 1);
	f->entry = e;
}

static struct open_file *file_add(struct passthrough *p, uint64_t ino)
{
	struct open_file *f = calloc(1, sizeof(*f));

	if (f && map64_put(&p->files, ino, f)) {
		free(f);
		return NULL;
	}
	return f;
}

static bool is_deciding(const struct open_file *f)
{
	return !f->entry && !f->unlisted;
}

/* Called with the lock held. The backing id. */
static int32_t add_handle(struct open_file *f)
{
	if (!f->entry) {
		f->unlisted++;
		return 0;
	}
	atomic_fetch_add(&f->entry->count, 1);
	return f->entry->id;
}

/* Called with the lock held. Was it the last? */
static bool drop_handle(struct passthrough *p, struct open_file *f)
{
	if (!f->entry)
		return --f->unlisted == 0;
	if (atomic_fetch_sub(&f->entry->count, 1) > 1)
		return false;
	p->free_count++;
	return true;
}

/* Called with the lock held: @f is the first open of @attr and is settled as @id, or not. */
static int settle(struct passthrough *p, struct open_file *f, const struct ns_attr *attr, int32_t id)
{
	if (id != -EAGAIN) {
		entry_take(p, f, attr->ino, id);
		if (f->unlisted && id) {
			/* in no mode but the daemon's may it go unlisted */
			backing_close(p->device_fd, id);
			cache_whole_end(p->cache, attr->ino);
		}
		if (f->unlisted)
			atomic_store(&p->table->is_closed, true);
		return 0;
	}
	map64_remove(&p->files, attr->ino);
	free(f);
	return -EAGAIN;
}

int passthrough_open(struct passthrough *p, const struct ns_attr *attr, bool may_block, int32_t *ret_id)
{
	struct open_file *f;
	int32_t id;
	int rc;

	*ret_id = 0;
	if (attr->version.size <= DISK_WHOLE_MIN)
		return 0;
	lock_acquire(&p->lock);
	while ((f = map64_get(&p->files, attr->ino)) && is_deciding(f) && may_block)
		lock_wait(&p->lock, &p->decided);
	if (f && !is_deciding(f)) {
		*ret_id = add_handle(f);
		lock_release(&p->lock);
		return 0;
	}
	if (f || !atomic_load(&p->is_on)) {
		lock_release(&p->lock);
		return f ? -EAGAIN : 0;
	}
	f = file_add(p, attr->ino);
	lock_release(&p->lock);
	if (!f)
		return -ENOMEM;
	id = decide(p, attr, may_block);
	lock_acquire(&p->lock);
	rc = settle(p, f, attr, id);
	if (!rc && f->entry)
		*ret_id = id;
	pthread_cond_broadcast(&p->decided);
	lock_release(&p->lock);
	return rc;
}

void passthrough_release(struct passthrough *p, uint64_t ino)
{
	struct open_file *f;
	int32_t id;

	lock_acquire(&p->lock);
	f = map64_get(&p->files, ino);
	id = f && f->entry ? f->entry->id : 0;   /* what another open finds in a free entry is its own */
	if (!f || is_deciding(f) || !drop_handle(p, f)) {
		lock_release(&p->lock);
		return;
	}
	/* the kernel left the mode before it sent the release, so the next open may choose again */
	map64_remove(&p->files, ino);
	lock_release(&p->lock);
	if (id) {
		backing_close(p->device_fd, id);
		if (!f->is_inherited)
			cache_whole_end(p->cache, ino);
	}
	free(f);
}

int passthrough_enable(struct passthrough *p, int device_fd)
{
	_cleanup_close_ int fd = memfd_create("hopperfs", MFD_CLOEXEC);
	int32_t id;

	if (fd < 0)
		return -errno;
	id = backing_open(device_fd, fd);
	if (id < 0)
		return id;
	backing_close(device_fd, id);
	p->device_fd = device_fd;
	atomic_store(&p->is_on, !atomic_load(&p->table->is_closed));
	cache_prefer_whole(p->cache);
	return 0;
}

bool passthrough_is_on(struct passthrough *p)
{
	return atomic_load(&p->is_on);
}

/* What is open since before this process. */
static int inherit(struct passthrough *p)
{
	uint32_t used = atomic_load(&p->table->used);

	for (uint32_t i = 0; i < used && i < PASSTHROUGH_OPENS; i++) {
		struct passthrough_entry *e = &p->table->entry[i];
		struct open_file *f;

		if (!atomic_load(&e->count)) {
			p->free_count++;
			continue;
		}
		f = file_add(p, e->ino);
		if (!f)
			return -ENOMEM;
		f->entry = e;
		f->is_inherited = true;
	}
	return 0;
}

int passthrough_new(struct cache *cache, struct passthrough_table *table, struct passthrough **ret_passthrough)
{
	struct passthrough *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return -ENOMEM;
	p->cache = cache;
	p->table = table;
	p->device_fd = -1;
	lock_init(&p->lock, "passthrough", RANK_PASSTHROUGH);
	lock_cond_init(&p->decided);
	rc = inherit(p);
	if (rc)
		passthrough_free(p);
	else
		*ret_passthrough = p;
	return rc;
}

/* The mount is gone, and with it the kernel's ids. */
void passthrough_free(struct passthrough *p)
{
	size_t pos = 0;

	if (!p)
		return;
	for (struct open_file *f; (f = map64_next(&p->files, &pos, NULL));)
		free(f);
	map64_clear(&p->files);
	pthread_cond_destroy(&p->decided);
	lock_destroy(&p->lock);
	free(p);
}

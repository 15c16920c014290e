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

enum mode { DECIDING, KERNEL, DAEMON };

struct open_file {
	enum mode mode;
	unsigned count;           /* handles, and opens about to be answered */
	int32_t id;               /* KERNEL: the backing id; else 0 */
};

struct passthrough {
	struct cache *cache;      /* not owned */
	int device_fd;            /* not owned; set by passthrough_enable */
	_Atomic bool is_on;       /* rises once, before the first open; may fall */
	struct lock lock;
	pthread_cond_t decided;
	struct map64 files;       /* ino -> struct open_file; protected by lock */
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
	if (is_final(id) && atomic_exchange(&p->is_on, false))
		log_warn("passthrough: the kernel does not take the cache's files (%s); the daemon serves them", strerror(-id));
	return 0;
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

int passthrough_open(struct passthrough *p, const struct ns_attr *attr, bool may_block, int32_t *ret_id)
{
	struct open_file *f;
	int32_t id;

	*ret_id = 0;
	if (attr->version.size <= DISK_WHOLE_MIN)
		return 0;
	lock_acquire(&p->lock);
	while ((f = map64_get(&p->files, attr->ino)) && f->mode == DECIDING && may_block)
		lock_wait(&p->lock, &p->decided);
	if (f && f->mode != DECIDING) {
		f->count++;
		*ret_id = f->id;
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
	if (id == -EAGAIN) {
		map64_remove(&p->files, attr->ino);
		free(f);
	} else {
		f->mode = id ? KERNEL : DAEMON;
		f->id = *ret_id = id;
		f->count = 1;
	}
	pthread_cond_broadcast(&p->decided);
	lock_release(&p->lock);
	return id == -EAGAIN ? -EAGAIN : 0;
}

void passthrough_release(struct passthrough *p, uint64_t ino)
{
	struct open_file *f;

	lock_acquire(&p->lock);
	f = map64_get(&p->files, ino);
	if (!f || f->mode == DECIDING || --f->count) {
		lock_release(&p->lock);
		return;
	}
	/* the kernel left the mode before it sent the release, so the next open may choose again */
	map64_remove(&p->files, ino);
	lock_release(&p->lock);
	if (f->mode == KERNEL) {
		backing_close(p->device_fd, f->id);
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
	atomic_store(&p->is_on, true);
	cache_prefer_whole(p->cache);
	return 0;
}

bool passthrough_is_on(struct passthrough *p)
{
	return atomic_load(&p->is_on);
}

int passthrough_new(struct cache *cache, struct passthrough **ret_passthrough)
{
	struct passthrough *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->cache = cache;
	p->device_fd = -1;
	lock_init(&p->lock, "passthrough", RANK_PASSTHROUGH);
	lock_cond_init(&p->decided);
	*ret_passthrough = p;
	return 0;
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

/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/watch.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "cache/namespace.h"
#include "lib/list.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "lib/map64.h"
#include "lib/stats.h"

enum {
	RANK_WATCH = 6,
	PATH_BYTES = 4096,
	BUFFER_BYTES = 64 * 1024,
	/* events are collected for so long: a wake-up for each would cost the readers more than the opens do */
	GATHER_MS = 5,
	/* the kernel's handle of a FUSE inode (fs/fuse/inode.c): id, high word first, and generation; the second with its parent's */
	HANDLE_INO = 0x81, HANDLE_INO_PARENT = 0x82, HANDLE_WORDS = 3,
};

struct directory {
	struct list link;            /* in queue until it was tried */
	uint64_t ino;
	bool is_watched;
};

struct watch {
	struct ns *ns;               /* not owned */
	struct stats *stats;         /* not owned */
	watch_opened opened;
	void *arg;
	char *mountpoint;            /* owned; immutable once started */
	int fd, wake_fd;
	bool tells_pids;
	pthread_t thread;
	bool is_running;
	_Atomic bool is_stopping;
	_Atomic int tid;

	struct lock lock;
	/* protected by lock */
	struct map64 directories;    /* id -> struct directory, owned */
	struct list queue;
	uint64_t watched;
};

/* One event's file, 0 if it has none that is ours. */
static uint64_t event_ino(const char *info, size_t len)
{
	struct fanotify_event_info_fid head;
	struct file_handle handle;
	uint32_t word[HANDLE_WORDS];
	size_t at = offsetof(struct fanotify_event_info_fid, handle);

	while (len >= sizeof(head.hdr)) {
		memcpy(&head.hdr, info, sizeof(head.hdr));
		if (head.hdr.len < sizeof(head.hdr) || head.hdr.len > len)
			return 0;
		if (head.hdr.info_type == FAN_EVENT_INFO_TYPE_FID && head.hdr.len >= at + sizeof(handle) + sizeof(word)) {
			memcpy(&handle, info + at, sizeof(handle));
			memcpy(word, info + at + sizeof(handle), sizeof(word));
			if (handle.handle_bytes >= sizeof(word) &&
			    (handle.handle_type == HANDLE_INO || handle.handle_type == HANDLE_INO_PARENT))
				return (uint64_t)word[0] << 32 | word[1];
		}
		info += head.hdr.len;
		len -= head.hdr.len;
	}
	return 0;
}

unsigned watch_decode(const void *buf, size_t len, watch_opened opened, void *arg)
{
	const char *p = buf;
	unsigned overflows = 0;

	while (len >= sizeof(struct fanotify_event_metadata)) {
		struct fanotify_event_metadata m;
		uint64_t ino;

		memcpy(&m, p, sizeof(m));
		if (m.vers != FANOTIFY_METADATA_VERSION || m.event_len > len || m.metadata_len < sizeof(m) || m.metadata_len > m.event_len)
			break;
		if (m.mask & FAN_Q_OVERFLOW) {
			overflows++;
		} else if (m.mask & FAN_OPEN) {
			ino = event_ino(p + m.metadata_len, m.event_len - m.metadata_len);
			if (ino)
				opened(arg, ino, m.pid > 0 ? (uint32_t)m.pid : 0);
		}
		p += m.event_len;
		len -= m.event_len;
	}
	return overflows;
}

static void take_events(struct watch *w, void *buf)
{
	ssize_t n;

	while ((n = read(w->fd, buf, BUFFER_BYTES)) > 0) {
		unsigned overflows = watch_decode(buf, (size_t)n, w->opened, w->arg);

		if (overflows) {
			stats_add(w->stats, STAT_PAGECACHE_EVENTS_LOST, overflows);
			stats_add(w->stats, STAT_PREFETCH_DROPPED_OBSERVATIONS, overflows);
		}
	}
}

static int mark(struct watch *w, const char *path)
{
	return fanotify_mark(w->fd, FAN_MARK_ADD | FAN_MARK_ONLYDIR, FAN_OPEN | FAN_EVENT_ON_CHILD, AT_FDCWD, path) ? -errno : 0;
}

static struct directory *next_directory(struct watch *w)
{
	struct list *n;

	lock_scope(&w->lock);
	n = list_pop_front(&w->queue);
	return n ? container_of(n, struct directory, link) : NULL;
}

/* Directories are never forgotten before the thread ends, so @d stays. */
static void mark_directories(struct watch *w)
{
	char path[PATH_BYTES];
	struct directory *d;

	while (!atomic_load(&w->is_stopping) && (d = next_directory(w))) {
		size_t n = (size_t)snprintf(path, sizeof(path), "%s/", w->mountpoint);
		int rc = n < sizeof(path) ? ns_path(w->ns, d->ino, path + n, sizeof(path) - n) : -ENAMETOOLONG;

		if (!rc)
			rc = mark(w, path);
		if (rc) {
			stats_inc(w->stats, STAT_PAGECACHE_UNWATCHED);
			log_warn("opens in %s are not seen, and its files not pushed: %s", path, strerror(-rc));
			continue;
		}
		lock_acquire(&w->lock);
		d->is_watched = true;
		w->watched++;
		lock_release(&w->lock);
	}
}

static void *watch_thread(void *arg)
{
	struct watch *w = arg;
	struct pollfd pfd[2] = { { .fd = w->wake_fd, .events = POLLIN }, { .fd = w->fd, .events = POLLIN } };
	char *buf = malloc(BUFFER_BYTES);
	uint64_t count;

	pthread_setname_np(pthread_self(), "watch");
	atomic_store(&w->tid, (int)syscall(SYS_gettid));
	while (buf && !atomic_load(&w->is_stopping)) {
		poll(pfd, 2, -1);
		if (pfd[1].revents && !pfd[0].revents)
			poll(pfd, 1, GATHER_MS);
		if (pfd[0].revents && read(w->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
			break;
		mark_directories(w);
		take_events(w, buf);
	}
	free(buf);
	return NULL;
}

bool watch_tells_pids(const struct watch *w)
{
	return w->tells_pids;
}

bool watch_is_thread(struct watch *w, int tid)
{
	return tid == atomic_load(&w->tid);
}

static void wake(struct watch *w)
{
	uint64_t one = 1;

	if (write(w->wake_fd, &one, sizeof(one)) < 0)
		return;   /* full: it is awake */
}

void watch_directory(struct watch *w, uint64_t dir)
{
	struct directory *d;

	lock_acquire(&w->lock);
	d = map64_get(&w->directories, dir) ? NULL : calloc(1, sizeof(*d));
	if (d && map64_put(&w->directories, dir, d)) {
		free(d);
		d = NULL;
	}
	if (d) {
		d->ino = dir;
		list_push_back(&w->queue, &d->link);
	}
	lock_release(&w->lock);
	if (d)
		wake(w);
}

bool watch_has(struct watch *w, uint64_t dir)
{
	const struct directory *d;

	lock_scope(&w->lock);
	d = map64_get(&w->directories, dir);
	return d && d->is_watched;
}

void watch_publish(struct watch *w)
{
	lock_scope(&w->lock);
	stats_set(w->stats, STAT_PAGECACHE_WATCHED, w->watched);
}

int watch_start(struct watch *w, const char *mountpoint)
{
	struct directory *root = calloc(1, sizeof(*root));
	int rc = root ? 0 : -ENOMEM;

	w->mountpoint = strdup(mountpoint);
	if (!rc && !w->mountpoint)
		rc = -ENOMEM;
	atomic_store(&w->tid, (int)syscall(SYS_gettid));
	if (!rc)
		rc = mark(w, mountpoint);
	if (rc) {
		free(root);
		return rc;
	}
	list_init(&root->link);
	root->ino = NS_ROOT;
	root->is_watched = true;
	lock_acquire(&w->lock);
	rc = map64_put(&w->directories, NS_ROOT, root);
	w->watched = 1;
	lock_release(&w->lock);
	if (rc) {
		free(root);
		return rc;
	}
	rc = -pthread_create(&w->thread, NULL, watch_thread, w);
	w->is_running = !rc;
	return rc;
}

int watch_new(struct ns *ns, struct stats *stats, watch_opened opened, void *arg, struct watch **ret_watch)
{
	const unsigned flags = FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_NONBLOCK | FAN_CLOEXEC;
	struct watch *w = calloc(1, sizeof(*w));

	if (!w)
		return -ENOMEM;
	w->ns = ns;
	w->stats = stats;
	w->opened = opened;
	w->arg = arg;
	lock_init(&w->lock, "watch", RANK_WATCH);
	list_init(&w->queue);
	/* threads, not processes, are who reads; only the privileged are told */
	w->fd = fanotify_init(flags | FAN_REPORT_TID, O_RDONLY);
	w->tells_pids = w->fd >= 0;
	if (w->fd < 0)
		w->fd = fanotify_init(flags, O_RDONLY);
	w->wake_fd = w->fd < 0 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->wake_fd < 0) {
		int rc = -errno;

		watch_free(w);
		return rc;
	}
	*ret_watch = w;
	return 0;
}

void watch_free(struct watch *w)
{
	size_t pos = 0;

	if (!w)
		return;
	atomic_store(&w->is_stopping, true);
	if (w->is_running) {
		wake(w);
		pthread_join(w->thread, NULL);
	}
	for (struct directory *d; (d = map64_next(&w->directories, &pos, NULL));)
		free(d);
	map64_clear(&w->directories);
	if (w->fd >= 0)
		close(w->fd);
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	free(w->mountpoint);
	lock_destroy(&w->lock);
	free(w);
}

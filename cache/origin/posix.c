/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any directory. The root is opened once; every path is resolved below it by
 * the kernel with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, so no name, link or
 * race leads out. A kernel or sandbox without openat2(2) is answered by
 * walking the components with O_NOFOLLOW.
 *
 * Reads run on a pool of threads: on a network file system a read blocks its
 * thread whatever the interface. Descriptors of files read a moment ago
 * are kept, so that the extents of a large file do not open it again.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "cache/origin/kinds.h"
#include "cache/origin/origin.h"
#include "lib/acl.h"
#include "lib/cleanup.h"
#include "lib/lock.h"
#include "lib/pool.h"
#include "lib/stats.h"

enum {
	RANK_KEPT = 60,
	KEPT_FILES = 64,              /* descriptors kept open */
	READ_THREADS = 256,           /* more than a governor asks for */
	STAT_THREADS = 32,
	STAT_CHUNK = 32,              /* names a thread looks at in one go */
	STEP_BYTES = 256 * 1024,      /* progress is told after each */
};

/* A descriptor and the path it was opened by; refs counts readers and the table. */
struct kept {
	char *path;                   /* owned */
	int fd;
	unsigned refs;
	uint64_t used;                /* a clock of uses */
};

struct posix {
	struct origin origin;
	int root_fd;
	struct pool *readers, *statters;
	_Atomic bool has_no_openat2;
	struct lock lock;
	struct kept *kept[KEPT_FILES];   /* protected by lock */
	uint64_t clock;                  /* protected by lock */
};

static void count(struct posix *p, enum stat_id id, uint64_t n)
{
	if (p->origin.stats)
		stats_add(p->origin.stats, id, n);
}

/* Resolve one component at a time; "" is the root. */
static int walk_open(struct posix *p, const char *path, int flags)
{
	_cleanup_close_ int dir = openat(p->root_fd, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (dir < 0)
		return -errno;
	for (;;) {
		size_t n = strcspn(path, "/");
		bool is_last = !path[n];
		char name[256];
		int fd;

		if (n > 255)
			return -ENAMETOOLONG;
		memcpy(name, path, n);
		name[n] = 0;
		if (!strcmp(name, ".."))
			return -EXDEV;
		fd = openat(dir, n ? name : ".", is_last ? flags | O_NOFOLLOW :
			    O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0)
			return -errno;
		if (is_last)
			return fd;
		close(dir);
		dir = fd;
		path += n + 1;
	}
}

static int resolve(struct posix *p, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC | O_NOFOLLOW),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	long fd;

	if (atomic_load_explicit(&p->has_no_openat2, memory_order_relaxed))
		return walk_open(p, path, flags | O_CLOEXEC);
	do {
		fd = syscall(SYS_openat2, p->root_fd, *path ? path : ".", &how, sizeof(how));
	} while (fd < 0 && (errno == EINTR || errno == EAGAIN));
	if (fd < 0 && errno == ENOSYS) {
		atomic_store(&p->has_no_openat2, true);
		return walk_open(p, path, flags | O_CLOEXEC);
	}
	return fd < 0 ? -errno : (int)fd;
}

static bool kept_clear(struct posix *p);

/* Returns a descriptor or negative errno. Without any left, those that are only kept for later go first. */
static int open_below(struct posix *p, const char *path, int flags)
{
	int fd = resolve(p, path, flags);

	if ((fd == -EMFILE || fd == -ENFILE) && kept_clear(p))
		fd = resolve(p, path, flags);
	return fd;
}

/* A file may carry any time: those that 64 bits of nanoseconds do not reach (1677..2262) are shown as the last that they do. */
static int64_t time_ns(const struct timespec *ts)
{
	int64_t ns;

	if (!__builtin_mul_overflow((int64_t)ts->tv_sec, 1000000000, &ns) && !__builtin_add_overflow(ns, ts->tv_nsec, &ns))
		return ns;
	return ts->tv_sec < 0 ? INT64_MIN : INT64_MAX;
}

static void attr_fill(const struct stat *st, struct origin_attr *attr)
{
	*attr = (struct origin_attr){
		.mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid,
		.nlink = (uint32_t)st->st_nlink, .origin_ino = st->st_ino, .rdev = st->st_rdev,
		.version = {
			.size = (uint64_t)st->st_size,
			.mtime_ns = time_ns(&st->st_mtim),
			.ctime_ns = time_ns(&st->st_ctim),
		},
	};
}

/*
 * Keep what getxattr(2) said of @attr's file, asked by a path in /proc, as there is no call for what O_PATH opened.
 * -ENOENT: it is gone. What is not known may forbid: then only the owner gets in.
 */
static int acl_take(struct origin_attr *attr, const void *acl, ssize_t len)
{
	if (!len || (len < 0 && (errno == ENODATA || errno == ENOTSUP)))
		return 0;
	if (len < 0 && errno == ENOENT)
		return -ENOENT;
	attr->acl = len > 0 ? malloc((size_t)len) : NULL;
	if (attr->acl) {
		memcpy(attr->acl, acl, (size_t)len);
		attr->acl_len = (uint32_t)len;
	} else {
		attr->mode = acl_owner_mode(attr->mode);
	}
	return 0;
}

static bool may_have_acl(const struct posix *p, const struct origin_attr *attr)
{
	return p->origin.has_acls && !S_ISLNK(attr->mode);
}

static int posix_stat(struct origin *o, const char *path, struct origin_attr *ret_attr)
{
	struct posix *p = container_of(o, struct posix, origin);
	_cleanup_close_ int fd = open_below(p, path, O_PATH);
	char name[32], acl[ORIGIN_ACL_MAX];
	struct stat st;

	count(p, STAT_ORIGIN_META_REQUESTS, 1);
	if (fd < 0)
		return fd == -ELOOP || fd == -EXDEV ? -ENOENT : fd;
	if (fstatat(fd, "", &st, AT_EMPTY_PATH))
		return -errno;
	attr_fill(&st, ret_attr);
	if (!may_have_acl(p, ret_attr))
		return 0;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	return acl_take(ret_attr, acl, getxattr(name, ACL_ACCESS_XATTR, acl, sizeof(acl)));
}

static int posix_readlink(struct origin *o, const char *path, char *buf, size_t size)
{
	struct posix *p = container_of(o, struct posix, origin);
	_cleanup_close_ int fd = open_below(p, path, O_PATH);
	ssize_t n;

	count(p, STAT_ORIGIN_META_REQUESTS, 1);
	if (fd < 0)
		return fd;
	n = readlinkat(fd, "", buf, size);
	if (n < 0)
		return -errno;
	if ((size_t)n >= size)
		return -ENAMETOOLONG;
	buf[n] = 0;
	return 0;
}

static int posix_statfs(struct origin *o, struct statvfs *ret_st)
{
	struct posix *p = container_of(o, struct posix, origin);

	return fstatvfs(p->root_fd, ret_st) ? -errno : 0;
}

/* ---- listing ---- */

struct stat_job {
	struct work work;
	const struct posix *posix;
	struct origin_entry *entry;
	size_t count;
	int dir_fd;
	struct stat_batch *batch;
};

struct stat_batch {
	pthread_mutex_t mutex;
	pthread_cond_t done;
	size_t left;                 /* jobs */
};

static int acl_of_entry(int dir_fd, const char *name, struct origin_attr *attr)
{
	char path[32 + NAME_MAX + 1], acl[ORIGIN_ACL_MAX];

	if ((size_t)snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", dir_fd, name) >= sizeof(path))
		return -ENAMETOOLONG;
	return acl_take(attr, acl, lgetxattr(path, ACL_ACCESS_XATTR, acl, sizeof(acl)));
}

static void stat_entries(const struct posix *p, int dir_fd, struct origin_entry *entry, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		struct origin_entry *e = &entry[i];
		struct stat st;

		e->err = fstatat(dir_fd, e->name, &st, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
		if (!e->err)
			attr_fill(&st, &e->attr);
		if (!e->err && may_have_acl(p, &e->attr))
			e->err = acl_of_entry(dir_fd, e->name, &e->attr);
	}
}

static void stat_job_run(struct work *w)
{
	struct stat_job *job = container_of(w, struct stat_job, work);
	struct stat_batch *batch = job->batch;

	stat_entries(job->posix, job->dir_fd, job->entry, job->count);
	pthread_mutex_lock(&batch->mutex);
	if (--batch->left == 0)
		pthread_cond_signal(&batch->done);
	pthread_mutex_unlock(&batch->mutex);
}

/* Attributes of a large directory, by several threads: on a network each costs a round trip. */
static void stat_parallel(struct posix *p, int dir_fd, struct origin_listing *l)
{
	size_t jobs = (l->count + STAT_CHUNK - 1) / STAT_CHUNK;
	struct stat_job *job = jobs > 1 ? calloc(jobs, sizeof(*job)) : NULL;
	struct stat_batch batch = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, jobs };

	if (!job) {
		stat_entries(p, dir_fd, l->entry, l->count);
		return;
	}
	for (size_t i = 0; i < jobs; i++) {
		size_t at = i * STAT_CHUNK, left = l->count - at;

		job[i] = (struct stat_job){ .work.run = stat_job_run, .posix = p, .entry = l->entry + at,
					    .count = left < STAT_CHUNK ? left : STAT_CHUNK,
					    .dir_fd = dir_fd, .batch = &batch };
		pool_submit(p->statters, &job[i].work);
	}
	pthread_mutex_lock(&batch.mutex);
	while (batch.left)
		pthread_cond_wait(&batch.done, &batch.mutex);
	pthread_mutex_unlock(&batch.mutex);
	free(job);
}

/* Grow the listing by one name; names are kept as offsets until all are there. */
static int listing_add(struct origin_listing *l, size_t *names_len, size_t *entries_max, const char *name)
{
	size_t n = strlen(name) + 1;

	if (*names_len + n > l->names_size) {
		size_t size = (l->names_size + n) * 2;
		char *names = realloc(l->names, size);

		if (!names)
			return -ENOMEM;
		l->names = names;
		l->names_size = size;
	}
	if (l->count == *entries_max) {
		size_t max = *entries_max ? *entries_max * 2 : 64;
		struct origin_entry *entry = realloc(l->entry, max * sizeof(*entry));

		if (!entry)
			return -ENOMEM;
		l->entry = entry;
		*entries_max = max;
	}
	memcpy(l->names + *names_len, name, n);
	memset(&l->entry[l->count], 0, sizeof(l->entry[0]));
	l->entry[l->count++].name = (const char *)*names_len;
	*names_len += n;
	return 0;
}

static int read_names(DIR *dir, struct origin_listing *l)
{
	size_t names_len = 0, entries_max = 0;
	struct dirent *de;
	int rc;

	while (errno = 0, (de = readdir(dir))) {
		if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
			continue;
		rc = listing_add(l, &names_len, &entries_max, de->d_name);
		if (rc)
			return rc;
	}
	if (errno)
		return -errno;
	for (size_t i = 0; i < l->count; i++)
		l->entry[i].name = l->names + (size_t)l->entry[i].name;
	return 0;
}

static int posix_list(struct origin *o, const char *path, struct origin_listing *ret_listing)
{
	struct posix *p = container_of(o, struct posix, origin);
	struct origin_listing l = { 0 };
	int fd = open_below(p, path, O_RDONLY | O_DIRECTORY), rc;
	DIR *dir;

	count(p, STAT_ORIGIN_META_REQUESTS, 1);
	if (fd < 0)
		return fd;
	dir = fdopendir(fd);
	if (!dir) {
		rc = -errno;
		close(fd);
		return rc;
	}
	rc = read_names(dir, &l);
	if (!rc) {
		count(p, STAT_ORIGIN_META_REQUESTS, l.count);
		stat_parallel(p, dirfd(dir), &l);
		*ret_listing = l;
	} else {
		origin_listing_free(&l);
	}
	closedir(dir);
	return rc;
}

/* ---- reading ---- */

static void kept_free(struct kept *k)
{
	close(k->fd);
	free(k->path);
	free(k);
}

/* Drop a reference; called with the lock held. Returns the one to free, or NULL. */
static struct kept *kept_put(struct kept *k)
{
	return --k->refs ? NULL : k;
}

/* Keep none of them. Returns whether there was one. */
static bool kept_clear(struct posix *p)
{
	struct kept *out[KEPT_FILES];
	bool has_one = false;

	lock_acquire(&p->lock);
	for (unsigned i = 0; i < KEPT_FILES; i++) {
		has_one |= p->kept[i] != NULL;
		out[i] = p->kept[i] ? kept_put(p->kept[i]) : NULL;
		p->kept[i] = NULL;
	}
	lock_release(&p->lock);
	for (unsigned i = 0; i < KEPT_FILES; i++) {
		if (out[i])
			kept_free(out[i]);
	}
	return has_one;
}

static struct kept *kept_find(struct posix *p, const char *path)
{
	lock_scope(&p->lock);
	for (unsigned i = 0; i < KEPT_FILES; i++) {
		struct kept *k = p->kept[i];

		if (!k || strcmp(k->path, path))
			continue;
		k->refs++;
		k->used = ++p->clock;
		return k;
	}
	return NULL;
}

/* Take @k into the table in place of the one longest unused. */
static void kept_insert(struct posix *p, struct kept *k)
{
	struct kept *victim;
	unsigned slot = 0;

	lock_acquire(&p->lock);
	for (unsigned i = 0; i < KEPT_FILES; i++) {
		if (!p->kept[i]) {
			slot = i;
			break;
		}
		if (p->kept[i]->used < p->kept[slot]->used)
			slot = i;
	}
	victim = p->kept[slot] ? kept_put(p->kept[slot]) : NULL;
	k->refs++;
	k->used = ++p->clock;
	p->kept[slot] = k;
	lock_release(&p->lock);
	if (victim)
		kept_free(victim);
}

/* Give back a reference; @is_bad also removes it from the table. */
static void kept_release(struct posix *p, struct kept *k, bool is_bad)
{
	bool is_last;

	lock_acquire(&p->lock);
	for (unsigned i = 0; is_bad && i < KEPT_FILES; i++) {
		if (p->kept[i] == k) {
			p->kept[i] = NULL;
			k->refs--;
		}
	}
	is_last = kept_put(k) != NULL;
	lock_release(&p->lock);
	if (is_last)
		kept_free(k);
}

/*
 * O_NOATIME needs ownership; O_NONBLOCK keeps a FIFO put in a file's place
 * from blocking the open.
 */
static int open_file(struct posix *p, const char *path)
{
	int fd = open_below(p, path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOATIME);

	if (fd == -EPERM)
		fd = open_below(p, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	return fd;
}

static int kept_open(struct posix *p, const char *path, struct kept **ret_kept, bool *ret_was_kept)
{
	struct kept *k = kept_find(p, path);
	int fd;

	*ret_was_kept = k != NULL;
	if (k) {
		*ret_kept = k;
		return 0;
	}
	fd = open_file(p, path);
	if (fd < 0)
		return fd;
	k = calloc(1, sizeof(*k));
	if (!k || !(k->path = strdup(path))) {
		free(k);
		close(fd);
		return -ENOMEM;
	}
	k->fd = fd;
	k->refs = 1;
	*ret_kept = k;
	return 0;
}

static int check_version(int fd, const struct version *expect)
{
	struct origin_attr attr;
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	attr_fill(&st, &attr);
	return S_ISREG(st.st_mode) && st.st_nlink && version_equal(&attr.version, expect) ? 0 : -ESTALE;
}

/* The version is checked before, for progress() to be true, and after, for done() to be. */
static int read_range(struct kept *k, struct origin_read *r)
{
	size_t have = 0;
	int rc = check_version(k->fd, &r->expect);

	while (!rc && have < r->len) {
		size_t want = r->len - have < STEP_BYTES ? r->len - have : STEP_BYTES;
		ssize_t n = pread(k->fd, (char *)r->buf + have, want, (off_t)(r->offset + have));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ESTALE;
		have += (size_t)n;
		if (r->progress && have < r->len)
			r->progress(r, have);
	}
	return rc ? rc : check_version(k->fd, &r->expect);
}

struct read_job {
	struct work work;
	struct posix *posix;
	struct origin_read *read;
};

static int read_now(struct posix *p, struct origin_read *r)
{
	struct kept *k;
	bool was_kept;
	int rc = kept_open(p, r->path, &k, &was_kept);

	if (rc)
		return rc == -ENOENT || rc == -ENOTDIR || rc == -ELOOP || rc == -EXDEV ? -ESTALE : rc;
	rc = read_range(k, r);
	if (rc == -ESTALE && was_kept) {
		/* the path may name a newer file, of the version we want, by now */
		kept_release(p, k, true);
		rc = kept_open(p, r->path, &k, &was_kept);
		if (rc)
			return -ESTALE;
		rc = read_range(k, r);
	}
	if (!rc && !was_kept && r->len < r->expect.size)
		kept_insert(p, k);   /* more of it will follow */
	kept_release(p, k, rc != 0);
	return rc;
}

static void read_job_run(struct work *w)
{
	struct read_job *job = container_of(w, struct read_job, work);
	struct origin_read *r = job->read;
	struct posix *p = job->posix;
	int rc = read_now(p, r);

	if (rc)
		count(p, STAT_ORIGIN_ERRORS, 1);
	else
		count(p, STAT_ORIGIN_BYTES, r->len);
	free(job);
	r->done(r, rc);
}

/* Allocation failed: the read reports so from a thread of the pool all the same. */
static void posix_read(struct origin *o, struct origin_read *r)
{
	struct posix *p = container_of(o, struct posix, origin);
	struct read_job *job;

	count(p, STAT_ORIGIN_REQUESTS, 1);
	while (!(job = malloc(sizeof(*job))))
		usleep(1000);   /* 40 bytes; the mount is lost anyway if they never come */
	*job = (struct read_job){ .work.run = read_job_run, .posix = p, .read = r };
	pool_submit(p->readers, &job->work);
}

static void posix_free(struct origin *o)
{
	struct posix *p = container_of(o, struct posix, origin);

	pool_free(p->readers);
	pool_free(p->statters);
	for (unsigned i = 0; i < KEPT_FILES; i++) {
		if (p->kept[i])
			kept_free(p->kept[i]);
	}
	lock_destroy(&p->lock);
	close(p->root_fd);
	free(p);
}

static const struct origin_ops posix_ops = {
	.kind = "posix",
	.free = posix_free,
	.list = posix_list,
	.stat = posix_stat,
	.readlink = posix_readlink,
	.statfs = posix_statfs,
	.read = posix_read,
};

/* The root speaks for what is below it. */
static bool has_acls(int root_fd)
{
	return fgetxattr(root_fd, ACL_ACCESS_XATTR, NULL, 0) >= 0 || errno == ENODATA;
}

int origin_posix_open(const char *path, struct stats *stats, struct origin **ret_origin,
		      char *msg, size_t msg_size)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;
	struct posix *p;

	if (fd < 0) {
		rc = -errno;
		snprintf(msg, msg_size, "origin %s: %s; give a directory that exists and can be read",
			 path, strerror(-rc));
		return rc;
	}
	p = calloc(1, sizeof(*p));
	if (!p) {
		close(fd);
		return -ENOMEM;
	}
	p->origin.ops = &posix_ops;
	p->origin.stats = stats;
	p->origin.has_acls = has_acls(fd);
	p->root_fd = fd;
	lock_init(&p->lock, "origin files", RANK_KEPT);
	rc = pool_new("origin", READ_THREADS, &p->readers);
	if (!rc)
		rc = pool_new("origin-stat", STAT_THREADS, &p->statters);
	if (rc) {
		pool_free(p->readers);
		close(fd);
		free(p);
		return rc;
	}
	*ret_origin = &p->origin;
	return 0;
}

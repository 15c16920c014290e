/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/layer/record.h"
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "tests/unit/test.h"

enum { PAGE = 4096 };

enum kind { CREATE, MKDIR, WRITE, TRUNCATE, PUNCH, UNLINK, RENAME, SYNC, SYNC_ALL };

struct step {
	enum kind kind;
	char *path, *to;          /* below the directory; owned */
	uint64_t offset, len;
	char *data;               /* owned */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];       /* "" while nothing is recorded */
static struct step *steps;
static size_t count, room;
static unsigned boot_number;
static bool has_same_times;

/* ---- recording ---- */

void record_begin(const char *dir)
{
	pthread_mutex_lock(&mutex);
	for (size_t i = 0; i < count; i++) {
		free(steps[i].path);
		free(steps[i].to);
		free(steps[i].data);
	}
	count = 0;
	snprintf(root, sizeof(root), "%s/", dir);
	pthread_mutex_unlock(&mutex);
}

void record_end(void)
{
	pthread_mutex_lock(&mutex);
	*root = 0;
	pthread_mutex_unlock(&mutex);
}

size_t record_count(void)
{
	return count;
}

bool record_is_sync(size_t at)
{
	return steps[at].kind == SYNC || steps[at].kind == SYNC_ALL;
}

void record_boot(unsigned number)
{
	boot_number = number;
}

void record_same_times(bool on)
{
	has_same_times = on;
}

/* The path of @name in directory @dir (or of @dir itself, for NULL) below the root; false if it is elsewhere. */
static bool below_root(int dir, const char *name, char *ret)
{
	char link[64], path[PATH_MAX] = "";
	size_t n = strlen(root);
	ssize_t len = 0;

	if (!n)
		return false;
	if (!name || *name != '/') {
		snprintf(link, sizeof(link), dir == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dir);
		len = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof(path) - 1);
		if (len < 0)
			return false;
		path[len] = 0;
	}
	if (name)
		snprintf(path + len, sizeof(path) - (size_t)len, "%s%s", *name == '/' ? "" : "/", name);
	if (strncmp(path, root, n) || strstr(path, " (deleted)"))
		return false;
	snprintf(ret, PATH_MAX, "%s", path + n);
	return true;
}

/* Mutex held. */
static struct step *step_add(enum kind kind, const char *path)
{
	if (count == room) {
		room = room ? room * 2 : 1024;
		steps = realloc(steps, room * sizeof(*steps));
		if (!steps)
			abort();
	}
	steps[count] = (struct step){ .kind = kind, .path = strdup(path) };
	return &steps[count++];
}

static void write_add(const char *path, const void *data, size_t len, uint64_t offset)
{
	struct step *s = step_add(WRITE, path);

	s->data = malloc(len ? len : 1);
	if (!s->data)
		abort();
	memcpy(s->data, data, len);
	s->len = len;
	s->offset = offset;
}

/* ---- what passes through ---- */

int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
	(void)entries;
	(void)ring;
	(void)flags;
	return -ENOSYS;
}

static ssize_t result(long rc)
{
	return (ssize_t)rc;   /* syscall() has set errno */
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
	char path[PATH_MAX];
	ssize_t n;

	pthread_mutex_lock(&mutex);
	n = result(syscall(SYS_pwrite64, fd, buf, len, offset));
	if (n > 0 && below_root(fd, NULL, path))
		write_add(path, buf, (size_t)n, (uint64_t)offset);
	pthread_mutex_unlock(&mutex);
	return n;
}

ssize_t pwrite64(int fd, const void *buf, size_t len, off_t offset)
{
	return pwrite(fd, buf, len, offset);
}

ssize_t pwritev(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	ssize_t all = 0;

	for (int i = 0; i < iov_count; i++) {
		ssize_t n = pwrite(fd, iov[i].iov_base, iov[i].iov_len, offset + all);

		if (n < 0)
			return all ? all : n;
		all += n;
		if ((size_t)n < iov[i].iov_len)
			break;
	}
	return all;
}

ssize_t pwritev64(int fd, const struct iovec *iov, int iov_count, off_t offset)
{
	return pwritev(fd, iov, iov_count, offset);
}

ssize_t write(int fd, const void *buf, size_t len)
{
	char path[PATH_MAX];
	off_t at;
	ssize_t n;

	if (!*root)
		return result(syscall(SYS_write, fd, buf, len));
	pthread_mutex_lock(&mutex);
	at = (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
	n = result(syscall(SYS_write, fd, buf, len));
	if (n > 0 && at >= 0 && below_root(fd, NULL, path))
		write_add(path, buf, (size_t)n, (uint64_t)at);
	pthread_mutex_unlock(&mutex);
	return n;
}

/* LMDB seeks, and writes from there. */
ssize_t writev(int fd, const struct iovec *iov, int iov_count)
{
	ssize_t all = 0;

	for (int i = 0; i < iov_count; i++) {
		ssize_t n = write(fd, iov[i].iov_base, iov[i].iov_len);

		if (n < 0)
			return all ? all : n;
		all += n;
		if ((size_t)n < iov[i].iov_len)
			break;
	}
	return all;
}

/* The disk is a model: nobody has to wait for the real one. */
static int sync_add(enum kind kind, int fd)
{
	char path[PATH_MAX];

	pthread_mutex_lock(&mutex);
	if (below_root(fd, kind == SYNC_ALL ? "" : NULL, path))
		step_add(kind, path);
	pthread_mutex_unlock(&mutex);
	return 0;
}

int fsync(int fd)
{
	return sync_add(SYNC, fd);
}

int fdatasync(int fd)
{
	return sync_add(SYNC, fd);
}

int syncfs(int fd)
{
	return sync_add(SYNC_ALL, fd);
}

int ftruncate(int fd, off_t len)
{
	char path[PATH_MAX];
	int rc;

	pthread_mutex_lock(&mutex);
	rc = (int)syscall(SYS_ftruncate, fd, len);
	if (!rc && below_root(fd, NULL, path))
		step_add(TRUNCATE, path)->len = (uint64_t)len;
	pthread_mutex_unlock(&mutex);
	return rc;
}

int ftruncate64(int fd, off_t len)
{
	return ftruncate(fd, len);
}

int fallocate(int fd, int mode, off_t offset, off_t len)
{
	char path[PATH_MAX];
	int rc;

	pthread_mutex_lock(&mutex);
	rc = (int)syscall(SYS_fallocate, fd, mode, offset, len);
	if (!rc && mode & FALLOC_FL_PUNCH_HOLE && below_root(fd, NULL, path)) {
		struct step *s = step_add(PUNCH, path);

		s->offset = (uint64_t)offset;
		s->len = (uint64_t)len;
	}
	pthread_mutex_unlock(&mutex);
	return rc;
}

int fallocate64(int fd, int mode, off_t offset, off_t len)
{
	return fallocate(fd, mode, offset, len);
}

static int name_add(long rc, enum kind kind, int dir, const char *name)
{
	char path[PATH_MAX];

	if (!rc && below_root(dir, name, path))
		step_add(kind, path);
	return (int)rc;
}

int mkdirat(int dir, const char *name, mode_t mode)
{
	int rc;

	pthread_mutex_lock(&mutex);
	rc = name_add(syscall(SYS_mkdirat, dir, name, mode), MKDIR, dir, name);
	pthread_mutex_unlock(&mutex);
	return rc;
}

int unlinkat(int dir, const char *name, int flags)
{
	int rc;

	pthread_mutex_lock(&mutex);
	rc = name_add(syscall(SYS_unlinkat, dir, name, flags), UNLINK, dir, name);
	pthread_mutex_unlock(&mutex);
	return rc;
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	char path[PATH_MAX], to_path[PATH_MAX];
	int rc;

	pthread_mutex_lock(&mutex);
	rc = (int)syscall(SYS_renameat, from_dir, from, to_dir, to);
	if (!rc && below_root(from_dir, from, path) && below_root(to_dir, to, to_path))
		step_add(RENAME, path)->to = strdup(to_path);
	pthread_mutex_unlock(&mutex);
	return rc;
}

static int open_recorded(int dir, const char *name, int flags, mode_t mode)
{
	char path[PATH_MAX];
	bool was_there;
	int fd;

	if (!*root || !(flags & (O_CREAT | O_TRUNC)))
		return (int)syscall(SYS_openat, dir, name, flags, mode);
	pthread_mutex_lock(&mutex);
	was_there = !syscall(SYS_faccessat, dir, name, F_OK);
	fd = (int)syscall(SYS_openat, dir, name, flags, mode);
	if (fd >= 0 && below_root(dir, name, path)) {
		if (!was_there)
			step_add(CREATE, path);
		else if (flags & O_TRUNC)
			step_add(TRUNCATE, path)->len = 0;
	}
	pthread_mutex_unlock(&mutex);
	return fd;
}

#define MODE_OF(flags) \
	({ mode_t m_ = 0; va_list a_; \
	   if ((flags) & (O_CREAT | __O_TMPFILE)) { va_start(a_, flags); m_ = va_arg(a_, mode_t); va_end(a_); } \
	   m_; })

int openat(int dir, const char *name, int flags, ...)
{
	return open_recorded(dir, name, flags, MODE_OF(flags));
}

int openat64(int dir, const char *name, int flags, ...)
{
	return open_recorded(dir, name, flags, MODE_OF(flags));
}

static int boot_file(void)
{
	char text[64];
	int fd[2];

	snprintf(text, sizeof(text), "boot-%u\n", boot_number);
	if (syscall(SYS_pipe2, fd, O_CLOEXEC))
		return -1;
	if (syscall(SYS_write, fd[1], text, strlen(text)) < 0)
		abort();
	syscall(SYS_close, fd[1]);
	return fd[0];
}

int open(const char *name, int flags, ...)
{
	if (boot_number && !strcmp(name, "/proc/sys/kernel/random/boot_id"))
		return boot_file();
	return open_recorded(AT_FDCWD, name, flags, MODE_OF(flags));
}

int open64(const char *name, int flags, ...)
{
	if (boot_number && !strcmp(name, "/proc/sys/kernel/random/boot_id"))
		return boot_file();
	return open_recorded(AT_FDCWD, name, flags, MODE_OF(flags));
}

static int with_times(long rc, struct stat *st)
{
	if (!rc && has_same_times && S_ISREG(st->st_mode))
		st->st_mtim = st->st_ctim = (struct timespec){ 1000000000, 0 };
	return (int)rc;
}

int fstat(int fd, struct stat *st)
{
	return with_times(syscall(SYS_newfstatat, fd, "", st, AT_EMPTY_PATH), st);
}

int fstatat(int dir, const char *name, struct stat *st, int flags)
{
	return with_times(syscall(SYS_newfstatat, dir, name, st, flags), st);
}

/* ---- what is left ---- */

static int file_of(int dir, const struct step *s)
{
	return (int)syscall(SYS_openat, dir, s->path, O_RDWR | O_CLOEXEC);
}

static void grow(int fd, uint64_t size)
{
	struct stat st;

	if (!syscall(SYS_newfstatat, fd, "", &st, AT_EMPTY_PATH) && (uint64_t)st.st_size < size &&
	    syscall(SYS_ftruncate, fd, size))
		abort();
}

/* The pages of @s that made it; @percent 100: all. */
static void replay_write(int dir, const struct step *s, unsigned percent, uint64_t *random)
{
	int fd = file_of(dir, s);

	if (fd < 0)
		return;   /* its name did not make it */
	if (percent == 100) {
		if (syscall(SYS_pwrite64, fd, s->data, s->len, s->offset) != (long)s->len)
			abort();
		close(fd);
		return;
	}
	/* its size is no matter of the bytes */
	if (test_random(random) % 2)
		grow(fd, s->offset + s->len);
	for (uint64_t at = 0; at < s->len;) {
		uint64_t n = PAGE - (s->offset + at) % PAGE;

		n = n < s->len - at ? n : s->len - at;
		if (test_random(random) % 100 < percent &&
		    syscall(SYS_pwrite64, fd, s->data + at, n, s->offset + at) != (long)n)
			abort();
		at += n;
	}
	close(fd);
}

static void replay_name(int dir, const struct step *s)
{
	int fd = -1;

	if (s->kind == CREATE)
		fd = (int)syscall(SYS_openat, dir, s->path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	else if (s->kind == MKDIR)
		syscall(SYS_mkdirat, dir, s->path, 0700);
	else if (s->kind == UNLINK)
		syscall(SYS_unlinkat, dir, s->path, 0);
	else if (s->kind == RENAME)
		syscall(SYS_renameat, dir, s->path, dir, s->to);
	else
		fd = file_of(dir, s);
	if (fd >= 0 && s->kind == TRUNCATE && syscall(SYS_ftruncate, fd, s->len))
		abort();
	if (fd >= 0 && s->kind == PUNCH &&
	    syscall(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, s->offset, s->len))
		abort();
	if (fd >= 0)
		close(fd);
}

/* Is step @at on the disk for certain, with all steps up to @cut done? */
static bool is_synced(size_t at, size_t cut)
{
	bool is_name = steps[at].kind != WRITE;

	for (size_t i = at + 1; i < cut; i++) {
		if (steps[i].kind == SYNC_ALL || (steps[i].kind == SYNC && (is_name || !strcmp(steps[i].path, steps[at].path))))
			return true;
	}
	return false;
}

int record_replay(const char *dir, size_t cut, enum record_end end, unsigned keep_percent, uint64_t *random)
{
	bool is_synced_all = false, names_end = false;
	int fd, rc = mkdir(dir, 0700) ? -errno : 0;

	fd = rc ? -1 : (int)syscall(SYS_openat, AT_FDCWD, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (rc || fd < 0)
		return rc ? rc : -errno;
	for (size_t i = 0; i < cut; i++) {
		const struct step *s = &steps[i];

		is_synced_all = end == RECORD_KILLED || is_synced(i, cut);
		if (s->kind == WRITE) {
			replay_write(fd, s, is_synced_all ? 100 : keep_percent, random);
		} else if (s->kind != SYNC && s->kind != SYNC_ALL) {
			/* names in their order, up to any point */
			names_end |= !is_synced_all && test_random(random) % 100 >= keep_percent;
			if (!names_end)
				replay_name(fd, s);
		}
	}
	close(fd);
	return 0;
}

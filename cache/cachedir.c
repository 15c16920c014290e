/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/cachedir.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cache/own.h"
#include "lib/cleanup.h"

#define TAG_HEAD "hopperfs cache, format 1\n"

static bool is_empty(int fd)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *de;
	bool empty = dir != NULL;

	while (dir && (de = readdir(dir)))
		empty = empty && (!strcmp(de->d_name, ".") || !strcmp(de->d_name, "..") ||
				  !strcmp(de->d_name, "lost+found") ||
				  !strcmp(de->d_name, CACHEDIR_TAG ".new"));   /* the machine stopped in tag_write() */
	if (dir)
		closedir(dir);
	return empty;
}

/*
 * Where a file is, as far as a copy of it is elsewhere: its number and when it was made, which nobody can set. Empty
 * where the file system does not know the latter.
 */
static void file_position(int fd, char *buf, size_t size)
{
	struct statx stx;

	*buf = 0;
	if (!statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &stx) && (stx.stx_mask & STATX_BTIME))
		snprintf(buf, size, "%llu %lld.%09u", (unsigned long long)stx.stx_ino, (long long)stx.stx_btime.tv_sec,
			 stx.stx_btime.tv_nsec);
}

static int tag_write(int fd, const char *identity)
{
	_cleanup_close_ int tag = own_open(fd, CACHEDIR_TAG ".new", O_CREAT | O_TRUNC | O_WRONLY);
	_cleanup_free_ char *text = NULL;
	char position[64];

	if (tag < 0)
		return tag;
	file_position(tag, position, sizeof(position));
	if (asprintf(&text, TAG_HEAD "%s\n%s\n", identity, position) < 0)
		return -ENOMEM;
	if (write(tag, text, strlen(text)) != (ssize_t)strlen(text) || fsync(tag))
		return errno ? -errno : -EIO;
	return renameat(fd, CACHEDIR_TAG ".new", fd, CACHEDIR_TAG) ? -errno : 0;
}

/* The tag's text and where it is, or negative errno. */
static int tag_read(int fd, char *buf, size_t size, char *position, size_t position_size)
{
	_cleanup_close_ int tag = own_open(fd, CACHEDIR_TAG, O_RDONLY);
	ssize_t n;

	if (tag < 0)
		return tag;
	n = read(tag, buf, size - 1);
	if (n < 0)
		return -errno;
	buf[n] = 0;
	file_position(tag, position, position_size);
	return 0;
}

/* The next line of a text, ended; *at moves behind it. */
static char *line_of(char **at)
{
	char *line = *at, *end = line + strcspn(line, "\n");

	*at = *end ? end + 1 : end;
	*end = 0;
	return line;
}

static int tag_check(const char *path, int fd, const char *identity, bool *ret_is_copy, char *msg, size_t msg_size)
{
	char text[8192], position[64] = "", *at = text, *owner, *was;
	int rc = tag_read(fd, text, sizeof(text), position, sizeof(position));

	if (rc == -ENOENT) {
		snprintf(msg, msg_size, "cache %s: not empty and not a hopperfs cache; give an empty or a new directory", path);
		return -EEXIST;
	}
	if (rc)
		return rc;
	if (strncmp(text, TAG_HEAD, strlen(TAG_HEAD))) {
		snprintf(msg, msg_size, "cache %s: written by another version of hopperfs; give another directory, or remove it", path);
		return -EINVAL;
	}
	at += strlen(TAG_HEAD);
	owner = line_of(&at);
	was = line_of(&at);
	if (strcmp(owner, identity)) {
		snprintf(msg, msg_size, "cache %s: belongs to the origin %s; give each origin its own directory", path, owner);
		return -EEXIST;
	}
	*ret_is_copy = *was && *position && strcmp(was, position);
	return 0;
}

/* Is one of the directories above a cache? What is in it would be swept, and counted as its own. */
static int check_above(const char *path, int fd, char *msg, size_t msg_size)
{
	_cleanup_close_ int at = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat st, above;

	if (fstat(fd, &st))
		return -errno;
	while (at >= 0 && !fstat(at, &above) && (st.st_dev != above.st_dev || st.st_ino != above.st_ino)) {
		int next;

		if (!faccessat(at, CACHEDIR_TAG, F_OK, 0)) {
			snprintf(msg, msg_size, "cache %s: inside another cache directory; give one elsewhere", path);
			return -EEXIST;
		}
		st = above;
		next = openat(at, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
		close(at);
		at = next;
	}
	return 0;
}

static int check_owner(const char *path, int fd, bool empty, char *msg, size_t msg_size)
{
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (st.st_uid != geteuid()) {
		snprintf(msg, msg_size, "cache %s: owned by another user; give a directory of your own", path);
		return -EPERM;
	}
	if (!(st.st_mode & 077))
		return 0;
	if (empty)
		return fchmod(fd, 0700) ? -errno : 0;
	snprintf(msg, msg_size, "cache %s: open to other users, who could have changed it; remove it, or chmod 700 it if you trust it", path);
	return -EPERM;
}

static int lock_it(const char *path, int fd, int *ret_lock, char *msg, size_t msg_size)
{
	int lock = own_open(fd, "lock", O_CREAT | O_RDWR), rc;

	if (lock < 0)
		return lock;
	if (flock(lock, LOCK_EX | LOCK_NB)) {
		rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
		if (rc == -EBUSY)
			snprintf(msg, msg_size, "cache %s: in use by another mount; give each mount its own directory", path);
		close(lock);
		return rc;
	}
	*ret_lock = lock;
	return 0;
}

static int claim(const char *path, const char *identity, struct cachedir *d, char *msg, size_t msg_size)
{
	bool empty = is_empty(d->fd);
	int rc = check_owner(path, d->fd, empty, msg, msg_size);

	if (!rc)
		rc = check_above(path, d->fd, msg, msg_size);
	if (!rc && !empty)
		rc = tag_check(path, d->fd, identity, &d->is_copy, msg, msg_size);
	if (!rc && empty)
		rc = tag_write(d->fd, identity);
	if (!rc)
		rc = lock_it(path, d->fd, &d->lock_fd, msg, msg_size);
	return rc;
}

/* The path may be a link, if who owns it may decide where our cache is. */
static int check_link(const char *path, char *msg, size_t msg_size)
{
	struct stat st;

	if (lstat(path, &st))
		return -errno;
	if (!S_ISLNK(st.st_mode) || st.st_uid == geteuid() || !st.st_uid)
		return 0;
	snprintf(msg, msg_size, "cache %s: another user's link; give the directory itself", path);
	return -EPERM;
}

int cachedir_make(const char *path)
{
	_cleanup_free_ char *copy = strdup(path);

	if (!copy)
		return -ENOMEM;
	for (char *p = copy + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		if (mkdir(copy, 0755) && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	return mkdir(path, 0700) && errno != EEXIST ? -errno : 0;
}

int cachedir_open(const char *path, const char *identity, struct cachedir *ret, char *msg, size_t msg_size)
{
	int rc = cachedir_make(path);

	*ret = (struct cachedir){ -1, -1, false };
	*msg = 0;
	if (!rc)
		rc = check_link(path, msg, msg_size);
	if (!rc) {
		ret->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		rc = ret->fd < 0 ? -errno : claim(path, identity, ret, msg, msg_size);
	}
	if (!rc)
		return 0;
	if (!*msg)
		snprintf(msg, msg_size, "cache %s: %s", path, strerror(-rc));
	cachedir_close(ret);
	return rc == -ENOTDIR ? -EEXIST : rc;
}

int cachedir_adopt(struct cachedir *d, const char *identity)
{
	d->is_copy = false;
	return tag_write(d->fd, identity);
}

void cachedir_close(struct cachedir *d)
{
	if (d->lock_fd >= 0)
		close(d->lock_fd);
	if (d->fd >= 0)
		close(d->fd);
	*d = (struct cachedir){ -1, -1, false };
}

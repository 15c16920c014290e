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
#include "lib/cleanup.h"

#define TAG_NAME "hopperfs-cache"
#define TAG_HEAD "hopperfs cache, format 1\n"

static int make_parents(const char *path)
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

static bool is_empty(int fd)
{
	int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct dirent *de;
	bool empty = dir != NULL;

	while (dir && (de = readdir(dir)))
		empty = empty && (!strcmp(de->d_name, ".") || !strcmp(de->d_name, "..") ||
				  !strcmp(de->d_name, "lost+found"));
	if (dir)
		closedir(dir);
	return empty;
}

static int tag_write(int fd, const char *identity)
{
	_cleanup_close_ int tag = openat(fd, TAG_NAME ".new", O_CREAT | O_TRUNC | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0600);
	_cleanup_free_ char *text = NULL;

	if (tag < 0)
		return -errno;
	if (asprintf(&text, TAG_HEAD "%s\n", identity) < 0)
		return -ENOMEM;
	if (write(tag, text, strlen(text)) != (ssize_t)strlen(text) || fsync(tag))
		return errno ? -errno : -EIO;
	return renameat(fd, TAG_NAME ".new", fd, TAG_NAME) ? -errno : 0;
}

/* Returns the tag's text in @buf, or negative errno. */
static int tag_read(int fd, char *buf, size_t size)
{
	_cleanup_close_ int tag = openat(fd, TAG_NAME, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	ssize_t n;

	if (tag < 0)
		return -errno;
	n = read(tag, buf, size - 1);
	if (n < 0)
		return -errno;
	buf[n] = 0;
	return 0;
}

static int tag_check(const char *path, int fd, const char *identity, char *msg, size_t msg_size)
{
	char text[8192], *owner;
	int rc = tag_read(fd, text, sizeof(text));

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
	owner = text + strlen(TAG_HEAD);
	owner[strcspn(owner, "\n")] = 0;
	if (strcmp(owner, identity)) {
		snprintf(msg, msg_size, "cache %s: belongs to the origin %s; give each origin its own directory", path, owner);
		return -EEXIST;
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
	int lock = openat(fd, "lock", O_CREAT | O_RDWR | O_NOFOLLOW | O_CLOEXEC, 0600), rc;

	if (lock < 0)
		return -errno;
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

	if (!rc && !empty)
		rc = tag_check(path, d->fd, identity, msg, msg_size);
	if (!rc && empty)
		rc = tag_write(d->fd, identity);
	if (!rc)
		rc = lock_it(path, d->fd, &d->lock_fd, msg, msg_size);
	return rc;
}

int cachedir_open(const char *path, const char *identity, struct cachedir *ret, char *msg, size_t msg_size)
{
	int rc = make_parents(path);

	*ret = (struct cachedir){ -1, -1 };
	*msg = 0;
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

void cachedir_close(struct cachedir *d)
{
	if (d->lock_fd >= 0)
		close(d->lock_fd);
	if (d->fd >= 0)
		close(d->fd);
	*d = (struct cachedir){ -1, -1 };
}

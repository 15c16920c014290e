/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slowfs SPEC MOUNTPOINT: serves an origin without any cache of its own, in
 * the foreground, so that a job can be timed directly on it. The kernel caches
 * pages and, for a second, names, as it does for any network file system.
 */
#include <errno.h>
#include <fuse.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "cache/origin/origin.h"

static struct origin *origin_of(void)
{
	return fuse_get_context()->private_data;
}

static void fill_stat(const struct origin_attr *a, struct stat *st)
{
	*st = (struct stat){ .st_mode = a->mode, .st_nlink = a->nlink, .st_uid = a->uid, .st_gid = a->gid,
			     .st_size = (off_t)a->version.size };
	st->st_mtim.tv_sec = a->version.mtime_ns / 1000000000;
	st->st_mtim.tv_nsec = a->version.mtime_ns % 1000000000;
}

static int slow_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
	struct origin_attr a;
	int rc = origin_of()->ops->stat(origin_of(), path + 1, &a);

	(void)fi;
	if (!rc)
		fill_stat(&a, st);
	return rc;
}

static int slow_readlink(const char *path, char *buf, size_t size)
{
	return origin_of()->ops->readlink(origin_of(), path + 1, buf, size);
}

static int slow_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t offset,
			struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
	struct origin_listing l = { 0 };
	int rc = origin_of()->ops->list(origin_of(), path + 1, &l);

	(void)offset;
	(void)fi;
	(void)flags;
	for (size_t i = 0; !rc && i < l.count; i++) {
		struct stat st;

		fill_stat(&l.entry[i].attr, &st);
		fill(buf, l.entry[i].name, &st, 0, 0);
	}
	origin_listing_free(&l);
	return rc;
}

struct waiting {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	int err;
	int is_done;
};

static void read_done(struct origin_read *r, int err)
{
	struct waiting *w = r->arg;

	pthread_mutex_lock(&w->mutex);
	w->err = err;
	w->is_done = 1;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->mutex);
}

static int slow_read(const char *path, char *buf, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct waiting w = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0 };
	struct origin *o = origin_of();
	struct version *v = (struct version *)(uintptr_t)fi->fh;
	struct origin_read r = { .path = path + 1, .expect = *v, .offset = (uint64_t)offset, .buf = buf,
				 .done = read_done, .arg = &w };

	if ((uint64_t)offset >= v->size)
		return 0;
	r.len = v->size - (uint64_t)offset < size ? v->size - (uint64_t)offset : size;
	o->ops->read(o, &r);
	pthread_mutex_lock(&w.mutex);
	while (!w.is_done)
		pthread_cond_wait(&w.cond, &w.mutex);
	pthread_mutex_unlock(&w.mutex);
	return w.err ? w.err : (int)r.len;
}

static int slow_open(const char *path, struct fuse_file_info *fi)
{
	struct version *v = malloc(sizeof(*v));
	struct origin_attr a;
	int rc = v ? origin_of()->ops->stat(origin_of(), path + 1, &a) : -ENOMEM;

	if (rc) {
		free(v);
		return rc;
	}
	*v = a.version;
	fi->fh = (uint64_t)(uintptr_t)v;
	return 0;
}

static int slow_release(const char *path, struct fuse_file_info *fi)
{
	(void)path;
	free((void *)(uintptr_t)fi->fh);
	return 0;
}

static const struct fuse_operations ops = {
	.getattr = slow_getattr, .readlink = slow_readlink, .readdir = slow_readdir,
	.open = slow_open, .read = slow_read, .release = slow_release,
};

int main(int argc, char **argv)
{
	char *args[] = { argv[0], "-f", "-o", "ro,fsname=slowfs,max_threads=256", argc == 3 ? argv[2] : NULL, NULL };
	struct origin *origin;
	char msg[512] = "";
	int rc;

	if (argc != 3 || origin_open(argv[1], NULL, &origin, msg, sizeof(msg))) {
		fprintf(stderr, "slowfs: %s\n", *msg ? msg : "usage: slowfs ORIGIN MOUNTPOINT");
		return 2;
	}
	rc = fuse_main(5, args, &ops, origin);
	origin_close(origin);
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The start and the end of a volume, and its health. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cache/cachedir.h"
#include "cache/diskio.h"
#include "cache/own.h"
#include "cache/store.h"
#include "cache/volume_impl.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/stats.h"

enum {
	RANK_DISK = 50,
	WORKERS = 4,                   /* checksum and codec threads at most */
	PROBE_BYTES = 4096,
};

#define FULL_PAUSE_NS NSEC_PER_SEC     /* after ENOSPC that statvfs(2) knows nothing of: inodes, quota */

void volume_leave(struct volume *v)
{
	if (!--v->in_flight && v->is_stopping)
		pthread_cond_broadcast(&v->changed);
}

/* ---- health ---- */

bool volume_serves(const struct volume *v)
{
	return atomic_load_explicit(&v->serves, memory_order_relaxed);
}

bool volume_stores(const struct volume *v)
{
	return atomic_load_explicit(&v->stores, memory_order_relaxed);
}

/* The space of files that have no name any more comes back when they are cut. */
static void cut_segments(struct volume *v)
{
	struct segment *g;
	size_t pos = 0;

	lock_scope(&v->lock);
	while ((g = map64_next(&v->segments.by_id, &pos, NULL))) {
		if (g->fd >= 0 && ftruncate(g->fd, 0))
			log_warn("cache %s: cannot free space: %s", v->path, strerror(errno));
	}
}

static void loss_run(struct work *w)
{
	struct volume *v = container_of(w, struct volume, loss);

	if (v->lost)
		v->lost(v->arg, v->number);
	cut_segments(v);
	lock_scope(&v->lock);
	volume_leave(v);
}

void volume_tend(struct volume *v)
{
	uint64_t now = clock_ns();
	bool reads = health_state(v->reads, now) != HEALTH_DOWN, writes = health_state(v->writes, now) != HEALTH_DOWN;

	bool begins;

	lock_acquire(&v->lock);
	atomic_store(&v->serves, reads && !v->is_lost);
	atomic_store(&v->stores, reads && writes && !v->is_lost);
	begins = v->is_lost && !v->loss.run && !v->is_stopping;
	if (begins) {
		v->loss.run = loss_run;
		v->in_flight++;
	}
	lock_release(&v->lock);
	if (begins)
		pool_submit(v->workers, &v->loss);
}

void volume_asked(struct volume *v, bool is_write)
{
	health_asked(is_write ? v->writes : v->reads, clock_ns());
}

/* Room that is not there, or a file, says nothing about the disk. */
static bool is_failure(int err)
{
	return err && err != -ENOSPC && err != -EDQUOT && err != -ENOMEM && err != -EMFILE && err != -ENFILE;
}

void volume_answered(struct volume *v, bool is_write, int err, const char *what)
{
	health_answered(is_write ? v->writes : v->reads, is_failure(err) ? -EIO : 0, clock_ns());
	if (!err && volume_serves(v) && volume_stores(v))
		return;
	if (err) {
		stats_inc(v->stats, STAT_DISK_ERRORS);
		atomic_fetch_add(&v->errors, 1);
		log_warn("cache %s: %s: %s", v->path, what, strerror(-err));
	}
	volume_tend(v);
	if (err != -ENOSPC && err != -EDQUOT)
		return;
	lock_scope(&v->lock);
	v->full_until_ns = clock_ns() + FULL_PAUSE_NS;
	v->fs_checked_ns = 0;
}

/* Does the disk write, and read what it wrote? */
static int try_writing(struct volume *v)
{
	static const char name[] = "probe";
	_cleanup_close_ int fd = own_open(v->fd, name, O_CREAT | O_TRUNC | O_RDWR);
	char out[PROBE_BYTES], in[PROBE_BYTES];
	int rc = 0;

	if (fd < 0)
		return fd;
	memset(out, 0x5a, sizeof(out));
	errno = EIO;   /* a short transfer sets none */
	if (pwrite(fd, out, sizeof(out), 0) != sizeof(out) || fdatasync(fd) ||
	    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) || pread(fd, in, sizeof(in), 0) != sizeof(in))
		rc = -errno;
	else if (memcmp(in, out, sizeof(in)))
		rc = -EIO;
	unlinkat(v->fd, name, 0);
	return rc;
}

static int try_reading(struct volume *v)
{
	_cleanup_close_ int fd = own_open(v->fd, CACHEDIR_TAG, O_RDONLY);
	char byte;

	if (fd < 0)
		return fd;
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	errno = EIO;
	return pread(fd, &byte, 1, 0) == 1 ? 0 : -errno;
}

static void probe_ended(struct volume *v, struct health *h, int err)
{
	health_answered(h, is_failure(err) ? -EIO : 0, clock_ns());
	health_probed(h, clock_ns());
	volume_tend(v);
	lock_scope(&v->lock);
	volume_leave(v);
}

static void probe_reads(struct work *w)
{
	struct volume *v = container_of(w, struct volume, read_probe);

	probe_ended(v, v->reads, try_reading(v));
}

static void probe_writes(struct work *w)
{
	struct volume *v = container_of(w, struct volume, write_probe);

	probe_ended(v, v->writes, try_writing(v));
}

static void probe_submit(struct volume *v, struct work *w, void (*run)(struct work *w))
{
	lock_acquire(&v->lock);
	if (v->is_stopping || v->is_lost) {
		lock_release(&v->lock);
		return;   /* nobody asks for another */
	}
	v->in_flight++;
	lock_release(&v->lock);
	w->run = run;
	pool_submit(v->workers, w);
}

static void reads_are_down(void *arg)
{
	struct volume *v = arg;

	probe_submit(v, &v->read_probe, probe_reads);
}

static void writes_are_down(void *arg)
{
	struct volume *v = arg;

	probe_submit(v, &v->write_probe, probe_writes);
}

static bool is_deleted(int fd)
{
	struct stat st;

	return !fstat(fd, &st) && !st.st_nlink;
}

void volume_look(struct volume *v)
{
	if (v->is_lost || !(is_deleted(v->fd) || is_deleted(v->segments.dir_fd) || is_deleted(v->objects_fd)))
		return;
	atomic_store(&v->is_lost, true);
	atomic_store(&v->serves, false);
	atomic_store(&v->stores, false);
	stats_inc(v->stats, STAT_DISK_WENT_DOWN);
	log_error("cache %s: it was deleted; nothing is kept there until the next mount", v->path);
}

void volume_status(struct volume *v, struct volume_status *ret)
{
	uint64_t index = atomic_load(&v->index_bytes), now = clock_ns();
	enum health_state reads = health_state(v->reads, now), writes = health_state(v->writes, now);

	volume_tend(v);
	lock_scope(&v->lock);
	*ret = (struct volume_status){ .state = reads > writes ? reads : writes, .bytes = v->used_bytes + index,
				       .limit_bytes = space_limit(v) + index, .extents = v->extents,
				       .errors = atomic_load(&v->errors) };
	if (v->is_lost)
		*ret = (struct volume_status){ .state = HEALTH_DOWN, .errors = ret->errors };
}

/* ---- start and end ---- */

/* Are there extents in the object's file of this name? */
static bool object_is_known(struct volume *v, const char *name)
{
	unsigned long long ino, version;

	if (sscanf(name, "%llx-%llx", &ino, &version) != 2)
		return false;
	lock_scope(&v->lock);
	return record_names_object(v, ino, version);
}

static void sweep_objects(struct volume *v)
{
	for (unsigned i = 0; i < 256; i++) {
		char name[8];
		struct dirent *de;
		DIR *dir;
		int fd;

		snprintf(name, sizeof(name), "%02x", i);
		fd = openat(v->objects_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		dir = fd < 0 ? NULL : fdopendir(fd);
		while (dir && (de = readdir(dir))) {
			if (de->d_name[0] != '.' && !object_is_known(v, de->d_name))
				unlinkat(fd, de->d_name, 0);
		}
		if (dir)
			closedir(dir);
	}
}

static int open_dirs(struct volume *v)
{
	int rc = segments_open(&v->segments, v->fd);

	if (rc)
		return rc;
	if (mkdirat(v->fd, "objects", 0700) && errno != EEXIST)
		return -errno;
	v->objects_fd = openat(v->fd, "objects", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return v->objects_fd < 0 ? -errno : 0;
}

static void volume_free(struct volume *v)
{
	struct pending *p;
	size_t pos = 0;

	pool_free(v->workers);
	diskio_free(v->io);
	segments_close(&v->segments);
	if (v->objects_fd >= 0)
		close(v->objects_fd);
	while ((p = map64_next(&v->pending, &pos, NULL)))
		free(p);
	map64_clear(&v->pending);
	pos = 0;
	for (struct object *o; (o = map64_next(&v->objects, &pos, NULL));)
		free(o);
	map64_clear(&v->busy);
	map64_clear(&v->ranges);
	map64_clear(&v->objects);
	health_free(v->reads);
	health_free(v->writes);
	pthread_cond_destroy(&v->changed);
	pthread_cond_destroy(&v->work);
	lock_destroy(&v->lock);
	free(v->reads_name);
	free(v->writes_name);
	free(v->path);
	free(v);
}

/* Segments are kept open, by two descriptors: 256 MiB each, so a terabyte needs eight thousand. */
static void raise_file_limit(void)
{
	struct rlimit rl;

	if (!getrlimit(RLIMIT_NOFILE, &rl) && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

static int start_health(struct volume *v)
{
	struct health_terms reads = { NULL, STAT_DISK_WENT_SHAKY, STAT_DISK_WENT_DOWN, STAT_DISK_CAME_BACK }, writes = reads;

	if (asprintf(&v->reads_name, "cache %s: reading", v->path) < 0)
		v->reads_name = NULL;
	if (asprintf(&v->writes_name, "cache %s: writing", v->path) < 0)
		v->writes_name = NULL;
	reads.name = v->reads_name;
	writes.name = v->writes_name;
	if (!reads.name || !writes.name || health_new(&reads, v->stats, &v->reads) ||
	    health_new(&writes, v->stats, &v->writes))
		return -ENOMEM;
	health_set_probe(v->reads, reads_are_down, v);
	health_set_probe(v->writes, writes_are_down, v);
	return 0;
}

static int start_threads(struct volume *v, const struct volume_config *cfg)
{
	int rc;

	snprintf(v->pool_name, sizeof(v->pool_name), "disk-worker-%u", cfg->number % 100);
	snprintf(v->io_name, sizeof(v->io_name), "disk-%u", cfg->number % 100);
	rc = pool_new(v->pool_name, WORKERS, &v->workers);
	if (!rc)
		rc = diskio_new(false, v->io_name, cfg->cpus, &v->io);
	if (rc)
		return rc;
	pool_pin(v->workers, cfg->cpus);
	return -pthread_create(&v->committer, NULL, record_committer, v);
}

static int volume_start(struct volume *v, const struct volume_config *cfg)
{
	int rc = v->path ? start_health(v) : -ENOMEM;

	if (!rc)
		rc = open_dirs(v);
	if (!rc)
		rc = store_table(v->store, "extent", MDB_INTEGERKEY, &v->table);
	if (!rc)
		rc = record_adopt_all(v);
	if (rc)
		return rc;
	v->doubts = cfg->verify_all || (!cfg->was_clean && v->extents);
	segments_sweep(&v->segments);
	sweep_objects(v);
	return start_threads(v, cfg);
}

int volume_open(const struct volume_config *cfg, struct stats *stats, struct volume **ret_volume)
{
	struct volume *v = calloc(1, sizeof(*v));
	int rc;

	if (!v)
		return -ENOMEM;
	v->store = cfg->store;
	v->stats = stats;
	v->path = strdup(cfg->path);
	v->fd = cfg->dir_fd;
	v->objects_fd = v->segments.dir_fd = -1;
	v->limit_bytes = cfg->limit_bytes;
	v->min_free_bytes = cfg->min_free_bytes;
	v->lost = cfg->lost;
	v->arg = cfg->arg;
	v->number = cfg->number;
	v->codec.mode = cfg->codec;
	v->codec.stats = stats;
	v->serves = v->stores = v->reads_direct = true;
	atomic_store(&v->index_bytes, store_bytes(cfg->store));
	lock_init(&v->lock, "disk", RANK_DISK);
	lock_cond_init(&v->changed);
	lock_cond_init(&v->work);
	raise_file_limit();
	rc = volume_start(v, cfg);
	if (rc)
		volume_free(v);
	else
		*ret_volume = v;
	return rc;
}

void volume_close(struct volume *v)
{
	if (!v)
		return;
	health_set_probe(v->reads, NULL, NULL);
	health_set_probe(v->writes, NULL, NULL);
	lock_acquire(&v->lock);
	v->is_stopping = true;
	while (v->in_flight)
		lock_wait(&v->lock, &v->changed);
	v->is_closing = true;
	pthread_cond_signal(&v->work);
	lock_release(&v->lock);
	pthread_join(v->committer, NULL);
	record_sync(v);
	volume_free(v);
}

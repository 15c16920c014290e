/* SPDX-License-Identifier: Apache-2.0 */
/*
 * open=pagecache: the kernel sends no open, nor a read of what it was given ahead.
 *
 * What an open did elsewhere is done here by
 *   the lookup   whether the file is still this version: names and attributes expire together, meta_ttl after
 *                they were checked, and a path walk then asks. A changed file's name leads to another node id, so
 *                the pages of one id never hold another version's bytes, and none need be invalidated;
 *   the events   telling the prefetcher (watch.c), where a directory is watched; before it is, its reads do;
 *   nobody       pins: an extent that goes while its file is open is fetched again, or is ESTALE once it changed.
 * The mount is read-only for the kernel too, as nobody would be asked about an open for writing, and a shared
 * mapping would change the pages that all readers see.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fs/fs.h"
#include "lib/log.h"

enum {
	SAMPLES = 512,
	FILES_LEAST = 1000,              /* fewer files are no data set of small ones */
	MEDIAN_MOST = 256 << 10,         /* bytes: above, an open costs little of a read */
	WHY_BYTES = 160,
};

static void opened(void *arg, uint64_t ino, uint32_t pid)
{
	struct fs *fs = arg;

	if (pid && pid == (uint32_t)getpid())
		return;
	stats_inc(fs->stats, STAT_PAGECACHE_EVENTS);
	stats_inc(fs->stats, STAT_READS_OPENS);
	fs_observe(fs, pid, ino, OBSERVE_OPEN, 0, 0, false);
}

void pagecache_read(struct fs *fs, fuse_req_t req, const struct ns_attr *attr, uint64_t offset)
{
	uint32_t pid = (uint32_t)fuse_req_ctx(req)->pid;

	if (offset)
		return;
	if (watch_has(fs->watch, attr->parent)) {
		if (attr->version.size <= EXTENT_BYTES)
			fs_observe(fs, pid, attr->ino, OBSERVE_ASKED, 0, 0, false);
		return;
	}
	watch_directory(fs->watch, attr->parent);
	stats_inc(fs->stats, STAT_READS_OPENS);
	fs_observe(fs, pid, attr->ino, OBSERVE_OPEN, 0, 0, false);
}

/* ---- the choice ---- */

struct sample {
	uint64_t size[SAMPLES];
	unsigned count;
	uint64_t bytes, large_bytes;     /* large: more than an extent */
};

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Ids are dense, so every so many of them is a fair sample of what earlier mounts saw. */
static void take_sample(struct ns *ns, uint64_t inodes, struct sample *ret)
{
	uint64_t step = inodes / SAMPLES ? inodes / SAMPLES : 1;
	struct ns_attr attr;

	*ret = (struct sample){ .count = 0 };
	for (uint64_t ino = NS_ROOT + 1; ino <= inodes && ret->count < SAMPLES; ino += step) {
		if (ns_getattr(ns, ino, NS_NOCHECK | NS_NOWAIT, &attr) || !S_ISREG(attr.mode))
			continue;
		ret->size[ret->count++] = attr.version.size;
		ret->bytes += attr.version.size;
		if (attr.version.size > EXTENT_BYTES)
			ret->large_bytes += attr.version.size;
	}
	qsort(ret->size, ret->count, sizeof(ret->size[0]), by_size);
}

/* Is it a data set of small files, as far as is known? The reason either way in @why. */
static bool is_small_files(struct fs *fs, char *why)
{
	uint64_t inodes = ns_inodes(fs->ns), median, total, room = cache_memory_spare();
	struct sample s;

	if (inodes < FILES_LEAST) {
		snprintf(why, WHY_BYTES, "%llu files are known yet: too few to tell", (unsigned long long)inodes);
		return false;
	}
	take_sample(fs->ns, inodes, &s);
	median = s.count ? s.size[s.count / 2] : 0;
	total = s.count ? s.bytes / s.count * inodes : 0;
	snprintf(why, WHY_BYTES, "about %llu files of %llu bytes (median), %llu MiB in all, %llu MiB of memory to spare",
		 (unsigned long long)inodes, (unsigned long long)median, (unsigned long long)(total >> 20), (unsigned long long)(room >> 20));
	/* a reader of what does not fit is served by what is pushed just ahead of it: that wants room for some batches */
	return s.count >= SAMPLES / 4 && median && median <= MEDIAN_MOST && s.large_bytes * 10 <= s.bytes &&
	       (total <= room || median * 1024 <= room);
}

bool pagecache_choose(struct fs *fs, enum open_policy asked, bool is_prefetching)
{
	char why[WHY_BYTES] = "open=pagecache";
	int rc;

	if (asked != OPEN_PAGECACHE && asked != OPEN_AUTO)
		return false;
	if (asked == OPEN_AUTO && (!is_prefetching || prefetch_had_plans(fs->prefetch) || !is_small_files(fs, why))) {
		log_info("not open=pagecache: %s", !is_prefetching ? "it needs prefetch=auto" :
			 prefetch_had_plans(fs->prefetch) ? "plans were set here, which it does not allow" : why);
		return false;
	}
	rc = watch_new(fs->ns, fs->stats, opened, fs, &fs->watch);
	if (rc && asked == OPEN_PAGECACHE)
		log_warn("not open=pagecache: opens would not be seen: %s", strerror(-rc));
	if (!rc && asked == OPEN_AUTO && !watch_tells_pids(fs->watch)) {
		watch_free(fs->watch);
		fs->watch = NULL;
		log_info("not open=pagecache: without privileges it is not told who opens a file");
		return false;
	}
	if (!rc) {
		log_info("open=pagecache: %s", why);
		stats_set_text(fs->stats, STAT_OPEN_WHY, why);
	}
	return !rc;
}

/* ---- life ---- */

static void sink_push(void *arg, uint64_t ino, int place)
{
	push_file(arg, ino, place);
}

static void sink_stale(void *arg, uint64_t ino)
{
	push_expire(arg, ino);
}

static int begin_push(struct fs *fs, struct session *session)
{
	struct push_config cfg = { fs->cache, fs->prefetch, session, fs->stats, fs->watch, fs->topology };

	return push_new(&cfg, &fs->push);
}

int pagecache_resume(struct fs *fs, struct session *session)
{
	int rc = watch_new(fs->ns, fs->stats, opened, fs, &fs->watch);

	if (!rc)
		rc = begin_push(fs, session);
	if (!rc)
		atomic_store(&fs->has_no_opens, true);
	return rc;
}

void pagecache_start(struct fs *fs, struct session *session, const char *mountpoint)
{
	const char *why = NULL;
	int rc = watch_start(fs->watch, mountpoint);   /* the mount answers behind it, so INIT is over */

	if (rc)
		why = strerror(-rc);
	else if (!fs->may_do_without_opens)
		why = "the kernel does not offer it";
	else if (!fs->push && (rc = begin_push(fs, session)))
		why = strerror(-rc);
	if (why && fs->push) {
		log_warn("nothing is pushed into the page cache any more: %s", why);   /* opens will never come again */
		return;
	}
	if (why) {
		log_warn("not open=pagecache, files are opened by the daemon: %s", why);
		stats_set_text(fs->stats, STAT_OPEN_WHY, why);
		return;
	}
	atomic_store(&fs->handover->has_no_opens, true);   /* before the kernel is told */
	atomic_store(&fs->has_no_opens, true);
	prefetch_set_sink(fs->prefetch, &(struct prefetch_sink){ sink_push, sink_stale, fs->push });
}

void pagecache_stop(struct fs *fs)
{
	push_free(fs->push);
	watch_free(fs->watch);
	fs->push = NULL;
	fs->watch = NULL;
}

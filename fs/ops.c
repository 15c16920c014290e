/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "fs/acl.h"
#include "fs/device.h"
#include "fs/fs.h"
#include "lib/clock.h"
#include "lib/list.h"
#include "lib/log.h"

/* How long the kernel keeps a name it was told is absent, at most, in seconds. */
#define NEGATIVE_MAX_S 60.0

static struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static double seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

static struct timespec to_timespec(int64_t ns)
{
	struct timespec ts = { ns / 1000000000, ns % 1000000000 };

	if (ts.tv_nsec < 0) {
		ts.tv_sec--;
		ts.tv_nsec += 1000000000;
	}
	return ts;
}

static void stat_fill(struct fs *fs, const struct ns_attr *a, struct stat *st)
{
	*st = (struct stat){
		.st_ino = a->st_ino, .st_mode = acl_mode(fs, a), .st_nlink = a->nlink, .st_uid = a->uid, .st_gid = a->gid,
		.st_rdev = a->rdev, .st_size = (off_t)a->version.size, .st_blksize = EXTENT_BYTES,
		.st_blocks = (blkcnt_t)((a->version.size + 511) / 512),
		.st_mtim = to_timespec(a->version.mtime_ns), .st_ctim = to_timespec(a->version.ctime_ns),
		.st_atim = to_timespec(a->version.mtime_ns),
	};
}

static void entry_fill(struct fs *fs, const struct ns_attr *a, struct fuse_entry_param *e)
{
	*e = (struct fuse_entry_param){ .ino = a->ino, .attr_timeout = seconds(a->fresh_ns),
					.entry_timeout = seconds(a->fresh_ns) };
	stat_fill(fs, a, &e->attr);
}

void fs_observe(struct fs *fs, uint32_t pid, uint64_t ino, enum observation_kind kind, uint64_t offset, size_t len, bool stalled)
{
	uint64_t now_ns = clock_ns();
	struct observation o = {
		.ino = ino, .offset = offset, .len = (uint32_t)len, .time_ns = now_ns,
		.pid = pid, .place = locator_place(fs->locator, pid, now_ns), .cpu = UINT16_MAX, .kind = (uint8_t)kind, .stalled = stalled,
	};

	if (fs->prefetch)
		prefetch_observe(fs->prefetch, &o);
}

static void observe(struct fs *fs, fuse_req_t req, uint64_t ino, enum observation_kind kind,
		    uint64_t offset, size_t len, bool stalled)
{
	fs_observe(fs, (uint32_t)fuse_req_ctx(req)->pid, ino, kind, offset, len, stalled);
}

/* Names are looked up in @dir, so its files may be opened. */
static void expect_opens(struct fs *fs, uint64_t dir)
{
	if (atomic_load(&fs->has_no_opens))
		watch_directory(fs->watch, dir);
}

/* ---- requests that may have to ask the origin ---- */

/*
 * Each such request is one function of (deferred, flags): first called with
 * NS_NOWAIT on the loop's thread; if it returns -EAGAIN, again without on a pool thread. It answers only what
 * deferred_claim() lets it. Given up by its wait for want of time, it is called once more with DEFERRED_LATE: what is
 * known is better than an error.
 */
enum { DEFERRED_LATE = NS_NOWAIT | NS_NOCHECK };

/* ... sooner than timeout= where something is known: as long as it takes for the origin to be called down. */
#define CHECK_PATIENCE_NS (5 * NSEC_PER_SEC)

/* On the pool: given up while it is run, its thread is excused until it ends. */
enum phase { PHASE_QUEUED, PHASE_RUNNING, PHASE_EXCUSED, PHASE_ENDED };

struct deferred {
	struct work work;
	struct wait wait;
	_Atomic unsigned refs;        /* the pool's, and while it may be given up the wait's */
	_Atomic int phase;            /* enum phase */
	fuse_req_t req;
	struct fs *fs;
	int (*run)(struct deferred *d, unsigned flags);
	uint64_t ino;
	struct fuse_file_info fi;
	size_t size;
	off_t offset;
	char name[];
};

static int lookup_run(struct deferred *d, unsigned flags);
static int opendir_run(struct deferred *d, unsigned flags);
static int statfs_run(struct deferred *d, unsigned flags);
static int getattr_run(struct deferred *d, unsigned flags);
static int open_run(struct deferred *d, unsigned flags);

static void deferred_unref(struct deferred *d)
{
	if (atomic_fetch_sub(&d->refs, 1) == 1)
		free(d);
}

/* May @d be answered by who runs it with @flags? If not, its function returns 0 and undoes what it did. */
static bool deferred_claim(struct deferred *d, unsigned flags)
{
	if (flags & NS_NOWAIT)
		return true;   /* nobody else has it, or it was claimed already */
	if (wait_claim(d->fs->waits, &d->wait) != WAIT_WAITING)
		return false;
	atomic_fetch_sub(&d->refs, 1);
	return true;
}

static void deferred_run(struct work *w)
{
	struct deferred *d = container_of(w, struct deferred, work);
	int rc = 0;

	/* in this order: who gives it up ends the wait first, then looks at the phase */
	atomic_store(&d->phase, PHASE_RUNNING);
	if (!wait_is_over(&d->wait))
		rc = d->run(d, 0);
	if (rc && deferred_claim(d, 0))
		fuse_reply_err(d->req, rc == -EAGAIN ? EIO : -rc);
	if (atomic_exchange(&d->phase, PHASE_ENDED) == PHASE_EXCUSED)
		pool_excuse(d->fs->pool, false);
	deferred_unref(d);
}

static void deferred_give_up(struct wait *w, int err)
{
	struct deferred *d = container_of(w, struct deferred, wait);
	int rc = err == -EIO ? d->run(d, DEFERRED_LATE) : err, running = PHASE_RUNNING;

	if (atomic_compare_exchange_strong(&d->phase, &running, PHASE_EXCUSED))
		pool_excuse(d->fs->pool, true);
	if (err == -EIO && !rc)
		stats_inc(d->fs->stats, STAT_NAMESPACE_UNCHECKED);
	if (rc)
		fuse_reply_err(d->req, rc == -EAGAIN ? EIO : -rc);
	deferred_unref(d);
}

static void defer(fuse_req_t req, uint64_t ino, const char *name, const struct fuse_file_info *fi,
		  int (*run)(struct deferred *d, unsigned flags))
{
	struct deferred *d = calloc(1, sizeof(*d) + strlen(name) + 1);
	int rc;

	if (!d) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	d->req = req;
	d->fs = fs_of(req);
	d->ino = ino;
	d->run = run;
	if (fi)
		d->fi = *fi;
	strcpy(d->name, name);
	rc = run(d, NS_NOWAIT);
	if (rc == -EAGAIN) {
		d->work.run = deferred_run;
		d->wait.give_up = deferred_give_up;
		/* an id is known, the sizes of a file system are no matter, and known are all names of a directory that was listed */
		if (run == getattr_run || run == open_run || run == statfs_run ||
		    ((run == lookup_run || run == opendir_run) && !ns_list(d->fs->ns, ino, DEFERRED_LATE)))
			d->wait.patience_ns = CHECK_PATIENCE_NS;
		d->refs = 2;
		wait_begin(d->fs->waits, &d->wait, req);
		pool_submit(d->fs->pool, &d->work);
		return;
	}
	if (rc)
		fuse_reply_err(req, -rc);
	free(d);
}

static int lookup_run(struct deferred *d, unsigned flags)
{
	struct fuse_entry_param e = { 0 };
	struct ns_attr a;
	int rc = ns_lookup(d->fs->ns, d->ino, d->name, flags, &a);

	if (rc && rc != -ENOENT)
		return rc;
	if (!deferred_claim(d, flags))
		return 0;
	if (rc) {
		/* an absent name may be kept as long as its directory is believed, within reason */
		struct ns_attr dir;

		if (!ns_getattr(d->fs->ns, d->ino, NS_NOCHECK | NS_NOWAIT, &dir))
			e.entry_timeout = seconds(dir.fresh_ns) < NEGATIVE_MAX_S ? seconds(dir.fresh_ns) : NEGATIVE_MAX_S;
		if (e.entry_timeout > 0)
			fuse_reply_entry(d->req, &e);
		else
			fuse_reply_err(d->req, ENOENT);
		return 0;
	}
	entry_fill(d->fs, &a, &e);
	if (S_ISDIR(a.mode))
		expect_opens(d->fs, a.ino);
	fuse_reply_entry(d->req, &e);
	return 0;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	expect_opens(fs_of(req), parent);
	defer(req, parent, name, NULL, lookup_run);
}

static int getattr_run(struct deferred *d, unsigned flags)
{
	struct ns_attr a;
	struct stat st;
	int rc = ns_getattr(d->fs->ns, d->ino, flags, &a);

	if (rc)
		return rc;
	if (!deferred_claim(d, flags))
		return 0;
	stat_fill(d->fs, &a, &st);
	fuse_reply_attr(d->req, &st, seconds(a.fresh_ns));
	return 0;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)fi;
	defer(req, ino, "", NULL, getattr_run);
}

static int readlink_run(struct deferred *d, unsigned flags)
{
	char target[PATH_MAX + 1];
	int rc = ns_readlink(d->fs->ns, d->ino, flags, target, sizeof(target));

	if (!rc && deferred_claim(d, flags))
		fuse_reply_readlink(d->req, target);
	return rc;
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
	defer(req, ino, "", NULL, readlink_run);
}

/* fuse_open_out with a backing id, which the distribution's libfuse does not know of. */
static int reply_passthrough(fuse_req_t req, uint64_t ino, int32_t id)
{
	struct {
		uint64_t fh;
		uint32_t open_flags;
		int32_t backing_id;
	} out = { .fh = ino, .open_flags = 1 << 7, .backing_id = id };

	/* without KEEP_CACHE: what the page cache has of it from before would only take memory twice */
	return fuse_reply_buf(req, (const char *)&out, sizeof(out));
}

static void opened_end(struct fs *fs, uint64_t ino)
{
	passthrough_release(fs->passthrough, ino);
	cache_unpin(fs->cache, ino);
}

static int open_run(struct deferred *d, unsigned flags)
{
	struct fs *fs = d->fs;
	struct ns_attr a;
	int32_t id;
	int rc = ns_check(fs->ns, d->ino, flags, &a);

	if (rc)
		return rc;   /* -ESTALE makes the kernel look the name up again */
	if (!S_ISREG(a.mode))
		return -ENXIO;
	if (!(flags & NS_NOWAIT) && !deferred_claim(d, flags))
		return 0;
	cache_pin(fs->cache, &a);
	rc = passthrough_open(fs->passthrough, &a, !(flags & NS_NOWAIT), &id);
	if (rc == -EAGAIN && flags == DEFERRED_LATE)
		rc = id = 0;   /* it should be verified first, for which there is no time: served from here */
	if (rc && !(flags & NS_NOWAIT)) {
		cache_unpin(fs->cache, d->ino);
		fuse_reply_err(d->req, -rc);
		return 0;
	}
	if (rc) {
		cache_unpin(fs->cache, d->ino);
		return rc;
	}
	stats_inc(fs->stats, STAT_READS_OPENS);
	if (id)
		stats_inc(fs->stats, STAT_READS_PASSTHROUGH_OPENS);
	observe(fs, d->req, d->ino, OBSERVE_OPEN, 0, id != 0, false);
	/* an id is one version of the bytes, so what the page cache has of it stays true */
	d->fi.keep_cache = 1;
	d->fi.fh = d->ino;
	if (!id && a.version.size > EXTENT_BYTES && read_ahead_choose(&fs->read_ahead, cache_pattern(fs->cache, d->ino)))
		stats_inc(fs->stats, STAT_READS_SHORT_OPENS);
	rc = id ? reply_passthrough(d->req, d->ino, id) : fuse_reply_open(d->req, &d->fi);
	if (rc == -ENOENT)
		opened_end(fs, d->ino);   /* the opener was interrupted: no release will come */
	return 0;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	/* O_TRUNC is asked for with the open: if that succeeded, the kernel would take the file for empty */
	if ((fi->flags & O_ACCMODE) != O_RDONLY || fi->flags & O_TRUNC) {
		fuse_reply_err(req, EROFS);
		return;
	}
	if (atomic_load(&fs_of(req)->has_no_opens)) {
		/* it is open, and no other open is sent; the entry it was found by is the check of its version */
		fuse_reply_err(req, ENOSYS);
		return;
	}
	defer(req, ino, "", fi, open_run);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);

	(void)fi;
	observe(fs, req, ino, OBSERVE_RELEASE, 0, 0, false);
	fuse_reply_err(req, 0);
	opened_end(fs, ino);   /* behind the reply: whoever takes over from us must not count it twice */
}

/* ---- reading ---- */

/*
 * A read that is answered while op_read is still at it is answered there; else by whoever ends it, or gives it up.
 * What gave up leaves the rest of it to read_done(): the cache cannot be told to stop.
 */
struct reading {
	struct cache_read read;
	struct wait wait;
	_Atomic unsigned refs;       /* the cache's, and while it may be given up the wait's */
	int err;                     /* the cache's result, once it ended */
	uint32_t pid;
	fuse_req_t req;
	struct fs *fs;
	uint64_t started_ns;
};

static void reading_unref(struct reading *g)
{
	if (atomic_fetch_sub(&g->refs, 1) == 1)
		free(g);
}

/* The cache is done with it, and the answer is ours to give. */
static void read_answer(struct reading *g)
{
	struct cache_read *r = &g->read;
	struct fs *fs = g->fs;
	int err = g->err;

	if (r->has_waited) {
		uint64_t ns = clock_ns() - g->started_ns;

		stats_add(fs->stats, STAT_READS_STALL_NS, ns);
		hist_record(&fs->stall_us, ns / NSEC_PER_USEC);
	}
	fs_observe(fs, g->pid, r->attr.ino, OBSERVE_READ, r->offset, r->len, r->has_waited);
	if (err) {
		stats_inc(fs->stats, STAT_READS_ERRORS);
		fuse_reply_err(g->req, -err);
		/* no open comes that could find out: the name must */
		if (err == -ESTALE && atomic_load(&fs->has_no_opens))
			push_expire(fs->push, r->attr.ino);
	} else {
		stats_add(fs->stats, STAT_READS_BYTES, r->bytes);
		fuse_reply_iov(g->req, r->iov, r->iov_count);
		cache_read_end(fs->cache, r);
	}
}

static void read_done(struct cache_read *r, int err)
{
	struct reading *g = r->arg;
	int was;

	g->err = err;
	was = wait_claim(g->fs->waits, &g->wait);
	if (was == WAIT_INLINE)
		return;   /* op_read goes on with it */
	if (was == WAIT_WAITING) {
		read_answer(g);
		reading_unref(g);
	} else if (!err) {
		cache_read_end(g->fs->cache, r);   /* it was given up */
	}
	reading_unref(g);
}

static void read_give_up(struct wait *w, int err)
{
	struct reading *g = container_of(w, struct reading, wait);

	stats_inc(g->fs->stats, STAT_READS_ERRORS);
	stats_add(g->fs->stats, STAT_READS_STALL_NS, clock_ns() - g->started_ns);
	fuse_reply_err(g->req, -err);
	reading_unref(g);
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	struct reading *g = calloc(1, sizeof(*g));
	int rc = g ? ns_getattr(fs->ns, ino, NS_NOCHECK | NS_NOWAIT, &g->read.attr) : -ENOMEM;

	(void)fi;
	stats_inc(fs->stats, STAT_READS_REQUESTS);
	if (rc) {
		stats_inc(fs->stats, STAT_READS_ERRORS);
		fuse_reply_err(req, -rc);
		free(g);
		return;
	}
	if (atomic_load(&fs->has_no_opens))
		pagecache_read(fs, req, &g->read.attr, (uint64_t)offset);
	g->req = req;
	g->fs = fs;
	g->started_ns = clock_ns();
	g->pid = (uint32_t)fuse_req_ctx(req)->pid;
	g->read.place = locator_place(fs->locator, g->pid, g->started_ns);
	g->read.offset = (uint64_t)offset;
	g->read.len = size < EXTENT_BYTES ? size : EXTENT_BYTES;
	g->read.done = read_done;
	g->read.arg = g;
	g->wait.give_up = read_give_up;
	g->refs = 2;
	cache_read(fs->cache, &g->read);
	if (wait_is_over(&g->wait) || !wait_begin(fs->waits, &g->wait, req)) {
		read_answer(g);
		free(g);
	}
}

/* ---- directories ---- */

static int opendir_run(struct deferred *d, unsigned flags)
{
	int rc = ns_list(d->fs->ns, d->ino, flags);

	if (rc)
		return rc;
	if (!deferred_claim(d, flags))
		return 0;
	d->fi.fh = d->ino;
	d->fi.cache_readdir = 1;
	observe(d->fs, d->req, d->ino, OBSERVE_LIST, 0, 0, false);
	fuse_reply_open(d->req, &d->fi);
	return 0;
}

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	expect_opens(fs_of(req), ino);
	defer(req, ino, "", fi, opendir_run);
}

struct filling {
	fuse_req_t req;
	char *buf;
	size_t size, used;
	bool plus;
};

/* Returns 1 when the buffer is full. */
static int fill_one(struct filling *f, const char *name, const struct fuse_entry_param *e, off_t cookie)
{
	size_t left = f->size - f->used, n;

	if (f->plus)
		n = fuse_add_direntry_plus(f->req, f->buf + f->used, left, name, e, cookie);
	else
		n = fuse_add_direntry(f->req, f->buf + f->used, left, name, &e->attr, cookie);
	if (n > left)
		return 1;
	f->used += n;
	return 0;
}

/* The cookie behind an entry is its id + 1: ids begin at 2, "." and ".." have 1 and 2. */
static int fill_entry(void *arg, const char *name, const struct ns_attr *attr)
{
	struct filling *f = arg;
	struct fuse_entry_param e;

	entry_fill(fs_of(f->req), attr, &e);
	return fill_one(f, name, &e, (off_t)attr->ino + 1);
}

static int fill_dots(struct filling *f, uint64_t ino, off_t offset)
{
	/* with id 0 the kernel takes the name and type only */
	struct fuse_entry_param e = { .attr = { .st_ino = ino, .st_mode = S_IFDIR } };
	int full = 0;

	if (offset < 1)
		full = fill_one(f, ".", &e, 1);
	if (!full && offset < 2)
		full = fill_one(f, "..", &e, 2);
	return full;
}

static void do_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, bool plus)
{
	struct filling f = { .req = req, .buf = malloc(size), .size = size, .plus = plus };
	uint64_t after = offset > 2 ? (uint64_t)offset - 1 : NS_ROOT;
	int rc = f.buf ? fill_dots(&f, ino, offset) : -ENOMEM;

	if (!rc)
		rc = ns_readdir(fs_of(req)->ns, ino, after, fill_entry, &f);
	if (rc < 0)
		fuse_reply_err(req, -rc);
	else
		fuse_reply_buf(req, f.buf, f.used);
	free(f.buf);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)fi;
	do_readdir(req, ino, size, offset, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	(void)fi;
	do_readdir(req, ino, size, offset, true);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

/* ---- the rest ---- */

static int statfs_run(struct deferred *d, unsigned flags)
{
	struct origin *o = cache_origin(d->fs->cache);
	struct statvfs st = { .f_namemax = 255 };
	int rc = flags & NS_NOWAIT ? -EAGAIN : origin_statfs(o, &st);

	if (flags == DEFERRED_LATE)
		rc = 0;   /* sizes unknown: umount(8) asks, and must not wait for an origin that hangs */
	if (!rc && deferred_claim(d, flags))
		fuse_reply_statfs(d->req, &st);
	return rc;
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct fs *fs = fs_of(req);
	const struct statvfs nothing = { .f_namemax = 255 };

	/* fanotify_mark asks for the file system's id, which FUSE has none of */
	if (atomic_load(&fs->has_no_opens) && watch_is_thread(fs->watch, fuse_req_ctx(req)->pid))
		fuse_reply_statfs(req, &nothing);
	else
		defer(req, ino, "", NULL, statfs_run);
}

/* Lookup counts mean nothing here: ids live in the index, and a FORGET is not sent again to who takes over. */
static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
	(void)ino;
	(void)nlookup;
	fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	(void)count;
	(void)forgets;
	fuse_reply_none(req);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct fs *fs = userdata;

	fs->may_do_without_opens = conn->capable & FUSE_CAP_NO_OPEN_SUPPORT;
	/* a forced READDIRPLUS makes the stat storm after a listing free */
	conn->want &= ~(unsigned)(FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_AUTO_INVAL_DATA);
	conn->want |= conn->capable & (FUSE_CAP_READDIRPLUS | FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS |
				       FUSE_CAP_CACHE_SYMLINKS);
	if (acl_follow(fs))
		conn->want |= conn->capable & FUSE_CAP_POSIX_ACL;
	/* as far as an ordinary user gets */
	if (read_ahead_most(fs->read_ahead_bytes) < conn->max_readahead)
		conn->max_readahead = read_ahead_most(fs->read_ahead_bytes);
	conn->max_background = 256;
	conn->congestion_threshold = 192;
}

void fs_ready(struct fs *fs, int device_fd)
{
	const char *why = "open=daemon";
	int rc;

	/* not before: INIT's answer would set it back */
	read_ahead_begin(&fs->read_ahead, fs->mountpoint, fs->read_ahead_bytes);
	if (fs->open == OPEN_PAGECACHE)
		return;   /* pagecache_start() goes on */

	if (fs->open != OPEN_DAEMON) {
		bool is_agreed = atomic_load(&fs->handshake.agreed) & HANDSHAKE_PASSTHROUGH;

		rc = is_agreed ? passthrough_enable(fs->passthrough, device_fd) : -EOPNOTSUPP;
		why = !rc ? NULL : !is_agreed ? "the kernel does not offer passthrough" :
		      rc == -EPERM ? "passthrough needs CAP_SYS_ADMIN" : strerror(-rc);
	}
	if (why && fs->open == OPEN_PASSTHROUGH)
		log_warn("files are opened by the daemon: %s", why);
	else if (why)
		log_info("files are opened by the daemon: %s", why);
	else
		log_info("complete files of more than %u bytes are read by the kernel itself", DISK_WHOLE_MIN);
	stats_set_text(fs->stats, STAT_OPEN_WHY, why ? why : "complete large files are read by the kernel itself");
}

/* ---- changes: there are none ---- */

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	(void)ino;
	(void)attr;
	(void)to_set;
	(void)fi;
	fuse_reply_err(req, EROFS);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	(void)parent;
	(void)name;
	(void)mode;
	(void)rdev;
	fuse_reply_err(req, EROFS);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	(void)parent;
	(void)name;
	(void)mode;
	fuse_reply_err(req, EROFS);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	(void)parent;
	(void)name;
	fuse_reply_err(req, EROFS);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	(void)target;
	(void)parent;
	(void)name;
	fuse_reply_err(req, EROFS);
}

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name, unsigned flags)
{
	(void)parent;
	(void)name;
	(void)new_parent;
	(void)new_name;
	(void)flags;
	fuse_reply_err(req, EROFS);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t new_parent, const char *new_name)
{
	(void)ino;
	(void)new_parent;
	(void)new_name;
	fuse_reply_err(req, EROFS);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	(void)parent;
	(void)name;
	(void)mode;
	(void)fi;
	fuse_reply_err(req, EROFS);
}

const struct fuse_lowlevel_ops fs_ops = {
	.init = op_init,
	.lookup = op_lookup,
	.forget = op_forget,
	.forget_multi = op_forget_multi,
	.getattr = op_getattr,
	.setattr = op_setattr,
	.mknod = op_mknod,
	.mkdir = op_mkdir,
	.unlink = op_unlink,
	.rmdir = op_unlink,
	.symlink = op_symlink,
	.rename = op_rename,
	.link = op_link,
	.create = op_create,
	.readlink = op_readlink,
	.open = op_open,
	.read = op_read,
	.release = op_release,
	.opendir = op_opendir,
	.readdir = op_readdir,
	.readdirplus = op_readdirplus,
	.releasedir = op_releasedir,
	.statfs = op_statfs,
	.getxattr = fs_getxattr,
	.listxattr = fs_listxattr,
	.setxattr = fs_setxattr,
	.removexattr = fs_removexattr,
};

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How users look inside: extended attributes, made when asked for. They are
 * not listed, so that a copy with attributes does not carry them along. One is
 * the origin's: a file's access ACL, by which the kernel decides.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "config.h"
#include "fs/acl.h"
#include "fs/fs.h"
#include "fs/uring.h"
#include "lib/acl.h"
#include "lib/clock.h"
#include "lib/list.h"
#include "lib/log.h"
#include "lib/strbuf.h"

#define PREFIX "user.hopper."

enum { VALUE_MAX = 65536, ITEMS_MAX = 100000 };

static void publish(struct fs *fs)
{
	struct stats *s = fs->stats;

	stats_set_text(s, STAT_VERSION, PACKAGE_VERSION);
	stats_set(s, STAT_UPTIME_S, (clock_ns() - fs->handover->mounted_ns) / NSEC_PER_SEC);
	stats_set(s, STAT_PID, (uint64_t)getpid());
	stats_set(s, STAT_KEEPER_PID, fs->keeper && getppid() == fs->keeper ? (uint64_t)fs->keeper : 0);
	stats_set_text(s, STAT_TRANSPORT, uring_is_on(fs->uring) ? "uring" : "dev");
	stats_set_text(s, STAT_OPEN, atomic_load(&fs->has_no_opens) ? "pagecache" : passthrough_is_on(fs->passthrough) ? "passthrough" : "daemon");
	stats_set_text(s, STAT_ACLS, !cache_origin(fs->cache)->has_acls ? "none" : acl_follow(fs) ? "followed" : "least");
	stats_set(s, STAT_PASSTHROUGH, passthrough_is_on(fs->passthrough));
	stats_set(s, STAT_READS_STALL_P50_US, hist_percentile(&fs->stall_us, 50));
	stats_set(s, STAT_READS_STALL_P99_US, hist_percentile(&fs->stall_us, 99));
	if (fs->watch)
		watch_publish(fs->watch);
	cache_publish(fs->cache);
	if (fs->prefetch)
		prefetch_publish(fs->prefetch);
}

static char *root_value(struct fs *fs, const char *name)
{
	if (!strcmp(name, "stats")) {
		publish(fs);
		return stats_json(fs->stats);
	}
	if (!strcmp(name, "openmetrics")) {
		publish(fs);
		return stats_openmetrics(fs->stats);
	}
	if (!strcmp(name, "epochs")) {
		publish(fs);
		return stats_text(fs->stats, STAT_SETS);
	}
	if (!strcmp(name, "config"))
		return strdup(fs->config_text);
	if (!strcmp(name, "plan") && fs->prefetch)
		return prefetch_plan_text(fs->prefetch);
	return NULL;
}

static char *file_value(struct fs *fs, const struct ns_attr *attr, const char *name)
{
	struct strbuf b = STRBUF_INIT;
	uint64_t ram, disk, size = attr->version.size;

	if (strcmp(name, "cached") && strcmp(name, "tier") && strcmp(name, "node"))
		return NULL;
	cache_residency(fs->cache, attr, &ram, &disk);
	if (!strcmp(name, "cached"))
		strbuf_addf(&b, "{\"size\": %llu, \"ram\": %llu, \"disk\": %llu}\n", (unsigned long long)size,
			    (unsigned long long)ram, (unsigned long long)disk);
	else if (!strcmp(name, "tier"))
		strbuf_add(&b, ram == size ? "ram\n" : disk == size ? "disk\n" : ram || disk ? "mixed\n" : "origin\n");
	else
		strbuf_addf(&b, "%d\n", cache_node(fs->cache, attr));
	return strbuf_steal(&b);
}

struct residency {
	struct fs *fs;
	uint64_t items, bytes, resident_items, resident_bytes;
	struct ns_attr *attr;         /* owned: files found, asked about outside the transaction */
	size_t count, max;
};

static int residency_add(void *arg, const char *name, const struct ns_attr *attr)
{
	struct residency *r = arg;

	(void)name;
	if (!S_ISREG(attr->mode))
		return 0;
	if (r->count == r->max) {
		size_t max = r->max ? r->max * 2 : 256;
		struct ns_attr *bigger = realloc(r->attr, max * sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		r->attr = bigger;
		r->max = max;
	}
	r->attr[r->count++] = *attr;
	return r->count == ITEMS_MAX;
}

/* What of a directory's own files is fast now. */
static char *directory_value(struct fs *fs, uint64_t ino, const char *name)
{
	struct strbuf b = STRBUF_INIT;
	struct residency r = { .fs = fs };

	if (strcmp(name, "residency"))
		return NULL;
	ns_readdir(fs->ns, ino, NS_ROOT, residency_add, &r);
	for (size_t i = 0; i < r.count; i++) {
		uint64_t ram, disk, have;

		cache_residency(fs->cache, &r.attr[i], &ram, &disk);
		have = ram > disk ? ram : disk;
		r.items++;
		r.bytes += r.attr[i].version.size;
		r.resident_bytes += have;
		r.resident_items += have == r.attr[i].version.size;
	}
	free(r.attr);
	strbuf_addf(&b, "{\"items\": %llu, \"bytes\": %llu, \"resident_items\": %llu, \"resident_bytes\": %llu}\n",
		    (unsigned long long)r.items, (unsigned long long)r.bytes,
		    (unsigned long long)r.resident_items, (unsigned long long)r.resident_bytes);
	return strbuf_steal(&b);
}

static char *value_of(struct fs *fs, uint64_t ino, const char *name)
{
	struct ns_attr attr;
	char *value = NULL;

	if (ino == NS_ROOT)
		value = root_value(fs, name);
	if (value || ns_getattr(fs->ns, ino, NS_NOCHECK | NS_NOWAIT, &attr))
		return value;
	return S_ISREG(attr.mode) ? file_value(fs, &attr, name) :
	       S_ISDIR(attr.mode) ? directory_value(fs, ino, name) : NULL;
}

/* @room: what to say that it takes */
static void reply_bytes(fuse_req_t req, const void *bytes, size_t len, size_t room, size_t size)
{
	if (!size)
		fuse_reply_xattr(req, room);
	else if (len > size)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, bytes, len);
}

static void reply_acl(fuse_req_t req, uint64_t ino, size_t size)
{
	struct fs *fs = fuse_req_userdata(req);
	struct ns_attr attr;
	int rc = ns_getattr(fs->ns, ino, NS_NOCHECK | NS_NOWAIT, &attr);

	if (rc || !attr.acl)
		fuse_reply_err(req, rc ? -rc : ENODATA);
	else
		reply_bytes(req, attr.acl->bytes, attr.acl->len, attr.acl->len, size);
}

static void reply_value(fuse_req_t req, uint64_t ino, const char *name, size_t size)
{
	char *value = value_of(fuse_req_userdata(req), ino, name);
	size_t len = value ? strlen(value) : 0;

	if (!value)
		fuse_reply_err(req, ENODATA);
	else if (len > VALUE_MAX)
		fuse_reply_err(req, E2BIG);
	else
		/* the document may have grown by the time it is asked for */
		reply_bytes(req, value, len, len + 1024 < VALUE_MAX ? len + 1024 : VALUE_MAX, size);
	free(value);
}

void fs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	if (!strcmp(name, ACL_ACCESS_XATTR))
		reply_acl(req, ino, size);
	else if (!strncmp(name, PREFIX, strlen(PREFIX)))
		reply_value(req, ino, name + strlen(PREFIX), size);
	else
		fuse_reply_err(req, ENODATA);
}

void fs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	(void)ino;
	if (size)
		fuse_reply_buf(req, NULL, 0);
	else
		fuse_reply_xattr(req, 0);
}

static bool is_owner(fuse_req_t req)
{
	const struct fs *fs = fuse_req_userdata(req);
	uid_t uid = fuse_req_ctx(req)->uid;

	return uid == 0 || uid == fs->owner;
}

/* A plan is made on the pool: it may have to list directories. */
struct planning {
	struct work work;
	struct wait wait;
	_Atomic unsigned refs;   /* the pool's and the wait's */
	fuse_req_t req;
	struct fs *fs;
	uint64_t ino;
	char text[];
};

static void planning_unref(struct planning *g)
{
	if (atomic_fetch_sub(&g->refs, 1) == 1)
		free(g);
}

/* The plan is made all the same. */
static void plan_give_up(struct wait *w, int err)
{
	struct planning *g = container_of(w, struct planning, wait);

	fuse_reply_err(g->req, -err);
	planning_unref(g);
}

static void plan_run(struct work *w)
{
	struct planning *g = container_of(w, struct planning, work);
	char msg[256];
	int rc = prefetch_plan(g->fs->prefetch, g->ino, g->text, msg, sizeof(msg));

	if (rc)
		log_warn("user.hopper.plan: %s", *msg ? msg : strerror(-rc));
	if (wait_claim(g->fs->waits, &g->wait) == WAIT_WAITING) {
		fuse_reply_err(g->req, -rc);
		planning_unref(g);
	}
	planning_unref(g);
}

void fs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	struct fs *fs = fuse_req_userdata(req);
	struct planning *g;

	(void)flags;
	if (!is_owner(req) || strcmp(name, PREFIX "plan") || !fs->prefetch) {
		fuse_reply_err(req, is_owner(req) ? EOPNOTSUPP : EPERM);
		return;
	}
	g = calloc(1, sizeof(*g) + size + 1);
	if (!g) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	g->req = req;
	g->fs = fs;
	g->ino = ino;
	memcpy(g->text, value, size);
	g->work.run = plan_run;
	g->wait.give_up = plan_give_up;
	g->wait.patience_ns = UINT64_MAX;
	g->refs = 2;
	wait_begin(fs->waits, &g->wait, req);
	pool_submit(fs->pool, &g->work);
}

void fs_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	(void)ino;
	(void)name;
	fuse_reply_err(req, is_owner(req) ? EOPNOTSUPP : EPERM);
}

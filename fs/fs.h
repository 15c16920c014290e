/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's side of one mount: decodes requests and calls down.
 *
 * A request that can be answered from what is local is answered on the thread
 * that read it; one that has to ask the origin moves to a pool thread, and a
 * read waits as a continuation, so a slow origin never occupies the loop.
 * Each request is answered exactly once.
 */
#ifndef HOPPER_FS_FS_H
#define HOPPER_FS_FS_H

#include <fuse_lowlevel.h>
#include <stdint.h>
#include "cache/cache.h"
#include "fs/handshake.h"
#include "fs/options.h"
#include "fs/passthrough.h"
#include "lib/hist.h"
#include "lib/locator.h"
#include "lib/pool.h"
#include "lib/stats.h"
#include "prefetch/prefetch.h"

struct fs {
	struct cache *cache;          /* not owned */
	struct ns *ns;                /* not owned */
	struct prefetch *prefetch;    /* not owned, may be NULL */
	struct stats *stats;          /* not owned */
	struct pool *pool;            /* requests that have to ask the origin */
	struct passthrough *passthrough;
	struct handshake handshake;
	struct locator *locator;      /* where readers run; not owned */
	enum open_policy open;
	const char *config_text;      /* not owned */
	uid_t owner;                  /* who mounted */
	uint64_t started_ns;
	struct hist stall_us;
};

/* ops.c: the table given to libfuse; its user data is a struct fs. */
extern const struct fuse_lowlevel_ops fs_ops;

/* ops.c: INIT was answered; settles how files are opened, before the first is. */
void fs_ready(struct fs *fs, int device_fd);

/* xattr.c */
void fs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void fs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void fs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void fs_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* session.c: serve @fd until it is unmounted or a signal asks to stop. Returns 0 or negative errno. */
struct session;
int session_new(struct fs *fs, int fd, bool debug, struct session **ret_session);
int session_start(struct session *s);
void session_wait(struct session *s);      /* until the loop threads are gone */
void session_stop(struct session *s);      /* async-signal-safe: no */
void session_free(struct session *s);

#endif

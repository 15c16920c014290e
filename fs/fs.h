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
#include "fs/handover.h"
#include "fs/handshake.h"
#include "fs/options.h"
#include "fs/passthrough.h"
#include "lib/hist.h"
#include "lib/locator.h"
#include "lib/pool.h"
#include "lib/stats.h"
#include "fs/push.h"
#include "fs/readahead.h"
#include "fs/wait.h"
#include "fs/watch.h"
#include "prefetch/prefetch.h"

struct fs {
	struct cache *cache;          /* not owned */
	struct ns *ns;                /* not owned */
	struct prefetch *prefetch;    /* not owned, may be NULL */
	struct stats *stats;          /* not owned */
	struct pool *pool;            /* requests that have to ask the origin */
	struct waits *waits;          /* ... and those that wait for it */
	struct passthrough *passthrough;
	struct handshake handshake;
	struct handover *handover;    /* for who comes after us, and from who was before; not owned */
	const struct topology *topology;   /* not owned; NULL: one place */
	struct locator *locator;      /* where readers run; not owned */
	enum open_policy open;
	bool follow_acls;             /* acl=on */
	_Atomic bool has_told_of_acls;
	uint64_t read_ahead_bytes;    /* asked for; UINT64_MAX: chosen per file */
	struct read_ahead read_ahead;
	enum transport transport;     /* asked for */
	struct journal *journal;      /* of what /dev/fuse gave us; owned by session.c */
	struct uring *uring;          /* owned by session.c; NULL: /dev/fuse alone; immutable once served */
	_Atomic bool has_no_opens;    /* open=pagecache is in force: the kernel is told to send none */
	bool may_do_without_opens;    /* INIT offered it */
	struct watch *watch;          /* owned by pagecache.c, as is push; NULL but for open=pagecache */
	struct push *push;            /* before has_no_opens is set NULL, then immutable */
	const char *config_text;      /* not owned */
	const char *mountpoint;       /* not owned */
	uid_t owner;                  /* who mounted */
	pid_t keeper;                 /* 0: none */
	struct hist stall_us;
};

/* ops.c: the table given to libfuse; its user data is a struct fs. */
extern const struct fuse_lowlevel_ops fs_ops;

/* ops.c: INIT was answered; settles how files are opened, before the first is. */
void fs_ready(struct fs *fs, int device_fd);

/*
 * pagecache.c: opens without a message. Choose it if asked for, or with open=auto for a data set of small files whose
 * opens can be seen; @recognises: epochs are followed. Before the mount is made, which is to be read-only for the kernel then.
 */
struct session;
bool pagecache_choose(struct fs *fs, enum open_policy asked, bool is_prefetching);
/* The mount is made and served, and nothing was opened yet. Falls back to the daemon's opens. From a thread that serves nothing. */
void pagecache_start(struct fs *fs, struct session *session, const char *mountpoint);
/* Taken over from a server that had it in force: before the first request, and pagecache_start() follows. 0 or negative errno. */
int pagecache_resume(struct fs *fs, struct session *session);
/* The prefetcher was stopped. */
void pagecache_stop(struct fs *fs);
/* A read came, which no open preceded. */
void pagecache_read(struct fs *fs, fuse_req_t req, const struct ns_attr *attr, uint64_t offset);

/* ops.c */
void fs_observe(struct fs *fs, uint32_t pid, uint64_t ino, enum observation_kind kind, uint64_t offset, size_t len, bool stalled);

/* xattr.c */
void fs_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size);
void fs_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size);
void fs_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags);
void fs_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);

/* session.c: serve @fd until it is unmounted or a signal asks to stop. Returns 0 or negative errno. */
int session_new(struct fs *fs, int fd, bool debug, struct session **ret_session);
int session_take_over(struct session *s);  /* instead of the kernel's INIT, which an earlier process has answered; before session_start() */
int session_start(struct session *s);
void session_wait(struct session *s);      /* until the loop threads are gone */
void session_stop(struct session *s);      /* async-signal-safe: no */
void session_free(struct session *s);

/*
 * Put @len bytes, the whole of the file, into the kernel's page cache; have it look @name up again. Never from a thread that serves. 0;
 * -ENOENT: the kernel does not know the file.
 */
int session_store(struct session *s, uint64_t ino, const void *buf, size_t len);
int session_expire(struct session *s, uint64_t parent, const char *name);

#endif

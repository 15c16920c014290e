/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sees files being opened of which the kernel sends no message, by fanotify:
 * a mark on each directory in which names were looked up.
 *
 *   watch_directory -> queue -> watch thread: fanotify_mark (a path walk on our own mount)
 *   the kernel's events  ----> watch thread: watch_decode -> opened()
 *
 * Only the watch thread walks the mount: from a thread that serves requests that would be a deadlock. What is
 * opened before its directory is marked is not seen here; the reads of it are (watch_has() says no).
 */
#ifndef HOPPER_FS_WATCH_H
#define HOPPER_FS_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ns;
struct stats;
struct watch;

/* The file with node id @ino was opened by @pid (0: not told, as to an ordinary user). On the watch thread. */
typedef void (*watch_opened)(void *arg, uint64_t ino, uint32_t pid);

/* 0, or why events cannot be had: -ENOSYS, -EPERM, -EMFILE, ... */
int watch_new(struct ns *ns, struct stats *stats, watch_opened opened, void *arg, struct watch **ret_watch);
void watch_free(struct watch *w);       /* ends the thread; the mount is gone, or was never made */

/* Are events told with the process? Ordinary users' are not. */
bool watch_tells_pids(const struct watch *w);

/* Watch the root of the mount and start the thread. From a thread that serves nothing, while others serve. */
int watch_start(struct watch *w, const char *mountpoint);

/* Have a directory watched, if it is not. Any thread, never blocks. */
void watch_directory(struct watch *w, uint64_t dir);

/* Is every open in it seen from now on? */
bool watch_has(struct watch *w, uint64_t dir);

/* Is this the thread that walks the mount? Its requests must not wait for the origin. */
bool watch_is_thread(struct watch *w, int tid);

void watch_publish(struct watch *w);

/*
 * Take apart what was read from fanotify: @opened for each file. Returns how many overflows it told of. What is
 * not understood is skipped, and nothing behind @len is looked at.
 */
unsigned watch_decode(const void *buf, size_t len, watch_opened opened, void *arg);

#endif

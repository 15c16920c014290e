/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests through io_uring: the kernel hands a request to the queue of the processor its reader runs on, and its
 * answer fetches the next one in the same system call. Only FORGETs, INTERRUPTs and notifications stay with /dev/fuse.
 */
#ifndef HOPPER_FS_URING_H
#define HOPPER_FS_URING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct fuse_session;
struct stats;
struct uring;

/*
 * Make a ring and a thread for each possible processor; nothing is served yet. Before INIT is answered, so that a machine
 * that cannot have them keeps /dev/fuse. @se and @stats are borrowed. Negative errno: -ENOSYS where this program or the
 * kernel has no such rings. Blocks until the threads have made theirs.
 */
int uring_new(struct fuse_session *se, struct stats *stats, struct uring **ret_uring);

/*
 * INIT was answered and both sides agreed: offer the entries to the kernel on @fd, the device. Once, from one thread. 0, or
 * negative errno: the kernel then goes on with /dev/fuse.
 */
int uring_start(struct uring *u, int fd);

/* The entries are with the kernel. @u may be NULL. Any thread. */
bool uring_is_on(struct uring *u);

/*
 * Answer a request that came through a ring: false if this one did not. Any thread, and never blocks; on the queue's own
 * thread it costs no system call. @ret_bytes is what writev(2) would have returned.
 */
bool uring_reply(struct uring *u, const struct iovec *iov, int count, ssize_t *ret_bytes);

/*
 * An INTERRUPT of @len bytes that came through /dev/fuse names its request as the kernel does: have it name it as libfuse knows it. False
 * if that request did not come through a ring, or is answered already. Any thread.
 */
bool uring_interrupt(struct uring *u, char *request, size_t len);

/* The mount is gone: end the threads. Answers may still come, and are dropped. @u may be NULL. */
void uring_stop(struct uring *u);

/* After uring_stop(), and once no answer can come any more. @u may be NULL. */
void uring_free(struct uring *u);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is agreed with the kernel in INIT beyond what the distribution's
 * libfuse knows: its reply is completed on the way out. Only what the kernel
 * offered is asked for; no version is looked at.
 */
#ifndef HOPPER_FS_HANDSHAKE_H
#define HOPPER_FS_HANDSHAKE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* The upper word of INIT's flags. */
enum { HANDSHAKE_PASSTHROUGH = 1 << 5, HANDSHAKE_RESEND = 1 << 7, HANDSHAKE_URING = 1 << 9 };

struct handshake {
	uint32_t want;               /* set before the first request */
	bool is_replay;              /* INIT is one the kernel sent to an earlier process: @replay_agreed came of it, nothing is sent */
	uint32_t replay_agreed;
	uint32_t stack_depth;        /* of file systems below this one, itself counted: 1, or 2 over an overlay */
	_Atomic uint64_t unique;     /* of INIT while it is unanswered; 0 else */
	_Atomic uint32_t offered;
	_Atomic uint32_t agreed;     /* known once INIT was answered */
};

/* A request as it was read from the device. */
void handshake_request(struct handshake *h, const void *buf, size_t len);

/* Is this the reply to INIT? */
bool handshake_is_reply(struct handshake *h, const struct iovec *iov, int count);

/* Send that reply, completed, unless it is a replay. As writev(2). */
ssize_t handshake_reply(struct handshake *h, int fd, const struct iovec *iov, int count);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's layout of a message (linux/fuse.h), as far as it is touched outside libfuse; the headers at hand may
 * be older than the kernel.
 */
#ifndef HOPPER_FS_WIRE_H
#define HOPPER_FS_WIRE_H

#include <stdint.h>

enum { OPCODE_FORGET = 2, OPCODE_INIT = 26, OPCODE_INTERRUPT = 36, OPCODE_NOTIFY_REPLY = 41, OPCODE_BATCH_FORGET = 42 };

/* A message of ours, where a reply has an error: send again what was not answered. */
enum { NOTIFY_RESEND = 7 };

struct in_header {
	uint32_t len, opcode;
	uint64_t unique, nodeid;
	uint32_t uid, gid, pid, padding;
};

struct out_header {
	uint32_t len;
	int32_t error;
	uint64_t unique;
};

/* What follows the header of an INTERRUPT. */
struct interrupt_in {
	uint64_t unique;             /* of the request that is not to be waited for */
};

_Static_assert(sizeof(struct in_header) == 40 && sizeof(struct out_header) == 16 && sizeof(struct interrupt_in) == 8,
	       "the kernel's layout");

#endif

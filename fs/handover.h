/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server leaves to the one that takes the mount over from it, after its death or for an upgrade: memory that the
 * keeper (fs/keeper.h) shares with each server it starts.
 *
 * A server writes here what the next could not find out: what the kernel was told in INIT, which never comes
 * again, and how files are open in the kernel. All else is in the cache's index (node ids) or is rebuilt.
 * A server may be killed between any two writes, so each field is of use the moment it is set.
 */
#ifndef HOPPER_FS_HANDOVER_H
#define HOPPER_FS_HANDOVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "fs/journal.h"
#include "fs/passthrough.h"

/* Raise it with every change here, of op_init's answer, or of what a handle or node id means: see handover_map(). */
enum { HANDOVER_FORMAT = 2 };

enum { HANDOVER_INIT_BYTES = 256 };

struct handover {
	/* written once, by handover_new() */
	char magic[16];
	uint32_t format;
	uint32_t bytes;

	/* written by the first server, before it serves */
	uint64_t mounted_ns;               /* clock_ns() */
	uint32_t open;                     /* enum open_policy */
	uint64_t generation;               /* ns_generation() of the ids that the kernel has */

	/* atomic */
	_Atomic bool is_lost;              /* the index with these ids is gone: to go on with others would show other files' bytes */
	_Atomic bool has_no_opens;         /* the kernel was told to send none, for ever */
	_Atomic uint32_t acls;             /* acl.c: whether the kernel follows them */
	_Atomic uint32_t init_len;         /* 0: INIT has not come */
	_Atomic uint32_t agreed;           /* what came of it: handshake.h */
	_Atomic uint64_t serving_ns;       /* when the present server began to serve; 0 before */

	unsigned char init[HANDOVER_INIT_BYTES];   /* the request; complete once init_len is set */
	struct passthrough_table opens;
	struct journal_table journal;

	/* here follow the counters: stats_bytes() */
};

/* Zeroed and shared with children; *ret_fd, owned by the caller, is the memory for handover_map(). NULL: errno. */
struct handover *handover_new(int *ret_fd);

/* The memory of another image of this program. NULL with errno; EPROTO: it cannot be understood. */
struct handover *handover_map(int fd);

void *handover_stats(struct handover *h);

/* Can another server go on where the present one stops? *ret_why if not. */
bool handover_is_possible(const struct handover *h, const char **ret_why);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests that were read from the kernel and not answered yet, in memory that outlives the process: the kernel gives a
 * request out once, and waits for its answer for ever. (Linux 6.9 can be asked to send them again; this needs no kernel's help.)
 *
 *   journal_read --the kernel writes it into a slot--> in flight --journal_answered--> free
 *                                                        |
 *                             the process is killed      +--> journal_replay in the next one
 *
 *   (A) a request is in its slot from the moment the kernel has given it out, as the kernel itself writes it there;
 *   (B) a slot is freed after the kernel has the answer, so one that was answered may be replayed: the kernel
 *       does not know its number any more (ENOENT), and what it did is undone as for any answer that nobody takes.
 *       What a handler does after its answer (RELEASE) is done exactly once, or not at all.
 *   (C) a request longer than a slot (a long attribute) is answered EAGAIN by the next process;
 *   (D) one for which no slot was free is counted, and while there is such a one journal_is_complete() says no.
 */
#ifndef HOPPER_FS_JOURNAL_H
#define HOPPER_FS_JOURNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { JOURNAL_SLOTS = 2048, JOURNAL_SLOT_BYTES = 4096 };

/* Shared memory, zeroed at first; pages are touched as they are used. */
struct journal_table {
	unsigned char slot[JOURNAL_SLOTS][JOURNAL_SLOT_BYTES] __attribute__((aligned(JOURNAL_SLOT_BYTES)));
	_Atomic bool was_used[JOURNAL_SLOTS];   /* so that others need not be touched to find them empty */
	_Atomic uint32_t unlisted;   /* in flight without a slot */
};

struct journal;

/* @table, borrowed: what an earlier process left in it is in flight until it is replayed. @readers threads will read. -ENOMEM. */
int journal_new(struct journal_table *table, unsigned readers, struct journal **ret_journal);
void journal_free(struct journal *j);

/*
 * As read(2) of one message from @fd by the thread with number @reader, which must have done with its last one. @buf holds at
 * least JOURNAL_SLOT_BYTES; *ret_message is it, or the slot. Blocks.
 */
ssize_t journal_read(struct journal *j, unsigned reader, int fd, void *buf, size_t size, void **ret_message);

/* The kernel has the answer to @unique, or expects none. Any thread. Of a request that is not in flight: does nothing. */
void journal_answered(struct journal *j, uint64_t unique);

bool journal_is_complete(const struct journal_table *table);

/* Every request in flight goes to @process, or is answered on @fd if it cannot; before the first journal_read(). Returns how many. */
unsigned journal_replay(struct journal *j, int fd, void (*process)(void *arg, void *message, size_t len), void *arg);

/* ... or nothing of it is to be replayed, as the kernel will send it again. */
void journal_forget(struct journal *j);

#endif

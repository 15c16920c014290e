/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/journal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include "fs/wire.h"
#include "lib/log.h"

enum { HINTS = 8192 };

struct journal {
	struct journal_table *table;         /* not owned */
	unsigned readers;
	/*
	 * Whose slot it is: a number, 0 when it is free. Set by the slot's reader alone, cleared by who answers, after the slot
	 * itself: so a reader that sees 0 has the slot for itself.
	 */
	_Atomic uint64_t owner[JOURNAL_SLOTS];
	/* Where a number is likely to be: numbers are dense, and most requests end before thousands of others have come. */
	_Atomic uint16_t hint[HINTS];
	uint32_t last[JOURNAL_SLOTS];        /* [reader]: where it looked last; its own */
};

static struct in_header *header(struct journal *j, unsigned slot)
{
	return (struct in_header *)(void *)j->table->slot[slot];
}

static _Atomic uint16_t *hint_of(struct journal *j, uint64_t unique)
{
	return &j->hint[(unique >> 1) % HINTS];   /* the lowest bit is not part of the number */
}

static bool is_in_flight(struct journal *j, unsigned slot)
{
	return atomic_load(&j->table->was_used[slot]) && header(j, slot)->unique;
}

/* A free slot of the reader's own, or -1. The first is tried first: few pages are in use where little is in flight. */
static int slot_free(struct journal *j, unsigned reader)
{
	unsigned count = JOURNAL_SLOTS / j->readers, first = reader * count, at = j->last[reader];

	if (!atomic_load_explicit(&j->owner[first], memory_order_acquire))
		return (int)first;
	for (unsigned i = 1; i < count; i++) {
		unsigned slot = first + (at + i) % count;

		if (!atomic_load_explicit(&j->owner[slot], memory_order_acquire)) {
			j->last[reader] = slot - first;
			return (int)slot;
		}
	}
	return -1;
}

static void slot_take(struct journal *j, unsigned slot, uint64_t unique)
{
	atomic_store(hint_of(j, unique), (uint16_t)slot);
	atomic_store(&j->owner[slot], unique);
}

static void slot_clear(struct journal *j, unsigned slot)
{
	header(j, slot)->unique = 0;
	atomic_store_explicit(&j->owner[slot], 0, memory_order_release);
}

static ssize_t read_unlisted(struct journal *j, int fd, void *buf, size_t size, void **ret_message)
{
	ssize_t n;

	atomic_fetch_add(&j->table->unlisted, 1);
	n = read(fd, buf, size);
	if (n <= 0)
		atomic_fetch_sub(&j->table->unlisted, 1);
	*ret_message = buf;
	return n;
}

ssize_t journal_read(struct journal *j, unsigned reader, int fd, void *buf, size_t size, void **ret_message)
{
	int slot = slot_free(j, reader);
	struct iovec iov[2];
	ssize_t n;

	if (slot < 0)
		return read_unlisted(j, fd, buf, size, ret_message);
	if (!atomic_load_explicit(&j->table->was_used[slot], memory_order_relaxed))
		atomic_store(&j->table->was_used[slot], true);
	/* touches the page: the kernel could not make it present for a process that is being killed */
	memset(j->table->slot[slot], 0, sizeof(struct in_header));
	iov[0] = (struct iovec){ j->table->slot[slot], JOURNAL_SLOT_BYTES };
	iov[1] = (struct iovec){ (char *)buf + JOURNAL_SLOT_BYTES, size - JOURNAL_SLOT_BYTES };
	n = readv(fd, iov, 2);
	*ret_message = j->table->slot[slot];
	if (n < (ssize_t)sizeof(struct in_header)) {
		slot_clear(j, (unsigned)slot);
		return n;
	}
	slot_take(j, (unsigned)slot, header(j, (unsigned)slot)->unique);
	if (n > JOURNAL_SLOT_BYTES) {
		memcpy(buf, j->table->slot[slot], JOURNAL_SLOT_BYTES);
		*ret_message = buf;
	}
	return n;
}

void journal_answered(struct journal *j, uint64_t unique)
{
	unsigned slot = atomic_load(hint_of(j, unique));

	if (!unique)
		return;   /* a notification of ours */
	for (unsigned i = 0; atomic_load(&j->owner[slot]) != unique; i++) {
		if (i == JOURNAL_SLOTS) {
			if (atomic_load(&j->table->unlisted))
				atomic_fetch_sub(&j->table->unlisted, 1);
			return;
		}
		slot = i;
	}
	slot_clear(j, slot);
}

bool journal_is_complete(const struct journal_table *table)
{
	return !atomic_load(&table->unlisted);
}

unsigned journal_replay(struct journal *j, int fd, void (*process)(void *arg, void *message, size_t len), void *arg)
{
	void *copy = malloc(JOURNAL_SLOT_BYTES);
	unsigned count = 0;

	for (unsigned slot = 0; slot < JOURNAL_SLOTS; slot++) {
		const struct in_header *in = header(j, slot);
		struct out_header refusal = { .len = sizeof(refusal), .error = -EAGAIN };

		if (!is_in_flight(j, slot))
			continue;
		count++;
		if (copy && in->len >= sizeof(*in) && in->len <= JOURNAL_SLOT_BYTES) {
			/* its slot may be free, and another's, before it is processed */
			process(arg, memcpy(copy, in, in->len), in->len);
			continue;
		}
		refusal.unique = in->unique;
		if (write(fd, &refusal, sizeof(refusal)) < 0 && errno != ENOENT)
			log_warn("a request of %u bytes cannot be answered: %m", in->len);
		slot_clear(j, slot);
	}
	free(copy);
	return count;
}

void journal_forget(struct journal *j)
{
	for (unsigned slot = 0; slot < JOURNAL_SLOTS; slot++) {
		if (is_in_flight(j, slot))
			slot_clear(j, slot);
	}
	atomic_store(&j->table->unlisted, 0);
}

int journal_new(struct journal_table *table, unsigned readers, struct journal **ret_journal)
{
	struct journal *j = calloc(1, sizeof(*j));

	if (!j)
		return -ENOMEM;
	j->table = table;
	j->readers = readers;
	for (unsigned slot = 0; slot < JOURNAL_SLOTS; slot++) {
		if (is_in_flight(j, slot))
			slot_take(j, slot, header(j, slot)->unique);
	}
	*ret_journal = j;
	return 0;
}

void journal_free(struct journal *j)
{
	free(j);
}

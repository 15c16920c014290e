/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded by uring.sh: what goes wrong between hopperfs and its rings. $HOPPER_URING_FAULT is one of
 *
 *   ring            no ring that could carry requests can be made
 *   submit=Q        queue Q's first submission fails here
 *   register=Q:N    the kernel refuses the first N entries of queue Q
 *   commit=N        every Nth answer is not taken the first time
 */
#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { OP_URING_CMD = 46, CMD_REGISTER = 1, CMD_COMMIT = 2, COMMAND_AT = 48, QUEUE_AT = COMMAND_AT + 16 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static unsigned refused, answers;
static int was_broken;

/* What follows "@name=" in the environment, or NULL. */
static const char *fault(const char *name)
{
	const char *text = getenv("HOPPER_URING_FAULT");
	size_t n = strlen(name);

	return text && !strncmp(text, name, n) ? text + n : NULL;
}

static void spoil(struct io_uring_sqe *sqe)
{
	const char *what;
	uint16_t queue;

	memcpy(&queue, (char *)sqe + QUEUE_AT, sizeof(queue));
	if (sqe->opcode != OP_URING_CMD)
		return;
	if (sqe->off == CMD_REGISTER && (what = fault("register="))) {
		char *end;

		if (strtoul(what, &end, 10) == queue && *end == ':' && refused < strtoul(end + 1, NULL, 10)) {
			sqe->len = 1;
			refused++;
		}
	} else if (sqe->off == CMD_COMMIT && (what = fault("commit="))) {
		if (++answers % strtoul(what, NULL, 10) == 0)
			sqe->fd = -1;
	}
}

/* Returns whether the submission is to fail. */
static int look(struct io_uring *ring)
{
	const char *what = fault("submit=");
	int fails = 0;

	if (!(ring->flags & IORING_SETUP_SQE128))
		return 0;
	pthread_mutex_lock(&mutex);
	for (unsigned i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++) {
		struct io_uring_sqe *sqe = &ring->sq.sqes[(i & ring->sq.ring_mask) << 1];
		uint16_t queue;

		memcpy(&queue, (char *)sqe + QUEUE_AT, sizeof(queue));
		if (what && !was_broken && sqe->opcode == OP_URING_CMD && queue == strtoul(what, NULL, 10))
			fails = was_broken = 1;
		spoil(sqe);
	}
	pthread_mutex_unlock(&mutex);
	return fails;
}

int io_uring_submit(struct io_uring *ring)
{
	int (*real)(struct io_uring *) = dlsym(RTLD_NEXT, "io_uring_submit");

	return look(ring) ? -ENOMEM : real(ring);
}

int io_uring_submit_and_wait(struct io_uring *ring, unsigned count)
{
	int (*real)(struct io_uring *, unsigned) = dlsym(RTLD_NEXT, "io_uring_submit_and_wait");

	return look(ring) ? -ENOMEM : real(ring, count);
}

int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
	int (*real)(unsigned, struct io_uring *, unsigned) = dlsym(RTLD_NEXT, "io_uring_queue_init");

	return flags & IORING_SETUP_DEFER_TASKRUN && fault("ring") ? -EPERM : real(entries, ring, flags);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any thread submits, under a lock held for the system call only; one thread
 * takes the completions. The kernel cancels what a thread submitted when
 * that thread ends, as pool threads do: such an operation is simply submitted
 * again, by the completion thread, which stays.
 */
#include "cache/diskio.h"
#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include "lib/list.h"
#include "lib/lock.h"
#include "lib/topology.h"

enum {
	RANK_DISKIO = 55,
	RING_ENTRIES = 256,
	THREADS = 32,               /* of the fallback */
};

struct diskio {
	struct pool *pool;          /* the fallback; NULL with a ring */
	const char *name;           /* immutable */
	const struct cpus *cpus;    /* immutable after open; not owned */
	struct io_uring ring;
	pthread_t reaper;
	struct lock lock;
	pthread_cond_t drained;
	/* protected by lock (the submission queue too) */
	unsigned in_flight;
};

static void finish(struct diskio_op *op, int err)
{
	struct diskio *io = op->io;

	op->done(op, err);
	lock_acquire(&io->lock);
	if (--io->in_flight == 0)
		pthread_cond_broadcast(&io->drained);
	lock_release(&io->lock);
}

/* ---- ring ---- */

/* Called with the lock held. @op NULL submits the end marker. */
static void ring_push(struct diskio *io, struct diskio_op *op)
{
	struct io_uring_sqe *sqe;

	lock_assert_held(&io->lock);
	while (!(sqe = io_uring_get_sqe(&io->ring)))
		io_uring_submit(&io->ring);
	if (!op)
		io_uring_prep_nop(sqe);
	else if (op->is_write)
		io_uring_prep_write(sqe, op->fd, (char *)op->buf + op->moved,
				    (unsigned)(op->len - op->moved), op->offset + op->moved);
	else
		io_uring_prep_read(sqe, op->fd, (char *)op->buf + op->moved,
				   (unsigned)(op->asked - op->moved), op->offset + op->moved);
	io_uring_sqe_set_data(sqe, op);
	while (io_uring_submit(&io->ring) == -EINTR)
		;
}

static void ring_complete(struct diskio *io, struct diskio_op *op, int res)
{
	bool again = res == -EINTR || res == -EAGAIN || res == -ECANCELED;

	/* the lock orders this after the submission for whoever cannot see through the kernel */
	lock_acquire(&io->lock);
	if (res > 0) {
		op->moved += (size_t)res;
		again = op->moved < op->len;
	}
	if (again)
		ring_push(io, op);
	lock_release(&io->lock);
	if (again)
		return;
	finish(op, res < 0 ? res : op->moved >= op->len ? 0 : op->is_write ? -EIO : -ENODATA);
}

static void *reaper_thread(void *arg)
{
	struct diskio *io = arg;

	pthread_setname_np(pthread_self(), io->name);
	if (io->cpus)
		pthread_setaffinity_np(pthread_self(), sizeof(io->cpus->bits), (const cpu_set_t *)io->cpus->bits);
	for (;;) {
		struct io_uring_cqe *cqe;
		struct diskio_op *op;
		int res;

		if (io_uring_wait_cqe(&io->ring, &cqe))
			continue;
		op = io_uring_cqe_get_data(cqe);
		res = cqe->res;
		io_uring_cqe_seen(&io->ring, cqe);
		if (!op)
			return NULL;
		ring_complete(io, op, res);
	}
}

/* ---- threads ---- */

static void run_blocking(struct work *w)
{
	struct diskio_op *op = container_of(w, struct diskio_op, work);

	while (op->moved < op->len) {
		char *at = (char *)op->buf + op->moved;
		off_t offset = (off_t)(op->offset + op->moved);
		ssize_t n = op->is_write ? pwrite(op->fd, at, op->len - op->moved, offset) :
					   pread(op->fd, at, op->asked - op->moved, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			finish(op, n < 0 ? -errno : op->is_write ? -EIO : -ENODATA);
			return;
		}
		op->moved += (size_t)n;
	}
	finish(op, 0);
}

/* ---- life ---- */

static int start_ring(struct diskio *io)
{
	sigset_t all, before;
	int rc = io_uring_queue_init(RING_ENTRIES, &io->ring, 0);

	if (rc)
		return rc;
	if (io->cpus)   /* where the kernel cannot, its threads run anywhere */
		io_uring_register_iowq_aff(&io->ring, sizeof(io->cpus->bits), (const cpu_set_t *)io->cpus->bits);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(&io->reaper, NULL, reaper_thread, io);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (rc)
		io_uring_queue_exit(&io->ring);
	return -rc;
}

int diskio_new(bool use_threads, const char *name, const struct cpus *cpus, struct diskio **ret_io)
{
	struct diskio *io = calloc(1, sizeof(*io));
	int rc = 0;

	if (!io)
		return -ENOMEM;
	io->name = name;
	io->cpus = cpus;
	lock_init(&io->lock, "disk queue", RANK_DISKIO);
	lock_cond_init(&io->drained);
	if (use_threads || start_ring(io))
		rc = pool_new(name, THREADS, &io->pool);
	if (!rc && io->pool)
		pool_pin(io->pool, cpus);
	if (rc) {
		free(io);
		return rc;
	}
	*ret_io = io;
	return 0;
}

void diskio_free(struct diskio *io)
{
	if (!io)
		return;
	lock_acquire(&io->lock);
	while (io->in_flight)
		lock_wait(&io->lock, &io->drained);
	if (!io->pool)
		ring_push(io, NULL);
	lock_release(&io->lock);
	if (io->pool) {
		pool_free(io->pool);
	} else {
		pthread_join(io->reaper, NULL);
		io_uring_queue_exit(&io->ring);
	}
	pthread_cond_destroy(&io->drained);
	lock_destroy(&io->lock);
	free(io);
}

void diskio_submit(struct diskio *io, struct diskio_op *op)
{
	op->io = io;
	op->moved = 0;
	if (op->is_write || op->asked < op->len)
		op->asked = op->len;
	op->work.run = run_blocking;
	lock_acquire(&io->lock);
	io->in_flight++;
	if (!io->pool)
		ring_push(io, op);
	lock_release(&io->lock);
	if (io->pool)
		pool_submit(io->pool, &op->work);
}

bool diskio_is_uring(const struct diskio *io)
{
	return !io->pool;
}

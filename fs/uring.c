/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One queue for each possible processor, each with a thread that owns its ring and is pinned there if that is one of
 * those we may run on. The kernel chooses the queue by the processor the reader runs on, allowed to us or not: each queue
 * needs entries, or every request would block. An entry is a pair of buffers, and carries one request at a time:
 *
 *   OFFERED    with the kernel              REGISTER, then each COMMIT_AND_FETCH (entry_submit)
 *     | completion (queue_take)
 *   SERVED     its request is being served  the queue's thread, or whoever the request was handed to
 *     | uring_reply
 *   ANSWERED   waits for its queue          on the queue's list unless the queue's own thread answered
 *     | queue_drain, uring_reply
 *   OFFERED ----- completion with an error (entry_failed) ----> FAILED   on the queue's list, for queue_retry
 *
 * (A) Only the queue's thread touches its ring: the kernel delivers through the thread that submitted, and takes back
 *     the entries of one that ends, so an answer from elsewhere goes on a list and wakes it through an eventfd.
 * (B) The list is woken for only when it was empty: whoever takes it takes it whole.
 * (C) A request is known by its entry: libfuse sees a tag in place of the kernel's number, which the answer gets back.
 * (D) While the thread sleeps, an entry is with the kernel: when all wait for the origin there are more (queue_grow), so
 *     that a hit is not held up by misses, up to ENTRIES_MAX.
 * (E) What failed is tried again, later and later: an answer is not lost, and a queue not left without entries.
 * (F) The kernel writes into an entry while the thread is in io_uring_enter(2) and at no other time (DEFER_TASKRUN).
 */
#include "fs/uring.h"
#include <assert.h>
#include <errno.h>
#include <fuse_lowlevel.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "fs/wire.h"
#include "lib/log.h"
#include "lib/stats.h"

/* The kernel's layout (linux/fuse.h); the headers at hand may be older than the kernel. */
enum { CMD_REGISTER = 1, CMD_COMMIT_AND_FETCH = 2, OP_URING_CMD = 46 };

struct entry_header {
	char in_out[128], op_in[128];
	uint64_t flags, commit_id;
	uint32_t payload_bytes, padding;
	uint64_t reserved;
};

struct command {
	uint64_t flags, commit_id;
	uint16_t queue;
	uint8_t padding[6];
};

_Static_assert(sizeof(struct entry_header) == 288 && sizeof(struct command) == 24, "the kernel's layout");

enum {
	PAYLOAD_BYTES = 1 << 20,     /* the largest request that libfuse agrees to */
	HEADROOM_BYTES = 4096,       /* before it: a request's headers, so that it is in one piece */
	ENTRIES_FIRST = 8, ENTRIES_MAX = 512,   /* of a queue: twice as many each time that all of them wait */
	TOUCHED_MAX = 2 * ENTRIES_FIRST,        /* payloads whose memory a queue with nothing to do keeps */
	RING_ENTRIES = 64,
	RETRY_FIRST_MS = 1, RETRY_MAX_MS = 2000,
	SQE_BYTES = 128, SQE_COMMAND = 48,
	TAG_QUEUE_SHIFT = 16,
	CPUS_MAX = 8192,
};

#define TAG (1ull << 62)   /* the kernel counts from 0, and has bit 63 for what it sends again */

struct entry {
	struct queue *queue;
	struct entry_header *header; /* both written by the kernel while OFFERED, else by who serves */
	char *payload;
	struct iovec iov[2];
	struct entry *next;          /* on one of the queue's lists */
	uint64_t commit_id;
	uint32_t op;                 /* what it was last submitted with */
	bool is_touched;             /* its payload may have memory */
	_Atomic uint64_t unique;     /* the kernel's number of its request, 0 for none */
};

struct queue {
	struct uring *uring;
	unsigned cpu;
	pthread_t thread;
	int event_fd;
	_Atomic(struct entry *) answered;
	int rc;                      /* of the step last reported */
	struct entry *entry;         /* ENTRIES_MAX, of which count are made; immutable */
	_Atomic unsigned count;
	/* the thread's */
	struct io_uring ring;
	uint64_t event;              /* what reading event_fd gives */
	unsigned busy;               /* entries that are not with the kernel */
	unsigned touched;
	struct entry *failed;
	struct __kernel_timespec retry_after;
	unsigned retry_ms;
	bool is_retrying;            /* the timer runs */
	bool has_ended;              /* the mount is gone */
};

struct uring {
	/* immutable once uring_new() returns */
	struct fuse_session *se;
	struct stats *stats;
	struct queue *queue;
	unsigned count;
	cpu_set_t *allowed;          /* processors we may run on; owned */
	int fd;                      /* before go is posted */
	sem_t go, verdict, reported;
	_Atomic bool is_on, is_stopping;
};

static _Thread_local struct queue *own_queue;

static uint64_t entry_tag(const struct entry *e)
{
	return TAG | (uint64_t)e->queue->cpu << TAG_QUEUE_SHIFT | (uint64_t)(e - e->queue->entry);
}

#ifdef IORING_SETUP_DEFER_TASKRUN

/* ---- on the queue's thread ---- */

static struct io_uring_sqe *queue_sqe(struct queue *q)
{
	struct io_uring_sqe *sqe;

	while (!(sqe = io_uring_get_sqe(&q->ring)))
		io_uring_submit(&q->ring);
	return memset(sqe, 0, SQE_BYTES);
}

static void command_prepare(struct io_uring_sqe *sqe, int fd, uint32_t op, const struct command *cmd)
{
	sqe->opcode = OP_URING_CMD;
	sqe->fd = fd;
	sqe->off = op;
	memcpy((char *)sqe + SQE_COMMAND, cmd, sizeof(*cmd));
}

static void entry_submit(struct entry *e, uint32_t op)
{
	struct queue *q = e->queue;
	struct io_uring_sqe *sqe = queue_sqe(q);

	command_prepare(sqe, q->uring->fd, op, &(struct command){ .commit_id = e->commit_id, .queue = (uint16_t)q->cpu });
	if (op == CMD_REGISTER) {
		sqe->addr = (uintptr_t)e->iov;
		sqe->len = 2;
	}
	sqe->user_data = (uintptr_t)e;
	e->op = op;
	q->busy--;
}

static void event_submit(struct queue *q)
{
	io_uring_prep_read(queue_sqe(q), q->event_fd, &q->event, sizeof(q->event), 0);
}

/* Headers and the operation's arguments go before the payload. Returns the request, or NULL if it makes no sense. */
static char *entry_request(struct entry *e, size_t *ret_len)
{
	struct entry_header *h = e->header;
	struct in_header in;
	size_t op_len;
	char *request;

	memcpy(&in, h->in_out, sizeof(in));
	op_len = in.len - sizeof(in) - h->payload_bytes;
	if (in.len < sizeof(in) || h->payload_bytes > in.len - sizeof(in) || op_len > sizeof(h->op_in))
		return NULL;
	atomic_store_explicit(&e->unique, in.unique, memory_order_relaxed);
	e->commit_id = h->commit_id;
	in.unique = entry_tag(e);
	request = e->payload - op_len - sizeof(in);
	memcpy(request, &in, sizeof(in));
	memcpy(request + sizeof(in), h->op_in, op_len);
	*ret_len = in.len;
	return request;
}

static void entry_serve(struct entry *e)
{
	struct uring *u = e->queue->uring;
	struct fuse_buf buf = { 0 };

	buf.mem = entry_request(e, &buf.size);
	if (!buf.mem) {
		log_error("io_uring: a request that makes no sense");
		return;
	}
	stats_inc(u->stats, STAT_MESSAGES);
	stats_inc(u->stats, STAT_URING_REQUESTS);
	fuse_session_process_buf(u->se, &buf);
}

/* The same again, but for an answer to a request that the kernel does not have any more: then the buffers are offered anew. */
static void entry_failed(struct entry *e, int err)
{
	struct queue *q = e->queue;

	if (!q->retry_ms)
		log_warn("io_uring: queue %u: %s; trying again", q->cpu, strerror(-err));
	if (e->op == CMD_COMMIT_AND_FETCH && err == -ENOENT)
		e->op = CMD_REGISTER;
	e->next = q->failed;
	q->failed = e;
}

static void queue_retry(struct queue *q)
{
	struct entry *e = q->failed, *next;

	q->is_retrying = false;
	q->failed = NULL;
	for (; e; e = next) {
		next = e->next;
		stats_inc(q->uring->stats, STAT_URING_RETRIED);
		entry_submit(e, e->op);
	}
}

/* Later and later while nothing succeeds. */
static void retry_later(struct queue *q)
{
	struct io_uring_sqe *sqe = queue_sqe(q);

	q->retry_ms = q->retry_ms ? q->retry_ms * 2 : RETRY_FIRST_MS;
	if (q->retry_ms > RETRY_MAX_MS)
		q->retry_ms = RETRY_MAX_MS;
	q->retry_after = (struct __kernel_timespec){ q->retry_ms / 1000, q->retry_ms % 1000 * 1000000ll };
	io_uring_prep_timeout(sqe, &q->retry_after, 0, 0);
	sqe->user_data = (uintptr_t)q;
	q->is_retrying = true;
}

static void queue_take(struct queue *q, void *of, int res)
{
	struct entry *e = of;

	if (!e) {
		event_submit(q);
		return;
	}
	if (of == q) {
		queue_retry(q);
		return;
	}
	q->busy++;
	if (!res) {
		q->retry_ms = 0;
		q->touched += !e->is_touched;
		e->is_touched = true;
		entry_serve(e);
	} else if (res == -ENOTCONN || res == -ECONNABORTED || res == -ECANCELED || res == -ENODEV) {
		q->has_ended = true;
	} else {
		entry_failed(e, res);
	}
}

/* What other threads answered. */
static void queue_drain(struct queue *q)
{
	struct entry *e = atomic_exchange_explicit(&q->answered, NULL, memory_order_acquire), *next;

	for (; e; e = next) {
		next = e->next;
		entry_submit(e, CMD_COMMIT_AND_FETCH);
	}
}

/* The memory is touched by the pinned thread, and the kernel, first: it is next to the readers. */
static int entry_make(struct queue *q, unsigned i)
{
	struct entry *e = &q->entry[i];
	char *memory = mmap(NULL, HEADROOM_BYTES + PAYLOAD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		return -ENOMEM;
	/* the header begins the headroom, the request's own headers end it */
	e->queue = q;
	e->header = (struct entry_header *)(void *)memory;
	e->payload = memory + HEADROOM_BYTES;
	e->iov[0] = (struct iovec){ e->header, sizeof(*e->header) };
	e->iov[1] = (struct iovec){ e->payload, PAYLOAD_BYTES };
	q->busy++;
	atomic_store_explicit(&q->count, i + 1, memory_order_release);
	return 0;
}

/* All that there are wait for somebody else: offer as many more. */
static void queue_grow(struct queue *q)
{
	unsigned from = atomic_load(&q->count), to = 2 * from < ENTRIES_MAX ? 2 * from : ENTRIES_MAX;

	for (unsigned i = from; i < to && !entry_make(q, i); i++) {
		stats_inc(q->uring->stats, STAT_URING_ENTRIES);
		entry_submit(&q->entry[i], CMD_REGISTER);
	}
}

/*
 * A burst is over: once the kernel has taken the answers (which it does as they are submitted) they need no memory any more,
 * and (F) it writes into no entry before it is asked for the next request.
 */
static void queue_trim(struct queue *q)
{
	unsigned count = atomic_load(&q->count);

	io_uring_submit(&q->ring);
	if (io_uring_sq_ready(&q->ring) || io_uring_cq_ready(&q->ring))
		return;
	for (unsigned i = 0; i < count; i++) {
		if (q->entry[i].is_touched)
			madvise(q->entry[i].payload, PAYLOAD_BYTES, MADV_DONTNEED);
		q->entry[i].is_touched = false;
	}
	q->touched = 0;
}

static void queue_serve(struct queue *q)
{
	struct io_uring_cqe *cqe;

	while (!q->has_ended && !atomic_load(&q->uring->is_stopping)) {
		queue_drain(q);
		if (q->failed && !q->is_retrying)
			retry_later(q);
		if (q->busy == atomic_load(&q->count))
			queue_grow(q);
		else if (!q->busy && q->touched > TOUCHED_MAX)
			queue_trim(q);
		io_uring_submit_and_wait(&q->ring, 1);
		while (!io_uring_peek_cqe(&q->ring, &cqe)) {
			void *of = io_uring_cqe_get_data(cqe);
			int res = cqe->res;

			io_uring_cqe_seen(&q->ring, cqe);
			queue_take(q, of, res);
			/* one reader does not wait for another's request */
			if (io_uring_cq_ready(&q->ring))
				io_uring_submit(&q->ring);
		}
	}
}

/* Only where we may run in any case: whoever confined us meant it. */
static void queue_pin(struct queue *q)
{
	size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
	cpu_set_t *set = CPU_ISSET_S(q->cpu, size, q->uring->allowed) ? CPU_ALLOC(CPUS_MAX) : NULL;

	if (!set)
		return;
	CPU_ZERO_S(size, set);
	CPU_SET_S(q->cpu, size, set);
	/* offline: it serves from anywhere */
	if (pthread_setaffinity_np(pthread_self(), size, set))
		log_debug("io_uring: queue %u is not pinned", q->cpu);
	CPU_FREE(set);
}

static int queue_prepare(struct queue *q)
{
	const unsigned flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
	int rc = 0;

	queue_pin(q);
	q->event_fd = eventfd(0, EFD_CLOEXEC);
	if (q->event_fd < 0)
		return -errno;
	q->entry = calloc(ENTRIES_MAX, sizeof(*q->entry));
	if (!q->entry)
		return -ENOMEM;
	for (unsigned i = 0; i < ENTRIES_FIRST && !rc; i++)
		rc = entry_make(q, i);
	if (!rc)
		rc = io_uring_queue_init(RING_ENTRIES, &q->ring, flags);
	return rc == -EINVAL ? -ENOSYS : rc;
}

/*
 * A refusal completes at once. What completed with 0 is a request: it stays for queue_serve(), as do the refusals, which it
 * tries again. An error only if the kernel took none.
 */
static int queue_register(struct queue *q)
{
	struct io_uring_cqe *cqe;
	unsigned head, refused = 0;
	int rc, err = 0;

	for (unsigned i = 0; i < ENTRIES_FIRST; i++)
		entry_submit(&q->entry[i], CMD_REGISTER);
	event_submit(q);
	rc = io_uring_submit(&q->ring);
	if (rc < 0)
		return rc;
	io_uring_for_each_cqe(&q->ring, head, cqe) {
		if (!io_uring_cqe_get_data(cqe) || cqe->res >= 0)
			continue;
		refused++;
		err = cqe->res;
	}
	stats_add(q->uring->stats, STAT_URING_ENTRIES, ENTRIES_FIRST - refused);
	return refused == ENTRIES_FIRST ? err : 0;
}

static void sem_wait_for(sem_t *sem)
{
	while (sem_wait(sem))
		;
}

static void *queue_thread(void *arg)
{
	struct queue *q = arg;
	struct uring *u = q->uring;
	char name[16];

	snprintf(name, sizeof(name), "queue %u", q->cpu);
	pthread_setname_np(pthread_self(), name);
	own_queue = q;
	q->rc = queue_prepare(q);
	sem_post(&u->reported);
	if (q->rc)
		return NULL;
	sem_wait_for(&u->go);
	if (!atomic_load(&u->is_stopping)) {
		q->rc = queue_register(q);
		sem_post(&u->reported);
		sem_wait_for(&u->verdict);
		/* refused by one queue, the kernel sends nothing to any */
		if (uring_is_on(u))
			queue_serve(q);
	}
	io_uring_queue_exit(&q->ring);
	return NULL;
}

/*
 * Requests wait from INIT on for either all queues to be there or the kernel to have refused an entry. Where it was us
 * who failed, have it refuse one: of a queue that cannot be.
 */
static void uring_decline(int fd)
{
	const struct command nowhere = { .queue = UINT16_MAX };
	struct io_uring ring;
	struct io_uring_sqe *sqe;
	int rc = io_uring_queue_init(1, &ring, IORING_SETUP_SQE128);

	if (rc) {
		log_error("io_uring: %s; the kernel waits for it", strerror(-rc));
		return;
	}
	sqe = memset(io_uring_get_sqe(&ring), 0, SQE_BYTES);
	command_prepare(sqe, fd, CMD_REGISTER, &nowhere);
	io_uring_submit(&ring);
	io_uring_queue_exit(&ring);
}

#else

static void entry_submit(struct entry *e, uint32_t op)
{
	(void)e;
	(void)op;
}

static void uring_decline(int fd)
{
	(void)fd;
}

static void *queue_thread(void *arg)
{
	struct queue *q = arg;

	q->rc = -ENOSYS;
	sem_post(&q->uring->reported);
	return NULL;
}

#endif

/* ---- on any thread ---- */

static struct entry *entry_of(struct uring *u, uint64_t tag)
{
	uint64_t cpu = (tag & ~TAG) >> TAG_QUEUE_SHIFT, i = tag & ((1u << TAG_QUEUE_SHIFT) - 1);

	return u && tag & TAG && !(tag >> 63) && cpu < u->count && i < atomic_load(&u->queue[cpu].count) ? &u->queue[cpu].entry[i] : NULL;
}

/* @out and what follows it into the entry's buffers. */
static void entry_fill(struct entry *e, struct out_header out, const struct iovec *iov, int count)
{
	size_t used = 0;

	out.unique = atomic_exchange_explicit(&e->unique, 0, memory_order_relaxed);
	for (int i = 1; i < count; i++) {
		if (iov[i].iov_len > PAYLOAD_BYTES - used) {
			out.error = -EIO;
			used = 0;
			break;
		}
		memcpy(e->payload + used, iov[i].iov_base, iov[i].iov_len);
		used += iov[i].iov_len;
	}
	out.len = (uint32_t)(sizeof(out) + used);
	memcpy(e->header->in_out, &out, sizeof(out));
	e->header->payload_bytes = (uint32_t)used;
}

static void entry_hand_over(struct entry *e)
{
	struct queue *q = e->queue;
	struct entry *next = atomic_load_explicit(&q->answered, memory_order_relaxed);
	const uint64_t one = 1;

	stats_inc(q->uring->stats, STAT_URING_HANDED_OFF);
	do {
		e->next = next;
	} while (!atomic_compare_exchange_weak_explicit(&q->answered, &next, e, memory_order_release, memory_order_relaxed));
	/* from here on @e is the queue's */
	if (!next && write(q->event_fd, &one, sizeof(one)) < 0)
		log_error("io_uring: waking queue %u: %m", q->cpu);
}

bool uring_reply(struct uring *u, const struct iovec *iov, int count, ssize_t *ret_bytes)
{
	struct out_header out;
	struct entry *e;

	if (!u || !count || iov[0].iov_len < sizeof(out))
		return false;
	memcpy(&out, iov[0].iov_base, sizeof(out));
	e = entry_of(u, out.unique);
	if (!e)
		return false;
	*ret_bytes = (ssize_t)out.len;
	entry_fill(e, out, iov, count);
	if (own_queue == e->queue)
		entry_submit(e, CMD_COMMIT_AND_FETCH);
	else
		entry_hand_over(e);
	return true;
}

static const struct entry *queue_find(struct queue *q, uint64_t unique)
{
	unsigned count = atomic_load_explicit(&q->count, memory_order_acquire);

	for (unsigned i = 0; i < count; i++) {
		if (atomic_load_explicit(&q->entry[i].unique, memory_order_relaxed) == unique)
			return &q->entry[i];
	}
	return NULL;
}

/*
 * A request answered and followed by another between our look and libfuse's would have the wrong one interrupted: whoever
 * is asked to give up looks whether its asker is dying (wait.c).
 */
bool uring_interrupt(struct uring *u, char *request, size_t len)
{
	struct interrupt_in in;

	if (!uring_is_on(u) || len < sizeof(struct in_header) + sizeof(in))
		return false;
	memcpy(&in, request + sizeof(struct in_header), sizeof(in));
	for (unsigned cpu = 0; cpu < u->count; cpu++) {
		const struct entry *e = queue_find(&u->queue[cpu], in.unique);

		if (!e)
			continue;
		in.unique = entry_tag(e);
		memcpy(request + sizeof(struct in_header), &in, sizeof(in));
		return true;
	}
	return false;
}

/* Wait until @count threads reported. Returns the first failure among all. */
static int uring_collect(struct uring *u, unsigned count)
{
	int rc = 0;

	for (unsigned i = 0; i < count; i++) {
		while (sem_wait(&u->reported))
			;
	}
	for (unsigned i = 0; i < count && !rc; i++)
		rc = u->queue[i].rc;
	return rc;
}

int uring_new(struct fuse_session *se, struct stats *stats, struct uring **ret_uring)
{
	long cpus = sysconf(_SC_NPROCESSORS_CONF);   /* possible, online or not */
	struct uring *u = calloc(1, sizeof(*u));
	int rc = 0;

	if (!u)
		return -ENOMEM;
	if (cpus >= 1 && cpus <= CPUS_MAX)
		u->queue = calloc((size_t)cpus, sizeof(*u->queue));
	u->allowed = CPU_ALLOC(CPUS_MAX);
	if (!u->queue || !u->allowed) {
		CPU_FREE(u->allowed);
		free(u->queue);
		free(u);
		return -ENOMEM;
	}
	CPU_ZERO_S(CPU_ALLOC_SIZE(CPUS_MAX), u->allowed);
	sched_getaffinity(0, CPU_ALLOC_SIZE(CPUS_MAX), u->allowed);
	u->se = se;
	u->stats = stats;
	sem_init(&u->go, 0, 0);
	sem_init(&u->verdict, 0, 0);
	sem_init(&u->reported, 0, 0);
	for (; u->count < (unsigned)cpus && !rc; u->count += !rc) {
		struct queue *q = &u->queue[u->count];

		q->uring = u;
		q->cpu = u->count;
		q->event_fd = -1;
		rc = -pthread_create(&q->thread, NULL, queue_thread, q);
	}
	int prepared = uring_collect(u, u->count);

	rc = rc ? rc : prepared;
	if (rc) {
		uring_stop(u);
		uring_free(u);
		return rc;
	}
	*ret_uring = u;
	return 0;
}

int uring_start(struct uring *u, int fd)
{
	int rc;

	u->fd = fd;
	for (unsigned i = 0; i < u->count; i++)
		sem_post(&u->go);
	rc = uring_collect(u, u->count);
	if (rc)
		uring_decline(fd);
	atomic_store(&u->is_on, !rc);
	for (unsigned i = 0; i < u->count; i++)
		sem_post(&u->verdict);
	return rc;
}

bool uring_is_on(struct uring *u)
{
	return u && atomic_load(&u->is_on);
}

void uring_stop(struct uring *u)
{
	const uint64_t one = 1;

	if (!u || atomic_exchange(&u->is_stopping, true))
		return;
	for (unsigned i = 0; i < u->count; i++) {
		sem_post(&u->go);
		sem_post(&u->verdict);
		if (u->queue[i].event_fd >= 0 && write(u->queue[i].event_fd, &one, sizeof(one)) < 0)
			log_error("io_uring: waking queue %u: %m", i);
	}
	for (unsigned i = 0; i < u->count; i++)
		pthread_join(u->queue[i].thread, NULL);
}

void uring_free(struct uring *u)
{
	if (!u)
		return;
	for (unsigned i = 0; i < u->count; i++) {
		struct queue *q = &u->queue[i];

		if (q->event_fd >= 0)
			close(q->event_fd);
		for (unsigned k = 0; k < atomic_load(&q->count); k++)
			munmap(q->entry[k].header, HEADROOM_BYTES + PAYLOAD_BYTES);
		free(q->entry);
	}
	CPU_FREE(u->allowed);
	sem_destroy(&u->go);
	sem_destroy(&u->verdict);
	sem_destroy(&u->reported);
	free(u->queue);
	free(u);
}

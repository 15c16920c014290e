/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libfuse as protocol engine over a descriptor of our own. Each loop thread
 * reads a request and has it processed; replies go out from whatever thread
 * has them. The loop ends when the kernel says that the mount is gone.
 */
#include <errno.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include "fs/fs.h"
#include "fs/uring.h"
#include "fs/wire.h"
#include "lib/log.h"

enum { LOOPS_MIN = 4, LOOPS_MAX = 8, BUFFER_BYTES = (1 << 20) + 4096 };

struct loop {
	struct session *session;
	pthread_t thread;
};

struct session {
	struct fs *fs;                /* not owned */
	struct fuse_session *se;
	int fd;
	struct loop loop[LOOPS_MAX];
	unsigned loops_wanted, loop_count;
};

static ssize_t session_read(int fd, void *buf, size_t size, void *userdata)
{
	(void)userdata;
	return read(fd, buf, size);
}

static void transport_settle(struct fs *fs, const char *why)
{
	stats_set_text(fs->stats, STAT_TRANSPORT_WHY, why);
	if (fs->transport == TRANSPORT_URING && !uring_is_on(fs->uring))
		log_warn("requests come through /dev/fuse: %s", why);
}

/* Rings are made before INIT is answered: what the kernel was promised must work. */
static void transport_prepare(struct session *s)
{
	struct fs *fs = s->fs;
	int rc;

	if (fs->transport != TRANSPORT_URING) {
		transport_settle(fs, "io_uring was not asked for");
		return;
	}
	rc = uring_new(s->se, fs->stats, &fs->uring);
	if (rc)
		transport_settle(fs, rc == -ENOSYS ? "no io_uring that can carry requests" : strerror(-rc));
	else
		fs->handshake.want |= HANDSHAKE_URING;
}

/* INIT was answered. */
static void transport_ready(struct fs *fs, int fd)
{
	int rc;

	if (!fs->uring)
		return;
	if (!(atomic_load(&fs->handshake.agreed) & HANDSHAKE_URING)) {
		transport_settle(fs, "the kernel does not offer io_uring (fuse.enable_uring=1)");
		return;
	}
	rc = uring_start(fs->uring, fd);
	transport_settle(fs, rc ? strerror(-rc) : "asked for");
}

/* Whatever came of it: the kernel knows the request no more. */
static void answered(struct fs *fs, const struct iovec *iov)
{
	struct out_header out;
	int err = errno;

	memcpy(&out, iov[0].iov_base, sizeof(out));
	journal_answered(fs->journal, out.unique);
	errno = err;
}

static ssize_t session_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct fs *fs = userdata;
	ssize_t n;

	if (uring_reply(fs->uring, iov, count, &n))
		return n;
	if (!handshake_is_reply(&fs->handshake, iov, count)) {
		n = writev(fd, iov, count);
		answered(fs, iov);
		return n;
	}
	n = handshake_reply(&fs->handshake, fd, iov, count);
	atomic_store(&fs->handover->agreed, atomic_load(&fs->handshake.agreed));
	answered(fs, iov);
	fs_ready(fs, fd);
	transport_ready(fs, fd);
	return n;
}

/* A whole header was read, or it is not a request. */
static struct in_header header_of(const void *request)
{
	struct in_header in;

	memcpy(&in, request, sizeof(in));
	return in;
}

static bool has_answer(uint32_t opcode)
{
	return opcode != OPCODE_FORGET && opcode != OPCODE_BATCH_FORGET && opcode != OPCODE_INTERRUPT && opcode != OPCODE_NOTIFY_REPLY;
}

/* INIT comes once for all processes that will serve this mount. */
static void keep_init(struct handover *h, const void *request, size_t len)
{
	if (len > sizeof(h->init))
		return;   /* nobody can take over */
	memcpy(h->init, request, len);
	atomic_store(&h->init_len, (uint32_t)len);
}

static void process(void *arg, void *request, size_t len)
{
	struct session *s = arg;
	struct fuse_buf buf = { .mem = request, .size = len };
	const struct in_header in = header_of(request);
	struct uring *uring = s->fs->uring;

	handshake_request(&s->fs->handshake, request, len);
	if (in.opcode == OPCODE_INIT && request != s->fs->handover->init)
		keep_init(s->fs->handover, request, len);
	/* an interrupt that comes too late needs no answer */
	if (in.opcode != OPCODE_INTERRUPT || !uring_is_on(uring) || uring_interrupt(uring, request, len))
		fuse_session_process_buf(s->se, &buf);
	if (!has_answer(in.opcode))
		journal_answered(s->fs->journal, in.unique);
}

static void *loop_thread(void *arg)
{
	struct loop *loop = arg;
	struct session *s = loop->session;
	void *mem = malloc(BUFFER_BYTES);

	pthread_setname_np(pthread_self(), "loop");
	while (mem && !fuse_session_exited(s->se)) {
		void *request;
		ssize_t n = journal_read(s->fs->journal, (unsigned)(loop - s->loop), s->fd, mem, BUFFER_BYTES, &request);

		if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
			continue;   /* ENOENT: the request was interrupted before it was read */
		if (n <= 0) {
			if (errno != ENODEV)
				log_error("/dev/fuse: %m");
			break;
		}
		stats_inc(s->fs->stats, STAT_MESSAGES);
		process(s, request, (size_t)n);
	}
	free(mem);
	return NULL;
}

int session_new(struct fs *fs, int fd, bool debug, struct session **ret_session)
{
	const struct fuse_custom_io io = { .read = session_read, .writev = session_writev };
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct session *s = calloc(1, sizeof(*s));
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);

	if (!s)
		return -ENOMEM;
	fuse_opt_add_arg(&args, "hopperfs");
	if (debug)
		fuse_opt_add_arg(&args, "-d");
	s->fs = fs;
	s->fd = fd;
	s->loops_wanted = cpus < LOOPS_MIN ? LOOPS_MIN : cpus > LOOPS_MAX ? LOOPS_MAX : (unsigned)cpus;
	s->se = fuse_session_new(&args, &fs_ops, sizeof(fs_ops), fs);
	fuse_opt_free_args(&args);
	if (!s->se || fuse_session_custom_io(s->se, &io, fd) || journal_new(&fs->handover->journal, s->loops_wanted, &fs->journal)) {
		session_free(s);
		return -EIO;
	}
	transport_prepare(s);
	*ret_session = s;
	return 0;
}

int session_take_over(struct session *s)
{
	const struct out_header resend = { .len = sizeof(resend), .error = NOTIFY_RESEND };
	struct handover *h = s->fs->handover;
	struct journal *j = s->fs->journal;

	s->fs->handshake.is_replay = true;
	s->fs->handshake.replay_agreed = atomic_load(&h->agreed);
	process(s, h->init, atomic_load(&h->init_len));
	if (journal_is_complete(&h->journal)) {
		unsigned count = journal_replay(j, s->fd, process, s);

		log_info("%u requests were not answered yet", count);
		return 0;
	}
	journal_forget(j);
	return write(s->fd, &resend, sizeof(resend)) == (ssize_t)sizeof(resend) ? 0 : -errno;
}

int session_start(struct session *s)
{
	while (s->loop_count < s->loops_wanted) {
		struct loop *loop = &s->loop[s->loop_count];
		int rc;

		loop->session = s;
		rc = pthread_create(&loop->thread, NULL, loop_thread, loop);
		if (rc)
			return s->loop_count ? 0 : -rc;
		s->loop_count++;
	}
	return 0;
}

void session_wait(struct session *s)
{
	for (unsigned i = 0; i < s->loop_count; i++)
		pthread_join(s->loop[i].thread, NULL);
	s->loop_count = 0;
	uring_stop(s->fs->uring);
}

void session_stop(struct session *s)
{
	fuse_session_exit(s->se);
}

int session_store(struct session *s, uint64_t ino, const void *buf, size_t len)
{
	struct fuse_bufvec bufv = FUSE_BUFVEC_INIT(len);

	bufv.buf[0].mem = (void *)(uintptr_t)buf;   /* only read from */
	return fuse_lowlevel_notify_store(s->se, ino, 0, &bufv, 0);
}

int session_expire(struct session *s, uint64_t parent, const char *name)
{
	return fuse_lowlevel_notify_inval_entry(s->se, parent, name, strlen(name));
}

void session_free(struct session *s)
{
	if (!s)
		return;
	uring_stop(s->fs->uring);
	uring_free(s->fs->uring);
	s->fs->uring = NULL;
	if (s->se)
		fuse_session_destroy(s->se);
	journal_free(s->fs->journal);
	s->fs->journal = NULL;
	free(s);
}

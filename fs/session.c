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

struct session {
	struct fs *fs;                /* not owned */
	struct fuse_session *se;
	int fd;
	pthread_t loop[LOOPS_MAX];
	unsigned loop_count;
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

static ssize_t session_writev(int fd, struct iovec *iov, int count, void *userdata)
{
	struct fs *fs = userdata;
	ssize_t n;

	if (uring_reply(fs->uring, iov, count, &n))
		return n;
	if (!handshake_is_reply(&fs->handshake, iov, count))
		return writev(fd, iov, count);
	n = handshake_reply(&fs->handshake, fd, iov, count);
	fs_ready(fs, fd);
	transport_ready(fs, fd);
	return n;
}

/* A whole header was read, or it is not a request. */
static uint32_t opcode_of(const char *request)
{
	struct in_header in;

	memcpy(&in, request, sizeof(in));
	return in.opcode;
}

static void *loop_thread(void *arg)
{
	struct session *s = arg;
	char *mem = malloc(BUFFER_BYTES);

	pthread_setname_np(pthread_self(), "loop");
	while (mem && !fuse_session_exited(s->se)) {
		struct fuse_buf buf = { .mem = mem };
		ssize_t n = read(s->fd, mem, BUFFER_BYTES);

		if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
			continue;   /* ENOENT: the request was interrupted before it was read */
		if (n <= 0) {
			if (errno != ENODEV)
				log_error("/dev/fuse: %m");
			break;
		}
		buf.size = (size_t)n;
		stats_inc(s->fs->stats, STAT_MESSAGES);
		if (uring_is_on(s->fs->uring) && opcode_of(mem) == OPCODE_INTERRUPT && !uring_interrupt(s->fs->uring, mem, (size_t)n))
			continue;   /* it came too late, and needs no answer */
		handshake_request(&s->fs->handshake, mem, (size_t)n);
		fuse_session_process_buf(s->se, &buf);
	}
	free(mem);
	return NULL;
}

int session_new(struct fs *fs, int fd, bool debug, struct session **ret_session)
{
	const struct fuse_custom_io io = { .read = session_read, .writev = session_writev };
	struct session *s = calloc(1, sizeof(*s));
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);

	if (!s)
		return -ENOMEM;
	fuse_opt_add_arg(&args, "hopperfs");
	if (debug)
		fuse_opt_add_arg(&args, "-d");
	s->fs = fs;
	s->fd = fd;
	s->se = fuse_session_new(&args, &fs_ops, sizeof(fs_ops), fs);
	fuse_opt_free_args(&args);
	if (!s->se || fuse_session_custom_io(s->se, &io, fd)) {
		session_free(s);
		return -EIO;
	}
	transport_prepare(s);
	*ret_session = s;
	return 0;
}

int session_start(struct session *s)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned want = cpus < LOOPS_MIN ? LOOPS_MIN : cpus > LOOPS_MAX ? LOOPS_MAX : (unsigned)cpus;

	while (s->loop_count < want) {
		int rc = pthread_create(&s->loop[s->loop_count], NULL, loop_thread, s);

		if (rc)
			return s->loop_count ? 0 : -rc;
		s->loop_count++;
	}
	return 0;
}

void session_wait(struct session *s)
{
	for (unsigned i = 0; i < s->loop_count; i++)
		pthread_join(s->loop[i], NULL);
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
	free(s);
}

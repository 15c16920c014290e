/* SPDX-License-Identifier: Apache-2.0 */
/*
 * diskread FILE BYTES COUNT: how extents are best read from the cache's disk, measured where that matters.
 *
 * COUNT reads of BYTES at random places of FILE, four in flight, through io_uring: buffered, buffered and dropped from the
 * page cache behind, O_DIRECT, and O_DIRECT into registered buffers. Prints for each the throughput and the processor time
 * a GiB took. Drop the page cache before (drop_caches), or the first two tell nothing of the disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DEPTH = 4, ALIGNMENT = 4096 };
enum mode { BUFFERED, DROPPED, DIRECT, FIXED, MODES };

static const char *const mode_name[] = { "buffered", "buffered, dropped", "O_DIRECT", "O_DIRECT, registered" };

static void die(const char *what)
{
	fprintf(stderr, "diskread: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double seconds(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators". */
static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

struct job {
	struct io_uring ring;
	struct iovec buf[DEPTH];
	int fd;
	size_t bytes;
	uint64_t places, at[DEPTH], seed;
	enum mode mode;
};

static void submit(struct job *j, unsigned i)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&j->ring);

	j->at[i] = random_next(&j->seed) % j->places * ALIGNMENT;
	if (j->mode == FIXED)
		io_uring_prep_read_fixed(sqe, j->fd, j->buf[i].iov_base, (unsigned)j->bytes, j->at[i], (int)i);
	else
		io_uring_prep_read(sqe, j->fd, j->buf[i].iov_base, (unsigned)j->bytes, j->at[i]);
	io_uring_sqe_set_data(sqe, (void *)(uintptr_t)i);
	io_uring_submit(&j->ring);
}

static void run(struct job *j, unsigned count)
{
	unsigned submitted = 0;

	for (; submitted < DEPTH && submitted < count; submitted++)
		submit(j, submitted);
	for (unsigned done = 0; done < count; done++) {
		struct io_uring_cqe *cqe;
		unsigned i;

		if (io_uring_wait_cqe(&j->ring, &cqe) || cqe->res != (int)j->bytes)
			die("read");
		i = (unsigned)(uintptr_t)io_uring_cqe_get_data(cqe);
		io_uring_cqe_seen(&j->ring, cqe);
		if (j->mode == DROPPED)
			posix_fadvise(j->fd, (off_t)j->at[i], (off_t)j->bytes, POSIX_FADV_DONTNEED);
		if (submitted++ < count)
			submit(j, i);
	}
}

static void measure(const char *path, size_t bytes, unsigned count, enum mode mode, struct iovec *buf)
{
	struct job j = { .bytes = bytes, .mode = mode, .seed = (uint64_t)mode + 1 };
	double began, used;
	struct stat st;

	j.fd = open(path, O_RDONLY | (mode >= DIRECT ? O_DIRECT : 0));
	if (j.fd < 0 || fstat(j.fd, &st) || (size_t)st.st_size < bytes + ALIGNMENT)
		die(path);
	posix_fadvise(j.fd, 0, 0, POSIX_FADV_RANDOM);
	j.places = ((uint64_t)st.st_size - bytes) / ALIGNMENT;
	memcpy(j.buf, buf, sizeof(j.buf));
	errno = -io_uring_queue_init(DEPTH, &j.ring, 0);
	if (errno)
		die("io_uring");
	if (mode == FIXED && io_uring_register_buffers(&j.ring, buf, DEPTH))
		die("registered buffers");
	began = seconds(CLOCK_MONOTONIC);
	used = seconds(CLOCK_PROCESS_CPUTIME_ID);
	run(&j, count);
	began = seconds(CLOCK_MONOTONIC) - began;
	used = seconds(CLOCK_PROCESS_CPUTIME_ID) - used;
	printf("%-22s %8zu bytes  %8.1f MB/s  %6.3f CPU s/GiB\n", mode_name[mode], bytes, (double)bytes * count / began / 1e6,
	       used / ((double)bytes * count) * (1 << 30));
	io_uring_queue_exit(&j.ring);
	close(j.fd);
}

int main(int argc, char **argv)
{
	size_t bytes = argc == 4 ? strtoul(argv[2], NULL, 10) / ALIGNMENT * ALIGNMENT : 0;
	unsigned count = argc == 4 ? (unsigned)strtoul(argv[3], NULL, 10) : 0;
	struct iovec buf[DEPTH];

	if (!bytes || !count) {
		fprintf(stderr, "usage: diskread FILE BYTES COUNT\n");
		return 2;
	}
	for (unsigned i = 0; i < DEPTH; i++) {
		buf[i] = (struct iovec){ aligned_alloc(1 << 21, (bytes + (1 << 21) - 1) >> 21 << 21), bytes };
		if (!buf[i].iov_base)
			die("memory");
		memset(buf[i].iov_base, 1, bytes);
	}
	for (enum mode mode = BUFFERED; mode < MODES; mode++)
		measure(argv[1], bytes, count, mode, buf);
	return 0;
}

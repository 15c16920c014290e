/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reader WHAT PATH [--threads N] [--seed N] [--block BYTES] [--count N]
 *
 *   files   open, fstat, read, close of every file below PATH once, in a shuffle that the threads share
 *   stat    stat of every file below PATH once, likewise
 *   read    PATH from its beginning to its end, in blocks
 *   random  as many blocks of PATH, at random multiples of the block
 *   mmap    PATH mapped, one word of each cache line in turn
 *
 * Prints one JSON object: seconds from the first access to the last, what was done, and the processor time it took here.
 * Paths are collected before the clock starts, which no thread's start is part of either.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <getopt.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_MAX = 256, CACHE_LINE = 64, CHUNK = 16 };

static struct {
	const char *what, *path;
	unsigned threads;
	uint64_t seed, count;
	size_t block;
	uint64_t size;               /* of PATH, where it is a file */
	char **file;
	size_t files, room;
	pthread_barrier_t start;
	_Atomic size_t next;
	_Atomic uint64_t bytes, ops, sum;
} job = { .threads = 1, .seed = 1, .count = 10000, .block = 1 << 20 };

static void die(const char *what)
{
	fprintf(stderr, "reader: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double cpu_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
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

static int found(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)at;
	if (type != FTW_F)
		return 0;
	if (job.files == job.room) {
		job.room = job.room ? 2 * job.room : 4096;
		job.file = realloc(job.file, job.room * sizeof(*job.file));
		if (!job.file)
			die("paths");
	}
	job.file[job.files] = strdup(path);
	return job.file[job.files++] ? 0 : -1;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The same order for the same seed, whatever order the directories list their names in. */
static void collect(void)
{
	uint64_t state = job.seed;

	if (nftw(job.path, found, 64, FTW_PHYS))
		die(job.path);
	qsort(job.file, job.files, sizeof(*job.file), by_name);
	for (size_t i = job.files; i > 1; i--) {
		size_t j = random_next(&state) % i;
		char *t = job.file[i - 1];

		job.file[i - 1] = job.file[j];
		job.file[j] = t;
	}
}

static uint64_t read_file(const char *path, char **buf, size_t *room)
{
	int fd = open(path, O_RDONLY);
	struct stat st;
	uint64_t have = 0;

	if (fd < 0 || fstat(fd, &st))
		die(path);
	if ((size_t)st.st_size > *room) {
		free(*buf);
		*room = (size_t)st.st_size;
		*buf = malloc(*room);
		if (!*buf)
			die(path);
	}
	while (have < (uint64_t)st.st_size) {
		ssize_t n = read(fd, *buf + have, (size_t)st.st_size - have);

		if (n <= 0)
			die(path);
		have += (uint64_t)n;
	}
	close(fd);
	return have;
}

static void visit_files(void)
{
	int is_stat = !strcmp(job.what, "stat");
	char *buf = NULL;
	size_t room = 0, i;

	while ((i = atomic_fetch_add(&job.next, CHUNK)) < job.files) {
		size_t end = i + CHUNK < job.files ? i + CHUNK : job.files;
		uint64_t bytes = 0, ops = end - i;
		struct stat st;

		for (; i < end; i++) {
			if (!is_stat)
				bytes += read_file(job.file[i], &buf, &room);
			else if (stat(job.file[i], &st))
				die(job.file[i]);
		}
		atomic_fetch_add(&job.bytes, bytes);
		atomic_fetch_add(&job.ops, ops);
	}
	free(buf);
}

static void read_blocks(int fd, uint64_t seed)
{
	uint64_t blocks = job.size / job.block, bytes = 0, ops = 0;
	int is_random = !strcmp(job.what, "random");
	char *buf = malloc(job.block);
	ssize_t n = 1;

	if (!buf || !blocks)
		die(job.path);
	for (; is_random ? ops < job.count / job.threads : n > 0; ops++) {
		n = is_random ? pread(fd, buf, job.block, (off_t)(random_next(&seed) % blocks * job.block)) : read(fd, buf, job.block);
		if (n < 0)
			die(job.path);
		bytes += (uint64_t)n;
	}
	atomic_fetch_add(&job.bytes, bytes);
	atomic_fetch_add(&job.ops, ops);
	free(buf);
}

static void read_mapped(int fd)
{
	const uint64_t *map = mmap(NULL, job.size, PROT_READ, MAP_SHARED, fd, 0);
	uint64_t sum = 0;

	if (map == MAP_FAILED)
		die(job.path);
	for (uint64_t i = 0; i < job.size / sizeof(*map); i += CACHE_LINE / sizeof(*map))
		sum += map[i];
	atomic_fetch_add(&job.sum, sum);
	atomic_fetch_add(&job.bytes, job.size);
	atomic_fetch_add(&job.ops, 1);
	munmap((void *)(uintptr_t)map, job.size);
}

static void *work(void *arg)
{
	uint64_t me = (uint64_t)(uintptr_t)arg;
	int fd;

	pthread_barrier_wait(&job.start);
	if (job.files) {
		visit_files();
		return NULL;
	}
	fd = open(job.path, O_RDONLY);
	if (fd < 0)
		die(job.path);
	if (!strcmp(job.what, "mmap"))
		read_mapped(fd);
	else
		read_blocks(fd, job.seed * THREADS_MAX + me);
	close(fd);
	return NULL;
}

static void run(void)
{
	pthread_t thread[THREADS_MAX];
	double began, used;

	pthread_barrier_init(&job.start, NULL, job.threads + 1);
	for (unsigned i = 0; i < job.threads; i++) {
		errno = pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)i);
		if (errno)
			die("thread");
	}
	used = cpu_s();
	began = now_s();
	pthread_barrier_wait(&job.start);
	for (unsigned i = 0; i < job.threads; i++)
		pthread_join(thread[i], NULL);
	printf("{\"seconds\": %.6f, \"cpu_s\": %.6f, \"ops\": %llu, \"bytes\": %llu}\n", now_s() - began, cpu_s() - used,
	       (unsigned long long)atomic_load(&job.ops), (unsigned long long)atomic_load(&job.bytes));
}

static const struct option options[] = {
	{ "threads", 1, NULL, 't' }, { "seed", 1, NULL, 's' }, { "block", 1, NULL, 'b' }, { "count", 1, NULL, 'c' }, { NULL, 0, NULL, 0 },
};

int main(int argc, char **argv)
{
	struct stat st;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		uint64_t number = optarg ? strtoull(optarg, NULL, 10) : 0;

		switch (c) {
		case 't': job.threads = (unsigned)number; break;
		case 's': job.seed = number; break;
		case 'b': job.block = number; break;
		case 'c': job.count = number; break;
		default: return 2;
		}
	}
	if (argc != optind + 2 || !job.threads || job.threads > THREADS_MAX || !job.block) {
		fprintf(stderr, "reader: give files, stat, read, random or mmap, a path, and numbers greater than zero\n");
		return 2;
	}
	job.what = argv[optind];
	job.path = argv[optind + 1];
	if (stat(job.path, &st))
		die(job.path);
	job.size = (uint64_t)st.st_size;
	if (!strcmp(job.what, "files") || !strcmp(job.what, "stat"))
		collect();
	run();
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A data loader and its consumer, without the accelerator.
 *
 *   epoch --make DIR  --files N --size BYTES --dirs N
 *   epoch --read DIR  --epochs N [--workers N] [--batch N] [--ahead N]
 *         [--compute-us N] [--seed N] [--verify] [--drop] [--stats MOUNT]
 *
 * Each epoch forks the workers, as a loader without persistent workers does.
 * Batch b belongs to worker b % workers; a worker reads the files of a batch one after the other
 * (open, fstat, read to the end, close) and runs at most --ahead batches in
 * front of the consumer. The consumer takes the batches in order and
 * sleeps --compute-us for each sample; what it waits for a batch is the stall.
 * With --drop a worker drops each file's pages once read, as a data set larger
 * than memory would: what a later epoch finds is the cache's, not the kernel's.
 * A file's content is a function of its number, so that --verify needs no
 * second copy: every file is checksummed as it is read.
 *
 * Prints one JSON object per epoch; with --stats also what the mount's
 * counters say of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

enum { MAX_WORKERS = 64, STATS_BYTES = 1 << 16 };

struct config {
	const char *make, *read, *stats;
	uint32_t files, dirs, epochs, workers, batch, ahead, compute_us;
	uint64_t seed;
	size_t size;
	bool verify, drop;
};

/* Shared between the consumer and its workers. */
struct shared {
	sem_t room[MAX_WORKERS];       /* batches the worker may still begin */
	_Atomic uint32_t wrong_files, errors;
	sem_t ready[];                 /* one per batch */
};

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
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

static void file_name(const struct config *cfg, const char *root, uint32_t i, char *buf, size_t size)
{
	snprintf(buf, size, "%s/class%03u/img%06u.bin", root, i % cfg->dirs, i);
}

static void file_content(uint32_t i, uint8_t *buf, size_t size)
{
	uint64_t state = (uint64_t)i << 32 | 0x5eed;

	for (size_t at = 0; at < size; at += 8) {
		uint64_t word = random_next(&state);

		memcpy(buf + at, &word, size - at < 8 ? size - at : 8);
	}
}

static int make_file(const struct config *cfg, uint32_t i, uint8_t *buf)
{
	char path[4096];
	int fd, rc = 0;

	file_name(cfg, cfg->make, i, path, sizeof(path));
	file_content(i, buf, cfg->size);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
	if (fd < 0)
		return -errno;
	if (write(fd, buf, cfg->size) != (ssize_t)cfg->size)
		rc = -EIO;
	close(fd);
	return rc;
}

static int make_all(const struct config *cfg)
{
	uint8_t *buf = malloc(cfg->size);
	int rc = buf ? 0 : -ENOMEM;

	if (mkdir(cfg->make, 0755) && errno != EEXIST)
		rc = -errno;
	for (uint32_t d = 0; d < cfg->dirs && !rc; d++) {
		char path[4096];

		snprintf(path, sizeof(path), "%s/class%03u", cfg->make, d);
		if (mkdir(path, 0755) && errno != EEXIST)
			rc = -errno;
	}
	for (uint32_t i = 0; i < cfg->files && !rc; i++)
		rc = make_file(cfg, i, buf);
	free(buf);
	if (rc)
		fprintf(stderr, "epoch: %s: %s\n", cfg->make, strerror(-rc));
	return rc ? 1 : 0;
}

static void shuffle(uint32_t *order, uint32_t n, uint64_t seed)
{
	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	for (uint32_t i = n; i > 1; i--) {
		uint32_t j = (uint32_t)(random_next(&seed) % i), t = order[i - 1];

		order[i - 1] = order[j];
		order[j] = t;
	}
}

static void read_sample(const struct config *cfg, struct shared *sh, uint32_t i,
			const uint64_t *sums, uint8_t *buf)
{
	char path[4096];
	struct stat st;
	size_t have = 0;
	ssize_t n = -1;
	int fd;

	file_name(cfg, cfg->read, i, path, sizeof(path));
	fd = open(path, O_RDONLY);
	if (fd >= 0 && !fstat(fd, &st) && (size_t)st.st_size == cfg->size) {
		while ((n = read(fd, buf + have, cfg->size + 1 - have)) > 0)
			have += (size_t)n;
	}
	if (fd >= 0 && cfg->drop)
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	if (fd >= 0)
		close(fd);
	if (n != 0)
		atomic_fetch_add(&sh->errors, 1);
	else if (have != cfg->size || (sums && XXH3_64bits(buf, have) != sums[i]))
		atomic_fetch_add(&sh->wrong_files, 1);
}

static void worker(const struct config *cfg, struct shared *sh, uint32_t me, const uint32_t *order,
		   const uint64_t *sums)
{
	uint32_t batches = (cfg->files + cfg->batch - 1) / cfg->batch;
	uint8_t *buf = malloc(cfg->size + 1);

	if (!buf)
		_exit(1);
	for (uint32_t b = me; b < batches; b += cfg->workers) {
		while (sem_wait(&sh->room[me]) && errno == EINTR)
			;
		for (uint32_t i = b * cfg->batch; i < (b + 1) * cfg->batch && i < cfg->files; i++)
			read_sample(cfg, sh, order[i], sums, buf);
		sem_post(&sh->ready[b]);
	}
	_exit(0);
}

struct timing {
	double total_s, stall_s, first_s;
};

static void consume(const struct config *cfg, struct shared *sh, struct timing *t)
{
	uint32_t batches = (cfg->files + cfg->batch - 1) / cfg->batch;
	double start = now_s();

	for (uint32_t b = 0; b < batches; b++) {
		uint32_t left = cfg->files - b * cfg->batch;
		uint64_t ns = (uint64_t)(left < cfg->batch ? left : cfg->batch) * cfg->compute_us * 1000;
		struct timespec ts = { (time_t)(ns / 1000000000), (long)(ns % 1000000000) };
		double asked = now_s();

		while (sem_wait(&sh->ready[b]) && errno == EINTR)
			;
		t->stall_s += now_s() - asked;
		if (b == 0)
			t->first_s = now_s() - start;
		sem_post(&sh->room[b % cfg->workers]);
		clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
	}
	t->total_s = now_s() - start;
}

/* The number behind "key" inside the object "section" of the mount's statistics. */
static double stat_of(const char *json, const char *section, const char *key)
{
	char quoted[64];
	const char *at;

	snprintf(quoted, sizeof(quoted), "\"%s\":", section);
	at = strstr(json, quoted);
	snprintf(quoted, sizeof(quoted), "\"%s\":", key);
	at = at ? strstr(at, quoted) : NULL;
	return at ? strtod(at + strlen(quoted), NULL) : 0;
}

static void stats_get(const struct config *cfg, char *buf)
{
	ssize_t n = cfg->stats ? getxattr(cfg->stats, "user.hopper.stats", buf, STATS_BYTES - 1) : 0;

	buf[n > 0 ? n : 0] = 0;
}

static void report(const struct config *cfg, uint32_t e, const struct timing *t, struct shared *sh,
		   const char *before, const char *after)
{
#define DELTA(section, key) (stat_of(after, section, key) - stat_of(before, section, key))
	printf("{\"epoch\": %u, \"seconds\": %.3f, \"compute_s\": %.3f, \"stall_s\": %.3f, \"first_batch_s\": %.3f, "
	       "\"wrong_files\": %u, \"errors\": %u",
	       e, t->total_s, (double)cfg->files * cfg->compute_us / 1e6, t->stall_s, t->first_s,
	       atomic_load(&sh->wrong_files), atomic_load(&sh->errors));
	if (cfg->stats) {
		/* An extent counts as served if no reader had to wait for the origin. */
		double waited = DELTA("reads", "missed") + DELTA("reads", "joined");

		printf(", \"served\": %.4f, \"missed\": %.0f, \"joined\": %.0f, \"hit_ram\": %.0f, \"hit_disk\": %.0f"
		       ", \"origin_requests\": %.0f, \"origin_bytes\": %.0f, \"evict_unread\": %.0f, \"wasted_bytes\": %.0f",
		       1 - waited / cfg->files, DELTA("reads", "missed"), DELTA("reads", "joined"),
		       DELTA("reads", "hit_ram"), DELTA("reads", "hit_disk"), DELTA("origin", "requests"),
		       DELTA("origin", "bytes"), DELTA("evict", "unread"), DELTA("prefetch", "wasted_bytes"));
	}
	printf("}\n");
	fflush(stdout);
#undef DELTA
}

static int run_epoch(const struct config *cfg, uint32_t e, struct shared *sh, uint32_t *order,
		     const uint64_t *sums)
{
	static char before[STATS_BYTES], after[STATS_BYTES];
	uint32_t batches = (cfg->files + cfg->batch - 1) / cfg->batch;
	struct timing t = { 0 };
	bool failed = false;

	atomic_store(&sh->wrong_files, 0);
	atomic_store(&sh->errors, 0);
	for (uint32_t b = 0; b < batches; b++)
		sem_init(&sh->ready[b], 1, 0);
	shuffle(order, cfg->files, cfg->seed + e);
	stats_get(cfg, before);
	for (uint32_t w = 0; w < cfg->workers; w++) {
		pid_t pid;

		sem_init(&sh->room[w], 1, cfg->ahead);
		pid = fork();
		if (pid == 0)
			worker(cfg, sh, w, order, sums);
		if (pid < 0)
			exit(1);
	}
	consume(cfg, sh, &t);
	for (int status; wait(&status) > 0;)
		failed |= status != 0;
	stats_get(cfg, after);
	report(cfg, e, &t, sh, before, after);
	return failed || atomic_load(&sh->wrong_files) || atomic_load(&sh->errors);
}

static int read_all(struct config *cfg)
{
	uint32_t *order = calloc(cfg->files, sizeof(*order));
	uint64_t *sums = cfg->verify ? calloc(cfg->files, sizeof(*sums)) : NULL;
	size_t bytes = sizeof(struct shared) + (cfg->files / cfg->batch + 1) * sizeof(sem_t);
	struct shared *sh = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint8_t *buf = malloc(cfg->size);
	int failed = 0;

	if (!order || !buf || sh == MAP_FAILED || (cfg->verify && !sums))
		return 1;
	for (uint32_t i = 0; sums && i < cfg->files; i++) {
		file_content(i, buf, cfg->size);
		sums[i] = XXH3_64bits(buf, cfg->size);
	}
	for (uint32_t e = 0; e < cfg->epochs; e++)
		failed |= run_epoch(cfg, e, sh, order, sums);
	munmap(sh, bytes);
	free(order);
	free(sums);
	free(buf);
	return failed;
}

/* What a data set was made with is kept beside it. */
static int describe(struct config *cfg, const char *root, const char *mode)
{
	char path[4096];
	FILE *f;
	int ok;

	snprintf(path, sizeof(path), "%s/dataset.txt", root);
	f = fopen(path, mode);
	if (!f) {
		perror(path);
		return 1;
	}
	if (*mode == 'w')
		ok = fprintf(f, "%u %zu %u\n", cfg->files, cfg->size, cfg->dirs) > 0;
	else
		ok = fscanf(f, "%u %zu %u", &cfg->files, &cfg->size, &cfg->dirs) == 3;
	fclose(f);
	return ok ? 0 : 1;
}

static const struct option options[] = {
	{ "make", 1, NULL, 'm' },    { "read", 1, NULL, 'r' },   { "stats", 1, NULL, 's' },
	{ "files", 1, NULL, 'f' },   { "dirs", 1, NULL, 'd' },   { "epochs", 1, NULL, 'e' },
	{ "workers", 1, NULL, 'w' }, { "batch", 1, NULL, 'b' },  { "ahead", 1, NULL, 'a' },
	{ "seed", 1, NULL, 'x' },    { "size", 1, NULL, 'z' },   { "compute-us", 1, NULL, 'c' },
	{ "verify", 0, NULL, 'v' },  { "drop", 0, NULL, 'p' },
	{ NULL, 0, NULL, 0 },
};

int main(int argc, char **argv)
{
	struct config cfg = { .files = 3000, .dirs = 10, .epochs = 3, .workers = 4, .batch = 32,
			      .ahead = 2, .compute_us = 1000, .seed = 1, .size = 112640 };
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		uint32_t number = optarg ? (uint32_t)strtoul(optarg, NULL, 10) : 0;

		switch (c) {
		case 'm': cfg.make = optarg; break;
		case 'r': cfg.read = optarg; break;
		case 's': cfg.stats = optarg; break;
		case 'f': cfg.files = number; break;
		case 'd': cfg.dirs = number; break;
		case 'e': cfg.epochs = number; break;
		case 'w': cfg.workers = number; break;
		case 'b': cfg.batch = number; break;
		case 'a': cfg.ahead = number; break;
		case 'x': cfg.seed = number; break;
		case 'z': cfg.size = number; break;
		case 'c': cfg.compute_us = number; break;
		case 'v': cfg.verify = true; break;
		case 'p': cfg.drop = true; break;
		default: return 2;
		}
	}
	if (!cfg.make == !cfg.read || !cfg.files || !cfg.dirs || !cfg.batch || !cfg.workers ||
	    cfg.workers > MAX_WORKERS || !cfg.ahead || !cfg.size) {
		fprintf(stderr, "epoch: give --make DIR or --read DIR, and numbers greater than zero\n");
		return 2;
	}
	if (cfg.make)
		return make_all(&cfg) || describe(&cfg, cfg.make, "w");
	return describe(&cfg, cfg.read, "r") || read_all(&cfg);
}

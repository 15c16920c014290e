/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's requests, without a kernel: a whole daemon in memory over a small tree, asked in any order for anything
 * about any node, open or not. The frame of a message is the kernel's and right; what it says is the input's.
 * Each request is answered exactly once, with an errno that is one.
 */
#include <errno.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "fs/fs.h"
#include "fs/wire.h"
#include "lib/locator.h"
#include "lib/topology.h"
#include "tests/fuzz/fuzz.h"

enum { REQUESTS = 48, MESSAGE_BYTES = 8192, ANSWER_S = 60, NAMES = 10 };

static struct fs fs;
static struct handover *handover;
static struct fuse_session *session;

/* ---- answers ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static uint64_t first_unique, next_unique = 1;   /* of this input */
static uint8_t answers[REQUESTS];                /* by unique - first_unique */
static bool needs_none[REQUESTS];
static unsigned waiting;

static ssize_t answer(int fd, struct iovec *iov, int count, void *userdata)
{
	struct out_header out;
	ssize_t n = 0;

	(void)fd;
	(void)userdata;
	for (int i = 0; i < count; i++)
		n += (ssize_t)iov[i].iov_len;
	MUST(count > 0 && iov[0].iov_len >= sizeof(out));
	memcpy(&out, iov[0].iov_base, sizeof(out));
	MUST(out.len == (uint64_t)n && out.error <= 0 && out.error > -4096);
	pthread_mutex_lock(&mutex);
	if (out.unique >= first_unique && out.unique < next_unique) {
		MUST(!answers[out.unique - first_unique]++);
		waiting -= !needs_none[out.unique - first_unique];
		pthread_cond_signal(&answered);
	} else {
		MUST(!out.unique || out.error == -EAGAIN);   /* a notification, or libfuse about an interrupt of an earlier input */
	}
	pthread_mutex_unlock(&mutex);
	return n;
}

static ssize_t no_read(int fd, void *buf, size_t size, void *userdata)
{
	(void)fd;
	(void)buf;
	(void)size;
	(void)userdata;
	return 0;
}

/* ---- the daemon ---- */

static void tree_make(void)
{
	char *large = calloc(1, 3 << 20), name[64];

	MUST(large);
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "o/d%d/f%d", i % 3, i);
		fuzz_file(name, large, (size_t)i * 1000);
	}
	fuzz_file("o/large", large, 3 << 20);
	fuzz_file("o/empty", large, 0);
	MUST(!symlink("d0/f0", fuzz_path("o/link")) && !mkfifo(fuzz_path("o/fifo"), 0600));
	free(large);
}

static void cache_make(struct stats *stats)
{
	static const char *dirs[1];
	static struct topology *topology;
	struct cache_config cfg = { .dirs = dirs, .dir_count = 1, .identity = "fuzz", .ram_bytes = 16 << 20, .size_bytes = 64 << 20,
				    .timeout_ns = 60000000000ULL, .ns = { .meta_ttl_ns = 3600000000000ULL, .check_data_on_open = true } };
	struct prefetch_config prefetch = { .mode = PREFETCH_AUTO, .recognise = true };
	struct origin *origin;
	char msg[512] = "";

	topology = topology_new(&(struct topology_source){ 0 }, true);
	MUST(topology && (fs.locator = locator_new(topology)));
	dirs[0] = strdup(fuzz_path("c"));
	cfg.topology = topology;
	MUST(!origin_open(fuzz_path("o"), stats, &origin, msg, sizeof(msg)));
	MUST(!cache_open(&cfg, origin, stats, &fs.cache, msg, sizeof(msg)));
	MUST(!prefetch_start(&prefetch, fs.cache, stats, &fs.prefetch));
}

static void send_message(void *message, size_t len);

static void start(void)
{
	static const struct fuse_custom_io io = { .read = no_read, .writev = answer };
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	int memory_fd;
	struct {
		struct in_header head;
		struct fuse_init_in in;
	} init = { .head = { .len = sizeof(init), .opcode = FUSE_INIT }, .in = { .major = 7, .minor = 38, .max_readahead = 1 << 17,
			     .flags = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES } };

	log_set_level(LOG_LEVEL_ERROR);
	MUST(!stats_new(&fs.stats));
	tree_make();
	cache_make(fs.stats);
	fs.ns = cache_ns(fs.cache);
	fs.config_text = "origin=fuzz\n";
	fs.open = OPEN_DAEMON;
	fs.mountpoint = "/nowhere";
	MUST((handover = handover_new(&memory_fd)));
	fs.handover = handover;
	MUST(!pool_new("meta", 4, &fs.pool) && !passthrough_new(fs.cache, &handover->opens, &fs.passthrough));
	MUST(!waits_new(60000000000ULL, fs.stats, &fs.waits));
	fuse_opt_add_arg(&args, "fuzz");
	session = fuse_session_new(&args, &fs_ops, sizeof(fs_ops), &fs);
	fuse_opt_free_args(&args);
	MUST(session && !fuse_session_custom_io(session, &io, STDIN_FILENO));
	first_unique = next_unique;
	waiting = 1;
	init.head.unique = next_unique++;
	send_message(&init, sizeof(init));
}

/* ---- requests ---- */

static void send_message(void *message, size_t len)
{
	struct fuse_buf buf = { .mem = message, .size = len };

	fuse_session_process_buf(session, &buf);
}

struct message {
	struct in_header head;
	char body[MESSAGE_BYTES];
	size_t len;                  /* of the body */
};

static void add(struct message *m, const void *data, size_t len)
{
	MUST(m->len + len <= sizeof(m->body));
	memcpy(m->body + m->len, data, len);
	m->len += len;
}

static void add_name(struct message *m, struct input *in)
{
	static const char *const names[NAMES] = { "d0", "f0", "f3", "large", "empty", "link", "fifo", "absent", "..", "." };
	uint8_t which = take_u8(in);
	char *name = which < 128 ? strdup(names[which % NAMES]) : take_string(in, 1024);

	MUST(name);
	add(m, name, strlen(name) + 1);
	free(name);
}

static void add_xattr_name(struct message *m, struct input *in)
{
	static const char *const names[] = { "stats", "openmetrics", "epochs", "config", "plan", "cached", "tier", "node", "residency" };
	uint8_t which = take_u8(in);
	char name[64];

	if (which >= 128) {
		add_name(m, in);
		return;
	}
	snprintf(name, sizeof(name), "user.hopper.%s", names[which % (sizeof(names) / sizeof(*names))]);
	add(m, name, strlen(name) + 1);
}

static uint64_t node_of(struct input *in)
{
	uint8_t which = take_u8(in);

	return which < 240 ? 1u + which % 32 : take_number(in);
}

static void add_read(struct message *m, struct input *in)
{
	struct fuse_read_in r = { .fh = take_u8(in), .offset = take_number(in) & INT64_MAX, .size = (uint32_t)take_uint(in, 3) & 0x1fffff };

	add(m, &r, sizeof(r));
}

static void add_plan(struct message *m, struct input *in)
{
	struct fuse_setxattr_in s = { 0 };
	char *text = take_string(in, 2048);

	s.size = (uint32_t)strlen(text);
	add(m, &s, FUSE_COMPAT_SETXATTR_IN_SIZE);
	add(m, "user.hopper.plan", 17);
	add(m, text, s.size);
	free(text);
}

/* Zeros, then what of them the input says. */
static void add_zeros(struct message *m, struct input *in, size_t len)
{
	char zeros[128] = { 0 };

	MUST(len <= sizeof(zeros));
	if (len)
		zeros[take_u8(in) % len] = (char)take_u8(in);
	add(m, zeros, len);
}

/* Fills in the body for an opcode that the kernel may send. */
static uint32_t compose(struct message *m, struct input *in)
{
	static const struct { uint8_t opcode, bytes, names; } plain[] = {
		{ FUSE_GETATTR, sizeof(struct fuse_getattr_in), 0 }, { FUSE_SETATTR, sizeof(struct fuse_setattr_in), 0 },
		{ FUSE_READLINK, 0, 0 }, { FUSE_SYMLINK, 0, 2 }, { FUSE_MKNOD, sizeof(struct fuse_mknod_in), 1 },
		{ FUSE_MKDIR, sizeof(struct fuse_mkdir_in), 1 }, { FUSE_UNLINK, 0, 1 }, { FUSE_RMDIR, 0, 1 },
		{ FUSE_RENAME, sizeof(struct fuse_rename_in), 2 }, { FUSE_LINK, sizeof(struct fuse_link_in), 1 },
		{ FUSE_OPEN, sizeof(struct fuse_open_in), 0 }, { FUSE_STATFS, 0, 0 }, { FUSE_RELEASE, sizeof(struct fuse_release_in), 0 },
		{ FUSE_FSYNC, sizeof(struct fuse_fsync_in), 0 }, { FUSE_FLUSH, sizeof(struct fuse_flush_in), 0 },
		{ FUSE_OPENDIR, sizeof(struct fuse_open_in), 0 }, { FUSE_RELEASEDIR, sizeof(struct fuse_release_in), 0 },
		{ FUSE_FSYNCDIR, sizeof(struct fuse_fsync_in), 0 }, { FUSE_ACCESS, sizeof(struct fuse_access_in), 0 },
		{ FUSE_CREATE, sizeof(struct fuse_create_in), 1 }, { FUSE_BMAP, sizeof(struct fuse_bmap_in), 0 },
		{ FUSE_FALLOCATE, sizeof(struct fuse_fallocate_in), 0 }, { FUSE_LSEEK, sizeof(struct fuse_lseek_in), 0 },
		{ FUSE_GETLK, sizeof(struct fuse_lk_in), 0 }, { FUSE_RENAME2, sizeof(struct fuse_rename2_in), 2 },
		{ FUSE_POLL, sizeof(struct fuse_poll_in), 0 }, { FUSE_COPY_FILE_RANGE, sizeof(struct fuse_copy_file_range_in), 0 },
		{ FUSE_FORGET, sizeof(struct fuse_forget_in), 0 }, { FUSE_INTERRUPT, sizeof(struct fuse_interrupt_in), 0 },
	};
	uint8_t which = take_u8(in) % 64;
	struct fuse_getxattr_in x = { .size = 0 };

	if (which < sizeof(plain) / sizeof(*plain)) {
		add_zeros(m, in, plain[which].bytes);
		for (unsigned i = 0; i < plain[which].names; i++)
			add_name(m, in);
		return plain[which].opcode;
	}
	switch (which % 6) {
	case 0:
		add_name(m, in);
		return FUSE_LOOKUP;
	case 1:
		add_read(m, in);
		return FUSE_READ;
	case 2:
		add_read(m, in);
		return take_u8(in) & 1 ? FUSE_READDIR : FUSE_READDIRPLUS;
	case 3:
		add_plan(m, in);
		return FUSE_SETXATTR;
	case 4:
		add_xattr_name(m, in);
		return FUSE_REMOVEXATTR;
	default:
		x.size = (uint32_t)take_uint(in, 2);
		add(m, &x, sizeof(x));
		if (take_u8(in) & 7) {
			add_xattr_name(m, in);
			return FUSE_GETXATTR;
		}
		return FUSE_LISTXATTR;
	}
}

static void ask(struct input *in)
{
	struct message *m = calloc(1, sizeof(*m));
	uint32_t opcode;
	char *exact;

	MUST(m);
	opcode = compose(m, in);
	m->head = (struct in_header){ .len = (uint32_t)(sizeof(m->head) + m->len), .opcode = opcode, .nodeid = node_of(in),
				      .uid = take_u8(in) & 1 ? 65534 : 0, .pid = (uint32_t)getpid() };
	pthread_mutex_lock(&mutex);
	m->head.unique = next_unique++;
	/* libfuse may ask for an interrupt to be sent again */
	needs_none[m->head.unique - first_unique] = opcode == FUSE_FORGET || opcode == FUSE_INTERRUPT;
	waiting += !needs_none[m->head.unique - first_unique];
	if (opcode == FUSE_INTERRUPT) {
		uint64_t target = first_unique + (uint64_t)m->body[0] % REQUESTS;

		memcpy(m->body, &target, sizeof(target));
	}
	pthread_mutex_unlock(&mutex);
	exact = malloc(m->head.len);   /* so that a sanitizer sees a read past its end */
	MUST(exact);
	memcpy(exact, m, m->head.len);
	send_message(exact, m->head.len);
	free(exact);
	free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = input_of(data, size);
	struct timespec until;

	if (!session)
		start();
	pthread_mutex_lock(&mutex);
	first_unique = next_unique;
	memset(answers, 0, sizeof(answers));
	memset(needs_none, 0, sizeof(needs_none));
	pthread_mutex_unlock(&mutex);
	for (unsigned i = 0; i < REQUESTS && input_left(&in); i++)
		ask(&in);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ANSWER_S;
	pthread_mutex_lock(&mutex);
	while (waiting)
		MUST(!pthread_cond_timedwait(&answered, &mutex, &until));
	pthread_mutex_unlock(&mutex);
	return 0;
}

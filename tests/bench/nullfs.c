/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nullfs MOUNTPOINT FILES BYTES [--enosys] [--clone] [--threads N]: the least that FUSE can cost.
 *
 * FILES files of BYTES zeros in ten directories, served from memory in the foreground without a look-up of anything, names
 * and attributes for an hour. Beside it in one run, what hopperfs adds to the kernel's part is seen; with --enosys no
 * opens are sent, as with open=pagecache; with --clone each thread has a device descriptor of its own.
 */
#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fuse_lowlevel.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { DIRS = 10, FIRST_DIR = 2, FIRST_FILE = FIRST_DIR + DIRS, HOUR_S = 3600 };

static struct {
	unsigned long files, bytes;
	int has_no_opens;
	char *zeros;
} null;

static int fill_stat(fuse_ino_t ino, struct stat *st)
{
	int is_file = ino >= FIRST_FILE;

	if (ino >= FIRST_FILE + null.files)
		return -1;
	*st = (struct stat){ .st_ino = ino, .st_mode = is_file ? S_IFREG | 0444 : S_IFDIR | 0555, .st_nlink = is_file ? 1 : 2,
			     .st_size = is_file ? (off_t)null.bytes : 0 };
	return 0;
}

static int fill_entry(fuse_ino_t ino, struct fuse_entry_param *e)
{
	*e = (struct fuse_entry_param){ .ino = ino, .attr_timeout = HOUR_S, .entry_timeout = HOUR_S };
	return fill_stat(ino, &e->attr);
}

/* class3 of the root, img42 of the rest; a name that is not below @parent is nobody's. */
static void null_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param e;
	unsigned long n;
	fuse_ino_t ino = 0;

	if (parent == FUSE_ROOT_ID && sscanf(name, "class%lu", &n) == 1 && n < DIRS)
		ino = FIRST_DIR + n;
	else if (sscanf(name, "img%lu", &n) == 1 && n < null.files && n % DIRS == parent - FIRST_DIR)
		ino = FIRST_FILE + n;
	if (!ino || fill_entry(ino, &e))
		fuse_reply_err(req, ENOENT);
	else
		fuse_reply_entry(req, &e);
}

static void null_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	(void)fi;
	if (fill_stat(ino, &st))
		fuse_reply_err(req, ENOENT);
	else
		fuse_reply_attr(req, &st, HOUR_S);
}

static void null_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	fi->keep_cache = 1;
	if (null.has_no_opens)
		fuse_reply_err(req, ENOSYS);
	else
		fuse_reply_open(req, fi);
}

static void null_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	fuse_reply_err(req, 0);
}

static void null_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	size_t left = (size_t)offset < null.bytes ? null.bytes - (size_t)offset : 0;

	(void)ino;
	(void)fi;
	fuse_reply_buf(req, null.zeros, size < left ? size : left);
}

static void null_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi)
{
	char *buf = malloc(size), name[32];
	size_t used = 0, n;
	struct fuse_entry_param e;

	(void)fi;
	for (unsigned long i = (unsigned long)offset; buf; i++) {
		unsigned long number = ino == FUSE_ROOT_ID ? i : i * DIRS + (ino - FIRST_DIR);

		if (ino == FUSE_ROOT_ID ? i >= DIRS : number >= null.files)
			break;
		snprintf(name, sizeof(name), ino == FUSE_ROOT_ID ? "class%lu" : "img%lu", number);
		fill_entry((ino == FUSE_ROOT_ID ? FIRST_DIR : FIRST_FILE) + number, &e);
		n = fuse_add_direntry_plus(req, buf + used, size - used, name, &e, (off_t)i + 1);
		if (n > size - used)
			break;
		used += n;
	}
	fuse_reply_buf(req, buf, used);
	free(buf);
}

static void null_init(void *userdata, struct fuse_conn_info *conn)
{
	(void)userdata;
	conn->want &= ~(unsigned)(FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_AUTO_INVAL_DATA);
	conn->want |= conn->capable & (FUSE_CAP_READDIRPLUS | FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS);
	conn->max_background = 256;
	conn->congestion_threshold = 192;
}

static const struct fuse_lowlevel_ops ops = {
	.init = null_init, .lookup = null_lookup, .getattr = null_getattr, .open = null_open, .release = null_release,
	.read = null_read, .readdirplus = null_readdirplus,
};

static const struct option options[] = {
	{ "enosys", 0, NULL, 'e' }, { "clone", 0, NULL, 'c' }, { "threads", 1, NULL, 't' }, { NULL, 0, NULL, 0 },
};

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_loop_config *config = fuse_loop_cfg_create();
	struct fuse_session *se;
	int c, rc;

	fuse_loop_cfg_set_max_threads(config, 4);
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'e': null.has_no_opens = 1; break;
		case 'c': fuse_loop_cfg_set_clone_fd(config, 1); break;
		case 't': fuse_loop_cfg_set_max_threads(config, (unsigned)strtoul(optarg, NULL, 10)); break;
		default: return 2;
		}
	}
	if (argc != optind + 3) {
		fprintf(stderr, "usage: nullfs MOUNTPOINT FILES BYTES [--enosys] [--clone] [--threads N]\n");
		return 2;
	}
	null.files = strtoul(argv[optind + 1], NULL, 10);
	null.bytes = strtoul(argv[optind + 2], NULL, 10);
	null.zeros = calloc(1, null.bytes + 1);
	fuse_opt_add_arg(&args, "nullfs");
	fuse_opt_add_arg(&args, "-oro,fsname=nullfs,default_permissions");
	se = null.zeros ? fuse_session_new(&args, &ops, sizeof(ops), NULL) : NULL;
	if (!se || fuse_set_signal_handlers(se) || fuse_session_mount(se, argv[optind]))
		return 1;
	rc = fuse_session_loop_mt(se, config);
	fuse_session_unmount(se);
	fuse_session_destroy(se);
	return rc < 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The command line and mount options, each declared once in options.def. */
#ifndef HOPPER_FS_OPTIONS_H
#define HOPPER_FS_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include "cache/cache.h"
#include "lib/log.h"
#include "prefetch/prefetch.h"

enum { CACHE_DIRS_MAX = 16 };

/* How cached files are opened. */
enum open_policy {
	OPEN_AUTO,                   /* as passthrough, without a warning where it cannot be */
	OPEN_PASSTHROUGH,            /* complete large files are read by the kernel itself */
	OPEN_DAEMON,                 /* everything is served here */
	OPEN_PAGECACHE,              /* no open is sent: small files are put into the page cache ahead of their readers */
};

enum transport {
	TRANSPORT_DEV,               /* /dev/fuse; what auto is: a mount can be taken over there */
	TRANSPORT_URING,             /* io_uring where the kernel has it, else /dev/fuse */
};

struct options {
	char *origin;                /* specification, made absolute; owned */
	char *mountpoint;            /* absolute; owned */
	bool foreground, debug, help, version;
	bool is_mount_helper;        /* called by mount(8) as mount.hopperfs */
	bool allow_other;
	bool is_read_only;           /* ro was given */
	bool numa;                   /* use the machine's nodes */
	char *cache_dirs[CACHE_DIRS_MAX];   /* absolute; owned */
	unsigned cache_dir_count;
	struct cache_config cache;   /* dirs and identity are filled in later */
	struct prefetch_config prefetch;
	bool follow_acls;            /* whether or not any are known */
	enum open_policy open;
	uint64_t read_ahead_bytes;   /* the kernel's, in a file of the mount; UINT64_MAX for auto */
	enum transport transport;
	enum log_level log_level;
	char *log_file;              /* owned, or NULL */
	char *config_text;           /* "name=value" lines as in force; owned */
};

/*
 * 0, or -EINVAL with one line for the user in @msg. mount(8)'s generic options
 * are accepted and ignored where they mean nothing here.
 */
int options_parse(int argc, char **argv, struct options *ret, char *msg, size_t msg_size);
void options_free(struct options *o);
void options_print_help(const char *program);

#endif

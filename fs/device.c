/* SPDX-License-Identifier: Apache-2.0 */
#define FUSE_USE_VERSION 314
#include "fs/device.h"
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/magic.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include "lib/cleanup.h"

static int run_fusermount(const char *flag, const char *mountpoint)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, STDERR_FILENO);
		execlp("fusermount3", "fusermount3", "-u", flag, "--", mountpoint, (char *)NULL);
		_exit(127);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return -errno;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? 0 : -EIO;
}

static bool is_our_mount(const char *mountpoint)
{
	FILE *f = setmntent("/proc/self/mounts", "r");
	struct mntent *m;
	bool is_ours = false;

	while (f && (m = getmntent(f))) {
		if (!strcmp(m->mnt_dir, mountpoint))
			is_ours = !strcmp(m->mnt_type, "fuse.hopperfs");   /* the last one is on top */
	}
	if (f)
		endmntent(f);
	return is_ours;
}

static void remove_dead_mount(const char *mountpoint)
{
	struct stat st;

	if (!stat(mountpoint, &st) || errno != ENOTCONN || !is_our_mount(mountpoint))
		return;
	device_unmount(mountpoint);
}

static int mount_privileged(const struct device_config *cfg, char *msg, size_t msg_size)
{
	_cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	char data[256];
	struct stat st;
	int rc;

	if (fd < 0) {
		rc = -errno;
		snprintf(msg, msg_size, "/dev/fuse: %s; is FUSE in the kernel (modprobe fuse)?", strerror(-rc));
		return rc;
	}
	if (stat(cfg->mountpoint, &st))
		st.st_mode = S_IFDIR;
	snprintf(data, sizeof(data), "fd=%d,rootmode=%o,user_id=%u,group_id=%u,default_permissions%s",
		 fd, st.st_mode & S_IFMT, geteuid(), getegid(), cfg->allow_other ? ",allow_other" : "");
	/*
	 * Every change is refused with EROFS here; the kernel's own read-only
	 * flag would refuse the control attributes too. With ro it is set, and
	 * saves a GETATTR where fstat follows a read, as reads then leave atime alone.
	 */
	if (mount(cfg->source, cfg->mountpoint, "fuse.hopperfs", (cfg->is_read_only ? MS_RDONLY : 0) | MS_NOSUID | MS_NODEV, data)) {
		rc = -errno;
		snprintf(msg, msg_size, "mount point %s: %s", cfg->mountpoint, strerror(-rc));
		return rc;
	}
	return steal_fd(&fd);
}

/* libfuse talks to fusermount3; of its session only the descriptor is kept. */
static int mount_by_helper(const struct device_config *cfg, char *msg, size_t msg_size)
{
	_cleanup_free_ char *options = NULL, *source = NULL;
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	struct fuse_lowlevel_ops ops = { 0 };
	struct fuse_session *se;
	size_t n = 0;
	int fd;

	/* a comma in the source would end the option */
	source = malloc(strlen(cfg->source) * 2 + 1);
	for (const char *p = cfg->source; source && *p; p++) {
		if (*p == ',' || *p == '\\')
			source[n++] = '\\';
		source[n++] = *p;
	}
	if (!source)
		return -ENOMEM;
	source[n] = 0;
	if (asprintf(&options, "%sdefault_permissions,subtype=hopperfs,fsname=%s%s", cfg->is_read_only ? "ro," : "", source,
		     cfg->allow_other ? ",allow_other" : "") < 0)
		return -ENOMEM;
	fuse_opt_add_arg(&args, "hopperfs");
	fuse_opt_add_arg(&args, "-o");
	fuse_opt_add_arg(&args, options);
	se = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	fuse_opt_free_args(&args);
	if (!se || fuse_session_mount(se, cfg->mountpoint)) {
		if (se)
			fuse_session_destroy(se);
		snprintf(msg, msg_size, "mount point %s: fusermount3 could not mount; is fuse3 installed, /dev/fuse open to you and the directory yours?",
			 cfg->mountpoint);
		return -EIO;
	}
	fd = fcntl(fuse_session_fd(se), F_DUPFD_CLOEXEC, 3);
	fuse_session_destroy(se);   /* closes its descriptor; ours keeps the mount */
	return fd < 0 ? -errno : fd;
}

int device_mount(const struct device_config *cfg, char *msg, size_t msg_size)
{
	remove_dead_mount(cfg->mountpoint);
	return geteuid() == 0 ? mount_privileged(cfg, msg, msg_size) : mount_by_helper(cfg, msg, msg_size);
}

void device_unmount(const char *mountpoint)
{
	if (!is_our_mount(mountpoint))
		return;
	if (geteuid() == 0)
		umount2(mountpoint, MNT_DETACH);
	else
		run_fusermount("-z", mountpoint);
}

int device_open_read_ahead(const char *mountpoint)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	unsigned id, parent, major, minor = 0;
	char line[8192], root[4096], dir[4096], path[64];
	bool is_found = false;
	int fd;

	/* not stat(2): it would ask the mount itself */
	while (f && fgets(line, sizeof(line), f)) {
		unsigned ma, mi;

		if (sscanf(line, "%u %u %u:%u %4095s %4095s", &id, &parent, &ma, &mi, root, dir) != 6 ||
		    strcmp(dir, mountpoint))
			continue;
		major = ma;
		minor = mi;
		is_found = true;
	}
	if (f)
		fclose(f);
	if (!is_found)
		return -ENOENT;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major, minor);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

unsigned device_stack_depth(const char *dir)
{
	struct statfs fs;

	if (statfs(dir, &fs))
		return 1;
	return fs.f_type == OVERLAYFS_SUPER_MAGIC || fs.f_type == FUSE_SUPER_MAGIC ? 2 : 1;
}

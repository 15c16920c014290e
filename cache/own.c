/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/own.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lib/cleanup.h"

int own_open(int dir_fd, const char *name, int flags)
{
	_cleanup_close_ int fd = openat(dir_fd, name, (flags & ~O_TRUNC) | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
	struct stat st;

	if (fd < 0)
		return errno == ELOOP || errno == ENXIO ? -EPERM : -errno;
	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_nlink > 1 || st.st_uid != geteuid())
		return -EPERM;
	if (flags & O_TRUNC && ftruncate(fd, 0))
		return -errno;
	return steal_fd(&fd);
}

int own_check(int dir_fd, const char *name)
{
	int fd = own_open(dir_fd, name, O_RDONLY);

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	close(fd);
	return 0;
}

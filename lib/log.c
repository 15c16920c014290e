/* SPDX-License-Identifier: Apache-2.0 */
/* A line is formatted on the stack and written with one call, so that lines of threads do not mix. */
#include "lib/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 1024 };

static _Atomic int level_max = LOG_LEVEL_WARN;
static _Atomic int log_fd = STDERR_FILENO;
static _Atomic bool is_syslog;

static const char *const level_name[] = { "error", "warning", "info", "debug" };
static const int level_syslog[] = { LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level)
{
	atomic_store(&level_max, (int)level);
}

void log_to_syslog(const char *ident)
{
	if (ident)
		openlog(ident, LOG_PID, LOG_DAEMON);
	atomic_store(&is_syslog, ident != NULL);
}

int log_to_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);

	if (fd < 0)
		return -errno;
	fd = atomic_exchange(&log_fd, fd);
	if (fd != STDERR_FILENO)
		close(fd);
	atomic_store(&is_syslog, false);
	return 0;
}

bool log_is_enabled(enum log_level level)
{
	return (int)level <= atomic_load_explicit(&level_max, memory_order_relaxed);
}

static void write_line(enum log_level level, const char *text)
{
	char line[LINE_BYTES + 64];
	struct timespec ts;
	struct tm tm;
	int n;

	clock_gettime(CLOCK_REALTIME, &ts);
	localtime_r(&ts.tv_sec, &tm);
	n = (int)strftime(line, sizeof(line), "%F %T", &tm);
	n += snprintf(line + n, sizeof(line) - (size_t)n, ".%03ld hopperfs %s: %s\n",
		      ts.tv_nsec / 1000000, level_name[level], text);
	if (n >= (int)sizeof(line)) {
		n = (int)sizeof(line) - 1;
		line[n - 1] = '\n';
	}
	if (write(atomic_load(&log_fd), line, (size_t)n) < 0)
		return;   /* nowhere left to complain */
}

void log_write(enum log_level level, const char *fmt, ...)
{
	char text[LINE_BYTES];
	int saved = errno;
	va_list ap;

	if (!log_is_enabled(level))
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *p = text; *p; p++) {
		/* names come from the origin: no line of a log can be forged */
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	}
	if (atomic_load(&is_syslog))
		syslog(level_syslog[level], "%s", text);
	else
		write_line(level, text);
	errno = saved;
}

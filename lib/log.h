/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One line per event to stderr, a file or syslog. The destination is process
 * wide, as stderr is; everything else in hopperfs belongs to a mount.
 * Thread-safe, never blocks on anything but the write itself.
 */
#ifndef HOPPER_LIB_LOG_H
#define HOPPER_LIB_LOG_H

#include <stdbool.h>

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARN,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

void log_set_level(enum log_level level);

/* Lines go to syslog(3) under @ident from now on; NULL returns to stderr. */
void log_to_syslog(const char *ident);

/* Lines are appended to @path, mode 0600. Returns 0 or negative errno. */
int log_to_file(const char *path);

/* True if a message of @level would be written: skip costly preparation. */
bool log_is_enabled(enum log_level level);

void log_write(enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)                                            \
	do {                                                      \
		if (log_is_enabled(LOG_LEVEL_DEBUG))              \
			log_write(LOG_LEVEL_DEBUG, __VA_ARGS__);  \
	} while (0)

#endif

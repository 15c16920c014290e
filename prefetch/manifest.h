/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A data set's own list of its files: which line means which file. No format
 * is parsed: a line is cut into words at commas, tabs, spaces, semicolons and
 * quotes, and the first line on which some word, with or without leading
 * directories, names a file tells which word and how for all the others.
 *
 * Pure but for the callback; nothing blocks but by its length.
 */
#ifndef HOPPER_PREFETCH_MANIFEST_H
#define HOPPER_PREFETCH_MANIFEST_H

#include <stddef.h>
#include <stdint.h>

/* The item that @path (len bytes, no NUL) means, UINT32_MAX for none. */
typedef uint32_t (*manifest_resolve)(void *arg, const char *path, size_t len);

/*
 * The items of the lines of @text, each once, in their order. Owned by the caller; NULL if there are
 * fewer than two or more than @max, or without memory.
 */
uint32_t *manifest_read(const char *text, size_t len, uint32_t max, manifest_resolve resolve, void *arg, uint32_t *ret_count);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/manifest.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
	RULE_LINES = 64,       /* without any file: it is no list */
	WORDS_MAX = 64,        /* of a line */
	STRIP_MAX = 16,        /* leading directories */
};

#define SEPARATORS ",;\t |\"'\r[](){}"

/* Which word of a line is the path, and how many of its directories are above the data set. */
struct rule {
	unsigned word, strip;
};

struct span {
	const char *at;
	size_t len;
};

/* The line's word number @which, of length 0 if it has fewer. */
static struct span word_of(struct span line, unsigned which)
{
	const char *end = line.at + line.len, *p = line.at;

	for (unsigned w = 0; p < end; w++) {
		const char *from;

		while (p < end && strchr(SEPARATORS, *p))
			p++;
		from = p;
		while (p < end && !strchr(SEPARATORS, *p))
			p++;
		if (w == which)
			return (struct span){ from, (size_t)(p - from) };
	}
	return (struct span){ end, 0 };
}

/* Without its first @count directories; length 0 if there are fewer. */
static struct span strip(struct span path, unsigned count)
{
	for (; count; count--) {
		const char *slash = memchr(path.at, '/', path.len);

		if (!slash)
			return (struct span){ path.at, 0 };
		path.len -= (size_t)(slash + 1 - path.at);
		path.at = slash + 1;
	}
	return path;
}

static bool rule_of(struct span line, manifest_resolve resolve, void *arg, struct rule *ret)
{
	for (unsigned w = 0; w < WORDS_MAX; w++) {
		struct span word = word_of(line, w);

		for (unsigned s = 0; s <= STRIP_MAX && word.len; s++) {
			struct span path = strip(word, s);

			if (path.len && resolve(arg, path.at, path.len) != UINT32_MAX) {
				*ret = (struct rule){ w, s };
				return true;
			}
		}
		if (!word.len)
			return false;
	}
	return false;
}

static bool next_line(const char **at, const char *end, struct span *ret)
{
	const char *newline;

	if (*at >= end)
		return false;
	newline = memchr(*at, '\n', (size_t)(end - *at));
	*ret = (struct span){ *at, (size_t)((newline ? newline : end) - *at) };
	*at += ret->len + 1;
	return true;
}

static bool rule_find(const char *text, const char *end, manifest_resolve resolve, void *arg, struct rule *ret)
{
	struct span line;

	for (unsigned i = 0; i < RULE_LINES && next_line(&text, end, &line); i++) {
		if (rule_of(line, resolve, arg, ret))
			return true;
	}
	return false;
}

uint32_t *manifest_read(const char *text, size_t len, uint32_t max, manifest_resolve resolve, void *arg, uint32_t *ret_count)
{
	const char *end = text + len;
	uint32_t *item = NULL, count = 0;
	uint8_t *has = NULL;
	struct span line;
	struct rule rule;

	if (memchr(text, 0, len) || !rule_find(text, end, resolve, arg, &rule))
		return NULL;
	item = malloc((size_t)max * sizeof(*item) + 1);
	has = calloc(max / 8 + 1, 1);
	while (item && has && next_line(&text, end, &line)) {
		struct span path = strip(word_of(line, rule.word), rule.strip);
		uint32_t i = path.len ? resolve(arg, path.at, path.len) : UINT32_MAX;

		if (i >= max || has[i / 8] >> i % 8 & 1)
			continue;   /* a header, or a second line of the same file */
		has[i / 8] |= (uint8_t)(1 << i % 8);
		item[count++] = i;
	}
	if (!has || count < 2) {
		free(item);
		item = NULL;
	}
	free(has);
	*ret_count = count;
	return item;
}

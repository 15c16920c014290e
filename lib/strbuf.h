/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing string. Allocation failure is remembered instead of returned, so
 * that a writer checks once, in strbuf_steal().
 */
#ifndef HOPPER_LIB_STRBUF_H
#define HOPPER_LIB_STRBUF_H

#include <stdbool.h>
#include <stddef.h>

struct strbuf {
	char *str;          /* owned, NUL-terminated once something was added */
	size_t len, size;
	bool failed;
};

#define STRBUF_INIT { NULL, 0, 0, false }

void strbuf_add(struct strbuf *b, const char *s);
void strbuf_addf(struct strbuf *b, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* @s as a quoted JSON string; bytes that are not valid UTF-8 become U+FFFD. */
void strbuf_add_json(struct strbuf *b, const char *s);

/* The string, owned by the caller (never NULL on success); NULL if memory ran out. */
char *strbuf_steal(struct strbuf *b);
void strbuf_free(struct strbuf *b);

#endif

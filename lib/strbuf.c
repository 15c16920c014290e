/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/strbuf.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for @n more bytes and the NUL. */
static bool reserve(struct strbuf *b, size_t n)
{
	size_t size = b->size ? b->size : 64;
	char *bigger;

	if (b->failed)
		return false;
	while (size < b->len + n + 1)
		size *= 2;
	if (size == b->size)
		return true;
	bigger = realloc(b->str, size);
	if (!bigger) {
		b->failed = true;
		return false;
	}
	b->str = bigger;
	b->size = size;
	return true;
}

static void add_bytes(struct strbuf *b, const char *s, size_t n)
{
	if (!reserve(b, n))
		return;
	memcpy(b->str + b->len, s, n);
	b->len += n;
	b->str[b->len] = 0;
}

void strbuf_add(struct strbuf *b, const char *s)
{
	add_bytes(b, s, strlen(s));
}

void strbuf_addf(struct strbuf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || !reserve(b, (size_t)n))
		return;
	va_start(ap, fmt);
	vsnprintf(b->str + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}

/* Length of the valid UTF-8 sequence at @s (RFC 3629), 0 if there is none. */
static size_t utf8_length(const unsigned char *s)
{
	static const struct { unsigned char low, high, second_low, second_high; size_t len; } forms[] = {
		{ 0x01, 0x7f, 0, 0, 1 },	{ 0xc2, 0xdf, 0x80, 0xbf, 2 },
		{ 0xe0, 0xe0, 0xa0, 0xbf, 3 },	{ 0xe1, 0xec, 0x80, 0xbf, 3 },
		{ 0xed, 0xed, 0x80, 0x9f, 3 },	{ 0xee, 0xef, 0x80, 0xbf, 3 },
		{ 0xf0, 0xf0, 0x90, 0xbf, 4 },	{ 0xf1, 0xf3, 0x80, 0xbf, 4 },
		{ 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};

	for (size_t f = 0; f < sizeof(forms) / sizeof(*forms); f++) {
		if (*s < forms[f].low || *s > forms[f].high)
			continue;
		if (forms[f].len > 1 && (s[1] < forms[f].second_low || s[1] > forms[f].second_high))
			return 0;
		for (size_t i = 2; i < forms[f].len; i++) {
			if ((s[i] & 0xc0) != 0x80)
				return 0;
		}
		return forms[f].len;
	}
	return 0;
}

void strbuf_add_json(struct strbuf *b, const char *text)
{
	const unsigned char *s = (const unsigned char *)text;

	add_bytes(b, "\"", 1);
	while (*s) {
		size_t n = utf8_length(s);

		if (*s == '"' || *s == '\\')
			strbuf_addf(b, "\\%c", *s);
		else if (*s < 0x20 || *s == 0x7f)
			strbuf_addf(b, "\\u%04x", *s);
		else if (n)
			add_bytes(b, (const char *)s, n);
		else
			strbuf_add(b, "\\ufffd");
		s += n ? n : 1;
	}
	add_bytes(b, "\"", 1);
}

char *strbuf_steal(struct strbuf *b)
{
	char *s;

	reserve(b, 0);
	s = b->failed ? NULL : b->str;
	if (!s)
		free(b->str);
	else if (!b->len)
		*s = 0;
	*b = (struct strbuf)STRBUF_INIT;
	return s;
}

void strbuf_free(struct strbuf *b)
{
	free(b->str);
	*b = (struct strbuf)STRBUF_INIT;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Names of the origin in what users read: whatever their bytes, the JSON stays JSON and UTF-8. */
#include <string.h>
#include "lib/strbuf.h"
#include "tests/fuzz/fuzz.h"

/* Bytes of the well-formed UTF-8 sequence at @p (RFC 3629), 0 if there is none. */
static size_t utf8(const uint8_t *p, const uint8_t *end)
{
	static const struct { uint8_t from, to, second_from, second_to, len; } form[] = {
		{ 0x00, 0x7f, 0, 0, 1 }, { 0xc2, 0xdf, 0x80, 0xbf, 2 }, { 0xe0, 0xe0, 0xa0, 0xbf, 3 }, { 0xe1, 0xec, 0x80, 0xbf, 3 },
		{ 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 }, { 0xf0, 0xf0, 0x90, 0xbf, 4 },
		{ 0xf1, 0xf3, 0x80, 0xbf, 4 }, { 0xf4, 0xf4, 0x80, 0x8f, 4 },
	};

	for (size_t i = 0; i < sizeof(form) / sizeof(*form); i++) {
		if (*p < form[i].from || *p > form[i].to)
			continue;
		if (end - p < form[i].len || (form[i].len > 1 && (p[1] < form[i].second_from || p[1] > form[i].second_to)))
			return 0;
		for (size_t k = 2; k < form[i].len; k++) {
			if (p[k] < 0x80 || p[k] > 0xbf)
				return 0;
		}
		return form[i].len;
	}
	return 0;
}

static void check_string(const uint8_t *p, const uint8_t *end)
{
	MUST(end - p >= 2 && *p == '"' && end[-1] == '"');
	for (p++, end--; p < end;) {
		size_t n = utf8(p, end);

		MUST(n && *p >= 0x20 && *p != '"');
		p += n;
		if (p[-1] != '\\')
			continue;
		MUST(p < end && strchr("\"\\/bfnrtu", *p));
		if (*p++ == 'u') {
			MUST(end - p >= 4 && strspn((const char *)p, "0123456789abcdefABCDEF") >= 4);
			p += 4;
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *name = strndup((const char *)data, size), *json;
	struct strbuf b = STRBUF_INIT;

	MUST(name);
	strbuf_add_json(&b, name);
	json = strbuf_steal(&b);
	MUST(json);
	check_string((uint8_t *)json, (uint8_t *)json + strlen(json));
	free(json);
	free(name);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A command line, its arguments separated by NUL bytes: parsed, or refused with a reason. Then the numbers on their own. */
#include "fs/options.h"
#include <string.h>
#include "lib/parse.h"
#include "tests/fuzz/fuzz.h"

enum { ARGS_MAX = 16 };

static void parse_line(const uint8_t *data, size_t size)
{
	char *copy = malloc(size + 1), *argv[ARGS_MAX + 1] = { (char *)"hopperfs" }, msg[256] = "";
	struct options o = { 0 };
	int argc = 1;

	MUST(copy);
	memcpy(copy, data, size);
	copy[size] = 0;
	for (size_t at = 0; at < size && argc < ARGS_MAX; at += strlen(copy + at) + 1)
		argv[argc++] = copy + at;
	if (options_parse(argc, argv, &o, msg, sizeof(msg))) {
		MUST(*msg);
	} else if (!o.help && !o.version) {
		MUST(o.origin && o.mountpoint && o.mountpoint[0] == '/' && o.config_text);
		MUST(o.cache_dir_count >= 1 && o.cache_dir_count <= CACHE_DIRS_MAX);
		for (unsigned i = 0; i < o.cache_dir_count; i++)
			MUST(o.cache_dirs[i] && o.cache_dirs[i][0] == '/');
	}
	options_free(&o);
	free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[64];
	uint64_t value;
	bool flag;

	parse_line(data, size);
	snprintf(text, sizeof(text), "%.*s", (int)size, (const char *)data);
	parse_u64(text, &value);
	parse_size(text, &value);
	parse_duration(text, &value);
	parse_bool(text, &flag);
	if (!parse_size_or_percent(text, 1 << 20, &value) && strchr(text, '%'))
		MUST(value <= 1 << 20);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fuzz target without a fuzzer: runs the files and directories given, or its corpus beside the source, and of
 * each input what a few fixed mutations make of it (HOPPER_FUZZ_MUTATIONS, 8 if not set).
 */
#include <dirent.h>
#include <string.h>
#include <sys/stat.h>
#include "tests/fuzz/fuzz.h"

enum { INPUT_MAX = 1 << 20, MUTATIONS = 8 };

static unsigned long inputs;
static unsigned mutations = MUTATIONS;

/* In memory of its own length, so that a sanitizer sees a read past its end. */
static void run(const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	MUST(copy);
	memcpy(copy, data, len);
	LLVMFuzzerTestOneInput(copy, len);
	free(copy);
	inputs++;
}

/* xorshift64*, from a fixed seed: the same in every run. */
static uint64_t random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dULL >> 16;
}

static void run_mutated(uint8_t *data, size_t len)
{
	uint64_t state = 88172645463325252ULL + len;

	run(data, len);
	for (unsigned i = 0; i < mutations && len; i++) {
		size_t at = random_next(&state) % len, cut = i % 4 ? len : random_next(&state) % len;
		uint8_t was = data[at];

		data[at] = i % 3 ? (uint8_t)random_next(&state) : (uint8_t)(was ^ 1u << random_next(&state) % 8);
		run(data, cut);
		data[at] = was;
	}
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void run_path(const char *path)
{
	struct dirent **list;
	struct stat st;
	FILE *f;
	int n;

	if (stat(path, &st)) {
		perror(path);
		exit(1);
	}
	if (S_ISDIR(st.st_mode)) {
		n = scandir(path, &list, NULL, by_name);
		for (int i = 0; i < n; i++) {
			char *inner;

			if (list[i]->d_name[0] != '.' && asprintf(&inner, "%s/%s", path, list[i]->d_name) >= 0) {
				run_path(inner);
				free(inner);
			}
			free(list[i]);
		}
		free(list);
		return;
	}
	f = fopen(path, "r");
	if (f) {
		uint8_t *data = malloc(INPUT_MAX);

		MUST(data);
		run_mutated(data, fread(data, 1, INPUT_MAX, f));
		free(data);
		fclose(f);
	}
}

int main(int argc, char **argv)
{
	const char *srcdir = getenv("srcdir"), *name = strrchr(argv[0], '/'), *wish = getenv("HOPPER_FUZZ_MUTATIONS");
	char *corpus;

	if (wish)
		mutations = (unsigned)strtoul(wish, NULL, 10);
	for (int i = 1; i < argc; i++)
		run_path(argv[i]);
	if (argc == 1) {
		if (asprintf(&corpus, "%s/tests/fuzz/corpus/%s", srcdir ? srcdir : ".", name ? name + 1 : argv[0]) < 0)
			return 1;
		run_path(corpus);
		free(corpus);
	}
	printf("%lu inputs\n", inputs);
	return inputs ? 0 : 1;
}

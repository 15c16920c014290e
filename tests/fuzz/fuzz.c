/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/fuzz.h"
#include <ftw.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char scratch[256];
static pid_t owner;

uint8_t *take_bytes(struct input *in, size_t max, size_t *ret_len)
{
	size_t len = (size_t)take_number(in) % (max + 1);
	uint8_t *copy;

	if (len > input_left(in))
		len = input_left(in);
	copy = malloc(len ? len : 1);
	MUST(copy);
	memcpy(copy, in->at, len);
	in->at += len;
	*ret_len = len;
	return copy;
}

char *take_string(struct input *in, size_t max)
{
	size_t len;
	uint8_t *bytes = take_bytes(in, max, &len);
	char *s = strndup((char *)bytes, len);

	MUST(s);
	free(bytes);
	return s;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void scratch_remove(void)
{
	if (getpid() == owner)
		nftw(scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

const char *fuzz_scratch(void)
{
	const char *tmp = getenv("TMPDIR");

	if (*scratch)
		return scratch;
	snprintf(scratch, sizeof(scratch), "%s/hopper-fuzz.XXXXXX", tmp ? tmp : access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
	MUST(mkdtemp(scratch));
	owner = getpid();
	atexit(scratch_remove);
	return scratch;
}

const char *fuzz_path(const char *name)
{
	static _Thread_local char buf[4][512];
	static _Thread_local unsigned at;
	char *p = buf[at++ % 4];

	snprintf(p, sizeof(buf[0]), "%s/%s", fuzz_scratch(), name);
	return p;
}

void fuzz_file(const char *name, const void *data, size_t len)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s", fuzz_path(name));
	for (char *slash = strchr(path + strlen(scratch) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(path, 0700);
		*slash = '/';
	}
	f = fopen(path, "w");
	MUST(f);
	MUST(fwrite(data, 1, len, f) == len && !fclose(f));
}

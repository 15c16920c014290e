/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/layer/layer.h"
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "tests/unit/test.h"

static char scratch[4000];

const char *scratch_make(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(scratch, sizeof(scratch), "%s/hopper-layer.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(scratch)) {
		perror(scratch);
		abort();
	}
	return scratch;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void scratch_remove(void)
{
	nftw(scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

const char *scratch_path(const char *name)
{
	static _Thread_local char buf[4][4400];
	static _Thread_local unsigned at;
	char *p = buf[at++ % 4];

	snprintf(p, sizeof(buf[0]), "%s/%s", scratch, name);
	return p;
}

uint8_t content_at(unsigned seed, uint64_t offset)
{
	return (uint8_t)((offset * 2654435761u + offset / 251 + seed * 97) >> 3);
}

bool content_is(const void *buf, unsigned seed, uint64_t offset, size_t len)
{
	const uint8_t *b = buf;

	for (size_t i = 0; i < len; i++) {
		if (b[i] != content_at(seed, offset + i))
			return false;
	}
	return true;
}

void file_make(const char *name, size_t size, unsigned seed)
{
	const char *path = scratch_path(name);
	char dir[4400];
	FILE *f;

	for (char *slash = strchr(strcpy(dir, path) + strlen(scratch) + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		mkdir(dir, 0755);
		*slash = '/';
	}
	f = fopen(path, "w");
	if (!f) {
		perror(path);
		abort();
	}
	for (size_t i = 0; i < size; i++)
		putc(content_at(seed, i), f);
	if (fclose(f))
		abort();
}

void waiter_done(struct waiter *w, int err)
{
	pthread_mutex_lock(&w->mutex);
	w->err = err;
	w->done++;
	pthread_cond_broadcast(&w->cond);
	pthread_mutex_unlock(&w->mutex);
}

int waiter_wait(struct waiter *w, unsigned count)
{
	struct timespec until;
	int rc = 0, err;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += getenv("NOISE_RUNS") ? 600 : 30;
	pthread_mutex_lock(&w->mutex);
	while (w->done < count && rc != ETIMEDOUT)
		rc = pthread_cond_timedwait(&w->cond, &w->mutex, &until);
	err = w->err;
	if (w->done < count)
		err = -ETIME;
	pthread_mutex_unlock(&w->mutex);
	assert_int_not_equal(err, -ETIME);
	return err;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/segment.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cache/own.h"

static void segment_name(uint32_t id, char *buf, size_t size)
{
	snprintf(buf, size, "%08x.seg", id);
}

int segments_open(struct segments *s, int cache_fd)
{
	*s = (struct segments){ .dir_fd = -1, .by_id = MAP64_INIT, .next_id = 1 };
	if (mkdirat(cache_fd, "segments", 0700) && errno != EEXIST)
		return -errno;
	s->dir_fd = openat(cache_fd, "segments", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return s->dir_fd < 0 ? -errno : 0;
}

static void segment_free(struct segment *g)
{
	if (g->fd >= 0)
		close(g->fd);
	if (g->direct_fd >= 0)
		close(g->direct_fd);
	free(g);
}

void segments_close(struct segments *s)
{
	size_t pos = 0;
	struct segment *g;

	while ((g = map64_next(&s->by_id, &pos, NULL))) {
		segment_free(g);
	}
	map64_clear(&s->by_id);
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	s->dir_fd = -1;
}

static struct segment *segment_new(struct segments *s, uint32_t id)
{
	struct segment *g = calloc(1, sizeof(*g));

	if (!g)
		return NULL;
	g->id = id;
	g->fd = g->direct_fd = -1;
	if (map64_put(&s->by_id, id, g)) {
		free(g);
		return NULL;
	}
	if (id >= s->next_id)
		s->next_id = id + 1;
	return g;
}

static int segment_open_file(struct segments *s, struct segment *g, int flags)
{
	char name[32];
	int fd;

	if (g->fd >= 0)
		return 0;
	segment_name(g->id, name, sizeof(name));
	fd = own_open(s->dir_fd, name, O_RDWR | flags);
	if (fd < 0)
		return fd;
	g->fd = fd;
	return 0;
}

struct segment *segment_get(struct segments *s, uint32_t id, int *ret_err)
{
	struct segment *g = map64_get(&s->by_id, id);

	*ret_err = g ? segment_open_file(s, g, 0) : -ENOENT;
	return *ret_err ? NULL : g;
}

int segment_direct(struct segments *s, struct segment *g)
{
	char name[32];

	if (g->direct_fd >= 0)
		return g->direct_fd;
	segment_name(g->id, name, sizeof(name));
	return g->direct_fd = own_open(s->dir_fd, name, O_RDONLY | O_DIRECT);
}

uint32_t segment_present(const struct segments *s)
{
	return s->open ? s->open->id : s->next_id;
}

struct segment *segment_unsettled(const struct segments *s, uint32_t before)
{
	struct segment *g;
	size_t pos = 0;

	while ((g = map64_next(&s->by_id, &pos, NULL))) {
		if (!g->is_settled && g->id < before && g->fd >= 0)
			return g;
	}
	return NULL;
}

static int open_next(struct segments *s)
{
	struct segment *g, *old = s->open;
	int rc;

	if (!s->next_id)
		return -ENOSPC;
	g = segment_new(s, s->next_id);
	if (!g)
		return -ENOMEM;
	rc = segment_open_file(s, g, O_CREAT | O_TRUNC);
	if (rc) {
		map64_remove(&s->by_id, g->id);
		free(g);
		return rc;
	}
	g->busy++;
	s->open = g;
	s->open_offset = 0;
	if (old) {
		old->busy--;
		segment_retire(s, old);
	}
	return 0;
}

int segment_alloc(struct segments *s, uint64_t len, struct segment **ret_segment, uint64_t *ret_offset)
{
	len = slot_round(len);
	if (!s->open || s->open_offset + len > SEGMENT_BYTES) {
		int rc = open_next(s);

		if (rc)
			return rc;
	}
	*ret_segment = s->open;
	*ret_offset = s->open_offset;
	s->open_offset += len;
	s->open->live_bytes += len;
	s->open->busy++;
	return 0;
}

int segment_adopt(struct segments *s, uint32_t id, uint64_t len)
{
	struct segment *g = map64_get(&s->by_id, id);

	if (!g)
		g = segment_new(s, id);
	if (!g)
		return -ENOMEM;
	g->is_settled = true;
	g->live_bytes += slot_round(len);
	return 0;
}

void segment_retire(struct segments *s, struct segment *g)
{
	char name[32];

	if (g->busy || g->live_bytes || g == s->open)
		return;
	segment_name(g->id, name, sizeof(name));
	unlinkat(s->dir_fd, name, 0);
	map64_remove(&s->by_id, g->id);
	segment_free(g);
}

void segments_sweep(struct segments *s)
{
	int fd = openat(s->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	while (dir && (de = readdir(dir))) {
		unsigned id;
		char tail;

		if (sscanf(de->d_name, "%8x.se%c", &id, &tail) != 2)
			continue;
		if (id >= s->next_id)
			s->next_id = id + 1;   /* never reuse a name that was in use */
		if (!map64_get(&s->by_id, id))
			unlinkat(s->dir_fd, de->d_name, 0);
	}
	if (dir)
		closedir(dir);
}

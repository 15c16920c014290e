/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/stream.h"
#include <stdlib.h>
#include <string.h>
#include "cache/cache.h"
#include "lib/clock.h"
#include "prefetch/prefetch.h"

enum {
	SLACK_BYTES = 2 << 20,       /* requests of one reader arrive out of order by as much */
	SEQUENTIAL_MIN = 2,          /* reads in a row before anything is fetched */
};

struct stream {
	uint64_t ino, size;
	uint64_t expected;           /* offset behind the furthest read in sequence */
	uint32_t run;                /* reads in sequence */
	uint32_t window;             /* extents */
	uint32_t next;               /* extent to fetch next */
	uint32_t first_ahead;        /* extents from here to next were fetched ahead */
	uint32_t touched;            /* first extent not read yet */
	bool is_ready;
	uint64_t last_ns;
	int place;                   /* of its reader */
};

#define STREAM_LIVE_NS (10 * NSEC_PER_SEC)   /* a reader that consumes a sample between two requests */

static struct stream *stream_get(struct streams *s, uint64_t ino, uint64_t size)
{
	struct stream *t = map64_get(&s->by_ino, ino);

	if (t)
		return t;
	if (s->by_ino.count >= STREAMS_MAX)
		streams_clear(s);
	t = calloc(1, sizeof(*t));
	if (!t || map64_put(&s->by_ino, ino, t)) {
		free(t);
		return NULL;
	}
	t->ino = ino;
	t->size = size;
	return t;
}

static void mark_ready(struct streams *s, struct stream *t)
{
	if (t->is_ready)
		return;
	if (s->ready_count == s->ready_max) {
		unsigned max = s->ready_max ? s->ready_max * 2 : 16;
		uint64_t *bigger = realloc(s->ready, max * sizeof(*bigger));

		if (!bigger)
			return;
		s->ready = bigger;
		s->ready_max = max;
	}
	s->ready[s->ready_count++] = t->ino;
	t->is_ready = true;
}

static bool continues(const struct stream *t, uint64_t offset)
{
	return offset <= t->expected + SLACK_BYTES && offset + SLACK_BYTES >= t->expected;
}

static void restart(struct stream *t, uint64_t offset)
{
	t->run = 0;
	t->window = 0;
	t->expected = offset;
	t->next = t->first_ahead = t->touched = (uint32_t)(offset / EXTENT_BYTES) + 1;
}

void streams_open(struct streams *s, uint64_t ino, uint64_t size, uint64_t now_ns)
{
	struct stream *t = stream_get(s, ino, size);

	if (!t || now_ns - t->last_ns < STREAM_LIVE_NS)
		return;   /* another worker reads it already */
	restart(t, 0);
	t->last_ns = now_ns;
}

uint32_t streams_at(const struct streams *s, uint64_t ino, uint64_t now_ns)
{
	const struct stream *t = map64_get(&s->by_ino, ino);

	if (!t || now_ns - t->last_ns >= STREAM_LIVE_NS)
		return UINT32_MAX;
	return t->expected >= t->size ? UINT32_MAX : (uint32_t)(t->expected / EXTENT_BYTES);
}

/* Extents up to the one at @end that were fetched ahead and are read now for the first time. */
static unsigned touch(struct stream *t, uint64_t end)
{
	uint32_t behind = (uint32_t)((end + EXTENT_BYTES - 1) / EXTENT_BYTES), from = t->touched;

	if (behind <= t->touched)
		return 0;
	t->touched = behind;
	if (from < t->first_ahead)
		from = t->first_ahead;
	if (behind > t->next)
		behind = t->next;
	return behind > from ? behind - from : 0;
}

unsigned streams_read(struct streams *s, const struct observation *o, uint64_t size)
{
	struct stream *t = stream_get(s, o->ino, size);
	uint64_t end = o->offset + o->len;
	unsigned used;

	if (!t)
		return 0;
	if (!continues(t, o->offset) || (!t->run && !t->window && o->offset != t->expected))
		restart(t, o->offset);
	t->place = o->place;
	t->run++;
	t->last_ns = o->time_ns;
	if (end > t->expected)
		t->expected = end;
	used = touch(t, end);
	if (t->run < SEQUENTIAL_MIN && o->offset)
		return used;
	if (!t->window) {
		t->window = STREAM_WINDOW_FIRST;
		t->next = t->first_ahead = (uint32_t)((t->expected + EXTENT_BYTES - 1) / EXTENT_BYTES);
		t->touched = t->next;
	} else if (o->stalled && t->window < STREAM_WINDOW_MAX) {
		t->window *= 2;
	}
	mark_ready(s, t);
	return used;
}

/* The extent @t wants next within its window, or false. */
static bool stream_next(struct stream *t, uint64_t *ret_key)
{
	uint64_t here = t->expected / EXTENT_BYTES;

	if (t->next <= here)
		t->next = (uint32_t)here + 1;
	if (!t->window || t->next > here + t->window || (uint64_t)t->next * EXTENT_BYTES >= t->size)
		return false;
	*ret_key = extent_key(t->ino, t->next++);
	return true;
}

bool streams_next(struct streams *s, uint64_t *ret_key, uint64_t *ret_size)
{
	while (s->ready_count) {
		struct stream *t = map64_get(&s->by_ino, s->ready[s->ready_count - 1]);

		if (t && stream_next(t, ret_key)) {
			*ret_size = t->size;
			return true;
		}
		if (t)
			t->is_ready = false;
		s->ready_count--;
	}
	return false;
}

int streams_place(const struct streams *s, uint64_t ino)
{
	const struct stream *t = map64_get(&s->by_ino, ino);

	return t ? t->place : -1;
}

void streams_clear(struct streams *s)
{
	struct stream *t;
	size_t pos = 0;

	while ((t = map64_next(&s->by_ino, &pos, NULL)))
		free(t);
	map64_clear(&s->by_ino);
	free(s->ready);
	memset(s, 0, sizeof(*s));
}

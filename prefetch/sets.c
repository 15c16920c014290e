/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/sets.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "cache/namespace.h"
#include "lib/clock.h"
#include "lib/list.h"
#include "lib/lock.h"
#include "lib/pool.h"
#include "prefetch/jobs.h"
#include "prefetch/records.h"
#include "prefetch/resume.h"

enum {
	JOIN_OPENS = 4, JOIN_UNITS = 3,     /* when siblings are taken to belong together */
	LISTERS = 8,
	RANGES_MAX = 64,
	RECORDS_FILES_MAX = 1024,           /* watched at a time */
};

struct range {
	uint64_t first, count;
	struct unit *unit;
};

/* A directory that will be read and was not listed yet. */
struct listing {
	struct work work;
	struct sets *sets;
	uint64_t key, dir;
};

int sets_open(struct sets *t, const struct sets_config *cfg)
{
	memset(t, 0, sizeof(*t));
	t->cfg = *cfg;
	return pool_new("list", LISTERS, &t->listers);
}

void sets_stop(struct sets *t)
{
	atomic_store(&t->is_closing, true);
	pool_free(t->listers);
	t->listers = NULL;
}

void sets_close(struct sets *t)
{
	struct records *r;
	struct set *s;
	size_t pos = 0;

	sets_stop(t);
	while ((s = map64_next(&t->by_key, &pos, NULL)))
		set_free(s);
	pos = 0;
	while ((r = map64_next(&t->records, &pos, NULL)))
		records_free(r);
	map64_clear(&t->by_key);
	map64_clear(&t->records);
	free(t->range);
}

/* ---- files ---- */

struct unit *sets_unit(const struct sets *t, uint64_t ino, uint32_t *ret_index)
{
	size_t low = 0, high = t->range_count;

	while (low < high) {
		size_t mid = (low + high) / 2;

		if (t->range[mid].first + t->range[mid].count <= ino)
			low = mid + 1;
		else
			high = mid;
	}
	if (low == t->range_count || ino < t->range[low].first)
		return NULL;
	*ret_index = (uint32_t)(ino - t->range[low].first);
	return t->range[low].unit;
}

static int by_first(const void *a, const void *b)
{
	uint64_t x = ((const struct range *)a)->first, y = ((const struct range *)b)->first;

	return x < y ? -1 : x > y;
}

static bool add_range(struct sets *t, struct set *s, uint64_t dir, const struct ns_range *r)
{
	struct range *bigger = realloc(t->range, (t->range_count + 1) * sizeof(*bigger));
	struct unit *u;

	if (!bigger)
		return false;
	t->range = bigger;
	u = set_add_unit(s, dir, r->first, (uint32_t)r->count);
	if (!u)
		return false;
	resume_unit(s, u);
	for (struct set *j = s->next_job; j; j = j->next_job)
		set_add_unit(j, dir, r->first, (uint32_t)r->count);
	t->range[t->range_count++] = (struct range){ r->first, r->count, u };
	qsort(t->range, t->range_count, sizeof(*t->range), by_first);
	return true;
}

void sets_add_directory(struct sets *t, struct set *s, uint64_t dir)
{
	struct ns_range r[RANGES_MAX];
	long n = ns_ranges(t->cfg.ns, dir, r, RANGES_MAX);
	uint32_t index;

	for (long i = 0; i < n && i < RANGES_MAX; i++) {
		if (!sets_unit(t, r[i].first, &index) && r[i].count <= UINT32_MAX && !add_range(t, s, dir, &r[i]))
			return;
	}
}

struct set *sets_get(struct sets *t, uint64_t key)
{
	struct set *s = map64_get(&t->by_key, key);

	if (s)
		return s;
	s = calloc(1, sizeof(*s));
	if (!s || map64_put(&t->by_key, key, s)) {
		free(s);
		return NULL;
	}
	s->parent = key;
	s->epoch_started_ns = clock_ns();
	t->cfg.is_new(t->cfg.arg, s);
	return s;
}

/* Directories are read one after the other: what was begun alone belongs to @s, and what was read through is behind the reader. */
static void take_in(struct sets *t, struct set *s)
{
	struct set *l;
	uint64_t key;
	size_t pos = 0;

	if (s->alone_below)
		set_unturn(s);
	while ((l = map64_next(&t->by_key, &pos, &key))) {
		if (l->above != s)
			continue;
		if (l->epoch)
			set_unturn(l);
		jobs_dissolve(s);
		jobs_dissolve(l);
		if (set_absorb(s, l))
			continue;
		map64_remove(&t->by_key, key);
		set_free(l);
		pos = 0;
	}
}

struct set *sets_home(struct sets *t, uint64_t dir, uint64_t parent)
{
	struct set *s = sets_get(t, dir == NS_ROOT ? 0 : parent), *alone;

	if (s && s->was_read_through && !s->is_joined && ++s->alone_below < JOIN_UNITS - 1 && (alone = sets_get(t, ALONE_KEY | dir))) {
		alone->above = s;
		s = alone;
	} else if (s) {
		take_in(t, s);
	}
	if (s)
		sets_add_directory(t, s, dir);
	return s;
}

/* ---- siblings ---- */

static int sibling_add(void *arg, const char *name, const struct ns_attr *attr)
{
	struct siblings *s = arg;

	(void)name;
	if (S_ISDIR(attr->mode))
		s->dir[s->count++] = attr->ino;
	return s->count == sizeof(s->dir) / sizeof(s->dir[0]);
}

void siblings_of(struct sets *t, uint64_t dir, struct siblings *ret)
{
	ret->count = 0;
	ns_readdir(t->cfg.ns, dir, NS_ROOT, sibling_add, ret);
}

static void list_now(struct work *w)
{
	struct listing *l = container_of(w, struct listing, work);
	struct sets *t = l->sets;
	struct set *s;

	if (!atomic_load(&t->is_closing) && !ns_list(t->cfg.ns, l->dir, 0)) {
		lock_acquire(t->cfg.lock);
		s = map64_get(&t->by_key, l->key);
		if (s)
			sets_add_directory(t, s, l->dir);
		lock_release(t->cfg.lock);
		t->cfg.listed(t->cfg.arg);
	}
	free(l);
}

static void list_ahead(struct sets *t, uint64_t key, uint64_t dir)
{
	struct listing *l = calloc(1, sizeof(*l));

	if (!l)
		return;
	*l = (struct listing){ { .run = list_now }, t, key, dir };
	pool_submit(t->listers, &l->work);
}

static size_t directories_of(const struct set *s)
{
	size_t n = 0;

	for (size_t i = 0; i < s->unit_count; i++)
		n += i == 0 || s->unit[i]->dir != s->unit[i - 1]->dir;
	return n;
}

void sets_join_siblings(struct sets *t, struct set *s)
{
	struct siblings *found;

	if (s->is_joined || !s->parent || s->parent & KEY_KINDS || s->opens < JOIN_OPENS || directories_of(s) < JOIN_UNITS)
		return;
	found = calloc(1, sizeof(*found));
	if (!found)
		return;
	siblings_of(t, s->parent, found);
	for (size_t i = 0; i < found->count; i++) {
		if (ns_list(t->cfg.ns, found->dir[i], NS_NOWAIT) == -EAGAIN)
			list_ahead(t, s->parent, found->dir[i]);
		else
			sets_add_directory(t, s, found->dir[i]);
	}
	free(found);
	s->is_joined = true;
}

struct set *sets_below(struct sets *t, uint64_t dir, uint64_t parent, const struct siblings *classes)
{
	struct set *s;

	if (!classes->count) {
		s = map64_get(&t->by_key, ALONE_KEY | dir);
		if (!s)
			s = sets_get(t, dir == NS_ROOT ? 0 : parent);
		if (s)
			sets_add_directory(t, s, dir);
		return s;
	}
	s = sets_get(t, dir);
	for (size_t i = 0; s && i < classes->count; i++)
		sets_add_directory(t, s, classes->dir[i]);
	if (s)
		s->is_joined = true;
	return s;
}

struct set *sets_add_job(struct sets *t, struct set *s)
{
	struct set *job;

	for (job = s->next_job; job && !(job->is_over && job->unit_count == s->unit_count); job = job->next_job)
		;
	if (job) {
		set_restart(job);
	} else {
		uint64_t key = s->parent | (uint64_t)(t->jobs + 1) << JOB_SHIFT;

		job = t->jobs < JOBS_MAX ? calloc(1, sizeof(*job)) : NULL;
		if (!job || map64_put(&t->by_key, key, job)) {
			free(job);
			return NULL;
		}
		t->jobs++;
		job->parent = key;
		job->is_joined = true;
		for (size_t i = 0; i < s->unit_count; i++) {
			if (!set_add_unit(job, s->unit[i]->dir, s->unit[i]->first, s->unit[i]->count))
				return NULL;
		}
		job->next_job = s->next_job;
		s->next_job = job;
	}
	job->unfit = s->unfit;
	job->records = s->records;
	job->follow.is_of_records = s->follow.is_of_records;
	return job;
}

/* ---- records ---- */

struct records *sets_records(struct sets *t, uint64_t ino, uint64_t size)
{
	struct records *r = map64_get(&t->records, ino);

	if (r && r->size == size)
		return r;
	if (r && r->set)
		return NULL;   /* it changed: read as any file until the next mount */
	if (r)
		records_free(map64_remove(&t->records, ino));
	r = t->records.count < RECORDS_FILES_MAX ? records_new(ino, size) : NULL;
	if (r && map64_put(&t->records, ino, r)) {
		records_free(r);
		r = NULL;
	}
	return r;
}

struct set *sets_add_records(struct sets *t, struct records *r)
{
	struct set *s = sets_get(t, RECORDS_KEY | r->ino);

	struct unit *u = s ? set_add_unit(s, 0, 0, (uint32_t)r->geometry.count) : NULL;

	if (!u)
		return NULL;
	resume_unit(s, u);
	s->is_joined = true;
	s->records = r;
	s->follow.is_of_records = true;
	r->set = s;
	return s;
}

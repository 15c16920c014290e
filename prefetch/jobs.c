/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/jobs.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/clock.h"
#include "prefetch/set.h"
#include "prefetch/sets.h"

enum {
	CLAIMS_MAX = 8,            /* leaders that are told apart on a set */
	/*
	 * Ranks that begin a new epoch early (an aborted one) take each other's items too, but of so many one is
	 * their own, as there are ranks; 32 by chance without one of its own: 1.4 % for 8 ranks.
	 */
	FOREIGN_MIN = 32, FOREIGN_RATIO = 16,
	ANCESTORS_MAX = 32,
};

#define CLAIM_LIVE_NS (5 * NSEC_PER_SEC)    /* who read so lately reads on */
#define LEADER_VALID_NS (10 * NSEC_PER_SEC) /* a pid is not reused by another program within */

/* What one leader's processes have read in this epoch. */
struct claim {
	uint32_t leader;
	uint64_t opens, last_ns;
	uint64_t own, foreign;     /* of what was read before, by itself and only by others */
	uint8_t *bits;             /* the items; owned */
};

struct claims {
	struct claim claim[CLAIMS_MAX];
	unsigned count;
	uint32_t items;            /* for which there are bits */
};

/* ---- leaders ---- */

/* The process of a thread, its parent and its program. */
static bool process_of(uint32_t pid, uint32_t *ret_process, uint32_t *ret_parent, char *program, size_t size)
{
	char path[64], line[128];
	FILE *f;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%u/status", pid);
	f = fopen(path, "re");
	if (!f)
		return false;
	*ret_process = *ret_parent = 0;
	while (fgets(line, sizeof(line), f) && !*ret_parent) {
		if (sscanf(line, "Tgid: %u", ret_process) != 1)
			sscanf(line, "PPid: %u", ret_parent);
	}
	fclose(f);
	snprintf(path, sizeof(path), "/proc/%u/exe", pid);
	n = readlink(path, program, size - 1);
	if (n > 0)
		program[n] = 0;
	return n > 0 && *ret_process;
}

static uint32_t find_leader(uint32_t pid)
{
	char program[512], above[512];
	uint32_t process, parent, next, grandparent;

	if (!pid || !process_of(pid, &process, &parent, program, sizeof(program)))
		return 0;
	for (int i = 0; i < ANCESTORS_MAX && parent > 1; i++) {
		if (!process_of(parent, &next, &grandparent, above, sizeof(above)) || strcmp(program, above))
			break;
		process = next;
		parent = grandparent;
	}
	return process;
}

uint32_t jobs_leader(struct leaders *l, uint32_t pid, uint64_t now_ns)
{
	size_t i = pid % LEADERS;

	if (l->entry[i].pid != pid || now_ns - l->entry[i].checked_ns > LEADER_VALID_NS) {
		uint32_t leader = find_leader(pid);

		/* a reader that is gone by now is who it was */
		if (l->entry[i].pid != pid || leader)
			l->entry[i].leader = leader;
		l->entry[i].pid = pid;
		l->entry[i].checked_ns = now_ns;
	}
	return l->entry[i].leader;
}

/* ---- claims ---- */

static bool bit(const struct claim *c, uint32_t i)
{
	return c->bits[i / 8] >> i % 8 & 1;
}

/* Room for all items of @s, as it grows. */
static bool claims_fit(struct set *s)
{
	struct claims *all = s->claims;

	if (!all)
		all = s->claims = calloc(1, sizeof(*all));
	if (!all || all->items >= s->items)
		return all != NULL;
	for (unsigned i = 0; i < all->count; i++) {
		size_t old = all->items / 8 + 1, size = s->items / 8 + 1;
		uint8_t *bigger = realloc(all->claim[i].bits, size);

		if (!bigger)
			return false;
		memset(bigger + old, 0, size - old);
		all->claim[i].bits = bigger;
	}
	all->items = (uint32_t)s->items;
	return true;
}

static void claim_remove(struct claims *all, struct claim *c)
{
	struct claim *last = &all->claim[--all->count];

	free(c->bits);
	*c = *last;
	*last = (struct claim){ 0 };
}

static struct claim *claim_of(struct claims *all, uint32_t leader)
{
	struct claim *c = NULL;

	for (unsigned i = 0; i < all->count; i++) {
		if (all->claim[i].leader == leader)
			return &all->claim[i];
		if (!c || all->claim[i].last_ns < c->last_ns)
			c = &all->claim[i];
	}
	if (all->count < CLAIMS_MAX)
		c = &all->claim[all->count++];
	/* else in the place of the one that was quiet for longest */
	free(c->bits);
	*c = (struct claim){ .leader = leader, .bits = calloc(all->items / 8 + 1, 1) };
	if (c->bits)
		return c;
	claim_remove(all, c);
	return NULL;
}

static void claims_clear(struct set *s)
{
	while (s->claims && s->claims->count)
		claim_remove(s->claims, s->claims->claim);
	if (s->claims)
		s->claims->items = 0;
}

/* Of @c and the others that read on, the one that read least; 0 if there are no others. */
static uint32_t who_leaves(const struct claims *all, const struct claim *c, uint64_t now_ns)
{
	const struct claim *least = c;
	bool has_others = false;

	for (unsigned i = 0; i < all->count; i++) {
		const struct claim *o = &all->claim[i];

		if (o == c || o->opens < FOREIGN_MIN || now_ns - o->last_ns > CLAIM_LIVE_NS)
			continue;
		has_others = true;
		if (o->opens < least->opens)
			least = o;
	}
	return has_others ? least->leader : 0;
}

uint32_t jobs_saw(struct set *s, uint32_t item, bool was_consumed, uint32_t leader, uint64_t now_ns)
{
	struct claim *c = leader && claims_fit(s) ? claim_of(s->claims, leader) : NULL;
	bool is_own;

	if (!c)
		return 0;
	is_own = bit(c, item);
	c->bits[item / 8] |= (uint8_t)(1 << item % 8);
	c->opens++;
	c->last_ns = now_ns;
	s->leader = leader;
	if (!was_consumed)
		return 0;
	c->own += is_own;
	c->foreign += !is_own;
	if (is_own || c->foreign < FOREIGN_MIN || c->own * FOREIGN_RATIO > c->foreign)
		return 0;
	return who_leaves(s->claims, c, now_ns);
}

void jobs_turned(struct set *s)
{
	claims_clear(s);
}

/* ---- jobs ---- */

struct set *jobs_set(struct set *s, uint32_t leader)
{
	for (struct set *j = s->next_job; j && leader; j = j->next_job) {
		if (j->leader == leader && !j->is_over)
			return j;
	}
	return s;
}

/* The bookkeeping of readers goes with them. */
static void split_readers(struct set *s, struct set *job, uint32_t leader, struct leaders *l, uint64_t now_ns)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < s->follow.stream_count; i++) {
		const struct recognise_stream *r = &s->follow.stream[i];

		if (jobs_leader(l, r->pid, now_ns) == leader)
			job->follow.stream[job->follow.stream_count++] = *r;
		else
			s->follow.stream[kept++] = *r;
	}
	s->follow.stream_count = kept;
	follow_split(&s->follow);
	follow_split(&job->follow);
}

/* What only @c has read is unread for the others. */
static void split_items(struct set *s, struct set *job, const struct claim *c)
{
	const struct claims *all = s->claims;

	for (size_t n = 0; n < s->unit_count; n++) {
		struct unit *u = s->unit[n], *v = job->unit[n];

		for (uint32_t k = 0; k < u->count; k++) {
			uint32_t i = u->base + k;
			bool is_others = false;

			v->item[k] = (v->item[k] & ITEM_IN_FLIGHT) | (u->item[k] & (ITEM_RESIDENT | ITEM_UNFIT));
			if (i >= all->items || !bit(c, i))
				continue;
			v->item[k] |= ITEM_CONSUMED;
			job->consumed++;
			for (unsigned o = 0; o < all->count && !is_others; o++)
				is_others = &all->claim[o] != c && bit(&all->claim[o], i);
			if (!is_others && u->item[k] & ITEM_CONSUMED) {
				u->item[k] &= (uint8_t)~ITEM_CONSUMED;
				s->consumed--;
			}
		}
		u->is_exhausted = v->is_exhausted = false;
	}
}

struct set *jobs_split(struct sets *t, struct set *s, uint32_t leader, struct leaders *l, uint64_t now_ns)
{
	struct claim *c = claim_of(s->claims, leader);
	struct set *job = c ? sets_add_job(t, s) : NULL;

	if (!job)
		return NULL;
	job->leader = leader;
	job->opens = job->consumed;
	job->bytes_seen = s->bytes_seen;
	job->sizes_seen = s->sizes_seen;
	job->is_confirmed = s->is_confirmed;
	job->epoch_started_ns = s->epoch_started_ns;
	job->last_ns = s->last_ns;
	split_items(s, job, c);
	split_readers(s, job, leader, l, now_ns);
	s->rereads_in_row = 0;
	s->has_split = job->has_split = true;
	claim_remove(s->claims, c);
	for (unsigned i = 0; i < s->claims->count; i++) {
		s->claims->claim[i].own = s->claims->claim[i].foreign = 0;
		s->leader = s->leader == leader ? s->claims->claim[i].leader : s->leader;
	}
	return job;
}

void jobs_check(struct set *s)
{
	if (!s->next_job)
		return;
	for (; s; s = s->next_job)
		s->is_over = s->leader && kill((pid_t)s->leader, 0) && errno == ESRCH;
}

bool jobs_are_several(const struct set *s)
{
	unsigned n = 0;

	for (; s; s = s->next_job)
		n += !s->is_over;
	return n > 1;
}

void jobs_dissolve(struct set *s)
{
	struct set *next;

	for (struct set *j = s->next_job; j; j = next) {
		next = j->next_job;
		j->next_job = NULL;
		j->is_over = true;
	}
	s->next_job = NULL;
	claims_clear(s);
}

void jobs_free(struct set *s)
{
	claims_clear(s);
	free(s->claims);
	s->claims = NULL;
}

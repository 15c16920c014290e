/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/sampled.h"
#include <stdlib.h>
#include "prefetch/prefetch.h"
#include "prefetch/set.h"

enum {
	PAGE = 4096,
	HEAD_BYTES = 256 * 1024,     /* of a shard: its index, and the kernel's first read-ahead */
	SLACK_BYTES = 256 * 1024,    /* requests of one reader arrive out of order by as much */
	OPENS_MIN = 64,              /* before their mean is taken */
	SHARE = 16,                  /* one sixteenth: by which what is known of a file's reads may be off */
};

static uint32_t pages_of(uint64_t size)
{
	return (uint32_t)((size + PAGE - 1) / PAGE);
}

bool sampled_is_read(const struct set *s, const struct unit *u, uint32_t index, uint64_t size)
{
	const struct progress *p = u->progress ? &u->progress[index] : NULL;
	const struct sampled *m = &s->sampled;
	uint64_t pages;

	if (!p)
		return false;
	if (p->usual)
		return p->opens >= p->usual - p->usual / SHARE;
	pages = m->opens >= OPENS_MIN ? (uint64_t)p->opens * m->pages / m->opens : 0;
	if (pages < p->pages)
		pages = p->pages;
	return pages >= pages_of(size) - pages_of(size) / SHARE;
}

static void note_begun(struct sampled *m, uint32_t item)
{
	if (m->begun_count == m->begun_size) {
		uint32_t size = m->begun_size ? 2 * m->begun_size : 64;
		uint32_t *bigger = realloc(m->begun, size * sizeof(*bigger));

		if (!bigger)
			return;   /* it is fetched with the rest of the unread */
		m->begun = bigger;
		m->begun_size = size;
	}
	m->begun[m->begun_count++] = item;
}

/* What was opened counted as read: those that still have most of it ahead are begun. */
static void begin(struct set *s)
{
	struct sampled *m = &s->sampled;

	m->is_on = true;
	s->is_confirmed = true;
	for (size_t n = 0; n < s->unit_count; n++) {
		struct unit *u = s->unit[n];

		for (uint32_t k = 0; u->progress && k < u->count; k++) {
			if (!u->progress[k].opens || !(u->item[k] & ITEM_CONSUMED))
				continue;
			u->item[k] &= (uint8_t)~ITEM_CONSUMED;
			s->consumed--;
			note_begun(m, u->base + k);
		}
		u->is_exhausted = false;
	}
	s->rereads_in_row = 0;
}

static bool has_sampled_look(const struct progress *p)
{
	return p->opens >= SAMPLED_OPENS && p->jumps >= SAMPLED_JUMPS;
}

/* @p has changed in that respect. */
static void look(struct set *s, const struct progress *p, bool had_look)
{
	if (had_look || !has_sampled_look(p) || s->sampled.is_on || s->items - s->unfit < SAMPLED_LEAST || s->records)
		return;
	if (++s->sampled.evidence >= SAMPLED_ITEMS)
		begin(s);
}

/* Opened more often than it is in an epoch, which is known to an eighth. */
static bool is_over_read(const struct progress *p)
{
	return p->usual && p->opens > p->usual + p->usual / 8 + 1;
}

enum sampled_event sampled_open(struct set *s, struct unit *u, uint32_t index, bool is_hidden)
{
	struct sampled *m = &s->sampled;
	struct progress *p;
	bool had_look;

	if (!u->progress)
		u->progress = calloc(u->count ? u->count : 1, sizeof(*u->progress));
	if (!u->progress)
		return SAMPLED_WHOLE;
	p = &u->progress[index];
	had_look = has_sampled_look(p);
	p->opens++;
	m->all_opens++;
	m->opens += !is_hidden && !p->usual;
	look(s, p, had_look);
	if (!m->is_on)
		return SAMPLED_WHOLE;
	if (p->opens == 1) {
		note_begun(m, u->base + index);
		return SAMPLED_BEGUN;
	}
	return is_over_read(p) ? SAMPLED_REREAD : SAMPLED_AGAIN;
}

/* Did the reader jump to @o's place, rather than go on or begin at the file's head? */
static bool is_jump(struct sampled *m, uint32_t item, const struct observation *o)
{
	uint32_t i = o->pid % SAMPLED_READERS;
	bool goes_on = m->reader[i].pid == o->pid && m->reader[i].item == item &&
		       o->offset <= m->reader[i].end + SLACK_BYTES && o->offset + SLACK_BYTES >= m->reader[i].end;
	uint64_t end = o->offset + o->len;

	m->reader[i].end = goes_on && m->reader[i].end > end ? m->reader[i].end : end;
	m->reader[i].pid = o->pid;
	m->reader[i].item = item;
	return !goes_on && o->offset >= HEAD_BYTES;
}

static void note_pages(struct sampled *m, struct progress *p, uint64_t size, const struct observation *o)
{
	uint32_t end = pages_of(o->offset + o->len < size ? o->offset + o->len : size);

	if (!p->page)
		p->page = calloc(pages_of(size) / 8 + 1, 1);
	for (uint32_t i = (uint32_t)(o->offset / PAGE); p->page && i < end; i++) {
		if (p->page[i / 8] >> i % 8 & 1)
			continue;
		p->page[i / 8] |= (uint8_t)(1 << i % 8);
		p->pages++;
		m->pages++;
	}
}

void sampled_read(struct set *s, struct unit *u, uint32_t index, uint64_t size, const struct observation *o)
{
	struct sampled *m = &s->sampled;
	struct progress *p = u->progress ? &u->progress[index] : NULL;
	bool had_look;

	if (!p)
		return;
	had_look = has_sampled_look(p);
	if (!p->usual)
		note_pages(m, p, size, o);
	p->jumps += is_jump(m, u->base + index, o);
	look(s, p, had_look);
}

bool sampled_may_turn(const struct set *s)
{
	return s->sampled.all_opens * 4 >= s->sampled.last_opens * 3;
}

void sampled_consumed(struct unit *u, uint32_t index)
{
	struct progress *p = &u->progress[index];

	/* it was consumed when a sixteenth of it was left */
	if (!p->usual)
		p->usual = p->opens + p->opens / (SHARE - 1);
	free(p->page);
	p->page = NULL;
}

void sampled_again(struct set *s)
{
	struct sampled *m = &s->sampled;
	uint32_t k;
	struct unit *u = m->extent && m->cursor < m->begun_count ? set_item(s, m->begun[m->cursor], &k) : NULL;

	if (u)
		u->item[k] &= (uint8_t)~ITEM_IN_FLIGHT;   /* its last extent was not asked for */
	m->cursor = m->extent = 0;
}

/*
 * The epoch is over for @p: that was noticed somewhat early or late. What was opened about as often as it is usually
 * was not opened in the next one yet, so the count is right; what was opened more often has begun with it.
 */
static void progress_turn(struct progress *p, bool is_consumed, bool was_whole)
{
	uint32_t over = 0;

	if (is_consumed && is_over_read(p))
		over = p->opens - p->usual;
	else if (was_whole && p->usual && p->opens >= p->usual - p->usual / 8)
		p->usual = p->opens;
	free(p->page);
	*p = (struct progress){ .usual = p->usual, .opens = over };
}

void sampled_turn(struct set *s)
{
	struct sampled *m = &s->sampled;
	bool was_whole = s->consumed * 4 >= (s->items - s->unfit) * 3;   /* the rest by estimates that fell short */

	m->last_opens = m->is_on ? m->all_opens : 0;
	m->pages = m->opens = m->all_opens = m->evidence = 0;
	m->begun_count = m->cursor = m->extent = 0;
	for (size_t n = 0; n < s->unit_count; n++) {
		struct unit *u = s->unit[n];

		for (uint32_t k = 0; u->progress && k < u->count; k++) {
			progress_turn(&u->progress[k], m->is_on && u->item[k] & ITEM_CONSUMED, was_whole);
			if (u->progress[k].opens > 0)
				note_begun(m, u->base + k);
		}
	}
}

void sampled_free(struct set *s)
{
	free(s->sampled.begun);
}

void sampled_free_unit(struct unit *u)
{
	for (uint32_t k = 0; u->progress && k < u->count; k++)
		free(u->progress[k].page);
	free(u->progress);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What was read: the sets, epochs, orders, records and streams that it belongs to. */
#include "prefetch/engine.h"
#include <stdlib.h>
#include <sys/stat.h>
#include "lib/log.h"
#include "prefetch/profile.h"
#include "prefetch/records.h"
#include "prefetch/resume.h"

#define PAGES_IN_ROW 8                       /* requests for a page alone: what the kernel leaves out of a longer one is seldom so short */
#define SOON_NS (250 * NSEC_PER_MSEC)       /* between two opens of one sample */


/* Have the order recognised, if now is a moment for it. Lock held. */
void accesses_ask(struct prefetch *p, struct set *s, uint64_t now_ns)
{
	struct recognise_job *job = p->recogniser ? follow_ask(&s->follow, s, now_ns) : NULL;

	if (job)
		recogniser_submit(p->recogniser, job);
}

/* The share of the epoch's time that its readers did not wait: so much faster they would have read. Lock held. */
static double unstalled_share(struct prefetch *p, struct set *s, uint64_t now_ns)
{
	uint64_t stalled_ns = stats_read(p->stats, STAT_READS_STALL_NS), ns = now_ns - s->epoch_started_ns;
	double readers = s->follow.stream_count ? s->follow.stream_count : 1;
	double share = ns ? 1 - (double)(stalled_ns - s->stalled_before_ns) / (readers * (double)ns) : 1;

	s->stalled_before_ns = stalled_ns;
	return share < 0.05 ? 0.05 : share;
}

/* An epoch is over: if it was read whole and is to be recorded, it is kept until it can be written. Lock held. */
static void record_profile(struct prefetch *p, struct set *s)
{
	if (!s->record || p->profile || s->consumed * 10 < (s->items - s->unfit) * 9)
		return;
	p->profile = profile_make(s, &p->profile_len);
	if (!p->profile)
		return;
	p->profile_name = s->record;
	s->record = NULL;
}

static void turn(struct prefetch *p, struct set *s, uint64_t now_ns)
{
	double share = unstalled_share(p, s, now_ns);
	uint64_t left[PREDICTOR_COUNT] = { 0 };

	record_profile(p, s);
	set_turn(s, now_ns, left);
	ahead_turn(&p->ahead, s);
	s->consumed_bytes_per_s /= share;
	for (int by = 0; by < PREDICTOR_COUNT; by++) {
		stats_add(p->stats, STAT_PREFETCH_WASTED_BYTES, left[by] * set_item_bytes(s));
		stats_add(p->stats, predictor_table[by].wrong, left[by]);
	}
	if (s->records && !jobs_are_several(s->records->set))
		cache_release_pieces(p->cache, s->records->ino, 0, s->records->size);
	accesses_ask(p, s, now_ns);
}

/* The recogniser's answer. */
void accesses_recognised(void *arg, struct recognise_job *job)
{
	struct prefetch *p = arg;
	void *note = NULL;
	struct set *s;
	char name[NOTE_NAME];
	size_t len;

	lock_acquire(&p->lock);
	s = map64_get(&p->sets.by_key, job->set);
	if (s && s->epoch == job->epoch && follow_install(&s->follow, job)) {
		if (s->resumed || s->has_split)
			resume_order(s, s->follow.order);
		s->blocked_at = 0;
		s->order_extent = 0;
		note = s->parent & JOB_KEY ? NULL : follow_save(&s->follow, &len);
	} else if (s && s->epoch != job->epoch && follow_learn(&s->follow, job)) {
		accesses_ask(p, s, clock_ns());
	}
	lock_release(&p->lock);
	remember_name("orders", job->set, name, sizeof(name));
	if (note && cache_note_put(p->cache, name, note, len))
		log_warn("what was recognised is not remembered for the next run");
	free(note);
	recognise_job_free(job);
	prefetch_wake(p);
}

/*
 * Was it opened by the same reader a moment ago? Such a second open is the
 * same access; one that comes soon is even when an epoch ended in between.
 */
static bool is_same_access(struct prefetch *p, const struct observation *o, bool is_consumed)
{
	for (unsigned i = 0; i < RECENT; i++) {
		if (p->recent[i].ino == o->ino && p->recent[i].pid == o->pid)
			return is_consumed || o->time_ns - p->recent[i].time_ns < SOON_NS;
	}
	p->recent[p->recent_at++ % RECENT] = (struct recent){ o->ino, o->time_ns, o->pid };
	return false;
}

/* An item was read for the first time in this epoch. Lock held. */
static void consumed(struct prefetch *p, struct unit *u, uint32_t index, uint64_t bytes)
{
	uint8_t *item = &u->item[index];
	struct set *s = u->set;

	s->bytes_seen += bytes;
	s->sizes_seen++;
	if (*item & ITEM_STAGED) {
		*item &= (uint8_t)~ITEM_STAGED;
		if (s->staged)
			s->staged--;
		stats_inc(p->stats, *item & ITEM_IN_FLIGHT ? STAT_PREFETCH_LATE : STAT_PREFETCH_USED);
		if (!(*item & ITEM_IN_FLIGHT)) {
			stats_add(p->stats, STAT_PREFETCH_USED_BYTES, bytes);
			stats_inc(p->stats, predictor_table[*item >> ITEM_BY_SHIFT].used);
		}
	}
}

/* The same item as the reader's job has it. Lock held. */
static struct unit *of_job(struct unit *u, uint32_t *index, uint32_t leader)
{
	struct set *s = jobs_set(u->set, leader);

	return s == u->set ? u : set_item(s, u->base + *index, index);
}

/* Is who reads item @i of @s another job than who has read it? Lock held. */
static void tell_jobs_apart(struct prefetch *p, struct set *s, uint32_t i, bool was_consumed, uint32_t leader, uint64_t now_ns)
{
	uint32_t leaver = jobs_saw(s, i, was_consumed, leader, now_ns);
	struct set *job = leaver ? jobs_split(&p->sets, s, leaver, &p->leaders, now_ns) : NULL;

	if (!job)
		return;
	log_info("process %u reads the items of process %u: a job of its own", leaver, s->leader);
	accesses_ask(p, s, now_ns);
	accesses_ask(p, job, now_ns);
}

/* An item was read: from which place, so that the next ones are put there. Lock held. */
static void note_place(struct prefetch *p, struct unit *u, uint32_t index, const struct observation *o)
{
	struct order *order = u->set->follow.order;

	p->has_places |= o->place > 0;
	if (!p->has_places)
		return;
	if (!u->place)
		u->place = calloc(u->count ? u->count : 1, 1);
	if (u->place)
		whereto_saw_item(&u->set->whereto, &u->place[index], o->place);
	if (order && order->seen_at != UINT32_MAX)
		whereto_saw_position(&u->set->whereto, order->seen_at, order->stride, o->pid, o->place);
}

/* An item of @bytes was opened, or a record read. Returns whether for the first time in this epoch. Lock held. */
static bool item_read(struct prefetch *p, struct unit *u, uint32_t index, uint64_t bytes, const struct observation *o)
{
	uint32_t leader = jobs_leader(&p->leaders, o->pid, o->time_ns);
	struct set *s = u->set;
	enum set_event event;

	s->is_over = false;
	if (!(s->parent & JOB_KEY))
		tell_jobs_apart(p, s, u->base + index, u->item[index] & ITEM_CONSUMED, leader, o->time_ns);
	if (jobs_set(s, leader) != s)
		return false;   /* it has just left, with this item */
	event = set_consume(s, u, index, o->time_ns);
	if (event == SET_REREAD && s->follow.order && order_is_at_end(s->follow.order) && s->rereads_in_row > REREADS_RECORDS)
		event = SET_TURNED;
	if (event == SET_TURNED) {
		turn(p, s, o->time_ns);
		event = set_consume(s, u, index, o->time_ns);
	}
	if (event == SET_READ) {
		p->consumed_count++;
		consumed(p, u, index, bytes);
		follow_saw(&s->follow, u->base + index, (uint32_t)s->items, o->pid);
		if (s->records && s->follow.order && order_is_left(s->follow.order, s->records->geometry.is_mapped && !s->records->is_by_page)) {
			/* many were not seen to be read: their pages came with others' */
			turn(p, s, o->time_ns);
			set_consume(s, u, index, o->time_ns);
			follow_saw(&s->follow, u->base + index, (uint32_t)s->items, o->pid);
		}
		if (!s->records)
			neighbours_saw(&s->neighbours, u->base + index, o->pid);
		note_place(p, u, index, o);
		accesses_ask(p, s, o->time_ns);
	}
	return event == SET_READ;
}

static void turn_if_over(struct prefetch *p, struct set *s, uint64_t now_ns)
{
	if (s->consumed >= s->items - s->unfit || (s->follow.order && order_is_done(s->follow.order)))
		turn(p, s, now_ns);
}

/* Extents [@from, @to) were read: they may go, if all jobs that want them have. Lock held. */
static void extents_consumed(struct prefetch *p, uint64_t ino, uint32_t from, uint32_t to)
{
	if (from < to && advice_class(p, extent_key(ino, from)) == CACHE_CONSUMED)
		cache_consumed(p->cache, ino, from, to);
}

/* An item of a sampled set was read through. Lock held. */
static void sample_set_consumed(struct prefetch *p, struct unit *u, uint32_t index, uint64_t bytes, uint64_t now_ns)
{
	struct set *s = u->set;

	set_consume(s, u, index, now_ns);
	sampled_consumed(u, index);
	p->consumed_count++;
	consumed(p, u, index, bytes);
	extents_consumed(p, u->first + index, 0, extents_of(bytes));
	turn_if_over(p, s, now_ns);
}

/* A file that is begun where the cache has no room: only what is asked for is worth fetching. Lock held. */
static void sample_begun(struct prefetch *p, struct unit *u, uint32_t index, const struct observation *o)
{
	struct set *s = u->set;

	cache_set_pattern(p->cache, u->first + index, &(struct cache_pattern){ .how = PATTERN_SHORT });
	follow_saw(&s->follow, u->base + index, (uint32_t)s->items, o->pid);
	note_place(p, u, index, o);
	accesses_ask(p, s, o->time_ns);
}

/* The set turned out to be one of samples: what is begun is read as such. Lock held. */
static void samples_begin(struct prefetch *p, const struct set *s)
{
	for (uint32_t i = 0; i < s->sampled.begun_count; i++) {
		uint32_t k;
		const struct unit *u = set_item(s, s->sampled.begun[i], &k);

		cache_set_pattern(p->cache, u->first + k, &(struct cache_pattern){ .how = PATTERN_SHORT });
	}
	log_info("the %llu files of a set are opened once for each of their samples", (unsigned long long)(s->items - s->unfit));
}

/* A large file was opened. Returns whether that is all there is to it. Lock held. */
static bool on_sample(struct prefetch *p, struct unit *u, uint32_t index, uint64_t size, const struct observation *o)
{
	struct set *s = u->set;
	bool was_on = s->sampled.is_on;
	enum sampled_event event = sampled_open(s, u, index, o->len);

	if (event == SAMPLED_WHOLE)
		return false;
	if (!was_on)
		samples_begin(p, s);
	s->opens++;
	s->last_ns = o->time_ns;
	s->is_over = false;
	if (event == SAMPLED_REREAD && u->item[index] & ITEM_CONSUMED && sampled_may_turn(s) &&
	    set_consume(s, u, index, o->time_ns) == SET_TURNED) {
		turn(p, s, o->time_ns);
		event = sampled_open(s, u, index, o->len);
	}
	if (event == SAMPLED_BEGUN)
		sample_begun(p, u, index, o);
	if (!(u->item[index] & ITEM_CONSUMED) && sampled_is_read(s, u, index, size))
		sample_set_consumed(p, u, index, size, o->time_ns);
	return true;
}

static void on_open(struct prefetch *p, const struct observation *o)
{
	uint32_t index, leader = jobs_leader(&p->leaders, o->pid, o->time_ns);
	struct ns_attr attr, dir;
	struct unit *u;
	struct set *s;

	if (ns_getattr(p->ns, o->ino, NS_NOCHECK | NS_NOWAIT, &attr) || !S_ISREG(attr.mode) ||
	    ns_getattr(p->ns, attr.parent, NS_NOCHECK | NS_NOWAIT, &dir))
		return;
	lock_acquire(&p->lock);
	u = sets_unit(&p->sets, o->ino, &index);
	if (!u && sets_home(&p->sets, dir.ino, dir.parent))
		u = sets_unit(&p->sets, o->ino, &index);
	if (u) {
		ahead_opened(&p->ahead, u, index, attr.version.size, o->time_ns);
		u = of_job(u, &index, leader);
	}
	if (!u || u->item[index] & ITEM_UNFIT || (attr.version.size > EXTENT_BYTES && on_sample(p, u, index, attr.version.size, o)) ||
	    is_same_access(p, o, u->item[index] & ITEM_CONSUMED)) {
		lock_release(&p->lock);
		return;
	}
	s = u->set;
	if (attr.version.size > EXTENT_BYTES)
		streams_open(&p->streams, o->ino, attr.version.size, o->time_ns);
	if (item_read(p, u, index, attr.version.size, o))
		extents_consumed(p, o->ino, 0, extents_of(attr.version.size));
	sets_join_siblings(&p->sets, s);
	turn_if_over(p, s, o->time_ns);
	lock_release(&p->lock);
}

/* A record was begun to be read. Lock held. */
static void record_read(struct prefetch *p, struct set *s, const struct observation *o)
{
	const struct geometry *g = &s->records->geometry;
	uint32_t index = (uint32_t)records_beginning(g, records_wanted(g, o->offset, o->len));
	struct unit *u;

	/* a format's own data, before the first record or on its page, is read in small bits */
	if (index == g->count || (!o->offset && o->len < g->bytes / 2))
		return;
	u = of_job(s->unit[0], &index, jobs_leader(&p->leaders, o->pid, o->time_ns));
	item_read(p, u, index, g->bytes, o);
	turn_if_over(p, u->set, o->time_ns);
}

/* A reader is done with a record: what was fetched for it and not asked for is not needed either. Lock held. */
static void release_record(struct prefetch *p, const struct records *r, const struct access *a)
{
	const struct geometry *g = &r->geometry;
	uint64_t i = a->end ? records_index(g, records_wanted(g, a->start, a->first_bytes)) : g->count, start, end;

	if (i == g->count)
		return;
	records_range(r, i, &start, &end);
	cache_release_pieces(p->cache, r->ino, start, end);
}

/* The file's records are known: they are the items now, not the file. Lock held. */
static void records_begin(struct prefetch *p, struct records *r, const struct observation *o)
{
	struct set *s = sets_add_records(&p->sets, r);
	uint32_t index;
	struct unit *u = sets_unit(&p->sets, r->ino, &index);

	if (!s)
		return;
	log_info("file %llu is read by %llu records of %llu bytes", (unsigned long long)r->ino,
		 (unsigned long long)r->geometry.count, (unsigned long long)r->geometry.bytes);
	if (u && !(u->item[index] & ITEM_UNFIT)) {
		u->set->consumed -= !!(u->item[index] & ITEM_CONSUMED);
		u->item[index] = ITEM_UNFIT;
		u->set->unfit++;
	}
	for (uint32_t i = 0; i < r->seen_count; i++) {
		struct observation past = *o;

		past.offset = r->seen[i].start;
		past.len = r->seen[i].first_bytes;
		past.pid = r->seen[i].pid;
		record_read(p, s, &past);
	}
}

/*
 * A mapped file is read page by page now, by who opened it since that was found. Of what was read before, next to
 * nothing was seen: an epoch begins, with what each reader has begun. Lock held.
 */
static void see_by_page(struct prefetch *p, struct records *r, const struct observation *o)
{
	r->is_by_page = true;
	turn(p, r->set, o->time_ns);
	for (uint32_t i = 0; i < r->readers; i++) {
		struct observation begun = *o;

		begun.offset = r->reader[i].start;
		begun.len = r->reader[i].first_bytes;
		begun.pid = r->reader[i].pid;
		if (r->reader[i].end && begun.len < RECORDS_AROUND / 2)
			record_read(p, r->set, &begun);
	}
}

/* How the file is read, for the cache's misses and the kernel's read-ahead. Lock held. */
static void tell_pattern(struct prefetch *p, struct records *r)
{
	struct cache_pattern pattern = { .how = PATTERN_SEQUENTIAL };

	if (r->is_random)
		pattern.how = r->geometry.is_mapped ? PATTERN_MAPPED : r->is_short ? PATTERN_SHORT : PATTERN_RANDOM;
	if (r->told == pattern.how)
		return;
	if (r->geometry.is_mapped)
		records_layout(&r->geometry, &pattern);
	cache_set_pattern(p->cache, r->ino, &pattern);
	r->told = pattern.how;
}

/* Returns whether the read belongs to records rather than to a stream. */
static bool on_record(struct prefetch *p, const struct observation *o, uint64_t size)
{
	struct records *r = size >= RECORDS_FILE_BYTES ? sets_records(&p->sets, o->ino, size) : NULL;
	enum records_event event;

	if (!r || p->cfg.mode != PREFETCH_AUTO)
		return false;
	event = records_saw(r, o);
	if (event == RECORDS_FOUND && p->cfg.recognise)
		records_begin(p, r, o);
	if (r->set && r->told == PATTERN_MAPPED && !r->is_by_page && r->pages_in_row == PAGES_IN_ROW)
		see_by_page(p, r, o);
	if (r->set && event != RECORDS_CONTINUED) {
		release_record(p, r, &r->last);
		record_read(p, r->set, o);
	}
	tell_pattern(p, r);
	return r->is_random;
}

/* The same of a file that may be one of samples. Returns whether it is. Lock held. */
static bool on_sample_read(struct prefetch *p, const struct observation *o, uint64_t size)
{
	uint32_t index;
	struct unit *u = sets_unit(&p->sets, o->ino, &index);
	bool was_on;

	u = u ? of_job(u, &index, jobs_leader(&p->leaders, o->pid, o->time_ns)) : NULL;
	if (!u || p->cfg.mode != PREFETCH_AUTO)
		return false;
	was_on = u->set->sampled.is_on;
	sampled_read(u->set, u, index, size, o);
	if (u->set->sampled.is_on && !was_on)
		samples_begin(p, u->set);
	if (u->set->sampled.is_on && !(u->item[index] & (ITEM_CONSUMED | ITEM_UNFIT)) && sampled_is_read(u->set, u, index, size))
		sample_set_consumed(p, u, index, size, o->time_ns);
	return u->set->sampled.is_on;
}

static void on_read(struct prefetch *p, const struct observation *o)
{
	struct ns_attr attr;
	unsigned used = 0;

	lock_acquire(&p->lock);
	p->read_bytes += o->len;
	lock_release(&p->lock);
	if (ns_getattr(p->ns, o->ino, NS_NOCHECK | NS_NOWAIT, &attr) || attr.version.size <= EXTENT_BYTES)
		return;
	lock_acquire(&p->lock);
	if (!on_sample_read(p, o, attr.version.size) && !on_record(p, o, attr.version.size)) {
		uint32_t before = streams_at(&p->streams, o->ino, o->time_ns), behind;

		used = streams_read(&p->streams, o, attr.version.size);
		behind = streams_at(&p->streams, o->ino, o->time_ns);
		extents_consumed(p, o->ino, before, behind == UINT32_MAX ? extents_of(attr.version.size) : behind);
	}
	lock_release(&p->lock);
	stats_add(p->stats, STAT_PREFETCH_READAHEAD_USED, used);
	stats_add(p->stats, STAT_PREFETCH_USED, used);
	stats_add(p->stats, STAT_PREFETCH_USED_BYTES, (uint64_t)used * EXTENT_BYTES);
}

/* A small file's bytes are not in the page cache, whatever was believed. */
static void on_asked(struct prefetch *p, const struct observation *o)
{
	struct ns_attr attr;
	struct unit *u;
	uint32_t index;

	if (ns_getattr(p->ns, o->ino, NS_NOCHECK | NS_NOWAIT, &attr))
		return;
	lock_scope(&p->lock);
	u = sets_unit(&p->sets, o->ino, &index);
	if (u)
		ahead_asked(&p->ahead, u, index, attr.version.size, o->time_ns);
}

void accesses_take(struct prefetch *p, const struct observation *o)
{
	lock_acquire(&p->lock);
	if (!p->first_ns)
		p->first_ns = o->time_ns;
	p->is_short_of_memory = false;
	lock_release(&p->lock);
	if (o->kind == OBSERVE_OPEN && p->cfg.mode == PREFETCH_AUTO)
		on_open(p, o);
	else if (o->kind == OBSERVE_ASKED)
		on_asked(p, o);
	else if (o->kind == OBSERVE_READ && p->cfg.mode != PREFETCH_OFF)
		on_read(p, o);
}

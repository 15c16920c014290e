/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread: takes observations, keeps sets and streams, asks the cache.
 *
 *   prefetch_observe -> queue -> take_observation -> on_open / on_read / on_list
 *                                     |
 *   main loop:  issue_streams (read-ahead), issue_sets (unread) -> cache_want
 *                                     ^                               |
 *                                     +------- fetch_done <-----------+
 *
 * The lock guards sets, streams and the governor, as the cache's advisor and
 * the fetches' ends come from other threads. It is never held while calling
 * cache_want, which may evict and so ask the advisor.
 */
#include "prefetch/prefetch.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "cache/cache.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "lib/map64.h"
#include "lib/pool.h"
#include "lib/stats.h"
#include "lib/strbuf.h"
#include "prefetch/ahead.h"
#include "prefetch/governor.h"
#include "prefetch/jobs.h"
#include "prefetch/observe.h"
#include "prefetch/plan.h"
#include "prefetch/predictor.h"
#include "prefetch/profile.h"
#include "prefetch/recognise.h"
#include "prefetch/records.h"
#include "prefetch/resume.h"
#include "prefetch/set.h"
#include "prefetch/sets.h"
#include "prefetch/stream.h"

enum {
	RANK_PREFETCH = 10,
	NOTE_NAME = 32,
	RECENT = 64,                        /* an item opened again at once is one access */
	JSON_MAX = 56 * 1024,               /* an attribute holds 64 KiB */
};

#define NOTE_PLANS "plans"
#define SET_LIVE_NS (600 * NSEC_PER_SEC)    /* a set not read for so long is no pattern */

#define REMEMBER_NS (5 * NSEC_PER_SEC)      /* after a crash so much of an epoch is fetched once more at worst */
#define ACTIVE_NS NSEC_PER_SEC              /* a set read so lately is being read */

#define CHECK_JOBS_NS NSEC_PER_SEC

#define SOON_NS (250 * NSEC_PER_MSEC)       /* between two opens of one sample */

struct recent {
	uint64_t ino, time_ns;
	uint32_t pid;
};

/* One want in flight. */
struct fetch {
	struct cache_want want;
	struct prefetch *p;
	enum predictor_id by;
	struct unit *unit;                  /* of a set's item, or NULL */
	uint32_t index;
	uint32_t at;                        /* its position in the order, UINT32_MAX without */
	bool is_last_extent;
	uint64_t bytes, started_ns;
};

struct prefetch {
	struct prefetch_config cfg;         /* immutable */
	struct cache *cache;
	struct ns *ns;
	struct stats *stats;
	struct cache_advisor advisor;
	pthread_t thread;
	int wake_fd;
	_Atomic bool is_asleep, is_stopping;
	struct observe_queue queue;

	struct lock lock;
	pthread_cond_t idle;
	/* protected by lock */
	struct governor governor;
	struct sets sets;
	struct streams streams;
	struct ahead ahead;
	struct prefetch_sink sink;          /* push is NULL without */
	char *plan_text;                    /* owned, or NULL */
	void *profile;                      /* recorded, to be written; owned, or NULL, as is its name */
	size_t profile_len;
	char *profile_name;
	struct recogniser *recogniser;      /* owned; NULL with recognise=off */
	struct recent recent[RECENT];
	unsigned recent_at, in_flight;
	uint64_t in_flight_bytes;
	bool is_short_of_memory;
	bool has_places;                    /* readers were seen at more than the first */
	uint64_t consumed_count;            /* items: each makes room; from 1 on */
	uint64_t wake_ns;                   /* of the token bucket, 0 for none */
	uint64_t first_ns, read_bytes;
	size_t served_pos;                  /* in the table of sets: who was served last */
	/* the thread's own */
	uint64_t remembered_ns, checked_ns; /* when epochs were last remembered, jobs last looked for */
	struct leaders leaders;
};

static void wake(struct prefetch *p)
{
	uint64_t one = 1;

	if (write(p->wake_fd, &one, sizeof(one)) < 0)
		return;   /* full: it is awake */
}

static void wake_if_asleep(struct prefetch *p)
{
	if (atomic_exchange(&p->is_asleep, false))
		wake(p);
}

static void listed(void *arg)
{
	wake_if_asleep(arg);
}

void prefetch_observe(struct prefetch *p, const struct observation *o)
{
	if (!observe_push(&p->queue, o)) {
		stats_inc(p->stats, STAT_PREFETCH_DROPPED_OBSERVATIONS);
		return;
	}
	wake_if_asleep(p);
}

static uint32_t extents_of(uint64_t size)
{
	return (uint32_t)((size + EXTENT_BYTES - 1) / EXTENT_BYTES);
}

static uint64_t extent_bytes(uint64_t size, uint32_t extent)
{
	uint64_t start = (uint64_t)extent * EXTENT_BYTES;

	return size - start < EXTENT_BYTES ? size - start : EXTENT_BYTES;
}

/* What reading user.hopper.plan says. Lock not held. */
__attribute__((format(printf, 2, 3))) static void set_plan_text(struct prefetch *p, const char *format, ...)
{
	va_list args;
	char *text;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	lock_acquire(&p->lock);
	free(p->plan_text);
	p->plan_text = text;
	lock_release(&p->lock);
}

/* ---- what is remembered for the next run ---- */

static void note_name(const char *what, uint64_t set, char *name, size_t size)
{
	snprintf(name, size, "%s-%llu", what, (unsigned long long)set);
}

/* A set is new: what an earlier run's epochs were, and where the last one stood. Lock held. */
static void recall(void *arg, struct set *s)
{
	struct prefetch *p = arg;
	char name[NOTE_NAME];
	void *note;
	size_t len;

	note_name("orders", s->parent, name, sizeof(name));
	if (p->recogniser && !cache_note_get(p->cache, name, &note, &len)) {
		follow_load(&s->follow, note, len);
		free(note);
	}
	note_name("epoch", s->parent, name, sizeof(name));
	if (!cache_note_get(p->cache, name, &note, &len) && resume_load(s, note, len, time(NULL)))
		s->follow.is_as_past = true;
}

/* Write the profile that was recorded, if there is one. Lock not held. */
static void save_profile(struct prefetch *p)
{
	_cleanup_free_ char *name = NULL;
	_cleanup_free_ void *data = NULL;
	char note[PLAN_NOTE];
	size_t len;
	int rc;

	lock_acquire(&p->lock);
	name = p->profile_name;
	data = p->profile;
	len = p->profile_len;
	p->profile_name = NULL;
	p->profile = NULL;
	lock_release(&p->lock);
	if (!data)
		return;
	plan_note(name, note);
	rc = cache_note_put(p->cache, note, data, len);
	if (rc)
		log_warn("profile %s was not recorded: %s", name, strerror(-rc));
	set_plan_text(p, "record %s: %s\n", name, rc ? strerror(-rc) : "recorded");
}

/* Where the epochs of the sets stand that were read since the last time. Lock not held. */
static void remember_epochs(struct prefetch *p)
{
	struct set *s;
	size_t pos = 0, len;

	p->remembered_ns = clock_ns();
	lock_acquire(&p->lock);
	while ((s = map64_next(&p->sets.by_key, &pos, NULL))) {
		bool is_news = s->opens != s->remembered_opens && !(s->parent & JOB_KEY);
		void *note = is_news ? resume_save(s, time(NULL), &len) : NULL;
		char name[NOTE_NAME];

		if (!note)
			continue;
		s->remembered_opens = s->opens;
		note_name("epoch", s->parent, name, sizeof(name));
		lock_release(&p->lock);
		if (cache_note_put(p->cache, name, note, len))
			log_debug("where an epoch stands is not remembered");
		free(note);
		lock_acquire(&p->lock);
	}
	lock_release(&p->lock);
}

/* ---- observations ---- */

/* Have the order recognised, if now is a moment for it. Lock held. */
static void ask(struct prefetch *p, struct set *s, uint64_t now_ns)
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
	ask(p, s, now_ns);
}

/* The recogniser's answer. */
static void recognised(void *arg, struct recognise_job *job)
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
		ask(p, s, clock_ns());
	}
	lock_release(&p->lock);
	note_name("orders", job->set, name, sizeof(name));
	if (note && cache_note_put(p->cache, name, note, len))
		log_warn("what was recognised is not remembered for the next run");
	free(note);
	recognise_job_free(job);
	wake_if_asleep(p);
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
	ask(p, s, now_ns);
	ask(p, job, now_ns);
}

static bool is_live(const struct set *s, uint64_t now_ns)
{
	return !s->is_over && now_ns - s->last_ns <= SET_LIVE_NS;
}

/* What an item is to one job. Lock held. */
static enum cache_class class_for_job(const struct set *s, uint8_t flags)
{
	if (!s->is_confirmed && !follow_order(&s->follow))
		return CACHE_OTHER;
	if (flags & ITEM_CONSUMED)
		return CACHE_CONSUMED;
	/* what was fetched ahead stays until it is read, or it would be fetched again */
	return set_is_partial(s) && !(flags & ITEM_STAGED) ? CACHE_OTHER : CACHE_UNREAD;
}

/* What an extent is to all jobs: kept for any that has not read it. Lock held. */
static enum cache_class class_for_jobs(struct prefetch *p, uint64_t key)
{
	enum cache_class class = CACHE_OTHER;
	uint64_t ino = extent_key_ino(key);
	bool is_consumed = true, is_any = false;
	uint64_t now = clock_ns();
	uint32_t index, k;
	struct unit *u = sets_unit(&p->sets, ino, &index);

	for (const struct set *s = u ? u->set : NULL; s && class != CACHE_UNREAD; s = s->next_job) {
		const struct unit *v = set_item(s, u->base + index, &k);

		if (!v || !is_live(s, now))
			continue;
		class = class_for_job(s, v->item[k]);
		is_consumed &= class == CACHE_CONSUMED;
		is_any = true;
	}
	if (class == CACHE_UNREAD)
		return class;
	if (!is_any || !is_consumed)
		return CACHE_OTHER;
	/* opened, but not all of it was read */
	return extent_key_no(key) >= streams_at(&p->streams, ino, now) ? CACHE_BEING_READ : CACHE_CONSUMED;
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
		note_place(p, u, index, o);
		ask(p, s, o->time_ns);
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
	if (from < to && class_for_jobs(p, extent_key(ino, from)) == CACHE_CONSUMED)
		cache_consumed(p->cache, ino, from, to);
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
	if (!u || u->item[index] & ITEM_UNFIT || is_same_access(p, o, u->item[index] & ITEM_CONSUMED)) {
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
	uint32_t index = (uint32_t)records_beginning(g, o->offset);
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
	uint64_t i = a->end ? records_index(&r->geometry, a->start) : r->geometry.count, start, end;

	if (i == r->geometry.count)
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
		past.len = (uint32_t)(r->seen[i].end - r->seen[i].start);
		past.pid = r->seen[i].pid;
		record_read(p, s, &past);
	}
}

/* Returns whether the read belongs to records rather than to a stream. */
static bool on_record(struct prefetch *p, const struct observation *o, uint64_t size)
{
	struct records *r = size >= RECORDS_FILE_BYTES ? sets_records(&p->sets, o->ino, size) : NULL;
	bool was_random = r && r->is_random;
	enum records_event event;

	if (!r || p->cfg.mode != PREFETCH_AUTO)
		return false;
	event = records_saw(r, o);
	if (event == RECORDS_FOUND && p->cfg.recognise)
		records_begin(p, r, o);
	if (r->set && event != RECORDS_CONTINUED) {
		release_record(p, r, &r->last);
		record_read(p, r->set, o);
	}
	if (r->is_random != was_random)
		cache_set_records(p->cache, o->ino, r->is_random);
	return r->is_random;
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
	if (!on_record(p, o, attr.version.size)) {
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

static void take_observation(struct prefetch *p, const struct observation *o)
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

/* ---- asking ---- */

static void item_fetched(struct prefetch *p, struct fetch *f, int err, uint64_t bytes)
{
	uint8_t *item = &f->unit->item[f->index];
	struct set *s = f->unit->set;

	if (f->is_last_extent || err)
		*item &= (uint8_t)~ITEM_IN_FLIGHT;
	if (!err && f->is_last_extent && !s->records)   /* a piece goes when it was read */
		*item |= ITEM_RESIDENT, ahead_arrived(&p->ahead, f->unit, f->at);
	if (err == -ENOSPC || err == -EAGAIN) {
		f->unit->is_exhausted = false;
		if (err == -ENOSPC)
			s->blocked_at = p->consumed_count;
		if (s->follow.order && f->at <= s->follow.order->cursor) {
			s->follow.order->cursor = f->at;
			s->order_extent = 0;
		}
	} else if (err) {
		if (!(*item & (ITEM_UNFIT | ITEM_CONSUMED)) && err != -EIO)
			s->unfit++, *item |= ITEM_UNFIT;
	}
	/* nothing was fetched: it was there already, or was refused */
	if ((err || !bytes) && *item & ITEM_STAGED) {
		*item &= (uint8_t)~ITEM_STAGED;
		if (s->staged)
			s->staged--;
	}
}

/* Lock not held. */
static void tell_stale(struct prefetch *p, uint64_t ino)
{
	struct prefetch_sink sink;

	lock_acquire(&p->lock);
	sink = p->sink;
	lock_release(&p->lock);
	if (sink.stale)
		sink.stale(sink.arg, ino);
}

/* The governor learns of a request, the cache of the governor's limit. Lock held. */
static void governed(struct prefetch *p, uint64_t now_ns, uint64_t took_ns, uint64_t bytes, uint64_t total_bytes)
{
	unsigned before = p->governor.limit;

	governor_sample(&p->governor, now_ns, took_ns, bytes, total_bytes);
	if (p->governor.limit != before)
		cache_set_parallel(p->cache, p->governor.limit);
}

static void fetch_done(struct cache_want *w, int err, uint64_t bytes)
{
	struct fetch *f = w->arg;
	struct prefetch *p = f->p;
	uint64_t now = clock_ns();
	struct cache_flow flow;

	cache_flow(p->cache, &flow);
	if (err == -ESTALE)
		tell_stale(p, extent_key_ino(w->key));
	if (!err && bytes) {
		stats_inc(p->stats, STAT_PREFETCH_ISSUED);
		stats_add(p->stats, STAT_PREFETCH_ISSUED_BYTES, bytes);
		stats_inc(p->stats, predictor_table[f->by].issued);
	} else if (err && err != -ENOSPC && err != -EAGAIN) {
		stats_inc(p->stats, STAT_PREFETCH_FAILED);
	}
	lock_acquire(&p->lock);
	if (!err && bytes)
		governed(p, now, now - f->started_ns, bytes, flow.bytes);
	p->is_short_of_memory = err == -EAGAIN;
	if (f->unit)
		item_fetched(p, f, err, bytes);
	p->in_flight--;
	p->in_flight_bytes -= f->bytes;
	if (!p->in_flight)
		pthread_cond_broadcast(&p->idle);
	/* with the lock: once it is released, prefetch_stop() may return and all this be gone */
	wake_if_asleep(p);
	lock_release(&p->lock);
	free(f);
}

/* Hand one fetch to the cache. Lock not held. */
static void fetch_issue(struct prefetch *p, struct fetch *f, uint64_t key)
{
	f->p = p;
	f->want.key = key;
	f->want.done = fetch_done;
	f->want.arg = f;
	f->started_ns = clock_ns();
	cache_want(p->cache, &f->want);
}

/* May one more of @bytes be asked for? Lock held. */
static bool may_issue(struct prefetch *p, const struct cache_flow *flow, uint64_t bytes)
{
	unsigned in_flight = p->in_flight + flow->demand_in_flight;

	return !p->is_short_of_memory &&
	       governor_admits(&p->governor, clock_ns(), in_flight, bytes, &p->wake_ns);
}

static void account_issue(struct prefetch *p, struct fetch *f, uint64_t bytes)
{
	f->bytes = bytes;
	p->in_flight++;
	p->in_flight_bytes += bytes;
}

/* Item @k of @u is about to be fetched. Lock held. */
static void stage(struct prefetch *p, struct set *s, struct unit *u, uint32_t k, enum predictor_id by, uint64_t bytes,
		  struct fetch *f)
{
	f->by = by;
	f->unit = u;
	f->index = k;
	f->at = UINT32_MAX;
	if (!(u->item[k] & ITEM_STAGED))
		s->staged++;
	u->item[k] = (uint8_t)((u->item[k] & ((1 << ITEM_BY_SHIFT) - 1)) | ITEM_IN_FLIGHT | ITEM_STAGED | by << ITEM_BY_SHIFT);
	account_issue(p, f, bytes);
}

/* Prepare the fetch of the next unread item (or its next extent). Lock held. Returns false when there is none. */
static bool prepare_unread(struct prefetch *p, struct set *s, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	struct ns_attr attr;
	struct unit *u;
	uint32_t k;

	while ((u = set_next_missing(s, &k))) {
		uint64_t bytes;

		if (ns_getattr(p->ns, u->first + k, NS_NOCHECK | NS_NOWAIT, &attr) || !S_ISREG(attr.mode) ||
		    !attr.version.size) {
			u->item[k] |= ITEM_UNFIT;
			s->unfit++;
			continue;
		}
		bytes = extent_bytes(attr.version.size, u->extent);
		if (!may_issue(p, flow, bytes))
			return false;
		*ret_key = extent_key(attr.ino, u->extent);
		f->is_last_extent = ++u->extent >= extents_of(attr.version.size);
		if (f->is_last_extent) {
			u->extent = 0;
			u->cursor = k + 1 < u->count ? k + 1 : 0;
			s->next_unit++;
		}
		stage(p, s, u, k, PREDICTOR_UNREAD, bytes, f);
		return true;
	}
	return false;
}

/*
 * The next part of record @k, which is in an extent of its own, unless that extent is there. Lock held.
 * Returns 1 with the fetch, 0 to go on with the order, -1 when no more may be asked for.
 */
static int prepare_record(struct prefetch *p, struct set *s, struct order *o, uint32_t k, const struct cache_flow *flow,
			  struct fetch *f, uint64_t *ret_key)
{
	uint64_t start, end, from, to;
	struct ns_attr attr;
	uint32_t no;

	records_range(s->records, k, &start, &end);
	no = (uint32_t)(start / EXTENT_BYTES) + s->order_extent;
	from = start > (uint64_t)no * EXTENT_BYTES ? start : (uint64_t)no * EXTENT_BYTES;
	to = end < (no + 1ULL) * EXTENT_BYTES ? end : (no + 1ULL) * EXTENT_BYTES;
	f->is_last_extent = to >= end;
	if (!ns_getattr(p->ns, s->records->ino, NS_NOCHECK | NS_NOWAIT, &attr) && from < to && to <= attr.version.size &&
	    !(cache_where(p->cache, &attr, no) & CACHE_TIER_DISK)) {
		if (!may_issue(p, flow, to - from))
			return -1;
		*ret_key = extent_key(attr.ino, no);
		f->want.piece_start = from;
		f->want.piece_len = (uint32_t)(to - from);
		stage(p, s, s->unit[0], k, o->by, to - from, f);
		f->at = o->cursor;
	}
	s->order_extent = f->is_last_extent ? 0 : s->order_extent + 1;
	o->cursor += f->is_last_extent;
	return f->want.piece_len ? 1 : 0;
}

/* The next extent of a file of records, while the disk has room: what is there is no matter of order. Lock held. */
static bool prepare_bulk(struct prefetch *p, struct set *s, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	struct records *r = s->records;
	struct ns_attr attr;

	if (flow->disk_room_bytes < 2 * EXTENT_BYTES || ns_getattr(p->ns, r->ino, NS_NOCHECK | NS_NOWAIT, &attr))
		return false;
	for (; r->next_extent < extents_of(attr.version.size); r->next_extent++) {
		if (cache_where(p->cache, &attr, r->next_extent) & CACHE_TIER_DISK)
			continue;
		if (!may_issue(p, flow, extent_bytes(attr.version.size, r->next_extent)))
			return false;
		f->by = PREDICTOR_UNREAD;
		f->is_last_extent = true;
		account_issue(p, f, extent_bytes(attr.version.size, r->next_extent));
		*ret_key = extent_key(attr.ino, r->next_extent++);
		return true;
	}
	return false;
}

/* A record that was fetched waits in memory and is nowhere else: it was not lost as long as it is staged. */
static bool is_to_be_fetched(const struct set *s, uint8_t flags)
{
	return item_is_missing(flags) && !(s->records && flags & ITEM_STAGED);
}

/* The same in the order that is followed. */
static bool prepare_ordered(struct prefetch *p, struct set *s, struct order *o, const struct cache_flow *flow,
			    struct fetch *f, uint64_t *ret_key)
{
	while ((o->cursor = order_next(o, o->cursor)) < o->count) {
		struct ns_attr attr;
		uint64_t bytes;
		uint32_t k;
		struct unit *u = set_item(s, o->item[o->cursor], &k);

		if (!u || (!s->order_extent && (!is_to_be_fetched(s, u->item[k]) || unit_is_pushed(u, k)))) {
			o->cursor++;
			continue;
		}
		if (s->records) {
			int rc = prepare_record(p, s, o, k, flow, f, ret_key);

			if (rc)
				return rc > 0;
			continue;
		}
		if (ns_getattr(p->ns, u->first + k, NS_NOCHECK | NS_NOWAIT, &attr) || !S_ISREG(attr.mode) || !attr.version.size) {
			u->item[k] |= ITEM_UNFIT;
			s->unfit++;
			continue;
		}
		bytes = extent_bytes(attr.version.size, s->order_extent);
		if (!may_issue(p, flow, bytes))
			return false;
		*ret_key = extent_key(attr.ino, s->order_extent);
		f->is_last_extent = ++s->order_extent >= extents_of(attr.version.size);
		stage(p, s, u, k, o->by, bytes, f);
		f->at = o->cursor;
		if (f->is_last_extent) {
			s->order_extent = 0;
			o->cursor++;
		}
		return true;
	}
	return false;
}

static bool prepare_from_set(struct prefetch *p, struct set *s, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	struct order *o = p->cfg.recognise ? follow_order(&s->follow) : NULL;

	if (o && prepare_ordered(p, s, o, flow, f, ret_key))
		return true;
	if (s->records)
		return prepare_bulk(p, s, flow, f, ret_key);
	/* of other ranks' items, those that are not ours are not wanted */
	if (o && (o->cursor < o->count || o->stride > 1))
		return false;
	return s->staged < set_confidence(s) && prepare_unread(p, s, flow, f, ret_key);
}

/* From the sets that are read now, or those that wait for their turn (validation between epochs). Lock held. */
static bool prepare_from_sets(struct prefetch *p, bool is_active, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	uint64_t now = clock_ns();

	/* one after the other, beginning behind the one that was served last */
	for (size_t n = 0; n <= p->sets.by_key.count; n++) {
		struct set *s = map64_next(&p->sets.by_key, &p->served_pos, NULL);

		if (!s) {
			p->served_pos = 0;
			continue;
		}
		if (s->blocked_at != p->consumed_count && is_live(s, now) && (now - s->last_ns < ACTIVE_NS) == is_active &&
		    prepare_from_set(p, s, flow, f, ret_key))
			return true;
	}
	return false;
}

static bool prepare_from_streams(struct prefetch *p, const struct cache_flow *flow, struct fetch *f, uint64_t *ret_key)
{
	uint64_t size;

	if (p->in_flight + flow->demand_in_flight >= STREAM_WINDOW_MAX * 2 || p->is_short_of_memory)
		return false;
	if (!streams_next(&p->streams, ret_key, &size))
		return false;
	f->by = PREDICTOR_READAHEAD;
	f->is_last_extent = true;
	account_issue(p, f, extent_bytes(size, extent_key_no(*ret_key)));
	return true;
}

/* Where the reader of what @f fetches is expected. Lock held. */
static int expected_place(struct prefetch *p, const struct fetch *f, uint64_t key)
{
	struct unit *u = f->unit;
	const struct order *o = u ? follow_order(&u->set->follow) : NULL;
	int place = -1;

	if (!p->has_places)
		return 0;
	if (!u)
		return streams_place(&p->streams, extent_key_ino(key));
	if (o && f->at != UINT32_MAX)
		place = whereto_position(&u->set->whereto, f->at, o->stride);
	return place >= 0 ? place : whereto_item(&u->set->whereto, u->place ? u->place[f->index] : 0);
}

/* Ask for as much as may be. Returns when nothing more may. */
static void issue(struct prefetch *p)
{
	for (;;) {
		struct fetch *f = calloc(1, sizeof(*f));
		struct cache_flow flow;
		uint64_t key;
		bool has;

		if (!f || atomic_load(&p->is_stopping)) {
			free(f);
			return;
		}
		cache_flow(p->cache, &flow);
		lock_acquire(&p->lock);
		governor_charge(&p->governor, flow.hedged_bytes);
		p->wake_ns = 0;
		has = prepare_from_streams(p, &flow, f, &key) ||
		      (p->cfg.mode == PREFETCH_AUTO && (prepare_from_sets(p, true, &flow, f, &key) ||
						       prepare_from_sets(p, false, &flow, f, &key)));
		if (has)
			f->want.place = expected_place(p, f, key);
		lock_release(&p->lock);
		if (!has) {
			free(f);
			return;
		}
		fetch_issue(p, f, key);
	}
}

/* ---- into the page cache ---- */

/* The next file to be put there, 0 for none. */
static uint64_t next_to_push(struct prefetch *p)
{
	uint64_t now = clock_ns(), ino = 0;
	struct set *s;
	size_t pos = 0;

	lock_scope(&p->lock);
	if (!p->sink.push)
		return 0;
	while (!ino && (s = map64_next(&p->sets.by_key, &pos, NULL))) {
		struct order *o = p->cfg.recognise ? follow_order(&s->follow) : NULL;

		/* of several jobs the first is served: what it reads is there for the others too */
		if (is_live(s, now) && !(s->parent & JOB_KEY))
			ino = ahead_next(&p->ahead, s, o);
	}
	return ino;
}

static void push_ahead(struct prefetch *p)
{
	struct cache_flow flow;
	uint64_t ino, auto_bytes;
	bool is_due;

	lock_acquire(&p->lock);
	is_due = ahead_is_due(&p->ahead, clock_ns());
	lock_release(&p->lock);
	if (is_due) {
		/* at most an eighth of the memory that is available, and half of what ram= gives ours */
		auto_bytes = cache_memory_spare() / 2;
		cache_flow(p->cache, &flow);
		lock_acquire(&p->lock);
		ahead_set_max(&p->ahead, auto_bytes < flow.ram_limit_bytes / 2 ? auto_bytes : flow.ram_limit_bytes / 2);
		lock_release(&p->lock);
	}
	while (!atomic_load(&p->is_stopping) && (ino = next_to_push(p)))
		p->sink.push(p->sink.arg, ino);
}

void prefetch_set_sink(struct prefetch *p, const struct prefetch_sink *sink)
{
	lock_scope(&p->lock);
	p->sink = *sink;
	if (p->cfg.mode == PREFETCH_AUTO)
		ahead_begin(&p->ahead, p->ns, p->stats);
}

void prefetch_pushed(struct prefetch *p, uint64_t ino, int err)
{
	struct ns_attr attr;
	struct unit *u;
	uint32_t index;
	int rc = ns_getattr(p->ns, ino, NS_NOCHECK | NS_NOWAIT, &attr);
	bool is_low;

	lock_acquire(&p->lock);
	u = sets_unit(&p->sets, ino, &index);
	if (u)
		ahead_done(&p->ahead, u, index, rc ? 0 : attr.version.size, err);
	is_low = p->ahead.in_flight <= AHEAD_IN_FLIGHT / 2;
	lock_release(&p->lock);
	if (is_low)
		wake_if_asleep(p);
}

static void sleep_until_woken(struct prefetch *p)
{
	struct pollfd pfd = { .fd = p->wake_fd, .events = POLLIN };
	uint64_t count, now = clock_ns();
	int timeout_ms = -1;

	lock_acquire(&p->lock);
	if (p->wake_ns)
		timeout_ms = p->wake_ns > now ? (int)((p->wake_ns - now) / NSEC_PER_MSEC) + 1 : 0;
	lock_release(&p->lock);
	poll(&pfd, 1, timeout_ms);
	if (pfd.revents && read(p->wake_fd, &count, sizeof(count)) < 0)
		return;
}

/* Jobs that have ended want nothing any more. Lock not held. */
static void check_jobs(struct prefetch *p)
{
	struct set *s;
	size_t pos = 0;

	p->checked_ns = clock_ns();
	lock_scope(&p->lock);
	while ((s = map64_next(&p->sets.by_key, &pos, NULL))) {
		if (!(s->parent & JOB_KEY))
			jobs_check(s);
	}
}

static void *prefetch_thread(void *arg)
{
	struct prefetch *p = arg;
	struct observation o;

	pthread_setname_np(pthread_self(), "prefetch");
	while (!atomic_load(&p->is_stopping)) {
		bool had = false;

		/* announce sleep first: what comes after this line wakes us */
		atomic_store(&p->is_asleep, true);
		while (observe_pop(&p->queue, &o)) {
			take_observation(p, &o);
			had = true;
		}
		if (p->cfg.mode != PREFETCH_OFF)
			issue(p);
		push_ahead(p);
		save_profile(p);
		if (had && clock_ns() - p->remembered_ns > REMEMBER_NS)
			remember_epochs(p);
		if (had && clock_ns() - p->checked_ns > CHECK_JOBS_NS)
			check_jobs(p);
		if (had)
			continue;
		sleep_until_woken(p);
	}
	return NULL;
}

/* ---- plans ---- */

static void planned(void *arg, struct set *s)
{
	ask(arg, s, s->last_ns);
}

int prefetch_plan(struct prefetch *p, uint64_t dir, const char *text, char *msg, size_t msg_size)
{
	const struct plan_target target = { p->cache, p->ns, &p->sets, &p->lock, planned, p };
	int rc;

	*msg = 0;
	if (!p->recogniser) {
		snprintf(msg, msg_size, "plans need prefetch=auto and recognise=on");
		rc = -EOPNOTSUPP;
	} else {
		rc = plan_take(&target, dir, text, msg, msg_size);
	}
	if (!rc && !prefetch_had_plans(p) && cache_note_put(p->cache, NOTE_PLANS, "1", 1))
		log_debug("that there was a plan is not remembered");
	set_plan_text(p, "%.200s: %s\n", strncmp(text, "list\n", 5) ? text : "list", rc ? *msg ? msg : strerror(-rc) : "taken");
	wake_if_asleep(p);
	return rc;
}

bool prefetch_had_plans(struct prefetch *p)
{
	_cleanup_free_ void *note = NULL;
	size_t len;

	return !cache_note_get(p->cache, NOTE_PLANS, &note, &len);
}

char *prefetch_plan_text(struct prefetch *p)
{
	lock_scope(&p->lock);
	return strdup(p->plan_text ? p->plan_text : "none\n");
}

/* ---- the cache's questions ---- */

static enum cache_class class_of(void *arg, uint64_t key)
{
	struct prefetch *p = arg;
	const struct records *r;

	lock_scope(&p->lock);
	r = map64_get(&p->sets.records, extent_key_ino(key));
	if (!r || !r->set)
		return class_for_jobs(p, key);
	for (const struct set *s = r->set; s; s = s->next_job) {
		if (is_live(s, clock_ns()))
			return CACHE_UNREAD;
	}
	return CACHE_OTHER;
}

/* An item fetched ahead is gone again; @was_unread: in vain. Lock held. */
static void item_lost(struct prefetch *p, struct unit *u, uint32_t index, bool was_unread)
{
	struct order *o = u->set->follow.order;

	u->item[index] &= (uint8_t)~ITEM_RESIDENT;
	if (unit_is_pushed(u, index))
		return;   /* its reader finds it all the same */
	u->is_exhausted = false;
	if (o && !(u->item[index] & ITEM_CONSUMED)) {
		o->cursor = o->front;
		u->set->order_extent = 0;
	}
	if ((!was_unread && !u->set->records) || (u->item[index] & (ITEM_STAGED | ITEM_IN_FLIGHT | ITEM_CONSUMED)) != ITEM_STAGED)
		return;
	u->item[index] &= (uint8_t)~ITEM_STAGED;
	if (u->set->staged)
		u->set->staged--;
	if (!was_unread)
		return;
	stats_add(p->stats, STAT_PREFETCH_WASTED_BYTES, set_item_bytes(u->set));
	stats_inc(p->stats, predictor_table[u->item[index] >> ITEM_BY_SHIFT].wrong);
}

static void item_lost_to_jobs(struct prefetch *p, const struct unit *u, uint32_t index, bool was_unread)
{
	for (const struct set *s = u->set; s; s = s->next_job) {
		uint32_t k;
		struct unit *v = set_item(s, u->base + index, &k);

		if (v)
			item_lost(p, v, k, was_unread);
	}
}

static void evicted(void *arg, uint64_t key, bool was_unread)
{
	struct prefetch *p = arg;
	struct unit *u;
	uint32_t index;

	lock_scope(&p->lock);
	u = sets_unit(&p->sets, extent_key_ino(key), &index);
	if (u)
		item_lost_to_jobs(p, u, index, was_unread);
}

static void piece_lost(void *arg, uint64_t ino, uint64_t start, bool was_unread)
{
	struct prefetch *p = arg;
	const struct records *r;
	uint64_t i;

	lock_scope(&p->lock);
	r = map64_get(&p->sets.records, ino);
	i = r && r->set ? records_index(&r->geometry, start + 2 * 4096) : 0;   /* it begins up to two pages before its record */
	if (r && r->set && i < r->geometry.count)
		item_lost_to_jobs(p, r->set->unit[0], (uint32_t)i, was_unread);
}

static void stored(void *arg, uint64_t key, bool is_whole)
{
	struct prefetch *p = arg;
	struct unit *u;
	uint32_t index, k;

	lock_scope(&p->lock);
	u = sets_unit(&p->sets, extent_key_ino(key), &index);
	for (const struct set *s = u && is_whole ? u->set : NULL; s; s = s->next_job) {
		struct unit *v = set_item(s, u->base + index, &k);

		if (v)
			v->item[k] |= ITEM_RESIDENT;
	}
	if (u && is_whole)
		ahead_arrived(&p->ahead, u, UINT32_MAX);
}

/* ---- statistics ---- */

static uint64_t resident_items(const struct set *s)
{
	uint64_t n = 0;

	for (size_t i = 0; i < s->unit_count; i++) {
		for (uint32_t k = 0; k < s->unit[i]->count; k++)
			n += !!(s->unit[i]->item[k] & ITEM_RESIDENT);
	}
	return n;
}

static void add_set(struct prefetch *p, struct strbuf *b, const struct set *s)
{
	const struct order *o = follow_order(&s->follow);
	char path[4096] = "";

	if (s->parent > NS_ROOT)
		ns_path(p->ns, s->parent & ~KEY_KINDS, path, sizeof(path));
	strbuf_add(b, b->len > 1 ? ",\n" : "");
	strbuf_add(b, "{\"path\": ");
	strbuf_add_json(b, path);
	strbuf_addf(b, ", \"items\": %llu, \"bytes\": %llu, \"epoch\": %u, \"consumed\": %llu, \"resident\": %llu, "
		    "\"predictor\": \"%s\", \"recognised\": \"%s\", \"job\": %u}",
		    (unsigned long long)(s->items - s->unfit),
		    (unsigned long long)((s->items - s->unfit) * set_item_bytes(s)), s->epoch,
		    (unsigned long long)s->consumed, (unsigned long long)resident_items(s),
		    o ? predictor_table[o->by].name : set_confidence(s) ? predictor_table[PREDICTOR_UNREAD].name : "none",
		    o ? o->text : "", s->leader);
}

static void publish_forecast(struct prefetch *p, const struct set *s, const struct cache_flow *flow)
{
	double bytes = (double)((s->items - s->unfit) * set_item_bytes(s));
	double c = bytes > 0 ? (double)flow->limit_bytes / bytes : 0;
	double bw = p->governor.rate, rate = s->consumed_bytes_per_s;
	double missing = c < 1 ? (1 - c) * bytes : 0;
	double stall = bw > 0 && rate > 0 ? missing / bw - bytes / rate : 0;
	double tenth = bytes / 10 < missing ? bytes / 10 : missing;
	double saved = stall > 0 ? tenth / bw : 0;

	/* nothing starves once what is missing comes in the time of the rest: missing / bw = bytes / rate */
	stats_set(p->stats, STAT_FORECAST_MORE_CACHE, stall > 0 ? (uint64_t)(stall * bw) : 0);
	stats_set_real(p->stats, STAT_FORECAST_SAVED, saved < stall ? saved : stall > 0 ? stall : 0);
	stats_set_real(p->stats, STAT_FORECAST_C, c > 1 ? 1 : c);
	stats_set_real(p->stats, STAT_FORECAST_R, rate > 0 ? bw / rate : 0);
	stats_set_real(p->stats, STAT_FORECAST_STALL, stall > 0 ? stall : 0);
}

void prefetch_publish(struct prefetch *p)
{
	struct strbuf b = STRBUF_INIT;
	struct cache_flow flow;
	const struct set *s, *last = NULL;
	size_t pos = 0;
	char *text;

	cache_flow(p->cache, &flow);
	strbuf_add(&b, "[");
	lock_acquire(&p->lock);
	while ((s = map64_next(&p->sets.by_key, &pos, NULL))) {
		if (s->items && !s->is_over && b.len < JSON_MAX - 5000)
			add_set(p, &b, s);
		if (s->items && (!last || s->last_ns > last->last_ns))
			last = s;
	}
	if (last)
		publish_forecast(p, last, &flow);
	stats_set(p->stats, STAT_PAGECACHE_UNREAD_BYTES, p->ahead.unread_bytes);
	stats_set(p->stats, STAT_PAGECACHE_UNREAD_PEAK, p->ahead.peak_bytes);
	stats_set(p->stats, STAT_PAGECACHE_LIMIT_BYTES, p->ahead.limit_bytes);
	stats_set(p->stats, STAT_ORIGIN_PARALLEL, p->governor.limit);
	stats_set(p->stats, STAT_ORIGIN_BYTES_PER_S, (uint64_t)p->governor.rate);
	lock_release(&p->lock);
	strbuf_add(&b, "]");
	text = strbuf_steal(&b);
	if (text)
		stats_set_text(p->stats, STAT_SETS, text);
	free(text);
}

/* ---- life ---- */

int prefetch_start(const struct prefetch_config *cfg, struct cache *cache, struct stats *stats,
		   struct prefetch **ret_prefetch)
{
	struct prefetch *p = aligned_alloc(128, (sizeof(*p) + 127) / 128 * 128);
	int rc = 0;

	if (!p)
		return -ENOMEM;
	memset(p, 0, sizeof(*p));
	p->cfg = *cfg;
	p->cache = cache;
	p->ns = cache_ns(cache);
	p->stats = stats;
	p->consumed_count = 1;
	lock_init(&p->lock, "prefetch", RANK_PREFETCH);
	lock_cond_init(&p->idle);
	observe_init(&p->queue);
	governor_init(&p->governor, cfg->origin_parallel, cfg->origin_bw, clock_ns());
	if (cfg->mode != PREFETCH_OFF)
		cache_set_parallel(cache, p->governor.limit);
	p->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->wake_fd < 0)
		rc = -errno;
	p->advisor = (struct cache_advisor){ class_of, evicted, piece_lost, stored, p };
	if (!rc)
		rc = sets_open(&p->sets, &(struct sets_config){ p->ns, &p->lock, recall, listed, p });
	if (!rc && cfg->recognise && cfg->mode == PREFETCH_AUTO)
		rc = recogniser_new(p->ns, recognised, p, &p->recogniser);
	if (!rc)
		rc = -pthread_create(&p->thread, NULL, prefetch_thread, p);
	if (rc) {
		prefetch_free(p);
		return rc;
	}
	cache_set_advisor(cache, &p->advisor);
	*ret_prefetch = p;
	return 0;
}

void prefetch_stop(struct prefetch *p)
{
	atomic_store(&p->is_stopping, true);
	wake(p);
	pthread_join(p->thread, NULL);
	save_profile(p);
	remember_epochs(p);
	recogniser_free(p->recogniser);
	p->recogniser = NULL;
	sets_stop(&p->sets);
	lock_acquire(&p->lock);
	while (p->in_flight)
		lock_wait(&p->lock, &p->idle);
	lock_release(&p->lock);
}

void prefetch_free(struct prefetch *p)
{
	if (!p)
		return;
	recogniser_free(p->recogniser);
	sets_close(&p->sets);
	streams_clear(&p->streams);
	free(p->plan_text);
	free(p->profile);
	free(p->profile_name);
	if (p->wake_fd >= 0)
		close(p->wake_fd);
	pthread_cond_destroy(&p->idle);
	lock_destroy(&p->lock);
	free(p);
}

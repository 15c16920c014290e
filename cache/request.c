/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The requests that bring an extent's bytes from the origin: one, and a second
 * one, its hedge, when a reader waits and that one takes much longer than its
 * peers took (hedge.h).
 *
 *   request_start -> in flight ------------------- answered -> fill_end
 *                      |  request_hedge (timer)       ^  |
 *                      +-> both in flight ------------+  | transient error, a reader waits
 *                            the first good answer wins  +-> retried (timer) -> request_start
 *
 * What an answer means while the other is in flight:
 *
 *                        first request's              hedge's
 *   good                 wins; the hedge loses        wins; the first loses
 *   transient error      left to the hedge            dropped
 *   the file changed     ends the fill                dropped: the first sees it too
 *
 * A request that loses stays in flight, and what it still writes must hurt
 * nobody: whoever loses owns the buffer it writes to, until its answer. A hedge
 * begins with a buffer of its own; when it wins, the two change places, which
 * is possible as long as no reader looks at what the first has brought so far.
 * If one does, the first request is alive and arriving, and the hedge's answer
 * is dropped.
 *
 * Losers count as busy: the memory they write to must stay until they have ended. One that does not end is written off,
 * so that an origin which loses requests is not taken for one that is loaded with them.
 *
 * A fill nothing is heard of for twice timeout= is given up, by the timer: its requests lose, the first takes the
 * extent's buffer along, and the bytes may be asked for anew (fill_give_up). Each of its readers had all of timeout=.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "cache/extent.h"
#include "lib/clock.h"
#include "lib/log.h"
#include "lib/stats.h"

enum { PATH_BYTES = 4096 };

#define RETRY_FIRST_NS (50 * NSEC_PER_MSEC)
#define RETRY_MAX_NS (2 * NSEC_PER_SEC)

/*
 * What lost and has no answer this long after is not on its way: it takes no place that a request in flight could have.
 * Its memory stays its own, an eighth of the arena for all of them.
 */
#define WRITE_OFF_NS (5 * NSEC_PER_SEC)

struct request {
	struct origin_read read;     /* the origin's while in flight */
	struct cache *cache;         /* immutable */
	uint64_t ino;                /* immutable */
	uint8_t home;                /* the arena of read.buf; immutable */
	uint64_t started_ns;         /* immutable once it is in flight */
	struct extent *extent;       /* NULL: it lost. This and the rest protected by cache->lock */
	uint64_t heard_ns;           /* when it was sent, or something of it last arrived */
	struct list link;            /* in cache->losers, oldest first, until written off */
	uint64_t lost_ns;
	bool is_hung;                /* counted in cache->hung instead of in flight */
	char path[];                 /* immutable */
};

static void request_done(struct origin_read *read, int err);
static void request_progress(struct origin_read *read, size_t valid);

static struct request *request_new(struct extent *x, const char *path, char *buf, uint8_t home)
{
	size_t n = strlen(path) + 1;
	struct request *r = malloc(sizeof(*r) + n);

	if (!r)
		return NULL;
	*r = (struct request){ .cache = x->cache, .ino = x->attr.ino, .home = home, .extent = x };
	memcpy(r->path, path, n);
	list_init(&r->link);
	r->read = (struct origin_read){
		.path = r->path, .expect = x->attr.version,
		.offset = x->start, .len = x->len, .buf = buf,
		.is_first = x->start == 0, .done = request_done, .arg = r,
	};
	return r;
}

/* In flight from here on; the lock is held. */
static void request_account_start(struct cache *c, struct request *r)
{
	r->started_ns = r->heard_ns = clock_ns();
	c->origin_in_flight++;
}

void request_start(struct extent *x)
{
	struct cache *c = x->cache;
	char path[PATH_BYTES];
	int rc = ns_path(c->ns, x->attr.ino, path, sizeof(path));
	struct request *r = rc ? NULL : request_new(x, path, x->buf, x->home);

	if (!r) {
		fill_end(x, rc == -ENOENT ? -ESTALE : rc ? rc : -ENOMEM, 0);
		return;
	}
	r->read.progress = request_progress;
	lock_acquire(&c->lock);
	x->valid = 0;
	x->request = r;
	request_account_start(c, r);
	hedge_earn(&c->hedge);
	list_remove(&x->queue);
	list_push_back(&c->filling, &x->queue);
	request_watch(c, x);
	lock_release(&c->lock);
	origin_submit(c->origin, &r->read);
}

const char *request_path(const struct extent *x)
{
	return x->request ? x->request->path : x->hedge->path;
}

/* ---- answers ---- */

static bool is_transient(int err)
{
	return err != -ESTALE && err != -ENOENT && err != -EACCES && err != -EPERM;
}

bool request_retry(struct extent *x, int err)
{
	struct cache *c = x->cache;
	uint64_t now = clock_ns(), wait = RETRY_FIRST_NS << (x->tries < 6 ? x->tries : 6);

	lock_assert_held(&c->lock);
	if (wait > RETRY_MAX_NS)
		wait = RETRY_MAX_NS;
	if (!is_transient(err) || c->is_closing || list_is_empty(&x->waiters) ||
	    now + wait >= x->deadline_ns)
		return false;
	x->tries++;
	x->retry_ns = now + wait;
	list_push_back(&c->retrying, &x->queue);
	stats_inc(c->stats, STAT_ORIGIN_RETRIES);
	pthread_cond_signal(&c->timer_wake);
	return true;
}

/* A request has ended, whatever it was for. Lock held. */
static void account_end(struct cache *c, const struct request *r, int err)
{
	uint64_t took_ns = clock_ns() - r->started_ns;

	origin_answered(c->origin, err);
	if (r->is_hung)
		c->hung--;
	else
		c->origin_in_flight--;
	if (c->hedges_waiting)
		pthread_cond_signal(&c->timer_wake);   /* there is a place */
	if (err)
		return;
	c->requests_done++;
	c->request_bytes += r->read.len;
	hist_record(&c->latency, took_ns / NSEC_PER_USEC);
	hedge_sample(&c->hedge, took_ns);
}

/* The second buffer of a fill is not needed any more. Lock held. */
static void spare_free(struct cache *c, struct request *r)
{
	ram_free(&c->ram, r->home, r->read.buf, r->read.len);
	c->spare_bytes -= r->read.len;
}

/* Nobody waits for @r any more; it goes on writing to read.buf, which is its own. Lock held. */
static void lose(struct cache *c, struct request *r)
{
	r->extent = NULL;
	c->busy++;
	r->lost_ns = clock_ns();
	list_push_back(&c->losers, &r->link);
	if (r->lost_ns + WRITE_OFF_NS < c->timer_ns)
		pthread_cond_signal(&c->timer_wake);
}

void request_write_off(struct cache *c, uint64_t now, uint64_t *wake_ns)
{
	while (!list_is_empty(&c->losers)) {
		struct request *r = container_of(c->losers.next, struct request, link);

		if (r->lost_ns + WRITE_OFF_NS > now) {
			if (r->lost_ns + WRITE_OFF_NS < *wake_ns)
				*wake_ns = r->lost_ns + WRITE_OFF_NS;
			return;
		}
		list_remove(&r->link);
		r->is_hung = true;
		c->origin_in_flight--;
		c->hung++;
	}
}

/* The first request's answer. Returns whether it ends the fill. Lock held. */
static bool first_answered(struct extent *x, int err)
{
	struct cache *c = x->cache;

	x->request = NULL;
	if (!x->hedge)
		return true;
	if (err && is_transient(err)) {
		x->valid = 0;
		return false;
	}
	lose(c, x->hedge);
	x->hedge = NULL;
	c->hedges--;
	return true;
}

/* The hedge's. Its buffer becomes the extent's, or it loses. Returns whether the fill ends. Lock held. */
static bool hedge_answered(struct extent *x, struct request *h, int err)
{
	struct cache *c = x->cache;

	x->hedge = NULL;
	c->hedges--;
	if (err || (x->request && x->refs > 1)) {
		lose(c, h);
		return !x->request;
	}
	if (x->request) {
		x->buf = h->read.buf;
		x->home = h->home;
		lose(c, x->request);
		x->request = NULL;
	} else {
		/* earlier readers may look at the extent's buffer; nobody writes to it */
		memcpy(x->buf, h->read.buf, x->len);
		spare_free(c, h);
	}
	stats_inc(c->stats, STAT_ORIGIN_HEDGES_WON);
	return true;
}

/* A loser has ended. Afterwards the cache may be gone. */
static void loser_end(struct cache *c, struct request *r)
{
	struct answers a;

	answers_init(&a);
	lock_acquire(&c->lock);
	spare_free(c, r);
	fill_feed_starved(c, &a);
	lock_release(&c->lock);
	answers_give(c, &a);
	lock_acquire(&c->lock);
	if (!--c->busy)
		pthread_cond_broadcast(&c->idle);
	lock_release(&c->lock);
}

static void request_done(struct origin_read *read, int err)
{
	struct request *r = read->arg;
	struct cache *c = r->cache;
	bool is_decided = false, has_lost;
	struct extent *x;

	if (err == -ESTALE)
		ns_distrust(c->ns, r->ino);
	lock_acquire(&c->lock);
	account_end(c, r, err);
	x = r->extent;
	if (x)
		is_decided = r == x->hedge ? hedge_answered(x, r, err) : first_answered(x, err);
	list_remove(&r->link);   /* it has ended, whether it lost before or just now */
	if (is_decided)
		list_remove(&x->queue);   /* the timer sees it no more */
	has_lost = !r->extent;
	lock_release(&c->lock);
	if (has_lost)
		loser_end(c, r);
	if (is_decided && fill_end(x, err, err ? 0 : (uint64_t)r->read.len) && err && err != -ESTALE)
		log_warn("origin: reading %s failed: %s", r->path, strerror(-err));
	free(r);
}

/* Answer those whose bytes have arrived: the version was checked before the first. */
static void request_progress(struct origin_read *read, size_t valid)
{
	struct request *r = read->arg;
	struct cache *c = r->cache;
	struct extent *x;
	struct answers a;

	answers_init(&a);
	lock_acquire(&c->lock);
	x = r->extent;
	if (!x) {
		lock_release(&c->lock);
		return;
	}
	x->valid = (uint32_t)valid;
	r->heard_ns = clock_ns();
	list_for_each_safe(n, &x->waiters) {
		struct part *p = container_of(n, struct part, link);

		if (p->offset + p->len > valid)
			continue;
		list_remove(&p->link);
		fill_part_done(p, 0, &a);
		if (list_is_empty(&x->waiters))
			c->demand_in_flight--;
	}
	lock_release(&c->lock);
	answers_give(c, &a);
}

/* ---- hedging ---- */

/* When @x is to be hedged, UINT64_MAX: not. What is arriving is only behind others on its link. Lock held. */
static uint64_t hedge_due_ns(const struct cache *c, const struct extent *x)
{
	uint64_t after_ns = hedge_after_ns(&c->hedge);

	if (!x->request || x->was_hedged || x->valid || list_is_empty(&x->waiters) || after_ns == UINT64_MAX)
		return UINT64_MAX;
	return x->request->started_ns + after_ns;
}

void request_watch(struct cache *c, const struct extent *x)
{
	uint64_t due_ns = hedge_due_ns(c, x), hopeless_ns = request_give_up_ns(x);

	if (!list_is_empty(&x->waiters) && x->deadline_ns < due_ns)
		due_ns = x->deadline_ns;
	if (due_ns < c->timer_ns || hopeless_ns < c->timer_ns)
		pthread_cond_signal(&c->timer_wake);
}

/* ---- giving up ---- */

uint64_t request_give_up_ns(const struct extent *x)
{
	uint64_t heard_ns = x->request ? x->request->heard_ns : 0;

	if (x->hedge && x->hedge->heard_ns > heard_ns)
		heard_ns = x->hedge->heard_ns;
	return heard_ns ? heard_ns + 2 * x->cache->timeout_ns : UINT64_MAX;
}

void request_give_up(struct extent *x)
{
	struct cache *c = x->cache;

	log_warn("origin: no answer for %s for twice timeout=: given up", request_path(x));
	stats_add(c->stats, STAT_ORIGIN_GIVEN_UP, (uint64_t)!!x->request + !!x->hedge);
	if (x->hedge) {
		lose(c, x->hedge);
		x->hedge = NULL;
		c->hedges--;
	}
	if (x->request) {
		lose(c, x->request);
		c->spare_bytes += x->len;
		x->request = NULL;
		x->buf = NULL;
	}
}

/* The second request of @x, if there is memory for it. It is not tried again. Lock held. */
static struct request *hedge_make(struct cache *c, struct extent *x, struct answers *a)
{
	struct request *h;
	uint8_t home = x->home;
	char *buf;

	x->was_hedged = true;
	/* losers of an origin that hangs keep theirs: it must not come to all of the arena */
	if (c->spare_bytes + x->len > ram_limit_bytes(&c->ram) / 8)
		return NULL;
	buf = extent_alloc(c, &home, x->len, false, a);
	if (!buf)
		return NULL;
	h = request_new(x, x->request->path, buf, home);
	if (!h) {
		ram_free(&c->ram, home, buf, x->len);
		return NULL;
	}
	c->spare_bytes += x->len;
	c->hedges++;
	c->hedged_bytes += x->len;
	x->hedge = h;
	request_account_start(c, h);
	stats_inc(c->stats, STAT_ORIGIN_HEDGED);
	return h;
}

struct origin_read *request_hedge(struct cache *c, uint64_t now, uint64_t *wake_ns, struct answers *a)
{
	struct request *h;

	c->hedges_waiting = 0;
	if (c->is_closing)
		return NULL;
	list_for_each(n, &c->filling) {
		struct extent *x = container_of(n, struct extent, queue);
		uint64_t due_ns = hedge_due_ns(c, x);

		if (due_ns > now) {
			if (due_ns < *wake_ns)
				*wake_ns = due_ns;
			continue;
		}
		if (c->parallel && c->origin_in_flight >= c->parallel) {
			c->hedges_waiting++;   /* account_end() wakes us */
			continue;
		}
		/* what is sent meanwhile may earn it */
		h = hedge_spend(&c->hedge) ? hedge_make(c, x, a) : NULL;
		if (h)
			return &h->read;
	}
	return NULL;
}

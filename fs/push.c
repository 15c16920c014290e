/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/push.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cache/cache.h"
#include "fs/fs.h"
#include "lib/list.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "lib/topology.h"
#include "prefetch/prefetch.h"

enum { RANK_PUSH = 8, PATH_BYTES = 4096 };

struct job {
	struct list link;            /* in a pusher's ready */
	struct push *push;
	int place;                   /* where it is to be; -1: anywhere */
	struct ns_attr attr;
	bool is_expiry;
	int err;                     /* of bringing it into memory */
	struct cache_want want;
};

/* The thread of a place. */
struct pusher {
	struct push *push;           /* immutable, as are the next two */
	int place;
	pthread_t thread;
	pthread_cond_t wake;
	/* protected by push->lock */
	struct list ready;           /* of struct job */
	unsigned jobs;               /* in ready, or at work */
};

struct push {
	struct push_config cfg;      /* immutable */
	struct lock lock;
	/* protected by lock */
	struct pusher pusher[TOPOLOGY_PLACES_MAX];
	unsigned pushers;            /* immutable once files are pushed */
	unsigned jobs;               /* that exist; each ends on a push thread */
	bool is_stopping;
};

static void wake_all(struct push *p)
{
	for (unsigned i = 0; i < p->pushers; i++)
		pthread_cond_signal(&p->pusher[i].wake);
}

static void job_end(struct job *j, struct pusher *by)
{
	struct push *p = j->push;

	free(j);
	lock_acquire(&p->lock);
	by->jobs--;
	if (!--p->jobs && p->is_stopping)
		wake_all(p);
	lock_release(&p->lock);
}

/* The pusher of a place; for anywhere, the idlest. Lock held. */
static struct pusher *pusher_for(struct push *p, int place)
{
	struct pusher *idlest = &p->pusher[0];

	if (place >= 0 && place < (int)p->pushers)
		return &p->pusher[place];
	for (unsigned i = 1; i < p->pushers; i++) {
		if (p->pusher[i].jobs < idlest->jobs)
			idlest = &p->pusher[i];
	}
	return idlest;
}

static void job_ready(struct job *j)
{
	struct push *p = j->push;
	struct pusher *to;

	lock_scope(&p->lock);
	to = pusher_for(p, j->place);
	to->jobs++;
	list_push_back(&to->ready, &j->link);
	pthread_cond_signal(&to->wake);
}

static struct job *job_new(struct push *p, const struct ns_attr *attr, bool is_expiry, int place)
{
	struct job *j = calloc(1, sizeof(*j));
	bool is_stopping;

	if (!j)
		return NULL;
	lock_acquire(&p->lock);
	is_stopping = p->is_stopping;
	p->jobs += !is_stopping;
	lock_release(&p->lock);
	if (is_stopping) {
		free(j);
		return NULL;
	}
	j->push = p;
	j->attr = *attr;
	j->is_expiry = is_expiry;
	j->place = place;
	return j;
}

static void is_in_memory(struct cache_want *w, int err, uint64_t bytes)
{
	struct job *j = w->arg;

	(void)bytes;
	j->err = err;
	job_ready(j);
}

/* 0, -EAGAIN: another time; the others: not in this epoch. */
static int push_one(struct push *p, struct job *j)
{
	struct cache_loan loan;
	int rc = j->err;

	if (!rc)
		rc = cache_lend(p->cfg.cache, &j->attr, 0, &loan);
	if (rc)
		return rc == -ENOENT ? -EAGAIN : rc;   /* it has left the cache meanwhile */
	/* what is less than the file would leave the rest of its last page zero */
	rc = loan.len == j->attr.version.size ? session_store(p->cfg.session, j->attr.ino, loan.buf, loan.len) : -EINVAL;
	cache_lend_end(p->cfg.cache, &loan, !rc);
	if (!rc) {
		stats_inc(p->cfg.stats, STAT_READS_PUSHED);
		stats_add(p->cfg.stats, STAT_READS_PUSHED_BYTES, j->attr.version.size);
	} else {
		stats_inc(p->cfg.stats, rc == -ENOENT ? STAT_PAGECACHE_UNKNOWN : STAT_PAGECACHE_FAILED);
	}
	return rc == -EAGAIN ? -EIO : rc;
}

static void expire_one(struct push *p, struct job *j)
{
	char path[PATH_BYTES];
	const char *name;

	if (ns_path(cache_ns(p->cfg.cache), j->attr.ino, path, sizeof(path)))
		return;
	name = strrchr(path, '/');
	if (!session_expire(p->cfg.session, j->attr.parent, name ? name + 1 : path))
		stats_inc(p->cfg.stats, STAT_PAGECACHE_EXPIRED);
}

static void job_do(struct job *j, struct pusher *by)
{
	struct push *p = j->push;
	uint64_t ino = j->attr.ino;
	int rc;

	if (j->is_expiry) {
		expire_one(p, j);
		job_end(j, by);
		return;
	}
	rc = push_one(p, j);
	prefetch_pushed(p->cfg.prefetch, ino, rc);
	job_end(j, by);
}

/* The kernel takes the pages from the node of whoever stores them. */
static void stay_at_place(const struct pusher *u)
{
	const struct topology *t = u->push->cfg.topology;
	const struct cpus *cpus = t ? topology_pin(t, u->place) : NULL;
	char name[16] = "push";

	if (u->push->pushers > 1)
		snprintf(name, sizeof(name), "push-%u", (unsigned)t->place[u->place].node % 10000);
	pthread_setname_np(pthread_self(), name);
	if (cpus)
		pthread_setaffinity_np(pthread_self(), sizeof(cpus->bits), (const cpu_set_t *)cpus->bits);
}

static void *push_thread(void *arg)
{
	struct pusher *u = arg;
	struct push *p = u->push;

	stay_at_place(u);
	lock_acquire(&p->lock);
	while (!p->is_stopping || p->jobs) {
		struct list *n = list_pop_front(&u->ready);

		if (!n) {
			lock_wait(&p->lock, &u->wake);
			continue;
		}
		lock_release(&p->lock);
		job_do(container_of(n, struct job, link), u);
		lock_acquire(&p->lock);
	}
	lock_release(&p->lock);
	return NULL;
}

void push_file(struct push *p, uint64_t ino, int place)
{
	struct ns_attr attr;
	struct job *j = NULL;
	int rc = ns_getattr(cache_ns(p->cfg.cache), ino, NS_NOCHECK | NS_NOWAIT, &attr);

	/* an open that is not seen would leave it counted as unread for ever */
	if (!rc && !watch_has(p->cfg.watch, attr.parent))
		rc = -EOPNOTSUPP;
	if (!rc && !(j = job_new(p, &attr, false, place)))
		rc = -EAGAIN;
	if (rc) {
		prefetch_pushed(p->cfg.prefetch, ino, rc);
		return;
	}
	j->want.key = extent_key(ino, 0);
	j->want.is_for_memory = true;
	j->want.place = place;
	j->want.done = is_in_memory;
	j->want.arg = j;
	cache_want(p->cfg.cache, &j->want);
}

void push_expire(struct push *p, uint64_t ino)
{
	struct ns_attr attr;
	struct job *j;

	if (ns_getattr(cache_ns(p->cfg.cache), ino, NS_NOCHECK | NS_NOWAIT, &attr))
		return;
	j = job_new(p, &attr, true, -1);
	if (j)
		job_ready(j);
}

/* The first @started of them run. Waits for their work. */
static void stop_pushers(struct push *p, unsigned started)
{
	lock_acquire(&p->lock);
	p->is_stopping = true;
	wake_all(p);
	lock_release(&p->lock);
	for (unsigned i = 0; i < started; i++)
		pthread_join(p->pusher[i].thread, NULL);
	for (unsigned i = 0; i < p->pushers; i++)
		pthread_cond_destroy(&p->pusher[i].wake);
}

/* One for each place. */
static int start_pushers(struct push *p, unsigned count)
{
	int rc = 0;

	for (unsigned i = 0; i < count; i++) {
		struct pusher *u = &p->pusher[i];

		u->push = p;
		u->place = (int)i;
		list_init(&u->ready);
		lock_cond_init(&u->wake);
	}
	p->pushers = count;
	for (unsigned i = 0; i < count && !rc; i++) {
		rc = -pthread_create(&p->pusher[i].thread, NULL, push_thread, &p->pusher[i]);
		if (rc)
			stop_pushers(p, i);
	}
	return rc;
}

int push_new(const struct push_config *cfg, struct push **ret_push)
{
	struct push *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return -ENOMEM;
	p->cfg = *cfg;
	lock_init(&p->lock, "push", RANK_PUSH);
	rc = start_pushers(p, cfg->topology ? cfg->topology->count : 1);
	if (rc) {
		lock_destroy(&p->lock);
		free(p);
		return rc;
	}
	*ret_push = p;
	return 0;
}

void push_free(struct push *p)
{
	if (!p)
		return;
	stop_pushers(p, p->pushers);
	lock_destroy(&p->lock);
	free(p);
}

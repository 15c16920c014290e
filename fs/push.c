/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/push.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "cache/cache.h"
#include "fs/fs.h"
#include "lib/list.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "prefetch/prefetch.h"

enum { RANK_PUSH = 8, PATH_BYTES = 4096 };

struct job {
	struct list link;            /* in ready */
	struct push *push;
	struct ns_attr attr;
	bool is_expiry;
	int err;                     /* of bringing it into memory */
	struct cache_want want;
};

struct push {
	struct push_config cfg;      /* immutable */
	pthread_t thread;
	struct lock lock;
	pthread_cond_t wake;
	/* protected by lock */
	struct list ready;           /* of struct job */
	unsigned jobs;               /* that exist; each ends on the push thread */
	bool is_stopping;
};

static void job_end(struct job *j)
{
	struct push *p = j->push;

	free(j);
	lock_acquire(&p->lock);
	p->jobs--;
	lock_release(&p->lock);
}

static void job_ready(struct job *j)
{
	struct push *p = j->push;

	lock_acquire(&p->lock);
	list_push_back(&p->ready, &j->link);
	pthread_cond_signal(&p->wake);
	lock_release(&p->lock);
}

static struct job *job_new(struct push *p, const struct ns_attr *attr, bool is_expiry)
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

static void *push_thread(void *arg)
{
	struct push *p = arg;

	pthread_setname_np(pthread_self(), "push");
	lock_acquire(&p->lock);
	while (!p->is_stopping || p->jobs) {
		struct list *n = list_pop_front(&p->ready);
		struct job *j = n ? container_of(n, struct job, link) : NULL;
		uint64_t ino;
		int rc;

		if (!j) {
			lock_wait(&p->lock, &p->wake);
			continue;
		}
		lock_release(&p->lock);
		ino = j->attr.ino;
		if (j->is_expiry) {
			expire_one(p, j);
			job_end(j);
		} else {
			rc = push_one(p, j);
			prefetch_pushed(p->cfg.prefetch, ino, rc);
			job_end(j);
		}
		lock_acquire(&p->lock);
	}
	lock_release(&p->lock);
	return NULL;
}

void push_file(struct push *p, uint64_t ino)
{
	struct ns_attr attr;
	struct job *j = NULL;
	int rc = ns_getattr(cache_ns(p->cfg.cache), ino, NS_NOCHECK | NS_NOWAIT, &attr);

	/* an open that is not seen would leave it counted as unread for ever */
	if (!rc && !watch_has(p->cfg.watch, attr.parent))
		rc = -EOPNOTSUPP;
	if (!rc && !(j = job_new(p, &attr, false)))
		rc = -EAGAIN;
	if (rc) {
		prefetch_pushed(p->cfg.prefetch, ino, rc);
		return;
	}
	j->want.key = extent_key(ino, 0);
	j->want.is_for_memory = true;
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
	j = job_new(p, &attr, true);
	if (j)
		job_ready(j);
}

int push_new(const struct push_config *cfg, struct push **ret_push)
{
	struct push *p = calloc(1, sizeof(*p));
	int rc;

	if (!p)
		return -ENOMEM;
	p->cfg = *cfg;
	lock_init(&p->lock, "push", RANK_PUSH);
	lock_cond_init(&p->wake);
	list_init(&p->ready);
	rc = -pthread_create(&p->thread, NULL, push_thread, p);
	if (rc) {
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
	lock_acquire(&p->lock);
	p->is_stopping = true;
	pthread_cond_broadcast(&p->wake);
	lock_release(&p->lock);
	pthread_join(p->thread, NULL);
	pthread_cond_destroy(&p->wake);
	lock_destroy(&p->lock);
	free(p);
}

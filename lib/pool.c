/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread waits for work at most IDLE_NS and leaves; threads are detached,
 * and pool_free() waits for their number to reach zero.
 */
#include "lib/pool.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include "lib/clock.h"
#include "lib/lock.h"
#include "lib/topology.h"

enum {
	RANK_POOL = 80,
	EXCUSED_MAX = 15,           /* times the limit */
};
#define IDLE_NS (5 * NSEC_PER_SEC)

struct pool {
	struct lock lock;
	const char *name;           /* immutable */
	unsigned max_threads;       /* immutable */
	const struct cpus *cpus;    /* immutable after the first submit; not owned */
	pthread_cond_t has_work;
	pthread_cond_t has_left;

	/* protected by lock */
	struct list queue;
	unsigned queued, threads, idle;
	unsigned excused;           /* threads that do not count: what they run hangs */
	bool is_closing;
};

int pool_new(const char *name, unsigned max_threads, struct pool **ret_pool)
{
	struct pool *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	lock_init(&p->lock, name, RANK_POOL);
	lock_cond_init(&p->has_work);
	lock_cond_init(&p->has_left);
	list_init(&p->queue);
	p->name = name;
	p->max_threads = max_threads ? max_threads : 1;
	*ret_pool = p;
	return 0;
}

void pool_pin(struct pool *p, const struct cpus *cpus)
{
	p->cpus = cpus;
}

/* The next work item; NULL when the thread should leave. Called with the lock held. */
static struct work *next_work(struct pool *p)
{
	uint64_t deadline = clock_ns() + IDLE_NS;
	struct list *n;

	while (!(n = list_pop_front(&p->queue))) {
		int rc;

		if (p->is_closing)
			return NULL;
		p->idle++;
		rc = lock_wait_until(&p->lock, &p->has_work, deadline);
		p->idle--;
		if (rc && list_is_empty(&p->queue))
			return NULL;
	}
	p->queued--;
	return container_of(n, struct work, link);
}

static void *pool_thread(void *arg)
{
	struct pool *p = arg;
	struct work *w;

	pthread_setname_np(pthread_self(), p->name);
	if (p->cpus)
		pthread_setaffinity_np(pthread_self(), sizeof(p->cpus->bits), (const cpu_set_t *)p->cpus->bits);
	lock_acquire(&p->lock);
	while ((w = next_work(p))) {
		lock_release(&p->lock);
		w->run(w);
		lock_acquire(&p->lock);
	}
	p->threads--;
	pthread_cond_broadcast(&p->has_left);
	lock_release(&p->lock);
	return NULL;
}

/* Signals are for the main thread. Called with the lock held. */
static int start_thread(struct pool *p)
{
	pthread_attr_t attr;
	sigset_t all, before;
	pthread_t thread;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, 256 * 1024);
	rc = pthread_create(&thread, &attr, pool_thread, p);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!rc)
		p->threads++;
	return -rc;
}

void pool_free(struct pool *p)
{
	if (!p)
		return;
	lock_acquire(&p->lock);
	p->is_closing = true;
	pthread_cond_broadcast(&p->has_work);
	while (p->threads)
		lock_wait(&p->lock, &p->has_left);
	lock_release(&p->lock);
	pthread_cond_destroy(&p->has_work);
	pthread_cond_destroy(&p->has_left);
	lock_destroy(&p->lock);
	free(p);
}

/* Is another thread needed for what is queued, and allowed? Called with the lock held. */
static bool needs_thread(const struct pool *p, unsigned queued)
{
	unsigned excused = p->excused < EXCUSED_MAX * p->max_threads ? p->excused : EXCUSED_MAX * p->max_threads;

	return queued > p->idle && p->threads < p->max_threads + excused;
}

void pool_excuse(struct pool *p, bool is_hung)
{
	lock_scope(&p->lock);
	if (!is_hung)
		p->excused--;
	else
		p->excused++;
	if (needs_thread(p, p->queued))
		start_thread(p);   /* if it cannot be started, the next submit tries again */
}

void pool_submit(struct pool *p, struct work *w)
{
	lock_acquire(&p->lock);
	if (needs_thread(p, p->queued + 1) && start_thread(p) && !p->threads) {
		lock_release(&p->lock);
		w->run(w);
		return;
	}
	list_push_back(&p->queue, &w->link);
	p->queued++;
	pthread_cond_signal(&p->has_work);
	lock_release(&p->lock);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One list, of those few that have to wait, and one thread that sleeps until
 * the first deadline. Lock order: libfuse's own lock of a
 * request, then ours, then libfuse's of the session.
 */
#include "fs/wait.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include "lib/clock.h"
#include "lib/lock.h"
#include "lib/stats.h"

enum { RANK_WAITS = 4 };

/* How soon a killed process is let go when a signal that does not kill came first. */
#define LOOK_AGAIN_NS (200 * NSEC_PER_MSEC)

struct waits {
	struct stats *stats;         /* not owned */
	uint64_t timeout_ns;         /* immutable */
	pthread_t thread;
	struct lock lock;
	pthread_cond_t changed;
	/* protected by lock */
	struct list waiting;         /* of struct wait */
	unsigned interrupted;        /* of these */
	uint64_t wake_ns;            /* when the thread looks next; UINT64_MAX: when told */
	bool is_closing;
};

/* Is a fatal signal on its way to @pid, or is it gone? Of a process we cannot see we have to believe so. */
static bool is_dying(pid_t pid)
{
	unsigned long long pending = 0, mask;
	bool is_there = false;
	char path[64], line[256];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	f = pid > 0 ? fopen(path, "re") : NULL;
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "SigPnd: %llx", &mask) == 1 || sscanf(line, "ShdPnd: %llx", &mask) == 1) {
			pending |= mask;
			is_there = true;
		}
	}
	if (f)
		fclose(f);
	/* any signal that ends a process shows as SIGKILL at each of its threads */
	return !is_there || pending & 1ULL << (SIGKILL - 1);
}

/* Lock held. */
static void unlist(struct waits *s, struct wait *w)
{
	list_remove(&w->link);
	s->interrupted -= w->is_interrupted;
}

/* The first to be given up, claimed; NULL, and when to look again. Lock held. */
static struct wait *find_hopeless(struct waits *s, uint64_t now, int *ret_err)
{
	s->wake_ns = s->interrupted ? now + LOOK_AGAIN_NS : UINT64_MAX;
	list_for_each(n, &s->waiting) {
		struct wait *w = container_of(n, struct wait, link);
		bool is_late = w->deadline_ns <= now;
		int waiting = WAIT_WAITING;

		if (!is_late && w->deadline_ns < s->wake_ns)
			s->wake_ns = w->deadline_ns;
		if (!is_late && !(w->is_interrupted && is_dying(fuse_req_ctx(w->req)->pid)))
			continue;
		if (!atomic_compare_exchange_strong(&w->state, &waiting, WAIT_ENDED))
			continue;   /* its owner is about to take it off */
		*ret_err = is_late ? -EIO : -EINTR;
		unlist(s, w);
		return w;
	}
	return NULL;
}

static void *waits_thread(void *arg)
{
	struct waits *s = arg;

	pthread_setname_np(pthread_self(), "waits");
	lock_acquire(&s->lock);
	while (!s->is_closing) {
		int err = 0;
		struct wait *w = find_hopeless(s, clock_ns(), &err);

		if (w) {
			lock_release(&s->lock);
			stats_inc(s->stats, err == -EINTR ? STAT_WAITS_INTERRUPTED : STAT_WAITS_EXPIRED);
			w->give_up(w, err);
			lock_acquire(&s->lock);
		} else if (s->wake_ns == UINT64_MAX) {
			lock_wait(&s->lock, &s->changed);
		} else {
			lock_wait_until(&s->lock, &s->changed, s->wake_ns);
		}
	}
	lock_release(&s->lock);
	return NULL;
}

int waits_new(uint64_t timeout_ns, struct stats *stats, struct waits **ret_waits)
{
	struct waits *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return -ENOMEM;
	s->stats = stats;
	s->timeout_ns = timeout_ns;
	lock_init(&s->lock, "waits", RANK_WAITS);
	lock_cond_init(&s->changed);
	list_init(&s->waiting);
	rc = -pthread_create(&s->thread, NULL, waits_thread, s);
	if (rc) {
		pthread_cond_destroy(&s->changed);
		lock_destroy(&s->lock);
		free(s);
		return rc;
	}
	*ret_waits = s;
	return 0;
}

void waits_free(struct waits *s)
{
	if (!s)
		return;
	lock_acquire(&s->lock);
	s->is_closing = true;
	pthread_cond_signal(&s->changed);
	lock_release(&s->lock);
	pthread_join(s->thread, NULL);
	pthread_cond_destroy(&s->changed);
	lock_destroy(&s->lock);
	free(s);
}

/* Lock held. */
static void mark_interrupted(struct waits *s, struct wait *w)
{
	s->interrupted += !w->is_interrupted;
	w->is_interrupted = true;
	pthread_cond_signal(&s->changed);
}

/* Called by libfuse with the request's own lock held, so it is still there; but perhaps no longer here. */
static void interrupted(fuse_req_t req, void *data)
{
	struct waits *s = data;

	lock_scope(&s->lock);
	list_for_each(n, &s->waiting) {
		struct wait *w = container_of(n, struct wait, link);

		if (w->req == req)
			mark_interrupted(s, w);
	}
}

static uint64_t deadline(const struct waits *s, const struct wait *w)
{
	if (w->patience_ns == UINT64_MAX)
		return UINT64_MAX;
	return clock_ns() + (w->patience_ns && w->patience_ns < s->timeout_ns ? w->patience_ns : s->timeout_ns);
}

bool wait_begin(struct waits *s, struct wait *w, fuse_req_t req)
{
	int is_inline = WAIT_INLINE;

	fuse_req_interrupt_func(req, interrupted, s);
	lock_scope(&s->lock);
	list_init(&w->link);
	w->req = req;
	w->deadline_ns = deadline(s, w);
	if (!atomic_compare_exchange_strong(&w->state, &is_inline, WAIT_WAITING))
		return false;
	list_push_back(&s->waiting, &w->link);
	/* who claims it waits for the lock before he answers, so the request is there */
	if (fuse_req_interrupted(req))
		mark_interrupted(s, w);
	else if (w->deadline_ns < s->wake_ns)
		pthread_cond_signal(&s->changed);
	return true;
}

enum wait_state wait_claim(struct waits *s, struct wait *w)
{
	int before = atomic_exchange(&w->state, WAIT_ENDED);

	if (before == WAIT_WAITING) {
		lock_scope(&s->lock);
		unlist(s, w);
	}
	return before;
}

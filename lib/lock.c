/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The owner is the address of a thread-local variable: unique among living
 * threads, and free to obtain.
 */
#include "lib/lock.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include "lib/clock.h"

static _Thread_local char self_marker;

static uintptr_t self(void)
{
	return (uintptr_t)&self_marker;
}

#ifdef HOPPER_DEBUG
enum { HELD_MAX = 16 };
static _Thread_local const struct lock *held[HELD_MAX];
static _Thread_local unsigned held_count;

static void order_check(const struct lock *l)
{
	for (unsigned i = 0; i < held_count; i++) {
		if (held[i]->rank < l->rank)
			continue;
		fprintf(stderr, "lock order: %s (rank %u) acquired while holding %s (rank %u)\n",
			l->name, l->rank, held[i]->name, held[i]->rank);
		abort();
	}
}

static void order_push(const struct lock *l)
{
	if (held_count == HELD_MAX)
		abort();
	held[held_count++] = l;
}

static void order_pop(const struct lock *l)
{
	for (unsigned i = held_count; i-- > 0;) {
		if (held[i] != l)
			continue;
		held[i] = held[--held_count];
		return;
	}
}
#else
static void order_check(const struct lock *l) { (void)l; }
static void order_push(const struct lock *l) { (void)l; }
static void order_pop(const struct lock *l) { (void)l; }
#endif

static void owned(struct lock *l)
{
	atomic_store_explicit(&l->owner, self(), memory_order_relaxed);
	order_push(l);
}

static void disowned(struct lock *l)
{
	lock_assert_held(l);
	order_pop(l);
	atomic_store_explicit(&l->owner, 0, memory_order_relaxed);
}

void lock_init(struct lock *l, const char *name, unsigned rank)
{
	pthread_mutex_init(&l->mutex, NULL);
	l->name = name;
	l->rank = rank;
	atomic_init(&l->owner, 0);
}

void lock_destroy(struct lock *l)
{
	pthread_mutex_destroy(&l->mutex);
}

void lock_acquire(struct lock *l)
{
	order_check(l);
	pthread_mutex_lock(&l->mutex);
	owned(l);
}

void lock_release(struct lock *l)
{
	disowned(l);
	pthread_mutex_unlock(&l->mutex);
}

bool lock_is_held(struct lock *l)
{
	return atomic_load_explicit(&l->owner, memory_order_relaxed) == self();
}

void lock_assert_held(struct lock *l)
{
	if (__builtin_expect(lock_is_held(l), 1))
		return;
	fprintf(stderr, "lock %s is not held by this thread\n", l->name);
	abort();
}

void lock_wait(struct lock *l, pthread_cond_t *cond)
{
	disowned(l);
	pthread_cond_wait(cond, &l->mutex);
	owned(l);
}

int lock_wait_until(struct lock *l, pthread_cond_t *cond, uint64_t deadline_ns)
{
	struct timespec ts = { (time_t)(deadline_ns / NSEC_PER_SEC), (long)(deadline_ns % NSEC_PER_SEC) };
	int rc;

	disowned(l);
	rc = pthread_cond_timedwait(cond, &l->mutex, &ts);
	owned(l);
	return rc == ETIMEDOUT ? -ETIMEDOUT : 0;
}

void lock_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(cond, &attr);
	pthread_condattr_destroy(&attr);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mutex that knows its owner and its place in the lock order.
 *
 * Every lock has a rank; a thread may only acquire a lock whose rank is higher
 * than that of every lock it holds. The ranks are listed in HACKING.md. Debug
 * and sanitizer builds (HOPPER_DEBUG) check the order at run time and abort
 * with both names; release builds only track the owner.
 */
#ifndef HOPPER_LIB_LOCK_H
#define HOPPER_LIB_LOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct lock {
	pthread_mutex_t mutex;
	const char *name;            /* immutable, not owned */
	unsigned rank;               /* immutable */
	_Atomic(uintptr_t) owner;    /* thread that holds it, or 0 */
};

void lock_init(struct lock *l, const char *name, unsigned rank);
void lock_destroy(struct lock *l);
void lock_acquire(struct lock *l);
void lock_release(struct lock *l);

/* True if the calling thread holds @l. */
bool lock_is_held(struct lock *l);

/* Abort with the lock's name unless the calling thread holds it. Cheap. */
void lock_assert_held(struct lock *l);

/* Wait on @cond with @l held; reacquired on return. */
void lock_wait(struct lock *l, pthread_cond_t *cond);

/*
 * The same until clock_ns() reaches @deadline_ns; @cond must have been made
 * with lock_cond_init(). Returns 0, or -ETIMEDOUT.
 */
int lock_wait_until(struct lock *l, pthread_cond_t *cond, uint64_t deadline_ns);

/* A condition variable on the monotonic clock. */
void lock_cond_init(pthread_cond_t *cond);

static inline void lock_release_p(struct lock **l)
{
	if (*l)
		lock_release(*l);
}

/* Hold @l until the end of the scope. */
#define lock_scope(l) \
	__attribute__((cleanup(lock_release_p), unused)) struct lock *_scoped_lock = \
		(lock_acquire(l), (l))

#endif

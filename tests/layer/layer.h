/* SPDX-License-Identifier: Apache-2.0 */
/* Helpers of the layer tests: a scratch directory, files in it, waiting for a completion. */
#ifndef HOPPER_TESTS_LAYER_LAYER_H
#define HOPPER_TESTS_LAYER_LAYER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A new directory, its path in a static buffer; removed by scratch_remove(). */
const char *scratch_make(void);
void scratch_remove(void);

/* "SCRATCH/NAME", in one of several static buffers. */
const char *scratch_path(const char *name);

/* Write a file whose byte i is content_at(@seed, i), making its directories. */
void file_make(const char *name, size_t size, unsigned seed);
uint8_t content_at(unsigned seed, uint64_t offset);
bool content_is(const void *buf, unsigned seed, uint64_t offset, size_t len);

/* One completion, or several. */
struct waiter {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	int err;              /* of the last */
	unsigned done;
};

#define WAITER_INIT { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0 }

void waiter_done(struct waiter *w, int err);

/* Waits until @count completions came; fails the test after 30 s. Returns the last error. */
int waiter_wait(struct waiter *w, unsigned count);

#endif

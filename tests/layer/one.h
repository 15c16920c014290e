/* SPDX-License-Identifier: Apache-2.0 */
/* One read from a cache, compared with the content that file_make() wrote with the same seed. */
#ifndef HOPPER_TESTS_LAYER_ONE_H
#define HOPPER_TESTS_LAYER_ONE_H

#include "cache/cache.h"
#include "tests/layer/layer.h"

struct one {
	struct cache_read read;
	struct cache *cache;   /* borrowed */
	struct waiter *waiter;
	unsigned seed;
	bool is_right;
};

/* Read @len bytes at @offset of file @name in the root; @o and @w stay until it is done. Fails the test if there is no such file. */
void one_submit(struct cache *c, struct one *o, const char *name, unsigned seed, uint64_t offset, size_t len, struct waiter *w);

/* The same, and wait for it: its error, or 0 when every byte was right; a wrong one fails the test. */
int one_read(struct cache *c, const char *name, unsigned seed, uint64_t offset, size_t len);

/* The read's end: compares, gives the bytes back, tells the waiter. */
void one_done(struct cache_read *r, int err);

#endif

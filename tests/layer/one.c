/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/layer/one.h"
#include "tests/unit/test.h"

void one_done(struct cache_read *r, int err)
{
	struct one *o = r->arg;
	uint64_t at = r->offset;

	o->is_right = !err;
	for (int i = 0; !err && i < r->iov_count; at += r->iov[i++].iov_len)
		o->is_right &= content_is(r->iov[i].iov_base, o->seed, at, r->iov[i].iov_len);
	if (!err)
		cache_read_end(o->cache, r);
	waiter_done(o->waiter, err);
}

void one_submit(struct cache *c, struct one *o, const char *name, unsigned seed, uint64_t offset, size_t len, struct waiter *w)
{
	*o = (struct one){ .cache = c, .waiter = w, .seed = seed };
	assert_int_equal(ns_lookup(cache_ns(c), NS_ROOT, name, 0, &o->read.attr), 0);
	o->read.offset = offset;
	o->read.len = len;
	o->read.done = one_done;
	o->read.arg = o;
	cache_read(c, &o->read);
}

int one_read(struct cache *c, const char *name, unsigned seed, uint64_t offset, size_t len)
{
	struct waiter w = WAITER_INIT;
	struct one o;
	int err;

	one_submit(c, &o, name, seed, offset, len, &w);
	err = waiter_wait(&w, 1);
	assert_true(err || o.is_right);
	return err;
}

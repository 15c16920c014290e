/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>
#include "lib/clock.h"
#include "lib/list.h"
#include "lib/lock.h"
#include "lib/pool.h"
#include "tests/unit/test.h"

struct item {
	struct work work;
	_Atomic int *runs, *now, *most;
};

static void run(struct work *w)
{
	struct item *item = container_of(w, struct item, work);
	int now = atomic_fetch_add(item->now, 1) + 1, most = atomic_load(item->most);

	while (now > most && !atomic_compare_exchange_weak(item->most, &most, now))
		;
	usleep(200);
	atomic_fetch_sub(item->now, 1);
	atomic_fetch_add(item->runs, 1);
}

/* Everything submitted runs once, never more than so many at a time, and freeing waits for it. */
static void pool_runs_everything_once(void **state)
{
	static struct item item[500];
	_Atomic int runs = 0, now = 0, most = 0;
	struct pool *pool;

	(void)state;
	assert_int_equal(pool_new("test", 3, &pool), 0);
	for (int i = 0; i < 500; i++) {
		item[i] = (struct item){ { .run = run }, &runs, &now, &most };
		pool_submit(pool, &item[i].work);
	}
	pool_free(pool);
	assert_int_equal(atomic_load(&runs), 500);
	assert_in_range(atomic_load(&most), 1, 3);
}

static void lock_knows_its_owner(void **state)
{
	struct lock outer, inner;
	pthread_cond_t cond;
	uint64_t before;

	(void)state;
	lock_init(&outer, "outer", 1);
	lock_init(&inner, "inner", 2);
	lock_cond_init(&cond);
	assert_false(lock_is_held(&outer));
	{
		lock_scope(&outer);
		assert_true(lock_is_held(&outer));
		lock_acquire(&inner);
		lock_release(&inner);
		before = clock_ns();
		assert_int_equal(lock_wait_until(&outer, &cond, before + 2 * NSEC_PER_MSEC), -ETIMEDOUT);
		assert_true(clock_ns() >= before + 2 * NSEC_PER_MSEC);
		assert_true(lock_is_held(&outer));
	}
	assert_false(lock_is_held(&outer));
	pthread_cond_destroy(&cond);
	lock_destroy(&inner);
	lock_destroy(&outer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pool_runs_everything_once),
		cmocka_unit_test(lock_knows_its_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

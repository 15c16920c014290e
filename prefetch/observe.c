/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/observe.h"

void observe_init(struct observe_queue *q)
{
	for (uint64_t i = 0; i < OBSERVE_SLOTS; i++)
		atomic_init(&q->slot[i].turn, i);
	atomic_init(&q->tail, 0);
	q->head = 0;
}

bool observe_push(struct observe_queue *q, const struct observation *o)
{
	uint64_t at = atomic_load_explicit(&q->tail, memory_order_relaxed);

	for (;;) {
		struct observe_slot *s = &q->slot[at % OBSERVE_SLOTS];
		/* pairs with the release in observe_pop: the slot was emptied */
		uint64_t turn = atomic_load_explicit(&s->turn, memory_order_acquire);

		if (turn < at)
			return false;
		if (turn > at) {
			at = atomic_load_explicit(&q->tail, memory_order_relaxed);
			continue;
		}
		if (atomic_compare_exchange_weak_explicit(&q->tail, &at, at + 1,
							  memory_order_relaxed, memory_order_relaxed)) {
			s->what = *o;
			/* pairs with the acquire in observe_pop: the slot was filled */
			atomic_store_explicit(&s->turn, at + 1, memory_order_release);
			return true;
		}
	}
}

bool observe_pop(struct observe_queue *q, struct observation *ret)
{
	struct observe_slot *s = &q->slot[q->head % OBSERVE_SLOTS];

	if (atomic_load_explicit(&s->turn, memory_order_acquire) != q->head + 1)
		return false;
	*ret = s->what;
	atomic_store_explicit(&s->turn, q->head + OBSERVE_SLOTS, memory_order_release);
	q->head++;
	return true;
}

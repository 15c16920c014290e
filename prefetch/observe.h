/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bounded queue of observations: many producers, one consumer, no lock
 * (D. Vyukov's bounded queue: each slot carries a sequence number). A full
 * queue refuses; the producer counts and goes on.
 */
#ifndef HOPPER_PREFETCH_OBSERVE_H
#define HOPPER_PREFETCH_OBSERVE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "prefetch/prefetch.h"

enum { OBSERVE_SLOTS = 1 << 13 };

struct observe_slot {
	_Atomic uint64_t turn;
	struct observation what;
};

struct observe_queue {
	struct observe_slot slot[OBSERVE_SLOTS];
	_Alignas(128) _Atomic uint64_t tail;
	_Alignas(128) uint64_t head;            /* the consumer's */
};

void observe_init(struct observe_queue *q);
bool observe_push(struct observe_queue *q, const struct observation *o);
bool observe_pop(struct observe_queue *q, struct observation *ret);

#endif

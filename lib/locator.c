/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/locator.h"
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "lib/map64.h"

/*
 * A slot is the answer for the pid that asked last of those with its hash:
 *   pid (32 bits) | when, in ticks (24 bits) | is bound (1 bit) | place + 1 (7 bits)
 */
enum {
	SLOTS = 1 << 12,
	TICK_SHIFT = 26,         /* 67 ms */
	TICK_MASK = (1 << 24) - 1,
	BOUND_TICKS = 60,        /* 4 s: an affinity seldom changes */
	MOVING_TICKS = 4,        /* 270 ms: the scheduler moves a process between nodes only now and then */
	BOUND = 1 << 7,
};

_Static_assert((int)TOPOLOGY_PLACES_MAX < (int)BOUND, "a place and its absence fit");

struct locator {
	const struct topology *topology;
	_Atomic uint64_t slot[SLOTS];
};

struct locator *locator_new(const struct topology *t)
{
	struct locator *l = calloc(1, sizeof(*l));

	if (l)
		l->topology = t;
	return l;
}

void locator_free(struct locator *l)
{
	free(l);
}

/* The processor it ran on last: field 39; the name (field 2) may contain anything, so it is counted from its end. */
static int last_cpu(uint32_t pid)
{
	char path[32], text[1024], *at;
	_cleanup_close_ int fd = -1;
	ssize_t n;
	int cpu;

	snprintf(path, sizeof(path), "/proc/%u/stat", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (n <= 0)
		return -1;
	text[n] = 0;
	at = strrchr(text, ')');
	for (int field = 2; at && field < 39; field++) {
		at = strchr(at, ' ');
		at = at ? at + 1 : NULL;
	}
	return at && sscanf(at, "%d", &cpu) == 1 ? cpu : -1;
}

/* The low byte of a slot. */
static uint64_t look(const struct topology *t, uint32_t pid)
{
	struct cpus cpus = { { 0 } };
	int place = -1, cpu;

	if (!sched_getaffinity((pid_t)pid, sizeof(cpus), (cpu_set_t *)&cpus))
		place = topology_of_cpus(t, &cpus);
	if (place >= 0)
		return BOUND | (uint64_t)(place + 1);
	cpu = last_cpu(pid);
	return (uint64_t)((cpu < 0 ? -1 : topology_of_cpu(t, (unsigned)cpu)) + 1);
}

int locator_place(struct locator *l, uint32_t pid, uint64_t now_ns)
{
	_Atomic uint64_t *slot = &l->slot[map64_mix(pid) % SLOTS];
	uint64_t tick = now_ns >> TICK_SHIFT & TICK_MASK, known;

	if (l->topology->count == 1)
		return 0;
	if (!pid)
		return -1;   /* in a namespace that we cannot see into; 0 would be ourselves */
	known = atomic_load_explicit(slot, memory_order_relaxed);
	if (known >> 32 != pid ||
	    ((tick - (known >> 8)) & TICK_MASK) >= (known & BOUND ? BOUND_TICKS : MOVING_TICKS)) {
		known = (uint64_t)pid << 32 | tick << 8 | look(l->topology, pid);
		atomic_store_explicit(slot, known, memory_order_relaxed);
	}
	return (int)(known & (BOUND - 1)) - 1;
}

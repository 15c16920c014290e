/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long it takes from the first items of a torch permutation to its seed.
 *
 *   seeds [ITEMS]     of a permutation of so many (default 1281167)
 *
 * First a seed that torch.manual_seed(42) gives an epoch, then the last of all 2^32 by as many threads as there are
 * processors: what the recogniser does with idle ones.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "lib/clock.h"
#include "prefetch/search.h"

enum { WORDS = 4, ENTRIES = 8 };

#define SPACE (1ULL << 32)

struct part {
	pthread_t thread;
	const struct head *head;
	uint64_t first, count;
	_Atomic bool *cancel;
	uint32_t seed;
	bool is_found;
};

static struct head head_of(uint32_t n, uint32_t seed)
{
	struct shuffle s = { SHUFFLE_TORCH, seed, 0 };
	struct head h = { .n = n, .count = ENTRIES };
	uint32_t *order = malloc((size_t)n * sizeof(*order));

	if (!order)
		exit(1);
	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	shuffle_apply(&s, order, n);
	for (unsigned i = 0; i < ENTRIES; i++)
		h.index[i] = order[i];
	free(order);
	return h;
}

static void *search(void *arg)
{
	struct part *p = arg;

	p->is_found = search_torch(p->head, p->first, p->count, p->cancel, &p->seed);
	return NULL;
}

/* Seconds; the seed is in the last part. */
static double search_all(const struct head *h, uint32_t want, unsigned threads)
{
	struct part part[64] = { 0 };
	_Atomic bool cancel = false;
	uint64_t began = clock_ns();
	bool is_found = false;

	for (unsigned i = 0; i < threads; i++) {
		uint64_t first = SPACE / threads * i, end = i == threads - 1 ? SPACE : SPACE / threads * (i + 1);

		part[i] = (struct part){ .head = h, .first = first, .count = end - first, .cancel = &cancel };
		if (pthread_create(&part[i].thread, NULL, search, &part[i]))
			exit(1);
	}
	for (unsigned i = 0; i < threads; i++) {
		pthread_join(part[i].thread, NULL);
		is_found |= part[i].is_found && part[i].seed == want;
	}
	if (!is_found) {
		fprintf(stderr, "seeds: the seed was not found\n");
		exit(1);
	}
	return (double)(clock_ns() - began) / 1e9;
}

int main(int argc, char **argv)
{
	uint32_t n = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1281167, seed = 0, last = (uint32_t)(SPACE - 1);
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned threads = cpus < 1 ? 1 : cpus > 64 ? 64 : (unsigned)cpus;
	_Atomic bool cancel = false;
	uint64_t began, word = 0;
	struct head h;

	if (n < 1000) {
		fprintf(stderr, "usage: seeds [ITEMS], at least 1000\n");
		return 2;
	}
	h = head_of(n, 787846414);   /* the first epoch's after manual_seed(42) */
	began = clock_ns();
	if (!search_default_generator(&h, 4096, WORDS, &cancel, &seed, &word) || seed != 42) {
		fprintf(stderr, "seeds: manual_seed(42) was not found\n");
		return 1;
	}
	printf("%" PRIu32 " items: manual_seed(42), word %" PRIu64 ", found in %.1f ms\n", n, word, (double)(clock_ns() - began) / 1e6);
	h = head_of(n, last);
	printf("%" PRIu32 " items: all 2^32 seeds, %u threads: %.1f s\n", n, threads, search_all(&h, last, threads));
	return 0;
}

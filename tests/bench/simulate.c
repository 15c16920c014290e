/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Epochs in virtual time: no mount, no clock, the same numbers in every run.
 *
 *   simulate [--items N] [--loader NAME] [--csv]
 *
 * A loader's readers take their batches in order, some batches ahead of a
 * consumer that needs one time unit per item. The origin takes LATENCY units for
 * a request and carries r items per unit. The prefetcher's own code (set.c, order.c)
 * decides for the policies "unread" (order unknown) and "known", with a fiftieth of the data as memory for
 * what is fetched when the disk is full of the unread; LRU,
 * 2-random and never-evict are what other caches do, without prefetch.
 *
 * For each loader, c (cache / data) and r it prints, of the last epoch: the
 * share served from cache, time and stall over the epoch's items, origin
 * items and what was fetched in vain, beside the bounds c (any demand cache),
 * c(1 + ln 1/c) (prefetch without the order) and max(1, (1 - c) / r) (time).
 */
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "prefetch/order.h"
#include "prefetch/set.h"
#include "prefetch/shuffle.h"

enum { WORKERS = 4, BATCH = 32, AHEAD = 2, LATENCY = 10, EPOCHS = 4, IN_FLIGHT_MAX = 256, EXTRA = 2,
       SHARDS = 80, SHARDS_MIXED = 8, BUFFERED = 1000,
       MEMORY_SHARE = 50 };

enum { IN_CACHE = 1, IN_MEMORY };

enum policy { LRU, TWO_RANDOM, NEVER_EVICT, UNREAD, KNOWN, POLICIES };

static const char *const policy_name[POLICIES] = { "LRU", "2-random", "never-evict", "unread", "known" };

struct request {
	uint32_t item;
	double end;
};

struct world {
	uint32_t n, count, capacity;     /* items, of which an epoch reads so many */
	double r;
	enum policy policy;
	const uint32_t *order;

	/* the cache */
	uint8_t *is_in;                 /* resident or in flight: IN_CACHE, or IN_MEMORY until it was read */
	uint32_t memory, in_memory;     /* items that may wait there when the cache is full of the unread; those that do */
	double *ready;                  /* when an item in flight is there */
	uint64_t *used;                 /* LRU: last use */
	uint32_t resident, *slot;       /* resident items, for choosing victims; slot[] is a dense list */
	uint32_t *place;                /* of an item in slot[] */
	uint32_t *consumed;             /* FIFO of those that may go */
	uint32_t consumed_head, consumed_tail;
	uint64_t uses, random;

	/* the prefetcher's */
	struct set set;
	struct unit *unit;
	struct order *known;
	struct request flight[IN_FLIGHT_MAX];
	unsigned in_flight;

	double link_free;
	/* of one epoch */
	uint64_t served, fetched;
};

static uint64_t random_next(struct world *w)
{
	w->random ^= w->random >> 12;
	w->random ^= w->random << 25;
	w->random ^= w->random >> 27;
	return w->random * 0x2545f4914f6cdd1dULL;
}

static void take_out(struct world *w, uint32_t item)
{
	uint32_t last = w->slot[--w->resident];

	w->slot[w->place[item]] = last;
	w->place[last] = w->place[item];
	w->is_in[item] = 0;
	w->unit->item[item] &= (uint8_t)~ITEM_RESIDENT;
}

static void put_in(struct world *w, uint32_t item, double ready)
{
	w->place[item] = w->resident;
	w->slot[w->resident++] = item;
	w->is_in[item] = IN_CACHE;
	w->ready[item] = ready;
	w->used[item] = ++w->uses;
}

/* Make room for one more, as the policy does. Returns whether there is. */
static bool make_room(struct world *w)
{
	uint32_t victim = 0;

	if (w->resident < w->capacity)
		return true;
	if (!w->capacity || w->policy == NEVER_EVICT)
		return false;
	if (w->policy == LRU) {
		/* sampled over all: exact, and slow enough to be simple */
		for (uint32_t i = 0, best = 0; i < w->resident; i++) {
			if (!i || w->used[w->slot[i]] < w->used[w->slot[best]])
				best = i, victim = w->slot[i];
		}
	} else if (w->policy == TWO_RANDOM) {
		uint32_t a = w->slot[random_next(w) % w->resident], b = w->slot[random_next(w) % w->resident];

		victim = w->used[a] < w->used[b] ? a : b;
	} else {
		do {
			if (w->consumed_head == w->consumed_tail)
				return false;
			victim = w->consumed[w->consumed_head++ % (2 * w->n)];
		} while (w->is_in[victim] != IN_CACHE || !(w->unit->item[victim] & ITEM_CONSUMED));
	}
	take_out(w, victim);
	return true;
}

static double fetch(struct world *w, double now)
{
	double start = now + LATENCY > w->link_free ? now + LATENCY : w->link_free;

	w->link_free = start + 1 / w->r;
	w->fetched++;
	return w->link_free;
}

/* The next item the prefetcher would ask for. */
static bool next_wanted(struct world *w, uint32_t *ret_item)
{
	uint32_t k;

	if (w->known) {
		while ((w->known->cursor = order_next(w->known, w->known->cursor)) < w->known->count) {
			*ret_item = w->known->item[w->known->cursor];
			if (item_is_missing(w->unit->item[*ret_item]))
				return true;
			w->known->cursor++;
		}
		return false;
	}
	if (!set_next_missing(&w->set, &k))
		return false;
	*ret_item = k;
	return true;
}

static void flights_land(struct world *w, double now)
{
	for (unsigned i = 0; i < w->in_flight;) {
		if (w->flight[i].end > now) {
			i++;
			continue;
		}
		w->unit->item[w->flight[i].item] = (uint8_t)((w->unit->item[w->flight[i].item] & ~ITEM_IN_FLIGHT) | ITEM_RESIDENT);
		w->flight[i] = w->flight[--w->in_flight];
	}
}

/* As much as the link holds, as the governor would have it. */
static void prefetch(struct world *w, double now)
{
	unsigned holds = (unsigned)(LATENCY * w->r) + 1 + EXTRA;
	uint32_t item;

	flights_land(w, now);
	if (w->policy < UNREAD)
		return;
	while (w->in_flight < (holds < IN_FLIGHT_MAX ? holds : IN_FLIGHT_MAX) && next_wanted(w, &item)) {
		bool has_room = make_room(w);

		if (!has_room && w->in_memory >= w->memory)
			return;
		w->unit->item[item] |= ITEM_IN_FLIGHT | ITEM_STAGED;
		w->flight[w->in_flight] = (struct request){ item, fetch(w, now) };
		if (has_room) {
			put_in(w, item, w->flight[w->in_flight++].end);
			continue;
		}
		w->is_in[item] = IN_MEMORY;
		w->ready[item] = w->flight[w->in_flight++].end;
		w->in_memory++;
	}
}

/* It was read, and is nowhere else. */
static void leave_memory(struct world *w, uint32_t item)
{
	for (unsigned i = 0; i < w->in_flight; i++) {
		if (w->flight[i].item == item)
			w->flight[i--] = w->flight[--w->in_flight];
	}
	w->unit->item[item] &= (uint8_t)~(ITEM_RESIDENT | ITEM_IN_FLIGHT);
	w->is_in[item] = 0;
	w->in_memory--;
}

/* A reader asks for @item at @now; returns when it has it. */
static double read_item(struct world *w, uint32_t item, double now)
{
	double end = now;

	flights_land(w, now);
	if (w->is_in[item]) {
		end = w->ready[item] > now ? w->ready[item] : now;
		w->served += end == now;
		w->used[item] = ++w->uses;
		if (w->is_in[item] == IN_MEMORY)
			leave_memory(w, item);
	} else {
		end = fetch(w, now);
		/* a demand cache keeps what it fetched; consumed already, it is of no use to us */
		if (w->policy < UNREAD && make_room(w))
			put_in(w, item, end);
	}
	set_consume(&w->set, w->unit, item, (uint64_t)now);
	w->consumed[w->consumed_tail++ % (2 * w->n)] = item;
	if (w->known)
		order_saw(w->known, item);
	prefetch(w, now);
	return end;
}

/* Readers and the consumer of one epoch, from @now on; returns when the last item is consumed. */
static double run_epoch(struct world *w, double now, double *ret_stall)
{
	uint32_t batches = (w->count + BATCH - 1) / BATCH, next[WORKERS], at[WORKERS];
	double *done = calloc(batches, sizeof(*done)), clock[WORKERS], *taken = calloc(batches, sizeof(*taken)), consumer = now;

	*ret_stall = 0;
	for (uint32_t k = 0; k < WORKERS; k++) {
		next[k] = k;
		at[k] = 0;
		clock[k] = now;
	}
	for (uint32_t b = 0; b < batches;) {
		uint32_t first = WORKERS;

		/* the reader that is next in time, of those that may begin or go on */
		for (uint32_t k = 0; k < WORKERS; k++) {
			bool may = next[k] < batches && (at[k] || next[k] < b + WORKERS * AHEAD);

			if (may && (first == WORKERS || clock[k] < clock[first]))
				first = k;
		}
		if (first < WORKERS && (!done[b] || clock[first] < (done[b] > consumer ? done[b] : consumer))) {
			uint32_t i = next[first] * BATCH + at[first];

			clock[first] = read_item(w, w->order[i], clock[first]);
			if (++at[first] == BATCH || i + 1 == w->count) {
				done[next[first]] = clock[first];
				next[first] += WORKERS;
				at[first] = 0;
				/* the next begins when the consumer has taken one */
				if (next[first] < batches && next[first] >= WORKERS * AHEAD && taken[next[first] - WORKERS * AHEAD] > clock[first])
					clock[first] = taken[next[first] - WORKERS * AHEAD];
			}
			continue;
		}
		if (done[b] > consumer) {
			*ret_stall += done[b] - consumer;
			consumer = done[b];
		}
		taken[b] = consumer;
		for (uint32_t k = 0; k < WORKERS; k++) {
			if (!at[k] && next[k] == b + WORKERS * AHEAD && clock[k] < consumer)
				clock[k] = consumer;
		}
		consumer += b + 1 < batches ? BATCH : w->count - b * BATCH;
		prefetch(w, taken[b]);
		b++;
	}
	free(done);
	free(taken);
	return consumer;
}

/* What is shuffled, and what a shuffle goes on from. */
enum rule {
	EACH,            /* the list anew, with another seed each epoch */
	ON,              /* a generator seeded once, which goes on: a permutation each epoch */
	IN_PLACE,        /* the list that the last epoch left, with another seed */
	SHARDS_SAME,     /* shards: the workers take every WORKERS-th, each from its beginning to its end; the same every epoch */
	SHARDS_EACH,     /* the same in another order each epoch */
	MIXED,           /* shards in another order, the samples of some at a time mixed */
	BUFFER,          /* the list through a shuffle buffer that nobody seeded */
	SHARE,           /* half of the permutation: the other is another node's */
};

struct loader {
	const char *name;
	enum shuffle_kind kind;
	uint64_t first_seed;
	enum rule rule;
};

/* The loaders' orders. What they are of does not matter here: files, records of an HDF5 data set, token blocks. */
static const struct loader loaders[] = {
	{ "torch RandomSampler", SHUFFLE_TORCH, 787846414, EACH },
	{ "torch generator", SHUFFLE_TORCH, 67280421310721ULL, ON },
	{ "torch DistributedSampler", SHUFFLE_TORCH, 0, EACH },
	{ "torch Distributed of 2", SHUFFLE_TORCH, 0, SHARE },
	{ "numpy RandomState", SHUFFLE_NUMPY_STATE, 123, EACH },
	{ "numpy default_rng", SHUFFLE_NUMPY_RNG, 9176, EACH },
	{ "python shuffle", SHUFFLE_PYTHON, 42, EACH },
	{ "DALI", SHUFFLE_STD, 524287, IN_PLACE },
	{ "DLIO", SHUFFLE_NUMPY_STATE, 123, IN_PLACE },
	{ "Megatron", SHUFFLE_NUMPY_STATE, 1234, ON },
	{ "WebDataset", SHUFFLE_BUFFER, 0, SHARDS_SAME },
	{ "HF iterable", SHUFFLE_NUMPY_RNG, 42, SHARDS_EACH },
	{ "MosaicML Streaming", SHUFFLE_NUMPY_RNG, 9176, MIXED },
	{ "tf.data", SHUFFLE_NONE, 0, BUFFER },
	{ "sequential", SHUFFLE_NONE, 0, EACH },
};

struct outcome {
	double served, time, stall, origin, wasted;
};

static void count_up(uint32_t *order, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
}

/* Worker k's j-th sample stands where its batches do. */
static void deal(const uint32_t *shard, uint32_t shards, uint32_t n, uint32_t *order)
{
	uint32_t position = 0, next[WORKERS] = { 0 }, each = n / shards, batches = (n + BATCH - 1) / BATCH;

	for (uint32_t b = 0; b < batches && position < n; b++) {
		for (uint32_t i = 0, k = b % WORKERS; i < BATCH && position < n; i++) {
			uint32_t tries = 0;

			/* a worker that has read its share leaves the rest to the others */
			while (k + next[k] / each * WORKERS >= shards && tries++ < WORKERS)
				k = (k + 1) % WORKERS;
			order[position++] = shard[k + next[k] / each * WORKERS] * each + next[k] % each;
			next[k]++;
		}
	}
}

static void make_shards(const struct loader *l, uint32_t n, unsigned epoch, uint32_t *order)
{
	struct shuffle s = { l->kind, l->first_seed + (l->rule == SHARDS_SAME ? 0 : epoch), 0 };
	uint32_t shard[SHARDS], each = n / SHARDS;

	count_up(shard, SHARDS);
	shuffle_apply(&s, shard, SHARDS);
	if (l->rule != MIXED) {
		deal(shard, SHARDS, n, order);
		return;
	}
	for (uint32_t i = 0; i < n; i++)
		order[i] = shard[i / each] * each + i % each;
	for (uint32_t i = 0; i < n; i += SHARDS_MIXED * each) {
		s.seed += EPOCHS;
		shuffle_apply(&s, order + i, n - i < SHARDS_MIXED * each ? n - i : SHARDS_MIXED * each);
	}
}

/* As tf.data.Dataset.shuffle: the next goes into the place of one that was drawn. */
static void make_buffered(uint32_t n, unsigned epoch, uint32_t *order)
{
	struct world w = { .random = epoch + 1 };
	uint32_t held[BUFFERED], count = 0, out = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (count < BUFFERED && count < n / 2) {
			held[count++] = i;
			continue;
		}
		uint32_t at = (uint32_t)(random_next(&w) % count);

		order[out++] = held[at];
		held[at] = i;
	}
	while (count) {
		uint32_t at = (uint32_t)(random_next(&w) % count);

		order[out++] = held[at];
		held[at] = held[--count];
	}
}

/* The order of epoch @epoch into @order, which holds the last one's; @g goes on. */
static void make_order(const struct loader *l, uint32_t n, unsigned epoch, struct shuffle_rng *g, uint32_t *order)
{
	struct shuffle s = { l->kind, l->first_seed + epoch, 0 };

	if (l->rule == SHARDS_SAME || l->rule == SHARDS_EACH || l->rule == MIXED) {
		make_shards(l, n, epoch, order);
		return;
	}
	if (l->rule == BUFFER) {
		make_buffered(n, epoch, order);
		return;
	}
	if (l->rule != IN_PLACE || !epoch)
		count_up(order, n);
	if (l->rule == ON)
		shuffle_rng_apply(g, order, n);
	else
		shuffle_apply(&s, order, n);
	/* rank 0 of 2 */
	for (uint32_t i = 0; l->rule == SHARE && i < n / 2; i++)
		order[i] = order[2 * i];
}

static struct outcome simulate(const struct loader *l, uint32_t n, double c, double r, enum policy policy)
{
	uint32_t count = l->rule == SHARE ? n / 2 : n;
	struct world w = { .n = n, .count = count, .capacity = (uint32_t)(c * n), .r = r, .policy = policy, .random = 1 };
	struct shuffle first = { l->kind, l->first_seed, 0 };
	struct shuffle_rng *g = shuffle_rng_new(&first);
	uint32_t *order = malloc(n * sizeof(*order));
	uint64_t left[PREDICTOR_COUNT] = { 0 };
	struct outcome out = { 0 };
	double now = 0;

	/* what waits in memory is part of the cache's size; demand caches use all of it as they do the rest */
	w.memory = policy >= UNREAD ? n / MEMORY_SHARE : 0;
	w.capacity -= w.capacity < w.memory ? w.capacity : w.memory;
	w.is_in = calloc(n, 1);
	w.ready = calloc(n, sizeof(double));
	w.used = calloc(n, sizeof(uint64_t));
	w.slot = calloc(n + 1, sizeof(uint32_t));
	w.place = calloc(n, sizeof(uint32_t));
	w.consumed = calloc(2 * (size_t)n, sizeof(uint32_t));
	w.unit = set_add_unit(&w.set, 2, 0, n);
	for (unsigned e = 0; e < EPOCHS; e++) {
		uint32_t *copy = malloc(n * sizeof(*copy));
		double began = now;

		make_order(l, n, e, g, order);
		memcpy(copy, order, count * sizeof(*copy));
		w.order = order;
		w.known = policy == KNOWN ? order_new(copy, count, PREDICTOR_SAMPLER, 1, 0, "") : NULL;
		if (policy != KNOWN)
			free(copy);
		w.served = w.fetched = 0;
		prefetch(&w, now);
		now = run_epoch(&w, now, &out.stall);
		out = (struct outcome){ (double)w.served / count, (now - began) / count, out.stall / count, (double)w.fetched / count, 0 };
		flights_land(&w, 1e300);
		memset(left, 0, sizeof(left));
		set_turn(&w.set, (uint64_t)now, left);
		out.wasted = (double)left[PREDICTOR_PLAN] / count;   /* who fetched it is not told apart here */
		order_free(w.known);
	}
	free(order);
	free(g);
	unit_free(w.unit);
	free(w.set.unit);
	free(w.is_in);
	free(w.ready);
	free(w.used);
	free(w.slot);
	free(w.place);
	free(w.consumed);
	return out;
}

static const double cs[] = { 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0 }, rs[] = { 0.5, 1, 2, 4 };

static void print_row(const struct loader *l, double c, double r, enum policy p, const struct outcome *o, bool csv)
{
	double unknown = c < 1 ? c * (1 + log(1 / c)) : 1, time = fmax(1, (1 - c) / r);

	printf(csv ? "%s,%.2f,%.1f,%s,%.4f,%.4f,%.4f,%.4f,%.4f,%.4f,%.4f\n" :
	       "%-25s %5.2f %4.1f %-12s served %.3f (demand %.3f, unread %.3f)  time %.3f (%.2f x bound)  stall %.3f  origin %.3f  wasted %.4f\n",
	       l->name, c, r, policy_name[p], o->served, csv ? o->time : c, csv ? o->stall : unknown,
	       csv ? o->origin : o->time, csv ? o->wasted : o->time / time, csv ? unknown : o->stall, csv ? time : o->origin, o->wasted);
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "items", 1, NULL, 'n' }, { "loader", 1, NULL, 'l' }, { "csv", 0, NULL, 'c' }, { NULL, 0, NULL, 0 } };
	const char *only = "";
	uint32_t n = 8000;
	bool csv = false;
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 'n')
			n = (uint32_t)strtoul(optarg, NULL, 10);
		else if (opt == 'l')
			only = optarg;
		else if (opt == 'c')
			csv = true;
		else
			return 2;
	}
	if (n < 100) {
		fprintf(stderr, "simulate: --items must be at least 100\n");
		return 2;
	}
	if (csv)
		printf("loader,c,r,policy,served,time,stall,origin,wasted,bound_unread,bound_time\n");
	for (size_t l = 0; l < sizeof(loaders) / sizeof(loaders[0]); l++) {
		for (size_t i = 0; i < sizeof(cs) / sizeof(cs[0]) && strstr(loaders[l].name, only); i++) {
			for (size_t k = 0; k < sizeof(rs) / sizeof(rs[0]); k++) {
				for (int p = 0; p < POLICIES; p++) {
					struct outcome o = simulate(&loaders[l], n, cs[i], rs[k], (enum policy)p);

					print_row(&loaders[l], cs[i], rs[k], (enum policy)p, &o, csv);
				}
			}
		}
	}
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/recognise.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "lib/clock.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "prefetch/lists.h"

enum {
	RANK_RECOGNISE = 15,
	NICE = 5,                      /* of the short searches; the long one is idle */
	SEARCHERS_MAX = 8,
	SMALL_BITS = 20,               /* seeds below 2^20 are tried for torch */
	USUAL_SEEDS = 4096, USUAL_RANK_SEEDS = 64, USUAL_GENERATORS = 256,
	RANK_SEEDS = 1024, RANKS_MAX = 64,
	SMALL_N = 20000, SMALL_SEEDS = 1000,   /* whole shuffles: about a second */
	MAIN_SEEDS = 10000, MAIN_WORDS = 16, MANY_MAIN_SEEDS = 1 << 18,
	STREAMING_EPOCHS = 100, STREAMING_OPENED = 24,
	CHUNK_BITS = 24,               /* seeds a searcher takes at a time: half a second */
};

#define GENERATOR_UNSEEDED 67280421310721ULL   /* torch.Generator() */
#define STREAM_WORDS (1ULL << 27)              /* of model initialisation before the loader: ResNet-50 draws 49 M */

/* Seeds people use, besides small numbers. */
static const uint32_t popular[] = {
	42, 0, 1, 1234, 123, 1337, 3407, 2021, 2022, 2023, 2024, 2025, 2026, 12345, 7, 10, 100, 999, 2, 3, 4, 5, 21, 77, 101, 777,
	1000, 4242, 31337, 123456, 2020, 2019, 9176, 6, 8, 9, 11, 12, 13, 17,
};

/* A reader's first items as indices of one map. */
struct view {
	uint32_t index[SEARCH_HEAD_MAX];
	uint8_t column[SEARCH_HEAD_MAX];
};

struct recogniser {
	void (*done)(void *arg, struct recognise_job *job);
	void *arg;
	pthread_t thread;
	_Atomic bool cancel;
	_Atomic uint64_t cpu_ns;

	struct lock lock;
	pthread_cond_t wake;
	/* protected by lock */
	struct recognise_job *waiting[16];
	unsigned waiting_count;
	uint64_t running_set;
	uint32_t running_epoch;
	bool is_closing;

	/* the thread's own */
	struct maps *maps;             /* owned */
	struct view view[MAPS][HEADS_MAX];
	bool has_view[MAPS];           /* of the job at hand */
};

void recognise_job_free(struct recognise_job *job)
{
	if (!job)
		return;
	free(job->unit);
	order_free(job->order);
	free(job);
}

/* ---- heads ---- */

/* Each map is gone through once a job. */
static const struct view *views(struct recogniser *r, const struct recognise_job *job, unsigned map)
{
	for (uint32_t i = 0; i < job->stream_count && !r->has_view[map]; i++)
		maps_indices(maps_get(r->maps, map), job->stream[i].item, job->stream[i].count, r->view[map][i].index, r->view[map][i].column);
	r->has_view[map] = true;
	return r->view[map];
}

/*
 * Reader @i's first items as indices of @map, at most @count of them; of several files a sample only those of the
 * first one's kind. False if one is not in the map, or if they are fewer than @least.
 */
static bool head_make(struct recogniser *r, const struct recognise_job *job, unsigned map, uint32_t i, uint32_t least, uint32_t count,
		      struct head *ret)
{
	const struct view *v = &views(r, job, map)[i];

	*ret = (struct head){ .n = maps_get(r->maps, map)->n };
	for (uint32_t k = 0; k < job->stream[i].count && ret->count < count; k++) {
		if (v->index[k] == UINT32_MAX)
			return false;
		if (v->column[k] == v->column[0])
			ret->index[ret->count++] = v->index[k];
	}
	return ret->count >= least;
}

/* ---- the order of an epoch ---- */

/* Compute what @f says; the family is then this epoch's. */
static bool order_make(struct recogniser *r, struct recognise_job *job, const struct family *f)
{
	const struct index_map *map = maps_get(r->maps, f->map);
	uint32_t *item = map ? family_items(f, map) : NULL;
	char text[FAMILY_TEXT];

	if (!item)
		return false;
	family_describe(f, text);
	job->family = *f;
	job->family.epoch = job->epoch;
	job->order = order_new(item, map->n * map->columns, f->is_told ? PREDICTOR_PLAN : PREDICTOR_SAMPLER,
			       f->stride > 1 ? f->stride * map->columns : 1, f->start * map->columns, text);
	job->is_found = job->order != NULL;
	return job->is_found;
}

/* Any worker's first batch: somewhere near the head of @order, then one sample after the other. */
static bool begins_as(const uint32_t *order, const struct index_map *map, uint32_t stride, const struct recognise_stream *s)
{
	uint32_t n = map->n * map->columns, at = 0, window = n / 4 < 8192 ? n / 4 + 1 : 8192, k;

	while (at < window && order[at] != s->item[0])
		at++;
	if (at == window)
		return false;
	for (k = 1; k < s->count && k < 3; k++) {
		uint32_t next = at + k / map->columns * map->columns * stride + k % map->columns;

		if (next >= n || order[next] != s->item[k])
			break;
	}
	return k == 3;
}

/* Does the order that @f says begin as some reader did? Streaming's says nothing as exact. */
static bool family_fits(struct recogniser *r, const struct recognise_job *job, const struct family *f)
{
	const struct index_map *map = maps_get(r->maps, f->map);
	uint32_t *order = map && f->kind != FAMILY_STREAMING ? family_items(f, map) : NULL;
	bool fits = map && f->kind == FAMILY_STREAMING && job->stream_count;

	for (uint32_t i = 0; order && i < job->stream_count && !fits; i++)
		fits = begins_as(order, map, f->stride, &job->stream[i]);
	free(order);
	return fits;
}

static bool has_evidence(const struct recognise_job *job)
{
	bool has = false;

	for (uint32_t i = 0; i < job->stream_count; i++)
		has |= job->stream[i].count >= 3;
	return has;
}

/* The same job again: it reads this epoch as it did then. Without evidence only if the epoch before was as then. */
static bool recognise_past(struct recogniser *r, struct recognise_job *job)
{
	if (job->past.kind == FAMILY_NONE || !maps_get(r->maps, job->past.map))
		return false;
	return (!has_evidence(job) || family_fits(r, job, &job->past)) && order_make(r, job, &job->past);
}

static bool recognise_next(struct recogniser *r, struct recognise_job *job)
{
	const struct index_map *map = maps_get(r->maps, job->known.map);
	struct family f;
	uint32_t steps = job->epoch - job->known.epoch;
	bool has_seen = has_evidence(job);

	if (!map || (job->known.kind != FAMILY_NONE && steps > 1000))
		return false;
	for (unsigned which = 0; family_next(&job->known, steps, map->n, which, &f); which++) {
		if (!has_seen || family_fits(r, job, &f))
			return order_make(r, job, &f);
		if (!steps)
			return false;
	}
	return false;
}

/* ---- from nothing ---- */

static bool try_sequential(struct recogniser *r, struct recognise_job *job, const struct head *h, unsigned map)
{
	struct family f = { .kind = FAMILY_SEQUENTIAL, .stride = 1, .map = map };
	uint32_t step = h->count > 1 ? h->index[1] - h->index[0] : 0;

	if (h->count < 5 || !step || step > RANKS_MAX || h->index[0] >= step)
		return false;
	for (uint32_t k = 1; k < h->count; k++) {
		if (h->index[k] != h->index[0] + k * step)
			return false;
	}
	f.stride = step;
	f.start = h->index[0];
	return order_make(r, job, &f);
}

static bool found_torch(struct recogniser *r, struct recognise_job *job, struct family *f, uint32_t seed)
{
	f->kind = FAMILY_SEED_PLUS_EPOCH;
	f->shuffle.seed = seed;
	return order_make(r, job, f);
}

static bool found_default(struct recogniser *r, struct recognise_job *job, struct family *f, uint32_t main_seed)
{
	f->kind = FAMILY_DEFAULT_GENERATOR;
	f->main_seed = main_seed;
	f->shuffle.seed = family_default_word(main_seed, f->word);
	return order_make(r, job, f);
}

/* The loader's own generator, which has drawn the workers' seed before: a never seeded one, then small seeds. */
static bool try_generators(struct recogniser *r, struct recognise_job *job, const struct head *h, unsigned map, uint32_t seeds)
{
	struct family f = { .kind = FAMILY_GENERATOR, .shuffle = { SHUFFLE_TORCH, GENERATOR_UNSEEDED, 2 }, .stride = 1, .map = map };

	for (uint32_t s = 0; s <= seeds && !atomic_load(&r->cancel); f.shuffle.seed = s++) {
		if (search_matches(h, (uint32_t)f.shuffle.seed, 2))
			return order_make(r, job, &f);
	}
	return false;
}

/* What most jobs do: the epoch's number or manual_seed(42) and the like. A few milliseconds. */
static bool try_torch_usual(struct recogniser *r, struct recognise_job *job, const struct head *h, unsigned map)
{
	struct family f = { .shuffle = { .kind = SHUFFLE_TORCH }, .stride = 1, .map = map };
	uint32_t seed;

	if (search_torch(h, 0, USUAL_SEEDS, &r->cancel, &seed))
		return found_torch(r, job, &f, seed);
	if (search_default_generator(h, USUAL_SEEDS, 4, &r->cancel, &seed, &f.word))
		return found_default(r, job, &f, seed);
	if (try_generators(r, job, h, map, USUAL_GENERATORS))
		return true;
	if (search_strided(h, USUAL_RANK_SEEDS, RANKS_MAX, &r->cancel, &seed, &f.start, &f.stride))
		return found_torch(r, job, &f, seed);
	return false;
}

static bool try_torch(struct recogniser *r, struct recognise_job *job, const struct head *h, unsigned map)
{
	struct family f = { .shuffle = { .kind = SHUFFLE_TORCH }, .stride = 1, .map = map };
	uint32_t seed;

	if (try_generators(r, job, h, map, MAIN_SEEDS))
		return true;
	if (search_torch(h, USUAL_SEEDS, (1 << SMALL_BITS) - USUAL_SEEDS, &r->cancel, &seed))
		return found_torch(r, job, &f, seed);
	if (search_default_generator(h, MAIN_SEEDS, MAIN_WORDS, &r->cancel, &seed, &f.word) ||
	    search_default_generator(h, MANY_MAIN_SEEDS, 4, &r->cancel, &seed, &f.word))
		return found_default(r, job, &f, seed);
	if (search_strided(h, RANK_SEEDS, RANKS_MAX, &r->cancel, &seed, &f.start, &f.stride))
		return found_torch(r, job, &f, seed);
	return false;
}

/* DALI's file lists: shuffled once, or again after each epoch, with seeds of its own. */
static bool try_dali(struct recogniser *r, struct recognise_job *job, const struct head *h, unsigned map)
{
	struct family f = { .kind = FAMILY_CUMULATIVE, .main_seed = FAMILY_DALI_SEED, .stride = 1, .map = map };
	uint64_t seed;

	for (f.shuffle.kind = SHUFFLE_STD; f.shuffle.kind <= SHUFFLE_STD_OLD; f.shuffle.kind++) {
		f.shuffle.seed = FAMILY_DALI_SEED;
		if (search_small(h, f.shuffle.kind, FAMILY_DALI_SEED, 1, &r->cancel, &seed))
			return order_make(r, job, &f);
	}
	return false;
}

/* ---- lists that a program shuffled ---- */

/* The readers' heads under one map, none without it; those with an item that is not in it are left out. */
static uint32_t heads_make(struct recogniser *r, const struct recognise_job *job, unsigned map, struct head head[HEADS_MAX])
{
	uint32_t count = 0;

	for (uint32_t i = 0; maps_get(r->maps, map) && i < job->stream_count; i++)
		count += head_make(r, job, map, i, 1, SEARCH_HEAD_MAX, &head[count]);
	return count;
}

static bool try_space(struct recogniser *r, struct recognise_job *job, const struct head *head, uint32_t heads, unsigned map,
		      const struct lists_space *space)
{
	struct family f = { .kind = FAMILY_SEED_PLUS_EPOCH, .shuffle = { .kind = space->kind }, .is_split = space->is_split, .map = map };
	struct lists_found found;

	if (!lists_search(head, heads, space, &r->cancel, &found))
		return false;
	f.shuffle.seed = found.seed;
	f.stride = found.stride;
	f.start = found.start;
	return order_make(r, job, &f);
}

/* Small seeds for short lists, those that people use for any. */
static bool try_list_kind(struct recogniser *r, struct recognise_job *job, const struct head *head, uint32_t heads, unsigned map,
			  enum shuffle_kind kind, bool is_split)
{
	bool is_short = head->n <= SMALL_N;
	struct lists_space space = { kind, 0, SMALL_SEEDS, is_split };

	if (is_short && try_space(r, job, head, heads, map, &space))
		return true;
	for (size_t i = 0; i < sizeof(popular) / sizeof(popular[0]); i++) {
		space.first = popular[i];
		space.count = popular[i] == FAMILY_STREAMING_SEED && is_short ? STREAMING_EPOCHS : 1;
		if ((!is_short || popular[i] >= SMALL_SEEDS) && try_space(r, job, head, heads, map, &space))
			return true;
	}
	return false;
}

static bool try_lists(struct recogniser *r, struct recognise_job *job)
{
	static const enum shuffle_kind kinds[] = { SHUFFLE_NUMPY_STATE, SHUFFLE_NUMPY_RNG, SHUFFLE_PYTHON, SHUFFLE_BUFFER };
	struct head head[HEADS_MAX];

	for (unsigned m = 0; m < MAPS; m++) {
		uint32_t heads = heads_make(r, job, m, head);

		for (unsigned k = 0; k < sizeof(kinds) / sizeof(kinds[0]) && heads; k++) {
			/* shares are of lists of shards, as are WebDataset's */
			bool is_of_shards = head->n <= SMALL_N;

			if (((kinds[k] != SHUFFLE_BUFFER || is_of_shards) && try_list_kind(r, job, head, heads, m, kinds[k], false)) ||
			    (is_of_shards && try_list_kind(r, job, head, heads, m, kinds[k], true)))
				return true;
		}
	}
	return false;
}

/*
 * MosaicML Streaming reads samples of some shards at a time, so these are opened in no exact order, but are
 * the first of the epoch's: nearly all among the first so many.
 */
static bool streaming_fits(const uint32_t *order, uint32_t n, const struct head *head, uint32_t heads)
{
	uint32_t opened = 0, within = 0, window;
	uint32_t *at = malloc((size_t)n * sizeof(*at) + 1);

	for (uint32_t i = 0; at && i < n; i++)
		at[order[i]] = i;
	for (uint32_t h = 0; h < heads; h++)
		opened += head[h].count;
	window = opened * 2;
	for (uint32_t h = 0; h < heads && at; h++) {
		for (uint32_t k = 0; k < head[h].count; k++)
			within += at[head[h].index[k]] < window;
	}
	free(at);
	/* each is there by chance with window / n, a quarter at most */
	return window * 4 <= n && opened >= STREAMING_OPENED && within * 20 >= opened * 19;
}

static bool try_streaming(struct recogniser *r, struct recognise_job *job)
{
	struct head head[HEADS_MAX];
	bool found = false;

	for (unsigned m = 0; m < MAPS && !found; m++) {
		uint32_t heads = heads_make(r, job, m, head);
		uint32_t *order = heads ? malloc((size_t)head->n * sizeof(*order)) : NULL;
		struct family f = { .kind = FAMILY_STREAMING, .shuffle = { SHUFFLE_NUMPY_RNG, FAMILY_STREAMING_SEED, 0 },
				    .main_seed = FAMILY_STREAMING_SEED, .stride = 1, .map = m };

		for (; order && !found && f.shuffle.seed < FAMILY_STREAMING_SEED + STREAMING_EPOCHS; f.shuffle.seed++) {
			if (!family_indices(&f, order, head->n) && streaming_fits(order, head->n, head, heads)) {
				found = order_make(r, job, &f);
				break;
			}
		}
		free(order);
	}
	return found;
}

/* ---- all of them ---- */

struct sweep {
	struct recogniser *r;
	const struct head *h;
	_Atomic uint64_t next;
	_Atomic bool is_found;
	_Atomic uint32_t seed;
	pthread_t thread[SEARCHERS_MAX];
	unsigned count;
};

/* Only what nobody else wants of the processor. */
static void be_idle(void)
{
	struct sched_param none = { 0 };

	if (pthread_setschedparam(pthread_self(), SCHED_IDLE, &none))
		setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19);
}

static void account(struct recogniser *r)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	atomic_fetch_add(&r->cpu_ns, (uint64_t)ts.tv_sec * NSEC_PER_SEC + (uint64_t)ts.tv_nsec);
}

static void *sweep_thread(void *arg)
{
	struct sweep *s = arg;
	uint64_t chunk;
	uint32_t seed;

	pthread_setname_np(pthread_self(), "seeds");
	be_idle();
	while (!atomic_load(&s->is_found) && !atomic_load(&s->r->cancel) &&
	       (chunk = atomic_fetch_add(&s->next, 1)) < 1ULL << (32 - CHUNK_BITS)) {
		if (search_torch(s->h, chunk << CHUNK_BITS, 1ULL << CHUNK_BITS, &s->r->cancel, &seed)) {
			atomic_store(&s->seed, seed);
			atomic_store(&s->is_found, true);
		}
	}
	account(s->r);
	return NULL;
}

/* One epoch's seed is a word of the default generator; known seeds tell which, and with it all epochs. */
static void place_in_stream(struct recogniser *r, struct family *f)
{
	uint64_t at;

	for (size_t i = 0; i < sizeof(popular) / sizeof(popular[0]); i++) {
		if (!search_stream(popular[i], (uint32_t)f->shuffle.seed, STREAM_WORDS, &r->cancel, &at))
			continue;
		f->kind = FAMILY_DEFAULT_GENERATOR;
		f->main_seed = popular[i];
		f->word = at;
		return;
	}
}

static bool try_all_seeds(struct recogniser *r, struct recognise_job *job, const struct head *h, unsigned map)
{
	struct family f = { .kind = FAMILY_LONE_SEED, .shuffle = { .kind = SHUFFLE_TORCH }, .stride = 1, .map = map };
	struct sweep s = { .r = r, .h = h };
	long processors = sysconf(_SC_NPROCESSORS_ONLN);

	while (s.count < SEARCHERS_MAX && (long)s.count < processors &&
	       !pthread_create(&s.thread[s.count], NULL, sweep_thread, &s))
		s.count++;
	for (unsigned i = 0; i < s.count; i++)
		pthread_join(s.thread[i], NULL);
	if (!atomic_load(&s.is_found))
		return false;
	f.shuffle.seed = atomic_load(&s.seed);
	place_in_stream(r, &f);
	return order_make(r, job, &f);
}

/* Every reader's head that is long enough, under every map, to @try until one succeeds. */
static bool each_head(struct recogniser *r, struct recognise_job *job, unsigned bits,
		      bool (*try)(struct recogniser *r, struct recognise_job *job, const struct head *h, unsigned map))
{
	for (unsigned m = 0; m < MAPS; m++) {
		const struct index_map *map = maps_get(r->maps, m);
		uint32_t needed = map ? search_entries_needed(map->n, bits) : 0;

		for (uint32_t i = 0; needed && i < job->stream_count; i++) {
			struct head h;

			if (atomic_load(&r->cancel))
				return false;
			if (head_make(r, job, m, i, needed, needed, &h) && try(r, job, &h, m))
				return true;
		}
	}
	return false;
}

static void recognise(struct recogniser *r, struct recognise_job *job)
{
	if (!maps_make(r->maps, job->set, job->unit, job->unit_count, job->depth != RECOGNISE_USUAL))
		return;
	memset(r->has_view, 0, sizeof(r->has_view));
	if (job->known.is_told && !maps_get(r->maps, job->known.map))
		job->known.map = MAP_NAMES;
	if ((job->known.kind != FAMILY_NONE && recognise_next(r, job)) || recognise_past(r, job))
		return;
	if (each_head(r, job, 24, try_sequential) || each_head(r, job, SMALL_BITS, try_torch_usual))
		return;
	if (job->depth == RECOGNISE_SMALL && !try_streaming(r, job) && !each_head(r, job, 14, try_dali) && !try_lists(r, job))
		each_head(r, job, SMALL_BITS, try_torch);   /* seconds: the others are cheaper */
	if (job->depth == RECOGNISE_ALL)
		each_head(r, job, 32, try_all_seeds);
}

/* ---- the thread ---- */

static void *recogniser_thread(void *arg)
{
	struct recogniser *r = arg;

	pthread_setname_np(pthread_self(), "recognise");
	setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
	lock_acquire(&r->lock);
	while (!r->is_closing) {
		struct recognise_job *job;

		if (!r->waiting_count) {
			lock_wait(&r->lock, &r->wake);
			continue;
		}
		job = r->waiting[0];
		memmove(r->waiting, r->waiting + 1, --r->waiting_count * sizeof(job));
		r->running_set = job->set;
		r->running_epoch = job->epoch;
		atomic_store(&r->cancel, false);
		lock_release(&r->lock);
		recognise(r, job);
		if (job->is_found)
			log_info("recognised: %s", job->order->text);
		r->done(r->arg, job);
		lock_acquire(&r->lock);
	}
	lock_release(&r->lock);
	account(r);
	return NULL;
}

int recogniser_new(struct ns *ns, struct cache *cache, void (*done)(void *arg, struct recognise_job *job), void *arg, struct recogniser **ret)
{
	struct recogniser *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return -ENOMEM;
	r->done = done;
	r->arg = arg;
	lock_init(&r->lock, "recognise", RANK_RECOGNISE);
	lock_cond_init(&r->wake);
	rc = maps_new(ns, cache, &r->maps);
	if (!rc)
		rc = -pthread_create(&r->thread, NULL, recogniser_thread, r);
	if (rc) {
		maps_free(r->maps);
		lock_destroy(&r->lock);
		free(r);
		return rc;
	}
	*ret = r;
	return 0;
}

void recogniser_free(struct recogniser *r)
{
	if (!r)
		return;
	lock_acquire(&r->lock);
	r->is_closing = true;
	atomic_store(&r->cancel, true);
	pthread_cond_signal(&r->wake);
	lock_release(&r->lock);
	pthread_join(r->thread, NULL);
	for (unsigned i = 0; i < r->waiting_count; i++)
		recognise_job_free(r->waiting[i]);
	maps_free(r->maps);
	pthread_cond_destroy(&r->wake);
	lock_destroy(&r->lock);
	free(r);
}

void recogniser_submit(struct recogniser *r, struct recognise_job *job)
{
	unsigned i;

	lock_scope(&r->lock);
	for (i = 0; i < r->waiting_count && r->waiting[i]->set != job->set; i++)
		;
	if (i == sizeof(r->waiting) / sizeof(r->waiting[0])) {
		recognise_job_free(job);   /* sixteen sets at once: this one without */
		return;
	}
	if (i < r->waiting_count)
		recognise_job_free(r->waiting[i]);
	else
		r->waiting_count++;
	r->waiting[i] = job;
	/* its epoch is over: what it looks for comes too late */
	if (r->running_set == job->set && r->running_epoch != job->epoch)
		atomic_store(&r->cancel, true);
	pthread_cond_signal(&r->wake);
}

double recogniser_cpu_s(struct recogniser *r)
{
	return (double)atomic_load(&r->cpu_ns) / 1e9;
}

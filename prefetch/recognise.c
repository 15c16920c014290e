/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/recognise.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "cache/namespace.h"
#include "lib/clock.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "lib/parse.h"

enum {
	RANK_RECOGNISE = 15,
	MAPS = 2,
	NICE = 5,                      /* of the short searches; the long one is idle */
	SEARCHERS_MAX = 8,
	SMALL_BITS = 20,               /* seeds below 2^20 are tried for torch */
	USUAL_SEEDS = 4096, USUAL_RANK_SEEDS = 64, USUAL_GENERATORS = 256,
	RANK_SEEDS = 1024, RANKS_MAX = 64,
	SMALL_N = 20000, SMALL_SEEDS = 1000,   /* whole shuffles: about a second */
	MAIN_SEEDS = 10000, MAIN_WORDS = 16, MANY_MAIN_SEEDS = 1 << 18,
	CUMULATIVE_MAX = 100,          /* epochs */
	CHUNK_BITS = 24,               /* seeds a searcher takes at a time: half a second */
};

#define GENERATOR_UNSEEDED 67280421310721ULL   /* torch.Generator() */
#define DALI_SEED 524287
#define SKIP_MAX (1ULL << 34)
#define STREAM_WORDS (1ULL << 27)              /* of model initialisation before the loader: ResNet-50 draws 49 M */

/* Seeds people use, besides small numbers. */
static const uint32_t popular[] = {
	42, 0, 1, 1234, 123, 1337, 3407, 2021, 2022, 2023, 2024, 2025, 2026, 12345, 7, 10, 100, 999, 2, 3, 4, 5, 21, 77, 101, 777,
	1000, 4242, 31337, 123456, 2020, 2019, 9176, 6, 8, 9, 11, 12, 13, 17,
};

/* Index i of the loader is item[i]. */
struct index_map {
	uint32_t n;
	uint32_t *item;        /* owned */
};

struct recogniser {
	struct ns *ns;
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

	/* the thread's own: the maps of the set looked at last */
	uint64_t map_set, map_signature;
	struct index_map map[MAPS];
};

void recognise_job_free(struct recognise_job *job)
{
	if (!job)
		return;
	free(job->unit);
	order_free(job->order);
	free(job);
}

/* ---- index maps ---- */

static bool is_image(const char *name)
{
	/* torchvision.datasets.folder.IMG_EXTENSIONS */
	static const char *const extension[] = { ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp" };
	size_t len = strlen(name);

	for (size_t i = 0; i < sizeof(extension) / sizeof(extension[0]); i++) {
		size_t n = strlen(extension[i]);

		if (len > n && !strcasecmp(name + len - n, extension[i]))
			return true;
	}
	return false;
}

struct entry {
	char *name;                    /* owned */
	uint32_t item;
	bool is_image;
};

struct entries {
	struct entry *entry;           /* owned */
	size_t count, size;
	const struct recognise_unit *unit;
	uint32_t unit_count;           /* of the same directory, following each other */
	bool failed;
};

static int add_entry(void *arg, const char *name, const struct ns_attr *attr)
{
	struct entries *e = arg;
	uint32_t u;

	for (u = 0; u < e->unit_count; u++) {
		if (attr->ino >= e->unit[u].first && attr->ino < e->unit[u].first + e->unit[u].count)
			break;
	}
	if (u == e->unit_count || !S_ISREG(attr->mode))
		return 0;
	if (e->count == e->size) {
		size_t size = e->size ? e->size * 2 : 256;
		struct entry *bigger = realloc(e->entry, size * sizeof(*bigger));

		if (!bigger) {
			e->failed = true;
			return 1;
		}
		e->entry = bigger;
		e->size = size;
	}
	e->entry[e->count] = (struct entry){ strdup(name), e->unit[u].base + (uint32_t)(attr->ino - e->unit[u].first), is_image(name) };
	e->failed |= !e->entry[e->count++].name;
	return e->failed;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

/* One directory's files, sorted, to both maps. */
static bool map_directory(struct recogniser *r, const struct recognise_unit *unit, uint32_t unit_count, struct index_map *map)
{
	struct entries e = { .unit = unit, .unit_count = unit_count };

	ns_readdir(r->ns, unit->dir, NS_ROOT, add_entry, &e);
	if (!e.failed && e.count)
		qsort(e.entry, e.count, sizeof(*e.entry), by_name);
	for (size_t i = 0; i < e.count; i++) {
		if (!e.failed) {
			map[1].item[map[1].n++] = e.entry[i].item;
			if (e.entry[i].is_image)
				map[0].item[map[0].n++] = e.entry[i].item;
		}
		free(e.entry[i].name);
	}
	free(e.entry);
	return !e.failed;
}

struct named_unit {
	struct recognise_unit unit;
	char path[512];
};

static int by_path(const void *a, const void *b)
{
	const struct named_unit *x = a, *y = b;
	int rc = strcmp(x->path, y->path);

	return rc ? rc : x->unit.first < y->unit.first ? -1 : 1;
}

/* The class directories in the order of their names, which is that of their full paths. */
static bool sort_units(struct recogniser *r, struct recognise_job *job)
{
	struct named_unit *named = calloc(job->unit_count, sizeof(*named));
	bool fine = named != NULL;

	for (uint32_t i = 0; i < job->unit_count && fine; i++) {
		named[i].unit = job->unit[i];
		fine = !ns_path(r->ns, job->unit[i].dir, named[i].path, sizeof(named[i].path));
	}
	if (fine)
		qsort(named, job->unit_count, sizeof(*named), by_path);
	for (uint32_t i = 0; i < job->unit_count && fine; i++)
		job->unit[i] = named[i].unit;
	free(named);
	return fine;
}

static void maps_clear(struct recogniser *r)
{
	for (unsigned m = 0; m < MAPS; m++) {
		free(r->map[m].item);
		r->map[m] = (struct index_map){ 0, NULL };
	}
	r->map_set = 0;
}

/* Records are counted as they lie in the file; a loader may leave out a last one, or what follows the last looks like one. */
static void map_records(const struct recognise_unit *unit, struct index_map *map)
{
	map[0].n = unit->count - 1;
	map[1].n = unit->count;
	for (uint32_t i = 0; i < unit->count; i++)
		map[0].item[i] = map[1].item[i] = i;
}

/* Make the maps of the job's set, unless they are there. */
static bool maps_make(struct recogniser *r, struct recognise_job *job)
{
	uint64_t items = 0, signature = job->unit_count;

	for (uint32_t i = 0; i < job->unit_count; i++) {
		items += job->unit[i].count;
		signature = signature * 31 + job->unit[i].first + job->unit[i].count;
	}
	if (r->map_set == job->set && r->map_signature == signature)
		return true;
	maps_clear(r);
	for (unsigned m = 0; m < MAPS; m++) {
		r->map[m].item = malloc(items * sizeof(uint32_t) + 1);
		if (!r->map[m].item)
			return false;
	}
	if (job->unit_count && !job->unit[0].dir)
		map_records(&job->unit[0], r->map);
	else if (!sort_units(r, job))
		return false;
	for (uint32_t i = 0, n; i < job->unit_count && job->unit[0].dir; i += n) {
		for (n = 1; i + n < job->unit_count && job->unit[i + n].dir == job->unit[i].dir; n++)
			;
		if (!map_directory(r, &job->unit[i], n, r->map))
			return false;
	}
	if (r->map[0].n == r->map[1].n)
		r->map[0].n = 0;   /* the same: one is enough */
	r->map_set = job->set;
	r->map_signature = signature;
	return true;
}

/* A reader's first items as indices. Returns false if one is not in the map. */
static bool head_make(const struct index_map *map, const struct recognise_stream *s, uint32_t count, struct head *ret)
{
	ret->n = map->n;
	ret->count = count;
	for (uint32_t k = 0; k < count; k++) {
		uint32_t i = 0;

		while (i < map->n && map->item[i] != s->item[k])
			i++;
		if (i == map->n)
			return false;
		ret->index[k] = i;
	}
	return true;
}

/* ---- the order of an epoch ---- */

static void describe(const struct family *f, char *text, size_t size)
{
	unsigned long long seed = f->shuffle.seed;

	switch (f->kind) {
	case FAMILY_SEQUENTIAL: snprintf(text, size, "sequential"); break;
	case FAMILY_DEFAULT_GENERATOR:
		snprintf(text, size, "torch seed %llu (manual_seed %llu, word %llu)", seed & 0xffffffffu,
			 (unsigned long long)f->main_seed, (unsigned long long)f->word);
		break;
	case FAMILY_GENERATOR: snprintf(text, size, "torch generator seed %llu, word %llu", seed, (unsigned long long)f->shuffle.skip); break;
	default:
		snprintf(text, size, "%s seed %llu", shuffle_name(f->shuffle.kind), seed);
	}
	if (f->stride > 1)
		snprintf(text + strlen(text), size - strlen(text), ", ranks %u", f->stride);
}

/* Compute what @f says; the family is then this epoch's. */
static bool order_make(struct recogniser *r, struct recognise_job *job, const struct family *f)
{
	const struct index_map *map = &r->map[f->map];
	uint32_t *item = malloc((size_t)map->n * sizeof(*item) + 1);
	char text[ORDER_TEXT];

	if (!item)
		return false;
	if (f->kind == FAMILY_CUMULATIVE) {
		struct shuffle s = f->shuffle;

		memcpy(item, map->item, (size_t)map->n * sizeof(*item));
		for (s.seed = f->main_seed; s.seed <= f->shuffle.seed; s.seed++)
			shuffle_apply(&s, item, map->n);
	} else {
		memcpy(item, map->item, (size_t)map->n * sizeof(*item));
		shuffle_apply(&f->shuffle, item, map->n);
	}
	describe(f, text, sizeof(text));
	job->family = *f;
	job->family.epoch = job->epoch;
	job->order = order_new(item, map->n, f->is_told ? PREDICTOR_PLAN : PREDICTOR_SAMPLER, f->stride, f->start, text);
	job->is_found = job->order != NULL;
	return job->is_found;
}

static uint32_t default_word(uint64_t main_seed, uint64_t word)
{
	struct mt19937 g;

	mt19937_seed(&g, (uint32_t)main_seed);
	for (uint64_t i = 0; i < word; i++)
		mt19937_next(&g);
	return mt19937_next(&g);
}

/* The @which-th guess of what follows @f after @steps epochs. Returns false when there is no more. */
static bool family_next(const struct family *f, uint32_t steps, uint32_t n, unsigned which, struct family *ret)
{
	/* DataLoader; persistent workers; with a validation loader; two of them */
	static const uint32_t distances[] = { 4, 2, 6, 8 };

	*ret = *f;
	switch (f->kind) {
	case FAMILY_SEQUENTIAL:
		return which == 0;
	case FAMILY_SEED_PLUS_EPOCH:
		ret->shuffle.seed += which ? 0 : steps;   /* or set_epoch() was forgotten */
		return which < 2;
	case FAMILY_CUMULATIVE:
		ret->shuffle.seed += steps;
		return which == 0 && ret->shuffle.seed - f->main_seed < CUMULATIVE_MAX;
	case FAMILY_DEFAULT_GENERATOR:
		if (which == 0 && f->distance)
			ret->word += (uint64_t)f->distance * steps;
		else if (which < 4 + !!f->distance)
			ret->word += (uint64_t)(ret->distance = distances[which - !!f->distance]) * steps;
		else
			return false;
		ret->shuffle.seed = default_word(ret->main_seed, ret->word);
		return true;
	case FAMILY_GENERATOR:
		/* the permutation, another that torch makes at the end, and the workers' seed; persistent workers have one */
		ret->shuffle.skip += (which == 0 ? 2ULL * n : which == 1 ? 2ULL * n - 2 : n + 1ULL) * steps;
		return which < 3;
	default:
		return false;
	}
}

/* Does the order that @f says begin as some reader did? */
static bool family_fits(struct recogniser *r, const struct recognise_job *job, const struct family *f)
{
	const struct index_map *map = &r->map[f->map];
	uint32_t *order = malloc((size_t)map->n * sizeof(*order) + 1);
	bool fits = false;

	if (!order)
		return false;
	memcpy(order, map->item, (size_t)map->n * sizeof(*order));
	if (f->kind == FAMILY_CUMULATIVE) {
		struct shuffle s = f->shuffle;

		for (s.seed = f->main_seed; s.seed <= f->shuffle.seed; s.seed++)
			shuffle_apply(&s, order, map->n);
	} else {
		shuffle_apply(&f->shuffle, order, map->n);
	}
	for (uint32_t i = 0; i < job->stream_count && !fits; i++) {
		const struct recognise_stream *s = &job->stream[i];
		uint32_t at = 0, window = map->n / 4 < 8192 ? map->n / 4 + 1 : 8192, k = 1;

		/* any worker's first batch: somewhere near the head, then one after the other */
		while (at < window && order[at] != s->item[0])
			at++;
		while (k < s->count && k < 3 && at + k * f->stride < map->n && order[at + k * f->stride] == s->item[k])
			k++;
		fits = at < window && k == 3;
	}
	free(order);
	return fits;
}

bool family_is_sane(const struct family *f)
{
	return f->kind > FAMILY_NONE && f->kind <= FAMILY_LONE_SEED && f->shuffle.kind < SHUFFLE_KINDS && f->stride &&
	       f->stride <= ORDER_STRIDE_MAX && f->start < f->stride && f->map < MAPS && f->word <= 2 * STREAM_WORDS &&
	       f->shuffle.skip <= SKIP_MAX && (f->kind != FAMILY_CUMULATIVE ||
	       (f->main_seed <= f->shuffle.seed && f->shuffle.seed - f->main_seed < CUMULATIVE_MAX));
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
	if (job->past.kind == FAMILY_NONE || !r->map[job->past.map].n)
		return false;
	return (!has_evidence(job) || family_fits(r, job, &job->past)) && order_make(r, job, &job->past);
}

static bool recognise_next(struct recogniser *r, struct recognise_job *job)
{
	uint32_t n = r->map[job->known.map].n;
	struct family f;
	uint32_t steps = job->epoch - job->known.epoch;
	bool has_seen = has_evidence(job);

	if (!n || (job->known.kind != FAMILY_NONE && steps > 1000))
		return false;
	for (unsigned which = 0; family_next(&job->known, steps, n, which, &f); which++) {
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
	f->shuffle.seed = default_word(main_seed, f->word);
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

/* Lists that were shuffled whole: shard lists, and small data sets. */
static bool try_lists(struct recogniser *r, struct recognise_job *job, const struct head *h, unsigned map)
{
	static const enum shuffle_kind kinds[] = { SHUFFLE_NUMPY_STATE, SHUFFLE_NUMPY_RNG, SHUFFLE_PYTHON };
	struct family f = { .kind = FAMILY_CUMULATIVE, .main_seed = DALI_SEED, .stride = 1, .map = map };
	uint64_t seed;

	for (f.shuffle.kind = SHUFFLE_STD; f.shuffle.kind <= SHUFFLE_STD_OLD; f.shuffle.kind++) {
		f.shuffle.seed = DALI_SEED;
		if (search_small(h, f.shuffle.kind, DALI_SEED, 1, NULL, &r->cancel, &seed))
			return order_make(r, job, &f);
	}
	f.kind = FAMILY_SEED_PLUS_EPOCH;
	for (unsigned k = 0; k < 3 && h->n <= SMALL_N; k++) {
		f.shuffle.kind = kinds[k];
		if (search_small(h, kinds[k], 0, SMALL_SEEDS, NULL, &r->cancel, &seed) ||
		    (kinds[k] == SHUFFLE_NUMPY_RNG && search_small(h, kinds[k], 9176, 100, NULL, &r->cancel, &seed))) {
			f.shuffle.seed = seed;
			return order_make(r, job, &f);
		}
	}
	return false;
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
		uint32_t needed = r->map[m].n ? search_entries_needed(r->map[m].n, bits) : 0;

		for (uint32_t i = 0; needed && i < job->stream_count; i++) {
			struct head h;

			if (atomic_load(&r->cancel))
				return false;
			if (job->stream[i].count < needed || !head_make(&r->map[m], &job->stream[i], needed, &h))
				continue;
			if (try(r, job, &h, m))
				return true;
		}
	}
	return false;
}

static void recognise(struct recogniser *r, struct recognise_job *job)
{
	if (!maps_make(r, job)) {
		maps_clear(r);
		return;
	}
	if (job->known.is_told && !r->map[job->known.map].n)
		job->known.map = 1;
	if ((job->known.kind != FAMILY_NONE && recognise_next(r, job)) || recognise_past(r, job))
		return;
	if (each_head(r, job, 24, try_sequential) || each_head(r, job, SMALL_BITS, try_torch_usual))
		return;
	if (job->depth == RECOGNISE_SMALL && !each_head(r, job, SMALL_BITS, try_torch))
		each_head(r, job, 14, try_lists);
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

int recogniser_new(struct ns *ns, void (*done)(void *arg, struct recognise_job *job), void *arg, struct recogniser **ret)
{
	struct recogniser *r = calloc(1, sizeof(*r));
	int rc;

	if (!r)
		return -ENOMEM;
	r->ns = ns;
	r->done = done;
	r->arg = arg;
	lock_init(&r->lock, "recognise", RANK_RECOGNISE);
	lock_cond_init(&r->wake);
	rc = -pthread_create(&r->thread, NULL, recogniser_thread, r);
	if (rc) {
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
	maps_clear(r);
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

/* ---- plans ---- */

struct plan_kind {
	const char *name;
	enum family_kind family;
	enum shuffle_kind shuffle;
	bool needs_seed;
};

static const struct plan_kind plan_kinds[] = {
	{ "sequential", FAMILY_SEQUENTIAL, SHUFFLE_NONE, false },
	{ "torch-random", FAMILY_DEFAULT_GENERATOR, SHUFFLE_TORCH, true },
	{ "torch-distributed", FAMILY_SEED_PLUS_EPOCH, SHUFFLE_TORCH, false },
	{ "torch-generator", FAMILY_GENERATOR, SHUFFLE_TORCH, true },
	{ "numpy", FAMILY_SEED_PLUS_EPOCH, SHUFFLE_NUMPY_STATE, true },
	{ "numpy-rng", FAMILY_SEED_PLUS_EPOCH, SHUFFLE_NUMPY_RNG, true },
	{ "python", FAMILY_SEED_PLUS_EPOCH, SHUFFLE_PYTHON, true },
	{ "dali", FAMILY_CUMULATIVE, SHUFFLE_STD, false },
};

struct plan_words {
	uint64_t seed, epoch, world, rank;
	bool has_seed;
};

static int plan_word(char *word, struct plan_words *p, char *msg, size_t msg_size)
{
	struct { const char *key; uint64_t *value; } keys[] = {
		{ "seed", &p->seed }, { "epoch", &p->epoch }, { "world", &p->world }, { "rank", &p->rank }, { "ranks", &p->rank },
	};
	char *value = strchr(word, '=');

	if (value)
		*value++ = 0;
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		if (strcmp(keys[i].key, word) || !value)
			continue;
		if (parse_u64(value, keys[i].value)) {
			snprintf(msg, msg_size, "%s=%s is not a number", word, value);
			return -EINVAL;
		}
		p->has_seed |= keys[i].value == &p->seed;
		return 0;
	}
	snprintf(msg, msg_size, "unknown word '%s'; known are seed= epoch= world= rank=", word);
	return -EINVAL;
}

int recognise_parse_plan(const char *text, struct family *ret_family, char *msg, size_t msg_size)
{
	struct plan_words p = { .world = 1 };
	const struct plan_kind *kind = NULL;
	char copy[256], *save = NULL, *word;

	snprintf(copy, sizeof(copy), "%s", text);
	word = strtok_r(copy, " \t\n,", &save);
	for (size_t i = 0; word && i < sizeof(plan_kinds) / sizeof(plan_kinds[0]); i++) {
		if (!strcmp(plan_kinds[i].name, word))
			kind = &plan_kinds[i];
	}
	if (!kind || strlen(text) >= sizeof(copy)) {
		snprintf(msg, msg_size, "unknown plan '%s'; see hopperfs-prefetch(7)", word ? word : "");
		return -EINVAL;
	}
	while ((word = strtok_r(NULL, " \t\n,", &save))) {
		if (plan_word(word, &p, msg, msg_size))
			return -EINVAL;
	}
	if ((kind->needs_seed && !p.has_seed) || !p.world || p.world > ORDER_STRIDE_MAX || p.rank >= p.world || p.epoch > 1000000) {
		snprintf(msg, msg_size, kind->needs_seed && !p.has_seed ? "%s needs seed=" : "%s: world= must be 1..1024, rank= below it",
			 kind->name);
		return -EINVAL;
	}
	*ret_family = (struct family){ .kind = kind->family, .shuffle = { kind->shuffle, p.seed + p.epoch, 0 }, .stride = (uint32_t)p.world,
				       .start = (uint32_t)p.rank, .is_told = true };
	if (kind->family == FAMILY_DEFAULT_GENERATOR) {
		ret_family->main_seed = p.seed;
		ret_family->word = 3 + 4 * p.epoch;
		ret_family->shuffle.seed = default_word(p.seed, ret_family->word);
	}
	if (kind->family == FAMILY_GENERATOR) {
		ret_family->shuffle.seed = p.seed;
		ret_family->shuffle.skip = 2;
	}
	if (kind->family == FAMILY_CUMULATIVE) {
		ret_family->main_seed = p.has_seed ? p.seed : DALI_SEED;
		ret_family->shuffle.seed = ret_family->main_seed + p.epoch;
	}
	return 0;
}

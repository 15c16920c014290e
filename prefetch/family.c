/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/family.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/parse.h"
#include "prefetch/order.h"

enum {
	EPOCHS_MAX = 100,              /* whose shuffles have to be gone through for one order */
};

#define SKIP_MAX (1ULL << 34)
#define WORD_MAX (1ULL << 28)

static bool is_stream(const struct family *f)
{
	return f->kind == FAMILY_STREAM || f->kind == FAMILY_STREAM_IN_PLACE;
}

/* A bool from disk may be neither. */
static bool is_bool(const bool *b)
{
	return *(const unsigned char *)b <= 1;
}

bool family_is_sane(const struct family *f)
{
	bool is_bounded = f->kind == FAMILY_CUMULATIVE || f->kind == FAMILY_STREAMING ?
		f->main_seed <= f->shuffle.seed && f->shuffle.seed - f->main_seed < EPOCHS_MAX :
		is_stream(f) ? f->word < EPOCHS_MAX : f->word <= WORD_MAX;

	return f->kind > FAMILY_NONE && f->kind < FAMILY_KINDS && f->shuffle.kind < SHUFFLE_KINDS && f->stride &&
	       f->stride <= ORDER_STRIDE_MAX && f->start < f->stride && f->map < MAPS && f->shuffle.skip <= SKIP_MAX && is_bounded &&
	       is_bool(&f->is_split) && is_bool(&f->is_constant) && is_bool(&f->is_told);
}

void family_describe(const struct family *f, char text[FAMILY_TEXT])
{
	unsigned long long seed = f->shuffle.seed;
	size_t len;

	switch (f->kind) {
	case FAMILY_SEQUENTIAL: snprintf(text, FAMILY_TEXT, "sequential"); break;
	case FAMILY_DEFAULT_GENERATOR:
		snprintf(text, FAMILY_TEXT, "torch seed %llu (manual_seed %llu, word %llu)", seed & 0xffffffffu,
			 (unsigned long long)f->main_seed, (unsigned long long)f->word);
		break;
	case FAMILY_GENERATOR: snprintf(text, FAMILY_TEXT, "torch generator seed %llu, word %llu", seed, (unsigned long long)f->shuffle.skip); break;
	case FAMILY_STREAM:
	case FAMILY_STREAM_IN_PLACE:
		snprintf(text, FAMILY_TEXT, "%s seed %llu, shuffle %llu%s", shuffle_name(f->shuffle.kind), seed, (unsigned long long)f->word + 1,
			 f->kind == FAMILY_STREAM ? "" : " in place");
		break;
	case FAMILY_STREAMING: snprintf(text, FAMILY_TEXT, "streaming seed %llu", seed); break;
	default:
		snprintf(text, FAMILY_TEXT, "%s seed %llu", shuffle_name(f->shuffle.kind), seed);
	}
	len = strlen(text);
	if (f->stride > 1)
		snprintf(text + len, FAMILY_TEXT - len, f->is_split ? ", shares %u" : ", ranks %u", f->stride);
}

/* ---- an epoch's order ---- */

static void count_up(uint32_t *order, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
}

/* The shuffles one after the other, of one stream of numbers. */
static int stream(const struct family *f, uint32_t *order, uint32_t n)
{
	struct shuffle_rng *g = shuffle_rng_new(&f->shuffle);

	for (uint64_t e = 0; g && e <= f->word; e++) {
		if (f->kind == FAMILY_STREAM)
			count_up(order, n);
		shuffle_rng_apply(g, order, n);
	}
	free(g);
	return g ? 0 : -ENOMEM;
}

static int shuffled(const struct family *f, uint32_t *order, uint32_t n)
{
	struct shuffle s = f->shuffle;

	switch (f->kind) {
	case FAMILY_SEQUENTIAL:
		return 0;
	case FAMILY_CUMULATIVE:
		for (s.seed = f->main_seed; s.seed <= f->shuffle.seed; s.seed++)
			shuffle_apply(&s, order, n);
		return 0;
	case FAMILY_STREAM:
	case FAMILY_STREAM_IN_PLACE:
		return stream(f, order, n);
	case FAMILY_STREAMING:
		s = (struct shuffle){ SHUFFLE_NUMPY_RNG, f->main_seed, 0 };
		shuffle_apply(&s, order, n);
		s.seed = f->shuffle.seed;
		shuffle_apply(&s, order, n);
		return 0;
	default:
		shuffle_apply(&f->shuffle, order, n);
		return 0;
	}
}

/* Share @l of @shares: its entries l, l + shares, ... shuffled by themselves. */
static int share(const struct family *f, uint32_t *order, uint32_t n, uint32_t l, uint32_t *own)
{
	uint32_t count = (n - l + f->stride - 1) / f->stride;
	int rc;

	count_up(own, count);
	rc = shuffled(f, own, count);
	for (uint32_t i = 0; i < count && !rc; i++)
		order[l + i * f->stride] = l + own[i] * f->stride;
	return rc;
}

int family_indices(const struct family *f, uint32_t *order, uint32_t n)
{
	uint32_t *own;
	int rc = 0;

	count_up(order, n);
	if (!f->is_split || f->stride < 2)
		return shuffled(f, order, n);
	own = malloc((n / f->stride + 1) * sizeof(*own));
	if (!own)
		return -ENOMEM;
	for (uint32_t l = 0; l < f->stride && l < n && !rc; l++)
		rc = share(f, order, n, l, own);
	free(own);
	return rc;
}

uint32_t *family_items(const struct family *f, const struct index_map *map)
{
	size_t n = map->n;
	uint32_t *order = malloc(n * sizeof(*order)), *item = malloc(n * map->columns * sizeof(*item));

	if (!order || !item || family_indices(f, order, map->n)) {
		free(order);
		free(item);
		return NULL;
	}
	for (size_t i = 0; i < n; i++)
		memcpy(item + i * map->columns, map->item + (size_t)order[i] * map->columns, map->columns * sizeof(*item));
	free(order);
	return item;
}

/* ---- what comes next ---- */

uint32_t family_default_word(uint64_t main_seed, uint64_t word)
{
	struct mt19937 g;

	mt19937_seed(&g, (uint32_t)main_seed);
	for (uint64_t i = 0; i < word; i++)
		mt19937_next(&g);
	return mt19937_next(&g);
}

/* What a first epoch with this seed may be the first of. */
static bool next_of_seed(const struct family *f, uint32_t steps, uint32_t n, unsigned which, struct family *ret)
{
	static const enum family_kind as_stream[] = { FAMILY_STREAM_IN_PLACE, FAMILY_STREAM };

	if (which < 2) {
		ret->is_constant = which == !f->is_constant;
		ret->shuffle.seed += ret->is_constant ? 0 : steps;
		return true;
	}
	if (f->shuffle.kind == SHUFFLE_TORCH) {
		ret->kind = FAMILY_GENERATOR;
		/* RandomSampler(generator=g), where the loader draws a second permutation at its end; a program's own randperm */
		ret->shuffle.skip += (which == 2 ? 2ULL * n - 2 : n - 1ULL) * steps;
		return which < 4;
	}
	ret->main_seed = f->shuffle.seed;
	if (which == 2) {
		ret->kind = FAMILY_CUMULATIVE;
		ret->shuffle.seed += steps;
		return true;
	}
	ret->kind = as_stream[which == 4];
	ret->word = steps;
	return which < 5;
}

bool family_next(const struct family *f, uint32_t steps, uint32_t n, unsigned which, struct family *ret)
{
	/* DataLoader; persistent workers; with a validation loader; two of them */
	static const uint32_t distances[] = { 4, 2, 6, 8 };
	const uint64_t skips[] = { 2ULL * n, 2ULL * n - 2, n + 1ULL, n - 1ULL };

	*ret = *f;
	switch (f->kind) {
	case FAMILY_SEQUENTIAL:
		return which == 0;
	case FAMILY_SEED_PLUS_EPOCH:
		return next_of_seed(f, steps, n, which, ret);
	case FAMILY_CUMULATIVE:
	case FAMILY_STREAMING:
		ret->shuffle.seed += steps;
		return which == 0 && ret->shuffle.seed - f->main_seed < EPOCHS_MAX;
	case FAMILY_STREAM:
	case FAMILY_STREAM_IN_PLACE:
		ret->word += steps;
		return which == 0 && ret->word < EPOCHS_MAX;
	case FAMILY_DEFAULT_GENERATOR:
		if (which == 0 && f->distance)
			ret->word += (uint64_t)f->distance * steps;
		else if (which < 4 + !!f->distance)
			ret->word += (uint64_t)(ret->distance = distances[which - !!f->distance]) * steps;
		else
			return false;
		if (ret->word > WORD_MAX)
			return false;   /* what was read from disk may say any distance */
		ret->shuffle.seed = family_default_word(ret->main_seed, ret->word);
		return true;
	case FAMILY_GENERATOR:
		/* the permutation, another that torch makes at the end, and the workers' seed; persistent workers have one */
		if (which >= sizeof(skips) / sizeof(skips[0]))
			return false;
		ret->shuffle.skip += skips[which] * steps;
		return ret->shuffle.skip <= SKIP_MAX;
	default:
		return false;
	}
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
	{ "webdataset", FAMILY_SEED_PLUS_EPOCH, SHUFFLE_BUFFER, true },
	{ "streaming", FAMILY_STREAMING, SHUFFLE_NUMPY_RNG, false },
};

struct plan_words {
	uint64_t seed, epoch, world, rank;
	bool has_seed;
};

static int plan_word(char *word, struct plan_words *p, char *msg, size_t msg_size)
{
	struct { const char *key; uint64_t *value; } keys[] = {
		{ "seed", &p->seed }, { "epoch", &p->epoch }, { "world", &p->world }, { "rank", &p->rank }, { "ranks", &p->rank },
		{ "workers", &p->world },
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
	snprintf(msg, msg_size, "unknown word '%s'; known are seed= epoch= world= rank= workers=", word);
	return -EINVAL;
}

int family_parse(const char *text, struct family *ret_family, char *msg, size_t msg_size)
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
		ret_family->shuffle.seed = family_default_word(p.seed, ret_family->word);
	}
	if (kind->family == FAMILY_GENERATOR) {
		ret_family->shuffle.seed = p.seed;
		ret_family->shuffle.skip = 2;
	}
	if (kind->family == FAMILY_CUMULATIVE || kind->family == FAMILY_STREAMING) {
		ret_family->main_seed = p.has_seed ? p.seed : kind->family == FAMILY_CUMULATIVE ? FAMILY_DALI_SEED : FAMILY_STREAMING_SEED;
		ret_family->shuffle.seed = ret_family->main_seed + p.epoch;
	}
	ret_family->is_split = kind->shuffle == SHUFFLE_BUFFER;
	return 0;
}

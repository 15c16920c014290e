/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/shuffle.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "lib/map64.h"

/* ---- MT19937 ---- */

enum { MT_N = 624, MT_M = 397, BUFFER_ITEMS = 100 };

void mt19937_seed(struct mt19937 *g, uint32_t seed)
{
	g->s[0] = seed;
	for (uint32_t j = 1; j < MT_N; j++)
		g->s[j] = 1812433253u * (g->s[j - 1] ^ g->s[j - 1] >> 30) + j;
	g->at = MT_N;
}

/* init_by_array() of the reference implementation, as Python seeds it. */
static void mt19937_seed_array(struct mt19937 *g, const uint32_t *key, unsigned len)
{
	unsigned i = 1, j = 0;

	mt19937_seed(g, 19650218u);
	for (unsigned k = MT_N > len ? MT_N : len; k; k--) {
		g->s[i] = (g->s[i] ^ (g->s[i - 1] ^ g->s[i - 1] >> 30) * 1664525u) + key[j] + j;
		if (++i >= MT_N) {
			g->s[0] = g->s[MT_N - 1];
			i = 1;
		}
		if (++j >= len)
			j = 0;
	}
	for (unsigned k = MT_N - 1; k; k--) {
		g->s[i] = (g->s[i] ^ (g->s[i - 1] ^ g->s[i - 1] >> 30) * 1566083941u) - i;
		if (++i >= MT_N) {
			g->s[0] = g->s[MT_N - 1];
			i = 1;
		}
	}
	g->s[0] = 0x80000000u;
	g->at = MT_N;
}

static uint32_t twist(uint32_t upper, uint32_t lower, uint32_t far)
{
	uint32_t y = (upper & 0x80000000u) | (lower & 0x7fffffffu);

	return far ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
}

static void mt19937_refill(struct mt19937 *g)
{
	for (unsigned i = 0; i < MT_N - MT_M; i++)
		g->s[i] = twist(g->s[i], g->s[i + 1], g->s[i + MT_M]);
	for (unsigned i = MT_N - MT_M; i < MT_N - 1; i++)
		g->s[i] = twist(g->s[i], g->s[i + 1], g->s[i + MT_M - MT_N]);
	g->s[MT_N - 1] = twist(g->s[MT_N - 1], g->s[0], g->s[MT_M - 1]);
	g->at = 0;
}

uint32_t mt19937_next(struct mt19937 *g)
{
	uint32_t y;

	if (g->at >= MT_N)
		mt19937_refill(g);
	y = g->s[g->at++];
	y ^= y >> 11;
	y ^= y << 7 & 0x9d2c5680u;
	y ^= y << 15 & 0xefc60000u;
	return y ^ y >> 18;
}

/* ---- PCG64 seeded by numpy's SeedSequence ---- */

struct pcg64 {
	unsigned __int128 state, inc;
	uint32_t half;
	bool has_half;
};

static uint32_t seq_hash(uint32_t v, uint32_t *mult, uint32_t step)
{
	v ^= *mult;
	*mult *= step;
	v *= *mult;
	return v ^ v >> 16;
}

static uint32_t seq_mix(uint32_t x, uint32_t y)
{
	uint32_t v = 0xca01f9ddu * x - 0x4973f715u * y;

	return v ^ v >> 16;
}

static void pcg64_step(struct pcg64 *g)
{
	const unsigned __int128 mult = (unsigned __int128)0x2360ed051fc65da4ULL << 64 | 0x4385df649fccf645ULL;

	g->state = g->state * mult + g->inc;
}

static void pcg64_seed(struct pcg64 *g, uint64_t seed)
{
	uint32_t entropy[4] = { (uint32_t)seed, (uint32_t)(seed >> 32), 0, 0 }, pool[4], out[8];
	uint32_t a = 0x43b0d7e5u, b = 0x8b51f9ddu;
	uint64_t q[4];

	for (int i = 0; i < 4; i++)
		pool[i] = seq_hash(entropy[i], &a, 0x931e8875u);
	for (int src = 0; src < 4; src++) {
		for (int dst = 0; dst < 4; dst++) {
			if (src != dst)
				pool[dst] = seq_mix(pool[dst], seq_hash(pool[src], &a, 0x931e8875u));
		}
	}
	for (int i = 0; i < 8; i++)
		out[i] = seq_hash(pool[i % 4], &b, 0x58f38dedu);
	for (int i = 0; i < 4; i++)
		q[i] = out[2 * i] | (uint64_t)out[2 * i + 1] << 32;
	g->inc = ((unsigned __int128)q[2] << 64 | q[3]) << 1 | 1;
	g->state = 0;
	g->has_half = false;
	pcg64_step(g);
	g->state += (unsigned __int128)q[0] << 64 | q[1];
	pcg64_step(g);
}

static uint32_t pcg64_next32(struct pcg64 *g)
{
	uint64_t x, out;
	unsigned rot;

	if (g->has_half) {
		g->has_half = false;
		return g->half;
	}
	pcg64_step(g);
	x = (uint64_t)(g->state >> 64) ^ (uint64_t)g->state;
	rot = (unsigned)(g->state >> 122);
	out = x >> rot | x << (-rot & 63);
	g->half = (uint32_t)(out >> 32);
	g->has_half = true;
	return (uint32_t)out;
}

/* ---- the shuffles ---- */

static void swap(uint32_t *order, uint32_t i, uint32_t j)
{
	uint32_t t = order[i];

	order[i] = order[j];
	order[j] = t;
}

static uint32_t mask_of(uint32_t max)
{
	return max ? UINT32_MAX >> __builtin_clz(max) : 0;
}

static void torch(struct mt19937 *g, uint32_t *order, uint32_t n)
{
	for (uint32_t i = 0; i + 1 < n; i++)
		swap(order, i, i + mt19937_next(g) % (n - i));
}

static void numpy_state(struct mt19937 *g, uint32_t *order, uint32_t n)
{
	for (uint32_t i = n - 1; i && n; i--) {
		uint32_t mask = mask_of(i), j;

		while ((j = mt19937_next(g) & mask) > i)
			;
		swap(order, i, j);
	}
}

static void numpy_rng(struct pcg64 *g, uint32_t *order, uint32_t n)
{
	for (uint32_t i = n - 1; i && n; i--) {
		uint32_t mask = mask_of(i), j;

		while ((j = pcg64_next32(g) & mask) > i)
			;
		swap(order, i, j);
	}
}

/* random.Random.randrange(n) */
static uint32_t below(struct mt19937 *g, uint32_t n)
{
	unsigned shift = (unsigned)__builtin_clz(n);
	uint32_t v;

	while ((v = mt19937_next(g) >> shift) >= n)
		;
	return v;
}

static void python(struct mt19937 *g, uint32_t *order, uint32_t n)
{
	for (uint32_t i = n - 1; i && n; i--)
		swap(order, i, below(g, i + 1));
}

/* Two come in for one that goes out, from the moment when it is full; then the rest goes out. */
static void buffered(struct mt19937 *g, uint32_t *order, uint32_t n)
{
	uint32_t buffer[BUFFER_ITEMS + 1], held = 0, in = 0, out = 0;

	while (out < n) {
		if (in < n)
			buffer[held++] = order[in++];
		if (in < n && held < BUFFER_ITEMS)
			buffer[held++] = order[in++];
		if (held >= BUFFER_ITEMS || in == n) {
			uint32_t k = below(g, held);

			order[out++] = buffer[k];   /* out < in: its entry is in the buffer already */
			buffer[k] = buffer[--held];
		}
	}
}

/* uniform_int_distribution over 0..range-1: Lemire's multiplication since GCC 11, division before. */
static uint32_t uniform(struct mt19937 *g, uint32_t range, bool is_old)
{
	uint64_t product;
	uint32_t threshold, scaling, word;

	if (is_old) {
		scaling = UINT32_MAX / range;
		do
			word = mt19937_next(g);
		while (word >= range * scaling);
		return word / scaling;
	}
	product = (uint64_t)mt19937_next(g) * range;
	if ((uint32_t)product < range) {
		threshold = -range % range;
		while ((uint32_t)product < threshold)
			product = (uint64_t)mt19937_next(g) * range;
	}
	return (uint32_t)(product >> 32);
}

static void std_shuffle(struct mt19937 *g, uint32_t *order, uint32_t n, bool is_old)
{
	uint32_t i = 1;

	if (n < 2)
		return;
	if (UINT32_MAX / n < n) {
		for (; i < n; i++)
			swap(order, i, uniform(g, i + 1, is_old));
		return;
	}
	/* two positions from one word */
	if (n % 2 == 0) {
		swap(order, 1, uniform(g, 2, is_old));
		i = 2;
	}
	for (; i < n; i += 2) {
		uint32_t x = uniform(g, (i + 1) * (i + 2), is_old);

		swap(order, i, x / (i + 2));
		swap(order, i + 1, x % (i + 2));
	}
}

const char *shuffle_name(enum shuffle_kind kind)
{
	static const char *const name[SHUFFLE_KINDS] = {
		"sequential", "torch", "numpy RandomState", "numpy default_rng", "python", "std", "std (GCC 10)", "webdataset",
	};

	return name[kind];
}

struct shuffle_rng {
	enum shuffle_kind kind;
	union {
		struct mt19937 mt;
		struct pcg64 pcg;
	};
};

static void rng_seed(struct shuffle_rng *g, const struct shuffle *s)
{
	uint32_t key[2] = { (uint32_t)s->seed, (uint32_t)(s->seed >> 32) };

	g->kind = s->kind;
	if (s->kind == SHUFFLE_NUMPY_RNG)
		pcg64_seed(&g->pcg, s->seed);
	else if (s->kind == SHUFFLE_PYTHON || s->kind == SHUFFLE_BUFFER)
		mt19937_seed_array(&g->mt, key, key[1] ? 2 : 1);
	else
		mt19937_seed(&g->mt, key[0]);
	for (uint64_t i = 0; i < s->skip; i++) {
		if (s->kind == SHUFFLE_NUMPY_RNG)
			pcg64_next32(&g->pcg);
		else
			mt19937_next(&g->mt);
	}
}

struct shuffle_rng *shuffle_rng_new(const struct shuffle *s)
{
	struct shuffle_rng *g = malloc(sizeof(*g));

	if (g)
		rng_seed(g, s);
	return g;
}

void shuffle_rng_apply(struct shuffle_rng *g, uint32_t *order, uint32_t n)
{
	if (n < 2)
		return;
	switch (g->kind) {
	case SHUFFLE_TORCH: torch(&g->mt, order, n); break;
	case SHUFFLE_NUMPY_STATE: numpy_state(&g->mt, order, n); break;
	case SHUFFLE_NUMPY_RNG: numpy_rng(&g->pcg, order, n); break;
	case SHUFFLE_PYTHON: python(&g->mt, order, n); break;
	case SHUFFLE_BUFFER: buffered(&g->mt, order, n); break;
	case SHUFFLE_STD:
	case SHUFFLE_STD_OLD: std_shuffle(&g->mt, order, n, g->kind == SHUFFLE_STD_OLD); break;
	default: break;
	}
}

void shuffle_apply(const struct shuffle *s, uint32_t *order, uint32_t n)
{
	struct shuffle_rng g;

	if (s->kind == SHUFFLE_NONE || n < 2)
		return;
	rng_seed(&g, s);
	shuffle_rng_apply(&g, order, n);
}

/* The values that were moved are few: a map instead of the array. Values are kept + 1, as the map has no NULL. */
static uint32_t head_get(const struct map64 *moved, uint32_t at)
{
	void *v = map64_get(moved, at);

	return v ? (uint32_t)((uintptr_t)v - 1) : at;
}

int shuffle_torch_head(uint32_t seed, uint64_t skip, uint32_t n, uint32_t *ret_head, uint32_t count)
{
	struct map64 moved = MAP64_INIT;
	struct mt19937 g;
	int rc = 0;

	mt19937_seed(&g, seed);
	for (uint64_t i = 0; i < skip; i++)
		mt19937_next(&g);
	for (uint32_t i = 0; i < count && !rc; i++) {
		uint32_t at = i + 1 < n ? i + mt19937_next(&g) % (n - i) : i;

		ret_head[i] = head_get(&moved, at);
		rc = map64_put(&moved, at, (void *)((uintptr_t)head_get(&moved, i) + 1));
	}
	map64_clear(&moved);
	return rc;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/search.h"
#include <stdlib.h>
#include <string.h>

/* 128 lanes hide the latency of the multiply chain (16: a third of the speed). */
enum { LANES = 128, STEPS = 397 };

/* One source, compiled for what the processor has. A sanitizer's start-up cannot resolve such functions. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(HOPPER_DEBUG) && \
	defined(__GNUC__) && !defined(__clang__)
#define VECTORISED __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3")))
#elif defined(__GNUC__) && !defined(__clang__)
#define VECTORISED __attribute__((optimize("O3")))
#else
#define VECTORISED
#endif

uint32_t search_entries_needed(uint32_t n, unsigned bits)
{
	unsigned per_entry = 31 - (unsigned)__builtin_clz(n | 1), count = 0, known = 0;

	if (n < 13)
		return 0;   /* n! < 2^32: several seeds give the same order */
	while (known < bits + 20) {
		known += n > 64 ? per_entry : per_entry - 1;   /* entries of a short list say less and less */
		count++;
	}
	return count <= SEARCH_HEAD_MAX ? count : 0;
}

/* The draws behind a head: z[i] = word i mod (n - i). Returns how many; fewer if an entry repeats. */
static uint32_t draws_of(const struct head *h, uint32_t *ret_z)
{
	uint32_t at[SEARCH_HEAD_MAX * 2], value[SEARCH_HEAD_MAX * 2], moved = 0;

	for (uint32_t i = 0; i < h->count; i++) {
		uint32_t pos = h->index[i], mine = i, k;

		/* where the value stands now: its own place unless it was moved */
		for (k = 0; k < moved; k++)
			pos = value[k] == h->index[i] ? at[k] : pos;
		for (k = 0; k < moved && at[k] != i; k++)
			;
		if (k < moved) {   /* place i is settled now */
			mine = value[k];
			at[k] = at[--moved];
			value[k] = value[moved];
		}
		if (pos < i || pos >= h->n)
			return i;
		ret_z[i] = pos - i;
		for (k = 0; k < moved && at[k] != pos; k++)
			;
		if (pos != i) {
			at[k] = pos;
			value[k] = mine;
			moved = k == moved ? moved + 1 : moved;
		}
	}
	return h->count;
}

bool search_matches(const struct head *h, uint32_t seed, uint64_t skip)
{
	uint32_t z[SEARCH_HEAD_MAX], count = draws_of(h, z);
	struct mt19937 g;

	if (count < h->count)
		return false;
	mt19937_seed(&g, seed);
	for (uint64_t i = 0; i < skip; i++)
		mt19937_next(&g);
	for (uint32_t i = 0; i < count && i + 1 < h->n; i++) {
		if (mt19937_next(&g) % (h->n - i) != z[i])
			return false;
	}
	return true;
}

/*
 * word mod m == z without a division: word - z is a multiple of m = odd * 2^shift,
 * that is its product with the odd part's inverse, rotated, is at most the greatest quotient
 * (Granlund and Montgomery 1994, section 9).
 */
struct divisor {
	uint32_t inverse, shift, greatest, z;
};

static struct divisor divisor_of(uint32_t m, uint32_t z)
{
	struct divisor d = { .shift = (uint32_t)__builtin_ctz(m), .z = z };
	uint32_t odd = m >> d.shift;

	d.inverse = odd;   /* right to 3 bits; each step doubles them */
	for (int i = 0; i < 4; i++)
		d.inverse *= 2 - odd * d.inverse;
	d.greatest = (UINT32_MAX - z) / m;
	return d;
}

struct filter {
	struct divisor d[2];
};

#define TEMPER(y) ((y) ^= (y) >> 11, (y) ^= (y) << 7 & 0x9d2c5680u, (y) ^= (y) << 15 & 0xefc60000u, (y) ^= (y) >> 18)

/* Marks in @ret_hit those of LANES seeds whose first two words fit @f. */
VECTORISED
static void filter_lanes(const uint32_t *restrict seed, const struct filter *f, uint8_t *restrict ret_hit)
{
	uint32_t x[LANES], s1[LANES], s2[LANES], s397[LANES];
	const struct divisor a = f->d[0], b = f->d[1];

	for (uint32_t l = 0; l < LANES; l++)
		x[l] = seed[l];
	for (uint32_t l = 0; l < LANES; l++)
		s1[l] = x[l] = 1812433253u * (x[l] ^ x[l] >> 30) + 1;
	for (uint32_t l = 0; l < LANES; l++)
		s2[l] = x[l] = 1812433253u * (x[l] ^ x[l] >> 30) + 2;
	for (uint32_t j = 3; j <= STEPS; j++) {
		for (uint32_t l = 0; l < LANES; l++)
			x[l] = 1812433253u * (x[l] ^ x[l] >> 30) + j;
	}
	for (uint32_t l = 0; l < LANES; l++) {
		s397[l] = x[l];
		x[l] = 1812433253u * (x[l] ^ x[l] >> 30) + STEPS + 1;
	}
	for (uint32_t l = 0; l < LANES; l++) {
		uint32_t y = (seed[l] & 0x80000000u) | (s1[l] & 0x7fffffffu), z = (s1[l] & 0x80000000u) | (s2[l] & 0x7fffffffu);
		uint32_t u = s397[l] ^ y >> 1 ^ (-(y & 1) & 0x9908b0dfu), v = x[l] ^ z >> 1 ^ (-(z & 1) & 0x9908b0dfu), q, r;

		TEMPER(u);
		TEMPER(v);
		q = (u - a.z) * a.inverse;
		r = (v - b.z) * b.inverse;
		q = q >> a.shift | q << (-a.shift & 31);
		r = r >> b.shift | r << (-b.shift & 31);
		ret_hit[l] = (q <= a.greatest) & (u >= a.z) & (r <= b.greatest) & (v >= b.z);
	}
}

/* Words 3, 5, 7 ... below @words, at most SEARCH_WORDS_MAX, of seeds first .. first + LANES - 1; of word w in @ret_word[w]. */
VECTORISED
static void word_lanes(uint32_t first, uint32_t words, uint32_t (*restrict ret_word)[LANES])
{
	uint32_t x[LANES], low[SEARCH_WORDS_MAX + 1][LANES];

	for (uint32_t l = 0; l < LANES; l++)
		x[l] = first + l;
	for (uint32_t j = 1; j < words + STEPS; j++) {
		for (uint32_t l = 0; l < LANES; l++)
			x[l] = 1812433253u * (x[l] ^ x[l] >> 30) + j;
		if (j <= words)
			memcpy(low[j], x, sizeof(x));
		if (j < STEPS + 3 || !((j - STEPS) & 1))
			continue;
		for (uint32_t l = 0; l < LANES; l++) {
			uint32_t w = j - STEPS, y = (low[w][l] & 0x80000000u) | (low[w + 1][l] & 0x7fffffffu);
			uint32_t u = x[l] ^ y >> 1 ^ (-(y & 1) & 0x9908b0dfu);

			TEMPER(u);
			ret_word[w][l] = u;
		}
	}
}

static bool any_of(const uint8_t hit[LANES])
{
	uint64_t any = 0, word;

	for (unsigned l = 0; l < LANES; l += 8) {
		memcpy(&word, hit + l, 8);
		any |= word;
	}
	return any;
}

static bool filter_of(const struct head *h, struct filter *ret)
{
	uint32_t z[SEARCH_HEAD_MAX];

	if (h->count < 2 || h->n < 3 || draws_of(h, z) < h->count)
		return false;
	ret->d[0] = divisor_of(h->n, z[0]);
	ret->d[1] = divisor_of(h->n - 1, z[1]);
	return true;
}

bool search_torch(const struct head *h, uint64_t first, uint64_t count, const _Atomic bool *cancel, uint32_t *ret_seed)
{
	uint32_t lane[LANES];
	uint8_t hit[LANES];
	struct filter f;

	if (!filter_of(h, &f))
		return false;
	for (uint64_t seed = first; seed < first + count; seed += LANES) {
		bool any;

		if (seed / LANES % 1024 == 0 && cancel && atomic_load_explicit(cancel, memory_order_relaxed))
			return false;
		for (uint32_t l = 0; l < LANES; l++)
			lane[l] = (uint32_t)seed + l;
		filter_lanes(lane, &f, hit);
		any = any_of(hit);
		for (unsigned l = 0; any && l < LANES && seed + l < first + count; l++) {
			if (hit[l] && search_matches(h, (uint32_t)(seed + l), 0)) {
				*ret_seed = (uint32_t)(seed + l);
				return true;
			}
		}
	}
	return false;
}

/* Does @head[0..length) hold the entries of @h at start, start + stride, ...? */
static bool strides(const struct head *h, const uint32_t *head, uint32_t length, uint32_t max_stride,
		    uint32_t *ret_start, uint32_t *ret_stride)
{
	for (uint32_t start = 0; start < length; start++) {
		if (head[start] != h->index[0])
			continue;
		for (uint32_t stride = 1; stride <= max_stride && start + stride * (h->count - 1) < length; stride++) {
			uint32_t j = 1;

			while (j < h->count && head[start + stride * j] == h->index[j])
				j++;
			if (j == h->count && start < stride) {
				*ret_start = start;
				*ret_stride = stride;
				return true;
			}
		}
		return false;
	}
	return false;
}

bool search_strided(const struct head *h, uint32_t seeds, uint32_t max_stride, const _Atomic bool *cancel,
		    uint32_t *ret_seed, uint32_t *ret_start, uint32_t *ret_stride)
{
	uint64_t want = (uint64_t)max_stride * h->count;
	uint32_t length = want < h->n ? (uint32_t)want : h->n;
	uint32_t *head = malloc(length * sizeof(*head));
	bool found = false;

	for (uint32_t seed = 0; head && seed < seeds && !found; seed++) {
		if (cancel && atomic_load_explicit(cancel, memory_order_relaxed))
			break;
		if (shuffle_torch_head(seed, 0, h->n, head, length))
			break;
		found = strides(h, head, length, max_stride, ret_start, ret_stride);
		*ret_seed = seed;
	}
	free(head);
	return found;
}

bool search_small(const struct head *h, enum shuffle_kind kind, uint64_t first, uint32_t count, const _Atomic bool *cancel,
		  uint64_t *ret_seed)
{
	uint32_t *order = malloc((size_t)h->n * sizeof(*order));
	bool found = false;

	for (uint64_t seed = first; order && seed < first + count && !found; seed++) {
		struct shuffle s = { kind, seed, 0 };

		if (cancel && atomic_load_explicit(cancel, memory_order_relaxed))
			break;
		for (uint32_t i = 0; i < h->n; i++)
			order[i] = i;
		shuffle_apply(&s, order, h->n);
		found = !memcmp(order, h->index, h->count * sizeof(*order));
		*ret_seed = seed;
	}
	free(order);
	return found;
}

/* The lowest of LANES seeds from @first on one of whose words matches, below *@ret_lane. */
static void default_lanes(const struct head *h, const struct filter *f, uint32_t first, uint32_t words, uint32_t *ret_lane, uint64_t *ret_word)
{
	uint32_t word[SEARCH_WORDS_MAX][LANES];
	uint8_t hit[LANES];

	word_lanes(first, words, word);
	for (uint32_t w = 3; w < words; w += 2) {
		filter_lanes(word[w], f, hit);
		for (uint32_t l = 0; any_of(hit) && l < *ret_lane; l++) {
			if (!hit[l] || !search_matches(h, word[w][l], 0))
				continue;
			*ret_lane = l;
			*ret_word = w;
		}
	}
}

bool search_default_generator(const struct head *h, uint32_t seeds, uint32_t words, const _Atomic bool *cancel,
			      uint32_t *ret_main_seed, uint64_t *ret_word)
{
	struct filter f;

	if (!filter_of(h, &f))
		return false;
	if (words > SEARCH_WORDS_MAX)
		words = SEARCH_WORDS_MAX;
	for (uint32_t first = 0; first < seeds; first += LANES) {
		uint32_t lane = seeds - first < LANES ? seeds - first : LANES, none = lane;

		if (cancel && atomic_load_explicit(cancel, memory_order_relaxed))
			return false;
		default_lanes(h, &f, first, words, &lane, ret_word);
		*ret_main_seed = first + lane;
		if (lane < none)
			return true;
	}
	return false;
}

bool search_stream(uint32_t main_seed, uint32_t word, uint64_t words, const _Atomic bool *cancel, uint64_t *ret_at)
{
	struct mt19937 g;

	mt19937_seed(&g, main_seed);
	for (uint64_t i = 0; i < words; i++) {
		if (i % (1 << 20) == 0 && cancel && atomic_load_explicit(cancel, memory_order_relaxed))
			return false;
		if (mt19937_next(&g) == word) {
			*ret_at = i;
			return true;
		}
	}
	return false;
}

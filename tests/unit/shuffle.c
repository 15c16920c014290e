/* SPDX-License-Identifier: Apache-2.0 */
/* Orders that torch 1.13 and 2.6, numpy 1.24 and 2.2, Python 3.11 and libstdc++ of GCC 10 and 12 gave. */
#include "prefetch/shuffle.h"
#include "tests/unit/test.h"

static uint32_t *permute(enum shuffle_kind kind, uint64_t seed, uint64_t skip, uint32_t n)
{
	struct shuffle s = { kind, seed, skip };
	uint32_t *order = malloc(n * sizeof(*order));

	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	shuffle_apply(&s, order, n);
	return order;
}

struct vector {
	enum shuffle_kind kind;
	uint64_t seed, skip;
	uint32_t n;
	int32_t head[8];   /* -1: not given */
};

static const struct vector vectors[] = {
	{ SHUFFLE_TORCH, 0, 0, 10, { 4, 1, 7, 5, 3, 9, 0, 8 } },
	{ SHUFFLE_TORCH, 42, 0, 10, { 2, 6, 1, 8, 4, 5, 0, 9 } },
	{ SHUFFLE_TORCH, 0, 0, 1000, { 44, 37, 675, 775, 947, 209, 719, 500 } },
	{ SHUFFLE_TORCH, 42, 0, 1000, { 542, 618, 816, 68, 94, 215, 60, 585 } },
	{ SHUFFLE_TORCH, 1, 0, 50000, { 45845, 11799, 43880, 43701, 41303, 45348, 14335, 47144 } },
	{ SHUFFLE_TORCH, 42, 0, 50000, { 37542, 44491, 216, 43688, 41558, 32245, 27206, 10863 } },
	{ SHUFFLE_TORCH, 0, 0, 1281167, { 1069931, 571398, 762430, 399643, 899707, 226472, 855447, 424110 } },
	{ SHUFFLE_TORCH, 1, 0, 1281167, { 24379, 1219368, 1037816, 384707, 491267, 671820, 692404, 241508 } },
	{ SHUFFLE_TORCH, (1ULL << 32) + 5, 0, 1281167, { 265163, 1262271, 46134, 1202984, 6051, 501597, 709079, 635960 } },
	{ SHUFFLE_TORCH, INT64_MAX, 0, 1281167, { 384762, 190895, 851908, 474338, 204689, 563037, 1135094, 528841 } },
	/* manual_seed(42): epochs 0 and 1 of a real DataLoader; its default generator's words 3 and 7 */
	{ SHUFFLE_TORCH, 787846414, 0, 1281167, { 321091, 863066, 1176158, 312682, 678457, 236565, 904446, 288600 } },
	{ SHUFFLE_TORCH, 2563451924, 0, 1281167, { 1169123, 602704, 461356, 1273466, -1, -1, -1, -1 } },
	/* generator=g: two words are drawn first */
	{ SHUFFLE_TORCH, 42, 2, 1281167, { 207647, 1210491, 1192283, 1065806, 1205646, 1127929, 47753, 784080 } },
	{ SHUFFLE_TORCH, 67280421310721, 2, 1000, { 837, 215, 35, 899, 414, 849, 867, 27 } },
	{ SHUFFLE_NUMPY_RNG, 0, 0, 10, { 4, 6, 2, 7, 3, 5, 9, 0 } },
	{ SHUFFLE_NUMPY_RNG, 42, 0, 10, { 5, 6, 0, 7, 3, 2, 4, 9 } },
	{ SHUFFLE_NUMPY_RNG, 42, 0, 16, { 6, 15, 11, 10, 9, 3, 0, 7 } },
	/* Hugging Face datasets' shards with seed 42: epoch 0 above, epoch 1 */
	{ SHUFFLE_NUMPY_RNG, 7138484576005690179ULL, 0, 16, { 15, 1, 13, 10, 14, 2, 8, 4 } },
	{ SHUFFLE_NUMPY_RNG, 42, 0, 1281167, { 65762, 58882, 1166204, 285108, 1148797, 1082267, -1, -1 } },
	{ SHUFFLE_NUMPY_RNG, 0, 0, 1281167, { 32637, 540547, -1, -1, -1, -1, -1, -1 } },
	{ SHUFFLE_NUMPY_STATE, 0, 0, 10, { 2, 8, 4, 9, 1, 6, 7, 3 } },
	{ SHUFFLE_NUMPY_STATE, 42, 0, 10, { 8, 1, 5, 0, 7, 2, 9, 4 } },
	{ SHUFFLE_NUMPY_STATE, 42, 0, 1281167, { 92709, 754112, 611464, 707039, 353661, 950391, -1, -1 } },
	{ SHUFFLE_NUMPY_STATE, 0, 0, 1281167, { 1223947, 1252642, -1, -1, -1, -1, -1, -1 } },
	{ SHUFFLE_PYTHON, 0, 0, 10, { 7, 8, 1, 5, 3, 4, 2, 0 } },
	{ SHUFFLE_PYTHON, 42, 0, 10, { 7, 3, 2, 8, 5, 6, 9, 4 } },
	{ SHUFFLE_PYTHON, 42, 0, 1281167, { 700127, 809255, 1248748, 843600, 434322, 2216, -1, -1 } },
	{ SHUFFLE_PYTHON, 0, 0, 1281167, { 1082000, 444988, -1, -1, -1, -1, -1, -1 } },
	{ SHUFFLE_STD, 524287, 0, 1000, { 30, 812, 788, 887, 165, 659, 376, 711 } },
	{ SHUFFLE_STD_OLD, 524287, 0, 1000, { 533, 812, 788, 503, 165, 196, 581, 195 } },
	{ SHUFFLE_STD, 524287, 0, 1281167, { 326841, 131714, 613953, -1, -1, -1, -1, -1 } },
	/* WebDataset: bufsize and initial 100 */
	{ SHUFFLE_BUFFER, 0, 0, 50, { 24, 48, 26, 2, 16, 32, 31, 25 } },
	{ SHUFFLE_STD_OLD, 524287, 0, 1281167, { 326843, 131714, 613953, -1, -1, -1, -1, -1 } },
};

static void orders_are_those_of_the_real_programs(void **state)
{
	(void)state;
	for (size_t v = 0; v < sizeof(vectors) / sizeof(vectors[0]); v++) {
		const struct vector *x = &vectors[v];
		uint32_t *order = permute(x->kind, x->seed, x->skip, x->n);

		for (int i = 0; i < 8; i++) {
			if (x->head[i] >= 0 && order[i] != (uint32_t)x->head[i])
				fail_msg("%s seed %llu n %u: [%d] is %u, not %d", shuffle_name(x->kind),
					 (unsigned long long)x->seed, x->n, i, order[i], x->head[i]);
		}
		free(order);
	}
}

/* DistributedSampler: seed 0, epoch 2, rank 3 of 8. */
static void ranks_stride_through_the_permutation(void **state)
{
	static const uint32_t rank3[] = { 1143539, 899880, 272971, 271481, 628675, 102550, 946847, 813010 };
	uint32_t *order = permute(SHUFFLE_TORCH, 2, 0, 1281167);

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(order[3 + 8 * i], rank3[i]);
	free(order);
}

static void the_head_is_the_heads(void **state)
{
	uint32_t head[512];

	(void)state;
	for (uint32_t n = 512; n < 3000; n += 411) {
		uint32_t *order = permute(SHUFFLE_TORCH, n, 7, n);

		assert_int_equal(shuffle_torch_head(n, 7, n, head, 512), 0);
		assert_memory_equal(head, order, sizeof(head));
		free(order);
	}
}

/* The default generator's words that become the epochs' seeds: manual_seed(0) and (42). */
static void default_generator_gives_the_epochs_seeds(void **state)
{
	static const uint32_t of_0[] = { 3626093760u, 3638918503u, 1650906866u }, of_42[] = { 787846414u, 2563451924u, 429389014u };
	static const struct { uint32_t seed, epoch[3], persistent; } others[] = {
		{ 1, { 4005303368u, 4290846341u, 1703301249u }, 550290313u },
		{ 1234, { 3512589365u, 3312965625u, 646980841u }, 2629000564u },
		{ 3407, { 4276047549u, 1249547380u, 3375000972u }, 2320808310u },
	};
	struct mt19937 g;

	(void)state;
	mt19937_seed(&g, 0);
	for (unsigned i = 0; i < 12; i++) {
		uint32_t word = mt19937_next(&g);

		if (i % 4 == 3)
			assert_int_equal(word, of_0[i / 4]);
	}
	mt19937_seed(&g, 42);
	for (unsigned i = 0; i < 12; i++) {
		uint32_t word = mt19937_next(&g);

		if (i % 4 == 3)
			assert_int_equal(word, of_42[i / 4]);
	}
	/* other seeds, whose words 3, 7, 11 are epochs; with persistent workers 3, 5, 7 */
	for (size_t s = 0; s < sizeof(others) / sizeof(others[0]); s++) {
		mt19937_seed(&g, others[s].seed);
		for (unsigned i = 0; i < 12; i++) {
			uint32_t word = mt19937_next(&g);

			if (i % 4 == 3)
				assert_int_equal(word, others[s].epoch[i / 4]);
			if (i == 5)
				assert_int_equal(word, others[s].persistent);
		}
	}
}

static void tiny_lists_are_left_in_one_piece(void **state)
{
	(void)state;
	for (int kind = 0; kind < SHUFFLE_KINDS; kind++) {
		for (uint32_t n = 1; n < 20; n++) {
			uint32_t *order = permute((enum shuffle_kind)kind, 5, 0, n), seen = 0;

			for (uint32_t i = 0; i < n; i++)
				seen |= 1u << order[i];
			assert_int_equal(seen, (1u << n) - 1);
			free(order);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(orders_are_those_of_the_real_programs),
		cmocka_unit_test(ranks_stride_through_the_permutation),
		cmocka_unit_test(the_head_is_the_heads),
		cmocka_unit_test(default_generator_gives_the_epochs_seeds),
		cmocka_unit_test(tiny_lists_are_left_in_one_piece),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* permute KIND SEED SKIP N: prints the permutation; for tests/unit/vectors.sh. KIND is a number of enum shuffle_kind. */
#include <stdio.h>
#include <stdlib.h>
#include "prefetch/shuffle.h"

int main(int argc, char **argv)
{
	struct shuffle s;
	uint32_t n, *order;

	if (argc != 5 || atoi(argv[1]) < 0 || atoi(argv[1]) >= SHUFFLE_KINDS)
		return 2;
	s = (struct shuffle){ (enum shuffle_kind)atoi(argv[1]), strtoull(argv[2], NULL, 10), strtoull(argv[3], NULL, 10) };
	n = (uint32_t)strtoul(argv[4], NULL, 10);
	order = malloc((size_t)n * sizeof(*order) + 1);
	if (!order)
		return 1;
	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	shuffle_apply(&s, order, n);
	for (uint32_t i = 0; i < n; i++)
		printf("%u\n", order[i]);
	free(order);
	return 0;
}

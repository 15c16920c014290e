/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/predictor.h"

#define ROW(id, text) [PREDICTOR_##id] = \
	{ text, STAT_PREFETCH_##id##_ISSUED, STAT_PREFETCH_##id##_USED, STAT_PREFETCH_##id##_WRONG }

const struct predictor_desc predictor_table[PREDICTOR_COUNT] = {
	ROW(PLAN, "plan"),
	ROW(REPLAY, "replay"),
	ROW(SAMPLER, "sampler"),
	ROW(NEIGHBOUR, "neighbour"),
	ROW(UNREAD, "unread"),
	ROW(READAHEAD, "readahead"),
};

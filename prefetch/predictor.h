/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may ask for data, in the order of trust, and the counters of each. The
 * first three know an exact order; the last three do not need one.
 */
#ifndef HOPPER_PREFETCH_PREDICTOR_H
#define HOPPER_PREFETCH_PREDICTOR_H

#include "lib/stats.h"

enum predictor_id {
	PREDICTOR_PLAN,
	PREDICTOR_REPLAY,
	PREDICTOR_SAMPLER,
	PREDICTOR_NEIGHBOUR,
	PREDICTOR_UNREAD,
	PREDICTOR_READAHEAD,
	PREDICTOR_COUNT
};

struct predictor_desc {
	const char *name;
	enum stat_id issued, used, wrong;
};

extern const struct predictor_desc predictor_table[PREDICTOR_COUNT];

#endif

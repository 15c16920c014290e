/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The statistics of one mount, declared once in lib/stats.def.
 *
 * Counters are spread over cache lines by processor and summed when read, so
 * counting costs one uncontended atomic add. Every function is thread-safe
 * and none blocks, but stats_json() and stats_openmetrics(), which allocate.
 */
#ifndef HOPPER_LIB_STATS_H
#define HOPPER_LIB_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum stat_id {
#define STAT(id, section, key, kind, help) STAT_##id,
#include "lib/stats.def"
#undef STAT
	STAT_COUNT
};

enum stat_kind {
	STAT_KIND_COUNTER,
	STAT_KIND_GAUGE,         /* uint64_t */
	STAT_KIND_GAUGE_REAL,    /* double */
	STAT_KIND_TEXT,
	STAT_KIND_BOOL,
	STAT_KIND_JSON,          /* a complete JSON value */
};

struct stat_desc {
	const char *section, *key;
	enum stat_kind kind;
	const char *help;
};

extern const struct stat_desc stat_table[STAT_COUNT];

struct stats;

int stats_new(struct stats **ret_stats);

/*
 * The counters in @memory of stats_bytes() (aligned to 128, zeroed at first), borrowed: those of an earlier process go on from
 * where it left them, everything else begins anew.
 */
int stats_new_in(void *memory, struct stats **ret_stats);
size_t stats_bytes(void);
void stats_free(struct stats *s);

/* Counters. */
void stats_add(struct stats *s, enum stat_id id, uint64_t n);
static inline void stats_inc(struct stats *s, enum stat_id id)
{
	stats_add(s, id, 1);
}
uint64_t stats_read(struct stats *s, enum stat_id id);

/* Everything else; each asserts the entry's kind. Strings are copied. */
void stats_set(struct stats *s, enum stat_id id, uint64_t value);   /* GAUGE, BOOL */
void stats_set_real(struct stats *s, enum stat_id id, double value);
void stats_set_text(struct stats *s, enum stat_id id, const char *text);   /* TEXT, JSON */

/* A copy of a TEXT or JSON entry as it would appear in the document; owned by the caller, NULL without memory. */
char *stats_text(struct stats *s, enum stat_id id);

/*
 * The whole document as JSON (one object, newline at the end) or as
 * OpenMetrics text (hopper_ prefix, "# EOF" at the end); TEXT and JSON entries
 * appear as labels of hopper_info or not at all in the latter. Owned by the
 * caller; NULL if memory ran out.
 */
char *stats_json(struct stats *s);
char *stats_openmetrics(struct stats *s);

#endif

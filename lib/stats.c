/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters live in SHARDS copies, each on its own cache lines; a thread adds
 * to the copy of the processor it runs on. Texts are under a lock, as they
 * change rarely.
 */
#include "lib/stats.h"
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lib/lock.h"
#include "lib/strbuf.h"

enum { SHARDS = 16, RANK_STATS = 85 };

struct shard {
	_Atomic uint64_t value[STAT_COUNT];
} __attribute__((aligned(128)));

struct stats {
	struct shard *shard;             /* SHARDS of them; where they are: stats_new_in() */
	bool owns_shards;
	struct lock lock;
	char *text[STAT_COUNT];          /* protected by lock; owned */
};

const struct stat_desc stat_table[STAT_COUNT] = {
#define STAT(id, section, key, kind, help) { section, key, STAT_KIND_##kind, help },
#include "lib/stats.def"
#undef STAT
};

size_t stats_bytes(void)
{
	return SHARDS * sizeof(struct shard);
}

int stats_new_in(void *memory, struct stats **ret_stats)
{
	struct stats *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->shard = memory;
	for (unsigned i = 0; i < STAT_COUNT; i++) {
		if (stat_table[i].kind != STAT_KIND_COUNTER)
			atomic_store(&s->shard[0].value[i], 0);
	}
	lock_init(&s->lock, "stats", RANK_STATS);
	*ret_stats = s;
	return 0;
}

int stats_new(struct stats **ret_stats)
{
	void *memory = aligned_alloc(128, stats_bytes());
	int rc;

	if (!memory)
		return -ENOMEM;
	memset(memory, 0, stats_bytes());
	rc = stats_new_in(memory, ret_stats);
	if (rc)
		free(memory);
	else
		(*ret_stats)->owns_shards = true;
	return rc;
}

void stats_free(struct stats *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < STAT_COUNT; i++)
		free(s->text[i]);
	if (s->owns_shards)
		free(s->shard);
	lock_destroy(&s->lock);
	free(s);
}

void stats_add(struct stats *s, enum stat_id id, uint64_t n)
{
	int cpu = sched_getcpu();

	atomic_fetch_add_explicit(&s->shard[cpu < 0 ? 0 : cpu % SHARDS].value[id], n, memory_order_relaxed);
}

uint64_t stats_read(struct stats *s, enum stat_id id)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < SHARDS; i++)
		sum += atomic_load_explicit(&s->shard[i].value[id], memory_order_relaxed);
	return sum;
}

void stats_set(struct stats *s, enum stat_id id, uint64_t value)
{
	assert(stat_table[id].kind == STAT_KIND_GAUGE || stat_table[id].kind == STAT_KIND_BOOL);
	atomic_store_explicit(&s->shard[0].value[id], value, memory_order_relaxed);
}

void stats_set_real(struct stats *s, enum stat_id id, double value)
{
	uint64_t bits;

	assert(stat_table[id].kind == STAT_KIND_GAUGE_REAL);
	if (!isfinite(value))
		value = 0;
	memcpy(&bits, &value, sizeof(bits));
	atomic_store_explicit(&s->shard[0].value[id], bits, memory_order_relaxed);
}

static double read_real(struct stats *s, enum stat_id id)
{
	uint64_t bits = atomic_load_explicit(&s->shard[0].value[id], memory_order_relaxed);
	double value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

void stats_set_text(struct stats *s, enum stat_id id, const char *text)
{
	char *copy = strdup(text);

	assert(stat_table[id].kind == STAT_KIND_TEXT || stat_table[id].kind == STAT_KIND_JSON);
	if (!copy)
		return;
	lock_acquire(&s->lock);
	free(s->text[id]);
	s->text[id] = copy;
	lock_release(&s->lock);
}

static void add_text(struct stats *s, struct strbuf *b, enum stat_id id)
{
	bool is_json = stat_table[id].kind == STAT_KIND_JSON;

	lock_acquire(&s->lock);
	if (is_json)
		strbuf_add(b, s->text[id] ? s->text[id] : "[]");
	else
		strbuf_add_json(b, s->text[id] ? s->text[id] : "");
	lock_release(&s->lock);
}

char *stats_text(struct stats *s, enum stat_id id)
{
	struct strbuf b = STRBUF_INIT;

	add_text(s, &b, id);
	return strbuf_steal(&b);
}

static void add_value(struct stats *s, struct strbuf *b, enum stat_id id)
{
	switch (stat_table[id].kind) {
	case STAT_KIND_COUNTER:
	case STAT_KIND_GAUGE:
		strbuf_addf(b, "%llu", (unsigned long long)stats_read(s, id));
		break;
	case STAT_KIND_GAUGE_REAL:
		strbuf_addf(b, "%.6g", read_real(s, id));
		break;
	case STAT_KIND_BOOL:
		strbuf_add(b, stats_read(s, id) ? "true" : "false");
		break;
	case STAT_KIND_TEXT:
	case STAT_KIND_JSON:
		add_text(s, b, id);
		break;
	}
}

/* Length of the path that @a and @b share, in whole components: "x.y" and "x.z" share "x". */
static size_t shared_path(const char *a, const char *b)
{
	size_t shared = 0, i = 0;

	for (;; i++) {
		bool end_a = !a[i] || a[i] == '.', end_b = !b[i] || b[i] == '.';

		if (end_a && end_b)
			shared = i;
		if (!a[i] || !b[i] || a[i] != b[i])
			return shared;
	}
}

static unsigned components(const char *path)
{
	unsigned n = *path ? 1 : 0;

	for (; *path; path++)
		n += *path == '.';
	return n;
}

/* Close the objects of @from and open those of @to. Returns whether an object was just opened. */
static bool change_section(struct strbuf *b, const char *from, const char *to)
{
	size_t shared = shared_path(from, to);
	unsigned common = 0;
	bool is_opened = false;
	const char *p = to + shared;

	for (size_t i = 0; i < shared; i++)
		common += to[i] == '.';
	common += shared > 0;
	for (unsigned i = components(from); i > common; i--)
		strbuf_add(b, "}");
	while (*p) {
		size_t n;

		if (*p == '.')
			p++;
		n = strcspn(p, ".");
		strbuf_addf(b, "%s\"%.*s\": {", is_opened ? "" : ",\n", (int)n, p);
		is_opened = true;
		p += n;
	}
	return is_opened;
}

char *stats_json(struct stats *s)
{
	struct strbuf b = STRBUF_INIT;
	const char *section = "";
	bool is_first = true;

	strbuf_add(&b, "{");
	for (unsigned i = 0; i < STAT_COUNT; i++) {
		if (strcmp(section, stat_table[i].section)) {
			is_first = change_section(&b, section, stat_table[i].section);
			section = stat_table[i].section;
		}
		strbuf_addf(&b, "%s\"%s\": ", is_first ? "" : ", ", stat_table[i].key);
		add_value(s, &b, i);
		is_first = false;
	}
	change_section(&b, section, "");
	strbuf_add(&b, "}\n");
	return strbuf_steal(&b);
}

static void metric_name(const struct stat_desc *d, char *buf, size_t size)
{
	snprintf(buf, size, "hopper_%s%s%s", d->section, *d->section ? "_" : "", d->key);
	for (char *p = buf; *p; p++) {
		if (*p == '.')
			*p = '_';
	}
}

static void add_info(struct stats *s, struct strbuf *b)
{
	const char *comma = "";

	strbuf_add(b, "# HELP hopper how the mount works\n# TYPE hopper info\nhopper_info{");
	for (unsigned i = 0; i < STAT_COUNT; i++) {
		char name[128];

		if (stat_table[i].kind != STAT_KIND_TEXT)
			continue;
		metric_name(&stat_table[i], name, sizeof(name));
		strbuf_addf(b, "%s%s=", comma, name + strlen("hopper_"));
		add_text(s, b, i);
		comma = ",";
	}
	strbuf_add(b, "} 1\n");
}

char *stats_openmetrics(struct stats *s)
{
	struct strbuf b = STRBUF_INIT;

	add_info(s, &b);
	for (unsigned i = 0; i < STAT_COUNT; i++) {
		const struct stat_desc *d = &stat_table[i];
		bool is_counter = d->kind == STAT_KIND_COUNTER;
		char name[128];

		if (d->kind == STAT_KIND_TEXT || d->kind == STAT_KIND_JSON)
			continue;
		metric_name(d, name, sizeof(name));
		strbuf_addf(&b, "# HELP %s %s\n# TYPE %s %s\n%s%s ", name, d->help, name,
			    is_counter ? "counter" : "gauge", name, is_counter ? "_total" : "");
		if (d->kind == STAT_KIND_BOOL)
			strbuf_add(&b, stats_read(s, i) ? "1" : "0");
		else
			add_value(s, &b, i);
		strbuf_add(&b, "\n");
	}
	strbuf_add(&b, "# EOF\n");
	return strbuf_steal(&b);
}

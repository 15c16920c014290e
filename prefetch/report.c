/* SPDX-License-Identifier: Apache-2.0 */
/* The statistics: sets and their progress, what to expect of the next epoch. */
#include "prefetch/engine.h"
#include <stdlib.h>
#include "lib/strbuf.h"

enum { JSON_MAX = 56 * 1024 };                /* an attribute holds 64 KiB */


static uint64_t resident_items(const struct set *s)
{
	uint64_t n = 0;

	for (size_t i = 0; i < s->unit_count; i++) {
		for (uint32_t k = 0; k < s->unit[i]->count; k++)
			n += !!(s->unit[i]->item[k] & ITEM_RESIDENT);
	}
	return n;
}

static void add_set(struct prefetch *p, struct strbuf *b, const struct set *s)
{
	const struct order *o = follow_order(&s->follow);
	char path[4096] = "";

	if (s->parent > NS_ROOT)
		ns_path(p->ns, s->parent & ~KEY_KINDS, path, sizeof(path));
	strbuf_add(b, b->len > 1 ? ",\n" : "");
	strbuf_add(b, "{\"path\": ");
	strbuf_add_json(b, path);
	strbuf_addf(b, ", \"items\": %llu, \"bytes\": %llu, \"epoch\": %u, \"consumed\": %llu, \"resident\": %llu, "
		    "\"predictor\": \"%s\", \"recognised\": \"%s\", \"job\": %u}",
		    (unsigned long long)(s->items - s->unfit),
		    (unsigned long long)((s->items - s->unfit) * set_item_bytes(s)), s->epoch,
		    (unsigned long long)s->consumed, (unsigned long long)resident_items(s),
		    o ? predictor_table[o->by].name : set_confidence(s) ? predictor_table[PREDICTOR_UNREAD].name : "none",
		    o ? o->text : "", s->leader);
}

static void publish_forecast(struct prefetch *p, const struct set *s, const struct cache_flow *flow)
{
	double bytes = (double)((s->items - s->unfit) * set_item_bytes(s));
	double c = bytes > 0 ? (double)flow->limit_bytes / bytes : 0;
	double bw = p->governor.rate, rate = s->consumed_bytes_per_s;
	double missing = c < 1 ? (1 - c) * bytes : 0;
	double stall = bw > 0 && rate > 0 ? missing / bw - bytes / rate : 0;
	double tenth = bytes / 10 < missing ? bytes / 10 : missing;
	double saved = stall > 0 ? tenth / bw : 0;

	/* nothing starves once what is missing comes in the time of the rest: missing / bw = bytes / rate */
	stats_set(p->stats, STAT_FORECAST_MORE_CACHE, stall > 0 ? (uint64_t)(stall * bw) : 0);
	stats_set_real(p->stats, STAT_FORECAST_SAVED, saved < stall ? saved : stall > 0 ? stall : 0);
	stats_set_real(p->stats, STAT_FORECAST_C, c > 1 ? 1 : c);
	stats_set_real(p->stats, STAT_FORECAST_R, rate > 0 ? bw / rate : 0);
	stats_set_real(p->stats, STAT_FORECAST_STALL, stall > 0 ? stall : 0);
}

void prefetch_publish(struct prefetch *p)
{
	struct strbuf b = STRBUF_INIT;
	struct cache_flow flow;
	const struct set *s, *last = NULL;
	size_t pos = 0;
	char *text;

	cache_flow(p->cache, &flow);
	strbuf_add(&b, "[");
	lock_acquire(&p->lock);
	while ((s = map64_next(&p->sets.by_key, &pos, NULL))) {
		if (s->items && !s->is_over && b.len < JSON_MAX - 5000)
			add_set(p, &b, s);
		if (s->items && (!last || s->last_ns > last->last_ns))
			last = s;
	}
	if (last)
		publish_forecast(p, last, &flow);
	stats_set(p->stats, STAT_PAGECACHE_UNREAD_BYTES, p->ahead.unread_bytes);
	stats_set(p->stats, STAT_PAGECACHE_UNREAD_PEAK, p->ahead.peak_bytes);
	stats_set(p->stats, STAT_PAGECACHE_LIMIT_BYTES, p->ahead.limit_bytes);
	stats_set(p->stats, STAT_ORIGIN_PARALLEL, p->governor.limit);
	stats_set(p->stats, STAT_ORIGIN_BYTES_PER_S, (uint64_t)p->governor.rate);
	lock_release(&p->lock);
	strbuf_add(&b, "]");
	text = strbuf_steal(&b);
	if (text)
		stats_set_text(p->stats, STAT_SETS, text);
	free(text);
}

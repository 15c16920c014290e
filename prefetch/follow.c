/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/follow.h"
#include <stdlib.h>
#include <string.h>
#include "lib/clock.h"
#include "prefetch/set.h"

enum {
	JOBS_MAX = 4,                  /* asked per epoch: as readers' heads grow long enough */
	VAIN_EPOCHS = 3,               /* in which nothing was recognised: then one job is enough */
	SWEEP_ITEMS = 256,             /* read without an order, before all 2^32 seeds are tried */
	SWEEP_LEAST = 1000,            /* items of a set that is worth it */
	SWEEPS_FAILED_MAX = 2,         /* in vain: it is none of torch's */
	HISTORY_MAX = 100,             /* epochs remembered for the next run */
	MOST_BITS = 24,                /* of the searches but the sweep */
};

#define SAVED_MAGIC "hopperP2"
#define SMALL_AFTER_NS (2 * NSEC_PER_SEC)
#define SWEEP_AFTER_NS (5 * NSEC_PER_SEC)   /* of an epoch: its first seconds need the processors, and a shorter one no sweep */

static void order_drop(struct follow *f)
{
	if (f->order && order_is_confirmed(f->order)) {
		f->stride = f->order->stride;
		memcpy(f->residues, f->order->residues, sizeof(f->residues));
	}
	order_free(f->order);
	f->order = NULL;
}

/* Is there an order that is more than a guess that this epoch goes as the last? */
static bool is_followed(const struct follow *f)
{
	return f->order && (f->order->by != PREDICTOR_REPLAY || order_is_confirmed(f->order));
}

static void record(struct follow *f, uint32_t item, uint32_t items)
{
	if (f->order && f->order->by != PREDICTOR_REPLAY && order_is_confirmed(f->order)) {
		f->is_partial = true;   /* nothing to replay: this order, or what follows from it, is better */
		return;
	}
	if (f->seen_count == f->seen_size) {
		uint32_t size = f->seen_size < items ? items : f->seen_size + 1024;
		uint32_t *bigger = realloc(f->seen, size * sizeof(*bigger));

		if (!bigger) {
			f->is_partial = true;
			return;
		}
		f->seen = bigger;
		f->seen_size = size;
	}
	f->seen[f->seen_count++] = item;
}

static void note_head(struct follow *f, uint32_t item, uint32_t pid)
{
	struct recognise_stream *s;
	uint32_t i;

	for (i = 0; i < f->stream_count && f->stream[i].pid != pid; i++)
		;
	if (i == HEADS_MAX)
		return;
	s = &f->stream[i];
	if (i == f->stream_count) {
		*s = (struct recognise_stream){ .pid = pid };
		f->stream_count++;
	}
	if (s->count < SEARCH_HEAD_MAX)
		s->item[s->count++] = item;
}

void follow_saw(struct follow *f, uint32_t item, uint32_t items, uint32_t pid)
{
	record(f, item, items);
	note_head(f, item, pid);
	if (!f->order)
		return;
	order_saw(f->order, item);
	if (order_is_wrong(f->order)) {
		/* what was guessed to follow did not: something else may follow from the same */
		if (f->order->by != PREDICTOR_REPLAY)
			f->family = f->before;
		f->has_replayed = false;
		order_drop(f);
		f->jobs = 0;
	}
}

static struct recognise_job *job_new(struct follow *f, const struct set *s, enum recognise_depth depth)
{
	struct recognise_job *job = calloc(1, sizeof(*job));

	if (job)
		job->unit = calloc(s->unit_count + 1, sizeof(*job->unit));
	if (!job || !job->unit) {
		free(job);
		return NULL;
	}
	job->set = s->parent;
	job->epoch = s->epoch;
	job->known = f->family;
	job->depth = depth;
	for (size_t i = 0; i < s->unit_count; i++) {
		const struct unit *u = s->unit[i];

		job->unit[i] = (struct recognise_unit){ u->dir, u->first, u->count, u->base };
	}
	job->unit_count = (uint32_t)s->unit_count;
	if (s->epoch < f->past_count && (f->seen_count || f->is_as_past))
		job->past = f->past[s->epoch];
	memcpy(job->stream, f->stream, f->stream_count * sizeof(f->stream[0]));
	job->stream_count = f->stream_count;
	return job;
}

/* Has a reader's head just become long enough for the next kind of search? */
static bool has_new_evidence(const struct follow *f, const struct set *s)
{
	uint32_t needed = search_entries_needed((uint32_t)(s->items - s->unfit), MOST_BITS);

	for (uint32_t i = 0; i < f->stream_count && needed; i++) {
		if (f->stream[i].count == needed || f->stream[i].count == needed + 3)
			return f->stream[i].item[f->stream[i].count - 1] == f->seen[f->seen_count - 1];
	}
	return false;
}

struct recognise_job *follow_ask(struct follow *f, const struct set *s, uint64_t now_ns)
{
	if (is_followed(f))
		return NULL;
	if (f->is_split) {
		f->is_split = false;
		return f->stream_count ? job_new(f, s, RECOGNISE_USUAL) : NULL;
	}
	if (!f->seen_count || f->has_learnt) {
		/* a new epoch of a known family */
		bool has_guess;

		f->has_learnt = false;
		has_guess = (f->family.kind != FAMILY_NONE && f->family.kind != FAMILY_LONE_SEED) ||
				 (f->is_as_past && s->epoch < f->past_count);

		return has_guess ? job_new(f, s, RECOGNISE_USUAL) : NULL;
	}
	if (f->jobs < (f->vain_epochs < VAIN_EPOCHS ? JOBS_MAX : 1) && has_new_evidence(f, s)) {
		f->jobs++;
		return job_new(f, s, RECOGNISE_USUAL);
	}
	if (!f->order && f->depth == RECOGNISE_USUAL && now_ns > s->epoch_started_ns + SMALL_AFTER_NS &&
	    f->vain_epochs < VAIN_EPOCHS) {
		f->depth = RECOGNISE_SMALL;
		return job_new(f, s, RECOGNISE_SMALL);
	}
	if (!f->order && f->depth == RECOGNISE_SMALL && now_ns > s->epoch_started_ns + SWEEP_AFTER_NS &&
	    f->seen_count >= SWEEP_ITEMS && s->items >= SWEEP_LEAST && f->sweeps_failed < SWEEPS_FAILED_MAX) {
		f->depth = RECOGNISE_ALL;
		return job_new(f, s, RECOGNISE_ALL);
	}
	return NULL;
}

/* What was read while the recogniser worked must fit too. */
static bool fits_what_was_seen(struct order *o, const struct follow *f)
{
	for (uint32_t i = 0; i < f->seen_count && !order_is_wrong(o); i++)
		order_saw(o, f->seen[i]);
	return !order_is_wrong(o) && (o->right > f->seen_count / 2 || !f->seen_count);
}

static bool is_same_shuffle(const struct shuffle *a, const struct shuffle *b)
{
	return a->kind == b->kind && a->seed == b->seed && a->skip == b->skip;
}

static void remember(struct follow *f, uint32_t epoch)
{
	f->is_as_past = epoch < f->past_count && is_same_shuffle(&f->past[epoch].shuffle, &f->family.shuffle);
	if (epoch >= HISTORY_MAX)
		return;
	if (epoch >= f->history_count) {
		struct family *bigger = realloc(f->history, (epoch + 1) * sizeof(*bigger));

		if (!bigger)
			return;
		memset(bigger + f->history_count, 0, (epoch + 1 - f->history_count) * sizeof(*bigger));
		f->history = bigger;
		f->history_count = epoch + 1;
	}
	f->history[epoch] = f->family;
}

struct saved {
	char magic[8];
	uint32_t size, count;      /* of an entry; entries */
};

void *follow_save(const struct follow *f, size_t *ret_len)
{
	struct saved head = { SAVED_MAGIC, sizeof(struct family), f->history_count };
	size_t bytes = f->history_count * sizeof(struct family);
	char *data = f->history_count ? malloc(sizeof(head) + bytes) : NULL;

	if (!data)
		return NULL;
	memcpy(data, &head, sizeof(head));
	memcpy(data + sizeof(head), f->history, bytes);
	*ret_len = sizeof(head) + bytes;
	return data;
}

void follow_load(struct follow *f, const void *data, size_t len)
{
	struct saved head;
	size_t bytes;

	if (len < sizeof(head))
		return;
	memcpy(&head, data, sizeof(head));
	bytes = (size_t)head.count * sizeof(struct family);
	if (memcmp(head.magic, SAVED_MAGIC, sizeof(head.magic)) || head.size != sizeof(struct family) ||
	    head.count > HISTORY_MAX || len != sizeof(head) + bytes)
		return;
	free(f->past);
	f->past = malloc(bytes + 1);
	f->past_count = f->past ? head.count : 0;
	if (f->past)
		memcpy(f->past, (const char *)data + sizeof(head), bytes);
	for (uint32_t i = 0; i < f->past_count; i++) {
		f->past[i].is_told = false;
		if (!family_is_sane(&f->past[i]))
			f->past[i].kind = FAMILY_NONE;
	}
}

static struct order *tolerant(const struct follow *f, struct order *o)
{
	if (o && f->is_of_records)
		o->tolerance = ORDER_TOLERANCE_RECORDS;
	return o;
}

bool follow_install(struct follow *f, struct recognise_job *job)
{
	tolerant(f, job->order);
	if (job->depth == RECOGNISE_ALL)
		f->sweeps_failed = job->is_found ? 0 : f->sweeps_failed + 1;
	if (is_followed(f) || !job->is_found || !fits_what_was_seen(job->order, f))
		return false;
	order_drop(f);
	f->order = job->order;
	job->order = NULL;
	for (unsigned i = 0; f->order->stride == f->stride && i < ORDER_STRIDE_MAX / 64; i++)
		f->order->residues[i] |= f->residues[i];
	f->before = f->family;
	f->family = job->family;
	remember(f, job->epoch);
	return true;
}

bool follow_learn(struct follow *f, const struct recognise_job *job)
{
	if (!job->is_found || is_followed(f) || f->family.kind != FAMILY_NONE || job->family.kind == FAMILY_LONE_SEED)
		return false;
	f->family = job->family;
	f->has_learnt = true;
	return true;
}

void follow_split(struct follow *f)
{
	f->seen_count = 0;
	f->is_partial = f->is_split = true;
	f->jobs = 0;
}

static void follow_list(struct follow *f)
{
	uint32_t *copy = malloc((size_t)f->list_count * sizeof(*copy) + 1);

	if (!copy)
		return;
	memcpy(copy, f->list, (size_t)f->list_count * sizeof(*copy));
	f->order = tolerant(f, order_new(copy, f->list_count, PREDICTOR_PLAN, 1, 0, "list"));
}

void follow_turn(struct follow *f)
{
	bool is_guessed = f->family.kind != FAMILY_NONE && f->family.kind != FAMILY_LONE_SEED;
	uint32_t *last = f->seen, count = f->is_partial || is_guessed ? 0 : f->seen_count;

	f->vain_epochs = f->order ? 0 : f->vain_epochs + 1;
	f->has_replayed = f->order && f->order->by == PREDICTOR_REPLAY && order_is_confirmed(f->order);
	order_drop(f);
	f->seen = NULL;
	f->seen_count = f->seen_size = 0;
	f->is_partial = f->is_split = false;
	f->stream_count = 0;
	f->jobs = 0;
	f->depth = f->vain_epochs < VAIN_EPOCHS ? RECOGNISE_USUAL : RECOGNISE_SMALL;
	if (f->list)
		follow_list(f);
	else if (count)
		f->order = tolerant(f, order_new(last, count, PREDICTOR_REPLAY, 1, 0, "the epoch before"));
	if (f->list || !count)
		free(last);
}

bool follow_epoch(const struct follow *f, const uint32_t **ret_item, uint32_t *ret_count)
{
	bool is_known = f->order && order_is_confirmed(f->order) && f->order->stride == 1;

	*ret_item = is_known ? f->order->item : f->seen;
	*ret_count = is_known ? f->order->count : f->seen_count;
	return *ret_count && (is_known || !f->is_partial);
}

struct order *follow_order(const struct follow *f)
{
	if (!f->order || (f->order->by == PREDICTOR_REPLAY && !f->has_replayed && !order_is_confirmed(f->order)))
		return NULL;
	return f->order;
}

void follow_plan(struct follow *f, const struct family *family, uint32_t *list, uint32_t list_count)
{
	free(f->list);
	f->list = list;
	f->list_count = list_count;
	f->family = f->before = family ? *family : (struct family){ .kind = FAMILY_NONE };
	order_drop(f);
	if (list)
		follow_list(f);
}

void follow_clear(struct follow *f)
{
	order_drop(f);
	free(f->seen);
	free(f->list);
	free(f->history);
	free(f->past);
	memset(f, 0, sizeof(*f));
}

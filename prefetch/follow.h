/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order a set is read in: records it, has it recognised, follows it, drops it.
 *
 *            follow_saw (readers' first items)      follow_install
 *   unknown -----------------------------> asked -------------------> followed
 *      ^   \--- follow_turn, last epoch's order ---> on trial -confirmed-^   |
 *      +-------------- contradicted, or the epoch turned -------------------+
 *
 * What follows from a known family (seed + 1, the generator's next word) is
 * followed at once; last epoch's own order only after it was confirmed. As
 * every item of a set is wanted in this epoch anyway, a wrong order costs
 * nothing but the order.
 *
 * Locked by the owner.
 */
#ifndef HOPPER_PREFETCH_FOLLOW_H
#define HOPPER_PREFETCH_FOLLOW_H

#include "prefetch/recognise.h"

struct set;

struct follow {
	struct order *order;              /* owned, or NULL */
	struct family family;             /* of the last epoch whose order was recognised */
	struct family before;             /* what it was before that order, which may be contradicted */
	struct recognise_stream stream[HEADS_MAX];
	uint32_t stream_count;
	uint32_t *seen;                   /* item numbers as read in this epoch, while no order is confirmed; owned */
	uint32_t seen_count, seen_size;
	bool is_partial;                  /* not all of this epoch was recorded */
	uint32_t stride;                  /* ranks of the last epoch, and which of them read here */
	uint64_t residues[ORDER_STRIDE_MAX / 64];
	bool has_learnt;                  /* the family is news: this epoch follows from it */
	bool is_of_records;               /* what is read is seen less exactly than files that are opened */
	bool is_split;                    /* another job's accesses were taken away: look at what remains */
	bool has_replayed;                /* the last epoch went as the one before it: so will this, as long as it does */
	unsigned jobs, sweeps_failed, vain_epochs;
	enum recognise_depth depth;       /* asked for in this epoch */
	struct family *history;           /* of this run's epochs, kind FAMILY_NONE where unknown; owned */
	uint32_t history_count;
	struct family *past;              /* of an earlier run's; owned */
	uint32_t past_count;
	bool is_as_past;                  /* the last epoch was read as then */
	uint32_t *list;                   /* a plan given as a list; owned, or NULL */
	uint32_t list_count;
};

/* Item number @item of @items was read for the first time in this epoch, by @pid. */
void follow_saw(struct follow *f, uint32_t item, uint32_t items, uint32_t pid);

/* A job to be submitted now, or NULL. Owned by the caller. */
struct recognise_job *follow_ask(struct follow *f, const struct set *s, uint64_t now_ns);

/* The recogniser is done. Takes what it wants of @job; returns whether an order is followed now that was not. */
bool follow_install(struct follow *f, struct recognise_job *job);

/* It is done with an epoch that is over: what it found tells of this one. Returns whether it is worth asking again. */
bool follow_learn(struct follow *f, const struct recognise_job *job);

/* Some readers turned out to be another job's, and their heads were taken away: what was seen was a mixture. */
void follow_split(struct follow *f);

/* The epoch ended. */
void follow_turn(struct follow *f);

/* The order of the epoch as far as it went, borrowed until it turns; false if not all of it is known. */
bool follow_epoch(const struct follow *f, const uint32_t **ret_item, uint32_t *ret_count);

/* The order to fetch in, or NULL. */
struct order *follow_order(const struct follow *f);

/* Follow @family (of epoch @epoch), or the items of @list (owned, taken) in every epoch. */
void follow_plan(struct follow *f, const struct family *family, uint32_t *list, uint32_t list_count);

/*
 * What was recognised in the run's epochs, as bytes for a note on disk (owned by the caller, NULL
 * without any), and back: bytes that are not sane are ignored.
 */
void *follow_save(const struct follow *f, size_t *ret_len);
void follow_load(struct follow *f, const void *data, size_t len);

void follow_clear(struct follow *f);

#endif

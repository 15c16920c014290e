/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an epoch visits once. Items are regular files; a unit is one directory's
 * items, known by their range of ids; a set is the units below one parent
 * directory that are read together (the class folders of a data set).
 *
 *   unread --set_consume--> consumed --set_turn (next epoch)--> unread
 *
 * An epoch ends when every item was consumed, or when consumed items are
 * opened again: once at nine tenths (a loader that drops the last batch), in a
 * run of REREADS_MAX below that (an aborted epoch).
 *
 * Locked by the owner.
 */
#ifndef HOPPER_PREFETCH_SET_H
#define HOPPER_PREFETCH_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "prefetch/follow.h"
#include "prefetch/neighbour.h"
#include "prefetch/sampled.h"
#include "prefetch/whereto.h"

enum item_flag {
	ITEM_CONSUMED = 1,
	ITEM_RESIDENT = 2,     /* as far as is known */
	ITEM_IN_FLIGHT = 4,
	ITEM_STAGED = 8,       /* fetched ahead, not read yet */
	ITEM_UNFIT = 16,       /* not a regular file, empty, or its fetch failed */
	ITEM_BY_SHIFT = 5,     /* above: who had it staged (enum predictor_id) */
};

struct claims;
struct records;
struct set;

struct unit {
	struct set *set;
	uint64_t dir;              /* id of the directory */
	uint64_t first;            /* id of the first item */
	uint32_t count;
	uint32_t base;             /* number of the first item within the set */
	uint32_t cursor;           /* where the search for the unread goes on */
	uint32_t extent;           /* next extent of the item at the cursor */
	bool is_exhausted;         /* nothing unread was found missing since */
	uint8_t *item;             /* flags; owned */
	uint8_t *place;            /* where each was read last, as place + 1; owned; NULL where there is but one place */
	struct progress *progress; /* of large files (sampled.h); owned, NULL while none was opened */
	uint8_t *page;             /* what the page cache has (ahead.h); owned, NULL while nothing is known */
	uint32_t push_cursor;      /* where the search for what to push goes on */
	bool is_pushed_out;        /* nothing to push was found since */
};

struct set {
	uint64_t parent;           /* its key: id of the directory above the units, or see sets.h */
	struct set *above;         /* borrowed: of a directory that is a set alone, the set of its siblings */
	unsigned alone_below;      /* sets below that were begun since this one was read */
	struct records *records;   /* borrowed: its items are these; NULL for files */
	struct unit **unit;        /* owned array of borrowed units */
	size_t unit_count, next_unit;
	uint64_t items, unfit, consumed, resident;
	uint64_t staged;           /* fetched ahead and unread, in flight included */
	uint64_t staged_bytes;
	uint64_t bytes_seen, sizes_seen;   /* mean size of an item */
	uint64_t partial_items;    /* consumed in the last epoch if it was partial, else 0 */
	uint64_t opens, remembered_opens, rereads_in_row;
	uint32_t epoch;
	uint64_t epoch_started_ns, last_ns;
	uint64_t stalled_before_ns;   /* the owner's counter of readers' waits when the epoch began */
	double consumed_bytes_per_s;  /* of the last epoch, had its readers not waited */
	struct follow follow;      /* the order it is read in */
	uint32_t order_extent;     /* next extent of the item at the order's cursor */
	struct sampled sampled;    /* files that are opened once for each sample */
	struct neighbours neighbours;   /* readers that go by the listing */
	uint32_t neighbour, neighbour_extent;   /* item being fetched for one of them, and its next extent; 0 when none is */
	char *record;              /* name of the profile to be made of the next whole epoch; owned, or NULL */
	uint64_t pushed;           /* in the page cache and unread, or on the way there */
	uint32_t push_at;          /* next position of the order to push */
	size_t push_unit;          /* next unit to push from, without an order */
	bool is_confirmed;         /* consumed without rereads long enough to be trusted whole */
	bool is_joined;            /* all siblings belong to it */
	uint64_t blocked_at;       /* the owner's count of items consumed when the cache was found full of the unread; 0 */
	struct whereto whereto;    /* at which place its items will be read */
	void *resumed;             /* what an earlier run consumed of this epoch; owned, or NULL */
	size_t resumed_len;
	unsigned trust_after;      /* items to be read before it is certain that it is the same epoch; 0 for certain */
	bool was_read_through;     /* the last epoch, from its first item to its last */
	bool has_grown;            /* in this epoch, so what it covers says nothing of the next */
	/* jobs.h: the first set of its items lists the others */
	struct set *next_job;      /* borrowed: another job's, of the same items */
	struct claims *claims;     /* who read what, to tell jobs apart; owned, or NULL */
	uint32_t leader;           /* the job's process; 0 unknown */
	bool is_over;              /* one of several, and its process is gone */
	bool has_split;            /* in this epoch */
};

enum { SET_START_OPENS = 4, REREADS_MAX = 16, REREADS_RECORDS = 4 };

/* A new unit of the set with all items unread. Returns NULL without memory. */
struct unit *set_add_unit(struct set *s, uint64_t dir, uint64_t first, uint32_t count);
/* The epoch that seemed to end goes on, with more to come: its items are consumed. */
void set_unturn(struct set *s);

/* All units of @from become units of @s, as they are. @from is empty then. 0 or -ENOMEM. */
int set_absorb(struct set *s, struct set *from);
/* Forget all epochs: another job reads the items. */
void set_restart(struct set *s);
void unit_free(struct unit *u);
void set_free(struct set *s);

enum set_event { SET_READ, SET_REREAD, SET_TURNED };

/* Item @index was opened. SET_TURNED: an epoch ended, before or with this item. */
enum set_event set_consume(struct set *s, struct unit *u, uint32_t index, uint64_t now_ns);

/* Begin the next epoch. Adds to @left the items that each predictor had fetched ahead and that were not read. */
void set_turn(struct set *s, uint64_t now_ns, uint64_t left[PREDICTOR_COUNT]);

/* What is fetched in order goes on from position @at, which is not behind the cursor. */
void set_order_back(struct set *s, uint32_t at);

/* The unit and index of item number @item; NULL if there is none. */
struct unit *set_item(const struct set *s, uint32_t item, uint32_t *ret_index);

enum { PAGE_NONE, PAGE_WAITING, PAGE_PUSHED };   /* and more, ahead.c's own */

/* Is it in the page cache for a reader to come, or on its way there? Then it is not missing, whether or not the cache has it. */
static inline bool unit_is_pushed(const struct unit *u, uint32_t index)
{
	return u->page && (u->page[index] == PAGE_PUSHED || u->page[index] == PAGE_WAITING) && !(u->item[index] & ITEM_CONSUMED);
}

/* Is it unread, not there and not on its way? */
static inline bool item_is_missing(uint8_t flags)
{
	return !(flags & (ITEM_CONSUMED | ITEM_RESIDENT | ITEM_UNFIT | ITEM_IN_FLIGHT));
}

/*
 * The last epoch read less than nine tenths (a subset, one node's share) of a
 * set that was all known by then, and this one has not gone beyond it: what
 * is unread may well stay so.
 */
bool set_is_partial(const struct set *s);

/* How many items may be fetched ahead and unread: grows with what was consumed. */
uint64_t set_confidence(const struct set *s);

/* The next unread item that is not there, or NULL. The choice spreads over the units. */
struct unit *set_next_missing(struct set *s, uint32_t *ret_index);

/* Mean bytes of an item, by those seen. */
uint64_t set_item_bytes(const struct set *s);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large files that are opened once for each sample they hold (the shards of MosaicML Streaming), so that an open
 * tells that a file was begun, not that it was read.
 *
 *   whole --SAMPLED_ITEMS opened again and read by jumps, within an epoch--> sampled, the set for good
 *
 *   of a sampled set:  unread --first open--> begun --its bytes were asked for--> consumed
 *
 * In the first epoch a file is consumed when nearly all of its pages were asked for, or would have been if its opens
 * asked for as much as others do: the kernel hides the reads of files that it reads by itself, and those that its page
 * cache serves. That tells how often a file is opened in an epoch, which is what counts from then on.
 *
 * Locked by the owner.
 */
#ifndef HOPPER_PREFETCH_SAMPLED_H
#define HOPPER_PREFETCH_SAMPLED_H

#include <stdbool.h>
#include <stdint.h>

struct observation;
struct set;
struct unit;

enum {
	SAMPLED_READERS = 64,
	SAMPLED_OPENS = 4, SAMPLED_JUMPS = 3,   /* of an item, which make it one of SAMPLED_ITEMS */
	SAMPLED_ITEMS = 2,
	SAMPLED_LEAST = 4,                      /* items of a set: of one file the records are told apart */
};

/* Of an item in this epoch. */
struct progress {
	uint8_t *page;                   /* a bit for each that was asked for; owned, NULL while there are none */
	uint32_t pages;                  /* that were */
	uint32_t opens, jumps;
	uint32_t usual;                  /* opens in an epoch; 0 unknown */
};

struct sampled {
	bool is_on;
	uint32_t evidence;               /* items that were read as sampled ones are */
	uint64_t pages, opens;           /* of all items, by opens whose reads are seen */
	struct { uint32_t pid, item; uint64_t end; } reader[SAMPLED_READERS];   /* where each was last */
	uint64_t all_opens, last_opens;  /* of all items in this epoch, and in the last */
	uint32_t *begun;                 /* items in the order of their first open, while sampled; owned */
	uint32_t begun_count, begun_size;
	uint32_t cursor, extent;         /* the owner's: of these, what to fetch next */
};

enum sampled_event {
	SAMPLED_WHOLE,                   /* not a sampled set's: the open is as good as reading it */
	SAMPLED_BEGUN,                   /* the first in this epoch */
	SAMPLED_AGAIN,                   /* one more */
	SAMPLED_REREAD,                  /* it was all read before: likely the next epoch */
};

/* Item @index was opened. @is_hidden: its reads will not be seen. */
enum sampled_event sampled_open(struct set *s, struct unit *u, uint32_t index, bool is_hidden);

/* It was read. */
void sampled_read(struct set *s, struct unit *u, uint32_t index, uint64_t size, const struct observation *o);

/* Can the epoch be near its end, by the opens that the last one took? */
bool sampled_may_turn(const struct set *s);

/* Of a sampled set: were (nearly) all bytes of it asked for? */
bool sampled_is_read(const struct set *s, const struct unit *u, uint32_t index, uint64_t size);

/* It was, and counts as consumed. */
void sampled_consumed(struct unit *u, uint32_t index);

/* What is begun may be missing, whatever was fetched of it. */
void sampled_again(struct set *s);

/* The epoch ended. */
void sampled_turn(struct set *s);
void sampled_free(struct set *s);
void sampled_free_unit(struct unit *u);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sets of a mount: which set a file belongs to. Files of one directory form units, directories below one parent
 * form a set; a file that is read by records is a set of its own.
 *
 *   first open in a directory: sets_home
 *   JOIN_UNITS directories read below one parent: sets_join_siblings takes in all, listing them ahead
 *   an epoch went by without a directory (val/ beside train/): it is a set of its own,
 *   until a third one shows that directories are read one after the other
 *
 * Everything with the owner's lock held, but sets_open and sets_close.
 */
#ifndef HOPPER_PREFETCH_SETS_H
#define HOPPER_PREFETCH_SETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "lib/map64.h"
#include "prefetch/set.h"

struct lock;
struct ns;
struct pool;
struct records;

struct sets_config {
	struct ns *ns;
	struct lock *lock;
	/* A set is new: what an earlier run knew of it. With the lock held. */
	void (*is_new)(void *arg, struct set *s);
	/* A directory was listed ahead. Without the lock. */
	void (*listed)(void *arg);
	void *arg;
};

struct sets {
	struct sets_config cfg;          /* immutable */
	struct map64 by_key;             /* parent id, ALONE_KEY | directory, RECORDS_KEY | file -> struct set, owned */
	struct range *range;             /* of all units, sorted; owned */
	size_t range_count;
	struct map64 records;            /* file id -> struct records, owned */
	struct pool *listers;            /* owned: directories listed ahead */
	unsigned jobs;                   /* sets made for further jobs */
	_Atomic bool is_closing;
};

#define RECORDS_KEY (1ULL << 63)
#define ALONE_KEY (1ULL << 62)
#define JOB_SHIFT 48                     /* another job's set of the same items: its number; ids are far below */
#define JOBS_MAX 4095u
#define JOB_KEY ((uint64_t)JOBS_MAX << JOB_SHIFT)
#define KEY_KINDS (RECORDS_KEY | ALONE_KEY | JOB_KEY)

/* The directories directly below one. */
struct siblings {
	uint64_t dir[4096];
	size_t count;
};

int sets_open(struct sets *t, const struct sets_config *cfg);
void sets_stop(struct sets *t);          /* no more listing ahead */
void sets_close(struct sets *t);

/* The unit and index of file @ino, or NULL. */
struct unit *sets_unit(const struct sets *t, uint64_t ino, uint32_t *ret_index);

/* The set with @key, made if need be; NULL without memory. */
struct set *sets_get(struct sets *t, uint64_t key);

/* The set that files of @dir below @parent join, which are no set's yet; they are units of it then. NULL without memory. */
struct set *sets_home(struct sets *t, uint64_t dir, uint64_t parent);

/* A directory's files become units of the set, but those that are some set's already. */
void sets_add_directory(struct sets *t, struct set *s, uint64_t dir);

/* If enough sibling directories are read at once, all that are there belong to the set. */
void sets_join_siblings(struct sets *t, struct set *s);

/* The directories below @dir, as far as they are known. */
void siblings_of(struct sets *t, uint64_t dir, struct siblings *ret);

/* The set that files below @dir belong to: its class directories', or its own. NULL without memory. */
struct set *sets_below(struct sets *t, uint64_t dir, uint64_t parent, const struct siblings *classes);

/* A set of all the items of @s for another job, listed behind it, nothing of it read; NULL without memory. */
struct set *sets_add_job(struct sets *t, struct set *s);

/* How file @ino of @size bytes is read inside, or NULL without memory. */
struct records *sets_records(struct sets *t, uint64_t ino, uint64_t size);

/* Its records as a set. NULL without memory. */
struct set *sets_add_records(struct sets *t, struct records *r);

#endif

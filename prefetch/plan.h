/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order in which a job will read, as it told through user.hopper.plan: a
 * sampler and its seed (family_parse), a list of paths, a profile
 * ("record NAME": to be made of the next whole epoch, "replay NAME"), or none.
 */
#ifndef HOPPER_PREFETCH_PLAN_H
#define HOPPER_PREFETCH_PLAN_H

#include <stddef.h>
#include <stdint.h>

struct lock;
struct ns;
struct set;
struct sets;

struct cache;

struct plan_target {
	struct cache *cache;
	struct ns *ns;
	struct sets *sets;
	struct lock *lock;           /* of the sets */
	/* A sampler or a profile was told for @s. With the lock held. */
	void (*planned)(void *arg, struct set *s);
	void *arg;
};

enum { PLAN_NOTE = 80 };

/* The note that keeps profile @name. */
void plan_note(const char *name, char note[PLAN_NOTE]);

/*
 * Take a plan for the files below @dir. Lists directories that were not listed yet: may block. The lock is
 * not held. 0; -EINVAL with one line in @msg, or the error of listing.
 */
int plan_take(const struct plan_target *t, uint64_t dir, const char *text, char *msg, size_t msg_size);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What the next run is to know: orders, where epochs stand, profiles; as notes in the cache. */
#include "prefetch/engine.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "lib/cleanup.h"
#include "lib/log.h"
#include "prefetch/plan.h"
#include "prefetch/resume.h"

void remember_name(const char *what, uint64_t set, char *name, size_t size)
{
	snprintf(name, size, "%s-%llu", what, (unsigned long long)set);
}

/* A set is new: what an earlier run's epochs were, and where the last one stood. Lock held. */
void remember_set(void *arg, struct set *s)
{
	struct prefetch *p = arg;
	char name[NOTE_NAME];
	void *note;
	size_t len;

	remember_name("orders", s->parent, name, sizeof(name));
	if (p->recogniser && !cache_note_get(p->cache, name, &note, &len)) {
		follow_load(&s->follow, note, len);
		free(note);
	}
	remember_name("epoch", s->parent, name, sizeof(name));
	if (!cache_note_get(p->cache, name, &note, &len) && resume_load(s, note, len, time(NULL)))
		s->follow.is_as_past = true;
}

/* Write the profile that was recorded, if there is one. Lock not held. */
void remember_profile(struct prefetch *p)
{
	_cleanup_free_ char *name = NULL;
	_cleanup_free_ void *data = NULL;
	char note[PLAN_NOTE];
	size_t len;
	int rc;

	lock_acquire(&p->lock);
	name = p->profile_name;
	data = p->profile;
	len = p->profile_len;
	p->profile_name = NULL;
	p->profile = NULL;
	lock_release(&p->lock);
	if (!data)
		return;
	plan_note(name, note);
	rc = cache_note_put(p->cache, note, data, len);
	if (rc)
		log_warn("profile %s was not recorded: %s", name, strerror(-rc));
	prefetch_set_plan_text(p, "record %s: %s\n", name, rc ? strerror(-rc) : "recorded");
}

/* Where the epochs of the sets stand that were read since the last time. Lock not held. */
void remember_epochs(struct prefetch *p)
{
	struct set *s;
	size_t pos = 0, len;

	p->remembered_ns = clock_ns();
	lock_acquire(&p->lock);
	while ((s = map64_next(&p->sets.by_key, &pos, NULL))) {
		bool is_news = s->opens != s->remembered_opens && !(s->parent & JOB_KEY);
		void *note = is_news ? resume_save(s, time(NULL), &len) : NULL;
		char name[NOTE_NAME];

		if (!note)
			continue;
		s->remembered_opens = s->opens;
		remember_name("epoch", s->parent, name, sizeof(name));
		lock_release(&p->lock);
		if (cache_note_put(p->cache, name, note, len))
			log_debug("where an epoch stands is not remembered");
		free(note);
		lock_acquire(&p->lock);
	}
	lock_release(&p->lock);
}

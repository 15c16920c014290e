/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/plan.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cache/cache.h"
#include "cache/namespace.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/lock.h"
#include "prefetch/profile.h"
#include "prefetch/recognise.h"
#include "prefetch/sets.h"

/* The id behind a path below @dir. Blocks. */
static int resolve(const struct plan_target *t, uint64_t dir, char *path, uint64_t *ret_ino)
{
	char *save = NULL;
	struct ns_attr attr = { .ino = dir };
	int rc = 0;

	for (char *name = strtok_r(path, "/", &save); name && !rc; name = strtok_r(NULL, "/", &save))
		rc = ns_lookup(t->ns, attr.ino, name, 0, &attr);
	*ret_ino = attr.ino;
	return rc;
}

/* "list": the items of the lines, in their order. */
static int plan_list(const struct plan_target *t, struct set *s, uint64_t dir, const char *lines, char *msg, size_t msg_size)
{
	_cleanup_free_ char *copy = strdup(lines);
	uint32_t *item = malloc((strlen(lines) / 2 + 1) * sizeof(*item)), count = 0, index;
	char *save = NULL;
	int rc = copy && item ? 0 : -ENOMEM;

	for (char *line = copy ? strtok_r(copy, "\n", &save) : NULL; line && !rc; line = strtok_r(NULL, "\n", &save)) {
		_cleanup_free_ char *path = strdup(line);
		const struct unit *u = NULL;
		uint64_t ino;

		if (path && !resolve(t, dir, path, &ino)) {
			lock_acquire(t->lock);
			u = sets_unit(t->sets, ino, &index);
			lock_release(t->lock);
		}
		if (!u || u->set != s) {
			snprintf(msg, msg_size, "list: '%.100s' is not a file below the directory", line);
			rc = -EINVAL;
		} else {
			item[count++] = u->base + index;
		}
	}
	if (!rc && !count) {
		snprintf(msg, msg_size, "list: give a path below the directory on each line");
		rc = -EINVAL;
	}
	if (rc) {
		free(item);
		return rc;
	}
	lock_acquire(t->lock);
	follow_plan(&s->follow, NULL, item, count);
	s->last_ns = clock_ns();
	lock_release(t->lock);
	return 0;
}

static int plan_record(const struct plan_target *t, struct set *s, const char *name)
{
	char *copy = strdup(name);

	if (!copy)
		return -ENOMEM;
	lock_acquire(t->lock);
	free(s->record);
	s->record = copy;
	lock_release(t->lock);
	return 0;
}

static int plan_replay(const struct plan_target *t, struct set *s, const char *name, char *msg, size_t msg_size)
{
	_cleanup_free_ char *data = NULL;
	uint32_t *item, count;
	char note[PLAN_NOTE];
	size_t len;
	int rc;

	plan_note(name, note);
	rc = cache_note_get(t->cache, note, (void **)&data, &len);
	lock_acquire(t->lock);
	if (!rc)
		rc = profile_read(t->sets, s, data, len, &item, &count);
	if (!rc) {
		follow_plan(&s->follow, NULL, item, count);
		s->last_ns = clock_ns();
	}
	lock_release(t->lock);
	if (rc == -ENOENT) {
		snprintf(msg, msg_size, "replay: no profile '%s' of these files was recorded", name);
		rc = -EINVAL;
	}
	return rc;
}

/* "record NAME", "replay NAME": the name, or NULL. */
static const char *profile_of(const char *text, const char *verb)
{
	size_t len = strlen(verb);

	return !strncmp(text, verb, len) && text[len] == ' ' ? text + len + 1 : NULL;
}

void plan_note(const char *name, char note[PLAN_NOTE])
{
	snprintf(note, PLAN_NOTE, "profile-%s", name);
}

/* The set of the files below @dir, all of them listed. */
static int plan_set(const struct plan_target *t, uint64_t dir, struct set **ret_set, char *msg, size_t msg_size)
{
	_cleanup_free_ struct siblings *classes = calloc(1, sizeof(*classes));
	struct ns_attr attr;
	int rc;

	if (!classes)
		return -ENOMEM;
	rc = ns_getattr(t->ns, dir, 0, &attr);
	if (!rc)
		rc = ns_list(t->ns, dir, 0);
	if (!rc)
		siblings_of(t->sets, dir, classes);
	for (size_t i = 0; i < classes->count && !rc; i++)
		rc = ns_list(t->ns, classes->dir[i], 0);
	if (rc) {
		snprintf(msg, msg_size, "the directory cannot be listed: %s", strerror(-rc));
		return rc;
	}
	lock_acquire(t->lock);
	*ret_set = sets_below(t->sets, attr.ino, attr.parent, classes);
	lock_release(t->lock);
	return *ret_set ? 0 : -ENOMEM;
}

static void plan_family(const struct plan_target *t, struct set *s, struct family *f)
{
	lock_acquire(t->lock);
	f->epoch = s->epoch;
	follow_plan(&s->follow, f, NULL, 0);
	s->last_ns = clock_ns();
	t->planned(t->arg, s);
	lock_release(t->lock);
}

int plan_take(const struct plan_target *t, uint64_t dir, const char *text, char *msg, size_t msg_size)
{
	const char *record = profile_of(text, "record"), *replay = profile_of(text, "replay");
	struct family family = { .kind = FAMILY_NONE };
	bool is_list = !strncmp(text, "list\n", 5);
	struct set *s;
	int rc = 0;

	if ((record && !profile_name_is_sane(record)) || (replay && !profile_name_is_sane(replay))) {
		snprintf(msg, msg_size, "a profile's name has at most %d letters, digits, dots, dashes and underscores", PROFILE_NAME);
		return -EINVAL;
	}
	if (!record && !replay && !is_list && strcmp(text, "none"))
		rc = family_parse(text, &family, msg, msg_size);
	if (!rc)
		rc = plan_set(t, dir, &s, msg, msg_size);
	if (rc)
		return rc;
	if (record)
		return plan_record(t, s, record);
	if (replay)
		return plan_replay(t, s, replay, msg, msg_size);
	if (is_list)
		return plan_list(t, s, dir, text + 5, msg, msg_size);
	plan_family(t, s, &family);
	return 0;
}

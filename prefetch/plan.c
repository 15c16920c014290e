/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/plan.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cache/namespace.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/lock.h"
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

int plan_take(const struct plan_target *t, uint64_t dir, const char *text, char *msg, size_t msg_size)
{
	_cleanup_free_ struct siblings *classes = calloc(1, sizeof(*classes));
	struct family family = { .kind = FAMILY_NONE };
	bool is_list = !strncmp(text, "list\n", 5);
	struct ns_attr attr;
	struct set *s;
	int rc = is_list || !strcmp(text, "none") ? 0 : recognise_parse_plan(text, &family, msg, msg_size);

	if (rc)
		return rc;
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
	s = sets_below(t->sets, attr.ino, attr.parent, classes);
	if (s && !is_list) {
		family.epoch = s->epoch;
		follow_plan(&s->follow, &family, NULL, 0);
		s->last_ns = clock_ns();
		t->planned(t->arg, s);
	}
	lock_release(t->lock);
	if (!s)
		return -ENOMEM;
	return is_list ? plan_list(t, s, dir, text + 5, msg, msg_size) : 0;
}

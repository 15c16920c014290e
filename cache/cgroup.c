/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the path in /proc/self/cgroup is not to be found below the mount (a container that sees its own cgroup as the top, and its path
 * as the host has it), those above it are, of which the top is the container's.
 */
#include "cache/cgroup.h"
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include "lib/parse.h"

struct version {
	const char *mount[2];        /* the second where both versions are mounted */
	const char *limit[2];
};

static const struct version one = { { "/sys/fs/cgroup/memory", NULL }, { "memory.limit_in_bytes", "memory.soft_limit_in_bytes" } };
static const struct version two = { { "/sys/fs/cgroup", "/sys/fs/cgroup/unified" }, { "memory.max", "memory.high" } };

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* UINT64_MAX for "max", and for what cannot be read. */
static uint64_t limit_in(const char *dir, const char *name)
{
	char path[PATH_MAX], text[64] = "";
	uint64_t limit = UINT64_MAX;
	FILE *f;

	if (snprintf(path, sizeof(path), "%s/%s", dir, name) >= (int)sizeof(path) || !(f = fopen(path, "re")))
		return UINT64_MAX;
	if (fgets(text, sizeof(text), f)) {
		text[strcspn(text, "\n")] = 0;
		if (parse_u64(text, &limit))
			limit = UINT64_MAX;
	}
	fclose(f);
	return limit;
}

/* Of the cgroup at @path below the mount, and of each above. */
static uint64_t limit_of(const char *root, const char *mount, const struct version *v, const char *path)
{
	char dir[PATH_MAX];
	uint64_t limit = UINT64_MAX;
	size_t top = strlen(root) + strlen(mount);
	char *above;

	if (snprintf(dir, sizeof(dir), "%s%s%s", root, mount, path) >= (int)sizeof(dir))
		return UINT64_MAX;
	above = strstr(dir + top, "/..");   /* of the top that we see: not to be had */
	if (above)
		*above = 0;
	for (char *slash = dir + strlen(dir); slash && slash >= dir + top; slash = strrchr(dir, '/')) {
		*slash = 0;
		limit = least(limit, least(limit_in(dir, v->limit[0]), limit_in(dir, v->limit[1])));
	}
	return limit;
}

/* The version of a line "NUMBER:CONTROLLER,...:PATH", whose path is returned; NULL if it says nothing of memory. */
static const char *line_path(char *line, const struct version **ret_version)
{
	char *controllers = strchr(line, ':'), *path = controllers ? strchr(controllers + 1, ':') : NULL, *save = NULL;

	if (!path)
		return NULL;
	*path++ = 0;
	path[strcspn(path, "\n")] = 0;
	*ret_version = &two;
	if (!controllers[1])
		return path;
	*ret_version = &one;
	for (char *name = strtok_r(controllers + 1, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
		if (!strcmp(name, "memory"))
			return path;
	}
	return NULL;
}

uint64_t cgroup_memory_bytes(const char *root)
{
	char name[PATH_MAX], line[PATH_MAX];
	uint64_t limit = UINT64_MAX;
	FILE *f;

	root = root ? root : "";
	snprintf(name, sizeof(name), "%s/proc/self/cgroup", root);
	f = fopen(name, "re");
	while (f && fgets(line, sizeof(line), f)) {
		const struct version *v;
		const char *path = line_path(line, &v);

		for (unsigned i = 0; path && i < 2 && v->mount[i]; i++)
			limit = least(limit, limit_of(root, v->mount[i], v, path));
	}
	if (f)
		fclose(f);
	return limit;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Chooses the kind of origin by its specification. */
#include "cache/origin/origin.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "cache/origin/kinds.h"

void origin_listing_free(struct origin_listing *l)
{
	free(l->entry);
	free(l->names);
	memset(l, 0, sizeof(*l));
}

/* "KIND:rest" -> rest, or NULL. */
static const char *after_kind(const char *spec, const char *kind)
{
	size_t n = strlen(kind);

	return !strncmp(spec, kind, n) && spec[n] == ':' ? spec + n + 1 : NULL;
}

int origin_open(const char *spec, struct stats *stats, struct origin **ret_origin,
		char *msg, size_t msg_size)
{
	const char *rest;

	if ((rest = after_kind(spec, "fault")))
		return origin_fault_open(rest, stats, ret_origin, msg, msg_size);
	rest = after_kind(spec, "posix");
	return origin_posix_open(rest ? rest : spec, stats, ret_origin, msg, msg_size);
}

void origin_close(struct origin *o)
{
	if (o)
		o->ops->free(o);
}

char *origin_identity(const char *spec)
{
	const char *rest;
	char *real;

	/* fault:SETTINGS:SPEC: the settings do not make it another origin */
	while ((rest = after_kind(spec, "fault"))) {
		rest = strchr(rest, ':');
		if (!rest)
			return strdup(spec);
		spec = rest + 1;
	}
	rest = after_kind(spec, "posix");
	real = realpath(rest ? rest : spec, NULL);
	return real ? real : strdup(rest ? rest : spec);
}

uint64_t version_hash(const struct version *v)
{
	uint64_t word[4] = { v->size, (uint64_t)v->mtime_ns, (uint64_t)v->ctime_ns, v->tag };
	uint64_t hash = XXH3_64bits(word, sizeof(word));

	return hash ? hash : 1;
}

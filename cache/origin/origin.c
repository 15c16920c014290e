/* SPDX-License-Identifier: Apache-2.0 */
/* Chooses the kind of origin by its specification. */
#include "cache/origin/origin.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "cache/origin/health.h"
#include "cache/origin/kinds.h"
#include "lib/clock.h"

void origin_attr_clear(struct origin_attr *a)
{
	free(a->acl);
	a->acl = NULL;
	a->acl_len = 0;
}

void origin_listing_free(struct origin_listing *l)
{
	for (size_t i = 0; i < l->count; i++)
		origin_attr_clear(&l->entry[i].attr);
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

static int open_kind(const char *spec, struct stats *stats, struct origin **ret_origin, char *msg, size_t msg_size)
{
	const char *rest;

	if ((rest = after_kind(spec, "fault")))
		return origin_fault_open(rest, stats, ret_origin, msg, msg_size);
	rest = after_kind(spec, "posix");
	return origin_posix_open(rest ? rest : spec, stats, ret_origin, msg, msg_size);
}

int origin_open(const char *spec, struct stats *stats, struct origin **ret_origin,
		char *msg, size_t msg_size)
{
	struct health *health = NULL;
	int rc = health_new(&health_of_origin, stats, &health);

	if (!rc)
		rc = open_kind(spec, stats, ret_origin, msg, msg_size);
	if (rc)
		health_free(health);
	else
		(*ret_origin)->health = health;
	return rc;
}

void origin_close(struct origin *o)
{
	struct health *health = o ? o->health : NULL;

	if (o)
		o->ops->free(o);
	health_free(health);
}

/* ---- asking ---- */

int origin_stat(struct origin *o, const char *path, struct origin_attr *ret_attr)
{
	int rc;

	health_asked(o->health, clock_ns());
	rc = o->ops->stat(o, path, ret_attr);
	origin_answered(o, rc);
	return rc;
}

int origin_list(struct origin *o, const char *path, struct origin_listing *ret_listing)
{
	int rc;

	health_asked(o->health, clock_ns());
	rc = o->ops->list(o, path, ret_listing);
	origin_answered(o, rc);
	return rc;
}

int origin_readlink(struct origin *o, const char *path, char *buf, size_t size)
{
	int rc;

	health_asked(o->health, clock_ns());
	rc = o->ops->readlink(o, path, buf, size);
	origin_answered(o, rc);
	return rc;
}

int origin_statfs(struct origin *o, struct statvfs *ret_st)
{
	int rc;

	health_asked(o->health, clock_ns());
	rc = o->ops->statfs(o, ret_st);
	origin_answered(o, rc);
	return rc;
}

void origin_submit(struct origin *o, struct origin_read *r)
{
	health_asked(o->health, clock_ns());
	o->ops->read(o, r);
}

void origin_answered(struct origin *o, int err)
{
	health_answered(o->health, err, clock_ns());
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

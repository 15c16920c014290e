/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/maps.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include "cache/cache.h"
#include "cache/extent.h"
#include "cache/namespace.h"
#include "lib/map64.h"
#include "prefetch/manifest.h"

enum {
	PATH_BYTES = 4096,
	ABOVE = 2,                       /* directories above the set's where its list may be */
	MANIFEST_SMALL = 4 << 20, MANIFEST_LARGE = 256 << 20,
	MANIFESTS_MAX = 8,
};

struct maps {
	struct ns *ns;
	struct cache *cache;
	/* of the set looked at last */
	uint64_t set, signature;
	bool was_thorough;
	struct index_map map[MAPS];
};

struct entry {
	char *name;                      /* owned */
	uint32_t item, unit;
	bool is_image, is_usual;
};

/* All files of a set, directories by name, files by name. */
struct entries {
	struct entry *entry;             /* owned */
	uint32_t count, size;
	const struct recognise_unit *unit;   /* of the directory that is listed, following each other */
	uint32_t unit_count, unit_no;
	bool failed;
};

static const char *extension_of(const char *name)
{
	const char *dot = strrchr(name, '.');

	return dot ? dot : "";
}

static bool is_image(const char *name)
{
	/* torchvision.datasets.folder.IMG_EXTENSIONS */
	static const char *const extension[] = { ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp" };

	for (size_t i = 0; i < sizeof(extension) / sizeof(extension[0]); i++) {
		if (!strcasecmp(extension_of(name), extension[i]) && extension_of(name) > name)
			return true;
	}
	return false;
}

static int add_entry(void *arg, const char *name, const struct ns_attr *attr)
{
	struct entries *e = arg;
	uint32_t u;

	for (u = 0; u < e->unit_count; u++) {
		if (attr->ino >= e->unit[u].first && attr->ino < e->unit[u].first + e->unit[u].count)
			break;
	}
	if (u == e->unit_count || !S_ISREG(attr->mode))
		return 0;
	if (e->count == e->size) {
		uint32_t size = e->size ? e->size * 2 : 256;
		struct entry *bigger = realloc(e->entry, size * sizeof(*bigger));

		if (!bigger) {
			e->failed = true;
			return 1;
		}
		e->entry = bigger;
		e->size = size;
	}
	e->entry[e->count] = (struct entry){ strdup(name), e->unit[u].base + (uint32_t)(attr->ino - e->unit[u].first), e->unit_no,
					     is_image(name), false };
	e->failed |= !e->entry[e->count++].name;
	return e->failed;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static void entries_free(struct entries *e)
{
	for (uint32_t i = 0; i < e->count; i++)
		free(e->entry[i].name);
	free(e->entry);
}

struct named_unit {
	struct recognise_unit unit;
	char path[512];
};

static int by_path(const void *a, const void *b)
{
	const struct named_unit *x = a, *y = b;
	int rc = strcmp(x->path, y->path);

	return rc ? rc : x->unit.first < y->unit.first ? -1 : 1;
}

/* The directories in the order of their names; with @is_whole as paths of files below them sort. */
static bool sort_units(struct maps *m, struct recognise_unit *unit, uint32_t count, bool is_whole)
{
	struct named_unit *named = calloc(count, sizeof(*named));
	bool fine = named != NULL;

	for (uint32_t i = 0; i < count && fine; i++) {
		named[i].unit = unit[i];
		fine = !ns_path(m->ns, unit[i].dir, named[i].path, sizeof(named[i].path) - 1);
		if (is_whole)
			strcat(named[i].path, "/");
	}
	if (fine)
		qsort(named, count, sizeof(*named), by_path);
	for (uint32_t i = 0; i < count && fine; i++)
		unit[i] = named[i].unit;
	free(named);
	return fine;
}

/* The usual extension is that of most files. */
static void mark_usual(struct entries *e)
{
	struct { const char *extension; uint32_t count; } seen[16] = { 0 };
	unsigned kinds = 0, most = 0;

	for (uint32_t i = 0; i < e->count; i++) {
		const char *x = extension_of(e->entry[i].name);
		unsigned k = 0;

		while (k < kinds && strcmp(seen[k].extension, x))
			k++;
		if (k == 16)
			continue;
		if (k == kinds)
			seen[kinds++].extension = x;
		if (++seen[k].count > seen[most].count)
			most = k;
	}
	for (uint32_t i = 0; i < e->count; i++)
		e->entry[i].is_usual = !strcmp(extension_of(e->entry[i].name), seen[most].extension);
}

static bool list_all(struct maps *m, struct recognise_unit *unit, uint32_t count, struct entries *ret)
{
	for (uint32_t i = 0, n; i < count && !ret->failed; i += n) {
		uint32_t first = ret->count;

		for (n = 1; i + n < count && unit[i + n].dir == unit[i].dir; n++)
			;
		ret->unit = unit + i;
		ret->unit_count = n;
		ret->unit_no = i;
		ns_readdir(m->ns, unit[i].dir, NS_ROOT, add_entry, ret);
		if (!ret->failed && ret->count > first)
			qsort(ret->entry + first, ret->count - first, sizeof(*ret->entry), by_name);
	}
	if (!ret->failed)
		mark_usual(ret);
	return !ret->failed;
}

/* ---- the maps ---- */

static struct index_map *map_begin(struct maps *m, unsigned kind, uint64_t items, uint32_t columns)
{
	m->map[kind] = (struct index_map){ 0, columns, malloc(items * sizeof(uint32_t) + 1) };
	return m->map[kind].item ? &m->map[kind] : NULL;
}

static void map_drop(struct maps *m, unsigned kind)
{
	free(m->map[kind].item);
	m->map[kind] = (struct index_map){ 0, 1, NULL };
}

/* One that says what an earlier one says is none. */
static void drop_if_double(struct maps *m, unsigned kind)
{
	const struct index_map *map = &m->map[kind];

	for (unsigned k = 0; k < MAPS && map->n; k++) {
		const struct index_map *other = &m->map[k];

		if (k != kind && other->n == map->n && other->columns == map->columns &&
		    !memcmp(other->item, map->item, (size_t)map->n * map->columns * sizeof(uint32_t)))
			map_drop(m, kind);
	}
	if (map->n < 2)
		map_drop(m, kind);
}

static bool map_entries(struct maps *m, const struct entries *e)
{
	static const enum map_kind kinds[] = { MAP_NAMES, MAP_IMAGES, MAP_USUAL };

	for (unsigned k = 0; k < 3; k++) {
		struct index_map *map = map_begin(m, kinds[k], e->count, 1);

		for (uint32_t i = 0; i < e->count && map; i++) {
			if (k == 0 || (k == 1 ? e->entry[i].is_image : e->entry[i].is_usual))
				map->item[map->n++] = e->entry[i].item;
		}
		if (!map)
			return false;
		drop_if_double(m, kinds[k]);
	}
	return true;
}

/* By the whole path: the same files, their directories in another order. */
static bool map_paths(struct maps *m, const struct recognise_unit *unit, uint32_t count, const struct entries *e)
{
	struct recognise_unit *whole = malloc(count * sizeof(*whole));
	struct index_map *map = map_begin(m, MAP_PATHS, e->count, 1);
	struct map64 start = MAP64_INIT;       /* a unit's first id -> its first entry, + 1 */
	bool fine = whole && map;

	if (fine) {
		memcpy(whole, unit, count * sizeof(*whole));
		fine = sort_units(m, whole, count, true);
	}
	for (uint32_t i = 0; i < e->count && fine; i++) {
		if (!i || e->entry[i].unit != e->entry[i - 1].unit)
			fine = !map64_put(&start, unit[e->entry[i].unit].first, (void *)(i + 1UL));
	}
	for (uint32_t u = 0; u < count && fine; u++) {
		uintptr_t at = (uintptr_t)map64_get(&start, whole[u].first);

		for (uint32_t i = (uint32_t)at; at && i <= e->count && e->entry[i - 1].unit == e->entry[at - 1].unit; i++)
			map->item[map->n++] = e->entry[i - 1].item;
	}
	map64_clear(&start);
	free(whole);
	if (fine)
		drop_if_double(m, MAP_PATHS);
	return fine;
}

static int by_first(const void *a, const void *b)
{
	const struct recognise_unit *x = a, *y = b;

	return x->first < y->first ? -1 : x->first > y->first;
}

/* In the order of ids, which is that of listings. */
static bool map_listed(struct maps *m, const struct recognise_unit *unit, uint32_t count, uint64_t items, const struct entries *e)
{
	struct recognise_unit *listed = malloc(count * sizeof(*listed));
	struct index_map *map = map_begin(m, MAP_LISTED, items, 1);
	uint8_t *is_file = calloc(items / 8 + 1, 1);
	bool fine = listed && map && is_file;

	if (fine) {
		memcpy(listed, unit, count * sizeof(*listed));
		qsort(listed, count, sizeof(*listed), by_first);
	}
	for (uint32_t i = 0; i < e->count && fine; i++)
		is_file[e->entry[i].item / 8] |= (uint8_t)(1 << e->entry[i].item % 8);
	for (uint32_t u = 0; u < count && fine; u++) {
		for (uint32_t i = listed[u].base; i < listed[u].base + listed[u].count; i++) {
			if (is_file[i / 8] >> i % 8 & 1)
				map->item[map->n++] = i;
		}
	}
	free(is_file);
	free(listed);
	if (fine)
		drop_if_double(m, MAP_LISTED);
	return fine;
}

/* Which column of a sample an entry is: by directory and extension. */
struct column {
	uint32_t unit, count;
	const char *extension;
};

/* Two to four files a sample: as many of each directory and extension. */
static bool map_samples(struct maps *m, const struct entries *e)
{
	struct column column[MAP_COLUMNS_MAX] = { 0 };
	uint32_t columns = 0, at[MAP_COLUMNS_MAX] = { 0 };
	struct index_map *map;

	for (int pass = 0; pass < 2; pass++) {
		for (uint32_t i = 0; i < e->count; i++) {
			const char *x = extension_of(e->entry[i].name);
			uint32_t k = 0;

			while (k < columns && (column[k].unit != e->entry[i].unit || strcmp(column[k].extension, x)))
				k++;
			if (k == MAP_COLUMNS_MAX)
				return true;
			if (pass)
				m->map[MAP_SAMPLES].item[at[k]++ * columns + k] = e->entry[i].item;
			else if (k == columns)
				column[columns++] = (struct column){ e->entry[i].unit, 1, x };
			else
				column[k].count++;
		}
		for (uint32_t k = 1; k < columns; k++) {
			if (column[k].count != column[0].count)
				return true;
		}
		if (columns < 2)
			return true;
		if (!pass && !(map = map_begin(m, MAP_SAMPLES, e->count, columns)))
			return false;
	}
	m->map[MAP_SAMPLES].n = column[0].count;
	return true;
}

/* ---- manifests ---- */

struct waiting {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool is_done;
	int err;
};

static void came(struct cache_want *w, int err, uint64_t bytes)
{
	struct waiting *wait = w->arg;

	(void)bytes;
	pthread_mutex_lock(&wait->mutex);
	wait->err = err;
	wait->is_done = true;
	pthread_cond_signal(&wait->cond);
	pthread_mutex_unlock(&wait->mutex);
}

/* An extent into @buf, if the cache has it; it counts as no read. */
static int peek(struct maps *m, const struct ns_attr *attr, uint32_t extent, char *buf, size_t *ret_len)
{
	struct waiting wait = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0 };
	struct cache_want want = { .key = extent_key(attr->ino, extent), .place = -1, .is_for_memory = true, .done = came, .arg = &wait };
	struct cache_loan loan;
	int rc;

	cache_want(m->cache, &want);
	pthread_mutex_lock(&wait.mutex);
	while (!wait.is_done)
		pthread_cond_wait(&wait.cond, &wait.mutex);
	pthread_mutex_unlock(&wait.mutex);
	rc = wait.err ? wait.err : cache_lend(m->cache, attr, extent, &loan);
	if (rc)
		return rc;
	memcpy(buf, loan.buf, loan.len);
	*ret_len = loan.len;
	cache_lend_end(m->cache, &loan, false);
	return 0;
}

/* The whole text of a file that the job has read: then the cache has it. NULL else; owned by the caller. */
static char *text_of(struct maps *m, const struct ns_attr *attr)
{
	char *text = malloc(attr->version.size + 1);
	size_t at = 0, n;

	for (uint32_t e = 0; text && at < attr->version.size; e++, at += n) {
		if (peek(m, attr, e, text + at, &n) || !n) {
			free(text);
			return NULL;
		}
	}
	return text;
}

struct candidates {
	struct ns_attr attr[MANIFESTS_MAX];
	unsigned count;
	uint64_t limit;
};

static int add_candidate(void *arg, const char *name, const struct ns_attr *attr)
{
	static const char *const extension[] = { ".csv", ".tsv", ".txt", ".lst", ".list", ".json", ".jsonl" };
	struct candidates *c = arg;

	for (size_t i = 0; i < sizeof(extension) / sizeof(extension[0]) && c->count < MANIFESTS_MAX; i++) {
		if (S_ISREG(attr->mode) && attr->version.size && attr->version.size <= c->limit && !strcmp(extension_of(name), extension[i]))
			c->attr[c->count++] = *attr;
	}
	return 0;
}

/* Where a manifest's paths may begin. */
struct base {
	struct maps *m;
	uint64_t dir;
	const struct recognise_unit *unit;
	uint32_t unit_count;
};

static uint32_t item_of(const struct base *b, uint64_t ino)
{
	for (uint32_t u = 0; u < b->unit_count; u++) {
		if (ino >= b->unit[u].first && ino < b->unit[u].first + b->unit[u].count)
			return b->unit[u].base + (uint32_t)(ino - b->unit[u].first);
	}
	return UINT32_MAX;
}

static uint32_t resolve(void *arg, const char *path, size_t len)
{
	const struct base *b = arg;
	struct ns_attr attr = { .ino = b->dir };
	char copy[PATH_BYTES], *save = NULL;

	if (len >= sizeof(copy))
		return UINT32_MAX;
	memcpy(copy, path, len);
	copy[len] = 0;
	for (char *name = strtok_r(copy, "/", &save); name; name = strtok_r(NULL, "/", &save)) {
		if (!strcmp(name, ".."))
			return UINT32_MAX;
		if (strcmp(name, ".") && ns_lookup(b->m->ns, attr.ino, name, NS_NOCHECK | NS_NOWAIT, &attr))
			return UINT32_MAX;
	}
	return attr.ino == b->dir ? UINT32_MAX : item_of(b, attr.ino);
}

/* The first list that the job has read and that names the set's files, in the set's directory or above it. */
static void map_manifest(struct maps *m, const struct recognise_unit *unit, uint32_t count, uint32_t items, uint64_t limit)
{
	struct base base = { m, unit[0].dir, unit, count };
	struct index_map *map = &m->map[MAP_MANIFEST];

	for (unsigned above = 0; above <= ABOVE && !map->n; above++) {
		struct candidates c = { .limit = limit };
		struct ns_attr dir;

		ns_readdir(m->ns, base.dir, NS_ROOT, add_candidate, &c);
		for (unsigned i = 0; i < c.count && !map->n; i++) {
			char *text = text_of(m, &c.attr[i]);

			if (text)
				map->item = manifest_read(text, c.attr[i].version.size, items, resolve, &base, &map->n);
			if (!map->item)
				map->n = 0;
			map->columns = 1;
			free(text);
		}
		if (base.dir == NS_ROOT || ns_getattr(m->ns, base.dir, NS_NOCHECK | NS_NOWAIT, &dir))
			break;
		base.dir = dir.parent;
	}
	drop_if_double(m, MAP_MANIFEST);
}

/* ---- all ---- */

/* Records are counted as they lie in the file; a loader may leave out a last one, or what follows the last looks like one. */
static bool map_records(struct maps *m, const struct recognise_unit *unit)
{
	for (unsigned kind = MAP_IMAGES; kind <= MAP_NAMES; kind++) {
		struct index_map *map = map_begin(m, kind, unit->count, 1);

		if (!map)
			return false;
		map->n = kind == MAP_IMAGES ? unit->count - 1 : unit->count;
		for (uint32_t i = 0; i < unit->count; i++)
			map->item[i] = i;
	}
	return true;
}

static void clear(struct maps *m)
{
	for (unsigned k = 0; k < MAPS; k++)
		map_drop(m, k);
	m->set = m->signature = 0;
}

static bool map_files(struct maps *m, struct recognise_unit *unit, uint32_t count, uint64_t items)
{
	struct entries e = { 0 };
	bool fine = count && sort_units(m, unit, count, false) && list_all(m, unit, count, &e) && map_entries(m, &e) &&
		    map_listed(m, unit, count, items, &e) && map_paths(m, unit, count, &e) && map_samples(m, &e);

	entries_free(&e);
	return fine;
}

bool maps_make(struct maps *m, uint64_t set, struct recognise_unit *unit, uint32_t unit_count, bool thorough)
{
	uint64_t items = 0, signature = unit_count;
	bool is_new = false;

	for (uint32_t i = 0; i < unit_count; i++)
		items += unit[i].count;
	for (uint32_t i = 0; i < unit_count; i++) {
		if ((uint64_t)unit[i].base + unit[i].count > items)
			return false;
		signature = signature * 31 + unit[i].first + unit[i].count;
	}
	if (m->set != set || m->signature != signature) {
		clear(m);
		if (!(unit_count && !unit[0].dir ? map_records(m, unit) : map_files(m, unit, unit_count, items))) {
			clear(m);
			return false;
		}
		m->set = set;
		m->signature = signature;
		is_new = true;
	}
	if (m->cache && unit[0].dir && !m->map[MAP_MANIFEST].n && (is_new || (thorough && !m->was_thorough)))
		map_manifest(m, unit, unit_count, (uint32_t)items, thorough ? MANIFEST_LARGE : MANIFEST_SMALL);
	m->was_thorough = thorough || (m->was_thorough && !is_new);
	return true;
}

const struct index_map *maps_get(const struct maps *m, unsigned kind)
{
	return kind < MAPS && m->map[kind].n ? &m->map[kind] : NULL;
}

/* The first of @item that is @value, or @count. */
static uint32_t find(const uint32_t *item, uint32_t count, uint32_t value)
{
	uint32_t k = 0;

	while (k < count && item[k] != value)
		k++;
	return k;
}

void maps_indices(const struct index_map *map, const uint32_t *item, uint32_t count, uint32_t *ret_index, uint8_t *ret_column)
{
	size_t entries = (size_t)map->n * map->columns;
	uint64_t bits = 0;

	for (uint32_t k = 0; k < count; k++) {
		bits |= 1ULL << item[k] % 64;
		ret_index[k] = UINT32_MAX;
	}
	for (size_t i = 0; i < entries; i++) {
		uint32_t k = bits >> map->item[i] % 64 & 1 ? find(item, count, map->item[i]) : count;

		if (k < count) {
			ret_index[k] = (uint32_t)(i / map->columns);
			ret_column[k] = (uint8_t)(i % map->columns);
		}
	}
}

int maps_new(struct ns *ns, struct cache *cache, struct maps **ret_maps)
{
	struct maps *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->ns = ns;
	m->cache = cache;
	*ret_maps = m;
	return 0;
}

void maps_free(struct maps *m)
{
	if (!m)
		return;
	clear(m);
	free(m);
}

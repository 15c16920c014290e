/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which directory: everything else is volume.c's and its fellows'.
 *
 * The lock protects what must be remembered between calls about objects of several extents: which directory the last
 * ones were tied to (their records may not be in the index yet), and which one lends them.
 */
#include "cache/disk.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cache/volume.h"
#include "lib/list.h"
#include "lib/lock.h"
#include "lib/map64.h"
#include "lib/stats.h"
#include "lib/strbuf.h"

enum {
	RANK_DISK_DIRS = 48,
	TIES = 1024,                   /* objects whose directory is remembered: those written within a second or two */
};

struct dir {
	struct volume *volume;         /* owned */
	char *path;                    /* owned */
	uint64_t weight;
	int place, node;
	_Atomic uint64_t local, remote;   /* reads by who is at its place, and elsewhere */
};

struct tie {
	uint64_t ino;
	uint8_t dir;
};

/* An object that is lent. */
struct lent {
	unsigned dir, count;
};

struct disk {
	struct stats *stats;           /* not owned */
	struct dir dirs[DISK_DIRS_MAX];
	unsigned count;
	struct lock lock;
	/* protected by lock */
	struct tie tie[TIES];          /* by hash of ino */
	struct map64 lent;             /* ino -> struct lent */
};

/* ---- where to ---- */

static struct tie *tie_of(struct disk *d, uint64_t ino)
{
	return &d->tie[map64_mix(ino) % TIES];
}

/* The directory that has other extents of the object, or -1. */
static int tied_to(struct disk *d, uint64_t ino)
{
	struct tie *t = tie_of(d, ino);
	int dir = -1;

	lock_acquire(&d->lock);
	if (t->ino == ino)
		dir = t->dir;
	lock_release(&d->lock);
	for (unsigned i = 0; i < d->count && dir < 0; i++) {
		if (volume_has_some(d->dirs[i].volume, ino))
			dir = (int)i;
	}
	return dir >= 0 && volume_stores(d->dirs[dir].volume) ? dir : -1;
}

static void tie(struct disk *d, uint64_t ino, unsigned dir)
{
	lock_scope(&d->lock);
	*tie_of(d, ino) = (struct tie){ ino, (uint8_t)dir };
}

/* One of the first @n of @dir, by hash and weight. */
static unsigned pick(const struct disk *d, const uint8_t *dir, unsigned n, uint64_t hash)
{
	uint64_t sum = 0;
	unsigned i = 0;

	for (unsigned k = 0; k < n; k++)
		sum += d->dirs[dir[k]].weight;
	hash %= sum;
	while (hash >= d->dirs[dir[i]].weight)
		hash -= d->dirs[dir[i++]].weight;
	return i;
}

static void put_first(struct disk_choice *c, unsigned at)
{
	uint8_t dir = c->dir[at];

	memmove(c->dir + 1, c->dir, at);
	c->dir[0] = dir;
}

void disk_choose(struct disk *d, uint64_t key, uint64_t object_bytes, int place, struct disk_choice *ret)
{
	uint64_t ino = extent_key_ino(key);
	unsigned near = 0;
	int tied;

	*ret = (struct disk_choice){ .count = 0 };
	for (unsigned i = 0; i < d->count; i++) {
		volume_tend(d->dirs[i].volume);
		if (!volume_stores(d->dirs[i].volume))
			continue;
		ret->dir[ret->count++] = (uint8_t)i;
		if (place >= 0 && d->dirs[i].place == place) {
			put_first(ret, ret->count - 1);
			near++;
		}
	}
	if (ret->count < 2)
		return;
	put_first(ret, pick(d, ret->dir, near ? near : ret->count, map64_mix(ino)));
	tied = object_bytes > DISK_WHOLE_MIN ? tied_to(d, ino) : -1;
	for (unsigned i = 0; i < ret->count && tied >= 0; i++) {
		if (ret->dir[i] != tied)
			continue;
		put_first(ret, i);
		ret->is_tied = true;
	}
}

/* ---- one of them ---- */

unsigned disk_dirs(const struct disk *d)
{
	return d->count;
}

struct disk_room disk_reserve(struct disk *d, unsigned dir, size_t len)
{
	return (struct disk_room){ volume_reserve(d->dirs[dir].volume, len), dir };
}

void disk_unreserve(struct disk *d, struct disk_room room)
{
	if (room.bytes)
		volume_unreserve(d->dirs[room.dir].volume, room.bytes);
}

void disk_write(struct disk *d, struct disk_io *io)
{
	if (io->object_bytes > DISK_WHOLE_MIN && d->count > 1)
		tie(d, extent_key_ino(io->key), io->room.dir);
	volume_write(d->dirs[io->room.dir].volume, io);
}

uint64_t disk_drop(struct disk *d, unsigned dir, uint64_t key)
{
	return volume_drop(d->dirs[dir].volume, key);
}

bool disk_dir_holds(struct disk *d, unsigned dir, uint64_t key)
{
	return volume_holds(d->dirs[dir].volume, key);
}

uint64_t disk_excess(struct disk *d, unsigned dir)
{
	return volume_excess(d->dirs[dir].volume);
}

bool disk_is_over(struct disk *d, unsigned dir)
{
	return volume_is_over(d->dirs[dir].volume);
}

int disk_walk(struct disk *d, unsigned dir, uint64_t from,
	      int (*fn)(void *arg, uint64_t key, uint64_t version, uint32_t disk_bytes), void *arg)
{
	return volume_walk(d->dirs[dir].volume, from, fn, arg);
}

/* ---- any of them ---- */

bool disk_has(struct disk *d, uint64_t key, uint64_t version)
{
	for (unsigned i = 0; i < d->count; i++) {
		if (volume_has(d->dirs[i].volume, key, version))
			return true;
	}
	return false;
}

int disk_dir_of(struct disk *d, uint64_t key)
{
	for (unsigned i = 0; i < d->count; i++) {
		if (volume_holds(d->dirs[i].volume, key))
			return (int)i;
	}
	return -1;
}

/* The directory to read from: of those that have it one at the reader's place, else any. */
static struct dir *source_of(struct disk *d, const struct disk_io *io)
{
	struct dir *found = NULL;

	for (unsigned i = 0; i < d->count && d->count > 1; i++) {
		struct dir *dir = &d->dirs[i];

		if ((!found || dir->place == io->place) && volume_has(dir->volume, io->key, io->version))
			found = dir;
	}
	return found ? found : &d->dirs[0];
}

void disk_read(struct disk *d, struct disk_io *io)
{
	struct dir *dir = source_of(d, io);

	if (dir->place >= 0 && io->place >= 0)
		atomic_fetch_add_explicit(dir->place == io->place ? &dir->local : &dir->remote, 1, memory_order_relaxed);
	volume_read(dir->volume, io);
}

uint64_t disk_drop_all(struct disk *d, uint64_t key)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < d->count; i++)
		bytes += volume_drop(d->dirs[i].volume, key);
	return bytes;
}

void disk_prefer_whole(struct disk *d)
{
	for (unsigned i = 0; i < d->count; i++)
		volume_prefer_whole(d->dirs[i].volume);
}

uint64_t disk_room(struct disk *d)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < d->count; i++)
		sum += volume_room(d->dirs[i].volume);
	return sum;
}

uint64_t disk_room_most(struct disk *d)
{
	uint64_t most = 0;

	for (unsigned i = 0; i < d->count; i++) {
		uint64_t room = volume_room(d->dirs[i].volume);

		most = room > most ? room : most;
	}
	return most;
}

uint64_t disk_limit(struct disk *d)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < d->count; i++) {
		uint64_t limit = volume_limit(d->dirs[i].volume);

		sum = limit > UINT64_MAX - sum ? UINT64_MAX : sum + limit;
	}
	return sum;
}

/* ---- lending ---- */

/* The directory that lends the object already, or -1. */
static int lender_of(struct disk *d, uint64_t ino)
{
	const struct lent *l;

	lock_scope(&d->lock);
	l = map64_get(&d->lent, ino);
	return l ? (int)l->dir : -1;
}

/* Note that @dir lends it; -EAGAIN if another began to meanwhile. */
static int lent_note(struct disk *d, uint64_t ino, unsigned dir)
{
	struct lent *l;

	lock_scope(&d->lock);
	l = map64_get(&d->lent, ino);
	if (!l) {
		l = calloc(1, sizeof(*l));
		if (!l || map64_put(&d->lent, ino, l)) {
			free(l);
			return -ENOMEM;
		}
		l->dir = dir;
	}
	if (l->dir != dir)
		return -EAGAIN;
	l->count++;
	return 0;
}

int disk_whole_open(struct disk *d, uint64_t ino, uint64_t version, uint64_t size, bool may_block, int *ret_fd)
{
	int lender = lender_of(d, ino), rc = -ENOENT;

	for (unsigned i = 0; i < d->count && rc == -ENOENT; i++) {
		if (lender >= 0 && i != (unsigned)lender)
			continue;
		rc = volume_whole_open(d->dirs[i].volume, ino, version, size, may_block, ret_fd);
		if (rc)
			continue;
		rc = lent_note(d, ino, i);
		if (rc) {
			volume_whole_close(d->dirs[i].volume, ino);
			close(*ret_fd);
		}
	}
	return rc;
}

void disk_whole_close(struct disk *d, uint64_t ino)
{
	struct lent *l;
	unsigned dir;

	lock_acquire(&d->lock);
	l = map64_get(&d->lent, ino);
	if (!l) {
		lock_release(&d->lock);
		return;
	}
	dir = l->dir;
	if (!--l->count) {
		map64_remove(&d->lent, ino);
		free(l);
	}
	lock_release(&d->lock);
	volume_whole_close(d->dirs[dir].volume, ino);
}

/* ---- statistics ---- */

static void publish_dir(struct strbuf *b, const struct dir *dir, const struct volume_status *s)
{
	strbuf_add(b, "{\"path\": ");
	strbuf_add_json(b, dir->path);
	strbuf_addf(b, ", \"node\": %d, \"state\": \"%s\", \"bytes\": %llu, \"limit_bytes\": %llu, \"objects\": %llu, \"errors\": %llu, "
		    "\"local_reads\": %llu, \"remote_reads\": %llu}", dir->node, health_name(s->state),
		    (unsigned long long)s->bytes, (unsigned long long)s->limit_bytes, (unsigned long long)s->extents,
		    (unsigned long long)s->errors, (unsigned long long)atomic_load(&dir->local),
		    (unsigned long long)atomic_load(&dir->remote));
}

void disk_publish(struct disk *d)
{
	enum health_state best = HEALTH_DOWN, worst = HEALTH_OK;
	struct volume_status sum = { .bytes = 0 }, s;
	struct strbuf b = STRBUF_INIT;
	char *text;

	for (unsigned i = 0; i < d->count; i++) {
		volume_status(d->dirs[i].volume, &s);
		best = s.state < best ? s.state : best;
		worst = s.state > worst ? s.state : worst;
		sum.bytes += s.bytes;
		sum.limit_bytes += s.limit_bytes;
		sum.extents += s.extents;
		strbuf_add(&b, i ? ", " : "[");
		publish_dir(&b, &d->dirs[i], &s);
	}
	strbuf_add(&b, "]");
	stats_set(d->stats, STAT_DISK_BYTES, sum.bytes);
	stats_set(d->stats, STAT_DISK_LIMIT_BYTES, sum.limit_bytes);
	stats_set(d->stats, STAT_DISK_OBJECTS, sum.extents);
	stats_set_text(d->stats, STAT_DISK_STATE, health_name(best == worst || best == HEALTH_DOWN ? worst : HEALTH_SHAKY));
	text = strbuf_steal(&b);
	if (text)
		stats_set_text(d->stats, STAT_DISK_DIRS, text);
	free(text);
}

/* ---- start and end ---- */

static void disk_free(struct disk *d)
{
	struct lent *l;
	size_t pos = 0;

	for (unsigned i = 0; i < d->count; i++) {
		volume_close(d->dirs[i].volume);
		free(d->dirs[i].path);
	}
	while ((l = map64_next(&d->lent, &pos, NULL)))
		free(l);
	map64_clear(&d->lent);
	lock_destroy(&d->lock);
	free(d);
}

static int open_one(struct disk *d, const struct disk_config *cfg, unsigned i)
{
	const struct disk_dir *from = &cfg->dirs[i];
	struct volume_config volume = {
		.path = from->path, .dir_fd = from->fd, .store = from->store, .number = i,
		.limit_bytes = from->limit_bytes, .min_free_bytes = from->min_free_bytes,
		.codec = cfg->codec, .verify_all = cfg->verify_all, .was_clean = from->was_clean, .cpus = from->cpus,
		.lost = cfg->lost, .arg = cfg->arg,
	};
	struct dir *to = &d->dirs[i];

	to->weight = from->weight ? from->weight : 1;
	to->place = from->place;
	to->node = from->node;
	to->path = strdup(from->path);
	return to->path ? volume_open(&volume, d->stats, &to->volume) : -ENOMEM;
}

int disk_open(const struct disk_config *cfg, struct stats *stats, struct disk **ret_disk, char *msg, size_t msg_size)
{
	struct disk *d = cfg->dir_count > DISK_DIRS_MAX ? NULL : calloc(1, sizeof(*d));
	int rc = 0;

	if (!d)
		return -ENOMEM;
	d->stats = stats;
	lock_init(&d->lock, "disk dirs", RANK_DISK_DIRS);
	for (unsigned i = 0; i < cfg->dir_count && !rc; i++) {
		d->count++;
		rc = open_one(d, cfg, i);
		if (rc)
			snprintf(msg, msg_size, "cache %s: %s", cfg->dirs[i].path, strerror(-rc));
	}
	if (rc) {
		disk_free(d);
		return rc;
	}
	*ret_disk = d;
	return 0;
}

void disk_close(struct disk *d)
{
	if (d)
		disk_free(d);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/dirs.h"
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "cache/cache.h"
#include "cache/cachedir.h"
#include "cache/store.h"
#include "lib/cleanup.h"
#include "lib/log.h"
#include "lib/topology.h"

enum { SESSIONS_MAX = 4096 };           /* that home remembers; who was away for longer starts anew */

static const char *const namespace_tables[] = { "node", "dentry", "dir", "class", "link" };

struct session {
	uint8_t bytes[16];
};

struct one {
	struct cachedir dir;
	struct store *store;            /* its index; owned */
	struct store *names;            /* a namespace, if there is one: in the index, or moved here from another directory; owned */
	struct stat st;
	struct session session;         /* the last it was part of */
	bool has_session, was_clean, moved_here;
	struct session *sessions;       /* that its namespace knows, oldest first; owned */
	size_t session_count;
	uint64_t nodes, last_ino;       /* records of the namespace; the highest id that an extent is named by */
};

struct dirs {
	struct one one[DISK_DIRS_MAX];
	struct disk_dir disk[DISK_DIRS_MAX];
	unsigned count, home;
	uint64_t ids_from;
	struct store_spare spare[DISK_DIRS_MAX];      /* where the namespace can move: all but home, */
	unsigned spare_of[DISK_DIRS_MAX];             /* by number */
	unsigned spare_count;
};

/* ---- what is there ---- */

static int sessions_load(struct one *o)
{
	size_t len = 0;
	void *data;
	int rc = store_meta_get(o->store, "session", &o->session, sizeof(o->session), &len);

	o->has_session = !rc && len == sizeof(o->session);
	if (rc && rc != -ENOENT)
		return rc;
	rc = store_meta_dup(o->names, "sessions", &data, &len);
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	o->sessions = data;
	o->session_count = len / sizeof(*o->sessions);
	return 0;
}

/* Records of a table and its last key; none if there is no such table. */
static int table_end(struct store *s, const char *name, uint64_t *ret_count, uint64_t *ret_last)
{
	MDB_cursor *cursor;
	MDB_stat st;
	MDB_val k, v;
	MDB_txn *txn;
	MDB_dbi dbi;
	int rc;

	*ret_count = *ret_last = 0;
	rc = store_table(s, name, MDB_INTEGERKEY, &dbi);
	if (!rc)
		rc = store_read_begin(s, &txn);
	if (rc)
		return rc;
	rc = store_errno(mdb_stat(txn, dbi, &st));
	if (!rc)
		rc = store_errno(mdb_cursor_open(txn, dbi, &cursor));
	if (!rc) {
		*ret_count = st.ms_entries;
		if (!mdb_cursor_get(cursor, &k, &v, MDB_LAST) && k.mv_size == sizeof(*ret_last))
			memcpy(ret_last, k.mv_data, sizeof(*ret_last));
		mdb_cursor_close(cursor);
	}
	store_read_end(s, txn);
	return rc;
}

static int one_survey(struct one *o)
{
	uint64_t extents, last;
	int rc = sessions_load(o);

	if (!rc)
		rc = table_end(o->names, "node", &o->nodes, &last);
	if (!rc)
		rc = table_end(o->store, "extent", &extents, &last);
	if (!rc)
		o->last_ino = extents ? extent_key_ino(last) : 0;
	return rc;
}

/* ---- who belongs to whom ---- */

static bool knows(const struct one *home, const struct one *o)
{
	for (size_t i = home->session_count; o->has_session && i-- > 0;) {
		if (!memcmp(&home->sessions[i], &o->session, sizeof(o->session)))
			return true;
	}
	return false;
}

/* One that was never part of a session has a namespace of its own, or nothing. */
static bool belongs(const struct one *home, const struct one *o)
{
	return o->has_session ? knows(home, o) : o == home || !o->last_ino;
}

/* The namespace that most of the directories belong to; of equals, the first. */
static unsigned choose_home(const struct dirs *d)
{
	unsigned best = 0, most = 0;

	for (unsigned i = 0; i < d->count; i++) {
		unsigned votes = d->one[i].nodes ? 1 : 0;

		for (unsigned k = 0; votes && k < d->count; k++)
			votes += k != i && knows(&d->one[i], &d->one[k]);
		if (votes > most) {
			most = votes;
			best = i;
		}
	}
	return best;
}

/* What it holds under ids that mean nothing, or something else, here. */
static int drop_extents(struct one *o, const char *path)
{
	int rc = 0;

	if (o->last_ino) {
		log_warn("cache %s: what it holds is not of this cache's namespace, or not known to be: dropped", path);
		rc = store_empty(o->store, "extent");
	}
	o->last_ino = 0;
	return rc ? rc : store_meta_drop(o->store, "session");
}

/* A namespace that is not this mount's. */
static int drop_namespace(struct one *o)
{
	int rc = 0;

	if (o->moved_here) {
		store_close(o->names);
		o->names = NULL;
		store_remove(o->dir.fd, STORE_MOVED);
	}
	for (size_t i = 0; !rc && i < sizeof(namespace_tables) / sizeof(*namespace_tables); i++)
		rc = store_empty(o->store, namespace_tables[i]);
	return rc ? rc : store_meta_drop(o->store, "sessions");
}

/* The namespace learns the session before any directory is part of it. */
static int session_begin(struct store *names, const struct session *known, size_t count, struct session *ret)
{
	size_t keep = count < SESSIONS_MAX ? count : SESSIONS_MAX - 1;
	_cleanup_free_ struct session *list = calloc(keep + 1, sizeof(*list));
	int rc;

	if (!list)
		return -ENOMEM;
	if (keep)
		memcpy(list, known + count - keep, keep * sizeof(*list));
	if (getrandom(&list[keep], sizeof(*list), 0) != sizeof(*list))
		return -EIO;
	rc = store_meta_put(names, "sessions", list, (keep + 1) * sizeof(*list));
	*ret = list[keep];
	return rc ? rc : store_sync(names);
}

static int session_join(struct one *o, const struct session *session)
{
	return store_meta_put(o->store, "session", session, sizeof(*session));
}

/* Into a session of the mount's; what an unclean end of the last one left unsynced is synced, too. */
static int join_all(struct dirs *d)
{
	struct one *home = &d->one[d->home];
	struct session session;
	int rc = session_begin(home->names, home->sessions, home->session_count, &session);

	for (unsigned i = 0; i < d->count && !rc; i++)
		rc = session_join(&d->one[i], &session);
	return rc;
}

/*
 * The namespace is about to be in @fresh. Home, whose index is closed to writers meanwhile, stays with a session that both
 * copies know; should its own go on by itself, that draws one that this does not know.
 */
static int moving(void *arg, struct store *fresh, unsigned at)
{
	struct dirs *d = arg;
	struct session session;
	size_t len = 0;
	void *known;
	int rc = store_meta_dup(fresh, "sessions", &known, &len);

	if (rc)
		return rc;
	rc = session_begin(fresh, known, len / sizeof(session), &session);
	free(known);
	if (!rc)
		rc = session_join(&d->one[d->spare_of[at]], &session);
	for (unsigned i = 0; i < d->count && !rc; i++) {
		if (i != d->home && i != d->spare_of[at] && session_join(&d->one[i], &session))
			log_warn("cache %s: not told of the namespace's move", d->disk[i].path);
	}
	return rc;
}

static int settle(struct dirs *d, const struct cache_config *cfg)
{
	struct one *home;
	int rc = 0;

	d->home = choose_home(d);
	home = &d->one[d->home];
	for (unsigned i = 0; i < d->count && !rc; i++) {
		struct one *o = &d->one[i];

		if (!belongs(home, o))
			rc = drop_extents(o, cfg->dirs[i]);
		if (!rc && o != home && o->nodes)
			rc = drop_namespace(o);
		if (o->last_ino >= d->ids_from)
			d->ids_from = o->last_ino + 1;
	}
	if (!rc && store_is_torn(home->names) && home->session_count)
		rc = store_meta_put(home->names, "sessions", home->sessions, --home->session_count * sizeof(*home->sessions));
	/* a single directory that was never with others needs no sessions */
	return rc || (d->count == 1 && !home->session_count) ? rc : join_all(d);
}

static void set_spares(struct dirs *d)
{
	for (unsigned i = 0; i < d->count; i++) {
		if (i == d->home)
			continue;
		d->spare[d->spare_count] = (struct store_spare){ d->one[i].dir.fd, d->disk[i].path };
		d->spare_of[d->spare_count++] = i;
	}
	if (d->spare_count)
		store_set_spares(d->one[d->home].names, d->spare, d->spare_count, moving, d);
}

/* ---- shares ---- */

/* Directories on the same file system share it. */
static unsigned sharers(const struct dirs *d, unsigned at)
{
	unsigned n = 0;

	for (unsigned i = 0; i < d->count; i++)
		n += d->one[i].st.st_dev == d->one[at].st.st_dev;
	return n;
}

static void share_out(struct dirs *d, const struct cache_config *cfg)
{
	uint64_t whole[DISK_DIRS_MAX] = { 0 }, sum = 0;

	for (unsigned i = 0; i < d->count; i++) {
		struct statvfs fs;

		if (!fstatvfs(d->one[i].dir.fd, &fs))
			whole[i] = (uint64_t)fs.f_blocks * fs.f_frsize;
		d->disk[i].weight = whole[i] / sharers(d, i) / 4096 + 1;
		sum += d->disk[i].weight;
	}
	for (unsigned i = 0; i < d->count; i++) {
		struct disk_dir *to = &d->disk[i];

		to->limit_bytes = (uint64_t)((__uint128_t)cfg->size_bytes * to->weight / sum);
		if (cfg->size_percent)
			to->limit_bytes = whole[i] / 100 * cfg->size_percent / sharers(d, i);
		to->min_free_bytes = cfg->min_free_percent ? whole[i] / 100 * cfg->min_free_percent : cfg->min_free_bytes;
	}
}

static void describe(struct dirs *d, const struct cache_config *cfg)
{
	for (unsigned i = 0; i < d->count; i++) {
		struct disk_dir *to = &d->disk[i];
		struct one *o = &d->one[i];

		*to = (struct disk_dir){ .path = cfg->dirs[i], .fd = o->dir.fd, .store = o->store, .was_clean = o->was_clean,
					 .place = -1, .node = -1 };
		if (!cfg->topology)
			continue;
		to->place = topology_of_device(cfg->topology, o->st.st_dev);
		if (to->place < 0)
			continue;
		to->node = cfg->topology->place[to->place].node;
		to->cpus = topology_pin(cfg->topology, to->place);
		if (cfg->topology->count > 1)
			log_info("cache %s: on NUMA node %d", to->path, to->node);
	}
	share_out(d, cfg);
}

/* ---- start and end ---- */

/* Alone it is as good as what it was copied from; beside others it may be there twice, with other bytes under the same ids. */
static int copy_check(struct one *o, const struct cache_config *cfg, const char *path, char *msg, size_t msg_size)
{
	if (cfg->dir_count == 1)
		return cachedir_adopt(&o->dir, cfg->identity);
	snprintf(msg, msg_size, "cache %s: a copy of a cache directory, which cannot be one of several; remove it, or give another", path);
	return -EEXIST;
}

static int one_open(struct dirs *d, unsigned at, const struct cache_config *cfg, char *msg, size_t msg_size)
{
	struct one *o = &d->one[at];
	const char *path = cfg->dirs[at];
	bool was_clean, is_copy;
	int rc = cachedir_open(path, cfg->identity, &o->dir, msg, msg_size);

	if (rc == -EBUSY && !stat(path, &o->st)) {
		for (unsigned i = 0; i < at; i++) {
			if (d->one[i].st.st_dev == o->st.st_dev && d->one[i].st.st_ino == o->st.st_ino)
				snprintf(msg, msg_size, "cache %s: given twice, also as %s", path, cfg->dirs[i]);
		}
	}
	is_copy = !rc && o->dir.is_copy;
	if (is_copy)
		rc = copy_check(o, cfg, path, msg, msg_size);
	if (!rc && fstat(o->dir.fd, &o->st))
		rc = -errno;
	if (!rc)
		rc = store_open(o->dir.fd, path, "index", &o->store, &o->was_clean, msg, msg_size);
	o->was_clean &= !is_copy;
	o->moved_here = !rc && !faccessat(o->dir.fd, STORE_MOVED, F_OK, AT_SYMLINK_NOFOLLOW);
	if (!rc)
		rc = o->moved_here ? store_open(o->dir.fd, path, STORE_MOVED, &o->names, &was_clean, msg, msg_size) :
				     store_share(o->store, &o->names);
	if (!rc)
		rc = one_survey(o);
	if (rc && !*msg)
		snprintf(msg, msg_size, "cache %s: %s", path, strerror(-rc));
	return rc;
}

int dirs_open(const struct cache_config *cfg, struct dirs **ret_dirs, char *msg, size_t msg_size)
{
	struct dirs *d = cfg->dir_count > DISK_DIRS_MAX ? NULL : calloc(1, sizeof(*d));
	int rc = 0;

	if (!d)
		return -ENOMEM;
	d->ids_from = 1;
	for (unsigned i = 0; i < cfg->dir_count && !rc; i++) {
		d->one[d->count++].dir = (struct cachedir){ -1, -1, false };
		rc = one_open(d, i, cfg, msg, msg_size);
	}
	if (!rc)
		rc = settle(d, cfg);
	if (rc) {
		dirs_close(d);
		return rc;
	}
	describe(d, cfg);
	set_spares(d);
	*ret_dirs = d;
	return 0;
}

/* Should home not be there next time, another directory has the namespace. The next mount with home drops it first of all. */
static void leave_copy(struct dirs *d)
{
	struct store *names = d->one[d->home].names;
	bool is_left = store_moves(names) > 0;

	for (unsigned i = 0; i < d->spare_count && !is_left; i++)
		is_left = !store_copy(names, &d->spare[i]);
}

void dirs_close(struct dirs *d)
{
	if (!d)
		return;
	if (d->spare_count)
		leave_copy(d);
	for (unsigned i = 0; i < d->count; i++) {
		store_close(d->one[i].names);
		store_close(d->one[i].store);
		cachedir_close(&d->one[i].dir);
		free(d->one[i].sessions);
	}
	free(d);
}

struct store *dirs_home(struct dirs *d)
{
	return d->one[d->home].names;
}

void dirs_lost(struct dirs *d, unsigned at)
{
	struct store *names = d->one[d->home].names;

	if (at == d->home)
		store_move(names, 0, -ENODEV);   /* unless it moved before */
}

uint64_t dirs_ids_from(const struct dirs *d)
{
	return d->ids_from;
}

unsigned dirs_list(const struct dirs *d, const struct disk_dir **ret_dirs)
{
	*ret_dirs = d->disk;
	return d->count;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Four tables:
 *   node     id -> struct ns_node, ids ascending and therefore densely packed
 *   dentry   (parent, hash of name) -> id; a collision moves to hash + 1
 *   dir      id -> struct ns_dir and its ranges
 *   class    number -> struct ns_class and ACL
 *   link     id -> target of a symbolic link, once read
 *
 * A listing is merged in one write transaction (merge_listing). Locks: one,
 * for what is in memory (who is being listed, single files checked since
 * their directory was, attribute classes); never held across the origin or a commit.
 */
#include "cache/namespace.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <xxhash.h>
#include "cache/ns_record.h"
#include "cache/origin/health.h"
#include "cache/store.h"
#include "lib/acl.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/list.h"
#include "lib/lock.h"
#include "lib/log.h"
#include "lib/map64.h"
#include "lib/stats.h"

enum {
	RANK_NS = 20,
	PATH_BYTES = 4096,
	DEPTH_MAX = 512,
	CHECKED_MAX = 1 << 16,      /* single files remembered as checked */
	ACLS_MAX = 1 << 16,         /* different ones: they are kept in memory */
};

/* As it is in memory. */
struct class {
	struct ns_class base;
	const struct ns_acl *acl;   /* one for all that are equal, or NULL */
};

struct ns {
	struct store *store;
	struct origin *origin;
	struct stats *stats;
	uint64_t generation;         /* immutable once open */
	struct ns_config cfg;
	MDB_dbi node, dentry, dir, class, link;

	struct lock lock;
	pthread_cond_t listed;
	/* protected by lock */
	struct list listing;         /* of struct in_listing */
	struct map64 checked;        /* id -> wall clock ns when checked, 1 when distrusted */
	struct class *classes;
	uint32_t class_count, class_max, class_saved;
	struct map64 acls;           /* hash of its bytes -> struct ns_acl, owned; a collision moves to hash + 1 */
	uint64_t inodes;
};

/* A directory somebody is listing now. */
struct in_listing {
	struct list link;
	uint64_t dir;
};

static int64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static uint64_t name_hash(const char *name, size_t len)
{
	return XXH3_64bits(name, len);
}

static bool is_name_valid(const char *name)
{
	size_t n = strlen(name);

	return n && n <= NS_NAME_MAX && strcmp(name, ".") && strcmp(name, "..") && !strchr(name, '/');
}

/* ---- attribute classes ---- */

static struct ns_acl *acl_new(const void *bytes, uint32_t len)
{
	struct ns_acl *acl = malloc(sizeof(*acl) + len);

	if (!acl)
		return NULL;
	acl->len = len;
	memcpy(acl->bytes, bytes, len);
	return acl;
}

/* The one of these bytes; NULL if there is no room for another. Called with the lock held. */
static const struct ns_acl *acl_intern(struct ns *ns, const void *bytes, uint32_t len)
{
	uint64_t hash = XXH3_64bits(bytes, len);
	struct ns_acl *acl;

	for (; (acl = map64_get(&ns->acls, hash)); hash++) {
		if (acl->len == len && !memcmp(acl->bytes, bytes, len))
			return acl;
	}
	acl = ns->acls.count < ACLS_MAX ? acl_new(bytes, len) : NULL;
	if (acl && map64_put(&ns->acls, hash, acl)) {
		free(acl);
		return NULL;
	}
	return acl;
}

/* Called with the lock held. */
static uint32_t class_append(struct ns *ns, const struct class *c)
{
	if (ns->class_count == ns->class_max) {
		uint32_t max = ns->class_max ? ns->class_max * 2 : 64;
		struct class *bigger = realloc(ns->classes, max * sizeof(*c));

		if (!bigger)
			return 0;   /* class 0: nobody's, no permissions */
		ns->classes = bigger;
		ns->class_max = max;
	}
	ns->classes[ns->class_count] = *c;
	return ns->class_count++;
}

/* Called with the lock held. */
static void class_set_acl(struct ns *ns, struct class *c, const void *bytes, uint32_t len)
{
	c->acl = len ? acl_intern(ns, bytes, len) : NULL;
	if (len && !c->acl)
		c->base.mode = acl_owner_mode(c->base.mode);
}

static uint32_t class_intern(struct ns *ns, const struct origin_attr *a)
{
	struct class c = { { a->mode, a->uid, a->gid, a->nlink, a->rdev }, NULL };

	lock_scope(&ns->lock);
	class_set_acl(ns, &c, a->acl, a->acl_len);
	for (uint32_t i = ns->class_count; i-- > 0;) {
		if (!memcmp(&ns->classes[i], &c, sizeof(c)))
			return i;
	}
	return class_append(ns, &c);
}

static struct class class_get(struct ns *ns, uint32_t id)
{
	lock_scope(&ns->lock);
	return ns->classes[id < ns->class_count ? id : 0];
}

static int class_put(struct ns *ns, MDB_txn *txn, uint32_t number, const struct class *c)
{
	char buf[sizeof(c->base) + ORIGIN_ACL_MAX];
	MDB_val k = { sizeof(number), &number }, v = { sizeof(c->base), buf };

	memcpy(buf, &c->base, sizeof(c->base));
	if (c->acl) {
		memcpy(buf + sizeof(c->base), c->acl->bytes, c->acl->len);
		v.mv_size += c->acl->len;
	}
	return store_errno(mdb_put(txn, ns->class, &k, &v, 0));
}

/* Put the classes that are not on disk yet into @txn; returns how many there are then. */
static int class_save(struct ns *ns, MDB_txn *txn, uint32_t *ret_saved)
{
	for (;;) {
		struct class c;
		bool is_last;
		int rc;

		lock_acquire(&ns->lock);
		is_last = *ret_saved >= ns->class_count;
		if (!is_last)
			c = ns->classes[*ret_saved];
		lock_release(&ns->lock);
		if (is_last)
			return 0;
		rc = class_put(ns, txn, *ret_saved, &c);
		if (rc)
			return rc;
		++*ret_saved;
	}
}

/* A record that makes no sense keeps its number, and gives no permissions. */
static void class_add(struct ns *ns, const MDB_val *v)
{
	struct class c = { { .mode = S_IFREG, .nlink = 1 }, NULL };

	lock_scope(&ns->lock);
	if (v->mv_size >= sizeof(c.base) && v->mv_size <= sizeof(c.base) + ORIGIN_ACL_MAX) {
		memcpy(&c.base, v->mv_data, sizeof(c.base));
		class_set_acl(ns, &c, (char *)v->mv_data + sizeof(c.base), (uint32_t)(v->mv_size - sizeof(c.base)));
	}
	class_append(ns, &c);
}

static int class_load(struct ns *ns)
{
	struct origin_attr nobody = { .mode = S_IFREG, .nlink = 1 };
	MDB_cursor *cursor;
	MDB_val k, v;
	MDB_txn *txn;
	int rc = store_read_begin(ns->store, &txn);

	if (rc)
		return rc;
	rc = store_errno(mdb_cursor_open(txn, ns->class, &cursor));
	while (!rc && !mdb_cursor_get(cursor, &k, &v, MDB_NEXT))
		class_add(ns, &v);
	if (!rc)
		mdb_cursor_close(cursor);
	store_read_end(ns->store, txn);
	ns->class_saved = ns->class_count;
	if (!ns->class_count)
		class_intern(ns, &nobody);
	return rc;
}

/* ---- records ---- */

static int node_get(struct ns *ns, MDB_txn *txn, uint64_t ino, struct ns_node *ret_node)
{
	MDB_val k = { sizeof(ino), &ino }, v;
	int rc = store_errno(mdb_get(txn, ns->node, &k, &v));

	return rc ? rc : ns_node_decode(ino, v.mv_data, v.mv_size, ret_node);
}

static int node_put(struct ns *ns, MDB_txn *txn, const struct ns_node *n, unsigned flags)
{
	uint8_t buf[NS_NODE_MAX];
	uint64_t ino = n->ino;
	MDB_val k = { sizeof(ino), &ino }, v = { ns_node_encode(n, buf), buf };

	return store_errno(mdb_put(txn, ns->node, &k, &v, flags));
}

/* Find the dentry of a name; *ret_hash is where it is, or where it would go. */
static int dentry_find(struct ns *ns, MDB_txn *txn, uint64_t parent, const char *name, size_t len,
		       struct ns_node *ret_node, uint64_t *ret_hash)
{
	uint64_t hash = name_hash(name, len), ino;
	uint8_t key[16];

	for (;; hash++) {
		MDB_val k = { sizeof(key), key }, v;
		int rc;

		ns_dentry_key(parent, hash, key);
		*ret_hash = hash;
		rc = store_errno(mdb_get(txn, ns->dentry, &k, &v));
		if (rc)
			return rc;
		if (v.mv_size != sizeof(ino))
			return -EUCLEAN;
		memcpy(&ino, v.mv_data, sizeof(ino));
		rc = node_get(ns, txn, ino, ret_node);
		if (rc)
			return rc == -ENOENT ? -EUCLEAN : rc;
		if (ret_node->name_len == len && !memcmp(ret_node->name, name, len) && !ret_node->is_superseded)
			return 0;
		/* another name with this hash, or one that is gone: a chain is never cut */
		if (ret_node->is_superseded && ret_node->name_len == len && !memcmp(ret_node->name, name, len))
			return -ENOENT;
	}
}

static int dentry_put(struct ns *ns, MDB_txn *txn, uint64_t parent, uint64_t hash, uint64_t ino)
{
	uint8_t key[16];
	MDB_val k = { sizeof(key), key }, v = { sizeof(ino), &ino };

	ns_dentry_key(parent, hash, key);
	return store_errno(mdb_put(txn, ns->dentry, &k, &v, 0));
}

/* The same for a key that is probably the last of the table: appended, pages stay full instead of half full. */
static int dentry_append(struct ns *ns, MDB_txn *txn, uint64_t parent, uint64_t hash, uint64_t ino)
{
	uint8_t key[16];
	MDB_val k = { sizeof(key), key }, v = { sizeof(ino), &ino };
	int rc;

	ns_dentry_key(parent, hash, key);
	rc = mdb_put(txn, ns->dentry, &k, &v, MDB_APPEND);
	return rc == MDB_KEYEXIST ? dentry_put(ns, txn, parent, hash, ino) : store_errno(rc);
}

/* The directory's record; *ret_spans (may be NULL) is owned by the caller. -ENOENT: never listed. */
static int dir_get(struct ns *ns, MDB_txn *txn, uint64_t dir, struct ns_dir *ret_dir, struct ns_span **ret_spans)
{
	MDB_val k = { sizeof(dir), &dir }, v;
	int rc = store_errno(mdb_get(txn, ns->dir, &k, &v));
	size_t bytes;

	if (rc)
		return rc;
	if (v.mv_size < sizeof(*ret_dir))
		return -EUCLEAN;
	memcpy(ret_dir, v.mv_data, sizeof(*ret_dir));
	bytes = v.mv_size - sizeof(*ret_dir);
	if (bytes != ret_dir->range_count * sizeof(struct ns_span))
		return -EUCLEAN;
	if (!ret_spans)
		return 0;
	*ret_spans = malloc(bytes + sizeof(struct ns_span));
	if (!*ret_spans)
		return -ENOMEM;
	memcpy(*ret_spans, (char *)v.mv_data + sizeof(*ret_dir), bytes);
	return 0;
}

static int dir_put(struct ns *ns, MDB_txn *txn, uint64_t dir, const struct ns_dir *d, const struct ns_span *spans)
{
	size_t bytes = sizeof(*d) + d->range_count * sizeof(*spans);
	_cleanup_free_ char *buf = malloc(bytes);
	MDB_val k = { sizeof(dir), &dir }, v = { bytes, buf };

	if (!buf)
		return -ENOMEM;
	memcpy(buf, d, sizeof(*d));
	memcpy(buf + sizeof(*d), spans, d->range_count * sizeof(*spans));
	return store_errno(mdb_put(txn, ns->dir, &k, &v, 0));
}

/* Add [first, first+count) to the ranges; @spans has room for one more. */
static void spans_add(struct ns_dir *d, struct ns_span *spans, uint64_t first, uint64_t count)
{
	if (d->range_count && spans[d->range_count - 1].first + spans[d->range_count - 1].count == first)
		spans[d->range_count - 1].count += count;
	else
		spans[d->range_count++] = (struct ns_span){ first, count };
}

static int next_ino(struct ns *ns, MDB_txn *txn, uint64_t *ret_ino)
{
	MDB_cursor *cursor;
	MDB_val k, v;
	int rc = store_errno(mdb_cursor_open(txn, ns->node, &cursor));

	if (rc)
		return rc;
	rc = store_errno(mdb_cursor_get(cursor, &k, &v, MDB_LAST));
	if (!rc)
		memcpy(ret_ino, k.mv_data, sizeof(*ret_ino));
	mdb_cursor_close(cursor);
	if (rc)
		return rc;
	++*ret_ino;
	if (*ret_ino < ns->cfg.ids_from)
		*ret_ino = ns->cfg.ids_from;
	return 0;
}

/* ---- freshness ---- */

/* Time left until something checked at @then_ns must be checked again; 0 if now. */
static uint64_t time_left(struct ns *ns, int64_t then_ns, int64_t now_ns)
{
	if (then_ns > now_ns || (uint64_t)(now_ns - then_ns) >= ns->cfg.meta_ttl_ns)
		return 0;   /* a clock that jumped back proves nothing */
	return ns->cfg.meta_ttl_ns - (uint64_t)(now_ns - then_ns);
}

static int64_t checked_get(struct ns *ns, uint64_t ino)
{
	lock_scope(&ns->lock);
	return (int64_t)(intptr_t)map64_get(&ns->checked, ino);
}

static void checked_put(struct ns *ns, uint64_t ino, int64_t when_ns)
{
	lock_scope(&ns->lock);
	if (ns->checked.count >= CHECKED_MAX)
		map64_clear(&ns->checked);
	map64_put(&ns->checked, ino, (void *)(intptr_t)when_ns);
}

void ns_distrust(struct ns *ns, uint64_t ino)
{
	checked_put(ns, ino, 1);
}

static uint64_t fresh_left(struct ns *ns, const struct ns_node *n, int64_t listed_ns)
{
	int64_t checked = checked_get(ns, n->ino);

	if (checked == 1)
		return 0;
	if (!ns->cfg.check_data_on_open && !S_ISDIR(class_get(ns, n->class_id).base.mode))
		return ns->cfg.meta_ttl_ns ? ns->cfg.meta_ttl_ns : NSEC_PER_SEC;
	if (checked > listed_ns)
		listed_ns = checked;
	return time_left(ns, listed_ns, wall_ns());
}

/* What is known would have to be checked: is there nobody to ask? Then it is shown as it is. */
static bool is_unchecked(struct ns *ns)
{
	if (health_state(ns->origin->health, clock_ns()) != HEALTH_DOWN)
		return false;
	stats_inc(ns->stats, STAT_NAMESPACE_UNCHECKED);
	return true;
}

static void attr_fill(struct ns *ns, const struct ns_node *n, uint64_t fresh_ns, struct ns_attr *ret)
{
	struct class c = class_get(ns, n->class_id);

	*ret = (struct ns_attr){
		.ino = n->ino, .st_ino = n->st_ino, .parent = n->parent,
		.mode = c.base.mode, .uid = c.base.uid, .gid = c.base.gid, .nlink = c.base.nlink, .rdev = c.base.rdev,
		.acl = c.acl, .version = n->version, .fresh_ns = fresh_ns,
	};
}

/* Attributes of a record, with the freshness its directory's listing gives it. */
static void attr_of(struct ns *ns, MDB_txn *txn, const struct ns_node *n, struct ns_attr *ret)
{
	struct ns_dir d = { 0 };

	if (n->ino == NS_ROOT || dir_get(ns, txn, n->parent, &d, NULL))
		d.attrs_ns = 0;
	attr_fill(ns, n, fresh_left(ns, n, d.attrs_ns), ret);
}

/* ---- paths ---- */

static int path_of(struct ns *ns, MDB_txn *txn, uint64_t ino, char *buf, size_t size)
{
	size_t at = size;
	struct ns_node n;

	if (!size)
		return -ENAMETOOLONG;
	buf[--at] = 0;
	for (unsigned depth = 0; ino != NS_ROOT; depth++) {
		int rc = node_get(ns, txn, ino, &n);

		if (rc)
			return rc;
		if (depth == DEPTH_MAX || n.name_len + 1 > at)
			return -ENAMETOOLONG;
		if (depth)
			buf[--at] = '/';
		at -= n.name_len;
		memcpy(buf + at, n.name, n.name_len);
		ino = n.parent;
	}
	memmove(buf, buf + at, size - at);
	return 0;
}

int ns_path(struct ns *ns, uint64_t ino, char *buf, size_t size)
{
	MDB_txn *txn;
	int rc = store_read_begin(ns->store, &txn);

	if (rc)
		return rc;
	rc = path_of(ns, txn, ino, buf, size);
	store_read_end(ns->store, txn);
	return rc;
}

/* ---- merging what the origin says ---- */

struct merge {
	struct ns *ns;
	MDB_txn *txn;
	uint64_t dir;
	uint64_t next;              /* id to give next */
	uint64_t first_new;         /* ids given in this merge start here */
	struct map64 seen;          /* ids that are still there; only kept when relisting */
	bool keeps_seen;
	bool is_partial;            /* of some names all that is known is that they are there */
	/* a first listing's dentries, put in order of their hashes at its end; owned */
	struct new_dentry *fresh;
	size_t fresh_count;
};

struct new_dentry {
	uint64_t hash, ino;
};

static int supersede(struct ns *ns, MDB_txn *txn, struct ns_node *n)
{
	char name[NS_NAME_MAX];

	/* the record moves when it is written: keep the name */
	memcpy(name, n->name, n->name_len);
	n->name = name;
	n->is_superseded = true;
	return node_put(ns, txn, n, 0);
}

/* What an origin without ACLs says of them is no news. */
static bool is_same_acl(const struct ns *ns, const struct ns_acl *acl, const struct origin_attr *a)
{
	return !ns->origin->has_acls || (acl ? acl->len == a->acl_len && !memcmp(acl->bytes, a->acl, acl->len) : !a->acl_len);
}

static bool is_same_file(struct ns *ns, const struct ns_node *n, const struct origin_attr *a)
{
	struct class c = class_get(ns, n->class_id);

	return c.base.mode == a->mode && c.base.uid == a->uid && c.base.gid == a->gid && c.base.nlink == a->nlink &&
	       c.base.rdev == a->rdev && version_equal(&n->version, &a->version) && is_same_acl(ns, c.acl, a);
}

/* Give a name its (next) id. @old is the record it had, or NULL. */
static int add_node(struct merge *m, const char *name, const struct origin_attr *a,
		    const struct ns_node *old, uint64_t hash)
{
	struct ns_node n = {
		.ino = m->next, .st_ino = old ? old->st_ino : m->next, .parent = m->dir,
		.class_id = class_intern(m->ns, a), .version = a->version,
		.name = name, .name_len = strlen(name),
	};
	int rc = node_put(m->ns, m->txn, &n, MDB_APPEND);

	if (!rc && m->fresh)
		m->fresh[m->fresh_count++] = (struct new_dentry){ hash, n.ino };
	else if (!rc)
		rc = dentry_put(m->ns, m->txn, m->dir, hash, n.ino);
	if (!rc)
		m->next++;
	return rc;
}

static int by_hash(const void *a, const void *b)
{
	uint64_t x = ((const struct new_dentry *)a)->hash, y = ((const struct new_dentry *)b)->hash;

	return x < y ? -1 : x > y;
}

static int fresh_flush(struct merge *m)
{
	uint64_t last = 0;
	int rc = 0;

	qsort(m->fresh, m->fresh_count, sizeof(*m->fresh), by_hash);
	for (size_t i = 0; i < m->fresh_count && !rc; i++) {
		struct new_dentry *f = &m->fresh[i];
		struct ns_node n, other;
		char name[NS_NAME_MAX];

		if (i && f->hash <= last) {
			/* a collision within this listing: its place is further down the chain */
			rc = node_get(m->ns, m->txn, f->ino, &n);
			if (rc)
				return rc;
			memcpy(name, n.name, n.name_len);
			rc = dentry_find(m->ns, m->txn, m->dir, name, n.name_len, &other, &f->hash);
			if (rc != -ENOENT)
				return rc ? rc : -EUCLEAN;
		}
		rc = dentry_append(m->ns, m->txn, m->dir, f->hash, f->ino);
		last = f->hash > last ? f->hash : last;
	}
	return rc;
}

static int merge_entry(struct merge *m, const char *name, const struct origin_attr *a)
{
	struct ns_node old;
	uint64_t hash;
	int rc = dentry_find(m->ns, m->txn, m->dir, name, strlen(name), &old, &hash);

	if (rc == -ENOENT)
		return add_node(m, name, a, NULL, hash);
	if (rc)
		return rc;
	if (is_same_file(m->ns, &old, a))
		return m->keeps_seen ? map64_put(&m->seen, old.ino, m) : 0;
	stats_inc(m->ns->stats, STAT_NAMESPACE_CHANGED);
	if (S_ISDIR(a->mode) && S_ISDIR(class_get(m->ns, old.class_id).base.mode)) {
		old.class_id = class_intern(m->ns, a);
		old.version = a->version;
		old.name = name;
		rc = node_put(m->ns, m->txn, &old, 0);
		return rc || !m->keeps_seen ? rc : map64_put(&m->seen, old.ino, m);
	}
	rc = supersede(m->ns, m->txn, &old);
	return rc ? rc : add_node(m, name, a, &old, hash);
}

/* Supersede every child that was not seen. The dentry stays: it marks its place in a chain. */
static int drop_unseen(struct merge *m, const struct ns_dir *d, const struct ns_span *spans)
{
	for (uint64_t i = 0; i < d->range_count; i++) {
		for (uint64_t ino = spans[i].first; ino < spans[i].first + spans[i].count; ino++) {
			struct ns_node n;
			int rc = node_get(m->ns, m->txn, ino, &n);

			if (rc)
				return rc;
			if (n.is_superseded || ino >= m->first_new || map64_get(&m->seen, ino))
				continue;
			stats_inc(m->ns->stats, STAT_NAMESPACE_CHANGED);
			rc = supersede(m->ns, m->txn, &n);
			if (rc)
				return rc;
		}
	}
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct origin_entry *)a)->name, ((const struct origin_entry *)b)->name);
}

/* Its attributes could not be had: who is known stays as he is, and others are asked for again. */
static int keep_entry(struct merge *m, const char *name)
{
	struct ns_node old;
	uint64_t hash;
	int rc = dentry_find(m->ns, m->txn, m->dir, name, strlen(name), &old, &hash);

	m->is_partial = true;
	if (rc)
		return rc == -ENOENT ? 0 : rc;
	return m->keeps_seen ? map64_put(&m->seen, old.ino, m) : 0;
}

static int merge_entries(struct merge *m, struct origin_listing *l)
{
	for (size_t i = 0; i < l->count; i++) {
		const struct origin_entry *e = &l->entry[i];
		int rc;

		if (!is_name_valid(e->name)) {
			log_warn("origin: an entry of node %llu has a name that is not valid; left out",
				 (unsigned long long)m->dir);
			continue;
		}
		if (e->err == -ENOENT || (i && !strcmp(e->name, e[-1].name)))
			continue;   /* it went away while it was listed, or was listed twice */
		rc = e->err ? keep_entry(m, e->name) : merge_entry(m, e->name, &e->attr);
		if (rc)
			return rc;
	}
	return 0;
}

/* Everything a merge changes, in the write transaction @txn. */
static int merge_in_txn(struct ns *ns, MDB_txn *txn, uint64_t dir, const struct version *dir_version,
			struct origin_listing *l, int64_t when_ns, uint64_t *ret_added)
{
	_cleanup_free_ struct ns_span *spans = NULL;
	struct merge m = { .ns = ns, .txn = txn, .dir = dir, .seen = MAP64_INIT };
	struct ns_dir d = { 0 };
	int rc = dir_get(ns, txn, dir, &d, &spans);

	if (rc == -ENOENT) {
		spans = malloc(sizeof(*spans));
		m.fresh = malloc((l->count + 1) * sizeof(*m.fresh));
		rc = spans && m.fresh ? 0 : -ENOMEM;
	} else {
		m.keeps_seen = true;
	}
	if (!rc)
		rc = next_ino(ns, txn, &m.next);
	m.first_new = m.next;
	if (!rc)
		rc = merge_entries(&m, l);
	if (!rc && m.fresh)
		rc = fresh_flush(&m);
	if (!rc && m.keeps_seen)
		rc = drop_unseen(&m, &d, spans);
	free(m.fresh);
	map64_clear(&m.seen);
	if (rc)
		return rc;
	if (m.next > m.first_new)
		spans_add(&d, spans, m.first_new, m.next - m.first_new);
	d.attrs_ns = when_ns;
	d.names_ns = m.is_partial ? 0 : when_ns;
	d.version = *dir_version;
	*ret_added = m.next - m.first_new;
	return dir_put(ns, txn, dir, &d, spans);
}

/* Run @fn's changes and the classes they need in one transaction. */
static int commit(struct ns *ns, MDB_txn *txn, int rc, uint64_t added)
{
	uint32_t saved;

	lock_acquire(&ns->lock);
	saved = ns->class_saved;
	lock_release(&ns->lock);
	if (!rc)
		rc = class_save(ns, txn, &saved);
	if (rc) {
		store_write_abort(ns->store, txn);
		return rc;
	}
	rc = store_write_commit(ns->store, txn);
	if (rc)
		return rc;
	lock_acquire(&ns->lock);
	if (saved > ns->class_saved)
		ns->class_saved = saved;
	ns->inodes += added;
	lock_release(&ns->lock);
	return 0;
}

static int merge_listing(struct ns *ns, uint64_t dir, const struct version *dir_version,
			 struct origin_listing *l, int64_t when_ns)
{
	unsigned moves;
	MDB_txn *txn;
	int rc;

	qsort(l->entry, l->count, sizeof(l->entry[0]), by_name);
	do {
		uint64_t added = 0;

		moves = store_moves(ns->store);
		rc = store_write_begin(ns->store, &txn);
		if (!rc) {
			rc = merge_in_txn(ns, txn, dir, dir_version, l, when_ns, &added);
			rc = commit(ns, txn, rc, added);
		}
	} while (rc && !store_move(ns->store, moves, rc));
	return rc;
}

static int merge_one_once(struct ns *ns, uint64_t dir, const char *name, const struct origin_attr *a)
{
	_cleanup_free_ struct ns_span *spans = NULL;
	struct merge m = { .ns = ns, .dir = dir, .seen = MAP64_INIT };
	struct ns_dir d = { 0 };
	struct ns_node old;
	uint64_t hash;
	int rc = store_write_begin(ns->store, &m.txn);

	if (rc)
		return rc;
	rc = next_ino(ns, m.txn, &m.next);
	m.first_new = m.next;
	if (!rc && a) {
		rc = merge_entry(&m, name, a);
	} else if (!rc) {
		rc = dentry_find(ns, m.txn, dir, name, strlen(name), &old, &hash);
		rc = rc == -ENOENT ? 0 : rc ? rc : supersede(ns, m.txn, &old);
	}
	if (!rc && m.next > m.first_new) {
		rc = dir_get(ns, m.txn, dir, &d, &spans);
		if (!rc) {
			spans_add(&d, spans, m.first_new, m.next - m.first_new);
			rc = dir_put(ns, m.txn, dir, &d, spans);
		}
	}
	return commit(ns, m.txn, rc, m.next - m.first_new);
}

/* One name was asked for: @a is what the origin has there now, NULL if nothing. */
static int merge_one(struct ns *ns, uint64_t dir, const char *name, const struct origin_attr *a)
{
	unsigned moves;
	int rc;

	do {
		moves = store_moves(ns->store);
		rc = merge_one_once(ns, dir, name, a);
	} while (rc && !store_move(ns->store, moves, rc));
	return rc;
}

/* ---- asking the origin ---- */

static bool listing_begin(struct ns *ns, struct in_listing *in, uint64_t dir)
{
	lock_scope(&ns->lock);
	list_for_each(n, &ns->listing) {
		if (container_of(n, struct in_listing, link)->dir == dir) {
			lock_wait(&ns->lock, &ns->listed);
			return false;   /* somebody listed it meanwhile: look again */
		}
	}
	in->dir = dir;
	list_push_back(&ns->listing, &in->link);
	return true;
}

static void listing_end(struct ns *ns, struct in_listing *in)
{
	lock_scope(&ns->lock);
	list_remove(&in->link);
	pthread_cond_broadcast(&ns->listed);
}

static int list_from_origin(struct ns *ns, uint64_t dir)
{
	char path[PATH_BYTES];
	struct origin_listing l = { 0 };
	struct origin_attr attr;
	int64_t when_ns = wall_ns();
	int rc = ns_path(ns, dir, path, sizeof(path));

	if (rc)
		return rc;
	stats_inc(ns->stats, STAT_NAMESPACE_MISSES);
	/* its own times first: a change while it is listed then shows at the next look */
	rc = origin_stat(ns->origin, path, &attr);
	if (rc)
		return rc;
	origin_attr_clear(&attr);
	rc = origin_list(ns->origin, path, &l);
	if (rc)
		return rc;
	rc = merge_listing(ns, dir, &attr.version, &l, when_ns);
	origin_listing_free(&l);
	return rc;
}

/* The directory's record as it is, and for how long its names are complete (0: not). -ENOENT: never listed. */
static int dir_state(struct ns *ns, uint64_t dir, struct ns_dir *ret_dir, uint64_t *ret_left)
{
	MDB_txn *txn;
	int rc = store_read_begin(ns->store, &txn);

	if (rc)
		return rc;
	rc = dir_get(ns, txn, dir, ret_dir, NULL);
	store_read_end(ns->store, txn);
	*ret_left = rc ? 0 : time_left(ns, ret_dir->names_ns, wall_ns());
	return rc;
}

/*
 * List @dir unless its listing is younger than meta_ttl. With meta_ttl=0 every
 * call lists: that is what was asked for.
 */
int ns_list(struct ns *ns, uint64_t dir, unsigned flags)
{
	struct in_listing in;
	struct ns_dir d;
	uint64_t left;
	int rc, known;

	for (;;) {
		known = dir_state(ns, dir, &d, &left);
		if (known && known != -ENOENT)
			return known;
		if (!known && (left || flags & NS_NOCHECK || is_unchecked(ns)))
			return 0;
		if (flags & NS_NOWAIT)
			return -EAGAIN;
		if (listing_begin(ns, &in, dir))
			break;
		if (!known || !dir_state(ns, dir, &d, &left))
			return 0;   /* fresh a moment ago is fresh enough */
	}
	rc = list_from_origin(ns, dir);
	listing_end(ns, &in);
	if (rc && !known && rc != -ENOENT && rc != -ENOTDIR) {
		log_warn("origin: listing node %llu failed: %s; what is known is shown",
			 (unsigned long long)dir, strerror(-rc));
		return 0;
	}
	return rc;
}

/* Ask the origin about one name. 0 whatever it says, if it says something. */
static int revalidate(struct ns *ns, uint64_t parent, uint64_t ino, const char *name)
{
	char path[PATH_BYTES];
	struct origin_attr attr;
	int64_t when_ns = wall_ns();
	int rc = ns_path(ns, parent, path, sizeof(path) - NS_NAME_MAX - 1);
	size_t n;

	if (rc)
		return rc;
	n = strlen(path);
	snprintf(path + n, sizeof(path) - n, "%s%s", n ? "/" : "", name);
	stats_inc(ns->stats, STAT_NAMESPACE_MISSES);
	rc = origin_stat(ns->origin, path, &attr);
	if (rc == -ENOENT || rc == -ENOTDIR)
		return merge_one(ns, parent, name, NULL);
	if (rc)
		return rc;
	rc = merge_one(ns, parent, name, &attr);
	origin_attr_clear(&attr);
	if (!rc && ino)
		checked_put(ns, ino, when_ns);
	return rc;
}

/* One look at what is known of a name. */
static int look(struct ns *ns, uint64_t parent, const char *name, struct ns_attr *ret_attr)
{
	struct ns_node n;
	uint64_t hash;
	MDB_txn *txn;
	int rc = store_read_begin(ns->store, &txn);

	if (rc)
		return rc;
	rc = dentry_find(ns, txn, parent, name, strlen(name), &n, &hash);
	if (!rc)
		attr_of(ns, txn, &n, ret_attr);
	store_read_end(ns->store, txn);
	return rc;
}

static int lookup_revalidated(struct ns *ns, uint64_t parent, uint64_t ino, const char *name,
			      struct ns_attr *ret_attr)
{
	int rc = revalidate(ns, parent, ino, name);

	if (rc)
		log_warn("origin: checking %s failed: %s", name, strerror(-rc));
	if (rc && !ino)
		return rc;
	rc = look(ns, parent, name, ret_attr);
	if (!rc && !ret_attr->fresh_ns && ns->cfg.meta_ttl_ns && ret_attr->ino != ino) {
		/* a new id is as fresh as the answer it comes from */
		checked_put(ns, ret_attr->ino, wall_ns());
		ret_attr->fresh_ns = ns->cfg.meta_ttl_ns;
	}
	return rc;
}

int ns_lookup(struct ns *ns, uint64_t parent, const char *name, unsigned flags, struct ns_attr *ret_attr)
{
	uint64_t left = 0;
	struct ns_dir d;
	int rc, known;

	if (strlen(name) > NS_NAME_MAX)
		return -ENAMETOOLONG;
	known = dir_state(ns, parent, &d, &left);
	if (known == -ENOENT) {
		rc = ns_list(ns, parent, flags);
		if (rc)
			return rc;
		known = dir_state(ns, parent, &d, &left);
		if (!known && !left && !ns->cfg.meta_ttl_ns)
			left = 1;   /* just listed: it is not asked twice */
	}
	if (known)
		return known;
	rc = look(ns, parent, name, ret_attr);
	if (rc && rc != -ENOENT)
		return rc;
	if (!rc && (ret_attr->fresh_ns || flags & NS_NOCHECK)) {
		stats_inc(ns->stats, STAT_NAMESPACE_HITS);
		return 0;
	}
	if (rc == -ENOENT && (left || flags & NS_NOCHECK)) {
		stats_inc(ns->stats, STAT_NAMESPACE_NEGATIVE_HITS);
		return rc;
	}
	if (is_unchecked(ns))
		return rc;
	if (flags & NS_NOWAIT)
		return -EAGAIN;
	return lookup_revalidated(ns, parent, rc ? 0 : ret_attr->ino, name, ret_attr);
}

/* Attributes of an id, its name, and whether it was superseded. */
static int look_ino(struct ns *ns, uint64_t ino, struct ns_attr *ret_attr, char *ret_name, bool *ret_superseded)
{
	struct ns_node n;
	MDB_txn *txn;
	int rc = store_read_begin(ns->store, &txn);

	if (rc)
		return rc;
	rc = node_get(ns, txn, ino, &n);
	if (!rc) {
		attr_of(ns, txn, &n, ret_attr);
		memcpy(ret_name, n.name, n.name_len);
		ret_name[n.name_len] = 0;
		*ret_superseded = n.is_superseded;
	}
	store_read_end(ns->store, txn);
	return rc;
}

static int refresh_root(struct ns *ns)
{
	struct ns_node n = { .ino = NS_ROOT, .st_ino = NS_ROOT, .parent = NS_ROOT, .name = "" };
	struct origin_attr attr;
	int64_t when_ns = wall_ns();
	MDB_txn *txn;
	int rc = origin_stat(ns->origin, "", &attr);

	if (rc)
		return rc;
	n.version = attr.version;
	n.class_id = class_intern(ns, &attr);
	origin_attr_clear(&attr);
	if (!S_ISDIR(attr.mode))
		return -ENOTDIR;
	rc = store_write_begin(ns->store, &txn);
	if (rc)
		return rc;
	rc = commit(ns, txn, node_put(ns, txn, &n, 0), 0);
	if (!rc)
		checked_put(ns, NS_ROOT, when_ns);
	return rc;
}

/* Check the id against the origin if it is not fresh. *ret_superseded says what came of it. */
static int check_ino(struct ns *ns, uint64_t ino, unsigned flags, struct ns_attr *ret_attr, bool *ret_superseded)
{
	char name[NS_NAME_MAX + 1];
	int rc = look_ino(ns, ino, ret_attr, name, ret_superseded);

	if (rc)
		return rc == -ENOENT ? -ESTALE : rc;
	if (*ret_superseded || ret_attr->fresh_ns || flags & NS_NOCHECK) {
		stats_inc(ns->stats, STAT_NAMESPACE_HITS);
		return 0;
	}
	if (is_unchecked(ns))
		return 0;
	if (flags & NS_NOWAIT)
		return -EAGAIN;
	rc = ino == NS_ROOT ? refresh_root(ns) : revalidate(ns, ret_attr->parent, ino, name);
	if (rc) {
		log_warn("origin: checking %s failed: %s; what is known is shown", name, strerror(-rc));
		return 0;
	}
	return look_ino(ns, ino, ret_attr, name, ret_superseded);
}

int ns_getattr(struct ns *ns, uint64_t ino, unsigned flags, struct ns_attr *ret_attr)
{
	bool is_superseded;
	int rc = check_ino(ns, ino, flags, ret_attr, &is_superseded);

	if (!rc && is_superseded)
		ret_attr->fresh_ns = 0;
	return rc;
}

int ns_check(struct ns *ns, uint64_t ino, unsigned flags, struct ns_attr *ret_attr)
{
	bool is_superseded;
	int rc = check_ino(ns, ino, flags, ret_attr, &is_superseded);

	return rc ? rc : is_superseded ? -ESTALE : 0;
}

/* ---- reading directories, links, ranges ---- */

static int emit_span(struct ns *ns, MDB_cursor *cursor, const struct ns_span *span, uint64_t after,
		     int64_t listed_ns, int (*emit)(void *, const char *, const struct ns_attr *), void *arg)
{
	uint64_t ino = span->first > after ? span->first : after + 1;
	MDB_val k = { sizeof(ino), &ino }, v;
	MDB_cursor_op op = MDB_SET_RANGE;

	while (!mdb_cursor_get(cursor, &k, &v, op)) {
		char name[NS_NAME_MAX + 1];
		struct ns_attr attr;
		struct ns_node n;
		int rc;

		op = MDB_NEXT;
		memcpy(&ino, k.mv_data, sizeof(ino));
		if (ino >= span->first + span->count)
			break;
		rc = ns_node_decode(ino, v.mv_data, v.mv_size, &n);
		if (rc)
			return rc;
		if (n.is_superseded)
			continue;
		memcpy(name, n.name, n.name_len);
		name[n.name_len] = 0;
		attr_fill(ns, &n, fresh_left(ns, &n, listed_ns), &attr);
		rc = emit(arg, name, &attr);
		if (rc)
			return rc;
	}
	return 0;
}

int ns_readdir(struct ns *ns, uint64_t dir, uint64_t after,
	       int (*emit)(void *arg, const char *name, const struct ns_attr *attr), void *arg)
{
	_cleanup_free_ struct ns_span *spans = NULL;
	MDB_cursor *cursor;
	struct ns_dir d;
	MDB_txn *txn;
	int rc = store_read_begin(ns->store, &txn);

	if (rc)
		return rc;
	rc = dir_get(ns, txn, dir, &d, &spans);
	if (!rc)
		rc = store_errno(mdb_cursor_open(txn, ns->node, &cursor));
	if (!rc) {
		for (uint64_t i = 0; i < d.range_count && !rc; i++) {
			if (spans[i].first + spans[i].count > after + 1)
				rc = emit_span(ns, cursor, &spans[i], after, d.attrs_ns, emit, arg);
		}
		mdb_cursor_close(cursor);
	}
	store_read_end(ns->store, txn);
	return rc;
}

static int link_get(struct ns *ns, uint64_t ino, char *buf, size_t size)
{
	MDB_val k = { sizeof(ino), &ino }, v;
	MDB_txn *txn;
	int rc = store_read_begin(ns->store, &txn);

	if (rc)
		return rc;
	rc = store_errno(mdb_get(txn, ns->link, &k, &v));
	if (!rc && v.mv_size >= size)
		rc = -ENAMETOOLONG;
	if (!rc) {
		memcpy(buf, v.mv_data, v.mv_size);
		buf[v.mv_size] = 0;
	}
	store_read_end(ns->store, txn);
	return rc;
}

int ns_readlink(struct ns *ns, uint64_t ino, unsigned flags, char *buf, size_t size)
{
	char path[PATH_BYTES];
	MDB_val k = { sizeof(ino), &ino }, v;
	MDB_txn *txn;
	int rc = link_get(ns, ino, buf, size);

	if (rc != -ENOENT)
		return rc;
	if (flags & NS_NOWAIT)
		return -EAGAIN;
	rc = ns_path(ns, ino, path, sizeof(path));
	if (!rc)
		rc = origin_readlink(ns->origin, path, buf, size);
	if (rc)
		return rc;
	/* an id is one version, so its target never changes; failing to keep it costs only a request */
	if (!store_write_begin(ns->store, &txn)) {
		v = (MDB_val){ strlen(buf), buf };
		if (mdb_put(txn, ns->link, &k, &v, 0))
			store_write_abort(ns->store, txn);
		else
			store_write_commit(ns->store, txn);
	}
	return 0;
}

long ns_ranges(struct ns *ns, uint64_t dir, struct ns_range *ret_range, size_t max)
{
	_cleanup_free_ struct ns_span *spans = NULL;
	struct ns_dir d;
	MDB_txn *txn;
	int rc = store_read_begin(ns->store, &txn);

	if (rc)
		return rc;
	rc = dir_get(ns, txn, dir, &d, &spans);
	store_read_end(ns->store, txn);
	if (rc)
		return rc;
	for (uint64_t i = 0; i < d.range_count && i < max; i++)
		ret_range[i] = (struct ns_range){ spans[i].first, spans[i].count };
	return (long)d.range_count;
}

bool ns_has_acls(struct ns *ns)
{
	lock_scope(&ns->lock);
	return ns->acls.count;
}

uint64_t ns_inodes(struct ns *ns)
{
	lock_scope(&ns->lock);
	return ns->inodes;
}

/* ---- life ---- */

static int open_tables(struct ns *ns)
{
	int rc = store_table(ns->store, "node", MDB_INTEGERKEY, &ns->node);

	if (!rc)
		rc = store_table(ns->store, "dentry", 0, &ns->dentry);
	if (!rc)
		rc = store_table(ns->store, "dir", MDB_INTEGERKEY, &ns->dir);
	if (!rc)
		rc = store_table(ns->store, "class", MDB_INTEGERKEY, &ns->class);
	if (!rc)
		rc = store_table(ns->store, "link", MDB_INTEGERKEY, &ns->link);
	return rc;
}

static int count_inodes(struct ns *ns)
{
	MDB_stat st;
	MDB_txn *txn;
	int rc = store_read_begin(ns->store, &txn);

	if (rc)
		return rc;
	rc = store_errno(mdb_stat(txn, ns->node, &st));
	store_read_end(ns->store, txn);
	if (!rc)
		ns->inodes = st.ms_entries;
	return rc;
}

static int open_generation(struct ns *ns)
{
	size_t len;
	int rc = store_meta_get(ns->store, "generation", &ns->generation, sizeof(ns->generation), &len);

	if (!rc && len == sizeof(ns->generation))
		return 0;
	if (rc && rc != -ENOENT)
		return rc;
	if (getrandom(&ns->generation, sizeof(ns->generation), 0) != sizeof(ns->generation))
		return -EIO;
	return store_meta_put(ns->store, "generation", &ns->generation, sizeof(ns->generation));
}

uint64_t ns_generation(const struct ns *ns)
{
	return ns->generation;
}

/* What was listed without ACLs is looked at again. In one transaction, as half of it would be forgotten. */
static int distrust_listings(struct ns *ns, MDB_txn *txn)
{
	MDB_cursor *cursor = NULL;
	MDB_val k, v;
	int rc = store_errno(mdb_cursor_open(txn, ns->dir, &cursor));

	while (!rc && !mdb_cursor_get(cursor, &k, &v, MDB_NEXT)) {
		char *record = malloc(v.mv_size);
		struct ns_dir d;

		if (!record)
			rc = -ENOMEM;
		if (record && v.mv_size >= sizeof(d)) {
			memcpy(record, v.mv_data, v.mv_size);
			memcpy(&d, record, sizeof(d));
			d.attrs_ns = d.names_ns = 0;
			memcpy(record, &d, sizeof(d));
			v.mv_data = record;
			rc = store_errno(mdb_cursor_put(cursor, &k, &v, MDB_CURRENT));
		}
		free(record);
	}
	if (cursor)
		mdb_cursor_close(cursor);
	return rc;
}

/* Do all classes say what ACL there is? A mount that cannot tell, or of before, says nothing. */
static int open_acls(struct ns *ns)
{
	static const char note[] = "acls";
	uint8_t knows = 1;
	MDB_txn *txn;
	size_t len;
	int rc = store_meta_get(ns->store, note, &knows, sizeof(knows), &len);

	if (!ns->origin->has_acls)
		return rc ? rc == -ENOENT ? 0 : rc : store_meta_drop(ns->store, note);
	if (rc != -ENOENT)
		return rc;
	rc = store_write_begin(ns->store, &txn);
	if (rc)
		return rc;
	rc = distrust_listings(ns, txn);
	if (rc)
		store_write_abort(ns->store, txn);
	else
		rc = store_write_commit(ns->store, txn);
	return rc ? rc : store_meta_put(ns->store, note, &knows, sizeof(knows));
}

/* The root as it is now; if nobody can be asked, as it was. */
static int open_root(struct ns *ns)
{
	char name[NS_NAME_MAX + 1];
	bool is_superseded;
	struct ns_attr attr;
	int rc = refresh_root(ns);

	if (!rc || rc == -ENOTDIR || look_ino(ns, NS_ROOT, &attr, name, &is_superseded))
		return rc;
	log_warn("origin: not reachable: %s; what is cached is shown", strerror(-rc));
	return 0;
}

int ns_open(struct store *store, struct origin *origin, const struct ns_config *cfg,
	    struct stats *stats, struct ns **ret_ns)
{
	struct ns *ns = calloc(1, sizeof(*ns));
	int rc;

	if (!ns)
		return -ENOMEM;
	ns->store = store;
	ns->origin = origin;
	ns->stats = stats;
	ns->cfg = *cfg;
	lock_init(&ns->lock, "namespace", RANK_NS);
	lock_cond_init(&ns->listed);
	list_init(&ns->listing);
	rc = open_tables(ns);
	if (!rc)
		rc = open_generation(ns);
	if (!rc)
		rc = class_load(ns);
	if (!rc)
		rc = open_acls(ns);
	if (!rc)
		rc = open_root(ns);
	if (!rc)
		rc = count_inodes(ns);
	if (rc)
		ns_close(ns);
	else
		*ret_ns = ns;
	return rc;
}

void ns_close(struct ns *ns)
{
	struct ns_acl *acl;
	size_t pos = 0;

	if (!ns)
		return;
	while ((acl = map64_next(&ns->acls, &pos, NULL)))
		free(acl);
	map64_clear(&ns->acls);
	map64_clear(&ns->checked);
	free(ns->classes);
	pthread_cond_destroy(&ns->listed);
	lock_destroy(&ns->lock);
	free(ns);
}

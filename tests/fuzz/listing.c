/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An origin that says anything: listings with any names (twice, empty, with slashes, "..", of any bytes), attributes,
 * errors and link targets, changing between one question and the next; and records of an index that was written by
 * somebody else. Whatever it is, the namespace answers, shows valid names only, each once, and never blocks.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cache/namespace.h"
#include "cache/ns_record.h"
#include "cache/store.h"
#include "lib/log.h"
#include "lib/stats.h"
#include "tests/fuzz/fuzz.h"

enum { ENTRIES = 24, IDS = 64 };

struct liar {
	struct origin origin;
	struct input *in;
};

static void lie_attr(struct input *in, struct origin_attr *a)
{
	static const uint32_t mode[] = { S_IFREG | 0644, S_IFDIR | 0755, S_IFLNK | 0777, S_IFIFO | 0600, S_IFCHR | 0666, 0, S_IFREG | 06777, UINT32_MAX };

	*a = (struct origin_attr){ .mode = mode[take_u8(in) % 8], .uid = take_u8(in), .nlink = take_u8(in) };
	a->version = (struct version){ .size = take_number(in), .mtime_ns = (int64_t)take_number(in), .ctime_ns = (int64_t)take_number(in) };
	if (take_u8(in) < 200)
		return;
	a->acl_len = 1 + take_u8(in) * 16u;
	a->acl = calloc(1, a->acl_len);
	MUST(a->acl && a->acl_len <= ORIGIN_ACL_MAX);
}

static int lie_stat(struct origin *o, const char *path, struct origin_attr *ret_attr)
{
	struct input *in = ((struct liar *)o)->in;
	uint8_t how = take_u8(in);

	MUST(*path != '/' && strlen(path) < 4096);
	lie_attr(in, ret_attr);
	if (!*path)
		ret_attr->mode = S_IFDIR | 0755;
	if (how < 240)
		return 0;
	origin_attr_clear(ret_attr);
	return how >= 250 ? -EIO : -ENOENT;
}

/* The last argument of an origin's own checks, as cache/origin/posix.c would pass them: names are copied, NUL ends them. */
static int lie_list(struct origin *o, const char *path, struct origin_listing *ret)
{
	struct input *in = ((struct liar *)o)->in;
	size_t count = take_u8(in) % ENTRIES, size = 0;

	(void)path;
	*ret = (struct origin_listing){ .entry = calloc(count + 1, sizeof(*ret->entry)), .names = calloc(ENTRIES, 600) };
	MUST(ret->entry && ret->names);
	for (size_t i = 0; i < count; i++) {
		char *name = take_string(in, 300);

		ret->entry[i].name = strcpy(ret->names + size, name);
		size += strlen(name) + 1;
		lie_attr(in, &ret->entry[i].attr);
		ret->entry[i].err = take_u8(in) >= 250 ? -EACCES : 0;
		free(name);
	}
	ret->count = count;
	ret->names_size = size;
	if (take_u8(in) < 250)
		return 0;
	origin_listing_free(ret);
	return -EIO;
}

static int lie_readlink(struct origin *o, const char *path, char *buf, size_t size)
{
	char *target = take_string(((struct liar *)o)->in, 300);
	int rc = strlen(target) < size ? 0 : -ENAMETOOLONG;

	(void)path;
	if (!rc)
		strcpy(buf, target);
	free(target);
	return rc;
}

static const struct origin_ops liar_ops = { .kind = "liar", .list = lie_list, .stat = lie_stat, .readlink = lie_readlink };

struct seen {
	uint64_t ino[4096];
	char name[64][NS_NAME_MAX + 1];
	size_t count;
	bool is_sound;       /* the index was written by us */
};

static int saw(void *arg, const char *name, const struct ns_attr *attr)
{
	struct seen *s = arg;

	if (s->count == 64)
		return 1;
	MUST(strlen(name) <= NS_NAME_MAX);
	MUST(strcmp(name, ".") && strcmp(name, "..") && !strchr(name, '/'));
	if (s->is_sound) {
		MUST(*name);
		for (size_t i = 0; i < s->count; i++)
			MUST(strcmp(s->name[i], name));
		MUST(!s->count || s->ino[s->count - 1] < attr->ino);
	}
	strcpy(s->name[s->count], name);
	s->ino[s->count++] = attr->ino;
	return 0;
}

/* Every question about an id. */
static void ask(struct ns *ns, uint64_t ino, bool is_sound)
{
	struct seen *s = calloc(1, sizeof(*s));
	struct ns_range range[8];
	struct ns_attr attr;
	char buf[4097];

	MUST(s);
	s->is_sound = is_sound;
	ns_getattr(ns, ino, 0, &attr);
	ns_check(ns, ino, NS_NOWAIT, &attr);
	ns_path(ns, ino, buf, sizeof(buf));
	ns_readlink(ns, ino, 0, buf, sizeof(buf));
	ns_list(ns, ino, 0);
	ns_readdir(ns, ino, 0, saw, s);
	ns_ranges(ns, ino, range, 8);
	for (size_t i = 0; i < s->count && i < 8; i++) {
		int rc = ns_lookup(ns, ino, s->name[i], NS_NOCHECK, &attr);

		/* what is shown is found */
		if (is_sound)
			MUST(!rc && attr.ino == s->ino[i]);
	}
	free(s);
}

static void put(struct store *store, const char *table, unsigned flags, const void *key, size_t key_len, const void *data, size_t len)
{
	MDB_val k = { key_len, (void *)(uintptr_t)key }, v = { len, (void *)(uintptr_t)data };
	MDB_dbi dbi;
	MDB_txn *txn;

	MUST(!store_table(store, table, flags, &dbi) && !store_write_begin(store, &txn));
	mdb_put(txn, dbi, &k, &v, 0);
	MUST(!store_write_commit(store, txn));
}

/* An index that somebody else wrote. */
static void forge(struct store *store, struct input *in)
{
	static const struct { const char *name; unsigned flags, key; } table[] = {
		{ "node", MDB_INTEGERKEY, 8 }, { "dentry", 0, 16 }, { "dir", MDB_INTEGERKEY, 8 }, { "class", MDB_INTEGERKEY, 4 },
		{ "link", MDB_INTEGERKEY, 8 },
	};

	for (unsigned n = take_u8(in) % 16; n; n--) {
		unsigned t = take_u8(in) % 5;
		uint64_t key[2] = { take_u8(in) % 16, take_number(in) };
		size_t len;
		uint8_t *data = take_bytes(in, 200, &len);

		put(store, table[t].name, table[t].flags, key, table[t].key, data, len);
		free(data);
	}
}

static void empty(struct store *store)
{
	static const char *const table[] = { "node", "dentry", "dir", "class", "link" };

	for (unsigned i = 0; i < 5; i++) {
		MDB_dbi dbi;
		MDB_txn *txn;

		MUST(!store_table(store, table[i], i == 1 ? 0 : MDB_INTEGERKEY, &dbi) && !store_write_begin(store, &txn));
		MUST(!mdb_drop(txn, dbi, 0) && !store_write_commit(store, txn));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct store *store;
	static struct stats *stats;
	struct input in = input_of(data, size);
	struct liar liar = { .origin = { .ops = &liar_ops, .has_acls = true }, .in = &in };
	struct ns_config cfg = { .meta_ttl_ns = take_u8(&in) & 1 ? 0 : 3600000000000ULL, .check_data_on_open = true };
	bool is_forged = take_u8(&in) & 1, was_clean;
	struct ns *ns;

	if (!store) {
		char msg[256] = "";
		int fd;

		log_set_level(LOG_LEVEL_ERROR);
		mkdir(fuzz_path("c"), 0700);
		fd = open(fuzz_path("c"), O_RDONLY | O_DIRECTORY);
		MUST(fd >= 0 && !stats_new(&stats) && !store_open(fd, fuzz_path("c"), "index", &store, &was_clean, msg, sizeof(msg)));
	}
	empty(store);
	if (is_forged)
		forge(store, &in);
	if (ns_open(store, &liar.origin, &cfg, stats, &ns))
		return 0;
	for (unsigned round = 0; round < 3; round++) {
		struct ns_attr attr;
		char *name = take_string(&in, 300);

		ask(ns, NS_ROOT, !is_forged);
		name[strcspn(name, "/")] = 0;   /* the kernel's part */
		ns_lookup(ns, 1 + take_u8(&in) % 8, name, take_u8(&in) % 4, &attr);
		free(name);
		for (uint64_t ino = 2; ino < 8; ino++)
			ask(ns, ino, !is_forged);
		ask(ns, take_number(&in), !is_forged);
		ns_distrust(ns, 2 + take_u8(&in) % 8);
	}
	MUST(ns_inodes(ns) < 1 << 20);
	ns_close(ns);
	return 0;
}

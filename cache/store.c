/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LMDB without sync: a commit is in the kernel's page cache and survives the
 * process; store_sync() bounds what the machine can lose. LMDB's pages are
 * copied on write, but without sync the order in which they reach the disk is
 * the kernel's, so after the machine stopped uncleanly the trees are walked
 * once, in a child that may crash on them, before they are used.
 */
#include "cache/store.h"
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "lib/log.h"

#define MAP_MIN (16ULL << 30)
#define MAP_MAX (1ULL << 40)
#define MAP_LEAST (1ULL << 30)

enum {
	FORMAT = 1,          /* of everything in the index */
	MAX_TABLES = 16,
	MAX_READERS = 1024,
	PATH_BYTES = 4096,
};

struct store {
	MDB_env *env;
	MDB_dbi meta;
	char *dir;                  /* owned: path of the index */
	_Atomic bool is_dirty;      /* committed since the last sync */
};

/* What the last user left behind. */
struct life {
	uint32_t format;
	uint32_t is_clean;
	char boot_id[40];
};

int store_errno(int rc)
{
	switch (rc) {
	case MDB_SUCCESS: return 0;
	case MDB_NOTFOUND: return -ENOENT;
	case MDB_KEYEXIST: return -EEXIST;
	case MDB_MAP_FULL:
	case MDB_TXN_FULL: return -ENOSPC;
	case MDB_READERS_FULL: return -EAGAIN;
	case MDB_VERSION_MISMATCH:
	case MDB_INVALID:
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_PANIC: return -EUCLEAN;
	default: return rc > 0 ? -rc : -EUCLEAN;
	}
}

static void boot_id(char *buf, size_t size)
{
	_cleanup_close_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : read(fd, buf, size - 1);

	buf[n > 0 ? n : 0] = 0;
	buf[strcspn(buf, "\n")] = 0;
}

/* The largest map the address space (and a sanitizer) grants. It costs nothing until used. */
static int env_open(const char *dir, MDB_env **ret_env)
{
	struct statvfs fs;
	uint64_t size = MAP_MIN;
	int rc;

	if (!statvfs(dir, &fs) && (uint64_t)fs.f_blocks * fs.f_frsize > size)
		size = (uint64_t)fs.f_blocks * fs.f_frsize;
	if (size > MAP_MAX)
		size = MAP_MAX;
	for (;; size /= 2) {
		rc = mdb_env_create(ret_env);
		if (rc)
			return rc;
		mdb_env_set_maxdbs(*ret_env, MAX_TABLES);
		mdb_env_set_maxreaders(*ret_env, MAX_READERS);
		mdb_env_set_mapsize(*ret_env, size & ~4095ULL);
		rc = mdb_env_open(*ret_env, dir, MDB_NOSYNC | MDB_NOTLS | MDB_NORDAHEAD, 0600);
		if (!rc)
			return 0;
		mdb_env_close(*ret_env);
		if (rc != ENOMEM || size <= MAP_LEAST)
			return rc;
	}
}

/* Visit every record of every table. Runs in a child: damage may crash it. */
static int walk_tables(MDB_env *env)
{
	MDB_val name, key, value;
	MDB_cursor *tables, *records;
	MDB_txn *txn;
	MDB_dbi main_dbi, dbi;
	volatile unsigned char sink = 0;

	if (mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) || mdb_dbi_open(txn, NULL, 0, &main_dbi) ||
	    mdb_cursor_open(txn, main_dbi, &tables))
		return 1;
	while (!mdb_cursor_get(tables, &name, &value, MDB_NEXT)) {
		char table[64];

		snprintf(table, sizeof(table), "%.*s", (int)name.mv_size, (char *)name.mv_data);
		if (mdb_dbi_open(txn, table, 0, &dbi) || mdb_cursor_open(txn, dbi, &records))
			return 1;
		while (!mdb_cursor_get(records, &key, &value, MDB_NEXT)) {
			for (size_t i = 0; i < value.mv_size; i++)
				sink ^= ((unsigned char *)value.mv_data)[i];
		}
		mdb_cursor_close(records);
	}
	return 0;
}

static bool is_sound(const char *dir)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		MDB_env *env;

		_exit(env_open(dir, &env) || walk_tables(env));
	}
	if (pid < 0)
		return true;   /* cannot tell; every record is checked when used */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int set_aside(int dir_fd, const char *dir)
{
	char name[64];

	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "index.damaged-%u", i);
		if (faccessat(dir_fd, name, F_OK, 0) && errno == ENOENT) {
			log_warn("%s is damaged: set aside as %s, the cache starts anew", dir, name);
			return renameat(dir_fd, "index", dir_fd, name) ? -errno : 0;
		}
	}
	return -EEXIST;
}

int store_meta_get(struct store *s, const char *key, void *buf, size_t size, size_t *ret_len)
{
	MDB_val k = { strlen(key), (void *)key }, v;
	MDB_txn *txn;
	int rc = store_read_begin(s, &txn);

	if (rc)
		return rc;
	rc = store_errno(mdb_get(txn, s->meta, &k, &v));
	if (!rc) {
		*ret_len = v.mv_size < size ? v.mv_size : size;
		memcpy(buf, v.mv_data, *ret_len);
	}
	store_read_end(s, txn);
	return rc;
}

int store_meta_dup(struct store *s, const char *key, void **ret_data, size_t *ret_len)
{
	MDB_val k = { strlen(key), (void *)key }, v;
	MDB_txn *txn;
	int rc = store_read_begin(s, &txn);

	if (rc)
		return rc;
	rc = store_errno(mdb_get(txn, s->meta, &k, &v));
	if (!rc) {
		*ret_data = malloc(v.mv_size + 1);
		rc = *ret_data ? 0 : -ENOMEM;
	}
	if (!rc) {
		memcpy(*ret_data, v.mv_data, v.mv_size);
		*ret_len = v.mv_size;
	}
	store_read_end(s, txn);
	return rc;
}

int store_meta_put(struct store *s, const char *key, const void *data, size_t len)
{
	MDB_val k = { strlen(key), (void *)key }, v = { len, (void *)data };
	MDB_txn *txn;
	int rc = store_write_begin(s, &txn);

	if (rc)
		return rc;
	rc = store_errno(mdb_put(txn, s->meta, &k, &v, 0));
	if (rc) {
		store_write_abort(s, txn);
		return rc;
	}
	return store_write_commit(s, txn);
}

static int life_put(struct store *s, bool is_clean)
{
	struct life life = { .format = FORMAT, .is_clean = is_clean };

	boot_id(life.boot_id, sizeof(life.boot_id));
	return store_meta_put(s, "life", &life, sizeof(life));
}

/* Open environment and meta table, read the last life (all zero in a new index). */
static int open_tables(struct store *s, struct life *ret_life)
{
	size_t len = 0;
	int rc = store_errno(env_open(s->dir, &s->env)), dead;

	if (rc) {
		s->env = NULL;
		return rc;
	}
	mdb_reader_check(s->env, &dead);
	rc = store_table(s, "meta", 0, &s->meta);
	if (rc)
		return rc;
	memset(ret_life, 0, sizeof(*ret_life));
	rc = store_meta_get(s, "life", ret_life, sizeof(*ret_life), &len);
	if (rc == -ENOENT)
		return 0;
	return rc ? rc : len == sizeof(*ret_life) ? 0 : -EUCLEAN;
}

static int open_checked(struct store *s, int cache_fd, struct life *life)
{
	char boot[sizeof(life->boot_id)];
	int rc = open_tables(s, life);

	boot_id(boot, sizeof(boot));
	if (!rc && life->format && !life->is_clean && strcmp(boot, life->boot_id)) {
		/* no sync ordered what the machine lost: look before trusting */
		mdb_env_close(s->env);
		s->env = NULL;
		rc = is_sound(s->dir) ? open_tables(s, life) : -EUCLEAN;
	}
	if (rc != -EUCLEAN && rc != -EINVAL)
		return rc;
	if (s->env)
		mdb_env_close(s->env);
	s->env = NULL;
	rc = set_aside(cache_fd, s->dir);
	if (!rc && mkdirat(cache_fd, "index", 0700))
		rc = -errno;
	return rc ? rc : open_tables(s, life);
}

int store_open(int dir_fd, const char *dir_path, struct store **ret_store, bool *ret_was_clean,
	       char *msg, size_t msg_size)
{
	struct store *s = calloc(1, sizeof(*s));
	struct life life = { 0 };
	int rc = 0;

	if (!s)
		return -ENOMEM;
	if (asprintf(&s->dir, "%s/index", dir_path) < 0)
		s->dir = NULL;
	if (!s->dir || (mkdirat(dir_fd, "index", 0700) && errno != EEXIST))
		rc = s->dir ? -errno : -ENOMEM;
	if (!rc)
		rc = open_checked(s, dir_fd, &life);
	if (!rc && life.format > FORMAT) {
		snprintf(msg, msg_size, "cache %s was written by a newer hopperfs (format %u, this one knows %u); use another cache= directory",
			 dir_path, life.format, FORMAT);
		rc = -EINVAL;
	} else if (!rc) {
		rc = life_put(s, false);
	}
	if (rc) {
		if (!*msg)
			snprintf(msg, msg_size, "cache %s: cannot open the index: %s", dir_path, strerror(-rc));
		if (s->env)
			mdb_env_close(s->env);
		free(s->dir);
		free(s);
		return rc;
	}
	*ret_was_clean = life.format && life.is_clean;
	*ret_store = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	if (!life_put(s, true))
		mdb_env_sync(s->env, 1);
	mdb_env_close(s->env);
	free(s->dir);
	free(s);
}

int store_table(struct store *s, const char *name, unsigned mdb_flags, MDB_dbi *ret_dbi)
{
	MDB_txn *txn;
	int rc = store_write_begin(s, &txn);

	if (rc)
		return rc;
	rc = store_errno(mdb_dbi_open(txn, name, mdb_flags | MDB_CREATE, ret_dbi));
	if (rc) {
		store_write_abort(s, txn);
		return rc;
	}
	return store_write_commit(s, txn);
}

int store_read_begin(struct store *s, MDB_txn **ret_txn)
{
	return store_errno(mdb_txn_begin(s->env, NULL, MDB_RDONLY, ret_txn));
}

void store_read_end(struct store *s, MDB_txn *txn)
{
	(void)s;
	mdb_txn_abort(txn);
}

int store_write_begin(struct store *s, MDB_txn **ret_txn)
{
	return store_errno(mdb_txn_begin(s->env, NULL, 0, ret_txn));
}

int store_write_commit(struct store *s, MDB_txn *txn)
{
	int rc = store_errno(mdb_txn_commit(txn));

	if (!rc)
		atomic_store_explicit(&s->is_dirty, true, memory_order_relaxed);
	return rc;
}

void store_write_abort(struct store *s, MDB_txn *txn)
{
	(void)s;
	mdb_txn_abort(txn);
}

int store_sync(struct store *s)
{
	if (!atomic_exchange(&s->is_dirty, false))
		return 0;
	return store_errno(mdb_env_sync(s->env, 1));
}

uint64_t store_bytes(struct store *s)
{
	struct stat st;
	int fd;

	if (mdb_env_get_fd(s->env, &fd) || fstat(fd, &st))
		return 0;
	return (uint64_t)st.st_blocks * 512;
}

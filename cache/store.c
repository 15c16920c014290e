/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LMDB without sync: a commit is in the kernel's page cache and survives the
 * process; store_sync() bounds what the machine can lose. LMDB's pages are
 * copied on write, but without sync the order in which they reach the disk is
 * the kernel's, so after the machine stopped uncleanly the state of the last
 * sync is put back (snapshot.h), and the trees are walked
 * once, in a child that may crash on them, before they are used.
 */
#include "cache/store.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include "cache/own.h"
#include "cache/snapshot.h"
#include "lib/cleanup.h"
#include "lib/lock.h"
#include "lib/log.h"

#define MAP_MIN (16ULL << 30)
#define MAP_MAX (1ULL << 40)
#define MAP_LEAST (1ULL << 30)

enum {
	FORMAT = 2,          /* of everything in the index; 1 is read, where the index named several directories by position */
	RANK_MOVING = 12,
	MAX_TABLES = 16,
	MAX_READERS = 1024,
	PATH_BYTES = 4096,
	DOUBTFUL_MAX = 18,   /* a store in each cache directory, and one that moved */
	SYNC_COMMITS = 8,    /* pages of the last synced state are used again only after another: with 64 the index took room that data had (tests/mount/epoch.sh) */
};

/* An environment; one or two handles have it. */
struct place {
	MDB_env *env;
	char *dir;                  /* owned: its path */
	pthread_mutex_t syncing;    /* held by who syncs, across that; others leave it to him */
	struct snapshot snapshot;   /* protected by syncing */
	_Atomic bool is_dirty;      /* committed since the last sync */
	_Atomic unsigned commits;   /* since then */
};

struct store {
	_Atomic(struct place *) place;   /* owned, if not shared's */
	MDB_dbi meta;
	struct store *shared;       /* whose place it is, until it moves */
	bool is_torn;               /* immutable after open */

	struct store_spare *spare;  /* immutable once set; owned */
	unsigned spare_count;
	int (*moving)(void *arg, struct store *fresh, unsigned at);
	void *moving_arg;
	struct lock moving_lock;    /* held while it moves: the one lock that is held across I/O */
	_Atomic unsigned moves;
	/* protected by moving_lock */
	struct place *left;         /* what it moved away from: readers may still be there. Owned, if not shared's */
};

/* All there are, opened in this order: so a table's number is the same in every environment, and in a copy. */
static const struct {
	const char *name;
	unsigned flags;
} all_tables[] = {
	{ "meta", 0 }, { "node", MDB_INTEGERKEY }, { "dentry", 0 }, { "dir", MDB_INTEGERKEY }, { "class", MDB_INTEGERKEY },
	{ "link", MDB_INTEGERKEY }, { "extent", MDB_INTEGERKEY },
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

/*
 * LMDB's table of readers is a file that it maps and writes to; where its disk fails that would end the process. The directory
 * is ours alone, so the table can be in memory: a link leads there while it is opened. Without /proc it is where it is.
 */
static int lock_in_memory(const char *dir, char *link, size_t size)
{
	int fd = memfd_create("hopperfs-index-lock", MFD_CLOEXEC);
	char target[64];

	if (snprintf(link, size, "%s/lock.mdb", dir) >= (int)size)
		*link = 0;
	snprintf(target, sizeof(target), "/proc/self/fd/%d", fd);
	if (*link)
		unlink(link);
	if (fd < 0 || !*link || access(target, F_OK) || symlink(target, link))
		*link = 0;
	return fd;
}

/* The largest map the address space (and a sanitizer) grants. It costs nothing until used. */
static int env_open(const char *dir, MDB_env **ret_env)
{
	struct statvfs fs;
	uint64_t size = MAP_MIN;
	char link[PATH_BYTES];
	_cleanup_close_ int lock = lock_in_memory(dir, link, sizeof(link));
	int rc;

	if (!statvfs(dir, &fs) && (uint64_t)fs.f_blocks * fs.f_frsize > size)
		size = (uint64_t)fs.f_blocks * fs.f_frsize;
	if (size > MAP_MAX)
		size = MAP_MAX;
	for (;; size /= 2) {
		rc = mdb_env_create(ret_env);
		if (rc)
			break;
		mdb_env_set_maxdbs(*ret_env, MAX_TABLES);
		mdb_env_set_maxreaders(*ret_env, MAX_READERS);
		mdb_env_set_mapsize(*ret_env, size & ~4095ULL);
		rc = mdb_env_open(*ret_env, dir, MDB_NOSYNC | MDB_NOTLS | MDB_NORDAHEAD, 0600);
		if (!rc)
			break;
		mdb_env_close(*ret_env);
		if ((rc != ENOMEM && rc != EINVAL) || size <= MAP_LEAST)   /* EINVAL: so valgrind */
			break;
	}
	if (*link)
		unlink(link);
	return rc;
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

/* ---- an index that cannot be read ---- */

/*
 * The index is mapped: a page that is not there (its file was cut short) or cannot be read is SIGBUS, in the middle of LMDB. Nothing
 * true can be said without it, so the process ends by that signal; but first it leaves a mark, so that the next one
 * looks at the index before it trusts it, and does not end in the same way.
 */
static char doubtful[DOUBTFUL_MAX][PATH_BYTES];   /* the marks of the stores that are open; "" is free */
static pthread_mutex_t doubtful_mutex = PTHREAD_MUTEX_INITIALIZER;

static void on_sigbus(int sig)
{
	static const char text[] = "hopperfs: the index of the cache cannot be read (SIGBUS); it is looked at when it is mounted again\n";
	ssize_t n = write(STDERR_FILENO, text, sizeof(text) - 1);

	(void)sig;
	(void)n;
	for (unsigned i = 0; i < DOUBTFUL_MAX; i++) {
		if (*doubtful[i])
			close(open(doubtful[i], O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	}
	/* the access is tried again, and ends the process: SA_RESETHAND */
}

static void doubtful_watch(const char *dir)
{
	struct sigaction action = { .sa_handler = on_sigbus, .sa_flags = (int)SA_RESETHAND };

	pthread_mutex_lock(&doubtful_mutex);
	for (unsigned i = 0; i < DOUBTFUL_MAX; i++) {
		if (*doubtful[i])
			continue;
		snprintf(doubtful[i], PATH_BYTES, "%s/doubtful", dir);
		break;
	}
	sigaction(SIGBUS, &action, NULL);
	pthread_mutex_unlock(&doubtful_mutex);
}

static void doubtful_forget(const char *dir)
{
	size_t n = strlen(dir);

	pthread_mutex_lock(&doubtful_mutex);
	for (unsigned i = 0; i < DOUBTFUL_MAX; i++) {
		if (!strncmp(doubtful[i], dir, n) && !strcmp(doubtful[i] + n, "/doubtful"))
			*doubtful[i] = 0;
	}
	pthread_mutex_unlock(&doubtful_mutex);
}

/* Did a process end on it, or is its file shorter than the index thinks? Pages at its end may be of no use: then it is sound. */
static bool is_doubtful(const char *dir)
{
	char path[PATH_BYTES];
	MDB_envinfo info;
	MDB_stat st;
	struct stat file;
	MDB_env *env;
	bool is_short;

	snprintf(path, sizeof(path), "%s/doubtful", dir);
	if (!access(path, F_OK))
		return true;
	snprintf(path, sizeof(path), "%s/data.mdb", dir);
	if (stat(path, &file) || env_open(dir, &env))
		return false;   /* a new one; or one that cannot be opened, which is found out soon */
	is_short = !mdb_env_info(env, &info) && !mdb_env_stat(env, &st) &&
		   (uint64_t)file.st_size < (info.me_last_pgno + 1) * st.ms_psize;
	mdb_env_close(env);
	return is_short;
}

static void doubt_end(const char *dir)
{
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "%s/doubtful", dir);
	unlink(path);
}

static int set_aside(int dir_fd, const char *dir, const char *index)
{
	char name[64];

	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "%s.damaged-%u", index, i);
		if (faccessat(dir_fd, name, F_OK, 0) && errno == ENOENT) {
			log_warn("%s is damaged: set aside as %s, the cache starts anew", dir, name);
			return renameat(dir_fd, index, dir_fd, name) ? -errno : 0;
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

int store_meta_drop(struct store *s, const char *key)
{
	MDB_val k = { strlen(key), (void *)key };
	MDB_txn *txn;
	int rc = store_write_begin(s, &txn);

	if (rc)
		return rc;
	rc = store_errno(mdb_del(txn, s->meta, &k, NULL));
	if (rc) {
		store_write_abort(s, txn);
		return rc == -ENOENT ? 0 : rc;
	}
	return store_write_commit(s, txn);
}

int store_empty(struct store *s, const char *name)
{
	MDB_txn *txn;
	MDB_dbi dbi;
	int rc = store_write_begin(s, &txn);

	if (rc)
		return rc;
	rc = store_errno(mdb_dbi_open(txn, name, 0, &dbi));
	if (!rc)
		rc = store_errno(mdb_drop(txn, dbi, 0));
	if (rc) {
		store_write_abort(s, txn);
		return rc == -ENOENT ? 0 : rc;
	}
	return store_write_commit(s, txn);
}

bool store_is_torn(const struct store *s)
{
	return s->is_torn;
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
	struct place *p = s->place;
	int rc = store_errno(env_open(p->dir, &p->env)), dead;

	if (rc) {
		p->env = NULL;
		return rc;
	}
	mdb_reader_check(p->env, &dead);
	for (size_t i = 0; i < sizeof(all_tables) / sizeof(*all_tables) && !rc; i++) {
		MDB_dbi dbi;

		rc = store_table(s, all_tables[i].name, all_tables[i].flags, &dbi);
		if (!i && !rc)
			s->meta = dbi;
	}
	if (rc)
		return rc;
	memset(ret_life, 0, sizeof(*ret_life));
	rc = store_meta_get(s, "life", ret_life, sizeof(*ret_life), &len);
	if (rc == -ENOENT)
		return 0;
	return rc ? rc : len == sizeof(*ret_life) ? 0 : -EUCLEAN;
}

static void env_end(struct place *p)
{
	snapshot_close(&p->snapshot);
	if (p->env)
		mdb_env_close(p->env);
	p->env = NULL;
}

static void place_free(struct place *p)
{
	if (!p)
		return;
	env_end(p);
	if (p->dir)
		doubtful_forget(p->dir);
	pthread_mutex_destroy(&p->syncing);
	free(p->dir);
	free(p);
}

static struct place *place_new(const char *dir_path, const char *name)
{
	struct place *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->snapshot.fd = -1;
	pthread_mutex_init(&p->syncing, NULL);
	if (asprintf(&p->dir, "%s/%s", dir_path, name) >= 0)
		return p;
	p->dir = NULL;
	place_free(p);
	return NULL;
}

/* What the last user left, if it is sound. */
static int open_left(struct store *s, const char *boot, struct life *life)
{
	struct place *p = s->place;
	int is_restored = snapshot_open(&p->snapshot, p->dir, boot), rc;

	if (is_restored < 0)
		return is_restored;
	is_restored |= is_doubtful(p->dir);
	rc = is_restored && !is_sound(p->dir) ? -EUCLEAN : open_tables(s, life);
	doubt_end(p->dir);
	life->is_clean &= !is_restored;   /* it was, when it was synced */
	s->is_torn = !rc && life->format && !life->is_clean && (is_restored || strcmp(boot, life->boot_id));
	if (!s->is_torn || is_restored)
		return rc;
	/* no sync ordered what the machine lost: look before trusting */
	mdb_env_close(p->env);
	p->env = NULL;
	return is_sound(p->dir) ? open_tables(s, life) : -EUCLEAN;
}

static int open_checked(struct store *s, int cache_fd, const char *name, struct life *life)
{
	char boot[sizeof(life->boot_id)];
	struct place *p = s->place;
	int rc;

	boot_id(boot, sizeof(boot));
	rc = open_left(s, boot, life);
	if (rc != -EUCLEAN && rc != -EINVAL)
		return rc;
	env_end(p);
	s->is_torn = false;
	rc = set_aside(cache_fd, p->dir, name);
	if (!rc && mkdirat(cache_fd, name, 0700))
		rc = -errno;
	if (!rc)
		rc = snapshot_open(&p->snapshot, p->dir, boot);
	return rc ? rc : open_tables(s, life);
}

static void store_free(struct store *s)
{
	if (!s->shared || s->place != s->shared->place)
		place_free(s->place);
	if (!s->shared || s->left != s->shared->place)
		place_free(s->left);
	lock_destroy(&s->moving_lock);
	free(s->spare);
	free(s);
}

/* LMDB opens its file by path and would write through a link. (Its lock file is always a new one.) */
static int check_files(int dir_fd, const char *name)
{
	_cleanup_close_ int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return errno == ELOOP || errno == ENOTDIR ? -EPERM : -errno;
	rc = own_check(fd, "data.mdb");
	return rc ? rc : own_check(fd, SNAPSHOT_NAME);
}

int store_open(int dir_fd, const char *dir_path, const char *name, struct store **ret_store, bool *ret_was_clean,
	       char *msg, size_t msg_size)
{
	struct store *s = calloc(1, sizeof(*s));
	struct life life = { 0 };
	int rc = 0;

	if (!s)
		return -ENOMEM;
	lock_init(&s->moving_lock, "index move", RANK_MOVING);
	s->place = place_new(dir_path, name);
	if (!s->place || (mkdirat(dir_fd, name, 0700) && errno != EEXIST))
		rc = s->place ? -errno : -ENOMEM;
	if (!rc)
		rc = check_files(dir_fd, name);
	if (!rc)
		rc = open_checked(s, dir_fd, name, &life);
	if (!rc && life.format > FORMAT) {
		snprintf(msg, msg_size, "cache %s was written by a newer hopperfs (format %u, this one knows %u); use another cache= directory",
			 dir_path, life.format, FORMAT);
		rc = -EINVAL;
	} else if (!rc) {
		/* what is there stays whole from now on */
		rc = store_errno(snapshot_take(&s->place->snapshot, s->place->env, false));
		if (!rc)
			rc = life_put(s, false);
	}
	if (rc) {
		if (!*msg)
			snprintf(msg, msg_size, "cache %s: cannot open the index: %s", dir_path, strerror(-rc));
		store_free(s);
		return rc;
	}
	doubtful_watch(s->place->dir);
	*ret_was_clean = life.format && life.is_clean;
	*ret_store = s;
	return 0;
}

int store_share(struct store *s, struct store **ret_store)
{
	struct store *other = calloc(1, sizeof(*other));

	if (!other)
		return -ENOMEM;
	lock_init(&other->moving_lock, "index move", RANK_MOVING);
	other->place = s->place;
	other->meta = s->meta;
	other->shared = s;
	other->is_torn = s->is_torn;
	*ret_store = other;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	if ((!s->shared || s->place != s->shared->place) && !life_put(s, true))
		snapshot_take(&s->place->snapshot, s->place->env, true);
	store_free(s);
}

/* ---- moving ---- */

void store_set_spares(struct store *s, const struct store_spare *spare, unsigned count,
		      int (*moving)(void *arg, struct store *fresh, unsigned at), void *arg)
{
	s->spare = calloc(count + 1, sizeof(*spare));
	if (!s->spare)
		return;   /* then it stays where it is */
	memcpy(s->spare, spare, count * sizeof(*spare));
	s->spare_count = count;
	s->moving = moving;
	s->moving_arg = arg;
}

unsigned store_moves(const struct store *s)
{
	return atomic_load(&s->moves);
}

/* Does it say that the disk fails, or is full, or is not there any more? */
static bool is_disk_error(int err)
{
	return err == -EIO || err == -EROFS || err == -ENOSPC || err == -EDQUOT || err == -ENODEV;
}

void store_remove(int dir_fd, const char *name)
{
	static const char *const files[] = { "data.mdb", "lock.mdb", SNAPSHOT_NAME };
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	for (unsigned i = 0; fd >= 0 && i < sizeof(files) / sizeof(*files); i++)
		unlinkat(fd, files[i], 0);
	if (fd >= 0)
		close(fd);
	unlinkat(dir_fd, name, AT_REMOVEDIR);
}

/* A copy of @s's environment in DIR/names of @to, opened as *fresh; its meta table is right, and it holds no extents. */
static int copy_begin(struct store *s, const struct store_spare *to, struct store *fresh)
{
	struct place *p = place_new(to->dir_path, STORE_MOVED);
	struct life life;
	int rc;

	*fresh = (struct store){ .meta = s->meta, .place = p };
	if (!p)
		return -ENOMEM;
	boot_id(life.boot_id, sizeof(life.boot_id));
	store_remove(to->dir_fd, STORE_MOVED);
	rc = mkdirat(to->dir_fd, STORE_MOVED, 0700) ? -errno : 0;
	if (!rc)
		rc = store_errno(mdb_env_copy2(s->place->env, p->dir, MDB_CP_COMPACT));
	if (!rc)
		rc = snapshot_open(&p->snapshot, p->dir, life.boot_id);
	if (!rc)
		rc = open_tables(fresh, &life);
	return rc ? rc : store_empty(fresh, "extent");
}

/* @rc: of what was done meanwhile; without success, or unless @keep, it is closed, and without success removed. */
static int copy_end(const struct store_spare *to, struct store *fresh, int rc, bool keep)
{
	if (rc || !keep)
		place_free(fresh->place);
	if (rc)
		store_remove(to->dir_fd, STORE_MOVED);
	return rc;
}

int store_copy(struct store *s, const struct store_spare *to)
{
	struct store fresh;
	int rc = copy_begin(s, to, &fresh);

	if (!rc)
		rc = life_put(&fresh, true);
	if (!rc)
		rc = store_errno(snapshot_take(&fresh.place->snapshot, fresh.place->env, true));
	return copy_end(to, &fresh, rc, false);
}

/* Ready for use, as far as @moving is content. */
static int copy_to(struct store *s, unsigned at, struct place **ret_place)
{
	struct store fresh;
	int rc = copy_begin(s, &s->spare[at], &fresh);

	if (!rc)
		rc = s->moving(s->moving_arg, &fresh, at);
	if (!rc)
		rc = store_sync(&fresh);
	rc = copy_end(&s->spare[at], &fresh, rc, true);
	if (!rc)
		*ret_place = fresh.place;
	return rc;
}

int store_move(struct store *s, unsigned moves, int err)
{
	MDB_txn *writer = NULL;
	struct place *place = NULL;
	int rc = err;

	if (!is_disk_error(err))
		return err;
	lock_scope(&s->moving_lock);
	if (s->moves != moves)
		return 0;
	if (s->left || !s->spare_count)
		return err;   /* once is enough: readers of the one before the last are not waited for */
	/* whoever waits to write there finds, when it is let in, that it is not the place any more */
	if (mdb_txn_begin(s->place->env, NULL, 0, &writer))
		writer = NULL;
	for (unsigned at = 0; at < s->spare_count && rc; at++) {
		rc = copy_to(s, at, &place);
		if (rc)
			log_warn("cache %s: the namespace cannot move there: %s", s->spare[at].dir_path, strerror(-rc));
		else
			log_warn("cache %s: the namespace is here from now on: where it was, %s", s->spare[at].dir_path, strerror(-err));
	}
	if (!rc) {
		s->left = s->place;
		s->place = place;
		doubtful_watch(place->dir);
		s->moves++;
	}
	if (writer)
		mdb_txn_abort(writer);
	return rc;
}

/* ---- tables and transactions ---- */

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
	return store_errno(mdb_txn_begin(s->place->env, NULL, MDB_RDONLY, ret_txn));
}

void store_read_end(struct store *s, MDB_txn *txn)
{
	(void)s;
	mdb_txn_abort(txn);
}

int store_write_begin(struct store *s, MDB_txn **ret_txn)
{
	for (;;) {
		struct place *place = s->place;
		int rc = store_errno(mdb_txn_begin(place->env, NULL, 0, ret_txn));

		if (rc || place == s->place)
			return rc;
		mdb_txn_abort(*ret_txn);   /* it moved while we waited */
	}
}

int store_write_commit(struct store *s, MDB_txn *txn)
{
	struct place *p = s->place;   /* as long as the transaction is open it does not move */
	int rc = store_errno(mdb_txn_commit(txn));

	if (rc)
		return rc;
	atomic_store_explicit(&p->is_dirty, true, memory_order_relaxed);
	if (atomic_fetch_add_explicit(&p->commits, 1, memory_order_relaxed) + 1 >= SYNC_COMMITS)
		store_sync(s);   /* it is tried again at the next commit if it fails */
	return 0;
}

void store_write_abort(struct store *s, MDB_txn *txn)
{
	(void)s;
	mdb_txn_abort(txn);
}

int store_sync(struct store *s)
{
	struct place *p = s->place;
	int rc;

	if (!atomic_exchange(&p->is_dirty, false))
		return 0;
	if (pthread_mutex_trylock(&p->syncing)) {
		atomic_store(&p->is_dirty, true);
		return 0;
	}
	atomic_store(&p->commits, 0);
	rc = store_errno(snapshot_take(&p->snapshot, p->env, false));
	pthread_mutex_unlock(&p->syncing);
	if (rc)
		atomic_store(&p->is_dirty, true);
	return rc;
}

uint64_t store_bytes(struct store *s)
{
	struct stat st;
	int fd;

	if (mdb_env_get_fd(s->place->env, &fd) || fstat(fd, &st))
		return 0;
	return (uint64_t)st.st_blocks * 512;
}

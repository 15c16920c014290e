/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The namespace at scale: lists FILES entries in DIRS directories, opens it anew,
 * looks every name up, and prints seconds, resident memory and bytes per file.
 *
 *   namespace DIR FILES DIRS
 *
 * The origin is a synthetic one (nothing is read from a disk but the index
 * below DIR), so that the numbers are the namespace's own.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cache/namespace.h"
#include "cache/store.h"
#include "lib/clock.h"
#include "lib/stats.h"

enum { NAME_BYTES = 32 };

struct synthetic {
	struct origin origin;
	uint64_t files, dirs;
};

static struct origin_attr attr_of(uint64_t n, bool is_dir)
{
	return (struct origin_attr){
		.mode = is_dir ? S_IFDIR | 0755 : S_IFREG | 0644, .nlink = is_dir ? 2 : 1, .origin_ino = n + 2,
		.version = { .size = is_dir ? 4096 : 100000 + n % 50000, .mtime_ns = 1600000000000000000 + (int64_t)n * 1000003,
			     .ctime_ns = 1600000000000000000 + (int64_t)n * 1000003 },
	};
}

/* "" lists the directories dNNNNNN, and those list the files imgNNNNNNNNNN.jpg. */
static int synthetic_list(struct origin *o, const char *path, struct origin_listing *ret)
{
	struct synthetic *s = (struct synthetic *)o;
	bool is_root = !*path;
	uint64_t dir = is_root ? 0 : strtoull(path + 1, NULL, 10);
	uint64_t count = is_root ? s->dirs : s->files / s->dirs;
	struct origin_entry *e = calloc(count, sizeof(*e));
	char *names = malloc(count * NAME_BYTES);

	if (!e || !names) {
		free(e);
		free(names);
		return -ENOMEM;
	}
	for (uint64_t i = 0; i < count; i++) {
		char *name = names + i * NAME_BYTES;
		uint64_t n = is_root ? i : dir * count + i;

		snprintf(name, NAME_BYTES, is_root ? "d%06" PRIu64 : "img%010" PRIu64 ".jpg", n);
		e[i] = (struct origin_entry){ name, attr_of(n, is_root), 0 };
	}
	*ret = (struct origin_listing){ e, count, names, count * NAME_BYTES };
	return 0;
}

static int synthetic_stat(struct origin *o, const char *path, struct origin_attr *ret)
{
	const char *slash = strchr(path, '/');

	(void)o;
	*ret = slash ? attr_of(strtoull(slash + 4, NULL, 10), false) : attr_of(*path ? strtoull(path + 1, NULL, 10) : 0, true);
	return 0;
}

static const struct origin_ops synthetic_ops = { .kind = "synthetic", .list = synthetic_list, .stat = synthetic_stat };

/* VmRSS less the pages of the mapped index, which the kernel may drop: what is our own. */
static uint64_t own_kib(uint64_t *ret_rss)
{
	FILE *f = fopen("/proc/self/status", "re");
	unsigned long long anon = 0, rss = 0;
	char line[128];

	while (f && fgets(line, sizeof(line), f)) {
		sscanf(line, "RssAnon: %llu", &anon);
		sscanf(line, "VmRSS: %llu", &rss);
	}
	if (f)
		fclose(f);
	*ret_rss = rss;
	return anon;
}

static double since(uint64_t ns)
{
	return (double)(clock_ns() - ns) / 1e9;
}

static int fail(const char *what, int rc)
{
	fprintf(stderr, "namespace: %s: %s\n", what, strerror(-rc));
	return 1;
}

static int list_all(struct ns *ns, const struct synthetic *s)
{
	struct ns_attr a;
	char name[NAME_BYTES];

	for (uint64_t d = 0; d < s->dirs; d++) {
		int rc;

		snprintf(name, sizeof(name), "d%06" PRIu64, d);
		rc = ns_lookup(ns, NS_ROOT, name, 0, &a);
		if (!rc)
			rc = ns_list(ns, a.ino, 0);
		if (rc)
			return rc;
	}
	return 0;
}

/* Every name in an order that jumps between directories; each must be there and local. */
static int look_all_up(struct ns *ns, const struct synthetic *s)
{
	uint64_t *dir = calloc(s->dirs, sizeof(*dir)), per = s->files / s->dirs;
	struct ns_attr a;
	char name[NAME_BYTES];
	int rc = dir ? 0 : -ENOMEM;

	for (uint64_t d = 0; d < s->dirs && !rc; d++) {
		snprintf(name, sizeof(name), "d%06" PRIu64, d);
		rc = ns_lookup(ns, NS_ROOT, name, NS_NOWAIT, &a);
		dir[d] = a.ino;
	}
	for (uint64_t i = 0; i < s->files && !rc; i++) {
		uint64_t n = i * 7368787 % s->files;

		snprintf(name, sizeof(name), "img%010" PRIu64 ".jpg", n);
		rc = ns_lookup(ns, dir[n / per], name, NS_NOWAIT, &a);
		if (!rc && a.version.size != 100000 + n % 50000)
			rc = -EBADMSG;
	}
	free(dir);
	return rc;
}

static int open_ns(const char *path, struct synthetic *s, struct stats *stats, struct store **store, struct ns **ns)
{
	struct ns_config cfg = { .meta_ttl_ns = 86400 * NSEC_PER_SEC };
	int fd = open(path, O_RDONLY | O_DIRECTORY);
	char msg[256];
	bool was_clean;
	int rc = fd < 0 ? -errno : store_open(fd, path, "index", store, &was_clean, msg, sizeof(msg));

	if (fd >= 0)
		close(fd);
	return rc ? rc : ns_open(*store, &s->origin, &cfg, stats, ns);
}

int main(int argc, char **argv)
{
	struct synthetic s = { .origin = { .ops = &synthetic_ops } };
	struct stats *stats;
	struct store *store;
	struct ns_attr a;
	struct ns *ns;
	uint64_t began, bytes, anon, rss;
	double listed, opened, first;
	int rc;

	if (argc != 4 || !(s.files = strtoull(argv[2], NULL, 10)) || !(s.dirs = strtoull(argv[3], NULL, 10)) ||
	    s.files % s.dirs || s.files % 7368787 == 0) {
		fprintf(stderr, "usage: namespace DIR FILES DIRS (DIRS divides FILES)\n");
		return 2;
	}
	if (stats_new(&stats) || (mkdir(argv[1], 0700) && errno != EEXIST))
		return fail(argv[1], -errno);
	began = clock_ns();
	rc = open_ns(argv[1], &s, stats, &store, &ns);
	if (!rc)
		rc = list_all(ns, &s);
	if (rc)
		return fail("listing", rc);
	listed = since(began);
	bytes = store_bytes(store);
	ns_close(ns);
	store_close(store);
	began = clock_ns();
	rc = open_ns(argv[1], &s, stats, &store, &ns);
	opened = since(began);
	if (!rc)
		rc = ns_lookup(ns, NS_ROOT, "d000000", NS_NOWAIT, &a);
	if (!rc)
		rc = ns_lookup(ns, a.ino, "img0000000000.jpg", NS_NOWAIT, &a);
	first = since(began);
	began = clock_ns();
	if (!rc)
		rc = look_all_up(ns, &s);
	if (rc)
		return fail("looking up", rc);
	anon = own_kib(&rss);
	printf("{\"files\": %" PRIu64 ", \"dirs\": %" PRIu64 ", \"listed_s\": %.2f, \"reopened_s\": %.3f, \"first_lookup_s\": %.3f, "
	       "\"lookups_s\": %.2f, \"lookup_us\": %.2f, \"index_bytes_per_file\": %.1f, \"own_rss_kib\": %" PRIu64
	       ", \"rss_kib\": %" PRIu64 "}\n",
	       s.files, s.dirs, listed, opened, first, since(began), since(began) * 1e6 / (double)s.files,
	       (double)bytes / (double)s.files, anon, rss);
	ns_close(ns);
	store_close(store);
	stats_free(stats);
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/options.h"
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "lib/cleanup.h"
#include "lib/parse.h"
#include "lib/strbuf.h"

enum option_id {
#define OPTION(id, name, kind, def, arg, help) OPTION_##id,
#include "fs/options.def"
#undef OPTION
	OPTION_COUNT
};

enum option_kind {
	TEXT, SIZE, SIZE_OR_PERCENT, SIZE_OR_AUTO, COUNT_OR_AUTO, DURATION, BOOL, FLAG, LOG, UNAVAILABLE,
	COMPRESS, PREFETCH, CHECK, VERIFY, TRANSPORT, OPEN, NUMA,
};

static const struct option_desc {
	const char *name;
	enum option_kind kind;
	const char *fallback, *arg, *help;
} option_table[] = {
#define OPTION(id, name, kind, def, arg, help) { name, kind, def, arg, help },
#include "fs/options.def"
#undef OPTION
};

/* What mount(8) and fstab add for themselves. */
static const char *const ignored[] = {
	"defaults", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "auto", "noauto", "user",
	"nouser", "users", "owner", "group", "_netdev", "nofail", "atime", "noatime", "relatime",
	"norelatime", "diratime", "nodiratime", "sync", "async", "default_permissions",
};

struct choice {
	const char *word;
	int value;
};

static int choose(const struct choice *c, const char *word, int *ret)
{
	for (; c->word; c++) {
		if (!strcmp(c->word, word)) {
			*ret = c->value;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_compress(struct options *o, const char *v)
{
	static const struct choice words[] = { { "auto", DISK_CODEC_AUTO }, { "lz4", DISK_CODEC_LZ4 },
					       { "off", DISK_CODEC_OFF }, { NULL, 0 } };
	int value, rc = choose(words, v, &value);

	if (!rc)
		o->cache.codec = (enum disk_codec)value;
	return rc;
}

static int parse_prefetch(struct options *o, const char *v)
{
	static const struct choice words[] = { { "auto", PREFETCH_AUTO }, { "seq", PREFETCH_SEQ },
					       { "off", PREFETCH_OFF }, { NULL, 0 } };
	int value, rc = choose(words, v, &value);

	if (!rc)
		o->prefetch.mode = (enum prefetch_mode)value;
	return rc;
}

static int parse_log(struct options *o, const char *v)
{
	static const struct choice words[] = { { "error", LOG_LEVEL_ERROR }, { "warn", LOG_LEVEL_WARN },
					       { "info", LOG_LEVEL_INFO }, { "debug", LOG_LEVEL_DEBUG }, { NULL, 0 } };
	_cleanup_free_ char *level = strndup(v, strcspn(v, ":"));
	int value, rc = level ? choose(words, level, &value) : -ENOMEM;

	if (rc)
		return rc;
	o->log_level = (enum log_level)value;
	v += strcspn(v, ":");
	if (!*v)
		return 0;
	free(o->log_file);
	o->log_file = strdup(v + 1);
	return v[1] ? 0 : -EINVAL;
}

/* One of two words; @ret is whether it is the second. */
static int parse_either(const char *v, const char *first, const char *second, bool *ret)
{
	*ret = !strcmp(v, second);
	return *ret || !strcmp(v, first) ? 0 : -EINVAL;
}

/* "80%" or a size: one of the two results is set, the other cleared. */
static int parse_amount(const char *v, uint64_t *ret_bytes, unsigned *ret_percent)
{
	uint64_t percent = 0;
	int rc;

	*ret_percent = 0;
	*ret_bytes = 0;
	if (!strchr(v, '%'))
		return parse_size(v, ret_bytes);
	rc = parse_size_or_percent(v, 100, &percent);
	*ret_percent = (unsigned)percent;
	return rc;
}

static int parse_cache(struct options *o, const char *v)
{
	_cleanup_free_ char *copy = strdup(v);
	char *save = NULL;

	for (unsigned i = 0; i < o->cache_dir_count; i++)
		free(o->cache_dirs[i]);
	o->cache_dir_count = 0;
	for (char *dir = copy ? strtok_r(copy, ":", &save) : NULL; dir; dir = strtok_r(NULL, ":", &save)) {
		if (o->cache_dir_count == CACHE_DIRS_MAX)
			return -EINVAL;
		o->cache_dirs[o->cache_dir_count++] = strdup(dir);
	}
	return o->cache_dir_count ? 0 : -EINVAL;
}

static int parse_parallel(struct options *o, const char *v)
{
	uint64_t n = 0;

	if (strcmp(v, "auto") && (parse_u64(v, &n) || !n || n > 1024))
		return -EINVAL;
	o->prefetch.origin_parallel = (unsigned)n;
	return 0;
}

static int parse_transport(struct options *o, const char *v)
{
	static const struct choice words[] = { { "auto", TRANSPORT_DEV }, { "dev", TRANSPORT_DEV },
					       { "uring", TRANSPORT_URING }, { NULL, 0 } };
	int value, rc = choose(words, v, &value);

	if (!rc)
		o->transport = (enum transport)value;
	return rc;
}

static int parse_open(struct options *o, const char *v)
{
	static const struct choice words[] = { { "auto", OPEN_AUTO }, { "passthrough", OPEN_PASSTHROUGH },
					       { "daemon", OPEN_DAEMON }, { "pagecache", OPEN_PAGECACHE }, { NULL, 0 } };
	int value, rc = choose(words, v, &value);

	if (!rc)
		o->open = (enum open_policy)value;
	return rc;
}

static int parse_ram(struct options *o, const char *v)
{
	int rc;

	o->cache.ram_bytes = 0;
	if (!strcmp(v, "auto"))
		return 0;
	rc = parse_size(v, &o->cache.ram_bytes);
	/* below this a single large read could not be served */
	return rc || o->cache.ram_bytes >= 4u << 20 ? rc : -ERANGE;
}

static int option_set(struct options *o, enum option_id id, const char *v, const char **ret_why)
{
	bool second;
	int rc;

	switch (id) {
	case OPTION_cache: return parse_cache(o, v);
	case OPTION_size: return parse_amount(v, &o->cache.size_bytes, &o->cache.size_percent);
	case OPTION_min_free: return parse_amount(v, &o->cache.min_free_bytes, &o->cache.min_free_percent);
	case OPTION_ram:
		rc = parse_ram(o, v);
		if (rc == -ERANGE)
			*ret_why = "is too small: give at least 4M";
		return rc;
	case OPTION_compress: return parse_compress(o, v);
	case OPTION_prefetch: return parse_prefetch(o, v);
	case OPTION_recognise: return parse_either(v, "off", "on", &o->prefetch.recognise);
	case OPTION_hedge: return parse_either(v, "off", "on", &o->cache.hedge);
	case OPTION_origin_bw: return parse_size(v, &o->prefetch.origin_bw);
	case OPTION_origin_parallel: return parse_parallel(o, v);
	case OPTION_meta_ttl: return parse_duration(v, &o->cache.ns.meta_ttl_ns);
	case OPTION_data_check:
		rc = parse_either(v, "never", "open", &second);
		o->cache.ns.check_data_on_open = second;
		return rc;
	case OPTION_verify:
		rc = parse_either(v, "auto", "always", &o->cache.verify_all);
		return rc;
	case OPTION_acl: return parse_either(v, "auto", "on", &o->follow_acls);
	case OPTION_transport: return parse_transport(o, v);
	case OPTION_open: return parse_open(o, v);
	case OPTION_read_ahead:
		o->read_ahead_bytes = UINT64_MAX;
		return strcmp(v, "auto") ? parse_size(v, &o->read_ahead_bytes) : 0;
	case OPTION_numa:
		rc = parse_either(v, "off", "auto", &second);
		o->numa = second;
		return rc;
	case OPTION_timeout: return parse_duration(v, &o->cache.timeout_ns);
	case OPTION_log: return parse_log(o, v);
	case OPTION_ro: o->is_read_only = true; return 0;
	case OPTION_allow_other: case OPTION_allow_root: o->allow_other = true; return 0;
	case OPTION_rw: case OPTION_mirror: case OPTION_peers: case OPTION_COUNT: break;
	}
	return -EINVAL;
}

static bool is_ignored(const char *name)
{
	for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++) {
		if (!strcmp(ignored[i], name))
			return true;
	}
	return !strncmp(name, "x-", 2) || !strncmp(name, "fsname", 6) || !strncmp(name, "subtype", 7) ||
	       !strncmp(name, "comment", 7);
}

/* One item of -o. @values remembers what was given, for user.hopper.config. */
static int item_parse(struct options *o, char *item, char **values, char *msg, size_t msg_size)
{
	char *value = strchr(item, '=');
	const char *why = NULL;
	unsigned i;

	if (value)
		*value++ = 0;
	for (i = 0; i < OPTION_COUNT && strcmp(option_table[i].name, item); i++)
		;
	if (i == OPTION_COUNT) {
		if (is_ignored(item))
			return 0;
		snprintf(msg, msg_size, "unknown option '%s'; see hopperfs --help", item);
		return -EINVAL;
	}
	if (i == OPTION_rw && o->is_mount_helper)
		return 0;   /* mount(8) says rw wherever the user did not say ro */
	if (option_table[i].kind == UNAVAILABLE) {
		snprintf(msg, msg_size, "option '%s' is not available in this version; leave it out", item);
		return -EINVAL;
	}
	if ((option_table[i].kind == FLAG) == (value != NULL) || option_set(o, i, value ? value : "", &why)) {
		snprintf(msg, msg_size, "option %s=%s %s; expected %s%s%s", item, value ? value : "",
			 why ? why : "is not valid", item, *option_table[i].arg ? "=" : "", option_table[i].arg);
		return -EINVAL;
	}
	free(values[i]);
	values[i] = strdup(value ? value : "on");
	return 0;
}

static int items_parse(struct options *o, const char *text, char **values, char *msg, size_t msg_size)
{
	_cleanup_free_ char *copy = strdup(text);
	char *save = NULL;
	int rc = copy ? 0 : -ENOMEM;

	for (char *item = copy ? strtok_r(copy, ",", &save) : NULL; item && !rc; item = strtok_r(NULL, ",", &save))
		rc = item_parse(o, item, values, msg, msg_size);
	return rc;
}

/* A path relative to where we are now: the daemon changes directory. */
static char *absolute(const char *path)
{
	_cleanup_free_ char *cwd = NULL;
	char *result;

	if (*path == '/')
		return strdup(path);
	cwd = getcwd(NULL, 0);
	return cwd && asprintf(&result, "%s/%s", cwd, path) >= 0 ? result : NULL;
}

/* The same for an origin's specification: its path is behind the last colon of a known KIND. */
static char *absolute_origin(const char *spec)
{
	size_t head = 0;
	_cleanup_free_ char *path = NULL;
	char *result;

	while (!strncmp(spec + head, "fault:", 6)) {
		const char *colon = strchr(spec + head + 6, ':');

		if (!colon)
			return strdup(spec);
		head = (size_t)(colon + 1 - spec);
	}
	if (!strncmp(spec + head, "posix:", 6))
		head += 6;
	path = absolute(spec + head);
	return path && asprintf(&result, "%.*s%s", (int)head, spec, path) >= 0 ? result : NULL;
}

static int check_mountpoint(const char *path, char *msg, size_t msg_size)
{
	struct stat st;

	if (!stat(path, &st) && !S_ISDIR(st.st_mode)) {
		snprintf(msg, msg_size, "mount point %s: not a directory", path);
		return -EINVAL;
	}
	if (stat(path, &st) && errno != ENOTCONN) {
		snprintf(msg, msg_size, "mount point %s: %s; create the directory first", path, strerror(errno));
		return -EINVAL;
	}
	return 0;
}

static int take_arguments(struct options *o, int argc, char **argv, char **values, char *msg, size_t msg_size)
{
	const char *positional[2] = { NULL, NULL };
	unsigned count = 0;
	const char *slash = argc ? strrchr(argv[0], '/') : NULL;
	int rc = 0;

	o->is_mount_helper = argc && !strncmp(slash ? slash + 1 : argv[0], "mount.", 6);
	for (int i = 1; i < argc && !rc; i++) {
		const char *a = argv[i];

		if (!strcmp(a, "-h") || !strcmp(a, "--help"))
			o->help = true;
		else if (!strcmp(a, "-V") || !strcmp(a, "--version"))
			o->version = true;
		else if (!strcmp(a, "-f"))
			o->foreground = true;
		else if (!strcmp(a, "-d"))
			o->debug = o->foreground = true;
		else if (!strcmp(a, "-o") && i + 1 < argc)
			rc = items_parse(o, argv[++i], values, msg, msg_size);
		else if (!strncmp(a, "-o", 2) && a[2])
			rc = items_parse(o, a + 2, values, msg, msg_size);
		else if (!strcmp(a, "-s") || !strcmp(a, "-n") || !strcmp(a, "-v"))
			continue;   /* mount(8) passes these to its helpers */
		else if (*a == '-' && a[1]) {
			snprintf(msg, msg_size, "unknown option '%s'; see hopperfs --help", a);
			rc = -EINVAL;
		} else if (count < 2) {
			positional[count++] = a;
		} else {
			snprintf(msg, msg_size, "too many arguments: '%s'; give ORIGIN MOUNTPOINT -o OPTIONS", a);
			rc = -EINVAL;
		}
	}
	if (rc || o->help || o->version)
		return rc;
	if (count < 2) {
		snprintf(msg, msg_size, "give an origin and a mount point: hopperfs ORIGIN MOUNTPOINT [-o OPTIONS]");
		return -EINVAL;
	}
	o->origin = absolute_origin(positional[0]);
	o->mountpoint = absolute(positional[1]);
	return o->origin && o->mountpoint ? check_mountpoint(o->mountpoint, msg, msg_size) : -ENOMEM;
}

/* $HOME/.cache/hopperfs/ID or the system's: one directory per origin. */
static int default_cache(struct options *o, const char *identity_hash)
{
	const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	char *dir = NULL;
	int rc;

	if (geteuid() == 0)
		rc = asprintf(&dir, "/var/cache/hopperfs/%s", identity_hash);
	else if (base && *base == '/')
		rc = asprintf(&dir, "%s/hopperfs/%s", base, identity_hash);
	else
		rc = asprintf(&dir, "%s/.cache/hopperfs/%s", home && *home ? home : "/tmp", identity_hash);
	if (rc < 0)
		return -ENOMEM;
	o->cache_dirs[o->cache_dir_count++] = dir;
	return 0;
}

static int finish_paths(struct options *o, char *msg, size_t msg_size)
{
	_cleanup_free_ char *identity = origin_identity(o->origin);
	uint64_t hash = 1469598103934665603ULL;   /* FNV-1a: a name, not a secret */
	char text[32];

	if (!identity)
		return -ENOMEM;
	for (const char *p = identity; *p; p++)
		hash = (hash ^ (unsigned char)*p) * 1099511628211ULL;
	snprintf(text, sizeof(text), "%016llx", (unsigned long long)hash);
	if (!o->cache_dir_count && default_cache(o, text))
		return -ENOMEM;
	for (unsigned i = 0; i < o->cache_dir_count; i++) {
		char *path = absolute(o->cache_dirs[i]);
		size_t n = strlen(o->mountpoint);

		if (!path)
			return -ENOMEM;
		free(o->cache_dirs[i]);
		o->cache_dirs[i] = path;
		if (!strncmp(path, o->mountpoint, n) && (!path[n] || path[n] == '/')) {
			snprintf(msg, msg_size, "cache %s: inside the mount point; give a directory elsewhere", path);
			return -EINVAL;
		}
	}
	return 0;
}

static char *config_text(const struct options *o, char *const *values)
{
	struct strbuf b = STRBUF_INIT;

	strbuf_addf(&b, "origin=%s\nmountpoint=%s\n", o->origin, o->mountpoint);
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		if (option_table[i].kind == UNAVAILABLE || option_table[i].kind == FLAG || i == OPTION_cache)
			continue;
		strbuf_addf(&b, "%s=%s\n", option_table[i].name, values[i] ? values[i] : option_table[i].fallback);
	}
	strbuf_add(&b, "cache=");
	for (unsigned i = 0; i < o->cache_dir_count; i++)
		strbuf_addf(&b, "%s%s", i ? ":" : "", o->cache_dirs[i]);
	strbuf_add(&b, "\n");
	return strbuf_steal(&b);
}

int options_parse(int argc, char **argv, struct options *ret, char *msg, size_t msg_size)
{
	char *values[OPTION_COUNT] = { NULL };
	const char *why;
	int rc = 0;

	memset(ret, 0, sizeof(*ret));
	snprintf(msg, msg_size, "out of memory");
	for (unsigned i = 0; i < OPTION_COUNT && !rc; i++) {
		if (*option_table[i].fallback)
			rc = option_set(ret, i, option_table[i].fallback, &why);
	}
	if (!rc)
		rc = take_arguments(ret, argc, argv, values, msg, msg_size);
	if (!rc && !ret->help && !ret->version)
		rc = finish_paths(ret, msg, msg_size);
	if (!rc && !ret->help && !ret->version && !(ret->config_text = config_text(ret, values)))
		rc = -ENOMEM;
	for (unsigned i = 0; i < OPTION_COUNT; i++)
		free(values[i]);
	if (rc)
		options_free(ret);
	return rc;
}

void options_free(struct options *o)
{
	for (unsigned i = 0; i < o->cache_dir_count; i++)
		free(o->cache_dirs[i]);
	free(o->origin);
	free(o->mountpoint);
	free(o->log_file);
	free(o->config_text);
	memset(o, 0, sizeof(*o));
}

void options_print_help(const char *program)
{
	printf("usage: %s [-f] [-d] ORIGIN MOUNTPOINT [-o OPTION[,...]]\n"
	       "Serve the directory ORIGIN at MOUNTPOINT through a cache that fetches ahead.\n\n"
	       "  -f  stay in the foreground     -d  the same, with the kernel's requests\n"
	       "  -h, --help                     -V, --version\n\nOptions:\n", program);
	for (unsigned i = 0; i < OPTION_COUNT; i++) {
		char left[64];

		snprintf(left, sizeof(left), "%s%s%s", option_table[i].name, *option_table[i].arg ? "=" : "",
			 option_table[i].arg);
		printf("  %-38s %s", left, option_table[i].help);
		if (*option_table[i].fallback && strcmp(option_table[i].fallback, "0"))
			printf(" [%s]", option_table[i].fallback);
		printf("\n");
	}
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hopperfs, also installed as mount.hopperfs. The parent waits until the mount
 * answers or could not be made; the child opens the origin, the cache and the
 * device, in that order, and serves.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "config.h"
#include "fs/device.h"
#include "fs/fs.h"
#include "fs/options.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/log.h"

enum {
	MSG_BYTES = 1024,
	EXIT_USAGE = 2,
	READ_AHEAD_KIB = 1024,   /* a whole extent: fewer requests for large files */
	META_THREADS = 64,
	GRACE_S = 5,             /* for an origin that hangs, once the mount is gone */
};

struct mount {
	struct options options;
	struct stats *stats;
	struct topology *topology;
	struct locator *locator;
	struct origin *origin;
	struct cache *cache;
	struct prefetch *prefetch;
	struct session *session;
	struct fs fs;
	int fd;
};

/* Errors that the user mends by another argument. */
static int exit_status(int rc)
{
	return rc == -EINVAL || rc == -EEXIST || rc == -EBUSY || rc == -EPERM || rc == -ENOENT || rc == -ENOTDIR ?
		EXIT_USAGE : 1;
}

static int open_data(struct mount *m, char *msg, size_t msg_size)
{
	struct options *o = &m->options;
	_cleanup_free_ char *identity = origin_identity(o->origin);
	int rc;

	if (!identity)
		return -ENOMEM;
	rc = origin_open(o->origin, m->stats, &m->origin, msg, msg_size);
	if (rc)
		return rc;
	o->cache.dirs = (const char *const *)o->cache_dirs;
	o->cache.dir_count = o->cache_dir_count;
	o->cache.identity = identity;
	o->cache.topology = m->topology;
	rc = cache_open(&o->cache, m->origin, m->stats, &m->cache, msg, msg_size);
	o->cache.identity = NULL;
	if (rc)
		return rc;
	return prefetch_start(&o->prefetch, m->cache, m->stats, &m->prefetch);
}

/* The machine's nodes, and where on them readers run. */
static int look_around(struct mount *m)
{
	m->topology = topology_new(&(struct topology_source){ 0 }, m->options.numa);
	m->locator = m->topology ? locator_new(m->topology) : NULL;
	if (!m->locator)
		return -ENOMEM;
	for (unsigned i = 0; m->topology->count > 1 && i < m->topology->count; i++)
		log_info("NUMA node %d: %llu MiB", m->topology->place[i].node,
			 (unsigned long long)m->topology->place[i].memory_bytes >> 20);
	return 0;
}

static int start(struct mount *m, char *msg, size_t msg_size)
{
	struct device_config device = { .source = m->options.origin, .mountpoint = m->options.mountpoint,
					.allow_other = m->options.allow_other || geteuid() == 0,
					.is_read_only = m->options.is_read_only };
	int rc = stats_new(&m->stats);

	if (!rc)
		rc = look_around(m);
	if (!rc)
		rc = open_data(m, msg, msg_size);
	if (!rc)
		rc = pool_new("meta", META_THREADS, &m->fs.pool);
	if (!rc)
		rc = passthrough_new(m->cache, &m->fs.passthrough);
	if (!rc)
		rc = waits_new(m->options.cache.timeout_ns, m->stats, &m->fs.waits);
	if (rc)
		return rc;
	m->fs.cache = m->cache;
	m->fs.ns = cache_ns(m->cache);
	m->fs.prefetch = m->prefetch;
	m->fs.stats = m->stats;
	m->fs.locator = m->locator;
	m->fs.config_text = m->options.config_text;
	m->fs.owner = geteuid();
	m->fs.started_ns = clock_ns();
	m->fs.open = m->options.open;
	m->fs.transport = m->options.transport;
	if (pagecache_choose(&m->fs, m->options.open, m->options.prefetch.mode == PREFETCH_AUTO)) {
		m->fs.open = OPEN_PAGECACHE;
		device.is_read_only = true;
	}
	m->fd = device_mount(&device, msg, msg_size);
	if (m->fd < 0)
		return m->fd;
	m->fs.handshake.want = m->fs.open == OPEN_DAEMON || m->fs.open == OPEN_PAGECACHE ? 0 : HANDSHAKE_PASSTHROUGH;
	m->fs.handshake.stack_depth = device_stack_depth(m->options.cache_dirs[0]);
	rc = session_new(&m->fs, m->fd, m->options.debug, &m->session);
	if (!rc)
		rc = session_start(m->session);
	if (!rc && m->fs.open == OPEN_PAGECACHE)
		pagecache_start(&m->fs, m->session, m->options.mountpoint);
	if (rc)
		device_unmount(m->options.mountpoint);
	return rc;
}

static void finish(struct mount *m)
{
	if (m->prefetch)
		prefetch_stop(m->prefetch);
	pagecache_stop(&m->fs);
	pool_free(m->fs.pool);   /* its work is the cache's */
	if (m->cache)
		cache_close(m->cache);
	waits_free(m->fs.waits);
	session_free(m->session);
	passthrough_free(m->fs.passthrough);
	prefetch_free(m->prefetch);
	origin_close(m->origin);
	stats_free(m->stats);
	locator_free(m->locator);
	topology_free(m->topology);
	options_free(&m->options);
}

/* Wait for a signal on a thread of its own: unmounting makes the loops end. */
static void *signal_thread(void *arg)
{
	struct mount *m = arg;
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	while (sigwait(&set, &sig))
		;
	log_info("signal %d: unmounting %s", sig, m->options.mountpoint);
	device_unmount(m->options.mountpoint);
	return NULL;
}

/* The mount is gone; an origin that hangs must not keep the process. What was committed is safe. */
static void *grace_thread(void *arg)
{
	(void)arg;
	sleep(GRACE_S);
	log_warn("the origin still hangs: leaving without it");
	_exit(0);
}

static void block_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

/* Everything but the parent's part. @ready_fd (or -1) gets the status byte and the message. */
static int serve(struct mount *m, int ready_fd)
{
	char msg[MSG_BYTES] = "";
	unsigned char status;
	pthread_t thread;
	int rc;

	block_signals();
	umask(077);
	log_set_level(m->options.log_level);
	rc = m->options.log_file ? log_to_file(m->options.log_file) : 0;
	if (rc)
		snprintf(msg, sizeof(msg), "log file %s: %s", m->options.log_file, strerror(-rc));
	else
		rc = start(m, msg, sizeof(msg));
	status = rc ? (unsigned char)exit_status(rc) : 0;
	if (rc && !*msg)
		snprintf(msg, sizeof(msg), "%s", strerror(-rc));
	if (rc && ready_fd < 0)
		fprintf(stderr, "hopperfs: %s\n", msg);
	if (ready_fd >= 0 && (write(ready_fd, &status, 1) != 1 || (rc && write(ready_fd, msg, strlen(msg)) < 0)))
		log_warn("the parent is gone");
	if (rc) {
		finish(m);
		return status;
	}
	if (ready_fd >= 0) {
		close(ready_fd);
		if (!m->options.log_file)
			log_to_syslog("hopperfs");
		if (chdir("/"))
			log_warn("chdir /: %m");
	}
	log_info("%s at %s, cache %s", m->options.origin, m->options.mountpoint, m->options.cache_dirs[0]);
	if (!pthread_create(&thread, NULL, signal_thread, m))
		pthread_detach(thread);
	device_set_read_ahead(m->options.mountpoint, READ_AHEAD_KIB);
	session_wait(m->session);
	if (!pthread_create(&thread, NULL, grace_thread, NULL))
		pthread_detach(thread);
	device_unmount(m->options.mountpoint);
	finish(m);
	return 0;
}

/* Returns the exit status once the child has told it. */
static int wait_ready(int fd)
{
	unsigned char status = 1;
	char msg[MSG_BYTES];
	ssize_t n;

	if (read(fd, &status, 1) != 1) {
		fprintf(stderr, "hopperfs: the daemon ended before the mount answered\n");
		return 1;
	}
	if (!status)
		return 0;
	n = read(fd, msg, sizeof(msg) - 1);
	msg[n > 0 ? n : 0] = 0;
	fprintf(stderr, "hopperfs: %s\n", msg);
	return status;
}

static int run_in_background(struct mount *m)
{
	int fd[2];
	pid_t pid;

	fflush(NULL);
	if (pipe(fd) || (pid = fork()) < 0) {
		fprintf(stderr, "hopperfs: %s\n", strerror(errno));
		return 1;
	}
	if (pid) {
		close(fd[1]);
		return wait_ready(fd[0]);
	}
	close(fd[0]);
	setsid();
	if (!freopen("/dev/null", "r", stdin) || !freopen("/dev/null", "w", stdout) ||
	    !freopen("/dev/null", "w", stderr))
		_exit(1);
	return serve(m, fd[1]);
}

int main(int argc, char **argv)
{
	static struct mount m = { .fd = -1 };
	char msg[MSG_BYTES];

	if (options_parse(argc, argv, &m.options, msg, sizeof(msg))) {
		fprintf(stderr, "hopperfs: %s\n", msg);
		return EXIT_USAGE;
	}
	if (m.options.help || m.options.version) {
		if (m.options.help)
			options_print_help(argv[0]);
		else
			printf("hopperfs %s\n", PACKAGE_VERSION);
		return 0;
	}
	return m.options.foreground ? serve(&m, -1) : run_in_background(&m);
}

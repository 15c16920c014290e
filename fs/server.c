/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/server.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cache/cachedir.h"
#include "fs/device.h"
#include "fs/fs.h"
#include "fs/privileges.h"
#include "lib/cleanup.h"
#include "lib/clock.h"
#include "lib/gpus.h"
#include "lib/log.h"

enum {
	MSG_BYTES = 1024,
	META_THREADS = 64,
	GRACE_S = 5,             /* for an origin that hangs, once the mount is gone */
};

struct mount {
	const struct server_start *start;   /* not owned */
	struct options *options;            /* not owned */
	bool is_take_over;
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

/* 2 for errors that the user mends by another argument. */
static int exit_status(int rc)
{
	return rc == -EINVAL || rc == -EEXIST || rc == -EBUSY || rc == -EPERM || rc == -ENOENT || rc == -ENOTDIR ? 2 : 1;
}

static int open_data(struct mount *m, char *msg, size_t msg_size)
{
	struct options *o = m->options;
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

static void publish_gpus(struct mount *m)
{
	_cleanup_free_ char *gpus = gpus_json(NULL);

	if (gpus)
		stats_set_text(m->stats, STAT_GPUS, gpus);
}

/* The machine's nodes, and where on them readers run. */
static int look_around(struct mount *m)
{
	m->topology = topology_new(&(struct topology_source){ 0 }, m->options->numa);
	m->locator = m->topology ? locator_new(m->topology) : NULL;
	if (!m->locator)
		return -ENOMEM;
	publish_gpus(m);
	for (unsigned i = 0; m->topology->count > 1 && i < m->topology->count; i++)
		log_info("NUMA node %d: %llu MiB", m->topology->place[i].node,
			 (unsigned long long)m->topology->place[i].memory_bytes >> 20);
	return 0;
}

/* Everything that can fail before there is a mount. */
static int prepare(struct mount *m, char *msg, size_t msg_size)
{
	struct handover *h = m->start->handover;
	int rc = stats_new_in(handover_stats(h), &m->stats);

	if (!rc)
		rc = look_around(m);
	if (!rc)
		rc = open_data(m, msg, msg_size);
	if (!rc)
		rc = pool_new("meta", META_THREADS, &m->fs.pool);
	if (!rc)
		rc = passthrough_new(m->cache, &h->opens, &m->fs.passthrough);
	if (!rc)
		rc = waits_new(m->options->cache.timeout_ns, m->stats, &m->fs.waits);
	if (rc)
		return rc;
	m->fs.cache = m->cache;
	m->fs.ns = cache_ns(m->cache);
	m->fs.prefetch = m->prefetch;
	m->fs.stats = m->stats;
	m->fs.handover = h;
	m->fs.topology = m->topology;
	m->fs.locator = m->locator;
	m->fs.config_text = m->options->config_text;
	m->fs.mountpoint = m->options->mountpoint;
	m->fs.owner = geteuid();
	m->fs.keeper = m->start->keeper_fd < 0 ? 0 : getppid();
	m->fs.open = m->options->open;
	m->fs.follow_acls = m->options->follow_acls;
	m->fs.read_ahead_bytes = m->options->read_ahead_bytes;
	m->fs.read_ahead.fd = -1;
	m->fs.transport = m->options->transport;
	return 0;
}

/* The device, which from now on the keeper has too. */
static int mount_device(struct mount *m, char *msg, size_t msg_size)
{
	struct device_config device = { .source = m->options->origin, .mountpoint = m->options->mountpoint,
					.allow_other = m->options->allow_other || geteuid() == 0,
					.is_read_only = m->options->is_read_only };
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	union { struct cmsghdr head; char bytes[CMSG_SPACE(sizeof(int))]; } control = { .bytes = { 0 } };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };

	if (pagecache_choose(&m->fs, m->options->open, m->options->prefetch.mode == PREFETCH_AUTO)) {
		m->fs.open = OPEN_PAGECACHE;
		device.is_read_only = true;
	}
	m->fd = device_mount(&device, msg, msg_size);
	if (m->fd < 0)
		return m->fd;
	m->fs.handover->open = m->fs.open;
	m->fs.handover->generation = ns_generation(m->fs.ns);
	m->fs.handover->mounted_ns = clock_ns();
	if (m->start->keeper_fd < 0)
		return 0;
	control.head = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(&control.head), &m->fd, sizeof(m->fd));
	return sendmsg(m->start->keeper_fd, &message, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

/* A loop thread is to find everything in its place. */
static int begin_session(struct mount *m)
{
	int rc;

	m->fs.handshake.want = HANDSHAKE_RESEND;
	if (m->fs.open != OPEN_DAEMON && m->fs.open != OPEN_PAGECACHE)
		m->fs.handshake.want |= HANDSHAKE_PASSTHROUGH;
	m->fs.handshake.stack_depth = device_stack_depth(m->options->cache_dirs[0]);
	rc = session_new(&m->fs, m->fd, m->options->debug, &m->session);
	if (!rc && m->is_take_over && atomic_load(&m->fs.handover->has_no_opens))
		rc = pagecache_resume(&m->fs, m->session);
	if (!rc && m->is_take_over)
		rc = session_take_over(m->session);
	return rc ? rc : session_start(m->session);
}

static int start(struct mount *m, char *msg, size_t msg_size)
{
	struct handover *h = m->start->handover;
	int rc = prepare(m, msg, msg_size);

	if (rc)
		return rc;
	if (m->is_take_over && ns_generation(m->fs.ns) != h->generation) {
		atomic_store(&h->is_lost, true);
		return -ESTALE;
	}
	if (m->is_take_over) {
		m->fs.open = (enum open_policy)h->open;
		m->fd = m->start->device_fd;
	} else {
		rc = mount_device(m, msg, msg_size);
	}
	if (!rc)
		rc = begin_session(m);
	/* what was served before is served differently now only if it was so from the start */
	if (!rc && m->fs.open == OPEN_PAGECACHE && (!m->is_take_over || atomic_load(&h->has_no_opens)))
		pagecache_start(&m->fs, m->session, m->options->mountpoint);
	if (rc && !m->is_take_over && m->fd >= 0)
		device_unmount(m->options->mountpoint);
	if (!rc && m->is_take_over) {
		stats_inc(m->stats, STAT_RESTARTS);
		stats_add(m->stats, STAT_RESTART_NS, clock_ns() - m->start->died_ns);
	}
	if (!rc)
		atomic_store(&h->serving_ns, clock_ns());
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
	read_ahead_end(&m->fs.read_ahead);
	prefetch_free(m->prefetch);
	origin_close(m->origin);
	stats_free(m->stats);
	locator_free(m->locator);
	topology_free(m->topology);
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
	log_info("signal %d: unmounting %s", sig, m->options->mountpoint);
	device_unmount(m->options->mountpoint);
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

/* Before there is any thread. */
static int drop_privileges(struct mount *m)
{
	/* in a directory of somebody else's: nothing later needs more than what is kept. What went wrong cachedir_open says */
	for (unsigned i = 0; i < m->options->cache_dir_count; i++)
		cachedir_make(m->options->cache_dirs[i]);
	return privileges_drop();
}

static void seal_privileges(struct mount *m)
{
	char text[PRIVILEGES_TEXT];
	int rc = privileges_seal();

	if (rc && rc != -ENOTSUP)
		log_warn("system calls cannot be limited: %s", strerror(-rc));
	privileges_describe(text);
	stats_set_text(m->stats, STAT_PRIVILEGES, text);
}

/* The launcher's status byte and line, or where there is none a line here. */
static void tell_ready(struct mount *m, unsigned char status, const char *msg)
{
	int fd = m->start->ready_fd;

	if (status && fd < 0 && m->is_take_over)
		log_error("%s: cannot take the mount over: %s", m->options->mountpoint, msg);
	else if (status && fd < 0)
		fprintf(stderr, "hopperfs: %s\n", msg);
	if (fd >= 0 && (write(fd, &status, 1) != 1 || (status && write(fd, msg, strlen(msg)) < 0)))
		log_warn("the parent is gone");
	if (fd >= 0)
		close(fd);
}

static int begin(struct mount *m)
{
	char msg[MSG_BYTES] = "";
	int rc;

	block_signals();
	umask(077);
	log_set_level(m->options->log_level);
	rc = m->options->log_file ? log_to_file(m->options->log_file) : 0;
	if (rc)
		snprintf(msg, sizeof(msg), "log file %s: %s", m->options->log_file, strerror(-rc));
	else
		rc = drop_privileges(m);
	if (!rc)
		rc = start(m, msg, sizeof(msg));
	if (!rc)
		seal_privileges(m);
	if (rc && !*msg)
		snprintf(msg, sizeof(msg), "%s", strerror(-rc));
	tell_ready(m, rc ? (unsigned char)exit_status(rc) : 0, msg);
	return rc;
}

int server_run(const struct server_start *s)
{
	static struct mount m = { .fd = -1 };
	pthread_t thread;
	int rc;

	m.start = s;
	m.options = s->options;
	m.is_take_over = s->device_fd >= 0;
	if (m.is_take_over && !m.options->foreground && !m.options->log_file)
		log_to_syslog("hopperfs");
	rc = begin(&m);
	if (rc) {
		finish(&m);
		return exit_status(rc);
	}
	if (!m.options->foreground) {
		if (!m.options->log_file)
			log_to_syslog("hopperfs");
		if (chdir("/"))
			log_warn("chdir /: %m");
	}
	if (m.is_take_over)
		log_warn("%s: taken over, %llu ms after the last daemon ended", m.options->mountpoint,
			 (unsigned long long)((clock_ns() - s->died_ns) / NSEC_PER_MSEC));
	else
		log_info("%s at %s, cache %s", m.options->origin, m.options->mountpoint, m.options->cache_dirs[0]);
	if (!pthread_create(&thread, NULL, signal_thread, &m))
		pthread_detach(thread);
	session_wait(m.session);
	if (!pthread_create(&thread, NULL, grace_thread, NULL))
		pthread_detach(thread);
	device_unmount(m.options->mountpoint);
	finish(&m);
	return 0;
}

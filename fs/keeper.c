/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/keeper.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "fs/device.h"
#include "fs/handover.h"
#include "fs/options.h"
#include "fs/server.h"
#include "lib/clock.h"
#include "lib/log.h"

/*
 * A server that ends sooner after it began to serve was killed by what it serves, or by what it finds in the cache:
 * requests that kill it come again with the next.
 */
#define LASTING_NS (100 * NSEC_PER_MSEC)

enum {
	QUICK_DEATHS = 8,            /* in a row: then it is no use */
	PAUSE_MIN_MS = 50,           /* after the second of them; doubled for each */
	UNDERSTOOD = 87,             /* exit status of a trial; no other program's */
	TRIAL_S = 20,
};

#define RESUME_VARIABLE "HOPPERFS_KEEPER"

struct keeper {
	struct options *options;     /* not owned */
	char **argv;                 /* not owned */
	char program[PATH_MAX];      /* what is installed there now, or will be */
	struct handover *handover;
	int memory_fd;               /* the handover's */
	int cwd_fd;                  /* what paths in argv are relative to */
	int device_fd;               /* -1 until the first server has sent it */
	int talk[2];                 /* the keeper's end, the servers' end */
	pid_t server;
	unsigned quick_deaths;
	bool is_ending;              /* a signal said so */
	sigset_t signals;            /* those it waits for, blocked */
};

static void start_server(struct keeper *k, int ready_fd, uint64_t died_ns)
{
	struct server_start s = { .options = k->options, .handover = k->handover, .device_fd = k->device_fd,
				  .ready_fd = ready_fd, .keeper_fd = k->talk[1], .died_ns = died_ns };

	atomic_store(&k->handover->serving_ns, 0);
	k->server = fork();
	if (k->server < 0)
		log_error("no process for the daemon: %m");
	if (k->server)
		return;
	sigprocmask(SIG_UNBLOCK, &k->signals, NULL);
	close(k->talk[0]);
	exit(server_run(&s));
}

/* The server sends it once, when it has made the mount. */
static void take_device(struct keeper *k)
{
	char byte;
	struct iovec iov = { &byte, 1 };
	union { struct cmsghdr head; char bytes[CMSG_SPACE(sizeof(int))]; } control;
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };

	if (k->device_fd >= 0 || recvmsg(k->talk[0], &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != 1)
		return;
	if (message.msg_controllen >= CMSG_LEN(sizeof(int)) && control.head.cmsg_type == SCM_RIGHTS)
		memcpy(&k->device_fd, CMSG_DATA(&control.head), sizeof(k->device_fd));
}

/* ---- another image of the program ---- */

static void set_inherited(struct keeper *k, bool is_inherited)
{
	const int fd[] = { k->memory_fd, k->device_fd, k->cwd_fd };

	for (size_t i = 0; i < sizeof(fd) / sizeof(fd[0]); i++)
		fcntl(fd[i], F_SETFD, is_inherited ? 0 : FD_CLOEXEC);
}

/* Become the installed program, to resume or, in a child, to say by UNDERSTOOD that it could. Returns if that fails. */
static void become(struct keeper *k, bool is_trial)
{
	char text[96];

	snprintf(text, sizeof(text), "%d %d %d %d %d", k->memory_fd, k->device_fd, k->cwd_fd, (int)k->server, is_trial);
	if (setenv(RESUME_VARIABLE, text, 1) || fchdir(k->cwd_fd))
		return;
	set_inherited(k, true);
	execv(k->program, k->argv);
	set_inherited(k, false);
	unsetenv(RESUME_VARIABLE);
}

/* Does the installed program understand what we were called with, and what is to be handed over? */
static bool is_understood(struct keeper *k)
{
	pid_t pid = fork();
	int status = 0;

	if (!pid) {
		sigprocmask(SIG_UNBLOCK, &k->signals, NULL);
		alarm(TRIAL_S);
		become(k, true);
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) == UNDERSTOOD;
}

static void upgrade(struct keeper *k)
{
	const char *why = NULL;

	take_device(k);
	if (k->device_fd < 0 || !handover_is_possible(k->handover, &why)) {
		log_error("%s: no upgrade: %s", k->options->mountpoint, why ? why : "the mount is not made yet");
		return;
	}
	if (!is_understood(k)) {
		log_error("%s: no upgrade: %s cannot take over from this version, or its options; unmount it and mount it again",
			  k->options->mountpoint, k->program);
		return;
	}
	log_info("%s: upgrading to %s", k->options->mountpoint, k->program);
	become(k, false);
	log_error("%s: no upgrade: %s: %m", k->options->mountpoint, k->program);
}

/* ---- a server's life ---- */

/* Until a signal of interest comes, or @ms pass (-1: for ever). */
static void wait_signal(struct keeper *k, int ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000L };
	int sig = ms < 0 ? sigwaitinfo(&k->signals, NULL) : sigtimedwait(&k->signals, NULL, &ts);

	if (sig == SIGUSR2) {
		upgrade(k);
	} else if (sig > 0 && sig != SIGCHLD) {
		k->is_ending = true;
		if (k->server > 0)
			kill(k->server, sig);
	}
}

/* Returns its wait status. */
static int wait_server(struct keeper *k)
{
	int status;
	pid_t pid;

	while (!(pid = waitpid(k->server, &status, WNOHANG)) || (pid < 0 && errno == EINTR))
		wait_signal(k, -1);
	k->server = 0;
	return pid < 0 ? 1 << 8 : status;
}

static void log_death(struct keeper *k, int status)
{
	const char *mountpoint = k->options->mountpoint;

	if (WIFSIGNALED(status))
		log_error("%s: the daemon was ended by signal %d (%s)", mountpoint, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		log_error("%s: the daemon ended with status %d", mountpoint, WEXITSTATUS(status));
}

/* Is another server to be started? Pauses before it, if the last ones did not last. */
static bool may_go_on(struct keeper *k, uint64_t died_ns)
{
	uint64_t serving_ns = atomic_load(&k->handover->serving_ns), until_ns;
	const char *why;

	if (k->is_ending || !handover_is_possible(k->handover, &why)) {
		if (!k->is_ending)
			log_error("%s: nobody can take over: %s; unmount it and mount it again", k->options->mountpoint, why);
		return false;
	}
	k->quick_deaths = serving_ns && died_ns - serving_ns >= LASTING_NS ? 0 : k->quick_deaths + 1;
	if (k->quick_deaths == QUICK_DEATHS) {
		log_error("%s: the daemon ended %d times in a row as soon as it served: given up; unmount it and mount it again, the cache is kept",
			  k->options->mountpoint, QUICK_DEATHS);
		return false;
	}
	until_ns = died_ns + (k->quick_deaths < 2 ? 0 : (PAUSE_MIN_MS * NSEC_PER_MSEC) << (k->quick_deaths - 2));
	while (!k->is_ending && clock_ns() < until_ns)
		wait_signal(k, (int)((until_ns - clock_ns()) / NSEC_PER_MSEC) + 1);
	return !k->is_ending;
}

static int supervise(struct keeper *k)
{
	for (;;) {
		int status = k->server > 0 ? wait_server(k) : 1 << 8;
		uint64_t died_ns = clock_ns();

		take_device(k);
		if (WIFEXITED(status) && (!WEXITSTATUS(status) || k->device_fd < 0))
			return WEXITSTATUS(status);
		log_death(k, status);
		if (k->device_fd < 0 || !may_go_on(k, died_ns))
			break;
		start_server(k, -1, died_ns);
	}
	if (k->is_ending)
		device_unmount(k->options->mountpoint);
	return 1;
}

/* ---- its own life ---- */

static void begin_log(const struct options *o)
{
	log_set_level(o->log_level);
	if (o->log_file ? log_to_file(o->log_file) != 0 : !o->foreground)
		log_to_syslog("hopperfs");
}

static int begin(struct keeper *k, struct options *options, char **argv)
{
	const int signals[] = { SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR2 };
	ssize_t n = readlink("/proc/self/exe", k->program, sizeof(k->program) - 1);

	k->options = options;
	k->argv = argv;
	k->program[n < 0 ? 0 : n] = 0;
	sigemptyset(&k->signals);
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		sigaddset(&k->signals, signals[i]);
	sigprocmask(SIG_BLOCK, &k->signals, NULL);
	return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, k->talk) ? -errno : 0;
}

int keeper_run(struct options *options, char **argv, int ready_fd)
{
	struct keeper k = { .device_fd = -1, .memory_fd = -1 };
	int rc = begin(&k, options, argv);

	k.handover = handover_new(&k.memory_fd);
	k.cwd_fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (rc || !k.handover) {
		fprintf(stderr, "hopperfs: %s\n", strerror(rc ? -rc : errno));
		return 1;
	}
	start_server(&k, ready_fd, 0);
	if (ready_fd >= 0) {
		close(ready_fd);
		if (chdir("/"))
			log_warn("chdir /: %m");
	}
	begin_log(options);
	return supervise(&k);
}

bool keeper_is_resuming(void)
{
	return getenv(RESUME_VARIABLE) != NULL;
}

int keeper_resume(struct options *options, char **argv)
{
	struct keeper k = { .device_fd = -1, .memory_fd = -1 };
	const char *text = getenv(RESUME_VARIABLE);
	int server, is_trial;

	if (!text || sscanf(text, "%d %d %d %d %d", &k.memory_fd, &k.device_fd, &k.cwd_fd, &server, &is_trial) != 5)
		return 1;
	unsetenv(RESUME_VARIABLE);
	k.server = (pid_t)server;
	k.handover = handover_map(k.memory_fd);
	if (is_trial)
		return options && k.handover ? UNDERSTOOD : 1;
	/* what the trial has excluded, or a variable that no keeper set: the process to be killed is a child of ours */
	if (!options || !k.handover || waitpid(k.server, NULL, WNOHANG) < 0 || begin(&k, options, argv))
		return 1;
	set_inherited(&k, false);
	begin_log(options);
	kill(k.server, SIGKILL);
	if (!options->foreground && chdir("/"))
		log_warn("chdir /: %m");
	return supervise(&k);
}

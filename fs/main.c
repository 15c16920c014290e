/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hopperfs, also installed as mount.hopperfs. The process that was called waits until the mount answers or could not
 * be made; its child is the keeper, and the server is the keeper's child.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "config.h"
#include "fs/handover.h"
#include "fs/keeper.h"
#include "fs/options.h"
#include "fs/server.h"

enum { MSG_BYTES = 1024, EXIT_USAGE = 2 };

/* Returns the exit status once the server has told it. */
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

static int run_in_background(struct options *options, char **argv)
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
	return keeper_run(options, argv, fd[1]);
}

/* One process, for who looks at it with a debugger. */
static int run_alone(struct options *options)
{
	struct server_start s = { .options = options, .device_fd = -1, .ready_fd = -1, .keeper_fd = -1 };
	int fd;

	s.handover = handover_new(&fd);
	if (!s.handover) {
		fprintf(stderr, "hopperfs: %s\n", strerror(errno));
		return 1;
	}
	return server_run(&s);
}

int main(int argc, char **argv)
{
	static struct options options;
	char msg[MSG_BYTES];
	int rc = options_parse(argc, argv, &options, msg, sizeof(msg));

	if (keeper_is_resuming())
		return keeper_resume(rc ? NULL : &options, argv);
	if (rc) {
		fprintf(stderr, "hopperfs: %s\n", msg);
		return EXIT_USAGE;
	}
	if (options.help || options.version) {
		if (options.help)
			options_print_help(argv[0]);
		else
			printf("hopperfs %s\n", PACKAGE_VERSION);
		return 0;
	}
	if (options.debug)
		rc = run_alone(&options);
	else
		rc = options.foreground ? keeper_run(&options, argv, -1) : run_in_background(&options, argv);
	options_free(&options);
	return rc;
}

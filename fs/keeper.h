/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that holds a mount's connection to the kernel and does nothing else, so that a server (fs/server.h) may die:
 * readers wait some milliseconds, then another server answers what they asked.
 *
 *   keeper_run: start a server --device--> wait
 *                    ^                      |
 *                    |   killed, aborted, failed: pause when it did not last (PATIENCE, QUICK_DEATHS)
 *                    +----------------------+--> ended as it should, or cannot be taken over: end as it did
 *
 *   SIGUSR2: the program as it is installed now takes the place of the keeper's own, and a new server that of the
 *   server's; first a child tries whether that program understands what it would be left.
 *   SIGTERM, SIGINT, SIGHUP: passed on to the server, which unmounts.
 *
 * The kernel ends a connection when its last descriptor is closed: with the keeper killed and then the server
 * the mount is dead (ENOTCONN), while a server without keeper goes on.
 */
#ifndef HOPPER_FS_KEEPER_H
#define HOPPER_FS_KEEPER_H

#include <stdbool.h>

struct options;

/*
 * Returns the exit status when the mount is gone. @argv is what the program was called with, for upgrades. @ready_fd as for
 * server_run(); taken. The process has one thread.
 */
int keeper_run(struct options *options, char **argv, int ready_fd);

/* Was this image put into the place of a keeper's? Before anything else; then keeper_resume() is to be called, not keeper_run(). */
bool keeper_is_resuming(void);

/* As keeper_run(). @options: NULL if the arguments are not understood. */
int keeper_resume(struct options *options, char **argv);

#endif

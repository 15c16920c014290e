/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The process that serves a mount: opens the origin, the cache and the device, in that order, and answers until the
 * mount is gone. It may be killed at any time; the keeper then starts another.
 */
#ifndef HOPPER_FS_SERVER_H
#define HOPPER_FS_SERVER_H

#include <stdint.h>

struct handover;
struct options;

struct server_start {
	struct options *options;     /* parsed; not owned, changed */
	struct handover *handover;   /* not owned */
	int device_fd;               /* -1: make the mount; else take it over from a process that has ended */
	int ready_fd;                /* gets a status byte, and one line if it is not 0; then closed. -1: stderr */
	int keeper_fd;               /* a socket that gets the device; -1: there is no keeper */
	uint64_t died_ns;            /* take-over: when the last one was found dead */
};

/* Returns the exit status once the mount is gone, or could not be made or taken over. Once in a process. */
int server_run(const struct server_start *s);

#endif

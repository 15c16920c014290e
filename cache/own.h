/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files inside a cache directory. They are ours alone; one that somebody planted there before the directory was closed to
 * others (a link to a file of ours elsewhere, a FIFO to hang at) is refused before anything is read from or written to it.
 */
#ifndef HOPPER_CACHE_OWN_H
#define HOPPER_CACHE_OWN_H

/*
 * openat(2) of a regular file of ours that has no other name. Never follows a link, never waits for a FIFO's other end.
 * A descriptor, or negative errno: -EPERM if it is something else. O_TRUNC takes effect only on what is ours.
 */
int own_open(int dir_fd, const char *name, int flags);

/* The same for a file that somebody else is going to open: 0 if it is ours or not there, or negative errno. */
int own_check(int dir_fd, const char *name);

#endif

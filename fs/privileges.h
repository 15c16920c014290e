/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the daemon may still do once it serves. Two steps, as a thread's capabilities are its own and a new thread has
 * those of the one that made it:
 *
 *   privileges_drop   before the first thread: only what serving needs is kept, for good
 *   privileges_seal   once everything is mounted and opened: whole families of system calls are refused, on every thread
 *
 * Who is not root has nothing to drop, and cannot be sealed: without exec no set-uid fusermount3 would unmount.
 */
#ifndef HOPPER_FS_PRIVILEGES_H
#define HOPPER_FS_PRIVILEGES_H

/* 0 or negative errno: then the process is as it was. */
int privileges_drop(void);

/* 0; -ENOTSUP where there is nothing to seal or the kernel cannot; or negative errno. */
int privileges_seal(void);

enum { PRIVILEGES_TEXT = 256 };

/* The calling thread's capabilities and whether it is sealed, for the statistics. */
void privileges_describe(char text[PRIVILEGES_TEXT]);

#endif

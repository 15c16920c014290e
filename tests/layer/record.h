/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records what a program does to the files below a directory, and makes of it what a machine that stopped at some
 * point may have left on its disk. A program that links this has its calls (and its libraries') of pwrite,
 * openat, fdatasync and so on pass through here; io_uring is refused, so that the cache writes by pwrite.
 *
 * The model of the disk, more unkind than any:
 *   - what was before the last sync of a file, or of the file system, is there;
 *   - of what came later, each page that was written is there or not, whatever came before it;
 *   - names, sizes and holes come in their order, up to any point; a sync of any file brings those before it.
 */
#ifndef HOPPER_TESTS_LAYER_RECORD_H
#define HOPPER_TESTS_LAYER_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Record what is done below @dir, which is empty or does not exist, from now on; NULL: no more. */
void record_begin(const char *dir);
void record_end(void);

/* Steps recorded. */
size_t record_count(void);

/* Is step @at a sync, so that a cut after it loses nothing that was before? */
bool record_is_sync(size_t at);

/* A process that is killed loses nothing; a machine what was not synced. */
enum record_end { RECORD_KILLED, RECORD_POWER };

/*
 * Make below @dir what is left after the first @cut steps. @keep_percent: of pages that were not synced. @random: the
 * state of test_random(). Returns 0 or negative errno.
 */
int record_replay(const char *dir, size_t cut, enum record_end end, unsigned keep_percent, uint64_t *random);

/* What the kernel says its boot id is from now on. */
void record_boot(unsigned number);

/* All files have the same times, so that those of one size have the same version. */
void record_same_times(bool on);

#endif

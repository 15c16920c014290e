/* SPDX-License-Identifier: Apache-2.0 */
/* The kinds of origin. Each opens what follows "KIND:" in a specification, as origin_open() does. */
#ifndef HOPPER_CACHE_ORIGIN_KINDS_H
#define HOPPER_CACHE_ORIGIN_KINDS_H

#include <stddef.h>

struct origin;
struct stats;

int origin_posix_open(const char *path, struct stats *stats, struct origin **ret_origin,
		      char *msg, size_t msg_size);
int origin_fault_open(const char *rest, struct stats *stats, struct origin **ret_origin,
		      char *msg, size_t msg_size);

#endif

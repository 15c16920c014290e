/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel lets our cgroup have. */
#ifndef HOPPER_CACHE_CGROUP_H
#define HOPPER_CACHE_CGROUP_H

#include <stdint.h>

/*
 * The smallest memory limit of our cgroup and those above it: memory.max and memory.high of version 2,
 * memory.limit_in_bytes and memory.soft_limit_in_bytes of version 1. UINT64_MAX without any. Below @root are proc/self/cgroup and
 * sys/fs/cgroup; NULL: this machine's. Reads files of the kernel's, which does not take long; call it without a lock.
 */
uint64_t cgroup_memory_bytes(const char *root);

#endif

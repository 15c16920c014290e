/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machine's NUMA nodes, as far as they matter here. A place is a node that has both memory we may use and
 * processors that are online: readers run there, and bytes can be next to them. Places are numbered from 0; the
 * kernel's numbers may have gaps.
 *
 *   node with processors, without memory         its processors belong to the nearest place
 *   node with memory, without processors         none (CXL, a GPU's memory): nobody reads there
 *   memory that our cpuset does not grant        none
 *   processors that our cpuset does not grant    readers may still run there; our threads do not
 *
 * With one place (or none that can be seen) there is nothing to choose, and nothing is pinned or bound.
 */
#ifndef HOPPER_LIB_TOPOLOGY_H
#define HOPPER_LIB_TOPOLOGY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	TOPOLOGY_PLACES_MAX = 64,
	TOPOLOGY_NODES_MAX = 1024,      /* the kernel's own limit: CONFIG_NODES_SHIFT is at most 10 */
	TOPOLOGY_CPUS_MAX = 8192,       /* ... and NR_CPUS */
};

/* A set of processors, in the layout of cpu_set_t. */
struct cpus {
	unsigned long bits[TOPOLOGY_CPUS_MAX / (8 * sizeof(unsigned long))];
};

struct place {
	int node;                       /* the kernel's number; -1: there are several, not to be told apart */
	uint64_t memory_bytes;
	struct cpus cpus;               /* online, this is the place nearest to them */
	struct cpus own;                /* of these, that we may run on */
};

struct topology {
	unsigned count;                 /* places, at least 1 */
	struct place place[TOPOLOGY_PLACES_MAX];
	int8_t place_of_cpu[TOPOLOGY_CPUS_MAX];     /* -1: not known */
	int8_t place_of_node[TOPOLOGY_NODES_MAX];   /* the nearest; -1: no such node */
	const char *sysfs;              /* borrowed */
};

/* Where to look; what is NULL is asked of this machine and process. */
struct topology_source {
	const char *sysfs;              /* in place of /sys; kept by the topology */
	const struct cpus *cpus;        /* that we may run on */
	const char *memory_nodes;       /* that we may use, as "0-3,8" */
};

/* Never fails but without memory (NULL): what cannot be seen is one place. @is_on false: one place in any case. */
struct topology *topology_new(const struct topology_source *source, bool is_on);
void topology_free(struct topology *t);

/* The place nearest to a processor; -1 when it is not known. */
int topology_of_cpu(const struct topology *t, unsigned cpu);

/* The place of these processors if all have the same, else -1. */
int topology_of_cpus(const struct topology *t, const struct cpus *cpus);

/*
 * The place of the controller behind a block device: of a disk, a partition, an NVMe namespace, or what is made of
 * such (device mapper, md) if all are at one place. -1 when there is none: tmpfs, network, a virtual disk.
 */
int topology_of_device(const struct topology *t, dev_t device);

/* What a thread that serves @place should be pinned to; NULL for anything. */
const struct cpus *topology_pin(const struct topology *t, int place);

/* "0-3,8" as bits; what is not in the format ends it. */
void cpus_parse(const char *list, struct cpus *ret);
bool cpus_has(const struct cpus *c, unsigned cpu);
bool cpus_is_empty(const struct cpus *c);

#endif

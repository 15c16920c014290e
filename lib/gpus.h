/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's accelerators, by its PCI bus: so that a user sees whether his loaders run on the node of the GPU they feed. */
#ifndef HOPPER_LIB_GPUS_H
#define HOPPER_LIB_GPUS_H

enum { GPUS_MAX = 256 };             /* an attribute holds 64 KiB, and there is more in it */

/*
 * A JSON array of the display controllers, 3D controllers and processing accelerators, in the order of their addresses; at
 * most GPUS_MAX of them. Each is an object: "address", "vendor" (as lspci -n has it) and "node", the kernel's number of its NUMA node,
 * -1 where that is not known. @sysfs: in place of /sys, or NULL. Owned by the caller, NULL without memory.
 */
char *gpus_json(const char *sysfs);

#endif

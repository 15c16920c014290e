/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope-bound release for the control path: a variable declared with one of
 * these attributes is released when it goes out of scope. The data path
 * releases explicitly.
 */
#ifndef HOPPER_LIB_CLEANUP_H
#define HOPPER_LIB_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(fn) __attribute__((cleanup(fn)))

static inline void cleanup_free_p(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close_p(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define _cleanup_free_ _cleanup_(cleanup_free_p)
#define _cleanup_close_ _cleanup_(cleanup_close_p)

/* Hand over ownership of @p: returns it and leaves NULL behind. */
#define steal_ptr(p) ({ __typeof__(p) _stolen = (p); (p) = NULL; _stolen; })

static inline int steal_fd(int *fd)
{
	int stolen = *fd;

	*fd = -1;
	return stolen;
}

#endif

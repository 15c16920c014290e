/* SPDX-License-Identifier: Apache-2.0 */
/* POSIX ACLs as system.posix_acl_access has them (linux/posix_acl_xattr.h). */
#ifndef HOPPER_LIB_ACL_H
#define HOPPER_LIB_ACL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define ACL_ACCESS_XATTR "system.posix_acl_access"

/* Of a file whose ACL is not known, which may forbid: only the owner gets in. */
static inline uint32_t acl_owner_mode(uint32_t mode)
{
	return mode & ~(uint32_t)(S_IRWXG | S_IRWXO);
}

/*
 * The most of @mode's bits that give nobody what the access ACL of @len bytes does not: the group's without what its mask
 * takes away, and neither the group nor others more than anybody who is named has. An ACL that makes no sense leaves the owner's.
 */
uint32_t acl_least_mode(uint32_t mode, const void *acl, size_t len);

#endif

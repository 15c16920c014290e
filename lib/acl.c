/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/acl.h"
#include <endian.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stdbool.h>
#include <string.h>

/* What the entries give, in bits of an rwx each. */
struct rights {
	uint32_t group, mask, other;
	uint32_t users, groups;   /* what all that are named have */
	bool has_named;
};

static bool rights_add(struct rights *r, unsigned tag, uint32_t perm)
{
	switch (tag) {
	case ACL_USER_OBJ: return true;   /* the mode has it */
	case ACL_USER: r->users &= perm; break;
	case ACL_GROUP_OBJ: r->group = perm; return true;
	case ACL_GROUP: r->groups &= perm; break;
	case ACL_MASK: r->mask = perm; return true;
	case ACL_OTHER: r->other = perm; return true;
	default: return false;
	}
	r->has_named = true;
	return true;
}

static bool rights_read(struct rights *r, const char *acl, size_t len)
{
	struct posix_acl_xattr_header header;
	struct posix_acl_xattr_entry entry;

	if (len < sizeof(header) || (len - sizeof(header)) % sizeof(entry))
		return false;
	memcpy(&header, acl, sizeof(header));
	if (le32toh(header.a_version) != POSIX_ACL_XATTR_VERSION)
		return false;
	for (size_t at = sizeof(header); at < len; at += sizeof(entry)) {
		memcpy(&entry, acl + at, sizeof(entry));
		if (!rights_add(r, le16toh(entry.e_tag), le16toh(entry.e_perm) & S_IRWXO))
			return false;
	}
	return true;
}

uint32_t acl_least_mode(uint32_t mode, const void *acl, size_t len)
{
	struct rights r = { .mask = S_IRWXO, .users = S_IRWXO, .groups = S_IRWXO };

	if (!rights_read(&r, acl, len))
		return acl_owner_mode(mode);
	/* who is named has what his entry says: in the group or not, no more than that */
	r.group &= r.mask & r.users;
	if (r.has_named)
		r.other &= r.mask & r.users & r.groups;
	return acl_owner_mode(mode) | (mode & (r.group << 3 | r.other));
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/acl.h"
#include <stdatomic.h>
#include "fs/fs.h"
#include "fs/handover.h"
#include "lib/acl.h"
#include "lib/log.h"

enum { UNDECIDED, FOLLOWED, FORBIDS };   /* handover.acls */

bool acl_follow(struct fs *fs)
{
	uint32_t undecided = UNDECIDED;

	if (!cache_origin(fs->cache)->has_acls)
		return false;
	atomic_compare_exchange_strong(&fs->handover->acls, &undecided,
				       fs->follow_acls || ns_has_acls(fs->ns) ? FOLLOWED : FORBIDS);
	return atomic_load(&fs->handover->acls) == FOLLOWED;
}

uint32_t acl_mode(struct fs *fs, const struct ns_attr *attr)
{
	if (!attr->acl || atomic_load_explicit(&fs->handover->acls, memory_order_relaxed) == FOLLOWED)
		return attr->mode;
	if (!atomic_exchange(&fs->has_told_of_acls, true))
		log_warn("the data set has ACLs, which only take away until the next mount; acl=on follows them from the start");
	return acl_least_mode(attr->mode, attr->acl->bytes, attr->acl->len);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Namespace records: any bytes decode to an error, or to a node that stays within them and comes back the same. */
#include <string.h>
#include "cache/ns_record.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ns_node n, back;
	uint8_t buf[NS_NODE_MAX];
	size_t len;

	if (ns_node_decode(7, data, size, &n))
		return 0;
	MUST(n.name_len <= NS_NAME_MAX);
	MUST((const uint8_t *)n.name >= data && (const uint8_t *)n.name + n.name_len <= data + size);
	MUST(!memchr(n.name, '/', n.name_len) && !memchr(n.name, 0, n.name_len));
	MUST(n.name_len > 2 || memcmp(n.name, "..", n.name_len) || !n.name_len);
	len = ns_node_encode(&n, buf);
	MUST(len <= sizeof(buf));
	MUST(!ns_node_decode(7, buf, len, &back));
	MUST(back.st_ino == n.st_ino && back.parent == n.parent && back.class_id == n.class_id && back.is_superseded == n.is_superseded);
	MUST(version_equal(&back.version, &n.version));
	MUST(back.name_len == n.name_len && !memcmp(back.name, n.name, n.name_len));
	return 0;
}

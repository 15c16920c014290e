/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the namespace's records are written: little variable-length integers,
 * because there is one for every file. Decoding checks every length and the name; a
 * record that does not decode is damage (-EUCLEAN), never trusted.
 */
#ifndef HOPPER_CACHE_NS_RECORD_H
#define HOPPER_CACHE_NS_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "cache/origin/origin.h"

enum {
	NS_NAME_MAX = 255,
	NS_NODE_MAX = 80 + NS_NAME_MAX,       /* bytes of an encoded node */
	NS_RANGES_MAX = 4096,                 /* of a directory, before it is numbered anew */
};

/* mode, owner and the like repeat over millions of files: a node names its combination. An ACL follows, where there is one. */
struct ns_class {
	uint32_t mode, uid, gid, nlink;
	uint64_t rdev;
};

struct ns_node {
	uint64_t ino, st_ino, parent;
	uint32_t class_id;
	bool is_superseded;
	struct version version;
	const char *name;          /* not NUL-terminated, points into the record */
	size_t name_len;
};

/* Returns the bytes written into @buf (NS_NODE_MAX). ino is the record's key, not in it. */
size_t ns_node_encode(const struct ns_node *n, void *buf);
int ns_node_decode(uint64_t ino, const void *data, size_t len, struct ns_node *ret_node);

/* A directory that was listed: fixed header, then count pairs. */
struct ns_dir {
	int64_t attrs_ns;          /* wall clock when all entries' attributes were read */
	int64_t names_ns;          /* wall clock when the names were last known complete */
	struct version version;    /* of the directory when it was listed */
	uint64_t range_count;
};

struct ns_span {
	uint64_t first, count;
};

/* 16 bytes, sorts by parent: the key of a name. */
void ns_dentry_key(uint64_t parent, uint64_t name_hash, uint8_t ret_key[16]);

#endif

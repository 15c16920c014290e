/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/ns_record.h"
#include <errno.h>
#include <string.h>
#include "cache/namespace.h"

enum { FLAG_SUPERSEDED = 1 };

/* LEB128, as in DWARF. */
static uint8_t *put(uint8_t *p, uint64_t v)
{
	while (v >= 0x80) {
		*p++ = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	*p++ = (uint8_t)v;
	return p;
}

static int get(const uint8_t **p, const uint8_t *end, uint64_t *ret)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		if (*p == end)
			return -EUCLEAN;
		v |= (uint64_t)(**p & 0x7f) << shift;
		if (!(*(*p)++ & 0x80)) {
			*ret = v;
			return 0;
		}
	}
	return -EUCLEAN;
}

/* Small numbers of either sign become small unsigned ones. */
static uint64_t zigzag(int64_t v)
{
	return (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
}

static int64_t unzigzag(uint64_t v)
{
	return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

/* What the origin's listing let in; the root alone has no name. A path made of others could lead anywhere. */
static bool is_name(uint64_t ino, const uint8_t *name, size_t len)
{
	bool is_dots = len && len <= 2 && name[0] == '.' && name[len - 1] == '.';

	if (!len)
		return ino == NS_ROOT;
	return len <= NS_NAME_MAX && !is_dots && !memchr(name, '/', len) && !memchr(name, 0, len);
}

size_t ns_node_encode(const struct ns_node *n, void *buf)
{
	uint8_t *p = buf;

	p = put(p, n->parent);
	p = put(p, n->class_id);
	p = put(p, n->is_superseded ? FLAG_SUPERSEDED : 0);
	p = put(p, n->ino - n->st_ino);
	p = put(p, n->version.size);
	p = put(p, zigzag(n->version.mtime_ns));
	p = put(p, zigzag((int64_t)((uint64_t)n->version.ctime_ns - (uint64_t)n->version.mtime_ns)));
	p = put(p, n->version.tag);
	memcpy(p, n->name, n->name_len);
	return (size_t)(p - (uint8_t *)buf) + n->name_len;
}

int ns_node_decode(uint64_t ino, const void *data, size_t len, struct ns_node *ret_node)
{
	const uint8_t *p = data, *end = p + len;
	uint64_t field[8];

	for (unsigned i = 0; i < 8; i++) {
		if (get(&p, end, &field[i]))
			return -EUCLEAN;
	}
	if (!is_name(ino, p, (size_t)(end - p)) || field[1] > UINT32_MAX)
		return -EUCLEAN;
	*ret_node = (struct ns_node){
		.ino = ino, .st_ino = ino - field[3], .parent = field[0],
		.class_id = (uint32_t)field[1], .is_superseded = field[2] & FLAG_SUPERSEDED,
		.version = { .size = field[4], .mtime_ns = unzigzag(field[5]), .tag = field[7] },
		.name = (const char *)p, .name_len = (size_t)(end - p),
	};
	ret_node->version.ctime_ns = (int64_t)((uint64_t)ret_node->version.mtime_ns +
					       (uint64_t)unzigzag(field[6]));
	return 0;
}

void ns_dentry_key(uint64_t parent, uint64_t name_hash, uint8_t ret_key[16])
{
	uint64_t word[2] = { __builtin_bswap64(parent), __builtin_bswap64(name_hash) };

	memcpy(ret_key, word, sizeof(word));
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "prefetch/profile.h"
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "prefetch/sets.h"

static const char MAGIC[8] = "hopperO1";

bool profile_name_is_sane(const char *name)
{
	size_t len = strlen(name);

	for (size_t i = 0; i < len; i++) {
		if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
			return false;
	}
	return len && len <= PROFILE_NAME;
}

void *profile_make(const struct set *s, size_t *ret_len)
{
	const uint32_t *item;
	uint32_t count, k, n = 0;
	uint64_t *id;
	char *data;

	if (s->records || !follow_epoch(&s->follow, &item, &count) || count > PROFILE_ITEMS)
		return NULL;
	data = malloc(sizeof(MAGIC) + (size_t)count * sizeof(*id));
	if (!data)
		return NULL;
	memcpy(data, MAGIC, sizeof(MAGIC));
	id = (uint64_t *)(void *)(data + sizeof(MAGIC));
	for (uint32_t i = 0; i < count; i++) {
		const struct unit *u = set_item(s, item[i], &k);

		if (u)
			id[n++] = u->first + k;
	}
	*ret_len = sizeof(MAGIC) + n * sizeof(*id);
	return data;
}

int profile_read(const struct sets *t, const struct set *s, const void *data, size_t len, uint32_t **ret_item, uint32_t *ret_count)
{
	uint32_t *item = malloc(len / 2 + 1), count = 0, k;

	if (!item)
		return -ENOMEM;
	for (size_t at = sizeof(MAGIC); len >= sizeof(MAGIC) && !memcmp(data, MAGIC, sizeof(MAGIC)) && at + sizeof(uint64_t) <= len;
	     at += sizeof(uint64_t)) {
		const struct unit *u;
		uint64_t id;

		memcpy(&id, (const char *)data + at, sizeof(id));
		u = sets_unit(t, id, &k);
		if (u && u->set == s)
			item[count++] = u->base + k;
	}
	if (!count) {
		free(item);
		return -ENOENT;
	}
	*ret_item = item;
	*ret_count = count;
	return 0;
}

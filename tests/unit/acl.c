/* SPDX-License-Identifier: Apache-2.0 */
/* The mode that stands for an ACL, against the rules of acl(5), for everybody in a small world. */
#include "lib/acl.h"
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stdbool.h>
#include <sys/stat.h>
#include "tests/unit/test.h"

enum { OWNING_GROUP = 10, USERS = 3, GROUPS = 3, ROUNDS = 20000 };

struct acl {
	struct posix_acl_xattr_header header;
	struct posix_acl_xattr_entry entry[8];
	unsigned count;
};

static void add(struct acl *a, uint16_t tag, uint32_t id, uint64_t perm)
{
	a->entry[a->count++] = (struct posix_acl_xattr_entry){ .e_tag = tag, .e_perm = perm & 7, .e_id = id };
}

static unsigned entry_of(const struct acl *a, uint16_t tag)
{
	for (unsigned i = 0; i < a->count; i++) {
		if (a->entry[i].e_tag == tag)
			return a->entry[i].e_perm;
	}
	return 7;
}

static size_t bytes_of(const struct acl *a)
{
	return sizeof(a->header) + a->count * sizeof(a->entry[0]);
}

/* Users 1 and 2 and groups 11 and 12, some of them named; and the mode that goes with it. */
static uint32_t invent(struct acl *a, uint64_t *random)
{
	uint64_t r = test_random(random);

	*a = (struct acl){ .header.a_version = POSIX_ACL_XATTR_VERSION };
	add(a, ACL_USER_OBJ, UINT32_MAX, r);
	for (unsigned i = 0; i < 2; i++) {
		if (r >> (8 + i) & 1)
			add(a, ACL_USER, 1 + i, r >> (16 + 3 * i));
	}
	add(a, ACL_GROUP_OBJ, UINT32_MAX, r >> 24);
	for (unsigned i = 0; i < 2; i++) {
		if (r >> (10 + i) & 1)
			add(a, ACL_GROUP, 11 + i, r >> (32 + 3 * i));
	}
	add(a, ACL_MASK, UINT32_MAX, r >> 40);
	add(a, ACL_OTHER, UINT32_MAX, r >> 44);
	return S_IFREG | entry_of(a, ACL_USER_OBJ) << 6 | entry_of(a, ACL_MASK) << 3 | entry_of(a, ACL_OTHER);
}

/* acl(5), ACCESS CHECK ALGORITHM, for who is not the owner. @groups: a bit for each of 10, 11, 12. */
static bool acl_allows(const struct acl *a, unsigned uid, unsigned groups, unsigned wanted)
{
	unsigned mask = entry_of(a, ACL_MASK);
	bool has_group = false;

	for (unsigned i = 0; i < a->count; i++) {
		if (a->entry[i].e_tag == ACL_USER && a->entry[i].e_id == uid)
			return !(wanted & ~(a->entry[i].e_perm & mask));
	}
	for (unsigned i = 0; i < a->count; i++) {
		unsigned id = a->entry[i].e_tag == ACL_GROUP_OBJ ? OWNING_GROUP : a->entry[i].e_id;

		if ((a->entry[i].e_tag != ACL_GROUP_OBJ && a->entry[i].e_tag != ACL_GROUP) || !(groups >> (id - OWNING_GROUP) & 1))
			continue;
		has_group = true;
		if (!(wanted & ~(a->entry[i].e_perm & mask)))
			return true;
	}
	return !has_group && !(wanted & ~entry_of(a, ACL_OTHER));
}

static void nobody_gets_more_than_the_acl_gives(void **state)
{
	uint64_t random = 1;
	struct acl a;

	(void)state;
	for (unsigned round = 0; round < ROUNDS; round++) {
		uint32_t mode = invent(&a, &random), least = acl_least_mode(mode, &a, bytes_of(&a));

		assert_int_equal(least & ~mode, 0);
		assert_int_equal(least & ~077u, mode & ~077u);
		for (unsigned i = 0; i < USERS * (1u << GROUPS) * 8; i++) {
			unsigned wanted = i % 8, groups = i / 8 % (1u << GROUPS), uid = 1 + i / 8 / (1u << GROUPS);
			unsigned has = groups & 1 ? least >> 3 & 7 : least & 7;

			if (wanted && !(wanted & ~has))
				assert_true(acl_allows(&a, uid, groups, wanted));
		}
	}
}

/* Without a name in it there is nothing to take away but what the mask does. */
static void it_gives_what_it_can(void **state)
{
	struct acl a = { .header.a_version = POSIX_ACL_XATTR_VERSION };

	(void)state;
	add(&a, ACL_USER_OBJ, UINT32_MAX, 6);
	add(&a, ACL_GROUP_OBJ, UINT32_MAX, 6);
	add(&a, ACL_MASK, UINT32_MAX, 4);
	add(&a, ACL_OTHER, UINT32_MAX, 4);
	assert_int_equal(acl_least_mode(S_IFREG | 0644, &a, bytes_of(&a)), S_IFREG | 0644);
	add(&a, ACL_USER, 7, 5);
	assert_int_equal(acl_least_mode(S_IFREG | 0644, &a, bytes_of(&a)), S_IFREG | 0644);
	add(&a, ACL_USER, 8, 0);
	assert_int_equal(acl_least_mode(S_IFREG | 0644, &a, bytes_of(&a)), S_IFREG | 0600);
}

static void nonsense_leaves_the_owner(void **state)
{
	struct acl a = { .header.a_version = POSIX_ACL_XATTR_VERSION };

	(void)state;
	assert_int_equal(acl_least_mode(0777, NULL, 0), 0700);
	assert_int_equal(acl_least_mode(0777, &a, 3), 0700);
	add(&a, ACL_GROUP_OBJ, UINT32_MAX, 7);
	add(&a, ACL_OTHER, UINT32_MAX, 7);
	assert_int_equal(acl_least_mode(0777, &a, bytes_of(&a)), 0777);
	assert_int_equal(acl_least_mode(0777, &a, bytes_of(&a) - 1), 0700);
	add(&a, 3, UINT32_MAX, 7);
	assert_int_equal(acl_least_mode(0777, &a, bytes_of(&a)), 0700);
	a.header.a_version = 3;
	assert_int_equal(acl_least_mode(0777, &a, bytes_of(&a) - sizeof(a.entry[0])), 0700);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nobody_gets_more_than_the_acl_gives),
		cmocka_unit_test(it_gives_what_it_can),
		cmocka_unit_test(nonsense_leaves_the_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

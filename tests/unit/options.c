/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include "fs/options.h"
#include "tests/unit/test.h"

/* Parses "hopperfs / /mnt -o TEXT". */
static int parse(const char *text, struct options *o, char *msg, size_t size)
{
	char copy[512], *argv[] = { "hopperfs", "/", "/mnt", "-o", copy, NULL };

	snprintf(copy, sizeof(copy), "%s", text);
	*msg = 0;
	return options_parse(5, argv, o, msg, size);
}

static void good_options_are_taken(void **state)
{
	struct options o;
	char msg[256];

	(void)state;
	assert_int_equal(parse("cache=/a:/b,size=800G,ram=64M,origin_bw=1.5G,meta_ttl=10,timeout=250ms,prefetch=seq,"
			       "recognise=off,hedge=off,numa=off,read_ahead=16K,acl=on,compress=lz4,data_check=never,origin_parallel=7,log=debug",
			       &o, msg, sizeof(msg)), 0);
	assert_int_equal(o.cache_dir_count, 2);
	assert_string_equal(o.cache_dirs[1], "/b");
	assert_int_equal(o.cache.size_bytes, 800ULL << 30);
	assert_int_equal(o.cache.ram_bytes, 64 << 20);
	assert_int_equal(o.prefetch.origin_bw, 3ULL << 29);
	assert_int_equal(o.prefetch.origin_parallel, 7);
	assert_int_equal(o.prefetch.mode, PREFETCH_SEQ);
	assert_false(o.prefetch.recognise);
	assert_false(o.numa);
	assert_int_equal(o.read_ahead_bytes, 16 << 10);
	assert_true(o.follow_acls);
	assert_false(o.cache.hedge);
	assert_int_equal(o.cache.codec, DISK_CODEC_LZ4);
	assert_false(o.cache.ns.check_data_on_open);
	assert_int_equal(o.cache.ns.meta_ttl_ns, 10000000000ULL);
	assert_int_equal(o.cache.timeout_ns, 250000000);
	assert_int_equal(o.log_level, LOG_LEVEL_DEBUG);
	options_free(&o);
}

/* Each is refused with one line that names the option. */
static void bad_options_are_named(void **state)
{
	static const char *const bad[] = {
		"size=12Q", "size=101%", "size=", "ram=1", "ram=-5", "meta_ttl=x", "prefetch=maybe", "origin_parallel=0",
		"origin_parallel=x", "compress=zip", "transport=carrier", "open=door", "numa=1x", "timeout=", "log=loud",
		"cache=", "nonsense", "nonsense=1", "rw", "mirror", "peers=x", "recognise=perhaps", "hedge=2", "verify=never",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char msg[256], name[64];
		struct options o;

		snprintf(name, sizeof(name), "%.*s", (int)strcspn(bad[i], "="), bad[i]);
		if (parse(bad[i], &o, msg, sizeof(msg)) != -EINVAL)
			fail_msg("%s was taken", bad[i]);
		if (!strstr(msg, name) || strchr(msg, '\n'))
			fail_msg("%s: '%s' does not name it in one line", bad[i], msg);
	}
}

static void arguments_must_be_two(void **state)
{
	char *none[] = { "hopperfs", NULL }, *one[] = { "hopperfs", "/", NULL };
	char *three[] = { "hopperfs", "/", "/mnt", "/more", NULL }, *flag[] = { "hopperfs", "-x", "/", "/mnt", NULL };
	struct options o;
	char msg[256];

	(void)state;
	assert_int_equal(options_parse(1, none, &o, msg, sizeof(msg)), -EINVAL);
	assert_int_equal(options_parse(2, one, &o, msg, sizeof(msg)), -EINVAL);
	assert_int_equal(options_parse(4, three, &o, msg, sizeof(msg)), -EINVAL);
	assert_int_equal(options_parse(4, flag, &o, msg, sizeof(msg)), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_options_are_taken),
		cmocka_unit_test(bad_options_are_named),
		cmocka_unit_test(arguments_must_be_two),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

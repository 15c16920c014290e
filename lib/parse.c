/* SPDX-License-Identifier: Apache-2.0 */
/* Decimal fractions are parsed as long double: 64 bits of mantissa keep every size exact. */
#include "lib/parse.h"
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct unit {
	const char *suffix;
	long double factor;
};

int parse_u64(const char *s, uint64_t *ret_value)
{
	uint64_t value = 0;

	if (!*s)
		return -EINVAL;
	for (; *s; s++) {
		if (!isdigit((unsigned char)*s) ||
		    __builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*s - '0'), &value))
			return -EINVAL;
	}
	*ret_value = value;
	return 0;
}

/* Digits with at most one point, then one of @units (the last has a NULL suffix). */
static int parse_scaled(const char *s, const struct unit *units, uint64_t *ret_value)
{
	size_t digits = strspn(s, "0123456789"), all = digits;
	char number[40];
	long double value;

	if (s[all] == '.')
		all += 1 + strspn(s + all + 1, "0123456789");
	if (!digits || all >= sizeof(number))
		return -EINVAL;
	memcpy(number, s, all);
	number[all] = 0;
	while (units->suffix && strcasecmp(units->suffix, s + all))
		units++;
	if (!units->suffix)
		return -EINVAL;
	value = strtold(number, NULL) * units->factor;
	if (value >= 18446744073709551616.0L)
		return -EINVAL;
	*ret_value = (uint64_t)value;
	return 0;
}

int parse_size(const char *s, uint64_t *ret_bytes)
{
	static const struct unit units[] = {
		{ "", 1 }, { "K", 0x1p10L }, { "M", 0x1p20L }, { "G", 0x1p30L },
		{ "T", 0x1p40L }, { "P", 0x1p50L }, { NULL, 0 },
	};

	return parse_scaled(s, units, ret_bytes);
}

int parse_size_or_percent(const char *s, uint64_t whole_bytes, uint64_t *ret_bytes)
{
	static const struct unit percent[] = { { "%", 1000000 }, { NULL, 0 } };
	uint64_t millionths;

	if (!strchr(s, '%'))
		return parse_size(s, ret_bytes);
	if (parse_scaled(s, percent, &millionths) || millionths > 100000000)
		return -EINVAL;
	*ret_bytes = (uint64_t)((unsigned __int128)whole_bytes * millionths / 100000000);
	return 0;
}

int parse_duration(const char *s, uint64_t *ret_ns)
{
	static const struct unit units[] = {
		{ "", 1e9L }, { "s", 1e9L }, { "ms", 1e6L }, { "us", 1e3L }, { "ns", 1 },
		{ "m", 60e9L }, { "h", 3600e9L }, { "d", 86400e9L }, { NULL, 0 },
	};

	return parse_scaled(s, units, ret_ns);
}

int parse_bool(const char *s, bool *ret_value)
{
	static const char *const words[] = { "off", "on", "no", "yes", "false", "true", "0", "1" };

	for (unsigned i = 0; i < sizeof(words) / sizeof(*words); i++) {
		if (!strcmp(s, words[i])) {
			*ret_value = i & 1;
			return 0;
		}
	}
	return -EINVAL;
}

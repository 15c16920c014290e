/* SPDX-License-Identifier: Apache-2.0 */
/* Strict parsing of what users type: the whole string, in range, or -EINVAL. */
#ifndef HOPPER_LIB_PARSE_H
#define HOPPER_LIB_PARSE_H

#include <stdbool.h>
#include <stdint.h>

/* Decimal digits only. */
int parse_u64(const char *s, uint64_t *ret_value);

/* A number with an optional suffix K, M, G, T, P (powers of 1024; "1.5G" is valid). */
int parse_size(const char *s, uint64_t *ret_bytes);

/* The same, or a percentage ("80%", 0..100) of @whole_bytes. */
int parse_size_or_percent(const char *s, uint64_t whole_bytes, uint64_t *ret_bytes);

/* A time with suffix ns, us, ms, s, m, h, d; a bare number is seconds ("0.5" is valid). */
int parse_duration(const char *s, uint64_t *ret_ns);

/* "on|yes|true|1" or "off|no|false|0". */
int parse_bool(const char *s, bool *ret_value);

#endif

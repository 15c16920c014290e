/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every fuzz target includes: its one entry point, the input as a stream of values, and a scratch directory.
 *
 * A target is built twice: by ./configure CC=clang --enable-fuzzing with libFuzzer's main, else with replay.c's, which runs
 * the committed corpus and what is made of it by a few fixed mutations.
 */
#ifndef HOPPER_TESTS_FUZZ_FUZZ_H
#define HOPPER_TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold whatever the input is; in every build. */
#define MUST(condition) do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: must hold: %s\n", __FILE__, __LINE__, #condition); \
			abort(); \
		} \
	} while (0)

struct input {
	const uint8_t *at, *end;
};

static inline struct input input_of(const uint8_t *data, size_t size)
{
	return (struct input){ data, data + size };
}

static inline size_t input_left(const struct input *in)
{
	return (size_t)(in->end - in->at);
}

/* 0 once there is no more. */
static inline uint8_t take_u8(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static inline uint64_t take_uint(struct input *in, unsigned bytes)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)take_u8(in) << 8 * i;
	return v;
}

/* A number of any magnitude: few bytes for the small ones, which matter more. */
static inline uint64_t take_number(struct input *in)
{
	return take_uint(in, take_u8(in) % 9);
}

/* Up to @max bytes, as many as the input says and has, in memory of their own so that a sanitizer sees the end; free() it. */
uint8_t *take_bytes(struct input *in, size_t max, size_t *ret_len);

/* The same as a string, which may hold anything but NUL. */
char *take_string(struct input *in, size_t max);

/* A directory in memory, made once, gone when the process ends. */
const char *fuzz_scratch(void);

/* "SCRATCH/NAME" in one of several static buffers. */
const char *fuzz_path(const char *name);

/* Under SCRATCH, with its directories. */
void fuzz_file(const char *name, const void *data, size_t len);

#endif

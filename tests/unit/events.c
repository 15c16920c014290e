/* SPDX-License-Identifier: Apache-2.0 */
/* fanotify's events taken apart: files, overflows, and whatever a kernel to come may send. */
#include <fcntl.h>
#include <string.h>
#include <sys/fanotify.h>
#include "fs/watch.h"
#include "tests/unit/test.h"

struct seen {
	uint64_t ino[8];
	uint32_t pid[8];
	unsigned count;
};

static void opened(void *arg, uint64_t ino, uint32_t pid)
{
	struct seen *s = arg;

	s->ino[s->count % 8] = ino;
	s->pid[s->count++ % 8] = pid;
}

/* Appends an event for @ino; its length. */
static size_t event(char *buf, uint64_t mask, int pid, uint64_t ino, unsigned char type)
{
	struct fanotify_event_metadata m = { .vers = FANOTIFY_METADATA_VERSION, .metadata_len = sizeof(m), .mask = mask,
					     .fd = FAN_NOFD, .pid = pid };
	struct fanotify_event_info_fid info = { .hdr = { .info_type = type } };
	struct file_handle handle = { .handle_bytes = 12, .handle_type = 0x81 };
	uint32_t word[3] = { (uint32_t)(ino >> 32), (uint32_t)ino, 0 };
	size_t at = sizeof(m);

	if (ino) {
		info.hdr.len = (uint16_t)(sizeof(info) + sizeof(handle) + sizeof(word));
		memcpy(buf + at, &info, sizeof(info));
		memcpy(buf + at + sizeof(info), &handle, sizeof(handle));
		memcpy(buf + at + sizeof(info) + sizeof(handle), word, sizeof(word));
		at += info.hdr.len;
	}
	m.event_len = (uint32_t)at;
	memcpy(buf, &m, sizeof(m));
	return at;
}

static void files_and_overflows(void **state)
{
	char buf[1024];
	struct seen s = { .count = 0 };
	size_t n = event(buf, FAN_OPEN, 17, 0x100000002ULL, FAN_EVENT_INFO_TYPE_FID);

	(void)state;
	n += event(buf + n, FAN_Q_OVERFLOW, 0, 0, 0);
	n += event(buf + n, FAN_OPEN, 0, 5, FAN_EVENT_INFO_TYPE_FID);
	n += event(buf + n, FAN_OPEN, 3, 6, 250);                       /* of a kind we do not know */
	n += event(buf + n, FAN_CLOSE, 3, 7, FAN_EVENT_INFO_TYPE_FID);
	n += event(buf + n, FAN_OPEN, 4, 8, FAN_EVENT_INFO_TYPE_FID);
	assert_int_equal(watch_decode(buf, n, opened, &s), 1);
	assert_int_equal(s.count, 3);
	assert_true(s.ino[0] == 0x100000002ULL && s.pid[0] == 17);
	assert_true(s.ino[1] == 5 && s.pid[1] == 0);
	assert_true(s.ino[2] == 8 && s.pid[2] == 4);
}

static void cut_short_or_damaged(void **state)
{
	char buf[256], exact[256];
	struct seen s = { .count = 0 };
	size_t n = event(buf, FAN_OPEN, 1, 9, FAN_EVENT_INFO_TYPE_FID);

	(void)state;
	for (size_t len = 0; len < n; len++)
		assert_int_equal(watch_decode(buf, len, opened, &s), 0);
	assert_int_equal(s.count, 0);
	for (size_t at = 0; at < n; at++) {
		for (unsigned value = 0; value < 256; value += 51) {
			memcpy(exact, buf, n);
			exact[at] = (char)value;
			watch_decode(exact, n, opened, &s);      /* ends, within the buffer */
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_and_overflows),
		cmocka_unit_test(cut_short_or_damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Letters are the journal's guarantees: fs/journal.h. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "fs/journal.h"
#include "fs/wire.h"
#include "tests/unit/test.h"

enum { READERS = 4, BUFFER_BYTES = 64 * 1024, PER_READER = JOURNAL_SLOTS / READERS };

struct bench {
	struct journal_table *table;
	struct journal *journal;
	int kernel, device;          /* messages go from one to the other */
	char *buf;
	uint64_t replayed[JOURNAL_SLOTS];
	unsigned replayed_count;
};

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));
	int fd[2];

	assert_non_null(b);
	b->table = mmap(NULL, sizeof(*b->table), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(b->table, MAP_FAILED);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fd), 0);
	b->kernel = fd[0];
	b->device = fd[1];
	b->buf = malloc(BUFFER_BYTES);
	assert_int_equal(journal_new(b->table, READERS, &b->journal), 0);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	journal_free(b->journal);
	munmap(b->table, sizeof(*b->table));
	close(b->kernel);
	close(b->device);
	free(b->buf);
	free(b);
	return 0;
}

static void ask(struct bench *b, uint64_t unique, size_t len)
{
	char *message = calloc(1, len);
	struct in_header in = { .len = (uint32_t)len, .opcode = 15, .unique = unique };

	memcpy(message, &in, sizeof(in));
	memset(message + sizeof(in), (int)(unique & 0x7f), len - sizeof(in));
	assert_int_equal(write(b->kernel, message, len), len);
	free(message);
}

static void take(struct bench *b, unsigned reader, uint64_t unique, size_t len)
{
	void *message;
	struct in_header in;

	assert_int_equal(journal_read(b->journal, reader, b->device, b->buf, BUFFER_BYTES, &message), len);
	memcpy(&in, message, sizeof(in));
	assert_int_equal(in.unique, unique);
	for (size_t i = sizeof(in); i < len; i++)
		assert_int_equal(((char *)message)[i], (char)(unique & 0x7f));
}

static void replay_one(void *arg, void *message, size_t len)
{
	struct bench *b = arg;
	struct in_header in;

	memcpy(&in, message, sizeof(in));
	assert_int_equal(in.len, len);
	b->replayed[b->replayed_count++] = in.unique;
	journal_answered(b->journal, in.unique);
}

/* As the next process would. */
static unsigned succeed(struct bench *b)
{
	journal_free(b->journal);
	assert_int_equal(journal_new(b->table, READERS, &b->journal), 0);
	b->replayed_count = 0;
	return journal_replay(b->journal, b->device, replay_one, b);
}

static void test_answered(void **state)
{
	struct bench *b = *state;

	/* (B) each of many is gone once it was answered, in whatever order */
	for (uint64_t i = 1; i <= 3 * JOURNAL_SLOTS; i++) {
		ask(b, i * 2, 100);
		take(b, i % READERS, i * 2, 100);
		if (i > 10)
			journal_answered(b->journal, (i - 10) * 2);
	}
	assert_int_equal(succeed(b), 10);
	for (uint64_t i = 0; i < 10; i++)
		assert_true(b->replayed[i] > 2 * (3 * JOURNAL_SLOTS - 10));
	assert_int_equal(succeed(b), 0);
	journal_answered(b->journal, 12345678);   /* of nothing */
	assert_true(journal_is_complete(b->table));
}

static void test_long_ago(void **state)
{
	struct bench *b = *state;

	/* one is answered long after its number's hint was used by others */
	ask(b, 2, 60);
	take(b, 1, 2, 60);
	for (uint64_t i = 2; i <= 20000; i++) {
		ask(b, i * 2, 60);
		take(b, 1, i * 2, 60);
		journal_answered(b->journal, i * 2);
	}
	assert_int_equal(succeed(b), 1);
	ask(b, 2, 60);
	take(b, 1, 2, 60);
	for (uint64_t i = 2; i <= 20000; i++) {
		ask(b, i * 2, 60);
		take(b, 1, i * 2, 60);
		journal_answered(b->journal, i * 2);
	}
	journal_answered(b->journal, 2);
	assert_int_equal(succeed(b), 0);
}

static void test_killed(void **state)
{
	struct bench *b = *state;
	int status;
	pid_t pid;

	/* (A) what a process had read when it was killed, and nothing else */
	for (uint64_t i = 1; i <= 20; i++)
		ask(b, i * 2, 200);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		void *message;

		for (unsigned i = 0; i < 12; i++)
			journal_read(b->journal, i % READERS, b->device, b->buf, BUFFER_BYTES, &message);
		journal_answered(b->journal, 6);
		raise(SIGKILL);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(succeed(b), 11);
	for (unsigned i = 0; i < b->replayed_count; i++)
		assert_true(b->replayed[i] <= 24 && b->replayed[i] != 6);
	take(b, 0, 26, 200);
}

static void test_long(void **state)
{
	struct bench *b = *state;
	struct out_header out;

	/* (C) */
	ask(b, 2, JOURNAL_SLOT_BYTES);
	take(b, 0, 2, JOURNAL_SLOT_BYTES);
	ask(b, 4, JOURNAL_SLOT_BYTES + 1000);
	take(b, 0, 4, JOURNAL_SLOT_BYTES + 1000);
	assert_int_equal(succeed(b), 2);
	assert_int_equal(b->replayed_count, 1);
	assert_int_equal(b->replayed[0], 2);
	assert_int_equal(read(b->kernel, &out, sizeof(out)), sizeof(out));
	assert_int_equal(out.unique, 4);
	assert_int_equal(out.error, -EAGAIN);
	assert_int_equal(succeed(b), 0);
}

static void test_full(void **state)
{
	struct bench *b = *state;

	/* (D) */
	for (uint64_t i = 1; i <= PER_READER + 2; i++) {
		ask(b, i * 2, 50);
		take(b, 2, i * 2, 50);
		assert_int_equal(journal_is_complete(b->table), i <= PER_READER);
	}
	journal_answered(b->journal, 2 * (PER_READER + 1));
	assert_false(journal_is_complete(b->table));
	journal_answered(b->journal, 2 * (PER_READER + 2));
	assert_true(journal_is_complete(b->table));
	journal_answered(b->journal, 2 * 7);
	ask(b, 9998, 50);
	take(b, 2, 9998, 50);   /* there is room again */
	assert_true(journal_is_complete(b->table));
	journal_forget(b->journal);
	assert_int_equal(succeed(b), 0);
}

static void test_errors(void **state)
{
	struct bench *b = *state;
	void *message;

	/* the mount is gone: nothing is in flight */
	shutdown(b->kernel, SHUT_WR);
	assert_int_equal(journal_read(b->journal, 0, b->device, b->buf, BUFFER_BYTES, &message), 0);
	assert_int_equal(journal_read(b->journal, 0, -1, b->buf, BUFFER_BYTES, &message), -1);
	assert_int_equal(errno, EBADF);
	assert_int_equal(succeed(b), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_answered, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_ago, setup, teardown),
		cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full, setup, teardown),
		cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

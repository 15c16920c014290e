/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/handshake.h"
#include <string.h>
#include "fs/wire.h"

enum { FLAG_INIT_EXT = 1 << 30 };

struct init_in {
	uint32_t major, minor, max_readahead, flags, flags2, unused[11];
};

struct init_out {
	uint32_t major, minor, max_readahead, flags;
	uint16_t max_background, congestion_threshold;
	uint32_t max_write, time_gran;
	uint16_t max_pages, map_alignment;
	uint32_t flags2, max_stack_depth, unused[6];
};

_Static_assert(sizeof(struct init_in) == 64 && sizeof(struct init_out) == 64, "the kernel's layout");

void handshake_request(struct handshake *h, const void *buf, size_t len)
{
	struct in_header head;
	struct init_in in;

	if (len < sizeof(head))
		return;
	memcpy(&head, buf, sizeof(head));
	if (head.opcode != OPCODE_INIT)
		return;
	if (len >= sizeof(head) + sizeof(in)) {
		memcpy(&in, (const char *)buf + sizeof(head), sizeof(in));
		atomic_store(&h->offered, in.flags & FLAG_INIT_EXT ? in.flags2 : 0);
	}
	atomic_store(&h->unique, head.unique);
}

bool handshake_is_reply(struct handshake *h, const struct iovec *iov, int count)
{
	uint64_t unique = atomic_load_explicit(&h->unique, memory_order_relaxed);
	struct out_header head;

	if (!unique || !count || iov[0].iov_len < sizeof(head))
		return false;
	memcpy(&head, iov[0].iov_base, sizeof(head));
	return head.unique == unique;
}

static ssize_t replayed(struct handshake *h, const struct iovec *iov, int count)
{
	ssize_t n = 0;

	for (int i = 0; i < count; i++)
		n += (ssize_t)iov[i].iov_len;
	atomic_store(&h->unique, 0);
	atomic_store(&h->agreed, h->replay_agreed);
	return n;
}

ssize_t handshake_reply(struct handshake *h, int fd, const struct iovec *iov, int count)
{
	uint32_t agreed = atomic_load(&h->offered) & h->want;
	struct iovec patched[2];
	struct init_out out;
	ssize_t n;

	if (h->is_replay)
		return replayed(h, iov, count);
	/* an error, or an older kernel's shorter reply */
	if (!agreed || count != 2 || iov[1].iov_len != sizeof(out)) {
		n = writev(fd, iov, count);
		agreed = 0;
	} else {
		memcpy(&out, iov[1].iov_base, sizeof(out));
		out.flags |= FLAG_INIT_EXT;
		out.flags2 |= agreed;
		if (agreed & HANDSHAKE_PASSTHROUGH)
			out.max_stack_depth = h->stack_depth;
		patched[0] = iov[0];
		patched[1] = (struct iovec){ &out, sizeof(out) };
		n = writev(fd, patched, 2);
	}
	atomic_store(&h->unique, 0);
	atomic_store(&h->agreed, n < 0 ? 0 : agreed);
	return n;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "fs/handover.h"
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fs/handshake.h"
#include "lib/stats.h"

#define MAGIC "hopper-handover"

enum { STATS_ALIGN = 128 };

_Static_assert(sizeof(MAGIC) == sizeof(((struct handover *)0)->magic), "all of it is compared");

static size_t stats_offset(void)
{
	return (sizeof(struct handover) + STATS_ALIGN - 1) / STATS_ALIGN * STATS_ALIGN;
}

static size_t total_bytes(void)
{
	return stats_offset() + stats_bytes();
}

static struct handover *map(int fd)
{
	void *p = mmap(NULL, total_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

struct handover *handover_new(int *ret_fd)
{
	int fd = memfd_create("hopperfs-handover", MFD_CLOEXEC), err;
	struct handover *h = NULL;

	if (fd < 0)
		return NULL;
	if (!ftruncate(fd, (off_t)total_bytes()))
		h = map(fd);
	if (!h) {
		err = errno;
		close(fd);
		errno = err;
		return NULL;
	}
	memcpy(h->magic, MAGIC, sizeof(h->magic));
	h->format = HANDOVER_FORMAT;
	h->bytes = (uint32_t)total_bytes();
	*ret_fd = fd;
	return h;
}

struct handover *handover_map(int fd)
{
	struct handover *h;
	struct stat st;

	if (fstat(fd, &st))
		return NULL;
	h = (size_t)st.st_size == total_bytes() ? map(fd) : NULL;
	if (h && !memcmp(h->magic, MAGIC, sizeof(h->magic)) && h->format == HANDOVER_FORMAT && h->bytes == total_bytes())
		return h;
	if (h)
		munmap(h, total_bytes());
	errno = EPROTO;
	return NULL;
}

void *handover_stats(struct handover *h)
{
	return (char *)h + stats_offset();
}

bool handover_is_possible(const struct handover *h, const char **ret_why)
{
	uint32_t agreed = atomic_load(&h->agreed);

	if (!atomic_load(&h->init_len))
		*ret_why = "the kernel had not begun";
	else if (atomic_load(&h->is_lost))
		*ret_why = "the cache's index was damaged or is gone, and with it what the open files are";
	else if (agreed & HANDSHAKE_URING)
		*ret_why = "transport=uring cannot be taken over";
	else if (!(agreed & HANDSHAKE_RESEND) && !journal_is_complete(&h->journal))
		*ret_why = "it had more requests to answer than the journal holds, and this kernel does not send them again (Linux 6.9 does)";
	else
		return true;
	return false;
}

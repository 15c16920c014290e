/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/snapshot.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>
#include "lib/cleanup.h"
#include "lib/log.h"

#define MAGIC 0x31706e7365707068ULL

enum {
	SLOTS = 2, SLOT_STEP = 4096,   /* the older one is overwritten: one is always whole */
	META_BYTES = 1024,             /* of a meta page, the head: more than LMDB has in it */
	PATH_BYTES = 4200,
};

struct slot {
	uint64_t magic, seq, txn_id;
	uint32_t page_bytes, is_clean;
	char boot_id[40];
	uint8_t meta[META_BYTES];
	uint64_t checksum;             /* of all before */
};

static uint64_t checksum_of(const struct slot *slot)
{
	return XXH3_64bits(slot, offsetof(struct slot, checksum));
}

/* The newest slot that is whole. */
static int slot_read(int fd, struct slot *ret)
{
	bool has_one = false;

	for (unsigned i = 0; i < SLOTS; i++) {
		struct slot slot;

		if (pread(fd, &slot, sizeof(slot), (off_t)i * SLOT_STEP) != sizeof(slot) || slot.magic != MAGIC ||
		    slot.checksum != checksum_of(&slot) || (has_one && slot.seq < ret->seq))
			continue;
		*ret = slot;
		has_one = true;
	}
	return has_one ? 0 : -ENOENT;
}

/* Both meta pages: whichever LMDB looks at names the state that was kept. */
static int restore(const char *dir, const struct slot *slot)
{
	char path[PATH_BYTES];
	_cleanup_close_ int fd = -1;

	snprintf(path, sizeof(path), "%s/data.mdb", dir);
	fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	for (unsigned i = 0; i < 2; i++) {
		if (pwrite(fd, slot->meta, META_BYTES, (off_t)i * slot->page_bytes) != META_BYTES)
			return errno ? -errno : -EIO;
	}
	if (fdatasync(fd))
		return -errno;
	log_info("%s: the machine stopped; the index is as it was at its last sync", dir);
	return 1;
}

int snapshot_open(struct snapshot *s, const char *dir, const char *boot_id)
{
	char path[PATH_BYTES];
	struct slot slot;
	int rc = 0;

	*s = (struct snapshot){ .fd = -1 };
	snprintf(s->boot_id, sizeof(s->boot_id), "%s", boot_id);
	snprintf(path, sizeof(path), "%s/" SNAPSHOT_NAME, dir);
	s->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->fd < 0)
		return -errno;
	if (slot_read(s->fd, &slot))
		return 0;   /* none yet */
	s->seq = slot.seq;
	slot.boot_id[sizeof(slot.boot_id) - 1] = 0;
	if (!slot.is_clean && strcmp(slot.boot_id, s->boot_id))
		rc = restore(dir, &slot);
	return rc == -ENOENT ? 0 : rc;
}

/* Begin a read of the newest state, and copy its meta page: nobody commits meanwhile. */
static int pin_newest(MDB_env *env, MDB_txn **ret_pin, struct slot *slot)
{
	MDB_txn *writer;
	MDB_stat st = { 0 };
	int fd, rc = mdb_txn_begin(env, NULL, 0, &writer);

	if (rc)
		return rc;
	rc = mdb_txn_begin(env, NULL, MDB_RDONLY, ret_pin);
	if (!rc) {
		slot->txn_id = mdb_txn_id(*ret_pin);
		rc = mdb_env_get_fd(env, &fd);
		if (!rc)
			rc = mdb_env_stat(env, &st);
		slot->page_bytes = st.ms_psize;
		/* LMDB has the states of even numbers in the first page, of odd ones in the second */
		if (!rc && pread(fd, slot->meta, META_BYTES, (off_t)(slot->txn_id & 1) * st.ms_psize) != META_BYTES)
			rc = EIO;
		if (rc)
			mdb_txn_abort(*ret_pin);
	}
	mdb_txn_abort(writer);
	return rc;
}

int snapshot_take(struct snapshot *s, MDB_env *env, bool is_clean)
{
	struct slot slot = { .magic = MAGIC, .seq = s->seq + 1, .is_clean = is_clean };
	MDB_txn *pin;
	int rc = pin_newest(env, &pin, &slot);

	if (rc)
		return rc;
	memcpy(slot.boot_id, s->boot_id, sizeof(slot.boot_id));
	slot.checksum = checksum_of(&slot);
	rc = mdb_env_sync(env, 1);
	if (!rc && (pwrite(s->fd, &slot, sizeof(slot), (off_t)(slot.seq % SLOTS) * SLOT_STEP) != sizeof(slot) || fdatasync(s->fd)))
		rc = errno ? errno : EIO;
	if (rc) {
		mdb_txn_abort(pin);   /* the one before stays */
		return rc;
	}
	if (s->pin)
		mdb_txn_abort(s->pin);
	s->pin = pin;
	s->seq = slot.seq;
	return 0;
}

void snapshot_close(struct snapshot *s)
{
	if (s->pin)
		mdb_txn_abort(s->pin);
	s->pin = NULL;
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

MOUNT_TESTS = \
	tests/mount/acl.sh \
	tests/mount/away.sh \
	tests/mount/basic.sh \
	tests/mount/change.sh \
	tests/mount/counters.sh \
	tests/mount/crowd.sh \
	tests/mount/dirs.sh \
	tests/mount/epoch.sh \
	tests/mount/faults.sh \
	tests/mount/idle.sh \
	tests/mount/index.sh \
	tests/mount/jobs.sh \
	tests/mount/large.sh \
	tests/mount/matrix.sh \
	tests/mount/memory.sh \
	tests/mount/limits.sh \
	tests/mount/load.sh \
	tests/mount/options.sh \
	tests/mount/order.sh \
	tests/mount/outage.sh \
	tests/mount/pagecache.sh \
	tests/mount/passthrough.sh \
	tests/mount/permissions.sh \
	tests/mount/posix.sh \
	tests/mount/privileges.sh \
	tests/mount/profile.sh \
	tests/mount/records.sh \
	tests/mount/resume.sh \
	tests/mount/reuse.sh \
	tests/mount/security.sh \
	tests/mount/sets.sh \
	tests/mount/shards.sh \
	tests/mount/stats.sh \
	tests/mount/takeover.sh \
	tests/mount/tools.sh \
	tests/mount/torch.sh \
	tests/mount/uring.sh \
	tests/mount/user.sh
TESTS += $(MOUNT_TESTS)
dist_noinst_SCRIPTS += $(MOUNT_TESTS)
TESTS += tests/check-house tests/check-hardening
dist_noinst_SCRIPTS += tests/check-house tests/check-hardening
EXTRA_DIST += tests/mount/lib.sh tests/mount/matrix.py tests/run tests/setup tests/lint tests/lint.known

# preloaded into the daemon by uring.sh
check_PROGRAMS += tests/mount/uring_fault.so
tests_mount_uring_fault_so_SOURCES = tests/mount/uring_fault.c
tests_mount_uring_fault_so_CFLAGS = $(AM_CFLAGS) $(URING_CFLAGS) -fPIC
tests_mount_uring_fault_so_LDFLAGS = -shared
tests_mount_uring_fault_so_LDADD = -ldl

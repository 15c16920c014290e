dist_noinst_SCRIPTS += tests/vm/numa.sh tests/vm/placement.sh tests/vm/disks.sh tests/vm/pages.sh tests/vm/boot tests/vm/setup
EXTRA_DIST += tests/vm/init tests/vm/loader.py

# Not in check: five minutes of emulation. Where it cannot run it says SKIP and why.
.PHONY: check-numa fuzz
check-numa: hopperfs
	$(srcdir)/tests/vm/numa.sh || test $$? = 77

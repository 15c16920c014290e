dist_noinst_SCRIPTS += tests/vm/numa.sh tests/vm/placement.sh tests/vm/boot tests/vm/setup
EXTRA_DIST += tests/vm/init

# Not in check: a minute or two of emulation. Exit status 77: it cannot run here, with the reason.
.PHONY: check-numa
check-numa: hopperfs
	$(MAKE) $(AM_MAKEFLAGS) check TESTS=tests/vm/numa.sh

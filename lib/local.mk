noinst_LIBRARIES += libhopper_lib.a
libhopper_lib_a_SOURCES = \
	lib/acl.c lib/acl.h \
	lib/cleanup.h \
	lib/clock.h \
	lib/gpus.c lib/gpus.h \
	lib/hist.c lib/hist.h \
	lib/list.h \
	lib/locator.c lib/locator.h \
	lib/lock.c lib/lock.h \
	lib/log.c lib/log.h \
	lib/map64.c lib/map64.h \
	lib/parse.c lib/parse.h \
	lib/pool.c lib/pool.h \
	lib/stats.c lib/stats.h lib/stats.def \
	lib/strbuf.c lib/strbuf.h \
	lib/topology.c lib/topology.h
EXTRA_DIST += lib/README.md

noinst_LIBRARIES += libhopper_prefetch.a
libhopper_prefetch_a_SOURCES = \
	prefetch/prefetch.h
EXTRA_DIST += prefetch/README.md

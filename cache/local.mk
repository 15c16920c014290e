noinst_LIBRARIES += libhopper_cache.a
libhopper_cache_a_SOURCES = \
	cache/cache.h \
	cache/disk.h \
	cache/namespace.h \
	cache/store.h \
	cache/origin/origin.h
CACHE_LIBS = libhopper_cache.a libhopper_lib.a \
	$(URING_LIBS) $(LZ4_LIBS) $(LMDB_LIBS) $(XXHASH_LIBS) $(NUMA_LIBS)
EXTRA_DIST += cache/README.md

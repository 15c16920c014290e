noinst_LIBRARIES += libhopper_cache.a
libhopper_cache_a_SOURCES = \
	cache/cache.c cache/cache.h \
	cache/cachedir.c cache/cachedir.h \
	cache/cgroup.c cache/cgroup.h \
	cache/codec.c cache/codec.h \
	cache/dirs.c cache/dirs.h \
	cache/disk.c cache/disk.h \
	cache/diskio.c cache/diskio.h \
	cache/evict.c cache/evict.h \
	cache/extent.h \
	cache/fill.c \
	cache/hedge.c cache/hedge.h \
	cache/memory.c \
	cache/move.c \
	cache/namespace.c cache/namespace.h \
	cache/ns_record.c cache/ns_record.h \
	cache/own.c cache/own.h \
	cache/piece.c cache/piece.h \
	cache/ram.c cache/ram.h \
	cache/record.c \
	cache/request.c \
	cache/segment.c cache/segment.h \
	cache/snapshot.c cache/snapshot.h \
	cache/space.c \
	cache/store.c cache/store.h \
	cache/transfer.c \
	cache/volume.c cache/volume.h cache/volume_impl.h \
	cache/whole.c \
	cache/origin/fault.c \
	cache/origin/health.c cache/origin/health.h \
	cache/origin/kinds.h \
	cache/origin/origin.c cache/origin/origin.h \
	cache/origin/posix.c
CACHE_LIBS = libhopper_cache.a libhopper_lib.a \
	$(URING_LIBS) $(LZ4_LIBS) $(LMDB_LIBS) $(XXHASH_LIBS) $(NUMA_LIBS)
EXTRA_DIST += cache/README.md

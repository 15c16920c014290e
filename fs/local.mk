bin_PROGRAMS += hopperfs
hopperfs_SOURCES = \
	fs/main.c
hopperfs_CFLAGS = $(AM_CFLAGS) $(FUSE_CFLAGS)
hopperfs_LDADD = libhopper_prefetch.a $(CACHE_LIBS) $(FUSE_LIBS)
EXTRA_DIST += fs/README.md

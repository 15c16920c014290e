FUZZ_TARGETS = \
	tests/fuzz/accesses \
	tests/fuzz/listing \
	tests/fuzz/manifest \
	tests/fuzz/node \
	tests/fuzz/notes \
	tests/fuzz/options \
	tests/fuzz/request \
	tests/fuzz/text
check_PROGRAMS += $(FUZZ_TARGETS)
EXTRA_DIST += tests/fuzz/corpus tests/fuzz/run
FUZZ_LDADD = libhopper_prefetch.a $(CACHE_LIBS)
FUZZ_SOURCES = tests/fuzz/fuzz.c tests/fuzz/fuzz.h

if FUZZING
# FUZZ_SECONDS of each target, one after the other; what is found stands in tests/fuzz/NAME.found, what was learnt in NAME.corpus.
FUZZ_SECONDS = 60
fuzz: $(FUZZ_TARGETS)
	$(srcdir)/tests/fuzz/run $(FUZZ_SECONDS) $(FUZZ_TARGETS)
else
FUZZ_SOURCES += tests/fuzz/replay.c
TESTS += $(FUZZ_TARGETS)
endif

tests_fuzz_accesses_SOURCES = tests/fuzz/accesses.c $(FUZZ_SOURCES)
tests_fuzz_accesses_LDADD = $(FUZZ_LDADD)
tests_fuzz_accesses_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_manifest_SOURCES = tests/fuzz/manifest.c $(FUZZ_SOURCES)
tests_fuzz_manifest_LDADD = $(FUZZ_LDADD)
tests_fuzz_manifest_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_node_SOURCES = tests/fuzz/node.c $(FUZZ_SOURCES)
tests_fuzz_node_LDADD = $(FUZZ_LDADD)
tests_fuzz_node_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_notes_SOURCES = tests/fuzz/notes.c $(FUZZ_SOURCES)
tests_fuzz_notes_LDADD = $(FUZZ_LDADD)
tests_fuzz_notes_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_options_SOURCES = tests/fuzz/options.c fs/options.c $(FUZZ_SOURCES)
tests_fuzz_options_LDADD = $(FUZZ_LDADD)
tests_fuzz_options_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_text_SOURCES = tests/fuzz/text.c $(FUZZ_SOURCES)
tests_fuzz_text_LDADD = $(FUZZ_LDADD)
tests_fuzz_text_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
tests_fuzz_listing_SOURCES = tests/fuzz/listing.c $(FUZZ_SOURCES)
tests_fuzz_listing_LDADD = $(FUZZ_LDADD)
tests_fuzz_listing_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)
# fs without main and the session, which are a device's
tests_fuzz_request_SOURCES = tests/fuzz/request.c $(FUZZ_SOURCES) \
	fs/device.c fs/handover.c fs/handshake.c fs/journal.c fs/acl.c fs/ops.c fs/pagecache.c fs/passthrough.c fs/push.c fs/readahead.c fs/session.c fs/uring.c fs/wait.c fs/watch.c fs/xattr.c
tests_fuzz_request_CFLAGS = $(AM_CFLAGS) $(FUSE_CFLAGS)
tests_fuzz_request_LDADD = $(FUZZ_LDADD) $(FUSE_LIBS)
tests_fuzz_request_LDFLAGS = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)

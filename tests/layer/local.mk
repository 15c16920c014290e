LAYER_TESTS =
if HAVE_CMOCKA
LAYER_TESTS += \
	tests/layer/away \
	tests/layer/cache \
	tests/layer/crash \
	tests/layer/dirs \
	tests/layer/disk \
	tests/layer/hedge \
	tests/layer/memory \
	tests/layer/namespace \
	tests/layer/nomem \
	tests/layer/origin \
	tests/layer/recognise \
	tests/layer/store
endif
check_PROGRAMS += $(LAYER_TESTS)
TESTS += $(LAYER_TESTS)
LAYER_SOURCES = tests/layer/layer.c tests/layer/layer.h

tests_layer_away_SOURCES = tests/layer/away.c tests/layer/one.c tests/layer/one.h $(LAYER_SOURCES)
tests_layer_away_LDADD = $(UNIT_LDADD)
tests_layer_cache_SOURCES = tests/layer/cache.c tests/layer/one.c tests/layer/one.h $(LAYER_SOURCES)
tests_layer_cache_LDADD = $(UNIT_LDADD)
tests_layer_crash_SOURCES = tests/layer/crash.c tests/layer/record.c tests/layer/record.h tests/layer/one.c tests/layer/one.h $(LAYER_SOURCES)
tests_layer_crash_LDADD = $(UNIT_LDADD)
tests_layer_dirs_SOURCES = tests/layer/dirs.c $(LAYER_SOURCES)
tests_layer_dirs_LDADD = $(UNIT_LDADD)
tests_layer_disk_SOURCES = tests/layer/disk.c $(LAYER_SOURCES)
tests_layer_disk_LDADD = $(UNIT_LDADD)
tests_layer_hedge_SOURCES = tests/layer/hedge.c tests/layer/one.c tests/layer/one.h $(LAYER_SOURCES)
tests_layer_hedge_LDADD = $(UNIT_LDADD)
tests_layer_memory_SOURCES = tests/layer/memory.c tests/layer/one.c tests/layer/one.h $(LAYER_SOURCES)
tests_layer_memory_LDADD = $(UNIT_LDADD)
tests_layer_namespace_SOURCES = tests/layer/namespace.c $(LAYER_SOURCES)
tests_layer_namespace_LDADD = $(UNIT_LDADD)
tests_layer_nomem_SOURCES = tests/layer/nomem.c $(LAYER_SOURCES)
tests_layer_nomem_LDADD = $(UNIT_LDADD)
tests_layer_nomem_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=strdup
tests_layer_origin_SOURCES = tests/layer/origin.c $(LAYER_SOURCES)
tests_layer_origin_LDADD = $(UNIT_LDADD)
tests_layer_store_SOURCES = tests/layer/store.c $(LAYER_SOURCES)
tests_layer_store_LDADD = $(UNIT_LDADD)
tests_layer_recognise_SOURCES = tests/layer/recognise.c $(LAYER_SOURCES)
tests_layer_recognise_LDADD = $(UNIT_LDADD)

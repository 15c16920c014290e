check_PROGRAMS += tests/bench/epoch
tests_bench_epoch_SOURCES = tests/bench/epoch.c
tests_bench_epoch_LDADD = $(XXHASH_LIBS)

check_PROGRAMS += tests/bench/epoch
tests_bench_epoch_SOURCES = tests/bench/epoch.c
tests_bench_epoch_LDADD = $(XXHASH_LIBS)

check_PROGRAMS += tests/bench/slowfs
tests_bench_slowfs_SOURCES = tests/bench/slowfs.c
tests_bench_slowfs_CFLAGS = $(AM_CFLAGS) $(FUSE_CFLAGS)
tests_bench_slowfs_LDADD = $(CACHE_LIBS) $(FUSE_LIBS)
EXTRA_DIST += tests/demo tests/bench/run tests/bench/loader.py tests/bench/train.py

check_PROGRAMS += tests/bench/namespace
tests_bench_namespace_SOURCES = tests/bench/namespace.c
tests_bench_namespace_LDADD = $(CACHE_LIBS)

check_PROGRAMS += tests/bench/simulate
tests_bench_simulate_SOURCES = tests/bench/simulate.c
tests_bench_simulate_LDADD = libhopper_prefetch.a $(CACHE_LIBS) -lm
EXTRA_DIST += tests/bench/plot tests/bench/simulate.svg

check_PROGRAMS += tests/bench/permute
tests_bench_permute_SOURCES = tests/bench/permute.c
tests_bench_permute_LDADD = libhopper_prefetch.a libhopper_lib.a

check_PROGRAMS += tests/bench/observations
tests_bench_observations_SOURCES = tests/bench/observations.c
tests_bench_observations_LDADD = libhopper_prefetch.a $(CACHE_LIBS)

check_PROGRAMS += tests/bench/seeds
tests_bench_seeds_SOURCES = tests/bench/seeds.c
tests_bench_seeds_LDADD = libhopper_prefetch.a libhopper_lib.a

check_PROGRAMS += tests/bench/reader
tests_bench_reader_SOURCES = tests/bench/reader.c

check_PROGRAMS += tests/bench/nullfs
tests_bench_nullfs_SOURCES = tests/bench/nullfs.c
tests_bench_nullfs_CFLAGS = $(AM_CFLAGS) $(FUSE_CFLAGS)
tests_bench_nullfs_LDADD = $(FUSE_LIBS)
EXTRA_DIST += tests/bench/systems.py tests/bench/paths.py tests/bench/objects.py

check_PROGRAMS += tests/bench/diskread
tests_bench_diskread_SOURCES = tests/bench/diskread.c
tests_bench_diskread_LDADD = $(URING_LIBS)

UNIT_TESTS =
if HAVE_CMOCKA
UNIT_TESTS += \
	tests/unit/acl \
	tests/unit/containers \
	tests/unit/events \
	tests/unit/geometry \
	tests/unit/health \
	tests/unit/hedge \
	tests/unit/journal \
	tests/unit/manifest \
	tests/unit/neighbour \
	tests/unit/options \
	tests/unit/parse \
	tests/unit/prefetch \
	tests/unit/records \
	tests/unit/sampled \
	tests/unit/search \
	tests/unit/shuffle \
	tests/unit/stats \
	tests/unit/threads \
	tests/unit/topology \
	tests/unit/whereto
endif
check_PROGRAMS += $(UNIT_TESTS)
TESTS += $(UNIT_TESTS)
EXTRA_DIST += tests/unit/test.h
UNIT_LDADD = libhopper_prefetch.a $(CACHE_LIBS) $(CMOCKA_LIBS)

tests_unit_acl_SOURCES = tests/unit/acl.c
tests_unit_acl_LDADD = $(UNIT_LDADD)
tests_unit_containers_SOURCES = tests/unit/containers.c
tests_unit_containers_LDADD = $(UNIT_LDADD)
tests_unit_events_SOURCES = tests/unit/events.c fs/watch.c
tests_unit_events_LDADD = $(UNIT_LDADD)
tests_unit_geometry_SOURCES = tests/unit/geometry.c
tests_unit_geometry_LDADD = $(UNIT_LDADD)
tests_unit_health_SOURCES = tests/unit/health.c
tests_unit_health_LDADD = $(UNIT_LDADD)
tests_unit_hedge_SOURCES = tests/unit/hedge.c
tests_unit_hedge_LDADD = $(UNIT_LDADD)
tests_unit_journal_SOURCES = tests/unit/journal.c fs/journal.c
tests_unit_journal_LDADD = $(UNIT_LDADD)
tests_unit_manifest_SOURCES = tests/unit/manifest.c
tests_unit_manifest_LDADD = $(UNIT_LDADD)
tests_unit_neighbour_SOURCES = tests/unit/neighbour.c
tests_unit_neighbour_LDADD = $(UNIT_LDADD)
tests_unit_options_SOURCES = tests/unit/options.c fs/options.c
tests_unit_options_LDADD = $(UNIT_LDADD)
tests_unit_parse_SOURCES = tests/unit/parse.c
tests_unit_parse_LDADD = $(UNIT_LDADD)
tests_unit_prefetch_SOURCES = tests/unit/prefetch.c
tests_unit_prefetch_LDADD = $(UNIT_LDADD)
tests_unit_records_SOURCES = tests/unit/records.c
tests_unit_records_LDADD = $(UNIT_LDADD)
tests_unit_stats_SOURCES = tests/unit/stats.c
tests_unit_stats_LDADD = $(UNIT_LDADD)
tests_unit_threads_SOURCES = tests/unit/threads.c
tests_unit_threads_LDADD = $(UNIT_LDADD)
tests_unit_shuffle_SOURCES = tests/unit/shuffle.c
tests_unit_shuffle_LDADD = $(UNIT_LDADD)
tests_unit_sampled_SOURCES = tests/unit/sampled.c
tests_unit_sampled_LDADD = $(UNIT_LDADD)
tests_unit_search_SOURCES = tests/unit/search.c
tests_unit_search_LDADD = $(UNIT_LDADD)
tests_unit_topology_SOURCES = tests/unit/topology.c
tests_unit_topology_LDADD = $(UNIT_LDADD)
tests_unit_whereto_SOURCES = tests/unit/whereto.c
tests_unit_whereto_LDADD = $(UNIT_LDADD)
TESTS += tests/unit/vectors.sh
dist_noinst_SCRIPTS += tests/unit/vectors.sh

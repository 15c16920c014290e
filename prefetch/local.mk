noinst_LIBRARIES += libhopper_prefetch.a
libhopper_prefetch_a_SOURCES = \
	prefetch/follow.c prefetch/follow.h \
	prefetch/governor.c prefetch/governor.h \
	prefetch/observe.c prefetch/observe.h \
	prefetch/order.c prefetch/order.h \
	prefetch/plan.c prefetch/plan.h \
	prefetch/predictor.c prefetch/predictor.h \
	prefetch/prefetch.c prefetch/prefetch.h \
	prefetch/recognise.c prefetch/recognise.h \
	prefetch/records.c prefetch/records.h \
	prefetch/resume.c prefetch/resume.h \
	prefetch/search.c prefetch/search.h \
	prefetch/set.c prefetch/set.h \
	prefetch/sets.c prefetch/sets.h \
	prefetch/shuffle.c prefetch/shuffle.h \
	prefetch/stream.c prefetch/stream.h
EXTRA_DIST += prefetch/README.md

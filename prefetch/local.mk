noinst_LIBRARIES += libhopper_prefetch.a
libhopper_prefetch_a_SOURCES = \
	prefetch/accesses.c \
	prefetch/advice.c \
	prefetch/engine.h \
	prefetch/issue.c \
	prefetch/move.c \
	prefetch/remember.c \
	prefetch/report.c \
	prefetch/ahead.c prefetch/ahead.h \
	prefetch/family.c prefetch/family.h \
	prefetch/follow.c prefetch/follow.h \
	prefetch/governor.c prefetch/governor.h \
	prefetch/jobs.c prefetch/jobs.h \
	prefetch/lists.c prefetch/lists.h \
	prefetch/manifest.c prefetch/manifest.h \
	prefetch/maps.c prefetch/maps.h \
	prefetch/neighbour.c prefetch/neighbour.h \
	prefetch/observe.c prefetch/observe.h \
	prefetch/order.c prefetch/order.h \
	prefetch/plan.c prefetch/plan.h \
	prefetch/predictor.c prefetch/predictor.h \
	prefetch/prefetch.c prefetch/prefetch.h \
	prefetch/profile.c prefetch/profile.h \
	prefetch/recognise.c prefetch/recognise.h \
	prefetch/records.c prefetch/records.h \
	prefetch/resume.c prefetch/resume.h \
	prefetch/sampled.c prefetch/sampled.h \
	prefetch/search.c prefetch/search.h \
	prefetch/set.c prefetch/set.h \
	prefetch/sets.c prefetch/sets.h \
	prefetch/shuffle.c prefetch/shuffle.h \
	prefetch/stream.c prefetch/stream.h \
	prefetch/whereto.c prefetch/whereto.h
EXTRA_DIST += prefetch/README.md

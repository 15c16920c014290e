STRESS_TESTS = \
	tests/stress/soak
TESTS += $(STRESS_TESTS)
dist_noinst_SCRIPTS += $(STRESS_TESTS)
# the short form
AM_TESTS_ENVIRONMENT = SOAK_S=$${SOAK_S:-15}; export SOAK_S;

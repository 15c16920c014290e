dist_man_MANS += man/hopperfs.8 man/hopperfs-prefetch.7
nodist_man_MANS = man/hopperfs-stats.7
EXTRA_DIST += man/stats.awk
CLEANFILES += man/hopperfs-stats.7

man/hopperfs-stats.7: $(srcdir)/man/stats.awk $(srcdir)/lib/stats.def
	$(AM_V_GEN)$(MKDIR_P) man && LC_ALL=C awk -f $(srcdir)/man/stats.awk $(srcdir)/lib/stats.def >$@.tmp && mv $@.tmp $@

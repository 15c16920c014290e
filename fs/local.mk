bin_PROGRAMS += hopperfs
hopperfs_SOURCES = \
	fs/acl.c fs/acl.h \
	fs/device.c fs/device.h \
	fs/fs.h \
	fs/handover.c fs/handover.h \
	fs/handshake.c fs/handshake.h \
	fs/journal.c fs/journal.h \
	fs/keeper.c fs/keeper.h \
	fs/main.c \
	fs/ops.c \
	fs/options.c fs/options.def fs/options.h \
	fs/pagecache.c \
	fs/passthrough.c fs/passthrough.h \
	fs/privileges.c fs/privileges.h \
	fs/push.c fs/push.h \
	fs/readahead.c fs/readahead.h \
	fs/server.c fs/server.h \
	fs/session.c \
	fs/uring.c fs/uring.h \
	fs/wait.c fs/wait.h \
	fs/watch.c fs/watch.h \
	fs/wire.h \
	fs/xattr.c
hopperfs_CFLAGS = $(AM_CFLAGS) $(FUSE_CFLAGS)
hopperfs_LDADD = libhopper_prefetch.a $(CACHE_LIBS) $(FUSE_LIBS)
EXTRA_DIST += fs/README.md

# mount(8) looks for its helpers in /sbin, whatever the prefix. Who installs
# without the right to write there gets everything but that link.
mounthelperdir = @mounthelperdir@
AM_DISTCHECK_CONFIGURE_FLAGS = --with-mounthelperdir='$$prefix/sbin'
install-exec-hook:
	@if $(MKDIR_P) $(DESTDIR)$(mounthelperdir) && \
	    ln -sf $(bindir)/hopperfs $(DESTDIR)$(mounthelperdir)/mount.hopperfs; then :; else \
		echo "note: without $(mounthelperdir)/mount.hopperfs, mount(8) and fstab do not know hopperfs"; fi
uninstall-hook:
	rm -f $(DESTDIR)$(mounthelperdir)/mount.hopperfs

# HOPPER_WARNINGS
# Warnings are always on; --enable-werror makes them errors, as CI does, so
# that a newer compiler's warning never breaks a user's build.
AC_DEFUN([HOPPER_WARNINGS], [
  AC_ARG_ENABLE([werror],
    [AS_HELP_STRING([--enable-werror], [treat compiler warnings as errors])])
  HOPPER_CFLAGS="-Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla -Wformat=2 -Wno-unused-parameter"
  AS_IF([test "x$enable_werror" = xyes], [HOPPER_CFLAGS="$HOPPER_CFLAGS -Werror"])
  AC_SUBST([HOPPER_CFLAGS])
])

# HOPPER_SANITIZER
# --with-sanitizer=address,undefined or =thread instruments every program.
# Otherwise the hardening flags that a sanitizer would fight with are on.
AC_DEFUN([HOPPER_SANITIZER], [
  AC_ARG_WITH([sanitizer],
    [AS_HELP_STRING([--with-sanitizer=LIST],
      [instrument with these sanitizers, for example address,undefined or thread])],
    [], [with_sanitizer=no])
  AS_IF([test "x$with_sanitizer" = xno],
    [SANITIZER_CFLAGS="-D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE"
     SANITIZER_LDFLAGS="-pie -Wl,-z,relro,-z,now"],
    [SANITIZER_CFLAGS="-fsanitize=$with_sanitizer -fno-sanitize-recover=all -fno-omit-frame-pointer -DHOPPER_DEBUG"
     SANITIZER_LDFLAGS="-fsanitize=$with_sanitizer"])
  AC_ARG_ENABLE([debug-checks],
    [AS_HELP_STRING([--enable-debug-checks], [check the lock order and costly invariants at run time])])
  AS_IF([test "x$enable_debug_checks" = xyes], [SANITIZER_CFLAGS="$SANITIZER_CFLAGS -DHOPPER_DEBUG"])
  AC_SUBST([SANITIZER_CFLAGS])
  AC_SUBST([SANITIZER_LDFLAGS])
])

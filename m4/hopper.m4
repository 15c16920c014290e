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

# HOPPER_TAKES(VARIABLE, FLAG, MODE)
# Append FLAG to VARIABLE if the compiler (MODE compile) or the linker (MODE link) takes it without a word.
AC_DEFUN([HOPPER_TAKES], [
  AC_MSG_CHECKING([for $2])
  hopper_saved="$CFLAGS"
  CFLAGS="$CFLAGS -Werror $2"
  m4_if([$3], [link],
    [AC_LINK_IFELSE([AC_LANG_PROGRAM([@%:@include <string.h>], [])], [hopper_takes=yes], [hopper_takes=no])],
    [AC_COMPILE_IFELSE([AC_LANG_PROGRAM([@%:@include <string.h>], [])], [hopper_takes=yes], [hopper_takes=no])])
  CFLAGS="$hopper_saved"
  AS_IF([test $hopper_takes = yes], [$1="$$1 $2"])
  AC_MSG_RESULT([$hopper_takes])
])

# HOPPER_HARDENING
# What makes a mistake harder to use. tests/check-hardening looks for each in the program.
AC_DEFUN([HOPPER_HARDENING], [
  HARDENING_CFLAGS= HARDENING_LDFLAGS=
  HOPPER_TAKES([HARDENING_CFLAGS], [-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3], [compile])
  AS_IF([test $hopper_takes = no],
    [HOPPER_TAKES([HARDENING_CFLAGS], [-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2], [compile])])
  HOPPER_TAKES([HARDENING_CFLAGS], [-fstack-protector-strong], [link])
  HOPPER_TAKES([HARDENING_CFLAGS], [-fstack-clash-protection], [link])
  HOPPER_TAKES([HARDENING_CFLAGS], [-fcf-protection=full], [link])
  HOPPER_TAKES([HARDENING_CFLAGS], [-mbranch-protection=standard], [link])
  HARDENING_CFLAGS="$HARDENING_CFLAGS -fPIE"
  HOPPER_TAKES([HARDENING_LDFLAGS], [-pie], [link])
  HOPPER_TAKES([HARDENING_LDFLAGS], [-Wl,-z,relro,-z,now], [link])
  HOPPER_TAKES([HARDENING_LDFLAGS], [-Wl,-z,noexecstack], [link])
])

# HOPPER_FUZZING
# --enable-fuzzing: tests/fuzz with libFuzzer's main, everything instrumented (make fuzz). Needs clang.
AC_DEFUN([HOPPER_FUZZING], [
  AC_ARG_ENABLE([fuzzing],
    [AS_HELP_STRING([--enable-fuzzing], [build the fuzz targets for libFuzzer (CC=clang); see HACKING.md])])
  FUZZ_LDFLAGS=
  AS_IF([test "x$enable_fuzzing" = xyes], [
    FUZZ_LDFLAGS=-fsanitize=fuzzer
    hopper_saved="$CFLAGS"
    CFLAGS="$CFLAGS -fsanitize=fuzzer"
    AC_MSG_CHECKING([for libFuzzer])
    AC_LINK_IFELSE([AC_LANG_SOURCE([int LLVMFuzzerTestOneInput(const void *data, __SIZE_TYPE__ size) { return !data && size; }])],
      [AC_MSG_RESULT([yes])], [AC_MSG_RESULT([no])
      AC_MSG_ERROR([--enable-fuzzing needs CC=clang and its run-time library (libclang-rt-dev)])])
    CFLAGS="$hopper_saved"
    AS_IF([test "x$with_sanitizer" = x], [with_sanitizer=fuzzer-no-link,address,undefined])
  ])
  AM_CONDITIONAL([FUZZING], [test "x$enable_fuzzing" = xyes])
  AC_SUBST([FUZZ_LDFLAGS])
])

# HOPPER_SANITIZER
# --with-sanitizer=address,undefined or =thread instruments every program.
# Otherwise the hardening flags that a sanitizer would fight with are on.
AC_DEFUN([HOPPER_SANITIZER], [
  AC_ARG_WITH([sanitizer],
    [AS_HELP_STRING([--with-sanitizer=LIST],
      [instrument with these sanitizers, for example address,undefined or thread])],
    [], [with_sanitizer=${with_sanitizer-no}])
  AS_IF([test "x$with_sanitizer" = xno],
    [HOPPER_HARDENING
     SANITIZER_CFLAGS="$HARDENING_CFLAGS"
     SANITIZER_LDFLAGS="$HARDENING_LDFLAGS"],
    [SANITIZER_CFLAGS="-fsanitize=$with_sanitizer -fno-sanitize-recover=all -fno-omit-frame-pointer -DHOPPER_DEBUG"
     SANITIZER_LDFLAGS="-fsanitize=$with_sanitizer"])
  AC_ARG_ENABLE([debug-checks],
    [AS_HELP_STRING([--enable-debug-checks], [check the lock order and costly invariants at run time])])
  AS_IF([test "x$enable_debug_checks" = xyes], [SANITIZER_CFLAGS="$SANITIZER_CFLAGS -DHOPPER_DEBUG"])
  AC_SUBST([HARDENING_CFLAGS])
  AC_SUBST([HARDENING_LDFLAGS])
  AC_SUBST([SANITIZER_CFLAGS])
  AC_SUBST([SANITIZER_LDFLAGS])
])

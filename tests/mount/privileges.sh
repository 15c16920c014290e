#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What the daemon may do while it serves: the capabilities of fs/privileges.c on each of its threads, no way to more,
# and no system call that it never makes. What it has to do for other users it still can.
. "$(dirname "$0")/lib.sh"

need_root
command -v setpriv >/dev/null || skip "setpriv is not installed"
id nobody >/dev/null 2>&1 || skip "there is no user nobody"
sealed=2
case $(getconf LONG_BIT)-$(uname -m) in 64-x86_64 | 64-aarch64) ;; *) sealed=0 ;; esac
is_sanitized && sealed=0

# Others' files, in a directory of another's; the cache below one of another's too.
head -c 300000 /dev/urandom >"$origin/private"
head -c 3000000 /dev/urandom >"$origin/large"
chmod 600 "$origin/private" && chmod 700 "$origin" && chown -R nobody "$origin"
mkdir "$scratch/others" && chown nobody "$scratch/others" && chmod 755 "$scratch/others"
touch -a -d '2001-01-01' "$origin/private" "$origin/large"
accessed=$(stat -c %X "$origin/large")
cache=$scratch/others/below/cache
start "$origin"
cmp "$origin/private" "$mnt/private" || fail "another user's file"
cat "$mnt/large" >/dev/null || fail "a large file"
check "$(stat -c %X "$origin/large")" -eq "$accessed" "the origin's access time"

# dac_read_search 2, fowner 3, sys_ptrace 19, sys_admin 21
keep=$(printf %016x $((1 << 2 | 1 << 3 | 1 << 19 | 1 << 21)))
field() { awk -v f="$1:" '$1 == f { print $2 }' "$2"; }
# may be less where the caller had less
mine=$(printf %016x $((0x$keep & 0x$(field CapPrm /proc/self/status))))
threads=0
for status in /proc/"$(server_pid)"/task/*/status; do
	check "$(field CapPrm "$status")" = "$mine" "permitted capabilities of $(field Name "$status")"
	check "$(field CapEff "$status")" = "$mine" "effective capabilities of $(field Name "$status")"
	check "$((0x$(field CapBnd "$status") & ~0x$keep))" -eq 0 "bounding set of $(field Name "$status")"
	check "$(field CapInh "$status")" = 0000000000000000 "inheritable capabilities"
	check "$(field CapAmb "$status")" = 0000000000000000 "ambient capabilities"
	check "$(field NoNewPrivs "$status")" -eq 1 "no_new_privs of $(field Name "$status")"
	check "$(field Seccomp "$status")" -eq "$sealed" "system calls of $(field Name "$status")"
	threads=$((threads + 1))
done
check "$threads" -ge 5 "threads looked at"
text=$(stats | /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["privileges"])')
[ "$mine" != "$keep" ] || [ "${text%, sealed}" = "dac_read_search fowner sys_ptrace sys_admin" ] || fail "statistics say $text"
[ $sealed = 0 ] || [ "$text" != "${text%, sealed}" ] || fail "statistics say $text"
# No core file would show what others may not see.
check "$(stat -c %u /proc/"$(server_pid)"/mem)" -eq 0 "owner of the daemon's memory"
if [ "$(stat_of passthrough)" = True ]; then
	wait_for 'cat "$mnt/large" >/dev/null; [ "$(stat_of reads.passthrough_opens)" -ge 1 ]' || fail "no file is lent to the kernel any more"
fi
stop
start "$origin"
cmp "$origin/private" "$mnt/private" || fail "after a second mount"
stop

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An ordinary user mounts through fusermount3.
. "$(dirname "$0")/lib.sh"

need_root
command -v setpriv >/dev/null || skip "setpriv is not installed"
id nobody >/dev/null 2>&1 || skip "there is no user nobody"
mode=$(stat -c %a /dev/fuse)
if [ "$mode" != 666 ]; then
	chmod 666 /dev/fuse || skip "/dev/fuse is closed to users"
	trap 'chmod "$mode" /dev/fuse; cleanup' EXIT
fi
[ -u "$(command -v fusermount3)" ] || skip "fusermount3 is not set-uid"
make_files 50 50000 2
head -c 3000000 /dev/urandom >"$origin/large"
chmod -R a+rX "$scratch" && chown nobody "$scratch" "$mnt"
cp "$hopperfs" "$scratch/hopperfs"
as_nobody() { setpriv --reuid nobody --regid nogroup --clear-groups env HOME="$scratch" "$@"; }
as_nobody "$scratch/hopperfs" "$origin" "$mnt" -o "cache=$cache,open=passthrough,log=info:$scratch/user.log" || fail "mount as a user"
daemon_pid=$(pgrep -o -u nobody -f "$scratch/hopperfs")
as_nobody diff -r "$origin" "$mnt" || fail "contents"
kib_ahead() { cat "/sys/class/bdi/$(awk -v m="$mnt" '$5 == m { print $3 }' /proc/self/mountinfo | tail -n 1)/read_ahead_kb"; }
check "$(kib_ahead)" = 128 "read-ahead: the kernel's own, which a user cannot exceed"
# without privileges the daemon serves what the kernel could read itself, and says why
as_nobody cmp "$origin/large" "$mnt/large" || fail "a large file once more"
grep -q 'opened by the daemon: .*\(does not offer\|CAP_SYS_ADMIN\)' "$scratch/user.log" || fail "$(cat "$scratch/user.log")"
grep -q '"passthrough_opens": 0,' <<<"$(as_nobody getfattr -n user.hopper.stats --only-values --absolute-names "$mnt")" || fail "opens by the kernel"
ls "$mnt" >/dev/null 2>&1 && fail "another user sees the mount"
grep -q '"passthrough": *false' <<<"$(as_nobody getfattr -n user.hopper.stats --only-values --absolute-names "$mnt")" || fail "stats"
# killed, another takes over
user_stats() { as_nobody getfattr -n user.hopper.stats --only-values --absolute-names "$mnt"; }
kill -9 "$(server_pid)"
wait_for 'user_stats 2>/dev/null | grep -q "\"restarts\": 1,"' || fail "nobody took over"
as_nobody diff -r "$origin" "$mnt" || fail "contents after it"
as_nobody fusermount3 -u "$mnt" || fail "unmount"
wait_for '! kill -0 $daemon_pid 2>/dev/null' || fail "the daemon stays"
daemon_pid=
# less than that is a user's to choose
as_nobody "$scratch/hopperfs" "$origin" "$mnt" -o "cache=$cache,read_ahead=16K" || fail "mount with read_ahead="
daemon_pid=$(pgrep -o -u nobody -f "$scratch/hopperfs")
check "$(kib_ahead)" = 16 "read-ahead of a user who asked for less"
as_nobody diff -r "$origin" "$mnt" || fail "contents with little read-ahead"
as_nobody fusermount3 -u "$mnt" || fail "unmount"
wait_for '! kill -0 $daemon_pid 2>/dev/null' || fail "the daemon stays"
daemon_pid=

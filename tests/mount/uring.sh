#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Requests through io_uring: same bytes, exactly counted, and /dev/fuse where the kernel does not offer it.
. "$(dirname "$0")/lib.sh"

need_root
switch=/sys/module/fuse/parameters/enable_uring
[ -w $switch ] || skip "the kernel has no FUSE over io_uring ($switch)"
was=$(cat $switch)
trap 'status=$?; echo "$was" >$switch; (exit $status); cleanup' EXIT

make_files 40 40000 2

# transport_is WORD: as the statistics and their reason say
transport_is() { check "$(stat_of transport)" = "$1" "transport ($(stat_of transport_why))"; }

echo N >$switch
start "$origin" transport=uring,open=daemon
transport_is dev
grep -q '/dev/fuse: the kernel does not offer io_uring' "$scratch/log" || fail "the log does not say why /dev/fuse serves"
check "$(stat_of uring.requests)" -eq 0
same_tree "over /dev/fuse"
stop

echo Y >$switch
rm -rf "$cache"
start "fault:read=20ms:$origin" transport=uring,open=daemon,prefetch=off
grep -q 'no io_uring' "$scratch/log" && skip "$(grep -m1 'no io_uring' "$scratch/log")"
transport_is uring
# every file comes late, so another thread than the queue's answers each
before=$(stat_of uring.handed_off)
cat "$mnt"/class*/* >/dev/null
after=$(stat_of uring.handed_off)
check "$((after - before))" -ge 40 "answers handed off"
same_tree "what came through io_uring"

# one reader, warm: per file one open, one read, one release, all answered on the queue's thread
cat "$mnt"/class00/* >/dev/null
requests=$(stat_of reads.requests) opens=$(stat_of reads.opens)
handed=$(stat_of uring.handed_off)
drop_page_cache
cat "$mnt"/class00/* >/dev/null
check "$(($(stat_of reads.opens) - opens))" -eq 20 "opens of 20 files"
check "$(($(stat_of reads.requests) - requests))" -ge 20 "reads of 20 files"
check "$(stat_of uring.handed_off)" -eq "$handed" "hits answered elsewhere"

# readers on every processor, also while many requests wait for the origin
rm -rf "$scratch/copy"
for i in 1 2 3 4 5 6 7 8; do cat "$mnt"/class*/* | cksum >"$scratch/sum$i" & pids="${pids:-} $!"; done
wait $pids
cat "$origin"/class*/* | cksum >"$scratch/sum"
for i in 1 2 3 4 5 6 7 8; do cmp "$scratch/sum" "$scratch/sum$i" || fail "reader $i saw other bytes"; done
stop

# readers on every processor, also where the daemon began on one alone
start_on_one() {
	local hopper=$hopperfs

	hopperfs=$scratch/on_one
	printf '#!/bin/sh\nexec taskset -c 0 %s "$@"\n' "$hopper" >"$hopperfs"
	chmod 755 "$hopperfs"
	start "$@"
	hopperfs=$hopper
}
rm -rf "$cache"
start_on_one "$origin" transport=uring
transport_is uring
for cpu in $(seq 0 $(($(nproc) - 1))); do
	taskset -c "$cpu" diff -r "$origin" "$mnt" >/dev/null || fail "a reader on processor $cpu"
done
stop

# who waits for an origin that hangs can be killed here too
rm -rf "$cache"
control=$scratch/control
echo "" >"$control"
start "fault:control=$control:$origin" transport=uring,open=daemon,prefetch=off,timeout=1000
transport_is uring
ls "$mnt/class00" >/dev/null
echo meta_hang=1 >"$control.new" && mv "$control.new" "$control"
stat "$mnt/class01/img00001.bin" >/dev/null 2>&1 &
reader=$!
wait_for "grep -q 'fuse\|request_wait' /proc/$reader/wchan 2>/dev/null" 10 || fail "the reader does not wait"
kill -9 $reader
wait_for "! kill -0 $reader 2>/dev/null" 10 || fail "a reader cannot be killed"
check "$(stat_of waits.interrupted)" -ge 1 "requests of killed readers"
echo "" >"$control.new" && mv "$control.new" "$control"
stop

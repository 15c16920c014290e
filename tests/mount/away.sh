#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An origin whose metadata or data hangs, each reader kind: what is known goes on,
# the rest ends at timeout=, who is killed is gone, unmount works, and it comes back.
. "$(dirname "$0")/lib.sh"

make_files 30 50000 3
mkdir "$origin/unknown" && echo x >"$origin/unknown/file" && ln -s file "$origin/unknown/link"
control=$scratch/control
set_faults() { echo "$1" >"$control.new" && mv "$control.new" "$control"; }

# killed COMMAND...: starts it, waits until it hangs in the mount, kills it
killed() {
	local pid

	"$@" >/dev/null 2>&1 &
	pid=$!
	wait_for "grep -q 'fuse\|request_wait' /proc/$pid/wchan 2>/dev/null" 10 || fail "$* does not hang"
	stats >/dev/null   # is answered after the daemon has taken the request: before, the kernel just drops it
	kill -9 $pid
	wait_for "! kill -0 $pid 2>/dev/null" 10 || fail "$* cannot be killed"
	wait $pid 2>/dev/null
}

for open in daemon auto; do
	rm -rf "$cache"
	set_faults ""
	start "fault:control=$control:$origin" "open=$open,prefetch=off,timeout=1000,meta_ttl=1ms"
	cmp "$origin/class00/img00000.bin" "$mnt/class00/img00000.bin" || fail "before"
	set_faults "meta_hang=1,hang=1"
	killed stat "$mnt/unknown/file"
	killed ls "$mnt/unknown"
	killed cat "$mnt/unknown/file"
	timeout 60 stat -f "$mnt" >/dev/null || fail "statfs, which umount asks for, waits for the origin"
	check "$(stat_of waits.interrupted)" -ge 3 "requests of killed readers"
	# nothing was answered for five seconds: what is known is shown without asking
	wait_for '[ "$(stat_of origin.state)" = down ]' 20 || fail "the origin is not seen to be down"
	cmp "$origin/class00/img00000.bin" "$mnt/class00/img00000.bin" || fail "cached data, with the origin down"
	[ "$(ls "$mnt/class00" | wc -l)" = 10 ] || fail "a known listing"
	check "$(stat_of namespace.unchecked)" -ge 1 "answers without a check"
	set_faults ""
	wait_for '[ "$(stat_of origin.state)" != down ]' 20 || fail "it does not come back"
	same_tree "after it came back"
	check "$(stat_of origin.went_down)" -eq 1 "times down"
	check "$(stat_of reads.errors)" -eq 0 "reads failed"
	set_faults "meta_hang=1"
	stop
done

# timeout=: the unknown ends with EIO, in every way of asking
rm -rf "$cache"
set_faults ""
start "fault:control=$control:$origin" "prefetch=off,timeout=1,meta_ttl=1h"
ls "$mnt/class00" >/dev/null
set_faults "meta_hang=1,hang=1"
fails_with_eio() {
	"$@" >/dev/null 2>"$scratch/err" && fail "$* succeeded"
	grep -q 'Input/output error' "$scratch/err" || fail "$*: $(cat "$scratch/err")"
}
fails_with_eio stat "$mnt/unknown/file"
fails_with_eio ls "$mnt/class01"
fails_with_eio cat "$mnt/class00/img00000.bin"
fails_with_eio dd if="$mnt/class00/img00003.bin" iflag=direct bs=4096 count=1
# a read's time is over in the cache and in the wait at the same moment: either may end it
check "$(stat_of waits.expired)" -ge 2 "metadata requests whose time was over"
check "$(stat_of reads.errors)" -ge 2 "reads whose time was over"
set_faults ""
wait_for 'cmp -s "$origin/class00/img00000.bin" "$mnt/class00/img00000.bin"' 20 || fail "not readable after it came back"
same_tree
stop

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The prefetcher leaves an origin alone that is down, and goes on by itself when it is back; metadata requests that are
# lost, as many as there may be, keep nobody else from asking.
. "$(dirname "$0")/lib.sh"

files=2000
make_files $files 20000 1
control=$scratch/control
set_faults() { echo "$1" >"$control.new" && mv "$control.new" "$control"; }

set_faults "read=100ms"
start "fault:control=$control:$origin" "meta_ttl=1h,timeout=1000,origin_parallel=2"
for f in "$mnt"/class00/*00.bin; do cat "$f" >/dev/null || fail "$f"; done
wait_for '[ "$(stat_of prefetch.issued)" -ge 20 ]' || fail "nothing is fetched ahead"
set_faults "read=1ms,error=1,meta_error=1"
wait_for '[ "$(stat_of origin.state)" = down ]' || fail "the origin is not seen to be down"
probed() {
	local before

	before=$(stat_of origin.meta_requests)
	wait_for '[ "$(stat_of origin.meta_requests)" -ge '$((before + $1))' ]' 30 || fail "it is not probed"
}
probed 2   # what was under way has ended, well or not
failed=$(stat_of prefetch.failed)
probed 3
check "$(stat_of prefetch.failed)" -eq "$failed" "fetched ahead in vain while it is down"
issued=$(stat_of prefetch.issued)
[ "$(stat_of disk.objects)" -lt $files ] || fail "all was there before: the test shows nothing"
set_faults ""
wait_for '[ "$(stat_of origin.state)" = ok ] && [ "$(stat_of prefetch.issued)" -ge $((issued + 20)) ]' 60 ||
	fail "prefetch does not go on"
check "$(stat_of reads.errors)" -eq 0 "reads failed"
same_tree "after it came back"
stop

# More requests are lost than the pool has threads; who asked for them was killed
for i in $(seq 100); do mkdir "$origin/lost$i" && echo "$i" >"$origin/lost$i/file"; done
mkdir "$origin/there" && echo x >"$origin/there/file"
rm -rf "$cache"
set_faults ""
start "fault:control=$control:$origin" "prefetch=off,timeout=1000,meta_ttl=1h"
ls "$mnt" >/dev/null
set_faults "meta_lost=1"
pids=()
for i in $(seq 100); do
	stat "$mnt/lost$i/file" >/dev/null 2>&1 &
	pids+=($!)
done
in_fuse() { local n=0 p; for p in "${pids[@]}"; do grep -q 'fuse\|request_wait' "/proc/$p/wchan" && n=$((n + 1)); done; [ $n = 100 ]; }
wait_for in_fuse 30 || fail "they do not hang"
set_faults ""
kill -9 "${pids[@]}"
wait "${pids[@]}" 2>/dev/null
check "$(stat_of waits.interrupted)" -ge 64 "requests of killed readers"
timeout 30 cat "$mnt/there/file" >/dev/null || fail "a directory nobody knew: its request waits behind those that are lost"
for i in 1 50 100; do timeout 30 cmp "$origin/there/file" "$mnt/there/file" || fail "there"; done
stop

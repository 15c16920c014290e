#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A mount under load: readers, listings, statistics and eviction at once.
# Also run with every sanitizer; their reports end the daemon with an error.
LIMIT_S=300
. "$(dirname "$0")/lib.sh"

make_files 300 70000 3
head -c 6000000 /dev/urandom >"$origin/big"
export TSAN_OPTIONS="halt_on_error=1 exitcode=66 ${TSAN_OPTIONS:-}" ASAN_OPTIONS="exitcode=66 ${ASAN_OPTIONS:-}"
start "fault:read=2ms,error=50,bw=200M:$origin" "size=14M,ram=6M,meta_ttl=1,timeout=60"
pids=()
for reader in 1 2 3 4; do
	(for round in 1 2; do
		find "$origin" -type f -printf '%P\n' | shuf --random-source=<(yes "$reader$round") |
			while read -r f; do cmp "$origin/$f" "$mnt/$f" || exit 1; done || exit 1
	done) &
	pids+=($!)
done
(while stats >/dev/null; do ls -lR "$mnt" >/dev/null; sleep 0.05; done) 2>/dev/null &
watcher=$!
for pid in "${pids[@]}"; do wait "$pid" || fail "a reader failed"; done
kill $watcher; wait $watcher 2>/dev/null
check "$(stat_of reads.errors)" -eq 0
wait_for 'umount "$mnt" 2>/dev/null || fusermount3 -u "$mnt" 2>/dev/null' 20 || fail "umount"
wait "$daemon_pid"
check $? -eq 0 "status of the daemon"
daemon_pid=
check_deaths
grep -E 'Sanitizer|runtime error' "$scratch/log" && fail "sanitizer report"
exit 0

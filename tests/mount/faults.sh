#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An origin that fails, hangs, or changes under a reader.
. "$(dirname "$0")/lib.sh"

make_files 120 50000 3
start "fault:error=7,read=1ms:$origin" timeout=20
same_tree "every 7th request failed"
check "$(stat_of origin.errors)" -ge 10 "errors seen"
check "$(stat_of reads.errors)" -eq 0 "errors passed on"
stop
rm -rf "$cache"
start "fault:short=5:$origin" timeout=20
same_tree "every 5th request was short"
stop
rm -rf "$cache"

# A hanging origin: what is cached goes on, a reader can be killed, unmount works.
start "fault:hang=31:$origin" prefetch=off,timeout=1000
for f in "$origin"/class00/*; do echo "${f#"$origin"/}"; done | head -30 >"$scratch/list"
while read -r f; do cmp "$origin/$f" "$mnt/$f" || fail "$f"; done <"$scratch/list"
cat "$mnt/class01/"* >/dev/null 2>&1 &
reader=$!
wait_for '[ "$(stat_of origin.in_flight)" -ge 1 ]' || fail "nothing hangs"
while read -r f; do cmp "$origin/$f" "$mnt/$f" || fail "$f while the origin hangs"; done <"$scratch/list"
kill -9 $reader
wait_for '! kill -0 $reader 2>/dev/null' 5 || fail "the reader cannot be killed"
wait $reader 2>/dev/null
stop
# With a timeout a reader gets an error in the end.
rm -rf "$cache"
start "fault:error=1:$origin" prefetch=off,timeout=1
cat "$mnt/class00/img00000.bin" >/dev/null 2>"$scratch/err" && fail "read from an origin that always fails"
grep -q 'Input/output error' "$scratch/err" || fail "$(cat "$scratch/err")"
check "$(stat_of reads.errors)" -ge 1
stop

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# size= and ram= are hard limits under a storm of fills.
. "$(dirname "$0")/lib.sh"

make_files 1500 60000 5
size=$((20 << 20)) ram=$((8 << 20))
start "$origin" "size=20M,ram=8M"
over=0
for round in 1 2 3; do
	find "$mnt" -type f -print0 | shuf -z --random-source=<(yes $round) | xargs -0 -P 4 -n 50 cat >/dev/null &
	reader=$!
	while kill -0 $reader 2>/dev/null; do
		used=$(($(du -s --block-size=1 "$cache" 2>/dev/null | cut -f1)))
		[ "$used" -le $((size + (1 << 20))) ] || over=$used
		check "$(stat_of ram.bytes)" -le $ram "bytes of memory"
		check "$(stat_of disk.bytes)" -le $size "bytes on disk"
	done
	wait $reader || fail "a reader failed"
done
check "$over" -eq 0 "bytes on disk by du over the limit of $size"
same_tree
check "$(stat_of disk.limit_bytes)" -le $size
stop

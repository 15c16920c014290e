#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two jobs read the same files, each in an order and at a place of its own: each has its own epochs, what one
# fetched the other finds, and nothing is read twice from the origin while the cache holds it all.
LIMIT_S=150
. "$(dirname "$0")/lib.sh"

files=1500 size=20000
tests/bench/epoch --make "$origin" --files $files --size $size --dirs 5 || fail "data"
data=$((files * size + $(stat -c %s "$origin/dataset.txt")))

job() { exec tests/bench/epoch --read "$mnt" --workers 2 --batch 8 --compute-us 2000 --verify --drop "$@"; }

# both <SECONDS BETWEEN>: both at once, three epochs each
both() {
	local between=$1 first second

	job --epochs 3 --seed 1 >"$scratch/first" &
	first=$!
	sleep "$between"
	job --epochs 3 --seed 2 >"$scratch/second" &
	second=$!
	wait_for '[ "$(wc -l <"$scratch/second")" = 2 ]' 60 || fail "the second job"
	stats >"$scratch/during"
	wait $first || fail "the first job"
	wait $second || fail "the second job"
	stats >"$scratch/after"
	cat "$scratch/first" "$scratch/second"
	/usr/bin/python3 - "$scratch" "$first" "$second" <<'PY'
import json, sys
scratch, pids = sys.argv[1], [int(p) for p in sys.argv[2:]]
epochs = [json.loads(l) for name in ("first", "second") for l in open(scratch + "/" + name)]
assert len(epochs) == 6 and not any(e["wrong_files"] or e["errors"] for e in epochs), epochs
sets = [s for s in json.load(open(scratch + "/during"))["sets"] if s["items"] > 1]
print([[s["path"], s["items"], s["epoch"], s["consumed"], s["job"]] for s in sets])
assert len(sets) == 2 and {s["job"] for s in sets} == set(pids), sets
assert all(s["items"] == 1500 for s in sets), sets
# the second job ended two epochs and no more
assert [s["epoch"] for s in sets if s["job"] == pids[1]] == [2], sets
PY
}

# all of it fits: from the origin once, for both
start "fault:read=5ms,meta=1ms,bw=200M:$origin" "ram=4M,meta_ttl=3600"
both 1 || fail "two jobs, a cache for all"
check "$(stat_of origin.bytes)" = "$data"
check "$(stat_of evict.unread)" = 0

# they end; another begins: in the place of one that is over, not a third
(job --epochs 2 --seed 3) >"$scratch/third" || fail "the third job"
stats >"$scratch/after"
/usr/bin/python3 - "$scratch/after" <<'PY' || fail "a job after the others"
import json, sys
sets = [s for s in json.load(open(sys.argv[1]))["sets"] if s["items"] > 1]
assert len(sets) <= 2, sets
PY
stop

# half of it: what one has read stays until the other has, or what is unread would be evicted
rm -rf "$cache"
start "fault:read=5ms,meta=1ms,bw=200M:$origin" "size=$((data * 6 / 10)),ram=4M,meta_ttl=3600"
both 0 || fail "two jobs, a cache of six tenths"
check "$(stat_of evict.unread)" = 0
echo "origin bytes / data: $(($(stat_of origin.bytes) * 100 / data)) % in six epochs"

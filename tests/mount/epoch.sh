#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Epochs over a cache of half the data: counts, every byte compared. The
# consumer computes 4 ms a sample, a tenth of what the origin could deliver, so
# that a busy machine does not decide what is served; the best an unknown
# order allows is 0.85, without prefetch it is 0.5 (tests/bench/run measures).
LIMIT_S=180
. "$(dirname "$0")/lib.sh"

epoch=$builddir/tests/bench/epoch
[ -x "$epoch" ] || fail "tests/bench/epoch was not built"
"$epoch" --make "$origin" --files 1000 --size 61440 --dirs 5 || fail "data"
data=$((1000 * 61440))
start "fault:read=5ms,meta=1ms,bw=200M:$origin" "size=$((data / 2 + (2 << 20))),ram=$((data / 10))"
"$epoch" --read "$mnt" --epochs 4 --batch 8 --compute-us 4000 --verify --drop --stats "$mnt" >"$scratch/out" || { cat "$scratch/out"; fail "the readers failed"; }
cat "$scratch/out"
/usr/bin/python3 - "$scratch/out" "$data" <<'PY' || fail "epoch counts"
import json, sys
epochs = [json.loads(l) for l in open(sys.argv[1]) if l.startswith("{")]
data = int(sys.argv[2])
assert len(epochs) == 4
for e in epochs:
    assert e["wrong_files"] == 0 and e["errors"] == 0, e
for e in epochs[1:]:
    assert e["served"] >= 0.80, e
    assert e["origin_bytes"] <= 0.55 * data, e
    assert e["evict_unread"] == 0, e
PY
# half of the data comes faster than it is consumed: nothing to expect, nothing to add
check "$(stat_of forecast.stall_s_per_epoch)" = 0
check "$(stat_of forecast.more_cache_bytes)" = 0
stop

# ... and a link that is too slow for that: the forecast says so, and what would help
rm -rf --one-file-system "$cache"
start "fault:read=5ms,bw=5M:$origin" "size=$((data / 2 + (2 << 20))),ram=$((data / 10))"
"$epoch" --read "$mnt" --epochs 2 --batch 8 --compute-us 500 --drop --stats "$mnt" || fail "the readers failed"
getfattr -n user.hopper.stats --only-values --absolute-names "$mnt" | /usr/bin/python3 -c '
import json, sys
f, data = json.load(sys.stdin)["forecast"], int(sys.argv[1])
print(f)
missing_s = (1 - f["c"]) * data / (5 << 20)
assert 0.5 < f["c"] < 0.6 and f["r"] < 0.5, f
assert 0.4 * missing_s < f["stall_s_per_epoch"] <= missing_s, (f, missing_s)
assert 0.3 * data < f["more_cache_bytes"] + f["c"] * data <= 1.02 * data, f
assert 0.5 < f["saved_s_by_a_tenth"] / (data / 10 / (5 << 20)) < 1.5, f
' "$data" || fail "forecast"
stop

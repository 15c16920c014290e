#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The order of an epoch that no generator explains, recorded by one job and told to the next.
LIMIT_S=100
. "$(dirname "$0")/lib.sh"

is_way open=pagecache && skip "open=pagecache: no plan can be set"
make_files 800 30000 4
data=$((800 * 30000))
mount_it() { start "fault:read=5ms,meta=1ms,bw=200M:$origin" "size=$((data / 2 + (2 << 20))),ram=5M,meta_ttl=3600"; }
plan() { setfattr -n user.hopper.plan -v "$1" "$mnt"; }
plan_text() { getfattr -n user.hopper.plan --only-values --absolute-names "$mnt"; }
read_epoch() {
	/usr/bin/python3 - "$mnt" <<'PY' | tee -a "$scratch/out"
import hashlib, json, os, sys, time
root = sys.argv[1]
paths = [os.path.join(root, d, n) for d in os.listdir(root) for n in os.listdir(os.path.join(root, d))]
paths.sort(key=lambda p: hashlib.sha256(p[len(root):].encode()).digest())   # an order like any other
def stats(): return json.loads(os.getxattr(root, "user.hopper.stats"))
before = stats()
for p in paths:
    fd = os.open(p, os.O_RDONLY)
    assert len(os.read(fd, 1 << 20)) == 30000
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    time.sleep(0.002)
after = stats()
print(json.dumps({"waited": after["reads"]["missed"] + after["reads"]["joined"] - before["reads"]["missed"] - before["reads"]["joined"],
    "evict_unread": after["evict"]["unread"], "by": {k: v["issued"] - before["prefetch"]["by"][k]["issued"] for k, v in after["prefetch"]["by"].items()}}), flush=True)
PY
}

mount_it
plan "record run.1" || fail "record"
check "$(plan_text)" = "record run.1: taken"
read_epoch
wait_for '[ "$(plan_text)" = "record run.1: recorded" ]' 10 || fail "$(plan_text)"
stop
mount_it
plan "replay other" 2>/dev/null && fail "a profile that is not there was taken"
plan_text | grep -q "no profile 'other'" || fail "$(plan_text)"
for name in "" "a/b" "$(printf 'x%.0s' {1..70})"; do
	plan "record $name" 2>/dev/null && fail "name '$name' was taken"
done
plan_text | grep -q "a profile's name has at most" || fail "$(plan_text)"
plan "replay run.1" || fail "replay"
read_epoch
read_epoch
stop
/usr/bin/python3 - "$scratch/out" <<'PY' || fail "the profile was not followed"
import json, sys
first, second, third = [json.loads(l) for l in open(sys.argv[1])]
assert first["by"]["plan"] == 0 and first["waited"] > 50, first
for e in second, third:
    assert e["by"]["plan"] > 200 and e["waited"] <= 0.03 * 800 and e["evict_unread"] == 0, e
PY

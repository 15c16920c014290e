#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An epoch goes on where it stood, over a remount and over a crash; another job
# begins its own.
LIMIT_S=150
. "$(dirname "$0")/lib.sh"

/usr/bin/python3 -c 'import numpy' 2>/dev/null || skip "python3-numpy is not installed"
make_files 1200 30000 4
data=$((1200 * 30000))
mount_it() { start "fault:read=5ms,meta=1ms,bw=200M:$origin" "size=$((data / 2 + (2 << 20))),ram=$((data / 6)),meta_ttl=3600"; }

# read EPOCH FROM TO: files FROM..TO of the epoch's order; one line of JSON
read_part() {
	/usr/bin/python3 - "$mnt" "$@" <<'PY' | tee -a "$scratch/out"
import json, os, sys, time
import numpy
root, (epoch, first, last) = sys.argv[1], map(int, sys.argv[2:5])
paths = sorted(os.path.join(root, d, n) for d in os.listdir(root) for n in os.listdir(os.path.join(root, d)))
order = numpy.random.RandomState(7 + epoch).permutation(len(paths))
def stats(): return json.loads(os.getxattr(root, "user.hopper.stats"))
def largest(s): return max(s["sets"], key=lambda x: x["items"], default={"epoch": -1, "consumed": -1})
before = stats()
for n, i in enumerate(order[first:last]):
    fd = os.open(paths[i], os.O_RDONLY)
    assert len(os.read(fd, 1 << 20)) == 30000
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    time.sleep(0.004)
    if n == min(100, last - first - 1): begun = largest(stats())
after = stats()
print(json.dumps({"epoch": begun["epoch"], "consumed": begun["consumed"], "waited": after["reads"]["missed"] + after["reads"]["joined"] - before["reads"]["missed"] - before["reads"]["joined"],
    "evict_unread": after["evict"]["unread"], "origin": after["origin"]["bytes"] - before["origin"]["bytes"], "by": {k: v["issued"] for k, v in after["prefetch"]["by"].items() if v["issued"]}}), flush=True)
PY
}

mount_it
read_part 0 0 1200
read_part 1 0 600
stop
mount_it
read_part 1 600 900
read_part 1 900 1040
sleep 5.5   # what the last seconds read is remembered with the next access
read_part 1 1040 1050
crash
mount_it
read_part 1 1050 1200
read_part 2 0 500
stop
mount_it
read_part 0 0 1200   # another job
stop
/usr/bin/python3 - "$scratch/out" <<'PY' || fail "what was remembered"
import json, sys
e = [json.loads(l) for l in open(sys.argv[1])]
assert all(x["evict_unread"] == 0 for x in e)
whole, half, rest, more, few, last, second, other = e
assert half["epoch"] == 1 and rest["epoch"] == 1 and more["epoch"] == 1 and last["epoch"] == 1, e
assert 650 <= rest["consumed"] <= 702 and 950 <= more["consumed"] <= 1002, e
assert 1040 <= few["consumed"] <= 1050 and 1120 <= last["consumed"] <= 1152, e
assert second["epoch"] == 2, e
assert rest["waited"] <= 0.05 * 300 and more["waited"] <= 0.05 * 150, e
assert other["epoch"] == 0 and 60 <= other["consumed"] <= 102, e
PY

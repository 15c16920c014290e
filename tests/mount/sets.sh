#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What belongs together: training and validation files side by side, each read
# in its own way, are told apart; directories read one after the other are not.
LIMIT_S=150
. "$(dirname "$0")/lib.sh"

make() {
	/usr/bin/python3 - "$origin" "$@" <<'PY'
import os, sys
for what in sys.argv[2:]:
    name, count = what.split("=")
    os.makedirs(os.path.join(sys.argv[1], name))
    for i in range(int(count)):
        with open(os.path.join(sys.argv[1], name, "%05d.bin" % i), "wb") as f: f.write(os.urandom(20000))
PY
}

# job: two epochs of train/ shuffled and val/ in order; prints the counters of each pass
cat >"$scratch/job.py" <<'PY'
import json, os, random, sys, time
root, epochs = sys.argv[1], int(sys.argv[2])
def stats(): return json.loads(os.getxattr(root, "user.hopper.stats"))
def read(name, order):
    before = stats()
    for i in order:
        fd = os.open(os.path.join(root, name, "%05d.bin" % i), os.O_RDONLY)
        data = os.read(fd, 1 << 20)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        assert len(data) == 20000
        time.sleep(0.003)
    after = stats()
    print(json.dumps({"what": name, "waited": after["reads"]["missed"] + after["reads"]["joined"] - before["reads"]["missed"] - before["reads"]["joined"],
        "origin": after["origin"]["bytes"] - before["origin"]["bytes"], "evict_unread": after["evict"]["unread"], "wasted": after["prefetch"]["wasted_bytes"],
        "sets": [[s["path"], s["items"], s["epoch"], s["recognised"]] for s in after["sets"]]}), flush=True)
for epoch in range(epochs):
    order = list(range(900))
    random.Random(epoch).shuffle(order)
    read("images/train", order)
    read("images/val", range(200))
PY

make images/train=900 images/val=200
start "fault:read=5ms,meta=1ms,bw=200M:$origin" "size=$((900 * 20000 / 2 + (2 << 20))),ram=4M,meta_ttl=3600"
/usr/bin/python3 "$scratch/job.py" "$mnt" 4 >"$scratch/out" || fail "job"
cat "$scratch/out"
/usr/bin/python3 - "$scratch/out" <<'PY' || fail "train and val"
import json, sys
passes = [json.loads(l) for l in open(sys.argv[1])]
last = {s[0]: s for s in passes[-1]["sets"]}
assert sorted(s[1] for s in last.values()) == [200, 900], last
for p in passes[2:]:
    assert p["evict_unread"] == 0, p
# train/ is known by then, and val/ is as well
for p in passes[4:]:
    assert p["waited"] <= (900 if "train" in p["what"] else 200) * 0.04 + 4, p
assert any("python seed" in s[3] for p in passes for s in p["sets"] if s[1] == 900), passes
assert passes[-1]["wasted"] <= 0.02 * 1100 * 20000 * 4
PY
stop

rm -rf --one-file-system "$cache" "$origin"/*
make a=300 b=300 c=300 d=300 e=300
start "fault:read=2ms,meta=1ms,bw=200M:$origin" "size=64M,ram=8M,meta_ttl=3600"
find "$mnt" -name '*.bin' | sort | xargs cat | cksum >/dev/null
/usr/bin/python3 -c 'import json, os, sys
s = json.loads(os.getxattr(sys.argv[1], "user.hopper.stats"))
print(s["sets"])
assert [x["items"] for x in s["sets"]] == [1500], s["sets"]' "$mnt" || fail "one set of what is read one after the other"
stop

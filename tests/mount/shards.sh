#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Shards over a cache of half of them: each worker takes every W-th of the listing, no order being recognised.
LIMIT_S=200
. "$(dirname "$0")/lib.sh"

shards=32 size=2500000
make_files $shards $size 1
data=$((shards * size))
slow="fault:read=5ms,meta=1ms,bw=100M:$origin"

# expect FILE CONDITION...: Python over the list e of its lines
expect() {
	/usr/bin/python3 - "$data" "$@" <<'PY' || { cat "$1"; fail "$*"; }
import json, sys
data = int(sys.argv[1])
e = [json.loads(l) for l in open(sys.argv[2])]
for c in sys.argv[3:]:
    if not eval(c): sys.exit("not so: " + c)
assert all(x["errors"] == 0 for x in e)
PY
}

# WORKERS processes, worker w the shards w, w + WORKERS ... from their beginning to their end, the same in each epoch
cat >"$scratch/strided.py" <<'PY'
import hashlib, json, os, sys, time
origin, root, workers, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
names = sorted(os.path.relpath(os.path.join(d, n), origin) for d, _, f in os.walk(origin) for n in f)

def work(w):
    for name in names[w::workers]:
        with open(os.path.join(origin, name), "rb") as a, open(os.path.join(root, name), "rb") as b:
            while True:
                x = b.read(1 << 17)
                assert x == a.read(1 << 17), name
                if not x: break
                time.sleep(0.005)
            os.posix_fadvise(b.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

for epoch in range(epochs):
    before = json.loads(os.getxattr(root, "user.hopper.stats"))
    pids = []
    for w in range(workers):
        pids.append(os.fork())
        if not pids[-1]:
            work(w)
            os._exit(0)
    assert all(os.waitpid(p, 0)[1] == 0 for p in pids)
    after = json.loads(os.getxattr(root, "user.hopper.stats"))
    print(json.dumps({"epoch": epoch, "origin": after["origin"]["bytes"] - before["origin"]["bytes"], "errors": after["reads"]["errors"],
        "sets": [s["epoch"] for s in after["sets"]], "by": {k: {n: v[n] - before["prefetch"]["by"][k][n] for n in v} for k, v in after["prefetch"]["by"].items()}}), flush=True)
PY
start "$slow" "size=$((data / 2)),ram=$((data / 4)),recognise=off"
/usr/bin/python3 "$scratch/strided.py" "$origin" "$mnt" 4 3 >"$scratch/strided" || fail "strided"
cat "$scratch/strided"
expect "$scratch/strided" 'sum(x["by"]["neighbour"]["issued"] for x in e) > 0' \
	'sum(x["by"]["neighbour"]["used"] for x in e) > 0' 'all(x["by"]["neighbour"]["wrong"] == 0 for x in e)' \
	'all(x["by"]["sampler"]["issued"] == 0 for x in e)' 'e[0]["origin"] <= 1.2 * data' 'all(x["origin"] <= 0.6 * data for x in e[1:])'
stop

# As MosaicML Streaming reads: a shard is opened once for each of its samples, found by the index at its head, and the
# samples of some shards at a time are mixed. WORKERS processes, batches dealt to them in turn.
cat >"$scratch/sampled.py" <<'PY'
import json, os, random, struct, sys, time
what, origin, root, workers, epochs = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
SHARDS, EACH, MIXED, BATCH = 32, 40, 8, 8
rnd = random.Random(3)
length = [[rnd.randrange(30000, 90000) for _ in range(EACH)] for _ in range(SHARDS)]
sample = lambda s, i: random.Random(s << 16 | i).randbytes(length[s][i])
if what == "make":
    for s in range(SHARDS):
        data = [sample(s, i) for i in range(EACH)]
        begin = 4 * (EACH + 2)
        offsets = [begin + sum(length[s][:i]) for i in range(EACH + 1)]
        with open(os.path.join(origin, "shard.%05d.mds" % s), "wb") as f:
            f.write(struct.pack("<%dI" % (EACH + 2), EACH, *offsets) + b"".join(data))
    with open(os.path.join(origin, "index.json"), "w") as f: json.dump({"version": 2, "shards": SHARDS}, f)
    sys.exit()

def read(s, i):
    with open(os.path.join(root, "shard.%05d.mds" % s), "rb", 0) as f:
        f.seek(4 * (1 + i))
        begin, end = struct.unpack("<II", f.read(8))
        f.seek(begin)
        data = f.read(end - begin)
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert data == sample(s, i), (s, i)

def order(epoch):
    shards = random.Random(1).sample(range(SHARDS), SHARDS)
    rnd, ids = random.Random(100 + epoch), []
    rnd.shuffle(shards)
    for b in range(0, SHARDS, MIXED):
        block = [(s, i) for s in shards[b:b + MIXED] for i in range(EACH)]
        rnd.shuffle(block)
        ids += block
    return ids

stats = lambda: json.loads(os.getxattr(root, "user.hopper.stats"))
for epoch in range(epochs):
    before, ids, pids, began = stats(), order(epoch), [], time.monotonic()
    for w in range(workers):
        pids.append(os.fork())
        if pids[-1]: continue
        for b in range(w, len(ids) // BATCH, workers):
            for s, i in ids[b * BATCH:(b + 1) * BATCH]:
                read(s, i)
                time.sleep(0.002)
        os._exit(0)
    assert all(os.waitpid(p, 0)[1] == 0 for p in pids)
    after = stats()
    big = max(after["sets"], key=lambda s: s["items"])
    print(json.dumps({"epoch": epoch, "seconds": round(time.monotonic() - began, 2), "items": big["items"], "set_epoch": big["epoch"], "consumed": big["consumed"],
        "origin": after["origin"]["bytes"] - before["origin"]["bytes"], "missed": after["reads"]["missed"] - before["reads"]["missed"],
        "joined": after["reads"]["joined"] - before["reads"]["joined"], "requests": after["reads"]["requests"] - before["reads"]["requests"], "evict": after["evict"],
        "errors": after["reads"]["errors"], "passthrough": after["reads"]["passthrough_opens"], "by": {k: v["issued"] for k, v in after["prefetch"]["by"].items()}}), flush=True)
PY
rm -rf --one-file-system "$cache" "$origin"/*
/usr/bin/python3 "$scratch/sampled.py" make "$origin" "$mnt" 2 4 || fail "data"
data=$(du -sb "$origin" | cut -f1)
start "$slow" "size=$((data / 2)),ram=$((data / 4))"
/usr/bin/python3 "$scratch/sampled.py" read "$origin" "$mnt" 2 4 >"$scratch/sampled" || fail "sampled"
cat "$scratch/sampled"
# an epoch of the set is one of the job's, not over when its files were begun; what is missing is fetched as it is asked for
expect "$scratch/sampled" 'e[0]["set_epoch"] <= 1' '3 <= e[3]["set_epoch"] <= 4' 'all(x["origin"] <= 1.2 * data for x in e[1:])' \
	'all(x["missed"] <= 0.6 * 1280 for x in e[1:])'
stop

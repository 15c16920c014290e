#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Orders of real loaders over a cache of half the data: recognised from the
# first accesses, told by a plan, replayed; with recognise= and prefetch= off.
LIMIT_S=320
. "$(dirname "$0")/lib.sh"

/usr/bin/python3 -c 'import torch, numpy' 2>/dev/null || skip "python3-torch and python3-numpy are not installed"
files=2000 size=30000
make_files $files $size 5
data=$((files * size))
half="size=$((data / 2 + (2 << 20))),ram=$((data / 8)),meta_ttl=3600"
slow="fault:read=5ms,meta=1ms,bw=200M:$origin"

# read CASE EPOCHS: one line of JSON per epoch with what the counters say of it
read_epochs() {
	/usr/bin/python3 - "$mnt" "$size" "$@" <<'PY'
import json, os, random, sys, time
import numpy, torch
root, size, case, epochs = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
paths = sorted(os.path.join(root, d, n) for d in os.listdir(root) if os.path.isdir(os.path.join(root, d)) for n in os.listdir(os.path.join(root, d)))
order = list(range(len(paths)))

def read(i):
    fd = os.open(paths[i], os.O_RDONLY)
    data = os.read(fd, 1 << 20)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)   # what comes back is the cache's, not the kernel's
    os.close(fd)
    return len(data)

class Files(torch.utils.data.Dataset):
    def __len__(self): return len(paths)
    def __getitem__(self, i): return read(i)

def stats(): return json.loads(os.getxattr(root, "user.hopper.stats"))
def of_largest(s, key): return max(s["sets"], key=lambda x: x["items"], default={"predictor": "none", "recognised": ""})[key]

torch.manual_seed(42)
kind, _, workers = case.partition(":")
if kind == "random":
    loader = torch.utils.data.DataLoader(Files(), batch_size=16, shuffle=True, num_workers=int(workers))
if kind == "distributed":
    samplers = [torch.utils.data.DistributedSampler(Files(), 2, r) for r in range(2)]
    loaders = [torch.utils.data.DataLoader(Files(), batch_size=16, sampler=s, num_workers=1) for s in samplers]
if kind == "manifest":   # the data set's own list, in an order of its own
    paths = [os.path.join(root, l.split(",")[0]) for l in open(os.path.join(root, "train.csv")).read().splitlines()[1:]]
once = random.Random(5)
for epoch in range(epochs):
    before, began = stats(), time.monotonic()
    count, late = 0, None   # late: when four fifths were read, before the set turns to its next epoch
    if kind == "random":
        for batch in loader:
            count += len(batch)
            if not late and count >= 0.8 * len(paths): late = stats()
            time.sleep(0.001 * len(batch))
    elif kind == "distributed":
        for s in samplers: s.set_epoch(epoch)
        for a, b in zip(*loaders):
            count += len(a) + len(b)
            if not late and count >= 0.8 * len(paths): late = stats()
            time.sleep(0.003 * (len(a) + len(b)))
    else:
        if kind == "numpy": order = list(numpy.random.RandomState(7 + epoch).permutation(len(paths)))
        if kind == "manifest": order = list(numpy.random.default_rng(11 + epoch).permutation(len(paths)))
        if kind == "inplace": once.shuffle(order)   # seeded once, the list shuffled on
        if kind == "same" and not epoch: random.Random(99999).shuffle(order)
        if kind == "weighted":
            draws = random.Random(epoch)
            order = [draws.randrange(len(paths)) for _ in order]
        if kind == "sequential": order = list(range(len(paths)))
        for i in order:
            count += 1
            read(i)
            if not late and count >= 0.8 * len(paths): late = stats()
            time.sleep(0.001)
    after = stats()
    print(json.dumps({"epoch": epoch, "seconds": round(time.monotonic() - began, 2), "count": count,
        "missed": after["reads"]["missed"] - before["reads"]["missed"], "joined": after["reads"]["joined"] - before["reads"]["joined"],
        "evict_unread": after["evict"]["unread"], "wasted": after["prefetch"]["wasted_bytes"], "origin": after["origin"]["bytes"] - before["origin"]["bytes"],
        "errors": after["reads"]["errors"], "predictor": of_largest(late, "predictor"), "recognised": of_largest(late, "recognised"),
        "held": before["disk"]["objects"] * size, "unread": after["prefetch"]["issued"] - after["prefetch"]["used"] - after["prefetch"]["late"],
        "by": {k: v["issued"] - before["prefetch"]["by"][k]["issued"] for k, v in after["prefetch"]["by"].items()}}), flush=True)
PY
}

# expect CONDITION...: Python over the list e of epochs
expect() {
	/usr/bin/python3 - "$scratch/out" "$files" "$data" "$@" <<'PY' || { cat "$scratch/out"; fail "$case: $*"; }
import json, sys
e = [json.loads(l) for l in open(sys.argv[1])]
files, data = int(sys.argv[2]), int(sys.argv[3])
for c in sys.argv[4:]:
    if not eval(c): sys.exit("not so: " + c)
assert all(x["errors"] == 0 and x["evict_unread"] == 0 for x in e)
PY
}

run() {
	case=$1
	[ -n "${again:-}" ] || rm -rf --one-file-system "$cache"
	start "$slow" "$half${3:+,$3}"
	[ -z "${plan:-}" ] || setfattr -n user.hopper.plan -v "$plan" "$mnt" || fail "plan: $plan"
	read_epochs "$1" "$2" >"$scratch/out" 2>"$scratch/err" || { cat "$scratch/err"; fail "$1"; }
	echo "$1 ${3:-}"
	cat "$scratch/out"
	stop
}

# a known order: of what is read after it was recognised, next to nothing waits for the origin
known='all(x["missed"] + x["joined"] <= 0.02 * files for x in e[1:])'
few='all(x["wasted"] <= 0.01 * data for x in e)'
run random:4 5
expect "$known" "$few" '"torch seed" in e[1]["recognised"]' 'all(x["by"]["sampler"] > 0 for x in e)'
# what the disk has no room for is fetched once: all was read but what waits in memory for the next epoch
expect 'e[-1]["unread"] <= files / 8' 'sum(x["origin"] for x in e[1:]) <= 1.01 * sum(data - x["held"] for x in e[1:]) + data / 8'
run random:0 2
expect "$known" "$few" '"manual_seed 42" in e[0]["recognised"]'
run distributed:2 2
expect "$known" "$few" '"ranks 2" in e[1]["recognised"]'
run sequential 2
expect "$known" "$few" 'e[1]["recognised"] == "sequential"' 'e[1]["origin"] <= 0.65 * data'
run same 3
expect '"numpy" not in e[2]["recognised"]' 'e[2]["by"]["replay"] + e[2]["by"]["sampler"] > 0' 'e[2]["missed"] + e[2]["joined"] <= 0.03 * files'
run numpy 3
expect '"numpy RandomState seed" in e[2]["recognised"]' 'e[2]["missed"] + e[2]["joined"] <= 0.03 * files'
# the same job again, on the cache it left: known from its first files on
again=1
run numpy 2
expect 'e[0]["by"]["sampler"] > 0.3 * files' "$few" 'e[0]["origin"] <= 0.6 * data' 'all(x["missed"] + x["joined"] <= 0.03 * files for x in e)'
again=
run inplace 4
expect 'e[3]["recognised"].startswith("python seed 5, shuffle 4 in place")' 'e[3]["missed"] + e[3]["joined"] <= 0.02 * files' "$few"
(cd "$origin" && echo path,label && find . -name "*.bin" -printf '%P,1\n' | sort -t/ -k2) >"$scratch/train.csv"
mv "$scratch/train.csv" "$origin"
run manifest 3
expect 'e[2]["recognised"].startswith("numpy default_rng seed 13")' 'e[2]["missed"] + e[2]["joined"] <= 0.03 * files' "$few"
rm "$origin/train.csv"
# a mount by open=pagecache is read-only for the kernel
if ! is_way open=pagecache; then
	plan="torch-random seed=42"
	run random:4 2
	expect 'all(x["predictor"] == "plan" for x in e)' 'e[0]["by"]["plan"] > 0.4 * files' "$known" 'e[0]["missed"] + e[0]["joined"] <= 0.05 * files'
	plan=
fi
# no order to find, and none is found
run weighted 2
expect 'all(x["recognised"] in ("", "the epoch before") for x in e)' 'all(x["by"]["sampler"] == 0 for x in e)' 'all(x["origin"] <= 1.5 * data for x in e)'
run random:4 2 recognise=off
expect 'all(x["recognised"] == "" and x["by"]["sampler"] == 0 and x["by"]["replay"] == 0 for x in e)' 'e[0]["by"]["unread"] > 0'
run random:4 1 prefetch=seq
expect 'all(sum(x["by"].values()) == 0 for x in e)' 'e[0]["missed"] == files'
run random:4 1 prefetch=off
expect 'all(sum(x["by"].values()) == 0 for x in e)' 'e[0]["missed"] == files'

# what is no plan is refused, with a line that says why
rm -rf --one-file-system "$cache"
start "$origin" open=daemon
bad_plan() {
	setfattr -n user.hopper.plan -v "$1" "$mnt" 2>/dev/null && fail "plan '$1' was taken"
	getfattr -n user.hopper.plan --only-values --absolute-names "$mnt" | grep -q "$2" || fail "plan '$1': $(getfattr -n user.hopper.plan --only-values --absolute-names "$mnt")"
}
bad_plan "nonsense" "unknown plan"
bad_plan "torch-random" "needs seed="
bad_plan "torch-random seed=x" "not a number"
bad_plan "torch-distributed world=0" "world="
bad_plan "torch-random seed=1 colour=2" "unknown word"
bad_plan $'list\nno/such/file' "not a file"
setfattr -n user.hopper.plan -v $'list\nclass00/img00005.bin\nclass01/img00001.bin' "$mnt" || fail "list"
wait_for '[ "$(stat_of prefetch.by.plan.issued)" -ge 2 ]' || fail "the list was not fetched"
check "$(getfattr -n user.hopper.plan --only-values --absolute-names "$mnt")" = "list: taken"
setfattr -n user.hopper.plan -v none "$mnt" || fail "none"
stop

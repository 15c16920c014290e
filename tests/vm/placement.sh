#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs in the guest of tests/vm/boot, or on any machine of two nodes: two workers, one bound to each node, find what they
# read in their own node's memory.
LIMIT_S=300
. "$(dirname "$0")/../mount/lib.sh"
need_root
[ -e /sys/devices/system/node/node1 ] || skip "this machine has one NUMA node; make check-numa starts a guest that has two"

files=1200 size=20000
make_files $files $size 4
data=$((files * size))
options="size=$((data / 2 + (2 << 20))),ram=9M,meta_ttl=3600"
slow="fault:read=5ms,meta=1ms,bw=50M:$origin"

# read_epochs CASE EPOCHS MIN: two workers; of the hits in the epochs that tell, at least MIN are to be local
read_epochs() {
	/usr/bin/python3 -B - "$mnt" "$(dirname "$0")" "$@" <<'PY' || fail "$1: hits were not local, or none were"
import json, os, random, sys, time
root, case, epochs, least = sys.argv[1], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
sys.path.insert(0, sys.argv[2])
from loader import BATCH, cpus_of, deal, largest_set, torch_order, wait_recognised
paths = sorted(os.path.join(root, d, n) for d in os.listdir(root) for n in os.listdir(os.path.join(root, d)))
LEARNING = 5   # batches of each worker, by which the loader's shape is known

def hits(key):
    nodes = json.loads(os.getxattr(root, "user.hopper.stats"))["ram"]["nodes"]
    return sum(n[key] for n in nodes)

def worker(node, batches, told, done):
    os.sched_setaffinity(0, cpus_of(node))
    here = elsewhere = 0
    for batch in batches:
        os.read(told, 1)
        for i in batch:
            if i % 5 == 0:    # where the kernel has the pages, asked before the read moves anything
                is_at = int(os.getxattr(paths[i], "user.hopper.node"))
                here += is_at == node
                elsewhere += is_at >= 0 and is_at != node
            fd = os.open(paths[i], os.O_RDONLY)
            n = len(os.read(fd, 1 << 20))
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
            assert n == os.path.getsize(paths[i])
            if case == "found":   # a loader has more to do than to read: what is ahead of it has its time
                time.sleep(0.003)
        os.write(done, b".")
    os.write(done, b"%8d%8d" % (here, elsewhere))
    os._exit(0)

own = random.Random(5)
home = [own.randrange(2) for _ in paths]
sampled, total = [0, 0], [0, 0]

# With its own files a worker has to have read them once; an order is known from LEARNING on.
def counts_epoch(epoch):
    return case != "own" or epoch > 0

if case == "told":
    os.setxattr(root, "user.hopper.plan", b"python seed=12")
for epoch in range(epochs):
    before = hits("local_hits"), hits("remote_hits")
    if case == "own":     # each worker has its own files, and shuffles them in no known way
        mine = [[i for i in range(len(paths)) if home[i] == w] for w in (0, 1)]
        for m in mine:
            random.SystemRandom().shuffle(m)
        batches = [[m[at:at + BATCH] for at in range(0, len(m), BATCH)] for m in mine]
    else:                 # a seed and the epoch, dealt out as a loader deals
        order = list(range(len(paths)))
        if case == "told":
            random.Random(12 + epoch).shuffle(order)
        else:
            order = torch_order(12 + epoch, len(paths))
        batches = deal(order)
    pipes = []
    for w in (0, 1):
        told, done = os.pipe(), os.pipe()
        if os.fork() == 0:
            worker(w, batches[w], told[0], done[1])
        pipes.append((told[1], done[0]))
        os.write(told[1], b"..")
    for b in range(max(map(len, batches))):
        if b == LEARNING:
            if case == "found":
                wait_recognised(root, "torch seed %d" % (12 + epoch))
            before = hits("local_hits"), hits("remote_hits")
        for w in (0, 1):
            if b < len(batches[w]):
                os.read(pipes[w][1], 1)
                os.write(pipes[w][0], b".")
    for w in (0, 1):
        counts = os.read(pipes[w][1], 16)
        if counts_epoch(epoch):
            sampled[0] += int(counts[:8])
            sampled[1] += int(counts[8:])
        os.wait()
        for fd in pipes[w]:
            os.close(fd)
    largest = largest_set(root)
    local, remote = hits("local_hits") - before[0], hits("remote_hits") - before[1]
    print("%-8s epoch %d: %4d local hits, %3d remote; predictor %s %s" %
          (case, epoch, local, remote, largest["predictor"], largest["recognised"]), flush=True)
    if counts_epoch(epoch):
        total = [total[0] + local, total[1] + remote]
share = total[0] / max(sum(total), 1)
print("%-8s local share of hits %.3f (at least %.2f); by the kernel, of samples in memory: %d local, %d remote" %
      (case, share, least, *sampled), flush=True)
if least:
    assert sum(total) > len(paths) / 4, "too few hits to tell"
    assert share >= least
    assert sampled[0] >= least * sum(sampled) * 0.9   # with those of the learning
PY
}

# Every page of an arena is on the node it is bound to: the kernel's own list.
check_arenas() {
	/usr/bin/python3 - "$(server_pid)" <<'PY' || fail "an arena has pages on another node"
import re, sys
found = {}
for line in open("/proc/%s/numa_maps" % sys.argv[1]):
    m = re.match(r"\S+ prefer[^:]*:(\d+) ", line)
    if m:
        found[int(m.group(1))] = {int(n): int(pages) for n, pages in re.findall(r" N(\d+)=(\d+)", line)}
print("arenas, pages by node:", found)
assert set(found) == {0, 1}
for node, pages in found.items():
    assert set(pages) == {node} and pages[node] > 100
PY
}

start "$slow" "$options"
grep -q "NUMA node 1: " "$scratch/log" || fail "node 1 was not found"
read_epochs told 2 0.95
check_arenas
check "$(stat_of ram.bytes)" -le $((9 << 20)) "bytes of memory"
stats | /usr/bin/python3 -c '
import json, sys
for n in json.load(sys.stdin)["ram"]["nodes"]:
    assert n["bytes"] <= n["limit_bytes"], n' || fail "a node holds more than its share"
stop
rm -rf "$cache"
start "$slow" "$options"
read_epochs found 4 0.95
# how many depends on what memory has left of the epoch before: the share above is what counts
check "$(stat_of ram.moved)" -ge $((files / 40)) "extents moved to their next reader"
stop
rm -rf "$cache"
start "$slow" "$options,recognise=off"
read_epochs own 3 0.80
stop
rm -rf "$cache"
start "$slow" "$options,numa=off"
read_epochs told 1 0
check "$(stats | grep '"nodes"' | grep -c '"node": -1')" -eq 1 "nodes told apart with numa=off"
stop
echo "PASS"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs in the guest of tests/vm/boot, or on any machine of two nodes: with open=pagecache, two workers, one bound to each
# node, find the pages that were stored ahead of them on their own node.
LIMIT_S=240
. "$(dirname "$0")/../mount/lib.sh"
need_root
[ -e /sys/devices/system/node/node1 ] || skip "this machine has one NUMA node; make check-numa starts a guest that has two"

files=1000 size=20000
make_files $files $size 4
start "fault:read=5ms,meta=1ms,bw=50M:$origin" "size=200M,ram=64M,meta_ttl=3600,open=pagecache"
# decided a moment after the mount answers
wait_for '[ "$(stat_of open)" = pagecache ]' 10 || skip "$(uname -r) tells nothing of opens: $(stat_of open_why)"
for node in 0 1; do
	cpus=$(cat /sys/devices/system/node/node$node/cpulist)
	grep -lx "push-$node" "/proc/$(server_pid)"/task/*/comm | while read -r comm; do
		check "$(sed -n 's/^Cpus_allowed_list:\t//p' "${comm%comm}status")" = "$cpus" "processors of push-$node"
		echo "push-$node is on processors $cpus"
	done | grep . || fail "push-$node is not pinned to node $node"
done

/usr/bin/python3 -B - "$mnt" "$(dirname "$0")" <<'PY' || fail "pages are not where they are read"
import ctypes, json, mmap, os, random, re, sys, time
root = sys.argv[1]
sys.path.insert(0, sys.argv[2])
from loader import BATCH, cpus_of, deal, torch_order, wait_recognised
paths = sorted(os.path.join(root, d, n) for d in os.listdir(root) for n in os.listdir(os.path.join(root, d)))
LEARNING, EPOCHS, FIRST = 5, 4, 2   # what readers drop is stored ahead again once an epoch has shown that they do
libc = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE

def nodes_of(fd, path, size):
    """pages of the file by node, as the kernel has them, and whether they were there before we came"""
    with mmap.mmap(fd, size, access=mmap.ACCESS_COPY) as m:
        view = ctypes.c_char.from_buffer(m)
        count = (size + PAGE - 1) // PAGE
        there = (ctypes.c_ubyte * count)()
        if libc.mincore(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(size), there):
            raise OSError(ctypes.get_errno(), "mincore")
        was_there = all(b & 1 for b in there)
        for at in range(0, size, PAGE):
            m[at]
        line = next((l for l in open("/proc/self/numa_maps") if "file=" + path in l), "")
        del view
        return was_there, {int(n): int(pages) for n, pages in re.findall(r" N(\d+)=(\d+)", line)}

def worker(node, batches, told, done):
    os.sched_setaffinity(0, cpus_of(node))
    for batch in batches:
        os.read(told, 1)
        here = elsewhere = asked = 0
        for i in batch:
            fd = os.open(paths[i], os.O_RDONLY)
            was_there, nodes = nodes_of(fd, paths[i], os.path.getsize(paths[i]))
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
            asked += not was_there
            here += was_there and nodes.get(node, 0)
            elsewhere += was_there and sum(nodes.values()) - nodes.get(node, 0)
        os.write(done, b"%6d%6d%6d" % (here, elsewhere, asked))
    os._exit(0)

total = [0, 0]
for epoch in range(EPOCHS):
    batches = deal(torch_order(12 + epoch, len(paths)))
    counts = [0, 0, 0]
    pipes = []
    for w in (0, 1):
        told, done = os.pipe(), os.pipe()
        if os.fork() == 0:
            worker(w, batches[w], told[0], done[1])
        pipes.append((told[1], done[0]))
        os.write(told[1], b"..")
    for b in range(max(map(len, batches))):
        if b == LEARNING:
            wait_recognised(root, "torch seed %d" % (12 + epoch))
        for w in (0, 1):
            if b < len(batches[w]):
                text = os.read(pipes[w][1], 18)
                if b >= LEARNING:
                    counts = [c + int(text[at:at + 6]) for c, at in zip(counts, (0, 6, 12))]
                os.write(pipes[w][0], b".")
    for w in (0, 1):
        os.wait()
    print("epoch %d: of pages stored ahead %d local, %d remote; %d files were not there" % (epoch, *counts), flush=True)
    if epoch >= FIRST:
        total = [total[0] + counts[0], total[1] + counts[1]]
share = total[0] / max(sum(total), 1)
print("local share of pages stored ahead: %.3f (at least 0.95)" % share)
assert sum(total) > len(paths), "too few were stored ahead to tell"   # of five pages a file, two epochs
assert share >= 0.95
PY
stop
echo "PASS"

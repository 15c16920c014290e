#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ram= is what it says: a thousand files open at a time, read at random by many, and the daemon's memory stays within
# ram=, the buffers of replies under way and a fixed rest; descriptors and threads do not grow with open files.
. "$(dirname "$0")/lib.sh"

make_files 1000 300000 10
ram=$((24 << 20))
# what is resident beside the arena: programs, stacks, tables, messages; 14 MiB measured, with two processors
rest_kib=32768
is_sanitized && rest_kib=$((1 << 20))   # and its shadow of memory
for open in daemon auto; do
	rm -rf "$cache"
	start "$origin" "open=$open,ram=24M,prefetch=off"
	cat "$mnt"/class00/* >/dev/null
	/usr/bin/python3 - "$mnt" "$origin" "$(server_pid)" $((ram / 1024 + rest_kib)) <<'PY' || fail "open=$open"
import os, random, sys, threading
mnt, origin, pid, most_kib = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
def rss():
    with open("/proc/%s/status" % pid) as f:
        return int(next(l for l in f if l.startswith("VmRSS")).split()[1])
def fds():
    return len(os.listdir("/proc/%s/fd" % pid))
names = [os.path.relpath(os.path.join(d, f), mnt) for d, _, fs in os.walk(mnt) for f in fs]
assert len(names) == 1000
before = fds()
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
fd = [os.open(os.path.join(mnt, n), os.O_RDONLY) for n in names]
there = [os.open(os.path.join(origin, n), os.O_RDONLY) for n in names]
peak, wrong = 0, []
def reader(seed):
    rnd = random.Random(seed)
    for _ in range(400):
        i, at, n = rnd.randrange(1000), rnd.randrange(300000), rnd.randrange(1, 150000)
        if os.pread(fd[i], n, at) != os.pread(there[i], n, at):
            wrong.append(names[i])
threads = [threading.Thread(target=reader, args=(s,)) for s in range(16)]
[t.start() for t in threads]
while any(t.is_alive() for t in threads):
    peak = max(peak, rss())
    threads[0].join(0.02)
assert not wrong, wrong[:3]
print("resident at most %d KiB of %d allowed, %d descriptors, %d before" % (peak, most_kib, fds(), before))
assert peak <= most_kib, peak
assert fds() <= before + 200, fds()
PY
	check "$(stat_of ram.bytes)" -le $ram "bytes of memory"
	check "$(stat_of reads.errors)" -eq 0 "reads failed"
	stop
done

# a cgroup's limit, where there is one to be made: ram=auto stays below, and the kernel need not end anybody
group=
for at in /sys/fs/cgroup /sys/fs/cgroup/unified; do
	grep -qs memory "$at/cgroup.controllers" && mkdir "$at/hopper-test.$$" 2>/dev/null && group=$at/hopper-test.$$ && break
done
if [ -n "$group" ] && echo 200M >"$group/memory.max" 2>/dev/null; then
	rm -rf "$cache"
	(echo "$BASHPID" >"$group/cgroup.procs" && exec "$hopperfs" -f "$origin" "$mnt" -o "cache=$cache,log=info") >>"$scratch/log" 2>&1 </dev/null &
	daemon_pid=$!
	wait_for 'is_mounted && [ -n "$(stats 2>/dev/null)" ]' 30 || fail "no mount within a cgroup"
	check "$(stat_of ram.limit_bytes)" -le $((100 << 20)) "ram=auto within 200 MiB"
	same_tree "within a cgroup"
	check "$(awk '/^oom_kill / { print $2 }' "$group/memory.events")" -eq 0 "killed for memory"
	stop
	rmdir "$group"
else
	[ -n "$group" ] && rmdir "$group"
	echo "no cgroup with a memory controller can be made here: that part was not tried"
fi

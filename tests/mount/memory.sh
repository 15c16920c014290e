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
[ "$(stat -f -c %T "$scratch")" != tmpfs ] || { echo "a cache in tmpfs would be the cgroup's memory, too: that part was not tried"; exit 0; }
group= limit_file=
for at in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/memory; do
	{ grep -qs memory "$at/cgroup.controllers" || [ -e "$at/memory.limit_in_bytes" ]; } || continue
	mkdir "$at/hopper-test.$$" 2>/dev/null && group=$at/hopper-test.$$ && break
done
[ -z "$group" ] || trap 'status=$?; [ -z "$daemon_pid" ] || crash 2>/dev/null; rmdir "$group"; (exit $status); cleanup' EXIT
for file in memory.max memory.limit_in_bytes; do
	[ -n "$group" ] && [ -w "$group/$file" ] && echo 200M >"$group/$file" && limit_file=$group/$file
done
[ -n "$limit_file" ] || { echo "no cgroup with a memory controller can be made here: that part was not tried"; exit 0; }

killed() { cat "$group/memory.events" "$group/memory.oom_control" 2>/dev/null | awk '/^oom_kill / { print $2 }'; }
rss_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$(server_pid)/status"; }
# allows MIB [FILE]: while it is read, the limit in force becomes half of that (of which nodes' shares in pages may lose some), and
# memory is within
allows() {
	wait_for "echo ${1}M 2>/dev/null >${2:-$limit_file}" || fail "the cgroup cannot be made as small as $1 MiB"
	wait_for "[ \$(((\$(stat_of ram.limit_bytes) + 65535) >> 16)) -eq $((($1 < 200 ? $1 : 200) << 3)) ]" || fail "limit in force with $1 MiB: $(stat_of ram.limit_bytes)"
	wait_for "[ \$(rss_kib) -le $(($1 * 512 + rest_kib)) ]" || fail "resident with $1 MiB: $(rss_kib) KiB"
	echo "cgroup of $1 MiB: limit in force $(($(stat_of ram.limit_bytes) >> 20)) MiB, resident $(rss_kib) KiB"
}
rm -rf "$cache"
(echo "$BASHPID" >"$group/cgroup.procs" && exec "$hopperfs" -f "$origin" "$mnt" -o "cache=$cache,log=info,open=daemon") >>"$scratch/log" 2>&1 </dev/null &
daemon_pid=$!
wait_for 'is_mounted && [ -n "$(stats 2>/dev/null)" ]' 30 || fail "no mount within a cgroup"
check "$(stat_of ram.limit_bytes)" -le $((100 << 20)) "ram=auto within 200 MiB"
same_tree "within a cgroup"
# random reads past the page cache, until told to stop
/usr/bin/python3 - "$mnt" "$origin" "$scratch/done" <<'PY' &
import os, random, sys
mnt, origin, done = sys.argv[1:]
names = [os.path.relpath(os.path.join(d, f), origin) for d, _, fs in os.walk(origin) for f in fs]
rnd, reads = random.Random(5), 0
while not os.path.exists(done):
    name, at = rnd.choice(names), rnd.randrange(300000)
    with open(os.path.join(mnt, name), "rb") as f, open(os.path.join(origin, name), "rb") as there:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if os.pread(f.fileno(), 100000, at) != os.pread(there.fileno(), 100000, at):
            sys.exit("wrong bytes: " + name)
    reads += 1
print("%d random reads meanwhile" % reads)
PY
reader=$!
wait_for '[ "$(stat_of ram.bytes)" -ge $((85 << 20)) ]' || fail "memory is not used: $(stat_of ram.bytes)"
check "$(rss_kib)" -ge 90000 "resident"
for mib in 160 120 90 200; do allows $mib; done
# what the kernel only presses for
for file in memory.high memory.soft_limit_in_bytes; do
	[ ! -w "$group/$file" ] || { allows 70 "$group/$file" && allows 300 "$group/$file"; }
done
wait_for '[ "$(stat_of ram.bytes)" -ge $((85 << 20)) ]' || fail "memory is not used again: $(stat_of ram.bytes)"
touch "$scratch/done"
wait $reader || fail "a reader within a cgroup"
same_tree "after the limits"
check "$(killed)" -eq 0 "killed for memory"
check "$(stat_of reads.errors)" -eq 0 "reads failed"
stop

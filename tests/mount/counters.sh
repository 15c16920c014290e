#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a read costs, exactly: messages from the kernel, bytes through the daemon, requests to the origin.
. "$(dirname "$0")/lib.sh"

need_root
files=50 size=30001 large=$((8 << 20))
make_files $files $size 1
head -c $large /dev/urandom >"$origin/large"

# cost_of NAMES COMMAND...: how much each of these counters rose, less what asking for them takes
values() { stats | /usr/bin/python3 -c '
import functools, json, sys
doc = json.load(sys.stdin)
for name in sys.argv[1].split(): print(functools.reduce(lambda v, k: v[k], name.split("."), doc))' "$1"; }
cost_of() {
	local names=$1
	shift

	values "$names" >"$scratch/own"
	values "$names" >"$scratch/before"
	"$@" >/dev/null || fail "$*"
	values "$names" >"$scratch/after"
	paste "$scratch/own" "$scratch/before" "$scratch/after" | awk '{ printf "%s%d", (NR > 1 ? " " : ""), $3 - $2 - ($2 - $1) }'
}
# one process reads each file: open, fstat, read, close
read_all() {
	/usr/bin/python3 - "$mnt/class00" $size <<'PY'
import os, sys
for name in sorted(os.listdir(sys.argv[1])):
    fd = os.open(os.path.join(sys.argv[1], name), os.O_RDONLY)
    assert len(os.read(fd, os.fstat(fd).st_size)) == int(sys.argv[2])
    os.close(fd)
PY
}

# Releases come behind the closes: until asking for the statistics costs what it costs alone.
is_settled() {
	local a=$(stat_of messages) b c

	sleep 0.1
	b=$(stat_of messages) c=$(stat_of messages)
	[ $((b - a)) -eq $((c - b)) ]
}

start "$origin" prefetch=off,open=daemon,ro,hedge=off
ls -l "$mnt/class00" >/dev/null   # names and attributes are known
reads="reads.opens reads.requests reads.bytes reads.hit_ram reads.missed origin.requests origin.bytes"
check "$(cost_of "$reads" read_all)" = "$files $files $((files * size)) 0 $files $files $((files * size))" "cold: $reads"
# What is warm costs the same whenever it is read; a round in which somebody else dropped the kernel's caches is not counted.
wait_for '[ "$(cost_of "$reads" read_all)" = "$files 0 0 0 0 0 0" ]' || fail "page cache: $reads: $(cost_of "$reads" read_all)"
# an open and a release for each (which comes behind the close), of the directory two or three; nothing else is asked
is_cheap() {
	wait_for is_settled || return 1
	messages=$(cost_of messages read_all)
	[ "$messages" -ge $files ] && [ "$messages" -le $((2 * files + 4)) ]
}
wait_for is_cheap || fail "$messages messages for $files files in the page cache"
drop_page_cache
ls -l "$mnt/class00" >/dev/null
check "$(cost_of "$reads" read_all)" = "$files $files $((files * size)) $files 0 0 0" "memory: $reads"

# a large file, read ahead by the kernel in pieces of one extent: as many requests, as many from the origin
check "$(cost_of "reads.requests reads.bytes origin.requests origin.bytes" cat "$mnt/large")" = "8 $large 8 $large" "large: reads, bytes, origin's requests and bytes"
stop

# The prefetcher's thread is not woken for each access: it collects them.
start "$origin" open=daemon,recognise=off
same_tree
# wake_ups NAME: of the server's threads of this name (a pattern of grep)
wake_ups() {
	local thread sum=0

	for thread in $(grep -lx "$1" /proc/$(server_pid)/task/*/comm); do
		sum=$((sum + $(awk '/^voluntary/ { print $2 }' "${thread%/comm}/status")))
	done
	echo $sum
}
dropped=$(stat_of prefetch.dropped_observations)
before=$(wake_ups prefetch) began=$(date +%s%N)
for round in 1 2 3 4; do
	/usr/bin/python3 - "$mnt/class00" <<'PY'
import os, sys
paths = [os.path.join(sys.argv[1], n) for n in os.listdir(sys.argv[1])]
for _ in range(40):
    for p in paths: os.close(os.open(p, os.O_RDONLY))
PY
done
ms=$((($(date +%s%N) - began) / 1000000))
check "$(($(wake_ups prefetch) - before))" -le $((2 * ms + 50)) "wake-ups of the prefetcher in $ms ms, for $((4 * 40 * files)) opens"
check "$(stat_of prefetch.dropped_observations)" -eq "$dropped" "accesses dropped"
stop

# Nobody is woken by a read from the disk who has nothing to do with it.
start "$origin" open=daemon,prefetch=off,ram=4M
same_tree
wait_for '[ "$(stat_of disk.objects)" -ge '$files' ]' || fail "not all is stored"
stop
start "$origin" open=daemon,prefetch=off,ram=4M
sleep 0.5
before=$(wake_ups 'committer\|fill-timer')
for round in 1 2 3 4; do
	drop_page_cache
	cat "$mnt/large" >/dev/null   # more than memory holds
	read_all || fail "read_all"
done
woken=$(($(wake_ups 'committer\|fill-timer') - before))
check "$(stat_of reads.hit_disk)" -ge $((2 * files)) "reads from disk"
check $woken -le $((files / 5)) "wake-ups of the committer and the timer for $(stat_of reads.hit_disk) reads from disk"
stop

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Requests through io_uring: same bytes, exactly counted, and /dev/fuse where it cannot be; what goes wrong in between is
# tried again.
LIMIT_S=180
. "$(dirname "$0")/lib.sh"

need_root
switch=/sys/module/fuse/parameters/enable_uring
[ -w $switch ] || skip "the kernel has no FUSE over io_uring ($switch)"
exec 8<$switch
flock -w 100 8 || skip "another test has $switch"   # it is the whole machine's
was=$(cat $switch)
trap 'status=$?; echo "$was" >$switch; (exit $status); cleanup' EXIT

make_files 40 40000 2

# transport_is WORD: as the statistics and their reason say
transport_is() { check "$(stat_of transport)" = "$1" "transport ($(stat_of transport_why))"; }

echo N >$switch
start "$origin" transport=uring,open=daemon
transport_is dev
grep -q '/dev/fuse: the kernel does not offer io_uring' "$scratch/log" || fail "the log does not say why /dev/fuse serves"
check "$(stat_of uring.requests)" -eq 0
same_tree "over /dev/fuse"
stop

echo Y >$switch
rm -rf "$cache"
start "fault:read=500ms:$origin" transport=uring,open=daemon,prefetch=off
grep -q 'no io_uring' "$scratch/log" && skip "$(grep -m1 'no io_uring' "$scratch/log")"
transport_is uring
# every file comes late, so another thread than the queue's answers each
before=$(stat_of uring.handed_off)
cat "$mnt"/class*/* >/dev/null
after=$(stat_of uring.handed_off)
check "$((after - before))" -ge 40 "answers handed off"
same_tree "what came through io_uring"

# one reader, warm: per file one open, one read, one release, all answered on the queue's thread
cat "$mnt"/class00/* >/dev/null
requests=$(stat_of reads.requests) opens=$(stat_of reads.opens)
handed=$(stat_of uring.handed_off)
drop_page_cache
cat "$mnt"/class00/* >/dev/null
check "$(($(stat_of reads.opens) - opens))" -eq 20 "opens of 20 files"
check "$(($(stat_of reads.requests) - requests))" -ge 20 "reads of 20 files"
check "$(stat_of uring.handed_off)" -eq "$handed" "hits answered elsewhere"

# readers on every processor, also while many requests wait for the origin
rm -rf "$scratch/copy"
for i in 1 2 3 4 5 6 7 8; do cat "$mnt"/class*/* | cksum >"$scratch/sum$i" & pids="${pids:-} $!"; done
wait $pids
cat "$origin"/class*/* | cksum >"$scratch/sum"
for i in 1 2 3 4 5 6 7 8; do cmp "$scratch/sum" "$scratch/sum$i" || fail "reader $i saw other bytes"; done
stop

# start_by COMMAND SPEC OPTIONS: by a shell command line that ends in the daemon's own
start_by() {
	local hopper=$hopperfs

	hopperfs=$scratch/started_by
	printf '#!/bin/sh\nexec %s %s "$@"\n' "$1" "$hopper" >"$hopperfs"
	chmod 755 "$hopperfs"
	shift
	start "$@"
	hopperfs=$hopper
}
last_cpu=$(($(nproc) - 1))
on_every_processor() {
	for cpu in $(seq 0 $last_cpu); do
		taskset -c "$cpu" diff -r "$origin" "$mnt" >/dev/null || fail "a reader on processor $cpu"
	done
}

# readers on every processor, also where the daemon is confined to one, and its threads stay there
rm -rf "$cache"
start_by "taskset -c 0" "$origin" transport=uring
transport_is uring
on_every_processor
allowed=$(grep -h Cpus_allowed_list /proc/$(server_pid)/task/*/status | sort -u)
check "$(echo "$allowed" | awk '{ print $2 }')" = 0 "processors of all threads"
stop

# all entries of a queue wait for an origin that hangs: there are more, and hits go on; killed readers are let go
control=$scratch/control
control() { echo "$1" >"$control.new" && mv "$control.new" "$control"; }
rm -rf "$cache"
control ""
start "fault:control=$control:$origin" transport=uring,open=daemon,prefetch=off,timeout=1000
transport_is uring
ls -lR "$mnt" >/dev/null
cat "$mnt/class00/img00000.bin" >/dev/null
entries=$(stat_of uring.entries)
control hang=1
readers=
for f in "$mnt"/class01/*; do taskset -c 0 cat "$f" >/dev/null 2>&1 & readers="$readers $!"; done
wait_for '[ "$(stat_of reads.requests)" -ge 21 ]' 20 || fail "readers that wait: $(stat_of reads.requests)"
drop_page_cache
taskset -c 0 timeout 10 cmp "$origin/class00/img00000.bin" "$mnt/class00/img00000.bin" || fail "a hit waits behind misses"
check "$(stat_of uring.entries)" -gt "$entries" "entries while all wait"
kill -9 $readers
for reader in $readers; do wait_for "! kill -0 $reader 2>/dev/null" 10 || fail "a reader cannot be killed"; done
wait $readers 2>/dev/null
control ""
stop

# bursts of more than a queue keeps the memory of: right bytes in the burst and between
rm -rf "$cache"
start "fault:read=500ms:$origin" transport=uring,open=daemon,prefetch=off
for round in 1 2 3; do
	readers=
	for f in "$origin"/class*/*; do taskset -c 0 cmp "$f" "$mnt/${f#"$origin"/}" & readers="$readers $!"; done
	for reader in $readers; do wait "$reader" || fail "a reader in a burst"; done
	same_tree "between bursts"
	drop_page_cache
done
check "$(stat_of uring.entries)" -gt "$entries" "entries in a burst"
stop

# who waits for metadata of an origin that hangs can be killed here too
rm -rf "$cache"
start "fault:control=$control:$origin" transport=uring,open=daemon,prefetch=off,timeout=1000
ls "$mnt/class00" >/dev/null
control meta_hang=1
stat "$mnt/class01/img00001.bin" >/dev/null 2>&1 &
reader=$!
wait_for "grep -q 'fuse\|request_wait' /proc/$reader/wchan 2>/dev/null" 10 || fail "the reader does not wait"
kill -9 $reader
wait_for "! kill -0 $reader 2>/dev/null" 10 || fail "a reader cannot be killed"
check "$(stat_of waits.interrupted)" -ge 1 "requests of killed readers"
control ""
stop

# ---- what goes wrong, by a library between hopperfs and its rings ----
library=$builddir/tests/mount/uring_fault.so
if [ -e "$library" ] && ! grep -q 'fsanitize' "$builddir/config.log"; then
	# with_fault WHAT TRANSPORT: mount, read everything, and be of that transport
	with_fault() {
		rm -rf "$cache"
		start_by "env LD_PRELOAD=$library HOPPER_URING_FAULT=$1" "$origin" transport=uring,open=daemon
		transport_is "$2"
		on_every_processor
		same_tree "$1"
	}
	with_fault ring dev
	check "$(stat_of transport_why)" = "Operation not permitted"
	stop
	with_fault "submit=$last_cpu" dev
	check "$(stat_of transport_why)" = "Cannot allocate memory"
	check "$(stat_of uring.requests)" -eq 0
	stop
	with_fault "register=$last_cpu:8" dev
	check "$(stat_of transport_why)" = "Invalid argument"
	check "$(stat_of uring.requests)" -eq 0
	stop
	with_fault "register=$last_cpu:5" uring
	check "$(stat_of uring.requests)" -gt 0
	wait_for '[ "$(stat_of uring.retried)" -eq 5 ]' || fail "entries offered again: $(stat_of uring.retried)"
	stop
	with_fault "commit=7" uring
	check "$(stat_of uring.retried)" -ge 10 "answers tried again"
	check "$(stat_of reads.errors)" -eq 0
	stop
else
	echo "left out: faults of the rings, with a sanitizer"
fi

# ---- an ordinary user ----
user_can() { command -v setpriv >/dev/null && id nobody >/dev/null 2>&1 && [ -u "$(command -v fusermount3)" ]; }
if user_can; then
	mode=$(stat -c %a /dev/fuse)
	trap 'status=$?; echo "$was" >$switch; chmod "$mode" /dev/fuse; (exit $status); cleanup' EXIT
	chmod 666 /dev/fuse
	rm -rf "$cache"
	chmod -R a+rX "$scratch" && chown nobody "$scratch" "$mnt"
	cp "$hopperfs" "$scratch/hopperfs"
	chmod 755 "$scratch/hopperfs"
	as_nobody="setpriv --reuid nobody --regid nogroup --clear-groups env HOME=$scratch"
	: >"$scratch/user.log" && chown nobody "$scratch/user.log"
	$as_nobody "$scratch/hopperfs" -f "$origin" "$mnt" -o "cache=$cache,transport=uring,log=info:$scratch/user.log" &
	daemon_pid=$!
	user_stats() { $as_nobody getfattr -n user.hopper.stats --only-values --absolute-names "$mnt" 2>/dev/null; }
	wait_for '[ -n "$(user_stats)" ]' || fail "no mount of an ordinary user: $(cat "$scratch/user.log")"
	user_stats | grep -q '"transport": *"uring"' || fail "an ordinary user's transport: $(cat "$scratch/user.log")"
	$as_nobody diff -r "$origin" "$mnt" >/dev/null || fail "an ordinary user's bytes"
	user_stats | grep -q '"uring": *{"requests": *[1-9]' || fail "an ordinary user's requests: $(user_stats)"
	$as_nobody fusermount3 -u "$mnt" || fail "an ordinary user's unmount"
	wait "$daemon_pid" || fail "an ordinary user's daemon ended with $?"
	daemon_pid=
fi

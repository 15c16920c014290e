#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A mount that nobody reads takes no processor time: by each transport and policy of opening, no thread of it runs.
LIMIT_S=200
. "$(dirname "$0")/lib.sh"

need_root
switch=/sys/module/fuse/parameters/enable_uring
transports=dev
if [ -w $switch ]; then
	exec 8<$switch
	flock -w 100 8 || skip "another test has $switch"
	was=$(cat $switch)
	trap 'status=$?; echo "$was" >$switch; (exit $status); cleanup' EXIT
	echo Y >$switch
	transports="dev uring"
fi

make_files 60 40000 3
head -c 3000000 /dev/urandom >"$origin/large"

# all processes of the mount: how often their threads ran
processes() {
	local pid

	for pid in "$@"; do echo "$pid"; processes $(cat /proc/$pid/task/*/children 2>/dev/null); done
}
runs() {
	local pid

	for pid in $(processes "$daemon_pid"); do cat /proc/$pid/task/*/status; done | awk '/ctxt_switches/ { n += $2 } END { print n }'
}
# What was begun by reading may go on for a while: then there are three seconds in which nothing runs.
is_idle() {
	local before=$(runs)

	sleep 3
	ran=$(($(runs) - before))
	[ $ran -le 1 ]
}

for transport in $transports; do
	for policy in daemon passthrough pagecache; do
		rm -rf "$cache"
		start "$origin" "transport=$transport,open=$policy"
		[ "$(stat_of transport)" = $transport ] || skip "$(stat_of transport_why)"
		ls -lR "$mnt" >/dev/null
		same_tree
		same_tree
		wait_for is_idle 25 || {
			for t in /proc/$(server_pid)/task/*; do echo "$(cat $t/comm) $(grep -h voluntary $t/status | tr '\n' ' ')"; done >"$scratch/one"
			sleep 3
			for t in /proc/$(server_pid)/task/*; do echo "$(cat $t/comm) $(grep -h voluntary $t/status | tr '\n' ' ')"; done | diff "$scratch/one" -
			fail "transport=$transport,open=$policy: threads ran $ran times in 3 s with nothing to do"
		}
		stop
	done
done

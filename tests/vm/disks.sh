#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs in the guest of tests/vm/boot: a cache directory on each node's NVMe disk. What a worker reads is stored on its
# node's disk, and the threads of a disk run on its node.
LIMIT_S=170
. "$(dirname "$0")/../mount/lib.sh"
need_root
[ -e /sys/devices/system/node/node1 ] || skip "this machine has one NUMA node; make check-numa starts a guest that has two"
[ -n "${HOPPER_VM_DISKS:-}" ] || skip "makes file systems on /dev/nvme0n1 and /dev/nvme1n1: only in the guest"
command -v mkfs.ext4 >/dev/null || skip "mkfs.ext4 is not installed"

files=400
make_files $files 20000 2
cache=
for node in 0 1; do
	mkfs.ext4 -q -F "/dev/nvme${node}n1" || fail "no file system on disk $node"
	mkdir "$scratch/disk$node"
	mount "/dev/nvme${node}n1" "$scratch/disk$node" || fail "cannot mount disk $node"
	cache=$cache${cache:+:}$scratch/disk$node/cache
done

# read_by NODE CLASS: all of a class, by a process bound to the node
read_by() {
	taskset -c "$(cat "/sys/devices/system/node/node$1/cpulist")" /usr/bin/python3 - "$mnt/class0$2" <<'PY' || fail "reading"
import os, sys
for name in sorted(os.listdir(sys.argv[1])):
    fd = os.open(os.path.join(sys.argv[1], name), os.O_RDONLY)
    assert len(os.read(fd, 1 << 20)) == 20000
    os.close(fd)
PY
}

of_dir() { # NODE KEY
	stats | /usr/bin/python3 -c '
import json, sys
for d in json.load(sys.stdin)["disk"]["dirs"]:
    if d["node"] == int(sys.argv[1]):
        print(d[sys.argv[2]])' "$1" "$2"
}
is_stored() { [ "$(stat_of disk.objects)" -ge $files ]; }

options="prefetch=off,ram=9M,meta_ttl=3600,open=daemon"
start "$origin" "$options"
for node in 0 1; do read_by $node $node; done
wait_for is_stored || fail "not all was stored"
for node in 0 1; do
	check "$(of_dir $node path)" = "$scratch/disk$node/cache" "the disk's node"
	check "$(of_dir $node objects)" -eq $((files / 2)) "extents on the disk of node $node"
done
stats >/dev/null
# those that exist now; a disk's completion thread and committer always do
for task in /proc/"$(server_pid)"/task/*; do
	name=$(cat "$task/comm" 2>/dev/null) || continue
	case $name in disk-0 | disk-1 | disk-worker-0 | disk-worker-1) ;; *) continue ;; esac
	allowed=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "$task/status" 2>/dev/null)
	[ -n "$allowed" ] || continue   # a worker that has just left
	check "$allowed" = "$(cat "/sys/devices/system/node/node${name##*-}/cpulist")" "processors of $name"
	echo "$name runs on its node's processors"
	seen="${seen:-} $name"
done
case ${seen:-} in *disk-0*disk-1* | *disk-1*disk-0*) ;; *) fail "threads of the disks not found:${seen:-}" ;; esac
stop

start "$origin" "$options"
for node in 0 1; do read_by $node $node; done
for node in 0 1; do
	check "$(of_dir $node local_reads)" -eq $((files / 2)) "local reads from node $node's disk"
	check "$(of_dir $node remote_reads)" -eq 0 "remote reads from node $node's disk"
done
stop

start "$origin" "$options"
for node in 0 1; do read_by $node $((1 - node)); done
for node in 0 1; do
	check "$(of_dir $node remote_reads)" -eq $((files / 2)) "remote reads from node $node's disk"
done
check "$(stat_of reads.missed)" -eq 0 "a disk on the other node is still a cache"
stop

start "$origin" "$options,numa=off"
for task in /proc/"$(server_pid)"/task/*; do
	case $(cat "$task/comm") in disk-*)
		check "$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' "$task/status")" = \
			"$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status)" "processors with numa=off" ;;
	esac
done
stop
umount "$scratch"/disk?
echo "PASS"

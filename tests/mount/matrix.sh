#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The fault matrix: what goes wrong with the cache's disk (a row) x what goes wrong with the origin x every kind of reader, and the
# open policies. Each byte is compared; an error is right only where the origin's fault explains it, whatever the disk does;
# each reader has a time limit; each fault must have been counted. matrix.py prints a line per cell.
#
# The faults that cost timeout= each are met by some rows only; MATRIX=full: by all.
LIMIT_S=400
. "$(dirname "$0")/lib.sh"
need_root

quick="none delay throttle slow error short busy changed lie_more lie_less meta_error"
waits="lost hang meta_hang"   # also in the tree of each row
control=$scratch/control
/usr/bin/python3 - "$origin" "$quick $waits" <<'PY'
import os, random, sys
root, rnd = sys.argv[1], random.Random(3)
rows = ["daemon", "auto", "pagecache", "enospc", "inodes", "readonly", "flipped", "deleted", "emfile"]
for row in rows:
    for fault in sys.argv[2].split():
        os.makedirs(os.path.join(root, row, fault))
        for kind in "read", "pread", "mmap", "sendfile", "direct":
            with open(os.path.join(root, row, fault, kind + "-small"), "wb") as f:
                f.write(rnd.randbytes(20000 + rnd.randrange(9000)))
            with open(os.path.join(root, row, fault, kind + "-big"), "wb") as f:
                f.write(rnd.randbytes((1100000 if kind == "pread" else 150000) + rnd.randrange(9000)))
    for kind in "read", "pread", "mmap", "sendfile", "direct":
        with open(os.path.join(root, row, "kept-" + kind), "wb") as f:
            f.write(rnd.randbytes(1200000 if kind == "direct" else 60000))
PY
disk=$scratch/disk
mkdir "$disk"
undisk() { mountpoint -q "$disk" && { umount "$disk" || umount -l "$disk"; }; }
trap 'status=$?; undisk; (exit $status); cleanup' EXIT

# row POLICY DISK-OPTIONS: the mount of $row, with what is kept read before anything goes wrong
mount_row() {
	local tmpfs=${2:-size=200M}

	if [ "$tmpfs" = ext4 ]; then
		truncate -s 64M "$scratch/image"
		mkfs.ext4 -q -F "$scratch/image" && mount -o loop "$scratch/image" "$disk" 2>/dev/null || return 1
	else
		mount -t tmpfs -o "$tmpfs" hopper-test "$disk" || return 1
	fi
	cache=$disk/c
	echo >"$control"
	start "fault:control=$control:$origin" "open=$1,timeout=2,meta_ttl=1h,ram=8M,min_free=0,prefetch=${3:-off}"
	for k in read pread mmap sendfile direct; do
		cmp "$origin/$row/kept-$k" "$mnt/$row/kept-$k" || fail "$row: before the fault"
	done
	wait_for '[ "$(stat_of disk.objects)" -ge 6 ]' || fail "$row: nothing is stored"
	[ -z "${2:-}" ] || echo 3 >/proc/sys/vm/drop_caches
}
# Mounted again, nothing is in memory
again() { start "fault:control=$control:$origin" "open=$1,timeout=2,meta_ttl=1h,ram=8M,min_free=0,prefetch=off"; }
bad=0
cells() {
	/usr/bin/python3 "$(dirname "$0")/matrix.py" "$origin" "$mnt" "$control" "$row" "$@" || bad=1
	kill -0 "$daemon_pid" 2>/dev/null || fail "$row: the keeper died"
	check_deaths "$row: the server"
}
counted() {
	local sum=0 c

	for c in "$@"; do sum=$((sum + $(stat_of "$c"))); done
	[ $sum -gt 0 ] && return
	echo "$row: NOT COUNTED: $*"
	bad=1
}
end_row() {
	wait_for 'umount "$mnt" 2>/dev/null' 20 || fail "$row: umount: busy"
	wait "$daemon_pid"
	check $? -eq 0 "$row: status of the daemon"
	daemon_pid=
	check_deaths "$row: the server"
	undisk
}
some() { [ "${MATRIX:-}" = full ] && echo "$quick $waits" || echo "$*"; }

for row in daemon auto; do
	mount_row $row ""
	cells $(some $quick lost hang $([ $row = daemon ] && echo meta_hang))
	end_row
done

# it needs the prefetcher, which may be there before the faults: what is met is another thing each time
row=pagecache
mount_row pagecache "" auto
MATRIX_UNCOUNTED=1 cells none delay throttle slow error short busy changed lost hang
end_row

# The index cannot grow either: names that nobody has seen before cannot be learnt, those that are known go on
row=enospc
mount_row daemon size=12M
find "$mnt/$row" >/dev/null
dd if=/dev/zero of="$disk/others" bs=64k 2>/dev/null
cells none delay throttle slow error short busy changed lost
counted disk.refused disk.errors
end_row

row=inodes
mount_row auto size=200M,nr_inodes=24
cells $(some $quick)
counted disk.errors disk.refused
end_row

row=readonly
if mount_row daemon ext4; then
	find "$mnt/$row" >/dev/null   # what the index does not know it cannot learn any more
	mount -o remount,abort "$disk" 2>/dev/null
	cells none delay throttle slow error short busy changed hang
	counted disk.errors disk.refused
	end_row
else
	echo "$row: not tried: no loop device"
fi

row=flipped
mount_row daemon size=200M
stop
/usr/bin/python3 - "$cache" <<'PY'
import os, sys
for sub in "segments", "objects":
    for d, _, files in os.walk(os.path.join(sys.argv[1], sub)):
        for name in files:
            with open(os.path.join(d, name), "r+b") as f:
                size = f.seek(0, 2)
                for at in range(1000, size, 20000):
                    f.seek(at)
                    byte = f.read(1)
                    f.seek(at)
                    f.write(bytes([byte[0] ^ 4]))
PY
again daemon
cells $(some $quick)
counted disk.corrupt
end_row

row=deleted
mount_row auto size=200M
stop
again auto
rm -rf "$cache"/segments/* "$cache"/objects/*
rmdir "$cache/segments" "$cache/objects"
cells $(some $quick)
counted disk.corrupt disk.errors
end_row

row=emfile
mount_row daemon size=200M
server=$(server_pid)
# what it needs at rest, of a second's looks the least, and one
fds=$(for _ in 1 2 3 4 5 6 7 8 9 10; do find "/proc/$server/fd" -mindepth 1 | wc -l; sleep 0.1; done | sort -n | head -1)
prlimit --pid "$server" --nofile=$((fds + 1)):4096
cells $(some $quick)
grep -q 'Too many open files' "$scratch/log" || { echo "$row: NOT MET"; bad=1; }
end_row
[ $bad = 0 ] || fail "see above"

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Several cache directories: spread over, moved about between mounts, filled up, deleted, made read-only.
LIMIT_S=170
. "$(dirname "$0")/lib.sh"

one=$scratch/one two=$scratch/two three=$scratch/three
files=300 size=30000
plain="prefetch=off,open=daemon,meta_ttl=3600,ram=4M"
mounted=()

cleanup_all() {
	local status=$?

	if is_mounted; then umount -l "$mnt" 2>/dev/null || fusermount3 -uz "$mnt"; fi
	[ -z "$daemon_pid" ] || crash 2>/dev/null
	for m in "${mounted[@]}"; do umount -l "$m" 2>/dev/null; done
	(exit $status)
	cleanup
}
trap cleanup_all EXIT

# of_dir PATH KEY: what the statistics say of one directory
of_dir() {
	stats | /usr/bin/python3 -c '
import json, sys
for d in json.load(sys.stdin)["disk"]["dirs"]:
    if d["path"] == sys.argv[1]:
        print(d[sys.argv[2]])' "$1" "$2"
}

# Everything is read once and right, and all of it stored; sets $hits and $misses
epoch() {
	local hit miss

	drop_page_cache
	hit=$(hits_now) miss=$(stat_of reads.missed)
	same_tree "$1"
	hits=$(($(hits_now) - hit)) misses=$(($(stat_of reads.missed) - miss))
	check "$(stat_of reads.errors)" -eq 0 "$1: errors"
}
hits_now() { echo $(($(stat_of reads.hit_disk) + $(stat_of reads.hit_ram))); }
is_stored() { [ "$(stat_of disk.objects)" -ge "$1" ]; }

# refused DIRS TEXT: one line, status 2
refused() {
	"$hopperfs" "$origin" "$mnt" -o "cache=$1" >"$scratch/out" 2>&1
	check $? -eq 2 "status for cache=$1"
	check "$(wc -l <"$scratch/out")" -eq 1 "lines for cache=$1"
	grep -q "$2" "$scratch/out" || fail "cache=$1: $(cat "$scratch/out")"
}

make_files $files $size 3

# ---- spread, reordered, removed, added ----
cache=$one:$two
start "$origin" "$plain"
epoch "two directories"
check $misses -eq $files "first epoch's misses"
wait_for "is_stored $files" || fail "not all was stored"
in_one=$(of_dir "$one" objects) in_two=$(of_dir "$two" objects)
check $((in_one + in_two)) -eq $files
check "$in_one" -gt $((files / 4)) "extents in the first"
check "$in_two" -gt $((files / 4)) "extents in the second"
stop

cache=$two:$one
start "$origin" "$plain"
epoch "reordered"
check $hits -eq $files "hits when reordered"
stop

cache=$one
start "$origin" "$plain"
check "$(stat_of disk.objects)" -eq "$in_one" "extents, the second removed"
epoch "the second removed"
check $hits -eq "$in_one" "hits, the second removed"
check $misses -eq "$in_two" "misses, the second removed"
wait_for "is_stored $files" || fail "not all was stored again"
stop

# what was away is there still, and a new one takes its part
cache=$one:$two:$three
start "$origin" "$plain"
check "$(of_dir "$two" objects)" -eq "$in_two" "extents of the one that was away"
epoch "one came back, one is new"
check $hits -eq $files "hits when it came back"
stop

# the one with the namespace is removed: a clean end left the names on another
cache=$three:$two
start "$origin" "$plain"
in_two=$(of_dir "$two" objects)
epoch "the first removed"
check $hits -eq "$in_two" "hits, the first removed"
stop

refused "$one:$one" "given twice"
refused "$one:$one/nested" "inside another"
cp -a "$one" "$scratch/copy"
refused "$two:$scratch/copy" "a copy of a cache directory"
rm -rf "$scratch/copy" "$one" "$two" "$three"

# ---- one is full ----
need_root
mkdir "$scratch/small" "$scratch/large"
mount -t tmpfs -o size=8M,mode=700 small "$scratch/small" || skip "cannot mount a tmpfs"
mounted+=("$scratch/small")
mount -t tmpfs -o size=24M,mode=700 large "$scratch/large"
mounted+=("$scratch/large")
small=$scratch/small/cache
cache=$small:$scratch/large
head -c 5M /dev/zero >"$scratch/small/filler"   # somebody else's: a quarter of the files no longer has room
start "$origin" "$plain,min_free=1M,compress=off"
epoch "one has little room"
wait_for "is_stored $files" || fail "the other did not take what the small one could not"
check "$(of_dir "$small" bytes)" -le $((2 << 20)) "bytes on the small one"
check "$(of_dir "$small" objects)" -gt 0 "extents on the small one"
check "$(of_dir "$small" objects)" -lt 70 "extents on the small one"
head -c 8M /dev/zero >>"$scratch/small/filler" 2>/dev/null
epoch "one is full"
check $((hits + misses)) -eq $files
check "$(stat_of disk.state)" = ok "a full disk is no failure"
stop
umount "$scratch/small" "$scratch/large"

# ---- one is deleted under the daemon: once the one without, once the one with the namespace ----
for gone in "$two" "$one"; do
	rm -rf "$one" "$two"
	cache=$one:$two
	start "$origin" "$plain"
	epoch "before one is deleted"
	wait_for "is_stored $files" || fail "not all was stored"
	(cd "$origin" && find . -type f -exec cmp {} "$mnt/{}" \;) >"$scratch/differs" 2>&1 &
	reader=$!
	rm -rf "$gone"
	wait $reader
	[ ! -s "$scratch/differs" ] || fail "deleted: $(head -3 "$scratch/differs")"
	wait_for '[ "$(of_dir "$gone" state)" = down ]' || fail "it was not noticed"
	check "$(stat_of disk.state)" = shaky
	[ "$gone" = "$two" ] || wait_for '[ -e "$two/names/data.mdb" ]' || fail "the namespace did not move"
	epoch "one is deleted"
	epoch "after one was deleted"
	check $((hits + misses)) -eq $files
	# what was in memory was not stored anew
	wait_for "is_stored $((files - 140))" || fail "what was lost was not stored on the other"
	check "$(stat_of disk.went_down)" -eq 1 "times down"
	kept=$(stat_of disk.objects)
	stop
	start "$origin" "$plain"   # made anew
	epoch "it is there again"
	check $hits -eq "$kept" "hits when it is there again"
	stop
done

# ---- one becomes read-only, by an error of its file system, and comes back ----
command -v mkfs.ext4 >/dev/null || skip "the rest: no mkfs.ext4"
truncate -s 64M "$scratch/image"
mkfs.ext4 -q -F "$scratch/image" && mkdir "$scratch/disk"
mount -o loop,errors=remount-ro "$scratch/image" "$scratch/disk" || skip "the rest: no loop device"
mounted+=("$scratch/disk")
device=$(basename "$(awk -v m="$scratch/disk" '$2 == m { print $1 }' /proc/self/mounts)")
[ -w "/sys/fs/ext4/$device/trigger_fs_error" ] || skip "the rest: no way to make ext4 fail"
mkdir "$origin/late"
mount -t tmpfs -o size=64M,mode=700 large "$scratch/large"
one=$scratch/large/cache
cache=$scratch/disk/cache:$one   # the one with the namespace
start "$origin" "$plain"
for class in class00 class01; do diff -r "$origin/$class" "$mnt/$class" || fail "before it fails"; done
wait_for "is_stored $((files / 3 * 2))" || fail "not all was stored"
in_disk=$(of_dir "$scratch/disk/cache" objects)
check "$in_disk" -gt $((files / 6)) "extents on the disk that is to fail"
sync -f "$scratch/disk"
echo 1 >"/sys/fs/ext4/$device/trigger_fs_error"
for i in $(seq 100); do head -c $size /dev/urandom >"$origin/late/$i"; done   # enough that eight writes fail
epoch "one is read-only"   # and names are asked for that it did not know
check $hits -eq $((files / 3 * 2)) "a read-only directory goes on serving: hits"
check $misses -eq $((files / 3 + 100))
check "$(of_dir "$scratch/disk/cache" state)" = down
check "$(of_dir "$one" state)" = ok
stop
umount "$scratch/disk"
mount -o loop "$scratch/image" "$scratch/disk" || fail "the disk does not come back"
start "$origin" "$plain"
check "$(of_dir "$scratch/disk/cache" objects)" -gt 0 "what it had is still known"
epoch "it came back"
check $hits -ge $((files / 3 * 2)) "hits when it came back"
stop
echo PASS

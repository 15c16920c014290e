#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# An index that was cut short (while nobody, or while the daemon uses it), emptied, overwritten, or taken from another
# cache; a cache that was copied to another place: mountable at once, and every byte right.
. "$(dirname "$0")/lib.sh"

make_files 200 20000 4
data=$cache/index/data.mdb
fill() {
	rm -rf "$cache"
	start "$origin" "prefetch=off,open=daemon"
	same_tree "$1"
	wait_for '[ "$(stat_of disk.objects)" = "$(find "$origin" -type f | wc -l)" ]' || fail "not stored"
}
again() {
	start "$origin" "prefetch=off,open=daemon,meta_ttl=1ms"
	same_tree "$1, mounted again"
	check "$(stat_of reads.errors)" -eq 0 "$1: errors"
	stop
}
damage() {
	fill "before: $1"
	stop
	"${@:2}" || fail "$*"
	again "$1"
}
size() { stat -c %s "$data"; }
half() { truncate -s $(($(size) / 8192 * 4096)) "$data"; }
noise() { /usr/bin/python3 -c 'import os,sys; f=open(sys.argv[1],"r+b"); n=f.seek(0,2); f.seek(0); f.write(os.urandom(n))' "$data"; }
damage "cut to a half" half
[ -e "$cache/index.damaged-0" ] || fail "what was cut was not set aside"
damage "two pages left" truncate -s 8192 "$data"
damage "nothing left" truncate -s 0 "$data"
damage "noise" noise
damage "the pages behind the first two are zeros" dd if=/dev/zero of="$data" bs=4096 seek=2 count=40 conv=notrunc status=none
damage "no index" rm -rf "$cache/index"

# the index of another cache, whose ids mean other files
mv "$origin/class00" "$scratch/apart"
fill "without a directory"
stop
cp -r "$cache/index" "$scratch/index"
mv "$scratch/apart" "$origin/class00"
fill_all() { rm -rf "$cache/index" && cp -r "$scratch/index" "$cache/index"; }
damage "the index of another time" fill_all

# a copy
fill "before the copy"
stop
cp -a "$cache" "$scratch/copy"
rm -rf "$cache"
cache=$scratch/copy data=$cache/index/data.mdb
start "$origin" "prefetch=off,open=daemon"
same_tree "a copy"
check "$(stat_of reads.hit_disk)" -ge 200 "read from the copy"
check "$(stat_of origin.requests)" -eq 0 "asked of the origin"
stop

# cut short under the daemon: it ends, or goes on; nobody reads a wrong byte, and the next one can be mounted
fill "before it is cut under the daemon"
deaths_are_meant=1
truncate -s 8192 "$data"
diff -r "$origin" "$mnt" >"$scratch/out" 2>&1
grep -E '^(Binary files|Only in)' "$scratch/out" && fail "wrong bytes from an index that was cut"
if kill -0 "$daemon_pid" 2>/dev/null && is_mounted && stats >/dev/null 2>&1; then
	crash
else
	wait "$daemon_pid"
	daemon_pid=
	umount -l "$mnt" 2>/dev/null
fi
again "cut under the daemon"
exit 0

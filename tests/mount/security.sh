#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The rows of SECURITY.md that need a mount: what was planted in a cache directory, a hostile tree, an origin that lies,
# control by others, and what an untrusted caller may ask for.
. "$(dirname "$0")/lib.sh"

need_root
command -v setpriv >/dev/null || skip "setpriv is not installed"
id nobody >/dev/null 2>&1 || skip "there is no user nobody"
as_nobody() { setpriv --reuid nobody --regid nogroup --clear-groups env HOME="$scratch/home" "$@"; }
make_files 20 60000 2
echo victim >"$scratch/victim"

# refused TEXT: the mount is not made, within seconds, with TEXT in the message
refused() {
	timeout 20 "$hopperfs" "$origin" "$mnt" -o "cache=$cache" >"$scratch/out" 2>&1
	local status=$?
	[ $status != 0 ] && [ $status != 124 ] || fail "mounted or hung ($status): $1"
	grep -q "$1" "$scratch/out" || fail "expected '$1', got: $(cat "$scratch/out")"
	check "$(cat "$scratch/victim")" = victim "a file elsewhere after: $1"
}
fresh() { rm -rf "$cache"; start "$origin"; cat "$mnt"/*/* >/dev/null; stop; }

# ---- the cache directory
mkdir -m 700 "$cache" && chown nobody "$cache"
refused "owned by another user"
rm -r "$cache"
fresh
chmod 755 "$cache"
refused "open to other users"
chmod 700 "$cache"
mkdir -m 700 "$scratch/mine" && mv "$cache" "$scratch/real"
ln -s "$scratch/mine" "$cache" && chown -h nobody "$cache"
refused "another user's link"
rm "$cache" && mv "$scratch/real" "$cache"
# what was planted while it was open to others
for name in hopperfs-cache lock index/data.mdb index/synced; do
	for planted in fifo symlink hardlink; do
		fresh
		rm "$cache/$name"
		case $planted in
		fifo) mkfifo -m 600 "$cache/$name" ;;
		symlink) ln -s "$scratch/victim" "$cache/$name" ;;
		hardlink) ln "$scratch/victim" "$cache/$name" ;;
		esac
		refused "$cache"
	done
done
# LMDB's lock file is a new one each time, in memory: what is planted in its place goes
for planted in fifo symlink hardlink; do
	fresh
	case $planted in
	fifo) mkfifo -m 600 "$cache/index/lock.mdb" ;;
	symlink) ln -s "$scratch/victim" "$cache/index/lock.mdb" ;;
	hardlink) ln "$scratch/victim" "$cache/index/lock.mdb" ;;
	esac
	before=$(cksum <"$scratch/victim")
	start "$origin"
	stop
	check "$(cksum <"$scratch/victim")" = "$before" "what a planted lock.mdb leads to"
done
rm -rf "$cache"
# segments: damaged for us, and fetched again
fresh
for segment in "$cache"/segments/*.seg; do
	rm "$segment" && mkfifo -m 600 "$segment"
	break
done
start "$origin"
same_tree "contents with a FIFO in place of a segment"
stop
for segment in "$cache"/segments/*.seg; do
	rm "$segment" && ln -s "$scratch/victim" "$segment"
done
start "$origin"
same_tree "contents with links in place of segments"
stop
check "$(cat "$scratch/victim")" = victim "a file elsewhere"
rm -rf "$cache"

# ---- a hostile tree
/usr/bin/python3 - "$origin" <<'PY'
import os, sys
root = os.fsencode(sys.argv[1])
for name in (b"new\nline", b"esc\x1b[31m", b"\xff\xfe", b"x" * 255, b"quote\"\\", b"-rf", b"..."):
    open(os.path.join(root, name), "wb").write(name)
os.symlink("/", os.path.join(root, b"slash"))
os.symlink("loop", os.path.join(root, b"loop"))
os.symlink("../../victim", os.path.join(root, b"up"))
os.mkdir(os.path.join(root, b"swap"))
for kind in ("fifo", "symlink", "directory", "shorter"):
    open(os.path.join(root, b"swap", kind.encode()), "w").write("original " + kind)
os.utime(os.path.join(root, b"..."), ns=(0, 99999999999 * 10**9))
PY
chmod 6755 "$origin/..."
start "$origin"
same_tree "contents of a hostile tree"
check "$(readlink "$mnt/slash")" = / "a link is shown, not followed"
cat "$mnt/loop" 2>/dev/null && fail "a link to itself was read"
grep -q " $mnt fuse.hopperfs [^ ]*nosuid,nodev" /proc/self/mounts || fail "set-uid files and devices of the origin count"
stats | /usr/bin/python3 -m json.tool >/dev/null || fail "statistics are no JSON"
grep -Evq '^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.]+ hopperfs (error|warning|info|debug): ' "$scratch/log" && fail "a forged line in the log"
stop
# files when they were looked up, and something else by the time they are read
cache=$scratch/cache2
chmod 777 "$origin"   # for what follows, where the kernel is not to be the one that refuses
start "$origin" meta_ttl=3600,prefetch=off
ls -l "$mnt/swap" >/dev/null
rm "$origin/swap/symlink" && ln -s "$scratch/victim" "$origin/swap/symlink"
rm "$origin/swap/fifo" && mkfifo "$origin/swap/fifo"
rm "$origin/swap/directory" && mkdir "$origin/swap/directory"
rm "$origin/swap/shorter" && printf s >"$origin/swap/shorter"
for kind in fifo symlink directory shorter; do
	read=$(timeout 20 cat "$mnt/swap/$kind" 2>/dev/null </dev/null)
	[ $? != 124 ] || fail "reading what became a $kind hung"
	case $read in
	"" | s) ;;   # an error, or the new file
	*) fail "what became a $kind reads '$read'" ;;
	esac
done

# ---- control
as_nobody setfattr -n user.hopper.plan -v 'numpy seed=1' "$mnt" 2>"$scratch/err" && fail "a plan by another user"
grep -q "$(is_way open=pagecache && echo 'Read-only' || echo 'not permitted')" "$scratch/err" || fail "a plan by another user: $(cat "$scratch/err")"
as_nobody setfattr -x user.hopper.plan "$mnt" 2>/dev/null && fail "a plan removed by another user"
stop

# ---- an origin whose sizes lie: sysfs says 4096 bytes of files that have a few
if [ -r /sys/kernel/mm/transparent_hugepage/enabled ] && [ "$(stat -c %s /sys/kernel/mm/transparent_hugepage/enabled)" = 4096 ]; then
	cache=$scratch/cache3
	start /sys/kernel/mm prefetch=off,timeout=2
	bytes=$(timeout 60 cat "$mnt/transparent_hugepage/enabled" 2>/dev/null | wc -c)
	check "$bytes" -le "$(wc -c </sys/kernel/mm/transparent_hugepage/enabled)" "bytes of a file that is shorter than it says"
	stop
fi

# ---- an untrusted caller gets no more than he has
mkdir -m 700 "$scratch/home" "$scratch/closed" && chown nobody "$scratch/home"
for options in "cache=$scratch/closed/cache" "cache=$scratch/home/c,log=info:$scratch/closed/log" "cache=$scratch/closed"; do
	as_nobody timeout 20 "$hopperfs" "$origin" "$mnt" -o "$options" >"$scratch/out" 2>&1 && fail "a user mounted with $options"
	is_mounted && fail "a mount stays after $options"
done
[ -z "$(ls -A "$scratch/closed")" ] || fail "something was made where the caller may not write"
exit 0

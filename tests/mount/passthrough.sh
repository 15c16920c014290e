#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Complete large files are read by the kernel itself: the same bytes, no requests, whatever happens beside.
. "$(dirname "$0")/lib.sh"

need_root
for i in 0 1 2 3 4 5 6 7; do head -c $((6000000 + i * 111111)) /dev/urandom >"$origin/f$i"; done
head -c 9000000 /dev/urandom >"$origin/big"
extents=$(($(cat "$origin"/* | wc -c) / 1048576 + 10))
: >"$origin/zero"
yes hopper | head -c 5000000 >"$origin/text"
echo small >"$origin/small"

cached() { getfattr -n user.hopper.cached --only-values --absolute-names "$mnt/$1"; }
is_cached() { cached "$1" | grep -q "\"disk\": $(stat -c %s "$mnt/$1")}"; }
fill() {
	local f

	for f in "$@"; do cmp "$origin/$f" "$mnt/$f" || fail "$f"; done
	for f in "$@"; do wait_for "is_cached $f" || fail "$f is not stored: $(cached "$f")"; done
}
# a release is on its way for a moment after the close: until it is there, the next open follows the last
opens_by_kernel() {
	local before=$(stat_of reads.passthrough_opens)

	wait_for '{ : <"$mnt/'"$1"'"; } && [ "$(stat_of reads.passthrough_opens)" -gt '"$before"' ]' 10
}

start "$origin" prefetch=off
[ "$(stat_of passthrough)" = True ] || skip "open=$(stat_of open): $(stat_of open_why)"
check "$(stat_of open)" = passthrough

# Opened while incomplete: the daemon's, and so is every other handle until all are closed.
exec 7<"$mnt/big"
head -c 1000 <&7 | cmp -n 1000 - "$origin/big" || fail "first bytes"
fill big
check "$(stat_of reads.passthrough_opens)" -eq 0 "opens beside a handle of the daemon's"
exec 7<&-
opens_by_kernel big || fail "a complete file is not opened by the kernel"
fill f0 f1 f2 f3 f4 f5 f6 f7 text
opens_by_kernel text || fail "a compressible file, while there is room"

# The same bytes by every way, and no request.
wait_for 'for f in 0 1 2 3 4 5 6 7; do opens_by_kernel f$f || return 1; done' || fail "complete files"
requests=$(stat_of reads.requests) opens=$(stat_of reads.passthrough_opens)
/usr/bin/python3 - "$origin/big" "$mnt/big" "$scratch/out" <<'PY' || fail "reading"
import mmap, os, random, sys, threading
a, b = (os.open(p, os.O_RDONLY) for p in sys.argv[1:3])
size = os.fstat(a).st_size
want = os.pread(a, size, 0)
rnd = random.Random(3)
for length, times in ((4096, 300), (131072, 100), (1, 50), (3000000, 5)):
    for _ in range(times):
        at = rnd.randrange(size)
        assert os.pread(b, length, at) == want[at:at + length], (length, at)
assert os.pread(b, 100, size) == b"" and os.pread(b, 100, size + 5000) == b""
with mmap.mmap(b, 0, prot=mmap.PROT_READ) as m:
    assert m[:] == want
out = os.open(sys.argv[3], os.O_RDWR | os.O_CREAT | os.O_TRUNC)
sent = 0
while sent < size:
    sent += os.sendfile(out, b, sent, size - sent)
assert os.pread(out, size, 0) == want
r, w = os.pipe()
at = 0
while at < 300000:
    n = os.splice(b, w, 65536, offset_src=at)
    assert os.read(r, n) == want[at:at + n]
    at += n
bad = []
def again():
    for _ in range(100):
        fd = os.open(sys.argv[2], os.O_RDONLY)
        at = rnd.randrange(size)
        if os.pread(fd, 5000, at) != want[at:at + 5000]:
            bad.append(at)
        os.close(fd)
threads = [threading.Thread(target=again) for _ in range(4)]
for t in threads: t.start()
for t in threads: t.join()
assert not bad
PY
cp "$mnt/big" "$scratch/copy" && cmp "$origin/big" "$scratch/copy" || fail "cp"
same_tree
check "$(stat_of reads.passthrough_opens)" -ge $((opens + 400)) "opens by the kernel"
check "$(stat_of reads.requests)" -le $((requests + 1)) "requests while the kernel reads (one is for the small file)"
check "$(stat_of reads.errors)" -eq 0
stop

# After a clean stop it is believed, with verify=always verified first, with open=daemon not used.
start "$origin" prefetch=off
same_tree
check "$(stat_of reads.passthrough_opens)" -eq 10 "opens by the kernel after a restart"
check "$(stat_of reads.requests)" -eq 1
check "$(stat_of disk.verified)" -le 1 "verified after a clean stop"
stop
start "$origin" prefetch=off,verify=always
same_tree
check "$(stat_of reads.passthrough_opens)" -eq 10 "opens by the kernel with verify=always"
check "$(stat_of disk.verified)" -ge "$((extents - 10))" "verified with verify=always"
stop
start "$origin" prefetch=off,open=daemon
same_tree
check "$(stat_of open)" = daemon
check "$(stat_of passthrough)" = False
check "$(stat_of reads.passthrough_opens)" -eq 0 "opens by the kernel with open=daemon"
stop

# Under pressure what is open stays, what is not may go.
start "$origin" prefetch=off,size=24M
wait_for '[ "$(stat_of disk.bytes)" -le $((24 << 20)) ]' || fail "more on disk than size="
stop
rm -rf "$cache"
start "$origin" prefetch=off,size=24M
fill big
opens_by_kernel big || fail "big is not complete"
exec 7<"$mnt/big"
for round in 1 2; do
	for f in 0 1 2 3 4 5 6 7; do cmp "$origin/f$f" "$mnt/f$f" || fail "f$f under pressure"; done
done
check "$(stat_of evict.other)" -ge 10 "evicted"
is_cached big || fail "an open file was evicted: $(cached big)"
cmp "$origin/big" - <&7 || fail "the open file under pressure"
exec 7<&-
check "$(stat_of disk.corrupt)" -eq 0 "corrupt"
stop

# The origin changes: the open handle keeps its version, a new one gets the new.
rm -rf "$cache"
start "$origin" prefetch=off,meta_ttl=0
fill big
opens_by_kernel big || fail "big is not complete"
cp "$origin/big" "$scratch/old"
exec 7<"$mnt/big"
head -c 9000000 /dev/urandom >"$origin/big"
cmp "$origin/big" "$mnt/big" || fail "the new version"
fill big
opens_by_kernel big || fail "the new version is not complete"
cmp "$origin/big" "$mnt/big" || fail "the new version by the kernel"
cmp "$scratch/old" - <&7 || fail "the old version through the old handle"
exec 7<&-
stop

# A crash: verified before it is lent again; damage is noticed, fetched and lent.
rm -rf "$cache"
start "$origin" prefetch=off
fill f0 f1
opens_by_kernel f0 || fail "f0 is not complete"
exec 7<"$mnt/f0"
crash
/usr/bin/python3 - "$cache/objects" "$(stat -c %s "$origin/f1")" <<'PY' || fail "nothing to damage"
import os, sys
files = [os.path.join(where, n) for where, _, names in os.walk(sys.argv[1]) for n in names]
files = [f for f in files if os.path.getsize(f) == int(sys.argv[2])]
assert len(files) == 1, files
with open(files[0], "r+b") as f:
    f.seek(3 << 20)
    byte = f.read(1)
    f.seek(3 << 20)
    f.write(bytes([byte[0] ^ 1]))
PY
start "$origin" prefetch=off
cmp "$origin/f1" "$mnt/f1" || fail "damaged bytes"
check "$(stat_of disk.corrupt)" -eq 1 "corrupt extents noticed"
check "$(stat_of reads.passthrough_opens)" -eq 0 "opens of the damaged file by the kernel"
fill f1
opens_by_kernel f1 || fail "the mended file is not opened by the kernel"
cmp "$origin/f1" "$mnt/f1" || fail "mended bytes"
check "$(stat_of disk.verified)" -ge 5 "verified before it was lent"
stop
# A reader from before the crash still reads the cache's file: it is never punched under it.
start "$origin" prefetch=off,size=8M
cmp "$origin/f2" "$mnt/f2" || fail "f2"
wait_for '! is_cached f0' || fail "f0 was not evicted: the test tests nothing"
cmp "$origin/f0" - <&7 || fail "a reader from before the crash"
exec 7<&-
cmp "$origin/f0" "$mnt/f0" || fail "f0 once more"
check "$(stat_of reads.errors)" -eq 0 "errors"
stop

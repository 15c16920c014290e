#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The cache outlives the daemon, however it ends; damaged bytes are noticed.
. "$(dirname "$0")/lib.sh"

make_files 200 110000 4
head -c 9000000 /dev/urandom >"$origin/large"
start "$origin" prefetch=off,hedge=off   # a machine that stalls must not add to the count
same_tree
requests=$(stat_of origin.requests)
check "$requests" -eq 209 "origin requests for 200 small files and 9 extents"
stop

start "$origin" prefetch=off
drop_page_cache
same_tree "after a restart"
check "$(stat_of origin.requests)" -eq 0 "origin requests after a restart"
# the large file's nine extents are the kernel's to read, where it may
check $(($(stat_of reads.hit_disk) + 9 * $(stat_of reads.passthrough_opens))) -ge 209 "hits after a restart"
crash

start "$origin" prefetch=off
drop_page_cache
same_tree "after kill -9"
check "$(stat_of origin.requests)" -eq 0 "origin requests after kill -9"
crash

# Flipped bytes, a truncated file and a lost one.
/usr/bin/python3 - "$cache" <<'PY' || fail "nothing to damage"
import os, sys
files = []
for root in ("segments", "objects"):
    for where, _, names in os.walk(os.path.join(sys.argv[1], root)):
        files += [os.path.join(where, n) for n in names]
files.sort(key=os.path.getsize)
assert files
for path in files:
    size = os.path.getsize(path)
    with open(path, "r+b") as f:
        for at in range(0, size, 1 << 20):
            f.seek(at + 77)
            byte = f.read(1)
            if byte:
                f.seek(at + 77)
                f.write(bytes([byte[0] ^ 0x40]))
os.truncate(files[-1], os.path.getsize(files[-1]) // 2)
if len(files) > 1:
    os.unlink(files[0])
PY
start "$origin" prefetch=off
drop_page_cache
same_tree "after damage"
check "$(stat_of disk.corrupt)" -ge 10 "corrupt extents noticed"
check "$(stat_of reads.errors)" -eq 0 "reader errors"
wait_for '[ "$(stat_of disk.objects)" -ge 200 ]' || fail "not stored again"
stop
start "$origin" prefetch=off
drop_page_cache
same_tree "after repair"
check "$(stat_of disk.corrupt)" -eq 0 "still corrupt after repair"
stop

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Large files: sequential, random and mapped reads return the origin's bytes.
. "$(dirname "$0")/lib.sh"

head -c 80000123 /dev/urandom >"$origin/big"
head -c 1048576 /dev/urandom >"$origin/exactly"
head -c 1048577 /dev/urandom >"$origin/over"
start "fault:read=2ms:$origin" ram=64M
/usr/bin/python3 - "$origin/big" "$mnt/big" <<'PY' || fail "random reads"
import mmap, os, random, sys
a, b = (os.open(p, os.O_RDONLY) for p in sys.argv[1:])
size = os.fstat(a).st_size
assert size == os.fstat(b).st_size
rnd = random.Random(3)
for length, times in ((4096, 300), (131072, 100), (1, 50), (3000000, 5)):
    for _ in range(times):
        at = rnd.randrange(size)
        assert os.pread(a, length, at) == os.pread(b, length, at), (length, at)
assert os.pread(b, 100, size) == b"" and os.pread(b, 100, size + 5000) == b""
with mmap.mmap(a, 0, prot=mmap.PROT_READ) as ma, mmap.mmap(b, 0, prot=mmap.PROT_READ) as mb:
    for _ in range(500):
        at = rnd.randrange(size - 5000)
        assert ma[at:at + 5000] == mb[at:at + 5000], at
PY
same_tree
stop
start "fault:read=10ms:$origin" prefetch=seq,open=daemon
drop_page_cache
same_tree
stop
rm -rf "$cache"
start "fault:read=5ms:$origin" prefetch=seq,hedge=off   # a machine that stalls must not add to the count
cmp "$origin/big" "$mnt/big" || fail "sequential"
check "$(stat_of prefetch.by.readahead.used)" -ge 50 "extents read ahead and used"
check "$(stat_of origin.requests)" -le 80 "origin requests of 77 extents"
stop

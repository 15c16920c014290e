#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Two hundred readers at once, and a directory of a hundred thousand files.
LIMIT_S=240
. "$(dirname "$0")/lib.sh"

make_files 400 50000 4
/usr/bin/python3 - "$origin/many" <<'PY'
import os, sys
os.mkdir(sys.argv[1])
for i in range(100000):
    os.close(os.open("%s/f%06d" % (sys.argv[1], i), os.O_CREAT | os.O_WRONLY))
PY
start "fault:read=5ms:$origin"
(cd "$origin" && find class* -type f | sort | xargs sha256sum) >"$scratch/sums"
/usr/bin/python3 - "$mnt" "$scratch/sums" <<'PY' || fail "concurrent readers"
import hashlib, os, random, sys, threading
root = sys.argv[1]
sums = [line.split() for line in open(sys.argv[2])]
wrong = []
barrier = threading.Barrier(200)
def reader(n):
    rnd = random.Random(n)
    barrier.wait()
    for want, name in rnd.sample(sums, 20):
        with open(os.path.join(root, name), "rb") as f:
            if hashlib.sha256(f.read()).hexdigest() != want:
                wrong.append(name)
threads = [threading.Thread(target=reader, args=(n,)) for n in range(200)]
[t.start() for t in threads]
[t.join() for t in threads]
assert not wrong, wrong[:3]
PY
check "$(ls -U "$mnt/many" | wc -l)" -eq 100000
check "$(ls "$mnt/many" | sort | md5sum)" = "$(ls "$origin/many" | sort | md5sum)"
check "$(find "$mnt/many" -size 0 | wc -l)" -eq 100000
[ -e "$mnt/many/f099999" ] || fail "the last file is missing"
check "$(stat_of reads.errors)" -eq 0
stop

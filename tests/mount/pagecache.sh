#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# open=pagecache: a staged file is read without a message, and what is read so is right, seen and bounded.
LIMIT_S=240
. "$(dirname "$0")/lib.sh"

files=1500 size=30001
make_files $files $size 5
start "$origin" open=pagecache
if ! in_force pagecache; then skip "$(grep -o 'not open=pagecache.*' "$scratch/log" | tail -1)"; fi

# read EPOCHS [CHECK]: every file once an epoch in a shuffle, by two processes, compared with the origin
read_epochs() {
	/usr/bin/python3 - "$origin" "$mnt" "$@" <<'PY'
import os, random, sys, time
origin, mnt, epochs, first = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
drop, pause = "drop" in sys.argv, 0.0005
paths = sorted(os.path.join(d, n) for d in os.listdir(mnt) if os.path.isdir(os.path.join(mnt, d)) for n in os.listdir(os.path.join(mnt, d)))
for epoch in range(first, first + epochs):
    order = list(paths)
    random.Random(9000 + epoch).shuffle(order)
    for rank in range(2):
        if os.fork() == 0:
            wrong = 0
            for name in order[rank::2]:
                with open(os.path.join(origin, name), "rb") as f: want = f.read()
                fd = os.open(os.path.join(mnt, name), os.O_RDONLY)
                have = b""
                size = os.fstat(fd).st_size
                while len(have) < size: have += os.read(fd, 1 << 20)
                if drop: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)
                wrong += have != want
                time.sleep(pause)
            os._exit(wrong != 0)
    for _ in range(2):
        _, status = os.wait()
        if status: sys.exit("wrong bytes in epoch %d" % epoch)
PY
}
set_of() { stats | /usr/bin/python3 -c 'import json, sys; print(max(json.load(sys.stdin)["sets"], key=lambda s: s["items"])[sys.argv[1]])' "$1"; }

# Epochs are followed by events alone: each file counted once in each.
read_epochs 1 0 || fail "first epoch"
wait_for '[ "$(set_of epoch)" -eq 1 ]' || fail "the first epoch's end was not seen: $(stats)"
check "$(stat_of reads.opens)" -eq $files "opens of the first epoch"
requests=$(stat_of reads.requests)
read_epochs 2 1 || fail "later epochs"
wait_for '[ "$(set_of epoch)" -eq 3 ]' || fail "the third epoch's end was not seen: $(set_of epoch) $(set_of consumed)"
check "$(stat_of reads.opens)" -eq $((3 * files)) "opens"
check "$(stat_of pagecache.events_lost)" -eq 0
check "$(stat_of prefetch.dropped_observations)" -eq 0

# All that the kernel kept: whatever happens to it, no message but those that ask for the statistics. Each round's first
# reading brings back what somebody else had the kernel drop; a late release or a forgotten name may fall into one, not into all.
warm() { find "$mnt" -type f -exec cat {} + >/dev/null; }
between() { local a=$(stat_of messages) b=$(stat_of messages); echo $((b - a)); }
costs_nothing() {
	local own before

	warm
	between >/dev/null
	own=$(between) requests=$(stat_of reads.requests) before=$(stat_of messages)
	/usr/bin/python3 - "$mnt" <<'PY' || fail "what the kernel has"
import os, sys
n = 0
for d in range(5):
    folder = "%s/class%02d" % (sys.argv[1], d)
    for i in range(d, 1500, 5):
        fd = os.open("%s/img%05d.bin" % (folder, i), os.O_RDONLY)
        n += len(os.read(fd, os.fstat(fd).st_size))
        os.close(fd)
assert n == 1500 * 30001, n
PY
	messages=$(($(stat_of messages) - before - own))
	[ $messages -eq 0 ]
}
costs_nothing || costs_nothing || costs_nothing || fail "$messages messages for $files files that the kernel has, three times over"
check "$(stat_of reads.requests)" -eq "$requests"
stop

# A new mount knows nothing of pages: staged files are pushed ahead, and read without a message.
start "$origin" open=pagecache
ls -lR "$mnt" >/dev/null
read_epochs 1 0 || fail "epoch of pushed files"
pushed=$(stat_of reads.pushed) requests=$(stat_of reads.requests) used=$(stat_of pagecache.used) lost=$(stat_of pagecache.lost)
echo "pushed $pushed used $used requests $requests lost $lost overtaken $(stat_of pagecache.overtaken)"
check "$used" -ge $((files / 2)) "pushed files that were opened"
check "$((requests + used))" -ge $((files - lost))
check "$requests" -le $((2 * (files - used + lost))) "reads of files that were not pushed"
check "$(stat_of reads.pushed_bytes)" -eq $((pushed * size)) "bytes pushed"
check "$(stat_of pagecache.failed)" -eq 0
check "$(stat_of ram.handed_over)" -ge $((pushed * 9 / 10)) "memory given up for what the page cache has"
check "$(stat_of reads.missed)" -eq 0 "nothing is asked of the origin again"
stop

# Bounded: no more than half of ram= is there unread.
start "$origin" "open=pagecache,ram=8M"
ls -lR "$mnt" >/dev/null
read_epochs 1 0 drop || fail "epoch with little memory"
check "$(stat_of pagecache.unread_peak_bytes)" -le $((4 << 20)) "pushed and unread"
check "$(stat_of pagecache.unread_peak_bytes)" -gt $size
# without an order every file is as likely to be next, so that few of them are pushed in an epoch
check "$(stat_of reads.pushed)" -gt $((files / 10))
# what readers drop is pushed again in later epochs, once that is noticed
read_epochs 2 1 drop || fail "epochs of dropped files"
before=$(stat_of pagecache.used)
read_epochs 1 3 drop || fail "epochs of dropped files"
check "$(($(stat_of pagecache.used) - before))" -ge $((files / 10)) "pushed again"
stop

# For the kernel it is read-only: not even root may open for writing, or share a writable mapping.
start "$origin" "open=pagecache,meta_ttl=1"
/usr/bin/python3 -c 'import errno, os, sys
for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND):
    try: os.open(sys.argv[1], flags)
    except OSError as e: assert e.errno == errno.EROFS, e
    else: sys.exit("opened for writing")' "$mnt/class00/img00000.bin" || fail "opened for writing"

# A change is seen once meta_ttl is over, whole, at a path; a handle keeps its version.
one=$mnt/class01/img00001.bin
exec 7<"$one"
cp "$one" "$scratch/old"
head -c 40000 /dev/urandom >"$origin/class01/img00001.bin"
# compared is what one reading gave: between two of them the change may be seen
is_changed() {
	cp "$one" "$scratch/seen" 2>/dev/null || return 1
	cmp -s "$origin/class01/img00001.bin" "$scratch/seen" && return 0
	cmp -s "$scratch/old" "$scratch/seen" || touch "$scratch/mixed"
	return 1
}
wait_for is_changed || fail "the change is not seen"
[ -e "$scratch/mixed" ] && fail "neither the old bytes nor the new"
if content=$(cksum <&7 2>/dev/null); then check "$content" = "$(cksum <"$scratch/old")" "the old handle"; fi
exec 7<&-
stop

# What changed within meta_ttl and was not cached is noticed by reading it: the name is looked up again at once.
rm -rf --one-file-system "$cache"
start "$origin" "open=pagecache,prefetch=off"
ls -lR "$mnt" >/dev/null
head -c 50000 /dev/urandom >"$origin/class02/img00002.bin"
cat "$mnt/class02/img00002.bin" >/dev/null 2>&1
wait_for 'cmp -s "$origin/class02/img00002.bin" "$mnt/class02/img00002.bin"' || fail "a changed file is not looked up again"
check "$(stat_of pagecache.expired)" -ge 1
same_tree

# More opens than the kernel's queue holds while the daemon is away: counted, and it goes on.
limit=$(cat /proc/sys/fs/fanotify/max_queued_events 2>/dev/null || echo 16384)
warm
wait_for '[ "$(stat_of pagecache.watched)" -ge 6 ]' || fail "directories watched"
kill -STOP "$(server_pid)"
/usr/bin/python3 - "$mnt" "$limit" <<'PY'
import os, sys
paths = ["%s/class%02d/img%05d.bin" % (sys.argv[1], i % 5, i) for i in range(3, 1500)]
for _ in range(int(sys.argv[2]) // len(paths) + 2):
    if os.fork() == 0:
        for p in paths: os.close(os.open(p, os.O_RDONLY))
        os._exit(0)
    os.wait()
PY
kill -CONT "$(server_pid)"
wait_for '[ "$(stat_of pagecache.events_lost)" -ge 1 ]' || fail "the overflow is not counted"
opens=$(stat_of reads.opens)
cat "$mnt/class00/img00000.bin" >/dev/null
wait_for '[ "$(stat_of reads.opens)" -gt '"$opens"' ]' || fail "no opens are seen after an overflow"
same_tree
stop

# open=auto: not for a cache that knows nothing, nor where plans are set; then for this data set.
rm -rf --one-file-system "$cache"
start "$origin" open=auto
[ "$(stat_of open)" = pagecache ] && fail "chosen without knowing the files"
ls -lR "$mnt" >/dev/null
stop
start "$origin" open=auto
in_force pagecache || fail "open=auto on a data set of small files ($(grep -o 'not open=pagecache.*' "$scratch/log" | tail -1))"
grep -q 'open=pagecache: about 1[0-9]* files' "$scratch/log" || fail "the log does not say why"
same_tree
stop
start "$origin" open=daemon
check "$(stat_of open)" = daemon
setfattr -n user.hopper.plan -v "torch-random seed=1" "$mnt" || fail "plan"
stop
start "$origin" open=auto
[ "$(stat_of open)" = pagecache ] && fail "chosen where plans are set"
stop

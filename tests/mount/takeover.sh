#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The daemon is killed under readers of every kind, who notice nothing; it is upgraded; it gives up when it is no use.
#   KILLS=100 tests/mount/takeover.sh     as many for each way files are opened
#   POLICIES=daemon                       nothing but the kills, for these
LIMIT_S=${LIMIT_S:-400}
. "$(dirname "$0")/lib.sh"

# The transport that can be taken over, but where it says otherwise.
HOPPER_OPTIONS=${HOPPER_OPTIONS:-}
HOPPER_OPTIONS=${HOPPER_OPTIONS//transport=uring/transport=dev}

kills=${KILLS:-15}
deaths_are_meant=1
make_files "${FILES:-1200}" 30001 4
/usr/bin/python3 - "$origin" <<'PY'
import os, random, sys
for i in range(4):
    with open(os.path.join(sys.argv[1], "large%d" % i), "wb") as f: f.write(random.Random(i).randbytes(5000001))
PY

# What the readers of torture() do, until the killer is done; the first wrong byte or error ends it with a line.
torture() {
	/usr/bin/python3 - "$origin" "$mnt" "$daemon_pid" "$@" <<'PY'
import fcntl, json, mmap, os, random, signal, sys, threading, time
origin, mnt, keeper, kills = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
small = ["class%02d/%s" % (d, n) for d in range(4) for n in sorted(os.listdir(origin + "/class%02d" % d))]
bytes_of = {n: open(os.path.join(origin, n), "rb").read() for n in small + ["large%d" % i for i in range(4)]}
done, failures, rounds = threading.Event(), [], {}

def reader(f):
    def run():
        try:
            while not done.is_set():
                f(); rounds[f.__name__] = rounds.get(f.__name__, 0) + 1
        except BaseException as e:
            failures.append("%s: %r" % (f.__name__, e)); done.set()
    return threading.Thread(target=run)

def same(have, want, what):
    if have != want: raise Exception("wrong bytes: " + what)

def epoch():
    order = list(small); random.shuffle(order)
    for n in order:
        if done.is_set(): return
        with open(os.path.join(mnt, n), "rb") as f: same(f.read(), bytes_of[n], n)

def forget():       # so that pages are asked for again
    for n in random.sample(small, 50) + ["large2", "large3"]:
        with open(os.path.join(mnt, n), "rb") as f: os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    done.wait(0.02)

kept = [os.open(os.path.join(mnt, "large%d" % i), os.O_RDONLY) for i in (0, 1)]
fcntl.flock(kept[0], fcntl.LOCK_EX)
def kept_open():    # handles from before the first kill
    i, at = random.randrange(2), random.randrange(5000001)
    same(os.pread(kept[i], 70000, at), bytes_of["large%d" % i][at:at + 70000], "kept handle")
    os.posix_fadvise(kept[i], 0, 0, os.POSIX_FADV_DONTNEED)

def opened_again():
    n = "large%d" % random.randrange(4)
    fd, at = os.open(os.path.join(mnt, n), os.O_RDONLY), random.randrange(5000001)
    same(os.pread(fd, 300000, at), bytes_of[n][at:at + 300000], n)
    os.close(fd)

def mapped():
    with open(os.path.join(mnt, "large2"), "rb") as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        for _ in range(20):
            at = random.randrange(5000000); same(m[at:at + 5000], bytes_of["large2"][at:at + 5000], "mapping")

def listed():
    d = random.randrange(4)
    names = [e.name for e in os.scandir(mnt + "/class%02d" % d)]
    same(sorted(names), sorted(n[8:] for n in small if n.startswith("class%02d" % d)), "listing")

def looked():
    n = random.choice(small); same(os.stat(os.path.join(mnt, n)).st_size, len(bytes_of[n]), "size")
    try: os.stat(mnt + "/absent%d" % random.randrange(1 << 30)); raise Exception("an absent name is there")
    except FileNotFoundError: pass

def stats(): return json.loads(os.getxattr(mnt, "user.hopper.stats"))

threads = [reader(f) for f in (epoch, forget, kept_open, opened_again, mapped, listed, looked)]
for t in threads: t.start()
had = stats()["restarts"]
try:
    for i in range(kills):
        pid = stats()["pid"]
        os.kill(pid, signal.SIGKILL)
        while not done.is_set() and stats()["restarts"] < had + i + 1: time.sleep(0.005)
        done.wait(0.1 + random.random() / 20)     # else it is one that dies as soon as it serves
        if done.is_set(): break
except OSError as e: failures.append("statistics: %r" % e)
done.set()
for t in threads: t.join(30)
for i in (0, 1):
    if not failures: same(os.pread(kept[i], 6000000, 0), bytes_of["large%d" % i], "kept handle at the end")
other = os.open(os.path.join(mnt, "large0"), os.O_RDONLY)
try: fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB); failures.append("the lock is gone")
except BlockingIOError: pass
if not all(rounds.get(k) for k in ("forget", "kept_open", "opened_again", "mapped", "listed", "looked")): failures.append("nothing done: %r" % rounds)
s = stats()
print("%d kills, %.1f ms each until the next daemon served; rounds %r" % (kills, s["restart_ns"] / 1e6 / max(1, s["restarts"]), rounds))
if failures: sys.exit("; ".join(failures[:3]))
PY
}

for policy in ${POLICIES:-daemon passthrough pagecache}; do
	start "fault:read=2ms:$origin" "open=$policy,ram=16M,meta_ttl=3"
	if ! in_force $policy; then
		echo "open=$policy is not to be had here: $(stat_of open_why)"
		stop
		continue
	fi
	cat "$mnt"/large* >/dev/null
	wait_for '[ "$(stat_of disk.objects)" -ge 4 ]' || fail "nothing on disk"
	torture "$kills" || fail "open=$policy: a reader noticed"
	check "$(stat_of restarts)" -eq "$kills" "open=$policy: daemons started"
	check "$(stat_of open)" = $policy "after it"
	check "$(stat_of reads.errors)" -eq 0 "open=$policy: errors"
	check "$(stat_of disk.corrupt)" -eq 0 "open=$policy: damaged extents"
	same_tree "open=$policy: after the kills"
	stop
done

[ -z "${POLICIES:-}" ] || exit 0

# An upgrade: the keeper becomes the program that is installed now, and its server another.
cp "$hopperfs" "$scratch/program" && built=$hopperfs hopperfs=$scratch/program
start "$origin"
exec 9<"$mnt/large0"
head -c 1000 <&9 | cmp - <(head -c 1000 "$origin/large0") || fail "before the upgrade"
cp "$built" "$scratch/next" && mv "$scratch/next" "$scratch/program"
kill -USR2 "$daemon_pid"
wait_for '[ "$(stat_of restarts)" -eq 1 ]' || fail "no upgrade"
check "$(readlink /proc/$daemon_pid/exe)" = "$scratch/program" "the keeper's program"
check "$(stat_of keeper_pid)" -eq "$daemon_pid"
tail -c +1001 <"$origin/large0" | cmp - <(cat <&9) || fail "a handle from before the upgrade"

# ... to what does not understand its arguments: all stays as it is.
printf '#!/bin/sh\nexec %s --nonsense\n' "$built" >"$scratch/next" && chmod 755 "$scratch/next" && mv "$scratch/next" "$scratch/program"
server=$(stat_of pid)
kill -USR2 "$daemon_pid"
wait_for 'grep -q "no upgrade" "$scratch/log"' || fail "an upgrade to nonsense"
check "$(stat_of pid)" -eq "$server" "the daemon after a refused upgrade"
kill -9 "$server"
wait_for '[ "$(stat_of restarts)" -eq 2 ]' || fail "no daemon after a refused upgrade"
exec 9<&-
same_tree "after the upgrades"
stop
hopperfs=$built

# ... nor by who only says that he is a keeper: nobody else's process is ended.
sleep 1000 &
sleeper=$!
HOPPERFS_KEEPER="3 4 5 $sleeper 0" "$hopperfs" "$origin" "$mnt" -o "cache=$cache" 3>/dev/null && fail "it took a stranger's word"
kill "$sleeper" || fail "it killed a stranger"

# Without its keeper a daemon goes on.
start "$origin"
server=$(server_pid)
kill -9 "$daemon_pid"; wait "$daemon_pid" 2>/dev/null
check "$(stat_of keeper_pid)" -eq 0 "without a keeper"
same_tree "without a keeper"
daemon_pid=
umount "$mnt" 2>/dev/null || fusermount3 -u "$mnt" || fail "umount without a keeper"
wait_for '! kill -0 $server 2>/dev/null' || fail "the daemon stays"

# One that dies as soon as it serves is given up in the end, with an error that says so; the next mount is as good as any.
start "$origin"
while kill -0 "$daemon_pid" 2>/dev/null; do
	server=$(server_pid) && kill -9 $server 2>/dev/null
done
wait "$daemon_pid"
check $? -eq 1 "status of a keeper that gave up"
daemon_pid=
grep -q "in a row as soon as it served: given up" "$scratch/log" || fail "it gave up without a word"
ls "$mnt" 2>&1 | grep -q "not connected" || fail "the mount is not seen to be dead"
start "$origin"
same_tree "mounted again"
stop

# A transport that cannot be taken over says so.
start "$origin" transport=uring
if [ "$(stat_of transport)" = uring ]; then
	kill -9 "$(server_pid)"
	wait "$daemon_pid"
	check $? -eq 1 "status after transport=uring was killed"
	daemon_pid=
	grep -q "nobody can take over: transport=uring" "$scratch/log" || fail "it ended without a word"
	umount -l "$mnt"
else
	stop
fi

# An index that is gone takes the ids of the open files with it: nobody goes on with others, which would be other files' bytes.
rm -rf "$cache"
start "$origin" open=daemon
exec 9<"$mnt/class00/img00000.bin"
server=$(server_pid)
rm -rf "$cache/index"
kill -9 "$server"
wait "$daemon_pid"
check $? -eq 1 "status after the index was lost"
daemon_pid=
grep -q "nobody can take over: the cache's index was damaged" "$scratch/log" || fail "it ended without a word"
cmp - "$origin/class00/img00000.bin" <&9 2>/dev/null && fail "read without a daemon"
exec 9<&-
umount -l "$mnt"
start "$origin"
same_tree "after the index was lost"
stop

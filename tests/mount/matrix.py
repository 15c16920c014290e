# SPDX-License-Identifier: Apache-2.0
"""One row of the fault matrix (matrix.sh): every origin fault, each met by every kind of reader at once.

matrix.py ORIGIN MNT CONTROL ROW FAULTS...: prints a line per fault; exit status 1 if one is not as it should be.
"""
import errno, json, mmap, os, signal, sys, time

origin, mnt, control, row = sys.argv[1:5]
LIMIT_S = 40
EIO, ESTALE, NONE = {errno.EIO}, {errno.ESTALE, errno.EIO}, set()

# name: settings, what readers may see, counters of which one rises
FAULTS = {
    "none":       ("", NONE, ["reads.requests", "reads.pushed"]),
    "delay":      ("read=10ms,jitter=20ms,meta=5ms", NONE, ["origin.requests"]),
    "throttle":   ("bw=20M", NONE, ["origin.requests"]),
    "slow":       ("slow=4,slow_by=150ms", NONE, ["origin.requests"]),
    "error":      ("error=3", NONE, ["origin.retries", "origin.errors"]),
    "short":      ("short=3", NONE, ["origin.retries", "origin.errors"]),
    "busy":       ("busy=3", NONE, ["origin.retries", "origin.errors"]),
    "changed":    ("stale=3", ESTALE, ["origin.errors"]),
    "lie_more":   ("lie_more=1000", ESTALE, ["origin.errors"]),
    "lie_less":   ("lie_less=1000", NONE, ["origin.requests"]),
    "meta_error": ("meta_error=2", EIO, ["namespace.misses"]),
    "lost":       ("lost=3", EIO, ["reads.errors", "origin.hedged"]),
    "hang":       ("hang=1", EIO, ["reads.errors", "origin.hung"]),
    "meta_hang":  ("meta_hang=1", EIO, ["waits.expired", "namespace.unchecked"]),
}
LIES = {"lie_more": 1000, "lie_less": -1000}

def stats():
    return json.loads(os.getxattr(mnt, "user.hopper.stats"))

def counter(s, name):
    for key in name.split("."):
        s = s[key]
    return s

def set_faults(text):
    with open(control + ".new", "w") as f:
        f.write(text)
    os.rename(control + ".new", control)

def whole(fd):
    out = b""
    while chunk := os.read(fd, 1 << 20):
        out += chunk
    return out

def read(fd, size):
    return whole(fd)

def pread(fd, size):
    """from the end to the beginning, in pieces that are no one's size"""
    parts, step = [], 77777
    for at in range((size - 1) // step * step, -1, -step):
        parts.insert(0, os.pread(fd, step, at))
    return b"".join(parts)

def mapped(fd, size):
    # a fault beyond what is there, or that fails, is SIGBUS: the child's status tells
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as m:
        return m[:]

def sent(fd, size):
    out = os.memfd_create("sent")
    while os.sendfile(out, fd, None, 1 << 20):
        pass
    os.lseek(out, 0, os.SEEK_SET)
    return whole(out)

def direct(fd, size):
    os.close(fd)
    fd = os.open(name, os.O_RDONLY | os.O_DIRECT)
    buf, out = mmap.mmap(-1, 1 << 20), b""
    while n := os.readv(fd, [buf]):
        out += buf[:n]
    return out

KINDS = {"read": read, "pread": pread, "mmap": mapped, "sendfile": sent, "direct": direct}

def same(fault, got, path):
    with open(path, "rb") as f:
        want = f.read()
    if fault == "lie_less":
        want = want[:-1000]
    return got == want

def listing(fault, d):
    """readdir and stat of each"""
    there = sorted(os.listdir(os.path.join(mnt, d)))
    if there != sorted(os.listdir(os.path.join(origin, d))):
        return False
    for n in there:
        lie = LIES.get(fault, 0)
        if os.stat(os.path.join(mnt, d, n)).st_size != os.stat(os.path.join(origin, d, n)).st_size + lie:
            return False
    return True

def reader(fault, kind):
    """0 right, 1 wrong, 2 an error it may see, 3 another"""
    global name
    allowed, worst = FAULTS[fault][1], 0
    d = os.path.join(row, fault)
    names = [""] if kind == "list" else ["%s-small" % kind, "%s-big" % kind, "../kept-%s" % kind]
    if fault == "meta_hang":
        names = names[:1]   # the kernel asks for a name once at a time: each who waits for it waits for the others before
    for n in names:
        name = os.path.join(mnt, d, n)
        try:
            if kind == "list":
                good = listing(fault, d)
            else:
                fd = os.open(name, os.O_RDONLY)
                f = "" if n.startswith("..") else fault
                got = KINDS[kind](fd, os.fstat(fd).st_size)
                good = same(f, got, os.path.join(origin, d, n))
        except OSError as e:
            if e.errno not in allowed:
                os.write(2, ("%s: %s\n" % (name, e)).encode())
            worst = max(worst, 2 if e.errno in allowed else 3)
            continue
        if not good:
            os.write(2, ("%s: WRONG\n" % name).encode())
            return 1
    return worst

def collect(fault, pids, began):
    state = {}
    while pids:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            kind = pids.pop(pid)
            if os.WIFSIGNALED(status):
                # a page that cannot be had is SIGBUS, whatever the error
                good = os.WTERMSIG(status) == signal.SIGBUS and kind == "mmap" and FAULTS[fault][1]
                state[kind] = "error" if good else "SIGNAL"
            else:
                state[kind] = ["right", "WRONG", "error", "ERROR"][os.WEXITSTATUS(status)]
        elif time.monotonic() > began + LIMIT_S:
            for pid, kind in pids.items():
                state[kind] = "HUNG"
                os.kill(pid, signal.SIGKILL)
            break
        else:
            time.sleep(0.005)
    return state

def calm():
    """the origin is well again"""
    set_faults("")
    until = time.monotonic() + LIMIT_S
    while stats()["origin"]["state"] == "down":
        if time.monotonic() > until:
            print("the origin does not come back")
            return False
        time.sleep(0.02)
    return True

def cell(fault):
    before = stats()
    set_faults(FAULTS[fault][0])
    began, pids = time.monotonic(), {}
    for kind in [*KINDS, "list"]:
        pid = os.fork()
        if pid == 0:
            status = 3
            try:
                status = reader(fault, kind)
            finally:
                os._exit(status)
        pids[pid] = kind
    state = collect(fault, pids, began)
    after = stats()
    risen = [c for c in FAULTS[fault][2] if counter(after, c) > counter(before, c)]
    bad = [s for s in state.values() if s.isupper()]
    print("%-9s %-10s %s %s" % (row, fault, " ".join("%s=%-6s" % s for s in sorted(state.items())),
                                "counted: " + risen[0] if risen else "" if "MATRIX_UNCOUNTED" in os.environ else "NOT COUNTED: " + " ".join(FAULTS[fault][2])), flush=True)
    return calm() and not bad and (bool(risen) or "MATRIX_UNCOUNTED" in os.environ)

good = True
for fault in sys.argv[5:]:
    good &= cell(fault)
sys.exit(0 if good else 1)

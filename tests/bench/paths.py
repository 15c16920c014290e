# SPDX-License-Identifier: Apache-2.0
"""The paths of a read, measured side by side: each row against the native file system in the same round of the same run."""
import contextlib, json, os, shutil, statistics, subprocess, sys, time

from systems import System

GIB = 1 << 30
SLOW = "fault:read=10ms,meta=1ms,bw=200M"


def drop_caches(what="3"):
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as f:
            f.write(what)
        return True
    except OSError:
        return False


class Table:
    """Rows of one group. A value is paired with native's of the same round; where the machine has other work too, the least of
    each, in the column before, tells more than the medians."""

    def __init__(self, title):
        self.title, self.cells, self.order = title, {}, []

    def add(self, what, unit, system, value, cpu=None):
        if (what, unit) not in self.order:
            self.order.append((what, unit))
        self.cells.setdefault((what, unit), {}).setdefault(system, []).append((value, cpu))

    def print(self):
        print("\n%-34s %-26s %10s %-8s %-22s %8s %8s %11s" % (self.title, "", "median", "", "(least .. most)", "best x", "x native", "CPU s/GiB"))
        for what, unit in self.order:
            systems = self.cells[what, unit]
            base = systems.get("native")
            for name, samples in systems.items():
                values = [v for v, _ in samples]
                cpu = [c for _, c in samples if c is not None]
                ratio = statistics.median(v / b for v, (b, _) in zip(values, base)) if base else None
                best = max if unit.endswith("B/s") else min
                least = best(values) / best(b for b, _ in base) if base else None
                print(("%-34s %-26s %10.2f %-8s %-22s %8s %8s %11s" % (
                    what, name, statistics.median(values), unit, "(%.2f .. %.2f)" % (min(values), max(values)),
                    "%.2f" % least if base else "", "%.2f" % ratio if base else "", "%.3f" % statistics.median(cpu) if cpu else "")).rstrip(), flush=True)


def read(machine, system, *args):
    """One run of the reader: its result with "all_s", the processor time of reader and server."""
    tool = machine.work + "/reader" if system.prefix else machine.build + "/tests/bench/reader"
    before = system.server_s()
    out = subprocess.run(system.prefix + [tool] + [str(a) for a in args], stdout=subprocess.PIPE, check=True).stdout
    result = json.loads(out)
    result["all_s"] = result["cpu_s"] + system.server_s() - before
    return result


def per_gib(r):
    return r["all_s"] / r["bytes"] * GIB if r["bytes"] else None


def make_small(machine, name, size, count):
    data = os.path.join(machine.work, name)
    subprocess.run([machine.build + "/tests/bench/epoch", "--make", data, "--size", str(size), "--files", str(count)], check=True)
    os.unlink(os.path.join(data, "dataset.txt"))
    return data


def make_large(machine, mib):
    folder = os.path.join(machine.work, "large")
    os.makedirs(folder)
    with open(os.path.join(folder, "file"), "wb") as f:
        for _ in range(mib):
            f.write(os.urandom(1 << 20))
    return folder


SLOW_ONES = ("s3fs", "bindfs", "rclone mount")


def turns(systems, repeats):
    """(round, system) in turn; those that take long are seen well enough in two rounds."""
    for r in range(repeats):
        yield from ((r, s) for s in systems if r < 2 or s.name not in SLOW_ONES)


@contextlib.contextmanager
def mounted(systems):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(s) for s in systems]


def small(machine, repeats, size, count):
    """Everything in memory: a loader that opens each file of a shuffle, asks its size, reads and closes it."""
    data = make_small(machine, "small", size, count)
    table = Table("%d-byte files, warm" % size)
    # a search for the order goes on for a second or so after each reader begins, and here each is gone before that
    systems = [machine.native(data)] + machine.all_hopperfs(data, ("pagecache", "daemon"))
    systems += [machine.hopperfs("pagecache, recognise=off", data, "open=pagecache,recognise=off"), machine.least(count, size, "--enosys")]
    systems += machine.others(data)
    with mounted(systems):
        for threads in (1, 4, 16):
            for r, s in turns(systems, repeats):
                # twice at first: the second time for what the first brought into the page cache
                for _ in range(2 if r == 0 and threads == 1 else 1):
                    read(machine, s, "files", s.where, "--seed", 100 + r)
                got = read(machine, s, "files", s.where, "--seed", r, "--threads", threads)
                table.add("%d thread%s" % (threads, "s" * (threads > 1)), "us/file", s.name, got["seconds"] / got["ops"] * 1e6, per_gib(got))
    table.print()
    shutil.rmtree(data)


def small_files(machine, repeats):
    small(machine, repeats, 112640, 2000)


def tiny_files(machine, repeats):
    small(machine, repeats, 4096, 4000)


def large_file(machine, repeats):
    """One large file, in memory."""
    folder = make_large(machine, 256)
    table = Table("256 MiB file, warm")
    systems = [machine.native(folder)] + machine.all_hopperfs(folder, ("passthrough", "daemon")) + machine.others(folder)
    cases = (("sequential, 1 MiB reads", "GB/s", ("read",)), ("random 128 KiB", "us", ("random", "--block", 131072, "--count", 2000)),
             ("random 4 KiB", "us", ("random", "--block", 4096, "--count", 20000)), ("mapped, a word a line", "GB/s", ("mmap",)))
    with mounted(systems):
        for s in systems:
            settle(machine, s)
        for what, unit, args in cases:
            for r, s in turns(systems, repeats):
                path = os.path.join(s.where, "file")
                read(machine, s, "read", path)
                got = read(machine, s, args[0], path, "--seed", r, *args[1:])
                value = got["bytes"] / got["seconds"] / 1e9 if unit == "GB/s" else got["seconds"] / got["ops"] * 1e6
                table.add(what, unit, s.name, value, per_gib(got))
    table.print()
    shutil.rmtree(folder)


def settle(machine, s):
    """The large file is complete in the cache: what was opened before may then be opened otherwise."""
    path = os.path.join(s.where, "file")
    read(machine, s, "read", path)
    if not s.name.startswith("hopperfs"):
        return
    for _ in range(500):
        cached = subprocess.run(s.prefix + ["getfattr", "-n", "user.hopper.cached", "--only-values", "--absolute-names", path],
                                stdout=subprocess.PIPE).stdout
        if json.loads(cached)["disk"] == os.path.getsize(os.path.join(machine.work, "large", "file")):
            return
        time.sleep(0.02)
    sys.exit(s.name + ": the file is not stored: %s" % cached)


def from_disk(machine, repeats):
    """Nothing in memory, all on the cache's disk."""
    if not drop_caches():
        print("from disk: left out, only root can drop the page cache")
        return
    folder, data = make_large(machine, 128), make_small(machine, "small", 112640, 800)
    table = Table("page cache cold, from disk")

    def caches(data, policies):
        made = [machine.native(data)] + machine.all_hopperfs(data, policies, "ram=16M") + machine.others(data)
        return made

    large, few = caches(folder, ("passthrough", "daemon")), caches(data, ("daemon", "pagecache"))
    with mounted(large + few):
        for s in large:
            settle(machine, s)
        for s in few:
            read(machine, s, "files", s.where)
        # an earlier mount's cache: this one's newest segment is still read through the page cache
        for s in large + few:
            if s.name.startswith("hopperfs"):
                s.__exit__()
                s.__enter__()
        for s in few:
            read(machine, s, "files", s.where)
        for r, s in turns(large, repeats):
            drop_caches()
            got = read(machine, s, "read", os.path.join(s.where, "file"))
            table.add("128 MiB sequential", "MB/s", s.name, got["bytes"] / got["seconds"] / 1e6, per_gib(got))
        for threads in (1, 4):
            for r, s in turns(few, repeats):
                drop_caches("1")   # names stay
                got = read(machine, s, "files", s.where, "--seed", r, "--threads", threads)
                table.add("110 KB files, %d thread%s" % (threads, "s" * (threads > 1)), "us/file", s.name, got["seconds"] / got["ops"] * 1e6, per_gib(got))
    table.print()
    shutil.rmtree(folder)
    shutil.rmtree(data)


def timed(system, argv):
    began = time.monotonic()
    subprocess.run(system.prefix + argv, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def make_empty(root, dirs, count):
    for d in range(dirs):
        folder = os.path.join(root, "d%04d" % d)
        os.makedirs(folder)
        at = os.open(folder, os.O_RDONLY)
        for i in range(count):
            os.close(os.open("f%06d" % i, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=at))
        os.close(at)


def listings(machine, repeats, table, systems, storm=True):
    for r, s in turns(systems, repeats):
        if drop_caches("2"):
            table.add("find, names not in memory", "s", s.name, timed(s, ["find", s.where, "-size", "+0"]))
        table.add("find again", "s", s.name, timed(s, ["find", s.where, "-size", "+0"]))
        if storm:
            table.add("ls -l", "s", s.name, timed(s, ["ls", "-l", os.path.join(s.where, "d0000")]))
            got = read(machine, s, "stat", s.where, "--seed", r, "--threads", 4)
            table.add("stat storm, 4 threads", "us/file", s.name, got["seconds"] / got["ops"] * 1e6)


def metadata(machine, repeats):
    """A directory of 100,000 entries."""
    data = os.path.join(machine.work, "many")
    make_empty(data, 1, 100000)
    table = Table("directory of 100,000 entries")
    systems = [machine.native(data)] + machine.all_hopperfs(data, ("daemon", "pagecache")) + machine.others(data, False)
    with mounted(systems):
        for s in systems:
            timed(s, ["find", s.where, "-size", "+0"])
        listings(machine, repeats, table, systems)
    table.print()
    shutil.rmtree(data)


def million(machine, repeats):
    """A million names in a thousand directories; nothing else is compared, for want of time."""
    data = os.path.join(machine.work, "many")
    make_empty(data, 1000, 1000)
    table = Table("1,000,000 files in 1,000 folders")
    systems = [machine.native(data), machine.hopperfs("hopperfs open=daemon", data, "open=daemon")]
    with mounted(systems):
        table.add("first listing", "s", systems[1].name, timed(systems[1], ["find", systems[1].where, "-size", "+0"]))
        listings(machine, min(repeats, 2), table, systems, storm=False)
    table.print()
    shutil.rmtree(data)


def cold(machine, repeats):
    """Nothing is cached yet, behind a slow origin: "direct" is the same origin without a cache (slowfs), below the others too."""
    folder, data = make_large(machine, 32), make_small(machine, "small", 112640, 200)
    table = Table("cold, origin 10 ms, 200 MiB/s")

    def slow(data):
        where = machine.place("direct")
        return System("direct", where, [machine.build + "/tests/bench/slowfs", SLOW + ":" + data, where])

    for r in range(repeats):
        for what, source in (("32 MiB sequential", folder), ("200 files of 110 KB, shuffled", data)):
            with slow(source) as below:
                systems = [below, machine.hopperfs("hopperfs", SLOW + ":" + source)]
                if machine.uring:
                    systems.append(machine.hopperfs("hopperfs transport=uring", SLOW + ":" + source, "transport=uring"))
                systems += machine.others(below.where, False)
                for s in systems:
                    subprocess.run(["find", source, "-type", "f", "-exec", "cat", "{}", "+"], stdout=subprocess.DEVNULL, check=True)
                    with contextlib.nullcontext(s) if s is below else s:
                        got = read(machine, s, *(("read", os.path.join(s.where, "file")) if source is folder else ("files", s.where)), "--seed", r)
                    table.add(what, "MB/s", s.name, got["bytes"] / got["seconds"] / 1e6, per_gib(got))
    table.print()
    shutil.rmtree(folder)
    shutil.rmtree(data)


GROUPS = {"small files": small_files, "tiny files": tiny_files, "large file": large_file, "from disk": from_disk, "metadata": metadata,
          "million": million, "cold": cold}

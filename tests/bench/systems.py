# SPDX-License-Identifier: Apache-2.0
"""What is measured side by side: the native file system, hopperfs in its ways, and what a user may have instead.

Each system shows one directory of data under a path of its own. All of them are mounted at the same time, so that they can
be measured in turn; the processor time of a server is that of all its threads and child processes."""
import glob, os, pwd, shutil, signal, stat, subprocess, tempfile, time

import objects

SWITCH = "/sys/module/fuse/parameters/enable_uring"


def write(path, text):
    try:
        with open(path, "w") as f:
            f.write(text)
        return True
    except OSError:
        return False


def descendants(pid):
    pids = [pid]
    for p in pids:
        for path in glob.glob("/proc/%d/task/*/children" % p):
            try:
                with open(path) as f:
                    pids += [int(x) for x in f.read().split()]
            except OSError:
                pass
    return pids


def cpu_s(pid):
    """Seconds that a process and its children have run, by the clock that clock_getcpuclockid(3) gives of each."""
    total = 0.0
    for p in descendants(pid):
        try:
            total += time.clock_gettime(~p << 3 | 2)
        except OSError:
            pass   # it has just ended
    return total


class System:
    """@argv serves in the foreground until it is unmounted; @prefix goes before what reads it."""

    def __init__(self, name, where, argv=None, prefix=(), ready=None, env=None):
        self.name, self.where, self.argv, self.prefix, self.ready, self.env = name, where, argv, list(prefix), ready, env
        self.child = None

    def __enter__(self):
        if not self.argv:
            return self
        os.makedirs(self.where, exist_ok=True)
        self.child = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                      env=self.env)
        deadline = time.monotonic() + 30
        while self.where not in [line.split()[1] for line in open("/proc/self/mounts")]:
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("not mounted: " + " ".join(self.argv))
            time.sleep(0.02)
        subprocess.run(self.prefix + ["ls", self.where], stdout=subprocess.DEVNULL, check=True)
        return self

    def stats(self, *keys):
        import json
        value = json.loads(subprocess.run(self.prefix + ["getfattr", "-n", "user.hopper.stats", "--only-values", "--absolute-names",
                                                         self.where], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
        for key in keys:
            value = value[key]
        return value

    def server_s(self):
        return cpu_s(self.child.pid) if self.child else 0.0

    def __exit__(self, *_):
        if not self.child:
            return
        if subprocess.call(["umount", self.where], stderr=subprocess.DEVNULL) and \
           subprocess.call(["fusermount3", "-u", self.where], stderr=subprocess.DEVNULL):
            subprocess.call(["umount", "-l", self.where])
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.send_signal(signal.SIGKILL)
            self.child.wait()


class Machine:
    """What can be had here: makes systems, tells why one is left out, and puts the machine back as it was."""

    def __init__(self, build, work):
        self.build, self.work, self.left_out, self.undo, self.s3 = build, work, {}, [], None
        os.chmod(work, 0o755)
        self.is_root = os.geteuid() == 0
        self.uring = self._uring()
        self.user = self._user()

    def _uring(self):
        try:
            with open(SWITCH) as f:
                was = f.read()
        except OSError:
            self.left_out["transport=uring"] = "the kernel has no FUSE over io_uring"
            return False
        if was[0] in "Y1":
            return True
        if not write(SWITCH, "1"):
            self.left_out["transport=uring"] = "fuse.enable_uring is off"
            return False
        self.undo.append(lambda: write(SWITCH, was))
        return True

    def _user(self):
        """The command that makes an ordinary user of us."""
        if not self.is_root:
            return []
        helper = shutil.which("fusermount3")
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            nobody = None
        if not nobody or not shutil.which("setpriv") or not helper or not os.stat(helper).st_mode & stat.S_ISUID:
            self.left_out["unprivileged"] = "no user nobody, setpriv or set-uid fusermount3"
            return None
        mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
        if mode != 0o666:
            os.chmod("/dev/fuse", 0o666)
            self.undo.append(lambda: os.chmod("/dev/fuse", mode))
        # a copy: an ordinary user may not reach the build
        shutil.copy(self.build + "/hopperfs", self.work + "/hopperfs")
        shutil.copy(self.build + "/tests/bench/reader", self.work + "/reader")
        self.nobody = nobody
        return ["setpriv", "--reuid", str(nobody.pw_uid), "--regid", str(nobody.pw_gid), "--clear-groups", "env", "HOME=" + self.work]

    def place(self, name):
        return tempfile.mkdtemp(prefix=name.replace("=", "-").replace(",", "-").replace(" ", "-") + ".", dir=self.work)

    def native(self, data):
        return System("native", data)

    def hopperfs(self, name, origin, options="", as_user=False, cache=None):
        where = self.place("hopperfs")
        cache = cache or where + ".cache"
        argv = [self.build + "/hopperfs", "-f", origin, where, "-o", "cache=%s,log=error%s" % (cache, options and "," + options)]
        prefix = []
        if as_user and self.is_root:
            os.makedirs(cache, exist_ok=True)
            for d in (where, cache):
                os.chown(d, self.nobody.pw_uid, self.nobody.pw_gid)
            argv[0] = self.work + "/hopperfs"
            prefix = self.user
        s = System(name, where, prefix + argv, prefix)
        s.cache = cache
        return s

    def all_hopperfs(self, data, policies, options=""):
        """hopperfs at @data by each policy of opening over each transport, and an ordinary user's."""
        systems = []
        more = options and "," + options
        for policy in policies:
            if policy != "passthrough" or self.is_root:
                systems.append(self.hopperfs("hopperfs " + policy, data, "open=" + policy + more))
        # what the kernel serves by itself is the same over each
        if self.uring and "daemon" in policies:
            systems.append(self.hopperfs("hopperfs daemon, uring", data, "transport=uring,open=daemon" + more))
        if self.user is not None and self.is_root:
            policy = "daemon" if policies[0] == "passthrough" else policies[0]
            systems.append(self.hopperfs("hopperfs %s, user" % policy, data, "open=" + policy + more, as_user=True))
        return systems

    def s3fs(self, data):
        """@data as objects of an S3 server, read through s3fs, which keeps files it read: by itself or not at all."""
        missing = [p for p in ("s3fs", objects.PROGRAM) if not shutil.which(p)]
        if missing:
            self.left_out["s3fs"] = "no " + " and no ".join(missing)
            return []
        if not self.s3:
            self.s3 = objects.Server(os.path.join(self.work, "s3"))
        bucket, where = self.s3.upload(data), self.place("s3fs")
        options = "passwd_file=%s,url=%s,use_path_request_style,use_cache=%s.cache,stat_cache_expire=3600,ro" % (self.s3.keys, self.s3.url, where)
        return [System("s3fs", where, ["s3fs", bucket, where, "-f", "-o", options])]

    def others(self, data, with_objects=True):
        """What a user may have instead; @with_objects false where an S3 server makes no sense of it, or would take hours."""
        systems = self.s3fs(data) if with_objects else []
        if shutil.which("bindfs"):
            where = self.place("bindfs")
            systems.append(System("bindfs", where, ["bindfs", "-f", "-r", data, where]))
        else:
            self.left_out["bindfs"] = "not installed"
        if shutil.which("rclone"):
            where = self.place("rclone")
            env = dict(os.environ, RCLONE_CONFIG=os.devnull)
            systems.append(System("rclone mount", where, ["rclone", "mount", ":local:" + data, where, "--read-only", "--vfs-cache-mode",
                                                          "full", "--vfs-read-chunk-size", "1M", "--dir-cache-time", "1h", "--attr-timeout",
                                                          "1h", "--cache-dir", where + ".cache", "-q"], env=env))
        else:
            self.left_out["rclone mount"] = "not installed"
        return systems

    def least(self, files, size, *options):
        """FUSE that does nothing."""
        where = self.place("nullfs")
        return System("FUSE that does nothing", where, [self.build + "/tests/bench/nullfs", where, str(files), str(size)] + list(options))

    def close(self):
        for undo in self.undo:
            undo()
        for line in open("/proc/self/mounts"):
            where = line.split()[1]
            if where.startswith(self.work + "/"):
                subprocess.call(["umount", "-l", where])
        if self.s3:
            self.s3.close()

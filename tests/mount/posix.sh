#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The read side of POSIX: each call on the mount does what the same call does on the origin, value and errno; each changing
# call is EROFS. As root and as another user.
. "$(dirname "$0")/lib.sh"

need_root
command -v setpriv >/dev/null || skip "setpriv is not installed"
id nobody >/dev/null 2>&1 || skip "there is no user nobody"
cat >"$scratch/calls.py" <<'PY'
import ctypes, errno, fcntl, hashlib, mmap, os, stat, sys, tempfile

tree, mount = sys.argv[1:3]
libc = ctypes.CDLL(None, use_errno=True)
bad = count = 0

def outcome(call, root):
    try:
        return call(root)
    except OSError as e:
        return errno.errorcode.get(e.errno, e.errno)

def same(name, call):
    global bad, count
    count += 1
    a, b = outcome(call, tree), outcome(call, mount)
    if a != b:
        bad += 1
        print("differs: %s: origin %r, mount %r" % (name, a, b))

def is_(name, want, call):
    global bad, count
    count += 1
    got = outcome(call, mount)
    if got != want:
        bad += 1
        print("%s: expected %r, mount %r" % (name, want, got))

def with_fd(path, flags, use):
    def call(root):
        fd = os.open(os.path.join(root, path), flags)
        try:
            return use(fd)
        finally:
            os.close(fd)
    return call

def fields(st):
    # times of files that were read differ in atime alone
    return (stat.S_IFMT(st.st_mode), st.st_mode, st.st_nlink, st.st_uid, st.st_gid, st.st_size if not stat.S_ISDIR(st.st_mode) else 0,
            st.st_mtime_ns, st.st_ctime_ns, st.st_rdev)

p = os.path.join
names = ["file", "empty", "sub", "sub/deep/leaf", "link", "dirlink", "dangling", "loop1", "absent", "file/x", "empty/..", "sub/..", "sub/.",
         "sub/deep/../deep/leaf", "link/", "file/", "dirlink/", "dirlink/leaf", "x" * 255, "x" * 256, "/".join(["y" * 250] * 20),
         "closed", "closed/inside", "searchable", "searchable/inside", "listable", "listable/inside", "secret", "group", "exec", "fifo",
         "hard1", "hard2", "deep" + "/d" * 40 + "/end", "chain0", "chain39", "chain41", ""]
for n in names:
    same("stat " + n[:60], lambda r: fields(os.stat(p(r, n))))
    same("lstat " + n[:60], lambda r: fields(os.lstat(p(r, n))))
    same("readlink " + n[:60], lambda r: os.readlink(p(r, n)))
    for mode in (os.F_OK, os.R_OK, os.X_OK, os.R_OK | os.X_OK):
        same("access %s %d" % (n[:60], mode), lambda r: os.access(p(r, n), mode))
    if n != "fifo":
        same("open " + n[:60], with_fd(n, os.O_RDONLY, lambda fd: fields(os.fstat(fd))))
        same("read " + n[:60], with_fd(n, os.O_RDONLY, lambda fd: hashlib.md5(os.read(fd, 1 << 22)).hexdigest()))
    for flag in ("O_DIRECTORY", "O_NOFOLLOW", "O_PATH"):
        if n != "fifo" or flag != "O_NOFOLLOW":
            same("open %s %s" % (n[:60], flag), with_fd(n, os.O_RDONLY | getattr(os, flag), lambda fd: fields(os.fstat(fd))))
    same("listdir " + n[:60], lambda r: sorted(os.listdir(p(r, n))))
    same("chdir " + n[:60], lambda r: [os.chdir(p(r, n)), os.chdir("/")] and 1)

# reading
for off in (0, 1, 4095, 4096, 1 << 20, (1 << 20) - 7, 3000000 - 1, 3000000, 3000001, 1 << 40, (1 << 63) - 1):
    same("pread at %d" % off, with_fd("file", os.O_RDONLY, lambda fd: hashlib.md5(os.pread(fd, 70000, off)).hexdigest()))
same("pread at -1", with_fd("file", os.O_RDONLY, lambda fd: os.pread(fd, 1, -1)))
same("preadv", with_fd("file", os.O_RDONLY, lambda fd: os.preadv(fd, [bytearray(3), bytearray(0), bytearray(9000)], 1048570)))
same("read of a directory", with_fd("sub", os.O_RDONLY, lambda fd: os.read(fd, 10)))
same("read of O_PATH", with_fd("file", os.O_PATH, lambda fd: os.read(fd, 10)))
same("read of 0", with_fd("file", os.O_RDONLY, lambda fd: os.read(fd, 0)))
for whence in (os.SEEK_SET, os.SEEK_END, os.SEEK_DATA, os.SEEK_HOLE):
    for off in (0, 5, 2999999, 3000000, 3000001, -1, -3000000, -3000001):
        same("lseek %d %d" % (off, whence), with_fd("file", os.O_RDONLY, lambda fd: os.lseek(fd, off, whence)))
same("lseek of empty", with_fd("empty", os.O_RDONLY, lambda fd: os.lseek(fd, 0, os.SEEK_DATA)))
def mapped(fd):
    with mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as m:
        first = m[:10]
        m[0] = 7    # ours alone
        return hashlib.md5(m[1:]).hexdigest(), first
same("mmap", with_fd("file", os.O_RDONLY, mapped))
same("mmap shared", with_fd("file", os.O_RDONLY, lambda fd: hashlib.md5(mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)).hexdigest()))
same("mmap shared, writable", with_fd("file", os.O_RDONLY, lambda fd: mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_WRITE | mmap.PROT_READ) and 1))
def sent(fd):
    with tempfile.TemporaryFile() as out:
        n = os.sendfile(out.fileno(), fd, 1000, 200000)
        return n, hashlib.md5(os.pread(out.fileno(), 300000, 0)).hexdigest()
same("sendfile", with_fd("file", os.O_RDONLY, sent))
same("fadvise", with_fd("file", os.O_RDONLY, lambda fd: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED)))
same("fsync", with_fd("file", os.O_RDONLY, lambda fd: os.fsync(fd)))
same("fsync of a directory", with_fd("sub", os.O_RDONLY, lambda fd: os.fsync(fd)))
same("flock", with_fd("file", os.O_RDONLY, lambda fd: fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)))
same("dup and offset", with_fd("file", os.O_RDONLY, lambda fd: (os.lseek(fd, 9, 0), os.lseek(os.dup(fd), 0, 1))))
same("openat", with_fd("sub", os.O_RDONLY, lambda fd: os.read(os.open("deep/leaf", os.O_RDONLY, dir_fd=fd), 9)))
same("openat of O_PATH", with_fd("sub", os.O_PATH, lambda fd: os.read(os.open("deep/leaf", os.O_RDONLY, dir_fd=fd), 9)))
same("statvfs namemax", lambda r: os.statvfs(p(r, "file")).f_namemax)
same("pathconf", lambda r: os.pathconf(p(r, "file"), "PC_NAME_MAX"))

# directory streams: telldir, seekdir, rewinddir
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
def streamed(root):
    d = libc.opendir(p(root, "many").encode())
    assert d
    d = ctypes.c_void_p(d)
    def following(limit=10000):
        got = []
        while len(got) < limit:
            e = libc.readdir(d)
            if not e:
                break
            got.append(ctypes.string_at(e + 19))
        return got
    first = following()
    libc.rewinddir(d)
    assert following() == first, "rewinddir"
    for k in (0, 1, 2, 3, 100, 399, len(first) - 1, len(first)):
        libc.rewinddir(d)
        following(k)
        where = libc.telldir(d)
        rest = following()
        libc.seekdir(d, ctypes.c_long(where))
        assert following() == rest == first[k:], "seekdir %d" % k
    libc.closedir(d)
    return sorted(first)
same("telldir, seekdir, rewinddir", streamed)

# an inode number is one file, and a hard link has its count
is_("inode numbers", True, lambda r: len({os.lstat(p(r, "many", n)).st_ino for n in os.listdir(p(r, "many"))}) == len(os.listdir(p(r, "many"))))
is_("d_ino is st_ino", True, lambda r: all(e.inode() == e.stat(follow_symlinks=False).st_ino for e in os.scandir(p(r, "many"))))
is_("the root's ..", True, lambda r: os.stat(p(r, "..")).st_ino == os.stat(os.path.dirname(r)).st_ino)
same("blocks cover the size", lambda r: os.stat(p(r, "file")).st_blocks * 512 >= 3000000)

# changing calls. Whether the caller might is asked first, so only root sees EROFS everywhere
if os.geteuid() == 0:
    f, s = (lambda r, n="file": p(r, n)), "sub"
    for name, call in {
        "open for writing": lambda r: os.open(f(r), os.O_WRONLY), "open for both": lambda r: os.open(f(r), os.O_RDWR),
        "O_TRUNC": lambda r: os.open(f(r), os.O_RDONLY | os.O_TRUNC), "O_CREAT": lambda r: os.open(f(r, "new"), os.O_CREAT | os.O_WRONLY),
        "truncate": lambda r: os.truncate(f(r), 1), "unlink": lambda r: os.unlink(f(r)), "mkdir": lambda r: os.mkdir(f(r, "new")),
        "rmdir": lambda r: os.rmdir(f(r, "sub/void")), "rename": lambda r: os.rename(f(r), f(r, "new")), "link": lambda r: os.link(f(r), f(r, "new")),
        "symlink": lambda r: os.symlink("x", f(r, "new")), "mknod": lambda r: os.mknod(f(r, "new"), stat.S_IFIFO | 0o600),
        "chmod": lambda r: os.chmod(f(r), 0o600), "chown": lambda r: os.chown(f(r), 1, 1), "utime": lambda r: os.utime(f(r), (1, 1)),
    }.items():
        is_(name, "EROFS", call)
    same("the file after all that", lambda r: fields(os.stat(f(r))))
    # ro: the kernel does not look
    is_("unlink of nothing", True, lambda r: outcome(lambda q: os.unlink(p(q, "absent")), r) in ("ENOENT", "EROFS"))
    same("mkdir of what is there", lambda r: os.mkdir(p(r, "sub")))
    same("O_EXCL of what is there", lambda r: os.open(p(r, "file"), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    is_("O_CREAT of what is there", True, lambda r: os.close(os.open(p(r, "file"), os.O_CREAT | os.O_RDONLY)) is None)
    is_("O_TMPFILE", True, lambda r: outcome(lambda q: os.open(p(q, "sub"), os.O_TMPFILE | os.O_WRONLY), r) in ("EROFS", "EOPNOTSUPP", "ENOTSUP"))
    is_("write access", True, lambda r: outcome(lambda q: os.open(p(q, "file"), os.O_WRONLY), r) == "EROFS")
print("%d calls compared, %d differ" % (count, bad))
sys.exit(bad != 0)
PY
cat >"$scratch/tree.py" <<'PY'
import os, random, sys
os.chdir(sys.argv[1])
rnd = random.Random(3)
def put(name, data, mode=0o644):
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    open(name, "wb").write(data)
    os.chmod(name, mode)
put("file", rnd.randbytes(3000000)); put("empty", b""); put("sub/deep/leaf", b"leaf"); put("x" * 255, b"long")
os.mkdir("sub/void")
os.symlink("file", "link"); os.symlink("sub/deep", "dirlink"); os.symlink("nowhere", "dangling")
os.symlink("loop2", "loop1"); os.symlink("loop1", "loop2")
for name, mode in (("closed", 0o700), ("searchable", 0o711), ("listable", 0o744)):
    put(name + "/inside", b"i"); os.chmod(name, mode)
put("secret", b"s", 0o600); put("group", b"g", 0o640); put("exec", b"#!/bin/sh\n", 0o755); os.mkfifo("fifo", 0o644)
put("hard1", b"hard"); os.link("hard1", "hard2")
put("deep" + "/d" * 40 + "/end", b"end")
os.symlink("file", "chain0")
for i in range(42):
    os.symlink("chain%d" % i, "chain%d" % (i + 1))
for i in range(400):
    put("many/%03d" % i, b"")
os.utime("file", ns=(123456789, 987654321123456789)); os.utime("empty", ns=(-5, -86400 * 10**9 - 1)); os.utime("sub", ns=(1, 1))
PY
/usr/bin/python3 "$scratch/tree.py" "$origin"
mkdir "$scratch/tmp" && chmod 1777 "$scratch/tmp"
start "$origin" allow_other
for round in cold warm; do
	TMPDIR=$scratch/tmp /usr/bin/python3 "$scratch/calls.py" "$origin" "$mnt" || fail "calls differ, $round"
	TMPDIR=$scratch/tmp setpriv --reuid nobody --regid nogroup --clear-groups /usr/bin/python3 "$scratch/calls.py" "$origin" "$mnt" ||
		fail "another user's calls differ, $round"
done
stop

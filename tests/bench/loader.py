#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A stock PyTorch loader over a mount; one JSON line per epoch.

  loader.py DIR CASE EPOCHS        CASE: random:WORKERS, generator:WORKERS, distributed:RANKS, numpy, python, sequential, none;
                                   of samples inside large files: tar:WORKERS, tokens, hdf5:WORKERS
  loader.py --make DIR CASE        the files of such a case: 3,000 samples of 110 KiB

The consumer computes 1 ms a sample. In a mount of hopperfs files are read whole and their pages dropped, so that what a later
epoch finds is the cache's. In any other directory they stay in the page cache: what the loader takes there from its second
epoch on, with its workers and its reading between steps, it takes at best. "none" shuffles with the system's randomness:
there is no seed to find.
"""
import io, json, os, random, sys, tarfile, time
import numpy, torch

SAMPLES, SAMPLE_BYTES, SHARDS = 3000, 112640, 60


def make(folder, kind):
    os.makedirs(folder, exist_ok=True)
    rnd = random.Random(1)
    samples = [rnd.randbytes(SAMPLE_BYTES) for _ in range(SAMPLES)]
    if kind == "tar":
        for s in range(SHARDS):
            with tarfile.open(os.path.join(folder, "train-%06d.tar" % s), "w") as t:
                for i in range(s, SAMPLES, SHARDS):
                    info = tarfile.TarInfo("%06d.bin" % i)
                    info.size = SAMPLE_BYTES
                    t.addfile(info, io.BytesIO(samples[i]))
    elif kind == "tokens":
        with open(os.path.join(folder, "tokens.bin"), "wb") as f:
            f.write(b"".join(samples))
    else:
        import h5py
        with h5py.File(os.path.join(folder, "data.h5"), "w") as f:
            f.create_dataset("x", data=numpy.frombuffer(b"".join(samples), numpy.uint8).reshape(SAMPLES, SAMPLE_BYTES))


if sys.argv[1] == "--make":
    sys.exit(make(sys.argv[2], sys.argv[3]))

root, case, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3])
kind, _, number = case.partition(":")
samples = SAMPLES
try:
    is_mount = bool(os.getxattr(root, "user.hopper.stats"))
except OSError:
    is_mount = False
paths = sorted(os.path.join(root, d, n) for d in os.listdir(root) if os.path.isdir(os.path.join(root, d)) for n in os.listdir(os.path.join(root, d)))


def drop(fd):
    if is_mount:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def read(i):
    fd = os.open(paths[i], os.O_RDONLY)
    have = 0
    while True:
        data = os.read(fd, 1 << 20)
        if not data:
            break
        have += len(data)
    drop(fd)
    os.close(fd)
    return have


class Files(torch.utils.data.Dataset):
    def __len__(self):
        return len(paths)

    def __getitem__(self, i):
        return read(i)


class Tokens(torch.utils.data.Dataset):
    """Blocks of a mapped file."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, i):
        if not hasattr(self, "map"):
            self.map = numpy.memmap(os.path.join(root, "tokens.bin"), numpy.uint16, "r")
        half = SAMPLE_BYTES // 2
        return int(numpy.array(self.map[i * half:(i + 1) * half]).nbytes)


class Records(torch.utils.data.Dataset):
    def __len__(self):
        return SAMPLES

    def __getitem__(self, i):
        import h5py
        if not hasattr(self, "file"):
            self.file = h5py.File(os.path.join(root, "data.h5"), "r")
        return len(self.file["x"][i])


class Shards(torch.utils.data.IterableDataset):
    """As WebDataset reads: the list of shards shuffled with a seed, every worker-th of them, each tar from its beginning to its end."""

    def __iter__(self):
        shards = sorted(os.path.join(root, n) for n in os.listdir(root))
        random.Random(0).shuffle(shards)
        info = torch.utils.data.get_worker_info()
        for path in shards[info.id::info.num_workers] if info else shards:
            with open(path, "rb") as f, tarfile.open(fileobj=f, mode="r|*") as t:
                for member in t:
                    yield len(t.extractfile(member).read())
                drop(f.fileno())


def stats():
    return json.loads(os.getxattr(root, "user.hopper.stats")) if is_mount else {}


def batches(epoch):
    if kind == "distributed":
        for s in samplers:
            s.set_epoch(epoch)
        for parts in zip(*loaders):
            yield sum(len(p) for p in parts)
    elif kind in ("random", "generator", "tar", "tokens", "hdf5"):
        for b in loader:
            yield len(b)
    else:
        order = {"numpy": lambda: numpy.random.RandomState(7 + epoch).permutation(len(paths)).tolist(),
                 "python": lambda: random.Random(7 + epoch).sample(range(len(paths)), len(paths)),
                 "sequential": lambda: list(range(len(paths))),
                 "none": lambda: random.SystemRandom().sample(range(len(paths)), len(paths))}[kind]()
        if kind == "python":
            order = list(range(len(paths)))
            random.Random(7 + epoch).shuffle(order)
        for i in order:
            read(i)
            yield 1


torch.manual_seed(42)
torch.set_num_threads(1)
if kind == "random":
    loader = torch.utils.data.DataLoader(Files(), batch_size=32, shuffle=True, num_workers=int(number))
if kind == "generator":
    loader = torch.utils.data.DataLoader(Files(), batch_size=32, shuffle=True, num_workers=int(number), generator=torch.Generator())
if kind in ("tokens", "hdf5"):
    loader = torch.utils.data.DataLoader(Tokens() if kind == "tokens" else Records(), batch_size=32, shuffle=True, num_workers=int(number or 0))
if kind == "tar":
    loader = torch.utils.data.DataLoader(Shards(), batch_size=32, num_workers=int(number))
if kind == "distributed":
    samplers = [torch.utils.data.DistributedSampler(Files(), int(number), r) for r in range(int(number))]
    loaders = [torch.utils.data.DataLoader(Files(), batch_size=32, sampler=s, num_workers=2) for s in samplers]
for epoch in range(epochs):
    before, began, stall, waited, recognised_at = stats(), time.monotonic(), 0, time.monotonic(), None
    for n in batches(epoch):
        stall += time.monotonic() - waited
        time.sleep(0.001 * n)
        waited = time.monotonic()
    if kind in ("tokens", "hdf5"):
        fd = os.open(os.path.join(root, "tokens.bin" if kind == "tokens" else "data.h5"), os.O_RDONLY)
        drop(fd)
        os.close(fd)
    seconds, after = time.monotonic() - began, stats()
    if not is_mount:
        print(json.dumps({"epoch": epoch, "seconds": seconds}), flush=True)
        continue
    big = max(after["sets"], key=lambda s: s["items"])
    delta = lambda section, key: after[section][key] - before[section][key]
    print(json.dumps({"epoch": epoch, "seconds": seconds, "stall_s": stall, "missed": delta("reads", "missed"), "joined": delta("reads", "joined"),
                      "coverage": 1 - (delta("reads", "missed") + delta("reads", "joined")) / samples,
                      "origin_bytes": delta("origin", "bytes"), "wasted_bytes": delta("prefetch", "wasted_bytes"),
                      "predictor": big["predictor"], "recognised": big["recognised"]}), flush=True)

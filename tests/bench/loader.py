#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A stock PyTorch loader over a mount; one JSON line per epoch.

  loader.py MOUNT CASE EPOCHS      CASE: random:WORKERS, generator:WORKERS, distributed:RANKS, numpy, python, sequential, none

Files are read whole and their pages dropped, so that what a later epoch finds
is the cache's; the consumer computes 1 ms a sample. "none" shuffles with the
system's randomness through numpy's legacy generator: there is no seed to find.
"""
import json, os, random, sys, time
import numpy, torch

root, case, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3])
kind, _, number = case.partition(":")
paths = sorted(os.path.join(root, d, n) for d in os.listdir(root) if os.path.isdir(os.path.join(root, d)) for n in os.listdir(os.path.join(root, d)))


def read(i):
    fd = os.open(paths[i], os.O_RDONLY)
    have = 0
    while True:
        data = os.read(fd, 1 << 20)
        if not data:
            break
        have += len(data)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    return have


class Files(torch.utils.data.Dataset):
    def __len__(self):
        return len(paths)

    def __getitem__(self, i):
        return read(i)


def stats():
    return json.loads(os.getxattr(root, "user.hopper.stats"))


def batches(epoch):
    if kind == "distributed":
        for s in samplers:
            s.set_epoch(epoch)
        for parts in zip(*loaders):
            yield sum(len(p) for p in parts)
    elif kind in ("random", "generator"):
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
if kind == "distributed":
    samplers = [torch.utils.data.DistributedSampler(Files(), int(number), r) for r in range(int(number))]
    loaders = [torch.utils.data.DataLoader(Files(), batch_size=32, sampler=s, num_workers=2) for s in samplers]
for epoch in range(epochs):
    before, began, stall, waited, recognised_at = stats(), time.monotonic(), 0, time.monotonic(), None
    for n in batches(epoch):
        stall += time.monotonic() - waited
        time.sleep(0.001 * n)
        waited = time.monotonic()
    seconds, after = time.monotonic() - began, stats()
    big = max(after["sets"], key=lambda s: s["items"])
    delta = lambda section, key: after[section][key] - before[section][key]
    print(json.dumps({"epoch": epoch, "seconds": seconds, "stall_s": stall, "missed": delta("reads", "missed"), "joined": delta("reads", "joined"),
                      "coverage": 1 - (delta("reads", "missed") + delta("reads", "joined")) / len(paths),
                      "origin_bytes": delta("origin", "bytes"), "wasted_bytes": delta("prefetch", "wasted_bytes"),
                      "predictor": big["predictor"], "recognised": big["recognised"]}), flush=True)

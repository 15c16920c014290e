#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fresh random seeds and lengths against the torch, numpy and Python that are installed.
permute=$(pwd)/tests/bench/permute
[ -x "$permute" ] || { echo "SKIP: tests/bench/permute was not built"; exit 77; }
/usr/bin/python3 -c 'import torch, numpy' 2>/dev/null || { echo "SKIP: python3-torch and python3-numpy are not installed"; exit 77; }
timeout 120 /usr/bin/python3 - "$permute" <<'PY'
import random, subprocess, sys
import numpy, torch

def ours(kind, seed, skip, n):
    out = subprocess.run([sys.argv[1], str(kind), str(seed), str(skip), str(n)], stdout=subprocess.PIPE, check=True).stdout
    return [int(x) for x in out.split()]

def torch_perm(seed, n):
    g = torch.Generator()
    g.manual_seed(seed)
    return torch.randperm(n, generator=g).tolist()

def python_perm(seed, n):
    order = list(range(n))
    random.Random(seed).shuffle(order)
    return order

own = random.SystemRandom().randrange(1 << 32)
print("seed of this run:", own)
rnd = random.Random(own)
for i in range(30):
    n = rnd.choice([2, 3, 17, 100, 1000, rnd.randrange(2, 70000)])
    small, seed = rnd.randrange(1 << 32), rnd.randrange(1 << 63)
    assert ours(1, seed, 0, n) == torch_perm(seed, n), ("torch", seed, n)
    assert ours(2, small, 0, n) == numpy.random.RandomState(small).permutation(n).tolist(), ("RandomState", small, n)
    assert ours(3, seed, 0, n) == numpy.random.default_rng(seed).permutation(n).tolist(), ("default_rng", seed, n)
    assert ours(4, seed, 0, n) == python_perm(seed, n), ("python", seed, n)
# a real loader's epochs: words 3, 7, 11 of the default generator, which are each second draw's low half
torch.manual_seed(own)
words = [int(torch.empty((), dtype=torch.int64).random_()) & 0xffffffff for _ in range(6)]
torch.manual_seed(own)
loader = torch.utils.data.DataLoader(range(1234), shuffle=True, batch_size=None)
for epoch in range(3):
    assert [int(x) for x in loader] == ours(1, words[2 * epoch + 1], 0, 1234), ("DataLoader", own, epoch)
PY

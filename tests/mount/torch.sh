#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# A stock PyTorch DataLoader with eight workers.
LIMIT_S=240
. "$(dirname "$0")/lib.sh"

/usr/bin/python3 -c 'import torch' 2>/dev/null || skip "python3-torch is not installed"
make_files 300 20000 3
start "fault:read=5ms:$origin"
/usr/bin/python3 - "$mnt" "$origin" <<'PY' || fail "DataLoader"
import os, sys, torch
root, origin = sys.argv[1:]
class Files(torch.utils.data.Dataset):
    def __init__(self):
        self.names = sorted(os.path.join(d, n) for d in os.listdir(root) for n in os.listdir(os.path.join(root, d)))
    def __len__(self):
        return len(self.names)
    def __getitem__(self, i):
        with open(os.path.join(root, self.names[i]), "rb") as a, open(os.path.join(origin, self.names[i]), "rb") as b:
            return i, a.read() == b.read()
for epoch in range(2):
    seen = set()
    for index, same in torch.utils.data.DataLoader(Files(), batch_size=16, shuffle=True, num_workers=8):
        assert bool(same.all())
        seen.update(index.tolist())
    assert len(seen) == 300
PY
check "$(stat_of reads.errors)" -eq 0
stop

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Samples inside one large file, over a cache of half of it: raw records, an
# HDF5 data set, a memory-mapped token file; every sample checked.
LIMIT_S=200
. "$(dirname "$0")/lib.sh"

/usr/bin/python3 -c 'import torch, numpy' 2>/dev/null || skip "python3-torch and python3-numpy are not installed"

cat >"$scratch/job.py" <<'PY'
import json, os, sys, time, warnings
import numpy, torch
warnings.filterwarnings("ignore")
what, case, where = sys.argv[1:4]
COUNT = 2400 if case == "mapped" else 800
if case == "hdf5": import h5py

def sample(i):
    a = numpy.full(COUNTS[case], i, numpy.uint16 if case in ("tokens", "mapped") else numpy.uint32)
    a[1:] += numpy.arange(COUNTS[case] - 1, dtype=a.dtype) * 7
    return a

COUNTS = {"raw": 27500, "hdf5": 30000, "tokens": 32768, "mapped": 32000}   # values of a sample: 110,000, 120,000, 65,536 and 64,000 bytes
path = os.path.join(where, case)
if what == "make":
    if case == "hdf5":
        with h5py.File(path, "w") as f:
            d = f.create_dataset("x", (COUNT, COUNTS[case]), "u4")
            for i in range(COUNT): d[i] = sample(i)
    else:
        with open(path, "wb") as f:
            if case == "raw": f.write(b"h" * 2048)
            for i in range(COUNT): f.write(sample(i).tobytes())
    print(os.path.getsize(path))
    sys.exit()

class Samples(torch.utils.data.Dataset):
    data = None
    def __len__(self): return COUNT
    def __getitem__(self, i):
        if self.data is None:
            self.fd = os.open(path, os.O_RDONLY)
            if case == "hdf5": self.data = h5py.File(path, "r")["x"]
            if case == "raw": self.data = self.fd
            if case in ("tokens", "mapped"): self.data = numpy.memmap(path, numpy.uint16, "r")
        n = COUNTS[case]
        if case == "raw": got = numpy.frombuffer(os.pread(self.fd, 4 * n, 2048 + i * 4 * n), numpy.uint32)
        if case == "hdf5": got = self.data[i]
        if case in ("tokens", "mapped"): got = numpy.array(self.data[i * n:(i + 1) * n])
        assert (got == sample(i)).all(), i
        # what comes back is the cache's, not the kernel's
        if case not in ("tokens", "mapped"): os.posix_fadvise(self.fd, i * 4 * n, 4 * n + (1 << 19), os.POSIX_FADV_DONTNEED)
        return len(got)

def stats(): return json.loads(os.getxattr(where, "user.hopper.stats"))
torch.manual_seed(42)
loader = torch.utils.data.DataLoader(Samples(), batch_size=16, shuffle=True, num_workers=2)
for epoch in range(3):
    if case in ("tokens", "mapped"):   # mapped pages stay until nobody maps them
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
    before, began = stats(), time.monotonic()
    for batch in loader: time.sleep(0.002 * len(batch))
    after = stats()
    big = max(after["sets"], key=lambda s: s["items"])
    d = {k: after["reads"][k] - before["reads"][k] for k in ("requests", "hit_ram", "hit_disk", "joined", "missed", "errors", "short_opens")}
    print(json.dumps({**d, "epoch": epoch, "seconds": round(time.monotonic() - began, 2), "items": big["items"], "recognised": big["recognised"],
        "predictor": big["predictor"], "origin": after["origin"]["bytes"] - before["origin"]["bytes"],
        "wasted": after["prefetch"]["wasted_bytes"],
        "sampler": after["prefetch"]["by"]["sampler"]["issued"] - before["prefetch"]["by"]["sampler"]["issued"]}), flush=True)
PY

run() {
	case=$1
	rm -rf --one-file-system "$cache" "$origin"/*
	size=$(/usr/bin/python3 "$scratch/job.py" make "$1" "$origin") || fail "data"
	start "fault:read=5ms,meta=1ms,bw=200M:$origin" "size=$((size / 2)),ram=$((size / 4)),meta_ttl=3600${2:+,$2}"
	/usr/bin/python3 "$scratch/job.py" read "$1" "$mnt" >"$scratch/out" 2>"$scratch/err" || { tail "$scratch/err"; fail "$1"; }
	echo "$1 ${2:-}"
	cat "$scratch/out"
	stop
}
expect() {
	/usr/bin/python3 - "$scratch/out" "$size" "$@" <<'PY' || fail "$case: $*"
import json, sys
e = [json.loads(l) for l in open(sys.argv[1])]
size = int(sys.argv[2])
for c in sys.argv[3:]:
    if not eval(c): sys.exit("not so: " + c)
assert all(x["errors"] == 0 for x in e)
PY
}

# of what is asked for once the order is known, next to nothing waits for the origin
known='all(x["missed"] + x["joined"] <= 0.15 * x["requests"] and x["missed"] <= 0.08 * x["requests"] for x in e[1:])'
run raw
expect 'e[0]["items"] == 800' 'all(x["sampler"] > 0 for x in e)' "$known" 'all(x["origin"] <= 1.3 * size for x in e[1:])'
if /usr/bin/python3 -c 'import h5py' 2>/dev/null; then
	run hdf5
	expect 'e[0]["items"] == 800' 'all(x["sampler"] > 0 for x in e)' "$known"
fi
# ... and nothing else is asked for where the kernel does not read ahead
exact='all(x["missed"] + x["joined"] <= 0.03 * x["requests"] for x in e[2:]) and all(x["origin"] <= 1.15 * size / 2 for x in e[2:])'
run raw read_ahead=16K
expect 'e[0]["items"] == 800' "$exact" 'e[-1]["wasted"] - e[0]["wasted"] <= 0.01 * size'
run tokens read_ahead=0
expect 'e[0]["items"] == 800' '"torch seed" in e[2]["recognised"]' 'e[-1]["wasted"] - e[0]["wasted"] <= 0.01 * size'
run tokens
expect 'all(x["origin"] <= 1.3 * size for x in e[1:])'
# of a mapped file the kernel reads a mebibyte around each fault, until it is opened again by who reads records of it
# (with open=pagecache for ever: no opens are seen)
if ! is_way open=pagecache; then
	run mapped
	expect 'e[0]["short_opens"] == 0' 'e[2]["short_opens"] > 0' 'e[0]["requests"] < 2400' 'e[2]["requests"] > 10 * 2400' 'e[2]["items"] == 2400' '"torch seed" in e[2]["recognised"]' \
		'e[2]["missed"] + e[2]["joined"] <= 0.05 * 2400' 'e[1]["origin"] + e[2]["origin"] <= 1.5 * size'
fi
run mapped recognise=off
expect 'all(x["missed"] + x["joined"] <= 1.1 * 2400 for x in e)' 'all(x["origin"] <= 1.3 * size for x in e[1:])'
# without: right all the same, and what misses costs no more than what was asked for
run raw recognise=off
expect 'all(x["sampler"] == 0 for x in e)' 'all(x["origin"] <= 1.3 * size for x in e[1:])'

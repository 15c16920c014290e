#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The programs people point at a data set.
. "$(dirname "$0")/lib.sh"

make_files 100 30000 4
if command -v git >/dev/null; then
	(cd "$origin" && git init -q repo && cd repo && cp ../class00/* . && git add . &&
		git -c user.name=t -c user.email=t@localhost commit -qm one) || fail "git init"
fi
/usr/bin/python3 -c 'import numpy' 2>/dev/null &&
	/usr/bin/python3 -c 'import numpy, sys; numpy.save(sys.argv[1], numpy.arange(300000))' "$origin/a.npy"
start "$origin"

(cd "$origin" && find . -type f | sort | xargs sha256sum) >"$scratch/sums"
(cd "$mnt" && sha256sum --quiet -c "$scratch/sums") || fail sha256sum
tar -C "$mnt" -cf - . | tar -C "$origin" -df - 2>"$scratch/err" || grep -vq 'Mod time\|Uid\|Gid' "$scratch/err" || fail tar
cp -a "$mnt" "$scratch/copy" && diff -r "$origin" "$scratch/copy" || fail "cp -a"
if command -v rsync >/dev/null; then
	rsync -a "$mnt/" "$scratch/rsynced" && diff -r "$origin" "$scratch/rsynced" || fail rsync
	check "$(rsync -ani --delete "$mnt/" "$scratch/rsynced" | grep -vc '^\.d')" -eq 0 "rsync sees differences"
fi
if command -v git >/dev/null; then
	git -c safe.directory='*' clone -q "$mnt/repo" "$scratch/clone" || fail "git clone"
	diff -r -x .git "$origin/repo" "$scratch/clone" || fail "the clone differs"
fi
/usr/bin/python3 - "$mnt" <<'PY' || fail python
import mmap, os, sys
path = os.path.join(sys.argv[1], "class00/img00000.bin")
with open(path, "rb") as f:
    whole = f.read()
    with mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:
        assert m[:] == whole
try:
    import numpy
except ImportError:
    sys.exit(0)
npy = os.path.join(sys.argv[1], "a.npy")
assert numpy.load(npy).sum() == numpy.load(npy, mmap_mode="r").sum() == 300000 * 299999 // 2
PY
if command -v fio >/dev/null; then
	# fio lays the file out on the origin, then verifies it through the mount.
	(cd "$scratch" && fio --name=v --directory="$origin" --size=16M --rw=write --bs=64k --verify=crc32c \
		--do_verify=0 --output="$scratch/fio" >/dev/null) || fail "fio write"
	wait_for '[ -e "$mnt/v.0.0" ]' 1 || { stop; start "$origin" meta_ttl=0; }
	(cd "$scratch" && fio --name=v --directory="$mnt" --size=16M --rw=randread --bs=64k --verify=crc32c \
		--verify_only --readonly --output="$scratch/fio" >/dev/null 2>&1) || { cat "$scratch/fio"; fail "fio verify"; }
fi
check "$(stat_of reads.errors)" -eq 0
stop

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What users mistype: one clear line, status 2, nothing mounted.
. "$(dirname "$0")/lib.sh"

bad() {
	local status

	"$hopperfs" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
	status=$?
	is_mounted && fail "mounted in spite of: $*"
	check $status -eq 2 "status of: $*"
	check "$(wc -l <"$scratch/err")" -eq 1 "lines of: $* ($(cat "$scratch/err"))"
}

bad
bad "$origin"
bad "$origin" "$mnt" extra
bad "$origin" "$mnt" -o cache="$cache",nonsense
bad "$origin" "$mnt" -o cache="$cache",size=12Q
bad "$origin" "$mnt" -o cache="$cache",size=
bad "$origin" "$mnt" -o cache="$cache",ram=-1
bad "$origin" "$mnt" -o cache="$cache",meta_ttl=soon
bad "$origin" "$mnt" -o cache="$cache",compress=zip
bad "$origin" "$mnt" -o cache="$cache",prefetch=maybe
bad "$origin" "$mnt" -o cache="$cache",recognise=7
bad "$origin" "$mnt" -o cache="$cache",transport=pigeon
bad "$origin" "$mnt" -o cache="$cache",rw
bad "$scratch/absent" "$mnt" -o cache="$cache"
bad "$origin" "$scratch/absent" -o cache="$cache"
bad "fault:read=x:$origin" "$mnt" -o cache="$cache"
bad --nonsense

# Cache directories that are not ours to use.
mkdir "$scratch/foreign" && : >"$scratch/foreign/precious"
bad "$origin" "$mnt" -o cache="$scratch/foreign"
check "$(ls "$scratch/foreign")" = precious "a foreign directory was written to"
: >"$scratch/file"
bad "$origin" "$mnt" -o cache="$scratch/file"

start "$origin"
check "$(stat -c %a "$cache")" = 700 "mode of the cache directory"
mkdir "$scratch/mnt2"
"$hopperfs" "$origin" "$scratch/mnt2" -o cache="$cache" 2>"$scratch/err"
check $? -eq 2 "status of a second mount on the same cache"
check "$(wc -l <"$scratch/err")" -eq 1
stop
mkdir "$scratch/origin2"
bad "$scratch/origin2" "$mnt" -o cache="$cache"
chmod 755 "$cache"
bad "$origin" "$mnt" -o cache="$cache"
chmod 700 "$cache"

"$hopperfs" --help >"$scratch/out" || fail "--help"
for option in cache size min_free ram compress prefetch recognise origin_bw origin_parallel meta_ttl \
	data_check verify acl transport open read_ahead numa timeout rw mirror peers log; do
	grep -q "$option" "$scratch/out" || fail "--help does not tell of $option"
done
"$hopperfs" --version | grep -q hopperfs || fail "--version"

# In the background: the shell gets the mount ready, with relative paths.
cd "$scratch" || fail cd
echo data >origin/file
"$hopperfs" origin mnt -o cache=cache || fail "background mount"
check "$(cat mnt/file)" = data
daemon_pid=$(pgrep -o -f "$hopperfs origin mnt -o cache=cache")
umount mnt
wait_for '! kill -0 $daemon_pid 2>/dev/null' || fail "the daemon stays"
daemon_pid=

# as mount(8) calls its helper: rw unless the user said ro, generic options, in the background
ln -s "$hopperfs" "$scratch/mount.hopperfs"
"$scratch/mount.hopperfs" "$origin" "$mnt" -s -n -v -o "rw,noatime,_netdev,x-systemd.automount,cache=$cache" || fail "mount.hopperfs"
check "$(cat "$mnt/file")" = data
touch "$mnt/new" 2>/dev/null && fail "it is read-only"
umount "$mnt" 2>/dev/null || fusermount3 -u "$mnt" || fail "umount"
bad "$origin" "$mnt" -o "cache=$cache,rw"

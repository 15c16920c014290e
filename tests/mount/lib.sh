# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Sourced by every mount test. Gives each its own scratch directory, a
# wall-clock limit, and an exit that always unmounts (lazily if need be) and
# kills only processes the test started.
#
#   $scratch  $origin  $cache  $mnt       directories of this test
#   start SPEC [OPTIONS]                  mount, wait until it answers
#   $HOPPER_OPTIONS                       options of every mount, which the test's own follow
#   is_way OPTION                         is it one of these?
#   stop                                  unmount, wait until the daemon is gone
#   crash                                 kill -9 the daemon and its keeper, remove the dead mount
#   $daemon_pid, server_pid               the keeper, which start began, and the process that serves
#   $deaths_are_meant                     not empty: the test itself ends servers, which the keeper replaces
#   stat_of KEY                           a number from the statistics (reads.opens)
#   wait_for 'CONDITION' [SECONDS]        until the shell condition holds
#   fail TEXT / skip TEXT / check A = B   as they say

set -u

if [ -z "${HOPPER_LIMITED:-}" ]; then
	HOPPER_LIMITED=1 exec timeout -k 10 "${LIMIT_S:-120}" bash "$0" "$@"
fi

builddir=$(pwd)
hopperfs=${HOPPERFS:-$builddir/hopperfs}
scratch=$(mktemp -d "${TMPDIR:-/tmp}/hopper-test.XXXXXX")
origin=$scratch/origin cache=$scratch/cache mnt=$scratch/mnt
daemon_pid=
deaths_are_meant=
# Anybody may reach the mount; each directory keeps its own permissions.
chmod 755 "$scratch"
mkdir "$origin" "$mnt"

fail() {
	echo "FAIL: $*"
	echo "--- daemon's log"
	tail -n 20 "$scratch/log" 2>/dev/null
	grep -m1 -A60 "Sanitizer:" "$scratch/log" 2>/dev/null
	exit 1
}
skip() { echo "SKIP: $*"; exit 77; }
is_mounted() { awk -v m="$mnt" '$2 == m { found = 1 } END { exit !found }' /proc/self/mounts; }

cleanup() {
	local status=$?

	trap - EXIT INT TERM
	cd /
	if is_mounted; then
		umount -l "$mnt" 2>/dev/null || fusermount3 -uz "$mnt" 2>/dev/null
	fi
	[ -z "$daemon_pid" ] || crash 2>/dev/null
	if [ -n "${KEEP:-}" ]; then
		echo "kept: $scratch"
	else
		rm -rf --one-file-system "$scratch"
	fi
	exit $status
}
trap cleanup EXIT
trap 'echo "FAIL: interrupted or over the time limit"; exit 1' INT TERM

need_root() { [ "$(id -u)" = 0 ] || skip "needs root"; }
[ -e /dev/fuse ] || skip "no /dev/fuse"
command -v getfattr >/dev/null || skip "getfattr is not installed"

start() {
	local spec=$1 options=${2:-}

	"$hopperfs" -f "$spec" "$mnt" -o "cache=$cache,log=info${HOPPER_OPTIONS:+,$HOPPER_OPTIONS}${options:+,$options}" \
		>>"$scratch/log" 2>&1 </dev/null &
	daemon_pid=$!
	wait_for 'is_mounted && [ -n "$(stats 2>/dev/null)" ]' 30 ||
		fail "the mount did not come up"
}

# in_force POLICY: of opening; a mount answers a moment before it goes without opens
is_way() { [[ ,${HOPPER_OPTIONS:-}, == *,$1,* ]]; }

in_force() { wait_for '[ "$(stat_of open)" = '"$1"' ]' 10; }

stop() {
	umount "$mnt" 2>/dev/null || fusermount3 -u "$mnt" || fail "umount: busy"
	wait "$daemon_pid"
	local status=$?
	daemon_pid=
	[ $status = 0 ] || fail "the daemon ended with status $status"
	check_deaths
}

# The keeper replaces a server that dies, so that readers and the keeper's status do not tell.
check_deaths() {
	[ -n "$deaths_are_meant" ] || ! grep 'the daemon was ended by signal\|the daemon ended with status' "$scratch/log" ||
		fail "${1:-a server} died"
}

is_sanitized() { nm "$hopperfs" 2>/dev/null | grep -q '__asan_init\|__tsan_init'; }

server_pid() { pgrep -P "$daemon_pid"; }

crash() {
	local server

	server=$(server_pid)
	kill -9 "$daemon_pid"
	if [ -n "$server" ]; then
		kill -9 "$server"
		wait_for '! kill -0 "$server" 2>/dev/null' 10
	fi
	wait "$daemon_pid" 2>/dev/null
	daemon_pid=
	umount -l "$mnt" 2>/dev/null || fusermount3 -uz "$mnt"
}

stats() { getfattr -n user.hopper.stats --only-values --absolute-names "$mnt"; }

stat_of() {
	stats | /usr/bin/python3 -c '
import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1].split("."):
    value = value[key]
print(value)' "$1"
}

wait_for() {
	local deadline=$(($(date +%s%N) + ${2:-20} * 1000000000))

	until eval "$1"; do
		[ "$(date +%s%N)" -lt "$deadline" ] || return 1
		sleep 0.02
	done
}

check() { [ "$1" "$2" "$3" ] || fail "${4:-check}: expected $1 $2 $3"; }

# make_files COUNT BYTES DIRS: incompressible files in class folders under $origin
make_files() {
	/usr/bin/python3 - "$origin" "$@" <<'PY'
import os, random, sys
root, count, size, dirs = sys.argv[1], *map(int, sys.argv[2:5])
rnd = random.Random(7)
for i in range(count):
    d = os.path.join(root, "class%02d" % (i % dirs))
    os.makedirs(d, exist_ok=True)
    with open(os.path.join(d, "img%05d.bin" % i), "wb") as f:
        f.write(rnd.randbytes(size))
PY
}

same_tree() { diff -r --no-dereference "$origin" "$mnt" >"$scratch/diff" 2>&1 || { head "$scratch/diff"; fail "${1:-contents differ}"; }; }

drop_page_cache() { sync; echo 3 2>/dev/null >/proc/sys/vm/drop_caches || true; }

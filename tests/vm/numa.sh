#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# make check-numa: tests/vm/placement.sh, disks.sh and pages.sh, each in a guest of two NUMA nodes, and a daemon killed in one: its
# kernel is one that does not send requests again. Nor does it tell of opens on FUSE (fanotify needs Linux 6.8), as pages.sh
# wants: that is for the newer one.
[ "$(id -u)" = 0 ] || { echo "SKIP: needs root"; exit 77; }
export HOPPERFS=${HOPPERFS:-$(pwd)/hopperfs}
here=$(cd "$(dirname "$0")" && pwd)
newer=${HOPPER_VM_KERNEL:-${HOME:-/root}/.cache/hopperfs-vm}-newer
set -e
"$here/boot" -t 220 env -u HOPPER_LIMITED HOPPER_VM_DISKS=1 bash "$here/disks.sh"
"$here/boot" -t 330 env -u HOPPER_LIMITED bash "$here/placement.sh"
POLICIES=daemon KILLS=2 FILES=60 LIMIT_S=110 "$here/boot" -t 120 env -u HOPPER_LIMITED bash "$here/../mount/takeover.sh"
HOPPER_VM_KERNEL=$newer "$here/boot" -t 270 env -u HOPPER_LIMITED bash "$here/pages.sh" || [ $? = 77 ]

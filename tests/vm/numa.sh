#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# make check-numa: tests/vm/placement.sh in a guest of two NUMA nodes.
[ "$(id -u)" = 0 ] || { echo "SKIP: needs root"; exit 77; }
export HOPPERFS=${HOPPERFS:-$(pwd)/hopperfs}
here=$(cd "$(dirname "$0")" && pwd)
"$here/boot" -t 220 env -u HOPPER_LIMITED bash "$here/placement.sh"

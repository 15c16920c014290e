#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The origin's permissions hold through the mount; nothing leads out of it.
. "$(dirname "$0")/lib.sh"

need_root
command -v setpriv >/dev/null || skip "setpriv is not installed"
echo secret >"$scratch/outside"
mkdir "$origin/private" && echo x >"$origin/private/file" && chmod 700 "$origin/private"
echo mine >"$origin/mine" && chmod 600 "$origin/mine"
echo public >"$origin/public" && chmod 644 "$origin/public"
ln -s "$scratch/outside" "$origin/escape"
ln -s ../../../../../../etc "$origin/etc"
mkfifo "$origin/fifo"
start "$origin" allow_other
as_nobody() { setpriv --reuid nobody --regid nogroup --clear-groups "$@"; }
check "$(as_nobody cat "$mnt/public")" = public
as_nobody cat "$mnt/mine" 2>/dev/null && fail "mode 600 was read by another user"
as_nobody ls "$mnt/private" 2>/dev/null && fail "mode 700 was listed by another user"
as_nobody setfattr -n user.hopper.plan -v x "$mnt" 2>/dev/null && fail "control by another user"
# A link is shown as it is; the daemon itself never follows one.
check "$(readlink "$mnt/escape")" = "$scratch/outside"
rm "$origin/public" && ln -s "$scratch/outside" "$origin/public"
check "$(readlink "$mnt/public" 2>/dev/null || cat "$mnt/public")" != secret "a file replaced by a link"
stop

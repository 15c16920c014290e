#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# POSIX ACLs of the origin hold through the mount: what they give, what they take, when they change, and while the origin is away.
. "$(dirname "$0")/lib.sh"

need_root
command -v setpriv >/dev/null || skip "setpriv is not installed"
nobody=$(id -u nobody)
as_nobody() { setpriv --reuid nobody --regid nogroup --clear-groups "$@"; }

# acl FILE TAG:PERMISSIONS[:ID]...: in the form of linux/posix_acl_xattr.h; without entries it is taken away
acl() {
	/usr/bin/python3 - "$@" <<'PY'
import os, struct, sys
TAG = {"user_obj": 1, "user": 2, "group_obj": 4, "group": 8, "mask": 16, "other": 32}
path, value = sys.argv[1], struct.pack("<I", 2)
for e in sorted(sys.argv[2:], key=lambda e: TAG[e.split(":")[0]]):
    tag, perm, who = (e.split(":") + ["4294967295"])[:3]
    value += struct.pack("<HHI", TAG[tag], int(perm), int(who))
if len(value) > 4: os.setxattr(path, "system.posix_acl_access", value)
else: os.removexattr(path, "system.posix_acl_access")
PY
}
acl_of() { /usr/bin/python3 -c 'import os, sys; print(os.getxattr(sys.argv[1], "system.posix_acl_access").hex())' "$1" 2>/dev/null; }
may() { check "$(as_nobody cat "$mnt/$1" 2>&1)" = "$1" "$1, which its ACL gives"; }
may_not() { as_nobody cat "$mnt/$1" >/dev/null 2>&1 && fail "$1 was read, which its ACL forbids${2:+: $2}"; }

mkdir "$origin/folder" "$origin/closed"
for f in given taken masked folder/below closed/below plain other; do echo "$f" >"$origin/$f"; done
chmod 640 "$origin/given" "$origin/masked" "$origin/other"
chmod 750 "$origin/folder"
acl "$origin/given" user_obj:6 user:4:$nobody group_obj:0 mask:4 other:0 2>/dev/null || skip "no ACLs on this file system"
acl "$origin/taken" user_obj:6 user:0:$nobody group_obj:4 mask:4 other:4
acl "$origin/masked" user_obj:6 user:4:$nobody group_obj:4 mask:0 other:0
acl "$origin/folder" user_obj:7 user:5:$nobody group_obj:5 mask:5 other:0
acl "$origin/closed" user_obj:7 user:0:$nobody group_obj:5 mask:5 other:5
chgrp nogroup "$origin/other" && chmod 640 "$origin/other"
acl "$origin/other" user_obj:6 user:4:1 group_obj:0 mask:4 other:0   # the mode says r for the group, and means the mask

all() {
	may given
	may folder/below
	may plain
	for f in taken masked closed/below other; do may_not $f "$1"; done
	for f in given taken masked folder closed plain other; do
		check "$(acl_of "$mnt/$f")" = "$(acl_of "$origin/$f")" "$1: what $f shows"
	done
}
# Where none are known they only take away: the kernel would have to ask about each open
start "$origin" "allow_other,meta_ttl=1h"
check "$(stat_of acls)" = least
may plain
for f in given taken masked folder/below closed/below other; do may_not $f "none are known"; done
check "$(stat -c %a "$mnt/taken")" = 600 "a mode that gives nobody more"
grep -q 'acl=on follows them' "$scratch/log" || fail "the log does not say so"
ls -lR "$mnt" >/dev/null
stop
# ... and by the next mount are known; or from the start
for options in "" open=pagecache acl=on; do
	[ "$options" = acl=on ] && rm -rf --one-file-system "$cache"
	start "$origin" "allow_other,meta_ttl=1h${options:+,$options}"
	check "$(stat_of acls)" = followed
	all "followed${options:+, $options}"
	stop
done

# From the index, with nobody to ask
control=$scratch/control
echo >"$control"
start "fault:control=$control:$origin" "allow_other,meta_ttl=1h,transport=dev"
echo "meta_error=1,error=1" >"$control"
all "with the origin away"
# ... also for the daemon that comes after a crash
kill -9 "$(server_pid)"
deaths_are_meant=1
wait_for '[ "$(stat_of restarts)" = 1 ]' || fail "no daemon took over"
all "after a crash"
stop

# Changes are seen as those of the mode are
start "$origin" "allow_other,meta_ttl=1"
all "again"
acl "$origin/taken" user_obj:6 user:4:$nobody group_obj:4 mask:4 other:4
acl "$origin/given" user_obj:6 user:0:$nobody group_obj:0 mask:4 other:0
acl "$origin/closed"
wait_for 'as_nobody cat "$mnt/closed/below"' >/dev/null 2>&1 || fail "an ACL that is gone"
wait_for '[ "$(as_nobody cat "$mnt/taken")" = taken ]' 2>/dev/null || fail "an ACL that gives now"
wait_for '! as_nobody cat "$mnt/given" >/dev/null 2>&1' || fail "an ACL that takes now"
stop


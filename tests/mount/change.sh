#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Changes on the origin are seen at open after meta_ttl, never mixed with old bytes.
. "$(dirname "$0")/lib.sh"

a() { head -c 3000000 /dev/zero | tr '\0' a; }
b() { head -c 3000000 /dev/zero | tr '\0' b; }
a >"$origin/file"
echo old >"$origin/small"
start "$origin" meta_ttl=0
a | cmp - "$mnt/file" || fail "first version"
check "$(cat "$mnt/small")" = old
ino=$(stat -c %i "$mnt/file")

exec 7<"$mnt/file"
b >"$origin/file"
echo newer >"$origin/small"
b | cmp - "$mnt/file" || fail "second version"
check "$(cat "$mnt/small")" = newer
check "$(stat -c %i "$mnt/file")" = "$ino" "inode number of the changed file"
# The handle opened before sees the old bytes or an error, never a mixture.
if content=$(tr -d a <&7 2>/dev/null); then
	check "${#content}" -eq 0 "bytes of the new version through the old handle"
fi
exec 7<&-

echo replaced >"$origin/other" && mv "$origin/other" "$origin/small"
check "$(cat "$mnt/small")" = replaced
rm "$origin/small"
cat "$mnt/small" 2>/dev/null && fail "a deleted file is still there"
echo again >"$origin/added"
check "$(cat "$mnt/added")" = again
check "$(stat_of reads.errors)" -le 1
stop

# Within meta_ttl what is known is believed.
start "$origin" meta_ttl=1000
check "$(cat "$mnt/added")" = again
meta=$(stat_of origin.meta_requests)
for i in 1 2 3 4 5; do check "$(cat "$mnt/added")" = again; done
check "$(stat_of origin.meta_requests)" -eq "$meta" "metadata requests within meta_ttl"
stop

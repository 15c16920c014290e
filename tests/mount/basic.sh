#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What any program expects of a read-only file system.
. "$(dirname "$0")/lib.sh"

make_files 60 40000 3
mkdir -p "$origin/deep/er/dir" "$origin/empty"
: >"$origin/zero"
printf 'hello' >"$origin/deep/er/dir/hello"
ln -s ../class00 "$origin/deep/link"
ln -s nowhere "$origin/dangling"
chmod 640 "$origin/zero"
chmod 700 "$origin/empty"
[ "$(id -u)" = 0 ] && chown 1234:4321 "$origin/zero"
touch -d '2001-02-03 04:05:06.789' "$origin/zero"

start "$origin"
same_tree
for tree in origin mnt; do
	(cd "$scratch/$tree" && find . ! -type d -printf '%P %y %m %U %G %s %T@ %l\n' | sort) >"$scratch/$tree.list"
done
cmp "$scratch/origin.list" "$scratch/mnt.list" || { diff "$scratch/origin.list" "$scratch/mnt.list" | head; fail "attributes differ"; }
(cd "$origin" && find . -type d -printf '%P %m %U %G\n' | sort) >"$scratch/a"
(cd "$mnt" && find . -type d -printf '%P %m %U %G\n' | sort) >"$scratch/b"
cmp "$scratch/a" "$scratch/b" || fail "directories' attributes differ"

check "$(readlink "$mnt/deep/link")" = ../class00 "symbolic link"
check "$(cat "$mnt/deep/er/dir/hello")" = hello
check "$(cat "$mnt/deep/er/../er/dir/hello")" = hello
[ -e "$mnt/absent" ] && fail "an absent name exists"
for command in "touch $mnt/new" "rm $mnt/zero" "mkdir $mnt/newdir" "mv $mnt/zero $mnt/one" \
	"ln -s a $mnt/newlink" "chmod 777 $mnt/zero" "truncate -s 1 $mnt/zero"; do
	$command 2>"$scratch/err" && fail "$command succeeded on a read-only mount"
	grep -q 'Read-only file system' "$scratch/err" || fail "$command: $(cat "$scratch/err")"
done
df "$mnt" >/dev/null || fail "statfs"
cp -a "$mnt/." "$scratch/copy" || fail "cp -a"
diff -r --no-dereference "$origin" "$scratch/copy" || fail "the copy differs"
check "$(stat -c %i "$mnt/zero")" = "$(stat -c %i "$mnt/zero")"

# A second look at everything costs the origin nothing.
before=$(stat_of origin.requests) meta=$(stat_of origin.meta_requests)
same_tree
ls -lR "$mnt" >/dev/null
[ -e "$mnt/class00/absent" ] && fail "an absent name exists"
check "$(stat_of origin.requests)" -eq "$before" "origin requests of a second pass"
check "$(stat_of origin.meta_requests)" -eq "$meta" "metadata requests of a second pass"
stop

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# gpamap flatten, built with sanitizers: QEMU's maps byte by byte, the rules of
# what is visible (the files in ../data/rules hold what they must give, in lines
# that begin with #= or, for --each, with #=each), and everything that can be wrong
# with a file, a line or an option. KTAP on standard output.
#
# usage: flatten_test.sh GPAMAP
set -u

gpamap=$1
data=$(dirname "$0")/../data
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
count=0
failed=0

# report STATUS NAME: one line of KTAP; the diff, if any, is in $tmp/diff.
report() {
	count=$((count + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $count flatten.$2"
	else
		sed 's/^/# /' "$tmp/diff"
		echo "not ok $count flatten.$2"
		failed=$((failed + 1))
	fi
}

# gives NAME WANT MAP [OPTION]: the tool prints WANT, nothing else, and succeeds.
gives() {
	"$gpamap" flatten ${4:+"$4"} "$3" > "$tmp/out" 2> "$tmp/err"
	status=$?
	diff -u "$2" "$tmp/out" > "$tmp/diff" && [ $status -eq 0 ] && [ ! -s "$tmp/err" ]
	status=$?
	cat "$tmp/err" >> "$tmp/diff"
	report $status "$1"
}

# refuses NAME LINE:SENTENCE(ERRNO): what is wrong with $tmp/bad.map.
refuses() {
	"$gpamap" flatten "$tmp/bad.map" > "$tmp/out" 2> "$tmp/err"
	status=$?
	echo "$tmp/bad.map:$2" > "$tmp/want"
	diff -u "$tmp/want" "$tmp/err" > "$tmp/diff" && [ $status -eq 1 ] && [ ! -s "$tmp/out" ]
	report $? "$1"
}

# complains NAME STATUS SENTENCE ARG...: what is wrong with the arguments.
complains() {
	name=$1 want=$2
	echo "$3" > "$tmp/want"
	shift 3
	"$gpamap" "$@" > "$tmp/out" 2> "$tmp/err"
	status=$?
	diff -u "$tmp/want" "$tmp/err" > "$tmp/diff" && [ $status -eq "$want" ] && [ ! -s "$tmp/out" ]
	report $? "$name"
}

echo "TAP version 13"

for map in "$data"/*.map; do
	name=${map%.map}
	[ -f "$name.flat" ] && gives "qemu_$(basename "$name")" "$name.flat" "$map"
	[ -f "$name.each" ] && gives "qemu_$(basename "$name")" "$name.each" "$map" --each
done

for map in "$data"/rules/*.map; do
	name=rule_$(basename "$map" .map)
	if grep -q '^#=each ' "$map"; then
		sed -n 's/^#=each //p' "$map" > "$tmp/want"
		gives "$name" "$tmp/want" "$map" --each
	else
		sed -n 's/^#= //p' "$map" > "$tmp/want"
		gives "$name" "$tmp/want" "$map"
	fi
done

# What may stand in a file.
cat > "$tmp/odd.map" <<'END'
   # a comment, a blank line, and blanks around

	region 1   container "a # is no comment in a name"  last=18446744073709551615 # but here it is
space "s" root=1 kind=view as=0
region 4294967295 io "" last=0X0
add 4294967295 to 1 prio=-2147483648 at=0x10
region 2 io "é" last=0
add 2 to 1 at=0 prio=2147483647
commit
set 2 enabled=0 readonly=1 at=1 prio=1
END
cat > "$tmp/want" <<'END'
address-space: s
  0000000000000000-0000000000000000 (prio 2147483647, i/o): é
  0000000000000010-0000000000000010 (prio -2147483648, i/o): 
END
gives odd_but_right "$tmp/want" "$tmp/odd.map"
printf 'region 1 io "x" last=1\r\nspace "s" root=1\r\ncommit' > "$tmp/crlf.map"
printf 'address-space: s\n  0000000000000000-0000000000000001 (prio 0, i/o): x\n' > "$tmp/want"
gives carriage_returns_and_no_last_newline "$tmp/want" "$tmp/crlf.map"
: > "$tmp/empty"
gives empty_file "$tmp/empty" "$tmp/empty"
printf 'region 1 io "x" last=1\nspace "s" root=1\n' > "$tmp/none.map"
gives nothing_committed "$tmp/empty" "$tmp/none.map"
gives nothing_committed_each "$tmp/empty" "$tmp/none.map" --each

# What is wrong with a line. The first three lines are always the same.
line() {
	{
		echo 'region 1 container "root" last=0xffff'
		echo 'region 2 alias "alias" last=0xff of=1 offset=0'
		echo 'space "s" root=1'
		printf '%b\n' "$3"
	} > "$tmp/bad.map"
	refuses "$1" "$2"
}

line no_such_statement '4: unknown statement "frob" (EINVAL)' 'frob 1'
line begins_with_a_name '4: a line begins with a word, not with a name (EINVAL)' '"x"'
line zero_byte '4: a zero byte stands in the line (EINVAL)' 'del 1\000'
line id_missing '4: the id of the region is missing (EINVAL)' 'region'
line id_is_0 '4: an id is above 0 (EINVAL)' 'del 0'
line id_too_large '4: 4294967296 is too large (EINVAL)' 'del 4294967296'
line id_negative '4: "-1" is not a number (EINVAL)' 'del -1'
line id_octal '4: "010" begins with 0 but is not 0x... (EINVAL)' 'del 010'
line id_hex_empty '4: "0x" is not a number (EINVAL)' 'del 0x'
line id_quoted '4: the id of the region is missing (EINVAL)' 'del "1"'
line kind_missing '4: the kind of the region is missing (EINVAL)' 'region 3'
line kind_unknown '4: unknown kind of region "disk" (EINVAL)' 'region 3 disk "x" last=1'
line romd_2 '4: "2" is neither 0 nor 1 (EINVAL)' 'region 3 romd "x" last=1 romd=2'
line romd_no_value '4: romd needs a value (EINVAL)' 'region 3 romd "x" last=1 romd'
line romd_of_io '4: unknown word "romd" (EINVAL)' 'region 3 io "x" last=1 romd=1'
line unmergeable_with_value '4: unmergeable has no value (EINVAL)' \
	'region 3 io "x" last=1 unmergeable=1'
line set_romd_of_alias \
	'4: a value that this kind of region does not have, or unmappable memory (EINVAL)' \
	'set 2 romd=1'
line set_last_wraps '5: the host memory goes beyond the address space (EOVERFLOW)' \
	'region 3 ram "x" last=0xfff hva=0xfffffffffffff000\nset 3 last=0x1000'
line space_as_2 '4: this kind or number of space is not supported (EOPNOTSUPP)' \
	'space "t" root=1 kind=memory as=2'
line two_io_spaces '5: there is such a space already (EEXIST)' \
	'space "t" root=1 kind=io\nspace "u" root=1 kind=io'
line name_missing '4: a name in double quotes is missing (EINVAL)' 'region 3 io x last=1'
line name_open '4: the name has no closing quote (EINVAL)' 'region 3 io "x last=1'
line name_glued '4: a blank is missing after the name (EINVAL)' 'region 3 io "x"last=1'
line name_too_long '4: the name is longer than 63 bytes (EINVAL)' \
	"region 3 io \"$(printf '%064d' 0)\" last=1"
line name_with_a_tab '4: a bad name, or a value that this kind of region does not have (EINVAL)' \
	'region 3 io "a\tb" last=1'
line last_missing '4: last=... is missing (EINVAL)' 'region 3 io "x"'
line last_too_large '4: 0x10000000000000000 is too large (EINVAL)' \
	'region 3 io "x" last=0x10000000000000000'
line last_no_value '4: last needs a value (EINVAL)' 'region 3 io "x" last'
line last_empty '4: "" is not a number (EINVAL)' 'region 3 io "x" last='
line last_twice '4: last stands there twice (EINVAL)' 'region 3 io "x" last=1 last=1'
line last_rubbish '4: "12z" is not a number (EINVAL)' 'region 3 io "x" last=12z'
line readonly_with_value '4: readonly has no value (EINVAL)' 'region 3 io "x" last=1 readonly=1'
line of_missing '4: of=... is missing (EINVAL)' 'region 3 alias "x" last=1 offset=0'
line offset_missing '4: offset=... is missing (EINVAL)' 'region 3 alias "x" last=1 of=1'
line of_no_alias '4: unknown word "of" (EINVAL)' 'region 3 io "x" last=1 of=1'
line hva_of_io '4: unknown word "hva" (EINVAL)' 'region 3 io "x" last=1 hva=1'
line hva_wraps '4: the host memory goes beyond the address space (EOVERFLOW)' \
	'region 3 ram "x" last=0xfff hva=0xfffffffffffff001'
line of_unknown '4: there is no region with the id of the target (ENOENT)' \
	'region 3 alias "x" last=1 of=9 offset=0'
line region_twice '4: there is a region with this id already (EEXIST)' 'region 1 io "x" last=1'
line add_to_missing '4: the word to is missing (EINVAL)' 'add 2'
line add_to_wrong '4: "to" is missing before "1" (EINVAL)' 'add 2 1 at=0 prio=0'
line add_container_missing '4: the id of the container is missing (EINVAL)' 'add 2 to'
line add_at_missing '4: at=... is missing (EINVAL)' 'add 2 to 1 prio=0'
line add_prio_missing '4: prio=... is missing (EINVAL)' 'add 2 to 1 at=0'
line add_prio_too_large '4: 2147483648 is too large (EINVAL)' 'add 2 to 1 at=0 prio=2147483648'
line add_prio_too_small '4: 2147483649 is too large (EINVAL)' 'add 2 to 1 at=0 prio=-2147483649'
line add_unknown '4: there is no such region or no such container (ENOENT)' 'add 9 to 1 at=0 prio=0'
line add_to_unknown '4: there is no such region or no such container (ENOENT)' 'add 2 to 9 at=0 prio=0'
line add_to_alias '5: an alias holds no regions, or the memory cannot be mapped there (EINVAL)' \
	'region 3 io "x" last=1\nadd 3 to 2 at=0 prio=0'
line add_twice '6: the region is in a container already (EBUSY)' \
	'region 3 io "x" last=1\nadd 3 to 1 at=0 prio=0\nadd 3 to 1 at=0 prio=0'
line add_cycle '4: a view would have no end, or lie too deep (ELOOP)' \
	'add 2 to 1 at=0 prio=0\nregion 3 io "x" last=1\ncommit'
line set_cycle '6: a view would have no end, or lie too deep (ELOOP)' \
	'add 2 to 1 at=0x100 prio=0\ncommit\nset 2 offset=0x100\ncommit'
line space_of_cycle '6: a view would have no end, or lie too deep (ELOOP)' \
	'region 3 io "x" last=1\nadd 3 to 3 at=0 prio=0\nspace "t" root=3\ncommit'
line del_detached '4: there is no such region, or it is in no container (ENOENT)' 'del 2'
line del_more '4: unknown word "now" (EINVAL)' 'del 2 now'
line destroy_root \
	"4: the region is attached, not empty, an alias's target or a space's root, or it has doorbells, registers, a handler or a policy, or posts its writes (EBUSY)" \
	'destroy 1'
line destroy_unknown '4: there is no region with this id (ENOENT)' 'destroy 9'
line set_nothing '4: there is nothing to set (EINVAL)' 'set 2'
line set_unknown_key '4: unknown word "colour" (EINVAL)' 'set 2 colour=1'
line set_enabled_2 '4: "2" is neither 0 nor 1 (EINVAL)' 'set 2 enabled=2'
line set_readonly_plain '4: readonly needs a value (EINVAL)' 'set 2 readonly'
line set_at_detached '4: there is no such region, or it is in no container (ENOENT)' 'set 2 at=1'
line set_offset_of_container \
	'4: a value that this kind of region does not have, or unmappable memory (EINVAL)' \
	'set 1 offset=1'
line set_unknown_id '4: there is no such region, or it is in no container (ENOENT)' 'set 9 enabled=1'
line space_name_missing '4: a name in double quotes is missing (EINVAL)' 'space root=1'
line space_root_missing '4: root=... is missing (EINVAL)' 'space "t"'
line space_root_unknown '4: there is no region with the id of the root (ENOENT)' 'space "t" root=9'
line space_kind_unknown '4: unknown kind of space "disk" (EINVAL)' 'space "t" root=1 kind=disk'
line space_view_as '4: malformed operation, or memory that cannot be mapped (EINVAL)' \
	'space "t" root=1 as=1'
line two_memory_spaces '5: there is such a space already (EEXIST)' \
	'space "t" root=1 kind=memory\nspace "u" root=1 kind=memory'
line commit_more '4: unknown word "now" (EINVAL)' 'commit now'
line wrong_after_the_last_commit '5: there is no region with this id (ENOENT)' \
	'commit\ndestroy 77'

# A result that is wrong is blamed on the line without which it is not: each of the
# twenty levels shows the one below twice, which is too many from the 16th on.
awk 'BEGIN {
	print "region 1 container \"root\" last=0xffffffffffffffff"
	print "space \"s\" root=1"
	print "region 2 io \"leaf\" last=0"
	top = 2
	for (i = 0; i < 20; i++) {
		id = 10 * (i + 1)
		printf "region %d container \"c\" last=%d\n", id, 2 ^ (i + 1) * 2 - 1
		printf "region %d alias \"a\" last=%d of=%d offset=0\n", id + 1, 2 ^ i * 2 - 1, top
		printf "region %d alias \"b\" last=%d of=%d offset=0\n", id + 2, 2 ^ i * 2 - 1, top
		printf "add %d to %d at=0 prio=0\n", id + 1, id
		printf "add %d to %d at=%d prio=0\n", id + 2, id, 2 ^ i * 2
		top = id
	}
	printf "add %d to 1 at=0 prio=0\n", top
	print "set 1 readonly=1"
	print "commit"
}' > "$tmp/bad.map"
refuses alias_bomb '104: there are too many operations, ranges or memslots (ENOSPC)'

# Files and options.
complains no_file 2 'gpamap: flatten: a FILE is missing' flatten
complains two_files 2 'gpamap: flatten: there is more than one FILE' flatten a b
complains unknown_option 2 'gpamap: flatten: unknown option --frob' flatten --frob x
complains unknown_command 2 'gpamap: there is no command "frob"; gpamap --help lists them' frob
complains unreadable 1 \
	"gpamap: cannot read $tmp/nowhere: No such file or directory (ENOENT)" \
	flatten "$tmp/nowhere"
complains directory 1 "$tmp:0: cannot read on: Is a directory (EISDIR)" flatten "$tmp"
complains show_two 2 'gpamap: show: at most one MAP' show 1 2
complains show_option 2 'gpamap: show: unknown option --frob' show --frob

"$gpamap" --help | grep -q '^usage: gpamap flatten' 2> "$tmp/diff"
report $? help
"$gpamap" --version | grep -qx 'gpamap [0-9]*\.[0-9]*' 2> "$tmp/diff"
report $? version
"$gpamap" flatten "$data/pc.S.map" > /dev/full 2> "$tmp/diff"
[ $? -eq 1 ] && grep -q 'cannot write the output' "$tmp/diff"
report $? full_disk

echo "1..$count"
[ $failed -eq 0 ]

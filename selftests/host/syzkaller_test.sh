#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The description for syzkaller (tools/syzkaller/dev_gpamap.txt) against the ABI's header:
# both are brought to one list, which must be the same. KTAP on standard output.
#
#	cmd NAME DIRECTION		of its structure: in, or inout if the kernel writes
#	struct NAME NR MEMBER SIZE DIRECTION
#	enum NAME NR CONSTANT
#	record STRUCT, size STRUCT	what QUERY writes, and how long that is
#
# So what is new in the header is missing in the description, by its name.
set -u

cd "$(dirname "$0")/../.." || exit 1
header=uapi/linux/gpamap.h
txt=tools/syzkaller/dev_gpamap.txt
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
count=0
failed=0
# No call has these: they are in memory that the VMM maps.
mapped='exit|ring_header|ring_entry'

# A member is written by the kernel if its name begins with out_, or if its comment says
# that it goes in and out. Records are only written, so nothing is said of their members.
list_header() {
	awk -v mapped="$mapped" '
	BEGIN {
		size["__u8"] = 1; size["__u16"] = 2; size["__u32"] = 4
		size["__s32"] = 4; size["__aligned_u64"] = 8
	}
	/^#define GPAMAP_[A-Z0-9_]+ _IO\(GPAMAP_TYPE, GPAMAP_CMD_/ {
		cmds[substr($2, 8)]
		sub(/.*GPAMAP_CMD_/, "")
		sub(/\)$/, "")
		numbers[$0]
	}
	# Whether a member goes both ways is in the comment before its structure.
	/^ \* @[a-z0-9_]+: In: / {
		sub(/:/, "", $2)
		both[substr($2, 2)]
	}
	/^ \* @GPAMAP_QUERY_[A-Z]+: .*struct gpamap_/ {
		sub(/.*struct /, "")
		sub(/[^a-z_].*/, "")
		print "record " $0
		print "size " $0
	}
	$0 ~ "^struct gpamap_(" mapped ") {$" { next }
	/^struct gpamap_[a-z0-9_]+ \{$/ { s = $2; nr = 0 }
	/^enum gpamap_[a-z0-9_]+ \{$/ { e = $2; nr = 0 }
	/^};/ {
		if (s)
			split("", both)
		s = e = ""
	}
	s && /;$/ {
		name = $2
		sub(/;$/, "", name)
		bytes = size[$1] ? size[$1] : "unknown"
		if (name ~ /\[/) {
			bytes = (bytes == 1 ? "" : bytes "*") name
			sub(/.*\[/, "", bytes)
			sub(/\].*/, "", bytes)
			sub(/\[.*/, "", name)
		}
		dir = name ~ /^out_/ ? "out" : name in both ? "inout" : "in"
		if (dir != "in")
			writes[s]
		print "struct", s, ++nr, name, bytes, dir
	}
	e && /^\tGPAMAP_/ { print "enum", e, ++nr, $1 }
	END {
		for (c in cmds)
			print "cmd", c, "gpamap_" tolower(c) in writes ? "inout" : "in"
		for (c in numbers)
			if (!(c in cmds))
				print "number " c " without a command"
	}' "$1" | sort
}

list_txt() {
	awk '
	function bytes_of(type)
	{
		if (type in alias)
			return bytes_of(alias[type])
		if (type ~ /^(array\[(int8|const\[0, int8\])|string\["[^"]*"), [A-Z_0-9]+\]$/) {
			sub(/.*, /, "", type)
			sub(/\]/, "", type)
			return type
		}
		if (type ~ /^(ptr64|vma64)\[/)
			return 8
		if (type ~ /^(fd_[a-z]+)$/)
			return 4
		# The last is what all others stand for: flags[x, int32].
		if (match(type, /int(8|16|32|64)(\[[^]]*\])?\]?$/)) {
			type = substr(type, RSTART + 3)
			sub(/[^0-9].*/, "", type)
			return type / 8
		}
		return "unknown"
	}
	/^#/ || !NF { next }
	$1 == "type" { alias[$2] = $0; sub(/^type [^ ]+ /, "", alias[$2]); next }
	$1 == "define" {
		name = $2
		sub(/.*sizeof\(struct /, "")
		sub(/\).*/, "")
		sizeof[name] = $0
		next
	}
	/^ioctl\$GPAMAP_/ {
		name = $1
		sub(/\(.*/, "", name)
		sub(/^ioctl\$GPAMAP_/, "", name)
		sub(/ fd_gpamap_[a-z]+$/, "")	# what it returns
		dir = $0
		sub(/.*arg ptr\[/, "", dir)
		sub(/,.*/, "", dir)
		want = "ioctl$GPAMAP_" name "(fd fd_gpamap, cmd const[GPAMAP_" name \
			"], arg ptr[" dir ", gpamap_" tolower(name) "])"
		print "cmd", name, $0 == want ? dir : "is not: " want
		next
	}
	/^gpamap_[a-z0-9_]+ \{$/ { s = $1; nr = 0; next }
	/^gpamap_record \[$/ { records = 1; next }
	/^gpamap_[a-z0-9_]+ \[$/ { u = $1; next }
	/^[]}]/ { s = u = records = ""; next }
	records { print "record " $2; next }
	# A choice of types for one member: each has to be as long as the others.
	u {
		type = $0
		sub(/^\t[^\t]+\t+/, "", type)
		if (u in alias && bytes_of(type) != bytes_of(alias[u]))
			print "choice", u, $1, bytes_of(type), "not", bytes_of(alias[u])
		alias[u] = type
		next
	}
	s {
		type = $0
		sub(/^\t[^\t]+\t+/, "", type)
		dir = "in"
		if (match(type, / \((in|out|inout)\)$/)) {
			dir = substr(type, RSTART + 2)
			sub(/\)/, "", dir)
			sub(/ \([a-z]+\)$/, "", type)
		}
		print "struct", s, ++nr, $1, bytes_of(type), dir
		next
	}
	/^gpamap_record_sizes = / {
		sub(/.*= /, "")
		n = split($0, list, ", ")
		for (i = 1; i <= n; i++)
			wanted[list[i]]
		next
	}
	/^gpamap_[a-z0-9_]+ = GPAMAP_/ {
		name = $1
		sub(/.*= /, "")
		n = split($0, list, ", ")
		for (i = 1; i <= n; i++)
			print "enum", name, i, list[i]
		next
	}
	END {
		for (name in wanted)
			print "size", name in sizeof ? sizeof[name] : name
	}' "$1" | sort
}

# check NAME COMMAND...
check() {
	count=$((count + 1))
	name=$1
	shift
	if "$@" > "$tmp/log" 2>&1; then
		echo "ok $count syzkaller.$name"
	else
		sed 's/^/# /' "$tmp/log"
		echo "not ok $count syzkaller.$name"
		failed=$((failed + 1))
	fi
}

# same [HEADER [TXT]]: - is what the header has and the description has not, + the reverse.
same() {
	list_header "${1-$header}" > "$tmp/header"
	list_txt "${2-$txt}" > "$tmp/txt"
	[ "$(wc -l < "$tmp/header")" -gt 200 ] || return 2
	diff -U0 "$tmp/header" "$tmp/txt"
}

# Every command, structure and member of the header was read, in some way of its own.
all_read() {
	same > "$tmp/diff"
	sed -E "/^struct gpamap_($mapped) /,/^}/d" $header > "$tmp/called"
	[ "$(grep -c '^cmd ' "$tmp/header")" -eq \
		"$(grep -c '^	GPAMAP_CMD_[A-Z]*,\|^	GPAMAP_CMD_[A-Z]* = GPAMAP_CMD_BASE,' \
			$header)" ] &&
	[ "$(grep -c '^struct ' "$tmp/header")" -eq \
		"$(sed -n '/^struct gpamap_/,/^}/p' "$tmp/called" | grep -c ';$' |
			awk -v n="$(grep -c '^struct gpamap_.*{' "$tmp/called")" '{ print $1 - n }')" ] &&
	[ "$(grep -c '^enum ' "$tmp/header")" -eq \
		"$(sed -n '/^enum gpamap_/,/^}/p' $header | grep -c '^	GPAMAP_')" ] &&
	! grep unknown "$tmp/header"
}

# Nothing is described that no call leads to.
all_used() {
	sed -n 's/^\(gpamap_[a-z0-9_]*\) [{[=].*/\1/p; s/^type \([a-z_]*\) .*/\1/p' $txt |
		while read -r name; do
			[ "$(grep -cw "$name" $txt)" -gt 1 ] || echo "$name is not used"
		done > "$tmp/unused"
	cat "$tmp/unused"
	[ ! -s "$tmp/unused" ]
}

# notices FILE SCRIPT: a sed script that changes a file makes a difference.
notices() {
	sed "$2" "$1" > "$tmp/changed"
	! cmp -s "$1" "$tmp/changed" || return 1
	case $1 in
	"$txt") same "$header" "$tmp/changed" ;;
	*) same "$tmp/changed" "$txt" ;;
	esac
	[ $? -eq 1 ]
}

echo "TAP version 13"
check the_whole_abi_is_described same
check all_of_the_header_is_read all_read
check all_that_is_described_is_used all_used
check notices_a_missing_command notices $txt '/^ioctl.GPAMAP_LOOKUP/d'
check notices_another_structure notices $txt '/^ioctl.GPAMAP_APPLY/s/gpamap_apply\]/gpamap_query]/'
check notices_a_direction notices $txt '/^ioctl.GPAMAP_QUERY/s/inout/in/'
check notices_a_missing_member notices $txt '/^	out_moves/d'
check notices_a_width notices $txt '/^	first_slot/s/int32\[/int64[/'
check notices_a_width_of_a_choice notices $txt '/^	event/s/fd_event/int64/'
check notices_an_order notices $txt '/^	container/{h;d};/^	target/G'
check notices_what_is_written notices $txt 's/^\(	out_taken.*\) (out)/\1/'
check notices_a_missing_constant notices $txt 's/, GPAMAP_SET_ROMD//'
check notices_a_missing_record notices $txt '/^	slot	gpamap_slot_info/d'
check notices_a_missing_size notices $txt 's/, GPAMAP_SYZ_SIZEOF_STATS//'
check notices_a_new_command notices $header \
	's/^#define GPAMAP_LOOKUP .*/&\n#define GPAMAP_NEW _IO(GPAMAP_TYPE, GPAMAP_CMD_NEW)/'
check notices_a_new_member notices $header \
	's/^	__aligned_u64 moves;/&\n	__u32 new;/'
check notices_a_new_flag notices $header \
	's/^	GPAMAP_REGION_CUT_AHEAD = .*/&\n	GPAMAP_REGION_NEW = 1 << 6,/'
echo "1..$count"
[ $failed -eq 0 ]

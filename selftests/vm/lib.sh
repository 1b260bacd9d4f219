# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# lib.sh: what the scripts of the test machine share, above all the cache.
#
# Everything the machine needs and the clone does not hold (QEMU, kernels,
# busybox, the initramfs made of them) is an item of the cache, a directory
# outside the clone: $GPAMAP_CACHE, by default gpamap/ in the user's cache
# directory. The rules every item follows are here and nowhere else:
#
# - An item is built aside, in NAME.new.XXXXXX, and renamed into place when it
#   is complete. An interrupted build leaves nothing that could be taken for an
#   item, and the next builder removes what it left.
# - An item carries two files. "stamp" says what it was built from: the recipe
#   (compared as a whole line, so a new recipe makes the item outdated), the
#   versions of the packages, and the checksum of the second file. "sums" holds
#   the checksums of the files that must be right, and is checked at each use.
# - Damaged or outdated items are rebuilt, with a message that says why.
# - Whoever looks at an item or builds it holds the item's lock, so that of two
#   runs at once one builds and the other waits and then finds it good.
#
# Messages go to stderr; stdout belongs to whoever calls. Failures that are not
# the tested thing's end the script with status 123 (see run).

# Other programs' messages are read here and there.
export LC_ALL=C

cache=${GPAMAP_CACHE:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/gpamap}
case $cache in
/*) ;;
*) cache=$PWD/$cache ;;
esac

say() {
	printf 'vm: %s\n' "$*" >&2
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 123
}

# lock_take NAME: wait for and take the lock NAME, in the descriptor $lock_fd.
lock_take() {
	mkdir -p "$cache/lock" || die "cannot write to the cache $cache"
	exec {lock_fd}>"$cache/lock/${1//\//_}" ||
		die "cannot write to the cache $cache"
	flock "$lock_fd"
}

lock_drop() {
	exec {lock_fd}>&-
}

# item_flaw DIR RECIPE: print what is wrong with an item; silent when it is good.
item_flaw() {
	local recipe sums

	if [ ! -e "$1" ]; then
		echo missing
		return
	fi
	if [ ! -r "$1/stamp" ] || [ ! -r "$1/sums" ]; then
		echo damaged
		return
	fi
	recipe=$(sed -n 's/^recipe //p' "$1/stamp")
	sums=$(sed -n 's/^sums //p' "$1/stamp")
	if [ "$recipe" != "$2" ]; then
		echo outdated
	elif [ "$(sha256sum <"$1/sums")" != "$sums" ] ||
	     ! (cd "$1" && sha256sum --status --strict -c sums 2>/dev/null); then
		echo damaged
	fi
}

# item NAME RECIPE BUILDER [ARG...]: make sure that item NAME is there and good,
# and set $item to its directory. BUILDER is called as BUILDER DIR ARG... and
# fills DIR; it lists the essential files, one a line and relative to DIR, in
# DIR/sums, and may write "package NAME VERSION" lines into DIR/stamp.
item() {
	local name=$1 recipe=$2 builder=$3 new flaw item_lock
	shift 3

	item=$cache/$name
	lock_take "$name"
	item_lock=$lock_fd
	flaw=$(item_flaw "$item" "$recipe")
	if [ -n "$flaw" ]; then
		[ "$flaw" = missing ] ||
			say "$name in the cache is $flaw, making it again"
		mkdir -p "${item%/*}"
		rm -rf "$item".new.* "$item".old
		new=$(mktemp -d "$item.new.XXXXXX") ||
			die "cannot write to the cache $cache"
		chmod 755 "$new"
		: >"$new/stamp"
		if ! "$builder" "$new" "$@"; then
			rm -rf "$new"
			die "$name could not be made"
		fi
		(
			cd "$new" && xargs -d '\n' sha256sum <sums >sums.new &&
			mv sums.new sums &&
			printf 'recipe %s\nsums %s\n' "$recipe" \
				"$(sha256sum <sums)" >>stamp
		) || die "$name could not be made"
		if [ -e "$item" ]; then
			mv "$item" "$item.old"
		fi
		mv "$new" "$item" || die "cannot write to the cache $cache"
		rm -rf "$item.old"
	fi
	exec {item_lock}>&-
}

# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
#
# lib.sh: what mkinitrd and mkdisk share: the guest's programs in a directory.
#
# busybox is taken from $BUSYBOX or else /bin/busybox (which must be linked statically, as
# Debian's busybox-static is).

here=$(dirname "$0")
busybox=${BUSYBOX:-/bin/busybox}

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# Only a program that needs no interpreter runs where there are no libraries.
is_static() {
	! ldd "$1" 2>/dev/null | grep -q '=>'
}

# fill ROOT: busybox, the script init and the directories that are mounted on.
fill() {
	[ -x "$busybox" ] || die "$busybox: no such program (package busybox-static)"
	is_static "$busybox" ||
		die "$busybox: not linked statically (package busybox-static)"
	mkdir -p "$1/bin" "$1/dev" "$1/proc" "$1/sbin" "$1/sys"
	cp "$busybox" "$1/bin/busybox"
	cp "$here/init" "$1/sbin/init"
	chmod 755 "$1/bin/busybox" "$1/sbin/init"
	for applet in blockdev cat cmp cp dd echo grep insmod mount reboot sed sh \
		      switch_root sync uname; do
		ln -s busybox "$1/bin/$applet"
	done
}

# all_old ROOT: the same input is to give the same bytes.
all_old() {
	find "$1" -exec touch -h -d '2000-01-01 00:00:00 UTC' {} +
}

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The library as others see it: what it exports, where it is installed, that its
# headers and the ABI's compile as C and C++, on 64 and 32 bits, and that a
# program builds with what pkg-config says. KTAP on standard output.
set -u

cd "$(dirname "$0")/../.." || exit 1
# Where the kernel's own headers for both word sizes are.
asm="-isystem /usr/include/$(gcc -print-multiarch)"
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
count=0
failed=0

# check NAME COMMAND...
check() {
	count=$((count + 1))
	name=$1
	shift
	if "$@" > "$tmp/log" 2>&1; then
		echo "ok $count lib.$name"
	else
		sed 's/^/# /' "$tmp/log"
		echo "not ok $count lib.$name"
		failed=$((failed + 1))
	fi
}

exports() {
	sed -n 's/^\t\t\(gpamap_[a-z_0-9]*\);/\1/p' userlib/libgpamap.map | sort > "$tmp/map"
	nm -D --defined-only build/libgpamap.so | awk '$2 == "T" { sub(/@.*/, "", $3); print $3 }' |
		sort > "$tmp/so"
	grep -v '^#' userlib/gpamap.h | tr '\n' ' ' | grep -o 'GPAMAP_API [^;]*;' |
		sed 's/(.*//; s/.*[ *]//' | sort > "$tmp/header"
	[ -s "$tmp/map" ] && diff "$tmp/map" "$tmp/so" && diff "$tmp/map" "$tmp/header"
}

soname() {
	readelf -d build/libgpamap.so | grep -q 'soname: \[libgpamap.so.0\]'
}

# Only the C library may be needed, and nothing may be writable and executable.
needs_only_libc() {
	[ "$(readelf -d build/libgpamap.so | grep -c NEEDED)" -eq 1 ]
}

# header FILE OPTION...: compiles on its own without a warning.
header() {
	file=$1
	shift
	printf '#include <%s>\nint main(void) { return 0; }\n' "$file" > "$tmp/x.c"
	# shellcheck disable=SC2086
	"$@" -Wall -Wextra -Werror -pedantic $asm -Iuapi -Iuserlib -fsyntax-only "$tmp/x.c"
}

# The same offsets for a 32-bit caller: a copy of the ABI's numbers, by both.
layout() {
	awk '/^struct gpamap_[a-z_]+ \{/ { s = $2 }
	     /^};/ { s = "" }
	     s && /;$/ { f = $NF; sub(/;.*/, "", f); sub(/\[.*/, "", f); print s, f }' \
		uapi/linux/gpamap.h > "$tmp/fields"
	[ "$(wc -l < "$tmp/fields")" -gt 50 ] || return 1
	{
		echo '#include <stddef.h>'
		echo '#include <linux/gpamap.h>'
		echo 'unsigned char table[] = {'
		while read -r s f; do
			echo "offsetof(struct $s, $f), sizeof(struct $s),"
		done < "$tmp/fields"
		echo '};'
	} > "$tmp/layout.c"
	for bits in 64 32; do
		# shellcheck disable=SC2086
		gcc -m$bits $asm -Iuapi -c "$tmp/layout.c" -o "$tmp/layout.o" -ffreestanding &&
			objcopy -O binary -j .data "$tmp/layout.o" "$tmp/layout.$bits" || return 1
	done
	cmp "$tmp/layout.64" "$tmp/layout.32"
}

# No member begins where the one before has not ended.
no_holes() {
	printf '#include <linux/gpamap.h>\n' > "$tmp/holes.c"
	sed -n 's/^struct \(gpamap_[a-z_]*\) {/struct \1 x_\1;/p' uapi/linux/gpamap.h >> "$tmp/holes.c"
	gcc -Wpadded -Werror -Iuapi -fsyntax-only "$tmp/holes.c"
}

installed() {
	make -s install-user DESTDIR="$tmp/dest" prefix=/opt/x > "$tmp/out" &&
		[ -x "$tmp/dest/opt/x/bin/gpamap" ] &&
		[ -f "$tmp/dest/opt/x/include/linux/gpamap.h" ] &&
		[ -f "$tmp/dest/opt/x/lib/libgpamap.so.0" ] &&
		[ -f "$tmp/dest/opt/x/share/man/man1/gpamap.1" ] &&
		grep -q '^prefix=/opt/x$' "$tmp/dest/opt/x/lib/pkgconfig/libgpamap.pc"
}

# readme_program: the program in README.md builds against what was installed.
readme_program() {
	# shellcheck disable=SC2016 # what stands in README
	sed -n '/^```c$/,/^```$/p' README.md | sed '/^```/d' > "$tmp/readme.c"
	[ -s "$tmp/readme.c" ] || return 1
	flags=$(PKG_CONFIG_PATH="$tmp/dest/opt/x/lib/pkgconfig" \
		PKG_CONFIG_SYSROOT_DIR="$tmp/dest" pkg-config --cflags --libs libgpamap) || return 1
	# shellcheck disable=SC2086
	gcc -Wall -Wextra -Werror "$tmp/readme.c" $flags -o "$tmp/readme"
}

# Kernel versions are tested in one place.
versions_in_compat_only() {
	! grep -rnE 'LINUX_VERSION_CODE|KERNEL_VERSION\(' kmod | grep -v '^kmod/compat.h:'
}

spdx_everywhere() {
	git ls-files 2> /dev/null | grep -vE '^(LICENSES|selftests/(data/[^/]*|kselftest/README))|\.(md|rst)$|^\.gitignore$' |
		while read -r file; do
			head -n 3 "$file" | grep -q SPDX-License-Identifier || echo "$file"
		done > "$tmp/missing"
	cat "$tmp/missing"
	[ ! -s "$tmp/missing" ]
}

echo "TAP version 13"
check exports_are_the_map_and_the_header exports
check soname soname
check needs_only_libc needs_only_libc
for file in linux/gpamap.h gpamap.h; do
	check "header_c_$file" header $file gcc -std=c99
	check "header_cxx_$file" header $file g++ -x c++
	check "header_m32_$file" header $file gcc -m32 -ffreestanding
done
check abi_layout_is_the_same_on_32_bits layout
check abi_has_no_holes no_holes
check install_honours_destdir_and_prefix installed
check program_in_readme_builds readme_program
check kernel_versions_in_compat_only versions_in_compat_only
check spdx_everywhere spdx_everywhere
echo "1..$count"
[ $failed -eq 0 ]

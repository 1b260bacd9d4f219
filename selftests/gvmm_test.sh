#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# In the test machine: what gvmm says to wrong options and missing files, its dry runs,
# what gpamap shows of a live map, and how gvmm tells the ends of a guest apart. KTAP on
# standard output.
count=0
failed=0

# report NAME: the status of the last command; its words are in the file log.
report() {
	status=$?
	count=$((count + 1))
	if [ $status -eq 0 ]; then
		echo "ok $count gvmm.$1"
	else
		tail -n 30 log | sed 's/^/# /'
		echo "not ok $count gvmm.$1"
		failed=$((failed + 1))
	fi
}

# refuses NAME WORDS OPTION...: status 1 and one line, which contains WORDS.
refuses() {
	name=$1 words=$2
	shift 2
	gvmm "$@" > log 2>&1 < /dev/null
	[ $? -eq 1 ] && grep -q "^gvmm: .*$words" log && [ "$(wc -l < log)" -eq 1 ]
	report "$name"
}

# ends NAME STATUS LAST-LINE APPEND OPTION...: boots the guest. LAST-LINE is what the
# last line begins with. Under emulation a guest dies or hangs now and then, with several
# vCPUs above all (Documentation/testing.rst); one good boot of three counts.
ends() {
	name=$1 want=$2 line=$3 append=$4
	shift 4
	for try in 1 2 3; do
		timeout 90 gvmm -k vmlinuz -i guest-initrd.img -a "gvmm.nowait $append" \
			"$@" > log 2>&1 < /dev/null
		[ $? -eq "$want" ] && grep -q '^guest is up' log &&
			tail -n 1 log | grep -q "^$line" && break
		echo "# $name: try $try: $(tail -n 1 log)"
		[ $try -lt 3 ]
	done
	report "$name"
}

echo "TAP version 13"
echo rubbish > rubbish
: > empty
dd if=vmlinuz of=cut bs=1k count=100 2> /dev/null

refuses no_kernel 'kernel' -m 64
refuses kernel_not_there 'nowhere' -k nowhere
refuses kernel_is_rubbish 'rubbish' -k rubbish
refuses kernel_is_empty 'empty' -k empty
refuses kernel_is_cut 'cut' -k cut
refuses kernel_is_a_directory '/proc' -k /proc
refuses initrd_not_there 'nowhere' -k vmlinuz -i nowhere
dd if=/dev/zero of=large bs=1M count=100 2> /dev/null
refuses initrd_too_large 'large' -k vmlinuz -i large -m 96M
refuses memory_no_number 'lots' -k vmlinuz -m lots
refuses memory_too_small '1M' -k vmlinuz -m 1M
refuses memory_too_large '9999G' -k vmlinuz -m 9999G
refuses vcpus_none '0' -k vmlinuz -c 0
refuses vcpus_too_many '100000' -k vmlinuz -c 100000
refuses vcpus_no_number 'x' -k vmlinuz -c x
refuses unknown_option 'z' -z
refuses argument 'extra' -k vmlinuz extra

refuses map_not_there 'nowhere' -k vmlinuz --map nowhere
printf 'region 100 io "x" last=1\nadd 100 to 77 at=0 prio=0\ncommit\n' > bad.map
refuses map_line 'bad.map:2: there is no such region or no such container' -k vmlinuz \
	--map bad.map
printf 'region 100 ram "x" last=0xfff\nadd 100 to 1 at=0xd0000001 prio=0\ncommit\n' > off.map
refuses map_misaligned 'off.map:2: .*EINVAL' -k vmlinuz --map off.map

# Dry runs: what each commit does to the memslots, without a guest.
cat > plan.map <<'END'
region 100 ram "card" last=0xffffff
region 101 io "registers" last=0xfff
add 100 to 1 at=0xe0000000 prio=1
commit
set 100 at=0xd0000000
commit
add 101 to 1 at=0xd0080000 prio=2
commit
set 101 enabled=0
commit
set 101 enabled=1
set 101 enabled=0
commit
set 101 enabled=1
commit
END
cat > want <<'END'
commit 1: 0 deletes, 0 moves, 1 creates, 0 bytes taken for a moment, vCPUs not held
commit 2: 0 deletes, 1 moves, 0 creates, 0 bytes taken for a moment, vCPUs held
commit 3: 1 deletes, 0 moves, 2 creates, 16773120 bytes taken for a moment, vCPUs held
commit 4: 0 deletes, 0 moves, 1 creates, 0 bytes taken for a moment, vCPUs not held
commit 5: 0 deletes, 0 moves, 0 creates, 0 bytes taken for a moment, vCPUs not held
commit 6: 1 deletes, 0 moves, 0 creates, 0 bytes taken for a moment, vCPUs not held
END
gvmm --map plan.map --dry-run > log 2>&1 < /dev/null && cmp -s want log
report dry_run
refuses dry_run_without_a_map '--map' --dry-run
gvmm --map bad.map --dry-run > log 2>&1
[ $? -eq 1 ] &&
	grep -q '^gvmm: bad.map:2: there is no such region or no such container (ENOENT)' log
report dry_run_names_the_line
printf 'region 100 ram "x" last=0xfff\ncommit\nnonsense\n' > bad2.map
gvmm --map bad2.map --dry-run > log 2>&1
[ $? -eq 1 ] && grep -q '^commit 1: ' log && grep -q '^gvmm: bad2.map:3: .*(EINVAL)' log
report dry_run_prints_what_went_before
gvmm --map plan.map --dry-run > /dev/full 2> log
[ $? -eq 1 ] && grep -q '^gvmm: .*(ENOSPC)' log
report dry_run_into_a_full_disk

mv /dev/gpamap /dev/gpamap.away
refuses no_gpamap 'gpamap' -k vmlinuz
mv /dev/gpamap.away /dev/gpamap
mv /dev/kvm /dev/kvm.away
refuses no_kvm '/dev/kvm' -k vmlinuz
mv /dev/kvm.away /dev/kvm

gvmm --help > log 2>&1 && grep -q -- '-k' log
report help
gvmm --version > log 2>&1 && grep -q '^gvmm' log
report version

ends reboots 0 'gvmm: guest rebooted' '' -m 128M -c 2
grep -q '^CPUs: 2' log
report guest_has_two_cpus
grep -q '^  *00100000-07ffffff : System RAM\|^00100000-07ffffff : System RAM' log
report guest_has_its_memory
cat > good.map <<'END'
region 100 ram "framebuffer" last=0xffffff
region 101 io "registers" last=0xfff
add 100 to 1 at=0xd0000000 prio=1
add 101 to 1 at=0xd0800000 prio=2
space "io" root=101 kind=io
commit
set 101 enabled=0
commit
END
ends map_file 0 'gvmm: guest rebooted' '' -m 128M --map good.map
# What gpamap shows of a map while its guest runs.
gvmm -k vmlinuz -i guest-initrd.img -m 128M > guest.log 2>&1 < /dev/null &
guest=$!
for try in $(seq 100); do
	gpamap show --stats $guest > log 2>&1 && grep -q 'commits 1$' log && break
	sleep 0.1
done
gpamap show --stats $guest | sed 's/^map [0-9]*-[0-9]*$/map/' > log 2>&1
cat > want <<'END'
map
  statistics
    commits 1
    creates 5
    deletes 0
    moves 0
    deleted_bytes 0
    largest_delete 0
    holds 0
    hold_failures 0
    hold_ns 0
    longest_hold_ns 0
    rollbacks 0
  accesses
END
cmp -s want log
report show_stats
gpamap show $guest > log 2>&1 && grep -q '^  memslots' log && ! grep -q commits log
report show
kill $guest
wait $guest
gpamap show --stats $guest > log 2>&1
[ $? -eq 1 ] && grep -q "^gpamap: there is no map \"$guest\"" log
report show_stats_of_no_map

ends triple_fault 3 'gvmm: guest triple-faulted' 'reboot=t' -m 3200M
grep -q '^ *100000000-107ffffff : System RAM' log
report guest_has_memory_above_4g

echo "1..$count"
[ $failed -eq 0 ]

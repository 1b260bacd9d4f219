#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# In the test machine: what gvmm says to wrong options and missing files, its dry runs,
# what gpamap shows of a live map, how gvmm tells the ends of a guest apart, and its
# devices as Linux uses them. KTAP on standard output.
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

refuses disk_not_there 'disk nowhere: .*(ENOENT)' -k vmlinuz --disk nowhere
refuses disk_is_a_directory 'disk /proc: .*(EISDIR)' -k vmlinuz --disk /proc
refuses disk_is_a_directory_ro 'disk /proc: neither' -k vmlinuz --disk-ro /proc
refuses disk_is_a_device 'disk /dev/null: neither' -k vmlinuz --disk /dev/null
refuses disk_is_empty 'disk empty: the file is empty' -k vmlinuz --disk empty
refuses disk_not_whole_sectors 'disk rubbish: 8 bytes are not whole' -k vmlinuz --disk-ro rubbish
refuses disk_twice 'disk large: somebody else uses it' -k vmlinuz --disk large --disk large
refuses disk_read_and_written 'disk large: somebody else' -k vmlinuz --disk-ro large --disk large
refuses disks_too_many 'more than 4 disks' -k vmlinuz --disk-ro large --disk-ro large \
	--disk-ro large --disk-ro large --disk-ro large
refuses moves_none 'move-bar: not from' -k vmlinuz --move-bar 0
refuses moves_no_number 'move-bar: not a number' -k vmlinuz --move-bar x
rm large

refuses map_not_there 'nowhere' -k vmlinuz --map nowhere
printf 'region 100 io "x" last=1\nadd 100 to 77 at=0 prio=0\ncommit\n' > bad.map
refuses map_line 'bad.map:2: there is no such region or no such container' -k vmlinuz \
	--map bad.map

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
commit 2: 0 deletes, 1 moves, 0 creates, 0 bytes taken for a moment, vCPUs not held
commit 3: 1 deletes, 0 moves, 2 creates, 16773120 bytes taken for a moment, vCPUs not held
commit 4: 0 deletes, 0 moves, 1 creates, 0 bytes taken for a moment, vCPUs not held
commit 5: 0 deletes, 0 moves, 0 creates, 0 bytes taken for a moment, vCPUs not held
commit 6: 1 deletes, 0 moves, 0 creates, 0 bytes taken for a moment, vCPUs not held
END
gvmm --map plan.map --dry-run > log 2>&1 < /dev/null && cmp -s want log
report dry_run
# A BAR that is smaller than a page, wherever the guest puts it; one that nobody can address.
cat > bars.map <<'END'
region 100 ram "bar" last=0x1ff
add 100 to 1 at=0xd0000000 prio=1
commit
set 100 at=0xd0000200
commit
region 101 ram "large" last=0x3fff
add 101 to 1 at=0xe0000000 prio=1
commit
set 101 at=0xe0000010
commit
set 101 at=0x8000000000000
commit
END
cat > want <<'END'
commit 1: 0 deletes, 0 moves, 0 creates, 0 bytes taken for a moment, vCPUs not held
commit 2: 0 deletes, 0 moves, 0 creates, 0 bytes taken for a moment, vCPUs not held
commit 3: 0 deletes, 0 moves, 1 creates, 0 bytes taken for a moment, vCPUs not held
commit 4: 1 deletes, 0 moves, 0 creates, 0 bytes taken for a moment, vCPUs not held
commit 5: 0 deletes, 0 moves, 0 creates, 0 bytes taken for a moment, vCPUs not held
END
gvmm --map bars.map --dry-run > log 2>&1 < /dev/null && cmp -s want log
report dry_run_of_bars
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
gpamap show --stats $guest |
	sed 's/^map [0-9]*-[0-9]*$/map/; s/reads [0-9]*/reads N/; s/hold_ns [0-9]*/hold_ns N/' \
		> log 2>&1
cat > want <<'END'
map
  statistics
    commits 1
    creates 5
    deletes 0
    moves 0
    deleted_bytes 0
    largest_delete 0
    holds 1
    hold_failures 0
    hold_ns N
    longest_hold_ns N
    rollbacks 0
  accesses
    11 "pm-timer" reads N writes 0 exits 0 doorbells 0 posted 0: acpi-pm-timer
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

# One guest for all devices. Its root file system is on the first disk. On the second it
# writes what it has read there; the third, read-only, holds what it does; the fourth is
# cut short in the middle. The virtio console says when, and the card moves before all that.
cat > script <<'END'
echo "script: vdb has $(cat /sys/block/vdb/size) sectors and is $(cat /sys/block/vdb/serial)"
dd if=/dev/vdb of=/dev/vdb bs=32k count=1 seek=1 conv=notrunc,fsync 2> /dev/null &&
	echo "script: vdb was written"
echo "script: vdc has ro=$(cat /sys/block/vdc/ro)"
echo rubbish | dd of=/dev/vdc conv=notrunc,fsync 2> /dev/null ||
	echo "script: vdc was not written"
echo "script: clocks $(cat /sys/devices/system/clocksource/clocksource0/available_clocksource)"
echo "script: ready"
read -r line
echo "script: was told $line"
dd if=/dev/vdd of=/dev/null bs=512 skip=128 2> /dev/null || echo "script: vdd was not read"
echo "script: interrupts of $(grep -c virtio /proc/interrupts) queues"
END
# Whole sectors; the shell skips the blanks behind its last line.
printf '%*s\n' $((511 - $(wc -c < script) % 512)) '' >> script
cp script script.before
dd if=/dev/urandom of=half bs=32k count=1 2> /dev/null
cat half half > twice
for try in 1 2 3; do
	mkfifo input
	exec 3<> input
	cp guest-disk.img root
	dd if=/dev/zero bs=32k count=1 2> /dev/null | cat half - > scratch
	dd if=/dev/zero of=short bs=64k count=2 2> /dev/null
	timeout 100 gvmm -k vmlinuz -i guest-initrd.img -m 128M --disk root --disk scratch \
		--disk-ro script --disk short --hvc --move-bar 16 \
		-a "loglevel=1 gvmm.nowait gvmm.script=vdc" > log 2>&1 < input &
	guest=$!
	while kill -0 $guest 2> /dev/null && ! grep -q '^script: ready' log; do
		sleep 1
	done
	: > short
	echo "go on" >&3
	wait $guest
	status=$?
	exec 3>&-
	rm input
	[ $status -eq 0 ] && grep -q '^guest is up' log && break
	echo "# disk: try $try: $(tail -n 1 log)"
	[ $try -lt 3 ]
done
report boots_from_a_disk
# says NAME LINE: a line of that guest's begins so.
says() {
	grep -q "^$2" log
	report "$1"
}
says root_is_the_disk 'root: /dev/vda / ext4 rw'
says disk_tells_size_and_id 'script: vdb has 128 sectors and is virtio-blk.1'
says disk_writes 'script: vdb was written'
cmp twice scratch > log.cmp 2>&1
report disk_has_what_was_written
says disk_is_readonly 'script: vdc has ro=1'
says readonly_disk_refuses 'script: vdc was not written'
cmp script script.before > log.cmp 2>&1
report readonly_disk_stays
says disk_cut_short 'script: vdd was not read'
says virtio_console_input 'script: was told go on'
says virtio_interrupts 'script: interrupts of [1-9]'
says pm_timer_in_the_guest 'script: clocks .*acpi_pm'
says card_in_the_guest 'card: [0-9]* writes at two places, seen [1-9][0-9]* times .* [1-9][0-9]* '
says card_moved 'gvmm: the card moved 16 of 16 times; .*; the guest counted as many'

ends triple_fault 3 'gvmm: guest triple-faulted' 'reboot=t' -m 3200M
grep -q '^ *100000000-107ffffff : System RAM' log
report guest_has_memory_above_4g

echo "1..$count"
[ $failed -eq 0 ]

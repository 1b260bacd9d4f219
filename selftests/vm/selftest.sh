#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# selftest.sh: tests the test machine. Whoever trusts a result that run brings
# back trusts run; here it is told lies and shown bad ends, and must notice.
#
# It works on a copy of this directory whose path contains spaces, and on a
# copy of the cache (hard links), since some cases edit the known splats and
# damage what lies in the cache. It speaks KTAP and takes about four minutes,
# a boot for nearly each case. Arguments are names of cases: only these are run.

here=$(cd "$(dirname "$0")" && pwd) || exit 1
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"

tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

vm="$tmp/a path with spaces/vm"
mkdir -p "$vm" "$tmp/tmp" "$tmp/my cache"
cp -p "$here"/* "$vm/" || exit 1
export TMPDIR=$tmp/tmp

# Whatever must be fetched is fetched into the real cache, then linked.
"$here/fetch" busybox >/dev/null && "$here/fetch" qemu >/dev/null &&
	kernel=$("$here/fetch" kernel) || exit 1
cp -al "$cache/busybox" "$cache/qemu" "$cache/kernel" "$tmp/my cache/" || exit 1
export GPAMAP_CACHE="$tmp/my cache"

# run STATUS [ARG...]: run the machine; its stdout and stderr go to files.
run() {
	local expected=$1 status
	shift
	"$vm/run" "$@" >"$tmp/out" 2>"$tmp/err"
	status=$?
	[ $status -eq "$expected" ] ||
		complain "status $status instead of $expected of: run $*"
}

# told REGEXP: is it on stderr?
told() {
	grep -Eq -e "$1" "$tmp/err" || complain "not told on stderr: $1"
}

# says TEXT: is that all of stdout?
says() {
	[ "$(cat "$tmp/out"; echo .)" = "$1"$'\n.' ] ||
		complain "stdout is not: $1"
}

complain() {
	failed=1
	printf '# %s\n' "$*"
	sed 's/^/#   stderr: /' "$tmp/err"
	head -c 400 "$tmp/out" | tr -c '[:print:]\n' '?' | sed 's/^/#   stdout: /'
	echo
}

# -- cases -----------------------------------------------------------------

case_usage() {
	run 123
	told "no COMMAND"
	run 123 --module "$tmp/none.ko" -- true
	told "no such module file"
	run 123 --smp many -- true
	run 123 --env 1=2 -- true
	run 123 --add "$tmp/none" -- true
	run 123 --frobnicate -- true
	told "unknown option"
	run 123 --kernel 'no;such' -- true
	run 123 --modprobe 'loop x=1' -- true
	run 123 --klog "$tmp/none/log" -- true
	told "none/log: cannot be written"
	run 123 --gcov "$tmp/none/counts" -- true
	told "none/counts: cannot be written"
	run 0 --help
}

# 1 MiB of anything and every byte there is arrive as they are.
case_output() {
	{
		head -c 1048576 /dev/urandom
		printf '\r\n\r\n\n\004\003\032\000end'
	} >"$tmp/blob"
	# shellcheck disable=SC2016 # expanded in the machine
	run 3 --add "$tmp/blob" --env "V=x  y'z\$" --klog "$tmp/klog" -- \
		sh -c 'cat /test/blob; echo "$V" >&2; printf "<%s>" "$@" >&2; exit 3' \
		sh "a  b" "it's" '"q"' "\$HOME \`id\`" '' '\n' $'new\nline'
	cmp -s "$tmp/blob" "$tmp/out" || complain "the output is not what was sent"
	told "^x  y'z\\\$\$"
	told "^<a  b><it's><\"q\"><\\\$HOME \`id\`><><.n><new\$"
	told "^line>"
	grep -q "Linux version ${kernel##*/} " "$tmp/klog" ||
		complain "the kernel log is not one"
}

# Output comes while the command runs, and stdin is empty.
case_live() {
	local status
	"$vm/run" -- sh -c 'cat; echo first; sleep 4; echo second' 2>"$tmp/err" |
		while IFS= read -r line; do
			echo "$line $SECONDS"
		done >"$tmp/out"
	status=${PIPESTATUS[0]}
	[ "$status" -eq 0 ] || complain "status $status"
	awk '$1 == "first" { a = $2 } $1 == "second" { b = $2 }
	     END { exit !(NR == 2 && b - a >= 2) }' "$tmp/out" ||
		complain "the output did not come as it was made"
}

case_machine() {
	run 0 --add "$(command -v sha256sum)" --add "$vm/run:/usr/share/x/" --smp 1 \
		-- sh -c '
		ls /dev/kvm /sys/kernel/debug/kvm/mmu_cache_miss* >/dev/null
		mount | grep -q "debugfs on /sys/kernel/debug" && echo debugfs
		[ -c /dev/kvm ] && echo kvm; nproc; tty
		echo test | sha256sum; echo out >/dev/stdout
		wc -c </usr/share/x/run' 2>/dev/null
	says "debugfs
kvm
1
not a tty
$(echo test | sha256sum)
out
$(wc -c <"$vm/run")"
}

case_not_found() {
	run 127 -- no-such-command
	told "no-such-command"
}

case_splat() {
	run 120 -- sh -c 'echo fine; echo "WARNING: on purpose" >/dev/kmsg; exit 5'
	says fine
	told "WARNING: on purpose"
	told "ended with status 5"
}

case_known_splat() {
	printf '6.\tWARNING: known, number [0-9]+\n' >>"$vm/known-splats"
	run 7 -- sh -c 'echo "WARNING: known, number 12" >/dev/kmsg; exit 7'
	told "known splat, ignored: .*WARNING: known, number 12"
	run 120 -- sh -c 'echo "WARNING: known, number 12 and more" >/dev/kmsg'
	cp "$here/known-splats" "$vm/"
}

case_panic() {
	run 120 --klog "$tmp/klog" -- sh -c 'echo before; echo c >/proc/sysrq-trigger'
	says before
	told "the command did not end"
	grep -q "Kernel panic - not syncing: sysrq triggered" "$tmp/klog" ||
		complain "no panic in the kernel log"
}

case_death() {
	run 122 -- reboot -f
	told "the machine died"
}

case_timeout() {
	local start=$SECONDS
	run 124 --timeout 14 -- sh -c 'echo begun; sleep 1000'
	says begun
	told "timeout after 14 s"
	[ $((SECONDS - start)) -lt 25 ] || complain "timeout took too long"
}

case_own_status() {
	run 119 -- sh -c 'exit 121'
	told "status 121, reported as 119"
}

case_left_behind() {
	run 0 -- sh -c 'sleep 100 & echo done'
	says "done"
	told "sleep, left behind"
}

case_signal() {
	local pid status
	"$vm/run" -- sleep 1000 >"$tmp/out" 2>"$tmp/err" &
	pid=$!
	sleep 6
	ls "$TMPDIR"/* >/dev/null 2>&1 || complain "no temporary files to begin with"
	kill -TERM $pid
	wait $pid
	status=$?
	[ $status -eq 143 ] || complain "status $status instead of 143"
	[ -z "$(ls -A "$TMPDIR")" ] || complain "temporary files are left"
	! grep -qsF "$TMPDIR" /proc/[0-9]*/cmdline || complain "QEMU is left"
}

case_cache() {
	local base="$GPAMAP_CACHE/initramfs/${kernel##*/}"
	# The cache is looked after before the files to add: no boot is needed.
	local no_boot=(run 123 --add "$tmp/none" -- true)
	"${no_boot[@]}"
	mkdir "$base.new.xyz"
	printf x | dd of="$base/base.cpio" bs=1 seek=5000 conv=notrunc status=none
	"${no_boot[@]}"
	told "damaged, making it again"
	[ ! -e "$base.new.xyz" ] || complain "an interrupted build is still there"
	sed -i 's/^recipe .*/recipe 0/' "$base/stamp"
	"${no_boot[@]}"
	told "outdated, making it again"
	rm "$base/sums"
	run 0 -- true
	told "damaged, making it again"
	"${no_boot[@]}"
	! grep -q again "$tmp/err" || complain "made again for no reason"
}

case_module() {
	local krel=${kernel##*/} ko="$tmp/module/lab-probe.ko"
	local build=/usr/src/linux-headers-$krel

	if [ ! -d "$build" ] || ! command -v make gcc >/dev/null; then
		skip="no headers of $krel"
		return
	fi
	mkdir -p "$tmp/module"
	echo 'obj-m := lab-probe.o' >"$tmp/module/Makefile"
	cat >"$tmp/module/lab-probe.c" <<-'END'
		#include <linux/module.h>
		static int hold;
		module_param(hold, int, 0);
		static int fail;
		module_param(fail, int, 0);
		static int __init probe_init(void)
		{
			if (hold)
				__module_get(THIS_MODULE);
			return fail ? -EIO : 0;
		}
		static void __exit probe_exit(void)
		{
			pr_info("probe says goodbye\n");
		}
		module_init(probe_init);
		module_exit(probe_exit);
		MODULE_LICENSE("GPL");
	END
	make -C "$build" M="$tmp/module" modules >"$tmp/err" 2>&1 || {
		complain "the module does not build"
		return
	}
	run 4 --module "$ko" --module-args "hold=0 fail=0" --klog "$tmp/klog" -- \
		sh -c 'test -d /sys/module/lab_probe && exit 4'
	grep -q "probe says goodbye" "$tmp/klog" || complain "it was not removed"
	run 121 --module "$ko" --module-args hold=1 -- true
	told "rmmod refused to remove lab_probe"
	run 122 --module "$ko" --module-args fail=1 -- echo never
	told "lab-probe.ko could not be loaded"
}

# Every net of the debug kernel that a plain module can fall into.
case_debug() {
	local ko="$tmp/bad/bad.ko" way expected
	# In the cache itself: Kbuild takes no path with spaces.
	local dir="$cache/kernel/debug"

	if [ ! -d "$dir" ]; then
		skip="no debug kernel in the cache"
		return
	fi
	mkdir -p "$tmp/bad"
	echo 'obj-m := bad.o' >"$tmp/bad/Makefile"
	cat >"$tmp/bad/bad.c" <<-'END'
		#include <linux/delay.h>
		#include <linux/module.h>
		#include <linux/mutex.h>
		#include <linux/slab.h>
		static char *way = "";
		module_param(way, charp, 0);
		static void *kept;
		static DEFINE_MUTEX(one);
		static DEFINE_MUTEX(two);
		static int __init bad_init(void)
		{
			int n = 32;
			char *p;

			OPTIMIZER_HIDE_VAR(n);
			if (!strcmp(way, "leak") && !kmalloc(4321, GFP_KERNEL))
				return -ENOMEM;
			if (!strcmp(way, "kept"))
				kept = kmalloc(1234, GFP_KERNEL);
			if (!strcmp(way, "bounds")) {
				p = kmalloc(32, GFP_KERNEL);
				WRITE_ONCE(p[n], 1);
				kfree(p);
			}
			if (!strcmp(way, "shift"))
				pr_info("%d\n", 1 << n);
			if (!strcmp(way, "sleep")) {
				preempt_disable();
				msleep(1);
				preempt_enable();
			}
			if (!strcmp(way, "rcu"))
				rcu_dereference(kept);
			if (!strcmp(way, "order")) {
				mutex_lock(&one);
				mutex_lock(&two);
				mutex_unlock(&two);
				mutex_unlock(&one);
				mutex_lock(&two);
				mutex_lock(&one);
				mutex_unlock(&one);
				mutex_unlock(&two);
			}
			return 0;
		}
		static void __exit bad_exit(void)
		{
		}
		module_init(bad_init);
		module_exit(bad_exit);
		MODULE_LICENSE("GPL");
	END
	make -C "$dir/headers" M="$tmp/bad" modules >"$tmp/err" 2>&1 || {
		complain "the module does not build"
		return
	}
	run 0 --kernel debug --module "$ko" -- true
	while read -r way expected; do
		run 120 --kernel debug --module "$ko" --module-args "way=$way" -- true
		told "$expected"
	done <<-'END'
		leak    unreferenced object .*size 8192
		kept    unreferenced object .*size 2048
		bounds  BUG: KASAN: slab-out-of-bounds in bad_init
		shift   UBSAN: shift-out-of-bounds in
		sleep   BUG: (scheduling while atomic|sleeping function called)
		rcu     WARNING: suspicious RCU usage
		order   WARNING: possible circular locking dependency
	END
}

# A race between two threads of one module, and none where both say what they do.
case_kcsan() {
	local ko="$tmp/race/race.ko" dir="$cache/kernel/kcsan"

	if [ ! -d "$dir" ]; then
		skip="no such kernel in the cache"
		return
	fi
	mkdir -p "$tmp/race"
	echo 'obj-m := race.o' >"$tmp/race/Makefile"
	cat >"$tmp/race/race.c" <<-'END'
		#include <linux/kthread.h>
		#include <linux/module.h>
		static int plain;
		module_param(plain, int, 0);
		static int shared;
		static void count(void)
		{
			int i;

			for (i = 0; i < 20000; i++) {
				if (plain)
					shared++;
				else
					WRITE_ONCE(shared, READ_ONCE(shared) + 1);
				cpu_relax();
			}
		}
		static int other(void *unused)
		{
			while (!kthread_should_stop())
				count();
			return 0;
		}
		static int __init race_init(void)
		{
			struct task_struct *task = kthread_run(other, NULL, "race");

			if (IS_ERR(task))
				return PTR_ERR(task);
			count();
			kthread_stop(task);
			return 0;
		}
		static void __exit race_exit(void)
		{
		}
		module_init(race_init);
		module_exit(race_exit);
		MODULE_LICENSE("GPL");
	END
	make -C "$dir/headers" M="$tmp/race" modules >"$tmp/err" 2>&1 || {
		complain "the module does not build"
		return
	}
	run 0 --kernel kcsan --module "$ko" -- true
	run 120 --kernel kcsan --module "$ko" --module-args plain=1 -- true
	told "BUG: KCSAN: data-race in .*race"
}

case_modprobe() {
	run 0 --accel tcg --modprobe 'kvm-amd npt=0' -- \
		cat /sys/module/kvm_amd/parameters/npt
	says N
}

case_icount() {
	run 0 --icount -- sh -c "nproc; cut -d . -f 1 /proc/uptime"
	awk 'NR == 1 && $1 != 1 || NR == 2 && $1 < 30 { bad = 1 }
	     END { exit NR != 2 || bad }' "$tmp/out" ||
		complain "not one CPU that has rested"
	run 0 --icount --smp 2 -- nproc
	says 2
}

case_shell() {
	# shellcheck disable=SC2016 # expanded in the machine
	printf '\n\necho sum $((40 + 2)); exit 6\n' >"$tmp/keys"
	{ sleep 12; cat "$tmp/keys"; sleep 8; } |
		timeout 60 "$vm/run" --shell >"$tmp/out" 2>"$tmp/err"
	[ "${PIPESTATUS[1]}" -eq 6 ] || complain "status ${PIPESTATUS[1]} instead of 6"
	grep -q "sum 42" "$tmp/out" || complain "the shell did not answer"
}

# --------------------------------------------------------------------------

cases="usage output live machine not_found splat known_splat panic death timeout
own_status left_behind signal cache module debug kcsan modprobe icount shell"
[ $# -eq 0 ] || cases=$*
# shellcheck disable=SC2086 # one word each
set -- $cases

echo "KTAP version 1"
echo "1..$#"
number=0
failures=0
for name in "$@"; do
	number=$((number + 1))
	failed=
	skip=
	: >"$tmp/out"
	: >"$tmp/err"
	"case_$name"
	if [ -n "$failed" ]; then
		failures=$((failures + 1))
		echo "not ok $number $name"
	else
		echo "ok $number $name${skip:+ # SKIP $skip}"
	fi
done
[ $failures -eq 0 ]

// SPDX-License-Identifier: GPL-2.0
/*
 * make bench-commit, in the test machine: what changes of the map cost under running vCPUs,
 * against plain KVM doing the same in the same run. A line `NAME VALUE UNIT` for every figure,
 * the median of ROUNDS rounds.
 *
 *	commit.bar16.kvm	a BAR with a register page of 16 doorbells and memory behind it
 *				moves: 16 ioeventfds deassigned, one slot deleted, one created,
 *				16 ioeventfds assigned
 *	commit.bar16.gpamap	the same, one commit, which may move the slot
 *	ties.bells16.kvm	16 ioeventfds assigned, 16 deassigned
 *	ties.bells16.gpamap	16 doorbells tied by one batch, untied by another; left out
 *				where the module has no such operations
 *
 * There are two VMs, alike, one of them with a map. Only one runs at a time, so that neither
 * waits for the other's vCPUs; they take turns every few rounds, so that both have the same of
 * whatever else the machine does. A round begins when each vCPU has come forward since the last
 * one: one that is still outside of the guest need not be kept out of it.
 *
 * After each turn the guest itself says whether the BAR is where it should be.
 *
 * Status 0: all was measured; 2: something could not be done.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <linux/kvm.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "vcpu.h"

#define HERE 0x10000000ULL
#define THERE 0x20000000ULL
#define REGS_LEN TEST_PAGE
#define MEM_PAGES 16
#define MEM_LEN (MEM_PAGES * TEST_PAGE)
#define BAR_LEN (REGS_LEN + MEM_LEN)
#define BELL(_i) (0x100 + 4 * (_i))

#define NR_BELLS 16
#define BELL_LEN 4
#define NR_VCPUS 4
#define TURN 5				/* rounds */

enum { ROOT = 1, BAR, REGS, MEM };
#define SPACE 1
#define SLOT 0
#define NR_SLOTS 8

struct side {
	struct guest guest;
	struct vcpu vcpus[NR_VCPUS];
	int bells[NR_BELLS];		/* eventfds */
	u64 *mem;
	int map;			/* -1: plain KVM */
	u64 at;				/* where the BAR is */
	bool tied;			/* whether its doorbells are */
};

static void __attribute__((noreturn)) fail(const char *what, int err)
{
	fflush(stdout);
	fprintf(stderr, "commit_bench: %s: %s\n", what, strerror(err));
	exit(2);
}

static void check(const char *what, int rc)
{
	if (rc)
		fail(what, -rc);
}

static u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* -- what is measured ------------------------------------------------------ */

static void plain_bells(struct side *s, bool tied)
{
	u32 i;

	for (i = 0; i < NR_BELLS; i++) {
		struct kvm_ioeventfd io = {
			.addr = s->at + BELL(i),
			.len = BELL_LEN,
			.fd = s->bells[i],
			.flags = tied ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN,
		};

		check("ioeventfd", map_ioctl(s->guest.vm, KVM_IOEVENTFD, &io));
	}
}

static void plain_mem(struct side *s, bool there)
{
	check("slot", guest_set_slot(&s->guest, SLOT, 0, s->at + REGS_LEN,
				     there ? MEM_PAGES : 0, s->mem));
}

static void plain_move(struct side *s, u64 to)
{
	plain_bells(s, false);
	plain_mem(s, false);
	s->at = to;
	plain_mem(s, true);
	plain_bells(s, true);
}

static void map_move(struct side *s, u64 to)
{
	const struct gpamap_op op = op_at(BAR, to);
	struct gpamap_apply out;

	check("commit", _test_cmd_plan(s->map, 0, &op, 1, &out));
	if (out.out_deletes + out.out_moves != 1 || out.out_creates + out.out_moves != 1)
		fail("a commit that is not one slot less here and one more there", EPROTO);
	s->at = to;
}

static int try_map_bells(struct side *s, bool tied)
{
	struct gpamap_op ops[NR_BELLS] = { 0 };
	u32 i;

	for (i = 0; i < NR_BELLS; i++)
		ops[i] = (struct gpamap_op){
			.code = GPAMAP_OP_DOORBELL,
			.id = REGS,
			.flags = tied ? 0 : GPAMAP_DOORBELL_REMOVE,
			.len = BELL_LEN,
			.offset = BELL(i),
			.fd = s->bells[i],
		};
	return _test_cmd_apply(s->map, ops, NR_BELLS, NULL, NULL);
}

static void map_bells(struct side *s, bool tied)
{
	check("batch of doorbells", try_map_bells(s, tied));
}

/* Each vCPU has been in the guest. */
static void await_vcpus(const struct side *s)
{
	u32 i;

	for (i = 0; i < NR_VCPUS; i++)
		if (!vcpu_moves_on(&s->vcpus[i]))
			fail(vcpu_text(&s->vcpus[i]), EPROTO);
}

static u64 time_move(struct side *s)
{
	u64 since, to = s->at == HERE ? THERE : HERE;

	await_vcpus(s);
	since = now_ns();
	if (s->map < 0)
		plain_move(s, to);
	else
		map_move(s, to);
	return now_ns() - since;
}

static u64 time_bells(struct side *s, bool tied)
{
	u64 since;

	await_vcpus(s);
	since = now_ns();
	if (s->map < 0)
		plain_bells(s, tied);
	else
		map_bells(s, tied);
	s->tied = tied;
	return now_ns() - since;
}

static u64 time_ties(struct side *s)
{
	u64 first = time_bells(s, !s->tied);

	return first + time_bells(s, !s->tied);
}

/* -- the two VMs ----------------------------------------------------------- */

static void make_map(struct side *s)
{
	const struct gpamap_op ops[] = {
		op_container(ROOT, U64_MAX),
		op_container(BAR, BAR_LEN - 1),
		op_io(REGS, REGS_LEN - 1),
		op_ram(MEM, MEM_LEN - 1, s->mem),
		op_add(REGS, BAR, 0, 0),
		op_add(MEM, BAR, REGS_LEN, 0),
		op_add(BAR, ROOT, s->at, 0),
		op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT),
	};
	u32 i;

	s->map = map_open();
	check("map", s->map < 0 ? s->map : 0);
	check("regions", _test_cmd_apply(s->map, ops, ARRAY_SIZE(ops), NULL, NULL));
	for (i = 0; s->tied && i < NR_BELLS; i++) {
		struct gpamap_doorbell cmd = {
			.size = sizeof(cmd),
			.region = REGS,
			.len = BELL_LEN,
			.offset = BELL(i),
			.fd = s->bells[i],
		};

		check("doorbell", map_ioctl(s->map, GPAMAP_DOORBELL, &cmd));
	}
	check("attach", _test_cmd_attach(s->map, s->guest.vm, SLOT, NR_SLOTS));
}

static void side_begin(struct side *s, bool map, bool tied)
{
	u32 i;

	memset(s, 0, sizeof(*s));
	s->map = -1;
	s->at = HERE;
	s->tied = tied;
	check("VM", guest_create(&s->guest));
	vcpu_first(&s->vcpus[0], &s->guest);
	for (i = 1; i < NR_VCPUS; i++)
		check("vCPU", vcpu_add(&s->vcpus[i], &s->guest, i));
	for (i = 0; i < NR_BELLS; i++) {
		s->bells[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (s->bells[i] < 0)
			fail("eventfd", errno);
	}
	s->mem = mmap(NULL, MEM_LEN, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (s->mem == MAP_FAILED)
		fail("memory of the BAR", errno);
	if (map) {
		make_map(s);
		return;
	}
	plain_mem(s, true);
	if (tied)
		plain_bells(s, true);
}

static void side_end(struct side *s)
{
	u32 i;

	if (s->map >= 0)
		close(s->map);
	for (i = NR_VCPUS - 1; i > 0; i--)
		vcpu_destroy(&s->vcpus[i]);
	guest_destroy(&s->guest);
	for (i = 0; i < NR_BELLS; i++)
		close(s->bells[i]);
	munmap(s->mem, MEM_LEN);
}

static void expect_write(struct side *s, u64 gpa, u32 len, u64 value, enum guest_how how)
{
	if (guest_write(&s->guest, gpa, len, value).how != how)
		fail(how == GUEST_MMIO ? "a write was done that should leave" :
		     "a write left that should be done", EPROTO);
}

/* Of the BAR the guest finds all where it is, and nothing where it was. */
static void check_side(struct side *s)
{
	u64 n, elsewhere = s->at == HERE ? THERE : HERE;
	u32 i;

	for (i = 0; i < NR_BELLS; i++) {
		n = 0;
		expect_write(s, s->at + BELL(i), BELL_LEN, i,
			     s->tied ? GUEST_RAM : GUEST_MMIO);
		expect_write(s, elsewhere + BELL(i), BELL_LEN, i, GUEST_MMIO);
		if (read(s->bells[i], &n, sizeof(n)) < 0 && errno != EAGAIN)
			fail("eventfd", errno);
		if (n != s->tied)
			fail("a doorbell did not ring, or one that is not there did", EPROTO);
	}
	n = *s->mem + 1;
	expect_write(s, s->at + REGS_LEN, 8, n, GUEST_RAM);
	expect_write(s, elsewhere + REGS_LEN, 8, n + 1, GUEST_MMIO);
	if (*s->mem != n)
		fail("a write that is not in the memory of the BAR", EPROTO);
}

/* -- rounds ---------------------------------------------------------------- */

/*
 * Where there is a CPU for each, the VMM has the first and the vCPUs have those behind it.
 * SRCU's callbacks run on the first: on another the VMM would wait for emulated CPUs to take
 * turns, and plain KVM seem four times as slow.
 */
static void pin(pthread_t thread, u32 cpu)
{
	cpu_set_t cpus;

	if (sysconf(_SC_NPROCESSORS_ONLN) <= NR_VCPUS)
		return;
	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	check("affinity", -pthread_setaffinity_np(thread, sizeof(cpus), &cpus));
}

static void turn(struct side *s, u64 (*time_round)(struct side *s), u64 *times, u32 n)
{
	u32 i;

	for (i = 0; i < NR_VCPUS; i++) {
		check("start of a vCPU", vcpu_count(&s->vcpus[i]));
		pin(s->vcpus[i].thread, 1 + i);
	}
	for (i = 0; i < n; i++)
		times[i] = time_round(s);
	for (i = 0; i < NR_VCPUS; i++)
		if (vcpu_stop(&s->vcpus[i]))
			fail(vcpu_text(&s->vcpus[i]), EPROTO);
	check_side(s);
}

static int compare(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

static void print_median(const char *name, const char *whose, u64 *times, u32 n)
{
	qsort(times, n, sizeof(*times), compare);
	printf("%s.%s %.1f us\n", name, whose, times[n / 2] / 1000.0);
}

static void measure(const char *name, struct side *kvm, struct side *gpamap,
		    u64 (*time_round)(struct side *s), u32 rounds)
{
	u64 *times = calloc(2 * rounds, sizeof(*times));
	u32 i, n;

	if (!times)
		fail("memory", ENOMEM);
	for (i = 0; i < rounds; i += n) {
		n = rounds - i < TURN ? rounds - i : TURN;
		turn(kvm, time_round, times + i, n);
		turn(gpamap, time_round, times + rounds + i, n);
	}
	print_median(name, "kvm", times, rounds);
	print_median(name, "gpamap", times + rounds, rounds);
	free(times);
}

static void bench_commit(u32 rounds)
{
	struct side kvm, gpamap;

	side_begin(&kvm, false, true);
	side_begin(&gpamap, true, true);
	measure("commit.bar16", &kvm, &gpamap, time_move, rounds);
	side_end(&gpamap);
	side_end(&kvm);
}

static void bench_ties(u32 rounds)
{
	struct side kvm, gpamap;
	int rc;

	side_begin(&kvm, false, false);
	side_begin(&gpamap, true, false);
	rc = try_map_bells(&gpamap, true);
	/* Members that it does not know are the first thing that an older module sees. */
	if (rc == -EOPNOTSUPP || rc == -E2BIG) {
		fprintf(stderr, "commit_bench: ties.bells16 left out: %s\n", strerror(-rc));
	} else {
		check("batch of doorbells", rc);
		gpamap.tied = true;
		check_side(&gpamap);
		map_bells(&gpamap, false);
		gpamap.tied = false;
		measure("ties.bells16", &kvm, &gpamap, time_ties, rounds);
	}
	side_end(&gpamap);
	side_end(&kvm);
}

int main(void)
{
	u32 rounds = env_number("ROUNDS", 40);

	if (!rounds || rounds > 1000000)
		fail("ROUNDS", EINVAL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	pin(pthread_self(), 0);
	bench_commit(rounds);
	bench_ties(rounds);
	return 0;
}

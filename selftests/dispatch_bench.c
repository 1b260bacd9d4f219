// SPDX-License-Identifier: GPL-2.0
/*
 * make bench-dispatch, in the test machine: what one access of a guest's to an I/O region
 * costs, by who answers it, among how many. A line `NAME VALUE UNIT` for every figure.
 *
 *	exit.write.N, exit.read.N	the VMM: out of KVM_RUN and back in; N regions on
 *					the map, KVM's bus empty
 *	ioeventfd.N			KVM's ioeventfd, one of N
 *	coalesced.N			KVM's coalesced zones, one of N
 *	touching.N			our doorbell, in one of N regions that touch: one
 *					range of the bus
 *	spread.N			the same, each write in another region than the one
 *					before it; from 100 regions on
 *	separate.N			our doorbell, in one of N regions that do not: N
 *					ranges
 *	register.read.N, register.write.N	our registers, in one of N regions that touch
 *	told.write.N			the VMM, which asks the record of the exit what it is for
 *	lookup.write.N			the VMM, which asks GPAMAP_LOOKUP
 *	handler.read.N, handler.write.N	a handler of another module that does nothing else, in
 *					one of N regions that touch
 *	exit.in, pm_timer.in		a port: the VMM, and the sample module's PM timer
 *	posted.N			our ring, with one of N regions that touch; a group of
 *					all, drained between the loops
 *
 * The machine runs with one instruction a nanosecond (run --icount), so time is a count
 * of instructions, of the guest too. Each row has a VM of its own. The guest accesses a
 * place in a loop; the time of few rounds is subtracted from that of many. It is done
 * several times: the first is dropped, and of the others the median is taken, since a tick
 * of the timer falls into some. Of five places, from the first region to the last, it is
 * the mean.
 *
 * Status 0: all was measured; 2: something could not be done.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <gpamap.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "gpamap_util.h"
#include "guest_io.h"

#define BASE 0x10000000ULL
#define LEN TEST_PAGE
#define BELL 0x50		/* as virtio-mmio's */
#define ROOT 1
#define SPACE 1
#define FIRST 100
#define PM_TIMER 0x608
#define RING 1
#define RING_ENTRIES 128		/* more than MANY: a page */
#define RING_LEN (2 * TEST_PAGE)

#define PAGE_SIZE TEST_PAGE	/* that KVM_COALESCED_MMIO_MAX needs */
#define FEW 1
#define MANY 81			/* KVM takes a coalesced ring of 170 for full after 85 */
#define TIMES 7
#define PLACES 5

static void __attribute__((noreturn)) fail(const char *what, int err)
{
	fflush(stdout);
	fprintf(stderr, "dispatch_bench: %s: %s\n", what, strerror(err));
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

struct bench {
	struct guest guest;
	void *io;			/* of the guest */
	int map;
	int bell;
	u64 stride;			/* of GUEST_LOOP_SPREAD */
	struct kvm_coalesced_mmio_ring *ring;
	struct gpamap_ring_header *posted;
	bool exits;			/* whether an access is to leave */
	bool silent;			/* whether it is done and nobody told */
	struct gpamap *handle;		/* whether the VMM asks what an exit is for */
	struct gpamap_exits *records;	/* and is told */
};

/* What a VMM does first. */
static void ask(struct bench *b)
{
	u64 gpa = b->guest.run->mmio.phys_addr;
	struct gpamap_lookup found;

	if (!b->handle)
		return;
	check("what the exit is for",
	      b->records ? gpamap_exit_resolve(b->handle, gpamap_exits_at(b->records, 0), SPACE,
					       gpa, &found) :
			   gpamap_lookup(b->handle, SPACE, gpa, &found));
	if (found.out_offset != BELL)
		fail("an exit for something else", EPROTO);
}

/* The time of @count accesses from @gpa on, each done by whom it is to be done by. */
static u64 time_accesses(struct bench *b, enum guest_loop loop, u64 gpa, u32 count)
{
	int rc, reason = loop == GUEST_LOOP_IN ? KVM_EXIT_IO : KVM_EXIT_MMIO;
	u32 exits = 0;
	u64 since;

	check("registers", guest_loop(&b->guest, 0, loop, gpa, count, b->stride));
	since = now_ns();
	while ((rc = guest_io_run(&b->guest)) == reason) {
		exits++;
		ask(b);
	}
	since = now_ns() - since;
	if (rc != KVM_EXIT_HLT || exits != (b->exits ? count : 0))
		fail("an exit that was not expected", EPROTO);
	return since;
}

static void drain(struct bench *b, u32 count)
{
	u64 n = 0;

	if (b->ring) {
		if ((b->ring->last + KVM_COALESCED_MMIO_MAX - b->ring->first) %
		    KVM_COALESCED_MMIO_MAX != count)
			fail("not all writes are in the coalesced ring", EPROTO);
		b->ring->first = b->ring->last;
	} else if (b->posted) {
		if (b->posted->head - b->posted->tail != count)
			fail("not all writes are in the ring", EPROTO);
		b->posted->tail = b->posted->head;
	} else if (!b->exits && !b->silent &&
		   (read(b->bell, &n, sizeof(n)) != sizeof(n) || n != count)) {
		fail("not all writes have rung", EPROTO);
	}
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Of one access at @gpa. */
static double measure(struct bench *b, enum guest_loop loop, u64 gpa)
{
	double cost[TIMES];
	u64 few, many;
	u32 i;

	for (i = 0; i < TIMES; i++) {
		few = time_accesses(b, loop, gpa, FEW);
		drain(b, FEW);
		many = time_accesses(b, loop, gpa, MANY);
		drain(b, MANY);
		cost[i] = ((double)many - few) / (MANY - FEW);
	}
	qsort(cost + 1, TIMES - 1, sizeof(*cost), compare);
	return cost[TIMES / 2];
}

/* @stride: from one region to the next. */
static void row(struct bench *b, const char *name, enum guest_loop loop, u32 nr,
		u64 stride)
{
	double sum = 0;
	u32 i;

	for (i = 0; i < PLACES; i++)
		sum += measure(b, loop,
			       BASE + (u64)(nr - 1) * i / (PLACES - 1) * stride + BELL);
	printf("%s.%u %.1f instructions\n", name, nr, sum / PLACES);
}

static void bench_begin(struct bench *b)
{
	memset(b, 0, sizeof(*b));
	b->map = -1;
	check("VM", guest_create(&b->guest));
	b->io = guest_io_create(&b->guest);
	if (!b->io)
		fail("memory of the guest", ENOMEM);
	b->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (b->bell < 0)
		fail("eventfd", errno);
}

static void bench_end(struct bench *b)
{
	if (b->map >= 0)
		close(b->map);
	guest_destroy(&b->guest);
	munmap(b->io, GUEST_IO_LEN);
	close(b->bell);
}

/* An attached map of @nr regions. */
static void make_map(struct bench *b, u32 nr, u64 stride, bool bells)
{
	struct gpamap_op *ops = calloc(2 * nr + 2, sizeof(*ops));
	u32 i, n = 0;

	if (!ops)
		fail("memory", ENOMEM);
	ops[n++] = op_container(ROOT, U64_MAX);
	for (i = 0; i < nr; i++) {
		ops[n++] = op_io(FIRST + i, LEN - 1);
		ops[n++] = op_add(FIRST + i, ROOT, BASE + i * stride, 0);
	}
	b->map = map_open();
	check("map", b->map < 0 ? b->map : 0);
	check("regions", _test_cmd_apply(b->map, ops, n, NULL, NULL));
	for (i = 0; bells && i < nr; i++) {
		struct gpamap_doorbell cmd = {
			.size = sizeof(cmd),
			.region = FIRST + i,
			.len = 8,
			.offset = BELL,
			.fd = b->bell,
		};

		check("doorbell", map_ioctl(b->map, GPAMAP_DOORBELL, &cmd));
	}
	ops[0] = op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT);
	check("space", _test_cmd_apply(b->map, ops, 1, NULL, NULL));
	check("attach", _test_cmd_attach(b->map, b->guest.vm, 0, 8));
	free(ops);
}

static void bench_exit(u32 nr)
{
	struct bench b;

	bench_begin(&b);
	make_map(&b, nr, LEN, false);
	b.exits = true;
	row(&b, "exit.write", GUEST_LOOP_WRITE, nr, LEN);
	row(&b, "exit.read", GUEST_LOOP_READ, nr, LEN);
	bench_end(&b);
}

static void bench_ioeventfd(u32 nr)
{
	struct bench b;
	u32 i;

	bench_begin(&b);
	for (i = 0; i < nr; i++) {
		struct kvm_ioeventfd io = {
			.addr = BASE + i * LEN + BELL,
			.len = 8,
			.fd = b.bell,
		};

		check("ioeventfd", map_ioctl(b.guest.vm, KVM_IOEVENTFD, &io));
	}
	row(&b, "ioeventfd", GUEST_LOOP_WRITE, nr, LEN);
	bench_end(&b);
}

static void bench_coalesced(u32 nr)
{
	struct bench b;
	u32 i;
	int page;

	bench_begin(&b);
	page = ioctl(b.guest.kvm, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);
	if (page <= 0)
		fail("no coalesced MMIO", EOPNOTSUPP);
	b.ring = (void *)((char *)b.guest.run + page * TEST_PAGE);
	for (i = 0; i < nr; i++) {
		struct kvm_coalesced_mmio_zone zone = {
			.addr = BASE + i * LEN,
			.size = LEN,
		};

		check("coalesced zone",
		      map_ioctl(b.guest.vm, KVM_REGISTER_COALESCED_MMIO, &zone));
	}
	row(&b, "coalesced", GUEST_LOOP_WRITE, nr, LEN);
	bench_end(&b);
}

static void bench_doorbell(const char *name, u32 nr, u64 stride)
{
	struct bench b;

	bench_begin(&b);
	make_map(&b, nr, stride, true);
	row(&b, name, GUEST_LOOP_WRITE, nr, stride);
	bench_end(&b);
}

static void bench_spread(u32 nr)
{
	struct bench b;

	if (nr < MANY)
		return;
	bench_begin(&b);
	make_map(&b, nr, LEN, true);
	b.stride = nr / MANY * LEN;
	printf("spread.%u %.1f instructions\n", nr,
	       measure(&b, GUEST_LOOP_SPREAD, BASE + BELL));
	bench_end(&b);
}

/* Registers of as many regions, that touch each other. */
static void bench_registers(u32 nr)
{
	const struct gpamap_register reg = { BELL, 8, GPAMAP_REGISTER_READWRITE, 0 };
	struct bench b;
	u32 i;

	bench_begin(&b);
	make_map(&b, nr, LEN, false);
	for (i = 0; i < nr; i++) {
		struct gpamap_registers cmd = {
			.size = sizeof(cmd),
			.region = FIRST + i,
			.nr = 1,
			.register_size = sizeof(reg),
			.registers = (uintptr_t)&reg,
		};

		check("registers", map_ioctl(b.map, GPAMAP_REGISTERS, &cmd));
	}
	b.silent = true;
	row(&b, "register.read", GUEST_LOOP_READ, nr, LEN);
	row(&b, "register.write", GUEST_LOOP_WRITE, nr, LEN);
	bench_end(&b);
}

static void bench_told(u32 nr, bool told)
{
	struct bench b;
	u32 i;

	bench_begin(&b);
	make_map(&b, nr, LEN, false);
	check("handle", gpamap_from_fd(b.map, &b.handle));
	for (i = 0; told && i < nr; i++)
		check("policy", gpamap_policy_set(b.handle, FIRST + i, GPAMAP_POLICY_TELL));
	if (told)
		check("records", gpamap_exits_map(b.handle, 1, &b.records));
	b.exits = true;
	row(&b, told ? "told.write" : "lookup.write", GUEST_LOOP_WRITE, nr, LEN);
	if (told)
		gpamap_exits_unmap(b.records);
	gpamap_close(b.handle);
	b.map = -1;
	bench_end(&b);
}

/* As many instances of a handler. */
static void bench_handler(u32 nr)
{
	struct gpamap *handle;
	struct bench b;
	u32 i;

	bench_begin(&b);
	make_map(&b, nr, LEN, false);
	check("handle", gpamap_from_fd(b.map, &handle));
	for (i = 0; i < nr; i++)
		check("handler", gpamap_handler_set(handle, FIRST + i, "test-quiet", 0));
	b.silent = true;
	row(&b, "handler.read", GUEST_LOOP_READ, nr, LEN);
	row(&b, "handler.write", GUEST_LOOP_WRITE, nr, LEN);
	gpamap_close(handle);
	b.map = -1;
	bench_end(&b);
}

static void bench_port(const char *name, bool timer)
{
	const struct gpamap_op ops[] = {
		op_container(ROOT, 0xffff),
		op_io(FIRST, 3),
		op_add(FIRST, ROOT, PM_TIMER, 0),
		op_space(SPACE, GPAMAP_SPACE_IO, ROOT),
	};
	struct gpamap *handle;
	struct bench b;

	bench_begin(&b);
	check("map", gpamap_open(&handle));
	check("ports", _test_cmd_apply(gpamap_fd(handle), ops, ARRAY_SIZE(ops), NULL, NULL));
	check("attach", _test_cmd_attach(gpamap_fd(handle), b.guest.vm, 0, 8));
	if (timer)
		check("PM timer", gpamap_handler_set(handle, FIRST, "acpi-pm-timer", 1));
	b.exits = !timer;
	b.silent = timer;
	printf("%s %.1f instructions\n", name, measure(&b, GUEST_LOOP_IN, PM_TIMER));
	gpamap_close(handle);
	bench_end(&b);
}

/* Writes of as many regions, that touch each other, to one ring. */
static void bench_posted(u32 nr)
{
	struct gpamap_ring ring = {
		.size = sizeof(ring),
		.id = RING,
		.nr_entries = RING_ENTRIES,
		.watermark = RING_ENTRIES,
	};
	struct bench b;
	u32 i;

	bench_begin(&b);
	make_map(&b, nr, LEN, false);
	ring.fd = b.bell;
	check("ring", map_ioctl(b.map, GPAMAP_RING, &ring));
	for (i = 0; i < nr; i++) {
		struct gpamap_post cmd = {
			.size = sizeof(cmd),
			.region = FIRST + i,
			.ring = RING,
		};

		check("post", map_ioctl(b.map, GPAMAP_POST, &cmd));
	}
	b.posted = mmap(NULL, RING_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, b.map,
			(GPAMAP_RING_PGOFF | RING) * TEST_PAGE);
	if (b.posted == MAP_FAILED)
		fail("mapping of the ring", errno);
	row(&b, "posted", GUEST_LOOP_WRITE, nr, LEN);
	munmap(b.posted, RING_LEN);
	bench_end(&b);
}

int main(void)
{
	static const u32 numbers[] = { 1, 10, 100, GPAMAP_MAX_BUS_RANGES, 1000 };
	u32 i;

	for (i = 0; i < ARRAY_SIZE(numbers); i++) {
		u32 nr = numbers[i];

		bench_exit(nr);
		bench_ioeventfd(nr);
		bench_coalesced(nr);
		bench_doorbell("touching", nr, LEN);
		bench_spread(nr);
		if (nr <= GPAMAP_MAX_BUS_RANGES)
			bench_doorbell("separate", nr, 2 * LEN);
		bench_registers(nr);
		bench_told(nr, true);
		bench_told(nr, false);
		bench_handler(nr);
		bench_posted(nr);
	}
	bench_port("exit.in", false);
	bench_port("pm_timer.in", true);
	return 0;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * What becomes of accesses that nothing in the kernel answers: the policy of their region,
 * the record that tells the VMM what an exit is for, and the counters.
 */
#include "harness.h"
#include <gpamap.h>
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "answers.h"
#include "gpamap_util.h"
#include "guest_io.h"
#include "leaks.h"
#include "vcpu.h"

#define PAGE TEST_PAGE
#define PER_PAGE (PAGE / sizeof(struct gpamap_exit))

#define ROOT 1
#define DEV 2			/* io, two pages, at A */
#define PORTS 4
#define PDEV 5			/* io, 16 ports, at PORT */
#define MEM 6			/* ram, two pages, at M */
#define HOLE 7			/* reserved, one page, at R */
#define ROM 8			/* rom, one page, at M + 2 pages */
#define ROMD 9			/* romd, one page, at M + 3 pages */
#define ALIAS 10
#define SPACE 1
#define IO_SPACE 2

#define A 0x10000000ULL
#define B 0x50000800ULL
#define M 0x20000000ULL
#define R 0x30000000ULL
#define PORT 0x500

FIXTURE(exits) {
	struct gpamap *map;
	int fd;
	struct guest guest;
	void *io;			/* of the guest */
	char *mem;
	struct gpamap_exits *exits;
	struct gpamap_exit *exit;	/* of the one vCPU */
};

FIXTURE_SETUP(exits)
{
	ASSERT_EQ(0, guest_create(&self->guest));
	self->io = guest_io_create(&self->guest);
	ASSERT_NE(NULL, self->io);
	self->mem = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			 -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->mem);
	ASSERT_EQ(0, gpamap_open(&self->map));
	self->fd = gpamap_fd(self->map);
	test_cmd_apply(self->fd, op_container(ROOT, U64_MAX), op_io(DEV, 2 * PAGE - 1),
		       op_container(PORTS, 0xffff), op_io(PDEV, 15),
		       op_ram(MEM, 2 * PAGE - 1, self->mem), op_reserved(HOLE, PAGE - 1),
		       op_rom(ROM, PAGE - 1, self->mem + 2 * PAGE),
		       op_flags(op_romd(ROMD, PAGE - 1, self->mem + 3 * PAGE),
				GPAMAP_REGION_ROMD_MODE),
		       op_add(DEV, ROOT, A, 0), op_add(PDEV, PORTS, PORT, 0),
		       op_add(MEM, ROOT, M, 0), op_add(HOLE, ROOT, R, 0),
		       op_add(ROM, ROOT, M + 2 * PAGE, 0), op_add(ROMD, ROOT, M + 3 * PAGE, 0),
		       op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT),
		       op_space(IO_SPACE, GPAMAP_SPACE_IO, PORTS));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	ASSERT_EQ(0, gpamap_exits_map(self->map, 1, &self->exits));
	self->exit = gpamap_exits_at(self->exits, 0);
}

FIXTURE_TEARDOWN(exits)
{
	gpamap_exits_unmap(self->exits);
	gpamap_close(self->map);
	guest_destroy(&self->guest);
	munmap(self->io, GUEST_IO_LEN);
	munmap(self->mem, 4 * PAGE);
	EXPECT_NO_MAP_LEFT();
}

#define apply(...) test_cmd_apply(self->fd, __VA_ARGS__)
#define set_policy(_region, _policy)						\
	ASSERT_EQ(0, gpamap_policy_set(self->map, _region, _policy))

/* The record of the vCPU says that, and is used up by asking. */
#define EXPECT_RECORD(_space, _addr, _region, _offset)				\
	do {									\
		struct gpamap_exit __e = *self->exit;				\
		struct gpamap_lookup __l;					\
		EXPECT_EQ((u32)(_region), __e.region);				\
		EXPECT_EQ((u32)(_space), __e.space);				\
		EXPECT_EQ((u64)(_addr), __e.addr);				\
		EXPECT_EQ((u64)(_offset), __e.offset);				\
		EXPECT_EQ(0u, __e.__reserved);					\
		EXPECT_EQ(0, gpamap_exit_resolve(self->map, self->exit, _space, \
						 _addr, &__l));			\
		EXPECT_EQ((u32)(_region), __l.out_region);			\
		EXPECT_EQ((u64)(_offset), __l.out_offset);			\
		EXPECT_EQ(__e.generation, __l.out_generation);			\
		EXPECT_EQ(0u, self->exit->region);				\
	} while (0)
#define EXPECT_NO_RECORD() EXPECT_EQ(0u, self->exit->region)

/* -- records --------------------------------------------------------------- */

TEST_F(exits, told)
{
	struct gpamap_exit want;
	struct gpamap_lookup lookup;

	/* Nobody has asked for it. */
	EXPECT_LEAVES(guest_read(&self->guest, A + 0x18, 8));
	EXPECT_NO_RECORD();
	set_policy(DEV, GPAMAP_POLICY_TELL);
	EXPECT_LEAVES(guest_read(&self->guest, A + 0x18, 8));
	ASSERT_EQ(0, gpamap_lookup(self->map, SPACE, A + 0x18, &lookup));
	want = (struct gpamap_exit){
		.addr = A + 0x18,
		.offset = 0x18,
		.last = A + 2 * PAGE - 1,
		.generation = lookup.out_generation,
		.space = SPACE,
		.region = DEV,
		.kind = GPAMAP_REGION_IO,
	};
	EXPECT_EQ(0, memcmp(&want, self->exit, sizeof(want)));
	EXPECT_RECORD(SPACE, A + 0x18, DEV, 0x18);
	EXPECT_LEAVES(guest_write(&self->guest, A + PAGE + 3, 1, 1));
	EXPECT_RECORD(SPACE, A + PAGE + 3, DEV, PAGE + 3);
	/* Ports. */
	set_policy(PDEV, GPAMAP_POLICY_TELL);
	EXPECT_LEAVES(guest_out(&self->guest, PORT + 5, 1, 1));
	EXPECT_RECORD(IO_SPACE, PORT + 5, PDEV, 5);
	EXPECT_LEAVES(guest_in(&self->guest, PORT + 4, 4));
	EXPECT_RECORD(IO_SPACE, PORT + 4, PDEV, 4);
	/* No longer. */
	set_policy(DEV, GPAMAP_POLICY_NONE);
	EXPECT_LEAVES(guest_read(&self->guest, A, 8));
	EXPECT_NO_RECORD();
}

/* What else is tied to a region makes its exits told, too. */
TEST_F(exits, told_with_doorbells)
{
	int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	ASSERT_LE(0, bell);
	ASSERT_EQ(0, gpamap_doorbell_add(self->map, DEV, 0x10, 4, bell));
	EXPECT_DONE(guest_write(&self->guest, A + 0x10, 4, 1));
	EXPECT_NO_RECORD();
	EXPECT_LEAVES(guest_write(&self->guest, A + 0x10, 2, 1));
	EXPECT_RECORD(SPACE, A + 0x10, DEV, 0x10);
	close(bell);
}

/* Writes to what cannot be written, and reads of what is no memory now. */
TEST_F(exits, roms)
{
	set_policy(ROM, GPAMAP_POLICY_TELL);
	set_policy(ROMD, GPAMAP_POLICY_TELL);
	self->mem[2 * PAGE] = 7;
	EXPECT_READ(M + 2 * PAGE, 1, 7);
	EXPECT_NO_RECORD();
	EXPECT_LEAVES(guest_write(&self->guest, M + 2 * PAGE + 8, 8, 1));
	EXPECT_EQ((u64)(uintptr_t)self->mem + 2 * PAGE + 8, self->exit->hva);
	EXPECT_EQ((u32)GPAMAP_REGION_ROM, self->exit->kind);
	EXPECT_RECORD(SPACE, M + 2 * PAGE + 8, ROM, 8);
	EXPECT_LEAVES(guest_write(&self->guest, M + 3 * PAGE + 8, 8, 1));
	EXPECT_EQ((u32)GPAMAP_REGION_ROMD_MODE, self->exit->region_flags);
	EXPECT_RECORD(SPACE, M + 3 * PAGE + 8, ROMD, 8);
	apply(op_romd_mode(ROMD, false));
	EXPECT_LEAVES(guest_read(&self->guest, M + 3 * PAGE + 8, 8));
	EXPECT_EQ(0u, self->exit->region_flags);
	EXPECT_RECORD(SPACE, M + 3 * PAGE + 8, ROMD, 8);
	/* RAM seen through an alias that cannot be written. */
	set_policy(MEM, GPAMAP_POLICY_TELL);
	apply(op_flags(op_alias(ALIAS, MEM, PAGE, PAGE - 1), GPAMAP_REGION_READONLY),
	      op_add(ALIAS, ROOT, A + 8 * PAGE, 0));
	EXPECT_DONE(guest_write(&self->guest, M + PAGE, 8, 1));
	EXPECT_NO_RECORD();
	EXPECT_LEAVES(guest_write(&self->guest, A + 8 * PAGE + 16, 8, 1));
	EXPECT_EQ((u32)GPAMAP_REGION_READONLY, self->exit->region_flags);
	EXPECT_RECORD(SPACE, A + 8 * PAGE + 16, MEM, PAGE + 16);
}

/* The answer is of the map in which the access was made. */
TEST_F(exits, of_the_map_before)
{
	struct gpamap_lookup found;

	set_policy(DEV, GPAMAP_POLICY_TELL);
	EXPECT_LEAVES(guest_write(&self->guest, A + 8, 8, 1));
	apply(op_at(DEV, B));
	EXPECT_RECORD(SPACE, A + 8, DEV, 8);
	/* Without a record it is of the map of now. */
	EXPECT_EQ(-ENOENT, gpamap_exit_resolve(self->map, self->exit, SPACE, A + 8, &found));
	EXPECT_LEAVES(guest_write(&self->guest, B + 8, 8, 1));
	/* Of another exit, and of another space. */
	EXPECT_EQ(0, gpamap_exit_resolve(self->map, self->exit, SPACE, M + 2 * PAGE, &found));
	EXPECT_EQ((u32)ROM, found.out_region);
	EXPECT_NO_RECORD();
	EXPECT_LEAVES(guest_write(&self->guest, B + 8, 8, 1));
	EXPECT_EQ(-ENOENT,
		  gpamap_exit_resolve(self->map, self->exit, IO_SPACE, B + 8, &found));
	EXPECT_NO_RECORD();
}

/* Each vCPU has its own, however high its id. */
TEST_F(exits, vcpus)
{
	struct gpamap_exit *first, *last;
	struct gpamap_exits *exits;
	struct guest other;
	u32 id = 2 * PER_PAGE + 5;

	set_policy(DEV, GPAMAP_POLICY_TELL);
	ASSERT_EQ(0, guest_add_vcpu(&other, &self->guest, id));
	/* Not mapped yet by anybody. */
	EXPECT_LEAVES(guest_write(&other, A + 8, 8, 1));
	ASSERT_EQ(0, gpamap_exits_map(self->map, id + 1, &exits));
	first = gpamap_exits_at(exits, 0);
	last = gpamap_exits_at(exits, id);
	EXPECT_EQ(NULL, gpamap_exits_at(exits, id + 1));
	EXPECT_EQ(NULL, gpamap_exits_at(exits, ~0U));
	EXPECT_EQ(0u, last->region);
	EXPECT_LEAVES(guest_write(&other, A + 8, 8, 1));
	EXPECT_EQ((u32)DEV, last->region);
	EXPECT_EQ((u64)A + 8, last->addr);
	EXPECT_NO_RECORD();
	EXPECT_LEAVES(guest_write(&self->guest, A + 0x20, 8, 1));
	EXPECT_EQ((u64)A + 8, last->addr);
	/* One page is the same wherever it is mapped. */
	EXPECT_EQ((u64)A + 0x20, first->addr);
	EXPECT_RECORD(SPACE, A + 0x20, DEV, 0x20);
	EXPECT_EQ(0u, first->region);
	gpamap_exits_unmap(exits);
	guest_destroy(&other);
}

/*
 * An access over the border of two pages leaves in two exits, and KVM asks for both before
 * the first: its record is gone, and looked up.
 */
TEST_F(exits, over_a_page)
{
	struct kvm_run *run = self->guest.run;
	struct gpamap_lookup found;
	u32 i;

	set_policy(DEV, GPAMAP_POLICY_TELL);
	ASSERT_EQ(0, guest_loop(&self->guest, 0, GUEST_LOOP_WRITE, A + PAGE - 4, 1, 1));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(KVM_EXIT_MMIO, guest_io_run(&self->guest));
		EXPECT_EQ((u64)A + PAGE - (i ? 0 : 4), run->mmio.phys_addr);
		EXPECT_EQ(0, gpamap_exit_resolve(self->map, self->exit, SPACE,
						 run->mmio.phys_addr, &found));
		EXPECT_EQ((u32)DEV, found.out_region);
		EXPECT_EQ(run->mmio.phys_addr - A, found.out_offset);
	}
	EXPECT_EQ(KVM_EXIT_HLT, guest_io_run(&self->guest));
}

TEST_F(exits, mmap_arguments)
{
	struct gpamap_exits *exits;
	void *p;

	EXPECT_EQ(-EINVAL, gpamap_exits_map(self->map, 0, &exits));
	EXPECT_EQ(-EINVAL, gpamap_exits_map(self->map,
					    GPAMAP_MAX_EXIT_PAGES * PER_PAGE + 1, &exits));
	ASSERT_EQ(0, gpamap_exits_map(self->map, GPAMAP_MAX_EXIT_PAGES * PER_PAGE, &exits));
	gpamap_exits_unmap(exits);
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, self->fd, 0);
	EXPECT_EQ(MAP_FAILED, p);
	EXPECT_EQ(EINVAL, errno);
}

/* The mapping holds the map, and works on. */
TEST_F(exits, outlives_the_descriptor)
{
	struct gpamap_exits *exits;
	struct gpamap_exit *exit;
	struct gpamap *map;

	ASSERT_EQ(0, gpamap_open(&map));
	ASSERT_EQ(0, gpamap_exits_map(map, 1, &exits));
	gpamap_close(map);
	exit = gpamap_exits_at(exits, 0);
	exit->region = 1;
	EXPECT_EQ(1u, exit->region);
	gpamap_exits_unmap(exits);
}

static void count_entry(void *arg, const struct gpamap_ring_entry *entry)
{
	u64 *sum = arg;

	*sum += entry->value;
}

/* Rule 45: what was posted is done before the VMM knows what the exit is for. */
TEST_F(exits, rule_45_drained_first)
{
	int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct gpamap_ring_reader *ring;
	u64 sum = 0;

	ASSERT_LE(0, bell);
	ASSERT_EQ(0, gpamap_ring_open(self->map, 1, 16, 16, 0, bell, count_entry, &sum, &ring));
	ASSERT_EQ(0, gpamap_post_add(self->map, DEV, 1));
	EXPECT_DONE(guest_write(&self->guest, A + 0x80, 4, 5));
	EXPECT_DONE(guest_write(&self->guest, A + 0x84, 4, 6));
	EXPECT_NO_RECORD();
	EXPECT_LEAVES(guest_read(&self->guest, A + 0x80, 4));
	EXPECT_EQ(0u, sum);
	EXPECT_RECORD(SPACE, A + 0x80, DEV, 0x80);
	EXPECT_EQ(11u, sum);
	ASSERT_EQ(0, gpamap_post_remove(self->map, DEV));
	ASSERT_EQ(0, gpamap_ring_close(ring));
	close(bell);
}

/*
 * A string that is read from a port: KVM asks for many elements in one go, and what follows
 * the first that is not answered is lost if one before it was. So all are answered, or none.
 */
TEST_F(exits, string_input)
{
	const struct gpamap_register reg = { 0, 1, GPAMAP_REGISTER_CONSTANT, 0x5a };
	int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	unsigned char *data = (unsigned char *)self->guest.mem + (GUEST_DATA - GUEST_BASE);
	struct gpamap_ring_reader *ring;
	u64 sum = 0;
	u32 i;

	ASSERT_LE(0, bell);
	apply(op_at(PDEV, GUEST_DATA_PORT));
	ASSERT_EQ(0, gpamap_registers_set(self->map, PDEV, &reg, 1));
	memset(data, 0, 64);
	ASSERT_EQ(0, guest_start(&self->guest, GUEST_INS, GUEST_DATA, 0, 64));
	ASSERT_EQ(KVM_EXIT_IO, guest_run(&self->guest));
	EXPECT_TRUE(guest_left_by_out(&self->guest, GUEST_PORT));
	for (i = 0; i < 64; i++)
		EXPECT_EQ(0x5a, (int)data[i]);
	/* With a ring, of which entries may come at any time, none is, though it is empty. */
	ASSERT_EQ(0, gpamap_ring_open(self->map, 1, 16, 1, 0, bell, count_entry, &sum, &ring));
	ASSERT_EQ(0, gpamap_post_add(self->map, PDEV, 1));
	ASSERT_EQ(0, guest_start(&self->guest, GUEST_INS, GUEST_DATA, 0, 64));
	ASSERT_EQ(KVM_EXIT_IO, guest_run(&self->guest));
	EXPECT_EQ(KVM_EXIT_IO_IN, (int)self->guest.run->io.direction);
	EXPECT_EQ(GUEST_DATA_PORT, (int)self->guest.run->io.port);
	EXPECT_RECORD(IO_SPACE, GUEST_DATA_PORT, PDEV, 0);
	ASSERT_EQ(0, gpamap_post_remove(self->map, PDEV));
	ASSERT_EQ(0, gpamap_ring_close(ring));
	close(bell);
}

/* -- policies -------------------------------------------------------------- */

TEST_F(exits, reserved)
{
	static const u32 lengths[] = { 1, 2, 4, 8 };
	int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	u64 n;
	u32 i;

	ASSERT_LE(0, bell);
	EXPECT_LEAVES(guest_read(&self->guest, R, 8));
	EXPECT_NO_RECORD();
	for (i = 0; i < 4; i++) {
		u32 len = lengths[i];
		u64 ones = len == 8 ? U64_MAX : (1ULL << (8 * len)) - 1;

		set_policy(HOLE, GPAMAP_POLICY_ONES);
		EXPECT_DONE(guest_write(&self->guest, R + 8, len, 0x55));
		EXPECT_READ(R + 8, len, ones);
		EXPECT_READ(R + 9, len, ones);
		set_policy(HOLE, GPAMAP_POLICY_ZEROES);
		EXPECT_DONE(guest_write(&self->guest, R + 8, len, 0x55));
		EXPECT_READ(R + 8, len, 0);
		EXPECT_NO_RECORD();
	}
	set_policy(HOLE, GPAMAP_POLICY_TELL);
	EXPECT_LEAVES(guest_read(&self->guest, R + 8, 8));
	EXPECT_RECORD(SPACE, R + 8, HOLE, 8);
	/* A doorbell goes first. */
	set_policy(HOLE, GPAMAP_POLICY_ONES);
	ASSERT_EQ(0, gpamap_doorbell_add(self->map, HOLE, 0x10, 4, bell));
	EXPECT_DONE(guest_write(&self->guest, R + 0x10, 4, 1));
	EXPECT_EQ((ssize_t)sizeof(n), read(bell, &n, sizeof(n)));
	EXPECT_READ(R + 0x10, 4, 0xffffffff);
	EXPECT_DONE(guest_write(&self->guest, R + 0x10, 2, 1));
	EXPECT_EQ(-1, read(bell, &n, sizeof(n)));
	ASSERT_EQ(0, gpamap_doorbell_remove(self->map, HOLE, 0x10, 4, bell));
	close(bell);
	test_err_apply(EBUSY, 1, self->fd, op_del(HOLE), op_destroy(HOLE));
	apply(op_at(HOLE, B));
	EXPECT_LEAVES(guest_read(&self->guest, R, 8));
	EXPECT_READ(B, 8, U64_MAX);
	set_policy(HOLE, GPAMAP_POLICY_NONE);
	EXPECT_LEAVES(guest_read(&self->guest, B, 8));
	EXPECT_NO_RECORD();
	apply(op_del(HOLE), op_destroy(HOLE));
}

static u64 ones_of(u32 len)
{
	return len == 8 ? U64_MAX : (1ULL << (8 * len)) - 1;
}

/* What nothing else answers of an io region, at any length and place. */
TEST_F(exits, io)
{
	static const u32 lengths[] = { 1, 2, 4, 8 };
	u64 left[PAGE / 8];
	u32 i;

	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		u32 len = lengths[i];

		set_policy(DEV, GPAMAP_POLICY_ONES);
		EXPECT_DONE(guest_write(&self->guest, A + 8, len, 0x55));
		EXPECT_READ(A + 8, len, ones_of(len));
		EXPECT_READ(A + 9, len, ones_of(len));
		EXPECT_READ(A + PAGE - 1, len, ones_of(len));
		EXPECT_READ(A + 2 * PAGE - len, len, ones_of(len));
		set_policy(DEV, GPAMAP_POLICY_ZEROES);
		EXPECT_DONE(guest_write(&self->guest, A + 8, len, 0x55));
		EXPECT_DONE(guest_write(&self->guest, A + PAGE - 1, len, 0x55));
		EXPECT_READ(A + 8, len, 0);
		if (len == 8)
			continue;
		set_policy(PDEV, GPAMAP_POLICY_ONES);
		EXPECT_DONE(guest_out(&self->guest, PORT + 1, len, 0x55));
		EXPECT_EQ(ones_of(len), guest_in(&self->guest, PORT + 1, len).value);
		EXPECT_DONE(guest_in(&self->guest, PORT + 1, len));
		EXPECT_EQ(0, guest_outs(&self->guest, PORT, len, PAGE / len, left));
		set_policy(PDEV, GPAMAP_POLICY_ZEROES);
		EXPECT_DONE(guest_out(&self->guest, PORT + 1, len, 0x55));
		EXPECT_DONE(guest_in(&self->guest, PORT + 1, len));
		EXPECT_EQ(0u, guest_in(&self->guest, PORT + 1, len).value);
	}
	EXPECT_NO_RECORD();
	/* It moves with the region, and through a path that is read-only writes are dropped. */
	apply(op_flags(op_alias(ALIAS, DEV, 0, PAGE - 1), GPAMAP_REGION_READONLY),
	      op_add(ALIAS, ROOT, R + PAGE, 0), op_at(DEV, B));
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
	EXPECT_READ(B, 4, 0);
	EXPECT_READ(R + PAGE, 4, 0);
	EXPECT_DONE(guest_write(&self->guest, R + PAGE, 4, 1));
	set_policy(DEV, GPAMAP_POLICY_NONE);
	set_policy(PDEV, GPAMAP_POLICY_NONE);
	EXPECT_LEAVES(guest_read(&self->guest, B, 4));
	EXPECT_LEAVES(guest_write(&self->guest, B, 4, 1));
	EXPECT_LEAVES(guest_in(&self->guest, PORT, 1));
	EXPECT_NO_RECORD();
}

/* Doorbells and registers go first, and are counted as ever. */
TEST_F(exits, io_behind_what_is_tied)
{
	const struct gpamap_register reg = { 0x40, 4, GPAMAP_REGISTER_READWRITE, 7 };
	const struct gpamap_register port = { 4, 1, GPAMAP_REGISTER_READONLY, 9 };
	int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	u64 n;

	ASSERT_LE(0, bell);
	set_policy(DEV, GPAMAP_POLICY_ONES);
	set_policy(PDEV, GPAMAP_POLICY_ONES);
	ASSERT_EQ(0, gpamap_doorbell_add(self->map, DEV, 0x10, 4, bell));
	ASSERT_EQ(0, gpamap_doorbell_add(self->map, DEV, 0x20, 0, bell));
	ASSERT_EQ(0, gpamap_doorbell_add(self->map, PDEV, 2, 1, bell));
	ASSERT_EQ(0, gpamap_registers_set(self->map, DEV, &reg, 1));
	ASSERT_EQ(0, gpamap_registers_set(self->map, PDEV, &port, 1));
	EXPECT_DONE(guest_write(&self->guest, A + 0x10, 4, 1));
	EXPECT_DONE(guest_write(&self->guest, A + 0x20, 2, 1));
	EXPECT_DONE(guest_out(&self->guest, PORT + 2, 1, 1));
	EXPECT_EQ((ssize_t)sizeof(n), read(bell, &n, sizeof(n)));
	EXPECT_EQ(3u, n);
	/* A read of the one that any length rings is the policy's. */
	EXPECT_READ(A + 0x20, 4, 0xffffffff);
	EXPECT_READ(A + 0x10, 4, 0xffffffff);
	EXPECT_DONE(guest_write(&self->guest, A + 0x10, 2, 1));
	EXPECT_DONE(guest_out(&self->guest, PORT + 2, 2, 1));
	EXPECT_EQ(-1, read(bell, &n, sizeof(n)));
	EXPECT_READ(A + 0x40, 4, 7);
	EXPECT_DONE(guest_write(&self->guest, A + 0x40, 4, 8));
	EXPECT_READ(A + 0x40, 4, 8);
	EXPECT_READ(A + 0x40, 8, U64_MAX);
	EXPECT_READ(A + 0x42, 2, 0xffff);
	EXPECT_EQ(9u, guest_in(&self->guest, PORT + 4, 1).value);
	EXPECT_EQ(0xffffu, guest_in(&self->guest, PORT + 4, 2).value);
	EXPECT_NO_RECORD();
	close(bell);
}

/*
 * A region that posts: what cannot be posted is not dropped, and what comes after what is
 * pending waits for the VMM; so it is with a register, which is not of the policy's value.
 */
TEST_F(exits, io_behind_a_ring)
{
	const struct gpamap_register reg = { 0x40, 4, GPAMAP_REGISTER_READWRITE, 7 };
	int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct gpamap_ring_reader *ring;
	u64 sum = 0;
	u32 i;

	ASSERT_LE(0, bell);
	set_policy(DEV, GPAMAP_POLICY_ONES);
	set_policy(PDEV, GPAMAP_POLICY_ONES);
	ASSERT_EQ(0, gpamap_registers_set(self->map, DEV, &reg, 1));
	ASSERT_EQ(0, gpamap_ring_open(self->map, 1, 16, 16, 0, bell, count_entry, &sum, &ring));
	ASSERT_EQ(0, gpamap_post_add(self->map, DEV, 1));
	ASSERT_EQ(0, gpamap_post_add(self->map, PDEV, 1));
	EXPECT_READ(A, 8, U64_MAX);
	EXPECT_READ(A + 0x40, 4, 7);
	/* Of ports nothing is read. */
	EXPECT_LEAVES(guest_in(&self->guest, PORT, 4));
	EXPECT_RECORD(IO_SPACE, PORT, PDEV, 0);
	for (i = 0; i < 16; i++)
		EXPECT_DONE(guest_write(&self->guest, A + 8, 8, i));
	/* To resolve what they are for would drain. */
	EXPECT_LEAVES(guest_write(&self->guest, A + 8, 8, 16));
	EXPECT_EQ((u32)DEV, self->exit->region);
	EXPECT_EQ(A + 8, self->exit->addr);
	EXPECT_LEAVES(guest_out(&self->guest, PORT, 4, 16));
	EXPECT_EQ((u32)PDEV, self->exit->region);
	EXPECT_LEAVES(guest_read(&self->guest, A, 8));
	EXPECT_LEAVES(guest_read(&self->guest, A + 0x40, 4));
	EXPECT_LEAVES(guest_write(&self->guest, A + 0x40, 4, 1));
	EXPECT_EQ(16, gpamap_ring_drain(ring));
	EXPECT_READ(A, 8, U64_MAX);
	EXPECT_READ(A + 0x40, 4, 7);
	EXPECT_DONE(guest_write(&self->guest, A + 8, 8, 16));
	EXPECT_LEAVES(guest_read(&self->guest, A, 1));
	EXPECT_EQ(1, gpamap_ring_drain(ring));
	/* What is not posted through a path that is read-only is no policy's either. */
	apply(op_flags(op_alias(ALIAS, DEV, 0, PAGE - 1), GPAMAP_REGION_READONLY),
	      op_add(ALIAS, ROOT, R + PAGE, 0));
	EXPECT_LEAVES(guest_write(&self->guest, R + PAGE, 4, 1));
	EXPECT_READ(R + PAGE, 4, 0xffffffff);
	/* No longer posted, they are dropped. */
	ASSERT_EQ(0, gpamap_post_remove(self->map, DEV));
	ASSERT_EQ(0, gpamap_post_remove(self->map, PDEV));
	EXPECT_DONE(guest_write(&self->guest, A + 8, 8, 17));
	EXPECT_EQ(0xffffffffu, guest_in(&self->guest, PORT, 4).value);
	EXPECT_EQ(0, gpamap_ring_drain(ring));
	close(bell);
}

TEST_F(exits, bad_members)
{
	struct gpamap_policy cmd = { .size = sizeof(cmd), .flags = 1, .region = DEV };

	EXPECT_EQ(-EOPNOTSUPP, map_ioctl(self->fd, GPAMAP_POLICY, &cmd));
	EXPECT_EQ(-ENOENT, gpamap_policy_set(self->map, 77, GPAMAP_POLICY_TELL));
	EXPECT_EQ(-ENOENT, gpamap_policy_set(self->map, 0, GPAMAP_POLICY_TELL));
	EXPECT_EQ(-EOPNOTSUPP, gpamap_policy_set(self->map, DEV, GPAMAP_POLICY_ONES + 1));
	EXPECT_EQ(-EOPNOTSUPP, gpamap_policy_set(self->map, MEM, GPAMAP_POLICY_ZEROES));
	EXPECT_EQ(-EOPNOTSUPP, gpamap_policy_set(self->map, ROM, GPAMAP_POLICY_ONES));
	EXPECT_EQ(-EOPNOTSUPP, gpamap_policy_set(self->map, ROMD, GPAMAP_POLICY_ONES));
	EXPECT_EQ(-EOPNOTSUPP, gpamap_policy_set(self->map, ROOT, GPAMAP_POLICY_ZEROES));
	EXPECT_EQ(-EOPNOTSUPP, gpamap_policy_set(self->map, ROOT, GPAMAP_POLICY_TELL));
	EXPECT_EQ(0, gpamap_policy_set(self->map, DEV, GPAMAP_POLICY_NONE));
	/* More than KVM can be made to ask about. */
	apply(op_last(DEV, 2 * GPAMAP_MAX_BUS_LEN));
	EXPECT_EQ(-ENOSPC, gpamap_policy_set(self->map, DEV, GPAMAP_POLICY_TELL));
	EXPECT_LEAVES(guest_read(&self->guest, A, 8));
	EXPECT_NO_RECORD();
}

/* -- counters -------------------------------------------------------------- */

#define EXPECT_COUNTERS(_region, _reads, _writes, _exits, _doorbells, _posted)	\
	do {									\
		struct gpamap_counters *__c;					\
		u32 __nr, __i;							\
		ASSERT_EQ(0, gpamap_query_counters(self->map, &__c, &__nr));	\
		for (__i = 0; __i < __nr && __c[__i].region != (_region); __i++) \
			;							\
		ASSERT_LT(__i, __nr);						\
		EXPECT_EQ((u64)(_reads), __c[__i].reads);			\
		EXPECT_EQ((u64)(_writes), __c[__i].writes);			\
		EXPECT_EQ((u64)(_exits), __c[__i].exits);			\
		EXPECT_EQ((u64)(_doorbells), __c[__i].doorbells);		\
		EXPECT_EQ((u64)(_posted), __c[__i].posted);			\
		free(__c);							\
	} while (0)

TEST_F(exits, counters)
{
	const struct gpamap_register reg = { 0x40, 4, GPAMAP_REGISTER_READWRITE, 0 };
	int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	int other = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct gpamap_ring_reader *ring;
	struct gpamap_counters *counters;
	u64 sum = 0;
	u32 nr;

	ASSERT_LE(0, bell);
	ASSERT_EQ(0, gpamap_query_counters(self->map, &counters, &nr));
	EXPECT_EQ(0u, nr);
	free(counters);
	set_policy(DEV, GPAMAP_POLICY_TELL);
	set_policy(HOLE, GPAMAP_POLICY_ONES);
	EXPECT_COUNTERS(DEV, 0, 0, 0, 0, 0);
	ASSERT_EQ(0, gpamap_doorbell_add(self->map, DEV, 0x10, 4, bell));
	ASSERT_EQ(0, gpamap_doorbell_add(self->map, DEV, 0x10, 4, other));
	ASSERT_EQ(0, gpamap_registers_set(self->map, DEV, &reg, 1));
	EXPECT_LEAVES(guest_read(&self->guest, A, 8));
	EXPECT_COUNTERS(DEV, 1, 0, 1, 0, 0);
	EXPECT_LEAVES(guest_write(&self->guest, A, 8, 1));
	EXPECT_COUNTERS(DEV, 1, 1, 2, 0, 0);
	EXPECT_DONE(guest_write(&self->guest, A + 0x10, 4, 1));
	EXPECT_COUNTERS(DEV, 1, 2, 2, 2, 0);
	EXPECT_DONE(guest_write(&self->guest, A + 0x40, 4, 1));
	EXPECT_READ(A + 0x40, 4, 1);
	EXPECT_COUNTERS(DEV, 2, 3, 2, 2, 0);
	ASSERT_EQ(0, gpamap_ring_open(self->map, 1, 16, 1, 0, bell, count_entry, &sum, &ring));
	ASSERT_EQ(0, gpamap_post_add(self->map, DEV, 1));
	EXPECT_DONE(guest_write(&self->guest, A + 0x80, 4, 1));
	EXPECT_COUNTERS(DEV, 2, 4, 2, 2, 1);
	EXPECT_READ(R, 4, 0xffffffff);
	EXPECT_DONE(guest_write(&self->guest, R, 4, 1));
	EXPECT_COUNTERS(HOLE, 1, 1, 0, 0, 0);
	/* Through moves; and anew when all that was tied is gone. */
	apply(op_at(HOLE, B));
	EXPECT_READ(B, 4, 0xffffffff);
	EXPECT_COUNTERS(HOLE, 2, 1, 0, 0, 0);
	set_policy(HOLE, GPAMAP_POLICY_NONE);
	set_policy(HOLE, GPAMAP_POLICY_ZEROES);
	EXPECT_COUNTERS(HOLE, 0, 0, 0, 0, 0);
	close(bell);
	close(other);
}

TEST_HARNESS_MAIN

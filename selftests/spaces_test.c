// SPDX-License-Identifier: GPL-2.0
/*
 * Several spaces, what is at an address of them, and being told of changes: the memory
 * of SMM beside the normal one, rom devices as the guest sees them, LOOKUP against QUERY
 * and against commits that go on meanwhile, poll().
 */
#include "harness.h"
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include "gpamap_util.h"
#include "guest.h"

#define PAGE TEST_PAGE

enum { ROOT = 1, RAM, IO, OVERLAY, FLASH, SMM_ROOT, SMM_ALIAS, SMRAM, PORTS };
enum { MEMORY = 1, VIEW, SMM, IO_SPACE };

FIXTURE(spaces) {
	struct guest guest;
	char *mem;
	int fd;
};

FIXTURE_SETUP(spaces)
{
	ASSERT_EQ(0, guest_create(&self->guest));
	self->mem = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->mem);
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_apply(self->fd, op_container(ROOT, U64_MAX),
		       op_ram(RAM, 8 * PAGE - 1, self->mem), op_add(RAM, ROOT, 0, 0),
		       op_io(IO, PAGE - 1), op_add(IO, ROOT, 0x100000, 0),
		       op_memory_space(MEMORY, ROOT, 0));
	test_cmd_attach(self->fd, self->guest.vm, 0, 100);
}

FIXTURE_TEARDOWN(spaces)
{
	close(self->fd);
	guest_destroy(&self->guest);
	munmap(self->mem, 16 * PAGE);
}

/* Rule 40: slot ids of address space N are N << 16 | id. */
TEST_F(spaces, rule_40_smm_has_slots_of_its_own)
{
	test_cmd_apply(self->fd, op_container(SMM_ROOT, U64_MAX),
		       op_alias(SMM_ALIAS, ROOT, 0, U64_MAX),
		       op_add(SMM_ALIAS, SMM_ROOT, 0, 0),
		       op_ram(SMRAM, PAGE - 1, self->mem + 8 * PAGE),
		       op_add(SMRAM, SMM_ROOT, 2 * PAGE, 1),
		       op_memory_space(SMM, SMM_ROOT, 1));
	EXPECT_SLOTS(self->fd,
		     { 0, 8, self->mem, 0, 0 },
		     { 0, 2, self->mem, 1 << 16 | 0, 0 },
		     { 2 * PAGE, 1, self->mem + 8 * PAGE, 1 << 16 | 1, 0 },
		     { 3 * PAGE, 5, self->mem + 3 * PAGE, 1 << 16 | 2, 0 });
	/* One commit, both spaces. */
	test_cmd_apply(self->fd, op_at(RAM, 0x10000));
	EXPECT_SLOTS(self->fd,
		     { 0x10000, 8, self->mem, 0, 0 },
		     { 2 * PAGE, 1, self->mem + 8 * PAGE, 1 << 16 | 1, 0 },
		     { 0x10000, 8, self->mem, 1 << 16 | 0, 0 });
	/* The space goes and takes its slots along; DETACH would too. */
	test_cmd_apply(self->fd, op_space_destroy(SMM));
	EXPECT_SLOTS(self->fd, { 0x10000, 8, self->mem, 0, 0 });
	test_cmd_apply(self->fd, op_memory_space(SMM, SMM_ROOT, 1));
	test_cmd_detach(self->fd);
	EXPECT_SLOTS(self->fd);
	test_cmd_attach(self->fd, self->guest.vm, 7, 3);
	EXPECT_SLOTS(self->fd,
		     { 0x10000, 8, self->mem, 7, 0 },
		     { 2 * PAGE, 1, self->mem + 8 * PAGE, 1 << 16 | 7, 0 },
		     { 0x10000, 8, self->mem, 1 << 16 | 8, 0 });
}

TEST_F(spaces, another_space_takes_over_the_memory)
{
	test_cmd_apply(self->fd, op_container(SMM_ROOT, U64_MAX),
		       op_ram(SMRAM, PAGE - 1, self->mem + 8 * PAGE),
		       op_add(SMRAM, SMM_ROOT, 0x4000, 0), op_space_destroy(MEMORY),
		       op_memory_space(SMM, SMM_ROOT, 0));
	EXPECT_SLOTS(self->fd, { 0x4000, 1, self->mem + 8 * PAGE, 0, 0 });
	/* Memory that cannot be a slot, in a space that was only looked at so far. */
	test_err_apply(EINVAL, 3, self->fd, op_space_destroy(SMM),
		       op_ram(99, PAGE - 1, NULL), op_add(99, ROOT, 0x400000, 0),
		       op_memory_space(MEMORY, ROOT, 1));
	/* Back, with what is the same in both kept. */
	test_cmd_apply(self->fd, op_space_destroy(SMM), op_memory_space(MEMORY, ROOT, 0));
	EXPECT_SLOTS(self->fd, { 0, 8, self->mem, 0, 0 });
	EXPECT_GUEST_RAM(&self->guest, 0, 0);
}

TEST_F(spaces, one_memory_space_of_a_number_and_one_of_ports)
{
	test_err_apply(EEXIST, 0, self->fd, op_memory_space(SMM, ROOT, 0));
	test_cmd_apply(self->fd, op_io(PORTS, 0xffff),
		       op_space(IO_SPACE, GPAMAP_SPACE_IO, PORTS));
	test_err_apply(EEXIST, 0, self->fd, op_space(9, GPAMAP_SPACE_IO, PORTS));
	EXPECT_VIEW(self->fd, IO_SPACE, { 0, 0xffff, PORTS, 0, 0 });
	EXPECT_SLOTS(self->fd, { 0, 8, self->mem, 0, 0 });
}

/* Rule 24: reads come from memory, writes leave; out of romd mode all leaves. */
TEST_F(spaces, rule_24_rom_device)
{
	char *flash = self->mem + 8 * PAGE;

	*(u64 *)flash = 0x600df1a54;
	test_cmd_apply(self->fd, op_romd(FLASH, PAGE - 1, flash),
		       op_add(FLASH, ROOT, 0x200000, 0));
	EXPECT_GUEST_MMIO(&self->guest, 0x200000);
	test_cmd_apply(self->fd, op_romd_mode(FLASH, true));
	EXPECT_GUEST_RAM(&self->guest, 0x200000, 0x600df1a54);
	EXPECT_GUEST_WRITE_MMIO(&self->guest, 0x200000);
	EXPECT_EQ(0x600df1a54u, *(u64 *)flash);
	EXPECT_SLOTS(self->fd, { 0, 8, self->mem, 0, 0 },
		     { 0x200000, 1, flash, 1, KVM_MEM_READONLY });
	test_cmd_apply(self->fd, op_romd_mode(FLASH, false));
	EXPECT_GUEST_MMIO(&self->guest, 0x200000);
	test_err_apply(EINVAL, 0, self->fd, op_romd_mode(RAM, true));
	test_err_apply(EINVAL, 0, self->fd,
		       op_flags(op_io(99, 0), GPAMAP_REGION_ROMD_MODE));
}

/* READONLY, length and hva change by delete and create; the guest sees the new slot. */
TEST_F(spaces, rule_39_what_a_live_slot_cannot_change)
{
	char *other = self->mem + 8 * PAGE;

	*(u64 *)self->mem = 1;
	*(u64 *)other = 2;
	test_cmd_apply(self->fd, op_readonly(RAM, true));
	EXPECT_SLOTS(self->fd, { 0, 8, self->mem, 0, KVM_MEM_READONLY });
	EXPECT_GUEST_RAM(&self->guest, 0, 1);
	EXPECT_GUEST_WRITE_MMIO(&self->guest, 0);
	test_cmd_apply(self->fd, op_readonly(RAM, false), op_last(RAM, 4 * PAGE - 1));
	EXPECT_SLOTS(self->fd, { 0, 4, self->mem, 0, 0 });
	EXPECT_GUEST_WRITE_RAM(&self->guest, 0, self->mem, 3);
	EXPECT_GUEST_MMIO(&self->guest, 4 * PAGE);
	/* Other host memory at the same place, in one commit. */
	test_cmd_apply(self->fd, op_ram(SMRAM, 4 * PAGE - 1, other), op_del(RAM),
		       op_add(SMRAM, ROOT, 0, 0));
	EXPECT_SLOTS(self->fd, { 0, 4, other, 0, 0 });
	EXPECT_GUEST_RAM(&self->guest, 0, 2);
}

TEST_F(spaces, a_reserved_region_leaves_to_the_vmm)
{
	test_cmd_apply(self->fd, op_reserved(OVERLAY, PAGE - 1),
		       op_add(OVERLAY, ROOT, PAGE, 1));
	EXPECT_GUEST_MMIO(&self->guest, PAGE);
	EXPECT_GUEST_RAM(&self->guest, 0, 0);
	EXPECT_GUEST_RAM(&self->guest, 2 * PAGE, 0);
}

TEST_F(spaces, a_length_is_changed_in_place)
{
	test_cmd_apply(self->fd, op_last(RAM, 2 * PAGE - 1));
	EXPECT_SLOTS(self->fd, { 0, 2, self->mem, 0, 0 });
	EXPECT_GUEST_MMIO(&self->guest, 2 * PAGE);
	test_cmd_apply(self->fd, op_last(RAM, 16 * PAGE - 1));
	EXPECT_GUEST_RAM(&self->guest, 15 * PAGE, 0);
	test_err_apply(EOVERFLOW, 0, self->fd, op_last(RAM, U64_MAX));
}

/* ---- LOOKUP ---- */

TEST_F(spaces, lookup)
{
	struct gpamap_lookup at;

	ASSERT_EQ(0, _test_cmd_lookup(self->fd, MEMORY, 3 * PAGE + 5, &at));
	EXPECT_EQ((u32)RAM, at.out_region);
	EXPECT_EQ((u32)GPAMAP_REGION_RAM, at.out_kind);
	EXPECT_EQ(0u, at.out_flags);
	EXPECT_EQ(3 * PAGE + 5, at.out_offset);
	EXPECT_EQ(8 * PAGE - 1, at.out_last);
	EXPECT_EQ((u64)(uintptr_t)self->mem + 3 * PAGE + 5, at.out_hva);
	EXPECT_EQ(query_info(self->fd).generation, at.out_generation);

	ASSERT_EQ(0, _test_cmd_lookup(self->fd, MEMORY, 0x100fff, &at));
	EXPECT_EQ((u32)IO, at.out_region);
	EXPECT_EQ(0xfffu, at.out_offset);
	EXPECT_EQ(0x100fffu, at.out_last);
	EXPECT_EQ(0u, at.out_hva);

	EXPECT_EQ(-ENOENT, _test_cmd_lookup(self->fd, MEMORY, 8 * PAGE, &at));
	EXPECT_EQ(-ENOENT, _test_cmd_lookup(self->fd, MEMORY, U64_MAX, &at));
	EXPECT_EQ(-ENOENT, _test_cmd_lookup(self->fd, VIEW, 0, &at));
	EXPECT_EQ(-ENOENT, _test_cmd_lookup(self->fd, 0, 0, &at));

	test_cmd_apply(self->fd, op_reserved(OVERLAY, 0), op_add(OVERLAY, ROOT, 5, 1),
		       op_readonly(RAM, true), op_space(VIEW, GPAMAP_SPACE_VIEW, RAM));
	ASSERT_EQ(0, _test_cmd_lookup(self->fd, MEMORY, 5, &at));
	EXPECT_EQ((u32)OVERLAY, at.out_region);
	EXPECT_EQ(5u, at.out_last);
	ASSERT_EQ(0, _test_cmd_lookup(self->fd, MEMORY, 4, &at));
	EXPECT_EQ(4u, at.out_last);
	EXPECT_EQ((u32)GPAMAP_REGION_READONLY, at.out_flags);
	ASSERT_EQ(0, _test_cmd_lookup(self->fd, VIEW, 5, &at));
	EXPECT_EQ((u32)RAM, at.out_region);
	test_cmd_apply(self->fd, op_space_destroy(VIEW));
	EXPECT_EQ(-ENOENT, _test_cmd_lookup(self->fd, VIEW, 5, &at));
}

/* A batch that is refused is never seen, not even for a moment. */
TEST_F(spaces, lookup_sees_nothing_of_a_refused_batch)
{
	struct gpamap_lookup at;

	test_err_apply(ENOENT, 2, self->fd, op_space(VIEW, GPAMAP_SPACE_VIEW, ROOT),
		       op_at(RAM, 0x10000), op_del(999));
	EXPECT_EQ(-ENOENT, _test_cmd_lookup(self->fd, VIEW, 0, &at));
	EXPECT_EQ(0, _test_cmd_lookup(self->fd, MEMORY, 0, &at));
}

#define MANY 1000

/* Every address at a border of some range, against what QUERY says. */
TEST_F(spaces, lookup_equals_the_view)
{
	struct gpamap_op ops[2 * MANY];
	struct gpamap_range_info *ranges;
	struct gpamap_lookup at;
	u32 i, nr;

	for (i = 0; i < MANY; i++) {
		ops[2 * i] = op_io(1000 + i, 0xff);
		ops[2 * i + 1] = op_add(1000 + i, ROOT, 0x1000000 + 0x180 * i, 0);
	}
	test_cmd_apply_ops(self->fd, ops, 2 * MANY);
	ranges = query_all(self->fd, GPAMAP_QUERY_RANGES, MEMORY, &nr);
	ASSERT_NE(NULL, ranges);
	ASSERT_EQ(MANY + 2u, nr);
	for (i = 0; i < nr; i++) {
		ASSERT_EQ(0, _test_cmd_lookup(self->fd, MEMORY, ranges[i].start, &at));
		ASSERT_EQ(ranges[i].region, at.out_region);
		ASSERT_EQ(ranges[i].last, at.out_last);
		ASSERT_EQ(0, _test_cmd_lookup(self->fd, MEMORY, ranges[i].last, &at));
		ASSERT_EQ(ranges[i].region, at.out_region);
		ASSERT_EQ(ranges[i].last - ranges[i].start + ranges[i].offset,
			  at.out_offset);
		ASSERT_EQ(-ENOENT, _test_cmd_lookup(self->fd, MEMORY, ranges[i].last + 1,
						    &at));
	}
	free(ranges);
}

struct looker {
	pthread_t thread;
	int fd;
	volatile bool stop;
	u64 looked;
	u64 wrong;
};

/* The region is at 0x200000 or at 0x300000, and its twin always where it is not. */
static void *look(void *arg)
{
	struct looker *looker = arg;
	struct gpamap_lookup a, b;

	while (!looker->stop) {
		if (_test_cmd_lookup(looker->fd, MEMORY, 0x200800, &a) ||
		    _test_cmd_lookup(looker->fd, MEMORY, 0x300800, &b) ||
		    a.out_offset != 0x800 || b.out_offset != 0x800 ||
		    (a.out_generation == b.out_generation &&
		     a.out_region == b.out_region) ||
		    b.out_generation < a.out_generation)
			looker->wrong++;
		looker->looked++;
	}
	return NULL;
}

/* Rule 36 and invariant 2, for readers: the old view or the new one, nothing between. */
TEST_F_TIMEOUT(spaces, rule_36_lookups_beside_commits, 120)
{
	u64 commits = env_number("ITER", 300), i;
	struct looker lookers[2];
	u32 n;

	test_cmd_apply(self->fd, op_io(100, 0xfff), op_io(101, 0xfff),
		       op_add(100, ROOT, 0x200000, 0), op_add(101, ROOT, 0x300000, 0));
	for (n = 0; n < 2; n++) {
		lookers[n] = (struct looker){ .fd = self->fd };
		ASSERT_EQ(0, pthread_create(&lookers[n].thread, NULL, look, &lookers[n]));
	}
	for (i = 0; i < commits; i++)
		test_cmd_apply(self->fd, op_at(100, i & 1 ? 0x200000 : 0x300000),
			       op_at(101, i & 1 ? 0x300000 : 0x200000));
	for (n = 0; n < 2; n++) {
		lookers[n].stop = true;
		pthread_join(lookers[n].thread, NULL);
		EXPECT_EQ(0u, lookers[n].wrong);
		EXPECT_LT(0u, lookers[n].looked);
	}
}

/* ---- poll ---- */

TEST_F(spaces, poll_tells_of_a_new_generation)
{
	u64 generation = query_info(self->fd).generation;

	EXPECT_EQ(generation, news_take(self->fd));
	EXPECT_EQ(0, polled(self->fd));
	test_cmd_apply(self->fd, op_at(RAM, 0x10000));
	EXPECT_EQ(POLLIN, polled(self->fd));
	EXPECT_EQ(POLLIN, polled(self->fd));
	/* Who only asks takes it from nobody. */
	EXPECT_EQ(generation + 1, query_info(self->fd).generation);
	EXPECT_EQ(POLLIN, polled(self->fd));
	EXPECT_EQ(generation + 1, news_take(self->fd));
	EXPECT_EQ(0, polled(self->fd));
	/* Rules 34 and 48: nothing has changed. */
	test_cmd_apply(self->fd, op_enable(RAM, false), op_enable(RAM, true));
	EXPECT_EQ(0, polled(self->fd));
	EXPECT_EQ(-ENOENT, _test_cmd_apply(self->fd, (struct gpamap_op[]){ op_del(99) }, 1,
					   NULL, NULL));
	EXPECT_EQ(0, polled(self->fd));
}

static void *wait_readable(void *arg)
{
	struct pollfd p = { .fd = *(int *)arg, .events = POLLIN };

	return (void *)(long)(poll(&p, 1, 20000) == 1 && p.revents == POLLIN);
}

TEST_F(spaces, poll_wakes_a_waiter)
{
	pthread_t thread;
	void *woken;

	EXPECT_LT(0u, news_take(self->fd));
	ASSERT_EQ(0, pthread_create(&thread, NULL, wait_readable, &self->fd));
	usleep(100000);
	test_cmd_apply(self->fd, op_at(RAM, 0x10000));
	ASSERT_EQ(0, pthread_join(thread, &woken));
	EXPECT_NE(NULL, woken);
}

TEST_HARNESS_MAIN

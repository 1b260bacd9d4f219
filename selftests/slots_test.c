// SPDX-License-Identifier: GPL-2.0
/*
 * Slots as the guest sees them: a guest reads and writes before and after each
 * change of the map, and either gets the host memory that the view shows there, or
 * leaves with an MMIO exit for that address.
 *
 * Also here: which slot ids are used, what happens when there are too few or when
 * a slot of the VMM's is in the way, and the argument page, which the module maps
 * into this process and which the process may lose.
 */
#include "harness.h"
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include "gpamap_util.h"
#include "guest.h"

#define PAGE TEST_PAGE
#define ROOT 1
#define SPACE 1
#define MEM 2
#define OTHER 3
#define IO 4
#define ALIAS 5
#define MEM_PAGES 16
#define RO KVM_MEM_READONLY

/* Where the tests put memory. */
#define A 0x100000ULL
#define B 0x40000000ULL
#define C 0x140000000ULL		/* above 4 GiB */

/* What stands at the begin of each page of MEM and OTHER. */
#define MEM_TAG 0xa000000000000000ULL
#define OTHER_TAG 0xb000000000000000ULL

FIXTURE(slots) {
	int fd;
	struct guest guest;
	char *mem;
	char *other;
};

static char *tagged_memory(u64 tag)
{
	char *mem = mmap(NULL, MEM_PAGES * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	u32 i;

	if (mem == MAP_FAILED)
		return NULL;
	for (i = 0; i < MEM_PAGES; i++)
		*(u64 *)(mem + i * PAGE) = tag + i;
	return mem;
}

FIXTURE_SETUP(slots)
{
	ASSERT_EQ(0, guest_create(&self->guest));
	self->mem = tagged_memory(MEM_TAG);
	self->other = tagged_memory(OTHER_TAG);
	ASSERT_NE(NULL, self->mem);
	ASSERT_NE(NULL, self->other);
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_apply(self->fd, op_container(ROOT, U64_MAX),
		       op_ram(MEM, MEM_PAGES * PAGE - 1, self->mem),
		       op_ram(OTHER, MEM_PAGES * PAGE - 1, self->other),
		       op_io(IO, PAGE - 1), op_alias(ALIAS, MEM, 0, 4 * PAGE - 1),
		       op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
}

FIXTURE_TEARDOWN(slots)
{
	close(self->fd);
	guest_destroy(&self->guest);
}

#define apply(...) test_cmd_apply(self->fd, __VA_ARGS__)
#define EXPECT_MADE(...) EXPECT_SLOTS(self->fd, __VA_ARGS__)

/* @_nr pages of MEM or OTHER, from page @_page on, are seen at @_gpa. */
#define EXPECT_SEEN(_gpa, _tag, _page, _nr)					\
	do {									\
		u32 __i;							\
		for (__i = 0; __i < (_nr); __i++)				\
			EXPECT_GUEST_RAM(&self->guest, (_gpa) + __i * PAGE,	\
					 (_tag) + (_page) + __i);		\
	} while (0)
#define EXPECT_MEM(_gpa, _page, _nr) EXPECT_SEEN(_gpa, MEM_TAG, _page, _nr)
#define EXPECT_OTHER(_gpa, _page, _nr) EXPECT_SEEN(_gpa, OTHER_TAG, _page, _nr)
#define EXPECT_MMIO(_gpa) EXPECT_GUEST_MMIO(&self->guest, _gpa)
#define EXPECT_WRITE(_gpa, _hva, _value)					\
	EXPECT_GUEST_WRITE_RAM(&self->guest, _gpa, _hva, _value)

TEST_F(slots, add_and_remove)
{
	static const u64 places[] = { 0, A, B, C };
	u32 i;

	for (i = 0; i < ARRAY_SIZE(places); i++) {
		EXPECT_MMIO(places[i]);
		apply(op_add(MEM, ROOT, places[i], 0));
		EXPECT_MEM(places[i], 0, MEM_PAGES);
		EXPECT_MMIO(places[i] + MEM_PAGES * PAGE);
		if (places[i])
			EXPECT_MMIO(places[i] - 8);
		/* What the guest writes is in the memory of the host, and stays. */
		EXPECT_WRITE(places[i] + 8, self->mem + 8, 0x1234567800000000 + i);
		apply(op_del(MEM));
		EXPECT_MMIO(places[i]);
		EXPECT_MMIO(places[i] + 8);
		EXPECT_EQ(0x1234567800000000 + i, *(u64 *)(self->mem + 8));
	}
}

TEST_F(slots, access_sizes)
{
	u32 len;

	apply(op_add(MEM, ROOT, A, 0));
	for (len = 1; len <= 8; len *= 2) {
		const u64 value = 0x8877665544332211ULL >> (64 - 8 * len);
		struct guest_access a;

		a = guest_write(&self->guest, A + 0x100 + len, len, value);
		EXPECT_EQ((int)GUEST_RAM, (int)a.how);
		EXPECT_EQ(0, memcmp(self->mem + 0x100 + len, &value, len));
		a = guest_read(&self->guest, A + 0x100 + len, len);
		EXPECT_EQ((int)GUEST_RAM, (int)a.how);
		EXPECT_EQ(value, a.value);

		a = guest_write(&self->guest, B + 0x100 + len, len, value);
		EXPECT_EQ((int)GUEST_MMIO, (int)a.how);
		EXPECT_TRUE(a.mmio_write);
		EXPECT_EQ(B + 0x100 + len, a.mmio_gpa);
		EXPECT_EQ(len, a.mmio_len);
		EXPECT_EQ(value, a.mmio_value);
		a = guest_read(&self->guest, B + 0x100 + len, len);
		EXPECT_EQ((int)GUEST_MMIO, (int)a.how);
		EXPECT_FALSE(a.mmio_write);
		EXPECT_EQ(B + 0x100 + len, a.mmio_gpa);
		EXPECT_EQ(len, a.mmio_len);
		EXPECT_EQ(len == 8 ? GUEST_MMIO_ANSWER :
			  GUEST_MMIO_ANSWER & ((1ULL << (8 * len)) - 1), a.value);
	}
}

TEST_F(slots, move)
{
	static const u64 places[] = { B, B + PAGE, A, C, B - PAGE, A };
	u64 old = A;
	u32 i;

	apply(op_add(MEM, ROOT, A, 0));
	EXPECT_MEM(A, 0, 2);
	for (i = 0; i < ARRAY_SIZE(places); i++) {
		EXPECT_WRITE(old + PAGE + 16, self->mem + PAGE + 16, i);
		apply(op_at(MEM, places[i]));
		EXPECT_MEM(places[i], 0, MEM_PAGES);
		EXPECT_GUEST_RAM(&self->guest, places[i] + PAGE + 16, i);
		EXPECT_MMIO(places[i] + MEM_PAGES * PAGE);
		EXPECT_MMIO(places[i] - 8);
		if (old + PAGE != places[i] && places[i] + PAGE != old)
			EXPECT_MMIO(old + PAGE);
		old = places[i];
	}
	/* Two change places; a container takes both along. */
	apply(op_add(OTHER, ROOT, B, 0));
	EXPECT_OTHER(B, 0, 2);
	apply(op_at(MEM, B), op_at(OTHER, A));
	EXPECT_OTHER(A, 0, MEM_PAGES);
	EXPECT_MEM(B, 0, MEM_PAGES);
	apply(op_del(MEM), op_del(OTHER), op_container(9, 0xffffffff),
	      op_add(9, ROOT, 0, 0), op_add(MEM, 9, A, 0), op_add(OTHER, 9, B, 0));
	EXPECT_MEM(A, 0, 2);
	EXPECT_OTHER(B, 0, 2);
	apply(op_at(9, 0x100000000));
	EXPECT_MMIO(A);
	EXPECT_MMIO(B);
	EXPECT_MEM(A + 0x100000000, 0, 2);
	EXPECT_OTHER(B + 0x100000000, 0, 2);
}

TEST_F(slots, hide_and_show)
{
	apply(op_container(9, 0xffffff), op_add(9, ROOT, A, 0), op_add(MEM, 9, 0, 0));
	EXPECT_MEM(A, 0, 2);
	apply(op_enable(MEM, false));
	EXPECT_MMIO(A);
	apply(op_enable(MEM, true));
	EXPECT_MEM(A, 0, 2);
	apply(op_enable(9, false));
	EXPECT_MMIO(A);
	EXPECT_MADE();
	apply(op_enable(9, true));
	EXPECT_MEM(A, 0, MEM_PAGES);
}

#define EXPECT_READONLY(_gpa, _hva)						\
	do {									\
		u64 __old = *(u64 *)(_hva);					\
		EXPECT_GUEST_RAM(&self->guest, _gpa, __old);			\
		EXPECT_GUEST_WRITE_MMIO(&self->guest, _gpa);			\
		EXPECT_EQ(__old, *(u64 *)(_hva));				\
	} while (0)

TEST_F(slots, readonly_on_and_off)
{
	apply(op_add(MEM, ROOT, A, 0));
	EXPECT_WRITE(A + 8, self->mem + 8, 1);
	apply(op_readonly(MEM, true));
	EXPECT_READONLY(A + 8, self->mem + 8);
	EXPECT_READONLY(A + 3 * PAGE, self->mem + 3 * PAGE);
	apply(op_readonly(MEM, false));
	EXPECT_WRITE(A + 8, self->mem + 8, 2);
	EXPECT_MEM(A + PAGE, 1, MEM_PAGES - 1);
	/* By the container above it. */
	apply(op_readonly(ROOT, true));
	EXPECT_READONLY(A + 8, self->mem + 8);
	apply(op_readonly(ROOT, false));
	EXPECT_WRITE(A + 8, self->mem + 8, 3);
}

TEST_F(slots, rom)
{
	apply(op_rom(9, 4 * PAGE - 1, self->mem), op_add(9, ROOT, B, 0));
	EXPECT_READONLY(B, self->mem);
	EXPECT_READONLY(B + 3 * PAGE, self->mem + 3 * PAGE);
	EXPECT_MMIO(B + 4 * PAGE);
	/* The same memory as rom here and as ram there. */
	apply(op_add(MEM, ROOT, A, 0));
	EXPECT_WRITE(A + 16, self->mem + 16, 42);
	EXPECT_READONLY(B + 16, self->mem + 16);
	EXPECT_GUEST_RAM(&self->guest, B + 16, 42);
}

/* Rule 23: writable and read-only side by side, of one region. */
TEST_F(slots, two_paths)
{
	apply(op_add(MEM, ROOT, A, 0), op_add(ALIAS, ROOT, B, 0), op_readonly(ALIAS, true));
	EXPECT_WRITE(A + 16, self->mem + 16, 7);
	EXPECT_READONLY(B + 16, self->mem + 16);
	EXPECT_MMIO(B + 4 * PAGE);
	apply(op_readonly(ALIAS, false));
	EXPECT_WRITE(B + 16, self->mem + 16, 8);
	EXPECT_GUEST_RAM(&self->guest, A + 16, 8);
}

TEST_F(slots, priority)
{
	apply(op_add(MEM, ROOT, A, 0), op_add(OTHER, ROOT, A + 4 * PAGE, 1));
	EXPECT_MEM(A, 0, 4);
	EXPECT_OTHER(A + 4 * PAGE, 0, MEM_PAGES);
	apply(op_prio(OTHER, -1));
	EXPECT_MEM(A, 0, MEM_PAGES);
	EXPECT_OTHER(A + MEM_PAGES * PAGE, MEM_PAGES - 4, 4);
	EXPECT_MMIO(A + (MEM_PAGES + 4) * PAGE);
	apply(op_prio(MEM, -2));
	EXPECT_MEM(A, 0, 4);
	EXPECT_OTHER(A + 4 * PAGE, 0, MEM_PAGES);
}

TEST_F(slots, alias_offset)
{
	u32 i;

	apply(op_add(ALIAS, ROOT, C, 0));
	for (i = 0; i < MEM_PAGES; i++) {
		const u32 nr = i + 4 <= MEM_PAGES ? 4 : MEM_PAGES - i;

		apply(op_offset(ALIAS, i * PAGE));
		EXPECT_MEM(C, i, nr);
		EXPECT_MMIO(C + nr * PAGE);
	}
	apply(op_offset(ALIAS, MEM_PAGES * PAGE));
	EXPECT_MMIO(C);
}

TEST_F(slots, overlay)
{
	u32 i;

	apply(op_add(MEM, ROOT, A, 0), op_add(IO, ROOT, A, 1));
	for (i = 0; i < MEM_PAGES; i += 3) {
		apply(op_at(IO, A + i * PAGE));
		EXPECT_MMIO(A + i * PAGE);
		EXPECT_MMIO(A + i * PAGE + PAGE - 8);
		EXPECT_MEM(A, 0, i);
		EXPECT_MEM(A + (i + 1) * PAGE, i + 1, MEM_PAGES - i - 1);
	}
	apply(op_enable(IO, false));
	EXPECT_MEM(A, 0, MEM_PAGES);
	/* Other memory over it, and a rom over that. */
	apply(op_add(OTHER, ROOT, A + 2 * PAGE, 5), op_rom(9, PAGE - 1, self->mem + 9 * PAGE),
	      op_add(9, ROOT, A + 3 * PAGE, 6));
	EXPECT_MEM(A, 0, 2);
	EXPECT_OTHER(A + 2 * PAGE, 0, 1);
	EXPECT_READONLY(A + 3 * PAGE, self->mem + 9 * PAGE);
	EXPECT_OTHER(A + 4 * PAGE, 2, 2);
	apply(op_del(OTHER), op_del(9));
	EXPECT_MEM(A, 0, MEM_PAGES);
}

/* Rule 37: a page that is partly memory has no slot. */
TEST_F(slots, part_of_a_page)
{
	apply(op_add(MEM, ROOT, A, 0), op_io(9, 7), op_add(9, ROOT, A + 2 * PAGE + 0x10, 1));
	EXPECT_MEM(A, 0, 2);
	/* No slot, but memory around the eight bytes. */
	EXPECT_GUEST_RAM(&self->guest, A + 2 * PAGE, MEM_TAG + 2);
	EXPECT_MMIO(A + 2 * PAGE + 0x10);
	EXPECT_WRITE(A + 2 * PAGE + 0x18, self->mem + 2 * PAGE + 0x18, 5);
	EXPECT_MEM(A + 3 * PAGE, 3, MEM_PAGES - 3);
	apply(op_del(9));
	EXPECT_MEM(A, 0, MEM_PAGES);
}

TEST_F(slots, space_destroy)
{
	apply(op_add(MEM, ROOT, A, 0), op_container(9, 0xffffffff),
	      op_add(OTHER, 9, B, 0));
	EXPECT_MEM(A, 0, 2);
	apply(op_space_destroy(SPACE));
	EXPECT_MMIO(A);
	EXPECT_MADE();
	/* Another root in its place, and back, each in one batch. */
	apply(op_space(7, GPAMAP_SPACE_MEMORY, 9));
	EXPECT_MMIO(A);
	EXPECT_OTHER(B, 0, 2);
	apply(op_space_destroy(7), op_space(7, GPAMAP_SPACE_MEMORY, ROOT));
	EXPECT_MEM(A, 0, 2);
	EXPECT_MMIO(B);
	/* A view has no slots. */
	apply(op_space(8, GPAMAP_SPACE_VIEW, 9));
	EXPECT_MMIO(B);
}

TEST_F(slots, detach_and_attach)
{
	struct guest second;
	u32 id;

	apply(op_add(MEM, ROOT, A, 0), op_add(OTHER, ROOT, B, 0), op_add(IO, ROOT, A + PAGE, 1));
	EXPECT_MEM(A, 0, 1);
	test_cmd_detach(self->fd);
	EXPECT_MMIO(A);
	EXPECT_MMIO(A + 2 * PAGE);
	EXPECT_MMIO(B);
	EXPECT_MADE();
	/* All are gone from KVM: the VMM can have every id, and every place. */
	for (id = 0; id < 64; id++)
		EXPECT_EQ(0, guest_set_slot(&self->guest, id, 0, A + id * PAGE, 1, self->other));
	for (id = 0; id < 64; id++)
		EXPECT_EQ(0, guest_set_slot(&self->guest, id, 0, A + id * PAGE, 0, self->other));

	/* Changes while detached count when it is attached again. */
	apply(op_at(OTHER, C));
	EXPECT_MMIO(C);
	test_cmd_attach(self->fd, self->guest.vm, 20, 10);
	EXPECT_MADE({ A, 1, self->mem, 20, 0 },
		    { A + 2 * PAGE, MEM_PAGES - 2, self->mem + 2 * PAGE, 21, 0 },
		    { C, MEM_PAGES, self->other, 22, 0 });
	EXPECT_MEM(A, 0, 1);
	EXPECT_MMIO(A + PAGE);
	EXPECT_OTHER(C, 0, 2);
	EXPECT_MMIO(B);

	/* To another VM. */
	test_cmd_detach(self->fd);
	ASSERT_EQ(0, guest_create(&second));
	test_cmd_attach(self->fd, second.vm, 0, 0);
	EXPECT_GUEST_RAM(&second, A, MEM_TAG);
	EXPECT_MMIO(A);
	test_cmd_detach(self->fd);
	EXPECT_GUEST_MMIO(&second, A);
	guest_destroy(&second);
}

TEST_F(slots, close_leaves_slots)
{
	apply(op_add(MEM, ROOT, A, 0), op_add(OTHER, ROOT, B, 0), op_readonly(OTHER, true));
	ASSERT_EQ(0, close(self->fd));
	EXPECT_MEM(A, 0, MEM_PAGES);
	EXPECT_WRITE(A + 8, self->mem + 8, 99);
	EXPECT_READONLY(B, self->other);
	EXPECT_EQ(0, scratch_find(NULL, NULL));
	/* They are the VMM's now: it can delete them, and attach another map. */
	EXPECT_EQ(0, guest_set_slot(&self->guest, 0, 0, A, 0, self->mem));
	EXPECT_EQ(0, guest_set_slot(&self->guest, 1, 0, B, 0, self->other));
	EXPECT_MMIO(A);
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
}

/* -- slot ids -------------------------------------------------------------- */

TEST_F(slots, ids_in_range)
{
	test_cmd_detach(self->fd);
	test_cmd_attach(self->fd, self->guest.vm, 100, 3);
	apply(op_add(MEM, ROOT, A, 0), op_add(OTHER, ROOT, B, 0), op_add(ALIAS, ROOT, 0, 0));
	EXPECT_MADE({ 0, 4, self->mem, 100, 0 }, { A, MEM_PAGES, self->mem, 101, 0 },
		    { B, MEM_PAGES, self->other, 102, 0 });
	EXPECT_EQ(3u, query_info(self->fd).used_slots);
	apply(op_del(MEM));
	/* The lowest that is free, and one that its old owner frees in the same commit. */
	apply(op_at(ALIAS, C));
	EXPECT_MADE({ B, MEM_PAGES, self->other, 102, 0 }, { C, 4, self->mem, 100, 0 });
	EXPECT_MEM(C, 0, 4);
	EXPECT_OTHER(B, 0, 1);
}

TEST_F(slots, too_few)
{
	const struct gpamap_op io = op_add(IO, ROOT, B + PAGE, 1);

	test_cmd_detach(self->fd);
	test_cmd_attach(self->fd, self->guest.vm, 0, 3);
	apply(op_add(MEM, ROOT, A, 0), op_add(OTHER, ROOT, B, 0));
	/* Splitting one makes three; a second split would make four. */
	test_err_apply(ENOSPC, 1, self->fd, io, op_add(ALIAS, ROOT, C, 0), op_container(9, 0));
	test_err_apply(ENOSPC, 2, self->fd, op_container(9, 0), io, op_add(ALIAS, ROOT, C, 0));
	EXPECT_MEM(A, 0, MEM_PAGES);
	EXPECT_OTHER(B, 0, MEM_PAGES);
	EXPECT_MMIO(C);
	apply(io);
	EXPECT_MMIO(B + PAGE);
	test_err_apply(ENOSPC, 0, self->fd, op_add(ALIAS, ROOT, C, 0));
	EXPECT_MMIO(C);
	apply(op_del(IO), op_add(ALIAS, ROOT, C, 0));
	EXPECT_MEM(C, 0, 4);
}

/*
 * The operation without which there are enough is the last, although the slot
 * that got no id is that of the first.
 */
TEST_F(slots, too_few_blames_last)
{
	test_cmd_detach(self->fd);
	test_cmd_attach(self->fd, self->guest.vm, 0, 1);
	test_err_apply(ENOSPC, 1, self->fd, op_add(MEM, ROOT, B, 0), op_add(OTHER, ROOT, A, 0));
	test_err_apply(ENOSPC, 1, self->fd, op_add(OTHER, ROOT, A, 0), op_add(MEM, ROOT, B, 0));
	test_err_apply(ENOSPC, 1, self->fd, op_add(OTHER, ROOT, A, 0), op_add(MEM, ROOT, B, 0),
		       op_container(9, 0));
	apply(op_add(MEM, ROOT, B, 0));
}

/* A slot of the VMM's where one of the map is to be. */
TEST_F(slots, foreign_slot_in_the_way)
{
	const struct gpamap_op ops[] = {
		op_at(MEM, A + 0x1000000),
		op_readonly(OTHER, true),
		op_container(9, 0xfff),
		op_add(ALIAS, ROOT, C, 0),
		op_add(9, ROOT, 0, 0),
		op_add(IO, ROOT, A + 0x1000000 + PAGE, 1),
	};

	apply(op_add(MEM, ROOT, A, 0), op_add(OTHER, ROOT, B, 0));
	ASSERT_EQ(0, guest_set_slot(&self->guest, 400, 0, C + 3 * PAGE, 1, self->other));
	test_err_apply_ops(EEXIST, 3, self->fd, ops, ARRAY_SIZE(ops));
	EXPECT_MEM(A, 0, MEM_PAGES);
	EXPECT_WRITE(A + 8, self->mem + 8, 1);
	EXPECT_OTHER(B, 0, MEM_PAGES);
	EXPECT_WRITE(B + 8, self->other + 8, 2);
	EXPECT_MMIO(A + 0x1000000);
	EXPECT_MMIO(C);
	EXPECT_OTHER(C + 3 * PAGE, 0, 1);

	/* At every place of the batch. */
	test_err_apply(EEXIST, 0, self->fd, ops[3], ops[0], ops[1], ops[2]);
	test_err_apply(EEXIST, 3, self->fd, ops[0], ops[1], ops[2], ops[3]);
	test_err_apply(EEXIST, 0, self->fd, op_at(MEM, C - 8 * PAGE), op_readonly(OTHER, true));
	EXPECT_MEM(A, 0, MEM_PAGES);

	/* It goes: the same batch succeeds. */
	ASSERT_EQ(0, guest_set_slot(&self->guest, 400, 0, C + 3 * PAGE, 0, self->other));
	test_cmd_apply_ops(self->fd, ops, ARRAY_SIZE(ops));
	EXPECT_MMIO(A);
	EXPECT_MEM(A + 0x1000000, 0, 1);
	EXPECT_MMIO(A + 0x1000000 + PAGE);
	EXPECT_READONLY(B, self->other);
	EXPECT_MEM(C, 0, 4);
}

TEST_F(slots, foreign_slot_at_attach)
{
	test_cmd_detach(self->fd);
	apply(op_add(MEM, ROOT, A, 0), op_add(OTHER, ROOT, B, 0));
	ASSERT_EQ(0, guest_set_slot(&self->guest, 400, 0, B + PAGE, 1, self->other));
	test_err_attach(EEXIST, self->fd, self->guest.vm, 0, 64);
	EXPECT_MMIO(A);
	EXPECT_MMIO(B);
	EXPECT_OTHER(B + PAGE, 0, 1);
	EXPECT_EQ(0, scratch_find(NULL, NULL));
	ASSERT_EQ(0, guest_set_slot(&self->guest, 400, 0, B + PAGE, 0, self->other));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_MEM(A, 0, 2);
	EXPECT_OTHER(B, 0, 2);
}

TEST_F(slots, own_slots_of_the_vmm)
{
	ASSERT_EQ(0, guest_set_slot(&self->guest, 64, 0, C, 2, self->other));
	ASSERT_EQ(0, guest_set_slot(&self->guest, 300, RO, C + 8 * PAGE, 2, self->other));
	apply(op_add(MEM, ROOT, A, 0), op_add(IO, ROOT, A + PAGE, 1));
	apply(op_at(MEM, B));
	apply(op_at(MEM, C + 2 * PAGE), op_del(IO), op_enable(MEM, false));
	EXPECT_OTHER(C, 0, 2);
	EXPECT_READONLY(C + 8 * PAGE, self->other);
	test_cmd_detach(self->fd);
	EXPECT_OTHER(C, 0, 2);
	EXPECT_READONLY(C + 8 * PAGE, self->other);
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	close(self->fd);
	EXPECT_OTHER(C, 0, 2);
	EXPECT_READONLY(C + 8 * PAGE, self->other);
}

/* The VMM has deleted a slot of the map, against the rules: no commit is half done. */
TEST_F(slots, deleted_behind_the_back)
{
	apply(op_add(MEM, ROOT, A, 0), op_add(OTHER, ROOT, B, 0), op_add(ALIAS, ROOT, C, 0));
	ASSERT_EQ(0, guest_set_slot(&self->guest, 1, 0, B, 0, self->other));
	EXPECT_ERR_UNCHANGED(EINVAL, self->fd, ({
		const struct gpamap_op ops[] = { op_del(MEM), op_del(ALIAS), op_del(OTHER) };

		_test_cmd_apply(self->fd, ops, 3, NULL, NULL);
	}));
	EXPECT_MEM(A, 0, MEM_PAGES);
	EXPECT_MEM(C, 0, 4);
	EXPECT_MMIO(B);
	/* What does not touch it works. */
	apply(op_at(MEM, 0));
	EXPECT_MEM(0, 0, 2);
	/* Put back, all works. */
	ASSERT_EQ(0, guest_set_slot(&self->guest, 1, 0, B, MEM_PAGES, self->other));
	apply(op_del(MEM), op_del(ALIAS), op_del(OTHER));
	EXPECT_MMIO(0);
	EXPECT_MMIO(B);
}

/* -- the argument page ----------------------------------------------------- */

TEST_F(slots, argument_page_unmapped)
{
	u32 i;

	EXPECT_EQ(1, scratch_find(NULL, NULL));
	apply(op_add(MEM, ROOT, A, 0));
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(1, scratch_unmap());
		apply(op_at(MEM, i & 1 ? A : B));
		EXPECT_MEM(i & 1 ? A : B, 0, 2);
		EXPECT_MMIO(i & 1 ? B : A);
		EXPECT_EQ(1, scratch_find(NULL, NULL));
	}
	ASSERT_EQ(1, scratch_unmap());
	test_cmd_detach(self->fd);
	EXPECT_MMIO(A);
	EXPECT_EQ(0, scratch_find(NULL, NULL));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	ASSERT_EQ(1, scratch_unmap());
	close(self->fd);
	EXPECT_EQ(0, scratch_find(NULL, NULL));
}

/* Something else is there: it is neither believed nor written nor unmapped. */
TEST_F(slots, argument_page_replaced)
{
	const int prots[] = { PROT_READ | PROT_WRITE, PROT_READ, PROT_NONE };
	unsigned long start, end;
	void *page, *copy;
	u32 i;

	apply(op_add(MEM, ROOT, A, 0));
	copy = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, copy);
	for (i = 0; i < ARRAY_SIZE(prots); i++) {
		ASSERT_EQ(1, scratch_find(&start, &end));
		ASSERT_EQ(PAGE, end - start);
		/* A copy of it, with a slot in it that was never asked for. */
		memcpy(copy, (void *)start, PAGE);
		*(u64 *)((char *)copy + 8) = C;
		page = mmap((void *)start, PAGE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		ASSERT_EQ((void *)start, page);
		memcpy(page, copy, PAGE);
		ASSERT_EQ(0, mprotect(page, PAGE, prots[i]));
		apply(op_at(MEM, i & 1 ? A : B));
		EXPECT_MEM(i & 1 ? A : B, 0, 2);
		EXPECT_MMIO(i & 1 ? B : A);
		EXPECT_MMIO(C);
		EXPECT_EQ(1, scratch_find(NULL, NULL));
		ASSERT_EQ(0, mprotect(page, PAGE, PROT_READ));
		EXPECT_EQ(0, memcmp(page, copy, PAGE));
		munmap(page, PAGE);
	}
	/* Moved elsewhere, and made unreadable, it is mapped once more. */
	ASSERT_EQ(1, scratch_find(&start, &end));
	ASSERT_EQ(0, mprotect((void *)start, PAGE, PROT_NONE));
	apply(op_at(MEM, C));
	EXPECT_MEM(C, 0, 2);
	EXPECT_EQ(2, scratch_find(NULL, NULL));
	ASSERT_EQ(2, scratch_unmap());
	apply(op_at(MEM, A));
	ASSERT_EQ(1, scratch_find(&start, &end));
	page = mremap((void *)start, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, copy);
	ASSERT_EQ(copy, page);
	apply(op_at(MEM, B));
	EXPECT_MEM(B, 0, 2);
}

TEST_F(slots, argument_page_readonly)
{
	unsigned long start, end;
	char path[64];
	int fd, zero;
	void *page;

	ASSERT_EQ(1, scratch_find(&start, &end));
	page = (void *)start;
	EXPECT_EQ(PAGE, end - start);
	EXPECT_EQ(-1, mprotect(page, PAGE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(-1, mprotect(page, PAGE, PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	/* Through the kernel, and through the back door of debuggers. */
	zero = open("/dev/zero", O_RDONLY);
	ASSERT_LE(0, zero);
	EXPECT_EQ(-1, (int)read(zero, page, 8));
	EXPECT_EQ(EFAULT, errno);
	fd = open("/proc/self/mem", O_RDWR);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-1, (int)pwrite(fd, "12345678", 8, start));
	close(fd);
	/* No second mapping of it can be had, and no larger one. */
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", start, end);
	fd = open(path, O_RDWR);
	EXPECT_EQ(-1, fd);
	fd = open(path, O_RDONLY);
	EXPECT_EQ(-1, fd);
	EXPECT_EQ(MAP_FAILED, mremap(page, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(1, scratch_find(NULL, NULL));
}

static sigjmp_buf after_fault;
static siginfo_t fault;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	fault = *info;
	siglongjmp(after_fault, 1);
}

TEST_F(slots, argument_page_write_faults)
{
	const struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	unsigned long start, end;

	ASSERT_EQ(1, scratch_find(&start, &end));
	ASSERT_EQ(0, sigaction(SIGSEGV, &action, NULL));
	if (!sigsetjmp(after_fault, 1)) {
		*(volatile u64 *)start = 1;
		ASSERT_TRUE(false)
			TH_LOG("it could be written");
	}
	EXPECT_EQ(SIGSEGV, fault.si_signo);
	EXPECT_EQ(SEGV_ACCERR, fault.si_code);
	EXPECT_EQ((void *)start, fault.si_addr);
}

TEST_F(slots, argument_page_not_inherited)
{
	int status;
	pid_t pid;

	ASSERT_EQ(1, scratch_find(NULL, NULL));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(scratch_find(NULL, NULL));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	/* One for each attached map, and none without a VM. */
	test_cmd_detach(self->fd);
	EXPECT_EQ(0, scratch_find(NULL, NULL));
}

struct unmapper {
	void *page;
	int stop;
};

static void *unmap_all_the_time(void *arg)
{
	struct unmapper *unmapper = arg;

	while (!__atomic_load_n(&unmapper->stop, __ATOMIC_RELAXED))
		munmap(unmapper->page, PAGE);
	return NULL;
}

/*
 * A thread unmaps it in the middle of commits. They may fail; a roll-back may fail
 * too, and the map is then broken and says so. It is never a lie: as long as it is
 * not broken, the guest sees what QUERY tells.
 */
TEST_F_TIMEOUT(slots, argument_page_race, 60)
{
	u32 i, faults = 0, broken = 0;
	struct unmapper unmapper = { 0 };
	unsigned long start, end;
	u64 at = A, next;
	pthread_t thread;
	int rc;

	apply(op_add(MEM, ROOT, A, 0));
	ASSERT_EQ(1, scratch_find(&start, &end));
	unmapper.page = (void *)start;
	ASSERT_EQ(0, pthread_create(&thread, NULL, unmap_all_the_time, &unmapper));
	/* Nothing that maps memory may be called here: it could come to lie there. */
	for (i = 0; i < 150 && !broken; i++) {
		struct gpamap_op op;

		next = at == A ? B : A;
		op = op_at(MEM, next);
		rc = _test_cmd_apply(self->fd, &op, 1, NULL, NULL);
		if (!rc)
			at = next;
		else if (rc == -EFAULT)
			faults++;
		else
			broken++;
		if (broken)
			break;
		EXPECT_MEM(at, 0, 1);
		EXPECT_MMIO(at == A ? B : A);
	}
	__atomic_store_n(&unmapper.stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	TH_LOG("%u commits, %u failed, %u broke the map", i, faults, broken);
	if (!broken)
		return;
	EXPECT_EQ(-EIO, rc);
	EXPECT_EQ((u32)GPAMAP_STATE_BROKEN, query_info(self->fd).state & GPAMAP_STATE_BROKEN);
	test_err_apply(EIO, GPAMAP_NO_OP, self->fd, op_container(9, 0));
	test_err_attach(EIO, self->fd, self->guest.vm, 0, 64);
	test_err_detach(EIO, self->fd);
}

TEST_HARNESS_MAIN

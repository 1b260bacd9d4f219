// SPDX-License-Identifier: GPL-2.0
/*
 * Addresses that a guest chooses, as it does with those of BARs: whatever it writes there, the
 * commit succeeds, and what it finds is what the map says.
 */
#include "harness.h"
#include <linux/kvm.h>
#include <sys/mman.h>
#include "answers.h"
#include "gpamap_util.h"
#include "guest_io.h"

#define PAGE TEST_PAGE
#define LEN (4 * PAGE)

#define ROOT 1
#define BAR 2			/* ram, at A */
#define DEV 3			/* io, nowhere */
#define SPACE 1

#define A 0xd0000000ULL

FIXTURE(addresses) {
	int fd;
	struct guest guest;
	void *io;			/* of the guest */
	unsigned char *mem;
};

FIXTURE_SETUP(addresses)
{
	u32 i;

	ASSERT_EQ(0, guest_create(&self->guest));
	self->io = guest_io_create(&self->guest);
	ASSERT_NE(NULL, self->io);
	self->mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->mem);
	for (i = 0; i < LEN; i++)
		self->mem[i] = i * 7 + (i >> 8);
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_apply(self->fd, op_container(ROOT, U64_MAX), op_io(DEV, 15),
		       op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
}

FIXTURE_TEARDOWN(addresses)
{
	close(self->fd);
	guest_destroy(&self->guest);
	munmap(self->io, GUEST_IO_LEN);
	munmap(self->mem, LEN);
}

#define apply(...) test_cmd_apply(self->fd, __VA_ARGS__)

static u64 value_at(const void *at, u32 len)
{
	u64 value = 0;

	memcpy(&value, at, len);
	return value;
}

/* @_len bytes of the BAR at @_gpa, by reads and writes of all widths, in its first bytes. */
#define EXPECT_BAR(_gpa, _mem)							\
	do {									\
		unsigned char *__at = (_mem);					\
		u64 __v;							\
		u32 __w;							\
		for (__w = 1; __w <= 8; __w *= 2) {				\
			EXPECT_READ((_gpa) + 16, __w, value_at(__at + 16, __w)); \
			EXPECT_READ((_gpa) + 3, __w, value_at(__at + 3, __w));	\
			__v = ~value_at(__at + 24, __w);			\
			EXPECT_DONE(guest_write(&self->guest, (_gpa) + 24, __w, __v)); \
			EXPECT_EQ(0, memcmp(&__v, __at + 24, __w));		\
		}								\
	} while (0)

static u32 nr_slots(int fd)
{
	u32 nr;

	free(query_all(fd, GPAMAP_QUERY_SLOTS, 0, &nr));
	return nr;
}

/* The plan of an operation says the same as the commit: it is done. */
#define EXPECT_MOVED(_op)							\
	do {									\
		struct gpamap_op __op = (_op);					\
		struct gpamap_apply __plan, __done;				\
		EXPECT_EQ(0, _test_cmd_plan(self->fd, GPAMAP_APPLY_DRY_RUN, &__op, 1, &__plan)); \
		ASSERT_EQ(0, _test_cmd_plan(self->fd, 0, &__op, 1, &__done));	\
		EXPECT_EQ(__plan.out_deletes, __done.out_deletes);		\
		EXPECT_EQ(__plan.out_moves, __done.out_moves);			\
		EXPECT_EQ(__plan.out_creates, __done.out_creates);		\
	} while (0)

/* -- memory at other places in its pages than the host's (rule 38) ---------- */

/* Less than a page, in steps of its length. */
TEST_F(addresses, rule_38_bar_below_a_page)
{
	u32 at, other;

	apply(op_ram(BAR, 0x1ff, self->mem), op_add(BAR, ROOT, A, 1));
	for (at = 0; at < PAGE; at += 0x200) {
		EXPECT_MOVED(op_at(BAR, A + at));
		EXPECT_EQ(0u, nr_slots(self->fd));
		EXPECT_BAR(A + at, self->mem);
		for (other = 0; other < PAGE; other += 0x200)
			if (other != at)
				EXPECT_LEAVES(guest_read(&self->guest, A + other + 16, 8));
	}
	/* Over the border of two pages, too. */
	EXPECT_MOVED(op_at(BAR, A + PAGE - 18));
	EXPECT_BAR(A + PAGE - 18, self->mem);
	EXPECT_LEAVES(guest_read(&self->guest, A + PAGE - 18 + 0x200, 8));
}

/* Whole pages among it: no slot, but the same bytes. Where they are congruent, slots. */
TEST_F(addresses, rule_38_whole_pages)
{
	static const u32 places[] = { 1, 4, 0x10, 0x200, 0x801, PAGE - 1 };
	u32 i;

	apply(op_ram(BAR, 3 * PAGE - 1, self->mem), op_add(BAR, ROOT, A, 0));
	EXPECT_EQ(1u, nr_slots(self->fd));
	for (i = 0; i < ARRAY_SIZE(places); i++) {
		EXPECT_MOVED(op_at(BAR, A + places[i]));
		EXPECT_EQ(0u, nr_slots(self->fd));
		EXPECT_BAR(A + places[i], self->mem);
		EXPECT_BAR(A + places[i] + PAGE, self->mem + PAGE);
		EXPECT_BAR(A + places[i] + 2 * PAGE, self->mem + 2 * PAGE);
		EXPECT_LEAVES(guest_read(&self->guest, A + places[i] + 3 * PAGE, 1));
		EXPECT_LEAVES(guest_read(&self->guest, A + places[i] - 1, 1));
	}
	EXPECT_MOVED(op_at(BAR, A + 8 * PAGE));
	EXPECT_EQ(1u, nr_slots(self->fd));
	EXPECT_BAR(A + 8 * PAGE, self->mem);
	EXPECT_LEAVES(guest_read(&self->guest, A + PAGE, 8));
}

/* A window onto another offset in the page, a device over it, and read-only. */
TEST_F(addresses, rule_38_through_an_alias)
{
	apply(op_ram(BAR, LEN - 1, self->mem), op_alias(5, BAR, 0x123, 2 * PAGE - 1),
	      op_add(5, ROOT, A, 0));
	EXPECT_EQ(0u, nr_slots(self->fd));
	EXPECT_BAR(A, self->mem + 0x123);
	EXPECT_BAR(A + PAGE - 20, self->mem + 0x123 + PAGE - 20);
	apply(op_add(DEV, ROOT, A + 0x800, 1));
	EXPECT_LEAVES(guest_read(&self->guest, A + 0x800, 8));
	EXPECT_LEAVES(guest_write(&self->guest, A + 0x7fc, 8, 0));
	EXPECT_BAR(A, self->mem + 0x123);
	EXPECT_BAR(A + 0x810, self->mem + 0x933);
	apply(op_readonly(5, true));
	EXPECT_LEAVES(guest_write(&self->guest, A, 8, 0));
	EXPECT_READ(A, 8, value_at(self->mem + 0x123, 8));
}

/* It is told wherever flags are, and only where it is so. */
TEST_F(addresses, unaligned_is_told)
{
	struct gpamap_lookup found;

	apply(op_ram(BAR, PAGE - 1, self->mem), op_io(6, PAGE - 1), op_add(BAR, ROOT, A + 8, 0),
	      op_add(6, ROOT, A + 2 * PAGE + 8, 0));
	EXPECT_VIEW(self->fd, SPACE, { A + 8, A + PAGE + 7, BAR, 0, GPAMAP_RANGE_UNALIGNED },
		    { A + 2 * PAGE + 8, A + 3 * PAGE + 7, 6, 0, 0 });
	ASSERT_EQ(0, _test_cmd_lookup(self->fd, SPACE, A + 16, &found));
	EXPECT_EQ((u32)GPAMAP_RANGE_UNALIGNED, found.out_flags);
	apply(op_at(BAR, A));
	ASSERT_EQ(0, _test_cmd_lookup(self->fd, SPACE, A + 16, &found));
	EXPECT_EQ(0u, found.out_flags);
}

/* -- where no processor can address it --------------------------------------- */

static u32 address_bits(void)
{
	u32 eax = 0x80000008, ebx, ecx, edx;

	asm("cpuid" : "+a" (eax), "=b" (ebx), "=c" (ecx), "=d" (edx));
	return eax & 0xff;
}

TEST_F(addresses, beyond_the_processor)
{
	const u32 bits = address_bits();
	u32 i;

	if (bits > 51)
		SKIP(return, "the processor has %u bits of address", bits);
	apply(op_ram(BAR, LEN - 1, self->mem), op_add(BAR, ROOT, A, 0));
	for (i = bits; i < 64; i++) {
		EXPECT_MOVED(op_at(BAR, 1ULL << i));
		EXPECT_EQ(0u, nr_slots(self->fd));
		EXPECT_VIEW(self->fd, SPACE, { 1ULL << i, (1ULL << i) + LEN - 1, BAR, 0, 0 });
		EXPECT_LEAVES(guest_read(&self->guest, A, 8));
		EXPECT_MOVED(op_at(BAR, A));
		EXPECT_BAR(A, self->mem);
	}
	/* The very end. */
	EXPECT_MOVED(op_at(BAR, -LEN));
	EXPECT_EQ(0u, nr_slots(self->fd));
	/* Half of it. */
	EXPECT_MOVED(op_at(BAR, (1ULL << bits) - 2 * PAGE));
	EXPECT_SLOTS(self->fd, { (1ULL << bits) - 2 * PAGE, 2, self->mem, 0, 0 });
	/* Attached with it there. */
	test_cmd_detach(self->fd);
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_SLOTS(self->fd, { (1ULL << bits) - 2 * PAGE, 2, self->mem, 0, 0 });
	EXPECT_MOVED(op_at(BAR, A));
	EXPECT_BAR(A, self->mem);
}

TEST_HARNESS_MAIN

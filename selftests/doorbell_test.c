// SPDX-License-Identifier: GPL-2.0
/*
 * Doorbells as the guest rings them: a guest writes, and either an eventfd is signalled
 * and the guest goes on, or the write leaves to the VMM with the address it had.
 *
 * What is rung must follow the map: each test moves, hides or shows regions and looks
 * again. KVM's bus is shared with devices of KVM's, which are put beside, under and over
 * the regions. In the last part vCPUs write without pause while the map changes, and
 * every write must be accounted for.
 *
 * MOVES in the environment: how often the map changes under running vCPUs (500).
 */
#include "harness.h"
#include <fcntl.h>
#include <gpamap.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include "debugfs.h"
#include "gpamap_util.h"
#include "guest_io.h"
#include "leaks.h"

#define PAGE TEST_PAGE
#define MIB 0x100000ULL
#define GIB 0x40000000ULL

/* Regions; DEV is at A, OTHER and PLAIN are attached to nothing. */
#define ROOT 1
#define DEV 2			/* io, four pages */
#define OTHER 3			/* io, four pages */
#define PLAIN 4			/* io, four pages; without doorbells */
#define PORTS 5			/* root of the ports */
#define PDEV 6			/* io, 16 ports, at PORT */
#define MEM 7			/* ram, four pages */
#define ALIAS 8
#define BOX 9
#define NEW 100
#define SPACE 1
#define IO_SPACE 2

#define DEV_LEN (4 * PAGE)
#define A 0x10000000ULL
#define B 0x50000000ULL
#define C 0x140000000ULL	/* above 4 GiB */
#define PORT 0x500

/* The eventfds, as bits. */
#define NR_BELLS 4
#define BELL0 1
#define BELL1 2
#define BELL2 4
#define BELL3 8

static int doorbell(int fd, u32 flags, u32 region, u64 offset, u32 len, u64 value,
		    int bell)
{
	struct gpamap_doorbell cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.region = region,
		.len = len,
		.offset = offset,
		.value = value,
		.fd = bell,
	};

	return map_ioctl(fd, GPAMAP_DOORBELL, &cmd);
}

/* How often an eventfd was signalled since it was asked last. */
static u64 count_of(int bell)
{
	u64 n;

	return read(bell, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

/* Those signalled once, as bits; 0x100 for one that was more often. */
static u32 rung(const int *bells)
{
	u32 i, mask = 0;

	for (i = 0; i < NR_BELLS; i++) {
		u64 n = count_of(bells[i]);

		if (n)
			mask |= n == 1 ? 1U << i : 0x100;
	}
	return mask;
}

FIXTURE(bell) {
	int fd;
	struct guest guest;
	void *io;			/* of the guest */
	int bells[NR_BELLS];
	char *mem;
};

static int create_map(int vm, char *mem)
{
	struct gpamap_op ops[] = {
		op_container(ROOT, U64_MAX),
		op_io(DEV, DEV_LEN - 1),
		op_io(OTHER, DEV_LEN - 1),
		op_io(PLAIN, DEV_LEN - 1),
		op_ram(MEM, DEV_LEN - 1, mem),
		op_container(PORTS, 0xffff),
		op_io(PDEV, 15),
		op_add(DEV, ROOT, A, 0),
		op_add(PDEV, PORTS, PORT, 0),
		op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT),
		op_space(IO_SPACE, GPAMAP_SPACE_IO, PORTS),
	};
	int fd = map_open();
	int rc;

	if (fd < 0)
		return fd;
	rc = _test_cmd_apply(fd, ops, ARRAY_SIZE(ops), NULL, NULL);
	rc = rc ?: _test_cmd_attach(fd, vm, 0, 64);
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

FIXTURE_SETUP(bell)
{
	u32 i;

	ASSERT_EQ(0, guest_create(&self->guest));
	self->io = guest_io_create(&self->guest);
	ASSERT_NE(NULL, self->io);
	self->mem = mmap(NULL, DEV_LEN, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->mem);
	for (i = 0; i < NR_BELLS; i++) {
		self->bells[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		ASSERT_LE(0, self->bells[i]);
	}
	self->fd = create_map(self->guest.vm, self->mem);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(bell)
{
	u32 i;

	if (self->fd >= 0)
		close(self->fd);
	guest_destroy(&self->guest);
	munmap(self->io, GUEST_IO_LEN);
	for (i = 0; i < NR_BELLS; i++)
		close(self->bells[i]);
	EXPECT_NOTHING_LEFT();
}

#define apply(...) test_cmd_apply(self->fd, __VA_ARGS__)

/* Of bell @_i, of any length or 1, 2, 4, 8; and one that wants a value. */
#define bell_rc(_region, _offset, _len, _i)					\
	doorbell(self->fd, 0, _region, _offset, _len, 0, self->bells[_i])
#define add_bell(_region, _offset, _len, _i)					\
	ASSERT_EQ(0, bell_rc(_region, _offset, _len, _i))
#define match_rc(_region, _offset, _len, _value, _i)				\
	doorbell(self->fd, GPAMAP_DOORBELL_MATCH, _region, _offset, _len, _value, \
		 self->bells[_i])
#define add_match(_region, _offset, _len, _value, _i)				\
	ASSERT_EQ(0, match_rc(_region, _offset, _len, _value, _i))
#define remove_rc(_region, _offset, _len, _i)					\
	doorbell(self->fd, GPAMAP_DOORBELL_REMOVE, _region, _offset, _len, 0,	\
		 self->bells[_i])
#define remove_bell(_region, _offset, _len, _i)					\
	ASSERT_EQ(0, remove_rc(_region, _offset, _len, _i))

static u64 cut(u64 value, u32 len)
{
	return len == 8 ? value : value & ((1ULL << (8 * len)) - 1);
}

#define EXPECT_ACCESS(_a, _at, _len, _value, _mask)				\
	do {									\
		u32 __rung = rung(self->bells);					\
		u64 __at = _at;							\
		u32 __mask = _mask;						\
		EXPECT_EQ((int)(__mask ? GUEST_RAM : GUEST_MMIO), (int)(_a).how) \
			TH_LOG("%u bytes at 0x%llx, exit %d", _len,		\
			       (unsigned long long)__at, (_a).reason);		\
		EXPECT_EQ(__mask, __rung)					\
			TH_LOG("%u bytes at 0x%llx", _len,			\
			       (unsigned long long)__at);			\
		if (!__mask && (_a).how == GUEST_MMIO) {			\
			EXPECT_EQ(__at, (_a).mmio_gpa);				\
			EXPECT_EQ((u32)(_len), (_a).mmio_len);			\
			EXPECT_EQ(true, (_a).mmio_write);			\
			EXPECT_EQ(cut(_value, _len), (_a).mmio_value);		\
		}								\
	} while (0)

/* A write that rings exactly the bells of @_mask; with none, leaves to the VMM. */
#define EXPECT_WRITE(_gpa, _len, _value, _mask)					\
	do {									\
		struct guest_access __w =					\
			guest_write(&self->guest, _gpa, _len, _value);		\
		EXPECT_ACCESS(__w, _gpa, _len, _value, _mask);			\
	} while (0)
#define EXPECT_RINGS(_gpa, _mask) EXPECT_WRITE(_gpa, 8, 0x1122334455667788ULL, _mask)
#define EXPECT_LEAVES(_gpa) EXPECT_RINGS(_gpa, 0)

#define EXPECT_OUT(_port, _len, _value, _mask)					\
	do {									\
		struct guest_access __w =					\
			guest_out(&self->guest, _port, _len, _value);		\
		EXPECT_ACCESS(__w, _port, _len, _value, _mask);			\
	} while (0)

/* A read leaves, and rings nothing. */
#define EXPECT_READ_LEAVES(_gpa, _len)						\
	do {									\
		struct guest_access __r = guest_read(&self->guest, _gpa, _len);	\
		EXPECT_EQ((int)GUEST_MMIO, (int)__r.how);			\
		EXPECT_EQ((u64)(_gpa), __r.mmio_gpa);				\
		EXPECT_EQ((u32)(_len), __r.mmio_len);				\
		EXPECT_EQ(cut(GUEST_MMIO_ANSWER, _len), __r.value);		\
		EXPECT_EQ(0u, rung(self->bells));				\
	} while (0)

/* -- what rings ------------------------------------------------------------ */

TEST_F(bell, rings_where_it_is)
{
	EXPECT_LEAVES(A + 0x100);
	add_bell(DEV, 0x100, 8, 0);
	EXPECT_RINGS(A + 0x100, BELL0);
	EXPECT_RINGS(A + 0x100, BELL0);
	EXPECT_LEAVES(A + 0xf8);
	EXPECT_LEAVES(A + 0xff);
	EXPECT_LEAVES(A + 0x101);
	EXPECT_LEAVES(A + 0x108);
	EXPECT_LEAVES(A);
	EXPECT_LEAVES(A + DEV_LEN - 8);
	EXPECT_LEAVES(B + 0x100);
	EXPECT_EQ(1u, (u32)!!(query_info(self->fd).features & GPAMAP_FEATURE_DOORBELL));
}

TEST_F(bell, first_and_last_byte)
{
	add_bell(DEV, 0, 1, 0);
	add_bell(DEV, DEV_LEN - 1, 1, 1);
	add_bell(DEV, DEV_LEN - 8, 8, 2);
	EXPECT_WRITE(A, 1, 5, BELL0);
	EXPECT_WRITE(A + DEV_LEN - 1, 1, 5, BELL1);
	EXPECT_RINGS(A + DEV_LEN - 8, BELL2);
	EXPECT_WRITE(A - 1, 1, 5, 0);
	EXPECT_WRITE(A + DEV_LEN, 1, 5, 0);
}

TEST_F(bell, reads_leave)
{
	u32 len;

	add_bell(DEV, 0, 0, 0);
	add_bell(DEV, 0, 4, 1);
	for (len = 1; len <= 8; len *= 2)
		EXPECT_READ_LEAVES(A, len);
	EXPECT_WRITE(A, 4, 0, BELL0 | BELL1);
}

/* All lengths, with and without a value, against all widths of writes and values. */
TEST_F_TIMEOUT(bell, widths_and_values, 120)
{
	static const u32 lens[] = { 0, 1, 2, 4, 8 };
	/* What is waited for, and what is written: equal in all, some or no bytes. */
	static const u64 values[] = {
		0, 0x5a, 0xa55a, 0x1234a55a, 0xdeadbeef1234a55aULL, U64_MAX,
		0x100000000000005aULL,
	};
	u32 i, v, w, width, nr = 0;

	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		/* By offset: one that takes all, then one for each value. */
		add_bell(DEV, i * 0x100, lens[i], 0);
		for (v = 0; lens[i] && v < ARRAY_SIZE(values); v++)
			add_match(DEV, i * 0x100 + 0x10 + 8 * v, lens[i],
				  cut(values[v], lens[i]), 1);
	}
	for (i = 0; i < ARRAY_SIZE(lens); i++) {
		for (width = 1; width <= 8; width *= 2) {
			bool fits = !lens[i] || lens[i] == width;

			EXPECT_WRITE(A + i * 0x100, width, values[width % 5],
				     fits ? BELL0 : 0);
			for (v = 0; lens[i] && v < ARRAY_SIZE(values); v++) {
				for (w = 0; w < ARRAY_SIZE(values); w++, nr++) {
					bool same = cut(values[w], width) ==
						    cut(values[v], width);

					EXPECT_WRITE(A + i * 0x100 + 0x10 + 8 * v, width,
						     values[w], fits && same ? BELL1 : 0);
				}
			}
		}
	}
	EXPECT_EQ(4u * 4 * 7 * 7, nr);
}

/* An offset need not be a multiple of anything. */
TEST_F(bell, misaligned)
{
	u32 at;

	for (at = 0; at < 8; at++) {
		add_bell(DEV, 0x201 + at, 4, at % 2);
		EXPECT_WRITE(A + 0x201 + at, 4, 7, 1U << at % 2);
	}
	EXPECT_WRITE(A + 0x200, 4, 7, 0);
	EXPECT_WRITE(A + 0x209, 4, 7, 0);
}

TEST_F(bell, all_at_one_offset_ring)
{
	add_bell(DEV, 0x40, 4, 0);
	add_bell(DEV, 0x40, 4, 1);
	add_bell(DEV, 0x40, 0, 2);
	add_match(DEV, 0x40, 4, 77, 3);
	EXPECT_WRITE(A + 0x40, 4, 77, BELL0 | BELL1 | BELL2 | BELL3);
	EXPECT_WRITE(A + 0x40, 4, 78, BELL0 | BELL1 | BELL2);
	EXPECT_WRITE(A + 0x40, 8, 77, BELL2);
	/* One eventfd for several doorbells is signalled for each. */
	add_bell(DEV, 0x40, 0, 3);
	EXPECT_EQ((int)GUEST_RAM, (int)guest_write(&self->guest, A + 0x40, 4, 77).how);
	EXPECT_EQ(2u, count_of(self->bells[3]));
	EXPECT_EQ((u32)(BELL0 | BELL1 | BELL2), rung(self->bells));
}

/* Whichever of those at an offset goes, the others stay. */
TEST_F(bell, remove)
{
	u32 order, i;

	for (order = 0; order < 3; order++) {
		u32 mask = 7;

		for (i = 0; i < 3; i++)
			add_bell(DEV, 0x80, 8, i);
		add_bell(DEV, 0x88, 8, 3);
		EXPECT_RINGS(A + 0x80, mask);
		for (i = 0; i < 3; i++) {
			u32 gone = (order + i) % 3;

			remove_bell(DEV, 0x80, 8, gone);
			mask &= ~(1U << gone);
			EXPECT_RINGS(A + 0x80, mask);
			EXPECT_EQ(-ENOENT, remove_rc(DEV, 0x80, 8, gone));
		}
		EXPECT_RINGS(A + 0x88, BELL3);
		remove_bell(DEV, 0x88, 8, 3);
		EXPECT_LEAVES(A + 0x88);
	}
}

/* Rule 44: what must be equal for two to be the same. */
TEST_F(bell, rule_44_the_same)
{
	int again = dup(self->bells[0]);

	ASSERT_LE(0, again);
	add_match(DEV, 0x10, 4, 9, 0);
	EXPECT_EQ(-EEXIST, match_rc(DEV, 0x10, 4, 9, 0));
	EXPECT_EQ(-EEXIST, doorbell(self->fd, GPAMAP_DOORBELL_MATCH, DEV, 0x10, 4, 9, again));
	add_match(DEV, 0x10, 4, 9, 1);
	add_match(DEV, 0x10, 4, 8, 0);
	add_match(DEV, 0x10, 2, 9, 0);
	add_match(DEV, 0x11, 4, 9, 0);
	add_match(OTHER, 0x10, 4, 9, 0);
	/* Without a value it is not the one with value 0. */
	add_match(DEV, 0x20, 4, 0, 0);
	add_bell(DEV, 0x20, 4, 0);
	add_bell(DEV, 0x20, 0, 0);
	EXPECT_EQ(-EEXIST, bell_rc(DEV, 0x20, 4, 0));
	EXPECT_EQ(-EEXIST, bell_rc(DEV, 0x20, 0, 0));

	EXPECT_EQ(-ENOENT, remove_rc(DEV, 0x10, 4, 0));
	EXPECT_EQ(-ENOENT, doorbell(self->fd, GPAMAP_DOORBELL_REMOVE | GPAMAP_DOORBELL_MATCH,
				    DEV, 0x10, 4, 7, self->bells[0]));
	EXPECT_EQ(-ENOENT, doorbell(self->fd, GPAMAP_DOORBELL_REMOVE | GPAMAP_DOORBELL_MATCH,
				    DEV, 0x10, 8, 9, self->bells[0]));
	EXPECT_EQ(-ENOENT, doorbell(self->fd, GPAMAP_DOORBELL_REMOVE | GPAMAP_DOORBELL_MATCH,
				    DEV, 0x12, 4, 9, self->bells[0]));
	EXPECT_EQ(-ENOENT, doorbell(self->fd, GPAMAP_DOORBELL_REMOVE | GPAMAP_DOORBELL_MATCH,
				    DEV, 0x10, 4, 9, self->bells[2]));
	EXPECT_EQ(-ENOENT, remove_rc(PLAIN, 0x10, 4, 0));
	EXPECT_WRITE(A + 0x10, 4, 9, BELL0 | BELL1);
	EXPECT_EQ(0, doorbell(self->fd, GPAMAP_DOORBELL_REMOVE | GPAMAP_DOORBELL_MATCH, DEV,
			      0x10, 4, 9, again));
	EXPECT_WRITE(A + 0x10, 4, 9, BELL1);
	close(again);
}

/* -- where it rings -------------------------------------------------------- */

TEST_F(bell, rule_43_moves_with_the_region)
{
	add_bell(DEV, 0x100, 8, 0);
	EXPECT_RINGS(A + 0x100, BELL0);
	apply(op_at(DEV, B));
	EXPECT_LEAVES(A + 0x100);
	EXPECT_RINGS(B + 0x100, BELL0);
	apply(op_at(DEV, C + 0x123));
	EXPECT_LEAVES(B + 0x100);
	EXPECT_RINGS(C + 0x223, BELL0);
	/* By a part of its own length: the places overlap. */
	apply(op_at(DEV, C + 0x1123));
	EXPECT_LEAVES(C + 0x223);
	EXPECT_RINGS(C + 0x1223, BELL0);
	/* With the container. */
	apply(op_del(DEV), op_container(BOX, 64 * PAGE - 1), op_add(DEV, BOX, PAGE, 0),
	      op_add(BOX, ROOT, B, 0));
	EXPECT_LEAVES(C + 0x1223);
	EXPECT_RINGS(B + PAGE + 0x100, BELL0);
	apply(op_at(BOX, A));
	EXPECT_LEAVES(B + PAGE + 0x100);
	EXPECT_RINGS(A + PAGE + 0x100, BELL0);
	/* Two that change places, in one commit. */
	add_bell(OTHER, 0x100, 8, 1);
	apply(op_add(OTHER, ROOT, B, 0));
	EXPECT_RINGS(B + 0x100, BELL1);
	apply(op_at(OTHER, A + PAGE), op_at(BOX, B - PAGE));
	EXPECT_RINGS(B + 0x100, BELL0);
	EXPECT_RINGS(A + PAGE + 0x100, BELL1);
}

TEST_F(bell, rule_43_hidden_is_gone)
{
	add_bell(DEV, 0x100, 8, 0);
	add_bell(DEV, 2 * PAGE, 8, 1);
	apply(op_enable(DEV, false));
	EXPECT_LEAVES(A + 0x100);
	apply(op_enable(DEV, true));
	EXPECT_RINGS(A + 0x100, BELL0);
	apply(op_del(DEV));
	EXPECT_LEAVES(A + 0x100);
	apply(op_add(DEV, ROOT, A, 0));
	EXPECT_RINGS(A + 0x100, BELL0);
	/* Under another region, in part and in whole. */
	apply(op_add(PLAIN, ROOT, A + PAGE, 1));
	EXPECT_RINGS(A + 0x100, BELL0);
	EXPECT_LEAVES(A + 2 * PAGE);
	apply(op_at(PLAIN, A));
	EXPECT_LEAVES(A + 0x100);
	EXPECT_LEAVES(A + 2 * PAGE);
	apply(op_prio(PLAIN, -1));
	EXPECT_RINGS(A + 0x100, BELL0);
	EXPECT_RINGS(A + 2 * PAGE, BELL1);
	/* Under memory. */
	apply(op_add(MEM, ROOT, A, 1));
	EXPECT_GUEST_WRITE_RAM(&self->guest, A + 0x100, self->mem + 0x100, 0x77ULL);
	EXPECT_EQ(0u, rung(self->bells));
	apply(op_del(MEM));
	EXPECT_RINGS(A + 0x100, BELL0);
	/* Cut short. */
	apply(op_last(DEV, 2 * PAGE - 1));
	EXPECT_RINGS(A + 0x100, BELL0);
	EXPECT_LEAVES(A + 2 * PAGE);
	apply(op_last(DEV, DEV_LEN - 1));
	EXPECT_RINGS(A + 2 * PAGE, BELL1);
	/* Where nobody looks. */
	apply(op_space_destroy(SPACE));
	EXPECT_LEAVES(A + 0x100);
	apply(op_space(SPACE, GPAMAP_SPACE_VIEW, ROOT));
	EXPECT_LEAVES(A + 0x100);
	apply(op_space_destroy(SPACE), op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	EXPECT_RINGS(A + 0x100, BELL0);
}

TEST_F(bell, rule_43_twice_through_two_aliases)
{
	add_bell(DEV, 0x1100, 8, 0);
	apply(op_del(DEV), op_alias(ALIAS, DEV, 0, DEV_LEN - 1),
	      op_alias(NEW, DEV, PAGE, PAGE - 1), op_add(ALIAS, ROOT, B, 0),
	      op_add(NEW, ROOT, C, 0));
	EXPECT_LEAVES(A + 0x1100);
	EXPECT_RINGS(B + 0x1100, BELL0);
	EXPECT_RINGS(C + 0x100, BELL0);
	apply(op_add(DEV, ROOT, A, 0));
	EXPECT_RINGS(A + 0x1100, BELL0);
	EXPECT_RINGS(B + 0x1100, BELL0);
	EXPECT_RINGS(C + 0x100, BELL0);
	/* The window moves over it. */
	apply(op_offset(NEW, 0x1080));
	EXPECT_LEAVES(C + 0x100);
	EXPECT_RINGS(C + 0x80, BELL0);
	apply(op_offset(NEW, 0x1101));
	EXPECT_LEAVES(C);
	EXPECT_RINGS(B + 0x1100, BELL0);
	/* An alias of an alias, and side by side: both in one stretch. */
	apply(op_alias(BOX, ALIAS, PAGE, PAGE - 1), op_add(BOX, ROOT, B - PAGE, 0));
	EXPECT_RINGS(B - PAGE + 0x100, BELL0);
	EXPECT_RINGS(B + 0x1100, BELL0);
	apply(op_enable(ALIAS, false));
	EXPECT_LEAVES(B - PAGE + 0x100);
	EXPECT_LEAVES(B + 0x1100);
	EXPECT_RINGS(A + 0x1100, BELL0);
}

/* The doorbell's eight bytes lie in two pieces of the region: four in each. */
TEST_F(bell, rule_43_once_if_it_straddles_two_pieces)
{
	add_bell(DEV, 0x17c, 8, 0);
	add_bell(OTHER, 0, 0, 1);
	apply(op_alias(ALIAS, DEV, 0x100, 0x7f), op_alias(NEW, DEV, 0x180, 0x7f),
	      op_add(ALIAS, ROOT, B, 0), op_add(NEW, ROOT, C + 0x800, 0), op_del(DEV));
	/* Where the second piece is, it would begin before that. */
	EXPECT_LEAVES(C + 0x7fc);
	EXPECT_LEAVES(C + 0x800);
	/* At the first it goes over the end of the stretch. */
	EXPECT_LEAVES(B + 0x7c);
	/* Rule 46: another stretch behind it, of the same region or not, is no end. */
	apply(op_at(NEW, B + 0x80));
	EXPECT_RINGS(B + 0x7c, BELL0);
	EXPECT_LEAVES(B + 0x80);
	apply(op_at(NEW, C + 0x800), op_last(OTHER, 0x7f), op_add(OTHER, ROOT, B + 0x80, 0));
	EXPECT_RINGS(B + 0x7c, BELL0);
	EXPECT_RINGS(B + 0x80, BELL1);
	/* Cut in two where it lies by one above it: still once. */
	apply(op_del(OTHER), op_add(DEV, ROOT, A, 0), op_del(ALIAS), op_last(OTHER, 3),
	      op_add(OTHER, ROOT, A + 0x180, 1));
	EXPECT_RINGS(A + 0x17c, BELL0);
	EXPECT_RINGS(A + 0x180, BELL1);
}

TEST_F(bell, rule_46_the_first_byte_decides)
{
	add_bell(DEV, DEV_LEN - 4, 0, 0);
	add_bell(DEV, DEV_LEN - 1, 0, 2);
	add_bell(OTHER, 0, 0, 1);
	apply(op_at(DEV, A + 0x800), op_add(OTHER, ROOT, A + 0x800 + DEV_LEN, 0));
	EXPECT_WRITE(A + 0x800 + DEV_LEN - 4, 4, 1, BELL0);
	EXPECT_WRITE(A + 0x800 + DEV_LEN - 4, 8, 1, BELL0);
	EXPECT_WRITE(A + 0x800 + DEV_LEN - 1, 8, 1, BELL2);
	EXPECT_WRITE(A + 0x800 + DEV_LEN, 8, 1, BELL1);
	/* Behind a region without doorbells the stretch ends. */
	apply(op_del(OTHER), op_add(PLAIN, ROOT, A + 0x800 + DEV_LEN, 0));
	EXPECT_WRITE(A + 0x800 + DEV_LEN - 4, 4, 1, BELL0);
	EXPECT_WRITE(A + 0x800 + DEV_LEN - 4, 8, 1, 0);
	EXPECT_WRITE(A + 0x800 + DEV_LEN - 1, 1, 1, BELL2);
	EXPECT_WRITE(A + 0x800 + DEV_LEN - 1, 2, 1, 0);
	/* The same before nothing at all. */
	apply(op_del(PLAIN));
	EXPECT_WRITE(A + 0x800 + DEV_LEN - 4, 8, 1, 0);
	EXPECT_WRITE(A + 0x800 + DEV_LEN - 4, 4, 1, BELL0);
}

/* A write over the border of two pages is two to KVM, each for itself. */
TEST_F(bell, over_the_border_of_a_page)
{
	struct kvm_run *run = self->guest.run;

	add_bell(DEV, PAGE - 4, 8, 0);
	ASSERT_EQ(0, guest_loop(&self->guest, 0, GUEST_LOOP_WRITE, A + PAGE - 4, 1,
				0x1122334455667788ULL));
	ASSERT_EQ(KVM_EXIT_MMIO, guest_io_run(&self->guest));
	EXPECT_EQ(A + PAGE - 4, (u64)run->mmio.phys_addr);
	EXPECT_EQ(4u, run->mmio.len);
	ASSERT_EQ(KVM_EXIT_MMIO, guest_io_run(&self->guest));
	EXPECT_EQ(A + PAGE, (u64)run->mmio.phys_addr);
	EXPECT_EQ(4u, run->mmio.len);
	EXPECT_EQ(KVM_EXIT_HLT, guest_io_run(&self->guest));
	EXPECT_EQ(0u, rung(self->bells));

	add_bell(DEV, PAGE - 4, 4, 1);
	add_match(DEV, PAGE, 4, 0x11223344, 2);
	EXPECT_RINGS(A + PAGE - 4, BELL1 | BELL2);
}

/* -- what it can be on ----------------------------------------------------- */

TEST_F(bell, rom_and_reserved)
{
	*(u64 *)self->mem = 0x600dULL;
	apply(op_rom(NEW, DEV_LEN - 1, self->mem), op_add(NEW, ROOT, B, 0),
	      op_reserved(BOX, PAGE - 1), op_add(BOX, ROOT, C, 0));
	add_bell(NEW, 0, 8, 0);
	add_bell(BOX, 8, 8, 1);
	/* The slot is there, for reading. */
	EXPECT_GUEST_RAM(&self->guest, B, 0x600d);
	EXPECT_RINGS(B, BELL0);
	EXPECT_LEAVES(B + 8);
	EXPECT_GUEST_RAM(&self->guest, B, 0x600d);
	EXPECT_RINGS(C + 8, BELL1);
	EXPECT_LEAVES(C);
	EXPECT_READ_LEAVES(C + 8, 8);
}

TEST_F(bell, romd)
{
	*(u64 *)self->mem = 0x600dULL;
	apply(op_romd(NEW, DEV_LEN - 1, self->mem), op_add(NEW, ROOT, B, 0));
	add_bell(NEW, 0, 8, 0);
	EXPECT_READ_LEAVES(B, 8);
	EXPECT_RINGS(B, BELL0);
	apply(op_romd_mode(NEW, true));
	EXPECT_GUEST_RAM(&self->guest, B, 0x600d);
	EXPECT_RINGS(B, BELL0);
	EXPECT_LEAVES(B + 8);
	EXPECT_GUEST_RAM(&self->guest, B, 0x600d);
	apply(op_at(NEW, C));
	EXPECT_LEAVES(B);
	EXPECT_GUEST_RAM(&self->guest, C, 0x600d);
	EXPECT_RINGS(C, BELL0);
	apply(op_romd_mode(NEW, false));
	EXPECT_READ_LEAVES(C, 8);
	EXPECT_RINGS(C, BELL0);
}

TEST_F(bell, ports)
{
	add_bell(PDEV, 0, 1, 0);
	add_bell(PDEV, 4, 0, 1);
	add_match(PDEV, 8, 2, 0x1234, 2);
	add_bell(PDEV, 12, 4, 3);
	EXPECT_OUT(PORT, 1, 7, BELL0);
	EXPECT_OUT(PORT, 2, 7, 0);
	EXPECT_OUT(PORT, 4, 7, 0);
	EXPECT_OUT(PORT + 1, 1, 7, 0);
	EXPECT_OUT(PORT + 4, 1, 7, BELL1);
	EXPECT_OUT(PORT + 4, 2, 7, BELL1);
	EXPECT_OUT(PORT + 4, 4, 7, BELL1);
	EXPECT_OUT(PORT + 8, 2, 0x1234, BELL2);
	EXPECT_OUT(PORT + 8, 2, 0x1235, 0);
	EXPECT_OUT(PORT + 12, 4, 0xffffffff, BELL3);
	EXPECT_OUT(PORT - 1, 1, 7, 0);
	EXPECT_OUT(PORT + 16, 1, 7, 0);
	EXPECT_LEAVES(PORT);

	struct guest_access in = guest_in(&self->guest, PORT, 1);

	EXPECT_EQ((int)GUEST_MMIO, (int)in.how);
	EXPECT_EQ((u64)PORT, in.mmio_gpa);
	EXPECT_EQ(false, in.mmio_write);
	EXPECT_EQ(cut(GUEST_MMIO_ANSWER, 1), in.value);
	EXPECT_EQ(0u, rung(self->bells));

	/* It follows. */
	apply(op_at(PDEV, 0x3f8));
	EXPECT_OUT(PORT, 1, 7, 0);
	EXPECT_OUT(0x3f8, 1, 7, BELL0);
	apply(op_alias(ALIAS, PDEV, 4, 3), op_add(ALIAS, PORTS, 0xfffc, 0));
	EXPECT_OUT(0xfffc, 1, 7, BELL1);
	EXPECT_OUT(0x3fc, 1, 7, BELL1);
	apply(op_enable(PDEV, false));
	EXPECT_OUT(0x3f8, 1, 7, 0);
	EXPECT_OUT(0xfffc, 1, 7, 0);
	/* In memory and at ports at once. */
	apply(op_enable(PDEV, true), op_alias(BOX, PDEV, 0, 15), op_add(BOX, ROOT, B, 0));
	EXPECT_OUT(0x3f8, 1, 7, BELL0);
	EXPECT_WRITE(B, 1, 7, BELL0);
	EXPECT_RINGS(B + 4, BELL1);
	apply(op_del(BOX));
	EXPECT_WRITE(B, 1, 7, 0);
	EXPECT_OUT(0x3f8, 1, 7, BELL0);
}

/* rep outs: no element is rung twice, or rung and told to the VMM. */
TEST_F(bell, string_output)
{
	static const u32 values[] = { 7, 7, 8, 7, 9, 9, 7, 8 };
	u32 left[ARRAY_SIZE(values)];
	int nr;

	memcpy((char *)self->io + PAGE, values, sizeof(values));
	nr = guest_outs(&self->guest, PORT, 4, ARRAY_SIZE(values), left);
	ASSERT_EQ((int)ARRAY_SIZE(values), nr);
	EXPECT_EQ(0, memcmp(left, values, sizeof(values)));
	/* All of it. */
	add_bell(PDEV, 0, 4, 0);
	nr = guest_outs(&self->guest, PORT, 4, ARRAY_SIZE(values), left);
	EXPECT_EQ(0, nr);
	EXPECT_EQ((u64)ARRAY_SIZE(values), count_of(self->bells[0]));
	remove_bell(PDEV, 0, 4, 0);
	/* Some of it: what KVM drops is neither. */
	add_match(PDEV, 0, 4, 7, 1);
	nr = guest_outs(&self->guest, PORT, 4, ARRAY_SIZE(values), left);
	TH_LOG("%d of 4 elements that ring nothing left", nr);
	ASSERT_LE(0, nr);
	EXPECT_GE(4, nr);
	EXPECT_LE(1u, count_of(self->bells[1]));
	while (nr--)
		EXPECT_NE(7u, left[nr]);
}

TEST_F(bell, wrong_kind)
{
	apply(op_container(BOX, 0xfff), op_alias(ALIAS, DEV, 0, 0xfff));
	EXPECT_EQ(-EOPNOTSUPP, bell_rc(ROOT, 0, 8, 0));
	EXPECT_EQ(-EOPNOTSUPP, bell_rc(BOX, 0, 8, 0));
	EXPECT_EQ(-EOPNOTSUPP, bell_rc(ALIAS, 0, 8, 0));
	EXPECT_EQ(-EOPNOTSUPP, bell_rc(MEM, 0, 8, 0));
	EXPECT_EQ(-ENOENT, remove_rc(MEM, 0, 8, 0));
}

/* -- errors ---------------------------------------------------------------- */

#define EXPECT_BELL_ERR(_errno, ...)						\
	EXPECT_ERR_UNCHANGED(_errno, self->fd, doorbell(self->fd, __VA_ARGS__))

TEST_F(bell, bad_members)
{
	static const u32 lens[] = { 3, 5, 6, 7, 9, 12, 16, 0x100, 0x80000000, UINT32_MAX };
	int bell = self->bells[0], closed = dup(bell), null = open("/dev/null", O_RDWR);
	u32 i;

	ASSERT_LE(0, closed);
	close(closed);
	ASSERT_LE(0, null);
	EXPECT_BELL_ERR(ENOENT, 0, 0, 0, 8, 0, bell);
	EXPECT_BELL_ERR(ENOENT, 0, NEW, 0, 8, 0, bell);
	EXPECT_BELL_ERR(ENOENT, 0, UINT32_MAX, 0, 8, 0, bell);
	for (i = 0; i < ARRAY_SIZE(lens); i++)
		EXPECT_BELL_ERR(EINVAL, 0, DEV, 0, lens[i], 0, bell);
	/* The value. */
	EXPECT_BELL_ERR(EINVAL, 0, DEV, 0, 8, 1, bell);
	EXPECT_BELL_ERR(EINVAL, GPAMAP_DOORBELL_MATCH, DEV, 0, 0, 0, bell);
	for (i = 1; i <= 8; i *= 2)
		EXPECT_BELL_ERR(EINVAL, GPAMAP_DOORBELL_FAST, DEV, 0, i, 0, bell);
	EXPECT_BELL_ERR(EINVAL, GPAMAP_DOORBELL_FAST, DEV, 0, 0, 1, bell);
	EXPECT_BELL_ERR(EINVAL, GPAMAP_DOORBELL_FAST | GPAMAP_DOORBELL_MATCH, DEV, 0, 0, 0, bell);
	EXPECT_BELL_ERR(EINVAL, GPAMAP_DOORBELL_FAST | GPAMAP_DOORBELL_REMOVE, DEV, 0, 0, 0, bell);
	EXPECT_BELL_ERR(EINVAL, GPAMAP_DOORBELL_MATCH, DEV, 0, 1, 0x100, bell);
	EXPECT_BELL_ERR(EINVAL, GPAMAP_DOORBELL_MATCH, DEV, 0, 2, 0x10000, bell);
	EXPECT_BELL_ERR(EINVAL, GPAMAP_DOORBELL_MATCH, DEV, 0, 4, 0x100000000, bell);
	EXPECT_BELL_ERR(EINVAL, GPAMAP_DOORBELL_MATCH, DEV, 0, 1, 1ULL << 63, bell);
	/* The offset. */
	EXPECT_BELL_ERR(EINVAL, 0, DEV, DEV_LEN, 0, 0, bell);
	EXPECT_BELL_ERR(EINVAL, 0, DEV, DEV_LEN, 1, 0, bell);
	EXPECT_BELL_ERR(EINVAL, 0, DEV, DEV_LEN - 1, 2, 0, bell);
	EXPECT_BELL_ERR(EINVAL, 0, DEV, DEV_LEN - 7, 8, 0, bell);
	EXPECT_BELL_ERR(EINVAL, 0, DEV, U64_MAX, 0, 0, bell);
	EXPECT_BELL_ERR(EINVAL, 0, DEV, U64_MAX, 8, 0, bell);
	EXPECT_BELL_ERR(EINVAL, 0, DEV, U64_MAX - 6, 8, 0, bell);
	/* The eventfd. */
	EXPECT_BELL_ERR(EBADF, 0, DEV, 0, 8, 0, -1);
	EXPECT_BELL_ERR(EBADF, 0, DEV, 0, 8, 0, closed);
	EXPECT_BELL_ERR(EBADF, GPAMAP_DOORBELL_REMOVE, DEV, 0, 8, 0, closed);
	EXPECT_BELL_ERR(EINVAL, 0, DEV, 0, 8, 0, null);
	EXPECT_BELL_ERR(EINVAL, 0, DEV, 0, 8, 0, self->fd);
	EXPECT_BELL_ERR(EINVAL, 0, DEV, 0, 8, 0, self->guest.vm);
	EXPECT_BELL_ERR(EINVAL, GPAMAP_DOORBELL_REMOVE, DEV, 0, 8, 0, null);
	close(null);
	/* Nothing of all this is there, so this is the first. */
	EXPECT_LEAVES(A);
	EXPECT_EQ(-ENOENT, remove_rc(DEV, 0, 8, 0));

	/* And what is just right. */
	add_match(DEV, 0, 1, 0xff, 0);
	add_match(DEV, 0, 2, 0xffff, 0);
	add_match(DEV, 0, 4, 0xffffffff, 0);
	add_match(DEV, 0, 8, U64_MAX, 0);
	add_bell(DEV, DEV_LEN - 8, 8, 0);
	add_bell(DEV, DEV_LEN - 1, 1, 0);
	add_bell(DEV, DEV_LEN - 1, 0, 0);
}

/* A region of 2^64 bytes has offsets to the end. */
TEST_F(bell, largest_region)
{
	apply(op_io(NEW, U64_MAX));
	EXPECT_BELL_ERR(EINVAL, 0, NEW, U64_MAX - 6, 8, 0, self->bells[0]);
	EXPECT_BELL_ERR(EINVAL, 0, NEW, U64_MAX, 2, 0, self->bells[0]);
	add_bell(NEW, U64_MAX - 7, 8, 0);
	add_bell(NEW, U64_MAX, 1, 0);
	add_bell(NEW, U64_MAX, 0, 0);
	/* Too long for the bus, wherever it is seen. */
	test_err_apply(ENOSPC, 0, self->fd, op_add(NEW, ROOT, 0, -1));
	apply(op_alias(ALIAS, NEW, U64_MAX - PAGE + 1, PAGE - 1), op_add(ALIAS, ROOT, B, 0));
	EXPECT_RINGS(B + PAGE - 8, BELL0);
	EXPECT_WRITE(B + PAGE - 1, 1, 1, 0x100);
}

TEST_F(bell, destroy_is_busy)
{
	add_bell(DEV, 0, 8, 0);
	add_bell(OTHER, 0, 8, 1);
	apply(op_del(DEV));
	test_err_apply(EBUSY, 0, self->fd, op_destroy(DEV));
	test_err_apply(EBUSY, 1, self->fd, op_destroy(PLAIN), op_destroy(OTHER));
	remove_bell(DEV, 0, 8, 0);
	remove_bell(OTHER, 0, 8, 1);
	apply(op_destroy(DEV), op_destroy(OTHER));
	EXPECT_EQ(-ENOENT, bell_rc(DEV, 0, 8, 0));
	/* The id is a new region's, with nothing tied to it. */
	apply(op_io(DEV, DEV_LEN - 1), op_add(DEV, ROOT, A, 0));
	EXPECT_LEAVES(A);
	add_bell(DEV, 0, 8, 2);
	EXPECT_RINGS(A, BELL2);
}

TEST_F(bell, another_process)
{
	pid_t pid;

	add_bell(DEV, 0, 8, 0);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (bell_rc(DEV, 8, 8, 1) != -EIO)
			_exit(1);
		_exit(remove_rc(DEV, 0, 8, 0) == -EIO ? 0 : 2);
	}
	ASSERT_CHILD_OK(pid);
	EXPECT_RINGS(A, BELL0);
	EXPECT_LEAVES(A + 8);
	/* Without a VM it may, and its eventfds are as good as any. */
	test_cmd_detach(self->fd);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(bell_rc(DEV, 8, 8, 1) || remove_rc(DEV, 0, 8, 0));
	ASSERT_CHILD_OK(pid);
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_LEAVES(A);
	EXPECT_RINGS(A + 8, BELL1);
}

/* A commit that fails for another reason has not moved the doorbell either. */
TEST_F(bell, refused_and_dry)
{
	struct gpamap_op move = op_at(DEV, B);
	struct gpamap_apply dry = {
		.size = sizeof(dry),
		.flags = GPAMAP_APPLY_DRY_RUN,
		.ops = (uintptr_t)&move,
		.nr_ops = 1,
		.op_size = sizeof(move),
	};

	add_bell(DEV, 0x100, 8, 0);
	ASSERT_EQ(0, guest_set_slot(&self->guest, 600, 0, C, 1, self->mem));
	test_err_apply(EEXIST, 1, self->fd, op_at(DEV, B), op_add(MEM, ROOT, C, 0));
	EXPECT_LEAVES(B + 0x100);
	EXPECT_RINGS(A + 0x100, BELL0);
	test_err_apply(ENOENT, 1, self->fd, op_at(DEV, B), op_add(NEW, ROOT, C, 0));
	EXPECT_RINGS(A + 0x100, BELL0);
	ASSERT_EQ(0, guest_set_slot(&self->guest, 600, 0, C, 0, self->mem));

	EXPECT_EQ(0, map_ioctl(self->fd, GPAMAP_APPLY, &dry));
	EXPECT_LEAVES(B + 0x100);
	EXPECT_RINGS(A + 0x100, BELL0);
	apply(op_at(DEV, B), op_add(MEM, ROOT, C, 0));
	EXPECT_LEAVES(A + 0x100);
	EXPECT_RINGS(B + 0x100, BELL0);
}

TEST_F(bell, library)
{
	struct gpamap *map;

	errno = 77;
	ASSERT_EQ(0, gpamap_from_fd(dup(self->fd), &map));
	EXPECT_EQ(0, gpamap_doorbell_add(map, DEV, 0, 8, self->bells[0]));
	EXPECT_EQ(0, gpamap_doorbell_add(map, DEV, 0, 0, self->bells[1]));
	EXPECT_EQ(0, gpamap_doorbell_add_match(map, DEV, 0, 4, 5, self->bells[2]));
	EXPECT_EQ(-EEXIST, gpamap_doorbell_add(map, DEV, 0, 8, self->bells[0]));
	EXPECT_EQ(-EEXIST, gpamap_doorbell_add_match(map, DEV, 0, 4, 5, self->bells[2]));
	EXPECT_EQ(-EINVAL, gpamap_doorbell_add(map, DEV, 0, 3, self->bells[0]));
	EXPECT_EQ(-EINVAL, gpamap_doorbell_add_match(map, DEV, 0, 0, 0, self->bells[0]));
	EXPECT_EQ(-EBADF, gpamap_doorbell_add(map, DEV, 8, 8, -1));
	EXPECT_EQ(-ENOENT, gpamap_doorbell_remove(map, DEV, 0, 4, self->bells[2]));
	EXPECT_EQ(77, errno);
	EXPECT_WRITE(A, 8, 5, BELL0 | BELL1);
	EXPECT_WRITE(A, 4, 5, BELL1 | BELL2);
	EXPECT_EQ(0, gpamap_doorbell_remove_match(map, DEV, 0, 4, 5, self->bells[2]));
	EXPECT_EQ(-ENOENT, gpamap_doorbell_remove_match(map, DEV, 0, 4, 5, self->bells[2]));
	EXPECT_EQ(0, gpamap_doorbell_remove(map, DEV, 0, 0, self->bells[1]));
	EXPECT_WRITE(A, 4, 5, 0);
	EXPECT_WRITE(A, 8, 5, BELL0);
	gpamap_close(map);
}

/* It is behind the end of its region, rings no more, and can be removed. */
TEST_F(bell, removed_behind_the_end)
{
	apply(op_io(NEW, PAGE - 1), op_add(NEW, ROOT, B, 0));
	add_bell(NEW, 0x800, 8, 0);
	EXPECT_RINGS(B + 0x800, BELL0);
	apply(op_last(NEW, 0x3ff));
	EXPECT_LEAVES(B + 0x800);
	EXPECT_EQ(-EINVAL, bell_rc(NEW, 0x800, 8, 1));
	apply(op_last(NEW, PAGE - 1));
	EXPECT_RINGS(B + 0x800, BELL0);
	apply(op_last(NEW, 0x3ff));
	remove_bell(NEW, 0x800, 8, 0);
	apply(op_del(NEW), op_destroy(NEW));
}

/* -- limits ---------------------------------------------------------------- */

TEST_F_TIMEOUT(bell, limit_doorbells, 180)
{
	const u32 nr = GPAMAP_MAX_DOORBELLS - 1;
	struct gpamap_op *ops = calloc(nr, sizeof(*ops));
	u32 i;

	ASSERT_NE(NULL, ops);
	apply(op_io(NEW, MIB - 1), op_add(NEW, ROOT, B, 0));
	/* The first ones one by one: the table grows from commit to commit, then within one. */
	for (i = 0; i < 100; i++)
		add_bell(NEW, i * 8, 8, i % 3);
	for (; i < nr; i++)
		ops[i] = op_doorbell(NEW, i * 8, 8, self->bells[i % 3]);
	test_cmd_apply_ops(self->fd, ops + 100, nr - 100);
	free(ops);
	add_bell(DEV, 0, 8, 3);
	EXPECT_EQ(-ENOSPC, bell_rc(NEW, i * 8, 8, 0));
	EXPECT_EQ(-ENOSPC, bell_rc(DEV, 0, 8, 0));
	EXPECT_EQ(-ENOSPC, bell_rc(OTHER, 0, 8, 0));
	EXPECT_EQ(-EEXIST, bell_rc(DEV, 0, 8, 3));
	for (i = 0; i < GPAMAP_MAX_DOORBELLS - 1; i += 4099)
		EXPECT_RINGS(B + i * 8, 1U << i % 3);
	EXPECT_RINGS(A, BELL3);
	remove_bell(DEV, 0, 8, 3);
	EXPECT_LEAVES(A);
	add_bell(OTHER, 0, 8, 0);
	EXPECT_EQ(-ENOSPC, bell_rc(DEV, 0, 8, 3));
	/* What is left is freed with the map. */
}

/* What one write can ring: so many with no value, and so many with the value that it has. */
TEST_F_TIMEOUT(bell, limit_same_doorbells, 120)
{
	int bells[2][GPAMAP_MAX_SAME_DOORBELLS];
	u32 i, n;

	for (i = 0; i < GPAMAP_MAX_SAME_DOORBELLS; i++)
		for (n = 0; n < 2; n++) {
			bells[n][i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
			ASSERT_LE(0, bells[n][i]);
			ASSERT_EQ(0, doorbell(self->fd, n ? GPAMAP_DOORBELL_MATCH : 0, DEV, 0,
					      8, n ? 7 : 0, bells[n][i]));
		}
	EXPECT_EQ(-ENOSPC, bell_rc(DEV, 0, 8, 0));
	EXPECT_EQ(-ENOSPC, bell_rc(DEV, 0, 4, 0));
	EXPECT_EQ(-ENOSPC, match_rc(DEV, 0, 8, 7, 0));
	/* At another offset, or with another value. */
	add_bell(DEV, 8, 8, 0);
	add_match(DEV, 0, 8, 8, 1);
	EXPECT_RINGS(A + 8, BELL0);
	EXPECT_WRITE(A, 8, 8, BELL1);
	EXPECT_EQ((int)GUEST_RAM, (int)guest_write(&self->guest, A, 8, 7).how);
	for (i = 0; i < GPAMAP_MAX_SAME_DOORBELLS; i++) {
		EXPECT_EQ(2u, count_of(bells[0][i]));
		EXPECT_EQ(1u, count_of(bells[1][i]));
		close(bells[0][i]);
		close(bells[1][i]);
	}
}

/*
 * In container BOX, @_nr regions of 256 bytes from id @_first on, @_stride apart from
 * @_at on, each with bell @_i at 0x10.
 */
#define add_regions(_first, _nr, _at, _stride, _i)				\
	do {									\
		u32 __n;							\
		for (__n = 0; __n < (_nr); __n++) {				\
			apply(op_io((_first) + __n, 0xff),			\
			      op_add((_first) + __n, BOX, (_at) + __n * (_stride), 0)); \
			add_bell((_first) + __n, 0x10, 8, _i);			\
		}								\
	} while (0)

/* How many stretches KVM is to ask about on the memory bus. */
static u32 nr_stretches(void)
{
	char dir[256], *text, *line;
	u32 nr = 0;

	if (debugfs_find(0, dir, sizeof(dir)) != 1)
		return 0;
	text = debugfs_read(dir, "bus");
	for (line = text; line && (line = strstr(line, "memory ")); line++)
		nr++;
	free(text);
	return nr;
}

/*
 * Regions that touch are one stretch of the bus; those that do not are one each, and joined
 * where they are too many: the shortest gaps first, in which accesses leave as before.
 */
TEST_F_TIMEOUT(bell, more_stretches_than_the_bus_has, 180)
{
	const u32 max = GPAMAP_MAX_BUS_RANGES;
	u32 i;

	apply(op_flags(op_container(BOX, 4 * MIB - 1), GPAMAP_REGION_DISABLED),
	      op_add(BOX, ROOT, B, 0));
	add_regions(1000, max - 1, 0, 0x200, 0);
	add_regions(2000, 1000, MIB, 0x100, 1);
	apply(op_enable(BOX, true));
	EXPECT_EQ(max, nr_stretches());
	for (i = 0; i < max - 1; i++) {
		EXPECT_RINGS(B + i * 0x200 + 0x10, BELL0);
		EXPECT_LEAVES(B + i * 0x200 + 0x110);
	}
	for (i = 0; i < 1000; i++)
		EXPECT_RINGS(B + MIB + i * 0x100 + 0x10, BELL1);
	EXPECT_LEAVES(B + MIB - 8);
	EXPECT_LEAVES(B + MIB + 1000 * 0x100);

	/* Some too many: tied to, shown, holes in what touches, and at ATTACH. */
	add_bell(DEV, 0, 8, 2);
	EXPECT_EQ(max, nr_stretches());
	EXPECT_RINGS(A, BELL2);
	add_bell(OTHER, 0, 8, 3);
	apply(op_add(OTHER, ROOT, C, 0), op_enable(2500, false), op_enable(2502, false));
	EXPECT_EQ(max, nr_stretches());
	EXPECT_RINGS(A, BELL2);
	EXPECT_RINGS(C, BELL3);
	EXPECT_LEAVES(B + MIB + 500 * 0x100 + 0x10);
	EXPECT_RINGS(B + MIB + 501 * 0x100 + 0x10, BELL1);
	EXPECT_LEAVES(B + MIB + 502 * 0x100 + 0x10);
	for (i = 0; i < max - 1; i++) {
		EXPECT_RINGS(B + i * 0x200 + 0x10, BELL0);
		EXPECT_LEAVES(B + i * 0x200 + 0x110);
	}
	test_cmd_detach(self->fd);
	EXPECT_LEAVES(B + 0x10);
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_EQ(max, nr_stretches());
	EXPECT_RINGS(B + 0x10, BELL0);
	EXPECT_RINGS(C, BELL3);
	/* A gap that has a device of KVM's is not joined across, and the others suffice. */
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, map_ioctl(self->guest.vm, KVM_IOEVENTFD, &(struct kvm_ioeventfd){
			.addr = B + i * 0x200 + 0x110, .len = 8, .fd = self->bells[3] }));
	apply(op_enable(2504, false));
	EXPECT_EQ(max, nr_stretches());
	for (i = 0; i < max - 1; i++) {
		EXPECT_RINGS(B + i * 0x200 + 0x10, BELL0);
		EXPECT_WRITE(B + i * 0x200 + 0x110, 8, 1, i < 4 ? BELL3 : 0);
	}
	/* The ports have a bus of their own. */
	add_bell(PDEV, 0, 1, 3);
	EXPECT_OUT(PORT, 1, 0, BELL3);
}

/* 1000 devices that do not touch, with KVM's own between all of them. */
TEST_F_TIMEOUT(bell, a_thousand_devices, 180)
{
	u32 i;

	apply(op_flags(op_container(BOX, 16 * MIB - 1), GPAMAP_REGION_DISABLED),
	      op_add(BOX, ROOT, B, 0));
	for (i = 0; i < 1000; i++) {
		struct kvm_ioeventfd io = { .addr = B + i * 0x4000 + 0x1100, .len = 8,
			.fd = self->bells[3] };

		ASSERT_EQ(0, map_ioctl(self->guest.vm, KVM_IOEVENTFD, &io));
	}
	add_regions(1000, 1000, 0, 0x4000, 0);
	apply(op_enable(BOX, true));
	EXPECT_EQ(1000u, nr_stretches());
	for (i = 0; i < 1000; i++) {
		EXPECT_RINGS(B + i * 0x4000 + 0x10, BELL0);
		EXPECT_RINGS(B + i * 0x4000 + 0x1100, BELL3);
		EXPECT_LEAVES(B + i * 0x4000 + 0x1108);
	}
	/* Or in one region of ours, which has more pieces than that then. */
	apply(op_enable(BOX, false));
	apply(op_io(NEW, 16 * MIB - 1), op_add(NEW, ROOT, B, 0));
	for (i = 0; i < 1000; i++)
		add_bell(NEW, i * 0x4000 + 0x1108, 8, 1);
	EXPECT_EQ(1u, nr_stretches());
	for (i = 0; i < 1000; i++) {
		EXPECT_RINGS(B + i * 0x4000 + 0x1100, BELL3);
		EXPECT_RINGS(B + i * 0x4000 + 0x1108, BELL1);
	}
	/* KVM has room for others all the same. */
	for (i = 0; i < 900; i++) {
		struct kvm_coalesced_mmio_zone zone = { .addr = C + i * 16, .size = 8 };

		ASSERT_EQ(0, map_ioctl(self->guest.vm, KVM_REGISTER_COALESCED_MMIO, &zone));
	}
	apply(op_at(NEW, B + 0x4000));
	EXPECT_RINGS(B + 0x5100, BELL3);
	EXPECT_RINGS(B + 0x5108, BELL1);
}

/* A range of the bus ends after 1 GiB at the latest. */
TEST_F(bell, long_stretches)
{
	u64 base = GIB + PAGE;
	u32 i;

	apply(op_io(NEW, 3 * GIB - 1), op_add(NEW, ROOT, base, 0));
	for (i = 0; i < 3; i++) {
		add_bell(NEW, i * GIB, 8, i);
		add_bell(NEW, i * GIB + GIB / 2 + 0x123, 8, i);
		add_bell(NEW, i * GIB + GIB - 8, 8, i);
	}
	for (i = 0; i < 3; i++) {
		EXPECT_RINGS(base + i * GIB, 1U << i);
		EXPECT_RINGS(base + i * GIB + GIB / 2 + 0x123, 1U << i);
		EXPECT_RINGS(base + i * GIB + GIB - 8, 1U << i);
		EXPECT_LEAVES(base + i * GIB + 8);
	}
	EXPECT_LEAVES(base - 8);
	EXPECT_LEAVES(base + 3 * GIB);
	/* Where one range ends and the next begins, inside of a page. */
	apply(op_at(NEW, base + 0x100));
	EXPECT_RINGS(base + 0x100 + GIB, BELL1);
	EXPECT_RINGS(base + 0x100 + GIB - 8, BELL0);
	apply(op_del(NEW));
	EXPECT_LEAVES(base + 0x100 + GIB);
}

TEST_F(bell, longest_stretch)
{
	const u64 most = GPAMAP_MAX_BUS_LEN;

	add_bell(DEV, 0, 8, 0);
	apply(op_io(NEW, most - DEV_LEN), op_add(NEW, ROOT, 8 * GIB, 0));
	EXPECT_BELL_ERR(ENOSPC, 0, NEW, 0, 8, 0, self->bells[1]);
	EXPECT_EQ(-ENOENT, remove_rc(NEW, 0, 8, 1));
	EXPECT_RINGS(A, BELL0);
	apply(op_del(NEW));
	add_bell(NEW, 0, 8, 1);
	test_err_apply(ENOSPC, 0, self->fd, op_add(NEW, ROOT, 8 * GIB, 0));
	test_cmd_detach(self->fd);
	apply(op_add(NEW, ROOT, 8 * GIB, 0));
	test_err_attach(ENOSPC, self->fd, self->guest.vm, 0, 64);
	apply(op_last(NEW, most - DEV_LEN - 1));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_RINGS(A, BELL0);
	apply(op_at(NEW, 8 * GIB - PAGE));
	EXPECT_RINGS(8 * GIB - PAGE, BELL1);
}

/* -- KVM's own devices ----------------------------------------------------- */

/* An ioeventfd, or a coalesced zone, in memory or at ports. */
struct foreign {
	bool zone;
	bool pio;
	u64 addr;
	u32 len;
};

static int foreign_set(int vm, const struct foreign *f, int bell, bool there)
{
	struct kvm_ioeventfd io = {
		.addr = f->addr,
		.len = f->len,
		.fd = bell,
		.flags = (f->pio ? KVM_IOEVENTFD_FLAG_PIO : 0) |
			 (there ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
	};
	struct kvm_coalesced_mmio_zone zone = {
		.addr = f->addr,
		.size = f->len,
		.pio = f->pio,
	};

	if (!f->zone)
		return map_ioctl(vm, KVM_IOEVENTFD, &io);
	return map_ioctl(vm, there ? KVM_REGISTER_COALESCED_MMIO :
				     KVM_UNREGISTER_COALESCED_MMIO, &zone);
}

#define foreign_add(_f)								\
	ASSERT_EQ(0, foreign_set(self->guest.vm, _f, self->bells[3], true))
#define foreign_del(_f)								\
	ASSERT_EQ(0, foreign_set(self->guest.vm, _f, self->bells[3], false))

/* Where it lies from the beginning of a region of LEN bytes on. */
#define LEN 32
static const struct placement {
	bool zone;
	int at;
	u32 len;
} placements[] = {
	{ false, -4, 4 },
	{ false, -1, 1 },
	{ false, -2, 4 },
	{ false, 0, 4 },
	{ false, 12, 2 },
	{ false, 16, 8 },
	{ false, LEN - 4, 4 },
	{ false, LEN - 2, 4 },
	{ false, LEN - 1, 1 },
	{ false, LEN, 4 },
	/* Of any length: it takes one byte. */
	{ false, -1, 0 },
	{ false, 0, 0 },
	{ false, 12, 0 },
	{ false, LEN - 4, 0 },
	{ false, LEN, 0 },
	{ true, -16, 16 },
	{ true, -16, 17 },
	{ true, -16, LEN },
	{ true, -16, LEN + 32 },
	{ true, 0, LEN },
	{ true, 1, 1 },
	{ true, 8, 8 },
	{ true, LEN - 1, 16 },
	{ true, LEN, 16 },
};

/* In memory or at a port. */
#define EXPECT_WRITE_OR_OUT(_pio, _at, _len, _mask)				\
	do {									\
		if (_pio)							\
			EXPECT_OUT(_at, _len, 1, _mask);			\
		else								\
			EXPECT_WRITE(_at, _len, 1, _mask);			\
	} while (0)

/* If there is a write that it wants. */
#define EXPECT_RINGS_FOREIGN(_f)						\
	do {									\
		if (!(_f)->zone && !((_f)->pio && (_f)->len > 4))		\
			EXPECT_WRITE_OR_OUT((_f)->pio, (_f)->addr, (_f)->len ?: 1, BELL3); \
	} while (0)

/* Whether KVM's zone has room for it or not. */
#define EXPECT_RINGS_NOTHING(_pio, _at)						\
	do {									\
		if (_pio)							\
			guest_out(&self->guest, _at, 4, 1);			\
		else								\
			guest_write(&self->guest, _at, 4, 1);			\
		EXPECT_EQ(0u, rung(self->bells));				\
	} while (0)

/* 0 or 1; 2 if QUERY and LOOKUP do not say the same. */
static int is_shadowed(int fd, u32 space, u64 at)
{
	struct gpamap_range_info *ranges;
	struct gpamap_lookup found;
	bool shadowed = false;
	u32 i, n;

	ranges = query_all(fd, GPAMAP_QUERY_RANGES, space, &n);
	for (i = 0; ranges && i < n; i++)
		if (ranges[i].start <= at && ranges[i].last >= at)
			shadowed = ranges[i].flags & GPAMAP_RANGE_SHADOWED;
	free(ranges);
	if (_test_cmd_lookup(fd, space, at, &found) ||
	    shadowed != !!(found.out_flags & GPAMAP_RANGE_SHADOWED))
		return 2;
	return shadowed;
}

/*
 * The region @at has a bell of 4 bytes at each multiple of 4: all of them ring but where the
 * device of KVM's is. What begins in that is its, whether it wants it or not.
 */
static void check_around(struct __test_metadata *_metadata, FIXTURE_DATA(bell) *self,
			 const struct foreign *f, u64 at, bool there)
{
	u64 end = f->addr + (f->len ?: 1), a;

	for (a = at; a < at + LEN; a += 4) {
		bool apart = !there || a + 4 <= f->addr || a >= end;

		if (apart)
			EXPECT_WRITE_OR_OUT(f->pio, a, 4, BELL0);
		else if (!f->zone)
			EXPECT_WRITE_OR_OUT(f->pio, a, 4,
					    a == f->addr && (!f->len || f->len == 4) ? BELL3 : 0);
		else
			EXPECT_RINGS_NOTHING(f->pio, a);
	}
	if (there)
		EXPECT_RINGS_FOREIGN(f);
	EXPECT_EQ((int)(there && f->addr < at + LEN && end > at),
		  is_shadowed(self->fd, f->pio ? IO_SPACE : SPACE, at + 8));
}

static void check_placement(struct __test_metadata *_metadata,
			    FIXTURE_DATA(bell) *self, const struct placement *p, bool pio)
{
	u32 dev = pio ? NEW + 1 : NEW, root = pio ? PORTS : ROOT;
	u64 at = pio ? 0x1000 : B + 0x100;
	struct foreign f = {
		.zone = p->zone,
		.pio = pio,
		.addr = at + p->at,
		.len = p->len,
	};

	/* It is there when the region comes, */
	foreign_add(&f);
	apply(op_add(dev, root, at, 0));
	check_around(_metadata, self, &f, at, true);
	test_cmd_detach(self->fd);
	EXPECT_EQ(0, is_shadowed(self->fd, pio ? IO_SPACE : SPACE, at + 8));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	check_around(_metadata, self, &f, at, true);
	/* and goes: the next commit, of whatever it is, fills its place. */
	foreign_del(&f);
	EXPECT_EQ(0, is_shadowed(self->fd, pio ? IO_SPACE : SPACE, at + 8));
	apply(op_enable(PLAIN, false));
	check_around(_metadata, self, &f, at, false);
	/* It comes later, and has what is its at once; the rest is found after the next. */
	foreign_add(&f);
	EXPECT_RINGS_FOREIGN(&f);
	EXPECT_EQ((int)(p->at < LEN && p->at + (int)(p->len ?: 1) > 0),
		  is_shadowed(self->fd, pio ? IO_SPACE : SPACE, at + 8));
	apply(op_enable(PLAIN, true));
	check_around(_metadata, self, &f, at, true);
	/* The region goes, and it stays. */
	apply(op_del(dev));
	EXPECT_RINGS_FOREIGN(&f);
	foreign_del(&f);
	if (!_metadata->passed)
		TH_LOG("%s %s at 0x%llx, %u bytes", pio ? "port" : "memory",
		       p->zone ? "zone" : "ioeventfd", (unsigned long long)f.addr, f.len);
}

TEST_F_TIMEOUT(bell, foreign_devices, 120)
{
	u32 i;

	apply(op_io(NEW, LEN - 1), op_io(NEW + 1, LEN - 1));
	for (i = 0; i < LEN; i += 4) {
		add_bell(NEW, i, 4, 0);
		add_bell(NEW + 1, i, 4, 0);
	}
	for (i = 0; i < ARRAY_SIZE(placements) && _metadata->passed; i++) {
		check_placement(_metadata, self, &placements[i], false);
		if (_metadata->passed)
			check_placement(_metadata, self, &placements[i], true);
	}
}

/* How often something is in the flat views that debugfs shows. */
static u32 nr_shown(const char *what)
{
	char dir[256], *text, *at;
	u32 nr = 0;

	if (debugfs_find(0, dir, sizeof(dir)) != 1)
		return 0;
	text = debugfs_read(dir, "flat");
	for (at = text; at && (at = strstr(at, what)); at++)
		nr++;
	free(text);
	return nr;
}

/* What was tied first does not matter. */
TEST_F(bell, first_tie_over_a_foreign_device)
{
	struct foreign f = { .addr = A + 0x800, .len = 8 };

	foreign_add(&f);
	/* Without anything tied KVM asks it alone, which is told all the same. */
	EXPECT_RINGS(A + 0x800, BELL3);
	EXPECT_EQ(1, is_shadowed(self->fd, SPACE, A));
	EXPECT_EQ(1u, nr_shown("[shadowed]"));
	ASSERT_EQ(0, policy_set(self->fd, DEV, GPAMAP_POLICY_TELL));
	EXPECT_RINGS(A + 0x800, BELL3);
	EXPECT_LEAVES(A + 0x808);
	add_bell(DEV, 0x800, 8, 0);
	add_bell(DEV, 0x808, 8, 1);
	EXPECT_RINGS(A + 0x800, BELL3);
	EXPECT_RINGS(A + 0x808, BELL1);
	/* Away from it all is the region's. */
	apply(op_at(DEV, C));
	EXPECT_EQ(0, is_shadowed(self->fd, SPACE, C));
	EXPECT_EQ(0u, nr_shown("[shadowed]"));
	EXPECT_RINGS(C + 0x800, BELL0);
	EXPECT_RINGS(A + 0x800, BELL3);
	apply(op_at(DEV, A));
	EXPECT_EQ(1, is_shadowed(self->fd, SPACE, A));
	/* Memory is before it: not shadowed, but for what cannot be written. */
	apply(op_add(MEM, ROOT, A, 1));
	EXPECT_EQ(0, is_shadowed(self->fd, SPACE, A));
	apply(op_readonly(MEM, true));
	EXPECT_EQ(1, is_shadowed(self->fd, SPACE, A));
	EXPECT_RINGS(A + 0x800, BELL3);
}

/* Between ranges of ours there may be as many as there are. */
TEST_F_TIMEOUT(bell, foreign_devices_between, 120)
{
	u32 i;

	apply(op_flags(op_container(BOX, MIB - 1), GPAMAP_REGION_DISABLED),
	      op_add(BOX, ROOT, B, 0));
	add_regions(1000, 100, 0, 0x300, 0);
	for (i = 0; i < 200; i++) {
		struct foreign f = { .addr = B + i / 2 * 0x300 + 0x100 + i % 2 * 0x1f0,
				     .len = 8 };

		foreign_add(&f);
	}
	apply(op_enable(BOX, true));
	for (i = 0; i < 100; i++) {
		EXPECT_RINGS(B + i * 0x300 + 0x10, BELL0);
		EXPECT_RINGS(B + i * 0x300 + 0x100, BELL3);
		EXPECT_RINGS(B + i * 0x300 + 0x2f0, BELL3);
		EXPECT_LEAVES(B + i * 0x300 + 0x200);
	}
	apply(op_enable(BOX, false));
	for (i = 0; i < 100; i++) {
		EXPECT_LEAVES(B + i * 0x300 + 0x10);
		EXPECT_RINGS(B + i * 0x300 + 0x100, BELL3);
		EXPECT_RINGS(B + i * 0x300 + 0x2f0, BELL3);
	}
}

/* Devices come and go one by one, and many at once, while the map does not. */
TEST_F_TIMEOUT(bell, foreign_devices_come_and_go, 120)
{
	struct foreign f = { .len = 8 };
	u32 i, round;

	for (i = 0; i < 16; i++)
		add_bell(DEV, i * 0x100, 8, 0);
	for (round = 0; round < 4; round++) {
		u32 there = 0x5a3c >> round & 0xffff;

		for (i = 0; i < 16; i++) {
			f.addr = A + i * 0x100;
			if (!(there & 1U << i))
				continue;
			foreign_add(&f);
			EXPECT_RINGS(f.addr, BELL3);
		}
		/* None of them is asked for another, before and after the next commit. */
		for (i = 0; i < 16; i++)
			if (there & 1U << i)
				EXPECT_RINGS(A + i * 0x100, BELL3);
		apply(op_enable(PLAIN, round & 1));
		for (i = 0; i < 16; i++)
			EXPECT_RINGS(A + i * 0x100, there & 1U << i ? BELL3 : BELL0);
		/* One takes the place of another: as many as before. */
		for (i = 0; i < 16; i++) {
			if (!(there & 1U << i) || there & 1U << ((i + 1) % 16))
				continue;
			f.addr = A + i * 0x100;
			foreign_del(&f);
			f.addr = A + (i + 1) % 16 * 0x100;
			foreign_add(&f);
			EXPECT_RINGS(f.addr, BELL3);
			foreign_del(&f);
			f.addr = A + i * 0x100;
			foreign_add(&f);
		}
		for (i = 0; i < 16; i++) {
			f.addr = A + i * 0x100;
			if (there & 1U << i)
				foreign_del(&f);
		}
		apply(op_enable(PLAIN, !(round & 1)));
		for (i = 0; i < 16; i++)
			EXPECT_RINGS(A + i * 0x100, BELL0);
	}
}

/*
 * So many are before ours that KVM's search comes to ours first, and from there to the next only:
 * those inside of it get what is theirs all the same.
 */
TEST_F(bell, foreign_devices_behind_ours)
{
	struct foreign f = { .len = 8 };
	u32 i;

	for (i = 0; i < 4; i++) {
		f.addr = A - 0x100 + i * 0x10;
		foreign_add(&f);
	}
	for (i = 0; i < 16; i++)
		add_bell(DEV, i * 0x100, 8, 0);
	EXPECT_RINGS(A + 0x300, BELL0);
	for (i = 1; i < 4; i++) {
		f.addr = A + i * 0x100;
		foreign_add(&f);
	}
	for (i = 1; i < 4; i++)
		EXPECT_RINGS(A + i * 0x100, BELL3);
}

/* New kernels do not wait when a device is added: a grace period may be under way for another. */
TEST_F(bell, foreign_device_in_a_grace_period)
{
	struct foreign f = { .addr = A + 0x100, .len = 8 }, other = { .len = 8 };
	u32 i;

	for (i = 0; i < 16; i++)
		add_bell(DEV, i * 0x100, 8, 0);
	for (i = 0; i < 15; i++) {
		other.addr = C + 0x10000 + i * 0x10;
		foreign_add(&other);
		EXPECT_RINGS(A + 0x800, BELL0);
		foreign_add(&f);
		EXPECT_RINGS(A + 0x100, BELL3);
		foreign_del(&f);
		EXPECT_RINGS(A + 0x100, BELL0);
		usleep(20000);
	}
}

/* What reaches into one that came later leaves, as it does after the next commit. */
TEST_F(bell, write_into_a_foreign_device)
{
	struct foreign f = { .addr = A + 0x104, .len = 4 };

	add_bell(DEV, 0x100, 0, 0);
	EXPECT_RINGS(A + 0x100, BELL0);
	foreign_add(&f);
	EXPECT_LEAVES(A + 0x100);
	apply(op_enable(PLAIN, false));
	EXPECT_LEAVES(A + 0x100);
	EXPECT_WRITE(A + 0x100, 4, 1, BELL0);
	EXPECT_WRITE(A + 0x104, 4, 1, BELL3);
}

/* KVM takes a zone that goes on from 2^64 to 0. */
TEST_F(bell, foreign_zone_around_the_end)
{
	struct foreign first = { .addr = A + 0x100, .len = 8 };
	struct foreign zone = { .zone = true, .addr = 0xfffffffffffff000ULL, .len = 0x2000 };
	struct foreign second = { .addr = A + 0x200, .len = 8 };

	add_bell(DEV, 0x300, 8, 0);
	foreign_add(&first);
	foreign_add(&zone);
	EXPECT_EQ(1, is_shadowed(self->fd, SPACE, A));
	foreign_add(&second);
	apply(op_enable(PLAIN, false));
	EXPECT_EQ(1, is_shadowed(self->fd, SPACE, A));
	EXPECT_RINGS(A + 0x300, BELL0);
}

/* Regions so far apart that a gap is longer than what is saved are not joined. */
TEST_F_TIMEOUT(bell, stretches_far_apart, 180)
{
	const u32 nr = GPAMAP_MAX_BUS_RANGES + 2;
	u32 i;

	apply(op_flags(op_container(BOX, U64_MAX - GIB * 8), GPAMAP_REGION_DISABLED),
	      op_add(BOX, ROOT, GIB, 0));
	for (i = 0; i < nr; i++) {
		apply(op_io(1000 + i, 0xff), op_add(1000 + i, BOX, (u64)i * 2 * GIB, 0));
		add_bell(1000 + i, 0x10, 8, 0);
	}
	apply(op_enable(BOX, true));
	EXPECT_EQ(nr, nr_stretches());
	/* Which the guest can reach. */
	for (i = 0; i < 3; i++)
		EXPECT_RINGS(GIB + i * 2 * GIB + 0x10, BELL0);
	/* As far as there are addresses, too. */
	apply(op_enable(BOX, false));
	for (i = 0; i < nr; i++)
		apply(op_at(1000 + i, (u64)i << 54));
	apply(op_enable(BOX, true));
	EXPECT_RINGS(GIB + 0x10, BELL0);
}

/* Threads that look up without pause where there is no memslot, and commits. */
struct looker {
	int fd;
	u32 stop;
	u64 nr;
};

static void *look_up(void *arg)
{
	struct gpamap_lookup found;
	struct looker *l = arg;

	while (!__atomic_load_n(&l->stop, __ATOMIC_RELAXED)) {
		_test_cmd_lookup(l->fd, SPACE, A, &found);
		__atomic_fetch_add(&l->nr, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

TEST_F_TIMEOUT(bell, lookups_beside_commits, 180)
{
	struct looker looker = { .fd = self->fd };
	struct foreign f = { .len = 8 };
	pthread_t threads[8];
	u32 i;

	add_bell(DEV, 0, 8, 0);
	apply(op_add(MEM, ROOT, C, 0));
	for (i = 0; i < 1000; i++) {
		f.addr = B + i * 0x10;
		foreign_add(&f);
	}
	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, look_up, &looker));
	for (i = 0; i < 10; i++)
		apply(op_readonly(MEM, !(i & 1)));
	__atomic_store_n(&looker.stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	EXPECT_LT(0u, looker.nr);
	EXPECT_EQ(0u, query_stats(self->fd).hold_failures);
}

/* Detach and close do not mind what they find. */
TEST_F(bell, detach_beside_foreign_devices)
{
	struct foreign f = { .addr = A + 0x800, .len = 8 };

	add_bell(DEV, 0, 8, 0);
	foreign_add(&f);
	test_cmd_detach(self->fd);
	EXPECT_RINGS(A + 0x800, BELL3);
	EXPECT_LEAVES(A);
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_RINGS(A, BELL0);
	foreign_del(&f);
	foreign_add(&f);
	close(self->fd);
	self->fd = -1;
	EXPECT_LEAVES(A);
	EXPECT_RINGS(A + 0x800, BELL3);
}

/* KVM has room for 1000 devices, beside ioeventfds: ours take none of it. */
#define EXPECT_ROOM_FOR_ONE(_f)							\
	do {									\
		(_f)->addr = C;							\
		foreign_del(_f);						\
		foreign_add(_f);						\
		(_f)->addr = C + 0x10000;					\
		EXPECT_EQ(-ENOSPC, foreign_set(self->guest.vm, _f, -1, true));	\
	} while (0)

TEST_F_TIMEOUT(bell, limit_of_the_bus, 120)
{
	struct foreign f = { .zone = true, .len = 8 };
	u32 i;

	for (i = 0; i < 1000; i++) {
		f.addr = C + i * 0x10;
		foreign_add(&f);
	}
	f.addr = C + 0x10000;
	EXPECT_EQ(-ENOSPC, foreign_set(self->guest.vm, &f, -1, true));
	add_bell(DEV, 0, 8, 0);
	add_bell(OTHER, 0, 8, 1);
	add_bell(PLAIN, 0, 8, 2);
	apply(op_add(OTHER, ROOT, B, 0));
	apply(op_add(PLAIN, ROOT, B + MIB, 0));
	EXPECT_RINGS(A, BELL0);
	EXPECT_RINGS(B, BELL1);
	EXPECT_RINGS(B + MIB, BELL2);
	EXPECT_ROOM_FOR_ONE(&f);
	apply(op_enable(OTHER, false));
	EXPECT_ROOM_FOR_ONE(&f);
	test_cmd_detach(self->fd);
	EXPECT_ROOM_FOR_ONE(&f);
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_RINGS(A, BELL0);
	close(self->fd);
	self->fd = -1;
	EXPECT_LEAVES(A);
	EXPECT_ROOM_FOR_ONE(&f);
}

/* The guest copies a byte, without leaving for it. */
static int copy_byte(struct guest *guest, u64 to, u64 from)
{
	int rc = guest_start(guest, GUEST_MOVS, to, from, 1);

	rc = rc ?: guest_run(guest);
	return rc == KVM_EXIT_IO && guest_left_by_out(guest, GUEST_PORT) ? 0 : rc ?: -EIO;
}

/* KVM's interrupt controllers: PICs at ports, the I/O APIC in memory. */
TEST_F(bell, irqchip)
{
	static const struct {
		u32 space;
		u64 at;
		u64 len;
		bool shadowed;
	} places[] = {
		{ IO_SPACE, 0x10, 0x10, false },
		{ IO_SPACE, 0x10, 0x11, true },
		{ IO_SPACE, 0x20, 1, true },
		{ IO_SPACE, 0x21, 1, true },
		{ IO_SPACE, 0x22, 0x10, false },
		{ IO_SPACE, 0x18, 0x10, true },
		{ IO_SPACE, 0x80, 0x40, true },
		{ IO_SPACE, 0x4d1, 8, true },
		{ IO_SPACE, 0x4d2, 8, false },
		{ IO_SPACE, 0, 0x10000, true },
		{ SPACE, 0xfebff000, 0x1000, false },
		{ SPACE, 0xfebff000, 0x1001, true },
		{ SPACE, 0xfec00010, 4, true },
		{ SPACE, 0xfec00000, 0x1000, true },
		{ SPACE, 0xfec00100, 0x100, false },
		{ SPACE, 0xf0000000, 0x10000000, true },
	};
	volatile char *byte;
	struct guest guest;
	u32 i;

	ASSERT_EQ(0, guest_create_irqchip(&guest));
	test_cmd_detach(self->fd);
	test_cmd_attach(self->fd, guest.vm, 0, 64);
	apply(op_io(NEW, 0));
	add_bell(NEW, 0, 1, 0);
	for (i = 0; i < ARRAY_SIZE(places); i++) {
		bool is_port = places[i].space == IO_SPACE;

		apply(op_last(NEW, places[i].len - 1));
		apply(op_add(NEW, is_port ? PORTS : ROOT, places[i].at, -1));
		EXPECT_EQ((int)places[i].shadowed,
			  is_shadowed(self->fd, places[i].space, places[i].at))
			TH_LOG("place %u", i);
		apply(op_del(NEW));
	}
	/* What the guest reads and writes there is the I/O APIC's; beside it rings. */
	apply(op_last(NEW, 0x1fff), op_add(NEW, ROOT, 0xfebff000, 1));
	add_bell(NEW, 0xfff, 1, 1);
	add_bell(NEW, 0x1000, 1, 2);
	add_bell(NEW, 0x1100, 1, 2);
	byte = (volatile char *)guest_counter(&guest);
	*byte = 1;		/* the number of the version register */
	EXPECT_EQ(0, copy_byte(&guest, 0xfec00000, guest_counter_gpa(&guest)));
	EXPECT_EQ(0u, rung(self->bells));
	EXPECT_EQ(0, copy_byte(&guest, guest_counter_gpa(&guest), 0xfec00010));
	EXPECT_EQ(0x11, *byte);
	EXPECT_EQ(0, copy_byte(&guest, 0xfebfffff, guest_counter_gpa(&guest)));
	EXPECT_EQ((u32)BELL1, rung(self->bells));
	EXPECT_EQ(0, copy_byte(&guest, 0xfec00100, guest_counter_gpa(&guest)));
	EXPECT_EQ((u32)BELL2, rung(self->bells));
	test_cmd_detach(self->fd);
	guest_destroy(&guest);
}

/* -- attach, detach, close ------------------------------------------------- */

TEST_F(bell, attach_and_detach)
{
	struct guest guest;

	test_cmd_detach(self->fd);
	add_bell(DEV, 0, 8, 0);
	add_bell(PDEV, 0, 1, 1);
	EXPECT_LEAVES(A);
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_RINGS(A, BELL0);
	EXPECT_OUT(PORT, 1, 0, BELL1);
	test_cmd_detach(self->fd);
	EXPECT_LEAVES(A);
	EXPECT_OUT(PORT, 1, 0, 0);
	/* What changed meanwhile is seen at once. */
	add_bell(DEV, 8, 8, 2);
	apply(op_at(DEV, B));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_LEAVES(A);
	EXPECT_RINGS(B, BELL0);
	EXPECT_RINGS(B + 8, BELL2);
	/* Another VM. */
	ASSERT_EQ(0, guest_create(&guest));
	test_cmd_detach(self->fd);
	test_cmd_attach(self->fd, guest.vm, 0, 64);
	EXPECT_LEAVES(B);
	EXPECT_EQ((int)GUEST_RAM, (int)guest_write(&guest, B, 8, 1).how);
	EXPECT_EQ((u32)BELL0, rung(self->bells));
	guest_destroy(&guest);
	EXPECT_LEAVES(B);
}

TEST_F(bell, map_closed_first)
{
	add_bell(DEV, 0, 8, 0);
	add_bell(PDEV, 0, 1, 1);
	EXPECT_RINGS(A, BELL0);
	close(self->fd);
	self->fd = -1;
	EXPECT_NO_MAP_LEFT();
	EXPECT_LEAVES(A);
	EXPECT_OUT(PORT, 1, 0, 0);
	/* And the VM can have a new one. */
	self->fd = create_map(self->guest.vm, self->mem);
	ASSERT_LE(0, self->fd);
	EXPECT_LEAVES(A);
	add_bell(DEV, 0, 8, 2);
	EXPECT_RINGS(A, BELL2);
}

TEST_F(bell, vm_and_vcpu_closed_first)
{
	add_bell(DEV, 0, 8, 0);
	close(self->guest.vm);
	self->guest.vm = -1;
	EXPECT_RINGS(A, BELL0);
	apply(op_at(DEV, B));
	EXPECT_LEAVES(A);
	EXPECT_RINGS(B, BELL0);
	add_bell(OTHER, 0, 8, 1);
	apply(op_add(OTHER, ROOT, A, 0));
	EXPECT_RINGS(A, BELL1);
	munmap(self->guest.run, self->guest.run_len);
	self->guest.run = NULL;
	close(self->guest.vcpu);
	self->guest.vcpu = -1;
	/* The map holds the VM; its doorbells still come and go. */
	EXPECT_EQ(vms_before + 1, kvm_vms());
	apply(op_at(DEV, C));
	remove_bell(OTHER, 0, 8, 1);
	add_bell(PLAIN, 0, 8, 1);
	test_cmd_detach(self->fd);
	EXPECT_EQ(vms_before, kvm_vms());
}

TEST_F(bell, eventfd_closed)
{
	int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), again;

	ASSERT_LE(0, bell);
	ASSERT_EQ(0, doorbell(self->fd, 0, DEV, 0, 8, 0, bell));
	add_bell(DEV, 0, 8, 1);
	close(bell);
	/* Nobody hears it, and the other rings. */
	EXPECT_RINGS(A, BELL1);
	remove_bell(DEV, 0, 8, 1);
	EXPECT_EQ((int)GUEST_RAM, (int)guest_write(&self->guest, A, 8, 1).how);
	apply(op_at(DEV, B));
	EXPECT_EQ((int)GUEST_RAM, (int)guest_write(&self->guest, B, 8, 1).how);
	/* A new eventfd of the same number is another one. */
	again = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	EXPECT_EQ(bell, again);
	EXPECT_EQ(-ENOENT, doorbell(self->fd, GPAMAP_DOORBELL_REMOVE, DEV, 0, 8, 0, again));
	EXPECT_EQ(0, doorbell(self->fd, 0, DEV, 0, 8, 0, again));
	EXPECT_EQ((int)GUEST_RAM, (int)guest_write(&self->guest, B, 8, 1).how);
	EXPECT_EQ(1u, count_of(again));
	close(again);
}

/* -- beside running vCPUs -------------------------------------------------- */

#define NR_RINGERS 2
#define AT 0x10			/* the offset that is written to */

/* A vCPU that writes all the time. */
struct ringer {
	pthread_t thread;
	struct guest *guest;
	u32 nr;
	u64 gpa;
	int stop;
	u64 laps;
	u64 writes;			/* set in the end, from what the guest counted */
	u64 exits;
	const char *error;
	int reason;
};

#define BATCH 20

static const char *check_exit(const struct ringer *r, u64 *next, u64 end)
{
	struct kvm_run *run = r->guest->run;
	u64 value;

	memcpy(&value, run->mmio.data, sizeof(value));
	if (!run->mmio.is_write || run->mmio.len != 8)
		return "not a write of 8 bytes";
	if (run->mmio.phys_addr != r->gpa)
		return "at another address";
	if (value < *next || value >= end)
		return "twice, or late";
	*next = value + 1;
	return NULL;
}

static void *ringer_thread(void *arg)
{
	struct ringer *r = arg;
	u64 next, end;

	while (!r->error && !__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
		next = r->laps * BATCH;
		end = next + BATCH;
		r->reason = guest_loop(r->guest, r->nr, GUEST_LOOP_WATCH, r->gpa, BATCH,
				       next);
		if (r->reason) {
			r->error = "no registers";
			break;
		}
		while (!r->error && (r->reason = guest_io_run(r->guest)) == KVM_EXIT_MMIO) {
			r->error = check_exit(r, &next, end);
			r->exits++;
			/* There is more to see where writes do not leave. */
			usleep(50);
		}
		if (!r->error && r->reason != KVM_EXIT_HLT)
			r->error = "an exit of another kind";
		__atomic_add_fetch(&r->laps, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static int ringers_start(struct ringer *r, struct guest *first, struct guest *second,
			 void *io, u64 gpa0, u64 gpa1)
{
	u32 i;
	int rc;

	memset(r, 0, NR_RINGERS * sizeof(*r));
	memset(guest_watch(io), 0, sizeof(struct guest_watch));
	rc = guest_add_vcpu(second, first, 1);
	r[0].guest = first;
	r[0].gpa = gpa0;
	r[1].guest = second;
	r[1].gpa = gpa1;
	for (i = 0; !rc && i < NR_RINGERS; i++) {
		r[i].nr = i;
		rc = -pthread_create(&r[i].thread, NULL, ringer_thread, &r[i]);
	}
	return rc;
}

static void ringers_stop(struct ringer *r, void *io)
{
	struct guest_watch *watch = guest_watch(io);
	u32 i, j;

	for (i = 0; i < NR_RINGERS; i++)
		__atomic_store_n(&r[i].stop, 1, __ATOMIC_RELEASE);
	for (i = 0; i < NR_RINGERS; i++) {
		pthread_join(r[i].thread, NULL);
		r[i].writes = watch->writes[i].unknown;
		for (j = 0; j < GUEST_STATES; j++)
			r[i].writes += watch->writes[i].known[j];
	}
}

#define EXPECT_BETWEEN(_least, _n, _more)					\
	do {									\
		u64 __least = _least, __n = _n;					\
		EXPECT_LE(__least, __n);					\
		EXPECT_GE(__least + (_more), __n);				\
	} while (0)

#define EXPECT_RINGERS_OK(_r)							\
	do {									\
		u32 __i;							\
		for (__i = 0; __i < NR_RINGERS; __i++) {			\
			EXPECT_EQ(NULL, (_r)[__i].error)			\
				TH_LOG("vCPU %u: %s, exit %d", __i,		\
				       (_r)[__i].error, (_r)[__i].reason);	\
			EXPECT_EQ((_r)[__i].laps * BATCH, (_r)[__i].writes);	\
		}								\
	} while (0)

/* Whether both have done another lap; false when they do not any more. */
static bool ringers_go_on(struct ringer *r)
{
	u64 end = now_ms() + 60000, before[NR_RINGERS];
	u32 i;

	for (i = 0; i < NR_RINGERS; i++)
		before[i] = __atomic_load_n(&r[i].laps, __ATOMIC_ACQUIRE);
	for (i = 0; i < NR_RINGERS; i++)
		while (__atomic_load_n(&r[i].laps, __ATOMIC_ACQUIRE) == before[i]) {
			if (r[i].error || now_ms() > end)
				return false;
			usleep(100);
		}
	return true;
}

/* Which region is seen at P and which at Q; NR_SHOWN for none. */
enum { SHOW_DEV, SHOW_OTHER, SHOW_NONE, NR_SHOWN };
#define P A
#define Q B

struct state {
	u32 shown[NR_RINGERS];
};

static const struct state states[GUEST_STATES] = {
	{ { SHOW_DEV, SHOW_OTHER } },
	{ { SHOW_OTHER, SHOW_DEV } },
	{ { SHOW_NONE, SHOW_DEV } },
	{ { SHOW_DEV, SHOW_NONE } },
	{ { SHOW_DEV, SHOW_OTHER } },
	{ { SHOW_NONE, SHOW_NONE } },
	{ { SHOW_OTHER, SHOW_DEV } },
	{ { SHOW_OTHER, SHOW_NONE } },
};

/* The operations that lead there, from anywhere. */
static u32 state_ops(const struct state *state, struct gpamap_op *ops)
{
	static const u32 regions[] = { DEV, OTHER };
	u32 i, nr = 0;

	for (i = 0; i < 2; i++) {
		bool at_p = state->shown[0] == i, at_q = state->shown[1] == i;

		if (at_p || at_q)
			ops[nr++] = op_at(regions[i], at_p ? P : Q);
		ops[nr++] = op_enable(regions[i], at_p || at_q);
	}
	return nr;
}

struct sums {
	u64 known[NR_SHOWN];		/* writes that must have gone there */
	u64 unknown;
	u64 missing;			/* pairs of vCPU and state without a known write */
};

static struct sums sum_up(void *io, u32 vcpu, const struct state *list, u32 nr)
{
	struct guest_watch *watch = guest_watch(io);
	struct sums sums = { .unknown = watch->writes[vcpu].unknown };
	u32 i;

	for (i = 0; i < GUEST_STATES; i++) {
		u64 n = watch->writes[vcpu].known[i];

		sums.known[list[i % nr].shown[vcpu]] += n;
		sums.missing += !n;
	}
	return sums;
}

/*
 * Goes through the states of the list, and waits for the vCPUs in every third. How many
 * writes left.
 */
static u64 move_under_vcpus(struct __test_metadata *_metadata,
			    FIXTURE_DATA(bell) *self, const struct state *list, u32 nr,
			    bool hold)
{
	struct guest_watch *watch = guest_watch(self->io);
	u64 i, moves = env_number("MOVES", 500), counts[2];
	struct ringer r[NR_RINGERS];
	struct gpamap_stats before, stats;
	struct gpamap_op ops[8];
	struct guest second;
	struct sums s[2];
	u32 n, one = 1;

	add_bell(DEV, AT, 8, 0);
	add_bell(OTHER, AT, 8, 1);
	apply(op_add(OTHER, ROOT, Q, 0), op_add(MEM, ROOT, C, 0));
	before = query_stats(self->fd);
	ASSERT_EQ(0, ringers_start(r, &self->guest, &second, self->io, P + AT, Q + AT));
	for (i = 1; i <= moves; i++) {
		n = state_ops(&list[i % nr], ops);
		if (hold)
			ops[n++] = op_readonly(MEM, i & 1);
		__atomic_add_fetch(&watch->sequence, 1, __ATOMIC_SEQ_CST);
		test_cmd_apply_ops(self->fd, ops, n);
		__atomic_add_fetch(&watch->sequence, 1, __ATOMIC_SEQ_CST);
		if (i % 3 == 0 && !ringers_go_on(r))
			break;
	}
	EXPECT_LT(moves, i) TH_LOG("the vCPUs stand still after %llu moves",
				   (unsigned long long)i);
	ringers_stop(r, self->io);
	EXPECT_RINGERS_OK(r);
	counts[0] = count_of(self->bells[0]);
	counts[1] = count_of(self->bells[1]);
	s[0] = sum_up(self->io, 0, list, nr);
	s[1] = sum_up(self->io, 1, list, nr);
	for (n = 0; n < 2; n++)
		TH_LOG("%llu moves: vCPU %u wrote %llu, %llu beside a move, %llu left; bell %u rang %llu",
		       (unsigned long long)moves, n, (unsigned long long)r[n].writes,
		       (unsigned long long)s[n].unknown, (unsigned long long)r[n].exits, n,
		       (unsigned long long)counts[n]);

	/* None lost, none twice. */
	EXPECT_EQ(r[0].writes + r[1].writes,
		  counts[0] + counts[1] + r[0].exits + r[1].exits);
	/* None misdirected. */
	for (n = 0; n < 2; n++) {
		EXPECT_BETWEEN(s[0].known[n] + s[1].known[n], counts[n],
			       s[0].unknown + s[1].unknown);
		EXPECT_BETWEEN(s[n].known[SHOW_NONE], r[n].exits, s[n].unknown);
		EXPECT_EQ(0u, s[n].missing);
	}
	test_cmd_query(self->fd, GPAMAP_QUERY_STATS, 0, &stats, sizeof(stats), &one);
	EXPECT_EQ(before.holds + moves, stats.holds);
	guest_destroy(&second);
	return r[0].exits + r[1].exits;
}

TEST_F_TIMEOUT(bell, moved_hidden_and_shown_under_vcpus, 1200)
{
	move_under_vcpus(_metadata, self, states, GUEST_STATES, false);
}

/* The same with a change of slots in each commit, for which the vCPUs are held. */
TEST_F_TIMEOUT(bell, moved_hidden_and_shown_under_held_vcpus, 1200)
{
	move_under_vcpus(_metadata, self, states, GUEST_STATES, true);
}

/* Two that only change places leave no gap between: no write leaves. */
TEST_F_TIMEOUT(bell, swapped_under_vcpus, 1200)
{
	static const struct state swap[] = {
		{ { SHOW_DEV, SHOW_OTHER } },
		{ { SHOW_OTHER, SHOW_DEV } },
	};

	EXPECT_EQ(0u, move_under_vcpus(_metadata, self, swap, ARRAY_SIZE(swap), false));
}

/* Doorbells come and go under vCPUs: the only one of a region, and one beside another. */
TEST_F_TIMEOUT(bell, added_and_removed_under_vcpus, 1200)
{
	u64 i, moves = env_number("MOVES", 500) / 2, counts[3];
	struct ringer r[NR_RINGERS];
	struct guest second;

	apply(op_add(OTHER, ROOT, Q, 0));
	add_bell(OTHER, AT, 8, 1);
	ASSERT_EQ(0, ringers_start(r, &self->guest, &second, self->io, P + AT, Q + AT));
	for (i = 0; i < moves; i++) {
		add_bell(DEV, AT, 8, 0);
		add_bell(OTHER, AT, 0, 2);
		if (!ringers_go_on(r))
			break;
		remove_bell(DEV, AT, 8, 0);
		/* Before and behind the one that stays. */
		if (i & 1) {
			add_bell(OTHER, AT, 8, 3);
			remove_bell(OTHER, AT, 8, 3);
		}
		remove_bell(OTHER, AT, 0, 2);
		if (!ringers_go_on(r))
			break;
	}
	EXPECT_EQ(moves, i);
	ringers_stop(r, self->io);
	EXPECT_RINGERS_OK(r);
	for (i = 0; i < 3; i++)
		counts[i] = count_of(self->bells[i]);
	EXPECT_EQ(r[0].writes, counts[0] + r[0].exits);
	EXPECT_LT(0u, counts[0]);
	EXPECT_LT(0u, r[0].exits);
	EXPECT_EQ(r[1].writes, counts[1]);
	EXPECT_EQ(0u, r[1].exits);
	EXPECT_LT(0u, counts[2]);
	EXPECT_GT(counts[1], counts[2]);
	guest_destroy(&second);
}

TEST_F_TIMEOUT(bell, attached_and_detached_under_vcpus, 1200)
{
	u64 i, moves = env_number("MOVES", 500) / 5;
	struct ringer r[NR_RINGERS];
	struct guest second;

	add_bell(DEV, AT, 8, 0);
	add_bell(OTHER, AT, 8, 1);
	apply(op_add(OTHER, ROOT, Q, 0));
	ASSERT_EQ(0, ringers_start(r, &self->guest, &second, self->io, P + AT, Q + AT));
	for (i = 0; i < moves && ringers_go_on(r); i++) {
		if (i % 4 != 3) {
			test_cmd_detach(self->fd);
		} else {
			close(self->fd);
			self->fd = map_open();
			ASSERT_LE(0, self->fd);
			apply(op_container(ROOT, U64_MAX), op_io(DEV, DEV_LEN - 1),
			      op_io(OTHER, DEV_LEN - 1), op_add(DEV, ROOT, P, 0),
			      op_add(OTHER, ROOT, Q, 0),
			      op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
			add_bell(DEV, AT, 8, 0);
			add_bell(OTHER, AT, 8, 1);
		}
		if (!ringers_go_on(r))
			break;
		test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	}
	EXPECT_EQ(moves, i);
	ringers_stop(r, self->io);
	EXPECT_RINGERS_OK(r);
	for (i = 0; i < NR_RINGERS; i++)
		EXPECT_EQ(r[i].writes, count_of(self->bells[i]) + r[i].exits);
	EXPECT_LT(0u, r[0].exits);
	EXPECT_LT(r[0].exits, r[0].writes);
	guest_destroy(&second);
}

/* What a child does until it is killed. */
static void ring_forever(struct guest *guest, void *io, int fd, bool commits)
{
	struct ringer r[NR_RINGERS];
	struct guest second;
	u32 i;

	if (ringers_start(r, guest, &second, io, P + AT, Q + AT))
		_exit(51);
	for (i = 0;; i++) {
		struct gpamap_op op = op_at(OTHER, i & 1 ? C : Q);

		if (commits && _test_cmd_apply(fd, &op, 1, NULL, NULL))
			_exit(52);
		if (!commits)
			pause();
	}
}

/* The process dies with its guests running and doorbells in place. */
TEST_F_TIMEOUT(bell, killed, 120)
{
	u64 seed = test_seed(), i;
	struct rnd rnd;

	TH_LOG("SEED=%llu", (unsigned long long)seed);
	rnd_seed(&rnd, seed);
	close(self->fd);
	self->fd = -1;
	guest_destroy(&self->guest);
	EXPECT_NOTHING_LEFT();
	for (i = 0; i < 8 && _metadata->passed; i++) {
		u64 end = now_ms() + 10000, n = 0;
		int status;
		pid_t pid;

		count_of(self->bells[0]);
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			struct gpamap_op op = op_add(OTHER, ROOT, Q, 0);

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (guest_create(&self->guest))
				_exit(53);
			self->io = guest_io_create(&self->guest);
			if (!self->io)
				_exit(53);
			self->fd = create_map(self->guest.vm, self->mem);
			if (self->fd < 0 || bell_rc(DEV, AT, 8, 0) ||
			    bell_rc(OTHER, AT, 8, 1) ||
			    _test_cmd_apply(self->fd, &op, 1, NULL, NULL))
				_exit(54);
			ring_forever(&self->guest, self->io, self->fd, i & 1);
		}
		while (!n && now_ms() < end) {
			n = count_of(self->bells[0]);
			usleep(100);
		}
		EXPECT_LT(0u, n);
		usleep(rnd_below(&rnd, 30000));
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_TRUE(WIFSIGNALED(status)) TH_LOG("exit %d", WEXITSTATUS(status));
		EXPECT_NOTHING_LEFT();
		/* It is silent now. */
		count_of(self->bells[0]);
		usleep(1000);
		EXPECT_EQ(0u, count_of(self->bells[0]));
	}
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * The plan: which memslots go, move and come for a change, and DRY_RUN, which tells and
 * does nothing.
 *
 * Known cases are compared slot by slot. Random ones are compared with a model that
 * makes the same out of what QUERY tells: slots that fit into the new view are kept,
 * every gap between them is one new slot; or, if there are too few ids for that, one slot
 * for every piece of memory.
 *
 * That vCPUs notice nothing is the subject of hold_test.c and of the stress test.
 */
#include "harness.h"
#include <linux/kvm.h>
#include <sys/mman.h>
#include "gpamap_util.h"
#include "guest.h"

#define PAGE TEST_PAGE
#define MIB 0x100000ULL
#define HOLD GPAMAP_PLAN_HOLD
#define DRY_RUN GPAMAP_APPLY_DRY_RUN
#define RO KVM_MEM_READONLY

enum { ROOT = 1, MEM, OTHER, IO, BOX, OVERLAY, SMM_ROOT, SMM_ALIAS, SMRAM, BAR = 100 };
enum { SPACE = 1, SMM };

#define MEM_PAGES 16
#define MEM_LEN (MEM_PAGES * PAGE)
#define A 0x10000000ULL
#define B 0x40000000ULL
#define IDS 64

/* What big RAM is: host memory that nobody touches. */
#define BIG_LEN (64 * MIB)

FIXTURE(plan) {
	struct guest guest;
	char *mem;
	char *other;
	char *big;
	char *big_map;			/* that has it */
	int fd;
};

static char *host_memory(u64 len)
{
	void *mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

FIXTURE_SETUP(plan)
{
	ASSERT_EQ(0, guest_create(&self->guest));
	self->mem = host_memory(MEM_LEN);
	self->other = host_memory(MEM_LEN);
	/* Not on a border of 2 MiB: there are no huge pages that cuts have to leave. */
	self->big_map = host_memory(BIG_LEN + 0x400000);
	ASSERT_NE(NULL, self->mem);
	ASSERT_NE(NULL, self->other);
	ASSERT_NE(NULL, self->big_map);
	self->big = self->big_map + 0x200000 - (uintptr_t)self->big_map % 0x200000 + PAGE;
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_apply(self->fd, op_container(ROOT, U64_MAX),
		       op_ram(MEM, MEM_LEN - 1, self->mem),
		       op_ram(OTHER, MEM_LEN - 1, self->other), op_io(IO, PAGE - 1),
		       op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	test_cmd_attach(self->fd, self->guest.vm, 0, IDS);
}

FIXTURE_TEARDOWN(plan)
{
	close(self->fd);
	munmap(self->big_map, BIG_LEN + 0x400000);
	munmap(self->mem, MEM_LEN);
	munmap(self->other, MEM_LEN);
	guest_destroy(&self->guest);
}

/* Another number of slot ids. */
#define ATTACH_AGAIN(_nr)							\
	do {									\
		test_cmd_detach(self->fd);					\
		test_cmd_attach(self->fd, self->guest.vm, 0, _nr);		\
	} while (0)

struct want_plan {
	u32 deletes;
	u32 moves;
	u32 creates;
	u64 taken;
};

#define PLAN(...) ((struct want_plan){ __VA_ARGS__ })
/* Whoever changes a memslot holds. */
#define WANT_HOLD(_want) ((_want).deletes || (_want).moves || (_want).creates)

#define EXPECT_PLAN_HELD(_out, _want, _hold)					\
	do {									\
		EXPECT_EQ((_want).deletes, (_out)->out_deletes);		\
		EXPECT_EQ((_want).moves, (_out)->out_moves);			\
		EXPECT_EQ((_want).creates, (_out)->out_creates);		\
		EXPECT_EQ((_hold) ? HOLD : 0, (_out)->out_plan);		\
		EXPECT_EQ((_want).taken, (_out)->out_taken);			\
	} while (0)

#define EXPECT_PLAN_IS(_out, _want) EXPECT_PLAN_HELD(_out, _want, WANT_HOLD(_want))

/* STATS as they were, but for what a commit of that plan adds. */
#define EXPECT_COUNTED(_a, _b, _want, _hold)					\
	do {									\
		EXPECT_EQ((_a)->commits + 1, (_b)->commits);			\
		EXPECT_EQ((_a)->deletes + (_want).deletes, (_b)->deletes);	\
		EXPECT_EQ((_a)->moves + (_want).moves, (_b)->moves);		\
		EXPECT_EQ((_a)->creates + (_want).creates, (_b)->creates);	\
		EXPECT_EQ((_a)->holds + !!(_hold), (_b)->holds);		\
		EXPECT_EQ((_a)->hold_failures, (_b)->hold_failures);		\
		EXPECT_EQ((_a)->rollbacks, (_b)->rollbacks);			\
	} while (0)

/* Told before and after by what @_want says, and done once. */
#define EXPECT_PLAN(_want, ...)							\
	do {									\
		const struct want_plan __want = _want;				\
		struct gpamap_stats __a = query_stats(self->fd), __b;		\
		struct snapshot *__snap = snapshot_take(self->fd);		\
		struct gpamap_apply __out;					\
		test_cmd_plan(self->fd, DRY_RUN, &__out, __VA_ARGS__);		\
		EXPECT_PLAN_IS(&__out, __want);					\
		EXPECT_UNCHANGED(self->fd, __snap);				\
		snapshot_free(__snap);						\
		__b = query_stats(self->fd);					\
		EXPECT_EQ(0, memcmp(&__a, &__b, sizeof(__a)));			\
		test_cmd_plan(self->fd, 0, &__out, __VA_ARGS__);		\
		EXPECT_PLAN_IS(&__out, __want);					\
		__b = query_stats(self->fd);					\
		EXPECT_COUNTED(&__a, &__b, __want, WANT_HOLD(__want));		\
	} while (0)

/* -- known cases ----------------------------------------------------------- */

TEST_F(plan, come_and_go)
{
	EXPECT_PLAN(PLAN(.creates = 1), op_add(MEM, ROOT, A, 0));
	EXPECT_PLAN(PLAN(.creates = 1), op_add(OTHER, ROOT, B, 0));
	EXPECT_PLAN(PLAN(.deletes = 1), op_del(MEM));
	EXPECT_PLAN(PLAN(.creates = 1), op_add(MEM, ROOT, A, 0));
	EXPECT_PLAN(PLAN(.deletes = 2), op_del(MEM), op_del(OTHER));
	/* Neither memory nor gone for good: nothing. */
	EXPECT_PLAN(PLAN(), op_add(IO, ROOT, A, 0));
	EXPECT_PLAN(PLAN(), op_add(MEM, ROOT, A, 0), op_del(MEM));
	EXPECT_PLAN(PLAN(), op_container(99, 1), op_prio(IO, 3));
	/* One goes and the other comes to its place. */
	EXPECT_PLAN(PLAN(.creates = 1), op_del(IO), op_add(MEM, ROOT, A, 0));
	EXPECT_PLAN(PLAN(.deletes = 1, .creates = 1, .taken = MEM_LEN),
		    op_del(MEM), op_add(OTHER, ROOT, A, 0));
	EXPECT_PLAN(PLAN(.deletes = 1, .creates = 1, .taken = 4 * PAGE),
		    op_del(OTHER), op_add(MEM, ROOT, A + 12 * PAGE, 0));
	EXPECT_PLAN(PLAN(.deletes = 1, .creates = 1),
		    op_del(MEM), op_add(OTHER, ROOT, B, 0));
}

/* Rule 39: what a live slot cannot change is a delete and a create, at the same place. */
TEST_F(plan, changes_in_place)
{
	test_cmd_apply(self->fd, op_add(MEM, ROOT, A, 0));
	EXPECT_PLAN(PLAN(.deletes = 1, .creates = 1, .taken = MEM_LEN),
		    op_readonly(MEM, true));
	EXPECT_SLOTS(self->fd, { A, MEM_PAGES, self->mem, 0, RO });
	EXPECT_PLAN(PLAN(.deletes = 1, .creates = 1, .taken = 4 * PAGE),
		    op_last(MEM, 4 * PAGE - 1));
	/* It grows: what is there can stay. */
	EXPECT_PLAN(PLAN(.creates = 1), op_last(MEM, MEM_LEN - 1));
	EXPECT_SLOTS(self->fd, { A, 4, self->mem, 0, RO },
		     { A + 4 * PAGE, MEM_PAGES - 4, self->mem + 4 * PAGE, 1, RO });
	/* Flags that KVM knows nothing of. */
	EXPECT_PLAN(PLAN(), (struct gpamap_op){ .code = GPAMAP_OP_SET, .id = MEM,
		    .mask = GPAMAP_SET_NONVOLATILE, .flags = GPAMAP_REGION_NONVOLATILE });
	/* Another region of the same memory: the slots are those. */
	EXPECT_PLAN(PLAN(), op_rom(99, MEM_LEN - 1, self->mem), op_del(MEM),
		    op_add(99, ROOT, A, 0));
}

/* What was split stays split: its pieces come and go by one operation each. */
TEST_F(plan, stays_split)
{
	u32 i;

	test_cmd_apply(self->fd, op_add(MEM, ROOT, A, 0),
		       op_add(IO, ROOT, A + 4 * PAGE, 1),
		       op_enable(MEM, true));
	EXPECT_SLOTS(self->fd, { A, 4, self->mem, 0, 0 },
		     { A + 5 * PAGE, 11, self->mem + 5 * PAGE, 1, 0 });
	for (i = 0; i < 3; i++) {
		EXPECT_PLAN(PLAN(.creates = 1), op_enable(IO, false));
		EXPECT_SLOTS(self->fd, { A, 4, self->mem, 0, 0 },
			     { A + 4 * PAGE, 1, self->mem + 4 * PAGE, 2, 0 },
			     { A + 5 * PAGE, 11, self->mem + 5 * PAGE, 1, 0 });
		EXPECT_PLAN(PLAN(.deletes = 1), op_enable(IO, true));
	}
	/* Elsewhere it has to split: what it cuts goes, and what is not there comes. */
	EXPECT_PLAN(PLAN(.deletes = 1, .creates = 2, .taken = 10 * PAGE),
		    op_at(IO, A + 8 * PAGE));
	EXPECT_SLOTS(self->fd, { A, 4, self->mem, 0, 0 },
		     { A + 4 * PAGE, 4, self->mem + 4 * PAGE, 1, 0 },
		     { A + 9 * PAGE, 7, self->mem + 9 * PAGE, 2, 0 });
	/* Where nothing is kept, nothing is split. */
	EXPECT_PLAN(PLAN(.deletes = 3, .creates = 1), op_at(MEM, B));
	EXPECT_SLOTS(self->fd, { B, MEM_PAGES, self->mem, 0, 0 });
}

TEST_F(plan, one_move)
{
	test_cmd_apply(self->fd, op_add(MEM, ROOT, A, 0), op_add(OTHER, ROOT, B, 0));
	EXPECT_PLAN(PLAN(.moves = 1), op_at(MEM, A + 0x100000));
	EXPECT_SLOTS(self->fd, { A + 0x100000, MEM_PAGES, self->mem, 0, 0 },
		     { B, MEM_PAGES, self->other, 1, 0 });
	/* Over itself, by a page, both ways: all but one are taken for a moment. */
	EXPECT_PLAN(PLAN(.moves = 1, .taken = MEM_LEN - PAGE),
		    op_at(MEM, A + 0x101000));
	EXPECT_PLAN(PLAN(.moves = 1, .taken = MEM_LEN - PAGE),
		    op_at(MEM, A + 0x100000));
	EXPECT_SLOTS(self->fd, { A + 0x100000, MEM_PAGES, self->mem, 0, 0 },
		     { B, MEM_PAGES, self->other, 1, 0 });
	/* To where another one was, which goes. */
	EXPECT_PLAN(PLAN(.deletes = 1, .moves = 1, .taken = MEM_LEN),
		    op_at(MEM, B), op_del(OTHER));
	EXPECT_SLOTS(self->fd, { B, MEM_PAGES, self->mem, 0, 0 });
	/* And one comes to where it was. */
	EXPECT_PLAN(PLAN(.moves = 1, .creates = 1, .taken = MEM_LEN),
		    op_at(MEM, A), op_add(OTHER, ROOT, B, 0));
	EXPECT_SLOTS(self->fd, { A, MEM_PAGES, self->mem, 0, 0 },
		     { B, MEM_PAGES, self->other, 1, 0 });
	/* Changed on the way, it is another slot. */
	EXPECT_PLAN(PLAN(.deletes = 1, .creates = 1),
		    op_at(MEM, A + 0x100000),
		    op_readonly(MEM, true));
	EXPECT_PLAN(PLAN(.deletes = 1, .creates = 1), op_at(MEM, A),
		    op_last(MEM, PAGE - 1));
	EXPECT_PLAN(PLAN(.moves = 1), op_at(MEM, B + 0x100000));
	EXPECT_SLOTS(self->fd, { B, MEM_PAGES, self->other, 1, 0 },
		     { B + 0x100000, 1, self->mem, 0, RO });
}

/* The same memory that is seen in two places goes from one to a third. */
TEST_F(plan, one_of_two_moves)
{
	test_cmd_apply(self->fd, op_add(MEM, ROOT, A, 0),
		       op_alias(BAR, MEM, 0, MEM_LEN - 1), op_add(BAR, ROOT, B, 0));
	EXPECT_PLAN(PLAN(.moves = 1), op_at(BAR, B + 0x100000));
	EXPECT_PLAN(PLAN(.moves = 2), op_at(BAR, A + 0x200000),
		    op_at(MEM, A + 0x100000));
	EXPECT_PLAN(PLAN(.deletes = 1), op_del(BAR));
	/* One more of it is a create, not a move: the first stays. */
	EXPECT_PLAN(PLAN(.creates = 1), op_add(BAR, ROOT, B, 0));
}

#define NR_BARS 8

static u64 bar_gpa(u32 place)
{
	return B + place * PAGE;
}

/* NR_BARS of a page each, side by side. */
#define ADD_BARS()								\
	do {									\
		struct gpamap_op __ops[2 * NR_BARS];				\
		u32 __i;							\
		for (__i = 0; __i < NR_BARS; __i++) {				\
			__ops[2 * __i] = op_ram(BAR + __i, PAGE - 1,		\
						self->mem + __i * PAGE);	\
			__ops[2 * __i + 1] = op_add(BAR + __i, ROOT,		\
						    bar_gpa(__i), 0);		\
		}								\
		test_cmd_apply_ops(self->fd, __ops, 2 * NR_BARS);		\
	} while (0)

#define EXPECT_BARS_AT(_place)							\
	do {									\
		struct want_slot __want[NR_BARS];				\
		u32 __place, __i, __n = 0;					\
		for (__place = 0; __place < 2 * NR_BARS; __place++)		\
			for (__i = 0; __i < NR_BARS; __i++)			\
				if ((_place)[__i] == __place)			\
					__want[__n++] = (struct want_slot){	\
						bar_gpa(__place), 1,		\
						self->mem + __i * PAGE, __i, 0 };	\
		EXPECT_NULL_WHY(slots_diff(self->fd, __want, __n));		\
	} while (0)

/* Each goes to where the next is: in the right order, nobody is in the way. */
TEST_F(plan, chains)
{
	struct gpamap_op ops[NR_BARS];
	u32 place[NR_BARS], i, n;
	struct gpamap_apply out;
	int by;

	ADD_BARS();
	for (i = 0; i < NR_BARS; i++)
		place[i] = i;
	EXPECT_BARS_AT(place);
	/* Up and down, by one and by three, the batch in both orders. */
	for (n = 0; n < 8; n++) {
		by = n & 1 ? -(n & 2 ? 3 : 1) : (n & 2 ? 3 : 1);
		for (i = 0; i < NR_BARS; i++) {
			u32 which = n & 4 ? NR_BARS - 1 - i : i;

			place[which] += by;
			ops[i] = op_at(BAR + which, bar_gpa(place[which]));
		}
		ASSERT_EQ(0, _test_cmd_plan(self->fd, 0, ops, NR_BARS, &out));
		EXPECT_PLAN_IS(&out, PLAN(.moves = NR_BARS,
					  .taken = (NR_BARS - abs(by)) * PAGE));
		EXPECT_BARS_AT(place);
	}
	/* One jumps over the others: at most one of them has to leave first. */
	for (i = 0; i < NR_BARS; i++)
		ops[i] = op_at(BAR + i, bar_gpa(i ? i - 1 : NR_BARS));
	ASSERT_EQ(0, _test_cmd_plan(self->fd, 0, ops, NR_BARS, &out));
	EXPECT_GE(1u, out.out_deletes);
	EXPECT_EQ(out.out_deletes, out.out_creates);
	EXPECT_EQ((u32)NR_BARS, out.out_deletes + out.out_moves);
	EXPECT_EQ((NR_BARS - 1) * PAGE, out.out_taken);
	for (i = 0; i < NR_BARS; i++)
		place[i] = i ? i - 1 : NR_BARS;
	EXPECT_BARS_AT(place);
}

/* In a ring one of them has to leave first. */
TEST_F(plan, rings)
{
	struct gpamap_op ops[NR_BARS];
	struct gpamap_apply out;
	u32 nr, i;

	ADD_BARS();
	for (nr = 2; nr <= NR_BARS; nr++) {
		struct gpamap_slot_info *slots;
		u32 n, count, seen;

		/* The first nr change places, one further round in each turn. */
		for (n = 1; n < nr; n++) {
			for (i = 0; i < nr; i++)
				ops[i] = op_at(BAR + i, bar_gpa((i + n) % nr));
			ASSERT_EQ(0, _test_cmd_plan(self->fd, 0, ops, nr, &out));
			EXPECT_EQ(nr, out.out_deletes + out.out_moves);
			EXPECT_EQ(out.out_deletes, out.out_creates);
			EXPECT_LT(0u, out.out_deletes);
			EXPECT_EQ((u32)HOLD, out.out_plan);
			EXPECT_EQ(nr * PAGE, out.out_taken);
			slots = query_all(self->fd, GPAMAP_QUERY_SLOTS, 0, &count);
			ASSERT_NE(NULL, slots);
			ASSERT_EQ((u32)NR_BARS, count);
			for (i = 0, seen = 0; i < count; i++) {
				u32 bar = slots[i].region - BAR;

				ASSERT_GT((u32)NR_BARS, bar);
				seen |= 1 << bar;
				EXPECT_EQ(bar_gpa(bar < nr ? (bar + n) % nr : bar),
					  slots[i].gpa);
				EXPECT_EQ((uintptr_t)self->mem + bar * PAGE,
					  slots[i].hva);
				EXPECT_EQ(1u, slots[i].npages);
			}
			EXPECT_EQ((1u << NR_BARS) - 1, seen);
			free(slots);
			for (i = 0; i < nr; i++)
				ops[i] = op_at(BAR + i, bar_gpa(i));
			test_cmd_apply_ops(self->fd, ops, nr);
		}
	}
}

/* Two of the same length, and what the guest then finds. */
TEST_F(plan, swap)
{
	const u64 gpas[] = { A, A + MEM_LEN - PAGE, B, B + MEM_LEN - PAGE, A + MEM_LEN };

	memset(self->mem, 1, MEM_LEN);
	memset(self->other, 2, MEM_LEN);
	test_cmd_apply(self->fd, op_add(MEM, ROOT, A, 0), op_add(OTHER, ROOT, B, 0));
	EXPECT_PLAN(PLAN(.deletes = 1, .moves = 1, .creates = 1,
			 .taken = 2 * MEM_LEN), op_at(MEM, B), op_at(OTHER, A));
	EXPECT_GUEST_RAM(&self->guest, A, 0x0202020202020202);
	EXPECT_GUEST_RAM(&self->guest, B, 0x0101010101010101);
	EXPECT_NULL_WHY(guest_slots_diff(&self->guest, self->fd, gpas, ARRAY_SIZE(gpas)));
}

/* Rule 40: the lowest id that is free, one that is freed by the same commit too. */
TEST_F(plan, lowest_ids)
{
	ADD_BARS();
	test_cmd_apply(self->fd, op_del(BAR + 2), op_del(BAR + 5));
	EXPECT_PLAN(PLAN(.deletes = 1, .creates = 3),
		    op_del(BAR + 1), op_add(BAR + 2, ROOT, A, 0),
		    op_add(BAR + 5, ROOT, A + 0x10000, 0),
		    op_add(MEM, ROOT, A + 0x20000, 0));
	EXPECT_SLOTS(self->fd, { A, 1, self->mem + 2 * PAGE, 1, 0 },
		     { A + 0x10000, 1, self->mem + 5 * PAGE, 2, 0 },
		     { A + 0x20000, MEM_PAGES, self->mem, 5, 0 },
		     { bar_gpa(0), 1, self->mem, 0, 0 },
		     { bar_gpa(3), 1, self->mem + 3 * PAGE, 3, 0 },
		     { bar_gpa(4), 1, self->mem + 4 * PAGE, 4, 0 },
		     { bar_gpa(6), 1, self->mem + 6 * PAGE, 6, 0 },
		     { bar_gpa(7), 1, self->mem + 7 * PAGE, 7, 0 });
	/* What moves keeps its own. */
	EXPECT_PLAN(PLAN(.deletes = 1, .moves = 1), op_del(BAR),
		    op_at(BAR + 7, A + 0x100000));
	EXPECT_PLAN(PLAN(.creates = 1), op_add(BAR, ROOT, bar_gpa(0), 0));
}

/* Both address spaces are one plan, each with its own ids. */
TEST_F(plan, address_spaces)
{
	EXPECT_PLAN(PLAN(.creates = 5), op_container(SMM_ROOT, U64_MAX),
		    op_alias(SMM_ALIAS, ROOT, 0, U64_MAX),
		    op_add(SMM_ALIAS, SMM_ROOT, 0, 0),
		    op_add(MEM, ROOT, A, 0), op_ram(SMRAM, PAGE - 1, self->other),
		    op_add(SMRAM, SMM_ROOT, A + 2 * PAGE, 1),
		    op_add(IO, ROOT, A + 15 * PAGE, 1),
		    op_memory_space(SMM, SMM_ROOT, 1), op_enable(SMRAM, true),
		    op_add(OTHER, SMM_ROOT, B, 0));
	EXPECT_SLOTS(self->fd, { A, 15, self->mem, 0, 0 },
		     { A, 2, self->mem, 1 << 16, 0 },
		     { A + 2 * PAGE, 1, self->other, 1 << 16 | 1, 0 },
		     { A + 3 * PAGE, 12, self->mem + 3 * PAGE, 1 << 16 | 2, 0 },
		     { B, 16, self->other, 1 << 16 | 3, 0 });
	/* One RAM moves, in one space as a whole, in the other without what covers it. */
	EXPECT_PLAN(PLAN(.deletes = 3, .moves = 1, .creates = 1),
		    op_at(MEM, A + 0x100000), op_enable(SMRAM, false),
		    op_at(IO, A + 0x10f000));
	EXPECT_SLOTS(self->fd, { A + 0x100000, 15, self->mem, 0, 0 },
		     { A + 0x100000, 15, self->mem, 1 << 16, 0 },
		     { B, 16, self->other, 1 << 16 | 3, 0 });
	EXPECT_PLAN(PLAN(.deletes = 2), op_space_destroy(SMM));
}

/* -- cutting ahead --------------------------------------------------------- */

/* Big RAM from 0 on, with an overlay of @_npages in it that is made with @_flags. */
#define ADD_BIG(_at, _npages, _prio, _flags)					\
	test_cmd_apply(self->fd, op_ram(BAR, BIG_LEN - 1, self->big),		\
		       op_add(BAR, ROOT, 0, 0),					\
		       op_flags(op_io(OVERLAY, (_npages) * PAGE - 1), _flags),	\
		       op_add(OVERLAY, ROOT, _at, _prio))

/* An overlay comes and goes, and nothing above 1 MiB with it. */
#define EXPECT_NOTHING_LARGE_GOES(_on, _off)					\
	do {									\
		struct gpamap_stats __a = query_stats(self->fd), __b;		\
		u32 __i;							\
		ASSERT_GE(MIB, __a.largest_delete);				\
		for (__i = 0; __i < 4; __i++) {					\
			test_cmd_apply(self->fd, _on);				\
			test_cmd_apply(self->fd, _off);				\
		}								\
		__b = query_stats(self->fd);					\
		EXPECT_LT(__a.deletes, __b.deletes);				\
		EXPECT_GE(MIB, __b.largest_delete);				\
	} while (0)

TEST_F(plan, cut_at_disabled)
{
	const u64 gpas[] = { 0, 0x9f000, 0xa0000, 0xbf000, 0xc0000, 32 * MIB,
			    BIG_LEN - PAGE };
	char *big = self->big;

	ADD_BIG(0xa0000, 32, 1, GPAMAP_REGION_DISABLED);
	/* What is small on both sides of a border is one. */
	EXPECT_SLOTS(self->fd, { 0, 0xc0, big, 0, 0 },
		     { 0xc0000, (BIG_LEN - 0xc0000) / PAGE, big + 0xc0000, 1, 0 });
	EXPECT_NOTHING_LARGE_GOES(op_enable(OVERLAY, true), op_enable(OVERLAY, false));
	EXPECT_NULL_WHY(guest_slots_diff(&self->guest, self->fd, gpas, ARRAY_SIZE(gpas)));
	/* The small piece, once split, stays so. */
	EXPECT_SLOTS(self->fd, { 0, 0xa0, big, 0, 0 },
		     { 0xa0000, 0x20, big + 0xa0000, 2, 0 },
		     { 0xc0000, (BIG_LEN - 0xc0000) / PAGE, big + 0xc0000, 1, 0 });
	EXPECT_PLAN(PLAN(.deletes = 1), op_enable(OVERLAY, true));
	EXPECT_PLAN(PLAN(.creates = 1), op_enable(OVERLAY, false));
}

/* In the middle of large memory there are two large pieces and one small. */
TEST_F(plan, cut_in_the_middle)
{
	char *big = self->big;

	ADD_BIG(16 * MIB, 2, 1, GPAMAP_REGION_DISABLED);
	EXPECT_SLOTS(self->fd, { 0, 16 * MIB / PAGE, big, 0, 0 },
		     { 16 * MIB, 2, big + 16 * MIB, 1, 0 },
		     { 16 * MIB + 2 * PAGE, 48 * MIB / PAGE - 2,
		      big + 16 * MIB + 2 * PAGE,
		       2, 0 });
	EXPECT_PLAN(PLAN(.deletes = 1), op_enable(OVERLAY, true));
	EXPECT_PLAN(PLAN(.creates = 1), op_enable(OVERLAY, false));
	EXPECT_NOTHING_LARGE_GOES(op_enable(OVERLAY, true), op_enable(OVERLAY, false));
}

/* The same without: so the tests above can fail. */
TEST_F(plan, not_cut_at_enabled)
{
	ADD_BIG(16 * MIB, 2, -1, 0);
	EXPECT_SLOTS(self->fd, { 0, BIG_LEN / PAGE, self->big, 0, 0 });
	EXPECT_PLAN(PLAN(.deletes = 1, .creates = 2,
			 .taken = BIG_LEN - 2 * PAGE), op_prio(OVERLAY, 1));
	EXPECT_EQ(BIG_LEN, query_stats(self->fd).largest_delete);
	EXPECT_EQ(BIG_LEN, query_stats(self->fd).deleted_bytes);
}

/* The overlay is there and enabled, but below: the hint says that this may change. */
TEST_F(plan, cut_at_hint)
{
	char *big = self->big;

	ADD_BIG(16 * MIB, 2, -1, GPAMAP_REGION_CUT_AHEAD);
	EXPECT_SLOTS(self->fd, { 0, 16 * MIB / PAGE, big, 0, 0 },
		     { 16 * MIB, 2, big + 16 * MIB, 1, 0 },
		     { 16 * MIB + 2 * PAGE, 48 * MIB / PAGE - 2,
		      big + 16 * MIB + 2 * PAGE,
		       2, 0 });
	EXPECT_NOTHING_LARGE_GOES(op_prio(OVERLAY, 1), op_prio(OVERLAY, -1));
}

/* The hint is given and taken back: slots that are there stay as they are. */
TEST_F(plan, hint_is_for_new_slots)
{
	ADD_BIG(16 * MIB, 2, -1, 0);
	EXPECT_PLAN(PLAN(), op_cut_ahead(OVERLAY, true));
	EXPECT_SLOTS(self->fd, { 0, BIG_LEN / PAGE, self->big, 0, 0 });
	/* All of it comes anew, elsewhere. */
	EXPECT_PLAN(PLAN(.deletes = 1, .creates = 1,
			 .taken = BIG_LEN - 32 * MIB), op_cut_ahead(OVERLAY, false),
		    op_at(BAR, 32 * MIB), op_readonly(BAR, true));
	EXPECT_PLAN(PLAN(.deletes = 1, .creates = 3, .taken = BIG_LEN),
		    op_cut_ahead(OVERLAY, true), op_at(OVERLAY, 48 * MIB),
		    op_readonly(BAR, false));
	EXPECT_PLAN(PLAN(), op_cut_ahead(OVERLAY, false));
	EXPECT_EQ(3u, query_info(self->fd).used_slots);
	/* It is a flag like others: queries tell it, and no view does. */
	test_cmd_apply(self->fd, op_cut_ahead(OVERLAY, true), op_prio(OVERLAY, 2));
	EXPECT_VIEW(self->fd, SPACE, { 32 * MIB, 48 * MIB - 1, BAR, 0, 0 },
		    { 48 * MIB, 48 * MIB + 2 * PAGE - 1, OVERLAY, 0, 0 },
		    { 48 * MIB + 2 * PAGE, 96 * MIB - 1, BAR, 16 * MIB + 2 * PAGE, 0 });
}

/* A disabled container is no border itself; what it would show is. */
TEST_F(plan, cut_below_containers)
{
	char *big = self->big;

	/* The second is nowhere near. */
	test_cmd_apply(self->fd, op_ram(BAR, BIG_LEN - 1, big), op_add(BAR, ROOT, 0, 0),
		       op_container(BOX, 4 * MIB - 1), op_io(OVERLAY, 8 * MIB - 1),
		       op_add(OVERLAY, BOX, 4 * MIB - 8 * PAGE, 0), op_enable(BOX, false),
		       op_add(BOX, ROOT, 32 * MIB, 1), op_io(99, 0xfff),
		       op_add(99, ROOT, 2 * BIG_LEN, 0), op_enable(99, false));
	EXPECT_SLOTS(self->fd, { 0, 36 * MIB / PAGE - 8, big, 0, 0 },
		     { 36 * MIB - 8 * PAGE, 8, big + 36 * MIB - 8 * PAGE, 1, 0 },
		     { 36 * MIB, 28 * MIB / PAGE, big + 36 * MIB, 2, 0 });
	EXPECT_PLAN(PLAN(.deletes = 1), op_enable(BOX, true));
	EXPECT_PLAN(PLAN(.creates = 1), op_enable(BOX, false));
	EXPECT_PLAN(PLAN(), op_enable(99, true));
}

/* Any number of overlays up to 256 KiB, anywhere, in any order. */
TEST_F_TIMEOUT(plan, random_overlays, 120)
{
	u64 seed = test_seed(), iter = env_number("ITER", 300), i;
	struct gpamap_op ops[60];
	struct gpamap_apply out;
	const u32 nr = 20;
	struct rnd rnd;
	u32 n, j;

	TH_LOG("SEED=%llu ITER=%llu", (unsigned long long)seed, (unsigned long long)iter);
	rnd_seed(&rnd, seed);
	ATTACH_AGAIN(500);
	for (j = 0; j < nr; j++) {
		u64 npages = 1 + rnd_below(&rnd, 64);

		/* Some close together, so that they overlap. */
		ops[3 * j] = op_io(200 + j, npages * PAGE - 1);
		ops[3 * j + 1] = op_add(200 + j, ROOT, PAGE *
					rnd_below(&rnd,
						  j & 1 ? 1024 : BIG_LEN / PAGE - 64), 1);
		ops[3 * j + 2] = op_enable(200 + j, false);
	}
	test_cmd_apply_ops(self->fd, ops, 3 * nr);
	test_cmd_apply(self->fd, op_ram(BAR, BIG_LEN - 1, self->big),
		       op_add(BAR, ROOT, 0, 0));
	for (i = 0; i < iter && _metadata->passed; i++) {
		n = 1 + rnd_below(&rnd, 4);
		for (j = 0; j < n; j++)
			ops[j] = op_enable(200 + rnd_below(&rnd, nr), rnd_below(&rnd, 2));
		ASSERT_EQ(0, _test_cmd_plan(self->fd, 0, ops, n, &out));
		EXPECT_GE(MIB, query_stats(self->fd).largest_delete)
			TH_LOG("commit %llu", (unsigned long long)i);
	}
	EXPECT_LT(0u, query_stats(self->fd).deletes);
}

/* -- too few ids ----------------------------------------------------------- */

/* Pieces are joined again where that saves what is missing, in the same commit. */
TEST_F(plan, joined_when_short)
{
	ATTACH_AGAIN(4);
	test_cmd_apply(self->fd, op_add(MEM, ROOT, A, 0),
		       op_add(IO, ROOT, A + 4 * PAGE, 1));
	test_cmd_apply(self->fd, op_enable(IO, false));
	EXPECT_SLOTS(self->fd, { A, 4, self->mem, 0, 0 },
		     { A + 4 * PAGE, 1, self->mem + 4 * PAGE, 2, 0 },
		     { A + 5 * PAGE, 11, self->mem + 5 * PAGE, 1, 0 });
	EXPECT_PLAN(PLAN(.creates = 1), op_add(OTHER, ROOT, B, 0));
	/* The fifth: MEM is one again, OTHER is as it was. */
	EXPECT_PLAN(PLAN(.deletes = 3, .creates = 2, .taken = MEM_LEN),
		    op_ram(BAR, PAGE - 1, self->big), op_add(BAR, ROOT, 0, 0));
	EXPECT_SLOTS(self->fd, { 0, 1, self->big, 0, 0 },
		     { A, MEM_PAGES, self->mem, 1, 0 },
		     { B, MEM_PAGES, self->other, 3, 0 });
	/* As few as can be is still too many. */
	test_cmd_apply(self->fd, op_at(IO, B + PAGE), op_enable(IO, true));
	EXPECT_EQ(4u, query_info(self->fd).used_slots);
	test_err_apply(ENOSPC, 1, self->fd, op_alias(99, MEM, 0, PAGE - 1),
		       op_add(99, ROOT, B + 0x100000, 0));
	EXPECT_ERR_UNCHANGED(ENOSPC, self->fd, ({
		const struct gpamap_op ops[] = { op_alias(99, MEM, 0, PAGE - 1),
						 op_add(99, ROOT, B + 0x100000, 0) };
		struct gpamap_apply out;
		int rc = _test_cmd_plan(self->fd, DRY_RUN, ops, 2, &out);

		EXPECT_EQ(1u, out.out_failed_op);
		rc;
	}));
}

/* Cutting ahead is a luxury. */
TEST_F(plan, not_cut_when_short)
{
	char *big = self->big;

	ADD_BIG(16 * MIB, 2, 1, GPAMAP_REGION_DISABLED);
	ATTACH_AGAIN(3);
	EXPECT_EQ(3u, query_info(self->fd).used_slots);
	ATTACH_AGAIN(2);
	EXPECT_SLOTS(self->fd, { 0, BIG_LEN / PAGE, big, 0, 0 });
	/* It is split for good now, and there is no id for the piece between. */
	EXPECT_PLAN(PLAN(.deletes = 1, .creates = 2,
			 .taken = BIG_LEN - 2 * PAGE), op_enable(OVERLAY, true));
	EXPECT_PLAN(PLAN(.deletes = 2, .creates = 1,
			 .taken = BIG_LEN - 2 * PAGE), op_enable(OVERLAY, false));
	ATTACH_AGAIN(1);
	EXPECT_SLOTS(self->fd, { 0, BIG_LEN / PAGE, big, 0, 0 });
	test_err_apply(ENOSPC, 0, self->fd, op_enable(OVERLAY, true));
	test_cmd_detach(self->fd);
	test_cmd_apply(self->fd, op_enable(OVERLAY, true));
	test_err_attach(ENOSPC, self->fd, self->guest.vm, 0, 1);
	test_cmd_attach(self->fd, self->guest.vm, 0, 2);
}

/* Each address space has its own ids; only that which is short is joined. */
TEST_F(plan, short_in_one_address_space)
{
	test_cmd_apply(self->fd, op_container(SMM_ROOT, U64_MAX),
		       op_alias(SMM_ALIAS, ROOT, 0, U64_MAX),
		       op_add(SMM_ALIAS, SMM_ROOT, 0, 0),
		       op_ram(SMRAM, PAGE - 1, self->other),
		       op_add(SMRAM, SMM_ROOT, B, 0),
		       op_memory_space(SMM, SMM_ROOT, 1));
	ATTACH_AGAIN(4);
	test_cmd_apply(self->fd, op_add(MEM, ROOT, A, 0),
		       op_add(IO, ROOT, A + 4 * PAGE, 1));
	test_cmd_apply(self->fd, op_enable(IO, false));
	EXPECT_EQ(7u, query_info(self->fd).used_slots);
	test_cmd_apply(self->fd, op_ram(BAR, PAGE - 1, self->big),
		       op_add(BAR, ROOT, 0, 0));
	EXPECT_SLOTS(self->fd, { 0, 1, self->big, 3, 0 }, { A, 4, self->mem, 0, 0 },
		     { A + 4 * PAGE, 1, self->mem + 4 * PAGE, 2, 0 },
		     { A + 5 * PAGE, 11, self->mem + 5 * PAGE, 1, 0 },
		     { 0, 1, self->big, 1 << 16 | 1, 0 },
		     { A, MEM_PAGES, self->mem, 1 << 16 | 2, 0 },
		     { B, 1, self->other, 1 << 16 | 0, 0 });
}

/* -- DRY_RUN --------------------------------------------------------------- */

TEST_F(plan, dry_run_flags)
{
	struct gpamap_op op = op_add(MEM, ROOT, A, 0);
	struct gpamap_apply out;
	u32 bit;

	for (bit = 2; bit; bit <<= 1) {
		EXPECT_ERR_UNCHANGED(EOPNOTSUPP, self->fd,
				     _test_cmd_plan(self->fd, bit, &op, 1, &out));
		EXPECT_ERR_UNCHANGED(EOPNOTSUPP, self->fd,
				     _test_cmd_plan(self->fd, bit | DRY_RUN, &op, 1,
						    &out));
		EXPECT_EQ(GPAMAP_NO_OP, out.out_failed_op);
	}
}

/* Nothing of it can be seen: no region, no view, no generation, no wake-up, no slot. */
TEST_F(plan, dry_run_changes_nothing)
{
	struct gpamap_stats before = query_stats(self->fd), after;
	struct snapshot *snap = snapshot_take(self->fd);
	struct gpamap_apply out;

	ASSERT_NE(NULL, snap);
	EXPECT_EQ(query_info(self->fd).generation, news_take(self->fd));
	test_cmd_plan(self->fd, DRY_RUN, &out, op_add(MEM, ROOT, A, 0),
		      op_container(BOX, MIB),
		      op_add(BOX, ROOT, B, 0), op_add(OTHER, BOX, 0, 0),
		      op_space(7, GPAMAP_SPACE_VIEW, BOX), op_destroy(IO));
	EXPECT_PLAN_IS(&out, PLAN(.creates = 2));
	EXPECT_EQ(GPAMAP_NO_OP, out.out_failed_op);
	EXPECT_EQ(query_info(self->fd).generation, out.out_generation);
	EXPECT_EQ(0, polled(self->fd));
	EXPECT_UNCHANGED(self->fd, snap);
	EXPECT_GUEST_MMIO(&self->guest, A);
	after = query_stats(self->fd);
	EXPECT_EQ(0, memcmp(&before, &after, sizeof(before)));
	/* An empty one. */
	EXPECT_EQ(0, _test_cmd_plan(self->fd, DRY_RUN, NULL, 0, &out));
	EXPECT_PLAN_IS(&out, PLAN());
	EXPECT_UNCHANGED(self->fd, snap);
	snapshot_free(snap);
}

/* Without a VM there is nothing to plan; the operations are checked all the same. */
TEST_F(plan, dry_run_detached)
{
	struct snapshot *snap;
	struct gpamap_apply out;
	struct gpamap_op bad = op_add(99, ROOT, 0, 0);

	test_cmd_detach(self->fd);
	snap = snapshot_take(self->fd);
	ASSERT_NE(NULL, snap);
	test_cmd_plan(self->fd, DRY_RUN, &out, op_add(MEM, ROOT, A, 0));
	EXPECT_PLAN_IS(&out, PLAN());
	EXPECT_ERR_UNCHANGED(ENOENT, self->fd,
			     _test_cmd_plan(self->fd, DRY_RUN, &bad, 1, &out));
	EXPECT_EQ(0u, out.out_failed_op);
	EXPECT_UNCHANGED(self->fd, snap);
	snapshot_free(snap);
	test_cmd_plan(self->fd, 0, &out, op_add(MEM, ROOT, A, 0));
	EXPECT_PLAN_IS(&out, PLAN());
}

/* A slot of the VMM's that is in the way is found by the real call only. */
TEST_F(plan, dry_run_does_not_call_kvm)
{
	struct gpamap_apply out;

	ASSERT_EQ(0, guest_set_slot(&self->guest, 400, 0, A + PAGE, 1, self->other));
	ASSERT_EQ(0, module_param_set("fail_nth", 1));
	test_cmd_plan(self->fd, DRY_RUN, &out, op_add(MEM, ROOT, A, 0));
	EXPECT_PLAN_IS(&out, PLAN(.creates = 1));
	EXPECT_EQ(1, module_param_get("fail_nth"));
	ASSERT_EQ(0, module_param_set("fail_nth", 0));
	test_err_apply(EEXIST, 0, self->fd, op_add(MEM, ROOT, A, 0));
	EXPECT_EQ(1u, query_stats(self->fd).rollbacks);
	ASSERT_EQ(0, guest_set_slot(&self->guest, 400, 0, A + PAGE, 0, self->other));
	test_cmd_apply(self->fd, op_add(MEM, ROOT, A, 0));
}

/* A failed call tells no plan. */
TEST_F(plan, failed_call_tells_no_plan)
{
	const struct gpamap_op ops[] = { op_add(MEM, ROOT, A, 0), op_del(99) };
	struct gpamap_apply out;
	u32 flags;

	for (flags = 0; flags <= DRY_RUN; flags++) {
		EXPECT_ERR_UNCHANGED(ENOENT, self->fd,
				     _test_cmd_plan(self->fd, flags, ops, 2, &out));
		EXPECT_EQ(1u, out.out_failed_op);
		EXPECT_PLAN_IS(&out, PLAN());
	}
}

/* -- random batches against the model --------------------------------------- */

/* Slots as a set, or what memory calls for; by address space and address. */
struct slots {
	u32 nr;
	struct gpamap_slot_info *slots;
};

static void slots_add(struct slots *s, const struct gpamap_slot_info *slot)
{
	s->slots = realloc(s->slots, (s->nr + 1) * sizeof(*slot));
	s->slots[s->nr++] = *slot;
}

static void slots_free(struct slots *s)
{
	free(s->slots);
	*s = (struct slots){ 0 };
}

static u32 slot_as(const struct gpamap_slot_info *slot)
{
	return slot->slot >> 16;
}

static u64 slot_end(const struct gpamap_slot_info *slot)
{
	return slot->gpa + slot->npages * PAGE;
}

/* The same but for the id. */
static bool same_place(const struct gpamap_slot_info *a, const struct gpamap_slot_info *b)
{
	return slot_as(a) == slot_as(b) && a->gpa == b->gpa && a->npages == b->npages &&
	       a->hva == b->hva && a->flags == b->flags;
}

/* @slot is a part of @piece. */
static bool lies_in(const struct gpamap_slot_info *slot,
		    const struct gpamap_slot_info *piece)
{
	return slot_as(slot) == slot_as(piece) && slot->gpa >= piece->gpa &&
	       slot_end(slot) <= slot_end(piece) &&
	       slot->hva - slot->gpa == piece->hva - piece->gpa &&
	       slot->flags == piece->flags;
}

static bool query_slots(int fd, struct slots *s)
{
	s->slots = query_all(fd, GPAMAP_QUERY_SLOTS, 0, &s->nr);
	return s->slots;
}

/* The memory of all memory spaces, in whole pages: what slots are to cover. */
static bool query_pieces(int fd, struct slots *s)
{
	struct gpamap_region_info *regions;
	struct gpamap_range_info *ranges;
	struct gpamap_space_info *spaces;
	u32 nr_regions, nr_ranges, nr_spaces, i, j, as;

	*s = (struct slots){ 0 };
	regions = query_all(fd, GPAMAP_QUERY_REGIONS, 0, &nr_regions);
	spaces = query_all(fd, GPAMAP_QUERY_SPACES, 0, &nr_spaces);
	if (!regions || !spaces)
		return false;
	for (as = 0; as < 2; as++) {
		for (i = 0; i < nr_spaces; i++)
			if (spaces[i].kind == GPAMAP_SPACE_MEMORY &&
			    spaces[i].as_id == as)
				break;
		if (i == nr_spaces)
			continue;
		ranges = query_all(fd, GPAMAP_QUERY_RANGES, spaces[i].id, &nr_ranges);
		if (!ranges)
			return false;
		for (i = 0; i < nr_ranges; i++) {
			const struct gpamap_range_info *r = &ranges[i];
			u64 gpa = (r->start + PAGE - 1) & -PAGE;
			u64 end = (r->last + 1) & -PAGE;
			struct gpamap_slot_info piece = {
				.gpa = gpa,
				.npages = (end - gpa) / PAGE,
				.region = r->region,
				.slot = as << 16,
			};

			if (r->kind == GPAMAP_REGION_IO ||
			    r->kind == GPAMAP_REGION_RESERVED ||
			    (r->kind == GPAMAP_REGION_ROMD &&
			     !(r->flags & GPAMAP_REGION_ROMD_MODE)) ||
			    r->flags & GPAMAP_RANGE_UNALIGNED || gpa >= end)
				continue;
			if (r->kind == GPAMAP_REGION_ROMD ||
			    r->flags & GPAMAP_REGION_READONLY)
				piece.flags = RO;
			for (j = 0; j < nr_regions; j++)
				if (regions[j].id == r->region)
					piece.hva = regions[j].hva + r->offset +
						    (gpa - r->start);
			slots_add(s, &piece);
		}
		free(ranges);
	}
	free(regions);
	free(spaces);
	return true;
}

/* One slot for what of @piece lies from @gpa up to @end. */
static void add_gap(struct slots *s, const struct gpamap_slot_info *piece, u64 gpa,
		    u64 end)
{
	struct gpamap_slot_info gap = *piece;

	if (gpa == end)
		return;
	gap.gpa = gpa;
	gap.npages = (end - gpa) / PAGE;
	gap.hva += gpa - piece->gpa;
	slots_add(s, &gap);
}

/* How often the model had to join pieces for want of ids. */
static u32 model_joined;

/*
 * The model: the slots, ids aside, that follow from those before and the memory that is
 * there now; @ids for each address space. False if there are too few.
 */
static bool model_slots(const struct slots *before, const struct slots *pieces, u32 ids,
			struct slots *after)
{
	u32 split[2] = { 0 }, joined[2] = { 0 }, as, i, j;
	struct slots kept = { 0 };
	u64 gpa;

	*after = (struct slots){ 0 };
	for (i = 0; i < pieces->nr; i++) {
		const struct gpamap_slot_info *piece = &pieces->slots[i];

		joined[slot_as(piece)]++;
		for (j = 0, gpa = piece->gpa; j < before->nr; j++) {
			if (!lies_in(&before->slots[j], piece))
				continue;
			add_gap(&kept, piece, gpa, before->slots[j].gpa);
			slots_add(&kept, &before->slots[j]);
			gpa = slot_end(&before->slots[j]);
		}
		add_gap(&kept, piece, gpa, slot_end(piece));
	}
	for (i = 0; i < kept.nr; i++)
		split[slot_as(&kept.slots[i])]++;
	for (as = 0; as < 2; as++) {
		const struct slots *from = split[as] > ids ? pieces : &kept;

		model_joined += split[as] > ids && joined[as] <= ids;
		for (i = 0; i < from->nr; i++)
			if (slot_as(&from->slots[i]) == as)
				slots_add(after, &from->slots[i]);
	}
	slots_free(&kept);
	return joined[0] <= ids && joined[1] <= ids;
}

static const struct gpamap_slot_info *find_same(const struct slots *s,
						const struct gpamap_slot_info *slot,
						bool id)
{
	u32 i;

	for (i = 0; i < s->nr; i++)
		if (same_place(&s->slots[i], slot) &&
		    (!id || s->slots[i].slot == slot->slot))
			return &s->slots[i];
	return NULL;
}

/* What of @a is not in @b, with its id. */
static void slots_without(const struct slots *a, const struct slots *b, struct slots *out)
{
	u32 i;

	*out = (struct slots){ 0 };
	for (i = 0; i < a->nr; i++)
		if (!find_same(b, &a->slots[i], true))
			slots_add(out, &a->slots[i]);
}

static char why[256];

/* NULL if the slots are those of the model; else a text. */
static const char *layout_diff(const struct slots *is, const struct slots *model)
{
	u32 i;

	for (i = 0; i < is->nr || i < model->nr; i++) {
		const struct gpamap_slot_info *a = NULL, *b = NULL;

		if (i < is->nr)
			a = &is->slots[i];
		if (i < model->nr)
			b = &model->slots[i];
		if (a && b && same_place(a, b))
			continue;
		snprintf(why, sizeof(why),
			 "slot %u: is 0x%llx %llu 0x%llx, model 0x%llx %llu 0x%llx", i,
			 a ? a->gpa : 0, a ? a->npages : 0, a ? a->hva : 0,
			 b ? b->gpa : 0,
			 b ? b->npages : 0, b ? b->hva : 0);
		return why;
	}
	return NULL;
}

/* NULL if every id is in the range, and used once. */
static const char *ids_diff(const struct slots *s, u32 ids)
{
	u32 i, j;

	for (i = 0; i < s->nr; i++) {
		if ((s->slots[i].slot & 0xffff) >= ids)
			return "an id beyond the range";
		for (j = 0; j < i; j++)
			if (s->slots[i].slot == s->slots[j].slot)
				return "an id twice";
	}
	return NULL;
}

/* NULL if the new slots that were not moved have the lowest ids that are free. */
static const char *lowest_ids_diff(const struct slots *after, const struct slots *created,
				   u32 ids)
{
	bool used[2][IDS] = { 0 };
	u32 i, as, id;

	for (i = 0; i < after->nr; i++)
		if (!find_same(created, &after->slots[i], true))
			used[slot_as(&after->slots[i])]
			    [after->slots[i].slot & 0xffff] = true;
	for (i = 0; i < created->nr; i++) {
		as = slot_as(&created->slots[i]);
		for (id = 0; id < ids && used[as][id]; id++)
			;
		if ((created->slots[i].slot & 0xffff) != id) {
			snprintf(why, sizeof(why), "id %u at 0x%llx, not %u",
				 created->slots[i].slot, created->slots[i].gpa, id);
			return why;
		}
		used[as][id] = true;
	}
	return NULL;
}

/* How much memory is in slots that went and in slots that came. */
static u64 model_taken(const struct slots *gone, const struct slots *come)
{
	u64 first, end, taken = 0;
	u32 i, j;

	for (i = 0; i < gone->nr; i++) {
		for (j = 0; j < come->nr; j++) {
			const struct gpamap_slot_info *a = &gone->slots[i];
			const struct gpamap_slot_info *b = &come->slots[j];

			first = a->gpa > b->gpa ? a->gpa : b->gpa;
			end = slot_end(a) < slot_end(b) ? slot_end(a) : slot_end(b);
			if (slot_as(a) == slot_as(b) && first < end)
				taken += end - first;
		}
	}
	return taken;
}

/* The slots that @gone and @come have in common but for the place: moved, it seems. */
static void split_moves(struct slots *gone, struct slots *come, struct slots *moved)
{
	u32 i, j;

	*moved = (struct slots){ 0 };
	for (i = 0; i < come->nr;) {
		for (j = 0; j < gone->nr; j++)
			if (gone->slots[j].slot == come->slots[i].slot &&
			    gone->slots[j].npages == come->slots[i].npages &&
			    gone->slots[j].hva == come->slots[i].hva &&
			    gone->slots[j].flags == come->slots[i].flags)
				break;
		if (j == gone->nr) {
			i++;
			continue;
		}
		slots_add(moved, &come->slots[i]);
		gone->nr--;
		come->nr--;
		memmove(&gone->slots[j], &gone->slots[j + 1],
			(gone->nr - j) * sizeof(*gone->slots));
		memmove(&come->slots[i], &come->slots[i + 1],
			(come->nr - i) * sizeof(*come->slots));
	}
}

/* The regions of random batches, each with memory of its own, all in one small window. */
enum { R_RAM = 10, R_RAM2, R_ROM, R_ROMD, R_SMALL, R_ALIAS, R_IO, R_IO2, R_BOX, R_IN_BOX,
	R_SMRAM, NR_R = R_SMRAM - R_RAM + 1 };
#define WINDOW 48			/* pages */

static const u32 random_lengths[NR_R] = { 16, 12, 6, 5, 1, 8, 1, 3, 12, 6, 4 };

static u32 add_random_regions(struct gpamap_op *ops, char *mem)
{
	u32 n = 0, i;

	ops[n++] = op_ram(R_RAM, 16 * PAGE - 1, mem);
	ops[n++] = op_ram(R_RAM2, 12 * PAGE - 1, mem + 16 * PAGE);
	ops[n++] = op_rom(R_ROM, 6 * PAGE - 1, mem + 28 * PAGE);
	ops[n++] = op_romd(R_ROMD, 5 * PAGE - 1, mem + 34 * PAGE);
	ops[n++] = op_ram(R_SMALL, PAGE - 1, mem + 39 * PAGE);
	ops[n++] = op_alias(R_ALIAS, R_RAM, 0, 8 * PAGE - 1);
	ops[n++] = op_io(R_IO, PAGE - 1);
	ops[n++] = op_io(R_IO2, 3 * PAGE - 1);
	ops[n++] = op_container(R_BOX, 12 * PAGE - 1);
	ops[n++] = op_ram(R_IN_BOX, 6 * PAGE - 1, mem + 40 * PAGE);
	ops[n++] = op_ram(R_SMRAM, 4 * PAGE - 1, mem + 46 * PAGE);
	ops[n++] = op_container(SMM_ROOT, U64_MAX);
	ops[n++] = op_alias(SMM_ALIAS, ROOT, 0, U64_MAX);
	ops[n++] = op_add(SMM_ALIAS, SMM_ROOT, 0, 0);
	ops[n++] = op_memory_space(SMM, SMM_ROOT, 1);
	for (i = R_RAM; i < R_RAM + NR_R; i++)
		ops[n++] = op_add(i,
				  i == R_IN_BOX ? R_BOX : i == R_SMRAM ? SMM_ROOT : ROOT,
				  A + 4 * (i - R_RAM) * PAGE * (i != R_IN_BOX), i & 3);
	ops[n - 2].at = 2 * PAGE;
	return n;
}

static struct gpamap_op random_op(struct rnd *rnd, bool bad)
{
	u32 id = R_RAM + rnd_below(rnd, NR_R);
	u64 at = A + rnd_below(rnd, WINDOW) * PAGE;
	u32 npages;

	if (id == R_IN_BOX)
		at = rnd_below(rnd, 12) * PAGE;
	switch (rnd_below(rnd, bad ? 13 : 10)) {
	case 0:
	case 1:
	case 2:
		return op_at(id, at);
	case 3:
	case 4:
		return op_enable(id, rnd_below(rnd, 3));
	case 5:
		return op_prio(id, rnd_below(rnd, 5));
	case 6:
		return op_readonly(id, !rnd_below(rnd, 3));
	case 7:
		return op_romd_mode(R_ROMD, rnd_below(rnd, 2));
	case 8:
		return op_offset(R_ALIAS, rnd_below(rnd, 16) * PAGE);
	case 9:
		npages = 1 + rnd_below(rnd, random_lengths[id - R_RAM]);
		return op_last(id, npages * PAGE - 1);
	case 10:
		/* Memory on another offset in its page than the host's. */
		return op_at(id, at + 0x800);
	case 11:
		return op_del(NR_R + 100);
	}
	return op_cut_ahead(id, rnd_below(rnd, 2));
}

/* One batch, told and done. Returns what the real call answered. */
#define RANDOM_BATCH(_rnd, _ids, _bad)	({					\
	struct slots __before, __after, __pieces, __model, __gone, __come, __moved; \
	struct gpamap_stats __a = query_stats(self->fd), __b;			\
	struct snapshot *__snap = snapshot_take(self->fd);			\
	struct gpamap_apply __dry, __out;					\
	struct gpamap_op __ops[6];						\
	u32 __i, __n = 1 + rnd_below(_rnd, ARRAY_SIZE(__ops));			\
	int __rc, __rc_dry;							\
	ASSERT_NE(NULL, __snap);						\
	ASSERT_TRUE(query_slots(self->fd, &__before));				\
	for (__i = 0; __i < __n; __i++)						\
		__ops[__i] = random_op(_rnd, _bad);				\
	__rc_dry = _test_cmd_plan(self->fd, DRY_RUN, __ops, __n, &__dry);	\
	EXPECT_UNCHANGED(self->fd, __snap);					\
	__b = query_stats(self->fd);						\
	EXPECT_EQ(0, memcmp(&__a, &__b, sizeof(__a)));				\
	__rc = _test_cmd_plan(self->fd, 0, __ops, __n, &__out);			\
	EXPECT_EQ(__rc, __rc_dry);						\
	EXPECT_EQ(__out.out_failed_op, __dry.out_failed_op);			\
	EXPECT_PLAN_HELD(&__dry, PLAN(__out.out_deletes, __out.out_moves,		\
				    __out.out_creates, __out.out_taken),	\
		       __out.out_plan);						\
	__b = query_stats(self->fd);						\
	ASSERT_TRUE(query_slots(self->fd, &__after));				\
	if (__rc) {								\
		EXPECT_UNCHANGED(self->fd, __snap);				\
		EXPECT_EQ(0, memcmp(&__a, &__b, sizeof(__a)));			\
		__gone = __come = __moved = __pieces = __model = (struct slots){ 0 }; \
	} else {								\
		EXPECT_COUNTED(&__a, &__b, PLAN(__out.out_deletes,		\
			__out.out_moves, __out.out_creates, 0), __out.out_plan);	\
		ASSERT_TRUE(query_pieces(self->fd, &__pieces));			\
		EXPECT_TRUE(model_slots(&__before, &__pieces, _ids, &__model));	\
		EXPECT_NULL_WHY(layout_diff(&__after, &__model));		\
		EXPECT_NULL_WHY(ids_diff(&__after, _ids));			\
		slots_without(&__before, &__after, &__gone);			\
		slots_without(&__after, &__before, &__come);			\
		EXPECT_EQ(__gone.nr, __out.out_deletes + __out.out_moves);	\
		EXPECT_EQ(__come.nr, __out.out_creates + __out.out_moves);	\
		EXPECT_EQ(model_taken(&__gone, &__come), __out.out_taken);	\
		/* Also where memory comes and goes that no slot shows. */	\
		if (__gone.nr || __come.nr)					\
			EXPECT_EQ((u32)HOLD, __out.out_plan);			\
		split_moves(&__gone, &__come, &__moved);			\
		/* It may look moved, and had to be deleted and created. */	\
		EXPECT_GE(__moved.nr, __out.out_moves);				\
		if (__moved.nr == __out.out_moves)				\
			EXPECT_NULL_WHY(lowest_ids_diff(&__after, &__come, _ids)); \
	}									\
	slots_free(&__before);							\
	slots_free(&__after);							\
	slots_free(&__pieces);							\
	slots_free(&__model);							\
	slots_free(&__gone);							\
	slots_free(&__come);							\
	slots_free(&__moved);							\
	snapshot_free(__snap);							\
	__rc;									\
})

/* Every page of the window, and one on each side. */
static u32 window_pages(u64 *gpas)
{
	u32 i;

	for (i = 0; i < WINDOW + 18; i++)
		gpas[i] = A - PAGE + i * PAGE;
	return i;
}

TEST_F_TIMEOUT(plan, random_batches, 240)
{
	u64 seed = test_seed(), iter = env_number("ITER", 400), i, done = 0, moves;
	struct gpamap_op ops[40];
	u64 gpas[WINDOW + 18];
	struct rnd rnd;
	char *mem;
	u32 nr;

	TH_LOG("SEED=%llu ITER=%llu", (unsigned long long)seed, (unsigned long long)iter);
	rnd_seed(&rnd, seed);
	mem = host_memory(64 * PAGE);
	ASSERT_NE(NULL, mem);
	for (i = 0; i < 64; i++)
		*(u64 *)(mem + i * PAGE) = 0xc0de0000 + i;
	nr = add_random_regions(ops, mem);
	test_cmd_apply_ops(self->fd, ops, nr);
	nr = window_pages(gpas);
	for (i = 0; i < iter && _metadata->passed; i++) {
		done += !RANDOM_BATCH(&rnd, IDS, true);
		if (i % 20 == 0)
			EXPECT_NULL_WHY(guest_slots_diff(&self->guest, self->fd, gpas,
							 nr));
		if (i % 50 == 0)
			EXPECT_NULL_WHY(guest_places_diff(&self->guest, self->fd, 1, 400,
							  gpas, nr));
		if (!_metadata->passed)
			TH_LOG("batch %llu", (unsigned long long)i);
	}
	moves = query_stats(self->fd).moves;
	TH_LOG("%llu of %llu batches done, %llu moves", (unsigned long long)done,
	       (unsigned long long)i, (unsigned long long)moves);
	EXPECT_LT(0u, moves);
	munmap(mem, 64 * PAGE);
}

/*
 * With so few ids that they run out: what does not fit is refused, with the tree as it is
 * the VM cannot be attached either, and whatever fits is done.
 */
TEST_F_TIMEOUT(plan, random_batches_short, 240)
{
	u64 seed = test_seed(), iter = env_number("ITER", 400), i;
	const u32 ids = 6;
	u32 nr, refused = 0;
	struct gpamap_op ops[40], op;
	u64 gpas[WINDOW + 18];
	struct rnd rnd;
	char *mem;
	int rc;

	TH_LOG("SEED=%llu ITER=%llu", (unsigned long long)seed, (unsigned long long)iter);
	rnd_seed(&rnd, seed);
	mem = host_memory(64 * PAGE);
	ASSERT_NE(NULL, mem);
	nr = add_random_regions(ops, mem);
	test_cmd_apply_ops(self->fd, ops, nr);
	test_cmd_detach(self->fd);
	nr = window_pages(gpas);
	for (i = 0; i < iter && _metadata->passed; i++) {
		struct slots pieces, model, none = { 0 };
		bool fits;

		if (query_info(self->fd).state & GPAMAP_STATE_ATTACHED) {
			rc = RANDOM_BATCH(&rnd, ids, false);
			if (!rc)
				continue;
			EXPECT_EQ(-ENOSPC, rc);
			refused++;
			test_cmd_detach(self->fd);
		}
		/* Detached there is no such limit; then: does it fit again? */
		op = random_op(&rnd, false);
		test_cmd_apply_ops(self->fd, &op, 1);
		ASSERT_TRUE(query_pieces(self->fd, &pieces));
		fits = model_slots(&none, &pieces, ids, &model);
		rc = _test_cmd_attach(self->fd, self->guest.vm, 0, ids);
		EXPECT_EQ(fits ? 0 : -ENOSPC, rc);
		if (!rc)
			EXPECT_NULL_WHY(guest_slots_diff(&self->guest, self->fd, gpas,
							 nr));
		slots_free(&pieces);
		slots_free(&model);
		if (!_metadata->passed)
			TH_LOG("batch %llu", (unsigned long long)i);
	}
	TH_LOG("%u of %llu batches were too much, pieces joined %u times", refused,
	       (unsigned long long)i, model_joined);
	EXPECT_LT(0u, refused);
	EXPECT_LT(0u, model_joined);
	munmap(mem, 64 * PAGE);
}

TEST_HARNESS_MAIN

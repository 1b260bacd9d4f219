// SPDX-License-Identifier: GPL-2.0
/*
 * All or nothing: every call to KVM that a commit, an ATTACH or a DETACH makes is made to
 * fail in turn, and afterwards all is as it was: tree, views and slots as QUERY tells
 * them, and memory as a guest finds it. The same call succeeds right after that.
 *
 * A call fails because a slot of the VMM's is in the way, because there are no ids left,
 * because the VMM has deleted a slot of the map, or because the module is told to answer
 * for KVM (its parameters fail_nth, fail_times and fail_errno). If that goes on,
 * what was done cannot be undone: the map is broken, and tells what KVM has.
 */
#include "harness.h"
#include <linux/kvm.h>
#include <sys/mman.h>
#include "gpamap_util.h"
#include "guest.h"
#include "vcpu.h"
#include "vm.h"

#define PAGE TEST_PAGE

enum { ROOT = 1, MEM, OTHER, THIRD, IO, SMM_ROOT, SMM_ALIAS, SMRAM, LATER };
enum { SPACE = 1, SMM };

#define MEM_PAGES 16
#define MEM_LEN (MEM_PAGES * PAGE)
#define A 0x10000000ULL
#define B 0x40000000ULL
#define C 0x140000000ULL
#define IDS 32
#define FOREIGN 400			/* an id that is not the map's */
#define FOREVER 1000000

/* Everywhere that something is, or may come to be. */
static u64 probes[80];
static u32 nr_probes;

static void __attribute__((constructor)) fill_probes(void)
{
	static const u64 places[] = { A, A + 0x100000, B, B + 0x100000, C };
	u32 i, page;

	for (i = 0; i < ARRAY_SIZE(places); i++)
		for (page = 0; page < MEM_PAGES; page += 3)
			probes[nr_probes++] = places[i] + page * PAGE;
	for (i = 0; i < ARRAY_SIZE(places); i++) {
		probes[nr_probes++] = places[i] - PAGE;
		probes[nr_probes++] = places[i] + 4 * PAGE;
		probes[nr_probes++] = places[i] + 5 * PAGE;
		probes[nr_probes++] = places[i] + MEM_LEN;
	}
}

FIXTURE(rollback) {
	struct guest guest;
	char *mem;			/* MEM, OTHER, THIRD, SMRAM */
	int fd;
};

static int create(FIXTURE_DATA(rollback) *self)
{
	struct gpamap_op ops[] = {
		op_container(ROOT, U64_MAX), op_ram(MEM, MEM_LEN - 1, NULL),
		op_ram(OTHER, MEM_LEN - 1, NULL), op_ram(THIRD, MEM_LEN - 1, NULL),
		op_ram(SMRAM, 4 * PAGE - 1, NULL), op_io(IO, PAGE - 1),
		op_add(MEM, ROOT, A, 0), op_add(OTHER, ROOT, B, 0),
		op_container(SMM_ROOT, U64_MAX), op_alias(SMM_ALIAS, ROOT, 0, U64_MAX),
		op_add(SMM_ALIAS, SMM_ROOT, 0, 0),
		op_add(SMRAM, SMM_ROOT, A + 4 * PAGE, 1),
		op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT),
	};
	u32 i;
	int rc;

	rc = guest_create(&self->guest);
	if (rc)
		return rc;
	self->mem = mmap(NULL, 4 * MEM_LEN, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (self->mem == MAP_FAILED)
		return -ENOMEM;
	for (i = 0; i < 4 * MEM_PAGES; i++)
		*(u64 *)(self->mem + i * PAGE) = 0x600d000000000000 + i;
	for (i = 0; i < 4; i++)
		ops[1 + i].hva = (uintptr_t)self->mem + i * MEM_LEN;
	self->fd = map_open();
	if (self->fd < 0)
		return self->fd;
	rc = _test_cmd_apply(self->fd, ops, ARRAY_SIZE(ops), NULL, NULL);
	return rc ?: _test_cmd_attach(self->fd, self->guest.vm, 0, IDS);
}

static void destroy(FIXTURE_DATA(rollback) *self)
{
	close(self->fd);
	munmap(self->mem, 4 * MEM_LEN);
	guest_destroy(&self->guest);
}

/* A test that failed may have left something. */
#define disarm()								\
	do {									\
		ASSERT_EQ(0, module_param_set("fail_nth", 0));			\
		ASSERT_EQ(0, module_param_set("fail_times", 1));		\
		ASSERT_EQ(0, module_param_set("fail_errno", ENOMEM));		\
	} while (0)

FIXTURE_SETUP(rollback)
{
	disarm();
	ASSERT_EQ(0, create(self));
}

FIXTURE_TEARDOWN(rollback)
{
	destroy(self);
	/* No test leaves one armed. */
	EXPECT_EQ(0, module_param_get("fail_nth"));
}

/* The guest, and KVM in both address spaces, agree with QUERY_SLOTS. */
#define EXPECT_KVM_AGREES()							\
	do {									\
		EXPECT_NULL_WHY(guest_slots_diff(&self->guest, self->fd, probes, \
						 nr_probes));			\
		EXPECT_NULL_WHY(guest_places_diff(&self->guest, self->fd, 0, FOREIGN, \
						  probes, nr_probes));		\
		EXPECT_NULL_WHY(guest_places_diff(&self->guest, self->fd, 1, FOREIGN, \
						  probes, nr_probes));		\
	} while (0)

/* @_call fails with @_errno; nothing is different, and one roll-back is counted. */
#define EXPECT_ROLLED_BACK(_errno, _call)					\
	do {									\
		struct gpamap_stats __a = query_stats(self->fd), __b;		\
		EXPECT_ERR_UNCHANGED(_errno, self->fd, _call);			\
		__b = query_stats(self->fd);					\
		EXPECT_EQ(__a.rollbacks + 1, __b.rollbacks);			\
		EXPECT_EQ(__a.commits, __b.commits);				\
		EXPECT_EQ(__a.deletes, __b.deletes);				\
		EXPECT_EQ(__a.moves, __b.moves);				\
		EXPECT_EQ(__a.creates, __b.creates);				\
		EXPECT_EQ(__a.deleted_bytes, __b.deleted_bytes);		\
		EXPECT_EQ(__a.hold_failures, __b.hold_failures);		\
		EXPECT_KVM_AGREES();						\
	} while (0)

/* Batches that are done and undone: what they need of KVM is said by a dry run. */
struct change {
	const char *name;
	struct gpamap_op ops[6];
	struct gpamap_op undo[6];
};

static const struct gpamap_op nop = { .code = 0 };

static u32 nr_ops(const struct gpamap_op *ops)
{
	u32 n = 0;

	while (n < 6 && ops[n].code)
		n++;
	return n;
}

/* Deletes, moves and creates, alone and together, in one address space and in two. */
static u32 make_changes(struct change *changes)
{
	u32 n = 0;

	changes[n++] = (struct change){ "two creates",
		{ op_add(THIRD, ROOT, C, 0), op_alias(LATER, MEM, 0, 4 * PAGE - 1),
		  op_add(LATER, ROOT, B + 0x100000, 0) },
		{ op_del(THIRD), op_del(LATER), op_destroy(LATER) } };
	changes[n++] = (struct change){ "two deletes",
		{ op_enable(MEM, false), op_enable(OTHER, false) },
		{ op_enable(MEM, true), op_enable(OTHER, true) } };
	changes[n++] = (struct change){ "a move",
		{ op_at(MEM, A + 0x100000) }, { op_at(MEM, A) } };
	changes[n++] = (struct change){ "a move over itself",
		{ op_at(MEM, A + PAGE) }, { op_at(MEM, A) } };
	changes[n++] = (struct change){ "two moves, one after the other",
		{ op_at(MEM, B), op_at(OTHER, C) }, { op_at(MEM, A), op_at(OTHER, B) } };
	changes[n++] = (struct change){ "two change places",
		{ op_at(MEM, B), op_at(OTHER, A) }, { op_at(MEM, A), op_at(OTHER, B) } };
	changes[n++] = (struct change){ "an overlay splits",
		{ op_add(IO, ROOT, A + 4 * PAGE, 1) }, { op_del(IO), op_at(MEM, A + PAGE),
							 op_at(MEM, A) } };
	changes[n++] = (struct change){ "read-only",
		{ op_readonly(MEM, true), op_readonly(OTHER, true) },
		{ op_readonly(MEM, false), op_readonly(OTHER, false) } };
	changes[n++] = (struct change){ "all kinds",
		{ op_at(MEM, A + 0x100000), op_enable(OTHER, false),
		 op_add(THIRD, ROOT, C, 0),
		  op_add(IO, ROOT, C + 5 * PAGE, 1) },
		{ op_at(MEM, A), op_enable(OTHER, true), op_del(THIRD), op_del(IO) } };
	return n;
}

static int change_do(int fd, const struct gpamap_op *ops)
{
	return _test_cmd_apply(fd, ops, nr_ops(ops), NULL, NULL);
}

/* How many calls to KVM it takes. */
static int change_cost(int fd, const struct gpamap_op *ops)
{
	struct gpamap_apply out;
	int rc = _test_cmd_plan(fd, GPAMAP_APPLY_DRY_RUN, ops, nr_ops(ops), &out);

	return rc ?: (int)(out.out_deletes + out.out_moves + out.out_creates);
}

/*
 * Each call to KVM fails in turn, then none: the loop ends with the change done. No
 * operation of the batch is to blame for want of memory.
 */
#define SWEEP(_name, _ops)							\
	do {									\
		int __cost = change_cost(self->fd, _ops), __n;			\
		u32 __failed;							\
		ASSERT_LT(0, __cost) TH_LOG("%s", _name);			\
		for (__n = 1; __n <= __cost && _metadata->passed; __n++) {	\
			ASSERT_EQ(0, module_param_set("fail_nth", __n));	\
			EXPECT_ROLLED_BACK(ENOMEM,				\
				_test_cmd_apply(self->fd, _ops, nr_ops(_ops),	\
						&__failed, NULL));		\
			EXPECT_EQ(GPAMAP_NO_OP, __failed);			\
			EXPECT_EQ(0, module_param_get("fail_nth"));		\
			if (!_metadata->passed)					\
				TH_LOG("%s: call %d of %d", _name, __n, __cost); \
		}								\
		/* One more than there are. */					\
		ASSERT_EQ(0, module_param_set("fail_nth", __cost + 1));		\
		ASSERT_EQ(0, change_do(self->fd, _ops)) TH_LOG("%s", _name);	\
		EXPECT_EQ(1, module_param_get("fail_nth")) TH_LOG("%s", _name);	\
		ASSERT_EQ(0, module_param_set("fail_nth", 0));			\
		EXPECT_KVM_AGREES();						\
	} while (0)

static void with_smm(struct gpamap_op *ops)
{
	ops[0] = op_memory_space(SMM, SMM_ROOT, 1);
	ops[1] = nop;
}

/* Every call to KVM of every change, there and back. */
TEST_F_TIMEOUT(rollback, every_call, 240)
{
	struct change changes[16];
	u32 nr = make_changes(changes), i;

	for (i = 0; i < nr && _metadata->passed; i++) {
		SWEEP(changes[i].name, changes[i].ops);
		SWEEP(changes[i].name, changes[i].undo);
	}
}

/* The same where SMM has its own view of it: calls for both are of one commit. */
TEST_F_TIMEOUT(rollback, every_call_in_two_address_spaces, 240)
{
	struct gpamap_op smm[2];
	struct change changes[16];
	u32 nr = make_changes(changes), i;

	with_smm(smm);
	SWEEP("a space comes", smm);
	EXPECT_LT(0u, query_info(self->fd).used_slots);
	for (i = 0; i < nr && _metadata->passed; i++) {
		SWEEP(changes[i].name, changes[i].ops);
		SWEEP(changes[i].name, changes[i].undo);
	}
	smm[0] = op_space_destroy(SMM);
	SWEEP("a space goes", smm);
}

TEST_F_TIMEOUT(rollback, attach_and_detach, 120)
{
	struct gpamap_op smm[2];
	int n, round, cost;

	for (round = 0; round < 2 && _metadata->passed; round++) {
		cost = query_info(self->fd).used_slots;
		for (n = 1; n <= cost && _metadata->passed; n++) {
			ASSERT_EQ(0, module_param_set("fail_nth", n));
			EXPECT_ROLLED_BACK(ENOMEM, _test_cmd_detach(self->fd));
		}
		test_cmd_detach(self->fd);
		EXPECT_KVM_AGREES();
		for (n = 1; n <= cost && _metadata->passed; n++) {
			ASSERT_EQ(0, module_param_set("fail_nth", n));
			EXPECT_ROLLED_BACK(ENOMEM,
					   _test_cmd_attach(self->fd, self->guest.vm,
							    0, IDS));
			EXPECT_EQ(0, scratch_find(NULL, NULL));
		}
		test_cmd_attach(self->fd, self->guest.vm, 0, IDS);
		EXPECT_KVM_AGREES();
		with_smm(smm);
		if (!round)
			ASSERT_EQ(0, change_do(self->fd, smm));
	}
}

/* One that undoes is refused once, too: it is tried again. */
TEST_F_TIMEOUT(rollback, undone_at_the_second_try, 120)
{
	struct change changes[16];
	u32 nr = make_changes(changes), i;
	int n, cost;

	for (i = 0; i < nr && _metadata->passed; i++) {
		cost = change_cost(self->fd, changes[i].ops);
		for (n = 2; n <= cost && _metadata->passed; n++) {
			ASSERT_EQ(0, module_param_set("fail_times", 2));
			ASSERT_EQ(0, module_param_set("fail_nth", n));
			EXPECT_ROLLED_BACK(ENOMEM, change_do(self->fd, changes[i].ops));
			EXPECT_EQ(0, module_param_get("fail_nth"));
			EXPECT_EQ(1, module_param_get("fail_times"));
			if (!_metadata->passed)
				TH_LOG("%s: call %d of %d", changes[i].name, n, cost);
		}
	}
}

/* KVM may refuse all moves (EINVAL): then the same is done by deletes and creates. */
TEST_F(rollback, moves_are_refused)
{
	const struct gpamap_op there[] = { op_at(MEM, A + 0x100000), op_at(OTHER, C) };
	const struct gpamap_op back[] = { op_at(MEM, A), op_at(OTHER, B) };
	struct gpamap_stats before, after;
	struct gpamap_apply out;
	u32 n;

	ASSERT_EQ(0, module_param_set("fail_errno", EINVAL));
	for (n = 1; n <= 2; n++) {
		before = query_stats(self->fd);
		ASSERT_EQ(0, module_param_set("fail_nth", n));
		ASSERT_EQ(0, _test_cmd_plan(self->fd, 0, there, 2, &out));
		EXPECT_EQ(2u, out.out_deletes);
		EXPECT_EQ(0u, out.out_moves);
		EXPECT_EQ(2u, out.out_creates);
		EXPECT_EQ((u32)GPAMAP_PLAN_HOLD, out.out_plan);
		after = query_stats(self->fd);
		EXPECT_EQ(before.rollbacks + 1, after.rollbacks);
		EXPECT_EQ(before.commits + 1, after.commits);
		EXPECT_EQ(before.deletes + 2, after.deletes);
		EXPECT_EQ(before.creates + 2, after.creates);
		EXPECT_EQ(before.moves, after.moves);
		EXPECT_KVM_AGREES();
		/* It is remembered, of this VM. */
		ASSERT_EQ(0, _test_cmd_plan(self->fd, GPAMAP_APPLY_DRY_RUN, back, 2,
					    &out));
		EXPECT_EQ(0u, out.out_moves);
		test_cmd_apply_ops(self->fd, back, 2);
		EXPECT_EQ(before.moves, query_stats(self->fd).moves);
		EXPECT_KVM_AGREES();
		test_cmd_detach(self->fd);
		test_cmd_attach(self->fd, self->guest.vm, 0, IDS);
	}
	/* Where it is no move that is refused so, the commit is. */
	ASSERT_EQ(0, module_param_set("fail_nth", 1));
	EXPECT_ROLLED_BACK(EINVAL, ({
		const struct gpamap_op op = op_add(THIRD, ROOT, C, 0);

		_test_cmd_apply(self->fd, &op, 1, NULL, NULL);
	}));
	ASSERT_EQ(0, module_param_set("fail_errno", ENOMEM));
}

/* -- a slot of the VMM's in the way ---------------------------------------- */

/*
 * A foreign slot lies, in turn, at each place where a commit is to create a slot or to
 * move one to. Read-only, so that the guest can tell it from a slot of the map.
 */
#define SWEEP_FOREIGN(_name, _as, _ops, _undo)					\
	do {									\
		struct gpamap_slot_info *__before, *__after;			\
		u32 __nr_before, __nr_after, __i, __j, __failed, __found = 0;	\
		__before = query_all(self->fd, GPAMAP_QUERY_SLOTS, 0, &__nr_before); \
		ASSERT_EQ(0, change_do(self->fd, _ops)) TH_LOG("%s", _name);	\
		__after = query_all(self->fd, GPAMAP_QUERY_SLOTS, 0, &__nr_after); \
		ASSERT_EQ(0, change_do(self->fd, _undo)) TH_LOG("%s", _name);	\
		for (__i = 0; __i < __nr_after; __i++) {			\
			u64 __gpa = __after[__i].gpa +				\
				    (__after[__i].npages - 1) * PAGE;		\
			for (__j = 0; __j < __nr_before; __j++)			\
				if (__before[__j].slot >> 16 == (_as) &&	\
				    __gpa >= __before[__j].gpa && __gpa <	\
				    __before[__j].gpa + __before[__j].npages * PAGE) \
					break;					\
			/* Taken before: no slot of the VMM's can be there. */	\
			if (__j < __nr_before || __after[__i].slot >> 16 != (_as)) \
				continue;					\
			__found++;						\
			ASSERT_EQ(0, guest_set_slot(&self->guest,		\
						    (_as) << 16 | FOREIGN,	\
						    KVM_MEM_READONLY, __gpa, 1,	\
						    self->mem));		\
			EXPECT_REFUSED(_ops, __failed);				\
			EXPECT_NE(GPAMAP_NO_OP, __failed) TH_LOG("%s", _name);	\
			ASSERT_EQ(0, guest_set_slot(&self->guest,		\
						    (_as) << 16 | FOREIGN, 0,	\
						    __gpa, 0, self->mem));	\
			EXPECT_KVM_AGREES();					\
			ASSERT_EQ(0, change_do(self->fd, _ops));		\
			ASSERT_EQ(0, change_do(self->fd, _undo));		\
		}								\
		free(__before);							\
		free(__after);							\
		foreign_cases += __found;					\
	} while (0)

#define EXPECT_REFUSED(_ops, _failed)						\
	do {									\
		u64 __rollbacks = query_stats(self->fd).rollbacks;		\
		EXPECT_ERR_UNCHANGED(EEXIST, self->fd,				\
			_test_cmd_apply(self->fd, _ops, nr_ops(_ops), &(_failed), \
					NULL));					\
		EXPECT_EQ(__rollbacks + 1, query_stats(self->fd).rollbacks);	\
	} while (0)

TEST_F_TIMEOUT(rollback, foreign_slot_in_the_way, 240)
{
	u32 i, as, nr, foreign_cases = 0;
	struct change changes[16];
	struct gpamap_op smm[2];

	nr = make_changes(changes);
	for (as = 0; as < 2; as++) {
		with_smm(smm);
		if (as)
			ASSERT_EQ(0, change_do(self->fd, smm));
		for (i = 0; i < nr && _metadata->passed; i++)
			SWEEP_FOREIGN(changes[i].name, as, changes[i].ops,
				      changes[i].undo);
	}
	TH_LOG("%u cases", foreign_cases);
	EXPECT_LT(10u, foreign_cases);
}

/* -- no ids left ----------------------------------------------------------- */

/* That is found before KVM is called: nothing has to be undone. */
TEST_F_TIMEOUT(rollback, ids_used_up, 120)
{
	u32 i, nr, used, refused = 0;
	struct change changes[16];
	struct gpamap_stats stats;

	nr = make_changes(changes);
	used = query_info(self->fd).used_slots;
	test_cmd_detach(self->fd);
	test_cmd_attach(self->fd, self->guest.vm, 0, used);
	for (i = 0; i < nr && _metadata->passed; i++) {
		u32 failed;
		int rc = change_cost(self->fd, changes[i].ops);

		stats = query_stats(self->fd);
		if (rc >= 0) {
			ASSERT_EQ(0, change_do(self->fd, changes[i].ops));
			ASSERT_EQ(0, change_do(self->fd, changes[i].undo));
			continue;
		}
		EXPECT_EQ(-ENOSPC, rc);
		refused++;
		EXPECT_ERR_UNCHANGED(ENOSPC, self->fd,
				     _test_cmd_apply(self->fd, changes[i].ops,
						     nr_ops(changes[i].ops), &failed,
						     NULL));
		EXPECT_NE(GPAMAP_NO_OP, failed);
		EXPECT_EQ(stats.rollbacks, query_stats(self->fd).rollbacks);
		EXPECT_EQ(stats.holds, query_stats(self->fd).holds);
	}
	EXPECT_KVM_AGREES();
	EXPECT_LE(2u, refused);
}

/* -- a slot of the map that the VMM has deleted ------------------------------ */

TEST_F(rollback, deleted_behind_the_back)
{
	const u64 gpas[] = { A, A + 4 * PAGE, A + MEM_LEN - PAGE, C, A + 0x100000 };

	/* KVM knows nothing to delete; what was deleted before it comes back. */
	ASSERT_EQ(0, guest_set_slot(&self->guest, 1, 0, B, 0, self->mem));
	EXPECT_ERR_UNCHANGED(EINVAL, self->fd, ({
		const struct gpamap_op ops[] = { op_del(MEM), op_del(OTHER),
						 op_add(THIRD, ROOT, C, 0) };

		_test_cmd_apply(self->fd, ops, 3, NULL, NULL);
	}));
	EXPECT_EQ(1u, query_stats(self->fd).rollbacks);
	EXPECT_NULL_WHY(guest_slots_diff(&self->guest, self->fd, gpas, ARRAY_SIZE(gpas)));
	EXPECT_GUEST_MMIO(&self->guest, B);
	EXPECT_ERR_UNCHANGED(EINVAL, self->fd, _test_cmd_detach(self->fd));
	EXPECT_NULL_WHY(guest_slots_diff(&self->guest, self->fd, gpas, ARRAY_SIZE(gpas)));
	EXPECT_GUEST_MMIO(&self->guest, B);
	/* What leaves it alone works. */
	test_cmd_apply(self->fd, op_at(MEM, A + 0x100000));
	test_cmd_apply(self->fd, op_at(MEM, A));
	/* A slot that moves is created there, if there is none. */
	test_cmd_apply(self->fd, op_at(OTHER, B + 0x100000));
	EXPECT_KVM_AGREES();
	test_cmd_detach(self->fd);
}

/* -- a roll-back that fails -------------------------------------------------- */

#define EXPECT_BROKEN_ERR(_call)						\
	EXPECT_ERR_UNCHANGED(EIO, self->fd, _call)

/* All that a broken map can do is to tell, and to be closed. */
#define EXPECT_BROKEN()								\
	do {									\
		const struct gpamap_op __op = op_container(77, 0xfff);		\
		struct gpamap_apply __out;					\
		EXPECT_EQ((u32)(GPAMAP_STATE_BROKEN | GPAMAP_STATE_ATTACHED),	\
			  query_info(self->fd).state);				\
		EXPECT_BROKEN_ERR(_test_cmd_apply(self->fd, &__op, 1, NULL, NULL)); \
		EXPECT_BROKEN_ERR(_test_cmd_apply(self->fd, NULL, 0, NULL, NULL)); \
		EXPECT_BROKEN_ERR(_test_cmd_plan(self->fd, GPAMAP_APPLY_DRY_RUN, \
						 &__op, 1, &__out));		\
		EXPECT_BROKEN_ERR(_test_cmd_detach(self->fd));			\
		EXPECT_BROKEN_ERR(_test_cmd_attach(self->fd, self->guest.vm, 0, IDS)); \
	} while (0)

/* Of every slot it is known whose it is: a region of the view, or of nothing now. */
#define EXPECT_SLOTS_NAMED()							\
	do {									\
		struct gpamap_slot_info *__slots;				\
		struct gpamap_lookup __at;					\
		u32 __i, __nr;							\
		__slots = query_all(self->fd, GPAMAP_QUERY_SLOTS, 0, &__nr);	\
		ASSERT_NE(NULL, __slots);					\
		EXPECT_EQ(__nr, query_info(self->fd).used_slots);		\
		for (__i = 0; __i < __nr; __i++) {				\
			if (_test_cmd_lookup(self->fd, __slots[__i].slot >> 16 ? \
					     SMM : SPACE, __slots[__i].gpa, &__at)) \
				__at.out_region = 0;				\
			EXPECT_EQ(__at.out_region, __slots[__i].region);	\
		}								\
		free(__slots);							\
	} while (0)

/* Call @_n fails, and all after it. */
#define FAIL_FROM(_n, _call)	({						\
	int __rc;								\
	ASSERT_EQ(0, module_param_set("fail_times", FOREVER));			\
	ASSERT_EQ(0, module_param_set("fail_nth", _n));				\
	__rc = _call;								\
	ASSERT_EQ(0, module_param_set("fail_nth", 0));				\
	ASSERT_EQ(0, module_param_set("fail_times", 1));			\
	__rc;									\
})

/*
 * @_call fails from its call @_n on, and cannot be undone; unless it is the first, when
 * there is nothing to undo. Views are as before, slots as they have become.
 */
#define EXPECT_BREAKS(_n, _call)						\
	do {									\
		struct snapshot *__before = snapshot_take(self->fd), *__after;	\
		struct gpamap_stats __a = query_stats(self->fd), __b;		\
		ASSERT_NE(NULL, __before);					\
		EXPECT_EQ((_n) == 1 ? -ENOMEM : -EIO, FAIL_FROM(_n, _call));	\
		__b = query_stats(self->fd);					\
		EXPECT_EQ(__a.rollbacks + 1, __b.rollbacks);			\
		EXPECT_EQ(__a.commits, __b.commits);				\
		__after = snapshot_take(self->fd);				\
		ASSERT_NE(NULL, __after);					\
		if ((_n) == 1) {						\
			EXPECT_NULL_WHY(snapshot_diff(__before, __after));	\
		} else {							\
			EXPECT_NULL_WHY(snapshot_diff_views(__before, __after)); \
			EXPECT_BROKEN();					\
			EXPECT_SLOTS_NAMED();					\
		}								\
		EXPECT_KVM_AGREES();						\
		snapshot_free(__before);					\
		snapshot_free(__after);						\
	} while (0)

/* Another map and VM, for the next time; the broken ones go. */
#define BEGIN_ANEW(_smm)							\
	do {									\
		destroy(self);							\
		ASSERT_EQ(0, create(self));					\
		if (_smm)							\
			test_cmd_apply(self->fd,				\
				       op_memory_space(SMM, SMM_ROOT, 1));	\
	} while (0)

TEST_F_TIMEOUT(rollback, broken_by_commit, 240)
{
	struct change changes[16];
	u32 nr = make_changes(changes), i, smm, broken = 0;
	int n, cost, refs;

	refs = module_refcnt("gpamap");
	for (smm = 0; smm < 2; smm++) {
		BEGIN_ANEW(smm);
		for (i = 0; i < nr && _metadata->passed; i++) {
			cost = change_cost(self->fd, changes[i].ops);
			for (n = 1; n <= cost && _metadata->passed; n++) {
				EXPECT_BREAKS(n, change_do(self->fd, changes[i].ops));
				if (!_metadata->passed)
					TH_LOG("%s: call %d of %d", changes[i].name, n,
					       cost);
				if (n == 1)
					continue;
				broken++;
				BEGIN_ANEW(smm);
			}
		}
	}
	/* None of them is left. */
	EXPECT_EQ(refs, module_refcnt("gpamap"));
	TH_LOG("broken %u times", broken);
	EXPECT_LT(10u, broken);
}

TEST_F_TIMEOUT(rollback, broken_by_attach_and_detach, 120)
{
	int n;

	for (n = 1; n <= 6 && _metadata->passed; n++) {
		BEGIN_ANEW(true);
		ASSERT_EQ(6u, query_info(self->fd).used_slots);
		EXPECT_BREAKS(n, _test_cmd_detach(self->fd));
	}
	for (n = 1; n <= 6 && _metadata->passed; n++) {
		BEGIN_ANEW(true);
		test_cmd_detach(self->fd);
		EXPECT_BREAKS(n, _test_cmd_attach(self->fd, self->guest.vm, 0, IDS));
	}
}

/* A broken map keeps the VM, where its slots are; closing it gives both to the VMM. */
TEST_F(rollback, broken_map_is_closed)
{
	const struct gpamap_op op = op_at(MEM, A + 0x100000);
	struct gpamap_slot_info *slots;
	int other = map_open();
	u32 i, nr;

	ASSERT_LE(0, other);
	EXPECT_BREAKS(2, ({
		const struct gpamap_op ops[] = { op_enable(OTHER, false), op };

		_test_cmd_apply(self->fd, ops, 2, NULL, NULL);
	}));
	EXPECT_EQ(-EBUSY, _test_cmd_attach(other, self->guest.vm, 0, IDS));
	slots = query_all(self->fd, GPAMAP_QUERY_SLOTS, 0, &nr);
	ASSERT_NE(NULL, slots);
	ASSERT_EQ(1u, nr);
	close(self->fd);
	for (i = 0; i < nr; i++)
		EXPECT_EQ(0, guest_set_slot(&self->guest, slots[i].slot, 0, slots[i].gpa,
					    0,
					    self->mem));
	free(slots);
	test_cmd_attach(other, self->guest.vm, 0, IDS);
	self->fd = other;
	EXPECT_KVM_AGREES();
}

/* -- beside a vCPU that runs -------------------------------------------------- */

FIXTURE(running) {
	struct vm vm;
	struct vcpu vcpus[2];
};

FIXTURE_SETUP(running)
{
	u32 i;

	disarm();
	ASSERT_EQ(0, vm_create(&self->vm, false));
	vcpu_first(&self->vcpus[0], &self->vm.guest);
	ASSERT_EQ(0, vcpu_add(&self->vcpus[1], &self->vm.guest, 1));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, vcpu_count(&self->vcpus[i]));
}

FIXTURE_TEARDOWN(running)
{
	u32 i;

	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, vcpu_stop(&self->vcpus[i]))
			TH_LOG("%s", vcpu_text(&self->vcpus[i]));
	}
	vcpu_destroy(&self->vcpus[1]);
	vm_destroy(&self->vm);
}

/* A roll-back, too, is over before a vCPU goes on. */
TEST_F_TIMEOUT(running, vcpus_notice_nothing, 120)
{
	struct vcpu *v = self->vcpus;
	struct vm *vm = &self->vm;
	struct gpamap_stats stats;
	u32 n;

	/* Where VM_MEM is to be there is a slot of the VMM's. */
	ASSERT_EQ(0, guest_set_slot(&vm->guest, FOREIGN, 0, B, 1, vm->mem));
	for (n = 0; n < 90; n++) {
		ASSERT_TRUE(vcpu_moves_on(&v[n & 1])) TH_LOG("%s", vcpu_text(&v[n & 1]));
		if (n % 3 < 2) {
			ASSERT_EQ(0, module_param_set("fail_nth", 1 + n % 3));
			test_err_apply(ENOMEM, GPAMAP_NO_OP, vm->fd, SWAP_OPS(vm));
		} else {
			test_err_apply(EEXIST, 2, vm->fd, SWAP_OPS(vm),
				       op_add(VM_MEM, VM_ROOT, B, 0));
		}
		if (n % 10 == 9)
			ASSERT_EQ(0, vm_swap(vm));
	}
	stats = query_stats(vm->fd);
	EXPECT_EQ(90u, stats.rollbacks);
	/* ATTACH, and 9 that succeeded. */
	EXPECT_EQ(1 + 90 + 9u, stats.holds);
}

TEST_HARNESS_MAIN

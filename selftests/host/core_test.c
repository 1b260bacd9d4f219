// SPDX-License-Identifier: GPL-2.0
/*
 * The pure core on the host: random batches against a model (exercise.c), every
 * allocation failed in turn, limits, slots. The rules of what is visible are tested by
 * the map files in ../data.
 *
 * SEED and ITER in the environment choose the random sequence and its length.
 */
#include <unistd.h>
#include "exercise.h"
#include "fuzz_record.h"
#include "kselftest/kselftest_harness.h"

static unsigned long env(const char *name, unsigned long preset)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 0) : preset;
}

/* xorshift64*: the same sequence everywhere for the same seed. */
static u64 rnd_state;

static u64 rnd(void)
{
	rnd_state ^= rnd_state >> 12;
	rnd_state ^= rnd_state << 25;
	rnd_state ^= rnd_state >> 27;
	return rnd_state * 2685821657736338717ULL;
}

static u64 rnd_below(u64 n)
{
	return (rnd() >> 16) % n;
}

static struct gpamap_op region(u32 id, u32 kind, u64 last)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_REGION, .id = id, .kind = kind,
				   .last = last };
}

static struct gpamap_op alias(u32 id, u64 last, u32 target, u64 offset)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_REGION, .id = id,
				   .kind = GPAMAP_REGION_ALIAS, .last = last,
				   .ref = target, .offset = offset };
}

static struct gpamap_op add(u32 id, u32 container, u64 at, s32 prio)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_ADD, .id = id, .ref = container,
				   .at = at, .prio = prio };
}

static struct gpamap_op space(u32 id, u32 root)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_SPACE, .id = id,
				   .kind = GPAMAP_SPACE_VIEW, .ref = root };
}

static struct gpamap_op simple(u32 code, u32 id)
{
	return (struct gpamap_op){ .code = code, .id = id };
}

static struct gpamap_op set_flag(u32 id, u32 mask, u32 flags)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_SET, .id = id, .mask = mask,
				   .flags = flags };
}

/* ---- random operations ---- */

/* Small numbers mostly, so that regions meet; sometimes the edge of the world. */
static u64 rnd_addr(void)
{
	if (rnd_below(16))
		return rnd_below(64);
	return rnd_below(2) ? U64_MAX - rnd_below(64) : rnd();
}

struct random {
	u64 left;		/* steps */
	bool cyclic;		/* aliases go into their targets, where they shift but little */
	struct gpamap_op next;	/* if it has an id */
};

static enum step rnd_step(void *arg, struct gpamap_op *op)
{
	struct random *random = arg;
	struct fuzz_record rec;

	if (!random->left--)
		return STEP_END;
	if (random->next.id) {
		*op = random->next;
		random->next.id = 0;
		return STEP_OP;
	}
	switch (rnd_below(32)) {
	case 0 ... 3:
		return STEP_COMMIT;
	case 4:
		return STEP_ABORT;
	}
	rec = (struct fuzz_record){
		/* Regions and places first of all, destruction last. */
		.code = (uint8_t[]){ 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 3, 4, 4, 4, 4, 4 }
			[rnd_below(16)],
		.id = rnd(), .ref = rnd_below(3) ? rnd() : 0, .kind = rnd(),
		.flags = rnd_below(4) ? 0 : rnd(), .prio = rnd_below(4) - 1,
		.mask = 1 << rnd_below(9), .last = rnd_addr(),
		.at = random->cyclic ? rnd_below(4) : rnd_addr(),
	};
	if (!rnd_below(4))
		rec.mask = rnd();
	fuzz_record_op(&rec, NR_IDS, op);
	if (op->code == GPAMAP_OP_REGION &&
	    (op->kind == GPAMAP_REGION_RAM || op->kind == GPAMAP_REGION_ROM) &&
	    op->last < 1 << 20)
		op->hva = rnd_below(8) ? 0x10000 * op->id : U64_MAX - op->last;
	if (random->cyclic && op->code == GPAMAP_OP_REGION && op->kind == GPAMAP_REGION_ALIAS)
		random->next = add(op->id, op->ref, rnd_below(rnd_below(2) ? 8 : 64),
				   rnd_below(4) - 1);
	return STEP_OP;
}

/* ---- a tree with one space over region 1 ---- */

FIXTURE(core)
{
	struct gpamap_tree tree;
	char *before;
};

FIXTURE_SETUP(core)
{
	struct gpamap_op op = region(1, GPAMAP_REGION_CONTAINER, U64_MAX);

	gpamap_tree_init(&self->tree);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	op = space(1, 1);
	ASSERT_EQ(0, do_op(&self->tree, &op));
}

FIXTURE_TEARDOWN(core)
{
	gpamap_tree_destroy(&self->tree);
	free(self->before);
}

/* Invariant 3, and rules 35 and 49. */
TEST_F_TIMEOUT(core, random_batches_equal_the_model, 900)
{
	u64 seed = env("SEED", getpid() * 2654435761UL + 1);
	u64 iter = env("ITER", 300);
	const char *text;
	u64 i;

	TH_LOG("SEED=%llu ITER=%llu", seed, iter);
	rnd_state = seed;
	for (i = 0; i < iter; i++) {
		struct random random = { .left = 500, .cyclic = i & 1 };

		text = exercise(rnd_step, &random);
		ASSERT_EQ(NULL, text) TH_LOG("tree %llu: %s", i, text);
	}
	/* The test is of no use if few are as rule 15 has them, either way. */
	if (iter >= 100) {
		EXPECT_LT(exercised.rendered / 8, exercised.cyclic);
		EXPECT_LT(iter / 4, exercised.refused);
	}
	TH_LOG("%llu batches rendered, %llu of them with cycles, %llu refused, %llu unknown",
	       exercised.rendered, exercised.cyclic, exercised.refused, exercised.unknown);
}

/* Every allocation of a batch in turn: it fails with ENOMEM, or is not needed. */
TEST_F(core, every_allocation_fails_in_turn)
{
	const struct gpamap_op ops[] = {
		region(2, GPAMAP_REGION_RAM, 0xfff), region(3, GPAMAP_REGION_IO, 0xff),
		alias(4, 0xff, 2, 0x100), add(2, 1, 0, 0), add(3, 1, 0x80, 1),
		add(4, 1, 0x2000, 0), space(2, 1), simple(GPAMAP_OP_DEL, 3),
		simple(GPAMAP_OP_DESTROY, 3), region(3, GPAMAP_REGION_ROM, 0xf),
		simple(GPAMAP_OP_SPACE_DESTROY, 1), space(1, 2),
	};
	struct gpamap_txn txn;
	long nth, passed = 0;
	char *after;
	size_t i;
	int rc;

	self->before = dump(&self->tree);
	for (nth = 1; !passed; nth++) {
		ASSERT_LT(nth, 1000);
		host_fail_alloc = nth;
		rc = gpamap_txn_begin(&txn, &self->tree, ARRAY_SIZE(ops));
		if (!rc) {
			for (i = 0; !rc && i < ARRAY_SIZE(ops); i++)
				rc = gpamap_txn_op(&txn, &ops[i]);
			if (!rc)
				rc = gpamap_txn_render(&txn);
			passed = host_fail_alloc;
			host_fail_alloc = 0;
			gpamap_txn_abort(&txn);
		}
		host_fail_alloc = 0;
		ASSERT_EQ(passed ? 0 : -ENOMEM, rc) TH_LOG("allocation %ld", nth);
		after = dump(&self->tree);
		ASSERT_STREQ(self->before, after) TH_LOG("allocation %ld", nth);
		free(after);
	}
	ASSERT_GT(nth, 12);
}

TEST_F(core, an_id_can_be_destroyed_and_made_again_in_one_batch)
{
	const struct gpamap_op ops[] = {
		simple(GPAMAP_OP_DESTROY, 2), region(2, GPAMAP_REGION_IO, 7),
		simple(GPAMAP_OP_DESTROY, 2), region(2, GPAMAP_REGION_RAM, 9),
	};
	struct gpamap_op op = region(2, GPAMAP_REGION_CONTAINER, 3);
	struct gpamap_txn txn;
	char *after;
	u32 keep, i;

	ASSERT_EQ(0, do_op(&self->tree, &op));
	self->before = dump(&self->tree);
	for (keep = 0; keep <= ARRAY_SIZE(ops); keep++) {
		ASSERT_EQ(0, gpamap_txn_begin(&txn, &self->tree, keep + 1));
		for (i = 0; i < keep; i++)
			ASSERT_EQ(0, gpamap_txn_op(&txn, &ops[i]));
		gpamap_txn_abort(&txn);
		after = dump(&self->tree);
		ASSERT_STREQ(self->before, after);
		free(after);
	}
	ASSERT_EQ(0, gpamap_txn_begin(&txn, &self->tree, 4));
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, gpamap_txn_op(&txn, &ops[i]));
	ASSERT_EQ(0, gpamap_txn_render(&txn));
	gpamap_txn_commit(&txn);
	ASSERT_EQ(GPAMAP_REGION_RAM, gpamap_tree_region(&self->tree, 2)->kind);
	ASSERT_EQ(2, self->tree.nr_regions);
}

TEST_F(core, generation_changes_only_with_a_view_or_the_set_of_spaces)
{
	const struct {
		struct gpamap_op op;
		bool changes;
	} steps[] = {
		{ region(2, GPAMAP_REGION_IO, 9), false },
		{ add(2, 1, 0, 0), true },
		{ { .code = GPAMAP_OP_SET, .id = 2, .mask = GPAMAP_SET_PRIO, .prio = 5 },
		  false },
		{ { .code = GPAMAP_OP_SET, .id = 2, .mask = GPAMAP_SET_AT, .at = 5 },
		  true },
		{ { .code = GPAMAP_OP_SET, .id = 2, .mask = GPAMAP_SET_LAST, .last = 9 },
		  false },
		{ space(2, 1), true },
		{ simple(GPAMAP_OP_SPACE_DESTROY, 2), true },
		{ simple(GPAMAP_OP_DEL, 2), true },
		{ simple(GPAMAP_OP_DESTROY, 2), false },
	};
	struct gpamap_txn txn;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		ASSERT_EQ(0, gpamap_txn_begin(&txn, &self->tree, 1));
		ASSERT_EQ(0, gpamap_txn_op(&txn, &steps[i].op));
		ASSERT_EQ(0, gpamap_txn_render(&txn));
		EXPECT_EQ(steps[i].changes, gpamap_txn_changed(&txn)) {
			TH_LOG("step %zu", i);
		}
		gpamap_txn_commit(&txn);
	}
}

/* Spaces over one region see one view; the last one takes it along. */
TEST_F(core, spaces_over_one_root_share_its_view)
{
	struct gpamap_op op = space(2, 1);

	ASSERT_EQ(0, do_op(&self->tree, &op));
	ASSERT_EQ(gpamap_tree_space(&self->tree, 1)->root,
		  gpamap_tree_space(&self->tree, 2)->root);
	op = simple(GPAMAP_OP_SPACE_DESTROY, 1);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	ASSERT_NE(NULL, gpamap_tree_region(&self->tree, 1)->root);
	op = simple(GPAMAP_OP_DESTROY, 1);
	ASSERT_EQ(-EBUSY, do_op(&self->tree, &op));
	op = simple(GPAMAP_OP_SPACE_DESTROY, 2);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	ASSERT_EQ(NULL, gpamap_tree_region(&self->tree, 1)->root);
	op = simple(GPAMAP_OP_DESTROY, 1);
	ASSERT_EQ(0, do_op(&self->tree, &op));
}

static u32 nr_looks;

static int refuses_two(void *arg)
{
	struct gpamap_tree *tree = arg;

	nr_looks++;
	return gpamap_tree_region(tree, 2) && gpamap_tree_region(tree, 2)->container;
}

/* The operation to blame, wherever in the batch it stands. */
TEST_F(core, blame)
{
	struct gpamap_op ops[12];
	struct gpamap_txn txn;
	u32 culprit, i;

	for (culprit = 1; culprit < ARRAY_SIZE(ops); culprit++) {
		ops[0] = region(2, GPAMAP_REGION_IO, 9);
		for (i = 1; i < ARRAY_SIZE(ops); i++)
			ops[i] = i == culprit ? add(2, 1, 0, 0) :
						region(10 + i, GPAMAP_REGION_IO, 9);
		self->before = dump(&self->tree);
		ASSERT_EQ(0, gpamap_txn_begin(&txn, &self->tree, ARRAY_SIZE(ops)));
		for (i = 0; i < ARRAY_SIZE(ops); i++)
			ASSERT_EQ(0, gpamap_txn_op(&txn, &ops[i]));
		nr_looks = 0;
		EXPECT_EQ(culprit, gpamap_txn_blame(&txn, ops, refuses_two, &self->tree));
		/* Each look may be dear: the logarithm of 12, rounded up. */
		EXPECT_GE(4u, nr_looks);
		gpamap_txn_abort(&txn);
		ASSERT_STREQ(self->before, dump(&self->tree));
	}
}

/* ---- where slots are cut ahead ---- */

/* What comes and goes: by itself, in a container, through an alias, cut by a window. */
TEST_F(core, cuts_are_where_something_comes_and_goes)
{
	const struct gpamap_op ops[] = {
		region(2, GPAMAP_REGION_RAM, 0xffffff),
		add(2, 1, 0, 0),
		/* Seen, and to stay. */
		region(3, GPAMAP_REGION_IO, 0xfff),
		add(3, 1, 0x700000, 1),
		/* Disabled; in part of a page. */
		region(4, GPAMAP_REGION_IO, 0x1003),
		add(4, 1, 0x1ffe, 1),
		set_flag(4, GPAMAP_SET_ENABLED, GPAMAP_REGION_DISABLED),
		/* In a disabled container, and through an alias to it. */
		region(5, GPAMAP_REGION_CONTAINER, 0xffff),
		region(6, GPAMAP_REGION_ROM, 0xfff),
		add(6, 5, 0x2000, 0),
		add(5, 1, 0x100000, 1),
		set_flag(5, GPAMAP_SET_ENABLED, GPAMAP_REGION_DISABLED),
		alias(7, 0xffff, 5, 0x1000),
		add(7, 1, 0x200000, 1),
		/* Seen, but told to go. */
		region(8, GPAMAP_REGION_IO, 0xfff),
		add(8, 1, 0x300000, 1),
		set_flag(8, GPAMAP_SET_CUT_AHEAD, GPAMAP_REGION_CUT_AHEAD),
	};
	static const u64 all[] = { 0x1, 0x4, 0x102, 0x103, 0x201, 0x202, 0x300, 0x301 };
	u64 *cuts;
	u32 i, nr;

	for (i = 0; i < ARRAY_SIZE(ops); i++)
		ASSERT_EQ(0, do_op(&self->tree, &ops[i])) TH_LOG("operation %u", i);
	ASSERT_EQ(0, gpamap_flatview_cuts(gpamap_tree_region(&self->tree, 1), 12, 0,
					  U64_MAX, &cuts, &nr));
	ASSERT_EQ(ARRAY_SIZE(all), nr);
	for (i = 0; i < nr; i++)
		EXPECT_EQ(all[i], cuts[i]) TH_LOG("cut %u", i);
	kvfree(cuts);

	/* Only what is in the window. */
	ASSERT_EQ(0, gpamap_flatview_cuts(gpamap_tree_region(&self->tree, 1), 12, 0x200000,
					  0x2fffff, &cuts, &nr));
	ASSERT_EQ(2u, nr);
	EXPECT_EQ(0x201u, cuts[0]);
	EXPECT_EQ(0x202u, cuts[1]);
	kvfree(cuts);
	ASSERT_EQ(0, gpamap_flatview_cuts(gpamap_tree_region(&self->tree, 1), 12, 0x400000,
					  0x6fffff, &cuts, &nr));
	EXPECT_EQ(0u, nr);
	kvfree(cuts);
}

/* A hint changes no view, and is one only for those that can have flags. */
TEST_F(core, a_hint_is_not_seen)
{
	struct gpamap_op op;

	op = region(2, GPAMAP_REGION_IO, 9);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	op = add(2, 1, 0, 0);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	op = set_flag(2, GPAMAP_SET_CUT_AHEAD, GPAMAP_REGION_CUT_AHEAD);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	EXPECT_EQ((u32)GPAMAP_REGION_CUT_AHEAD,
		  gpamap_tree_region(&self->tree, 2)->flags);
	op = set_flag(2, GPAMAP_SET_ENABLED, GPAMAP_REGION_CUT_AHEAD);
	EXPECT_EQ(-EINVAL, do_op(&self->tree, &op));
	op = set_flag(2, GPAMAP_SET_CUT_AHEAD, 0);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	EXPECT_EQ(0u, gpamap_tree_region(&self->tree, 2)->flags);
}

/* ---- limits ---- */

TEST_F(core, too_many_regions)
{
	struct gpamap_op op;
	u32 id;

	for (id = 2; id <= GPAMAP_MAX_REGIONS; id++) {
		op = region(id, GPAMAP_REGION_IO, 0);
		ASSERT_EQ(0, do_op(&self->tree, &op));
	}
	op = region(id, GPAMAP_REGION_IO, 0);
	ASSERT_EQ(-ENOSPC, do_op(&self->tree, &op));
	op = simple(GPAMAP_OP_DESTROY, 2);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	op = region(id, GPAMAP_REGION_IO, 0);
	ASSERT_EQ(0, do_op(&self->tree, &op));
}

TEST_F(core, too_many_spaces)
{
	struct gpamap_op op;
	u32 id;

	for (id = 2; id <= GPAMAP_MAX_SPACES; id++) {
		op = space(id, 1);
		ASSERT_EQ(0, do_op(&self->tree, &op));
	}
	op = space(id, 1);
	ASSERT_EQ(-ENOSPC, do_op(&self->tree, &op));
}

/* Rule 15: the longest path has GPAMAP_MAX_DEPTH regions, and is rendered. */
TEST_F(core, too_deep_through_containers)
{
	struct gpamap_op op;
	u32 id;

	for (id = 2; id <= GPAMAP_MAX_DEPTH + 1; id++) {
		op = region(id, GPAMAP_REGION_IO, 1000 - id);
		ASSERT_EQ(0, do_op(&self->tree, &op));
		op = add(id, id - 1, 1, 0);
		ASSERT_EQ(id > GPAMAP_MAX_DEPTH ? -ELOOP : 0, do_op(&self->tree, &op));
	}
	ASSERT_EQ(GPAMAP_MAX_DEPTH - 1,
		  gpamap_tree_space(&self->tree, 1)->root->view->nr);
}

/* From both ends, and in the middle. */
TEST_F(core, too_deep_by_joining_two_chains)
{
	struct gpamap_op op;
	u32 half = GPAMAP_MAX_DEPTH / 2;
	u32 id;

	for (id = 2; id <= GPAMAP_MAX_DEPTH + 1; id++) {
		op = region(id, GPAMAP_REGION_CONTAINER, 1000);
		ASSERT_EQ(0, do_op(&self->tree, &op));
		op = add(id, id - 1, 0, 0);
		if (id != half + 1)
			ASSERT_EQ(0, do_op(&self->tree, &op));
	}
	/* 1 ... half and half + 1 ... MAX + 1: one region too many. */
	op = add(half + 1, half, 0, 0);
	ASSERT_EQ(-ELOOP, do_op(&self->tree, &op));
	op = add(half + 1, half - 1, 0, 0);
	ASSERT_EQ(0, do_op(&self->tree, &op));
}

/* A chain of any length may be made. What a space sees of it must not be too deep. */
TEST_F(core, too_deep_through_aliases)
{
	struct gpamap_op op = region(2, GPAMAP_REGION_IO, 9);
	const u32 top = GPAMAP_MAX_DEPTH + 1;
	u32 id;

	ASSERT_EQ(0, do_op(&self->tree, &op));
	for (id = 3; id <= 1000; id++) {
		op = alias(id, 9, id - 1, 0);
		ASSERT_EQ(0, do_op(&self->tree, &op)) TH_LOG("alias %u", id);
	}
	/* A path of MAX regions below a root that is one more. */
	op = add(top, 1, 0, 0);
	ASSERT_EQ(-ELOOP, do_op(&self->tree, &op));
	op = space(2, top + 1);
	ASSERT_EQ(-ELOOP, do_op(&self->tree, &op));
	op = space(2, top);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	op = add(top - 1, 1, 0, 0);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	ASSERT_EQ(1, gpamap_tree_space(&self->tree, 1)->root->view->nr);
	/* And the target cannot get deeper either, where it is seen. */
	op = region(2000, GPAMAP_REGION_IO, 1);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	op = add(2000, 2, 0, 0);
	ASSERT_EQ(-ELOOP, do_op(&self->tree, &op));
	op = add(2000, 2, 10, 0);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	/* What is covered is followed, too, and what is disabled is not. */
	op = region(2001, GPAMAP_REGION_IO, U64_MAX);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	op = add(2001, 1, 0, 1);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	op = add(1000, 1, 20, 0);
	ASSERT_EQ(-ELOOP, do_op(&self->tree, &op));
	op = set_flag(1000, GPAMAP_SET_ENABLED, GPAMAP_REGION_DISABLED);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	op = add(1000, 1, 20, 0);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	op = set_flag(1000, GPAMAP_SET_ENABLED, 0);
	ASSERT_EQ(-ELOOP, do_op(&self->tree, &op));
}

static int cannot_render(void *arg)
{
	return !!gpamap_txn_render(arg);
}

/* As a batch: the errno, and the operation to blame, or GPAMAP_NO_OP. */
static int do_batch(struct gpamap_tree *tree, const struct gpamap_op *ops, u32 nr, u32 *to_blame)
{
	struct gpamap_txn txn;
	u32 i;
	int rc;

	*to_blame = GPAMAP_NO_OP;
	rc = gpamap_txn_begin(&txn, tree, nr);
	if (rc)
		return rc;
	for (i = 0; !rc && i < nr; i++)
		rc = gpamap_txn_op(&txn, &ops[i]);
	if (!rc) {
		rc = gpamap_txn_render(&txn);
		if (!rc) {
			gpamap_txn_commit(&txn);
			return 0;
		}
		*to_blame = gpamap_txn_blame(&txn, ops, cannot_render, &txn);
	}
	gpamap_txn_abort(&txn);
	return rc;
}

static struct gpamap_op set_last(u32 id, u64 last)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_SET, .id = id,
				   .mask = GPAMAP_SET_LAST, .last = last };
}

/* Rule 15: cycles, in each of which what is seen has no end, and one that nobody sees. */
TEST_F(core, cycles_without_end)
{
	const struct gpamap_op build[] = {
		region(2, GPAMAP_REGION_CONTAINER, 99), add(2, 1, 0, 0),
		region(3, GPAMAP_REGION_IO, 99), add(3, 2, 0, 0),
		alias(4, 99, 2, 0), alias(5, 99, 4, 0), region(6, GPAMAP_REGION_CONTAINER, 99),
	};
	const struct gpamap_op refused[] = {
		add(1, 1, 0, 0),	/* itself */
		add(1, 3, 0, 0),	/* through containers */
		add(4, 2, 0, 0),	/* the target holds its alias */
		add(5, 3, 0, 0),	/* an alias of an alias, deeper down */
	};
	const struct gpamap_op hidden = add(6, 6, 0, 0), look = space(2, 6);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(build); i++)
		ASSERT_EQ(0, do_op(&self->tree, &build[i]));
	self->before = dump(&self->tree);
	for (i = 0; i < ARRAY_SIZE(refused); i++) {
		const struct gpamap_op batch[] = {
			region(7, GPAMAP_REGION_IO, 0), refused[i],
			set_flag(2, GPAMAP_SET_READONLY, GPAMAP_REGION_READONLY),
		};
		u32 to_blame;
		char *after;

		EXPECT_EQ(-ELOOP, do_batch(&self->tree, batch, 3, &to_blame)) TH_LOG("%zu", i);
		EXPECT_EQ(1u, to_blame) TH_LOG("%zu", i);
		after = dump(&self->tree);
		EXPECT_STREQ(self->before, after);
		free(after);
	}
	ASSERT_EQ(0, do_op(&self->tree, &hidden));
	ASSERT_EQ(-ELOOP, do_op(&self->tree, &look));
}

/* Rule 15: a container of @len bytes with an io region, seen again one byte further on. */
static void shifted_by_one(struct __test_metadata *_metadata, struct gpamap_tree *tree, u64 len)
{
	const struct gpamap_op ops[] = {
		region(2, GPAMAP_REGION_CONTAINER, len - 1), region(3, GPAMAP_REGION_IO, 0),
		alias(4, 99, 2, 0), add(3, 2, 0, 0), add(4, 2, 1, 1), add(2, 1, 0, 0),
	};
	u32 to_blame;

	ASSERT_EQ(0, do_batch(tree, ops, ARRAY_SIZE(ops), &to_blame));
}

/* The root, the container, alias and container 30 times, and the io region: 63. */
#define MOST_SHIFTS 31

TEST_F(core, a_cycle_with_an_end)
{
	/* In between it has no end, which is never rendered. */
	const struct gpamap_op apart[] = {
		set_last(2, U64_MAX),
		{ .code = GPAMAP_OP_SET, .id = 4, .mask = GPAMAP_SET_LAST | GPAMAP_SET_AT,
		  .at = 1000, .last = 999 },
		{ .code = GPAMAP_OP_SET, .id = 3, .mask = GPAMAP_SET_AT, .at = 5 },
	};
	struct gpamap_op op = set_last(2, MOST_SHIFTS);
	const struct gpamap_range *range;
	struct gpamap_root *root;
	u32 to_blame;

	shifted_by_one(_metadata, &self->tree, MOST_SHIFTS);
	root = gpamap_tree_space(&self->tree, 1)->root;
	EXPECT_EQ(MOST_SHIFTS, root->view->nr);
	EXPECT_EQ(-ELOOP, do_op(&self->tree, &op));
	EXPECT_EQ(MOST_SHIFTS, root->view->nr);
	/* With windows apart it has an end however long it is. */
	EXPECT_EQ(0, do_batch(&self->tree, apart, ARRAY_SIZE(apart), &to_blame));
	EXPECT_EQ(2u, root->view->nr);
	range = gpamap_flatview_find(root->view, 1005);
	ASSERT_NE(NULL, range);
	EXPECT_EQ(3u, range->region->id);
}

/* All of a cycle goes in one batch, by the order in which each may go, and nothing is left. */
TEST_F(core, a_cycle_is_destroyed)
{
	const struct gpamap_op too_early[] = {
		simple(GPAMAP_OP_DESTROY, 2), simple(GPAMAP_OP_DESTROY, 4),
	};
	const struct gpamap_op ops[] = {
		simple(GPAMAP_OP_DEL, 2), simple(GPAMAP_OP_DEL, 4), simple(GPAMAP_OP_DEL, 3),
		simple(GPAMAP_OP_DESTROY, 4), simple(GPAMAP_OP_DESTROY, 2),
		simple(GPAMAP_OP_DESTROY, 3), region(2, GPAMAP_REGION_IO, 9), add(2, 2, 5, 0),
		simple(GPAMAP_OP_DEL, 2), simple(GPAMAP_OP_DESTROY, 2),
	};
	u32 to_blame, nr;
	char *after;
	size_t i;

	self->before = dump(&self->tree);
	shifted_by_one(_metadata, &self->tree, 9);
	for (i = 0; i < ARRAY_SIZE(too_early); i++)
		EXPECT_EQ(-EBUSY, do_op(&self->tree, &too_early[i]));
	/* Whatever part of it is undone. */
	for (nr = 1; nr < ARRAY_SIZE(ops); nr++) {
		char *whole = dump(&self->tree);
		struct gpamap_txn txn;

		ASSERT_EQ(0, gpamap_txn_begin(&txn, &self->tree, nr));
		for (i = 0; i < nr; i++)
			ASSERT_EQ(0, gpamap_txn_op(&txn, &ops[i]));
		ASSERT_EQ(0, gpamap_txn_render(&txn));
		gpamap_txn_abort(&txn);
		after = dump(&self->tree);
		EXPECT_STREQ(whole, after);
		free(after);
		free(whole);
	}
	ASSERT_EQ(0, do_batch(&self->tree, ops, ARRAY_SIZE(ops), &to_blame));
	EXPECT_EQ(1u, self->tree.nr_regions);
	EXPECT_EQ(0u, gpamap_tree_space(&self->tree, 1)->root->view->nr);
}

/* Regions that are in themselves have no first, and are listed all the same, once each. */
TEST_F(core, a_list_of_what_is_in_itself)
{
	const struct gpamap_op ops[] = {
		region(5, GPAMAP_REGION_CONTAINER, 99), region(7, GPAMAP_REGION_CONTAINER, 99),
		region(2, GPAMAP_REGION_IO, 9), region(3, GPAMAP_REGION_IO, 9),
		region(9, GPAMAP_REGION_CONTAINER, 9),
		add(5, 7, 0, 1), add(7, 5, 0, 0), add(2, 7, 0, 0), add(3, 7, 0, 2),
		add(9, 9, 0, 0),
	};
	static const u32 ids[] = { 1, 7, 3, 5, 2, 9 };
	struct gpamap_region **list;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ops); i++)
		ASSERT_EQ(0, do_op(&self->tree, &ops[i]));
	ASSERT_EQ(ARRAY_SIZE(ids), self->tree.nr_regions);
	ASSERT_EQ(0, gpamap_tree_list(&self->tree, &list));
	for (i = 0; i < ARRAY_SIZE(ids); i++)
		EXPECT_EQ(ids[i], list[i]->id);
	kvfree(list);
}

/* What is disabled may have no end: a hint that cannot be had is no error. */
TEST_F(core, no_hints_without_end)
{
	struct gpamap_op op;
	u64 *cuts;
	u32 nr;

	shifted_by_one(_metadata, &self->tree, MOST_SHIFTS);
	op = set_flag(4, GPAMAP_SET_ENABLED, GPAMAP_REGION_DISABLED);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	ASSERT_EQ(0, gpamap_flatview_cuts(gpamap_tree_region(&self->tree, 1), 0, 0, U64_MAX,
					  &cuts, &nr));
	EXPECT_EQ(2u * (MOST_SHIFTS - 1), nr);
	kvfree(cuts);
	op = set_last(2, MOST_SHIFTS);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	ASSERT_EQ(0, gpamap_flatview_cuts(gpamap_tree_region(&self->tree, 1), 0, 0, U64_MAX,
					  &cuts, &nr));
	EXPECT_EQ(0u, nr);
	kvfree(cuts);
}

/* Invariant 6: it has an end, after 2^30 paths. It is refused, and by whoever is to blame. */
TEST_F(core, cycle_bomb)
{
	struct gpamap_op ops[] = { alias(5, 99, 2, 0), add(5, 2, 1, 0) };
	u32 to_blame;
	char *after;

	shifted_by_one(_metadata, &self->tree, MOST_SHIFTS);
	self->before = dump(&self->tree);
	EXPECT_EQ(-ENOSPC, do_batch(&self->tree, ops, 2, &to_blame));
	EXPECT_EQ(1u, to_blame);
	after = dump(&self->tree);
	EXPECT_STREQ(self->before, after);
	free(after);
	/* Half as far, it can be followed. */
	ops[1].at = MOST_SHIFTS / 2;
	EXPECT_EQ(0, do_batch(&self->tree, ops, 2, &to_blame));
}

/* Invariant 6: 2^30 paths in sixty operations, refused at once. */
TEST_F(core, alias_bomb)
{
	struct gpamap_op op;
	u32 id = 2, level;
	int rc = 0;

	op = region(id, GPAMAP_REGION_IO, 0);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	for (level = 0; level < 30 && !rc; level++) {
		u32 below = id;

		op = region(++id, GPAMAP_REGION_CONTAINER, (2ULL << level) - 1);
		ASSERT_EQ(0, do_op(&self->tree, &op));
		op = alias(id + 1, (1ULL << level) - 1, below, 0);
		ASSERT_EQ(0, do_op(&self->tree, &op));
		op = alias(id + 2, (1ULL << level) - 1, below, 0);
		ASSERT_EQ(0, do_op(&self->tree, &op));
		op = add(id + 1, id, 0, 0);
		ASSERT_EQ(0, do_op(&self->tree, &op));
		op = add(id + 2, id, 1ULL << level, 0);
		ASSERT_EQ(0, do_op(&self->tree, &op));
		op = add(id, 1, 0, level);
		rc = do_op(&self->tree, &op);
		if (!rc) {
			op = simple(GPAMAP_OP_DEL, id);
			ASSERT_EQ(0, do_op(&self->tree, &op));
		}
		id += 2;
		/* Next, an alias that joins the two. */
		op = alias(id + 1, (2ULL << level) - 1, id - 2, 0);
		ASSERT_EQ(0, do_op(&self->tree, &op));
		id++;
	}
	ASSERT_EQ(-ENOSPC, rc);
	ASSERT_GT(level, 10);
	ASSERT_EQ(0, gpamap_tree_space(&self->tree, 1)->root->view->nr);
}

/* As many ranges as a view may have, and one more. */
TEST_F(core, too_many_ranges)
{
	const u32 leaves = 8, windows = GPAMAP_MAX_RANGES / leaves;
	struct gpamap_txn txn;
	struct gpamap_op op;
	u32 id;

	ASSERT_EQ(0, gpamap_txn_begin(&txn, &self->tree, 2 * (windows + leaves) + 1));
	op = region(2, GPAMAP_REGION_CONTAINER, 2 * leaves - 1);
	ASSERT_EQ(0, gpamap_txn_op(&txn, &op));
	for (id = 3; id < 3 + leaves + windows; id++) {
		op = id < 3 + leaves ? region(id, GPAMAP_REGION_IO, 0) :
				       alias(id, 2 * leaves - 1, 2, 0);
		ASSERT_EQ(0, gpamap_txn_op(&txn, &op));
		op = id < 3 + leaves ? add(id, 2, 2 * (id - 3), 0) :
				       add(id, 1, 2 * leaves * id, 0);
		ASSERT_EQ(0, gpamap_txn_op(&txn, &op));
	}
	ASSERT_EQ(0, gpamap_txn_render(&txn));
	gpamap_txn_commit(&txn);
	ASSERT_EQ(GPAMAP_MAX_RANGES, gpamap_tree_space(&self->tree, 1)->root->view->nr);

	op = region(id, GPAMAP_REGION_IO, 0);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	op = add(id, 1, 0, 0);
	ASSERT_EQ(-ENOSPC, do_op(&self->tree, &op));
	ASSERT_EQ(GPAMAP_MAX_RANGES, gpamap_tree_space(&self->tree, 1)->root->view->nr);
}

/* ---- slots ---- */

/* Pages that 64 bits address. */
#define GFNS (1ULL << 52)

struct slot_case {
	u64 start, last, offset, hva;	/* a range of RAM */
	int rc;
	u32 nr;
	u64 gpa, npages;		/* the slot, if any */
};

static struct gpamap_op with_name(struct gpamap_op op, const char *name)
{
	memset(op.name, 0, sizeof(op.name));
	memcpy(op.name, name, min(strlen(name) + 1, sizeof(op.name)));
	return op;
}

static struct gpamap_op with(struct gpamap_op op, u32 mask, u32 flags, u64 hva)
{
	op.mask = mask;
	op.flags = flags;
	op.hva = hva;
	return op;
}

static struct gpamap_op of_kind(struct gpamap_op op, u32 kind, u32 as_id)
{
	op.kind = kind;
	op.as_id = as_id;
	return op;
}

/* What is no operation at all is refused, and nothing has changed. */
TEST_F(core, malformed_operations)
{
	static char long_name[] =
		"0123456789012345678901234567890123456789012345678901234567890123";
	struct gpamap_op tail = region(20, GPAMAP_REGION_IO, 0xfff);
	const struct gpamap_op io = tail, view = of_kind(space(7, 2), GPAMAP_SPACE_VIEW, 0);
	char *before, *after;
	u32 i;

	tail = with_name(tail, "a");
	tail.name[5] = 'b';
	{
		const struct {
			int rc;
			struct gpamap_op op;
		} bad[] = {
			{ -EOPNOTSUPP, simple(0, 2) }, { -EOPNOTSUPP, simple(8, 2) },
			{ -EOPNOTSUPP, simple(0xffffffff, 2) },
			{ -EINVAL, simple(GPAMAP_OP_DEL, 0) },
			{ -EOPNOTSUPP, of_kind(io, 0, 0) }, { -EOPNOTSUPP, of_kind(io, 8, 0) },
			{ -EOPNOTSUPP, with(io, 0, 1 << 6, 0) },
			{ -EINVAL, with(io, 0, 0, 0x1000) },
			{ -EINVAL, with(io, 1, 0, 0) },
			{ -EINVAL, with(io, 0, GPAMAP_REGION_ROMD_MODE, 0) },
			{ -EINVAL, with_name(io, long_name) }, { -EINVAL, with_name(io, "a\"") },
			{ -EINVAL, with_name(io, "\xc2\x85") }, { -EINVAL, with_name(io, "\n") },
			{ -EINVAL, tail },
			{ -EOVERFLOW, with(region(20, GPAMAP_REGION_RAM, 0xfff), 0, 0, -1ULL) },
			{ -EINVAL, alias(20, 0xfff, 0, 0) }, { -ENOENT, alias(20, 0xfff, 19, 0) },
			{ -EEXIST, of_kind(region(2, GPAMAP_REGION_IO, 0xfff), 4, 0) },
			{ -EINVAL, with(add(3, 2, 0, 0), 1, 0, 0) },
			{ -ENOENT, add(3, 19, 0, 0) },
			{ -ENOENT, add(19, 2, 0, 0) }, { -EBUSY, add(3, 2, 0, 0) },
			{ -EINVAL, with(simple(GPAMAP_OP_DEL, 3), 1, 0, 0) },
			{ -ENOENT, simple(GPAMAP_OP_DEL, 2) },
			{ -ENOENT, simple(GPAMAP_OP_DEL, 19) },
			{ -EINVAL, with(simple(GPAMAP_OP_DESTROY, 3), 0, 1, 0) },
			{ -EBUSY, simple(GPAMAP_OP_DESTROY, 3) },
			{ -ENOENT, simple(GPAMAP_OP_DESTROY, 19) },
			{ -EINVAL, simple(GPAMAP_OP_SET, 3) },
			{ -EOPNOTSUPP, with(simple(GPAMAP_OP_SET, 3), 1 << 10, 0, 0) },
			{ -EINVAL, with(simple(GPAMAP_OP_SET, 3), GPAMAP_SET_ROMD, 0, 0) },
			{ -EINVAL, with(simple(GPAMAP_OP_SET, 3), GPAMAP_SET_OFFSET, 0, 0) },
			{ -ENOENT, with(simple(GPAMAP_OP_SET, 2), GPAMAP_SET_AT, 0, 0) },
			{ -EOPNOTSUPP, of_kind(view, 0, 0) }, { -EOPNOTSUPP, of_kind(view, 4, 0) },
			{ -EINVAL, with(view, 1, 0, 0) }, { -EINVAL, with_name(view, "\"") },
			{ -EEXIST, of_kind(space(6, 2), GPAMAP_SPACE_VIEW, 0) },
			{ -ENOENT, of_kind(space(7, 19), GPAMAP_SPACE_VIEW, 0) },
			{ -EINVAL, with(simple(GPAMAP_OP_SPACE_DESTROY, 6), 1, 0, 0) },
			{ -ENOENT, simple(GPAMAP_OP_SPACE_DESTROY, 7) },
		};
		const struct gpamap_op good[] = {
			region(2, GPAMAP_REGION_CONTAINER, 0xffff),
			region(3, GPAMAP_REGION_IO, 0xfff), add(3, 2, 0, 0),
			of_kind(space(6, 2), GPAMAP_SPACE_VIEW, 0),
		};

		for (i = 0; i < ARRAY_SIZE(good); i++)
			ASSERT_EQ(0, do_op(&self->tree, &good[i]));
		before = dump(&self->tree);
		for (i = 0; i < ARRAY_SIZE(bad); i++)
			EXPECT_EQ(bad[i].rc, do_op(&self->tree, &bad[i].op))
				TH_LOG("operation %u", i);
		after = dump(&self->tree);
		EXPECT_STREQ(before, after);
		free(before);
		free(after);
	}
}

/* A range by its number, from 1, is the one that a walk comes to. */
TEST_F(core, seek)
{
	const struct gpamap_range *range;
	struct gpamap_cursor walk, jump;
	struct gpamap_op op;
	u32 i;

	op = region(2, GPAMAP_REGION_CONTAINER, U64_MAX);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	op = of_kind(space(6, 2), GPAMAP_SPACE_VIEW, 0);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	/* Several chunks of ten. */
	for (i = 0; i < 35; i++) {
		op = region(10 + i, GPAMAP_REGION_IO, 0xfff);
		ASSERT_EQ(0, do_op(&self->tree, &op));
		op = add(10 + i, 2, 0x2000 * i, 0);
		ASSERT_EQ(0, do_op(&self->tree, &op));
	}
	range = gpamap_flatview_first(&walk, gpamap_tree_space(&self->tree, 6)->root->view);
	for (i = 0; range; range = gpamap_flatview_next(&walk), i++)
		EXPECT_TRUE(range == gpamap_flatview_seek(&jump, walk.view, i + 1));
	EXPECT_EQ(35, i);
	EXPECT_TRUE(!gpamap_flatview_seek(&jump, walk.view, 0));
	EXPECT_TRUE(!gpamap_flatview_seek(&jump, walk.view, 36));
	EXPECT_TRUE(!gpamap_flatview_seek(&jump, walk.view, 0xffffffff));
}

TEST(rule_37_38_slots_are_whole_pages)
{
	static const struct slot_case cases[] = {
		{ 0x1000, 0x2fff, 0, 0x10000, 0, 1, 0x1000, 2 },
		{ 0x1001, 0x3000, 1, 0x10000, 0, 1, 0x2000, 1 },
		{ 0x1001, 0x1ffe, 1, 0x10000, 0, 0, 0, 0 },
		{ 0x1fff, 0x2000, 0xfff, 0x10000, 0, 0, 0, 0 },
		{ 0x1000, 0x1fff, 0x800, 0x10000, 0, 0, 0, 0 },
		{ 0x1001, 0x8000, 0, 0x10000, 0, 0, 0, 0 },
		{ 0x1000, 0x1fff, 0x800, 0x10800, 0, 1, 0x1000, 1 },
		{ 0x1000, 0x1fff, 0, 0, -EINVAL, 0, 0, 0 },
		{ 0xfffffffffffff000, U64_MAX, 0, 0x10000, 0, 1, 0xfffffffffffff000, 1 },
		{ 0xfffffffffffff001, U64_MAX, 1, 0x10000, 0, 0, 0, 0 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct slot_case *c = &cases[i];
		struct gpamap_region ram = { .kind = GPAMAP_REGION_RAM, .hva = c->hva };
		struct gpamap_range range = { c->start, c->last, c->offset, &ram, 0 };
		struct gpamap_slot slot;

		ASSERT_EQ(c->rc ?: (int)c->nr, gpamap_range_slot(&range, 12, GFNS, &slot)) {
			TH_LOG("case %zu", i);
		}
		if (!c->nr)
			continue;
		EXPECT_EQ(c->gpa, slot.gpa);
		EXPECT_EQ(c->npages, slot.npages);
		EXPECT_EQ(c->hva + c->offset + (c->gpa - c->start), slot.hva);
		EXPECT_EQ(GPAMAP_SLOT_NONE, slot.id);
	}
}

/* With 40 bits of address: what lies beyond has no slot, and what goes beyond is cut. */
TEST(no_slot_where_nobody_can_address_it)
{
	static const struct slot_case cases[] = {
		{ 0xfffffff000, 0xffffffffff, 0, 0x10000, 0, 1, 0xfffffff000, 1 },
		{ 0xffffffe000, 0x10000001fff, 0, 0x10000, 0, 1, 0xffffffe000, 2 },
		{ 0x10000000000, 0x10000000fff, 0, 0x10000, 0, 0, 0, 0 },
		{ 0x8000000000000, 0x8000000003fff, 0, 0x10000, 0, 0, 0, 0 },
		{ 0xfffffffffffff000, U64_MAX, 0, 0x10000, 0, 0, 0, 0 },
		{ 0x10000000000, 0x10000000fff, 0, 0, -EINVAL, 0, 0, 0 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct slot_case *c = &cases[i];
		struct gpamap_region ram = { .kind = GPAMAP_REGION_RAM, .hva = c->hva };
		struct gpamap_range range = { c->start, c->last, c->offset, &ram, 0 };
		struct gpamap_slot slot;

		ASSERT_EQ(c->rc ?: (int)c->nr,
			  gpamap_range_slot(&range, 12, 1ULL << 28, &slot)) {
			TH_LOG("case %zu", i);
		}
		if (!c->nr)
			continue;
		EXPECT_EQ(c->gpa, slot.gpa);
		EXPECT_EQ(c->npages, slot.npages);
		EXPECT_EQ(c->hva, slot.hva);
	}
}

/* Addresses by which lists of stretches are compared with sets of bits. */
#define NR_BITS 200

static struct gpamap_extents *random_extents(bool *bits, u32 n)
{
	struct gpamap_extents *list = gpamap_extents_alloc(n);
	u32 i, at;

	memset(bits, 0, NR_BITS);
	for (i = 0; list && i < n; i++) {
		u64 start = rnd() % NR_BITS, last = start + rnd() % 8;

		last = min(last, (u64)NR_BITS - 1);
		list->extents[list->nr++] = (struct gpamap_extent){ start, last };
		for (at = start; at <= last; at++)
			bits[at] = true;
	}
	if (list)
		gpamap_extents_sort(list);
	return list;
}

/* The list is what the bits are, by address, and none touches the next. */
static bool extents_are(const struct gpamap_extents *list, const bool *bits)
{
	u32 i, at = 0;

	for (i = 0; i < list->nr; i++) {
		for (; at < list->extents[i].start; at++)
			if (bits[at])
				return false;
		for (; at <= list->extents[i].last; at++)
			if (at == NR_BITS || !bits[at])
				return false;
		if (at < NR_BITS && bits[at])
			return false;
	}
	for (; at < NR_BITS; at++)
		if (bits[at])
			return false;
	return true;
}

/* Fewest gaps, by closing the shortest: by trying all lengths. */
static u32 join_bits(bool *bits, const bool *others, u32 nr, u32 max, u32 max_gap)
{
	u32 len, at, end, i;

	for (len = 1; len <= max_gap; len++) {
		for (at = 1; at < NR_BITS && nr > max; at = end) {
			bool foreign = false;

			end = at + 1;
			if (bits[at] || !bits[at - 1])
				continue;
			while (end < NR_BITS && !bits[end])
				end++;
			for (i = at; i < end; i++)
				foreign |= others[i];
			if (end == NR_BITS || foreign || end - at != len)
				continue;
			memset(bits + at, true, len);
			nr--;
		}
	}
	return nr;
}

TEST(extents_equal_the_model)
{
	bool bits[NR_BITS], taken[NR_BITS], cut_bits[NR_BITS];
	u64 seed = env("SEED", getpid() * 2654435761UL + 1);
	u32 round, i, cuts = 0, joins = 0;

	TH_LOG("SEED=%llu", seed);
	rnd_state = seed;
	for (round = 0; round < 3000 && _metadata->passed; round++) {
		struct gpamap_extents *list = random_extents(bits, rnd() % 30);
		struct gpamap_extents *others = random_extents(taken, rnd() % 30);
		u64 max_len = 1 + rnd() % 20;
		struct gpamap_cut cut = { .list = list, .others = others, .max_len = max_len };
		struct gpamap_extent piece, before = { 0 };
		u32 max = 1 + rnd() % 10, max_gap = 1 + rnd() % 40, nr;

		ASSERT_NE(NULL, list);
		ASSERT_NE(NULL, others);
		EXPECT_TRUE(extents_are(list, bits));
		for (i = 0; i < NR_BITS; i++) {
			u64 last = min((u64)i + rnd() % 5, (u64)NR_BITS - 1);
			bool meets = memchr(bits + i, true, last - i + 1);

			EXPECT_EQ(meets, gpamap_extents_meet(list, i, last));
		}
		nr = join_bits(bits, taken, list->nr, max, max_gap);
		joins += nr != list->nr;
		ASSERT_EQ(0, gpamap_extents_join(list, others, max, max_gap));
		EXPECT_EQ(nr, list->nr);
		EXPECT_TRUE(extents_are(list, bits));

		memset(cut_bits, 0, sizeof(cut_bits));
		for (nr = 0; gpamap_cut_next(&cut, &piece); nr++) {
			EXPECT_TRUE(piece.start <= piece.last && piece.last < NR_BITS);
			EXPECT_TRUE(!nr || piece.start > before.last);
			EXPECT_TRUE(piece.last - piece.start < max_len);
			for (i = piece.start; i <= piece.last; i++)
				cut_bits[i] = true;
			before = piece;
		}
		for (i = 0; i < NR_BITS; i++) {
			EXPECT_EQ(bits[i] && !taken[i], cut_bits[i]);
			cuts += bits[i] && taken[i];
		}
		kvfree(list);
		kvfree(others);
		if (!_metadata->passed)
			TH_LOG("round %u", round);
	}
	EXPECT_LT(1000u, cuts);
	EXPECT_LT(1000u, joins);
}

/* At the ends of what there is. */
TEST(extents_at_the_ends)
{
	struct gpamap_extents *list = gpamap_extents_alloc(4), *none = gpamap_extents_alloc(1);
	struct gpamap_cut cut = { .list = list, .others = none, .max_len = 1ULL << 63 };
	struct gpamap_extent piece;

	ASSERT_NE(NULL, list);
	ASSERT_NE(NULL, none);
	gpamap_extents_add(list, 0, U64_MAX);
	gpamap_extents_add(list, 5, 9);
	EXPECT_EQ(1u, list->nr);
	EXPECT_TRUE(gpamap_extents_meet(list, U64_MAX, U64_MAX));
	EXPECT_TRUE(gpamap_cut_next(&cut, &piece));
	EXPECT_EQ((1ULL << 63) - 1, piece.last);
	EXPECT_TRUE(gpamap_cut_next(&cut, &piece));
	EXPECT_EQ(U64_MAX, piece.last);
	EXPECT_FALSE(gpamap_cut_next(&cut, &piece));
	/* All of it is another's. */
	gpamap_extents_add(none, 0, U64_MAX);
	cut = (struct gpamap_cut){ .list = list, .others = none, .max_len = 1 };
	EXPECT_FALSE(gpamap_cut_next(&cut, &piece));
	kvfree(list);
	kvfree(none);
}

/* Rules 23 and 24: what is a slot, and which are read-only. */
TEST(rule_23_24_kinds_of_slots)
{
	static const struct {
		u32 kind, flags;
		int nr;
		bool readonly;
	} cases[] = {
		{ GPAMAP_REGION_RAM, 0, 1, false },
		{ GPAMAP_REGION_RAM, GPAMAP_REGION_READONLY, 1, true },
		{ GPAMAP_REGION_RAM, GPAMAP_REGION_NONVOLATILE, 1, false },
		{ GPAMAP_REGION_ROM, GPAMAP_REGION_READONLY, 1, true },
		{ GPAMAP_REGION_ROMD, GPAMAP_REGION_ROMD_MODE, 1, true },
		{ GPAMAP_REGION_ROMD, 0, 0, false },
		{ GPAMAP_REGION_IO, 0, 0, false },
		{ GPAMAP_REGION_RESERVED, 0, 0, false },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct gpamap_region r = { .kind = cases[i].kind, .hva = 0x1000 };
		struct gpamap_range range = { 0, 0xfff, 0, &r, cases[i].flags };
		struct gpamap_slot slot = { 0 };

		EXPECT_EQ(cases[i].nr, gpamap_range_slot(&range, 12, GFNS, &slot)) {
			TH_LOG("case %zu", i);
		}
		EXPECT_EQ(cases[i].readonly, slot.readonly) TH_LOG("case %zu", i);
	}
}

/* KVM takes less than 2^31 pages in one slot. */
TEST(a_huge_region_is_cut_into_slots_that_kvm_takes)
{
	struct gpamap_region ram = { .kind = GPAMAP_REGION_RAM, .hva = 0x1000 };
	struct gpamap_range range = { .last = (10ULL << 40) - 1, .region = &ram };
	struct gpamap_slot whole;

	ASSERT_EQ(1, gpamap_range_slot(&range, 12, GFNS, &whole));
	EXPECT_EQ(10ULL << 28, whole.npages);
	EXPECT_EQ(4ULL << 28, gpamap_slot_end(&whole, 0, whole.npages, 12, NULL, 0));
	EXPECT_EQ(8ULL << 28, gpamap_slot_end(&whole, 4ULL << 28, whole.npages, 12, NULL, 0));
	EXPECT_EQ(10ULL << 28, gpamap_slot_end(&whole, 8ULL << 28, whole.npages, 12, NULL, 0));
	/* From within a huge page to the begin of one. */
	EXPECT_EQ(4ULL << 28, gpamap_slot_end(&whole, 5, whole.npages, 12, NULL, 0));
	EXPECT_EQ(4ULL << 28, gpamap_slot_end(&whole, 511, whole.npages, 12, NULL, 0));
	EXPECT_EQ((4ULL << 28) + 512, gpamap_slot_end(&whole, 512, whole.npages, 12, NULL, 0));
}

/* A piece of memory with cuts, and where the slots end that cover it; 0 for no more. */
struct cut_case {
	u64 gfn, end;
	u64 cuts[4];
	u32 nr;
	u64 ends[4];
};

static void check_cuts(struct __test_metadata *_metadata, const struct gpamap_slot *whole,
		       const struct cut_case *c, size_t nr)
{
	size_t i;

	for (i = 0; i < nr; i++, c++) {
		u64 gfn = c->gfn;
		u32 n = 0;

		while (gfn < c->end) {
			ASSERT_LT(n, 4u) TH_LOG("case %zu", i);
			gfn = gpamap_slot_end(whole, gfn, c->end, 12, c->cuts, c->nr);
			EXPECT_EQ(c->ends[n], gfn) TH_LOG("case %zu", i);
			n++;
		}
		EXPECT_EQ(c->end, gfn) TH_LOG("case %zu", i);
	}
}

/* Pages of 4 KiB: small is up to 256 of them. */
TEST(slots_are_cut_for_the_sake_of_large_ones)
{
	static const struct cut_case cases[] = {
		{ 0, 1000, { 0 }, 0, { 1000 } },
		/* Nothing large is protected. */
		{ 0, 256, { 16, 32 }, 2, { 256 } },
		/* A PC: what comes and goes is all below 1 MiB. */
		{ 0, 0x40000, { 0xa0, 0xc0, 0xf0, 0x100 }, 4, { 0x100, 0x40000 } },
		{ 0, 1000, { 400, 401 }, 2, { 400, 401, 1000 } },
		{ 0, 1000, { 400, 900 }, 2, { 400, 900, 1000 } },
		{ 0, 1000, { 900, 950 }, 2, { 900, 1000 } },
		{ 0, 1000, { 100, 257 }, 2, { 100, 257, 1000 } },
		/* Cuts that are elsewhere, or there twice. */
		{ 500, 1000, { 100, 500, 700, 1000 }, 4, { 700, 1000 } },
		{ 500, 1000, { 600, 600, 601, 1200 }, 4, { 601, 1000 } },
	};
	/* There are no huge pages to be had. */
	const struct gpamap_slot whole = { .npages = 0x40000, .hva = 0x1000 };

	check_cuts(_metadata, &whole, cases, ARRAY_SIZE(cases));
}

/* Of 512 pages each, from 1024 on, in memory from 1000 up to 3000: huge pages are kept whole. */
TEST(cuts_leave_huge_pages)
{
	static const struct cut_case cases[] = {
		{ 1024, 3000, { 1700, 1701 }, 2, { 1536, 2048, 3000 } },
		{ 1024, 3000, { 1700, 2100 }, 2, { 1536, 2048, 2560, 3000 } },
		{ 1024, 3000, { 1100, 1200, 1536, 1537 }, 4, { 1536, 2048, 3000 } },
		{ 1536, 3000, { 1700, 1701, 2048 }, 3, { 2048, 3000 } },
		/* In the parts of huge pages at the ends it costs none. */
		{ 1024, 3000, { 2900, 2901 }, 2, { 2900, 3000 } },
		{ 1000, 3000, { 1010, 1020, 2048 }, 3, { 1020, 2048, 3000 } },
		/* A gap in the middle of one is all that is to be covered. */
		{ 1700, 1701, { 1700, 1701 }, 2, { 1701 } },
		{ 1700, 2500, { 1710, 2048 }, 2, { 2048, 2500 } },
	};
	const struct gpamap_slot whole = {
		.gpa = 1000 << 12, .npages = 2000, .hva = (1000 << 12) + (7ULL << 21),
	};
	static const u64 inside[] = { 1025, 1300, 1535, 2047, 2559 };
	static const u64 free[] = { 1000, 1023, 1024, 1536, 2048, 2560, 2561, 2999, 3000 };
	struct gpamap_slot odd = whole;
	size_t i;

	odd.hva += 1 << 20;
	for (i = 0; i < ARRAY_SIZE(inside); i++) {
		EXPECT_TRUE(gpamap_slot_splits_huge(&whole, inside[i], 12));
		EXPECT_FALSE(gpamap_slot_splits_huge(&odd, inside[i], 12));
	}
	for (i = 0; i < ARRAY_SIZE(free); i++)
		EXPECT_FALSE(gpamap_slot_splits_huge(&whole, free[i], 12));
	check_cuts(_metadata, &whole, cases, ARRAY_SIZE(cases));
}

/* A slot serves a range when it lies in it, over the same memory, with the same flag. */
TEST(what_a_slot_serves)
{
	const struct gpamap_slot whole = { .gpa = 0x10000, .npages = 16, .hva = 0x80000 };
	static const struct {
		u64 gpa, npages, hva;
		bool readonly;
		bool serves;
	} cases[] = {
		{ 0x10000, 16, 0x80000, false, true },
		{ 0x11000, 15, 0x81000, false, true },
		{ 0x11000, 16, 0x81000, false, false },
		{ 0xf000, 16, 0x7f000, false, false },
		{ 0x11000, 1, 0x80000, false, false },
		{ 0x11000, 1, 0x81000, true, false },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct gpamap_slot slot = {
			.gpa = cases[i].gpa,
			.npages = cases[i].npages,
			.hva = cases[i].hva,
			.readonly = cases[i].readonly,
		};

		EXPECT_EQ(cases[i].serves, gpamap_slot_serves(&slot, &whole, 12)) {
			TH_LOG("case %zu", i);
		}
	}
}

/* A slot that is to be what it was: every member but the id, which it has not yet. */
TEST(equal_slots)
{
	const struct gpamap_slot slot = { .gpa = 0x10000, .npages = 16, .hva = 0x80000 };
	struct gpamap_slot other = slot;

	other.id = 5;
	EXPECT_TRUE(gpamap_slot_equal(&slot, &other));
	other.gpa += 0x1000;
	EXPECT_FALSE(gpamap_slot_equal(&slot, &other));
	other = slot;
	other.npages++;
	EXPECT_FALSE(gpamap_slot_equal(&slot, &other));
	other = slot;
	other.hva += 0x1000;
	EXPECT_FALSE(gpamap_slot_equal(&slot, &other));
	other = slot;
	other.readonly = true;
	EXPECT_FALSE(gpamap_slot_equal(&slot, &other));
}

TEST_HARNESS_MAIN

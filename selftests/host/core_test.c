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
};

static enum step rnd_step(void *arg, struct gpamap_op *op)
{
	struct random *random = arg;
	struct fuzz_record rec;

	if (!random->left--)
		return STEP_END;
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
		.mask = 1 << rnd_below(9), .at = rnd_addr(), .last = rnd_addr(),
	};
	if (!rnd_below(4))
		rec.mask = rnd();
	fuzz_record_op(&rec, NR_IDS, op);
	if (op->code == GPAMAP_OP_REGION &&
	    (op->kind == GPAMAP_REGION_RAM || op->kind == GPAMAP_REGION_ROM) &&
	    op->last < 1 << 20)
		op->hva = rnd_below(8) ? 0x10000 * op->id : U64_MAX - op->last;
	return STEP_OP;
}

/* ---- a tree with one space over region 1 ---- */

FIXTURE(core)
{
	struct gpamap_tree tree;
	char *before;
};

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
		struct random random = { .left = 500 };

		text = exercise(rnd_step, &random);
		ASSERT_EQ(NULL, text) TH_LOG("tree %llu: %s", i, text);
	}
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

static struct gpamap_op set_flag(u32 id, u32 mask, u32 flags)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_SET, .id = id, .mask = mask,
				   .flags = flags };
}

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

TEST_F(core, too_deep_through_aliases)
{
	struct gpamap_op op = region(2, GPAMAP_REGION_IO, 9);
	u32 id;

	ASSERT_EQ(0, do_op(&self->tree, &op));
	for (id = 3; id <= GPAMAP_MAX_DEPTH + 1; id++) {
		op = alias(id, 9, id - 1, 0);
		ASSERT_EQ(0, do_op(&self->tree, &op)) TH_LOG("alias %u", id);
	}
	op = alias(id, 9, id - 1, 0);
	ASSERT_EQ(-ELOOP, do_op(&self->tree, &op));
	/* A path of MAX regions below a root that is one more. */
	op = add(id - 1, 1, 0, 0);
	ASSERT_EQ(-ELOOP, do_op(&self->tree, &op));
	op = add(id - 2, 1, 0, 0);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	ASSERT_EQ(1, gpamap_tree_space(&self->tree, 1)->root->view->nr);
	/* And the target cannot get deeper either. */
	op = region(id, GPAMAP_REGION_IO, 1);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	op = add(id, 2, 0, 0);
	ASSERT_EQ(-ELOOP, do_op(&self->tree, &op));
}

TEST_F(core, cycles)
{
	const struct gpamap_op build[] = {
		region(2, GPAMAP_REGION_CONTAINER, 99), add(2, 1, 0, 0),
		region(3, GPAMAP_REGION_IO, 99), add(3, 2, 0, 0),
		alias(4, 99, 2, 0), alias(5, 99, 4, 0),
	};
	const struct gpamap_op refused[] = {
		add(1, 1, 0, 0),	/* itself */
		add(1, 3, 0, 0),	/* through containers */
		add(4, 2, 0, 0),	/* the target holds its alias */
		add(5, 3, 0, 0),	/* an alias of an alias, deeper down */
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(build); i++)
		ASSERT_EQ(0, do_op(&self->tree, &build[i]));
	self->before = dump(&self->tree);
	for (i = 0; i < ARRAY_SIZE(refused); i++) {
		char *after;

		EXPECT_EQ(-ELOOP, do_op(&self->tree, &refused[i])) TH_LOG("%zu", i);
		after = dump(&self->tree);
		EXPECT_STREQ(self->before, after);
		free(after);
	}
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
	EXPECT_EQ(4ULL << 28, gpamap_slot_end(0, whole.npages, 12, NULL, 0));
	EXPECT_EQ(8ULL << 28, gpamap_slot_end(4ULL << 28, whole.npages, 12, NULL, 0));
	EXPECT_EQ(10ULL << 28, gpamap_slot_end(8ULL << 28, whole.npages, 12, NULL, 0));
}

/* Pages of 4 KiB: small is up to 256 of them. */
TEST(slots_are_cut_for_the_sake_of_large_ones)
{
	static const struct {
		u64 gfn, end;
		u64 cuts[4];
		u32 nr;
		u64 ends[4];		/* of the slots, up to @end */
	} cases[] = {
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
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		u64 gfn = cases[i].gfn;
		u32 n = 0;

		while (gfn < cases[i].end) {
			ASSERT_LT(n, 4u) TH_LOG("case %zu", i);
			gfn = gpamap_slot_end(gfn, cases[i].end, 12, cases[i].cuts,
					      cases[i].nr);
			EXPECT_EQ(cases[i].ends[n], gfn) TH_LOG("case %zu", i);
			n++;
		}
		EXPECT_EQ(cases[i].end, gfn) TH_LOG("case %zu", i);
	}
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

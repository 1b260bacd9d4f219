// SPDX-License-Identifier: GPL-2.0
/*
 * The pure core on the host: random batches against a model that is too slow and
 * too simple to be wrong, every allocation failed in turn, limits, slot lists.
 * The rules of what is visible are tested by the map files in ../data.
 *
 * SEED and ITER in the environment choose the random sequence and its length.
 */
#include <unistd.h>
#include "core.h"
#include "kselftest/kselftest_harness.h"

#define NR_IDS 24

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

/* ---- the model: what is at one address, by asking everyone in turn ---- */

struct model_region {
	bool exists;
	u32 kind, flags, container, target;
	s32 prio;
	u64 at, last, offset, hva;
	u64 attached;		/* when: larger is later */
};

struct model {
	struct model_region r[NR_IDS + 1];
	u64 clock;
};

struct seen {
	u32 id;			/* 0: nothing */
	u64 offset;
	u32 flags;
};

/* @offset may be anything, negative too, hence the width. */
static struct seen model_see(const struct model *m, u32 id, __int128 offset, u32 flags)
{
	const struct model_region *r = &m->r[id];
	bool tried[NR_IDS + 1] = { false };
	struct seen seen = { 0 };
	u32 child, best;

	if (r->flags & GPAMAP_REGION_DISABLED || offset < 0 || offset > r->last)
		return seen;
	flags |= r->flags & GPAMAP_REGION_READONLY;
	if (r->kind == GPAMAP_REGION_ROM)
		flags |= GPAMAP_REGION_READONLY;
	if (r->kind == GPAMAP_REGION_ALIAS)
		return model_see(m, r->target, offset + r->offset, flags);
	for (;;) {
		best = 0;
		for (child = 1; child <= NR_IDS; child++) {
			const struct model_region *c = &m->r[child];

			if (!c->exists || c->container != id || tried[child])
				continue;
			if (!best || c->prio > m->r[best].prio ||
			    (c->prio == m->r[best].prio &&
			     c->attached > m->r[best].attached))
				best = child;
		}
		if (!best)
			break;
		tried[best] = true;
		seen = model_see(m, best, offset - m->r[best].at, flags);
		if (seen.id)
			return seen;
	}
	if (r->kind != GPAMAP_REGION_CONTAINER)
		seen = (struct seen){ id, offset, flags };
	return seen;
}

/* Whether @to can be reached from @from, downwards. */
static bool model_reaches(const struct model *m, u32 from, u32 to)
{
	u32 i;

	if (from == to)
		return true;
	if (m->r[from].kind == GPAMAP_REGION_ALIAS)
		return model_reaches(m, m->r[from].target, to);
	for (i = 1; i <= NR_IDS; i++)
		if (m->r[i].exists && m->r[i].container == from &&
		    model_reaches(m, i, to))
			return true;
	return false;
}

static bool model_used(const struct model *m, u32 id)
{
	u32 i;

	if (m->r[id].container || id == 1)
		return true;
	for (i = 1; i <= NR_IDS; i++)
		if (m->r[i].exists && (m->r[i].container == id || m->r[i].target == id))
			return true;
	return false;
}

/* What the operation must answer, and does to the model. */
static int model_op(struct model *m, const struct gpamap_op *op)
{
	struct model_region *r = &m->r[op->id];
	bool moved;

	switch (op->code) {
	case GPAMAP_OP_REGION:
		if (r->exists)
			return -EEXIST;
		if (op->ref && !m->r[op->ref].exists)
			return -ENOENT;
		*r = (struct model_region){
			.exists = true, .kind = op->kind, .flags = op->flags,
			.last = op->last, .target = op->ref, .offset = op->offset,
			.hva = op->hva,
		};
		return 0;
	case GPAMAP_OP_ADD:
		if (!r->exists || !m->r[op->ref].exists)
			return -ENOENT;
		if (m->r[op->ref].kind == GPAMAP_REGION_ALIAS)
			return -EINVAL;
		if (r->container)
			return -EBUSY;
		if (model_reaches(m, op->id, op->ref))
			return -ELOOP;
		r->container = op->ref;
		r->at = op->at;
		r->prio = op->prio;
		r->attached = ++m->clock;
		return 0;
	case GPAMAP_OP_DEL:
		if (!r->exists || !r->container)
			return -ENOENT;
		r->container = 0;
		return 0;
	case GPAMAP_OP_DESTROY:
		if (!r->exists)
			return -ENOENT;
		if (model_used(m, op->id))
			return -EBUSY;
		r->exists = false;
		r->target = 0;
		return 0;
	case GPAMAP_OP_SET:
		if (!r->exists)
			return -ENOENT;
		if (op->mask & GPAMAP_SET_OFFSET && r->kind != GPAMAP_REGION_ALIAS)
			return -EINVAL;
		if (op->mask & (GPAMAP_SET_AT | GPAMAP_SET_PRIO) && !r->container)
			return -ENOENT;
		moved = (op->mask & GPAMAP_SET_AT && r->at != op->at) ||
			(op->mask & GPAMAP_SET_PRIO && r->prio != op->prio);
		if (op->mask & GPAMAP_SET_ENABLED)
			r->flags = (r->flags & ~GPAMAP_REGION_DISABLED) |
				   (op->flags & GPAMAP_REGION_DISABLED);
		if (op->mask & GPAMAP_SET_READONLY)
			r->flags = (r->flags & ~GPAMAP_REGION_READONLY) |
				   (op->flags & GPAMAP_REGION_READONLY);
		if (op->mask & GPAMAP_SET_OFFSET)
			r->offset = op->offset;
		if (op->mask & GPAMAP_SET_AT)
			r->at = op->at;
		if (op->mask & GPAMAP_SET_PRIO)
			r->prio = op->prio;
		if (moved)
			r->attached = ++m->clock;
		return 0;
	}
	return -EOPNOTSUPP;
}

/* ---- random operations ---- */

/* Small numbers mostly, so that regions meet; sometimes the edge of the world. */
static u64 rnd_addr(void)
{
	if (rnd_below(16))
		return rnd_below(64);
	return rnd_below(2) ? U64_MAX - rnd_below(64) : rnd();
}

static void rnd_op(struct gpamap_op *op)
{
	memset(op, 0, sizeof(*op));
	op->id = 1 + rnd_below(NR_IDS);
	switch (rnd_below(16)) {
	case 0 ... 3:
		op->code = GPAMAP_OP_REGION;
		op->kind = 1 + rnd_below(5);
		op->last = rnd_addr();
		op->flags = rnd_below(8) ? 0 : 1 + rnd_below(3);
		if (op->kind == GPAMAP_REGION_ALIAS) {
			op->ref = 1 + rnd_below(NR_IDS);
			op->offset = rnd_below(2) ? rnd_addr() : 0;
		} else if (op->kind == GPAMAP_REGION_RAM ||
			   op->kind == GPAMAP_REGION_ROM) {
			op->hva = 0x10000 * op->id;
			if (op->last > U64_MAX - op->hva)
				op->last = 63;
		}
		snprintf((char *)op->name, sizeof(op->name), "r%u", op->id);
		break;
	case 4 ... 8:
		op->code = GPAMAP_OP_ADD;
		op->ref = rnd_below(3) ? 1 + rnd_below(NR_IDS) : 1;
		op->at = rnd_addr();
		op->prio = (s32)rnd_below(4) - 1;
		break;
	case 9:
		op->code = GPAMAP_OP_DEL;
		break;
	case 10:
		op->code = GPAMAP_OP_DESTROY;
		break;
	default:
		op->code = GPAMAP_OP_SET;
		op->mask = 1 + rnd_below(31);
		if (op->mask & GPAMAP_SET_ENABLED && !rnd_below(3))
			op->flags |= GPAMAP_REGION_DISABLED;
		if (op->mask & GPAMAP_SET_READONLY && rnd_below(2))
			op->flags |= GPAMAP_REGION_READONLY;
		if (op->mask & GPAMAP_SET_AT)
			op->at = rnd_addr();
		if (op->mask & GPAMAP_SET_PRIO)
			op->prio = (s32)rnd_below(4) - 1;
		if (op->mask & GPAMAP_SET_OFFSET)
			op->offset = rnd_addr();
	}
}

/* ---- a tree with one space over region 1 ---- */

FIXTURE(core)
{
	struct gpamap_tree tree;
	struct model model;
	char *before;
};

static int do_op(struct gpamap_tree *tree, const struct gpamap_op *op)
{
	struct gpamap_txn txn;
	int rc;

	rc = gpamap_txn_begin(&txn, tree, 1);
	if (rc)
		return rc;
	rc = gpamap_txn_op(&txn, op);
	if (!rc)
		rc = gpamap_txn_render(&txn);
	if (rc)
		gpamap_txn_abort(&txn);
	else
		gpamap_txn_commit(&txn);
	return rc;
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

FIXTURE_SETUP(core)
{
	struct gpamap_op op = region(1, GPAMAP_REGION_CONTAINER, U64_MAX);

	gpamap_tree_init(&self->tree);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	ASSERT_EQ(0, model_op(&self->model, &op));
	op = space(1, 1);
	ASSERT_EQ(0, do_op(&self->tree, &op));
}

FIXTURE_TEARDOWN(core)
{
	gpamap_tree_destroy(&self->tree);
	free(self->before);
}

/* All that an operation could change, as text. */
static char *dump(struct gpamap_tree *tree)
{
	struct gpamap_region *r, *c;
	struct gpamap_space *s;
	unsigned long id;
	char *text;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	u32 i;

	fprintf(f, "%u regions %u spaces\n", tree->nr_regions, tree->nr_spaces);
	xa_for_each(&tree->regions, id, r) {
		size_t aliases = 0;

		if (r->dead)
			fprintf(f, "dead ");
		list_for_each_entry(c, &r->aliases, alias_link)
			aliases++;
		fprintf(f, "%u kind %u flags %u prio %d at %llx last %llx offset %llx "
			"hva %llx container %u target %u aliases %zu spaces %u:",
			r->id, r->kind, r->flags, r->prio, r->at, r->last, r->offset,
			r->hva, r->container ? r->container->id : 0,
			r->target ? r->target->id : 0, aliases, r->nr_spaces);
		list_for_each_entry(c, &r->children, sibling)
			fprintf(f, " %u", c->id);
		fprintf(f, "\n");
	}
	xa_for_each(&tree->spaces, id, s) {
		fprintf(f, "space %u%s root %u next %d\n", s->id, s->dead ? " dead" : "",
			s->root->id, !!s->next);
		for (i = 0; s->view && i < s->view->nr; i++)
			fprintf(f, "  %llx-%llx %u+%llx %u\n", s->view->ranges[i].start,
				s->view->ranges[i].last, s->view->ranges[i].region->id,
				s->view->ranges[i].offset, s->view->ranges[i].flags);
	}
	fclose(f);
	return text;
}

static void check_view(struct __test_metadata *_metadata, struct gpamap_tree *tree,
		       const struct model *m)
{
	const struct gpamap_flatview *view = gpamap_tree_space(tree, 1)->view;
	const struct gpamap_range *r = view->ranges;
	u32 i, n;

	for (i = 0; i < view->nr; i++) {
		ASSERT_LE(r[i].start, r[i].last);
		if (!i)
			continue;
		ASSERT_LT(r[i - 1].last, r[i].start);
		/* Nothing is left that could be one piece. */
		ASSERT_FALSE(r[i - 1].last + 1 == r[i].start &&
			     r[i - 1].region == r[i].region &&
			     r[i - 1].flags == r[i].flags &&
			     r[i - 1].offset + (r[i].start - r[i - 1].start) ==
			     r[i].offset);
	}
	for (n = 0; n < 256; n++) {
		u64 addr = n < 160 ? n : U64_MAX - (255 - n);
		struct seen want = model_see(m, 1, addr, 0);
		struct seen got = { 0 };

		for (i = 0; i < view->nr; i++)
			if (r[i].start <= addr && addr <= r[i].last)
				got = (struct seen){ r[i].region->id,
						     r[i].offset + (addr - r[i].start),
						     r[i].flags };
		ASSERT_EQ(want.id, got.id) TH_LOG("at %llx", addr);
		ASSERT_EQ(want.offset, got.offset) TH_LOG("at %llx", addr);
		ASSERT_EQ(want.flags, got.flags) TH_LOG("at %llx", addr);
	}
}

/* Invariant 3, and 35: what is taken back leaves no trace. */
TEST_F_TIMEOUT(core, random_batches_equal_the_model, 900)
{
	u64 seed = env("SEED", getpid() * 2654435761UL + 1);
	u64 iter = env("ITER", 20000);
	struct model next;
	struct gpamap_txn txn;
	struct gpamap_op op;
	u64 i, n;
	char *after;

	TH_LOG("SEED=%llu ITER=%llu", seed, iter);
	rnd_state = seed;
	for (i = 0; i < iter; i++) {
		bool abort = !rnd_below(4);
		u64 nr = 1 + rnd_below(12);

		self->before = dump(&self->tree);
		next = self->model;
		ASSERT_EQ(0, gpamap_txn_begin(&txn, &self->tree, nr));
		for (n = 0; n < nr; n++) {
			rnd_op(&op);
			ASSERT_EQ(model_op(&next, &op), gpamap_txn_op(&txn, &op)) {
				TH_LOG("step %llu: op %u on %u", i, op.code, op.id);
			}
		}
		if (rnd_below(2))
			ASSERT_EQ(0, gpamap_txn_render(&txn));
		if (abort) {
			gpamap_txn_abort(&txn);
			after = dump(&self->tree);
			ASSERT_STREQ(self->before, after);
			free(after);
		} else {
			ASSERT_EQ(0, gpamap_txn_render(&txn));
			gpamap_txn_commit(&txn);
			self->model = next;
			check_view(_metadata, &self->tree, &self->model);
		}
		free(self->before);
		self->before = NULL;
		if (self->tree.nr_regions == NR_IDS && !rnd_below(8)) {
			/* Begin anew, or the map gets stuck full. */
			gpamap_tree_destroy(&self->tree);
			memset(&self->model, 0, sizeof(self->model));
			core_setup(_metadata, self, variant);
		}
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
		EXPECT_EQ(steps[i].changes, gpamap_txn_commit(&txn)) {
			TH_LOG("step %zu", i);
		}
	}
}

/* ---- limits ---- */

TEST_F(core, too_many_regions)
{
	struct gpamap_op op;
	u32 id;

	for (id = 2; id <= GPAMAP_MAX_REGIONS; id++) {
		struct gpamap_txn txn;

		op = region(id, GPAMAP_REGION_IO, 0);
		ASSERT_EQ(0, gpamap_txn_begin(&txn, &self->tree, 1));
		ASSERT_EQ(0, gpamap_txn_op(&txn, &op));
		ASSERT_EQ(0, gpamap_txn_render(&txn));
		gpamap_txn_commit(&txn);
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
		  gpamap_tree_space(&self->tree, 1)->view->nr);
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
	ASSERT_EQ(1, gpamap_tree_space(&self->tree, 1)->view->nr);
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
	ASSERT_EQ(0, gpamap_tree_space(&self->tree, 1)->view->nr);
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
	ASSERT_EQ(GPAMAP_MAX_RANGES, gpamap_tree_space(&self->tree, 1)->view->nr);

	op = region(id, GPAMAP_REGION_IO, 0);
	ASSERT_EQ(0, do_op(&self->tree, &op));
	op = add(id, 1, 0, 0);
	ASSERT_EQ(-ENOSPC, do_op(&self->tree, &op));
	ASSERT_EQ(GPAMAP_MAX_RANGES, gpamap_tree_space(&self->tree, 1)->view->nr);
}

/* ---- slots ---- */

struct slot_case {
	u64 start, last, offset, hva;	/* a range of RAM */
	int rc;
	u32 nr;
	u64 gpa, npages;		/* the slot, if any */
};

TEST(rule_37_38_slots_are_whole_pages)
{
	static const struct slot_case cases[] = {
		{ 0x1000, 0x2fff, 0, 0x10000, 0, 1, 0x1000, 2 },
		{ 0x1001, 0x3000, 1, 0x10000, 0, 1, 0x2000, 1 },
		{ 0x1001, 0x1ffe, 1, 0x10000, 0, 0, 0, 0 },
		{ 0x1fff, 0x2000, 0xfff, 0x10000, 0, 0, 0, 0 },
		{ 0x1000, 0x1fff, 0x800, 0x10000, -EINVAL, 0, 0, 0 },
		{ 0x1000, 0x1fff, 0x800, 0x10800, 0, 1, 0x1000, 1 },
		{ 0x1000, 0x1fff, 0, 0, -EINVAL, 0, 0, 0 },
		{ 0xfffffffffffff000, U64_MAX, 0, 0x10000, 0, 1, 0xfffffffffffff000, 1 },
		{ 0xfffffffffffff001, U64_MAX, 1, 0x10000, 0, 0, 0, 0 },
	};
	struct gpamap_region ram = { .kind = GPAMAP_REGION_RAM, .id = 7 };
	struct gpamap_flatview *view = host_alloc(1, struct_size(view, ranges, 1));
	struct gpamap_slots *slots;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct slot_case *c = &cases[i];

		ram.hva = c->hva;
		view->nr = 1;
		view->ranges[0] = (struct gpamap_range){
			c->start, c->last, c->offset, &ram, GPAMAP_REGION_READONLY,
		};
		ASSERT_EQ(c->rc, gpamap_slots_build(view, 12, &slots)) TH_LOG("%zu", i);
		if (c->rc)
			continue;
		ASSERT_EQ(c->nr, slots->nr) TH_LOG("case %zu", i);
		if (c->nr) {
			EXPECT_EQ(c->gpa, slots->slots[0].gpa);
			EXPECT_EQ(c->npages, slots->slots[0].npages);
			EXPECT_EQ(c->hva + c->offset + (c->gpa - c->start),
				  slots->slots[0].hva);
			EXPECT_EQ(7, slots->slots[0].region);
			EXPECT_TRUE(slots->slots[0].readonly);
			EXPECT_EQ(GPAMAP_SLOT_NONE, slots->slots[0].id);
		}
		gpamap_slots_free(slots);
	}
	free(view);
}

/* KVM takes less than 2^31 pages in one slot. */
TEST(a_huge_region_is_cut_into_slots_that_kvm_takes)
{
	struct gpamap_region ram = { .kind = GPAMAP_REGION_RAM, .hva = 0x1000 };
	struct gpamap_flatview *view = host_alloc(1, struct_size(view, ranges, 1));
	struct gpamap_slots *slots;

	view->nr = 1;
	view->ranges[0] = (struct gpamap_range){ .start = 0, .last = (10ULL << 40) - 1,
						 .region = &ram };
	ASSERT_EQ(0, gpamap_slots_build(view, 12, &slots));
	ASSERT_EQ(3, slots->nr);
	EXPECT_EQ(4ULL << 40, slots->slots[1].gpa);
	EXPECT_EQ(0x1000 + (4ULL << 40), slots->slots[1].hva);
	EXPECT_EQ(2ULL << 28, slots->slots[2].npages);
	gpamap_slots_free(slots);
	free(view);
}

/* Rules 30, 32, 39: only what is equal in gpa, length, hva and flag stays. */
TEST(difference_of_slot_lists)
{
	static const struct gpamap_slot from[] = {
		{ .gpa = 0x1000, .npages = 1, .hva = 0xa000, .id = 5 },
		{ .gpa = 0x2000, .npages = 1, .hva = 0xb000, .id = 6 },
		{ .gpa = 0x3000, .npages = 1, .hva = 0xc000, .id = 7 },
		{ .gpa = 0x4000, .npages = 1, .hva = 0xd000, .id = 8 },
		{ .gpa = 0x5000, .npages = 1, .hva = 0xe000, .id = 9 },
		{ .gpa = 0x7000, .npages = 1, .hva = 0xf000, .id = 10 },
	};
	static const struct gpamap_slot to[] = {
		{ .gpa = 0x0000, .npages = 1, .hva = 0xa000 },		/* new */
		{ .gpa = 0x2000, .npages = 1, .hva = 0xb000, .region = 3 },
		{ .gpa = 0x3000, .npages = 2, .hva = 0xc000 },		/* longer */
		{ .gpa = 0x5000, .npages = 1, .hva = 0xe000, .readonly = 1 },
		{ .gpa = 0x7000, .npages = 1, .hva = 0x9000 },		/* elsewhere */
		{ .gpa = 0x8000, .npages = 1, .hva = 0x1000 },		/* new */
	};
	static const u32 ids[] = { GPAMAP_SLOT_NONE, 6, GPAMAP_SLOT_NONE,
				   GPAMAP_SLOT_NONE, GPAMAP_SLOT_NONE, GPAMAP_SLOT_NONE };
	struct gpamap_slots *a = host_alloc(1, sizeof(*a) + sizeof(from));
	struct gpamap_slots *b = host_alloc(1, sizeof(*b) + sizeof(to));
	u32 i;

	a->nr = ARRAY_SIZE(from);
	memcpy(a->slots, from, sizeof(from));
	b->nr = ARRAY_SIZE(to);
	memcpy(b->slots, to, sizeof(to));
	gpamap_slots_diff(a, b);
	for (i = 0; i < a->nr; i++)
		EXPECT_EQ(i == 1, a->slots[i].keep) TH_LOG("from %u", i);
	for (i = 0; i < b->nr; i++) {
		EXPECT_EQ(ids[i], b->slots[i].id) TH_LOG("to %u", i);
		EXPECT_EQ(i == 1, b->slots[i].keep) TH_LOG("to %u", i);
	}
	free(a);
	free(b);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * The rules of the memory model, through the ABI: what a tree of regions shows.
 * The name of a test begins with the number of its rule.
 *
 * Most rules are about the view and need no VM (FIXTURE tree); those about slots
 * look at the list of slots of an attached map (FIXTURE slots), whether KVM was
 * called or not at whether the argument page came back after it was unmapped. At
 * the end random batches are compared with a model that knows no ranges: it looks
 * every address up, from the root down, in the tree that QUERY tells.
 */
#include "harness.h"
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include "gpamap_util.h"
#include "guest.h"

#define PAGE TEST_PAGE
#define ROOT 1
#define SPACE 1
#define RO GPAMAP_REGION_READONLY
#define TOP U64_MAX

/* A root of 1 MiB that a space looks at; all else is made by the tests. */
FIXTURE(tree) {
	int fd;
};

FIXTURE_SETUP(tree)
{
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_apply(self->fd, op_container(ROOT, 0xfffff),
		       op_space(SPACE, GPAMAP_SPACE_VIEW, ROOT));
}

FIXTURE_TEARDOWN(tree)
{
	close(self->fd);
}

#define apply(...) test_cmd_apply(self->fd, __VA_ARGS__)
#define EXPECT_SHOWS(...) EXPECT_VIEW(self->fd, SPACE, __VA_ARGS__)

TEST_F(tree, rule_01_priority)
{
	apply(op_io(2, 0xfff), op_io(3, 0xfff), op_io(4, 0xfff),
	      op_add(2, ROOT, 0, 0), op_add(3, ROOT, 0x800, 5), op_add(4, ROOT, 0x400, -1));
	EXPECT_SHOWS({ 0, 0x7ff, 2, 0, 0 }, { 0x800, 0x17ff, 3, 0, 0 });
	apply(op_prio(4, 6));
	EXPECT_SHOWS({ 0, 0x3ff, 2, 0, 0 }, { 0x400, 0x13ff, 4, 0, 0 },
		     { 0x1400, 0x17ff, 3, 0xc00, 0 });
	/* Signed, to the ends. */
	apply(op_prio(4, INT32_MIN), op_prio(3, INT32_MAX), op_prio(2, -1));
	EXPECT_SHOWS({ 0, 0x7ff, 2, 0, 0 }, { 0x800, 0x17ff, 3, 0, 0 });
	apply(op_prio(3, INT32_MIN), op_prio(4, INT32_MAX));
	EXPECT_SHOWS({ 0, 0x3ff, 2, 0, 0 }, { 0x400, 0x13ff, 4, 0, 0 },
		     { 0x1400, 0x17ff, 3, 0xc00, 0 });
}

TEST_F(tree, rule_01_containers_not_compared)
{
	apply(op_container(10, 0xfff), op_container(20, 0xfff), op_io(11, 0xfff),
	      op_io(21, 0x7ff), op_add(11, 10, 0, 1000), op_add(21, 20, 0, -1000),
	      op_add(10, ROOT, 0, 0), op_add(20, ROOT, 0, 1));
	EXPECT_SHOWS({ 0, 0x7ff, 21, 0, 0 }, { 0x800, 0xfff, 11, 0x800, 0 });
	apply(op_prio(10, 2));
	EXPECT_SHOWS({ 0, 0xfff, 11, 0, 0 });
}

TEST_F(tree, rule_02_last_attached)
{
	apply(op_io(2, 0xff), op_io(3, 0xff), op_io(4, 0xff), op_add(3, ROOT, 0, 0),
	      op_add(2, ROOT, 0, 0), op_add(4, ROOT, 0, 0));
	EXPECT_SHOWS({ 0, 0xff, 4, 0, 0 });
	apply(op_del(4));
	EXPECT_SHOWS({ 0, 0xff, 2, 0, 0 });
	apply(op_del(2), op_add(4, ROOT, 0, -1));
	EXPECT_SHOWS({ 0, 0xff, 3, 0, 0 });
	apply(op_add(2, ROOT, 0, -1), op_del(3));
	EXPECT_SHOWS({ 0, 0xff, 2, 0, 0 });
}

TEST_F(tree, rule_03_changed_address_reattaches)
{
	u64 generation;

	apply(op_io(2, 0xff), op_io(3, 0xff), op_add(2, ROOT, 0, 0), op_add(3, ROOT, 0, 0));
	EXPECT_SHOWS({ 0, 0xff, 3, 0, 0 });
	generation = query_info(self->fd).generation;
	apply(op_at(2, 0), op_prio(2, 0));
	EXPECT_SHOWS({ 0, 0xff, 3, 0, 0 });
	EXPECT_EQ(generation, query_info(self->fd).generation);
	/* Away and back: it comes to lie above. */
	apply(op_at(2, 0x1000), op_at(2, 0));
	EXPECT_SHOWS({ 0, 0xff, 2, 0, 0 });
	apply(op_prio(3, 1), op_prio(3, 0));
	EXPECT_SHOWS({ 0, 0xff, 3, 0, 0 });
	apply(op_at(2, 0x80));
	EXPECT_SHOWS({ 0, 0x7f, 3, 0, 0 }, { 0x80, 0x17f, 2, 0, 0 });
	/* But not above a higher priority. */
	apply(op_prio(3, 1), op_at(2, 0x40));
	EXPECT_SHOWS({ 0, 0xff, 3, 0, 0 }, { 0x100, 0x13f, 2, 0xc0, 0 });
}

TEST_F(tree, rule_04_detach_and_attach)
{
	apply(op_io(2, 0xff), op_io(3, 0xff), op_add(2, ROOT, 0, 0), op_add(3, ROOT, 0, 0));
	apply(op_del(2), op_add(2, ROOT, 0, 0));
	EXPECT_SHOWS({ 0, 0xff, 2, 0, 0 });
}

TEST_F(tree, rule_05_child_covers_parent)
{
	apply(op_ram(2, 0xfff, NULL), op_add(2, ROOT, 0, 0),
	      op_io(3, 0xff), op_add(3, 2, 0x100, -5),
	      op_rom(4, 0xff, NULL), op_add(4, 2, 0x180, INT32_MIN));
	EXPECT_SHOWS({ 0, 0xff, 2, 0, 0 }, { 0x100, 0x1ff, 3, 0, 0 },
		     { 0x200, 0x27f, 4, 0x80, RO }, { 0x280, 0xfff, 2, 0x280, 0 });
	/* The same in io and in rom, whose children it makes read-only. */
	apply(op_io(5, 0xfff), op_add(5, ROOT, 0x10000, 0), op_ram(6, 0xff, NULL),
	      op_add(6, 5, 0, -1), op_rom(7, 0xfff, NULL), op_add(7, ROOT, 0x20000, 0),
	      op_io(8, 0xff), op_add(8, 7, 0xf00, -1), op_del(2));
	EXPECT_SHOWS({ 0x10000, 0x100ff, 6, 0, 0 }, { 0x10100, 0x10fff, 5, 0x100, 0 },
		     { 0x20000, 0x20eff, 7, 0, RO }, { 0x20f00, 0x20fff, 8, 0, RO });
}

TEST_F(tree, rule_06_cut_to_parent)
{
	const u32 kinds[] = {
		GPAMAP_REGION_CONTAINER, GPAMAP_REGION_RAM, GPAMAP_REGION_IO,
	};
	struct gpamap_op parent = op_container(2, 0xfff);
	u32 i;

	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		parent.kind = kinds[i];
		/* One that reaches beyond, one wholly outside, one that is cut to a byte. */
		apply(parent, op_add(2, ROOT, 0x8000, 0), op_io(3, 0xffff),
		      op_add(3, 2, 0x800, 0), op_io(4, 0xff), op_add(4, 2, 0x1000, 1),
		      op_io(5, 0xff), op_add(5, 2, 0xfff, 1));
		if (kinds[i] == GPAMAP_REGION_CONTAINER)
			EXPECT_SHOWS({ 0x8800, 0x8ffe, 3, 0, 0 },
				     { 0x8fff, 0x8fff, 5, 0, 0 });
		else
			EXPECT_SHOWS({ 0x8000, 0x87ff, 2, 0, 0 },
				     { 0x8800, 0x8ffe, 3, 0, 0 },
				     { 0x8fff, 0x8fff, 5, 0, 0 });
		apply(op_del(5), op_del(4), op_del(3), op_del(2), op_destroy(5),
		      op_destroy(4), op_destroy(3), op_destroy(2));
	}
	/* Through two: what shows is what all of them let through. */
	apply(op_container(2, 0xfff), op_add(2, ROOT, 0x8000, 0),
	      op_container(3, 0xffff), op_add(3, 2, 0x400, 0),
	      op_io(4, 0xffff), op_add(4, 3, 0x200, 0));
	EXPECT_SHOWS({ 0x8600, 0x8fff, 4, 0, 0 });
}

TEST_F(tree, rule_07_holes_transparent)
{
	u32 i;

	apply(op_ram(2, 0xffff, NULL), op_add(2, ROOT, 0, -1),
	      op_container(3, 0xffff), op_add(3, ROOT, 0, 0),
	      op_io(4, 0xfff), op_add(4, 3, 0x1000, 0), op_io(5, 0xfff), op_add(5, 3, 0x3000, 0));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0, 0 }, { 0x1000, 0x1fff, 4, 0, 0 },
		     { 0x2000, 0x2fff, 2, 0x2000, 0 }, { 0x3000, 0x3fff, 5, 0, 0 },
		     { 0x4000, 0xffff, 2, 0x4000, 0 });
	/* The same through containers and aliases, 20 deep. */
	apply(op_del(3));
	for (i = 0; i < 10; i++)
		apply(op_alias(100 + i, i ? 200 + i - 1 : 3, 0, 0xffff),
		      op_container(200 + i, 0xffff), op_add(100 + i, 200 + i, 0, 0));
	apply(op_add(200 + i - 1, ROOT, 0, 0));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0, 0 }, { 0x1000, 0x1fff, 4, 0, 0 },
		     { 0x2000, 0x2fff, 2, 0x2000, 0 }, { 0x3000, 0x3fff, 5, 0, 0 },
		     { 0x4000, 0xffff, 2, 0x4000, 0 });
}

TEST_F(tree, rule_08_disabled_hides_subtree)
{
	apply(op_ram(2, 0xfff, NULL), op_add(2, ROOT, 0, -1),
	      op_io(3, 0xfff), op_add(3, ROOT, 0, 0),
	      op_container(4, 0x7ff), op_add(4, 3, 0, 0), op_rom(5, 0xff, NULL), op_add(5, 4, 0, 0),
	      op_flags(op_io(6, 0xff), GPAMAP_REGION_DISABLED), op_add(6, 4, 0x100, 0));
	EXPECT_SHOWS({ 0, 0xff, 5, 0, RO }, { 0x100, 0xfff, 3, 0x100, 0 });
	apply(op_enable(4, false));
	EXPECT_SHOWS({ 0, 0xfff, 3, 0, 0 });
	apply(op_enable(6, true));
	EXPECT_SHOWS({ 0, 0xfff, 3, 0, 0 });
	apply(op_enable(3, false));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0, 0 });
	apply(op_enable(4, true));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0, 0 });
	/* The children have kept their own flags. */
	apply(op_enable(3, true), op_enable(5, false));
	EXPECT_SHOWS({ 0, 0xff, 3, 0, 0 }, { 0x100, 0x1ff, 6, 0, 0 },
		     { 0x200, 0xfff, 3, 0x200, 0 });
	apply(op_enable(ROOT, false));
	EXPECT_VIEW(self->fd, SPACE);
}

TEST_F(tree, rule_09_one_container_many_aliases)
{
	apply(op_io(2, 0xff), op_add(2, ROOT, 0, 0), op_container(3, 0xfff));
	test_err_apply(EBUSY, 0, self->fd, op_add(2, 3, 0, 0));
	test_err_apply(EBUSY, 0, self->fd, op_add(2, ROOT, 0, 0));
	apply(op_alias(4, 2, 0, 0xff), op_add(4, ROOT, 0x1000, 0),
	      op_alias(5, 2, 0x80, 0x7f), op_add(5, 3, 0x80, 0),
	      op_alias(6, 3, 0, 0xfff), op_add(6, ROOT, 0x2000, 0),
	      op_add(3, ROOT, 0x4000, 0));
	EXPECT_SHOWS({ 0, 0xff, 2, 0, 0 }, { 0x1000, 0x10ff, 2, 0, 0 },
		     { 0x2080, 0x20ff, 2, 0x80, 0 }, { 0x4080, 0x40ff, 2, 0x80, 0 });
}

TEST_F(tree, rule_10_alias_window)
{
	apply(op_io(2, 0xfff), op_ram(3, 0xffff, NULL), op_add(3, ROOT, 0, -1));
	/* Beyond the target is a hole: the ram below shows. */
	apply(op_alias(4, 2, 0, 0x1fff), op_add(4, ROOT, 0x2000, 0));
	EXPECT_SHOWS({ 0, 0x1fff, 3, 0, 0 }, { 0x2000, 0x2fff, 2, 0, 0 },
		     { 0x3000, 0xffff, 3, 0x3000, 0 });
	apply(op_offset(4, 0xf00));
	EXPECT_SHOWS({ 0, 0x1fff, 3, 0, 0 }, { 0x2000, 0x20ff, 2, 0xf00, 0 },
		     { 0x2100, 0xffff, 3, 0x2100, 0 });
	/* Just the last byte, and nothing. */
	apply(op_offset(4, 0xfff));
	EXPECT_SHOWS({ 0, 0x1fff, 3, 0, 0 }, { 0x2000, 0x2000, 2, 0xfff, 0 },
		     { 0x2001, 0xffff, 3, 0x2001, 0 });
	apply(op_offset(4, 0x1000));
	EXPECT_SHOWS({ 0, 0xffff, 3, 0, 0 });
	/* A window smaller than the target. */
	apply(op_alias(5, 2, 0x100, 0x7f), op_add(5, ROOT, 0x4000, 0));
	EXPECT_SHOWS({ 0, 0x3fff, 3, 0, 0 }, { 0x4000, 0x407f, 2, 0x100, 0 },
		     { 0x4080, 0xffff, 3, 0x4080, 0 });
}

TEST_F(tree, rule_11_target_address_irrelevant)
{
	apply(op_container(2, 0xffff), op_io(3, 0xfff), op_add(3, 2, 0x5000, 0),
	      op_alias(4, 3, 0, 0xfff), op_add(4, ROOT, 0x1000, 0));
	EXPECT_SHOWS({ 0x1000, 0x1fff, 3, 0, 0 });
	apply(op_at(3, 0x9000));
	EXPECT_SHOWS({ 0x1000, 0x1fff, 3, 0, 0 });
	/* Even where its container cuts it, or does not reach. */
	apply(op_at(3, 0xff80));
	EXPECT_SHOWS({ 0x1000, 0x1fff, 3, 0, 0 });
	apply(op_at(3, 0xffffff));
	EXPECT_SHOWS({ 0x1000, 0x1fff, 3, 0, 0 });
}

TEST_F(tree, rule_12_target_container_irrelevant)
{
	apply(op_flags(op_container(2, 0xffff), RO), op_ram(3, 0xfff, NULL), op_add(3, 2, 0, 0),
	      op_io(5, 0xff), op_add(5, 3, 0, 0),
	      op_alias(4, 3, 0, 0xfff), op_add(4, ROOT, 0, 0));
	EXPECT_SHOWS({ 0, 0xff, 5, 0, 0 }, { 0x100, 0xfff, 3, 0x100, 0 });
	apply(op_enable(2, false));
	EXPECT_SHOWS({ 0, 0xff, 5, 0, 0 }, { 0x100, 0xfff, 3, 0x100, 0 });
	apply(op_del(3), op_destroy(2));
	EXPECT_SHOWS({ 0, 0xff, 5, 0, 0 }, { 0x100, 0xfff, 3, 0x100, 0 });
	/* Its own flags and its children do count. */
	apply(op_readonly(3, true));
	EXPECT_SHOWS({ 0, 0xff, 5, 0, RO }, { 0x100, 0xfff, 3, 0x100, RO });
	apply(op_del(5));
	EXPECT_SHOWS({ 0, 0xfff, 3, 0, RO });
	apply(op_enable(3, false));
	EXPECT_VIEW(self->fd, SPACE);
}

TEST_F(tree, rule_13_alias_of_alias)
{
	apply(op_io(2, 0xffff), op_alias(3, 2, 0x1000, 0x2fff), op_alias(4, 3, 0x800, 0xffff),
	      op_alias(5, 4, 0x100, 0xffff), op_add(5, ROOT, 0x8000, 0));
	/* 0x1000 + 0x800 + 0x100, up to the end of the window of 3. */
	EXPECT_SHOWS({ 0x8000, 0xa6ff, 2, 0x1900, 0 });
	apply(op_add(4, ROOT, 0x20000, 0));
	EXPECT_SHOWS({ 0x8000, 0xa6ff, 2, 0x1900, 0 }, { 0x20000, 0x227ff, 2, 0x1800, 0 });
	apply(op_offset(4, 0x2fff));
	EXPECT_SHOWS({ 0x20000, 0x20000, 2, 0x3fff, 0 });
}

TEST_F(tree, rule_14_no_children_of_alias)
{
	apply(op_io(2, 0xff), op_alias(3, 2, 0, 0xff), op_io(4, 0xff));
	test_err_apply(EINVAL, 0, self->fd, op_add(4, 3, 0, 0));
}

/* QEMU's Arm SSE: the lower half of a container is seen again in the upper, below what is there. */
TEST_F(tree, rule_15_alias_of_own_container)
{
	enum { BOX = 8, TIMER, UART, AGAIN, SEEN };

	apply(op_container(BOX, TOP), op_space(BOX, GPAMAP_SPACE_VIEW, BOX),
	      op_io(TIMER, 0xfff), op_add(TIMER, BOX, 0x40000000, 0),
	      op_io(UART, 0xfff), op_add(UART, BOX, 0x50000800, 0),
	      op_alias(AGAIN, BOX, 0x40000000, 0xfffffff),
	      op_add(AGAIN, BOX, 0x50000000, -1500));
	EXPECT_VIEW(self->fd, BOX, { 0x40000000, 0x40000fff, TIMER, 0, 0 },
		    { 0x50000000, 0x500007ff, TIMER, 0, 0 },
		    { 0x50000800, 0x500017ff, UART, 0, 0 });
	/* What moves, moves in both places; what the alias does not show is seen once. */
	apply(op_at(TIMER, 0x40002000), op_at(UART, 0x60000000));
	EXPECT_VIEW(self->fd, BOX, { 0x40002000, 0x40002fff, TIMER, 0, 0 },
		    { 0x50002000, 0x50002fff, TIMER, 0, 0 },
		    { 0x60000000, 0x60000fff, UART, 0, 0 });
	apply(op_enable(TIMER, false));
	EXPECT_VIEW(self->fd, BOX, { 0x60000000, 0x60000fff, UART, 0, 0 });
	apply(op_enable(TIMER, true), op_readonly(AGAIN, true));
	EXPECT_VIEW(self->fd, BOX, { 0x40002000, 0x40002fff, TIMER, 0, 0 },
		    { 0x50002000, 0x50002fff, TIMER, 0, RO },
		    { 0x60000000, 0x60000fff, UART, 0, 0 });
	/* From outside, through the alias alone. */
	apply(op_alias(SEEN, AGAIN, 0x2000, 0xffff), op_add(SEEN, ROOT, 0x100, 0));
	EXPECT_SHOWS({ 0x100, 0x10ff, TIMER, 0, RO });
	apply(op_at(TIMER, 0x40002800));
	EXPECT_SHOWS({ 0x900, 0x18ff, TIMER, 0, RO });

	/* The target and who holds it, as with every alias. */
	test_err_apply(EBUSY, 0, self->fd, op_destroy(BOX));
	test_err_apply(EBUSY, 0, self->fd, op_destroy(AGAIN));
	test_err_apply(EBUSY, 2, self->fd, op_del(AGAIN), op_space_destroy(BOX),
		       op_destroy(BOX));
	apply(op_space_destroy(BOX), op_del(SEEN), op_destroy(SEEN), op_del(AGAIN),
	      op_destroy(AGAIN), op_del(TIMER), op_del(UART), op_destroy(BOX));
	EXPECT_EQ(3u, query_info(self->fd).nr_regions);
}

/* A cycle left as it is when the map is closed is no leak: the machine looks for those. */
TEST_F(tree, rule_15_cycle_without_end)
{
	struct gpamap_op onto_itself = op_offset(3, 0x800);
	struct gpamap_apply out;
	struct snapshot *snap;

	/* Nobody sees these. */
	apply(op_container(2, 0xfff), op_alias(3, 2, 0, 0xfff), op_add(3, 2, 0x800, 0),
	      op_container(20, 0xfff), op_add(20, 20, 0, 0),
	      op_container(21, 0xfff), op_container(22, 0xfff), op_add(21, 22, 0, 0),
	      op_add(22, 21, 0, 0));
	test_err_apply(ELOOP, 0, self->fd, op_space(9, GPAMAP_SPACE_VIEW, 20));
	test_err_apply(ELOOP, 1, self->fd, op_alias(9, 21, 0, 0), op_add(9, ROOT, 0, 0));
	/* This has an end: the alias's own window does not show the alias. */
	apply(op_io(4, 0xff), op_add(4, 2, 0x10, 0), op_add(2, ROOT, 0x10000, 0));
	EXPECT_SHOWS({ 0x10010, 0x1010f, 4, 0, 0 }, { 0x10810, 0x1090f, 4, 0, 0 });

	snap = snapshot_take(self->fd);
	ASSERT_NE(NULL, snap);
	test_err_apply(ELOOP, 0, self->fd, op_at(3, 0));
	test_err_apply(ELOOP, 1, self->fd, op_io(9, 0), op_offset(3, 0x7ff), op_io(10, 0));
	test_err_apply(ELOOP, 1, self->fd, op_alias(9, ROOT, 0, 0xfff), op_add(9, ROOT, 0, 0));
	test_err_apply(ELOOP, 3, self->fd, op_alias(9, ROOT, 0, 0xfffff), op_del(2),
		       op_add(9, 2, 0, 0), op_add(2, ROOT, 0, 0));
	EXPECT_UNCHANGED(self->fd, snap);
	/* A dry run says the same. */
	EXPECT_EQ(-ELOOP, _test_cmd_plan(self->fd, GPAMAP_APPLY_DRY_RUN, &onto_itself, 1,
					 &out));
	EXPECT_EQ(0u, out.out_failed_op);
	EXPECT_UNCHANGED(self->fd, snap);
	snapshot_free(snap);
	/* What is disabled is not followed. In between nothing is rendered. */
	apply(op_enable(3, false), op_at(3, 0));
	test_err_apply(ELOOP, 0, self->fd, op_enable(3, true));
	apply(op_enable(3, true), op_at(3, 0x400));
	EXPECT_SHOWS({ 0x10010, 0x1010f, 4, 0, 0 }, { 0x10410, 0x1050f, 4, 0, 0 },
		     { 0x10810, 0x1090f, 4, 0, 0 }, { 0x10c10, 0x10d0f, 4, 0, 0 });
}

/* A chain of any length may be made; what a space sees of it has its limit. */
TEST_F(tree, rule_15_depth_bounded)
{
	u32 i;

	apply(op_io(2, 0xfff));
	for (i = 3; i < 2 * GPAMAP_MAX_DEPTH; i++)
		apply(op_alias(i, i - 1, 0, 0xfff));
	test_err_apply(ELOOP, 0, self->fd, op_add(GPAMAP_MAX_DEPTH + 1, ROOT, 0, 0));
	apply(op_add(GPAMAP_MAX_DEPTH, ROOT, 0, 0));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0, 0 });
	test_err_apply(ELOOP, 2, self->fd, op_del(GPAMAP_MAX_DEPTH), op_io(1000, 0),
		       op_add(2 * GPAMAP_MAX_DEPTH - 1, ROOT, 0, 0));
	/* Beyond what shows, it is not looked at. */
	apply(op_add(2 * GPAMAP_MAX_DEPTH - 1, ROOT, 0x100000, 0));
}

/* It has an end, after 2^30 ways: refused at once, and who is to blame is found. */
TEST_F(tree, rule_15_paths_bounded)
{
	struct snapshot *snap;

	apply(op_container(2, 30), op_io(3, 0), op_alias(4, 2, 0, 30), op_alias(5, 2, 0, 30),
	      op_add(3, 2, 0, 0), op_add(4, 2, 1, 0), op_add(2, ROOT, 0, 0));
	snap = snapshot_take(self->fd);
	ASSERT_NE(NULL, snap);
	test_err_apply(ENOSPC, 1, self->fd, op_io(9, 0), op_add(5, 2, 1, 0), op_io(10, 0));
	EXPECT_UNCHANGED(self->fd, snap);
	snapshot_free(snap);
}

TEST_F(tree, rule_16_offset_of_disabled_alias)
{
	apply(op_io(2, 0xffff), op_alias(3, 2, 0, 0xff), op_add(3, ROOT, 0, 0));
	apply(op_enable(3, false));
	apply(op_offset(3, 0x1234));
	EXPECT_VIEW(self->fd, SPACE);
	apply(op_enable(3, true));
	EXPECT_SHOWS({ 0, 0xff, 2, 0x1234, 0 });
}

/* A root of 2^64 bytes for the rules of arithmetic. */
#define BIG 900
#define EXPECT_BIG(...) EXPECT_VIEW(self->fd, BIG, __VA_ARGS__)

TEST_F(tree, rule_17_whole_space)
{
	apply(op_ram(BIG, TOP, NULL), op_space(BIG, GPAMAP_SPACE_VIEW, BIG));
	EXPECT_BIG({ 0, TOP, BIG, 0, 0 });
	apply(op_io(2, 0xfff), op_add(2, BIG, 0x1000, 0));
	EXPECT_BIG({ 0, 0xfff, BIG, 0, 0 }, { 0x1000, 0x1fff, 2, 0, 0 },
		   { 0x2000, TOP, BIG, 0x2000, 0 });
	apply(op_at(2, TOP - 0xfff));
	EXPECT_BIG({ 0, TOP - 0x1000, BIG, 0, 0 }, { TOP - 0xfff, TOP, 2, 0, 0 });
	apply(op_at(2, TOP));
	EXPECT_BIG({ 0, TOP - 1, BIG, 0, 0 }, { TOP, TOP, 2, 0, 0 });
	/* A whole space in a whole space, an alias of it, and one of one byte. */
	apply(op_del(2), op_io(3, TOP), op_add(3, BIG, 0, 0), op_alias(4, 3, 0, TOP),
	      op_container(5, TOP), op_add(4, 5, 0, 0), op_space(5, GPAMAP_SPACE_VIEW, 5),
	      op_io(6, 0), op_space(6, GPAMAP_SPACE_VIEW, 6));
	EXPECT_BIG({ 0, TOP, 3, 0, 0 });
	EXPECT_VIEW(self->fd, 5, { 0, TOP, 3, 0, 0 });
	EXPECT_VIEW(self->fd, 6, { 0, 0, 6, 0, 0 });
	/* Two halves merge to the whole. */
	apply(op_alias(7, 3, 0, TOP / 2), op_alias(8, 3, TOP / 2 + 1, TOP / 2),
	      op_container(9, TOP), op_add(8, 9, TOP / 2 + 1, 0), op_add(7, 9, 0, 0),
	      op_space(9, GPAMAP_SPACE_VIEW, 9));
	EXPECT_VIEW(self->fd, 9, { 0, TOP, 3, 0, 0 });
}

TEST_F(tree, rule_18_negative_and_huge_bases)
{
	apply(op_container(BIG, TOP), op_space(BIG, GPAMAP_SPACE_VIEW, BIG), op_io(2, TOP));
	/* The target begins far below address 0. */
	apply(op_alias(3, 2, TOP - 0xfff, 0xffff), op_add(3, BIG, 0x1000, 0));
	EXPECT_BIG({ 0x1000, 0x1fff, 2, TOP - 0xfff, 0 });
	apply(op_at(3, TOP - 0x7ff));
	EXPECT_BIG({ TOP - 0x7ff, TOP, 2, TOP - 0xfff, 0 });
	/* A chain whose offsets add up to more than 2^64: a hole. */
	apply(op_alias(4, 3, 0x800, 0xfff), op_add(4, BIG, 0, 0), op_alias(5, 3, 0x1000, 0xfff),
	      op_add(5, BIG, 0x4000, 0), op_alias(6, 3, TOP, TOP), op_add(6, BIG, 0x8000, 0));
	EXPECT_BIG({ 0, 0x7ff, 2, TOP - 0x7ff, 0 }, { TOP - 0x7ff, TOP, 2, TOP - 0xfff, 0 });
	/* Half up by a container, half down by an alias: bases beyond 2^64 between. */
	apply(op_del(3), op_del(4), op_del(5), op_del(6), op_container(7, TOP),
	      op_io(8, 0xfff), op_add(8, 7, TOP - 0x1fff, 0), op_container(9, TOP),
	      op_alias(10, 7, TOP - 0x2fff, 0x2fff), op_add(10, 9, TOP - 0x2fff, 0),
	      op_alias(11, 9, TOP - 0x1fff, 0xffff), op_add(11, BIG, 0x100000, 0));
	EXPECT_BIG({ 0x100000, 0x100fff, 8, 0, 0 });
}

TEST_F(tree, rule_19_cut_at_end_of_space)
{
	apply(op_container(BIG, TOP), op_space(BIG, GPAMAP_SPACE_VIEW, BIG), op_io(2, 0xffff),
	      op_add(2, BIG, TOP - 0xff, 0));
	EXPECT_BIG({ TOP - 0xff, TOP, 2, 0, 0 });
	/* A container there, with children on both sides of the end. */
	apply(op_container(3, TOP), op_add(3, BIG, TOP - 0xfff, -1), op_io(4, 0xff),
	      op_add(4, 3, 0, 0), op_io(5, 0xff), op_add(5, 3, 0x1000, 0), op_io(6, 0xff),
	      op_add(6, 3, TOP, 0));
	EXPECT_BIG({ TOP - 0xfff, TOP - 0xf00, 4, 0, 0 }, { TOP - 0xff, TOP, 2, 0, 0 });
	apply(op_del(2));
	EXPECT_BIG({ TOP - 0xfff, TOP - 0xf00, 4, 0, 0 });
	/* An alias whose window ends beyond 2^64 in a target that does not. */
	apply(op_io(7, TOP), op_alias(8, 7, 0x1000, TOP), op_container(9, TOP),
	      op_add(8, 9, 0x1000, 0), op_space(9, GPAMAP_SPACE_VIEW, 9));
	EXPECT_VIEW(self->fd, 9, { 0x1000, TOP, 7, 0x1000, 0 });
	apply(op_at(8, 0x800));
	EXPECT_VIEW(self->fd, 9, { 0x800, TOP - 0x800, 7, 0x1000, 0 });
}

TEST_F(tree, rule_21_offset_of_pieces)
{
	u32 i;

	apply(op_ram(2, 0xffff, NULL), op_add(2, ROOT, 0x10000, 0));
	for (i = 0; i < 4; i++)
		apply(op_io(10 + i, 0xff), op_add(10 + i, 2, 0x1100 * (i + 1), i - 2));
	EXPECT_SHOWS({ 0x10000, 0x110ff, 2, 0, 0 }, { 0x11100, 0x111ff, 10, 0, 0 },
		     { 0x11200, 0x121ff, 2, 0x1200, 0 }, { 0x12200, 0x122ff, 11, 0, 0 },
		     { 0x12300, 0x132ff, 2, 0x2300, 0 }, { 0x13300, 0x133ff, 12, 0, 0 },
		     { 0x13400, 0x143ff, 2, 0x3400, 0 }, { 0x14400, 0x144ff, 13, 0, 0 },
		     { 0x14500, 0x1ffff, 2, 0x4500, 0 });
	/* And through an alias that begins in the middle of a piece. */
	apply(op_alias(3, 2, 0x1180, 0x17f), op_add(3, ROOT, 0, 0), op_at(2, 0x20000));
	apply(op_del(11), op_del(12), op_del(13), op_enable(2, true));
	EXPECT_SHOWS({ 0, 0x7f, 10, 0x80, 0 }, { 0x80, 0x17f, 2, 0x1200, 0 },
		     { 0x20000, 0x210ff, 2, 0, 0 }, { 0x21100, 0x211ff, 10, 0, 0 },
		     { 0x21200, 0x2ffff, 2, 0x1200, 0 });
}

TEST_F(tree, rule_22_readonly_along_the_path)
{
	apply(op_ram(2, 0xfff, NULL), op_container(3, 0xfff), op_add(2, 3, 0, 0),
	      op_alias(4, 3, 0, 0xfff), op_alias(5, 4, 0, 0xfff), op_add(5, ROOT, 0, 0));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0, 0 });
	/* Each of them alone makes it so. */
	apply(op_readonly(2, true));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0, RO });
	apply(op_readonly(2, false), op_readonly(3, true));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0, RO });
	apply(op_readonly(3, false), op_readonly(4, true));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0, RO });
	apply(op_readonly(4, false), op_readonly(5, true));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0, RO });
	apply(op_readonly(5, false), op_readonly(ROOT, true));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0, RO });
	apply(op_readonly(ROOT, false));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0, 0 });
	/* A rom is, whatever its flag says. */
	apply(op_rom(6, 0xff, NULL), op_add(6, ROOT, 0, 1), op_readonly(6, false));
	EXPECT_SHOWS({ 0, 0xff, 6, 0, RO }, { 0x100, 0xfff, 2, 0x100, 0 });
}

TEST_F(tree, rule_27_root_at_zero)
{
	apply(op_container(2, 0xfff), op_add(2, ROOT, 0x8000, 0), op_io(3, 0xff),
	      op_add(3, 2, 0x10, 0), op_space(2, GPAMAP_SPACE_VIEW, 2),
	      op_space(3, GPAMAP_SPACE_VIEW, 3));
	EXPECT_SHOWS({ 0x8010, 0x810f, 3, 0, 0 });
	EXPECT_VIEW(self->fd, 2, { 0x10, 0x10f, 3, 0, 0 });
	EXPECT_VIEW(self->fd, 3, { 0, 0xff, 3, 0, 0 });
	/* Nor do cuts and flags of its containers count. An alias can be a root. */
	apply(op_at(2, 0xfffff), op_readonly(ROOT, true), op_alias(4, 3, 0x80, 0xff),
	      op_space(4, GPAMAP_SPACE_VIEW, 4));
	EXPECT_VIEW(self->fd, 2, { 0x10, 0x10f, 3, 0, 0 });
	EXPECT_VIEW(self->fd, 4, { 0, 0x7f, 3, 0x80, 0 });
}

TEST_F(tree, rule_28_merge)
{
	apply(op_io(2, 0xffff), op_alias(3, 2, 0x1000, 0xfff), op_add(3, ROOT, 0, 0),
	      op_alias(4, 2, 0x2000, 0xfff), op_add(4, ROOT, 0x1000, 7));
	EXPECT_SHOWS({ 0, 0x1fff, 2, 0x1000, 0 });
	/* Not where the offset jumps, the address does, or the flags differ. */
	apply(op_offset(4, 0x2001));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0x1000, 0 }, { 0x1000, 0x1fff, 2, 0x2001, 0 });
	apply(op_offset(4, 0x2000), op_at(4, 0x1001));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0x1000, 0 }, { 0x1001, 0x2000, 2, 0x2000, 0 });
	apply(op_at(4, 0x1000), op_readonly(4, true));
	EXPECT_SHOWS({ 0, 0xfff, 2, 0x1000, 0 }, { 0x1000, 0x1fff, 2, 0x2000, RO });
	apply(op_readonly(3, true));
	EXPECT_SHOWS({ 0, 0x1fff, 2, 0x1000, RO });
	/* Something between, and gone again. */
	apply(op_io(5, 0xf), op_add(5, ROOT, 0xff8, 9));
	EXPECT_SHOWS({ 0, 0xff7, 2, 0x1000, RO }, { 0xff8, 0x1007, 5, 0, 0 },
		     { 0x1008, 0x1fff, 2, 0x2008, RO });
	apply(op_enable(5, false));
	EXPECT_SHOWS({ 0, 0x1fff, 2, 0x1000, RO });
	/* Another region with the same shape does not merge. */
	apply(op_io(6, 0xfff), op_add(6, ROOT, 0x2000, 0), op_io(7, 0xfff),
	      op_add(7, ROOT, 0x3000, 0));
	EXPECT_SHOWS({ 0, 0x1fff, 2, 0x1000, RO }, { 0x2000, 0x2fff, 6, 0, 0 },
		     { 0x3000, 0x3fff, 7, 0, 0 });
}

TEST_F(tree, rule_30_priority_alone)
{
	u64 generation;

	apply(op_io(2, 0xff), op_add(2, ROOT, 0, 0), op_io(3, 0xff), op_add(3, ROOT, 0x1000, 0));
	generation = query_info(self->fd).generation;
	apply(op_prio(2, 77), op_prio(3, -77));
	EXPECT_EQ(generation, query_info(self->fd).generation);
	EXPECT_SHOWS({ 0, 0xff, 2, 0, 0 }, { 0x1000, 0x10ff, 3, 0, 0 });
	/* Another region in its place is a change, though it looks the same. */
	apply(op_del(2), op_destroy(2), op_io(2, 0xff), op_add(2, ROOT, 0, 0));
	EXPECT_SHOWS({ 0, 0xff, 2, 0, 0 }, { 0x1000, 0x10ff, 3, 0, 0 });
}

/* All kinds of operations in a batch whose last fails. */
TEST_F(tree, rule_35_failing_commit)
{
	apply(op_io(2, 0xff), op_add(2, ROOT, 0, 0), op_io(3, 0xff), op_add(3, ROOT, 0, 0),
	      op_io(4, 0xff), op_add(4, ROOT, 0, 0), op_io(5, 0xff), op_add(5, ROOT, 0, -1),
	      op_alias(6, 5, 0, 0xff), op_container(7, 0xfff));
	EXPECT_SHOWS({ 0, 0xff, 4, 0, 0 });
	test_err_apply(EINVAL, 15, self->fd, op_del(3), op_add(3, 7, 0, 0), op_at(2, 0x100),
		       op_at(2, 0), op_prio(4, -5), op_del(4), op_destroy(4), op_io(4, 0xf),
		       op_add(4, ROOT, 0, 100), op_destroy(6), op_del(5), op_destroy(5),
		       op_readonly(ROOT, true), op_space_destroy(SPACE),
		       op_space(SPACE, GPAMAP_SPACE_VIEW, 7), op_offset(2, 1));
	/* The order among the equals is the old one, too. */
	apply(op_enable(4, false));
	EXPECT_SHOWS({ 0, 0xff, 3, 0, 0 });
	apply(op_enable(3, false));
	EXPECT_SHOWS({ 0, 0xff, 2, 0, 0 });
	apply(op_enable(2, false));
	EXPECT_SHOWS({ 0, 0xff, 5, 0, 0 });
}

/* The same regions attached in another order, with the same order among equals. */
TEST_F(tree, rule_50_order_of_building)
{
	apply(op_io(2, 0x1ff), op_io(3, 0x1ff), op_io(4, 0x1ff), op_io(5, 0x1ff),
	      op_add(2, ROOT, 0, 1), op_add(3, ROOT, 0x100, 0), op_add(4, ROOT, 0x80, 1),
	      op_add(5, ROOT, 0x180, -1));
	EXPECT_SHOWS({ 0, 0x7f, 2, 0, 0 }, { 0x80, 0x27f, 4, 0, 0 },
		     { 0x280, 0x2ff, 3, 0x180, 0 }, { 0x300, 0x37f, 5, 0x180, 0 });
	apply(op_del(2), op_del(3), op_del(4), op_del(5));
	apply(op_add(5, ROOT, 0x180, -1), op_add(2, ROOT, 0, 1), op_add(4, ROOT, 0x80, 1),
	      op_add(3, ROOT, 0x100, 0));
	EXPECT_SHOWS({ 0, 0x7f, 2, 0, 0 }, { 0x80, 0x27f, 4, 0, 0 },
		     { 0x280, 0x2ff, 3, 0x180, 0 }, { 0x300, 0x37f, 5, 0x180, 0 });
}

/* -- slots ----------------------------------------------------------------- */

#define MEM_PAGES 64

/* As FIXTURE tree, attached to a VM, with the slots 10 to 29. */
FIXTURE(slots) {
	int fd;
	struct guest guest;
	char *mem;
};

FIXTURE_SETUP(slots)
{
	ASSERT_EQ(0, guest_create_vm(&self->guest));
	self->mem = mmap(NULL, MEM_PAGES * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->mem);
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_apply(self->fd, op_container(ROOT, 0xffffffff),
		       op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	test_cmd_attach(self->fd, self->guest.vm, 10, 20);
}

FIXTURE_TEARDOWN(slots)
{
	close(self->fd);
	guest_destroy(&self->guest);
}

#define EXPECT_MADE(...) EXPECT_SLOTS(self->fd, __VA_ARGS__)

/* Takes the argument page away: a commit that calls KVM puts it back. */
#define EXPECT_KVM_CALLED(_called, ...)						\
	do {									\
		ASSERT_EQ(1, scratch_unmap());					\
		apply(__VA_ARGS__);						\
		EXPECT_EQ((_called) ? 1 : 0, scratch_find(NULL, NULL));		\
		if (!(_called)) {						\
			/* For the next time. */				\
			apply(op_ram(999, PAGE - 1, self->mem),			\
			      op_add(999, ROOT, 0x40000000, 0));		\
			apply(op_del(999), op_destroy(999));			\
		}								\
	} while (0)

TEST_F(slots, rule_23_two_paths_one_readonly)
{
	apply(op_ram(2, 4 * PAGE - 1, self->mem), op_alias(3, 2, 0, 2 * PAGE - 1),
	      op_alias(4, 2, 2 * PAGE, 2 * PAGE - 1), op_add(3, ROOT, 0, 0),
	      op_add(4, ROOT, 2 * PAGE, 0), op_readonly(4, true));
	EXPECT_SHOWS({ 0, 2 * PAGE - 1, 2, 0, 0 },
		     { 2 * PAGE, 4 * PAGE - 1, 2, 2 * PAGE, RO });
	EXPECT_MADE({ 0, 2, self->mem, 10, 0 },
		    { 2 * PAGE, 2, self->mem + 2 * PAGE, 11, KVM_MEM_READONLY });
	/* The same pages twice. */
	apply(op_offset(4, 0));
	EXPECT_MADE({ 0, 2, self->mem, 10, 0 },
		    { 2 * PAGE, 2, self->mem, 11, KVM_MEM_READONLY });
}

TEST_F(slots, rule_29_same_host_memory)
{
	apply(op_ram(2, PAGE - 1, self->mem), op_ram(3, PAGE - 1, self->mem + PAGE),
	      op_ram(4, PAGE - 1, self->mem), op_add(2, ROOT, 0, 0), op_add(3, ROOT, PAGE, 0),
	      op_add(4, ROOT, 2 * PAGE, 0));
	EXPECT_SHOWS({ 0, PAGE - 1, 2, 0, 0 }, { PAGE, 2 * PAGE - 1, 3, 0, 0 },
		     { 2 * PAGE, 3 * PAGE - 1, 4, 0, 0 });
}

TEST_F(slots, rule_30_no_call_for_priority)
{
	apply(op_ram(2, 4 * PAGE - 1, self->mem), op_add(2, ROOT, 0, 0));
	EXPECT_KVM_CALLED(false, op_prio(2, 5));
	EXPECT_KVM_CALLED(true, op_at(2, 4 * PAGE));
	/* Another region with the same memory in the same place. */
	EXPECT_KVM_CALLED(false, op_ram(3, 4 * PAGE - 1, self->mem),
			  op_add(3, ROOT, 4 * PAGE, 9));
	EXPECT_SHOWS({ 4 * PAGE, 8 * PAGE - 1, 3, 0, 0 });
	EXPECT_MADE({ 4 * PAGE, 4, self->mem, 10, 0 });
}

/*
 * What changes places would meet itself, were a create to come first. Only one of the two
 * can be moved, and keeps its id.
 */
TEST_F(slots, rule_31_deletes_first)
{
	apply(op_ram(2, 4 * PAGE - 1, self->mem), op_add(2, ROOT, 0, 0),
	      op_ram(3, 4 * PAGE - 1, self->mem + 4 * PAGE), op_add(3, ROOT, 4 * PAGE, 0));
	apply(op_at(2, 4 * PAGE), op_at(3, 0));
	EXPECT_MADE({ 0, 4, self->mem + 4 * PAGE, 11, 0 },
		    { 4 * PAGE, 4, self->mem, 10, 0 });
	/* Overlapping its old self by a page, in either direction. */
	apply(op_del(3), op_at(2, 5 * PAGE));
	EXPECT_MADE({ 5 * PAGE, 4, self->mem, 10, 0 });
	apply(op_at(2, 3 * PAGE));
	EXPECT_MADE({ 3 * PAGE, 4, self->mem, 10, 0 });
	apply(op_readonly(2, true));
	EXPECT_MADE({ 3 * PAGE, 4, self->mem, 10, KVM_MEM_READONLY });
}

TEST_F(slots, rule_32_others_stay)
{
	u32 i;

	for (i = 0; i < 5; i++)
		apply(op_ram(2 + i, 4 * PAGE - 1, self->mem + 8 * i * PAGE),
		      op_add(2 + i, ROOT, 8 * i * PAGE, 0));
	EXPECT_MADE({ 0, 4, self->mem, 10, 0 },
		    { 8 * PAGE, 4, self->mem + 8 * PAGE, 11, 0 },
		    { 16 * PAGE, 4, self->mem + 16 * PAGE, 12, 0 },
		    { 24 * PAGE, 4, self->mem + 24 * PAGE, 13, 0 },
		    { 32 * PAGE, 4, self->mem + 32 * PAGE, 14, 0 });
	/* A hole in the middle: only 12 is split. */
	apply(op_io(20, PAGE - 1), op_add(20, ROOT, 17 * PAGE, 1));
	EXPECT_MADE({ 0, 4, self->mem, 10, 0 },
		    { 8 * PAGE, 4, self->mem + 8 * PAGE, 11, 0 },
		    { 16 * PAGE, 1, self->mem + 16 * PAGE, 12, 0 },
		    { 18 * PAGE, 2, self->mem + 18 * PAGE, 15, 0 },
		    { 24 * PAGE, 4, self->mem + 24 * PAGE, 13, 0 },
		    { 32 * PAGE, 4, self->mem + 32 * PAGE, 14, 0 });
	/* It moves to the edge: the right half stays, a slot comes beside it. */
	apply(op_at(20, 16 * PAGE));
	EXPECT_MADE({ 0, 4, self->mem, 10, 0 },
		    { 8 * PAGE, 4, self->mem + 8 * PAGE, 11, 0 },
		    { 17 * PAGE, 1, self->mem + 17 * PAGE, 12, 0 },
		    { 18 * PAGE, 2, self->mem + 18 * PAGE, 15, 0 },
		    { 24 * PAGE, 4, self->mem + 24 * PAGE, 13, 0 },
		    { 32 * PAGE, 4, self->mem + 32 * PAGE, 14, 0 });
	/* Where no memory changes hands, KVM is not asked. */
	EXPECT_KVM_CALLED(false, op_io(21, PAGE - 1), op_add(21, ROOT, 5 * PAGE, 1),
			  op_at(20, 16 * PAGE));
	EXPECT_KVM_CALLED(false, op_readonly(20, true), op_at(21, 6 * PAGE));
}

TEST_F(slots, rule_34_there_and_back)
{
	apply(op_ram(2, 4 * PAGE - 1, self->mem), op_add(2, ROOT, 0, 0));
	EXPECT_KVM_CALLED(false, op_enable(2, false), op_enable(2, true));
	EXPECT_KVM_CALLED(false, op_readonly(2, true), op_readonly(2, false));
	EXPECT_KVM_CALLED(false, op_at(2, PAGE), op_at(2, 0));
	EXPECT_KVM_CALLED(false, op_del(2), op_add(2, ROOT, 0, 0));
	EXPECT_KVM_CALLED(false, op_space_destroy(SPACE),
			  op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	EXPECT_MADE({ 0, 4, self->mem, 10, 0 });
}

TEST_F(slots, rule_37_rounded_inwards)
{
	apply(op_ram(2, 8 * PAGE - 1, self->mem), op_add(2, ROOT, 0, 0));
	/* Less than a page of io takes a page of memory out of the slots. */
	apply(op_io(3, 0xf), op_add(3, ROOT, 2 * PAGE + 0x100, 1));
	EXPECT_SHOWS({ 0, 2 * PAGE + 0xff, 2, 0, 0 },
		     { 2 * PAGE + 0x100, 2 * PAGE + 0x10f, 3, 0, 0 },
		     { 2 * PAGE + 0x110, 8 * PAGE - 1, 2, 2 * PAGE + 0x110, 0 });
	EXPECT_MADE({ 0, 2, self->mem, 10, 0 },
		    { 3 * PAGE, 5, self->mem + 3 * PAGE, 11, 0 });
	/* Over the border of two pages: two; the last and the first byte. */
	apply(op_at(3, 3 * PAGE - 1));
	EXPECT_MADE({ 0, 2, self->mem, 10, 0 },
		    { 4 * PAGE, 4, self->mem + 4 * PAGE, 11, 0 });
	apply(op_at(3, 3 * PAGE));
	EXPECT_MADE({ 0, 2, self->mem, 10, 0 },
		    { 2 * PAGE, 1, self->mem + 2 * PAGE, 12, 0 },
		    { 4 * PAGE, 4, self->mem + 4 * PAGE, 11, 0 });
	/* Pieces of memory without a whole page. */
	apply(op_del(2), op_del(3), op_ram(4, 0xfff, self->mem + 0x800),
	      op_add(4, ROOT, 0x800, 0),
	      op_ram(5, PAGE - 2, self->mem), op_add(5, ROOT, 16 * PAGE, 0),
	      op_ram(6, 0, self->mem), op_add(6, ROOT, 32 * PAGE, 0));
	EXPECT_VIEW(self->fd, SPACE, { 0x800, 0x17ff, 4, 0, 0 },
		    { 16 * PAGE, 17 * PAGE - 2, 5, 0, 0 }, { 32 * PAGE, 32 * PAGE, 6, 0, 0 });
	EXPECT_MADE();
	/* One that does, off its ends. */
	apply(op_ram(7, 2 * PAGE - 1, self->mem + 0x800), op_add(7, ROOT, 0x800, 1));
	EXPECT_MADE({ PAGE, 1, self->mem + PAGE, 10, 0 });
}

/* All of region 2, which no slot can show, and which is told. */
#define EXPECT_UNALIGNED(_start, _last)						\
	EXPECT_VIEW(self->fd, SPACE, { _start, _last, 2, 0, GPAMAP_RANGE_UNALIGNED })

/* What is not congruent has no slot, and is no error: a guest may have chosen its address. */
TEST_F(slots, rule_38_congruent)
{
	apply(op_ram(2, 8 * PAGE - 1, self->mem + 0x200), op_io(3, 0xff),
	      op_add(2, ROOT, 0, 0));
	EXPECT_MADE();
	EXPECT_UNALIGNED(0, 0x7fff);
	apply(op_at(2, 0x1ff));
	EXPECT_MADE();
	EXPECT_UNALIGNED(0x1ff, 0x81fe);
	apply(op_at(2, 0x200));
	EXPECT_MADE({ PAGE, 7, self->mem + PAGE, 10, 0 });
	EXPECT_VIEW(self->fd, SPACE, { 0x200, 0x81ff, 2, 0, 0 });
	/* A cut shifts both by the same. */
	apply(op_add(3, ROOT, 0x200, 1));
	EXPECT_MADE({ PAGE, 7, self->mem + PAGE, 10, 0 });
	/* An alias, and a container two levels up. */
	apply(op_del(2), op_container(4, 0xffffff), op_add(2, 4, 0x100, 0),
	      op_alias(5, 4, 0x80, 0xffffff), op_add(5, ROOT, 0x180, 0));
	apply(op_offset(5, 0x81));
	EXPECT_MADE();
	apply(op_at(2, 0x101));
	EXPECT_MADE({ PAGE, 7, self->mem + PAGE, 10, 0 });
	apply(op_at(5, 0x10180));
	EXPECT_MADE({ 17 * PAGE, 7, self->mem + PAGE, 10, 0 });
	/* A piece that gets no slot anyway. */
	apply(op_ram(6, 0xff, self->mem), op_add(6, ROOT, 0x80, 0));
	EXPECT_MADE({ 17 * PAGE, 7, self->mem + PAGE, 10, 0 });
}

TEST_F(slots, rule_40_lowest_free_id)
{
	u32 i;

	for (i = 0; i < 4; i++)
		apply(op_ram(2 + i, PAGE - 1, self->mem + i * PAGE),
		      op_add(2 + i, ROOT, 2 * i * PAGE, 0));
	apply(op_del(3), op_del(2));
	EXPECT_MADE({ 4 * PAGE, 1, self->mem + 2 * PAGE, 12, 0 },
		    { 6 * PAGE, 1, self->mem + 3 * PAGE, 13, 0 });
	/* By address the lowest first. */
	apply(op_add(2, ROOT, 20 * PAGE, 0), op_add(3, ROOT, 18 * PAGE, 0));
	EXPECT_MADE({ 4 * PAGE, 1, self->mem + 2 * PAGE, 12, 0 },
		    { 6 * PAGE, 1, self->mem + 3 * PAGE, 13, 0 },
		    { 18 * PAGE, 1, self->mem + PAGE, 10, 0 },
		    { 20 * PAGE, 1, self->mem, 11, 0 });
	/* An id that becomes free in the same commit is free. */
	apply(op_del(4), op_ram(10, PAGE - 1, self->mem + 9 * PAGE),
	      op_add(10, ROOT, 30 * PAGE, 0));
	EXPECT_MADE({ 6 * PAGE, 1, self->mem + 3 * PAGE, 13, 0 },
		    { 18 * PAGE, 1, self->mem + PAGE, 10, 0 },
		    { 20 * PAGE, 1, self->mem, 11, 0 },
		    { 30 * PAGE, 1, self->mem + 9 * PAGE, 12, 0 });
}

TEST_F(slots, rule_48_nothing_pending)
{
	struct snapshot *snap;

	apply(op_ram(2, 4 * PAGE - 1, self->mem), op_add(2, ROOT, 0, 0));
	snap = snapshot_take(self->fd);
	ASSERT_NE(NULL, snap);
	ASSERT_EQ(1, scratch_unmap());
	ASSERT_EQ(0, _test_cmd_apply(self->fd, NULL, 0, NULL, NULL));
	apply(op_enable(2, true), op_at(2, 0), op_prio(2, 0), op_readonly(2, false));
	EXPECT_EQ(0, scratch_find(NULL, NULL));
	EXPECT_UNCHANGED(self->fd, snap);
	snapshot_free(snap);
}

/* -- the slow model -------------------------------------------------------- */

/*
 * The root has UNITS units of half a page; every number in the tree is a multiple
 * of a unit, so a unit shows one thing.
 */
#define UNIT (PAGE / 2)
#define UNITS 96
#define NR_IDS 24		/* ROOT and 2 to NR_IDS */
#define ID_MEM (UNITS * UNIT)	/* host memory of a region */

struct model {
	struct gpamap_region_info *regions;
	u32 nr;
};

/* What one address shows. */
struct shown {
	const struct gpamap_region_info *region;	/* NULL: nothing */
	u64 offset;
	u32 flags;
};

static const struct gpamap_region_info *model_region(const struct model *model, u32 id)
{
	u32 i;

	for (i = 0; i < model->nr; i++)
		if (model->regions[i].id == id)
			return &model->regions[i];
	return NULL;
}

static struct shown model_look_up(const struct model *model, u32 id, u64 offset, u32 flags)
{
	const struct gpamap_region_info *region = model_region(model, id);
	struct shown shown = { 0 };
	u32 i;

	if (region->flags & GPAMAP_REGION_DISABLED || offset > region->last)
		return shown;
	flags |= region->flags;
	if (region->kind == GPAMAP_REGION_ALIAS)
		return model_look_up(model, region->target, offset + region->offset, flags);
	/* Siblings come with the most visible first. */
	for (i = 0; i < model->nr; i++) {
		const struct gpamap_region_info *child = &model->regions[i];

		if (child->container != id || offset < child->at)
			continue;
		shown = model_look_up(model, child->id, offset - child->at, flags |
				      (region->kind == GPAMAP_REGION_ROM ? RO : 0));
		if (shown.region)
			return shown;
	}
	if (region->kind != GPAMAP_REGION_CONTAINER) {
		shown.region = region;
		shown.offset = offset;
		shown.flags = flags | (region->kind == GPAMAP_REGION_ROM ? RO : 0);
	}
	return shown;
}

static bool shown_joined(const struct shown *a, const struct shown *b)
{
	return a->region && a->region == b->region && a->flags == b->flags &&
	       a->offset + UNIT == b->offset;
}

static bool is_memory(const struct shown *shown)
{
	return shown->region && shown->region->kind != GPAMAP_REGION_IO;
}

/* Memory that the host does not have. */
static bool model_homeless(const struct shown *map)
{
	u32 i;

	for (i = 0; i < UNITS; i++)
		if (is_memory(&map[i]) && !map[i].region->hva)
			return true;
	return false;
}

/* Whether a way down leads from one region to another. @tried: by id, none yet. */
static bool model_reaches(const struct model *model, u32 from, u32 to, bool *tried)
{
	u32 i;

	if (tried[from])
		return false;
	tried[from] = true;
	for (i = 0; i < model->nr; i++) {
		const struct gpamap_region_info *region = &model->regions[i];

		if (region->container != from && model_region(model, from)->target != region->id)
			continue;
		if (region->id == to || model_reaches(model, region->id, to, tried))
			return true;
	}
	return false;
}

/* Whether a way down from the root leads through a region twice. */
static bool model_cyclic(const struct model *model)
{
	u32 id;

	for (id = 2; id <= NR_IDS; id++) {
		bool below[NR_IDS + 1] = { false }, again[NR_IDS + 1] = { false };

		if (model_region(model, id) && model_reaches(model, ROOT, id, below) &&
		    model_reaches(model, id, id, again))
			return true;
	}
	return false;
}

/* Rule 38: memory that no slot can show. */
static bool is_unaligned(const struct shown *shown, u32 unit)
{
	return is_memory(shown) && shown->region->hva &&
	       (shown->region->hva + shown->offset - unit * UNIT) % PAGE;
}

static void model_paint(const struct model *model, struct shown *map)
{
	u32 i;

	for (i = 0; i < UNITS; i++)
		map[i] = model_look_up(model, ROOT, i * UNIT, 0);
}

static bool model_query(struct model *model, int fd)
{
	model->regions = query_all(fd, GPAMAP_QUERY_REGIONS, 0, &model->nr);
	return model->regions;
}

/* A region as the REGION operation that makes it. */
static struct gpamap_op op_of_region(const struct gpamap_region_info *region)
{
	struct gpamap_op op = {
		.code = GPAMAP_OP_REGION,
		.id = region->id,
		.kind = region->kind,
		.flags = region->flags,
		.ref = region->target,
		.last = region->last,
		.offset = region->offset,
		.hva = region->hva,
	};

	return op;
}

/*
 * Builds the same tree in a fresh map: targets before aliases, and the least
 * visible child first. The map, or -errno.
 */
static int model_rebuild(const struct model *model)
{
	struct gpamap_op ops[2 * NR_IDS + 2];
	bool made[NR_IDS + 1] = { false };
	u32 nr = 0, left = model->nr, i;
	int fd = map_open();

	if (fd < 0)
		return fd;
	while (left) {
		for (i = 0; i < model->nr; i++) {
			const struct gpamap_region_info *region = &model->regions[i];

			if (made[region->id] || (region->target && !made[region->target]))
				continue;
			ops[nr++] = op_of_region(region);
			made[region->id] = true;
			left--;
		}
	}
	for (i = model->nr; i--;) {
		const struct gpamap_region_info *region = &model->regions[i];

		if (region->container)
			ops[nr++] = op_add(region->id, region->container, region->at,
					   region->prio);
	}
	ops[nr++] = op_space(SPACE, GPAMAP_SPACE_VIEW, ROOT);
	if (_test_cmd_apply(fd, ops, nr, NULL, NULL)) {
		close(fd);
		return -EINVAL;
	}
	return fd;
}

FIXTURE(model) {
	int fd;
	struct guest guest;
	char *mem;
	u32 done, cyclic, refused, homeless, endless, unaligned, slots;
};

FIXTURE_SETUP(model)
{
	u64 i;

	ASSERT_EQ(0, guest_create(&self->guest));
	self->mem = mmap(NULL, (NR_IDS + 1) * ID_MEM, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->mem);
	/* Every unit knows where it is. */
	for (i = 0; i < (NR_IDS + 1) * ID_MEM; i += UNIT)
		*(u64 *)(self->mem + i) = (uintptr_t)self->mem + i;
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_apply(self->fd, op_container(ROOT, UNITS * UNIT - 1),
		       op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	test_cmd_attach(self->fd, self->guest.vm, 0, 200);
}

FIXTURE_TEARDOWN(model)
{
	close(self->fd);
	guest_destroy(&self->guest);
}

/* A number of units: of pages, mostly. */
static u64 random_units(struct rnd *rnd, u32 pages)
{
	u64 n = 2 * rnd_below(rnd, pages);

	return rnd_below(rnd, 16) ? n : n + 1;
}

static struct gpamap_op random_region(struct rnd *rnd, u32 id, char *mem)
{
	static const u32 kinds[] = {
		GPAMAP_REGION_CONTAINER, GPAMAP_REGION_RAM, GPAMAP_REGION_RAM,
		GPAMAP_REGION_ROM, GPAMAP_REGION_IO, GPAMAP_REGION_ALIAS,
		GPAMAP_REGION_ALIAS,
	};
	struct gpamap_op op = op_container(id, 0);

	op.kind = kinds[rnd_below(rnd, ARRAY_SIZE(kinds))];
	op.last = (random_units(rnd, UNITS / 4) + 1 + (rnd_below(rnd, 8) != 0)) * UNIT - 1;
	if (op.kind == GPAMAP_REGION_CONTAINER)
		op.last = UNITS / 2 * UNIT - 1;
	if (!rnd_below(rnd, 8))
		op.flags = 1 + rnd_below(rnd, 3);
	if (op.kind == GPAMAP_REGION_RAM || op.kind == GPAMAP_REGION_ROM)
		op.hva = rnd_below(rnd, 32) ? (uintptr_t)mem + id * ID_MEM : 0;
	if (op.kind == GPAMAP_REGION_ALIAS) {
		op.ref = ROOT + rnd_below(rnd, NR_IDS);
		op.offset = random_units(rnd, UNITS / 8) * UNIT;
	}
	return op;
}

static struct gpamap_op random_op(struct rnd *rnd, const struct model *model, char *mem)
{
	u32 id = 2 + rnd_below(rnd, NR_IDS - 1), parent = ROOT;
	const struct gpamap_region_info *region = model_region(model, id);
	s32 prio = (s32)rnd_below(rnd, 5) - 2;

	if (!region)
		return random_region(rnd, id, mem);
	if (!region->container) {
		if (!rnd_below(rnd, 4))
			return op_destroy(id);
		if (rnd_below(rnd, 2))
			parent = 2 + rnd_below(rnd, NR_IDS - 1);
		/* Into what it is seen through (rule 15). */
		if (region->target && rnd_below(rnd, 2))
			parent = region->target;
		return op_add(id, parent, random_units(rnd, UNITS / 2) * UNIT, prio);
	}
	switch (rnd_below(rnd, 12)) {
	case 0:
	case 1:
		return op_del(id);
	case 2:
		return op_enable(id, false);
	case 3:
	case 4:
		return op_enable(id, true);
	case 5:
		return op_readonly(id, rnd_below(rnd, 2));
	case 6:
	case 7:
		return op_prio(id, prio);
	case 8:
	case 9:
		if (region->kind == GPAMAP_REGION_ALIAS)
			return op_offset(id, random_units(rnd, UNITS / 8) * UNIT);
	}
	return op_at(id, random_units(rnd, UNITS / 2) * UNIT);
}

/*
 * Memory goes to where a slot can show it, or none can (@odd): for when chance has kept it away
 * from there.
 */
static struct gpamap_op random_move(struct rnd *rnd, const struct model *model, char *mem, bool odd)
{
	u32 i, first = rnd_below(rnd, NR_IDS);

	for (i = 0; i < NR_IDS; i++) {
		const struct gpamap_region_info *region;

		region = model_region(model, 1 + (first + i) % NR_IDS);
		if (region && region->container && region->hva)
			return op_at(region->id, (2 * rnd_below(rnd, UNITS / 4) + odd) * UNIT);
	}
	return random_op(rnd, model, mem);
}

/* The same for cycles: the root holds a window on another part of itself. Their number. */
static u32 add_cycle(const struct model *model, struct gpamap_op *ops)
{
	u32 id;

	for (id = 2; id <= NR_IDS; id++) {
		if (model_region(model, id))
			continue;
		ops[0] = op_alias(id, ROOT, 0, UNITS / 4 * UNIT - 1);
		ops[1] = op_add(id, ROOT, UNITS / 2 * UNIT, -3);
		return 2;
	}
	return 0;
}

static void check_view(struct __test_metadata *_metadata, int fd, const struct shown *map)
{
	struct gpamap_range_info *ranges;
	u32 i, unit = 0, count;

	ranges = query_all(fd, GPAMAP_QUERY_RANGES, SPACE, &count);
	ASSERT_NE(NULL, ranges);
	for (i = 0; i < count; i++) {
		const struct gpamap_range_info *range = &ranges[i];

		while (unit < UNITS && !map[unit].region)
			unit++;
		ASSERT_LT(unit, (u32)UNITS)
			TH_LOG("range %u at 0x%llx: nothing there", i, range->start);
		ASSERT_EQ(unit * UNIT, range->start);
		ASSERT_EQ(map[unit].region->id, range->region);
		ASSERT_EQ(map[unit].region->kind, range->kind);
		/* A rebuilt map does not know what a detached region had. */
		if (map[unit].region->container)
			ASSERT_EQ(map[unit].region->prio, range->prio);
		ASSERT_EQ(map[unit].offset, range->offset);
		ASSERT_EQ(map[unit].flags | (is_unaligned(&map[unit], unit) ?
					     GPAMAP_RANGE_UNALIGNED : 0), range->flags);
		for (unit++; unit < UNITS && shown_joined(&map[unit - 1], &map[unit]);)
			unit++;
		ASSERT_EQ(unit * UNIT - 1, range->last);
	}
	for (; unit < UNITS; unit++)
		ASSERT_EQ(NULL, map[unit].region)
			TH_LOG("0x%lx should show region %u", unit * UNIT,
			       map[unit].region->id);
	free(ranges);
}

/* The memory that page @page has, if it is wholly one piece of memory. */
static const struct shown *shown_page(const struct shown *map, u32 page)
{
	const struct shown *shown = &map[2 * page];

	return is_memory(shown) && shown_joined(shown, shown + 1) &&
	       !is_unaligned(shown, 2 * page) ? shown : NULL;
}

static void check_slots(struct __test_metadata *_metadata, int fd, const struct shown *map)
{
	struct gpamap_slot_info *slots;
	u32 i, j, count, page = 0;
	unsigned char used[200] = { 0 };

	slots = query_all(fd, GPAMAP_QUERY_SLOTS, 0, &count);
	ASSERT_NE(NULL, slots);
	for (i = 0; i < count; i++) {
		ASSERT_LT(slots[i].slot, 200u);
		ASSERT_EQ(0, (int)used[slots[i].slot]++);
		while (page < UNITS / 2 && !shown_page(map, page))
			page++;
		ASSERT_LT(page, UNITS / 2u);
		ASSERT_EQ(page * PAGE, slots[i].gpa);
		ASSERT_LT(0u, slots[i].npages);
		for (j = 0; j < slots[i].npages; j++, page++) {
			const struct shown *shown = shown_page(map, page);

			ASSERT_NE(NULL, shown);
			ASSERT_EQ(shown->region->hva + shown->offset,
				  slots[i].hva + j * PAGE);
			ASSERT_EQ(shown->region->id, slots[i].region);
			ASSERT_EQ(shown->flags & RO ? KVM_MEM_READONLY : 0u,
				  slots[i].flags);
		}
	}
	for (; page < UNITS / 2; page++)
		ASSERT_EQ(NULL, shown_page(map, page))
			TH_LOG("page %u has no slot", page);
	free(slots);
}

/* The first half of a page, as the guest sees it: in a slot, or served (rule 37). */
static void check_guest(struct __test_metadata *_metadata, struct guest *guest,
			const struct shown *map, u32 page)
{
	const struct shown *shown = &map[2 * page];

	if (!is_memory(shown)) {
		EXPECT_GUEST_MMIO(guest, page * PAGE);
		return;
	}
	EXPECT_GUEST_RAM(guest, page * PAGE, shown->region->hva + shown->offset);
	if (shown->flags & RO)
		EXPECT_GUEST_WRITE_MMIO(guest, page * PAGE);
}

/* A batch that was refused with EINVAL: without a VM it shows why. */
static void check_refused(struct __test_metadata *_metadata, const struct model *model,
			  const struct gpamap_op *ops, u32 nr, u32 failed, bool *homeless)
{
	struct shown map[UNITS];
	struct model other;
	int fd, rc;

	fd = model_rebuild(model);
	ASSERT_LE(0, fd);
	rc = _test_cmd_apply(fd, ops, nr, NULL, NULL);
	*homeless = !rc;
	if (!rc) {
		ASSERT_TRUE(model_query(&other, fd));
		model_paint(&other, map);
		EXPECT_TRUE(model_homeless(map))
			TH_LOG("a good result was refused");
		free(other.regions);
		close(fd);
		fd = model_rebuild(model);
		ASSERT_LE(0, fd);
		/* The operation to blame makes the trouble, those before it do not. */
		ASSERT_LT(failed, nr);
		ASSERT_EQ(0, _test_cmd_apply(fd, ops, failed, NULL, NULL));
		ASSERT_TRUE(model_query(&other, fd));
		model_paint(&other, map);
		EXPECT_FALSE(model_homeless(map));
		free(other.regions);
		ASSERT_EQ(0, _test_cmd_apply(fd, ops + failed, 1, NULL, NULL));
		ASSERT_TRUE(model_query(&other, fd));
		model_paint(&other, map);
		EXPECT_TRUE(model_homeless(map));
		free(other.regions);
	}
	close(fd);
}

/*
 * A batch that was refused with ELOOP: the operation to blame makes the trouble, be it that or
 * memory that is not there.
 */
static void check_endless(struct __test_metadata *_metadata, const struct model *model,
			  const struct gpamap_op *ops, u32 nr, u32 failed)
{
	struct shown map[UNITS];
	struct model other;
	int fd, rc;

	fd = model_rebuild(model);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-ELOOP, _test_cmd_apply(fd, ops, nr, NULL, NULL));
	ASSERT_LT(failed, nr);
	ASSERT_EQ(0, _test_cmd_apply(fd, ops, failed, NULL, NULL));
	rc = _test_cmd_apply(fd, ops + failed, 1, NULL, NULL);
	if (!rc) {
		ASSERT_TRUE(model_query(&other, fd));
		model_paint(&other, map);
		EXPECT_TRUE(model_homeless(map));
		free(other.regions);
	} else {
		EXPECT_EQ(-ELOOP, rc);
	}
	close(fd);
}

/* Rule 49: views and slots after any sequence of batches. */
TEST_F_TIMEOUT(model, rule_49_random_batches, 120)
{
	u64 seed = test_seed(), iter = env_number("ITER", 300), i;
	struct shown map[UNITS];
	struct gpamap_op ops[13];
	u32 nr, j, most, onto_itself, failed;
	struct model model;
	struct rnd rnd;
	int rc, fd;

	TH_LOG("SEED=%llu ITER=%llu", (unsigned long long)seed, (unsigned long long)iter);
	rnd_seed(&rnd, seed);
	for (i = 0; i < iter && _metadata->passed; i++) {
		struct snapshot *before = snapshot_take(self->fd);

		ASSERT_NE(NULL, before);
		ASSERT_TRUE(model_query(&model, self->fd));
		most = 1 + rnd_below(&rnd, rnd_below(&rnd, 4) ? 2 : 8);
		onto_itself = rnd_below(&rnd, 8) ? most : rnd_below(&rnd, most);
		for (nr = 0, j = 0; j < most; j++) {
			/* Among others, what shows the root where it is, without an end. */
			if (j == onto_itself) {
				ops[nr++] = op_alias(NR_IDS + 1, ROOT, UNIT, UNIT - 1);
				ops[nr++] = op_add(NR_IDS + 1, ROOT, UNIT, 0);
			}
			ops[nr++] = random_op(&rnd, &model, self->mem);
		}
		if (self->cyclic < i / 8)
			nr += add_cycle(&model, ops + nr);
		if (self->slots < 2 * i || self->unaligned < 2 * i)
			ops[nr++] = random_move(&rnd, &model, self->mem,
						self->unaligned < self->slots);
		rc = _test_cmd_apply(self->fd, ops, nr, &failed, NULL);
		if (rc) {
			bool homeless = false;

			EXPECT_UNCHANGED(self->fd, before);
			if (rc == -EINVAL)
				check_refused(_metadata, &model, ops, nr, failed, &homeless);
			if (rc == -ELOOP)
				check_endless(_metadata, &model, ops, nr, failed);
			self->endless += rc == -ELOOP;
			self->homeless += homeless;
			self->refused++;
		} else {
			free(model.regions);
			ASSERT_TRUE(model_query(&model, self->fd));
			self->cyclic += model_cyclic(&model);
			model_paint(&model, map);
			check_view(_metadata, self->fd, map);
			check_slots(_metadata, self->fd, map);
			self->slots += query_info(self->fd).used_slots;
			for (j = 0; j < UNITS; j++)
				self->unaligned += is_unaligned(&map[j], j);
			check_guest(_metadata, &self->guest, map, rnd_below(&rnd, UNITS / 2));
			check_guest(_metadata, &self->guest, map, rnd_below(&rnd, UNITS / 2));
			self->done++;
		}
		if (!(i % 16)) {
			fd = model_rebuild(&model);
			ASSERT_LE(0, fd);
			model_paint(&model, map);
			check_view(_metadata, fd, map);
			close(fd);
		}
		free(model.regions);
		snapshot_free(before);
	}
	if (!_metadata->passed)
		TH_LOG("at batch %llu of SEED=%llu", (unsigned long long)i - 1,
		       (unsigned long long)seed);
	TH_LOG("%u batches done, %u of them with cycles; %u refused, %u of them homeless, "
	       "%u endless; %u unaligned, %u slots", self->done, self->cyclic, self->refused,
	       self->homeless, self->endless, self->unaligned, self->slots);
	/* The test is of no use if most is refused, or shows nothing. */
	EXPECT_LT(iter / 4, self->done);
	EXPECT_LT(iter, self->slots);
	EXPECT_LT(iter, self->unaligned);
	EXPECT_LT(0u, self->cyclic);
	EXPECT_LT(0u, self->endless);
}

TEST_HARNESS_MAIN

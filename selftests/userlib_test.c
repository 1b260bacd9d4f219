// SPDX-License-Identifier: GPL-2.0
/*
 * libgpamap against the module: what it adds to the ioctls (errors that are kept, arrays
 * that fit, errno left alone), plans and statistics, and map files applied to a live map,
 * in one go and commit by commit.
 */
#include "harness.h"
#include <errno.h>
#include <fcntl.h>
#include <gpamap.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

FIXTURE(lib) {
	struct gpamap *map;
	struct gpamap_batch *batch;
	int vm;
};

FIXTURE_SETUP(lib)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	ASSERT_EQ(0, gpamap_open(&self->map));
	ASSERT_EQ(0, gpamap_batch_new(&self->batch));
	self->vm = ioctl(kvm, KVM_CREATE_VM, 0);
	ASSERT_LE(0, self->vm);
	close(kvm);
}

FIXTURE_TEARDOWN(lib)
{
	gpamap_batch_free(self->batch);
	gpamap_close(self->map);
	close(self->vm);
}

TEST_F(lib, every_operation_and_query)
{
	struct gpamap_region_info *regions;
	struct gpamap_range_info *ranges;
	struct gpamap_space_info *spaces;
	struct gpamap_slot_info *slots;
	struct gpamap_lookup at;
	struct gpamap_info info;
	uint32_t nr, failed;
	void *mem = aligned_alloc(4096, 4096);

	errno = 77;
	gpamap_batch_container(self->batch, 1, "root", UINT64_MAX);
	gpamap_batch_ram(self->batch, 2, "ram", 0xfff, mem);
	gpamap_batch_rom(self->batch, 3, "rom", 0xfff, mem);
	gpamap_batch_io(self->batch, 4, NULL, 0xfff);
	gpamap_batch_romd(self->batch, 5, "romd", 0xfff, mem);
	gpamap_batch_reserved(self->batch, 6, "reserved", 0xfff);
	gpamap_batch_alias(self->batch, 7, "alias", 0x7ff, 2, 0x800);
	for (nr = 2; nr <= 7; nr++)
		gpamap_batch_add(self->batch, nr, 1, nr * 0x1000, 1);
	gpamap_batch_set_enabled(self->batch, 4, false);
	gpamap_batch_set_readonly(self->batch, 2, true);
	gpamap_batch_set_nonvolatile(self->batch, 2, true);
	gpamap_batch_set_unmergeable(self->batch, 2, true);
	gpamap_batch_set_cut_ahead(self->batch, 4, true);
	gpamap_batch_set_romd(self->batch, 5, false);
	gpamap_batch_set_last(self->batch, 6, 0xff);
	gpamap_batch_set_at(self->batch, 6, 0x10000);
	gpamap_batch_set_prio(self->batch, 6, -3);
	gpamap_batch_set_offset(self->batch, 7, 0x801);
	gpamap_batch_space(self->batch, 1, "view", GPAMAP_SPACE_VIEW, 1);
	gpamap_batch_memory_space(self->batch, 2, "smm", 3, 1);
	EXPECT_EQ(7 + 6 + 10 + 2, gpamap_batch_count(self->batch));
	EXPECT_EQ(GPAMAP_OP_SPACE, gpamap_batch_get(self->batch, 24)->code);
	EXPECT_EQ(NULL, gpamap_batch_get(self->batch, 25));
	ASSERT_EQ(0, gpamap_apply(self->map, self->batch, &failed));
	EXPECT_EQ(GPAMAP_NO_OP, failed);

	ASSERT_EQ(0, gpamap_query_regions(self->map, &regions, &nr));
	EXPECT_EQ(7, nr);
	EXPECT_STREQ("root", (char *)regions[0].name);
	while (nr--)
		if (regions[nr].id == 4)
			EXPECT_EQ(GPAMAP_REGION_CUT_AHEAD | GPAMAP_REGION_DISABLED,
				  regions[nr].flags);
	free(regions);
	ASSERT_EQ(0, gpamap_query_spaces(self->map, &spaces, &nr));
	EXPECT_EQ(2, nr);
	EXPECT_EQ(1, spaces[1].as_id);
	free(spaces);
	ASSERT_EQ(0, gpamap_query_ranges(self->map, 1, &ranges, &nr));
	ASSERT_EQ(5, nr);
	EXPECT_EQ(GPAMAP_REGION_READONLY | GPAMAP_REGION_NONVOLATILE |
		  GPAMAP_REGION_UNMERGEABLE, ranges[0].flags);
	EXPECT_EQ(0x801, ranges[3].offset);
	EXPECT_EQ(-3, ranges[4].prio);
	EXPECT_EQ(0x100ff, ranges[4].last);
	free(ranges);
	EXPECT_EQ(-ENOENT, gpamap_query_ranges(self->map, 9, &ranges, &nr));
	ASSERT_EQ(0, gpamap_lookup(self->map, 1, 0x2004, &at));
	EXPECT_EQ(4, at.out_offset);
	EXPECT_EQ(-ENOENT, gpamap_lookup(self->map, 1, 0x4000, &at));

	/* Nothing is there for address space 0, and SMM sees the rom. */
	ASSERT_EQ(0, gpamap_attach(self->map, self->vm, 3, 5));
	ASSERT_EQ(0, gpamap_query_slots(self->map, &slots, &nr));
	ASSERT_EQ(1, nr);
	EXPECT_EQ(1 << 16 | 3, slots[0].slot);
	free(slots);
	ASSERT_EQ(0, gpamap_query_info(self->map, &info));
	EXPECT_EQ(1, info.used_slots);
	EXPECT_EQ(0, gpamap_detach(self->map));
	EXPECT_EQ(-ENOENT, gpamap_detach(self->map));

	gpamap_batch_reset(self->batch);
	for (nr = 2; nr <= 7; nr++)
		gpamap_batch_del(self->batch, nr);
	gpamap_batch_space_destroy(self->batch, 1);
	gpamap_batch_destroy(self->batch, 7);
	gpamap_batch_destroy(self->batch, 2);
	EXPECT_EQ(0, gpamap_apply(self->map, self->batch, NULL));
	EXPECT_EQ(77, errno);
	free(mem);
}

/* A plan and what was done are told alike; a plan changes nothing. */
TEST_F(lib, plan_apply_and_stats)
{
	void *mem = aligned_alloc(4096, 0x10000);
	struct gpamap_apply plan, done;
	struct gpamap_slot_info *slots;
	struct gpamap_stats stats;
	uint32_t nr, failed;

	ASSERT_EQ(0, gpamap_attach(self->map, self->vm, 0, 0));
	gpamap_batch_container(self->batch, 1, "root", UINT64_MAX);
	gpamap_batch_ram(self->batch, 2, "ram", 0xffff, mem);
	gpamap_batch_add(self->batch, 2, 1, 0, 0);
	gpamap_batch_memory_space(self->batch, 1, "memory", 1, 0);
	ASSERT_EQ(0, gpamap_plan(self->map, self->batch, &plan, &failed));
	EXPECT_EQ(GPAMAP_NO_OP, failed);
	EXPECT_EQ(0, plan.out_deletes);
	EXPECT_EQ(0, plan.out_moves);
	EXPECT_EQ(1, plan.out_creates);
	EXPECT_EQ(0, plan.out_plan);
	EXPECT_EQ(0, plan.out_taken);
	ASSERT_EQ(0, gpamap_query_slots(self->map, &slots, &nr));
	EXPECT_EQ(0, nr);
	free(slots);
	ASSERT_EQ(0, gpamap_apply(self->map, self->batch, NULL));

	/* A page in the middle: the RAM around it is taken away and brought back. */
	gpamap_batch_reset(self->batch);
	gpamap_batch_io(self->batch, 3, "io", 0xfff);
	gpamap_batch_add(self->batch, 3, 1, 0x8000, 1);
	ASSERT_EQ(0, gpamap_plan(self->map, self->batch, &plan, NULL));
	EXPECT_EQ(1, plan.out_deletes);
	EXPECT_EQ(2, plan.out_creates);
	EXPECT_EQ(GPAMAP_PLAN_HOLD, plan.out_plan);
	EXPECT_EQ(0xf000, plan.out_taken);
	ASSERT_EQ(0, gpamap_apply_out(self->map, self->batch, &done, &failed));
	EXPECT_EQ(GPAMAP_NO_OP, failed);
	EXPECT_EQ(1, done.out_deletes);
	EXPECT_EQ(0, done.out_moves);
	EXPECT_EQ(2, done.out_creates);
	EXPECT_EQ(GPAMAP_PLAN_HOLD, done.out_plan);
	EXPECT_EQ(0xf000, done.out_taken);
	EXPECT_LE(plan.out_generation, done.out_generation);

	/* Both name the operation to blame. */
	EXPECT_EQ(-EEXIST, gpamap_plan(self->map, self->batch, &plan, &failed));
	EXPECT_EQ(0, failed);
	gpamap_batch_reset(self->batch);
	gpamap_batch_set_enabled(self->batch, 3, false);
	gpamap_batch_del(self->batch, 9);
	EXPECT_EQ(-ENOENT, gpamap_plan(self->map, self->batch, &plan, &failed));
	EXPECT_EQ(1, failed);
	EXPECT_EQ(-ENOENT, gpamap_apply_out(self->map, self->batch, &done, &failed));
	EXPECT_EQ(1, failed);

	ASSERT_EQ(0, gpamap_query_stats(self->map, &stats));
	EXPECT_EQ(2, stats.commits);
	EXPECT_EQ(3, stats.creates);
	EXPECT_EQ(1, stats.deletes);
	EXPECT_EQ(0, stats.moves);
	EXPECT_EQ(0x10000, stats.deleted_bytes);
	EXPECT_EQ(0x10000, stats.largest_delete);
	EXPECT_EQ(0, stats.hold_failures);
	EXPECT_EQ(0, stats.rollbacks);
	EXPECT_EQ(0, gpamap_detach(self->map));
	free(mem);
}

TEST_F(lib, sentences_of_a_commit)
{
	EXPECT_STREQ("vCPUs could not be held, or the VM or the map is taken",
		     gpamap_op_error(NULL, -EBUSY));
	EXPECT_STREQ("the process is being killed", gpamap_op_error(NULL, -EINTR));
}

TEST_F(lib, the_first_error_of_a_batch_is_kept)
{
	char name[GPAMAP_NAME_LEN + 1];
	struct gpamap_apply plan;
	uint32_t failed = 1;

	memset(name, 'x', sizeof(name));
	name[GPAMAP_NAME_LEN] = '\0';
	EXPECT_EQ(-EINVAL, gpamap_batch_io(self->batch, 1, name, 0));
	EXPECT_EQ(0, gpamap_batch_io(self->batch, 1, name + 1, 0));
	EXPECT_EQ(-EINVAL, gpamap_apply(self->map, self->batch, &failed));
	EXPECT_EQ(GPAMAP_NO_OP, failed);
	EXPECT_EQ(-EINVAL, gpamap_plan(self->map, self->batch, &plan, &failed));
	EXPECT_EQ(GPAMAP_NO_OP, failed);
	gpamap_batch_reset(self->batch);
	EXPECT_EQ(0, gpamap_batch_io(self->batch, 1, name + 1, 0));
	EXPECT_EQ(0, gpamap_apply(self->map, self->batch, &failed));
	EXPECT_EQ(-EEXIST, gpamap_apply(self->map, self->batch, &failed));
	EXPECT_EQ(0, failed);
}

TEST_F(lib, from_fd_takes_maps_only)
{
	struct gpamap *map;
	int fd = dup(gpamap_fd(self->map));

	ASSERT_EQ(0, gpamap_from_fd(fd, &map));
	gpamap_close(map);
	EXPECT_EQ(-1, fcntl(fd, F_GETFD));
	fd = open("/dev/null", O_RDWR);
	EXPECT_EQ(-ENOTTY, gpamap_from_fd(fd, &map));
	EXPECT_EQ(0, close(fd));
	EXPECT_EQ(-EBADF, gpamap_from_fd(fd, &map));
	gpamap_close(NULL);
	gpamap_batch_free(NULL);
	gpamap_mapfile_close(NULL);
}

static const char *write_file(const char *text)
{
	static const char path[] = "/tmp/userlib_test.map";
	FILE *f = fopen(path, "w");

	fputs(text, f);
	fclose(f);
	return path;
}

TEST_F(lib, map_file_on_a_live_map)
{
	struct gpamap_mapfile *file;
	struct gpamap_lookup at;
	struct gpamap_slot_info *slots;
	uint32_t nr;

	ASSERT_EQ(0, gpamap_attach(self->map, self->vm, 0, 0));
	ASSERT_EQ(0, gpamap_mapfile_open(write_file(
		"region 1 container \"root\" last=0xffffffffffffffff\n"
		"region 2 ram \"ram\" last=0xffff\n"
		"region 3 romd \"flash\" last=0x1fff\n"
		"add 2 to 1 at=0 prio=0\n"
		"add 3 to 1 at=0x4000 prio=1\n"
		"space \"memory\" root=1 kind=memory\n"
		"space \"view\" root=2\n"
		"commit\n"
		"set 3 romd=0\n"
		"commit\n"
		"del 3\n"), &file));
	ASSERT_EQ(0, gpamap_mapfile_apply(file, self->map));
	/* What was not committed was not done. */
	ASSERT_EQ(0, gpamap_lookup(self->map, 1, 0x4000, &at));
	EXPECT_EQ(3, at.out_region);
	ASSERT_EQ(0, gpamap_lookup(self->map, 1, 0xfffe, &at));
	ASSERT_NE(0, at.out_hva);
	EXPECT_EQ(0, *(char *)at.out_hva);
	*(char *)at.out_hva = 1;
	ASSERT_EQ(0, gpamap_query_slots(self->map, &slots, &nr));
	EXPECT_EQ(2, nr);
	free(slots);
	EXPECT_EQ(0, gpamap_detach(self->map));
	gpamap_mapfile_close(file);
}

TEST_F(lib, map_file_commit_by_commit)
{
	struct gpamap_mapfile *file;

	ASSERT_EQ(0, gpamap_mapfile_open(write_file(
		"region 1 container \"root\" last=0xffff\n"
		"region 2 ram \"ram\" last=0xfff\n"
		"commit\n"
		"commit\n"
		"# blank\n"
		"add 2 to 1 at=0 prio=0\n"
		"add 2 to 1 at=0 prio=0\n"
		"commit\n"
		"del 2\n"), &file));
	/* What stood in the batch goes. */
	gpamap_batch_del(self->batch, 7);
	ASSERT_EQ(GPAMAP_MAPFILE_COMMIT, gpamap_mapfile_batch(file, self->batch));
	ASSERT_EQ(2, gpamap_batch_count(self->batch));
	EXPECT_EQ(3, gpamap_mapfile_line(file));
	EXPECT_NE(0, gpamap_batch_get(self->batch, 1)->hva);
	ASSERT_EQ(0, gpamap_apply(self->map, self->batch, NULL));
	ASSERT_EQ(GPAMAP_MAPFILE_COMMIT, gpamap_mapfile_batch(file, self->batch));
	EXPECT_EQ(0, gpamap_batch_count(self->batch));
	ASSERT_EQ(GPAMAP_MAPFILE_COMMIT, gpamap_mapfile_batch(file, self->batch));
	EXPECT_EQ(2, gpamap_batch_count(self->batch));

	/* An error is told for the line of its operation, or of the commit. */
	EXPECT_EQ(-EIO, gpamap_mapfile_blame(file, self->batch, GPAMAP_NO_OP, -EIO));
	EXPECT_EQ(8, gpamap_mapfile_line(file));
	EXPECT_STREQ("the map is broken or the VM belongs to another process",
		     gpamap_mapfile_error(file));
	EXPECT_EQ(-EBUSY, gpamap_mapfile_blame(file, self->batch, 1, -EBUSY));
	EXPECT_EQ(7, gpamap_mapfile_line(file));
	EXPECT_STREQ("the region is in a container already", gpamap_mapfile_error(file));

	/* What comes after the last commit is no batch. */
	EXPECT_EQ(GPAMAP_MAPFILE_END, gpamap_mapfile_batch(file, self->batch));
	EXPECT_EQ(0, gpamap_batch_count(self->batch));
	gpamap_mapfile_close(file);

	ASSERT_EQ(0, gpamap_mapfile_open(write_file("del 1\nnonsense\ncommit\n"), &file));
	EXPECT_EQ(-EINVAL, gpamap_mapfile_batch(file, self->batch));
	EXPECT_EQ(2, gpamap_mapfile_line(file));
	EXPECT_STREQ("unknown statement \"nonsense\"", gpamap_mapfile_error(file));
	EXPECT_EQ(0, gpamap_batch_count(self->batch));
	gpamap_mapfile_close(file);
}

TEST_F(lib, map_file_errors_name_the_line)
{
	static const struct {
		const char *text;
		int rc;
		unsigned int line;
		const char *sentence;
	} cases[] = {
		{ "region 1 io \"x\" last=1\n\ncommit\nadd 1 to 1 at=0 prio=0\ncommit\n",
		  -ELOOP, 4, "the region would hold itself, or lie too deep" },
		{ "region 1 io \"x\" last=1\ncommit\nnonsense\n",
		  -EINVAL, 3, "unknown statement \"nonsense\"" },
		{ "region 1 ram \"x\" last=0xffffffffffffffff\ncommit\n",
		  -ENOMEM, 1, "so much memory cannot be allocated" },
	};
	struct gpamap_mapfile *file;
	struct gpamap *map;
	size_t i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		ASSERT_EQ(0, gpamap_open(&map));
		ASSERT_EQ(0, gpamap_mapfile_open(write_file(cases[i].text), &file));
		EXPECT_EQ(cases[i].rc, gpamap_mapfile_apply(file, map));
		EXPECT_EQ(cases[i].line, gpamap_mapfile_line(file));
		EXPECT_STREQ(cases[i].sentence, gpamap_mapfile_error(file));
		gpamap_mapfile_close(file);
		gpamap_close(map);
	}
	EXPECT_EQ(-ENOENT, gpamap_mapfile_open("/nowhere", &file));
}

TEST_HARNESS_MAIN

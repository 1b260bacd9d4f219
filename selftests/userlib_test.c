// SPDX-License-Identifier: GPL-2.0
/*
 * libgpamap against the module: what it adds to the ioctls (errors that are kept, arrays
 * that fit, errno left alone), plans and statistics, ties one by one and in batches, news,
 * calls that may take no longer than told, and map files applied to a live map, in one go and
 * commit by commit.
 */
#include "harness.h"
#include <errno.h>
#include <fcntl.h>
#include <gpamap.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "guest.h"
#include "vcpu.h"

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
	int vcpu;

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
	/* The VM has no vCPUs. */
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
	EXPECT_EQ(0, plan.out_plan);
	EXPECT_EQ(0xf000, plan.out_taken);
	/* And now it has one. */
	vcpu = ioctl(self->vm, KVM_CREATE_VCPU, 0);
	ASSERT_LE(0, vcpu);
	ASSERT_EQ(0, gpamap_plan(self->map, self->batch, &plan, NULL));
	EXPECT_EQ(GPAMAP_PLAN_HOLD, plan.out_plan);
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
	close(vcpu);
	free(mem);
}

TEST_F(lib, sentences_of_a_commit)
{
	const struct gpamap_op op = { .code = GPAMAP_OP_SET };

	EXPECT_STREQ("vCPUs could not be held in time, or the VM or the map is taken",
		     gpamap_op_error(&op, -EBUSY));
	EXPECT_STREQ("the process is being killed", gpamap_op_error(NULL, -EINTR));
	/* Of what is not known nothing is said of regions or memslots. */
	EXPECT_STREQ("in use or taken, or vCPUs could not be held in time",
		     gpamap_op_error(NULL, -EBUSY));
	EXPECT_STREQ("what is named is not there", gpamap_op_error(NULL, -ENOENT));
	EXPECT_STREQ("it is there already, or something else is in the way",
		     gpamap_op_error(NULL, -EEXIST));
	EXPECT_STREQ(strerror(EFAULT), gpamap_op_error(NULL, -EFAULT));
}

/* Each call has its own, and what it says is so. */
TEST_F(lib, sentences_of_calls)
{
	static const int errs[] = {
		-ENOENT, -EACCES, -EBADF, -ENOTTY, -EINVAL, -EIO, -EBUSY, -EOPNOTSUPP, -ENOSPC,
		-EEXIST, -EMFILE, -EOVERFLOW,
	};
	struct gpamap_lookup found;
	struct gpamap_range_info *ranges;
	struct gpamap *other;
	uint32_t a, b, i, nr, own = 0;
	void *page;
	int rc;

	for (i = 0; i < sizeof(errs) / sizeof(errs[0]); i++) {
		for (a = GPAMAP_CALL_OPEN; a <= GPAMAP_CALL_RING_DRAIN; a++) {
			const char *sentence = gpamap_call_error(a, errs[i]);

			if (!strcmp(sentence, gpamap_op_error(NULL, errs[i])))
				continue;
			own++;
			for (b = a + 1; b <= GPAMAP_CALL_RING_DRAIN; b++)
				EXPECT_STRNE(sentence, gpamap_call_error(b, errs[i]));
			for (b = GPAMAP_OP_REGION; b <= GPAMAP_OP_UNTIE; b++)
				EXPECT_STRNE(sentence, gpamap_call_error(b, errs[i]));
		}
	}
	EXPECT_LT(30u, own);

#define EXPECT_SAYS(_sentence, _call, _rc)					\
	do {									\
		rc = (_rc);							\
		EXPECT_GT(0, rc);						\
		EXPECT_STREQ(_sentence, gpamap_call_error(_call, rc));		\
	} while (0)
	EXPECT_SAYS("the descriptor is not that of a map", GPAMAP_CALL_FROM_FD,
		    gpamap_from_fd(1, &other));
	EXPECT_SAYS("the descriptor of the map is not open", GPAMAP_CALL_FROM_FD,
		    gpamap_from_fd(-1, &other));
	EXPECT_SAYS("the descriptor of the VM is not open", GPAMAP_CALL_ATTACH,
		    gpamap_attach(self->map, -1, 0, 0));
	EXPECT_SAYS("no VM is attached to the map", GPAMAP_CALL_DETACH,
		    gpamap_detach(self->map));
	EXPECT_SAYS("there is no space with this id, or nothing is seen at the address",
		    GPAMAP_CALL_LOOKUP, gpamap_lookup(self->map, 1, 0, &found));
	EXPECT_SAYS("there is no space with this id to be told of", GPAMAP_CALL_QUERY,
		    gpamap_query_ranges(self->map, 1, &ranges, &nr));
	EXPECT_SAYS("there is no such region, or it has no registers to be mapped",
		    GPAMAP_CALL_REGISTERS_MAP, gpamap_registers_map(self->map, 1, &page));
	EXPECT_SAYS("there is no such region to give a policy", GPAMAP_OP_POLICY,
		    gpamap_policy_set(self->map, 1, GPAMAP_POLICY_TELL));
}

/* No two of the operations that tie say the same, whatever the error. */
TEST_F(lib, sentences_of_ties)
{
	static const int errs[] = { -ENOENT, -EEXIST, -EBUSY, -EOPNOTSUPP, -EINVAL, -ENOSPC };
	struct gpamap_op one = { .code = GPAMAP_OP_DOORBELL }, other;
	uint32_t i;

	for (; one.code <= GPAMAP_OP_UNTIE; one.code++) {
		for (i = 0; i < sizeof(errs) / sizeof(errs[0]); i++) {
			/* Nothing comes with UNTIE, and a policy takes the place of another. */
			if (errs[i] == -EEXIST ? one.code >= GPAMAP_OP_POLICY :
			    errs[i] == -ENOSPC && one.code == GPAMAP_OP_UNTIE)
				continue;
			other.code = one.code;
			while (++other.code <= GPAMAP_OP_UNTIE)
				EXPECT_STRNE(gpamap_op_error(&one, errs[i]),
					     gpamap_op_error(&other, errs[i]));
			EXPECT_STRNE(gpamap_op_error(NULL, errs[i]),
				     gpamap_op_error(&one, errs[i]));
		}
	}
	one.code = GPAMAP_OP_REGISTERS;
	EXPECT_STREQ("the array of registers cannot be read", gpamap_op_error(&one, -EFAULT));
}

/* ---- ties ---- */

enum { ROOT = 1, DEV, DEV2, HOLE, PORTS };
enum { MEMORY = 1 };

#define DEV_AT 0x10000000
#define DEV2_AT 0x20000000
#define HOLE_AT 0x30000000
#define RING 3

#define TIE_ALL									\
	(GPAMAP_TIE_DOORBELLS | GPAMAP_TIE_REGISTERS | GPAMAP_TIE_HANDLER |	\
	 GPAMAP_TIE_RING | GPAMAP_TIE_POLICY)

/* A VM with a vCPU whose map has regions to which nothing is tied, and a ring. */
FIXTURE(ties) {
	struct gpamap *map;
	struct gpamap_batch *batch;
	struct gpamap_ring_reader *ring;
	struct guest guest;
	int bells[2];
	unsigned int posted;
};

static void count_posted(void *arg, const struct gpamap_ring_entry *entry)
{
	(void)entry;
	++*(unsigned int *)arg;
}

FIXTURE_SETUP(ties)
{
	uint32_t i;

	for (i = 0; i < 2; i++) {
		self->bells[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		ASSERT_LE(0, self->bells[i]);
	}
	ASSERT_EQ(0, guest_create(&self->guest));
	ASSERT_EQ(0, gpamap_open(&self->map));
	ASSERT_EQ(0, gpamap_attach(self->map, self->guest.vm, 0, 32));
	ASSERT_EQ(0, gpamap_ring_open(self->map, RING, 16, 1, 0, self->bells[1], count_posted,
				      &self->posted, &self->ring));
	ASSERT_EQ(0, gpamap_batch_new(&self->batch));
	gpamap_batch_container(self->batch, ROOT, "root", UINT64_MAX);
	gpamap_batch_io(self->batch, DEV, "dev", 0xfff);
	gpamap_batch_add(self->batch, DEV, ROOT, DEV_AT, 0);
	gpamap_batch_reserved(self->batch, HOLE, "hole", 0xfff);
	gpamap_batch_add(self->batch, HOLE, ROOT, HOLE_AT, 0);
	gpamap_batch_space(self->batch, MEMORY, "memory", GPAMAP_SPACE_MEMORY, ROOT);
	ASSERT_EQ(0, gpamap_apply(self->map, self->batch, NULL));
	gpamap_batch_reset(self->batch);
}

FIXTURE_TEARDOWN(ties)
{
	gpamap_batch_free(self->batch);
	gpamap_close(self->map);
	guest_destroy(&self->guest);
	close(self->bells[0]);
	close(self->bells[1]);
}

static uint64_t rung(int bell)
{
	uint64_t n;

	return read(bell, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

#define EXPECT_WRITE_LEAVES(_gpa)						\
	EXPECT_EQ((int)GUEST_MMIO, (int)guest_write(&self->guest, _gpa, 4, 1).how)
#define EXPECT_WRITE_STAYS(_gpa)						\
	EXPECT_EQ((int)GUEST_RAM, (int)guest_write(&self->guest, _gpa, 4, 1).how)

/* One after the other, at once; each is done when the function returns. */
TEST_F(ties, one_by_one)
{
	const struct gpamap_register reg = { 8, 4, GPAMAP_REGISTER_READWRITE, 0x55 };
	struct gpamap *map = self->map;
	char name[GPAMAP_NAME_LEN + 1];
	void *page;

	errno = 77;
	EXPECT_WRITE_LEAVES(DEV_AT);
	EXPECT_EQ(0, gpamap_doorbell_add(map, DEV, 0, 4, self->bells[0]));
	EXPECT_EQ(-EEXIST, gpamap_doorbell_add(map, DEV, 0, 4, self->bells[0]));
	EXPECT_EQ(0, gpamap_doorbell_add_match(map, DEV, 4, 4, 1, self->bells[0]));
	EXPECT_WRITE_STAYS(DEV_AT);
	EXPECT_WRITE_STAYS(DEV_AT + 4);
	EXPECT_EQ(2, rung(self->bells[0]));
	EXPECT_EQ(0, gpamap_doorbell_remove(map, DEV, 0, 4, self->bells[0]));
	EXPECT_WRITE_LEAVES(DEV_AT);
	EXPECT_EQ(-ENOENT, gpamap_doorbell_remove_match(map, DEV, 4, 4, 2, self->bells[0]));
	EXPECT_EQ(0, gpamap_doorbell_remove_match(map, DEV, 4, 4, 1, self->bells[0]));
	EXPECT_EQ(-EBADF, gpamap_doorbell_add(map, DEV, 0, 4, -1));

	EXPECT_EQ(0, gpamap_registers_set(map, DEV, &reg, 1));
	ASSERT_EQ(0, gpamap_registers_map(map, DEV, &page));
	EXPECT_EQ(0x55, ((volatile uint32_t *)page)[2]);
	EXPECT_WRITE_STAYS(DEV_AT + 8);
	EXPECT_EQ(1, ((volatile uint32_t *)page)[2]);
	gpamap_registers_unmap(map, page);
	EXPECT_EQ(0, gpamap_registers_remove(map, DEV));
	EXPECT_EQ(-ENOENT, gpamap_registers_remove(map, DEV));

	EXPECT_EQ(0, gpamap_handler_set(map, DEV, "test-quiet", 0));
	EXPECT_WRITE_STAYS(DEV_AT);
	EXPECT_EQ(-EBUSY, gpamap_post_add(map, DEV, RING));
	EXPECT_EQ(0, gpamap_handler_remove(map, DEV));
	memset(name, 'x', sizeof(name));
	name[GPAMAP_NAME_LEN] = '\0';
	EXPECT_EQ(-EINVAL, gpamap_handler_set(map, DEV, name, 0));
	EXPECT_EQ(-ENOENT, gpamap_handler_set(map, DEV, name + 1, 0));

	/* Tying drains nothing. */
	EXPECT_EQ(0, gpamap_post_add(map, DEV, RING));
	EXPECT_WRITE_STAYS(DEV_AT);
	EXPECT_EQ(0, gpamap_post_remove(map, DEV));
	EXPECT_EQ(0, self->posted);
	EXPECT_EQ(1, gpamap_drain(map));
	EXPECT_EQ(1, self->posted);

	EXPECT_EQ(0, gpamap_policy_set(map, HOLE, GPAMAP_POLICY_ONES));
	EXPECT_WRITE_STAYS(HOLE_AT);
	EXPECT_EQ(0, gpamap_policy_set(map, HOLE, GPAMAP_POLICY_NONE));
	EXPECT_WRITE_LEAVES(HOLE_AT);
	EXPECT_EQ(77, errno);
}

/* Every operation, all of them in one batch; and what it took, in another. */
TEST_F(ties, in_batches)
{
	const struct gpamap_register reg = { 8, 4, GPAMAP_REGISTER_READWRITE, 0x55 };
	struct gpamap_batch *batch = self->batch;
	struct gpamap *map = self->map;
	uint32_t failed;

	gpamap_batch_io(batch, DEV2, "dev2", 0xfff);
	gpamap_batch_add(batch, DEV2, ROOT, DEV2_AT, 0);
	EXPECT_EQ(0, gpamap_batch_doorbell(batch, DEV, 0, 4, self->bells[0]));
	EXPECT_EQ(0, gpamap_batch_doorbell_match(batch, DEV, 4, 4, 1, self->bells[0]));
	EXPECT_EQ(0, gpamap_batch_registers(batch, DEV, &reg, 1));
	EXPECT_EQ(0, gpamap_batch_post(batch, DEV, RING));
	EXPECT_EQ(0, gpamap_batch_handler(batch, DEV2, "test-quiet", 0));
	EXPECT_EQ(0, gpamap_batch_policy(batch, HOLE, GPAMAP_POLICY_ZEROES));
	EXPECT_EQ(8, gpamap_batch_count(batch));
	EXPECT_WRITE_LEAVES(DEV2_AT);
	ASSERT_EQ(0, gpamap_apply(map, batch, &failed));
	EXPECT_EQ(GPAMAP_NO_OP, failed);
	EXPECT_WRITE_STAYS(DEV_AT);
	EXPECT_WRITE_STAYS(DEV_AT + 4);
	EXPECT_EQ(2, rung(self->bells[0]));
	EXPECT_WRITE_STAYS(DEV_AT + 8);
	EXPECT_EQ(0, self->posted);
	EXPECT_WRITE_STAYS(DEV_AT + 0x10);
	EXPECT_WRITE_STAYS(DEV2_AT);
	EXPECT_WRITE_STAYS(HOLE_AT);

	/* Half of it cannot be: all stays. */
	gpamap_batch_reset(batch);
	gpamap_batch_doorbell_remove(batch, DEV, 0, 4, self->bells[0]);
	gpamap_batch_doorbell_remove(batch, DEV, 0, 4, self->bells[0]);
	EXPECT_EQ(-ENOENT, gpamap_apply(map, batch, &failed));
	EXPECT_EQ(1, failed);
	EXPECT_EQ(1, self->posted);
	EXPECT_STREQ("there is no such region, or no such doorbell",
		     gpamap_op_error(gpamap_batch_get(batch, failed), -ENOENT));
	EXPECT_WRITE_STAYS(DEV_AT);
	EXPECT_EQ(1, rung(self->bells[0]));

	gpamap_batch_reset(batch);
	gpamap_batch_doorbell_remove(batch, DEV, 0, 4, self->bells[0]);
	gpamap_batch_doorbell_remove_match(batch, DEV, 4, 4, 1, self->bells[0]);
	gpamap_batch_registers_remove(batch, DEV);
	gpamap_batch_post_remove(batch, DEV);
	gpamap_batch_handler_remove(batch, DEV2);
	gpamap_batch_policy(batch, HOLE, GPAMAP_POLICY_NONE);
	gpamap_batch_del(batch, DEV2);
	gpamap_batch_destroy(batch, DEV2);
	ASSERT_EQ(0, gpamap_apply(map, batch, &failed));
	EXPECT_WRITE_LEAVES(DEV_AT);
	EXPECT_WRITE_LEAVES(DEV_AT + 4);
	EXPECT_WRITE_LEAVES(DEV_AT + 8);
	EXPECT_WRITE_LEAVES(DEV2_AT);
	EXPECT_WRITE_LEAVES(HOLE_AT);
	EXPECT_EQ(0, rung(self->bells[0]));
	EXPECT_EQ(0, gpamap_ring_close(self->ring));
}

/* A region with all that it is to have, a hundred times anew in one commit. */
TEST_F(ties, made_with_a_region)
{
	const struct gpamap_register reg = { 8, 4, GPAMAP_REGISTER_CONSTANT, 0x55 };
	const struct gpamap_ties_doorbell bells[] = {
		{ .offset = 0, .len = 4, .fd = self->bells[0] },
		{ .offset = 4, .len = 4, .fd = self->bells[0], .value = 1,
		  .flags = GPAMAP_DOORBELL_MATCH },
	};
	GPAMAP_TIES(ties, .doorbells = bells, .nr_doorbells = 2, .registers = &reg,
		    .nr_registers = 1, .handler = "test-quiet",
		    .policy = GPAMAP_POLICY_TELL);
	GPAMAP_TIES(none);
	GPAMAP_TIES(ones, .policy = GPAMAP_POLICY_ONES);
	struct gpamap_batch *batch = self->batch;
	struct gpamap *map = self->map;
	uint32_t failed, i;

	gpamap_batch_ties(batch, HOLE, &ones);
	gpamap_batch_ties(batch, DEV, &none);
	EXPECT_EQ(1, gpamap_batch_count(batch));
	EXPECT_EQ(0, gpamap_batch_io_tied(batch, DEV2, "dev2", 0xfff, &ties));
	EXPECT_EQ(1 + 6, gpamap_batch_count(batch));
	gpamap_batch_add(batch, DEV2, ROOT, DEV2_AT, 0);
	/* It was copied, but for the registers. */
	memset(&ties, 0xff, sizeof(ties));
	ASSERT_EQ(0, gpamap_apply(map, batch, &failed));
	EXPECT_WRITE_STAYS(DEV2_AT);
	EXPECT_WRITE_STAYS(DEV2_AT + 4);
	EXPECT_EQ(2, rung(self->bells[0]));
	EXPECT_EQ(0x55, guest_read(&self->guest, DEV2_AT + 8, 4).value);
	EXPECT_WRITE_STAYS(DEV2_AT + 0x10);
	EXPECT_WRITE_STAYS(HOLE_AT);

	/* Nobody sees that it was away. */
	gpamap_batch_reset(batch);
	ties = (struct gpamap_ties){
		.sz = sizeof(ties), .doorbells = bells, .nr_doorbells = 2,
		.ring = RING,
	};
	for (i = 0; i < 100; i++) {
		gpamap_batch_untie(batch, DEV2, TIE_ALL);
		gpamap_batch_del(batch, DEV2);
		gpamap_batch_destroy(batch, DEV2);
		gpamap_batch_io_tied(batch, DEV2, "dev2", 0xfff, &ties);
		gpamap_batch_add(batch, DEV2, ROOT, DEV2_AT, 0);
	}
	ASSERT_EQ(0, gpamap_apply(map, batch, &failed));
	EXPECT_WRITE_STAYS(DEV2_AT);
	EXPECT_EQ(1, rung(self->bells[0]));
	EXPECT_WRITE_STAYS(DEV2_AT + 8);
	EXPECT_EQ(1, gpamap_drain(map));
}

/* Callers of other versions. */
TEST_F(ties, size_of_the_options)
{
	struct {
		struct gpamap_ties ties;
		uint64_t more;
	} later = { .ties = { .sz = sizeof(later), .policy = GPAMAP_POLICY_TELL } };
	struct gpamap_ties_doorbell bell = { .len = 4, .fd = self->bells[0], .__reserved = 1 };
	struct gpamap_batch *batch = self->batch;
	uint32_t failed;

	GPAMAP_TIES(bad, .policy = GPAMAP_POLICY_TELL, .doorbells = &bell, .nr_doorbells = 1);

	EXPECT_EQ(0, gpamap_batch_ties(batch, DEV, &later.ties));
	EXPECT_EQ(1, gpamap_batch_count(batch));
	EXPECT_EQ(0, gpamap_apply(self->map, batch, &failed));
	later.more = 1ULL << 63;
	EXPECT_EQ(-E2BIG, gpamap_batch_ties(batch, DEV, &later.ties));
	EXPECT_EQ(-E2BIG, gpamap_batch_io_tied(batch, DEV2, NULL, 0, &later.ties));
	/* Nothing of it was added, and the error was kept. */
	EXPECT_EQ(1, gpamap_batch_count(batch));
	EXPECT_EQ(-E2BIG, gpamap_apply(self->map, batch, &failed));
	EXPECT_EQ(GPAMAP_NO_OP, failed);

	gpamap_batch_reset(batch);
	later.ties.sz = 8;
	EXPECT_EQ(-EINVAL, gpamap_batch_ties(batch, DEV, &later.ties));
	EXPECT_EQ(-EINVAL, gpamap_apply(self->map, batch, &failed));
	gpamap_batch_reset(batch);
	EXPECT_EQ(-EINVAL, gpamap_batch_ties(batch, DEV, &bad));
	EXPECT_EQ(0, gpamap_batch_count(batch));
}

TEST_F(ties, untied_at_once)
{
	struct gpamap_batch *batch = self->batch;
	struct gpamap *map = self->map;
	uint32_t failed, i;

	EXPECT_EQ(0, gpamap_doorbells_clear(map, DEV));
	for (i = 0; i < 16; i++)
		gpamap_batch_doorbell(batch, DEV, 4 * i, 4, self->bells[i & 1]);
	gpamap_batch_policy(batch, DEV, GPAMAP_POLICY_TELL);
	ASSERT_EQ(0, gpamap_apply(map, batch, &failed));
	EXPECT_WRITE_STAYS(DEV_AT + 60);
	EXPECT_EQ(1, rung(self->bells[1]));
	EXPECT_EQ(0, gpamap_doorbells_clear(map, DEV));
	for (i = 0; i < 16; i++)
		EXPECT_WRITE_LEAVES(DEV_AT + 4 * i);
	EXPECT_EQ(0, rung(self->bells[0]));
	EXPECT_EQ(-ENOENT, gpamap_doorbells_clear(map, 77));

	/* The policy is still there. */
	gpamap_batch_reset(batch);
	gpamap_batch_del(batch, DEV);
	gpamap_batch_destroy(batch, DEV);
	EXPECT_EQ(-EBUSY, gpamap_apply(map, batch, &failed));
	EXPECT_EQ(1, failed);
	gpamap_batch_reset(batch);
	gpamap_batch_untie(batch, DEV, GPAMAP_TIE_POLICY);
	gpamap_batch_del(batch, DEV);
	gpamap_batch_destroy(batch, DEV);
	EXPECT_EQ(0, gpamap_apply(map, batch, &failed));
}

/* ---- news ---- */

static int readable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) < 0 ? -errno : p.revents;
}

/* Each listener has what it has not read itself, whoever asks or reads elsewhere. */
TEST_F(ties, news)
{
	struct gpamap *map = self->map;
	uint64_t generation, other;
	struct gpamap_info info;
	int one, two, i;
	char small[4];

	errno = 77;
	ASSERT_EQ(0, gpamap_watch(map, &one));
	ASSERT_EQ(0, gpamap_watch(map, &two));
	EXPECT_EQ(FD_CLOEXEC, fcntl(one, F_GETFD));
	/* In the beginning all is new. */
	EXPECT_EQ(POLLIN, readable(one));
	ASSERT_EQ(0, gpamap_query_info(map, &info));
	EXPECT_EQ(POLLIN, readable(one));
	ASSERT_EQ(0, gpamap_watch_read(one, &generation));
	EXPECT_EQ(info.generation, generation);
	EXPECT_EQ(0, readable(one));
	EXPECT_EQ(POLLIN, readable(two));
	EXPECT_EQ(POLLIN, readable(gpamap_fd(map)));
	ASSERT_EQ(0, gpamap_watch_read(gpamap_fd(map), NULL));
	EXPECT_EQ(0, readable(gpamap_fd(map)));
	EXPECT_EQ(POLLIN, readable(two));

	/* Two commits are one news. */
	gpamap_batch_set_at(self->batch, DEV, DEV2_AT);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, gpamap_apply(map, self->batch, NULL));
		gpamap_batch_reset(self->batch);
		gpamap_batch_set_at(self->batch, DEV, DEV_AT);
	}
	EXPECT_EQ(POLLIN, readable(one));
	EXPECT_EQ(POLLIN, readable(gpamap_fd(map)));
	ASSERT_EQ(0, gpamap_watch_read(one, &other));
	EXPECT_EQ(generation + 2, other);
	ASSERT_EQ(0, gpamap_watch_read(two, &other));
	EXPECT_EQ(generation + 2, other);
	ASSERT_EQ(0, fcntl(two, F_SETFL, O_NONBLOCK));
	EXPECT_EQ(-EAGAIN, gpamap_watch_read(two, &other));
	EXPECT_EQ(77, errno);
	EXPECT_EQ(-1, read(two, small, sizeof(small)));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(POLLIN, readable(gpamap_fd(map)));

	/* What changes no view is no news. */
	ASSERT_EQ(0, gpamap_apply(map, self->batch, NULL));
	ASSERT_EQ(0, gpamap_doorbell_add(map, DEV, 0, 4, self->bells[0]));
	EXPECT_EQ(0, readable(one));

	/* A watch does not keep the map, but what it has not told. */
	gpamap_batch_reset(self->batch);
	gpamap_batch_set_at(self->batch, DEV, DEV2_AT);
	ASSERT_EQ(0, gpamap_apply(map, self->batch, NULL));
	gpamap_close(map);
	EXPECT_TRUE(readable(one) & POLLHUP);
	ASSERT_EQ(0, gpamap_watch_read(one, &other));
	EXPECT_EQ(generation + 3, other);
	EXPECT_EQ(-ENOENT, gpamap_watch_read(one, &other));
	EXPECT_TRUE(readable(one) & POLLHUP);
	EXPECT_EQ(-EBADF, gpamap_watch_read(-1, &other));
	close(one);
	close(two);
	ASSERT_EQ(0, gpamap_open(&self->map));
}

static void *wait_for_news(void *arg)
{
	static uint64_t generation;
	int *fd = arg;

	return gpamap_watch_read(*fd, &generation) ? NULL : &generation;
}

TEST_F(ties, news_wakes_a_reader)
{
	uint64_t *told, generation;
	pthread_t thread;
	int fd;

	ASSERT_EQ(0, gpamap_watch(self->map, &fd));
	ASSERT_EQ(0, gpamap_watch_read(fd, &generation));
	ASSERT_EQ(0, pthread_create(&thread, NULL, wait_for_news, &fd));
	usleep(100000);
	gpamap_batch_set_enabled(self->batch, DEV, false);
	ASSERT_EQ(0, gpamap_apply(self->map, self->batch, NULL));
	ASSERT_EQ(0, pthread_join(thread, (void **)&told));
	ASSERT_NE(NULL, told);
	EXPECT_EQ(generation + 1, *told);
	close(fd);
}

/* ---- time ---- */

#define LAZY 9
#define LAZY_AT 0x40000000
#define SHORT_MS 200

/* A page that is there when its fault is resolved, and not before. */
static void *lazy_page(int uffd)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_api api = { .api = UFFD_API };
	void *page;

	page = mmap(NULL, 0x1000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = (uintptr_t)page;
	reg.range.len = 0x1000;
	if (page == MAP_FAILED || ioctl(uffd, UFFDIO_API, &api) ||
	    ioctl(uffd, UFFDIO_REGISTER, &reg))
		return NULL;
	return page;
}

/* While a vCPU cannot be held, no call takes longer than told, and none does anything. */
TEST_F(ties, timeout)
{
	struct uffdio_zeropage zero = { .range = { .len = 0x1000 } };
	struct gpamap *map = self->map;
	struct vcpu vcpu;
	struct uffd_msg msg;
	uint64_t since;
	void *page;
	int uffd;

	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0)
		SKIP(return, "this kernel has no userfaultfd");
	page = lazy_page(uffd);
	ASSERT_NE(NULL, page);
	gpamap_batch_ram(self->batch, LAZY, "lazy", 0xfff, page);
	gpamap_batch_add(self->batch, LAZY, ROOT, LAZY_AT, 0);
	ASSERT_EQ(0, gpamap_apply(map, self->batch, NULL));
	vcpu_first(&vcpu, &self->guest);
	ASSERT_EQ(0, vcpu_start(&vcpu, GUEST_COUNT, LAZY_AT, 0, 0));
	wait_until(read(uffd, &msg, sizeof(msg)) == sizeof(msg));

	gpamap_set_timeout(map, SHORT_MS);
#define EXPECT_TIMES_OUT(_call)							\
	do {									\
		since = now_ms();						\
		EXPECT_EQ(-EBUSY, _call);					\
		EXPECT_GT(SHORT_MS + 1000 * env_number("PATIENCE", 1), now_ms() - since); \
	} while (0)
	EXPECT_TIMES_OUT(gpamap_doorbell_add(map, DEV, 0, 4, self->bells[0]));
	EXPECT_TIMES_OUT(gpamap_policy_set(map, HOLE, GPAMAP_POLICY_ONES));
	EXPECT_TIMES_OUT(gpamap_handler_set(map, DEV, "test-quiet", 0));
	EXPECT_TIMES_OUT(gpamap_post_add(map, DEV, RING));
	gpamap_batch_reset(self->batch);
	gpamap_batch_del(self->batch, LAZY);
	EXPECT_TIMES_OUT(gpamap_apply(map, self->batch, NULL));
	EXPECT_TIMES_OUT(gpamap_detach(map));

	zero.range.start = (uintptr_t)page;
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_ZEROPAGE, &zero));
	gpamap_set_timeout(map, 0);
	EXPECT_EQ(0, gpamap_doorbell_add(map, DEV, 0, 4, self->bells[0]));
	EXPECT_EQ(0, gpamap_doorbells_clear(map, DEV));
	EXPECT_EQ(0, vcpu_stop(&vcpu)) TH_LOG("%s", vcpu_text(&vcpu));
	EXPECT_EQ(0, gpamap_detach(map));
	close(uffd);
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

/* An operation of the batch's own is appended again while its array grows, and errno stays. */
TEST_F(lib, batch_copies_its_own)
{
	const struct gpamap_op first = { .code = GPAMAP_OP_DEL, .id = 77 };
	uint32_t i;

	errno = 4711;
	ASSERT_EQ(0, gpamap_batch_op(self->batch, &first));
	for (i = 0; i < 1000; i++) {
		const struct gpamap_op *op = gpamap_batch_get(self->batch, i);

		ASSERT_NE(NULL, op);
		ASSERT_EQ(0, gpamap_batch_op(self->batch, op));
	}
	for (i = 0; i <= 1000; i++)
		ASSERT_EQ(0, memcmp(&first, gpamap_batch_get(self->batch, i), sizeof(first)));
	EXPECT_EQ(4711, errno);
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
		{ "region 1 io \"x\" last=1\nspace \"s\" root=1\ncommit\n"
		  "add 1 to 1 at=0 prio=0\ncommit\n",
		  -ELOOP, 4, "a view would have no end, or lie too deep" },
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

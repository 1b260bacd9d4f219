// SPDX-License-Identifier: GPL-2.0
/*
 * Huge pages: what the guest can have mapped as one page is not cut by memslots, and what was cut
 * for something that came and went is joined again. KVM tells by its counter pages_2m.
 */
#include "harness.h"
#include <fcntl.h>
#include <gpamap.h>
#include <linux/kvm.h>
#include <sys/mman.h>
#include "gpamap_util.h"
#include "guest.h"

#define PAGE TEST_PAGE
#define HUGE 0x200000ULL
#define NR 8
#define LEN (NR * HUGE)
#define GPA 0x40000000ULL

enum { ROOT = 1, MEM, ROM, BOX, NEW = 100 };
enum { SPACE = 1 };

FIXTURE(huge) {
	int fd;
	struct guest guest;
	char *mem;			/* LEN bytes, on a border, in huge pages */
	char *rom;			/* as many pages */
};

static char *map_aligned(u64 len)
{
	char *p = mmap(NULL, len + HUGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL :
		(char *)(((uintptr_t)p + HUGE - 1) & ~(uintptr_t)(HUGE - 1));
}

FIXTURE_SETUP(huge)
{
	ASSERT_EQ(0, guest_create(&self->guest));
	self->mem = map_aligned(LEN);
	self->rom = map_aligned(NR * PAGE);
	ASSERT_NE(NULL, self->mem);
	ASSERT_NE(NULL, self->rom);
	madvise(self->mem, LEN, MADV_HUGEPAGE);
	memset(self->mem, 1, LEN);
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_apply(self->fd, op_container(ROOT, U64_MAX), op_ram(MEM, LEN - 1, self->mem),
		       op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	/* The guest's own slot is before them. */
	test_cmd_attach(self->fd, self->guest.vm, GUEST_SLOT + 1, 0);
}

FIXTURE_TEARDOWN(huge)
{
	close(self->fd);
	guest_destroy(&self->guest);
}

#define apply(...) test_cmd_apply(self->fd, __VA_ARGS__)

static struct gpamap_op op_tidy(void)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_TIDY };
}

/* What KVM has mapped of MEM as huge pages when the guest has touched all of it; -errno. */
static long pages_2m(struct guest *guest)
{
	char path[128], text[32] = "";
	u64 at;
	int fd;

	for (at = GPA; at < GPA + LEN; at += HUGE)
		guest_write(guest, at + 0x1f0000, 8, 1);
	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%d-%d/pages_2m", getpid(), guest->vm);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (read(fd, text, sizeof(text) - 1) <= 0)
		text[0] = 0;
	close(fd);
	return strtol(text, NULL, 10);
}

#define EXPECT_HUGE(_pages, _slots)						\
	do {									\
		EXPECT_EQ((long)(_pages), pages_2m(&self->guest));		\
		EXPECT_EQ((u32)(_slots), query_info(self->fd).used_slots);	\
	} while (0)

#define EXPECT_OPERATIONS(_deletes, _creates, _op)				\
	do {									\
		struct gpamap_op __op = _op;					\
		struct gpamap_apply __out;					\
		ASSERT_EQ(0, _test_cmd_plan(self->fd, 0, &__op, 1, &__out));	\
		EXPECT_EQ((u64)(_deletes), __out.out_deletes);			\
		EXPECT_EQ((u64)(_creates), __out.out_creates);			\
		EXPECT_EQ(0u, __out.out_moves);					\
	} while (0)

TEST_F(huge, an_overlay_came_and_went)
{
	u32 i;

	apply(op_rom(ROM, PAGE - 1, self->rom), op_add(MEM, ROOT, GPA, 0));
	EXPECT_HUGE(NR, 1);
	for (i = 0; i < NR; i++) {
		EXPECT_OPERATIONS(1, 3, op_add(ROM, ROOT, GPA + i * HUGE + 0x80000, 1));
		EXPECT_HUGE(NR - 1, 3);
		EXPECT_OPERATIONS(3, 1, op_del(ROM));
		EXPECT_HUGE(NR, 1);
	}
	/* Several in one page: only when the last is gone it is one again. */
	apply(op_add(ROM, ROOT, GPA + 0x80000, 1), op_rom(NEW, PAGE - 1, self->rom + PAGE),
	      op_add(NEW, ROOT, GPA + 0x180000, 1));
	EXPECT_HUGE(NR - 1, 5);
	apply(op_del(ROM));
	EXPECT_HUGE(NR - 1, 5);
	apply(op_del(NEW));
	EXPECT_HUGE(NR, 1);
	/* It begins and ends on borders: there is nothing to be won, and nothing done for it. */
	apply(op_io(NEW + 1, HUGE - 1), op_add(NEW + 1, ROOT, GPA + HUGE, 1));
	EXPECT_HUGE(NR - 1, 2);
	EXPECT_OPERATIONS(0, 1, op_del(NEW + 1));
	EXPECT_HUGE(NR, 3);
	EXPECT_OPERATIONS(3, 1, op_tidy());
	EXPECT_HUGE(NR, 1);
}

/* What is only hidden may come again: it stays cut there, until the VMM says otherwise. */
TEST_F(huge, an_overlay_is_disabled)
{
	u32 i;

	apply(op_add(MEM, ROOT, GPA, 0));
	for (i = 0; i < NR; i++)
		apply(op_rom(NEW + i, PAGE - 1, self->rom + i * PAGE),
		      op_add(NEW + i, ROOT, GPA + i * HUGE + 0x80000, 1));
	EXPECT_HUGE(0, 2 * NR + 1);
	for (i = 0; i < NR; i++)
		EXPECT_OPERATIONS(1, 1, op_enable(NEW + i, false));
	for (i = 0; i < NR; i++)
		EXPECT_OPERATIONS(1, 1, op_enable(NEW + i, true));
	for (i = 0; i < NR; i++)
		EXPECT_OPERATIONS(1, 1, op_enable(NEW + i, false));
	EXPECT_HUGE(0, 2 * NR + 1);
	/* Cut ahead, but on the borders. */
	EXPECT_OPERATIONS(2 * NR + 1, NR, op_tidy());
	EXPECT_HUGE(NR, NR);
	EXPECT_OPERATIONS(0, 0, op_tidy());
	EXPECT_OPERATIONS(1, 3, op_enable(NEW + 3, true));
	EXPECT_HUGE(NR - 1, NR + 2);
	/* Gone for good. */
	for (i = 0; i < NR; i++)
		apply(op_del(NEW + i));
	EXPECT_HUGE(NR, NR);
	apply(op_tidy());
	EXPECT_HUGE(NR, 1);
}

/* Disabled from the beginning, and with a hint: no cut takes a huge page. */
TEST_F(huge, what_is_never_shown)
{
	u32 i;

	for (i = 0; i < 4; i++)
		apply(op_flags(op_rom(NEW + i, PAGE - 1, self->rom + i * PAGE),
			       GPAMAP_REGION_DISABLED),
		      op_add(NEW + i, ROOT, GPA + 2 * i * HUGE + 0x80000, 1));
	apply(op_flags(op_container(BOX, HUGE / 2 - 1),
		       GPAMAP_REGION_CUT_AHEAD | GPAMAP_REGION_DISABLED),
	      op_add(BOX, ROOT, GPA + LEN / 2 + HUGE / 2, 1));
	apply(op_add(MEM, ROOT, GPA, 0));
	EXPECT_EQ((long)NR, pages_2m(&self->guest));
	/* Where it is in no huge page it is cut where it is. */
	apply(op_del(MEM));
	apply(op_add(MEM, ROOT, GPA + PAGE, 0));
	EXPECT_EQ(0, pages_2m(&self->guest));
	EXPECT_OPERATIONS(1, 1, op_enable(NEW + 1, true));
}

/* Each commit that fails leaves slots as they were. */
TEST_F(huge, tidy_is_an_operation)
{
	struct gpamap_op bad = op_tidy();

	apply(op_add(MEM, ROOT, GPA, 0), op_rom(ROM, PAGE - 1, self->rom),
	      op_add(ROM, ROOT, GPA + HUGE, 1));
	apply(op_del(ROM));
	bad.id = MEM;
	test_err_apply(EINVAL, 0, self->fd, bad);
	bad = op_tidy();
	bad.last = 1;
	test_err_apply(EINVAL, 0, self->fd, bad);
	test_err_apply(ENOENT, 1, self->fd, op_tidy(), op_del(ROM));
	ASSERT_EQ(0, module_param_set("fail_nth", 2));
	test_err_apply_ops(ENOMEM, GPAMAP_NO_OP, self->fd, &(struct gpamap_op){
			   .code = GPAMAP_OP_TIDY }, 1);
	ASSERT_EQ(0, module_param_set("fail_nth", 0));
	/* With others in a batch, and without a VM. */
	apply(op_tidy(), op_add(ROM, ROOT, GPA + HUGE + 0x3000, 1), op_tidy());
	EXPECT_EQ(3u, query_info(self->fd).used_slots);
	apply(op_del(ROM), op_tidy());
	EXPECT_HUGE(NR, 1);
	test_cmd_detach(self->fd);
	apply(op_tidy());
}

static u32 larger(u32 a, u32 b)
{
	return a > b ? a : b;
}

/* Memory that grows by 2 MiB in any order (virtio-mem) ends as few slots, and shrinks again. */
TEST_F_TIMEOUT(huge, scattered_plugs, 300)
{
	const u32 nr = 4096;
	struct gpamap_stats before, after;
	u32 i, j, *order = calloc(nr, sizeof(*order)), most = 0;
	struct rnd rnd;
	char *mem;

	ASSERT_NE(NULL, order);
	mem = map_aligned(nr * HUGE);
	ASSERT_NE(NULL, mem);
	rnd_seed(&rnd, test_seed());
	apply(op_ram(NEW, nr * HUGE - 1, mem));
	for (i = 0; i < nr; i++) {
		j = rnd_below(&rnd, i + 1);
		order[i] = order[j];
		order[j] = i;
	}
	before = query_stats(self->fd);
	for (i = 0; i < nr; i++) {
		apply(op_alias(NEW + 1 + i, NEW, order[i] * HUGE, HUGE - 1),
		      op_add(NEW + 1 + i, ROOT, (1ULL << 36) + order[i] * HUGE, 0));
		most = larger(most, query_info(self->fd).used_slots);
	}
	after = query_stats(self->fd);
	TH_LOG("%u slots at the end, %u at most, %llu deletes in %u commits",
	       query_info(self->fd).used_slots, most,
	       (unsigned long long)(after.deletes - before.deletes), nr);
	EXPECT_GE(17u, query_info(self->fd).used_slots);
	EXPECT_GE((u64)nr, after.deletes - before.deletes);
	EXPECT_GE(2ULL * nr, after.creates - before.creates);
	apply(op_tidy());
	EXPECT_EQ(1u, query_info(self->fd).used_slots);
	/* In order: never more than that. */
	for (i = 0; i < nr; i++)
		apply(op_del(NEW + 1 + i));
	EXPECT_EQ(0u, query_info(self->fd).used_slots);
	for (i = 0, most = 0; i < 256; i++) {
		apply(op_add(NEW + 1 + i, ROOT, (1ULL << 37) + i * HUGE, 0),
		      op_offset(NEW + 1 + i, i * HUGE));
		most = larger(most, query_info(self->fd).used_slots);
	}
	EXPECT_GE(17u, most);
	free(order);
}

/* Memory that the library finds for a map file begins where a huge page does. */
TEST(memory_of_a_map_file)
{
	static const char text[] = "region 10 ram \"a\" last=0xffffff\n"
		"region 11 ram \"b\" last=0xfff\nregion 12 ram \"c\" last=0x3fffffff\n"
		"region 13 rom \"d\" last=0x1fffff\ncommit\n";
	struct gpamap_mapfile *file;
	struct gpamap_batch *batch;
	FILE *f = fopen("/tmp/huge.map", "w");

	ASSERT_NE(NULL, f);
	fputs(text, f);
	fclose(f);
	ASSERT_EQ(0, gpamap_batch_new(&batch));
	ASSERT_EQ(0, gpamap_mapfile_open("/tmp/huge.map", &file));
	ASSERT_EQ(GPAMAP_MAPFILE_COMMIT, gpamap_mapfile_batch(file, batch));
	EXPECT_EQ(0u, gpamap_batch_get(batch, 0)->hva % HUGE);
	EXPECT_EQ(0u, gpamap_batch_get(batch, 1)->hva % PAGE);
	EXPECT_EQ(0u, gpamap_batch_get(batch, 2)->hva % HUGE);
	EXPECT_EQ(0u, gpamap_batch_get(batch, 3)->hva % HUGE);
	/* All of it is there. */
	((char *)(uintptr_t)gpamap_batch_get(batch, 0)->hva)[0xffffff] = 1;
	((char *)(uintptr_t)gpamap_batch_get(batch, 2)->hva)[0x3fffffff] = 1;
	gpamap_mapfile_close(file);
	gpamap_batch_free(batch);
	unlink("/tmp/huge.map");
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * Handlers of other modules as the guest and the VMM see them: what a handler is called
 * with for an access of the guest's (MEMORY_MODEL rule 47), and that neither it nor its
 * module goes while somebody uses it. The handlers are those of
 * modules/gpamap_test.c, and the sample's.
 */
#include "harness.h"
#include <fcntl.h>
#include <gpamap.h>
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include "answers.h"
#include "debugfs.h"
#include "gpamap_util.h"
#include "guest_io.h"
#include "leaks.h"
#include "vcpu.h"

#define PAGE TEST_PAGE
#define MODULE "gpamap_test"
#define DEBUGFS "/sys/kernel/debug/" MODULE "/"

#define ROOT 1
#define DEV 2			/* io, 256 bytes, at A */
#define PORTS 4
#define PDEV 5			/* io, 4 ports, at PORT */
#define MEM 6
#define DEV2 7			/* io, 256 bytes, behind DEV */
#define HOLE 8			/* reserved, a page, at R */
#define ROMD 9
#define SPACE 1
#define IO_SPACE 2

#define R 0x30000000ULL
#define A 0x10000000ULL
#define B 0x50000000ULL
#define PORT 0x608

FIXTURE(handler) {
	int fd;
	struct guest guest;
	void *io;			/* of the guest */
	char *mem;
	char log[16384];
};

/* What the handlers were called with since the last time. */
static const char *read_log(char *log, size_t len)
{
	int fd = open(DEBUGFS "log", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, log, len - 1);

	log[n < 0 ? 0 : n] = 0;
	if (fd >= 0)
		close(fd);
	return n < 0 ? "no log" : log;
}

/* Instances that there are: an instance goes some time after its map was closed. */
static int instances(void)
{
	return module_refcnt(MODULE);
}

#define EXPECT_NO_INSTANCE_LEFT() EXPECT_EQ(0, settled(instances, 0))

#define EXPECT_LOG(_want)							\
	EXPECT_STREQ(_want, read_log(self->log, sizeof(self->log)))

FIXTURE_SETUP(handler)
{
	ASSERT_EQ(0, guest_create(&self->guest));
	self->io = guest_io_create(&self->guest);
	ASSERT_NE(NULL, self->io);
	self->mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0);
	ASSERT_NE(MAP_FAILED, (void *)self->mem);
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_apply(self->fd, op_container(ROOT, U64_MAX), op_io(DEV, 255),
		       op_io(DEV2, 255), op_container(PORTS, 0xffff), op_io(PDEV, 3),
		       op_ram(MEM, PAGE - 1, self->mem), op_reserved(HOLE, PAGE - 1),
		       op_add(HOLE, ROOT, R, 0), op_add(DEV, ROOT, A, 0),
		       op_add(DEV2, ROOT, A + 256, 0), op_add(PDEV, PORTS, PORT, 0),
		       op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT),
		       op_space(IO_SPACE, GPAMAP_SPACE_IO, PORTS));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	read_log(self->log, sizeof(self->log));
}

FIXTURE_TEARDOWN(handler)
{
	if (self->fd >= 0)
		close(self->fd);
	guest_destroy(&self->guest);
	munmap(self->io, GUEST_IO_LEN);
	munmap(self->mem, PAGE);
	EXPECT_NO_MAP_LEFT();
	EXPECT_NO_INSTANCE_LEFT();
}

#define apply(...) test_cmd_apply(self->fd, __VA_ARGS__)

static int set_rc(int fd, u32 region, const char *name, u64 arg)
{
	struct gpamap_handler cmd = {
		.size = sizeof(cmd),
		.region = region,
		.arg = arg,
	};

	strncpy((char *)cmd.name, name, sizeof(cmd.name) - 1);
	return map_ioctl(fd, GPAMAP_HANDLER, &cmd);
}

static int remove_rc(int fd, u32 region)
{
	struct gpamap_handler cmd = {
		.size = sizeof(cmd),
		.flags = GPAMAP_HANDLER_REMOVE,
		.region = region,
	};

	return map_ioctl(fd, GPAMAP_HANDLER, &cmd);
}

#define set_handler(_region, _name, _arg)					\
	ASSERT_EQ(0, set_rc(self->fd, _region, _name, _arg))

#define V 0x8877665544332211ULL

/*
 * A write of V and a read, @len bytes at @offset: the calls that they become, where "" means
 * that they leave. What was written is what is read.
 */
struct call_row {
	const char *name;
	u64 offset;
	u32 len;
	const char *writes;
	const char *reads;
};

static const struct call_row call_rows[] = {
	/* What is valid. */
	{ "test-aligned", 0, 1, "write 0 1 0x11\n", "read 0 1\n" },
	{ "test-aligned", 255, 1, "write 255 1 0x11\n", "read 255 1\n" },
	{ "test-aligned", 2, 2, "write 2 2 0x2211\n", "read 2 2\n" },
	{ "test-aligned", 4, 4, "write 4 4 0x44332211\n", "read 4 4\n" },
	{ "test-aligned", 8, 8, "write 8 8 0x8877665544332211\n", "read 8 8\n" },
	{ "test-aligned", 1, 2, "", "" },
	{ "test-aligned", 6, 4, "", "" },
	{ "test-aligned", 4, 8, "", "" },
	{ "test-valid-2-4", 0, 1, "", "" },
	{ "test-valid-2-4", 0, 2, "write 0 2 0x2211\n", "read 0 2\n" },
	{ "test-valid-2-4", 4, 4, "write 4 4 0x44332211\n", "read 4 4\n" },
	{ "test-valid-2-4", 8, 8, "", "" },
	{ "test-valid-2-4", 3, 2, "", "" },
	{ "test-any", 1, 2, "write 1 2 0x2211\n", "read 1 2\n" },
	{ "test-any", 3, 4, "write 3 4 0x44332211\n", "read 3 4\n" },
	{ "test-any", 5, 8, "write 5 8 0x8877665544332211\n", "read 5 8\n" },
	/* Split. */
	{ "test-split-1", 3, 4, "write 3 1 0x11\nwrite 4 1 0x22\nwrite 5 1 0x33\nwrite 6 1 0x44\n",
	  "read 3 1\nread 4 1\nread 5 1\nread 6 1\n" },
	{ "test-split-2", 8, 8,
	  "write 8 2 0x2211\nwrite 10 2 0x4433\nwrite 12 2 0x6655\nwrite 14 2 0x8877\n",
	  "read 8 2\nread 10 2\nread 12 2\nread 14 2\n" },
	{ "test-split-2", 5, 4, "write 5 1 0x11\nwrite 6 2 0x3322\nwrite 8 1 0x44\n",
	  "read 5 1\nread 6 2\nread 8 1\n" },
	/* Widened. */
	{ "test-wide-4", 4, 4, "write 4 4 0x44332211\n", "read 4 4\n" },
	{ "test-wide-4", 4, 1, "write 4 4 0x11\n", "read 4 4\n" },
	{ "test-wide-4", 7, 1, "write 4 4 0x11000000\n", "read 4 4\n" },
	{ "test-wide-4", 6, 2, "write 4 4 0x22110000\n", "read 4 4\n" },
	{ "test-wide-4", 8, 8, "write 8 4 0x44332211\nwrite 12 4 0x88776655\n",
	  "read 8 4\nread 12 4\n" },
	{ "test-wide-4", 6, 4, "write 4 4 0x22110000\nwrite 8 4 0x4433\n",
	  "read 4 4\nread 8 4\n" },
	{ "test-wide-8", 12, 4, "write 8 8 0x4433221100000000\n", "read 8 8\n" },
	{ "test-wide-4-any", 7, 1, "write 7 4 0x11\n", "read 7 4\n" },
	{ "test-wide-4-any", 5, 8, "write 5 4 0x44332211\nwrite 9 4 0x88776655\n",
	  "read 5 4\nread 9 4\n" },
	/* The other byte order. */
	{ "test-be", 0, 1, "write 0 1 0x11\n", "read 0 1\n" },
	{ "test-be", 2, 2, "write 2 2 0x1122\n", "read 2 2\n" },
	{ "test-be", 5, 4, "write 5 4 0x11223344\n", "read 5 4\n" },
	{ "test-be", 8, 8, "write 8 8 0x1122334455667788\n", "read 8 8\n" },
	{ "test-be-wide-4", 4, 1, "write 4 4 0x11000000\n", "read 4 4\n" },
	{ "test-be-wide-4", 6, 2, "write 4 4 0x1122\n", "read 4 4\n" },
	{ "test-be-wide-4", 8, 8, "write 8 4 0x11223344\nwrite 12 4 0x55667788\n",
	  "read 8 4\nread 12 4\n" },
	/* What it refuses, and what it has not. */
	{ "test-refuse", 0x78, 8, "write 120 8 0x8877665544332211\n", "read 120 8\n" },
	{ "test-refuse", 0x80, 8, "", "" },
};

TEST_F(handler, rule_47_calls)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(call_rows); i++) {
		const struct call_row *row = &call_rows[i];
		u64 v = row->len == 8 ? V : V & ((1ULL << (8 * row->len)) - 1);
		struct guest_access a;

		set_handler(DEV, row->name, 0);
		EXPECT_LOG("create 0\n");
		a = guest_write(&self->guest, A + row->offset, row->len, v);
		EXPECT_EQ((int)(*row->writes ? GUEST_RAM : GUEST_MMIO), (int)a.how)
			TH_LOG("row %u, exit %d", i, a.reason);
		EXPECT_LOG(row->writes)
			TH_LOG("row %u", i);
		a = guest_read(&self->guest, A + row->offset, row->len);
		EXPECT_EQ((int)(*row->reads ? GUEST_RAM : GUEST_MMIO), (int)a.how)
			TH_LOG("row %u, exit %d", i, a.reason);
		if (*row->reads)
			EXPECT_EQ(v, a.value)
				TH_LOG("row %u", i);
		EXPECT_LOG(row->reads)
			TH_LOG("row %u", i);
		ASSERT_EQ(0, remove_rc(self->fd, DEV));
		EXPECT_LOG("destroy\n");
	}
}

/* Rule 46: by its first byte; the rest of the access is the handler's, or the VMM's. */
TEST_F(handler, rule_46_over_the_end)
{
	set_handler(DEV, "test-any", 0);
	set_handler(DEV2, "test-split-1", 0);
	EXPECT_LOG("create 0\ncreate 0\n");
	EXPECT_DONE(guest_write(&self->guest, A + 252, 8, V));
	EXPECT_LOG("write 252 8 0x8877665544332211\n");
	/* At the end of what is on the bus it leaves. */
	EXPECT_LEAVES(guest_write(&self->guest, A + 508, 8, V));
	EXPECT_LOG("");
}

TEST_F(handler, one_way_only)
{
	set_handler(DEV, "test-read-only", 0);
	EXPECT_LEAVES(guest_write(&self->guest, A, 4, 1));
	EXPECT_READ(A, 4, 0);
	ASSERT_EQ(0, remove_rc(self->fd, DEV));
	set_handler(DEV, "test-write-only", 0);
	EXPECT_DONE(guest_write(&self->guest, A, 4, 1));
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
	ASSERT_EQ(0, remove_rc(self->fd, DEV));
	/* Neither functions nor instances. */
	set_handler(DEV, "test-bare", 0);
	EXPECT_LEAVES(guest_write(&self->guest, A, 4, 1));
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
	ASSERT_EQ(0, remove_rc(self->fd, DEV));
	EXPECT_EQ(-EINVAL, set_rc(self->fd, DEV, "test-bare", 1));
}

/* Registers come first, then doorbells, then the handler. */
TEST_F(handler, after_registers_and_doorbells)
{
	const struct gpamap_register reg = { 8, 4, GPAMAP_REGISTER_READWRITE, 7 };
	struct gpamap_registers registers = {
		.size = sizeof(registers),
		.region = DEV,
		.nr = 1,
		.register_size = sizeof(reg),
		.registers = (uintptr_t)&reg,
	};
	int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct gpamap_doorbell doorbell = {
		.size = sizeof(doorbell),
		.region = DEV,
		.len = 4,
		.offset = 0x10,
		.fd = bell,
	};
	u64 n;

	ASSERT_LE(0, bell);
	ASSERT_EQ(0, map_ioctl(self->fd, GPAMAP_REGISTERS, &registers));
	ASSERT_EQ(0, map_ioctl(self->fd, GPAMAP_DOORBELL, &doorbell));
	set_handler(DEV, "test-any", 0);
	EXPECT_LOG("create 0\n");
	EXPECT_READ(A + 8, 4, 7);
	EXPECT_DONE(guest_write(&self->guest, A + 8, 4, 8));
	EXPECT_DONE(guest_write(&self->guest, A + 0x10, 4, 9));
	EXPECT_EQ((ssize_t)sizeof(n), read(bell, &n, sizeof(n)));
	EXPECT_LOG("");
	EXPECT_DONE(guest_write(&self->guest, A + 0x10, 2, 9));
	EXPECT_DONE(guest_write(&self->guest, A + 8, 2, 9));
	EXPECT_LOG("write 16 2 0x9\nwrite 8 2 0x9\n");
	close(bell);
}

/* It follows the region, and is one wherever it is seen. */
TEST_F(handler, rule_44_moves_with_the_region)
{
	set_handler(DEV, "test-any", 5);
	EXPECT_LOG("create 5\n");
	EXPECT_DONE(guest_write(&self->guest, A, 4, 0x11));
	apply(op_at(DEV, B));
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
	EXPECT_READ(B, 4, 0x11);
	apply(op_alias(20, DEV, 0, 255), op_add(20, ROOT, A, 0));
	EXPECT_READ(A, 4, 0x11);
	apply(op_add(MEM, ROOT, B, 1));
	EXPECT_READ(B, 4, 0);
	EXPECT_READ(A, 4, 0x11);
	apply(op_del(MEM), op_del(20), op_del(DEV));
	EXPECT_LEAVES(guest_read(&self->guest, B, 4));
	test_err_apply(EBUSY, 1, self->fd, op_destroy(20), op_destroy(DEV));
}

TEST_F(handler, detach_and_attach)
{
	set_handler(DEV, "test-any", 0);
	EXPECT_DONE(guest_write(&self->guest, A, 4, 0x22));
	test_cmd_detach(self->fd);
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_READ(A, 4, 0x22);
	/* Without a VM. */
	test_cmd_detach(self->fd);
	ASSERT_EQ(0, remove_rc(self->fd, DEV));
	set_handler(DEV, "test-any", 0);
	EXPECT_LOG("create 0\nwrite 0 4 0x22\nread 0 4\ndestroy\ncreate 0\n");
}

TEST_F(handler, bad_members)
{
	struct gpamap_handler cmd = {
		.size = sizeof(cmd),
		.region = DEV,
		.name = "test-any",
	};
	struct gpamap_handler bad;

#define EXPECT_BAD(_errno, _member, _value)					\
	do {									\
		bad = cmd;							\
		bad._member = _value;						\
		EXPECT_EQ(-(_errno), map_ioctl(self->fd, GPAMAP_HANDLER, &bad)); \
	} while (0)
	EXPECT_BAD(EOPNOTSUPP, flags, 2);
	EXPECT_BAD(EINVAL, flags, GPAMAP_HANDLER_REMOVE);
	EXPECT_BAD(EINVAL, __reserved, 1);
	EXPECT_BAD(ENOENT, region, 77);
	EXPECT_BAD(ENOENT, region, 0);
	EXPECT_BAD(EOPNOTSUPP, region, MEM);
	EXPECT_BAD(EOPNOTSUPP, region, ROOT);
	EXPECT_BAD(EINVAL, name[0], 0);
	EXPECT_BAD(EINVAL, name[20], 'x');
	EXPECT_BAD(ENOENT, name[0], 'x');
	EXPECT_BAD(ENXIO, arg, 0xbad);
	bad = cmd;
	memset(bad.name, 'x', sizeof(bad.name));
	EXPECT_EQ(-EINVAL, map_ioctl(self->fd, GPAMAP_HANDLER, &bad));
	bad = (struct gpamap_handler){
		.size = sizeof(bad), .flags = GPAMAP_HANDLER_REMOVE, .region = DEV, .arg = 1,
	};
	EXPECT_EQ(-EINVAL, map_ioctl(self->fd, GPAMAP_HANDLER, &bad));
	EXPECT_EQ(-ENOENT, remove_rc(self->fd, DEV));
	EXPECT_EQ(-ENOENT, remove_rc(self->fd, 77));
	EXPECT_LOG("create 2989\n");
	set_handler(DEV, "test-any", 0);
	EXPECT_EQ(-EEXIST, set_rc(self->fd, DEV, "test-any", 0));
	EXPECT_EQ(-EEXIST, set_rc(self->fd, DEV, "test-be", 0));
	EXPECT_LOG("create 0\n");
}

/* Writes are posted or are for the handler. */
TEST_F(handler, not_with_posted_writes)
{
	int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct gpamap_ring ring = {
		.size = sizeof(ring),
		.id = 1,
		.nr_entries = GPAMAP_MIN_RING_ENTRIES,
		.watermark = 1,
		.fd = bell,
	};
	struct gpamap_post post = { .size = sizeof(post), .region = DEV, .ring = 1 };

	ASSERT_LE(0, bell);
	ASSERT_EQ(0, map_ioctl(self->fd, GPAMAP_RING, &ring));
	ASSERT_EQ(0, map_ioctl(self->fd, GPAMAP_POST, &post));
	EXPECT_EQ(-EBUSY, set_rc(self->fd, DEV, "test-any", 0));
	post.flags = GPAMAP_POST_REMOVE;
	post.ring = 0;
	ASSERT_EQ(0, map_ioctl(self->fd, GPAMAP_POST, &post));
	set_handler(DEV, "test-any", 0);
	post.flags = 0;
	post.ring = 1;
	EXPECT_EQ(-EBUSY, map_ioctl(self->fd, GPAMAP_POST, &post));
	close(bell);
}

/* What the handler does not take, or refuses, is the policy's. */
TEST_F(handler, before_a_policy)
{
	set_handler(DEV, "test-refuse", 0);
	apply(op_policy(DEV, GPAMAP_POLICY_ONES));
	EXPECT_LOG("create 0\n");
	EXPECT_DONE(guest_write(&self->guest, A, 4, 5));
	EXPECT_READ(A, 4, 5);
	EXPECT_LOG("write 0 4 0x5\nread 0 4\n");
	EXPECT_DONE(guest_write(&self->guest, A + 0x80, 4, 1));
	EXPECT_READ(A + 0x80, 4, 0xffffffff);
	/* Not aligned it is not asked. */
	EXPECT_READ(A + 1, 4, 0xffffffff);
	EXPECT_LOG("");
	apply(op_policy(DEV, GPAMAP_POLICY_ZEROES));
	EXPECT_READ(A + 0x80, 4, 0);
	EXPECT_READ(A, 4, 5);
	apply(op_policy(DEV, GPAMAP_POLICY_TELL));
	EXPECT_LEAVES(guest_read(&self->guest, A + 0x80, 4));
}

/* Through a path that is read-only nothing is written, to registers neither. */
TEST_F(handler, rule_25_readonly_path)
{
	const struct gpamap_register reg = { 8, 4, GPAMAP_REGISTER_READWRITE, 7 };
	struct gpamap_registers registers = {
		.size = sizeof(registers),
		.region = DEV,
		.nr = 1,
		.register_size = sizeof(reg),
		.registers = (uintptr_t)&reg,
	};

	ASSERT_EQ(0, map_ioctl(self->fd, GPAMAP_REGISTERS, &registers));
	set_handler(DEV, "test-any", 0);
	apply(op_flags(op_alias(20, DEV, 0, 255), GPAMAP_REGION_READONLY),
	      op_add(20, ROOT, B, 0));
	EXPECT_LOG("create 0\n");
	EXPECT_LEAVES(guest_write(&self->guest, B, 4, 1));
	EXPECT_LEAVES(guest_write(&self->guest, B + 8, 4, 1));
	EXPECT_LOG("");
	EXPECT_READ(B, 4, 0);
	EXPECT_READ(B + 8, 4, 7);
	EXPECT_DONE(guest_write(&self->guest, A, 4, 1));
	EXPECT_READ(B, 4, 1);
}

/* KVM would have to be asked about too much: nothing is left of the handler. */
TEST_F(handler, in_a_region_that_is_too_long)
{
	apply(op_last(DEV, 2 * GPAMAP_MAX_BUS_LEN));
	EXPECT_EQ(-ENOSPC, set_rc(self->fd, DEV, "test-any", 0));
	EXPECT_LOG("create 0\ndestroy\n");
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
	EXPECT_EQ(-ENOENT, remove_rc(self->fd, DEV));
}

/* -- a handler in a transaction -------------------------------------------- */

#define TRANSACT "test-transact"

/* What is prepared is committed or undone, once; what was committed is destroyed. */
TEST_F(handler, prepare_commit_undo)
{
	struct gpamap_apply out;

	apply(op_handler(DEV, TRANSACT, 5));
	EXPECT_LOG("create 5\ncommit\n");
	apply(op_untie(DEV, GPAMAP_TIE_HANDLER));
	EXPECT_LOG("destroy\n");
	set_handler(DEV, TRANSACT, 6);
	EXPECT_LOG("create 6\ncommit\n");
	ASSERT_EQ(0, remove_rc(self->fd, DEV));
	EXPECT_LOG("destroy\n");

	test_cmd_plan(self->fd, GPAMAP_APPLY_DRY_RUN, &out, op_handler(DEV, TRANSACT, 7));
	EXPECT_LOG("create 7\nundo\n");
	test_err_apply(ENOENT, 1, self->fd, op_handler(DEV, TRANSACT, 8), op_del(99));
	EXPECT_LOG("create 8\nundo\n");
	/* Tied and untied in one batch: accesses never come. */
	apply(op_handler(DEV, TRANSACT, 9), op_handler_remove(DEV));
	EXPECT_LOG("create 9\nundo\n");
	/* One goes and another comes: the old one stays until that is certain. */
	apply(op_handler(DEV, TRANSACT, 10));
	EXPECT_LOG("create 10\ncommit\n");
	test_err_apply(ENOENT, 2, self->fd, op_handler_remove(DEV), op_handler(DEV, TRANSACT, 11),
		       op_del(99));
	EXPECT_LOG("create 11\nundo\n");
	apply(op_handler_remove(DEV), op_handler(DEV, TRANSACT, 12));
	EXPECT_LOG("create 12\ncommit\ndestroy\n");
}

/* KVM refuses a memslot of the same batch, with everything prepared. */
TEST_F(handler, undone_with_a_memslot)
{
	ASSERT_EQ(0, module_param_set("fail_nth", 1));
	test_err_apply(ENOMEM, GPAMAP_NO_OP, self->fd, op_handler(DEV, TRANSACT, 5),
		       op_add(MEM, ROOT, B, 0));
	EXPECT_LOG("create 5\nundo\n");
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
	/* Who is to blame is looked for by doing it again. */
	ASSERT_EQ(0, guest_set_slot(&self->guest, 400, 0, B, 1, self->mem));
	test_err_apply(EEXIST, 1, self->fd, op_handler(DEV, TRANSACT, 6),
		       op_add(MEM, ROOT, B, 0));
	EXPECT_EQ(0, strncmp("create 6\nundo\n",
			     read_log(self->log, sizeof(self->log)), 14));
	EXPECT_NULL_WHY(strstr(self->log, "commit") ? self->log : NULL);
	ASSERT_EQ(0, guest_set_slot(&self->guest, 400, 0, B, 0, self->mem));
}

/* -- lifetimes ------------------------------------------------------------- */

static int unload(void)
{
	return syscall(SYS_delete_module, MODULE, O_NONBLOCK) ? -errno : 0;
}

static int load(void)
{
	int fd = open("/lab/" MODULE ".ko", O_RDONLY | O_CLOEXEC);
	int rc = syscall(SYS_finit_module, fd, "", 0) ? -errno : 0;

	close(fd);
	return rc;
}

/* A module stays while a region uses its handler, whatever becomes of the map's VM. */
TEST_F(handler, module_stays_while_used)
{
	ASSERT_EQ(0, unload());
	EXPECT_EQ(-ENOENT, set_rc(self->fd, DEV, "test-any", 0));
	ASSERT_EQ(0, load());
	set_handler(DEV, "test-any", 0);
	set_handler(DEV2, "test-be", 0);
	EXPECT_EQ(-EWOULDBLOCK, unload());
	ASSERT_EQ(0, remove_rc(self->fd, DEV));
	EXPECT_EQ(-EWOULDBLOCK, unload());
	test_cmd_detach(self->fd);
	EXPECT_EQ(-EWOULDBLOCK, unload());
	close(self->fd);
	self->fd = -1;
	EXPECT_NO_INSTANCE_LEFT();
	EXPECT_LOG("create 0\ncreate 0\ndestroy\ndestroy\n");
	EXPECT_EQ(0, unload());
	EXPECT_EQ(0, load());
}

/* A handler that is offered no longer goes on where it is used. */
TEST_F(handler, unregistered_while_used)
{
	int fd = open(DEBUGFS "unregister", O_WRONLY | O_CLOEXEC);

	ASSERT_LE(0, fd);
	set_handler(DEV, "test-gone", 0);
	ASSERT_EQ(1, write(fd, "1", 1));
	close(fd);
	EXPECT_EQ(-ENOENT, set_rc(self->fd, DEV2, "test-gone", 0));
	EXPECT_DONE(guest_write(&self->guest, A, 4, 0x33));
	EXPECT_READ(A, 4, 0x33);
	EXPECT_EQ(-EWOULDBLOCK, unload());
	ASSERT_EQ(0, remove_rc(self->fd, DEV));
	EXPECT_EQ(-ENOENT, set_rc(self->fd, DEV, "test-gone", 0));
	EXPECT_EQ(0, unload());
	EXPECT_EQ(0, load());
	set_handler(DEV, "test-gone", 0);
}

/* What it counts is lost with every handler; it says so (KVM_EXIT_IO), and counts on. */
static bool go_on(struct vcpu *vcpu)
{
	return vcpu->cpu.run->exit_reason == KVM_EXIT_MMIO ||
	       vcpu->cpu.run->exit_reason == KVM_EXIT_IO;
}

/*
 * Whoever removes a handler, or closes the map, waits for the vCPU that is in it: the
 * instance goes after the vCPU has left it. It counts at A, so all accesses are reads and
 * writes of 8 bytes there.
 */
TEST_F_TIMEOUT(handler, removed_under_a_vcpu, 60)
{
	struct vcpu vcpu;
	u32 i;

	for (i = 0; i < 6; i++) {
		vcpu_first(&vcpu, &self->guest);
		vcpu.on_exit = go_on;
		set_handler(DEV, "test-slow", 30);
		ASSERT_EQ(0, vcpu_start(&vcpu, GUEST_COUNT, A, 0, 0));
		wait_until(thread_sleeps_in(vcpu.tid, "slow_read"));
		switch (i % 3) {
		case 0:
			ASSERT_EQ(0, remove_rc(self->fd, DEV));
			break;
		case 1:
			test_cmd_detach(self->fd);
			break;
		case 2:
			apply(op_del(DEV));
			break;
		}
		/* Nobody is in it, and nobody comes. */
		read_log(self->log, sizeof(self->log));
		EXPECT_EQ(i % 3 == 0, !!strstr(self->log, "destroy\n"));
		usleep(100000);
		EXPECT_LOG("");
		vcpu_stop(&vcpu);
		if (i % 3 == 1)
			test_cmd_attach(self->fd, self->guest.vm, 0, 64);
		if (i % 3 == 2)
			apply(op_add(DEV, ROOT, A, 0));
		if (i % 3)
			ASSERT_EQ(0, remove_rc(self->fd, DEV));
		EXPECT_LOG(i % 3 ? "destroy\n" : "");
	}
}

/* Set and removed while two vCPUs read and write. */
TEST_F_TIMEOUT(handler, churn_under_vcpus, 120)
{
	u64 rounds = env_number("ROUNDS", 100), i;
	struct vcpu vcpus[2];

	vcpu_first(&vcpus[0], &self->guest);
	ASSERT_EQ(0, vcpu_add(&vcpus[1], &self->guest, 1));
	for (i = 0; i < 2; i++) {
		vcpus[i].on_exit = go_on;
		ASSERT_EQ(0, vcpu_start(&vcpus[i], GUEST_COUNT, A + i * 8, 0, 0));
	}
	for (i = 0; i < rounds && _metadata->passed; i++) {
		ASSERT_EQ(0, set_rc(self->fd, DEV, i & 1 ? "test-any" : "test-split-1", 0));
		usleep(500);
		if (!(i % 7))
			apply(op_at(DEV, i % 2 ? A : B));
		ASSERT_EQ(0, remove_rc(self->fd, DEV));
		usleep(500);
	}
	/* In the end it answers. */
	apply(op_at(DEV, A));
	set_handler(DEV, "test-any", 0);
	read_log(self->log, sizeof(self->log));
	wait_until(strstr(read_log(self->log, sizeof(self->log)), "read 0 8\n"));
	vcpu_stop(&vcpus[0]);
	vcpu_destroy(&vcpus[1]);
}

/* -- the fast-MMIO bus ----------------------------------------------------- */

/* As KVM asks where it can: 0, -ENOENT not on that bus, -EOPNOTSUPP not answered. */
static int fast_write(const struct guest *guest, u64 gpa)
{
	int fd = open(DEBUGFS "fast_write", O_WRONLY | O_CLOEXEC), rc;
	char line[64];

	snprintf(line, sizeof(line), "%d %llx", guest->vm, (unsigned long long)gpa);
	rc = write(fd, line, strlen(line)) < 0 ? -errno : 0;
	close(fd);
	return rc;
}

static u64 rung(int bell)
{
	u64 n = 0;

	return read(bell, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

/* A device of KVM's at the address is asked first, and alone, be it on that bus or the other. */
TEST_F(handler, fast_mmio_beside_kvm)
{
	int any = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	int theirs = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct kvm_ioeventfd io = { .addr = A + 0x10, .fd = theirs };
	struct gpamap *map;
	u32 len, i;

	ASSERT_EQ(0, gpamap_from_fd(dup(self->fd), &map));
	ASSERT_EQ(0, gpamap_doorbell_add_fast(map, DEV, 0x10, any));
	for (len = 0; len <= 4; len += 4) {
		io.len = len;
		io.flags = 0;
		ASSERT_EQ(0, map_ioctl(self->guest.vm, KVM_IOEVENTFD, &io));
		/* Come later, and cut around. */
		for (i = 0; i < 2; i++) {
			EXPECT_EQ(len != 0, !!fast_write(&self->guest, A + 0x10));
			EXPECT_EQ(0u, rung(any));
			EXPECT_EQ(len ? 0u : 1u, rung(theirs));
			EXPECT_DONE(guest_write(&self->guest, A + 0x10, 4, 1));
			EXPECT_EQ(0u, rung(any));
			EXPECT_EQ(1u, rung(theirs));
			/* Nobody is found in the way, and then it is as before. */
			EXPECT_NE(0, fast_write(&self->guest, A + 0x18));
			EXPECT_EQ(len != 0, !!fast_write(&self->guest, A + 0x10));
			EXPECT_EQ(0u, rung(any));
			EXPECT_EQ(len ? 0u : 1u, rung(theirs));
			apply(op_at(DEV2, B + 0x1000 * (i + 2)));
		}
		io.flags = KVM_IOEVENTFD_FLAG_DEASSIGN;
		ASSERT_EQ(0, map_ioctl(self->guest.vm, KVM_IOEVENTFD, &io));
		apply(op_at(DEV2, A + 256));
		EXPECT_EQ(0, fast_write(&self->guest, A + 0x10));
		EXPECT_EQ(1u, rung(any));
	}
	gpamap_close(map);
	close(any);
	close(theirs);
}

/* Whether the instruction that made an access would be passed over, on such a processor. */
static bool passed_over(const struct guest *guest, u64 gpa)
{
	return !fast_write(guest, gpa);
}

TEST_F(handler, fast_mmio)
{
	const struct gpamap_register reg = { 8, 4, GPAMAP_REGISTER_READWRITE, 7 };
	int any = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	int four = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct gpamap *map;

	ASSERT_EQ(0, gpamap_from_fd(dup(self->fd), &map));
	ASSERT_EQ(-ENOENT, fast_write(&self->guest, A + 0x10));
	ASSERT_EQ(0, gpamap_doorbell_add(map, DEV, 0x20, 4, four));
	EXPECT_EQ(-ENOENT, fast_write(&self->guest, A + 0x20));
	ASSERT_EQ(0, gpamap_doorbell_add_fast(map, DEV, 0x10, any));
	EXPECT_EQ(-EEXIST, gpamap_doorbell_add_fast(map, DEV, 0x10, any));
	EXPECT_EQ(-EEXIST, gpamap_doorbell_add(map, DEV, 0x10, 0, any));
	EXPECT_EQ(0, fast_write(&self->guest, A + 0x10));
	EXPECT_EQ(1u, rung(any));
	EXPECT_EQ(-EOPNOTSUPP, fast_write(&self->guest, A + 0x20));
	EXPECT_EQ(-EOPNOTSUPP, fast_write(&self->guest, A + 0x18));
	EXPECT_EQ(0u, rung(four));
	/* Without that it rings as every other does. */
	EXPECT_DONE(guest_write(&self->guest, A + 0x10, 2, 1));
	EXPECT_EQ(1u, rung(any));
	/* It follows the region. */
	apply(op_at(DEV, B));
	EXPECT_EQ(-ENOENT, fast_write(&self->guest, A + 0x10));
	EXPECT_EQ(0, fast_write(&self->guest, B + 0x10));
	EXPECT_EQ(1u, rung(any));
	apply(op_at(DEV, A));
	/* Where length or value matter, or something else may be: not. */
	ASSERT_EQ(0, gpamap_doorbell_add(map, DEV, 0x10, 4, four));
	EXPECT_EQ(-EOPNOTSUPP, fast_write(&self->guest, A + 0x10));
	ASSERT_EQ(0, gpamap_doorbell_remove(map, DEV, 0x10, 4, four));
	ASSERT_EQ(0, gpamap_doorbell_add(map, DEV, 0x10, 0, four));
	EXPECT_EQ(-EOPNOTSUPP, fast_write(&self->guest, A + 0x10));
	ASSERT_EQ(0, gpamap_doorbell_remove(map, DEV, 0x10, 0, four));
	ASSERT_EQ(0, gpamap_doorbell_add_match(map, DEV, 0x40, 4, 1, four));
	EXPECT_EQ(-EOPNOTSUPP, fast_write(&self->guest, A + 0x10));
	ASSERT_EQ(0, gpamap_doorbell_remove_match(map, DEV, 0x40, 4, 1, four));
	ASSERT_EQ(0, gpamap_registers_set(map, DEV, &reg, 1));
	EXPECT_EQ(-EOPNOTSUPP, fast_write(&self->guest, A + 0x10));
	ASSERT_EQ(0, gpamap_registers_remove(map, DEV));
	set_handler(DEV, "test-any", 0);
	EXPECT_EQ(-EOPNOTSUPP, fast_write(&self->guest, A + 0x10));
	ASSERT_EQ(0, remove_rc(self->fd, DEV));
	ASSERT_EQ(0, gpamap_policy_set(map, DEV, GPAMAP_POLICY_ZEROES));
	EXPECT_EQ(-EOPNOTSUPP, fast_write(&self->guest, A + 0x10));
	ASSERT_EQ(0, gpamap_policy_set(map, DEV, GPAMAP_POLICY_NONE));
	EXPECT_EQ(0u, rung(any) + rung(four));
	EXPECT_EQ(0, fast_write(&self->guest, A + 0x10));
	EXPECT_EQ(1u, rung(any));
	/* A reserved region that is answered is not passed over. */
	ASSERT_EQ(0, gpamap_doorbell_add_fast(map, HOLE, 0x10, any));
	EXPECT_EQ(0, fast_write(&self->guest, R + 0x10));
	EXPECT_EQ(1u, rung(any));
	ASSERT_EQ(0, gpamap_policy_set(map, HOLE, GPAMAP_POLICY_ONES));
	EXPECT_EQ(-EOPNOTSUPP, fast_write(&self->guest, R + 0x10));
	EXPECT_READ(R + 0x10, 4, 0xffffffff);
	/* A neighbour that has none is not on that bus. */
	ASSERT_EQ(0, gpamap_policy_set(map, DEV2, GPAMAP_POLICY_TELL));
	EXPECT_EQ(-ENOENT, fast_write(&self->guest, A + 256));
	/* With the last one the region goes from the bus; one that is undone never was. */
	ASSERT_EQ(0, gpamap_doorbell_remove(map, DEV, 0x10, 0, any));
	EXPECT_EQ(-ENOENT, fast_write(&self->guest, A + 0x10));
	test_err_apply(ENOENT, 1, self->fd,
		       op_flags(op_doorbell(DEV, 0x10, 0, any), GPAMAP_DOORBELL_FAST), op_del(99));
	ASSERT_EQ(0, gpamap_policy_set(map, DEV, GPAMAP_POLICY_TELL));
	EXPECT_EQ(-ENOENT, fast_write(&self->guest, A + 0x10));
	EXPECT_DONE(guest_write(&self->guest, A + 0x20, 4, 1));
	EXPECT_EQ(1u, rung(four));
	gpamap_close(map);
	close(any);
	close(four);
}

/*
 * A doorbell of any length, of which nothing is promised, does the same on all processors: twice
 * on one page, for KVM asks the fast bus from the second access on, nothing is passed over. So
 * reads leave, and a write over the end of the region does (rule 46).
 */
TEST_F(handler, no_processor_makes_a_difference)
{
	int any = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	u32 i;

	ASSERT_EQ(0, doorbell_add(self->fd, DEV, 0x10, 0, any));
	ASSERT_EQ(0, doorbell_add(self->fd, DEV, 255, 0, any));
	for (i = 0; i < 2; i++) {
		EXPECT_FALSE(passed_over(&self->guest, A + 0x10));
		EXPECT_EQ((int)GUEST_MMIO, (int)guest_read(&self->guest, A + 0x10, 4).how);
		EXPECT_FALSE(passed_over(&self->guest, A + 255));
		EXPECT_EQ((int)GUEST_MMIO, (int)guest_write(&self->guest, A + 255, 4, 1).how);
		EXPECT_EQ(0u, rung(any));
		EXPECT_DONE(guest_write(&self->guest, A + 255, 1, 1));
		EXPECT_EQ(1u, rung(any));
	}
	close(any);
}

/* -- debugfs --------------------------------------------------------------- */

#define EXPECT_LINE(_name, _want)						\
	do {									\
		char *__text = debugfs_read(dir, _name);			\
		ASSERT_NE(NULL, __text);					\
		EXPECT_NE(NULL, strstr(__text, _want "\n"))			\
			TH_LOG("%s", __text);					\
		free(__text);							\
	} while (0)

#define EXPECT_FILE(_name, _want)						\
	do {									\
		char *__text = debugfs_read(dir, _name);			\
		ASSERT_NE(NULL, __text);					\
		EXPECT_STREQ(_want, __text);					\
		free(__text);							\
	} while (0)

static void ignore_posted(void *arg, const struct gpamap_ring_entry *entry)
{
	(void)arg;
	(void)entry;
}

/* What all that can be tied to regions looks like from the host. */
TEST_F(handler, debugfs)
{
	const struct gpamap_register reg = { 8, 4, GPAMAP_REGISTER_READWRITE, 7 };
	int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct gpamap_stats stats;
	struct gpamap_ring_reader *ring;
	char dir[300], text[512];
	struct gpamap *map;

	ASSERT_EQ(1, debugfs_find(0, dir, sizeof(dir)));
	EXPECT_FILE("io", "");
	EXPECT_FILE("bus", "");
	ASSERT_EQ(0, gpamap_from_fd(dup(self->fd), &map));
	ASSERT_EQ(0, gpamap_doorbell_add(map, DEV, 0, 4, bell));
	ASSERT_EQ(0, gpamap_registers_set(map, DEV, &reg, 1));
	set_handler(PDEV, "acpi-pm-timer", 1);
	ASSERT_EQ(0, gpamap_ring_open(map, 1, 16, 1, 0, bell, ignore_posted, NULL, &ring));
	ASSERT_EQ(0, gpamap_post_add(map, DEV2, 1));
	ASSERT_EQ(0, gpamap_policy_set(map, HOLE, GPAMAP_POLICY_ZEROES));
	EXPECT_DONE(guest_write(&self->guest, A + 256, 4, 1));
	EXPECT_DONE(guest_write(&self->guest, A, 4, 1));
	EXPECT_DONE(guest_read(&self->guest, A + 8, 4));
	EXPECT_LEAVES(guest_read(&self->guest, A + 16, 4));
	EXPECT_DONE(guest_in(&self->guest, PORT, 4));
	EXPECT_FILE("io", "2 \"\" reads 2 writes 1 exits 1 doorbells 1 posted 0: registers doorbells\n"
		    "5 \"\" reads 1 writes 0 exits 0 doorbells 0 posted 0: acpi-pm-timer\n"
		    "7 \"\" reads 0 writes 1 exits 0 doorbells 0 posted 1: ring\n"
		    "8 \"\" reads 0 writes 0 exits 0 doorbells 0 posted 0: zeroes\n");
	EXPECT_FILE("bus", "memory 0000000010000000-00000000100001ff\n"
		    "memory 0000000030000000-0000000030000fff\n"
		    "ports 0000000000000608-000000000000060b\n");
	stats = query_stats(self->fd);
	snprintf(text, sizeof(text),
		 "commits %llu\ncreates %llu\ndeletes %llu\nmoves %llu\ndeleted_bytes %llu\n"
		 "largest_delete %llu\nholds %llu\nhold_failures %llu\nhold_ns %llu\n"
		 "longest_hold_ns %llu\nrollbacks %llu\n",
		 stats.commits, stats.creates, stats.deletes, stats.moves, stats.deleted_bytes,
		 stats.largest_delete, stats.holds, stats.hold_failures, stats.hold_ns,
		 stats.longest_hold_ns, stats.rollbacks);
	EXPECT_FILE("stats", text);
	EXPECT_LINE("flat", "  0000000030000000-0000000030000fff (prio 0, reserved): ");
	apply(op_name(op_romd(ROMD, PAGE - 1, self->mem), "flash"), op_add(ROMD, ROOT, B, 0));
	EXPECT_LINE("flat", "  0000000050000000-0000000050000fff (prio 0, i/o): flash");
	apply(op_romd_mode(ROMD, true));
	EXPECT_LINE("flat", "  0000000050000000-0000000050000fff (prio 0, romd): flash");
	gpamap_close(map);
	close(bell);
}

/* -- the sample ------------------------------------------------------------ */

static u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static u64 ticks(u64 ns)
{
	return ns / 1000 * 3579545 / 1000000;
}

TEST_F(handler, pm_timer)
{
	u64 begin[2], end[2];
	struct guest_access a[2];
	u32 i;

	EXPECT_EQ(-EINVAL, set_rc(self->fd, PDEV, "acpi-pm-timer", 2));
	begin[0] = now_ns();
	set_handler(PDEV, "acpi-pm-timer", 1);
	for (i = 0; i < 2; i++) {
		begin[1] = now_ns();
		a[i] = guest_in(&self->guest, PORT, 4);
		end[i] = now_ns();
		ASSERT_EQ((int)GUEST_RAM, (int)a[i].how);
		usleep(20000);
	}
	/* Since it was made, and of the right speed. */
	EXPECT_LE(a[0].value, ticks(end[0] - begin[0]) + 10);
	EXPECT_GE(a[1].value, ticks(begin[1] - end[0]));
	EXPECT_LE(ticks(begin[1] - end[0]), a[1].value - a[0].value + 10);
	EXPECT_LE(a[1].value, ticks(end[1] - begin[0]) + 10);
	/* Writes are lost, and any part of it can be read. */
	EXPECT_DONE(guest_out(&self->guest, PORT, 4, 0));
	EXPECT_LE(a[1].value, guest_in(&self->guest, PORT, 4).value);
	EXPECT_DONE(guest_in(&self->guest, PORT + 1, 1));
	EXPECT_DONE(guest_in(&self->guest, PORT + 2, 2));
	ASSERT_EQ(0, remove_rc(self->fd, PDEV));
	EXPECT_LEAVES(guest_in(&self->guest, PORT, 4));
	set_handler(PDEV, "acpi-pm-timer", 0);
	EXPECT_EQ(0u, guest_in(&self->guest, PORT, 4).value >> 24);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * Registers as the guest and the VMM see them: the guest reads and writes without leaving,
 * and what it does is found in the page that the VMM has mapped, and the other way round.
 */
#include "harness.h"
#include <fcntl.h>
#include <gpamap.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include "answers.h"
#include "gpamap_util.h"
#include "guest_io.h"

#define PAGE TEST_PAGE

#define ROOT 1
#define DEV 2			/* io, two pages, at A */
#define SHORT 3			/* io, 12 bytes, attached to nothing */
#define PORTS 4
#define PDEV 5			/* io, 16 ports, at PORT */
#define MEM 6
#define ALIAS 7
#define SPACE 1
#define IO_SPACE 2

#define A 0x10000000ULL
#define B 0x50000800ULL
#define PORT 0x500

FIXTURE(registers) {
	int fd;
	struct guest guest;
	void *io;			/* of the guest */
	char *mem;
};

FIXTURE_SETUP(registers)
{
	ASSERT_EQ(0, guest_create(&self->guest));
	self->io = guest_io_create(&self->guest);
	ASSERT_NE(NULL, self->io);
	self->mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0);
	ASSERT_NE(MAP_FAILED, (void *)self->mem);
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_apply(self->fd, op_container(ROOT, U64_MAX), op_io(DEV, 2 * PAGE - 1),
		       op_io(SHORT, 11), op_container(PORTS, 0xffff), op_io(PDEV, 15),
		       op_ram(MEM, PAGE - 1, self->mem), op_add(DEV, ROOT, A, 0),
		       op_add(PDEV, PORTS, PORT, 0),
		       op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT),
		       op_space(IO_SPACE, GPAMAP_SPACE_IO, PORTS));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
}

FIXTURE_TEARDOWN(registers)
{
	if (self->fd >= 0)
		close(self->fd);
	guest_destroy(&self->guest);
	munmap(self->io, GUEST_IO_LEN);
	munmap(self->mem, PAGE);
}

#define apply(...) test_cmd_apply(self->fd, __VA_ARGS__)

static int set_rc(int fd, u32 region, const struct gpamap_register *regs, u32 nr)
{
	struct gpamap_registers cmd = {
		.size = sizeof(cmd),
		.region = region,
		.nr = nr,
		.register_size = sizeof(*regs),
		.registers = (uintptr_t)regs,
	};

	return map_ioctl(fd, GPAMAP_REGISTERS, &cmd);
}

static int remove_rc(int fd, u32 region)
{
	struct gpamap_registers cmd = {
		.size = sizeof(cmd),
		.flags = GPAMAP_REGISTERS_REMOVE,
		.region = region,
	};

	return map_ioctl(fd, GPAMAP_REGISTERS, &cmd);
}

#define set_registers(_region, ...)						\
	do {									\
		const struct gpamap_register __r[] = { __VA_ARGS__ };		\
		ASSERT_EQ(0, set_rc(self->fd, _region, __r, ARRAY_SIZE(__r)));	\
	} while (0)
#define EXPECT_REFUSED(_errno, _region, ...)					\
	do {									\
		const struct gpamap_register __r[] = { __VA_ARGS__ };		\
		EXPECT_EQ(-(_errno),						\
			  set_rc(self->fd, _region, __r, ARRAY_SIZE(__r)));	\
	} while (0)

static void *map_page(int fd, u32 region)
{
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			  (off_t)region * PAGE);

	return page == MAP_FAILED ? NULL : page;
}

static u64 value_at(const void *page, u64 offset, u32 len)
{
	u64 value = 0;

	memcpy(&value, (const char *)page + offset, len);
	return value;
}

static u64 cut(u64 value, u32 len)
{
	return len == 8 ? value : value & ((1ULL << (8 * len)) - 1);
}

#define EXPECT_WRITE(_gpa, _len, _value)					\
	EXPECT_DONE(guest_write(&self->guest, _gpa, _len, _value))

#define V 0x8877665544332211ULL
#define W 0x00ff00ff00ff00ffULL

/* Every kind in every length: what is read, what a write does, what the page has. */
TEST_F(registers, kinds_and_lengths)
{
	static const u32 lengths[] = { 1, 2, 4, 8 };
	struct gpamap_register regs[20];
	u32 i, kind, nr = 0;
	char *page;

	for (kind = GPAMAP_REGISTER_READONLY; kind <= GPAMAP_REGISTER_CONSTANT; kind++)
		for (i = 0; i < 4; i++)
			regs[nr++] = (struct gpamap_register){
				.offset = kind * 0x40 + i * 8,
				.len = lengths[i],
				.kind = kind,
				.value = cut(V, lengths[i]),
			};
	ASSERT_EQ(0, set_rc(self->fd, DEV, regs, nr));
	page = map_page(self->fd, DEV);
	ASSERT_NE(NULL, page);
	for (i = 0; i < nr; i++) {
		u64 gpa = A + regs[i].offset, offset = regs[i].offset;
		u32 len = regs[i].len;
		u64 v = cut(V, len), w = cut(W, len);

		EXPECT_EQ(v, value_at(page, offset, len));
		EXPECT_READ(gpa, len, v);
		switch (regs[i].kind) {
		case GPAMAP_REGISTER_READONLY:
			EXPECT_WRITE(gpa, len, w);
			EXPECT_EQ(v, value_at(page, offset, len));
			memcpy(page + offset, &w, len);
			EXPECT_READ(gpa, len, w);
			break;
		case GPAMAP_REGISTER_READWRITE:
			EXPECT_WRITE(gpa, len, w);
			EXPECT_EQ(w, value_at(page, offset, len));
			EXPECT_READ(gpa, len, w);
			memcpy(page + offset, &v, len);
			EXPECT_READ(gpa, len, v);
			break;
		case GPAMAP_REGISTER_WRITE1_CLEAR:
			EXPECT_WRITE(gpa, len, w);
			EXPECT_EQ(v & ~w, value_at(page, offset, len));
			EXPECT_READ(gpa, len, v & ~w);
			EXPECT_WRITE(gpa, len, 0);
			EXPECT_READ(gpa, len, v & ~w);
			break;
		case GPAMAP_REGISTER_READ_CLEAR:
			EXPECT_EQ(0u, value_at(page, offset, len));
			EXPECT_READ(gpa, len, 0);
			memcpy(page + offset, &w, len);
			EXPECT_WRITE(gpa, len, v);
			EXPECT_READ(gpa, len, w);
			EXPECT_READ(gpa, len, 0);
			break;
		case GPAMAP_REGISTER_CONSTANT:
			EXPECT_WRITE(gpa, len, w);
			memcpy(page + offset, &w, len);
			EXPECT_READ(gpa, len, v);
			break;
		}
	}
	munmap(page, PAGE);
}

/* An access of another length or offset is for no register. */
TEST_F(registers, others_leave)
{
	set_registers(DEV, { 8, 4, GPAMAP_REGISTER_READWRITE, 0x12345678 },
		      { PAGE - 8, 8, GPAMAP_REGISTER_READWRITE, 1 });
	EXPECT_READ(A + 8, 4, 0x12345678);
	EXPECT_READ(A + PAGE - 8, 8, 1);
	EXPECT_LEAVES(guest_read(&self->guest, A + 8, 1));
	EXPECT_LEAVES(guest_read(&self->guest, A + 8, 2));
	EXPECT_LEAVES(guest_read(&self->guest, A + 8, 8));
	EXPECT_LEAVES(guest_read(&self->guest, A + 9, 1));
	EXPECT_LEAVES(guest_read(&self->guest, A + 4, 8));
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
	EXPECT_LEAVES(guest_write(&self->guest, A + 8, 2, 0));
	EXPECT_LEAVES(guest_write(&self->guest, A + 10, 2, 0));
	EXPECT_LEAVES(guest_write(&self->guest, A + 12, 4, 0));
	/* Behind the page. */
	EXPECT_LEAVES(guest_read(&self->guest, A + PAGE + 8, 4));
	EXPECT_LEAVES(guest_write(&self->guest, A + PAGE + 8, 4, 0));
	EXPECT_READ(A + 8, 4, 0x12345678);
}

TEST_F(registers, ports)
{
	struct guest_access a;

	set_registers(PDEV, { 0, 1, GPAMAP_REGISTER_CONSTANT, 0xa5 },
		      { 4, 4, GPAMAP_REGISTER_READWRITE, 7 });
	a = guest_in(&self->guest, PORT, 1);
	EXPECT_EQ((int)GUEST_RAM, (int)a.how);
	EXPECT_EQ(0xa5u, a.value);
	EXPECT_DONE(guest_out(&self->guest, PORT + 4, 4, 0xdeadbeef));
	a = guest_in(&self->guest, PORT + 4, 4);
	EXPECT_EQ((int)GUEST_RAM, (int)a.how);
	EXPECT_EQ(0xdeadbeefu, a.value);
	EXPECT_LEAVES(guest_in(&self->guest, PORT + 4, 1));
	EXPECT_LEAVES(guest_out(&self->guest, PORT + 1, 1, 0));
}

/* A doorbell at a register hears of writes after they were stored. */
TEST_F(registers, doorbell)
{
	int bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct gpamap_doorbell cmd = {
		.size = sizeof(cmd),
		.region = DEV,
		.len = 4,
		.offset = 0x10,
		.fd = bell,
	};
	char *page;
	u64 n;

	ASSERT_LE(0, bell);
	set_registers(DEV, { 0x10, 4, GPAMAP_REGISTER_READWRITE, 0 },
		      { 0x14, 4, GPAMAP_REGISTER_READWRITE, 0 });
	ASSERT_EQ(0, map_ioctl(self->fd, GPAMAP_DOORBELL, &cmd));
	page = map_page(self->fd, DEV);
	ASSERT_NE(NULL, page);
	EXPECT_WRITE(A + 0x10, 4, 5);
	EXPECT_WRITE(A + 0x14, 4, 6);
	EXPECT_EQ((ssize_t)sizeof(n), read(bell, &n, sizeof(n)));
	EXPECT_EQ(1u, n);
	EXPECT_EQ(5u, value_at(page, 0x10, 4));
	EXPECT_EQ(6u, value_at(page, 0x14, 4));
	/* Either can go first, and the other stays. */
	ASSERT_EQ(0, remove_rc(self->fd, DEV));
	EXPECT_WRITE(A + 0x10, 4, 7);
	EXPECT_EQ((ssize_t)sizeof(n), read(bell, &n, sizeof(n)));
	EXPECT_LEAVES(guest_read(&self->guest, A + 0x10, 4));
	EXPECT_EQ(5u, value_at(page, 0x10, 4));
	set_registers(DEV, { 0x10, 4, GPAMAP_REGISTER_READWRITE, 9 });
	cmd.flags = GPAMAP_DOORBELL_REMOVE;
	ASSERT_EQ(0, map_ioctl(self->fd, GPAMAP_DOORBELL, &cmd));
	EXPECT_READ(A + 0x10, 4, 9);
	munmap(page, PAGE);
	close(bell);
}

/* They follow the region, as doorbells do. */
TEST_F(registers, rule_43_move_with_the_region)
{
	set_registers(DEV, { 0, 4, GPAMAP_REGISTER_READWRITE, 0x11 },
		      { 0x7fc, 4, GPAMAP_REGISTER_READWRITE, 0x22 });
	EXPECT_READ(A, 4, 0x11);
	apply(op_at(DEV, B));
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
	EXPECT_READ(B, 4, 0x11);
	EXPECT_WRITE(B + 0x7fc, 4, 0x33);
	/* Hidden in part. */
	apply(op_add(MEM, ROOT, B - 0x800, 1));
	EXPECT_LEAVES(guest_read(&self->guest, B + 0x1004, 4));
	EXPECT_READ(B - 0x800, 4, 0);
	EXPECT_READ(B, 4, 0);
	apply(op_del(MEM));
	EXPECT_READ(B, 4, 0x11);
	/* Through an alias: the same registers. */
	apply(op_alias(ALIAS, DEV, 0x7f8, 7), op_add(ALIAS, ROOT, 0x200, 0));
	EXPECT_READ(0x204ULL, 4, 0x33);
	EXPECT_WRITE(0x204ULL, 4, 0x44);
	EXPECT_READ(B + 0x7fc, 4, 0x44);
	apply(op_del(DEV));
	EXPECT_LEAVES(guest_read(&self->guest, B, 4));
	EXPECT_READ(0x204ULL, 4, 0x44);
}

TEST_F(registers, remove)
{
	char *page;

	EXPECT_EQ(-ENOENT, remove_rc(self->fd, DEV));
	set_registers(DEV, { 0, 4, GPAMAP_REGISTER_READWRITE, 1 });
	EXPECT_REFUSED(EEXIST, DEV, { 0, 4, GPAMAP_REGISTER_READWRITE, 2 });
	page = map_page(self->fd, DEV);
	ASSERT_NE(NULL, page);
	apply(op_del(DEV));
	test_err_apply(EBUSY, 0, self->fd, op_destroy(DEV));
	ASSERT_EQ(0, remove_rc(self->fd, DEV));
	EXPECT_EQ(-ENOENT, remove_rc(self->fd, DEV));
	EXPECT_EQ(NULL, map_page(self->fd, DEV));
	EXPECT_EQ(ENOENT, errno);
	apply(op_destroy(DEV));
	/* Who has mapped the page has it still; a new one is another. */
	EXPECT_EQ(1u, value_at(page, 0, 4));
	apply(op_io(DEV, PAGE - 1), op_add(DEV, ROOT, A, 0));
	set_registers(DEV, { 0, 4, GPAMAP_REGISTER_READWRITE, 2 });
	EXPECT_READ(A, 4, 2);
	EXPECT_EQ(1u, value_at(page, 0, 4));
	munmap(page, PAGE);
}

TEST_F(registers, bad_members)
{
	struct gpamap_register reg = { 0, 4, GPAMAP_REGISTER_READWRITE, 0 };
	struct gpamap_registers cmd = {
		.size = sizeof(cmd),
		.region = DEV,
		.nr = 1,
		.register_size = sizeof(reg),
		.registers = (uintptr_t)&reg,
	};
	struct gpamap_registers bad;
	struct gpamap_register *many;
	u32 i;

#define EXPECT_BAD(_errno, _member, _value)					\
	do {									\
		bad = cmd;							\
		bad._member = _value;						\
		EXPECT_EQ(-(_errno), map_ioctl(self->fd, GPAMAP_REGISTERS, &bad)); \
	} while (0)
	EXPECT_BAD(EOPNOTSUPP, flags, 2);
	EXPECT_BAD(EINVAL, flags, GPAMAP_REGISTERS_REMOVE);
	EXPECT_BAD(EINVAL, __reserved, 1);
	EXPECT_BAD(ENOENT, region, 77);
	EXPECT_BAD(ENOENT, region, 0);
	EXPECT_BAD(EINVAL, nr, 0);
	EXPECT_BAD(EINVAL, nr, PAGE + 1);
	EXPECT_BAD(EINVAL, register_size, sizeof(reg) - 1);
	EXPECT_BAD(E2BIG, register_size, PAGE + 1);
	EXPECT_BAD(EFAULT, registers, 8);
	EXPECT_BAD(EOPNOTSUPP, region, MEM);
	EXPECT_BAD(EOPNOTSUPP, region, ROOT);

	EXPECT_REFUSED(EOPNOTSUPP, DEV, { 0, 4, 0, 0 });
	EXPECT_REFUSED(EOPNOTSUPP, DEV, { 0, 4, GPAMAP_REGISTER_CONSTANT + 1, 0 });
	EXPECT_REFUSED(EINVAL, DEV, { 0, 0, GPAMAP_REGISTER_READONLY, 0 });
	EXPECT_REFUSED(EINVAL, DEV, { 0, 3, GPAMAP_REGISTER_READONLY, 0 });
	EXPECT_REFUSED(EINVAL, DEV, { 0, 16, GPAMAP_REGISTER_READONLY, 0 });
	EXPECT_REFUSED(EINVAL, DEV, { 2, 4, GPAMAP_REGISTER_READONLY, 0 });
	EXPECT_REFUSED(EINVAL, DEV, { PAGE, 4, GPAMAP_REGISTER_READONLY, 0 });
	EXPECT_REFUSED(EINVAL, DEV, { 0xfffffff8, 8, GPAMAP_REGISTER_READONLY, 0 });
	EXPECT_REFUSED(EINVAL, DEV, { 0, 1, GPAMAP_REGISTER_READONLY, 0x100 });
	EXPECT_REFUSED(EINVAL, DEV, { 0, 4, GPAMAP_REGISTER_READONLY, 0x100000000 });
	/* Beyond the end of the region. */
	EXPECT_REFUSED(EINVAL, SHORT, { 8, 8, GPAMAP_REGISTER_READONLY, 0 });
	EXPECT_REFUSED(EINVAL, SHORT, { 0, 4, GPAMAP_REGISTER_READONLY, 0 },
		       { 12, 1, GPAMAP_REGISTER_READONLY, 0 });
	/* Overlapping, in either order. */
	EXPECT_REFUSED(EINVAL, DEV, { 8, 4, GPAMAP_REGISTER_READONLY, 0 },
		       { 8, 4, GPAMAP_REGISTER_READONLY, 0 });
	EXPECT_REFUSED(EINVAL, DEV, { 8, 8, GPAMAP_REGISTER_READONLY, 0 },
		       { 15, 1, GPAMAP_REGISTER_READONLY, 0 });
	EXPECT_REFUSED(EINVAL, DEV, { 14, 2, GPAMAP_REGISTER_READONLY, 0 },
		       { 8, 8, GPAMAP_REGISTER_READONLY, 0 });
	EXPECT_REFUSED(EINVAL, DEV, { 12, 4, GPAMAP_REGISTER_READONLY, 0 },
		       { 14, 2, GPAMAP_REGISTER_READONLY, 0 });

	/* None of it has changed anything. */
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
	EXPECT_EQ(-ENOENT, remove_rc(self->fd, DEV));

	/* As many as a page can hold. */
	many = calloc(PAGE, sizeof(*many));
	ASSERT_NE(NULL, many);
	for (i = 0; i < PAGE; i++)
		many[i] = (struct gpamap_register){ i, 1, GPAMAP_REGISTER_READONLY, i & 0xff };
	EXPECT_EQ(0, set_rc(self->fd, DEV, many, PAGE));
	EXPECT_READ(A + PAGE - 1, 1, 0xff);
	free(many);
	/* The largest short one. */
	set_registers(SHORT, { 8, 4, GPAMAP_REGISTER_READONLY, 0 });
}

TEST_F(registers, mapping)
{
	void *p;

	set_registers(DEV, { 0, 4, GPAMAP_REGISTER_READWRITE, 1 });
#define EXPECT_NO_MAPPING(_errno, _len, _flags, _region)			\
	do {									\
		errno = 0;							\
		p = mmap(NULL, _len, PROT_READ, _flags, self->fd,		\
			 (off_t)(_region) * PAGE);				\
		EXPECT_EQ(MAP_FAILED, p);					\
		EXPECT_EQ(_errno, errno);					\
	} while (0)
	EXPECT_NO_MAPPING(ENOENT, PAGE, MAP_SHARED, ROOT);
	EXPECT_NO_MAPPING(ENOENT, PAGE, MAP_SHARED, PDEV);
	EXPECT_NO_MAPPING(ENOENT, PAGE, MAP_SHARED, 0xffffffffULL);
	EXPECT_NO_MAPPING(ENOENT, PAGE, MAP_SHARED, 0x100000002ULL);
	EXPECT_NO_MAPPING(EINVAL, 2 * PAGE, MAP_SHARED, DEV);
	EXPECT_NO_MAPPING(EINVAL, PAGE, MAP_PRIVATE, DEV);
	/* It keeps the map open: the guest's registers too. */
	p = map_page(self->fd, DEV);
	ASSERT_NE(NULL, p);
	close(self->fd);
	self->fd = -1;
	EXPECT_READ(A, 4, 1);
	EXPECT_WRITE(A, 4, 2);
	EXPECT_EQ(2u, value_at(p, 0, 4));
	munmap(p, PAGE);
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
}

struct mapper {
	int fd;
	bool stop;
	u64 tries;
};

static void *map_forever(void *arg)
{
	struct mapper *m = arg;

	while (!__atomic_load_n(&m->stop, __ATOMIC_RELAXED)) {
		void *p = map_page(m->fd, 50);

		if (p)
			munmap(p, PAGE);
		__atomic_add_fetch(&m->tries, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* mmap() looks at regions that a dry run, or a batch that fails, makes and takes back. */
TEST_F(registers, mapping_beside_undone_regions)
{
	struct mapper m = { .fd = self->fd };
	const struct gpamap_op ops[] = { op_io(50, PAGE - 1), op_io(DEV, PAGE - 1) };
	struct gpamap_apply out;
	pthread_t thread;
	u32 i;

	ASSERT_EQ(0, pthread_create(&thread, NULL, map_forever, &m));
	for (i = 0; i < 300 || __atomic_load_n(&m.tries, __ATOMIC_RELAXED) < 300; i++) {
		ASSERT_EQ(0, _test_cmd_plan(self->fd, GPAMAP_APPLY_DRY_RUN, ops, 1, &out));
		ASSERT_EQ(-EEXIST, _test_cmd_plan(self->fd, 0, ops, 2, &out));
	}
	__atomic_store_n(&m.stop, true, __ATOMIC_RELAXED);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(NULL, map_page(self->fd, 50));
	EXPECT_EQ(ENOENT, errno);
}

/* A child has the page too, and it is the same. */
TEST_F(registers, fork)
{
	char *page;
	pid_t pid;

	set_registers(DEV, { 0, 4, GPAMAP_REGISTER_READWRITE, 1 });
	page = map_page(self->fd, DEV);
	ASSERT_NE(NULL, page);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		*(volatile u32 *)page += 41;
		_exit(0);
	}
	ASSERT_CHILD_OK(pid);
	EXPECT_READ(A, 4, 42);
	munmap(page, PAGE);
}

TEST_F(registers, detached)
{
	set_registers(DEV, { 0, 4, GPAMAP_REGISTER_READWRITE, 1 });
	test_cmd_detach(self->fd);
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
	/* Made while detached they are there after ATTACH. */
	set_registers(PDEV, { 0, 4, GPAMAP_REGISTER_CONSTANT, 3 });
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_READ(A, 4, 1);
	EXPECT_EQ(3u, guest_in(&self->guest, PORT, 4).value);
}

TEST_F(registers, library)
{
	const struct gpamap_register regs[] = {
		{ 0, 4, GPAMAP_REGISTER_CONSTANT, 0x74726976 },
		{ 4, 4, GPAMAP_REGISTER_READWRITE, 0 },
	};
	struct gpamap *map;
	void *page;

	ASSERT_EQ(0, gpamap_from_fd(dup(self->fd), &map));
	EXPECT_EQ(-ENOENT, gpamap_registers_map(map, DEV, &page));
	EXPECT_EQ(-ENOENT, gpamap_registers_map(map, 0, &page));
	EXPECT_EQ(-ENOENT, gpamap_registers_set(map, 0, regs, 2));
	ASSERT_EQ(0, gpamap_registers_set(map, DEV, regs, 2));
	EXPECT_EQ(-EEXIST, gpamap_registers_set(map, DEV, regs, 2));
	ASSERT_EQ(0, gpamap_registers_map(map, DEV, &page));
	EXPECT_READ(A, 4, 0x74726976);
	EXPECT_WRITE(A + 4, 4, 8);
	EXPECT_EQ(8u, value_at(page, 4, 4));
	EXPECT_EQ(0, gpamap_registers_remove(map, DEV));
	EXPECT_EQ(-ENOENT, gpamap_registers_remove(map, DEV));
	gpamap_registers_unmap(map, page);
	gpamap_close(map);
}

TEST_HARNESS_MAIN

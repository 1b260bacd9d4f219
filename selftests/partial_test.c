// SPDX-License-Identifier: GPL-2.0
/*
 * Memory in pages that are only in part memory: it cannot be a memslot (MEMORY_MODEL rule
 * 37), and the guest finds it all the same. The bytes are what the host has there, and no
 * access to them leaves to the VMM; bytes beside them, that are no memory, do leave.
 */
#include "harness.h"
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include "gpamap_util.h"
#include "guest_io.h"
#include "vcpu.h"

#define PAGE TEST_PAGE
#define LEN (4 * PAGE)

#define ROOT 1
#define MEM 2			/* ram of LEN, nowhere at first */
#define DEV 3			/* io of 16 bytes, to be laid over it */
#define ROM 4			/* ram of LEN behind an alias that is read-only */
#define VIEW 5			/* alias */
#define ROMD 6
#define SPACE 1

#define A 0x10000000ULL

FIXTURE(partial) {
	int fd;
	struct guest guest;
	void *io;			/* of the guest */
	unsigned char *mem;
};

FIXTURE_SETUP(partial)
{
	u32 i;

	ASSERT_EQ(0, guest_create(&self->guest));
	self->io = guest_io_create(&self->guest);
	ASSERT_NE(NULL, self->io);
	self->mem = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0);
	ASSERT_NE(MAP_FAILED, (void *)self->mem);
	for (i = 0; i < LEN; i++)
		self->mem[i] = i * 7 + (i >> 8);
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_apply(self->fd, op_container(ROOT, U64_MAX), op_ram(MEM, LEN - 1, self->mem),
		       op_io(DEV, 15), op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
}

FIXTURE_TEARDOWN(partial)
{
	close(self->fd);
	guest_destroy(&self->guest);
	munmap(self->io, GUEST_IO_LEN);
	munmap(self->mem, LEN);
}

#define apply(...) test_cmd_apply(self->fd, __VA_ARGS__)

static u32 nr_slots(int fd)
{
	u32 nr = 0;

	free(query_all(fd, GPAMAP_QUERY_SLOTS, 0, &nr));
	return nr;
}

#define EXPECT_NR_SLOTS(_nr) EXPECT_EQ(_nr##u, nr_slots(self->fd))

static u64 host_value(const void *at, u32 len)
{
	u64 value = 0;

	memcpy(&value, at, len);
	return value;
}

/* A read of the guest's comes from memory, and gives what is at @_host. */
#define EXPECT_READ(_gpa, _len, _host)						\
	do {									\
		struct guest_access __a = guest_read(&self->guest, _gpa, _len);	\
		EXPECT_EQ((int)GUEST_RAM, (int)__a.how)				\
			TH_LOG("%u bytes at 0x%llx, exit %d", (u32)(_len),	\
			       (unsigned long long)(_gpa), __a.reason);		\
		EXPECT_EQ(host_value(_host, _len), __a.value)			\
			TH_LOG("%u bytes at 0x%llx", (u32)(_len),		\
			       (unsigned long long)(_gpa));			\
	} while (0)

/* And a write goes there. */
#define EXPECT_WRITE(_gpa, _len, _host)						\
	do {									\
		u64 __v = ~host_value(_host, _len);				\
		struct guest_access __a =					\
			guest_write(&self->guest, _gpa, _len, __v);		\
		EXPECT_EQ((int)GUEST_RAM, (int)__a.how)				\
			TH_LOG("%u bytes at 0x%llx, exit %d", (u32)(_len),	\
			       (unsigned long long)(_gpa), __a.reason);		\
		EXPECT_EQ(0, memcmp(&__v, _host, _len))				\
			TH_LOG("%u bytes at 0x%llx", (u32)(_len),		\
			       (unsigned long long)(_gpa));			\
	} while (0)

#define EXPECT_LEAVES(_access, _gpa)						\
	do {									\
		struct guest_access __a = _access;				\
		EXPECT_EQ((int)GUEST_MMIO, (int)__a.how)			\
			TH_LOG("at 0x%llx, exit %d",				\
			       (unsigned long long)(_gpa), __a.reason);		\
		EXPECT_EQ((u64)(_gpa), __a.mmio_gpa);				\
	} while (0)
#define EXPECT_READ_LEAVES(_gpa, _len)						\
	EXPECT_LEAVES(guest_read(&self->guest, _gpa, _len), _gpa)
#define EXPECT_WRITE_LEAVES(_gpa, _len)						\
	EXPECT_LEAVES(guest_write(&self->guest, _gpa, _len, 0x5a), _gpa)

static const u32 widths[] = { 1, 2, 4, 8 };

/* Memory that begins and ends within pages: what a container cuts off. */
TEST_F(partial, first_and_last_bytes)
{
	/* The last 8 bytes of the first page of MEM to the first 24 of its last. */
	const u64 from = PAGE - 8, len = 2 * PAGE + 32;
	u32 i;

	apply(op_alias(VIEW, MEM, from, len - 1), op_add(VIEW, ROOT, A + from, 0));
	EXPECT_NR_SLOTS(1);
	for (i = 0; i < ARRAY_SIZE(widths); i++) {
		u32 w = widths[i];

		EXPECT_READ(A + PAGE - 8, w, self->mem + PAGE - 8);
		EXPECT_READ(A + PAGE - w, w, self->mem + PAGE - w);
		EXPECT_WRITE(A + PAGE - w, w, self->mem + PAGE - w);
		EXPECT_READ(A + 3 * PAGE, w, self->mem + 3 * PAGE);
		EXPECT_READ(A + 3 * PAGE + 24 - w, w, self->mem + 3 * PAGE + 24 - w);
		EXPECT_WRITE(A + 3 * PAGE + 24 - w, w, self->mem + 3 * PAGE + 24 - w);
		/* What is beside it is nothing. */
		EXPECT_READ_LEAVES(A + PAGE - 8 - w, w);
		EXPECT_WRITE_LEAVES(A + PAGE - 8 - w, w);
		EXPECT_READ_LEAVES(A + 3 * PAGE + 24, w);
		EXPECT_WRITE_LEAVES(A + 3 * PAGE + 24, w);
	}
	/* Misaligned. */
	EXPECT_READ(A + 3 * PAGE + 3, 8, self->mem + 3 * PAGE + 3);
	EXPECT_WRITE(A + 3 * PAGE + 5, 4, self->mem + 3 * PAGE + 5);
	/* From it into the slot, and back. */
	EXPECT_READ(A + PAGE - 3, 8, self->mem + PAGE - 3);
	EXPECT_WRITE(A + PAGE - 5, 8, self->mem + PAGE - 5);
	EXPECT_READ(A + 3 * PAGE - 1, 4, self->mem + 3 * PAGE - 1);
	EXPECT_WRITE(A + 3 * PAGE - 6, 8, self->mem + 3 * PAGE - 6);
}

/* Less than a page, at neither of its borders. */
TEST_F(partial, in_the_middle_of_a_page)
{
	apply(op_alias(VIEW, MEM, 0x100, 63), op_add(VIEW, ROOT, A + 0x100, 0));
	EXPECT_NR_SLOTS(0);
	EXPECT_READ(A + 0x100, 8, self->mem + 0x100);
	EXPECT_WRITE(A + 0x138, 8, self->mem + 0x138);
	EXPECT_READ_LEAVES(A + 0xf8, 8);
	EXPECT_READ_LEAVES(A + 0x140, 8);
	/* Rule 46: an access that meets anything but memory leaves as a whole. */
	EXPECT_READ_LEAVES(A + 0x13c, 8);
	EXPECT_WRITE_LEAVES(A + 0x13c, 8);
	EXPECT_READ_LEAVES(A + 0xfc, 8);
}

/* Rule 46: cut at the borders of memories that touch, though each is elsewhere. */
TEST_F(partial, rule_46_two_memories)
{
	apply(op_alias(VIEW, MEM, 0x200, 15), op_add(VIEW, ROOT, A + 0x200, 0),
	      op_alias(ROM, MEM, 0x210 + PAGE, 15), op_add(ROM, ROOT, A + 0x210, 0));
	EXPECT_READ(A + 0x208, 8, self->mem + 0x208);
	EXPECT_READ(A + 0x210, 8, self->mem + PAGE + 0x210);
	self->mem[0x20c] = 1;
	memcpy(self->mem + 0x20c, "abcd", 4);
	memcpy(self->mem + PAGE + 0x210, "efgh", 4);
	EXPECT_READ(A + 0x20c, 8, "abcdefgh");
	EXPECT_EQ((int)GUEST_RAM,
		  (int)guest_write(&self->guest, A + 0x20c, 8,
				   host_value("ABCDEFGH", 8)).how);
	EXPECT_EQ(0, memcmp("ABCD", self->mem + 0x20c, 4));
	EXPECT_EQ(0, memcmp("EFGH", self->mem + PAGE + 0x210, 4));
	/* With the second read-only nothing is written. */
	apply(op_readonly(ROM, true));
	EXPECT_WRITE_LEAVES(A + 0x20c, 8);
	EXPECT_EQ(0, memcmp("ABCD", self->mem + 0x20c, 4));
	EXPECT_READ(A + 0x20c, 8, "ABCDEFGH");
}

/* A device takes bytes out of a page: the rest of the page is no slot, and is served. */
TEST_F(partial, device_over_memory)
{
	apply(op_add(MEM, ROOT, A, 0));
	EXPECT_NR_SLOTS(1);
	EXPECT_READ(A + PAGE + 0x800, 8, self->mem + PAGE + 0x800);
	apply(op_add(DEV, ROOT, A + PAGE + 0x800, 1));
	EXPECT_NR_SLOTS(2);
	EXPECT_READ_LEAVES(A + PAGE + 0x800, 8);
	EXPECT_WRITE_LEAVES(A + PAGE + 0x808, 8);
	EXPECT_READ(A + PAGE + 0x7f8, 8, self->mem + PAGE + 0x7f8);
	EXPECT_READ(A + PAGE, 8, self->mem + PAGE);
	EXPECT_WRITE(A + PAGE + 0x810, 8, self->mem + PAGE + 0x810);
	EXPECT_WRITE(A + 2 * PAGE - 8, 8, self->mem + 2 * PAGE - 8);
	/* It moves to another page, and goes: slots again. */
	apply(op_at(DEV, A + 2 * PAGE));
	EXPECT_READ(A + PAGE + 0x800, 8, self->mem + PAGE + 0x800);
	EXPECT_READ_LEAVES(A + 2 * PAGE + 8, 8);
	EXPECT_READ(A + 2 * PAGE + 16, 8, self->mem + 2 * PAGE + 16);
	apply(op_del(DEV));
	EXPECT_READ(A + 2 * PAGE, 8, self->mem + 2 * PAGE);
	EXPECT_WRITE(A + 2 * PAGE + 16, 8, self->mem + 2 * PAGE + 16);
}

/* Read-only memory and a rom device in romd mode: reads are served, writes leave. */
TEST_F(partial, read_only)
{
	struct guest_access a;

	apply(op_alias(VIEW, MEM, 0x100, 63), op_readonly(VIEW, true),
	      op_add(VIEW, ROOT, A + 0x100, 0));
	EXPECT_READ(A + 0x120, 8, self->mem + 0x120);
	EXPECT_WRITE_LEAVES(A + 0x120, 8);
	apply(op_romd(ROMD, 63, self->mem + PAGE), op_add(ROMD, ROOT, A + 0x1000, 0));
	apply(op_romd_mode(ROMD, true));
	EXPECT_READ(A + 0x1010, 4, self->mem + PAGE + 0x10);
	EXPECT_WRITE_LEAVES(A + 0x1010, 4);
	a = guest_write(&self->guest, A + 0x1014, 4, 0x12345678);
	EXPECT_EQ(0x12345678u, a.mmio_value);
}

/* The memory is not there any more: the access leaves to the VMM, and nothing breaks. */
TEST_F(partial, unmapped_on_the_host)
{
	apply(op_alias(VIEW, MEM, 0x100, 63), op_add(VIEW, ROOT, A + 0x100, 0));
	EXPECT_READ(A + 0x100, 8, self->mem + 0x100);
	ASSERT_EQ(0, mprotect(self->mem, PAGE, PROT_READ));
	EXPECT_READ(A + 0x100, 8, self->mem + 0x100);
	EXPECT_WRITE_LEAVES(A + 0x100, 8);
	ASSERT_EQ(0, munmap(self->mem, PAGE));
	EXPECT_READ_LEAVES(A + 0x100, 8);
	EXPECT_WRITE_LEAVES(A + 0x100, 8);
	ASSERT_EQ((void *)self->mem, mmap(self->mem, PAGE, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	EXPECT_READ(A + 0x100, 8, self->mem + 0x100);
	EXPECT_WRITE(A + 0x100, 8, self->mem + 0x100);
}

/* What is shown among ports is no memory there, whatever it is. */
TEST_F(partial, ports)
{
	apply(op_container(ROM, 0xffff), op_alias(VIEW, MEM, 0x100, 63),
	      op_add(VIEW, ROM, 0x500, 0), op_space(SPACE + 1, GPAMAP_SPACE_IO, ROM));
	EXPECT_LEAVES(guest_in(&self->guest, 0x500, 4), 0x500);
	EXPECT_LEAVES(guest_out(&self->guest, 0x510, 1, 1), 0x510);
}

/*
 * What is memory before and after stays memory in between, whether it is in a slot or not:
 * a vCPU that counts there never leaves, and loses no count.
 */
#define EXPECT_NEVER_LEAVES(_gpa, _there, _back)				\
	do {									\
		volatile u64 *__hva = (u64 *)(self->mem + ((_gpa) - A));	\
		struct vcpu __v;						\
		u64 __old;							\
		u32 __i;							\
		vcpu_first(&__v, &self->guest);					\
		ASSERT_EQ(0, vcpu_start(&__v, GUEST_COUNT, _gpa, 0, 0));	\
		for (__i = 0; __i < 200 && !vcpu_read(__v.ended); __i++) {	\
			apply(_there);						\
			apply(_back);						\
			__old = *__hva;						\
			wait_until(*__hva != __old || vcpu_read(__v.ended));	\
		}								\
		EXPECT_EQ(0, vcpu_stop(&__v))					\
			TH_LOG("after %u changes: %s", __i, vcpu_text(&__v));	\
	} while (0)

TEST_F_TIMEOUT(partial, slot_becomes_partial_under_vcpu, 120)
{
	apply(op_alias(VIEW, MEM, 0, PAGE - 1), op_add(VIEW, ROOT, A, 0));
	EXPECT_NEVER_LEAVES(A + 0x100, op_last(VIEW, 0x7ff), op_last(VIEW, PAGE - 1));
}

TEST_F_TIMEOUT(partial, device_comes_and_goes_under_vcpu, 120)
{
	apply(op_add(MEM, ROOT, A, 0), op_add(DEV, ROOT, A + PAGE + 0x800, 1));
	EXPECT_NEVER_LEAVES(A + PAGE + 0x100, op_enable(DEV, false), op_enable(DEV, true));
}

/*
 * What the guest does in one access is one access of the memory, which may be a device's. The
 * machine has an I/O APIC that answers its data window for accesses of 4 bytes only (QEMU's;
 * with iomem=relaxed it can be mapped): here it is the device that the guest is given.
 */
TEST_F(partial, one_access_is_one)
{
	int fd = open("/dev/mem", O_RDWR | O_SYNC | O_CLOEXEC);
	volatile u32 *dev;
	u32 version;

	if (fd < 0 && errno == ENOENT)
		SKIP(return, "this kernel has no /dev/mem");
	ASSERT_LE(0, fd);
	dev = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0xfec00000);
	ASSERT_NE(MAP_FAILED, (void *)dev);
	dev[0] = 1;
	version = dev[4];
	ASSERT_NE(0u, version);
	/* A slot. */
	apply(op_ram(5, PAGE - 1, (void *)dev), op_add(5, ROOT, A, 0));
	EXPECT_NR_SLOTS(1);
	dev[0] = 1;
	EXPECT_EQ(version, guest_read(&self->guest, A + 16, 4).value);
	/* A trapped table elsewhere in the page: no slot, the same values. */
	apply(op_add(DEV, ROOT, A + 0x800, 1));
	EXPECT_NR_SLOTS(0);
	EXPECT_EQ((int)GUEST_RAM, (int)guest_write(&self->guest, A, 4, 0).how);
	EXPECT_EQ(0u, dev[0]);
	EXPECT_EQ((int)GUEST_RAM, (int)guest_write(&self->guest, A, 4, 1).how);
	EXPECT_EQ(1u, dev[0]);
	EXPECT_EQ(version, guest_read(&self->guest, A + 16, 4).value);
	/* At another place in the page than the host's, too. */
	apply(op_at(5, A + 0x200));
	EXPECT_EQ(version, guest_read(&self->guest, A + 0x210, 4).value);
	munmap((void *)dev, PAGE);
	close(fd);
}

/* After DETACH and close nobody answers. */
TEST_F(partial, detached)
{
	apply(op_alias(VIEW, MEM, 0x100, 63), op_add(VIEW, ROOT, A + 0x100, 0));
	EXPECT_READ(A + 0x100, 8, self->mem + 0x100);
	test_cmd_detach(self->fd);
	EXPECT_READ_LEAVES(A + 0x100, 8);
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_READ(A + 0x100, 8, self->mem + 0x100);
	close(self->fd);
	EXPECT_READ_LEAVES(A + 0x100, 8);
	self->fd = map_open();
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * gvmm's disk as a driver sees it, on the host, with sanitizers: the transport's registers,
 * the queue, the requests; and a driver that does what none may do. Above all that is what
 * Linux as a guest never tries: loops, addresses that are no memory, indices out of range,
 * sectors beyond the end.
 *
 * Linked with samples/gvmm's virtio_mmio.c, virtqueue.c and blk.c. This file stands for the
 * rest of gvmm: guest memory is an array with a hole in it, in pieces of SEAM bytes, and
 * the test is the vCPU. InterruptStatus tells when the device's thread has done something.
 */
#include "../../samples/gvmm/virtio.h"
#include "kselftest/kselftest_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <gpamap.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define RAM_LEN 0x40000
#define SEAM 0x8000		/* memory is one piece up to a multiple of this */
#define HOLE 0x30000
#define HOLE_LEN 0x1000
#define SECTOR 512
#define SECTORS 64
#define QUEUE_LEN 16

/* Where the driver keeps what. */
#define DESC 0x1000
#define AVAIL 0x2000
#define USED 0x3000
#define HEADER 0x4000
#define STATUS 0x5000
#define DATA 0x7e00		/* one sector below a seam */

static uint8_t ram[RAM_LEN];
static uint32_t page[0x1000 / 4];
static io_access *access_device;
static int notify_fd;

/* ---- what the rest of gvmm does --------------------------------------- */

void fail(const char *fmt, ...)
{
	fputs(fmt, stderr);
	exit(1);
}

const char *error_name(int err)
{
	return strerrorname_np(err);
}

uint32_t memory_add_io(struct gvmm *vm, const char *name, uint64_t gpa, uint64_t len,
		       io_access *access, void *device)
{
	access_device = access;
	return 20;
}

void memory_tie(struct gvmm *vm, uint32_t region, const struct io_ties *ties)
{
	uint32_t i;

	for (i = 0; i < ties->nr_registers; i++)
		page[ties->registers[i].offset / 4] = ties->registers[i].value;
	notify_fd = ties->doorbells[0].fd;
}

_Atomic uint32_t *memory_registers(struct gvmm *vm, uint32_t region)
{
	return (_Atomic uint32_t *)page;
}

int memory_dma(struct gvmm *vm, uint64_t gpa, uint64_t len, bool write, struct iovec *iov,
	       unsigned int max)
{
	unsigned int nr = 0;
	uint64_t n;

	for (; len; len -= n, gpa += n) {
		if (nr == max || gpa >= RAM_LEN || (gpa >= HOLE && gpa < HOLE + HOLE_LEN))
			return -1;
		n = SEAM - gpa % SEAM;
		if (gpa < HOLE && n > HOLE - gpa)
			n = HOLE - gpa;
		if (n > len)
			n = len;
		iov[nr++] = (struct iovec){ .iov_base = ram + gpa, .iov_len = n };
	}
	return nr;
}

/* ---- a driver --------------------------------------------------------- */

FIXTURE(disk)
{
	struct gvmm *vm;
	struct virtio_device *dev;
	char path[32];
	uint16_t avail;			/* chains made available so far */
};

FIXTURE_VARIANT(disk)
{
	bool readonly;
};

FIXTURE_VARIANT_ADD(disk, writable)
{
	.readonly = false,
};

FIXTURE_VARIANT_ADD(disk, readonly)
{
	.readonly = true,
};

static void put(FIXTURE_DATA(disk) *self, uint64_t offset, uint32_t value)
{
	access_device(self->dev, offset, true, (uint8_t *)&value, sizeof(value));
}

static uint32_t get(FIXTURE_DATA(disk) *self, uint64_t offset)
{
	uint32_t value;

	access_device(self->dev, offset, false, (uint8_t *)&value, sizeof(value));
	return value;
}

static void negotiate(FIXTURE_DATA(disk) *self)
{
	put(self, VIRTIO_MMIO_STATUS, 0);
	put(self, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	put(self, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	put(self, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	put(self, VIRTIO_MMIO_DRIVER_FEATURES, 1 << (VIRTIO_F_VERSION_1 - 32));
	put(self, VIRTIO_MMIO_STATUS, 11);
}

static void set_queue(FIXTURE_DATA(disk) *self, uint32_t num, uint64_t used)
{
	put(self, VIRTIO_MMIO_QUEUE_SEL, 0);
	put(self, VIRTIO_MMIO_QUEUE_NUM, num);
	put(self, VIRTIO_MMIO_QUEUE_DESC_LOW, DESC);
	put(self, VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAIL);
	put(self, VIRTIO_MMIO_QUEUE_USED_LOW, used);
	put(self, VIRTIO_MMIO_QUEUE_USED_HIGH, used >> 32);
	put(self, VIRTIO_MMIO_QUEUE_READY, 1);
}

static void bring_up(FIXTURE_DATA(disk) *self)
{
	memset(ram, 0, sizeof(ram));
	self->avail = 0;
	negotiate(self);
	set_queue(self, QUEUE_LEN, USED);
	put(self, VIRTIO_MMIO_STATUS, 15);
}

static uint8_t pattern(unsigned int sector)
{
	return 0x40 + sector;
}

FIXTURE_SETUP(disk)
{
	uint8_t sector[SECTOR];
	unsigned int i;
	int fd;

	strcpy(self->path, "/tmp/virtio_test.XXXXXX");
	fd = mkstemp(self->path);
	ASSERT_LE(0, fd);
	for (i = 0; i < SECTORS; i++) {
		memset(sector, pattern(i), sizeof(sector));
		ASSERT_EQ(SECTOR, write(fd, sector, sizeof(sector)));
	}
	close(fd);
	self->vm = calloc(1, sizeof(*self->vm));
	ASSERT_NE(NULL, self->vm);
	self->vm->vm_fd = -1;
	blk_add(self->vm, self->path, variant->readonly);
	self->dev = self->vm->virtio[0];
	virtio_tie(self->vm);
	virtio_connect(self->vm);
	virtio_start(self->vm);
	bring_up(self);
	ASSERT_EQ(15, get(self, VIRTIO_MMIO_STATUS));
}

FIXTURE_TEARDOWN(disk)
{
	virtio_stop(self->vm);
	unlink(self->path);
}

static void describe(unsigned int index, uint64_t addr, uint32_t len, uint16_t flags,
		     uint16_t next)
{
	((struct vring_desc *)(ram + DESC))[index] = (struct vring_desc){
		.addr = addr, .len = len, .flags = flags, .next = next,
	};
}

/* Makes the chain that begins with descriptor @head available, and rings. */
static void submit(FIXTURE_DATA(disk) *self, uint16_t head)
{
	struct vring_avail *avail = (struct vring_avail *)(ram + AVAIL);

	avail->ring[self->avail % QUEUE_LEN] = head;
	__atomic_store_n(&avail->idx, ++self->avail, __ATOMIC_RELEASE);
	eventfd_write(notify_fd, 1);
}

/* Waits for an interrupt and acknowledges it; returns its cause, 0 if none comes. */
static uint32_t interrupt(FIXTURE_DATA(disk) *self)
{
	_Atomic uint32_t *status = (_Atomic uint32_t *)page + VIRTIO_MMIO_INTERRUPT_STATUS / 4;
	unsigned int tries = 0;
	uint32_t why;

	while (!(why = atomic_load(status)) && tries++ < 5000)
		usleep(1000);
	put(self, VIRTIO_MMIO_INTERRUPT_ACK, why);
	return atomic_load(status) ? 0 : why;
}

static void set_header(uint32_t type, uint64_t sector)
{
	struct virtio_blk_outhdr *header = (struct virtio_blk_outhdr *)(ram + HEADER);

	*header = (struct virtio_blk_outhdr){ .type = type, .sector = sector };
	ram[STATUS] = 0xee;
}

/* A request as Linux makes it; returns its status, 0xee if there was no answer. */
static uint8_t request(FIXTURE_DATA(disk) *self, uint32_t type, uint64_t sector,
		       uint32_t len)
{
	bool in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID;

	set_header(type, sector);
	describe(0, HEADER, sizeof(struct virtio_blk_outhdr), VRING_DESC_F_NEXT, 1);
	describe(1, DATA, len, VRING_DESC_F_NEXT | (in ? VRING_DESC_F_WRITE : 0), 2);
	describe(2, STATUS, 1, VRING_DESC_F_WRITE, 0);
	submit(self, 0);
	return interrupt(self) == VIRTIO_MMIO_INT_VRING ? ram[STATUS] : 0xee;
}

/* The device must have asked for a reset, be silent until it comes, and work after it. */
static void expect_broken(struct __test_metadata *_metadata, FIXTURE_DATA(disk) *self)
{
	EXPECT_EQ(VIRTIO_MMIO_INT_CONFIG, interrupt(self));
	EXPECT_TRUE(get(self, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	put(self, VIRTIO_MMIO_STATUS, 15);
	EXPECT_TRUE(get(self, VIRTIO_MMIO_STATUS) & VIRTIO_CONFIG_S_NEEDS_RESET);
	bring_up(self);
	EXPECT_EQ(15, get(self, VIRTIO_MMIO_STATUS));
	EXPECT_EQ(VIRTIO_BLK_S_OK, request(self, VIRTIO_BLK_T_IN, 3, SECTOR));
	EXPECT_EQ(pattern(3), ram[DATA]);
}

/* ---- tests ------------------------------------------------------------ */

TEST_F(disk, registers)
{
	uint32_t features;

	EXPECT_EQ(0x74726976, page[VIRTIO_MMIO_MAGIC_VALUE / 4]);
	EXPECT_EQ(2, page[VIRTIO_MMIO_VERSION / 4]);
	EXPECT_EQ(2, page[VIRTIO_MMIO_DEVICE_ID / 4]);
	EXPECT_EQ(SECTORS, page[VIRTIO_MMIO_CONFIG / 4]);
	EXPECT_EQ(SECTORS, get(self, VIRTIO_MMIO_CONFIG));
	EXPECT_EQ(0, get(self, VIRTIO_MMIO_CONFIG + 0x80));
	put(self, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	features = get(self, VIRTIO_MMIO_DEVICE_FEATURES);
	EXPECT_EQ(variant->readonly, features >> VIRTIO_BLK_F_RO & 1);
	EXPECT_FALSE(features & 1 << VIRTIO_RING_F_INDIRECT_DESC);
	put(self, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	EXPECT_EQ(1, get(self, VIRTIO_MMIO_DEVICE_FEATURES));
	put(self, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
	EXPECT_EQ(0, get(self, VIRTIO_MMIO_DEVICE_FEATURES));
	EXPECT_EQ(VIRTIO_QUEUE_LEN, get(self, VIRTIO_MMIO_QUEUE_NUM_MAX));
	EXPECT_EQ(1, get(self, VIRTIO_MMIO_QUEUE_READY));
	put(self, VIRTIO_MMIO_QUEUE_SEL, 1);
	EXPECT_EQ(0, get(self, VIRTIO_MMIO_QUEUE_NUM_MAX));
	put(self, VIRTIO_MMIO_QUEUE_SEL, UINT32_MAX);
	put(self, VIRTIO_MMIO_QUEUE_READY, 1);
	EXPECT_EQ(0, get(self, VIRTIO_MMIO_QUEUE_READY));
}

/* Other widths than four bytes, and offsets between registers. */
TEST_F(disk, odd_accesses)
{
	uint8_t data[8];

	memset(data, 0xff, sizeof(data));
	access_device(self->dev, VIRTIO_MMIO_STATUS, false, data, 1);
	EXPECT_EQ(0, data[0]);
	memset(data, 0, sizeof(data));
	access_device(self->dev, VIRTIO_MMIO_STATUS, true, data, 1);
	access_device(self->dev, VIRTIO_MMIO_STATUS + 2, true, data, 4);
	access_device(self->dev, VIRTIO_MMIO_STATUS, true, data, 8);
	EXPECT_EQ(15, get(self, VIRTIO_MMIO_STATUS));
	access_device(self->dev, VIRTIO_MMIO_CONFIG + 1, false, data, 2);
	EXPECT_EQ(0, data[0]);
	access_device(self->dev, VIRTIO_MMIO_CONFIG, false, data, 1);
	EXPECT_EQ(SECTORS, data[0]);
	access_device(self->dev, 0xff8, false, data, 8);
	EXPECT_EQ(0, data[0]);
	access_device(self->dev, VIRTIO_MMIO_CONFIG, true, data, 4);
	EXPECT_EQ(SECTORS, get(self, VIRTIO_MMIO_CONFIG));
}

TEST_F(disk, features_that_are_not_offered)
{
	negotiate(self);
	EXPECT_EQ(11, get(self, VIRTIO_MMIO_STATUS));
	put(self, VIRTIO_MMIO_STATUS, 0);
	put(self, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	put(self, VIRTIO_MMIO_DRIVER_FEATURES, 3);
	put(self, VIRTIO_MMIO_STATUS, 11);
	EXPECT_EQ(3, get(self, VIRTIO_MMIO_STATUS));
	/* Nor without VERSION_1. */
	put(self, VIRTIO_MMIO_STATUS, 0);
	put(self, VIRTIO_MMIO_STATUS, 11);
	EXPECT_EQ(3, get(self, VIRTIO_MMIO_STATUS));
}

TEST_F(disk, reads)
{
	unsigned int i;

	EXPECT_EQ(VIRTIO_BLK_S_OK, request(self, VIRTIO_BLK_T_IN, 7, 3 * SECTOR));
	for (i = 0; i < 3 * SECTOR; i++)
		ASSERT_EQ(pattern(7 + i / SECTOR), ram[DATA + i]);
	EXPECT_EQ(0, ram[DATA + i]);
	EXPECT_EQ(VIRTIO_BLK_S_OK, request(self, VIRTIO_BLK_T_IN, SECTORS - 1, SECTOR));
	EXPECT_EQ(pattern(SECTORS - 1), ram[DATA]);
	/* More requests than the queue has descriptors. */
	for (i = 0; i < 3 * QUEUE_LEN; i++) {
		ASSERT_EQ(VIRTIO_BLK_S_OK, request(self, VIRTIO_BLK_T_IN, i, SECTOR));
		ASSERT_EQ(pattern(i), ram[DATA]);
	}
}

TEST_F(disk, writes)
{
	uint8_t want = variant->readonly ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK;
	uint8_t sector[SECTOR];
	int fd = open(self->path, O_RDONLY);

	memset(ram + DATA, 0x11, 2 * SECTOR);
	EXPECT_EQ(want, request(self, VIRTIO_BLK_T_OUT, 5, 2 * SECTOR));
	EXPECT_EQ(VIRTIO_BLK_S_OK, request(self, VIRTIO_BLK_T_FLUSH, 0, 0));
	ASSERT_EQ(SECTOR, pread(fd, sector, SECTOR, 6 * SECTOR));
	EXPECT_EQ(variant->readonly ? pattern(6) : 0x11, sector[SECTOR - 1]);
	ASSERT_EQ(SECTOR, pread(fd, sector, SECTOR, 7 * SECTOR));
	EXPECT_EQ(pattern(7), sector[0]);
	close(fd);
}

TEST_F(disk, beyond_the_end)
{
	static const struct {
		uint64_t sector;
		uint32_t len;
	} bad[] = {
		{ SECTORS, SECTOR }, { SECTORS - 1, 2 * SECTOR }, { SECTORS + 1, SECTOR },
		{ UINT64_MAX, SECTOR }, { UINT64_MAX / SECTOR, SECTOR },
		{ UINT64_MAX / SECTOR + 1, SECTOR }, { UINT64_MAX - 1, 2 * SECTOR },
		{ 0, SECTOR - 1 }, { 0, SECTOR + 1 }, { 0, 1 },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(VIRTIO_BLK_S_IOERR, request(self, VIRTIO_BLK_T_IN, bad[i].sector,
						      bad[i].len));
		EXPECT_EQ(0, ram[DATA]);
		EXPECT_EQ(VIRTIO_BLK_S_IOERR, request(self, VIRTIO_BLK_T_OUT, bad[i].sector,
						      bad[i].len));
	}
	EXPECT_EQ(VIRTIO_BLK_S_OK, request(self, VIRTIO_BLK_T_IN, SECTORS, 0));
	EXPECT_EQ(SECTORS * SECTOR, lseek(open(self->path, O_RDONLY), 0, SEEK_END));
}

TEST_F(disk, other_types)
{
	static const uint32_t types[] = {
		VIRTIO_BLK_T_SCSI_CMD, 3, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES,
		VIRTIO_BLK_T_BARRIER, UINT32_MAX,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		EXPECT_EQ(VIRTIO_BLK_S_UNSUPP, request(self, types[i], 0, SECTOR));
	EXPECT_EQ(VIRTIO_BLK_S_OK, request(self, VIRTIO_BLK_T_GET_ID, 0, VIRTIO_BLK_ID_BYTES));
	EXPECT_STREQ("virtio-blk.0", (char *)ram + DATA);
	/* No more of it than there is room. */
	memset(ram + DATA, 0, SECTOR);
	EXPECT_EQ(VIRTIO_BLK_S_OK, request(self, VIRTIO_BLK_T_GET_ID, 0, 3));
	EXPECT_STREQ("vir", (char *)ram + DATA);
}

/* A file that has become shorter meanwhile. */
TEST_F(disk, file_cut)
{
	ASSERT_EQ(0, truncate(self->path, SECTOR + 10));
	EXPECT_EQ(VIRTIO_BLK_S_OK, request(self, VIRTIO_BLK_T_IN, 0, SECTOR));
	EXPECT_EQ(VIRTIO_BLK_S_IOERR, request(self, VIRTIO_BLK_T_IN, 1, SECTOR));
	EXPECT_EQ(VIRTIO_BLK_S_IOERR, request(self, VIRTIO_BLK_T_IN, 2, SECTOR));
}

/* Header, data and status may be cut into descriptors anyhow (virtio 1.2, 2.7.4). */
TEST_F(disk, any_layout)
{
	struct vring_used *used = (struct vring_used *)(ram + USED);
	unsigned int i;

	set_header(VIRTIO_BLK_T_IN, 9);
	for (i = 0; i < 4; i++)
		describe(10 - i, HEADER + 4 * i, 4, VRING_DESC_F_NEXT, 10 - i - 1);
	describe(6, DATA, 0, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
	describe(1, DATA, 100, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 0);
	describe(0, DATA + 100, SECTOR - 100 + 1, VRING_DESC_F_WRITE, 0);
	submit(self, 10);
	EXPECT_EQ(VIRTIO_MMIO_INT_VRING, interrupt(self));
	EXPECT_EQ(VIRTIO_BLK_S_OK, ram[DATA + SECTOR]);
	EXPECT_EQ(pattern(9), ram[DATA]);
	EXPECT_EQ(pattern(9), ram[DATA + SECTOR - 1]);
	EXPECT_EQ(1, used->idx);
	EXPECT_EQ(10, used->ring[0].id);
	EXPECT_EQ(SECTOR + 1, used->ring[0].len);
}

TEST_F(disk, no_interrupt_wanted)
{
	struct vring_avail *avail = (struct vring_avail *)(ram + AVAIL);
	struct vring_used *used = (struct vring_used *)(ram + USED);
	unsigned int tries = 0;

	avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	set_header(VIRTIO_BLK_T_FLUSH, 0);
	describe(0, HEADER, sizeof(struct virtio_blk_outhdr), VRING_DESC_F_NEXT, 1);
	describe(1, STATUS, 1, VRING_DESC_F_WRITE, 0);
	submit(self, 0);
	while (!__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) && tries++ < 5000)
		usleep(1000);
	/* The lock is let go when the request is done with. */
	EXPECT_EQ(15, get(self, VIRTIO_MMIO_STATUS));
	EXPECT_EQ(VIRTIO_BLK_S_OK, ram[STATUS]);
	EXPECT_EQ(0, page[VIRTIO_MMIO_INTERRUPT_STATUS / 4]);
}

/* ---- what no driver may do -------------------------------------------- */

TEST_F(disk, queue_that_cannot_be)
{
	static const struct {
		uint32_t num;
		uint64_t used;
	} bad[] = {
		{ 0, USED }, { 12, USED }, { 2 * VIRTIO_QUEUE_LEN, USED }, { UINT32_MAX, USED },
		{ QUEUE_LEN, USED + 2 }, { QUEUE_LEN, RAM_LEN }, { QUEUE_LEN, UINT64_MAX - 3 },
		{ QUEUE_LEN, HOLE - 4 }, { QUEUE_LEN, HOLE }, { QUEUE_LEN, SEAM - 8 },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		negotiate(self);
		set_queue(self, bad[i].num, bad[i].used);
		EXPECT_EQ(0, get(self, VIRTIO_MMIO_QUEUE_READY));
		expect_broken(_metadata, self);
	}
}

/* A queue that is ready stays where it is. */
TEST_F(disk, queue_moved_while_ready)
{
	put(self, VIRTIO_MMIO_QUEUE_NUM, 2);
	put(self, VIRTIO_MMIO_QUEUE_DESC_LOW, HOLE);
	put(self, VIRTIO_MMIO_QUEUE_READY, 1);
	EXPECT_EQ(VIRTIO_BLK_S_OK, request(self, VIRTIO_BLK_T_IN, 2, SECTOR));
	put(self, VIRTIO_MMIO_QUEUE_READY, 0);
	EXPECT_EQ(0, get(self, VIRTIO_MMIO_QUEUE_READY));
}

TEST_F(disk, loop)
{
	describe(0, HEADER, 16, VRING_DESC_F_NEXT, 1);
	describe(1, DATA, 16, VRING_DESC_F_NEXT, 0);
	submit(self, 0);
	expect_broken(_metadata, self);
	/* One that takes no room in any list. */
	describe(0, DATA, 0, VRING_DESC_F_NEXT, 0);
	submit(self, 0);
	expect_broken(_metadata, self);
}

TEST_F(disk, indices_out_of_range)
{
	submit(self, QUEUE_LEN);
	expect_broken(_metadata, self);
	submit(self, UINT16_MAX);
	expect_broken(_metadata, self);
	describe(0, HEADER, 16, VRING_DESC_F_NEXT, QUEUE_LEN);
	submit(self, 0);
	expect_broken(_metadata, self);
	/* More made available than there are. */
	self->avail += QUEUE_LEN;
	submit(self, 0);
	expect_broken(_metadata, self);
}

TEST_F(disk, indirect_descriptor)
{
	describe(0, HEADER, 16, VRING_DESC_F_INDIRECT, 0);
	submit(self, 0);
	expect_broken(_metadata, self);
}

TEST_F(disk, readable_after_writable)
{
	describe(0, STATUS, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
	describe(1, HEADER, 16, 0, 0);
	submit(self, 0);
	expect_broken(_metadata, self);
}

TEST_F(disk, addresses_that_are_no_memory)
{
	static const struct {
		uint64_t addr;
		uint32_t len;
	} bad[] = {
		{ RAM_LEN, 1 }, { RAM_LEN - SECTOR + 1, SECTOR }, { HOLE, 1 },
		{ HOLE - 1, 2 }, { UINT64_MAX, 1 }, { UINT64_MAX, 2 },
		{ UINT64_MAX - SECTOR + 1, 2 * SECTOR }, { 0, UINT32_MAX },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		set_header(VIRTIO_BLK_T_IN, 0);
		describe(0, HEADER, 16, VRING_DESC_F_NEXT, 1);
		describe(1, bad[i].addr, bad[i].len,
			 VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 2);
		describe(2, STATUS, 1, VRING_DESC_F_WRITE, 0);
		submit(self, 0);
		expect_broken(_metadata, self);
	}
}

TEST_F(disk, requests_that_cannot_be_answered)
{
	/* No status. */
	set_header(VIRTIO_BLK_T_FLUSH, 0);
	describe(0, HEADER, 16, 0, 0);
	submit(self, 0);
	expect_broken(_metadata, self);
	/* Half a header. */
	describe(0, HEADER, 15, VRING_DESC_F_NEXT, 1);
	describe(1, STATUS, 1, VRING_DESC_F_WRITE, 0);
	submit(self, 0);
	expect_broken(_metadata, self);
	/* No header. */
	describe(0, STATUS, 1, VRING_DESC_F_WRITE, 0);
	submit(self, 0);
	expect_broken(_metadata, self);
	/* Nothing at all. */
	describe(0, HEADER, 0, 0, 0);
	submit(self, 0);
	expect_broken(_metadata, self);
}

/* The device's memory is not touched after a reset, whatever is under way. */
TEST_F(disk, reset_under_way)
{
	unsigned int i, k;

	for (i = 0; i < 200; i++) {
		set_header(VIRTIO_BLK_T_IN, 0);
		describe(0, HEADER, 16, VRING_DESC_F_NEXT, 1);
		describe(1, DATA, 8 * SECTOR, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 2);
		describe(2, STATUS, 1, VRING_DESC_F_WRITE, 0);
		for (k = 0; k < QUEUE_LEN; k++)
			submit(self, 0);
		put(self, VIRTIO_MMIO_STATUS, 0);
		memset(ram, 0, sizeof(ram));
		EXPECT_EQ(0, page[VIRTIO_MMIO_INTERRUPT_STATUS / 4]);
		bring_up(self);
	}
	for (k = 0; k < RAM_LEN; k++)
		ASSERT_EQ(0, ram[k]);
}

TEST_HARNESS_MAIN

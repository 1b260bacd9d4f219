// SPDX-License-Identifier: GPL-2.0
/*
 * Posted writes: a guest writes and goes on, and the VMM finds the writes in a ring, in
 * their order; what finds the ring full leaves, and nothing is lost. The first part reads
 * rings by itself, so that what the kernel writes is seen as it is; the second uses the
 * library. In the last part vCPUs write without pause while all else changes, and each
 * must see its writes done one after the other, whichever way they went.
 *
 * MOVES in the environment: how often things change under running vCPUs (300).
 */
#include "harness.h"
#include <fcntl.h>
#include <gpamap.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include "answers.h"
#include "gpamap_util.h"
#include "guest_io.h"
#include "leaks.h"

#define PAGE TEST_PAGE

#define ROOT 1
#define DEV 2			/* io, two pages, at A */
#define OTHER 3			/* io, a page, at B */
#define PORTS 4
#define PDEV 5			/* io, 16 ports, at PORT */
#define MEM 6			/* ram, a page */
#define ALIAS 7
#define ALIAS2 8
#define NEW 100
#define SPACE 1
#define IO_SPACE 2
#define RING 11			/* ids of rings */
#define RING2 0xfffffffeU

#define A 0x10000000ULL
#define B 0x50000800ULL
#define C 0x140000000ULL
#define PORT 0x500

FIXTURE(ring) {
	int fd;
	struct guest guest;
	void *io;			/* of the guest */
	char *mem;
	int bell;			/* of rings */
	int bell2;
};

static int create_map(int vm, char *mem)
{
	struct gpamap_op ops[] = {
		op_container(ROOT, U64_MAX),
		op_io(DEV, 2 * PAGE - 1),
		op_io(OTHER, PAGE - 1),
		op_container(PORTS, 0xffff),
		op_io(PDEV, 15),
		op_ram(MEM, PAGE - 1, mem),
		op_add(DEV, ROOT, A, 0),
		op_add(OTHER, ROOT, B, 0),
		op_add(PDEV, PORTS, PORT, 0),
		op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT),
		op_space(IO_SPACE, GPAMAP_SPACE_IO, PORTS),
	};
	int fd = map_open();
	int rc;

	if (fd < 0)
		return fd;
	rc = _test_cmd_apply(fd, ops, ARRAY_SIZE(ops), NULL, NULL);
	rc = rc ?: _test_cmd_attach(fd, vm, 0, 64);
	if (!rc)
		return fd;
	close(fd);
	return rc;
}

FIXTURE_SETUP(ring)
{
	ASSERT_EQ(0, guest_create(&self->guest));
	self->io = guest_io_create(&self->guest);
	ASSERT_NE(NULL, self->io);
	self->mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0);
	ASSERT_NE(MAP_FAILED, (void *)self->mem);
	self->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ASSERT_LE(0, self->bell);
	self->bell2 = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ASSERT_LE(0, self->bell2);
	self->fd = create_map(self->guest.vm, self->mem);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(ring)
{
	if (self->fd >= 0)
		close(self->fd);
	guest_destroy(&self->guest);
	munmap(self->io, GUEST_IO_LEN);
	munmap(self->mem, PAGE);
	close(self->bell);
	close(self->bell2);
	EXPECT_NOTHING_LEFT();
}

#define apply(...) test_cmd_apply(self->fd, __VA_ARGS__)

static int ring_cmd(int fd, const struct gpamap_ring *members)
{
	struct gpamap_ring cmd = *members;

	cmd.size = sizeof(cmd);
	return map_ioctl(fd, GPAMAP_RING, &cmd);
}

static int delay_rc(int fd, u32 id, u32 nr, u32 watermark, u32 delay_us, int bell)
{
	return ring_cmd(fd, &(struct gpamap_ring){ .id = id, .nr_entries = nr,
			.watermark = watermark, .fd = bell, .delay_us = delay_us });
}

static int ring_rc(int fd, u32 flags, u32 id, u32 nr, u32 watermark, int bell)
{
	return ring_cmd(fd, &(struct gpamap_ring){ .flags = flags, .id = id, .nr_entries = nr,
			.watermark = watermark, .fd = bell });
}

static int post_rc(int fd, u32 flags, u32 region, u32 ring)
{
	struct gpamap_post cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.region = region,
		.ring = ring,
	};

	return map_ioctl(fd, GPAMAP_POST, &cmd);
}

#define add_ring(_id, _nr, _mark)						\
	ASSERT_EQ(0, ring_rc(self->fd, 0, _id, _nr, _mark, self->bell))
#define remove_ring_rc(_id) ring_rc(self->fd, GPAMAP_RING_REMOVE, _id, 0, 0, 0)
#define add_post(_region, _id) ASSERT_EQ(0, post_rc(self->fd, 0, _region, _id))
#define remove_post_rc(_region) post_rc(self->fd, GPAMAP_POST_REMOVE, _region, 0)

static u64 ring_len(u32 nr)
{
	u64 entries = nr * sizeof(struct gpamap_ring_entry);

	return PAGE + (entries + PAGE - 1) / PAGE * PAGE;
}

static off_t ring_offset(u32 id)
{
	return (GPAMAP_RING_PGOFF | id) * PAGE;
}

static struct gpamap_ring_header *map_ring(int fd, u32 id, u32 nr)
{
	void *p = mmap(NULL, ring_len(nr), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		       ring_offset(id));

	return p == MAP_FAILED ? NULL : p;
}

static void unmap_ring(struct gpamap_ring_header *ring, u32 nr)
{
	munmap(ring, ring_len(nr));
}

static u32 pending(const struct gpamap_ring_header *ring)
{
	return __atomic_load_n(&ring->head, __ATOMIC_ACQUIRE) - ring->tail;
}

/* The next entry, which is taken out; one of 0 bytes if there is none. */
static struct gpamap_ring_entry take(struct gpamap_ring_header *ring)
{
	struct gpamap_ring_entry entry = { 0 };

	if (!pending(ring))
		return entry;
	memcpy(&entry, (char *)ring + ring->entries +
	       (u64)ring->entry_size * (ring->tail % ring->nr_entries), sizeof(entry));
	__atomic_store_n(&ring->tail, ring->tail + 1, __ATOMIC_RELEASE);
	return entry;
}

/* How often an eventfd was signalled since it was asked last. */
static u64 count_of(int bell)
{
	u64 n;

	return read(bell, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

#define EXPECT_ENTRY(_ring, _seq, _region, _offset, _len, _value)		\
	do {									\
		struct gpamap_ring_entry __e = take(_ring);			\
		EXPECT_EQ((u64)(_seq), __e.seq);				\
		EXPECT_EQ((u32)(_region), __e.region);				\
		EXPECT_EQ((u64)(_offset), __e.offset);				\
		EXPECT_EQ((u32)(_len), __e.len);				\
		EXPECT_EQ((u64)(_value), __e.value);				\
	} while (0)
#define EXPECT_NO_ENTRY(_ring) EXPECT_EQ(0u, pending(_ring))
/* The next entry holds these bytes, as the guest wrote them, and no more. */
#define EXPECT_BYTES(_ring, _len, _bytes)					\
	do {									\
		struct gpamap_ring_entry __e = take(_ring);			\
		unsigned char __want[8] = { 0 };				\
		memcpy(__want, _bytes, _len);					\
		EXPECT_EQ((u32)(_len), __e.len);				\
		EXPECT_EQ(0, memcmp(__want, &__e.value, 8));			\
		ASSERT_NE(NULL, gpamap_ring_entry_bytes(&__e));			\
		EXPECT_EQ(0, memcmp(_bytes, gpamap_ring_entry_bytes(&__e), _len)); \
	} while (0)

#define guest_w(_gpa, _len, _value) guest_write(&self->guest, _gpa, _len, _value)
#define EXPECT_POSTED(_gpa, _len, _value) EXPECT_DONE(guest_w(_gpa, _len, _value))
/* A write of 8 bytes that the VMM gets. */
#define EXPECT_WRITE_LEAVES(_gpa, _value)					\
	do {									\
		struct guest_access __w = guest_w(_gpa, 8, _value);		\
		EXPECT_EQ((int)GUEST_MMIO, (int)__w.how);			\
		EXPECT_EQ((u64)(_gpa), __w.mmio_gpa);				\
		EXPECT_EQ((u64)(_value), __w.mmio_value);			\
	} while (0)

#define V 0x8877665544332211ULL

static u64 cut(u64 value, u32 len)
{
	return len == 8 ? value : value & ((1ULL << (8 * len)) - 1);
}

/* -- what is posted, and how ----------------------------------------------- */

TEST_F(ring, entries)
{
	static const u32 lengths[] = { 1, 2, 4, 8 };
	struct gpamap_ring_header *ring;
	u32 i;

	add_ring(RING, 16, 16);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	EXPECT_EQ(0u, ring->head);
	EXPECT_EQ(0u, ring->tail);
	EXPECT_EQ(16u, ring->nr_entries);
	EXPECT_EQ(sizeof(struct gpamap_ring_entry), ring->entry_size);
	EXPECT_EQ(PAGE, ring->entries);
	EXPECT_EQ((u32)GPAMAP_LAYOUT_VERSION, ring->version);
	EXPECT_EQ(sizeof(struct gpamap_ring_header), ring->header_size);
	EXPECT_WRITE_LEAVES(A, V);
	add_post(DEV, RING);
	for (i = 0; i < ARRAY_SIZE(lengths); i++)
		EXPECT_POSTED(A + 0x101 * i, lengths[i], V);
	EXPECT_EQ(4u, ring->head);
	for (i = 0; i < ARRAY_SIZE(lengths); i++)
		EXPECT_ENTRY(ring, i, DEV, 0x101 * i, lengths[i], cut(V, lengths[i]));
	EXPECT_NO_ENTRY(ring);
	/* Reads leave, and so do writes to others. */
	EXPECT_LEAVES(guest_read(&self->guest, A, 4));
	EXPECT_WRITE_LEAVES(B, 1);
	EXPECT_EQ(4u, ring->head);
	/* The last byte, and a write that crosses the end. */
	EXPECT_POSTED(A + 2 * PAGE - 1, 1, 0x5a);
	EXPECT_ENTRY(ring, 4, DEV, 2 * PAGE - 1, 1, 0x5a);
	EXPECT_EQ(0u, count_of(self->bell));
	unmap_ring(ring, 16);
}

/* What was written, byte by byte: the first is the one at the offset. */
TEST_F(ring, bytes)
{
	static const unsigned char v[] = { 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88 };
	static const u32 lengths[] = { 1, 2, 4, 8 };
	struct gpamap_ring_header *ring;
	u32 i, first;
	u64 value;

	memcpy(&value, v, sizeof(value));
	add_ring(RING, 16, 16);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	add_post(PDEV, RING);
	for (i = 0; i < ARRAY_SIZE(lengths); i++) {
		EXPECT_POSTED(A, lengths[i], value);
		EXPECT_BYTES(ring, lengths[i], v);
		if (lengths[i] == 8)
			continue;
		EXPECT_DONE(guest_out(&self->guest, PORT, lengths[i], value));
		EXPECT_BYTES(ring, lengths[i], v);
	}
	/* The parts of a write over the border of a page. */
	for (first = 1; first < 8; first++) {
		EXPECT_POSTED(A + PAGE - first, 8, value);
		EXPECT_BYTES(ring, first, v);
		EXPECT_BYTES(ring, 8 - first, v + first);
	}
	EXPECT_NO_ENTRY(ring);
	unmap_ring(ring, 16);
}

/* A region is destroyed and made anew by one commit: which of the two an entry is for is told. */
TEST_F(ring, generations)
{
	struct gpamap_ring_header *ring;
	struct gpamap_ring_entry old, new;
	struct gpamap_apply out;

	add_ring(RING, 16, 16);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	EXPECT_POSTED(A, 4, 1);
	test_cmd_plan(self->fd, 0, &out, op_untie(DEV, GPAMAP_TIE_RING), op_del(DEV),
		      op_destroy(DEV), op_io(DEV, 2 * PAGE - 1), op_post(DEV, RING),
		      op_add(DEV, ROOT, A, 0));
	EXPECT_POSTED(A, 4, 2);
	old = take(ring);
	new = take(ring);
	EXPECT_EQ((u32)DEV, old.region);
	EXPECT_EQ((u32)DEV, new.region);
	EXPECT_EQ(out.out_generation - 1, old.generation);
	EXPECT_EQ(out.out_generation, new.generation);
	EXPECT_NO_ENTRY(ring);
	unmap_ring(ring, 16);
}

/* KVM cuts a write at the border of a page, wherever that is in it. */
TEST_F(ring, over_the_border_of_a_page)
{
	struct gpamap_ring_header *ring;
	u32 first, seq = 0;

	add_ring(RING, 16, 16);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	for (first = 1; first < 8; first++) {
		EXPECT_POSTED(A + PAGE - first, 8, V);
		EXPECT_ENTRY(ring, seq++, DEV, PAGE - first, first, cut(V, first));
		EXPECT_ENTRY(ring, seq++, DEV, PAGE, 8 - first, V >> (8 * first));
	}
	EXPECT_NO_ENTRY(ring);
	unmap_ring(ring, 16);
}

TEST_F(ring, ports)
{
	struct gpamap_ring_header *ring;

	add_ring(RING, 16, 16);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(PDEV, RING);
	EXPECT_DONE(guest_out(&self->guest, PORT, 1, 0xa5));
	EXPECT_DONE(guest_out(&self->guest, PORT + 3, 2, 0xbeef));
	EXPECT_DONE(guest_out(&self->guest, PORT + 8, 4, 0xdeadbeef));
	EXPECT_LEAVES(guest_in(&self->guest, PORT, 1));
	EXPECT_ENTRY(ring, 0, PDEV, 0, 1, 0xa5);
	EXPECT_ENTRY(ring, 1, PDEV, 3, 2, 0xbeef);
	EXPECT_ENTRY(ring, 2, PDEV, 8, 4, 0xdeadbeef);
	EXPECT_NO_ENTRY(ring);
	unmap_ring(ring, 16);
}

/* Places are used again and again; numbers go on. */
TEST_F(ring, order)
{
	struct gpamap_ring_header *ring;
	u64 seq = 0, next = 0;
	u32 i, lap;

	add_ring(RING, 16, 1);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	for (lap = 0; lap < 60; lap++) {
		u32 nr = lap % 16 + 1;

		for (i = 0; i < nr; i++, next++)
			EXPECT_POSTED(A + 8 * i, 8, next);
		for (i = 0; i < nr; i++, seq++)
			EXPECT_ENTRY(ring, seq, DEV, 8 * i, 8, seq);
		EXPECT_NO_ENTRY(ring);
	}
	EXPECT_EQ((u32)next, ring->head);
	unmap_ring(ring, 16);
}

TEST_F(ring, group)
{
	struct gpamap_ring_header *ring, *ring2;

	add_ring(RING, 32, 3);
	ASSERT_EQ(0, ring_rc(self->fd, 0, RING2, 16, 1, self->bell2));
	ring = map_ring(self->fd, RING, 32);
	ASSERT_NE(NULL, ring);
	ring2 = map_ring(self->fd, RING2, 16);
	ASSERT_NE(NULL, ring2);
	add_post(DEV, RING);
	add_post(OTHER, RING);
	add_post(PDEV, RING2);
	EXPECT_POSTED(A + 8, 4, 1);
	EXPECT_POSTED(B, 8, 2);
	EXPECT_DONE(guest_out(&self->guest, PORT, 1, 9));
	EXPECT_EQ(0u, count_of(self->bell));
	EXPECT_EQ(1u, count_of(self->bell2));
	EXPECT_POSTED(A, 1, 3);
	EXPECT_EQ(1u, count_of(self->bell));
	EXPECT_ENTRY(ring, 0, DEV, 8, 4, 1);
	EXPECT_ENTRY(ring, 1, OTHER, 0, 8, 2);
	EXPECT_ENTRY(ring, 2, DEV, 0, 1, 3);
	EXPECT_NO_ENTRY(ring);
	EXPECT_ENTRY(ring2, 0, PDEV, 0, 1, 9);
	EXPECT_NO_ENTRY(ring2);
	/* One of them leaves the group. */
	ASSERT_EQ(0, remove_post_rc(OTHER));
	EXPECT_WRITE_LEAVES(B, 4);
	EXPECT_POSTED(A, 1, 5);
	EXPECT_ENTRY(ring, 3, DEV, 0, 1, 5);
	EXPECT_EQ(-EBUSY, remove_ring_rc(RING));
	/* And joins the other. */
	add_post(OTHER, RING2);
	EXPECT_POSTED(B, 8, 6);
	EXPECT_ENTRY(ring2, 1, OTHER, 0, 8, 6);
	EXPECT_NO_ENTRY(ring);
	unmap_ring(ring, 32);
	unmap_ring(ring2, 16);
}

TEST_F(ring, watermark)
{
	static const u32 marks[] = { 1, 4, 16 };
	struct gpamap_ring_header *ring;
	u32 i, j;

	for (i = 0; i < ARRAY_SIZE(marks); i++) {
		add_ring(RING + i, 16, marks[i]);
		ring = map_ring(self->fd, RING + i, 16);
		ASSERT_NE(NULL, ring);
		add_post(DEV, RING + i);
		for (j = 1; j <= 16; j++) {
			EXPECT_POSTED(A, 8, j);
			EXPECT_EQ(j >= marks[i], (int)count_of(self->bell))
				TH_LOG("%u pending, mark %u", j, marks[i]);
		}
		/* One that leaves tells nobody. */
		EXPECT_WRITE_LEAVES(A, 17);
		EXPECT_EQ(0u, count_of(self->bell));
		/* From below again. */
		while (pending(ring) > marks[i] - 1)
			take(ring);
		EXPECT_POSTED(A, 8, 0);
		EXPECT_EQ(1u, count_of(self->bell));
		ASSERT_EQ(0, remove_post_rc(DEV));
		EXPECT_EQ(0, remove_ring_rc(RING + i));
		unmap_ring(ring, 16);
	}
}

static u64 now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000ULL + ts.tv_nsec / 1000;
}

/* Whether the eventfd is signalled, now or in some time. */
static bool hears(int bell)
{
	struct pollfd poll_bell = { .fd = bell, .events = POLLIN };

	return poll(&poll_bell, 1, 10000 * test_patience()) == 1;
}

/* A burst below the mark is told of once, and not before the delay is over. */
TEST_F(ring, delay)
{
	const u32 delay = 300000;
	struct gpamap_ring_header *ring;
	u64 begin, burst, n;
	u32 i, lap;

	ASSERT_EQ(0, delay_rc(self->fd, RING, 64, 64, delay, self->bell));
	ring = map_ring(self->fd, RING, 64);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	for (lap = 0; lap < 3; lap++) {
		begin = now_us();
		for (i = 0; i < 16; i++)
			EXPECT_POSTED(A, 8, i);
		burst = now_us() - begin;
		EXPECT_TRUE(hears(self->bell));
		EXPECT_LE(delay, now_us() - begin);
		n = count_of(self->bell);
		usleep(2 * delay);
		/* On a slow machine it may be more than one burst. */
		EXPECT_GE(burst / delay + 1, n + count_of(self->bell));
		EXPECT_EQ(16u, pending(ring));
		while (pending(ring))
			take(ring);
	}
	unmap_ring(ring, 64);
}

/* Nobody is woken for what was taken; and the next is told of all the same. */
TEST_F(ring, delay_and_taken)
{
	const u32 delay = 300000;
	struct gpamap_ring_header *ring;
	u64 begin;
	u32 i;

	ASSERT_EQ(0, delay_rc(self->fd, RING, 16, 16, delay, self->bell));
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	for (i = 0; i < 3; i++) {
		begin = now_us();
		EXPECT_POSTED(A, 8, i);
		EXPECT_ENTRY(ring, 2 * i, DEV, 0, 8, i);
		if (now_us() - begin < delay) {
			usleep(2 * delay);
			EXPECT_EQ(0u, count_of(self->bell));
		}
		EXPECT_POSTED(A, 8, i);
		EXPECT_TRUE(hears(self->bell));
		EXPECT_LE(1u, count_of(self->bell));
		EXPECT_ENTRY(ring, 2 * i + 1, DEV, 0, 8, i);
	}
	unmap_ring(ring, 16);
}

/* At the mark it is told at once, and what was to be told of later has been. */
TEST_F(ring, delay_and_watermark)
{
	const u32 delay = GPAMAP_MAX_RING_DELAY_US;
	struct gpamap_ring_header *ring;
	u64 begin, n;
	u32 i;

	ASSERT_EQ(0, delay_rc(self->fd, RING, 16, 4, delay, self->bell));
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	begin = now_us();
	for (i = 0; i < 3; i++)
		EXPECT_POSTED(A, 8, i);
	n = count_of(self->bell);
	if (now_us() - begin < delay)
		EXPECT_EQ(0u, n);
	EXPECT_POSTED(A, 8, 3);
	n = count_of(self->bell);
	EXPECT_LE(1u, n);
	if (now_us() - begin < delay) {
		EXPECT_EQ(1u, n);
		usleep(delay + delay / 2);
		EXPECT_EQ(0u, count_of(self->bell));
	}
	/* From above it is as without a delay; below it the delay begins anew. */
	EXPECT_POSTED(A, 8, 4);
	EXPECT_EQ(1u, count_of(self->bell));
	while (pending(ring))
		take(ring);
	begin = now_us();
	EXPECT_POSTED(A, 8, 5);
	EXPECT_TRUE(hears(self->bell));
	EXPECT_LE(delay, now_us() - begin);
	EXPECT_EQ(1u, count_of(self->bell));
	unmap_ring(ring, 16);
}

/* Rings and maps that end while the timer runs. The eventfd is theirs alone. */
TEST_F(ring, delay_and_the_end)
{
	u64 seed = test_seed();
	struct rnd rnd;
	u32 i;

	TH_LOG("SEED=%llu", (unsigned long long)seed);
	rnd_seed(&rnd, seed);
	for (i = 0; i < 100; i++) {
		int bell = eventfd(0, EFD_CLOEXEC);

		ASSERT_LE(0, bell);
		ASSERT_EQ(0, delay_rc(self->fd, RING, 16, 16, 1 + rnd_below(&rnd, 3000), bell));
		close(bell);
		add_post(DEV, RING);
		EXPECT_POSTED(A, 8, i);
		if (rnd_below(&rnd, 2))
			usleep(rnd_below(&rnd, 3000));
		if (i % 10 == 9) {
			close(self->fd);
			self->fd = create_map(self->guest.vm, self->mem);
			ASSERT_LE(0, self->fd);
			continue;
		}
		ASSERT_EQ(0, remove_post_rc(DEV));
		ASSERT_EQ(0, remove_ring_rc(RING));
	}
}

/* Takes entries when it is told that there are some, and never else. */
struct told {
	struct gpamap_ring_header *ring;
	int bell;
	u32 want, nr;
	u64 signals;
	bool in_order;
};

static void *told_thread(void *arg)
{
	struct told *t = arg;
	struct gpamap_ring_entry entry;

	while (t->nr < t->want && hears(t->bell)) {
		t->signals += count_of(t->bell);
		while ((entry = take(t->ring)).len)
			t->in_order &= entry.value == t->nr++;
	}
	return NULL;
}

/* Beside a vCPU that writes: who waits for the eventfd alone misses none. */
TEST_F_TIMEOUT(ring, delay_misses_none, 120)
{
	u64 seed = test_seed();
	struct rnd rnd;
	u32 lap;

	TH_LOG("SEED=%llu", (unsigned long long)seed);
	rnd_seed(&rnd, seed);
	for (lap = 0; lap < 40; lap++) {
		struct told t = { .bell = self->bell, .want = 1000, .in_order = true };
		u32 mark = lap & 1 ? 4096 : 2 + rnd_below(&rnd, 100);
		u32 delay = 1 + rnd_below(&rnd, lap & 2 ? 20000 : 100);
		pthread_t thread;
		u64 begin;

		ASSERT_EQ(0, delay_rc(self->fd, RING, 4096, mark, delay, self->bell));
		t.ring = map_ring(self->fd, RING, 4096);
		ASSERT_NE(NULL, t.ring);
		add_post(DEV, RING);
		begin = now_us();
		ASSERT_EQ(0, pthread_create(&thread, NULL, told_thread, &t));
		ASSERT_EQ(0, guest_loop(&self->guest, 0, GUEST_LOOP_WRITE, A, t.want, 0));
		EXPECT_EQ(KVM_EXIT_HLT, guest_io_run(&self->guest));
		pthread_join(thread, NULL);
		EXPECT_EQ(t.want, t.nr)
			TH_LOG("lap %u, mark %u, %u us", lap, mark, delay);
		EXPECT_TRUE(t.in_order);
		if (mark == 4096)
			EXPECT_GE((now_us() - begin) / delay, t.signals);
		ASSERT_EQ(0, remove_post_rc(DEV));
		ASSERT_EQ(0, remove_ring_rc(RING));
		count_of(self->bell);
		unmap_ring(t.ring, 4096);
	}
}

/* Nobody is told; who looks finds all there is. */
TEST_F(ring, no_eventfd)
{
	struct gpamap_ring_header *ring;
	u32 i;

	ASSERT_EQ(0, ring_rc(self->fd, 0, RING, 16, 0, -1));
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	for (i = 0; i < 16; i++)
		EXPECT_POSTED(A, 8, i);
	EXPECT_WRITE_LEAVES(A, 16);
	for (i = 0; i < 16; i++)
		EXPECT_ENTRY(ring, i, DEV, 0, 8, i);
	EXPECT_POSTED(A, 8, 17);
	EXPECT_ENTRY(ring, 16, DEV, 0, 8, 17);
	ASSERT_EQ(0, remove_post_rc(DEV));
	EXPECT_EQ(0, remove_ring_rc(RING));
	unmap_ring(ring, 16);
	/* One that goes with its map. */
	ASSERT_EQ(0, ring_rc(self->fd, 0, RING, 16, 0, -1));
}

/* -- a ring that is full --------------------------------------------------- */

TEST_F(ring, full)
{
	struct gpamap_ring_header *ring;
	u32 i;

	add_ring(RING, 16, 1);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	add_post(OTHER, RING);
	for (i = 0; i < 16; i++)
		EXPECT_POSTED(A + i, 1, i);
	EXPECT_WRITE_LEAVES(A, V);
	EXPECT_WRITE_LEAVES(B, V);
	EXPECT_EQ(16u, ring->head);
	EXPECT_ENTRY(ring, 0, DEV, 0, 1, 0);
	EXPECT_POSTED(B, 8, V);
	EXPECT_WRITE_LEAVES(A, V);
	for (i = 1; i < 16; i++)
		EXPECT_ENTRY(ring, i, DEV, i, 1, i);
	EXPECT_ENTRY(ring, 16, OTHER, 0, 8, V);
	EXPECT_NO_ENTRY(ring);
	unmap_ring(ring, 16);
}

/* A VMM that takes out what is pending before it does what an exit asks for. */
TEST_F(ring, full_and_in_order)
{
	struct gpamap_ring_header *ring;
	struct gpamap_ring_entry entry;
	u64 next = 0, value;
	u32 exits = 0;
	int rc;

	add_ring(RING, 16, 16);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	ASSERT_EQ(0, guest_loop(&self->guest, 0, GUEST_LOOP_WRITE, A, 1000, 0));
	for (;;) {
		rc = guest_io_run(&self->guest);
		while ((entry = take(ring)).len)
			EXPECT_EQ(next++, entry.value);
		if (rc != KVM_EXIT_MMIO)
			break;
		memcpy(&value, self->guest.run->mmio.data, sizeof(value));
		EXPECT_EQ(next++, value);
		exits++;
	}
	EXPECT_EQ(KVM_EXIT_HLT, rc);
	EXPECT_EQ(1000u, next);
	EXPECT_EQ(1000u / 17, exits);
	unmap_ring(ring, 16);
}

/* The elements of a string to a port: those that find the ring full leave, one by one. */
TEST_F(ring, full_of_strings)
{
	struct gpamap_ring_header *ring;
	u32 *values = (u32 *)((char *)self->io + PAGE), left[PAGE / 4], i;
	unsigned char bytes[PAGE], left_bytes[PAGE];

	add_ring(RING, 16, 1);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(PDEV, RING);
	for (i = 0; i < PAGE / 4; i++)
		values[i] = i;
	ASSERT_EQ((int)PAGE / 4 - 16, guest_outs(&self->guest, PORT, 4, PAGE / 4, left));
	for (i = 0; i < 16; i++)
		EXPECT_ENTRY(ring, i, PDEV, 0, 4, i);
	EXPECT_NO_ENTRY(ring);
	for (i = 16; i < PAGE / 4; i++)
		EXPECT_EQ(i, left[i - 16]);
	/* A page of bytes, the first of which are done. */
	for (i = 0; i < PAGE; i++)
		bytes[i] = i * 7 + i / 256;
	memcpy(values, bytes, PAGE);
	ASSERT_EQ((int)PAGE - 16, guest_outs(&self->guest, PORT + 1, 1, PAGE, left_bytes));
	for (i = 0; i < 16; i++)
		EXPECT_ENTRY(ring, 16 + i, PDEV, 1, 1, bytes[i]);
	EXPECT_EQ(0, memcmp(left_bytes, bytes + 16, PAGE - 16));
	unmap_ring(ring, 16);
}

struct drainer {
	struct gpamap_ring_header *ring;
	u32 *values;
	u32 nr;
	int stop;
};

static void *drainer_thread(void *arg)
{
	struct drainer *d = arg;
	struct gpamap_ring_entry entry;
	bool stop;

	do {
		stop = __atomic_load_n(&d->stop, __ATOMIC_ACQUIRE);
		while ((entry = take(d->ring)).len)
			d->values[d->nr++] = entry.value;
		usleep(300);
	} while (!stop);
	return NULL;
}

/* The same, with somebody who makes room all the while: each element is done once. */
TEST_F(ring, full_of_strings_while_drained)
{
	struct gpamap_ring_header *ring;
	u32 *values = (u32 *)((char *)self->io + PAGE), left[PAGE / 4], i, lap;
	u32 posted[PAGE / 4];
	pthread_t thread;

	add_ring(RING, 16, 16);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(PDEV, RING);
	for (lap = 0; lap < 20; lap++) {
		struct drainer d = { .ring = ring, .values = posted };
		u32 nr_left, at_left = 0, at_posted = 0;
		int rc;

		for (i = 0; i < PAGE / 4; i++)
			values[i] = i;
		ASSERT_EQ(0, pthread_create(&thread, NULL, drainer_thread, &d));
		rc = guest_outs(&self->guest, PORT, 4, PAGE / 4, left);
		__atomic_store_n(&d.stop, 1, __ATOMIC_RELEASE);
		pthread_join(thread, NULL);
		ASSERT_LE(0, rc);
		nr_left = rc;
		ASSERT_EQ(PAGE / 4, d.nr + nr_left);
		for (i = 0; i < PAGE / 4; i++) {
			if (at_left < nr_left && left[at_left] == i)
				at_left++;
			else if (at_posted < d.nr && posted[at_posted] == i)
				at_posted++;
			else
				break;
		}
		ASSERT_EQ(PAGE / 4, i);
	}
	unmap_ring(ring, 16);
}

/* -- rule 45 --------------------------------------------------------------- */

static int set_register(int fd, u32 region, u32 offset, u32 len, u32 kind, u64 value)
{
	const struct gpamap_register reg = { offset, len, kind, value };
	struct gpamap_registers cmd = {
		.size = sizeof(cmd),
		.region = region,
		.nr = 1,
		.register_size = sizeof(reg),
		.registers = (uintptr_t)&reg,
	};

	return map_ioctl(fd, GPAMAP_REGISTERS, &cmd);
}

static int add_bell(int fd, u32 region, u64 offset, u32 len, int bell)
{
	struct gpamap_doorbell cmd = {
		.size = sizeof(cmd),
		.region = region,
		.len = len,
		.offset = offset,
		.fd = bell,
	};

	return map_ioctl(fd, GPAMAP_DOORBELL, &cmd);
}

TEST_F(ring, rule_45_registers_come_after_what_is_pending)
{
	struct gpamap_ring_header *ring;

	add_ring(RING, 16, 16);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	add_post(OTHER, RING);
	ASSERT_EQ(0, set_register(self->fd, DEV, 8, 4, GPAMAP_REGISTER_READWRITE, 0x11));
	ASSERT_EQ(0, set_register(self->fd, PDEV, 0, 4, GPAMAP_REGISTER_READWRITE, 0x22));
	EXPECT_READ(A + 8, 4, 0x11);
	EXPECT_POSTED(A + 8, 4, 0x33);
	EXPECT_READ(A + 8, 4, 0x33);
	EXPECT_NO_ENTRY(ring);
	/* Of another length it is no register's. */
	EXPECT_POSTED(A + 8, 2, 0x44);
	EXPECT_LEAVES(guest_read(&self->guest, A + 8, 4));
	EXPECT_LEAVES(guest_w(A + 8, 4, 0x55));
	EXPECT_EQ(1u, pending(ring));
	/* Who is not of the group does not care. */
	EXPECT_EQ(0x22u, guest_in(&self->guest, PORT, 4).value);
	EXPECT_DONE(guest_out(&self->guest, PORT, 4, 0x23));
	EXPECT_ENTRY(ring, 0, DEV, 8, 2, 0x44);
	EXPECT_READ(A + 8, 4, 0x33);
	/* That of another region of the group counts. */
	EXPECT_POSTED(B, 8, 1);
	EXPECT_LEAVES(guest_read(&self->guest, A + 8, 4));
	EXPECT_ENTRY(ring, 1, OTHER, 0, 8, 1);
	EXPECT_READ(A + 8, 4, 0x33);
	/* Not once the region posts no more. */
	EXPECT_POSTED(A, 8, 2);
	ASSERT_EQ(0, remove_post_rc(DEV));
	EXPECT_EQ(1u, pending(ring));
	EXPECT_READ(A + 8, 4, 0x33);
	EXPECT_POSTED(B, 8, 3);
	unmap_ring(ring, 16);
}

/* A doorbell rings at once. One at a register leaves with it. */
TEST_F(ring, doorbells)
{
	struct gpamap_ring_header *ring;

	add_ring(RING, 16, 16);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	ASSERT_EQ(0, add_bell(self->fd, DEV, 0x50, 4, self->bell2));
	ASSERT_EQ(0, add_bell(self->fd, DEV, 0x60, 4, self->bell2));
	ASSERT_EQ(0, set_register(self->fd, DEV, 0x60, 4, GPAMAP_REGISTER_READWRITE, 0));
	EXPECT_POSTED(A + 0x50, 4, 1);
	EXPECT_POSTED(A + 0x60, 4, 2);
	EXPECT_EQ(2u, count_of(self->bell2));
	EXPECT_NO_ENTRY(ring);
	EXPECT_POSTED(A + 0x50, 8, 3);
	EXPECT_EQ(0u, count_of(self->bell2));
	EXPECT_POSTED(A + 0x50, 4, 4);
	EXPECT_EQ(1u, count_of(self->bell2));
	EXPECT_LEAVES(guest_w(A + 0x60, 4, 5));
	EXPECT_EQ(0u, count_of(self->bell2));
	EXPECT_ENTRY(ring, 0, DEV, 0x50, 8, 3);
	EXPECT_NO_ENTRY(ring);
	EXPECT_READ(A + 0x60, 4, 2);
	unmap_ring(ring, 16);
}

/* -- where the region is --------------------------------------------------- */

TEST_F(ring, rule_43_moves_with_the_region)
{
	struct gpamap_ring_header *ring;

	add_ring(RING, 16, 16);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	EXPECT_POSTED(A + 0x10, 8, 1);
	apply(op_at(DEV, C));
	EXPECT_WRITE_LEAVES(A + 0x10, 2);
	EXPECT_POSTED(C + 0x10, 8, 3);
	/* Hidden in part, and as a whole. */
	apply(op_add(MEM, ROOT, C, 1));
	EXPECT_POSTED(C + PAGE, 8, 4);
	EXPECT_DONE(guest_w(C + 0x10, 8, 5));
	EXPECT_EQ(5u, *(u64 *)(self->mem + 0x10));
	apply(op_enable(DEV, false), op_del(MEM));
	EXPECT_WRITE_LEAVES(C + 0x10, 6);
	apply(op_enable(DEV, true));
	/* Twice, through aliases; one of them cannot be written. */
	apply(op_alias(ALIAS, DEV, 0x100, 0xff), op_alias(ALIAS2, DEV, 0x1000, 0xff),
	      op_add(ALIAS, ROOT, 0x20000000, 0), op_add(ALIAS2, ROOT, 0x30000000, 0));
	EXPECT_POSTED(0x20000008, 8, 7);
	EXPECT_POSTED(0x30000008, 8, 8);
	EXPECT_POSTED(C + 0x108, 8, 9);
	apply(op_readonly(ALIAS, true));
	EXPECT_WRITE_LEAVES(0x20000008, 10);
	EXPECT_POSTED(C + 0x108, 8, 11);
	apply(op_del(DEV));
	EXPECT_WRITE_LEAVES(C + 0x10, 12);
	EXPECT_POSTED(0x30000010, 8, 13);
	EXPECT_ENTRY(ring, 0, DEV, 0x10, 8, 1);
	EXPECT_ENTRY(ring, 1, DEV, 0x10, 8, 3);
	EXPECT_ENTRY(ring, 2, DEV, PAGE, 8, 4);
	EXPECT_ENTRY(ring, 3, DEV, 0x108, 8, 7);
	EXPECT_ENTRY(ring, 4, DEV, 0x1008, 8, 8);
	EXPECT_ENTRY(ring, 5, DEV, 0x108, 8, 9);
	EXPECT_ENTRY(ring, 6, DEV, 0x108, 8, 11);
	EXPECT_ENTRY(ring, 7, DEV, 0x1010, 8, 13);
	EXPECT_NO_ENTRY(ring);
	unmap_ring(ring, 16);
}

TEST_F(ring, detached)
{
	struct gpamap_ring_header *ring;

	add_ring(RING, 16, 16);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	EXPECT_POSTED(A, 8, 1);
	test_cmd_detach(self->fd);
	EXPECT_WRITE_LEAVES(A, 2);
	/* Made while detached they are there after ATTACH. */
	add_post(PDEV, RING);
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	EXPECT_POSTED(A, 8, 3);
	EXPECT_DONE(guest_out(&self->guest, PORT, 1, 4));
	EXPECT_ENTRY(ring, 0, DEV, 0, 8, 1);
	EXPECT_ENTRY(ring, 1, DEV, 0, 8, 3);
	EXPECT_ENTRY(ring, 2, PDEV, 0, 1, 4);
	unmap_ring(ring, 16);
}

/* -- begin and end --------------------------------------------------------- */

TEST_F(ring, remove)
{
	struct gpamap_ring_header *ring, *again;

	EXPECT_EQ(-ENOENT, remove_ring_rc(RING));
	EXPECT_EQ(-ENOENT, remove_post_rc(DEV));
	add_ring(RING, 16, 16);
	EXPECT_EQ(-EEXIST, ring_rc(self->fd, 0, RING, 32, 1, self->bell));
	EXPECT_EQ(-ENOENT, post_rc(self->fd, 0, DEV, RING2));
	EXPECT_EQ(-ENOENT, remove_post_rc(DEV));
	add_post(DEV, RING);
	EXPECT_EQ(-EEXIST, post_rc(self->fd, 0, DEV, RING));
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	EXPECT_POSTED(A, 8, 1);
	EXPECT_EQ(-EBUSY, remove_ring_rc(RING));
	apply(op_del(DEV));
	test_err_apply(EBUSY, 0, self->fd, op_destroy(DEV));
	EXPECT_EQ(-EBUSY, remove_ring_rc(RING));
	ASSERT_EQ(0, remove_post_rc(DEV));
	EXPECT_EQ(-ENOENT, remove_post_rc(DEV));
	apply(op_add(DEV, ROOT, A, 0));
	EXPECT_WRITE_LEAVES(A, 2);
	EXPECT_EQ(1u, pending(ring));
	ASSERT_EQ(0, remove_ring_rc(RING));
	EXPECT_EQ(-ENOENT, remove_ring_rc(RING));
	EXPECT_EQ(NULL, map_ring(self->fd, RING, 16));
	EXPECT_EQ(ENOENT, errno);
	apply(op_del(DEV), op_destroy(DEV));
	/* Who has mapped it has it still; a new one is another. */
	add_ring(RING, 16, 16);
	again = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, again);
	add_post(OTHER, RING);
	EXPECT_POSTED(B, 8, 3);
	EXPECT_ENTRY(ring, 0, DEV, 0, 8, 1);
	EXPECT_NO_ENTRY(ring);
	EXPECT_ENTRY(again, 0, OTHER, 0, 8, 3);
	EXPECT_NO_ENTRY(again);
	unmap_ring(ring, 16);
	unmap_ring(again, 16);
}

TEST_F(ring, bad_members)
{
	struct gpamap_ring ring = {
		.size = sizeof(ring),
		.id = RING,
		.nr_entries = 64,
		.watermark = 1,
		.fd = self->bell,
	};
	struct gpamap_post post = {
		.size = sizeof(post),
		.region = DEV,
		.ring = RING,
	};
	struct gpamap_ring bad;
	struct gpamap_post bad_post;

#define EXPECT_BAD(_errno, _member, _value)					\
	do {									\
		bad = ring;							\
		bad._member = _value;						\
		EXPECT_EQ(-(_errno), map_ioctl(self->fd, GPAMAP_RING, &bad));	\
	} while (0)
	EXPECT_BAD(EOPNOTSUPP, flags, 2);
	EXPECT_BAD(EINVAL, flags, GPAMAP_RING_REMOVE);
	EXPECT_BAD(EINVAL, id, 0);
	EXPECT_BAD(EINVAL, nr_entries, 0);
	EXPECT_BAD(EINVAL, nr_entries, 1);
	EXPECT_BAD(EINVAL, nr_entries, 8);
	EXPECT_BAD(EINVAL, nr_entries, 15);
	EXPECT_BAD(EINVAL, nr_entries, 63);
	EXPECT_BAD(EINVAL, nr_entries, 2 * GPAMAP_MAX_RING_ENTRIES);
	EXPECT_BAD(EINVAL, nr_entries, 0x80000000);
	EXPECT_BAD(EINVAL, nr_entries, 0xffffffff);
	EXPECT_BAD(EINVAL, watermark, 0);
	EXPECT_BAD(EINVAL, watermark, 65);
	EXPECT_BAD(EINVAL, delay_us, GPAMAP_MAX_RING_DELAY_US + 1);
	EXPECT_BAD(EINVAL, delay_us, 0xffffffff);
	EXPECT_BAD(EINVAL, __reserved, 1);
	EXPECT_BAD(EBADF, fd, -2);
	/* There is a watermark, and nobody to be told. */
	EXPECT_BAD(EINVAL, fd, -1);
	EXPECT_BAD(EBADF, fd, 1000);
	EXPECT_BAD(EINVAL, fd, self->fd);
	EXPECT_EQ(-ENOENT, remove_ring_rc(RING));
	EXPECT_EQ(-ENOENT, remove_ring_rc(0));

	/* With REMOVE nothing but the id. */
	ASSERT_EQ(0, map_ioctl(self->fd, GPAMAP_RING, &ring));
	EXPECT_EQ(-EINVAL, ring_rc(self->fd, GPAMAP_RING_REMOVE, RING, 16, 0, 0));
	EXPECT_EQ(-EINVAL, ring_rc(self->fd, GPAMAP_RING_REMOVE, RING, 0, 1, 0));
	EXPECT_EQ(-EINVAL, ring_rc(self->fd, GPAMAP_RING_REMOVE, RING, 0, 0, self->bell));
	EXPECT_EQ(-EINVAL, ring_rc(self->fd, GPAMAP_RING_REMOVE, RING, 0, 0, -1));
	bad = (struct gpamap_ring){
		.size = sizeof(bad),
		.flags = GPAMAP_RING_REMOVE,
		.id = RING,
		.delay_us = 1,
	};
	EXPECT_EQ(-EINVAL, map_ioctl(self->fd, GPAMAP_RING, &bad));
	/* Nobody is told, and nobody later. */
	EXPECT_EQ(-EINVAL, delay_rc(self->fd, RING2, 16, 0, 1, -1));

#define EXPECT_BAD_POST(_errno, _member, _value)				\
	do {									\
		bad_post = post;						\
		bad_post._member = _value;					\
		EXPECT_EQ(-(_errno), map_ioctl(self->fd, GPAMAP_POST, &bad_post)); \
	} while (0)
	EXPECT_BAD_POST(EOPNOTSUPP, flags, 2);
	EXPECT_BAD_POST(EINVAL, flags, GPAMAP_POST_REMOVE);
	EXPECT_BAD_POST(ENOENT, region, 0);
	EXPECT_BAD_POST(ENOENT, region, 77);
	EXPECT_BAD_POST(ENOENT, ring, 0);
	EXPECT_BAD_POST(ENOENT, ring, RING + 1);
	EXPECT_BAD_POST(EOPNOTSUPP, region, MEM);
	EXPECT_BAD_POST(EOPNOTSUPP, region, ROOT);
	EXPECT_EQ(-ENOENT, post_rc(self->fd, GPAMAP_POST_REMOVE, 77, 0));

	/* None of it has changed anything. */
	EXPECT_WRITE_LEAVES(A, 1);
	EXPECT_EQ(-ENOENT, remove_post_rc(DEV));
	EXPECT_EQ(0, remove_ring_rc(RING));
}

TEST_F(ring, another_process)
{
	struct gpamap_ring_header *ring;
	pid_t pid;

	add_ring(RING, 16, 16);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	EXPECT_POSTED(A, 8, 1);
	EXPECT_POSTED(A, 8, 2);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (ring_rc(self->fd, 0, RING2, 16, 1, self->bell) != -EIO ||
		    remove_ring_rc(RING) != -EIO || remove_post_rc(DEV) != -EIO ||
		    post_rc(self->fd, 0, OTHER, RING) != -EIO)
			_exit(1);
		/* The memory is the same. */
		_exit(take(ring).value == 1 ? 0 : 2);
	}
	ASSERT_CHILD_OK(pid);
	EXPECT_ENTRY(ring, 1, DEV, 0, 8, 2);
	EXPECT_NO_ENTRY(ring);
	unmap_ring(ring, 16);
}

TEST_F(ring, mapping)
{
	struct gpamap_ring_header *ring;
	void *p;

	add_ring(RING, 16, 16);
	add_ring(RING2, 256, 16);
#define EXPECT_NO_MAPPING(_errno, _len, _flags, _pgoff)				\
	do {									\
		errno = 0;							\
		p = mmap(NULL, _len, PROT_READ, _flags, self->fd,		\
			 (off_t)(_pgoff) * PAGE);				\
		EXPECT_EQ(MAP_FAILED, p);					\
		EXPECT_EQ(_errno, errno);					\
	} while (0)
	EXPECT_NO_MAPPING(ENOENT, 2 * PAGE, MAP_SHARED, GPAMAP_RING_PGOFF);
	EXPECT_NO_MAPPING(ENOENT, 2 * PAGE, MAP_SHARED, GPAMAP_RING_PGOFF | 1);
	EXPECT_NO_MAPPING(ENOENT, 2 * PAGE, MAP_SHARED, GPAMAP_RING_PGOFF | 0xffffffff);
	EXPECT_NO_MAPPING(ENOENT, PAGE, MAP_SHARED, RING);
	EXPECT_NO_MAPPING(EINVAL, 2 * PAGE, MAP_SHARED, 2 * GPAMAP_RING_PGOFF | RING);
	EXPECT_NO_MAPPING(EINVAL, 2 * PAGE, MAP_SHARED, 3 * GPAMAP_RING_PGOFF | RING);
	EXPECT_NO_MAPPING(EINVAL, 2 * PAGE, MAP_PRIVATE, GPAMAP_RING_PGOFF | RING);
	EXPECT_NO_MAPPING(EINVAL, PAGE, MAP_SHARED, GPAMAP_RING_PGOFF | RING);
	EXPECT_NO_MAPPING(EINVAL, 3 * PAGE, MAP_SHARED, GPAMAP_RING_PGOFF | RING);
	EXPECT_NO_MAPPING(EINVAL, 2 * PAGE, MAP_SHARED, GPAMAP_RING_PGOFF | RING2);
	p = map_ring(self->fd, RING2, 256);
	ASSERT_NE(NULL, p);
	munmap(p, ring_len(256));
	/* It can be read-only, there can be many, and it keeps the map open. */
	p = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, self->fd, ring_offset(RING));
	ASSERT_NE(MAP_FAILED, p);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	close(self->fd);
	self->fd = -1;
	EXPECT_POSTED(A, 8, 1);
	EXPECT_EQ(1u, ((struct gpamap_ring_header *)p)->head);
	EXPECT_ENTRY(ring, 0, DEV, 0, 8, 1);
	unmap_ring(ring, 16);
	EXPECT_POSTED(A, 8, 1);
	munmap(p, 2 * PAGE);
	EXPECT_WRITE_LEAVES(A, 1);
}

/* Of what the VMM writes the kernel reads one number, and believes nothing. */
TEST_F(ring, scribbled)
{
	/* With the head at 0: ahead of it, too far behind, and just full. */
	static const u32 tails[] = { 1, 2, 0x7fffffff, 0x80000000, 0xffff0000, 0xffffffef,
				     0xfffffff0 };
	struct gpamap_ring_header *ring;
	u64 seed = test_seed();
	struct rnd rnd;
	u32 i, j;

	TH_LOG("SEED=%llu", (unsigned long long)seed);
	rnd_seed(&rnd, seed);
	add_ring(RING, 16, 1);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	ASSERT_EQ(0, set_register(self->fd, DEV, 8, 4, GPAMAP_REGISTER_READWRITE, 0x11));
	for (i = 0; i < ARRAY_SIZE(tails); i++) {
		ring->tail = tails[i];
		EXPECT_WRITE_LEAVES(A, 1);
		EXPECT_LEAVES(guest_read(&self->guest, A + 8, 4));
	}
	EXPECT_EQ(0u, ring->head);
	/* This can be: there is room for one. */
	ring->tail = 0xfffffff1;
	EXPECT_POSTED(A, 8, 1);
	EXPECT_EQ(1u, ring->head);
	EXPECT_WRITE_LEAVES(A, 2);
	ring->tail = 1;
	EXPECT_READ(A + 8, 4, 0x11);
	/* The rest of the header. */
	memset(ring, 0xff, offsetof(struct gpamap_ring_header, tail));
	EXPECT_POSTED(A, 8, 2);
	EXPECT_EQ(2u, ring->head);
	EXPECT_EQ(0xffffffffu, ring->nr_entries);
	ring->nr_entries = 16;
	ring->entry_size = sizeof(struct gpamap_ring_entry);
	ring->entries = PAGE;
	EXPECT_ENTRY(ring, 1, DEV, 0, 8, 2);
	/* All of it, with anything, while a vCPU writes. */
	for (i = 0; i < 30; i++) {
		int rc;

		ASSERT_EQ(0, guest_loop(&self->guest, 0, GUEST_LOOP_WRITE, A, 20, 0));
		for (j = 0; j < ring_len(16) / 8; j++)
			((u64 *)ring)[j] = rnd_next(&rnd);
		ring->tail = rnd_below(&rnd, 4) ? 2 + rnd_below(&rnd, 600) : ring->tail;
		while ((rc = guest_io_run(&self->guest)) == KVM_EXIT_MMIO)
			ring->tail += rnd_below(&rnd, 3);
		EXPECT_EQ(KVM_EXIT_HLT, rc);
	}
	EXPECT_EQ(0, remove_post_rc(DEV));
	EXPECT_EQ(0, remove_ring_rc(RING));
	unmap_ring(ring, 16);
}

TEST_F(ring, limit_rings)
{
	u32 i;

	for (i = 1; i <= GPAMAP_MAX_RINGS; i++)
		add_ring(i, 16, 1);
	EXPECT_EQ(-ENOSPC, ring_rc(self->fd, 0, i, 16, 1, self->bell));
	EXPECT_EQ(-EEXIST, ring_rc(self->fd, 0, 1, 16, 1, self->bell));
	ASSERT_EQ(0, remove_ring_rc(7));
	add_ring(i, 16, 1);
	EXPECT_EQ(-ENOSPC, ring_rc(self->fd, 0, 7, 16, 1, self->bell));
	add_post(DEV, i);
	EXPECT_POSTED(A, 8, 1);
}

/* The largest there can be: every place is used. */
TEST_F_TIMEOUT(ring, limit_entries, 120)
{
	struct gpamap_ring_header *ring;
	struct gpamap_ring_entry entry;
	u32 i, nr = GPAMAP_MAX_RING_ENTRIES;
	bool right = true;

	add_ring(RING, nr, nr);
	ring = map_ring(self->fd, RING, nr);
	ASSERT_NE(NULL, ring);
	add_post(DEV, RING);
	ASSERT_EQ(0, guest_loop(&self->guest, 0, GUEST_LOOP_WRITE, A, nr - 1, 0));
	ASSERT_EQ(KVM_EXIT_HLT, guest_io_run(&self->guest));
	EXPECT_EQ(0u, count_of(self->bell));
	EXPECT_POSTED(A, 8, nr - 1);
	EXPECT_EQ(1u, count_of(self->bell));
	EXPECT_WRITE_LEAVES(A, nr);
	for (i = 0; i < nr; i++) {
		entry = take(ring);
		right &= entry.seq == i && entry.value == i && entry.region == DEV;
	}
	EXPECT_TRUE(right);
	EXPECT_NO_ENTRY(ring);
	unmap_ring(ring, nr);
}

/* -- the library ----------------------------------------------------------- */

#define NR_LOG 64

/* What callbacks have seen. */
struct log {
	struct gpamap *map;
	struct gpamap_ring_reader *ring, *ring2;
	struct gpamap_batch *batch;	/* to be applied by the callback */
	struct guest *guest;
	u64 values[NR_LOG];
	u32 nr;
	int drained, drained2, drained_all, closed, applied;
	u32 generation;			/* of the map */
};

static void log_entry(void *arg, const struct gpamap_ring_entry *entry)
{
	struct log *log = arg;

	log->values[log->nr++ % NR_LOG] = entry->value;
	if (entry->value == 100) {
		/* None of these does anything, nor waits. */
		log->drained = gpamap_ring_drain(log->ring);
		log->drained2 = gpamap_ring_drain(log->ring2);
		log->drained_all = gpamap_drain(log->map);
		log->closed = gpamap_ring_close(log->ring);
		log->applied = gpamap_apply(log->map, log->batch, NULL);
	}
}

#define open_lib(_log)								\
	do {									\
		memset(_log, 0, sizeof(*(_log)));				\
		ASSERT_EQ(0, gpamap_from_fd(dup(self->fd), &(_log)->map));	\
		ASSERT_EQ(0, gpamap_batch_new(&(_log)->batch));			\
		ASSERT_EQ(0, gpamap_ring_open((_log)->map, RING, 16, 1, 0, self->bell,	\
					      log_entry, _log, &(_log)->ring));	\
	} while (0)

TEST_F(ring, library)
{
	struct gpamap_ring_reader *ring2;
	struct log log;
	u32 i;

	errno = 77;
	open_lib(&log);
	EXPECT_EQ(-EEXIST, gpamap_ring_open(log.map, RING, 16, 1, 0, self->bell, log_entry,
					    &log, &ring2));
	EXPECT_EQ(-EINVAL, gpamap_ring_open(log.map, RING2, 17, 1, 0, self->bell, log_entry,
					    &log, &ring2));
	EXPECT_EQ(-EBADF, gpamap_ring_open(log.map, RING2, 16, 1, 0, -2, log_entry, &log,
					    &ring2));
	EXPECT_EQ(-EINVAL, gpamap_ring_open(log.map, RING2, 16, 1, 0, -1, log_entry, &log,
					    &ring2));
	EXPECT_EQ(-EINVAL, gpamap_ring_open(log.map, RING2, 16, 1, GPAMAP_MAX_RING_DELAY_US + 1,
					    self->bell, log_entry, &log, &ring2));
	EXPECT_EQ(-ENOENT, gpamap_post_add(log.map, DEV, RING2));
	EXPECT_EQ(-ENOENT, gpamap_post_remove(log.map, DEV));
	ASSERT_EQ(0, gpamap_post_add(log.map, DEV, RING));
	EXPECT_EQ(-EEXIST, gpamap_post_add(log.map, DEV, RING));
	EXPECT_EQ(0, gpamap_ring_drain(log.ring));
	EXPECT_EQ(0, gpamap_drain(log.map));
	for (i = 0; i < 40; i++) {
		EXPECT_POSTED(A, 8, i);
		if (i % 10 == 9)
			EXPECT_EQ(10, gpamap_ring_drain(log.ring));
	}
	for (i = 0; i < 40; i++)
		EXPECT_EQ(i, log.values[i]);
	EXPECT_EQ(40u, log.nr);
	/* Two rings, of which one has no eventfd. */
	ASSERT_EQ(0, gpamap_ring_open(log.map, RING2, 32, 0, 0, -1, log_entry, &log, &ring2));
	ASSERT_EQ(0, gpamap_post_add(log.map, OTHER, RING2));
	EXPECT_POSTED(A, 8, 40);
	EXPECT_POSTED(B, 8, 41);
	EXPECT_POSTED(B, 8, 42);
	EXPECT_EQ(3, gpamap_drain(log.map));
	EXPECT_EQ(43u, log.nr);
	/* Closed when nothing is posted any more, and what is pending is not lost. */
	EXPECT_EQ(-EBUSY, gpamap_ring_close(ring2));
	EXPECT_POSTED(B, 8, 43);
	ASSERT_EQ(0, gpamap_post_remove(log.map, OTHER));
	EXPECT_EQ(43u, log.nr);
	EXPECT_EQ(0, gpamap_ring_close(ring2));
	EXPECT_EQ(44u, log.nr);
	EXPECT_EQ(43u, log.values[43]);
	EXPECT_EQ(0, gpamap_ring_close(NULL));
	EXPECT_EQ(77, errno);
	/* The map closes the other; it must not keep the file. */
	EXPECT_POSTED(A, 8, 44);
	close(self->fd);
	self->fd = -1;
	gpamap_batch_free(log.batch);
	gpamap_close(log.map);
	EXPECT_EQ(44u, log.nr);
	EXPECT_WRITE_LEAVES(A, 1);
	EXPECT_NO_MAP_LEFT();
}

/* Told of by the delay, as the mark is not reached. */
TEST_F(ring, library_and_a_delay)
{
	struct gpamap_ring_reader *ring2;
	struct log log;

	open_lib(&log);
	ASSERT_EQ(0, gpamap_ring_open(log.map, RING2, 16, 16, 2000, self->bell2, log_entry, &log,
				      &ring2));
	ASSERT_EQ(0, gpamap_post_add(log.map, DEV, RING2));
	EXPECT_POSTED(A, 8, 1);
	EXPECT_TRUE(hears(self->bell2));
	EXPECT_EQ(1, gpamap_ring_drain(ring2));
	EXPECT_EQ(1u, log.nr);
	gpamap_batch_free(log.batch);
	gpamap_close(log.map);
}

/* Rule 45, the library's half: what changes the map comes after what was posted before. */
TEST_F(ring, rule_45_apply_drains)
{
	struct gpamap_apply out;
	struct log log;

	open_lib(&log);
	ASSERT_EQ(0, gpamap_post_add(log.map, DEV, RING));
	EXPECT_POSTED(A, 8, 1);
	gpamap_batch_set_at(log.batch, DEV, C);
	EXPECT_EQ(0, gpamap_plan(log.map, log.batch, &out, NULL));
	EXPECT_EQ(0u, log.nr);
	EXPECT_EQ(0, gpamap_apply(log.map, log.batch, NULL));
	EXPECT_EQ(1u, log.nr);
	EXPECT_POSTED(C, 8, 2);
	gpamap_batch_reset(log.batch);
	gpamap_batch_set_at(log.batch, DEV, A);
	EXPECT_EQ(0, gpamap_apply_out(log.map, log.batch, &out, NULL));
	EXPECT_EQ(2u, log.nr);
	EXPECT_POSTED(A, 8, 3);
	EXPECT_EQ(0, gpamap_detach(log.map));
	EXPECT_EQ(3u, log.nr);
	gpamap_batch_free(log.batch);
	gpamap_close(log.map);
}

/* Nor does it go round in circles. */
TEST_F(ring, rule_45_draining_does_not_recurse)
{
	struct log log;

	open_lib(&log);
	ASSERT_EQ(0, gpamap_ring_open(log.map, RING2, 32, 1, 0, self->bell2, log_entry, &log,
				      &log.ring2));
	ASSERT_EQ(0, gpamap_post_add(log.map, DEV, RING));
	ASSERT_EQ(0, gpamap_post_add(log.map, OTHER, RING2));
	gpamap_batch_set_at(log.batch, DEV, C);
	log.applied = -1;
	EXPECT_POSTED(A, 8, 99);
	EXPECT_POSTED(A, 8, 100);
	EXPECT_POSTED(A, 8, 101);
	EXPECT_POSTED(B, 8, 102);
	EXPECT_EQ(3, gpamap_ring_drain(log.ring));
	EXPECT_EQ(-EBUSY, log.drained);
	EXPECT_EQ(-EBUSY, log.drained2);
	EXPECT_EQ(-EBUSY, log.drained_all);
	EXPECT_EQ(-EBUSY, log.closed);
	EXPECT_EQ(0, log.applied);
	EXPECT_EQ(3u, log.nr);
	EXPECT_EQ(99u, log.values[0]);
	EXPECT_EQ(100u, log.values[1]);
	EXPECT_EQ(101u, log.values[2]);
	/* What it applied is applied, and afterwards all is as ever. */
	EXPECT_WRITE_LEAVES(A, 1);
	EXPECT_POSTED(C, 8, 103);
	EXPECT_EQ(2, gpamap_drain(log.map));
	EXPECT_EQ(5u, log.nr);
	gpamap_batch_free(log.batch);
	gpamap_close(log.map);
}

TEST_F(ring, library_and_a_spoilt_header)
{
	struct gpamap_ring_header *ring;
	struct log log;

	open_lib(&log);
	ring = map_ring(self->fd, RING, 16);
	ASSERT_NE(NULL, ring);
	ASSERT_EQ(0, gpamap_post_add(log.map, DEV, RING));
	ring->head = 17;
	EXPECT_EQ(-EIO, gpamap_ring_drain(log.ring));
	EXPECT_EQ(-EIO, gpamap_drain(log.map));
	gpamap_batch_set_at(log.batch, DEV, C);
	EXPECT_EQ(0, gpamap_apply(log.map, log.batch, NULL));
	EXPECT_EQ(0u, log.nr);
	ring->head = 0xffffffff;
	EXPECT_EQ(-EIO, gpamap_ring_drain(log.ring));
	EXPECT_POSTED(C, 8, 1);
	EXPECT_EQ(1, gpamap_ring_drain(log.ring));
	unmap_ring(ring, 16);
	gpamap_batch_free(log.batch);
	gpamap_close(log.map);
}

/* -- beside running vCPUs -------------------------------------------------- */

#define NR_VCPUS 2
#define LAP 64

struct world;

/* A vCPU that writes 0, 1, 2 ... to one address, all the time. */
struct writer {
	struct world *world;
	pthread_t thread;
	struct guest *guest;
	u64 gpa;
	u64 next;			/* that is to be done; under the lock of the world */
	u64 posted, left;
	u64 laps;
	int reason;
};

struct world {
	struct gpamap *map;
	struct gpamap_ring_reader *ring;
	struct writer writers[NR_VCPUS];
	pthread_mutex_t lock;
	bool wrong;
	int stop;
};

static void world_done(struct world *world, u32 nr, u64 value, bool posted)
{
	struct writer *w = &world->writers[nr];

	pthread_mutex_lock(&world->lock);
	if (value != w->next)
		world->wrong = true;
	w->next = value + 1;
	if (posted)
		w->posted++;
	else
		w->left++;
	pthread_mutex_unlock(&world->lock);
}

/* Of the vCPU @nr are the writes to offset 8 * @nr, in either region. */
static void world_entry(void *arg, const struct gpamap_ring_entry *entry)
{
	world_done(arg, entry->offset / 8 % NR_VCPUS, entry->value, true);
}

static void *writer_thread(void *arg)
{
	struct writer *w = arg;
	struct world *world = w->world;
	u64 value;

	while (!__atomic_load_n(&world->stop, __ATOMIC_ACQUIRE)) {
		w->reason = guest_loop(w->guest, 0, GUEST_LOOP_WRITE, w->gpa, LAP,
				       w->laps * LAP);
		while (!w->reason && (w->reason = guest_io_run(w->guest)) == KVM_EXIT_MMIO) {
			struct kvm_run *run = w->guest->run;

			if (world->map)
				gpamap_drain(world->map);
			memcpy(&value, run->mmio.data, sizeof(value));
			if (run->mmio.phys_addr != w->gpa || run->mmio.len != 8)
				world->wrong = true;
			world_done(world, w - world->writers, value, false);
			w->reason = 0;
		}
		if (w->reason != KVM_EXIT_HLT)
			break;
		__atomic_add_fetch(&w->laps, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* Nothing posts yet. */
static int world_start(struct world *world, int fd, struct guest *first,
		       struct guest *second)
{
	u32 i;
	int rc;

	memset(world, 0, sizeof(*world));
	pthread_mutex_init(&world->lock, NULL);
	rc = gpamap_from_fd(dup(fd), &world->map);
	for (i = 0; !rc && i < NR_VCPUS; i++) {
		world->writers[i].world = world;
		world->writers[i].guest = i ? second : first;
		world->writers[i].gpa = A + 8 * i;
		rc = -pthread_create(&world->writers[i].thread, NULL, writer_thread,
				     &world->writers[i]);
	}
	return rc;
}

static void world_stop(struct world *world)
{
	u32 i;

	__atomic_store_n(&world->stop, 1, __ATOMIC_RELEASE);
	for (i = 0; i < NR_VCPUS; i++)
		pthread_join(world->writers[i].thread, NULL);
}

/* Whether all vCPUs have done another lap. */
static bool world_goes_on(struct world *world)
{
	u64 end = now_ms() + 60000, before[NR_VCPUS];
	u32 i;

	for (i = 0; i < NR_VCPUS; i++)
		before[i] = __atomic_load_n(&world->writers[i].laps, __ATOMIC_ACQUIRE);
	for (i = 0; i < NR_VCPUS; i++)
		while (__atomic_load_n(&world->writers[i].laps, __ATOMIC_ACQUIRE) == before[i]) {
			if (world->wrong || now_ms() > end)
				return false;
			usleep(100);
		}
	return true;
}

#define EXPECT_WORLD_OK(_world)							\
	do {									\
		u32 __i;							\
		EXPECT_EQ(false, (_world)->wrong);				\
		for (__i = 0; __i < NR_VCPUS; __i++) {				\
			struct writer *__w = &(_world)->writers[__i];		\
			EXPECT_EQ(KVM_EXIT_HLT, __w->reason);			\
			EXPECT_EQ(__w->laps * LAP, __w->next);			\
			EXPECT_EQ(__w->laps * LAP, __w->posted + __w->left);	\
			TH_LOG("vCPU %u: %llu posted, %llu left", __i,		\
			       (unsigned long long)__w->posted,			\
			       (unsigned long long)__w->left);			\
		}								\
	} while (0)

/*
 * Regions that move, come and go, groups and rings that are made and removed: every write
 * is done once, and after the one before it.
 */
TEST_F_TIMEOUT(ring, all_changes_under_vcpus, 1200)
{
	u64 moves = env_number("MOVES", 300), seed = test_seed(), i;
	struct gpamap_batch *batch;
	bool open = false, posts = false;
	struct guest second;
	struct world world;
	struct rnd rnd;

	TH_LOG("SEED=%llu", (unsigned long long)seed);
	rnd_seed(&rnd, seed);
	ASSERT_EQ(0, gpamap_batch_new(&batch));
	ASSERT_EQ(0, guest_add_vcpu(&second, &self->guest, 1));
	ASSERT_EQ(0, world_start(&world, self->fd, &self->guest, &second));
	for (i = 0; i < moves && !world.wrong; i++) {
		gpamap_batch_reset(batch);
		switch (rnd_below(&rnd, 6)) {
		case 0:
			gpamap_batch_set_at(batch, DEV, rnd_below(&rnd, 2) ? A : C);
			ASSERT_EQ(0, gpamap_apply(world.map, batch, NULL));
			break;
		case 1:
			gpamap_batch_set_enabled(batch, DEV, rnd_below(&rnd, 4));
			ASSERT_EQ(0, gpamap_apply(world.map, batch, NULL));
			break;
		case 2:
			/* The other lies above or below. */
			gpamap_batch_set_at(batch, OTHER, rnd_below(&rnd, 2) ? A : B);
			gpamap_batch_set_prio(batch, OTHER, rnd_below(&rnd, 2) ? 1 : -1);
			ASSERT_EQ(0, gpamap_apply(world.map, batch, NULL));
			break;
		case 3:
			if (open && posts) {
				ASSERT_EQ(0, gpamap_post_remove(world.map, DEV));
				posts = false;
			}
			break;
		case 4:
			if (open && !posts) {
				ASSERT_EQ(0, gpamap_post_add(world.map, DEV, RING));
				posts = true;
			}
			break;
		case 5:
			if (open && !posts) {
				gpamap_post_remove(world.map, OTHER);
				ASSERT_EQ(0, gpamap_ring_close(world.ring));
				open = false;
			} else if (!open) {
				ASSERT_EQ(0, gpamap_ring_open(world.map, RING,
							      16 << rnd_below(&rnd, 3), 8,
							      rnd_below(&rnd, 300), self->bell,
							      world_entry, &world,
							      &world.ring));
				if (rnd_below(&rnd, 2))
					ASSERT_EQ(0, gpamap_post_add(world.map, OTHER, RING));
				ASSERT_EQ(0, gpamap_post_add(world.map, DEV, RING));
				open = posts = true;
			}
			break;
		}
		usleep(rnd_below(&rnd, 2000));
		if (i % 16 == 0 && !world_goes_on(&world))
			break;
	}
	EXPECT_EQ(moves, i);
	world_stop(&world);
	gpamap_drain(world.map);
	EXPECT_WORLD_OK(&world);
	EXPECT_LT(0u, world.writers[0].posted);
	EXPECT_LT(0u, world.writers[0].left);
	gpamap_batch_free(batch);
	gpamap_close(world.map);
	guest_destroy(&second);
}

struct waiter {
	struct gpamap_ring_reader *ring;
	int bell;
	u64 wakeups;
	int stop;
};

/* Drains when it is told to, and at no other time. */
static void *waiter_thread(void *arg)
{
	struct waiter *waiter = arg;
	struct pollfd pollfd = { .fd = waiter->bell, .events = POLLIN };

	while (!__atomic_load_n(&waiter->stop, __ATOMIC_ACQUIRE)) {
		if (poll(&pollfd, 1, 20) != 1 || !count_of(waiter->bell))
			continue;
		gpamap_ring_drain(waiter->ring);
		__atomic_add_fetch(&waiter->wakeups, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* Who hears the eventfd misses none: in the end less than the watermark is pending. */
TEST_F_TIMEOUT(ring, watermark_under_vcpus, 600)
{
	struct guest second;
	u32 lap, mark, i;

	ASSERT_EQ(0, guest_add_vcpu(&second, &self->guest, 1));
	for (lap = 0; lap < 40; lap++) {
		struct waiter waiter = { .bell = self->bell };
		struct gpamap_ring_header *ring;
		struct world world;
		pthread_t thread;

		mark = 1 + lap % 7;
		ASSERT_EQ(0, world_start(&world, self->fd, &self->guest, &second));
		ASSERT_EQ(0, gpamap_ring_open(world.map, RING, 4096, mark, 0, self->bell,
					      world_entry, &world, &world.ring));
		waiter.ring = world.ring;
		ASSERT_EQ(0, pthread_create(&thread, NULL, waiter_thread, &waiter));
		ring = map_ring(self->fd, RING, 4096);
		ASSERT_NE(NULL, ring);
		ASSERT_EQ(0, gpamap_post_add(world.map, DEV, RING));
		EXPECT_TRUE(world_goes_on(&world));
		world_stop(&world);
		for (i = 0; i < 2000 && pending(ring) >= mark; i++)
			usleep(1000);
		EXPECT_GT(mark, pending(ring));
		EXPECT_LT(0u, waiter.wakeups);
		__atomic_store_n(&waiter.stop, 1, __ATOMIC_RELEASE);
		pthread_join(thread, NULL);
		gpamap_drain(world.map);
		EXPECT_EQ(false, world.wrong);
		unmap_ring(ring, 4096);
		ASSERT_EQ(0, gpamap_post_remove(world.map, DEV));
		ASSERT_EQ(0, gpamap_ring_close(world.ring));
		gpamap_close(world.map);
	}
	guest_destroy(&second);
}

/* Detached and closed under vCPUs that find the ring full, or not. */
TEST_F_TIMEOUT(ring, closed_under_vcpus, 600)
{
	struct gpamap_ring_header *ring;
	struct guest second;
	struct world world;
	u32 i;

	ASSERT_EQ(0, guest_add_vcpu(&second, &self->guest, 1));
	ASSERT_EQ(0, world_start(&world, self->fd, &self->guest, &second));
	gpamap_close(world.map);
	world.map = NULL;
	for (i = 0; i < 40; i++) {
		u32 nr = i & 1 ? 16 : GPAMAP_MAX_RING_ENTRIES;

		add_ring(RING, nr, 1);
		add_post(DEV, RING);
		ring = map_ring(self->fd, RING, nr);
		ASSERT_NE(NULL, ring);
		wait_until(pending(ring) > (i & 1 ? 15 : 40));
		switch (i % 3) {
		case 0:
			test_cmd_detach(self->fd);
			break;
		case 1:
			ASSERT_EQ(0, remove_post_rc(DEV));
			ASSERT_EQ(0, remove_ring_rc(RING));
			break;
		}
		close(self->fd);
		unmap_ring(ring, nr);
		EXPECT_NO_MAP_LEFT();
		self->fd = create_map(self->guest.vm, self->mem);
		ASSERT_LE(0, self->fd);
	}
	world_stop(&world);
	for (i = 0; i < NR_VCPUS; i++)
		EXPECT_EQ(KVM_EXIT_HLT, world.writers[i].reason);
	guest_destroy(&second);
}

/* The process dies with its guests running and their rings in place. */
TEST_F_TIMEOUT(ring, killed, 120)
{
	u64 seed = test_seed(), i;
	struct rnd rnd;

	TH_LOG("SEED=%llu", (unsigned long long)seed);
	rnd_seed(&rnd, seed);
	close(self->fd);
	self->fd = -1;
	guest_destroy(&self->guest);
	for (i = 0; i < 8 && _metadata->passed; i++) {
		u64 end = now_ms() + 10000, n = 0;
		int status;
		pid_t pid;

		count_of(self->bell);
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			struct guest second;
			struct world world;

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (guest_create(&self->guest))
				_exit(53);
			self->io = guest_io_create(&self->guest);
			if (!self->io)
				_exit(53);
			self->fd = create_map(self->guest.vm, self->mem);
			if (self->fd < 0 || guest_add_vcpu(&second, &self->guest, 1) ||
			    world_start(&world, self->fd, &self->guest, &second))
				_exit(54);
			/* Either the ring is drained, or it is soon full. */
			if (gpamap_ring_open(world.map, RING, 64, 1, 0, self->bell, world_entry,
					     &world, &world.ring) ||
			    gpamap_post_add(world.map, DEV, RING))
				_exit(55);
			for (;;) {
				if (i & 1)
					gpamap_drain(world.map);
				else
					usleep(1000);
			}
		}
		while (!n && now_ms() < end) {
			n = count_of(self->bell);
			usleep(100);
		}
		EXPECT_LT(0u, n);
		usleep(rnd_below(&rnd, 30000));
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		EXPECT_TRUE(WIFSIGNALED(status)) TH_LOG("exit %d", WEXITSTATUS(status));
		EXPECT_NOTHING_LEFT();
	}
}

TEST_HARNESS_MAIN

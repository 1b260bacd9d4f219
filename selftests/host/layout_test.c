// SPDX-License-Identifier: GPL-2.0
/*
 * The library with kernels that lay shared memory out otherwise than the one it was built
 * with: records and headers that have grown, that are not so long yet, areas that it does not
 * know, and versions that it must not touch.
 *
 * Linked with userlib, whose ioctl() and mmap() are those of this file: the kernel.
 */
#include "kselftest/kselftest_harness.h"

#include <errno.h>
#include <gpamap.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define MAX_LEN (64 * PAGE)
#define NR_AREAS 4
#define UNKNOWN_AREA 4

/* What the kernel says; mmap() gives this memory, filled with what nobody should take. */
static struct gpamap_layout layouts[NR_AREAS];
static uint32_t nr_layouts;
static unsigned char *area;
static size_t mapped_len;
static off_t mapped_at;

int __wrap_ioctl(int fd, unsigned long cmd, void *arg);
void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
int __wrap_munmap(void *addr, size_t len);
void *__real_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *addr, size_t len);

static int query(struct gpamap_query *cmd)
{
	uint32_t room = cmd->count;

	if (cmd->what != GPAMAP_QUERY_LAYOUT || !nr_layouts) {
		errno = EOPNOTSUPP;
		return -1;
	}
	cmd->count = nr_layouts;
	if (room < nr_layouts) {
		errno = EMSGSIZE;
		return -1;
	}
	memcpy((void *)(uintptr_t)cmd->records, layouts, nr_layouts * sizeof(layouts[0]));
	return 0;
}

int __wrap_ioctl(int fd, unsigned long cmd, void *arg)
{
	switch (cmd) {
	case GPAMAP_QUERY:
		return query(arg);
	case GPAMAP_RING:
		return 0;
	}
	errno = ENOENT;
	return -1;
}

void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	/* The harness's own. */
	if (fd < 0)
		return __real_mmap(addr, len, prot, flags, fd, offset);
	if (len > MAX_LEN) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	mapped_len = len;
	mapped_at = offset;
	return area;
}

/* What is unmapped is what was mapped. */
int __wrap_munmap(void *addr, size_t len)
{
	if (addr != area)
		return __real_munmap(addr, len);
	if (len != mapped_len)
		abort();
	mapped_len = 0;
	return 0;
}

/* ---- tests ------------------------------------------------------------ */

FIXTURE(layout) {
	struct gpamap *map;
};

FIXTURE_SETUP(layout)
{
	static const struct gpamap_layout now[] = {
		{ GPAMAP_AREA_EXITS, 1, 0, 0, sizeof(struct gpamap_exit), PAGE },
		{ GPAMAP_AREA_REGISTERS, 1, 0, 0, PAGE, 0 },
		{ GPAMAP_AREA_RING, 1, sizeof(struct gpamap_ring_header), PAGE,
		  sizeof(struct gpamap_ring_entry), 0 },
		{ UNKNOWN_AREA, 7, 1, 2, 3, 4 },
	};

	memcpy(layouts, now, sizeof(layouts));
	nr_layouts = NR_AREAS;
	area = aligned_alloc(PAGE, MAX_LEN);
	ASSERT_NE(NULL, area);
	memset(area, 0xa5, MAX_LEN);
	self->map = NULL;
}

FIXTURE_TEARDOWN(layout)
{
	gpamap_close(self->map);
	EXPECT_EQ(0, mapped_len);
	free(area);
}

#define open_map() ASSERT_EQ(0, gpamap_from_fd(dup(0), &self->map))

#define LAYOUT(_area) (&layouts[(_area) - GPAMAP_AREA_EXITS])

static struct gpamap_exit record_of(uint32_t id)
{
	return (struct gpamap_exit){
		.addr = 0x1000 + id, .offset = id, .last = 0x1fff, .generation = 5, .space = 1,
		.region = 100 + id, .kind = GPAMAP_REGION_RAM, .hva = 0x700000 + id,
	};
}

#define EXPECT_RESOLVED(_exits, _id, _hva)					\
	do {									\
		struct gpamap_exit *__e = gpamap_exits_at(_exits, _id);		\
		struct gpamap_lookup __l;					\
		ASSERT_NE(NULL, __e);						\
		EXPECT_EQ(0, gpamap_exit_resolve(self->map, __e, 1, 0x1000 + (_id), &__l)); \
		EXPECT_EQ(100u + (_id), __l.out_region);			\
		EXPECT_EQ((uint64_t)(_id), __l.out_offset);			\
		EXPECT_EQ((uint64_t)(_hva), __l.out_hva);			\
		EXPECT_EQ(0u, __e->region);					\
	} while (0)

/* A header before the records, which are half as long again: 42 in a page. */
TEST_F(layout, longer_exits)
{
	const uint32_t ids[] = { 0, 1, 41, 42, 43, 83, 84, 99 };
	struct gpamap_exits *exits;
	struct gpamap_exit record;
	uint32_t i;

	LAYOUT(GPAMAP_AREA_EXITS)->header_size = 128;
	LAYOUT(GPAMAP_AREA_EXITS)->first = PAGE;
	LAYOUT(GPAMAP_AREA_EXITS)->record_size = 96;
	open_map();
	for (i = 0; i < ARRAY_SIZE(ids); i++) {
		record = record_of(ids[i]);
		memcpy(area + PAGE + ids[i] / 42 * PAGE + ids[i] % 42 * 96, &record,
		       sizeof(record));
	}
	ASSERT_EQ(0, gpamap_exits_map(self->map, 100, &exits));
	EXPECT_EQ(0, mapped_at);
	EXPECT_EQ(4 * PAGE, mapped_len);
	for (i = 0; i < ARRAY_SIZE(ids); i++)
		EXPECT_RESOLVED(exits, ids[i], 0x700000 + ids[i]);
	EXPECT_EQ(NULL, gpamap_exits_at(exits, 100));
	gpamap_exits_unmap(exits);
	/* The header is one page of those that can be mapped. */
	EXPECT_EQ(-EINVAL, gpamap_exits_map(self->map, 63 * 42 + 1, &exits));
	ASSERT_EQ(0, gpamap_exits_map(self->map, 63 * 42, &exits));
	gpamap_exits_unmap(exits);
}

/* A kernel that does not tell the host's memory yet: it is none, not the next record's. */
TEST_F(layout, shorter_exits)
{
	struct gpamap_exits *exits;
	struct gpamap_exit record;
	uint32_t i;

	LAYOUT(GPAMAP_AREA_EXITS)->record_size = 48;
	open_map();
	for (i = 0; i < 100; i++) {
		record = record_of(i);
		memcpy(area + i / 85 * PAGE + i % 85 * 48, &record, 48);
	}
	ASSERT_EQ(0, gpamap_exits_map(self->map, 100, &exits));
	EXPECT_EQ(2 * PAGE, mapped_len);
	for (i = 0; i < 100; i++)
		EXPECT_RESOLVED(exits, i, 0);
	gpamap_exits_unmap(exits);
}

/* One after the other, whatever the pages are. */
TEST_F(layout, exits_without_blocks)
{
	struct gpamap_exits *exits;
	struct gpamap_exit record;
	uint32_t i;

	LAYOUT(GPAMAP_AREA_EXITS)->first = 16;
	LAYOUT(GPAMAP_AREA_EXITS)->record_size = 72;
	LAYOUT(GPAMAP_AREA_EXITS)->block_size = 0;
	open_map();
	for (i = 0; i < 100; i++) {
		record = record_of(i);
		memcpy(area + 16 + i * 72, &record, sizeof(record));
	}
	ASSERT_EQ(0, gpamap_exits_map(self->map, 100, &exits));
	EXPECT_EQ(2 * PAGE, mapped_len);
	for (i = 0; i < 100; i++)
		EXPECT_RESOLVED(exits, i, 0x700000 + i);
	gpamap_exits_unmap(exits);
	EXPECT_EQ(-EINVAL, gpamap_exits_map(self->map, ~0U, &exits));
}

TEST_F(layout, registers)
{
	void *page;

	LAYOUT(GPAMAP_AREA_REGISTERS)->header_size = 64;
	LAYOUT(GPAMAP_AREA_REGISTERS)->first = 256;
	LAYOUT(GPAMAP_AREA_REGISTERS)->record_size = 2 * PAGE;
	open_map();
	ASSERT_EQ(0, gpamap_registers_map(self->map, 7, &page));
	EXPECT_EQ(7 * PAGE, mapped_at);
	EXPECT_EQ(3 * PAGE, mapped_len);
	EXPECT_EQ((void *)(area + 256), page);
	gpamap_registers_unmap(self->map, page);
}

#define RING_ENTRIES 16

struct seen {
	uint32_t nr;
	struct gpamap_ring_entry entries[2 * RING_ENTRIES];
};

static void see(void *arg, const struct gpamap_ring_entry *entry)
{
	struct seen *seen = arg;

	seen->entries[seen->nr++] = *entry;
}

static void drain(struct __test_metadata *_metadata, struct gpamap *map, uint32_t first,
		  uint32_t stride, struct seen *seen)
{
	struct gpamap_ring_header *header = (void *)area;
	const uint32_t known = stride < sizeof(struct gpamap_ring_entry) ?
		stride : sizeof(struct gpamap_ring_entry);
	struct gpamap_ring_reader *ring;
	uint32_t i, round;

	header->head = 0;
	header->tail = 0;
	ASSERT_EQ(0, gpamap_ring_open(map, 3, RING_ENTRIES, 1, 0, 0, see, seen, &ring));
	EXPECT_EQ((off_t)(GPAMAP_RING_PGOFF | 3) * PAGE, mapped_at);
	EXPECT_EQ((first + RING_ENTRIES * stride + PAGE - 1) / PAGE * PAGE, mapped_len);
	for (round = 0; round < 2; round++) {
		for (i = 0; i < RING_ENTRIES; i++) {
			const struct gpamap_ring_entry entry = {
				.seq = header->head, .region = 8, .len = 4,
				.offset = header->head, .value = 0x1000 + header->head,
			};

			memcpy(area + first + i * stride, &entry, known);
			header->head++;
		}
		EXPECT_EQ(RING_ENTRIES, gpamap_ring_drain(ring));
		EXPECT_EQ(header->head, header->tail);
	}
	ASSERT_EQ(2 * RING_ENTRIES, seen->nr);
	EXPECT_EQ(0, gpamap_ring_close(ring));
}

TEST_F(layout, longer_ring)
{
	struct seen seen = { 0 };
	uint32_t i;

	LAYOUT(GPAMAP_AREA_RING)->header_size = 3 * PAGE / 2;
	LAYOUT(GPAMAP_AREA_RING)->first = 2 * PAGE;
	LAYOUT(GPAMAP_AREA_RING)->record_size = 264;
	open_map();
	drain(_metadata, self->map, 2 * PAGE, 264, &seen);
	for (i = 0; i < seen.nr; i++) {
		EXPECT_EQ(i, seen.entries[i].offset);
		EXPECT_EQ(0x1000 + i, seen.entries[i].value);
	}
}

TEST_F(layout, bytes_of_an_entry)
{
	struct gpamap_ring_entry entry = { .value = 0x332211, .len = 3 };
	static const uint8_t little[] = { 0x11, 0x22, 0x33 }, big[] = { 0x33, 0x22, 0x11 };
	const uint8_t *bytes = gpamap_ring_entry_bytes(&entry);

	ASSERT_NE(NULL, bytes);
	EXPECT_EQ(0, memcmp(__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? big : little, bytes, 3));
	/* Lengths that only the process itself can have written. */
	entry.len = 0;
	EXPECT_EQ(NULL, gpamap_ring_entry_bytes(&entry));
	entry.len = 9;
	EXPECT_EQ(NULL, gpamap_ring_entry_bytes(&entry));
	entry.len = UINT32_MAX;
	EXPECT_EQ(NULL, gpamap_ring_entry_bytes(&entry));
}

TEST_F(layout, shorter_ring)
{
	struct seen seen = { 0 };
	uint32_t i;

	LAYOUT(GPAMAP_AREA_RING)->first = 512;
	LAYOUT(GPAMAP_AREA_RING)->record_size = 24;
	open_map();
	drain(_metadata, self->map, 512, 24, &seen);
	for (i = 0; i < seen.nr; i++) {
		EXPECT_EQ(i, seen.entries[i].offset);
		EXPECT_EQ(0u, seen.entries[i].value);
	}
}

static void expect_not_usable(struct __test_metadata *_metadata, struct gpamap **map)
{
	struct gpamap_exit exit = { 0 };
	struct gpamap_ring_reader *ring;
	struct gpamap_exits *exits;
	struct gpamap_lookup found;
	void *page;

	ASSERT_EQ(0, gpamap_from_fd(dup(0), map));
	EXPECT_EQ(-EOPNOTSUPP, gpamap_exits_map(*map, 1, &exits));
	EXPECT_EQ(-EOPNOTSUPP, gpamap_exit_resolve(*map, &exit, 1, 0, &found));
	EXPECT_EQ(-EOPNOTSUPP, gpamap_registers_map(*map, 1, &page));
	EXPECT_EQ(-EOPNOTSUPP, gpamap_ring_open(*map, 1, 16, 1, 0, 0, see, NULL, &ring));
	gpamap_close(*map);
	*map = NULL;
}

/* Of another version nothing is known. */
TEST_F(layout, other_versions)
{
	uint32_t i;

	for (i = 0; i < NR_AREAS; i++)
		layouts[i].version = GPAMAP_LAYOUT_VERSION + 1;
	expect_not_usable(_metadata, &self->map);
	for (i = 0; i < NR_AREAS; i++)
		layouts[i].version = ~0U;
	expect_not_usable(_metadata, &self->map);
}

/* What no kernel says. */
TEST_F(layout, unsound)
{
	uint32_t i;

	for (i = 0; i < NR_AREAS; i++)
		layouts[i].record_size = 0;
	expect_not_usable(_metadata, &self->map);
	for (i = 0; i < NR_AREAS; i++) {
		layouts[i].record_size = 96;
		layouts[i].block_size = 95;
	}
	expect_not_usable(_metadata, &self->map);
}

TEST_F(layout, no_such_areas)
{
	layouts[0].area = UNKNOWN_AREA;
	nr_layouts = 1;
	expect_not_usable(_metadata, &self->map);
}

TEST_F(layout, none)
{
	int fd = dup(0);

	nr_layouts = 0;
	EXPECT_EQ(-EOPNOTSUPP, gpamap_from_fd(fd, &self->map));
	/* It stays the caller's. */
	EXPECT_EQ(0, close(fd));
}

TEST_HARNESS_MAIN

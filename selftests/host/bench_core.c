// SPDX-License-Identifier: GPL-2.0
/*
 * What the pure core costs, on maps of 10 to 100,000 regions shaped like a PC: memory
 * through two aliases, firmware, overlays that are off, and a tree of PCI buses, each a
 * container that its parent sees through the alias that is the bridge's window, with
 * BARs of io and memory in it, some of which lie on each other or hold others.
 *
 * Run by bench-core, which starts it under callgrind. That counts inside of measured()
 * alone, and writes a count to a file of its own whenever measured() returns. What is
 * printed here tells what the counts are, in their order:
 *
 *	count NAME DIVISOR UNIT		the next count is DIVISOR times the figure
 *	value NAME VALUE UNIT		a figure that needs no counting
 *
 * To see where the instructions of one figure are, name it:
 *	valgrind --tool=callgrind --toggle-collect=measured bench_core toggle.10000
 * and callgrind_annotate what that leaves.
 */
#include <malloc.h>
#include "core.h"

/* So many BARs are switched and moved, there and back. */
#define NR_PROBES 8
/* So many addresses are looked up. */
#define NR_FINDS 1000

#define BARS_PER_BUS 24		/* before there are bridges on it */
#define BRIDGES_PER_BUS 16
#define BAR_SPACING 0x20000ULL
#define PCI_BASE 0x1000000000ULL
#define RAM_BELOW 0xc0000000ULL
#define RAM_ABOVE 0x40000000ULL

struct bar {
	u32 id;
	u64 at;			/* in its bus */
	u64 last;
};

struct bench {
	struct gpamap_tree tree;
	struct gpamap_txn txn;
	bool open;
	bool bus_master;	/* every bus has a view of the system for its devices */
	u32 size;		/* regions to make */
	u32 nr;			/* made */
	struct bar *bars;
	u32 nr_bars;
	struct bar probes[NR_PROBES];
	u64 finds[NR_FINDS];
	struct gpamap_flatview *view;
	u64 sum;		/* so that look-ups are not thrown out */
};

enum { SYSTEM = 1, RAM, RAM_LOW, RAM_HIGH, PCI, BIOS, OVERLAY, NR_FIXED = OVERLAY };

static u64 next_random(void)
{
	static u64 x = 88172645463325252ULL;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static void must(int rc)
{
	if (rc) {
		fprintf(stderr, "bench_core: error %d\n", rc);
		exit(1);
	}
}

/* ---- building --------------------------------------------------------- */

static void flush(struct bench *b)
{
	if (!b->open)
		return;
	must(gpamap_txn_render(&b->txn));
	gpamap_txn_commit(&b->txn);
	b->open = false;
}

static void op(struct bench *b, struct gpamap_op op)
{
	if (b->open && b->txn.nr == b->txn.max)
		flush(b);
	if (!b->open)
		must(gpamap_txn_begin(&b->txn, &b->tree, 4096));
	b->open = true;
	must(gpamap_txn_op(&b->txn, &op));
}

static u32 region(struct bench *b, u32 kind, u64 last, u32 flags)
{
	op(b, (struct gpamap_op){ .code = GPAMAP_OP_REGION, .id = ++b->nr, .kind = kind,
				  .last = last, .flags = flags });
	return b->nr;
}

static u32 alias(struct bench *b, u32 target, u64 offset, u64 last, u32 flags)
{
	op(b, (struct gpamap_op){ .code = GPAMAP_OP_REGION, .id = ++b->nr, .last = last,
				  .kind = GPAMAP_REGION_ALIAS, .ref = target,
				  .offset = offset, .flags = flags });
	return b->nr;
}

static void add(struct bench *b, u32 id, u32 container, u64 at, s32 prio)
{
	op(b, (struct gpamap_op){ .code = GPAMAP_OP_ADD, .id = id, .ref = container,
				  .at = at, .prio = prio });
}

/* One BAR, which may take five regions; returns how many. */
static u32 make_bar(struct bench *b, u32 bus, u32 n, u64 at)
{
	u32 before = b->nr, id, i;
	u64 last = n % 3 ? 0x3fff : 0xffff;

	if (n % 4 == 3 && b->size - b->nr >= 5) {
		/* Like a virtio device's: a page each for four kinds of registers. */
		id = region(b, GPAMAP_REGION_CONTAINER, 0x3fff, 0);
		for (i = 0; i < 4; i++)
			add(b, region(b, GPAMAP_REGION_IO, 0xfff, 0), id, 0x1000 * i, 0);
		last = 0x3fff;
	} else {
		id = region(b, n % 5 == 2 ? GPAMAP_REGION_RAM : GPAMAP_REGION_IO, last,
			    n % 16 == 9 ? GPAMAP_REGION_DISABLED : 0);
		if (n % 16 != 9)
			b->bars[b->nr_bars++] = (struct bar){ id, at, last };
	}
	/* Some are set up where another one is. */
	add(b, id, bus, n % 8 == 5 ? at - BAR_SPACING + 0x2000 : at, 1);
	return b->nr - before;
}

/*
 * Fills a bus with @nr regions from address @at on; returns the address behind. A bus
 * speaks of system addresses: offset and place of a window are the same.
 */
static u64 make_bus(struct bench *b, u32 bus, u32 nr, u64 at)
{
	const u32 full = b->nr + nr;
	u32 n, i, size = b->size;

	b->size = full;
	for (n = 0; n < BARS_PER_BUS && b->nr < full; n++, at += BAR_SPACING)
		make_bar(b, bus, n, at);
	b->size = size;
	for (i = BRIDGES_PER_BUS; i && b->nr < full; i--) {
		/* Container, window, BARs, perhaps the bus masters' two. */
		u32 extra = b->bus_master ? 4 : 2;
		u32 share = (full - b->nr) / i;
		u64 base = at;
		u32 child;

		if (share < extra + BARS_PER_BUS)
			share = extra + BARS_PER_BUS;
		if (share > full - b->nr)
			share = full - b->nr;
		if (share <= extra) {
			while (b->nr < full)
				make_bar(b, bus, n++, at += BAR_SPACING);
			break;
		}
		child = region(b, GPAMAP_REGION_CONTAINER, U64_MAX, 0);
		if (b->bus_master)
			add(b, alias(b, SYSTEM, 0, U64_MAX, 0),
			    region(b, GPAMAP_REGION_CONTAINER, U64_MAX, 0), 0, 0);
		at = make_bus(b, child, share - extra, base);
		add(b, alias(b, child, base, at - base - 1, 0), bus, base, 0);
	}
	return at;
}

static void build(struct bench *b)
{
	u32 i, j;

	gpamap_tree_init(&b->tree);
	b->nr = 0;
	b->nr_bars = 0;
	region(b, GPAMAP_REGION_CONTAINER, U64_MAX, 0);
	region(b, GPAMAP_REGION_RAM, RAM_BELOW + RAM_ABOVE - 1, 0);
	alias(b, RAM, 0, RAM_BELOW - 1, 0);
	alias(b, RAM, RAM_BELOW, RAM_ABOVE - 1, 0);
	region(b, GPAMAP_REGION_CONTAINER, U64_MAX, 0);
	region(b, GPAMAP_REGION_ROM, 0x3ffff, 0);
	alias(b, RAM, 0xa0000, 0x1ffff, GPAMAP_REGION_DISABLED);
	add(b, RAM_LOW, SYSTEM, 0, 0);
	add(b, RAM_HIGH, SYSTEM, 0x100000000ULL, 0);
	add(b, PCI, SYSTEM, 0, -1);
	add(b, BIOS, PCI, 0xfffc0000, 0);
	add(b, OVERLAY, SYSTEM, 0xa0000, 1);
	make_bus(b, PCI, b->size - NR_FIXED, PCI_BASE);
	flush(b);
	if (b->nr != b->size || b->tree.nr_regions != b->size || !b->nr_bars)
		must(-EDOM);

	for (i = 0; i < NR_PROBES; i++)
		b->probes[i] = b->bars[(u64)b->nr_bars * (2 * i + 1) / (2 * NR_PROBES)];
	for (i = 0; i < NR_FINDS; i++) {
		/* In a BAR, near it, in memory, anywhere. */
		j = next_random() % b->nr_bars;
		if (i % 8 == 7)
			b->finds[i] = next_random();
		else if (i % 8 == 6)
			b->finds[i] = next_random() % (RAM_BELOW + RAM_ABOVE);
		else
			b->finds[i] = b->bars[j].at + next_random() % BAR_SPACING;
	}
}

/* ---- what is measured ------------------------------------------------- */

/* A whole commit of one operation, as everything in it but KVM and the user's copy. */
static void commit(struct bench *b, const struct gpamap_op *op)
{
	struct gpamap_txn txn;

	must(gpamap_txn_begin(&txn, &b->tree, 1));
	must(gpamap_txn_op(&txn, op));
	must(gpamap_txn_render(&txn));
	if (!gpamap_txn_changed(&txn))
		must(-EDOM);
	gpamap_txn_commit(&txn);
}

static void do_flatten(struct bench *b)
{
	must(gpamap_flatview_render(gpamap_tree_region(&b->tree, SYSTEM), NULL, NULL,
				    &b->view));
}

static void do_toggle(struct bench *b)
{
	struct gpamap_op op = { .code = GPAMAP_OP_SET, .mask = GPAMAP_SET_ENABLED };
	u32 i;

	for (i = 0; i < NR_PROBES; i++) {
		op.id = b->probes[i].id;
		op.flags = GPAMAP_REGION_DISABLED;
		commit(b, &op);
		op.flags = 0;
		commit(b, &op);
	}
}

static void do_move(struct bench *b)
{
	struct gpamap_op op = { .code = GPAMAP_OP_SET, .mask = GPAMAP_SET_AT };
	u32 i;

	for (i = 0; i < NR_PROBES; i++) {
		op.id = b->probes[i].id;
		op.at = b->probes[i].at + BAR_SPACING / 2;
		commit(b, &op);
		op.at = b->probes[i].at;
		commit(b, &op);
	}
}

static void do_find(struct bench *b)
{
	const struct gpamap_flatview *view = b->view;
	u32 i;

	for (i = 0; i < NR_FINDS; i++) {
		const struct gpamap_range *range = gpamap_flatview_find(view, b->finds[i]);

		b->sum += range ? range->offset : 1;
	}
}

/* bench-core names this function to callgrind. */
__attribute__((noinline)) void measured(void (*fn)(struct bench *b), struct bench *b);

void measured(void (*fn)(struct bench *b), struct bench *b)
{
	fn(b);
	/* Not a tail call: it is to return only when all is done. */
	__asm__ volatile("" ::: "memory");
}

static const char *only;	/* the one figure that is wanted, or NULL for all */

static size_t in_use(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

static void count(struct bench *b, const char *name, void (*fn)(struct bench *b), u32 times,
		  const char *unit)
{
	char full[64];

	snprintf(full, sizeof(full), "%s.%u", name, b->size);
	if (only && strcmp(only, full)) {
		fn(b);
		return;
	}
	printf("count %s %u %s\n", full, times, unit);
	measured(fn, b);
}

static void bench(struct bench *b)
{
	const struct gpamap_op space = { .code = GPAMAP_OP_SPACE, .id = 1, .ref = SYSTEM,
					 .kind = GPAMAP_SPACE_VIEW };
	size_t before = in_use(), tree, views;
	u32 i;

	build(b);
	if (b->bus_master) {
		commit(b, &space);
		count(b, "toggle_dma", do_toggle, 2 * NR_PROBES, "instructions");
		count(b, "move_dma", do_move, 2 * NR_PROBES, "instructions");
		gpamap_tree_destroy(&b->tree);
		return;
	}
	tree = in_use();
	commit(b, &space);
	views = in_use();
	count(b, "flatten", do_flatten, 1, "instructions");
	printf("value ranges.%u %u ranges\n", b->size, b->view->nr);
	printf("value memory_regions.%u %zu bytes/region\n", b->size,
	       (tree - before) / b->size);
	printf("value memory_view.%u %zu bytes/region\n", b->size,
	       (views - tree) / b->size);
	count(b, "toggle", do_toggle, 2 * NR_PROBES, "instructions");
	count(b, "move", do_move, 2 * NR_PROBES, "instructions");
	count(b, "find_random", do_find, NR_FINDS, "instructions");
	for (i = 0; i < NR_FINDS; i++)
		b->finds[i] = b->probes[NR_PROBES / 2].at + 0x100;
	count(b, "find_repeated", do_find, NR_FINDS, "instructions");
	gpamap_flatview_retire(b->view, NULL);
	gpamap_tree_destroy(&b->tree);
}

int main(int argc, char **argv)
{
	static const u32 sizes[] = { 10, 100, 1000, 10000, 100000 };
	static struct bench b;
	u32 i, dma;

	only = argc > 1 ? argv[1] : NULL;
	for (dma = 0; dma < 2; dma++) {
		for (i = 0; i < ARRAY_SIZE(sizes); i++) {
			/* As long as all is rendered again, more take too long. */
			if (dma && sizes[i] > 1000)
				break;
			b.size = sizes[i];
			b.bus_master = dma;
			b.bars = calloc(b.size, sizeof(*b.bars));
			if (!b.bars)
				return 1;
			bench(&b);
			free(b.bars);
		}
	}
	return b.sum == 0;
}

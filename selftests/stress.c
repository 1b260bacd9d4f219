// SPDX-License-Identifier: GPL-2.0
/*
 * Changes of the map under four running vCPUs that execute, read and write what is being
 * changed. stress_guest.c is what they run, and finds data and code that are not what
 * they should be; this half makes the changes and counts exits that the map does not
 * call for. As everything the guest touches is memory before and after every change,
 * and nothing it writes is ever read-only, that is every exit but port I/O.
 *
 * Every scenario has two phases, which begin with the same memory and make the same
 * changes, taken from one seed:
 *
 *	bare	with KVM_SET_USER_MEMORY_REGION and no map, as a VMM would: deletes,
 *		moves, creates. The calls are those that a map makes: they were taken
 *		down from one attached to a VM without vCPUs. A vCPU that fell through
 *		a hole begins anew and is counted; a VM that KVM gave up is replaced.
 *	gpamap	as commits of a map. Nothing may go wrong, and the number of KVM calls
 *		is that of the bare phase, for every single change.
 *
 * It is a matter of chance what a bare phase shows; only all of them together must show
 * something, or the test could not fail. Whether KVM uses nested paging is decided when
 * its module is loaded: one run of this program covers one of the two.
 *
 * SEED and COMMITS (of every scenario) are taken from the environment. BARE=0 leaves the bare
 * phases out, for a kernel that does not outlive what KVM warns of there; PATIENCE is how many
 * times slower than usual things may be.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <asm/kvm_para.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "gpamap_util.h"
#include "guest.h"
#include "stress_guest.h"
#include "tap.h"

#define PAGE TEST_PAGE
#define HUGE_PAGE 0x200000UL

/* Few slots, so that what has been split has to be joined again. */
#define NR_SLOTS 28
#define NR_AS 2

#define MSR_SMBASE 0x9e
#define APIC_ENABLE 0xc00		/* of the APIC base: enabled, as x2APIC */

/* -- scenarios -------------------------------------------------------------- */

struct scenario {
	const char *name;
	bool paging;			/* long mode */
	bool smi;			/* and SMM's address space in the map */
};

static const struct scenario scenarios[] = {
	{ "real", false, false },
	{ "real_smi", false, true },
	{ "long", true, false },
	{ "long_smi", true, true },
};

extern const char image_real[], image_real_end[], image_long[], image_long_end[];
asm(".pushsection .rodata\n"
    "image_real: .incbin \"stress-real.bin\"\n"
    "image_real_end:\n"
    "image_long: .incbin \"stress-long.bin\"\n"
    "image_long_end:\n"
    ".popsection\n");

/* What goes wrong. */
enum event {
	MMIO_EXIT,			/* memory that is not there */
	INTERNAL_ERROR,			/* code that is not there */
	SHUTDOWN_EXIT,			/* a triple fault */
	FAIL_ENTRY,
	OTHER_EXIT,
	VM_DEAD,			/* KVM gave the VM up */
	WRONG_MEMORY,			/* found by the guest, or here at the end */
	STUCK,				/* a vCPU that cannot be made to run to its end */
	KERNEL_WARNING,
	NR_EVENTS,
};

static const char *const event_names[] = {
	"mmio_exits", "internal_errors", "shutdowns", "fail_entries", "other_exits",
	"dead_vms", "wrong_memory", "stuck_vcpus", "kernel_warnings",
};

/* What the guest finds wrong, in words. */
static const char *const wrong_names[] = {
	[WRONG_KEPT] = "data of the lap before",
	[WRONG_DATA] = "data of this lap",
	[WRONG_ACROSS] = "data over a border",
	[WRONG_STAMP] = "another page",
	[WRONG_WALK] = "sum of the walk",
	[WRONG_VERSION] = "version older than before",
	[WRONG_MIXTURE] = "windows of two commits",
	[WRONG_WINDOW] = "data in a window",
	[WRONG_SMM] = "window in SMM of another commit",
	[WRONG_NO_SMI] = "SMI without effect",
	[WRONG_STRING] = "string input",
	[WRONG_STEAL] = "steal time",
};

/* -- odds and ends ---------------------------------------------------------- */

static void *need(void *p)
{
	if (!p) {
		fprintf(stderr, "stress: out of memory\n");
		exit(1);
	}
	return p;
}

static u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* -- the guest's memory ----------------------------------------------------- */

/* Versions that can be told apart: a window's page is written anew after so many. */
#define NR_VERSIONS 64
#define OVER_PAGE (ZONE_PAGE + 4)
#define OVER_PAGES 12
#define MOVED_PAGES 4

/* Host memory, in pages; BIG first, since it is aligned for huge ones. */
enum {
	AT_BIG = 0,
	AT_LOW = AT_BIG + BIG_PAGES,
	AT_WALK = AT_LOW + LOW_PAGES,		/* a second walk like that in LOW */
	AT_TABLES = AT_WALK + WALK_PAGES,	/* two more of the page tables in LOW */
	AT_VERSIONS = AT_TABLES + 2 * TABLE_PAGES, /* of window 1, 2, and that of SMM */
	AT_OVER = AT_VERSIONS + 3 * NR_VERSIONS,
	AT_MOVED = AT_OVER + OVER_PAGES,
	AT_SMRAM = AT_MOVED + MOVED_PAGES,
	AT_END = AT_SMRAM + SMRAM_PAGES,
};

static char *memory;			/* what the guest has */
static char *pristine;			/* what it began with */

static char *host_page(u32 page)
{
	return memory + page * PAGE;
}

static u32 *host_word(u32 page, u32 offset)
{
	return (u32 *)(host_page(page) + offset);
}

static struct block *block_of(u32 vcpu)
{
	return (struct block *)host_page(AT_LOW + BLOCK_PAGE + vcpu);
}

static void *map_memory(void)
{
	char *p = mmap(NULL, AT_END * PAGE + HUGE_PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	p = need(p == MAP_FAILED ? NULL : p);
	p = (char *)(((uintptr_t)p + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
	/* Where there are none, small ones will do. */
	madvise(p, BIG_PAGES * PAGE, MADV_HUGEPAGE);
	return p;
}

static char *emit(char *to, u32 value, u32 len)
{
	memcpy(to, &value, len);
	return to + len;
}

static char *emit_jump(char *from, const char *to, bool paging)
{
	from = emit(from, 0xe9, 1);
	return emit(from, to - from - (paging ? 4 : 2), paging ? 4 : 2);
}

/* add $value, %edx */
static char *emit_add(char *to, u32 value, bool paging)
{
	if (!paging)
		to = emit(to, 0x66, 1);
	to = emit(to, 0xc281, 2);
	return emit(to, value, 4);
}

/*
 * Forward through instructions that lie across the border of each two pages, back by
 * jumps from the middle of each page to that of the one before.
 */
static void fill_walk(char *code, bool paging)
{
	char *to = code, *across, *middle;
	u32 i;

	memset(code, 0xcc, WALK_PAGES * PAGE);
	for (i = 0; i < WALK_PAGES; i++) {
		across = code + (i + 1) * PAGE - 3;
		middle = code + i * PAGE + PAGE / 2;
		if (i < WALK_PAGES - 1) {
			emit_jump(to, across, paging);
			to = emit_add(across, 1U << i, paging);
		} else {
			emit_jump(to, middle, paging);
		}
		middle = emit_add(middle, 1U << (16 + i), paging);
		if (i)
			emit_jump(middle, code + i * PAGE - PAGE / 2, paging);
		else
			emit(middle, paging ? 0xc3 : 0xcb, 1);
	}
}

/* All addresses to themselves: 2 MiB in small pages, then large ones. */
static void fill_tables(void *tables)
{
	u64 (*table)[512] = tables;
	u32 i;

	for (i = 0; i < 3; i++)
		table[i][0] = (TABLE_PAGE + i + 1) * PAGE | 3;
	for (i = 1; i < 512; i++)
		table[2][i] = i * HUGE_PAGE | 0x83;
	for (i = 0; i < 512; i++)
		table[3][i] = i * PAGE | 3;
}

static void fill_memory(const struct scenario *scenario)
{
	const char *image = scenario->paging ? image_long : image_real;
	const char *end = scenario->paging ? image_long_end : image_real_end;
	u32 i, j;

	memset(memory, 0, AT_END * PAGE);
	for (i = 0; i < LOW_PAGES; i++)
		if (i >= WINDOW1_PAGE)
			*host_word(AT_LOW + i, STAMP_AT) = STAMP_BASE | i;
	for (i = 0; i < BIG_PAGES; i++)
		*host_word(AT_BIG + i, STAMP_AT) = STAMP_BASE | (BIG_PAGE + i);
	for (i = 0; i < NR_CONST; i++) {
		u32 page = const_page(i);
		u32 at = page < LOW_PAGES ? AT_LOW + page : AT_BIG + page - BIG_PAGE;

		for (j = 0; j < STRING_WORDS; j++)
			host_word(at, CONST_AT)[j] = STAMP_BASE | page;
	}
	for (i = 0; i < OVER_PAGES; i++)
		*host_word(AT_OVER + i, STAMP_AT) = STAMP_OVER | (OVER_PAGE + i);
	for (i = 0; i < MOVED_PAGES; i++)
		*host_word(AT_MOVED + i, STAMP_AT) = STAMP_MOVED | i;
	memcpy(host_page(AT_LOW + TEXT_PAGE), image, end - image);
	fill_walk(host_page(AT_LOW + WALK_PAGE), scenario->paging);
	memcpy(host_page(AT_WALK), host_page(AT_LOW + WALK_PAGE), WALK_PAGES * PAGE);
	fill_tables(host_page(AT_LOW + TABLE_PAGE));
	fill_tables(host_page(AT_TABLES));
	fill_tables(host_page(AT_TABLES + TABLE_PAGES));
	for (i = 0; i < NR_VCPUS; i++) {
		memcpy(host_page(AT_SMRAM + i), image + SMM_AT, START_AT - SMM_AT);
		block_of(i)->fresh = 1;
		block_of(i)->smi = scenario->smi;
	}
	memcpy(pristine, memory, AT_END * PAGE);
}

/* -- the map and its changes ------------------------------------------------ */

enum {
	ROOT = 1, LOW, BIG, WALK, TABLES, VERSIONS, OVER, MOVED,
	/* Aliases: */
	SHOW_WALK, SHOW_TABLES, WINDOW1, WINDOW2, READONLY1, READONLY2, READONLY_BIG,
	/* SMM's: */
	SMM_ROOT, SMM_ALL, SMRAM, SMM_WINDOW, READONLY_SMRAM,
};

#define SPACE 1
#define SMM_SPACE 2
#define MAX_OPS 64

/* What the next change depends on. */
struct world {
	struct rnd rnd;
	bool smi;
	u32 version;			/* of the windows */
	u32 tables;			/* which of them are shown */
	bool over;			/* OVER lies above LOW */
	struct gpamap_op ops[MAX_OPS];	/* of the change */
	u32 nr;
};

static void add_op(struct world *world, struct gpamap_op op)
{
	world->ops[world->nr++] = op;
}

/* Memory or an alias of some, and where it is shown. */
static void add_ram(struct world *world, u32 id, u32 at, u32 npages)
{
	add_op(world, op_ram(id, npages * PAGE - 1, host_page(at)));
}

static void add_alias(struct world *world, u32 id, u32 target, u32 offset, u32 npages,
		      u32 root, u32 page, s32 prio)
{
	add_op(world, op_alias(id, target, offset * PAGE, npages * PAGE - 1));
	add_op(world, op_add(id, root, page * PAGE, prio));
}

/* The map as it is at first, as a batch. */
static void world_init(struct world *world, const struct scenario *scenario, u64 seed)
{
	memset(world, 0, sizeof(*world));
	rnd_seed(&world->rnd, seed);
	world->smi = scenario->smi;
	world->over = true;

	add_op(world, op_container(ROOT, U64_MAX));
	add_ram(world, LOW, AT_LOW, LOW_PAGES);
	add_ram(world, BIG, AT_BIG, BIG_PAGES);
	add_ram(world, WALK, AT_WALK, WALK_PAGES);
	add_ram(world, TABLES, AT_TABLES, 2 * TABLE_PAGES);
	add_ram(world, VERSIONS, AT_VERSIONS, 3 * NR_VERSIONS);
	add_ram(world, OVER, AT_OVER, OVER_PAGES);
	add_ram(world, MOVED, AT_MOVED, MOVED_PAGES);
	add_op(world, op_add(LOW, ROOT, 0, 0));
	add_op(world, op_add(BIG, ROOT, BIG_PAGE * PAGE, 0));
	add_op(world, op_add(OVER, ROOT, OVER_PAGE * PAGE, 1));
	add_op(world, op_add(MOVED, ROOT, ZONE_PAGE * PAGE, 2));
	add_alias(world, SHOW_WALK, WALK, 3, 4, ROOT, WALK_PAGE + 3, 5);
	add_alias(world, SHOW_TABLES, TABLES, 0, TABLE_PAGES, ROOT, TABLE_PAGE, 1);
	add_alias(world, WINDOW1, VERSIONS, 0, 1, ROOT, WINDOW1_PAGE, 1);
	add_alias(world, WINDOW2, VERSIONS, NR_VERSIONS, 1, ROOT, WINDOW2_PAGE, 1);
	add_alias(world, READONLY1, LOW, CONST_PAGE, 2, ROOT, CONST_PAGE, 3);
	add_alias(world, READONLY2, LOW, CONST_PAGE + 1, 2, ROOT, CONST_PAGE + 1, 4);
	add_alias(world, READONLY_BIG, BIG, BIG_BLOCK_PAGES, 2, ROOT,
		  BIG_PAGE + BIG_BLOCK_PAGES, 1);
	add_op(world, op_readonly(READONLY1, true));
	add_op(world, op_readonly(READONLY2, true));
	add_op(world, op_readonly(READONLY_BIG, true));
	add_op(world, op_memory_space(SPACE, ROOT, 0));
	if (!scenario->smi)
		return;
	add_op(world, op_container(SMM_ROOT, U64_MAX));
	add_op(world, op_alias(SMM_ALL, ROOT, 0, U64_MAX));
	add_op(world, op_add(SMM_ALL, SMM_ROOT, 0, 0));
	add_ram(world, SMRAM, AT_SMRAM, SMRAM_PAGES);
	add_op(world, op_add(SMRAM, SMM_ROOT, SMRAM_PAGE * PAGE, 1));
	add_alias(world, SMM_WINDOW, VERSIONS, 2 * NR_VERSIONS, 1, SMM_ROOT,
		  WINDOW_SMM_PAGE, 1);
	add_alias(world, READONLY_SMRAM, SMRAM, 0, 1, SMM_ROOT, SMRAM_PAGE, 2);
	add_op(world, op_readonly(READONLY_SMRAM, true));
	add_op(world, op_memory_space(SMM_SPACE, SMM_ROOT, 1));
}

/* Alias @id shows any part of @npages pages at @page, from page @offset of its target. */
static void show_part(struct world *world, u32 id, u32 page, u32 npages, u32 offset)
{
	u32 first = rnd_below(&world->rnd, npages);
	u32 n = 1 + rnd_below(&world->rnd, npages - first);

	add_op(world, op_at(id, (page + first) * PAGE));
	add_op(world, op_offset(id, (offset + first) * PAGE));
	add_op(world, op_last(id, n * PAGE - 1));
	add_op(world, op_enable(id, rnd_below(&world->rnd, 4)));
}

static void change_readonly(struct world *world)
{
	static const struct {
		u32 page;
		u32 npages;
	} parts[] = {
		{ TEXT_PAGE, TEXT_PAGES },
		{ WALK_PAGE, WALK_PAGES },
		{ CONST_PAGE, CONST_PAGES },
	};
	u32 i = rnd_below(&world->rnd, ARRAY_SIZE(parts));

	show_part(world, rnd_below(&world->rnd, 2) ? READONLY1 : READONLY2, parts[i].page,
		  parts[i].npages, parts[i].page);
}

static void change_readonly_big(struct world *world)
{
	u32 block = rnd_below(&world->rnd, BIG_BLOCKS) | 1;

	show_part(world, READONLY_BIG, BIG_PAGE + block * BIG_BLOCK_PAGES,
		  BIG_BLOCK_PAGES, block * BIG_BLOCK_PAGES);
}

static void change_walk(struct world *world)
{
	show_part(world, SHOW_WALK, WALK_PAGE, WALK_PAGES, 0);
}

static void change_tables(struct world *world)
{
	world->tables = (world->tables + 1 + rnd_below(&world->rnd, 2)) % 3;
	if (world->tables)
		add_op(world, op_offset(SHOW_TABLES,
					(world->tables - 1) * TABLE_PAGES * PAGE));
	add_op(world, op_enable(SHOW_TABLES, world->tables));
}

/* The page that comes was out of sight: its version is there before the change. */
static void change_windows(struct world *world)
{
	u32 page = ++world->version % NR_VERSIONS, at = AT_VERSIONS + page, i;

	for (i = 0; i < 3; i++)
		*host_word(at + i * NR_VERSIONS, STAMP_AT) = world->version;
	add_op(world, op_offset(WINDOW1, page * PAGE));
	add_op(world, op_offset(WINDOW2, (NR_VERSIONS + page) * PAGE));
	if (world->smi)
		add_op(world, op_offset(SMM_WINDOW, (2 * NR_VERSIONS + page) * PAGE));
}

static void change_moved(struct world *world)
{
	u32 page = ZONE_PAGE + rnd_below(&world->rnd, ZONE_PAGES - MOVED_PAGES + 1);

	add_op(world, op_at(MOVED, page * PAGE));
	add_op(world, op_enable(MOVED, rnd_below(&world->rnd, 8)));
}

static void change_priority(struct world *world)
{
	world->over = !world->over;
	add_op(world, op_prio(OVER, world->over ? 1 : -1));
}

static void change_smram(struct world *world)
{
	/* The handlers only: where the state is saved is written. */
	if (world->smi)
		show_part(world, READONLY_SMRAM, SMRAM_PAGE, NR_VCPUS, 0);
	else
		change_readonly(world);
}

static void next_change(struct world *world)
{
	static void (*const changes[])(struct world *world) = {
		change_readonly, change_readonly_big, change_walk, change_tables,
		change_windows, change_windows, change_windows, change_moved,
		change_priority, change_smram,
	};

	/* Mostly one thing at a time, now and then several. */
	world->nr = 0;
	do
		changes[rnd_below(&world->rnd, ARRAY_SIZE(changes))](world);
	while (!rnd_below(&world->rnd, 4));
}

/* -- the calls to KVM that they come to ------------------------------------- */

/* A call, as guest_set_slot() takes it; npages 0 deletes. */
struct call {
	u32 slot;
	u32 flags;
	u64 gpa;
	u64 npages;
	void *hva;
};

/* A change: the calls from ->first on. */
struct step {
	u32 first;
	u32 deletes;
	u32 moves;
	u32 creates;
};

/* Step 0 is the map as it is at first. */
struct plan {
	struct step *steps;
	u32 nr_steps;
	struct call *calls;
	u32 nr_calls;
	u32 max_calls;
};

static u32 step_calls(const struct step *step)
{
	return step->deletes + step->moves + step->creates;
}

/* Whether vCPUs have to be held: a memslot changes. */
static bool step_holds(const struct step *step)
{
	return step->moves || step->deletes || step->creates;
}

static void add_call(struct plan *plan, const struct gpamap_slot_info *slot, bool delete)
{
	if (plan->nr_calls == plan->max_calls) {
		plan->max_calls = 2 * plan->max_calls + 64;
		plan->calls = need(realloc(plan->calls,
					   plan->max_calls * sizeof(*plan->calls)));
	}
	plan->calls[plan->nr_calls++] = (struct call){
		.slot = slot->slot,
		.flags = slot->flags,
		.gpa = slot->gpa,
		.npages = delete ? 0 : slot->npages,
		.hva = (void *)(uintptr_t)slot->hva,
	};
}

/* By id; npages is 0 where there is none. */
typedef struct gpamap_slot_info slot_table[NR_AS * NR_SLOTS];

static u32 slot_index(u32 slot)
{
	return (slot >> 16) * NR_SLOTS + (slot & 0xffff);
}

static int query_table(int fd, slot_table table)
{
	struct gpamap_slot_info *slots;
	u32 i, n;

	memset(table, 0, sizeof(slot_table));
	slots = query_all(fd, GPAMAP_QUERY_SLOTS, 0, &n);
	if (!slots)
		return -errno;
	for (i = 0; i < n; i++)
		table[slot_index(slots[i].slot)] = slots[i];
	free(slots);
	return 0;
}

static bool overlaps(const struct gpamap_slot_info *a, const struct gpamap_slot_info *b)
{
	return a->slot >> 16 == b->slot >> 16 && a->npages && b->npages &&
	       a->gpa < b->gpa + b->npages * PAGE && b->gpa < a->gpa + a->npages * PAGE;
}

/* Whether @slot can be where it is, with no other of @table in its way. */
static bool fits(const slot_table table, const struct gpamap_slot_info *slot)
{
	u32 i;

	for (i = 0; i < NR_AS * NR_SLOTS; i++)
		if (i != slot_index(slot->slot) && overlaps(&table[i], slot))
			return false;
	return true;
}

/*
 * The calls from one table to the other. Whether a slot that is somewhere else is moved,
 * or deleted and created, is for the map to say, by the number @moves of its moves.
 */
static int add_step(struct plan *plan, slot_table old, slot_table new, u32 moves)
{
	struct step *step = &plan->steps[plan->nr_steps];
	bool moved[NR_AS * NR_SLOTS] = { false }, changed[NR_AS * NR_SLOTS];
	u32 i, n = 0;

	*step = (struct step){ .first = plan->nr_calls };
	for (i = 0; i < NR_AS * NR_SLOTS; i++) {
		const struct gpamap_slot_info *o = &old[i], *s = &new[i];
		bool same = o->npages == s->npages && o->hva == s->hva &&
			    o->flags == s->flags;

		changed[i] = !same || o->gpa != s->gpa;
		moved[i] = moves && same && changed[i];
		n += moved[i];
	}
	if (n != moves)
		return -EPROTO;

	for (i = 0; i < NR_AS * NR_SLOTS; i++) {
		if (!changed[i] || moved[i] || !old[i].npages)
			continue;
		add_call(plan, &old[i], true);
		old[i].npages = 0;
		step->deletes++;
	}
	/* In the order in which one makes room for the other. */
	while (step->moves < moves) {
		for (i = 0; i < NR_AS * NR_SLOTS; i++)
			if (moved[i] && fits(old, &new[i]))
				break;
		if (i == NR_AS * NR_SLOTS)
			return -EPROTO;
		add_call(plan, &new[i], false);
		old[i] = new[i];
		moved[i] = false;
		changed[i] = false;
		step->moves++;
	}
	for (i = 0; i < NR_AS * NR_SLOTS; i++) {
		if (!changed[i] || !new[i].npages)
			continue;
		add_call(plan, &new[i], false);
		step->creates++;
	}
	plan->nr_steps++;
	return 0;
}

static int apply(int fd, const struct world *world, struct gpamap_apply *cmd)
{
	*cmd = (struct gpamap_apply){
		.size = sizeof(*cmd),
		.ops = (uintptr_t)world->ops,
		.nr_ops = world->nr,
		.op_size = sizeof(world->ops[0]),
	};
	return map_ioctl(fd, GPAMAP_APPLY, cmd);
}

/* A map as it is at first, attached. Its descriptor, or -errno. */
static int make_map(int vm, struct world *world, const struct scenario *scenario,
		    u64 seed)
{
	struct gpamap_apply cmd;
	int fd = map_open(), rc;

	if (fd < 0)
		return fd;
	world_init(world, scenario, seed);
	rc = apply(fd, world, &cmd);
	if (!rc)
		rc = _test_cmd_attach(fd, vm, 0, NR_SLOTS);
	if (rc)
		close(fd);
	return rc ?: fd;
}

/* Takes down what a map does to a VM without vCPUs. */
static int make_plan(struct plan *plan, const struct scenario *scenario, u64 seed,
		     u32 nr_changes)
{
	struct world *world = need(malloc(sizeof(*world)));
	slot_table old = { { 0 } }, new;
	struct gpamap_apply cmd;
	struct guest guest;
	int fd = -1, rc;
	u32 i;

	tap_watch("plan");
	memset(plan, 0, sizeof(*plan));
	plan->steps = need(calloc(nr_changes + 1, sizeof(*plan->steps)));
	rc = guest_create_vm(&guest);
	if (rc)
		goto out;
	fd = make_map(guest.vm, world, scenario, seed);
	rc = fd < 0 ? fd : query_table(fd, new);
	if (!rc)
		rc = add_step(plan, old, new, 0);
	for (i = 0; !rc && i < nr_changes; i++) {
		tap_watch(NULL);
		memcpy(old, new, sizeof(old));
		next_change(world);
		rc = apply(fd, world, &cmd);
		if (!rc)
			rc = query_table(fd, new);
		if (!rc)
			rc = add_step(plan, old, new, cmd.out_moves);
	}
out:
	if (fd >= 0)
		close(fd);
	guest_destroy(&guest);
	free(world);
	return rc;
}

/* -- vCPUs ------------------------------------------------------------------ */

struct phase;

struct vcpu {
	struct phase *phase;
	u32 index;
	int fd;
	struct kvm_run *run;
	struct kvm_sregs sregs;		/* that it runs with */
	pthread_t thread;
	u32 strings;			/* words of string input since its start */
	bool ended;
	bool abandoned;
};

/* A phase of a scenario, and what comes of it. */
struct phase {
	const struct scenario *scenario;
	char name[64];
	bool loud;			/* tell of what goes wrong */
	struct guest guest;
	size_t run_len;
	struct vcpu vcpus[NR_VCPUS];
	u32 nr_vcpus;			/* that run */
	bool dead;			/* the VM */
	int log;			/* /dev/kmsg */
	u64 events[NR_EVENTS];
	u64 told;
	u64 calls;
	u64 *ns;			/* of every change */
	u32 nr_changes;
};

/* An event; the first few are told in words. */
__attribute__((format(printf, 3, 4)))
static void event(struct phase *phase, enum event what, const char *format, ...)
{
	char text[256];
	va_list args;

	__atomic_fetch_add(&phase->events[what], 1, __ATOMIC_RELAXED);
	if (!phase->loud || __atomic_fetch_add(&phase->told, 1, __ATOMIC_RELAXED) >= 20)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	printf("# %s: %s: %s\n", phase->name, event_names[what], text);
}

static bool vm_dead(struct phase *phase)
{
	return __atomic_load_n(&phase->dead, __ATOMIC_ACQUIRE);
}

/* KVM answers EIO to everything; who finds that first counts it. */
static void note_dead(struct phase *phase)
{
	if (!__atomic_exchange_n(&phase->dead, true, __ATOMIC_ACQ_REL))
		event(phase, VM_DEAD, "after %u changes", phase->nr_changes);
}

static void set_segments(struct kvm_sregs *sregs, bool paging)
{
	struct kvm_segment segment = {
		.limit = 0xffffffff,
		.present = 1,
		.s = 1,
		.g = 1,
		.type = 3,
		.db = paging,
	};

	sregs->ds = segment;
	sregs->es = segment;
	sregs->fs = segment;
	sregs->gs = segment;
	sregs->ss = segment;
	segment.type = 11;
	segment.db = 0;
	segment.l = paging;
	if (paging) {
		segment.selector = 8;
	} else {
		segment.limit = 0xffff;
		segment.g = 0;
	}
	sregs->cs = segment;
}

static void set_sregs(struct kvm_sregs *sregs, const struct scenario *scenario)
{
	set_segments(sregs, scenario->paging);
	sregs->cr0 = 0x10;
	if (scenario->paging) {
		sregs->cr0 |= 1U << 31 | 1;		/* PG, PE */
		sregs->cr3 = TABLE_PAGE * PAGE;
		sregs->cr4 |= 1 << 5;			/* PAE */
		sregs->efer |= 1 << 8 | 1 << 10;	/* LME, LMA */
	}
	if (scenario->smi)
		sregs->apic_base |= APIC_ENABLE;
}

static int set_msrs(const struct vcpu *vcpu)
{
	u64 steal = STEAL_PAGE * PAGE + 64 * vcpu->index;
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entries[2];
	} msrs = {
		.head.nmsrs = vcpu->phase->scenario->smi ? 2 : 1,
		.entries = {
			{ .index = MSR_KVM_STEAL_TIME, .data = steal | KVM_MSR_ENABLED },
			{ .index = MSR_SMBASE,
			  .data = (SMBASE_PAGE + vcpu->index) * PAGE },
		},
	};
	int n = ioctl(vcpu->fd, KVM_SET_MSRS, &msrs);

	return n < 0 ? -errno : n == (int)msrs.head.nmsrs ? 0 : -EPROTO;
}

/* Puts a vCPU at the start of its program, wherever it was. 0 or -errno. */
static int vcpu_start(struct vcpu *vcpu)
{
	struct kvm_vcpu_events events = { .flags = KVM_VCPUEVENT_VALID_SMM };
	struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_regs regs = {
		.rip = TEXT_PAGE * PAGE + START_AT,
		.rsp = (STACK_PAGE + vcpu->index + 1) * PAGE - 8,
		.rax = vcpu->index,
		.rdi = vcpu->index,
		.rflags = 2,
	};
	u32 i;

	/* What an exit has left unfinished would be finished on top of the new state. */
	vcpu->run->immediate_exit = 1;
	for (i = 0; i < 100; i++)
		if (ioctl(vcpu->fd, KVM_RUN, 0) && errno == EINTR)
			break;
	vcpu->run->immediate_exit = 0;
	block_of(vcpu->index)->fresh = 1;
	vcpu->strings = 0;
	if (!vcpu->phase->scenario->smi)
		events.flags = 0;
	if (ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) ||
	    ioctl(vcpu->fd, KVM_SET_SREGS, &vcpu->sregs) ||
	    ioctl(vcpu->fd, KVM_SET_REGS, &regs))
		return -errno;
	if (vcpu->phase->scenario->smi && ioctl(vcpu->fd, KVM_SET_MP_STATE, &state))
		return -errno;
	return set_msrs(vcpu);
}

static void string_io(struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->run;
	u32 *words = (u32 *)((char *)run + run->io.data_offset);
	u32 want = STAMP_BASE | block_of(vcpu->index)->page;
	u32 i;

	for (i = 0; i < run->io.count; i++) {
		if (run->io.direction == KVM_EXIT_IO_IN)
			words[i] = STRING_ANSWER | vcpu->strings++ % STRING_WORDS;
		else if (words[i] != want)
			event(vcpu->phase, WRONG_MEMORY,
			      "vCPU %u: string has 0x%x instead of 0x%x", vcpu->index,
			      words[i], want);
	}
}

/* The guest may have written anything. */
static const char *wrong_name(u32 what)
{
	return what && what < ARRAY_SIZE(wrong_names) ? wrong_names[what] : "rubbish";
}

/* Whether the vCPU can go on from where it is. */
static bool handle_exit(struct vcpu *vcpu)
{
	const struct block *block = block_of(vcpu->index);
	const struct kvm_run *run = vcpu->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		if (run->io.port == PORT_STRING && run->io.size == 4) {
			string_io(vcpu);
			return true;
		}
		if (run->io.port == PORT_DONE) {
			vcpu->ended = true;
			return true;
		}
		event(vcpu->phase, WRONG_MEMORY,
		      "vCPU %u, lap %u: %s: at 0x%x: 0x%x instead of 0x%x", vcpu->index,
		      block->laps, wrong_name(block->what), block->addr, block->is,
		      block->want);
		return false;
	case KVM_EXIT_MMIO:
		event(vcpu->phase, MMIO_EXIT, "vCPU %u: %s of %u bytes at 0x%llx",
		      vcpu->index, run->mmio.is_write ? "write" : "read", run->mmio.len,
		      run->mmio.phys_addr);
		return false;
	case KVM_EXIT_INTERNAL_ERROR:
		event(vcpu->phase, INTERNAL_ERROR, "vCPU %u: suberror %u", vcpu->index,
		      run->internal.suberror);
		return false;
	case KVM_EXIT_SHUTDOWN:
		event(vcpu->phase, SHUTDOWN_EXIT, "vCPU %u", vcpu->index);
		return false;
	case KVM_EXIT_FAIL_ENTRY:
		event(vcpu->phase, FAIL_ENTRY, "vCPU %u: 0x%llx", vcpu->index,
		      run->fail_entry.hardware_entry_failure_reason);
		return false;
	default:
		event(vcpu->phase, OTHER_EXIT, "vCPU %u: exit reason %u", vcpu->index,
		      run->exit_reason);
		return false;
	}
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *vcpu = arg;
	struct phase *phase = vcpu->phase;
	bool started = false;
	int rc = 0;

	while (!vcpu->ended && !__atomic_load_n(&vcpu->abandoned, __ATOMIC_RELAXED)) {
		if (!started)
			rc = vcpu_start(vcpu);
		started = true;
		if (!rc)
			rc = ioctl(vcpu->fd, KVM_RUN, 0) ? -errno : 0;
		if (!rc) {
			started = handle_exit(vcpu);
		} else if (rc == -EIO) {
			note_dead(phase);
			break;
		} else if (rc != -EINTR) {
			event(phase, OTHER_EXIT, "vCPU %u: KVM_RUN: %s", vcpu->index,
			      strerror(-rc));
			started = false;
		}
		rc = 0;
	}
	__atomic_store_n(&vcpu->ended, true, __ATOMIC_RELEASE);
	return NULL;
}

static int set_cpuid(const struct phase *phase, int fd)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid;

	cpuid.head.nent = ARRAY_SIZE(cpuid.entries);
	return ioctl(phase->guest.kvm, KVM_GET_SUPPORTED_CPUID, &cpuid) ||
	       ioctl(fd, KVM_SET_CPUID2, &cpuid) ? -errno : 0;
}

static int vcpu_create(struct phase *phase, u32 index)
{
	struct vcpu *vcpu = &phase->vcpus[index];
	int rc;

	memset(vcpu, 0, sizeof(*vcpu));
	vcpu->phase = phase;
	vcpu->index = index;
	vcpu->fd = ioctl(phase->guest.vm, KVM_CREATE_VCPU, index);
	if (vcpu->fd < 0)
		return -errno;
	vcpu->run = mmap(NULL, phase->run_len, PROT_READ | PROT_WRITE, MAP_SHARED,
			 vcpu->fd, 0);
	if (vcpu->run == MAP_FAILED) {
		rc = -errno;
		close(vcpu->fd);
		return rc;
	}
	phase->nr_vcpus++;
	rc = set_cpuid(phase, vcpu->fd);
	if (rc)
		return rc;
	if (ioctl(vcpu->fd, KVM_GET_SREGS, &vcpu->sregs))
		return -errno;
	set_sregs(&vcpu->sregs, phase->scenario);
	return 0;
}

static void vm_destroy(struct phase *phase)
{
	while (phase->nr_vcpus) {
		struct vcpu *vcpu = &phase->vcpus[--phase->nr_vcpus];

		munmap(vcpu->run, phase->run_len);
		close(vcpu->fd);
	}
	guest_destroy(&phase->guest);
}

/* A VM with vCPUs, which do not run yet. 0 or -errno; to be destroyed in any case. */
static int vm_create(struct phase *phase)
{
	int len, rc;
	u32 i;

	phase->dead = false;
	rc = guest_create_vm(&phase->guest);
	if (rc)
		return rc;
	if (phase->scenario->smi && ioctl(phase->guest.vm, KVM_CREATE_IRQCHIP, 0))
		return -errno;
	len = ioctl(phase->guest.kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (len < 0)
		return -errno;
	phase->run_len = len;
	for (i = 0; !rc && i < NR_VCPUS; i++)
		rc = vcpu_create(phase, i);
	return rc;
}

static void vcpus_run(struct phase *phase)
{
	u32 i;

	for (i = 0; i < NR_VCPUS; i++) {
		block_of(i)->stop = 0;
		if (pthread_create(&phase->vcpus[i].thread, NULL, vcpu_thread,
				   &phase->vcpus[i])) {
			fprintf(stderr, "stress: no thread\n");
			exit(1);
		}
	}
}

static bool vcpu_ended(struct vcpu *vcpu)
{
	return __atomic_load_n(&vcpu->ended, __ATOMIC_ACQUIRE);
}

/*
 * Lets all vCPUs come to the end of a lap. The last first, since another has to wake it;
 * one that does not come is abandoned after @patience milliseconds.
 */
static void vcpus_stop(struct phase *phase, u64 patience)
{
	u32 i;

	for (i = NR_VCPUS; i--; ) {
		struct vcpu *vcpu = &phase->vcpus[i];
		u64 start = now_ms();

		*(volatile u32 *)&block_of(i)->stop = 1;
		while (!vcpu_ended(vcpu)) {
			usleep(200);
			if (now_ms() - start < patience)
				continue;
			if (!vcpu->abandoned)
				event(phase, STUCK, "vCPU %u", i);
			__atomic_store_n(&vcpu->abandoned, true, __ATOMIC_RELAXED);
			pthread_kill(vcpu->thread, SIGUSR1);
		}
		pthread_join(vcpu->thread, NULL);
	}
}

/* Until every vCPU has come around, or @patience milliseconds have passed. */
static void vcpus_await(struct phase *phase, u64 patience)
{
	u64 start = now_ms();
	u32 i, laps[NR_VCPUS];

	for (i = 0; i < NR_VCPUS; i++)
		laps[i] = *(volatile u32 *)&block_of(i)->laps;
	for (i = 0; i < NR_VCPUS; i++)
		while (*(volatile u32 *)&block_of(i)->laps == laps[i] &&
		       !vcpu_ended(&phase->vcpus[i]) && now_ms() - start < patience)
			usleep(200);
}

/* -- what memory holds in the end ------------------------------------------- */

static void compare_page(struct phase *phase, u32 page, const char *want)
{
	const u32 *w = (const u32 *)want, *is = host_word(page, 0);
	u32 i;

	for (i = 0; i < PAGE / 4; i++)
		if (w[i] != is[i]) {
			event(phase, WRONG_MEMORY,
			      "host page 0x%x, at 0x%x: 0x%x instead of 0x%x", page,
			      i * 4, is[i], w[i]);
			return;
		}
}

/* A page of data: what the vCPUs wrote last, and nothing else. */
static void check_data_page(struct phase *phase, u32 i)
{
	u32 page = data_page(i), vcpu, j;
	u32 at = page < LOW_PAGES ? AT_LOW + page : AT_BIG + page - BIG_PAGE;
	char want[PAGE];

	memcpy(want, pristine + at * PAGE, PAGE);
	for (vcpu = 0; vcpu < NR_VCPUS; vcpu++) {
		const struct block *block = block_of(vcpu);
		u32 own = OWN_AT + 4 * vcpu;

		memcpy(want + own, block->fresh ? (void *)host_word(at, own) :
		       (void *)&block->seq, 4);
		for (j = 0; j < STRING_WORDS; j++) {
			u32 string = STRING_AT + 4 * (vcpu * STRING_WORDS + j);
			u32 is = *host_word(at, string);

			if (is == (STRING_ANSWER | j) || block->fresh)
				memcpy(want + string, &is, 4);
		}
		if (i < DATA_PAGES - 1 && i % NR_VCPUS == vcpu)
			memcpy(want + ACROSS_AT, block->fresh ?
			       host_page(at) + ACROSS_AT : (char *)&block->seq, 2);
		if (i && i < DATA_PAGES && (i - 1) % NR_VCPUS == vcpu)
			memcpy(want, block->fresh ? host_page(at) :
			       (char *)&block->seq + 2, 2);
	}
	compare_page(phase, at, want);
}

/* Memory of the zone, shown at any of @n pages from @first on. */
static void check_zone_page(struct phase *phase, u32 page, u32 first, u32 n)
{
	char want[PAGE];
	u32 vcpu;

	memcpy(want, pristine + page * PAGE, PAGE);
	for (vcpu = 0; vcpu < NR_VCPUS; vcpu++) {
		u32 is = *host_word(page, OWN_AT + 4 * vcpu);

		if (!is || (is >> 16 >= first && is >> 16 < first + n))
			memcpy(want + OWN_AT + 4 * vcpu, &is, 4);
	}
	compare_page(phase, page, want);
}

static void check_memory(struct phase *phase)
{
	bool data[AT_END] = { false };
	u32 i;

	for (i = 0; i < NR_DATA; i++) {
		u32 page = data_page(i);

		data[page < LOW_PAGES ? AT_LOW + page : AT_BIG + page - BIG_PAGE] = true;
		check_data_page(phase, i);
	}
	for (i = 0; i < BIG_PAGES; i++)
		if (!data[AT_BIG + i])
			compare_page(phase, AT_BIG + i, pristine + (AT_BIG + i) * PAGE);
	for (i = 0; i < LOW_PAGES; i++) {
		u32 at = AT_LOW + i;

		/* These are always written, each in its own way. */
		if (data[at] || (i >= BLOCK_PAGE && i <= STEAL_PAGE) ||
		    (i >= TABLE_PAGE && i < TABLE_PAGE + TABLE_PAGES))
			continue;
		if (i >= ZONE_PAGE && i < ZONE_PAGE + ZONE_PAGES)
			check_zone_page(phase, at, i, 1);
		else
			compare_page(phase, at, pristine + at * PAGE);
	}
	for (i = 0; i < WALK_PAGES; i++)
		compare_page(phase, AT_WALK + i, pristine + (AT_WALK + i) * PAGE);
	for (i = 0; i < OVER_PAGES; i++)
		check_zone_page(phase, AT_OVER + i, OVER_PAGE + i, 1);
	for (i = 0; i < MOVED_PAGES; i++)
		check_zone_page(phase, AT_MOVED + i, ZONE_PAGE, ZONE_PAGES);
	for (i = 0; phase->scenario->smi && i < NR_VCPUS; i++)
		compare_page(phase, AT_SMRAM + i, pristine + (AT_SMRAM + i) * PAGE);
}

/* -- the kernel's log ------------------------------------------------------- */

/*
 * KVM itself warns of some things that bare changes do to it. For the log to say whether
 * they happen with a map too, each phase has its own warnings: those that come only once
 * are armed again.
 */
static void log_begin(struct phase *phase)
{
	int fd = open("/sys/kernel/debug/clear_warn_once", O_WRONLY | O_CLOEXEC);
	char line[128];
	int len;

	if (fd < 0 || write(fd, "1", 1) != 1)
		printf("# %s: clear_warn_once: %s\n", phase->name, strerror(errno));
	if (fd >= 0)
		close(fd);
	len = snprintf(line, sizeof(line), "stress: %s\n", phase->name);
	phase->log = open("/dev/kmsg", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (phase->log < 0 || lseek(phase->log, 0, SEEK_END) < 0 ||
	    write(phase->log, line, len) != len) {
		printf("# %s: no kernel log: %s\n", phase->name, strerror(errno));
		exit(1);
	}
}

static void log_end(struct phase *phase)
{
	static const char *const beginnings[] = {
		"WARNING:", "BUG:", "Oops:", "INFO: rcu", "rcu: INFO",
		"general protection",
	};
	char line[8192], *text;
	ssize_t n;
	u32 i;

	/* One record a call; EPIPE where the buffer has been overrun. */
	while ((n = read(phase->log, line, sizeof(line) - 1)) > 0 || errno == EPIPE) {
		if (n <= 0)
			continue;
		line[n] = '\0';
		text = strchr(line, ';');
		if (!text)
			continue;
		text[1 + strcspn(text + 1, "\n")] = '\0';
		for (i = 0; i < ARRAY_SIZE(beginnings); i++)
			if (!strncmp(text + 1, beginnings[i], strlen(beginnings[i])))
				event(phase, KERNEL_WARNING, "%s", text + 1);
	}
	close(phase->log);
}

/* -- phases ----------------------------------------------------------------- */

static void on_kick(int sig)
{
	(void)sig;
}

static void phase_init(struct phase *phase, const struct scenario *scenario,
		       const char *paging, const char *name, u32 nr_changes)
{
	memset(phase, 0, sizeof(*phase));
	phase->scenario = scenario;
	snprintf(phase->name, sizeof(phase->name), "%s.%s.%s", paging, scenario->name,
		 name);
	tap_watch(phase->name);
	phase->ns = need(calloc(nr_changes, sizeof(*phase->ns)));
	fill_memory(scenario);
	log_begin(phase);
}

/* Between two changes: some time, and now and then a lap of everybody. */
static void let_run(struct phase *phase, struct rnd *rnd, u32 change, u64 patience)
{
	tap_watch(NULL);
	usleep(rnd_below(rnd, 1000));
	if (change % 8 == 7)
		vcpus_await(phase, patience);
}

static int bare_call(struct phase *phase, const struct call *call)
{
	phase->calls++;
	return guest_set_slot(&phase->guest, call->slot, call->flags, call->gpa,
			      call->npages, call->hva);
}

/* Changes from @step on with one VM, until it dies. The number of the next; -errno. */
static int bare_run(struct phase *phase, const struct plan *plan, struct world *world,
		    struct rnd *pauses, struct call *table, u32 step)
{
	u32 i;
	int rc;

	rc = vm_create(phase);
	for (i = 0; !rc && i < NR_AS * NR_SLOTS; i++)
		if (table[i].npages)
			rc = guest_set_slot(&phase->guest, table[i].slot, table[i].flags,
					    table[i].gpa, table[i].npages, table[i].hva);
	if (rc)
		goto out;
	vcpus_run(phase);
	vcpus_await(phase, 1000);
	for (; step < plan->nr_steps && !vm_dead(phase); step++) {
		const struct step *s = &plan->steps[step];
		u32 end = s->first + step_calls(s);
		u64 start;

		next_change(world);
		start = now_ns();
		for (i = s->first; i < end && !rc; i++)
			rc = bare_call(phase, &plan->calls[i]);
		if (!rc)
			phase->ns[phase->nr_changes++] = now_ns() - start;
		for (i = s->first; i < end; i++)
			table[slot_index(plan->calls[i].slot)] = plan->calls[i];
		/* The next VM begins with what this one was to have. */
		if (rc == -EIO)
			note_dead(phase);
		if (vm_dead(phase))
			rc = 0;
		if (rc)
			break;
		let_run(phase, pauses, step, 1000);
	}
	vcpus_stop(phase, 5000);
	if (!vm_dead(phase))
		check_memory(phase);
out:
	vm_destroy(phase);
	return rc ?: (int)step;
}

static int bare(struct phase *phase, const struct plan *plan, u64 seed)
{
	struct world *world = need(malloc(sizeof(*world)));
	struct call table[NR_AS * NR_SLOTS] = { { 0 } };
	struct rnd pauses = { seed };
	int step = 1;
	u32 i;

	world_init(world, phase->scenario, seed);
	for (i = 0; i < step_calls(&plan->steps[0]); i++)
		table[slot_index(plan->calls[i].slot)] = plan->calls[i];
	while (step > 0 && step < (int)plan->nr_steps)
		step = bare_run(phase, plan, world, &pauses, table, step);
	free(world);
	return step < 0 ? step : 0;
}

/* What a commit says it did against what it was to do. */
static int check_apply(const struct phase *phase, const struct step *step,
		       const struct gpamap_apply *cmd, u32 change)
{
	u32 flags = step_holds(step) ? GPAMAP_PLAN_HOLD : 0;

	if (cmd->out_deletes == step->deletes && cmd->out_moves == step->moves &&
	    cmd->out_creates == step->creates && cmd->out_plan == flags)
		return 0;
	printf("# %s: change %u: %u deletes, %u moves, %u creates, flags %u;"
	       " planned were %u, %u, %u, %u\n", phase->name, change, cmd->out_deletes,
	       cmd->out_moves, cmd->out_creates, cmd->out_plan, step->deletes,
	       step->moves, step->creates, flags);
	return -EPROTO;
}

static int check_stats(const struct phase *phase, int fd, const struct plan *plan)
{
	u64 deletes = 0, moves = 0, creates = 0, holds = 0;
	struct gpamap_stats stats = { 0 };
	u32 i, count = 1;
	int rc;

	for (i = 0; i < plan->nr_steps; i++) {
		deletes += plan->steps[i].deletes;
		moves += plan->steps[i].moves;
		creates += plan->steps[i].creates;
		holds += step_holds(&plan->steps[i]);
	}
	rc = _test_cmd_query(fd, GPAMAP_QUERY_STATS, 0, &stats, sizeof(stats), &count);
	if (rc)
		return rc;
	printf("# %s.holds %llu holds\n", phase->name, stats.holds);
	printf("# %s.longest_hold %llu us\n", phase->name, stats.longest_hold_ns / 1000);
	printf("# %s.mean_hold %llu us\n", phase->name,
	       stats.hold_ns / 1000 / (stats.holds ?: 1));
	if (stats.commits == plan->nr_steps && stats.deletes == deletes &&
	    stats.moves == moves && stats.creates == creates && stats.holds == holds &&
	    !stats.hold_failures && !stats.rollbacks)
		return 0;
	printf("# %s: counted are %llu commits, %llu deletes, %llu moves, %llu creates,"
	       " %llu holds, %llu failed holds, %llu roll-backs;"
	       " planned were %u, %llu, %llu, %llu, %llu, 0, 0\n",
	       phase->name, stats.commits, stats.deletes, stats.moves, stats.creates,
	       stats.holds, stats.hold_failures, stats.rollbacks, plan->nr_steps,
	       (unsigned long long)deletes, (unsigned long long)moves,
	       (unsigned long long)creates, (unsigned long long)holds);
	return -EPROTO;
}

static int with_map(struct phase *phase, const struct plan *plan, u64 seed)
{
	struct world *world = need(malloc(sizeof(*world)));
	struct rnd pauses = { seed };
	struct gpamap_apply cmd;
	int fd = -1, rc, wrong = 0;
	u32 i;

	phase->loud = true;
	rc = vm_create(phase);
	if (rc)
		goto out;
	fd = make_map(phase->guest.vm, world, phase->scenario, seed);
	if (fd < 0) {
		rc = fd;
		goto out;
	}
	vcpus_run(phase);
	vcpus_await(phase, tap_patience() * 1000);
	for (i = 1; !rc && i < plan->nr_steps; i++) {
		u64 start;

		next_change(world);
		start = now_ns();
		rc = apply(fd, world, &cmd);
		phase->ns[phase->nr_changes++] = now_ns() - start;
		phase->calls += cmd.out_deletes + cmd.out_moves + cmd.out_creates;
		if (!rc && !wrong)
			wrong = check_apply(phase, &plan->steps[i], &cmd, i);
		let_run(phase, &pauses, i, tap_patience() * 1000);
	}
	vcpus_stop(phase, tap_patience() * 1000);
	check_memory(phase);
	for (i = 0; i < NR_VCPUS; i++) {
		if (!block_of(i)->laps)
			event(phase, STUCK, "vCPU %u has not run", i);
		if (phase->scenario->smi && !block_of(i)->smm_count)
			event(phase, STUCK, "vCPU %u has not been in SMM", i);
		if (!*host_word(AT_LOW + STEAL_PAGE, 64 * i + 8))
			event(phase, STUCK, "vCPU %u has no steal time", i);
	}
	rc = rc ?: wrong ?: check_stats(phase, fd, plan);
out:
	if (fd >= 0)
		close(fd);
	vm_destroy(phase);
	free(world);
	return rc;
}

/* -- results ---------------------------------------------------------------- */

/* Returns the number of calls of a plan. */
static u64 report_plan(const struct plan *plan, const char *paging, const char *name)
{
	struct step sum = { 0 };
	u32 i, holds = 0;

	for (i = 1; i < plan->nr_steps; i++) {
		sum.deletes += plan->steps[i].deletes;
		sum.moves += plan->steps[i].moves;
		sum.creates += plan->steps[i].creates;
		holds += step_holds(&plan->steps[i]);
	}
	printf("# %s.%s.deletes %u calls\n", paging, name, sum.deletes);
	printf("# %s.%s.moves %u calls\n", paging, name, sum.moves);
	printf("# %s.%s.creates %u calls\n", paging, name, sum.creates);
	printf("# %s.%s.need_hold %u changes\n", paging, name, holds);
	return step_calls(&sum);
}

static int compare_u64(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

/* Of the first @nr changes. */
static double median_us(const struct phase *phase, u32 nr)
{
	if (nr > phase->nr_changes)
		nr = phase->nr_changes;
	if (!nr)
		return 0;
	qsort(phase->ns, nr, sizeof(*phase->ns), compare_u64);
	return phase->ns[nr / 2] / 1000.;
}

/* All that went wrong. */
static u64 report(const struct phase *phase, double median)
{
	u64 sum = 0, laps = 0;
	u32 i;

	for (i = 0; i < NR_VCPUS; i++)
		laps += block_of(i)->laps;
	printf("# %s.changes %u changes\n", phase->name, phase->nr_changes);
	printf("# %s.kvm_calls %llu calls\n", phase->name,
	       (unsigned long long)phase->calls);
	printf("# %s.laps %llu laps\n", phase->name, (unsigned long long)laps);
	printf("# %s.median %.0f us\n", phase->name, median);
	for (i = 0; i < NR_EVENTS; i++) {
		printf("# %s.%s %llu events\n", phase->name, event_names[i],
		       (unsigned long long)phase->events[i]);
		sum += phase->events[i];
	}
	return sum;
}

/* Both phases of a scenario. Returns what went wrong in the bare one. */
static u64 run_scenario(const struct scenario *scenario, const char *paging, u64 seed,
			u32 nr_changes, bool with_bare)
{
	double bare_us = 0, map_us;
	struct phase phase;
	u64 calls, events, shown = 0;
	struct plan plan;
	int rc;

	rc = make_plan(&plan, scenario, seed, nr_changes);
	if (rc)
		printf("# %s.%s: no plan: %s\n", paging, scenario->name, strerror(-rc));
	calls = report_plan(&plan, paging, scenario->name);

	if (with_bare) {
		phase_init(&phase, scenario, paging, "bare", nr_changes);
		if (!rc)
			rc = bare(&phase, &plan, seed);
		if (rc)
			printf("# %s: %s\n", phase.name, strerror(-rc));
		log_end(&phase);
		bare_us = median_us(&phase, nr_changes);
		shown = report(&phase, bare_us);
		if (!shown)
			printf("# %s: nothing went wrong this time, by chance\n", phase.name);
		/* What a dying VM was still to get is not counted. */
		tap_result(!rc && (phase.calls == calls || phase.events[VM_DEAD]), phase.name);
		free(phase.ns);
	}

	phase_init(&phase, scenario, paging, "gpamap", nr_changes);
	if (!rc)
		rc = with_map(&phase, &plan, seed);
	if (rc)
		printf("# %s: %s\n", phase.name, strerror(-rc));
	log_end(&phase);
	map_us = median_us(&phase, nr_changes);
	events = report(&phase, map_us);
	if (bare_us > 0)
		printf("# %s.%s.ratio %.2f gpamap/bare\n", paging, scenario->name,
		       map_us / bare_us);
	tap_result(!rc && !events && phase.calls == calls, phase.name);
	free(phase.ns);
	free(plan.steps);
	free(plan.calls);
	return shown;
}

static void skip(const char *paging, const char *name, const char *phase)
{
	char text[64];

	snprintf(text, sizeof(text), "%s.%s.%s", paging, name, phase);
	tap_skip(text, "KVM has no address space for SMM");
}

static bool have_smm(void)
{
	struct guest guest;
	bool have;

	have = !guest_create_vm(&guest) &&
	       ioctl(guest.vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM) > 0 &&
	       ioctl(guest.vm, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE) >= NR_AS;
	guest_destroy(&guest);
	return have;
}

int main(void)
{
	const char *paging = kvm_nested_paging() ? "nested" : "shadow";
	u32 nr_changes = env_number("COMMITS", 100);
	u64 seed = test_seed(), shown = 0;
	bool smm = have_smm(), with_bare = env_number("BARE", 1);
	u32 i;

	sigaction(SIGUSR1, &(struct sigaction){ .sa_handler = on_kick }, NULL);
	memory = map_memory();
	pristine = map_memory();

	tap_begin(ARRAY_SIZE(scenarios) + (with_bare ? ARRAY_SIZE(scenarios) + 1 : 0));
	printf("# SEED=%llu COMMITS=%u\n", (unsigned long long)seed, nr_changes);
	for (i = 0; i < ARRAY_SIZE(scenarios); i++) {
		if (scenarios[i].smi && !smm) {
			if (with_bare)
				skip(paging, scenarios[i].name, "bare");
			skip(paging, scenarios[i].name, "gpamap");
			continue;
		}
		shown += run_scenario(&scenarios[i], paging, seed + i, nr_changes, with_bare);
	}
	if (with_bare) {
		printf("# %s.bare_events %llu events\n", paging, (unsigned long long)shown);
		tap_result(shown, "bare_is_seen_to_fail");
	}
	return tap_failures() ? 1 : 0;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * What the vCPUs of the stress test run: laps in which they write all data and read it
 * back, look at all constants, run through all code, and compare what one commit has
 * changed together.
 *
 * It is compiled twice into an image that lies at TEXT_PAGE: with -m16 for real mode
 * (with segments of 4 GiB, so every address can be reached) and with -m64 for long mode,
 * where the tables at TABLE_PAGE map all addresses to themselves. It has no data of its
 * own but its stack. smm_enter is 16-bit code in both and is copied into SMRAM.
 *
 * All addresses that it touches are memory before and after every commit, and none that
 * it writes is ever read-only: nothing that it does may leave as an MMIO exit.
 */
#include "stress_guest.h"

typedef uint32_t u32;

/* What the rest is assembled for, and how the first argument comes in EAX or RDI. */
#ifdef __x86_64__
#define MODE ".code64"
#define ENTRY
#else
#define MODE ".code16gcc"
#define ENTRY __attribute__((regparm(1)))
#endif

#define PAGE 4096UL
#define ICR 0x830		/* of the x2APIC */
#define ICR_SMI 0x4200U		/* delivery mode SMI, level asserted */
#define ICR_SELF 0x40000U
/* Longer than any SMI takes, the host being slow. */
#define SMI_PATIENCE 0x4000000U
/* The vCPU that halts, to be woken by the SMI of the one before it. */
#define HALTS (NR_VCPUS - 1)

/* Steal time as KVM writes it, in words. */
#define STEAL_VERSION 2
#define STEAL_WORDS 16

/* Hidden from the compiler, since in 16 bits an address as a constant is cut. */
static volatile u32 *at(u32 page, u32 offset)
{
	unsigned long addr = page * PAGE + offset;

	asm("" : "+r"(addr));
	return (volatile u32 *)addr;
}

static volatile struct block *block_of(u32 vcpu)
{
	return (volatile struct block *)at(BLOCK_PAGE + vcpu, 0);
}

static void out(u32 port, u32 value)
{
	asm volatile("outl %0, %w1" : : "a"(value), "d"(port) : "memory");
}

static void fail(u32 vcpu, u32 what, volatile u32 *addr, u32 want, u32 is)
{
	volatile struct block *block = block_of(vcpu);

	block->what = what;
	block->addr = (unsigned long)addr;
	block->want = want;
	block->is = is;
	/* The host begins anew with this vCPU. */
	for (;;)
		out(PORT_FAILED, what);
}

/* Fails unless @addr has @want. */
static void check(u32 vcpu, u32 what, volatile u32 *addr, u32 want)
{
	u32 is = *addr;

	if (is != want)
		fail(vcpu, what, addr, want, is);
}

/* -- data ------------------------------------------------------------------ */

static void write_data(u32 vcpu, u32 seq)
{
	u32 i;

	for (i = 0; i < NR_DATA; i++)
		at(data_page(i), OWN_AT)[vcpu] = seq;
	for (i = vcpu; i < DATA_PAGES - 1; i += NR_VCPUS)
		*at(DATA_PAGE + i, ACROSS_AT) = seq;
}

static void check_data(u32 vcpu, u32 what, u32 seq)
{
	u32 i;

	for (i = 0; i < NR_DATA; i++) {
		check(vcpu, what, at(data_page(i), OWN_AT) + vcpu, seq);
		check(vcpu, WRONG_STAMP, at(data_page(i), STAMP_AT),
		      STAMP_BASE | data_page(i));
	}
	for (i = vcpu; i < DATA_PAGES - 1; i += NR_VCPUS)
		check(vcpu, WRONG_ACROSS, at(DATA_PAGE + i, ACROSS_AT), seq);
}

static void check_constants(u32 vcpu)
{
	u32 i;

	for (i = 0; i < NR_CONST; i++)
		check(vcpu, WRONG_STAMP, at(const_page(i), STAMP_AT),
		      STAMP_BASE | const_page(i));
}

/* Writes come from the host in the middle of KVM's emulation, and go there. */
static void do_strings(u32 vcpu, u32 seq)
{
	volatile u32 *to = at(data_page(seq % NR_DATA), STRING_AT) + vcpu * STRING_WORDS;
	u32 page = const_page(seq % NR_CONST);
	unsigned long count, addr;
	u32 i;

	for (i = 0; i < STRING_WORDS; i++)
		to[i] = 0;
	count = STRING_WORDS;
	addr = (unsigned long)to;
	asm volatile("addr32 rep insl"
		     : "+D"(addr), "+c"(count) : "d"(PORT_STRING) : "memory");
	for (i = 0; i < STRING_WORDS; i++)
		check(vcpu, WRONG_STRING, to + i, STRING_ANSWER | i);

	block_of(vcpu)->page = page;
	count = STRING_WORDS;
	addr = (unsigned long)at(page, CONST_AT);
	asm volatile("addr32 rep outsl"
		     : "+S"(addr), "+c"(count) : "d"(PORT_STRING) : "memory");
}

/* -- memory that comes and goes -------------------------------------------- */

/*
 * A page of the zone shows one of three memories. What is written says where it was
 * written, so that the host finds it if it is anywhere else.
 */
static void check_zone(u32 vcpu, u32 seq)
{
	u32 page;

	for (page = ZONE_PAGE; page < ZONE_PAGE + ZONE_PAGES; page++) {
		u32 stamp = *at(page, STAMP_AT);

		if (stamp != (STAMP_BASE | page) && stamp != (STAMP_OVER | page) &&
		    (stamp & STAMP_MASK) != STAMP_MOVED)
			fail(vcpu, WRONG_STAMP, at(page, STAMP_AT), STAMP_BASE | page,
			     stamp);
		at(page, OWN_AT)[vcpu] = page << 16 | (seq & 0xffff);
	}
}

/*
 * Both windows show pages with a version, which rises with every commit that changes
 * them. If the first had the same before and after, no commit was in between.
 */
static void check_windows(u32 vcpu, u32 seq)
{
	volatile struct block *block = block_of(vcpu);
	volatile u32 *own = at(WINDOW1_PAGE, OWN_AT) + vcpu;
	volatile u32 *one = at(WINDOW1_PAGE, STAMP_AT);
	volatile u32 *two = at(WINDOW2_PAGE, STAMP_AT);
	u32 before, other, after, is;

	before = *one;
	*own = seq;
	other = *two;
	is = *own;
	after = *one;
	if (before < block->version || after < before)
		fail(vcpu, WRONG_VERSION, one, before, after);
	block->version = after;
	if (before != after)
		return;
	if (other != before)
		fail(vcpu, WRONG_MIXTURE, two, before, other);
	if (is != seq)
		fail(vcpu, WRONG_WINDOW, own, seq, is);
}

static void check_steal(u32 vcpu)
{
	volatile struct block *block = block_of(vcpu);
	volatile u32 *steal = at(STEAL_PAGE, 0) + vcpu * STEAL_WORDS;
	u32 version, low, high;

	do {
		version = steal[STEAL_VERSION];
		low = steal[0];
		high = steal[1];
	} while (version != steal[STEAL_VERSION]);
	if (version & 1 || high < block->steal[1] ||
	    (high == block->steal[1] && low < block->steal[0]))
		fail(vcpu, WRONG_STEAL, steal, block->steal[0], low);
	block->steal[0] = low;
	block->steal[1] = high;
}

/* -- code ------------------------------------------------------------------ */

static void check_walk(u32 vcpu)
{
	u32 sum = 0;

#ifdef __x86_64__
	asm volatile("call *%1" : "+d"(sum) : "a"(WALK_PAGE * PAGE) : "memory", "cc");
#else
	asm volatile("lcallw %1, $0" : "+d"(sum) : "i"(WALK_PAGE << 8) : "memory", "cc");
#endif
	if (sum != WALK_SUM)
		fail(vcpu, WRONG_WALK, at(WALK_PAGE, 0), WALK_SUM, sum);
}

/* With the tables read anew. */
static void flush_tlb(void)
{
#ifdef __x86_64__
	unsigned long cr3;

	asm volatile("mov %%cr3, %0; mov %0, %%cr3" : "=r"(cr3) : : "memory");
#endif
}

/* -- system management mode ------------------------------------------------ */

static void send_smi(u32 destination, u32 low)
{
	asm volatile("wrmsr" : : "c"(ICR), "a"(low), "d"(destination) : "memory");
}

/*
 * The handler copies the version that SMM's own window shows. It is of the same commit
 * as window 1 if that one had the same before and after.
 */
static void check_smm(u32 vcpu)
{
	volatile struct block *block = block_of(vcpu);
	volatile u32 *one = at(WINDOW1_PAGE, STAMP_AT);
	u32 before, count, version, patience = SMI_PATIENCE;

	count = block->smm_count;
	before = *one;
	send_smi(0, ICR_SMI | ICR_SELF);
	while (block->smm_count == count)
		if (!patience--)
			fail(vcpu, WRONG_NO_SMI, &block->smm_count, count + 1, count);
	version = block->smm_version;
	if (*one == before && version != before)
		fail(vcpu, WRONG_SMM, at(WINDOW_SMM_PAGE, STAMP_AT), before, version);

	if (vcpu + 1 < NR_VCPUS)
		send_smi(vcpu + 1, ICR_SMI);
	if (vcpu == HALTS)
		asm volatile("hlt" : : : "memory");
}

/*
 * The handler, in 16 bits, with data segments from 0; its place in the image is known.
 * What CS begins at tells the vCPU, and with it the block.
 */
__attribute__((section(".smm"), naked, used))
static void smm_enter(void)
{
	asm volatile(".code16\n"
		     "movl	%%cs, %%ebx\n"
		     "shll	$4, %%ebx\n"
		     "subl	%0, %%ebx\n"
		     "addr32 movl %c1, %%eax\n"
		     "addr32 movl %%eax, %c2(%%ebx)\n"
		     "addr32 incl %c3(%%ebx)\n"
		     "rsm\n"
		     MODE "\n"
		     : : "i"((SMBASE_PAGE - BLOCK_PAGE) << 12),
			 "i"((WINDOW_SMM_PAGE << 12) + STAMP_AT),
			 "i"(__builtin_offsetof(struct block, smm_version)),
			 "i"(__builtin_offsetof(struct block, smm_count)));
}

/* -------------------------------------------------------------------------- */

/* Where the host starts a vCPU, with its number in RDI and EAX; see the linker script. */
ENTRY __attribute__((section(".start"), noreturn, used))
static void start(u32 vcpu)
{
	volatile struct block *block = block_of(vcpu);
	u32 seq = block->seq;

	while (!block->stop) {
		if (!block->fresh)
			check_data(vcpu, WRONG_KEPT, seq);
		seq++;
		write_data(vcpu, seq);
		check_walk(vcpu);
		check_windows(vcpu, seq);
		check_zone(vcpu, seq);
		check_constants(vcpu);
		do_strings(vcpu, seq);
		check_steal(vcpu);
		if (block->smi)
			check_smm(vcpu);
		check_data(vcpu, WRONG_DATA, seq);
		block->seq = seq;
		block->fresh = 0;
		block->laps++;
		flush_tlb();
	}
	for (;;)
		out(PORT_DONE, 0);
}

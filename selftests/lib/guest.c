// SPDX-License-Identifier: GPL-2.0
/*
 * The guest of the tests: instructions, each followed by HLT, that the host
 * chooses from by setting RIP. Without KVM's interrupt controller HLT leaves to
 * userspace, so one access is one or two calls of KVM_RUN: an MMIO exit first, if
 * there is no memory, and then the HLT.
 *
 * It runs in long mode with identity-mapped 2 MiB pages, entered by setting the
 * registers: it has no code of its own to get there.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "guest.h"

#define NR_PDS (GUEST_END >> 30)
#define PML4 0
#define PDPT 1
#define PD 2
#define CODE (PD + NR_PDS)
#define TABLES (CODE + 1)		/* GDT, and from IDT_OFFSET on IDT */
#define STACKS (TABLES + 1)		/* 64 bytes each: an interrupt's frame fits */
#define COUNTERS (STACKS + 1)		/* 64 bytes apart */
#define DATA (COUNTERS + 1)
#define IDT_OFFSET 1024
#define PER_VCPU (TEST_PAGE / GUEST_MAX_VCPUS)
#define APIC_EOI 0xfee000b0

_Static_assert(DATA + GUEST_DATA_PAGES == GUEST_PAGES, "GUEST_PAGES");

/* Code, in slots of 16 bytes: accesses (read 1, 2, 4, 8, write 1, 2, 4, 8), programs. */
#define CODE_STRIDE 16
#define HANDLER (GUEST_MOVS + 1)
static const unsigned char code[][CODE_STRIDE] = {
	{ 0x0f, 0xb6, 0x07, 0xf4 },		/* movzbl (%rdi),%eax; hlt */
	{ 0x0f, 0xb7, 0x07, 0xf4 },		/* movzwl (%rdi),%eax; hlt */
	{ 0x8b, 0x07, 0xf4 },			/* mov (%rdi),%eax; hlt */
	{ 0x48, 0x8b, 0x07, 0xf4 },		/* mov (%rdi),%rax; hlt */
	{ 0x88, 0x07, 0xf4 },			/* mov %al,(%rdi); hlt */
	{ 0x66, 0x89, 0x07, 0xf4 },		/* mov %ax,(%rdi); hlt */
	{ 0x89, 0x07, 0xf4 },			/* mov %eax,(%rdi); hlt */
	{ 0x48, 0x89, 0x07, 0xf4 },		/* mov %rax,(%rdi); hlt */
	[GUEST_COUNT] = {
		0x48, 0x8b, 0x07,		/* mov (%rdi),%rax */
		0x48, 0xff, 0xc0,		/* 1: inc %rax */
		0x48, 0xff, 0x07,		/* incq (%rdi) */
		0x48, 0x39, 0x07,		/* cmp %rax,(%rdi) */
		0x74, 0xf5,			/* je 1b */
		0xe6, GUEST_LOST_PORT,		/* out %al,$GUEST_LOST_PORT */
	},
	[GUEST_OUT] = {
		0x48, 0xff, 0x07,		/* 1: incq (%rdi) */
		0xe6, GUEST_PORT,		/* out %al,$GUEST_PORT */
		0xeb, 0xf9,			/* jmp 1b */
	},
	[GUEST_HALT] = {
		0xfb, 0xf4, 0xfa,		/* 1: sti; hlt; cli */
		0x48, 0xff, 0x07,		/* incq (%rdi) */
		0xe6, GUEST_PORT,		/* out %al,$GUEST_PORT */
		0xeb, 0xf6,			/* jmp 1b */
	},
	[GUEST_INS] = { 0xf3, 0x6c, 0xe6, GUEST_PORT, 0xf4 },	/* rep insb; out; hlt */
	[GUEST_OUTS] = { 0xf3, 0x6e, 0xe6, GUEST_PORT, 0xf4 },	/* rep outsb; out; hlt */
	[GUEST_MOVS] = { 0xf3, 0xa4, 0xe6, GUEST_PORT, 0xf4 },	/* rep movsb; out; hlt */
	[HANDLER] = {
		0xc7, 0x06, 0, 0, 0, 0,		/* movl $0,(%rsi): the end of interrupt */
		0x48, 0xcf,			/* iretq */
	},
};

static u64 page_gpa(u32 page)
{
	return GUEST_BASE + page * TEST_PAGE;
}

static void fill_memory(struct guest *guest)
{
	u64 handler = page_gpa(CODE) + HANDLER * CODE_STRIDE;
	u64 (*table)[512] = guest->mem;
	u64 *gate, i;

	/* Present, writable; the last level with the bit for 2 MiB. */
	table[PML4][0] = page_gpa(PDPT) | 3;
	for (i = 0; i < NR_PDS; i++)
		table[PDPT][i] = page_gpa(PD + i) | 3;
	for (i = 0; i < NR_PDS * 512; i++)
		table[PD + i / 512][i % 512] = (i << 21) | 0x83;
	memcpy(table[CODE], code, sizeof(code));
	/* Flat segments for 64 bits, code and data, as in set_long_mode(). */
	table[TABLES][1] = 0x00af9b000000ffff;
	table[TABLES][2] = 0x00cf93000000ffff;
	/* An interrupt gate. All other vectors end in a triple fault. */
	gate = (u64 *)((char *)table[TABLES] + IDT_OFFSET) + 2 * GUEST_VECTOR;
	gate[0] = (handler & 0xffff) | 8 << 16 | 0x8eULL << 40 |
		  (handler >> 16 & 0xffff) << 48;
	gate[1] = handler >> 32;
}

static int set_cpuid(struct guest *guest)
{
	struct kvm_cpuid2 *cpuid;
	u32 n = 256;
	int rc;

	cpuid = calloc(1, sizeof(*cpuid) + n * sizeof(cpuid->entries[0]));
	if (!cpuid)
		return -ENOMEM;
	cpuid->nent = n;
	rc = ioctl(guest->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) ||
	     ioctl(guest->vcpu, KVM_SET_CPUID2, cpuid) ? -errno : 0;
	free(cpuid);
	return rc;
}

static int set_long_mode(struct guest *guest)
{
	struct kvm_segment segment = {
		.limit = 0xffffffff,
		.present = 1,
		.s = 1,
		.g = 1,
	};
	struct kvm_sregs sregs;

	if (ioctl(guest->vcpu, KVM_GET_SREGS, &sregs))
		return -errno;
	segment.selector = 0x10;
	segment.type = 3;
	segment.db = 1;
	sregs.ds = segment;
	sregs.es = segment;
	sregs.fs = segment;
	sregs.gs = segment;
	sregs.ss = segment;
	segment.selector = 8;
	segment.type = 11;
	segment.db = 0;
	segment.l = 1;
	sregs.cs = segment;
	sregs.gdt.base = page_gpa(TABLES);
	sregs.gdt.limit = 3 * 8 - 1;
	sregs.idt.base = page_gpa(TABLES) + IDT_OFFSET;
	sregs.idt.limit = (GUEST_VECTOR + 1) * 16 - 1;
	sregs.cr3 = page_gpa(PML4);
	sregs.cr4 |= 1 << 5;			/* PAE */
	sregs.cr0 |= 1U << 31 | 1;		/* PG, PE */
	sregs.efer |= 1 << 8 | 1 << 10;		/* LME, LMA */
	return ioctl(guest->vcpu, KVM_SET_SREGS, &sregs) ? -errno : 0;
}

/* An interrupt is only taken where the guest has enabled its APIC: done for it here. */
static int enable_apic(struct guest *guest)
{
	struct kvm_lapic_state lapic;

	if (ioctl(guest->vcpu, KVM_GET_LAPIC, &lapic))
		return -errno;
	*(u32 *)(lapic.regs + 0xf0) = 0x1ff;
	return ioctl(guest->vcpu, KVM_SET_LAPIC, &lapic) ? -errno : 0;
}

int guest_create_vm(struct guest *guest)
{
	memset(guest, 0, sizeof(*guest));
	guest->vm = -1;
	guest->vcpu = -1;
	guest->memfd = -1;
	guest->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (guest->kvm < 0)
		return -errno;
	guest->vm = ioctl(guest->kvm, KVM_CREATE_VM, 0);
	return guest->vm < 0 ? -errno : 0;
}

static int create_vcpu(struct guest *guest)
{
	int len, rc;

	guest->vcpu = ioctl(guest->vm, KVM_CREATE_VCPU, guest->id);
	if (guest->vcpu < 0)
		return -errno;
	len = ioctl(guest->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (len < 0)
		return -errno;
	guest->run = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, guest->vcpu, 0);
	if (guest->run == MAP_FAILED) {
		guest->run = NULL;
		return -errno;
	}
	guest->run_len = len;
	rc = set_cpuid(guest);
	if (!rc && guest->irqchip)
		rc = enable_apic(guest);
	return rc ?: set_long_mode(guest);
}

static int create(struct guest *guest, bool irqchip)
{
	int rc;

	rc = guest_create_vm(guest);
	if (rc)
		return rc;
	guest->memfd = memfd_create("guest", MFD_CLOEXEC);
	if (guest->memfd < 0 || ftruncate(guest->memfd, GUEST_LEN))
		return -errno;
	guest->mem = mmap(NULL, GUEST_LEN, PROT_READ | PROT_WRITE, MAP_SHARED,
			  guest->memfd, 0);
	if (guest->mem == MAP_FAILED) {
		guest->mem = NULL;
		return -errno;
	}
	fill_memory(guest);
	guest->irqchip = irqchip;
	if (irqchip && ioctl(guest->vm, KVM_CREATE_IRQCHIP))
		return -errno;
	rc = guest_set_slot(guest, GUEST_SLOT, 0, GUEST_BASE, GUEST_PAGES, guest->mem);
	return rc ?: create_vcpu(guest);
}

int guest_create(struct guest *guest)
{
	return create(guest, false);
}

int guest_create_irqchip(struct guest *guest)
{
	return create(guest, true);
}

int guest_add_vcpu(struct guest *vcpu, const struct guest *first, u32 id)
{
	*vcpu = *first;
	vcpu->vcpu = -1;
	vcpu->run = NULL;
	vcpu->id = id;
	vcpu->shares = true;
	return create_vcpu(vcpu);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void guest_destroy(struct guest *guest)
{
	if (guest->run)
		munmap(guest->run, guest->run_len);
	guest->run = NULL;
	close_fd(&guest->vcpu);
	if (guest->shares)
		return;
	if (guest->mem)
		munmap(guest->mem, GUEST_LEN);
	guest->mem = NULL;
	close_fd(&guest->memfd);
	close_fd(&guest->vm);
	close_fd(&guest->kvm);
}

static int set_regs(struct guest *guest, u32 entry, const struct kvm_regs *from)
{
	struct kvm_regs regs = *from;

	regs.rip = page_gpa(CODE) + entry * CODE_STRIDE;
	regs.rsp = page_gpa(STACKS) + (guest->id + 1) * PER_VCPU;
	/* KVM lets a vCPU wait for a page elsewhere only if it could take interrupts. */
	regs.rflags = guest->irqchip ? 0x202 : 2;
	return ioctl(guest->vcpu, KVM_SET_REGS, &regs) ? -errno : 0;
}

int guest_run(struct guest *guest)
{
	int rc = ioctl(guest->vcpu, KVM_RUN, 0);

	return rc ? -errno : (int)guest->run->exit_reason;
}

static int run(struct guest *guest)
{
	int rc;

	do {
		rc = guest_run(guest);
	} while (rc == -EINTR);
	return rc;
}

static u64 cut(u64 value, u32 len)
{
	return len == 8 ? value : value & ((1ULL << (8 * len)) - 1);
}

static struct guest_access guest_do(struct guest *guest, u32 entry, u64 gpa, u64 rax)
{
	struct kvm_regs regs = { .rdi = gpa, .rax = rax };
	struct guest_access access = { .how = GUEST_RAM };
	struct kvm_run *kvm_run = guest->run;
	u64 answer = GUEST_MMIO_ANSWER;
	int reason;

	reason = set_regs(guest, entry, &regs);
	if (reason)
		goto broken;
	reason = run(guest);
	if (reason == KVM_EXIT_MMIO) {
		access.how = GUEST_MMIO;
		access.mmio_gpa = kvm_run->mmio.phys_addr;
		access.mmio_len = kvm_run->mmio.len;
		access.mmio_write = kvm_run->mmio.is_write;
		if (access.mmio_write)
			memcpy(&access.mmio_value, kvm_run->mmio.data, access.mmio_len);
		else
			memcpy(kvm_run->mmio.data, &answer, sizeof(answer));
		reason = run(guest);
	}
	if (reason != KVM_EXIT_HLT)
		goto broken;
	if (ioctl(guest->vcpu, KVM_GET_REGS, &regs)) {
		reason = -errno;
		goto broken;
	}
	access.value = regs.rax;
	return access;

broken:
	access.how = GUEST_BROKEN;
	access.reason = reason;
	return access;
}

static u32 len_index(u32 len)
{
	return len == 1 ? 0 : len == 2 ? 1 : len == 4 ? 2 : 3;
}

struct guest_access guest_read(struct guest *guest, u64 gpa, u32 len)
{
	/* RAX holds rubbish, so that nothing read is not taken for 0. */
	struct guest_access access = guest_do(guest, len_index(len), gpa,
					      0xbad0bad0bad0bad0ULL);

	access.value = cut(access.value, len);
	return access;
}

struct guest_access guest_write(struct guest *guest, u64 gpa, u32 len, u64 value)
{
	return guest_do(guest, 4 + len_index(len), gpa, value);
}

int guest_spin(struct guest *guest, u64 gpa)
{
	int rc = guest_start(guest, GUEST_COUNT, gpa, 0, 0);

	return rc ?: guest_run(guest);
}

int guest_start(struct guest *guest, enum guest_program program, u64 rdi, u64 rsi,
		u64 rcx)
{
	struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_regs regs = {
		.rdi = rdi,
		.rsi = program == GUEST_HALT ? APIC_EOI : rsi,
		.rcx = rcx,
		.rdx = GUEST_DATA_PORT,
	};

	if (guest->irqchip && ioctl(guest->vcpu, KVM_SET_MP_STATE, &state))
		return -errno;
	return set_regs(guest, program, &regs);
}

u64 guest_counter_gpa(const struct guest *guest)
{
	return page_gpa(COUNTERS) + guest->id * PER_VCPU;
}

volatile u64 *guest_counter(const struct guest *guest)
{
	return (u64 *)((char *)guest->mem + COUNTERS * TEST_PAGE + guest->id * PER_VCPU);
}

bool guest_left_by_out(const struct guest *guest, u32 port)
{
	const struct kvm_run *run = guest->run;

	return run->exit_reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_OUT &&
	       run->io.port == port;
}

int guest_signal_msi(const struct guest *guest, u32 id, u32 data)
{
	struct kvm_msi msi = { .address_lo = 0xfee00000 | id << 12, .data = data };

	/* It returns how many got it. */
	switch (ioctl(guest->vm, KVM_SIGNAL_MSI, &msi)) {
	case -1:
		return -errno;
	case 0:
		return -ENXIO;
	}
	return 0;
}

int guest_set_slot(struct guest *guest, u32 slot, u32 flags, u64 gpa, u64 npages,
		   const void *hva)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = npages * TEST_PAGE,
		.userspace_addr = (uintptr_t)hva,
	};

	return ioctl(guest->vm, KVM_SET_USER_MEMORY_REGION, &region) ? -errno : 0;
}

/* -- slots, as the guest and KVM have them ------------------------------------ */

static char why[512];

static const struct gpamap_slot_info *find_slot(const struct gpamap_slot_info *slots,
						u32 nr, u32 as_id, u64 gpa)
{
	u32 i;

	for (i = 0; i < nr; i++)
		if (slots[i].slot >> 16 == as_id && gpa >= slots[i].gpa &&
		    gpa - slots[i].gpa < slots[i].npages * TEST_PAGE)
			return &slots[i];
	return NULL;
}

/* The space that the slots of address space 0 follow; 0 for none. */
static u32 memory_space(int map)
{
	struct gpamap_space_info *spaces;
	u32 i, count, id = 0;

	spaces = query_all(map, GPAMAP_QUERY_SPACES, 0, &count);
	for (i = 0; spaces && i < count; i++)
		if (spaces[i].kind == GPAMAP_SPACE_MEMORY && !spaces[i].as_id)
			id = spaces[i].id;
	free(spaces);
	return id;
}

/* Whether the view shows memory at @gpa, in a page that is not memory as a whole. */
static bool partial_memory(int map, u64 gpa, struct gpamap_lookup *seen)
{
	u32 space = memory_space(map);
	u64 page = gpa & ~(TEST_PAGE - 1ULL);
	struct gpamap_lookup begin;

	if (!space || _test_cmd_lookup(map, space, gpa, seen))
		return false;
	if (!(seen->out_flags & GPAMAP_RANGE_UNALIGNED) &&
	    !_test_cmd_lookup(map, space, page, &begin) &&
	    begin.out_region == seen->out_region && begin.out_last == seen->out_last &&
	    seen->out_last - page >= TEST_PAGE - 1)
		return false;
	return seen->out_kind == GPAMAP_REGION_RAM || seen->out_kind == GPAMAP_REGION_ROM ||
	       (seen->out_kind == GPAMAP_REGION_ROMD &&
		seen->out_flags & GPAMAP_REGION_ROMD_MODE);
}

/*
 * NULL if the guest finds at @gpa, where there is no slot, nothing, or the memory of a page
 * that is only in part memory.
 */
static const char *no_slot_diff(struct guest *guest, int map, u64 gpa)
{
	struct gpamap_lookup seen = { 0 };
	bool memory = partial_memory(map, gpa, &seen);
	struct guest_access access;

	/* Part of it goes on elsewhere: not looked at. */
	if (memory && seen.out_last - gpa < 7)
		return NULL;
	access = guest_read(guest, gpa, 8);
	if (access.how == GUEST_BROKEN)
		return "a read broke the vCPU";
	if (!memory)
		return access.how == GUEST_MMIO ? NULL : "memory where there is none";
	if (access.how == GUEST_MMIO)
		return "no memory where there is some without a slot";
	return access.value == *(volatile u64 *)(uintptr_t)seen.out_hva ?
		       NULL : "other memory than the view's";
}

/* NULL if the guest finds @slot at @gpa. */
static const char *page_diff(struct guest *guest, const struct gpamap_slot_info *slot,
			     u64 gpa)
{
	static u64 stamp = 0x5ca1ab1e00000000;
	struct guest_access access;
	volatile u64 *hva = (u64 *)(uintptr_t)(slot->hva + (gpa - slot->gpa));

	access = guest_read(guest, gpa, 8);
	if (access.how == GUEST_BROKEN)
		return "a read broke the vCPU";
	if (access.how == GUEST_MMIO)
		return "no memory for a read";
	if (access.value != *hva)
		return "other memory than the slot's";
	/* At another place of the page: what tests look for is at its begin. */
	access = guest_write(guest, gpa + TEST_PAGE - 8, 8, ++stamp);
	if (access.how == GUEST_BROKEN)
		return "a write broke the vCPU";
	if (slot->flags & KVM_MEM_READONLY)
		return access.how == GUEST_MMIO ? NULL : "memory that can be written";
	if (access.how == GUEST_MMIO)
		return "memory that cannot be written";
	return hva[TEST_PAGE / 8 - 1] == stamp ? NULL : "a write that went elsewhere";
}

const char *guest_slots_diff(struct guest *guest, int map, const u64 *gpas, u32 nr)
{
	struct gpamap_slot_info *slots;
	const char *what = NULL;
	u32 i, count;

	slots = query_all(map, GPAMAP_QUERY_SLOTS, 0, &count);
	if (!slots)
		return "QUERY failed";
	for (i = 0; i < nr && !what; i++) {
		const struct gpamap_slot_info *slot = find_slot(slots, count, 0, gpas[i]);

		what = slot ? page_diff(guest, slot, gpas[i]) :
			      no_slot_diff(guest, map, gpas[i]);
		if (!what)
			continue;
		snprintf(why, sizeof(why), "the guest finds %s at 0x%llx", what,
			 (unsigned long long)gpas[i]);
		what = why;
	}
	free(slots);
	return what;
}

const char *guest_places_diff(struct guest *guest, int map, u32 as_id, u32 slot,
			      const u64 *gpas, u32 nr)
{
	struct gpamap_slot_info *slots;
	const char *what = NULL;
	u32 i, count;
	int rc, want;

	slots = query_all(map, GPAMAP_QUERY_SLOTS, 0, &count);
	if (!slots)
		return "QUERY failed";
	for (i = 0; i < nr && !what; i++) {
		want = find_slot(slots, count, as_id, gpas[i]) ? -EEXIST : 0;
		rc = guest_set_slot(guest, as_id << 16 | slot, 0, gpas[i], 1, guest->mem);
		if (!rc)
			guest_set_slot(guest, as_id << 16 | slot, 0, gpas[i], 0,
				       guest->mem);
		if (rc == want)
			continue;
		snprintf(why, sizeof(why),
			 "a slot at 0x%llx in address space %u: %d, not %d",
			 (unsigned long long)gpas[i], as_id, rc, want);
		what = why;
	}
	free(slots);
	return what;
}

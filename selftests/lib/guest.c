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
#define NR_PAGES (CODE + 1)

/* Code of an access, in slots of 16 bytes: read 1, 2, 4, 8, write 1, 2, 4, 8, spin. */
#define CODE_STRIDE 16
#define SPIN 8
static const unsigned char code[][CODE_STRIDE] = {
	{ 0x0f, 0xb6, 0x07, 0xf4 },		/* movzbl (%rdi),%eax; hlt */
	{ 0x0f, 0xb7, 0x07, 0xf4 },		/* movzwl (%rdi),%eax; hlt */
	{ 0x8b, 0x07, 0xf4 },			/* mov (%rdi),%eax; hlt */
	{ 0x48, 0x8b, 0x07, 0xf4 },		/* mov (%rdi),%rax; hlt */
	{ 0x88, 0x07, 0xf4 },			/* mov %al,(%rdi); hlt */
	{ 0x66, 0x89, 0x07, 0xf4 },		/* mov %ax,(%rdi); hlt */
	{ 0x89, 0x07, 0xf4 },			/* mov %eax,(%rdi); hlt */
	{ 0x48, 0x89, 0x07, 0xf4 },		/* mov %rax,(%rdi); hlt */
	{ 0x48, 0xff, 0x07, 0xeb, 0xfb },	/* 1: incq (%rdi); jmp 1b */
};

static u64 page_gpa(u32 page)
{
	return GUEST_BASE + page * TEST_PAGE;
}

static void fill_memory(struct guest *guest)
{
	u64 (*table)[512] = guest->mem;
	u64 i;

	/* Present, writable; the last level with the bit for 2 MiB. */
	table[PML4][0] = page_gpa(PDPT) | 3;
	for (i = 0; i < NR_PDS; i++)
		table[PDPT][i] = page_gpa(PD + i) | 3;
	for (i = 0; i < NR_PDS * 512; i++)
		table[PD + i / 512][i % 512] = (i << 21) | 0x83;
	memcpy(table[CODE], code, sizeof(code));
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
	sregs.cr3 = page_gpa(PML4);
	sregs.cr4 |= 1 << 5;			/* PAE */
	sregs.cr0 |= 1U << 31 | 1;		/* PG, PE */
	sregs.efer |= 1 << 8 | 1 << 10;		/* LME, LMA */
	return ioctl(guest->vcpu, KVM_SET_SREGS, &sregs) ? -errno : 0;
}

int guest_create_vm(struct guest *guest)
{
	memset(guest, 0, sizeof(*guest));
	guest->vm = -1;
	guest->vcpu = -1;
	guest->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (guest->kvm < 0)
		return -errno;
	guest->vm = ioctl(guest->kvm, KVM_CREATE_VM, 0);
	return guest->vm < 0 ? -errno : 0;
}

int guest_create(struct guest *guest)
{
	int len, rc;

	rc = guest_create_vm(guest);
	if (rc)
		return rc;
	guest->mem = mmap(NULL, NR_PAGES * TEST_PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (guest->mem == MAP_FAILED) {
		guest->mem = NULL;
		return -errno;
	}
	fill_memory(guest);
	rc = guest_set_slot(guest, GUEST_SLOT, 0, GUEST_BASE, NR_PAGES, guest->mem);
	if (rc)
		return rc;

	guest->vcpu = ioctl(guest->vm, KVM_CREATE_VCPU, 0);
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
	return rc ?: set_long_mode(guest);
}

void guest_destroy(struct guest *guest)
{
	if (guest->run)
		munmap(guest->run, guest->run_len);
	if (guest->mem)
		munmap(guest->mem, NR_PAGES * TEST_PAGE);
	if (guest->vcpu >= 0)
		close(guest->vcpu);
	if (guest->vm >= 0)
		close(guest->vm);
	if (guest->kvm >= 0)
		close(guest->kvm);
	guest->run = NULL;
	guest->mem = NULL;
	guest->vcpu = -1;
	guest->vm = -1;
	guest->kvm = -1;
}

static int set_regs(struct guest *guest, u32 entry, u64 rdi, u64 rax)
{
	struct kvm_regs regs = {
		.rip = page_gpa(CODE) + entry * CODE_STRIDE,
		.rdi = rdi,
		.rax = rax,
		.rflags = 2,
	};

	return ioctl(guest->vcpu, KVM_SET_REGS, &regs) ? -errno : 0;
}

static int run(struct guest *guest)
{
	int rc;

	do {
		rc = ioctl(guest->vcpu, KVM_RUN, 0);
	} while (rc && errno == EINTR);
	return rc ? -errno : (int)guest->run->exit_reason;
}

static u64 cut(u64 value, u32 len)
{
	return len == 8 ? value : value & ((1ULL << (8 * len)) - 1);
}

static struct guest_access guest_do(struct guest *guest, u32 entry, u64 gpa, u64 rax)
{
	struct guest_access access = { .how = GUEST_RAM };
	struct kvm_run *kvm_run = guest->run;
	u64 answer = GUEST_MMIO_ANSWER;
	struct kvm_regs regs;
	int reason;

	reason = set_regs(guest, entry, gpa, rax);
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
	int rc = set_regs(guest, SPIN, gpa, 0);

	if (rc)
		return rc;
	rc = ioctl(guest->vcpu, KVM_RUN, 0);
	return rc ? -errno : (int)guest->run->exit_reason;
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

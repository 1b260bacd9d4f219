// SPDX-License-Identifier: GPL-2.0
/*
 * vCPUs: what they are made of, and the threads that run them.
 *
 * vCPU 0 starts where the boot protocol says. The others wait inside KVM until the
 * guest sends them INIT and SIPI, as processors do. A halted vCPU sleeps inside KVM,
 * too (that is KVM's interrupt controller at work), so a thread comes back only for
 * a port, for memory that is not there, or because something ended.
 *
 * Threads: one per vCPU, which alone uses its struct kvm_run; the main thread makes
 * one exception when it stops them: it sets immediate_exit, then sends SIGUSR1. A
 * thread that is in KVM_RUN is thrown out by the signal, one that is about to enter
 * it is turned back by immediate_exit, so none can miss it.
 */
#include "gvmm.h"

#include <asm/kvm_para.h>
#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define CPUID_MAX 1024
#define CR0_PE 1
#define CR0_ET 0x10
#define FLAGS_FIXED 2

/* ---- CPUID ------------------------------------------------------------ */

static struct kvm_cpuid2 *cpuid_alloc(unsigned int nr)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + nr * sizeof(*cpuid->entries));

	if (!cpuid)
		fail("CPUID: out of memory");
	cpuid->nent = nr;
	return cpuid;
}

static struct kvm_cpuid_entry2 *cpuid_find(struct kvm_cpuid2 *cpuid, uint32_t function,
					   uint32_t index)
{
	struct kvm_cpuid_entry2 *entry;
	unsigned int i;

	for (i = 0; i < cpuid->nent; i++) {
		entry = &cpuid->entries[i];
		if (entry->function == function && entry->index == index)
			return entry;
	}
	return NULL;
}

/* What KVM can give a guest on this host. */
void vcpu_setup(struct gvmm *vm)
{
	unsigned int nr = 128;

	for (;;) {
		vm->cpuid = cpuid_alloc(nr);
		if (!ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, vm->cpuid))
			return;
		if (errno != E2BIG || nr >= CPUID_MAX)
			fail("KVM_GET_SUPPORTED_CPUID: %s (%s)", strerror(errno),
			     error_name(errno));
		free(vm->cpuid);
		nr *= 2;
	}
}

/* How many bits a guest-physical address has. */
unsigned int vcpu_gpa_bits(const struct gvmm *vm)
{
	struct kvm_cpuid_entry2 *entry = cpuid_find(vm->cpuid, 0x80000008, 0);

	return entry && (entry->eax & 0xff) ? entry->eax & 0xff : 36;
}

/* The number of bits that tell @nr things apart. */
static unsigned int bits_for(unsigned int nr)
{
	unsigned int bits = 0;

	while (1U << bits < nr)
		bits++;
	return bits;
}

/* Leaves 0xb and 0x1f: one thread to a core, all cores in one package. */
static void cpuid_topology(struct kvm_cpuid2 *cpuid, const struct vcpu *vcpu,
			   uint32_t function)
{
	unsigned int nr = vcpu->vm->nr_vcpus;
	const uint32_t level[3][3] = {	/* eax, ebx, ecx */
		{ 0, 1, 0x100 },
		{ bits_for(nr), nr, 0x201 },
		{ 0, 0, 2 },
	};
	struct kvm_cpuid_entry2 *entry;
	unsigned int i, to = 0;

	if (!cpuid_find(cpuid, function, 0))
		return;
	for (i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function != function)
			cpuid->entries[to++] = cpuid->entries[i];
	}
	cpuid->nent = to;
	for (i = 0; i < ARRAY_SIZE(level); i++) {
		entry = &cpuid->entries[cpuid->nent++];
		*entry = (struct kvm_cpuid_entry2) {
			.function = function, .index = i,
			.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = level[i][0], .ebx = level[i][1], .ecx = level[i][2],
			.edx = vcpu->id,
		};
	}
}

/* Makes the processor one of nr_vcpus cores; the host's own topology is not ours. */
static void cpuid_fill(struct kvm_cpuid2 *cpuid, const struct vcpu *vcpu)
{
	const struct gvmm *vm = vcpu->vm;
	unsigned int bits = bits_for(vm->nr_vcpus);
	struct kvm_cpuid_entry2 *entry;
	unsigned int i;
	bool amd = false;

	for (i = 0; i < cpuid->nent; i++) {
		entry = &cpuid->entries[i];
		switch (entry->function) {
		case 0:
			amd = entry->ecx == 0x444d4163;	/* "cAMD" */
			break;
		case 1:
			entry->ebx &= 0xffff;
			entry->ebx |= vm->nr_vcpus << 16 | vcpu->id << 24;
			entry->ecx |= 1U << 31;		/* hypervisor */
			if (ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION,
				  KVM_CAP_TSC_DEADLINE_TIMER) > 0)
				entry->ecx |= 1U << 24;
			if (vm->nr_vcpus > 1)
				entry->edx |= 1U << 28;	/* more than one in a package */
			break;
		case 4:
		case 0x8000001d:
			if (!(entry->eax & 0x1f))
				break;
			/* A cache of level 3 is everybody's, any other one core's. */
			entry->eax &= 0x3fff;
			if ((entry->eax >> 5 & 7) == 3)
				entry->eax |= ((1U << bits) - 1) << 14;
			if (entry->function == 4)
				entry->eax |= ((1U << bits) - 1) << 26;
			break;
		case KVM_CPUID_FEATURES:
			/*
			 * The SVM that QEMU emulates in software may deliver an
			 * injected interrupt a second time, in the middle of its
			 * handler, unless the guest exits first. A handler begins
			 * with the EOI; let that be an exit, and not a bit in memory.
			 */
			entry->eax &= ~(1U << KVM_FEATURE_PV_EOI);
			break;
		case 0x80000001:
			if (amd && vm->nr_vcpus > 1)
				entry->ecx |= 1U << 1;	/* cores, not threads */
			break;
		case 0x80000008:
			entry->ecx = bits << 12 | (vm->nr_vcpus - 1);
			break;
		case 0x8000001e:
			entry->eax = vcpu->id;
			entry->ebx = vcpu->id;
			entry->ecx = 0;
			break;
		}
	}
	cpuid_topology(cpuid, vcpu, 0xb);
	cpuid_topology(cpuid, vcpu, 0x1f);
}

static void set_cpuid(struct vcpu *vcpu)
{
	const struct kvm_cpuid2 *host = vcpu->vm->cpuid;
	struct kvm_cpuid2 *cpuid = cpuid_alloc(host->nent + 8);

	memcpy(cpuid, host, sizeof(*host) + host->nent * sizeof(*host->entries));
	cpuid_fill(cpuid, vcpu);
	if (ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid))
		fail("vCPU %u: KVM_SET_CPUID2: %s (%s)", vcpu->id, strerror(errno),
		     error_name(errno));
	free(cpuid);
}

/* ---- creation --------------------------------------------------------- */

/* 32-bit protected mode, flat, no paging, as the boot protocol wants it. */
static void set_boot_registers(struct vcpu *vcpu)
{
	const struct kvm_segment code = {
		.limit = 0xffffffff, .selector = BOOT_CS, .type = 11,
		.present = 1, .s = 1, .db = 1, .g = 1,
	};
	const struct kvm_segment data = {
		.limit = 0xffffffff, .selector = BOOT_DS, .type = 3,
		.present = 1, .s = 1, .db = 1, .g = 1,
	};
	const struct kvm_regs regs = {
		.rip = vcpu->vm->entry, .rsi = GPA_ZERO_PAGE, .rflags = FLAGS_FIXED,
	};
	struct kvm_sregs sregs;

	if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs))
		goto failed;
	sregs.cr0 = CR0_PE | CR0_ET;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.gdt.base = GPA_BIOS + BIOS_GDT_OFFSET;
	sregs.gdt.limit = BIOS_GDT_LEN - 1;
	if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) ||
	    ioctl(vcpu->fd, KVM_SET_REGS, &regs))
		goto failed;
	return;

failed:
	fail("vCPU %u: its registers: %s (%s)", vcpu->id, strerror(errno),
	     error_name(errno));
}

void vcpu_create_all(struct gvmm *vm)
{
	int run_len = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct vcpu *vcpu;
	unsigned int i;

	if (run_len < 0)
		fail("KVM_GET_VCPU_MMAP_SIZE: %s (%s)", strerror(errno),
		     error_name(errno));
	for (i = 0; i < vm->nr_vcpus; i++) {
		vcpu = &vm->vcpus[i];
		vcpu->vm = vm;
		vcpu->id = i;
		vcpu->fd = ioctl(vm->vm_fd, KVM_CREATE_VCPU, (long)i);
		if (vcpu->fd < 0)
			fail("vCPU %u: KVM_CREATE_VCPU: %s (%s)", i, strerror(errno),
			     error_name(errno));
		vcpu->run = mmap(NULL, run_len, PROT_READ | PROT_WRITE, MAP_SHARED,
				 vcpu->fd, 0);
		if (vcpu->run == MAP_FAILED)
			fail("vCPU %u: mmap: %s (%s)", i, strerror(errno),
			     error_name(errno));
		set_cpuid(vcpu);
	}
	set_boot_registers(&vm->vcpus[0]);
}

/* ---- running ---------------------------------------------------------- */

/* Ends the machine, saying where the vCPU was. */
static void end_error(struct vcpu *vcpu, const char *what, unsigned long long detail)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) ||
	    ioctl(vcpu->fd, KVM_GET_SREGS, &sregs)) {
		gvmm_end(vcpu->vm, GVMM_ERROR, "vCPU %u: %s 0x%llx", vcpu->id, what,
			 detail);
		return;
	}
	gvmm_end(vcpu->vm, GVMM_ERROR,
		 "vCPU %u: %s 0x%llx, rip 0x%llx rsp 0x%llx rflags 0x%llx cs 0x%x at 0x%llx "
		 "cr0 0x%llx cr2 0x%llx cr3 0x%llx cr4 0x%llx efer 0x%llx",
		 vcpu->id, what, detail, regs.rip, regs.rsp, regs.rflags,
		 sregs.cs.selector, sregs.cs.base, sregs.cr0, sregs.cr2, sregs.cr3,
		 sregs.cr4, sregs.efer);
}

static void exit_io(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	uint32_t i;

	for (i = 0; i < run->io.count; i++) {
		ports_access(vcpu->vm, run->io.port,
			     run->io.direction == KVM_EXIT_IO_OUT, data, run->io.size);
		data += run->io.size;
	}
}

/*
 * What a device has to answer itself goes there. Where there is nothing, reads give ones
 * and writes go nowhere; so it is with the VGA window, for want of a VGA, and with writes
 * to the ROM. RAM must never come out here: that would be a map which is not what
 * memory.c described.
 */
static void exit_mmio(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	if (memory_is_ram(vcpu->vm, run->mmio.phys_addr)) {
		end_error(vcpu, "no memory behind guest RAM at", run->mmio.phys_addr);
		return;
	}
	if (memory_io(vcpu, run->mmio.phys_addr, run->mmio.is_write, run->mmio.data,
		      run->mmio.len))
		return;
	card_unanswered(vcpu->vm, run->mmio.phys_addr, run->mmio.is_write);
	if (!run->mmio.is_write)
		memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
}

static void handle_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;

	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		exit_io(vcpu);
		break;
	case KVM_EXIT_MMIO:
		exit_mmio(vcpu);
		break;
	case KVM_EXIT_INTR:
		break;
	case KVM_EXIT_SHUTDOWN:
		gvmm_end(vcpu->vm, GVMM_TRIPLE_FAULT, "guest triple-faulted (vCPU %u)",
			 vcpu->id);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		end_error(vcpu, "KVM internal error", run->internal.suberror);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		end_error(vcpu, "KVM cannot enter the guest, hardware reason",
			  run->fail_entry.hardware_entry_failure_reason);
		break;
	default:
		end_error(vcpu, "unexpected KVM exit", run->exit_reason);
		break;
	}
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *vcpu = arg;
	struct gvmm *vm = vcpu->vm;

	while (!atomic_load(&vm->ended)) {
		if (!ioctl(vcpu->fd, KVM_RUN, 0)) {
			handle_exit(vcpu);
			continue;
		}
		/* EAGAIN: a vCPU that waited for its SIPI has got it. */
		if (errno == EINTR || errno == EAGAIN)
			continue;
		gvmm_end(vm, GVMM_ERROR, "vCPU %u: KVM_RUN: %s (%s)", vcpu->id,
			 strerror(errno), error_name(errno));
	}
	return NULL;
}

static void on_kick(int sig)
{
	(void)sig;
}

void vcpu_start_all(struct gvmm *vm)
{
	struct sigaction action = { .sa_handler = on_kick };
	unsigned int i;
	int err;

	sigaction(SIGUSR1, &action, NULL);
	for (i = 0; i < vm->nr_vcpus; i++) {
		err = pthread_create(&vm->vcpus[i].thread, NULL, vcpu_thread,
				     &vm->vcpus[i]);
		if (err) {
			gvmm_end(vm, GVMM_ERROR, "vCPU %u: its thread: %s (%s)", i,
				 strerror(err), error_name(err));
			return;
		}
		vm->vcpus[i].started = true;
	}
}

/* Throws all vCPUs out of the guest and waits for their threads; the end is set. */
void vcpu_stop_all(struct gvmm *vm)
{
	struct vcpu *vcpu;
	unsigned int i;

	for (i = 0; i < vm->nr_vcpus; i++) {
		vcpu = &vm->vcpus[i];
		if (!vcpu->started)
			continue;
		*(volatile uint8_t *)&vcpu->run->immediate_exit = 1;
		pthread_kill(vcpu->thread, SIGUSR1);
	}
	for (i = 0; i < vm->nr_vcpus; i++) {
		if (vm->vcpus[i].started)
			pthread_join(vm->vcpus[i].thread, NULL);
	}
}

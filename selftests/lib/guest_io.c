// SPDX-License-Identifier: GPL-2.0
/*
 * The guest's side of I/O: instructions and loops, each followed by HLT, that the host
 * chooses from by setting RIP.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include "guest_io.h"

#define DATA_GPA (GUEST_IO_BASE + TEST_PAGE)

/* By length: at these indexes those of 1 byte. The loops begin at LOOP. */
#define CODE_STRIDE 16
#define IN 0
#define OUT 3
#define OUTS 6
#define LOOP 9

extern const unsigned char io_code[], io_code_end[];
asm(".pushsection .rodata\n"
    ".balign 16\n"
    "io_code:\n"
    "	in (%dx),%al; hlt\n"
    ".balign 16\n"
    "	in (%dx),%ax; hlt\n"
    ".balign 16\n"
    "	in (%dx),%eax; hlt\n"
    ".balign 16\n"
    "	out %al,(%dx); hlt\n"
    ".balign 16\n"
    "	out %ax,(%dx); hlt\n"
    ".balign 16\n"
    "	out %eax,(%dx); hlt\n"
    ".balign 16\n"
    "	rep outsb; hlt\n"
    ".balign 16\n"
    "	rep outsw; hlt\n"
    ".balign 16\n"
    "	rep outsl; hlt\n"
    ".balign 16\n"
    "1:	mov (%rdi),%rax\n"		/* GUEST_LOOP_READ */
    "	dec %rcx\n"
    "	jnz 1b\n"
    "	hlt\n"
    ".balign 16\n"
    "1:	mov %rax,(%rdi)\n"		/* GUEST_LOOP_WRITE */
    "	inc %rax\n"
    "	dec %rcx\n"
    "	jnz 1b\n"
    "	hlt\n"
    ".balign 16\n"
    "1:	in (%dx),%eax\n"		/* GUEST_LOOP_IN */
    "	dec %rcx\n"
    "	jnz 1b\n"
    "	hlt\n"
    ".balign 16\n"
    "1:	mov %rax,(%rdi)\n"		/* GUEST_LOOP_SPREAD */
    "	add %rdx,%rdi\n"
    "	dec %rcx\n"
    "	jnz 1b\n"
    "	hlt\n"
    ".balign 16\n"
    "1:	mov (%rsi),%r8\n"		/* GUEST_LOOP_WATCH: the sequence, */
    "	mov %rax,(%rdi)\n"
    "	mov (%rsi),%r9\n"
    "	inc %rax\n"
    "	xor %edx,%edx\n"		/* unknown */
    "	cmp %r8,%r9\n"
    "	jne 2f\n"
    "	shr %r8\n"
    "	jc 2f\n"
    "	and $7,%r8d\n"
    "	lea 1(%r8),%edx\n"		/* or known, */
    "2:	incq (%rbx,%rdx,8)\n"		/* of the writes of the vCPU */
    "	dec %rcx\n"
    "	jnz 1b\n"
    "	hlt\n"
    "io_code_end:\n"
    ".popsection");

void *guest_io_create(struct guest *guest)
{
	void *io = mmap(NULL, GUEST_IO_LEN, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (io == MAP_FAILED)
		return NULL;
	memcpy(io, io_code, io_code_end - io_code);
	if (!guest_set_slot(guest, GUEST_IO_SLOT, 0, GUEST_IO_BASE, GUEST_IO_PAGES, io))
		return io;
	munmap(io, GUEST_IO_LEN);
	return NULL;
}

static int set_regs(struct guest *guest, u32 entry, struct kvm_regs regs)
{
	regs.rip = GUEST_IO_BASE + entry * CODE_STRIDE;
	regs.rflags = 2;
	return ioctl(guest->vcpu, KVM_SET_REGS, &regs) ? -errno : 0;
}

int guest_io_run(struct guest *guest)
{
	int rc;

	do {
		rc = ioctl(guest->vcpu, KVM_RUN, 0);
	} while (rc && errno == EINTR);
	return rc ? -errno : (int)guest->run->exit_reason;
}

static u32 len_index(u32 len)
{
	return len == 1 ? 0 : len == 2 ? 1 : 2;
}

static u64 cut(u64 value, u32 len)
{
	return value & ((1ULL << (8 * len)) - 1);
}

/* Answers the exit for one access to a port, and tells of it. */
static void handle_port(struct kvm_run *run, struct guest_access *access)
{
	void *data = (char *)run + run->io.data_offset;
	u64 answer = GUEST_MMIO_ANSWER;

	access->how = GUEST_MMIO;
	access->mmio_gpa = run->io.port;
	access->mmio_len = run->io.size;
	access->mmio_write = run->io.direction == KVM_EXIT_IO_OUT;
	if (access->mmio_write)
		memcpy(&access->mmio_value, data, access->mmio_len);
	else
		memcpy(data, &answer, access->mmio_len);
}

static struct guest_access port_access(struct guest *guest, u32 entry, u32 port, u32 len,
				       u64 rax)
{
	struct guest_access access = { .how = GUEST_RAM };
	struct kvm_regs regs = { .rdx = port, .rax = rax };
	int reason;

	reason = set_regs(guest, entry + len_index(len), regs);
	if (reason)
		goto broken;
	reason = guest_io_run(guest);
	if (reason == KVM_EXIT_IO && guest->run->io.count == 1) {
		handle_port(guest->run, &access);
		reason = guest_io_run(guest);
	}
	if (reason != KVM_EXIT_HLT)
		goto broken;
	if (ioctl(guest->vcpu, KVM_GET_REGS, &regs)) {
		reason = -errno;
		goto broken;
	}
	access.value = cut(regs.rax, len);
	return access;

broken:
	access.how = GUEST_BROKEN;
	access.reason = reason;
	return access;
}

struct guest_access guest_in(struct guest *guest, u32 port, u32 len)
{
	/* RAX holds rubbish, so that nothing read is not taken for 0. */
	return port_access(guest, IN, port, len, 0xbad0bad0bad0bad0ULL);
}

struct guest_access guest_out(struct guest *guest, u32 port, u32 len, u32 value)
{
	return port_access(guest, OUT, port, len, value);
}

int guest_outs(struct guest *guest, u32 port, u32 len, u32 count, void *left)
{
	struct kvm_regs regs = { .rdx = port, .rsi = DATA_GPA, .rcx = count };
	struct kvm_run *run = guest->run;
	u32 nr = 0;
	int reason;

	if (set_regs(guest, OUTS + len_index(len), regs))
		return -1;
	while ((reason = guest_io_run(guest)) == KVM_EXIT_IO) {
		if (run->io.port != port || run->io.size != len ||
		    run->io.direction != KVM_EXIT_IO_OUT || run->io.count > count - nr)
			return -1;
		memcpy((char *)left + nr * len, (char *)run + run->io.data_offset,
		       run->io.count * len);
		nr += run->io.count;
	}
	return reason == KVM_EXIT_HLT ? (int)nr : -1;
}

int guest_loop(struct guest *guest, u32 nr, enum guest_loop loop, u64 gpa, u64 count,
	       u64 value)
{
	return set_regs(guest, LOOP + loop, (struct kvm_regs){
		.rdi = gpa,
		.rdx = loop == GUEST_LOOP_SPREAD ? value : gpa,
		.rcx = count,
		.rax = value,
		.rsi = DATA_GPA + offsetof(struct guest_watch, sequence),
		.rbx = DATA_GPA + offsetof(struct guest_watch, writes[nr]),
	});
}

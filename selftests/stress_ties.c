// SPDX-License-Identifier: GPL-2.0
/*
 * Commits that change what is tied to regions, under running vCPUs that use it: the part
 * of the stress test that looks at KVM's buses and at what answers there, as stress.c does
 * at memslots. Each scenario has a map, a loop that the vCPUs run, and a change made again
 * and again:
 *
 *	one_instruction		lock inc on a register whose device is swapped for another.
 *				It reads one and writes the other: torn
 *	ins_beside_commits	rep ins from a port whose device comes and goes: the VMM
 *				answers while it is gone. Bytes of neither are foreign
 *	creates_and_tied	RAM comes to X, whose device goes to Y, in a commit that else
 *				only creates. Who has seen the RAM finds the device at Y, and
 *				what it writes there arrives; and all of it back
 *	ties			registers, a doorbell and a policy are untied and tied, a
 *				region moves or is made anew, and memory changes, by one
 *				batch. All of it tells the same version; each ring and each
 *				increment is of one version
 *
 * It has two phases. In "apart" each operation is a commit of its own, and ties are made and
 * undone by their own commands, with some time between them. That is nothing the map
 * forbids, and things go wrong: they show that the scenario sees it. How many is chance, so
 * that only all of them together must show something. ins_beside_commits has one operation
 * and no such phase. In "batch" the change is one commit, and nothing may go wrong.
 *
 * SEED and COMMITS (of every "batch"; of the other at most 50) are taken from the
 * environment; the seed is that of the pauses. PATIENCE is how many times slower than usual
 * things may be.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "gpamap_util.h"
#include "guest_io.h"
#include "tap.h"
#include "vcpu.h"

#define PAGE TEST_PAGE
#define NR_VCPUS 2
#define NR_SLOTS 64
#define MAX_OPS 64
/* Of a phase that is to show something, and is slow. */
#define MAX_APART 50

/* Where things are seen. */
#define X 0x10000000ULL
#define Y 0x10100000ULL
#define Z 0x20000000ULL

/* Host memory of a map, in pages. */
#define RAM_PAGES 128

/* Of the map. The last is the first of many. */
enum { ROOT = 1, PORTS, DEVICE, OTHER, BACK, MOVED, RAM, WINDOW, HERE, THERE, MORE };
enum { SPACE = 1, PORT_SPACE = 2 };

/* What goes wrong. */
enum event {
	EXIT,				/* nobody is there to answer */
	TORN,				/* one instruction, two maps */
	LOST,				/* a write that arrived nowhere */
	FOREIGN,			/* a byte that nobody answered */
	WRONG,				/* a read of another map than those before */
	NR_EVENTS,
};

static const struct {
	const char *name;
	const char *unit;
} event_names[] = {
	{ "exits", "exits" },
	{ "torn_reads", "instructions" },
	{ "lost_writes", "writes" },
	{ "foreign_bytes", "bytes" },
	{ "wrong_reads", "reads" },
};

/* A vCPU's own, in memory that no commit changes. */
struct mail {
	u64 done;			/* increments, strings, steps, writes to the doorbell */
	u64 found;			/* creates_and_tied: at Y */
	/* Of ties: */
	u64 counted;			/* increments */
	u64 backwards;			/* version older than before */
	u64 compared;
	u64 known[2];			/* writes to the doorbell, by version */
	u64 unknown;
	u64 wrong[5];
	u64 unused[19];
};

struct phase {
	const struct scenario *scenario;
	char name[64];
	bool apart;
	u32 nr_commits;
	struct rnd rnd;
	struct guest guest;
	struct vcpu vcpus[NR_VCPUS];
	u32 nr_vcpus;
	struct worker {
		struct phase *phase;
		u32 index;
	} workers[NR_VCPUS];
	void *io;			/* the guest's code and mail */
	int fd;
	char *ram;
	struct gpamap_op ops[MAX_OPS];	/* of the change */
	u32 nr;
	/* What ops refer to, the page of each device, and what was found in it. */
	struct gpamap_register regs[3][1 + NR_VCPUS];
	volatile u64 *pages[2];
	struct gpamap_op bell;		/* tied last, in "apart" */
	int bells[2];
	u64 version;
	u64 counts[NR_VCPUS];
	u64 work;			/* of all vCPUs: of scenario->work */
	u64 events[NR_EVENTS];
	u64 told;
};

struct scenario {
	const char *name;
	const char *work;		/* what the vCPUs do, in the plural */
	bool has_apart;
	bool needs_ties;		/* batches with operations on ties */
	const unsigned char *code;	/* NULL: ->start does without */
	const unsigned char *code_end;
	/* Fills ->ops with the map, with what is tied to it, with a change (from 1 on). */
	void (*map)(struct phase *phase);
	void (*ties)(struct phase *phase);
	void (*change)(struct phase *phase, u32 n);
	/* Before the vCPUs run, after a change, and when they have stopped. 0 or -errno. */
	int (*ready)(struct phase *phase);
	int (*look)(struct phase *phase, u32 n);
	int (*end)(struct phase *phase);
	/* Sets a vCPU up. */
	int (*start)(struct phase *phase, struct worker *worker, struct vcpu *vcpu);
};

/* -- odds and ends ---------------------------------------------------------- */

/* @n events; of a batch the first few are told in words. */
__attribute__((format(printf, 4, 5)))
static void event(struct phase *phase, enum event what, u64 n, const char *format, ...)
{
	char text[256];
	va_list args;

	if (!n)
		return;
	__atomic_fetch_add(&phase->events[what], n, __ATOMIC_RELAXED);
	if (phase->apart || __atomic_fetch_add(&phase->told, 1, __ATOMIC_RELAXED) >= 10)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	printf("# %s: %s: %s\n", phase->name, event_names[what].name, text);
}

static void add_op(struct phase *phase, struct gpamap_op op)
{
	phase->ops[phase->nr++] = op;
}

static volatile struct mail *mail_of(const struct phase *phase, u32 index)
{
	return (struct mail *)((char *)phase->io + PAGE) + index;
}

static u64 mail_gpa(u32 index)
{
	return GUEST_IO_BASE + PAGE + index * sizeof(struct mail);
}

static u64 *ram_page(const struct phase *phase, u32 page)
{
	return (u64 *)(phase->ram + page * PAGE);
}

static struct gpamap_register reg(u32 offset, u32 len, u32 kind, u64 value)
{
	return (struct gpamap_register){
		.offset = offset,
		.len = len,
		.kind = kind,
		.value = value,
	};
}

/* The page of a region's registers; NULL with errno. */
static volatile u64 *map_registers(const struct phase *phase, u32 region)
{
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, phase->fd,
			  region * PAGE);

	return page == MAP_FAILED ? NULL : page;
}

static void unmap_registers(volatile u64 *page)
{
	if (page)
		munmap((void *)page, PAGE);
}

static int set_regs(struct vcpu *vcpu, struct kvm_regs regs)
{
	regs.rip = GUEST_IO_BASE;
	regs.rflags = 2;
	return ioctl(vcpu->cpu.vcpu, KVM_SET_REGS, &regs) ? -errno : 0;
}

/* Now and then: until each vCPU has done something. 0, or -EPROTO if one has ended. */
static int await_work(struct phase *phase, u32 n)
{
	u64 done[NR_VCPUS];
	u32 i;

	if (n % 8 != 7)
		return 0;
	for (i = 0; i < NR_VCPUS; i++)
		done[i] = mail_of(phase, i)->done;
	for (i = 0; i < NR_VCPUS; i++)
		while (mail_of(phase, i)->done == done[i]) {
			if (vcpu_read(phase->vcpus[i].ended))
				return -EPROTO;
			usleep(50);
		}
	return 0;
}

/* -- changes ---------------------------------------------------------------- */

static int command_doorbell(int fd, const struct gpamap_op *op, u32 flags)
{
	struct gpamap_doorbell cmd = {
		.size = sizeof(cmd),
		.flags = op->flags | flags,
		.region = op->id,
		.len = op->len,
		.offset = op->offset,
		.value = op->value,
		.fd = op->fd,
	};

	return map_ioctl(fd, GPAMAP_DOORBELL, &cmd);
}

static int command_registers(int fd, const struct gpamap_op *op)
{
	struct gpamap_registers cmd = {
		.size = sizeof(cmd),
		.flags = op->code == GPAMAP_OP_UNTIE ? GPAMAP_REGISTERS_REMOVE : 0,
		.region = op->id,
		.nr = op->nr,
		.register_size = op->item_size,
		.registers = op->items,
	};

	return map_ioctl(fd, GPAMAP_REGISTERS, &cmd);
}

static int command_policy(int fd, const struct gpamap_op *op)
{
	struct gpamap_policy cmd = {
		.size = sizeof(cmd),
		.region = op->id,
		.policy = op->kind,
	};

	return map_ioctl(fd, GPAMAP_POLICY, &cmd);
}

/* An operation by itself, one on a tie as the command of its name. */
static int one_op(struct phase *phase, const struct gpamap_op *op)
{
	int rc = 0;

	switch (op->code) {
	case GPAMAP_OP_DOORBELL:
		phase->bell = *op;
		return command_doorbell(phase->fd, op, 0);
	case GPAMAP_OP_REGISTERS:
		return command_registers(phase->fd, op);
	case GPAMAP_OP_POLICY:
		return command_policy(phase->fd, op);
	case GPAMAP_OP_UNTIE:
		if (op->mask & GPAMAP_TIE_DOORBELLS)
			rc = command_doorbell(phase->fd, &phase->bell,
					      GPAMAP_DOORBELL_REMOVE);
		if (!rc && op->mask & GPAMAP_TIE_REGISTERS)
			rc = command_registers(phase->fd, op);
		return rc;
	default:
		return _test_cmd_apply(phase->fd, op, 1, NULL, NULL);
	}
}

static int apart(struct phase *phase, bool pauses)
{
	u32 i;
	int rc = 0;

	for (i = 0; !rc && i < phase->nr; i++) {
		rc = one_op(phase, &phase->ops[i]);
		if (rc)
			printf("# %s: operation %u, code %u: %s\n", phase->name, i,
			       phase->ops[i].code, strerror(-rc));
		if (pauses)
			usleep(rnd_below(&phase->rnd, 200));
	}
	return rc;
}

static int batch(struct phase *phase)
{
	u32 failed;
	int rc = _test_cmd_apply(phase->fd, phase->ops, phase->nr, &failed, NULL);

	if (rc)
		printf("# %s: operation %d: %s\n", phase->name, (int)failed, strerror(-rc));
	return rc;
}

/* -- one_instruction -------------------------------------------------------- */

/* Above the count in each register: which of the two devices it belongs to. */
#define TAG_SHIFT 32

extern const unsigned char inc_code[], inc_code_end[];
asm(".pushsection .rodata\n"
    "inc_code:\n"
    "1:	lock incq (%rdi)\n"
    "	incq (%rbp)\n"
    "	jmp 1b\n"
    "inc_code_end:\n"
    ".popsection");

static void inc_map(struct phase *phase)
{
	add_op(phase, op_io(DEVICE, PAGE - 1));
	add_op(phase, op_io(OTHER, PAGE - 1));
	add_op(phase, op_enable(OTHER, false));
	add_op(phase, op_add(DEVICE, ROOT, X, 0));
	add_op(phase, op_add(OTHER, ROOT, X, 0));
}

static void inc_ties(struct phase *phase)
{
	u32 i, k;

	for (k = 0; k < 2; k++) {
		for (i = 0; i < NR_VCPUS; i++)
			phase->regs[k][i] = reg(8 * i, 8, GPAMAP_REGISTER_READWRITE,
						(k + 1ULL) << TAG_SHIFT);
		add_op(phase, op_registers(k ? OTHER : DEVICE, phase->regs[k], NR_VCPUS));
	}
}

static int inc_ready(struct phase *phase)
{
	phase->pages[0] = map_registers(phase, DEVICE);
	phase->pages[1] = map_registers(phase, OTHER);
	return phase->pages[0] && phase->pages[1] ? 0 : -errno;
}

static int inc_start(struct phase *phase, struct worker *worker, struct vcpu *vcpu)
{
	(void)phase;
	return set_regs(vcpu, (struct kvm_regs){
		.rdi = X + 8 * worker->index,
		.rbp = mail_gpa(worker->index),
	});
}

static void inc_change(struct phase *phase, u32 n)
{
	add_op(phase, op_enable(n & 1 ? DEVICE : OTHER, false));
	add_op(phase, op_enable(n & 1 ? OTHER : DEVICE, true));
}

static int inc_look(struct phase *phase, u32 n)
{
	u32 i, k;

	for (i = 0; i < NR_VCPUS; i++)
		for (k = 0; k < 2; k++) {
			volatile u64 *p = &phase->pages[k][i];
			u64 is = *p;

			if (is >> TAG_SHIFT == k + 1)
				continue;
			event(phase, TORN, 1, "commit %u, vCPU %u: device %u has 0x%llx",
			      n, i, k + 1, (unsigned long long)is);
			*p = (k + 1ULL) << TAG_SHIFT;
		}
	return await_work(phase, n);
}

/* How many of a vCPU's @done increments are not in @sum; the last may not be counted yet. */
static u64 missing(u64 done, u64 sum)
{
	return sum == done + 1 ? 0 : sum > done ? sum - done : done - sum;
}

static int inc_end(struct phase *phase)
{
	u64 done, sum;
	u32 i;

	for (i = 0; i < NR_VCPUS; i++) {
		done = mail_of(phase, i)->done;
		phase->work += done;
		/* A torn one takes a whole count with it, and says so itself. */
		if (phase->events[TORN] || phase->events[EXIT])
			continue;
		sum = (u32)phase->pages[0][i] + (u32)phase->pages[1][i];
		event(phase, LOST, missing(done, sum), "vCPU %u: %llu increments of %llu", i,
		      (unsigned long long)sum, (unsigned long long)done);
	}
	return 0;
}

/* -- ins_beside_commits ----------------------------------------------------- */

#define INS_LEN PAGE
#define FROM_DEVICE 0xaa
#define FROM_VMM 0xbb
#define FROM_NOBODY 0xcc		/* not written at all */

static unsigned char *ins_buffer(const struct phase *phase, u32 index)
{
	return (unsigned char *)phase->guest.mem + (GUEST_DATA - GUEST_BASE) + index * INS_LEN;
}

static void ins_map(struct phase *phase)
{
	add_op(phase, op_container(PORTS, 0xffff));
	add_op(phase, op_io(DEVICE, 0));
	add_op(phase, op_add(DEVICE, PORTS, GUEST_DATA_PORT, 0));
	add_op(phase, op_space(PORT_SPACE, GPAMAP_SPACE_IO, PORTS));
}

static void ins_ties(struct phase *phase)
{
	phase->regs[0][0] = reg(0, 1, GPAMAP_REGISTER_READONLY, FROM_DEVICE);
	add_op(phase, op_registers(DEVICE, phase->regs[0], 1));
}

static int ins_start(struct phase *phase, struct worker *worker, struct vcpu *vcpu)
{
	memset(ins_buffer(phase, worker->index), FROM_NOBODY, INS_LEN);
	return guest_start(&vcpu->cpu, GUEST_INS, GUEST_DATA + worker->index * INS_LEN, 0,
			   INS_LEN);
}

/* A string has come to its end. */
static bool ins_exit(struct vcpu *vcpu)
{
	struct worker *worker = vcpu->arg;
	unsigned char *buffer = ins_buffer(worker->phase, worker->index);
	volatile struct mail *mail = mail_of(worker->phase, worker->index);
	u32 i, foreign = 0;

	for (i = 0; i < INS_LEN; i++)
		foreign += buffer[i] != FROM_DEVICE && buffer[i] != FROM_VMM;
	event(worker->phase, FOREIGN, foreign, "vCPU %u, string %llu: %u of %lu", worker->index,
	      (unsigned long long)mail->done, foreign, INS_LEN);
	mail->done++;
	return !ins_start(worker->phase, worker, vcpu);
}

static void ins_change(struct phase *phase, u32 n)
{
	add_op(phase, op_enable(DEVICE, !(n & 1)));
}

static int sum_work(struct phase *phase)
{
	u32 i;

	for (i = 0; i < NR_VCPUS; i++)
		phase->work += mail_of(phase, i)->done;
	return 0;
}

/* -- creates_and_tied ------------------------------------------------------- */

/* More RAM that comes with it, so that the commit takes its time. */
#define NR_MORE 8
#define IS_DEVICE 1
#define IS_RAM 2

/* A step: the other is at X. A number is written where the device must be then. */
extern const unsigned char mix_code[], mix_code_end[];
asm(".pushsection .rodata\n"
    "mix_code:\n"
    "1:	mov (%rdi),%rax\n"
    "	cmp $2,%rax\n"
    "	jne 1b\n"
    "	inc %rcx\n"
    "	mov %rcx,(%rsi,%rdx)\n"
    "	mov (%rsi),%rax\n"
    "	mov %rax,8(%rbp)\n"
    "	mov %rcx,(%rbp)\n"
    "2:	mov (%rdi),%rax\n"
    "	cmp $1,%rax\n"
    "	jne 2b\n"
    "	inc %rcx\n"
    "	mov %rcx,(%rdi,%rdx)\n"
    "	mov (%rsi),%rax\n"
    "	mov %rax,8(%rbp)\n"
    "	mov %rcx,(%rbp)\n"
    "	jmp 1b\n"
    "mix_code_end:\n"
    ".popsection");

static void mix_map(struct phase *phase)
{
	u32 i;

	*ram_page(phase, 0) = IS_RAM;
	add_op(phase, op_io(DEVICE, PAGE - 1));
	add_op(phase, op_ram(RAM, PAGE - 1, ram_page(phase, 0)));
	add_op(phase, op_enable(RAM, false));
	add_op(phase, op_reserved(BACK, PAGE - 1));
	add_op(phase, op_add(DEVICE, ROOT, X, 0));
	add_op(phase, op_add(RAM, ROOT, X, 1));
	add_op(phase, op_add(BACK, ROOT, Y, -1));
	for (i = 0; i < NR_MORE; i++) {
		add_op(phase, op_ram(MORE + i, PAGE - 1, ram_page(phase, 2 + 2 * i)));
		add_op(phase, op_enable(MORE + i, false));
		add_op(phase, op_add(MORE + i, ROOT, Z + 2 * i * PAGE, 0));
	}
}

static void mix_ties(struct phase *phase)
{
	u32 i;

	phase->regs[0][0] = reg(0, 8, GPAMAP_REGISTER_READONLY, IS_DEVICE);
	for (i = 0; i < NR_VCPUS; i++)
		phase->regs[0][1 + i] = reg(8 + 8 * i, 8, GPAMAP_REGISTER_READWRITE, 0);
	add_op(phase, op_registers(DEVICE, phase->regs[0], 1 + NR_VCPUS));
	add_op(phase, op_policy(BACK, GPAMAP_POLICY_ZEROES));
}

static int mix_ready(struct phase *phase)
{
	phase->pages[0] = map_registers(phase, DEVICE);
	return phase->pages[0] ? 0 : -errno;
}

static int mix_start(struct phase *phase, struct worker *worker, struct vcpu *vcpu)
{
	(void)phase;
	return set_regs(vcpu, (struct kvm_regs){
		.rdi = X,
		.rsi = Y,
		.rdx = 8 + 8 * worker->index,
		.rbp = mail_gpa(worker->index),
	});
}

static void mix_change(struct phase *phase, u32 n)
{
	u32 i;

	add_op(phase, op_enable(RAM, n & 1));
	add_op(phase, op_at(DEVICE, n & 1 ? Y : X));
	for (i = 0; i < NR_MORE; i++)
		add_op(phase, op_enable(MORE + i, n & 1));
}

static int mix_look(struct phase *phase, u32 n)
{
	u64 want = n & 1 ? IS_DEVICE : 0, found, written;
	u32 i;

	for (i = 0; i < NR_VCPUS; i++) {
		volatile struct mail *mail = mail_of(phase, i);

		while (__atomic_load_n(&mail->done, __ATOMIC_ACQUIRE) != n) {
			if (vcpu_read(phase->vcpus[i].ended))
				return -EPROTO;
			usleep(50);
		}
		found = mail->found;
		written = phase->pages[0][1 + i];
		event(phase, WRONG, found != want, "commit %u, vCPU %u: 0x%llx at Y", n, i,
		      (unsigned long long)found);
		event(phase, LOST, written != n, "commit %u, vCPU %u: the device has 0x%llx",
		      n, i, (unsigned long long)written);
	}
	return 0;
}

/* -- ties ------------------------------------------------------------------- */

/* A memory page for each version is written anew after so many. */
#define NR_VERSIONS 64
#define AT_BACK NR_VERSIONS		/* memory behind MOVED: zeroes */

/* From X on. The loop has these numbers, too. */
#define AT_DEVICE 0			/* the version, and at COUNT_AT each vCPU's count */
#define AT_OTHER 0x2000			/* the version, and at BELL_AT a doorbell */
#define AT_WINDOW 0x4000		/* memory: the version */
#define AT_POLICY 0x6000		/* ones in odd versions, zeroes in even ones */
#define AT_HERE 0x8000			/* the version if it is odd, else zeroes */
#define AT_THERE 0xa000			/* if it is even */
#define BELL_AT 8
#define COUNT_AT 64

static const char *const places[] = {
	"other device", "memory", "policy", "moved device here", "moved device there",
};

/* If the version is the same in the end, no commit was between. */
#define COMPARE(_is, _wrong)							\
    "	xor %edx,%edx\n"							\
    "	cmp " _is "\n"								\
    "	setne %dl\n"								\
    "	add %rdx," _wrong "(%rbp)\n"

extern const unsigned char ties_code[], ties_code_end[];
asm(".pushsection .rodata\n"
    "ties_code:\n"
    "1:	mov (%rdi),%r8\n"
    "	mov 0x2000(%rdi),%r9\n"
    "	mov 0x4000(%rdi),%r10\n"
    "	mov 0x6000(%rdi),%r11\n"
    "	mov 0x8000(%rdi),%r12\n"
    "	mov 0xa000(%rdi),%r13\n"
    "	mov %r8,0x2008(%rdi)\n"
    "	incq (%rbp)\n"
    "	lock incq (%rsi)\n"
    "	incq 16(%rbp)\n"
    "	mov (%rdi),%rax\n"
    "	xor %edx,%edx\n"
    "	cmp %r14,%rax\n"
    "	setb %dl\n"
    "	add %rdx,24(%rbp)\n"
    "	mov %rax,%r14\n"
    "	cmp %r8,%rax\n"
    "	jne 2f\n"
    "	incq 32(%rbp)\n"
    "	mov %r8,%rcx\n"
    "	and $1,%ecx\n"
    "	incq 40(%rbp,%rcx,8)\n"
    COMPARE("%r9,%r8", "64")
    COMPARE("%r10,%r8", "72")
    "	neg %rcx\n"
    COMPARE("%r11,%rcx", "80")
    "	and %r8,%rcx\n"
    COMPARE("%r12,%rcx", "88")
    "	xor %r8,%rcx\n"
    COMPARE("%r13,%rcx", "96")
    "	jmp 1b\n"
    "2:	incq 56(%rbp)\n"
    "	jmp 1b\n"
    "ties_code_end:\n"
    ".popsection");

_Static_assert(offsetof(struct mail, wrong) == 64, "ties_code");

static u64 ties_moved_at(const struct phase *phase)
{
	return X + (phase->version & 1 ? AT_HERE : AT_THERE);
}

static void ties_map(struct phase *phase)
{
	phase->version = 2;
	*ram_page(phase, phase->version) = phase->version;
	add_op(phase, op_io(DEVICE, PAGE - 1));
	add_op(phase, op_io(OTHER, PAGE - 1));
	add_op(phase, op_io(MOVED, PAGE - 1));
	add_op(phase, op_reserved(BACK, PAGE - 1));
	add_op(phase, op_ram(RAM, NR_VERSIONS * PAGE - 1, ram_page(phase, 0)));
	add_op(phase, op_alias(WINDOW, RAM, phase->version * PAGE, PAGE - 1));
	add_op(phase, op_ram(HERE, PAGE - 1, ram_page(phase, AT_BACK)));
	add_op(phase, op_ram(THERE, PAGE - 1, ram_page(phase, AT_BACK + 2)));
	add_op(phase, op_add(DEVICE, ROOT, X + AT_DEVICE, 0));
	add_op(phase, op_add(OTHER, ROOT, X + AT_OTHER, 0));
	add_op(phase, op_add(WINDOW, ROOT, X + AT_WINDOW, 0));
	add_op(phase, op_add(BACK, ROOT, X + AT_POLICY, 0));
	add_op(phase, op_add(HERE, ROOT, X + AT_HERE, 0));
	add_op(phase, op_add(THERE, ROOT, X + AT_THERE, 0));
	add_op(phase, op_add(MOVED, ROOT, ties_moved_at(phase), 1));
}

/* Registers of all three devices, which tell the version. */
static void ties_set_registers(struct phase *phase)
{
	u32 i, k;

	for (k = 0; k < 3; k++)
		phase->regs[k][0] = reg(0, 8, GPAMAP_REGISTER_READONLY, phase->version);
	for (i = 0; i < NR_VCPUS; i++)
		phase->regs[0][1 + i] = reg(COUNT_AT + 8 * i, 8, GPAMAP_REGISTER_READWRITE,
					    phase->version << TAG_SHIFT);
}

static void ties_add_bell(struct phase *phase)
{
	add_op(phase, op_doorbell(OTHER, BELL_AT, 8, phase->bells[phase->version & 1]));
}

static void ties_add_policy(struct phase *phase)
{
	add_op(phase, op_policy(BACK, phase->version & 1 ? GPAMAP_POLICY_ONES :
				GPAMAP_POLICY_ZEROES));
}

static void ties_ties(struct phase *phase)
{
	ties_set_registers(phase);
	add_op(phase, op_registers(DEVICE, phase->regs[0], 1 + NR_VCPUS));
	add_op(phase, op_registers(OTHER, phase->regs[1], 1));
	add_op(phase, op_registers(MOVED, phase->regs[2], 1));
	ties_add_bell(phase);
	ties_add_policy(phase);
}

static int ties_ready(struct phase *phase)
{
	phase->pages[0] = map_registers(phase, DEVICE);
	return phase->pages[0] ? 0 : -errno;
}

static int ties_start(struct phase *phase, struct worker *worker, struct vcpu *vcpu)
{
	(void)phase;
	return set_regs(vcpu, (struct kvm_regs){
		.rdi = X,
		.rsi = X + AT_DEVICE + COUNT_AT + 8 * worker->index,
		.rbp = mail_gpa(worker->index),
	});
}

static void ties_change(struct phase *phase, u32 n)
{
	u32 page = ++phase->version % NR_VERSIONS;

	/* Out of sight until the commit. */
	*ram_page(phase, page) = phase->version;
	ties_set_registers(phase);
	add_op(phase, op_untie(DEVICE, GPAMAP_TIE_REGISTERS));
	add_op(phase, op_registers(DEVICE, phase->regs[0], 1 + NR_VCPUS));
	add_op(phase, op_untie(OTHER, GPAMAP_TIE_DOORBELLS | GPAMAP_TIE_REGISTERS));
	ties_add_bell(phase);
	add_op(phase, op_registers(OTHER, phase->regs[1], 1));
	add_op(phase, op_untie(MOVED, GPAMAP_TIE_REGISTERS));
	if (n % 4) {
		add_op(phase, op_at(MOVED, ties_moved_at(phase)));
	} else {
		/* Another device of the same name. */
		add_op(phase, op_del(MOVED));
		add_op(phase, op_destroy(MOVED));
		add_op(phase, op_io(MOVED, PAGE - 1));
		add_op(phase, op_add(MOVED, ROOT, ties_moved_at(phase), 1));
	}
	add_op(phase, op_registers(MOVED, phase->regs[2], 1));
	ties_add_policy(phase);
	add_op(phase, op_offset(WINDOW, page * PAGE));
}

/* What was counted in a version that is over. */
static void ties_count(struct phase *phase, u64 version)
{
	u32 i;

	for (i = 0; i < NR_VCPUS; i++) {
		u64 is = phase->pages[0][COUNT_AT / 8 + i];

		event(phase, TORN, is >> TAG_SHIFT != version,
		      "version %llu, vCPU %u: the register has 0x%llx",
		      (unsigned long long)version, i, (unsigned long long)is);
		phase->counts[i] += (u32)is;
	}
}

static int ties_look(struct phase *phase, u32 n)
{
	volatile u64 *page = map_registers(phase, DEVICE);

	if (!page)
		return -errno;
	ties_count(phase, phase->version - 1);
	unmap_registers(phase->pages[0]);
	phase->pages[0] = page;
	return await_work(phase, n);
}

/* Each vCPU may have one write more than it has counted. */
static void ties_check_bells(struct phase *phase)
{
	u64 rung = 0, unknown = 0, known[2] = { 0, 0 }, bells[2] = { 0, 0 };
	u32 i, k;

	for (i = 0; i < NR_VCPUS; i++) {
		volatile struct mail *mail = mail_of(phase, i);

		rung += mail->done;
		/* Those under way, too. */
		unknown += mail->unknown + 1;
		for (k = 0; k < 2; k++)
			known[k] += mail->known[k];
	}
	for (k = 0; k < 2; k++)
		if (read(phase->bells[k], &bells[k], sizeof(bells[k])) < 0)
			bells[k] = 0;
	if (bells[0] + bells[1] < rung || bells[0] + bells[1] > rung + NR_VCPUS)
		event(phase, LOST, missing(rung, bells[0] + bells[1]),
		      "%llu and %llu rings, %llu writes", (unsigned long long)bells[0],
		      (unsigned long long)bells[1], (unsigned long long)rung);
	for (k = 0; k < 2; k++)
		event(phase, WRONG, bells[k] < known[k] || bells[k] > known[k] + unknown,
		      "doorbell %u rang %llu times, %llu to %llu were meant", k,
		      (unsigned long long)bells[k], (unsigned long long)known[k],
		      (unsigned long long)(known[k] + unknown));
}

static int ties_end(struct phase *phase)
{
	u32 i, k;

	ties_count(phase, phase->version);
	ties_check_bells(phase);
	for (i = 0; i < NR_VCPUS; i++) {
		volatile struct mail *mail = mail_of(phase, i);

		phase->work += mail->compared;
		event(phase, WRONG, mail->backwards, "vCPU %u: %llu versions older than before",
		      i, (unsigned long long)mail->backwards);
		for (k = 0; k < ARRAY_SIZE(places); k++)
			event(phase, WRONG, mail->wrong[k], "vCPU %u: %s: %llu", i, places[k],
			      (unsigned long long)mail->wrong[k]);
		event(phase, LOST, missing(mail->counted, phase->counts[i]),
		      "vCPU %u: %llu increments of %llu", i,
		      (unsigned long long)phase->counts[i],
		      (unsigned long long)mail->counted);
	}
	return 0;
}

/* -- phases ----------------------------------------------------------------- */

static const struct scenario scenarios[] = {
	{
		.name = "one_instruction", .work = "increments", .has_apart = true,
		.code = inc_code, .code_end = inc_code_end,
		.map = inc_map, .ties = inc_ties, .ready = inc_ready, .start = inc_start,
		.change = inc_change, .look = inc_look, .end = inc_end,
	}, {
		.name = "ins_beside_commits", .work = "strings",
		.map = ins_map, .ties = ins_ties, .start = ins_start,
		.change = ins_change, .look = await_work, .end = sum_work,
	}, {
		.name = "creates_and_tied", .work = "steps", .has_apart = true,
		.code = mix_code, .code_end = mix_code_end,
		.map = mix_map, .ties = mix_ties, .ready = mix_ready, .start = mix_start,
		.change = mix_change, .look = mix_look, .end = sum_work,
	}, {
		.name = "ties", .work = "comparisons", .has_apart = true, .needs_ties = true,
		.code = ties_code, .code_end = ties_code_end,
		.map = ties_map, .ties = ties_ties, .ready = ties_ready, .start = ties_start,
		.change = ties_change, .look = ties_look, .end = ties_end,
	},
};

/* Whether the vCPU can go on. */
static bool on_exit_of(struct vcpu *vcpu)
{
	struct worker *worker = vcpu->arg;
	struct kvm_run *run = vcpu->cpu.run;

	switch (run->exit_reason) {
	case KVM_EXIT_MMIO:
		event(worker->phase, EXIT, 1, "vCPU %u: %s of %u bytes at 0x%llx",
		      worker->index, run->mmio.is_write ? "write" : "read", run->mmio.len,
		      run->mmio.phys_addr);
		memset(run->mmio.data, 0, sizeof(run->mmio.data));
		return true;
	case KVM_EXIT_IO:
		if (guest_left_by_out(&vcpu->cpu, GUEST_PORT))
			return ins_exit(vcpu);
		if (run->io.port != GUEST_DATA_PORT || run->io.direction != KVM_EXIT_IO_IN)
			return false;
		memset((char *)run + run->io.data_offset, FROM_VMM,
		       run->io.size * run->io.count);
		return true;
	default:
		return false;
	}
}

/* 0 or -errno; to be destroyed in any case. */
static int vm_create(struct phase *phase)
{
	u32 i;
	int rc;

	rc = guest_create(&phase->guest);
	if (rc)
		return rc;
	phase->io = guest_io_create(&phase->guest);
	if (!phase->io)
		return -ENOMEM;
	if (phase->scenario->code)
		memcpy(phase->io, phase->scenario->code,
		       phase->scenario->code_end - phase->scenario->code);
	for (i = 0; i < NR_VCPUS; i++) {
		struct vcpu *vcpu = &phase->vcpus[i];

		if (i)
			rc = vcpu_add(vcpu, &phase->guest, i);
		else
			vcpu_first(vcpu, &phase->guest);
		phase->nr_vcpus++;
		if (rc)
			return rc;
		vcpu->on_exit = on_exit_of;
		vcpu->arg = &phase->workers[i];
		phase->workers[i].phase = phase;
		phase->workers[i].index = i;
	}
	return 0;
}

static void vm_destroy(struct phase *phase)
{
	/* The first is the guest's. */
	while (phase->nr_vcpus > 1)
		vcpu_destroy(&phase->vcpus[--phase->nr_vcpus]);
	guest_destroy(&phase->guest);
	if (phase->io)
		munmap(phase->io, GUEST_IO_LEN);
}

static int map_create(struct phase *phase)
{
	const struct scenario *scenario = phase->scenario;
	u32 i;
	int rc;

	phase->ram = mmap(NULL, RAM_PAGES * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (phase->ram == MAP_FAILED) {
		phase->ram = NULL;
		return -errno;
	}
	for (i = 0; i < 2; i++) {
		phase->bells[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (phase->bells[i] < 0)
			return -errno;
	}
	phase->fd = map_open();
	if (phase->fd < 0)
		return phase->fd;
	add_op(phase, op_container(ROOT, U64_MAX));
	add_op(phase, op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	scenario->map(phase);
	rc = batch(phase);
	if (!rc)
		rc = _test_cmd_attach(phase->fd, phase->guest.vm, 0, NR_SLOTS);
	if (rc)
		return rc;
	phase->nr = 0;
	scenario->ties(phase);
	rc = apart(phase, false);
	return rc ?: scenario->ready ? scenario->ready(phase) : 0;
}

static void map_destroy(struct phase *phase)
{
	u32 i;

	for (i = 0; i < 2; i++) {
		unmap_registers(phase->pages[i]);
		if (phase->bells[i] >= 0)
			close(phase->bells[i]);
	}
	if (phase->fd >= 0)
		close(phase->fd);
	if (phase->ram)
		munmap(phase->ram, RAM_PAGES * PAGE);
}

static int commits(struct phase *phase)
{
	const struct scenario *scenario = phase->scenario;
	int rc = 0;
	u32 n;

	for (n = 1; !rc && n <= phase->nr_commits; n++) {
		tap_watch(NULL);
		usleep(rnd_below(&phase->rnd, 1000));
		phase->nr = 0;
		scenario->change(phase, n);
		rc = phase->apart ? apart(phase, true) : batch(phase);
		if (!rc && scenario->look)
			rc = scenario->look(phase, n);
	}
	return rc;
}

static int run_vcpus(struct phase *phase)
{
	u32 i;
	int rc = 0, why;

	for (i = 0; !rc && i < NR_VCPUS; i++) {
		struct vcpu *vcpu = &phase->vcpus[i];

		rc = phase->scenario->start(phase, &phase->workers[i], vcpu);
		if (!rc)
			rc = vcpu_go(vcpu);
	}
	if (!rc)
		rc = commits(phase);
	for (i = 0; i < NR_VCPUS; i++) {
		why = vcpu_stop(&phase->vcpus[i]);
		if (!why)
			continue;
		printf("# %s: %s\n", phase->name, vcpu_text(&phase->vcpus[i]));
		rc = rc ?: -EPROTO;
	}
	return rc ?: phase->scenario->end(phase);
}

static int check_stats(const struct phase *phase)
{
	struct gpamap_stats stats = query_stats(phase->fd);

	printf("# %s.holds %llu holds\n", phase->name, stats.holds);
	printf("# %s.longest_hold %llu us\n", phase->name, stats.longest_hold_ns / 1000);
	printf("# %s.mean_hold %llu us\n", phase->name,
	       stats.hold_ns / 1000 / (stats.holds ?: 1));
	if (!stats.hold_failures && !stats.rollbacks)
		return 0;
	printf("# %s: %llu failed holds, %llu roll-backs\n", phase->name,
	       stats.hold_failures, stats.rollbacks);
	return -EPROTO;
}

/* What went wrong. */
static u64 run_phase(const struct scenario *scenario, const char *paging, bool is_apart,
		     u64 seed, u32 nr_commits)
{
	struct phase phase = {
		.scenario = scenario,
		.apart = is_apart,
		.nr_commits = is_apart && nr_commits > MAX_APART ? MAX_APART : nr_commits,
		.fd = -1,
		.bells = { -1, -1 },
	};
	u64 sum = 0, start = now_ms();
	u32 i;
	int rc;

	snprintf(phase.name, sizeof(phase.name), "%s.%s.%s", paging, scenario->name,
		 is_apart ? "apart" : "batch");
	rnd_seed(&phase.rnd, seed);
	tap_watch(phase.name);
	rc = vm_create(&phase);
	if (!rc)
		rc = map_create(&phase);
	if (!rc)
		rc = run_vcpus(&phase);
	if (!rc)
		rc = check_stats(&phase);
	map_destroy(&phase);
	vm_destroy(&phase);
	if (rc)
		printf("# %s: %s\n", phase.name, strerror(-rc));

	printf("# %s.commits %u commits\n", phase.name, phase.nr_commits);
	printf("# %s.time %llu ms\n", phase.name, (unsigned long long)(now_ms() - start));
	printf("# %s.%s %llu %s\n", phase.name, scenario->work,
	       (unsigned long long)phase.work, scenario->work);
	for (i = 0; i < NR_EVENTS; i++) {
		printf("# %s.%s %llu %s\n", phase.name, event_names[i].name,
		       (unsigned long long)phase.events[i], event_names[i].unit);
		sum += phase.events[i];
	}
	tap_result(!rc && (is_apart || !sum), phase.name);
	return sum;
}

static bool have_ties(void)
{
	int fd = map_open();
	struct gpamap_info info = query_info(fd);

	if (fd >= 0)
		close(fd);
	return info.features & GPAMAP_FEATURE_TIES;
}

int main(void)
{
	const char *paging = kvm_nested_paging() ? "nested" : "shadow";
	u32 nr_commits = env_number("COMMITS", 100), i, plan = 1;
	u64 seed = test_seed(), shown = 0;
	bool ties = have_ties();
	char name[64];

	for (i = 0; i < ARRAY_SIZE(scenarios); i++)
		plan += 1 + scenarios[i].has_apart;
	tap_begin(plan);
	printf("# SEED=%llu COMMITS=%u\n", (unsigned long long)seed, nr_commits);
	for (i = 0; i < ARRAY_SIZE(scenarios); i++) {
		const struct scenario *scenario = &scenarios[i];

		if (scenario->has_apart)
			shown += run_phase(scenario, paging, true, seed + i, nr_commits);
		if (scenario->needs_ties && !ties) {
			snprintf(name, sizeof(name), "%s.%s.batch", paging, scenario->name);
			tap_skip(name, "the module has no operations on ties");
			continue;
		}
		run_phase(scenario, paging, false, seed + i, nr_commits);
	}
	printf("# %s.apart_events %llu events\n", paging, (unsigned long long)shown);
	tap_result(shown, "apart_is_seen_to_fail");
	return tap_failures() ? 1 : 0;
}

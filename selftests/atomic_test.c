// SPDX-License-Identifier: GPL-2.0
/*
 * What a running vCPU sees of a commit, an ATTACH or a DETACH is the map before or the map
 * after: memslots, who answers an access and what is tied to regions change together, for
 * each instruction and for each element of a string.
 *
 * A vCPU waits in a loop until it sees one half of a change, and looks at the other half with
 * its next instruction. In the loop it pauses: a thread that wakes gets a CPU at once, which
 * one that only runs does not where emulated CPUs take turns. Slots that come and go with
 * what is looked at make changes longer, so that what is done in two steps is seen half done.
 *
 * ROUNDS, of the environment, is how many changes each test makes.
 */
#include "harness.h"
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include "gpamap_util.h"
#include "guest_io.h"
#include "leaks.h"
#include "vcpu.h"

#define PAGE TEST_PAGE

enum { ROOT = 1, PORTS, PDEV, DEV, DEV2, RAM, HOLE, BOX, MORE };
enum { SPACE = 1, IO_SPACE };

#define NR_MORE 48		/* slots that only make a change longer, in BOX */
#define X 0x10000000ULL
#define Y 0x10100000ULL
#define Y2 0x10200000ULL
#define LOW 0x08000000ULL	/* where BOX begins, with half of what is in it; */
#define HIGH 0x20000000ULL	/* and where the other half is */

/* What memory, a register and the VMM answer. */
#define RAM_VALUE 2
#define DEV_VALUE 1
#define VMM_VALUE 0x5555555555555555ULL

/* The programs, each ended by HLT. */
#define PAUSE_PORT 0x13
enum { WAIT_READ, WAIT_WRITE, WAIT_MOVED, INCREMENT, NR_CODES };
#define CODE_STRIDE 64

extern const unsigned char atomic_code[], atomic_code_end[];
asm(".pushsection .rodata\n"
    ".balign 64\n"
    "atomic_code:\n"
    "1:	out %al,$0x13\n"		/* WAIT_READ: rdx at rdi, then what is at rsi */
    "	mov (%rdi),%rax\n"
    "	cmp %rdx,%rax\n"
    "	jne 1b\n"
    "	mov (%rsi),%rbx\n"
    "	hlt\n"
    ".balign 64\n"
    "1:	out %al,$0x13\n"		/* WAIT_WRITE: rdx at rdi, then a write to rsi */
    "	mov (%rdi),%rax\n"
    "	cmp %rdx,%rax\n"
    "	jne 1b\n"
    "	mov %rbx,(%rsi)\n"
    "	hlt\n"
    ".balign 64\n"
    "1:	out %al,$0x13\n"		/* WAIT_MOVED: the same, and what is at rsi */
    "	mov (%rdi),%rax\n"
    "	cmp %rdx,%rax\n"
    "	jne 1b\n"
    "	movq $0x77,8(%rsi)\n"
    "	mov (%rsi),%rbx\n"
    "	hlt\n"
    ".balign 64\n"
    "1:	lock incq (%rdi)\n"		/* INCREMENT: rcx times at rdi */
    "	dec %rcx\n"
    "	jnz 1b\n"
    "	hlt\n"
    "atomic_code_end:\n"
    ".popsection");

static const struct gpamap_register regs[] = {
	{ .offset = 0, .len = 8, .kind = GPAMAP_REGISTER_READONLY, .value = DEV_VALUE },
	{ .offset = 8, .len = 8, .kind = GPAMAP_REGISTER_READWRITE },
};

FIXTURE(atomic) {
	struct guest guest;
	struct vcpu vcpu;
	char *io;			/* the guest's programs */
	char *ram;			/* RAM at 0, the more regions behind */
	int fd;
	int bell;
	u64 seen;			/* exits at Y since the program began: writes, */
	u64 reads;			/* and reads */
	struct rnd rnd;
};

#define RAM_PAGES (2 + 2 * NR_MORE)

static int make_more(int fd, char *ram)
{
	struct gpamap_op ops[2 + 2 * NR_MORE];
	u32 i, n = 0;

	ops[n++] = op_container(BOX, 2 * HIGH);
	for (i = 0; i < NR_MORE; i++) {
		ops[n++] = op_ram(MORE + i, PAGE - 1, ram + (2 + 2 * i) * PAGE);
		ops[n++] = op_add(MORE + i, BOX, 2 * i * PAGE + (i & 1 ? HIGH - LOW : 0), 0);
	}
	ops[n++] = op_add(BOX, ROOT, LOW, -2);
	return _test_cmd_apply(fd, ops, n, NULL, NULL);
}

FIXTURE_SETUP(atomic)
{
	u32 i;

	ASSERT_EQ(0, guest_create(&self->guest));
	self->io = guest_io_create(&self->guest);
	ASSERT_NE(NULL, self->io);
	ASSERT_GE(PAGE, (unsigned long)(atomic_code_end - atomic_code));
	memcpy(self->io, atomic_code, atomic_code_end - atomic_code);
	self->ram = mmap(NULL, RAM_PAGES * PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->ram);
	for (i = 0; i < RAM_PAGES; i++)
		*(u64 *)(self->ram + i * PAGE) = RAM_VALUE;
	self->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ASSERT_LE(0, self->bell);
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_apply(self->fd, op_container(ROOT, U64_MAX), op_container(PORTS, 0xffff),
		       op_io(DEV, PAGE - 1), op_io(DEV2, PAGE - 1), op_io(PDEV, 0),
		       op_ram(RAM, PAGE - 1, self->ram), op_reserved(HOLE, PAGE - 1),
		       op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT),
		       op_space(IO_SPACE, GPAMAP_SPACE_IO, PORTS));
	ASSERT_EQ(0, make_more(self->fd, self->ram));
	vcpu_first(&self->vcpu, &self->guest);
}

FIXTURE_TEARDOWN(atomic)
{
	vcpu_stop(&self->vcpu);
	close(self->fd);
	close(self->bell);
	guest_destroy(&self->guest);
	munmap(self->io, GUEST_IO_LEN);
	munmap(self->ram, RAM_PAGES * PAGE);
	EXPECT_NO_MAP_LEFT();
}

#define apply(...) test_cmd_apply(self->fd, __VA_ARGS__)

/* The VMM of a vCPU that runs one of the programs. */
static bool answer_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->cpu.run;
	FIXTURE_DATA(atomic) *self = vcpu->arg;

	switch (run->exit_reason) {
	case KVM_EXIT_MMIO:
		if (run->mmio.phys_addr - Y < PAGE) {
			if (run->mmio.is_write)
				self->seen++;
			else
				self->reads++;
		}
		if (!run->mmio.is_write) {
			u64 answer = VMM_VALUE;

			memcpy(run->mmio.data, &answer, sizeof(answer));
		}
		return true;
	case KVM_EXIT_IO:
		if (rnd_below(&self->rnd, 4))
			usleep(rnd_below(&self->rnd, 200));
		return guest_left_by_out(&vcpu->cpu, PAUSE_PORT);
	case KVM_EXIT_HLT:
		vcpu_write(vcpu->stop, true);
		return true;
	}
	return false;
}

static int start(FIXTURE_DATA(atomic) *self, u32 code, u64 rdi, u64 rsi, u64 rdx, u64 rcx)
{
	struct kvm_regs r = {
		.rip = GUEST_IO_BASE + code * CODE_STRIDE,
		.rflags = 2,
		.rdi = rdi,
		.rsi = rsi,
		.rdx = rdx,
		.rcx = rcx,
	};

	self->seen = 0;
	self->reads = 0;
	self->vcpu.on_exit = answer_exit;
	self->vcpu.arg = self;
	if (ioctl(self->guest.vcpu, KVM_SET_REGS, &r))
		return -errno;
	return vcpu_go(&self->vcpu);
}

/* Until the program has come to its end: what it found last. */
#define RESULT()								\
	({									\
		struct kvm_regs __r;						\
		ASSERT_EQ(0, vcpu_join(&self->vcpu))				\
			TH_LOG("%s", vcpu_text(&self->vcpu));			\
		ASSERT_EQ(0, ioctl(self->guest.vcpu, KVM_GET_REGS, &__r));	\
		__r.rbx;							\
	})

/* It has been in its loop for a while. */
static void let_loop(void)
{
	usleep(2000);
}

/* -- commits ---------------------------------------------------------------- */

/*
 * RAM comes where a device was, and the device goes where zeroes were: whoever sees the
 * memory finds the device at its new place. @more: other slots come, too.
 */
static void moved_device(struct __test_metadata *_metadata, FIXTURE_DATA(atomic) *self,
			 bool more)
{
	u64 rounds = env_number("ROUNDS", 150), i, old = 0, lost = 0;
	volatile u64 *page;

	apply(op_enable(RAM, false), op_enable(BOX, false), op_add(DEV, ROOT, X, 0),
	      op_add(RAM, ROOT, X, 1), op_add(HOLE, ROOT, Y, -1));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	ASSERT_EQ(0, registers_set(self->fd, DEV, regs, 2));
	ASSERT_EQ(0, policy_set(self->fd, HOLE, GPAMAP_POLICY_ZEROES));
	page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, DEV * PAGE);
	ASSERT_NE(MAP_FAILED, (void *)page);
	for (i = 0; i < rounds && _metadata->passed; i++) {
		page[1] = 0;
		ASSERT_EQ(0, start(self, WAIT_MOVED, X, Y, RAM_VALUE, 0));
		let_loop();
		apply(op_enable(RAM, true), op_at(DEV, Y), op_enable(BOX, more));
		old += RESULT() != DEV_VALUE;
		lost += page[1] != 0x77;
		apply(op_enable(RAM, false), op_at(DEV, X), op_enable(BOX, false));
	}
	TH_LOG("%llu commits: the old device map was read %llu times, a write lost %llu times",
	       (unsigned long long)i, (unsigned long long)old, (unsigned long long)lost);
	EXPECT_EQ(0u, old);
	EXPECT_EQ(0u, lost);
	munmap((void *)page, PAGE);
}

TEST_F_TIMEOUT(atomic, creates_and_tied, 120)
{
	moved_device(_metadata, self, true);
}

TEST_F_TIMEOUT(atomic, one_create_and_tied, 120)
{
	moved_device(_metadata, self, false);
}

#define INS_LEN 4096

/* A string of bytes that come from a port. */
struct ins {
	unsigned char *buf;
	u64 strings, mixed, bad, exits;
};

#define INS_KERNEL 0xaa
#define INS_VMM 0xbb
#define INS_NOTHING 0xcc

static bool ins_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->cpu.run;
	struct ins *ins = vcpu->arg;
	u32 i, kernel = 0, vmm = 0;

	if (run->exit_reason != KVM_EXIT_IO)
		return false;
	if (run->io.direction == KVM_EXIT_IO_IN) {
		ins->exits++;
		memset((char *)run + run->io.data_offset, INS_VMM,
		       run->io.size * run->io.count);
		return true;
	}
	if (!guest_left_by_out(&vcpu->cpu, GUEST_PORT))
		return false;
	for (i = 0; i < INS_LEN; i++) {
		kernel += ins->buf[i] == INS_KERNEL;
		vmm += ins->buf[i] == INS_VMM;
	}
	ins->strings++;
	ins->mixed += kernel && vmm;
	vcpu_write(ins->bad, ins->bad + INS_LEN - kernel - vmm);
	memset(ins->buf, INS_NOTHING, INS_LEN);
	return !guest_start(&vcpu->cpu, GUEST_INS, GUEST_DATA, 0, INS_LEN);
}

/*
 * KVM asks for each element of a string by itself. Who answers may change between two of
 * them; that nobody answers one must not be.
 */
TEST_F_TIMEOUT(atomic, ins_beside_commits, 120)
{
	const struct gpamap_register reg = {
		.len = 1, .kind = GPAMAP_REGISTER_READONLY, .value = INS_KERNEL,
	};
	u64 rounds = env_number("ROUNDS", 1000), i;
	struct ins ins = { 0 };

	apply(op_add(PDEV, PORTS, GUEST_DATA_PORT, 0));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	ASSERT_EQ(0, registers_set(self->fd, PDEV, &reg, 1));
	ins.buf = (unsigned char *)self->guest.mem + (GUEST_DATA - GUEST_BASE);
	memset(ins.buf, INS_NOTHING, INS_LEN);
	self->vcpu.on_exit = ins_exit;
	self->vcpu.arg = &ins;
	ASSERT_EQ(0, vcpu_start(&self->vcpu, GUEST_INS, GUEST_DATA, 0, INS_LEN));
	for (i = 0; i < rounds && !vcpu_read(self->vcpu.ended); i++)
		apply(op_enable(PDEV, i & 1));
	EXPECT_EQ(0, vcpu_stop(&self->vcpu)) TH_LOG("%s", vcpu_text(&self->vcpu));
	TH_LOG("%llu commits, %llu strings, %llu of both, %llu exits, %llu bytes of nobody",
	       (unsigned long long)i, (unsigned long long)ins.strings,
	       (unsigned long long)ins.mixed, (unsigned long long)ins.exits,
	       (unsigned long long)ins.bad);
	EXPECT_LT(0u, ins.strings);
	EXPECT_EQ(0u, ins.bad);
}

#define FIRST 0x100000000ULL
#define SECOND 0x200000000ULL

/* Neither value is any more what its own device may have. */
static bool torn(const volatile u64 *first, const volatile u64 *second)
{
	return *first >> 32 != FIRST >> 32 || *second >> 32 != SECOND >> 32;
}

/* What reads by one map and writes by another takes a value from one device to the other. */
TEST_F_TIMEOUT(atomic, one_instruction, 120)
{
	const struct gpamap_register first = {
		.len = 8, .kind = GPAMAP_REGISTER_READWRITE, .value = FIRST,
	};
	const struct gpamap_register second = {
		.len = 8, .kind = GPAMAP_REGISTER_READWRITE, .value = SECOND,
	};
	u64 rounds = env_number("ROUNDS", 1000), i, tears = 0;
	volatile u64 *p, *q;

	apply(op_enable(DEV2, false), op_add(DEV, ROOT, X, 0), op_add(DEV2, ROOT, X, 1));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	ASSERT_EQ(0, registers_set(self->fd, DEV, &first, 1));
	ASSERT_EQ(0, registers_set(self->fd, DEV2, &second, 1));
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, DEV * PAGE);
	q = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, DEV2 * PAGE);
	ASSERT_NE(MAP_FAILED, (void *)p);
	ASSERT_NE(MAP_FAILED, (void *)q);
	ASSERT_EQ(0, start(self, INCREMENT, X, 0, 0, 1ULL << 31));
	self->vcpu.on_exit = NULL;
	let_loop();
	for (i = 0; i < rounds && !vcpu_read(self->vcpu.ended); i++) {
		apply(op_enable(DEV2, !(i & 1)));
		if (torn(p, q)) {
			tears++;
			*p = FIRST;
			*q = SECOND;
		}
	}
	EXPECT_EQ(0, vcpu_stop(&self->vcpu)) TH_LOG("%s", vcpu_text(&self->vcpu));
	TH_LOG("%llu commits, %llu instructions torn; 0x%llx, 0x%llx", (unsigned long long)i,
	       (unsigned long long)tears, (unsigned long long)*p, (unsigned long long)*q);
	EXPECT_EQ(0u, tears);
	EXPECT_LT((u64)FIRST, *p);
	munmap((void *)p, PAGE);
	munmap((void *)q, PAGE);
}

/* -- ATTACH and DETACH ------------------------------------------------------- */

/* RAM at X, registers at Y. */
static int attached_world(FIXTURE_DATA(atomic) *self)
{
	const struct gpamap_op ops[] = {
		op_add(DEV, ROOT, Y, 0), op_add(RAM, ROOT, X, 0),
	};
	int rc = _test_cmd_apply(self->fd, ops, ARRAY_SIZE(ops), NULL, NULL);

	return rc ?: registers_set(self->fd, DEV, regs, 2);
}

/* By turns it waits for the slot and looks at the register, and the other way round. */
TEST_F_TIMEOUT(atomic, detach_half, 120)
{
	u64 rounds = env_number("ROUNDS", 150), i, half[2] = { 0 };

	ASSERT_EQ(0, attached_world(self));
	for (i = 0; i < rounds && _metadata->passed; i++) {
		test_cmd_attach(self->fd, self->guest.vm, 0, 64);
		ASSERT_EQ(0, start(self, WAIT_READ, i & 1 ? Y : X, i & 1 ? X : Y, VMM_VALUE,
				   0));
		let_loop();
		test_cmd_detach(self->fd);
		half[i & 1] += RESULT() != VMM_VALUE;
	}
	TH_LOG("%llu DETACHes, half done: %llu times slots first, %llu times buses first",
	       (unsigned long long)i, (unsigned long long)half[0],
	       (unsigned long long)half[1]);
	EXPECT_EQ(0u, half[0]);
	EXPECT_EQ(0u, half[1]);
}

TEST_F_TIMEOUT(atomic, attach_half, 120)
{
	u64 rounds = env_number("ROUNDS", 150), i, half[2] = { 0 };

	ASSERT_EQ(0, attached_world(self));
	for (i = 0; i < rounds && _metadata->passed; i++) {
		ASSERT_EQ(0, start(self, WAIT_READ, i & 1 ? Y : X, i & 1 ? X : Y,
				   i & 1 ? DEV_VALUE : RAM_VALUE, 0));
		let_loop();
		test_cmd_attach(self->fd, self->guest.vm, 0, 64);
		half[i & 1] += RESULT() != (i & 1 ? RAM_VALUE : DEV_VALUE);
		test_cmd_detach(self->fd);
	}
	TH_LOG("%llu ATTACHes, half done: %llu times slots first, %llu times buses first",
	       (unsigned long long)i, (unsigned long long)half[0],
	       (unsigned long long)half[1]);
	EXPECT_EQ(0u, half[0]);
	EXPECT_EQ(0u, half[1]);
}

/* -- what is tied, by batches ------------------------------------------------- */

/* A region that gets ties as it comes to Y, while RAM comes to X. */
struct tie_row {
	const char *name;
	u32 region;
	bool reads;			/* read accesses are answered, too */
	struct gpamap_op tie[2];
	u32 nr;
};

#define RING 1

static u32 tie_rows(FIXTURE_DATA(atomic) *self, struct tie_row *rows)
{
	u32 n = 0;

	rows[n++] = (struct tie_row){ "registers", DEV, true, { op_registers(DEV, regs, 2) },
				      1 };
	rows[n++] = (struct tie_row){ "doorbell", DEV, false,
				      { op_doorbell(DEV, 8, 8, self->bell) }, 1 };
	rows[n++] = (struct tie_row){ "doorbell and registers", DEV, true,
				      { op_doorbell(DEV, 8, 0, self->bell),
				       op_registers(DEV, regs, 2) }, 2 };
	rows[n++] = (struct tie_row){ "posted writes", DEV, false, { op_post(DEV, RING) }, 1 };
	rows[n++] = (struct tie_row){ "policy", HOLE, true,
				      { op_policy(HOLE, GPAMAP_POLICY_ONES) }, 1 };
	return n;
}

/*
 * A tie and a slot come together and go together: once the vCPU sees the memory (or sees that
 * there is none), its next write is for what is tied (or leaves).
 */
TEST_F_TIMEOUT(atomic, ties_come_and_go_with_slots, 200)
{
	u64 rounds = env_number("ROUNDS", 40), i, half[2];
	struct tie_row rows[8];
	u32 nr = tie_rows(self, rows), row;

	apply(op_enable(RAM, false), op_enable(BOX, false), op_add(RAM, ROOT, X, 0),
	      op_add(DEV, ROOT, Y2, 0), op_add(HOLE, ROOT, Y2 + PAGE, 0));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	ASSERT_EQ(0, ring_add(self->fd, RING, GPAMAP_MAX_RING_ENTRIES, self->bell));
	for (row = 0; row < nr && _metadata->passed; row++) {
		const struct tie_row *r = &rows[row];
		u64 at = r->region == DEV ? Y2 : Y2 + PAGE;
		struct gpamap_op ops[5] = { op_enable(RAM, true), op_enable(BOX, true),
					    op_at(r->region, Y) };

		memcpy(ops + 3, r->tie, r->nr * sizeof(ops[0]));
		half[0] = 0;
		half[1] = 0;
		for (i = 0; i < rounds && _metadata->passed; i++) {
			ASSERT_EQ(0, start(self, WAIT_WRITE, X, Y + 8, RAM_VALUE, 0));
			let_loop();
			test_cmd_apply_ops(self->fd, ops, 3 + r->nr);
			RESULT();
			half[0] += self->seen != 0;
			ASSERT_EQ(0, start(self, WAIT_WRITE, X, Y + 8, VMM_VALUE, 0));
			let_loop();
			apply(op_untie(r->region, TIE_ALL), op_at(r->region, at),
			      op_enable(RAM, false), op_enable(BOX, false));
			RESULT();
			half[1] += self->seen != 1;
		}
		EXPECT_EQ(0u, half[0]) TH_LOG("%s: came half, of %llu", r->name,
					      (unsigned long long)i);
		EXPECT_EQ(0u, half[1]) TH_LOG("%s: went half, of %llu", r->name,
					      (unsigned long long)i);
	}
}

/* The other way round: the tie is seen first. The region stays where it is. */
TEST_F_TIMEOUT(atomic, slots_come_and_go_with_ties, 120)
{
	u64 rounds = env_number("ROUNDS", 100), i, half[2] = { 0 };

	apply(op_enable(RAM, false), op_enable(BOX, false), op_add(RAM, ROOT, X, 0),
	      op_add(DEV, ROOT, Y, 0));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	for (i = 0; i < rounds && _metadata->passed; i++) {
		ASSERT_EQ(0, start(self, WAIT_READ, Y, X, DEV_VALUE, 0));
		let_loop();
		apply(op_registers(DEV, regs, 2), op_enable(RAM, true),
		      op_enable(BOX, true));
		half[0] += RESULT() != RAM_VALUE;
		ASSERT_EQ(0, start(self, WAIT_READ, Y, X, VMM_VALUE, 0));
		let_loop();
		apply(op_enable(RAM, false), op_enable(BOX, false), op_registers_remove(DEV));
		half[1] += RESULT() != VMM_VALUE;
	}
	TH_LOG("%llu commits: half done %llu times there, %llu times back",
	       (unsigned long long)i, (unsigned long long)half[0],
	       (unsigned long long)half[1]);
	EXPECT_EQ(0u, half[0]);
	EXPECT_EQ(0u, half[1]);
}

/* One kind of tie takes the place of another: no access finds neither. */
TEST_F_TIMEOUT(atomic, tie_replaced_by_another, 120)
{
	const struct gpamap_register counter = {
		.len = 8, .kind = GPAMAP_REGISTER_READWRITE, .value = FIRST,
	};
	const struct gpamap_register constant = {
		.len = 8, .kind = GPAMAP_REGISTER_CONSTANT, .value = SECOND,
	};
	u64 rounds = env_number("ROUNDS", 500), i;

	apply(op_add(DEV, ROOT, X, 0), op_registers(DEV, &counter, 1));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	ASSERT_EQ(0, start(self, INCREMENT, X, 0, 0, 1ULL << 31));
	self->vcpu.on_exit = NULL;
	let_loop();
	for (i = 0; i < rounds && !vcpu_read(self->vcpu.ended); i++) {
		if (i & 1)
			apply(op_registers_remove(DEV), op_registers(DEV, &counter, 1));
		else
			apply(op_untie(DEV, TIE_ALL), op_registers(DEV, &constant, 1),
			      op_doorbell(DEV, 0, 8, self->bell));
		if (i & 1)
			apply(op_untie(DEV, GPAMAP_TIE_DOORBELLS));
	}
	/* Any exit is one too many. */
	EXPECT_EQ(0, vcpu_stop(&self->vcpu)) TH_LOG("%s after %llu commits",
						    vcpu_text(&self->vcpu),
						    (unsigned long long)i);
	EXPECT_EQ(rounds, i);
}

/* The commands of their own, for a neighbour: the same range of KVM's bus becomes another. */
TEST_F_TIMEOUT(atomic, neighbour_tied_by_commands, 120)
{
	struct gpamap_registers remove = {
		.size = sizeof(remove), .flags = GPAMAP_REGISTERS_REMOVE, .region = DEV2,
	};
	const struct gpamap_register counter = {
		.len = 8, .kind = GPAMAP_REGISTER_READWRITE, .value = FIRST,
	};
	u64 rounds = env_number("ROUNDS", 200), i;
	struct kvm_regs r;
	volatile u64 *page;

	apply(op_add(DEV, ROOT, X, 0), op_add(DEV2, ROOT, X + PAGE, 0));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	ASSERT_EQ(0, registers_set(self->fd, DEV, &counter, 1));
	page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, self->fd, DEV * PAGE);
	ASSERT_NE(MAP_FAILED, (void *)page);
	ASSERT_EQ(0, start(self, INCREMENT, X, 0, 0, 1ULL << 31));
	self->vcpu.on_exit = NULL;
	for (i = 0; i < rounds && !vcpu_read(self->vcpu.ended); i++) {
		ASSERT_EQ(0, registers_set(self->fd, DEV2, regs, 2));
		ASSERT_EQ(0, map_ioctl(self->fd, GPAMAP_REGISTERS, &remove));
	}
	EXPECT_EQ(0, vcpu_stop(&self->vcpu)) TH_LOG("%s", vcpu_text(&self->vcpu));
	ASSERT_EQ(0, ioctl(self->guest.vcpu, KVM_GET_REGS, &r));
	TH_LOG("%llu times tied, %llu increments", (unsigned long long)i,
	       (unsigned long long)(*page - FIRST));
	/* The last may be counted by one side only. */
	EXPECT_GE(1u, *page - FIRST - ((1ULL << 31) - r.rcx));
	munmap((void *)page, PAGE);
}

TEST_HARNESS_MAIN

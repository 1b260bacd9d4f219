// SPDX-License-Identifier: GPL-2.0
/*
 * Random calls to /dev/gpamap from many sides at once, for SECONDS. Whether the kernel stood it
 * is said by its log, which whoever runs this reads; here it is said whether the module can
 * still be used and nothing of it is held when all is over.
 *
 * Workers are processes, each with threads that call and threads that pull the ground away:
 *
 *  vmm		a VM with vCPUs that run, and a map of it that holds the guest itself: random
 *		batches of regions and ties, with little time to wait, QUERY, LOOKUP, news
 *		polled and read, doorbells and registers by themselves, pages of registers
 *		mapped and unmapped, the module's argument page unmapped or covered, files
 *		closed and made again under calls, children that inherit all and exec
 *  stranger	has no VM: calls what descriptors others pass to it (SCM_RIGHTS), and passes
 *		on its own, among which are files that only look like a VM
 *  nobody	the same as another user, who cannot open the device
 *  many	a thousand maps at once
 *
 * One vmm lives in a memory cgroup whose limit comes and goes, near to what it uses.
 *
 * The parent kills one of them every now and then, wherever it is, starts another in its
 * place, and all along tries to remove the module, which must be refused.
 *
 * Structures are made so that most calls get far, and then often spoilt: a bit, a size, a
 * pointer. Every thread draws from SEED and its own place, so a seed repeats the calls of a
 * thread, but not how threads meet.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "gpamap_util.h"
#include "guest.h"
#include "memcg.h"
#include "vcpu.h"
#include "vm.h"

#define PAGE TEST_PAGE
#define NOBODY 65534
#define MANY 1000
#define NR_FDS 13
#define NR_CALLERS 3
#define NR_VCPUS 2
#define ARENA (4UL << 20)
#define MAX_OPS 24

enum command { ATTACH, DETACH, APPLY, QUERY, LOOKUP, DOORBELL, REGISTERS, HANDLER, RING, POST,
	       POLICY, WATCH, READ, MMAP, UNKNOWN, NR_COMMANDS };

static const char * const command_names[] = {
	"ATTACH", "DETACH", "APPLY", "QUERY", "LOOKUP", "DOORBELL", "REGISTERS",
	"HANDLER", "RING", "POST", "POLICY", "WATCH", "read", "mmap", "unknown",
};

/* Operations that tie and untie: in which batches all was done. */
#define FIRST_TIE GPAMAP_OP_DOORBELL
#define NR_TIES (GPAMAP_OP_UNTIE - FIRST_TIE + 1)

/* Of all processes. Counters are atomic. */
static struct shared {
	u64 ok[NR_COMMANDS];
	u64 refused[NR_COMMANDS];
	u64 ties[NR_TIES];
	u64 efault, eio, ebusy;
	u64 passed, forks, maps, unprivileged, argument_pages, vcpu_exits, many;
	int64_t squeezed;
} *shared;

#define count(_what) __atomic_fetch_add(&shared->_what, 1, __ATOMIC_RELAXED)

static u64 seed;
/* Where descriptors are passed: what is sent to the one end is received from the other. */
static int passage[2];

/* -- a worker ------------------------------------------------------------------ */

/* What the threads of a worker share, and close under each other. */
static struct worker {
	u32 number;
	int fds[NR_FDS];		/* atomic; -1 for none */
	struct vm vm;
	bool has_vm;
	struct vcpu vcpus[NR_VCPUS];
	char *arena;
} self;

enum { FD_MAP, FD_MAP2, FD_VM, FD_VCPU, FD_KVM, FD_EVENT, FD_EVENT2, FD_FAKE, FD_FILE, FD_PATH,
       FD_PASSED, FD_PASSED2, FD_WATCH };

static int fd_get(u32 i)
{
	return __atomic_load_n(&self.fds[i], __ATOMIC_RELAXED);
}

/* Takes the place of another, which is closed under whoever uses it. */
static void fd_put(u32 i, int fd)
{
	int old = __atomic_exchange_n(&self.fds[i], fd, __ATOMIC_RELAXED);

	if (old >= 0)
		close(old);
}

static bool one_in(struct rnd *r, u32 n)
{
	return !rnd_below(r, n);
}

static int fd_any(struct rnd *r)
{
	return one_in(r, 20) ? (int)rnd_below(r, 64) - 2 : fd_get(rnd_below(r, NR_FDS));
}

static int fd_map(struct rnd *r)
{
	static const u32 maps[] = { FD_MAP, FD_MAP, FD_MAP, FD_MAP2, FD_PASSED, FD_PASSED2 };

	int fd = fd_get(maps[rnd_below(r, ARRAY_SIZE(maps))]);

	if (one_in(r, 50))
		return fd_any(r);
	return fd < 0 ? fd_get(FD_MAP) : fd;
}

/* -- random structures ------------------------------------------------------------ */

static u64 any_number(struct rnd *r)
{
	static const u64 numbers[] = {
		0, 1, PAGE - 1, PAGE, PAGE + 8, 0x7fffffff, 0xffffffff, 1ULL << 32,
		1ULL << 47, 1ULL << 63, U64_MAX, U64_MAX - 1, U64_MAX - PAGE + 1,
		GUEST_BASE, GUEST_DATA,
	};

	switch (rnd_below(r, 4)) {
	case 0:
		return numbers[rnd_below(r, ARRAY_SIZE(numbers))];
	case 1:
		return rnd_next(r);
	default:
		return rnd_next(r) >> rnd_below(r, 64);
	}
}

/* Where things meet: few pages, now and then not on the border of one. */
static u64 any_place(struct rnd *r)
{
	u64 place;

	if (one_in(r, 12))
		return any_number(r);
	place = 0x10000000ULL * (1 + rnd_below(r, 4)) + PAGE * rnd_below(r, 24);
	return one_in(r, 6) ? place + rnd_below(r, PAGE) : place;
}

static u64 any_last(struct rnd *r)
{
	if (one_in(r, 12))
		return any_number(r);
	return (1 + rnd_below(r, 20)) * PAGE - 1 - (one_in(r, 6) ? rnd_below(r, PAGE) : 0);
}

/* Mostly ids that are in use: the regions of struct vm are the first. */
static u32 any_id(struct rnd *r)
{
	return one_in(r, 30) ? any_number(r) : VM_FREE + rnd_below(r, 12) -
	       (one_in(r, 8) ? rnd_below(r, VM_FREE) : 0);
}

#define MAX_REGISTERS 8

/* What an operation of REGISTERS points to; spoilt by other threads of its worker. */
static struct gpamap_register registers_of_ops[16][MAX_REGISTERS];

static void any_registers(struct rnd *r, struct gpamap_register *regs, u32 nr)
{
	u32 i;

	for (i = 0; i < nr; i++)
		regs[i] = (struct gpamap_register){
			.offset = 8 * i,
			.len = 1U << rnd_below(r, 4),
			.kind = 1 + rnd_below(r, 5),
			.value = rnd_below(r, 256),
		};
	if (one_in(r, 8))
		((unsigned char *)regs)[rnd_below(r, nr * sizeof(regs[0]))] ^=
			1U << rnd_below(r, 8);
}

static const char *any_handler(struct rnd *r)
{
	static const char * const names[] = {
		"test-any", "test-wide-4", "test-be", "test-slow", "acpi-pm-timer", "nobody",
	};

	return names[rnd_below(r, ARRAY_SIZE(names))];
}

static int any_bell(struct rnd *r)
{
	return one_in(r, 10) ? fd_any(r) : fd_get(FD_EVENT + rnd_below(r, 2));
}

static struct gpamap_op any_tie(struct rnd *r)
{
	struct gpamap_op op = {
		.code = FIRST_TIE + rnd_below(r, NR_TIES),
		/* Those that are io regions from the beginning. */
		.id = one_in(r, 2) ? VM_FREE + rnd_below(r, 2) : any_id(r),
	};
	struct gpamap_register *regs;

	switch (op.code) {
	case GPAMAP_OP_DOORBELL:
		op.flags = rnd_below(r, 4);
		op.len = one_in(r, 20) ? any_number(r) : 1U << rnd_below(r, 4);
		op.offset = one_in(r, 10) ? any_number(r) : 8 * rnd_below(r, 32);
		op.value = op.flags & GPAMAP_DOORBELL_MATCH ? rnd_below(r, 4) : 0;
		op.fd = any_bell(r);
		break;
	case GPAMAP_OP_REGISTERS:
		if (one_in(r, 3)) {
			op.flags = GPAMAP_REGISTERS_REMOVE;
			break;
		}
		regs = registers_of_ops[rnd_below(r, ARRAY_SIZE(registers_of_ops))];
		op.nr = 1 + rnd_below(r, MAX_REGISTERS);
		op.item_size = one_in(r, 20) ? any_number(r) : sizeof(*regs);
		any_registers(r, regs, op.nr);
		op.items = one_in(r, 30) ? any_number(r) : (uintptr_t)regs;
		break;
	case GPAMAP_OP_HANDLER:
		if (one_in(r, 3)) {
			op.flags = GPAMAP_HANDLER_REMOVE;
			break;
		}
		op.value = rnd_below(r, 3);
		strcpy((char *)op.name, any_handler(r));
		break;
	case GPAMAP_OP_POST:
		if (one_in(r, 3))
			op.flags = GPAMAP_POST_REMOVE;
		else
			op.ref = 1 + rnd_below(r, 4);
		break;
	case GPAMAP_OP_POLICY:
		op.kind = rnd_below(r, 5);
		break;
	case GPAMAP_OP_UNTIE:
		op.mask = rnd_below(r, one_in(r, 20) ? 64 : 32);
		break;
	}
	return op;
}

static struct gpamap_op any_op(struct rnd *r)
{
	struct gpamap_op op = { .id = any_id(r) };
	u32 pick = rnd_below(r, 30);

	if (pick >= 20)
		return any_tie(r);
	if (pick < 5) {
		op.code = GPAMAP_OP_REGION;
		op.kind = 1 + rnd_below(r, 7);
		op.last = any_last(r);
		op.flags = one_in(r, 3) ? 1U << rnd_below(r, 6) : 0;
		if (op.kind == GPAMAP_REGION_ALIAS) {
			op.ref = any_id(r);
			op.offset = one_in(r, 2) ? 0 : any_last(r) + 1;
		} else if (op.kind == GPAMAP_REGION_RAM || op.kind == GPAMAP_REGION_ROM ||
			   op.kind == GPAMAP_REGION_ROMD) {
			op.hva = one_in(r, 30) ? any_number(r) :
				 (uintptr_t)self.arena + PAGE * rnd_below(r, 512);
		}
		snprintf((char *)op.name, sizeof(op.name), "%u", rnd_below(r, 100));
	} else if (pick < 9) {
		op.code = GPAMAP_OP_ADD;
		op.ref = one_in(r, 3) ? any_id(r) : VM_ROOT;
		op.at = any_place(r);
		op.prio = (int)rnd_below(r, 5) - 2;
	} else if (pick < 11) {
		op.code = GPAMAP_OP_DEL;
	} else if (pick < 13) {
		op.code = GPAMAP_OP_DESTROY;
	} else if (pick < 17) {
		op.code = GPAMAP_OP_SET;
		op.mask = 1U << rnd_below(r, 10);
		if (one_in(r, 4))
			op.mask |= 1U << rnd_below(r, 10);
		op.flags = one_in(r, 2) ? rnd_below(r, 64) : 0;
		if (op.mask & GPAMAP_SET_AT)
			op.at = any_place(r);
		if (op.mask & GPAMAP_SET_PRIO)
			op.prio = (int)rnd_below(r, 5) - 2;
		if (op.mask & GPAMAP_SET_OFFSET)
			op.offset = any_last(r) + 1;
		if (op.mask & GPAMAP_SET_LAST)
			op.last = any_last(r);
		/* Flags that the mask does not name are malformed: mostly not. */
		if (!one_in(r, 10)) {
			static const u32 flags[] = {
				GPAMAP_REGION_DISABLED, GPAMAP_REGION_READONLY, 0, 0, 0,
				GPAMAP_REGION_NONVOLATILE, GPAMAP_REGION_UNMERGEABLE,
				GPAMAP_REGION_ROMD_MODE, 0, GPAMAP_REGION_CUT_AHEAD,
			};
			u32 i, allowed = 0;

			for (i = 0; i < ARRAY_SIZE(flags); i++)
				if (op.mask & 1U << i)
					allowed |= flags[i];
			op.flags &= allowed;
		}
	} else if (pick < 19) {
		op.code = GPAMAP_OP_SPACE;
		op.id = 1 + rnd_below(r, 6);
		op.kind = 1 + rnd_below(r, 3);
		op.ref = one_in(r, 2) ? VM_ROOT : any_id(r);
		op.as_id = op.kind == GPAMAP_SPACE_MEMORY ? rnd_below(r, 2) : 0;
	} else {
		op.code = GPAMAP_OP_SPACE_DESTROY;
		op.id = 1 + rnd_below(r, 6);
	}
	return op;
}

/* What may lie before the end of what is mapped, and over it. */
static void *spoilt_pointer(struct rnd *r, void *good)
{
	switch (rnd_below(r, 6)) {
	case 0:
		return NULL;
	case 1:
		return (void *)(uintptr_t)any_number(r);
	case 2:
		return self.arena + ARENA - rnd_below(r, 64);
	case 3:
		return (char *)good + 1;
	default:
		return self.arena + rnd_below(r, ARENA);
	}
}

/* Short, or the module's. */
static u32 any_timeout(struct rnd *r)
{
	if (one_in(r, 2))
		return 0;
	return one_in(r, 30) ? any_number(r) : rnd_below(r, 51);
}

/* Which of them a batch held that was done. */
static void count_ties(const struct gpamap_op *ops, u32 nr)
{
	while (nr--)
		if (ops[nr].code - FIRST_TIE < NR_TIES)
			count(ties[ops[nr].code - FIRST_TIE]);
}

/* A call, with a structure that is right or was spoilt a moment ago. */
static int call(struct rnd *r, u32 what, int fd, unsigned long cmd, void *arg, u32 size)
{
	unsigned char buf[2 * PAGE];
	void *at = buf;
	int rc;

	memset(buf, 0, size + 64);
	memcpy(buf, arg, size);
	if (one_in(r, 6))
		buf[rnd_below(r, size)] ^= 1U << rnd_below(r, 8);
	if (one_in(r, 20))
		*(u32 *)buf = one_in(r, 2) ? size + rnd_below(r, 64) : any_number(r);
	if (one_in(r, 40))
		at = spoilt_pointer(r, buf);
	rc = map_ioctl(fd, cmd, at);
	if (!rc)
		count(ok[what]);
	else
		count(refused[what]);
	if (rc == -EFAULT)
		count(efault);
	else if (rc == -EIO)
		count(eio);
	else if (rc == -EBUSY)
		count(ebusy);
	if (!rc && at == buf)
		memcpy(arg, buf, size);
	return rc;
}

static void call_apply(struct rnd *r, int fd)
{
	struct gpamap_op ops[MAX_OPS];
	struct gpamap_apply cmd = {
		.size = sizeof(cmd),
		.flags = one_in(r, 4) ? GPAMAP_APPLY_DRY_RUN : 0,
		.ops = (uintptr_t)ops,
		.nr_ops = 1 + rnd_below(r, one_in(r, 6) ? MAX_OPS : 2),
		.op_size = sizeof(ops[0]),
		.timeout_ms = any_timeout(r),
	};
	const u64 right = cmd.ops;
	u32 i;

	if (self.has_vm && one_in(r, 3)) {
		/* What the vCPUs run in goes, and comes back: they have to be held. */
		ops[0] = op_enable(VM_HERE, true);
		ops[1] = op_enable(VM_THERE, true);
		ops[2] = op_prio(one_in(r, 2) ? VM_HERE : VM_THERE, 1);
		ops[3] = op_prio(VM_MEM, rnd_below(r, 3));
		cmd.nr_ops = 3;
	} else {
		for (i = 0; i < cmd.nr_ops; i++)
			ops[i] = any_op(r);
	}
	if (one_in(r, 8)) {
		i = rnd_below(r, cmd.nr_ops * sizeof(ops[0]));
		((unsigned char *)ops)[i] ^= 1U << rnd_below(r, 8);
	}
	if (one_in(r, 40))
		cmd.ops = (uintptr_t)spoilt_pointer(r, ops);
	if (one_in(r, 60))
		cmd.nr_ops = any_number(r);
	i = cmd.nr_ops;
	/* What was done is told, unless it was asked for something else than is here. */
	if (!call(r, APPLY, fd, GPAMAP_APPLY, &cmd, sizeof(cmd)) && cmd.ops == right &&
	    cmd.op_size == sizeof(ops[0]) && cmd.nr_ops == i && i <= MAX_OPS && !cmd.flags)
		count_ties(ops, i);
}

static void call_query(struct rnd *r, int fd)
{
	u32 what = 1 + rnd_below(r, GPAMAP_QUERY_LAYOUT);
	u64 records[4 * 1024];
	struct gpamap_query cmd = {
		.size = sizeof(cmd),
		.what = what,
		.space = what == GPAMAP_QUERY_RANGES ? 1 + rnd_below(r, 6) : 0,
		.records = (uintptr_t)records,
		.record_size = record_size_of(what),
	};

	cmd.count = one_in(r, 4) ? rnd_below(r, 20) : sizeof(records) / cmd.record_size;
	if (one_in(r, 10)) {
		cmd.record_size += 8 * rnd_below(r, 20);
		cmd.count = rnd_below(r, sizeof(records) / cmd.record_size);
	}
	if (one_in(r, 20))
		cmd.records = (uintptr_t)spoilt_pointer(r, records);
	/* Room that is not there must be EFAULT, not harm: the arena has all that is needed. */
	if (one_in(r, 20))
		cmd.records = (uintptr_t)self.arena;
	if (cmd.records == (uintptr_t)self.arena && one_in(r, 2))
		cmd.count = ARENA / cmd.record_size;
	call(r, QUERY, fd, GPAMAP_QUERY, &cmd, sizeof(cmd));
}

static void call_doorbell(struct rnd *r, int fd)
{
	struct gpamap_doorbell cmd = {
		.size = sizeof(cmd),
		.flags = rnd_below(r, 4),
		.region = any_id(r),
		.len = one_in(r, 20) ? any_number(r) : 1U << rnd_below(r, 4),
		.offset = one_in(r, 10) ? any_number(r) : 8 * rnd_below(r, 32),
		.fd = any_bell(r),
	};

	if (cmd.flags & GPAMAP_DOORBELL_MATCH)
		cmd.value = rnd_below(r, 4);
	if (one_in(r, 10))
		cmd.len = 0;
	call(r, DOORBELL, fd, GPAMAP_DOORBELL, &cmd, sizeof(cmd));
}

static void call_registers(struct rnd *r, int fd)
{
	struct gpamap_register regs[64];
	struct gpamap_registers cmd = {
		.size = sizeof(cmd),
		.region = any_id(r),
	};

	if (one_in(r, 2)) {
		cmd.flags = GPAMAP_REGISTERS_REMOVE;
	} else {
		cmd.nr = 1 + rnd_below(r, ARRAY_SIZE(regs));
		cmd.register_size = sizeof(regs[0]);
		cmd.registers = (uintptr_t)regs;
		any_registers(r, regs, cmd.nr);
		if (one_in(r, 30))
			cmd.registers = (uintptr_t)spoilt_pointer(r, regs);
	}
	call(r, REGISTERS, fd, GPAMAP_REGISTERS, &cmd, sizeof(cmd));
}

static void call_handler(struct rnd *r, int fd)
{
	struct gpamap_handler cmd = {
		.size = sizeof(cmd),
		.region = any_id(r),
	};

	if (one_in(r, 2)) {
		cmd.flags = GPAMAP_HANDLER_REMOVE;
	} else {
		cmd.arg = rnd_below(r, 3);
		strcpy((char *)cmd.name, any_handler(r));
	}
	call(r, HANDLER, fd, GPAMAP_HANDLER, &cmd, sizeof(cmd));
}

static void call_ring(struct rnd *r, int fd)
{
	struct gpamap_ring cmd = {
		.size = sizeof(cmd),
		.id = 1 + rnd_below(r, 4),
	};

	if (one_in(r, 3)) {
		cmd.flags = GPAMAP_RING_REMOVE;
	} else {
		cmd.nr_entries = one_in(r, 20) ? any_number(r) : 16U << rnd_below(r, 4);
		cmd.fd = one_in(r, 4) ? -1 : any_bell(r);
		cmd.watermark = cmd.fd == -1 && !one_in(r, 8) ? 0 : 1 + rnd_below(r, 16);
		if (cmd.watermark)
			cmd.delay_us = one_in(r, 20) ? any_number(r) : rnd_below(r, 2000);
	}
	call(r, RING, fd, GPAMAP_RING, &cmd, sizeof(cmd));
}

static void call_post(struct rnd *r, int fd)
{
	struct gpamap_post cmd = {
		.size = sizeof(cmd),
		.flags = one_in(r, 3) ? GPAMAP_POST_REMOVE : 0,
		.region = any_id(r),
	};

	if (!cmd.flags)
		cmd.ring = 1 + rnd_below(r, 4);
	call(r, POST, fd, GPAMAP_POST, &cmd, sizeof(cmd));
}

static void call_policy(struct rnd *r, int fd)
{
	struct gpamap_policy cmd = {
		.size = sizeof(cmd),
		.region = any_id(r),
		.policy = rnd_below(r, 5),
	};

	call(r, POLICY, fd, GPAMAP_POLICY, &cmd, sizeof(cmd));
}

/* A listener, in place of the last, whose map may be gone by then. */
static void call_watch(struct rnd *r, int fd)
{
	struct gpamap_watch cmd = {
		.size = one_in(r, 8) ? any_number(r) : sizeof(cmd),
		.flags = one_in(r, 8) ? any_number(r) : 0,
	};
	int watch = ioctl(fd, GPAMAP_WATCH, one_in(r, 20) ? spoilt_pointer(r, &cmd) : &cmd);

	if (watch < 0) {
		count(refused[WATCH]);
		return;
	}
	count(ok[WATCH]);
	/* One that waits may wait for ever. */
	fcntl(watch, F_SETFL, O_NONBLOCK);
	fd_put(FD_WATCH, watch);
}

/* The news of a listener, or of a map, which waits if there are none: asked before. */
static void call_read(struct rnd *r)
{
	int fd = one_in(r, 4) ? fd_map(r) : fd_get(FD_WATCH);
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char buf[128];
	void *to = one_in(r, 20) ? spoilt_pointer(r, buf) : buf;

	/* What is asked here is set for all that share the file, as the parent does stdout. */
	if (fd <= STDERR_FILENO)
		return;
	if (poll(&p, 1, rnd_below(r, 3)) <= 0 && fd != fd_get(FD_WATCH))
		return;
	/* Somebody else may have been faster. */
	fcntl(fd, F_SETFL, O_NONBLOCK);
	if (read(fd, to, one_in(r, 8) ? rnd_below(r, 64) : 8) == 8)
		count(ok[READ]);
	else
		count(refused[READ]);
}

/* Pages of registers, exits and rings: mapped, used, moved, passed to a child, unmapped. */
static void call_mmap(struct rnd *r, int fd)
{
	u64 len = one_in(r, 20) ? (1 + rnd_below(r, 3)) * PAGE : PAGE;
	off_t offset = one_in(r, 20) ? (off_t)(any_number(r) & ~(PAGE - 1)) :
				       (off_t)any_id(r) * (off_t)PAGE;
	volatile u64 *page;
	void *moved;

	switch (rnd_below(r, 4)) {
	case 0:
		offset = 0;
		break;
	case 1:
		/* The head, the tail and the entries are spoilt, too. */
		offset = (off_t)(GPAMAP_RING_PGOFF | (1 + rnd_below(r, 4))) * (off_t)PAGE;
		len = 2 * PAGE;
		break;
	}
	page = mmap(NULL, len, PROT_READ | PROT_WRITE, one_in(r, 20) ? MAP_PRIVATE : MAP_SHARED,
		    fd, offset);
	if (page == MAP_FAILED) {
		count(refused[MMAP]);
		return;
	}
	count(ok[MMAP]);
	/* Not for maps: a file that is not one, of which nothing may be there. */
	if (fd_get(FD_MAP) == fd)
		page[rnd_below(r, one_in(r, 2) ? 16 : 512)] = rnd_next(r);
	if (one_in(r, 4)) {
		/* A page of registers cannot grow; what was passed here for a map may. */
		moved = mremap((void *)page, len, 2 * len, MREMAP_MAYMOVE);
		if (moved != MAP_FAILED) {
			page = moved;
			len *= 2;
		}
	}
	madvise((void *)page, len, one_in(r, 2) ? MADV_DONTNEED : MADV_DONTFORK);
	mprotect((void *)page, len, PROT_READ);
	munmap((void *)page, len);
}

static void call_any(struct rnd *r)
{
	struct gpamap_attach attach = {
		.size = sizeof(attach),
		.vm_fd = one_in(r, 8) ? fd_any(r) : fd_get(FD_VM),
		.nr_slots = one_in(r, 20) ? any_number(r) : VM_SLOTS,
		.timeout_ms = any_timeout(r),
	};
	struct gpamap_detach detach = {
		.size = sizeof(detach),
		.timeout_ms = any_timeout(r),
	};
	struct gpamap_lookup lookup = {
		.size = sizeof(lookup),
		.space = 1 + rnd_below(r, 6),
		.addr = any_place(r),
	};
	struct pollfd p = { .fd = fd_map(r), .events = POLLIN };
	int fd = fd_map(r), rc;

	switch (rnd_below(r, 43)) {
	case 40:
		call_watch(r, fd);
		break;
	case 41 ... 42:
		call_read(r);
		break;
	case 32 ... 33:
		call_handler(r, fd);
		break;
	case 34:
		call_ring(r, fd);
		break;
	case 35 ... 36:
		call_post(r, fd);
		break;
	case 37:
		call_policy(r, fd);
		break;
	case 38 ... 39:
		call_mmap(r, fd);
		break;
	case 0 ... 11:
		call_apply(r, fd);
		break;
	case 12 ... 15:
		call_query(r, fd);
		break;
	case 16 ... 18:
		call(r, LOOKUP, fd, GPAMAP_LOOKUP, &lookup, sizeof(lookup));
		break;
	case 19 ... 22:
		call_doorbell(r, fd);
		break;
	case 23 ... 25:
		call_registers(r, fd);
		break;
	case 26:
		call_mmap(r, fd);
		break;
	case 27:
		poll(&p, 1, rnd_below(r, 3));
		break;
	case 28:
	case 29:
		call(r, ATTACH, fd, GPAMAP_ATTACH, &attach, sizeof(attach));
		break;
	case 30:
		call(r, DETACH, fd, GPAMAP_DETACH, &detach, sizeof(detach));
		break;
	default:
		rc = ioctl(fd, _IO(GPAMAP_TYPE, GPAMAP_CMD_BASE + rnd_below(r, 64)),
			   self.arena);
		if (rc > 0)
			close(rc);
		if (rc < 0)
			count(refused[UNKNOWN]);
		else
			count(ok[UNKNOWN]);
	}
}

/* -- what is pulled away ------------------------------------------------------------- */

/* The module's argument page goes, or something else is in its place. */
static void disturb_argument_page(struct rnd *r)
{
	unsigned long start, end;

	if (scratch_find(&start, &end) <= 0)
		return;
	count(argument_pages);
	if (one_in(r, 2))
		scratch_unmap();
	else
		mmap((void *)start, end - start, one_in(r, 2) ? PROT_NONE : PROT_READ,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static int set_up_map(struct rnd *r)
{
	const struct gpamap_op ops[] = {
		op_container(VM_ROOT, U64_MAX),
		op_ram(VM_MEM, 16 * PAGE - 1, self.arena),
		op_io(VM_FREE, PAGE - 1),
		op_io(VM_FREE + 1, PAGE - 1),
		op_add(VM_MEM, VM_ROOT, any_place(r) & ~(PAGE - 1), 0),
		op_add(VM_FREE, VM_ROOT, any_place(r), 0),
		op_add(VM_FREE + 1, VM_ROOT, any_place(r), 0),
		op_space(VM_SPACE, GPAMAP_SPACE_MEMORY, VM_ROOT),
	};
	int fd = map_open();

	if (fd >= 0) {
		count(maps);
		_test_cmd_apply(fd, ops, ARRAY_SIZE(ops), NULL, NULL);
	}
	return fd;
}

static void exec_or_call(struct rnd *r)
{
	char number[32];
	u32 i;

	if (one_in(r, 2)) {
		snprintf(number, sizeof(number), "%llu", (unsigned long long)rnd_next(r));
		/* Half of them find what is not closed at exec, and use it. */
		for (i = 0; i < NR_FDS; i++)
			if (one_in(r, 2))
				fcntl(fd_get(i), F_SETFD, 0);
		execl("/proc/self/exe", "fuzz_abi", "--exec", number, NULL);
	}
	for (i = rnd_below(r, 50); i; i--)
		call_any(r);
}

/* A child that has all, but is not the process that owns the VM. */
static void fork_one(struct rnd *r)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(10);
		exec_or_call(r);
		_exit(0);
	}
	if (pid < 0)
		return;
	count(forks);
	if (one_in(r, 2)) {
		usleep(rnd_below(r, 3000));
		kill(pid, SIGKILL);
	}
	waitpid(pid, NULL, 0);
}

static void pass_one(struct rnd *r)
{
	int fd;

	if (one_in(r, 2)) {
		fd_send(passage[0], fd_get(rnd_below(r, NR_FDS)));
		return;
	}
	fd = fd_receive(passage[1]);
	if (fd < 0)
		return;
	count(passed);
	fd_put(FD_PASSED + rnd_below(r, 2), fd);
}

static void disturb(struct rnd *r)
{
	switch (rnd_below(r, 8)) {
	case 0:
		disturb_argument_page(r);
		break;
	case 1:
	case 2:
		pass_one(r);
		break;
	case 3:
		fork_one(r);
		break;
	case 4:
		fd_put(FD_MAP2, set_up_map(r));
		break;
	case 5:
		if (self.has_vm && one_in(r, 4)) {
			/* The map of running vCPUs is closed under its calls. */
			fd_put(FD_MAP, set_up_map(r));
		}
		break;
	case 6:
		if (self.has_vm)
			vcpu_signal(&self.vcpus[0]);
		break;
	default:
		fd_put(FD_EVENT + rnd_below(r, 2), eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
	}
}

/* -- threads of a worker --------------------------------------------------------------- */

static struct rnd rnd_of(u32 place)
{
	struct rnd r;

	rnd_seed(&r, seed ^ (u64)self.number << 32 ^ (u64)place << 56);
	return r;
}

static void *caller(void *arg)
{
	struct rnd r = rnd_of((uintptr_t)arg);

	for (;;)
		call_any(&r);
	return NULL;
}

/* Whatever has become of the guest, it begins again. */
static bool begin_again(struct vcpu *vcpu)
{
	count(vcpu_exits);
	/* One whose memory is gone does nothing else. */
	usleep(2000);
	guest_start(&vcpu->cpu, GUEST_COUNT, guest_counter_gpa(&vcpu->cpu), 0, 0);
	return true;
}

static void open_common(void)
{
	char path[64];
	u32 i;

	for (i = 0; i < NR_FDS; i++)
		self.fds[i] = -1;
	/* Behind it nothing: what the kernel is told to write over its end must not be found. */
	self.arena = mmap(NULL, ARENA + PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mprotect(self.arena, ARENA, PROT_READ | PROT_WRITE);
	self.fds[FD_EVENT] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	self.fds[FD_EVENT2] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	/* Files that have a VM's name, and one of the filesystem that VMs are on. */
	self.fds[FD_FAKE] = memfd_create("kvm-vm", MFD_CLOEXEC);
	snprintf(path, sizeof(path), "/tmp/%u", self.number);
	mkdir(path, 0700);
	strcat(path, "/kvm-vm");
	self.fds[FD_FILE] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	self.fds[FD_PATH] = open(path, O_PATH | O_CLOEXEC);
}

static void start_threads(u32 nr)
{
	pthread_t thread;
	uintptr_t i;

	for (i = 0; i < nr; i++)
		pthread_create(&thread, NULL, caller, (void *)(i + 1));
}

static int run_vmm(void)
{
	struct rnd r = rnd_of(0);
	u32 i;

	open_common();
	if (vm_create(&self.vm, one_in(&r, 2)))
		return 2;
	self.has_vm = true;
	self.fds[FD_MAP] = self.vm.fd;
	/* Others close it; vm_destroy() never comes. */
	self.fds[FD_VM] = dup(self.vm.guest.vm);
	self.fds[FD_VCPU] = dup(self.vm.guest.vcpu);
	self.fds[FD_KVM] = dup(self.vm.guest.kvm);
	/* vCPUs that spin take the time of all others. */
	for (i = 0; i < NR_VCPUS && i <= self.number % 2; i++) {
		if (!i)
			vcpu_first(&self.vcpus[0], &self.vm.guest);
		else if (vcpu_add(&self.vcpus[i], &self.vm.guest, i))
			return 2;
		self.vcpus[i].on_exit = begin_again;
		vcpu_count(&self.vcpus[i]);
	}
	start_threads(NR_CALLERS);
	for (;;) {
		disturb(&r);
		usleep(rnd_below(&r, 4000));
	}
	return 0;
}

static int run_stranger(bool nobody)
{
	struct rnd r = rnd_of(0);
	u32 i;

	open_common();
	if (nobody) {
		if (setgid(NOBODY) || setuid(NOBODY))
			return 2;
		/* The device is for root and the group kvm. */
		if (map_open() != -EACCES)
			return 3;
		count(unprivileged);
	} else {
		self.fds[FD_MAP] = set_up_map(&r);
		self.fds[FD_MAP2] = set_up_map(&r);
	}
	start_threads(1);
	for (;;) {
		pass_one(&r);
		for (i = rnd_below(&r, 20); i; i--)
			call_any(&r);
		if (one_in(&r, 10))
			fork_one(&r);
		/* A map that a stranger may make, but of nobody's VM. */
		if (!nobody && one_in(&r, 20))
			fd_put(FD_MAP, set_up_map(&r));
	}
	return 0;
}

static int run_many(void)
{
	const struct rlimit limit = { MANY + 200, MANY + 200 };
	struct rnd r = rnd_of(0);
	int fds[MANY];
	u32 i, n;

	open_common();
	if (setrlimit(RLIMIT_NOFILE, &limit))
		return 2;
	for (;;) {
		for (n = 0; n < MANY; n++) {
			fds[n] = n % 8 ? map_open() : set_up_map(&r);
			if (fds[n] < 0)
				return 4;
		}
		count(many);
		for (i = 0; i < 2 * MANY; i++) {
			self.fds[FD_MAP] = fds[rnd_below(&r, MANY)];
			self.fds[FD_MAP2] = fds[rnd_below(&r, MANY)];
			call_any(&r);
		}
		/* Some go to others, who may hold them longer. */
		for (i = 0; i < 5; i++)
			fd_send(passage[0], fds[rnd_below(&r, MANY)]);
		for (n = 0; n < MANY; n++)
			close(fds[n]);
	}
	return 0;
}

/* What an exec has left open is called. */
static int run_exec(u64 number)
{
	struct rnd r;
	int fd;
	u32 i;

	rnd_seed(&r, number);
	open_common();
	for (fd = 3, i = 0; fd < 64; fd++)
		if (fcntl(fd, F_GETFD) == 0 && i < NR_FDS)
			self.fds[i++] = fd;
	alarm(5);
	for (i = 0; i < 100; i++)
		call_any(&r);
	return 0;
}

/* -- the parent ------------------------------------------------------------------------- */

enum { VMM, VMM2, STRANGER, ANOTHER, MANY_MAPS, NR_WORKERS };

static pid_t workers[NR_WORKERS];
static u32 number;
/* That of VMM2, which may fail where another worker may not. */
static struct memcg cgroup;

static void start_worker(u32 i)
{
	pid_t pid;
	int rc = 1;

	number++;
	fflush(stdout);
	while ((pid = fork()) < 0)
		usleep(100000);
	if (pid) {
		setpgid(pid, 0);
		workers[i] = pid;
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setpgid(0, 0);
	self.number = number;
	switch (i) {
	case VMM:
		rc = run_vmm();
		break;
	case VMM2:
		rc = memcg_enter(&cgroup) ?: run_vmm();
		break;
	case STRANGER:
		rc = run_stranger(false);
		break;
	case ANOTHER:
		rc = run_stranger(true);
		break;
	case MANY_MAPS:
		rc = run_many();
		break;
	}
	_exit(rc);
}

/* One that ended by itself with a status has found something wrong. */
static bool worker_ended(u32 i, int status)
{
	workers[i] = 0;
	if (!WIFEXITED(status) || (i == VMM2 && WEXITSTATUS(status) == 2))
		return true;
	printf("# worker %u ended with status %d\n", i, WEXITSTATUS(status));
	return false;
}

static bool end_worker(u32 i)
{
	int status = 0;

	kill(workers[i], SIGKILL);
	kill(-workers[i], SIGKILL);
	if (waitpid(workers[i], &status, 0) != workers[i])
		return false;
	return worker_ended(i, status);
}

/*
 * Refused while anybody has a map: the parent has one. The module of the handlers goes when
 * nobody uses them, and comes back.
 */
static bool module_stays(void)
{
	int fd;

	if (!syscall(SYS_delete_module, "gpamap_test", O_NONBLOCK)) {
		fd = open("/lab/gpamap_test.ko", O_RDONLY | O_CLOEXEC);
		syscall(SYS_finit_module, fd, "", 0);
		close(fd);
	}
	errno = 0;
	return syscall(SYS_delete_module, "gpamap", O_NONBLOCK) == -1 &&
	       (errno == EBUSY || errno == EWOULDBLOCK);
}

/* What debugfs has of some maps, of whoever they are. */
static void read_debugfs(void)
{
	DIR *dir = opendir("/sys/kernel/debug/gpamap"), *files;
	struct dirent *entry, *file;
	char buf[4096];
	int map, fd;
	u32 n = 0;

	while (dir && n < 30 && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		n++;
		map = openat(dirfd(dir), entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		files = map < 0 ? NULL : fdopendir(map);
		while (files && (file = readdir(files))) {
			fd = openat(map, file->d_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
			if (fd < 0)
				continue;
			while (read(fd, buf, sizeof(buf)) > 0)
				;
			close(fd);
		}
		if (files)
			closedir(files);
	}
	if (dir)
		closedir(dir);
}

/*
 * What is slow to come: a thousand maps at once, one who has no right to the device, one who
 * is out of memory, and each kind of tie.
 */
static bool enough(void)
{
	u32 i;

	for (i = 0; i < NR_TIES; i++)
		if (!__atomic_load_n(&shared->ties[i], __ATOMIC_RELAXED))
			return false;
	return __atomic_load_n(&shared->many, __ATOMIC_RELAXED) &&
	       __atomic_load_n(&shared->unprivileged, __ATOMIC_RELAXED) &&
	       memcg_events(&cgroup, "oom_kill") > 0;
}

/* A limit that lets VMM2 go on for a while, or none. */
static void squeeze(struct rnd *r)
{
	int64_t used = memcg_used(&cgroup);

	if (used >= 0)
		memcg_limit(&cgroup, one_in(r, 3) ? U64_MAX : (u64)used + rnd_below(r, 1 << 20));
}

/* What the parent does, and since when; of its process alone. */
static struct {
	const char *what;
	u64 since;
} doing;

static void now_doing(const char *what)
{
	__atomic_store_n(&doing.what, what, __ATOMIC_RELAXED);
	__atomic_store_n(&doing.since, now_ms(), __ATOMIC_RELAXED);
}

/* Has the kernel tell what everybody is at when the parent is stuck: all that a hang leaves. */
static void *watch(void *unused)
{
	const u64 patience = 120000 * env_number("PATIENCE", 1);
	int fd;

	(void)unused;
	for (;;) {
		sleep(1);
		if (now_ms() - __atomic_load_n(&doing.since, __ATOMIC_RELAXED) < patience)
			continue;
		printf("# the parent is stuck: %s\n",
		       __atomic_load_n(&doing.what, __ATOMIC_RELAXED));
		fd = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "t", 1) != 1)
			printf("# no stacks in the log: %s\n", strerror(errno));
		if (fd >= 0)
			close(fd);
		return NULL;
	}
}

static bool fuzz(u64 ms)
{
	u64 end = now_ms() + ms, tries = 0, kills = 0;
	/* On a slow machine it takes a while until all have begun. */
	u64 latest = end + 60000 * env_number("PATIENCE", 1);
	int anchor = map_open(), status;
	bool good = anchor >= 0 && !memcg_create(&cgroup, "fuzz_abi");
	pthread_t watcher;
	struct rnd r;
	u32 i;

	now_doing("begin");
	pthread_create(&watcher, NULL, watch, NULL);
	rnd_seed(&r, seed);
	for (i = 0; i < NR_WORKERS; i++)
		start_worker(i);
	while (good && (now_ms() < end || (!enough() && now_ms() < latest))) {
		usleep(5000 + rnd_below(&r, 10000));
		now_doing("remove the module");
		good = module_stays();
		tries++;
		now_doing("look for workers that have ended");
		for (i = 0; i < NR_WORKERS; i++) {
			if (waitpid(workers[i], &status, WNOHANG) != workers[i])
				continue;
			good = worker_ended(i, status) && good;
			start_worker(i);
		}
		if (one_in(&r, 20)) {
			i = rnd_below(&r, NR_WORKERS);
			if (i == MANY_MAPS && !enough())
				continue;
			now_doing("kill a worker");
			good = end_worker(i) && good;
			kills++;
			start_worker(i);
		}
		now_doing("read debugfs");
		if (one_in(&r, 50))
			read_debugfs();
		now_doing("limit memory");
		if (one_in(&r, 10))
			squeeze(&r);
	}
	now_doing("end all workers");
	memcg_limit(&cgroup, U64_MAX);
	for (i = 0; i < NR_WORKERS; i++)
		good = end_worker(i) && good;
	shared->squeezed = memcg_events(&cgroup, "oom_kill");
	memcg_destroy(&cgroup);
	printf("# %llu tries to remove the module, %llu workers killed\n",
	       (unsigned long long)tries, (unsigned long long)kills);
	/* What is in the passage is held by nobody else. */
	close(passage[0]);
	close(passage[1]);
	close(anchor);
	pthread_cancel(watcher);
	pthread_join(watcher, NULL);
	return good && tries;
}

/* That much was reached: a fuzzer that fails at the door finds nothing. */
static bool reached(void)
{
	bool good = true;
	u32 i;

	for (i = 0; i < NR_COMMANDS; i++) {
		printf("# %s: %llu done, %llu refused\n", command_names[i],
		       (unsigned long long)shared->ok[i],
		       (unsigned long long)shared->refused[i]);
		good = good && shared->refused[i] && (shared->ok[i] || i == UNKNOWN);
	}
	for (i = 0; i < NR_TIES; i++) {
		printf("# operation %u: done %llu times\n", FIRST_TIE + i,
		       (unsigned long long)shared->ties[i]);
		good = good && shared->ties[i];
	}
	printf("# EFAULT %llu, EIO %llu, EBUSY %llu; maps %llu, a thousand %llu times, passed %llu, forks %llu, argument pages %llu, exits %llu, users %llu, out of memory %lld\n",
	       (unsigned long long)shared->efault, (unsigned long long)shared->eio,
	       (unsigned long long)shared->ebusy, (unsigned long long)shared->maps,
	       (unsigned long long)shared->many, (unsigned long long)shared->passed,
	       (unsigned long long)shared->forks,
	       (unsigned long long)shared->argument_pages,
	       (unsigned long long)shared->vcpu_exits,
	       (unsigned long long)shared->unprivileged, (long long)shared->squeezed);
	return good && shared->efault && shared->many && shared->passed && shared->forks &&
	       shared->argument_pages && shared->unprivileged && shared->squeezed > 0;
}

/* A map with a guest works as ever. */
static bool usable(void)
{
	struct vm vm;
	bool good;

	good = !vm_create(&vm, false) && !vm_swap(&vm) && !vm_swap(&vm) &&
	       guest_read(&vm.guest, GUEST_DATA, 8).how == GUEST_RAM;
	vm_destroy(&vm);
	return good;
}

/* What a killed process held goes soon after it. */
static bool nothing_left(int refs, int vms)
{
	u64 end = now_ms() + 20000 * env_number("PATIENCE", 1);

	while (now_ms() < end && (module_refcnt("gpamap") != refs || kvm_vms() != vms))
		usleep(10000);
	printf("# references %d, before %d; VMs %d, before %d\n", module_refcnt("gpamap"), refs,
	       kvm_vms(), vms);
	return module_refcnt("gpamap") == refs && kvm_vms() == vms;
}

static int results;

static bool result(const char *name, bool good)
{
	printf("%sok %d fuzz_abi.%s\n", good ? "" : "not ", ++results, name);
	return good;
}

int main(int argc, char **argv)
{
	int refs = module_refcnt("gpamap"), vms = kvm_vms();
	bool good;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (argc == 3 && !strcmp(argv[1], "--exec")) {
		passage[0] = passage[1] = -1;
		return run_exec(strtoull(argv[2], NULL, 10));
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	seed = test_seed();
	printf("TAP version 13\n1..4\n# seed %llu\n", (unsigned long long)seed);
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, passage))
		return 1;
	good = result("workers_go_on_and_the_module_stays",
		      fuzz(1000 * env_number("SECONDS", 20)));
	good = result("all_calls_get_far_and_are_refused", reached()) && good;
	good = result("usable", usable()) && good;
	good = result("nothing_left", nothing_left(refs, vms)) && good;
	return !good;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Guest memory: the only file that talks to libgpamap, and the whole of what gvmm
 * knows about memslots, which is nothing.
 *
 * The guest's RAM is one region. The guest sees it through two aliases, because a
 * PC has other things below 4 GiB. What lies on top of RAM does so by priority: no
 * piece of RAM is cut out for it.
 *
 *	system			container, 2^64 bytes, what the memory space looks at
 *	  ram-below-4g		0		alias of ram from 0
 *	  ram-above-4g		4 GiB		alias of ram from 3 GiB, if -m is larger
 *	  vga-window		0xa0000		io, over RAM
 *	  bios			0xf0000		rom, over RAM
 *	  bios-top		4 GiB - 64 KiB	alias of bios
 *	  ioapic, local-apic			io; KVM answers them itself, they stand
 *						here for whoever looks at the map
 *	  virtio-blk.0, ..., card		io: devices, from memory_add_io()
 *	ram			in no container: seen through its aliases only
 *	ports			container, what the space of the I/O ports looks at; not with
 *				--map, whose file may have such a space
 *	  pm-timer		0x608		io; a handler in the kernel answers it, if there
 *						is one
 *
 * All of it is one batch, with the registers and doorbells of the devices and with the
 * handler: the guest's memory is there completely or not at all, and there is no moment in
 * which a device is there without what the kernel answers of it.
 * KVM's own pages for Intel (GPA_KVM_IDENTITY, GPA_KVM_TSS) are a hole in the map.
 *
 * Set-up is the main thread's. Afterwards the tree stays, save that memory_move() puts a
 * device elsewhere. Whose an access is that left to gvmm, the record of the vCPU says
 * (gpamap_exit_resolve()), and what memory a device reaches, is asked of the map each time
 * (gpamap_lookup()); neither waits for a commit. gvmm has no list of its own that could be
 * wrong.
 */
#include "gvmm.h"

#include <errno.h>
#include <gpamap.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

enum region {
	REGION_SYSTEM = 1,
	REGION_RAM,
	REGION_RAM_LOW,
	REGION_RAM_HIGH,
	REGION_VGA,
	REGION_BIOS,
	REGION_BIOS_TOP,
	REGION_IOAPIC,
	REGION_LOCAL_APIC,
	REGION_PORTS,
	REGION_PM_TIMER,
	REGION_DEVICE = 20,		/* and on: vm->io[] */
};

enum space {
	SPACE_MEMORY = 1000000,		/* those of a map file begin with 1 */
	SPACE_PORTS,
};

enum prio {
	PRIO_RAM = 0,
	PRIO_DEVICE = 1,
};

#define HUGE_PAGE (2 * MIB)

/* Where low RAM ends. */
uint64_t memory_low_end(const struct gvmm *vm)
{
	return vm->ram_len < GPA_LOW_RAM_END ? vm->ram_len : GPA_LOW_RAM_END;
}

/* The host's view of @len bytes of low RAM, or NULL if they are not all there. */
void *memory_at(const struct gvmm *vm, uint64_t gpa, uint64_t len)
{
	uint64_t end = memory_low_end(vm);

	return gpa <= end && len <= end - gpa ? vm->ram + gpa : NULL;
}

/* Does the guest see writable RAM at @gpa? */
bool memory_is_ram(const struct gvmm *vm, uint64_t gpa)
{
	if (gpa >= GPA_VGA && gpa < GPA_VGA_END)
		return false;
	if (gpa >= GPA_BIOS && gpa < GPA_BIOS + BIOS_LEN)
		return false;
	if (gpa < memory_low_end(vm))
		return true;
	return gpa >= GPA_HIGH_RAM &&
	       gpa - GPA_HIGH_RAM < vm->ram_len - memory_low_end(vm);
}

/*
 * Memory that takes no room before the guest uses it. It begins on a boundary that
 * allows huge pages wherever the guest's addresses do.
 */
static uint8_t *memory_alloc(uint64_t len)
{
	uint8_t *start;

	start = mmap(NULL, len + HUGE_PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (start == MAP_FAILED)
		fail("%llu MiB of guest memory: %s (%s)",
		     (unsigned long long)(len / MIB), strerror(errno),
		     error_name(errno));
	return (uint8_t *)(((uintptr_t)start + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
}

/* The name given to region @id by an operation before @index. */
static const char *region_name(const struct gpamap_batch *batch, uint32_t index,
			       uint32_t id)
{
	const struct gpamap_op *op;

	while (index-- > 0) {
		op = gpamap_batch_get(batch, index);
		if (op->code == GPAMAP_OP_REGION && op->id == id)
			return (const char *)op->name;
	}
	return "?";
}

static void fail_batch(const struct gpamap_batch *batch, uint32_t index, int err)
{
	const struct gpamap_op *op = gpamap_batch_get(batch, index);
	const char *what = "describing guest memory";
	const char *name = NULL;
	char text[96];

	if (op) {
		switch (op->code) {
		case GPAMAP_OP_REGION:
			what = "making region";
			name = (const char *)op->name;
			break;
		case GPAMAP_OP_ADD:
			what = "placing region";
			name = region_name(batch, index, op->id);
			break;
		case GPAMAP_OP_SPACE:
			what = "making space";
			name = (const char *)op->name;
			break;
		case GPAMAP_OP_REGISTERS:
			what = "registers of region";
			name = region_name(batch, index, op->id);
			break;
		case GPAMAP_OP_DOORBELL:
			what = "a doorbell of region";
			name = region_name(batch, index, op->id);
			break;
		case GPAMAP_OP_HANDLER:
			what = "the handler of region";
			name = region_name(batch, index, op->id);
			break;
		}
	}
	if (name) {
		snprintf(text, sizeof(text), "%s \"%s\"", what, name);
		what = text;
	}
	fail("%s: %s (%s)", what, gpamap_op_error(op, err), error_name(-err));
}

static void memory_open(struct gvmm *vm)
{
	int err = gpamap_open(&vm->map);

	switch (err) {
	case 0:
		return;
	case -ENOENT:
		fail("/dev/gpamap: there is none, is the module gpamap loaded? (%s)",
		     error_name(-err));
	case -EACCES:
		fail("/dev/gpamap: no right to use it, are you in the group kvm? (%s)",
		     error_name(-err));
	default:
		fail("/dev/gpamap: %s (%s)", gpamap_call_error(GPAMAP_CALL_OPEN, err),
		     error_name(-err));
	}
}

/* A region at its place in "system". Errors are kept until the batch is applied. */
static void place(struct gpamap_batch *batch, enum region id, uint64_t at,
		  enum prio prio)
{
	gpamap_batch_add(batch, id, REGION_SYSTEM, at, prio);
}

static void describe_device(struct gpamap_batch *batch, uint32_t region,
			    const struct io_region *io)
{
	GPAMAP_TIES(ties, .registers = io->ties.registers,
		    .nr_registers = io->ties.nr_registers, .doorbells = io->ties.doorbells,
		    .nr_doorbells = io->ties.nr_doorbells);

	gpamap_batch_io_tied(batch, region, io->name, io->len - 1, &ties);
	place(batch, region, io->gpa, PRIO_DEVICE);
}

static void describe(struct gvmm *vm, struct gpamap_batch *batch)
{
	GPAMAP_TIES(pm_timer, .handler = vm->pm_timer ? "acpi-pm-timer" : NULL,
		    .handler_arg = vm->pm_timer);
	uint64_t low_end = memory_low_end(vm);
	unsigned int i;

	gpamap_batch_container(batch, REGION_SYSTEM, "system", UINT64_MAX);

	gpamap_batch_ram(batch, REGION_RAM, "ram", vm->ram_len - 1, vm->ram);
	gpamap_batch_alias(batch, REGION_RAM_LOW, "ram-below-4g", low_end - 1,
			   REGION_RAM, 0);
	place(batch, REGION_RAM_LOW, 0, PRIO_RAM);
	if (vm->ram_len > low_end) {
		gpamap_batch_alias(batch, REGION_RAM_HIGH, "ram-above-4g",
				   vm->ram_len - low_end - 1, REGION_RAM, low_end);
		place(batch, REGION_RAM_HIGH, GPA_HIGH_RAM, PRIO_RAM);
	}

	gpamap_batch_io(batch, REGION_VGA, "vga-window", GPA_VGA_END - GPA_VGA - 1);
	place(batch, REGION_VGA, GPA_VGA, PRIO_DEVICE);

	gpamap_batch_rom(batch, REGION_BIOS, "bios", BIOS_LEN - 1, vm->bios);
	place(batch, REGION_BIOS, GPA_BIOS, PRIO_DEVICE);
	gpamap_batch_alias(batch, REGION_BIOS_TOP, "bios-top", BIOS_LEN - 1,
			   REGION_BIOS, 0);
	place(batch, REGION_BIOS_TOP, GPA_BIOS_TOP, PRIO_DEVICE);

	gpamap_batch_io(batch, REGION_IOAPIC, "ioapic", APIC_LEN - 1);
	place(batch, REGION_IOAPIC, GPA_IOAPIC, PRIO_DEVICE);
	gpamap_batch_io(batch, REGION_LOCAL_APIC, "local-apic", APIC_LEN - 1);
	place(batch, REGION_LOCAL_APIC, GPA_LOCAL_APIC, PRIO_DEVICE);

	for (i = 0; i < vm->nr_io; i++)
		describe_device(batch, REGION_DEVICE + i, &vm->io[i]);

	gpamap_batch_space(batch, SPACE_MEMORY, "memory", GPAMAP_SPACE_MEMORY,
			   REGION_SYSTEM);

	if (!vm->own_ports)
		return;
	gpamap_batch_container(batch, REGION_PORTS, "ports", UINT16_MAX);
	gpamap_batch_io_tied(batch, REGION_PM_TIMER, "pm-timer", PM_TIMER_LEN - 1, &pm_timer);
	gpamap_batch_add(batch, REGION_PM_TIMER, REGION_PORTS, PORT_PM_TIMER, PRIO_DEVICE);
	gpamap_batch_space(batch, SPACE_PORTS, "ports", GPAMAP_SPACE_IO, REGION_PORTS);
}

/* Applies what describe() says; false if that failed because nobody offers the handler. */
static bool commit(struct gvmm *vm, struct gpamap_batch *batch)
{
	const struct gpamap_op *op;
	uint32_t failed = GPAMAP_NO_OP;
	int err;

	gpamap_batch_reset(batch);
	describe(vm, batch);
	err = gpamap_apply(vm->map, batch, &failed);
	if (!err)
		return true;
	op = gpamap_batch_get(batch, failed);
	if (err != -ENOENT || !op || op->code != GPAMAP_OP_HANDLER)
		fail_batch(batch, failed, err);
	return false;
}

/* Gives the VM its memory, still empty. */
void memory_create(struct gvmm *vm)
{
	struct gpamap_batch *batch;
	int err;

	vm->ram = memory_alloc(vm->ram_len);
	vm->bios = memory_alloc(BIOS_LEN);

	memory_open(vm);
	err = gpamap_attach(vm->map, vm->vm_fd, 0, 0);
	if (err)
		fail("attaching the map to the VM: %s (%s)",
		     gpamap_call_error(GPAMAP_CALL_ATTACH, err), error_name(-err));

	err = gpamap_batch_new(&batch);
	if (err)
		fail("describing guest memory: %s (%s)", strerror(-err),
		     error_name(-err));
	/* Without the module gpamap_pmtimer there is no PM timer, and the guest told so. */
	vm->pm_timer = vm->own_ports;
	while (!commit(vm, batch))
		vm->pm_timer = false;
	gpamap_batch_free(batch);
	err = gpamap_exits_map(vm->map, vm->nr_vcpus, &vm->exits);
	if (err)
		fail("records of exits: %s (%s)",
		     gpamap_call_error(GPAMAP_CALL_EXITS_MAP, err), error_name(-err));
}

/* ---- devices ---------------------------------------------------------- */

/*
 * A device of @len bytes at @gpa, before memory_create(). What the kernel does not answer
 * calls @access, in a vCPU's thread. Returns the id of its region.
 */
uint32_t memory_add_io(struct gvmm *vm, const char *name, uint64_t gpa, uint64_t len,
		       io_access *access, void *device)
{
	unsigned int i = vm->nr_io++;

	if (i == GVMM_MAX_IO)
		fail("more than %u devices; try gvmm --help", GVMM_MAX_IO);
	vm->io[i] = (struct io_region){
		.name = name, .gpa = gpa, .len = len, .access = access, .device = device,
	};
	return REGION_DEVICE + i;
}

/*
 * Has the kernel answer what @ties says of a device, before memory_create(), until which the
 * arrays have to stay.
 */
void memory_tie(struct gvmm *vm, uint32_t region, const struct io_ties *ties)
{
	vm->io[region - REGION_DEVICE].ties = *ties;
}

/* The page with the registers of a device, after memory_create(). */
_Atomic uint32_t *memory_registers(struct gvmm *vm, uint32_t region)
{
	void *page;
	int err;

	err = gpamap_registers_map(vm->map, region, &page);
	if (err)
		fail("registers of region %u: %s (%s)", region,
		     gpamap_call_error(GPAMAP_CALL_REGISTERS_MAP, err), error_name(-err));
	return page;
}

/* Moves a device while vCPUs run; ends the machine if that cannot be. */
bool memory_move(struct gvmm *vm, uint32_t region, uint64_t gpa)
{
	struct gpamap_batch *batch;
	int err = gpamap_batch_new(&batch);

	if (!err) {
		gpamap_batch_set_at(batch, region, gpa);
		err = gpamap_apply(vm->map, batch, NULL);
		gpamap_batch_free(batch);
	}
	if (err)
		gvmm_end(vm, GVMM_ERROR, "region %u does not move to 0x%llx: %s (%s)",
			 region, (unsigned long long)gpa, strerror(-err),
			 error_name(-err));
	return !err;
}

/* Brings an access that left to gvmm to its device; false if there is none. */
bool memory_io(struct vcpu *vcpu, uint64_t gpa, bool write, uint8_t *data, unsigned int len)
{
	struct gvmm *vm = vcpu->vm;
	struct gpamap_lookup at;
	const struct io_region *io;

	if (gpamap_exit_resolve(vm->map, gpamap_exits_at(vm->exits, vcpu->id), SPACE_MEMORY,
				gpa, &at) ||
	    at.out_region < REGION_DEVICE || at.out_region >= REGION_DEVICE + vm->nr_io)
		return false;
	io = &vm->io[at.out_region - REGION_DEVICE];
	io->access(io->device, at.out_offset, write, data, len);
	return true;
}

/*
 * The host's memory behind @len bytes from @gpa on, as the guest sees them: in pieces,
 * at most @max. Returns how many; -1 if it is not all memory, or not all writable and
 * @write is set. Any thread.
 */
int memory_dma(struct gvmm *vm, uint64_t gpa, uint64_t len, bool write, struct iovec *iov,
	       unsigned int max)
{
	struct gpamap_lookup at;
	unsigned int nr = 0;
	uint64_t n;

	for (; len; len -= n, gpa += n) {
		if (nr == max || gpamap_lookup(vm->map, SPACE_MEMORY, gpa, &at) || !at.out_hva)
			return -1;
		if (at.out_kind != GPAMAP_REGION_RAM &&
		    (write || at.out_kind != GPAMAP_REGION_ROM))
			return -1;
		if (write && (at.out_flags & GPAMAP_REGION_READONLY))
			return -1;
		n = at.out_last - gpa < len - 1 ? at.out_last - gpa + 1 : len;
		iov[nr++] = (struct iovec){
			.iov_base = (void *)(uintptr_t)at.out_hva, .iov_len = n,
		};
	}
	return nr;
}

/* ---- map files -------------------------------------------------------- */

/* The file owns the memory that it allocates, so it stays open as long as gvmm runs. */
static struct gpamap_mapfile *open_file(const char *path)
{
	struct gpamap_mapfile *file;
	int err;

	err = gpamap_mapfile_open(path, &file);
	if (err)
		fail("map file %s: %s (%s)", path, strerror(-err), error_name(-err));
	return file;
}

static void __attribute__((noreturn))
fail_file(const char *path, const struct gpamap_mapfile *file, int err)
{
	fflush(stdout);
	fail("%s:%u: %s (%s)", path, gpamap_mapfile_line(file),
	     gpamap_mapfile_error(file), error_name(-err));
}

/* Applies a map file on top: devices, overlays, more memory. */
void memory_apply_file(struct gvmm *vm, const char *path)
{
	struct gpamap_mapfile *file = open_file(path);
	int err;

	err = gpamap_mapfile_apply(file, vm->map);
	if (err)
		fail_file(path, file, err);
}

/*
 * Prints what every commit of a map file does to the memslots. Each is applied after it
 * was planned, for the next builds on it.
 */
void memory_plan_file(struct gvmm *vm, const char *path)
{
	struct gpamap_mapfile *file = open_file(path);
	struct gpamap_batch *batch;
	struct gpamap_apply plan;
	unsigned int commit = 0;
	uint32_t failed;
	int err;

	err = gpamap_batch_new(&batch);
	if (err)
		fail("reading %s: %s (%s)", path, strerror(-err), error_name(-err));
	while ((err = gpamap_mapfile_batch(file, batch)) == GPAMAP_MAPFILE_COMMIT) {
		err = gpamap_plan(vm->map, batch, &plan, &failed);
		if (!err) {
			printf("commit %u: %u deletes, %u moves, %u creates, "
			       "%llu bytes taken for a moment, vCPUs %s\n", ++commit,
			       plan.out_deletes, plan.out_moves, plan.out_creates,
			       (unsigned long long)plan.out_taken,
			       plan.out_plan & GPAMAP_PLAN_HOLD ? "held" : "not held");
			err = gpamap_apply(vm->map, batch, &failed);
		}
		if (err)
			fail_file(path, file,
				  gpamap_mapfile_blame(file, batch, failed, err));
	}
	if (err)
		fail_file(path, file, err);
	gpamap_batch_free(batch);
	if (fflush(stdout))
		fail("stdout: %s (%s)", strerror(errno), error_name(errno));
}

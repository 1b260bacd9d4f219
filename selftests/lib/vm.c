// SPDX-License-Identifier: GPL-2.0
/*
 * A VM that the map takes the ground from under, and gives back: see vm.h.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "vm.h"

/* The guest at ->guest.mem, in a map that owns all slots but the VMM's. */
static int make_map(struct vm *vm)
{
	const struct gpamap_op ops[] = {
		op_container(VM_ROOT, U64_MAX),
		op_ram(VM_HERE, GUEST_LEN - 1, vm->guest.mem),
		op_ram(VM_THERE, GUEST_LEN - 1, vm->there),
		op_ram(VM_MEM, VM_MEM_PAGES * TEST_PAGE - 1, vm->mem),
		op_ram(VM_OTHER, VM_MEM_PAGES * TEST_PAGE - 1, vm->mem),
		op_enable(VM_THERE, false),
		op_add(VM_HERE, VM_ROOT, GUEST_BASE, 0),
		op_add(VM_THERE, VM_ROOT, GUEST_BASE, 0),
		op_space(VM_SPACE, GPAMAP_SPACE_MEMORY, VM_ROOT),
	};
	int rc;

	vm->fd = map_open();
	if (vm->fd < 0)
		return vm->fd;
	rc = _test_cmd_apply(vm->fd, ops, ARRAY_SIZE(ops), NULL, NULL);
	return rc ?: _test_cmd_attach(vm->fd, vm->guest.vm, 0, VM_SLOTS);
}

int vm_create(struct vm *vm, bool irqchip)
{
	int rc;

	memset(vm, 0, sizeof(*vm));
	vm->fd = -1;
	rc = irqchip ? guest_create_irqchip(&vm->guest) : guest_create(&vm->guest);
	if (rc)
		return rc;
	vm->there = mmap(NULL, GUEST_LEN, PROT_READ | PROT_WRITE, MAP_SHARED,
			 vm->guest.memfd, 0);
	vm->mem = mmap(NULL, VM_MEM_PAGES * TEST_PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (vm->there == MAP_FAILED || vm->mem == MAP_FAILED)
		return -ENOMEM;
	rc = guest_set_slot(&vm->guest, GUEST_SLOT, 0, GUEST_BASE, 0, vm->guest.mem);
	return rc ?: make_map(vm);
}

void vm_destroy(struct vm *vm)
{
	if (vm->fd >= 0)
		close(vm->fd);
	munmap(vm->there, GUEST_LEN);
	munmap(vm->mem, VM_MEM_PAGES * TEST_PAGE);
	guest_destroy(&vm->guest);
}

int vm_swap(struct vm *vm)
{
	const struct gpamap_op ops[] = { SWAP_OPS(vm) };
	int rc = _test_cmd_apply(vm->fd, ops, ARRAY_SIZE(ops), NULL, NULL);

	if (!rc)
		vm->swapped = !vm->swapped;
	return rc;
}

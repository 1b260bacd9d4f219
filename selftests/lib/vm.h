/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A VM whose guest lives in memory of the map: page tables, code, stacks and data.
 *
 * vm_swap() is a commit that takes all of it and gives it back: the same memory at the same
 * place, by another host address, so that KVM has to delete the slot and create another.
 * A vCPU that is not held meanwhile leaves KVM_RUN with an exit of some kind; the guest's
 * programs have none but those that they make themselves.
 */
#ifndef VM_H
#define VM_H

#include "guest.h"

/* Regions and spaces of the map. A test may add more, from VM_FREE on. */
enum { VM_ROOT = 1, VM_HERE, VM_THERE, VM_MEM, VM_OTHER, VM_FREE };
enum { VM_SPACE = 1 };

#define VM_MEM_PAGES 16
#define VM_SLOTS 64			/* ids of the map; those behind are the VMM's */

struct vm {
	struct guest guest;
	int fd;
	void *there;			/* the guest's memory again */
	char *mem;			/* of VM_MEM and VM_OTHER, which are not attached */
	bool swapped;			/* the guest is seen at ->there */
};

/* With KVM's irqchip or without. 0 or -errno. */
int vm_create(struct vm *vm, bool irqchip);
void vm_destroy(struct vm *vm);

int vm_swap(struct vm *vm);
/* The operations of the next vm_swap(). */
#define SWAP_OPS(_vm)								\
	op_enable(VM_HERE, (_vm)->swapped), op_enable(VM_THERE, !(_vm)->swapped)

#endif /* VM_H */

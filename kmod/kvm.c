// SPDX-License-Identifier: GPL-2.0
/*
 * The only file that knows KVM.
 *
 * A VM is reached through its file, the way its process would: by the file's own
 * ioctl. No symbol of kvm.ko is used (from 6.18 on x86 there is next to none for
 * others), and KVM makes all its own checks. The file is known by the magic of
 * its filesystem and the name of its dentry; only kernel code can make such a
 * file. Holding it keeps the VM alive.
 *
 * KVM takes the description of a slot from user memory. It must not come from
 * memory that the VMM can write, so a page of the module's is mapped read-only
 * into the process: the argument page. The module writes it through its own
 * address and hands KVM the process's. A VMM may unmap it or map something else
 * there; therefore it is looked for before KVM is called, and mapped anew if it is
 * gone. A VMM that races with this gets a slot that it could have made itself, and
 * loses nothing but its own map.
 *
 * The mapping belongs to a file of its own, which holds the page but not the map
 * and not the VM: else the mapping would keep them alive after close.
 *
 * Slots can only be changed by the process that owns the VM. Closing a map does
 * not need that process: the slots stay, the references go.
 *
 * All functions run in process context under the lock of the map that the VM is
 * attached to; gpamap_vms_lock guards only the list of VMs.
 */
#include <linux/anon_inodes.h>
#include <linux/bitmap.h>
#include <linux/file.h>
#include <linux/magic.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>
#include "private.h"

/* Every VM that has a map, so that none gets two. */
static LIST_HEAD(gpamap_vms);
static DEFINE_MUTEX(gpamap_vms_lock);

static vm_fault_t scratch_fault(struct vm_fault *vmf)
{
	struct page *page = vmf->vma->vm_private_data;

	if (vmf->pgoff)
		return VM_FAULT_SIGBUS;
	get_page(page);
	vmf->page = page;
	return 0;
}

static const struct vm_operations_struct scratch_vm_ops = {
	.fault = scratch_fault,
};

/*
 * The file is open for reading only, so that a shared mapping of it can never be
 * made writable; a private one would be a copy and is refused.
 */
static int scratch_mmap(struct file *file, struct vm_area_struct *vma)
{
	if (!(vma->vm_flags & VM_MAYSHARE))
		return -EINVAL;
	vm_flags_set(vma, VM_DONTCOPY | VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_private_data = file->private_data;
	vma->vm_ops = &scratch_vm_ops;
	return 0;
}

static int scratch_release(struct inode *inode, struct file *file)
{
	put_page(file->private_data);
	return 0;
}

static const struct file_operations scratch_fops = {
	.owner = THIS_MODULE,
	.mmap = scratch_mmap,
	.release = scratch_release,
};

/* Whether the argument page is what the process has at ->uaddr. */
static bool scratch_mapped(struct gpamap_vm *vm)
{
	struct vm_area_struct *vma;
	bool mapped;

	if (!vm->uaddr)
		return false;
	mmap_read_lock(vm->mm);
	vma = find_vma(vm->mm, vm->uaddr);
	mapped = vma && vma->vm_start == vm->uaddr && vma->vm_file == vm->scratch &&
		 vma->vm_flags & VM_READ;
	mmap_read_unlock(vm->mm);
	return mapped;
}

static int scratch_map(struct gpamap_vm *vm)
{
	unsigned long uaddr;

	if (scratch_mapped(vm))
		return 0;
	vm->uaddr = 0;
	uaddr = vm_mmap(vm->scratch, 0, PAGE_SIZE, PROT_READ, MAP_SHARED, 0);
	if (IS_ERR_VALUE(uaddr))
		return uaddr;
	vm->uaddr = uaddr;
	return 0;
}

static int scratch_init(struct gpamap_vm *vm)
{
	vm->page = alloc_page(GPAMAP_GFP | __GFP_ZERO);
	if (!vm->page)
		return -ENOMEM;

	vm->scratch = anon_inode_getfile("[gpamap-scratch]", &scratch_fops, vm->page,
					 O_RDONLY);
	if (IS_ERR(vm->scratch)) {
		int rc = PTR_ERR(vm->scratch);

		vm->scratch = NULL;
		return rc;
	}
	get_page(vm->page);	/* of the file, put by scratch_release() */
	return scratch_map(vm);
}

static void scratch_exit(struct gpamap_vm *vm)
{
	if (vm->scratch) {
		/* In another process, or without any, the mapping goes with its mm. */
		if (current->mm == vm->mm && scratch_mapped(vm))
			vm_munmap(vm->uaddr, PAGE_SIZE);
		fput(vm->scratch);
	}
	if (vm->page)
		put_page(vm->page);
}

static bool file_is_vm(const struct file *file)
{
	return file_inode(file)->i_sb->s_magic == ANON_INODE_FS_MAGIC &&
	       !strcmp(file->f_path.dentry->d_name.name, "kvm-vm") &&
	       file->f_op->unlocked_ioctl;
}

static long vm_ioctl(struct gpamap_vm *vm, unsigned int cmd, unsigned long arg)
{
	return vm->file->f_op->unlocked_ioctl(vm->file, cmd, arg);
}

static int vm_list_add(struct gpamap_vm *vm)
{
	struct gpamap_vm *other;
	int rc = 0;

	mutex_lock(&gpamap_vms_lock);
	list_for_each_entry(other, &gpamap_vms, link)
		if (other->file->private_data == vm->file->private_data)
			rc = -EBUSY;
	if (!rc)
		list_add(&vm->link, &gpamap_vms);
	mutex_unlock(&gpamap_vms_lock);
	return rc;
}

static int vm_init(struct gpamap_vm *vm, int fd, u32 nr_slots)
{
	u32 as;
	long n;
	int rc;

	vm->file = fget(fd);
	if (!vm->file)
		return -EBADF;
	if (!file_is_vm(vm->file))
		return -EINVAL;
	/* KVM itself tells whose VM it is: EIO in any other process. */
	n = vm_ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);
	if (n < 0)
		return n;
	if (vm->first_slot >= n || nr_slots > n - vm->first_slot)
		return -EINVAL;
	vm->nr_slots = nr_slots ?: n - vm->first_slot;
	n = vm_ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_MEMORY_ATTRIBUTES);
	if (n > 0 && n & KVM_MEMORY_ATTRIBUTE_PRIVATE)
		return -EOPNOTSUPP;
	vm->readonly_mem = vm_ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) > 0;
	n = vm_ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE);
	vm->nr_as = clamp(n, 1L, (long)GPAMAP_NR_AS);

	rc = vm_list_add(vm);
	if (rc)
		return rc;
	for (as = 0; as < vm->nr_as; as++) {
		vm->ids[as] = bitmap_zalloc(vm->nr_slots, GPAMAP_GFP);
		if (!vm->ids[as])
			return -ENOMEM;
	}
	return scratch_init(vm);
}

/* Errors: those of struct gpamap_attach about the VM and the range of slots. */
int gpamap_vm_get(int fd, u32 first_slot, u32 nr_slots, struct gpamap_vm **out)
{
	struct gpamap_vm *vm;
	int rc;

	if (!current->mm)
		return -EIO;
	vm = kzalloc(sizeof(*vm), GPAMAP_GFP);
	if (!vm)
		return -ENOMEM;
	INIT_LIST_HEAD(&vm->link);
	vm->first_slot = first_slot;
	vm->mm = current->mm;
	mmgrab(vm->mm);

	rc = vm_init(vm, fd, nr_slots);
	if (rc) {
		gpamap_vm_put(vm);
		return rc;
	}
	*out = vm;
	return 0;
}

/* Leaves the slots as they are. Works in any process, and in one without an mm. */
void gpamap_vm_put(struct gpamap_vm *vm)
{
	u32 as;

	scratch_exit(vm);
	for (as = 0; as < GPAMAP_NR_AS; as++)
		bitmap_free(vm->ids[as]);
	mutex_lock(&gpamap_vms_lock);
	list_del(&vm->link);
	mutex_unlock(&gpamap_vms_lock);
	mmdrop(vm->mm);
	if (vm->file)
		fput(vm->file);
	kfree(vm);
}

int gpamap_vm_check_owner(const struct gpamap_vm *vm)
{
	return current->mm == vm->mm ? 0 : -EIO;
}

static int vm_set_slot(struct gpamap_vm *vm, const struct gpamap_slot *slot, u64 len)
{
	struct kvm_userspace_memory_region *arg = page_address(vm->page);
	int tries = 16;
	int rc;

	*arg = (struct kvm_userspace_memory_region){
		.slot = slot->as_id << 16 | slot->id,
		.flags = slot->readonly ? KVM_MEM_READONLY : 0,
		.guest_phys_addr = slot->gpa,
		.memory_size = len,
		.userspace_addr = slot->hva,
	};
	/* A thread of the VMM may have taken the page away since it was looked for. */
	do {
		rc = scratch_map(vm);
		if (rc)
			return rc;
		rc = vm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, vm->uaddr);
	} while (rc == -EFAULT && --tries);
	return rc;
}

/*
 * What KVM would refuse, as far as it can be known: -EOPNOTSUPP for an address space or a
 * read-only slot that it does not have, -EINVAL for host memory outside of the address
 * space of the process and for a slot that ends at 2^64.
 */
int gpamap_vm_check_slot(const struct gpamap_vm *vm, const struct gpamap_slot *slot)
{
	u64 len = slot->npages << PAGE_SHIFT, end;

	if (slot->as_id >= vm->nr_as || (slot->readonly && !vm->readonly_mem))
		return -EOPNOTSUPP;
	if (check_add_overflow(slot->gpa, len, &end) ||
	    !access_ok((void __user *)(unsigned long)slot->hva, len))
		return -EINVAL;
	return 0;
}

int gpamap_vm_create_slot(struct gpamap_vm *vm, const struct gpamap_slot *slot)
{
	return vm_set_slot(vm, slot, slot->npages << PAGE_SHIFT);
}

int gpamap_vm_delete_slot(struct gpamap_vm *vm, const struct gpamap_slot *slot)
{
	return vm_set_slot(vm, slot, 0);
}

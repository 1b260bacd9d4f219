// SPDX-License-Identifier: GPL-2.0
/*
 * A KVM VM: its file, the page that KVM's arguments are in, and its memslots.
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
 * When a map is closed its VM cannot be waited for (the last fput may come from a worker of
 * the kernel's that closes files for everybody): the VM is muted at once and stays in the list,
 * closing, until nothing of KVM can be in the module any more, of which gpamap_vm_closed() does
 * one step after the other. Who attaches the same VM meanwhile waits for that, as long as its
 * deadline says.
 *
 * All functions run in process context under the lock of the map that the VM is
 * attached to; gpamap_vms_lock guards only the list of VMs.
 */
#include <linux/anon_inodes.h>
#include <linux/bitmap.h>
#include <linux/file.h>
#include <linux/kvm_host.h>
#include <linux/magic.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <asm/processor.h>
#include "kvm.h"
#include "trace.h"

/* For tests, which set them while nothing else goes on. */
static unsigned int fail_nth;
module_param(fail_nth, uint, 0600);
MODULE_PARM_DESC(fail_nth, "Refuse the Nth memslot operation from now on");
static int fail_errno = ENOMEM;
module_param(fail_errno, int, 0600);
MODULE_PARM_DESC(fail_errno, "With which error");
static unsigned int fail_times = 1;
module_param(fail_times, uint, 0600);
MODULE_PARM_DESC(fail_times, "How many in a row fail_nth refuses");

/* Every VM that has a map, so that none gets two. */
static LIST_HEAD(gpamap_vms);
static DEFINE_SPINLOCK(gpamap_vms_lock);
static DECLARE_WAIT_QUEUE_HEAD(gpamap_vms_wait);	/* for one that is closing to go */

/* ---- the argument page ------------------------------------------------ */

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

/*
 * Before the first operation on a slot: the page is where it belongs. What has to be waited for
 * here, the lock of the process's memory, is waited for until the deadline.
 */
int gpamap_vm_ready_slots(struct gpamap_vm *vm, unsigned long deadline)
{
	while (!mmap_read_trylock(vm->mm)) {
		if (fatal_signal_pending(current))
			return -EINTR;
		if (!gpamap_time_left(deadline))
			return -EBUSY;
		schedule_timeout_killable(1);
	}
	mmap_read_unlock(vm->mm);
	return scratch_map(vm);
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

/* What stays mapped pins the module: what there is no memory for takes from the reserves. */
static void scratch_unmap(struct gpamap_vm *vm)
{
	unsigned int flags;

	if (vm_munmap(vm->uaddr, PAGE_SIZE) != -ENOMEM)
		return;
	flags = memalloc_noreclaim_save();
	vm_munmap(vm->uaddr, PAGE_SIZE);
	memalloc_noreclaim_restore(flags);
}

static void scratch_exit(struct gpamap_vm *vm)
{
	if (vm->scratch) {
		/* In another process, or without any, the mapping goes with its mm. */
		if (current->mm == vm->mm && scratch_mapped(vm))
			scratch_unmap(vm);
		fput(vm->scratch);
	}
	if (vm->page)
		put_page(vm->page);
	vm->scratch = NULL;
	vm->page = NULL;
}

/* ---- the VM ----------------------------------------------------------- */

struct kvm *gpamap_vm_kvm(const struct gpamap_vm *vm)
{
	return vm->file->private_data;
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

/* False if it had a map that is being closed; else @rc is 0, or -EBUSY if it has one. */
static bool vm_list_try_add(struct gpamap_vm *vm, int *rc)
{
	struct gpamap_vm *other;
	bool closing = false;

	*rc = 0;
	spin_lock(&gpamap_vms_lock);
	list_for_each_entry(other, &gpamap_vms, link) {
		if (other->file->private_data != vm->file->private_data)
			continue;
		*rc = -EBUSY;
		closing = other->closing;
	}
	if (!*rc)
		list_add(&vm->link, &gpamap_vms);
	spin_unlock(&gpamap_vms_lock);
	return !closing;
}

static int vm_list_add(struct gpamap_vm *vm, unsigned long deadline)
{
	int rc;

	/* If it is being closed for longer than that, -EBUSY it is. */
	if (wait_event_killable_timeout(gpamap_vms_wait, vm_list_try_add(vm, &rc),
					gpamap_time_left(deadline)) < 0)
		return -EINTR;
	return rc;
}

static void vm_list_del(struct gpamap_vm *vm)
{
	spin_lock(&gpamap_vms_lock);
	list_del_init(&vm->link);
	spin_unlock(&gpamap_vms_lock);
	wake_up_all(&gpamap_vms_wait);
}

/*
 * No symbol of KVM is used, so nobody has compared its structures with those that this
 * module was compiled for. What KVM tells by ioctl, and what can only be one thing, must be
 * found in them; stats_id is the last member of both.
 */
static int check_layout(struct gpamap_vm *vm, unsigned long deadline)
{
	struct kvm *kvm = gpamap_vm_kvm(vm);
	struct kvm_vcpu *vcpu;
	unsigned long i;
	int rc;

	BUILD_BUG_ON(!__same_type(kvm->lock, struct mutex));
	BUILD_BUG_ON(!__same_type(vcpu->mutex, struct mutex));
	BUILD_BUG_ON(!__same_type(vcpu->preempt_notifier, struct preempt_notifier));
	BUILD_BUG_ON(!__same_type(*kvm_arch_vcpu_get_wait(vcpu), struct rcuwait));

	if (kvm->mm != vm->mm || strncmp(kvm->stats_id, "kvm-", 4) ||
	    kvm->max_vcpus != vm_ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS))
		return -EOPNOTSUPP;
	rc = gpamap_lock_within(&kvm->lock, deadline);
	if (rc)
		return rc;
	kvm_for_each_vcpu(i, vcpu, kvm)
		if (vcpu->kvm != kvm || vcpu->vcpu_idx != i ||
		    strncmp(vcpu->stats_id, "kvm-", 4))
			rc = -EOPNOTSUPP;
	mutex_unlock(&kvm->lock);
	return rc;
}

/*
 * How many pages have addresses that a vCPU can make: KVM takes no slots for others where it
 * uses nested paging. As KVM reckons, with bits that were taken for keys of encryption.
 */
static u64 addressable_gfns(void)
{
	u32 bits = boot_cpu_data.x86_phys_bits;

	if (boot_cpu_data.extended_cpuid_level >= 0x80000008)
		bits = cpuid_eax(0x80000008) & 0xff;
	return 1ULL << (bits - PAGE_SHIFT);
}

static int vm_init(struct gpamap_vm *vm, int fd, u32 nr_slots, void *owner,
		   unsigned long deadline)
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
	vm->nr_gfns = addressable_gfns();
	vm->readonly_mem = vm_ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) > 0;
	n = vm_ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE);
	vm->nr_as = clamp(n, 1L, (long)GPAMAP_NR_AS);
	rc = check_layout(vm, deadline);
	if (rc)
		return rc;

	rc = vm_list_add(vm, deadline);
	if (rc)
		return rc;
	rc = gpamap_hold_init(vm);
	if (rc)
		return rc;
	rc = gpamap_vm_bus_init(vm, owner);
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
int gpamap_vm_get(int fd, u32 first_slot, u32 nr_slots, const struct gpamap_vm_ops *ops,
		  void *owner, u32 number, unsigned long deadline, struct gpamap_vm **out)
{
	struct gpamap_vm *vm;
	int rc;

	if (!current->mm)
		return -EIO;
	vm = kzalloc(sizeof(*vm), GPAMAP_GFP);
	if (!vm)
		return -ENOMEM;
	INIT_LIST_HEAD(&vm->link);
	vm->ops = ops;
	vm->number = number;
	vm->first_slot = first_slot;
	vm->mm = current->mm;
	mmgrab(vm->mm);

	rc = vm_init(vm, fd, nr_slots, owner, deadline);
	if (rc) {
		gpamap_vm_put(vm);
		return rc;
	}
	*out = vm;
	return 0;
}

/*
 * The end of a VM that has nothing on its buses: never had, has not any more and no vCPU was
 * in it since, or gpamap_vm_closed() says so. Leaves the slots as they are. Works in any
 * process, and in one without an mm.
 */
void gpamap_vm_put(struct gpamap_vm *vm)
{
	u32 as;

	gpamap_vm_bus_exit(vm);
	scratch_exit(vm);
	for (as = 0; as < GPAMAP_NR_AS; as++)
		bitmap_free(vm->ids[as]);
	vm_list_del(vm);
	mmdrop(vm->mm);
	gpamap_hold_exit(vm);
	if (vm->file)
		fput(vm->file);
	kfree(vm);
}

/*
 * The begin of the end, when the map is closed, and it waits for nothing of the VM's: what
 * begins from now on is answered no more. What has begun may still be here.
 */
void gpamap_vm_close(struct gpamap_vm *vm)
{
	gpamap_vm_bus_mute(vm);
	/* This may be the VM's process, which has to unmap it. */
	scratch_exit(vm);
	spin_lock(&gpamap_vms_lock);
	vm->closing = true;
	spin_unlock(&gpamap_vms_lock);
}

/* Whether that is over, and gpamap_vm_put() comes next. Waits for nothing: ask again later. */
bool gpamap_vm_closed(struct gpamap_vm *vm)
{
	return gpamap_vm_bus_leave(vm);
}

int gpamap_vm_check_owner(const struct gpamap_vm *vm)
{
	return current->mm == vm->mm ? 0 : -EIO;
}

/* ---- memslots --------------------------------------------------------- */

static bool fails_for_test(void)
{
	if (likely(!fail_nth) || --fail_nth)
		return false;
	if (fail_times > 1) {
		fail_times--;
		fail_nth = 1;
	}
	return true;
}

static int vm_set_slot(struct gpamap_vm *vm, const struct gpamap_slot *slot, u64 len)
{
	struct kvm_userspace_memory_region *arg = page_address(vm->page);
	int tries = 16;
	int rc;

	if (fails_for_test())
		return -fail_errno;
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
	int rc = vm_set_slot(vm, slot, slot->npages << PAGE_SHIFT);

	trace_gpamap_slot_create(vm, slot, rc);
	return rc;
}

int gpamap_vm_delete_slot(struct gpamap_vm *vm, const struct gpamap_slot *slot)
{
	int rc = vm_set_slot(vm, slot, 0);

	trace_gpamap_slot_delete(vm, slot, rc);
	return rc;
}

/*
 * To where @slot says: all else is as KVM has it. KVM can refuse all moves of a VM (EINVAL:
 * someone tracks its pages), which is remembered.
 */
int gpamap_vm_move_slot(struct gpamap_vm *vm, const struct gpamap_slot *slot)
{
	int rc = vm_set_slot(vm, slot, slot->npages << PAGE_SHIFT);

	if (rc == -EINVAL)
		vm->no_moves = true;
	trace_gpamap_slot_move(vm, slot, rc);
	return rc;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * The file that knows KVM; of its I/O buses kvm_bus.c does.
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
 * Holding vCPUs
 *
 * While memslots go and come, no vCPU may read guest memory: not the guest, and not KVM
 * on its behalf, which looks at page tables, fetches instructions to emulate, saves state
 * on an SMI, counts stolen time, finishes an access that the VMM has completed. All of
 * that happens in KVM_RUN, between two places that are safe:
 *
 *  1. Nobody is in KVM_RUN: who owns vcpu->mutex knows that, and that it stays so. It is
 *     never waited for, only tried.
 *  2. In KVM's run loop, where it handles work of the thread before the guest is entered
 *     (again). Nothing of the guest is half done there, SRCU is not held, and the only
 *     way on leads through the end of the work. A callback of task_work_add() that runs
 *     in a thread which has the vCPU loaded, runs there: all other places that run such
 *     work are on the way to user mode, in exit() or in io_uring, with no vCPU loaded.
 *     Loaded is what has its preempt notifier on current->preempt_notifiers.
 *
 * A vCPU is held when it is at one of them: when its mutex is ours, or when our callback
 * sleeps in its run loop and has said so. Without that word a queued callback proves
 * nothing, for KVM may be about to complete an access, or in the first half of an entry.
 * For the same reason a thread is not made to spin with a request bit: each turn would do
 * that first half.
 *
 * The thread is asked only if its mutex was not free. TIF_NOTIFY_RESUME and its kick make a
 * guest exit, and the run loop looks for work before it enters; a vCPU that halts or waits
 * for SIPI in the run loop is unblocked, finds itself not runnable and comes to the same
 * place. A callback that finds itself elsewhere (the thread left KVM_RUN before) waits
 * there until the mutex has been tried again; so a vCPU that exits all the time cannot slip
 * through for ever.
 *
 * One vCPU is at neither place: one that was never started (KVM_MP_STATE_UNINITIALIZED)
 * and sleeps in KVM_RUN outside of the loop. It cannot be unblocked without KVM_RUN telling
 * its VMM (EAGAIN). Whatever wakes it, it has not run and leaves KVM_RUN from there. So
 * it counts as held if our callback is queued and it is seen asleep: on its way out the
 * callback stops its thread. This alone holds a thread and not the vCPU: a VMM that lets a
 * second thread wait in KVM_RUN for the same vCPU, one never started, and that starts it
 * itself (KVM_SIGNAL_MSI) in the middle of a commit, has that vCPU run, and is the only one
 * to suffer. KVM_REQ_UNBLOCK can come a moment too late and stay; then a VMM that puts its
 * vCPU back to that state sees one EAGAIN more than it asked for.
 *
 * kvm->lock keeps new vCPUs from coming online. Others that a thread enters KVM_RUN with
 * meanwhile sleep on their mutex. All of it is let go after the last operation on a
 * memslot, or when the hold is not reached in hold_timeout_ms or the caller is killed.
 *
 * What is queued cannot be taken back. A callback whose thread sleeps somewhere may come
 * long after the hold; it finds that there is nothing to do. Until then it pins the module
 * and keeps struct hold, and at exit synchronize_rcu_tasks() waits for the last
 * instructions behind the pin.
 *
 * lockdep would have to remember all these mutexes, and knows 48. It is told that each is
 * released once it is ours, and taken again before it is let go: their order, which it
 * checks when they are taken, is trylock and cannot deadlock.
 *
 * All functions run in process context under the lock of the map that the VM is
 * attached to; gpamap_vms_lock guards only the list of VMs, hold->lock what callbacks
 * share.
 */
#include <linux/anon_inodes.h>
#include <linux/bitmap.h>
#include <linux/file.h>
#include <linux/kvm_host.h>
#include <linux/magic.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/rcuwait.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/task_work.h>
#include <linux/uaccess.h>
#include "private.h"
#include "trace.h"

#if !IS_ENABLED(CONFIG_KVM) || !defined(CONFIG_PREEMPT_NOTIFIERS)
#error "gpamap needs KVM, and its preempt notifiers"
#endif
#if defined(CONFIG_PREEMPTION) && !defined(CONFIG_TASKS_RCU)
#error "gpamap needs RCU that waits for preempted tasks, to be unloaded"
#endif

static unsigned int hold_timeout_ms = 3000;
module_param(hold_timeout_ms, uint, 0600);
MODULE_PARM_DESC(hold_timeout_ms, "How long to try to hold the vCPUs of a VM, in ms");

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

enum ask_state {
	ASK_NONE,		/* nothing is wanted of the thread */
	ASK_QUEUED,		/* it is asked to stop */
	ASK_PARKED,		/* it sleeps in the run loop: held */
	ASK_OUTSIDE,		/* it sleeps outside of KVM_RUN: try the mutex */
	ASK_NEVER_STARTED,	/* it sleeps as one that cannot run: held */
};

/* A thread that is asked to stop running a vCPU. */
struct ask {
	struct callback_head work;
	struct list_head link;		/* in hold->asks */
	struct hold *hold;
	wait_queue_head_t let_go;	/* for the state */
	struct kvm_vcpu *vcpu;
	struct task_struct *task;	/* only to compare, while in_flight */
	enum ask_state state;
	bool queued;			/* the callback has not begun */
	u32 in_flight;			/* callbacks that have not ended */
};

/* A vCPU of a VM that is being held. Of the committing thread only. */
struct held_vcpu {
	struct kvm_vcpu *vcpu;
	struct ask *ask;
	bool owned;			/* its mutex is ours */
};

/* How a VM is held. Outlives struct gpamap_vm while callbacks are out. */
struct hold {
	refcount_t refs;
	spinlock_t lock;		/* of what follows, and of every ask */
	bool active;
	u32 events;			/* that the committing thread has to look at */
	struct list_head asks;
	wait_queue_head_t reached;	/* for events */
	const struct mm_struct *mm;	/* of the VM, to compare */

	struct held_vcpu *vcpus;	/* while held */
	u32 nr_vcpus;
};

/* Every VM that has a map, so that none gets two. */
static LIST_HEAD(gpamap_vms);
static DEFINE_MUTEX(gpamap_vms_lock);

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
}

/* ---- holding vCPUs ---------------------------------------------------- */

struct kvm *gpamap_vm_kvm(const struct gpamap_vm *vm)
{
	return vm->file->private_data;
}

static struct hold *hold_alloc(const struct mm_struct *mm)
{
	struct hold *hold = kzalloc(sizeof(*hold), GPAMAP_GFP);

	if (!hold)
		return NULL;
	refcount_set(&hold->refs, 1);
	spin_lock_init(&hold->lock);
	INIT_LIST_HEAD(&hold->asks);
	init_waitqueue_head(&hold->reached);
	hold->mm = mm;
	return hold;
}

static void hold_put(struct hold *hold)
{
	if (refcount_dec_and_test(&hold->refs)) {
		WARN_ON_ONCE(!list_empty(&hold->asks));
		kfree(hold);
	}
}

static void ask_free(struct ask *ask)
{
	list_del(&ask->link);
	kfree(ask);
}

/* Whether this thread is in KVM_RUN, or another ioctl, of the vCPU. */
static bool vcpu_loaded(const struct kvm_vcpu *vcpu)
{
	struct preempt_notifier *notifier;

	hlist_for_each_entry(notifier, &current->preempt_notifiers, link)
		if (notifier == &vcpu->preempt_notifier)
			return true;
	return false;
}

/* Asked again already is as good: the thread comes back to the callback at once. */
static bool is_let_go(const struct ask *ask)
{
	enum ask_state state = READ_ONCE(ask->state);

	return state == ASK_NONE || state == ASK_QUEUED;
}

/* These two are read without the lock, too; they are changed under it. */
static void ask_set(struct ask *ask, enum ask_state state)
{
	WRITE_ONCE(ask->state, state);
}

static void hold_event(struct hold *hold)
{
	WRITE_ONCE(hold->events, hold->events + 1);
}

/* Runs in the thread that was asked. */
static void ask_callback(struct callback_head *work)
{
	struct ask *ask = container_of(work, struct ask, work);
	struct hold *hold = ask->hold;

	spin_lock(&hold->lock);
	ask->queued = false;
	if (ask->state == ASK_QUEUED) {
		/* A thread that has left the process, or is leaving, runs none of its vCPUs. */
		if (current->mm != hold->mm)
			ask_set(ask, ASK_NONE);
		else
			ask_set(ask, vcpu_loaded(ask->vcpu) ? ASK_PARKED : ASK_OUTSIDE);
	}
	hold_event(hold);
	spin_unlock(&hold->lock);
	wake_up(&hold->reached);

	wait_event_idle(ask->let_go, is_let_go(ask));

	spin_lock(&hold->lock);
	if (!--ask->in_flight && !hold->active)
		ask_free(ask);
	spin_unlock(&hold->lock);
	hold_put(hold);
	module_put(THIS_MODULE);
}

/* The thread that runs the vCPU, or ran it last; with a reference, or NULL. */
static struct task_struct *vcpu_thread(struct kvm_vcpu *vcpu)
{
	struct task_struct *task;
	struct pid *pid = gpamap_vcpu_get_pid(vcpu);

	task = get_pid_task(pid, PIDTYPE_PID);
	put_pid(pid);
	return task;
}

/* The one for that thread; else one for the vCPU that is free, to be used for the thread. */
static struct ask *ask_find(struct hold *hold, struct kvm_vcpu *vcpu,
			    struct task_struct *task)
{
	struct ask *ask, *unused = NULL;

	list_for_each_entry(ask, &hold->asks, link) {
		if (ask->vcpu != vcpu)
			continue;
		if (!ask->in_flight)
			unused = ask;
		else if (ask->task == task)
			return ask;
	}
	if (unused)
		unused->task = task;
	return unused;
}

/* Queues the callback if it is not, from an earlier hold even. */
static void ask_queue(struct hold *hold, struct ask *ask, struct task_struct *task)
{
	bool queue;

	spin_lock(&hold->lock);
	if (ask->state == ASK_NONE)
		ask_set(ask, ASK_QUEUED);
	/* Not if it has come to a stop meanwhile. */
	queue = ask->state == ASK_QUEUED && !ask->queued;
	if (queue) {
		ask->queued = true;
		ask->in_flight++;
		refcount_inc(&hold->refs);
		__module_get(THIS_MODULE);
	}
	spin_unlock(&hold->lock);
	if (!queue || !task_work_add(task, &ask->work, TWA_RESUME))
		return;

	/* It is in exit(), beyond all KVM_RUN. */
	spin_lock(&hold->lock);
	ask_set(ask, ASK_NONE);
	ask->queued = false;
	ask->in_flight--;
	spin_unlock(&hold->lock);
	hold_put(hold);
	module_put(THIS_MODULE);
}

/*
 * The thread may sleep where no callback runs. A vCPU that was never started is left
 * alone.
 */
static void unblock(struct hold *hold, struct ask *ask, struct task_struct *task)
{
	struct kvm_vcpu *vcpu = ask->vcpu;
	struct rcuwait *wait = kvm_arch_vcpu_get_wait(vcpu);

	if (READ_ONCE(vcpu->arch.mp_state) != KVM_MP_STATE_UNINITIALIZED) {
		kvm_make_request(KVM_REQ_UNBLOCK, vcpu);
		rcuwait_wake_up(wait);
		return;
	}
	/* It is the thread that sleeps; then only what was so before it slept counts. */
	spin_lock(&hold->lock);
	if (ask->state == ASK_QUEUED && ask->queued &&
	    rcu_access_pointer(wait->task) == task) {
		/* Pairs with rcu_assign_pointer() in prepare_to_rcuwait(). */
		smp_rmb();
		if (READ_ONCE(vcpu->arch.mp_state) == KVM_MP_STATE_UNINITIALIZED) {
			ask_set(ask, ASK_NEVER_STARTED);
			hold_event(hold);
		}
	}
	spin_unlock(&hold->lock);
}

static int ask_thread(struct hold *hold, struct held_vcpu *held)
{
	struct task_struct *task = vcpu_thread(held->vcpu);
	struct ask *ask = held->ask;
	int rc = 0;

	if (!task)
		return 0;
	/* It ran the vCPU before it became another process: it is not in KVM_RUN. */
	if (READ_ONCE(task->mm) != hold->mm)
		goto out;
	if (!ask || ask->task != task) {
		spin_lock(&hold->lock);
		ask = ask_find(hold, held->vcpu, task);
		spin_unlock(&hold->lock);
	}
	if (!ask) {
		ask = kzalloc(sizeof(*ask), GPAMAP_GFP);
		if (!ask) {
			rc = -ENOMEM;
			goto out;
		}
		init_task_work(&ask->work, ask_callback);
		init_waitqueue_head(&ask->let_go);
		ask->hold = hold;
		ask->vcpu = held->vcpu;
		ask->task = task;
		spin_lock(&hold->lock);
		list_add(&ask->link, &hold->asks);
		spin_unlock(&hold->lock);
	}
	held->ask = ask;
	ask_queue(hold, ask, task);
	unblock(hold, ask, task);
out:
	put_task_struct(task);
	return rc;
}

static enum ask_state ask_state(const struct held_vcpu *held)
{
	return held->ask ? READ_ONCE(held->ask->state) : ASK_NONE;
}

static void ask_let_go(struct hold *hold, struct ask *ask)
{
	spin_lock(&hold->lock);
	ask_set(ask, ASK_NONE);
	wake_up(&ask->let_go);
	spin_unlock(&hold->lock);
}

/* Whether the vCPU is held; if not, what can be done for it is done. */
static int hold_vcpu(struct hold *hold, struct held_vcpu *held)
{
	enum ask_state state = ask_state(held);
	int rc;

	if (held->owned || state == ASK_PARKED || state == ASK_NEVER_STARTED)
		return true;
	if (mutex_trylock(&held->vcpu->mutex)) {
		mutex_release(&held->vcpu->mutex.dep_map, _THIS_IP_);
		held->owned = true;
	}
	if (state == ASK_OUTSIDE)
		ask_let_go(hold, held->ask);
	if (held->owned)
		return true;
	/* Another thread has the mutex: look again later, who. */
	if (state == ASK_OUTSIDE)
		return false;
	rc = ask_thread(hold, held);
	if (rc)
		return rc;
	return ask_state(held) == ASK_NEVER_STARTED;
}

static int hold_reach(struct hold *hold, unsigned long deadline)
{
	u32 i, seen, missing;
	int rc;

	for (;;) {
		spin_lock(&hold->lock);
		seen = hold->events;
		spin_unlock(&hold->lock);
		missing = 0;
		for (i = 0; i < hold->nr_vcpus; i++) {
			cond_resched();
			rc = hold_vcpu(hold, &hold->vcpus[i]);
			if (rc < 0)
				return rc;
			missing += !rc;
		}
		if (!missing)
			return 0;
		if (fatal_signal_pending(current))
			return -EINTR;
		if (time_after(jiffies, deadline))
			return -EBUSY;
		/* Not every change is an event: a mutex may be free without. */
		wait_event_killable_timeout(hold->reached,
					    READ_ONCE(hold->events) != seen, 1);
	}
}

static int hold_begin(struct hold *hold, struct kvm *kvm)
{
	struct kvm_vcpu *vcpu;
	unsigned long i;

	hold->nr_vcpus = 0;
	hold->vcpus = kvcalloc(atomic_read(&kvm->online_vcpus), sizeof(*hold->vcpus),
			       GPAMAP_GFP);
	if (!hold->vcpus)
		return -ENOMEM;
	kvm_for_each_vcpu(i, vcpu, kvm)
		hold->vcpus[hold->nr_vcpus++].vcpu = vcpu;
	spin_lock(&hold->lock);
	hold->active = true;
	spin_unlock(&hold->lock);
	return 0;
}

static void hold_end(struct hold *hold)
{
	struct ask *ask, *next;
	u32 i;

	spin_lock(&hold->lock);
	hold->active = false;
	list_for_each_entry_safe(ask, next, &hold->asks, link) {
		ask_set(ask, ASK_NONE);
		wake_up(&ask->let_go);
		if (!ask->in_flight)
			ask_free(ask);
	}
	spin_unlock(&hold->lock);

	for (i = 0; i < hold->nr_vcpus; i++) {
		struct mutex *mutex = &hold->vcpus[i].vcpu->mutex;

		if (!hold->vcpus[i].owned)
			continue;
		mutex_acquire(&mutex->dep_map, 0, 1, _THIS_IP_);
		mutex_unlock(mutex);
	}
	kvfree(hold->vcpus);
	hold->vcpus = NULL;
}

static int lock_kvm(struct kvm *kvm, unsigned long deadline)
{
	while (!mutex_trylock(&kvm->lock)) {
		if (fatal_signal_pending(current))
			return -EINTR;
		if (time_after(jiffies, deadline))
			return -EBUSY;
		schedule_timeout_killable(1);
	}
	return 0;
}

/*
 * Keeps all vCPUs of the VM out of the guest, and out of all of KVM_RUN that reads guest
 * memory, until gpamap_vm_release(). 0; -EBUSY, -EINTR or -ENOMEM when that could not be
 * reached, and nobody is held.
 */
int gpamap_vm_hold(struct gpamap_vm *vm)
{
	unsigned long deadline = jiffies + msecs_to_jiffies(READ_ONCE(hold_timeout_ms));
	struct kvm *kvm = gpamap_vm_kvm(vm);
	int rc;

	trace_gpamap_hold_begin(vm, atomic_read(&kvm->online_vcpus));
	rc = lock_kvm(kvm, deadline);
	if (!rc) {
		rc = hold_begin(vm->hold, kvm);
		if (rc)
			mutex_unlock(&kvm->lock);
	}
	if (!rc) {
		rc = hold_reach(vm->hold, deadline);
		if (rc) {
			hold_end(vm->hold);
			mutex_unlock(&kvm->lock);
		}
	}
	trace_gpamap_hold_reached(vm, rc);
	return rc;
}

void gpamap_vm_release(struct gpamap_vm *vm)
{
	hold_end(vm->hold);
	mutex_unlock(&gpamap_vm_kvm(vm)->lock);
	trace_gpamap_hold_end(vm);
}

/* No callback is out: each pins the module. The last may still be returning. */
void gpamap_vm_exit(void)
{
	synchronize_rcu_tasks();
}

/* ---- the VM ----------------------------------------------------------- */

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

/*
 * No symbol of KVM is used, so nobody has compared its structures with those that this
 * module was compiled for. What KVM tells by ioctl, and what can only be one thing, must be
 * found in them; stats_id is the last member of both.
 */
static int check_layout(struct gpamap_vm *vm)
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
	rc = mutex_lock_killable(&kvm->lock);
	if (rc)
		return rc;
	kvm_for_each_vcpu(i, vcpu, kvm)
		if (vcpu->kvm != kvm || vcpu->vcpu_idx != i ||
		    strncmp(vcpu->stats_id, "kvm-", 4))
			rc = -EOPNOTSUPP;
	mutex_unlock(&kvm->lock);
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
	rc = check_layout(vm);
	if (rc)
		return rc;

	rc = vm_list_add(vm);
	if (rc)
		return rc;
	vm->hold = hold_alloc(vm->mm);
	if (!vm->hold)
		return -ENOMEM;
	rc = gpamap_vm_bus_init(vm, vm->map);
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
int gpamap_vm_get(int fd, u32 first_slot, u32 nr_slots, struct gpamap *map,
		  struct gpamap_vm **out)
{
	struct gpamap_vm *vm;
	int rc;

	if (!current->mm)
		return -EIO;
	vm = kzalloc(sizeof(*vm), GPAMAP_GFP);
	if (!vm)
		return -ENOMEM;
	INIT_LIST_HEAD(&vm->link);
	vm->map = map;
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

	gpamap_vm_bus_exit(vm);
	scratch_exit(vm);
	for (as = 0; as < GPAMAP_NR_AS; as++)
		bitmap_free(vm->ids[as]);
	mutex_lock(&gpamap_vms_lock);
	list_del(&vm->link);
	mutex_unlock(&gpamap_vms_lock);
	mmdrop(vm->mm);
	if (vm->hold)
		hold_put(vm->hold);
	if (vm->file)
		fput(vm->file);
	kfree(vm);
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

// SPDX-License-Identifier: GPL-2.0
/*
 * Holding the vCPUs of a VM.
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
 * vCPUs are not the only ones for whom KVM waits in its operations, without a limit. So when all
 * are held, KVM's slots_lock is had for a moment, and then it is waited until nobody is seen inside
 * of KVM's SRCU, both within the deadline: whoever had the lock or was inside (another thread of
 * the VMM in an ioctl of the VM, which can sleep there in a page fault) has left. That is looked
 * at, and no grace period is waited for: such a wait can be neither bounded nor killed, and whoever
 * would do it for the caller could be made to sleep as long as a VMM likes. Only who comes later,
 * in the middle of the operations, and sleeps for long, keeps KVM and with it the caller waiting;
 * that a VMM does to itself.
 *
 * All functions run in process context under the lock of the map that the VM is
 * attached to; hold->lock guards what callbacks share.
 */
#include <linux/delay.h>
#include <linux/kvm_host.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/rcuwait.h>
#include <linux/sched/signal.h>
#include <linux/srcu.h>
#include <linux/task_work.h>
#include "kvm.h"
#include "trace.h"

#if !IS_ENABLED(CONFIG_KVM) || !defined(CONFIG_PREEMPT_NOTIFIERS)
#error "gpamap needs KVM, and its preempt notifiers"
#endif
#if defined(CONFIG_PREEMPTION) && !defined(CONFIG_TASKS_RCU)
#error "gpamap needs RCU that waits for preempted tasks, to be unloaded"
#endif

static unsigned int hold_timeout_ms = 3000;
module_param(hold_timeout_ms, uint, 0600);
MODULE_PARM_DESC(hold_timeout_ms, "How long a call that says nothing else may wait, in ms");

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

/* ---- waiting ---------------------------------------------------------- */

/* When a call that begins now has to give up; 0 for the module's default. */
unsigned long gpamap_deadline(u32 timeout_ms)
{
	return jiffies + msecs_to_jiffies(timeout_ms ?: READ_ONCE(hold_timeout_ms));
}

/* In jiffies; 0 when it is over. */
long gpamap_time_left(unsigned long deadline)
{
	return max((long)(deadline - jiffies), 0L);
}

/* Takes a lock of KVM's, which has no such function: 0, -EBUSY, or -EINTR when killed. */
int gpamap_lock_within(struct mutex *lock, unsigned long deadline)
{
	while (!mutex_trylock(lock)) {
		if (fatal_signal_pending(current))
			return -EINTR;
		if (!gpamap_time_left(deadline))
			return -EBUSY;
		schedule_timeout_killable(1);
	}
	return 0;
}

/* ---- asking threads to stop ------------------------------------------- */

static void hold_put(struct hold *hold)
{
	if (refcount_dec_and_test(&hold->refs)) {
		WARN_ON_ONCE(!list_empty(&hold->asks));
		kfree(hold);
	}
}

int gpamap_hold_init(struct gpamap_vm *vm)
{
	struct hold *hold = kzalloc(sizeof(*hold), GPAMAP_GFP);

	if (!hold)
		return -ENOMEM;
	refcount_set(&hold->refs, 1);
	spin_lock_init(&hold->lock);
	INIT_LIST_HEAD(&hold->asks);
	init_waitqueue_head(&hold->reached);
	hold->mm = vm->mm;
	vm->hold = hold;
	return 0;
}

void gpamap_hold_exit(struct gpamap_vm *vm)
{
	if (vm->hold)
		hold_put(vm->hold);
}

/* Whether there is anybody who could be held; the next moment there may be. */
bool gpamap_vm_has_vcpus(const struct gpamap_vm *vm)
{
	return atomic_read(&gpamap_vm_kvm(vm)->online_vcpus);
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
		if (!gpamap_time_left(deadline))
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

/* Nobody has it who waits for a vCPU. */
static int probe_slots_lock(struct kvm *kvm, unsigned long deadline)
{
	int rc = gpamap_lock_within(&kvm->slots_lock, deadline);

	if (!rc)
		mutex_unlock(&kvm->slots_lock);
	return rc;
}

/*
 * Whether anybody is inside of the SRCU who was when this began. If as many have entered it as
 * had left it before, each of those who had entered has left.
 */
static bool srcu_has_readers(struct srcu_struct *srcu)
{
	unsigned long left = 0, entered = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		left += gpamap_srcu_left(srcu, cpu, 0) + gpamap_srcu_left(srcu, cpu, 1);
	/*
	 * Pairs with the barriers in __srcu_read_lock() and __srcu_read_unlock(): of whom it is
	 * seen that he left it is seen that he entered, on whatever CPU either was.
	 */
	smp_mb();
	for_each_possible_cpu(cpu)
		entered += gpamap_srcu_entered(srcu, cpu, 0) + gpamap_srcu_entered(srcu, cpu, 1);
	return entered != left;
}

/*
 * Until there is a moment in which nobody is inside of KVM's SRCU. Those who stay for a moment
 * are gone when it is looked again; vCPUs stand still, so it is looked soon.
 */
static int wait_for_others(struct kvm *kvm, unsigned long deadline)
{
	while (srcu_has_readers(&kvm->srcu)) {
		if (fatal_signal_pending(current))
			return -EINTR;
		if (!gpamap_time_left(deadline))
			return -EBUSY;
		usleep_range(50, 100);
	}
	return 0;
}

static int hold_all(struct gpamap_vm *vm, struct kvm *kvm, unsigned long deadline,
		    bool kvm_waits)
{
	int rc;

	rc = hold_begin(vm->hold, kvm);
	if (rc)
		return rc;
	rc = hold_reach(vm->hold, deadline);
	if (!rc && kvm_waits)
		rc = probe_slots_lock(kvm, deadline) ?: wait_for_others(kvm, deadline);
	if (rc)
		hold_end(vm->hold);
	return rc;
}

/*
 * Keeps all vCPUs of the VM out of the guest, and out of all of KVM_RUN that reads guest
 * memory or asks the buses, until gpamap_vm_release(). With @kvm_waits, operations on memslots
 * or buses come next, in which KVM waits for others than vCPUs, too. 0; -EBUSY, -EINTR or -ENOMEM
 * when that could not be reached, and nobody is held.
 */
int gpamap_vm_hold(struct gpamap_vm *vm, unsigned long deadline, bool kvm_waits)
{
	struct kvm *kvm = gpamap_vm_kvm(vm);
	int rc;

	vm->held_since = ktime_get_ns();
	rc = kvm_waits ? gpamap_vm_ready_slots(vm, deadline) : 0;
	if (rc)
		return rc;
	WRITE_ONCE(vm->holding, true);
	trace_gpamap_hold_begin(vm, atomic_read(&kvm->online_vcpus));
	rc = gpamap_lock_within(&kvm->lock, deadline);
	vm->held_since = ktime_get_ns();
	if (!rc) {
		rc = hold_all(vm, kvm, deadline, kvm_waits);
		if (rc)
			mutex_unlock(&kvm->lock);
	}
	if (rc)
		WRITE_ONCE(vm->holding, false);
	trace_gpamap_hold_reached(vm, rc);
	return rc;
}

void gpamap_vm_release(struct gpamap_vm *vm)
{
	hold_end(vm->hold);
	WRITE_ONCE(vm->holding, false);
	mutex_unlock(&gpamap_vm_kvm(vm)->lock);
	trace_gpamap_hold_end(vm);
}

/* No callback is out: each pins the module. The last may still be returning. */
void gpamap_hold_stop(void)
{
	synchronize_rcu_tasks();
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The code is written for the newest kernel of the range; what older ones lack is
 * here and nowhere else. Kbuild includes this file in front of every source.
 */
#ifndef GPAMAP_COMPAT_H
#define GPAMAP_COMPAT_H

#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0) || \
	LINUX_VERSION_CODE >= KERNEL_VERSION(7, 4, 0)
#error "gpamap is written for Linux 6.1 to 7.3"
#endif

#include <linux/hrtimer.h>
#include <linux/mm.h>
#include <uapi/linux/kvm.h>
/* Since 6.16: cpuid_eax() has a header of its own. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
#include <asm/cpuid/api.h>
#endif

/* Since 6.3: vma->vm_flags is written through helpers. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags |= flags;
}
#endif

/* Since 6.8: VMs with private memory. Older KVMs answer 0 to what they do not know. */
#ifndef KVM_CAP_MEMORY_ATTRIBUTES
#define KVM_CAP_MEMORY_ATTRIBUTES 233
#define KVM_MEMORY_ATTRIBUTE_PRIVATE (1ULL << 3)
#endif

/* Since 6.8: always by one. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define gpamap_eventfd_signal(ctx) eventfd_signal(ctx, 1)
#else
#define gpamap_eventfd_signal(ctx) eventfd_signal(ctx)
#endif

/* Since 6.13: a timer and its function are set in one call. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
static inline void hrtimer_setup(struct hrtimer *timer,
				 enum hrtimer_restart (*function)(struct hrtimer *timer),
				 clockid_t clock, enum hrtimer_mode mode)
{
	hrtimer_init(timer, clock, mode);
	timer->function = function;
}
#endif

/* Since 6.13: vcpu->pid is under a lock of its own. A reference, or NULL. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 13, 0)
#define gpamap_vcpu_get_pid(vcpu)					\
({									\
	struct pid *__pid;						\
									\
	rcu_read_lock();						\
	__pid = get_pid(rcu_dereference((vcpu)->pid));			\
	rcu_read_unlock();						\
	__pid;								\
})
#else
#define gpamap_vcpu_get_pid(vcpu)					\
({									\
	struct pid *__pid;						\
									\
	read_lock(&(vcpu)->pid_lock);					\
	__pid = get_pid((vcpu)->pid);					\
	read_unlock(&(vcpu)->pid_lock);					\
	__pid;								\
})
#endif

/*
 * How often an SRCU was entered and left on a CPU, by index 0 and 1; without other CPUs, how deep
 * it is entered. Before 6.2 they are no atomics, since 6.15 they have a structure.
 */
#ifdef CONFIG_TINY_SRCU
#define gpamap_srcu_entered(ssp, cpu, idx) ((unsigned long)READ_ONCE((ssp)->srcu_lock_nesting[idx]))
#define gpamap_srcu_left(ssp, cpu, idx) 0UL
#else
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 15, 0)
#define __gpamap_srcu_entered(sda, idx) ((sda)->srcu_lock_count[idx])
#define __gpamap_srcu_left(sda, idx) ((sda)->srcu_unlock_count[idx])
#else
#define __gpamap_srcu_entered(sda, idx) ((sda)->srcu_ctrs[idx].srcu_locks)
#define __gpamap_srcu_left(sda, idx) ((sda)->srcu_ctrs[idx].srcu_unlocks)
#endif
#define gpamap_srcu_entered(ssp, cpu, idx)				\
	READ_ONCE(*(unsigned long *)&__gpamap_srcu_entered(per_cpu_ptr((ssp)->sda, cpu), idx))
#define gpamap_srcu_left(ssp, cpu, idx)					\
	READ_ONCE(*(unsigned long *)&__gpamap_srcu_left(per_cpu_ptr((ssp)->sda, cpu), idx))
#endif

#endif /* GPAMAP_COMPAT_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * vCPUs that run in threads of their own, while the test does something else: the centre
 * of what tests know about running vCPUs.
 *
 * A thread enters KVM_RUN until it is told to stop, or until KVM_RUN returns what was not
 * expected: every exit but those that @on_exit is content with, and every error but the
 * EINTR of a signal. vcpu_stop() tells which it was, so a guest that is to notice nothing
 * is one whose vcpu_stop() is 0.
 *
 * SIGUSR1 belongs to these threads.
 */
#ifndef VCPU_H
#define VCPU_H

#include <pthread.h>
#include <sys/types.h>
#include "guest.h"

struct vcpu {
	struct guest cpu;
	pthread_t thread;
	pid_t tid;			/* 0 until the thread runs; atomic */
	bool running;			/* the thread has not been joined */
	/* An exit: true to go on. NULL: there is to be none. Set before the start. */
	bool (*on_exit)(struct vcpu *vcpu);
	void *arg;			/* on_exit's */

	/* Written by the thread; atomic. */
	u64 returns;			/* of KVM_RUN, all */
	u64 interrupts;			/* of them with EINTR */
	u64 signals;			/* that its handler saw */
	int reason;			/* 0, or what ended it: exit reason or -errno */
	bool ended;

	bool stop;			/* written by vcpu_stop(); atomic */
};

/* Adds the vCPU @id to a VM, or takes the first one of it. 0 or -errno. */
int vcpu_add(struct vcpu *vcpu, const struct guest *first, u32 id);
void vcpu_first(struct vcpu *vcpu, const struct guest *first);

/* Sets the registers and starts the thread; only the latter. */
int vcpu_start(struct vcpu *vcpu, enum guest_program program, u64 rdi, u64 rsi, u64 rcx);
int vcpu_go(struct vcpu *vcpu);
/* Counts at its own counter. */
int vcpu_count(struct vcpu *vcpu);

/* Waits until its own counter, which it has to count at, has moved; false if it ended. */
bool vcpu_moves_on(const struct vcpu *vcpu);

/* Ends the thread. 0 if nothing ended it before; else the exit reason or -errno. */
int vcpu_stop(struct vcpu *vcpu);
/* The same for one that ends by itself: waits until it has. */
int vcpu_join(struct vcpu *vcpu);
/* Interrupts KVM_RUN, or the thread wherever it is. */
void vcpu_signal(struct vcpu *vcpu);
/* Stops and closes; not the VM. */
void vcpu_destroy(struct vcpu *vcpu);

/* What ended the thread, and where its vCPU is: a text for a log. */
const char *vcpu_text(const struct vcpu *vcpu);

/* The whole of a file that is short, and not empty, of a thread's in /proc. */
bool read_proc(pid_t tid, const char *name, char *buf, size_t len);
/* The thread is asleep in the kernel, and @function is on its stack. */
bool thread_sleeps_in(pid_t tid, const char *function);

#define vcpu_read(_field) __atomic_load_n(&(_field), __ATOMIC_ACQUIRE)
#define vcpu_write(_field, _value) __atomic_store_n(&(_field), _value, __ATOMIC_RELEASE)

#endif /* VCPU_H */

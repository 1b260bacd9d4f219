// SPDX-License-Identifier: GPL-2.0
/*
 * Threads that run vCPUs.
 *
 * A thread is stopped by immediate_exit and a signal, as VMMs do it: the signal makes
 * KVM_RUN return if it is under way, immediate_exit if it is only about to be entered.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "vcpu.h"

static __thread struct vcpu *self;

static void on_signal(int sig)
{
	(void)sig;
	if (self)
		vcpu_write(self->signals, self->signals + 1);
}

static void __attribute__((constructor)) take_signal(void)
{
	const struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &action, NULL);
}

int vcpu_add(struct vcpu *vcpu, const struct guest *first, u32 id)
{
	memset(vcpu, 0, sizeof(*vcpu));
	return guest_add_vcpu(&vcpu->cpu, first, id);
}

void vcpu_first(struct vcpu *vcpu, const struct guest *first)
{
	memset(vcpu, 0, sizeof(*vcpu));
	vcpu->cpu = *first;
}

static void *run(void *arg)
{
	struct vcpu *vcpu = arg;
	int rc;

	self = vcpu;
	vcpu_write(vcpu->tid, syscall(SYS_gettid));
	while (!vcpu_read(vcpu->stop)) {
		rc = guest_run(&vcpu->cpu);
		vcpu_write(vcpu->returns, vcpu->returns + 1);
		if (rc == -EINTR) {
			vcpu_write(vcpu->interrupts, vcpu->interrupts + 1);
			continue;
		}
		if (vcpu->on_exit && vcpu->on_exit(vcpu))
			continue;
		vcpu_write(vcpu->reason, rc ?: -EPROTO);
		break;
	}
	vcpu_write(vcpu->ended, true);
	return NULL;
}

int vcpu_go(struct vcpu *vcpu)
{
	vcpu->tid = 0;
	vcpu->stop = false;
	vcpu->ended = false;
	vcpu->reason = 0;
	vcpu->cpu.run->immediate_exit = 0;
	if (pthread_create(&vcpu->thread, NULL, run, vcpu))
		return -EAGAIN;
	vcpu->running = true;
	return 0;
}

int vcpu_start(struct vcpu *vcpu, enum guest_program program, u64 rdi, u64 rsi, u64 rcx)
{
	int rc = guest_start(&vcpu->cpu, program, rdi, rsi, rcx);

	return rc ?: vcpu_go(vcpu);
}

int vcpu_count(struct vcpu *vcpu)
{
	return vcpu_start(vcpu, GUEST_COUNT, guest_counter_gpa(&vcpu->cpu), 0, 0);
}

bool vcpu_moves_on(const struct vcpu *vcpu)
{
	volatile u64 *counter = guest_counter(&vcpu->cpu);
	u64 old = *counter;

	wait_until(*counter != old || vcpu_read(vcpu->ended));
	return *counter != old;
}

void vcpu_signal(struct vcpu *vcpu)
{
	pthread_kill(vcpu->thread, SIGUSR1);
}

int vcpu_stop(struct vcpu *vcpu)
{
	if (!vcpu->running)
		return vcpu->reason;
	vcpu_write(vcpu->stop, true);
	vcpu_write(vcpu->cpu.run->immediate_exit, 1);
	vcpu_signal(vcpu);
	pthread_join(vcpu->thread, NULL);
	vcpu->running = false;
	vcpu->cpu.run->immediate_exit = 0;
	return vcpu->reason;
}

int vcpu_join(struct vcpu *vcpu)
{
	if (vcpu->running)
		pthread_join(vcpu->thread, NULL);
	vcpu->running = false;
	return vcpu->reason;
}

void vcpu_destroy(struct vcpu *vcpu)
{
	vcpu_stop(vcpu);
	guest_destroy(&vcpu->cpu);
}

const char *vcpu_text(const struct vcpu *vcpu)
{
	const struct kvm_run *run = vcpu->cpu.run;
	struct kvm_sregs sregs = { 0 };
	struct kvm_regs regs = { 0 };
	static char text[512];
	int n;

	/* Of a vCPU that is closed there is nothing to tell. */
	if (!ioctl(vcpu->cpu.vcpu, KVM_GET_REGS, &regs))
		ioctl(vcpu->cpu.vcpu, KVM_GET_SREGS, &sregs);
	n = snprintf(text, sizeof(text),
		     "vCPU %u: %d after %llu returns; rip 0x%llx rsp 0x%llx rax 0x%llx rdi 0x%llx flags 0x%llx cs 0x%x cr2 0x%llx",
		     vcpu->cpu.id, vcpu->reason, (unsigned long long)vcpu->returns,
		     regs.rip,
		     regs.rsp, regs.rax, regs.rdi, regs.rflags, sregs.cs.selector,
		     sregs.cr2);
	if (vcpu->reason == KVM_EXIT_MMIO)
		snprintf(text + n, sizeof(text) - n, "; %s of %u bytes at 0x%llx",
			 run->mmio.is_write ? "write" : "read", run->mmio.len,
			 run->mmio.phys_addr);
	else if (vcpu->reason == KVM_EXIT_INTERNAL_ERROR)
		snprintf(text + n, sizeof(text) - n, "; suberror %u",
			 run->internal.suberror);
	return text;
}

bool read_proc(pid_t tid, const char *name, char *buf, size_t len)
{
	char path[64];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/%s", tid, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, buf, len - 1);
	close(fd);
	buf[n < 0 ? 0 : n] = 0;
	return n > 0;
}

bool thread_sleeps_in(pid_t tid, const char *function)
{
	char buf[4096], *state;

	/* The state follows the name, in parentheses. Sleeps of all kinds count. */
	if (!read_proc(tid, "stat", buf, sizeof(buf)))
		return false;
	state = strrchr(buf, ')');
	if (!state || !strchr("SDI", state[2]))
		return false;
	return read_proc(tid, "stack", buf, sizeof(buf)) && strstr(buf, function);
}

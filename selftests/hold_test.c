// SPDX-License-Identifier: GPL-2.0
/*
 * Holding vCPUs: wherever they are when a commit comes, whatever becomes of their threads
 * and files meanwhile, they notice nothing of it.
 *
 * The commits swap the memory that the guest lives in (lib/vm.h): a vCPU that were not
 * held would leave KVM_RUN with an exit of some kind, and none is expected but those that
 * a program makes itself.
 *
 * To look into the middle of a hold, KVM is made to stop there: a thread takes KVM's lock
 * of the slots, by asking for a dirty log, and sleeps with it in a page fault that
 * userfaultfd is to resolve (struct plug). The commit then holds the vCPUs and waits for
 * that lock in its first call to KVM.
 *
 * What a commit that holds does to slots is the subject of plan_test.c, what happens when
 * KVM refuses, of rollback_test.c.
 */
#include "harness.h"
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include "gpamap_util.h"
#include "guest.h"
#include "uffd.h"
#include "vcpu.h"
#include "vm.h"

#define PAGE TEST_PAGE

enum { ROOT = VM_ROOT, MEM = VM_MEM, OTHER = VM_OTHER, SMM_ROOT = VM_FREE, LAZY, OWN };
enum { SPACE = VM_SPACE, SMM };

#define A 0x100000ULL
#define B 0x40000000ULL
#define LAZY_GPA 0x50000000ULL
#define MMIO 0x60000000ULL
#define PLUG 0x150000000ULL
#define PLUG_SLOT 400

#define MAX_VCPUS 8
/* Of hold_timeout_ms: the default, and what no test depends on. */
#define HOLD_TIMEOUT 3000
#define FOREVER 600000

/* Swaps @n times; between two of them the next of the vCPUs is seen to run. */
#define SWAP_BESIDE(_vm, _n, _vcpus, _nr)					\
	do {									\
		u32 __i;							\
		for (__i = 0; __i < (_n); __i++) {				\
			ASSERT_EQ(0, vm_swap(_vm)) TH_LOG("swap %u", __i);		\
			if (_nr)						\
				ASSERT_TRUE(vcpu_moves_on(&(_vcpus)[__i % (_nr)]))	\
					TH_LOG("swap %u: %s", __i,		\
					       vcpu_text(&(_vcpus)[__i % (_nr)])); \
		}								\
	} while (0)

#define EXPECT_NOTICED_NOTHING(_vcpus, _nr)					\
	do {									\
		u32 __i;							\
		for (__i = 0; __i < (_nr); __i++) {				\
			EXPECT_EQ(0, vcpu_stop(&(_vcpus)[__i]))			\
				TH_LOG("%s", vcpu_text(&(_vcpus)[__i]));	\
		}								\
	} while (0)

/* vCPUs in @_vcpus, the first of the VM and new ones, that count. */
#define START_COUNTING(_vm, _vcpus, _nr)					\
	do {									\
		u32 __i;							\
		vcpu_first(&(_vcpus)[0], &(_vm)->guest);			\
		for (__i = 1; __i < (_nr); __i++)				\
			ASSERT_EQ(0, vcpu_add(&(_vcpus)[__i], &(_vm)->guest, __i)); \
		for (__i = 0; __i < (_nr); __i++)				\
			ASSERT_EQ(0, vcpu_count(&(_vcpus)[__i]));		\
		for (__i = 0; __i < (_nr); __i++)				\
			ASSERT_TRUE(vcpu_moves_on(&(_vcpus)[__i]));			\
	} while (0)

/* All but the first, which goes with its VM. */
static void destroy_vcpus(struct vcpu *vcpus, u32 nr)
{
	u32 i;

	for (i = 1; i < nr; i++)
		vcpu_destroy(&vcpus[i]);
}

FIXTURE(hold) {
	struct vm vm;
	struct vcpu vcpus[MAX_VCPUS];
};

FIXTURE_SETUP(hold)
{
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", FOREVER));
	ASSERT_EQ(0, vm_create(&self->vm, false));
}

FIXTURE_TEARDOWN(hold)
{
	vm_destroy(&self->vm);
	EXPECT_EQ(0, module_param_set("hold_timeout_ms", HOLD_TIMEOUT));
}

FIXTURE(irqchip) {
	struct vm vm;
	struct vcpu vcpus[MAX_VCPUS];
};

FIXTURE_SETUP(irqchip)
{
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", FOREVER));
	ASSERT_EQ(0, vm_create(&self->vm, true));
}

FIXTURE_TEARDOWN(irqchip)
{
	vm_destroy(&self->vm);
	EXPECT_EQ(0, module_param_set("hold_timeout_ms", HOLD_TIMEOUT));
}

/* -- which commits hold ---------------------------------------------------- */

struct want_plan {
	u32 deletes;
	u32 moves;
	u32 creates;
	u64 taken;
};

/* A commit tells, and STATS count, what @_want says. */
#define EXPECT_COMMIT(_want, ...)						\
	do {									\
		const struct want_plan __want = _want;				\
		struct gpamap_stats __a = query_stats(self->vm.fd), __b;	\
		struct gpamap_apply __out;					\
		test_cmd_plan(self->vm.fd, 0, &__out, __VA_ARGS__);		\
		__b = query_stats(self->vm.fd);					\
		EXPECT_EQ(__want.deletes, __out.out_deletes);			\
		EXPECT_EQ(__want.moves, __out.out_moves);			\
		EXPECT_EQ(__want.creates, __out.out_creates);			\
		EXPECT_EQ(WANT_HOLD(__want) ? GPAMAP_PLAN_HOLD : 0,		\
			  __out.out_plan);					\
		EXPECT_EQ(__want.taken, __out.out_taken);			\
		EXPECT_EQ(__a.commits + 1, __b.commits);			\
		EXPECT_EQ(__a.deletes + __want.deletes, __b.deletes);		\
		EXPECT_EQ(__a.moves + __want.moves, __b.moves);			\
		EXPECT_EQ(__a.creates + __want.creates, __b.creates);		\
		EXPECT_EQ(__a.holds + WANT_HOLD(__want), __b.holds);		\
		EXPECT_EQ(__a.hold_failures, __b.hold_failures);		\
		EXPECT_EQ(__a.rollbacks, __b.rollbacks);			\
		if (WANT_HOLD(__want)) {					\
			EXPECT_LT(__a.hold_ns, __b.hold_ns);			\
			EXPECT_LE(__b.longest_hold_ns, __b.hold_ns);		\
			EXPECT_LT(0u, __b.longest_hold_ns);			\
		} else {							\
			EXPECT_EQ(__a.hold_ns, __b.hold_ns);			\
			EXPECT_EQ(__a.longest_hold_ns, __b.longest_hold_ns);	\
		}								\
	} while (0)
#define PLAN(...) ((struct want_plan){ __VA_ARGS__ })
/* Whoever changes a memslot holds. */
#define WANT_HOLD(_want) ((_want).deletes || (_want).moves || (_want).creates)

TEST_F(hold, only_what_can_be_seen_holds)
{
	START_COUNTING(&self->vm, self->vcpus, 2);
	/* Whatever comes or goes, be it one: else KVM could wait for a vCPU without end. */
	EXPECT_COMMIT(PLAN(.creates = 1), op_add(MEM, ROOT, A, 0));
	EXPECT_COMMIT(PLAN(.deletes = 1), op_enable(MEM, false));
	EXPECT_COMMIT(PLAN(.creates = 2), op_enable(MEM, true),
		      op_add(OTHER, ROOT, B, 0));
	EXPECT_COMMIT(PLAN(.deletes = 2), op_enable(MEM, false),
		      op_enable(OTHER, false));
	/* Nothing: no operation, none that counts, and one that is of no consequence. */
	EXPECT_COMMIT(PLAN(), op_enable(VM_HERE, false), op_enable(VM_HERE, true));
	EXPECT_COMMIT(PLAN(), op_prio(VM_HERE, 7));
	EXPECT_COMMIT(PLAN(), op_container(99, 0xfff));
	/* A move; a delete and a create, which have nothing to do with each other. */
	EXPECT_COMMIT(PLAN(.creates = 1), op_enable(MEM, true));
	EXPECT_COMMIT(PLAN(.moves = 1), op_at(MEM, B));
	EXPECT_COMMIT(PLAN(.deletes = 1, .creates = 1),
		      op_enable(MEM, false), op_ram(OWN, PAGE - 1, self->vm.mem),
		      op_add(OWN, ROOT, A, 0));
	EXPECT_COMMIT(PLAN(.deletes = 1, .creates = 1,
			   .taken = GUEST_LEN), SWAP_OPS(&self->vm));
	EXPECT_NOTICED_NOTHING(self->vcpus, 2);
	destroy_vcpus(self->vcpus, 2);
}

/* What goes in one address space and comes in another is one hold. */
TEST_F(hold, address_spaces_together)
{
	EXPECT_COMMIT(PLAN(.creates = 1), op_add(MEM, ROOT, A, 0),
		      op_container(SMM_ROOT, U64_MAX), op_memory_space(SMM, SMM_ROOT, 1));
	EXPECT_COMMIT(PLAN(.deletes = 1, .creates = 1),
		      op_del(MEM), op_add(MEM, SMM_ROOT, A, 0));
	EXPECT_COMMIT(PLAN(.moves = 1), op_at(MEM, B));
	EXPECT_COMMIT(PLAN(.deletes = 1, .creates = 1),
		      op_del(MEM), op_add(MEM, ROOT, A, 0));
	EXPECT_COMMIT(PLAN(.creates = 1), op_add(OTHER, SMM_ROOT, A, 0));
	EXPECT_COMMIT(PLAN(.deletes = 2), op_del(MEM),
		      op_del(OTHER));
}

/* A VM that has no vCPU. */
TEST(nobody_to_hold)
{
	struct gpamap_apply out;
	struct guest guest;
	char *mem;
	int fd;

	ASSERT_EQ(0, guest_create_vm(&guest));
	mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		   0);
	ASSERT_NE(MAP_FAILED, (void *)mem);
	fd = map_open();
	ASSERT_LE(0, fd);
	test_cmd_apply(fd, op_container(ROOT, U64_MAX), op_ram(MEM, PAGE - 1, mem),
		       op_add(MEM, ROOT, A, 0),
		       op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	test_cmd_attach(fd, guest.vm, 0, 1);
	test_cmd_plan(fd, 0, &out, op_at(MEM, B));
	EXPECT_EQ(0u, out.out_plan);
	EXPECT_SLOTS(fd, { B, 1, mem, 0, 0 });
	close(fd);
	guest_destroy(&guest);
}

/* -- wherever they are ----------------------------------------------------- */

TEST_F_TIMEOUT(hold, running, 120)
{
	u64 n = env_number("ITER", 200);
	u64 holds = query_stats(self->vm.fd).holds;

	START_COUNTING(&self->vm, self->vcpus, 4);
	SWAP_BESIDE(&self->vm, n, self->vcpus, 4);
	EXPECT_NOTICED_NOTHING(self->vcpus, 4);
	EXPECT_EQ(holds + n, query_stats(self->vm.fd).holds);
	destroy_vcpus(self->vcpus, 4);
}

/* It stays out of KVM_RUN by itself, and has run before or has not. */
TEST_F(hold, not_in_kvm_run)
{
	struct vcpu *v = self->vcpus;
	u32 i;

	vcpu_first(&v[0], &self->vm.guest);
	ASSERT_EQ(0, vcpu_add(&v[1], &self->vm.guest, 1));
	ASSERT_EQ(0, guest_start(&v[1].cpu, GUEST_OUT, guest_counter_gpa(&v[1].cpu), 0,
				 0));
	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, vm_swap(&self->vm));
		ASSERT_EQ(KVM_EXIT_IO, guest_run(&v[1].cpu));
		ASSERT_EQ(i + 1, *guest_counter(&v[1].cpu));
	}
	ASSERT_EQ(0, vcpu_count(&v[0]));
	ASSERT_TRUE(vcpu_moves_on(&v[0]));
	EXPECT_NOTICED_NOTHING(v, 1);
	destroy_vcpus(v, 2);
}

static bool count_exit(struct vcpu *vcpu)
{
	u64 *exits = vcpu->arg;

	__atomic_fetch_add(exits, 1, __ATOMIC_ACQ_REL);
	return guest_left_by_out(&vcpu->cpu, GUEST_PORT);
}

#define MSI_INIT 0x4500
#define MSI_STARTUP 0x4600

TEST_F_TIMEOUT(irqchip, halted, 60)
{
	struct vcpu *v = self->vcpus;
	struct kvm_mp_state state;
	u64 exits = 0, old;
	u32 i;

	vcpu_first(&v[0], &self->vm.guest);
	ASSERT_EQ(0, vcpu_add(&v[1], &self->vm.guest, 1));
	v[1].on_exit = count_exit;
	v[1].arg = &exits;
	ASSERT_EQ(0, vcpu_start(&v[1], GUEST_HALT, guest_counter_gpa(&v[1].cpu), 0, 0));
	ASSERT_EQ(0, vcpu_count(&v[0]));
	wait_until(thread_sleeps_in(v[1].tid, "kvm_vcpu_block"));
	SWAP_BESIDE(&self->vm, 30, v, 1);
	/* It has not been woken for good, nor made to leave. */
	EXPECT_EQ(0u, vcpu_read(v[1].returns));
	EXPECT_EQ(0u, *guest_counter(&v[1].cpu));
	wait_until(thread_sleeps_in(v[1].tid, "kvm_vcpu_block"));

	/* An interrupt wakes it, between commits and beside them. */
	for (i = 0; i < 30; i++) {
		old = vcpu_read(exits);
		ASSERT_EQ(0, guest_signal_msi(&self->vm.guest, 1, GUEST_VECTOR));
		if (i & 1)
			ASSERT_EQ(0, vm_swap(&self->vm));
		wait_until(vcpu_read(exits) != old || vcpu_read(v[1].ended));
		ASSERT_FALSE(vcpu_read(v[1].ended));
		ASSERT_EQ(0, vm_swap(&self->vm));
	}
	wait_until(thread_sleeps_in(v[1].tid, "kvm_vcpu_block"));
	ASSERT_EQ(0, vm_swap(&self->vm));
	EXPECT_NOTICED_NOTHING(v, 2);
	ASSERT_EQ(0, ioctl(v[1].cpu.vcpu, KVM_GET_MP_STATE, &state));
	EXPECT_EQ(KVM_MP_STATE_HALTED, (int)state.mp_state);
	EXPECT_EQ(exits, *guest_counter(&v[1].cpu));
	destroy_vcpus(v, 2);
}

/* Of a vCPU that is started: it returns once, with EAGAIN, before it runs. */
static bool started(struct vcpu *vcpu)
{
	return vcpu->returns == 1 && errno == EAGAIN;
}

/* A processor that nobody has started yet waits in KVM_RUN, and goes on waiting. */
TEST_F_TIMEOUT(irqchip, never_started, 60)
{
	static const unsigned char code[] = { 0xe6, GUEST_PORT, 0xf4 };	/* out; hlt */
	struct vcpu *v = self->vcpus;
	struct kvm_mp_state state;

	/* In real mode, at page 5 of MEM, below 1 MiB. */
	memcpy(self->vm.mem + 5 * PAGE, code, sizeof(code));
	test_cmd_apply(self->vm.fd, op_add(MEM, ROOT, 0, 0));
	vcpu_first(&v[0], &self->vm.guest);
	ASSERT_EQ(0, vcpu_add(&v[1], &self->vm.guest, 1));
	ASSERT_EQ(0, ioctl(v[1].cpu.vcpu, KVM_GET_MP_STATE, &state));
	ASSERT_EQ(KVM_MP_STATE_UNINITIALIZED, (int)state.mp_state);
	v[1].on_exit = started;
	ASSERT_EQ(0, vcpu_go(&v[1]));
	ASSERT_EQ(0, vcpu_count(&v[0]));
	wait_until(thread_sleeps_in(v[1].tid, "kvm_vcpu_block"));
	SWAP_BESIDE(&self->vm, 30, v, 1);
	EXPECT_EQ(0u, vcpu_read(v[1].returns));
	wait_until(thread_sleeps_in(v[1].tid, "kvm_vcpu_block"));

	ASSERT_EQ(0, guest_signal_msi(&self->vm.guest, 1, MSI_INIT));
	ASSERT_EQ(0, vm_swap(&self->vm));
	ASSERT_EQ(0, guest_signal_msi(&self->vm.guest, 1, MSI_STARTUP | 5));
	ASSERT_EQ(0, vm_swap(&self->vm));
	wait_until(vcpu_read(v[1].ended));
	EXPECT_EQ(KVM_EXIT_IO, vcpu_stop(&v[1]));
	EXPECT_TRUE(guest_left_by_out(&v[1].cpu, GUEST_PORT));
	EXPECT_EQ(2u, v[1].returns);
	EXPECT_NOTICED_NOTHING(v, 1);
	destroy_vcpus(v, 2);
}

#define NR_RUNNING 8

/*
 * All of them are held, most by their mutexes. That they all spin is more than two emulated
 * CPUs can bear.
 */
TEST_F_TIMEOUT(hold, sixty_four, 120)
{
	struct vcpu *v = calloc(GUEST_MAX_VCPUS, sizeof(*v));
	u32 i;

	ASSERT_NE(NULL, v);
	START_COUNTING(&self->vm, v, NR_RUNNING);
	for (i = NR_RUNNING; i < GUEST_MAX_VCPUS; i++)
		ASSERT_EQ(0, vcpu_add(&v[i], &self->vm.guest, i));
	SWAP_BESIDE(&self->vm, 10, v, 1);
	EXPECT_NOTICED_NOTHING(v, NR_RUNNING);
	destroy_vcpus(v, GUEST_MAX_VCPUS);
	free(v);
}

/* One does not hold the other's vCPUs, nor wait for them. */
static void *swap_side_by_side(void *arg)
{
	struct vm *vm = arg;
	long rc = 0;
	u32 i;

	for (i = 0; !rc && i < 100; i++)
		rc = vm_swap(vm);
	return (void *)rc;
}

TEST_F_TIMEOUT(hold, two_vms, 120)
{
	struct vcpu others[2];
	pthread_t thread;
	struct vm other;
	void *rc;

	ASSERT_EQ(0, vm_create(&other, false));
	START_COUNTING(&self->vm, self->vcpus, 2);
	START_COUNTING(&other, others, 2);
	ASSERT_EQ(0, pthread_create(&thread, NULL, swap_side_by_side, &other));
	EXPECT_EQ(NULL, swap_side_by_side(&self->vm));
	pthread_join(thread, &rc);
	EXPECT_EQ(NULL, rc);
	/* ATTACH, too. */
	EXPECT_EQ(101u, query_stats(self->vm.fd).holds);
	EXPECT_EQ(101u, query_stats(other.fd).holds);
	EXPECT_NOTICED_NOTHING(self->vcpus, 2);
	EXPECT_NOTICED_NOTHING(others, 2);
	destroy_vcpus(self->vcpus, 2);
	destroy_vcpus(others, 2);
	vm_destroy(&other);
}

/* -- in the middle of a hold ----------------------------------------------- */

/* A thread that has the lock of KVM's slots. */
struct plug {
	struct vm *vm;
	int uffd;
	void *page;
	pthread_t thread;
	int rc;
};

static void *plug_thread(void *arg)
{
	struct plug *plug = arg;
	struct kvm_dirty_log log = {
		.slot = PLUG_SLOT,
		.dirty_bitmap = plug->page,
	};

	plug->rc = ioctl(plug->vm->guest.vm, KVM_GET_DIRTY_LOG, &log) ? -errno : 0;
	return NULL;
}

static int plug_in(struct plug *plug, struct vm *vm)
{
	int rc;

	plug->vm = vm;
	plug->uffd = uffd_open();
	if (plug->uffd < 0)
		return plug->uffd;
	plug->page = uffd_memory(plug->uffd, 1);
	if (!plug->page)
		return -ENOMEM;
	rc = guest_set_slot(&vm->guest, PLUG_SLOT, KVM_MEM_LOG_DIRTY_PAGES, PLUG, 1,
			    vm->mem);
	if (rc)
		return rc;
	if (pthread_create(&plug->thread, NULL, plug_thread, plug))
		return -EAGAIN;
	wait_until(uffd_has_fault(plug->uffd));
	return 0;
}

static int plug_out(struct plug *plug)
{
	int rc = uffd_resolve(plug->uffd, plug->page);

	if (rc)
		return rc;
	pthread_join(plug->thread, NULL);
	munmap(plug->page, PAGE);
	close(plug->uffd);
	return plug->rc ?: guest_set_slot(&plug->vm->guest, PLUG_SLOT, 0, PLUG, 0,
					  plug->vm->mem);
}

/* A commit in a thread of its own. */
struct committer {
	struct vm *vm;
	pthread_t thread;
	pid_t tid;
	int rc;
};

static void *committer_thread(void *arg)
{
	struct committer *c = arg;

	vcpu_write(c->tid, syscall(SYS_gettid));
	c->rc = vm_swap(c->vm);
	return NULL;
}

static int committer_start(struct committer *c, struct vm *vm)
{
	*c = (struct committer){ .vm = vm };
	if (pthread_create(&c->thread, NULL, committer_thread, c))
		return -EAGAIN;
	wait_until(vcpu_read(c->tid));
	return 0;
}

static int committer_end(struct committer *c)
{
	pthread_join(c->thread, NULL);
	return c->rc;
}

/* Begins a commit that has all vCPUs and goes no further; END_HOLD() lets it. */
#define BEGIN_HOLD(_plug, _committer, _vm)					\
	do {									\
		ASSERT_EQ(0, plug_in(_plug, _vm));				\
		ASSERT_EQ(0, committer_start(_committer, _vm));			\
		/* With all vCPUs, for the lock of KVM's that the plug has. */	\
		wait_until(thread_sleeps_in((_committer)->tid,			\
					    "gpamap_lock_within"));		\
	} while (0)
#define END_HOLD(_plug, _committer)						\
	do {									\
		ASSERT_EQ(0, plug_out(_plug));					\
		ASSERT_EQ(0, committer_end(_committer));			\
	} while (0)

TEST_F(hold, held_vcpus_sleep)
{
	struct vcpu *v = self->vcpus;
	struct committer committer;
	struct plug plug;
	u64 was[3];
	u32 i;

	SKIP_WITHOUT_UFFD();
	START_COUNTING(&self->vm, v, 3);
	BEGIN_HOLD(&plug, &committer, &self->vm);
	for (i = 0; i < 3; i++)
		was[i] = *guest_counter(&v[i].cpu);
	for (i = 0; i < 3; i++)
		EXPECT_TRUE(thread_sleeps_in(v[i].tid, ""));
	/* Whoever could run has had the time to. */
	for (i = 0; i < 1000; i++)
		usleep(100);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(was[i], *guest_counter(&v[i].cpu));
		EXPECT_TRUE(thread_sleeps_in(v[i].tid, ""));
	}
	END_HOLD(&plug, &committer);
	for (i = 0; i < 3; i++)
		EXPECT_TRUE(vcpu_moves_on(&v[i]));
	EXPECT_NOTICED_NOTHING(v, 3);
	destroy_vcpus(v, 3);
}

/* A signal in a hold does what it always does, a little later. */
TEST_F(hold, signal_in_hold)
{
	struct vcpu *v = self->vcpus;
	struct committer committer;
	struct plug plug;

	SKIP_WITHOUT_UFFD();
	START_COUNTING(&self->vm, v, 2);
	BEGIN_HOLD(&plug, &committer, &self->vm);
	vcpu_signal(&v[1]);
	vcpu_signal(&v[1]);
	END_HOLD(&plug, &committer);
	wait_until(vcpu_read(v[1].interrupts));
	EXPECT_EQ(1u, vcpu_read(v[1].interrupts));
	EXPECT_EQ(1u, vcpu_read(v[1].signals));
	EXPECT_TRUE(vcpu_moves_on(&v[1]));
	EXPECT_EQ(0u, vcpu_read(v[0].interrupts));
	EXPECT_NOTICED_NOTHING(v, 2);
	destroy_vcpus(v, 2);
}

struct signaller {
	struct vcpu *vcpu;
	bool stop;
	u64 sent;
};

static void *send_signals(void *arg)
{
	struct signaller *s = arg;

	while (!vcpu_read(s->stop) && !vcpu_read(s->vcpu->ended)) {
		vcpu_signal(s->vcpu);
		s->sent++;
		wait_until(vcpu_read(s->vcpu->signals) == s->sent ||
			   vcpu_read(s->vcpu->ended));
	}
	return NULL;
}

/* None is lost, and each makes KVM_RUN return, whenever it comes. */
TEST_F_TIMEOUT(hold, signals_beside_commits, 120)
{
	struct vcpu *v = self->vcpus;
	struct signaller s = { .vcpu = &v[1] };
	pthread_t thread;

	START_COUNTING(&self->vm, v, 2);
	ASSERT_EQ(0, pthread_create(&thread, NULL, send_signals, &s));
	SWAP_BESIDE(&self->vm, 100, v, 2);
	vcpu_write(s.stop, true);
	pthread_join(thread, NULL);
	EXPECT_LT(0u, s.sent);
	EXPECT_EQ(s.sent, v[1].signals);
	wait_until(vcpu_read(v[1].interrupts) || vcpu_read(v[1].ended));
	EXPECT_EQ(v[1].returns, v[1].interrupts);
	EXPECT_NOTICED_NOTHING(v, 2);
	destroy_vcpus(v, 2);
}

static void *add_vcpu(void *arg)
{
	struct vcpu *v = arg;
	long rc;

	rc = vcpu_add(v, v->arg, 5);
	return (void *)(rc ?: (long)vcpu_count(v));
}

/* A vCPU that is created in a hold runs when it is over. */
TEST_F(hold, created_in_hold)
{
	struct vcpu *v = self->vcpus;
	struct committer committer;
	struct plug plug;
	pthread_t thread;
	void *rc;

	SKIP_WITHOUT_UFFD();
	START_COUNTING(&self->vm, v, 2);
	BEGIN_HOLD(&plug, &committer, &self->vm);
	v[2].arg = &self->vm.guest;
	ASSERT_EQ(0, pthread_create(&thread, NULL, add_vcpu, &v[2]));
	usleep(20000);
	EXPECT_EQ(0u, *guest_counter(&(struct guest){ .mem = self->vm.guest.mem,
						     .id = 5 }));
	END_HOLD(&plug, &committer);
	pthread_join(thread, &rc);
	ASSERT_EQ(NULL, rc);
	EXPECT_TRUE(vcpu_moves_on(&v[2]));
	SWAP_BESIDE(&self->vm, 10, v, 3);
	EXPECT_NOTICED_NOTHING(v, 3);
	destroy_vcpus(v, 3);
}

/* -- string I/O ------------------------------------------------------------ */

#define STRING_LEN 600
#define STRING_GPA (GUEST_DATA + PAGE - STRING_LEN / 2)

/* Data that come and go through exits, while commits happen. */
struct string_io {
	struct vm *vm;
	u32 done;			/* bytes so far */
	u32 exits;
	bool wrong;
	bool commit;			/* after each exit */
	sem_t *gate;			/* or: wait here once, at the first */
	bool at_gate;
};

static unsigned char string_byte(u32 at)
{
	return at * 37 + 11;
}

static unsigned char *string_memory(struct vm *vm)
{
	return (unsigned char *)vm->guest.mem + (STRING_GPA - GUEST_BASE);
}

/* @len bytes of the string go out to the VMM, or come in from it. */
static void string_pass(struct string_io *s, unsigned char *data, u32 len, bool out)
{
	for (; len; len--, data++, s->done++) {
		if (out)
			s->wrong |= *data != string_byte(s->done);
		else
			*data = string_byte(s->done);
	}
}

static bool string_exit(struct vcpu *vcpu)
{
	struct kvm_run *run = vcpu->cpu.run;
	struct string_io *s = vcpu->arg;

	if (run->exit_reason == KVM_EXIT_IO && run->io.port == GUEST_DATA_PORT)
		string_pass(s, (unsigned char *)run + run->io.data_offset,
			    run->io.size * run->io.count,
			    run->io.direction == KVM_EXIT_IO_OUT);
	else if (run->exit_reason == KVM_EXIT_MMIO && run->mmio.phys_addr >= MMIO &&
		 run->mmio.phys_addr < MMIO + STRING_LEN)
		string_pass(s, run->mmio.data, run->mmio.len, run->mmio.is_write);
	else
		return false;
	s->exits++;
	if (s->commit && vm_swap(s->vm))
		return false;
	if (s->gate && s->exits == 1) {
		vcpu_write(s->at_gate, true);
		sem_wait(s->gate);
	}
	return true;
}

/* A program, and where its string is. */
static const struct {
	const char *name;
	enum guest_program program;
	u64 rdi;
	u64 rsi;
	bool out;
} strings[] = {
	{ "rep insb", GUEST_INS, STRING_GPA, 0, false },
	{ "rep outsb", GUEST_OUTS, 0, STRING_GPA, true },
	{ "rep movsb to MMIO", GUEST_MOVS, MMIO, STRING_GPA, true },
	{ "rep movsb from MMIO", GUEST_MOVS, STRING_GPA, MMIO, false },
};

static int string_start(struct vcpu *vcpu, struct string_io *s, u32 which)
{
	u32 i;

	vcpu->on_exit = string_exit;
	vcpu->arg = s;
	for (i = 0; i < STRING_LEN; i++)
		string_memory(s->vm)[i] = strings[which].out ? string_byte(i) : 0;
	return vcpu_start(vcpu, strings[which].program, strings[which].rdi,
			  strings[which].rsi, STRING_LEN);
}

/* All bytes have passed, each once, and nothing else made it leave. */
#define EXPECT_STRING_DONE(_vcpu, _s, _which)					\
	do {									\
		u32 __i, __bad = 0;						\
		wait_until(vcpu_read((_vcpu)->ended));				\
		EXPECT_EQ(KVM_EXIT_IO, vcpu_stop(_vcpu))			\
			TH_LOG("%s", strings[_which].name);			\
		EXPECT_TRUE(guest_left_by_out(&(_vcpu)->cpu, GUEST_PORT))	\
			TH_LOG("%s", strings[_which].name);			\
		EXPECT_EQ((u32)STRING_LEN, (_s)->done)				\
			TH_LOG("%s", strings[_which].name);			\
		EXPECT_FALSE((_s)->wrong) TH_LOG("%s", strings[_which].name);	\
		for (__i = 0; __i < STRING_LEN; __i++)				\
			__bad += string_memory((_s)->vm)[__i] != string_byte(__i); \
		EXPECT_EQ(0u, __bad) TH_LOG("%s", strings[_which].name);	\
	} while (0)

/* A commit between every exit and the KVM_RUN that goes on. */
TEST_F_TIMEOUT(hold, unfinished_string, 120)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(strings); i++) {
		struct string_io s = { .vm = &self->vm, .commit = true };

		vcpu_first(&self->vcpus[0], &self->vm.guest);
		ASSERT_EQ(0, string_start(&self->vcpus[0], &s, i));
		EXPECT_STRING_DONE(&self->vcpus[0], &s, i);
	}
}

/* KVM_RUN, which has such a string to finish, is entered in the middle of a hold. */
TEST_F_TIMEOUT(hold, unfinished_string_enters_in_hold, 60)
{
	struct vcpu *v = self->vcpus;
	struct committer committer;
	struct plug plug;
	sem_t gate;
	u32 i;

	SKIP_WITHOUT_UFFD();
	ASSERT_EQ(0, sem_init(&gate, 0, 0));
	ASSERT_EQ(0, vcpu_add(&v[1], &self->vm.guest, 1));
	ASSERT_EQ(0, vcpu_count(&v[1]));
	for (i = 0; i < ARRAY_SIZE(strings); i++) {
		struct string_io s = { .vm = &self->vm, .gate = &gate };

		vcpu_first(&v[0], &self->vm.guest);
		ASSERT_EQ(0, string_start(&v[0], &s, i));
		wait_until(vcpu_read(s.at_gate) || vcpu_read(v[0].ended));
		ASSERT_FALSE(vcpu_read(v[0].ended));
		BEGIN_HOLD(&plug, &committer, &self->vm);
		sem_post(&gate);
		wait_until(thread_sleeps_in(v[0].tid, "kvm_vcpu_ioctl"));
		EXPECT_EQ(1u, vcpu_read(v[0].returns));
		END_HOLD(&plug, &committer);
		EXPECT_STRING_DONE(&v[0], &s, i);
	}
	EXPECT_EQ(0, vcpu_stop(&v[1]));
	destroy_vcpus(v, 2);
}

/* -- vCPUs and threads that come and go ------------------------------------- */

struct creator {
	struct vm *vm;
	u32 first_id;
	u32 made;
	bool done;
	int rc;
};

/* vCPUs come, run for a moment, and go with their threads. */
static void *create_vcpus(void *arg)
{
	struct creator *c = arg;
	struct vcpu vcpu;
	u32 id;

	for (id = c->first_id; !c->rc && id < GUEST_MAX_VCPUS; id++) {
		c->rc = vcpu_add(&vcpu, &c->vm->guest, id);
		if (c->rc)
			break;
		c->rc = vcpu_count(&vcpu);
		if (!c->rc && !vcpu_moves_on(&vcpu))
			c->rc = -EPROTO;
		if (vcpu_stop(&vcpu))
			c->rc = vcpu.reason;
		vcpu_destroy(&vcpu);
		vcpu_write(c->made, c->made + 1);
	}
	vcpu_write(c->done, true);
	return NULL;
}

TEST_F_TIMEOUT(hold, vcpus_come_and_go, 120)
{
	struct creator c = { .vm = &self->vm, .first_id = 2 };
	pthread_t thread;
	u32 i, n;

	START_COUNTING(&self->vm, self->vcpus, 2);
	ASSERT_EQ(0, pthread_create(&thread, NULL, create_vcpus, &c));
	/* Each commit takes away what a vCPU has faulted in: it must get time to run. */
	for (i = 0; i < GUEST_MAX_VCPUS - 2u; i++) {
		for (n = 0; n < 5; n++)
			ASSERT_EQ(0, vm_swap(&self->vm)) TH_LOG("vCPU %u", i);
		wait_until(vcpu_read(c.made) > i || vcpu_read(c.done));
	}
	pthread_join(thread, NULL);
	EXPECT_EQ(0, c.rc);
	EXPECT_EQ(GUEST_MAX_VCPUS - 2u, c.made);
	EXPECT_NOTICED_NOTHING(self->vcpus, 2);
	destroy_vcpus(self->vcpus, 2);
}

/* One vCPU, run by two threads in turn. */
struct relay {
	struct guest *cpu;
	sem_t turn[2];
	u32 rounds;
	u32 turns;
	int rc;
};

struct runner {
	struct relay *relay;
	u32 nr;
};

static void *run_in_turn(void *arg)
{
	struct runner *runner = arg;
	struct relay *relay = runner->relay;
	u32 i;
	int rc;

	for (i = 0; i < relay->rounds; i++) {
		sem_wait(&relay->turn[runner->nr]);
		rc = guest_run(relay->cpu);
		if (rc != KVM_EXIT_IO)
			relay->rc = rc ?: -EPROTO;
		vcpu_write(relay->turns, relay->turns + 1);
		sem_post(&relay->turn[!runner->nr]);
	}
	return NULL;
}

TEST_F_TIMEOUT(hold, vcpu_changes_its_thread, 120)
{
	struct relay relay = {
		.cpu = &self->vm.guest,
		.rounds = env_number("ITER", 25),
	};
	struct runner runners[2] = { { &relay, 0 }, { &relay, 1 } };
	pthread_t threads[2];
	u32 i, turn;

	ASSERT_EQ(0, guest_start(relay.cpu, GUEST_OUT, guest_counter_gpa(relay.cpu), 0,
				 0));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, sem_init(&relay.turn[i], 0, !i));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, run_in_turn, &runners[i]));
	/* Each commit takes away what a turn has faulted in: a turn must get time to end. */
	for (turn = 0; turn < 2 * relay.rounds; turn++) {
		for (i = 0; i < 3; i++)
			ASSERT_EQ(0, vm_swap(&self->vm));
		wait_until(vcpu_read(relay.turns) > turn);
		ASSERT_GT(vcpu_read(relay.turns), turn);
	}
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	EXPECT_EQ(0, relay.rc);
	EXPECT_EQ(2 * relay.rounds, *guest_counter(relay.cpu));
	/* Both threads are dead; the vCPU can still be held, and run here. */
	ASSERT_EQ(0, vm_swap(&self->vm));
	EXPECT_EQ(KVM_EXIT_IO, guest_run(relay.cpu));
}

/* Each thread dies while its vCPU lives on; the next takes it over. */
TEST_F_TIMEOUT(hold, threads_die, 120)
{
	struct vcpu *v = self->vcpus;
	struct vcpu dying;
	u64 was;
	u32 i;

	START_COUNTING(&self->vm, v, 2);
	ASSERT_EQ(0, vcpu_add(&dying, &self->vm.guest, 9));
	ASSERT_EQ(0, guest_start(&dying.cpu, GUEST_COUNT, guest_counter_gpa(&dying.cpu),
				 0, 0));
	for (i = 0; i < 40; i++) {
		ASSERT_EQ(0, vcpu_go(&dying));
		ASSERT_TRUE(vcpu_moves_on(&dying)) TH_LOG("%s", vcpu_text(&dying));
		ASSERT_EQ(0, vm_swap(&self->vm));
		if (i & 1)
			ASSERT_TRUE(vcpu_moves_on(&dying))
				TH_LOG("%s", vcpu_text(&dying));
		ASSERT_EQ(0, vcpu_stop(&dying));
		was = *guest_counter(&dying.cpu);
		ASSERT_EQ(0, vm_swap(&self->vm));
		EXPECT_EQ(was, *guest_counter(&dying.cpu));
	}
	vcpu_destroy(&dying);
	EXPECT_NOTICED_NOTHING(v, 2);
	destroy_vcpus(v, 2);
}

static void *swap_until_closed(void *arg)
{
	struct vm *vm = arg;
	long rc;

	/* Without a pause the vCPUs would hardly get anywhere. */
	while (!(rc = vm_swap(vm)))
		usleep(1000);
	return (void *)rc;
}

/* In the middle of commits the files go: the VM's, those of vCPUs, at last the map's. */
TEST_F_TIMEOUT(hold, files_close_beside_commits, 120)
{
	u64 seed = test_seed(), rounds = env_number("ITER", 20), i;
	struct vcpu *v = self->vcpus;
	int vms = kvm_vms();
	pthread_t thread;
	struct rnd rnd;
	struct vm vm;
	void *rc;
	u32 n;

	TH_LOG("SEED=%llu ITER=%llu", (unsigned long long)seed,
	       (unsigned long long)rounds);
	rnd_seed(&rnd, seed);
	for (i = 0; i < rounds; i++) {
		ASSERT_EQ(0, vm_create(&vm, false));
		START_COUNTING(&vm, v, 3);
		ASSERT_EQ(0, pthread_create(&thread, NULL, swap_until_closed, &vm));
		usleep(rnd_below(&rnd, 5000));
		/* A copy of it in each vCPU would be closed twice. */
		close(vm.guest.vm);
		close(vm.guest.kvm);
		vm.guest.vm = -1;
		vm.guest.kvm = -1;
		for (n = 0; n < 3; n++) {
			usleep(rnd_below(&rnd, 2000));
			close(v[n].cpu.vcpu);
		}
		for (n = 0; n < 3; n++)
			ASSERT_TRUE(vcpu_moves_on(&v[n]));
		usleep(rnd_below(&rnd, 5000));
		if (i & 1) {
			/* The map goes while vCPUs run. */
			close(vm.fd);
			vm.fd = -1;
			pthread_join(thread, &rc);
			EXPECT_EQ((void *)-EBADF, rc);
		}
		for (n = 0; n < 3; n++) {
			/* Its file is closed, once it comes back to it. */
			vcpu_write(v[n].stop, true);
			vcpu_signal(&v[n]);
			pthread_join(v[n].thread, NULL);
			EXPECT_TRUE(v[n].reason == 0 || v[n].reason == -EBADF)
				TH_LOG("%s", vcpu_text(&v[n]));
			munmap(v[n].cpu.run, v[n].cpu.run_len);
		}
		if (!(i & 1)) {
			close(vm.fd);
			vm.fd = -1;
			pthread_join(thread, &rc);
			EXPECT_EQ((void *)-EBADF, rc);
		}
		vm.guest.run = NULL;
		vm.guest.vcpu = -1;
		vm_destroy(&vm);
		EXPECT_EQ(vms, kvm_vms());
	}
}

/* -- vCPU threads that commit ---------------------------------------------- */

struct own {
	struct vm *vm;
	u32 region;
	u32 commits;
	int rc;
};

/* From the handler of an exit, before its OUT is completed. */
static bool commit_on_exit(struct vcpu *vcpu)
{
	struct own *own = vcpu->arg;
	struct gpamap_op op;

	if (!guest_left_by_out(&vcpu->cpu, GUEST_PORT))
		return false;
	op = op_at(own->region, own->commits & 1 ? A + own->region * 0x100000ULL :
						   B + own->region * 0x100000ULL);
	own->rc = _test_cmd_apply(own->vm->fd, &op, 1, NULL, NULL);
	if (!own->rc)
		vcpu_write(own->commits, own->commits + 1);
	return !own->rc;
}

TEST_F_TIMEOUT(hold, vcpu_threads_commit, 120)
{
	struct vcpu *v = self->vcpus;
	struct own own[3];
	u64 holds;
	u32 i;

	for (i = 0; i < 3; i++) {
		own[i] = (struct own){ .vm = &self->vm, .region = OWN + i };
		test_cmd_apply(self->vm.fd, op_ram(OWN + i, PAGE - 1, self->vm.mem),
			       op_add(OWN + i, ROOT, A + (OWN + i) * 0x100000, 0));
	}
	holds = query_stats(self->vm.fd).holds;
	/* The last counts all the time, and no commit is its own. */
	vcpu_first(&v[0], &self->vm.guest);
	for (i = 1; i < 4; i++)
		ASSERT_EQ(0, vcpu_add(&v[i], &self->vm.guest, i));
	ASSERT_EQ(0, vcpu_count(&v[3]));
	for (i = 0; i < 3; i++) {
		v[i].on_exit = commit_on_exit;
		v[i].arg = &own[i];
		ASSERT_EQ(0, vcpu_start(&v[i], GUEST_OUT, guest_counter_gpa(&v[i].cpu), 0,
					0));
	}
	for (i = 0; i < 3; i++)
		wait_until(vcpu_read(own[i].commits) >= 40 || vcpu_read(v[i].ended));
	for (i = 0; i < 3; i++)
		EXPECT_EQ(0, own[i].rc);
	EXPECT_NOTICED_NOTHING(v, 4);
	EXPECT_EQ(holds + own[0].commits + own[1].commits + own[2].commits,
		  query_stats(self->vm.fd).holds);
	destroy_vcpus(v, 4);
}

/* -- scheduling ------------------------------------------------------------ */

static int make_fifo(pthread_t thread, int prio)
{
	const struct sched_param param = { .sched_priority = prio };
	cpu_set_t cpus;
	int rc;

	CPU_ZERO(&cpus);
	CPU_SET(0, &cpus);
	rc = pthread_setaffinity_np(thread, sizeof(cpus), &cpus);
	return rc ?: pthread_setschedparam(thread, prio ? SCHED_FIFO : SCHED_OTHER,
					   &param);
}

/* The committer comes first, but its vCPUs never sleep: they do once they are held. */
TEST_F_TIMEOUT(hold, fifo_running, 60)
{
	struct vcpu *v = self->vcpus;
	u32 i;

	START_COUNTING(&self->vm, v, 2);
	ASSERT_EQ(0, make_fifo(pthread_self(), 20));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, make_fifo(v[i].thread, 10));
	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, vm_swap(&self->vm));
		usleep(500);
	}
	/* Of two that never sleep only one runs: the other could not be stopped. */
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, make_fifo(v[i].thread, 0));
	ASSERT_EQ(0, make_fifo(pthread_self(), 0));
	EXPECT_NOTICED_NOTHING(v, 2);
	destroy_vcpus(v, 2);
}

static bool sleep_on_exit(struct vcpu *vcpu)
{
	usleep(500);
	return guest_left_by_out(&vcpu->cpu, GUEST_PORT);
}

/* Without it, real-time threads that spin are thrown off the CPU every second. */
static int rt_runtime(int us)
{
	FILE *file = fopen("/proc/sys/kernel/sched_rt_runtime_us", "r+e");
	int was = -1;

	if (!file)
		return -1;
	if (fscanf(file, "%d", &was) != 1)
		was = -1;
	rewind(file);
	fprintf(file, "%d\n", us);
	fclose(file);
	return was;
}

/* The committer comes last: each vCPU must sleep all the time that it is held. */
TEST_F_TIMEOUT(hold, fifo_above_the_committer, 60)
{
	struct vcpu *v = self->vcpus;
	int was = rt_runtime(-1);
	u32 i;

	vcpu_first(&v[0], &self->vm.guest);
	ASSERT_EQ(0, vcpu_add(&v[1], &self->vm.guest, 1));
	for (i = 0; i < 2; i++) {
		v[i].on_exit = sleep_on_exit;
		ASSERT_EQ(0, vcpu_start(&v[i], GUEST_OUT, guest_counter_gpa(&v[i].cpu), 0,
					0));
		ASSERT_EQ(0, make_fifo(v[i].thread, 10));
	}
	ASSERT_EQ(0, make_fifo(pthread_self(), 0));
	SWAP_BESIDE(&self->vm, 50, v, 2);
	EXPECT_NOTICED_NOTHING(v, 2);
	destroy_vcpus(v, 2);
	rt_runtime(was);
}

/* -- page faults that wait for userspace ------------------------------------ */

/* Memory at LAZY_GPA whose page waits to be resolved, and a vCPU that faults on it. */
#define START_FAULTING(_uffd, _lazy, _vcpu)					\
	do {									\
		_uffd = uffd_open();						\
		ASSERT_LE(0, _uffd);						\
		_lazy = uffd_memory(_uffd, 1);					\
		ASSERT_NE(NULL, _lazy);						\
		test_cmd_apply(self->vm.fd, op_ram(LAZY, PAGE - 1, _lazy),	\
			       op_add(LAZY, ROOT, LAZY_GPA, 0));		\
		ASSERT_EQ(0, vcpu_start(_vcpu, GUEST_COUNT, LAZY_GPA, 0, 0));	\
		wait_until(uffd_has_fault(_uffd));				\
	} while (0)

/* A swap that cannot be: a vCPU sleeps inside KVM. */
#define EXPECT_SWAP_BUSY()							\
	do {									\
		struct gpamap_stats __a = query_stats(self->vm.fd), __b;	\
		test_err_apply(EBUSY, GPAMAP_NO_OP, self->vm.fd,		\
			       SWAP_OPS(&self->vm));				\
		__b = query_stats(self->vm.fd);					\
		EXPECT_EQ(__a.hold_failures + 1, __b.hold_failures);		\
		EXPECT_EQ(__a.holds, __b.holds);				\
		EXPECT_EQ(__a.rollbacks, __b.rollbacks);			\
		EXPECT_EQ(__a.commits, __b.commits);				\
		EXPECT_EQ(__a.deletes, __b.deletes);				\
		EXPECT_EQ(__a.creates, __b.creates);				\
	} while (0)

static u64 *lazy_counter(void *lazy)
{
	return lazy;
}

TEST_F_TIMEOUT(hold, fault_in_kvm_run, 60)
{
	struct vcpu *v = self->vcpus;
	void *lazy;
	int uffd;
	u32 i;

	SKIP_WITHOUT_UFFD();
	START_COUNTING(&self->vm, v, 3);
	ASSERT_EQ(0, vcpu_add(&v[3], &self->vm.guest, 3));
	START_FAULTING(uffd, lazy, &v[3]);
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", 50));
	for (i = 0; i < 3; i++) {
		EXPECT_SWAP_BUSY();
		/* Who was held is let go. */
		EXPECT_TRUE(vcpu_moves_on(&v[i]));
	}
	EXPECT_FALSE(vcpu_read(v[3].ended));
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", FOREVER));
	ASSERT_EQ(0, uffd_resolve(uffd, lazy));
	ASSERT_EQ(0, vm_swap(&self->vm));
	wait_until(vcpu_read(*lazy_counter(lazy)) || vcpu_read(v[3].ended));
	SWAP_BESIDE(&self->vm, 10, v, 3);
	EXPECT_NOTICED_NOTHING(v, 4);
	destroy_vcpus(v, 4);
	close(uffd);
}

/* The fault is resolved while the commit waits. */
TEST_F_TIMEOUT(hold, fault_resolved_in_time, 60)
{
	struct vcpu *v = self->vcpus;
	struct committer committer;
	void *lazy;
	int uffd;

	SKIP_WITHOUT_UFFD();
	START_COUNTING(&self->vm, v, 2);
	ASSERT_EQ(0, vcpu_add(&v[2], &self->vm.guest, 2));
	START_FAULTING(uffd, lazy, &v[2]);
	ASSERT_EQ(0, committer_start(&committer, &self->vm));
	wait_until(thread_sleeps_in(committer.tid, "[gpamap]"));
	EXPECT_EQ(0u, *lazy_counter(self->vm.mem));
	ASSERT_EQ(0, uffd_resolve(uffd, lazy));
	EXPECT_EQ(0, committer_end(&committer));
	wait_until(vcpu_read(*lazy_counter(lazy)) || vcpu_read(v[2].ended));
	EXPECT_EQ(0u, query_stats(self->vm.fd).hold_failures);
	EXPECT_NOTICED_NOTHING(v, 3);
	destroy_vcpus(v, 3);
	close(uffd);
}

struct resolver {
	int uffd;
	void *page;
	bool may;
	bool done;
	int rc;
};

static bool resolve_on_exit(struct vcpu *vcpu)
{
	struct resolver *r = vcpu->arg;

	if (vcpu_read(r->may) && !r->done) {
		r->rc = uffd_resolve(r->uffd, r->page);
		vcpu_write(r->done, true);
	}
	return guest_left_by_out(&vcpu->cpu, GUEST_PORT);
}

/* Who is to resolve the fault is a vCPU's thread, and held itself. */
TEST_F_TIMEOUT(hold, fault_resolved_by_vcpu_thread, 60)
{
	struct vcpu *v = self->vcpus;
	struct resolver r = { 0 };

	SKIP_WITHOUT_UFFD();
	vcpu_first(&v[0], &self->vm.guest);
	ASSERT_EQ(0, vcpu_add(&v[1], &self->vm.guest, 1));
	START_FAULTING(r.uffd, r.page, &v[0]);
	v[1].on_exit = resolve_on_exit;
	v[1].arg = &r;
	ASSERT_EQ(0, vcpu_start(&v[1], GUEST_OUT, guest_counter_gpa(&v[1].cpu), 0, 0));
	ASSERT_TRUE(vcpu_moves_on(&v[1]));
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", 50));
	EXPECT_SWAP_BUSY();
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", FOREVER));
	vcpu_write(r.may, true);
	wait_until(vcpu_read(r.done));
	ASSERT_EQ(0, r.rc);
	ASSERT_EQ(0, vm_swap(&self->vm));
	EXPECT_NOTICED_NOTHING(v, 2);
	destroy_vcpus(v, 2);
	close(r.uffd);
}

/* With KVM's irqchip the vCPU need not wait inside: it halts, and can be held. */
TEST_F_TIMEOUT(irqchip, fault_in_the_background, 60)
{
	struct vcpu *v = self->vcpus;
	void *lazy;
	int uffd;

	SKIP_WITHOUT_UFFD();
	START_COUNTING(&self->vm, v, 2);
	ASSERT_EQ(0, vcpu_add(&v[2], &self->vm.guest, 2));
	START_FAULTING(uffd, lazy, &v[2]);
	SWAP_BESIDE(&self->vm, 10, v, 2);
	EXPECT_EQ(0u, vcpu_read(v[2].returns));
	ASSERT_EQ(0, uffd_resolve(uffd, lazy));
	wait_until(vcpu_read(*lazy_counter(lazy)) || vcpu_read(v[2].ended));
	SWAP_BESIDE(&self->vm, 10, v, 2);
	EXPECT_NOTICED_NOTHING(v, 3);
	destroy_vcpus(v, 3);
	close(uffd);
}

/* -- processes ------------------------------------------------------------- */

/* VMMs in processes of their own, of which nothing is left when they are gone. */
FIXTURE(child) {
	struct shared *shared;
	int vms;
	int refs;
};

#define EXPECT_NOTHING_LEFT()							\
	do {									\
		EXPECT_EQ(self->vms, kvm_vms());				\
		EXPECT_EQ(self->refs, module_refcnt("gpamap"));				\
	} while (0)

/* What such a VMM tells its parent. */
struct shared {
	pid_t tids[3];
	u64 commits;
	u64 counts[3];
	bool stop;
	bool ready;
};

FIXTURE_SETUP(child)
{
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", FOREVER));
	self->vms = kvm_vms();
	self->refs = module_refcnt("gpamap");
	self->shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->shared);
}

FIXTURE_TEARDOWN(child)
{
	EXPECT_NOTHING_LEFT();
	EXPECT_EQ(0, module_param_set("hold_timeout_ms", HOLD_TIMEOUT));
}

static int child_start(struct vm *vm, struct vcpu *v, struct shared *shared)
{
	u32 i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (vm_create(vm, false))
		return 50;
	vcpu_first(&v[0], &vm->guest);
	for (i = 1; i < 3; i++)
		if (vcpu_add(&v[i], &vm->guest, i))
			return 51;
	for (i = 0; i < 3; i++) {
		if (vcpu_count(&v[i]) || !vcpu_moves_on(&v[i]))
			return 52;
		shared->tids[i] = v[i].tid;
	}
	vcpu_write(shared->ready, true);
	return 0;
}

/* A VMM with vCPUs that run, and commits until it is told to stop. */
static int child_vmm(struct shared *shared)
{
	struct vcpu v[3];
	struct vm vm;
	u32 i;
	int rc;

	rc = child_start(&vm, v, shared);
	if (rc)
		return rc;
	while (!vcpu_read(shared->stop)) {
		if (vm_swap(&vm))
			return 53;
		for (i = 0; i < 3; i++)
			shared->counts[i] = *guest_counter(&v[i].cpu);
		vcpu_write(shared->commits, shared->commits + 1);
	}
	for (i = 0; i < 3; i++)
		if (vcpu_stop(&v[i]))
			return 54 + i;
	return 0;
}

/* Forks @_child, and waits for its first commit, or what it takes for that. */
#define FORK_VMM(_pid, _child)							\
	do {									\
		memset(self->shared, 0, sizeof(*self->shared));			\
		_pid = fork();							\
		ASSERT_LE(0, _pid);						\
		if (!_pid)							\
			_exit(_child(self->shared));				\
		wait_until(vcpu_read(self->shared->commits) ||			\
			   waitpid(_pid, NULL, WNOHANG));			\
		ASSERT_NE(0u, vcpu_read(self->shared->commits));		\
	} while (0)

#define ASSERT_KILLED(_pid)							\
	do {									\
		int __status;							\
		ASSERT_EQ(_pid, waitpid(_pid, &__status, 0));			\
		EXPECT_TRUE(WIFSIGNALED(__status))				\
			TH_LOG("the child ended with %d", WEXITSTATUS(__status)); \
		EXPECT_EQ(SIGKILL, WTERMSIG(__status));				\
	} while (0)

/* Commits of the child go on, by @_n. */
#define ASSERT_COMMITS_GO_ON(_n)						\
	do {									\
		u64 __old = vcpu_read(self->shared->commits);			\
		wait_until(vcpu_read(self->shared->commits) >= __old + (_n));	\
	} while (0)

#define ASSERT_STOPS(_tid)							\
	do {									\
		int __status;							\
		ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, _tid, 0, 0));		\
		ASSERT_EQ(_tid, waitpid(_tid, &__status, __WALL));		\
		ASSERT_TRUE(WIFSTOPPED(__status));				\
	} while (0)

/* A thread of a vCPU is stopped by a debugger, and the others go on. */
TEST_F_TIMEOUT(child, traced_thread, 60)
{
	u64 count;
	pid_t pid;
	u32 i, n;

	FORK_VMM(pid, child_vmm);
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, ptrace(PTRACE_SEIZE, self->shared->tids[i], 0, 0));
	ASSERT_COMMITS_GO_ON(5);
	for (i = 0; i < 3; i++) {
		ASSERT_STOPS(self->shared->tids[i]);
		ASSERT_COMMITS_GO_ON(2);
		count = self->shared->counts[i];
		ASSERT_COMMITS_GO_ON(10);
		EXPECT_EQ(count, self->shared->counts[i]);
		ASSERT_EQ(0, ptrace(PTRACE_CONT, self->shared->tids[i], 0, 0));
	}
	/* Whatever it does at that moment, held or not. */
	for (n = 0; n < 60; n++) {
		ASSERT_STOPS(self->shared->tids[n % 3]);
		ASSERT_EQ(0, ptrace(PTRACE_CONT, self->shared->tids[n % 3], 0, 0));
	}
	/* All of them. */
	for (i = 0; i < 3; i++)
		ASSERT_STOPS(self->shared->tids[i]);
	ASSERT_COMMITS_GO_ON(10);
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, ptrace(PTRACE_DETACH, self->shared->tids[i], 0, 0));
	ASSERT_COMMITS_GO_ON(5);
	vcpu_write(self->shared->stop, true);
	ASSERT_CHILD_OK(pid);
}

/* All of the process is stopped, in the middle of whatever it does. */
TEST_F_TIMEOUT(child, stopped_process, 60)
{
	int status;
	pid_t pid;
	u32 i;

	FORK_VMM(pid, child_vmm);
	for (i = 0; i < 40; i++) {
		ASSERT_EQ(0, kill(pid, SIGSTOP));
		ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
		ASSERT_TRUE(WIFSTOPPED(status));
		ASSERT_EQ(0, kill(pid, SIGCONT));
		ASSERT_COMMITS_GO_ON(1);
	}
	vcpu_write(self->shared->stop, true);
	ASSERT_CHILD_OK(pid);
}

TEST_F_TIMEOUT(child, killed_beside_commits, 120)
{
	u64 seed = test_seed(), rounds = env_number("ITER", 16), i;
	struct rnd rnd;
	pid_t pid;

	TH_LOG("SEED=%llu ITER=%llu", (unsigned long long)seed,
	       (unsigned long long)rounds);
	rnd_seed(&rnd, seed);
	for (i = 0; i < rounds; i++) {
		FORK_VMM(pid, child_vmm);
		usleep(rnd_below(&rnd, 20000));
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_KILLED(pid);
		EXPECT_NOTHING_LEFT();
	}
}

/* A VMM that hangs in the middle of a hold, for ever if nobody kills it. */
static int child_in_hold(struct shared *shared)
{
	struct committer committer;
	struct plug plug;
	struct vcpu v[3];
	struct vm vm;
	int rc;

	rc = child_start(&vm, v, shared);
	if (rc)
		return rc;
	if (plug_in(&plug, &vm) || committer_start(&committer, &vm))
		return 60;
	wait_until(thread_sleeps_in(committer.tid, "gpamap_lock_within"));
	vcpu_write(shared->commits, 1);
	return committer_end(&committer) ? 61 : 62;
}

TEST_F_TIMEOUT(child, killed_in_hold, 60)
{
	pid_t pid;

	SKIP_WITHOUT_UFFD();
	FORK_VMM(pid, child_in_hold);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_KILLED(pid);
	EXPECT_NOTHING_LEFT();
}

/* A VMM that waits for the hold, for ever if nobody kills it. */
static int child_waiting(struct shared *shared)
{
	struct committer committer;
	struct gpamap_op ops[2];
	struct vcpu v[3];
	struct vm vm;
	void *lazy;
	int rc, uffd;

	rc = child_start(&vm, v, shared);
	if (rc)
		return rc;
	vcpu_stop(&v[2]);
	uffd = uffd_open();
	lazy = uffd_memory(uffd, 1);
	ops[0] = op_ram(LAZY, PAGE - 1, lazy);
	ops[1] = op_add(LAZY, ROOT, LAZY_GPA, 0);
	if (!lazy || _test_cmd_apply(vm.fd, ops, 2, NULL, NULL) ||
	    vcpu_start(&v[2], GUEST_COUNT, LAZY_GPA, 0, 0))
		return 60;
	wait_until(uffd_has_fault(uffd));
	if (committer_start(&committer, &vm))
		return 61;
	wait_until(thread_sleeps_in(committer.tid, "[gpamap]"));
	vcpu_write(shared->commits, 1);
	return committer_end(&committer) ? 62 : 63;
}

TEST_F_TIMEOUT(child, killed_while_waiting, 60)
{
	pid_t pid;

	SKIP_WITHOUT_UFFD();
	FORK_VMM(pid, child_waiting);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_KILLED(pid);
	EXPECT_NOTHING_LEFT();
}

/* The map outlives its VMM, whose vCPUs ran: nobody else can commit. */
TEST_F(child, map_of_a_dead_vmm)
{
	int fd = map_open();
	struct gpamap_apply out;
	struct gpamap_op op;
	char *mem;
	pid_t pid;

	ASSERT_LE(0, fd);
	mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		   0);
	ASSERT_NE(MAP_FAILED, (void *)mem);
	test_cmd_apply(fd, op_container(ROOT, U64_MAX), op_ram(MEM, PAGE - 1, mem),
		       op_add(MEM, ROOT, A, 0),
		       op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct vcpu vcpu;
		struct guest guest;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (guest_create(&guest) || _test_cmd_attach(fd, guest.vm, 0, 1))
			_exit(1);
		vcpu_first(&vcpu, &guest);
		if (vcpu_count(&vcpu) || !vcpu_moves_on(&vcpu))
			_exit(2);
		vcpu_write(self->shared->ready, true);
		for (;;)
			pause();
	}
	wait_until(vcpu_read(self->shared->ready) || waitpid(pid, NULL, WNOHANG));
	ASSERT_TRUE(vcpu_read(self->shared->ready));
	test_err_apply(EIO, GPAMAP_NO_OP, fd, op_at(MEM, B));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_KILLED(pid);
	test_err_apply(EIO, GPAMAP_NO_OP, fd, op_at(MEM, B));
	op = op_at(MEM, B);
	EXPECT_ERR_UNCHANGED(EIO, fd, _test_cmd_plan(fd, GPAMAP_APPLY_DRY_RUN, &op, 1,
						     &out));
	test_err_detach(EIO, fd);
	EXPECT_EQ(0u, query_stats(fd).hold_failures);
	close(fd);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * No wait without a bound: a vCPU sleeps inside of KVM, in a page fault that userfaultfd is to
 * resolve or in a hypercall of Xen's, and every call that changes what it could see is back
 * within its time, EBUSY, with nothing changed. close(), in whatever way it comes about, waits
 * for nothing at all; what it leaves to be done ends when the fault is resolved.
 */
#include "harness.h"
#include <dirent.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include "debugfs.h"
#include "gpamap_util.h"
#include "guest_io.h"
#include "leaks.h"
#include "uffd.h"
#include "vcpu.h"

#define PAGE TEST_PAGE

enum { ROOT = 1, PORTS, PDEV, DEV, BARE, POSTER, HOLE, HERE, THERE, MORE };
enum { SPACE = 1, IO_SPACE };

#define X 0x10000000ULL
#define Y 0x10100000ULL
#define Z 0x20000000ULL
#define LAZY_GPA 0x30000000ULL
#define LAZY_SLOT 400
#define PLUG 0x150000000ULL
#define PLUG_SLOT 401
#define PORT 0x608
#define RING 1
#define NR_RAM 8

/* Milliseconds: what a call is given, what it may take besides, and what no test depends on. */
#define TIMEOUT 300
#define LATE 100
#define HOLD_TIMEOUT 3000
#define FOREVER 600000
/* What the exit of a process may take, with all that it had. */
#define EXIT 1000
/* After this a call that should be back long ago is given up. */
#define HUNG 3000

static const struct gpamap_register reg = {
	.len = 8, .kind = GPAMAP_REGISTER_READONLY, .value = 1,
};

/* A map of all kinds of things, and a VM with two vCPUs: the first sleeps, the second runs. */
struct stuck {
	struct guest guest;
	struct vcpu sleeper, runner;
	int fd, uffd, bell;
	char *lazy;			/* what the sleeper has touched */
	char *ram;
};

static int make_map(struct stuck *s)
{
	const struct gpamap_op ops[] = {
		op_container(ROOT, U64_MAX), op_container(PORTS, 0xffff),
		op_io(PDEV, 3), op_io(DEV, PAGE - 1), op_io(BARE, PAGE - 1),
		op_io(POSTER, PAGE - 1), op_reserved(HOLE, PAGE - 1),
		op_ram(HERE, PAGE - 1, s->ram), op_ram(THERE, PAGE - 1, s->ram + PAGE),
		op_ram(MORE, PAGE - 1, s->ram + 2 * PAGE),
		op_enable(THERE, false),
		op_add(PDEV, PORTS, PORT, 0), op_add(DEV, ROOT, X, 0),
		op_add(BARE, ROOT, X + 2 * PAGE, 0), op_add(POSTER, ROOT, X + 4 * PAGE, 0),
		op_add(HOLE, ROOT, X + 6 * PAGE, 0), op_add(HERE, ROOT, Z, 0),
		op_add(THERE, ROOT, Z + 2 * PAGE, 0), op_add(MORE, ROOT, Z + 4 * PAGE, 0),
		op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT),
		op_space(IO_SPACE, GPAMAP_SPACE_IO, PORTS),
	};
	int rc;

	s->fd = map_open();
	if (s->fd < 0)
		return s->fd;
	rc = _test_cmd_apply(s->fd, ops, ARRAY_SIZE(ops), NULL, NULL);
	rc = rc ?: registers_set(s->fd, DEV, &reg, 1);
	return rc ?: ring_add(s->fd, RING, GPAMAP_MIN_RING_ENTRIES, s->bell);
}

/* All but the sleep: 0 or -errno. */
static int stuck_create(struct stuck *s, bool attached)
{
	int rc;

	memset(s, 0, sizeof(*s));
	s->fd = -1;
	rc = guest_create(&s->guest);
	if (rc)
		return rc;
	s->uffd = uffd_open();
	if (s->uffd < 0)
		return s->uffd;
	s->lazy = uffd_memory(s->uffd, 1);
	s->ram = mmap(NULL, NR_RAM * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	s->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (!s->lazy || s->ram == MAP_FAILED || s->bell < 0)
		return -ENOMEM;
	rc = guest_set_slot(&s->guest, LAZY_SLOT, 0, LAZY_GPA, 1, s->lazy);
	rc = rc ?: make_map(s);
	if (!rc && attached)
		rc = _test_cmd_attach(s->fd, s->guest.vm, 0, 64);
	vcpu_first(&s->sleeper, &s->guest);
	rc = rc ?: vcpu_add(&s->runner, &s->guest, 1);
	return rc ?: vcpu_count(&s->runner);
}

static int fall_asleep(struct stuck *s)
{
	int rc = vcpu_start(&s->sleeper, GUEST_COUNT, LAZY_GPA, 0, 0);

	if (rc)
		return rc;
	wait_until(uffd_has_fault(s->uffd));
	return vcpu_moves_on(&s->runner) ? 0 : -EPROTO;
}

static int wake_up(struct stuck *s)
{
	return uffd_resolve(s->uffd, s->lazy);
}

/* Whatever is still open goes. */
static void stuck_destroy(struct stuck *s)
{
	wake_up(s);
	vcpu_stop(&s->sleeper);
	vcpu_destroy(&s->runner);
	if (s->fd >= 0)
		close(s->fd);
	guest_destroy(&s->guest);
	close(s->uffd);
	close(s->bell);
	munmap(s->lazy, PAGE);
	munmap(s->ram, NR_RAM * PAGE);
}

/* -- calls with a clock ------------------------------------------------------- */

struct timed {
	struct stuck *s;
	int (*run)(struct stuck *s, u32 timeout_ms);
	u32 timeout_ms;
	pthread_t thread;
	pid_t tid;
	int rc;
	u64 ms;
	bool done;
};

static void *timed_thread(void *arg)
{
	struct timed *t = arg;
	u64 begin = now_ms();

	vcpu_write(t->tid, syscall(SYS_gettid));
	t->rc = t->run(t->s, t->timeout_ms);
	t->ms = now_ms() - begin;
	vcpu_write(t->done, true);
	return NULL;
}

static int timed_start(struct timed *t, struct stuck *s,
		       int (*run)(struct stuck *s, u32 timeout_ms), u32 timeout_ms)
{
	*t = (struct timed){ .s = s, .run = run, .timeout_ms = timeout_ms };
	if (pthread_create(&t->thread, NULL, timed_thread, t))
		return -EAGAIN;
	wait_until(vcpu_read(t->tid));
	return 0;
}

/* It waits somewhere in the module, or has come back already. */
static void timed_wait(struct timed *t)
{
	wait_until(thread_sleeps_in(t->tid, "gpamap") || vcpu_read(t->done));
}

/* It has come back; if not, whoever sleeps is woken, so that it can. */
static bool timed_end(struct timed *t)
{
	struct timespec until;
	int rc;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += HUNG / 1000 * test_patience();
	rc = pthread_timedjoin_np(t->thread, NULL, &until);
	if (!rc)
		return true;
	wake_up(t->s);
	pthread_join(t->thread, NULL);
	return false;
}

/* Not before its time, and not later than it may be. */
#define EXPECT_BUSY_IN_TIME(_t, _timeout)					\
	do {									\
		EXPECT_EQ(-EBUSY, (_t)->rc);					\
		EXPECT_LE((_timeout) / 2, (int)(_t)->ms);			\
		EXPECT_GE((int)((_timeout) + LATE * test_patience()), (int)(_t)->ms) \
			TH_LOG("back after %llu ms", (unsigned long long)(_t)->ms); \
	} while (0)

/* A statement that waits for nothing. */
#define EXPECT_WITHIN(_ms, ...)							\
	do {									\
		u64 __begin = now_ms();						\
		__VA_ARGS__;							\
		EXPECT_GE((int)((_ms) * test_patience()), (int)(now_ms() - __begin)); \
	} while (0)
#define EXPECT_AT_ONCE(...) EXPECT_WITHIN(LATE, __VA_ARGS__)

#define SKIP_WITHOUT_HANDLER()							\
	do {									\
		if (access("/sys/module/gpamap_pmtimer", F_OK))			\
			SKIP(return, "the sample gpamap_pmtimer is not loaded"); \
	} while (0)

/* -- every call ----------------------------------------------------------------- */

static int apply(struct stuck *s, u32 timeout_ms, const struct gpamap_op *ops, u32 nr)
{
	struct gpamap_apply out;

	return _test_cmd_apply_timed(s->fd, ops, nr, timeout_ms, &out);
}

#define APPLY(_name, ...)							\
	static int _name(struct stuck *s, u32 timeout_ms)			\
	{									\
		const struct gpamap_op ops[] = { __VA_ARGS__ };			\
										\
		return apply(s, timeout_ms, ops, ARRAY_SIZE(ops));		\
	}

APPLY(apply_move, op_at(DEV, Y))
APPLY(apply_move_and_slots, op_at(DEV, Y), op_enable(HERE, false), op_enable(MORE, false))
APPLY(apply_create, op_enable(THERE, true))
APPLY(apply_delete, op_enable(HERE, false))
APPLY(apply_swap, op_enable(HERE, false), op_enable(THERE, true))
APPLY(apply_destroy, op_untie(DEV, TIE_ALL), op_del(DEV), op_destroy(DEV))
APPLY(apply_doorbell, op_doorbell(DEV, 16, 4, s->bell))
APPLY(apply_first_doorbell, op_doorbell(BARE, 16, 4, s->bell))
APPLY(apply_registers, op_registers(BARE, &reg, 1))
APPLY(apply_registers_remove, op_registers_remove(DEV))
APPLY(apply_handler, op_handler(PDEV, "acpi-pm-timer", 1))
APPLY(apply_post, op_post(POSTER, RING))
APPLY(apply_policy, op_policy(HOLE, GPAMAP_POLICY_ZEROES))
APPLY(apply_untie, op_untie(DEV, GPAMAP_TIE_REGISTERS))

static int attach(struct stuck *s, u32 timeout_ms)
{
	return _test_cmd_attach_timed(s->fd, s->guest.vm, 0, 64, timeout_ms);
}

static int detach(struct stuck *s, u32 timeout_ms)
{
	return _test_cmd_detach_timed(s->fd, timeout_ms);
}

/* The commands that have no time of their own. */
static int doorbell(struct stuck *s, u32 timeout_ms)
{
	(void)timeout_ms;
	return doorbell_add(s->fd, BARE, 16, 4, s->bell);
}

static int registers(struct stuck *s, u32 timeout_ms)
{
	(void)timeout_ms;
	return registers_set(s->fd, BARE, &reg, 1);
}

static int registers_remove(struct stuck *s, u32 timeout_ms)
{
	struct gpamap_registers cmd = {
		.size = sizeof(cmd), .flags = GPAMAP_REGISTERS_REMOVE, .region = DEV,
	};

	(void)timeout_ms;
	return map_ioctl(s->fd, GPAMAP_REGISTERS, &cmd);
}

static int handler(struct stuck *s, u32 timeout_ms)
{
	(void)timeout_ms;
	return handler_set(s->fd, PDEV, "acpi-pm-timer", 1);
}

static int post(struct stuck *s, u32 timeout_ms)
{
	(void)timeout_ms;
	return post_add(s->fd, POSTER, RING);
}

static int policy(struct stuck *s, u32 timeout_ms)
{
	(void)timeout_ms;
	return policy_set(s->fd, HOLE, GPAMAP_POLICY_ZEROES);
}

FIXTURE(bounded) {
	struct stuck s;
};

FIXTURE_VARIANT(bounded) {
	int (*run)(struct stuck *s, u32 timeout_ms);
	bool timed;			/* it has a time of its own */
	bool detached;			/* the map is not attached */
	bool handler;			/* it needs the sample's */
};

#define VARIANT(_name, ...)							\
	FIXTURE_VARIANT_ADD(bounded, _name) { .run = _name, __VA_ARGS__ }

VARIANT(apply_move, .timed = true);
VARIANT(apply_move_and_slots, .timed = true);
VARIANT(apply_create, .timed = true);
VARIANT(apply_delete, .timed = true);
VARIANT(apply_swap, .timed = true);
VARIANT(apply_destroy, .timed = true);
VARIANT(apply_doorbell, .timed = true);
VARIANT(apply_first_doorbell, .timed = true);
VARIANT(apply_registers, .timed = true);
VARIANT(apply_registers_remove, .timed = true);
VARIANT(apply_handler, .timed = true, .handler = true);
VARIANT(apply_post, .timed = true);
VARIANT(apply_policy, .timed = true);
VARIANT(apply_untie, .timed = true);
VARIANT(attach, .timed = true, .detached = true);
VARIANT(detach, .timed = true);
VARIANT(doorbell, .timed = false);
VARIANT(registers, .timed = false);
VARIANT(registers_remove, .timed = false);
VARIANT(handler, .handler = true);
VARIANT(post, .timed = false);
VARIANT(policy, .timed = false);

FIXTURE_SETUP(bounded)
{
	/* Under a test that was given up this may be of the past. */
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", HOLD_TIMEOUT));
	SKIP_WITHOUT_UFFD();
	if (variant->handler)
		SKIP_WITHOUT_HANDLER();
	EXPECT_NOTHING_LEFT();
	ASSERT_EQ(0, stuck_create(&self->s, !variant->detached));
}

FIXTURE_TEARDOWN(bounded)
{
	EXPECT_EQ(0, module_param_set("hold_timeout_ms", HOLD_TIMEOUT));
	stuck_destroy(&self->s);
	EXPECT_NOTHING_LEFT();
}

/* What is tied, as debugfs tells it; to be freed. */
static char *ties(void)
{
	char dir[300];

	return debugfs_find(0, dir, sizeof(dir)) == 1 ? debugfs_read(dir, "io") : NULL;
}

TEST_F_TIMEOUT(bounded, is_busy_in_time, 60)
{
	u64 failures = query_stats(self->s.fd).hold_failures;
	struct snapshot *before, *after;
	char *tied, *tied_after;
	struct timed t;

	ASSERT_EQ(0, fall_asleep(&self->s));
	/* One that has its own time must not use the module's, nor the other way round. */
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", variant->timed ? FOREVER : TIMEOUT));
	before = snapshot_take(self->s.fd);
	tied = ties();
	ASSERT_NE(NULL, before);
	ASSERT_NE(NULL, tied);
	ASSERT_EQ(0, timed_start(&t, &self->s, variant->run, TIMEOUT));
	EXPECT_TRUE(timed_end(&t)) TH_LOG("it did not come back until the fault was resolved");
	EXPECT_BUSY_IN_TIME(&t, TIMEOUT);
	EXPECT_UNCHANGED(self->s.fd, before);
	tied_after = ties();
	EXPECT_STREQ(tied, tied_after);
	free(tied_after);
	EXPECT_LT(failures, query_stats(self->s.fd).hold_failures);
	/* Who was held meanwhile goes on. */
	EXPECT_TRUE(vcpu_moves_on(&self->s.runner));
	EXPECT_FALSE(vcpu_read(self->s.sleeper.ended));
	wake_up(&self->s);
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", HOLD_TIMEOUT));
	EXPECT_EQ(0, variant->run(&self->s, HOLD_TIMEOUT));
	after = snapshot_take(self->s.fd);
	ASSERT_NE(NULL, after);
	tied_after = ties();
	EXPECT_TRUE(snapshot_diff(before, after) || strcmp(tied, tied_after));
	EXPECT_EQ(0, vcpu_stop(&self->s.sleeper)) TH_LOG("%s", vcpu_text(&self->s.sleeper));
	EXPECT_EQ(0, vcpu_stop(&self->s.runner)) TH_LOG("%s", vcpu_text(&self->s.runner));
	snapshot_free(before);
	snapshot_free(after);
	free(tied);
	free(tied_after);
}

/* The fault is resolved in time: the call goes on where it waited. */
TEST_F_TIMEOUT(bounded, is_done_in_time, 60)
{
	struct timed t;

	ASSERT_EQ(0, fall_asleep(&self->s));
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", FOREVER));
	ASSERT_EQ(0, timed_start(&t, &self->s, variant->run, FOREVER));
	timed_wait(&t);
	usleep(20000);
	wake_up(&self->s);
	EXPECT_TRUE(timed_end(&t));
	EXPECT_EQ(0, t.rc);
	EXPECT_TRUE(vcpu_moves_on(&self->s.runner));
	EXPECT_EQ(0, vcpu_stop(&self->s.sleeper)) TH_LOG("%s", vcpu_text(&self->s.sleeper));
}

/* -- who else waits -------------------------------------------------------------- */

FIXTURE(waits) {
	struct stuck s;
};

FIXTURE_SETUP(waits)
{
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", HOLD_TIMEOUT));
	SKIP_WITHOUT_UFFD();
	EXPECT_NOTHING_LEFT();
	ASSERT_EQ(0, stuck_create(&self->s, true));
}

FIXTURE_TEARDOWN(waits)
{
	EXPECT_EQ(0, module_param_set("hold_timeout_ms", HOLD_TIMEOUT));
	stuck_destroy(&self->s);
	EXPECT_NOTHING_LEFT();
}

/* The module's time, of a commit that moves what is tied and takes memory away. */
TEST_F_TIMEOUT(waits, uffd_and_tied, 60)
{
	struct timed t;

	ASSERT_EQ(0, fall_asleep(&self->s));
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", 500));
	ASSERT_EQ(0, timed_start(&t, &self->s, apply_move_and_slots, 0));
	EXPECT_TRUE(timed_end(&t)) TH_LOG("it did not come back until the fault was resolved");
	EXPECT_BUSY_IN_TIME(&t, 500);
}

/* A VMM that commits and serves faults in one thread can do both. */
TEST_F_TIMEOUT(waits, single_thread, 20)
{
	u32 rounds = 0;

	/* Nobody has been told of the fault yet: it is read between commits. */
	ASSERT_EQ(0, vcpu_start(&self->s.sleeper, GUEST_COUNT, LAZY_GPA, 0, 0));
	wait_until(thread_sleeps_in(self->s.sleeper.tid, "userfault"));
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", 100));
	/* One that would not come back is ended by the harness. */
	while (apply_move(&self->s, 100) == -EBUSY) {
		rounds++;
		ASSERT_TRUE(uffd_has_fault(self->s.uffd));
		ASSERT_EQ(0, wake_up(&self->s));
	}
	EXPECT_EQ(1u, rounds);
	EXPECT_EQ(0, apply_swap(&self->s, HOLD_TIMEOUT));
	EXPECT_EQ(0, vcpu_stop(&self->s.sleeper));
}

/* Where a vCPU can see nothing of it, nobody is waited for. */
TEST_F_TIMEOUT(waits, nothing_to_see, 60)
{
	struct gpamap_apply out;

	ASSERT_EQ(0, fall_asleep(&self->s));
	EXPECT_AT_ONCE(test_cmd_apply(self->s.fd, op_container(99, PAGE), op_io(98, PAGE - 1),
				      op_add(98, 99, 0, 0)));
	EXPECT_AT_ONCE(test_cmd_apply(self->s.fd, op_at(DEV, Y), op_at(DEV, X)));
	EXPECT_AT_ONCE(test_cmd_plan(self->s.fd, GPAMAP_APPLY_DRY_RUN, &out, op_at(DEV, Y),
				     op_enable(HERE, false)));
	EXPECT_EQ((u32)GPAMAP_PLAN_HOLD, out.out_plan);
	/* Its operation, not the vCPU, is what is wrong. */
	EXPECT_AT_ONCE(test_err_apply(ENOENT, 1, self->s.fd, op_at(DEV, Y), op_del(77)));
}

/* A map that is asked while a commit waits: by another process, by another thread. */
TEST_F_TIMEOUT(waits, query_meanwhile, 60)
{
	struct timed t;
	pid_t pid;
	u64 begin;

	ASSERT_EQ(0, fall_asleep(&self->s));
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", TIMEOUT * 3));
	ASSERT_EQ(0, timed_start(&t, &self->s, apply_move_and_slots, TIMEOUT * 3));
	timed_wait(&t);
	begin = now_ms();
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(query_info(self->s.fd).nr_regions ? 0 : 1);
	}
	while (!waitpid(pid, NULL, WNOHANG) && now_ms() - begin < HUNG / 2)
		usleep(1000);
	EXPECT_GE((int)(TIMEOUT * 3 + LATE * test_patience()), (int)(now_ms() - begin))
		TH_LOG("QUERY was not answered");
	EXPECT_TRUE(timed_end(&t));
	/* It may be the one that is left when the fault is resolved for the other. */
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	EXPECT_BUSY_IN_TIME(&t, TIMEOUT * 3);
}

/* Two commits: the second waits for the map, no longer than it may. */
TEST_F_TIMEOUT(waits, two_commits, 60)
{
	struct timed first, second;

	ASSERT_EQ(0, fall_asleep(&self->s));
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", 4 * TIMEOUT));
	ASSERT_EQ(0, timed_start(&first, &self->s, apply_swap, 4 * TIMEOUT));
	timed_wait(&first);
	ASSERT_EQ(0, timed_start(&second, &self->s, apply_move, TIMEOUT));
	EXPECT_TRUE(timed_end(&second));
	EXPECT_BUSY_IN_TIME(&second, TIMEOUT);
	EXPECT_TRUE(timed_end(&first));
	EXPECT_BUSY_IN_TIME(&first, 4 * TIMEOUT);
}

/* A caller that is killed while it waits, in a child that has all of it. */
TEST_F_TIMEOUT(waits, killed_while_waiting, 60)
{
	struct timed t;
	int ready[2];
	pid_t pid;
	char c;

	ASSERT_EQ(0, pipe(ready));
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", FOREVER));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct stuck s;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (stuck_create(&s, true) || fall_asleep(&s) ||
		    timed_start(&t, &s, apply_move_and_slots, FOREVER))
			_exit(1);
		timed_wait(&t);
		if (write(ready[1], "x", 1) != 1)
			_exit(2);
		pause();
		_exit(3);
	}
	ASSERT_EQ(1, read(ready[0], &c, 1));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_WITHIN(EXIT, ASSERT_EQ(pid, waitpid(pid, NULL, 0)));
	close(ready[0]);
	close(ready[1]);
}

static void *ioeventfd_thread(void *arg)
{
	struct stuck *s = arg;
	struct kvm_ioeventfd io = { .addr = Z + 0x100000, .len = 4, .fd = s->bell };

	return (void *)(long)(ioctl(s->guest.vm, KVM_IOEVENTFD, &io) ? errno : 0);
}

/* KVM's own wait for the same vCPU has the lock that a commit needs. */
TEST_F_TIMEOUT(waits, kvm_waits_with_its_lock, 60)
{
	struct timed t[2];
	pthread_t thread;
	void *rc;

	ASSERT_EQ(0, fall_asleep(&self->s));
	ASSERT_EQ(0, pthread_create(&thread, NULL, ioeventfd_thread, &self->s));
	usleep(100000);
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", TIMEOUT));
	ASSERT_EQ(0, timed_start(&t[0], &self->s, apply_move_and_slots, TIMEOUT));
	EXPECT_TRUE(timed_end(&t[0]));
	EXPECT_BUSY_IN_TIME(&t[0], TIMEOUT);
	ASSERT_EQ(0, timed_start(&t[1], &self->s, detach, TIMEOUT));
	EXPECT_TRUE(timed_end(&t[1]));
	EXPECT_BUSY_IN_TIME(&t[1], TIMEOUT);
	EXPECT_NE(0u, query_info(self->s.fd).state & GPAMAP_STATE_ATTACHED);
	wake_up(&self->s);
	pthread_join(thread, &rc);
	EXPECT_EQ(NULL, rc);
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", HOLD_TIMEOUT));
	EXPECT_EQ(0, apply_move_and_slots(&self->s, HOLD_TIMEOUT));
}

/* Somebody has KVM's lock of the slots, and no vCPU sleeps. */
struct plug {
	struct stuck *s;
	pthread_t thread;
	int rc;
};

static void *plug_thread(void *arg)
{
	struct plug *plug = arg;
	struct kvm_dirty_log log = { .slot = PLUG_SLOT, .dirty_bitmap = plug->s->lazy };

	plug->rc = ioctl(plug->s->guest.vm, KVM_GET_DIRTY_LOG, &log) ? -errno : 0;
	return NULL;
}

TEST_F_TIMEOUT(waits, kvm_lock_is_held, 60)
{
	struct plug plug = { .s = &self->s };
	struct timed t[3];
	u32 i;

	ASSERT_EQ(0, guest_set_slot(&self->s.guest, PLUG_SLOT, KVM_MEM_LOG_DIRTY_PAGES, PLUG, 1,
				    self->s.ram + 5 * PAGE));
	ASSERT_EQ(0, pthread_create(&plug.thread, NULL, plug_thread, &plug));
	wait_until(uffd_has_fault(self->s.uffd));
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", TIMEOUT));
	ASSERT_EQ(0, timed_start(&t[0], &self->s, apply_move, TIMEOUT));
	EXPECT_TRUE(timed_end(&t[0]));
	EXPECT_BUSY_IN_TIME(&t[0], TIMEOUT);
	ASSERT_EQ(0, timed_start(&t[1], &self->s, apply_swap, TIMEOUT));
	EXPECT_TRUE(timed_end(&t[1]));
	EXPECT_BUSY_IN_TIME(&t[1], TIMEOUT);
	ASSERT_EQ(0, timed_start(&t[2], &self->s, registers_remove, TIMEOUT));
	EXPECT_TRUE(timed_end(&t[2]));
	EXPECT_BUSY_IN_TIME(&t[2], TIMEOUT);
	for (i = 0; i < 3; i++)
		EXPECT_TRUE(vcpu_moves_on(&self->s.runner));
	wake_up(&self->s);
	pthread_join(plug.thread, NULL);
	EXPECT_EQ(0, plug.rc);
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", HOLD_TIMEOUT));
	EXPECT_EQ(0, apply_swap(&self->s, HOLD_TIMEOUT));
}

/* -- close and exit ----------------------------------------------------------------- */

static int ring_with(int file)
{
	struct io_uring_params p = { 0 };
	int ring = syscall(__NR_io_uring_setup, 4, &p);

	if (ring < 0)
		return -errno;
	if (syscall(__NR_io_uring_register, ring, IORING_REGISTER_FILES, &file, 1) < 0) {
		close(ring);
		return -EINVAL;
	}
	return ring;
}

/* Whether a pipe is closed in time if a kernel thread, which closes for all, is to do it. */
static bool others_are_closed(void)
{
	struct pollfd p = { .events = POLLIN };
	int fds[2], ring, rc;

	if (pipe(fds))
		return false;
	ring = ring_with(fds[1]);
	close(fds[1]);
	if (ring < 0)
		return false;
	close(ring);
	p.fd = fds[0];
	rc = poll(&p, 1, 3000 * test_patience());
	close(fds[0]);
	return rc == 1;
}

/* A process that has nothing of the map's, and looks whether others' files are closed. */
struct witness {
	pid_t pid;
	int ask, answer;
};

static int witness_create(struct witness *w)
{
	int ask[2], answer[2];
	char c;

	if (pipe(ask) || pipe(answer))
		return -errno;
	w->pid = fork();
	if (!w->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(ask[1]);
		while (read(ask[0], &c, 1) == 1) {
			c = others_are_closed();
			if (write(answer[1], &c, 1) != 1)
				break;
		}
		_exit(0);
	}
	close(ask[0]);
	close(answer[1]);
	w->ask = ask[1];
	w->answer = answer[0];
	return w->pid < 0 ? -errno : 0;
}

static bool witness_sees_all_closed(struct witness *w)
{
	char c = 0;

	return write(w->ask, "x", 1) == 1 && read(w->answer, &c, 1) == 1 && c;
}

static void witness_destroy(struct witness *w)
{
	kill(w->pid, SIGKILL);
	waitpid(w->pid, NULL, 0);
	close(w->ask);
	close(w->answer);
}

FIXTURE(ends) {
	struct stuck s;
	struct witness witness;
};

FIXTURE_SETUP(ends)
{
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", HOLD_TIMEOUT));
	EXPECT_NOTHING_LEFT();
	/* Before there is anything that it would inherit. */
	ASSERT_EQ(0, witness_create(&self->witness));
}

FIXTURE_TEARDOWN(ends)
{
	witness_destroy(&self->witness);
	EXPECT_EQ(0, module_param_set("hold_timeout_ms", HOLD_TIMEOUT));
	EXPECT_NOTHING_LEFT();
}

#define STUCK()									\
	do {									\
		SKIP_WITHOUT_UFFD();						\
		ASSERT_EQ(0, stuck_create(&self->s, true));			\
		ASSERT_EQ(0, fall_asleep(&self->s));				\
	} while (0)

static void close_map(struct stuck *s)
{
	close(s->fd);
	s->fd = -1;
}

/* The vCPUs' and the VM's: only the threads that are in KVM_RUN have them still. */
static void close_vm(struct stuck *s)
{
	close(s->sleeper.cpu.vcpu);
	close(s->runner.cpu.vcpu);
	close(s->guest.vm);
	s->sleeper.cpu.vcpu = -1;
	s->runner.cpu.vcpu = -1;
	s->guest.vcpu = -1;
	s->guest.vm = -1;
}

TEST_F_TIMEOUT(ends, map_first, 30)
{
	STUCK();
	EXPECT_AT_ONCE(close_map(&self->s));
	EXPECT_TRUE(vcpu_moves_on(&self->s.runner));
	EXPECT_FALSE(vcpu_read(self->s.sleeper.ended));
	EXPECT_TRUE(witness_sees_all_closed(&self->witness));
	ASSERT_EQ(0, wake_up(&self->s));
	EXPECT_NO_MAP_LEFT();
	EXPECT_EQ(0, vcpu_stop(&self->s.sleeper)) TH_LOG("%s", vcpu_text(&self->s.sleeper));
	EXPECT_EQ(0, vcpu_stop(&self->s.runner)) TH_LOG("%s", vcpu_text(&self->s.runner));
	stuck_destroy(&self->s);
}

TEST_F_TIMEOUT(ends, vm_first, 30)
{
	STUCK();
	close_vm(&self->s);
	EXPECT_AT_ONCE(close_map(&self->s));
	EXPECT_TRUE(witness_sees_all_closed(&self->witness));
	stuck_destroy(&self->s);
}

TEST_F_TIMEOUT(ends, vm_last_while_asleep, 30)
{
	STUCK();
	EXPECT_AT_ONCE(close_map(&self->s));
	close_vm(&self->s);
	EXPECT_TRUE(witness_sees_all_closed(&self->witness));
	stuck_destroy(&self->s);
}

/* The last of it is closed by a thread that closes files for all. */
TEST_F_TIMEOUT(ends, close_in_kworker, 30)
{
	int ring;

	ASSERT_TRUE(witness_sees_all_closed(&self->witness));
	STUCK();
	ASSERT_TRUE(witness_sees_all_closed(&self->witness));
	ring = ring_with(self->s.fd);
	if (ring == -ENOSYS || ring == -EPERM) {
		stuck_destroy(&self->s);
		SKIP(return, "this kernel has no io_uring");
	}
	ASSERT_LE(0, ring);
	close_map(&self->s);
	close(ring);
	usleep(500000);
	EXPECT_TRUE(witness_sees_all_closed(&self->witness))
		TH_LOG("no delayed close of the whole system is done");
	ASSERT_EQ(0, wake_up(&self->s));
	usleep(100000);
	EXPECT_TRUE(witness_sees_all_closed(&self->witness));
	/* The argument page cannot be unmapped from there, and holds the module. */
	EXPECT_LE(0, scratch_unmap());
	EXPECT_NO_MAP_LEFT();
	stuck_destroy(&self->s);
}

/* Another process has the last file: it was passed the descriptor. */
TEST_F_TIMEOUT(ends, passed_to_another_process, 30)
{
	int socks[2];
	pid_t pid;
	char c;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, socks));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		int fd;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(socks[0]);
		fd = fd_receive(socks[1]);
		if (fd < 0 || write(socks[1], "x", 1) != 1 || read(socks[1], &c, 1) != 1)
			_exit(1);
		close(fd);
		_exit(write(socks[1], "x", 1) == 1 ? 0 : 2);
	}
	close(socks[1]);
	STUCK();
	ASSERT_EQ(0, fd_send(socks[0], self->s.fd));
	ASSERT_EQ(1, read(socks[0], &c, 1));
	close_map(&self->s);
	ASSERT_EQ(1, write(socks[0], "x", 1));
	EXPECT_AT_ONCE(ASSERT_EQ(1, read(socks[0], &c, 1)));
	EXPECT_WITHIN(EXIT, ASSERT_CHILD_OK(pid));
	EXPECT_TRUE(witness_sees_all_closed(&self->witness));
	ASSERT_EQ(0, wake_up(&self->s));
	EXPECT_LE(0, scratch_unmap());
	EXPECT_NO_MAP_LEFT();
	close(socks[0]);
	stuck_destroy(&self->s);
}

/* A child has inherited the map, and its exit is the last close. */
TEST_F_TIMEOUT(ends, inherited, 30)
{
	int go[2];
	pid_t pid;
	char c;

	STUCK();
	ASSERT_EQ(0, pipe(go));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(self->s.uffd);
		_exit(read(go[0], &c, 1) == 1 ? 0 : 1);
	}
	close_map(&self->s);
	ASSERT_EQ(1, write(go[1], "x", 1));
	EXPECT_WITHIN(EXIT, ASSERT_CHILD_OK(pid));
	EXPECT_TRUE(witness_sees_all_closed(&self->witness));
	ASSERT_EQ(0, wake_up(&self->s));
	EXPECT_LE(0, scratch_unmap());
	EXPECT_NO_MAP_LEFT();
	close(go[0]);
	close(go[1]);
	stuck_destroy(&self->s);
}

/*
 * A VMM in a process of its own, whose vCPU sleeps when it is started; the pid or -errno. It
 * exits when something comes over @sock, or nothing can any more.
 */
static pid_t vmm_start(int *sock, int pass_to)
{
	int socks[2];
	pid_t pid;
	char c;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, socks))
		return -errno;
	pid = fork();
	if (!pid) {
		struct stuck s;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(socks[0]);
		if (stuck_create(&s, true) || fall_asleep(&s))
			_exit(1);
		if (pass_to >= 0 && fd_send(pass_to, s.fd))
			_exit(2);
		if (write(socks[1], "x", 1) != 1)
			_exit(3);
		_exit(read(socks[1], &c, 1) < 0 ? 4 : 0);
	}
	close(socks[1]);
	if (pid > 0 && read(socks[0], &c, 1) != 1)
		pid = -EIO;
	*sock = socks[0];
	return pid;
}

TEST_F_TIMEOUT(ends, vmm_is_killed, 30)
{
	int vmm, i;
	pid_t pid;

	SKIP_WITHOUT_UFFD();
	for (i = 0; i < 5; i++) {
		pid = vmm_start(&vmm, -1);
		ASSERT_LT(0, pid);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		EXPECT_WITHIN(EXIT, ASSERT_EQ(pid, waitpid(pid, NULL, 0)));
		EXPECT_NOTHING_LEFT();
		close(vmm);
	}
}

/* It ends by exit(), while its vCPUs' threads are where they are. */
TEST_F_TIMEOUT(ends, vmm_exits, 30)
{
	int vmm, i;
	pid_t pid;

	SKIP_WITHOUT_UFFD();
	for (i = 0; i < 5; i++) {
		pid = vmm_start(&vmm, -1);
		ASSERT_LT(0, pid);
		ASSERT_EQ(1, write(vmm, "x", 1));
		EXPECT_WITHIN(EXIT, ASSERT_CHILD_OK(pid));
		EXPECT_NOTHING_LEFT();
		close(vmm);
	}
}

/* The map outlives its VMM, in a process that closes it later. */
TEST_F_TIMEOUT(ends, map_outlives_the_vmm, 30)
{
	int socks[2], vmm, map;
	pid_t pid;

	SKIP_WITHOUT_UFFD();
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, socks));
	pid = vmm_start(&vmm, socks[1]);
	ASSERT_LT(0, pid);
	map = fd_receive(socks[0]);
	ASSERT_LE(0, map);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_WITHIN(EXIT, ASSERT_EQ(pid, waitpid(pid, NULL, 0)));
	EXPECT_NE(0u, query_info(map).state & GPAMAP_STATE_ATTACHED);
	EXPECT_EQ(-EIO, _test_cmd_detach(map));
	EXPECT_AT_ONCE(close(map));
	close(vmm);
	close(socks[0]);
	close(socks[1]);
}

/* -- a guest of Xen's ------------------------------------------------------------- */

#define SHARED_INFO 0x1e0000000ULL
#define SHARED_INFO_SLOT 402
#define SCHED_OP 29
#define SCHEDOP_POLL 3

extern const unsigned char xen_code[], xen_code_end[];
asm(".pushsection .rodata\n"
    "xen_code:\n"
    "	vmmcall\n"
    "	hlt\n"
    "xen_code_end:\n"
    ".popsection");

static bool any_exit(struct vcpu *vcpu)
{
	(void)vcpu;
	return true;
}

static int xen_start(struct vcpu *v)
{
	struct kvm_regs r = {
		.rip = GUEST_IO_BASE,
		.rflags = 2,
		.rax = SCHED_OP,
		.rdi = SCHEDOP_POLL,
		.rsi = GUEST_IO_BASE + PAGE,
	};
	struct kvm_mp_state state = { .mp_state = KVM_MP_STATE_RUNNABLE };

	if (ioctl(v->cpu.vcpu, KVM_SET_MP_STATE, &state) ||
	    ioctl(v->cpu.vcpu, KVM_SET_REGS, &r))
		return -errno;
	v->on_exit = any_exit;
	return vcpu_go(v);
}

static int xen_config(const struct guest *guest)
{
	struct kvm_xen_hvm_config config = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND,
		.msr = 0x40000200,
	};

	return map_ioctl(guest->vm, KVM_XEN_HVM_CONFIG, &config);
}

static int xen_long_mode(const struct guest *guest)
{
	struct kvm_xen_hvm_attr mode = {
		.type = KVM_XEN_ATTR_TYPE_LONG_MODE, .u.long_mode = 1,
	};

	return map_ioctl(guest->vm, KVM_XEN_HVM_SET_ATTR, &mode);
}

static int xen_shared_info(const struct guest *guest)
{
	struct kvm_xen_hvm_attr info = {
		.type = KVM_XEN_ATTR_TYPE_SHARED_INFO,
		.u.shared_info.gfn = SHARED_INFO / PAGE,
	};

	return map_ioctl(guest->vm, KVM_XEN_HVM_SET_ATTR, &info);
}

static void *send_event(void *arg)
{
	struct kvm_irq_routing_xen_evtchn event = {
		.port = 5, .priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL,
	};
	struct stuck *s = arg;

	return (void *)(intptr_t)map_ioctl(s->guest.vm, KVM_XEN_HVM_EVTCHN_SEND, &event);
}

/*
 * A thread of the VMM that is no vCPU's sleeps in a page fault inside of KVM's SRCU, at s->lazy.
 * 0, -ENOSYS if the kernel does not know Xen, or -errno.
 */
static int sender_start(struct stuck *s, pthread_t *sender, bool attached)
{
	struct kvm_xen_vcpu_attr vcpu_info = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, .u.gpa = SHARED_INFO + PAGE,
	};
	int rc;

	rc = guest_create_irqchip(&s->guest);
	if (rc)
		return rc;
	if (xen_config(&s->guest)) {
		guest_destroy(&s->guest);
		return -ENOSYS;
	}
	s->uffd = uffd_open();
	s->lazy = uffd_memory(s->uffd, 1);
	s->ram = mmap(NULL, NR_RAM * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		      -1, 0);
	s->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (!s->lazy || s->ram == MAP_FAILED)
		return -ENOMEM;
	rc = make_map(s);
	rc = rc ?: guest_set_slot(&s->guest, SHARED_INFO_SLOT, 0, SHARED_INFO, 1, s->lazy);
	rc = rc ?: guest_set_slot(&s->guest, SHARED_INFO_SLOT + 1, 0, SHARED_INFO + PAGE, 1,
				  s->ram + 5 * PAGE);
	if (!rc && attached)
		rc = _test_cmd_attach(s->fd, s->guest.vm, 0, 64);
	/* The page is there while KVM is told of it, and then no more. */
	rc = rc ?: uffd_resolve(s->uffd, s->lazy);
	rc = rc ?: xen_long_mode(&s->guest);
	rc = rc ?: xen_shared_info(&s->guest);
	rc = rc ?: map_ioctl(s->guest.vcpu, KVM_XEN_VCPU_SET_ATTR, &vcpu_info);
	if (rc)
		return rc;
	if (madvise(s->lazy, PAGE, MADV_DONTNEED))
		return -errno;
	rc = -pthread_create(sender, NULL, send_event, s);
	if (!rc)
		wait_until(uffd_has_fault(s->uffd));
	return rc;
}

static void sender_end(struct stuck *s)
{
	close(s->fd);
	close(s->bell);
	close(s->uffd);
	munmap(s->ram, NR_RAM * PAGE);
	munmap(s->lazy, PAGE);
	guest_destroy(&s->guest);
}

#define SENDER_START(_s, _sender, _attached)					\
	do {									\
		int __rc;							\
		SKIP_WITHOUT_UFFD();						\
		__rc = sender_start(_s, _sender, _attached);			\
		if (__rc == -ENOSYS)						\
			SKIP(return, "this kernel does not know Xen");		\
		ASSERT_EQ(0, __rc);						\
	} while (0)

/* The kernel's own threads that are in the module. */
static u32 kernel_threads(void)
{
	char text[4096];
	struct dirent *entry;
	DIR *dir = opendir("/proc");
	u32 nr = 0;

	while (dir && (entry = readdir(dir))) {
		pid_t pid = atoi(entry->d_name);

		/* They have no memory. */
		if (!pid || !read_proc(pid, "statm", text, sizeof(text)) ||
		    strncmp(text, "0 ", 2))
			continue;
		nr += read_proc(pid, "stack", text, sizeof(text)) && strstr(text, "[gpamap]");
	}
	if (dir)
		closedir(dir);
	return nr;
}

TEST_F_TIMEOUT(ends, xen_sender, 30)
{
	struct stuck s = { .uffd = -1 };
	struct timed t[2];
	pthread_t sender;
	void *rc;

	SENDER_START(&s, &sender, true);
	ASSERT_EQ(0, timed_start(&t[0], &s, apply_create, TIMEOUT));
	ASSERT_EQ(0, timed_start(&t[1], &s, apply_move_and_slots, TIMEOUT));
	usleep((TIMEOUT + LATE * test_patience()) * 1000);
	EXPECT_TRUE(timed_end(&t[0]));
	EXPECT_TRUE(timed_end(&t[1]));
	EXPECT_BUSY_IN_TIME(&t[0], TIMEOUT);
	EXPECT_BUSY_IN_TIME(&t[1], TIMEOUT);
	/* Nobody waits in their stead, for as long as the VMM likes. */
	EXPECT_EQ(0u, kernel_threads());
	ASSERT_EQ(0, uffd_resolve(s.uffd, s.lazy));
	pthread_join(sender, &rc);
	EXPECT_EQ(0, apply_move_and_slots(&s, HOLD_TIMEOUT));
	sender_end(&s);
}

/* One VM that cannot be attached to is no matter of others'. */
TEST_F_TIMEOUT(ends, xen_sender_and_another, 60)
{
	struct stuck s = { .uffd = -1 }, other;
	u32 i, busy = 0, tries = 300;
	pthread_t sender;
	void *rc;

	SENDER_START(&s, &sender, false);
	ASSERT_EQ(0, stuck_create(&other, true));
	for (i = 0; i < tries; i++)
		busy += _test_cmd_attach_timed(s.fd, s.guest.vm, 0, 64, 1) == -EBUSY;
	EXPECT_EQ(tries, busy);
	EXPECT_EQ(0u, kernel_threads());
	EXPECT_EQ(0, apply_move_and_slots(&other, HOLD_TIMEOUT));
	ASSERT_EQ(0, uffd_resolve(s.uffd, s.lazy));
	pthread_join(sender, &rc);
	EXPECT_EQ(0, _test_cmd_attach_timed(s.fd, s.guest.vm, 0, 64, HOLD_TIMEOUT));
	stuck_destroy(&other);
	sender_end(&s);
}

/* The guest alone can make a vCPU sleep inside of KVM, for ever. */
TEST_F_TIMEOUT(ends, xen_poll, 30)
{
	struct stuck s = { .uffd = -1 };
	struct vcpu *v = &s.sleeper;
	struct timed t;
	char *io;
	u32 i;

	ASSERT_EQ(0, guest_create_irqchip(&s.guest));
	if (xen_config(&s.guest)) {
		guest_destroy(&s.guest);
		SKIP(return, "this kernel does not know Xen");
	}
	io = guest_io_create(&s.guest);
	ASSERT_NE(NULL, io);
	memcpy(io, xen_code, xen_code_end - xen_code);
	/* struct sched_poll: where the ports are, how many, no time. */
	*(u64 *)(io + PAGE) = GUEST_IO_BASE + PAGE + 64;
	*(u32 *)(io + PAGE + 8) = 1;
	*(u64 *)(io + PAGE + 16) = 0;
	*(u32 *)(io + PAGE + 64) = 5;
	s.ram = mmap(NULL, NR_RAM * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		     -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)s.ram);
	s.bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ASSERT_EQ(0, make_map(&s));
	ASSERT_EQ(0, guest_set_slot(&s.guest, SHARED_INFO_SLOT, 0, SHARED_INFO, 1,
				    s.ram + 5 * PAGE));
	test_cmd_attach(s.fd, s.guest.vm, 0, 64);
	ASSERT_EQ(0, xen_long_mode(&s.guest));
	vcpu_first(v, &s.guest);
	ASSERT_EQ(0, module_param_set("hold_timeout_ms", TIMEOUT));
	for (i = 0; i < 2; i++) {
		/* The slots have changed: KVM is to look for the page again. */
		ASSERT_EQ(0, xen_shared_info(&s.guest));
		ASSERT_EQ(0, xen_start(v));
		wait_until(thread_sleeps_in(v->tid, "kvm_xen") || vcpu_read(v->returns));
		if (!thread_sleeps_in(v->tid, "kvm_xen"))
			SKIP(break, "this kernel leaves the poll to the VMM");
		ASSERT_EQ(0, timed_start(&t, &s, i ? apply_move_and_slots : apply_swap,
					 TIMEOUT));
		/* What ends that sleep is a signal, not a page. */
		usleep((TIMEOUT + LATE * test_patience()) * 1000 + 2000000);
		EXPECT_NE(0u, t.ms) TH_LOG("it did not come back until the vCPU was stopped");
		vcpu_stop(v);
		EXPECT_TRUE(timed_end(&t));
		/* It may be woken and held, as a vCPU that halts is. */
		EXPECT_TRUE(!t.rc || t.rc == -EBUSY) TH_LOG("%d", t.rc);
		EXPECT_GE((int)(TIMEOUT + LATE * test_patience()), (int)t.ms);
	}
	EXPECT_EQ(0, module_param_set("hold_timeout_ms", HOLD_TIMEOUT));
	vcpu_stop(v);
	close(s.fd);
	close(s.bell);
	munmap(s.ram, NR_RAM * PAGE);
	munmap(io, GUEST_IO_LEN);
	guest_destroy(&s.guest);
}

/* -- and after close() ------------------------------------------------------------------ */

/* A new map of the same VM, elsewhere: the old one's slots are still there. */
static int new_map(struct stuck *s, u32 timeout_ms)
{
	const struct gpamap_op ops[] = {
		op_container(ROOT, U64_MAX), op_io(DEV, PAGE - 1), op_add(DEV, ROOT, X, 0),
		op_ram(HERE, PAGE - 1, s->ram), op_add(HERE, ROOT, Z + 0x1000000, 0),
		op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT),
	};
	int rc;

	if (s->fd < 0) {
		s->fd = map_open();
		if (s->fd < 0)
			return s->fd;
		rc = _test_cmd_apply(s->fd, ops, ARRAY_SIZE(ops), NULL, NULL);
		rc = rc ?: registers_set(s->fd, DEV, &reg, 1);
		if (rc)
			return rc;
	}
	return _test_cmd_attach_timed(s->fd, s->guest.vm, 100, 64, timeout_ms);
}

TEST_F_TIMEOUT(ends, attach_straight_after_close, 30)
{
	u32 i;

	SKIP_WITHOUT_UFFD();
	ASSERT_EQ(0, stuck_create(&self->s, true));
	close_map(&self->s);
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, new_map(&self->s, 0)) TH_LOG("round %u", i);
		test_cmd_apply(self->s.fd, op_at(DEV, Y), op_at(HERE, Z + 0x2000000));
		/* What stays are its slots, which the VMM takes away. */
		close_map(&self->s);
		ASSERT_EQ(0, guest_set_slot(&self->s.guest, 100, 0, Z + 0x2000000, 0,
					    self->s.ram));
	}
	EXPECT_TRUE(vcpu_moves_on(&self->s.runner));
	stuck_destroy(&self->s);
}

TEST_F_TIMEOUT(ends, attach_while_the_old_map_ends, 30)
{
	struct timed t;

	STUCK();
	close_map(&self->s);
	ASSERT_EQ(0, timed_start(&t, &self->s, new_map, TIMEOUT));
	EXPECT_TRUE(timed_end(&t));
	EXPECT_BUSY_IN_TIME(&t, TIMEOUT);
	EXPECT_EQ(0u, query_info(self->s.fd).state);
	wake_up(&self->s);
	EXPECT_EQ(0, new_map(&self->s, HOLD_TIMEOUT));
	EXPECT_EQ(0, vcpu_stop(&self->s.sleeper));
	stuck_destroy(&self->s);
}

/*
 * The last: the program ends with a map whose end is not done yet, and the module is removed
 * straight after by whoever runs it.
 */
TEST_F_TIMEOUT(ends, program_ends_at_once, 30)
{
	int vmm;
	pid_t pid;

	SKIP_WITHOUT_UFFD();
	pid = vmm_start(&vmm, -1);
	ASSERT_LT(0, pid);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	close(vmm);
}

TEST_HARNESS_MAIN

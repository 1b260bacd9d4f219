// SPDX-License-Identifier: GPL-2.0
/*
 * What a map takes is charged to the memory cgroup of the process that asks for it, and a
 * process that runs into the limit of its cgroup harms nobody else: it is killed wherever it
 * is, nothing of it is left, and a map outside works as ever. That holds for what KVM takes
 * while a commit is undone, too, where nothing may be taken beyond the limit.
 *
 * In the machine that runs this the cgroup is one of version 2.
 */
#include "harness.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include "gpamap_util.h"
#include "guest.h"
#include "leaks.h"
#include "memcg.h"

#define PAGE TEST_PAGE
#define ROOT 1
#define MEM 2
#define FIRST 100
#define SPACE 1
#define BATCH 1024
#define A 0x100000ULL
#define MIB (1ULL << 20)
/* What the kernel counts late: pages that its CPUs hold in stock. */
#define BLUR (2 * MIB)
/* Milliseconds until what a process had is gone. */
#define SOON (20000 * env_number("PATIENCE", 1))

FIXTURE(memcg) {
	struct memcg cg;
	struct guest guest;		/* outside */
	int fd;
	char *mem;
	int socks[2];			/* to and of the process in the cgroup */
	pid_t pid;
	int refs, vms;
};

static void remove_later(struct __test_metadata *_metadata, const struct memcg *cg)
{
	u64 end = now_ms() + SOON;
	int rc;

	/* The kernel has processes in it until they are reaped, and a little longer. */
	while ((rc = memcg_destroy(cg)) == -EBUSY && now_ms() < end)
		usleep(10000);
	EXPECT_EQ(0, rc);
}

FIXTURE_SETUP(memcg)
{
	EXPECT_NOTHING_LEFT();
	self->pid = 0;
	self->socks[0] = -1;
	self->mem = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->mem);
	*(u64 *)self->mem = 0xa000;
	ASSERT_EQ(0, guest_create(&self->guest));
	self->fd = map_open();
	ASSERT_LE(0, self->fd);
	test_cmd_apply(self->fd, op_container(ROOT, U64_MAX), op_ram(MEM, PAGE - 1, self->mem),
		       op_add(MEM, ROOT, A, 0), op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	test_cmd_attach(self->fd, self->guest.vm, 0, 64);
	ASSERT_EQ(0, memcg_create(&self->cg, "memcg_test"));
	self->refs = module_refcnt("gpamap");
	self->vms = kvm_vms();
}

FIXTURE_TEARDOWN(memcg)
{
	u64 at = 2 * A;
	struct gpamap_op op = op_at(MEM, at);

	/* Only when a test has failed. */
	if (self->pid > 0) {
		kill(self->pid, SIGKILL);
		waitpid(self->pid, NULL, 0);
	}
	if (self->socks[0] >= 0)
		close(self->socks[0]);
	/* Who is outside was never touched. */
	EXPECT_GUEST_RAM(&self->guest, A, 0xa000);
	EXPECT_EQ(0, _test_cmd_apply(self->fd, &op, 1, NULL, NULL));
	EXPECT_GUEST_RAM(&self->guest, at, 0xa000);
	close(self->fd);
	guest_destroy(&self->guest);
	munmap(self->mem, PAGE);
	EXPECT_NOTHING_LEFT();
	remove_later(_metadata, &self->cg);
}

/* Forks @_child, which has the other end of the socket. */
#define START(_child)								\
	do {									\
		ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, self->socks));	\
		self->pid = fork();						\
		ASSERT_LE(0, self->pid);					\
		if (!self->pid) {						\
			close(self->socks[0]);					\
			_child;							\
		}								\
		close(self->socks[1]);						\
	} while (0)

/* Its status. */
static int reap(FIXTURE_DATA(memcg) *self)
{
	int status = -1;

	waitpid(self->pid, &status, 0);
	self->pid = 0;
	close(self->socks[0]);
	self->socks[0] = -1;
	return status;
}

/* -- charged --------------------------------------------------------------- */

/* In the child: does @step(fd), then waits to be told to close the map. */
static void in_cgroup(struct memcg *cg, int sock, int (*step)(int fd))
{
	char c = 0;
	int fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (memcg_enter(cg))
		_exit(40);
	fd = map_open();
	if (fd < 0)
		_exit(41);
	/* Begun; go on; done; go on. */
	if (write(sock, &c, 1) != 1 || read(sock, &c, 1) != 1)
		_exit(42);
	if (step(fd))
		_exit(43);
	if (write(sock, &c, 1) != 1 || read(sock, &c, 1) != 1)
		_exit(44);
	close(fd);
	if (write(sock, &c, 1) != 1 || read(sock, &c, 1) != 1)
		_exit(45);
	_exit(0);
}

static int make_regions(int fd)
{
	static struct gpamap_op ops[BATCH];
	u32 i, n;
	int rc = 0;

	for (n = 0; n < 16 && !rc; n++) {
		for (i = 0; i < BATCH; i++)
			ops[i] = op_io(FIRST + n * BATCH + i, 7);
		rc = _test_cmd_apply(fd, ops, BATCH, NULL, NULL);
	}
	return rc;
}

static int make_rings(int fd)
{
	struct gpamap_ring ring = {
		.size = sizeof(ring),
		.nr_entries = GPAMAP_MAX_RING_ENTRIES,
		.watermark = 1,
		.fd = eventfd(0, EFD_CLOEXEC),
	};
	int rc = ring.fd < 0 ? -errno : 0;

	for (ring.id = 1; ring.id <= 8 && !rc; ring.id++)
		rc = map_ioctl(fd, GPAMAP_RING, &ring);
	close(ring.fd);
	return rc;
}

/* @_least: bytes that @_step takes. */
#define EXPECT_CHARGED(_step, _least)						\
	do {									\
		int64_t __used[2];						\
		u64 __end;							\
		char __c;							\
		START(in_cgroup(&self->cg, self->socks[1], _step));		\
		ASSERT_EQ(1, read(self->socks[0], &__c, 1));			\
		__used[0] = memcg_used(&self->cg);				\
		ASSERT_EQ(1, write(self->socks[0], "", 1));			\
		ASSERT_EQ(1, read(self->socks[0], &__c, 1));			\
		__used[1] = memcg_used(&self->cg);				\
		TH_LOG("%lld bytes, then %lld", (long long)__used[0],		\
		       (long long)__used[1]);					\
		EXPECT_LE((int64_t)((_least) - BLUR), __used[1] - __used[0]);	\
		ASSERT_EQ(1, write(self->socks[0], "", 1));			\
		ASSERT_EQ(1, read(self->socks[0], &__c, 1));			\
		/* A part is freed when a grace period is over. */		\
		__end = now_ms() + SOON;					\
		while (memcg_used(&self->cg) > __used[0] + (int64_t)BLUR &&	\
		       now_ms() < __end)					\
			usleep(10000);						\
		EXPECT_GE(__used[0] + (int64_t)BLUR, memcg_used(&self->cg));	\
		ASSERT_EQ(1, write(self->socks[0], "", 1));			\
		EXPECT_EQ(0, reap(self));					\
	} while (0)

/* More than 250 bytes each. */
TEST_F_TIMEOUT(memcg, regions_are_charged, 120)
{
	EXPECT_CHARGED(make_regions, 16 * BATCH * 250);
}

TEST_F_TIMEOUT(memcg, rings_are_charged, 60)
{
	EXPECT_CHARGED(make_rings,
		       8 * GPAMAP_MAX_RING_ENTRIES * sizeof(struct gpamap_ring_entry));
}

/* -- killed ---------------------------------------------------------------- */

/*
 * Regions of all kinds, without end, in batches that are made and taken back in part, so that
 * it runs into the limit at one place or another.
 */
static void grow_forever(struct memcg *cg, char *mem, bool attach, int sock)
{
	static struct gpamap_op ops[BATCH];
	struct gpamap_op start[] = {
		op_container(ROOT, U64_MAX),
		op_ram(MEM, PAGE - 1, mem),
		op_add(MEM, ROOT, A, 0),
		op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT),
	};
	struct guest guest;
	u32 i, id;
	int fd, rc;
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (memcg_enter(cg))
		_exit(40);
	fd = map_open();
	if (fd < 0 || _test_cmd_apply(fd, start, ARRAY_SIZE(start), NULL, NULL))
		_exit(41);
	if (attach && (guest_create(&guest) || _test_cmd_attach(fd, guest.vm, 0, 64)))
		_exit(42);
	if (write(sock, "", 1) != 1 || read(sock, &c, 1) != 1)
		_exit(43);
	for (id = FIRST;; id += BATCH / 2) {
		for (i = 0; i < BATCH; i += 2) {
			ops[i] = op_io(id + i / 2, 7);
			ops[i + 1] = op_add(id + i / 2, ROOT, 2 * A + 16ULL * (id + i / 2), 0);
		}
		/* What is refused for want of memory is tried again. */
		do
			rc = _test_cmd_apply(fd, ops, BATCH, NULL, NULL);
		while (rc == -ENOMEM);
		if (rc)
			_exit(44);
	}
}

TEST_F_TIMEOUT(memcg, killed_at_the_limit, 240)
{
	u64 seed = test_seed(), rounds = env_number("ITER", 8), i, latest;
	int64_t kills = 0;
	struct rnd rnd;
	int status;
	char c;

	TH_LOG("SEED=%llu ITER=%llu", (unsigned long long)seed, (unsigned long long)rounds);
	rnd_seed(&rnd, seed);
	for (i = 0; i < rounds && _metadata->passed; i++) {
		START(grow_forever(&self->cg, self->mem, i & 1, self->socks[1]));
		ASSERT_EQ(1, read(self->socks[0], &c, 1));
		ASSERT_EQ(0, memcg_limit(&self->cg, memcg_used(&self->cg) + BLUR +
						    rnd_below(&rnd, 4 * MIB)));
		ASSERT_EQ(1, write(self->socks[0], "", 1));
		status = reap(self);
		EXPECT_TRUE(WIFSIGNALED(status))
			TH_LOG("the child ended with %d", WEXITSTATUS(status));
		EXPECT_EQ(SIGKILL, WTERMSIG(status));
		EXPECT_LT(kills, memcg_events(&self->cg, "oom_kill"));
		kills = memcg_events(&self->cg, "oom_kill");
		EXPECT_EQ(self->refs, module_refcnt("gpamap"));
		EXPECT_EQ(self->vms, kvm_vms());
		/* Nothing is charged any more but what the kernel keeps for the next. */
		latest = now_ms() + SOON;
		while (memcg_used(&self->cg) > (int64_t)BLUR && now_ms() < latest)
			usleep(10000);
		EXPECT_GE((int64_t)BLUR, memcg_used(&self->cg));
		EXPECT_EQ(0, memcg_limit(&self->cg, U64_MAX));
	}
}

/* -- undone while there is no memory ----------------------------------------- */

/*
 * Below the guest's own memory a slot whose reverse maps are megabytes, and behind it many
 * small ones. All go in one commit, the large one first; the last is refused. So what the
 * large one had is free until all others have been made again, and another process of the
 * cgroup takes it.
 */
#define SMALLS 64
#define LARGE_AT 0x100000000ULL
#define SMALLS_AT (GUEST_BASE - 64 * MIB)
#define LARGE_LEN (SMALLS_AT - LARGE_AT)
#define SMALL_AT(_i) (SMALLS_AT + 2 * PAGE * (_i))
/* Of a reverse map alone. */
#define LARGE_COST (LARGE_LEN / PAGE * 8)
#define IDS (2 * SMALLS)
#define FOREIGN 400			/* an id that is not the map's */
/* What may be used beyond the limit, and what the other process leaves free. */
#define SLACK (512 * 1024)
#define ROOM (256 * 1024)
#define CHUNK (128 * 1024UL)

enum { LARGE = MEM + 1, ALL, SMALL };

/* What the three processes share. */
struct scene {
	bool built;			/* the VMM has its map */
	bool waits;			/* the other process is in the cgroup */
	u64 limit;			/* 0: not yet begun */
	bool called;			/* the call has returned, */
	int rc;				/* with this */
	bool alone;			/* the other process is gone */
	char why[256];			/* what is wrong, if anything is */
};

#define SEEN(_member) __atomic_load_n(&(_member), __ATOMIC_ACQUIRE)
#define TELL(_member, _value) __atomic_store_n(&(_member), _value, __ATOMIC_RELEASE)

/* Before whom the process is killed. */
enum { NEVER = -1000, FIRST_OF_ALL = 1000 };

static int oom_score(int score)
{
	char text[16];
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	int n = snprintf(text, sizeof(text), "%d", score), rc;

	rc = fd < 0 || write(fd, text, n) != n;
	close(fd);
	return rc;
}

/* The other process: whatever becomes free in the cgroup it takes. */
static void take_memory(struct memcg *cg, struct scene *scene, int score)
{
	u64 most = 2 * LARGE_COST, taken = 0;
	char *mem;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	mem = mmap(NULL, most, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memcg_enter(cg) || oom_score(score) || mem == MAP_FAILED)
		_exit(40);
	TELL(scene->waits, true);
	while (!SEEN(scene->called)) {
		int64_t used = memcg_used(cg);

		if (taken + CHUNK <= most && used >= 0 &&
		    used + CHUNK + ROOM <= SEEN(scene->limit) &&
		    !madvise(mem + taken, CHUNK, MADV_POPULATE_WRITE))
			taken += CHUNK;
		else
			usleep(50);
	}
	_exit(0);
}

static int build(struct guest *guest, char *mem, char *large)
{
	struct gpamap_op ops[6 + 2 * SMALLS] = {
		op_container(ROOT, U64_MAX),
		op_container(ALL, U64_MAX),
		op_ram(MEM, PAGE - 1, mem),
		op_ram(LARGE, LARGE_LEN - 1, large),
		op_add(LARGE, ALL, LARGE_AT, 0),
		op_add(ALL, ROOT, 0, 0),
	};
	struct gpamap_op space = op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT);
	u32 i, n = 6;
	int fd, rc;

	for (i = 0; i < SMALLS; i++) {
		ops[n++] = op_alias(SMALL + i, MEM, 0, PAGE - 1);
		ops[n++] = op_add(SMALL + i, ALL, SMALL_AT(i), 0);
	}
	rc = guest_create(guest);
	if (rc)
		return rc;
	fd = map_open();
	if (fd < 0)
		return fd;
	rc = _test_cmd_apply(fd, ops, n, NULL, NULL) ?:
	     _test_cmd_apply(fd, &space, 1, NULL, NULL) ?:
	     _test_cmd_attach(fd, guest->vm, 0, IDS);
	return rc ?: fd;
}

/* KVM has the slots that the map tells of, and no others. */
static const char *slots_wrong(struct guest *guest, int fd)
{
	u64 probes[3 + 2 * SMALLS] = { LARGE_AT, LARGE_AT + LARGE_LEN / 2,
				       LARGE_AT + LARGE_LEN - PAGE };
	u32 i, n = 3;

	for (i = 0; i < SMALLS; i++) {
		probes[n++] = SMALL_AT(i);
		probes[n++] = SMALL_AT(i) + PAGE;
	}
	return guest_slots_diff(guest, fd, probes, n) ?:
	       guest_places_diff(guest, fd, 0, FOREIGN, probes, n);
}

/* A call that failed with @rc is undone, or the map told as broken. NULL if so. */
static const char *end_wrong(struct guest *guest, int fd, int rc,
			     const struct snapshot *before, const struct gpamap_op *op)
{
	struct snapshot *after = snapshot_take(fd);
	u32 state = query_info(fd).state;
	const char *why;

	if (!after)
		return "QUERY failed";
	if (rc == -EIO)
		why = snapshot_diff_views(before, after);
	else if (rc == -EINVAL || rc == -ENOMEM)
		why = snapshot_diff(before, after);
	else
		why = "neither undone nor broken";
	snapshot_free(after);
	if (!why && state != (rc == -EIO ? GPAMAP_STATE_BROKEN | GPAMAP_STATE_ATTACHED :
					   GPAMAP_STATE_ATTACHED))
		why = "the state is not that of the error";
	if (!why)
		why = slots_wrong(guest, fd);
	if (why)
		return why;
	/* With memory again: what is broken stays so, and what is not works. */
	if (_test_cmd_apply(fd, op, 1, NULL, NULL) != (rc == -EIO ? -EIO : 0))
		return "the same again, with memory, ends otherwise";
	return slots_wrong(guest, fd);
}

static void undo_in_cgroup(struct memcg *cg, struct scene *scene, char *mem, int score)
{
	const struct gpamap_op op = op_enable(ALL, false);
	struct snapshot *before;
	struct guest guest;
	const char *why;
	char *large;
	int fd, rc;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	large = mmap(NULL, LARGE_LEN, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memcg_enter(cg) || oom_score(score) || large == MAP_FAILED)
		_exit(40);
	fd = build(&guest, mem, large);
	if (fd < 0)
		_exit(41);
	before = snapshot_take(fd);
	if (!before)
		_exit(42);
	TELL(scene->built, true);
	wait_until(SEEN(scene->limit));
	rc = _test_cmd_apply(fd, &op, 1, NULL, NULL);
	scene->rc = rc;
	TELL(scene->called, true);
	wait_until(SEEN(scene->alone));
	why = end_wrong(&guest, fd, rc, before, &op);
	if (why)
		snprintf(scene->why, sizeof(scene->why), "%s", why);
	close(fd);
	guest_destroy(&guest);
	_exit(0);
}

/* Whether it has ended; then its status. */
static bool ended(pid_t *pid, int *status)
{
	if (*pid > 0 && waitpid(*pid, status, WNOHANG) == *pid)
		*pid = 0;
	return !*pid;
}

static u64 largest(u64 a, int64_t b)
{
	return b > 0 && (u64)b > a ? (u64)b : a;
}

/*
 * Once, with the scores of the VMM and the other process; @_short is set if there was no
 * memory when there had to be.
 */
#define UNDO_WITHOUT_MEMORY(_vmm, _other, _short)				\
	do {									\
		struct scene *__s = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,	\
					 MAP_SHARED | MAP_ANONYMOUS, -1, 0);	\
		int64_t __events[2], __kills[2];				\
		int __status = -1, __other_status = -1;				\
		pid_t __other;							\
		u64 __peak, __limit, __most = 0, __end;				\
		ASSERT_NE(MAP_FAILED, __s);					\
		START(undo_in_cgroup(&self->cg, __s, self->mem, _vmm));		\
		while (!SEEN(__s->built) && !ended(&self->pid, &__status))	\
			usleep(200);						\
		ASSERT_NE(0, self->pid)						\
			TH_LOG("the VMM ended with %x", __status);		\
		__other = fork();						\
		ASSERT_LE(0, __other);						\
		if (!__other)							\
			take_memory(&self->cg, __s, _other);			\
		while (!SEEN(__s->waits) && !ended(&__other, &__other_status))	\
			usleep(200);						\
		ASSERT_NE(0, __other)						\
			TH_LOG("the other ended with %x", __other_status);	\
		ASSERT_EQ(0, module_param_set("fail_errno", EINVAL));		\
		ASSERT_EQ(0, module_param_set("fail_nth", SMALLS + 1));		\
		__events[0] = memcg_events(&self->cg, "max");			\
		__kills[0] = memcg_events(&self->cg, "oom_kill");		\
		__peak = largest(0, memcg_peak(&self->cg));			\
		__limit = memcg_used(&self->cg) + MIB;				\
		ASSERT_EQ(0, memcg_limit(&self->cg, __limit));			\
		TELL(__s->limit, __limit);					\
		__end = now_ms() + SOON;					\
		while (!SEEN(__s->called) && !ended(&self->pid, &__status) &&	\
		       now_ms() < __end) {					\
			__most = largest(__most, memcg_used(&self->cg));	\
			usleep(500);						\
		}								\
		__most = largest(__most, memcg_used(&self->cg));		\
		/* Not what had been used before there was a limit. */		\
		if (memcg_peak(&self->cg) > (int64_t)__peak)			\
			__most = largest(__most, memcg_peak(&self->cg));	\
		ASSERT_EQ(0, module_param_set("fail_nth", 0));			\
		ASSERT_EQ(0, module_param_set("fail_errno", ENOMEM));		\
		EXPECT_TRUE(SEEN(__s->called) || !self->pid)			\
			TH_LOG("the call does not end");			\
		EXPECT_GE(__limit + SLACK, __most)				\
			TH_LOG("%lld KiB beyond the limit",			\
			       (long long)(__most - __limit) / 1024);		\
		__events[1] = memcg_events(&self->cg, "max");			\
		__kills[1] = memcg_events(&self->cg, "oom_kill");		\
		/* It may not have seen the end: the VMM is killed. */		\
		TELL(__s->called, true);					\
		if (__other > 0)						\
			ASSERT_EQ(__other, waitpid(__other, &__other_status, 0)); \
		ASSERT_EQ(0, memcg_limit(&self->cg, U64_MAX));			\
		TELL(__s->alone, true);						\
		if (self->pid > 0)						\
			__status = reap(self);					\
		else								\
			close(self->socks[0]);					\
		self->socks[0] = -1;						\
		if (WIFSIGNALED(__status)) {					\
			EXPECT_EQ(SIGKILL, WTERMSIG(__status));			\
			EXPECT_LT(__kills[0], __kills[1]);			\
			EXPECT_EQ((int)FIRST_OF_ALL, (int)(_vmm));		\
		} else {							\
			EXPECT_EQ(0, __status);					\
			EXPECT_STREQ("", __s->why);				\
		}								\
		(_short) = __events[0] < __events[1];				\
		TH_LOG("%s, %lld times at the limit, at the most %lld KiB of %llu", \
		       WIFSIGNALED(__status) ? "killed" : strerror(-__s->rc),	\
		       (long long)(__events[1] - __events[0]),			\
		       (long long)__most / 1024,				\
		       (unsigned long long)__limit / 1024);			\
		munmap(__s, PAGE);						\
		EXPECT_EQ(self->refs, settled(gpamap_refcnt, self->refs));	\
		EXPECT_EQ(self->vms, settled(kvm_vms, self->vms));		\
	} while (0)

/* The other process may come too late. */
#define EXPECT_UNDONE_WITHOUT_MEMORY(_vmm, _other)				\
	do {									\
		bool __short = false;						\
		int __round;							\
		if (kvm_nested_paging())					\
			SKIP(return, "a slot costs memory under shadow paging only"); \
		for (__round = 0; __round < 10 && !__short && _metadata->passed;	\
		     __round++)							\
			UNDO_WITHOUT_MEMORY(_vmm, _other, __short);		\
		EXPECT_TRUE(__short || !_metadata->passed)			\
			TH_LOG("there always was memory");			\
	} while (0)

/* Nobody can be killed: there is no memory, and nothing that the kernel can do about it. */
TEST_F_TIMEOUT(memcg, undone_without_memory, 240)
{
	EXPECT_UNDONE_WITHOUT_MEMORY(NEVER, NEVER);
}

TEST_F_TIMEOUT(memcg, killed_while_undone, 240)
{
	EXPECT_UNDONE_WITHOUT_MEMORY(FIRST_OF_ALL, NEVER);
}

/* It gets memory when the other is killed. */
TEST_F_TIMEOUT(memcg, undone_when_another_is_killed, 240)
{
	EXPECT_UNDONE_WITHOUT_MEMORY(NEVER, FIRST_OF_ALL);
}

TEST_HARNESS_MAIN

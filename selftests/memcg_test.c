// SPDX-License-Identifier: GPL-2.0
/*
 * What a map takes is charged to the memory cgroup of the process that asks for it, and a
 * process that runs into the limit of its cgroup harms nobody else: it is killed wherever it
 * is, nothing of it is left, and a map outside works as ever.
 *
 * In the machine that runs this the cgroup is one of version 2.
 */
#include "harness.h"
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
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
	self->refs = module_refcnt();
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
		EXPECT_EQ(self->refs, module_refcnt());
		EXPECT_EQ(self->vms, kvm_vms());
		/* Nothing is charged any more but what the kernel keeps for the next. */
		latest = now_ms() + SOON;
		while (memcg_used(&self->cg) > (int64_t)BLUR && now_ms() < latest)
			usleep(10000);
		EXPECT_GE((int64_t)BLUR, memcg_used(&self->cg));
		EXPECT_EQ(0, memcg_limit(&self->cg, U64_MAX));
	}
}

TEST_HARNESS_MAIN

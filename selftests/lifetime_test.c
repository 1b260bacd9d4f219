// SPDX-License-Identifier: GPL-2.0
/*
 * The life of a map among files, processes and threads: whatever is closed,
 * inherited, passed on or killed in whatever order, nothing is left behind, and
 * nothing happens to those who have not been part of it.
 *
 * What could be left behind holds a reference on the module, or is a VM that lives
 * on: every test ends by looking whether there are as many of them as when the
 * program began. What goes wrong inside the kernel is found in its log, which
 * whoever runs this reads.
 */
#include "harness.h"
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include "debugfs.h"
#include "gpamap_util.h"
#include "guest.h"
#include "leaks.h"

#define PAGE TEST_PAGE
#define ROOT 1
#define MEM 2
#define IO 3
#define SPACE 1
#define MEM_PAGES 16
#define A 0x100000ULL
#define B 0x40000000ULL

/* An attached map with memory at A. */
struct setup {
	int fd;
	struct guest guest;
	char *mem;
};

static int setup_map(struct setup *setup)
{
	struct gpamap_op ops[] = {
		op_container(ROOT, U64_MAX),
		op_ram(MEM, MEM_PAGES * PAGE - 1, setup->mem),
		op_io(IO, PAGE - 1),
		op_add(MEM, ROOT, A, 0),
		op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT),
	};
	int rc;

	setup->fd = map_open();
	if (setup->fd < 0)
		return setup->fd;
	rc = _test_cmd_apply(setup->fd, ops, ARRAY_SIZE(ops), NULL, NULL);
	return rc ?: _test_cmd_attach(setup->fd, setup->guest.vm, 0, 64);
}

static int setup_all(struct setup *setup)
{
	u32 i;
	int rc;

	rc = guest_create(&setup->guest);
	if (rc)
		return rc;
	/* Shared, so that a parent sees what the guest of its child does. */
	setup->mem = mmap(NULL, MEM_PAGES * PAGE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (setup->mem == MAP_FAILED)
		return -errno;
	for (i = 0; i < MEM_PAGES; i++)
		*(u64 *)(setup->mem + i * PAGE) = 0xa000 + i;
	return setup_map(setup);
}

static void setup_close(struct setup *setup)
{
	if (setup->fd >= 0)
		close(setup->fd);
	guest_destroy(&setup->guest);
	munmap(setup->mem, MEM_PAGES * PAGE);
}

FIXTURE(life) {
	struct setup s;
};

FIXTURE_SETUP(life)
{
	EXPECT_NOTHING_LEFT();
	ASSERT_EQ(0, setup_all(&self->s));
	EXPECT_GUEST_RAM(&self->s.guest, A, 0xa000);
}

FIXTURE_TEARDOWN(life)
{
	setup_close(&self->s);
	EXPECT_NOTHING_LEFT();
}

/* A commit that changes the slots. */
static int commit(int fd, u64 at)
{
	struct gpamap_op op = op_at(MEM, at);

	return _test_cmd_apply(fd, &op, 1, NULL, NULL);
}

#define EXPECT_COMMITS(_s)							\
	do {									\
		EXPECT_EQ(0, commit((_s)->fd, B));				\
		EXPECT_SLOTS((_s)->fd, { B, MEM_PAGES, (_s)->mem, 0, 0 });	\
		EXPECT_EQ(0, commit((_s)->fd, A));				\
		EXPECT_SLOTS((_s)->fd, { A, MEM_PAGES, (_s)->mem, 0, 0 });	\
	} while (0)

/* -- close ----------------------------------------------------------------- */

enum { CLOSE_MAP, CLOSE_VM, CLOSE_VCPU, CLOSE_KVM, NR_CLOSE };

static void close_one(struct setup *s, int which)
{
	int *fd = which == CLOSE_MAP ? &s->fd : which == CLOSE_VM ? &s->guest.vm :
		  which == CLOSE_VCPU ? &s->guest.vcpu : &s->guest.kvm;

	if (which == CLOSE_VCPU) {
		munmap(s->guest.run, s->guest.run_len);
		s->guest.run = NULL;
	}
	close(*fd);
	*fd = -1;
}

/* All orders of the four files; what is left works after each. */
TEST_F_TIMEOUT(life, close_orders, 60)
{
	int order[NR_CLOSE], i, j, n, k;
	bool open[NR_CLOSE];

	for (n = 0; n < 24 && _metadata->passed; n++) {
		/* The n-th permutation. */
		int left[NR_CLOSE] = { 0, 1, 2, 3 };

		for (i = 0, k = n; i < NR_CLOSE; i++) {
			j = k % (NR_CLOSE - i);
			k /= NR_CLOSE - i;
			order[i] = left[j];
			left[j] = left[NR_CLOSE - 1 - i];
			open[i] = true;
		}
		for (i = 0; i < NR_CLOSE; i++) {
			close_one(&self->s, order[i]);
			open[order[i]] = false;
			if (open[CLOSE_MAP])
				EXPECT_COMMITS(&self->s);
			if (open[CLOSE_VCPU])
				EXPECT_GUEST_RAM(&self->s.guest, A, 0xa000);
		}
		EXPECT_NOTHING_LEFT();
		setup_close(&self->s);
		ASSERT_EQ(0, setup_all(&self->s));
		if (!_metadata->passed)
			TH_LOG("order %d %d %d %d", order[0], order[1], order[2], order[3]);
	}
}

TEST_F(life, vm_fd_closed_first)
{
	close_one(&self->s, CLOSE_VM);
	close_one(&self->s, CLOSE_KVM);
	EXPECT_COMMITS(&self->s);
	EXPECT_GUEST_RAM(&self->s.guest, A, 0xa000);
	EXPECT_EQ(0, commit(self->s.fd, B));
	EXPECT_GUEST_MMIO(&self->s.guest, A);
	EXPECT_GUEST_RAM(&self->s.guest, B, 0xa000);
	close_one(&self->s, CLOSE_VCPU);
	EXPECT_COMMITS(&self->s);
	/* The map has the last reference on the VM. */
	EXPECT_EQ(vms_before + 1, kvm_vms());
	test_cmd_detach(self->s.fd);
	EXPECT_EQ(vms_before, kvm_vms());
	EXPECT_EQ(0u, query_info(self->s.fd).state);
}

TEST_F(life, dup)
{
	int fd = dup(self->s.fd);

	ASSERT_LE(0, fd);
	close(self->s.fd);
	self->s.fd = fd;
	EXPECT_COMMITS(&self->s);
	EXPECT_GUEST_RAM(&self->s.guest, A, 0xa000);
}

/* -- other processes ------------------------------------------------------- */

/* What a process that does not own the VM can do with an attached map. */
static int try_as_stranger(struct setup *s)
{
	struct gpamap_op op = op_at(MEM, B), harmless = op_container(99, 1);
	struct snapshot *before = snapshot_take(s->fd), *after;

	if (!before || query_info(s->fd).state != GPAMAP_STATE_ATTACHED)
		return 1;
	if (_test_cmd_apply(s->fd, &op, 1, NULL, NULL) != -EIO)
		return 2;
	if (_test_cmd_apply(s->fd, &harmless, 1, NULL, NULL) != -EIO)
		return 3;
	if (_test_cmd_detach(s->fd) != -EIO)
		return 4;
	if (_test_cmd_attach(s->fd, s->guest.vm, 0, 0) != -EIO)
		return 5;
	after = snapshot_take(s->fd);
	if (!after || snapshot_diff(before, after))
		return 6;
	snapshot_free(before);
	snapshot_free(after);
	return 0;
}

TEST_F(life, fork_child_is_a_stranger)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(try_as_stranger(&self->s));
	ASSERT_CHILD_OK(pid);
	EXPECT_GUEST_RAM(&self->s.guest, A, 0xa000);
	EXPECT_COMMITS(&self->s);
}

/* Without a VM a map belongs to whoever has the file. */
TEST_F(life, fork_child_with_detached_map)
{
	pid_t pid;

	test_cmd_detach(self->s.fd);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct guest guest;

		if (commit(self->s.fd, B))
			_exit(1);
		/* The child's own VM: the parent is the stranger then. */
		if (guest_create_vm(&guest) || _test_cmd_attach(self->s.fd, guest.vm, 0, 64))
			_exit(2);
		_exit(commit(self->s.fd, A) ? 3 : 0);
	}
	ASSERT_CHILD_OK(pid);
	EXPECT_EQ((u32)GPAMAP_STATE_ATTACHED, query_info(self->s.fd).state);
	EXPECT_EQ(0, try_as_stranger(&self->s));
}

/* The child closes last, while the parent and its VM live on. */
TEST_F(life, fork_last_close_in_child)
{
	int socks[2];
	pid_t pid;
	char c;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, socks));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(read(socks[1], &c, 1) == 1 ? close(self->s.fd) : 1);
	close_one(&self->s, CLOSE_MAP);
	/* It is open in the child: the VM still has its map. */
	ASSERT_EQ(-EBUSY, setup_map(&self->s));
	ASSERT_EQ(1, write(socks[0], "x", 1));
	ASSERT_CHILD_OK(pid);
	close(socks[0]);
	close(socks[1]);
	/* Close left the slot; with it gone, another map can have the VM. */
	EXPECT_GUEST_RAM(&self->s.guest, A, 0xa000);
	EXPECT_EQ(0, guest_set_slot(&self->s.guest, 0, 0, A, 0, self->s.mem));
	test_cmd_attach(self->s.fd, self->s.guest.vm, 0, 64);
	EXPECT_COMMITS(&self->s);
	/* A child cannot unmap the argument page here, so that is still mapped. */
	test_cmd_detach(self->s.fd);
	EXPECT_GE(1, scratch_unmap());
}

TEST_F(life, passed_by_scm_rights)
{
	int socks[2];
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, socks));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		close(self->s.fd);
		self->s.fd = fd_receive(socks[1]);
		if (self->s.fd < 0)
			_exit(20);
		_exit(try_as_stranger(&self->s));
	}
	ASSERT_EQ(0, fd_send(socks[0], self->s.fd));
	ASSERT_CHILD_OK(pid);
	EXPECT_COMMITS(&self->s);
	/* The last reference is in a socket that nobody reads. */
	ASSERT_EQ(0, fd_send(socks[0], self->s.fd));
	close_one(&self->s, CLOSE_MAP);
	EXPECT_LT(refcnt_before, module_refcnt("gpamap"));
	close(socks[0]);
	close(socks[1]);
	EXPECT_GUEST_RAM(&self->s.guest, A, 0xa000);
	EXPECT_NO_MAP_LEFT();
	EXPECT_EQ(0, scratch_find(NULL, NULL));
}

/*
 * What this program does when it is executed again, with the number of a map's
 * file in the environment: it must be gone (-1), or be there and not its own.
 */
static void __attribute__((constructor)) executed_again(void)
{
	const char *value = getenv("LIFETIME_TEST_FD");
	struct gpamap_op op = op_container(99, 1);
	int fd;

	if (!value)
		return;
	fd = atoi(value);
	if (fd < 0) {
		/* All was closed by exec. */
		_exit(module_refcnt("gpamap") == atoi(getenv("LIFETIME_TEST_REFS")) ? 0 : 1);
	}
	if (query_info(fd).state != GPAMAP_STATE_ATTACHED)
		_exit(2);
	if (_test_cmd_apply(fd, &op, 1, NULL, NULL) != -EIO)
		_exit(3);
	_exit(_test_cmd_detach(fd) == -EIO ? 0 : 4);
}

static void exec_again(int fd)
{
	char refs[32], number[32];
	char *argv[] = { "lifetime_test", NULL }, *envp[] = { refs, number, NULL };

	snprintf(refs, sizeof(refs), "LIFETIME_TEST_REFS=%d", refcnt_before);
	snprintf(number, sizeof(number), "LIFETIME_TEST_FD=%d", fd);
	execve("/proc/self/exe", argv, envp);
	_exit(30);
}

TEST_F(life, exec_closes)
{
	pid_t pid;

	close_one(&self->s, CLOSE_MAP);
	EXPECT_NO_MAP_LEFT();
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (guest_create(&self->s.guest) || setup_map(&self->s) ||
		    module_refcnt("gpamap") == refcnt_before)
			_exit(31);
		exec_again(-1);
	}
	ASSERT_CHILD_OK(pid);
}

TEST_F(life, exec_keeps_without_cloexec)
{
	pid_t pid;

	close_one(&self->s, CLOSE_MAP);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (guest_create(&self->s.guest) || setup_map(&self->s) ||
		    fcntl(self->s.fd, F_SETFD, 0))
			_exit(31);
		exec_again(self->s.fd);
	}
	ASSERT_CHILD_OK(pid);
}

/* -- killed ---------------------------------------------------------------- */

/* Shared with children: how many commits they have done. */
static volatile u32 *shared_counter(void)
{
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			  -1, 0);

	return page == MAP_FAILED ? NULL : page;
}

/* Commits without end: of one slot, of many, and some that fail. */
static void commit_forever(struct setup *s, volatile u32 *done)
{
	/* Memory that the host does not have. */
	const struct gpamap_op bad[] = { op_ram(200, PAGE - 1, NULL), op_add(200, ROOT, 2 * B, 0) };
	struct gpamap_op ops[64];
	u32 i, n;

	for (i = 0; i < 16; i++) {
		ops[4 * i] = op_alias(100 + i, MEM, i * PAGE, PAGE - 1);
		ops[4 * i + 1] = op_add(100 + i, ROOT, B + 2 * i * PAGE, 0);
		ops[4 * i + 2] = op_del(100 + i);
		ops[4 * i + 3] = op_destroy(100 + i);
	}
	for (n = 0;; n++) {
		if (commit(s->fd, n & 1 ? A : B + 0x100000))
			_exit(40);
		for (i = 0; i < 16; i++, (*done)++)
			if (_test_cmd_apply(s->fd, ops + 4 * i, 2, NULL, NULL))
				_exit(41);
		if (_test_cmd_apply(s->fd, bad, 2, NULL, NULL) != -EINVAL)
			_exit(42);
		for (i = 0; i < 16; i++, (*done)++)
			if (_test_cmd_apply(s->fd, ops + 4 * i + 2, 2, NULL, NULL))
				_exit(43);
	}
}

/* Waits for another value than @old, or for 5 seconds. */
#define wait_for_change(_ptr, _old)						\
	do {									\
		u64 __end = now_ms() + 5000;					\
		while (*(_ptr) == (_old) && now_ms() < __end)			\
			usleep(100);						\
	} while (0)

#define ASSERT_KILLED(_pid)							\
	do {									\
		int __status;							\
		ASSERT_EQ(_pid, waitpid(_pid, &__status, 0));			\
		EXPECT_TRUE(WIFSIGNALED(__status))				\
			TH_LOG("the child ended with %d", WEXITSTATUS(__status)); \
		EXPECT_EQ(SIGKILL, WTERMSIG(__status));				\
	} while (0)

TEST_F_TIMEOUT(life, killed_in_commits, 90)
{
	u64 seed = test_seed(), iter = env_number("ITER", 24), i;
	volatile u32 *done = shared_counter();
	u32 reached = 0, old;
	struct rnd rnd;
	pid_t pid;

	ASSERT_NE(NULL, done);

	TH_LOG("SEED=%llu ITER=%llu", (unsigned long long)seed, (unsigned long long)iter);
	rnd_seed(&rnd, seed);
	close_one(&self->s, CLOSE_MAP);
	guest_destroy(&self->s.guest);
	for (i = 0; i < iter && _metadata->passed; i++) {
		old = *done;
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (guest_create(&self->s.guest) || setup_map(&self->s))
				_exit(44);
			commit_forever(&self->s, done);
		}
		/* Now and then before all is set up. */
		if (i % 8)
			wait_for_change(done, old);
		usleep(rnd_below(&rnd, 30000));
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_KILLED(pid);
		EXPECT_NOTHING_LEFT();
		reached += *done != old;
	}
	TH_LOG("%u commits of %u children", *done, reached);
	if (_metadata->passed)
		EXPECT_LE(iter - (iter + 7) / 8, reached);
}

static void *spin(void *guest)
{
	/* The exits are those of commits that take the memory away for a while. */
	for (;;)
		guest_spin(guest, A);
	return NULL;
}

/* A process with a running vCPU, as it commits. */
TEST_F_TIMEOUT(life, killed_with_running_vcpu, 90)
{
	volatile u32 *done = shared_counter();
	volatile u64 *count;
	u64 seed = test_seed(), i;
	struct rnd rnd;
	pid_t pid;

	ASSERT_NE(NULL, done);

	TH_LOG("SEED=%llu", (unsigned long long)seed);
	rnd_seed(&rnd, seed);
	close_one(&self->s, CLOSE_MAP);
	guest_destroy(&self->s.guest);
	count = (volatile u64 *)self->s.mem;
	for (i = 0; i < 8 && _metadata->passed; i++) {
		u64 old = *count;

		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			pthread_t thread;

			prctl(PR_SET_PDEATHSIG, SIGKILL);
			if (guest_create(&self->s.guest) || setup_map(&self->s) ||
			    pthread_create(&thread, NULL, spin, &self->s.guest))
				_exit(45);
			/* Commits without a pause leave a vCPU little time to begin. */
			wait_for_change(count, old);
			if (i & 1)
				commit_forever(&self->s, done);
			for (;;)
				pause();
		}
		wait_for_change(count, old);
		usleep(rnd_below(&rnd, 50000));
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_KILLED(pid);
		EXPECT_NOTHING_LEFT();
		EXPECT_NE(old, *count)
			TH_LOG("the guest of child %u did not run", (u32)i);
	}
}

/* The other owner of a map is killed: what is left in the parent works. */
TEST_F(life, killed_owner_of_vm)
{
	int socks[2];
	pid_t pid;
	char c;

	test_cmd_detach(self->s.fd);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, socks));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		struct guest guest;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (guest_create_vm(&guest) || _test_cmd_attach(self->s.fd, guest.vm, 0, 64) ||
		    write(socks[1], "x", 1) != 1)
			_exit(46);
		for (;;)
			pause();
	}
	close(socks[1]);
	ASSERT_EQ(1, read(socks[0], &c, 1));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	ASSERT_KILLED(pid);
	/* Its VM stays attached, to nobody's use. */
	EXPECT_EQ((u32)GPAMAP_STATE_ATTACHED, query_info(self->s.fd).state);
	EXPECT_EQ(0, try_as_stranger(&self->s));
	close(socks[0]);
}

/* -- threads --------------------------------------------------------------- */

#define NR_THREADS 4
#define NR_COMMITS 60

struct worker {
	pthread_t thread;
	struct setup *s;
	u32 nr;
	int stop;
	u32 rounds;
	const char *error;
	int rc;
};

/* The regions of a worker, which always come and go, and move, together. */
static u32 worker_region(u32 nr, u32 i)
{
	return 1000 + 10 * nr + i;
}

static u64 worker_gpa(u32 nr, u32 i)
{
	return B + nr * 0x100000ULL + i * 0x10000;
}

static void *worker_commits(void *arg)
{
	struct worker *w = arg;
	struct gpamap_op ops[4];
	u32 i, shift;

	for (w->rounds = 0; w->rounds < NR_COMMITS; w->rounds++) {
		shift = (w->rounds & 3) * PAGE;
		for (i = 0; i < 2; i++) {
			ops[2 * i] = op_at(worker_region(w->nr, i), worker_gpa(w->nr, i) + shift);
			ops[2 * i + 1] = op_readonly(worker_region(w->nr, i), w->rounds & 1);
		}
		w->rc = _test_cmd_apply(w->s->fd, ops, 4, NULL, NULL);
		if (w->rc) {
			w->error = "commit";
			return NULL;
		}
	}
	return NULL;
}

/* What QUERY tells of one moment: both regions of a worker are alike. */
static void *worker_queries(void *arg)
{
	struct worker *w = arg;
	struct gpamap_slot_info *slots;
	struct gpamap_range_info *ranges;
	u64 shift[NR_THREADS];
	u32 i, nr, count, flags[NR_THREADS];

	for (w->rounds = 0; !__atomic_load_n(&w->stop, __ATOMIC_RELAXED); w->rounds++) {
		ranges = query_all(w->s->fd, GPAMAP_QUERY_RANGES, SPACE, &count);
		slots = query_all(w->s->fd, GPAMAP_QUERY_SLOTS, 0, &i);
		if (!ranges || !slots || count != 2 * NR_THREADS + 1 || i != count) {
			w->error = "number of ranges or slots";
			return NULL;
		}
		for (i = 1; i < count; i++) {
			nr = (i - 1) / 2;
			if (ranges[i].region != worker_region(nr, (i - 1) % 2)) {
				w->error = "region";
				return NULL;
			}
			if (i % 2) {
				shift[nr] = ranges[i].start - worker_gpa(nr, 0);
				flags[nr] = ranges[i].flags;
			} else if (ranges[i].start - worker_gpa(nr, 1) != shift[nr] ||
				   ranges[i].flags != flags[nr]) {
				w->error = "half a commit";
				return NULL;
			}
		}
		free(ranges);
		free(slots);
	}
	return NULL;
}

static const char * const debugfs_names[] = { "tree", "flat", "slots" };

static void *worker_debugfs(void *arg)
{
	/* The space and all regions; the space and all ranges; all slots. */
	static const u32 want[] = {
		1 + 3 + 2 * NR_THREADS, 1 + 1 + 2 * NR_THREADS, 1 + 2 * NR_THREADS,
	};
	struct worker *w = arg;
	char dir[300], *text, *p;
	u32 lines;

	if (debugfs_find(0, dir, sizeof(dir)) != 1) {
		w->error = "no directory";
		return NULL;
	}
	while (w->rounds < 3 || !__atomic_load_n(&w->stop, __ATOMIC_RELAXED)) {
		text = debugfs_read(dir, debugfs_names[w->rounds % 3]);
		/* It waits for a second at most for a map that others keep locked. */
		if (!text && errno == EBUSY)
			continue;
		if (!text) {
			w->error = "file";
			return NULL;
		}
		for (lines = 0, p = text; (p = strchr(p, '\n')); p++)
			lines++;
		if (lines != want[w->rounds % 3]) {
			w->error = "lines";
			w->rc = lines;
			return NULL;
		}
		free(text);
		w->rounds++;
	}
	return NULL;
}

TEST_F_TIMEOUT(life, threads, 90)
{
	struct worker workers[NR_THREADS + 2] = { 0 };
	struct gpamap_op ops[4 * NR_THREADS];
	u32 nr, i, n = 0;
	u64 generation;

	for (nr = 0; nr < NR_THREADS; nr++) {
		for (i = 0; i < 2; i++) {
			ops[n++] = op_ram(worker_region(nr, i), PAGE - 1, self->s.mem + nr * PAGE);
			ops[n++] = op_add(worker_region(nr, i), ROOT, worker_gpa(nr, i), 0);
		}
	}
	test_cmd_apply_ops(self->s.fd, ops, n);
	test_cmd_apply(self->s.fd, op_destroy(IO), op_container(IO, 1));
	generation = query_info(self->s.fd).generation;
	for (nr = 0; nr < NR_THREADS + 2; nr++) {
		workers[nr].s = &self->s;
		workers[nr].nr = nr;
		ASSERT_EQ(0, pthread_create(&workers[nr].thread, NULL,
					    nr < NR_THREADS ? worker_commits :
					    nr == NR_THREADS ? worker_queries :
					    worker_debugfs, &workers[nr]));
	}
	for (nr = 0; nr < NR_THREADS + 2; nr++) {
		if (nr == NR_THREADS)
			for (i = nr; i < NR_THREADS + 2; i++)
				__atomic_store_n(&workers[i].stop, 1, __ATOMIC_RELAXED);
		pthread_join(workers[nr].thread, NULL);
	}
	for (nr = 0; nr < NR_THREADS + 2; nr++) {
		EXPECT_EQ(NULL, workers[nr].error)
			TH_LOG("thread %u, round %u: %s, %d", nr, workers[nr].rounds,
			       workers[nr].error, workers[nr].rc);
		EXPECT_LT(0u, workers[nr].rounds);
	}
	/* Every commit but the first of each has changed the view. */
	EXPECT_EQ(generation + NR_THREADS * NR_COMMITS - NR_THREADS,
		  query_info(self->s.fd).generation);
	for (nr = 0; nr < NR_THREADS; nr++)
		for (i = 0; i < 2; i++)
			EXPECT_GUEST_RAM(&self->s.guest, worker_gpa(nr, i) +
					 ((NR_COMMITS - 1) & 3) * PAGE, 0xa000 + nr);
}

struct closer {
	pthread_t thread;
	int fd;
};

static void *close_it(void *arg)
{
	struct closer *closer = arg;

	close(closer->fd);
	return NULL;
}

/* The file is closed under a commit: that one still ends well. */
TEST_F(life, closed_under_commit)
{
	struct closer closer;
	u32 i, n;
	int rc;

	for (i = 0; i < 30; i++) {
		closer.fd = self->s.fd;
		ASSERT_EQ(0, pthread_create(&closer.thread, NULL, close_it, &closer));
		for (n = 0; !(rc = commit(self->s.fd, n & 1 ? A : B)); n++)
			;
		EXPECT_EQ(-EBADF, rc);
		pthread_join(closer.thread, NULL);
		EXPECT_NO_MAP_LEFT();
		self->s.fd = -1;
		EXPECT_EQ(0, guest_set_slot(&self->s.guest, 0, 0, A, 0, self->s.mem));
		ASSERT_EQ(0, setup_map(&self->s));
	}
}

/* -- many, and debugfs ----------------------------------------------------- */

#define NR_MAPS 200

TEST_F_TIMEOUT(life, many_maps, 60)
{
	struct guest guests[8];
	int fds[NR_MAPS];
	u32 i;

	for (i = 0; i < NR_MAPS; i++) {
		fds[i] = map_open();
		ASSERT_LE(0, fds[i]);
		test_cmd_apply(fds[i], op_container(ROOT, U64_MAX),
			       op_ram(MEM, PAGE - 1, self->s.mem),
			       op_add(MEM, ROOT, i * PAGE, 0),
			       op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT));
	}
	EXPECT_EQ(NR_MAPS + 1, debugfs_find(0, NULL, 0));
	for (i = 0; i < ARRAY_SIZE(guests); i++) {
		ASSERT_EQ(0, guest_create_vm(&guests[i]));
		test_cmd_attach(fds[10 * i], guests[i].vm, 0, 1);
	}
	EXPECT_EQ((int)ARRAY_SIZE(guests) + 1, scratch_find(NULL, NULL));
	for (i = 0; i < NR_MAPS; i++)
		EXPECT_VIEW(fds[i], SPACE, { i * PAGE, i * PAGE + PAGE - 1, MEM, 0, 0 });
	/* From the middle to both ends. */
	for (i = 0; i < NR_MAPS; i++)
		close(fds[i & 1 ? NR_MAPS / 2 + i / 2 : NR_MAPS / 2 - 1 - i / 2]);
	EXPECT_EQ(1, debugfs_find(0, NULL, 0));
	EXPECT_EQ(1, scratch_find(NULL, NULL));
	for (i = 0; i < ARRAY_SIZE(guests); i++)
		guest_destroy(&guests[i]);
	EXPECT_COMMITS(&self->s);
}

/* The directory of a map: there while it is open, with what QUERY tells. */
TEST_F(life, debugfs_contents)
{
	struct gpamap_range_info *ranges;
	struct gpamap_region_info *regions;
	struct gpamap_slot_info *slots;
	char dir[300], line[512], *text, *p;
	u32 i, count;

	test_cmd_apply(self->s.fd, op_name(op_rom(10, 0x1fff, self->s.mem), "bios"),
		       op_add(10, ROOT, 0xfffe0000, 3), op_name(op_io(11, 0xff), "uart"),
		       op_add(11, ROOT, A + 0x2400, -1), op_prio(11, 7),
		       op_flags(op_name(op_alias(12, MEM, PAGE, PAGE - 1), "window"),
				GPAMAP_REGION_READONLY | GPAMAP_REGION_DISABLED),
		       op_name(op_space(2, GPAMAP_SPACE_VIEW, 10), "rom only"));
	ASSERT_EQ(1, debugfs_find(0, dir, sizeof(dir)));

	/* Every range a line, and every line a range. */
	text = debugfs_read(dir, "flat");
	ASSERT_NE(NULL, text);
	ranges = query_all(self->s.fd, GPAMAP_QUERY_RANGES, SPACE, &count);
	ASSERT_NE(NULL, ranges);
	ASSERT_EQ(4u, count);
	p = text;
	EXPECT_EQ(0, strncmp(p, "address-space: \n", 16));
	for (i = 0; i < count; i++) {
		ASSERT_NE(NULL, (p = strchr(p, '\n')));
		p++;
		snprintf(line, sizeof(line), "  %016llx-%016llx (prio %d, ", ranges[i].start,
			 ranges[i].last, ranges[i].prio);
		EXPECT_EQ(0, strncmp(p, line, strlen(line)))
			TH_LOG("%.60s, not %s", p, line);
	}
	free(ranges);
	ASSERT_NE(NULL, (p = strchr(p, '\n')));
	EXPECT_STREQ("\naddress-space: rom only\n"
		     "  0000000000000000-0000000000001fff (prio 3, rom): bios\n", p);
	free(text);

	text = debugfs_read(dir, "slots");
	ASSERT_NE(NULL, text);
	slots = query_all(self->s.fd, GPAMAP_QUERY_SLOTS, 0, &count);
	ASSERT_NE(NULL, slots);
	ASSERT_EQ(3u, count);
	for (i = 0, p = text; i < count; i++) {
		snprintf(line, sizeof(line), "  %016llx-%016llx as 0 slot %u hva 0x%llx %s region %u\n",
			 slots[i].gpa, slots[i].gpa + slots[i].npages * PAGE - 1,
			 slots[i].slot, slots[i].hva, slots[i].flags ? "ro" : "rw",
			 slots[i].region);
		EXPECT_EQ(0, strncmp(p, line, strlen(line)))
			TH_LOG("%.80s, not %s", p, line);
		p += strlen(line);
	}
	EXPECT_STREQ("", p);
	free(slots);
	free(text);

	/* The spaces, then the regions in the order of QUERY, each by its id. */
	text = debugfs_read(dir, "tree");
	ASSERT_NE(NULL, text);
	EXPECT_NE(NULL, strstr(text, "space 2 \"rom only\" root=10 kind=view as=0\n"));
	EXPECT_NE(NULL, strstr(text, "12 alias \"window\" last=0xfff of=2 offset=0x1000 "
			       "readonly disabled\n"));
	EXPECT_NE(NULL, strstr(text, "  11 io \"uart\" last=0xff at=0x102400 prio=7\n"));
	regions = query_all(self->s.fd, GPAMAP_QUERY_REGIONS, 0, &count);
	ASSERT_NE(NULL, regions);
	p = strchr(strchr(text, '\n') + 1, '\n') + 1;
	for (i = 0; i < count; i++) {
		EXPECT_EQ(regions[i].id, strtoul(p, NULL, 10));
		p = strchr(p, '\n');
		ASSERT_NE(NULL, p);
		p++;
	}
	EXPECT_STREQ("", p);
	free(regions);
	free(text);

	test_cmd_detach(self->s.fd);
	text = debugfs_read(dir, "slots");
	ASSERT_NE(NULL, text);
	EXPECT_STREQ("no VM\n", text);
	free(text);

	close_one(&self->s, CLOSE_MAP);
	EXPECT_EQ(0, debugfs_find(0, NULL, 0));
	EXPECT_EQ(NULL, debugfs_read(dir, "flat"));
}

/* A file that is open when the map goes has nothing more to say. */
TEST_F(life, debugfs_open_file_of_closed_map)
{
	char dir[300], path[512], buf[4096];
	int fd;

	ASSERT_EQ(1, debugfs_find(0, dir, sizeof(dir)));
	snprintf(path, sizeof(path), "%s/flat", dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_LT(0, (int)read(fd, buf, sizeof(buf)));
	EXPECT_EQ(0, lseek(fd, 0, SEEK_SET));
	close_one(&self->s, CLOSE_MAP);
	EXPECT_EQ(-1, (int)read(fd, buf, sizeof(buf)));
	EXPECT_EQ(EIO, errno);
	close(fd);
}

static void *read_debugfs_forever(void *arg)
{
	struct worker *w = arg;
	char dir[300], *text;

	for (w->rounds = 0; !__atomic_load_n(&w->stop, __ATOMIC_RELAXED);) {
		if (debugfs_find(0, dir, sizeof(dir)) < 1)
			continue;
		text = debugfs_read(dir, debugfs_names[w->nr]);
		if (text && *text)
			w->rounds++;
		free(text);
	}
	return NULL;
}

TEST_F_TIMEOUT(life, debugfs_read_while_closing, 60)
{
	struct worker workers[3] = { 0 };
	u32 i;

	for (i = 0; i < 3; i++) {
		workers[i].nr = i;
		ASSERT_EQ(0, pthread_create(&workers[i].thread, NULL, read_debugfs_forever,
					    &workers[i]));
	}
	for (i = 0; i < 100; i++) {
		close_one(&self->s, CLOSE_MAP);
		EXPECT_EQ(0, guest_set_slot(&self->s.guest, 0, 0, A, 0, self->s.mem));
		ASSERT_EQ(0, setup_map(&self->s));
		usleep(i * 20);
	}
	for (i = 0; i < 3; i++) {
		__atomic_store_n(&workers[i].stop, 1, __ATOMIC_RELAXED);
		pthread_join(workers[i].thread, NULL);
		EXPECT_LT(0u, workers[i].rounds);
	}
}

/* The last: after all of them, and theirs were processes of their own. */
TEST_F(life, nothing_left)
{
	setup_close(&self->s);
	self->s.fd = -1;
	EXPECT_NOTHING_LEFT();
	EXPECT_EQ(0, debugfs_find(0, NULL, 0));
}

TEST_HARNESS_MAIN

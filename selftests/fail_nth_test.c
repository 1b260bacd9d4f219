// SPDX-License-Identifier: GPL-2.0
/*
 * Every allocation and every user copy fails in turn: of each call the first that the kernel
 * makes, then the second, until the call makes no more (/proc/self/fail-nth). Slabs, pages
 * and user copies count alike, those of KVM, of mmap() and of open() too.
 *
 * A call that fails has done nothing: what QUERY tells, what the guest finds in memory and
 * in I/O regions and what KVM says of its slots is as before, and the same call then
 * succeeds. A call that does not fail has done all of it. One point is neither: the last
 * thing that APPLY does is to write its answer, and if that fails it says EFAULT of a
 * commit that is done. It had written the same place a moment before, so this takes a
 * VMM that unmaps its own argument.
 *
 * How many points each call has is printed. Needs a kernel with fault injection, such as
 * the debug kernel; elsewhere all of it is skipped.
 */
#include "harness.h"
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "gpamap_util.h"
#include "guest_io.h"
#include "leaks.h"
#include "vcpu.h"
#include "vm.h"

#define PAGE TEST_PAGE
#define MAX_POINTS 3000			/* more are a loop */
#define FOREIGN 400			/* an id that is not the map's */
#define IDS 32

enum { ROOT = 1, MEM, OTHER, THIRD, IO, DEV, PORTS, PDEV, SMM_ROOT, SMM_ALIAS, SMRAM, WINDOW,
       FLASH, NEW };
enum { SPACE = 1, IO_SPACE, SMM, VIEW };

#define MEM_PAGES 16
#define MEM_LEN (MEM_PAGES * PAGE)
#define A 0x10000000ULL
#define B 0x20000000ULL
#define C 0x140000000ULL
#define DEV_A 0x50000000ULL
#define DEV_B 0x60000000ULL
#define WINDOW_AT 0x70000000ULL
#define FLASH_AT 0x78000000ULL
#define PORT 0x500
#define PORT_B 0x600

#define NR_MEMORY ARRAY_SIZE(memory_places)
#define NR_IO ARRAY_SIZE(io_places)
#define NR_PORTS ARRAY_SIZE(ports)
#define NR_BELLS 2
#define WRITTEN 0x11223344U

/* Where the guest looks: memory, and where it may ring, or read registers. */
static const u64 memory_places[] = {
	A - PAGE, A, A + 3 * PAGE, A + 4 * PAGE, A + 15 * PAGE, A + MEM_LEN, A + 0x100000,
	B, B + MEM_LEN - PAGE, B + 0x100000, C, C + 2 * PAGE + 0x100, C + 5 * PAGE, WINDOW_AT,
	FLASH_AT,
};

static const u64 io_places[] = { DEV_A, DEV_A + 8, DEV_A + 16, DEV_B, DEV_B + 8 };
static const u32 ports[] = { PORT, PORT + 4, PORT_B };

/* Of all tests, each of which is a process. */
static struct totals {
	u32 calls;
	u32 points;
	u32 failed;			/* of the points, those where the call did */
} *totals;

static void __attribute__((constructor)) totals_share(void)
{
	totals = mmap(NULL, sizeof(*totals), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

/* -- faults ----------------------------------------------------------------- */

static const char *write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return path;
	ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return ok ? NULL : path;
}

/* All allocations and copies count, and none writes to the log. NULL, or what is missing. */
static const char *prepare_faults(void)
{
#define FAULTS "/sys/kernel/debug/"
	static const char * const files[][2] = {
		{ FAULTS "failslab/ignore-gfp-wait", "N" },
		{ FAULTS "failslab/verbose", "0" },
		{ FAULTS "fail_page_alloc/ignore-gfp-wait", "N" },
		{ FAULTS "fail_page_alloc/ignore-gfp-highmem", "N" },
		{ FAULTS "fail_page_alloc/min-order", "0" },
		{ FAULTS "fail_page_alloc/verbose", "0" },
		{ FAULTS "fail_usercopy/verbose", "0" },
	};
	const char *missing = NULL;
	u32 i;

	for (i = 0; !missing && i < ARRAY_SIZE(files); i++)
		missing = write_file(files[i][0], files[i][1]);
	return missing;
}

static int fail_fd = -1;

static const char *open_faults(void)
{
	const char *missing = prepare_faults();

	fail_fd = open("/proc/self/fail-nth", O_RDWR | O_CLOEXEC);
	return fail_fd < 0 ? "/proc/self/fail-nth" : missing;
}

/* Where nothing can be made to fail there is one result. A skipped fixture would go on. */
static void __attribute__((constructor)) skip_all(void)
{
	const char *missing = open_faults();

	if (!missing)
		return;
	printf("TAP version 13\n1..1\nok 1 fail_nth # SKIP no fault injection: %s\n", missing);
	exit(0);
}

/* The @n-th point of this thread from now on fails. */
static bool arm(u32 n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	return pwrite(fail_fd, text, len, 0) == len;
}

/* Whether one has failed; no more will. Asking copies to the user, which may fail too. */
static bool disarm(void)
{
	char text[16] = "";
	bool failed;

	failed = pread(fail_fd, text, sizeof(text) - 1, 0) > 0 && atoi(text) == 0;
	while (pwrite(fail_fd, "0", 1, 0) != 1)
		;
	return failed;
}

/* -- a map, and what it does ------------------------------------------------ */

struct env {
	int fd;
	bool smm;			/* there are slots for SMM, or may be */
	struct guest guest;
	void *io;			/* of the guest */
	char *mem;			/* MEM, OTHER, THIRD, SMRAM, FLASH */
	int bells[NR_BELLS];
	int extra;			/* what a call has opened, or mapped */
	void *page;
};

/* What the guest finds: where it may be memory, in I/O regions, in ports. */
struct found {
	bool looked;
	int how;
	int reason;
	u64 value;
	u32 rung;
};

struct state {
	struct snapshot *snap;
	struct found memory[NR_MEMORY];
	struct found io[2 * NR_IO];	/* a read, a write */
	struct found ports[NR_PORTS];
};

static u32 rung(const struct env *e)
{
	u32 i, mask = 0;
	u64 n;

	for (i = 0; i < NR_BELLS; i++)
		if (read(e->bells[i], &n, sizeof(n)) == sizeof(n))
			mask |= n == 1 ? 1U << i : 0x100;
	return mask;
}

static struct found found(const struct env *e, struct guest_access access)
{
	return (struct found){
		.looked = true,
		.how = access.how,
		.reason = access.reason,
		.value = access.value,
		.rung = rung(e),
	};
}

/*
 * NULL if it cannot be had. An access of the guest's takes milliseconds in an emulated debug
 * kernel, so if not for @all, it looks at a few places, and at others the next time.
 */
static struct state *state_take(struct env *e, bool all)
{
	struct state *state = calloc(1, sizeof(*state));
	static u32 turn;
	u32 i;

	state->snap = snapshot_take(e->fd);
	if (!state->snap)
		return NULL;
	for (i = 0; i < NR_MEMORY; i++)
		if (all || (i + turn) % 5 == 0)
			state->memory[i] = found(e, guest_read(&e->guest,
							       memory_places[i], 8));
	for (i = 0; i < NR_IO; i++) {
		if (!all && (i + turn) % 2)
			continue;
		state->io[2 * i] = found(e, guest_read(&e->guest, io_places[i], 4));
		state->io[2 * i + 1] = found(e, guest_write(&e->guest, io_places[i], 4,
							    WRITTEN));
	}
	for (i = 0; i < NR_PORTS; i++)
		if (all || (i + turn) % NR_PORTS == 0)
			state->ports[i] = found(e, guest_out(&e->guest, ports[i], 4,
							     WRITTEN));
	turn++;
	return state;
}

static void state_free(struct state *state)
{
	snapshot_free(state->snap);
	free(state);
}

static const char *found_diff(const char *what, const struct found *a,
			      const struct found *b, u32 nr)
{
	static char why[256];
	u32 i;

	for (i = 0; i < nr; i++) {
		if (!a[i].looked || !b[i].looked)
			continue;
		if (a[i].how == b[i].how && a[i].reason == b[i].reason &&
		    a[i].value == b[i].value && a[i].rung == b[i].rung)
			continue;
		snprintf(why, sizeof(why),
			 "%s %u: was how %d exit %d value 0x%llx rung %x; is how %d exit %d value 0x%llx rung %x",
			 what, i, a[i].how, a[i].reason, (unsigned long long)a[i].value,
			 a[i].rung, b[i].how, b[i].reason, (unsigned long long)b[i].value,
			 b[i].rung);
		return why;
	}
	return NULL;
}

/* NULL, or what differs of that which the guest finds. */
static const char *guest_diff(const struct state *a, const struct state *b)
{
	const char *why;

	why = found_diff("memory", a->memory, b->memory, NR_MEMORY);
	why = why ?: found_diff("I/O", a->io, b->io, 2 * NR_IO);
	return why ?: found_diff("port", a->ports, b->ports, NR_PORTS);
}

/* And of the views. Generation and ids of slots may be others. */
static const char *state_diff(const struct state *a, const struct state *b)
{
	return snapshot_diff_views(a->snap, b->snap) ?: guest_diff(a, b);
}

static int doorbell(const struct env *e, u32 flags, u32 region, u64 offset, u32 bell)
{
	struct gpamap_doorbell cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.region = region,
		.len = 4,
		.offset = offset,
		.value = flags & GPAMAP_DOORBELL_MATCH ? WRITTEN : 0,
		.fd = e->bells[bell],
	};

	return map_ioctl(e->fd, GPAMAP_DOORBELL, &cmd);
}

static int registers(const struct env *e, u32 region)
{
	const struct gpamap_register regs[] = {
		{ 8, 4, GPAMAP_REGISTER_READWRITE, WRITTEN },
		{ 16, 4, GPAMAP_REGISTER_CONSTANT, 0x77 },
	};
	struct gpamap_registers cmd = {
		.size = sizeof(cmd),
		.region = region,
		.nr = ARRAY_SIZE(regs),
		.register_size = sizeof(regs[0]),
		.registers = (uintptr_t)regs,
	};

	return map_ioctl(e->fd, GPAMAP_REGISTERS, &cmd);
}

static int registers_remove(const struct env *e, u32 region)
{
	struct gpamap_registers cmd = {
		.size = sizeof(cmd),
		.flags = GPAMAP_REGISTERS_REMOVE,
		.region = region,
	};

	return map_ioctl(e->fd, GPAMAP_REGISTERS, &cmd);
}

/* The same as operations of a batch, and all others that tie. */
static struct gpamap_op tie_doorbell(const struct env *e, u32 flags, u32 region, u64 offset,
				     u32 bell)
{
	return (struct gpamap_op){
		.code = GPAMAP_OP_DOORBELL,
		.id = region,
		.flags = flags,
		.len = 4,
		.offset = offset,
		.value = flags & GPAMAP_DOORBELL_MATCH ? WRITTEN : 0,
		.fd = e->bells[bell],
	};
}

static struct gpamap_op tie_registers(u32 region)
{
	static const struct gpamap_register regs[] = {
		{ 8, 4, GPAMAP_REGISTER_READWRITE, WRITTEN },
		{ 16, 4, GPAMAP_REGISTER_CONSTANT, 0x77 },
	};

	return (struct gpamap_op){
		.code = GPAMAP_OP_REGISTERS,
		.id = region,
		.nr = ARRAY_SIZE(regs),
		.item_size = sizeof(regs[0]),
		.items = (uintptr_t)regs,
	};
}

static struct gpamap_op tie_handler(u32 region)
{
	return op_name((struct gpamap_op){ .code = GPAMAP_OP_HANDLER, .id = region },
		       "test-quiet");
}

static struct gpamap_op tie_post(u32 region, u32 ring)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_POST, .id = region, .ref = ring };
}

static struct gpamap_op tie_policy(u32 region, u32 policy)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_POLICY, .id = region, .kind = policy };
}

static struct gpamap_op tie_untie(u32 region, u32 mask)
{
	return (struct gpamap_op){ .code = GPAMAP_OP_UNTIE, .id = region, .mask = mask };
}

/* Takes away what registers, a handler or posting are tied by. */
static struct gpamap_op tie_remove(u32 code, u32 region)
{
	return (struct gpamap_op){ .code = code, .id = region, .flags = 1 };
}

_Static_assert(GPAMAP_REGISTERS_REMOVE == 1 && GPAMAP_HANDLER_REMOVE == 1 &&
	       GPAMAP_POST_REMOVE == 1, "as tie_remove() says");

#define TIE_ALL									\
	(GPAMAP_TIE_DOORBELLS | GPAMAP_TIE_REGISTERS | GPAMAP_TIE_HANDLER |	\
	 GPAMAP_TIE_RING | GPAMAP_TIE_POLICY)

static int map_create(struct env *e)
{
	struct gpamap_op ops[] = {
		op_container(ROOT, U64_MAX), op_ram(MEM, MEM_LEN - 1, e->mem),
		op_ram(OTHER, MEM_LEN - 1, e->mem + MEM_LEN),
		op_ram(THIRD, MEM_LEN - 1, e->mem + 2 * MEM_LEN),
		op_ram(SMRAM, 4 * PAGE - 1, e->mem + 3 * MEM_LEN),
		op_romd(FLASH, 4 * PAGE - 1, e->mem + 4 * MEM_LEN),
		op_romd_mode(FLASH, true), op_enable(FLASH, false),
		op_io(IO, PAGE - 1), op_io(DEV, 2 * PAGE - 1),
		op_container(PORTS, 0xffff), op_io(PDEV, 15),
		op_alias(WINDOW, THIRD, 0, 2 * PAGE - 1), op_enable(WINDOW, false),
		op_add(MEM, ROOT, A, 0), op_add(OTHER, ROOT, B, 0),
		op_add(DEV, ROOT, DEV_A, 0), op_add(PDEV, PORTS, PORT, 0),
		op_add(WINDOW, ROOT, WINDOW_AT, 0), op_add(FLASH, ROOT, FLASH_AT, 0),
		op_container(SMM_ROOT, U64_MAX), op_alias(SMM_ALIAS, ROOT, 0, U64_MAX),
		op_add(SMM_ALIAS, SMM_ROOT, 0, 0),
		op_add(SMRAM, SMM_ROOT, A + 4 * PAGE, 1),
		op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT),
		op_space(IO_SPACE, GPAMAP_SPACE_IO, PORTS),
	};
	int rc;

	e->fd = map_open();
	if (e->fd < 0)
		return e->fd;
	rc = _test_cmd_apply(e->fd, ops, ARRAY_SIZE(ops), NULL, NULL);
	rc = rc ?: doorbell(e, 0, DEV, 0, 0);
	rc = rc ?: registers(e, DEV);
	rc = rc ?: doorbell(e, 0, PDEV, 0, 1);
	return rc ?: _test_cmd_attach(e->fd, e->guest.vm, 0, IDS);
}

static int env_create(struct env *e)
{
	u32 i;
	int rc;

	e->fd = -1;
	e->extra = -1;
	rc = guest_create(&e->guest);
	if (rc)
		return rc;
	e->io = guest_io_create(&e->guest);
	e->mem = mmap(NULL, 5 * MEM_LEN, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!e->io || e->mem == MAP_FAILED)
		return -ENOMEM;
	for (i = 0; i < 5 * MEM_PAGES; i++) {
		*(u64 *)(e->mem + i * PAGE) = 0x600d000000000000 + i;
		*(u64 *)(e->mem + i * PAGE + 0x100) = 0x600d000000000100 + i;
	}
	for (i = 0; i < NR_BELLS; i++) {
		e->bells[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (e->bells[i] < 0)
			return -errno;
	}
	return map_create(e);
}

static void env_destroy(struct env *e)
{
	u32 i;

	close(e->fd);
	guest_destroy(&e->guest);
	munmap(e->io, GUEST_IO_LEN);
	munmap(e->mem, 5 * MEM_LEN);
	for (i = 0; i < NR_BELLS; i++)
		close(e->bells[i]);
}

/* -- one call ---------------------------------------------------------------- */

#define MAX_OPS 8

/* A batch, as an argument. */
struct batch {
	struct gpamap_op ops[MAX_OPS];
};

static u32 nr_ops(const struct batch *batch)
{
	u32 n = 0;

	while (n < MAX_OPS && batch->ops[n].code)
		n++;
	return n;
}

struct call {
	const char *name;
	int (*run)(struct env *e, const void *arg);
	const void *arg;
	int (*undo)(struct env *e, const void *arg);	/* NULL: it changes nothing */
	const void *undo_arg;
	int (*prepare)(struct env *e);	/* before each time; NULL for nothing */
	int wanted;			/* what it says when nothing fails */
	bool answers;			/* writes an answer when all is done */
};

/*
 * What the guest cannot find out, KVM says: SMM's slots. Each question takes up to two
 * operations on slots, so it is another place each time; @all of them at the end.
 */
static void expect_kvm_agrees(struct __test_metadata *_metadata, struct env *e, bool all)
{
	static const u64 gpas[] = { A, A + 4 * PAGE, A + 0x100000, B, C };
	static u32 turn;
	u32 as;

	EXPECT_EQ(0u, query_info(e->fd).state & GPAMAP_STATE_BROKEN);
	if (!all && !e->smm)
		return;
	for (as = !all; as < 2; as++)
		EXPECT_NULL_WHY(guest_places_diff(&e->guest, e->fd, as, FOREIGN,
						  all ? gpas : &gpas[turn % ARRAY_SIZE(gpas)],
						  all ? ARRAY_SIZE(gpas) : 1));
	turn++;
}

static void undo(struct __test_metadata *_metadata, struct env *e, const struct call *c)
{
	if (!c->undo)
		return;
	ASSERT_EQ(0, c->undo(e, c->undo_arg)) TH_LOG("%s", c->name);
}

static void prepare(struct __test_metadata *_metadata, struct env *e,
		    const struct call *c)
{
	if (c->prepare)
		ASSERT_EQ(0, c->prepare(e)) TH_LOG("%s", c->name);
}

/* What a call has to be like before it, and when it is done. */
struct reference {
	struct state *before;
	struct state *done;
};

/* It has failed, and @snap was before: is it so still, and does the same call do it now? */
static void expect_undone(struct __test_metadata *_metadata, struct env *e,
			  const struct call *c, const struct reference *ref,
			  const struct snapshot *snap, const struct state *now)
{
	struct snapshot *after;

	EXPECT_NULL_WHY(snapshot_diff(snap, now->snap));
	EXPECT_NULL_WHY(guest_diff(ref->before, now));
	expect_kvm_agrees(_metadata, e, false);
	prepare(_metadata, e, c);
	ASSERT_EQ(c->wanted, c->run(e, c->arg));
	after = snapshot_take(e->fd);
	ASSERT_NE(NULL, after);
	EXPECT_NULL_WHY(snapshot_diff_views(ref->done->snap, after));
	snapshot_free(after);
}

/* The @n-th point of a call; false if it has no such. */
static bool sweep_point(struct __test_metadata *_metadata, struct env *e,
			const struct call *c, const struct reference *ref, u32 n,
			u32 *failed, u32 *unanswered)
{
	struct snapshot *snap;
	struct state *now;
	bool injected;
	int rc;

	prepare(_metadata, e, c);
	snap = snapshot_take(e->fd);
	ASSERT_NE(NULL, snap);
	ASSERT_TRUE(arm(n));
	rc = c->run(e, c->arg);
	injected = disarm();
	/* Where it has to be found out whether it is done, all is looked at. */
	now = state_take(e, rc == -EFAULT && c->answers);
	ASSERT_NE(NULL, now);

	if (rc == c->wanted) {
		EXPECT_NULL_WHY(state_diff(ref->done, now));
	} else {
		EXPECT_TRUE(injected);
		EXPECT_TRUE(rc == -ENOMEM || rc == -EFAULT) TH_LOG("%d", rc);
		++*failed;
		if (rc == -EFAULT && c->answers && (snapshot_diff(snap, now->snap) ||
						      guest_diff(ref->before, now))) {
			++*unanswered;
			EXPECT_NULL_WHY(state_diff(ref->done, now));
		} else {
			expect_undone(_metadata, e, c, ref, snap, now);
		}
	}
	undo(_metadata, e, c);
	snapshot_free(snap);
	state_free(now);
	return injected;
}

static void count_points(const char *name, u32 n, u32 failed, u32 unanswered, u64 since)
{
	printf("# %s: %u points, %u failed the call%s, %llu ms\n", name, n, failed,
	       unanswered ? ", of which the answer" : "",
	       (unsigned long long)(now_ms() - since));
	totals->calls++;
	totals->points += n;
	totals->failed += failed;
}

/* All points. In the end it is as it was. */
static void sweep(struct __test_metadata *_metadata, struct env *e, const struct call *c)
{
	u32 n, failed = 0, unanswered = 0;
	struct reference ref;
	u64 since = now_ms();
	bool injected = true;
	struct state *end;

	/* Once in vain: what is attached anew comes before its equals. */
	prepare(_metadata, e, c);
	ASSERT_EQ(c->wanted, c->run(e, c->arg)) TH_LOG("%s", c->name);
	undo(_metadata, e, c);
	prepare(_metadata, e, c);
	ref.before = state_take(e, true);
	ASSERT_NE(NULL, ref.before);
	ASSERT_EQ(c->wanted, c->run(e, c->arg)) TH_LOG("%s", c->name);
	ref.done = state_take(e, true);
	ASSERT_NE(NULL, ref.done);
	/* What changes something is seen to, or nothing would be found. */
	if (c->undo)
		EXPECT_TRUE(snapshot_diff(ref.before->snap, ref.done->snap) ||
			    guest_diff(ref.before, ref.done)) TH_LOG("%s", c->name);
	undo(_metadata, e, c);

	for (n = 1; injected && n < MAX_POINTS && _metadata->passed; n++) {
		injected = sweep_point(_metadata, e, c, &ref, n, &failed, &unanswered);
		if (!_metadata->passed)
			TH_LOG("%s: point %u", c->name, n);
	}
	EXPECT_FALSE(injected);
	/* The last point moves a little: slabs need new pages now and then. */
	EXPECT_LE(unanswered, 3u) TH_LOG("%s", c->name);
	end = state_take(e, true);
	ASSERT_NE(NULL, end);
	EXPECT_NULL_WHY(state_diff(ref.before, end));
	expect_kvm_agrees(_metadata, e, true);
	state_free(ref.before);
	state_free(ref.done);
	state_free(end);
	count_points(c->name, n < 2 ? 0 : n - 2, failed, unanswered, since);
}

FIXTURE(fail_nth) {
	struct env e;
};

FIXTURE_SETUP(fail_nth)
{
	ASSERT_EQ(NULL, open_faults());
	ASSERT_EQ(0, module_param_set("fail_nth", 0));
	ASSERT_EQ(0, env_create(&self->e));
}

FIXTURE_TEARDOWN(fail_nth)
{
	env_destroy(&self->e);
	EXPECT_NOTHING_LEFT();
}

/* -- QUERY, LOOKUP ------------------------------------------------------------- */

static int run_query(struct env *e, const void *arg)
{
	static u64 records[4096];
	const u32 *what = arg;
	u32 size = record_size_of(*what), count = sizeof(records) / size;

	return _test_cmd_query(e->fd, *what, *what == GPAMAP_QUERY_RANGES ? SPACE : 0,
			       records, size, &count);
}

static int run_lookup(struct env *e, const void *arg)
{
	struct gpamap_lookup out;

	(void)arg;
	return _test_cmd_lookup(e->fd, SPACE, A, &out);
}

TEST_F_TIMEOUT(fail_nth, query_and_lookup, 120)
{
	static const char * const names[] = {
		[GPAMAP_QUERY_INFO] = "QUERY info", [GPAMAP_QUERY_REGIONS] = "QUERY regions",
		[GPAMAP_QUERY_SPACES] = "QUERY spaces", [GPAMAP_QUERY_RANGES] = "QUERY ranges",
		[GPAMAP_QUERY_SLOTS] = "QUERY slots", [GPAMAP_QUERY_STATS] = "QUERY stats",
		[GPAMAP_QUERY_COUNTERS] = "QUERY counters",
		[GPAMAP_QUERY_LAYOUT] = "QUERY layout",
	};
	struct call call = { .run = run_lookup, .name = "LOOKUP" };
	u32 what;

	sweep(_metadata, &self->e, &call);
	call.run = run_query;
	call.arg = &what;
	for (what = GPAMAP_QUERY_INFO; what <= GPAMAP_QUERY_LAYOUT; what++) {
		call.name = names[what];
		sweep(_metadata, &self->e, &call);
	}
}

/* -- DOORBELL, REGISTERS, mmap() ------------------------------------------------ */

/* The bells of @arg: which come, one after the other, and go. */
struct bells {
	u32 region;
	u32 flags;
	u64 offset;
	u32 bell;
};

static int run_bell(struct env *e, const void *arg)
{
	const struct bells *b = arg;

	return doorbell(e, b->flags, b->region, b->offset, b->bell);
}

static int undo_bell(struct env *e, const void *arg)
{
	const struct bells *b = arg;

	return doorbell(e, b->flags | GPAMAP_DOORBELL_REMOVE, b->region, b->offset, b->bell);
}

/* A table has four heads at first, and does not shrink before it is empty. */
static int fill_table(struct env *e)
{
	int rc = 0;
	u32 i;

	for (i = 0; i < 4; i++)
		doorbell(e, GPAMAP_DOORBELL_REMOVE, IO, 0x100 + 8 * i, 0);
	for (i = 0; !rc && i < 4; i++)
		rc = doorbell(e, 0, IO, 0x100 + 8 * i, 0);
	return rc;
}

static void sweep_bell(struct __test_metadata *_metadata, struct env *e,
		       const char *add, const char *remove, const struct bells *bells)
{
	const struct call there = { .name = add, .run = run_bell, .arg = bells,
				    .undo = undo_bell, .undo_arg = bells };
	const struct call back = { .name = remove, .run = undo_bell, .arg = bells,
				   .undo = run_bell, .undo_arg = bells };

	sweep(_metadata, e, &there);
	ASSERT_EQ(0, run_bell(e, bells));
	sweep(_metadata, e, &back);
	ASSERT_EQ(0, undo_bell(e, bells));
}

TEST_F_TIMEOUT(fail_nth, doorbell, 300)
{
	const struct bells one = { DEV, 0, 16, 1 };
	const struct bells match = { DEV, GPAMAP_DOORBELL_MATCH, 8, 0 };
	const struct bells port = { PDEV, 0, 4, 0 };
	const struct bells first = { IO, 0, 0, 1 };
	const struct call fifth = { .name = "DOORBELL that makes a larger table",
				    .run = run_bell, .arg = &first, .undo = undo_bell,
				    .undo_arg = &first, .prepare = fill_table };
	struct env *e = &self->e;

	sweep_bell(_metadata, e, "DOORBELL", "DOORBELL remove", &one);
	sweep_bell(_metadata, e, "DOORBELL with a value", "DOORBELL with a value, remove",
		   &match);
	sweep_bell(_metadata, e, "DOORBELL of a port", "DOORBELL of a port, remove", &port);
	/* The first of its region, so KVM's bus changes too. */
	test_cmd_apply(e->fd, op_add(IO, ROOT, DEV_B, 0));
	sweep_bell(_metadata, e, "DOORBELL, first of a region", "DOORBELL, last of a region, remove",
		   &first);
	sweep(_metadata, e, &fifth);
}

static int run_registers(struct env *e, const void *arg)
{
	return registers(e, *(const u32 *)arg);
}

static int run_registers_remove(struct env *e, const void *arg)
{
	return registers_remove(e, *(const u32 *)arg);
}

static int run_mmap(struct env *e, const void *arg)
{
	e->page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, e->fd,
		       (off_t)*(const u32 *)arg * PAGE);
	return e->page == MAP_FAILED ? -errno : 0;
}

static int run_munmap(struct env *e, const void *arg)
{
	u32 first;

	/* It is the page of the registers, and populated. */
	(void)arg;
	first = *(volatile u32 *)((char *)e->page + 8);
	return munmap(e->page, PAGE) ? -errno : first == WRITTEN ? 0 : -EBADMSG;
}

TEST_F_TIMEOUT(fail_nth, registers, 300)
{
	const u32 region = IO;
	struct call set = { .run = run_registers, .arg = &region,
			    .undo = run_registers_remove, .undo_arg = &region };
	struct call remove = { .run = run_registers_remove, .arg = &region,
			       .undo = run_registers, .undo_arg = &region };
	struct env *e = &self->e;

	test_cmd_apply(e->fd, op_add(IO, ROOT, DEV_B, 0));
	set.name = "REGISTERS";
	sweep(_metadata, e, &set);
	ASSERT_EQ(0, registers(e, region));
	remove.name = "REGISTERS remove";
	sweep(_metadata, e, &remove);
	ASSERT_EQ(0, registers_remove(e, region));
	/* With doorbells in the region KVM's bus stays as it is. */
	ASSERT_EQ(0, doorbell(e, 0, IO, 0, 0));
	set.name = "REGISTERS beside doorbells";
	sweep(_metadata, e, &set);
	ASSERT_EQ(0, registers(e, region));
	remove.name = "REGISTERS beside doorbells, remove";
	sweep(_metadata, e, &remove);
}

/* -- HANDLER, RING, POST, POLICY --------------------------------------------------- */

/* A command, and what takes back what it does. */
struct tie {
	unsigned long nr;
	const void *add;
	const void *remove;
};

static int run_tie(struct env *e, const void *arg)
{
	const struct tie *t = arg;

	return map_ioctl(e->fd, t->nr, (void *)t->add);
}

static int run_untie(struct env *e, const void *arg)
{
	const struct tie *t = arg;

	return map_ioctl(e->fd, t->nr, (void *)t->remove);
}

static void sweep_tie(struct __test_metadata *_metadata, struct env *e, const char *add,
		      const char *remove, const struct tie *tie)
{
	const struct call there = { .name = add, .run = run_tie, .arg = tie,
				    .undo = run_untie, .undo_arg = tie };
	const struct call back = { .name = remove, .run = run_untie, .arg = tie,
				   .undo = run_tie, .undo_arg = tie };

	sweep(_metadata, e, &there);
	ASSERT_EQ(0, run_tie(e, tie));
	sweep(_metadata, e, &back);
	ASSERT_EQ(0, run_untie(e, tie));
}

TEST_F_TIMEOUT(fail_nth, handler_and_post, 600)
{
	struct env *e = &self->e;
	const struct gpamap_handler handler = {
		.size = sizeof(handler), .region = IO, .name = "test-quiet",
	}, no_handler = {
		.size = sizeof(handler), .region = IO, .flags = GPAMAP_HANDLER_REMOVE,
	};
	const struct gpamap_post post = {
		.size = sizeof(post), .region = IO, .ring = 1,
	}, no_post = {
		.size = sizeof(post), .region = IO, .flags = GPAMAP_POST_REMOVE,
	};
	struct gpamap_ring ring = {
		.size = sizeof(ring), .id = 1, .nr_entries = 1024, .watermark = 1,
		.fd = e->bells[1],
	};
	const struct tie a_handler = { GPAMAP_HANDLER, &handler, &no_handler };
	const struct tie a_post = { GPAMAP_POST, &post, &no_post };

	test_cmd_apply(e->fd, op_add(IO, ROOT, DEV_B, 0));
	sweep_tie(_metadata, e, "HANDLER", "HANDLER remove", &a_handler);
	ASSERT_EQ(0, map_ioctl(e->fd, GPAMAP_RING, &ring));
	sweep_tie(_metadata, e, "POST", "POST remove", &a_post);
}

/* A reserved region where nobody but it answers. */
TEST_F_TIMEOUT(fail_nth, policy, 300)
{
	const struct gpamap_policy ones = {
		.size = sizeof(ones), .region = NEW, .policy = GPAMAP_POLICY_ONES,
	}, none = {
		.size = sizeof(none), .region = NEW, .policy = GPAMAP_POLICY_NONE,
	};
	const struct tie tie = { GPAMAP_POLICY, &ones, &none };
	struct env *e = &self->e;

	test_cmd_apply(e->fd, op_reserved(NEW, PAGE - 1), op_add(NEW, ROOT, DEV_B, 0));
	sweep_tie(_metadata, e, "POLICY", "POLICY none", &tie);
}

/* Not swept as a change: QUERY and the guest see nothing of it. */
TEST_F_TIMEOUT(fail_nth, ring, 120)
{
	struct env *e = &self->e;
	struct gpamap_ring add = {
		.size = sizeof(add), .id = 1, .nr_entries = 1024, .watermark = 1,
		.fd = e->bells[0],
	}, remove = { .size = sizeof(remove), .id = 1, .flags = GPAMAP_RING_REMOVE };
	bool injected = true;
	u64 since = now_ms();
	u32 n, failed = 0;

	for (n = 1; injected && n < MAX_POINTS; n++) {
		int rc;

		ASSERT_TRUE(arm(n));
		rc = map_ioctl(e->fd, GPAMAP_RING, &add);
		injected = disarm();
		if (rc) {
			EXPECT_TRUE(injected);
			EXPECT_TRUE(rc == -ENOMEM || rc == -EFAULT) TH_LOG("%d", rc);
			failed++;
			EXPECT_EQ(-ENOENT, map_ioctl(e->fd, GPAMAP_RING, &remove));
			ASSERT_EQ(0, map_ioctl(e->fd, GPAMAP_RING, &add));
		}
		ASSERT_EQ(0, map_ioctl(e->fd, GPAMAP_RING, &remove));
	}
	count_points("RING", n - 2, failed, 0, since);
}

/* Not swept as a change: QUERY and the guest see nothing of it. */
TEST_F_TIMEOUT(fail_nth, watch, 120)
{
	struct gpamap_watch cmd = { .size = sizeof(cmd) };
	int refs = module_refcnt("gpamap"), fd, free_fd;
	struct env *e = &self->e;
	bool injected = true;
	u64 since = now_ms();
	u32 n, failed = 0;

	free_fd = dup(e->fd);
	ASSERT_LE(0, free_fd);
	close(free_fd);
	for (n = 1; injected && n < MAX_POINTS; n++) {
		ASSERT_TRUE(arm(n));
		fd = ioctl(e->fd, GPAMAP_WATCH, &cmd);
		if (fd < 0)
			fd = -errno;
		injected = disarm();
		if (fd < 0) {
			EXPECT_TRUE(injected);
			EXPECT_TRUE(fd == -ENOMEM || fd == -EFAULT) TH_LOG("%d", fd);
			failed++;
			fd = ioctl(e->fd, GPAMAP_WATCH, &cmd);
		}
		/* The same each time: none was taken in vain. */
		ASSERT_EQ(free_fd, fd);
		close(fd);
		EXPECT_EQ(refs, module_refcnt("gpamap"));
	}
	count_points("WATCH", n - 2, failed, 0, since);
}

/* What could not be told is still new. */
TEST_F_TIMEOUT(fail_nth, read_news, 120)
{
	struct gpamap_watch cmd = { .size = sizeof(cmd) };
	struct env *e = &self->e;
	bool injected = true;
	u64 since = now_ms();
	u32 n, failed = 0;
	int fd, rc;
	u64 news;

	fd = ioctl(e->fd, GPAMAP_WATCH, &cmd);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, fcntl(fd, F_SETFL, O_NONBLOCK));
	for (n = 1; injected && n < MAX_POINTS; n++) {
		test_cmd_apply(e->fd, op_add(IO, ROOT, C, 0));
		test_cmd_apply(e->fd, op_del(IO));
		news = 0;
		ASSERT_TRUE(arm(n));
		rc = read(fd, &news, sizeof(news)) == sizeof(news) ? 0 : -errno;
		injected = disarm();
		if (rc) {
			EXPECT_TRUE(injected);
			EXPECT_TRUE(rc == -ENOMEM || rc == -EFAULT) TH_LOG("%d", rc);
			failed++;
			ASSERT_EQ((ssize_t)sizeof(news), read(fd, &news, sizeof(news)));
		}
		EXPECT_EQ(query_info(e->fd).generation, news);
		EXPECT_EQ(-1, read(fd, &news, sizeof(news)));
		EXPECT_EQ(EAGAIN, errno);
	}
	close(fd);
	count_points("read", n - 2, failed, 0, since);
}

/* Not swept as a change: QUERY and the guest see nothing of it. */
TEST_F_TIMEOUT(fail_nth, mmap, 120)
{
	struct env *e = &self->e;
	const u32 region = DEV;
	bool injected = true;
	u64 since = now_ms();
	u32 n, failed = 0;

	for (n = 1; injected && n < MAX_POINTS; n++) {
		int rc;

		ASSERT_TRUE(arm(n));
		rc = run_mmap(e, &region);
		injected = disarm();
		if (rc) {
			EXPECT_TRUE(injected);
			EXPECT_TRUE(rc == -ENOMEM || rc == -EFAULT) TH_LOG("%d", rc);
			failed++;
			ASSERT_EQ(0, run_mmap(e, &region));
		}
		EXPECT_EQ(0, run_munmap(e, NULL));
	}
	count_points("mmap", n - 2, failed, 0, since);
}

/* -- open(), close() -------------------------------------------------------------- */

TEST_F_TIMEOUT(fail_nth, open, 120)
{
	int refs = module_refcnt("gpamap"), fd;
	bool injected = true;
	u64 since = now_ms();
	u32 n, failed = 0;

	for (n = 1; injected && n < MAX_POINTS; n++) {
		ASSERT_TRUE(arm(n));
		fd = map_open();
		injected = disarm();
		if (fd < 0) {
			EXPECT_TRUE(injected);
			EXPECT_TRUE(fd == -ENOMEM || fd == -EFAULT) TH_LOG("%d", fd);
			failed++;
			EXPECT_EQ(refs, module_refcnt("gpamap"));
			fd = map_open();
			ASSERT_LE(0, fd);
		}
		EXPECT_EQ(refs + 1, module_refcnt("gpamap"));
		test_cmd_apply(fd, op_container(ROOT, U64_MAX));
		close(fd);
		EXPECT_EQ(refs, module_refcnt("gpamap"));
	}
	count_points("open", n - 2, failed, 0, since);
}

/* Never fails, and takes all that is the map's from KVM's buses. */
TEST_F_TIMEOUT(fail_nth, close, 300)
{
	struct env *e = &self->e;
	bool injected = true;
	u64 since = now_ms();
	u32 n, i, nr;
	int rc;

	for (n = 1; injected && n < MAX_POINTS; n++) {
		struct gpamap_slot_info *slots;

		slots = query_all(e->fd, GPAMAP_QUERY_SLOTS, 0, &nr);
		ASSERT_NE(NULL, slots);
		ASSERT_TRUE(arm(n));
		rc = close(e->fd);
		injected = disarm();
		EXPECT_EQ(0, rc);
		EXPECT_EQ(0, scratch_find(NULL, NULL)) TH_LOG("point %u", n);
		EXPECT_EQ(refcnt_before, module_refcnt("gpamap")) TH_LOG("point %u", n);
		EXPECT_EQ((int)GUEST_MMIO, (int)guest_write(&e->guest, DEV_A, 4, 0).how);
		EXPECT_EQ(0u, rung(e));
		/* The slots are the VMM's now. */
		for (i = 0; i < nr; i++)
			ASSERT_EQ(0, guest_set_slot(&e->guest, slots[i].slot, 0,
						    slots[i].gpa, 0, e->mem));
		free(slots);
		ASSERT_EQ(0, map_create(e));
		EXPECT_EQ((int)GUEST_RAM,
			  (int)guest_write(&e->guest, DEV_A, 4, WRITTEN).how);
		EXPECT_EQ(1u, rung(e));
	}
	count_points("close", n - 2, 0, 0, since);
}

/* -- APPLY ------------------------------------------------------------------- */

static int run_batch(struct env *e, const void *arg)
{
	const struct batch *batch = arg;

	return _test_cmd_apply(e->fd, batch->ops, nr_ops(batch), NULL, NULL);
}

static int run_dry(struct env *e, const void *arg)
{
	const struct batch *batch = arg;
	struct gpamap_apply out;

	return _test_cmd_plan(e->fd, GPAMAP_APPLY_DRY_RUN, batch->ops, nr_ops(batch), &out);
}

struct change {
	const char *name;
	const char *back_name;
	struct batch there;
	struct batch back;
};

static void sweep_changes(struct __test_metadata *_metadata, struct env *e,
			  const struct change *changes, u32 nr)
{
	struct call there = { .run = run_batch, .undo = run_batch, .answers = true };
	struct call back = there;
	u32 i;

	for (i = 0; i < nr && _metadata->passed; i++) {
		there.name = changes[i].name;
		back.name = changes[i].back_name;
		there.arg = back.undo_arg = &changes[i].there;
		there.undo_arg = back.arg = &changes[i].back;
		sweep(_metadata, e, &there);
		if (!back.name || !_metadata->passed)
			continue;
		ASSERT_EQ(0, run_batch(e, there.arg));
		sweep(_metadata, e, &back);
		ASSERT_EQ(0, run_batch(e, back.arg));
	}
}

#define SWEEP_CHANGES(...)							\
	do {									\
		const struct change __c[] = { __VA_ARGS__ };			\
		sweep_changes(_metadata, &self->e, __c, ARRAY_SIZE(__c));	\
	} while (0)

#define set_flags(_id, _mask, _flags)						\
	((struct gpamap_op){ .code = GPAMAP_OP_SET, .id = _id, .mask = _mask, .flags = _flags })

TEST_F_TIMEOUT(fail_nth, apply_regions, 300)
{
	char *mem = self->e.mem;

	SWEEP_CHANGES(
		{ "APPLY region container", "APPLY destroy",
		  { { op_container(NEW, 0xfff) } }, { { op_destroy(NEW) } } },
		{ "APPLY region ram", NULL,
		  { { op_ram(NEW, 0xfff, mem) } }, { { op_destroy(NEW) } } },
		{ "APPLY region rom", NULL,
		  { { op_rom(NEW, 0xfff, mem) } }, { { op_destroy(NEW) } } },
		{ "APPLY region io", NULL,
		  { { op_name(op_io(NEW, 0xfff), "new") } }, { { op_destroy(NEW) } } },
		{ "APPLY region alias", "APPLY destroy alias",
		  { { op_alias(NEW, MEM, 0, 0xfff) } }, { { op_destroy(NEW) } } },
		{ "APPLY region romd", NULL,
		  { { op_romd(NEW, 0xfff, mem) } }, { { op_destroy(NEW) } } },
		{ "APPLY region reserved", NULL,
		  { { op_reserved(NEW, 0xfff) } }, { { op_destroy(NEW) } } },
		{ "APPLY add io", "APPLY del io",
		  { { op_add(IO, ROOT, C, 0) } }, { { op_del(IO) } } },
		{ "APPLY add ram", "APPLY del ram",
		  { { op_add(THIRD, ROOT, C, 0) } }, { { op_del(THIRD) } } });
}

TEST_F_TIMEOUT(fail_nth, apply_set, 300)
{
	/* Elsewhere they would only cost time: one operation on a slot takes 50 ms. */
	test_cmd_apply(self->e.fd, op_enable(WINDOW, true), op_enable(FLASH, true));
	SWEEP_CHANGES(
		{ "APPLY set disabled", "APPLY set enabled",
		  { { op_enable(MEM, false) } }, { { op_enable(MEM, true) } } },
		{ "APPLY set read-only", "APPLY set writable",
		  { { op_readonly(MEM, true) } }, { { op_readonly(MEM, false) } } },
		{ "APPLY set at", NULL,
		  { { op_at(MEM, A + 0x100000) } }, { { op_at(MEM, A) } } },
		{ "APPLY set prio", NULL,
		  { { op_prio(MEM, 7) } }, { { op_prio(MEM, 0) } } },
		{ "APPLY set offset", NULL,
		  { { op_offset(WINDOW, PAGE) } }, { { op_offset(WINDOW, 0) } } },
		{ "APPLY set non-volatile", NULL,
		  { { set_flags(MEM, GPAMAP_SET_NONVOLATILE, GPAMAP_REGION_NONVOLATILE) } },
		  { { set_flags(MEM, GPAMAP_SET_NONVOLATILE, 0) } } },
		{ "APPLY set unmergeable", NULL,
		  { { set_flags(MEM, GPAMAP_SET_UNMERGEABLE, GPAMAP_REGION_UNMERGEABLE) } },
		  { { set_flags(MEM, GPAMAP_SET_UNMERGEABLE, 0) } } },
		{ "APPLY set out of romd mode", "APPLY set romd mode",
		  { { op_romd_mode(FLASH, false) } }, { { op_romd_mode(FLASH, true) } } },
		{ "APPLY set last, shorter", "APPLY set last, longer",
		  { { op_last(MEM, 8 * PAGE - 1) } }, { { op_last(MEM, MEM_LEN - 1) } } },
		{ "APPLY set cut ahead", NULL,
		  { { op_cut_ahead(MEM, true) } }, { { op_cut_ahead(MEM, false) } } });
}

TEST_F_TIMEOUT(fail_nth, apply_spaces, 300)
{
	self->e.smm = true;
	SWEEP_CHANGES(
		{ "APPLY memory space of SMM", "APPLY destroy memory space of SMM",
		  { { op_memory_space(SMM, SMM_ROOT, 1) } }, { { op_space_destroy(SMM) } } },
		{ "APPLY view", "APPLY destroy view",
		  { { op_space(VIEW, GPAMAP_SPACE_VIEW, ROOT) } },
		  { { op_space_destroy(VIEW) } } },
		{ "APPLY destroy io space", "APPLY io space",
		  { { op_space_destroy(IO_SPACE) } },
		  { { op_space(IO_SPACE, GPAMAP_SPACE_IO, PORTS) } } },
		{ "APPLY destroy memory space", "APPLY memory space",
		  { { op_space_destroy(SPACE) } },
		  { { op_space(SPACE, GPAMAP_SPACE_MEMORY, ROOT) } } });
}

TEST_F_TIMEOUT(fail_nth, apply_slots, 600)
{
	SWEEP_CHANGES(
		{ "APPLY two creates", "APPLY two deletes",
		  { { op_add(THIRD, ROOT, C, 0), op_alias(NEW, MEM, 0, 4 * PAGE - 1),
		      op_add(NEW, ROOT, B + 0x100000, 0) } },
		  { { op_del(THIRD), op_del(NEW), op_destroy(NEW) } } },
		{ "APPLY a move over itself", NULL,
		  { { op_at(MEM, A + PAGE) } }, { { op_at(MEM, A) } } },
		{ "APPLY two moves", "APPLY two moves back",
		  { { op_at(MEM, B), op_at(OTHER, C) } },
		  { { op_at(MEM, A), op_at(OTHER, B) } } },
		{ "APPLY two change places", NULL,
		  { { op_at(MEM, B), op_at(OTHER, A) } },
		  { { op_at(MEM, A), op_at(OTHER, B) } } },
		{ "APPLY an overlay splits", "APPLY the overlay goes, what it split moves",
		  { { op_add(IO, ROOT, A + 4 * PAGE, 1) } },
		  { { op_del(IO), op_at(MEM, A + PAGE), op_at(MEM, A) } } },
		{ "APPLY delete, move and create", "APPLY create, move and delete",
		  { { op_at(MEM, A + 0x100000), op_enable(OTHER, false),
		      op_add(THIRD, ROOT, C, 0), op_add(IO, ROOT, C + 5 * PAGE, 1) } },
		  { { op_at(MEM, A), op_enable(OTHER, true), op_del(THIRD), op_del(IO) } } });
}

/* Calls for both address spaces are of one commit. */
TEST_F_TIMEOUT(fail_nth, apply_slots_of_two_address_spaces, 300)
{
	self->e.smm = true;
	test_cmd_apply(self->e.fd, op_memory_space(SMM, SMM_ROOT, 1));
	SWEEP_CHANGES(
		{ "APPLY delete, move and create, with SMM",
		  "APPLY create, move and delete, with SMM",
		  { { op_at(MEM, A + 0x100000), op_enable(OTHER, false),
		      op_add(THIRD, ROOT, C, 0) } },
		  { { op_at(MEM, A), op_enable(OTHER, true), op_del(THIRD) } } });
}

/* What KVM's buses are to ask for changes, alone and with slots. */
TEST_F_TIMEOUT(fail_nth, apply_buses, 300)
{
	SWEEP_CHANGES(
		{ "APPLY doorbells and registers move", NULL,
		  { { op_at(DEV, DEV_B) } }, { { op_at(DEV, DEV_A) } } },
		{ "APPLY doorbells and registers go", "APPLY doorbells and registers come",
		  { { op_enable(DEV, false) } }, { { op_enable(DEV, true) } } },
		{ "APPLY doorbells of ports move", NULL,
		  { { op_at(PDEV, PORT_B) } }, { { op_at(PDEV, PORT) } } },
		{ "APPLY pages in part memory", "APPLY no pages in part memory",
		  { { op_last(THIRD, 2 * PAGE + 0x7ff), op_add(THIRD, ROOT, C, 0) } },
		  { { op_del(THIRD), op_last(THIRD, MEM_LEN - 1) } } },
		{ "APPLY doorbells, ports and memory move", "APPLY all of it moves back",
		  { { op_at(DEV, DEV_B), op_at(PDEV, PORT_B), op_at(MEM, A + 0x100000),
		      op_add(THIRD, ROOT, C, 0) } },
		  { { op_at(DEV, DEV_A), op_at(PDEV, PORT), op_at(MEM, A), op_del(THIRD) } } });
}

/* One tie in a batch, and all of them. IO is where nobody else is. */
TEST_F_TIMEOUT(fail_nth, apply_ties, 900)
{
	struct env *e = &self->e;
	struct gpamap_ring ring = {
		.size = sizeof(ring), .id = 1, .nr_entries = 65536, .watermark = 1,
		.fd = e->bells[1],
	};

	ASSERT_EQ(0, map_ioctl(e->fd, GPAMAP_RING, &ring));
	test_cmd_apply(e->fd, op_add(IO, ROOT, DEV_B, 0));
	SWEEP_CHANGES(
		{ "APPLY doorbell", "APPLY doorbell remove",
		  { { tie_doorbell(e, 0, DEV, 16, 1) } },
		  { { tie_doorbell(e, GPAMAP_DOORBELL_REMOVE, DEV, 16, 1) } } },
		{ "APPLY doorbell with a value", NULL,
		  { { tie_doorbell(e, GPAMAP_DOORBELL_MATCH, DEV, 8, 0) } },
		  { { tie_doorbell(e, GPAMAP_DOORBELL_MATCH | GPAMAP_DOORBELL_REMOVE, DEV, 8,
				   0) } } },
		{ "APPLY first doorbell", "APPLY last doorbell remove",
		  { { tie_doorbell(e, 0, IO, 0, 1) } },
		  { { tie_doorbell(e, GPAMAP_DOORBELL_REMOVE, IO, 0, 1) } } },
		{ "APPLY registers", "APPLY registers remove",
		  { { tie_registers(IO) } },
		  { { tie_remove(GPAMAP_OP_REGISTERS, IO) } } },
		{ "APPLY handler", "APPLY handler remove",
		  { { tie_handler(IO) } }, { { tie_remove(GPAMAP_OP_HANDLER, IO) } } },
		{ "APPLY post", "APPLY post remove",
		  { { tie_post(IO, 1) } }, { { tie_remove(GPAMAP_OP_POST, IO) } } },
		{ "APPLY untie", "APPLY tie all that was untied",
		  { { tie_untie(DEV, TIE_ALL) } },
		  { { tie_doorbell(e, 0, DEV, 0, 0), tie_registers(DEV) } } },
		{ "APPLY four ties", "APPLY untie four",
		  { { tie_doorbell(e, 0, IO, 0, 1), tie_registers(IO), tie_handler(IO),
		      tie_policy(IO, GPAMAP_POLICY_TELL) } },
		  { { tie_untie(IO, TIE_ALL) } } });
}

TEST_F_TIMEOUT(fail_nth, apply_policy, 300)
{
	struct env *e = &self->e;

	test_cmd_apply(e->fd, op_reserved(NEW, PAGE - 1), op_add(NEW, ROOT, DEV_B, 0));
	SWEEP_CHANGES({ "APPLY policy", "APPLY policy none",
			{ { tie_policy(NEW, GPAMAP_POLICY_ONES) } },
			{ { tie_policy(NEW, GPAMAP_POLICY_NONE) } } });
}

/* Regions come and go with what is tied to them, and memory with them. */
TEST_F_TIMEOUT(fail_nth, apply_regions_with_ties, 600)
{
	struct env *e = &self->e;

	SWEEP_CHANGES(
		{ "APPLY a region with ties", "APPLY the region with its ties goes",
		  { { op_io(NEW, PAGE - 1), op_add(NEW, ROOT, DEV_B, 0),
		      tie_doorbell(e, 0, NEW, 0, 1), tie_registers(NEW), tie_handler(NEW),
		      tie_policy(NEW, GPAMAP_POLICY_TELL) } },
		  { { tie_untie(NEW, TIE_ALL), op_del(NEW), op_destroy(NEW) } } },
		{ "APPLY ties, moves and memory", "APPLY ties, moves and memory back",
		  { { tie_untie(DEV, TIE_ALL), op_at(DEV, DEV_B), tie_handler(DEV),
		      op_at(MEM, A + 0x100000), op_add(THIRD, ROOT, C, 0),
		      op_at(PDEV, PORT_B) } },
		  { { tie_untie(DEV, TIE_ALL), op_at(DEV, DEV_A),
		      tie_doorbell(e, 0, DEV, 0, 0), tie_registers(DEV), op_at(MEM, A),
		      op_del(THIRD), op_at(PDEV, PORT) } } });
}

TEST_F_TIMEOUT(fail_nth, apply_dry_run, 120)
{
	const struct batch batch = { {
		op_at(DEV, DEV_B), op_at(MEM, A + 0x100000), op_enable(OTHER, false),
		op_add(THIRD, ROOT, C, 0), op_add(IO, ROOT, C + 5 * PAGE, 1) } };
	const struct batch ties = { {
		tie_untie(DEV, TIE_ALL), tie_handler(DEV), tie_registers(IO),
		tie_doorbell(&self->e, 0, IO, 0, 1), op_add(IO, ROOT, DEV_B, 0),
		tie_policy(IO, GPAMAP_POLICY_TELL) } };
	const struct call call = { .name = "APPLY dry run", .run = run_dry, .arg = &batch };
	const struct call tie = { .name = "APPLY dry run of ties", .run = run_dry,
				  .arg = &ties };

	sweep(_metadata, &self->e, &call);
	sweep(_metadata, &self->e, &tie);
}

#define MANY 60

static int run_many(struct env *e, const void *arg)
{
	struct gpamap_op ops[2 * MANY];
	u32 i;

	(void)arg;
	for (i = 0; i < MANY; i++) {
		ops[2 * i] = op_io(NEW + i, PAGE - 1);
		ops[2 * i + 1] = op_add(NEW + i, ROOT, 0x80000000 + 2 * i * PAGE, 0);
	}
	return _test_cmd_apply(e->fd, ops, ARRAY_SIZE(ops), NULL, NULL);
}

static int undo_many(struct env *e, const void *arg)
{
	struct gpamap_op ops[2 * MANY];
	u32 i;

	(void)arg;
	for (i = 0; i < MANY; i++) {
		ops[2 * i] = op_del(NEW + i);
		ops[2 * i + 1] = op_destroy(NEW + i);
	}
	return _test_cmd_apply(e->fd, ops, ARRAY_SIZE(ops), NULL, NULL);
}

/* More ranges than one chunk of a view has. */
TEST_F_TIMEOUT(fail_nth, apply_many, 600)
{
	const struct call there = { .name = "APPLY 60 regions", .run = run_many,
				    .undo = undo_many, .answers = true };
	const struct call back = { .name = "APPLY 60 regions go", .run = undo_many,
				   .undo = run_many, .answers = true };

	sweep(_metadata, &self->e, &there);
	ASSERT_EQ(0, run_many(&self->e, NULL));
	sweep(_metadata, &self->e, &back);
}

/* Ids are short: what is split has to be joined again. */
TEST_F_TIMEOUT(fail_nth, apply_joins, 120)
{
	struct env *e = &self->e;
	u32 used;

	test_cmd_apply(e->fd, op_add(IO, ROOT, A + 4 * PAGE, 1));
	test_cmd_apply(e->fd, op_del(IO));
	used = query_info(e->fd).used_slots;
	test_cmd_detach(e->fd);
	test_cmd_attach(e->fd, e->guest.vm, 0, used);
	test_cmd_apply(e->fd, op_add(IO, ROOT, A + 4 * PAGE, 1));
	test_cmd_apply(e->fd, op_del(IO));
	ASSERT_EQ(used, query_info(e->fd).used_slots);
	SWEEP_CHANGES({ "APPLY joins what was split", NULL,
			{ { op_add(THIRD, ROOT, C, 0) } },
			{ { op_del(THIRD), op_add(IO, ROOT, A + 4 * PAGE, 1), op_del(IO) } } });
}

/* -- APPLY that fails, and is rolled back ------------------------------------ */

static const struct batch *failing_batch(void)
{
	static struct batch batch;

	batch = (struct batch){ {
		op_at(DEV, DEV_B), op_at(MEM, A + 0x100000), op_enable(OTHER, false),
		op_add(THIRD, ROOT, C, 0), op_add(IO, ROOT, C + 5 * PAGE, 1) } };
	return &batch;
}

/* A slot of the VMM's is where the last is to be: all before it is undone, and blamed. */
TEST_F_TIMEOUT(fail_nth, apply_rolled_back, 300)
{
	const struct call call = { .name = "APPLY rolled back: EEXIST", .run = run_batch,
				   .arg = failing_batch(), .wanted = -EEXIST };
	struct env *e = &self->e;
	u64 rollbacks;

	ASSERT_EQ(0, guest_set_slot(&e->guest, FOREIGN + 1, 0, C + 8 * PAGE, 1, e->mem));
	rollbacks = query_stats(e->fd).rollbacks;
	sweep(_metadata, e, &call);
	EXPECT_LT(rollbacks + 20, query_stats(e->fd).rollbacks);
}

/* The same, with what is tied and untied before: memory comes last. */
TEST_F_TIMEOUT(fail_nth, apply_ties_rolled_back, 300)
{
	struct env *e = &self->e;
	const struct batch batch = { {
		tie_untie(DEV, TIE_ALL), tie_handler(DEV), op_add(IO, ROOT, DEV_B, 0),
		tie_doorbell(e, 0, IO, 0, 1), tie_registers(IO),
		tie_policy(IO, GPAMAP_POLICY_TELL), op_add(THIRD, ROOT, C, 0) } };
	const struct call call = { .name = "APPLY of ties rolled back: EEXIST",
				   .run = run_batch, .arg = &batch, .wanted = -EEXIST };

	ASSERT_EQ(0, guest_set_slot(&e->guest, FOREIGN + 1, 0, C + 8 * PAGE, 1, e->mem));
	sweep(_metadata, e, &call);
}

/* No ids are left: found before KVM is called; the batch is tried piece by piece. */
TEST_F_TIMEOUT(fail_nth, apply_blamed, 300)
{
	const struct call call = { .name = "APPLY blamed: ENOSPC", .run = run_batch,
				   .arg = failing_batch(), .wanted = -ENOSPC };
	struct env *e = &self->e;
	u32 used = query_info(e->fd).used_slots;

	test_cmd_detach(e->fd);
	test_cmd_attach(e->fd, e->guest.vm, 0, used);
	sweep(_metadata, e, &call);
}

/* KVM refuses moves, of which it is not asked again, and memory when it is asked for less. */
static int refuse_moves(struct env *e)
{
	int rc;

	rc = module_param_set("fail_nth", 0);
	rc = rc ?: _test_cmd_detach(e->fd);
	rc = rc ?: _test_cmd_attach(e->fd, e->guest.vm, 0, IDS);
	rc = rc ?: module_param_set("fail_errno", EINVAL);
	return rc ?: module_param_set("fail_nth", 1);
}

static int run_batch_unrefused(struct env *e, const void *arg)
{
	int rc = module_param_set("fail_nth", 0);

	return rc ?: run_batch(e, arg);
}

TEST_F_TIMEOUT(fail_nth, apply_without_moves, 300)
{
	const struct batch there = { { op_at(MEM, A + 0x100000), op_at(OTHER, C) } };
	const struct batch back = { { op_at(MEM, A), op_at(OTHER, B) } };
	const struct call call = { .name = "APPLY without moves", .run = run_batch,
				   .arg = &there, .undo = run_batch_unrefused,
				   .undo_arg = &back, .prepare = refuse_moves,
				   .answers = true };

	sweep(_metadata, &self->e, &call);
	ASSERT_EQ(0, module_param_set("fail_nth", 0));
	ASSERT_EQ(0, module_param_set("fail_errno", ENOMEM));
}

/* -- ATTACH, DETACH ----------------------------------------------------------- */

static int run_attach(struct env *e, const void *arg)
{
	(void)arg;
	return _test_cmd_attach(e->fd, e->guest.vm, 0, IDS);
}

static int run_detach(struct env *e, const void *arg)
{
	(void)arg;
	return _test_cmd_detach(e->fd);
}

TEST_F_TIMEOUT(fail_nth, attach_and_detach, 300)
{
	const struct call attach = { .name = "ATTACH", .run = run_attach,
				     .undo = run_detach };
	const struct call detach = { .name = "DETACH", .run = run_detach,
				     .undo = run_attach };

	self->e.smm = true;
	test_cmd_apply(self->e.fd, op_memory_space(SMM, SMM_ROOT, 1));
	sweep(_metadata, &self->e, &detach);
	test_cmd_detach(self->e.fd);
	sweep(_metadata, &self->e, &attach);
	EXPECT_EQ(0, scratch_find(NULL, NULL));
}

/* -- beside vCPUs that run --------------------------------------------------------- */

FIXTURE(running) {
	struct vm vm;
	struct vcpu vcpus[2];
};

FIXTURE_SETUP(running)
{
	u32 i;

	ASSERT_EQ(NULL, open_faults());
	ASSERT_EQ(0, vm_create(&self->vm, false));
	vcpu_first(&self->vcpus[0], &self->vm.guest);
	ASSERT_EQ(0, vcpu_add(&self->vcpus[1], &self->vm.guest, 1));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, vcpu_count(&self->vcpus[i]));
}

FIXTURE_TEARDOWN(running)
{
	u32 i;

	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, vcpu_stop(&self->vcpus[i]))
			TH_LOG("%s", vcpu_text(&self->vcpus[i]));
	}
	vcpu_destroy(&self->vcpus[1]);
	vm_destroy(&self->vm);
	EXPECT_NOTHING_LEFT();
}

#define EXPECT_VCPUS_RUN()							\
	do {									\
		u32 __i;							\
		for (__i = 0; __i < 2; __i++)					\
			ASSERT_TRUE(vcpu_moves_on(&self->vcpus[__i]))		\
				TH_LOG("%s", vcpu_text(&self->vcpus[__i]));	\
	} while (0)

/* The commit takes what they run in, and they notice nothing. */
TEST_F_TIMEOUT(running, commit, 300)
{
	struct gpamap_slot_info *before, *after;
	u32 n, failed = 0, nr_before, nr_after;
	struct vm *vm = &self->vm;
	bool injected = true;
	u64 since = now_ms();
	u64 commits;
	int rc;

	for (n = 1; injected && n < MAX_POINTS && _metadata->passed; n++) {
		struct snapshot *snap = snapshot_take(vm->fd);

		ASSERT_NE(NULL, snap);
		before = query_all(vm->fd, GPAMAP_QUERY_SLOTS, 0, &nr_before);
		commits = query_stats(vm->fd).commits;
		EXPECT_VCPUS_RUN();
		ASSERT_TRUE(arm(n));
		rc = vm_swap(vm);
		injected = disarm();
		EXPECT_VCPUS_RUN();
		after = query_all(vm->fd, GPAMAP_QUERY_SLOTS, 0, &nr_after);
		ASSERT_EQ(nr_before, nr_after);
		if (rc) {
			EXPECT_TRUE(injected);
			EXPECT_TRUE(rc == -ENOMEM || rc == -EFAULT) TH_LOG("%d", rc);
			failed++;
			if (query_stats(vm->fd).commits == commits) {
				EXPECT_UNCHANGED(vm->fd, snap);
				ASSERT_EQ(0, vm_swap(vm));
			} else {
				/* It could not be answered any more. */
				EXPECT_EQ(-EFAULT, rc);
				EXPECT_NE(before[0].hva, after[0].hva);
				vm->swapped = !vm->swapped;
			}
			EXPECT_VCPUS_RUN();
		} else {
			EXPECT_NE(before[0].hva, after[0].hva);
		}
		if (!_metadata->passed)
			TH_LOG("point %u", n);
		free(before);
		free(after);
		snapshot_free(snap);
	}
	EXPECT_EQ(0u, query_info(vm->fd).state & GPAMAP_STATE_BROKEN);
	count_points("APPLY under running vCPUs", n - 2, failed, 0, since);
}

/* -- all of it ------------------------------------------------------------------- */

FIXTURE(end) {
	u32 points;
};

FIXTURE_SETUP(end)
{
	self->points = totals->points;
}

FIXTURE_TEARDOWN(end)
{
}

/* With a fixture, or it would come first. */
TEST_F(end, total)
{
	printf("# %u calls, %u points, %u of them failed the call\n", totals->calls,
	       self->points, totals->failed);
	EXPECT_LT(60u, totals->calls);
	EXPECT_LT(totals->calls, totals->failed);
}

TEST_HARNESS_MAIN

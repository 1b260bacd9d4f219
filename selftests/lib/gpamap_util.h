/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The centre of what the kselftests share: the ioctls of /dev/gpamap, operations
 * of a batch, and comparisons of a map's state.
 *
 * Each command has a trio. _test_cmd_x() returns 0 or -errno; test_cmd_x()
 * asserts that it works; test_err_x(errno, ...) expects that it fails so, and
 * that the state of the map (all that QUERY tells: regions, spaces, ranges, slots,
 * info with the generation) is afterwards what it was before.
 *
 * The macros need a `_metadata`, as everything of the harness does.
 */
#ifndef GPAMAP_UTIL_H
#define GPAMAP_UTIL_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/gpamap.h>

#define GPAMAP_DEVICE "/dev/gpamap"
#define TEST_PAGE 4096UL

typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

#define U64_MAX UINT64_MAX

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#endif

/* A map; -errno. */
int map_open(void);

/* ioctl(), with 0 or -errno. */
int map_ioctl(int fd, unsigned long cmd, void *arg);

int _test_cmd_attach(int fd, int vm_fd, u32 first_slot, u32 nr_slots);
int _test_cmd_detach(int fd);
/* @failed_op, @generation: may be NULL. */
int _test_cmd_apply(int fd, const struct gpamap_op *ops, u32 nr_ops, u32 *failed_op,
		    u64 *generation);
/* The same, with @flags (enum gpamap_apply_flags), and with all that comes back. */
int _test_cmd_plan(int fd, u32 flags, const struct gpamap_op *ops, u32 nr_ops,
		   struct gpamap_apply *out);
/* The same, each with all the time that it may take; 0 for the module's default. */
int _test_cmd_attach_timed(int fd, int vm_fd, u32 first_slot, u32 nr_slots, u32 timeout_ms);
int _test_cmd_detach_timed(int fd, u32 timeout_ms);
int _test_cmd_apply_timed(int fd, const struct gpamap_op *ops, u32 nr_ops, u32 timeout_ms,
			  struct gpamap_apply *out);
/* @count: room in, number out. */
int _test_cmd_query(int fd, u32 what, u32 space, void *records, u32 record_size,
		    u32 *count);

/* What is at @addr; 0 or -errno. */
int _test_cmd_lookup(int fd, u32 space, u64 addr, struct gpamap_lookup *out);

/* A new file that tells of the map's generations; -errno. */
int map_watch(int fd);
/* What poll() says of a file at once; -errno. */
int polled(int fd);
/* Acknowledges the news of a map's file or a watcher's: the generation, or 0 with errno set. */
u64 news_take(int fd);

/* All records, in an array to be freed; NULL with errno set. */
void *query_all(int fd, u32 what, u32 space, u32 *count);
u32 record_size_of(u32 what);
/* The records INFO and STATS; all zero if they cannot be had. */
struct gpamap_info query_info(int fd);
struct gpamap_stats query_stats(int fd);

/* Operations. All but the named members are zero. */
struct gpamap_op op_container(u32 id, u64 last);
struct gpamap_op op_ram(u32 id, u64 last, const void *hva);
struct gpamap_op op_rom(u32 id, u64 last, const void *hva);
struct gpamap_op op_io(u32 id, u64 last);
struct gpamap_op op_romd(u32 id, u64 last, const void *hva);
struct gpamap_op op_reserved(u32 id, u64 last);
struct gpamap_op op_alias(u32 id, u32 target, u64 offset, u64 last);
struct gpamap_op op_flags(struct gpamap_op op, u32 flags);
struct gpamap_op op_name(struct gpamap_op op, const char *name);
struct gpamap_op op_add(u32 id, u32 container, u64 at, s32 prio);
struct gpamap_op op_del(u32 id);
struct gpamap_op op_destroy(u32 id);
struct gpamap_op op_enable(u32 id, bool enabled);
struct gpamap_op op_readonly(u32 id, bool readonly);
struct gpamap_op op_at(u32 id, u64 at);
struct gpamap_op op_prio(u32 id, s32 prio);
struct gpamap_op op_offset(u32 id, u64 offset);
struct gpamap_op op_last(u32 id, u64 last);
struct gpamap_op op_romd_mode(u32 id, bool on);
struct gpamap_op op_cut_ahead(u32 id, bool on);
struct gpamap_op op_space(u32 id, u32 kind, u32 root);
struct gpamap_op op_memory_space(u32 id, u32 root, u32 as_id);
struct gpamap_op op_space_destroy(u32 id);
/* What is tied: with op_flags(op_doorbell(), GPAMAP_DOORBELL_REMOVE) a doorbell goes. */
struct gpamap_op op_doorbell(u32 id, u64 offset, u32 len, int fd);
struct gpamap_op op_doorbell_match(u32 id, u64 offset, u32 len, u64 value, int fd);
struct gpamap_op op_registers(u32 id, const struct gpamap_register *registers, u32 nr);
struct gpamap_op op_registers_remove(u32 id);
struct gpamap_op op_handler(u32 id, const char *name, u64 arg);
struct gpamap_op op_handler_remove(u32 id);
struct gpamap_op op_post(u32 id, u32 ring);
struct gpamap_op op_post_remove(u32 id);
struct gpamap_op op_policy(u32 id, u32 policy);
/* @mask: enum gpamap_tie_mask. */
struct gpamap_op op_untie(u32 id, u32 mask);
#define TIE_ALL	(GPAMAP_TIE_DOORBELLS | GPAMAP_TIE_REGISTERS | GPAMAP_TIE_HANDLER |	\
		 GPAMAP_TIE_RING | GPAMAP_TIE_POLICY)

/* The same by the commands of their own. 0 or -errno. */
int doorbell_add(int fd, u32 region, u64 offset, u32 len, int bell);
int registers_set(int fd, u32 region, const struct gpamap_register *registers, u32 nr);
int handler_set(int fd, u32 region, const char *name, u64 arg);
int ring_add(int fd, u32 ring, u32 nr_entries, int bell);
int post_add(int fd, u32 region, u32 ring);
int policy_set(int fd, u32 region, u32 policy);

/* All that QUERY tells of a map. NULL with errno set if it cannot be had. */
struct snapshot;
struct snapshot *snapshot_take(int fd);
void snapshot_free(struct snapshot *snap);
/* NULL if equal, else a text that says where they first differ. */
const char *snapshot_diff(const struct snapshot *a, const struct snapshot *b);
/* The same for regions, spaces and ranges alone. */
const char *snapshot_diff_views(const struct snapshot *a, const struct snapshot *b);

/* What a test expects of a view. */
struct want_range {
	u64 start;
	u64 last;
	u32 region;
	u64 offset;
	u32 flags;
};

/* What a test expects of the slots; hva as a pointer. */
struct want_slot {
	u64 gpa;
	u64 npages;
	const void *hva;
	u32 slot;
	u32 flags;
};

/* NULL if the view of @space, or the list of slots, is that; else what differs. */
const char *view_diff(int fd, u32 space, const struct want_range *want, u32 nr);
const char *slots_diff(int fd, const struct want_slot *want, u32 nr);

/* An environment variable as a number. */
u64 env_number(const char *name, u64 otherwise);

/* A small pseudo-random generator, so that a seed means the same everywhere. */
struct rnd {
	u64 state;
};

void rnd_seed(struct rnd *rnd, u64 seed);
u64 rnd_next(struct rnd *rnd);
static inline u32 rnd_below(struct rnd *rnd, u32 n)
{
	return rnd_next(rnd) % n;
}

/* The seed of this run: the variable SEED, or one from the clock. */
u64 test_seed(void);

/* Wall-clock milliseconds. */
u64 now_ms(void);
/* How much slower than an everyday kernel this one is: PATIENCE of the environment, or 1. */
u32 test_patience(void);

/* Passes a descriptor over a Unix socket. 0, or the descriptor, or -errno. */
int fd_send(int sock, int fd);
int fd_receive(int sock);

/*
 * The argument page of the module in this process: the number of its mappings,
 * and where the first is. scratch_unmap() removes them all and returns how many.
 */
int scratch_find(unsigned long *start, unsigned long *end);
int scratch_unmap(void);

/* A parameter of the module. 0 or -errno; the number or -errno. */
int module_param_set(const char *name, u64 value);
s64 module_param_get(const char *name);

/* The references on a module, and the VMs that KVM has; or -errno. */
int module_refcnt(const char *module);
int kvm_vms(void);
/* Whether KVM's module was loaded to use nested paging. */
bool kvm_nested_paging(void);

/* -- macros for tests ------------------------------------------------------ */

#define EXPECT_NULL_WHY(_diff)							\
	do {									\
		const char *__why = (_diff);					\
		EXPECT_EQ(0, __why ? 1 : 0)					\
			TH_LOG("%s", __why);					\
	} while (0)

#define EXPECT_UNCHANGED(_fd, _before)						\
	do {									\
		struct snapshot *__after = snapshot_take(_fd);			\
		ASSERT_NE(NULL, __after);					\
		EXPECT_NULL_WHY(snapshot_diff(_before, __after));		\
		snapshot_free(__after);						\
	} while (0)

/* Expects of @_call, which returns 0 or -errno, that it fails and does nothing. */
#define EXPECT_ERR_UNCHANGED(_errno, _fd, _call)				\
	do {									\
		struct snapshot *__before = snapshot_take(_fd);			\
		ASSERT_NE(NULL, __before);					\
		EXPECT_EQ(-(_errno), _call);					\
		EXPECT_UNCHANGED(_fd, __before);				\
		snapshot_free(__before);					\
	} while (0)

#define test_cmd_attach(_fd, _vm, _first, _nr)					\
	ASSERT_EQ(0, _test_cmd_attach(_fd, _vm, _first, _nr))
#define test_err_attach(_errno, _fd, _vm, _first, _nr)				\
	EXPECT_ERR_UNCHANGED(_errno, _fd, _test_cmd_attach(_fd, _vm, _first, _nr))

#define test_cmd_detach(_fd) ASSERT_EQ(0, _test_cmd_detach(_fd))
#define test_err_detach(_errno, _fd)						\
	EXPECT_ERR_UNCHANGED(_errno, _fd, _test_cmd_detach(_fd))

/* test_cmd_apply(fd, op...) and, with an array, test_cmd_apply_ops(). */
#define test_cmd_apply_ops(_fd, _ops, _nr)					\
	do {									\
		u32 __failed;							\
		ASSERT_EQ(0, _test_cmd_apply(_fd, _ops, _nr, &__failed, NULL))	\
			TH_LOG("operation %d", (int)__failed);			\
	} while (0)
#define test_cmd_apply(_fd, ...)						\
	do {									\
		const struct gpamap_op __ops[] = { __VA_ARGS__ };		\
		test_cmd_apply_ops(_fd, __ops, ARRAY_SIZE(__ops));		\
	} while (0)

/* test_cmd_plan(fd, flags, &out, op...) */
#define test_cmd_plan(_fd, _flags, _out, ...)					\
	do {									\
		const struct gpamap_op __ops[] = { __VA_ARGS__ };		\
		ASSERT_EQ(0, _test_cmd_plan(_fd, _flags, __ops,			\
					    ARRAY_SIZE(__ops), _out))		\
			TH_LOG("operation %d", (int)(_out)->out_failed_op);	\
	} while (0)

/* @_index: what out_failed_op is to be. */
#define test_err_apply_ops(_errno, _index, _fd, _ops, _nr)			\
	do {									\
		u32 __failed = 0x5eed;						\
		EXPECT_ERR_UNCHANGED(_errno, _fd,				\
			_test_cmd_apply(_fd, _ops, _nr, &__failed, NULL));	\
		EXPECT_EQ((u32)(_index), __failed);				\
	} while (0)
#define test_err_apply(_errno, _index, _fd, ...)				\
	do {									\
		const struct gpamap_op __ops[] = { __VA_ARGS__ };		\
		test_err_apply_ops(_errno, _index, _fd, __ops,			\
				   ARRAY_SIZE(__ops));				\
	} while (0)

#define test_cmd_query(_fd, _what, _space, _records, _size, _count)		\
	ASSERT_EQ(0, _test_cmd_query(_fd, _what, _space, _records, _size, _count))
#define test_err_query(_errno, _fd, _what, _space, _records, _size, _count)	\
	EXPECT_ERR_UNCHANGED(_errno, _fd,					\
		_test_cmd_query(_fd, _what, _space, _records, _size, _count))

/* EXPECT_VIEW(fd, space, {start, last, region, offset, flags}...); may be none. */
#define EXPECT_VIEW(_fd, _space, ...)						\
	do {									\
		const struct want_range __want[] = { __VA_ARGS__ };		\
		EXPECT_NULL_WHY(view_diff(_fd, _space, __want,			\
			sizeof(__want) / sizeof(struct want_range)));		\
	} while (0)

/* EXPECT_SLOTS(fd, {gpa, npages, hva, slot, flags}...); may be none. */
#define EXPECT_SLOTS(_fd, ...)							\
	do {									\
		const struct want_slot __want[] = { __VA_ARGS__ };		\
		EXPECT_NULL_WHY(slots_diff(_fd, __want,				\
			sizeof(__want) / sizeof(struct want_slot)));		\
	} while (0)

/* It ends, and well. */
#define ASSERT_CHILD_OK(_pid)							\
	do {									\
		int __status;							\
		ASSERT_EQ(_pid, waitpid(_pid, &__status, 0));			\
		EXPECT_EQ(0, __status)						\
			TH_LOG("child: exit %d, signal %d",			\
			       WEXITSTATUS(__status), WTERMSIG(__status));	\
	} while (0)

/* Until @_cond holds; one that never does is ended by the harness. */
#define wait_until(_cond)							\
	do {									\
		while (!(_cond))						\
			usleep(200);						\
	} while (0)

#endif /* GPAMAP_UTIL_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel services that the pure core uses (see kmod/core.h), for userspace:
 * the same names and meanings, as much of each as the core needs. Allocations can
 * be made to fail, so that the host tests reach every error path.
 */
#ifndef GPAMAP_HOST_H
#define GPAMAP_HOST_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/types.h>

typedef __u8 u8;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;

#define U64_MAX (~0ULL)
#define __must_check __attribute__((warn_unused_result))
#define __rcu
#define rcu_access_pointer(p) (p)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define array_index_nospec(i, n) (i)
#define struct_size(p, member, n) (sizeof(*(p)) + sizeof((p)->member[0]) * (n))
#define check_add_overflow(a, b, sum) __builtin_add_overflow(a, b, sum)
#define min(a, b) \
	({ __typeof__(a) _min_a = (a); __typeof__(b) _min_b = (b); \
	   _min_a < _min_b ? _min_a : _min_b; })
#define max(a, b) \
	({ __typeof__(a) _max_a = (a); __typeof__(b) _max_b = (b); \
	   _max_a > _max_b ? _max_a : _max_b; })
#define swap(a, b) do { __typeof__(a) _tmp = (a); (a) = (b); (b) = _tmp; } while (0)

/* What a WARN is in the kernel is the end here. */
#define WARN_ON_ONCE(cond) ({ if (cond) abort(); false; })

/* Nobody waits for this thread, and a killed one is gone. */
#define cond_resched() do { } while (0)
#define fatal_signal_pending(task) false
#define WRITE_ONCE(x, value) ((x) = (value))

#define MAX_ERRNO 4095
#define ERR_PTR(err) ((void *)(long)(err))
#define PTR_ERR(ptr) ((long)(ptr))
#define IS_ERR(ptr) ((unsigned long)(ptr) >= (unsigned long)-MAX_ERRNO)

/*
 * Memory. When host_fail_alloc is above 0 it counts down with every allocation,
 * and the one that makes it 0 fails.
 */
extern long host_fail_alloc;
void *host_alloc(size_t n, size_t len);

#define GFP_KERNEL_ACCOUNT 0
#define __GFP_NOWARN 0
#define kzalloc(len, gfp) host_alloc(1, len)
#define kmalloc(len, gfp) host_alloc(1, len)
#define kvzalloc(len, gfp) host_alloc(1, len)
#define kvmalloc(len, gfp) host_alloc(1, len)
#define kvcalloc(n, len, gfp) host_alloc(n, len)
#define kfree(p) free(p)
#define kvfree(p) free(p)
/* There are no readers beside this thread. */
#define kfree_rcu(p, member) free(p)
#define kvfree_rcu(p, member) free(p)
struct rcu_head {
	void *unused[2];
};

#define sort(base, n, len, cmp, swp) qsort(base, n, len, cmp)
void *memchr_inv(const void *p, int c, size_t len);

/* Doubly linked lists with a head. */
struct list_head {
	struct list_head *next, *prev;
};

#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))
#define list_entry(p, type, member) container_of(p, type, member)
#define list_for_each_entry(pos, head, member) \
	for (pos = list_entry((head)->next, __typeof__(*pos), member); \
	     &pos->member != (head); \
	     pos = list_entry(pos->member.next, __typeof__(*pos), member))

static inline void INIT_LIST_HEAD(struct list_head *head)
{
	head->next = head;
	head->prev = head;
}

static inline bool list_empty(const struct list_head *head)
{
	return head->next == head;
}

static inline void list_add(struct list_head *item, struct list_head *prev)
{
	item->prev = prev;
	item->next = prev->next;
	prev->next->prev = item;
	prev->next = item;
}

static inline void list_del_init(struct list_head *item)
{
	item->prev->next = item->next;
	item->next->prev = item->prev;
	INIT_LIST_HEAD(item);
}

#define list_del(item) list_del_init(item)

/* The interval tree, interval_tree.c. */
struct interval_tree_node {
	u64 start;
	u64 last;
	u64 subtree_last;
	struct interval_tree_node *parent, *left, *right;
	u32 weight;
};

struct rb_root_cached {
	struct interval_tree_node *node;
};

#define RB_ROOT_CACHED (struct rb_root_cached){ NULL }
void interval_tree_insert(struct interval_tree_node *node, struct rb_root_cached *root);
void interval_tree_remove(struct interval_tree_node *node, struct rb_root_cached *root);
struct interval_tree_node *interval_tree_iter_first(struct rb_root_cached *root,
						    u64 start, u64 last);
struct interval_tree_node *interval_tree_iter_next(struct interval_tree_node *node,
						   u64 start, u64 last);

/* The part of the xarray that maps ids to objects: here an array sorted by id. */
struct xa_entry {
	unsigned long id;
	void *obj;
};

struct xarray {
	struct xa_entry *entries;
	size_t nr;
	size_t max;
};

#define XA_FLAGS_ACCOUNT 0
#define xa_is_err(entry) IS_ERR(entry)
#define xa_err(entry) (int)PTR_ERR(entry)
void xa_init_flags(struct xarray *xa, int flags);
void xa_destroy(struct xarray *xa);
void *xa_load(struct xarray *xa, unsigned long id);
void *xa_store(struct xarray *xa, unsigned long id, void *obj, int gfp);
void *xa_erase(struct xarray *xa, unsigned long id);
void *xa_find_from(struct xarray *xa, unsigned long *id);

/* Entries may be erased on the way, as in the kernel. */
#define xa_for_each(xa, id, obj) \
	for (id = 0, obj = xa_find_from(xa, &id); obj; id++, obj = xa_find_from(xa, &id))

#endif /* GPAMAP_HOST_H */

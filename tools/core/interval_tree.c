// SPDX-License-Identifier: GPL-2.0
/*
 * The kernel's interval tree for userspace: the same calls, another tree behind them.
 * A treap ordered by start, whose nodes carry a random weight that keeps it balanced
 * (no child weighs more than its parent), and the largest last of their subtree.
 */
#include "host.h"

typedef struct interval_tree_node node_t;

static u32 next_weight(void)
{
	static u32 x = 2463534242U;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return x;
}

static void update(node_t *node)
{
	u64 last = node->last;

	if (node->left && node->left->subtree_last > last)
		last = node->left->subtree_last;
	if (node->right && node->right->subtree_last > last)
		last = node->right->subtree_last;
	node->subtree_last = last;
}

/* Puts @node, or nothing, where @old is. */
static void replace(struct rb_root_cached *root, node_t *old, node_t *node)
{
	node_t *parent = old->parent;

	if (!parent)
		root->node = node;
	else if (parent->left == old)
		parent->left = node;
	else
		parent->right = node;
	if (node)
		node->parent = parent;
}

/* @node, a child, changes places with its parent. */
static void rotate(struct rb_root_cached *root, node_t *node)
{
	node_t *parent = node->parent;
	node_t *middle;

	replace(root, parent, node);
	if (parent->left == node) {
		middle = node->right;
		node->right = parent;
		parent->left = middle;
	} else {
		middle = node->left;
		node->left = parent;
		parent->right = middle;
	}
	parent->parent = node;
	if (middle)
		middle->parent = parent;
	update(parent);
	update(node);
}

void interval_tree_insert(node_t *node, struct rb_root_cached *root)
{
	node_t *parent = NULL, **link = &root->node;

	while (*link) {
		parent = *link;
		if (parent->subtree_last < node->last)
			parent->subtree_last = node->last;
		link = node->start < parent->start ? &parent->left : &parent->right;
	}
	*link = node;
	node->parent = parent;
	node->left = NULL;
	node->right = NULL;
	node->subtree_last = node->last;
	node->weight = next_weight();
	while (node->parent && node->parent->weight < node->weight)
		rotate(root, node);
}

void interval_tree_remove(node_t *node, struct rb_root_cached *root)
{
	node_t *up;

	while (node->left && node->right)
		rotate(root, node->left->weight > node->right->weight ? node->left :
									node->right);
	replace(root, node, node->left ? node->left : node->right);
	for (up = node->parent; up; up = up->parent)
		update(up);
}

/* The first in the subtree that has an address in common with [start, last]. */
static node_t *first(node_t *node, u64 start, u64 last)
{
	for (;;) {
		if (node->left && node->left->subtree_last >= start) {
			node = node->left;
			continue;
		}
		if (node->start > last)
			return NULL;
		if (node->last >= start)
			return node;
		node = node->right;
		if (!node || node->subtree_last < start)
			return NULL;
	}
}

node_t *interval_tree_iter_first(struct rb_root_cached *root, u64 start, u64 last)
{
	if (!root->node || root->node->subtree_last < start)
		return NULL;
	return first(root->node, start, last);
}

node_t *interval_tree_iter_next(node_t *node, u64 start, u64 last)
{
	node_t *child;

	for (;;) {
		if (node->right && node->right->subtree_last >= start)
			return first(node->right, start, last);
		do {
			child = node;
			node = node->parent;
			if (!node)
				return NULL;
		} while (child == node->right);
		if (node->start > last)
			return NULL;
		if (node->last >= start)
			return node;
	}
}

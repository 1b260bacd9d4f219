// SPDX-License-Identifier: GPL-2.0
/*
 * The tree of regions, and transactions on it.
 *
 * Regions form a graph. A region has at most one container, which keeps those it holds
 * in an interval tree by address; which of them is seen where they overlap is told by
 * gpamap_region_precedes(): the higher priority, and among equals the one attached last,
 * for which every attach gets a number. An alias has a target instead of children.
 *
 * The graph may have cycles, and paths of any length: a container may hold an alias of
 * itself, since what is seen through it is cut to a window at every step and so can
 * come to an end. Whether it does is known only where it is rendered (flatview.c), and
 * that is where a path of more than GPAMAP_MAX_DEPTH regions is refused.
 *
 * An operation is done at once or not at all, and notes in the transaction's log how
 * the region was. It also marks, in every root from which the region can be seen, the
 * addresses where it was seen and where it is seen now: only these are rendered again.
 * Each operation marks at least what it changes in the view as it is at that moment,
 * so what all of them mark covers the difference between the first view and the last.
 * The way up is cut to windows as rendering is on the way down. Where it is longer than
 * what can be rendered, or has too many branches, all of every root is marked: so what
 * is too deep, too, lies where it is rendered.
 *
 * Undoing allocates nothing: a destroyed region stays in the table, marked dead and
 * invisible to look-ups, until the transaction commits, and an operation that takes
 * over its id keeps it as the shadow of the log entry. A root that no space looks at
 * any more, or not yet, goes at the end of the transaction.
 *
 * Rules of MEMORY_MODEL kept here: 1-4, 8, 9, 14, 16, 34, 35, 48.
 */
#include "core.h"

#define REGION_FLAGS (GPAMAP_PATH_FLAGS | GPAMAP_REGION_DISABLED | \
		      GPAMAP_REGION_ROMD_MODE | GPAMAP_REGION_CUT_AHEAD)
#define SET_MASK (GPAMAP_SET_ENABLED | GPAMAP_SET_READONLY | GPAMAP_SET_AT | \
		  GPAMAP_SET_PRIO | GPAMAP_SET_OFFSET | GPAMAP_SET_NONVOLATILE | \
		  GPAMAP_SET_UNMERGEABLE | GPAMAP_SET_ROMD | GPAMAP_SET_LAST | \
		  GPAMAP_SET_CUT_AHEAD)

void gpamap_tree_init(struct gpamap_tree *tree)
{
	memset(tree, 0, sizeof(*tree));
	xa_init_flags(&tree->regions, XA_FLAGS_ACCOUNT);
	xa_init_flags(&tree->spaces, XA_FLAGS_ACCOUNT);
	INIT_LIST_HEAD(&tree->roots);
}

static void root_unrender(struct gpamap_root *root)
{
	gpamap_flatview_retire(root->next, root->view);
	root->next = NULL;
	gpamap_changes_free(&root->changes);
}

static void root_free(struct gpamap_root *root)
{
	root_unrender(root);
	gpamap_flatview_retire(root->view, NULL);
	root->region->root = NULL;
	list_del(&root->link);
	kfree(root);
}

/* No transaction may be open. */
void gpamap_tree_destroy(struct gpamap_tree *tree)
{
	struct gpamap_region *region;
	struct gpamap_space *space;
	unsigned long id;

	xa_for_each(&tree->spaces, id, space)
		kfree(space);
	xa_destroy(&tree->spaces);
	while (!list_empty(&tree->roots))
		root_free(list_entry(tree->roots.next, struct gpamap_root, link));
	xa_for_each(&tree->regions, id, region) {
		kfree_rcu(region, rcu);
		cond_resched();
	}
	xa_destroy(&tree->regions);
}

struct gpamap_region *gpamap_tree_region(struct gpamap_tree *tree, u32 id)
{
	struct gpamap_region *region = xa_load(&tree->regions, id);

	return region && !region->dead ? region : NULL;
}

struct gpamap_space *gpamap_tree_space(struct gpamap_tree *tree, u32 id)
{
	struct gpamap_space *space = xa_load(&tree->spaces, id);

	return space && !space->dead ? space : NULL;
}

/* Rules 1 and 2: whether @a is seen where both of one container are. */
bool gpamap_region_precedes(const struct gpamap_region *a, const struct gpamap_region *b)
{
	return a->prio != b->prio ? a->prio > b->prio : a->seq > b->seq;
}

static struct gpamap_region *node_region(struct interval_tree_node *node)
{
	return node ? container_of(node, struct gpamap_region, node) : NULL;
}

/*
 * What can be seen through @region: what it holds, by address, or the target of an
 * alias. Returns the one after @prev, the first for NULL, NULL after the last.
 */
static struct gpamap_region *region_below(struct gpamap_region *region,
					  struct gpamap_region *prev)
{
	if (region->kind == GPAMAP_REGION_ALIAS)
		return prev ? NULL : region->target;
	if (prev)
		return node_region(interval_tree_iter_next(&prev->node, 0, U64_MAX));
	return node_region(interval_tree_iter_first(&region->children, 0, U64_MAX));
}

/* The other way: the container, then the aliases that point at @region. */
static struct gpamap_region *region_above(const struct gpamap_region *region,
					  const struct gpamap_region *prev)
{
	const struct list_head *next;

	if (!prev && region->container)
		return region->container;
	next = prev && prev != region->container ? prev->alias_link.next :
						   region->aliases.next;
	if (next == &region->aliases)
		return NULL;
	return list_entry(next, struct gpamap_region, alias_link);
}

/* ---- what has to be rendered again ------------------------------------ */

/* So many steps upwards are taken; where there are more, or a path is too long, all is dirty. */
#define MAX_MARK_STEPS 16384

/* The part of @frame that shows in @above; false if none does. */
static bool mark_enter(const struct gpamap_walk_frame *frame, struct gpamap_region *above,
		       struct gpamap_walk_frame *to)
{
	const struct gpamap_region *region = frame->region;
	u64 first, last;

	if (above->flags & GPAMAP_REGION_DISABLED)
		return false;
	*to = (struct gpamap_walk_frame){ .region = above };
	if (above == region->container) {
		if (check_add_overflow(frame->lo, region->at, &to->lo))
			return false;
		to->hi = min(gpamap_add_saturated(frame->hi, region->at), above->last);
		return to->lo <= to->hi;
	}
	first = max(frame->lo, above->offset);
	last = min(frame->hi, gpamap_add_saturated(above->offset, above->last));
	if (first > last)
		return false;
	to->lo = first - above->offset;
	to->hi = last - above->offset;
	return true;
}

/* Marks all addresses of all roots where @region, if it is enabled, can be seen. */
static void mark(struct gpamap_tree *tree, struct gpamap_region *region)
{
	struct gpamap_walk_frame *frame = tree->walk;
	struct gpamap_region *above;
	struct gpamap_root *root;
	u32 steps = 0;

	cond_resched();
	if (region->flags & GPAMAP_REGION_DISABLED)
		return;
	*frame = (struct gpamap_walk_frame){ .region = region, .hi = region->last };
	if (region->root)
		gpamap_dirty_add(&region->root->dirty, 0, region->last);

	for (;;) {
		above = region_above(frame->region, frame->at);
		if (!above) {
			if (frame == tree->walk)
				return;
			frame--;
			continue;
		}
		frame->at = above;
		if (++steps > MAX_MARK_STEPS)
			break;
		if (!mark_enter(frame, above, frame + 1))
			continue;
		frame++;
		if (frame == &tree->walk[GPAMAP_MAX_DEPTH])
			break;
		if (above->root)
			gpamap_dirty_add(&above->root->dirty, frame->lo, frame->hi);
	}
	list_for_each_entry(root, &tree->roots, link)
		gpamap_dirty_add(&root->dirty, 0, U64_MAX);
}

static void region_attach(struct gpamap_region *region, struct gpamap_region *container)
{
	region->container = container;
	region->node.start = region->at;
	region->node.last = gpamap_add_saturated(region->at, region->last);
	interval_tree_insert(&region->node, &container->children);
}

static void region_detach(struct gpamap_region *region)
{
	interval_tree_remove(&region->node, &region->container->children);
	region->container = NULL;
}

/* ---- operations ------------------------------------------------------- */

/* Which members of @op are not zero, as enum gpamap_op_fields. */
u32 gpamap_op_fields(const struct gpamap_op *op)
{
	return (op->mask ? GPAMAP_F_MASK : 0) | (op->flags ? GPAMAP_F_FLAGS : 0) |
	       (op->kind ? GPAMAP_F_KIND : 0) | (op->ref ? GPAMAP_F_REF : 0) |
	       (op->prio ? GPAMAP_F_PRIO : 0) | (op->as_id ? GPAMAP_F_AS : 0) |
	       (op->at ? GPAMAP_F_AT : 0) | (op->last ? GPAMAP_F_LAST : 0) |
	       (op->offset ? GPAMAP_F_OFFSET : 0) | (op->hva ? GPAMAP_F_HVA : 0) |
	       (memchr_inv(op->name, 0, sizeof(op->name)) ? GPAMAP_F_NAME : 0) |
	       (op->value ? GPAMAP_F_VALUE : 0) |
	       (op->items || op->nr || op->item_size ? GPAMAP_F_ITEMS : 0) |
	       (op->len ? GPAMAP_F_LEN : 0) | (op->fd ? GPAMAP_F_FD : 0);
}

static int op_check_name(const struct gpamap_op *op)
{
	size_t len = strnlen((const char *)op->name, sizeof(op->name));
	size_t i;

	if (len == sizeof(op->name))
		return -EINVAL;
	for (i = 0; i < len; i++)
		if (op->name[i] < ' ' || op->name[i] == '"' || op->name[i] == 0x7f ||
		    (op->name[i] == 0xc2 && op->name[i + 1] >= 0x80 &&
		     op->name[i + 1] < 0xa0))	/* control characters beyond ASCII */
			return -EINVAL;
	if (memchr_inv(op->name + len, 0, sizeof(op->name) - len))
		return -EINVAL;
	return 0;
}

/*
 * Puts @obj into a table; what it displaces there can only be dead, and is put
 * back by id_restore(), which allocates nothing.
 */
static int id_take(struct xarray *xa, u32 id, void *obj, void **shadow)
{
	void *old = xa_store(xa, id, obj, GPAMAP_GFP);

	if (xa_is_err(old))
		return xa_err(old);
	*shadow = old;
	return 0;
}

static void id_restore(struct xarray *xa, u32 id, void *shadow)
{
	if (shadow)
		xa_store(xa, id, shadow, GPAMAP_GFP);
	else
		xa_erase(xa, id);
}

/* Of the dead that have an id, at most one was there before the open transaction. */
static struct gpamap_region *published(struct gpamap_region *dead)
{
	return dead && !rcu_access_pointer(dead->io) ? dead->was : dead;
}

static int op_region(struct gpamap_txn *txn, const struct gpamap_op *op,
		     struct gpamap_undo *undo)
{
	u32 fields = GPAMAP_F_FLAGS | GPAMAP_F_KIND | GPAMAP_F_LAST | GPAMAP_F_NAME;
	struct gpamap_region *region, *target = NULL;
	struct gpamap_tree *tree = txn->tree;
	u64 hva_last;
	int rc;

	if (op->flags & ~REGION_FLAGS)
		return -EOPNOTSUPP;
	switch (op->kind) {
	case GPAMAP_REGION_CONTAINER:
	case GPAMAP_REGION_IO:
	case GPAMAP_REGION_RESERVED:
		break;
	case GPAMAP_REGION_RAM:
	case GPAMAP_REGION_ROM:
	case GPAMAP_REGION_ROMD:
		fields |= GPAMAP_F_HVA;
		break;
	case GPAMAP_REGION_ALIAS:
		fields |= GPAMAP_F_REF | GPAMAP_F_OFFSET;
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (gpamap_op_fields(op) & ~fields ||
	    (op->flags & GPAMAP_REGION_ROMD_MODE && op->kind != GPAMAP_REGION_ROMD))
		return -EINVAL;
	rc = op_check_name(op);
	if (rc)
		return rc;
	if (op->hva && check_add_overflow(op->hva, op->last, &hva_last))
		return -EOVERFLOW;
	if (gpamap_tree_region(tree, op->id))
		return -EEXIST;
	if (op->kind == GPAMAP_REGION_ALIAS) {
		if (!op->ref)
			return -EINVAL;
		target = gpamap_tree_region(tree, op->ref);
		if (!target)
			return -ENOENT;
	}
	if (tree->nr_regions >= GPAMAP_MAX_REGIONS)
		return -ENOSPC;

	region = kzalloc(sizeof(*region), GPAMAP_GFP);
	if (!region)
		return -ENOMEM;
	region->id = op->id;
	region->kind = op->kind;
	region->flags = op->flags;
	region->last = op->last;
	region->hva = op->hva;
	region->offset = op->offset;
	region->target = target;
	memcpy(region->name, op->name, sizeof(region->name));
	region->children = RB_ROOT_CACHED;
	INIT_LIST_HEAD(&region->aliases);
	INIT_LIST_HEAD(&region->alias_link);

	region->was = published(xa_load(&tree->regions, op->id));
	rc = id_take(&tree->regions, op->id, region, &undo->shadow);
	if (rc) {
		kfree(region);
		return rc;
	}
	if (target)
		list_add(&region->alias_link, &target->aliases);
	tree->nr_regions++;
	undo->region = region;
	return 0;
}

static void undo_region(struct gpamap_txn *txn, struct gpamap_undo *undo)
{
	struct gpamap_region *region = undo->region;

	if (region->root)
		root_free(region->root);
	list_del(&region->alias_link);
	id_restore(&txn->tree->regions, region->id, undo->shadow);
	txn->tree->nr_regions--;
	/* mmap() looks regions up without a lock. */
	kfree_rcu(region, rcu);
}

/* Notes all that ADD, DEL and SET can change. */
static void undo_note(struct gpamap_undo *undo, struct gpamap_region *region)
{
	undo->region = region;
	undo->container = region->container;
	undo->seq = region->seq;
	undo->at = region->at;
	undo->last = region->last;
	undo->prio = region->prio;
	undo->flags = region->flags;
	undo->offset = region->offset;
}

static void undo_change(struct gpamap_txn *txn, struct gpamap_undo *undo)
{
	struct gpamap_region *region = undo->region;

	if (region->container)
		region_detach(region);
	region->seq = undo->seq;
	region->at = undo->at;
	region->last = undo->last;
	region->prio = undo->prio;
	region->flags = undo->flags;
	region->offset = undo->offset;
	if (undo->container)
		region_attach(region, undo->container);
}

static int op_add(struct gpamap_txn *txn, const struct gpamap_op *op,
		  struct gpamap_undo *undo)
{
	struct gpamap_tree *tree = txn->tree;
	struct gpamap_region *region, *container;

	if (gpamap_op_fields(op) & ~(GPAMAP_F_REF | GPAMAP_F_PRIO | GPAMAP_F_AT) || !op->ref)
		return -EINVAL;
	region = gpamap_tree_region(tree, op->id);
	container = gpamap_tree_region(tree, op->ref);
	if (!region || !container)
		return -ENOENT;
	if (container->kind == GPAMAP_REGION_ALIAS)
		return -EINVAL;
	if (region->container)
		return -EBUSY;

	undo_note(undo, region);
	region->seq = ++tree->seq;
	region->at = op->at;
	region->prio = op->prio;
	region_attach(region, container);
	mark(tree, region);
	return 0;
}

static int op_del(struct gpamap_txn *txn, const struct gpamap_op *op,
		  struct gpamap_undo *undo)
{
	struct gpamap_region *region;

	if (gpamap_op_fields(op))
		return -EINVAL;
	region = gpamap_tree_region(txn->tree, op->id);
	if (!region || !region->container)
		return -ENOENT;

	undo_note(undo, region);
	mark(txn->tree, region);
	region_detach(region);
	return 0;
}

static int op_destroy(struct gpamap_txn *txn, const struct gpamap_op *op,
		      struct gpamap_undo *undo)
{
	struct gpamap_region *region;

	if (gpamap_op_fields(op))
		return -EINVAL;
	region = gpamap_tree_region(txn->tree, op->id);
	if (!region)
		return -ENOENT;
	if (region->container || region_below(region, NULL) != region->target ||
	    !list_empty(&region->aliases) || (region->root && region->root->nr_spaces) ||
	    (txn->ties && txn->ties->is_tied(region)))
		return -EBUSY;

	undo->region = region;
	list_del_init(&region->alias_link);
	region->dead = true;
	txn->tree->nr_regions--;
	return 0;
}

static void undo_destroy(struct gpamap_txn *txn, struct gpamap_undo *undo)
{
	struct gpamap_region *region = undo->region;

	if (region->target)
		list_add(&region->alias_link, &region->target->aliases);
	region->dead = false;
	txn->tree->nr_regions++;
}

/* Which members of @op a SET may use, and which flags it changes. */
static const struct {
	u32 mask;
	u32 field;
	u32 flag;
} set_uses[] = {
	{ GPAMAP_SET_ENABLED, GPAMAP_F_FLAGS, GPAMAP_REGION_DISABLED },
	{ GPAMAP_SET_READONLY, GPAMAP_F_FLAGS, GPAMAP_REGION_READONLY },
	{ GPAMAP_SET_NONVOLATILE, GPAMAP_F_FLAGS, GPAMAP_REGION_NONVOLATILE },
	{ GPAMAP_SET_UNMERGEABLE, GPAMAP_F_FLAGS, GPAMAP_REGION_UNMERGEABLE },
	{ GPAMAP_SET_ROMD, GPAMAP_F_FLAGS, GPAMAP_REGION_ROMD_MODE },
	{ GPAMAP_SET_CUT_AHEAD, GPAMAP_F_FLAGS, GPAMAP_REGION_CUT_AHEAD },
	{ GPAMAP_SET_AT, GPAMAP_F_AT, 0 },
	{ GPAMAP_SET_PRIO, GPAMAP_F_PRIO, 0 },
	{ GPAMAP_SET_OFFSET, GPAMAP_F_OFFSET, 0 },
	{ GPAMAP_SET_LAST, GPAMAP_F_LAST, 0 },
};

static int op_set(struct gpamap_txn *txn, const struct gpamap_op *op,
		  struct gpamap_undo *undo)
{
	struct gpamap_region *region, *container;
	bool seen = op->mask & ~GPAMAP_SET_CUT_AHEAD;
	u32 fields = GPAMAP_F_MASK, flags = 0;
	u64 at, last, hva_last;
	s32 prio;
	u32 i;

	if (op->mask & ~SET_MASK || op->flags & ~REGION_FLAGS)
		return -EOPNOTSUPP;
	for (i = 0; i < ARRAY_SIZE(set_uses); i++) {
		if (op->mask & set_uses[i].mask) {
			fields |= set_uses[i].field;
			flags |= set_uses[i].flag;
		}
	}
	if (!op->mask || gpamap_op_fields(op) & ~fields || op->flags & ~flags)
		return -EINVAL;
	region = gpamap_tree_region(txn->tree, op->id);
	if (!region)
		return -ENOENT;
	if ((op->mask & GPAMAP_SET_OFFSET && region->kind != GPAMAP_REGION_ALIAS) ||
	    (op->mask & GPAMAP_SET_ROMD && region->kind != GPAMAP_REGION_ROMD))
		return -EINVAL;
	container = region->container;
	if (op->mask & (GPAMAP_SET_AT | GPAMAP_SET_PRIO) && !container)
		return -ENOENT;
	if (op->mask & GPAMAP_SET_LAST && region->hva &&
	    check_add_overflow(region->hva, op->last, &hva_last))
		return -EOVERFLOW;

	undo_note(undo, region);
	at = op->mask & GPAMAP_SET_AT ? op->at : region->at;
	prio = op->mask & GPAMAP_SET_PRIO ? op->prio : region->prio;
	last = op->mask & GPAMAP_SET_LAST ? op->last : region->last;
	if (seen)
		mark(txn->tree, region);
	region->flags = (region->flags & ~flags) | op->flags;
	if (op->mask & GPAMAP_SET_OFFSET)
		region->offset = op->offset;
	if (at != region->at || prio != region->prio)
		region->seq = ++txn->tree->seq;
	if (container && (at != region->at || last != region->last)) {
		region_detach(region);
		region->at = at;
		region->last = last;
		region_attach(region, container);
	}
	region->last = last;
	region->prio = prio;
	if (seen)
		mark(txn->tree, region);
	return 0;
}

/* The root of spaces over @region, made if there is none. */
static struct gpamap_root *root_get(struct gpamap_tree *tree, struct gpamap_region *region)
{
	struct gpamap_root *root = region->root;

	if (!root) {
		root = kzalloc(sizeof(*root), GPAMAP_GFP);
		if (!root)
			return NULL;
		root->region = region;
		list_add(&root->link, &tree->roots);
		region->root = root;
	}
	root->nr_spaces++;
	return root;
}

/* Whether there is a space like the one that @op makes, of which there can be one. */
static bool space_is_taken(struct gpamap_tree *tree, const struct gpamap_op *op)
{
	struct gpamap_space *space;
	unsigned long id;

	if (op->kind == GPAMAP_SPACE_VIEW)
		return false;
	xa_for_each(&tree->spaces, id, space)
		if (!space->dead && space->kind == op->kind && space->as_id == op->as_id)
			return true;
	return false;
}

static int op_space(struct gpamap_txn *txn, const struct gpamap_op *op,
		    struct gpamap_undo *undo)
{
	struct gpamap_tree *tree = txn->tree;
	struct gpamap_region *region;
	struct gpamap_space *space;
	int rc;

	if (op->kind < GPAMAP_SPACE_MEMORY || op->kind > GPAMAP_SPACE_VIEW)
		return -EOPNOTSUPP;
	if (gpamap_op_fields(op) & ~(GPAMAP_F_KIND | GPAMAP_F_REF | GPAMAP_F_AS | GPAMAP_F_NAME) ||
	    !op->ref)
		return -EINVAL;
	if (op->as_id && op->kind != GPAMAP_SPACE_MEMORY)
		return -EINVAL;
	if (op->as_id > 1)
		return -EOPNOTSUPP;
	rc = op_check_name(op);
	if (rc)
		return rc;
	if (gpamap_tree_space(tree, op->id))
		return -EEXIST;
	region = gpamap_tree_region(tree, op->ref);
	if (!region)
		return -ENOENT;
	if (space_is_taken(tree, op))
		return -EEXIST;
	if (tree->nr_spaces >= GPAMAP_MAX_SPACES)
		return -ENOSPC;

	space = kzalloc(sizeof(*space), GPAMAP_GFP);
	if (!space)
		return -ENOMEM;
	space->id = op->id;
	space->kind = op->kind;
	space->as_id = op->as_id;
	memcpy(space->name, op->name, sizeof(space->name));
	rc = -ENOMEM;
	space->root = root_get(tree, region);
	if (!space->root)
		goto err_free;
	rc = id_take(&tree->spaces, op->id, space, &undo->shadow);
	if (rc)
		goto err_put_root;
	tree->nr_spaces++;
	txn->spaces_changed = true;
	undo->space = space;
	return 0;

err_put_root:
	space->root->nr_spaces--;
err_free:
	kfree(space);
	return rc;
}

static void undo_space(struct gpamap_txn *txn, struct gpamap_undo *undo)
{
	struct gpamap_space *space = undo->space;

	space->root->nr_spaces--;
	txn->tree->nr_spaces--;
	id_restore(&txn->tree->spaces, space->id, undo->shadow);
	kfree(space);
}

static int op_space_destroy(struct gpamap_txn *txn, const struct gpamap_op *op,
			    struct gpamap_undo *undo)
{
	struct gpamap_space *space;

	if (gpamap_op_fields(op))
		return -EINVAL;
	space = gpamap_tree_space(txn->tree, op->id);
	if (!space)
		return -ENOENT;

	undo->space = space;
	space->root->nr_spaces--;
	space->dead = true;
	txn->tree->nr_spaces--;
	txn->spaces_changed = true;
	return 0;
}

static void undo_space_destroy(struct gpamap_txn *txn, struct gpamap_undo *undo)
{
	undo->space->root->nr_spaces++;
	undo->space->dead = false;
	txn->tree->nr_spaces++;
}

/* What is tied to a region is handed to who knows it. */
static int op_tie(struct gpamap_txn *txn, const struct gpamap_op *op,
		  struct gpamap_undo *undo)
{
	if (!txn->ties)
		return -EOPNOTSUPP;
	undo->region = gpamap_tree_region(txn->tree, op->id);
	return txn->ties->apply(txn, op, undo);
}

static void undo_tie(struct gpamap_txn *txn, struct gpamap_undo *undo)
{
	txn->ties->undo(txn, undo);
}

/* Nothing of the tree: what it is for, the slots, is done when there are views. */
static int op_tidy(struct gpamap_txn *txn, const struct gpamap_op *op,
		   struct gpamap_undo *undo)
{
	if (gpamap_op_fields(op))
		return -EINVAL;
	txn->nr_tidy++;
	return 0;
}

static void undo_tidy(struct gpamap_txn *txn, struct gpamap_undo *undo)
{
	txn->nr_tidy--;
}

static const struct {
	int (*apply)(struct gpamap_txn *txn, const struct gpamap_op *op,
		     struct gpamap_undo *undo);
	void (*undo)(struct gpamap_txn *txn, struct gpamap_undo *undo);
} op_table[] = {
	[GPAMAP_OP_REGION] = { op_region, undo_region },
	[GPAMAP_OP_ADD] = { op_add, undo_change },
	[GPAMAP_OP_DEL] = { op_del, undo_change },
	[GPAMAP_OP_DESTROY] = { op_destroy, undo_destroy },
	[GPAMAP_OP_SET] = { op_set, undo_change },
	[GPAMAP_OP_SPACE] = { op_space, undo_space },
	[GPAMAP_OP_SPACE_DESTROY] = { op_space_destroy, undo_space_destroy },
	[GPAMAP_OP_DOORBELL ... GPAMAP_OP_UNTIE] = { op_tie, undo_tie },
	[GPAMAP_OP_TIDY] = { op_tidy, undo_tidy },
};

/* @max: the most operations that there will be. */
int gpamap_txn_begin(struct gpamap_txn *txn, struct gpamap_tree *tree, u32 max)
{
	memset(txn, 0, sizeof(*txn));
	txn->tree = tree;
	txn->max = max;
	txn->log = kvcalloc(max, sizeof(*txn->log), GPAMAP_GFP);
	return txn->log ? 0 : -ENOMEM;
}

/* On an error the tree is as it was before this operation. */
int gpamap_txn_op(struct gpamap_txn *txn, const struct gpamap_op *op)
{
	struct gpamap_undo *undo;
	u32 code = op->code;
	int rc;

	if (txn->nr == txn->max)
		return -ENOSPC;
	if (code >= ARRAY_SIZE(op_table))
		return -EOPNOTSUPP;
	code = array_index_nospec(code, ARRAY_SIZE(op_table));
	if (!op_table[code].apply)
		return -EOPNOTSUPP;
	/* Which is of all there is. */
	if (code == GPAMAP_OP_TIDY ? op->id : !op->id)
		return -EINVAL;

	undo = &txn->log[txn->nr];
	memset(undo, 0, sizeof(*undo));
	undo->code = code;
	rc = op_table[code].apply(txn, op, undo);
	if (rc)
		return rc;
	txn->nr++;
	return 0;
}

/* The end of a transaction, either way: roots that nobody looks at go. */
static void txn_end(struct gpamap_txn *txn)
{
	struct list_head *link, *next;

	for (link = txn->tree->roots.next; link != &txn->tree->roots; link = next) {
		struct gpamap_root *root = list_entry(link, struct gpamap_root, link);

		next = link->next;
		root->dirty.nr = 0;
		if (!root->nr_spaces)
			root_free(root);
	}
	kvfree(txn->log);
}

static void txn_unrender(struct gpamap_txn *txn)
{
	struct gpamap_root *root;

	list_for_each_entry(root, &txn->tree->roots, link)
		root_unrender(root);
}

/*
 * Renders what may have changed: afterwards every root has in ->next the view that it
 * will have, if it is another, and in ->changes how it differs. None on an error.
 */
int gpamap_txn_render(struct gpamap_txn *txn)
{
	struct gpamap_root *root;
	int rc;

	txn_unrender(txn);
	list_for_each_entry(root, &txn->tree->roots, link) {
		if (!root->nr_spaces || (root->view && !root->dirty.nr))
			continue;
		rc = gpamap_flatview_render(root->region, root->view, &root->dirty,
					    &root->next);
		if (!rc)
			rc = gpamap_flatview_diff(root->view, root->next, &root->changes);
		if (rc) {
			txn_unrender(txn);
			return rc;
		}
		if (root->view && !root->changes.nr_gone && !root->changes.nr_come)
			root_unrender(root);
	}
	return 0;
}

/* After gpamap_txn_render(): whether a commit changes a view or the set of spaces. */
bool gpamap_txn_changed(const struct gpamap_txn *txn)
{
	struct gpamap_root *root;

	if (txn->spaces_changed)
		return true;
	list_for_each_entry(root, &txn->tree->roots, link)
		if (root->next)
			return true;
	return false;
}

/*
 * After gpamap_txn_render(): the new views become the views, and what was destroyed
 * is freed as soon as no reader can be at it. Nothing may point readers at the old
 * views any more.
 */
void gpamap_txn_commit(struct gpamap_txn *txn)
{
	struct gpamap_tree *tree = txn->tree;
	struct gpamap_region *region;
	struct gpamap_root *root;
	u32 i;

	list_for_each_entry(root, &tree->roots, link) {
		if (!root->next)
			continue;
		gpamap_flatview_retire(root->view, root->next);
		root->view = root->next;
		root->next = NULL;
		gpamap_changes_free(&root->changes);
	}
	for (i = 0; i < txn->nr; i++) {
		struct gpamap_undo *undo = &txn->log[i];

		cond_resched();
		switch (undo->code) {
		case GPAMAP_OP_DESTROY:
			region = xa_load(&tree->regions, undo->region->id);
			if (region == undo->region)
				xa_erase(&tree->regions, region->id);
			else if (region)
				WRITE_ONCE(region->was, NULL);
			if (undo->region->root)
				root_free(undo->region->root);
			kfree_rcu(undo->region, rcu);
			break;
		case GPAMAP_OP_SPACE_DESTROY:
			if (xa_load(&tree->spaces, undo->space->id) == undo->space)
				xa_erase(&tree->spaces, undo->space->id);
			kfree(undo->space);
			break;
		}
	}
	txn_end(txn);
}

/* Takes back the last operation. */
static void txn_undo(struct gpamap_txn *txn)
{
	struct gpamap_undo *undo = &txn->log[--txn->nr];

	op_table[undo->code].undo(txn, undo);
}

/* Takes back all operations. */
void gpamap_txn_abort(struct gpamap_txn *txn)
{
	txn_unrender(txn);
	while (txn->nr) {
		cond_resched();
		txn_undo(txn);
	}
	txn_end(txn);
}

/**
 * gpamap_txn_blame() - Find the operation that brought trouble about
 * @txn: The transaction, all of whose operations succeeded
 * @ops: Its operations
 * @bad: Whether there is trouble in the tree as it is: 0 no, 1 yes, or -errno to give
 *	up. There is none before the first operation, and some after the last.
 * @arg: For @bad
 *
 * Goes back and forth between the two until it has found a place where the trouble
 * begins: n log n operations, log n calls of @bad. Afterwards the transaction can
 * only be aborted.
 *
 * Return: the index of the operation, or GPAMAP_NO_OP when that could not be found
 * out.
 */
u32 gpamap_txn_blame(struct gpamap_txn *txn, const struct gpamap_op *ops,
		     int (*bad)(void *arg), void *arg)
{
	u32 good = 0, trouble = txn->nr;

	while (trouble - good > 1) {
		u32 middle = good + (trouble - good) / 2;
		int rc = 0;

		txn_unrender(txn);
		while (txn->nr > middle)
			txn_undo(txn);
		while (!rc && txn->nr < middle)
			rc = fatal_signal_pending(current) ? -EINTR :
				gpamap_txn_op(txn, &ops[txn->nr]);
		if (!rc)
			rc = bad(arg);
		if (rc < 0)
			return GPAMAP_NO_OP;
		if (rc)
			trouble = middle;
		else
			good = middle;
	}
	return trouble ? trouble - 1 : GPAMAP_NO_OP;
}

/* Roots by id last first, siblings the least visible first: the top is the next. */
static int list_cmp(const void *a, const void *b)
{
	const struct gpamap_region *x = *(struct gpamap_region * const *)a;
	const struct gpamap_region *y = *(struct gpamap_region * const *)b;

	cond_resched();
	if (!x->container)
		return x->id > y->id ? -1 : 1;
	return gpamap_region_precedes(x, y) ? 1 : -1;
}

/* By container, siblings the most visible first. */
static int list_rest_cmp(const void *a, const void *b)
{
	const struct gpamap_region *x = *(struct gpamap_region * const *)a;
	const struct gpamap_region *y = *(struct gpamap_region * const *)b;

	cond_resched();
	if (x->container != y->container)
		return x->container->id < y->container->id ? -1 : 1;
	return gpamap_region_precedes(x, y) ? -1 : 1;
}

/**
 * gpamap_tree_list() - All regions, each followed by those it holds
 * @tree: The tree, without an open transaction
 * @out: nr_regions pointers: regions without container by id, those in one the most
 *	visible first. Regions that are, over containers, in themselves, and what those
 *	hold, have no first: they come at the end, by container. To be freed with
 *	kvfree()
 *
 * Return: 0 or -ENOMEM.
 */
int gpamap_tree_list(struct gpamap_tree *tree, struct gpamap_region ***out)
{
	struct gpamap_region **list, **stack, *region, *child;
	u32 nr = 0, top = 0, from;
	unsigned long id;

	list = kvcalloc(2 * (size_t)tree->nr_regions, sizeof(*list), GPAMAP_GFP);
	if (!list)
		return -ENOMEM;
	/* A region is in at most one of the two halves. */
	stack = list + tree->nr_regions;
	xa_for_each(&tree->regions, id, region) {
		region->listed = false;
		if (!region->container)
			stack[top++] = region;
	}
	sort(stack, top, sizeof(*stack), list_cmp, NULL);
	while (top) {
		region = stack[--top];
		list[nr++] = region;
		region->listed = true;
		if (region->kind == GPAMAP_REGION_ALIAS)
			continue;
		from = top;
		for (child = region_below(region, NULL); child;
		     child = region_below(region, child))
			stack[top++] = child;
		sort(stack + from, top - from, sizeof(*stack), list_cmp, NULL);
	}
	from = nr;
	xa_for_each(&tree->regions, id, region)
		if (!region->listed)
			list[nr++] = region;
	sort(list + from, nr - from, sizeof(*list), list_rest_cmp, NULL);
	*out = list;
	return 0;
}

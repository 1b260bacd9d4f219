// SPDX-License-Identifier: GPL-2.0
/*
 * The tree of regions, and transactions on it.
 *
 * Regions form a graph without cycles. A region has at most one container and
 * lies in its list of children, the most visible first: higher priorities before
 * lower ones, among equals the last attached before the others. An alias has a
 * target instead of children. gpamap_region_below() and region_above() walk
 * both kinds of edges, and every walk is a loop over an explicit stack: no path
 * is longer than GPAMAP_MAX_DEPTH, because an operation that would make a longer
 * one, or a cycle, is refused when it is made.
 *
 * An operation is done at once or not at all, and notes in the transaction's log
 * how the tree was. Undoing is only ever done from the end of the log, so each
 * entry finds the tree just as its operation left it; this is what lets an entry
 * name its place in a list by the neighbour it had. Undoing allocates nothing:
 * a destroyed region stays in the table, marked dead and invisible to look-ups,
 * until the transaction commits, and an operation that takes over its id keeps
 * it as the shadow of the log entry.
 *
 * Rules of MEMORY_MODEL kept here: 1-4, 8, 9, 14-16 (the shape), 34, 35.
 */
#include "core.h"

#define REGION_FLAGS (GPAMAP_REGION_READONLY | GPAMAP_REGION_DISABLED)
#define SET_MASK (GPAMAP_SET_ENABLED | GPAMAP_SET_READONLY | GPAMAP_SET_AT | \
		  GPAMAP_SET_PRIO | GPAMAP_SET_OFFSET)

/* Members of struct gpamap_op, as a set. */
enum {
	F_MASK = 1 << 0,
	F_FLAGS = 1 << 1,
	F_KIND = 1 << 2,
	F_REF = 1 << 3,
	F_PRIO = 1 << 4,
	F_AS = 1 << 5,
	F_AT = 1 << 6,
	F_LAST = 1 << 7,
	F_OFFSET = 1 << 8,
	F_HVA = 1 << 9,
	F_NAME = 1 << 10,
};

void gpamap_tree_init(struct gpamap_tree *tree)
{
	memset(tree, 0, sizeof(*tree));
	xa_init_flags(&tree->regions, XA_FLAGS_ACCOUNT);
	xa_init_flags(&tree->spaces, XA_FLAGS_ACCOUNT);
}

static void space_free(struct gpamap_space *space)
{
	gpamap_flatview_free(space->view);
	gpamap_flatview_free(space->next);
	kfree(space);
}

/* No transaction may be open. */
void gpamap_tree_destroy(struct gpamap_tree *tree)
{
	struct gpamap_region *region;
	struct gpamap_space *space;
	unsigned long id;

	xa_for_each(&tree->spaces, id, space)
		space_free(space);
	xa_destroy(&tree->spaces);
	xa_for_each(&tree->regions, id, region) {
		kfree(region);
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

/* The space that memslots follow, or NULL. */
struct gpamap_space *gpamap_tree_memory_space(struct gpamap_tree *tree)
{
	struct gpamap_space *space;
	unsigned long id;

	xa_for_each(&tree->spaces, id, space)
		if (!space->dead && space->kind == GPAMAP_SPACE_MEMORY)
			return space;
	return NULL;
}

/*
 * What is seen through @region: its children, or the target of an alias.
 * Returns the one after @prev, the first for NULL, NULL after the last.
 */
struct gpamap_region *gpamap_region_below(const struct gpamap_region *region,
					  const struct gpamap_region *prev)
{
	const struct list_head *next;

	if (region->kind == GPAMAP_REGION_ALIAS)
		return prev ? NULL : region->target;
	next = prev ? prev->sibling.next : region->children.next;
	if (next == &region->children)
		return NULL;
	return list_entry(next, struct gpamap_region, sibling);
}

/*
 * All regions of a tree of containers, every one followed by those it holds:
 * begin with a region that has no container, end at NULL.
 */
struct gpamap_region *gpamap_region_next(const struct gpamap_region *region)
{
	if (!list_empty(&region->children))
		return list_entry(region->children.next, struct gpamap_region, sibling);
	while (region->container) {
		if (region->sibling.next != &region->container->children)
			return list_entry(region->sibling.next, struct gpamap_region,
					  sibling);
		region = region->container;
	}
	return NULL;
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

/*
 * How many regions the longest path has that begins at @from and goes down, or
 * up; -ELOOP if one leads to @stop. Each region is entered once.
 */
static int tree_walk(struct gpamap_tree *tree, struct gpamap_region *from,
			    bool up, const struct gpamap_region *stop)
{
	struct gpamap_walk_frame *frame = tree->walk;
	struct gpamap_region *next;

	tree->walk_epoch++;
	*frame = (struct gpamap_walk_frame){ .region = from };
	if (from == stop)
		return -ELOOP;

	for (;;) {
		next = up ? region_above(frame->region, frame->at) :
			    gpamap_region_below(frame->region, frame->at);
		if (next) {
			frame->at = next;
			if (next == stop)
				return -ELOOP;
			if (next->walk_epoch == tree->walk_epoch) {
				frame->len = max(frame->len, next->walk_len);
				continue;
			}
			if (WARN_ON_ONCE(frame == &tree->walk[GPAMAP_MAX_DEPTH - 1]))
				return -ELOOP;
			*++frame = (struct gpamap_walk_frame){ .region = next };
			continue;
		}
		frame->region->walk_len = frame->len + 1;
		frame->region->walk_epoch = tree->walk_epoch;
		if (frame == tree->walk)
			return frame->region->walk_len;
		frame--;
		frame->len = max(frame->len, frame[1].region->walk_len);
	}
}

/* Where a region with @prio comes to lie among the children, above its equals. */
static struct list_head *children_place(struct gpamap_region *container, s32 prio)
{
	struct gpamap_region *child;

	list_for_each_entry(child, &container->children, sibling)
		if (child->prio <= prio)
			return child->sibling.prev;
	return container->children.prev;
}

static void region_attach(struct gpamap_region *region,
			  struct gpamap_region *container, struct list_head *prev)
{
	region->container = container;
	list_add(&region->sibling, prev);
}

static void region_detach(struct gpamap_region *region)
{
	region->container = NULL;
	list_del_init(&region->sibling);
}

/* Which members of @op are not zero. */
static u32 op_fields(const struct gpamap_op *op)
{
	return (op->mask ? F_MASK : 0) | (op->flags ? F_FLAGS : 0) |
	       (op->kind ? F_KIND : 0) | (op->ref ? F_REF : 0) |
	       (op->prio ? F_PRIO : 0) | (op->as_id ? F_AS : 0) |
	       (op->at ? F_AT : 0) | (op->last ? F_LAST : 0) |
	       (op->offset ? F_OFFSET : 0) | (op->hva ? F_HVA : 0) |
	       (memchr_inv(op->name, 0, sizeof(op->name)) ? F_NAME : 0);
}

static int op_check_name(const struct gpamap_op *op)
{
	size_t len = strnlen((const char *)op->name, sizeof(op->name));
	size_t i;

	if (len == sizeof(op->name))
		return -EINVAL;
	for (i = 0; i < len; i++)
		if (op->name[i] < ' ' || op->name[i] == '"' || op->name[i] == 0x7f)
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
	void *old = xa_store(xa, id, obj, GFP_KERNEL_ACCOUNT);

	if (xa_is_err(old))
		return xa_err(old);
	*shadow = old;
	return 0;
}

static void id_restore(struct xarray *xa, u32 id, void *shadow)
{
	if (shadow)
		xa_store(xa, id, shadow, GFP_KERNEL_ACCOUNT);
	else
		xa_erase(xa, id);
}

static int op_region(struct gpamap_txn *txn, const struct gpamap_op *op,
		     struct gpamap_undo *undo)
{
	u32 fields = F_FLAGS | F_KIND | F_LAST | F_NAME;
	struct gpamap_region *region, *target = NULL;
	struct gpamap_tree *tree = txn->tree;
	u64 hva_last;
	int rc;

	if (op->flags & ~REGION_FLAGS)
		return -EOPNOTSUPP;
	switch (op->kind) {
	case GPAMAP_REGION_CONTAINER:
	case GPAMAP_REGION_IO:
		break;
	case GPAMAP_REGION_RAM:
	case GPAMAP_REGION_ROM:
		fields |= F_HVA;
		break;
	case GPAMAP_REGION_ALIAS:
		fields |= F_REF | F_OFFSET;
		break;
	default:
		return -EOPNOTSUPP;
	}
	if (op_fields(op) & ~fields)
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
		if (tree_walk(tree, target, false, NULL) >= GPAMAP_MAX_DEPTH)
			return -ELOOP;
	}
	if (tree->nr_regions >= GPAMAP_MAX_REGIONS)
		return -ENOSPC;

	region = kzalloc(sizeof(*region), GFP_KERNEL_ACCOUNT);
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
	INIT_LIST_HEAD(&region->children);
	INIT_LIST_HEAD(&region->sibling);
	INIT_LIST_HEAD(&region->aliases);
	INIT_LIST_HEAD(&region->alias_link);

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
	list_del(&undo->region->alias_link);
	id_restore(&txn->tree->regions, undo->region->id, undo->shadow);
	txn->tree->nr_regions--;
	kfree(undo->region);
}

/* Notes all that ADD, DEL and SET can change. */
static void undo_note(struct gpamap_undo *undo, struct gpamap_region *region)
{
	undo->region = region;
	undo->container = region->container;
	undo->prev = region->sibling.prev;
	undo->at = region->at;
	undo->prio = region->prio;
	undo->flags = region->flags;
	undo->offset = region->offset;
}

static void undo_change(struct gpamap_txn *txn, struct gpamap_undo *undo)
{
	struct gpamap_region *region = undo->region;

	if (region->container)
		region_detach(region);
	if (undo->container)
		region_attach(region, undo->container, undo->prev);
	region->at = undo->at;
	region->prio = undo->prio;
	region->flags = undo->flags;
	region->offset = undo->offset;
}

static int op_add(struct gpamap_txn *txn, const struct gpamap_op *op,
		  struct gpamap_undo *undo)
{
	struct gpamap_tree *tree = txn->tree;
	struct gpamap_region *region, *container;
	int above, below;

	if (op_fields(op) & ~(F_REF | F_PRIO | F_AT) || !op->ref)
		return -EINVAL;
	region = gpamap_tree_region(tree, op->id);
	container = gpamap_tree_region(tree, op->ref);
	if (!region || !container)
		return -ENOENT;
	if (container->kind == GPAMAP_REGION_ALIAS)
		return -EINVAL;
	if (region->container)
		return -EBUSY;
	above = tree_walk(tree, container, true, region);
	if (above < 0)
		return above;
	below = tree_walk(tree, region, false, NULL);
	if (below < 0 || above + below > GPAMAP_MAX_DEPTH)
		return -ELOOP;

	undo_note(undo, region);
	region->at = op->at;
	region->prio = op->prio;
	region_attach(region, container, children_place(container, op->prio));
	return 0;
}

static int op_del(struct gpamap_txn *txn, const struct gpamap_op *op,
		  struct gpamap_undo *undo)
{
	struct gpamap_region *region;

	if (op_fields(op))
		return -EINVAL;
	region = gpamap_tree_region(txn->tree, op->id);
	if (!region || !region->container)
		return -ENOENT;

	undo_note(undo, region);
	region_detach(region);
	return 0;
}

static int op_destroy(struct gpamap_txn *txn, const struct gpamap_op *op,
		      struct gpamap_undo *undo)
{
	struct gpamap_region *region;

	if (op_fields(op))
		return -EINVAL;
	region = gpamap_tree_region(txn->tree, op->id);
	if (!region)
		return -ENOENT;
	if (region->container || !list_empty(&region->children) ||
	    !list_empty(&region->aliases) || region->nr_spaces)
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

static int op_set(struct gpamap_txn *txn, const struct gpamap_op *op,
		  struct gpamap_undo *undo)
{
	struct gpamap_region *region, *container;
	u32 fields = F_MASK, flags = 0;
	s32 prio;
	u64 at;

	if (op->mask & ~SET_MASK || op->flags & ~REGION_FLAGS)
		return -EOPNOTSUPP;
	if (op->mask & GPAMAP_SET_ENABLED)
		flags |= GPAMAP_REGION_DISABLED;
	if (op->mask & GPAMAP_SET_READONLY)
		flags |= GPAMAP_REGION_READONLY;
	if (flags)
		fields |= F_FLAGS;
	if (op->mask & GPAMAP_SET_AT)
		fields |= F_AT;
	if (op->mask & GPAMAP_SET_PRIO)
		fields |= F_PRIO;
	if (op->mask & GPAMAP_SET_OFFSET)
		fields |= F_OFFSET;
	if (!op->mask || op_fields(op) & ~fields || op->flags & ~flags)
		return -EINVAL;
	region = gpamap_tree_region(txn->tree, op->id);
	if (!region)
		return -ENOENT;
	if (op->mask & GPAMAP_SET_OFFSET && region->kind != GPAMAP_REGION_ALIAS)
		return -EINVAL;
	container = region->container;
	if (op->mask & (GPAMAP_SET_AT | GPAMAP_SET_PRIO) && !container)
		return -ENOENT;

	undo_note(undo, region);
	region->flags = (region->flags & ~flags) | op->flags;
	if (op->mask & GPAMAP_SET_OFFSET)
		region->offset = op->offset;
	at = op->mask & GPAMAP_SET_AT ? op->at : region->at;
	prio = op->mask & GPAMAP_SET_PRIO ? op->prio : region->prio;
	if (at != region->at || prio != region->prio) {
		region_detach(region);
		region->at = at;
		region->prio = prio;
		region_attach(region, container, children_place(container, prio));
	}
	return 0;
}

static int op_space(struct gpamap_txn *txn, const struct gpamap_op *op,
		    struct gpamap_undo *undo)
{
	struct gpamap_tree *tree = txn->tree;
	struct gpamap_region *root;
	struct gpamap_space *space;
	int rc;

	if (op->kind != GPAMAP_SPACE_MEMORY && op->kind != GPAMAP_SPACE_VIEW)
		return -EOPNOTSUPP;
	if (op_fields(op) & ~(F_KIND | F_REF | F_AS | F_NAME) || !op->ref)
		return -EINVAL;
	if (op->as_id)
		return op->kind == GPAMAP_SPACE_MEMORY ? -EOPNOTSUPP : -EINVAL;
	rc = op_check_name(op);
	if (rc)
		return rc;
	if (gpamap_tree_space(tree, op->id))
		return -EEXIST;
	root = gpamap_tree_region(tree, op->ref);
	if (!root)
		return -ENOENT;
	if (op->kind == GPAMAP_SPACE_MEMORY && gpamap_tree_memory_space(tree))
		return -EEXIST;
	if (tree->nr_spaces >= GPAMAP_MAX_SPACES)
		return -ENOSPC;

	space = kzalloc(sizeof(*space), GFP_KERNEL_ACCOUNT);
	if (!space)
		return -ENOMEM;
	space->id = op->id;
	space->kind = op->kind;
	space->as_id = op->as_id;
	space->root = root;
	memcpy(space->name, op->name, sizeof(space->name));

	rc = id_take(&tree->spaces, op->id, space, &undo->shadow);
	if (rc) {
		kfree(space);
		return rc;
	}
	root->nr_spaces++;
	tree->nr_spaces++;
	undo->space = space;
	return 0;
}

static void undo_space(struct gpamap_txn *txn, struct gpamap_undo *undo)
{
	struct gpamap_space *space = undo->space;

	space->root->nr_spaces--;
	txn->tree->nr_spaces--;
	id_restore(&txn->tree->spaces, space->id, undo->shadow);
	space_free(space);
}

static int op_space_destroy(struct gpamap_txn *txn, const struct gpamap_op *op,
			    struct gpamap_undo *undo)
{
	struct gpamap_space *space;

	if (op_fields(op))
		return -EINVAL;
	space = gpamap_tree_space(txn->tree, op->id);
	if (!space)
		return -ENOENT;

	undo->space = space;
	space->root->nr_spaces--;
	space->dead = true;
	txn->tree->nr_spaces--;
	return 0;
}

static void undo_space_destroy(struct gpamap_txn *txn, struct gpamap_undo *undo)
{
	undo->space->root->nr_spaces++;
	undo->space->dead = false;
	txn->tree->nr_spaces++;
}

static const struct {
	int (*apply)(struct gpamap_txn *txn, const struct gpamap_op *op,
		     struct gpamap_undo *undo);
	void (*undo)(struct gpamap_txn *txn, struct gpamap_undo *undo);
} ops[] = {
	[GPAMAP_OP_REGION] = { op_region, undo_region },
	[GPAMAP_OP_ADD] = { op_add, undo_change },
	[GPAMAP_OP_DEL] = { op_del, undo_change },
	[GPAMAP_OP_DESTROY] = { op_destroy, undo_destroy },
	[GPAMAP_OP_SET] = { op_set, undo_change },
	[GPAMAP_OP_SPACE] = { op_space, undo_space },
	[GPAMAP_OP_SPACE_DESTROY] = { op_space_destroy, undo_space_destroy },
};

/* @max: the most operations that there will be. */
int gpamap_txn_begin(struct gpamap_txn *txn, struct gpamap_tree *tree, u32 max)
{
	memset(txn, 0, sizeof(*txn));
	txn->tree = tree;
	txn->max = max;
	txn->log = kvcalloc(max, sizeof(*txn->log), GFP_KERNEL_ACCOUNT);
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
	if (code >= ARRAY_SIZE(ops))
		return -EOPNOTSUPP;
	code = array_index_nospec(code, ARRAY_SIZE(ops));
	if (!ops[code].apply)
		return -EOPNOTSUPP;
	if (!op->id)
		return -EINVAL;

	undo = &txn->log[txn->nr];
	memset(undo, 0, sizeof(*undo));
	undo->code = code;
	rc = ops[code].apply(txn, op, undo);
	if (rc)
		return rc;
	txn->nr++;
	return 0;
}

static void txn_unrender(struct gpamap_txn *txn)
{
	struct gpamap_space *space;
	unsigned long id;

	xa_for_each(&txn->tree->spaces, id, space) {
		gpamap_flatview_free(space->next);
		space->next = NULL;
	}
}

/* Renders the view that every space will have; none on an error. */
int gpamap_txn_render(struct gpamap_txn *txn)
{
	struct gpamap_space *space;
	unsigned long id;
	int rc;

	txn_unrender(txn);
	xa_for_each(&txn->tree->spaces, id, space) {
		if (space->dead)
			continue;
		rc = gpamap_flatview_render(space->root, &space->next);
		if (rc) {
			txn_unrender(txn);
			return rc;
		}
	}
	return 0;
}

/*
 * After gpamap_txn_render(): makes the new views those of the spaces and forgets
 * what was destroyed. True if a view or the set of spaces has changed.
 */
bool gpamap_txn_commit(struct gpamap_txn *txn)
{
	struct gpamap_tree *tree = txn->tree;
	struct gpamap_space *space;
	bool changed = false;
	unsigned long id;
	u32 i;

	for (i = 0; i < txn->nr; i++) {
		struct gpamap_undo *undo = &txn->log[i];

		switch (undo->code) {
		case GPAMAP_OP_DESTROY:
			if (xa_load(&tree->regions, undo->region->id) == undo->region)
				xa_erase(&tree->regions, undo->region->id);
			kfree(undo->region);
			break;
		case GPAMAP_OP_SPACE_DESTROY:
			changed = true;
			if (xa_load(&tree->spaces, undo->space->id) == undo->space)
				xa_erase(&tree->spaces, undo->space->id);
			space_free(undo->space);
			break;
		}
	}
	xa_for_each(&tree->spaces, id, space) {
		if (!space->view || !gpamap_flatview_equal(space->view, space->next))
			changed = true;
		gpamap_flatview_free(space->view);
		space->view = space->next;
		space->next = NULL;
	}
	kvfree(txn->log);
	return changed;
}

/* Takes back the last operation. */
void gpamap_txn_undo(struct gpamap_txn *txn)
{
	struct gpamap_undo *undo = &txn->log[--txn->nr];

	txn_unrender(txn);
	ops[undo->code].undo(txn, undo);
}

/* Takes back all operations. */
void gpamap_txn_abort(struct gpamap_txn *txn)
{
	txn_unrender(txn);
	while (txn->nr)
		gpamap_txn_undo(txn);
	kvfree(txn->log);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * A model of the core that is too slow and too simple to be wrong, and the comparison
 * with it.
 *
 * The model keeps regions in an array. It answers what is at one address by asking
 * everyone in turn, with 128-bit offsets that may be negative; and it lists every
 * address where anything can begin or end, on any path. Views are compared at these
 * addresses and one before each, which leaves no difference out. An incremental view is
 * compared with a fresh one, range by range (rule 49), and the changes with what they
 * claim to be. A path that is too long, as one that has no end is, must have the batch
 * refused, and the operation blamed that made it (rule 15).
 */
#include <stdarg.h>
#include "exercise.h"

struct model_region {
	bool exists;
	u32 kind, flags, container, target;
	s32 prio;
	u64 at, last, offset, hva;
	u64 attached;		/* when: larger is later */
};

struct model {
	struct model_region r[NR_IDS + 1];
	u64 clock;
};

struct seen {
	u32 id;			/* 0: nothing */
	u64 offset;
	u32 flags;
};

struct exercised exercised;

static char wrong_text[512];

__attribute__((format(printf, 1, 2)))
static const char *wrong(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(wrong_text, sizeof(wrong_text), format, args);
	va_end(args);
	return wrong_text;
}

static struct seen model_see(const struct model *m, u32 id, __int128 offset, u32 flags)
{
	const struct model_region *r = &m->r[id];
	bool tried[NR_IDS + 1] = { false };
	struct seen seen = { 0 };
	u32 child, best;

	if (r->flags & GPAMAP_REGION_DISABLED || offset < 0 || offset > r->last)
		return seen;
	flags |= r->flags & (GPAMAP_REGION_READONLY | GPAMAP_REGION_NONVOLATILE |
			     GPAMAP_REGION_UNMERGEABLE);
	if (r->kind == GPAMAP_REGION_ROM)
		flags |= GPAMAP_REGION_READONLY;
	if (r->kind == GPAMAP_REGION_ALIAS)
		return model_see(m, r->target, offset + r->offset, flags);
	for (;;) {
		best = 0;
		for (child = 1; child <= NR_IDS; child++) {
			const struct model_region *c = &m->r[child];

			if (!c->exists || c->container != id || tried[child])
				continue;
			if (!best || c->prio > m->r[best].prio ||
			    (c->prio == m->r[best].prio &&
			     c->attached > m->r[best].attached))
				best = child;
		}
		if (!best)
			break;
		tried[best] = true;
		seen = model_see(m, best, offset - m->r[best].at, flags);
		if (seen.id)
			return seen;
	}
	if (r->kind != GPAMAP_REGION_CONTAINER)
		seen = (struct seen){ id, offset,
				      flags | (r->flags & GPAMAP_REGION_ROMD_MODE) };
	return seen;
}

/* The root of the space is region 1. */
static bool model_used(const struct model *m, u32 id)
{
	u32 i;

	if (m->r[id].container || id == 1)
		return true;
	for (i = 1; i <= NR_IDS; i++)
		if (m->r[i].exists && (m->r[i].container == id || m->r[i].target == id))
			return true;
	return false;
}

static u32 flags_of_mask(u32 mask)
{
	return (mask & GPAMAP_SET_ENABLED ? GPAMAP_REGION_DISABLED : 0) |
	       (mask & GPAMAP_SET_READONLY ? GPAMAP_REGION_READONLY : 0) |
	       (mask & GPAMAP_SET_NONVOLATILE ? GPAMAP_REGION_NONVOLATILE : 0) |
	       (mask & GPAMAP_SET_UNMERGEABLE ? GPAMAP_REGION_UNMERGEABLE : 0) |
	       (mask & GPAMAP_SET_ROMD ? GPAMAP_REGION_ROMD_MODE : 0);
}

/* What a well-formed operation must answer, and does to the model. */
static int model_op(struct model *m, const struct gpamap_op *op)
{
	struct model_region *r = &m->r[op->id];
	bool moved;

	switch (op->code) {
	case GPAMAP_OP_REGION:
		if (r->exists)
			return -EEXIST;
		if (op->kind == GPAMAP_REGION_ALIAS && !m->r[op->ref].exists)
			return -ENOENT;
		*r = (struct model_region){
			.exists = true, .kind = op->kind, .flags = op->flags,
			.last = op->last, .target = op->ref, .offset = op->offset,
			.hva = op->hva,
		};
		return 0;
	case GPAMAP_OP_ADD:
		if (!r->exists || !m->r[op->ref].exists)
			return -ENOENT;
		if (m->r[op->ref].kind == GPAMAP_REGION_ALIAS)
			return -EINVAL;
		if (r->container)
			return -EBUSY;
		r->container = op->ref;
		r->at = op->at;
		r->prio = op->prio;
		r->attached = ++m->clock;
		return 0;
	case GPAMAP_OP_DEL:
		if (!r->exists || !r->container)
			return -ENOENT;
		r->container = 0;
		return 0;
	case GPAMAP_OP_DESTROY:
		if (!r->exists)
			return -ENOENT;
		if (model_used(m, op->id))
			return -EBUSY;
		memset(r, 0, sizeof(*r));
		return 0;
	case GPAMAP_OP_SET:
		if (!r->exists)
			return -ENOENT;
		if ((op->mask & GPAMAP_SET_OFFSET && r->kind != GPAMAP_REGION_ALIAS) ||
		    (op->mask & GPAMAP_SET_ROMD && r->kind != GPAMAP_REGION_ROMD))
			return -EINVAL;
		if (op->mask & (GPAMAP_SET_AT | GPAMAP_SET_PRIO) && !r->container)
			return -ENOENT;
		if (op->mask & GPAMAP_SET_LAST && r->hva && r->hva + op->last < r->hva)
			return -EOVERFLOW;
		moved = (op->mask & GPAMAP_SET_AT && r->at != op->at) ||
			(op->mask & GPAMAP_SET_PRIO && r->prio != op->prio);
		r->flags = (r->flags & ~flags_of_mask(op->mask)) | op->flags;
		if (op->mask & GPAMAP_SET_OFFSET)
			r->offset = op->offset;
		if (op->mask & GPAMAP_SET_LAST)
			r->last = op->last;
		if (op->mask & GPAMAP_SET_AT)
			r->at = op->at;
		if (op->mask & GPAMAP_SET_PRIO)
			r->prio = op->prio;
		if (moved)
			r->attached = ++m->clock;
		return 0;
	}
	return -EOPNOTSUPP;
}

/*
 * So many ways down are followed. The core may follow each once for every dirty range, and
 * not more than GPAMAP_MAX_PATHS in all: what ends here in time has its right answer.
 */
#define MAX_WAYS 16384
#define MAX_EDGES 4096		/* where more begins and ends, not every address is asked */

/* Every way from the root down to what shows, or would if nothing lay above it. */
struct ways {
	u32 nr;			/* MAX_WAYS: not all were followed */
	bool deep;		/* one is longer than can be rendered; it may have no end */
	bool cyclic;		/* one leads through a region twice */
	bool on_way[NR_IDS + 1];
	u32 nr_edges;
	u64 edges[2 * MAX_WAYS];	/* addresses where something begins or has ended */
};

static void add_edge(struct ways *ways, __int128 addr)
{
	if (addr > 0 && addr < (__int128)1 << 64)
		ways->edges[ways->nr_edges++] = addr;
}

/* Region @id begins at address @base and can be seen from @lo on, up to @end. */
static void model_follow(const struct model *m, u32 id, __int128 base, __int128 lo,
			 __int128 end, u32 depth, struct ways *ways)
{
	const struct model_region *r = &m->r[id];
	bool again = ways->on_way[id];
	u32 child;

	if (ways->nr == MAX_WAYS)
		return;
	ways->nr++;
	lo = max(lo, base);
	end = min(end, base + r->last + 1);
	if (r->flags & GPAMAP_REGION_DISABLED || lo >= end)
		return;
	if (depth > GPAMAP_MAX_DEPTH) {
		ways->deep = true;
		return;
	}
	ways->cyclic |= again;
	ways->on_way[id] = true;
	add_edge(ways, lo);
	add_edge(ways, end);
	if (r->kind == GPAMAP_REGION_ALIAS)
		model_follow(m, r->target, base - r->offset, lo, end, depth + 1, ways);
	for (child = 1; child <= NR_IDS; child++)
		if (m->r[child].exists && m->r[child].container == id)
			model_follow(m, child, base + m->r[child].at, lo, end, depth + 1,
				     ways);
	ways->on_way[id] = again;
}

/* Whether it can be rendered: 0, -ELOOP, or -ENOSPC where that is not found out. */
static int model_render(const struct model *m, struct ways *ways)
{
	memset(ways, 0, offsetof(struct ways, edges));
	ways->edges[ways->nr_edges++] = 0;
	model_follow(m, 1, 0, 0, (__int128)1 << 64, 1, ways);
	if (ways->nr == MAX_WAYS)
		return -ENOSPC;
	return ways->deep ? -ELOOP : 0;
}

int do_op(struct gpamap_tree *tree, const struct gpamap_op *op)
{
	struct gpamap_txn txn;
	int rc;

	rc = gpamap_txn_begin(&txn, tree, 1);
	if (rc)
		return rc;
	rc = gpamap_txn_op(&txn, op);
	if (!rc)
		rc = gpamap_txn_render(&txn);
	if (rc)
		gpamap_txn_abort(&txn);
	else
		gpamap_txn_commit(&txn);
	return rc;
}

char *dump(struct gpamap_tree *tree)
{
	struct gpamap_region **list, *r, *c;
	const struct gpamap_range *range;
	struct gpamap_cursor cursor;
	struct gpamap_space *s;
	struct gpamap_root *root;
	unsigned long id;
	long fail = host_fail_alloc;
	char *text;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	u32 i;

	host_fail_alloc = 0;
	if (gpamap_tree_list(tree, &list))
		abort();
	host_fail_alloc = fail;
	fprintf(f, "%u regions %u spaces\n", tree->nr_regions, tree->nr_spaces);
	for (i = 0; i < tree->nr_regions; i++) {
		size_t aliases = 0;

		r = list[i];
		list_for_each_entry(c, &r->aliases, alias_link)
			aliases++;
		fprintf(f, "%s%u kind %u flags %u prio %d at %llx last %llx offset %llx "
			"hva %llx container %u seq %llu target %u aliases %zu root %d\n",
			r->dead ? "dead " : "", r->id, r->kind, r->flags, r->prio, r->at,
			r->last, r->offset, r->hva, r->container ? r->container->id : 0,
			r->seq, r->target ? r->target->id : 0, aliases, !!r->root);
	}
	free(list);
	xa_for_each(&tree->regions, id, r)
		fprintf(f, "id %lu\n", id);
	xa_for_each(&tree->spaces, id, s)
		fprintf(f, "space %u%s root %u\n", s->id, s->dead ? " dead" : "",
			s->root->region->id);
	list_for_each_entry(root, &tree->roots, link) {
		fprintf(f, "root %u spaces %u next %d dirty %u\n", root->region->id,
			root->nr_spaces, !!root->next, root->dirty.nr);
		range = gpamap_flatview_first(&cursor, root->view);
		for (; range; range = gpamap_flatview_next(&cursor))
			fprintf(f, "  %llx-%llx %u+%llx %u\n", range->start, range->last,
				range->region->id, range->offset, range->flags);
	}
	fclose(f);
	return text;
}

static struct seen view_see(const struct gpamap_flatview *view, u64 addr)
{
	const struct gpamap_range *r = gpamap_flatview_find(view, addr);

	if (!r)
		return (struct seen){ 0 };
	return (struct seen){ r->region->id, r->offset + (addr - r->start), r->flags };
}

/* The view in itself: ordered, disjoint, merged, counted, and its chunks as they must be. */
static const char *check_form(const struct gpamap_flatview *view)
{
	const struct gpamap_range *prev = NULL, *r;
	struct gpamap_cursor cursor;
	u32 nr = 0, i;

	for (i = 0; i < view->nr_chunks; i++)
		if (!view->chunks[i]->nr || view->chunks[i]->nr > GPAMAP_CHUNK_RANGES)
			return wrong("chunk %u has %u ranges", i, view->chunks[i]->nr);
	r = gpamap_flatview_first(&cursor, view);
	for (; r; prev = r, r = gpamap_flatview_next(&cursor), nr++) {
		if (r->start > r->last || (prev && prev->last >= r->start))
			return wrong("range at %llx out of order", r->start);
		if (prev && prev->last + 1 == r->start && prev->region == r->region &&
		    prev->flags == r->flags && !(r->flags & GPAMAP_REGION_UNMERGEABLE) &&
		    prev->offset + (r->start - prev->start) == r->offset)
			return wrong("range at %llx is not merged", r->start);
	}
	if (nr != view->nr)
		return wrong("%u ranges counted as %u", nr, view->nr);
	return NULL;
}

static bool same(const struct gpamap_range *a, const struct gpamap_range *b)
{
	return a->start == b->start && a->last == b->last && a->offset == b->offset &&
	       a->region == b->region && a->flags == b->flags;
}

/* Says where an incremental view and a fresh one part. */
static void differ(const struct gpamap_flatview *view, const struct gpamap_flatview *fresh)
{
	const struct gpamap_range *a, *b;
	struct gpamap_cursor ca, cb;

	a = gpamap_flatview_first(&ca, view);
	b = gpamap_flatview_first(&cb, fresh);
	while (a && b && same(a, b)) {
		a = gpamap_flatview_next(&ca);
		b = gpamap_flatview_next(&cb);
	}
	wrong("incremental %llx-%llx %u+%llx %u, fresh %llx-%llx %u+%llx %u",
	      a ? a->start : 0, a ? a->last : 0, a ? a->region->id : 0, a ? a->offset : 0,
	      a ? a->flags : 0, b ? b->start : 0, b ? b->last : 0, b ? b->region->id : 0,
	      b ? b->offset : 0, b ? b->flags : 0);
}

static const char *check_view(struct gpamap_tree *tree, const struct model *m,
			      const struct ways *ways)
{
	const struct gpamap_flatview *view = gpamap_tree_space(tree, 1)->root->view;
	struct gpamap_flatview *fresh;
	const char *text;
	bool equal;
	u32 i;

	text = check_form(view);
	if (text)
		return text;
	if (gpamap_flatview_render(gpamap_tree_region(tree, 1), NULL, NULL, &fresh))
		return wrong("cannot be rendered from nothing");
	equal = gpamap_flatview_equal(view, fresh);
	if (!equal)
		differ(view, fresh);
	gpamap_flatview_retire(fresh, NULL);
	if (!equal)
		return wrong_text;

	if (ways->nr_edges > MAX_EDGES)
		return NULL;
	for (i = 0; i < 2 * ways->nr_edges; i++) {
		u64 addr = i & 1 ? ways->edges[i / 2] - 1 : ways->edges[i / 2];
		struct seen want = model_see(m, 1, addr, 0);
		struct seen got = view_see(view, addr);

		if (want.id != got.id || want.offset != got.offset ||
		    want.flags != got.flags)
			return wrong("at %llx: want %u+%llx flags %u, got %u+%llx flags %u",
				     addr, want.id, want.offset, want.flags, got.id,
				     got.offset, got.flags);
	}
	return NULL;
}

/* What is gone is taken from the old ranges, what came from the new: the rest is equal. */
static const char *check_changes(const struct gpamap_root *root)
{
	const struct gpamap_changes *c = &root->changes;
	const struct gpamap_range *o, *n;
	struct gpamap_cursor co, cn;
	u32 gone = 0, come = 0;

	if (!root->next)
		return c->nr_gone || c->nr_come ? wrong("changes without a view") : NULL;
	o = gpamap_flatview_first(&co, root->view);
	n = gpamap_flatview_first(&cn, root->next);
	for (;;) {
		while (o && gone < c->nr_gone && same(o, &c->gone[gone])) {
			gone++;
			o = gpamap_flatview_next(&co);
		}
		while (n && come < c->nr_come && same(n, &c->come[come])) {
			come++;
			n = gpamap_flatview_next(&cn);
		}
		if (!o || !n)
			break;
		if (!same(o, n))
			return wrong("changes leave a difference at %llx", o->start);
		o = gpamap_flatview_next(&co);
		n = gpamap_flatview_next(&cn);
	}
	if (o || n || gone != c->nr_gone || come != c->nr_come)
		return wrong("changes do not explain the difference");
	return NULL;
}

#define MAX_OPS 64

struct batch {
	struct gpamap_txn txn;
	struct gpamap_op ops[MAX_OPS];
	struct model before[MAX_OPS + 1];	/* each operation; the last: the result */
	u32 nr;
	char *dump;				/* of the tree before */
};

static int is_refused(void *arg)
{
	return !!gpamap_txn_render(arg);
}

/* Before the operation to blame all can be rendered, and not after it. */
static const char *check_blame(struct batch *b)
{
	static struct ways ways;
	u32 op = gpamap_txn_blame(&b->txn, b->ops, is_refused, &b->txn);

	if (op >= b->nr)
		return wrong("operation %u of %u is to blame", op, b->nr);
	if (model_render(&b->before[op], &ways) == -ELOOP)
		return wrong("operation %u is to blame, but it was wrong before", op);
	if (!model_render(&b->before[op + 1], &ways))
		return wrong("operation %u is to blame, but all is well after it", op);
	return NULL;
}

/* Ends a batch. Sets *@keep to false if its result is refused. */
static const char *finish(struct gpamap_tree *tree, struct batch *b, bool *keep)
{
	const struct gpamap_root *root = gpamap_tree_space(tree, 1)->root;
	const struct model *m = &b->before[b->nr];
	const char *text = NULL;
	static struct ways ways;
	char *after;
	int want, got;
	bool equal;

	want = model_render(m, &ways);
	got = gpamap_txn_render(&b->txn);
	if (want == -ENOSPC) {
		/* Whatever it is, what cannot be compared is not kept. */
		exercised.unknown++;
		*keep = false;
	} else if (want != got) {
		return wrong("render: want %d, got %d", want, got);
	} else if (got) {
		exercised.refused++;
		*keep = false;
		text = check_blame(b);
	} else {
		exercised.rendered++;
		exercised.cyclic += ways.cyclic;
		text = check_changes(root);
	}
	if (text)
		return text;
	if (*keep) {
		gpamap_txn_commit(&b->txn);
		return check_view(tree, m, &ways);
	}
	gpamap_txn_abort(&b->txn);
	after = dump(tree);
	equal = !strcmp(b->dump, after);
	if (!equal)
		wrong("an abort left a trace:\n%.200s", after);
	free(after);
	return equal ? NULL : wrong_text;
}

static const char *run(struct gpamap_tree *tree, struct model *m,
		       enum step (*next)(void *arg, struct gpamap_op *op), void *arg)
{
	static struct batch b;
	const char *text = NULL;
	enum step step;
	bool keep;

	do {
		b.dump = dump(tree);
		b.before[0] = *m;
		if (gpamap_txn_begin(&b.txn, tree, MAX_OPS))
			abort();
		b.nr = 0;
		for (;;) {
			struct gpamap_op op;
			int want, got;

			step = next(arg, &op);
			if (step != STEP_OP || b.nr == MAX_OPS)
				break;
			b.ops[b.nr] = op;
			b.before[b.nr + 1] = b.before[b.nr];
			want = model_op(&b.before[b.nr + 1], &op);
			got = gpamap_txn_op(&b.txn, &op);
			if (want != got) {
				text = wrong("operation %u on %u: want %d, got %d",
					     op.code, op.id, want, got);
				gpamap_txn_abort(&b.txn);
				goto out;
			}
			b.nr += !got;
		}
		keep = step != STEP_ABORT;
		text = finish(tree, &b, &keep);
		if (keep)
			*m = b.before[b.nr];
out:
		free(b.dump);
	} while (!text && step != STEP_END);
	return text;
}

const char *exercise(enum step (*next)(void *arg, struct gpamap_op *op), void *arg)
{
	const struct gpamap_op root = { .code = GPAMAP_OP_REGION, .id = 1, .last = U64_MAX,
					.kind = GPAMAP_REGION_CONTAINER };
	const struct gpamap_op space = { .code = GPAMAP_OP_SPACE, .id = 1, .ref = 1,
					 .kind = GPAMAP_SPACE_VIEW };
	struct gpamap_tree tree;
	const char *text;
	struct model m;

	memset(&m, 0, sizeof(m));
	gpamap_tree_init(&tree);
	if (do_op(&tree, &root) || do_op(&tree, &space) || model_op(&m, &root))
		abort();
	text = run(&tree, &m, next, arg);
	gpamap_tree_destroy(&tree);
	return text;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * make bench-churn, in the test machine: replays map files and prints a line
 * `NAME VALUE UNIT` for every figure, then `NAME VALUE GOAL VERDICT` for those that have
 * a goal. Status 0: all goals are reached; 1: some are not; 2: something could not be
 * done, or does not agree.
 *
 * The least possible number of operations is found as follows. Memory that lies as one
 * piece in a view (one region, one offset, one kind of access) can be cut into slots in
 * many ways, and a slot that two views after each other have in common costs nothing.
 * Only the places matter at which memory begins or ends in some view of the file: a cut
 * elsewhere can as well be at the next of them. So for each region and offset all ways
 * to cut are tried, view after view, keeping for each the least number of deletes and
 * creates by which it can be reached (dynamic programming). It is as if the whole file
 * were known in advance. Moves do not come into it as long as no memory leaves one
 * address and appears at another in the same commit, which is checked.
 *
 * usage: churn NAME FILE LIMIT...	the goal is less than LIMIT operations
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "churn.h"

#define MAX_BORDERS 12
#define MAX_KEYS 64
#define MAX_COMMITS 256
#define MIB (1ULL << 20)

/* Memory that could be one slot, if it were all there. */
struct key {
	u32 as_id;
	u32 region;
	u32 readonly;
	u64 base;			/* address of the region's first byte */
	u32 nr_borders;
	u64 borders[MAX_BORDERS];	/* sorted */
	bool loses[MAX_COMMITS];
	bool gains[MAX_COMMITS];
};

/* A range of memory in a view. */
struct piece {
	u32 commit;			/* from 0 on */
	u32 key;
	u64 start;
	u64 end;
};

struct history {
	const char *name;
	struct key keys[MAX_KEYS];
	u32 nr_keys;
	struct piece *pieces;
	u32 nr_pieces;
	u32 nr_commits;
};

static void __attribute__((noreturn)) fail(const char *name, const char *why)
{
	fflush(stdout);
	fprintf(stderr, "churn: %s: %s\n", name, why);
	exit(2);
}

/* ---- the least possible ------------------------------------------------ */

static void add_border(struct history *h, struct key *key, u64 at)
{
	u32 i = 0;

	while (i < key->nr_borders && key->borders[i] < at)
		i++;
	if (i < key->nr_borders && key->borders[i] == at)
		return;
	if (key->nr_borders == MAX_BORDERS)
		fail(h->name, "memory begins and ends at too many places");
	memmove(&key->borders[i + 1], &key->borders[i],
		(key->nr_borders - i) * sizeof(key->borders[0]));
	key->borders[i] = at;
	key->nr_borders++;
}

static void add_piece(struct history *h, u32 as_id, const struct gpamap_range_info *range)
{
	struct piece piece = { .commit = h->nr_commits };
	struct key new = { .as_id = as_id, .region = range->region };
	struct key *key;

	if (!churn_is_memory(range, &piece.start, &piece.end))
		return;
	new.readonly = range->kind != GPAMAP_REGION_RAM ||
		       range->flags & GPAMAP_REGION_READONLY;
	new.base = range->start - range->offset;
	for (key = h->keys; key < h->keys + h->nr_keys; key++)
		if (key->as_id == new.as_id && key->region == new.region &&
		    key->readonly == new.readonly && key->base == new.base)
			break;
	if (key == h->keys + h->nr_keys) {
		if (h->nr_keys == MAX_KEYS)
			fail(h->name, "too many kinds of memory");
		*key = new;
		h->nr_keys++;
	}
	add_border(h, key, piece.start);
	add_border(h, key, piece.end);
	piece.key = key - h->keys;
	h->pieces = reallocarray(h->pieces, h->nr_pieces + 1, sizeof(piece));
	if (!h->pieces)
		fail(h->name, "out of memory");
	h->pieces[h->nr_pieces++] = piece;
}

static void add_views(struct history *h, struct gpamap *map)
{
	struct gpamap_space_info *spaces;
	struct gpamap_range_info *ranges;
	u32 nr_spaces, nr, i, k;

	if (h->nr_commits == MAX_COMMITS)
		fail(h->name, "too many commits");
	if (gpamap_query_spaces(map, &spaces, &nr_spaces))
		fail(h->name, "query spaces failed");
	for (i = 0; i < nr_spaces; i++) {
		if (spaces[i].kind != GPAMAP_SPACE_MEMORY)
			continue;
		if (gpamap_query_ranges(map, spaces[i].id, &ranges, &nr))
			fail(h->name, "query ranges failed");
		for (k = 0; k < nr; k++)
			add_piece(h, spaces[i].as_id, &ranges[k]);
		free(ranges);
	}
	free(spaces);
	h->nr_commits++;
}

/* The stretches between borders, as a mask, that a view has of @key. */
static u32 covered(const struct history *h, const struct key *key, u32 commit)
{
	u32 mask = 0;
	u32 i, k;

	for (i = 0; i < h->nr_pieces; i++) {
		const struct piece *piece = &h->pieces[i];

		if (piece->commit != commit || &h->keys[piece->key] != key)
			continue;
		for (k = 0; k + 1 < key->nr_borders; k++)
			if (piece->start <= key->borders[k] &&
			    key->borders[k] < piece->end)
				mask |= 1U << k;
	}
	return mask;
}

/* Slots of @a that @b has not: a slot is some stretches between two cuts, covered. */
static u32 slots_gone(u32 covered_a, u32 cuts_a, u32 covered_b, u32 cuts_b,
		      u32 nr_borders)
{
	u32 from, to, gone = 0;

	for (from = 0; from + 1 < nr_borders; from = to) {
		u32 inside;

		to = from + 1;
		if (!(covered_a & 1U << from))
			continue;
		while (!(cuts_a & 1U << to))
			to++;
		inside = (1U << to) - (1U << from);
		if ((covered_b & inside) != inside || !(cuts_b & 1U << from) ||
		    !(cuts_b & 1U << to) || cuts_b & inside & ~(1U << from))
			gone++;
	}
	return gone;
}

static u32 least_of_key(const struct history *h, struct key *key)
{
	static u32 best[1 << MAX_BORDERS], next[1 << MAX_BORDERS];
	u32 all = 1U << key->nr_borders;
	u32 old_covered = 0, least = UINT32_MAX;
	u32 commit, cuts, old, i;

	for (i = 0; i < all; i++)
		best[i] = UINT32_MAX;
	best[0] = 0;
	for (commit = 0; commit < h->nr_commits; commit++) {
		u32 now = covered(h, key, commit);
		/* At its ends memory is cut, within it can be. */
		u32 ends = now ^ now << 1, within = now & now << 1;

		key->loses[commit] = old_covered & ~now;
		key->gains[commit] = now & ~old_covered;
		/* To cut anew costs, and can as well be done when there is a need. */
		if (now == old_covered)
			continue;
		for (i = 0; i < all; i++)
			next[i] = UINT32_MAX;
		for (cuts = 0; cuts < all; cuts++) {
			if ((cuts & ~within) != ends)
				continue;
			for (old = 0; old < all; old++) {
				u32 cost;

				if (best[old] == UINT32_MAX)
					continue;
				cost = best[old] +
				       slots_gone(old_covered, old, now, cuts,
						  key->nr_borders) +
				       slots_gone(now, cuts, old_covered, old,
						  key->nr_borders);
				if (cost < next[cuts])
					next[cuts] = cost;
			}
		}
		memcpy(best, next, sizeof(best));
		old_covered = now;
	}
	for (i = 0; i < all; i++)
		if (best[i] < least)
			least = best[i];
	return least;
}

/* Whether memory leaves one address and appears at another in one commit. */
static bool could_move(const struct history *h)
{
	const struct key *from, *to;
	u32 commit;

	for (from = h->keys; from < h->keys + h->nr_keys; from++)
		for (to = h->keys; to < h->keys + h->nr_keys; to++)
			for (commit = 0; commit < h->nr_commits; commit++)
				if (from != to && from->as_id == to->as_id &&
				    from->region == to->region &&
				    from->readonly == to->readonly &&
				    from->loses[commit] && to->gains[commit])
					return true;
	return false;
}

static u32 least_possible(struct history *h)
{
	u32 sum = 0;
	u32 i;

	for (i = 0; i < h->nr_keys; i++)
		sum += least_of_key(h, &h->keys[i]);
	if (could_move(h))
		fail(h->name, "memory moves: the least possible is not known");
	return sum;
}

/* ---- figures ------------------------------------------------------------ */

static void print_count(const char *name, const char *of, const struct churn_count *count)
{
	printf("%s.%soperations %u operations\n", name, of, churn_operations(count));
	printf("%s.%sdeletes %u operations\n", name, of, count->deletes);
	printf("%s.%smoves %u operations\n", name, of, count->moves);
	printf("%s.%screates %u operations\n", name, of, count->creates);
	printf("%s.%sdeleted %llu bytes\n", name, of,
	       (unsigned long long)count->deleted_bytes);
	printf("%s.%slargest_delete %llu bytes\n", name, of,
	       (unsigned long long)count->largest_delete);
}

/* Commits that do nothing, neither here nor in QEMU, are left out. */
static void each(const struct churn_commit *commit, void *arg)
{
	struct history *h = arg;
	char of[32];

	if (churn_operations(&commit->did) || churn_operations(&commit->qemu)) {
		snprintf(of, sizeof(of), "commit%u.", commit->number);
		print_count(h->name, of, &commit->did);
		snprintf(of, sizeof(of), "commit%u.qemu.", commit->number);
		print_count(h->name, of, &commit->qemu);
	}
	add_views(h, commit->map);
}

/* True if it is reached. */
static bool goal(const char *name, const char *of, u64 value, const char *how, u64 limit)
{
	bool reached = how[1] ? value <= limit : value < limit;

	printf("goal.%s.%s %llu goal%s%llu %s\n", name, of, (unsigned long long)value,
	       how, (unsigned long long)limit, reached ? "reached" : "missed");
	return reached;
}

/* True if its goals are reached. */
static bool measure(const char *name, const char *path, const char *limit)
{
	struct history *h = calloc(1, sizeof(*h));
	struct churn_total total;
	u64 operations, max;
	const char *why;
	bool reached;
	char *end;

	if (!h)
		fail(name, "out of memory");
	errno = 0;
	max = strtoull(limit, &end, 10);
	if (errno || end == limit || *end)
		fail(name, "the limit is not a number");
	h->name = name;
	why = churn_replay(path, each, h, &total);
	if (why)
		fail(name, why);

	operations = churn_operations(&total.did);
	printf("%s.commits %u commits\n", name, total.commits);
	print_count(name, "", &total.did);
	printf("%s.held %u commits\n", name, total.held);
	printf("%s.taken %llu bytes\n", name, (unsigned long long)total.taken);
	print_count(name, "qemu.", &total.qemu);
	printf("%s.least.operations %u operations\n", name, least_possible(h));
	reached = goal(name, "largest_delete", total.did.largest_delete, "<=", MIB);
	reached &= goal(name, "operations", operations, "<", max);
	free(h->pieces);
	free(h);
	return reached;
}

int main(int argc, char **argv)
{
	bool reached = true;
	int i;

	if (argc < 4 || argc % 3 != 1) {
		fprintf(stderr, "usage: churn NAME FILE LIMIT...\n");
		return 2;
	}
	for (i = 1; i < argc; i += 3)
		reached &= measure(argv[i], argv[i + 1], argv[i + 2]);
	return !reached;
}

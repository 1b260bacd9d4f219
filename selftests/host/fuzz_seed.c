// SPDX-License-Identifier: GPL-2.0
/*
 * Seeds for fuzz_core: a map file as its records.
 *
 * An input has few ids, and region 1 is the root. So the regions of a map file get new
 * ids from 2 on, in the order in which they are made; where there are more than ids,
 * the map becomes several seeds, each with as many regions as fit, and what refers to
 * others refers to some region of the seed. Where the file makes a space, its root is
 * put into region 1.
 *
 * usage: fuzz_seed DIRECTORY FILE...
 */
#include <gpamap.h>
#include "exercise.h"
#include "fuzz_record.h"

#define PER_SEED (NR_IDS - 1)

enum { CODE_REGION, CODE_ADD, CODE_DEL, CODE_DESTROY, CODE_SET, CODE_COMMIT = 0xf0 };

struct seed {
	FILE *out;
	u32 first;		/* region, by the order in which they are made, of the seed */
	u32 nr_ids;		/* met so far */
	u32 ids[GPAMAP_MAX_REGIONS];
	u32 batch;		/* records since the last commit */
};

static void put(struct seed *s, struct fuzz_record rec)
{
	if (fwrite(&rec, sizeof(rec), 1, s->out) != 1)
		abort();
	s->batch = rec.code == CODE_COMMIT ? 0 : s->batch + 1;
	/* A longer batch than exercise() takes is cut in two. */
	if (s->batch == 60)
		put(s, (struct fuzz_record){ .code = CODE_COMMIT });
}

/* The place of @id in the order. */
static u32 place(struct seed *s, u32 id)
{
	u32 i;

	for (i = 0; i < s->nr_ids; i++)
		if (s->ids[i] == id)
			return i;
	if (s->nr_ids == GPAMAP_MAX_REGIONS)
		abort();
	s->ids[s->nr_ids] = id;
	return s->nr_ids++;
}

static bool here(const struct seed *s, u32 at)
{
	return at >= s->first && at < s->first + PER_SEED;
}

/* As a member of a record, in which 0 is region 1. */
static uint8_t short_id(u32 at)
{
	return 1 + at % PER_SEED;
}

static int8_t short_prio(s32 prio)
{
	return max(min(prio, 127), -128);
}

static void set(struct seed *s, struct fuzz_record rec, const struct gpamap_op *op)
{
	const u32 at_mask = GPAMAP_SET_AT | GPAMAP_SET_OFFSET;

	rec.code = CODE_SET;
	rec.last = op->last;
	rec.mask = op->mask & ~GPAMAP_SET_OFFSET;
	rec.at = op->at;
	/* Both in one are two, for the record has one member for both. */
	if ((op->mask & at_mask) == at_mask)
		put(s, rec);
	if (op->mask & GPAMAP_SET_OFFSET) {
		rec.mask = (op->mask & at_mask) == at_mask ? GPAMAP_SET_OFFSET : op->mask;
		rec.at = op->offset;
	}
	put(s, rec);
}

static void put_op(struct seed *s, const struct gpamap_op *op)
{
	struct fuzz_record rec = {
		.flags = op->flags, .prio = short_prio(op->prio), .at = op->at,
	};
	u32 at;

	if (op->code == GPAMAP_OP_SPACE_DESTROY)
		return;
	at = place(s, op->code == GPAMAP_OP_SPACE ? op->ref : op->id);
	if (!here(s, at))
		return;
	rec.id = short_id(at);
	switch (op->code) {
	case GPAMAP_OP_REGION:
		rec.code = CODE_REGION;
		rec.kind = op->kind - 1;
		rec.last = op->last;
		if (op->kind == GPAMAP_REGION_ALIAS) {
			rec.ref = short_id(place(s, op->ref));
			rec.at = op->offset;
		}
		break;
	case GPAMAP_OP_ADD:
		rec.code = CODE_ADD;
		at = place(s, op->ref);
		rec.ref = here(s, at) ? short_id(at) : 0;
		break;
	case GPAMAP_OP_DEL:
		rec.code = CODE_DEL;
		break;
	case GPAMAP_OP_DESTROY:
		rec.code = CODE_DESTROY;
		break;
	case GPAMAP_OP_SET:
		set(s, rec, op);
		return;
	case GPAMAP_OP_SPACE:
		rec.code = CODE_ADD;
		break;
	}
	put(s, rec);
}

/* Returns how many regions the file has, or -1. */
static int make_seed(const char *dir, const char *path, u32 first)
{
	static struct seed s;
	const char *base = strrchr(path, '/');
	struct gpamap_mapfile *file;
	struct gpamap_op op;
	char name[4096];
	int item;

	memset(&s, 0, sizeof(s));
	s.first = first;
	snprintf(name, sizeof(name), "%s/%s.%u", dir, base ? base + 1 : path,
		 first / PER_SEED);
	s.out = fopen(name, "wb");
	if (!s.out || gpamap_mapfile_open(path, &file)) {
		fprintf(stderr, "fuzz_seed: cannot make %s from %s\n", name, path);
		return -1;
	}
	while ((item = gpamap_mapfile_next(file, &op)) != GPAMAP_MAPFILE_END) {
		if (item == GPAMAP_MAPFILE_OP) {
			put_op(&s, &op);
		} else if (item == GPAMAP_MAPFILE_COMMIT) {
			if (s.batch)
				put(&s, (struct fuzz_record){ .code = CODE_COMMIT });
		} else {
			fprintf(stderr, "fuzz_seed: %s:%u: %s\n", path,
				gpamap_mapfile_line(file), gpamap_mapfile_error(file));
			break;
		}
	}
	gpamap_mapfile_close(file);
	if (fclose(s.out) || item != GPAMAP_MAPFILE_END)
		return -1;
	return s.nr_ids;
}

int main(int argc, char **argv)
{
	int i, nr;
	u32 first;

	if (argc < 3) {
		fprintf(stderr, "usage: fuzz_seed DIRECTORY FILE...\n");
		return 2;
	}
	for (i = 2; i < argc; i++) {
		first = 0;
		do {
			nr = make_seed(argv[1], argv[i], first);
			if (nr < 0)
				return 1;
			first += PER_SEED;
		} while (first < (u32)nr);
	}
	return 0;
}

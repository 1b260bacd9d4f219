// SPDX-License-Identifier: GPL-2.0
/*
 * gpamap flatten: a map file run on the same core that runs in the kernel.
 *
 * Operations are done as they are read, inside a transaction that begins with
 * the first line after a commit and ends with the next; so an operation that is
 * refused is refused at its line. What is wrong with the result of a commit is
 * blamed on the line of the operation without which it is gone. Operations after
 * the last commit are checked and then forgotten.
 */
#include <errno.h>
#include <getopt.h>
#include <gpamap.h>
#include "core.h"
#include "tool.h"

struct flatten {
	const char *path;
	struct gpamap_mapfile *file;
	struct gpamap_tree tree;
	struct gpamap_txn txn;
	bool open;			/* the transaction */
	unsigned int nr_commits;
	struct gpamap_op ops[GPAMAP_MAX_OPS];	/* of the transaction */
	unsigned int lines[GPAMAP_MAX_OPS];
};

static int fail_at(const struct flatten *f, unsigned int line, const char *what, int err)
{
	fflush(stdout);
	fprintf(stderr, "%s:%u: %s (%s)\n", f->path, line, what, strerrorname_np(-err));
	return 1;
}

static void print_views(struct flatten *f)
{
	char line[GPAMAP_RANGE_LINE_LEN];
	const struct gpamap_range *range;
	struct gpamap_cursor cursor;
	struct gpamap_space *space;
	unsigned long id;

	xa_for_each(&f->tree.spaces, id, space) {
		printf("address-space: %s\n", space->name);
		range = gpamap_flatview_first(&cursor, space->root->view);
		for (; range; range = gpamap_flatview_next(&cursor)) {
			gpamap_range_print(line, sizeof(line), range);
			puts(line);
		}
	}
}

static int do_op(struct flatten *f, const struct gpamap_op *op)
{
	unsigned int line = gpamap_mapfile_line(f->file);
	u32 nr = f->txn.nr;
	int rc = 0;

	if (!f->open) {
		rc = gpamap_txn_begin(&f->txn, &f->tree, GPAMAP_MAX_OPS);
		if (rc)
			return fail_at(f, line, gpamap_op_error(op, rc), rc);
		f->open = true;
		nr = 0;
	}
	rc = gpamap_txn_op(&f->txn, op);
	if (rc)
		return fail_at(f, line, gpamap_op_error(op, rc), rc);
	f->ops[nr] = *op;
	f->lines[nr] = line;
	return 0;
}

static int still_bad(void *arg)
{
	struct flatten *f = arg;
	int rc = gpamap_txn_render(&f->txn);

	return rc == -ENOMEM ? rc : !!rc;
}

/* The commit failed with @err: names the operation without which it would not. */
static int blame(struct flatten *f, int err)
{
	u32 nr = gpamap_txn_blame(&f->txn, f->ops, still_bad, f);

	if (nr == GPAMAP_NO_OP)
		return fail_at(f, gpamap_mapfile_line(f->file), gpamap_op_error(NULL, err),
			       err);
	return fail_at(f, f->lines[nr], gpamap_op_error(&f->ops[nr], err), err);
}

static int do_commit(struct flatten *f, bool each)
{
	int rc;

	f->nr_commits++;
	if (f->open) {
		rc = gpamap_txn_render(&f->txn);
		if (rc)
			return blame(f, rc);
		gpamap_txn_commit(&f->txn);
		f->open = false;
	}
	if (each) {
		printf("commit %u\n", f->nr_commits);
		print_views(f);
	}
	return 0;
}

static int run(struct flatten *f, bool each)
{
	struct gpamap_op op;
	int status, item;

	for (;;) {
		item = gpamap_mapfile_next(f->file, &op);
		switch (item) {
		case GPAMAP_MAPFILE_OP:
			status = do_op(f, &op);
			break;
		case GPAMAP_MAPFILE_COMMIT:
			status = do_commit(f, each);
			break;
		case GPAMAP_MAPFILE_END:
			return 0;
		default:
			return fail_at(f, gpamap_mapfile_line(f->file),
				       gpamap_mapfile_error(f->file), item);
		}
		if (status)
			return status;
	}
}

static int flatten(const char *path, bool each)
{
	struct flatten *f = calloc(1, sizeof(*f));
	int status = 1;
	int rc;

	if (!f) {
		complain("out of memory");
		return 1;
	}
	f->path = path;
	rc = gpamap_mapfile_open(path, &f->file);
	if (rc) {
		complain("cannot read %s: %s (%s)", path, strerrordesc_np(-rc),
			 strerrorname_np(-rc));
		goto out_free;
	}
	gpamap_tree_init(&f->tree);
	status = run(f, each);
	if (f->open)
		gpamap_txn_abort(&f->txn);
	if (!status && !each)
		print_views(f);
	gpamap_tree_destroy(&f->tree);
	gpamap_mapfile_close(f->file);
out_free:
	free(f);
	return status;
}

int cmd_flatten(int argc, char **argv)
{
	static const struct option options[] = {
		{ "each", no_argument, NULL, 'e' },
		{ NULL, 0, NULL, 0 },
	};
	bool each = false;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c != 'e') {
			complain("flatten: unknown option %s", argv[optind - 1]);
			return EXIT_USAGE;
		}
		each = true;
	}
	if (optind != argc - 1) {
		complain("flatten: %s", optind == argc ? "a FILE is missing" :
							 "there is more than one FILE");
		return EXIT_USAGE;
	}
	return flatten(argv[optind], each);
}

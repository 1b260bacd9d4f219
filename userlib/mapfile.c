// SPDX-License-Identifier: LGPL-2.1-only OR MIT
/*
 * The map file: a text file of operations, one a line, read one by one.
 *
 *	region ID KIND "NAME" last=N [of=ID offset=N] [hva=N] [readonly] [nonvolatile]
 *		[disabled] [romd=0|1] [unmergeable]
 *	add ID to ID at=N prio=N
 *	del ID
 *	destroy ID
 *	set ID KEY=VALUE...	enabled readonly nonvolatile romd unmergeable last at prio
 *		offset
 *	space "NAME" root=ID [kind=memory|io|view] [as=N]
 *	commit
 *
 * A line is cut into words at blanks; a name in double quotes is one word; # begins
 * a comment, but not inside a name. A statement takes some words in fixed places
 * and then keys in any order, each at most once. Numbers are decimal or 0x...;
 * a leading zero is refused, for it would mean octal to some and not to others.
 *
 * What a statement means is left to whoever applies the operation. Refused here is
 * only what cannot be expressed as one.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"

/* Host memory that was made for a region. */
struct memory {
	struct memory *next;
	void *addr;
	size_t len;
};

struct gpamap_mapfile {
	struct memory *memory;
	FILE *file;
	char *line;
	size_t line_max;
	unsigned int nr_line;
	unsigned int *op_lines;	/* of the operations of the batch that was filled last */
	uint32_t nr_spaces;
	char error[160];

	/* The line that is being read. */
	char *pos;
	char *word;		/* the word taken last */
	bool quoted;		/* it stood in quotes */
	unsigned int keys;	/* those seen so far */
};

/* Keys, as a set. */
enum {
	KEY_LAST = 1 << 0,
	KEY_OF = 1 << 1,
	KEY_OFFSET = 1 << 2,
	KEY_HVA = 1 << 3,
	KEY_READONLY = 1 << 4,
	KEY_DISABLED = 1 << 5,
	KEY_AT = 1 << 6,
	KEY_PRIO = 1 << 7,
	KEY_ENABLED = 1 << 8,
	KEY_ROOT = 1 << 9,
	KEY_KIND = 1 << 10,
	KEY_AS = 1 << 11,
	KEY_NONVOLATILE = 1 << 12,
	KEY_UNMERGEABLE = 1 << 13,
	KEY_ROMD = 1 << 14,
};

/* Keys that have no value when a region is made. */
#define KEYS_FLAG (KEY_READONLY | KEY_DISABLED | KEY_NONVOLATILE | KEY_UNMERGEABLE)

static const struct {
	const char *word;
	uint32_t value;
} region_kinds[] = {
	{ "container", GPAMAP_REGION_CONTAINER },
	{ "ram", GPAMAP_REGION_RAM },
	{ "rom", GPAMAP_REGION_ROM },
	{ "io", GPAMAP_REGION_IO },
	{ "alias", GPAMAP_REGION_ALIAS },
	{ "romd", GPAMAP_REGION_ROMD },
	{ "reserved", GPAMAP_REGION_RESERVED },
}, space_kinds[] = {
	{ "memory", GPAMAP_SPACE_MEMORY },
	{ "io", GPAMAP_SPACE_IO },
	{ "view", GPAMAP_SPACE_VIEW },
};

int gpamap_mapfile_open(const char *path, struct gpamap_mapfile **out)
{
	struct gpamap_mapfile *mf = calloc(1, sizeof(*mf));
	int saved = errno;
	int rc = 0;

	if (!mf)
		return -ENOMEM;
	mf->file = fopen(path, "re");
	if (!mf->file) {
		rc = -errno;
		free(mf);
	} else {
		*out = mf;
	}
	errno = saved;
	return rc;
}

void gpamap_mapfile_close(struct gpamap_mapfile *mf)
{
	int saved = errno;

	if (!mf)
		return;
	while (mf->memory) {
		struct memory *memory = mf->memory;

		mf->memory = memory->next;
		munmap(memory->addr, memory->len);
		free(memory);
	}
	fclose(mf->file);
	free(mf->line);
	free(mf->op_lines);
	free(mf);
	errno = saved;
}

unsigned int gpamap_mapfile_line(const struct gpamap_mapfile *mf)
{
	return mf->nr_line;
}

const char *gpamap_mapfile_error(const struct gpamap_mapfile *mf)
{
	return mf->error;
}

__attribute__((format(printf, 3, 4)))
static int fail(struct gpamap_mapfile *mf, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(mf->error, sizeof(mf->error), format, args);
	va_end(args);
	return err;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Takes the next word: 1, 0 at the end of the line, or an error. */
static int next_word(struct gpamap_mapfile *mf)
{
	char *end;

	while (is_blank(*mf->pos))
		mf->pos++;
	mf->word = mf->pos;
	mf->quoted = *mf->pos == '"';
	if (!*mf->pos || *mf->pos == '#') {
		*mf->pos = '\0';
		return 0;
	}
	if (mf->quoted) {
		end = strchr(++mf->word, '"');
		if (!end)
			return fail(mf, -EINVAL, "the name has no closing quote");
		if (end[1] && !is_blank(end[1]) && end[1] != '#')
			return fail(mf, -EINVAL, "a blank is missing after the name");
		*end = '\0';
		mf->pos = end + 1;
		return 1;
	}
	end = mf->pos + strcspn(mf->pos, " \t\r\n#");
	mf->pos = end;
	if (is_blank(*end))
		mf->pos++;
	else if (*end == '#')
		mf->pos += strlen(end);
	*end = '\0';
	return 1;
}

/* Takes a word that must be there and not be quoted. */
static int need_word(struct gpamap_mapfile *mf, const char *what)
{
	int rc = next_word(mf);

	if (rc < 0)
		return rc;
	if (!rc || mf->quoted)
		return fail(mf, -EINVAL, "%s is missing", what);
	return 0;
}

static int read_u64(struct gpamap_mapfile *mf, const char *text, uint64_t max,
		    uint64_t *out)
{
	bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	const char *digits = hex ? text + 2 : text;
	char *end;

	if (!digits[0] ||
	    digits[strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789")])
		return fail(mf, -EINVAL, "\"%.32s\" is not a number", text);
	if (!hex && digits[0] == '0' && digits[1])
		return fail(mf, -EINVAL, "\"%.32s\" begins with 0 but is not 0x...", text);
	errno = 0;
	*out = strtoull(digits, &end, hex ? 16 : 10);
	if (errno || *out > max)
		return fail(mf, -EINVAL, "%.32s is too large", text);
	return 0;
}

static int read_u32(struct gpamap_mapfile *mf, const char *text, uint32_t *out)
{
	uint64_t value;
	int rc = read_u64(mf, text, UINT32_MAX, &value);

	*out = value;
	return rc;
}

static int read_id(struct gpamap_mapfile *mf, const char *text, uint32_t *out)
{
	int rc = read_u32(mf, text, out);

	if (!rc && !*out)
		return fail(mf, -EINVAL, "an id is above 0");
	return rc;
}

static int read_prio(struct gpamap_mapfile *mf, const char *text, int32_t *out)
{
	bool minus = *text == '-';
	uint64_t value;
	int rc;

	rc = read_u64(mf, text + minus, (uint64_t)INT32_MAX + minus, &value);
	*out = minus ? (int32_t)-(int64_t)value : (int32_t)value;
	return rc;
}

static int read_bool(struct gpamap_mapfile *mf, const char *text, bool *out)
{
	if (strcmp(text, "0") && strcmp(text, "1"))
		return fail(mf, -EINVAL, "\"%.32s\" is neither 0 nor 1", text);
	*out = *text == '1';
	return 0;
}

static int need_id(struct gpamap_mapfile *mf, const char *what, uint32_t *out)
{
	int rc = need_word(mf, what);

	return rc ? rc : read_id(mf, mf->word, out);
}

static int need_name(struct gpamap_mapfile *mf, struct gpamap_op *op)
{
	size_t len;
	int rc;

	rc = next_word(mf);
	if (rc < 0)
		return rc;
	if (!rc || !mf->quoted)
		return fail(mf, -EINVAL, "a name in double quotes is missing");
	len = strlen(mf->word);
	if (len >= sizeof(op->name))
		return fail(mf, -EINVAL, "the name is longer than %zu bytes",
			    sizeof(op->name) - 1);
	memcpy(op->name, mf->word, len);
	return 0;
}

static int bad_word(struct gpamap_mapfile *mf, const char *what, const char *word)
{
	return fail(mf, -EINVAL, "unknown %s \"%.32s\"", what, word);
}

static int read_space_kind(struct gpamap_mapfile *mf, const char *value, uint32_t *out)
{
	size_t i;

	for (i = 0; i < sizeof(space_kinds) / sizeof(space_kinds[0]); i++) {
		if (!strcmp(value, space_kinds[i].word)) {
			*out = space_kinds[i].value;
			return 0;
		}
	}
	return bad_word(mf, "kind of space", value);
}

/* All keys; ->set is the member of gpamap_op.mask when the statement is SET. */
static const struct key {
	const char *word;
	unsigned int key;
	uint32_t set;
} keys[] = {
	{ "last", KEY_LAST, GPAMAP_SET_LAST },
	{ "of", KEY_OF, 0 },
	{ "offset", KEY_OFFSET, GPAMAP_SET_OFFSET },
	{ "hva", KEY_HVA, 0 },
	{ "readonly", KEY_READONLY, GPAMAP_SET_READONLY },
	{ "disabled", KEY_DISABLED, 0 },
	{ "at", KEY_AT, GPAMAP_SET_AT },
	{ "prio", KEY_PRIO, GPAMAP_SET_PRIO },
	{ "enabled", KEY_ENABLED, GPAMAP_SET_ENABLED },
	{ "root", KEY_ROOT, 0 },
	{ "kind", KEY_KIND, 0 },
	{ "as", KEY_AS, 0 },
	{ "nonvolatile", KEY_NONVOLATILE, GPAMAP_SET_NONVOLATILE },
	{ "unmergeable", KEY_UNMERGEABLE, GPAMAP_SET_UNMERGEABLE },
	{ "romd", KEY_ROMD, GPAMAP_SET_ROMD },
};

/* The flag of struct gpamap_op that a key stands for, when its value is @on. */
static uint32_t key_flag(unsigned int key, bool on)
{
	switch (key) {
	case KEY_READONLY:
		return on ? GPAMAP_REGION_READONLY : 0;
	case KEY_NONVOLATILE:
		return on ? GPAMAP_REGION_NONVOLATILE : 0;
	case KEY_UNMERGEABLE:
		return on ? GPAMAP_REGION_UNMERGEABLE : 0;
	case KEY_ROMD:
		return on ? GPAMAP_REGION_ROMD_MODE : 0;
	case KEY_DISABLED:
		return on ? GPAMAP_REGION_DISABLED : 0;
	}
	return on ? 0 : GPAMAP_REGION_DISABLED;	/* enabled */
}

static int read_value(struct gpamap_mapfile *mf, struct gpamap_op *op, unsigned int key,
		      const char *value)
{
	uint64_t number;
	bool on = true;
	int rc;

	switch (key) {
	case KEY_OF:
	case KEY_ROOT:
		return read_id(mf, value, &op->ref);
	case KEY_PRIO:
		return read_prio(mf, value, &op->prio);
	case KEY_AS:
		return read_u32(mf, value, &op->as_id);
	case KEY_KIND:
		return read_space_kind(mf, value, &op->kind);
	case KEY_READONLY:
	case KEY_NONVOLATILE:
	case KEY_UNMERGEABLE:
	case KEY_ROMD:
	case KEY_DISABLED:
	case KEY_ENABLED:
		rc = value ? read_bool(mf, value, &on) : 0;
		op->flags |= key_flag(key, on);
		return rc;
	}

	rc = read_u64(mf, value, UINT64_MAX, &number);
	if (key == KEY_LAST)
		op->last = number;
	else if (key == KEY_OFFSET)
		op->offset = number;
	else if (key == KEY_HVA)
		op->hva = number;
	else
		op->at = number;
	return rc;
}

/*
 * Takes the keys up to the end of the line: those of @need must be there, those
 * of @may can be. In a statement other than SET the keys of KEYS_FLAG have no
 * value; everything else has one.
 */
static int read_keys(struct gpamap_mapfile *mf, struct gpamap_op *op, unsigned int need,
		     unsigned int may)
{
	bool set = op->code == GPAMAP_OP_SET;
	size_t i;
	int rc;

	mf->keys = 0;
	while ((rc = next_word(mf)) > 0) {
		char *value = mf->quoted ? NULL : strchr(mf->word, '=');
		bool flag;

		if (value)
			*value++ = '\0';
		for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
			if (!mf->quoted && !strcmp(mf->word, keys[i].word) &&
			    keys[i].key & (need | may))
				break;
		if (i == sizeof(keys) / sizeof(keys[0]))
			return bad_word(mf, "word", mf->word);
		if (mf->keys & keys[i].key)
			return fail(mf, -EINVAL, "%s stands there twice", keys[i].word);
		flag = !set && keys[i].key & KEYS_FLAG;
		if (flag && value)
			return fail(mf, -EINVAL, "%s has no value", keys[i].word);
		if (!flag && !value)
			return fail(mf, -EINVAL, "%s needs a value", keys[i].word);
		rc = read_value(mf, op, keys[i].key, value);
		if (rc)
			return rc;
		mf->keys |= keys[i].key;
		if (set)
			op->mask |= keys[i].set;
	}
	if (rc)
		return rc;
	for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		if (keys[i].key & need & ~mf->keys)
			return fail(mf, -EINVAL, "%s=... is missing", keys[i].word);
	if (set && !mf->keys)
		return fail(mf, -EINVAL, "there is nothing to set");
	return 0;
}

static int read_region(struct gpamap_mapfile *mf, struct gpamap_op *op)
{
	unsigned int need = KEY_LAST;
	unsigned int may = KEYS_FLAG;
	size_t i;
	int rc;

	op->code = GPAMAP_OP_REGION;
	rc = need_id(mf, "the id of the region", &op->id);
	if (rc)
		return rc;
	rc = need_word(mf, "the kind of the region");
	if (rc)
		return rc;
	for (i = 0; i < sizeof(region_kinds) / sizeof(region_kinds[0]); i++)
		if (!strcmp(mf->word, region_kinds[i].word))
			op->kind = region_kinds[i].value;
	switch (op->kind) {
	case 0:
		return bad_word(mf, "kind of region", mf->word);
	case GPAMAP_REGION_ALIAS:
		need |= KEY_OF | KEY_OFFSET;
		break;
	case GPAMAP_REGION_ROMD:
		may |= KEY_HVA | KEY_ROMD;
		break;
	case GPAMAP_REGION_RAM:
	case GPAMAP_REGION_ROM:
		may |= KEY_HVA;
		break;
	}
	rc = need_name(mf, op);
	if (rc)
		return rc;
	rc = read_keys(mf, op, need, may);
	if (op->kind == GPAMAP_REGION_ROMD && !(mf->keys & KEY_ROMD))
		op->flags |= GPAMAP_REGION_ROMD_MODE;
	return rc;
}

static int read_add(struct gpamap_mapfile *mf, struct gpamap_op *op)
{
	int rc;

	op->code = GPAMAP_OP_ADD;
	rc = need_id(mf, "the id of the region", &op->id);
	if (rc)
		return rc;
	rc = need_word(mf, "the word to");
	if (rc)
		return rc;
	if (strcmp(mf->word, "to"))
		return fail(mf, -EINVAL, "\"to\" is missing before \"%.32s\"", mf->word);
	rc = need_id(mf, "the id of the container", &op->ref);
	return rc ? rc : read_keys(mf, op, KEY_AT | KEY_PRIO, 0);
}

static int read_simple(struct gpamap_mapfile *mf, struct gpamap_op *op, uint32_t code)
{
	int rc;

	op->code = code;
	rc = need_id(mf, "the id of the region", &op->id);
	return rc ? rc : read_keys(mf, op, 0, 0);
}

static int read_set(struct gpamap_mapfile *mf, struct gpamap_op *op)
{
	int rc;

	op->code = GPAMAP_OP_SET;
	rc = need_id(mf, "the id of the region", &op->id);
	return rc ? rc : read_keys(mf, op, 0, KEY_ENABLED | KEY_READONLY |
					      KEY_NONVOLATILE | KEY_UNMERGEABLE |
					      KEY_ROMD | KEY_LAST | KEY_AT | KEY_PRIO |
					      KEY_OFFSET);
}

static int read_space(struct gpamap_mapfile *mf, struct gpamap_op *op)
{
	int rc;

	op->code = GPAMAP_OP_SPACE;
	op->kind = GPAMAP_SPACE_VIEW;
	rc = need_name(mf, op);
	if (rc)
		return rc;
	rc = read_keys(mf, op, KEY_ROOT, KEY_KIND | KEY_AS);
	if (!rc)
		op->id = ++mf->nr_spaces;
	return rc;
}

/* One line that is not blank; returns an item or an error. */
static int read_statement(struct gpamap_mapfile *mf, struct gpamap_op *op)
{
	int item = GPAMAP_MAPFILE_OP;
	int rc;

	if (mf->quoted)
		return fail(mf, -EINVAL, "a line begins with a word, not with a name");
	if (!strcmp(mf->word, "region")) {
		rc = read_region(mf, op);
	} else if (!strcmp(mf->word, "add")) {
		rc = read_add(mf, op);
	} else if (!strcmp(mf->word, "del")) {
		rc = read_simple(mf, op, GPAMAP_OP_DEL);
	} else if (!strcmp(mf->word, "destroy")) {
		rc = read_simple(mf, op, GPAMAP_OP_DESTROY);
	} else if (!strcmp(mf->word, "set")) {
		rc = read_set(mf, op);
	} else if (!strcmp(mf->word, "space")) {
		rc = read_space(mf, op);
	} else if (!strcmp(mf->word, "commit")) {
		item = GPAMAP_MAPFILE_COMMIT;
		rc = read_keys(mf, op, 0, 0);
	} else {
		rc = bad_word(mf, "statement", mf->word);
	}
	return rc ? rc : item;
}

int gpamap_mapfile_next(struct gpamap_mapfile *mf, struct gpamap_op *op)
{
	int saved = errno;
	ssize_t len;
	int rc;

	mf->error[0] = '\0';
	do {
		errno = 0;
		len = getline(&mf->line, &mf->line_max, mf->file);
		if (len < 0) {
			rc = errno ? -errno : GPAMAP_MAPFILE_END;
			if (rc)
				fail(mf, rc, "cannot read on: %s",
				     strerrordesc_np(-rc));
			break;
		}
		mf->nr_line++;
		memset(op, 0, sizeof(*op));
		mf->pos = mf->line;
		if (strlen(mf->line) != (size_t)len)
			rc = fail(mf, -EINVAL, "a zero byte stands in the line");
		else
			rc = next_word(mf);
		if (rc > 0)
			rc = read_statement(mf, op);
	} while (!rc);
	errno = saved;
	return rc;
}

/* What a guest can have as one page, and what its memory is placed for. */
#define HUGE_PAGE (2UL << 20)

/*
 * Memory of @len bytes, or MAP_FAILED. If a huge page fits in it, it begins on a border of one
 * and is made of such where the host allows it.
 */
static void *map_memory(size_t len)
{
	size_t spare = len >= HUGE_PAGE ? HUGE_PAGE : 0, before;
	char *addr;

	addr = mmap(NULL, len + spare, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (addr == MAP_FAILED || !spare)
		return addr;
	before = -(uintptr_t)addr % HUGE_PAGE;
	if (before)
		munmap(addr, before);
	munmap(addr + before + len, spare - before);
	/* A kernel without huge pages says no. */
	madvise(addr + before, len, MADV_HUGEPAGE);
	return addr + before;
}

/* Host memory for a region that the file gives none. */
static int add_memory(struct gpamap_mapfile *mf, struct gpamap_op *op)
{
	size_t page = sysconf(_SC_PAGESIZE);
	struct memory *memory;

	if (op->last > SIZE_MAX / 2)
		return fail(mf, -ENOMEM, "so much memory cannot be allocated");
	memory = malloc(sizeof(*memory));
	if (!memory)
		return fail(mf, -ENOMEM, "out of memory");
	memory->len = (op->last / page + 1) * page;
	memory->addr = map_memory(memory->len);
	if (memory->addr == MAP_FAILED) {
		free(memory);
		return fail(mf, -ENOMEM, "so much memory cannot be allocated");
	}
	memory->next = mf->memory;
	mf->memory = memory;
	op->hva = (uintptr_t)memory->addr;
	return 0;
}

static bool needs_memory(const struct gpamap_op *op)
{
	return op->code == GPAMAP_OP_REGION && !op->hva &&
	       (op->kind == GPAMAP_REGION_RAM || op->kind == GPAMAP_REGION_ROM ||
		op->kind == GPAMAP_REGION_ROMD);
}

/* Appends an operation that was read, and notes its line. */
static int append(struct gpamap_mapfile *mf, struct gpamap_batch *batch,
		  struct gpamap_op *op)
{
	unsigned int *p;
	int rc;

	rc = needs_memory(op) ? add_memory(mf, op) : 0;
	if (rc)
		return rc;
	rc = gpamap_batch_op(batch, op);
	p = rc ? NULL : reallocarray(mf->op_lines, batch->max, sizeof(*p));
	if (!p)
		return fail(mf, -ENOMEM, "out of memory");
	mf->op_lines = p;
	p[batch->nr - 1] = mf->nr_line;
	return 0;
}

int gpamap_mapfile_batch(struct gpamap_mapfile *mf, struct gpamap_batch *batch)
{
	struct gpamap_op op;
	int saved = errno;
	int item, rc;

	gpamap_batch_reset(batch);
	while ((item = gpamap_mapfile_next(mf, &op)) == GPAMAP_MAPFILE_OP) {
		rc = append(mf, batch, &op);
		if (rc) {
			item = rc;
			break;
		}
	}
	if (item != GPAMAP_MAPFILE_COMMIT)
		gpamap_batch_reset(batch);
	errno = saved;
	return item;
}

int gpamap_mapfile_blame(struct gpamap_mapfile *mf, const struct gpamap_batch *batch,
			 uint32_t failed, int err)
{
	const struct gpamap_op *op = gpamap_batch_get(batch, failed);

	if (op)
		mf->nr_line = mf->op_lines[failed];
	return fail(mf, err, "%s", gpamap_op_error(op, err));
}

int gpamap_mapfile_apply(struct gpamap_mapfile *mf, struct gpamap *map)
{
	struct gpamap_batch *batch;
	uint32_t failed;
	int rc;

	rc = gpamap_batch_new(&batch);
	if (rc)
		return fail(mf, rc, "out of memory");
	while ((rc = gpamap_mapfile_batch(mf, batch)) == GPAMAP_MAPFILE_COMMIT) {
		rc = gpamap_apply(map, batch, &failed);
		if (rc) {
			gpamap_mapfile_blame(mf, batch, failed, rc);
			break;
		}
	}
	gpamap_batch_free(batch);
	return rc;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * A libFuzzer target: bytes become batches, and the core is compared with the model
 * (exercise.c). `make fuzz SECONDS=...` runs it; its seeds are made from map files by
 * fuzz_seed.c, which knows the same record.
 */
#include "exercise.h"
#include "fuzz_record.h"

struct input {
	const uint8_t *data;
	size_t len;
};

/* Ids that come too high and members that an operation does not have are bent to fit. */
static enum step next(void *arg, struct gpamap_op *op)
{
	struct input *in = arg;
	struct fuzz_record rec;

	if (in->len < sizeof(rec))
		return STEP_END;
	memcpy(&rec, in->data, sizeof(rec));
	in->data += sizeof(rec);
	in->len -= sizeof(rec);
	if (rec.code >= 0xf0)
		return rec.code >= 0xf8 ? STEP_ABORT : STEP_COMMIT;
	fuzz_record_op(&rec, NR_IDS, op);
	return STEP_OP;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = { data, len };
	const char *text = exercise(next, &in);

	if (text) {
		fprintf(stderr, "fuzz_core: %s\n", text);
		abort();
	}
	return 0;
}

size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned int seed);

static u32 next_random(unsigned int *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

/* An address that has to do with one that is in the input already. */
static uint64_t near_address(const struct fuzz_record *recs, size_t nr, unsigned int *seed)
{
	const struct fuzz_record *a = &recs[next_random(seed) % nr];
	const struct fuzz_record *b = &recs[next_random(seed) % nr];

	switch (next_random(seed) % 8) {
	case 0:
		return a->at;
	case 1:
		return a->at + a->last + next_random(seed) % 2;
	case 2:
		return a->at + b->last + next_random(seed) % 2;
	case 3:
		return a->at - b->last - next_random(seed) % 2;
	case 4:
		return a->last / 2;
	case 5:
		return 1ULL << next_random(seed) % 64;
	case 6:
		return -(1ULL << next_random(seed) % 64);
	default:
		return next_random(seed) % 16;
	}
}

/* Records as wholes, their addresses near each other's; now and then any bytes. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max, unsigned int seed)
{
	static struct fuzz_record recs[4096];
	size_t nr = len / sizeof(*recs), most = max / sizeof(*recs), i, j;
	u32 what = next_random(&seed) % 17;

	if (nr < 2 || most < 2 || nr > ARRAY_SIZE(recs) || what == 0)
		return LLVMFuzzerMutate(data, len, max);
	most = min(most, ARRAY_SIZE(recs));
	memcpy(recs, data, nr * sizeof(*recs));
	i = next_random(&seed) % nr;
	j = next_random(&seed) % nr;
	switch (what) {
	case 1:		/* there is one less */
		nr--;
		memmove(&recs[i], &recs[i + 1], (nr - i) * sizeof(*recs));
		break;
	case 2:
	case 3:
	case 4:		/* there is one like it in another place */
		if (nr < most) {
			struct fuzz_record rec = recs[j];

			memmove(&recs[i + 1], &recs[i], (nr - i) * sizeof(*recs));
			recs[i] = rec;
			nr++;
		}
		break;
	case 5:
		swap(recs[i], recs[j]);
		break;
	case 6:
		recs[i].code = next_random(&seed) % 5;
		break;
	case 7:		/* a change of what there is */
		recs[i].code = 4;
		recs[i].id = recs[j].id;
		recs[i].mask = 1 << next_random(&seed) % 9;
		break;
	case 8:
		recs[i].code = next_random(&seed) % 4 ? 0xf0 : 0xf8;
		break;
	case 9:
		recs[i].id = recs[j].id;
		break;
	case 10:
		recs[i].ref = recs[j].id;
		break;
	case 11:
		recs[i].flags ^= 1 << next_random(&seed) % 5;
		break;
	case 12:
		recs[i].prio = recs[j].prio + (int)(next_random(&seed) % 3) - 1;
		break;
	case 13:
		recs[i].kind = next_random(&seed);
		break;
	case 14:
		recs[i].at = near_address(recs, nr, &seed);
		break;
	case 15:
		recs[i].last = near_address(recs, nr, &seed);
		break;
	case 16:	/* what an alias shows comes to hold it */
		if (nr < most && recs[i].code % 5 == 0) {
			memmove(&recs[i + 1], &recs[i], (nr - i) * sizeof(*recs));
			recs[i].kind = GPAMAP_REGION_ALIAS - 1;
			recs[i + 1].code = 1;
			recs[i + 1].id = recs[i].id;
			recs[i + 1].ref = recs[i].ref;
			recs[i + 1].at = near_address(recs, nr, &seed);
			nr++;
		}
		break;
	}
	len = nr * sizeof(*recs);
	memcpy(data, recs, len);
	return len;
}

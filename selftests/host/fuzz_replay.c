// SPDX-License-Identifier: GPL-2.0
/*
 * Inputs of fuzz_core without the fuzzer, built as the other host tests are: each file
 * is one test. A finding ends the program, which the missing results tell; the name of
 * the file stands in the line before.
 *
 * usage: fuzz_replay FILE...
 */
#include <stdint.h>
#include "core.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max);

/* The fuzzer's, which fuzz_core refers to. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max)
{
	(void)data;
	(void)max;
	return len;
}

static int replay(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = NULL;
	size_t len;
	long size;

	if (!f)
		return -1;
	if (fseek(f, 0, SEEK_END))
		goto err;
	size = ftell(f);
	if (size < 0 || fseek(f, 0, SEEK_SET))
		goto err;
	/* Of exactly that length, so that reading beyond it is found. */
	data = malloc(size ? size : 1);
	if (!data)
		goto err;
	len = fread(data, 1, size, f);
	if (len != (size_t)size)
		goto err;
	fclose(f);
	LLVMFuzzerTestOneInput(data, len);
	free(data);
	return 0;
err:
	free(data);
	fclose(f);
	return -1;
}

int main(int argc, char **argv)
{
	int i, failed = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("TAP version 13\n1..%d\n", argc - 1);
	for (i = 1; i < argc; i++) {
		const char *base = strrchr(argv[i], '/');
		bool bad;

		printf("# %s\n", argv[i]);
		bad = replay(argv[i]);
		failed += bad;
		printf("%sok %d fuzz_replay.%s\n", bad ? "not " : "", i,
		       base ? base + 1 : argv[i]);
	}
	return failed || argc < 2;
}

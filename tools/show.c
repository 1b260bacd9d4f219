// SPDX-License-Identifier: GPL-2.0
/*
 * gpamap show: live maps, as the module tells them in debugfs (kmod/debugfs.c
 * has the format). A map that goes away meanwhile is no error.
 */
#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tool.h"

#define DEBUGFS "/sys/kernel/debug"

static const struct {
	const char *file;
	const char *title;
} parts[] = {
	{ "tree", "tree" },
	{ "flat", "flat view" },
	{ "slots", "memslots" },
};

/* 1 if it was shown, 0 if it is gone, -1 on an error that was told. */
static int show_part(const char *map, const char *file, const char *title)
{
	char path[512];
	char *line = NULL;
	size_t max = 0;
	FILE *in;
	int rc = 1;

	snprintf(path, sizeof(path), DEBUGFS "/gpamap/%s/%s", map, file);
	in = fopen(path, "re");
	if (!in) {
		if (errno == ENOENT)
			return 0;
		complain("cannot read %s: %m", path);
		return -1;
	}
	printf("  %s\n", title);
	errno = 0;
	while (getline(&line, &max, in) >= 0)
		printf("    %s", line);
	if (ferror(in)) {
		rc = errno == ENOENT || errno == EIO ? 0 : -1;
		if (rc)
			complain("cannot read %s: %m", path);
	}
	free(line);
	fclose(in);
	return rc;
}

static int show_map(const char *map)
{
	int rc = 1;
	size_t i;

	printf("map %s\n", map);
	for (i = 0; i < sizeof(parts) / sizeof(parts[0]) && rc > 0; i++)
		rc = show_part(map, parts[i].file, parts[i].title);
	return rc;
}

/* PID-N, all of it or only its process. */
static bool is_wanted(const char *map, const char *wanted)
{
	size_t len;

	if (map[0] == '.')
		return false;
	if (!wanted || !strcmp(map, wanted))
		return true;
	len = strlen(wanted);
	return !strncmp(map, wanted, len) && map[len] == '-' && !strchr(wanted, '-');
}

int cmd_show(int argc, char **argv)
{
	const char *wanted = argc > 1 ? argv[1] : NULL;
	struct dirent **maps;
	int nr, i, shown = 0, status = 0;

	if (argc > 2 || (wanted && wanted[0] == '-')) {
		complain("show: at most one MAP");
		return EXIT_USAGE;
	}
	nr = scandir(DEBUGFS "/gpamap", &maps, NULL, versionsort);
	if (nr < 0) {
		if (errno == ENOENT)
			complain("there is no " DEBUGFS "/gpamap: the module is not "
				 "loaded, or debugfs is not mounted");
		else
			complain("cannot read " DEBUGFS "/gpamap: %m");
		return 1;
	}
	for (i = 0; i < nr; i++) {
		if (is_wanted(maps[i]->d_name, wanted)) {
			int rc = show_map(maps[i]->d_name);

			if (rc < 0)
				status = 1;
			shown++;
		}
		free(maps[i]);
	}
	free(maps);
	if (!shown && wanted) {
		complain("there is no map \"%s\"", wanted);
		return 1;
	}
	if (!shown)
		puts("there are no maps");
	return status;
}

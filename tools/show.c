// SPDX-License-Identifier: GPL-2.0
/*
 * gpamap show: live maps, as the module tells them in debugfs (kmod/debugfs.c
 * has the format). A map that goes away meanwhile is no error.
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tool.h"

#define DEBUGFS "/sys/kernel/debug"

static const struct part {
	const char *file;
	const char *title;
} map_parts[] = {
	{ "tree", "tree" },
	{ "flat", "flat view" },
	{ "slots", "memslots" },
	{ NULL, NULL },
}, stats_parts[] = {
	{ "stats", "statistics" },
	{ "io", "accesses" },
	{ NULL, NULL },
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

static int show_map(const char *map, const struct part *part)
{
	int rc = 1;

	printf("map %s\n", map);
	for (; part->file && rc > 0; part++)
		rc = show_part(map, part->file, part->title);
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
	static const struct option options[] = {
		{ "stats", no_argument, NULL, 's' },
		{ NULL, 0, NULL, 0 },
	};
	const struct part *parts = map_parts;
	int nr, i, shown = 0, status = 0;
	struct dirent **maps;
	const char *wanted;

	opterr = 0;
	while ((i = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (i != 's') {
			complain("show: unknown option %s", argv[optind - 1]);
			return EXIT_USAGE;
		}
		parts = stats_parts;
	}
	if (argc - optind > 1) {
		complain("show: at most one MAP");
		return EXIT_USAGE;
	}
	wanted = argv[optind];
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
			int rc = show_map(maps[i]->d_name, parts);

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

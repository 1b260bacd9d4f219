// SPDX-License-Identifier: GPL-2.0
/*
 * The gpamap command: finds the command that was asked for and runs it. Exit
 * status: 0 done, 1 it could not be done, 2 it was asked for in the wrong way.
 */
#include <gpamap.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "tool.h"

static const char usage[] =
"usage: gpamap flatten [--each] FILE\n"
"       gpamap show [--stats] [MAP]\n"
"       gpamap --help | --version\n"
"\n"
"flatten  run a map file, without any kernel, and print the flat view of every\n"
"         address space: after the last commit, or with --each after every commit\n"
"show     print the tree, the flat view and the memslots of live maps: of all, or\n"
"         of MAP, which is the name of one (PID-N) or the id of a process (PID);\n"
"         with --stats what they have done: commits, memslot operations, holds,\n"
"         and accesses of the guest's\n";

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "flatten", cmd_flatten },
	{ "show", cmd_show },
};

void complain(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("gpamap: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

/* What was printed has to have arrived; a full disk is an error. */
static int finish(int status)
{
	if (fflush(stdout) || ferror(stdout)) {
		complain("cannot write the output: %m");
		return 1;
	}
	return status;
}

int main(int argc, char **argv)
{
	size_t i;

	if (argc < 2) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		fputs(usage, stdout);
		return finish(0);
	}
	if (!strcmp(argv[1], "--version")) {
		printf("gpamap %u.%u\n", gpamap_version() >> 16,
		       gpamap_version() & 0xffff);
		return finish(0);
	}
	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(argv[1], commands[i].name))
			return finish(commands[i].run(argc - 1, argv + 1));
	complain("there is no command \"%s\"; gpamap --help lists them", argv[1]);
	return EXIT_USAGE;
}

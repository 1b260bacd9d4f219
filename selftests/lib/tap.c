// SPDX-License-Identifier: GPL-2.0
/*
 * KTAP and the alarm of programs that run without the harness.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "tap.h"

/* Seconds without progress after which something hangs. */
#define PATIENCE 120

static u32 results, failures;
static char hung[256];			/* what is said when the alarm goes off */

static void on_alarm(int sig)
{
	(void)sig;
	if (write(STDOUT_FILENO, hung, strlen(hung)) < 0)
		_exit(2);
	_exit(1);
}

void tap_begin(u32 nr)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGALRM, on_alarm);
	printf("TAP version 13\n1..%u\n", nr);
}

void tap_result(bool ok, const char *name)
{
	printf("%s %u %s\n", ok ? "ok" : "not ok", ++results, name);
	failures += !ok;
}

void tap_skip(const char *name, const char *why)
{
	printf("ok %u %s # SKIP %s\n", ++results, name, why);
}

u32 tap_failures(void)
{
	return failures;
}

u32 tap_patience(void)
{
	return PATIENCE * env_number("PATIENCE", 1);
}

void tap_watch(const char *what)
{
	if (what)
		snprintf(hung, sizeof(hung), "# %s: no progress in %u s\nBail out!\n",
			 what, tap_patience());
	/* The library's, which is patient itself. */
	alarm(PATIENCE);
}

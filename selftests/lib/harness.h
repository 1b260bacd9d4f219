/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The kernel's test harness, as a system header: it is vendored unchanged and not
 * free of warnings with -Wextra. _GNU_SOURCE is set by it, so this is included
 * first.
 */
#ifndef HARNESS_H
#define HARNESS_H

#pragma GCC system_header
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
/* What fails is said in the place where it fails, between the lines of KTAP. */
#define TH_LOG_STREAM stdout
#include "kselftest/kselftest_harness.h"

/* A test that aborts, or forks, has nothing left in a buffer. */
static void __attribute__((constructor)) harness_line_buffered(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
}

#endif /* HARNESS_H */

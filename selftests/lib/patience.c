// SPDX-License-Identifier: GPL-2.0
/*
 * The harness gives each test a number of seconds, which is right for a kernel of
 * everyday speed. PATIENCE of the environment multiplies it; selftests/check sets it for
 * the debug kernel. The harness calls alarm() and is not ours to change, so this alarm()
 * takes the place of the C library's in the programs, which are static.
 */
#include <stdlib.h>
#include <sys/time.h>
#include <unistd.h>
#include "gpamap_util.h"

u32 test_patience(void)
{
	return env_number("PATIENCE", 1);
}

unsigned int alarm(unsigned int seconds)
{
	struct itimerval now = {0}, before;

	now.it_value.tv_sec = (time_t)seconds * test_patience();
	setitimer(ITIMER_REAL, &now, &before);
	return before.it_value.tv_sec + !!before.it_value.tv_usec;
}

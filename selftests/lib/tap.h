/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For programs that run without the harness: results in KTAP, and an alarm that says what
 * hangs. SIGALRM belongs to it.
 */
#ifndef TAP_H
#define TAP_H

#include "gpamap_util.h"

/* The plan; then a line for each of its results. */
void tap_begin(u32 nr);
void tap_result(bool ok, const char *name);
void tap_skip(const char *name, const char *why);
u32 tap_failures(void);

/*
 * The program ends if this is not called again within tap_patience() seconds. @what is
 * named then; NULL: what was named last.
 */
void tap_watch(const char *what);
/* The variable PATIENCE says how many times longer it is. */
u32 tap_patience(void);

#endif /* TAP_H */

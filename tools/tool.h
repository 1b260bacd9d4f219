/* SPDX-License-Identifier: GPL-2.0 */
/* The commands of the gpamap tool. Each gets its own arguments and returns the
 * exit status.
 */
#ifndef GPAMAP_TOOL_H
#define GPAMAP_TOOL_H

#define EXIT_USAGE 2

int cmd_flatten(int argc, char **argv);
int cmd_show(int argc, char **argv);

/* "gpamap: message" on standard error. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif /* GPAMAP_TOOL_H */

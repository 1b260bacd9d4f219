/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The directories of this process's maps in debugfs.
 */
#ifndef DEBUGFS_H
#define DEBUGFS_H

#include "gpamap_util.h"

/* How many there are, and the @nth in @path, which may be NULL; -errno. */
int debugfs_find(int nth, char *path, size_t len);

/* A file of a directory, whole, to be freed; NULL with errno. */
char *debugfs_read(const char *dir, const char *name);

#endif /* DEBUGFS_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A memory cgroup (version 2) for the processes of a test.
 */
#ifndef MEMCG_H
#define MEMCG_H

#include "gpamap_util.h"

struct memcg {
	char dir[64];
};

/* Mounts the file system of cgroups if need be; takes one that is there. 0 or -errno. */
int memcg_create(struct memcg *cg, const char *name);
/* -EBUSY while there are processes in it. */
int memcg_destroy(const struct memcg *cg);

/* The calling process, and its children from then on. 0 or -errno. */
int memcg_enter(const struct memcg *cg);

/* Bytes; U64_MAX for no limit. A limit below what is used has processes killed. 0 or -errno. */
int memcg_limit(const struct memcg *cg, u64 bytes);

/* Bytes in use; -errno. */
int64_t memcg_used(const struct memcg *cg);
/* The most that there ever were; -ENOENT where the kernel does not tell. */
int64_t memcg_peak(const struct memcg *cg);
/* A counter of memory.events, such as "oom_kill"; -errno. */
int64_t memcg_events(const struct memcg *cg, const char *what);

#endif /* MEMCG_H */

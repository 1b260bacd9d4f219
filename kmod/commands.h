/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The uppermost layer: what main.c does at the request of a process, and debugfs of the host.
 * Commands get the argument structure, copied in; those with results answer in it.
 */
#ifndef GPAMAP_COMMANDS_H
#define GPAMAP_COMMANDS_H

#include "map.h"

/* tie_ioctls.c */
int gpamap_doorbell(struct gpamap *map, void *arg);
int gpamap_registers(struct gpamap *map, void *arg);
int gpamap_handler(struct gpamap *map, void *arg);
int gpamap_post(struct gpamap *map, void *arg);
int gpamap_policy(struct gpamap *map, void *arg);
int gpamap_ring(struct gpamap *map, void *arg);

/* query.c */
int gpamap_query(struct gpamap *map, void *arg);
int gpamap_lookup(struct gpamap *map, void *arg);

/* debugfs.c */
void gpamap_debugfs_init(void);
void gpamap_debugfs_exit(void);
void gpamap_debugfs_add(struct gpamap *map);
void gpamap_debugfs_del(struct gpamap *map);

#endif /* GPAMAP_COMMANDS_H */

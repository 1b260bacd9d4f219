/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The uppermost layer: what main.c does at the request of a process, and debugfs of the host.
 * Commands get the argument structure, copied in; those with results answer in it.
 */
#ifndef GPAMAP_COMMANDS_H
#define GPAMAP_COMMANDS_H

#include "map.h"

/* Where devices of KVM's own are in a space. */
struct gpamap_shadow {
	struct gpamap_extents *others;	/* NULL: nowhere */
	u32 view;
};

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

/* shadow.c */
int __must_check gpamap_shadow_begin(struct gpamap *map, u32 space,
				     struct gpamap_shadow *shadow);
void gpamap_shadow_end(struct gpamap_shadow *shadow);
u32 gpamap_shadow_flags(const struct gpamap *map, const struct gpamap_shadow *shadow,
			const struct gpamap_range *range);
int gpamap_shadow_flags_rcu(const struct gpamap *map, const struct gpamap_snapshot *snapshot,
			    u32 space, const struct gpamap_range *range, u32 *flags);

/* debugfs.c */
void gpamap_debugfs_init(void);
void gpamap_debugfs_exit(void);
void gpamap_debugfs_add(struct gpamap *map);
void gpamap_debugfs_del(struct gpamap *map);

#endif /* GPAMAP_COMMANDS_H */

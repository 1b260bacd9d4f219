/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints: what a commit does, and for how long vCPUs are held for it. A map is
 * told by its number, the N of its debugfs directory PID-N.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM gpamap

#if !defined(GPAMAP_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define GPAMAP_TRACE_H

#include <linux/tracepoint.h>
#include "private.h"

TRACE_EVENT(gpamap_commit_begin,
	TP_PROTO(const struct gpamap *map, u32 nr_ops),
	TP_ARGS(map, nr_ops),
	TP_STRUCT__entry(
		__field(u32, map)
		__field(u32, nr_ops)
		__field(u64, generation)
	),
	TP_fast_assign(
		__entry->map = map->number;
		__entry->nr_ops = nr_ops;
		__entry->generation = map->generation;
	),
	TP_printk("map=%u generation=%llu ops=%u", __entry->map, __entry->generation,
		  __entry->nr_ops)
);

TRACE_EVENT(gpamap_commit_end,
	TP_PROTO(const struct gpamap *map, int rc),
	TP_ARGS(map, rc),
	TP_STRUCT__entry(
		__field(u32, map)
		__field(int, rc)
		__field(u64, generation)
	),
	TP_fast_assign(
		__entry->map = map->number;
		__entry->rc = rc;
		__entry->generation = map->generation;
	),
	TP_printk("map=%u generation=%llu rc=%d", __entry->map, __entry->generation,
		  __entry->rc)
);

/* A roll-back failed, with this error of KVM's. */
TRACE_EVENT(gpamap_broken,
	TP_PROTO(const struct gpamap *map, int rc),
	TP_ARGS(map, rc),
	TP_STRUCT__entry(
		__field(u32, map)
		__field(int, rc)
	),
	TP_fast_assign(
		__entry->map = map->number;
		__entry->rc = rc;
	),
	TP_printk("map=%u rc=%d", __entry->map, __entry->rc)
);

TRACE_EVENT(gpamap_hold_begin,
	TP_PROTO(const struct gpamap_vm *vm, u32 nr_vcpus),
	TP_ARGS(vm, nr_vcpus),
	TP_STRUCT__entry(
		__field(u32, map)
		__field(u32, nr_vcpus)
	),
	TP_fast_assign(
		__entry->map = vm->map->number;
		__entry->nr_vcpus = nr_vcpus;
	),
	TP_printk("map=%u vcpus=%u", __entry->map, __entry->nr_vcpus)
);

/* All vCPUs are held, or with an rc not 0 none is. */
TRACE_EVENT(gpamap_hold_reached,
	TP_PROTO(const struct gpamap_vm *vm, int rc),
	TP_ARGS(vm, rc),
	TP_STRUCT__entry(
		__field(u32, map)
		__field(int, rc)
	),
	TP_fast_assign(
		__entry->map = vm->map->number;
		__entry->rc = rc;
	),
	TP_printk("map=%u rc=%d", __entry->map, __entry->rc)
);

TRACE_EVENT(gpamap_hold_end,
	TP_PROTO(const struct gpamap_vm *vm),
	TP_ARGS(vm),
	TP_STRUCT__entry(
		__field(u32, map)
	),
	TP_fast_assign(
		__entry->map = vm->map->number;
	),
	TP_printk("map=%u", __entry->map)
);

/* A memslot operation of KVM's and what it answered. */
DECLARE_EVENT_CLASS(gpamap_slot,
	TP_PROTO(const struct gpamap_vm *vm, const struct gpamap_slot *slot, int rc),
	TP_ARGS(vm, slot, rc),
	TP_STRUCT__entry(
		__field(u32, map)
		__field(u32, as_id)
		__field(u32, id)
		__field(int, rc)
		__field(u64, gpa)
		__field(u64, npages)
		__field(u64, hva)
		__field(bool, readonly)
	),
	TP_fast_assign(
		__entry->map = vm->map->number;
		__entry->as_id = slot->as_id;
		__entry->id = slot->id;
		__entry->rc = rc;
		__entry->gpa = slot->gpa;
		__entry->npages = slot->npages;
		__entry->hva = slot->hva;
		__entry->readonly = slot->readonly;
	),
	TP_printk("map=%u as=%u slot=%u gpa=0x%llx npages=0x%llx hva=0x%llx %s rc=%d",
		  __entry->map, __entry->as_id, __entry->id, __entry->gpa,
		  __entry->npages, __entry->hva, __entry->readonly ? "ro" : "rw",
		  __entry->rc)
);

DEFINE_EVENT(gpamap_slot, gpamap_slot_delete,
	TP_PROTO(const struct gpamap_vm *vm, const struct gpamap_slot *slot, int rc),
	TP_ARGS(vm, slot, rc)
);

DEFINE_EVENT(gpamap_slot, gpamap_slot_move,
	TP_PROTO(const struct gpamap_vm *vm, const struct gpamap_slot *slot, int rc),
	TP_ARGS(vm, slot, rc)
);

DEFINE_EVENT(gpamap_slot, gpamap_slot_create,
	TP_PROTO(const struct gpamap_vm *vm, const struct gpamap_slot *slot, int rc),
	TP_ARGS(vm, slot, rc)
);

#endif /* GPAMAP_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tracepoints: what a commit does, for how long vCPUs are held for it, and accesses. A map is
 * told by its number, the N of its debugfs directory PID-N.
 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM gpamap

#if !defined(GPAMAP_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define GPAMAP_TRACE_H

#include <linux/tracepoint.h>
#include "kvm.h"

TRACE_EVENT(gpamap_commit_begin,
	TP_PROTO(u32 map, u64 generation, u32 nr_ops),
	TP_ARGS(map, generation, nr_ops),
	TP_STRUCT__entry(
		__field(u32, map)
		__field(u32, nr_ops)
		__field(u64, generation)
	),
	TP_fast_assign(
		__entry->map = map;
		__entry->nr_ops = nr_ops;
		__entry->generation = generation;
	),
	TP_printk("map=%u generation=%llu ops=%u", __entry->map, __entry->generation,
		  __entry->nr_ops)
);

TRACE_EVENT(gpamap_commit_end,
	TP_PROTO(u32 map, u64 generation, int rc),
	TP_ARGS(map, generation, rc),
	TP_STRUCT__entry(
		__field(u32, map)
		__field(int, rc)
		__field(u64, generation)
	),
	TP_fast_assign(
		__entry->map = map;
		__entry->rc = rc;
		__entry->generation = generation;
	),
	TP_printk("map=%u generation=%llu rc=%d", __entry->map, __entry->generation,
		  __entry->rc)
);

/* A roll-back failed, with this error of KVM's. */
TRACE_EVENT(gpamap_broken,
	TP_PROTO(u32 map, int rc),
	TP_ARGS(map, rc),
	TP_STRUCT__entry(
		__field(u32, map)
		__field(int, rc)
	),
	TP_fast_assign(
		__entry->map = map;
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
		__entry->map = vm->number;
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
		__entry->map = vm->number;
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
		__entry->map = vm->number;
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
		__entry->map = vm->number;
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

/* An access of a guest's to a region that has something tied to it, or to memory without a slot. */
TRACE_EVENT(gpamap_access,
	TP_PROTO(u32 map, u32 vcpu, u32 space, u32 region, u64 addr, u32 len,
		 bool write, u32 answer),
	TP_ARGS(map, vcpu, space, region, addr, len, write, answer),
	TP_STRUCT__entry(
		__field(u32, map)
		__field(u32, vcpu)
		__field(u32, space)
		__field(u32, region)
		__field(u64, addr)
		__field(u32, len)
		__field(u32, answer)
		__field(bool, write)
	),
	TP_fast_assign(
		__entry->map = map;
		__entry->vcpu = vcpu;
		__entry->space = space;
		__entry->region = region;
		__entry->addr = addr;
		__entry->len = len;
		__entry->answer = answer;
		__entry->write = write;
	),
	TP_printk("map=%u vcpu=%u space=%u region=%u addr=0x%llx len=%u %s answer=%s",
		  __entry->map, __entry->vcpu, __entry->space, __entry->region,
		  __entry->addr, __entry->len, __entry->write ? "write" : "read",
		  __print_symbolic(__entry->answer,
				   { GPAMAP_ANSWER_EXIT, "exit" },
				   { GPAMAP_ANSWER_REGISTER, "register" },
				   { GPAMAP_ANSWER_DOORBELL, "doorbell" },
				   { GPAMAP_ANSWER_POSTED, "posted" },
				   { GPAMAP_ANSWER_HANDLER, "handler" },
				   { GPAMAP_ANSWER_MEMORY, "memory" },
				   { GPAMAP_ANSWER_POLICY, "policy" }))
);

#endif /* GPAMAP_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The stretches of addresses where KVM is to ask, and the way from those that the buses of a
 * VM have to others.
 */
#ifndef GPAMAP_STRETCHES_H
#define GPAMAP_STRETCHES_H

#include "kvm.h"

bool gpamap_changes_answers(const struct gpamap_changes *changes);
int __must_check gpamap_bus_plan(struct gpamap_vm *vm,
				 const struct gpamap_flatview *const *views,
				 struct gpamap_bus_change *change);
int __must_check gpamap_bus_plan_none(struct gpamap_vm *vm, struct gpamap_bus_change *change);

#endif /* GPAMAP_STRETCHES_H */

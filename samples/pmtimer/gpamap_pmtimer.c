// SPDX-License-Identifier: GPL-2.0
/*
 * The ACPI power management timer as a handler of gpamap's: a counter of 3.579545 MHz that
 * a guest reads from a port, and that a VMM otherwise answers with a full exit.
 *
 * Name "acpi-pm-timer", for an io region of four bytes. The argument is 0 for a counter of
 * 24 bits, 1 for one of 32 (TMR_VAL_EXT in the FADT). It starts at 0 with the instance.
 * Nothing happens when its highest bit changes: an interrupt for that (TMR_EN) would be the
 * VMM's to make, and Linux wants none.
 *
 * Source: ACPI specification 6.5, section 4.8.3.3, Power Management Timer (PM_TMR).
 */
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/slab.h>
#include "gpamap_handler.h"

#define PM_TIMER_HZ 3579545
#define PM_TIMER_32BIT 1

struct pm_timer {
	u64 start;			/* ns */
	u32 mask;
};

static int pm_timer_prepare(u64 arg, void **data)
{
	struct pm_timer *timer;

	if (arg & ~PM_TIMER_32BIT)
		return -EINVAL;
	timer = kmalloc(sizeof(*timer), GFP_KERNEL_ACCOUNT);
	if (!timer)
		return -ENOMEM;
	timer->start = ktime_get_ns();
	timer->mask = arg & PM_TIMER_32BIT ? U32_MAX : GENMASK(23, 0);
	*data = timer;
	return 0;
}

static void pm_timer_destroy(void *data)
{
	kfree(data);
}

static int pm_timer_read(void *data, u64 offset, u32 len, u64 *value)
{
	const struct pm_timer *timer = data;
	u64 ns = ktime_get_ns() - timer->start;

	if (offset)
		return -EOPNOTSUPP;
	*value = mul_u64_u32_div(ns, PM_TIMER_HZ, NSEC_PER_SEC) & timer->mask;
	return 0;
}

/* It cannot be set: what is written is lost. */
static int pm_timer_write(void *data, u64 offset, u32 len, u64 value)
{
	return 0;
}

static const struct gpamap_handler_ops pm_timer_ops = {
	.owner = THIS_MODULE,
	.name = "acpi-pm-timer",
	.valid = { .min = 1, .max = 4, .unaligned = true },
	.impl = { .min = 4, .max = 4 },
	.prepare = pm_timer_prepare,
	.destroy = pm_timer_destroy,
	.read = pm_timer_read,
	.write = pm_timer_write,
};

static int __init pm_timer_init(void)
{
	return gpamap_handler_register(&pm_timer_ops);
}

static void __exit pm_timer_exit(void)
{
	gpamap_handler_unregister(&pm_timer_ops);
}

module_init(pm_timer_init);
module_exit(pm_timer_exit);

MODULE_DESCRIPTION("ACPI PM timer, a handler of gpamap's");
MODULE_AUTHOR("The gpamap authors");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1");

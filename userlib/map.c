// SPDX-License-Identifier: LGPL-2.1-only OR MIT
/*
 * Maps: open, close, attach, apply. The kernel orders the calls of several threads; nothing
 * here is changed after a map is made, but for the time that calls may take and the list of
 * its rings (ring.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "internal.h"

uint32_t gpamap_version(void)
{
	return GPAMAP_VERSION;
}

int gpamap_ioctl(const struct gpamap *map, unsigned long cmd, void *arg)
{
	int saved = errno;
	int rc = ioctl(map->fd, cmd, arg);

	if (rc < 0)
		rc = -errno;
	errno = saved;
	return rc;
}

static int map_new(int fd, struct gpamap **out)
{
	struct gpamap *map = calloc(1, sizeof(*map));
	int rc;

	if (!map)
		return -ENOMEM;
	rc = -pthread_mutex_init(&map->lock, NULL);
	if (rc) {
		free(map);
		return rc;
	}
	map->fd = fd;
	rc = gpamap_layout_read(map);
	if (rc) {
		pthread_mutex_destroy(&map->lock);
		free(map);
		return rc;
	}
	*out = map;
	return 0;
}

int gpamap_open(struct gpamap **out)
{
	int saved = errno;
	int fd, rc;

	fd = open("/dev/gpamap", O_RDWR | O_CLOEXEC);
	rc = fd < 0 ? -errno : map_new(fd, out);
	if (rc && fd >= 0)
		close(fd);
	errno = saved;
	return rc;
}

int gpamap_from_fd(int fd, struct gpamap **out)
{
	int saved = errno, rc;

	rc = map_new(fd, out);
	errno = saved;
	return rc;
}

void gpamap_close(struct gpamap *map)
{
	int saved = errno;

	if (!map)
		return;
	/* Their mappings hold the file. */
	gpamap_rings_free(map);
	close(map->fd);
	pthread_mutex_destroy(&map->lock);
	free(map);
	errno = saved;
}

int gpamap_fd(const struct gpamap *map)
{
	return map->fd;
}

void gpamap_set_timeout(struct gpamap *map, uint32_t ms)
{
	__atomic_store_n(&map->timeout_ms, ms, __ATOMIC_RELAXED);
}

static uint32_t timeout_of(const struct gpamap *map)
{
	return __atomic_load_n(&map->timeout_ms, __ATOMIC_RELAXED);
}

int gpamap_attach(struct gpamap *map, int vm_fd, uint32_t first_slot, uint32_t nr_slots)
{
	struct gpamap_attach cmd = {
		.size = sizeof(cmd),
		.vm_fd = vm_fd,
		.first_slot = first_slot,
		.nr_slots = nr_slots,
		.timeout_ms = timeout_of(map),
	};

	return gpamap_ioctl(map, GPAMAP_ATTACH, &cmd);
}

int gpamap_detach(struct gpamap *map)
{
	struct gpamap_detach cmd = {
		.size = sizeof(cmd),
		.timeout_ms = timeout_of(map),
	};

	gpamap_drain(map);
	return gpamap_ioctl(map, GPAMAP_DETACH, &cmd);
}

int gpamap_commit(struct gpamap *map, const struct gpamap_batch *batch, uint32_t flags,
		  struct gpamap_apply *out)
{
	*out = (struct gpamap_apply){
		.size = sizeof(*out),
		.flags = flags,
		.ops = (uintptr_t)batch->ops,
		.nr_ops = batch->nr,
		.op_size = sizeof(*batch->ops),
		.out_failed_op = GPAMAP_NO_OP,
		.timeout_ms = timeout_of(map),
	};
	return batch->err ? batch->err : gpamap_ioctl(map, GPAMAP_APPLY, out);
}

static int apply(struct gpamap *map, const struct gpamap_batch *batch, uint32_t flags,
		 struct gpamap_apply *out, uint32_t *failed)
{
	int rc;

	/* Rule 45. In a callback it does nothing; a ring that is spoilt does not matter here. */
	if (!batch->err && !(flags & GPAMAP_APPLY_DRY_RUN))
		gpamap_drain(map);
	rc = gpamap_commit(map, batch, flags, out);
	if (failed)
		*failed = out->out_failed_op;
	return rc;
}

int gpamap_apply(struct gpamap *map, const struct gpamap_batch *batch, uint32_t *failed)
{
	struct gpamap_apply out;

	return apply(map, batch, 0, &out, failed);
}

int gpamap_apply_out(struct gpamap *map, const struct gpamap_batch *batch,
		     struct gpamap_apply *out, uint32_t *failed)
{
	return apply(map, batch, 0, out, failed);
}

int gpamap_plan(struct gpamap *map, const struct gpamap_batch *batch,
		struct gpamap_apply *out, uint32_t *failed)
{
	return apply(map, batch, GPAMAP_APPLY_DRY_RUN, out, failed);
}

// SPDX-License-Identifier: LGPL-2.1-only OR MIT
/*
 * Maps: open, close, and one function for each ioctl. The kernel orders the
 * calls of several threads; nothing here is changed after a map is made, but for the list
 * of its rings (ring.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "internal.h"

uint32_t gpamap_version(void)
{
	return GPAMAP_VERSION;
}

int gpamap_ioctl(const struct gpamap *map, unsigned long cmd, void *arg)
{
	int saved = errno;
	int rc = 0;

	if (ioctl(map->fd, cmd, arg))
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
	struct gpamap probe = { .fd = fd };
	struct gpamap_info info;
	int saved = errno, rc;

	rc = gpamap_query_info(&probe, &info);
	if (!rc)
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

int gpamap_attach(struct gpamap *map, int vm_fd, uint32_t first_slot, uint32_t nr_slots)
{
	struct gpamap_attach cmd = {
		.size = sizeof(cmd),
		.vm_fd = vm_fd,
		.first_slot = first_slot,
		.nr_slots = nr_slots,
	};

	return gpamap_ioctl(map, GPAMAP_ATTACH, &cmd);
}

int gpamap_detach(struct gpamap *map)
{
	struct gpamap_detach cmd = { .size = sizeof(cmd) };

	gpamap_drain(map);
	return gpamap_ioctl(map, GPAMAP_DETACH, &cmd);
}

static int apply(struct gpamap *map, const struct gpamap_batch *batch, uint32_t flags,
		 struct gpamap_apply *out, uint32_t *failed)
{
	int rc = batch->err;

	*out = (struct gpamap_apply){
		.size = sizeof(*out),
		.flags = flags,
		.ops = (uintptr_t)batch->ops,
		.nr_ops = batch->nr,
		.op_size = sizeof(*batch->ops),
		.out_failed_op = GPAMAP_NO_OP,
	};
	/* Rule 45. In a callback it does nothing; a ring that is spoilt does not matter here. */
	if (!rc && !(flags & GPAMAP_APPLY_DRY_RUN))
		gpamap_drain(map);
	if (!rc)
		rc = gpamap_ioctl(map, GPAMAP_APPLY, out);
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

static int doorbell(struct gpamap *map, uint32_t flags, uint32_t region, uint64_t offset,
		    uint32_t len, uint64_t value, int fd)
{
	struct gpamap_doorbell cmd = {
		.size = sizeof(cmd),
		.flags = flags,
		.region = region,
		.len = len,
		.offset = offset,
		.value = value,
		.fd = fd,
	};

	return gpamap_ioctl(map, GPAMAP_DOORBELL, &cmd);
}

int gpamap_doorbell_add(struct gpamap *map, uint32_t region, uint64_t offset, uint32_t len,
			int fd)
{
	return doorbell(map, 0, region, offset, len, 0, fd);
}

int gpamap_doorbell_add_match(struct gpamap *map, uint32_t region, uint64_t offset,
			      uint32_t len, uint64_t value, int fd)
{
	return doorbell(map, GPAMAP_DOORBELL_MATCH, region, offset, len, value, fd);
}

int gpamap_doorbell_remove(struct gpamap *map, uint32_t region, uint64_t offset,
			   uint32_t len, int fd)
{
	return doorbell(map, GPAMAP_DOORBELL_REMOVE, region, offset, len, 0, fd);
}

int gpamap_doorbell_remove_match(struct gpamap *map, uint32_t region, uint64_t offset,
				 uint32_t len, uint64_t value, int fd)
{
	return doorbell(map, GPAMAP_DOORBELL_REMOVE | GPAMAP_DOORBELL_MATCH, region, offset,
			len, value, fd);
}

int gpamap_registers_set(struct gpamap *map, uint32_t region,
			 const struct gpamap_register *registers, uint32_t nr)
{
	struct gpamap_registers cmd = {
		.size = sizeof(cmd),
		.region = region,
		.nr = nr,
		.register_size = sizeof(*registers),
		.registers = (uintptr_t)registers,
	};

	return gpamap_ioctl(map, GPAMAP_REGISTERS, &cmd);
}

int gpamap_registers_remove(struct gpamap *map, uint32_t region)
{
	struct gpamap_registers cmd = {
		.size = sizeof(cmd),
		.flags = GPAMAP_REGISTERS_REMOVE,
		.region = region,
	};

	return gpamap_ioctl(map, GPAMAP_REGISTERS, &cmd);
}

int gpamap_registers_map(struct gpamap *map, uint32_t region, void **page)
{
	long size = sysconf(_SC_PAGESIZE);
	int saved = errno, rc = 0;
	void *p;

	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, map->fd,
		 (off_t)region * size);
	if (p == MAP_FAILED)
		rc = -errno;
	else
		*page = p;
	errno = saved;
	return rc;
}

void gpamap_registers_unmap(void *page)
{
	munmap(page, sysconf(_SC_PAGESIZE));
}

int gpamap_handler_set(struct gpamap *map, uint32_t region, const char *name, uint64_t arg)
{
	struct gpamap_handler cmd = {
		.size = sizeof(cmd),
		.region = region,
		.arg = arg,
	};
	size_t len = strlen(name);

	if (len >= sizeof(cmd.name))
		return -EINVAL;
	memcpy(cmd.name, name, len);
	return gpamap_ioctl(map, GPAMAP_HANDLER, &cmd);
}

int gpamap_handler_remove(struct gpamap *map, uint32_t region)
{
	struct gpamap_handler cmd = {
		.size = sizeof(cmd),
		.flags = GPAMAP_HANDLER_REMOVE,
		.region = region,
	};

	return gpamap_ioctl(map, GPAMAP_HANDLER, &cmd);
}

int gpamap_policy_set(struct gpamap *map, uint32_t region, uint32_t policy)
{
	struct gpamap_policy cmd = {
		.size = sizeof(cmd),
		.region = region,
		.policy = policy,
	};

	return gpamap_ioctl(map, GPAMAP_POLICY, &cmd);
}

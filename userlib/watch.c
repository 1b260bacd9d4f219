// SPDX-License-Identifier: LGPL-2.1-only OR MIT
/*
 * News of a map: that it has a generation which the reader of a file has not read yet. Every
 * such file is a reader of its own; the map's file is one, too.
 */
#include <errno.h>
#include <unistd.h>
#include "internal.h"

int gpamap_watch(struct gpamap *map, int *fd)
{
	struct gpamap_watch cmd = { .size = sizeof(cmd) };
	int rc = gpamap_ioctl(map, GPAMAP_WATCH, &cmd);

	if (rc < 0)
		return rc;
	*fd = rc;
	return 0;
}

int gpamap_watch_read(int fd, uint64_t *generation)
{
	int saved = errno, rc = 0;
	uint64_t news;
	ssize_t n;

	n = read(fd, &news, sizeof(news));
	if (n < 0)
		rc = -errno;
	else if (n != sizeof(news))
		rc = n ? -EIO : -ENOENT;
	else if (generation)
		*generation = news;
	errno = saved;
	return rc;
}

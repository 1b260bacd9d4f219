// SPDX-License-Identifier: GPL-2.0
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "debugfs.h"

#define DEBUGFS "/sys/kernel/debug/gpamap"

int debugfs_find(int nth, char *path, size_t len)
{
	char mine[32];
	struct dirent *entry;
	DIR *dir = opendir(DEBUGFS);
	int n = 0;

	if (!dir)
		return -errno;
	snprintf(mine, sizeof(mine), "%d-", getpid());
	while ((entry = readdir(dir))) {
		if (strncmp(entry->d_name, mine, strlen(mine)))
			continue;
		if (n++ == nth && path)
			snprintf(path, len, DEBUGFS "/%s", entry->d_name);
	}
	closedir(dir);
	return n;
}

char *debugfs_read(const char *dir, const char *name)
{
	size_t len = 0, room = 1 << 16;
	char path[512], *buf;
	ssize_t n = 0;
	int fd, err;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	buf = malloc(room);
	while (buf && (n = read(fd, buf + len, room - len - 1)) > 0)
		len += n;
	err = errno;
	if (buf)
		buf[len] = 0;
	close(fd);
	if (n < 0) {
		free(buf);
		buf = NULL;
		errno = err;
	}
	return buf;
}

// SPDX-License-Identifier: GPL-2.0
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "memcg.h"

#define CGROUPS "/tmp/cgroup"

static int write_file(const char *dir, const char *name, const char *text)
{
	char path[128];
	int fd, rc = 0;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

static int read_file(const struct memcg *cg, const char *name, char *text, size_t size)
{
	char path[128];
	ssize_t n;
	int fd, rc = 0;

	snprintf(path, sizeof(path), "%s/%s", cg->dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, size - 1);
	if (n < 0)
		rc = -errno;
	else
		text[n] = '\0';
	close(fd);
	return rc;
}

int memcg_create(struct memcg *cg, const char *name)
{
	int rc;

	if (access(CGROUPS "/cgroup.controllers", F_OK)) {
		if (mkdir(CGROUPS, 0755) && errno != EEXIST)
			return -errno;
		if (mount("cgroup2", CGROUPS, "cgroup2", 0, NULL))
			return -errno;
	}
	rc = write_file(CGROUPS, "cgroup.subtree_control", "+memory");
	if (rc)
		return rc;
	snprintf(cg->dir, sizeof(cg->dir), CGROUPS "/%s", name);
	return mkdir(cg->dir, 0755) && errno != EEXIST ? -errno : 0;
}

int memcg_destroy(const struct memcg *cg)
{
	return rmdir(cg->dir) ? -errno : 0;
}

int memcg_enter(const struct memcg *cg)
{
	return write_file(cg->dir, "cgroup.procs", "0");
}

int memcg_limit(const struct memcg *cg, u64 bytes)
{
	char text[32] = "max";

	if (bytes != U64_MAX)
		snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
	return write_file(cg->dir, "memory.max", text);
}

static int64_t read_number(const struct memcg *cg, const char *name)
{
	char text[32];
	int rc = read_file(cg, name, text, sizeof(text));

	return rc ?: strtoll(text, NULL, 10);
}

int64_t memcg_used(const struct memcg *cg)
{
	return read_number(cg, "memory.current");
}

int64_t memcg_peak(const struct memcg *cg)
{
	return read_number(cg, "memory.peak");
}

int64_t memcg_events(const struct memcg *cg, const char *what)
{
	size_t len = strlen(what);
	char text[512];
	const char *line = text;
	int rc = read_file(cg, "memory.events", text, sizeof(text));

	if (rc)
		return rc;
	while (line) {
		if (!strncmp(line, what, len) && line[len] == ' ')
			return strtoll(line + len, NULL, 10);
		line = strchr(line, '\n');
		if (line)
			line++;
	}
	return -ENOENT;
}

#define _GNU_SOURCE
#include "killall.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "text.h"

static bool ends_in(const char *path, const char *end)
{
	size_t length = strlen(path), wanted = strlen(end);
	return length >= wanted && strcmp(path + length - wanted, end) == 0;
}

/* Sends the signal to each pid in a file of numbers. The count of them, or -1. */
static long signal_listed(int fd, int number)
{
	char chunk[4096];
	long count = 0;
	pid_t pid = 0;
	for (;;) {
		ssize_t got = read(fd, chunk, sizeof chunk);
		if (got < 0)
			return errno == ENODEV ? count : -1; /* ENODEV: the cgroup went away */
		if (got == 0)
			return count;
		for (ssize_t i = 0; i < got; i++) {
			if (chunk[i] >= '0' && chunk[i] <= '9' && pid < 100000000) {
				pid = pid * 10 + (chunk[i] - '0');
				continue;
			}
			/* 0 stands for a process of another pid namespace, 1 is init, and we stay. */
			if (pid > 1 && pid != getpid()) {
				kill(pid, number);
				count++;
			}
			pid = 0;
		}
	}
}

int signal_all(const char *path, int number)
{
	char procs[PATH_MAX];
	size_t base = strlen(path);
	if (ends_in(path, "cgroup.kill"))
		base -= strlen("cgroup.kill");
	if (base + sizeof "cgroup.procs" > sizeof procs) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(procs, path, base);
	procs[base] = 0;
	if (path[base] != 0)
		memcpy(procs + base, "cgroup.procs", sizeof "cgroup.procs");
	int fd = open(procs, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	long count = signal_listed(fd, number);
	close(fd);
	return count < 0 ? -1 : 0;
}

static long kill_once(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENODEV ? 0 : -1;
	long count = signal_listed(fd, SIGKILL);
	close(fd);
	return count;
}

/* Whether a v2 cgroup, with those below it, still has processes; -1: error. */
static long populated(const char *path)
{
	char events[PATH_MAX], text[256];
	size_t base = strlen(path) - strlen("cgroup.kill");
	if (base + sizeof "cgroup.events" > sizeof events) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(events, path, base);
	memcpy(events + base, "cgroup.events", sizeof "cgroup.events");
	int fd = open(events, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENODEV ? 0 : -1;
	ssize_t got = read(fd, text, sizeof text - 1);
	close(fd);
	if (got < 0)
		return errno == ENODEV ? 0 : -1;
	text[got] = 0;
	return strstr(text, "populated 1") != NULL;
}

static long kill_group_once(const char *path)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENODEV ? 0 : -1;
	ssize_t written = write(fd, "1", 1);
	close(fd);
	if (written < 0 && errno != ENODEV)
		return -1;
	return populated(path);
}

int killall(const char *path)
{
	enum { LIMIT_MS = 10000 };
	bool group = ends_in(path, "cgroup.kill");
	long pause_us = 100;
	for (long waited_us = 0; waited_us < LIMIT_MS * 1000L; waited_us += pause_us) {
		long left = group ? kill_group_once(path) : kill_once(path);
		if (left <= 0)
			return (int)left;
		nanosleep(&(struct timespec){.tv_nsec = pause_us * 1000}, NULL);
		if (pause_us < 10000)
			pause_us *= 2;
	}
	errno = ETIMEDOUT;
	return -1;
}

#define _GNU_SOURCE
#include "guard.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h> /* renameat */
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "text.h"

enum {
	NAME = 32, /* letters of an instance's id */
	DEPTH = 32, /* of cgroups below one another */
	AGAIN_MS = 20, /* between two looks while the deadline has passed */
	IDLE_MS = 1000,
	QUIT = 1,
};

/* What the daemon says, and what it is told. */
struct said {
	uint64_t deadline; /* 0: as it was */
	uint64_t command;
};
struct told {
	uint64_t deadline; /* in force */
	uint64_t fenced; /* the last deadline after which everything was ended */
};

static struct {
	int client, daemon; /* its connection and its pidfd; -1 */
	uint64_t deadline, fenced, heard;
} state = {.client = -1, .daemon = -1};

static uint64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_BOOTTIME, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static bool is_instance(const char *name)
{
	return strlen(name) == NAME && strspn(name, "0123456789abcdef") == NAME;
}

static void write_if_there(int directory, const char *name, const char *text)
{
	int fd = openat(directory, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return;
	(void)!write(fd, text, strlen(text));
	close(fd);
}

static DIR *open_again(int directory)
{
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	if (fd >= 0 && stream == NULL)
		close(fd);
	return stream;
}

/* KILL to each pid in cgroup.procs; how many. 0 is a process of another pid namespace, 1 is init. */
static long kill_listed(int directory)
{
	char chunk[4096];
	long count = 0;
	pid_t pid = 0;
	int fd = openat(directory, "cgroup.procs", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return errno == ENOENT || errno == ENODEV ? 0 : -1;
	ssize_t got;
	while ((got = read(fd, chunk, sizeof chunk)) > 0) {
		for (ssize_t i = 0; i < got; i++) {
			if (chunk[i] >= '0' && chunk[i] <= '9' && pid < 100000000) {
				pid = pid * 10 + (chunk[i] - '0');
				continue;
			}
			if (pid > 1 && pid != getpid()) {
				kill(pid, SIGKILL);
				count++;
			}
			pid = 0;
		}
	}
	bool failed = got < 0 && errno != ENODEV;
	close(fd);
	return failed ? -1 : count;
}

static long kill_below(int directory, unsigned depth)
{
	/* What forks faster than it is ended, and what is frozen, which KILL does not reach in v1. */
	write_if_there(directory, "pids.max", "0");
	write_if_there(directory, "freezer.state", "THAWED");
	write_if_there(directory, "cgroup.freeze", "0");
	write_if_there(directory, "cgroup.kill", "1");
	long count = kill_listed(directory);
	DIR *stream = depth < DEPTH ? open_again(directory) : NULL;
	if (stream == NULL)
		return -1;
	for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		int child = openat(directory, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (child < 0)
			continue; /* it has gone */
		long found = kill_below(child, depth + 1);
		close(child);
		count = count < 0 || found < 0 ? -1 : count + found;
	}
	closedir(stream);
	return count;
}

long guard_kill(const char *directory)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT || errno == ENODEV ? 0 : -1;
	long count = kill_below(fd, 0);
	close(fd);
	return count;
}

int guard_mark(int armed, int fenced)
{
	DIR *stream = open_again(armed);
	int result = 0;
	if (stream == NULL)
		return -1;
	for (struct dirent *entry; (entry = readdir(stream)) != NULL;)
		if (is_instance(entry->d_name) && renameat(armed, entry->d_name, fenced, entry->d_name) < 0 && errno != ENOENT)
			result = -1;
	closedir(stream);
	return result;
}

/* Ends what is to be ended; whether nothing of it is left. */
static bool fence(const struct guard_options *options)
{
	bool done = guard_mark(options->armed, options->fenced) == 0;
	DIR *stream = open_again(options->fenced);
	if (stream == NULL)
		return false;
	for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
		char path[PATH_MAX];
		if (!is_instance(entry->d_name))
			continue;
		for (char **tree = options->trees; *tree != NULL; tree++) {
			size_t length = TEXT(path, *tree, "/", entry->d_name);
			if (length + 1 >= sizeof path || guard_kill(path) != 0)
				done = false;
		}
	}
	closedir(stream);
	return done;
}

static void drop_client(void)
{
	if (state.client >= 0)
		close(state.client);
	if (state.daemon >= 0)
		close(state.daemon);
	state.client = state.daemon = -1;
}

static void take_client(int listener)
{
	struct ucred peer;
	socklen_t length = sizeof peer;
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	drop_client();
	state.client = fd;
	state.heard = now();
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.pid > 0)
		state.daemon = (int)syscall(SYS_pidfd_open, peer.pid, 0);
}

/* Whether to go on. */
static bool hear(void)
{
	struct said said;
	ssize_t got = recv(state.client, &said, sizeof said, 0);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (got != sizeof said) {
		drop_client();
		return true;
	}
	state.heard = now();
	if (said.deadline != 0)
		state.deadline = said.deadline;
	struct told told = {.deadline = state.deadline, .fenced = state.fenced};
	if (send(state.client, &told, sizeof told, MSG_NOSIGNAL) != sizeof told)
		drop_client();
	return said.command != QUIT;
}

/* A daemon that stands still might go on in the middle of a start: it is not to go on at all. */
static void end_silent(uint64_t silence)
{
	if (state.daemon < 0 || now() - state.heard < silence)
		return;
	syscall(SYS_pidfd_send_signal, state.daemon, SIGKILL, NULL, 0);
	drop_client();
}

static int wait_ms(bool passed, bool done)
{
	uint64_t at = now();
	if (passed)
		return done && state.client < 0 ? -1 : AGAIN_MS; /* without a daemon nothing is started */
	if (at >= state.deadline)
		return 0;
	uint64_t left = (state.deadline - at) / 1000000u;
	return left < IDLE_MS ? (int)left + 1 : IDLE_MS;
}

void guard(const struct guard_options *options)
{
	state.deadline = options->deadline;
	for (bool going = true; going;) {
		bool passed = now() >= state.deadline, done = false;
		if (passed) {
			uint64_t deadline = state.deadline;
			end_silent(options->silence);
			done = fence(options);
			if (done)
				state.fenced = deadline;
		}
		struct pollfd polled[] = {
			{.fd = options->listener, .events = POLLIN},
			{.fd = state.client, .events = POLLIN},
		};
		if (poll(polled, 2, wait_ms(passed, done)) < 0)
			continue;
		if (polled[1].revents != 0)
			going = hear();
		if (polled[0].revents != 0)
			take_client(options->listener);
	}
}

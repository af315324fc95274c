#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../src/guard.h"
#include "check.h"

static const char id[] = "0123456789abcdef0123456789abcdef";

static void make(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	CHECK(fd >= 0);
	CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static pid_t sleeper(void)
{
	pid_t pid = fork();
	if (pid == 0)
		for (;;)
			pause();
	return pid;
}

static void contains(const char *path, const char *wanted)
{
	char text[32] = {0};
	int fd = open(path, O_RDONLY);
	CHECK(fd >= 0);
	CHECK(read(fd, text, sizeof text - 1) >= 0);
	close(fd);
	CHECK_TEXT(text, wanted);
}

static void kills_what_is_in_a_group_and_below(void)
{
	char group[200], below[240], path[300], text[64];
	snprintf(group, sizeof group, "%s/group", check_directory());
	snprintf(below, sizeof below, "%s/below", group);
	CHECK(mkdir(group, 0700) == 0);
	CHECK(mkdir(below, 0700) == 0);
	pid_t first = sleeper(), second = sleeper();
	snprintf(path, sizeof path, "%s/cgroup.procs", group);
	/* 0 and 1 are never meant. */
	snprintf(text, sizeof text, "0\n1\n%d\n", first);
	make(path, text);
	snprintf(path, sizeof path, "%s/cgroup.procs", below);
	snprintf(text, sizeof text, "%d\n", second);
	make(path, text);
	snprintf(path, sizeof path, "%s/pids.max", group);
	make(path, "");
	snprintf(path, sizeof path, "%s/freezer.state", below);
	make(path, "");
	CHECK_NUMBER(guard_kill(group), 2);
	for (int i = 0; i < 2; i++) {
		int status = 0;
		CHECK(waitpid(i == 0 ? first : second, &status, 0) > 0);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	contains(path, "THAWED");
	snprintf(path, sizeof path, "%s/pids.max", group);
	contains(path, "0");
}

static void looks_at_nothing_that_is_not_there(void)
{
	char path[200];
	snprintf(path, sizeof path, "%s/nothing", check_directory());
	CHECK_NUMBER(guard_kill(path), 0);
}

static void marks_instances_alone(void)
{
	char armed[200], fenced[200], path[300];
	snprintf(armed, sizeof armed, "%s/armed", check_directory());
	snprintf(fenced, sizeof fenced, "%s/fenced", check_directory());
	CHECK(mkdir(armed, 0700) == 0);
	CHECK(mkdir(fenced, 0700) == 0);
	snprintf(path, sizeof path, "%s/%s", armed, id);
	make(path, "");
	snprintf(path, sizeof path, "%s/README", armed);
	make(path, "");
	int from = open(armed, O_RDONLY | O_DIRECTORY), to = open(fenced, O_RDONLY | O_DIRECTORY);
	CHECK(guard_mark(from, to) == 0);
	CHECK(guard_mark(from, to) == 0);
	CHECK(faccessat(to, id, F_OK, 0) == 0);
	CHECK(faccessat(from, id, F_OK, 0) < 0);
	CHECK(faccessat(from, "README", F_OK, 0) == 0);
	close(from);
	close(to);
}

void test_deadline(void)
{
	kills_what_is_in_a_group_and_below();
	looks_at_nothing_that_is_not_there();
	marks_instances_alone();
}

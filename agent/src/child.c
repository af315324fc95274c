/* What every process between the fork and the exec does. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "report.h"
#include "spawn.h"
#include "text.h"

int child_guard(int status)
{
	struct pollfd supervisor = {.fd = status};
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return -1;
	/* In a pid namespace of its own getppid() tells nothing: the hangup does whether the signal came too late. */
	if (poll(&supervisor, 1, 0) > 0 && supervisor.revents & (POLLHUP | POLLERR))
		_exit(1);
	return 0;
}

int child_become_root(void)
{
	return setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 ? -1 : 0;
}

_Noreturn void child_fail(int status, enum phase phase, int error, const char *what, const char *name)
{
	struct failure failure = {.phase = (uint8_t)phase, .error = error};
	TEXT(failure.text, what, *name ? " " : "", name);
	report_failure(status, &failure);
	_exit(1);
}

void child_open_joins(const struct joins *joins, int status, int fds[static JOIN_MAX])
{
	for (uint32_t i = 0; i < joins->count; i++) {
		fds[i] = open(joins->paths[i], O_WRONLY | O_CLOEXEC);
		if (fds[i] < 0)
			child_fail(status, PHASE_STAGE, errno, "cannot open", joins->paths[i]);
	}
}

void child_join(const struct joins *joins, int status, const int fds[static JOIN_MAX])
{
	for (uint32_t i = 0; i < joins->count; i++) {
		if (write(fds[i], "0", 1) < 0)
			child_fail(status, PHASE_STAGE, errno, "cannot join", joins->paths[i]);
		close(fds[i]);
	}
}

int child_write(const char *path, const char *data, size_t length)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t written = write(fd, data, length);
	int error = errno;
	close(fd);
	errno = error;
	return written < 0 ? -1 : 0;
}

static int raise_limit(pid_t pid, const struct operation *operation)
{
	struct rlimit limit;
	uint64_t resource = operation_integer(operation, 0), hard = operation_integer(operation, 2);
	if (resource >= RLIM_NLIMITS)
		return 0; /* its operation says so */
	if (prlimit(pid, (__rlimit_resource_t)resource, NULL, &limit) < 0)
		return -1;
	if (hard <= limit.rlim_max)
		return 0;
	limit.rlim_max = hard;
	return prlimit(pid, (__rlimit_resource_t)resource, &limit, NULL);
}

static int adjust_oom_score(pid_t pid, const struct operation *operation)
{
	char path[64], number[24], value[32];
	int64_t score = (int64_t)operation_integer(operation, 0);
	if (score < -1000 || score > 1000) {
		errno = EINVAL;
		return -1;
	}
	size_t length = TEXT(value, score < 0 ? "-" : "", text_number(number, (uint64_t)(score < 0 ? -score : score)));
	TEXT(path, "/proc/", pid ? text_number(number, (uint64_t)pid) : "self", "/oom_score_adj");
	return child_write(path, value, length);
}

int child_with_host_privileges(pid_t pid, const struct oplist *inside, struct failure *failure)
{
	for (uint32_t i = 0; i < inside->count; i++) {
		const struct operation *operation = &inside->operations[i];
		int result = 0;
		if (operation->code == OP_RLIMIT)
			result = raise_limit(pid, operation);
		else if (operation->code == OP_OOM_SCORE)
			result = adjust_oom_score(pid, operation);
		if (result == 0 || operation->flags & OPERATION_OPTIONAL)
			continue;
		*failure = (struct failure){PHASE_INSIDE, operation->code, i, errno, ""};
		TEXT(failure->text, operation->code == OP_RLIMIT ? "cannot raise a hard limit" : "cannot set the OOM score");
		return -1;
	}
	return 0;
}

void child_await_word(int status)
{
	char word;
	ssize_t got;
	do
		got = read(status, &word, 1);
	while (got < 0 && errno == EINTR);
	if (got != 1)
		_exit(1);
}

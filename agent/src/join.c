/* E: a process that joins a workload's namespaces to execute a program there, or to serve its files. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "files.h"
#include "report.h"
#include "spawn.h"

/* Not dumpable since the fork (CVE-2016-9962, CVE-2019-5736): what is in there can neither trace this process nor
   reach its descriptors and its executable through /proc. */
static void enter(int pidfd, uint32_t namespaces, int status, const struct joins *joins,
		  const int join_fds[static JOIN_MAX])
{
	if (setns(pidfd, (int)namespaces) < 0)
		child_fail(status, PHASE_STAGE, errno, "cannot join the workload's namespaces", "");
	close(pidfd);
	if (namespaces & CLONE_NEWPID) {
		pid_t pid = (pid_t)syscall(SYS_clone, CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, 0);
		if (pid < 0)
			child_fail(status, PHASE_STAGE, errno, "cannot fork in the pid namespace", "");
		if (pid > 0)
			_exit(0);
	}
	report_pid(status, 0);
	child_join(joins, status, join_fds);
	if (namespaces & CLONE_NEWUSER ? child_become_root() < 0 : setgroups(0, NULL) < 0)
		child_fail(status, PHASE_STAGE, errno, "cannot become root of the user namespace", "");
	if (child_guard(status) < 0)
		_exit(1);
}

_Noreturn void join_main(const struct exec_request *request, int status, int pidfd)
{
	struct context context;
	int joins[JOIN_MAX];
	context_init(&context, PLACE_JOINED, PHASE_INSIDE);
	context.status = status;
	context.terminal = request->flags & EXEC_TERMINAL;
	context.rows = request->rows;
	context.columns = request->columns;
	child_open_joins(&request->joins, status, joins);
	if (child_with_host_privileges(0, &request->inside, &context.failure) < 0) {
		report_failure(status, &context.failure);
		_exit(1);
	}
	enter(pidfd, request->setns_flags, status, &request->joins, joins);
	context.root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	context.pivoted = true;
	if (context.root < 0 || setsid() < 0)
		child_fail(status, PHASE_STAGE, errno, "cannot open the root in a session of its own", "");
	if (operations_run(&context, &request->inside) < 0) {
		report_failure(status, &context.failure);
		_exit(1);
	}
	child_fail(status, PHASE_INSIDE, EINVAL, "the list ends without EXEC", "");
}

_Noreturn void join_files_main(uint32_t namespaces, int status, int pidfd)
{
	static const int no_joins[JOIN_MAX];
	enter(pidfd, namespaces & (CLONE_NEWUSER | CLONE_NEWNS), status, &(struct joins){0}, no_joins);
	int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		child_fail(status, PHASE_STAGE, errno, "cannot open the root", "");
	report_ready(status);
	close(status);
	files_serve(root, 0, 1);
	_exit(0);
}

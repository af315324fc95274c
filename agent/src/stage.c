/* T: builds the stage in a mount namespace of its own, and clones the workload's process, which takes a copy of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/securebits.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "report.h"
#include "spawn.h"
#include "text.h"

static void map_ids(const struct start_request *request, int status, pid_t pid)
{
	char path[64], map[64], one[24], two[24];
	size_t length = TEXT(map, "0 ", text_number(one, request->id_base), " ", text_number(two, request->id_count), "\n");
	static const char *const files[] = {"/uid_map", "/gid_map"};
	for (int i = 0; i < 2; i++) {
		TEXT(path, "/proc/", text_number(one, (uint64_t)pid), files[i]);
		if (child_write(path, map, length) < 0)
			child_fail(status, PHASE_STAGE, errno, "cannot write", path);
	}
}

/* Whoever makes a user namespace owns it, and what the kernel counts of its users (inotify, nested namespaces) counts for
   its owner as well. Were that the host's root, one instance could use up what all others and the host have: so it is
   the instance's own root. The effective id alone changes: limits of processes go by the real one. */
static void be(uid_t uid, int status)
{
	int dumpable = prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
	if (syscall(SYS_setresuid, (uid_t)-1, uid, (uid_t)-1) < 0)
		child_fail(status, PHASE_STAGE, errno, "cannot use the ids of the instance", "");
	prctl(PR_SET_DUMPABLE, dumpable == 1, 0, 0, 0); /* which a change of ids has cleared */
}

/* From here on files are made with the ids of the instance's root. */
static void use_instance_ids(uint32_t base, int status)
{
	setfsgid(base);
	setfsuid(base);
	if ((uint32_t)setfsuid((uid_t)-1) != base || (uint32_t)setfsgid((gid_t)-1) != base)
		child_fail(status, PHASE_STAGE, EPERM, "cannot use the ids of the instance", "");
}

static void enter_namespaces(const struct start_request *request, int status, int netns)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		child_fail(status, PHASE_STAGE, errno, "cannot make a mount namespace", "");
	if (strcmp(request->netns, NETNS_NEW) == 0 && unshare(CLONE_NEWNET) < 0)
		child_fail(status, PHASE_STAGE, errno, "cannot make a network namespace", "");
	if (netns < 0)
		return;
	if (setns(netns, CLONE_NEWNET) < 0)
		child_fail(status, PHASE_STAGE, errno, "cannot enter the network namespace", "");
	close(netns);
}

static pid_t clone_inside(const struct start_request *request, int status, int sync[static 2])
{
	int joins[JOIN_MAX];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sync) < 0)
		child_fail(status, PHASE_STAGE, errno, "cannot make a socket pair", "");
	child_open_joins(&request->joins, status, joins);
	be(request->id_base, status);
	pid_t pid = (pid_t)syscall(SYS_clone, request->clone_flags | CLONE_PARENT | SIGCHLD, NULL, NULL, NULL, 0);
	if (pid < 0)
		child_fail(status, PHASE_STAGE, errno, "cannot clone the workload's process", "");
	if (pid == 0) {
		close(sync[0]);
		inside_main(request, status, sync[1], joins);
	}
	for (uint32_t i = 0; i < request->joins.count; i++)
		close(joins[i]);
	close(sync[1]);
	report_pid(status, pid);
	return pid;
}

_Noreturn void stage_main(const struct start_request *request, int status, int netns)
{
	struct context context;
	char path[64], number[24], byte = 0;
	int sync[2];
	enter_namespaces(request, status, netns);
	child_await_word(status);
	/* Whatever the ids are, every capability stays. */
	if (request->id_base != 0 && prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0)
		child_fail(status, PHASE_STAGE, errno, "cannot keep the capabilities", "");
	pid_t pid = clone_inside(request, status, sync);
	context_init(&context, PLACE_STAGE, PHASE_STAGE);
	context.status = status;
	context.id_base = request->id_base;
	if (request->clone_flags & CLONE_NEWUSER) {
		map_ids(request, status, pid);
		TEXT(path, "/proc/", text_number(number, (uint64_t)pid), "/ns/user");
		context.userns = open(path, O_RDONLY | O_CLOEXEC);
		if (context.userns < 0)
			child_fail(status, PHASE_STAGE, errno, "cannot open", path);
	}
	struct failure failure;
	if (child_with_host_privileges(pid, &request->inside, &failure) < 0) {
		report_failure(status, &failure);
		_exit(1);
	}
	be(0, status);
	if (request->id_base != 0)
		use_instance_ids(request->id_base, status);
	if (operations_run(&context, &request->stage) < 0) {
		report_failure(status, &context.failure);
		_exit(1);
	}
	if (send_descriptor(sync[0], &byte, 1, context.stage) < 0)
		child_fail(status, PHASE_STAGE, errno, "the workload's process is gone", "");
	/* Taking this namespace down makes every change of mounts on the host wait (synchronize_rcu_expedited), those of
	   the workload's process first of all. So stay until it is done with them, which closes its end. */
	close(status);
	while (read(sync[0], &byte, 1) < 0 && errno == EINTR)
		;
	_exit(0);
}

/* From the agent to the workload: everything about the process is set in the order that works, then the exec. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "context.h"
#include "inherit.h"
#include "report.h"
#include "spawn.h"
#include "text.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U /* since Linux 6.3 */
#endif

enum { CAPABILITIES_MAX = 64, PROGRAM_FD = 4 };

static const char *const default_path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/* CVE-2024-21626: a working directory that is not below the root would be a way out. */
static int check_directory(struct context *context)
{
	char path[PATH_MAX];
	long length = syscall(SYS_getcwd, path, sizeof path);
	if (length < 0 || path[0] != '/')
		return failed(context, length < 0 ? errno : EXDEV, "the working directory is not below the root", "");
	return 0;
}

/* Pipes and terminals can then be opened by name (/dev/stdout) by a user that is not root. */
static void own_stdio(const struct exec_plan *plan)
{
	struct stat is;
	for (int fd = 0; fd <= 2; fd++)
		if (fstat(fd, &is) == 0 && (S_ISFIFO(is.st_mode) || (S_ISCHR(is.st_mode) && isatty(fd))) &&
		    is.st_uid != plan->uid && fchown(fd, plan->uid, (gid_t)-1) < 0)
			continue; /* a host's file: it stays the host's */
}

static int become_user(struct context *context)
{
	const struct exec_plan *plan = &context->plan;
	char number[24];
	if (plan->uid != 0)
		own_stdio(plan);
	if (prctl(PR_SET_KEEPCAPS, plan->caps_set ? 1 : 0, 0, 0, 0) < 0 || setgroups(plan->group_count, plan->groups) < 0)
		return failed(context, errno, "cannot set the groups", "");
	if (setresgid(plan->gid, plan->gid, plan->gid) < 0)
		return failed(context, errno, "cannot become the gid", text_number(number, plan->gid));
	if (setresuid(plan->uid, plan->uid, plan->uid) < 0)
		return failed(context, errno, "cannot become the uid", text_number(number, plan->uid));
	return 0;
}

static int drop_bounding(struct context *context)
{
	for (unsigned capability = 0; capability < CAPABILITIES_MAX; capability++) {
		if (context->plan.bounding >> capability & 1)
			continue;
		if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0) {
			if (errno == EINVAL)
				break; /* above the last one of this kernel */
			return failed(context, errno, "cannot drop a capability from the bounding set", "");
		}
	}
	return 0;
}

static int set_capabilities(struct context *context)
{
	const struct exec_plan *plan = &context->plan;
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	for (unsigned i = 0; i < 2; i++) {
		data[i].effective = (uint32_t)(plan->effective >> (32 * i));
		data[i].permitted = (uint32_t)(plan->permitted >> (32 * i));
		data[i].inheritable = (uint32_t)(plan->inheritable >> (32 * i));
	}
	if (syscall(SYS_capset, &header, data) < 0)
		return failed(context, errno, "cannot set the capabilities", "");
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return failed(context, errno, "cannot clear the ambient capabilities", "");
	for (unsigned capability = 0; capability < CAPABILITIES_MAX; capability++)
		if (plan->ambient >> capability & 1 &&
		    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) < 0)
			return failed(context, errno, "cannot raise an ambient capability", "");
	return 0;
}

static int set_limits(struct context *context)
{
	char number[24];
	for (unsigned i = 0; i < RLIM_NLIMITS; i++)
		if (context->plan.limits_set >> i & 1 && setrlimit((__rlimit_resource_t)i, &context->plan.limits[i]) < 0)
			return failed(context, errno, "cannot set the limit of resource", text_number(number, i));
	return 0;
}

static int load_seccomp(struct context *context)
{
	const struct argument *program = context->plan.seccomp;
	if (program == NULL)
		return 0;
	struct sock_fprog filter = {
		.len = (unsigned short)(program->length / sizeof(struct sock_filter)),
		.filter = (struct sock_filter *)(void *)program->data,
	};
	if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) < 0)
		return failed(context, errno, "cannot load the seccomp program", "");
	return 0;
}

static const char *variable(const struct strings *environment, const char *name)
{
	size_t length = strlen(name);
	for (size_t i = environment->count; i > 0; i--)
		if (strncmp(environment->items[i - 1], name, length) == 0 && environment->items[i - 1][length] == '=')
			return environment->items[i - 1] + length + 1;
	return NULL;
}

/* The program that came with the list, in memory alone: no file of it is ever in the instance, and nobody can change
   it, its own process included. The descriptor, or -error. */
static int keep_program(struct context *context)
{
	const struct argument *program = context->plan.program;
	int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	int fd = memfd_create("program", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("program", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return failed(context, errno, "no memory for the program", "");
	for (size_t at = 0; at < program->length;) {
		ssize_t written = write(fd, program->data + at, program->length - at);
		if (written <= 0) {
			int error = written < 0 ? errno : EIO;
			close(fd);
			return failed(context, error, "cannot keep the program", "");
		}
		at += (size_t)written;
	}
	/* Out of the way of the descriptors that EXEC gives their places. */
	int kept = fcntl(fd, F_ADD_SEALS, seals) < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, PROGRAM_FD + 1);
	int error = errno;
	close(fd);
	return kept < 0 ? failed(context, error, "cannot seal the program", "") : kept;
}

/* As execvp(3), but a file that is no program is not given to a shell. Returns the error. */
static int execute(const struct exec_plan *plan)
{
	char path[PATH_MAX], home[HOME_MAX + 8];
	char *const *argv = plan->arguments.items, **environment = plan->environment.items;
	int error = ENOENT;
	if (plan->user_set && variable(&plan->environment, "HOME") == NULL) {
		TEXT(home, "HOME=", plan->home);
		environment[plan->environment.count] = home;
	}
	if (plan->program != NULL) {
		syscall(SYS_execveat, PROGRAM_FD, "", argv, environment, AT_EMPTY_PATH);
		return errno;
	}
	if (strchr(argv[0], '/') != NULL) {
		execve(argv[0], argv, environment);
		return errno;
	}
	const char *at = variable(&plan->environment, "PATH");
	for (at = at ? at : default_path; at != NULL; at = strchr(at, ':') ? strchr(at, ':') + 1 : NULL) {
		size_t length = strcspn(at, ":"), name = strlen(argv[0]);
		if (name == 0 || length + name + 2 > sizeof path)
			continue;
		memcpy(path, at, length);
		if (length > 0)
			path[length++] = '/';
		memcpy(path + length, argv[0], name + 1);
		execve(path, argv, environment);
		if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
			return errno;
		if (errno == EACCES)
			error = EACCES;
	}
	return error;
}

/* The limits come before the capabilities go, seccomp after all that it might forbid: but where set-id programs are to
   work the kernel takes it from who has SYS_ADMIN alone, which is before the change of user. */
static int prepare(struct context *context)
{
	const struct exec_plan *plan = &context->plan;
	int result = check_directory(context);
	if (result == 0 && plan->caps_set)
		result = drop_bounding(context);
	if (result == 0)
		result = set_limits(context);
	if (result == 0 && plan->seccomp_first)
		result = load_seccomp(context);
	if (result == 0 && plan->user_set)
		result = become_user(context);
	if (result == 0 && plan->caps_set)
		result = set_capabilities(context);
	if (result < 0)
		return result;
	/* KEEPCAPS is not for the workload; a change of ids has taken off the parent-death signal. */
	if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0 || child_guard(context->status) < 0)
		return failed(context, errno, "cannot guard the process", "");
	if (plan->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return failed(context, errno, "cannot set no_new_privs", "");
	return 0;
}

int op_exec(struct context *context, const struct operation *operation)
{
	struct exec_plan *plan = &context->plan;
	sigset_t none;
	if (!context->pivoted)
		return failed(context, EINVAL, "EXEC comes before PIVOT", "");
	if (strings_add(&plan->arguments, operation) < 0 ||
	    strings_add(&plan->environment, &(struct operation){.count = 0}) < 0)
		return failed(context, ENOMEM, "no memory for the arguments", "");
	if (plan->arguments.count == 0)
		return failed(context, EINVAL, "no program is named", "");
	int program = plan->program ? keep_program(context) : -1;
	if (plan->program != NULL && program < 0)
		return program;
	int result = prepare(context);
	if (result < 0)
		return result;
	/* Closed, not only on exec: argv[0] may be /proc/self/fd/N/... */
	if (context->status != 3 && dup3(context->status, 3, O_CLOEXEC) < 0)
		return failed(context, errno, "cannot keep the status socket", "");
	if (program >= 0 && dup3(program, PROGRAM_FD, O_CLOEXEC) < 0)
		return failed(context, errno, "cannot keep the program", "");
	inherit_close_others(program >= 0 ? PROGRAM_FD + 1 : PROGRAM_FD, context->inherit);
	context->status = 3;
	umask(plan->umask);
	report_ready(context->status);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (!plan->seccomp_first)
		result = load_seccomp(context);
	if (result < 0)
		return result;
	return failed(context, execute(plan), "cannot execute", plan->arguments.items[0]);
}

/* Operations on the process itself. Most are only noted here; exec.c applies them in the order that works. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "context.h"
#include "inherit.h"
#include "users.h"

int op_rlimit(struct context *context, const struct operation *operation)
{
	uint64_t resource = operation_integer(operation, 0);
	struct rlimit limit = {.rlim_cur = operation_integer(operation, 1), .rlim_max = operation_integer(operation, 2)};
	if (resource >= RLIM_NLIMITS || limit.rlim_cur > limit.rlim_max)
		return failed(context, EINVAL, "no such resource, or a soft limit above the hard one", "");
	context->plan.limits[resource] = limit;
	context->plan.limits_set |= 1u << resource;
	return 0;
}

int op_user(struct context *context, const struct operation *operation)
{
	struct exec_plan *plan = &context->plan;
	struct user user;
	const char *spec = operation->arguments[0].data;
	if (need_root(context) < 0)
		return -ENOTDIR;
	const char *error = user_find(context->root, spec, &user);
	if (error != NULL)
		return failed(context, errno, error, spec);
	for (unsigned i = 1; i < operation->count; i++) {
		uint64_t gid = operation_integer(operation, i);
		if (gid >= UINT32_MAX || user.group_count == GROUPS_MAX)
			return failed(context, EINVAL, "an additional group is out of range, or there are more than 256", spec);
		user.groups[user.group_count++] = (gid_t)gid;
	}
	plan->user_set = true;
	plan->uid = user.uid;
	plan->gid = user.gid;
	plan->group_count = user.group_count;
	memcpy(plan->groups, user.groups, user.group_count * sizeof *user.groups);
	memcpy(plan->home, user.home, sizeof plan->home);
	return 0;
}

int op_caps(struct context *context, const struct operation *operation)
{
	struct exec_plan *plan = &context->plan;
	plan->caps_set = true;
	plan->bounding = operation_integer(operation, 0);
	plan->effective = operation_integer(operation, 1);
	plan->permitted = operation_integer(operation, 2);
	plan->inheritable = operation_integer(operation, 3);
	plan->ambient = operation_integer(operation, 4);
	if (plan->effective & ~plan->permitted || plan->ambient & ~(plan->permitted & plan->inheritable))
		return failed(context, EINVAL, "effective capabilities are not permitted, or ambient ones not inheritable", "");
	return 0;
}

int op_no_new_privs(struct context *context, const struct operation *operation)
{
	(void)operation;
	context->plan.no_new_privs = true;
	return 0;
}

static int note_seccomp(struct context *context, const struct argument *program, bool first)
{
	if (program->length == 0 || program->length % sizeof(struct sock_filter) != 0 ||
	    program->length / sizeof(struct sock_filter) > BPF_MAXINSNS)
		return failed(context, EINVAL, "not a seccomp program", "");
	context->plan.seccomp = program;
	context->plan.seccomp_first = first;
	return 0;
}

int op_seccomp(struct context *context, const struct operation *operation)
{
	context->plan.no_new_privs = true;
	return note_seccomp(context, &operation->arguments[0], false);
}

int op_seccomp_first(struct context *context, const struct operation *operation)
{
	return note_seccomp(context, &operation->arguments[0], true);
}

int op_umask(struct context *context, const struct operation *operation)
{
	context->plan.umask = (mode_t)(operation_integer(operation, 0) & 0777);
	return 0;
}

int op_oom_score(struct context *context, const struct operation *operation)
{
	/* Done already, with the host's privileges: see with_host_privileges in spawn.c. */
	(void)context;
	(void)operation;
	return 0;
}

int op_keyring(struct context *context, const struct operation *operation)
{
	(void)operation;
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL, 0, 0, 0) < 0 && errno != ENOSYS)
		return failed(context, errno, "cannot join a session keyring", "");
	return 0;
}

int strings_add(struct strings *strings, const struct operation *operation)
{
	size_t count = strings->count + operation->count;
	char **items = realloc(strings->items, (count + 2) * sizeof *items);
	if (items == NULL)
		return -1;
	for (unsigned i = 0; i < operation->count; i++)
		items[strings->count++] = operation->arguments[i].data;
	items[count] = items[count + 1] = NULL;
	strings->items = items;
	return 0;
}

int op_env(struct context *context, const struct operation *operation)
{
	if (strings_add(&context->plan.environment, operation) < 0)
		return failed(context, ENOMEM, "no memory for the environment", "");
	return 0;
}

int op_args(struct context *context, const struct operation *operation)
{
	if (strings_add(&context->plan.arguments, operation) < 0)
		return failed(context, ENOMEM, "no memory for the arguments", "");
	return 0;
}

int op_inherit(struct context *context, const struct operation *operation)
{
	unsigned number = (unsigned)operation_integer(operation, 0);
	if (fcntl((int)number, F_SETFD, 0) < 0)
		return failed(context, errno, "no such descriptor has been handed over", "");
	inherit_add(context->inherit, number);
	return 0;
}

int op_program(struct context *context, const struct operation *operation)
{
	if (operation->arguments[0].length == 0)
		return failed(context, EINVAL, "the program is empty", "");
	context->plan.program = &operation->arguments[0];
	return 0;
}

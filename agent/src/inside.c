/* C: the process that becomes the workload. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include "mounts.h"
#include "report.h"
#include "spawn.h"

/* The name that the stage's last ROOT gave. */
static const char *root_name(const struct oplist *stage)
{
	for (uint32_t i = stage->count; i > 0; i--)
		if (stage->operations[i - 1].code == OP_ROOT)
			return stage->operations[i - 1].arguments[0].data;
	return NULL;
}

/* A mount that came with a copy from another user namespace is locked, and no root can be made of it: a clone of it,
   on top of it, is not. */
static int unlock_root(struct context *context)
{
	int tree = mount_clone(context, context->root, "", 0, MOUNT_RECURSIVE);
	if (tree < 0 || mount_attach(tree, context->root) < 0)
		return -1;
	close(context->root);
	context->root = tree;
	return 0;
}

static void enter(struct context *context, const struct start_request *request, int sync)
{
	char byte;
	int status = context->status;
	/* It stays open, up to the exec, for the stage process to wait for.
	   The end of that process without a word is its failure, which it has told. */
	if (receive_descriptor(sync, &byte, 1, &context->stage, NULL, 0) != 1)
		_exit(1);
	if (request->clone_flags & CLONE_NEWUSER ? child_become_root() < 0 : setgroups(0, NULL) < 0)
		child_fail(status, PHASE_INSIDE, errno, "cannot become root of the user namespace", "");
	if (child_guard(status) < 0 || setsid() < 0)
		child_fail(status, PHASE_INSIDE, errno, "cannot leave the supervisor's session", "");
	/* unshare(2) takes the working directory along into the copy of the mounts, but no descriptor. */
	if (context->stage >= 0 && fchdir(context->stage) < 0)
		child_fail(status, PHASE_INSIDE, errno, "cannot enter the stage", "");
	if (request->unshare_flags != 0 && unshare((int)request->unshare_flags) < 0)
		child_fail(status, PHASE_INSIDE, errno, "cannot make the namespaces", "");
	if (context->stage < 0)
		return;
	close(context->stage);
	context->stage = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	const char *root = root_name(&request->stage);
	if (root != NULL && context_set_root(context, root) < 0)
		child_fail(status, PHASE_INSIDE, errno, "cannot open the root", root);
	if (root != NULL && request->clone_flags & CLONE_NEWUSER && unlock_root(context) < 0)
		child_fail(status, PHASE_INSIDE, errno, "cannot clone the mounts of the root", root);
}

_Noreturn void hold_main(int status)
{
	sigset_t none;
	signal(SIGCHLD, SIG_IGN);
	report_held(status);
	close_range(3, ~0u, 0);
	sigemptyset(&none);
	for (;;)
		sigsuspend(&none);
}

_Noreturn void inside_main(const struct start_request *request, int status, int sync, const int joins[static JOIN_MAX])
{
	struct context context;
	if (child_guard(status) < 0)
		_exit(1);
	child_join(&request->joins, status, joins);
	context_init(&context, PLACE_INSIDE, PHASE_INSIDE);
	context.status = status;
	context.terminal = request->flags & START_TERMINAL && !(request->flags & START_HOLD);
	context.rows = request->rows;
	context.columns = request->columns;
	enter(&context, request, sync);
	if (operations_run(&context, &request->inside) < 0) {
		report_failure(status, &context.failure);
		_exit(1);
	}
	if (request->flags & START_HOLD)
		hold_main(status);
	child_fail(status, PHASE_INSIDE, EINVAL, "the list ends without EXEC", "");
}

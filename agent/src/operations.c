#include <errno.h>

#include "context.h"
#include "text.h"

typedef int (*operation_function)(struct context *, const struct operation *);

static const operation_function functions[] = {
	[OP_MKDIR] = op_mkdir,
	[OP_RMDIR] = op_rmdir,
	[OP_WRITE] = op_write,
	[OP_READ] = op_read,
	[OP_UNLINK] = op_unlink,
	[OP_KILLALL] = op_killall,
	[OP_CHOWN] = op_chown,
	[OP_STAGE] = op_stage,
	[OP_ATTACH] = op_attach,
	[OP_OVERLAY] = op_overlay,
	[OP_ROOT] = op_root,
	[OP_MOUNTDEV] = op_mountdev,
	[OP_MOUNT] = op_mount,
	[OP_BIND] = op_bind,
	[OP_REBIND] = op_rebind,
	[OP_MASK] = op_mask,
	[OP_MKDIRS] = op_mkdirs,
	[OP_FILE] = op_file,
	[OP_SYMLINK] = op_symlink,
	[OP_DEVICE] = op_device,
	[OP_PIVOT] = op_pivot,
	[OP_SYSCTL] = op_sysctl,
	[OP_HOSTNAME] = op_hostname,
	[OP_CONSOLE] = op_console,
	[OP_LOOPBACK] = op_loopback,
	[OP_SECRET] = op_secret,
	[OP_CHDIR] = op_chdir,
	[OP_RLIMIT] = op_rlimit,
	[OP_USER] = op_user,
	[OP_CAPS] = op_caps,
	[OP_NO_NEW_PRIVS] = op_no_new_privs,
	[OP_SECCOMP] = op_seccomp,
	[OP_UMASK] = op_umask,
	[OP_OOM_SCORE] = op_oom_score,
	[OP_KEYRING] = op_keyring,
	[OP_ENV] = op_env,
	[OP_EXEC] = op_exec,
	[OP_ARGS] = op_args,
	[OP_INHERIT] = op_inherit,
	[OP_SECCOMP_FIRST] = op_seccomp_first,
	[OP_PROGRAM] = op_program,
	[OP_MODULE] = op_module,
	[OP_CLOCK] = op_clock,
	[OP_ENTROPY] = op_entropy,
	[OP_NETIF] = op_netif,
	[OP_POWEROFF] = op_poweroff,
	[OP_SYNC] = op_sync,
	[OP_GROW] = op_grow,
	[OP_SERVE] = op_serve,
	[OP_MACVLAN] = op_macvlan,
};

void context_init(struct context *context, enum place place, enum phase phase)
{
	*context = (struct context){
		.place = place,
		.phase = phase,
		.stage = -1,
		.root = -1,
		.userns = -1,
		.null_mount = -1,
		.empty_mount = -1,
		.proc = -1,
		.secrets = -1,
		.status = -1,
		.plan.umask = 022,
	};
}

int failed(struct context *context, int error, const char *what, const char *name)
{
	TEXT(context->failure.text, what, *name ? " " : "", name);
	return -error;
}

int need_root(struct context *context)
{
	return context->root >= 0 ? 0 : failed(context, ENOTDIR, "no root has been set", "");
}

int operations_run(struct context *context, const struct oplist *list)
{
	for (uint32_t i = 0; i < list->count; i++) {
		const struct operation *operation = &list->operations[i];
		size_t reported = context->reports.length;
		int result = functions[operation->code](context, operation);
		/* A report that failed is an empty one, so that each keeps its place. */
		if (operation->flags & OPERATION_REPORT && context->reports.length == reported &&
		    buffer_append(&context->reports, "\0\0\0\0", 4) < 0)
			result = -ENOMEM;
		if (result >= 0 || operation->flags & OPERATION_OPTIONAL)
			continue;
		context->failure.phase = (uint8_t)context->phase;
		context->failure.code = operation->code;
		context->failure.index = i;
		context->failure.error = -result;
		return -1;
	}
	return 0;
}

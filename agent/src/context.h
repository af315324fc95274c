/* What the operations of one list share: where they happen, and what they have gathered for the exec. */
#ifndef CONTEXT_H
#define CONTEXT_H

#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "buffer.h"
#include "oplist.h"

enum { GROUPS_MAX = 256, HOME_MAX = 256 };

/* Why a list, or what led up to it, failed. Travels from child to supervisor as it is. */
struct failure {
	uint8_t phase;
	uint16_t code;
	uint32_t index;
	int32_t error;
	char text[200];
};

/* Texts of operations, as execve(2) takes them: with a NULL at the end. */
struct strings {
	char **items;
	size_t count;
};

/* What changes the process itself: gathered by its operations, applied by EXEC in the order that works. */
struct exec_plan {
	struct rlimit limits[RLIM_NLIMITS];
	uint32_t limits_set; /* a bit for each */
	bool user_set;
	uid_t uid;
	gid_t gid;
	gid_t groups[GROUPS_MAX];
	size_t group_count;
	char home[HOME_MAX];
	bool caps_set, no_new_privs, seccomp_first;
	uint64_t bounding, effective, permitted, inheritable, ambient;
	const struct argument *seccomp, *program;
	mode_t umask;
	struct strings environment, arguments;
};

struct context {
	enum place place;
	enum phase phase;
	struct failure failure;
	struct buffer reports;
	int stage, root; /* directories (O_PATH), -1: none yet */
	bool pivoted;	 /* the root is the process's root */
	int userns;	 /* of the workload, for id-mapped mounts; -1: none */
	uint32_t id_base;
	int null_mount, empty_mount; /* mounts that MASK clones; -1: none yet */
	bool null_used, empty_used;  /* the first is attached */
	int proc;		     /* our own procfs, attached nowhere; -1: none yet */
	int secrets;		     /* the file system that holds them; -1: none yet */
	unsigned secret_count;
	int status;		     /* socket to the supervisor */
	uint32_t inherit[8];	     /* bits of the descriptors that stay open across the exec */
	bool terminal;
	uint16_t rows, columns;
	struct exec_plan plan;
};

/* Carries a list out. 0, or -1 with `context->failure`. EXEC does not return when it succeeds. */
int operations_run(struct context *context, const struct oplist *list);
/* A context in which nothing is open. */
void context_init(struct context *context, enum place place, enum phase phase);

/* -1 with a note where ROOT has not been yet. */
int need_root(struct context *context);
/* Notes what failed, for the user: "what name". Returns -error, as every operation does. */
int failed(struct context *context, int error, const char *what, const char *name);

/* host_ops.c */
int op_mkdir(struct context *context, const struct operation *operation);
int op_rmdir(struct context *context, const struct operation *operation);
int op_write(struct context *context, const struct operation *operation);
int op_read(struct context *context, const struct operation *operation);
int op_unlink(struct context *context, const struct operation *operation);
int op_killall(struct context *context, const struct operation *operation);
int op_chown(struct context *context, const struct operation *operation);

/* stage_ops.c */
int op_stage(struct context *context, const struct operation *operation);
int op_attach(struct context *context, const struct operation *operation);
int op_overlay(struct context *context, const struct operation *operation);
int op_root(struct context *context, const struct operation *operation);
int op_mountdev(struct context *context, const struct operation *operation);
int context_set_root(struct context *context, const char *name);

/* mounts.c */
int op_mount(struct context *context, const struct operation *operation);
int op_bind(struct context *context, const struct operation *operation);
int op_rebind(struct context *context, const struct operation *operation);
int op_mask(struct context *context, const struct operation *operation);
int op_device(struct context *context, const struct operation *operation);
int op_pivot(struct context *context, const struct operation *operation);

/* inroot_ops.c */
int op_mkdirs(struct context *context, const struct operation *operation);
int op_file(struct context *context, const struct operation *operation);
int op_symlink(struct context *context, const struct operation *operation);
int op_sysctl(struct context *context, const struct operation *operation);
int op_chdir(struct context *context, const struct operation *operation);
int op_hostname(struct context *context, const struct operation *operation);
int op_loopback(struct context *context, const struct operation *operation);
int op_secret(struct context *context, const struct operation *operation);

/* console.c */
int op_console(struct context *context, const struct operation *operation);

/* process_ops.c */
int op_rlimit(struct context *context, const struct operation *operation);
int op_user(struct context *context, const struct operation *operation);
int op_caps(struct context *context, const struct operation *operation);
int op_no_new_privs(struct context *context, const struct operation *operation);
int op_seccomp(struct context *context, const struct operation *operation);
int op_seccomp_first(struct context *context, const struct operation *operation);
int op_umask(struct context *context, const struct operation *operation);
int op_oom_score(struct context *context, const struct operation *operation);
int op_keyring(struct context *context, const struct operation *operation);
int op_env(struct context *context, const struct operation *operation);
int op_args(struct context *context, const struct operation *operation);
int op_inherit(struct context *context, const struct operation *operation);
int op_program(struct context *context, const struct operation *operation);
/* Adds an operation's arguments; there is room for one more item afterwards. -1 without memory. */
int strings_add(struct strings *strings, const struct operation *operation);

/* guest_ops.c, netif.c */
int op_module(struct context *context, const struct operation *operation);
int op_clock(struct context *context, const struct operation *operation);
int op_entropy(struct context *context, const struct operation *operation);
int op_netif(struct context *context, const struct operation *operation);
int op_poweroff(struct context *context, const struct operation *operation);
int op_sync(struct context *context, const struct operation *operation);
int op_grow(struct context *context, const struct operation *operation);
int op_serve(struct context *context, const struct operation *operation);
int op_macvlan(struct context *context, const struct operation *operation);
/* -1 with a note where this is not the agent of a guest. */
int need_guest(struct context *context);

/* exec.c */
int op_exec(struct context *context, const struct operation *operation);

#endif

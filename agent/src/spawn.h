/* Starts processes: the workload (through a stage process), those of EXEC, and those of FILES. Returns at once; what
   becomes of them is told on the status socket (report.h). */
#ifndef SPAWN_H
#define SPAWN_H

#include "context.h"
#include "requests.h"

/* A process on its way, as the supervisor holds it. */
struct launch {
	pid_t pid;	       /* of the first process; REPORT_PID tells that of the one that matters */
	int status;	       /* not blocking, as are the others */
	int in, out, err;      /* ends of its pipes; -1: none, or a terminal that REPORT_CONSOLE brings */
};

/* A workload that runs: what an exec joins. */
struct joined {
	int pidfd;
	uint32_t id_base;
	uint32_t namespaces; /* CLONE_NEW* that are not the host's */
};

/* 0, or -1 with `failure`: nothing has been started then. What spawn_start has started makes its namespaces and waits
   for the word to go on (child_await_word). */
int spawn_start(const struct start_request *request, struct launch *launch, struct failure *failure);
void spawn_go_on(const struct launch *launch);
/* A process that stands for a machine elsewhere: it waits for its end. */
int spawn_place(struct launch *launch, struct failure *failure);
int spawn_exec(const struct exec_request *request, const struct joined *joined, struct launch *launch,
	       struct failure *failure);
int spawn_files(const struct joined *joined, struct launch *launch, struct failure *failure);

/* In a child: not dumpable, and killed with the supervisor, whose end of `status` tells whether it still lives. */
int child_guard(int status);
/* Returns with the word of spawn_go_on; without it the process ends. */
void child_await_word(int status);
/* In a child: uid and gid 0 without groups. */
int child_become_root(void);
/* In a child: tells the failure and ends. */
_Noreturn void child_fail(int status, enum phase phase, int error, const char *what, const char *name);
/* One write to a file that is there. -1: errno. */
int child_write(const char *path, const char *data, size_t length);
/* Limits and OOM score that a list asks for and that its own process may not set. -1: failure. */
int child_with_host_privileges(pid_t pid, const struct oplist *inside, struct failure *failure);

/* Files of cgroups, opened with the host's privileges. A process that moves itself into a v1 cgroup is moved at once;
   written by another, its pid waits for a grace period. */
void child_open_joins(const struct joins *joins, int status, int fds[static JOIN_MAX]);
/* The process joins each and closes the files. */
void child_join(const struct joins *joins, int status, const int fds[static JOIN_MAX]);

/* stage.c: the process that builds the stage and clones the workload's process. */
_Noreturn void stage_main(const struct start_request *request, int status, int netns);
/* inside.c: the workload's process; it waits on `sync` for the stage. */
/* It has no program, and reaps whatever is left to it. */
_Noreturn void hold_main(int status);
_Noreturn void inside_main(const struct start_request *request, int status, int sync, const int joins[static JOIN_MAX]);
/* join.c: the processes that join a workload. */
_Noreturn void join_main(const struct exec_request *request, int status, int pidfd);
_Noreturn void join_files_main(uint32_t namespaces, int status, int pidfd);

#endif

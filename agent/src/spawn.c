#define _GNU_SOURCE
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "report.h"
#include "text.h"

struct plumbing {
	int status[2];
	int in[2], out[2], err[2]; /* 0 is the end to read from */
};

static const uint32_t nothing[INHERIT_WORDS];

enum wanted { WANT_STDIN = 1, WANT_STDOUT = 2, WANT_STDERR = 4 };

static void close_pair(int pair[static 2])
{
	for (int i = 0; i < 2; i++)
		if (pair[i] >= 0)
			close(pair[i]);
}

static void unplumb(struct plumbing *plumbing)
{
	close_pair(plumbing->status);
	close_pair(plumbing->in);
	close_pair(plumbing->out);
	close_pair(plumbing->err);
}

/* A pipe that belongs to the instance's root; our end does not block. */
static int make_pipe(int pair[static 2], int ours, uint32_t owner)
{
	if (pipe2(pair, O_CLOEXEC) < 0)
		return -1;
	if (owner != 0 && fchown(pair[0], owner, owner) < 0)
		return -1;
	return fcntl(pair[ours], F_SETFL, O_NONBLOCK);
}

static int plumb(struct plumbing *plumbing, unsigned wanted, uint32_t owner)
{
	*plumbing = (struct plumbing){{-1, -1}, {-1, -1}, {-1, -1}, {-1, -1}};
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, plumbing->status) < 0 ||
	    report_ask_for_senders(plumbing->status[0]) < 0 ||
	    (wanted & WANT_STDIN && make_pipe(plumbing->in, 1, owner) < 0) ||
	    (wanted & WANT_STDOUT && make_pipe(plumbing->out, 0, owner) < 0) ||
	    (wanted & WANT_STDERR && make_pipe(plumbing->err, 0, owner) < 0)) {
		int error = errno;
		unplumb(plumbing);
		errno = error;
		return -1;
	}
	return 0;
}

/* In the child: fds[i] becomes descriptor i (-1: closed), everything else but `keep` is closed. */
static void arrange(const int *fds, int count, const uint32_t keep[static INHERIT_WORDS])
{
	int moved[5];
	for (int i = 0; i < count; i++)
		moved[i] = fds[i] < 0 ? -1 : fcntl(fds[i], F_DUPFD_CLOEXEC, count);
	for (int i = 0; i < count; i++) {
		if (moved[i] < 0 || dup3(moved[i], i, i > 2 ? O_CLOEXEC : 0) < 0)
			close(i);
	}
	inherit_close_others((unsigned)count, keep);
}

/* Forks; the child has stdio, the status socket as 3 and `extra` (or nothing) as 4. Its pid, 0 in the child, or -1. */
static pid_t fork_plumbed(struct plumbing *plumbing, int extra, const uint32_t keep[static INHERIT_WORDS],
			  struct launch *launch)
{
	/* 0 is /dev/null in a supervisor. */
	const int fds[5] = {plumbing->in[0] >= 0 ? plumbing->in[0] : 0, plumbing->out[1] >= 0 ? plumbing->out[1] : 0,
			    plumbing->err[1] >= 0 ? plumbing->err[1] : 0, plumbing->status[1], extra};
	pid_t pid = fork();
	if (pid == 0) {
		arrange(fds, 5, keep);
		if (child_guard(3) < 0)
			_exit(1);
		umask(0);
		return 0;
	}
	if (pid < 0) {
		int error = errno;
		unplumb(plumbing);
		errno = error;
		return -1;
	}
	*launch = (struct launch){pid, plumbing->status[0], plumbing->in[1], plumbing->out[0], plumbing->err[0]};
	plumbing->status[0] = plumbing->in[1] = plumbing->out[0] = plumbing->err[0] = -1;
	unplumb(plumbing);
	return pid;
}

static int not_spawned(struct failure *failure, const char *what, const char *name)
{
	*failure = (struct failure){.phase = PHASE_STAGE, .error = errno};
	TEXT(failure->text, what, *name ? " " : "", name);
	return -1;
}

int spawn_start(const struct start_request *request, struct launch *launch, struct failure *failure)
{
	struct plumbing plumbing;
	unsigned wanted = request->flags & (START_TERMINAL | START_HOLD) ? 0 : WANT_STDOUT | WANT_STDERR;
	if (request->flags & START_STDIN && !(request->flags & (START_TERMINAL | START_HOLD)))
		wanted |= WANT_STDIN;
	int netns = -1;
	if (*request->netns == '/' && (netns = open(request->netns, O_RDONLY | O_CLOEXEC)) < 0)
		return not_spawned(failure, "cannot open the network namespace", request->netns);
	int result = plumb(&plumbing, wanted, request->id_base);
	if (result == 0) {
		result = fork_plumbed(&plumbing, netns, request->inherit, launch);
		if (result == 0)
			stage_main(request, 3, netns >= 0 ? 4 : -1);
	}
	int error = errno;
	if (netns >= 0)
		close(netns);
	errno = error;
	return result < 0 ? not_spawned(failure, "cannot start the stage process", "") : 0;
}

void spawn_go_on(const struct launch *launch)
{
	/* Where nobody is there to hear it, the process has told why, or its end will. */
	(void)!send(launch->status, "", 1, MSG_NOSIGNAL);
}

int spawn_place(struct launch *launch, struct failure *failure)
{
	struct plumbing plumbing;
	int result = plumb(&plumbing, 0, 0);
	if (result == 0)
		result = fork_plumbed(&plumbing, -1, nothing, launch);
	if (result < 0)
		return not_spawned(failure, "cannot start a process", "");
	if (result == 0) {
		/* Where the word is not read the reports are lost: the end of a socket that holds something is a reset. */
		child_await_word(3);
		report_pid(3, 0);
		hold_main(3);
	}
	return 0;
}

int spawn_exec(const struct exec_request *request, const struct joined *joined, struct launch *launch,
	       struct failure *failure)
{
	struct plumbing plumbing;
	unsigned wanted = request->flags & EXEC_TERMINAL ? 0 : WANT_STDOUT | WANT_STDERR;
	if (request->flags & EXEC_STDIN && wanted != 0)
		wanted |= WANT_STDIN;
	int result = plumb(&plumbing, wanted, joined->id_base);
	if (result == 0)
		result = fork_plumbed(&plumbing, joined->pidfd, nothing, launch);
	if (result < 0)
		return not_spawned(failure, "cannot start a process", "");
	if (result == 0)
		join_main(request, 3, 4);
	return 0;
}

int spawn_files(const struct joined *joined, struct launch *launch, struct failure *failure)
{
	struct plumbing plumbing;
	int result = plumb(&plumbing, WANT_STDIN | WANT_STDOUT, 0);
	if (result == 0)
		result = fork_plumbed(&plumbing, joined->pidfd, nothing, launch);
	if (result < 0)
		return not_spawned(failure, "cannot start a file session", "");
	if (result == 0)
		join_files_main(joined->namespaces, 3, 4);
	return 0;
}

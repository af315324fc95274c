#define _GNU_SOURCE
#include "fuzz_world.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../src/context.h"
#include "../src/killall.h"
#include "../src/link.h"
#include "../src/log.h"
#include "../src/report.h"
#include "../src/spawn.h"
#include "../src/text.h"

enum { ALIVE_MAX = 600 };

static pid_t alive[ALIVE_MAX], ended[ALIVE_MAX];
static unsigned alive_count, ended_count, behaviour;

int __wrap_kill(pid_t pid, int number);
int __wrap_waitid(idtype_t type, id_t id, siginfo_t *info, int options);
pid_t __wrap_waitpid(pid_t pid, int *wait_status, int options);
int __wrap_nanosleep(const struct timespec *time, struct timespec *left);

void world_behaviour(unsigned bits)
{
	behaviour = bits;
}

static void end(unsigned index)
{
	ended[ended_count++] = alive[index];
	alive[index] = alive[--alive_count];
}

void world_end_one(void)
{
	if (alive_count > 0)
		end(0);
}

static int guest = -1;

int world_guest(void)
{
	return guest;
}

int link_socket(int directory, const char *name)
{
	int pair[2];
	(void)directory;
	if (*name == 'x' || guest >= 0) {
		errno = ENOENT;
		return -1;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	guest = pair[1];
	return pair[0];
}

void world_reset(void)
{
	if (guest >= 0)
		close(guest);
	guest = -1;
	alive_count = ended_count = behaviour = 0;
}

static char path[] = "/tmp/bulkhead-agent-fuzz-XXXXXX";

static void remove_directory(void)
{
	char command[96] = "rm -rf ";
	strcat(command, path);
	if (system(command) != 0)
		abort();
}

int world_directory(void)
{
	static int directory = -1;
	if (directory < 0) {
		if (mkdtemp(path) == NULL || (directory = open(path, O_RDONLY | O_DIRECTORY)) < 0)
			abort();
		atexit(remove_directory);
	}
	return directory;
}

int __wrap_kill(pid_t pid, int number)
{
	for (unsigned i = 0; i < alive_count; i++)
		if (alive[i] == pid && number == SIGKILL) {
			end(i);
			return 0;
		}
	return 0;
}

int __wrap_waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
	(void)type;
	(void)id;
	(void)options;
	info->si_pid = ended_count > 0 ? ended[0] : 0;
	if (ended_count > 0 || alive_count > 0)
		return 0;
	errno = ECHILD;
	return -1;
}

pid_t __wrap_waitpid(pid_t pid, int *wait_status, int options)
{
	(void)options;
	if (ended_count == 0 || ended[0] != pid)
		return 0;
	memmove(ended, ended + 1, --ended_count * sizeof *ended);
	*wait_status = behaviour & 1 ? SIGKILL : (int)(behaviour & 0xff) << 8;
	return pid;
}

/* No time passes. */
int __wrap_nanosleep(const struct timespec *time, struct timespec *left)
{
	(void)time;
	(void)left;
	return 0;
}

static pid_t born(void)
{
	static pid_t last = 100000;
	/* The first one, which execs open a pidfd of, must be there. */
	pid_t pid = alive_count + ended_count == 0 ? getpid() : ++last;
	if (alive_count + ended_count >= ALIVE_MAX)
		abort(); /* more than the agent says that it takes */
	alive[alive_count++] = pid;
	return pid;
}

static int spawn(struct launch *launch, struct failure *failure, bool in)
{
	static const char output[5000];
	int status[2], pipes[3][2];
	if ((behaviour & 7) == 7) {
		*failure = (struct failure){.phase = PHASE_STAGE, .error = EAGAIN, .text = "no"};
		return -1;
	}
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status) < 0)
		abort();
	for (int i = 0; i < 3; i++)
		if (pipe2(pipes[i], O_CLOEXEC | O_NONBLOCK) < 0)
			abort();
	pid_t pid = born();
	*launch = (struct launch){pid, status[0], pipes[0][1], pipes[1][0], pipes[2][0]};
	report_pid(status[1], pid);
	if (behaviour & 8)
		report_failure(status[1], &(struct failure){.phase = PHASE_INSIDE, .error = 2, .text = "failed"});
	if (behaviour & 16) {
		int terminal[2];
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, terminal) < 0)
			abort();
		report_console(status[1], terminal[0]);
		if (write(terminal[1], output, behaviour % sizeof output) < 0)
			abort();
		close(terminal[0]);
		close(terminal[1]);
		close(launch->out);
		close(launch->in);
		launch->out = launch->in = -1;
	}
	if (!(behaviour & 32))
		report_ready(status[1]);
	for (int i = 1; i < 3; i++)
		if (write(pipes[i][1], output, behaviour * 7 % sizeof output) < 0)
			continue; /* a terminal has taken its place */
	if (behaviour & 64 && launch->in >= 0 && fcntl(pipes[0][1], F_SETPIPE_SZ, 4096) < 0)
		abort();
	if (!in && launch->in >= 0) {
		close(launch->in);
		launch->in = -1;
	}
	if (behaviour & 128)
		end(alive_count - 1);
	close(status[1]);
	close(pipes[0][0]);
	close(pipes[1][1]);
	close(pipes[2][1]);
	return 0;
}

int spawn_start(const struct start_request *request, struct launch *launch, struct failure *failure)
{
	return spawn(launch, failure, request->flags & START_STDIN);
}

int spawn_place(struct launch *launch, struct failure *failure)
{
	return spawn(launch, failure, false);
}

void spawn_go_on(const struct launch *launch)
{
	(void)launch;
}

int spawn_exec(const struct exec_request *request, const struct joined *joined, struct launch *launch,
	       struct failure *failure)
{
	(void)joined;
	return spawn(launch, failure, request->flags & EXEC_STDIN);
}

int spawn_files(const struct joined *joined, struct launch *launch, struct failure *failure)
{
	(void)joined;
	return spawn(launch, failure, true);
}

void context_init(struct context *context, enum place place, enum phase phase)
{
	*context = (struct context){.place = place, .phase = phase};
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

int need_guest(struct context *context)
{
	return failed(context, EPERM, "this is for the agent of a guest", "");
}

/* Nothing is carried out; some fail, some report. */
int operations_run(struct context *context, const struct oplist *list)
{
	for (uint32_t i = 0; i < list->count; i++) {
		const struct operation *operation = &list->operations[i];
		if (operation->flags & OPERATION_REPORT)
			buffer_append(&context->reports, "\3\0\0\0a\"\n", 7);
		if (operation->count > 0 && operation->arguments[0].length == 13 && !(operation->flags & OPERATION_OPTIONAL)) {
			context->failure = (struct failure){context->phase, operation->code, i, EIO, "failed"};
			return -1;
		}
	}
	return 0;
}

int killall(const char *group)
{
	return *group == 'x' ? -1 : 0;
}

int signal_all(const char *group, int number)
{
	(void)number;
	return *group == 'x' ? -1 : 0;
}

struct log workload_log, vmm_log;

void log_open(struct log *log, int bundle, uint32_t size, uint32_t files)
{
	(void)log;
	(void)bundle;
	(void)size;
	(void)files;
}

void log_write(struct log *log, unsigned channel, const unsigned char *data, size_t length)
{
	(void)log;
	static volatile unsigned sum;
	(void)channel;
	for (size_t i = 0; i < length; i++)
		sum += data[i];
}

void log_close(struct log *log)
{
	(void)log;
}

int log_wait(struct log *log)
{
	(void)log;
	return 0;
}

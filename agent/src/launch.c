/* START. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "supervisor.h"

/* What outlives the request: the finish list and the path of the processes. */
static int keep(const struct start_request *request, struct oplist_error *error)
{
	supervisor.kill = strdup(request->kill);
	supervisor.finish_bytes = malloc(request->finish_length + 1);
	*error = (struct oplist_error){.text = "out of memory"};
	if (supervisor.kill == NULL || supervisor.finish_bytes == NULL)
		return -1;
	memcpy(supervisor.finish_bytes, request->finish, request->finish_length);
	struct reader reader = {.at = supervisor.finish_bytes, .end = supervisor.finish_bytes + request->finish_length};
	if (oplist_parse(&reader, PLACE_SUPERVISOR, &supervisor.finish, error) < 0)
		return -1;
	if (reader.at != reader.end) {
		*error = (struct oplist_error){.text = "bytes after the end of the payload"};
		return -1;
	}
	return 0;
}

static void discard(void)
{
	free(supervisor.kill);
	free(supervisor.finish_bytes);
	oplist_free(&supervisor.finish);
	supervisor.kill = NULL;
	supervisor.finish_bytes = NULL;
}

/* What the workload is to keep must have been handed over. */
static int check_inherited(const struct start_request *request, struct failure *failure)
{
	for (uint32_t i = 0; i < request->inside.count; i++) {
		const struct operation *operation = &request->inside.operations[i];
		if (operation->code != OP_INHERIT ||
		    inherit_has(supervisor.inherited, (unsigned)operation_integer(operation, 0)))
			continue;
		*failure = (struct failure){PHASE_INSIDE, OP_INHERIT, i, EBADF, "no such descriptor has been handed over"};
		return -1;
	}
	return 0;
}

/* The network namespace has been opened, if one of these was it; the workload's process has its own copies. */
static void close_inherited(void)
{
	for (unsigned fd = 3; fd < INHERIT_END; fd++)
		if (inherit_has(supervisor.inherited, fd))
			close((int)fd);
	memset(supervisor.inherited, 0, sizeof supervisor.inherited);
}

/* The process that is started: the workload's, or the machine that it is going to be in. NULL without memory. */
static struct process *first_process(const struct start_request *request)
{
	if (!(request->flags & START_GUEST))
		return &workload;
	supervisor.elsewhere = request->flags & START_HOLD;
	supervisor.vmm = process_new();
	if (supervisor.vmm != NULL)
		supervisor.vmm->log = &vmm_log;
	return supervisor.vmm;
}

/* A stage process that waits for the word has cloned nothing yet. */
static void call_off(const struct launch *launch)
{
	const int fds[] = {launch->status, launch->in, launch->out, launch->err};
	int wait_status;
	kill(launch->pid, SIGKILL);
	while (waitpid(launch->pid, &wait_status, 0) < 0 && errno == EINTR)
		;
	for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* While the stage process makes its namespaces, which takes as long. */
static int prepare(const struct start_request *request, const struct launch *launch, struct failure *failure)
{
	struct context context;
	context_init(&context, PLACE_SUPERVISOR, PHASE_PREPARE);
	int result = operations_run(&context, &request->prepare);
	buffer_free(&context.reports);
	*failure = context.failure;
	if (result == 0)
		spawn_go_on(launch);
	else
		call_off(launch);
	return result;
}

static void begin(const struct start_request *request)
{
	struct process *process = first_process(request);
	struct launch launch;
	struct failure failure = {.error = ENOMEM, .text = "out of memory"};
	int result = process == NULL ? -1 : check_inherited(request, &failure);
	if (result == 0)
		result = supervisor.elsewhere ? spawn_place(&launch, &failure) : spawn_start(request, &launch, &failure);
	if (result == 0)
		result = prepare(request, &launch, &failure);
	if (result == 0 && *request->netns == '/')
		supervisor.netns = open(request->netns, O_RDONLY | O_CLOEXEC);
	close_inherited();
	if (result == 0) {
		process_launched(process, &launch);
		return;
	}
	if (process != NULL) {
		process->failed = true;
		process->coming = false;
	}
	supervisor_start_failed(&failure);
}

static void start(struct connection *connection, uint32_t stream, unsigned char *payload, size_t length, bool rehearsal)
{
	struct start_request request;
	struct oplist_error error = {.text = "START has been there already"};
	if (supervisor.state != STATE_IDLE) {
		connection_refuse(connection, stream, EBUSY, &error);
		return;
	}
	if (start_parse(payload, length, &request, &error) < 0) {
		connection_refuse(connection, stream, EINVAL, &error);
		return;
	}
	if (keep(&request, &error) < 0) {
		discard();
		connection_refuse(connection, stream, EINVAL, &error);
		start_free(&request);
		return;
	}
	supervisor.state = STATE_STARTING;
	supervisor.rehearsal = rehearsal;
	supervisor.starter = connection;
	supervisor.starter_stream = stream;
	supervisor.joined.pidfd = -1;
	supervisor.joined.id_base = request.id_base;
	supervisor.joined.namespaces = request.clone_flags | request.unshare_flags | CLONE_NEWNS;
	if (*request.netns != 0)
		supervisor.joined.namespaces |= CLONE_NEWNET;
	unlinkat(supervisor.bundle, "exit.json", 0);
	log_open(&workload_log, supervisor.bundle, request.log_size, request.log_files);
	if (request.flags & START_GUEST)
		log_open(&vmm_log, supervisor.bundle, request.log_size, request.log_files);
	begin(&request);
	start_free(&request);
}

void supervisor_start(struct connection *connection, uint32_t stream, unsigned char *payload, size_t length)
{
	start(connection, stream, payload, length, false);
}

void supervisor_rehearse(struct connection *connection, uint32_t stream, unsigned char *payload, size_t length)
{
	start(connection, stream, payload, length, true);
}

void supervisor_begin_anew(void)
{
	discard();
	process_renew(&workload);
	if (supervisor.joined.pidfd >= 0)
		close(supervisor.joined.pidfd);
	supervisor.joined = (struct joined){.pidfd = -1};
	supervisor.rehearsal = false;
	supervisor.started = supervisor.ended = (struct timespec){0};
	supervisor.code = supervisor.signal = 0;
	supervisor.state = STATE_IDLE;
}

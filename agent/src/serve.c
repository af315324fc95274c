/* One request after the other. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest.h"
#include "killall.h"
#include "link.h"
#include "park.h"
#include "supervisor.h"
#include "text.h"

static void refuse(struct connection *connection, uint32_t stream, int error, const char *text)
{
	connection_refuse(connection, stream, error, &(struct oplist_error){.text = text});
}

static struct stream *open_stream(struct connection *connection, uint32_t id, struct process *process)
{
	struct stream *stream = connection->stream_count < STREAMS_MAX ? stream_new(connection, id, process) : NULL;
	if (stream == NULL)
		refuse(connection, id, EAGAIN, "too many streams on this connection");
	return stream;
}

/* A process to be launched, with the stream that asks for it. NULL: refused. */
static struct process *open_process(struct connection *connection, uint32_t id, struct stream **stream)
{
	if (supervisor.state != STATE_RUNNING) {
		refuse(connection, id, ESRCH, "the workload does not run");
		return NULL;
	}
	if (supervisor.joined.pidfd < 0)
		supervisor.joined.pidfd = (int)syscall(SYS_pidfd_open, workload.pid, 0);
	struct process *process = supervisor.joined.pidfd < 0 ? NULL : process_new();
	if (process == NULL) {
		refuse(connection, id, EAGAIN, "too many processes");
		return NULL;
	}
	process->finished = true; /* nothing to wait for until it is launched */
	process->coming = false;
	*stream = open_stream(connection, id, process);
	if (*stream == NULL)
		return NULL;
	process->opener = *stream;
	(*stream)->opener = true;
	(*stream)->gets_output = true;
	return process;
}

static void open_failed(struct connection *connection, struct stream *stream, const struct failure *failure)
{
	connection_error(connection, stream->id, failure);
	stream_end(stream, false);
}

static void launched(struct process *process, const struct launch *launch)
{
	process->finished = false;
	process->coming = true;
	process_launched(process, launch);
}

static void serve_exec(struct connection *connection, uint32_t id, unsigned char *payload, size_t length)
{
	struct exec_request request;
	struct oplist_error error;
	struct launch launch;
	struct failure failure;
	struct stream *stream;
	if (exec_parse(payload, length, &request, &error) < 0) {
		connection_refuse(connection, id, EINVAL, &error);
		return;
	}
	/* With less, a process of the host's would run on the instance's files. */
	bool all = (request.setns_flags & supervisor.joined.namespaces) == supervisor.joined.namespaces;
	if (!all)
		refuse(connection, id, EINVAL, "setns flags without a namespace that is the workload's own");
	struct process *process = all ? open_process(connection, id, &stream) : NULL;
	if (process != NULL) {
		stream->gives_input = request.flags & EXEC_STDIN;
		if (spawn_exec(&request, &supervisor.joined, &launch, &failure) < 0)
			open_failed(connection, stream, &failure);
		else
			launched(process, &launch);
	}
	exec_free(&request);
}

static void serve_files(struct connection *connection, uint32_t id)
{
	struct launch launch;
	struct failure failure;
	struct stream *stream;
	struct process *process = open_process(connection, id, &stream);
	if (process == NULL)
		return;
	stream->gives_input = true;
	if (spawn_files(&supervisor.joined, &launch, &failure) < 0)
		open_failed(connection, stream, &failure);
	else
		launched(process, &launch);
}

static void serve_attach(struct connection *connection, uint32_t id, uint32_t flags)
{
	struct stream *stream = open_stream(connection, id, &workload);
	if (stream == NULL)
		return;
	stream->gives_input = flags & ATTACH_STDIN;
	stream->gets_output = flags & ATTACH_OUTPUT;
	if (link_attach(stream) < 0) {
		refuse(connection, id, EAGAIN, "too many streams in the guest");
		stream_end(stream, false);
		return;
	}
	connection_ok(connection, id, NULL, 0);
	if (supervisor.state == STATE_ENDED && workload.ended)
		stream_exit(stream, supervisor.code, supervisor.signal);
}

static int signal_workload(int number, uint32_t flags)
{
	if (number < 1 || number > SIGRTMAX) {
		errno = EINVAL;
		return -1;
	}
	if (supervisor.state != STATE_RUNNING || workload.ended) {
		errno = ESRCH;
		return -1;
	}
	if (flags & SIGNAL_ALL && *supervisor.kill != 0)
		return signal_all(supervisor.kill, number);
	return kill(workload.pid, number);
}

static void serve_signal(struct connection *connection, uint32_t id, uint32_t number, uint32_t flags)
{
	const struct stream *stream = stream_find(connection, id);
	if (stream != NULL && stream->remote) {
		link_signal(stream, number);
	} else if (id == STREAM_WORKLOAD) {
		if (signal_workload(number > 64 ? 0 : (int)number, flags) < 0)
			refuse(connection, id, errno, "cannot send the signal");
		else
			connection_ok(connection, id, NULL, 0);
	} else if (stream != NULL && stream->opener && stream->process->pid > 0 && !stream->process->ended &&
		   number >= 1 && number <= 64) {
		kill(stream->process->pid, (int)number);
	}
}

static void serve_run(struct connection *connection, uint32_t id, unsigned char *payload, size_t length)
{
	struct reader reader = {.at = payload, .end = payload + length};
	struct oplist list;
	struct oplist_error error;
	struct context context;
	if (oplist_parse(&reader, PLACE_SUPERVISOR, &list, &error) < 0) {
		connection_refuse(connection, id, EINVAL, &error);
		return;
	}
	context_init(&context, PLACE_SUPERVISOR, PHASE_RUN);
	if (operations_run(&context, &list) < 0)
		connection_error(connection, id, &context.failure);
	else if (context.reports.length > FRAME_MAX)
		refuse(connection, id, EMSGSIZE, "the reports are larger than a frame");
	else
		connection_ok(connection, id, context.reports.data, context.reports.length);
	buffer_free(&context.reports);
	oplist_free(&list);
}

static void serve_info(struct connection *connection, uint32_t id)
{
	static const char *const names[] = {"idle", "starting", "running", "ended"};
	char json[128], pid[24], seconds[24], millis[24], version[24];
	const struct timespec *started = &supervisor.started;
	const struct process *first = supervisor.vmm != NULL ? supervisor.vmm : &workload;
	bool parked = processes_held || guest_link.park == PARKED;
	size_t length = TEXT(json, "{\"pid\":", text_number(pid, (uint64_t)first->pid), ",\"state\":\"",
			     parked ? "parked" : names[supervisor.state], "\",\"started\":", text_number(seconds, (uint64_t)started->tv_sec), ".",
			     text_digits(millis, (uint64_t)started->tv_nsec / 1000000, 3), ",\"version\":",
			     text_number(version, PROTOCOL_VERSION), "}");
	connection_ok(connection, id, json, length);
}

static void serve_quit(struct connection *connection, uint32_t id)
{
	if (supervisor.state == STATE_ENDED) {
		connection->last = true;
		connection_ok(connection, id, NULL, 0);
		return;
	}
	park_leave();
	supervisor.quit = true;
	supervisor.quitter = connection;
	supervisor.quitter_stream = id;
	if (supervisor.state == STATE_IDLE)
		supervisor_quit_idle();
	else
		supervisor_kill();
}

static bool serve_stream(struct connection *connection, const struct frame *frame, unsigned char *payload)
{
	struct reader reader = {.at = payload, .end = payload + frame->length};
	struct stream *stream = stream_find(connection, frame->stream);
	if (stream == NULL) /* it has ended, and this was under way */
		return true;
	switch (frame->type) {
	case FRAME_DATA:
		return stream_data(stream, payload, frame->length);
	case FRAME_EOF:
		stream_eof(stream);
		return true;
	case FRAME_CREDIT:
		return stream_credit(stream, frame->channel, read_u32(&reader));
	case FRAME_RESIZE: {
		uint16_t rows = read_u16(&reader), columns = read_u16(&reader);
		if (supervisor.vmm != NULL)
			link_resize(stream, rows, columns);
		else
			process_resize(stream->process, rows, columns);
		return true;
	}
	default:
		stream_end(stream, frame->length > 0 && read_u32(&reader) & CLOSE_HANG_UP);
		return true;
	}
}

/* Of those with a stream of their own. */
static bool is_request(uint8_t type)
{
	if (type == FRAME_PARK || type == FRAME_RESUME)
		return true;
	return type < FRAME_OK && type != FRAME_SIGNAL && type != FRAME_RESIZE;
}

bool serve(struct connection *connection, const struct frame *frame, unsigned char *payload)
{
	struct reader reader = {.at = payload, .end = payload + frame->length};
	uint32_t first = frame->length >= 4 ? read_u32(&reader) : 0;
	if (processes_held && !park_allows(connection, frame))
		return true;
	if (is_request(frame->type) && stream_find(connection, frame->stream) != NULL)
		return false; /* the number is in use */
	if (link_takes(frame)) {
		link_serve(connection, frame, payload);
		return true;
	}
	switch (frame->type) {
	case FRAME_START:
		supervisor_start(connection, frame->stream, payload, frame->length);
		return true;
	case FRAME_REHEARSE:
		if (in_guest)
			supervisor_rehearse(connection, frame->stream, payload, frame->length);
		else
			refuse(connection, frame->stream, EPERM, "only a guest rehearses");
		return true;
	case FRAME_EXEC:
		serve_exec(connection, frame->stream, payload, frame->length);
		return true;
	case FRAME_ATTACH:
		serve_attach(connection, frame->stream, first);
		return true;
	case FRAME_WATCH:
		serve_attach(connection, frame->stream, 0);
		return true;
	case FRAME_SIGNAL:
		serve_signal(connection, frame->stream, first, read_u32(&reader));
		return true;
	case FRAME_RUN:
		serve_run(connection, frame->stream, payload, frame->length);
		return true;
	case FRAME_FILES:
		serve_files(connection, frame->stream);
		return true;
	case FRAME_INFO:
		serve_info(connection, frame->stream);
		return true;
	case FRAME_QUIT:
		serve_quit(connection, frame->stream);
		return true;
	case FRAME_PARK:
		park(connection, frame->stream);
		return true;
	case FRAME_RESUME:
		park_resume(connection, frame->stream, payload, frame->length);
		return true;
	default:
		return serve_stream(connection, frame, payload);
	}
}

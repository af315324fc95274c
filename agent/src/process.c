#define _GNU_SOURCE
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "report.h"
#include "stream.h"

enum { CHUNK = 16 << 10 };

static void input_ready(struct source *source, uint32_t events);
static void stdout_ready(struct source *source, uint32_t events);
static void stderr_ready(struct source *source, uint32_t events);
static void status_ready(struct source *source, uint32_t events);

#define NO_SOURCES                                                                                                     \
	.status = {.fd = -1, .ready = status_ready}, .in = {.fd = -1, .ready = input_ready},                           \
	.out = {{.fd = -1, .ready = stdout_ready}, {.fd = -1, .ready = stderr_ready}}, .peer = -1

struct process workload = {.log = &workload_log, .coming = true, NO_SOURCES};
struct process elsewhere = {.coming = true, NO_SOURCES};
struct process *processes = &workload;
bool processes_held;

struct process *process_new(void)
{
	unsigned count = 0;
	for (const struct process *at = processes; at != NULL; at = at->next)
		count++;
	struct process *process = count < PROCESSES_MAX ? malloc(sizeof *process) : NULL;
	if (process == NULL)
		return NULL;
	*process = (struct process){.next = processes, .coming = true, NO_SOURCES};
	processes = process;
	return process;
}

void process_launched(struct process *process, const struct launch *launch)
{
	process->first_pid = launch->pid;
	process->status.fd = launch->status;
	process->in.fd = launch->in;
	process->out[0].fd = launch->out;
	process->out[1].fd = launch->err;
	loop_watch(&process->status, EPOLLIN);
	process_resume(process);
}

void process_output(struct process *process, unsigned channel, const unsigned char *data, size_t length)
{
	if (process->log != NULL)
		log_write(process->log, channel, data, length);
	process_pass(process, channel, data, length);
}

void process_pass(struct process *process, unsigned channel, const unsigned char *data, size_t length)
{
	for (struct stream *at = stream_of(process, NULL); at != NULL; at = stream_of(process, at))
		stream_output(at, channel, data, length);
}

size_t process_output_room(const struct process *process, unsigned channel)
{
	size_t room = processes_held || (process->log != NULL && log_wait(process->log) > 0) ? 0 : CHUNK;
	for (struct stream *at = stream_of(process, NULL); at != NULL; at = stream_of(process, at))
		if (at->gets_output && stream_room(at, channel) < room)
			room = stream_room(at, channel);
	return room;
}

/* Passes on up to `room` bytes. The count; 0 when there is nothing now; -1 at the end, the source is closed then. */
static ssize_t pass_output(struct process *process, unsigned channel, size_t room)
{
	static unsigned char chunk[CHUNK];
	struct source *source = &process->out[channel - 1];
	ssize_t got = read(source->fd, chunk, room < CHUNK ? room : CHUNK);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got <= 0) { /* EIO: nobody has the terminal open any more */
		loop_close(source);
		return -1;
	}
	process_output(process, channel, chunk, (size_t)got);
	return got;
}

static void output_ready(struct process *process, unsigned channel)
{
	/* Output of a program whose exec is not known of yet must not come before the OK that tells of it. */
	size_t room = process->coming ? 0 : process_output_room(process, channel);
	if (room == 0)
		loop_watch(&process->out[channel - 1], 0); /* process_resume puts it back */
	else
		pass_output(process, channel, room);
}

static void stdout_ready(struct source *source, uint32_t events)
{
	(void)events;
	output_ready(SOURCE_OWNER(source, struct process, out[0]), CHANNEL_OUT);
}

static void stderr_ready(struct source *source, uint32_t events)
{
	(void)events;
	output_ready(SOURCE_OWNER(source, struct process, out[1]), CHANNEL_ERR);
}

void process_drain(struct process *process)
{
	for (unsigned channel = CHANNEL_OUT; channel <= CHANNEL_ERR; channel++) {
		int fd = process->out[channel - 1].fd, left = 1 << 20;
		/* Of a pipe only what is in it now: a process that was left behind may never stop writing. */
		if (fd >= 0 && !process->terminal && ioctl(fd, FIONREAD, &left) < 0)
			left = 0;
		while (fd >= 0 && left > 0) {
			ssize_t passed = pass_output(process, channel, (size_t)left);
			if (passed <= 0)
				break;
			left -= (int)passed;
		}
	}
}

/* Writes what the stream has sent. False when the process takes no more now. */
static bool pass_input(struct process *process, struct stream *stream)
{
	while (stream->input.length > 0 && process->in.fd >= 0) {
		ssize_t written = write(process->in.fd, buffer_contents(&stream->input), stream->input.length);
		if (written < 0 && errno == EAGAIN)
			return false;
		if (written < 0) {
			loop_close(&process->in);
			break;
		}
		buffer_consume(&stream->input, (size_t)written);
		stream_consumed(stream, (size_t)written);
	}
	if (process->in.fd < 0 && stream->input.length > 0) { /* nobody reads it */
		size_t length = stream->input.length;
		buffer_free(&stream->input);
		stream_consumed(stream, length);
	}
	if (stream->input_ended && process->in.fd >= 0) {
		stream->input_ended = false;
		stream->gives_input = false;
		if (!process->terminal)
			loop_close(&process->in);
		else if (write(process->in.fd, "\4", 1) < 0)
			return true; /* a terminal full of input does not wait for its end */
	}
	return true;
}

static void pass_all_input(struct process *process)
{
	bool waits = false;
	/* Without a descriptor it is kept for a process that is not there yet, else thrown away. */
	if (processes_held || (process->in.fd < 0 && process->coming))
		return;
	for (struct stream *at = stream_of(process, NULL); at != NULL; at = stream_of(process, at))
		if (at->gives_input && at->relay == NULL && !pass_input(process, at))
			waits = true;
	loop_watch(&process->in, waits ? EPOLLOUT : 0);
}

static void input_ready(struct source *source, uint32_t events)
{
	(void)events;
	pass_all_input(SOURCE_OWNER(source, struct process, in));
}

void process_resume(struct process *process)
{
	for (unsigned channel = CHANNEL_OUT; channel <= CHANNEL_ERR; channel++)
		if (process_output_room(process, channel) > 0)
			loop_watch(&process->out[channel - 1], EPOLLIN);
	pass_all_input(process);
}

int processes_paced(void)
{
	int first = -1;
	for (struct process *at = processes; at != NULL; at = at->next) {
		if (at->log == NULL || !at->log->awaited)
			continue;
		int wait = log_wait(at->log);
		if (wait == 0)
			process_resume(at);
		else if (first < 0 || wait < first)
			first = wait;
	}
	return first;
}

void processes_hold(bool on)
{
	processes_held = on;
	for (struct process *at = processes; at != NULL; at = at->next) {
		loop_watch(&at->status, on ? 0 : EPOLLIN);
		for (unsigned i = 0; on && i < 2; i++)
			loop_watch(&at->out[i], 0);
		loop_watch(&at->in, 0);
		process_resume(at);
	}
}

void process_resize(struct process *process, uint16_t rows, uint16_t columns)
{
	struct winsize size = {.ws_row = rows, .ws_col = columns};
	process->rows = rows;
	process->columns = columns;
	if (process->terminal && process->out[0].fd >= 0)
		ioctl(process->out[0].fd, TIOCSWINSZ, &size);
}

static void close_peer(struct process *process)
{
	if (process->peer >= 0)
		close(process->peer);
	process->peer = -1;
}

void process_hang_up(struct process *process)
{
	process->hung_up = true;
	close_peer(process);
	loop_close(&process->in);
	if (process->terminal)
		loop_close(&process->out[0]);
}

static void take_terminal(struct process *process, int master)
{
	process->terminal = true;
	process->out[0].fd = master;
	process->in.fd = fcntl(master, F_DUPFD_CLOEXEC, 3);
	/* An init closes its console and opens it again to write a line: that is no end of its output. Without the
	   descriptor the first such close is taken for one. */
	if (process == &workload)
		process->peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (process->rows != 0)
		process_resize(process, process->rows, process->columns);
	if (process->hung_up)
		process_hang_up(process);
	process_resume(process);
}

static void note_failure(struct process *process, const struct failure *failure)
{
	process->failed = true;
	if (process->failure == NULL)
		process->failure = malloc(sizeof *failure);
	if (process->failure != NULL)
		*process->failure = *failure;
}

static void decided(struct process *process)
{
	loop_close(&process->status);
	if (!process->failed && !process->ready)
		note_failure(process, &(struct failure){.phase = PHASE_INSIDE,
							.error = ESRCH,
							.text = "the process ended before its exec"});
	process->coming = false;
	if (process->failed) {
		supervisor_failed(process);
		return;
	}
	supervisor_executed(process);
	process_resume(process);
	if (process->ended)
		supervisor_ended(process);
}

void process_reports(struct process *process)
{
	struct report report;
	int fd, result = -1;
	while (process->status.fd >= 0 && (result = report_take(process->status.fd, &report, &fd)) > 0) {
		if (report.kind == REPORT_PID)
			process->pid = report.pid;
		else if (report.kind == REPORT_CONSOLE && fd >= 0)
			take_terminal(process, fd);
		else if (report.kind == REPORT_READY || report.kind == REPORT_HELD)
			process->ready = true;
		else if (report.kind == REPORT_FAILED)
			note_failure(process, &report.failure);
	}
	if (result == 0)
		decided(process);
}

static void status_ready(struct source *source, uint32_t events)
{
	(void)events;
	process_reports(SOURCE_OWNER(source, struct process, status));
}

void process_reaped(struct process *process, int wait_status)
{
	process->ended = true;
	process->wait_status = wait_status;
	if (!process->coming && !process->failed)
		supervisor_ended(process);
}

void process_close(struct process *process)
{
	loop_close(&process->status);
	loop_close(&process->in);
	loop_close(&process->out[0]);
	loop_close(&process->out[1]);
	close_peer(process);
}

void process_renew(struct process *process)
{
	process_close(process);
	free(process->failure);
	*process = (struct process){.next = process->next, .log = process->log, .coming = true, NO_SOURCES};
}

void processes_sweep(void)
{
	for (struct process **at = &processes; *at != NULL;) {
		struct process *process = *at;
		bool left = process == &workload || process->opener != NULL || process->coming || !process->finished ||
			    process->out[0].fd >= 0 || process->out[1].fd >= 0;
		if (left) {
			at = &process->next;
			continue;
		}
		*at = process->next;
		process_close(process);
		free(process->failure);
		free(process);
	}
}

uint32_t exit_signal(int wait_status)
{
	return WIFSIGNALED(wait_status) ? (uint32_t)WTERMSIG(wait_status) : 0;
}

uint32_t exit_code(int wait_status)
{
	return WIFSIGNALED(wait_status) ? 128 + exit_signal(wait_status) : (uint32_t)WEXITSTATUS(wait_status);
}

#define _GNU_SOURCE
#include "supervisor.h"

#include <malloc.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"
#include "killall.h"
#include "link.h"
#include "log.h"
#include "vmm.h"

enum { IDLE_MS = 10000, TIED_MS = 60000, LINGER_MS = 2000, GONE_MS = 10000 };

struct supervisor supervisor = {.bundle = -1, .netns = -1};
bool in_guest;

static struct process *find(pid_t pid)
{
	struct process *at = processes;
	while (at != NULL && (at->pid != pid || at->ended))
		at = at->next;
	return at;
}

void supervisor_reap(void)
{
	siginfo_t ended;
	int wait_status;
	if (processes_held)
		return;
	while (ended.si_pid = 0, waitid(P_ALL, 0, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 && ended.si_pid > 0) {
		const pid_t pid = ended.si_pid;
		/* Its reports first: they may be what tells its pid. What they lead to may wait for it, and reap it. */
		for (struct process *at = processes; at != NULL; at = at->next)
			process_reports(at);
		if (waitpid(pid, &wait_status, WNOHANG) != pid)
			continue;
		for (struct process *at = processes; at != NULL; at = at->next)
			if (at->first_pid == pid)
				at->first_pid = 0;
		struct process *process = find(pid);
		if (process != NULL)
			process_reaped(process, wait_status);
	}
}

static void child_ended(struct source *source, uint32_t events)
{
	struct signalfd_siginfo ignored;
	(void)events;
	while (read(source->fd, &ignored, sizeof ignored) > 0)
		;
	supervisor_reap();
}

/* Waits for processes that have been killed. */
static void wait_for_the_killed(void)
{
	long pause_us = 50;
	for (uint64_t end = loop_now() + GONE_MS; loop_now() < end;) {
		bool left = false;
		supervisor_reap();
		for (const struct process *at = processes; at != NULL; at = at->next)
			left = left || at->first_pid > 0 || (at->pid > 0 && !at->ended);
		if (!left)
			return;
		nanosleep(&(struct timespec){.tv_nsec = pause_us * 1000}, NULL);
		if (pause_us < 10000)
			pause_us *= 2;
	}
}

static void kill_process(const struct process *process)
{
	/* Neither has been waited for, so neither number can be another's. */
	if (process->first_pid > 0)
		kill(process->first_pid, SIGKILL);
	if (process->pid > 0 && !process->ended)
		kill(process->pid, SIGKILL);
}

/* The process whose end is that of the instance. */
static struct process *first_process(void)
{
	return supervisor.vmm != NULL ? supervisor.vmm : &workload;
}

void supervisor_kill(void)
{
	kill_process(first_process());
}

void supervisor_clean_up(struct buffer *reports)
{
	struct context context;
	for (struct process *at = processes; at != NULL; at = at->next)
		kill_process(at);
	if (supervisor.kill != NULL && *supervisor.kill != 0)
		killall(supervisor.kill);
	wait_for_the_killed();
	process_drain(first_process());
	process_close(first_process());
	context_init(&context, PLACE_SUPERVISOR, PHASE_FINISH);
	/* Each of them is done, whatever became of those before: nothing is to be left. */
	for (uint32_t i = 0; i < supervisor.finish.count; i++) {
		const struct oplist one = {.count = 1, .operations = &supervisor.finish.operations[i]};
		operations_run(&context, &one);
	}
	if (supervisor.netns >= 0)
		close(supervisor.netns);
	supervisor.netns = -1;
	*reports = context.reports;
	log_close(&workload_log);
	log_close(&vmm_log);
}

static void answer(struct connection *connection, uint32_t stream, const void *payload, size_t length)
{
	if (connection != NULL)
		connection_ok(connection, stream, payload, length);
}

static void end(void)
{
	supervisor.state = STATE_ENDED;
	supervisor.deadline = loop_now() + LINGER_MS;
	if (supervisor.quitter != NULL)
		supervisor.quitter->last = true;
	answer(supervisor.quitter, supervisor.quitter_stream, NULL, 0);
}

void supervisor_answer_start(uint32_t number)
{
	unsigned char pid[4];
	write_integer(pid, number, 4);
	answer(supervisor.starter, supervisor.starter_stream, pid, sizeof pid);
	supervisor.starter = NULL;
}

static void workload_executed(void)
{
	clock_gettime(CLOCK_REALTIME, &supervisor.started);
	supervisor.state = STATE_RUNNING;
	if (!supervisor.rehearsal)
		supervisor_answer_start((uint32_t)workload.pid);
}

void supervisor_start_failed(const struct failure *failure)
{
	struct buffer reports = {0};
	supervisor_clean_up(&reports);
	buffer_free(&reports);
	if (supervisor.starter != NULL && failure != NULL)
		connection_error(supervisor.starter, supervisor.starter_stream, failure);
	end();
}

/* There is no exit.json in a guest: the host's supervisor writes them down. */
static void tell_reports(const struct buffer *reports)
{
	if (reports->length == 0 || reports->length > REPORTS_MAX)
		return;
	for (const struct stream *at = stream_of(&workload, NULL); at != NULL; at = stream_of(&workload, at))
		if (at->gets_output && !at->connection->dead)
			frame_put(&at->connection->out, FRAME_REPORTS, 0, at->id, buffer_contents(reports), reports->length);
}

/* What a guest has told after what the host has found out itself. */
static void add_reports(struct buffer *reports, struct buffer *of_guest)
{
	if (of_guest->length > 0)
		buffer_append(reports, buffer_contents(of_guest), of_guest->length);
	buffer_free(of_guest);
}

/* How it ended is of no interest: what matters is that everything of a start has been done once. */
static void end_rehearsal(void)
{
	struct connection *starter = supervisor.starter;
	supervisor.starter = NULL;
	supervisor_begin_anew();
	answer(starter, supervisor.starter_stream, NULL, 0);
}

void supervisor_conclude(void)
{
	struct buffer reports = {0};
	supervisor_clean_up(&reports);
	if (in_guest) {
		sync(); /* before EXIT: whoever is told of the end may end the machine */
		tell_reports(&reports);
	} else {
		add_reports(&reports, &guest_link.reports);
		exit_file_write(&supervisor, &reports);
	}
	buffer_free(&reports);
	struct stream *next;
	for (struct stream *at = stream_of(&workload, NULL); at != NULL; at = next) {
		next = stream_of(&workload, at);
		stream_exit(at, supervisor.code, supervisor.signal);
	}
	if (supervisor.rehearsal && !supervisor.quit)
		end_rehearsal();
	else
		end();
}

static void workload_ended(void)
{
	supervisor.code = exit_code(workload.wait_status);
	supervisor.signal = exit_signal(workload.wait_status);
	clock_gettime(CLOCK_REALTIME, &supervisor.ended);
	supervisor_conclude();
}

void supervisor_executed(struct process *process)
{
	unsigned char pid[4];
	if (process == &workload) {
		workload_executed();
		return;
	}
	if (process == supervisor.vmm) {
		supervisor_answer_start((uint32_t)process->pid);
		return;
	}
	write_integer(pid, (uint64_t)process->pid, 4);
	if (process->opener != NULL)
		connection_ok(process->opener->connection, process->opener->id, pid, sizeof pid);
}

void supervisor_failed(struct process *process)
{
	if (process == first_process()) {
		supervisor_start_failed(process->failure);
		return;
	}
	kill_process(process);
	process_close(process);
	process->finished = true;
	struct stream *opener = process->opener;
	if (opener == NULL)
		return;
	if (process->failure != NULL)
		connection_error(opener->connection, opener->id, process->failure);
	stream_end(opener, false);
}

void supervisor_ended(struct process *process)
{
	if (process == &workload) {
		workload_ended();
		return;
	}
	if (process == supervisor.vmm) {
		vmm_ended();
		return;
	}
	process_drain(process);
	loop_close(&process->in);
	process->finished = true;
	if (process->terminal)
		loop_close(&process->out[0]);
	if (process->opener != NULL)
		stream_exit(process->opener, exit_code(process->wait_status), exit_signal(process->wait_status));
}

void supervisor_quit_idle(void)
{
	end();
}

void supervisor_leave(void)
{
	if (supervisor.state == STATE_ENDED || supervisor.quit)
		return;
	supervisor.quit = true;
	if (supervisor.state == STATE_IDLE)
		end();
	else
		supervisor_kill();
}

void supervisor_forget(const struct connection *connection)
{
	if (supervisor.starter == connection)
		supervisor.starter = NULL;
	if (supervisor.quitter == connection)
		supervisor.quitter = NULL;
	link_forget(connection);
}

static int timeout(void)
{
	uint64_t now = loop_now(), first = supervisor.deadline, other = link_deadline();
	int paced = processes_paced();
	if (first == 0 || (other != 0 && other < first))
		first = other;
	int left = first == 0 ? -1 : first > now ? (int)(first - now) : 0;
	return paced >= 0 && (left < 0 || paced < left) ? paced : left;
}

static bool finished(void)
{
	if (supervisor.state == STATE_ENDED)
		return connections_served() || loop_now() >= supervisor.deadline;
	if (supervisor.state != STATE_IDLE || (connection_count > 0 && !supervisor.tied))
		supervisor.deadline = 0;
	else if (supervisor.deadline == 0)
		supervisor.deadline = loop_now() + (supervisor.tied ? TIED_MS : IDLE_MS);
	return supervisor.deadline != 0 && loop_now() >= supervisor.deadline;
}

void supervise(int bundle, int listener, const uint32_t inherited[static 8])
{
	static struct source children = {.ready = child_ended};
	sigset_t ended;
	/* There is one of these per instance: what a burst of output took is given back. */
	mallopt(M_MMAP_THRESHOLD, 64 << 10);
	mallopt(M_TRIM_THRESHOLD, 64 << 10);
	mallopt(M_TOP_PAD, 4 << 10);
	sigemptyset(&ended);
	sigaddset(&ended, SIGCHLD);
	children.fd = signalfd(-1, &ended, SFD_CLOEXEC | SFD_NONBLOCK);
	supervisor.bundle = bundle;
	memcpy(supervisor.inherited, inherited, sizeof supervisor.inherited);
	if (children.fd < 0 || loop_open() < 0 || loop_watch(&children, EPOLLIN) < 0)
		_exit(1);
	if (in_guest)
		connection_open_port(listener);
	else if (connections_listen(listener) < 0)
		_exit(1);
	while (!finished()) {
		loop_step(timeout());
		link_sweep();
		connections_sweep();
		processes_sweep();
	}
}

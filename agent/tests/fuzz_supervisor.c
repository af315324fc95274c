#define _GNU_SOURCE
#include "fuzz_supervisor.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../src/link.h"
#include "../src/supervisor.h"
#include "fuzz_world.h"

/* Of each stream: 64 signals, a window's size, its end, an attachment. */
enum { LATER_MAX = (RELAYS_MAX + 3) * (64 * 20 + 16 + 16 + 16) };

static struct supervisor supervisor_before;
static struct process workload_before;
static struct guest_link link_before;

void supervisor_fuzz_begin(void)
{
	static bool open_once;
	/* As in a supervisor: a pipe that nobody reads any more is an error of write(2). */
	if (!open_once && (signal(SIGPIPE, SIG_IGN) == SIG_ERR || loop_open() < 0))
		abort();
	open_once = true;
	supervisor_before = supervisor;
	workload_before = workload;
	link_before = guest_link;
	supervisor.bundle = world_directory();
}

/* What a guest and its clients can make a supervisor keep. */
static void check_bounds(void)
{
	if (guest_link.out.length > REQUESTS_HIGH + FRAME_MAX + OUT_HIGH || guest_link.relay_count > RELAYS_MAX + 3 ||
	    guest_link.later.length > LATER_MAX || guest_link.held[0].length > CREDIT_START || guest_link.held[1].length > CREDIT_START)
		abort();
	for (const struct connection *at = connections; at != NULL; at = at->next)
		for (const struct stream *stream = at->streams; stream != NULL; stream = stream->next)
			if (stream->remote && (stream->late[0].length > CREDIT_START || stream->late[1].length > CREDIT_START ||
					       stream->input.length > CREDIT_START))
				abort();
}

void supervisor_fuzz_steps(int count)
{
	for (int i = 0; i < count; i++) {
		loop_step(0);
		link_sweep();
		connections_sweep();
		processes_sweep();
	}
	check_bounds();
}

void supervisor_fuzz_end(void)
{
	for (struct connection *at = connections; at != NULL; at = at->next)
		at->dead = true, at->port = false;
	connections_sweep();
	link_close();
	guest_link = link_before;
	processes_held = false;
	for (struct process *at = processes; at != NULL; at = at->next) {
		process_close(at);
		at->coming = false;
		at->finished = true;
	}
	free(workload.failure);
	processes_sweep();
	if (processes != &workload || connection_count != 0)
		abort();
	workload = workload_before;
	if (supervisor.joined.pidfd > 0)
		close(supervisor.joined.pidfd);
	free(supervisor.kill);
	free(supervisor.finish_bytes);
	oplist_free(&supervisor.finish);
	supervisor = supervisor_before;
	world_reset();
}

int supervisor_fuzz_connect(bool port)
{
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		abort();
	(port ? connection_open_port : connection_open)(pair[0]);
	return pair[1];
}

void supervisor_fuzz_swallow(int peer)
{
	char bytes[4096];
	while (recv(peer, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
		;
}

/* PARK and RESUME of an agent's own workload: between them the agent begins nothing by itself, so that a guest can be
   saved, and gone on with by whoever greets it next. Processes run on, as far as their pipes hold what they say. */
#define _GNU_SOURCE
#include "park.h"

#include <errno.h>

#include "supervisor.h"

static void refuse(struct connection *connection, uint32_t stream, int error, const char *text)
{
	connection_refuse(connection, stream, error, &(struct oplist_error){.text = text});
}

void park(struct connection *connection, uint32_t stream)
{
	if (supervisor.state != STATE_RUNNING || supervisor.quit) {
		refuse(connection, stream, ESRCH, "the workload does not run");
	} else if (processes_held) {
		refuse(connection, stream, EBUSY, "it is parked already");
	} else {
		processes_hold(true);
		connection_ok(connection, stream, NULL, 0);
	}
}

/* 0, or -1: answered. */
static int carry_out(struct connection *connection, uint32_t stream, unsigned char *payload, size_t length)
{
	struct reader reader = {.at = payload, .end = payload + length};
	struct oplist list;
	struct oplist_error error;
	struct context context;
	if (oplist_parse(&reader, PLACE_SUPERVISOR, &list, &error) < 0) {
		connection_refuse(connection, stream, EINVAL, &error);
		return -1;
	}
	context_init(&context, PLACE_SUPERVISOR, PHASE_RUN);
	int result = operations_run(&context, &list);
	if (result < 0)
		connection_error(connection, stream, &context.failure);
	buffer_free(&context.reports);
	oplist_free(&list);
	return result;
}

void park_resume(struct connection *connection, uint32_t stream, unsigned char *payload, size_t length)
{
	unsigned char pid[4];
	if (!processes_held) {
		refuse(connection, stream, EINVAL, "it is not parked");
		return;
	}
	if (carry_out(connection, stream, payload, length) < 0)
		return;
	write_integer(pid, (uint64_t)workload.pid, 4);
	connection_ok(connection, stream, pid, sizeof pid);
	park_leave();
}

void park_leave(void)
{
	if (!processes_held)
		return;
	processes_hold(false);
	supervisor_reap();
}

/* Whoever greets it is new: what was said before was to somebody who has stayed where it was saved. */
static void begin_anew(struct connection *connection)
{
	while (connection->streams != NULL)
		stream_end(connection->streams, true);
}

bool park_allows(struct connection *connection, const struct frame *frame)
{
	switch (frame->type) {
	case FRAME_START:
	case FRAME_EXEC:
	case FRAME_FILES:
	case FRAME_RUN:
		break;
	case FRAME_SIGNAL:
		if (frame->stream == STREAM_WORKLOAD)
			break;
		return true;
	case FRAME_INFO:
		begin_anew(connection);
		return true;
	default:
		return true;
	}
	refuse(connection, frame->stream, EBUSY, "the instance is parked");
	return false;
}

#define _GNU_SOURCE
#include <errno.h>
#include <string.h>

#include "link.h"
#include "supervisor.h"
#include "text.h"

static void refuse(struct connection *connection, uint32_t stream, int error, const char *text)
{
	connection_refuse(connection, stream, error, &(struct oplist_error){.text = text});
}

bool link_takes(const struct frame *frame)
{
	switch (frame->type) {
	case FRAME_GUEST:
	case FRAME_GUEST_START:
	case FRAME_GUEST_RUN:
		return true;
	case FRAME_EXEC:
	case FRAME_FILES:
	case FRAME_PARK:
	case FRAME_RESUME:
	case FRAME_REHEARSE:
		return supervisor.vmm != NULL;
	case FRAME_SIGNAL:
		return supervisor.vmm != NULL && frame->stream == STREAM_WORKLOAD;
	default:
		return false;
	}
}

/* Whether the guest takes a request now; else it is answered. */
static bool takes_requests(struct connection *connection, uint32_t id, enum relay_kind kind)
{
	if (guest_link.source.fd < 0 || guest_link.lost) {
		refuse(connection, id, ESRCH, "there is no guest");
		return false;
	}
	if (guest_link.park != NOT_PARKED && kind != RELAY_RESUME) {
		refuse(connection, id, EBUSY, "the instance is parked");
		return false;
	}
	if (guest_link.out.length >= REQUESTS_HIGH) {
		refuse(connection, id, EAGAIN, "the guest takes no more requests");
		return false;
	}
	return true;
}

bool link_request(struct connection *connection, uint32_t id, enum relay_kind kind, enum frame_type type,
		  const unsigned char *payload, size_t length)
{
	if (!takes_requests(connection, id, kind))
		return false;
	struct stream *stream = connection->stream_count < STREAMS_MAX ? stream_new(connection, id, &elsewhere) : NULL;
	if (stream == NULL) {
		refuse(connection, id, EAGAIN, "too many streams on this connection");
		return false;
	}
	if (relay_open(kind, stream, type, payload, length) == NULL) {
		refuse(connection, id, EAGAIN, "too many streams in the guest");
		stream_end(stream, false);
		return false;
	}
	stream->remote = true;
	stream->gives_input = stream->gets_output = kind == RELAY_PROCESS;
	return true;
}

static void serve_guest(struct connection *connection, uint32_t id, const unsigned char *payload, size_t length)
{
	char name[GUEST_NAME_MAX + 1] = {0};
	memcpy(name, payload, length);
	if (memchr(payload, 0, length) != NULL) {
		refuse(connection, id, EINVAL, "a file name with a NUL inside");
		return;
	}
	if (supervisor.vmm == NULL || supervisor.vmm->coming || supervisor.vmm->ended || guest_link.lost) {
		refuse(connection, id, ESRCH, "no machine runs");
		return;
	}
	if (guest_link.source.fd < 0) {
		int fd = link_socket(supervisor.bundle, name);
		if (fd < 0) {
			refuse(connection, id, errno, "cannot connect to the guest's agent");
			return;
		}
		link_open(fd);
	}
	link_request(connection, id, RELAY_INFO, FRAME_INFO, NULL, 0);
}

static void serve_start(struct connection *connection, uint32_t id, const unsigned char *payload, size_t length)
{
	if (!takes_requests(connection, id, RELAY_START))
		return;
	if (guest_link.started || guest_link.start != NULL) {
		refuse(connection, id, EBUSY, "START has been there already");
		return;
	}
	/* First in the guest, so that no output is missed. */
	if (guest_link.output == NULL)
		guest_link.output = relay_open(RELAY_OUTPUT, NULL, FRAME_ATTACH, "\2\0\0\0", 4);
	if (guest_link.output != NULL)
		guest_link.start = relay_open(RELAY_START, NULL, FRAME_START, payload, length);
	if (guest_link.start == NULL) {
		refuse(connection, id, ENOMEM, "out of memory");
		return;
	}
	if (workload.rows != 0)
		link_resize(NULL, workload.rows, workload.columns);
	supervisor.starter = connection;
	supervisor.starter_stream = id;
}

static void serve_signal(struct connection *connection, const unsigned char *payload, size_t length)
{
	if (!guest_link.up) {
		refuse(connection, STREAM_WORKLOAD, ESRCH, "cannot send the signal");
		return;
	}
	if (!takes_requests(connection, STREAM_WORKLOAD, RELAY_RUN))
		return;
	if (guest_link.signal_count == SIGNALS_MAX) {
		refuse(connection, STREAM_WORKLOAD, EAGAIN, "the guest takes no more signals");
		return;
	}
	guest_link.signallers[guest_link.signal_count++] = connection;
	if (frame_put(&guest_link.out, FRAME_SIGNAL, 0, STREAM_WORKLOAD, payload, length) < 0)
		link_fail("no memory is left", "");
}

void link_serve(struct connection *connection, const struct frame *frame, unsigned char *payload)
{
	uint32_t id = frame->stream;
	if (frame->type == FRAME_GUEST)
		serve_guest(connection, id, payload, frame->length);
	else if (frame->type == FRAME_SIGNAL)
		serve_signal(connection, payload, frame->length);
	else if (!guest_link.up)
		refuse(connection, id, ESRCH, "there is no guest");
	else if (frame->type == FRAME_GUEST_START)
		serve_start(connection, id, payload, frame->length);
	else if (frame->type == FRAME_PARK)
		link_serve_park(connection, id);
	else if (frame->type == FRAME_RESUME)
		link_serve_resume(connection, id, payload, frame->length);
	else if (frame->type == FRAME_REHEARSE && (guest_link.started || guest_link.start != NULL))
		refuse(connection, id, EBUSY, "START has been there already");
	else if ((frame->type == FRAME_GUEST_RUN || frame->type == FRAME_REHEARSE) && guest_link.run_count == RUNS_MAX)
		refuse(connection, id, EAGAIN, "too many lists in the guest");
	else if (frame->type == FRAME_REHEARSE)
		link_request(connection, id, RELAY_RUN, FRAME_REHEARSE, payload, frame->length);
	else if (frame->type == FRAME_GUEST_RUN)
		link_request(connection, id, RELAY_RUN, FRAME_RUN, payload, frame->length);
	else
		link_request(connection, id, RELAY_PROCESS, frame->type, payload, frame->length);
}

int link_attach(struct stream *stream)
{
	if (!stream->gives_input || stream->relay != NULL || !guest_link.up || guest_link.ended)
		return 0;
	return relay_open(RELAY_INPUT, stream, FRAME_ATTACH, "\1\0\0\0", 4) == NULL ? -1 : 0;
}

void link_attach_all(void)
{
	for (struct stream *at = stream_of(&workload, NULL); at != NULL; at = stream_of(&workload, at))
		if (link_attach(at) < 0)
			at->gives_input = false;
}

/* NULL: the workload's terminal. */
void link_resize(struct stream *stream, uint16_t rows, uint16_t columns)
{
	struct relay *relay = stream != NULL && stream->remote ? stream->relay : guest_link.output;
	if (stream == NULL || !stream->remote)
		process_resize(&workload, rows, columns); /* only noted, for when it starts */
	if (relay == NULL)
		return;
	relay->resized = true;
	relay->rows = rows;
	relay->columns = columns;
}

void link_signal(const struct stream *stream, uint32_t number)
{
	if (stream->relay != NULL && number >= 1 && number <= 64)
		stream->relay->signals |= (uint64_t)1 << (number - 1);
}

void link_forget(const struct connection *connection)
{
	for (unsigned i = 0; i < guest_link.signal_count; i++)
		if (guest_link.signallers[i] == connection)
			guest_link.signallers[i] = NULL;
}

/* A guest that is parked: the supervisor has said nothing after PARK, the guest nothing after its OK, so the two agree
   wherever the guest is saved and loaded. The same supervisor or a new one goes on with RESUME. */
#define _GNU_SOURCE
#include <errno.h>

#include "link.h"
#include "log.h"
#include "supervisor.h"

static void refuse(struct connection *connection, uint32_t stream, int error, const char *text)
{
	connection_refuse(connection, stream, error, &(struct oplist_error){.text = text});
}

void link_serve_park(struct connection *connection, uint32_t id)
{
	if (!guest_link.started || guest_link.ended) {
		refuse(connection, id, ESRCH, "the workload does not run");
		return;
	}
	if (!link_request(connection, id, RELAY_PARK, FRAME_PARK, NULL, 0))
		return;
	guest_link.park = PARKING;
	guest_link.park_deadline = loop_now() + PARK_MS;
}

void link_serve_resume(struct connection *connection, uint32_t id, const unsigned char *payload, size_t length)
{
	bool begun = guest_link.started || guest_link.start != NULL;
	if (guest_link.park == PARKING || guest_link.park == RESUMING) {
		refuse(connection, id, EBUSY, "the instance is being parked or resumed");
		return;
	}
	if (guest_link.park == NOT_PARKED && begun) {
		refuse(connection, id, EINVAL, "it is not parked");
		return;
	}
	/* In a guest that another supervisor has parked: first, so that no output is missed. */
	if (guest_link.output == NULL)
		guest_link.output = relay_open(RELAY_OUTPUT, NULL, FRAME_ATTACH, "\2\0\0\0", 4);
	if (guest_link.output == NULL)
		refuse(connection, id, ENOMEM, "out of memory");
	else if (link_request(connection, id, RELAY_RESUME, FRAME_RESUME, payload, length))
		guest_link.park = RESUMING;
}

void link_pass(unsigned channel, size_t length)
{
	struct buffer *held = &guest_link.held[channel - 1];
	size_t *logged = &guest_link.logged[channel - 1], known = *logged < length ? *logged : length;
	if (known < length)
		log_write(&workload_log, channel, buffer_contents(held) + known, length - known);
	process_pass(&workload, channel, buffer_contents(held), length);
	buffer_consume(held, length);
	*logged -= known;
}

/* What somebody is too slow for is not lost with this supervisor. */
static void log_held(void)
{
	for (unsigned channel = CHANNEL_OUT; channel <= CHANNEL_ERR; channel++) {
		const struct buffer *held = &guest_link.held[channel - 1];
		size_t logged = guest_link.logged[channel - 1];
		if (logged < held->length)
			log_write(&workload_log, channel, buffer_contents(held) + logged, held->length - logged);
		guest_link.logged[channel - 1] = held->length;
	}
}

static void leave(void)
{
	guest_link.park = NOT_PARKED;
	guest_link.silent = guest_link.undoing = false;
	guest_link.park_deadline = 0;
	if (guest_link.later.length > 0 &&
	    buffer_append(&guest_link.out, buffer_contents(&guest_link.later), guest_link.later.length) < 0)
		link_fail("no memory is left", "");
	buffer_free(&guest_link.later);
}

void link_parked(void)
{
	guest_link.silent = true;
	if (guest_link.park != PARKING)
		return; /* RESUME is on its way */
	guest_link.park = PARKED;
	guest_link.park_deadline = 0;
	log_held();
}

void link_park_failed(void)
{
	if (guest_link.park == PARKING)
		leave();
}

void link_resumed(void)
{
	if (!guest_link.started) {
		guest_link.started = true;
		clock_gettime(CLOCK_REALTIME, &supervisor.started);
		supervisor.state = STATE_RUNNING;
		workload.coming = false;
		if (workload.rows != 0)
			link_resize(NULL, workload.rows, workload.columns);
	}
	leave();
}

void link_resume_failed(void)
{
	if (guest_link.started && !guest_link.undoing)
		guest_link.park = PARKED; /* it can be tried again */
	else
		leave();
}

void link_park_undo(void)
{
	if (guest_link.park != PARKING)
		return;
	guest_link.park = RESUMING;
	guest_link.undoing = true;
	guest_link.park_deadline = 0;
	if (relay_open(RELAY_RESUME, NULL, FRAME_RESUME, "\0\0\0\0", 4) == NULL)
		link_fail("no memory is left", "");
	link_flush(); /* who asked may have been the last client, with no event after it */
}

void link_park_sweep(void)
{
	if (guest_link.park_deadline == 0 || loop_now() < guest_link.park_deadline)
		return;
	for (struct relay *at = guest_link.relays; at != NULL; at = at->next) {
		struct stream *stream = at->stream;
		if (at->kind != RELAY_PARK || stream == NULL)
			continue;
		refuse(stream->connection, stream->id, ETIMEDOUT, "the guest does not answer");
		stream_end(stream, false);
		return; /* by that the parking is undone */
	}
}

#define _GNU_SOURCE
#include "relay.h"

#include <errno.h>
#include <stdlib.h>

#include "link.h"
#include "reader.h"

enum { CREDIT_BACK = CREDIT_START / 2 };

/* What must not reach a guest that is parked waits until it has resumed. */
static void put(enum frame_type type, unsigned channel, uint32_t id, const void *payload, size_t length)
{
	struct buffer *to = guest_link.park == NOT_PARKED || type == FRAME_RESUME ? &guest_link.out : &guest_link.later;
	if (frame_put(to, type, channel, id, payload, length) < 0)
		link_fail("no memory is left", "");
}

static void put_u32(enum frame_type type, unsigned channel, uint32_t id, uint32_t value)
{
	unsigned char payload[4];
	write_integer(payload, value, 4);
	put(type, channel, id, payload, sizeof payload);
}

struct relay *relay_find(uint32_t id)
{
	struct relay *relay = guest_link.relays;
	while (relay != NULL && relay->id != id)
		relay = relay->next;
	return relay;
}

static uint32_t new_id(void)
{
	do
		guest_link.last_id++;
	while (guest_link.last_id == 0 || guest_link.last_id == STREAM_WORKLOAD || relay_find(guest_link.last_id) != NULL);
	return guest_link.last_id;
}

struct relay *relay_open(enum relay_kind kind, struct stream *stream, enum frame_type type, const void *payload,
			 size_t length)
{
	/* There is always room for what is the supervisor's own. */
	bool room = stream == NULL || guest_link.relay_count < RELAYS_MAX;
	struct relay *relay = room ? calloc(1, sizeof *relay) : NULL;
	if (relay == NULL)
		return NULL;
	relay->kind = kind;
	relay->id = new_id();
	relay->allowed[0] = relay->allowed[1] = relay->credit = CREDIT_START;
	relay->next = guest_link.relays;
	guest_link.relays = relay;
	guest_link.relay_count++;
	guest_link.run_count += kind == RELAY_RUN;
	relay->stream = stream;
	if (stream != NULL)
		stream->relay = relay;
	put(type, 0, relay->id, payload, length);
	return relay;
}

void relay_free(struct relay *relay)
{
	struct relay **at = &guest_link.relays;
	while (*at != relay)
		at = &(*at)->next;
	*at = relay->next;
	guest_link.relay_count--;
	guest_link.run_count -= relay->kind == RELAY_RUN;
	if (relay->stream != NULL)
		relay->stream->relay = NULL;
	if (relay == guest_link.output)
		guest_link.output = NULL;
	if (relay == guest_link.start)
		guest_link.start = NULL;
	free(relay);
}

static bool lasts(const struct relay *relay)
{
	return relay->kind == RELAY_PROCESS || relay->kind == RELAY_INPUT;
}

/* A closed stream has no end of its own, and what was under way must not be taken for what nobody asked for. */
static void send_fence(void)
{
	bool needed = false;
	for (const struct relay *at = guest_link.relays; at != NULL; at = at->next)
		needed = needed || (at->closed && at->fence == 0 && lasts(at));
	if (!needed || guest_link.fencing)
		return;
	const struct relay *fence = relay_open(RELAY_FENCE, NULL, FRAME_INFO, NULL, 0);
	if (fence == NULL)
		return;
	guest_link.fencing = true;
	for (struct relay *at = guest_link.relays; at != NULL; at = at->next)
		if (at->closed && at->fence == 0 && lasts(at))
			at->fence = fence->id;
}

void relay_fence_reached(struct relay *fence)
{
	uint32_t id = fence->id;
	guest_link.fencing = false;
	relay_free(fence);
	for (struct relay *at = guest_link.relays, *next; at != NULL; at = next) {
		next = at->next;
		if (at->closed && at->fence == id)
			relay_free(at);
	}
	send_fence();
}

static void send_notes(struct relay *relay)
{
	unsigned char payload[8];
	for (unsigned number = 1; relay->signals != 0 && number <= 64; number++) {
		if (!(relay->signals >> (number - 1) & 1))
			continue;
		write_integer(payload, number, 4);
		write_integer(payload + 4, 0, 4);
		put(FRAME_SIGNAL, 0, relay->id, payload, 8);
	}
	relay->signals = 0;
	if (!relay->resized)
		return;
	write_integer(payload, relay->rows, 2);
	write_integer(payload + 2, relay->columns, 2);
	put(FRAME_RESIZE, 0, relay->id, payload, 4);
	relay->resized = false;
}

void relay_abandon(struct relay *relay, bool hung_up)
{
	relay->stream->relay = NULL;
	relay->stream = NULL;
	relay->closed = true;
	if (relay->kind == RELAY_PARK)
		link_park_undo();
	if (!lasts(relay))
		return; /* its one answer is its end */
	send_notes(relay);
	if (hung_up)
		put_u32(FRAME_CLOSE, 0, relay->id, CLOSE_HANG_UP);
	else
		put(FRAME_CLOSE, 0, relay->id, NULL, 0);
	send_fence();
	link_flush(); /* a client may be the last one, with no event after it */
}

static bool has_room(void)
{
	return guest_link.out.length < OUT_HIGH && guest_link.park == NOT_PARKED;
}

static void send_input(struct relay *relay, struct stream *stream)
{
	while (stream->input.length > 0 && relay->credit > 0 && has_room()) {
		size_t part = stream->input.length < DATA_MAX ? stream->input.length : DATA_MAX;
		part = part < relay->credit ? part : relay->credit;
		put(FRAME_DATA, CHANNEL_IN, relay->id, buffer_contents(&stream->input), part);
		relay->credit -= (uint32_t)part;
		buffer_consume(&stream->input, part);
		stream_consumed(stream, part);
	}
	if (!stream->input_ended || stream->input.length > 0 || !has_room())
		return;
	put(FRAME_EOF, CHANNEL_IN, relay->id, NULL, 0);
	stream->input_ended = stream->gives_input = false;
}

void relay_send(struct relay *relay)
{
	if (has_room())
		send_notes(relay);
	if (relay->stream != NULL)
		send_input(relay, relay->stream);
	for (unsigned i = 0; i < 2; i++) {
		/* Not after every frame: each costs the guest an interrupt. */
		if (relay->closed || relay->owed[i] < CREDIT_BACK || !has_room())
			continue;
		put_u32(FRAME_CREDIT, i + 1, relay->id, relay->owed[i]);
		relay->allowed[i] += relay->owed[i];
		relay->owed[i] = 0;
	}
}

void relay_passed(struct relay *relay, unsigned channel, size_t length)
{
	relay->owed[channel - 1] += (uint32_t)length;
}

void relay_pass_output(struct stream *stream)
{
	struct connection *connection = stream->connection;
	bool passed = false;
	for (unsigned channel = CHANNEL_OUT; channel <= CHANNEL_ERR; channel++) {
		struct buffer *late = &stream->late[channel - 1];
		size_t room = stream_room(stream, channel), part = late->length < room ? late->length : room;
		if (part == 0 || connection->dead)
			continue;
		stream_send(stream, channel, buffer_contents(late), part);
		buffer_consume(late, part);
		if (stream->relay != NULL)
			relay_passed(stream->relay, channel, part);
		passed = true;
	}
	if (stream->exiting)
		stream_exit(stream, stream->exit_code, stream->exit_signal);
	if (passed)
		connection_flush(connection);
}

/* A client whose request the guest has not answered, or whose process went down with it. */
static void end_stream(const struct relay *relay, struct stream *stream)
{
	static const struct oplist_error gone = {.text = "the guest has ended"};
	stream->relay = NULL;
	stream->gives_input = false;
	if (relay->kind == RELAY_INPUT)
		return; /* it gets the end of the workload */
	if (relay->answered) {
		stream_exit(stream, 128 + 9, 9);
		return;
	}
	connection_refuse(stream->connection, stream->id, ESRCH, &gone);
	stream_end(stream, false);
}

void relays_end(void)
{
	while (guest_link.relays != NULL) {
		struct relay *relay = guest_link.relays;
		struct stream *stream = relay->stream;
		relay->stream = NULL;
		guest_link.unborn = guest_link.unborn || relay->kind == RELAY_START ||
				    (relay->kind == RELAY_RESUME && !guest_link.started);
		if (stream != NULL)
			end_stream(relay, stream);
		relay_free(relay);
	}
	guest_link.fencing = false;
}

bool relays_wanted(void)
{
	for (const struct relay *at = guest_link.relays; at != NULL; at = at->next)
		if (at->stream != NULL)
			return true;
	return false;
}

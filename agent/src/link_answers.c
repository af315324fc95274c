#define _GNU_SOURCE
#include "link_answers.h"

#include <stdlib.h>
#include <string.h>

#include "link.h"
#include "supervisor.h"

enum { CODE_MAX = 255, SIGNAL_MAX = 64 };

static const char not_asked[] = "a frame on a stream that it was not asked for";
static const char parked[] = "a frame of a guest that is parked";

/* The lengths that the OK to a relay's request may have. */
static bool answer_fits(const struct relay *relay, uint32_t length)
{
	switch (relay->kind) {
	case RELAY_OUTPUT:
	case RELAY_INPUT:
	case RELAY_PARK:
		return length == 0;
	case RELAY_PROCESS:
	case RELAY_START:
	case RELAY_RESUME:
		return length == 4;
	case RELAY_RUN:
		return length <= FRAME_MAX;
	default:
		return length <= INFO_MAX;
	}
}

const char *link_check(const struct frame *frame)
{
	if (frame->stream == STREAM_WORKLOAD) {
		if (guest_link.signal_count == 0)
			return not_asked;
		if (guest_link.silent)
			return parked;
		return frame->type == FRAME_OK && frame->length != 0 ? "an answer of a wrong length" : NULL;
	}
	const struct relay *relay = relay_find(frame->stream);
	if (relay == NULL)
		return not_asked;
	if (guest_link.silent && relay->kind != RELAY_RESUME)
		return parked;
	bool answer = frame->type == FRAME_OK || frame->type == FRAME_ERROR;
	if (answer && relay->answered)
		return "a second answer to a request";
	if (!answer && !relay->answered && frame->type != FRAME_CREDIT)
		return "a frame on a stream before the answer that opens it";
	if (frame->type == FRAME_OK && !answer_fits(relay, frame->length))
		return "an answer of a wrong length";
	return NULL;
}

static uint32_t get_u32(const unsigned char *payload, size_t offset)
{
	struct reader reader = {.at = (unsigned char *)(uintptr_t)payload + offset,
				.end = (unsigned char *)(uintptr_t)payload + offset + 4};
	return read_u32(&reader);
}

/* Its text is shown to people: nothing that moves a cursor stays in it. */
static const char *parse_failure(const unsigned char *payload, size_t length, struct failure *failure)
{
	uint32_t error = get_u32(payload, 8);
	if (payload[0] > PHASE_REQUEST || error > ERRNO_MAX)
		return "an ERROR that is none";
	*failure = (struct failure){.phase = payload[0],
				    .code = (uint16_t)(payload[2] | payload[3] << 8),
				    .index = get_u32(payload, 4),
				    .error = (int32_t)error};
	length -= ERROR_HEAD;
	if (length > sizeof failure->text - 1)
		length = sizeof failure->text - 1;
	for (size_t i = 0; i < length; i++) {
		unsigned char byte = payload[ERROR_HEAD + i];
		failure->text[i] = byte < 0x20 || byte == 0x7f ? '?' : (char)byte;
	}
	return NULL;
}

static void take_signal_answer(const struct failure *failure)
{
	struct connection *connection = guest_link.signallers[0];
	guest_link.signal_count--;
	memmove(guest_link.signallers, guest_link.signallers + 1, guest_link.signal_count * sizeof *guest_link.signallers);
	if (connection == NULL)
		return;
	if (failure != NULL)
		connection_error(connection, STREAM_WORKLOAD, failure);
	else
		connection_ok(connection, STREAM_WORKLOAD, NULL, 0);
}

static void started(struct relay *relay, uint32_t pid)
{
	guest_link.started = true;
	clock_gettime(CLOCK_REALTIME, &supervisor.started);
	supervisor.state = STATE_RUNNING;
	workload.coming = false;
	relay_free(relay);
	supervisor_answer_start(pid);
}

static const char *take_ok(struct relay *relay, const unsigned char *payload, size_t length)
{
	struct stream *stream = relay->stream;
	relay->answered = true;
	switch (relay->kind) {
	case RELAY_OUTPUT:
	case RELAY_INPUT:
		return NULL;
	case RELAY_START:
		started(relay, get_u32(payload, 0));
		return NULL;
	case RELAY_FENCE:
		relay_fence_reached(relay);
		return NULL;
	case RELAY_PROCESS:
		if (stream != NULL)
			connection_ok(stream->connection, stream->id, payload, length);
		return NULL;
	case RELAY_PARK:
		link_parked();
		break;
	case RELAY_RESUME:
		link_resumed();
		break;
	default:
		break;
	}
	bool first = relay->kind == RELAY_INFO && !guest_link.up;
	relay_free(relay);
	if (stream != NULL) {
		connection_ok(stream->connection, stream->id, payload, length);
		stream_end(stream, false);
	}
	if (first) {
		guest_link.up = true;
		link_attach_all();
	}
	return NULL;
}

/* A request that makes no sense can be made again; after any other failure the guest is of no more use. */
static void start_failed(struct relay *relay, const struct failure *failure)
{
	relay_free(relay);
	if (failure->phase == PHASE_REQUEST) {
		if (supervisor.starter != NULL)
			connection_error(supervisor.starter, supervisor.starter_stream, failure);
		supervisor.starter = NULL;
		return;
	}
	workload.failed = true;
	workload.failure = malloc(sizeof *failure);
	if (workload.failure != NULL)
		*workload.failure = *failure;
	supervisor_kill();
}

static const char *take_error(struct relay *relay, const struct failure *failure)
{
	struct stream *stream = relay->stream;
	if (relay->kind == RELAY_OUTPUT || relay->kind == RELAY_FENCE)
		return "an ERROR where there can be none";
	if (relay->kind == RELAY_START) {
		start_failed(relay, failure);
		return NULL;
	}
	if (relay->kind == RELAY_PARK)
		link_park_failed();
	else if (relay->kind == RELAY_RESUME)
		link_resume_failed();
	bool input = relay->kind == RELAY_INPUT;
	relay_free(relay);
	if (stream == NULL)
		return NULL;
	if (input) { /* what it sends is thrown away; its output goes on */
		process_resume(stream->process);
		return NULL;
	}
	connection_error(stream->connection, stream->id, failure);
	stream_end(stream, false);
	return NULL;
}

static const char *take_data(struct relay *relay, unsigned channel, const unsigned char *payload, size_t length)
{
	if (relay->kind != RELAY_PROCESS && relay->kind != RELAY_OUTPUT)
		return "output of a stream that has none";
	if (length > relay->allowed[channel - 1])
		return "more output than it had credit for";
	relay->allowed[channel - 1] -= (uint32_t)length;
	struct buffer *to = relay->kind == RELAY_OUTPUT ? &guest_link.held[channel - 1] :
			    relay->stream != NULL	? &relay->stream->late[channel - 1] :
							  NULL;
	if (to != NULL && buffer_append(to, payload, length) < 0)
		return "output for which there is no memory";
	return NULL;
}

static const char *take_credit(struct relay *relay, uint32_t credit)
{
	if (credit == 0 || credit > CREDIT_START - relay->credit)
		return "credit for bytes that it was not sent";
	relay->credit += credit;
	return NULL;
}

/* Whole blocks, for exit.json: of the workload alone, and once. */
static const char *take_reports(const struct relay *relay, const unsigned char *payload, size_t length)
{
	struct reader reader = {.at = (unsigned char *)(uintptr_t)payload,
				.end = (unsigned char *)(uintptr_t)payload + length};
	if (relay->kind != RELAY_OUTPUT || !guest_link.started || guest_link.reports.length > 0)
		return "reports that nobody has asked for";
	while (reader.at != reader.end)
		if (read_bytes(&reader, read_u32(&reader)) == NULL)
			return "reports that are none";
	return buffer_append(&guest_link.reports, payload, length) < 0 ? "reports for which there is no memory" : NULL;
}

static const char *take_exit(struct relay *relay, uint32_t code, uint32_t number)
{
	struct stream *stream = relay->stream;
	bool workload_over = relay->kind == RELAY_OUTPUT;
	if (code > CODE_MAX || number > SIGNAL_MAX)
		return "an exit code or signal that is none";
	if (workload_over && !guest_link.started)
		return "the end of a workload that was not started";
	bool process = relay->kind == RELAY_PROCESS;
	relay_free(relay);
	if (stream != NULL && process) {
		stream->gives_input = false;
		stream_exit(stream, code, number);
	}
	if (!workload_over)
		return NULL;
	clock_gettime(CLOCK_REALTIME, &supervisor.ended);
	supervisor.code = code;
	supervisor.signal = number;
	guest_link.ended = true;
	guest_link.deadline = loop_now() + END_MS;
	return NULL;
}

const char *link_take(const struct frame *frame, const unsigned char *payload)
{
	struct failure failure;
	struct relay *relay = relay_find(frame->stream);
	const char *broken = frame->type == FRAME_ERROR ? parse_failure(payload, frame->length, &failure) : NULL;
	if (broken != NULL)
		return broken;
	if (frame->stream == STREAM_WORKLOAD) {
		take_signal_answer(frame->type == FRAME_ERROR ? &failure : NULL);
		return NULL;
	}
	switch (frame->type) {
	case FRAME_OK:
		return take_ok(relay, payload, frame->length);
	case FRAME_ERROR:
		return take_error(relay, &failure);
	case FRAME_DATA:
		return take_data(relay, frame->channel, payload, frame->length);
	case FRAME_CREDIT:
		return take_credit(relay, get_u32(payload, 0));
	case FRAME_REPORTS:
		return take_reports(relay, payload, frame->length);
	default:
		return take_exit(relay, get_u32(payload, 0), get_u32(payload, 4));
	}
}

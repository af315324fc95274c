#define _GNU_SOURCE
#include "stream.h"

#include <stdlib.h>

#include "connection.h"
#include "relay.h"

struct stream *stream_new(struct connection *connection, uint32_t id, struct process *process)
{
	struct stream *stream = calloc(1, sizeof *stream);
	if (stream == NULL)
		return NULL;
	stream->id = id;
	stream->connection = connection;
	stream->process = process;
	stream->credit[0] = stream->credit[1] = stream->allowed = CREDIT_START;
	stream->next = connection->streams;
	connection->streams = stream;
	connection->stream_count++;
	return stream;
}

struct stream *stream_find(const struct connection *connection, uint32_t id)
{
	struct stream *stream = connection->streams;
	while (stream != NULL && stream->id != id)
		stream = stream->next;
	return stream;
}

struct stream *stream_of(const struct process *process, const struct stream *after)
{
	struct connection *connection = after ? after->connection : connections;
	struct stream *stream = after ? after->next : connection ? connection->streams : NULL;
	while (connection != NULL) {
		for (; stream != NULL; stream = stream->next)
			if (stream->process == process)
				return stream;
		connection = connection->next;
		stream = connection ? connection->streams : NULL;
	}
	return NULL;
}

void stream_end(struct stream *stream, bool closed)
{
	struct process *process = stream->process;
	struct stream **at = &stream->connection->streams;
	while (*at != stream)
		at = &(*at)->next;
	*at = stream->next;
	stream->connection->stream_count--;
	if (stream->relay != NULL)
		relay_abandon(stream->relay, closed);
	if (stream->opener) {
		process->opener = NULL;
		if (closed && process != &workload)
			process_hang_up(process);
	}
	buffer_free(&stream->input);
	buffer_free(&stream->late[0]);
	buffer_free(&stream->late[1]);
	free(stream);
	process_resume(process);
}

bool stream_data(struct stream *stream, const unsigned char *data, size_t length)
{
	if (length > stream->allowed)
		return false;
	stream->allowed -= (uint32_t)length;
	if (!stream->gives_input || stream->input_ended) {
		stream_consumed(stream, length);
		return true;
	}
	if (buffer_append(&stream->input, data, length) < 0)
		return false;
	process_resume(stream->process);
	return true;
}

void stream_eof(struct stream *stream)
{
	if (!stream->gives_input)
		return;
	stream->input_ended = true;
	process_resume(stream->process);
}

void stream_consumed(struct stream *stream, size_t length)
{
	if (length == 0)
		return;
	stream->allowed += (uint32_t)length;
	if (frame_put_u32(&stream->connection->out, FRAME_CREDIT, CHANNEL_IN, stream->id, (uint32_t)length) < 0)
		connection_close(stream->connection);
	connection_flush(stream->connection);
}

size_t stream_room(const struct stream *stream, unsigned channel)
{
	size_t queued = stream->connection->out.length, room = queued < OUT_HIGH ? OUT_HIGH - queued : 0;
	if (stream->connection->dead)
		return OUT_HIGH; /* it takes nothing, so it holds up nothing */
	return room < stream->credit[channel - 1] ? room : stream->credit[channel - 1];
}

void stream_send(struct stream *stream, unsigned channel, const unsigned char *data, size_t length)
{
	while (length > 0) {
		size_t part = length < DATA_MAX ? length : DATA_MAX;
		if (frame_put(&stream->connection->out, FRAME_DATA, channel, stream->id, data, part) < 0)
			connection_close(stream->connection);
		stream->credit[channel - 1] -= (uint32_t)part;
		data += part;
		length -= part;
	}
}

void stream_output(struct stream *stream, unsigned channel, const unsigned char *data, size_t length)
{
	struct buffer *late = &stream->late[channel - 1];
	size_t now = late->length > 0 ? 0 : length;
	if (!stream->gets_output || stream->connection->dead)
		return;
	if (now > stream->credit[channel - 1])
		now = stream->credit[channel - 1];
	stream_send(stream, channel, data, now);
	if (buffer_append(late, data + now, length - now) < 0)
		connection_close(stream->connection);
	connection_flush(stream->connection);
}

/* Ends the stream with EXIT if nothing else is to be sent before. */
static void finish(struct stream *stream)
{
	struct connection *connection = stream->connection;
	if (!stream->exiting || stream->late[0].length > 0 || stream->late[1].length > 0)
		return;
	if (frame_put_exit(&connection->out, stream->id, stream->exit_code, stream->exit_signal) < 0)
		connection_close(connection);
	stream_end(stream, false);
	connection_flush(connection);
}

bool stream_credit(struct stream *stream, unsigned channel, uint32_t credit)
{
	struct buffer *late = &stream->late[channel - 1];
	uint32_t *has = &stream->credit[channel - 1];
	if (credit > UINT32_MAX / 2 - *has)
		return false;
	*has += credit;
	if (stream->remote)
		return true; /* link_sweep goes on with it */
	size_t part = late->length < *has ? late->length : *has;
	if (part > 0) {
		stream_send(stream, channel, buffer_contents(late), part);
		buffer_consume(late, part);
	}
	connection_flush(stream->connection);
	struct process *process = stream->process;
	finish(stream);
	process_resume(process);
	return true;
}

void stream_exit(struct stream *stream, uint32_t code, uint32_t signal)
{
	stream->exiting = true;
	stream->exit_code = code;
	stream->exit_signal = signal;
	finish(stream);
}

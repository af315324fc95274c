/* Streams of a connection: what they send to a process and what they get from it. */
#ifndef STREAM_H
#define STREAM_H

#include "buffer.h"
#include "process.h"
#include "protocol.h"

struct connection;
struct relay;

struct stream {
	struct stream *next;
	struct connection *connection;
	struct process *process;
	struct relay *relay; /* of a guest's: where its input goes, and the output of a remote one comes from */
	uint32_t id;
	bool gets_output, gives_input, opener;
	bool input_ended, exiting;
	bool remote; /* of an exec or file session in a guest */
	uint32_t exit_code, exit_signal;
	uint32_t credit[2]; /* bytes that may be sent, per output channel */
	uint32_t allowed;   /* bytes that the other side may send */
	struct buffer input;
	struct buffer late[2]; /* output beyond the credit; there is some only at a process's end */
};

/* A stream of a connection; NULL without memory. */
struct stream *stream_new(struct connection *connection, uint32_t id, struct process *process);
struct stream *stream_find(const struct connection *connection, uint32_t id);
/* Takes the stream off its connection and its process; `closed`: because the connection was. */
void stream_end(struct stream *stream, bool closed);
/* DATA, EOF and CREDIT have come; false when they break the rules. */
bool stream_data(struct stream *stream, const unsigned char *data, size_t length);
void stream_eof(struct stream *stream);
bool stream_credit(struct stream *stream, unsigned channel, uint32_t credit);
/* How much output the stream takes now. */
size_t stream_room(const struct stream *stream, unsigned channel);
void stream_output(struct stream *stream, unsigned channel, const unsigned char *data, size_t length);
/* Sends output as far as there is credit; the caller flushes the connection. */
void stream_send(struct stream *stream, unsigned channel, const unsigned char *data, size_t length);
/* Bytes of the input have been passed on. */
void stream_consumed(struct stream *stream, size_t length);
/* Sends EXIT when all output has gone. */
void stream_exit(struct stream *stream, uint32_t code, uint32_t signal);

/* The streams of a process, one after the other; begins with NULL. */
struct stream *stream_of(const struct process *process, const struct stream *after);

#endif

/* Connections: bytes to frames to requests, and back. One that misbehaves is closed and hurts nobody. */
#ifndef CONNECTION_H
#define CONNECTION_H

#include "frames.h"
#include "loop.h"
#include "stream.h"

enum { CONNECTIONS_MAX = 64, STREAMS_MAX = 256, OUT_HIGH = 256 << 10 };

struct connection {
	struct connection *next;
	struct source source;
	struct buffer in, out;
	struct stream *streams;
	unsigned stream_count;
	bool dead; /* to be freed by connections_sweep */
	bool port; /* a device of a guest: what is dead of it is forgotten, and it stays for who comes next */
	bool away; /* nobody is at the other side of the port */
	bool heard; /* somebody has been there and has asked for something */
	bool last; /* what is queued is the last that it gets */
};

extern struct connection *connections;
extern unsigned connection_count;

/* Takes connections from the listening socket. */
int connections_listen(int fd);
/* Serves a connected socket, which does not block; closes it when there are too many. */
void connection_open(int fd);
/* Serves a virtio-serial port, which does not block. */
void connection_open_port(int fd);
/* Whether there is nobody left who could still want an answer. */
bool connections_served(void);
/* Sends what is queued, as far as the socket takes it. */
void connection_flush(struct connection *connection);
void connection_close(struct connection *connection);
void connections_sweep(void);

void connection_ok(struct connection *connection, uint32_t stream, const void *payload, size_t length);
void connection_error(struct connection *connection, uint32_t stream, const struct failure *failure);
/* The answer to a request that is wrong in itself. */
void connection_refuse(struct connection *connection, uint32_t stream, int error, const struct oplist_error *what);

/* requests.c of the supervisor: false when the frame breaks the rules. */
bool serve(struct connection *connection, const struct frame *frame, unsigned char *payload);

#endif

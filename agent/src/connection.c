#define _GNU_SOURCE
#include "connection.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "reader.h"
#include "supervisor.h"
#include "text.h"

enum { READ_SIZE = 16 << 10, MEET_MS = 100, TIED_MEET_MS = 1000 };

struct connection *connections;
unsigned connection_count;

static void update(struct connection *connection)
{
	uint32_t events = connection->out.length > 0 ? EPOLLOUT : 0;
	/* Who does not take the answers gets no more requests served. */
	if (connection->out.length < 2 * OUT_HIGH)
		events |= EPOLLIN;
	/* A port without another side is readable and hung up all the time: only what changes counts then. */
	if (connection->away)
		events = EPOLLIN | EPOLLET;
	if (loop_watch(&connection->source, events) < 0)
		connection->dead = true;
}

void connection_close(struct connection *connection)
{
	connection->dead = true;
}

void connection_flush(struct connection *connection)
{
	size_t before = connection->out.length;
	while (connection->out.length > 0 && !connection->dead) {
		/* write(2), since it may be a device; SIGPIPE is blocked, and none of the descriptors blocks. */
		ssize_t sent = write(connection->source.fd, buffer_contents(&connection->out), connection->out.length);
		if (sent < 0) {
			if (errno != EAGAIN)
				connection->dead = true;
			break;
		}
		buffer_consume(&connection->out, (size_t)sent);
	}
	if (connection->dead)
		return;
	update(connection);
	if (connection->last && connection->out.length == 0)
		shutdown(connection->source.fd, SHUT_WR);
	/* Room again: what waited for it goes on. */
	if (before >= OUT_HIGH && connection->out.length < OUT_HIGH)
		for (struct stream *stream = connection->streams; stream != NULL; stream = stream->next)
			process_resume(stream->process);
}

/* Serves every whole frame that has come. False when one breaks the rules. */
static bool serve_frames(struct connection *connection)
{
	struct frame frame;
	while (connection->in.length >= FRAME_HEADER && !connection->dead) {
		unsigned char *at = buffer_contents(&connection->in);
		if (frame_parse(at, &frame) < 0)
			return false;
		if (connection->in.length < FRAME_HEADER + frame.length)
			return true;
		connection->heard = true;
		if (!serve(connection, &frame, at + FRAME_HEADER))
			return false;
		buffer_consume(&connection->in, FRAME_HEADER + frame.length);
	}
	return true;
}

/* The kernel learns by one queue that somebody is at the other side of a port, and gets what he says by another: bytes
   may come while it still tells of a hangup, which must not be taken for his. Whether it is over in a moment. */
static bool meets(const struct connection *port)
{
	struct pollfd polled = {.fd = port->source.fd};
	const int patience = supervisor.tied ? TIED_MEET_MS : MEET_MS;
	for (int i = 0; i < patience; i++) {
		if (poll(&polled, 1, 0) == 0 || !(polled.revents & POLLHUP))
			return true;
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	return false;
}

/* Nobody is at the other side, unless he has just come and waits for an answer. */
static void hung_up(struct connection *connection)
{
	bool answered = connection->out.length == 0 || connection->streams != NULL;
	if (connection->port && (!answered || (supervisor.tied && connection->heard)) && meets(connection))
		return;
	connection->dead = true;
	connection->away = connection->port;
}

static void receive(struct connection *connection)
{
	unsigned char *room = buffer_reserve(&connection->in, READ_SIZE);
	if (room == NULL) {
		connection->dead = true;
		return;
	}
	ssize_t got = read(connection->source.fd, room, READ_SIZE);
	if (got > 0) {
		connection->away = connection->away && !meets(connection);
		buffer_commit(&connection->in, (size_t)got);
		if (!serve_frames(connection))
			connection->dead = true;
	} else if (got == 0 || errno != EAGAIN) {
		hung_up(connection);
	}
	if (connection->in.length == 0)
		buffer_free(&connection->in);
}

static void ready(struct source *source, uint32_t events)
{
	struct connection *connection = SOURCE_OWNER(source, struct connection, source);
	if (events & EPOLLIN)
		receive(connection);
	else if (events & (EPOLLHUP | EPOLLERR))
		hung_up(connection);
	if (!connection->dead)
		connection_flush(connection);
}

static void open_connection(int fd, bool port)
{
	struct connection *connection = connection_count < CONNECTIONS_MAX ? calloc(1, sizeof *connection) : NULL;
	if (connection == NULL) {
		close(fd);
		return;
	}
	connection->source = (struct source){.fd = fd, .ready = ready};
	connection->port = port;
	connection->next = connections;
	connections = connection;
	connection_count++;
	update(connection);
}

void connection_open(int fd)
{
	open_connection(fd, false);
}

void connection_open_port(int fd)
{
	open_connection(fd, true);
}

static void accept_one(struct source *source, uint32_t events)
{
	(void)events;
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0)
		connection_open(fd);
	else if (errno != EAGAIN)
		loop_watch(source, 0); /* no descriptor is left: again when something else has happened */
}

static struct source listener = {.fd = -1, .ready = accept_one};

int connections_listen(int fd)
{
	listener.fd = fd;
	return loop_watch(&listener, EPOLLIN);
}

bool connections_served(void)
{
	const struct connection *at = connections;
	while (at != NULL && at->port && (at->away || (at->last && at->out.length == 0)))
		at = at->next;
	return at == NULL;
}

/* Everything that was said is forgotten, as if it had been closed and opened. */
static void begin_again(struct connection *port)
{
	unsigned char rest[4096];
	/* What broke the rules is passed over; of who has gone nothing is left, and what is there now is another's. */
	while (!port->away && read(port->source.fd, rest, sizeof rest) > 0)
		;
	port->dead = port->last = false;
	port->away = true;
	update(port);
}

void connections_sweep(void)
{
	if (listener.events == 0)
		loop_watch(&listener, EPOLLIN);
	for (struct connection **at = &connections; *at != NULL;) {
		struct connection *connection = *at;
		if (!connection->dead) {
			at = &connection->next;
			continue;
		}
		while (connection->streams != NULL)
			stream_end(connection->streams, true);
		supervisor_forget(connection);
		buffer_free(&connection->in);
		buffer_free(&connection->out);
		if (connection->port) {
			if (supervisor.tied && connection->heard)
				supervisor_leave();
			begin_again(connection);
			at = &connection->next;
			continue;
		}
		*at = connection->next;
		loop_close(&connection->source);
		free(connection);
		connection_count--;
	}
}

void connection_ok(struct connection *connection, uint32_t stream, const void *payload, size_t length)
{
	if (frame_put(&connection->out, FRAME_OK, 0, stream, payload, length) < 0)
		connection->dead = true;
	connection_flush(connection);
}

void connection_error(struct connection *connection, uint32_t stream, const struct failure *failure)
{
	unsigned char payload[12 + sizeof failure->text] = {failure->phase};
	size_t length = strnlen(failure->text, sizeof failure->text);
	write_integer(payload + 2, failure->code, 2);
	write_integer(payload + 4, failure->index, 4);
	write_integer(payload + 8, (uint32_t)failure->error, 4);
	memcpy(payload + 12, failure->text, length);
	if (frame_put(&connection->out, FRAME_ERROR, 0, stream, payload, 12 + length) < 0)
		connection->dead = true;
	connection_flush(connection);
}

void connection_refuse(struct connection *connection, uint32_t stream, int error, const struct oplist_error *what)
{
	struct failure failure = {.phase = PHASE_REQUEST, .code = what->code, .index = what->index, .error = error};
	TEXT(failure.text, what->text);
	connection_error(connection, stream, &failure);
}

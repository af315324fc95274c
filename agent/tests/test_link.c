#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "../src/link.h"
#include "../src/supervisor.h"
#include "check.h"

/* The other ends: of a client's connection, and of the machine's socket. */
static int client, guest;

static void steps(void)
{
	for (int i = 0; i < 16; i++) {
		loop_step(0);
		link_sweep();
		connections_sweep();
	}
}

static void say(int peer, enum frame_type type, unsigned channel, uint32_t stream, const void *payload, size_t length)
{
	struct buffer frame = {0};
	CHECK(frame_put(&frame, type, channel, stream, payload, length) == 0);
	CHECK(send(peer, frame.data, frame.length, MSG_NOSIGNAL) == (ssize_t)frame.length);
	buffer_free(&frame);
	steps();
}

/* The next frame's type and stream, as type * 1000 + stream; its payload, cut off, in `text`. -1: there is none. */
static long heard(int peer, char *text, size_t size)
{
	unsigned char header[FRAME_HEADER], rest[512];
	text[0] = 0;
	if (recv(peer, header, sizeof header, MSG_DONTWAIT) != sizeof header)
		return -1;
	size_t length = header[0] | (size_t)header[1] << 8;
	if (length > sizeof rest || (length > 0 && recv(peer, rest, length, MSG_DONTWAIT) != (ssize_t)length))
		return -1;
	memcpy(text, rest, length < size - 1 ? length : size - 1);
	text[length < size - 1 ? length : size - 1] = 0;
	return header[5] * 1000L + header[8];
}

#define HEARD(peer, type, stream) CHECK_NUMBER(heard(peer, text, sizeof text), (type)*1000L + (stream))

static int listener_at(int directory, const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(fchdir(directory) == 0);
	strcpy(address.sun_path, name);
	CHECK(bind(fd, (const struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 4) == 0);
	return fd;
}

static void test_socket(int bundle)
{
	CHECK(link_socket(bundle, "none") < 0 && errno == ENOENT);
	CHECK(mkfifoat(bundle, "fifo", 0600) == 0);
	CHECK(link_socket(bundle, "fifo") < 0 && errno == ENOTSOCK);
	CHECK(symlinkat("agent.sock", bundle, "link") == 0);
	CHECK(link_socket(bundle, "link") < 0 && errno == ENOTSOCK);
	CHECK(symlinkat(".", bundle, "here") == 0);
	CHECK(link_socket(bundle, "here/agent.sock") < 0 && errno == ELOOP);
	CHECK(link_socket(bundle, "../link/agent.sock") < 0 && errno == EXDEV);
	CHECK(link_socket(bundle, "") < 0 && errno == ENOENT);
}

static void begin(int bundle, int listener)
{
	int pair[2];
	char text[64];
	CHECK(loop_open() == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
	connection_open(pair[0]);
	client = pair[1];
	supervisor.bundle = bundle;
	supervisor.state = STATE_STARTING;
	supervisor.vmm = process_new();
	supervisor.vmm->coming = false;
	say(client, FRAME_EXEC, 0, 1, NULL, 0);
	HEARD(client, FRAME_ERROR, 1);
	say(client, FRAME_GUEST, 0, 9, "agent.sock", 10);
	guest = accept(listener, NULL, NULL);
	HEARD(guest, FRAME_INFO, 1);
	say(guest, FRAME_OK, 0, 1, "{}", 2);
	HEARD(client, FRAME_OK, 9);
	CHECK_TEXT(text, "{}");
	CHECK(guest_link.up);
}

static void test_numbers(void)
{
	char text[64];
	say(client, FRAME_EXEC, 0, 77, "request", 7);
	HEARD(guest, FRAME_EXEC, 2);
	CHECK_TEXT(text, "request");
	say(client, FRAME_DATA, 0, 77, "in", 2);
	HEARD(guest, FRAME_DATA, 2);
	HEARD(client, FRAME_CREDIT, 77);
	CHECK_NUMBER(guest_link.relays->credit, CREDIT_START - 2);
	say(guest, FRAME_OK, 0, 2, "\1\0\0\0", 4);
	HEARD(client, FRAME_OK, 77);
	say(guest, FRAME_CREDIT, 0, 2, "\2\0\0\0", 4);
	CHECK_NUMBER(guest_link.relays->credit, CREDIT_START);
	say(guest, FRAME_DATA, 2, 2, "out", 3);
	HEARD(client, FRAME_DATA, 77);
	CHECK_TEXT(text, "out");
	CHECK_NUMBER(guest_link.relays->owed[1], 3);
	CHECK_NUMBER(guest_link.relays->allowed[1], CREDIT_START - 3);
	say(guest, FRAME_EXIT, 0, 2, "\5\0\0\0\0\0\0\0", 8);
	HEARD(client, FRAME_EXIT, 77);
	CHECK_NUMBER(guest_link.relay_count, 0);
}

static void test_fence(void)
{
	char text[64];
	say(client, FRAME_FILES, 0, 5, NULL, 0);
	HEARD(guest, FRAME_FILES, 3);
	say(client, FRAME_CLOSE, 0, 5, NULL, 0);
	HEARD(guest, FRAME_CLOSE, 3);
	HEARD(guest, FRAME_INFO, 4);
	CHECK_NUMBER(guest_link.relay_count, 2);
	say(guest, FRAME_OK, 0, 3, "\1\0\0\0", 4);
	CHECK_NUMBER(guest_link.relay_count, 2);
	say(guest, FRAME_OK, 0, 4, "{}", 2);
	CHECK_NUMBER(guest_link.relay_count, 0);
	CHECK_NUMBER(heard(client, text, sizeof text), -1);
}

static void test_broken_rule(void)
{
	char text[64];
	say(client, FRAME_EXEC, 0, 6, NULL, 0);
	HEARD(guest, FRAME_EXEC, 5);
	say(guest, FRAME_EXIT, 0, 5, "\0\0\0\0\0\0\0\0", 8);
	CHECK_TEXT(supervisor.error, "the guest broke the agent's protocol: a frame on a stream before the answer that opens it");
	HEARD(client, FRAME_ERROR, 6);
	CHECK(guest_link.lost && guest_link.source.fd < 0 && guest_link.relays == NULL);
	say(client, FRAME_EXEC, 0, 7, NULL, 0);
	HEARD(client, FRAME_ERROR, 7);
	CHECK_NUMBER(connection_count, 1);
}

void test_link(void)
{
	int top = open(check_directory(), O_PATH | O_DIRECTORY), before = open(".", O_PATH | O_DIRECTORY);
	mkdirat(top, "link", 0700);
	int bundle = openat(top, "link", O_RDONLY | O_DIRECTORY), listener = listener_at(bundle, "agent.sock");
	test_socket(bundle);
	begin(bundle, listener);
	test_numbers();
	test_fence();
	test_broken_rule();
	close(client);
	steps();
	CHECK_NUMBER(connection_count, 0);
	CHECK(fchdir(before) == 0);
	close(guest);
	close(listener);
	close(bundle);
	close(before);
	close(top);
}

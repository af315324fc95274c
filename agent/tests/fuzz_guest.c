/* A guest that lies, and clients who know no better: every step is a frame that has a meaning, or nearly. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../src/link.h"
#include "../src/supervisor.h"
#include "build.h"
#include "fuzz_supervisor.h"
#include "fuzz_world.h"

enum { CLIENTS = 2, STEP = 4, STEPS_MAX = 500, EVENTS = 6 };

static int clients[CLIENTS];
static unsigned char zeros[DATA_MAX];
static const uint32_t amounts[] = {0, 1, 4, 5000, 65535, 65536, 131072, 262144, 262145, 0x7fffffff, 0xffffffff};

static uint32_t amount(unsigned of)
{
	return amounts[of % (sizeof amounts / sizeof *amounts)];
}

static void send_all(int peer, struct buffer *frames)
{
	for (int tries = 0; frames->length > 0 && tries < 64; tries++) {
		ssize_t sent = send(peer, buffer_contents(frames), frames->length, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent > 0)
			buffer_consume(frames, (size_t)sent);
		else if (errno != EAGAIN)
			break;
		supervisor_fuzz_steps(EVENTS);
	}
	buffer_free(frames);
}

static void say(int peer, enum frame_type type, unsigned channel, uint32_t stream, const void *payload, size_t length)
{
	struct buffer frames = {0};
	frame_put(&frames, type, channel, stream, payload, length);
	if (peer >= 0)
		send_all(peer, &frames);
	buffer_free(&frames);
}

static void say_u32(int peer, enum frame_type type, unsigned channel, uint32_t stream, uint32_t first, uint32_t second)
{
	unsigned char payload[8];
	write_integer(payload, first, 4);
	write_integer(payload + 4, second, 4);
	say(peer, type, channel, stream, payload, type == FRAME_CREDIT || type == FRAME_RESIZE ? 4 : 8);
}

/* Most often a stream that is there. */
static struct relay *some_relay(unsigned number)
{
	struct relay *relay = guest_link.relays;
	for (number %= 8; number > 0 && relay != NULL && relay->next != NULL; number--)
		relay = relay->next;
	return relay;
}

static uint32_t some_id(unsigned number)
{
	const struct relay *relay = number & 128 ? NULL : some_relay(number);
	return relay != NULL ? relay->id : (number & 15) + 1;
}

static void answer(unsigned number)
{
	static const size_t lengths[] = {[RELAY_OUTPUT] = 0, [RELAY_INPUT] = 0, [RELAY_PROCESS] = 4, [RELAY_START] = 4,
					 [RELAY_INFO] = 2,   [RELAY_RUN] = 9,	[RELAY_FENCE] = 2,   [RELAY_PARK] = 0,
					 [RELAY_RESUME] = 4};
	const struct relay *relay = some_relay(number);
	if (relay != NULL && (!relay->answered || number & 64))
		say(world_guest(), FRAME_OK, 0, relay->id, zeros, lengths[relay->kind]);
}

/* What an honest guest could do, if anything. */
static void honest_step(unsigned action, unsigned a, unsigned b)
{
	const unsigned char error[14] = {b & 1 ? PHASE_REQUEST : PHASE_STAGE};
	const struct relay *relay = some_relay(a);
	int guest = world_guest();
	if (action == 6 && guest >= 0)
		supervisor_fuzz_swallow(guest);
	if (relay == NULL || action == 6)
		return;
	bool process = relay->kind == RELAY_PROCESS, output = process || relay->kind == RELAY_OUTPUT;
	bool parking = relay->kind == RELAY_PARK || relay->kind == RELAY_RESUME;
	bool refused = action == 4 && (process || parking || (relay->kind == RELAY_START && b < 128));
	uint32_t taken = CREDIT_START - relay->credit, allowed = relay->allowed[b >> 7];
	if (!relay->answered && !refused)
		answer(a);
	else if (!relay->answered)
		say(guest, FRAME_ERROR, 0, relay->id, error, sizeof error);
	else if (output && (action & 1) == 0 && allowed > 0)
		say(guest, FRAME_DATA, 1 + (b >> 7), relay->id, zeros, allowed < 1u + b * 256 ? allowed : 1u + b * 256);
	else if (action == 1 && taken > 0)
		say_u32(guest, FRAME_CREDIT, 0, relay->id, b & 1 ? taken : 1, 0);
	else if (action == 3 && process && b < 32)
		say_u32(guest, FRAME_EXIT, 0, relay->id, b, 0);
	else if (action == 5 && guest_link.signal_count > 0)
		say(guest, FRAME_OK, 0, STREAM_WORKLOAD, NULL, 0);
}

static void guest_step(unsigned action, unsigned a, unsigned b)
{
	unsigned char error[14] = {(unsigned char)(a >> 3 & 7)};
	int guest = world_guest();
	switch (action) {
	case 0:
		say(guest, FRAME_OK, 0, some_id(a), zeros, amount(b) % (INFO_MAX + 2));
		return;
	case 1:
		say(guest, FRAME_DATA, 1 + (b >> 7), some_id(a), zeros, amount(b) % (DATA_MAX + 1));
		return;
	case 2:
		say_u32(guest, FRAME_CREDIT, 0, some_id(a), amount(b), 0);
		return;
	case 3:
		say_u32(guest, FRAME_EXIT, 0, some_id(a), b & 127, b & 128 ? 9 : 0);
		return;
	case 4:
		say(guest, FRAME_ERROR, 0, b & 1 ? STREAM_WORKLOAD : some_id(a), error, 12 + (b & 2));
		return;
	case 5:
		if (b & 1)
			say(guest, FRAME_REPORTS, 0, some_id(a), zeros, b);
		else
			say(guest, FRAME_OK, 0, STREAM_WORKLOAD, NULL, 0);
		return;
	case 6:
		if (guest >= 0 && b == 0)
			shutdown(guest, SHUT_WR);
		else if (guest >= 0)
			supervisor_fuzz_swallow(guest);
		return;
	default:
		answer(a);
	}
}

static void client_step(unsigned action, int peer, unsigned a, unsigned b)
{
	static const enum frame_type requests[] = {FRAME_EXEC,	FRAME_FILES, FRAME_GUEST_RUN, FRAME_GUEST_START, FRAME_ATTACH,
						   FRAME_WATCH, FRAME_INFO,  FRAME_QUIT,      FRAME_GUEST, FRAME_PARK,
						   FRAME_RESUME, FRAME_REHEARSE};
	static const size_t lengths[] = {8, 0, 4, 8, 4, 0, 0, 0, 1, 0, 4, 8};
	unsigned char payload[8] = {b & 3};
	uint32_t stream = 1 + a % 8;
	switch (action) {
	case 0:
	case 1:
		/* QUIT ends it all, and would end most inputs. */
		b = b % 64 == 7 ? 7 : b % 12 == 7 ? 0 : b % 12;
		say(peer, requests[b], 0, stream, payload, lengths[b]);
		return;
	case 2: {
		const struct stream *at = connections != NULL ? stream_find(connections, stream) : NULL;
		uint32_t allowed = b == 0 || at == NULL ? DATA_MAX : at->allowed < DATA_MAX ? at->allowed : DATA_MAX;
		say(peer, FRAME_DATA, 0, stream, zeros, allowed < b * 256u ? allowed : b * 256u);
		return;
	}
	case 3:
		say_u32(peer, FRAME_CREDIT, 1 + (b >> 7), stream, b < 5 ? amount(b) : b * 1024, 0);
		return;
	case 4:
		say_u32(peer, FRAME_SIGNAL, 0, b & 64 ? STREAM_WORKLOAD : stream, b & 31, a >> 7);
		return;
	case 5:
		say_u32(peer, FRAME_RESIZE, 0, stream, b * 77, 0);
		return;
	case 6:
		say(peer, b & 1 ? FRAME_EOF : FRAME_CLOSE, 0, stream, NULL, 0);
		return;
	default:
		supervisor_fuzz_swallow(peer);
	}
}

static void step(const uint8_t *data)
{
	unsigned who = data[0] >> 4 & 3, action = data[0] & 7, client = data[0] >> 7;
	if (who == 3 && action == 0 && data[1] < 16 && clients[client] >= 0) {
		close(clients[client]);
		clients[client] = -1;
	} else if (who == 3) {
		if (action == 1 && data[1] < 8)
			world_end_one();
		supervisor_reap();
	} else if (who == 0) {
		if (clients[client] < 0)
			clients[client] = supervisor_fuzz_connect(false);
		client_step(action, clients[client], data[1], data[2]);
	} else if (data[3] < 250) {
		honest_step(action, data[1], data[2]);
	} else {
		guest_step(action, data[1], data[2]);
	}
	supervisor_fuzz_steps(EVENTS);
}

static void start_machine(unsigned behaviour)
{
	struct buffer start = {0};
	put_start(&start);
	start.data[0] = START_GUEST;
	world_behaviour(behaviour & 1);
	clients[0] = supervisor_fuzz_connect(false);
	clients[1] = -1;
	say(clients[0], FRAME_START, 0, 100, start.data, start.length);
	if (behaviour & 2)
		say(clients[0], FRAME_ATTACH, 0, 8, "\3\0\0\0", 4);
	say(clients[0], FRAME_GUEST, 0, 101, "vm/agent.sock", 13);
	if (behaviour & 4)
		answer(0);
	if (behaviour & 8)
		say(clients[0], FRAME_GUEST_START, 0, 102, start.data, start.length);
	buffer_free(&start);
}

void fuzz_guest(const uint8_t *data, size_t size)
{
	if (size == 0)
		return;
	supervisor_fuzz_begin();
	start_machine(data[0]);
	data++;
	for (size_t i = 0; i < (size - 1) / STEP && i < STEPS_MAX; i++, data += STEP)
		step(data);
	for (int i = 0; i < CLIENTS; i++)
		if (clients[i] >= 0)
			close(clients[i]);
	supervisor_fuzz_steps(EVENTS);
	supervisor_fuzz_end();
}

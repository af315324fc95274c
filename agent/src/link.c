#define _GNU_SOURCE
#include "link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "link_answers.h"
#include "supervisor.h"
#include "text.h"

enum { READ_SIZE = 16 << 10 };

static void link_ready(struct source *source, uint32_t events);

struct guest_link guest_link = {.source = {.fd = -1, .ready = link_ready}};

/* The other end has gone. That of the machine is what should follow. */
static void lost(void)
{
	guest_link.lost = true;
	if (guest_link.deadline == 0)
		guest_link.deadline = loop_now() + END_MS;
}

static void update(void)
{
	/* Always read: what a guest may send is bounded by what it was asked for and by its credit. */
	if (loop_watch(&guest_link.source, EPOLLIN | (guest_link.out.length > 0 ? (uint32_t)EPOLLOUT : 0)) < 0)
		lost();
}

void link_open(int fd)
{
	guest_link.source.fd = fd;
	update();
}

/* All of what is held, whatever the credit: nothing comes after it. */
static void pass_all_output(void)
{
	for (unsigned channel = CHANNEL_OUT; channel <= CHANNEL_ERR; channel++) {
		if (guest_link.held[channel - 1].length > 0)
			link_pass(channel, guest_link.held[channel - 1].length);
		buffer_free(&guest_link.held[channel - 1]);
	}
}

void link_close(void)
{
	static const struct oplist_error gone = {.text = "the guest has ended"};
	guest_link.lost = true;
	guest_link.up = false;
	loop_close(&guest_link.source);
	buffer_free(&guest_link.in);
	buffer_free(&guest_link.out);
	buffer_free(&guest_link.later);
	guest_link.park_deadline = 0;
	guest_link.park = NOT_PARKED;
	for (unsigned i = 0; i < guest_link.signal_count; i++)
		if (guest_link.signallers[i] != NULL)
			connection_refuse(guest_link.signallers[i], STREAM_WORKLOAD, ESRCH, &gone);
	guest_link.signal_count = 0;
	pass_all_output();
	relays_end();
}

void link_fail(const char *reason, const char *rule)
{
	if (!guest_link.ended && *supervisor.error == 0)
		TEXT(supervisor.error, reason, rule);
	guest_link.lost = true;
	supervisor_kill();
}

void link_flush(void)
{
	while (guest_link.out.length > 0 && !guest_link.lost) {
		ssize_t sent = send(guest_link.source.fd, buffer_contents(&guest_link.out), guest_link.out.length,
				    MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0) {
			if (errno != EAGAIN)
				buffer_free(&guest_link.out); /* what it has said before it went is still to be read */
			break;
		}
		buffer_consume(&guest_link.out, (size_t)sent);
	}
	if (!guest_link.lost)
		update();
}

/* Takes every whole frame that has come. NULL, or the rule that one breaks. */
static const char *take_frames(void)
{
	struct frame frame;
	const char *broken = NULL;
	while (broken == NULL && guest_link.in.length >= FRAME_HEADER && !guest_link.lost) {
		unsigned char *at = buffer_contents(&guest_link.in);
		broken = frame_parse_answer(at, &frame);
		if (broken == NULL)
			broken = link_check(&frame);
		if (broken != NULL || guest_link.in.length < FRAME_HEADER + frame.length)
			break;
		broken = link_take(&frame, at + FRAME_HEADER);
		buffer_consume(&guest_link.in, FRAME_HEADER + frame.length);
	}
	return broken;
}

static void link_ready(struct source *source, uint32_t events)
{
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return; /* link_sweep sends */
	unsigned char *room = buffer_reserve(&guest_link.in, READ_SIZE);
	ssize_t got = room == NULL ? 0 : recv(source->fd, room, READ_SIZE, MSG_DONTWAIT);
	if (got > 0) {
		buffer_commit(&guest_link.in, (size_t)got);
		const char *broken = take_frames();
		if (broken != NULL)
			link_fail("the guest broke the agent's protocol: ", broken);
	} else if (got == 0 || errno != EAGAIN) {
		lost();
	}
	if (guest_link.in.length == 0)
		buffer_free(&guest_link.in);
}

static void pass_held_output(void)
{
	for (unsigned channel = CHANNEL_OUT; channel <= CHANNEL_ERR; channel++) {
		struct buffer *held = &guest_link.held[channel - 1];
		size_t room;
		while (held->length > 0 && (room = process_output_room(&workload, channel)) > 0) {
			size_t part = held->length < room ? held->length : room;
			link_pass(channel, part);
			if (guest_link.output != NULL)
				relay_passed(guest_link.output, channel, part);
		}
	}
}

static void pass_streams(void)
{
	for (struct connection *at = connections; at != NULL; at = at->next)
		for (struct stream *stream = at->streams, *next; stream != NULL; stream = next) {
			next = stream->next;
			if (stream->remote)
				relay_pass_output(stream);
		}
}

/* Of a machine that is elsewhere there is nothing to wait for. */
static void leave_place(void)
{
	if (!guest_link.ended && *supervisor.error == 0 && !supervisor.quit)
		TEXT(supervisor.error, "the virtual machine that it was in has ended, or has given it up");
	supervisor_kill();
}

void link_sweep(void)
{
	if (supervisor.vmm == NULL)
		return;
	link_park_sweep();
	pass_held_output();
	pass_streams();
	if (guest_link.source.fd >= 0) {
		for (struct relay *at = guest_link.relays; at != NULL; at = at->next)
			relay_send(at);
		link_flush();
		/* Nobody wants anything of it any more, and that is a sign for it to go. */
		if (guest_link.lost || (guest_link.ended && guest_link.out.length == 0 && !relays_wanted())) {
			link_close();
			if (supervisor.elsewhere)
				leave_place();
		}
	}
	if (guest_link.deadline == 0 || loop_now() < guest_link.deadline)
		return;
	guest_link.deadline = 0;
	if (!guest_link.ended && *supervisor.error == 0)
		TEXT(supervisor.error, "the machine closed its agent's socket and did not end");
	supervisor_kill();
}

uint64_t link_deadline(void)
{
	uint64_t first = guest_link.deadline, other = guest_link.park_deadline;
	return first == 0 || (other != 0 && other < first) ? other : first;
}

/* Relays: the streams that the supervisor has in its guest, each for a stream of a client or for itself. What a client
   sends is kept in its stream until the guest has credit for it, what the guest sends until the client has. */
#ifndef RELAY_H
#define RELAY_H

#include "stream.h"

enum { RELAYS_MAX = 256, RUNS_MAX = 8, INFO_MAX = 4096 };

enum relay_kind {
	RELAY_OUTPUT,  /* the workload's output, for the log and whoever is attached */
	RELAY_INPUT,   /* the input of one who is attached */
	RELAY_PROCESS, /* an exec or a file session */
	RELAY_START,
	RELAY_INFO, /* these have one answer */
	RELAY_RUN,
	RELAY_PARK,
	RELAY_RESUME,
	RELAY_FENCE, /* an INFO whose answer comes after everything of the streams that were closed before it */
};

struct relay {
	struct relay *next;
	enum relay_kind kind;
	uint32_t id;
	struct stream *stream; /* NULL: the supervisor's own, or its client has gone */
	bool answered, closed;
	uint32_t fence;	     /* of a closed one: what ends it; 0: not sent yet */
	uint32_t allowed[2]; /* bytes that the guest may send, per output channel */
	uint32_t owed[2];    /* bytes that have been passed on, and that it may send once it is told */
	uint32_t credit;     /* bytes that it takes on channel 0 */
	uint64_t signals;    /* a bit for each that is to be sent */
	bool resized;
	uint16_t rows, columns;
};

/* A relay with its request on the way to the guest; NULL: too many, or without memory. */
struct relay *relay_open(enum relay_kind kind, struct stream *stream, enum frame_type type, const void *payload,
			 size_t length);
struct relay *relay_find(uint32_t id);
void relay_free(struct relay *relay);
/* Its client has gone; `hung_up`: without a CLOSE. */
void relay_abandon(struct relay *relay, bool hung_up);
/* Sends what has gathered for the guest, as far as it takes it. */
void relay_send(struct relay *relay);
/* Output of the guest has been passed on. */
void relay_passed(struct relay *relay, unsigned channel, size_t length);
/* Passes on output that waits in a remote stream; the stream may end by that. */
void relay_pass_output(struct stream *stream);
/* The answer to a fence has come. */
void relay_fence_reached(struct relay *fence);
/* The guest has gone: its streams end. */
void relays_end(void);
/* Whether a client waits for something from the guest. */
bool relays_wanted(void);

#endif

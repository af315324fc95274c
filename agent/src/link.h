/* The guest link: what a supervisor whose workload is in a guest says to the agent there, and what it hears. */
#ifndef LINK_H
#define LINK_H

#include "connection.h"
#include "relay.h"

enum { SIGNALS_MAX = 64, END_MS = 5000, PARK_MS = 10000, REQUESTS_HIGH = 2 * OUT_HIGH };

/* Whether the guest is parked. Between PARKING and the answer to RESUME nothing else is sent to it. */
enum park_state { NOT_PARKED, PARKING, PARKED, RESUMING };

struct guest_link {
	struct source source; /* -1: none */
	struct buffer in, out;
	struct buffer later; /* is sent when the guest has resumed */
	struct relay *relays;
	unsigned relay_count, run_count;
	uint32_t last_id;
	bool up;      /* the guest has answered */
	bool lost;    /* it is no more */
	bool started; /* its workload has */
	bool ended;   /* and that is over */
	bool fencing; /* a fence is under way */
	enum park_state park;
	bool silent;  /* it has said that it is parked: it has no word but the answer to RESUME */
	bool undoing; /* nobody waits for it to be parked any more: RESUME is the supervisor's own */
	uint64_t park_deadline;
	bool unborn;  /* the guest has gone while its workload was being started */
	struct relay *output;
	struct relay *start;	/* is under way */
	struct buffer held[2];	/* output of the workload that somebody has no credit for */
	size_t logged[2];	/* so much of that is in the log */
	struct connection *signallers[SIGNALS_MAX]; /* who waits for the answer to a SIGNAL, in their order */
	unsigned signal_count;
	struct buffer reports; /* what the guest's `finish` has reported */
	uint64_t deadline; /* when the machine is killed; 0: not yet */
};

extern struct guest_link guest_link;

/* link.c: the guest's side. */
/* Takes over a connected socket. */
void link_open(int fd);
/* The guest is ended, and exit.json says why: with these two texts. */
void link_fail(const char *reason, const char *rule);
/* The machine has ended, or is about to. */
void link_close(void);
/* Sends what is queued, as far as the guest takes it. */
void link_flush(void);
/* Everything goes on that can; called after every event. */
void link_sweep(void);
/* When link_sweep has something to do; 0: only after an event. */
uint64_t link_deadline(void);

/* link_serve.c: the clients' side. */
/* Whether a frame is for the guest, or about it. */
bool link_takes(const struct frame *frame);
void link_serve(struct connection *connection, const struct frame *frame, unsigned char *payload);
/* A request for the guest with a stream of its own; false: refused, where there are too many. */
bool link_request(struct connection *connection, uint32_t id, enum relay_kind kind, enum frame_type type,
		  const unsigned char *payload, size_t length);
/* The input of a stream that is attached to the workload goes to the guest, if there is one. -1: too many. */
int link_attach(struct stream *stream);
/* The guest has answered for the first time. */
void link_attach_all(void);
void link_resize(struct stream *stream, uint16_t rows, uint16_t columns);
void link_signal(const struct stream *stream, uint32_t number);
void link_forget(const struct connection *connection);

/* link_park.c */
void link_serve_park(struct connection *connection, uint32_t id);
void link_serve_resume(struct connection *connection, uint32_t id, const unsigned char *payload, size_t length);
/* The guest's answers. */
void link_parked(void);
void link_park_failed(void);
void link_resumed(void);
void link_resume_failed(void);
/* Nobody wants the guest to be parked any more: it resumes as soon as it has been. */
void link_park_undo(void);
/* PARK that a guest has not answered in time is answered. */
void link_park_sweep(void);
/* Output of the workload that is held: to the streams, and what is not there yet to the log. */
void link_pass(unsigned channel, size_t length);

/* link_socket.c: connects to the socket of this name below the directory, which its owner may have put anything into.
   A socket that does not block, or -1 with errno. */
int link_socket(int directory, const char *name);

#endif

/* S: the life of one instance. */
#ifndef SUPERVISOR_H
#define SUPERVISOR_H

#include <stdint.h>
#include <time.h>

#include "connection.h"
#include "oplist.h"
#include "process.h"

enum state { STATE_IDLE, STATE_STARTING, STATE_RUNNING, STATE_ENDED };

struct supervisor {
	enum state state;
	int bundle; /* -1: none, in a guest */
	struct process *vmm; /* the machine of a guest, which the workload is in; NULL: the workload is a process */
	bool elsewhere; /* that machine is another instance's, and what stands for it here is a process that waits */
	bool tied; /* in a guest, beside its PID 1: when nobody is at the other side of the port any more, that is the end */
	uint32_t inherited[8]; /* bits of the descriptors below 256 that came along, for a netns to name */
	int netns; /* held until the finish list has read what passed the link, which ends with it; -1 for none */
	struct joined joined;
	char *kill;
	unsigned char *finish_bytes;
	struct oplist finish;
	struct timespec started, ended;
	uint32_t code, signal; /* how the workload has ended */
	char error[160];       /* why a guest has, without a word of its own; empty: it has not */
	struct connection *starter; /* waits for the answer to START, on this stream */
	uint32_t starter_stream;
	bool rehearsal; /* that START is to leave everything as it was; its answer comes at the end */
	bool quit; /* it has been told to end, by this one, if it is still there */
	struct connection *quitter;
	uint32_t quitter_stream;
	uint64_t deadline; /* of an end that has been reached, or of being idle without a connection; 0: none */
};

extern struct supervisor supervisor;

/* Serves until the end. `bundle` is an open directory, `listener` a listening socket; in a guest -1 and a port. */
void supervise(int bundle, int listener, const uint32_t inherited[static 8]);

/* launch.c: START. The failure, when it cannot even begin, is answered there. */
void supervisor_start(struct connection *connection, uint32_t stream, unsigned char *payload, size_t length);
/* The same for a START that a guest only rehearses. */
void supervisor_rehearse(struct connection *connection, uint32_t stream, unsigned char *payload, size_t length);
/* Everything is as it was before START. */
void supervisor_begin_anew(void);
/* Ends the processes that a failed or ended workload has left, and carries out the finish list. The reports go to
   `reports`. */
void supervisor_clean_up(struct buffer *reports);
/* Kills the workload, or the machine that it is in; its end brings about the rest. */
void supervisor_kill(void);
/* Takes note of every process that has ended. */
void supervisor_reap(void);
/* START, or that of the guest, is answered. */
void supervisor_answer_start(uint32_t pid);
/* The workload has ended, as `supervisor` says, or its start has failed: clean up, write it down, tell everybody. */
void supervisor_conclude(void);
void supervisor_start_failed(const struct failure *failure);
/* Who had the instance started has gone. */
void supervisor_leave(void);
/* QUIT before START. */
void supervisor_quit_idle(void);
/* A connection has gone: nobody answers it any more. */
void supervisor_forget(const struct connection *connection);

/* exit_file.c: 0, or -1 with errno. */
int exit_file_write(const struct supervisor *supervisor, const struct buffer *reports);

#endif

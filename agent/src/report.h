/* What the children tell the supervisor on the status socket (SOCK_SEQPACKET) on their way to the exec. */
#ifndef REPORT_H
#define REPORT_H

#include <sys/types.h>

#include "context.h"

enum report_kind {
	REPORT_PID = 1,	    /* pid of the process that matters; 0: the sender's, which it does not know as the host does */
	REPORT_CONSOLE = 2, /* comes with the terminal's master */
	REPORT_READY = 3,  /* the exec is next: if the socket ends now, it has happened */
	REPORT_HELD = 4,   /* there is no exec, the process waits */
	REPORT_FAILED = 5,
};

struct report {
	uint32_t kind;
	int32_t pid;
	struct failure failure;
};

void report_pid(int status, pid_t pid);
void report_console(int status, int master);
void report_ready(int status);
void report_held(int status);
void report_failure(int status, const struct failure *failure);

/* The supervisor's end tells who sent a report. -1: errno. */
int report_ask_for_senders(int status);
/* Takes the next report. 1; 0 at the end; -1 when there is none now. `fd` is the descriptor that came with it, or -1. */
int report_take(int status, struct report *report, int *fd);

/* Sends bytes and, unless it is -1, a descriptor. -1: errno. */
int send_descriptor(int socket, const void *data, size_t length, int fd);
/* Receives up to `length` bytes and a descriptor (close-on-exec), or -1 in `fd`; `sender` (may be NULL) is a pid where
   it was asked for. As recvmsg. */
ssize_t receive_descriptor(int socket, void *data, size_t length, int *fd, pid_t *sender, int flags);

#endif

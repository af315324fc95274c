/* A process of the instance as the supervisor sees it: the workload, an exec's, or a file session's. */
#ifndef PROCESS_H
#define PROCESS_H

#include <stdbool.h>

#include "context.h"
#include "loop.h"
#include "spawn.h"

struct log;
struct stream;

struct process {
	struct process *next;
	pid_t pid, first_pid;		/* 0: none yet; the first is the one that was forked, 0 when reaped */
	struct source status, in, out[2]; /* out[0] is channel 1: stdout or the terminal */
	bool terminal;
	int peer; /* the other end of the workload's terminal; -1: none */
	struct log *log; /* of its output; NULL: none */
	bool coming;		/* not executed yet */
	bool ready, failed;	/* what its reports have said */
	bool ended, finished;	/* reaped; its EXIT is on the way */
	bool hung_up;		/* nobody is at its terminal any more */
	int wait_status;
	uint16_t rows, columns; /* of a RESIZE that came before the terminal */
	struct stream *opener;	/* that asked for it; NULL when it has gone */
	struct failure *failure;
};

/* With four descriptors each they stay below the usual limit of 1,024. */
enum { PROCESSES_MAX = 192 };

/* Every process, the workload last. The workload of a guest is none of these: it has no pid and no descriptor. */
extern struct process *processes;
extern struct process workload;
/* Of streams that are joined with a guest: it takes nothing and gives nothing. */
extern struct process elsewhere;

/* A process that is not launched yet; NULL without memory or when there are too many. */
struct process *process_new(void);
/* Takes over what a spawn has started. */
void process_launched(struct process *process, const struct launch *launch);
/* Reads its reports. */
void process_reports(struct process *process);
/* It was reaped. */
void process_reaped(struct process *process, int wait_status);
/* On: nothing is read of any process, nothing is written to it, and none is reaped: they go on by themselves, as far as
   their pipes hold it. Off: everything that waited goes on. */
void processes_hold(bool on);
extern bool processes_held;
/* Lets those go on that had to wait for their log; how many milliseconds others have to wait yet, -1: none. */
int processes_paced(void);
/* Passes on all output that is there now, whatever the credit. */
void process_drain(struct process *process);
/* Output: to the log, and to every stream that wants it; the second: to the streams alone. */
void process_output(struct process *process, unsigned channel, const unsigned char *data, size_t length);
void process_pass(struct process *process, unsigned channel, const unsigned char *data, size_t length);
/* How much of it may come now, so that no stream gets more than it has given credit for. */
size_t process_output_room(const struct process *process, unsigned channel);
/* Its input or output may go on: data came, credit came, a stream came or went. */
void process_resume(struct process *process);
void process_resize(struct process *process, uint16_t rows, uint16_t columns);
/* Closes its terminal, or its stdin. */
void process_hang_up(struct process *process);
void process_close(struct process *process);
/* As it was before it was launched; it has ended. */
void process_renew(struct process *process);
/* Frees the processes that nothing is left of. */
void processes_sweep(void);

uint32_t exit_code(int wait_status);
uint32_t exit_signal(int wait_status);

/* supervisor.c: what the process has come to. */
void supervisor_executed(struct process *process);
void supervisor_failed(struct process *process);
void supervisor_ended(struct process *process);

#endif

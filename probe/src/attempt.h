/* Trying something in a process of its own, which is given little time. */
#ifndef ATTEMPT_H
#define ATTEMPT_H

#include "sys.h"

/* What came of it, as the report has it. */
enum {
	DONE = 0, /* 1 to 999: an errno */
	BY_SIGNAL = 1000, /* and the signal's number */
	BLOCKED = 2000,	  /* it waited, and was ended */
	NOT_TRIED = 3000,
};

/* `what` returns as a system call does; what it leaves open or changes of its process goes with it. */
int attempt(long (*what)(const void *), const void *argument);
/* fork(2) for `what` itself: 0 in the child. */
long new_process(void);

#endif

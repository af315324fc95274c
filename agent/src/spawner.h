/* Forks supervisors on request: a fork of this small program costs far less than an exec of it. */
#ifndef SPAWNER_H
#define SPAWNER_H

/* Serves until the other end of `control` (SOCK_SEQPACKET) closes. A request is a byte with two or three descriptors:
   the bundle, the listening socket, and a network namespace, which the supervisor has as 3, 4 and 5. The answer is the
   supervisor's pid, 4 bytes; negative: it could not be forked. */
_Noreturn void spawner(int control);

#endif

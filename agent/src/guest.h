/* The agent as PID 1 of a guest. */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>

/* Whether this is one: the operations on the machine itself are for a guest alone. */
extern bool in_guest;

/* Mounts, modules, the port to the host, then the supervisor; at the end the machine is off.
   In a unikernel's initramfs one program takes the supervisor's place; `words` are arguments for it. */
_Noreturn void init(char *const words[]);
/* The port that the host has given this name, with O_CLOEXEC; -1: not there in time. */
int port_open(const char *name, int flags);
/* Everything is written back, and the machine is off. -1: errno. */
int power_off(void);

#endif

/* The agent as PID 1 of a guest. */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>

/* Whether this is one: the operations on the machine itself are for a guest alone. */
extern bool in_guest;

/* Mounts, modules, the port to the host, then the supervisor; at the end the machine is off. */
_Noreturn void init(void);
/* Everything is written back, and the machine is off. -1: errno. */
int power_off(void);

#endif

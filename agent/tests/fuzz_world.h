/* The world as the fuzzed part of the agent sees it: processes that never were, and a host that nothing touches. */
#ifndef FUZZ_WORLD_H
#define FUZZ_WORLD_H

#include <stdbool.h>

/* How the processes that are spawned next behave: bits decide about failure, terminal, output. */
void world_behaviour(unsigned bits);
/* The oldest process that is still there ends. */
void world_end_one(void);
void world_reset(void);
/* The guest's end of the link; -1: nobody has connected. */
int world_guest(void);
/* A directory of its own, for files and bundles. */
int world_directory(void);

#endif

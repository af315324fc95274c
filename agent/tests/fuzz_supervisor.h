/* One supervisor for each input: as it was before it, afterwards. */
#ifndef FUZZ_SUPERVISOR_H
#define FUZZ_SUPERVISOR_H

#include <stdbool.h>

void supervisor_fuzz_begin(void);
/* So many things that are ready are done. */
void supervisor_fuzz_steps(int count);
void supervisor_fuzz_end(void);
/* The other end of a new connection, or of a port. */
int supervisor_fuzz_connect(bool port);
/* Reads what was sent to it. */
void supervisor_fuzz_swallow(int peer);

#endif

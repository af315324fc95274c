#ifndef REFERENCE_H
#define REFERENCE_H

#include "sys.h"

/* Makes of this process a root of a user namespace and of all others, with these capabilities and nothing of a filter.
   In it whatever the kernel refuses, it refuses for itself. 0 in a new process, which is the one; its parent waits and
   ends as it does. -1 where it cannot be made. */
int reference_enter(uint64_t capabilities);

#endif

#ifndef CALLS_H
#define CALLS_H

#include "sys.h"

/* Every number of x86_64 and of i386, with arguments that do no harm even where the caller may do everything. */
void calls_try(void);
/* Whether this kernel carries out calls of i386. */
bool calls_compat(void);

#endif

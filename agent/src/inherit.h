/* Descriptors that were handed to the supervisor: bits of those below 256. INHERIT lets a workload keep some. */
#ifndef INHERIT_H
#define INHERIT_H

#include <stdbool.h>

#include "oplist.h"

/* Below are stdio and what the way to the exec needs. */
enum { INHERIT_FIRST = 5, INHERIT_END = 256, INHERIT_WORDS = INHERIT_END / 32 };

static inline bool inherit_has(const uint32_t bits[static INHERIT_WORDS], unsigned fd)
{
	return bits[fd / 32] >> (fd % 32) & 1;
}

static inline void inherit_add(uint32_t bits[static INHERIT_WORDS], unsigned fd)
{
	bits[fd / 32] |= 1u << (fd % 32);
}

/* Gathers what the list's INHERIT operations name. 0, or -1 with `error` when a number is out of range. */
int inherit_named(const struct oplist *list, uint32_t bits[static INHERIT_WORDS], struct oplist_error *error);
/* Closes every descriptor from `from` on but those of `keep`. */
void inherit_close_others(unsigned from, const uint32_t keep[static INHERIT_WORDS]);

#endif

#define _GNU_SOURCE
#include "inherit.h"

#include <unistd.h>

int inherit_named(const struct oplist *list, uint32_t bits[static INHERIT_WORDS], struct oplist_error *error)
{
	for (uint32_t i = 0; i < list->count; i++) {
		if (list->operations[i].code != OP_INHERIT)
			continue;
		uint64_t number = operation_integer(&list->operations[i], 0);
		if (number < INHERIT_FIRST || number >= INHERIT_END) {
			*error = (struct oplist_error){i, OP_INHERIT, "a descriptor below 5 or above 255 cannot be kept"};
			return -1;
		}
		inherit_add(bits, (unsigned)number);
	}
	return 0;
}

void inherit_close_others(unsigned from, const uint32_t keep[static INHERIT_WORDS])
{
	for (unsigned fd = from; fd < INHERIT_END; fd++) {
		if (!inherit_has(keep, fd))
			continue;
		if (fd > from)
			close_range(from, fd - 1, 0);
		from = fd + 1;
	}
	close_range(from, ~0u, 0);
}

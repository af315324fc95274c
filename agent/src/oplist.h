/* Operation lists: parsed and checked against what each operation takes and where it may be. */
#ifndef OPLIST_H
#define OPLIST_H

#include <stdint.h>

#include "protocol.h"
#include "reader.h"

struct argument {
	char *data; /* followed by a NUL */
	size_t length;
};

struct operation {
	uint16_t code;
	uint8_t flags, count;
	struct argument *arguments;
};

struct oplist {
	uint32_t count;
	struct operation *operations;
	struct argument *arguments;
};

/* Who carries a list out. */
enum place {
	PLACE_SUPERVISOR = 1,
	PLACE_STAGE = 2,
	PLACE_INSIDE = 4, /* the workload's process */
	PLACE_JOINED = 8, /* an exec's process */
};

/* What is wrong with a list, for ERROR. */
struct oplist_error {
	uint32_t index;
	uint16_t code;
	const char *text;
};

/* Takes a list from the reader. 0, or -1 with `error`; the arguments stay in the reader's bytes. */
int oplist_parse(struct reader *reader, enum place place, struct oplist *list, struct oplist_error *error);
void oplist_free(struct oplist *list);

/* An integer argument. */
uint64_t operation_integer(const struct operation *operation, unsigned index);

#endif

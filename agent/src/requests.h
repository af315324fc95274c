/* The payloads of START and EXEC. */
#ifndef REQUESTS_H
#define REQUESTS_H

#include "inherit.h"
#include "oplist.h"

struct joins {
	uint32_t count;
	char *paths[JOIN_MAX];
};

struct start_request {
	uint32_t flags, clone_flags, unshare_flags;
	uint32_t id_base, id_count;
	uint16_t rows, columns;
	uint32_t log_size, log_files;
	char *netns, *kill;
	struct joins joins;
	struct oplist prepare, stage, inside;
	uint32_t inherit[INHERIT_WORDS]; /* what `inside` names */
	const unsigned char *finish; /* the finish list as it came: it outlives the request, so it is copied, then parsed */
	size_t finish_length;
};

struct exec_request {
	uint32_t flags, setns_flags;
	uint16_t rows, columns;
	struct joins joins;
	struct oplist inside;
};

/* 0, or -1 with `error`. What was parsed points into `payload`. */
int start_parse(unsigned char *payload, size_t length, struct start_request *request, struct oplist_error *error);
void start_free(struct start_request *request);
int exec_parse(unsigned char *payload, size_t length, struct exec_request *request, struct oplist_error *error);
void exec_free(struct exec_request *request);

#endif

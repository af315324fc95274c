/* What the parts of the file session share. */
#ifndef FILES_SESSION_H
#define FILES_SESSION_H

#include "buffer.h"
#include "reader.h"

enum { FILES_REQUEST_MAX = 64 << 10, FILES_BODY_MAX = 48 << 10 };

/* A request that is read, and the answer that is made. */
struct session {
	int root;
	struct reader request;
	struct buffer answer;
};

/* Arguments; what is wrong with them is found by files_complete. */
const char *files_take_path(struct session *session);
uint64_t files_take_integer(struct session *session);
/* Whether the request has been just what its code takes. */
bool files_complete(const struct session *session);
/* Opens a regular file and nothing else. -1: errno. */
int files_open_regular(int root, const char *path, int flags);

/* Requests: 0 or an errno, and a body in the answer. files_look.c: */
int files_stat(struct session *session);
int files_list(struct session *session);
int files_read(struct session *session);
int files_data(struct session *session);
/* files_change.c: */
int files_create(struct session *session);
int files_write(struct session *session);
int files_mkdir(struct session *session);
int files_symlink(struct session *session);
int files_times(struct session *session);
int files_link(struct session *session);
int files_remove(struct session *session);
int files_pipe(struct session *session);
int files_truncate(struct session *session);
/* files_attributes.c: */
int files_owner(struct session *session);
int files_list_attributes(struct session *session);
int files_set_attribute(struct session *session);

#endif

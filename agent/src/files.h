/* The file session: requests on one descriptor, answers on another, every path below `root`. */
#ifndef FILES_H
#define FILES_H

#include "buffer.h"

/* Returns at the end of the input or when a request breaks the rules. */
void files_serve(int root, int in, int out);
/* Carries out one request (without its length), which is overwritten, and appends the answer. */
void files_answer(int root, unsigned char *request, size_t length, struct buffer *answer);

#endif

/* The file session: requests on one descriptor, answers on another, every path below `root`. */
#ifndef FILES_H
#define FILES_H

/* Returns at the end of the input or when a request breaks the rules. */
void files_serve(int root, int in, int out);

#endif

/* An agent whose workload is parked: see processes_hold. */
#ifndef PARK_H
#define PARK_H

#include "connection.h"

/* PARK and RESUME, each with its answer. */
void park(struct connection *connection, uint32_t stream);
void park_resume(struct connection *connection, uint32_t stream, unsigned char *payload, size_t length);
/* Whatever comes is served as ever. */
void park_leave(void);
/* Whether the frame is served while the workload is parked; else it has been answered. */
bool park_allows(struct connection *connection, const struct frame *frame);

#endif

/* The event loop: descriptors and whom to call when they are ready. */
#ifndef LOOP_H
#define LOOP_H

#include <stdint.h>

struct source {
	int fd; /* -1: none */
	uint32_t events;
	void (*ready)(struct source *source, uint32_t events);
};

int loop_open(void);
/* Waits for EPOLLIN and the like on the source; 0 takes it out. -1: errno. */
int loop_watch(struct source *source, uint32_t events);
/* Takes the source out and closes its descriptor. */
void loop_close(struct source *source);
/* Waits up to `timeout` ms (-1: for ever) for one event and handles it. */
void loop_step(int timeout);
/* Milliseconds of a clock that never goes back. */
uint64_t loop_now(void);

/* The object of `type` that has the source as its `member`. */
#define SOURCE_OWNER(source, type, member) ((type *)(void *)((char *)(source) - offsetof(type, member)))

#endif

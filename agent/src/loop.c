#define _GNU_SOURCE
#include "loop.h"

#include <stddef.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

static int epoll = -1;

int loop_open(void)
{
	epoll = epoll_create1(EPOLL_CLOEXEC);
	return epoll < 0 ? -1 : 0;
}

int loop_watch(struct source *source, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = source};
	if (source->fd < 0 || events == source->events)
		return 0;
	/* Out, not without events: a hangup would be reported all the time. */
	int change = events == 0 ? EPOLL_CTL_DEL : source->events == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
	source->events = events;
	return epoll_ctl(epoll, change, source->fd, &event);
}

void loop_close(struct source *source)
{
	if (source->fd < 0)
		return;
	/* Taken out first: an open copy in a child would keep it in. */
	loop_watch(source, 0);
	close(source->fd);
	source->fd = -1;
}

void loop_step(int timeout)
{
	/* One at a time, so that no event is left for a source that the one before it has closed. */
	struct epoll_event event;
	if (epoll_wait(epoll, &event, 1, timeout) != 1)
		return;
	struct source *source = event.data.ptr;
	source->ready(source, event.events);
}

uint64_t loop_now(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Asks an HTTP server for a page at a fixed rate, whether it keeps up or not: `ask ADDRESS PORT RATE SECONDS [PATH]`.

   Each request has a connection of its own. Its time runs from the moment at which it was due, so that a server that
   stands still for a second is charged with every request of that second. A line for each: microseconds, or `error` and
   why: no answer within PATIENCE seconds, a connection refused or cut off, an answer other than 200. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 4096, PATIENCE = 5 };

struct request {
	int fd; /* 0: free */
	int sent;
	size_t got;
	double due;
	char head[16];
};

static struct request requests[MOST];
static char question[512];
static struct sockaddr_in server = {.sin_family = AF_INET};
static int epoll;

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void finish(struct request *request, const char *error)
{
	if (error)
		printf("error %s\n", error);
	else
		printf("%.0f\n", (now() - request->due) * 1e6);
	if (request->fd > 0)
		close(request->fd);
	request->fd = 0;
}

static void begin(double due)
{
	struct request *request = requests;
	while (request < requests + MOST && request->fd != 0)
		request++;
	if (request == requests + MOST) {
		puts("error too many are unanswered");
		return;
	}
	*request = (struct request){.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), .due = due};
	if (request->fd < 0 || (connect(request->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)) {
		finish(request, strerror(errno));
		return;
	}
	struct epoll_event event = {.events = EPOLLOUT | EPOLLIN, .data.ptr = request};
	epoll_ctl(epoll, EPOLL_CTL_ADD, request->fd, &event);
}

static void go_on(struct request *request)
{
	static char space[1 << 16];
	if (!request->sent) {
		ssize_t sent = send(request->fd, question, strlen(question), MSG_NOSIGNAL);
		if (sent < 0 && errno == EAGAIN)
			return;
		if (sent < 0) {
			finish(request, strerror(errno));
			return;
		}
		request->sent = 1;
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = request};
		epoll_ctl(epoll, EPOLL_CTL_MOD, request->fd, &event);
	}
	for (;;) {
		ssize_t got = recv(request->fd, space, sizeof space, 0);
		if (got < 0 && errno == EAGAIN)
			return;
		if (got < 0) {
			finish(request, strerror(errno));
			return;
		}
		if (got == 0) {
			int fine = request->got >= 12 && memcmp(request->head + 8, " 200", 4) == 0;
			finish(request, fine ? NULL : request->got == 0 ? "an empty answer" : "an answer other than 200");
			return;
		}
		for (ssize_t i = 0; i < got && request->got + (size_t)i < 12; i++)
			request->head[request->got + (size_t)i] = space[i];
		request->got += (size_t)got;
	}
}

int main(int argc, char **argv)
{
	if (argc < 5 || inet_pton(AF_INET, argv[1], &server.sin_addr) != 1 || atof(argv[3]) <= 0) {
		fprintf(stderr, "ask ADDRESS PORT RATE SECONDS [PATH]\n");
		return 2;
	}
	server.sin_port = htons((uint16_t)atoi(argv[2]));
	double rate = atof(argv[3]), seconds = atof(argv[4]), start = now();
	long all = (long)(rate * seconds), made = 0;
	snprintf(question, sizeof question, "GET %s HTTP/1.0\r\nHost: victim\r\n\r\n", argc > 5 ? argv[5] : "/");
	epoll = epoll_create1(0);
	for (;;) {
		int open = 0;
		double at = now();
		for (; made < all && start + (double)made / rate <= at; made++)
			begin(start + (double)made / rate);
		for (struct request *request = requests; request < requests + MOST; request++) {
			if (request->fd > 0 && at - request->due > PATIENCE)
				finish(request, "no answer");
			open += request->fd > 0;
		}
		if (made == all && open == 0)
			return 0;
		double left = made < all ? start + (double)made / rate - now() : 0.05;
		struct timespec wait = {.tv_nsec = left > 0 ? (long)((left < 0.05 ? left : 0.05) * 1e9) : 0};
		struct epoll_event events[64];
		int ready = epoll_pwait2(epoll, events, 64, &wait, NULL);
		for (int i = 0; i < ready; i++)
			if (((struct request *)events[i].data.ptr)->fd > 0)
				go_on(events[i].data.ptr);
	}
}

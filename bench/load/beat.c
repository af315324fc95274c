/* Writes to a redis every millisecond, whether it answers or not: `beat ADDRESS PORT CONNECTIONS KEYS`.

   The connections take turns, so that each writes once in so many milliseconds. What a server that stands still loses
   is sent again by TCP after 0.2 s at the earliest; a connection that has lost nothing is answered as soon as the
   server runs. So the longest time without any answer is how long it was away, and the longest wait for one is what a
   program with a single connection may see. Says `ready` once all are connected; when its standard input ends, one
   line: writes, answers, longest time without an answer, longest wait (milliseconds), connections that broke. */
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
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1000, VALUE = 1024, TIMER = MOST, INPUT = MOST + 1 };

struct connection {
	int fd; /* -1: broken */
	int got;
	double since; /* of the write that is not answered yet; 0: there is none */
};

static struct connection connections[MOST];
static char value[VALUE + 1];
static long writes, answers, broken;
static double last, gap, wait_for_one;

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void give_up(struct connection *connection)
{
	close(connection->fd);
	connection->fd = -1;
	broken++;
}

static void beat(int count, int keys)
{
	static int next;
	char text[VALUE + 128];
	for (int tried = 0; tried < count; tried++) {
		struct connection *connection = &connections[next++ % count];
		if (connection->fd < 0 || connection->since > 0)
			continue;
		char key[32];
		snprintf(key, sizeof key, "key:%d", rand() % keys);
		int length = snprintf(text, sizeof text, "*3\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$%d\r\n%s\r\n",
				      strlen(key), key, VALUE, value);
		connection->since = now();
		connection->got = 0;
		if (send(connection->fd, text, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT) != length)
			give_up(connection);
		else
			writes++;
		return;
	}
}

static void answered(struct connection *connection)
{
	char text[64];
	ssize_t count = recv(connection->fd, text, sizeof text, MSG_DONTWAIT);
	if (count <= 0 || text[0] == '-') {
		if (count >= 0 || errno != EAGAIN)
			give_up(connection);
		return;
	}
	connection->got += (int)count;
	if (connection->got < 5 || connection->since <= 0) /* +OK\r\n */
		return;
	double time = now();
	if (last > 0 && time - last > gap)
		gap = time - last;
	if (time - connection->since > wait_for_one)
		wait_for_one = time - connection->since;
	last = time;
	connection->since = 0;
	answers++;
}

static int watch(int epoll, int fd, uint32_t number)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};
	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return fprintf(stderr, "usage: beat ADDRESS PORT CONNECTIONS KEYS\n"), 2;
	int count = atoi(argv[3]), keys = atoi(argv[4]), one = 1, epoll = epoll_create1(EPOLL_CLOEXEC);
	struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
	if (count < 1 || count > MOST || keys < 1 || inet_pton(AF_INET, argv[1], &server.sin_addr) != 1)
		return fprintf(stderr, "beat: wrong arguments\n"), 2;
	memset(value, 'x', VALUE);
	for (int i = 0; i < count; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server) < 0)
			fail("beat: connect");
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
		connections[i].fd = fd;
		if (watch(epoll, fd, (uint32_t)i) < 0)
			fail("beat: epoll");
	}
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	struct itimerspec each = {.it_interval.tv_nsec = 1000000, .it_value.tv_nsec = 1000000};
	if (timer < 0 || timerfd_settime(timer, 0, &each, NULL) < 0 || watch(epoll, timer, TIMER) < 0 ||
	    watch(epoll, 0, INPUT) < 0)
		fail("beat: timer");
	puts("ready");
	fflush(stdout);
	for (;;) {
		struct epoll_event events[64];
		int found = epoll_wait(epoll, events, 64, -1);
		for (int i = 0; i < found; i++) {
			uint32_t number = events[i].data.u32;
			if (number == TIMER) {
				uint64_t times;
				if (read(timer, &times, sizeof times) == sizeof times)
					beat(count, keys);
			} else if (number == INPUT) {
				double silent = last > 0 ? now() - last : 0;
				printf("%ld %ld %.3f %.3f %ld\n", writes, answers, silent > gap ? silent : gap,
				       wait_for_one, broken);
				return 0;
			} else if (connections[number].fd >= 0) {
				answered(&connections[number]);
			}
		}
	}
}

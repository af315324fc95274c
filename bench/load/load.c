/* The program in a guest whose disk and network are measured. It takes commands from one TCP connection, a line each,
   and answers "done\n": what lies between is timed outside.

   write|read MIB      a file in order, past the page cache, in blocks of 1 MiB
   rwrite|rread COUNT  blocks of 4 KiB anywhere in the first 64 MiB of it
   send|sink MIB       bytes through the connection, to or from who asks */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PORT = 5201, LARGE = 1 << 20, SMALL = 4096, BLOCKS = 64 * LARGE / SMALL };

static char *buffer;

static void need(int fine, const char *what)
{
	if (!fine) {
		perror(what);
		exit(1);
	}
}

static void in_order(int fd, long count, int writing)
{
	for (long i = 0; i < count; i++) {
		off_t at = (off_t)i * LARGE;
		need((writing ? pwrite(fd, buffer, LARGE, at) : pread(fd, buffer, LARGE, at)) == LARGE, "in order");
	}
}

static void anywhere(int fd, long count, int writing)
{
	uint32_t random = 1;
	for (long i = 0; i < count; i++) {
		random = random * 1664525u + 1013904223u;
		off_t at = (off_t)((random >> 8) % BLOCKS) * SMALL;
		need((writing ? pwrite(fd, buffer, SMALL, at) : pread(fd, buffer, SMALL, at)) == SMALL, "anywhere");
	}
}

static void disk(const char *what, long count)
{
	int small = *what == 'r' && what[1] != 'e', writing = strstr(what, "write") != NULL;
	int fd = open("/data", O_RDWR | O_CREAT | O_DIRECT, 0600);
	need(fd >= 0, "/data");
	(small ? anywhere : in_order)(fd, count, writing);
	need(!writing || fdatasync(fd) == 0, "fdatasync");
	close(fd);
}

static void network(int peer, const char *what, long count)
{
	for (uint64_t left = (uint64_t)count * LARGE; left > 0;) {
		size_t part = left < LARGE ? (size_t)left : LARGE;
		ssize_t moved = strcmp(what, "send") == 0 ? write(peer, buffer, part) : read(peer, buffer, part);
		need(moved > 0, "network");
		left -= (uint64_t)moved;
	}
}

static void serve(int peer)
{
	char line[64], what[16];
	long count;
	size_t length = 0;
	while (read(peer, line + length, 1) == 1) {
		if (line[length] != '\n') {
			length += length < sizeof line - 2;
			continue;
		}
		line[length] = 0;
		length = 0;
		need(sscanf(line, "%15s %ld", what, &count) == 2, "a command");
		if (strcmp(what, "send") == 0 || strcmp(what, "sink") == 0)
			network(peer, what, count);
		else
			disk(what, count);
		need(write(peer, "done\n", 5) == 5, "the answer");
	}
}

int main(void)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(PORT)};
	int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
	buffer = mmap(NULL, LARGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	need(buffer != MAP_FAILED, "memory");
	memset(buffer, 0x5a, LARGE);
	need(listener >= 0 && bind(listener, (struct sockaddr *)&any, sizeof any) == 0 && listen(listener, 1) == 0, "listen");
	for (;;) {
		int peer = accept(listener, NULL, NULL);
		need(peer >= 0, "accept");
		setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
		serve(peer);
		close(peer);
	}
}

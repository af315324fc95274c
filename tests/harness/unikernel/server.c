/* A static program: answers HTTP on port 8080 with what it is; "exit N" ends it, "/" counts. TERM ends it with 7. */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void end(int number)
{
	(void)number;
	_exit(7);
}

int main(int argc, char **argv)
{
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(8080)};
	char body[400], answer[600], request[1024], name[64] = "";
	int on = 1;
	if (argc == 3 && strcmp(argv[1], "exit") == 0) {
		unsigned long random = 0;
		printf("uid %d in %s says %s\n", (int)getuid(), getcwd(body, sizeof body), getenv("WORD"));
		gethostname(name, sizeof name);
		if (getrandom(&random, sizeof random, 0) != sizeof random)
			return 1;
		printf("%s at %ld has random %lx\n", name, (long)time(NULL), random);
		return atoi(argv[2]);
	}
	signal(SIGTERM, end);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(fd, (struct sockaddr *)&here, sizeof here) < 0 || listen(fd, 16) < 0)
		return 1;
	gethostname(name, sizeof name);
	puts("listening");
	fflush(stdout);
	for (;;) {
		int client = accept(fd, NULL, NULL);
		if (client < 0)
			continue;
		if (read(client, request, sizeof request) > 0) {
			snprintf(body, sizeof body, "served by %s, process %d\n", name, (int)getpid());
			snprintf(answer, sizeof answer, "HTTP/1.0 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(body), body);
			if (write(client, answer, strlen(answer)) < 0)
				perror("write");
		}
		close(client);
	}
}

/* A program that does what it is told: "exit N", "echo WORD", "run" until TERM, "stubborn" until KILL. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void end(int number)
{
	(void)number;
	_exit(0);
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "exit") == 0)
		return atoi(argv[2]);
	if (argc == 3 && strcmp(argv[1], "echo") == 0)
		return puts(argv[2]) < 0;
	signal(SIGTERM, argc > 1 && strcmp(argv[1], "stubborn") == 0 ? SIG_IGN : end);
	puts("ready");
	fflush(stdout);
	for (;;)
		pause();
}

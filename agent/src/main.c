#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "background.h"
#include "guard.h"
#include "guest.h"
#include "spawner.h"
#include "supervisor.h"
#include "text.h"

enum { INHERITED_MAX = 256 };

static _Noreturn void stop(int code, const char *text)
{
	if (write(2, text, strlen(text)) < 0)
		_exit(code);
	_exit(code);
}

/* A descriptor from the command line, moved to where it stays. */
static int take_descriptor(const char *text)
{
	uint64_t number;
	if (text_parse(text, strlen(text), 1 << 20, &number) < 0 || number < 3)
		return -1;
	int fd = fcntl((int)number, F_DUPFD_CLOEXEC, 3);
	if (fd >= 0)
		close((int)number);
	return fd;
}

/* What else came along, below 256: a START may name one of them. */
static void note_inherited(int bundle, int listener, uint32_t inherited[static 8])
{
	struct pollfd polled[INHERITED_MAX];
	for (int fd = 0; fd < INHERITED_MAX; fd++)
		polled[fd] = (struct pollfd){.fd = fd};
	if (poll(polled, INHERITED_MAX, 0) < 0)
		return;
	for (int fd = 3; fd < INHERITED_MAX; fd++)
		if (!(polled[fd].revents & POLLNVAL) && fd != bundle && fd != listener)
			inherited[fd / 32] |= 1u << (fd % 32);
}

static _Noreturn void command_supervise(const char *bundle_text, const char *listener_text)
{
	uint32_t inherited[8] = {0};
	char number[24], line[32];
	int bundle = take_descriptor(bundle_text), listener = take_descriptor(listener_text);
	if (bundle < 0 || listener < 0 || bundle >= INHERITED_MAX || listener >= INHERITED_MAX)
		stop(2, "agent: BUNDLE_FD and LISTEN_FD must be open\n");
	if (fcntl(listener, F_SETFL, O_NONBLOCK) < 0)
		stop(2, "agent: LISTEN_FD cannot be set up\n");
	close_range(INHERITED_MAX, ~0u, 0);
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	note_inherited(bundle, listener, inherited);
	if (background_shield() < 0)
		stop(1, "agent: cannot set up the process\n");
	pid_t pid = fork();
	if (pid < 0)
		stop(1, "agent: cannot fork\n");
	if (pid == 0) {
		if (background_null_stdio() < 0 || background_detach() < 0)
			_exit(1);
		supervise(bundle, listener, inherited);
		_exit(0);
	}
	size_t length = TEXT(line, text_number(number, (uint64_t)pid), "\n");
	_exit(write(1, line, length) == (ssize_t)length ? 0 : 1);
}

/* Beside PID 1 of a guest: the supervisor of an instance in it, reached by a port of its own. */
static _Noreturn void command_serve(const char *port_name)
{
	static const uint32_t nothing[8];
	in_guest = true;
	supervisor.tied = true;
	close_range(3, ~0u, 0);
	if (background_shield() < 0 || background_null_stdio() < 0)
		stop(1, "agent: cannot set up the process\n");
	background_detach();
	background_protect();
	int port = port_open(port_name, O_RDWR | O_NONBLOCK);
	if (port < 0)
		_exit(1);
	supervise(-1, port, nothing);
	_exit(0);
}

/* LISTEN_FD DEADLINE SILENCE DIRECTORY TREE...: the parent ends as soon as it stands on its own feet. */
static _Noreturn void command_guard(char **words)
{
	struct guard_options options = {.listener = take_descriptor(words[0]), .trees = words + 4};
	if (options.listener < 0 || text_parse(words[1], strlen(words[1]), UINT64_MAX, &options.deadline) < 0 ||
		text_parse(words[2], strlen(words[2]), UINT64_MAX, &options.silence) < 0)
		stop(2, "agent: LISTEN_FD, DEADLINE and SILENCE must be numbers\n");
	int directory = open(words[3], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	options.armed = openat(directory, "armed", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	options.fenced = openat(directory, "fenced", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory < 0 || options.armed < 0 || options.fenced < 0)
		stop(2, "agent: DIRECTORY has no armed and fenced\n");
	close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);
	if (background_shield() < 0)
		stop(1, "agent: cannot set up the process\n");
	pid_t pid = fork();
	if (pid < 0)
		stop(1, "agent: cannot fork\n");
	if (pid != 0)
		_exit(0);
	if (background_null_stdio() < 0 || background_detach() < 0)
		_exit(1);
	background_protect();
	guard(&options);
	_exit(0);
}

int main(int argc, char **argv)
{
	bool named = argc == 2 && strcmp(argv[1], "init") == 0;
	if (getpid() == 1 && (named || strcmp(argv[0], "/init") == 0))
		init(argv + (named ? 2 : 1));
	if (argc == 2 && strcmp(argv[1], "version") == 0)
		_exit(write(1, "1\n", 2) == 2 ? 0 : 1);
	if (argc == 4 && strcmp(argv[1], "supervise") == 0)
		command_supervise(argv[2], argv[3]);
	if (argc == 3 && strcmp(argv[1], "spawn") == 0)
		spawner(take_descriptor(argv[2]));
	if (argc == 3 && strcmp(argv[1], "serve") == 0)
		command_serve(argv[2]);
	if (argc >= 7 && strcmp(argv[1], "guard") == 0)
		command_guard(argv + 2);
	stop(2, "usage: agent spawn CONTROL_FD | agent supervise BUNDLE_FD LISTEN_FD | agent init | agent serve PORT | "
		"agent guard LISTEN_FD DEADLINE SILENCE DIRECTORY TREE... | agent version\n");
}

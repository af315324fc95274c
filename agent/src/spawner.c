#define _GNU_SOURCE
#include "spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "background.h"
#include "supervisor.h"

enum { BUNDLE = 3, LISTENER = 4, HANDED_MAX = 5 };

struct handed {
	int fds[HANDED_MAX];
	size_t count;
};

static void take_back(struct handed *handed)
{
	for (size_t i = 0; i < handed->count; i++)
		close(handed->fds[i]);
	handed->count = 0;
}

/* As recvmsg. More descriptors than there is room for are closed by the kernel, and the request is none. */
static ssize_t receive(int control, struct handed *handed)
{
	unsigned char byte;
	union {
		char bytes[CMSG_SPACE(HANDED_MAX * sizeof(int))];
		struct cmsghdr alignment;
	} space;
	struct iovec part = {.iov_base = &byte, .iov_len = 1};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space.bytes,
				 /* Not the whole space, whose padding holds one descriptor more. */
				 .msg_controllen = CMSG_LEN(HANDED_MAX * sizeof(int))};
	ssize_t got;
	do
		got = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	handed->count = 0;
	struct cmsghdr *header = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
	if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
		handed->count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(handed->fds, CMSG_DATA(header), handed->count * sizeof(int));
	}
	if (message.msg_flags & MSG_CTRUNC)
		take_back(handed);
	return got;
}

static _Noreturn void become_supervisor(const struct handed *handed)
{
	uint32_t inherited[8] = {0};
	int moved[HANDED_MAX];
	signal(SIGCHLD, SIG_DFL);
	for (size_t i = 0; i < handed->count; i++)
		moved[i] = fcntl(handed->fds[i], F_DUPFD_CLOEXEC, BUNDLE + HANDED_MAX);
	for (size_t i = 0; i < handed->count; i++)
		if (moved[i] < 0 || dup3(moved[i], BUNDLE + (int)i, O_CLOEXEC) < 0)
			_exit(1);
	close_range(BUNDLE + (unsigned)handed->count, ~0u, 0);
	if (fcntl(LISTENER, F_SETFL, O_NONBLOCK) < 0 || background_detach() < 0)
		_exit(1);
	for (unsigned i = LISTENER + 1; i < BUNDLE + handed->count; i++)
		inherit_add(inherited, i);
	supervise(BUNDLE, LISTENER, inherited);
	_exit(0);
}

_Noreturn void spawner(int control)
{
	if (control < 0 || background_shield() < 0)
		_exit(2);
	if (control != BUNDLE && dup3(control, BUNDLE, O_CLOEXEC) < 0)
		_exit(2);
	control = BUNDLE;
	close_range(BUNDLE + 1, ~0u, 0);
	if (background_null_stdio() < 0)
		_exit(2);
	signal(SIGCHLD, SIG_IGN); /* supervisors are reaped by the kernel */
	for (;;) {
		struct handed handed;
		ssize_t got = receive(control, &handed);
		if (got <= 0)
			_exit(got < 0);
		pid_t pid = handed.count >= 2 ? fork() : -1;
		if (pid == 0)
			become_supervisor(&handed);
		take_back(&handed);
		int32_t answer = pid;
		if (write(control, &answer, sizeof answer) != sizeof answer)
			_exit(1);
	}
}

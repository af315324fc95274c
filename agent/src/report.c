#define _GNU_SOURCE
#include "report.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int send_descriptor(int socket, const void *data, size_t length, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = length};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof control;
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof fd);
		memcpy(CMSG_DATA(header), &fd, sizeof fd);
	}
	return sendmsg(socket, &message, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

ssize_t receive_descriptor(int socket, void *data, size_t length, int *fd, pid_t *sender, int flags)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
	} control = {0};
	struct iovec part = {.iov_base = data, .iov_len = length};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct ucred credentials;
	*fd = -1;
	ssize_t got = recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
	struct cmsghdr *header = got < 0 ? NULL : CMSG_FIRSTHDR(&message);
	for (; header != NULL; header = CMSG_NXTHDR(&message, header)) {
		if (header->cmsg_level != SOL_SOCKET)
			continue;
		if (header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof *fd))
			memcpy(fd, CMSG_DATA(header), sizeof *fd);
		if (header->cmsg_type == SCM_CREDENTIALS && sender != NULL) {
			memcpy(&credentials, CMSG_DATA(header), sizeof credentials);
			*sender = credentials.pid;
		}
	}
	return got;
}

int report_ask_for_senders(int status)
{
	int on = 1;
	return setsockopt(status, SOL_SOCKET, SO_PASSCRED, &on, sizeof on);
}

/* write(2), since a seccomp program may be loaded by then. Nobody is left to tell when it fails. */
static void send_report(int status, const struct report *report)
{
	if (write(status, report, sizeof *report) < 0)
		return;
}

void report_pid(int status, pid_t pid)
{
	send_report(status, &(struct report){.kind = REPORT_PID, .pid = pid});
}

void report_console(int status, int master)
{
	struct report report = {.kind = REPORT_CONSOLE};
	send_descriptor(status, &report, sizeof report, master);
}

void report_ready(int status)
{
	send_report(status, &(struct report){.kind = REPORT_READY});
}

void report_held(int status)
{
	send_report(status, &(struct report){.kind = REPORT_HELD});
}

void report_failure(int status, const struct failure *failure)
{
	send_report(status, &(struct report){.kind = REPORT_FAILED, .failure = *failure});
}

int report_take(int status, struct report *report, int *fd)
{
	pid_t sender = 0;
	ssize_t got = receive_descriptor(status, report, sizeof *report, fd, &sender, MSG_DONTWAIT);
	if (got == (ssize_t)sizeof *report) {
		if (report->kind == REPORT_PID && report->pid == 0)
			report->pid = sender;
		return 1;
	}
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	return got < 0 && errno == EAGAIN ? -1 : 0;
}

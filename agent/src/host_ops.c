/* Operations on paths of the host that the engine made: directories and files of cgroups, mostly. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "context.h"
#include "killall.h"

int op_mkdir(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data;
	if (mkdir(path, (mode_t)(operation_integer(operation, 1) & 07777)) < 0 && errno != EEXIST)
		return failed(context, errno, "cannot make the directory", path);
	return 0;
}

int op_rmdir(struct context *context, const struct operation *operation)
{
	/* A cgroup stays busy for a moment after its last process. */
	enum { PAUSE_US = 200, TRIES = 2000000 / PAUSE_US };
	const char *path = operation->arguments[0].data;
	for (int i = 0; rmdir(path) < 0 && errno != ENOENT; i++) {
		if (errno != EBUSY || i == TRIES)
			return failed(context, errno, "cannot remove the directory", path);
		nanosleep(&(struct timespec){.tv_nsec = PAUSE_US * 1000}, NULL);
	}
	return 0;
}

int op_write(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data;
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return failed(context, errno, "cannot open", path);
	ssize_t written = write(fd, operation->arguments[1].data, operation->arguments[1].length);
	int error = written < 0 ? errno : (size_t)written < operation->arguments[1].length ? EIO : 0;
	close(fd);
	return error ? failed(context, error, "cannot write to", path) : 0;
}

int op_read(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return failed(context, errno, "cannot open", path);
	struct buffer *reports = &context->reports;
	unsigned char *room = buffer_reserve(reports, 4 + REPORT_MAX);
	size_t length = 0;
	int error = room == NULL ? ENOMEM : 0;
	if (operation->flags & OPERATION_REPORT && reports->length > FRAME_MAX - 4 - REPORT_MAX)
		error = EMSGSIZE;
	while (!error && length < REPORT_MAX) {
		ssize_t count = read(fd, room + 4 + length, REPORT_MAX - length);
		if (count <= 0) {
			error = count < 0 ? errno : 0;
			break;
		}
		length += (size_t)count;
	}
	close(fd);
	if (error)
		return failed(context, error, "cannot read", path);
	if (operation->flags & OPERATION_REPORT) {
		write_integer(room, length, 4);
		buffer_commit(reports, 4 + length);
	}
	return 0;
}

int op_unlink(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data;
	if (unlink(path) < 0 && errno != ENOENT)
		return failed(context, errno, "cannot remove", path);
	return 0;
}

int op_chown(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data;
	uint64_t uid = operation_integer(operation, 1), gid = operation_integer(operation, 2);
	if (uid >= UINT32_MAX || gid >= UINT32_MAX)
		return failed(context, EINVAL, "an owner is out of range", path);
	if (lchown(path, (uid_t)uid, (gid_t)gid) < 0)
		return failed(context, errno, "cannot give away", path);
	return 0;
}

int op_killall(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data;
	if (killall(path) < 0)
		return failed(context, errno, "cannot end every process of", path);
	return 0;
}

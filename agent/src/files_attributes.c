/* Requests of the file session about what is known of files besides their contents. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "files_session.h"
#include "inroot.h"

/* Opens a regular file or a directory for its attributes; anything else is not even opened. -1: errno. */
static int open_either(struct session *session, const char *path)
{
	struct stat is;
	int fd = inroot_open(session->root, path, O_PATH | O_NOFOLLOW, 0);
	if (fd < 0)
		return -1;
	int error = fstat(fd, &is) < 0 ? errno : S_ISREG(is.st_mode) || S_ISDIR(is.st_mode) ? 0 : EINVAL;
	close(fd);
	if (!error)
		return inroot_open(session->root, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0);
	errno = error;
	return -1;
}

int files_owner(struct session *session)
{
	const char *path = files_take_path(session);
	uint64_t mode = files_take_integer(session), uid = files_take_integer(session), gid = files_take_integer(session);
	if (!files_complete(session))
		return EPROTO;
	if (uid >= UINT32_MAX || gid >= UINT32_MAX)
		return EINVAL;
	int fd = open_either(session, path);
	if (fd < 0)
		return errno;
	/* Owner first: a change of owner takes set-id bits off. */
	int error = fchown(fd, (uid_t)uid, (gid_t)gid) < 0 || fchmod(fd, (mode_t)(mode & 07777)) < 0 ? errno : 0;
	close(fd);
	return error;
}

static int put_pair(struct buffer *to, const char *name, const char *value, size_t length)
{
	size_t name_length = strlen(name);
	unsigned char *room = buffer_reserve(to, 8 + name_length + length);
	if (room == NULL)
		return ENOMEM;
	write_integer(room, name_length, 4);
	memcpy(room + 4, name, name_length);
	write_integer(room + 4 + name_length, length, 4);
	memcpy(room + 8 + name_length, value, length);
	buffer_commit(to, 8 + name_length + length);
	return 0;
}

int files_list_attributes(struct session *session)
{
	static char names[XATTR_LIST_MAX], value[XATTR_SIZE_MAX];
	const char *path = files_take_path(session);
	if (!files_complete(session))
		return EPROTO;
	int fd = open_either(session, path);
	if (fd < 0)
		return errno;
	size_t begin = session->answer.length;
	ssize_t length = flistxattr(fd, names, sizeof names);
	int error = length < 0 && errno != ENOTSUP ? errno : 0;
	for (ssize_t at = 0; !error && at < length; at += (ssize_t)strlen(names + at) + 1) {
		ssize_t got = fgetxattr(fd, names + at, value, sizeof value);
		size_t used = session->answer.length - begin + strlen(names + at) + 8;
		if (got < 0)
			error = errno == ENODATA ? 0 : errno; /* it has gone in the meantime */
		else if (used + (size_t)got > FILES_BODY_MAX)
			error = E2BIG;
		else
			error = put_pair(&session->answer, names + at, value, (size_t)got);
	}
	close(fd);
	return error;
}

int files_set_attribute(struct session *session)
{
	const char *path = files_take_path(session);
	const char *name = read_text(&session->request, XATTR_NAME_MAX);
	size_t length;
	const char *value = read_block(&session->request, FILES_BODY_MAX, &length);
	if (!files_complete(session))
		return EPROTO;
	int fd = open_either(session, path);
	if (fd < 0)
		return errno;
	int error = fsetxattr(fd, name, value, length, 0) < 0 ? errno : 0;
	close(fd);
	return error;
}

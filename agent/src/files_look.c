/* Requests of the file session that change nothing. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "files_session.h"
#include "inroot.h"

enum { NAMES_SIZE = 16 << 10, STAT_SIZE = 56 };

static uint64_t nanoseconds(const struct timespec *time)
{
	uint64_t seconds = time->tv_sec > 0 ? (uint64_t)time->tv_sec : 0;
	return seconds * 1000000000 + (uint64_t)time->tv_nsec;
}

static int put_stat(struct buffer *to, const struct stat *is, const char *text, size_t length)
{
	unsigned char *room = buffer_reserve(to, STAT_SIZE + length);
	if (room == NULL)
		return ENOMEM;
	write_integer(room, is->st_mode, 4);
	write_integer(room + 4, is->st_uid, 4);
	write_integer(room + 8, is->st_gid, 4);
	write_integer(room + 12, is->st_nlink, 4);
	write_integer(room + 16, (uint64_t)is->st_size, 8);
	write_integer(room + 24, nanoseconds(&is->st_mtim), 8);
	write_integer(room + 32, nanoseconds(&is->st_ctim), 8);
	write_integer(room + 40, is->st_ino, 8);
	write_integer(room + 48, is->st_rdev, 4);
	write_integer(room + 52, length, 4);
	memcpy(room + STAT_SIZE, text, length);
	buffer_commit(to, STAT_SIZE + length);
	return 0;
}

int files_stat(struct session *session)
{
	const char *path = files_take_path(session);
	bool follow = files_take_integer(session) != 0;
	char target[PATH_MAX];
	struct stat is;
	if (!files_complete(session))
		return EPROTO;
	int fd = inroot_open(session->root, path, O_PATH | (follow ? 0 : O_NOFOLLOW), 0);
	if (fd < 0)
		return errno;
	ssize_t length = 0;
	int error = fstat(fd, &is) < 0 ? errno : 0;
	if (!error && S_ISLNK(is.st_mode) && (length = readlinkat(fd, "", target, sizeof target)) < 0)
		error = errno;
	close(fd);
	return error ? error : put_stat(&session->answer, &is, target, (size_t)length);
}

struct entry { /* of getdents64(2) */
	uint64_t inode, next;
	unsigned short size;
	unsigned char type;
	char name[];
};

/* Adds entries from `offset` on, as many as fit. The offset after them, 0 at the end, in `next`. */
static int list_entries(struct session *session, int fd, uint64_t *next)
{
	_Alignas(struct entry) static char names[NAMES_SIZE];
	size_t begin = session->answer.length;
	for (;;) {
		long got = syscall(SYS_getdents64, fd, names, sizeof names);
		if (got <= 0) {
			*next = 0;
			return got < 0 ? errno : 0;
		}
		for (long at = 0; at < got;) {
			const struct entry *entry = (const struct entry *)(const void *)(names + at);
			size_t length = strlen(entry->name);
			struct stat is;
			if (session->answer.length - begin + STAT_SIZE + length > FILES_BODY_MAX)
				return 0;
			at += entry->size;
			*next = entry->next;
			if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
				continue;
			if (fstatat(fd, entry->name, &is, AT_SYMLINK_NOFOLLOW) < 0)
				continue; /* it has gone in the meantime */
			int error = put_stat(&session->answer, &is, entry->name, length);
			if (error)
				return error;
		}
	}
}

int files_list(struct session *session)
{
	const char *path = files_take_path(session);
	uint64_t next = files_take_integer(session);
	if (!files_complete(session))
		return EPROTO;
	int fd = inroot_open(session->root, path, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return errno;
	size_t at = session->answer.length;
	int error = next != 0 && lseek(fd, (off_t)next, SEEK_SET) < 0 ? errno : 0;
	if (!error && buffer_append(&session->answer, "\0\0\0\0\0\0\0\0", 8) < 0)
		error = ENOMEM;
	if (!error)
		error = list_entries(session, fd, &next);
	close(fd);
	if (!error)
		write_integer(buffer_contents(&session->answer) + at, next, 8);
	return error;
}

/* A device or a pipe is not even opened where that can be seen before. */
int files_open_regular(int root, const char *path, int flags)
{
	struct stat is;
	int fd = inroot_open(root, path, O_PATH | (flags & O_NOFOLLOW), 0);
	for (int i = 0; i < 2 && fd >= 0; i++) {
		int error = fstat(fd, &is) < 0 ? errno : S_ISREG(is.st_mode) ? 0 : S_ISDIR(is.st_mode) ? EISDIR : EINVAL;
		if (!error && i == 1)
			break;
		close(fd);
		errno = error;
		fd = error ? -1 : inroot_open(root, path, flags | O_NONBLOCK | O_NOCTTY, 0);
	}
	return fd;
}

int files_read(struct session *session)
{
	const char *path = files_take_path(session);
	uint64_t offset = files_take_integer(session), count = files_take_integer(session);
	if (!files_complete(session) || count > FILES_BODY_MAX || offset > INT64_MAX)
		return EPROTO;
	int fd = files_open_regular(session->root, path, O_RDONLY);
	if (fd < 0)
		return errno;
	unsigned char *room = buffer_reserve(&session->answer, count + 1);
	int error = room == NULL ? ENOMEM : 0;
	for (size_t done = 0; !error && done < count;) {
		ssize_t got = pread(fd, room + done, count - done, (off_t)(offset + done));
		if (got <= 0) {
			error = got < 0 ? errno : 0;
			break;
		}
		done += (size_t)got;
		buffer_commit(&session->answer, (size_t)got);
	}
	close(fd);
	return error;
}

int files_data(struct session *session)
{
	const char *path = files_take_path(session);
	uint64_t offset = files_take_integer(session);
	struct stat is;
	if (!files_complete(session) || offset > INT64_MAX)
		return EPROTO;
	int fd = files_open_regular(session->root, path, O_RDONLY | O_NOFOLLOW);
	if (fd < 0)
		return errno;
	unsigned char *room = buffer_reserve(&session->answer, 16);
	int error = room == NULL ? ENOMEM : fstat(fd, &is) < 0 ? errno : 0;
	if (!error) {
		off_t begin = lseek(fd, (off_t)offset, SEEK_DATA), end = begin < 0 ? -1 : lseek(fd, begin, SEEK_HOLE);
		if (begin < 0 && errno != ENXIO)
			error = errno;
		write_integer(room, (uint64_t)(begin < 0 ? is.st_size : begin), 8);
		write_integer(room + 8, (uint64_t)(end < 0 ? is.st_size : end), 8);
		if (!error)
			buffer_commit(&session->answer, 16);
	}
	close(fd);
	return error;
}

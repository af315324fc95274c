/* The file session. It runs as root of the instance, in its mounts, and touches nothing but through `root`. */
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "buffer.h"
#include "inroot.h"
#include "reader.h"

enum { REQUEST_MAX = 64 << 10, BODY_MAX = 48 << 10, NAMES_SIZE = 16 << 10, STAT_SIZE = 48 };

struct session {
	int root;
	struct reader request;
	struct buffer answer;
};

static const char *take_path(struct session *session)
{
	const char *path = read_text(&session->request, PATH_MAX - 1);
	return path != NULL ? path : "";
}

static uint64_t take_integer(struct session *session)
{
	if (read_u32(&session->request) != 8)
		session->request.bad = true;
	return read_u64(&session->request);
}

/* Whether the request has been just what its code takes. */
static bool complete(const struct session *session)
{
	return !session->request.bad && session->request.at == session->request.end;
}

static int put_stat(struct buffer *to, const struct stat *is, const char *text, size_t length)
{
	unsigned char *room = buffer_reserve(to, STAT_SIZE + length);
	int64_t seconds = is->st_mtim.tv_sec > 0 ? is->st_mtim.tv_sec : 0;
	if (room == NULL)
		return ENOMEM;
	write_integer(room, is->st_mode, 4);
	write_integer(room + 4, is->st_uid, 4);
	write_integer(room + 8, is->st_gid, 4);
	write_integer(room + 12, is->st_nlink, 4);
	write_integer(room + 16, (uint64_t)is->st_size, 8);
	write_integer(room + 24, (uint64_t)seconds * 1000000000 + (uint64_t)is->st_mtim.tv_nsec, 8);
	write_integer(room + 32, is->st_ino, 8);
	write_integer(room + 40, is->st_rdev, 4);
	write_integer(room + 44, length, 4);
	memcpy(room + STAT_SIZE, text, length);
	buffer_commit(to, STAT_SIZE + length);
	return 0;
}

static int serve_stat(struct session *session)
{
	const char *path = take_path(session);
	bool follow = take_integer(session) != 0;
	char target[PATH_MAX];
	struct stat is;
	if (!complete(session))
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
			if (session->answer.length - begin + STAT_SIZE + length > BODY_MAX)
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

static int serve_list(struct session *session)
{
	const char *path = take_path(session);
	uint64_t next = take_integer(session);
	if (!complete(session))
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

/* Opens a regular file and nothing else: a device or a pipe is not even opened where that can be seen before. */
static int open_regular(int root, const char *path, int flags)
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

static int serve_read(struct session *session)
{
	const char *path = take_path(session);
	uint64_t offset = take_integer(session), count = take_integer(session);
	if (!complete(session) || count > BODY_MAX || offset > INT64_MAX)
		return EPROTO;
	int fd = open_regular(session->root, path, O_RDONLY);
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

/* Where a new name goes: its directory must be there, and what has the name, unless a directory, is removed. */
static int make_place(struct session *session, const char *path, const char **name)
{
	int parent = inroot_parent(session->root, path, name, false);
	if (parent >= 0 && unlinkat(parent, *name, 0) < 0 && errno != ENOENT) {
		int error = errno;
		close(parent);
		errno = error;
		return -1;
	}
	return parent;
}

/* Owner first: a change of owner takes set-id bits off. */
static int set_owner_and_mode(int fd, uint64_t uid, uint64_t gid, uint64_t mode)
{
	if (uid >= UINT32_MAX || gid >= UINT32_MAX)
		return EINVAL;
	return fchown(fd, (uid_t)uid, (gid_t)gid) < 0 || fchmod(fd, (mode_t)(mode & 07777)) < 0 ? errno : 0;
}

static int serve_create(struct session *session)
{
	const char *path = take_path(session), *name;
	uint64_t mode = take_integer(session), uid = take_integer(session), gid = take_integer(session);
	if (!complete(session))
		return EPROTO;
	int parent = make_place(session, path, &name);
	if (parent < 0)
		return errno;
	int fd = openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0600);
	int error = fd < 0 ? errno : set_owner_and_mode(fd, uid, gid, mode);
	if (fd >= 0)
		close(fd);
	close(parent);
	return error;
}

static int serve_write(struct session *session)
{
	const char *path = take_path(session);
	uint64_t offset = take_integer(session);
	size_t length;
	const char *bytes = read_block(&session->request, BODY_MAX, &length);
	if (!complete(session) || offset > INT64_MAX - BODY_MAX)
		return EPROTO;
	struct stat is;
	int fd = open_regular(session->root, path, O_WRONLY | O_NOFOLLOW), error = fd < 0 || fstat(fd, &is) < 0 ? errno : 0;
	for (size_t done = 0; !error && done < length;) {
		ssize_t written = pwrite(fd, bytes + done, length - done, (off_t)(offset + done));
		if (written < 0)
			error = errno;
		else
			done += (size_t)written;
	}
	/* Writing takes set-id bits off, and what is copied keeps them. */
	if (!error && is.st_mode & (S_ISUID | S_ISGID) && fchmod(fd, is.st_mode & 07777) < 0)
		error = errno;
	if (fd >= 0)
		close(fd);
	return error;
}

static int serve_mkdir(struct session *session)
{
	const char *path = take_path(session), *name;
	uint64_t mode = take_integer(session), uid = take_integer(session), gid = take_integer(session);
	struct stat is;
	if (!complete(session))
		return EPROTO;
	int parent = inroot_parent(session->root, path, &name, false), fd = -1, error = 0;
	if (parent < 0)
		return errno;
	if (mkdirat(parent, name, 0700) < 0) {
		error = errno;
		if (error == EEXIST && fstatat(parent, name, &is, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(is.st_mode))
			error = 0;
	} else if ((fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0) {
		error = errno;
	} else {
		error = set_owner_and_mode(fd, uid, gid, mode);
		close(fd);
	}
	close(parent);
	return error;
}

static int serve_symlink(struct session *session)
{
	const char *path = take_path(session), *target = take_path(session), *name;
	uint64_t uid = take_integer(session), gid = take_integer(session);
	if (!complete(session) || uid >= UINT32_MAX || gid >= UINT32_MAX)
		return EPROTO;
	int parent = make_place(session, path, &name);
	if (parent < 0)
		return errno;
	int error = symlinkat(target, parent, name) < 0 ||
				    fchownat(parent, name, (uid_t)uid, (gid_t)gid, AT_SYMLINK_NOFOLLOW) < 0
			    ? errno
			    : 0;
	close(parent);
	return error;
}

static int serve_times(struct session *session)
{
	const char *path = take_path(session), *name;
	uint64_t time = take_integer(session);
	if (!complete(session))
		return EPROTO;
	struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
				    {.tv_sec = (time_t)(time / 1000000000), .tv_nsec = (long)(time % 1000000000)}};
	int parent = inroot_parent(session->root, path, &name, false);
	if (parent < 0)
		return errno;
	int error = utimensat(parent, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;
	close(parent);
	return error;
}

static int serve_link(struct session *session)
{
	const char *path = take_path(session), *existing = take_path(session), *name, *from_name;
	struct stat from, to;
	if (!complete(session))
		return EPROTO;
	int parent = inroot_parent(session->root, path, &name, false);
	if (parent < 0)
		return errno;
	int from_parent = inroot_parent(session->root, existing, &from_name, false);
	int error = from_parent < 0 || fstatat(from_parent, from_name, &from, AT_SYMLINK_NOFOLLOW) < 0 ? errno : 0;
	bool same = !error && fstatat(parent, name, &to, AT_SYMLINK_NOFOLLOW) == 0 && from.st_ino == to.st_ino &&
		    from.st_dev == to.st_dev;
	if (!error && !same && unlinkat(parent, name, 0) < 0 && errno != ENOENT)
		error = errno;
	if (!error && !same && linkat(from_parent, from_name, parent, name, 0) < 0)
		error = errno;
	if (from_parent >= 0)
		close(from_parent);
	close(parent);
	return error;
}

static int (*const requests[])(struct session *) = {
	[1] = serve_stat,  [2] = serve_list,	[3] = serve_read,  [4] = serve_create, [5] = serve_write,
	[6] = serve_mkdir, [7] = serve_symlink, [8] = serve_times, [9] = serve_link,
};

void files_answer(int root, unsigned char *request, size_t length, struct buffer *answer)
{
	struct session session = {.root = root, .request = {.at = request, .end = request + length}, .answer = *answer};
	static const unsigned char head[8];
	uint8_t code = read_u8(&session.request);
	int error = EPROTO;
	if (buffer_append(&session.answer, head, sizeof head) == 0 && code < sizeof requests / sizeof *requests &&
	    requests[code] != NULL)
		error = requests[code](&session);
	if (error && session.answer.length > sizeof head)
		session.answer.length = sizeof head; /* nothing of a body that failed */
	if (session.answer.length >= sizeof head) {
		write_integer(buffer_contents(&session.answer), session.answer.length - 4, 4);
		write_integer(buffer_contents(&session.answer) + 4, (uint32_t)error, 4);
	}
	*answer = session.answer;
}

static bool read_all(int fd, unsigned char *to, size_t length)
{
	while (length > 0) {
		ssize_t got = read(fd, to, length);
		if (got <= 0)
			return false;
		to += got;
		length -= (size_t)got;
	}
	return true;
}

static bool write_all(int fd, struct buffer *from)
{
	while (from->length > 0) {
		ssize_t written = write(fd, buffer_contents(from), from->length);
		if (written < 0)
			return false;
		buffer_consume(from, (size_t)written);
	}
	return true;
}

void files_serve(int root, int in, int out)
{
	unsigned char head[4];
	unsigned char *request = malloc(REQUEST_MAX);
	while (request != NULL && read_all(in, head, sizeof head)) {
		struct reader reader = {.at = head, .end = head + sizeof head};
		struct buffer answer = {0};
		uint32_t length = read_u32(&reader);
		if (length == 0 || length > REQUEST_MAX || !read_all(in, request, length))
			break;
		files_answer(root, request, length, &answer);
		if (!write_all(out, &answer))
			break;
	}
	free(request);
}

/* Requests of the file session that make and change files. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files_session.h"
#include "inroot.h"

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

int files_create(struct session *session)
{
	const char *path = files_take_path(session), *name;
	uint64_t mode = files_take_integer(session), uid = files_take_integer(session), gid = files_take_integer(session);
	if (!files_complete(session))
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

int files_write(struct session *session)
{
	const char *path = files_take_path(session);
	uint64_t offset = files_take_integer(session);
	size_t length;
	const char *bytes = read_block(&session->request, FILES_BODY_MAX, &length);
	if (!files_complete(session) || offset > INT64_MAX - FILES_BODY_MAX)
		return EPROTO;
	struct stat is;
	int fd = files_open_regular(session->root, path, O_WRONLY | O_NOFOLLOW), error = fd < 0 || fstat(fd, &is) < 0 ? errno : 0;
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

int files_mkdir(struct session *session)
{
	const char *path = files_take_path(session), *name;
	uint64_t mode = files_take_integer(session), uid = files_take_integer(session), gid = files_take_integer(session);
	struct stat is;
	if (!files_complete(session))
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

int files_symlink(struct session *session)
{
	const char *path = files_take_path(session), *target = files_take_path(session), *name;
	uint64_t uid = files_take_integer(session), gid = files_take_integer(session);
	if (!files_complete(session) || uid >= UINT32_MAX || gid >= UINT32_MAX)
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

int files_times(struct session *session)
{
	const char *path = files_take_path(session), *name;
	uint64_t time = files_take_integer(session);
	if (!files_complete(session))
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

int files_link(struct session *session)
{
	const char *path = files_take_path(session), *existing = files_take_path(session), *name, *from_name;
	struct stat from, to;
	if (!files_complete(session))
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

int files_remove(struct session *session)
{
	const char *path = files_take_path(session), *name;
	struct stat is;
	if (!files_complete(session))
		return EPROTO;
	int parent = inroot_parent(session->root, path, &name, false);
	if (parent < 0)
		return errno;
	int error = fstatat(parent, name, &is, AT_SYMLINK_NOFOLLOW) < 0 ||
				    unlinkat(parent, name, S_ISDIR(is.st_mode) ? AT_REMOVEDIR : 0) < 0
			    ? errno
			    : 0;
	close(parent);
	return error;
}

int files_pipe(struct session *session)
{
	const char *path = files_take_path(session), *name;
	uint64_t mode = files_take_integer(session), uid = files_take_integer(session), gid = files_take_integer(session);
	if (!files_complete(session) || uid >= UINT32_MAX || gid >= UINT32_MAX)
		return EPROTO;
	int parent = make_place(session, path, &name);
	if (parent < 0)
		return errno;
	/* It is new, so no link is followed: nobody else changes what is copied to. */
	int error = mkfifoat(parent, name, 0600) < 0 ||
				    fchownat(parent, name, (uid_t)uid, (gid_t)gid, AT_SYMLINK_NOFOLLOW) < 0 ||
				    fchmodat(parent, name, (mode_t)(mode & 07777), 0) < 0
			    ? errno
			    : 0;
	close(parent);
	return error;
}

int files_truncate(struct session *session)
{
	const char *path = files_take_path(session);
	uint64_t size = files_take_integer(session);
	if (!files_complete(session) || size > INT64_MAX)
		return EPROTO;
	int fd = files_open_regular(session->root, path, O_WRONLY | O_NOFOLLOW);
	int error = fd < 0 || ftruncate(fd, (off_t)size) < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	return error;
}

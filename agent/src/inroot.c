#define _GNU_SOURCE
#include "inroot.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LINKS_MAX = 40, TRIES_MAX = 128, LINK_FOLLOWED = -2 };

int inroot_open(int root, const char *path, int flags, uint64_t resolve)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve,
	};
	long fd = -1;
	/* EAGAIN: a rename or mount somewhere while `..` was resolved. */
	for (int i = 0; i < TRIES_MAX; i++) {
		fd = syscall(SYS_openat2, root, path, &how, sizeof how);
		if (fd >= 0 || errno != EAGAIN)
			break;
	}
	return (int)fd;
}

static const char *skip_slashes(const char *path)
{
	while (*path == '/')
		path++;
	return path;
}

static bool begins(const char *path, const char *component)
{
	size_t length = strlen(component);
	return strncmp(path, component, length) == 0 && (path[length] == 0 || path[length] == '/');
}

uint64_t inroot_guard(const char *path)
{
	path = skip_slashes(path);
	return begins(path, "proc") || begins(path, "sys") || begins(path, "dev") ? RESOLVE_NO_SYMLINKS : 0;
}

/* Opens the longest part of `path` that is there; `rest` is where the missing components begin. */
static int open_existing(int root, const char *path, uint64_t resolve, size_t *rest)
{
	char part[PATH_MAX];
	size_t end = strlen(path);
	for (;;) {
		while (end > 0 && path[end - 1] == '/')
			end--;
		while (end > 0 && path[end - 1] != '/')
			end--;
		memcpy(part, path, end);
		part[end] = 0;
		*rest = end;
		int fd = inroot_open(root, end > 0 ? part : "/", O_PATH | O_DIRECTORY, resolve);
		if (fd >= 0 || errno != ENOENT || end == 0)
			return fd;
	}
}

/* The link `name` in `directory` leads nowhere: puts its target into `path` in place of itself. */
static int follow(int directory, const char *name, char *path, size_t begin, size_t end)
{
	char target[PATH_MAX], joined[PATH_MAX];
	ssize_t length = readlinkat(directory, name, target, sizeof target);
	if (length < 0)
		return -1;
	size_t kept = target[0] == '/' ? 0 : begin, left = strlen(path + end);
	if (kept + (size_t)length + left >= sizeof joined) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(joined, path, kept);
	memcpy(joined + kept, target, (size_t)length);
	memcpy(joined + kept + (size_t)length, path + end, left + 1);
	memcpy(path, joined, kept + (size_t)length + left + 1);
	return LINK_FOLLOWED;
}

static bool is_link(int directory, const char *name)
{
	struct stat at;
	return fstatat(directory, name, &at, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(at.st_mode);
}

static int make(int directory, const char *name, bool as_directory, mode_t mode)
{
	if (as_directory)
		return mkdirat(directory, name, mode);
	int fd = openat(directory, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, mode);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? -1 : 0;
}

/* Makes one component, or takes what another has made in the meantime unless that is a link. */
static int make_and_open(int directory, const char *name, bool as_directory, mode_t mode, bool *made)
{
	struct stat is;
	*made = make(directory, name, as_directory, mode) == 0;
	if (!*made && errno != EEXIST)
		return -1;
	int fd = openat(directory, name, O_PATH | O_NOFOLLOW | O_CLOEXEC | (as_directory ? O_DIRECTORY : 0));
	if (fd >= 0 && (fstat(fd, &is) < 0 || S_ISLNK(is.st_mode))) {
		close(fd);
		errno = ELOOP;
		return -1;
	}
	return fd;
}

struct wanted {
	bool directory;
	mode_t mode;
	bool *made;
};

/* Makes the components from `at` on, below `directory`, which it closes. An fd, LINK_FOLLOWED, or -1. */
static int make_rest(int directory, char *path, size_t at, uint64_t resolve, const struct wanted *wanted)
{
	while (directory >= 0) {
		char name[NAME_MAX + 1];
		int next;
		at = (size_t)(skip_slashes(path + at) - path);
		size_t length = strcspn(path + at, "/");
		if (length == 0)
			return directory;
		bool last = *skip_slashes(path + at + length) == 0;
		size_t copied = length <= NAME_MAX ? length : 0;
		memcpy(name, path + at, copied);
		name[copied] = 0;
		if (copied == 0 || strcmp(name, "..") == 0) {
			errno = copied == 0 ? ENAMETOOLONG : ENOENT;
			next = -1;
		} else if (is_link(directory, name)) {
			errno = ELOOP;
			next = resolve ? -1 : follow(directory, name, path, at, at + length);
		} else {
			next = make_and_open(directory, name, !last || wanted->directory, last ? wanted->mode : 0755, wanted->made);
		}
		int error = errno;
		close(directory);
		errno = error;
		if (next == LINK_FOLLOWED)
			return next;
		directory = next;
		at += length;
	}
	return -1;
}

int inroot_ensure(int root, const char *path, bool directory, mode_t mode, bool *made)
{
	bool ignored;
	struct wanted wanted = {directory, mode, made ? made : &ignored};
	uint64_t resolve = inroot_guard(path);
	char left[PATH_MAX];
	if (strlen(path) >= sizeof left) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(left, path, strlen(path) + 1);
	*wanted.made = false;
	for (int links = 0; links < LINKS_MAX; links++) {
		int fd = inroot_open(root, left, O_PATH, resolve);
		if (fd >= 0 || errno != ENOENT)
			return fd;
		size_t rest;
		int existing = open_existing(root, left, resolve, &rest);
		if (existing < 0)
			return -1;
		fd = make_rest(existing, left, rest, resolve, &wanted);
		if (fd != LINK_FOLLOWED)
			return fd;
	}
	errno = ELOOP;
	return -1;
}

int inroot_parent(int root, const char *path, const char **name, bool make)
{
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');
	size_t length = slash ? (size_t)(slash - path) : 0;
	*name = slash ? slash + 1 : path;
	if (length >= sizeof parent || **name == 0 || strcmp(*name, ".") == 0 || strcmp(*name, "..") == 0) {
		errno = EINVAL;
		return -1;
	}
	memcpy(parent, path, length);
	parent[length] = 0;
	if (*skip_slashes(parent) == 0 || !make)
		return inroot_open(root, length > 0 ? parent : "/", O_PATH | O_DIRECTORY, 0);
	return inroot_ensure(root, parent, true, 0755, NULL);
}

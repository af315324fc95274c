#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "link.h"
#include "text.h"

/* No link that is in there is followed, and nothing but a socket is connected to. */
static int open_socket(int directory, const char *name)
{
	struct open_how how = {
		.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	struct stat is;
	int fd = (int)syscall(SYS_openat2, directory, name, &how, sizeof how);
	if (fd >= 0 && (fstat(fd, &is) < 0 || !S_ISSOCK(is.st_mode))) {
		close(fd);
		errno = ENOTSOCK;
		return -1;
	}
	return fd;
}

int link_socket(int directory, const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char number[24];
	int target = open_socket(directory, name);
	if (target < 0)
		return -1;
	TEXT(address.sun_path, "/proc/self/fd/", text_number(number, (uint64_t)target));
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) < 0) {
		int error = errno;
		close(fd);
		errno = error;
		fd = -1;
	}
	int error = errno;
	close(target);
	errno = error;
	return fd;
}

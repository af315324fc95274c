/* Operations on files and settings of the instance. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "context.h"
#include "inroot.h"
#include "mounts.h"
#include "text.h"

/* An id as the instance has it, as this process must give it to the kernel. */
static uid_t outer_id(const struct context *context, uint64_t id)
{
	return (uid_t)(id + (context->place == PLACE_STAGE ? context->id_base : 0));
}

/* Ids above 32 bits, and the one that stands for "leave it", are mistakes. */
static bool ids_fit(uint64_t uid, uint64_t gid)
{
	return uid < UINT32_MAX && gid < UINT32_MAX;
}

int op_mkdirs(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data;
	mode_t mode = (mode_t)(operation_integer(operation, 1) & 01777);
	uint64_t uid = operation_integer(operation, 2), gid = operation_integer(operation, 3);
	struct stat is;
	bool made;
	if (need_root(context) < 0)
		return -ENOTDIR;
	if (!ids_fit(uid, gid))
		return failed(context, EINVAL, "no such owner for", path);
	int fd = inroot_ensure(context->root, path, true, mode, &made);
	int error = fd < 0 || fstat(fd, &is) < 0 ? errno : !S_ISDIR(is.st_mode) ? ENOTDIR : 0;
	if (!error && made && fchownat(fd, "", outer_id(context, uid), outer_id(context, gid), AT_EMPTY_PATH) < 0)
		error = errno;
	if (fd >= 0)
		close(fd);
	return error ? failed(context, error, "cannot make the directory", path) : 0;
}

static int write_all(int fd, const char *data, size_t length)
{
	while (length > 0) {
		ssize_t written = write(fd, data, length);
		if (written < 0)
			return -1;
		data += written;
		length -= (size_t)written;
	}
	return 0;
}

int op_file(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data, *name;
	mode_t mode = (mode_t)(operation_integer(operation, 1) & 07777);
	uint64_t uid = operation_integer(operation, 2), gid = operation_integer(operation, 3);
	const struct argument *data = &operation->arguments[4];
	if (need_root(context) < 0)
		return -ENOTDIR;
	if (!ids_fit(uid, gid))
		return failed(context, EINVAL, "no such owner for", path);
	int parent = inroot_parent(context->root, path, &name, true), fd = -1, error = 0;
	if (parent < 0)
		return failed(context, errno, "cannot make the directory of", path);
	if (unlinkat(parent, name, 0) < 0 && errno != ENOENT)
		error = errno;
	if (!error)
		fd = openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0600);
	if (!error && (fd < 0 || write_all(fd, data->data, data->length) < 0 ||
		       fchown(fd, outer_id(context, uid), outer_id(context, gid)) < 0 || fchmod(fd, mode) < 0))
		error = errno;
	if (fd >= 0)
		close(fd);
	close(parent);
	return error ? failed(context, error, "cannot write", path) : 0;
}

/* What holds the instance's secrets: ramfs, since no page of it is ever swapped out. It is the instance's own memory: its
   process has joined its cgroups by now. Before Linux 6.15 nothing can be cloned from what is attached nowhere: it lies
   over the stage, which PIVOT leaves behind, and what has been cloned from it is all that stays. */
static int secrets_place(struct context *context)
{
	if (context->secrets >= 0)
		return 0;
	int mounted = mount_new("ramfs", "bulkhead-secrets", "mode=0700",
				MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, NULL);
	if (mounted >= 0 && mount_attach(mounted, context->stage) < 0) {
		int error = errno;
		close(mounted);
		errno = error;
		return -1;
	}
	context->secrets = mounted;
	return mounted < 0 ? -1 : 0;
}

/* A file whose contents no disk has had: it is written where nobody can reach it, then mounted, read-only. */
int op_secret(struct context *context, const struct operation *operation)
{
	char number[24];
	const char *path = operation->arguments[0].data, *name = text_number(number, context->secret_count++);
	mode_t mode = (mode_t)(operation_integer(operation, 1) & 0777);
	uint64_t uid = operation_integer(operation, 2), gid = operation_integer(operation, 3);
	const struct argument *data = &operation->arguments[4];
	if (need_root(context) < 0)
		return -ENOTDIR;
	if (!ids_fit(uid, gid))
		return failed(context, EINVAL, "no such owner for", path);
	if (secrets_place(context) < 0)
		return failed(context, errno, "cannot make a place in memory for", path);
	int fd = openat(context->secrets, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_WRONLY | O_CLOEXEC, 0600), error = 0;
	if (fd < 0 || write_all(fd, data->data, data->length) < 0 ||
	    fchown(fd, outer_id(context, uid), outer_id(context, gid)) < 0 || fchmod(fd, mode) < 0)
		error = errno;
	if (fd >= 0)
		close(fd);
	if (error)
		return failed(context, error, "cannot keep in memory", path);
	int tree = mount_clone(context, context->secrets, name,
			       MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0);
	if (tree < 0)
		return failed(context, errno, mount_clone_error(0), path);
	return mount_in_root(context, tree, path);
}

int op_symlink(struct context *context, const struct operation *operation)
{
	const char *target = operation->arguments[0].data, *path = operation->arguments[1].data, *name;
	if (need_root(context) < 0)
		return -ENOTDIR;
	int parent = inroot_parent(context->root, path, &name, true);
	if (parent < 0)
		return failed(context, errno, "cannot make the directory of", path);
	int error = symlinkat(target, parent, name) < 0 && errno != EEXIST ? errno : 0;
	close(parent);
	return error ? failed(context, error, "cannot make the link", path) : 0;
}

/* The kernel's settings are written through a procfs of our own: nothing that the instance has mounted or linked
   anywhere can stand in its place. */
static int open_sysctl(struct context *context, const char *path)
{
	if (context->proc < 0)
		context->proc = mount_new("proc", "proc", "", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, NULL);
	if (context->proc < 0)
		return -1;
	struct open_how below = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
				 .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
	struct open_how how = {.flags = O_WRONLY | O_CLOEXEC, .resolve = below.resolve};
	struct statfs is;
	int sys = (int)syscall(SYS_openat2, context->proc, "sys", &below, sizeof below);
	if (sys < 0)
		return -1;
	int fd = (int)syscall(SYS_openat2, sys, path, &how, sizeof how), error = errno;
	close(sys);
	if (fd >= 0 && (fstatfs(fd, &is) < 0 || is.f_type != PROC_SUPER_MAGIC)) {
		close(fd);
		fd = -1;
		error = EXDEV;
	}
	errno = error;
	return fd;
}

int op_sysctl(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data;
	const struct argument *data = &operation->arguments[1];
	if (strncmp(path, "/proc/sys/", 10) == 0)
		path += 10;
	int fd = open_sysctl(context, path);
	if (fd < 0)
		return failed(context, errno, "cannot open the sysctl", path);
	ssize_t written = write(fd, data->data, data->length);
	int error = written < 0 ? errno : 0;
	close(fd);
	return error ? failed(context, error, "cannot set the sysctl", path) : 0;
}

int op_chdir(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data;
	bool make = operation_integer(operation, 1) & 1;
	if (!context->pivoted)
		return failed(context, EINVAL, "CHDIR comes before PIVOT:", path);
	int fd = inroot_open(context->root, path, O_PATH | O_DIRECTORY, 0);
	if (fd < 0 && errno == ENOENT && make)
		fd = inroot_ensure(context->root, path, true, 0755, NULL);
	int error = fd < 0 || fchdir(fd) < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	return error ? failed(context, error, "cannot change to the directory", path) : 0;
}

int op_hostname(struct context *context, const struct operation *operation)
{
	const struct argument *name = &operation->arguments[0];
	/* The supervisor's own name is the host's, but in a guest. */
	if (context->place == PLACE_SUPERVISOR && need_guest(context) < 0)
		return -EPERM;
	if (sethostname(name->data, name->length) < 0)
		return failed(context, errno, "cannot set the host name", name->data);
	return 0;
}

int op_loopback(struct context *context, const struct operation *operation)
{
	(void)operation;
	struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int error = fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? errno : 0;
	if (fd >= 0)
		close(fd);
	return error ? failed(context, error, "cannot bring up", "lo") : 0;
}

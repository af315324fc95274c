/* Operations on the stage: a small tmpfs in T's mount namespace, on which the instance's root is put together. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "context.h"
#include "mounts.h"
#include "text.h"

/* Names on the stage are the engine's own; still, no link and no `..` leads away from it. */
static int open_below_stage(const struct context *context, const char *name)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC | O_DIRECTORY,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
	return (int)syscall(SYS_openat2, context->stage, name, &how, sizeof how);
}

static int ensure_below_stage(const struct context *context, const char *name)
{
	if (context->stage < 0) {
		errno = ENOTDIR;
		return -1;
	}
	int fd = open_below_stage(context, name);
	if (fd < 0 && errno == ENOENT && strchr(name, '/') == NULL && mkdirat(context->stage, name, 0755) == 0)
		fd = open_below_stage(context, name);
	return fd;
}

int op_stage(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data;
	int mounted = mount_new("tmpfs", "bulkhead-stage", "size=1m,nr_inodes=1k,mode=755",
				MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, NULL);
	if (mounted < 0)
		return failed(context, errno, "cannot mount a tmpfs for the stage", path);
	int at = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int error = at < 0 || mount_attach(mounted, at) < 0 || fchdir(mounted) < 0 ? errno : 0;
	if (at >= 0)
		close(at);
	if (error) {
		close(mounted);
		return failed(context, error, "cannot mount the stage on", path);
	}
	if (context->stage >= 0)
		close(context->stage);
	context->stage = mounted;
	return 0;
}

/* Attaches a mount under a name on the stage, and closes it. */
static int attach(struct context *context, int mounted, const char *name)
{
	int at = ensure_below_stage(context, name);
	int error = at < 0 || mount_attach(mounted, at) < 0 ? errno : 0;
	if (at >= 0)
		close(at);
	close(mounted);
	return error ? failed(context, error, "cannot attach on the stage", name) : 0;
}

int op_attach(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data, *name = operation->arguments[1].data;
	uint64_t attributes = operation_integer(operation, 2), flags = operation_integer(operation, 3);
	int tree = mount_clone(context, AT_FDCWD, path, attributes, flags);
	if (tree < 0)
		return failed(context, errno, mount_clone_error(flags), path);
	return attach(context, tree, name);
}

/* What the kernel read of the device before may be another disk's: a guest that is restored from a template gets its
   own disks in the places of the template's. */
static int forget_cached(const char *device)
{
	int fd = open(device, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	int result = ioctl(fd, BLKFLSBUF, 0), error = errno;
	close(fd);
	errno = error;
	return result;
}

int op_mountdev(struct context *context, const struct operation *operation)
{
	const char *device = operation->arguments[0].data, *type = operation->arguments[1].data;
	const char *name = operation->arguments[2].data, *data = operation->arguments[4].data;
	uint64_t attributes = operation_integer(operation, 3);
	char said[200], text[300], options[4096];
	if (strlen(data) + 4 > sizeof options)
		return failed(context, E2BIG, "too many options for", device);
	if (forget_cached(device) < 0)
		return failed(context, errno, "cannot use the block device", device);
	/* Read-only as a whole, or a device that can only be read is refused. */
	TEXT(options, attributes & MOUNT_ATTR_RDONLY ? "ro," : "", data);
	int mounted = mount_new(type, device, options, attributes, said);
	if (mounted < 0) {
		int error = errno;
		TEXT(text, type, " of ", device, *said ? ": " : "", said);
		return failed(context, error, "cannot mount", text);
	}
	return attach(context, mounted, name);
}

int op_overlay(struct context *context, const struct operation *operation)
{
	const char *lower = operation->arguments[0].data, *upper = operation->arguments[1].data;
	const char *work = operation->arguments[2].data, *name = operation->arguments[3].data;
	uint64_t attributes = operation_integer(operation, 4);
	char options[4096];
	bool writable = *upper != 0;
	if (strlen(lower) + strlen(upper) + strlen(work) + 64 > sizeof options)
		return failed(context, E2BIG, "too many layers for one overlay", name);
	TEXT(options, "lowerdir=", lower, writable ? ",upperdir=" : "", upper, writable ? ",workdir=" : "", work);
	int at = ensure_below_stage(context, name);
	if (at < 0)
		return failed(context, errno, "cannot make on the stage", name);
	close(at);
	/* mount(2): fsconfig(2) takes 256 bytes, `lowerdir+` needs Linux 6.5. Nobody else reaches the stage by path. */
	if (mount("overlay", name, "overlay", 0, options) < 0)
		return failed(context, errno, "cannot mount the overlay", options);
	int mounted = open_below_stage(context, name);
	int error = mounted < 0 || mount_change(mounted, attributes, -1, 0) < 0 ? errno : 0;
	if (mounted >= 0)
		close(mounted);
	return error ? failed(context, error, "cannot set the attributes of the overlay", name) : 0;
}

int context_set_root(struct context *context, const char *name)
{
	int root = context->stage >= 0 ? open_below_stage(context, name) : (errno = ENOTDIR, -1);
	if (root < 0)
		return -1;
	if (context->root >= 0)
		close(context->root);
	context->root = root;
	return 0;
}

int op_root(struct context *context, const struct operation *operation)
{
	const char *name = operation->arguments[0].data;
	if (context_set_root(context, name) < 0)
		return failed(context, errno, "cannot take as the root", name);
	return 0;
}

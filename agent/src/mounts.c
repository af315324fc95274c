#define _GNU_SOURCE
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "context.h"
#include "inroot.h"
#include "text.h"

static int configure(int fs, char *data)
{
	char *end;
	for (char *option = data; option != NULL && *option != 0; option = end) {
		end = strchr(option, ',');
		if (end != NULL)
			*end++ = 0;
		char *value = strchr(option, '=');
		if (value != NULL)
			*value++ = 0;
		if (fsconfig(fs, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, option, value, 0) < 0)
			return -1;
	}
	return 0;
}

int mount_new(const char *type, const char *source, const char *data, uint64_t attributes, char *said)
{
	char options[4096];
	int mounted = -1, fs = fsopen(type, FSOPEN_CLOEXEC);
	if (fs < 0)
		return -1;
	TEXT(options, data);
	if (strlen(data) >= sizeof options)
		errno = E2BIG;
	else if ((*source == 0 || fsconfig(fs, FSCONFIG_SET_STRING, "source", source, 0) == 0) &&
		 configure(fs, options) == 0 && fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		mounted = fsmount(fs, FSMOUNT_CLOEXEC, (unsigned)attributes);
	int error = errno;
	ssize_t length = mounted < 0 && said != NULL ? read(fs, said, 199) : -1;
	if (said != NULL)
		said[length > 0 ? length : 0] = 0;
	close(fs);
	errno = error;
	return mounted;
}

int mount_change(int mounted, uint64_t attributes, int userns, unsigned flags)
{
	struct mount_attr change = {
		.attr_set = attributes | (userns >= 0 ? (uint64_t)MOUNT_ATTR_IDMAP : 0),
		/* The kinds of atime are one field: what is set there replaces what was. */
		.attr_clr = attributes & MOUNT_ATTR__ATIME ? (uint64_t)MOUNT_ATTR__ATIME : 0,
		.userns_fd = userns >= 0 ? (unsigned)userns : 0,
	};
	if (change.attr_set == 0)
		return 0;
	return mount_setattr(mounted, "", AT_EMPTY_PATH | flags, &change, sizeof change);
}

int mount_clone(const struct context *context, int directory, const char *path, uint64_t attributes, uint64_t flags)
{
	bool mapped = flags & MOUNT_IDMAPPED && context->userns >= 0;
	unsigned recursive = flags & MOUNT_RECURSIVE ? AT_RECURSIVE : 0;
	int tree = open_tree(directory, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | recursive);
	if (tree < 0)
		return -1;
	if (mount_change(tree, attributes, mapped ? context->userns : -1, recursive) < 0) {
		int error = errno;
		close(tree);
		errno = error;
		return -1;
	}
	return tree;
}

const char *mount_clone_error(uint64_t flags)
{
	return flags & MOUNT_IDMAPPED ? "cannot take with mapped ids" : "cannot take for a mount";
}

int mount_attach(int mounted, int at)
{
	return move_mount(mounted, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

int mount_in_root(struct context *context, int mounted, const char *target)
{
	const char *text = "cannot mount on";
	struct stat is, there;
	int at = -1, error = 0;
	if (fstat(mounted, &is) == 0)
		at = inroot_ensure(context->root, target, S_ISDIR(is.st_mode), S_ISDIR(is.st_mode) ? 0755 : 0644, NULL);
	if (at >= 0 && fstat(at, &there) == 0 && S_ISDIR(is.st_mode) != S_ISDIR(there.st_mode)) {
		/* The kernel would say EINVAL, as for much else. */
		error = S_ISDIR(is.st_mode) ? ENOTDIR : EISDIR;
		text = S_ISDIR(is.st_mode) ? "a directory cannot be mounted on the file"
					   : "a file cannot be mounted on the directory";
	} else if (at < 0 || mount_attach(mounted, at) < 0)
		error = errno;
	if (at >= 0)
		close(at);
	close(mounted);
	return error ? failed(context, error, text, target) : 0;
}

int op_mount(struct context *context, const struct operation *operation)
{
	const char *type = operation->arguments[0].data, *source = operation->arguments[1].data;
	const char *target = operation->arguments[2].data, *data = operation->arguments[4].data;
	char said[200], text[300];
	if (need_root(context) < 0)
		return -ENOTDIR;
	int mounted = mount_new(type, source, data, operation_integer(operation, 3), said);
	if (mounted < 0) {
		int error = errno;
		TEXT(text, type, " on ", target, *said ? ": " : "", said);
		return failed(context, error, "cannot mount", text);
	}
	return mount_in_root(context, mounted, target);
}

int op_bind(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data, *target = operation->arguments[1].data;
	uint64_t attributes = operation_integer(operation, 2), flags = operation_integer(operation, 3);
	if (need_root(context) < 0)
		return -ENOTDIR;
	int tree = mount_clone(context, AT_FDCWD, path, attributes, flags);
	if (tree < 0)
		return failed(context, errno, mount_clone_error(flags), path);
	return mount_in_root(context, tree, target);
}

int op_rebind(struct context *context, const struct operation *operation)
{
	const char *source = operation->arguments[0].data, *target = operation->arguments[1].data;
	uint64_t attributes = operation_integer(operation, 2), flags = operation_integer(operation, 3);
	if (need_root(context) < 0)
		return -ENOTDIR;
	int from = inroot_open(context->root, source, O_PATH, inroot_guard(source));
	if (from < 0 && errno == ENOENT && flags & MOUNT_MISSING_OK)
		return 0;
	if (from < 0)
		return failed(context, errno, "cannot open", source);
	int tree = mount_clone(context, from, "", attributes, flags & MOUNT_RECURSIVE), error = errno;
	close(from);
	if (tree < 0)
		return failed(context, error, mount_clone_error(0), source);
	return mount_in_root(context, tree, target);
}

/* The host's node, never one that an image or a workload made. */
static int clone_device(const struct context *context, const char *path, uint64_t attributes, struct stat *is)
{
	int tree = mount_clone(context, AT_FDCWD, path, attributes, 0);
	if (tree >= 0 && fstat(tree, is) < 0) {
		close(tree);
		return -1;
	}
	return tree;
}

/* The host's node, made anew: where it goes is a file system that the stage has made, with no nodev. */
int op_device(struct context *context, const struct operation *operation)
{
	const char *name = operation->arguments[0].data, *target = operation->arguments[1].data, *last;
	char path[PATH_MAX];
	struct stat is;
	if (need_root(context) < 0)
		return -ENOTDIR;
	if (strstr(name, "..") != NULL)
		return failed(context, EINVAL, "not the name of a device:", name);
	TEXT(path, "/dev/", name);
	if (stat(path, &is) < 0)
		return failed(context, errno, "cannot take the device", path);
	if (!S_ISCHR(is.st_mode) && !S_ISBLK(is.st_mode))
		return failed(context, ENODEV, "not a device:", path);
	int parent = inroot_parent(context->root, target, &last, true);
	if (parent < 0)
		return failed(context, errno, "cannot make the directory of", target);
	int error = mknodat(parent, last, is.st_mode & (S_IFMT | 0777), is.st_rdev) < 0 ? errno : 0;
	close(parent);
	return error ? failed(context, error, "cannot make the device", target) : 0;
}

/* The host's /dev/null: char device 1:3. After PIVOT it is out of reach, and the instance's is not to be trusted. */
static int take_null(struct context *context)
{
	struct stat is;
	int tree = clone_device(context, "/dev/null", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, &is);
	if (tree >= 0 && (!S_ISCHR(is.st_mode) || is.st_rdev != makedev(1, 3))) {
		close(tree);
		errno = ENODEV;
		return -1;
	}
	context->null_mount = tree;
	return tree;
}

/* What hides a directory or a file. The first is made, and attached where it hides; the others are its clones. */
static int mask_mount(struct context *context, bool directory)
{
	int *first = directory ? &context->empty_mount : &context->null_mount;
	bool *used = directory ? &context->empty_used : &context->null_used;
	if (*used)
		return mount_clone(context, *first, "", 0, 0);
	*used = true;
	if (directory)
		*first = mount_new("tmpfs", "bulkhead-mask", "ro,size=4k,nr_inodes=2,mode=555",
				   MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, NULL);
	else if (*first < 0)
		take_null(context);
	return *first;
}

int op_mask(struct context *context, const struct operation *operation)
{
	const char *path = operation->arguments[0].data;
	struct stat is;
	if (need_root(context) < 0)
		return -ENOTDIR;
	int at = inroot_open(context->root, path, O_PATH, inroot_guard(path));
	if (at < 0 && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (at < 0 || fstat(at, &is) < 0)
		return failed(context, errno, "cannot open", path);
	int mounted = mask_mount(context, S_ISDIR(is.st_mode));
	int error = mounted < 0 || mount_attach(mounted, at) < 0 ? errno : 0;
	close(at);
	if (mounted >= 0 && mounted != context->null_mount && mounted != context->empty_mount)
		close(mounted);
	return error ? failed(context, error, "cannot hide", path) : 0;
}

int op_pivot(struct context *context, const struct operation *operation)
{
	(void)operation;
	if (need_root(context) < 0)
		return -ENOTDIR;
	if (context->null_mount < 0)
		take_null(context);
	if (fchdir(context->root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		return failed(context, errno, "cannot change the root", "");
	/* The old root lies over the new one now. */
	if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return failed(context, errno, "cannot leave the old root", "");
	close(context->root);
	close(context->stage);
	context->stage = -1;
	context->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (context->root < 0)
		return failed(context, errno, "cannot open the root", "");
	context->pivoted = true;
	return 0;
}

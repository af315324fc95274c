/* SECRET, and what else makes files in a root, carried out: in a directory of the fuzzer's own, with links that lead
   everywhere. The calls that mount are replaced: they look at what is to be mounted where. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../src/context.h"
#include "../src/text.h"
#include "fuzz.h"
#include "fuzz_world.h"

enum { FAIL_NEW = 1, FAIL_STAGE = 2, FAIL_CLONE = 4, FAIL_CHANGE = 8, FAIL_ATTACH = 16 };

static unsigned failing;
static char world[128], root[160];

int __wrap_fsopen(const char *type, unsigned flags);
int __wrap_fsconfig(int fs, unsigned command, const char *key, const void *value, int auxiliary);
int __wrap_fsmount(int fs, unsigned flags, unsigned attributes);
int __wrap_open_tree(int directory, const char *path, unsigned flags);
int __wrap_mount_setattr(int mounted, const char *path, unsigned flags, struct mount_attr *change, size_t size);
int __wrap_move_mount(int from, const char *path, int to, const char *below, unsigned flags);

static int refused(int error)
{
	errno = error;
	return -1;
}

static void require(bool what)
{
	if (!what)
		abort();
}

int __wrap_fsopen(const char *type, unsigned flags)
{
	require(strcmp(type, "ramfs") == 0 && flags == FSOPEN_CLOEXEC);
	return failing & FAIL_NEW ? refused(ENODEV) : open("/dev/null", O_RDONLY | O_CLOEXEC);
}

int __wrap_fsconfig(int fs, unsigned command, const char *key, const void *value, int auxiliary)
{
	(void)fs;
	(void)command;
	(void)key;
	(void)value;
	return auxiliary;
}

int __wrap_fsmount(int fs, unsigned flags, unsigned attributes)
{
	(void)fs;
	require(flags == FSMOUNT_CLOEXEC);
	require(attributes == (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
	return openat(world_directory(), "secrets", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int __wrap_open_tree(int directory, const char *path, unsigned flags)
{
	require((flags & OPEN_TREE_CLONE) != 0 && *path != 0);
	return failing & FAIL_CLONE ? refused(EPERM) : openat(directory, path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
}

int __wrap_mount_setattr(int mounted, const char *path, unsigned flags, struct mount_attr *change, size_t size)
{
	(void)mounted;
	(void)path;
	(void)flags;
	require(size == sizeof *change && change->attr_clr == 0 && change->userns_fd == 0);
	require(change->attr_set == (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
	return failing & FAIL_CHANGE ? refused(EPERM) : 0;
}

/* What `fd` is open on. */
static void name_of(int fd, char *to, size_t size)
{
	char link[64], number[24];
	TEXT(link, "/proc/self/fd/", text_number(number, (uint64_t)fd));
	ssize_t length = readlink(link, to, size - 1);
	require(length > 0);
	to[length] = 0;
}

/* The place that holds the values lies over the stage, each value within the root, a file on a file. */
int __wrap_move_mount(int from, const char *path, int to, const char *below, unsigned flags)
{
	char name[PATH_MAX * 2];
	struct stat is, there;
	require(*path == 0 && *below == 0 && flags == (MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
	require(fstat(from, &is) == 0 && fstat(to, &there) == 0);
	name_of(to, name, sizeof name);
	if (S_ISDIR(is.st_mode)) {
		require(strcmp(name, world) == 0);
		return failing & FAIL_STAGE ? refused(EINVAL) : 0;
	}
	require(S_ISREG(is.st_mode) && is.st_nlink == 1 && !S_ISDIR(there.st_mode) && !S_ISLNK(there.st_mode));
	require(strncmp(name, root, strlen(root)) == 0 && name[strlen(root)] == '/');
	return failing & FAIL_ATTACH ? refused(EINVAL) : 0;
}

static int remove_one(const char *path, const struct stat *is, int kind, struct FTW *where)
{
	(void)is;
	(void)kind;
	(void)where;
	remove(path);
	return 0;
}

static void make_root(void)
{
	static const char *const links[][2] = {{"root/up", "../../../../.."}, {"root/top", "/"},
					       {"root/out", "../outside"},    {"root/loop", "loop"},
					       {"root/dir/away", "/missing/deep"}};
	int at = world_directory();
	if (*world == 0) {
		name_of(at, world, sizeof world);
		TEXT(root, world, "/root");
	}
	nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	mkdirat(at, "root", 0755);
	mkdirat(at, "root/dir", 0755);
	mkdirat(at, "secrets", 0700);
	mkdirat(at, "outside", 0755);
	mkfifoat(at, "root/pipe", 0600);
	close(openat(at, "root/file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	for (size_t i = 0; i < sizeof links / sizeof *links; i++)
		require(symlinkat(links[i][1], at, links[i][0]) == 0 || errno == EEXIST);
}

/* The number of the next descriptor: the same before and after where none has been left open. */
static int next_descriptor(void)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	require(fd >= 0);
	close(fd);
	return fd;
}

static void check_value(const struct context *context, const struct operation *operation)
{
	char number[24], bytes[256];
	struct stat is;
	const struct argument *value = &operation->arguments[4];
	const char *name = text_number(number, context->secret_count - 1);
	if (geteuid() != 0)
		return; /* it may not be able to look */
	int fd = openat(context->secrets, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	require(fd >= 0 && fstat(fd, &is) == 0);
	require((size_t)is.st_size == value->length && (is.st_mode & 07777) == (operation_integer(operation, 1) & 0777));
	require(is.st_uid == operation_integer(operation, 2) && is.st_gid == operation_integer(operation, 3));
	ssize_t length = read(fd, bytes, sizeof bytes);
	require(length >= 0 && memcmp(bytes, value->data, (size_t)length) == 0);
	close(fd);
}

static void carry_out(struct context *context, const struct operation *operation)
{
	int before = context->secrets, next = next_descriptor(), result = 0;
	if (operation->code == OP_SECRET)
		result = op_secret(context, operation);
	else if (operation->code == OP_FILE)
		result = op_file(context, operation);
	else if (operation->code == OP_MKDIRS)
		result = op_mkdirs(context, operation);
	else if (operation->code == OP_SYMLINK)
		result = op_symlink(context, operation);
	require(result == 0 || (result < 0 && *context->failure.text != 0));
	require(before != context->secrets || next == next_descriptor());
	if (operation->code == OP_SECRET && result == 0)
		check_value(context, operation);
}

/* A byte that tells which calls fail, then a list. */
void fuzz_secrets(const uint8_t *data, size_t size)
{
	struct oplist list;
	struct oplist_error error;
	struct context context;
	if (size == 0)
		return;
	unsigned char *bytes = malloc(size);
	require(bytes != NULL);
	memcpy(bytes, data, size);
	struct reader reader = {.at = bytes + 1, .end = bytes + size};
	failing = data[0];
	if (oplist_parse(&reader, PLACE_INSIDE, &list, &error) == 0) {
		make_root();
		int next = next_descriptor();
		context_init(&context, PLACE_INSIDE, PHASE_INSIDE);
		context.stage = world_directory();
		context.root = openat(context.stage, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
		context.secrets = context.userns = -1;
		for (uint32_t i = 0; i < list.count; i++)
			carry_out(&context, &list.operations[i]);
		close(context.root);
		if (context.secrets >= 0)
			close(context.secrets);
		require(next == next_descriptor());
		for (unsigned i = 0; i < context.secret_count; i++) {
			char number[24], name[64];
			TEXT(name, "secrets/", text_number(number, i));
			unlinkat(context.stage, name, 0);
		}
		/* Nothing has been made beside the root, and nothing but values where they are. */
		require(unlinkat(context.stage, "secrets", AT_REMOVEDIR) == 0);
		require(unlinkat(context.stage, "outside", AT_REMOVEDIR) == 0);
		oplist_free(&list);
	}
	free(bytes);
}

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../src/inroot.h"
#include "check.h"

static bool is_there(int root, const char *path, mode_t type)
{
	struct stat is;
	return fstatat(root, path, &is, AT_SYMLINK_NOFOLLOW) == 0 && (is.st_mode & S_IFMT) == type;
}

/* Makes `path`, then looks whether it is at `wanted`, by path from outside. */
static void check_made(int root, const char *path, const char *wanted)
{
	bool made = false;
	int fd = inroot_ensure(root, path, true, 0711, &made);
	CHECK(fd >= 0);
	CHECK(made);
	CHECK(is_there(root, wanted, S_IFDIR));
	if (fd >= 0)
		close(fd);
	fd = inroot_ensure(root, path, true, 0711, &made);
	CHECK(fd >= 0 && !made);
	if (fd >= 0)
		close(fd);
}

static void check_fails(int root, const char *path, int error)
{
	errno = 0;
	int fd = inroot_ensure(root, path, true, 0700, NULL);
	CHECK_NUMBER(fd, -1);
	CHECK_NUMBER(errno, error);
}

static void test_ensure(int root)
{
	check_made(root, "/a/b/c", "a/b/c");
	check_made(root, "a//x/./y/", "a/x/y");
	check_made(root, "/../../up", "up");
	CHECK(symlinkat("/made/by/link", root, "absolute") == 0);
	check_made(root, "/absolute", "made/by/link");
	check_made(root, "/absolute/more", "made/by/link/more");
	CHECK(symlinkat("../../../../../../relative/target", root, "a/b/out") == 0);
	check_made(root, "/a/b/out/in", "relative/target/in");
	CHECK(symlinkat("chain2", root, "chain1") == 0 && symlinkat("chain3", root, "chain2") == 0);
	check_made(root, "/chain1/x", "chain3/x");
	CHECK(symlinkat("loop", root, "loop") == 0);
	check_fails(root, "/loop/x", ELOOP);
	CHECK(symlinkat("/proc/self/root/tmp", root, "magic") == 0);
	check_made(root, "/magic/x", "proc/self/root/tmp/x");
	check_fails(root, "/missing/../x", ENOENT);
	int fd = openat(root, "file", O_CREAT | O_WRONLY, 0600);
	close(fd);
	check_fails(root, "/file/x", ENOTDIR);
	char name[300];
	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = 0;
	check_fails(root, name, ENAMETOOLONG);
}

static void test_guard(int root)
{
	CHECK(inroot_guard("/proc") == RESOLVE_NO_SYMLINKS && inroot_guard("dev/x") == RESOLVE_NO_SYMLINKS);
	CHECK(inroot_guard("//sys/fs") == RESOLVE_NO_SYMLINKS);
	CHECK(inroot_guard("/process") == 0 && inroot_guard("/a/proc") == 0 && inroot_guard("/") == 0);
	CHECK(symlinkat("a", root, "dev") == 0 && symlinkat("nowhere", root, "sys") == 0);
	check_fails(root, "/dev/x", ELOOP);
	check_fails(root, "/sys/x", ELOOP);
	check_fails(root, "/dev", ELOOP);
	check_fails(root, "/sys", ELOOP);
	CHECK(!is_there(root, "a/x2", S_IFDIR) && !is_there(root, "nowhere", S_IFDIR));
}

static void test_files_and_parents(int root)
{
	const char *name;
	bool made;
	int fd = inroot_ensure(root, "/new/dir/file", false, 0640, &made);
	CHECK(fd >= 0 && made && is_there(root, "new/dir/file", S_IFREG));
	close(fd);
	CHECK(symlinkat("elsewhere", root, "new/link") == 0);
	fd = inroot_ensure(root, "/new/link", false, 0640, &made);
	CHECK(fd >= 0 && is_there(root, "new/elsewhere", S_IFREG) && is_there(root, "new/link", S_IFLNK));
	close(fd);
	fd = inroot_parent(root, "/p/q/r", &name, true);
	CHECK(fd >= 0 && is_there(root, "p/q", S_IFDIR));
	CHECK_TEXT(name, "r");
	close(fd);
	fd = inroot_parent(root, "top", &name, false);
	CHECK(fd >= 0);
	close(fd);
	CHECK(inroot_parent(root, "/z/q/r", &name, false) < 0 && errno == ENOENT);
	static const char *const none[] = {"", "/", "/a/..", "/a/.", "..", "a/"};
	for (size_t i = 0; i < sizeof none / sizeof *none; i++)
		CHECK(inroot_parent(root, none[i], &name, true) < 0 && errno == EINVAL);
	CHECK(inroot_open(root, "/../../../../etc/passwd", O_RDONLY, 0) < 0);
	CHECK(symlinkat("/etc/passwd", root, "passwd") == 0);
	CHECK(inroot_open(root, "passwd", O_RDONLY, 0) < 0 && errno == ENOENT);
}

void test_inroot(void)
{
	int top = open(check_directory(), O_PATH | O_DIRECTORY);
	mkdirat(top, "inroot", 0700);
	int root = openat(top, "inroot", O_PATH | O_DIRECTORY);
	umask(0);
	test_ensure(root);
	test_guard(root);
	test_files_and_parents(root);
	close(root);
	close(top);
}

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../src/users.h"
#include "check.h"

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
			     "broken\n"
			     "::\n"
			     "neg:x:-1:0::/:\n"
			     "huge:x:4294967295:0::/:\n"
			     "over:x:18446744073709551616:0::/:\n"
			     "hex:x:0x10:0::/:\n"
			     "user:x:1000:1001:A User:/home/user:/bin/sh\n"
			     "long:x:1:1::/0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"
			     "89012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345"
			     "6789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789:/x\n"
			     "last:x:7:8::/last:/x";
static const char group[] = "root:x:0:\nuser:x:1001:\nstaff:x:50:last,user\nmore:x:51:user\nbad:x:99999999999:user\n"
			    "almost:x:52:use,users\nempty:x:53:,\nmax:x:4294967294:user";

static const char *match(const char *spec, struct user *user)
{
	return user_match(spec, passwd, sizeof passwd - 1, group, sizeof group - 1, user);
}

static void test_found(void)
{
	struct user user;
	CHECK(match("", &user) == NULL);
	CHECK_TEXT(user.home, "/root");
	CHECK(match("user", &user) == NULL);
	CHECK_NUMBER(user.uid, 1000);
	CHECK_NUMBER(user.gid, 1001);
	CHECK_TEXT(user.home, "/home/user");
	CHECK_NUMBER(user.group_count, 3);
	CHECK_NUMBER(user.groups[0], 50);
	CHECK_NUMBER(user.groups[2], 4294967294);
	CHECK(match("user:staff", &user) == NULL);
	CHECK_NUMBER(user.gid, 50);
	CHECK_NUMBER(user.group_count, 0);
	CHECK(match("user:", &user) == NULL);
	CHECK_NUMBER(user.gid, 1001);
	CHECK(match("4294967294:4294967294", &user) == NULL);
	CHECK_NUMBER(user.uid, 4294967294);
	CHECK(match("last", &user) == NULL);
	CHECK_NUMBER(user.gid, 8);
	CHECK(match("long", &user) == NULL);
	CHECK_TEXT(user.home, "/");
	CHECK(match(":50", &user) == NULL);
	CHECK_NUMBER(user.uid, 0);
	CHECK_NUMBER(user.gid, 50);
}

static void test_not_found(void)
{
	static const char *const wrong[] = {"nobody", "neg",  "huge",	     "over",	   "hex",	  "broken", "4294967295",
					    "user:x", "-1",   "user:bad",    "0x10",	   "user:4294967295",	    "us",
					    "users",  "a:b:c", "18446744073709551616", "user:18446744073709551616", "\n"};
	struct user user;
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		errno = 0;
		CHECK(match(wrong[i], &user) != NULL);
		CHECK(errno == EINVAL || errno == ENOENT);
	}
}

static void test_odd_files(void)
{
	static char huge[200 << 10], many[64 << 10];
	struct user user;
	memset(huge, 'x', sizeof huge);
	memcpy(huge + sizeof huge - 20, "\nuser:x:5:6::/h:/x\n", 19);
	CHECK(user_match("user", huge, sizeof huge, "", 0, &user) == NULL);
	CHECK_NUMBER(user.uid, 5);
	CHECK(user_match("user", "user\0:x:5:6::/h:/x\n", 19, "", 0, &user) != NULL);
	CHECK(user_match("user", "", 0, "", 0, &user) != NULL);
	size_t length = 0;
	for (int i = 0; i < 300; i++) {
		static const char line[] = "g:x:100:user\n";
		memcpy(many + length, line, sizeof line - 1);
		length += sizeof line - 1;
	}
	CHECK_TEXT(user_match("user", passwd, sizeof passwd - 1, many, length, &user), "more than 256 groups for");
}

static void write_file(int root, const char *name, size_t size)
{
	int fd = openat(root, name, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	CHECK(fd >= 0 && write(fd, passwd, sizeof passwd - 1) > 0);
	CHECK(size == 0 || ftruncate(fd, (off_t)size) == 0);
	close(fd);
}

static void test_below_a_root(void)
{
	struct user user;
	int top = open(check_directory(), O_PATH | O_DIRECTORY);
	mkdirat(top, "users", 0700);
	int root = openat(top, "users", O_PATH | O_DIRECTORY);
	CHECK(user_find(root, "1000", &user) == NULL);
	CHECK(user_find(root, "user", &user) != NULL);
	mkdirat(root, "etc", 0700);
	write_file(root, "etc/passwd", 0);
	CHECK(user_find(root, "user", &user) == NULL);
	CHECK_NUMBER(user.uid, 1000);
	write_file(root, "etc/passwd", (1 << 20) + 1);
	CHECK(user_find(root, "user", &user) != NULL);
	CHECK_NUMBER(errno, EFBIG);
	unlinkat(root, "etc/passwd", 0);
	mkfifoat(root, "etc/passwd", 0600);
	CHECK(user_find(root, "user", &user) != NULL);
	CHECK_NUMBER(errno, EINVAL);
	unlinkat(root, "etc/passwd", 0);
	CHECK(symlinkat("/etc/hostname", root, "etc/passwd") == 0);
	CHECK(user_find(root, "root", &user) != NULL);
	unlinkat(root, "etc/passwd", 0);
	CHECK(symlinkat("/proc/self/fd/0", root, "etc/passwd") == 0);
	CHECK(user_find(root, "root", &user) != NULL);
	close(root);
	close(top);
}

void test_users(void)
{
	test_found();
	test_not_found();
	test_odd_files();
	test_below_a_root();
}

/* Looks users up in /etc/passwd and /etc/group of an instance, which are as hostile as the rest of it. */
#ifndef USERS_H
#define USERS_H

#include <stddef.h>
#include <sys/types.h>

#include "context.h"

struct user {
	uid_t uid;
	gid_t gid;
	gid_t groups[GROUPS_MAX];
	size_t group_count;
	char home[HOME_MAX];
};

/* Finds "", "user", "uid", "user:group" or "uid:gid" below `root`. NULL, or what is wrong, with errno. */
const char *user_find(int root, const char *spec, struct user *user);

/* The same over the contents of the two files (may be NULL where a file is missing). */
const char *user_match(const char *spec, const char *passwd, size_t passwd_length, const char *group,
		       size_t group_length, struct user *user);

#endif

#define _GNU_SOURCE
#include "users.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inroot.h"
#include "text.h"

enum { FILE_LIMIT = 1 << 20, LINE_LIMIT = 64 << 10, FIELDS = 7 };

#define ID_LIMIT 0xfffffffeu

struct piece {
	const char *at;
	size_t length;
};

static bool same(struct piece piece, const char *text, size_t length)
{
	return piece.length == length && memcmp(piece.at, text, length) == 0;
}

static bool is_id(const char *text, size_t length, uint64_t *id)
{
	return text_parse(text, length, ID_LIMIT, id) == 0;
}

/* All digits: meant as a number, even where it is too large for one. */
static bool all_digits(const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (text[i] < '0' || text[i] > '9')
			return false;
	return length > 0;
}

/* Takes the next line, in fields. Longer ones than 64 KiB and those with a NUL are passed over. False at the end. */
static bool next_line(struct piece *left, struct piece fields[static FIELDS], size_t *count)
{
	while (left->length > 0) {
		const char *end = memchr(left->at, '\n', left->length);
		struct piece line = {left->at, end ? (size_t)(end - left->at) : left->length};
		size_t taken = line.length + (end != NULL);
		left->at += taken;
		left->length -= taken;
		if (line.length > LINE_LIMIT || memchr(line.at, 0, line.length) != NULL)
			continue;
		for (*count = 0; *count < FIELDS; ++*count) {
			const char *colon = *count < FIELDS - 1 ? memchr(line.at, ':', line.length) : NULL;
			fields[*count] = (struct piece){line.at, colon ? (size_t)(colon - line.at) : line.length};
			if (colon == NULL)
				break;
			line.length -= (size_t)(colon + 1 - line.at);
			line.at = colon + 1;
		}
		++*count;
		return true;
	}
	return false;
}

static bool lists_member(struct piece members, struct piece name)
{
	while (members.length > 0) {
		const char *comma = memchr(members.at, ',', members.length);
		size_t length = comma ? (size_t)(comma - members.at) : members.length;
		if (same(name, members.at, length))
			return true;
		length += comma != NULL;
		members.at += length;
		members.length -= length;
	}
	return false;
}

/* Fills in uid, gid and home from passwd. `name` becomes the login name, empty where the file has none. */
static const char *match_user(struct piece wanted, struct piece passwd, struct user *user, struct piece *name)
{
	struct piece fields[FIELDS];
	size_t count;
	uint64_t number = 0, uid, gid;
	bool numeric = all_digits(wanted.at, wanted.length);
	if (numeric && !is_id(wanted.at, wanted.length, &number))
		return "the uid is out of range:";
	while (next_line(&passwd, fields, &count)) {
		if (count < 6 || !is_id(fields[2].at, fields[2].length, &uid) || !is_id(fields[3].at, fields[3].length, &gid))
			continue;
		if (numeric ? uid != number : !same(wanted, fields[0].at, fields[0].length))
			continue;
		user->uid = (uid_t)uid;
		user->gid = (gid_t)gid;
		*name = fields[0];
		if (fields[5].length > 0 && fields[5].length < sizeof user->home) {
			memcpy(user->home, fields[5].at, fields[5].length);
			user->home[fields[5].length] = 0;
		}
		return NULL;
	}
	user->uid = (uid_t)number;
	errno = ENOENT;
	return numeric ? NULL : "no such user in /etc/passwd:";
}

static const char *match_group(struct piece wanted, struct piece group, struct user *user)
{
	struct piece fields[FIELDS];
	size_t count;
	uint64_t gid;
	if (all_digits(wanted.at, wanted.length)) {
		if (!is_id(wanted.at, wanted.length, &gid))
			return "the gid is out of range:";
		user->gid = (gid_t)gid;
		return NULL;
	}
	while (next_line(&group, fields, &count)) {
		if (count < 3 || !same(wanted, fields[0].at, fields[0].length) || !is_id(fields[2].at, fields[2].length, &gid))
			continue;
		user->gid = (gid_t)gid;
		return NULL;
	}
	errno = ENOENT;
	return "no such group in /etc/group:";
}

static const char *add_groups(struct piece name, struct piece group, struct user *user)
{
	struct piece fields[FIELDS];
	size_t count;
	uint64_t gid;
	while (name.length > 0 && next_line(&group, fields, &count)) {
		if (count < 4 || !is_id(fields[2].at, fields[2].length, &gid) || !lists_member(fields[3], name))
			continue;
		if (gid == user->gid)
			continue;
		if (user->group_count == GROUPS_MAX)
			return "more than 256 groups for";
		user->groups[user->group_count++] = (gid_t)gid;
	}
	return NULL;
}

const char *user_match(const char *spec, const char *passwd, size_t passwd_length, const char *group,
		       size_t group_length, struct user *user)
{
	const char *colon = strchr(spec, ':');
	struct piece name = {"", 0}, wanted = {spec, colon ? (size_t)(colon - spec) : strlen(spec)};
	*user = (struct user){.home = "/"};
	errno = EINVAL;
	if (wanted.length == 0)
		wanted = (struct piece){"0", 1};
	const char *error = match_user(wanted, (struct piece){passwd, passwd_length}, user, &name);
	if (error == NULL && colon != NULL && colon[1] != 0)
		error = match_group((struct piece){colon + 1, strlen(colon + 1)}, (struct piece){group, group_length}, user);
	else if (error == NULL)
		error = add_groups(name, (struct piece){group, group_length}, user);
	return error;
}

/* The whole file in memory of our own; missing is empty. NULL with errno when it is not a file or is too large. */
static char *load(int root, const char *path, size_t *length)
{
	struct stat is;
	char *contents = NULL;
	*length = 0;
	int fd = inroot_open(root, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR ? calloc(1, 1) : NULL;
	int error = fstat(fd, &is) < 0 ? errno : !S_ISREG(is.st_mode) ? EINVAL : is.st_size > FILE_LIMIT ? EFBIG : 0;
	if (!error && (contents = malloc(FILE_LIMIT + 1)) == NULL)
		error = ENOMEM;
	while (!error && *length <= FILE_LIMIT) {
		ssize_t got = read(fd, contents + *length, FILE_LIMIT + 1 - *length);
		if (got <= 0) {
			error = got < 0 ? errno : 0;
			break;
		}
		*length += (size_t)got;
	}
	if (!error && *length > FILE_LIMIT)
		error = EFBIG; /* it has grown since */
	close(fd);
	if (error) {
		free(contents);
		errno = error;
		return NULL;
	}
	return contents;
}

const char *user_find(int root, const char *spec, struct user *user)
{
	size_t passwd_length, group_length;
	char *passwd = load(root, "/etc/passwd", &passwd_length);
	if (passwd == NULL)
		return "cannot read /etc/passwd (a file of at most 1 MiB) to find";
	char *group = load(root, "/etc/group", &group_length);
	const char *error = "cannot read /etc/group (a file of at most 1 MiB) to find";
	if (group != NULL)
		error = user_match(spec, passwd, passwd_length, group, group_length, user);
	int saved = errno;
	free(passwd);
	free(group);
	errno = saved;
	return error;
}

#include "oplist.h"

#include <stdlib.h>
#include <string.h>

enum { PATH_LIMIT = 4095 };

#define S PLACE_SUPERVISOR
#define T PLACE_STAGE
#define C PLACE_INSIDE
#define E PLACE_JOINED

/* p: a path (text that is not empty), t: text, i: integer, b: bytes; a last * repeats what is before it. */
static const struct {
	uint16_t code, places;
	char arguments[8];
} rules[] = {
	{OP_MKDIR, S | T | C, "pi"},
	{OP_RMDIR, S | T | C, "p"},
	{OP_WRITE, S | T | C, "pb"},
	{OP_READ, S | T | C, "p"},
	{OP_UNLINK, S | T | C, "p"},
	{OP_KILLALL, S | T | C, "p"},
	{OP_CHOWN, S | T, "pii"},
	{OP_STAGE, T, "p"},
	{OP_ATTACH, T, "ppii"},
	{OP_OVERLAY, T, "pttpi"},
	{OP_ROOT, T | C, "p"},
	{OP_MOUNTDEV, T, "pppit"},
	{OP_MOUNT, T | C, "ptpit"},
	{OP_BIND, T, "ppii"},
	{OP_REBIND, T | C, "ppii"},
	{OP_MASK, C, "p"},
	{OP_MKDIRS, T | C, "piii"},
	{OP_FILE, T | C, "piiib"},
	{OP_SYMLINK, T | C, "pp"},
	{OP_DEVICE, T, "pp"},
	{OP_PIVOT, C, ""},
	{OP_SYSCTL, T | C, "pb"},
	{OP_HOSTNAME, S | C, "t"},
	{OP_CONSOLE, C | E, ""},
	{OP_LOOPBACK, T | C, ""},
	{OP_SECRET, C, "piiib"},
	{OP_CHDIR, C | E, "pi"},
	{OP_RLIMIT, C | E, "iii"},
	{OP_USER, C | E, "ti*"},
	{OP_CAPS, C | E, "iiiii"},
	{OP_NO_NEW_PRIVS, C | E, ""},
	{OP_SECCOMP, C | E, "b"},
	{OP_UMASK, C | E, "i"},
	{OP_OOM_SCORE, C | E, "i"},
	{OP_KEYRING, C | E, ""},
	{OP_ENV, C | E, "t*"},
	{OP_EXEC, C | E, "t*"},
	{OP_ARGS, C | E, "t*"},
	{OP_INHERIT, C, "i"},
	{OP_SECCOMP_FIRST, C | E, "b"},
	{OP_PROGRAM, C | E, "b"},
	{OP_MODULE, S | T, "p"},
	{OP_CLOCK, S | T, "ii"},
	{OP_ENTROPY, S | T, "b"},
	{OP_NETIF, S | T, "pbttit*"},
	{OP_POWEROFF, S | T, ""},
	{OP_SYNC, S | T, ""},
	{OP_GROW, S | T, "pi"},
	{OP_SERVE, S, "p"},
	{OP_MACVLAN, T, "ppb"},
};

#undef S
#undef T
#undef C
#undef E

static const char *rule_of(uint16_t code, enum place place, const char **error)
{
	for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
		if (rules[i].code != code)
			continue;
		if (!(rules[i].places & place))
			*error = "this operation has no place in this list";
		return rules[i].arguments;
	}
	*error = "unknown operation";
	return "";
}

static const char *argument_error(char kind, const struct argument *argument)
{
	if (kind == 'i' && argument->length != 8)
		return "an integer argument is not 8 bytes long";
	if (kind != 'p' && kind != 't')
		return NULL;
	if (memchr(argument->data, 0, argument->length) != NULL)
		return "a text argument has a NUL inside";
	if (kind == 'p' && (argument->length == 0 || argument->length > PATH_LIMIT))
		return "a path is empty or longer than 4095 bytes";
	return NULL;
}

static const char *check(const struct operation *operation, enum place place)
{
	const char *error = NULL, *kinds = rule_of(operation->code, place, &error);
	unsigned index = 0;
	if (error == NULL && (operation->flags & ~(OPERATION_OPTIONAL | OPERATION_REPORT)))
		return "unknown flags";
	for (; error == NULL && index < operation->count; index++) {
		if (*kinds == 0)
			return "too many arguments";
		error = argument_error(*kinds, &operation->arguments[index]);
		if (kinds[1] != '*')
			kinds++;
	}
	if (error == NULL && *kinds != 0 && kinds[1] != '*')
		return "too few arguments";
	return error;
}

/* Walks over the list without changing it, to find how many arguments there are in all. */
static size_t count_arguments(struct reader reader, uint32_t operations)
{
	size_t count = 0;
	for (uint32_t i = 0; i < operations && !reader.bad; i++) {
		read_bytes(&reader, 3);
		for (unsigned left = read_u8(&reader); left > 0 && !reader.bad; left--, count++)
			read_bytes(&reader, read_u32(&reader));
	}
	return count;
}

static int fail(struct oplist *list, struct oplist_error *error, uint32_t index, uint16_t code, const char *text)
{
	oplist_free(list);
	*error = (struct oplist_error){index, code, text};
	return -1;
}

int oplist_parse(struct reader *reader, enum place place, struct oplist *list, struct oplist_error *error)
{
	const unsigned char *begin = reader->at;
	*list = (struct oplist){0};
	uint32_t count = read_u32(reader);
	if (reader->bad || count > LIST_MAX_OPERATIONS || count > read_left(reader) / 4)
		return fail(list, error, 0, 0, "the list is cut off or has more than 4096 operations");
	list->operations = calloc(count + (size_t)1, sizeof *list->operations);
	list->arguments = calloc(count_arguments(*reader, count) + 1, sizeof *list->arguments);
	if (list->operations == NULL || list->arguments == NULL)
		return fail(list, error, 0, 0, "out of memory");
	struct argument *next = list->arguments;
	for (; list->count < count; list->count++) {
		struct operation *operation = &list->operations[list->count];
		operation->code = read_u16(reader);
		operation->flags = read_u8(reader);
		operation->count = read_u8(reader);
		operation->arguments = next;
		for (unsigned i = 0; i < operation->count && !reader->bad; i++, next++)
			next->data = read_block(reader, LIST_MAX_BYTES, &next->length);
		if (reader->bad || reader->at - begin > LIST_MAX_BYTES)
			return fail(list, error, list->count, 0, "the list is cut off or longer than 1 MiB");
		const char *text = check(operation, place);
		if (text != NULL)
			return fail(list, error, list->count, operation->code, text);
	}
	return 0;
}

void oplist_free(struct oplist *list)
{
	free(list->operations);
	free(list->arguments);
	*list = (struct oplist){0};
}

uint64_t operation_integer(const struct operation *operation, unsigned index)
{
	struct reader reader = {.at = (unsigned char *)operation->arguments[index].data,
				.end = (unsigned char *)operation->arguments[index].data + 8};
	return read_u64(&reader);
}

/* What is fuzzed: everything that reads bytes which somebody else has written. */
#define _GNU_SOURCE
#include "fuzz.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../src/files.h"
#include "../src/requests.h"
#include "../src/supervisor.h"
#include "../src/users.h"
#include "fuzz_supervisor.h"
#include "fuzz_world.h"

/* Of exactly that size, so that each step beyond it is seen; freed by the caller. */
static unsigned char *copy_of(const uint8_t *data, size_t size)
{
	unsigned char *copy = malloc(size ? size : 1);
	if (copy == NULL)
		abort();
	memcpy(copy, data, size);
	return copy;
}

static void fuzz_frames(const uint8_t *data, size_t size)
{
	struct frame frame;
	for (; size >= FRAME_HEADER; data++, size--)
		if ((frame_parse(data, &frame) == 0 || frame_parse_answer(data, &frame) == NULL) && frame.length > FRAME_MAX)
			abort();
}

static void fuzz_start(const uint8_t *data, size_t size)
{
	struct start_request request;
	struct oplist_error error = {0};
	unsigned char *bytes = copy_of(data, size);
	if (start_parse(bytes, size, &request, &error) == 0)
		start_free(&request);
	else if (error.text == NULL)
		abort();
	free(bytes);
}

static void fuzz_exec(const uint8_t *data, size_t size)
{
	struct exec_request request;
	struct oplist_error error = {0};
	unsigned char *bytes = copy_of(data, size);
	if (exec_parse(bytes, size, &request, &error) == 0)
		exec_free(&request);
	else if (error.text == NULL)
		abort();
	free(bytes);
}

static void use_list(const struct oplist *list)
{
	volatile size_t sum = 0;
	for (uint32_t i = 0; i < list->count; i++)
		for (unsigned k = 0; k < list->operations[i].count; k++) {
			const struct argument *argument = &list->operations[i].arguments[k];
			sum += strlen(argument->data);
			if (argument->length == 8)
				sum += operation_integer(&list->operations[i], k);
			if (argument->data[argument->length] != 0)
				abort();
		}
}

static void fuzz_list(const uint8_t *data, size_t size)
{
	struct oplist list;
	struct oplist_error error;
	if (size == 0)
		return;
	unsigned char *bytes = copy_of(data + 1, size - 1);
	struct reader reader = {.at = bytes, .end = bytes + size - 1};
	if (oplist_parse(&reader, (enum place)(1 << (data[0] & 3)), &list, &error) == 0) {
		use_list(&list);
		oplist_free(&list);
	}
	free(bytes);
}

static void fuzz_users(const uint8_t *data, size_t size)
{
	struct user user;
	char spec[64];
	if (size < 2)
		return;
	size_t length = data[0] % sizeof spec, half = size - 2;
	if (length > size - 2)
		length = size - 2;
	memcpy(spec, data + 2, length);
	spec[length] = 0;
	half = length + (half - length) * data[1] / 256;
	unsigned char *passwd = copy_of(data + 2 + length, half - length), *group = copy_of(data + 2 + half, size - 2 - half);
	const char *error = user_match(spec, (char *)passwd, half - length, (char *)group, size - 2 - half, &user);
	if (error == NULL && (user.uid == (uid_t)-1 || user.gid == (gid_t)-1 || user.group_count > GROUPS_MAX))
		abort();
	free(passwd);
	free(group);
}

static void fuzz_files(const uint8_t *data, size_t size)
{
	struct buffer answer = {0};
	unsigned char *bytes = copy_of(data, size);
	files_answer(world_directory(), bytes, size, &answer);
	if (answer.length < 8 || answer.length > DATA_MAX)
		abort();
	buffer_free(&answer);
	free(bytes);
}

/* Bytes of a connection, with what happens between them: the script is pairs of an action and a length. */
static void fuzz_connection(const uint8_t *data, size_t size)
{
	int peers[2] = {-1, -1};
	supervisor_fuzz_begin();
	while (size >= 2) {
		unsigned action = data[0] & 7, which = data[0] >> 7;
		size_t length = (size_t)data[1] * (data[0] & 64 ? 16 : 1);
		data += 2;
		size -= 2;
		if (length > size)
			length = size;
		/* The second one as a port, which outlives its peer. */
		if (peers[which] < 0)
			peers[which] = supervisor_fuzz_connect(which);
		if (action == 5) {
			world_behaviour((unsigned)length);
		} else if (action == 6) {
			world_end_one();
			supervisor_reap();
		} else if (action == 2 && world_guest() >= 0) { /* from the guest */
			if (send(world_guest(), data, length, MSG_NOSIGNAL) < 0)
				length = 0;
			if (length == 0)
				shutdown(world_guest(), SHUT_WR);
			data += length;
			size -= length;
		} else if (action == 7 && length == 0) {
			close(peers[which]);
			peers[which] = -1;
		} else {
			if (send(peers[which], data, length, MSG_NOSIGNAL) < 0)
				length = 0;
			data += length;
			size -= length;
		}
		supervisor_fuzz_steps(24);
		if (action & 1)
			for (int i = 0; i < 3; i++)
				if ((i < 2 ? peers[i] : world_guest()) >= 0)
					supervisor_fuzz_swallow(i < 2 ? peers[i] : world_guest());
	}
	for (int i = 0; i < 2; i++)
		if (peers[i] >= 0)
			close(peers[i]);
	supervisor_fuzz_steps(24);
	supervisor_fuzz_end();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const targets[FUZZ_TARGETS])(const uint8_t *, size_t) = {
		fuzz_frames, fuzz_start, fuzz_exec, fuzz_list, fuzz_users, fuzz_files, fuzz_connection, fuzz_guest,
		fuzz_secrets,
	};
	if (size > 0)
		targets[data[0] % FUZZ_TARGETS](data + 1, size - 1);
	return 0;
}

/* The file session. It runs as root of the instance, in its mounts, and touches nothing but through `root`. */
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "files_session.h"

const char *files_take_path(struct session *session)
{
	const char *path = read_text(&session->request, PATH_MAX - 1);
	return path != NULL ? path : "";
}

uint64_t files_take_integer(struct session *session)
{
	if (read_u32(&session->request) != 8)
		session->request.bad = true;
	return read_u64(&session->request);
}

bool files_complete(const struct session *session)
{
	return !session->request.bad && session->request.at == session->request.end;
}

static int (*const requests[])(struct session *) = {
	[1] = files_stat,  [2] = files_list,	[3] = files_read,  [4] = files_create, [5] = files_write,
	[6] = files_mkdir, [7] = files_symlink, [8] = files_times, [9] = files_link,   [10] = files_owner,
	[11] = files_remove, [12] = files_pipe, [13] = files_truncate, [14] = files_data,
	[15] = files_list_attributes, [16] = files_set_attribute,
};

void files_answer(int root, unsigned char *request, size_t length, struct buffer *answer)
{
	struct session session = {.root = root, .request = {.at = request, .end = request + length}, .answer = *answer};
	static const unsigned char head[8];
	uint8_t code = read_u8(&session.request);
	int error = EPROTO;
	if (buffer_append(&session.answer, head, sizeof head) == 0 && code < sizeof requests / sizeof *requests &&
	    requests[code] != NULL)
		error = requests[code](&session);
	if (error && session.answer.length > sizeof head)
		session.answer.length = sizeof head; /* nothing of a body that failed */
	if (session.answer.length >= sizeof head) {
		write_integer(buffer_contents(&session.answer), session.answer.length - 4, 4);
		write_integer(buffer_contents(&session.answer) + 4, (uint32_t)error, 4);
	}
	*answer = session.answer;
}

static bool read_all(int fd, unsigned char *to, size_t length)
{
	while (length > 0) {
		ssize_t got = read(fd, to, length);
		if (got <= 0)
			return false;
		to += got;
		length -= (size_t)got;
	}
	return true;
}

static bool write_all(int fd, struct buffer *from)
{
	while (from->length > 0) {
		ssize_t written = write(fd, buffer_contents(from), from->length);
		if (written < 0)
			return false;
		buffer_consume(from, (size_t)written);
	}
	return true;
}

void files_serve(int root, int in, int out)
{
	unsigned char head[4];
	unsigned char *request = malloc(FILES_REQUEST_MAX);
	while (request != NULL && read_all(in, head, sizeof head)) {
		struct reader reader = {.at = head, .end = head + sizeof head};
		struct buffer answer = {0};
		uint32_t length = read_u32(&reader);
		if (length == 0 || length > FILES_REQUEST_MAX || !read_all(in, request, length))
			break;
		files_answer(root, request, length, &answer);
		if (!write_all(out, &answer))
			break;
	}
	free(request);
}

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../src/files.h"
#include "../src/reader.h"
#include "build.h"
#include "check.h"

/* Asks with a copy of exactly that size; gives the error and leaves the body in `answer`. */
static int ask(int root, struct buffer *request, size_t length, struct buffer *answer)
{
	unsigned char *bytes = malloc(length ? length : 1);
	if (bytes == NULL)
		abort();
	memcpy(bytes, request->data, length);
	buffer_free(answer);
	files_answer(root, bytes, length, answer);
	free(bytes);
	struct reader reader = {.at = buffer_contents(answer), .end = buffer_contents(answer) + answer->length};
	CHECK_NUMBER(read_u32(&reader), answer->length - 4);
	return (int)read_u32(&reader);
}

static void put_request(struct buffer *to, unsigned code, const char *path)
{
	buffer_free(to);
	put_integer(to, code, 1);
	put_text(to, path);
}

static void put_number(struct buffer *to, uint64_t value)
{
	put_integer(to, 8, 4);
	put_integer(to, value, 8);
}

static void test_requests_cut_off(int root)
{
	struct buffer request = {0}, answer = {0};
	put_request(&request, 4, "/cut");
	put_number(&request, 0600);
	put_number(&request, 0);
	put_number(&request, 0);
	for (size_t length = 0; length < request.length; length++)
		CHECK_NUMBER(ask(root, &request, length, &answer), EPROTO);
	CHECK(faccessat(root, "cut", F_OK, 0) < 0);
	put_integer(&request, 0, 1);
	CHECK_NUMBER(ask(root, &request, request.length, &answer), EPROTO);
	CHECK(faccessat(root, "cut", F_OK, 0) < 0);
	buffer_free(&request);
	buffer_free(&answer);
}

static void test_write_and_read(int root)
{
	struct buffer request = {0}, answer = {0};
	put_request(&request, 4, "/file");
	put_number(&request, 0640);
	put_number(&request, getuid());
	put_number(&request, getgid());
	CHECK_NUMBER(ask(root, &request, request.length, &answer), 0);
	put_request(&request, 5, "/file");
	put_number(&request, 3);
	put_text(&request, "content");
	CHECK_NUMBER(ask(root, &request, request.length, &answer), 0);
	put_request(&request, 3, "/file");
	put_number(&request, 1);
	put_number(&request, 48 << 10);
	CHECK_NUMBER(ask(root, &request, request.length, &answer), 0);
	CHECK_NUMBER(answer.length, 8 + 9);
	CHECK(memcmp(buffer_contents(&answer) + 8, "\0\0content", 9) == 0);
	put_request(&request, 1, "/file");
	put_number(&request, 0);
	CHECK_NUMBER(ask(root, &request, request.length, &answer), 0);
	CHECK_NUMBER(answer.length, 8 + 56);
	put_request(&request, 2, "/");
	put_number(&request, 0);
	CHECK_NUMBER(ask(root, &request, request.length, &answer), 0);
	CHECK_NUMBER(answer.length, 8 + 8 + 56 + 4);
	buffer_free(&request);
	buffer_free(&answer);
}

static void test_attributes_and_removal(int root)
{
	struct buffer request = {0}, answer = {0};
	put_request(&request, 16, "/file");
	put_text(&request, "user.kind");
	put_text(&request, "test");
	CHECK_NUMBER(ask(root, &request, request.length, &answer), 0);
	put_request(&request, 15, "/file");
	CHECK_NUMBER(ask(root, &request, request.length, &answer), 0);
	CHECK(answer.length >= 8 + 4 + 9 + 4 + 4);
	put_request(&request, 10, "/file");
	put_number(&request, 04711);
	put_number(&request, getuid());
	put_number(&request, getgid());
	CHECK_NUMBER(ask(root, &request, request.length, &answer), 0);
	put_request(&request, 13, "/file");
	put_number(&request, 1 << 20);
	CHECK_NUMBER(ask(root, &request, request.length, &answer), 0);
	put_request(&request, 14, "/file");
	put_number(&request, 0);
	CHECK_NUMBER(ask(root, &request, request.length, &answer), 0);
	CHECK_NUMBER(answer.length, 8 + 16);
	put_request(&request, 12, "/pipe");
	put_number(&request, 0600);
	put_number(&request, getuid());
	put_number(&request, getgid());
	CHECK_NUMBER(ask(root, &request, request.length, &answer), 0);
	put_request(&request, 15, "/pipe");
	CHECK_NUMBER(ask(root, &request, request.length, &answer), EINVAL);
	put_request(&request, 11, "/pipe");
	CHECK_NUMBER(ask(root, &request, request.length, &answer), 0);
	CHECK_NUMBER(ask(root, &request, request.length, &answer), ENOENT);
	put_request(&request, 11, "/");
	CHECK(ask(root, &request, request.length, &answer) != 0);
	buffer_free(&request);
	buffer_free(&answer);
}

void test_files(void)
{
	int top = open(check_directory(), O_PATH | O_DIRECTORY);
	mkdirat(top, "files", 0700);
	int root = openat(top, "files", O_PATH | O_DIRECTORY);
	test_requests_cut_off(root);
	test_write_and_read(root);
	test_attributes_and_removal(root);
	close(root);
	close(top);
}

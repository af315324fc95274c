#define _GNU_SOURCE
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "../src/requests.h"
#include "build.h"
#include "check.h"

/* A copy of exactly that size, so that the sanitizer sees every step beyond it. */
static unsigned char *exact(const struct buffer *of, size_t length)
{
	unsigned char *copy = malloc(length ? length : 1);
	if (copy == NULL)
		abort();
	memcpy(copy, of->data, length);
	return copy;
}

static void test_start(void)
{
	struct buffer payload = {0};
	struct start_request request;
	struct oplist_error error = {0};
	put_start(&payload);
	unsigned char *bytes = exact(&payload, payload.length);
	CHECK(start_parse(bytes, payload.length, &request, &error) == 0);
	CHECK_NUMBER(request.clone_flags, CLONE_NEWUSER | CLONE_NEWPID);
	CHECK_NUMBER(request.id_base, 100000);
	CHECK_NUMBER(request.joins.count, 2);
	CHECK_TEXT(request.joins.paths[1], "/group/two/tasks");
	CHECK_TEXT(request.kill, "/group/one/cgroup.procs");
	CHECK_NUMBER(request.prepare.count, 3);
	CHECK_TEXT(request.prepare.operations[0].arguments[0].data, "/group/one");
	CHECK_NUMBER(operation_integer(&request.prepare.operations[0], 1), 0755);
	CHECK_NUMBER(request.stage.count, 5);
	CHECK_NUMBER(operation_integer(&request.stage.operations[4], 3), 3);
	CHECK_NUMBER(request.inside.count, 14);
	CHECK_TEXT(request.inside.operations[13].arguments[1].data, "two");
	CHECK_NUMBER(request.finish_length, 4 + 4 + 4 + 15 + 4 + 4 + 10);
	size_t before_finish = payload.length - request.finish_length;
	start_free(&request);
	free(bytes);
	/* Cut off anywhere in the lists before the last, it is refused. */
	for (size_t length = 0; length < before_finish; length++) {
		bytes = exact(&payload, length);
		CHECK(start_parse(bytes, length, &request, &error) < 0);
		CHECK(error.text != NULL);
		free(bytes);
	}
	buffer_free(&payload);
}

static void test_exec(void)
{
	struct buffer payload = {0};
	struct exec_request request;
	struct oplist_error error = {0};
	put_exec(&payload);
	unsigned char *bytes = exact(&payload, payload.length);
	CHECK(exec_parse(bytes, payload.length, &request, &error) == 0);
	CHECK_NUMBER(request.inside.count, 10);
	CHECK_NUMBER(request.rows, 24);
	exec_free(&request);
	free(bytes);
	for (size_t length = 0; length < payload.length; length++) {
		bytes = exact(&payload, length);
		CHECK(exec_parse(bytes, length, &request, &error) < 0);
		free(bytes);
	}
	put_integer(&payload, 0, 1);
	bytes = exact(&payload, payload.length);
	CHECK(exec_parse(bytes, payload.length, &request, &error) < 0);
	CHECK_TEXT(error.text, "bytes after the end of the payload");
	free(bytes);
	buffer_free(&payload);
}

static const char *list_error(struct buffer *list, enum place place)
{
	struct oplist parsed;
	struct oplist_error error = {.text = ""};
	unsigned char *bytes = exact(list, list->length);
	struct reader reader = {.at = bytes, .end = bytes + list->length};
	if (oplist_parse(&reader, place, &parsed, &error) == 0)
		oplist_free(&parsed);
	free(bytes);
	buffer_free(list);
	return error.text;
}

static void test_lists(void)
{
	struct buffer list = {0};
	put_integer(&list, 4097, 4);
	CHECK_TEXT(list_error(&list, PLACE_INSIDE), "the list is cut off or has more than 4096 operations");
	put_integer(&list, 4096, 4);
	CHECK_TEXT(list_error(&list, PLACE_INSIDE), "the list is cut off or has more than 4096 operations");
	put_integer(&list, 4096, 4);
	for (int i = 0; i < 4096; i++)
		put_operation(&list, OP_PIVOT, 0, "");
	CHECK_TEXT(list_error(&list, PLACE_INSIDE), "");
	put_integer(&list, 1, 4);
	put_operation(&list, 999, 0, "");
	CHECK_TEXT(list_error(&list, PLACE_INSIDE), "unknown operation");
	put_integer(&list, 1, 4);
	put_operation(&list, OP_PIVOT, 4, "");
	CHECK_TEXT(list_error(&list, PLACE_INSIDE), "unknown flags");
	put_integer(&list, 1, 4);
	put_operation(&list, OP_PIVOT, 0, "");
	CHECK_TEXT(list_error(&list, PLACE_JOINED), "this operation has no place in this list");
	put_integer(&list, 1, 4);
	put_operation(&list, OP_PIVOT, 0, "p", "x");
	CHECK_TEXT(list_error(&list, PLACE_INSIDE), "too many arguments");
	put_integer(&list, 1, 4);
	put_operation(&list, OP_CHDIR, 0, "p", "x");
	CHECK_TEXT(list_error(&list, PLACE_INSIDE), "too few arguments");
	put_integer(&list, 1, 4);
	put_operation(&list, OP_CHDIR, 0, "pp", "x", "y");
	CHECK_TEXT(list_error(&list, PLACE_INSIDE), "an integer argument is not 8 bytes long");
	put_integer(&list, 1, 4);
	put_operation(&list, OP_CHDIR, 0, "pi", "", (uint64_t)0);
	CHECK_TEXT(list_error(&list, PLACE_INSIDE), "a path is empty or longer than 4095 bytes");
	put_integer(&list, 1, 4);
	put_integer(&list, OP_ROOT | 1 << 24, 4);
	put_block(&list, "a\0b", 3);
	CHECK_TEXT(list_error(&list, PLACE_STAGE), "a text argument has a NUL inside");
	put_integer(&list, 1, 4);
	put_integer(&list, OP_ENV | 1 << 24, 4);
	put_integer(&list, 0xffffffff, 4);
	CHECK_TEXT(list_error(&list, PLACE_INSIDE), "the list is cut off or longer than 1 MiB");
}

static void test_long_list(void)
{
	struct buffer list = {0};
	static char text[1 << 18];
	memset(text, 'x', sizeof text - 1);
	put_integer(&list, 5, 4);
	for (int i = 0; i < 5; i++)
		put_operation(&list, OP_ENV, 0, "p", text);
	CHECK_TEXT(list_error(&list, PLACE_INSIDE), "the list is cut off or longer than 1 MiB");
}

void test_requests(void)
{
	test_start();
	test_exec();
	test_lists();
	test_long_list();
}

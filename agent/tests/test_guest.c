#define _GNU_SOURCE
#include <errno.h>

#include "../src/context.h"
#include "../src/guest.h"
#include "build.h"
#include "check.h"

/* Carries out a list of one operation, which is freed. The error, 0 when there was none, -1 when it is no list. */
static int run(struct buffer *one)
{
	struct buffer list = {0};
	struct oplist parsed;
	struct oplist_error error;
	struct context context;
	int result = -1;
	put_integer(&list, 1, 4);
	buffer_append(&list, one->data, one->length);
	buffer_free(one);
	struct reader reader = {.at = list.data, .end = list.data + list.length};
	context_init(&context, PLACE_SUPERVISOR, PHASE_RUN);
	if (oplist_parse(&reader, PLACE_SUPERVISOR, &parsed, &error) == 0) {
		result = operations_run(&context, &parsed) < 0 ? context.failure.error : 0;
		CHECK((result == 0) == (context.failure.text[0] == 0));
		oplist_free(&parsed);
	}
	buffer_free(&list);
	return result;
}

static int run_simple(unsigned code, const char *kinds, const char *text)
{
	struct buffer one = {0};
	put_operation(&one, code, 0, kinds, text, (uint64_t)0);
	return run(&one);
}

/* None of them reaches the machine that the tests run on: each is refused, or wrong in itself. */
void test_guest(void)
{
	struct buffer one = {0};
	in_guest = false;
	CHECK_NUMBER(run_simple(OP_HOSTNAME, "p", "elsewhere"), EPERM);
	CHECK_NUMBER(run_simple(OP_MODULE, "p", "/nowhere.ko"), EPERM);
	CHECK_NUMBER(run_simple(OP_ENTROPY, "p", "0123456789abcdef0123456789abcdef"), EPERM);
	CHECK_NUMBER(run_simple(OP_POWEROFF, "", ""), EPERM);
	CHECK_NUMBER(run_simple(OP_SYNC, "", ""), EPERM);
	CHECK_NUMBER(run_simple(OP_GROW, "pi", "/dev/vda"), EPERM);
	put_operation(&one, OP_CLOCK, 0, "ii", (uint64_t)1, (uint64_t)2);
	CHECK_NUMBER(run(&one), EPERM);
	put_operation(&one, OP_NETIF, 0, "ppppi", "lo", "", "", "", (uint64_t)0);
	CHECK_NUMBER(run(&one), EPERM);
	in_guest = true;
	CHECK_NUMBER(run_simple(OP_MODULE, "p", "/nowhere.ko"), ENOENT);
	CHECK_NUMBER(run_simple(OP_ENTROPY, "p", "0123456789abcdef0123456789abcde"), EINVAL);
	put_operation(&one, OP_CLOCK, 0, "ii", (uint64_t)1, (uint64_t)1000000000);
	CHECK_NUMBER(run(&one), EINVAL);
	put_operation(&one, OP_NETIF, 0, "ppppi", "bulkhead-none", "", "", "", (uint64_t)0);
	CHECK_NUMBER(run(&one), ENODEV);
	put_operation(&one, OP_NETIF, 0, "ppppi", "much-too-long-for-a-name", "", "", "", (uint64_t)0);
	CHECK_NUMBER(run(&one), ENAMETOOLONG);
	put_operation(&one, OP_NETIF, 0, "ppppi", "bulkhead-none", "12345", "", "", (uint64_t)0);
	CHECK_NUMBER(run(&one), EINVAL);
	put_operation(&one, OP_NETIF, 0, "ppppi", "bulkhead-none", "", "", "", (uint64_t)65536);
	CHECK_NUMBER(run(&one), EINVAL);
	put_operation(&one, OP_NETIF, 0, "ppp", "bulkhead-none", "", "");
	CHECK_NUMBER(run(&one), -1);
	in_guest = false;
}

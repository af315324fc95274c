#define _GNU_SOURCE
#include "build.h"

#include <sched.h>
#include <stdarg.h>
#include <string.h>

#include "../src/protocol.h"
#include "../src/reader.h"

void put_integer(struct buffer *to, uint64_t value, size_t size)
{
	unsigned char bytes[8];
	write_integer(bytes, value, size);
	buffer_append(to, bytes, size);
}

void put_block(struct buffer *to, const void *data, size_t length)
{
	put_integer(to, length, 4);
	buffer_append(to, data, length);
}

void put_text(struct buffer *to, const char *text)
{
	put_block(to, text, strlen(text));
}

void put_operation(struct buffer *to, unsigned code, unsigned flags, const char *kinds, ...)
{
	va_list values;
	put_integer(to, code, 2);
	put_integer(to, flags, 1);
	put_integer(to, strlen(kinds), 1);
	va_start(values, kinds);
	for (; *kinds; kinds++) {
		if (*kinds == 'i') {
			put_integer(to, 8, 4);
			put_integer(to, va_arg(values, uint64_t), 8);
		} else {
			put_text(to, va_arg(values, const char *));
		}
	}
	va_end(values);
}

#define N(value) ((uint64_t)(value))

static void put_inside(struct buffer *to)
{
	put_operation(to, OP_CONSOLE, 0, "");
	put_operation(to, OP_CHDIR, 0, "pi", "/srv", N(1));
	put_operation(to, OP_RLIMIT, 1, "iii", N(7), N(10), N(20));
	put_operation(to, OP_USER, 0, "pii", "user:group", N(4), N(5));
	put_operation(to, OP_CAPS, 0, "iiiii", N(1), N(1), N(1), N(0), N(0));
	put_operation(to, OP_SECCOMP, 0, "p", "12345678");
	put_operation(to, OP_OOM_SCORE, 1, "i", N(100));
	put_operation(to, OP_ENV, 0, "pp", "A=B", "PATH=/bin");
	put_operation(to, OP_ARGS, 0, "p", "echo");
	put_operation(to, OP_EXEC, 0, "pp", "one", "two");
}

void put_start(struct buffer *to)
{
	static const uint32_t head[] = {START_STDIN, CLONE_NEWUSER | CLONE_NEWPID, CLONE_NEWNS, 100000, 65536};
	for (size_t i = 0; i < 5; i++)
		put_integer(to, head[i], 4);
	put_integer(to, 24, 2);
	put_integer(to, 80, 2);
	put_integer(to, 1 << 20, 4);
	put_integer(to, 3, 4);
	put_text(to, "");
	put_integer(to, 2, 4);
	put_text(to, "/group/one/tasks");
	put_text(to, "/group/two/tasks");
	put_text(to, "/group/one/cgroup.procs");
	put_integer(to, 3, 4);
	put_operation(to, OP_MKDIR, 0, "pi", "/group/one", N(0755));
	put_operation(to, OP_CHOWN, 0, "pii", "/group/one", N(1000), N(1000));
	put_operation(to, OP_WRITE, 1, "pp", "/group/one/limit", "100");
	put_integer(to, 5, 4);
	put_operation(to, OP_STAGE, 0, "p", "/stage");
	put_operation(to, OP_ATTACH, 0, "ppii", "/layer", "l", N(1), N(1));
	put_operation(to, OP_OVERLAY, 0, "ppppi", "l", "d/u", "d/w", "root", N(4));
	put_operation(to, OP_ROOT, 0, "p", "root");
	put_operation(to, OP_BIND, 0, "ppii", "/data", "/data", N(0), N(3));
	put_integer(to, 14, 4);
	put_operation(to, OP_MOUNT, 0, "pppip", "proc", "proc", "/proc", N(14), "");
	put_operation(to, OP_MASK, 0, "p", "/proc/kcore");
	put_operation(to, OP_SECRET, 0, "piiip", "/run/secrets/key", N(0400), N(7), N(9), "the value");
	put_operation(to, OP_PIVOT, 0, "");
	put_inside(to);
	put_integer(to, 2, 4);
	put_operation(to, OP_READ, 3, "p", "/group/one/peak");
	put_operation(to, OP_RMDIR, 0, "p", "/group/one");
}

void put_exec(struct buffer *to)
{
	put_integer(to, EXEC_STDIN, 4);
	put_integer(to, CLONE_NEWNS | CLONE_NEWPID, 4);
	put_integer(to, 24, 2);
	put_integer(to, 80, 2);
	put_integer(to, 1, 4);
	put_text(to, "/group/one/tasks");
	put_integer(to, 10, 4);
	put_inside(to);
}

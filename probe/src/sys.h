/* System calls, and what a program without a libc needs besides. A call answers -errno, as the kernel does. */
#ifndef SYS_H
#define SYS_H

#include <asm/unistd.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef __x86_64__
#error "the probe knows x86_64 alone"
#endif

#define NONE 0L
#define CURRENT_DIRECTORY (-100L)

/* Six arguments, given or zero: sys(__NR_close, fd). */
#define sys(...) SYS_CHOOSE(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)
#define SYS_CHOOSE(number, a, b, c, d, e, f, ...) \
	raw_call(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

long raw_call(long number, long a, long b, long c, long d, long e, long f);
/* By int $0x80: numbers and arguments of i386, of which there are five here. */
long compat_call(long number, const long *arguments);

enum {
	EPERM = 1,
	EINTR = 4,
	EIO = 5,
	EAGAIN = 11,
	EINVAL = 22,
	ENOSYS = 38,
	EINPROGRESS = 115,
};

struct timing {
	long seconds, nanoseconds;
};

/* Milliseconds of a clock that only goes forwards. */
long now(void);
void rest(long milliseconds);

size_t length_of(const char *text);
bool same(const char *a, const char *b);
bool begins(const char *text, const char *beginning);
/* Reads the beginning of a file, and ends it with a NUL: the length, or -errno. */
long slurp(const char *path, char *into, size_t size);
/* A number at the beginning of a text; moves the text behind it. */
uint64_t number_at(const char **text, unsigned base);
/* Puts texts one behind the other, as many as fit; the last argument is NULL. */
void join(char *into, size_t size, ...);
/* The number in digits, in a buffer of the caller's. */
char *digits(char into[static 24], uint64_t value);

void *memset(void *to, int byte, size_t count);
void *memcpy(void *to, const void *from, size_t count);

#endif

#include "sys.h"

#include <stdarg.h>

long now(void)
{
	struct timing time = {0};
	sys(__NR_clock_gettime, 1, &time);
	return time.seconds * 1000 + time.nanoseconds / 1000000;
}

void rest(long milliseconds)
{
	struct timing time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
	sys(__NR_nanosleep, &time, NONE);
}

size_t length_of(const char *text)
{
	size_t length = 0;
	while (text[length])
		length++;
	return length;
}

bool same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

bool begins(const char *text, const char *beginning)
{
	while (*beginning && *text == *beginning)
		text++, beginning++;
	return *beginning == 0;
}

long slurp(const char *path, char *into, size_t size)
{
	long fd = sys(__NR_openat, CURRENT_DIRECTORY, path, 02000000), got = 0;
	size_t length = 0;
	if (fd < 0)
		return fd;
	while (length + 1 < size && (got = sys(__NR_read, fd, into + length, size - 1 - length)) > 0)
		length += (size_t)got;
	sys(__NR_close, fd);
	into[length] = 0;
	return got < 0 && length == 0 ? got : (long)length;
}

uint64_t number_at(const char **text, unsigned base)
{
	uint64_t value = 0;
	while (**text == ' ' || **text == '\t')
		(*text)++;
	for (;; (*text)++) {
		char letter = **text;
		unsigned digit = letter >= '0' && letter <= '9'	  ? (unsigned)(letter - '0')
				 : letter >= 'a' && letter <= 'f' ? (unsigned)(letter - 'a') + 10
								  : base;
		if (digit >= base)
			return value;
		value = value * base + digit;
	}
}

void join(char *into, size_t size, ...)
{
	va_list texts;
	size_t length = 0;
	va_start(texts, size);
	for (const char *text = va_arg(texts, const char *); text != NULL; text = va_arg(texts, const char *))
		while (*text && length + 1 < size)
			into[length++] = *text++;
	va_end(texts);
	into[length] = 0;
}

char *digits(char into[static 24], uint64_t value)
{
	size_t at = 23;
	into[at] = 0;
	do
		into[--at] = (char)('0' + value % 10);
	while (value /= 10);
	return into + at;
}

void *memset(void *to, int byte, size_t count)
{
	volatile unsigned char *at = to;
	while (count--)
		*at++ = (unsigned char)byte;
	return to;
}

void *memcpy(void *to, const void *from, size_t count)
{
	volatile unsigned char *at = to;
	const unsigned char *source = from;
	while (count--)
		*at++ = *source++;
	return to;
}

#include "text.h"

#include <string.h>

size_t text_join(char *to, size_t size, const char *const *parts)
{
	size_t length = 0;
	for (; *parts != NULL; parts++) {
		size_t part = strlen(*parts);
		if (part > size - 1 - length)
			part = size - 1 - length;
		memcpy(to + length, *parts, part);
		length += part;
	}
	to[length] = 0;
	return length;
}

const char *text_digits(char space[static 24], uint64_t value, unsigned digits)
{
	char *at = space + 23;
	*at = 0;
	for (unsigned i = 0; i < 23 && (i < digits || value > 0); i++) {
		*--at = (char)('0' + value % 10);
		value /= 10;
	}
	return at;
}

const char *text_number(char space[static 24], uint64_t value)
{
	return text_digits(space, value, 1);
}

int text_parse(const char *text, size_t length, uint64_t max, uint64_t *value)
{
	uint64_t number = 0;
	if (length == 0 || length > 19)
		return -1;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -1;
		number = number * 10 + (uint64_t)(text[i] - '0');
	}
	if (number > max)
		return -1;
	*value = number;
	return 0;
}

#include "reader.h"

#include <string.h>

char *read_block(struct reader *reader, size_t max, size_t *length)
{
	unsigned char *at = reader->at;
	*length = read_u32(reader);
	if (*length > max)
		reader->bad = true;
	const unsigned char *bytes = read_bytes(reader, *length);
	if (bytes == NULL) {
		*length = 0;
		return NULL;
	}
	memmove(at, bytes, *length);
	at[*length] = 0;
	return (char *)at;
}

char *read_text(struct reader *reader, size_t max)
{
	size_t length;
	char *text = read_block(reader, max, &length);
	if (text != NULL && memchr(text, 0, length) != NULL) {
		reader->bad = true;
		return NULL;
	}
	return text;
}

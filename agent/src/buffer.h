/* A queue of bytes that has memory only while it has contents. */
#ifndef BUFFER_H
#define BUFFER_H

#include <stddef.h>

struct buffer {
	unsigned char *data;
	size_t start, length, capacity; /* the contents are data[start], length bytes */
};

/* Room for `size` bytes after the contents; NULL without memory. buffer_commit makes the first of them contents. */
unsigned char *buffer_reserve(struct buffer *buffer, size_t size);
void buffer_commit(struct buffer *buffer, size_t size);
/* 0, or -1 without memory: nothing was appended then. */
int buffer_append(struct buffer *buffer, const void *data, size_t size);
void buffer_consume(struct buffer *buffer, size_t size);
void buffer_free(struct buffer *buffer);

static inline unsigned char *buffer_contents(const struct buffer *buffer)
{
	return buffer->data + buffer->start;
}

#endif

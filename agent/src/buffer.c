#include "buffer.h"

#include <stdlib.h>
#include <string.h>

unsigned char *buffer_reserve(struct buffer *buffer, size_t size)
{
	if (buffer->start > 0 && buffer->capacity - buffer->start - buffer->length < size) {
		memmove(buffer->data, buffer->data + buffer->start, buffer->length);
		buffer->start = 0;
	}
	if (buffer->data == NULL || buffer->capacity - buffer->start - buffer->length < size) {
		size_t capacity = buffer->capacity ? buffer->capacity : 256;
		while (capacity < buffer->length + size)
			capacity *= 2;
		unsigned char *data = realloc(buffer->data, capacity);
		if (data == NULL)
			return NULL;
		buffer->data = data;
		buffer->capacity = capacity;
	}
	return buffer->data + buffer->start + buffer->length;
}

void buffer_commit(struct buffer *buffer, size_t size)
{
	buffer->length += size;
}

int buffer_append(struct buffer *buffer, const void *data, size_t size)
{
	if (size == 0)
		return 0;
	unsigned char *room = buffer_reserve(buffer, size);
	if (room == NULL)
		return -1;
	memcpy(room, data, size);
	buffer_commit(buffer, size);
	return 0;
}

void buffer_consume(struct buffer *buffer, size_t size)
{
	buffer->start += size;
	buffer->length -= size;
	if (buffer->length == 0)
		buffer_free(buffer);
}

void buffer_free(struct buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct buffer){0};
}

/* Reads little-endian fields from bytes that nobody vouches for. An error sticks: later reads give zeros. */
#ifndef READER_H
#define READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct reader {
	unsigned char *at, *end;
	bool bad;
};

static inline size_t read_left(const struct reader *reader)
{
	return (size_t)(reader->end - reader->at);
}

static inline unsigned char *read_bytes(struct reader *reader, size_t size)
{
	if (reader->bad || read_left(reader) < size) {
		reader->bad = true;
		return NULL;
	}
	unsigned char *at = reader->at;
	reader->at += size;
	return at;
}

static inline uint64_t read_integer(struct reader *reader, size_t size)
{
	const unsigned char *at = read_bytes(reader, size);
	uint64_t value = 0;
	for (size_t i = 0; at != NULL && i < size; i++)
		value |= (uint64_t)at[i] << (8 * i);
	return value;
}

static inline uint8_t read_u8(struct reader *reader) { return (uint8_t)read_integer(reader, 1); }
static inline uint16_t read_u16(struct reader *reader) { return (uint16_t)read_integer(reader, 2); }
static inline uint32_t read_u32(struct reader *reader) { return (uint32_t)read_integer(reader, 4); }
static inline uint64_t read_u64(struct reader *reader) { return read_integer(reader, 8); }

static inline void write_integer(unsigned char *to, uint64_t value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] = (unsigned char)(value >> (8 * i));
}

/* Takes a block (u32 length + bytes) and gives its bytes with a NUL after them: they are moved over the length. */
char *read_block(struct reader *reader, size_t max, size_t *length);
/* The same for text, which has no NUL inside. */
char *read_text(struct reader *reader, size_t max);

#endif

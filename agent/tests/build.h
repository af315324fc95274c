/* Builds payloads for tests and for the fuzzer's seeds. */
#ifndef BUILD_H
#define BUILD_H

#include <stdint.h>

#include "../src/buffer.h"

void put_integer(struct buffer *to, uint64_t value, size_t size);
void put_block(struct buffer *to, const void *data, size_t length);
void put_text(struct buffer *to, const char *text);
/* An operation with arguments: p takes a text, i an integer (uint64_t); the rest follow as va_args. */
void put_operation(struct buffer *to, unsigned code, unsigned flags, const char *kinds, ...);
/* A START that makes sense, with an operation of every kind. */
void put_start(struct buffer *to);
void put_exec(struct buffer *to);

#endif

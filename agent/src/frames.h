/* Frames: parsed and built, no input or output here. */
#ifndef FRAMES_H
#define FRAMES_H

#include <stdint.h>

#include "buffer.h"
#include "protocol.h"

struct frame {
	uint32_t length, stream;
	uint8_t type, channel;
};

/* Reads a header that was sent to the agent. -1 when it breaks a rule of the protocol. */
int frame_parse(const unsigned char header[static FRAME_HEADER], struct frame *frame);
/* Reads a header that an agent has sent, that of a guest. NULL, or the rule that it breaks. */
const char *frame_parse_answer(const unsigned char header[static FRAME_HEADER], struct frame *frame);

/* Appends a frame. -1 without memory. */
int frame_put(struct buffer *to, enum frame_type type, unsigned channel, uint32_t stream, const void *payload,
	      size_t length);
/* Appends a frame whose payload is one or two u32. */
int frame_put_u32(struct buffer *to, enum frame_type type, unsigned channel, uint32_t stream, uint32_t value);
int frame_put_exit(struct buffer *to, uint32_t stream, uint32_t code, uint32_t signal);

#endif

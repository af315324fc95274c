#include "frames.h"

#include <stdbool.h>
#include <string.h>

#include "reader.h"

static bool length_fits(uint8_t type, uint32_t length)
{
	switch (type) {
	case FRAME_START:
	case FRAME_EXEC:
	case FRAME_RUN:
	case FRAME_GUEST_START:
	case FRAME_GUEST_RUN:
	case FRAME_RESUME:
	case FRAME_REHEARSE:
		return length <= FRAME_MAX;
	case FRAME_GUEST:
		return length >= 1 && length <= GUEST_NAME_MAX;
	case FRAME_DATA:
		return length <= DATA_MAX;
	case FRAME_SIGNAL:
		return length == 8;
	case FRAME_ATTACH:
	case FRAME_RESIZE:
	case FRAME_CREDIT:
		return length == 4;
	case FRAME_WATCH:
	case FRAME_FILES:
	case FRAME_INFO:
	case FRAME_QUIT:
	case FRAME_PARK:
	case FRAME_EOF:
		return length == 0;
	case FRAME_CLOSE:
		return length == 0 || length == 4;
	default: /* unknown, or one that only the agent sends */
		return false;
	}
}

static uint32_t get_u32(const unsigned char *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static bool answer_length_fits(uint8_t type, uint32_t length)
{
	switch (type) {
	case FRAME_OK:
		return length <= FRAME_MAX;
	case FRAME_ERROR:
		return length >= ERROR_HEAD && length <= ERROR_HEAD + ERROR_TEXT_MAX;
	case FRAME_DATA: /* of no bytes it would cost no credit */
		return length >= 1 && length <= DATA_MAX;
	case FRAME_CREDIT:
		return length == 4;
	case FRAME_REPORTS:
		return length >= 4 && length <= REPORTS_MAX;
	default:
		return length == 8;
	}
}

static void read_header(const unsigned char header[static FRAME_HEADER], struct frame *frame)
{
	frame->length = get_u32(header);
	frame->type = header[5];
	frame->channel = header[6];
	frame->stream = get_u32(header + 8);
}

const char *frame_parse_answer(const unsigned char header[static FRAME_HEADER], struct frame *frame)
{
	read_header(header, frame);
	if (header[4] != PROTOCOL_VERSION || header[7] != 0 || frame->stream == 0)
		return "a frame that is none";
	switch (frame->type) {
	case FRAME_OK:
	case FRAME_ERROR:
	case FRAME_DATA:
	case FRAME_CREDIT:
	case FRAME_EXIT:
	case FRAME_REPORTS:
		break;
	default:
		return "a frame of a type that no agent sends";
	}
	if (!answer_length_fits(frame->type, frame->length))
		return "a frame of a length that its type does not have";
	bool output = frame->channel == CHANNEL_OUT || frame->channel == CHANNEL_ERR;
	if (frame->type == FRAME_DATA ? !output : frame->channel != 0)
		return "a frame on a channel that its type does not have";
	if (frame->stream == STREAM_WORKLOAD && frame->type != FRAME_OK && frame->type != FRAME_ERROR)
		return "a frame on the workload's stream that is no answer";
	return NULL;
}

int frame_parse(const unsigned char header[static FRAME_HEADER], struct frame *frame)
{
	read_header(header, frame);
	if (header[4] != PROTOCOL_VERSION || header[7] != 0 || frame->stream == 0)
		return -1;
	if (!length_fits(frame->type, frame->length))
		return -1;
	bool output = frame->channel == CHANNEL_OUT || frame->channel == CHANNEL_ERR;
	if (frame->type == FRAME_CREDIT ? !output : frame->channel != 0)
		return -1;
	if (frame->stream == STREAM_WORKLOAD && frame->type != FRAME_SIGNAL)
		return -1;
	return 0;
}

int frame_put(struct buffer *to, enum frame_type type, unsigned channel, uint32_t stream, const void *payload,
	      size_t length)
{
	unsigned char *room = buffer_reserve(to, FRAME_HEADER + length);
	if (room == NULL)
		return -1;
	write_integer(room, length, 4);
	room[4] = PROTOCOL_VERSION;
	room[5] = (unsigned char)type;
	room[6] = (unsigned char)channel;
	room[7] = 0;
	write_integer(room + 8, stream, 4);
	if (length > 0)
		memcpy(room + FRAME_HEADER, payload, length);
	buffer_commit(to, FRAME_HEADER + length);
	return 0;
}

int frame_put_u32(struct buffer *to, enum frame_type type, unsigned channel, uint32_t stream, uint32_t value)
{
	unsigned char payload[4];
	write_integer(payload, value, 4);
	return frame_put(to, type, channel, stream, payload, sizeof payload);
}

int frame_put_exit(struct buffer *to, uint32_t stream, uint32_t code, uint32_t signal)
{
	unsigned char payload[8];
	write_integer(payload, code, 4);
	write_integer(payload + 4, signal, 4);
	return frame_put(to, FRAME_EXIT, 0, stream, payload, sizeof payload);
}

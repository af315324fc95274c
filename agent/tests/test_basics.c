#include <stdlib.h>
#include <string.h>

#include "../src/buffer.h"
#include "../src/frames.h"
#include "../src/reader.h"
#include "../src/text.h"
#include "check.h"

void test_buffer(void)
{
	struct buffer buffer = {0};
	char chunk[1000];
	size_t put = 0, taken = 0;
	memset(chunk, 'x', sizeof chunk);
	for (int round = 0; round < 100; round++) {
		for (int i = 0; i < 7; i++) {
			chunk[0] = (char)put++;
			CHECK(buffer_append(&buffer, chunk, sizeof chunk) == 0);
		}
		for (int i = 0; i < 6 || (round == 99 && buffer.length > 0); i++) {
			CHECK_NUMBER((char)buffer_contents(&buffer)[0], (char)taken++);
			buffer_consume(&buffer, sizeof chunk);
		}
	}
	CHECK_NUMBER(put, taken);
	CHECK(buffer.data == NULL);
	CHECK(buffer_append(&buffer, "", 0) == 0);
	CHECK(buffer.data == NULL);
	CHECK(buffer_append(&buffer, "abc", 3) == 0);
	buffer_free(&buffer);
	CHECK_NUMBER(buffer.length, 0);
}

void test_text(void)
{
	char small[8], space[24];
	uint64_t number = 7;
	CHECK_NUMBER(TEXT(small, "abc", "def", "ghi"), 7);
	CHECK_TEXT(small, "abcdefg");
	CHECK_NUMBER(TEXT(small, ""), 0);
	CHECK_TEXT(text_number(space, 0), "0");
	CHECK_TEXT(text_number(space, UINT64_MAX), "18446744073709551615");
	CHECK_TEXT(text_digits(space, 42, 9), "000000042");
	CHECK(text_parse("", 0, 10, &number) < 0);
	CHECK(text_parse("x", 1, 10, &number) < 0);
	CHECK(text_parse("-1", 2, 10, &number) < 0);
	CHECK(text_parse("11", 2, 10, &number) < 0);
	CHECK(text_parse("99999999999999999999", 20, UINT64_MAX, &number) < 0);
	CHECK_NUMBER(number, 7);
	CHECK(text_parse("10", 2, 10, &number) == 0);
	CHECK_NUMBER(number, 10);
}

static int parse(uint32_t length, unsigned version, unsigned type, unsigned channel, unsigned zero, uint32_t stream)
{
	unsigned char header[FRAME_HEADER] = {0};
	struct frame frame;
	write_integer(header, length, 4);
	header[4] = (unsigned char)version;
	header[5] = (unsigned char)type;
	header[6] = (unsigned char)channel;
	header[7] = (unsigned char)zero;
	write_integer(header + 8, stream, 4);
	int result = frame_parse(header, &frame);
	if (result == 0) {
		CHECK_NUMBER(frame.length, length);
		CHECK_NUMBER(frame.type, type);
		CHECK_NUMBER(frame.channel, channel);
		CHECK_NUMBER(frame.stream, stream);
	}
	return result;
}

static void test_put(void)
{
	struct buffer buffer = {0};
	CHECK(frame_put(&buffer, FRAME_DATA, 2, 0x01020304, "xy", 2) == 0);
	static const unsigned char wanted[] = {2, 0, 0, 0, 1, 32, 2, 0, 4, 3, 2, 1, 'x', 'y'};
	CHECK_NUMBER(buffer.length, sizeof wanted);
	CHECK(memcmp(buffer_contents(&buffer), wanted, sizeof wanted) == 0);
	buffer_consume(&buffer, buffer.length);
	CHECK(frame_put_exit(&buffer, 9, 137, 9) == 0);
	CHECK(memcmp(buffer_contents(&buffer) + 12, "\211\0\0\0\11\0\0\0", 8) == 0);
	buffer_free(&buffer);
}

static bool answers(uint32_t length, unsigned type, unsigned channel, uint32_t stream)
{
	unsigned char header[FRAME_HEADER] = {0};
	struct frame frame;
	write_integer(header, length, 4);
	header[4] = PROTOCOL_VERSION;
	header[5] = (unsigned char)type;
	header[6] = (unsigned char)channel;
	write_integer(header + 8, stream, 4);
	return frame_parse_answer(header, &frame) == NULL && frame.length == length && frame.type == type;
}

static void test_answers(void)
{
	CHECK(answers(0, FRAME_OK, 0, 1));
	CHECK(answers(FRAME_MAX, FRAME_OK, 0, 1));
	CHECK(!answers(FRAME_MAX + 1, FRAME_OK, 0, 1));
	CHECK(!answers(0, FRAME_OK, 1, 1));
	CHECK(!answers(0, FRAME_OK, 0, 0));
	CHECK(answers(0, FRAME_OK, 0, STREAM_WORKLOAD));
	CHECK(!answers(8, FRAME_EXIT, 0, STREAM_WORKLOAD));
	CHECK(!answers(11, FRAME_ERROR, 0, 1) && answers(12, FRAME_ERROR, 0, 1));
	CHECK(answers(12 + 4096, FRAME_ERROR, 0, 1) && !answers(12 + 4097, FRAME_ERROR, 0, 1));
	CHECK(!answers(0, FRAME_DATA, 1, 1) && answers(1, FRAME_DATA, 1, 1) && answers(DATA_MAX, FRAME_DATA, 2, 1));
	CHECK(!answers(DATA_MAX + 1, FRAME_DATA, 1, 1) && !answers(1, FRAME_DATA, 0, 1) && !answers(1, FRAME_DATA, 3, 1));
	CHECK(answers(4, FRAME_CREDIT, 0, 1) && !answers(4, FRAME_CREDIT, 1, 1) && !answers(8, FRAME_CREDIT, 0, 1));
	CHECK(answers(8, FRAME_EXIT, 0, 1) && !answers(4, FRAME_EXIT, 0, 1));
	CHECK(answers(4, FRAME_REPORTS, 0, 1) && !answers(3, FRAME_REPORTS, 0, 1) && !answers(4, FRAME_REPORTS, 1, 1));
	CHECK(answers(REPORTS_MAX, FRAME_REPORTS, 0, 1) && !answers(REPORTS_MAX + 1, FRAME_REPORTS, 0, 1));
	for (unsigned type = 0; type < 256; type++) {
		bool known = type == FRAME_OK || type == FRAME_ERROR || type == FRAME_DATA || type == FRAME_CREDIT ||
			     type == FRAME_EXIT || type == FRAME_REPORTS;
		bool any = false;
		for (uint32_t length = 0; length <= 12; length += 4)
			any = any || answers(length, type, type == FRAME_DATA, 1);
		CHECK(any == known);
	}
}

void test_frames(void)
{
	CHECK(parse(0, 1, FRAME_INFO, 0, 0, 1) == 0);
	CHECK(parse(0, 2, FRAME_INFO, 0, 0, 1) < 0);
	CHECK(parse(0, 1, FRAME_INFO, 0, 1, 1) < 0);
	CHECK(parse(0, 1, FRAME_INFO, 0, 0, 0) < 0);
	CHECK(parse(1, 1, FRAME_INFO, 0, 0, 1) < 0);
	CHECK(parse(0, 1, FRAME_INFO, 1, 0, 1) < 0);
	CHECK(parse(0, 1, FRAME_INFO, 0, 0, STREAM_WORKLOAD) < 0);
	CHECK(parse(8, 1, FRAME_SIGNAL, 0, 0, STREAM_WORKLOAD) == 0);
	CHECK(parse(FRAME_MAX, 1, FRAME_START, 0, 0, 1) == 0);
	CHECK(parse(FRAME_MAX + 1, 1, FRAME_START, 0, 0, 1) < 0);
	CHECK(parse(DATA_MAX, 1, FRAME_DATA, 0, 0, 1) == 0);
	CHECK(parse(DATA_MAX + 1, 1, FRAME_DATA, 0, 0, 1) < 0);
	CHECK(parse(1, 1, FRAME_DATA, 1, 0, 1) < 0);
	CHECK(parse(4, 1, FRAME_CREDIT, 0, 0, 1) < 0);
	CHECK(parse(4, 1, FRAME_CREDIT, 1, 0, 1) == 0);
	CHECK(parse(4, 1, FRAME_CREDIT, 2, 0, 1) == 0);
	CHECK(parse(4, 1, FRAME_CREDIT, 3, 0, 1) < 0);
	for (unsigned type = 0; type < 256; type++) {
		bool sent_by_agent = type == FRAME_OK || type == FRAME_ERROR || type == FRAME_EXIT;
		bool known = (type >= 1 && type <= 14) || (type >= 16 && type <= 19) || (type >= 32 && type <= 36);
		bool any = false;
		for (uint32_t length = 0; length <= 8; length += 4)
			any = any || parse(length, 1, type, type == FRAME_CREDIT, 0, 1) == 0;
		CHECK(any == (known && !sent_by_agent));
	}
	test_put();
	test_answers();
}

#include "out.h"

enum { OUT_SIZE = 16 << 10, TEXT_MAX = 200 };

static char buffer[OUT_SIZE];
static size_t filled;
static int64_t facts;
static bool first_item;

static void flush(void)
{
	for (size_t at = 0; at < filled;) {
		long written = sys(__NR_write, 1, buffer + at, filled - at);
		if (written == -EINTR)
			continue;
		if (written <= 0)
			sys(__NR_exit_group, 3);
		at += (size_t)written;
	}
	filled = 0;
}

static void put(const char *text)
{
	for (; *text; text++) {
		if (filled == OUT_SIZE)
			flush();
		buffer[filled++] = *text;
	}
}

static void put_text(const char *text)
{
	char one[2] = {0};
	put("\"");
	for (size_t i = 0; text[i] && i < TEXT_MAX; i++) {
		one[0] = text[i] < ' ' || text[i] > '~' ? '?' : text[i];
		put(one[0] == '"' || one[0] == '\\' ? "\\" : "");
		put(one);
	}
	put("\"");
}

static void put_number(int64_t value)
{
	char space[24];
	put(value < 0 ? "-" : "");
	put(digits(space, value < 0 ? 0 - (uint64_t)value : (uint64_t)value));
}

static void key_of(const char *key)
{
	put(",\"");
	put(key);
	put("\":");
}

void fact_begin(const char *kind)
{
	put("{\"fact\":\"");
	put(kind);
	put("\"");
	facts++;
}

void fact_end(void)
{
	put("}\n");
}

void fact_text(const char *key, const char *value)
{
	key_of(key);
	put_text(value);
}

void fact_number(const char *key, int64_t value)
{
	key_of(key);
	put_number(value);
}

void fact_flag(const char *key, bool value)
{
	key_of(key);
	put(value ? "true" : "false");
}

void list_begin(const char *key)
{
	key_of(key);
	put("[");
	first_item = true;
}

void list_number(int64_t value)
{
	put(first_item ? "" : ",");
	first_item = false;
	put_number(value);
}

void list_end(void)
{
	put("]");
}

void facts_finish(void)
{
	int64_t before = facts;
	fact_begin("end");
	fact_number("facts", before);
	fact_end();
	flush();
}

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../src/log.h"
#include "check.h"

static size_t load(int bundle, const char *name, char *to, size_t size)
{
	int fd = openat(bundle, name, O_RDONLY);
	if (fd < 0)
		return 0;
	ssize_t got = read(fd, to, size - 1);
	close(fd);
	to[got > 0 ? got : 0] = 0;
	return got > 0 ? (size_t)got : 0;
}

static void put(unsigned channel, const char *text)
{
	log_write(&workload_log, channel, (const unsigned char *)text, strlen(text));
}

static void test_format(int bundle)
{
	char text[4096];
	log_open(&workload_log, bundle, 0, 1);
	put(1, "one\n");
	put(2, "two\n\nthree");
	put(2, "\n");
	log_close(&workload_log);
	load(bundle, "log", text, sizeof text);
	const char *line = text;
	static const char *const wanted[] = {" stdout F one", " stderr F two", " stderr F ", " stderr P three", " stderr F "};
	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
		const char *end = strchr(line, '\n');
		CHECK(end != NULL);
		if (end == NULL)
			return;
		CHECK(line[4] == '-' && line[7] == '-' && line[10] == 'T' && line[13] == ':' && line[19] == '.' && line[29] == 'Z');
		CHECK(strncmp(line, "20", 2) == 0);
		CHECK((size_t)(end - line) == 30 + strlen(wanted[i]) && memcmp(line + 30, wanted[i], strlen(wanted[i])) == 0);
		line = end + 1;
	}
	CHECK(*line == 0);
}

static void test_many_lines(int bundle)
{
	static char lines[16384], text[16384 * 50];
	memset(lines, '\n', sizeof lines);
	unlinkat(bundle, "log", 0);
	log_open(&workload_log, bundle, 0, 1);
	log_write(&workload_log, 1, (const unsigned char *)lines, sizeof lines);
	log_close(&workload_log);
	size_t count = 0, length = load(bundle, "log", text, sizeof text);
	for (size_t i = 0; i < length; i++)
		count += text[i] == '\n';
	CHECK_NUMBER(count, sizeof lines);
}

static void test_rotation(int bundle)
{
	char text[4096];
	unlinkat(bundle, "log", 0);
	log_open(&workload_log, bundle, 100, 3);
	for (char letter = 'a'; letter <= 'j'; letter++) {
		char line[72];
		memset(line, letter, 70);
		line[70] = '\n';
		line[71] = 0;
		put(1, line);
	}
	log_close(&workload_log);
	CHECK_NUMBER(load(bundle, "log", text, sizeof text), 0);
	CHECK(load(bundle, "log.1", text, sizeof text) > 0 && strchr(text, 'j') != NULL);
	CHECK(load(bundle, "log.2", text, sizeof text) > 0 && strchr(text, 'i') != NULL);
	CHECK(faccessat(bundle, "log.3", F_OK, 0) < 0);
	log_open(&workload_log, bundle, 100, 0);
	put(1, "nothing\n");
	CHECK_NUMBER(load(bundle, "log", text, sizeof text), 0);
}

/* What comes at once is let through up to a burst; then its writers wait, and what they have waited for comes off. */
static void test_rate(int bundle)
{
	static char lines[1 << 20];
	uint64_t written = 0;
	memset(lines, 'x', sizeof lines);
	lines[sizeof lines - 1] = '\n';
	log_open(&workload_log, bundle, 4096, 1);
	for (; log_wait(&workload_log) == 0 && written < 2 * LOG_BURST; written += sizeof lines)
		log_write(&workload_log, 1, (const unsigned char *)lines, sizeof lines);
	CHECK(written >= LOG_BURST && written < 2 * LOG_BURST);
	int first = log_wait(&workload_log);
	CHECK(first > 0 && workload_log.awaited);
	workload_log.paid -= (uint64_t)first;
	CHECK_NUMBER((uint64_t)log_wait(&workload_log), 0);
	CHECK(!workload_log.awaited);
	workload_log.paid -= 3600 * 1000;
	log_write(&workload_log, 1, (const unsigned char *)"x\n", 2);
	CHECK(workload_log.owed < 100);
	log_close(&workload_log);
}

void test_log(void)
{
	int top = open(check_directory(), O_PATH | O_DIRECTORY);
	mkdirat(top, "log", 0700);
	int bundle = openat(top, "log", O_RDONLY | O_DIRECTORY);
	test_format(bundle);
	test_many_lines(bundle);
	test_rotation(bundle);
	test_rate(bundle);
	close(bundle);
	close(top);
}

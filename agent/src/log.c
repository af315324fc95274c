#define _GNU_SOURCE
#include "log.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h> /* renameat */
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"
#include "text.h"

enum { LINES = 64, PREFIX = 48, LEAST_WAIT_MS = 10 };

struct log workload_log = {.name = "log", .bundle = -1, .fd = -1}, vmm_log = {.name = "vmm.log", .bundle = -1, .fd = -1};

static void open_file(struct log *log)
{
	struct stat is;
	/* Not blocking: whatever else may be there under that name, the supervisor does not wait for it. */
	log->fd = openat(log->bundle, log->name,
			 O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
	if (log->fd >= 0 && (fstat(log->fd, &is) < 0 || !S_ISREG(is.st_mode)))
		log_close(log);
	if (log->fd >= 0)
		log->size = (uint64_t)is.st_size;
}

void log_open(struct log *log, int bundle, uint32_t size, uint32_t files)
{
	log->bundle = bundle;
	log->limit = size;
	log->files = bundle < 0 ? 0 : files; /* a guest has no bundle */
	if (files > 0)
		open_file(log);
}

void log_close(struct log *log)
{
	if (log->fd >= 0)
		close(log->fd);
	log->fd = -1;
}

static const char *name_of(const struct log *log, char name[static 32], uint32_t number)
{
	char space[24];
	const char *const parts[] = {log->name, number ? "." : NULL, text_number(space, number), NULL};
	text_join(name, 32, parts);
	return name;
}

static void rotate(struct log *log)
{
	char from[32], to[32];
	log_close(log);
	if (log->files == 1)
		unlinkat(log->bundle, log->name, 0);
	for (uint32_t number = log->files - 1; number > 0; number--)
		renameat(log->bundle, name_of(log, from, number - 1), log->bundle, name_of(log, to, number));
	open_file(log);
}

/* Year, month and day in the Gregorian calendar; gmtime_r(3) would read the time zone's files. */
static void civil_date(uint64_t days, uint64_t date[static 3])
{
	days += 719468; /* since 0000-03-01: leap days then come last */
	uint64_t era = days / 146097, of_era = days % 146097;
	uint64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	uint64_t of_year = of_era - (365 * year + year / 4 - year / 100), month = (5 * of_year + 2) / 153;
	date[2] = of_year - (153 * month + 2) / 5 + 1;
	date[1] = month < 10 ? month + 3 : month - 9;
	date[0] = year + era * 400 + (date[1] <= 2);
}

/* `2026-01-02T03:04:05.678901234Z stdout F `: the length. */
static size_t make_prefix(char prefix[static PREFIX], const struct timespec *now, unsigned channel, bool whole)
{
	uint64_t seconds = (uint64_t)now->tv_sec, date[3];
	char space[24];
	size_t length = 0;
	civil_date(seconds / 86400, date);
	const struct {
		uint64_t value;
		unsigned digits;
		const char *after;
	} parts[] = {{date[0], 4, "-"},		      {date[1], 2, "-"},	   {date[2], 2, "T"},
		     {seconds / 3600 % 24, 2, ":"},   {seconds / 60 % 60, 2, ":"}, {seconds % 60, 2, "."},
		     {(uint64_t)now->tv_nsec, 9, "Z"}};
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		length += text_join(prefix + length, PREFIX - length,
				    (const char *const[]){text_digits(space, parts[i].value, parts[i].digits),
							  parts[i].after, NULL});
	return length + text_join(prefix + length, PREFIX - length,
				  (const char *const[]){channel == 2 ? " stderr " : " stdout ", whole ? "F " : "P ", NULL});
}

static void pay(struct log *log)
{
	uint64_t now = loop_now(), made = (now - log->paid) * LOG_RATE / 1000;
	if (made == 0)
		return;
	log->owed = log->owed > made ? log->owed - made : 0;
	log->paid = now;
}

int log_wait(struct log *log)
{
	if (log->owed <= LOG_BURST && !log->awaited)
		return 0;
	pay(log);
	/* Who had to wait waits for some room: not for every line anew. */
	uint64_t most = log->awaited ? LOG_BURST - LOG_RATE * LEAST_WAIT_MS / 1000 : LOG_BURST;
	log->awaited = log->owed > most;
	return log->awaited ? (int)((log->owed - most) * 1000 / LOG_RATE) + 1 : 0;
}

/* All of it or nothing: an entry that was cut off by a full disk is taken back. */
static void append(struct log *log, struct iovec *parts, int count, size_t length)
{
	ssize_t written = writev(log->fd, parts, count);
	if (written == (ssize_t)length)
		log->size += length;
	else if (written > 0 && ftruncate(log->fd, (off_t)log->size) < 0)
		log->size += (size_t)written;
}

void log_write(struct log *log, unsigned channel, const unsigned char *data, size_t length)
{
	char prefix[2][PREFIX];
	struct iovec parts[3 * LINES];
	struct timespec now;
	if (log->files == 0)
		return;
	if (log->fd < 0)
		open_file(log);
	if (log->fd < 0)
		return;
	pay(log);
	clock_gettime(CLOCK_REALTIME, &now);
	size_t prefix_length = make_prefix(prefix[0], &now, channel, true);
	make_prefix(prefix[1], &now, channel, false);
	while (length > 0) {
		size_t total = 0;
		int count = 0;
		while (length > 0 && count < 3 * LINES) {
			const unsigned char *end = memchr(data, '\n', length);
			size_t line = end ? (size_t)(end - data) : length;
			parts[count++] = (struct iovec){prefix[end == NULL], prefix_length};
			parts[count++] = (struct iovec){(void *)(uintptr_t)data, line};
			parts[count++] = (struct iovec){"\n", 1};
			total += prefix_length + line + 1;
			data += line + (end != NULL);
			length -= line + (end != NULL);
		}
		append(log, parts, count, total);
		log->owed += total;
		if (log->limit > 0 && log->size > log->limit)
			rotate(log);
		if (log->fd < 0)
			return;
	}
}

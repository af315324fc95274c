#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h> /* renameat */
#include <string.h>
#include <unistd.h>

#include "supervisor.h"
#include "text.h"

static int put(struct buffer *to, const char *text)
{
	return buffer_append(to, text, strlen(text));
}

static int put_time(struct buffer *to, const struct timespec *time)
{
	char seconds[24], millis[24], text[64];
	TEXT(text, text_number(seconds, (uint64_t)time->tv_sec), ".",
	     text_digits(millis, (uint64_t)time->tv_nsec / 1000000, 3));
	return put(to, text);
}

static int put_string(struct buffer *to, const unsigned char *bytes, size_t length)
{
	static const char hex[] = "0123456789abcdef";
	int result = put(to, "\"");
	for (size_t i = 0; i < length && result == 0; i++) {
		const char escaped[] = {'\\', 'u', '0', '0', hex[bytes[i] >> 4], hex[bytes[i] & 15]};
		bool plain = bytes[i] >= 0x20 && bytes[i] < 0x7f && bytes[i] != '"' && bytes[i] != '\\';
		result = plain ? buffer_append(to, &bytes[i], 1) : buffer_append(to, escaped, sizeof escaped);
	}
	return result == 0 ? put(to, "\"") : -1;
}

static int put_reports(struct buffer *to, const struct buffer *reports)
{
	struct reader reader = {0};
	if (reports->length > 0)
		reader = (struct reader){.at = buffer_contents(reports), .end = buffer_contents(reports) + reports->length};
	int result = put(to, "[");
	for (bool first = true; reader.at != reader.end && result == 0; first = false) {
		uint32_t length = read_u32(&reader);
		const unsigned char *bytes = read_bytes(&reader, length);
		if (bytes == NULL)
			break;
		result = put(to, first ? "" : ",") | put_string(to, bytes, length);
	}
	return result | put(to, "]");
}

static int put_error(struct buffer *to, const char *error)
{
	if (*error == 0)
		return 0;
	return put(to, ",\"error\":") | put_string(to, (const unsigned char *)error, strlen(error));
}

static int make_json(struct buffer *to, const struct supervisor *of, const struct buffer *reports)
{
	char code[24], number[24], text[96];
	TEXT(text, "{\"code\":", text_number(code, of->code), ",\"signal\":",
	     text_number(number, of->signal), ",\"started\":");
	return put(to, text) | put_time(to, &of->started) | put(to, ",\"ended\":") | put_time(to, &of->ended) |
	       put(to, ",\"reports\":") | put_reports(to, reports) | put_error(to, of->error) | put(to, "}\n");
}

int exit_file_write(const struct supervisor *of, const struct buffer *reports)
{
	struct buffer json = {0};
	int fd = openat(of->bundle, "exit.json.new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	int error = fd < 0 ? errno : 0;
	if (!error && make_json(&json, of, reports) < 0)
		error = ENOMEM;
	if (!error && write(fd, json.data, json.length) != (ssize_t)json.length)
		error = ENOSPC;
	if (fd >= 0)
		close(fd);
	if (!error && renameat(of->bundle, "exit.json.new", of->bundle, "exit.json") < 0)
		error = errno;
	if (error)
		unlinkat(of->bundle, "exit.json.new", 0);
	buffer_free(&json);
	errno = error;
	return error ? -1 : 0;
}

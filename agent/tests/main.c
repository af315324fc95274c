#define _GNU_SOURCE
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"

static unsigned checks, failures;
static char directory[] = "/tmp/bulkhead-agent-test-XXXXXX";

void check_true(bool holds, const char *what, const char *file, int line)
{
	checks++;
	if (holds)
		return;
	failures++;
	fprintf(stderr, "%s:%d: %s\n", file, line, what);
}

void check_numbers(long long is, long long wanted, const char *what, const char *file, int line)
{
	checks++;
	if (is == wanted)
		return;
	failures++;
	fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", file, line, what, is, wanted);
}

void check_texts(const char *is, const char *wanted, const char *what, const char *file, int line)
{
	checks++;
	if (is != NULL && strcmp(is, wanted) == 0)
		return;
	failures++;
	fprintf(stderr, "%s:%d: %s is \"%s\", not \"%s\"\n", file, line, what, is ? is : "(null)", wanted);
}

const char *check_directory(void)
{
	return directory;
}

static int remove_one(const char *path, const struct stat *is, int type, struct FTW *walk)
{
	(void)is;
	(void)type;
	(void)walk;
	return remove(path);
}

int main(void)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} tests[] = {
		{"buffer", test_buffer}, {"text", test_text},	  {"frames", test_frames}, {"requests", test_requests},
		{"users", test_users},	 {"inroot", test_inroot}, {"log", test_log},	   {"files", test_files},
		{"guest", test_guest},	 {"link", test_link},	  {"deadline", test_deadline},
	};
	if (mkdtemp(directory) == NULL)
		return 1;
	for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
		unsigned before = checks, failed = failures;
		tests[i].run();
		printf("%-10s %4u checks, %u failed\n", tests[i].name, checks - before, failures - failed);
	}
	nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return failures > 0;
}

/* What a unikernel from a template is told of who and where it is. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "context.h"
#include "reader.h"
#include "solo.h"

enum { TOLD_SIZE = 32 << 10, WORDS = 2048, PAUSE_MS = 2 };

/* A port has no data, but an end, as long as nobody is connected on the host. */
static bool hear(int port, void *to, size_t length)
{
	for (size_t got = 0; got < length;) {
		ssize_t part = read(port, (char *)to + got, length - got);
		if (part < 0 && errno != EINTR)
			return false;
		if (part == 0)
			nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000L}, NULL);
		got += part > 0 ? (size_t)part : 0;
	}
	return true;
}

/* A guest that becomes a template waits here, and each that is started from it is told who and where it is: a length,
   a list of operations as the supervisor has them, words that each end in NUL. NULL: it cannot go on. */
char **solo_told(int port)
{
	static unsigned char told[TOLD_SIZE];
	static char *words[WORDS];
	struct oplist list;
	struct oplist_error wrong;
	struct context context;
	uint32_t length;
	size_t count = 0;
	errno = 0;
	if (write(port, "R", 1) != 1 || !hear(port, &length, sizeof length) || length == 0 || length >= sizeof told ||
	    !hear(port, told, length))
		return NULL;
	struct reader reader = {.at = told, .end = told + length};
	context_init(&context, PLACE_SUPERVISOR, PHASE_PREPARE);
	if (oplist_parse(&reader, PLACE_SUPERVISOR, &list, &wrong) < 0) {
		solo_say("was told what makes no sense:", wrong.text);
		return NULL;
	}
	if (operations_run(&context, &list) < 0)
		solo_say("cannot become what it was told:", context.failure.text);
	/* The byte behind what was told is 0: the last word ends there at the latest. */
	for (char *word = (char *)reader.at; word < (char *)reader.end && count < WORDS - 1; word += strlen(word) + 1)
		words[count++] = word;
	words[count] = NULL;
	return context.failure.error != 0 || write(port, "A", 1) != 1 ? NULL : words;
}
